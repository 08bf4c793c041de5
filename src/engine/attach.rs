//! The user's end of a container's streams: the terminal or the pipes of the command, relayed to
//! and from the monitor, or to and from a terminal of our own in `exec -t`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use rustix::pipe::{SpliceFlags, splice};
use rustix::termios::{self, OptionalActions, Termios};

use crate::monitor::protocol::{Event, MAX_BODY, Request, Stream};
use crate::storage::containers::ContainerConfig;
use crate::sys::signal::{read_signal, signalfd};
use crate::sys::socket::{self, LEFT_UNREAD};
use crate::sys::userns::Begun;

/// Keys that leave a container's terminal without ending it; Podman's default is ctrl-p,ctrl-q.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

impl DetachKeys {
    /// `ctrl-p,ctrl-q` and the like: single characters and `ctrl-` with a letter or one of
    /// `@ [ \ ] ^ _`, joined by commas. Empty: no keys.
    pub fn parse(text: &str) -> Option<Self> {
        let mut keys = Vec::new();
        for key in text.split(',').filter(|_| !text.is_empty()) {
            let byte = match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some([c @ b'a'..=b'z']) => c - b'a' + 1,
                Some([c @ b'A'..=b'Z']) => c - b'A' + 1,
                Some([c @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => c - b'@',
                Some(_) => return None,
                None if key.len() == 1 => key.as_bytes()[0],
                None => return None,
            };
            keys.push(byte);
        }
        Some(Self(keys))
    }
}

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

/// Looks for the detach keys in what is typed; what turns out not to be them is passed on late.
#[derive(Debug)]
pub(super) struct KeyFilter<'a> {
    keys: &'a [u8],
    matched: usize,
}

impl<'a> KeyFilter<'a> {
    pub(super) fn new(keys: &'a DetachKeys) -> Self {
        Self { keys: &keys.0, matched: 0 }
    }

    /// The bytes to pass on, and whether the user wants to leave.
    pub(super) fn accept(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut out = Vec::with_capacity(typed.len());
        for byte in typed {
            if *byte == self.keys[self.matched] {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (out, true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = 0;
            if *byte == self.keys[0] {
                self.matched = 1;
            } else {
                out.push(*byte);
            }
        }
        if self.keys.len() == 1 {
            self.matched = 0;
        }
        (out, false)
    }
}

/// A terminal in raw mode; dropping it puts it back as it was.
#[derive(Debug)]
pub struct RawTerminal<'a> {
    fd: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawTerminal<'a> {
    /// Switches `fd` to raw mode; `None` if it is no terminal.
    pub fn enter(fd: BorrowedFd<'a>) -> io::Result<Option<Self>> {
        if !termios::isatty(fd) {
            return Ok(None);
        }
        let before = termios::tcgetattr(fd)?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(fd, OptionalActions::Now, &raw)?;
        Ok(Some(Self { fd, before }))
    }
}

impl Drop for RawTerminal<'_> {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(self.fd, OptionalActions::Drain, &self.before);
    }
}

/// The size of the first of our standard streams that is a terminal.
pub fn terminal_size() -> Option<(u16, u16)> {
    let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    streams.iter().find_map(|fd| termios::tcgetwinsize(fd).ok()).map(|size| (size.ws_row, size.ws_col))
}

/// How a relay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The program ended with this code.
    Exited(i32),
    /// It could not be started.
    Failed {
        /// What to exit with.
        code: u8,
        /// Why.
        message: String,
        /// The cure, empty if it is not known.
        hint: String,
    },
    /// The user left it running.
    Detached,
    /// The monitor is gone without a word.
    Lost,
}

