//! A criu at work: started by us, asked over a socket, and waited for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::Error;
use super::request::{self, Answer, Kind, Options};
use crate::sys::process::{self, Child, CloneOptions};
use crate::sys::{socket, userns};

/// Criu's own files are small, but not its logs.
const LOG_LIMIT: u64 = 64 << 20;

/// Finds criu.
pub(super) fn find() -> Result<PathBuf, Error> {
    userns::find_helper("criu").ok_or(Error::NotInstalled)
}

/// What criu has come to.
pub(super) enum Step {
    /// It waits at this step; with it may come the init's number and a descriptor.
    At { name: String, pid: Option<i32>, fd: Option<OwnedFd> },
    /// It is done.
    Done,
}

/// A running criu. Dropping it before it is done kills it.
#[derive(Debug)]
pub(super) struct Session {
    child: Child,
    socket: OwnedFd,
    kind: Kind,
    log: PathBuf,
    ended: bool,
}

impl Session {
    /// Starts criu in a child, which does `prepare` first. What is inherited becomes criu's descriptors
    /// from 4 on.
    pub fn start(
        kind: Kind,
        options: &Options,
        program: &Path,
        clone: CloneOptions<'_>,
        inherited: &[BorrowedFd<'_>],
        prepare: impl FnOnce() -> bool,
    ) -> Result<Self, Error> {
        let (socket, theirs) = socket::packet_pair().map_err(Error::Run)?;
        let log = options.log_dir().join(request::log_name(kind));
        match std::fs::remove_file(&log) {
            // What an earlier criu said there is not why this one fails.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Path { what: "removing", path: log, source: error });
            }
            _ => {}
        }
        let child = process::spawn(CloneOptions { close: Some(socket.as_fd()), ..clone }, || {
            if !prepare() {
                return 1;
            }
            let fds: Vec<BorrowedFd<'_>> =
                std::iter::once(theirs.as_fd()).chain(inherited.iter().copied()).collect();
            let _ = process::become_program(program, &["swrk", "3"], &fds);
            126
        })
        .map_err(Error::Run)?;
        Ok(Self { child, socket, kind, log, ended: false })
    }

    /// Criu's process.
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Sends the request.
    pub fn ask(&self, request: &[u8]) -> Result<(), Error> {
        socket::send(&self.socket, request, None).map_err(|_| self.failed(0))
    }

    /// Waits for what comes next.
    pub fn next(&mut self) -> Result<Step, Error> {
        let (bytes, fd) = socket::receive(&self.socket).map_err(Error::Run)?;
        match request::answer(&bytes) {
            Some(Answer::Step { name, pid }) => Ok(Step::At { name, pid, fd }),
            Some(Answer::Done(_)) => {
                self.end();
                Ok(Step::Done)
            }
            Some(Answer::Failed(errno)) => {
                self.end();
                Err(self.failed(errno))
            }
            // It died.
            None => {
                self.end();
                Err(self.failed(0))
            }
        }
    }

    /// Lets it go on after a step.
    pub fn go_on(&self) -> Result<(), Error> {
        socket::send(&self.socket, &request::notified(true), None).map_err(|_| self.failed(0))
    }

    /// Closes the connection, without which criu ends, and reaps it.
    fn end(&mut self) {
        if !self.ended {
            self.ended = true;
            // It waits for further requests, or clears up; not for ever.
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
            if !matches!(process::wait_end(&self.child.pidfd, 30_000), Ok(true)) {
                let _ = process::pidfd_signal(&self.child.pidfd, libc::SIGKILL);
            }
            let _ = process::wait(&self.child.pidfd);
        }
    }

    /// Kills it and reaps it.
    pub fn kill(&mut self) {
        if !self.ended {
            let _ = process::pidfd_signal(&self.child.pidfd, libc::SIGKILL);
            self.end();
        }
    }

    fn failed(&self, errno: i32) -> Error {
        let line = read_log(&self.log).as_deref().and_then(request::errors);
        Error::Failed {
            what: if self.kind == Kind::Restore { "restore" } else { "dump" },
            line: line.unwrap_or_else(|| match errno {
                0 => "it ended without a word".to_owned(),
                errno => crate::base::report::chain(&io::Error::from_raw_os_error(errno)),
            }),
            log: self.log.clone(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_log(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(LOG_LIMIT).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
