//! A piece of work done by a forked child, whose answer comes back through a pipe: for what needs
//! another user namespace, or threads, while the caller stays single-threaded and where it is.

use std::io::{self, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{namespace, userns};
use crate::base::idmap::IdMapping;
use crate::base::report;

/// Why no answer came from the child.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The child could not be made.
    #[error("forking a process for work on the store")]
    Fork(#[source] io::Error),
    /// The child could not enter its user namespace; the text is the chain of its error.
    #[error("entering the user namespace that owns the files: {0}")]
    Enter(String),
    /// The child ended without an answer (killed, out of memory); this is its wait status.
    #[error("the process that worked on the store died ({0})")]
    Died(String),
    /// The answer cannot be understood.
    #[error("reading the answer of the process that worked on the store")]
    Answer(#[source] serde_json::Error),
}

/// Runs `work` in a forked child with umask 0, as root of a user namespace with this mapping if
/// one is given, and returns its answer.
///
/// The caller must be single-threaded. The child dies with the caller (PR_SET_PDEATHSIG).
pub fn call<T, F>(mapping: Option<&IdMapping>, work: F) -> Result<T, Error>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> T,
{
    call_as(mapping.map_or(Ids::Own, Ids::Mapped), work)
}

/// Whose ids a child has.
#[derive(Clone, Copy, Debug)]
pub enum Ids<'a> {
    /// The caller's.
    Own,
    /// Root's of a new user namespace with this mapping.
    Mapped(&'a IdMapping),
    /// Root's of the user namespace of a process, by its pidfd. Nothing that is in there can look into the
    /// child.
    Of(BorrowedFd<'a>),
}

impl Ids<'_> {
    fn take(self) -> Result<(), String> {
        match self {
            Self::Own => Ok(()),
            Self::Mapped(mapping) => userns::enter(mapping).map_err(|error| report::chain(&error)),
            Self::Of(process) => super::process::set_undumpable()
                .and_then(|()| namespace::join(process, libc::CLONE_NEWUSER as u64))
                .and_then(|()| userns::become_root())
                .and_then(|()| super::process::set_undumpable())
                .map_err(|error| error.to_string()),
        }
    }
}

/// As [`call`], with the ids of whom it says.
pub fn call_as<T, F>(ids: Ids<'_>, work: F) -> Result<T, Error>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce() -> T,
{
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| Error::Fork(e.into()))?;
    let parent = std::process::id();
    // SAFETY: the caller is single-threaded, so no lock is held by a thread that the child lacks.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(Error::Fork(io::Error::last_os_error())),
        0 => {
            drop(reader);
            let code = in_child(parent, ids, work, writer);
            // SAFETY: ends this process at once: handlers and buffers are the parent's.
            unsafe { libc::_exit(code) }
        }
        pid => {
            drop(writer);
            let mut bytes = Vec::new();
            let read = std::fs::File::from(reader).read_to_end(&mut bytes);
            let status = wait(pid);
            if bytes.is_empty() {
                return Err(Error::Died(status));
            }
            read.map_err(Error::Fork)?;
            serde_json::from_slice::<Result<T, String>>(&bytes).map_err(Error::Answer)?.map_err(Error::Enter)
        }
    }
}

fn in_child<T: Serialize>(parent: u32, ids: Ids<'_>, work: impl FnOnce() -> T, writer: OwnedFd) -> i32 {
    // SAFETY: plain integers; an error is of no consequence.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
    rustix::process::umask(rustix::fs::Mode::empty());
    let answer = match ids.take() {
        Err(error) => Err(error),
        // Dumpable is lost, and with it the death signal, when ids change: set anew.
        Ok(()) => {
            // SAFETY: as above.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
            if std::os::unix::process::parent_id() != parent {
                // It died before the signal was asked for.
                return 1;
            }
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
                Ok(answer) => Ok(answer),
                Err(_) => return 101,
            }
        }
    };
    let bytes = serde_json::to_vec(&answer).unwrap_or_default();
    i32::from(std::fs::File::from(writer).write_all(&bytes).is_err())
}

/// A process that [`beside`] made. Dropping it ends it, if it has not ended, and waits for that.
#[derive(Debug)]
pub struct Beside(super::process::Child);

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = super::process::pidfd_signal(&self.0.pidfd, libc::SIGKILL);
        let _ = super::process::wait(&self.0.pidfd);
    }
}

/// Runs `work` in a forked child with these ids, beside the caller, and with whom it dies. What `failed` is
/// told comes of not getting the ids. `close` is the caller's end of a connection between the two.
///
/// The caller must be single-threaded.
pub fn beside(
    ids: Ids<'_>,
    close: Option<BorrowedFd<'_>>,
    failed: impl FnOnce(String),
    work: impl FnOnce(),
) -> Result<Beside, Error> {
    let parent = std::process::id();
    let options = super::process::CloneOptions { close, ..Default::default() };
    let child = super::process::spawn(options, || {
        // SAFETY: plain integers; an error is of no consequence.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
        if let Err(error) = ids.take() {
            failed(error);
            return 1;
        }
        // SAFETY: as above; it is lost when ids change.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
        if std::os::unix::process::parent_id() != parent {
            return 1;
        }
        work();
        0
    });
    child.map(Beside).map_err(Error::Fork)
}

/// Runs `work` in a process of its own that nobody waits for, with no descriptor of the caller's
/// open (whoever reads the caller's output to its end must not wait for this) and no terminal.
///
/// The caller must be single-threaded.
pub fn detach(work: impl FnOnce()) -> io::Result<()> {
    // SAFETY: the caller is single-threaded, so no lock is held by a thread that the child lacks.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // Twice: the grandchild's parent is init, or the next subreaper, which waits for it.
            // SAFETY: as above.
            if unsafe { libc::fork() } == 0 {
                // SAFETY: system calls on plain integers; nothing that is open is used any more,
                // and the three standard numbers are taken again so that no later file gets them.
                unsafe {
                    libc::setsid();
                    libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32);
                    for _ in 0..3 {
                        libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
                    }
                }
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            }
            // SAFETY: ends this process at once: handlers and buffers are the parent's.
            unsafe { libc::_exit(0) }
        }
        pid => {
            wait(pid);
            Ok(())
        }
    }
}

fn wait(pid: libc::pid_t) -> String {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for the call, and `pid` is a child that nobody else waits for.
        let result = unsafe { libc::waitpid(pid, &raw mut status, 0) };
        if result == pid || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            break;
        }
    }
    if libc::WIFSIGNALED(status) {
        format!("signal {}", libc::WTERMSIG(status))
    } else {
        format!("exit code {}", libc::WEXITSTATUS(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_and_death_is_told() {
        // The test harness has threads; what the child does here takes no lock.
        assert_eq!(call(None, || 41 + 1).unwrap(), 42);
        // SAFETY: ends only the child.
        let died = call::<u8, _>(None, || unsafe { libc::_exit(3) });
        assert_eq!(died.unwrap_err().to_string(), "the process that worked on the store died (exit code 3)");
    }
}
