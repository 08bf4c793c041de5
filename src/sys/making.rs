//! Making files for a process of a container that the kernel would make as somebody else's ([`super::owners`]).
//!
//! By this nobody may make what he could not make himself: it is done with his root directory and mask, without the
//! capabilities over files that he may lack, and not for who is in a user namespace of his own.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::capability::{self, Sets};
use super::owners::{Name, Object, Owner, View};

/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`.
const OVER_FILES: u64 = 0b110;

/// What is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// A directory, with this mode.
    Directory(u32),
    /// A file that is opened, with these flags and this mode.
    File(i32, u32),
}

/// Does something without capabilities over files.
fn modestly<T>(action: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let (effective, permitted) = (capability::effective()?, capability::permitted()?);
    let sets = Sets { effective, permitted, ..Sets::default() };
    capability::set(&Sets { effective: effective & !OVER_FILES, ..sets })?;
    let done = action();
    capability::set(&sets)?;
    done
}

/// Makes what a thread of a container names, as `uid`'s and `gid`'s; with the open file if it is one. None, and
/// nothing made, where the kernel is to do it: it is there already, or must not or cannot be made from here. `waits`
/// says whether the caller is still who was looked at.
pub fn make(
    view: &mut View,
    thread: i32,
    name: &Name,
    made: Made,
    (uid, gid): (u32, u32),
    waits: impl FnOnce() -> bool,
) -> io::Result<Option<OwnedFd>> {
    let mut path = name.path.as_slice();
    if let Made::Directory(_) = made {
        while path.len() > 1 && path.ends_with(b"/") {
            path = &path[..path.len() - 1];
        }
    }
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let (parent, last) = path.split_at(at);
    if matches!(last, b"" | b"." | b"..") || !view.is_at_home(thread)? {
        return Ok(None);
    }
    let parent = if parent.is_empty() { b".".as_slice() } else { parent };
    let parent = Name { directory: name.directory, path: parent.to_vec(), follow: true };
    let umask = view.umask(thread)?;
    let (last, mode) = (OsStr::from_bytes(last), |mode: u32| Mode::from_raw_mode(mode & 0o7777 & !umask));
    let parent = modestly(|| view.open(thread, &parent))?;
    if !waits() {
        return Ok(None);
    }
    let file = modestly(|| {
        let own = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(match made {
            Made::Directory(bits) => {
                rustix::fs::mkdirat(&parent, last, mode(bits))?;
                rustix::fs::openat(&parent, last, OFlags::PATH | OFlags::DIRECTORY | own, Mode::empty())?
            }
            Made::File(flags, bits) => {
                // Nothing that is there is opened, whatever it may be.
                let flags = OFlags::from_bits_retain(flags as u32) | OFlags::CREATE | OFlags::EXCL | own;
                rustix::fs::openat(&parent, last, flags, mode(bits))?
            }
        })
    })?;
    let stat = rustix::fs::statat(&parent, "", AtFlags::EMPTY_PATH)?;
    // With that bit, what is in a directory is its group's.
    let inherits = Mode::from_raw_mode(stat.st_mode).contains(Mode::SGID);
    let gid = if inherits { parent.owner().map_or(stat.st_gid, |owner| owner.gid) } else { gid };
    let owner = Owner { uid, gid, device: None };
    let name = format!("self/fd/{}", file.as_raw_fd());
    // Where there is no room for it, it stays the kernel's.
    let _ = view.remember(&name, &owner);
    Ok(Some(file))
}

/// What an exec of a file makes of the user and the group: those whose it is, where it is set-user-ID or
/// set-group-ID and that counts (execve(2)).
pub fn taken_by_exec(view: &mut View, thread: i32, name: &Name) -> io::Result<(Option<u32>, Option<u32>)> {
    let nothing = (None, None);
    let object: Object = view.open(thread, name)?;
    let stat = rustix::fs::statat(&object, "", AtFlags::EMPTY_PATH)?;
    let mode = Mode::from_raw_mode(stat.st_mode);
    let (user, group) = (mode.contains(Mode::SUID), mode.contains(Mode::SGID | Mode::XGRP));
    let regular = stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    let runs = mode.intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH);
    if !(user || group) || !regular || !runs || view.gains_nothing(thread)? || object.is_script() {
        return Ok(nothing);
    }
    let mount = rustix::fs::fstatvfs(&object)?;
    if mount.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID) {
        return Ok(nothing);
    }
    let real = Owner { uid: stat.st_uid, gid: stat.st_gid, device: None };
    let owner = object.owner().unwrap_or(real);
    Ok((user.then_some(owner.uid), group.then_some(owner.gid)))
}
