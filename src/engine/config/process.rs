//! Flags about the program's process.

use super::{Error, flag, read_file};
use crate::engine::request::RunRequest;
use crate::storage::containers::{Kernel, SeccompChoice, Who};

/// The label by which an image brings a filter of its own (`--seccomp-policy image`).
const SECCOMP_LABEL: &str = "io.containers.seccomp.profile";

/// Settings of the program in the kernel; the domain name is another's.
pub(super) fn kernel(request: &RunRequest, domainname: String) -> Result<Kernel, Error> {
    Ok(Kernel {
        umask: request.umask.as_deref().map(umask).transpose()?,
        linux32: request.personality.as_deref().map(personality).transpose()?,
        oom_score_adj: request.oom_score_adj.map(oom_score).transpose()?,
        domainname,
        device_rules: request.device_rules.iter().map(|rule| device_rule(rule)).collect::<Result<_, _>>()?,
        preserve_fds: preserved(request)?,
    })
}

/// The streams of `--attach`, in small letters.
pub(super) fn attach(request: &RunRequest) -> Result<Vec<String>, Error> {
    let stream = |text: &String| {
        let name = text.to_ascii_lowercase();
        let known = matches!(name.as_str(), "stdin" | "stdout" | "stderr");
        known.then_some(name).ok_or_else(|| flag("attach", text, "it takes stdin, stdout or stderr"))
    };
    request.attach.iter().map(stream).collect()
}

fn umask(text: &str) -> Result<u32, Error> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mask) if mask <= 0o777 && digits => Ok(mask),
        _ => Err(flag("umask", text, "it takes an octal number up to 0777")),
    }
}

fn personality(text: &str) -> Result<bool, Error> {
    let upper = text.to_ascii_uppercase();
    match upper.strip_prefix("PER_").unwrap_or(&upper) {
        "LINUX" => Ok(false),
        "LINUX32" => Ok(true),
        _ => Err(flag("personality", text, "LINUX and LINUX32 are known")),
    }
}

fn oom_score(score: i32) -> Result<i32, Error> {
    if (-1000..=1000).contains(&score) {
        Ok(score)
    } else {
        Err(flag("oom-score-adj", &score.to_string(), "it is between -1000 and 1000"))
    }
}

/// `a *:* rwm`, `c 10:200 rw`: returned with single spaces.
fn device_rule(rule: &str) -> Result<String, Error> {
    let bad =
        || flag("device-cgroup-rule", rule, "it takes \"TYPE MAJOR:MINOR ACCESS\", as \"c 10:200 rwm\"");
    let words: Vec<&str> = rule.split_whitespace().collect();
    let [kind, numbers, access] = words[..] else { return Err(bad()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(bad)?;
    let number = |text: &str| text == "*" || text.parse::<u32>().is_ok();
    let letters = !access.is_empty() && access.chars().all(|c| "rwm".contains(c));
    if !matches!(kind, "a" | "b" | "c") || !number(major) || !number(minor) || !letters {
        return Err(bad());
    }
    Ok(words.join(" "))
}

/// The descriptors that `--preserve-fds` and `--preserve-fd` name.
pub fn preserved(request: &RunRequest) -> Result<Vec<u32>, Error> {
    const MOST: u32 = 1024;
    let count = request.preserve_fds.unwrap_or(0);
    if count > MOST {
        return Err(flag("preserve-fds", &count.to_string(), format!("{MOST} is the most")));
    }
    let mut fds: Vec<u32> = (3..3 + count).chain(request.preserve_fd.iter().copied()).collect();
    if let Some(standard) = fds.iter().find(|fd| **fd < 3) {
        return Err(flag("preserve-fd", &standard.to_string(), "0, 1 and 2 are the standard streams"));
    }
    fds.sort_unstable();
    fds.dedup();
    Ok(fds)
}

/// Groups, and who is known in the container.
pub(super) fn who(request: &RunRequest) -> Result<Who, Error> {
    let keep_groups = request.group_add.iter().any(|group| group == "keep-groups");
    if keep_groups && request.group_add.len() > 1 {
        return Err(flag("group-add", "keep-groups", "it is not allowed with any other --group-add option"));
    }
    for group in &request.group_add {
        if group.is_empty() || group.contains(|c: char| c == ':' || c.is_control()) {
            return Err(flag("group-add", group, "it takes a group's name or number"));
        }
    }
    for (name, entry) in [("passwd-entry", &request.passwd_entry), ("group-entry", &request.group_entry)] {
        if let Some(entry) = entry.as_ref().filter(|entry| entry.trim_end().contains(['\n', '\0'])) {
            return Err(flag(name, entry, "it is one line"));
        }
    }
    let host = if request.hostusers.is_empty() {
        Vec::new()
    } else {
        read_file("hostuser", std::path::Path::new("/etc/passwd"))?.into_bytes()
    };
    let mut hostusers = Vec::new();
    for user in &request.hostusers {
        let line = crate::security::passwd::line_of(user, &host)
            .ok_or_else(|| flag("hostuser", user, "the host has no such user"))?;
        hostusers.push(String::from_utf8_lossy(line).into_owned());
    }
    Ok(Who {
        groups: if keep_groups { Vec::new() } else { request.group_add.clone() },
        keep_groups,
        unlisted: !request.passwd,
        passwd_entry: request.passwd_entry.clone(),
        group_entry: request.group_entry.clone(),
        hostusers,
    })
}

/// `--seccomp-policy image` where nothing else was chosen.
pub(super) fn seccomp_policy(
    request: &RunRequest,
    chosen: SeccompChoice,
    labels: &std::collections::BTreeMap<String, String>,
) -> Result<SeccompChoice, Error> {
    match (request.seccomp_policy.as_deref(), &chosen) {
        (None | Some("" | "default"), _) => Ok(chosen),
        (Some("image"), SeccompChoice::Default) => Ok(match labels.get(SECCOMP_LABEL) {
            Some(content) => SeccompChoice::Profile { path: SECCOMP_LABEL.into(), content: content.clone() },
            None => chosen,
        }),
        (Some("image"), _) => Ok(chosen),
        (Some(other), _) => Err(flag("seccomp-policy", other, "it takes default or image")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_domains_and_rules() {
        assert_eq!(umask("0027").unwrap(), 0o27);
        for bad in ["", "8", "1000", "-1", "+7", "rwx"] {
            assert!(umask(bad).is_err(), "{bad}");
        }
        assert_eq!((personality("linux32").unwrap(), personality("PER_LINUX").unwrap()), (true, false));
        assert!(personality("BSD").is_err() && oom_score(1001).is_err());
        assert_eq!(device_rule(" c  10:200 rw ").unwrap(), "c 10:200 rw");
        for bad in ["", "c", "c 1:2", "x 1:2 r", "c 1 r", "c 1:2 x", "c a:2 r", "c 1:2 r w"] {
            assert!(device_rule(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn descriptors() {
        let of = |count, list: &[u32]| {
            preserved(&RunRequest {
                preserve_fds: count,
                preserve_fd: list.to_vec(),
                ..RunRequest::default()
            })
        };
        assert_eq!(of(Some(2), &[4, 9]).unwrap(), [3, 4, 9]);
        assert!(of(None, &[2]).is_err() && of(Some(5000), &[]).is_err());
    }
}
