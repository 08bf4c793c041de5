//! Owners that a file's inode cannot have, where there is one id only: kept beside it in an attribute, and found by
//! the view that a process of the container has of its files.
//!
//! Who looks for it is in the container's user and mount namespaces, with the root directory of the caller: what
//! paths and links lead to is what they lead the caller to, and nothing else is there to be led to. What a path
//! names is opened once, and all is done to that.

use std::ffi::OsStr;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::{mount, namespace, process, pseudo, userns};

/// The name of the attribute. Archives may not set it.
pub const ATTRIBUTE: &str = "user.umiak.owner";

/// Who a file is said to belong to, as seen inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The file stands for a device: what kind (`S_IFCHR` or `S_IFBLK`) and which, `makedev(3)`.
    pub device: Option<(u32, u64)>,
}

impl Owner {
    /// Reads an attribute's value, `UID:GID` or `UID:GID:c:MAJOR:MINOR` (`b` for a block device). Anybody in the
    /// container may have written it.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok()?;
        let parts: Vec<&str> = text.split(':').collect();
        let id = |text: &str| text.parse().ok().filter(|id| *id != u32::MAX);
        let (uid, gid) = (id(parts.first()?)?, id(parts.get(1)?)?);
        let device = match parts[2..] {
            [] => None,
            [kind, major, minor] => {
                let kind = match kind {
                    "c" => libc::S_IFCHR,
                    "b" => libc::S_IFBLK,
                    _ => return None,
                };
                // The kernel's numbers have 12 and 20 bits.
                let number = |text: &str, most: u32| text.parse().ok().filter(|number| *number < most);
                let device = rustix::fs::makedev(number(major, 1 << 12)?, number(minor, 1 << 20)?);
                Some((kind, device))
            }
            _ => return None,
        };
        Some(Self { uid, gid, device })
    }

    /// What [`Self::parse`] reads.
    pub fn text(&self) -> String {
        let Self { uid, gid, device } = self;
        let Some((kind, device)) = device else { return format!("{uid}:{gid}") };
        let kind = if *kind == libc::S_IFBLK { 'b' } else { 'c' };
        let (major, minor) = (rustix::fs::major(*device), rustix::fs::minor(*device));
        format!("{uid}:{gid}:{kind}:{major}:{minor}")
    }
}

/// Keeps the owner beside a file or directory that is the caller's own.
pub fn set(path: &Path, owner: &Owner) -> io::Result<()> {
    Ok(rustix::fs::setxattr(path, ATTRIBUTE, owner.text().as_bytes(), XattrFlags::empty())?)
}

/// What a caller names a file by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// A descriptor of his, or `AT_FDCWD`.
    pub directory: i32,
    /// Relative to that. Empty: it is that itself.
    pub path: Vec<u8>,
    /// Whether a link is followed that it names.
    pub follow: bool,
}

/// The view of a container's processes.
#[derive(Debug)]
pub struct View {
    /// The host's, which knows processes by the numbers that the listener tells; it is this process's working
    /// directory, too.
    proc: OwnedFd,
    /// The number and the mount of this process's root directory.
    root: (u64, u64),
    /// The container's user namespace.
    home: (u64, u64),
}

/// An open file of a container (`O_PATH`).
#[derive(Debug)]
pub struct Object {
    fd: OwnedFd,
    /// By which calls that take no such descriptors find it.
    name: String,
}

