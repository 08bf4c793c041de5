//! Which ids a container may have: the rungs of a ladder, from no user namespace at all to a single
//! mapped id. The highest one that this machine allows this user is taken, and said aloud.

use std::io;
use std::path::Path;

use crate::base::idmap::{IdMapping, IdRange};
use crate::security::passwd;
use crate::security::refused::{Signs, Stage, has};
use crate::sys::{capability, ids, userns};

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

/// User namespaces cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("this user cannot create user namespaces")]
pub struct Unavailable {
    /// What the administrator can do about it.
    pub hint: String,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// Finds the rung of the calling user. Reads files only: that the kernel really makes user
/// namespaces shows when one is made, or by [`check_user_namespaces`].
pub fn rung() -> Rung {
    let (uid, gid) = (ids::euid(), ids::egid());
    if uid == 0 && !has("SYS_ADMIN") {
        let maps = ["/proc/self/uid_map", "/proc/self/gid_map"]
            .map(|path| std::fs::read_to_string(path).unwrap_or_default());
        return contained([&maps[0], &maps[1]], has("SETUID") && has("SETGID"));
    }
    if uid == 0 {
        return Rung {
            kind: RungKind::Root,
            mapping: IdMapping::default(),
            why: "running as root".to_owned(),
            hint: None,
        };
    }
    let name = user_name(uid);
    let read = |path: &str| std::fs::read(path).unwrap_or_default();
    let uids = subordinate(&read("/etc/subuid"), name.as_deref(), uid);
    let gids = subordinate(&read("/etc/subgid"), name.as_deref(), uid);
    let helpers = ["newuidmap", "newgidmap"].map(usable_helper);
    choose(uid, gid, name.as_deref(), (uids, gids), helpers)
}

/// Root of a container around us: without powers over its namespaces, but over its ids, all of which a user
/// namespace below can have.
fn contained(maps: [&str; 2], over_ids: bool) -> Rung {
    let extents = |map: &str| -> Vec<IdRange> {
        let line = |line: &str| {
            let mut numbers = line.split_whitespace().map(str::parse::<u32>);
            let (Some(Ok(first)), Some(Ok(_)), Some(Ok(size))) =
                (numbers.next(), numbers.next(), numbers.next())
            else {
                return None;
            };
            // Where nothing is mapped away, there are more than anybody needs. The kernel takes no range that lies
            // in several of the map around.
            Some(IdRange {
                container: first,
                host: first,
                size: if first == 0 { size.min(USUAL) } else { size },
            })
        };
        map.lines().filter_map(line).collect()
    };
    let [uids, gids] = maps.map(extents);
    let many = IdMapping { uids, gids };
    let zero = |ranges: &[IdRange]| ranges.iter().any(|range| range.container == 0);
    let rung = |kind, mapping, why: String, hint| Rung { kind, mapping, why, hint };
    if over_ids && !many.is_single() && zero(&many.uids) && zero(&many.gids) {
        let count: u64 = many.uids.iter().map(|range| u64::from(range.size)).sum();
        let why = format!(
            "root of a container around, without CAP_SYS_ADMIN: {count} of its ids, in a user namespace below"
        );
        return rung(RungKind::Subordinate, many, why, None);
    }
    let why = "root of a container around, without CAP_SYS_ADMIN, that has one id or no power over its ids"
        .to_owned();
    let hint = Some("run the container around with subordinate ids".to_owned());
    rung(RungKind::Single, IdMapping::single(0, 0, 0, 0), why, hint)
}

/// So many ids a container has, where there are all that the machine has.
const USUAL: u32 = 65_536;

/// The name of a user in `/etc/passwd`.
pub fn user_name(uid: u32) -> Option<String> {
    let file = std::fs::read("/etc/passwd").ok()?;
    let user = passwd::users(&file).find(|user| user.uid == uid)?;
    String::from_utf8(user.name).ok()
}

/// Why a helper cannot be used, in words.
type Helper = Result<(), String>;

fn usable_helper(name: &str) -> Helper {
    let path = userns::find_helper(name).ok_or_else(|| format!("{name} is not installed"))?;
    if !privileged(&path) {
        return Err(format!("{} is neither setuid root nor has file capabilities", path.display()));
    }
    if is_nosuid(&path) {
        return Err(format!("{} is on a file system that is mounted nosuid", path.display()));
    }
    if capability::has_no_new_privileges() {
        return Err(format!("{name} can gain no powers here (no_new_privs)"));
    }
    Ok(())
}

/// Whether programs at this path gain no powers, because of how their file system is mounted.
pub fn is_nosuid(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID))
}

