//! The monitor's one poll loop: output to the log and to whoever is attached, input and signals
//! to the program, until the program has ended and all it wrote has been passed on.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketFlags};

use super::care::Care;
use super::log::Keeper;
use super::probe::timespec;
use super::protocol::{Event, MAX_BODY, Request, Stream};
use crate::sys::daemon;
use crate::sys::process::{self, ExitStatus};
use crate::sys::socket::LEFT_UNREAD;

/// The monitor's ends of the program's standard streams.
#[derive(Debug, Default)]
pub struct Streams {
    /// Read end of its standard output.
    pub stdout: Option<OwnedFd>,
    /// Read end of its standard error.
    pub stderr: Option<OwnedFd>,
    /// Master side of its terminal, in place of the others.
    pub terminal: Option<OwnedFd>,
    /// Write end of its standard input, kept open so that it does not see the end of it.
    pub stdin: Option<OwnedFd>,
}

impl Streams {
    fn make_nonblocking(&self) -> io::Result<()> {
        for fd in [&self.stdout, &self.stderr, &self.terminal, &self.stdin].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(())
    }
}

/// A container that has nothing to say for so long will go on for some time.
const QUIET: Duration = Duration::from_secs(1);

/// What there is to wait for.
#[derive(Clone, Copy)]
enum Phase<'a> {
    /// The program's end, and all else.
    Running(BorrowedFd<'a>),
    /// What the program left in its pipes.
    Draining,
    /// The next run.
    Resting,
}

#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    /// Packets that the socket had no room for. Until they are sent nothing more is read from the
    /// program, so a slow reader slows the program and costs no memory: there are never more than
    /// the few that one round of the loop makes.
    pending: VecDeque<Vec<u8>>,
    /// Input that the program had no room for.
    input: Vec<u8>,
    /// Wants no output.
    mute: bool,
    /// Takes nothing any more; what it has sent is still read.
    deaf: bool,
    gone: bool,
}

/// One program and those attached to it; the same for all its runs.
#[derive(Debug)]
pub struct Supervisor {
    streams: Streams,
    /// The last that was heard of the terminal's size, for one of a later run.
    size: Option<rustix::termios::Winsize>,
    clients: Vec<Client>,
    listener: Option<OwnedFd>,
    log: Option<Keeper>,
    /// Why the log is not written any more.
    log_error: Option<io::Error>,
    packet: Vec<u8>,
    /// Whether somebody said that the container is to end for good.
    stopped: bool,
    /// Whether somebody said that the container's record was changed.
    changed: bool,
    /// The program that was held may begin.
    released: bool,
    /// Whether what only a start needs has been let go.
    settled: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Probe,
    Memory,
    Output(Stream),
    Terminal,
    TerminalInput,
    Client(usize),
    Listener,
    Program,
}

impl Supervisor {
    /// Supervises a program with these streams; `client` is attached from the start, others come
    /// through `listener`.
    pub fn new(
        streams: Streams,
        client: Option<OwnedFd>,
        listener: Option<OwnedFd>,
        log: Option<Keeper>,
    ) -> io::Result<Self> {
        streams.make_nonblocking()?;
        let mut supervisor = Self {
            streams,
            size: None,
            clients: Vec::new(),
            listener,
            log,
            log_error: None,
            packet: Vec::new(),
            stopped: false,
            released: false,
            changed: false,
            settled: false,
        };
        if let Some(socket) = client {
            supervisor.attach(socket);
        }
        Ok(supervisor)
    }

    fn attach(&mut self, socket: OwnedFd) {
        let (pending, input) = (VecDeque::new(), Vec::new());
        self.clients.push(Client { socket, pending, input, mute: false, deaf: false, gone: false });
    }

    /// Goes on with the streams of a further run.
    pub fn renew(&mut self, streams: Streams) -> io::Result<()> {
        streams.make_nonblocking()?;
        self.streams = streams;
        self.settled = false;
        Ok(())
    }

    /// The last that was heard of the terminal's size: rows and columns.
    pub fn size(&self) -> Option<(u16, u16)> {
        self.size.map(|size| (size.ws_row, size.ws_col))
    }

    /// Whether somebody said so; asked once, it is forgotten.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Sends an event to everybody who is attached.
    pub fn tell(&mut self, event: &Event<'_>) {
        let mut packet = std::mem::take(&mut self.packet);
        event.encode(&mut packet);
        for client in &mut self.clients {
            client.send(&packet);
        }
        self.packet = packet;
    }

