//! Advisory locks (flock(2)) on files and directories: the kernel drops them when their holder
//! dies, so a lock is never stale.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, FlockOperation, Mode, OFlags};

/// A held lock; dropping it releases it.
#[derive(Debug)]
pub struct Lock {
    fd: OwnedFd,
}

impl Lock {
    /// Takes the lock together with others who share it, waiting for an exclusive holder.
    pub fn shared(path: &Path) -> io::Result<Self> {
        Self::take(path, FlockOperation::LockShared)
    }

    /// Takes the lock alone, waiting for all other holders.
    pub fn exclusive(path: &Path) -> io::Result<Self> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Takes the lock alone if nobody holds it now.
    pub fn try_exclusive(path: &Path) -> io::Result<Option<Self>> {
        match Self::take(path, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock of something that must exist (`NotFound` if not), as a directory does, alone.
    pub fn exclusive_existing(path: &Path) -> io::Result<Self> {
        Self::hold(
            fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
            FlockOperation::LockExclusive,
        )
    }

    /// The same if nobody holds it now.
    pub fn try_exclusive_existing(path: &Path) -> io::Result<Option<Self>> {
        let fd = fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        match Self::hold(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes the directory `path` and takes its lock alone. Whoever sweeps may take the new directory,
    /// still without a lock, for rubbish: it is made anew then.
    pub fn new_directory(path: &Path, mode: u32) -> io::Result<Self> {
        loop {
            fs::mkdir(path, Mode::from_raw_mode(mode))?;
            match Self::exclusive_existing(path) {
                Ok(lock) if lock.is_at(path) => return Ok(lock),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }

    /// Whether `path` still names what is locked.
    pub fn is_at(&self, path: &Path) -> bool {
        match (fs::fstat(&self.fd), fs::lstat(path)) {
            (Ok(held), Ok(named)) => (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino),
            _ => false,
        }
    }

    /// Releases the lock also where a process that was forked meanwhile still has it open.
    pub fn release(self) -> io::Result<()> {
        Ok(fs::flock(&self.fd, FlockOperation::Unlock)?)
    }

    /// The locked file or directory.
    pub fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn take(path: &Path, operation: FlockOperation) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = match fs::open(path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => {
                fs::open(path, flags | OFlags::CREATE, Mode::from_raw_mode(0o600))?
            }
            other => other?,
        };
        Self::hold(fd, operation)
    }

    fn hold(fd: OwnedFd, operation: FlockOperation) -> io::Result<Self> {
        loop {
            match fs::flock(&fd, operation) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(Self { fd }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_directory_is_locked_although_it_is_swept_away() {
        let dir =
            std::env::temp_dir().join(format!("umiak-lock-{:x}", crate::sys::atomic::random().unwrap()));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    if let Ok(Some(lock)) = Lock::try_exclusive_existing(&dir)
                        && lock.is_at(&dir)
                    {
                        std::fs::remove_dir(&dir).unwrap();
                    }
                }
            });
            for _ in 0..2000 {
                let lock = Lock::new_directory(&dir, 0o700).unwrap();
                assert!(lock.is_at(&dir));
                std::fs::remove_dir(&dir).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
