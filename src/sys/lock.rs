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
        Self::locked(
            fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?,
            FlockOperation::LockExclusive,
        )
    }

    /// The same if nobody holds it now.
    pub fn try_exclusive_existing(path: &Path) -> io::Result<Option<Self>> {
        let fd = fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        match Self::locked(fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
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
        Self::locked(fd, operation)
    }

    fn locked(fd: OwnedFd, operation: FlockOperation) -> io::Result<Self> {
        loop {
            match fs::flock(&fd, operation) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(Self { fd }),
            }
        }
    }
}