    /// Works until the program has ended; `recorded` is called the moment that its end is known,
    /// before anything else is done, and says whether the program will be started again.
    pub fn run(
        &mut self,
        pidfd: BorrowedFd<'_>,
        care: &mut Care<'_>,
        recorded: impl FnOnce(&mut Self, &Care<'_>, ExitStatus) -> bool,
    ) -> io::Result<(ExitStatus, bool)> {
        let mut recorded = Some(recorded);
        let mut exit = None;
        // A packet is a tag and a body. Who has nothing to say needs no room for it.
        let mut buffer = Vec::new();
        loop {
            let phase = if exit.is_some() { Phase::Draining } else { Phase::Running(pidfd) };
            let ready = self.poll(phase, care)?;
            if ready.is_empty() && exit.is_none() && !self.settled {
                // Not at the start: most programs end soon, and nobody is to wait for this.
                self.settled = true;
                self.packet = Vec::new();
                buffer = Vec::new();
                daemon::release_memory();
            }
            if exit.is_some() && ready.is_empty() && !self.blocked() {
                break;
            }
            if !ready.is_empty() {
                buffer.resize(MAX_BODY + 1, 0);
            }
            for (source, flags) in ready {
                match source {
                    Source::Program => {
                        let status = process::wait(pidfd)?;
                        care.look_at_memory();
                        care.ended();
                        let again = recorded.take().is_some_and(|recorded| recorded(self, care, status));
                        exit = Some((status, again));
                        if !again {
                            self.listener = None;
                        }
                    }
                    Source::Memory => care.look_at_memory(),
                    Source::Probe => {
                        if let Some(checked) = care.checked(pidfd) {
                            self.tell(&checked);
                        }
                    }
                    _ => self.handle((source, flags), Some(pidfd), care, &mut buffer),
                }
            }
            self.clients.retain(|client| !client.gone);
            if exit.is_none() {
                if care.bound && self.clients.is_empty() {
                    let _ = process::pidfd_signal(pidfd, libc::SIGKILL);
                }
                care.tick(pidfd);
            }
        }
        Ok(exit.unwrap_or((ExitStatus::Code(0), false)))
    }

    /// Serves those who are attached while there is no program, until `until` or until somebody says that
    /// there shall be none any more; whether the program is to be started again.
    pub fn rest(&mut self, until: Instant) -> io::Result<bool> {
        let mut care = Care { kill_at: Some(until), ..Care::default() };
        let mut buffer = vec![0; MAX_BODY + 1];
        while !self.stopped && Instant::now() < until {
            for ready in self.poll(Phase::Resting, &care)? {
                self.handle(ready, None, &mut care, &mut buffer);
            }
            self.clients.retain(|client| !client.gone);
        }
        Ok(!self.stopped)
    }

    /// Serves those who are attached while the first process waits to become the program; whether somebody
    /// said that it may, before it ended or somebody wanted it to.
    pub fn hold(&mut self, pidfd: BorrowedFd<'_>, care: &mut Care<'_>) -> io::Result<bool> {
        let mut buffer = vec![0; MAX_BODY + 1];
        while !self.stopped && !self.released {
            let ready = self.poll(Phase::Running(pidfd), care)?;
            self.settled |= ready.is_empty();
            for (source, flags) in ready {
                if let Source::Program = source {
                    return Ok(false);
                }
                self.handle((source, flags), Some(pidfd), care, &mut buffer);
            }
            self.clients.retain(|client| !client.gone);
        }
        Ok(self.released)
    }

    /// Whether somebody said that the container is to end for good.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Why the log is not written any more.
    pub fn log_error(&self) -> Option<&io::Error> {
        self.log_error.as_ref()
    }

    fn handle(
        &mut self,
        (source, flags): (Source, PollFlags),
        pidfd: Option<BorrowedFd<'_>>,
        care: &mut Care<'_>,
        buffer: &mut [u8],
    ) {
        match source {
            Source::Output(stream) => self.read_output(stream, buffer),
            Source::Terminal => self.read_terminal(buffer),
            Source::TerminalInput => self.write_input(),
            Source::Client(index) => self.serve(index, flags, pidfd, care, buffer),
            Source::Listener => self.accept(),
            Source::Program | Source::Probe | Source::Memory => {}
        }
    }

    /// Passes on to the clients what is left for them, for as long as they take it.
    pub fn finish(&mut self, event: &Event<'_>) {
        self.tell(event);
        for client in &mut self.clients {
            if client.deaf || rustix::io::ioctl_fionbio(&client.socket, false).is_err() {
                continue;
            }
            for packet in client.pending.drain(..) {
                if rustix::net::send(&client.socket, &packet, SendFlags::NOSIGNAL).is_err() {
                    break;
                }
            }
        }
        self.clients.clear();
    }

    fn blocked(&self) -> bool {
        self.clients.iter().any(|client| !client.pending.is_empty())
    }

    /// Waits for something to do. After the program's end only what is there already counts.
    fn poll(&self, phase: Phase<'_>, care: &Care<'_>) -> io::Result<Vec<(Source, PollFlags)>> {
        let blocked = self.blocked();
        let mut wanted = self.wanted(phase, blocked);
        if let (Phase::Running(_), Some(probe)) = (phase, care.probe()) {
            wanted.push((Source::Probe, probe, PollFlags::IN));
        }
        if let (Phase::Running(_), Some(memory)) = (phase, care.memory()) {
            wanted.push((Source::Memory, memory, PollFlags::PRI));
        }
        let mut fds: Vec<_> =
            wanted.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = match phase {
            Phase::Draining => (!blocked).then_some(Timespec { tv_sec: 0, tv_nsec: 0 }),
            _ => {
                // Rounded up: woken a moment too early we would ask once more.
                let left = care
                    .due()
                    .map(|due| due.saturating_duration_since(Instant::now()) + Duration::from_millis(1));
                let left = if self.settled { left } else { Some(left.map_or(QUIET, |left| left.min(QUIET))) };
                left.map(timespec)
            }
        };
        loop {
            match poll(&mut fds, timeout.as_ref()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        let ready = wanted.iter().zip(&fds).map(|((source, ..), fd)| (*source, fd.revents()));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn wanted<'a>(&'a self, phase: Phase<'a>, blocked: bool) -> Vec<(Source, BorrowedFd<'a>, PollFlags)> {
        let ended = matches!(phase, Phase::Draining);
        let mut wanted = Vec::with_capacity(8);
        let mut add = |source, fd, flags| wanted.push((source, fd, flags));
        if !blocked {
            let outputs = [(&self.streams.stdout, Stream::Stdout), (&self.streams.stderr, Stream::Stderr)];
            for (fd, stream) in outputs.iter().filter_map(|(fd, stream)| fd.as_ref().map(|fd| (fd, *stream)))
            {
                add(Source::Output(stream), fd.as_fd(), PollFlags::IN);
            }
            if let Some(terminal) = &self.streams.terminal {
                add(Source::Terminal, terminal.as_fd(), PollFlags::IN);
            }
        }
        if !ended {
            if let Phase::Running(pidfd) = phase {
                add(Source::Program, pidfd, PollFlags::IN);
            }
            if let Some(listener) = &self.listener {
                add(Source::Listener, listener.as_fd(), PollFlags::IN);
            }
            if let (Some(terminal), true) =
                (&self.streams.terminal, self.clients.iter().any(|c| !c.input.is_empty()))
            {
                add(Source::TerminalInput, terminal.as_fd(), PollFlags::OUT);
            }
        }
        for (index, client) in self.clients.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if !ended && client.input.is_empty() {
                flags |= PollFlags::IN;
            }
            if !client.pending.is_empty() {
                flags |= PollFlags::OUT;
            }
            if !flags.is_empty() {
                add(Source::Client(index), client.socket.as_fd(), flags);
            }
        }
        wanted
    }

    fn read_output(&mut self, stream: Stream, buffer: &mut [u8]) {
        let slot = match stream {
            Stream::Stdout => &mut self.streams.stdout,
            Stream::Stderr => &mut self.streams.stderr,
        };
        let Some(fd) = slot else { return };
        match rustix::io::read(&*fd, &mut buffer[..MAX_BODY]) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(0) | Err(_) => *slot = None,
            Ok(length) => self.output(stream, &buffer[..length]),
        }
    }

    fn read_terminal(&mut self, buffer: &mut [u8]) {
        let Some(fd) = &self.streams.terminal else { return };
        match rustix::io::read(fd, &mut buffer[..MAX_BODY]) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // EIO: no process has the other side open any more. Somebody may open it again while
            // the program runs, but whoever did that would be the first.
            Ok(0) | Err(_) => self.streams.terminal = None,
            Ok(length) => self.output(Stream::Stdout, &buffer[..length]),
        }
    }

