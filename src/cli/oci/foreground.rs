//! Waiting for a container in the foreground: signals and the terminal are relayed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::termios::{OptionalActions, Termios};

use super::Error;
use super::notify::Listening;
use crate::sys::process::{self, ExitStatus};
use crate::sys::signal;

fn failed(source: impl Into<io::Error>) -> Error {
    Error::Io { action: "relaying the container's input and output".to_owned(), source: source.into() }
}

/// The terminal's state, put back at the end.
struct Raw {
    saved: Termios,
}

impl Raw {
    fn new() -> Option<Self> {
        let stdin = rustix::stdio::stdin();
        let saved = rustix::termios::tcgetattr(stdin).ok()?;
        let mut raw = saved.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw).ok()?;
        Some(Self { saved })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing put back.
        let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.saved);
    }
}

const RELAYED: [i32; 10] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGCONT,
    libc::SIGALRM,
    libc::SIGTSTP,
    libc::SIGWINCH,
];

/// Waits for the process of `pidfd` and reaps it.
pub(super) fn wait(
    pidfd: &OwnedFd,
    terminal: Option<OwnedFd>,
    mut notify: Option<Listening>,
) -> Result<ExitStatus, Error> {
    let signals = signal::signalfd(&RELAYED).map_err(failed)?;
    let raw = terminal.as_ref().and_then(|_| Raw::new());
    if let Some(master) = &terminal {
        copy_size(master);
    }
    let mut input_open = terminal.is_some();
    loop {
        let mut fds = vec![
            PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        if let Some(master) = &terminal {
            fds.push(PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN));
        }
        if input_open {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        let last = fds.len();
        if let Some(listening) = &notify {
            fds.push(PollFd::new(listening.socket(), PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(failed)?,
        };
        let mut ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let told = ready.get(last) == Some(&true);
        ready.truncate(last);
        if told
            && let Some(listening) = &notify
            && listening.pass_on()?
        {
            notify = None;
        }
        if ready[1] {
            relay_signals(pidfd, &signals, terminal.as_ref())?;
        }
        if let Some(master) = &terminal {
            if ready[2] {
                relay(master.as_fd(), rustix::stdio::stdout())?;
            }
            if ready.get(3) == Some(&true) {
                input_open = relay(rustix::stdio::stdin(), master.as_fd())?;
            }
        }
        if ready[0] {
            // What it wrote last is still in the terminal.
            if let Some(master) = &terminal {
                drain(master)?;
            }
            drop(raw);
            return process::wait(pidfd).map_err(failed);
        }
    }
}

fn relay_signals(pidfd: &OwnedFd, signals: &OwnedFd, terminal: Option<&OwnedFd>) -> Result<(), Error> {
    while let Some(number) = signal::read_signal(signals).map_err(failed)? {
        match terminal {
            Some(master) if number == libc::SIGWINCH => copy_size(master),
            // The process may have ended just now.
            _ => drop(process::pidfd_signal(pidfd, number)),
        }
    }
    Ok(())
}

fn copy_size(master: &OwnedFd) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

/// Copies what is there; whether more can come.
fn relay(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<bool, Error> {
    let mut buffer = [0; 8192];
    let length = match rustix::io::read(from, &mut buffer) {
        // EIO: the last process has closed the terminal's other end.
        Err(rustix::io::Errno::IO) => return Ok(false),
        Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Ok(true),
        other => other.map_err(failed)?,
    };
    let mut rest = &buffer[..length];
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::IO | rustix::io::Errno::PIPE) => return Ok(false),
            other => rest = &rest[other.map_err(failed)?..],
        }
    }
    Ok(length > 0)
}

fn drain(master: &OwnedFd) -> Result<(), Error> {
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(master.as_fd(), PollFlags::IN)];
        let ready = rustix::event::poll(&mut fds, Some(&now)).map_err(failed)?;
        if ready == 0
            || !fds[0].revents().contains(PollFlags::IN)
            || !relay(master.as_fd(), rustix::stdio::stdout())?
        {
            return Ok(());
        }
    }
}
