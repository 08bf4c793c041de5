//! The parent's side of a container's birth.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{CreateRequest, Error};

/// A container whose init waits at the start gate. Dropping it with a held gate ends the init.
#[derive(Debug)]
pub struct Created {
    /// The init, as the caller sees it.
    pub pid: i32,
    /// Its start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// The init; readable when it ends.
    pub pidfd: OwnedFd,
    /// The master of the container's terminal, if [`super::Stdio::Terminal`] was asked for.
    pub terminal: Option<OwnedFd>,
    /// The control group directory, if the container has one of its own.
    pub cgroup: Option<PathBuf>,
    /// The held gate.
    pub(super) gate: Option<OwnedFd>,
}

impl Created {
    /// Opens a held gate; returns when the program has been executed, or its error.
    pub fn start(&mut self) -> Result<(), Error> {
        let _ = self.gate.take();
        Err(Error::NotRunning)
    }
}

/// Makes the container; its init waits at the gate when this returns. The caller must be
/// single-threaded: the init is a fork of it.
pub fn create(_request: CreateRequest) -> Result<Created, Error> {
    Err(Error::NotRunning)
}

/// Opens a [`super::Gate::Path`] from any process; returns when the program has been executed, or its error.
pub fn start(_gate: &Path) -> Result<(), Error> {
    Err(Error::NotRunning)
}