    fn output(&mut self, stream: Stream, bytes: &[u8]) {
        if let Some(log) = &mut self.log
            && let Err(error) = log.write(stream, bytes)
        {
            // A full disk must not stop the program.
            self.log_error = Some(error);
            self.log = None;
        }
        if self.clients.iter().any(|client| !client.mute) {
            let mut tag = std::mem::take(&mut self.packet);
            Event::Output(stream, &[]).encode(&mut tag);
            for client in self.clients.iter_mut().filter(|client| !client.mute) {
                client.send_parts(&tag, bytes);
            }
            self.packet = tag;
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        if let Ok(socket) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            self.attach(socket);
        }
    }

    fn serve(
        &mut self,
        index: usize,
        flags: PollFlags,
        pidfd: Option<BorrowedFd<'_>>,
        care: &mut Care<'_>,
        buffer: &mut [u8],
    ) {
        let client = &mut self.clients[index];
        if flags.contains(PollFlags::OUT) {
            client.send_pending();
        }
        if !flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            return;
        }
        match rustix::net::recv(&client.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN | Errno::INTR | LEFT_UNREAD) => {}
            Ok((0, _)) | Err(_) => client.gone = true,
            Ok((length, _)) => match Request::decode(&buffer[..length]) {
                Some(Request::Input(bytes)) => {
                    client.input.extend_from_slice(bytes);
                    self.write_input();
                }
                Some(Request::InputEnd) => self.streams.stdin = None,
                Some(Request::Resize { rows, columns }) => {
                    let size = rustix::termios::Winsize {
                        ws_row: rows,
                        ws_col: columns,
                        ws_xpixel: 0,
                        ws_ypixel: 0,
                    };
                    self.size = Some(size);
                    if let Some(terminal) = &self.streams.terminal {
                        let _ = rustix::termios::tcsetwinsize(terminal, size);
                    }
                }
                Some(Request::Signal(signal)) => {
                    if let Some(pidfd) = pidfd {
                        let _ = process::pidfd_signal(pidfd, signal);
                    }
                }
                Some(Request::Mute) => client.mute = true,
                Some(Request::Stop) => self.stopped = true,
                Some(Request::Go) => self.released = true,
                Some(Request::Check) => care.check_now(),
                Some(Request::Reload) => {
                    self.changed = true;
                    care.renew();
                }
                Some(Request::Networks(change)) => {
                    let none = || Err(("its network is not one that can be changed".into(), String::new()));
                    let result = care.networks.as_mut().map_or_else(none, |networks| networks(change));
                    let (message, hint) = result.err().unwrap_or_default();
                    let mut packet = std::mem::take(&mut self.packet);
                    Event::Networks { message: &message, hint: &hint }.encode(&mut packet);
                    client.send(&packet);
                    self.packet = packet;
                }
                None => client.gone = true,
            },
        }
    }

    fn write_input(&mut self) {
        let Some(fd) = self.streams.terminal.as_ref().or(self.streams.stdin.as_ref()) else {
            self.clients.iter_mut().for_each(|client| client.input.clear());
            return;
        };
        for client in self.clients.iter_mut().filter(|client| !client.input.is_empty()) {
            match rustix::io::write(fd, &client.input) {
                Ok(length) => {
                    client.input.drain(..length);
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                Err(_) => client.input.clear(),
            }
        }
    }
}

