//! Reading a `config.json` (`config.md`), or the process of one, so that an error names its field.
//!
//! The specification's crate knows a fixed set of words and calls a few flags by names of its own.
//! What it would stumble over and need not, is put right first: architectures that no kernel of this
//! machine runs, and capabilities that are not known, are left out, as runc does.

use std::collections::BTreeSet;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxIntelRdt, LinuxResources, Mount, Process, Spec,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::base::report;
use crate::security::capability::number;

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no JSON.
    #[error("it is no JSON")]
    Syntax(#[source] serde_json::Error),
    /// A field is missing or has a value that makes no sense.
    #[error("{field}: {problem}")]
    Field {
        /// `process.user.uid`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A configuration, and what was left out of it.
#[derive(Debug)]
pub struct Config<T> {
    /// What is understood.
    pub value: T,
    /// Sentences for the user.
    pub warnings: Vec<String>,
}

/// Reads a container's configuration.
pub fn parse(bytes: &[u8]) -> Result<Config<Spec>, Error> {
    let mut config = read::<Spec>(bytes, "")?;
    check_version(config.value.version())?;
    if let Some(rdt) = config.value.linux_mut().as_mut().and_then(|linux| linux.intel_rdt_mut().as_mut()) {
        old_monitoring(rdt, bytes)?;
    }
    Ok(config)
}

/// Before version 1.3 of the specification monitoring had two switches, whose names the parser does not know.
fn old_monitoring(rdt: &mut LinuxIntelRdt, bytes: &[u8]) -> Result<(), Error> {
    let value: Value = serde_json::from_slice(bytes).map_err(Error::Syntax)?;
    for name in ["enableCMT", "enableMBM"] {
        match value.pointer("/linux/intelRdt").and_then(|rdt| rdt.get(name)) {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(Value::Bool(true)) => {
                rdt.set_enable_monitoring(Some(true));
            }
            Some(_) => {
                let field = format!("linux.intelRdt.{name}");
                return Err(Error::Field { field, problem: "it is neither true nor false".to_owned() });
            }
        }
    }
    Ok(())
}

/// Reads a process, as `exec --process` takes it.
pub fn parse_process(bytes: &[u8]) -> Result<Config<Process>, Error> {
    read::<Process>(bytes, "process")
}

/// Reads limits, as `update --resources` takes them.
pub fn parse_resources(bytes: &[u8]) -> Result<LinuxResources, Error> {
    Ok(read::<LinuxResources>(bytes, "linux.resources")?.value)
}

/// Mounts, as the `mounts` section of a configuration has them: alone, or in one.
#[derive(Debug, serde::Deserialize)]
struct Mounts<T> {
    mounts: Vec<T>,
}

#[derive(Debug, serde::Deserialize)]
struct Place {
    destination: std::path::PathBuf,
}

/// Reads mounts, as `mounts add` takes them.
pub fn parse_mounts(bytes: &[u8]) -> Result<Vec<Mount>, Error> {
    read_mounts(bytes)
}

/// Reads the places of mounts, as `mounts remove` takes them.
pub fn parse_mount_places(bytes: &[u8]) -> Result<Vec<std::path::PathBuf>, Error> {
    Ok(read_mounts::<Place>(bytes)?.into_iter().map(|place| place.destination).collect())
}

fn read_mounts<T: DeserializeOwned>(bytes: &[u8]) -> Result<Vec<T>, Error> {
    let value: Value = serde_json::from_slice(bytes).map_err(Error::Syntax)?;
    let whole = if value.is_array() { serde_json::json!({ "mounts": value }) } else { value };
    Ok(read::<Mounts<T>>(whole.to_string().as_bytes(), "")?.value.mounts)
}

fn read<T: DeserializeOwned>(bytes: &[u8], prefix: &str) -> Result<Config<T>, Error> {
    // Nearly always there is nothing to put right.
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(Config { value, warnings: Vec::new() });
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(Error::Syntax)?;
    if !value.is_object() {
        let field = if prefix.is_empty() { "the configuration" } else { prefix };
        return Err(Error::Field { field: field.to_owned(), problem: "it is no object".to_owned() });
    }
    let mut warnings = Vec::new();
    let process = if prefix == "process" { Some(&mut value) } else { value.get_mut("process") };
    if let Some(process) = process {
        tidy_process(process, &mut warnings);
    }
    if let Some(Value::Array(list)) = value.pointer_mut("/linux/seccomp/architectures") {
        // What the machine does not run is denied by leaving it out.
        list.retain(|arch| !arch.is_string() || serde_json::from_value::<Arch>(arch.clone()).is_ok());
    }
    match serde_json::from_value(value.clone()) {
        Ok(parsed) => Ok(Config { value: parsed, warnings }),
        Err(error) => Err(blame::<T>(&value, &error.to_string(), prefix)),
    }
}

/// Leaves out capabilities that nobody here can give, a mask of those that can be given being `held`; says
/// which. "Runtimes SHOULD NOT fail" for them, but tell (`config.md`, "Linux Process", since version 1.1).
pub fn leave_out_capabilities(process: &mut Process, held: u64) -> Vec<String> {
    let Some(mut sets) = process.capabilities().clone() else { return Vec::new() };
    let mut lost = BTreeSet::new();
    let mut held_of = |set: &Option<Capabilities>| {
        let (kept, out): (Capabilities, Capabilities) = set.iter().flatten().partition(|capability| {
            // What has no number is left out elsewhere.
            number(&capability.to_string()).is_none_or(|number| held & 1 << number != 0)
        });
        lost.extend(out.iter().map(Capability::to_string));
        set.is_some().then_some(kept)
    };
    let (bounding, effective) = (held_of(sets.bounding()), held_of(sets.effective()));
    let (permitted, inheritable) = (held_of(sets.permitted()), held_of(sets.inheritable()));
    let ambient = held_of(sets.ambient());
    if !lost.is_empty() {
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
        sets.set_inheritable(inheritable).set_ambient(ambient);
        process.set_capabilities(Some(sets));
    }
    let told = |name: &String| {
        format!("process.capabilities: \"CAP_{name}\" is not the caller's to give and is left out")
    };
    lost.iter().map(told).collect()
}

fn tidy_process(process: &mut Value, warnings: &mut Vec<String>) {
    for (set, list) in process.get_mut("capabilities").and_then(Value::as_object_mut).into_iter().flatten() {
        let Value::Array(list) = list else { continue };
        list.retain(|name| {
            let known = !name.is_string() || serde_json::from_value::<Capability>(name.clone()).is_ok();
            if !known {
                warnings.push(format!("process.capabilities.{set}: {name} is unknown and left out"));
            }
            known
        });
    }
    if let Some(Value::Object(affinity)) = process.get_mut("execCPUAffinity") {
        // An empty one is as good as none.
        affinity.retain(|_, list| list != "");
    }
    if let Some(Value::Array(flags)) = process.pointer_mut("/scheduler/flags") {
        for flag in flags {
            // The crate's own spelling of the specification's words.
            let other = match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
                Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
                _ => continue,
            };
            *flag = Value::from(other);
        }
    }
}

/// `ociVersion` is a semantic version of the specification, of which there is the first.
fn check_version(version: &str) -> Result<(), Error> {
    let bad = |problem: &str| {
        Err(Error::Field {
            field: "ociVersion".to_owned(),
            problem: report::plain(&format!("\"{version}\" {problem}")),
        })
    };
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    let number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if numbers.len() != 3 || !numbers.iter().all(number) {
        return bad("is no version of the form 1.2.3");
    }
    if numbers[0] != "1" { bad("is a version that is not supported: 1.x.y is") } else { Ok(()) }
}

type Path = Vec<Step>;

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Key(String),
    Index(usize),
}

