//! Hostile paths: everything that names something inside a rootfs or an image is resolved by
//! openat2(2) beneath a directory descriptor, so that no symbolic link, `..` or race with a
//! process inside leads out (CVE-2021-30465, CVE-2019-14271 and their kin).

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// A directory that nothing resolved through it can leave.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a trusted path on the host as the root.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd })
    }

    /// Takes an open directory (`O_PATH` will do) as the root.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Opens `path` as a process chrooted here would see it: symbolic links are followed, absolute
    /// ones from this root; magic links (`/proc/self/exe`) are refused.
    pub fn open_in(&self, path: &Path, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        openat2(&self.fd, path, flags, mode, ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens `path` without following any symbolic link, absolute path or `..` out of the root.
    pub fn open_strict(&self, path: &Path, flags: OFlags, mode: u32) -> io::Result<OwnedFd> {
        openat2(
            &self.fd,
            path,
            flags,
            mode,
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
        )
    }

    /// Opens what is on the root's own mount, not on one that covers a part of it.
    pub fn open_on_one_mount(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.fd, path, flags, 0, resolve)
    }

    /// Opens the directory `path`, as [`Root::open_in`] resolves it, making what is missing of it,
    /// also where a link leads.
    pub fn create_dir_all(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        self.make_dirs(path, mode, true)
    }

    /// As [`Root::create_dir_all`]; a link that leads to nothing is an error.
    pub fn create_dir_all_beside_links(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        self.make_dirs(path, mode, false)
    }

    fn make_dirs(&self, path: &Path, mode: u32, through_links: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_in(path, flags, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = parent_and_name(path)?;
        let parent_fd = self.make_dirs(&parent, mode, through_links)?;
        match fs::mkdirat(&parent_fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) => {}
            // It may be a link to nothing; the kernel resolves each step of what we make of it.
            Err(Errno::EXIST) if through_links => {
                if let Some(path) = self.follow(&parent_fd, &parent, name)? {
                    return self.make_dirs(&path, mode, true);
                }
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        // Resolved again from the root: somebody may have put a link there since.
        self.open_in(path, flags, 0)
    }

    /// Opens the file `path`, with `O_PATH` if it is there already, making an empty one, and its directories, where
    /// it is missing, also where a link leads. Only a handle: what can be done with it besides is not said.
    pub fn create_file(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        match self.open_in(path, OFlags::PATH, 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let (parent, name) = parent_and_name(path)?;
        let parent_fd = self.create_dir_all(&parent, 0o755)?;
        match Self::make_file(&parent_fd, name, mode) {
            Ok(made) => return Ok(made),
            Err(Errno::EXIST) => {
                if let Some(path) = self.follow(&parent_fd, &parent, name)? {
                    return self.create_file(&path, mode);
                }
            }
            Err(error) => return Err(error.into()),
        }
        self.open_in(path, OFlags::PATH, 0)
    }

    /// Makes an empty file in an open directory, and follows no link: nobody else's, because it was not there before.
    pub fn make_file(directory: &OwnedFd, name: &OsStr, mode: u32) -> Result<OwnedFd, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(directory, name, flags, Mode::from_raw_mode(mode))
    }

    /// Where the link `name` in `parent` leads, as a path from this root; `None` if it is no link.
    /// Only a path to be resolved again: what it names is confined then.
    fn follow(&self, parent_fd: &OwnedFd, parent: &Path, name: &OsStr) -> io::Result<Option<PathBuf>> {
        let text = match fs::readlinkat(parent_fd, name, Vec::new()) {
            Err(Errno::INVAL | Errno::NOENT) => return Ok(None),
            other => other?,
        };
        // `..` stays in it: what is above the parent, which may have been reached by a link, only the
        // kernel knows.
        let path = parent.join(OsStr::from_bytes(text.as_bytes()));
        // Links that lead in a circle grow no longer path than this.
        if path.as_os_str().len() > 4096 || path == parent.join(name) {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        Ok(Some(path))
    }

    /// Removes a directory or a regular file if nothing is in it; whether it did. No link is followed on the way.
    pub fn remove_if_empty(&self, path: &Path) -> io::Result<bool> {
        let (parent, name) = parent_and_name(path)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = match self.open_strict(&parent, flags, 0) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) =>
            {
                return Ok(false);
            }
            other => other?,
        };
        let stat = match fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            other => other?,
        };
        let removed = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
            FileType::RegularFile if stat.st_size == 0 => fs::unlinkat(&parent, name, AtFlags::empty()),
            _ => return Ok(false),
        };
        match removed {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Where this root is. Only to be given to what takes paths: it may be elsewhere by then.
    pub fn path(&self) -> io::Result<PathBuf> {
        proc_link(self.fd.as_fd())
    }

    /// Where an open object is, as seen from this root. Only to be shown, or given to a program that
    /// takes paths: what is there may change.
    pub fn place_of(&self, fd: impl AsFd) -> io::Result<PathBuf> {
        let own = proc_link(self.fd.as_fd())?;
        let path = proc_link(fd.as_fd())?;
        let below = path.strip_prefix(&own).map_err(|_| io::Error::from_raw_os_error(libc::EXDEV))?;
        Ok(Path::new("/").join(below))
    }

    /// Reads a regular file of at most `limit` bytes, resolved as [`Root::open_in`] does.
    /// Anything but a regular file (a fifo would block) is `InvalidInput`, a larger file `FileTooLarge`.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let fd = self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, 0)?;
        let stat = fs::fstat(&fd)?;
        if fs::FileType::from_raw_mode(stat.st_mode) != fs::FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut bytes = Vec::new();
        std::fs::File::from(fd).take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn proc_link(fd: BorrowedFd<'_>) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd)))
}

fn openat2(
    dir: &OwnedFd,
    path: &Path,
    flags: OFlags,
    mode: u32,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        match fs::openat2(dir, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode), resolve) {
            // EAGAIN: a rename or mount elsewhere raced with a ".." of this walk; openat2(2) says to retry.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

/// Splits off the last name of a path that stays inside: `.` is dropped and `..` refused, because
/// what it means cannot be known for a directory that is not there yet.
fn parent_and_name(path: &Path) -> io::Result<(PathBuf, &OsStr)> {
    let mut components = path.components().filter(|c| !matches!(c, Component::CurDir));
    match components.next_back() {
        Some(Component::Normal(name)) => Ok((components.collect(), name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn temporary() -> PathBuf {
        let dir =
            std::env::temp_dir().join(format!("umiak-path-{:x}", crate::sys::atomic::random().unwrap()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn links_do_not_lead_out() {
        let dir = temporary();
        std::fs::create_dir(dir.join("root")).unwrap();
        std::fs::write(dir.join("secret"), "s").unwrap();
        symlink("../secret", dir.join("root/relative")).unwrap();
        symlink(dir.join("secret"), dir.join("root/absolute")).unwrap();
        symlink("/proc/self/exe", dir.join("root/magic")).unwrap();
        let root = Root::open(&dir.join("root")).unwrap();
        for link in ["relative", "absolute", "magic", "../secret", "/../../secret"] {
            assert!(root.open_in(Path::new(link), OFlags::RDONLY, 0).is_err(), "{link}");
            assert!(root.open_strict(Path::new(link), OFlags::RDONLY, 0).is_err(), "{link}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn directories_are_made_inside_the_target_of_a_link() {
        let dir = temporary();
        std::fs::create_dir(dir.join("real")).unwrap();
        symlink("/real", dir.join("link")).unwrap();
        let root = Root::open(&dir).unwrap();
        root.create_dir_all(Path::new("/link/a/./b"), 0o755).unwrap();
        root.create_file(Path::new("link/a/c/f"), 0o644).unwrap();
        assert!(dir.join("real/a/b").is_dir() && dir.join("real/a/c/f").is_file());
        symlink("/nowhere", dir.join("dangling")).unwrap();
        root.create_dir_all(Path::new("dangling/x"), 0o755).unwrap();
        assert!(dir.join("nowhere/x").is_dir());
        symlink("/never", dir.join("refused")).unwrap();
        assert!(root.create_dir_all_beside_links(Path::new("refused/x"), 0o755).is_err());
        symlink("../../../up/file", dir.join("above")).unwrap();
        root.create_file(Path::new("above"), 0o644).unwrap();
        assert!(dir.join("up/file").is_file());
        symlink("circle", dir.join("circle")).unwrap();
        assert!(root.create_file(Path::new("circle"), 0o644).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn read_refuses_what_is_no_file() {
        let dir = temporary();
        std::fs::write(dir.join("f"), "hello").unwrap();
        rustix::fs::mknodat(CWD, dir.join("p"), fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
        let root = Root::open(&dir).unwrap();
        assert_eq!(root.read(Path::new("f"), 5).unwrap(), b"hello");
        assert!(root.read(Path::new("f"), 4).is_err());
        assert!(root.read(Path::new("p"), 9).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
