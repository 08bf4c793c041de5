//! Files that are there whole or not at all.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags};

/// How hard [`write`] makes sure that the file outlives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `fsync` the file before it gets its name, and the directory afterwards.
    Synced,
    /// Leave it to the kernel: for what is of use only until the next boot.
    Volatile,
}

/// Writes `bytes` to `path` by way of another file in the same directory: a reader sees the old
/// content or the new, never a part. A writer that is killed may leave that file, whose name begins
/// with a dot; it goes with its directory.
pub fn write(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let written = Written::new(path, bytes, mode)?;
    if durability == Durability::Synced {
        fs::fdatasync(&written.file)?;
    }
    written.publish()?;
    if durability == Durability::Synced {
        sync_dir(path.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// What [`write`] does before the moment in which a reader sees it: for who has time before that, and none then.
/// Dropping it leaves everything as it was.
#[derive(Debug)]
pub struct Written {
    file: std::fs::File,
    dir: OwnedFd,
    temporary: Option<String>,
    name: OsString,
}

impl Written {
    /// Writes the other file.
    pub fn new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<Self> {
        let (dir, name) = split(path)?;
        let dir = fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let temporary = format!(".{}.{:016x}", name.display(), random()?);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = fs::openat(&dir, &temporary, flags, Mode::from_raw_mode(mode))?;
        let mut written =
            Self { file: file.into(), dir, temporary: Some(temporary), name: name.as_os_str().to_owned() };
        written.file.write_all(bytes)?;
        Ok(written)
    }

    /// Gives it its name.
    pub fn publish(mut self) -> io::Result<()> {
        if let Some(temporary) = &self.temporary {
            fs::renameat(&self.dir, temporary, &self.dir, &self.name)?;
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::unlinkat(&self.dir, temporary, AtFlags::empty());
        }
    }
}

/// Makes `path` a symbolic link that points to `text` (not empty), which need be the name of nothing: as [`write`], for
/// texts that are short.
pub fn write_link(path: &Path, text: &str, durability: Durability) -> io::Result<()> {
    match fs::symlink(text, path) {
        Err(rustix::io::Errno::EXIST) => {
            let (dir, name) = split(path)?;
            let temporary = dir.join(format!(".{}.{:016x}", name.display(), random()?));
            fs::symlink(text, &temporary)?;
            fs::rename(&temporary, path).inspect_err(|_| {
                let _ = fs::unlink(&temporary);
            })?;
        }
        other => other?,
    }
    match durability {
        Durability::Synced => sync_dir(path.parent().unwrap_or(Path::new("."))),
        Durability::Volatile => Ok(()),
    }
}

/// Creates `path` with `bytes` unless something has that name already (`AlreadyExists`). The
/// content is complete from the first moment that the name can be seen.
pub fn create_new(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (dir, name) = split(path)?;
    let dirfd = fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let file = match unnamed(&dirfd, mode) {
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) =>
        {
            return create_new_named((dir, &dirfd, name), bytes, mode, durability);
        }
        other => other?,
    };
    let mut file = std::fs::File::from(file);
    file.write_all(bytes)?;
    if durability == Durability::Synced {
        fs::fdatasync(&file)?;
    }
    // Without a name until it is complete: who is killed before leaves nothing.
    let magic = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::linkat(CWD, magic, &dirfd, name, AtFlags::SYMLINK_FOLLOW)?;
    if durability == Durability::Synced {
        sync_dir(dir)?;
    }
    Ok(())
}

fn unnamed(dir: &OwnedFd, mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    Ok(fs::openat(dir, ".", flags, Mode::from_raw_mode(mode))?)
}

/// [`create_new`] where the file system has no files without a name.
fn create_new_named(
    (dir, dirfd, name): (&Path, &OwnedFd, &Path),
    bytes: &[u8],
    mode: u32,
    durability: Durability,
) -> io::Result<()> {
    let temporary = format!(".{}.{:016x}", name.display(), random()?);
    let file = fs::openat(
        dirfd,
        &temporary,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
        Mode::from_raw_mode(mode),
    )?;
    let mut file = std::fs::File::from(file);
    let result = (|| {
        file.write_all(bytes)?;
        if durability == Durability::Synced {
            fs::fdatasync(&file)?;
        }
        fs::linkat(dirfd, &temporary, dirfd, name, AtFlags::empty())?;
        Ok(())
    })();
    let _ = fs::unlinkat(dirfd, &temporary, AtFlags::empty());
    if result.is_ok() && durability == Durability::Synced {
        sync_dir(dir)?;
    }
    result
}

/// A file that gets its name only when it is complete. Where the file system has files without a name,
/// who is killed before leaves nothing; else a file whose name begins with a dot.
#[derive(Debug)]
pub struct Pending {
    /// To write to.
    pub file: std::fs::File,
    dir: OwnedFd,
    temporary: Option<String>,
}

impl Pending {
    /// Makes it, to be read too, in the directory `dir`, with `mode` less the umask.
    pub fn create(dir: &Path, mode: u32) -> io::Result<Self> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let dir = fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let file = match unnamed(&dir, mode) {
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) =>
            {
                let temporary = format!(".umiak-{:016x}", random()?);
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = fs::openat(&dir, &temporary, flags, Mode::from_raw_mode(mode))?;
                return Ok(Self { file: file.into(), dir, temporary: Some(temporary) });
            }
            other => other?,
        };
        Ok(Self { file: file.into(), dir, temporary: None })
    }

    /// Gives it its name, taking it from whatever has it.
    pub fn publish(mut self, name: &std::ffi::OsStr) -> io::Result<()> {
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => {
                let temporary = format!(".umiak-{:016x}", random()?);
                let magic = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                fs::linkat(CWD, magic, &self.dir, &temporary, AtFlags::SYMLINK_FOLLOW)?;
                temporary
            }
        };
        fs::renameat(&self.dir, &temporary, &self.dir, name).inspect_err(|_| {
            let _ = fs::unlinkat(&self.dir, &temporary, AtFlags::empty());
        })?;
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            let _ = fs::unlinkat(&self.dir, temporary, AtFlags::empty());
        }
    }
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    let dir = fs::openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    fs::fsync(dir.as_fd())?;
    Ok(())
}