/// What is relayed, and how.
#[derive(Debug)]
pub struct Relay<'a> {
    /// To the monitor.
    pub socket: OwnedFd,
    /// Whether our input is passed on.
    pub interactive: bool,
    /// Whether the program has a terminal.
    pub tty: bool,
    /// The write end of the program's standard input, where it has no terminal.
    pub stdin: Option<OwnedFd>,
    /// Which keys detach.
    pub keys: &'a DetachKeys,
    /// What is shown of the program's output.
    pub outputs: Outputs,
    /// Namespaces that were begun for the program. Let go of when it has them.
    pub begun: Option<Begun>,
}

/// Streams that are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outputs {
    /// Its standard output, and its terminal.
    pub stdout: bool,
    /// Its standard error.
    pub stderr: bool,
}

impl Outputs {
    /// Those that `--attach` names; both if it was not given.
    pub fn of(config: &ContainerConfig) -> Self {
        let has = |name: &str| config.attach.is_empty() || config.attach.iter().any(|stream| stream == name);
        Self { stdout: has("stdout"), stderr: has("stderr") }
    }
}

/// What could not be passed on at once. While there is any of it nothing more is read: a program
/// that does not read its input must not keep us from taking its output.
#[derive(Debug, Default)]
struct Backlog {
    packets: std::collections::VecDeque<Vec<u8>>,
    input: Vec<u8>,
    /// The program's pipe had no room for what was to be passed on within the kernel.
    full: bool,
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.packets.is_empty() && self.input.is_empty() && !self.full
    }
}

/// Waits for the word that the program runs (its pid), or that it cannot.
pub fn wait_started(socket: BorrowedFd<'_>) -> io::Result<Result<i32, Ending>> {
    loop {
        let (packet, _) = socket::receive(socket)?;
        if packet.is_empty() {
            return Ok(Err(Ending::Lost));
        }
        match Event::decode(&packet) {
            Some(Event::Started(pid)) => return Ok(Ok(pid)),
            Some(Event::Failed { code, message, hint }) => {
                let (message, hint) = (message.to_owned(), hint.to_owned());
                return Ok(Err(Ending::Failed { code, message, hint }));
            }
            _ => {}
        }
    }
}

