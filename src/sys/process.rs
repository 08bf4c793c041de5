//! Processes: cloning, waiting, identity.

use std::io;
use std::os::fd::AsFd;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl ExitStatus {
    /// The status as shells and engines tell it: the code, or 128 + the signal.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128u8.wrapping_add(signal as u8),
        }
    }
}

/// Waits for a child by its pidfd and reaps it.
pub fn wait(_pidfd: impl AsFd) -> io::Result<ExitStatus> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The start time of process `pid` in clock ticks since boot (field 22 of `/proc/PID/stat`).
pub fn start_time(_pid: i32) -> io::Result<u64> {
    Err(io::ErrorKind::Unsupported.into())
}