fn at<'a>(value: &'a mut Value, path: &[Step]) -> Option<&'a mut Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    })
}

fn children(value: &Value) -> Vec<Step> {
    match value {
        Value::Object(map) => map.keys().cloned().map(Step::Key).collect(),
        Value::Array(list) => (0..list.len()).map(Step::Index).collect(),
        _ => Vec::new(),
    }
}

fn complaint<T: DeserializeOwned>(value: Value) -> Option<String> {
    serde_json::from_value::<T>(value).err().map(|error| error.to_string())
}

/// Finds the field that an error is about: the error is another one, or none, without it.
fn blame<T: DeserializeOwned>(root: &Value, problem: &str, prefix: &str) -> Error {
    let missing = problem.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    let (path, problem) = match missing {
        Some(name) => {
            let found =
                lacking::<T>(root, name, problem, true).or_else(|| lacking::<T>(root, name, problem, false));
            let mut path = found.unwrap_or_default();
            path.push(Step::Key(name.to_owned()));
            (path, "it is missing".to_owned())
        }
        None => (offending::<T>(root, problem), problem.to_owned()),
    };
    let mut field = prefix.to_owned();
    for step in path {
        match step {
            Step::Key(key) if field.is_empty() => field = key,
            Step::Key(key) => field = format!("{field}.{key}"),
            Step::Index(index) => field = format!("{field}[{index}]"),
        }
    }
    if field.is_empty() {
        field = "the configuration".to_owned();
    }
    Error::Field { field: report::plain(&field), problem: report::plain(&problem) }
}

