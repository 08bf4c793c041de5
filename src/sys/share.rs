//! One content for two files: a reflink where the file system has them, else a hard link.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::path::Root;

/// Bytes compared at a time.
const PIECE: usize = 128 << 10;
/// More extended attributes than this are not compared, but taken as different.
const MAX_XATTRS: usize = 4096;

/// Gives files of one tree, which nobody else uses yet, the content of files of other trees, which
/// nobody writes to.
#[derive(Debug)]
pub struct Sharer {
    to: Root,
    scratch: PathBuf,
    /// Whether the file system has reflinks, once that was tried.
    reflinks: Option<bool>,
    buffers: (Vec<u8>, Vec<u8>),
}

impl Sharer {
    /// For the tree `to`; `scratch` is a free name on the same file system for a link on its way.
    pub fn new(to: &Path, scratch: PathBuf) -> io::Result<Self> {
        let buffers = (vec![0; PIECE], vec![0; PIECE]);
        Ok(Self { to: Root::open(to)?, scratch, reflinks: None, buffers })
    }

    /// Whether a link is all that can be had here.
    pub fn only_links(&self) -> bool {
        self.reflinks == Some(false)
    }

    /// Makes `path` share the content of `from_path` in the tree `from`, if it is equal, byte for
    /// byte; a hard link only if `link` allows it and owner, mode, time and extended attributes
    /// are equal too, and the file has no other name. Says whether they share it now.
    pub fn share(&mut self, from: &Root, from_path: &Path, path: &Path, link: bool) -> io::Result<bool> {
        if self.only_links() && !link {
            return Ok(false);
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let write = if self.only_links() { OFlags::RDONLY } else { OFlags::RDWR };
        let source = from.open_strict(from_path, OFlags::RDONLY | flags, 0)?;
        let file = self.to.open_strict(path, write | flags, 0)?;
        let (one, two) = (fs::fstat(&source)?, fs::fstat(&file)?);
        let regular = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular(&one) || !regular(&two) || one.st_size != two.st_size || one.st_dev != two.st_dev {
            return Ok(false);
        }
        let link = link && two.st_nlink == 1 && same_metadata(&one, &two) && same_xattrs(&source, &file)?;
        // A write, which cloning is, takes these privileges off.
        let privileged = two.st_mode & 0o6000 != 0 || has_capability(&file);
        let clone = !self.only_links() && !privileged;
        if one.st_ino == two.st_ino || !(clone || link) || !self.equal(&source, &file)? {
            return Ok(false);
        }
        if clone {
            match fs::ioctl_ficlone(&file, &source) {
                Ok(()) => {
                    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
                    let times = Timestamps {
                        last_access: time(two.st_atime, two.st_atime_nsec as _),
                        last_modification: time(two.st_mtime, two.st_mtime_nsec as _),
                    };
                    fs::futimens(&file, &times)?;
                    self.reflinks = Some(true);
                    return Ok(true);
                }
                Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS | Errno::XDEV) => {
                    self.reflinks = self.reflinks.or(Some(false));
                }
                Err(_) => {}
            }
        }
        if link && self.reflinks != Some(true) {
            self.link(from, from_path, path, one.st_ino)
        } else {
            Ok(false)
        }
    }

    fn link(&self, from: &Root, from_path: &Path, path: &Path, inode: u64) -> io::Result<bool> {
        let parent_of = |root: &Root, path: &Path| {
            let parent = path.parent().unwrap_or(Path::new(""));
            root.open_strict(parent, OFlags::PATH | OFlags::DIRECTORY, 0)
        };
        let (Some(from_name), Some(name)) = (from_path.file_name(), path.file_name()) else {
            return Ok(false);
        };
        let source = parent_of(from, from_path)?;
        match fs::linkat(&source, from_name, CWD, &self.scratch, AtFlags::empty()) {
            Ok(()) => {}
            // Too many links, or a system that forbids them: the files stay two.
            Err(Errno::MLINK | Errno::PERM | Errno::XDEV | Errno::OPNOTSUPP) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let linked = || -> io::Result<bool> {
            let same = fs::statat(CWD, &self.scratch, AtFlags::SYMLINK_NOFOLLOW)?.st_ino == inode;
            if same {
                fs::renameat(CWD, &self.scratch, parent_of(&self.to, path)?, name)?;
            }
            Ok(same)
        };
        let done = linked();
        if !matches!(done, Ok(true)) {
            let _ = fs::unlink(&self.scratch);
        }
        done
    }

    fn equal(&mut self, one: &OwnedFd, two: &OwnedFd) -> io::Result<bool> {
        let (first, second) = (&mut self.buffers.0, &mut self.buffers.1);
        let mut offset = 0;
        loop {
            let count = rustix::io::pread(one, &mut *first, offset)?;
            if count == 0 {
                return Ok(true);
            }
            let mut filled = 0;
            while filled < count {
                match rustix::io::pread(two, &mut second[filled..count], offset + filled as u64)? {
                    0 => return Ok(false),
                    more => filled += more,
                }
            }
            if first[..count] != second[..count] {
                return Ok(false);
            }
            offset += count as u64;
        }
    }
}

fn same_metadata(one: &Stat, two: &Stat) -> bool {
    (one.st_mode, one.st_uid, one.st_gid, one.st_mtime, one.st_mtime_nsec)
        == (two.st_mode, two.st_uid, two.st_gid, two.st_mtime, two.st_mtime_nsec)
}

fn has_capability(file: impl AsFd) -> bool {
    !matches!(
        fs::fgetxattr(file, "security.capability", &mut [0u8; 64]),
        Err(Errno::NODATA | Errno::OPNOTSUPP)
    )
}

/// Names and values, of at most [`MAX_XATTRS`] bytes each.
fn same_xattrs(one: &OwnedFd, two: &OwnedFd) -> io::Result<bool> {
    let list = |fd: &OwnedFd| -> io::Result<Option<Vec<u8>>> {
        let mut names = vec![0; MAX_XATTRS];
        match fs::flistxattr(fd, &mut names[..]) {
            Ok(count) => {
                names.truncate(count);
                Ok(Some(names))
            }
            Err(Errno::OPNOTSUPP) => Ok(Some(Vec::new())),
            Err(Errno::RANGE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let (Some(names), Some(others)) = (list(one)?, list(two)?) else { return Ok(false) };
    if names.is_empty() && others.is_empty() {
        return Ok(true);
    }
    let split = |names: &[u8]| {
        let mut list: Vec<Vec<u8>> = names.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        list.retain(|name| !name.is_empty());
        list.sort();
        list
    };
    let names = split(&names);
    if names != split(&others) {
        return Ok(false);
    }
    for name in &names {
        let value = |fd: &OwnedFd| {
            let mut value = vec![0; MAX_XATTRS];
            fs::fgetxattr(fd, name.as_slice(), &mut value[..]).map(|count| {
                value.truncate(count);
                value
            })
        };
        match (value(one), value(two)) {
            (Ok(first), Ok(second)) if first == second => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}
