//! Writing what was read elsewhere into a directory. Whoever else writes there may put links and other files
//! in the way at any moment: each directory is entered by its own name from the open one above it, no link is
//! followed, and a file gets its name when it is whole.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    self, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::content::{copy_content, overwrite};
use super::{Item, Kind, Problem};
use crate::sys::{atomic, path::Root, tree};

/// Whose the copies are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owners {
    /// As they are told.
    Kept,
    /// All this one's. Privileges of the files (set-user-id bits, capabilities) are kept.
    All(u32, u32),
    /// The caller's, as new files are. Privileges of the files are not: they would be the caller's.
    Own,
}

/// What happens to what has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// A file takes the place of a file; a directory is filled.
    Alike,
    /// Also of a directory, and the other way round.
    Anything,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Written {
    /// Files of all kinds.
    pub files: u64,
    /// Bytes of content.
    pub bytes: u64,
    /// Devices, which are left out.
    pub devices: u64,
}

/// Writes files below a directory.
#[derive(Debug)]
pub struct Sink {
    dir: OwnedFd,
    /// What the root of what is copied is called; `None` for the directory itself.
    top: Option<OsString>,
    owners: Owners,
    replace: Replace,
    /// Where links in the way may lead: archives name files behind links of the rootfs.
    links: Option<(Root, PathBuf)>,
    open: Vec<Open>,
    /// What this has written and others may be further names of.
    written: HashMap<PathBuf, ()>,
    count: Written,
    progress: Progress,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    fd: OwnedFd,
    /// Set when all is in it: filling it would change its times, and its mode might shut us out.
    then: Option<Item>,
}

type Result<T> = std::result::Result<T, Problem>;

/// Told, now and then, how many bytes have been written.
pub type Progress = fn(u64);

/// Writes a file's content; returns the bytes.
pub type Fill<'a> = dyn FnMut(BorrowedFd<'_>) -> io::Result<u64> + 'a;

impl Sink {
    /// Writes below `dir`, under the name `top`.
    pub fn new(dir: OwnedFd, top: Option<OsString>, owners: Owners, replace: Replace) -> Self {
        let (open, written) = (Vec::new(), HashMap::new());
        Self {
            dir,
            top,
            owners,
            replace,
            links: None,
            open,
            written,
            count: Written::default(),
            progress: |_| {},
        }
    }

    /// Tells how far it is.
    pub fn watch(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Follows links on the way to a file, as a process in `root` would; `place` is the directory's path in it.
    pub fn follow_links(&mut self, root: Root, place: PathBuf) {
        self.links = Some((root, place));
    }

    /// Writes one file. A directory comes before what is in it.
    pub fn put(&mut self, item: &Item, content: Option<OwnedFd>) -> Result<()> {
        let path = self.place(&item.path)?;
        if path.as_os_str().is_empty() {
            // The directory that was there is filled, and stays what it is.
            return if item.kind == Kind::Directory { Ok(()) } else { Err(self.in_the_way(item, &path)) };
        }
        match &item.kind {
            Kind::Directory => self.directory(item, &path)?,
            Kind::File => {
                let content = content.ok_or(Problem::Died)?;
                let (mut bytes, progress) = (self.count.bytes, self.progress);
                let mut each = |more| {
                    bytes += more;
                    progress(bytes);
                };
                self.file(item, &path, &mut |file| copy_content(content.as_fd(), file, &mut each))?;
            }
            Kind::Link(first) => {
                let first = self.place(first)?;
                self.link(&first, &path)?;
            }
            Kind::Symlink(target) => {
                self.named(&path, &|dir, name| fs::symlinkat(target.as_os_str(), dir, name))?;
                self.finish_named(item, &path)?;
            }
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(item.mode & 0o777);
                self.named(&path, &|dir, name| fs::mknodat(dir, name, FileType::Fifo, mode, 0))?;
                self.finish_named(item, &path)?;
            }
            Kind::Device => {
                self.count.devices += 1;
                return Ok(());
            }
        }
        self.count.files += 1;
        Ok(())
    }