fn offending<T: DeserializeOwned>(root: &Value, problem: &str) -> Path {
    let mut root = root.clone();
    let mut path = Path::new();
    loop {
        let mut copy = root.clone();
        let Some(here) = at(&mut copy, &path) else { return path };
        let below = children(here);
        let culprit = below.iter().find(|step| matters::<T>(&root, &path, step, problem)).cloned();
        match culprit.or_else(|| last_of_several::<T>(&mut root, &path, below, problem)) {
            Some(step) => path.push(step),
            None => return path,
        }
    }
}

/// Of several parts with the same complaint none seems to matter alone: all are taken away one by one
/// until it changes, and the last is one of them.
fn last_of_several<T: DeserializeOwned>(
    root: &mut Value,
    parent: &[Step],
    below: Vec<Step>,
    problem: &str,
) -> Option<Step> {
    // From the end, so that the indices before stay what they are.
    for step in below.into_iter().rev() {
        if matters::<T>(root, parent, &step, problem) {
            return Some(step);
        }
        match (at(root, parent), &step) {
            (Some(Value::Object(map)), Step::Key(key)) => drop(map.remove(key)),
            (Some(Value::Array(list)), Step::Index(index)) => drop(list.remove(*index)),
            _ => return None,
        }
    }
    None
}

/// Whether the complaint is another one, or none, without this part.
fn matters<T: DeserializeOwned>(root: &Value, parent: &[Step], step: &Step, problem: &str) -> bool {
    let mut copy = root.clone();
    match (at(&mut copy, parent), step) {
        (Some(Value::Object(map)), Step::Key(key)) => drop(map.remove(key)),
        (Some(Value::Array(list)), Step::Index(index)) => drop(list.remove(*index)),
        _ => return false,
    }
    complaint::<T>(copy).as_deref() != Some(problem)
}

