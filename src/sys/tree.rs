//! Trees of files that somebody else may have filled: made and removed through directory
//! descriptors, so that no symbolic link leads out.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::path::Root;

/// How deep [`remove_all`] goes with a descriptor for each level. What lies deeper is moved up
/// first: a container may nest directories without end.
const REMOVE_DEPTH: u32 = 64;

/// Removes a file or a whole tree. Absence is no error. Symbolic links are not followed, directories of
/// ours without permissions (overlayfs leaves one) are no hindrance.
pub fn remove_all(path: &Path) -> io::Result<()> {
    match fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // What unlink(2) says of directories, in Linux's words and in POSIX's.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    loop {
        match fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        match open_to_empty(fs::CWD, path) {
            Ok(top) => empty(&top, &top, REMOVE_DEPTH)?,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn open_to_empty(dir: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // If it is not ours to change, "permission denied" stays the answer.
            fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty()).map_err(|_| Errno::ACCESS)?;
            fs::openat(dir, name, flags, Mode::empty())
        }
        other => other,
    }
}

/// Removes what is in `dir`; what is too deep comes to lie in `top`.
fn empty(top: &OwnedFd, dir: &OwnedFd, depth: u32) -> rustix::io::Result<()> {
    for entry in fs::Dir::read_from(dir)? {
        // Somebody else removes the same tree: a directory that is gone has no entries, which is an error.
        let entry = match entry {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(error),
            }
        }
        // An empty directory goes without being opened.
        match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        if depth == 0 {
            let random = super::atomic::random().map_err(|_| Errno::IO)?;
            match fs::renameat(dir, name, top, format!(".deep-{random:016x}")) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(error) => return Err(error),
            }
        }
        match open_to_empty(dir.as_fd(), name) {
            Ok(below) => empty(top, &below, depth - 1)?,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error),
        }
        match fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Owner, permissions and time of a file.
#[derive(Clone, Copy, Debug)]
pub struct Metadata {
    /// Permissions with setuid, setgid and sticky bits (12 bits).
    pub mode: u32,
    /// Owner and group to set; `None` leaves the caller's.
    pub owner: Option<(u32, u32)>,
    /// Modification time: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
}

/// A special file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// Named pipe.
    Fifo,
    /// Character device with major and minor number.
    Char(u32, u32),
    /// Block device with major and minor number.
    Block(u32, u32),
}

/// How the name of a file begins that hides another (OCI image specification, `layer.md`).
pub const WHITEOUT: &str = ".wh.";
/// The file that hides what lower layers have in its directory.
pub const OPAQUE: &str = ".wh..wh..opq";

/// Builds a tree beneath one directory. Paths are relative, of normal components only; a parent
/// that is a symbolic link is followed as a process chrooted to the tree would follow it, so
/// nothing is ever made outside.
#[derive(Debug)]
pub struct Writer {
    root: Root,
    /// Open ancestors of the last path, outermost first.
    open: Vec<Ancestor>,
    directories: Vec<(PathBuf, Metadata)>,
    umask: u32,
    /// As what new files are born.
    born: (u32, u32),
    plain: bool,
    aside: Option<Aside>,
    /// Directories that were made for what is in them, where they really are.
    implied: BTreeSet<PathBuf>,
}

#[derive(Debug)]
struct Ancestor {
    path: PathBuf,
    fd: OwnedFd,
    /// Where it really is, if a link may have led there.
    real: Option<PathBuf>,
}

/// Where files and directories go that a later entry takes the place of.
#[derive(Debug)]
struct Aside {
    place: PathBuf,
    fd: Option<OwnedFd>,
    count: u64,
    moved: Vec<(PathBuf, u64)>,
}

impl Writer {
    /// Builds beneath the directory `root`.
    pub fn new(root: &Path) -> io::Result<Self> {
        let born = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (root, umask) = (Root::open(root)?, umask()?);
        Ok(Self {
            root,
            open: Vec::new(),
            directories: Vec::new(),
            umask,
            born,
            plain: false,
            aside: None,
            // An archive that has no entry for its root is the rule.
            implied: BTreeSet::from([PathBuf::new()]),
        })
    }

    /// From now on files and directories that are replaced are not removed but moved into the
    /// directory `place`, made when it is needed, under a number (hexadecimal).
    pub fn set_aside_in(&mut self, place: PathBuf) {
        self.aside = Some(Aside { place, fd: None, count: 0, moved: Vec::new() });
    }