/// 64 random bits from the kernel.
pub fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fill_random(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Fills `bytes` from getrandom(2).
pub fn fill_random(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(())
}

fn split(path: &Path) -> io::Result<(&Path, &Path)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    Ok((dir, Path::new(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_file_has_no_name_until_it_is_whole() {
        let dir = std::env::temp_dir().join(format!("umiak-pending-{:x}", random().unwrap()));
        std::fs::create_dir(&dir).unwrap();
        let names = || std::fs::read_dir(&dir).unwrap().count();
        drop(Pending::create(&dir, 0o644).unwrap());
        assert_eq!(names(), 0);
        for text in ["first", "second"] {
            let mut pending = Pending::create(&dir, 0o644).unwrap();
            pending.file.write_all(text.as_bytes()).unwrap();
            pending.publish("name".as_ref()).unwrap();
            assert_eq!(std::fs::read_to_string(dir.join("name")).unwrap(), text);
        }
        assert_eq!(names(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_link_takes_another_ones_place() {
        let dir = std::env::temp_dir().join(format!("umiak-link-{:x}", random().unwrap()));
        std::fs::create_dir(&dir).unwrap();
        for (text, durability) in [("first", Durability::Synced), ("second", Durability::Volatile)] {
            write_link(&dir.join("name"), text, durability).unwrap();
            assert_eq!(std::fs::read_link(dir.join("name")).unwrap(), Path::new(text));
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_new_file_is_whole_and_takes_no_others_place() {
        let dir = std::env::temp_dir().join(format!("umiak-atomic-{:x}", random().unwrap()));
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("name");
        let fd = fs::open(&dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        create_new(&path, b"first", 0o600, Durability::Synced).unwrap();
        let taken = create_new(&path, b"second", 0o600, Durability::Volatile).unwrap_err();
        let name = Path::new("name");
        let named = create_new_named((&dir, &fd, name), b"third", 0o600, Durability::Volatile).unwrap_err();
        assert_eq!(
            (taken.kind(), named.kind()),
            (io::ErrorKind::AlreadyExists, io::ErrorKind::AlreadyExists)
        );
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