/// Whether a program gets root's powers, or some of them: by set-user-ID or by file capabilities.
pub fn privileged(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let setuid = std::fs::metadata(path).is_ok_and(|m| m.uid() == 0 && m.mode() & 0o4000 != 0);
    let mut value = [0_u8; 64];
    setuid || rustix::fs::getxattr(path, "security.capability", &mut value).is_ok()
}

/// The ladder itself, from what was found out.
fn choose(
    uid: u32,
    gid: u32,
    name: Option<&str>,
    (uids, gids): (Vec<IdRange>, Vec<IdRange>),
    helpers: [Helper; 2],
) -> Rung {
    let who = name.map_or_else(|| uid.to_string(), str::to_owned);
    let single = |why: String, hint: String| Rung {
        kind: RungKind::Single,
        mapping: IdMapping::single(0, uid, 0, gid),
        why,
        hint: Some(hint),
    };
    for helper in helpers {
        if let Err(why) = helper {
            return single(
                why,
                "install the package that has newuidmap and newgidmap (Debian: uidmap); \"umiak doctor\" says more"
                    .to_owned(),
            );
        }
    }
    for (ranges, file, option) in [(&uids, "/etc/subuid", "uids"), (&gids, "/etc/subgid", "gids")] {
        if ranges.is_empty() {
            let why = format!("{who} has no range in {file}");
            let first = free_range();
            let range = format!("{first}-{}", first.saturating_add(65_535));
            let command = match uids.is_empty() && gids.is_empty() {
                true => format!("as root: usermod --add-subuids {range} --add-subgids {range} {who}"),
                false => format!("as root: usermod --add-sub{option} {range} {who}"),
            };
            return single(why, command);
        }
    }
    let with_own = |own: u32, ranges: &[IdRange]| {
        let mut all = vec![IdRange { container: 0, host: own, size: 1 }];
        let mut next = 1_u32;
        for range in ranges {
            all.push(IdRange { container: next, ..*range });
            next = next.saturating_add(range.size);
        }
        all
    };
    let count: u64 = uids.iter().map(|range| u64::from(range.size)).sum();
    Rung {
        kind: RungKind::Subordinate,
        mapping: IdMapping { uids: with_own(uid, &uids), gids: with_own(gid, &gids) },
        why: format!("{who} has {count} subordinate user ids in /etc/subuid"),
        hint: None,
    }
}

/// The first of 65,536 ids that no line of `/etc/subuid` and `/etc/subgid` has, from 100,000 on.
pub fn free_range() -> u32 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    first_free(&format!("{}\n{}", read("/etc/subuid"), read("/etc/subgid")))
}

fn first_free(lines: &str) -> u32 {
    const COUNT: u64 = 65_536;
    let range = |line: &str| {
        let mut fields = line.trim().split(':').skip(1).map(|field| field.parse::<u64>().ok());
        Some((fields.next()??, fields.next()??))
    };
    let mut taken: Vec<(u64, u64)> = lines.lines().filter_map(range).collect();
    taken.sort_unstable();
    let mut free = 100_000;
    for (first, count) in taken {
        if first < free + COUNT && free < first.saturating_add(count) {
            free = first.saturating_add(count).min(u64::from(u32::MAX));
        }
    }
    u32::try_from(free).unwrap_or(100_000)
}

/// The ranges of any user in `/etc/subuid` or `/etc/subgid`.
pub fn subordinate_of(name: &str, file: &str) -> Vec<IdRange> {
    subordinate(&std::fs::read(file).unwrap_or_default(), Some(name), u32::MAX)
}

