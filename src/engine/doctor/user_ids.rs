//! Which ids containers can have, and what keeps them from having more. Pure.

use super::diagnose::{fine, ill, inside, words};
use super::{Diagnosis, Findings, Helper, State, SubIds};
use crate::security::idmap::RungKind;

const IDS: &str = "user ids";
/// So many ids an image may use, beside root.
const ENOUGH: u64 = 65_535;
const FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

/// The first thing that is amiss, in the order in which it would be met.
pub(super) fn user_ids(found: &Findings) -> Diagnosis {
    match found.rung.kind {
        RungKind::Root => return fine(IDS, "all: umiak runs as root"),
        // Root of a container around: no helper is asked for.
        RungKind::Subordinate if found.uid == 0 => return fine(IDS, found.rung.why.clone()),
        RungKind::Single if found.uid == 0 => {
            let cure = "run the container around with subordinate ids";
            return ill(IDS, State::Lesser, "one-id-around", found.rung.why.clone(), cure);
        }
        _ => {}
    }
    let who = found.name.clone().unwrap_or_else(|| found.uid.to_string());
    let mut helpers = found.helpers.iter().zip(["newuidmap", "newgidmap"]);
    let mut files = FILES.iter().zip(&found.sub_ids).zip(["uids", "gids"]);
    helpers
        .find_map(|(helper, name)| unusable(helper, name))
        .or_else(|| powerless(found))
        .or_else(|| files.find_map(|((file, ids), option)| without(found, file, ids, option, &who)))
        .or_else(|| refused(found))
        .or_else(|| too_few(found, &who))
        .or_else(|| FILES.iter().zip(&found.sub_ids).find_map(|(file, ids)| shared(file, ids, &who)))
        .unwrap_or_else(|| fine(IDS, found.rung.why.clone()))
}

/// Containers work, with less.
fn lesser(cause: &'static str, text: impl std::fmt::Display, cure: impl Into<String>) -> Diagnosis {
    ill(IDS, State::Lesser, cause, format!("one id, with emulated owners: {text}"), cure)
}

fn unusable(helper: &Helper, name: &str) -> Option<Diagnosis> {
    let Some(path) = &helper.path else {
        let install = "as root: apt-get install uidmap (Fedora: dnf install shadow-utils)";
        return Some(lesser("no-helper", format!("{name} is not installed"), install));
    };
    let path = path.display();
    if !helper.privileged {
        let text = format!("{path} is neither set-user-ID root nor has file capabilities");
        let cure = format!("as root: chown root {path} && chmod u+s {path}");
        return Some(lesser("helper-without-powers", text, cure));
    }
    helper.nosuid.then(|| {
        let text = format!("{path} is on a file system that is mounted nosuid, where it gains no powers");
        lesser("helper-nosuid", text, format!("as root: mount -o remount,suid \"$(stat -c %m {path})\""))
    })
}

fn powerless(found: &Findings) -> Option<Diagnosis> {
    let text = "this shell and all it starts may gain no privileges (no_new_privs), so newuidmap cannot";
    let cure = "start umiak elsewhere: not from a service with NoNewPrivileges=yes";
    found.no_new_privileges.then(|| lesser("no-new-privileges", text, cure))
}

/// A file that gives the user no range.
fn without(found: &Findings, file: &str, ids: &SubIds, option: &str, who: &str) -> Option<Diagnosis> {
    let add = add_ids(found, option, who);
    let after = |first: String| format!("as root: {first}, then {}", add.trim_start_matches("as root: "));
    if let Some(errno) = ids.unreadable {
        let cure = match errno {
            libc::EISDIR => after(format!("rmdir {file}")),
            _ => add.clone(),
        };
        return Some(lesser("no-subid-file", format!("{file} cannot be read: {}", words(errno)), cure));
    }
    ids.ranges.is_empty().then(|| match ids.ill.first() {
        Some(line) => {
            let text = format!(
                "the line \"{line}\" of {file} is not of the form NAME:FIRST:COUNT, or has {who}'s own id"
            );
            lesser("ill-subid-line", text, after(format!("edit {file}")))
        }
        None => lesser("no-subids", format!("{who} has no range in {file}"), add.as_str()),
    })
}

/// All is there, and yet it fails.
fn refused(found: &Findings) -> Option<Diagnosis> {
    let (Some(chain), Some(_)) = (&found.many_ids, inside(found)) else { return None };
    let (cause, cure) = match chain.contains("exec format error") {
        // What stands there is no program, or one of another machine.
        true => (
            "helper-no-program",
            "as root: apt-get install --reinstall uidmap (Fedora: dnf reinstall shadow-utils)",
        ),
        false => ("helper-refuses", "newuidmap says why when it is tried: umiak unshare true"),
    };
    Some(ill(IDS, State::Broken, cause, format!("mapping subordinate ids fails: {chain}"), cure))
}

fn too_few(found: &Findings, who: &str) -> Option<Diagnosis> {
    let count = |ids: &SubIds| ids.ranges.iter().map(|range| u64::from(range.size)).sum::<u64>();
    let count = found.sub_ids.iter().map(count).min().unwrap_or(0);
    (count < ENOUGH).then(|| {
        let text = format!(
            "{who} has only {count} subordinate ids: images with more users than that cannot be unpacked"
        );
        ill(IDS, State::Lesser, "few-subids", text, add_ids(found, "", who))
    })
}

fn shared(file: &str, ids: &SubIds, who: &str) -> Option<Diagnosis> {
    let other = ids.shared_with.as_ref()?;
    let text = format!(
        "{who} and {other} have the same subordinate ids in {file}: each can change the other's containers"
    );
    let cure = format!("as root: give one of them another range in {file}");
    Some(ill(IDS, State::Lesser, "shared-subids", text, cure))
}

/// The command that gives ranges of ids which nobody has: of the kind `option`, and of the other where that is
/// missing as well.
fn add_ids(found: &Findings, option: &str, who: &str) -> String {
    let range = format!("{}-{}", found.free_ids, found.free_ids.saturating_add(65_535));
    let both = option.is_empty() || found.sub_ids.iter().all(|ids| ids.ranges.is_empty());
    match both {
        true => format!("as root: usermod --add-subuids {range} --add-subgids {range} {who}"),
        false => format!("as root: usermod --add-sub{option} {range} {who}"),
    }
}
