//! A further process in a running container.

use std::os::fd::OwnedFd;

use super::{Error, ExecRequest};

/// A process that [`exec`] started; it is a child of the caller.
#[derive(Debug)]
pub struct Executed {
    /// The process, as the caller sees it.
    pub pid: i32,
    /// Readable when it ends.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if [`super::Stdio::Terminal`] was asked for.
    pub terminal: Option<OwnedFd>,
}

/// Runs a program in a running container; returns when it has been executed, or its error
/// ([`Error::exit_code`] tells 126 and 127). The caller must be single-threaded.
pub fn exec(_request: ExecRequest) -> Result<Executed, Error> {
    Err(Error::NotRunning)
}