/// The object in which adding `name` changes the complaint that it is missing.
///
/// Parts that do not matter are passed over where `short`: a filter of thousands of rules need not be
/// looked through for each. Of two parts that lack the same neither seems to matter.
fn lacking<T: DeserializeOwned>(root: &Value, name: &str, problem: &str, short: bool) -> Option<Path> {
    let mut open = vec![Path::new()];
    while let Some(path) = open.pop() {
        let mut copy = root.clone();
        let here = at(&mut copy, &path)?;
        let below = children(here);
        if let Value::Object(map) = here
            && !map.contains_key(name)
        {
            let differs = |key: &str| {
                let mut copy = root.clone();
                if let Some(Value::Object(map)) = at(&mut copy, &path) {
                    map.insert(key.to_owned(), Value::Null);
                }
                complaint::<T>(copy).as_deref() != Some(problem)
            };
            // In a map of free keys any key makes a difference.
            if differs(name) && !differs("no field has this name") {
                return Some(path);
            }
        }
        let below = below.into_iter().rev().filter(|step| !short || matters::<T>(root, &path, step, problem));
        open.extend(below.map(|step| path.iter().cloned().chain([step]).collect::<Path>()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/",
                "capabilities": {"bounding": ["CAP_KILL"]}},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/dev", "type": "tmpfs"}],
            "hooks": {"prestart": [{"path": "/a"}, {"path": "/b"}]},
            "linux": {"namespaces": [{"type": "mount"}]},
        })
    }

    fn error_of(change: impl FnOnce(&mut Value)) -> String {
        let mut config = config();
        change(&mut config);
        parse(config.to_string().as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_their_field() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 11] = [
            (
                |c| {
                    c["mounts"][0] = json!({});
                    c["mounts"][1] = json!({});
                },
                "mounts[0].destination: it is missing",
            ),
            (|c| c["process"]["user"]["uid"] = json!(-1), "process.user.uid: invalid value: integer `-1`"),
            (|c| c["process"]["args"] = json!("x"), "process.args: invalid type: string \"x\""),
            (|c| c["mounts"][1]["destination"] = json!(7), "mounts[1].destination: invalid type"),
            (
                |c| drop(c["mounts"][1].as_object_mut().unwrap().remove("destination")),
                "mounts[1].destination: it is missing",
            ),
            (
                |c| drop(c["hooks"]["prestart"][1].as_object_mut().unwrap().remove("path")),
                "hooks.prestart[1].path: it is missing",
            ),
            (
                |c| c["linux"]["namespaces"][0]["type"] = json!("odd"),
                "linux.namespaces[0].type: unknown variant `odd`",
            ),
            (
                |c| {
                    c["process"]["user"]["gid"] = json!({});
                    c["process"]["user"]["uid"] = json!({});
                },
                "process.user.",
            ),
            (|c| c["ociVersion"] = json!("2.0.0"), "ociVersion: \"2.0.0\""),
            (|c| c["ociVersion"] = json!("1"), "ociVersion: \"1\""),
            (|c| *c = json!([1]), "the configuration: "),
        ];
        for (change, expected) in cases {
            let error = error_of(change);
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(matches!(parse(b"{"), Err(Error::Syntax(_))));
        let mounts = |text: &str| parse_mounts(text.as_bytes()).map(|list| list.len());
        assert_eq!(mounts(r#"{"mounts": [{"destination": "/a"}]}"#).unwrap(), 1);
        assert_eq!(mounts("[]").unwrap(), 0);
        let said = |text: &str| mounts(text).unwrap_err().to_string();
        assert_eq!(
            said(r#"[{"destination": "/a"}, {"type": "tmpfs"}]"#),
            "mounts[1].destination: it is missing"
        );
        assert!(said("{}").starts_with("mounts: it is missing"), "{}", said("{}"));
        assert!(said("7").starts_with("the configuration: "), "{}", said("7"));
        let process = parse_process(br#"{"user": {"uid": 0}}"#).unwrap_err().to_string();
        assert_eq!(process, "process.cwd: it is missing");
    }

    #[test]
    fn the_switches_of_older_versions_count() {
        for (switch, expected) in [("enableCMT", true), ("enableMBM", true), ("enableNothing", false)] {
            let mut config = config();
            config["linux"]["intelRdt"] = json!({switch: true});
            let read = parse(config.to_string().as_bytes()).unwrap();
            let rdt = read.value.linux().as_ref().unwrap().intel_rdt().as_ref().unwrap();
            assert_eq!(rdt.enable_monitoring().unwrap_or(false), expected, "{switch}");
        }
        let mut config = config();
        config["linux"]["intelRdt"] = json!({"enableCMT": 1});
        assert!(parse(config.to_string().as_bytes()).is_err());
    }

    #[test]
    fn capabilities_that_nobody_can_give_are_left_out() {
        let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilities": {
            "bounding": ["CAP_KILL", "CAP_SYS_RESOURCE"], "permitted": ["CAP_SYS_RESOURCE"], "ambient": ["CAP_KILL"]}});
        let mut process = parse_process(process.to_string().as_bytes()).unwrap().value;
        let before = process.clone();
        assert!(leave_out_capabilities(&mut process, u64::MAX).is_empty());
        assert_eq!(process, before);
        // CAP_KILL is 5.
        let told = leave_out_capabilities(&mut process, 1 << 5);
        let word = "process.capabilities: \"CAP_SYS_RESOURCE\" is not the caller's to give and is left out";
        assert_eq!(told, [word]);
        let count = |set: &Option<Capabilities>| set.as_ref().map(|set| set.len());
        let sets = process.capabilities().as_ref().unwrap();
        assert_eq!((count(sets.bounding()), count(sets.permitted())), (Some(1), Some(0)));
        assert_eq!(
            (count(sets.ambient()), count(sets.inheritable())),
            (Some(1), count(before.capabilities().as_ref().unwrap().inheritable()))
        );
    }

    #[test]
    fn what_is_not_known_need_not_be() {
        let mut config = config();
        config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_NEW"]);
        config["process"]["scheduler"] = json!({"policy": "SCHED_DEADLINE",
            "flags": ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_DL_OVERRUN", "SCHED_FLAG_RECLAIM", "SCHED_FLAG_UTIL_CLAMP_MAX"]});
        config["linux"]["seccomp"] =
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NEW", "SCMP_ARCH_X86"]});
        let read = parse(config.to_string().as_bytes()).unwrap();
        assert_eq!(read.warnings, ["process.capabilities.bounding: \"CAP_NEW\" is unknown and left out"]);
        let process = read.value.process().as_ref().unwrap();
        let bounding = process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap();
        assert_eq!(bounding.len(), 1);
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), 4);
    }
}
