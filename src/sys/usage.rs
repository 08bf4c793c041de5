//! How much a tree of files takes.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

/// Deeper directories are left out: nobody's data lie there.
const DEPTH: usize = 256;

/// The bytes of all regular files below the directory `path`, each inode once. Absence is nothing. What
/// goes away meanwhile, and directories that may not be read, are left out.
pub fn bytes(path: &Path) -> io::Result<u64> {
    let top = match open(CWD, path) {
        Err(Errno::NOENT) => return Ok(0),
        other => other?,
    };
    let mut seen = HashSet::new();
    let mut total = 0;
    let mut open_dirs: Vec<Dir> = vec![Dir::new(top)?];
    while let Some(dir) = open_dirs.last_mut() {
        let Some(entry) = dir.read() else {
            open_dirs.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let fd = dir.fd()?;
        match entry.file_type() {
            FileType::Directory => match open(fd, name) {
                Ok(below) if open_dirs.len() < DEPTH => open_dirs.push(Dir::new(below)?),
                _ => {}
            },
            FileType::RegularFile | FileType::Unknown => {
                let Ok(stat) = fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                let counted = stat.st_nlink == 1 || seen.insert((stat.st_dev, stat.st_ino));
                if counted && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                    total += u64::try_from(stat.st_size).unwrap_or(0);
                }
            }
            _ => {}
        }
    }
    Ok(total)
}

fn open(dir: impl AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}