    /// What was set aside since this was asked last: where it really was, and its number.
    pub fn take_moved(&mut self) -> Vec<(PathBuf, u64)> {
        self.aside.as_mut().map(|aside| std::mem::take(&mut aside.moved)).unwrap_or_default()
    }

    /// The path by which `path` is reached without links; its directory is made if it is missing.
    pub fn real(&mut self, path: &Path) -> io::Result<PathBuf> {
        let (_, name) = self.parent(path)?;
        Ok(match self.open.last().and_then(|ancestor| ancestor.real.as_ref()) {
            // The path of the parent, which is the last one opened, or else the root.
            Some(real) if path.parent().is_some_and(|parent| !parent.as_os_str().is_empty()) => {
                real.join(name)
            }
            _ => path.to_owned(),
        })
    }

    /// Whether something is hidden by a file named [`WHITEOUT`] or [`OPAQUE`], because the file
    /// system refused what overlayfs understands.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// The open parent directory of `path`, made if it is missing, and the last name.
    fn parent<'a>(&mut self, path: &'a Path) -> io::Result<(BorrowedFd<'_>, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let fd = self.directory(parent)?;
        Ok((fd, name))
    }

    fn directory(&mut self, path: &Path) -> io::Result<BorrowedFd<'_>> {
        if path.as_os_str().is_empty() {
            return Ok(self.root.as_fd());
        }
        while self.open.last().is_some_and(|open| !path.starts_with(&open.path)) {
            self.open.pop();
        }
        if self.open.last().is_none_or(|open| open.path != path) {
            let (fd, real) = self.open_directory(path)?;
            self.open.push(Ancestor { path: path.to_owned(), fd, real });
        }
        Ok(self.open.last().map_or(self.root.as_fd(), |open| open.fd.as_fd()))
    }

    fn open_directory(&mut self, path: &Path) -> io::Result<(OwnedFd, Option<PathBuf>)> {
        if path.components().any(|c| !matches!(c, Component::Normal(_))) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // From the nearest open ancestor, and only through real directories: the common case.
        let (base, rest, base_real) = match self.open.last() {
            Some(open) => {
                (open.fd.as_fd(), path.strip_prefix(&open.path).unwrap_or(path), open.real.as_ref())
            }
            None => (self.root.as_fd(), path, None),
        };
        let strict = fs::ResolveFlags::BENEATH | fs::ResolveFlags::NO_SYMLINKS;
        match fs::openat2(base, rest, flags, Mode::empty(), strict) {
            Ok(fd) => Ok((fd, base_real.map(|real| real.join(rest)))),
            Err(Errno::NOENT | Errno::LOOP | Errno::AGAIN | Errno::INTR) => {
                let missing = self.missing(path);
                let fd = self.root.create_dir_all_beside_links(path, 0o755)?;
                let real = self.root.place_of(&fd)?.strip_prefix("/").map(Path::to_owned).ok();
                // However it is reached, what is new of it are its last parts.
                let new = real.as_deref().unwrap_or(path).ancestors().take(missing);
                self.implied.extend(new.map(Path::to_owned));
                Ok((fd, real.filter(|real| real != path)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// How many of the path's last directories are not there.
    fn missing(&self, path: &Path) -> usize {
        let there = |path: &Path| self.root.open_in(path, OFlags::PATH | OFlags::DIRECTORY, 0).is_ok();
        path.ancestors().take_while(|path| !there(path)).count()
    }

    /// Makes `make` happen where nothing has the name; whatever has it is removed first.
    fn replace<T>(
        &mut self,
        path: &Path,
        make: impl Fn(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        let (dir, name) = self.parent(path)?;
        match make(dir, name) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        self.remove(path)?;
        let (dir, name) = self.parent(path)?;
        Ok(make(dir, name)?)
    }

    /// Removes what has this name, a tree as a whole. Absence is no error.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        if self.set_aside(path)? {
            self.open.clear();
            return Ok(());
        }
        let (dir, name) = self.parent(path)?;
        match fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove_tree(dir, name)?,
            Err(Errno::NOENT) => {}
            other => other?,
        }
        // Descriptors of directories that are gone, or were reached through a link, must not be used on.
        self.open.clear();
        Ok(())
    }

    /// Moves a file with content, or a directory, out of the way; says whether it did.
    fn set_aside(&mut self, path: &Path) -> io::Result<bool> {
        let Some(mut aside) = self.aside.take() else { return Ok(false) };
        let done = self.set_aside_into(&mut aside, path);
        self.aside = Some(aside);
        done
    }

    fn set_aside_into(&mut self, aside: &mut Aside, path: &Path) -> io::Result<bool> {
        let real = self.real(path)?;
        let (dir, name) = self.parent(path)?;
        let kind = match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => FileType::from_raw_mode(stat.st_mode),
            Err(Errno::NOENT) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        if !matches!(kind, FileType::RegularFile | FileType::Directory) {
            return Ok(false);
        }
        let place = match &mut aside.fd {
            Some(fd) => fd,
            none => {
                fs::mkdir(&aside.place, Mode::RWXU)?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                none.insert(fs::open(&aside.place, flags, Mode::empty())?)
            }
        };
        fs::renameat(dir, name, place, format!("{:x}", aside.count))?;
        aside.moved.push((real, aside.count));
        aside.count += 1;
        Ok(true)
    }

    /// Opens a new regular file for writing, and replaces what had its name.
    /// [`Writer::finish_file`] gives it its metadata.
    pub fn create_file(&mut self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Without the special bits: a later write or chown would take them off again.
        self.replace(path, |dir, name| fs::openat(dir, name, flags, Mode::from_raw_mode(mode & 0o777)))
    }

    /// Sets owner, permissions and time of a file that was written.
    pub fn finish_file(&self, file: BorrowedFd<'_>, metadata: &Metadata) -> io::Result<()> {
        self.chown(metadata, |uid, gid| fs::fchown(file, Some(uid), Some(gid)))?;
        if metadata.mode & (self.umask | 0o7000) != 0 {
            fs::fchmod(file, Mode::from_raw_mode(metadata.mode))?;
        }
        fs::futimens(file, &times(metadata.mtime))?;
        Ok(())
    }

    fn chown(
        &self,
        metadata: &Metadata,
        chown: impl FnOnce(Uid, Gid) -> rustix::io::Result<()>,
    ) -> io::Result<()> {
        match metadata.owner {
            Some(owner) if owner != self.born => Ok(chown(Uid::from_raw(owner.0), Gid::from_raw(owner.1))?),
            _ => Ok(()),
        }
    }

    /// Makes a directory, or takes the one that is there. Permissions and time are set by
    /// [`Writer::finish`], since filling it changes them: a setgid bit would be passed on, a
    /// missing write bit would shut us out. Says what was replaced.
    pub fn directory_entry(&mut self, path: &Path, metadata: &Metadata) -> io::Result<Replaced> {
        if path.as_os_str().is_empty() {
            let root = self.root.open_strict(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
            self.chown(metadata, |uid, gid| fs::fchown(&root, Some(uid), Some(gid)))?;
            self.directories.push((path.to_owned(), *metadata));
            return Ok(Replaced::Directory);
        }
        let mode = Mode::from_raw_mode((metadata.mode & 0o777) | 0o700);
        let (dir, name) = self.parent(path)?;
        let replaced = match fs::mkdirat(dir, name, mode) {
            Ok(()) => Replaced::Nothing,
            Err(Errno::EXIST) => {
                let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => Replaced::Directory,
                    kind => {
                        self.remove(path)?;
                        let (dir, name) = self.parent(path)?;
                        fs::mkdirat(dir, name, mode)?;
                        let whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
                        if whiteout { Replaced::Whiteout } else { Replaced::Other }
                    }
                }
            }
            Err(error) => return Err(error.into()),
        };
        match metadata.owner {
            // A directory made for an earlier entry may be another's by now.
            Some(owner) if replaced == Replaced::Directory || owner != self.born => {
                let (dir, name) = self.parent(path)?;
                let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
                fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
        self.directories.push((path.to_owned(), *metadata));
        Ok(replaced)
    }

    /// Makes a symbolic link.
    pub fn symlink(&mut self, path: &Path, target: &OsStr, metadata: &Metadata) -> io::Result<()> {
        self.replace(path, |dir, name| fs::symlinkat(target, dir, name))?;
        self.finish_named(path, metadata)
    }

    /// Makes `path` another name of the file `target`, a path in the tree like the other.
    pub fn hard_link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        if path == target {
            return Ok(());
        }
        let (dir, from) = self.parent(target)?;
        // Never of a directory, and first a look that it is there: the name may have to be freed.
        let stat = fs::statat(dir, from, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(Errno::ISDIR.into());
        }
        let dir = dir.try_clone_to_owned()?;
        self.replace(path, |to, name| fs::linkat(&dir, from, to, name, AtFlags::empty()))
    }

    /// Makes a special file.
    pub fn node(&mut self, path: &Path, node: Node, metadata: &Metadata) -> io::Result<()> {
        let (kind, device) = match node {
            Node::Fifo => (FileType::Fifo, 0),
            Node::Char(major, minor) => (FileType::CharacterDevice, fs::makedev(major, minor)),
            Node::Block(major, minor) => (FileType::BlockDevice, fs::makedev(major, minor)),
        };
        let mode = Mode::from_raw_mode(metadata.mode & 0o777);
        self.replace(path, |dir, name| fs::mknodat(dir, name, kind, mode, device))?;
        self.finish_named(path, metadata)?;
        let (dir, name) = self.parent(path)?;
        if metadata.mode & 0o7777 & !0o600 != 0 {
            fs::chmodat(dir, name, Mode::from_raw_mode(metadata.mode), AtFlags::empty())?;
        }
        Ok(())
    }

    /// Makes overlayfs hide what lower layers have under this name. What this layer has already
    /// under it stays (OCI image specification, `layer.md`), a directory becomes opaque.
    pub fn whiteout(&mut self, path: &Path, opaque: &OsStr) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        let refused = match fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => return Ok(()),
            // Which of the two comes first is the file system's affair.
            Err(error @ (Errno::EXIST | Errno::PERM)) => error,
            Err(error) => return Err(error.into()),
        };
        match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                self.make_opaque(path, opaque)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) if refused == Errno::PERM => {
                let parent = path.parent().unwrap_or(Path::new(""));
                let mut whiteout = OsString::from(WHITEOUT);
                whiteout.push(name);
                self.plain_file(&parent.join(whiteout))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a directory hide what lower layers have in it, by overlayfs's attribute `opaque`.
    pub fn make_opaque(&mut self, directory: &Path, opaque: &OsStr) -> io::Result<()> {
        match self.set_attribute(directory, opaque, b"y") {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM)) => {
                self.plain_file(&directory.join(OPAQUE))
            }
            other => other,
        }
    }

    fn plain_file(&mut self, path: &Path) -> io::Result<()> {
        self.plain = true;
        self.create_file(path, 0o600).map(drop)
    }

    /// Sets an extended attribute of a directory, made if it is missing.
    pub fn set_attribute(&mut self, directory: &Path, name: &OsStr, value: &[u8]) -> io::Result<()> {
        self.directory(directory)?;
        let fd = self.root.open_in(directory, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        Ok(fs::fsetxattr(&fd, name.as_bytes(), value, XattrFlags::empty())?)
    }

    fn finish_named(&mut self, path: &Path, metadata: &Metadata) -> io::Result<()> {
        let owner = metadata.owner.filter(|owner| *owner != self.born);
        let (dir, name) = self.parent(path)?;
        if let Some((uid, gid)) = owner {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            fs::chownat(dir, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)?;
        }
        Ok(fs::utimensat(dir, name, &times(metadata.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets what was kept back for the directories: permissions and times. Gives those that had no entry of
    /// their own, the root as an empty path; some of them may be gone again. Their time is 1970.
    pub fn finish(mut self) -> io::Result<Vec<PathBuf>> {
        for (path, metadata) in std::mem::take(&mut self.directories) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let fd = match self.root.open_in(&path, flags, 0) {
                Ok(fd) => fd,
                // A later entry took its place, or that of a directory above it.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let born = ((metadata.mode & 0o777) | 0o700) & !self.umask;
            if metadata.mode != born || path.as_os_str().is_empty() {
                fs::fchmod(&fd, Mode::from_raw_mode(metadata.mode))?;
            }
            fs::futimens(&fd, &times(metadata.mtime))?;
            if !self.implied.remove(&path) && !self.implied.is_empty() {
                // A link may have led there.
                let place = self.root.place_of(&fd)?;
                self.implied.remove(place.strip_prefix("/").unwrap_or(&place));
            }
        }
        let implied: Vec<PathBuf> = self.implied.into_iter().collect();
        for path in &implied {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            // Not the time of unpacking: the same layer is the same tree everywhere.
            match self.root.open_strict(path, flags, 0) {
                Ok(fd) => fs::futimens(&fd, &times((0, 0)))?,
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(implied)
    }
}

/// What a directory entry found under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// Nothing.
    Nothing,
    /// A directory, which was kept.
    Directory,
    /// A whiteout, which was removed: the directory must become opaque.
    Whiteout,
    /// Something else, which was removed.
    Other,
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

fn umask() -> io::Result<u32> {
    // umask(2) can be read only by changing it, which other threads would notice.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    Ok(line.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777))
}

/// Removes a directory and what is in it by its name in an open directory.
pub(super) fn remove_below(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    remove_tree(dir, name)
}

/// Removes a directory and what is in it, without recursion of ours: archives may nest deeply.
fn remove_tree(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut stack: Vec<(OwnedFd, OsString)> = Vec::new();
    let mut current = fs::openat(dir, name, flags, Mode::empty())?;
    'directory: loop {
        let entries: Vec<OsString> = fs::Dir::read_from(&current)?
            .map(|entry| entry.map(|e| OsStr::from_bytes(e.file_name().to_bytes()).to_owned()))
            .collect::<Result<_, _>>()?;
        for entry in entries.iter().filter(|e| *e != "." && *e != "..") {
            match fs::unlinkat(&current, entry, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    let below = fs::openat(&current, entry, flags, Mode::empty())?;
                    stack.push((std::mem::replace(&mut current, below), entry.clone()));
                    continue 'directory;
                }
                Err(error) => return Err(error.into()),
            }
        }
        match stack.pop() {
            Some((above, entry)) => {
                fs::unlinkat(&above, &entry, AtFlags::REMOVEDIR)?;
                current = above;
            }
            None => return Ok(fs::unlinkat(dir, name, AtFlags::REMOVEDIR)?),
        }
    }
}

/// Everything below the directory `root`, as paths relative to it, in no order. Links are not followed.
pub fn paths(root: &Path) -> io::Result<Vec<PathBuf>> {
    let root = Root::open(root)?;
    let mut paths = Vec::new();
    let mut pending = vec![PathBuf::new()];
    while let Some(directory) = pending.pop() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        for entry in fs::Dir::new(root.open_strict(&directory, flags, 0)?)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let path = directory.join(OsStr::from_bytes(name.to_bytes()));
            if entry.file_type() == FileType::Directory {
                pending.push(path.clone());
            }
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Sets an extended attribute of an open file.
pub fn set_xattr(file: BorrowedFd<'_>, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(fs::fsetxattr(file, name.as_bytes(), value, XattrFlags::empty())?)
}

/// Copies the capabilities of a program to a copy of it.
pub fn copy_capability(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    const NAME: &str = "security.capability";
    let mut value = [0; 64];
    match fs::fgetxattr(from, NAME, &mut value) {
        Ok(count) => Ok(fs::fsetxattr(to, NAME, &value[..count], XattrFlags::empty())?),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Most bytes of an attribute, and of all names of a file's (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const MAX_ATTRIBUTE: usize = 64 << 10;

/// The extended attributes of an open file, whatever they are, but overlayfs's own.
pub fn attributes(file: impl AsFd) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut few = [0; 512];
    let mut many = Vec::new();
    // Most files have none or one.
    let names = match fs::flistxattr(&file, &mut few[..]) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Ok(length) => &few[..length],
        Err(Errno::RANGE) => {
            many.resize(MAX_ATTRIBUTE, 0);
            let length = fs::flistxattr(&file, &mut many[..])?;
            &many[..length]
        }
        Err(error) => return Err(error.into()),
    };
    let mut list = Vec::new();
    let mut value = vec![0; MAX_ATTRIBUTE];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let length = fs::fgetxattr(&file, name, &mut value[..])?;
        list.push((OsStr::from_bytes(name).to_owned(), value[..length].to_vec()));
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_tree_can_be_removed() {
        let base =
            std::env::temp_dir().join(format!("umiak-tree-{:x}", crate::sys::atomic::random().unwrap()));
        std::fs::create_dir_all(base.join("a/closed/full")).unwrap();
        std::fs::write(base.join("outside"), "").unwrap();
        std::os::unix::fs::symlink("../outside", base.join("a/link")).unwrap();
        std::fs::create_dir(base.join("a/none")).unwrap();
        for dir in ["a/closed", "a/none"] {
            fs::chmod(base.join(dir), Mode::empty()).unwrap();
        }
        // Deeper than a path may be long, and than descriptors would last.
        let mut dir = fs::open(base.join("a"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        for _ in 0..3000 {
            fs::mkdirat(&dir, "d", Mode::RWXU).unwrap();
            dir = fs::openat(&dir, "d", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
        drop(dir);
        remove_all(&base.join("a")).unwrap();
        remove_all(&base.join("a")).unwrap();
        assert!(!base.join("a").exists() && base.join("outside").exists());
        remove_all(&base).unwrap();
    }
}
