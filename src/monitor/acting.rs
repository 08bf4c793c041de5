//! Calls of processes that have become somebody else, or become it: who they are, and whose is what they make
//! ([`super::people`]).
//!
//! As with owners nothing is allowed or kept from anybody by it. To the kernel all are who they were.

use std::io;
use std::os::fd::AsFd;

use super::people::{Change, MOST_GROUPS, People, Person};
use crate::seccomp::{Kernel, Told};
use crate::sys::making::{self, Made};
use crate::sys::marks;
use crate::sys::notify::{self, Answer, Call, Listener};
use crate::sys::owners::{Name, View};

const ASKING: [&str; 7] = ["getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups"];
const BECOMING: [&str; 7] =
    ["setuid", "setreuid", "setresuid", "setgid", "setregid", "setresgid", "setgroups"];
const MAKING: [&str; 4] = ["mkdir", "mkdirat", "creat", "openat2"];
const STARTING: [&str; 2] = ["execve", "execveat"];
const KEEPING: &str = "prctl";
const CONFINING: &str = "landlock_restrict_self";

/// The calls.
pub fn told() -> impl Iterator<Item = Told> {
    // Most files are opened that are there.
    let opens = [("open", 1), ("openat", 2)].map(|(name, index)| {
        let kernel = Kernel::Bits { index, mask: libc::O_CREAT as u32, value: 0 };
        Told { name, kernel }
    });
    // Of all that prctl(2) does this alone.
    let kept = [libc::PR_SET_KEEPCAPS as u32; 3];
    let keeps = Told { name: KEEPING, kernel: Kernel::Unless { index: 0, values: kept } };
    let all = ASKING.into_iter().chain(BECOMING).chain(MAKING).chain(STARTING).chain([CONFINING]);
    all.map(Told::always).chain(opens).chain([keeps])
}

/// What becomes of a call before anybody can be known: what is not the kernel's is said to be done.
pub fn unseen(people: &People, name: &str, call: &Call) -> Answer {
    let own = people.plain();
    match Change::of(name, &call.arguments, |_, _| Ok(Vec::new())) {
        Ok(Some(change)) if !change.is_within(own.uid[0], own.gid[0]) => Answer::Value(0),
        _ => Answer::Continue,
    }
}

/// Whether it is one of these calls.
pub fn is_ours(name: &str) -> bool {
    let lists: [&[&str]; 4] = [&ASKING, &BECOMING, &MAKING, &STARTING];
    lists.iter().any(|list| list.contains(&name)) || matches!(name, "open" | "openat" | KEEPING | CONFINING)
}

/// What becomes of one of them; none if that has been said.
pub fn respond(
    people: &mut People,
    view: &mut View,
    name: &str,
    call: &Call,
    listener: &Listener,
) -> Option<Answer> {
    let Ok(mark) = marks::get(call.pid) else { return Some(unseen(people, name, call)) };
    // Only now is it sure that it was the caller's.
    if !listener.is_waiting(call.id) {
        return Some(Answer::Continue);
    }
    if name == CONFINING {
        let kept = marks::set(call.pid, people.confined(mark));
        return Some(kept.map_or_else(|error| Answer::from(&error), |()| Answer::Continue));
    }
    // Ids of old 32-bit programs are others: they stay who they are.
    if call.architecture != crate::seccomp::native() {
        return Some(unseen(people, name, call));
    }
    if BECOMING.contains(&name) || name == KEEPING {
        return Some(become_other(people, mark, name, call));
    }
    let Some(person) = people.with(mark) else { return Some(Answer::Continue) };
    if ASKING.contains(&name) {
        return Some(tell(person, name, call));
    }
    if STARTING.contains(&name) {
        let person = person.clone();
        // What cannot be found out is as if there were no such bits.
        let (uid, gid) = started(view, name, call).unwrap_or_default();
        let next = person.after_exec(uid, gid);
        if next != person
            && let Some(next) = people.mark(&next, mark)
            && listener.is_waiting(call.id)
        {
            let _ = marks::set(call.pid, next);
        }
        return Some(Answer::Continue);
    }
    make(person, people.plain(), view, name, call, listener).unwrap_or(Some(Answer::Continue))
}

