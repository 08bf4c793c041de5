//! Files that are there whole or not at all.

use std::io::{self, Write};
use std::os::fd::AsFd;
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

/// Writes `bytes` to `path` by way of an unnamed file in the same directory: a reader sees the
/// old content or the new, never a part, and a writer that dies leaves nothing.
pub fn write(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (dir, name) = split(path)?;
    let dir = fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let temporary = format!(".{}.{:016x}", name.display(), random()?);
    let file = fs::openat(
        &dir,
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
        fs::renameat(&dir, &temporary, &dir, name)?;
        if durability == Durability::Synced {
            sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        }
        Ok(())
    })();
    if result.is_err() {
        let _ = fs::unlinkat(&dir, &temporary, AtFlags::empty());
    }
    result
}

/// Creates `path` with `bytes` unless something has that name already (`AlreadyExists`). The
/// content is complete from the first moment that the name can be seen.
pub fn create_new(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let (dir, name) = split(path)?;
    let dirfd = fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let temporary = format!(".{}.{:016x}", name.display(), random()?);
    let file = fs::openat(
        &dirfd,
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
        fs::linkat(&dirfd, &temporary, &dirfd, name, AtFlags::empty())?;
        Ok(())
    })();
    let _ = fs::unlinkat(&dirfd, &temporary, AtFlags::empty());
    if result.is_ok() && durability == Durability::Synced {
        sync_dir(dir)?;
    }
    result
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