impl View {
    /// Goes into the user and mount namespaces of a container's first process for good, as its root, unseen by what
    /// is in there. For a process that does nothing else; it must be single-threaded. Refused (`PermissionDenied`),
    /// without harm, as long as that process is ours and hidden, and not yet its program.
    pub fn enter(container: &OwnedFd) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty())?;
        process::set_undumpable()?;
        namespace::join(container, (libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64)?;
        userns::become_root()?;
        process::set_undumpable()?;
        rustix::process::umask(Mode::empty());
        rustix::process::fchdir(&proc)?;
        let home = user_namespace(&proc, "self")?;
        Ok(Self { proc, root: (0, 0), home })
    }

    /// Opens what a thread of the container names. An error may be one of looking at that thread; what is wrong with
    /// the name the kernel tells the caller best itself.
    pub fn open(&mut self, thread: i32, name: &Name) -> io::Result<Object> {
        let Name { directory, path, follow } = name;
        let base = |what: String| self.of(&format!("{thread}/{what}"), OFlags::empty());
        let base = match *directory {
            libc::AT_FDCWD if path.first() == Some(&b'/') => None,
            libc::AT_FDCWD => Some(base("cwd".to_owned())?),
            number if number < 0 => return Err(Errno::BADF.into()),
            _ if path.first() == Some(&b'/') => None,
            number => Some(base(format!("fd/{number}"))?),
        };
        if path.is_empty() {
            return base.map(Object::new).ok_or_else(|| Errno::NOENT.into());
        }
        self.take_root(thread)?;
        let nofollow = if *follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::PATH | OFlags::CLOEXEC | nofollow;
        let base = base.as_ref().map_or(self.proc.as_fd(), AsFd::as_fd);
        Ok(Object::new(rustix::fs::openat(base, OsStr::from_bytes(path), flags, Mode::empty())?))
    }

    fn of(&self, what: &str, more: OFlags) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.proc, what, OFlags::PATH | OFlags::CLOEXEC | more, Mode::empty())?)
    }

    /// Makes the root directory of a thread this process's.
    fn take_root(&mut self, thread: i32) -> io::Result<()> {
        let root = self.of(&format!("{thread}/root"), OFlags::DIRECTORY)?;
        let flags = rustix::fs::StatxFlags::INO | rustix::fs::StatxFlags::MNT_ID;
        let stat = rustix::fs::statx(&root, "", AtFlags::EMPTY_PATH, flags)?;
        let which = (stat.stx_ino, stat.stx_mnt_id);
        if which == self.root {
            return Ok(());
        }
        mount::chroot(&root)?;
        // That is where the numbers of descriptors are found by.
        rustix::process::fchdir(&self.proc)?;
        self.root = which;
        Ok(())
    }

    /// Whether a thread is in the container's user namespace, and in none of its own.
    pub fn is_at_home(&self, thread: i32) -> io::Result<bool> {
        Ok(user_namespace(&self.proc, &thread.to_string())? == self.home)
    }

    /// The mask of permissions of a thread (umask(2)).
    pub fn umask(&self, thread: i32) -> io::Result<u32> {
        let mask = self.status(thread, "Umask:")?;
        Ok(mask.and_then(|mask| u32::from_str_radix(&mask, 8).ok()).unwrap_or(0o022))
    }

    /// Whether an exec gives a thread nothing (`PR_SET_NO_NEW_PRIVS`).
    pub fn gains_nothing(&self, thread: i32) -> io::Result<bool> {
        Ok(self.status(thread, "NoNewPrivs:")?.is_none_or(|value| value != "0"))
    }

    /// A line of a thread's status (proc_pid_status(5)).
    fn status(&self, thread: i32, key: &str) -> io::Result<Option<String>> {
        let mut bytes = Vec::new();
        pseudo::read(&self.proc, &format!("{thread}/status"), &mut bytes)?;
        let status = String::from_utf8_lossy(&bytes);
        Ok(status.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim().to_owned()))
    }

    /// Keeps the owner beside an open file, which is named relative to the host's `/proc`.
    pub(super) fn remember(&self, name: &str, owner: &Owner) -> io::Result<()> {
        Ok(rustix::fs::setxattr(name, ATTRIBUTE, owner.text().as_bytes(), XattrFlags::empty())?)
    }

    /// Makes a file that stands for a device. Without room for attributes there is none, and no error. `waits` says
    /// whether the caller is still who was looked at; false if he is not.
    pub fn make_device(
        &mut self,
        thread: i32,
        name: &Name,
        (mode, device): (u32, u64),
        waits: impl FnOnce() -> bool,
    ) -> io::Result<bool> {
        let at = name.path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let (parent, last) = name.path.split_at(at);
        match last {
            b"" => return Err(Errno::NOENT.into()),
            b"." | b".." => return Err(Errno::EXIST.into()),
            _ => {}
        }
        let parent = if parent.is_empty() { b".".as_slice() } else { parent };
        let parent =
            self.open(thread, &Name { directory: name.directory, path: parent.to_vec(), follow: true })?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let permissions = Mode::from_raw_mode(mode & 0o7777 & !self.umask(thread)?);
        if !waits() {
            return Ok(false);
        }
        let last = OsStr::from_bytes(last);
        let file = rustix::fs::openat(&parent.fd, last, flags, permissions)?;
        let stat = rustix::fs::fstat(&file)?;
        let device = Some((mode & libc::S_IFMT, device));
        let owner = Owner { uid: stat.st_uid, gid: stat.st_gid, device };
        if rustix::fs::fsetxattr(&file, ATTRIBUTE, owner.text().as_bytes(), XattrFlags::CREATE).is_err() {
            rustix::fs::unlinkat(&parent.fd, last, AtFlags::empty())?;
        }
        Ok(true)
    }
}

/// Which user namespace a process is in.
fn user_namespace(proc: &OwnedFd, process: &str) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statat(proc, format!("{process}/ns/user"), AtFlags::empty())?;
    Ok((stat.st_dev, stat.st_ino))
}

impl AsFd for Object {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Object {
    fn new(fd: OwnedFd) -> Self {
        // Relative to the host's /proc.
        Self { name: format!("self/fd/{}", fd.as_raw_fd()), fd }
    }