fn become_other(people: &mut People, mark: marks::Mark, name: &str, call: &Call) -> Answer {
    let known = people.with(mark);
    let before = known.unwrap_or(people.plain()).clone();
    let read = |count: usize, address| {
        // More than are remembered are not looked at.
        let mut bytes = vec![0; count.min(MOST_GROUPS + 1) * 4];
        notify::read_memory(call.pid, address, &mut bytes).map_err(|error| errno(&error))?;
        Ok(bytes
            .chunks_exact(4)
            .filter_map(|id| id.first_chunk())
            .map(|id| u32::from_ne_bytes(*id))
            .collect())
    };
    let next = Change::of(name, &call.arguments, read)
        .and_then(|change| change.map(|change| people.after(&before, &change)).transpose());
    match next {
        Err(error) => Answer::Error(error),
        Ok(None) => Answer::Continue,
        Ok(Some(next)) if next == before && known.is_none() => Answer::Continue,
        Ok(Some(next)) => {
            if next != before
                && let Some(mark) = people.mark(&next, mark)
            {
                // Who cannot be remembered is told so much as without us.
                let _ = marks::set(call.pid, mark);
            }
            // The kernel keeps them, too: it knows of nothing that would take them away.
            if name == KEEPING { Answer::Continue } else { Answer::Value(0) }
        }
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Tells a process who it is.
fn tell(person: &Person, name: &str, call: &Call) -> Answer {
    let write = |address: u64, ids: &[u32]| {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_ne_bytes()).collect();
        notify::write_memory(call.pid, address, &bytes)
    };
    let three = |ids: &[u32; 3]| {
        let written = ids.iter().zip(call.arguments).try_for_each(|(id, address)| write(address, &[*id]));
        written.map_or_else(|error| Answer::from(&error), |()| Answer::Value(0))
    };
    match name {
        "getuid" => Answer::Value(person.uid[0].into()),
        "geteuid" => Answer::Value(person.uid[1].into()),
        "getgid" => Answer::Value(person.gid[0].into()),
        "getegid" => Answer::Value(person.gid[1].into()),
        "getresuid" => three(&person.uid),
        "getresgid" => three(&person.gid),
        _ => match (&person.groups, call.arguments[0] as i32) {
            (None, _) => Answer::Continue,
            (Some(groups), 0) => Answer::Value(groups.len() as i64),
            (Some(groups), room) if (room as i64) < groups.len() as i64 => Answer::Error(libc::EINVAL),
            (Some(groups), _) => match write(call.arguments[1], groups) {
                Ok(()) => Answer::Value(groups.len() as i64),
                Err(error) => Answer::from(&error),
            },
        },
    }
}

/// The user and the group that an exec gives.
fn started(view: &mut View, name: &str, call: &Call) -> io::Result<(Option<u32>, Option<u32>)> {
    let arguments = &call.arguments;
    let (directory, path, flags) = match name {
        "execve" => (libc::AT_FDCWD, arguments[0], 0),
        _ => (arguments[0] as i32, arguments[1], arguments[4] as i32),
    };
    let path = notify::read_path(call.pid, path)?;
    if path.is_empty() && flags & libc::AT_EMPTY_PATH == 0 {
        return Ok((None, None));
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    making::taken_by_exec(view, call.pid, &Name { directory, path, follow })
}

/// Makes a file or directory that is to be somebody else's than the kernel would make it.
fn make(
    person: &Person,
    plain: &Person,
    view: &mut View,
    name: &str,
    call: &Call,
    listener: &Listener,
) -> io::Result<Option<Answer>> {
    let owner = (person.uid[1], person.gid[1]);
    if person.confined || owner == (plain.uid[1], plain.gid[1]) {
        return Ok(Some(Answer::Continue));
    }
    let [first, second, third, fourth, ..] = call.arguments;
    let here = i64::from(libc::AT_FDCWD) as u64;
    let file = |flags: u64, mode: u64| Made::File(flags as i32, mode as u32);
    let (directory, path, made) = match name {
        "mkdir" => (here, first, Made::Directory(second as u32)),
        "mkdirat" => (first, second, Made::Directory(third as u32)),
        "creat" => (here, first, file((libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64, second)),
        "open" => (here, first, file(second, third)),
        "openat" => (first, second, file(third, fourth)),
        _ => {
            // `struct open_how`: flags, mode, ways that are barred, which are the kernel's to bar.
            let mut how = [0; 24];
            notify::read_memory(call.pid, third, &mut how)?;
            let field = |at: usize| how[at..].first_chunk().map_or(0, |value| u64::from_ne_bytes(*value));
            if fourth != 24 || field(16) != 0 {
                return Ok(Some(Answer::Continue));
            }
            (first, second, file(field(0), field(8)))
        }
    };
    // Flags that say that something else is opened.
    const OTHER: i32 = libc::O_PATH | libc::O_DIRECTORY | libc::O_TMPFILE;
    if let Made::File(flags, _) = made
        && (flags & libc::O_CREAT == 0 || flags & OTHER != 0)
    {
        return Ok(Some(Answer::Continue));
    }
    let name = Name { directory: directory as i32, path: notify::read_path(call.pid, path)?, follow: false };
    let made_by_us = making::make(view, call.pid, &name, made, owner, || listener.is_waiting(call.id))?;
    Ok(match (made_by_us, made) {
        (None, _) => Some(Answer::Continue),
        (Some(_), Made::Directory(_)) => Some(Answer::Value(0)),
        (Some(fd), Made::File(flags, _)) => {
            let handed = listener.answer_with_fd(call.id, fd.as_fd(), flags & libc::O_CLOEXEC != 0);
            handed.err().map(|error| Answer::from(&error))
        }
    })
}
