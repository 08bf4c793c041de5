//! One health check on its way: a process of the monitor's own that runs the command in the container,
//! takes what it writes, ends it when its time is over, and tells the result in one packet.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Executor;
use crate::runtime::Stdio;
use crate::storage::containers::{HealthRun, RunState};
use crate::sys::process::{self, Child, CloneOptions};
use crate::sys::{daemon, host};

/// The most output that is taken of a check, in bytes: what a packet has room for.
const OUTPUT_MAX: usize = 64 * 1024;

/// A check that has not ended yet.
#[derive(Debug)]
pub struct Probe {
    /// Readable when there is a result.
    pub socket: OwnedFd,
    child: Child,
    start: i64,
    /// How long after the container's start it began.
    pub age: Duration,
}

impl Probe {
    /// Starts a check. `test` begins with `CMD` or `CMD-SHELL`.
    pub fn start(
        executor: &Executor,
        state: &RunState,
        (test, timeout): (&[String], Duration),
        age: Duration,
    ) -> io::Result<Self> {
        let (ours, theirs) = crate::sys::socket::packet_pair()?;
        let start = host::now();
        let words = match test.split_first() {
            Some((kind, words)) if kind == "CMD-SHELL" => {
                ["/bin/sh", "-c"].iter().map(|word| (*word).to_owned()).chain(words.iter().cloned()).collect()
            }
            Some((_, words)) => words.to_vec(),
            None => Vec::new(),
        };
        let child = process::spawn(CloneOptions::default(), || {
            // The monitor's locks and sockets must not outlive it here.
            daemon::close_fds_except(&[theirs.as_raw_fd()]);
            let (code, output) = run(executor, state, words, timeout);
            let mut packet = code.to_le_bytes().to_vec();
            packet.extend(&output[..output.len().min(OUTPUT_MAX)]);
            u8::from(rustix::net::send(&theirs, &packet, SendFlags::NOSIGNAL).is_err())
        })?;
        Ok(Self { socket: ours, child, start, age })
    }

    /// The result. To be called when the socket is readable.
    pub fn finish(self) -> HealthRun {
        let mut packet = vec![0; OUTPUT_MAX + 4];
        let received = rustix::net::recv(&self.socket, &mut *packet, RecvFlags::empty());
        let length = received.map_or(0, |(length, _)| length);
        let _ = process::wait(&self.child.pidfd);
        let (code, output) = match packet[..length].split_first_chunk::<4>() {
            Some((code, output)) => (i32::from_le_bytes(*code), String::from_utf8_lossy(output).into_owned()),
            None => (125, "the check was killed".to_owned()),
        };
        HealthRun { start: self.start, end: host::now(), code, output }
    }

    /// Gives up, because the container has ended.
    pub fn abandon(self) {
        let _ = process::pidfd_signal(&self.child.pidfd, libc::SIGKILL);
        let _ = process::wait(&self.child.pidfd);
    }
}

/// Runs the command; its exit code (-1: it took too long) and what it wrote.
fn run(executor: &Executor, state: &RunState, words: Vec<String>, timeout: Duration) -> (i32, Vec<u8>) {
    let failed = |error: &dyn std::fmt::Display| (125, error.to_string().into_bytes());
    let streams = || -> io::Result<_> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let null = std::fs::File::open("/dev/null")?.into();
        Ok((read, Stdio::Fds { stdin: null, stdout: write.try_clone()?, stderr: write }))
    };
    let (output, stdio) = match streams() {
        Ok(streams) => streams,
        Err(error) => return failed(&error),
    };
    let deadline = Instant::now() + timeout;
    let pidfd = match executor(state, words, stdio) {
        Ok(pidfd) => pidfd,
        Err((code, message)) => return (code.into(), message.into_bytes()),
    };
    let mut text = Vec::new();
    let mut open = true;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let _ = process::pidfd_signal(&pidfd, libc::SIGKILL);
            let _ = process::wait(&pidfd);
            return (-1, format!("the health check took longer than {timeout:?}").into_bytes());
        }
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(&output, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return failed(&error),
        }
        let ended = !fds[0].revents().is_empty();
        drop(fds);
        open = open && drain(&output, &mut text);
        if ended {
            return match process::wait(pidfd.as_fd()) {
                Ok(status) => (status.code().into(), text),
                Err(error) => failed(&error),
            };
        }
    }
}

/// Reads what there is; false at the end.
fn drain(output: &OwnedFd, text: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    // Not without end: the time has to be looked at, too.
    for _ in 0..16 {
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => return false,
            // What there is no room for is read all the same: the command must not wait for us.
            Ok(length) if text.len() < OUTPUT_MAX => text.extend_from_slice(&buffer[..length]),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return true,
            Err(_) => return false,
        }
    }
    true
}

/// A duration as poll(2) takes it.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}