    /// Whether it is run by an interpreter, whose bits count then. One that cannot be read is none.
    pub fn is_script(&self) -> bool {
        let mut start = [0; 2];
        let read = rustix::fs::open(&*self.name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        read.and_then(|file| rustix::io::read(file, &mut start)).is_ok() && start == *b"#!"
    }

    /// Whom it is said to belong to, if not to whom the kernel says.
    pub fn owner(&self) -> Option<Owner> {
        let mut value = [0; 64];
        // Links and special files have no such attributes.
        let length = rustix::fs::getxattr(&*self.name, ATTRIBUTE, &mut value).ok()?;
        Owner::parse(&value[..length])
    }

    /// Gives it to somebody, as chown(2) does: `None` leaves as it is. What has no room for attributes stays as it
    /// is without an error. False: nothing had to be remembered, and the kernel may do it.
    pub fn give(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<bool> {
        let stat = rustix::fs::fstat(&self.fd)?;
        let before = self.owner();
        let real = Owner { uid: stat.st_uid, gid: stat.st_gid, device: None };
        let now = before.unwrap_or(real);
        let after = Owner { uid: uid.unwrap_or(now.uid), gid: gid.unwrap_or(now.gid), device: now.device };
        if before.is_none() && after == real {
            return Ok(false);
        }
        let done = if after == real {
            rustix::fs::removexattr(&*self.name, ATTRIBUTE)
        } else {
            let value = after.text();
            rustix::fs::setxattr(&*self.name, ATTRIBUTE, value.as_bytes(), XattrFlags::empty())
        };
        match done {
            // No file system with attributes, no kind of file with attributes, or a file of somebody else's.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
        let mode = Mode::from_raw_mode(stat.st_mode);
        let special = mode.intersects(Mode::SUID) || mode.contains(Mode::SGID | Mode::XGRP);
        if special && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let kept = if mode.contains(Mode::XGRP) { Mode::SUID | Mode::SGID } else { Mode::SUID };
            // Not for who has become somebody else: that these bits go is what chown(2) promises.
            rustix::fs::chmod(&*self.name, mode.difference(kept))?;
        }
        Ok(true)
    }

    /// `struct stat` as the kernel has it, with this owner.
    pub fn stat(&self, owner: &Owner) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size_of::<libc::stat>()];
        // SAFETY: the kernel writes one `struct stat`, which on 64-bit machines is what libc has.
        let result = unsafe {
            libc::syscall(
                libc::SYS_newfstatat,
                self.fd.as_raw_fd(),
                c"".as_ptr(),
                bytes.as_mut_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        put(&mut bytes, offset_of!(libc::stat, st_uid), &owner.uid.to_ne_bytes());
        put(&mut bytes, offset_of!(libc::stat, st_gid), &owner.gid.to_ne_bytes());
        if let Some((kind, device)) = owner.device {
            let at = offset_of!(libc::stat, st_mode);
            let mode = bytes[at..].first_chunk().map_or(0, |mode| u32::from_ne_bytes(*mode));
            put(&mut bytes, at, &(mode & !libc::S_IFMT | kind).to_ne_bytes());
            put(&mut bytes, offset_of!(libc::stat, st_rdev), &device.to_ne_bytes());
        }
        Ok(bytes)
    }

    /// `struct statx` with this owner, of what `mask` wants.
    pub fn statx(&self, owner: &Owner, flags: i32, mask: u32) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; size_of::<libc::statx>()];
        let flags = flags & libc::AT_STATX_SYNC_TYPE | libc::AT_EMPTY_PATH;
        // SAFETY: the kernel writes one `struct statx`.
        let result = unsafe {
            libc::syscall(libc::SYS_statx, self.fd.as_raw_fd(), c"".as_ptr(), flags, mask, bytes.as_mut_ptr())
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        put(&mut bytes, offset_of!(libc::statx, stx_uid), &owner.uid.to_ne_bytes());
        put(&mut bytes, offset_of!(libc::statx, stx_gid), &owner.gid.to_ne_bytes());
        if let Some((kind, device)) = owner.device {
            let at = offset_of!(libc::statx, stx_mode);
            let mode = bytes[at..].first_chunk().map_or(0, |mode| u16::from_ne_bytes(*mode));
            let mode = mode & !(libc::S_IFMT as u16) | kind as u16;
            put(&mut bytes, at, &mode.to_ne_bytes());
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            put(&mut bytes, offset_of!(libc::statx, stx_rdev_major), &major.to_ne_bytes());
            put(&mut bytes, offset_of!(libc::statx, stx_rdev_minor), &minor.to_ne_bytes());
        }
        Ok(bytes)
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_read_as_they_are_written() {
        let null = (libc::S_IFCHR, rustix::fs::makedev(1, 3));
        for owner in [
            Owner { uid: 33, gid: 0, device: None },
            Owner { uid: 0, gid: u32::MAX - 1, device: None },
            Owner { uid: 0, gid: 6, device: Some(null) },
            Owner { uid: 0, gid: 6, device: Some((libc::S_IFBLK, rustix::fs::makedev(4095, 70_000))) },
        ] {
            assert_eq!(Owner::parse(owner.text().as_bytes()), Some(owner), "{}", owner.text());
        }
        let bad =
            ["", "1", "1:", ":1", "1:2:", "1:2:c", "1:2:x:1:3", "1:2:c:1:9999999", "-1:2", "1:2:c:1:3:4"];
        for bad in bad.iter().map(|bad| bad.as_bytes()).chain([&b"\xff:1"[..], b"4294967295:0", b"1:2\0"]) {
            assert_eq!(Owner::parse(bad), None, "{bad:?}");
        }
    }
}
