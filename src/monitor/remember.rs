//! Owners that are remembered (`--security-opt ownership=remembered`): with one id nobody's files can be somebody
//! else's, but who asks can be told that they are; and that he is somebody else himself ([`super::acting`]).
//!
//! Nothing is allowed or kept from anybody by what is told here. Where something cannot be found out, the kernel
//! makes the call, as it would without us.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use super::acting;
use super::people::{self, People};
use crate::seccomp::answer::Consumer;
use crate::seccomp::{Kernel, Told};
use crate::sys::notify::{self, Answer, Call, Listener};
use crate::sys::owners::{Name, Object, View};
use crate::sys::process::{self, CloneOptions};
use crate::sys::{daemon, marks, socket};

/// Who answers.
#[derive(Debug)]
pub struct Remember {
    eyes: Option<Eyes>,
    /// The container's only user and group.
    own: (u32, u32),
    /// Nobody else answers calls in this process, so that it may go into the container.
    alone: bool,
    /// Else another process does, with which this is the connection.
    other: Option<OwnedFd>,
}

/// The view of the container's files, from when it can be had.
#[derive(Debug)]
struct Eyes {
    first: OwnedFd,
    view: Option<View>,
    people: People,
}

impl Eyes {
    fn open(first: i32, (uid, gid): (u32, u32)) -> io::Result<Self> {
        // Into its namespaces we can when it has become its program; what it asks for until then the kernel knows.
        Ok(Self { first: process::pidfd_open(first)?, view: None, people: People::new(uid, gid) })
    }

    /// None if it has been said.
    fn respond(&mut self, name: &str, call: &Call, listener: &Listener) -> Option<Answer> {
        if self.view.is_none() {
            self.view = View::enter(&self.first).ok();
        }
        let Some(view) = &mut self.view else { return Some(acting::unseen(&self.people, name, call)) };
        if acting::is_ours(name) {
            return acting::respond(&mut self.people, view, name, call, listener);
        }
        Some(respond(view, name, call, listener))
    }
}

impl Remember {
    /// `own`: the only user and group. `alone`: nobody else answers calls in the process that this is for.
    pub fn new(own: (u32, u32), alone: bool) -> Self {
        Self { eyes: None, own, alone, other: None }
    }
}

/// Answers what comes from the process that receives calls, with a listener each, until it ends.
fn serve(calls: &OwnedFd, mut eyes: Eyes) -> io::Result<()> {
    loop {
        let (packet, listener) = socket::receive(calls)?;
        let Some(listener) = listener.map(Listener::copy) else { return Ok(()) };
        let Ok((name, call)) = serde_json::from_slice::<(String, Call)>(&packet) else { continue };
        if let Some(answer) = eyes.respond(&name, &call, &listener) {
            listener.answer(call.id, answer)?;
        }
    }
}

/// Calls that tell whom a file belongs to, and calls that change it. Those of 32-bit programs are the kernel's.
const ASKED: [&str; 9] =
    ["stat", "lstat", "fstat", "newfstatat", "statx", "chown", "lchown", "fchown", "fchownat"];

/// What a call wants.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wish {
    /// To be told, in memory at an address.
    Stat(Name, u64),
    /// The same, with flags and mask.
    Statx(Name, i32, u32, u64),
    /// To give it to somebody.
    Chown(Name, Option<u32>, Option<u32>),
    /// To make a device.
    Mknod(Name, u32, u64),
}

impl Consumer for Remember {
    fn told(&self) -> Vec<Told> {
        let devices =
            [("mknod", 1), ("mknodat", 2)].map(|(name, mode)| Told { name, kernel: Kernel::NoDevice(mode) });
        ASKED.into_iter().map(Told::always).chain(devices).chain(acting::told()).collect()
    }

    fn begin(&mut self, first: i32) -> io::Result<()> {
        let eyes = Eyes::open(first, self.own)?;
        if self.alone {
            self.eyes = Some(eyes);
            return Ok(());
        }
        let (ours, theirs) = socket::packet_pair()?;
        let options = CloneOptions { close: Some(ours.as_fd()), ..CloneOptions::default() };
        // It ends with the connection.
        process::spawn(options, || {
            daemon::close_fds_except(&[theirs.as_raw_fd(), eyes.first.as_raw_fd()]);
            u8::from(process::set_undumpable().and_then(|()| serve(&theirs, eyes)).is_err())
        })?;
        self.other = Some(ours);
        Ok(())
    }