impl Client {
    /// Sends a packet, or keeps it: behind those that wait already, for order is all that a stream has.
    fn send(&mut self, packet: &[u8]) {
        if self.deaf {
            return;
        }
        if !self.pending.is_empty() || !self.try_send(packet) {
            self.pending.push_back(packet.to_vec());
        }
    }

    /// [`Client::send`] of a packet in two parts, which are put together only if they must be kept.
    fn send_parts(&mut self, head: &[u8], body: &[u8]) {
        if self.deaf {
            return;
        }
        if self.pending.is_empty() {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match rustix::net::sendmsg(&self.socket, &parts, &mut Default::default(), flags) {
                Ok(_) => return,
                Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => {}
                Err(_) => {
                    self.deaf = true;
                    return;
                }
            }
        }
        self.pending.push_back([head, body].concat());
    }

    fn send_pending(&mut self) {
        while let Some(packet) = self.pending.pop_front() {
            if !self.try_send(&packet) {
                self.pending.push_front(packet);
                return;
            }
        }
    }

    /// Sends a packet if there is room for it.
    fn try_send(&mut self, packet: &[u8]) -> bool {
        match rustix::net::send(&self.socket, packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS) => return false,
            Err(_) => self.deaf = true,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::containers::HealthStatus;
    use crate::sys::socket::{packet_pair, send};

    /// Whether a client's word is heard which is told something it never reads, before or after it has left.
    fn is_heard(told_before_it_left: bool) -> bool {
        let (ours, theirs) = packet_pair().unwrap();
        let mut supervisor = Supervisor::new(Streams::default(), Some(ours), None, None).unwrap();
        let mut packet = Vec::new();
        Request::Reload.encode(&mut packet);
        send(&theirs, &packet, None).unwrap();
        let mut theirs = Some(theirs);
        if !told_before_it_left {
            theirs.take();
        }
        supervisor.tell(&Event::Checked(HealthStatus::Healthy, 0));
        drop(theirs);
        let (mut care, mut buffer) = (Care::default(), [0; 64]);
        while supervisor.clients.iter().any(|client| !client.gone) {
            supervisor.serve(0, PollFlags::IN, None, &mut care, &mut buffer);
        }
        supervisor.take_changed()
    }

    #[test]
    fn who_leaves_without_reading_is_heard() {
        assert!(is_heard(true) && is_heard(false));
    }
}