    /// Writes a regular file, which `fill` gives its content and says how many bytes that is.
    pub fn put_file(&mut self, item: &Item, fill: &mut Fill<'_>) -> Result<()> {
        let path = self.place(&item.path)?;
        if path.as_os_str().is_empty() {
            return Err(self.in_the_way(item, &path));
        }
        self.file(item, &path, fill)?;
        self.count.files += 1;
        Ok(())
    }

    /// Sets what was kept back, and says what was written.
    pub fn finish(mut self) -> Result<Written> {
        self.leave(Path::new(""))?;
        Ok(self.count)
    }

    fn place(&self, path: &Path) -> Result<PathBuf> {
        let place = match &self.top {
            Some(top) if path.as_os_str().is_empty() => PathBuf::from(top),
            Some(top) => Path::new(top).join(path),
            None => path.to_owned(),
        };
        // What comes from another process of ours, or from an archive, stays below all the same.
        if place.components().all(|part| matches!(part, Component::Normal(_))) {
            Ok(place)
        } else {
            Err(Problem::io("writing", path, &io::ErrorKind::InvalidInput.into()))
        }
    }

    fn in_the_way(&self, item: &Item, path: &Path) -> Problem {
        let path = path.display().to_string();
        if item.kind == Kind::Directory { Problem::FileThere(path) } else { Problem::DirectoryThere(path) }
    }

    /// Closes the directories that `path` is not below.
    fn leave(&mut self, path: &Path) -> Result<()> {
        while let Some(last) = self.open.last() {
            if !path.as_os_str().is_empty() && path.starts_with(&last.path) {
                return Ok(());
            }
            if let Some(Open { path, fd, then: Some(item) }) = self.open.pop() {
                self.finish_open(&item, fd.as_fd()).map_err(|error| Problem::io("writing", &path, &error))?;
            }
        }
        Ok(())
    }