    fn answer(&mut self, name: &'static str, call: &Call, listener: &Arc<Listener>) -> Option<Answer> {
        if let Some(eyes) = &mut self.eyes {
            return eyes.respond(name, call, listener);
        }
        let packet = serde_json::to_vec(&(name, call)).unwrap_or_default();
        let sent = self.other.as_ref().map(|other| socket::send(other, &packet, Some(listener.as_fd())));
        // The other one answers.
        if matches!(sent, Some(Ok(()))) { None } else { Some(Answer::Continue) }
    }
}

fn respond(view: &mut View, name: &str, call: &Call, listener: &Listener) -> Answer {
    // Numbers and structures of 32-bit programs are others.
    if call.architecture != crate::seccomp::native() {
        return Answer::Continue;
    }
    let read = |address| notify::read_path(call.pid, address);
    let Ok(Some(wish)) = wish(name, &call.arguments, read) else { return Answer::Continue };
    let (Wish::Stat(file, ..) | Wish::Statx(file, ..) | Wish::Chown(file, ..) | Wish::Mknod(file, ..)) =
        &wish;
    if let Wish::Mknod(_, mode, device) = wish {
        // It is the process's that is asked for, which `make_device` makes sure of.
        if marks::get(call.pid).is_ok_and(people::is_confined) {
            return Answer::Continue;
        }
        return match view.make_device(call.pid, file, (mode, device), || listener.is_waiting(call.id)) {
            Ok(true) => Answer::Value(0),
            Ok(false) => Answer::Continue,
            Err(error) => Answer::from(&error),
        };
    }
    let Ok(object) = view.open(call.pid, file) else { return Answer::Continue };
    // Only now is it sure that it was the caller's descriptor, directory and memory that were looked at.
    if !listener.is_waiting(call.id) {
        return Answer::Continue;
    }
    match wish {
        Wish::Chown(_, uid, gid) => match object.give(uid, gid) {
            Ok(true) => Answer::Value(0),
            Ok(false) => Answer::Continue,
            Err(error) => Answer::from(&error),
        },
        wish => tell(&object, &wish, call).unwrap_or(Answer::Continue),
    }
}

/// Writes what was asked for into the caller's memory, if the file has another owner than the kernel says.
fn tell(object: &Object, wish: &Wish, call: &Call) -> Option<Answer> {
    let owner = object.owner()?;
    let (bytes, address) = match wish {
        Wish::Stat(_, address) => (object.stat(&owner), *address),
        Wish::Statx(_, flags, mask, address) => (object.statx(&owner, *flags, *mask), *address),
        Wish::Chown(..) | Wish::Mknod(..) => return None,
    };
    Some(match bytes.and_then(|bytes| notify::write_memory(call.pid, address, &bytes)) {
        Ok(()) => Answer::Value(0),
        Err(error) => Answer::from(&error),
    })
}

/// What a call wants, by its arguments, of which `read` reads paths.
fn wish(
    name: &str,
    arguments: &[u64; 6],
    read: impl Fn(u64) -> io::Result<Vec<u8>>,
) -> io::Result<Option<Wish>> {
    let [first, second, third, fourth, fifth, _] = *arguments;
    // The kernel looks at 32 bits of what is an int.
    let number = |argument: u64| argument as i32;
    let id = |argument: u64| Some(argument as u32).filter(|id| *id != u32::MAX);
    let here = |path: u64, follow| {
        let path = read(path)?;
        // An empty path is an error where nothing says otherwise.
        Ok::<_, io::Error>((!path.is_empty()).then_some(Name { directory: libc::AT_FDCWD, path, follow }))
    };
    let open = |fd: u64| Name { directory: number(fd), path: Vec::new(), follow: true };
    // A path beneath a directory, with flags, of which others than these are not ours to understand.
    let at = |directory: u64, path: u64, flags: u64, known: i32, follow: bool| {
        let flags = number(flags);
        if flags & !known != 0 {
            return Ok(None);
        }
        // With the flag the address may be none (Linux 6.11).
        let empty = flags & libc::AT_EMPTY_PATH != 0;
        let path = if empty && path == 0 { Vec::new() } else { read(path)? };
        let name = Name { directory: number(directory), path, follow };
        Ok::<_, io::Error>(Some(name).filter(|name| empty || !name.path.is_empty()))
    };
    let nofollow = |flags: u64| number(flags) & libc::AT_SYMLINK_NOFOLLOW != 0;
    const STAT: i32 = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT;
    const CHOWN: i32 = libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH;
    Ok(match name {
        "stat" | "lstat" => here(first, name == "stat")?.map(|name| Wish::Stat(name, second)),
        "fstat" => Some(Wish::Stat(open(first), second)),
        "newfstatat" => {
            at(first, second, fourth, STAT, !nofollow(fourth))?.map(|name| Wish::Stat(name, third))
        }
        "statx" => at(first, second, third, STAT | libc::AT_STATX_SYNC_TYPE, !nofollow(third))?
            .map(|name| Wish::Statx(name, number(third), fourth as u32, fifth)),
        "chown" | "lchown" => {
            here(first, name == "chown")?.map(|name| Wish::Chown(name, id(second), id(third)))
        }
        "fchown" => Some(Wish::Chown(open(first), id(second), id(third))),
        "fchownat" => at(first, second, fifth, CHOWN, !nofollow(fifth))?
            .map(|name| Wish::Chown(name, id(third), id(fourth))),
        "mknod" => here(first, false)?.map(|name| Wish::Mknod(name, second as u32, device(third))),
        "mknodat" => {
            at(first, second, 0, 0, false)?.map(|name| Wish::Mknod(name, third as u32, device(fourth)))
        }
        _ => None,
    })
}

