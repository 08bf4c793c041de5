//! Copying a tree of files between two open directories (`tmpcopyup`).

use std::collections::HashMap;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::tree::{attributes, set_xattr};
use rustix::fs::{self, AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

/// Deeper trees are refused.
const DEPTH: u32 = 128;

/// Copies what is in the directory `from` into the directory `to`: directories, regular files,
/// symbolic links and pipes with their owners, modes, times, extended attributes and hard links. Nothing is
/// followed; other kinds of files are left out.
pub fn tree(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = fs::openat(from, ".", flags, Mode::empty())?;
    let to = fs::openat(to, ".", flags, Mode::empty())?;
    Copy { links: HashMap::new() }.level(&from, &to, DEPTH)
}

/// Gives the directory `to` the content, mode and attributes of the directory `from`, if it is empty, and
/// its owner, unless somebody else than root has it already.
pub fn fill(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let open = |fd: &dyn AsFd| {
        fs::openat(fd.as_fd(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let (from, to) = (open(&from)?, open(&to)?);
    if !is_empty(&to)? {
        return Ok(());
    }
    Copy { links: HashMap::new() }.level(&from, &to, DEPTH)?;
    let (stat, own) = (fs::fstat(&from)?, fs::fstat(&to)?);
    if (own.st_uid, own.st_gid) == (0, 0) {
        given(fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid))))?;
    }
    give_attributes(from.as_fd(), to.as_fd())?;
    Ok(fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
}

/// Whether a copy has got its original's owner. An owner without an id here is shown as one that nobody is
/// (`/proc/sys/kernel/overflowuid`), to whom nothing can be given: then the copy is the maker's.
fn given(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(rustix::io::Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

/// Gives an open file, or a directory with all that is in it, to a user and group. No link is followed,
/// and no other file system entered.
pub fn give(what: impl AsFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    let stat = fs::fstat(&what)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let dir =
            fs::openat(&what, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        give_level(&dir, (uid, gid), stat.st_dev, DEPTH)?;
    }
    if (stat.st_uid, stat.st_gid) != (uid, gid) {
        fs::chownat(&what, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH)?;
    }
    Ok(())
}

fn give_level(dir: &OwnedFd, owner: (u32, u32), device: u64, depth: u32) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    let ids = (Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)));
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            // Removed since it was read.
            Err(rustix::io::Errno::NOENT) => continue,
            other => other?,
        };
        if stat.st_dev != device {
            continue;
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let below = fs::openat(dir, name, flags, Mode::empty())?;
            give_level(&below, owner, device, depth - 1)?;
        }
        if (stat.st_uid, stat.st_gid) != owner {
            fs::chownat(dir, name, ids.0, ids.1, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

/// Gives an open directory to a user and group if nothing is in it and root has it.
pub fn give_empty(what: impl AsFd, (uid, gid): (u32, u32)) -> io::Result<()> {
    let stat = fs::fstat(&what)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory || (stat.st_uid, stat.st_gid) != (0, 0) {
        return Ok(());
    }
    let dir = fs::openat(&what, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    if is_empty(&dir)? {
        fs::fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

fn is_empty(dir: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Gives a copy what its original has of extended attributes. What the file system does not take, or only
/// the machine's root may set, is left out.
fn give_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for (name, value) in attributes(from)? {
        match set_xattr(to, &name, &value) {
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EPERM | libc::EACCES | libc::EOPNOTSUPP | libc::EINVAL)
                ) => {}
            other => other?,
        }
    }
    Ok(())
}

/// A copy that goes on.
struct Copy {
    /// Copies of files with several names: names are told by directories, so a copy is held open.
    links: HashMap<(u64, u64), OwnedFd>,
}

/// More files with several names are copied anew, each: a descriptor is held for one.
const MOST_LINKS: usize = 256;

impl Copy {
    fn level(&mut self, from: &OwnedFd, to: &OwnedFd, depth: u32) -> io::Result<()> {
        if depth == 0 {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                self.one(from, to, name, depth)?;
            }
        }
        Ok(())
    }

    fn one(&mut self, from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: u32) -> io::Result<()> {
        let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
        let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut made: Option<(OwnedFd, OwnedFd)> = None;
        match kind {
            FileType::Directory => {
                fs::mkdirat(to, name, Mode::RWXU)?;
                let source = fs::openat(from, name, open | OFlags::DIRECTORY, Mode::empty())?;
                let copy = fs::openat(to, name, open | OFlags::DIRECTORY, Mode::empty())?;
                self.level(&source, &copy, depth - 1)?;
                made = Some((source, copy));
            }
            FileType::RegularFile => {
                if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                    // By its name in /proc, because linking a descriptor takes a privilege (open(2), "O_TMPFILE").
                    let first = super::mount::name_of(first);
                    if fs::linkat(fs::CWD, first, to, name, AtFlags::SYMLINK_FOLLOW).is_ok() {
                        return Ok(());
                    }
                }
                let source = fs::openat(from, name, open, Mode::empty())?;
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let copy = fs::openat(to, name, create, Mode::RUSR | Mode::WUSR)?;
                let (mut read, mut write) =
                    (std::fs::File::from(source.try_clone()?), std::fs::File::from(copy.try_clone()?));
                io::copy(&mut read, &mut write)?;
                if stat.st_nlink > 1 && self.links.len() < MOST_LINKS {
                    self.links.insert((stat.st_dev, stat.st_ino), copy.try_clone()?);
                }
                made = Some((source, copy));
            }
            FileType::Symlink => {
                let target = fs::readlinkat(from, name, Vec::new())?;
                fs::symlinkat(target, to, name)?;
            }
            FileType::Fifo => fs::mknodat(to, name, FileType::Fifo, mode, 0)?,
            _ => return Ok(()),
        }
        // The owner first: changing it takes set-user-id bits and capabilities off.
        given(fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW))?;
        if kind != FileType::Symlink {
            fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
        if let Some((source, copy)) = &made {
            give_attributes(source.as_fd(), copy.as_fd())?;
        }
        let moment =
            |seconds: i64, nanoseconds: u64| fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
        let times = fs::Timestamps {
            last_access: moment(stat.st_atime, stat.st_atime_nsec),
            last_modification: moment(stat.st_mtime, stat.st_mtime_nsec),
        };
        Ok(fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }
}