    /// The open directory that `path` is in, made where it is missing.
    fn parent<'a>(&mut self, path: &'a Path) -> Result<(BorrowedFd<'_>, &'a OsStr)> {
        let parent = path.parent().unwrap_or(Path::new(""));
        self.leave(parent)?;
        let opened = self.open.last().map_or(PathBuf::new(), |open| open.path.clone());
        let mut at = opened.clone();
        for part in parent.strip_prefix(&opened).unwrap_or(parent) {
            at.push(part);
            let dir = self.open.last().map_or(self.dir.as_fd(), |open| open.fd.as_fd());
            let made = match open_dir(dir, part) {
                Err(Errno::NOENT) => {
                    fs::mkdirat(dir, part, Mode::from_raw_mode(0o755)).and_then(|()| open_dir(dir, part))
                }
                Err(error @ (Errno::LOOP | Errno::NOTDIR)) => match &self.links {
                    Some((root, place)) => root
                        .open_in(&place.join(&at), OFlags::RDONLY | OFlags::DIRECTORY, 0)
                        .map_err(|_| error),
                    None => Err(error),
                },
                other => other,
            };
            let fd = made.map_err(|error| Problem::io("opening", &at, &error.into()))?;
            self.open.push(Open { path: at.clone(), fd, then: None });
        }
        let dir = self.open.last().map_or(self.dir.as_fd(), |open| open.fd.as_fd());
        Ok((dir, path.file_name().unwrap_or_default()))
    }

    fn directory(&mut self, item: &Item, path: &Path) -> Result<()> {
        let failed = |error: Errno| Problem::io("making", path, &error.into());
        let replace = self.replace;
        let (dir, name) = self.parent(path)?;
        match fs::mkdirat(dir, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    // It becomes what the copied one is, as with other programs that copy.
                } else if replace == Replace::Anything {
                    fs::unlinkat(dir, name, AtFlags::empty()).map_err(failed)?;
                    fs::mkdirat(dir, name, Mode::RWXU).map_err(failed)?;
                } else {
                    return Err(Problem::FileThere(path.display().to_string()));
                }
            }
            Err(error) => return Err(failed(error)),
        }
        let fd = open_dir(dir, name).map_err(failed)?;
        self.open.push(Open { path: path.to_owned(), fd, then: Some(item.clone()) });
        Ok(())
    }

    fn file(&mut self, item: &Item, path: &Path, fill: &mut Fill<'_>) -> Result<()> {
        let failed = |action: &'static str| move |error: io::Error| Problem::io(action, path, &error);
        let (dir, _) = self.parent(path)?;
        let (file, temporary) = nameless(dir).map_err(failed("making"))?;
        let done = fill(file.as_fd()).and_then(|bytes| self.finish_open(item, file.as_fd()).map(|()| bytes));
        let done = done.map_err(failed("writing")).and_then(|bytes| {
            self.publish(&file, temporary.as_deref(), path)?;
            Ok(bytes)
        });
        if let (Err(_), Some(name)) = (&done, &temporary)
            && let Ok((dir, _)) = self.parent(path)
        {
            let _ = fs::unlinkat(dir, name.as_os_str(), AtFlags::empty());
        }
        self.count.bytes += done?;
        self.written.insert(path.to_owned(), ());
        Ok(())
    }

    /// Gives a whole file its name.
    fn publish(&mut self, file: &OwnedFd, temporary: Option<&OsStr>, path: &Path) -> Result<()> {
        let failed = |error: Errno| Problem::io("writing", path, &error.into());
        let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
        let replace = self.replace;
        let (dir, name) = self.parent(path)?;
        let named = match temporary {
            None => {
                match fs::linkat(CWD, proc.as_str(), dir, name, AtFlags::SYMLINK_FOLLOW) {
                    Ok(()) => return Ok(()),
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed(error)),
                }
                let named = temporary_name().map_err(|error| Problem::io("writing", path, &error))?;
                fs::linkat(CWD, proc.as_str(), dir, named.as_os_str(), AtFlags::SYMLINK_FOLLOW)
                    .map_err(failed)?;
                named
            }
            Some(name) => name.to_owned(),
        };
        let renamed = match rename_over(dir, &named, name, replace) {
            // It is a mount's root (`/etc/hosts` of a container): what is in it changes.
            Err(Errno::BUSY) => in_place(file, dir, name).inspect(|()| {
                let _ = fs::unlinkat(dir, named.as_os_str(), AtFlags::empty());
            }),
            Err(Errno::ISDIR) => {
                let _ = fs::unlinkat(dir, named.as_os_str(), AtFlags::empty());
                return Err(Problem::DirectoryThere(path.display().to_string()));
            }
            other => other,
        };
        renamed.map_err(|error| {
            let _ = fs::unlinkat(dir, named.as_os_str(), AtFlags::empty());
            failed(error)
        })
    }

    /// Makes something that has no content under a name that may be taken.
    fn named(
        &mut self,
        path: &Path,
        make: &dyn Fn(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<()>,
    ) -> Result<()> {
        let failed = |error: Errno| Problem::io("making", path, &error.into());
        let replace = self.replace;
        let (dir, name) = self.parent(path)?;
        match make(dir, name) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(failed),
        }
        let named = temporary_name().map_err(|error| Problem::io("making", path, &error))?;
        make(dir, &named).map_err(failed)?;
        rename_over(dir, &named, name, replace).map_err(|error| {
            let _ = fs::unlinkat(dir, named.as_os_str(), AtFlags::empty());
            match error {
                Errno::ISDIR => Problem::DirectoryThere(path.display().to_string()),
                error => failed(error),
            }
        })
    }

    /// Another name of a file that this has written itself, and of no other: what has its name may be another
    /// file by now, but one of the same directory.
    fn link(&mut self, first: &Path, path: &Path) -> Result<()> {
        if !self.written.contains_key(first) {
            return Err(Problem::io("linking", path, &io::ErrorKind::NotFound.into()));
        }
        let (dir, name) = self.parent(first)?;
        let held = fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| Problem::io("linking", path, &error.into()))?;
        let proc = format!("/proc/self/fd/{}", held.as_raw_fd());
        self.named(path, &|dir, name| fs::linkat(CWD, proc.as_str(), dir, name, AtFlags::SYMLINK_FOLLOW))
    }

    fn owner(&self, item: &Item) -> Option<(Uid, Gid)> {
        let (uid, gid) = match self.owners {
            Owners::Kept => (item.uid, item.gid),
            Owners::All(uid, gid) => (uid, gid),
            Owners::Own => return None,
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// Owner, attributes, mode and time, in this order: a change of owner takes privileges away.
    fn finish_open(&self, item: &Item, file: BorrowedFd<'_>) -> io::Result<()> {
        if let Some((uid, gid)) = self.owner(item) {
            lenient(fs::fchown(file, Some(uid), Some(gid)))?;
        }
        for (name, value) in &item.attributes {
            if wanted(name.as_bytes(), self.owners == Owners::Own) {
                skippable(fs::fsetxattr(file, name.as_bytes(), value, XattrFlags::empty()))?;
            }
        }
        fs::fchmod(file, self.mode(item))?;
        Ok(fs::futimens(file, &times(item.mtime))?)
    }

    fn mode(&self, item: &Item) -> Mode {
        let privileges = match (&self.owners, &item.kind) {
            (Owners::Own, Kind::Directory) => 0o1000,
            (Owners::Own, _) => 0,
            _ => 0o7000,
        };
        Mode::from_raw_mode(item.mode & (0o777 | privileges))
    }

    fn finish_named(&mut self, item: &Item, path: &Path) -> Result<()> {
        let failed = |error: Errno| Problem::io("writing", path, &error.into());
        let (owner, mode) = (self.owner(item), self.mode(item));
        let (dir, name) = self.parent(path)?;
        if let Some((uid, gid)) = owner {
            let owned = fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
            lenient(owned).map_err(|error| Problem::io("writing", path, &error))?;
        }
        if item.kind == Kind::Fifo {
            // Not by its name, which may be a link's by now.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let held = fs::openat(dir, name, flags, Mode::empty()).map_err(failed)?;
            let held_stat = fs::fstat(&held).map_err(failed)?;
            if FileType::from_raw_mode(held_stat.st_mode) == FileType::Fifo {
                fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), mode).map_err(failed)?;
            }
        }
        fs::utimensat(dir, name, &times(item.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }
}

fn open_dir(dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

fn temporary_name() -> io::Result<OsString> {
    Ok(format!(".umiak-copy-{:016x}", atomic::random()?).into())
}

/// A file without a name, which goes with whoever is killed; one with a name where the file system has no
/// such files.
fn nameless(dir: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<OsString>)> {
    let mode = Mode::RUSR | Mode::WUSR;
    match fs::openat(dir, ".", OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {
            let name = temporary_name()?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok((fs::openat(dir, name.as_os_str(), flags, mode)?, Some(name)))
        }
        other => Ok((other?, None)),
    }
}

/// Renames something that is no directory over what has the other name.
fn rename_over(dir: BorrowedFd<'_>, from: &OsStr, to: &OsStr, replace: Replace) -> rustix::io::Result<()> {
    match fs::renameat(dir, from, dir, to) {
        Err(Errno::ISDIR) if replace == Replace::Anything => {
            // Out of the way first, so that what takes its place does so at once.
            fs::renameat_with(dir, from, dir, to, RenameFlags::EXCHANGE)?;
            tree::remove_below(dir, from).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
        }
        other => other,
    }
}

fn in_place(file: &OwnedFd, dir: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let held = fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    match FileType::from_raw_mode(fs::fstat(&held)?.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR),
        _ => return Err(Errno::BUSY),
    }
    let target =
        fs::open(format!("/proc/self/fd/{}", held.as_raw_fd()), flags - OFlags::NOFOLLOW, Mode::empty())?;
    overwrite(file, target).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Where only one id is mapped, all files are its.
fn lenient(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::INVAL | Errno::PERM) => Ok(()),
        other => Ok(other?),
    }
}

/// Attributes that the file system or the kernel refuses are left out.
fn skippable(result: rustix::io::Result<()>) -> io::Result<()> {
    match result {
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS | Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

fn wanted(name: &[u8], own: bool) -> bool {
    (name == b"security.capability" && !own)
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
        || (name.starts_with(b"system.posix_acl_") && !own)
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
