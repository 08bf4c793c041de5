//! Copying a tree of files between two open directories (`tmpcopyup`).

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid};

/// Deeper trees are refused.
const DEPTH: u32 = 128;

/// Copies what is in the directory `from` into the directory `to`: directories, regular files,
/// symbolic links and pipes with their owners and modes. Nothing is followed; other kinds of
/// files are left out.
pub fn tree(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let from = fs::openat(from, ".", flags, Mode::empty())?;
    let to = fs::openat(to, ".", flags, Mode::empty())?;
    level(&from, &to, DEPTH)
}

/// Gives the directory `to` the content, owner and mode of the directory `from`, if it is empty.
pub fn fill(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let open = |fd: &dyn AsFd| {
        fs::openat(fd.as_fd(), ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let (from, to) = (open(&from)?, open(&to)?);
    if !is_empty(&to)? {
        return Ok(());
    }
    level(&from, &to, DEPTH)?;
    let stat = fs::fstat(&from)?;
    fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    Ok(fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?)
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

fn level(from: &OwnedFd, to: &OwnedFd, depth: u32) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name, depth)?;
        }
    }
    Ok(())
}

fn one(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: u32) -> io::Result<()> {
    let stat = fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let owner = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            fs::mkdirat(to, name, Mode::RWXU)?;
            let source = fs::openat(from, name, open | OFlags::DIRECTORY, Mode::empty())?;
            let copy = fs::openat(to, name, open | OFlags::DIRECTORY, Mode::empty())?;
            level(&source, &copy, depth - 1)?;
        }
        FileType::RegularFile => {
            let mut source = std::fs::File::from(fs::openat(from, name, open, Mode::empty())?);
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut copy = std::fs::File::from(fs::openat(to, name, create, Mode::RUSR | Mode::WUSR)?);
            io::copy(&mut source, &mut copy)?;
        }
        FileType::Symlink => {
            let target = fs::readlinkat(from, name, Vec::new())?;
            fs::symlinkat(target, to, name)?;
            return Ok(fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?);
        }
        FileType::Fifo => fs::mknodat(to, name, FileType::Fifo, mode, 0)?,
        _ => return Ok(()),
    }
    // The owner first: changing it takes set-user-id bits off.
    fs::chownat(to, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(fs::chmodat(to, name, mode, AtFlags::empty())?)
}