/// The ranges of a user in a subuid or subgid file (subuid(5)): lines `name-or-uid:first:count`.
/// What is malformed, would wrap round or holds the user's own id is left out.
pub fn subordinate(file: &[u8], name: Option<&str>, uid: u32) -> Vec<IdRange> {
    let Ok(text) = std::str::from_utf8(file) else { return Vec::new() };
    let number = uid.to_string();
    let mut ranges: Vec<IdRange> = Vec::new();
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(who), Some(first), Some(count), None) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if Some(who) != name && who != number {
            continue;
        }
        let (Ok(host), Ok(size)) = (first.parse::<u32>(), count.parse::<u32>()) else { continue };
        let Some(end) = host.checked_add(size).filter(|_| size > 0) else { continue };
        let overlaps = |r: &IdRange| host < r.host + r.size && r.host < end;
        // Both by name and by number it may stand there twice; the kernel refuses overlapping lines.
        if (host..end).contains(&uid) || ranges.iter().any(overlaps) {
            continue;
        }
        ranges.push(IdRange { container: 0, host, size });
    }
    ranges
}

/// Finds out by doing whether this user may make user namespaces with capabilities in them; if not,
/// which switch is off.
pub fn check_user_namespaces() -> Result<(), Unavailable> {
    let source = match userns::probe() {
        Err(source) => source,
        // It can be made, and no id be mapped.
        Ok(()) if ids::euid() == 0 && !has("SETFCAP") => io::Error::from_raw_os_error(libc::EACCES),
        Ok(()) => return Ok(()),
    };
    // What can be made and gives no powers is told as EACCES.
    let stage = if source.raw_os_error() == Some(libc::EACCES) { Stage::Used } else { Stage::Made };
    let cause = Signs::gather().cause(stage, source.raw_os_error().unwrap_or(libc::EPERM));
    Err(Unavailable { hint: format!("{}; {}", cause.text, cause.cure), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subordinate_ranges_by_name_and_number() {
        let file = b"other:1:2\nme:100000:65536\n1000:200000:10\n# c\nme:x:1\nme:4294967290:100\nme:100100:5\nme:990:20\n";
        let range = |host, size| IdRange { container: 0, host, size };
        assert_eq!(subordinate(file, Some("me"), 1000), [range(100_000, 65536), range(200_000, 10)]);
        assert_eq!(subordinate(file, None, 1000), [range(200_000, 10)]);
        assert!(subordinate(b"\xff", Some("me"), 1).is_empty());
    }

    #[test]
    fn the_first_free_range() {
        assert_eq!(first_free(""), 100_000);
        assert_eq!(first_free("a:100000:65536\nb:400000000:65536\nbad\n"), 165_536);
        assert_eq!(first_free("a:165536:65536\nb:100000:65536\nc:1:5"), 231_072);
        assert_eq!(first_free("a:150000:10"), 150_010);
    }

    #[test]
    fn root_of_a_container_has_its_ids_below() {
        let many = "         0       1002          1\n         1     165536      65536\n";
        let rung = contained([many, many], true);
        let range = |container, size| IdRange { container, host: container, size };
        assert_eq!(
            (rung.kind, &rung.mapping.uids[..]),
            (RungKind::Subordinate, &[range(0, 1), range(1, 65536)][..])
        );
        assert_eq!(contained([many, many], false).kind, RungKind::Single);
        let one = "0 1003 1\n";
        assert_eq!(contained([one, one], true).mapping, IdMapping::single(0, 0, 0, 0));
        let all = "0 0 4294967295\n";
        assert_eq!(contained([all, all], true).mapping.gids, [range(0, 65536)]);
        assert_eq!(contained(["", "nonsense 1"], true).kind, RungKind::Single);
    }

    #[test]
    fn the_ladder() {
        let ranges = || vec![IdRange { container: 0, host: 100_000, size: 10 }];
        let rung = choose(1000, 1001, Some("me"), (ranges(), ranges()), [Ok(()), Ok(())]);
        assert_eq!(rung.kind, RungKind::Subordinate);
        assert_eq!(IdMapping::to_host(&rung.mapping.gids, 0), Some(1001));
        assert_eq!(IdMapping::to_host(&rung.mapping.uids, 10), Some(100_009));
        let rung = choose(1000, 1000, None, (ranges(), Vec::new()), [Ok(()), Ok(())]);
        assert_eq!((rung.kind, rung.why.as_str()), (RungKind::Single, "1000 has no range in /etc/subgid"));
        let rung = choose(1000, 1000, None, (ranges(), ranges()), [Err("no helper".into()), Ok(())]);
        assert!(rung.kind == RungKind::Single && rung.hint.is_some());
    }
}
