//! Profiles from files, in Docker's form (a superset of the OCI form): rules may depend on the
//! container's capabilities, the architecture and the kernel's version.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Map, Value, json};

/// What is wrong with a profile's file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or not a profile.
    #[error("it is no seccomp profile")]
    Json(#[from] serde_json::Error),
    /// A field that decides over system calls is not understood.
    #[error("it is no seccomp profile: {0}")]
    Field(String),
}

/// What rules may depend on.
#[derive(Clone, Debug)]
pub struct Conditions<'a> {
    /// The container's capabilities, without `CAP_`.
    pub capabilities: &'a [String],
    /// The machine's architecture, in Go's words.
    pub architecture: &'a str,
    /// The kernel's major and minor version.
    pub kernel: (u32, u32),
}

/// Resolves a profile for one container.
pub fn parse(content: &str, conditions: &Conditions<'_>) -> Result<LinuxSeccomp, Error> {
    let mut profile: Value = serde_json::from_str(content)?;
    let Some(object) = profile.as_object_mut() else { return Err(Error::Field("it is no object".into())) };
    if let Some(map) = object.remove("archMap") {
        let architectures = architectures(&map, conditions.architecture)?;
        object.entry("architectures").or_insert(architectures);
    }
    let rules = object.remove("syscalls").unwrap_or(Value::Null);
    let rules = match rules {
        Value::Null => Vec::new(),
        Value::Array(rules) => rules,
        _ => return Err(Error::Field("\"syscalls\" is no list".into())),
    };
    let mut kept = Vec::with_capacity(rules.len());
    for rule in rules {
        let Value::Object(mut rule) = rule else { return Err(Error::Field("a rule is no object".into())) };
        let includes = rule.remove("includes");
        let excludes = rule.remove("excludes");
        if !applies(includes.as_ref(), conditions, true)? || !applies(excludes.as_ref(), conditions, false)? {
            continue;
        }
        kept.push(Value::Object(plain(rule)));
    }
    object.insert("syscalls".into(), Value::Array(kept));
    for unused in ["defaultErrno", "comment"] {
        object.remove(unused);
    }
    Ok(serde_json::from_value(profile)?)
}

/// The architectures that a machine of this one runs.
fn architectures(map: &Value, architecture: &str) -> Result<Value, Error> {
    let native = match architecture {
        "amd64" => "SCMP_ARCH_X86_64",
        "arm64" => "SCMP_ARCH_AARCH64",
        other => return Err(Error::Field(format!("\"archMap\" is not understood on {other}"))),
    };
    let entries = map.as_array().ok_or_else(|| Error::Field("\"archMap\" is no list".into()))?;
    let entry = entries.iter().find(|entry| entry["architecture"] == native);
    let mut list = vec![json!(native)];
    if let Some(more) = entry.and_then(|entry| entry["subArchitectures"].as_array()) {
        list.extend(more.iter().cloned());
    }
    Ok(Value::Array(list))
}

/// A rule as the OCI form has it.
fn plain(mut rule: Map<String, Value>) -> Map<String, Value> {
    if let Some(name) = rule.remove("name") {
        rule.entry("names").or_insert(json!([name]));
    }
    rule.remove("comment");
    rule.remove("errno");
    if rule.get("args").is_some_and(Value::is_null) {
        rule.remove("args");
    }
    rule
}

/// Whether a rule's conditions let it count: all of `includes` hold, none of `excludes` does.
fn applies(condition: Option<&Value>, conditions: &Conditions<'_>, including: bool) -> Result<bool, Error> {
    let Some(condition) = condition.and_then(Value::as_object) else { return Ok(true) };
    for (key, value) in condition {
        let texts: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let holds = match key.as_str() {
            "caps" => {
                let has = |cap: &&str| {
                    let name = cap.strip_prefix("CAP_").unwrap_or(cap);
                    conditions.capabilities.iter().any(|own| own == name)
                };
                if including { texts.iter().all(has) } else { texts.iter().any(has) }
            }
            "arches" => texts.contains(&conditions.architecture),
            "minKernel" => {
                let text = value.as_str().unwrap_or_default();
                let version =
                    text.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
                let version: (u32, u32) =
                    version.ok_or_else(|| Error::Field(format!("\"minKernel\" \"{text}\" is no version")))?;
                conditions.kernel >= version
            }
            other => return Err(Error::Field(format!("there is no condition \"{other}\""))),
        };
        let empty = texts.is_empty() && key != "minKernel";
        if !empty && holds != including {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["umount2"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["futex"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["s390_x"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}}
        ]}"#;

    fn names(capabilities: &[String]) -> Vec<String> {
        let conditions = Conditions { capabilities, architecture: "amd64", kernel: (6, 1) };
        let profile = parse(PROFILE, &conditions).unwrap();
        assert_eq!(profile.architectures().as_ref().map(Vec::len), Some(2));
        profile.syscalls().iter().flatten().flat_map(|rule| rule.names().clone()).collect()
    }

    #[test]
    fn rules_depend_on_capabilities_kernel_and_architecture() {
        assert_eq!(names(&[]), ["read", "umount2", "futex"]);
        assert_eq!(names(&["SYS_ADMIN".into()]), ["read", "mount", "futex"]);
    }

    #[test]
    fn nonsense_is_refused() {
        let conditions = Conditions { capabilities: &[], architecture: "amd64", kernel: (6, 1) };
        for bad in ["", "[]", "{}", r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":3}"#] {
            assert!(parse(bad, &conditions).is_err(), "{bad}");
        }
    }
}
