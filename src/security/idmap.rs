//! Which ids a container may have: the rungs of a ladder.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::passwd;
use crate::base::idmap::{IdMapping, IdRange};
use crate::sys::{host, userns};

/// How a container's ids are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RungKind {
    /// We are root: no user namespace unless asked for.
    Root,
    /// 0 is the user, 1 and up the user's subordinate ids.
    Subordinate,
    /// Only the user's own id, as 0.
    Single,
}

/// The rung that this machine allows this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// Which.
    pub kind: RungKind,
    /// The mapping; empty for [`RungKind::Root`].
    pub mapping: IdMapping,
    /// Why this one, for `info`.
    pub why: String,
    /// How to reach the next one, if there is one.
    pub hint: Option<String>,
}

/// What decides over the rung.
#[derive(Debug, Clone, Default)]
struct Facts {
    euid: u32,
    egid: u32,
    name: Option<String>,
    subuid: String,
    subgid: String,
    /// Which of newuidmap and newgidmap cannot be used, and why.
    helper_trouble: Option<String>,
}

/// The rung for this process. Reads four small files.
pub fn rung() -> Rung {
    let euid = rustix::process::geteuid().as_raw();
    if euid == 0 {
        return decide(&Facts::default());
    }
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let users = fs::read("/etc/passwd").unwrap_or_default();
    let name = passwd::users(&users).find(|user| user.uid == euid);
    let name = name.and_then(|user| String::from_utf8(user.name).ok());
    decide(&Facts {
        euid,
        egid: host::gid(),
        name,
        subuid: read("/etc/subuid"),
        subgid: read("/etc/subgid"),
        helper_trouble: ["newuidmap", "newgidmap"].into_iter().find_map(helper_trouble),
    })
}

fn helper_trouble(name: &str) -> Option<String> {
    let Some(path) = userns::find_helper(name) else { return Some(format!("{name} is not installed")) };
    // Set-uid root, or with a file capability: else it can do no more than we.
    let set_uid = fs::metadata(&path).is_ok_and(|m| m.mode() & 0o4000 != 0 && m.uid() == 0);
    (!set_uid && !has_capability(&path))
        .then(|| format!("{} is neither set-uid root nor has capabilities", path.display()))
}

fn has_capability(path: &Path) -> bool {
    let mut value = [0; 64];
    rustix::fs::getxattr(path, "security.capability", &mut value[..]).is_ok_and(|length| length > 0)
}

fn decide(facts: &Facts) -> Rung {
    if facts.euid == 0 {
        let why = "we are root".to_owned();
        return Rung { kind: RungKind::Root, mapping: IdMapping::default(), why, hint: None };
    }
    let user = facts.name.clone().unwrap_or_else(|| facts.euid.to_string());
    let single = |why: String, hint: String| Rung {
        kind: RungKind::Single,
        mapping: IdMapping::single(0, facts.euid, 0, facts.egid),
        why,
        hint: Some(hint),
    };
    let uids = ranges(&facts.subuid, facts);
    let gids = ranges(&facts.subgid, facts);
    for (list, file) in [(&uids, "/etc/subuid"), (&gids, "/etc/subgid")] {
        if list.is_empty() {
            let hint = format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}");
            return single(format!("{file} has no line for user {user}"), hint);
        }
    }
    if let Some(trouble) = &facts.helper_trouble {
        let hint = "install the package \"uidmap\" (Debian, Ubuntu) or \"shadow-utils\" (Fedora)";
        return single(trouble.clone(), hint.to_owned());
    }
    let count: u64 = uids.iter().map(|range| u64::from(range.1)).sum();
    Rung {
        kind: RungKind::Subordinate,
        mapping: IdMapping { uids: mapped(facts.euid, &uids), gids: mapped(facts.egid, &gids) },
        why: format!("user {user} has {count} subordinate ids"),
        hint: None,
    }
}

/// The lines of subuid(5) or subgid(5) for the user, by name or by number: first id and count.
fn ranges(file: &str, facts: &Facts) -> Vec<(u32, u32)> {
    let number = facts.euid.to_string();
    let ours = |owner: &str| owner == number || facts.name.as_deref() == Some(owner);
    file.lines()
        .filter_map(|line| {
            let mut fields = line.split(':').map(str::trim);
            let owner = fields.next()?;
            let (start, count): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (ours(owner) && count > 0 && start.checked_add(count).is_some()).then_some((start, count))
        })
        .collect()
}

/// 0 is our own id; 1 and up are the ranges, one after the other.
fn mapped(own: u32, ranges: &[(u32, u32)]) -> Vec<IdRange> {
    let mut map = vec![IdRange { container: 0, host: own, size: 1 }];
    let mut next = 1_u32;
    for (start, count) in ranges {
        // More than 32 bits of ids are of no use to anybody.
        let Some(end) = next.checked_add(*count) else { break };
        map.push(IdRange { container: next, host: *start, size: *count });
        next = end;
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            euid: 1000,
            egid: 100,
            name: Some("ann".into()),
            subuid: "bob:1:5\nann:100000:65536\n1000:300000:10\nann:x:y\n".into(),
            subgid: "ann:200000:65536\n".into(),
            helper_trouble: None,
        }
    }

    #[test]
    fn ranges_follow_each_other() {
        let rung = decide(&facts());
        assert_eq!(rung.kind, RungKind::Subordinate);
        let range = |container, host, size| IdRange { container, host, size };
        assert_eq!(
            rung.mapping.uids,
            [range(0, 1000, 1), range(1, 100_000, 65536), range(65537, 300_000, 10)]
        );
        assert_eq!(rung.mapping.gids, [range(0, 100, 1), range(1, 200_000, 65536)]);
    }

    #[test]
    fn what_is_missing_is_told_with_its_cure() {
        let rung = decide(&Facts { subgid: String::new(), ..facts() });
        assert_eq!(rung.kind, RungKind::Single);
        assert!(rung.why.contains("/etc/subgid") && rung.hint.unwrap().contains("--add-subgids"));
        let rung = decide(&Facts { helper_trouble: Some("newuidmap is not installed".into()), ..facts() });
        assert_eq!(rung.mapping, IdMapping::single(0, 1000, 0, 100));
        assert!(rung.hint.unwrap().contains("uidmap"));
    }

    #[test]
    fn root_needs_none() {
        assert_eq!(decide(&Facts::default()).kind, RungKind::Root);
    }
}