/// Signals that are not passed on: they are ours to act on, or have no meaning for another.
const KEPT: &[i32] = &[
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGCHLD,
    libc::SIGPIPE,
    libc::SIGWINCH,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

/// The signals that a relay takes for itself, as a descriptor.
pub fn catch_signals(sig_proxy: bool) -> io::Result<OwnedFd> {
    let mut signals = vec![libc::SIGWINCH];
    if sig_proxy {
        signals.extend((1..32).filter(|signal| !KEPT.contains(signal)));
    }
    signalfd(&signals)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Monitor,
    Input,
    Signals,
    /// The program's input pipe, watched only for having nobody at its other end.
    ProgramInput,
}

impl Relay<'_> {
    /// Relays until the program ends or the user leaves.
    pub fn run(mut self, signals: &OwnedFd) -> io::Result<Ending> {
        let stdin = rustix::stdio::stdin();
        let raw = if self.tty && self.interactive { RawTerminal::enter(stdin)? } else { None };
        if self.tty
            && let Some((rows, columns)) = terminal_size()
        {
            self.send(&mut Backlog::default(), &Request::Resize { rows, columns });
        }
        let mut filter = KeyFilter::new(self.keys);
        let mut reading = self.interactive;
        let mut splicing = !self.tty && self.stdin.is_some();
        let mut backlog = Backlog::default();
        if let Some(fd) = &self.stdin {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        let mut buffer = vec![0; MAX_BODY + 1];
        let ending = loop {
            self.flush(&mut backlog);
            let ready = self.poll(signals, reading, &backlog)?;
            let mut ending = None;
            for source in ready {
                match source {
                    Source::Monitor => ending = self.receive(&mut buffer)?,
                    Source::Signals => self.forward_signal(signals, &mut backlog)?,
                    Source::ProgramInput if self.stdin_closed() => {
                        self.stdin = None;
                        backlog.input.clear();
                        reading = false;
                    }
                    // Room again: the next flush uses it.
                    Source::ProgramInput => backlog.full = false,
                    Source::Input if splicing => match self.splice_input(&mut backlog) {
                        Some(Input::End) => reading = false,
                        Some(_) => {}
                        None => splicing = false,
                    },
                    Source::Input => match self.read_input(&mut buffer, &mut filter, &mut backlog) {
                        Input::More => {}
                        Input::End => reading = false,
                        Input::Detach => ending = Some(Ending::Detached),
                    },
                }
                if ending.is_some() {
                    break;
                }
            }
            if let Some(ending) = ending {
                break ending;
            }
        };
        drop(raw);
        Ok(ending)
    }

    /// Whether nobody can read the program's input any more.
    fn stdin_closed(&self) -> bool {
        self.stdin.as_ref().is_none_or(|fd| {
            let mut fds = [PollFd::new(fd, PollFlags::empty())];
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            matches!(poll(&mut fds, Some(&now)), Ok(1..))
        })
    }

    fn poll(&self, signals: &OwnedFd, reading: bool, backlog: &Backlog) -> io::Result<Vec<Source>> {
        let stdin = rustix::stdio::stdin();
        let mut wanted: Vec<(Source, BorrowedFd<'_>, PollFlags)> = vec![
            (
                Source::Monitor,
                self.socket.as_fd(),
                if backlog.packets.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT },
            ),
            (Source::Signals, signals.as_fd(), PollFlags::IN),
        ];
        if reading && backlog.is_empty() {
            wanted.push((Source::Input, stdin, PollFlags::IN));
        }
        if let Some(fd) = &self.stdin {
            let waits = backlog.full || !backlog.input.is_empty();
            let flags = if waits { PollFlags::OUT } else { PollFlags::empty() };
            wanted.push((Source::ProgramInput, fd.as_fd(), flags));
        }
        let mut fds: Vec<_> =
            wanted.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        loop {
            match poll(&mut fds, None) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        let ready = wanted.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|((source, ..), _)| *source).collect())
    }

    fn send(&self, backlog: &mut Backlog, request: &Request<'_>) {
        let mut packet = Vec::new();
        request.encode(&mut packet);
        backlog.packets.push_back(packet);
        self.flush(backlog);
    }

    /// Passes on what there is room for. That somebody is gone is noticed where they are read from.
    fn flush(&self, backlog: &mut Backlog) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        while let Some(packet) = backlog.packets.front() {
            if let Err(Errno::AGAIN | Errno::INTR) = rustix::net::send(&self.socket, packet, flags) {
                break;
            }
            backlog.packets.pop_front();
        }
        while let (Some(fd), false) = (&self.stdin, backlog.input.is_empty()) {
            match rustix::io::write(fd, &backlog.input) {
                Ok(length) => drop(backlog.input.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => backlog.input.clear(),
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<Ending>> {
        match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Err(Errno::INTR | Errno::AGAIN | LEFT_UNREAD) => Ok(None),
            Ok((0, _)) => Ok(Some(Ending::Lost)),
            Err(error) => Err(error.into()),
            Ok((length, _)) => Ok(match Event::decode(&buffer[..length]) {
                Some(Event::Output(stream, bytes)) => {
                    let fd = match stream {
                        Stream::Stdout => rustix::stdio::stdout(),
                        Stream::Stderr => rustix::stdio::stderr(),
                    };
                    let shown = match stream {
                        Stream::Stdout => self.outputs.stdout,
                        Stream::Stderr => self.outputs.stderr,
                    };
                    if shown {
                        // Nobody reads our output any more: the program goes on all the same.
                        let _ = write_all(fd, bytes);
                    }
                    None
                }
                Some(Event::Exited(code)) => Some(Ending::Exited(code)),
                Some(Event::Failed { code, message, hint }) => {
                    Some(Ending::Failed { code, message: message.to_owned(), hint: hint.to_owned() })
                }
                Some(Event::Started(_)) => {
                    self.begun = None;
                    None
                }
                Some(Event::Checked(..) | Event::Networks { .. }) | None => None,
            }),
        }
    }

    fn forward_signal(&self, signals: &OwnedFd, backlog: &mut Backlog) -> io::Result<()> {
        match read_signal(signals)? {
            Some(libc::SIGWINCH) => {
                if self.tty
                    && let Some((rows, columns)) = terminal_size()
                {
                    self.send(backlog, &Request::Resize { rows, columns });
                }
            }
            Some(signal) => self.send(backlog, &Request::Signal(signal)),
            None => {}
        }
        Ok(())
    }

    /// Passes input on within the kernel; none if ours is of a kind that cannot be passed on so.
    fn splice_input(&mut self, backlog: &mut Backlog) -> Option<Input> {
        let fd = self.stdin.as_ref()?;
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        match splice(rustix::stdio::stdin(), None, fd, None, 1 << 20, flags) {
            Ok(0) => {
                self.stdin = None;
                self.send(backlog, &Request::InputEnd);
                Some(Input::End)
            }
            Ok(_) | Err(Errno::INTR) => Some(Input::More),
            // There was something to read: it is the program's pipe that had no room.
            Err(Errno::AGAIN) => {
                backlog.full = true;
                Some(Input::More)
            }
            // Nobody can read it any more, which is noticed elsewhere.
            Err(Errno::PIPE) => Some(Input::End),
            Err(_) => None,
        }
    }

    fn read_input(&mut self, buffer: &mut [u8], filter: &mut KeyFilter<'_>, backlog: &mut Backlog) -> Input {
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer[..MAX_BODY]) {
            Err(Errno::INTR | Errno::AGAIN) => Input::More,
            Ok(0) | Err(_) => {
                self.stdin = None;
                if self.tty {
                    // End of file on a terminal is a character: ctrl-d.
                    self.send(backlog, &Request::Input(&[4]));
                } else {
                    self.send(backlog, &Request::InputEnd);
                }
                Input::End
            }
            Ok(length) if self.tty => {
                let (bytes, leave) = filter.accept(&buffer[..length]);
                if !bytes.is_empty() {
                    self.send(backlog, &Request::Input(&bytes));
                }
                if leave { Input::Detach } else { Input::More }
            }
            // Somebody else holds the program's input, as in `attach`.
            Ok(length) if self.stdin.is_none() => {
                self.send(backlog, &Request::Input(&buffer[..length]));
                Input::More
            }
            Ok(length) => {
                backlog.input.extend_from_slice(&buffer[..length]);
                Input::More
            }
        }
    }
}

enum Input {
    More,
    End,
    Detach,
}

/// Writes all of `bytes`, waiting where the descriptor is not blocking.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                let _ = poll(&mut fds, None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_parsed() {
        assert_eq!(DetachKeys::parse("ctrl-p,ctrl-q"), Some(DetachKeys::default()));
        assert_eq!(DetachKeys::parse("ctrl-[,a"), Some(DetachKeys(vec![27, b'a'])));
        assert_eq!(DetachKeys::parse(""), Some(DetachKeys(Vec::new())));
        for bad in ["ctrl-", "ctrl-1", "ab", "a,,b"] {
            assert_eq!(DetachKeys::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn keys_are_found_across_reads_and_others_pass() {
        let keys = DetachKeys::default();
        let mut filter = KeyFilter::new(&keys);
        assert_eq!(filter.accept(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(filter.accept(b"b\x10"), (b"\x10b".to_vec(), false));
        assert_eq!(filter.accept(b"\x11rest"), (b"".to_vec(), true));
        let mut filter = KeyFilter::new(&keys);
        assert_eq!(filter.accept(b"\x10\x10\x11"), (b"\x10".to_vec(), true));
    }
}