/// A device as mknod(2) is told it (`new_encode_dev` of the kernel), as stat(2) tells it.
fn device(argument: u64) -> u64 {
    let value = argument as u32;
    rustix::fs::makedev((value & 0xfff00) >> 8, (value & 0xff) | ((value >> 12) & 0xfff00))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, arguments: [u64; 6]) -> Option<Wish> {
        wish(name, &arguments, |address| match address {
            1 => Ok(b"/etc/x".to_vec()),
            2 => Ok(Vec::new()),
            _ => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        })
        .ok()?
    }

    #[test]
    fn calls_are_understood() {
        const HERE: u64 = libc::AT_FDCWD as u32 as u64;
        const NONE: u64 = u64::MAX;
        let name = |directory, path: &[u8], follow| Name { directory, path: path.to_vec(), follow };
        let x = |follow| name(libc::AT_FDCWD, b"/etc/x", follow);
        let (nofollow, empty) = (libc::AT_SYMLINK_NOFOLLOW as u64, libc::AT_EMPTY_PATH as u64);
        assert_eq!(of("stat", [1, 77, 0, 0, 0, 0]), Some(Wish::Stat(x(true), 77)));
        assert_eq!(of("lstat", [1, 77, 0, 0, 0, 0]), Some(Wish::Stat(x(false), 77)));
        assert_eq!(of("stat", [2, 77, 0, 0, 0, 0]), None);
        assert_eq!(of("stat", [9, 77, 0, 0, 0, 0]), None);
        assert_eq!(of("fstat", [5, 77, 0, 0, 0, 0]), Some(Wish::Stat(name(5, b"", true), 77)));
        assert_eq!(of("newfstatat", [HERE, 1, 77, nofollow, 0, 0]), Some(Wish::Stat(x(false), 77)));
        assert_eq!(of("newfstatat", [4, 2, 77, empty, 0, 0]), Some(Wish::Stat(name(4, b"", true), 77)));
        assert_eq!(of("newfstatat", [4, 0, 77, empty, 0, 0]), Some(Wish::Stat(name(4, b"", true), 77)));
        assert_eq!(of("newfstatat", [4, 2, 77, 0, 0, 0]), None);
        assert_eq!(of("newfstatat", [4, 1, 77, 0x8000_0000, 0, 0]), None);
        assert_eq!(
            of("statx", [HERE, 1, 0x2000, 0x7ff, 88, 0]),
            Some(Wish::Statx(x(true), 0x2000, 0x7ff, 88))
        );
        assert_eq!(of("chown", [1, 33, NONE, 0, 0, 0]), Some(Wish::Chown(x(true), Some(33), None)));
        let short = u64::from(u32::MAX);
        assert_eq!(of("lchown", [1, short, 4, 0, 0, 0]), Some(Wish::Chown(x(false), None, Some(4))));
        assert_eq!(of("fchown", [3, 1, 2, 0, 0, 0]), Some(Wish::Chown(name(3, b"", true), Some(1), Some(2))));
        let all = Wish::Chown(x(false), Some(1), Some(2));
        assert_eq!(of("fchownat", [HERE, 1, 1, 2, nofollow, 0]), Some(all));
        let null = rustix::fs::makedev(1, 3);
        assert_eq!(of("mknod", [1, 0o20666, 0x103, 0, 0, 0]), Some(Wish::Mknod(x(false), 0o20666, null)));
        let far = rustix::fs::makedev(259, 0x12345);
        assert_eq!(device(0x1231_0345), far);
        assert_eq!(
            of("mknodat", [HERE, 1, 0o60600, 0x1231_0345, 0, 0]),
            Some(Wish::Mknod(x(false), 0o60600, far))
        );
        assert_eq!(of("open", [1, 0, 0, 0, 0, 0]), None);
    }
}
