//! Two connected stream sockets whose bytes go from one to the other, each way by itself: ends and resets are
//! passed on, what one side does not take is not read from the other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};
use rustix::pipe::{PipeFlags, SpliceFlags};

/// What is copied at a time. More than this waiting makes it worth to move it without copying.
const COPIED: usize = 16 * 1024;
/// What a pipe shall hold (bytes), where the limits of the user allow it (pipe(7)).
const PIPE: usize = 1 << 20;
/// How many pipes a thread keeps at most, in use or not: ways beyond these copy.
const PIPES: usize = 128;
/// How many of them are of the full size: all count for the user's `pipe-user-pages-soft`.
const LARGE_PIPES: usize = 16;
/// What is moved for one pair before others have their turn (rounds of a pipe or a copy).
const ROUNDS: usize = 8;
/// After so many pipes of less than a copy a way copies again.
const SMALL_ROUNDS: u8 = 8;

/// What pairs of one thread share: memory to copy by, and pipes.
pub struct Tools {
    buffer: Vec<u8>,
    free: Vec<Pipe>,
    made: usize,
    /// Something was moved by a pipe since this was set to false.
    pub moved: bool,
}

impl Default for Tools {
    fn default() -> Self {
        Self { buffer: vec![0; COPIED], free: Vec::new(), made: 0, moved: false }
    }
}

struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    holds: usize,
}

impl Tools {
    /// An empty pipe, if there may be one more.
    fn pipe(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.free.pop() {
            return Some(pipe);
        }
        if self.made >= PIPES {
            return None;
        }
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        if self.made < LARGE_PIPES {
            // Refused where the user has too many already: then it stays small.
            let _ = rustix::pipe::fcntl_setpipe_size(&writer, PIPE);
        }
        self.made += 1;
        Some(Pipe { reader, writer, holds: 0 })
    }

    fn give_back(&mut self, pipe: Pipe) {
        if pipe.holds == 0 {
            self.free.push(pipe);
        } else {
            // Closed with what it holds.
            self.made -= 1;
        }
    }
}

/// What became of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It waits for its sockets.
    Waits,
    /// It could go on at once, but has had its turn.
    More,
    /// Both ways have ended, or one side was reset, and so was the other: it may be dropped.
    Done,
}

/// One way of a pair.
#[derive(Default)]
struct Way {
    /// There may be something to read.
    readable: bool,
    /// The reading side has announced its end, or urgent data, at which reads stop: more may be behind a short
    /// read.
    careful: bool,
    /// The writing side takes more.
    writable: bool,
    /// No more comes from the reading side.
    ended: bool,
    /// And the writing side was told so.
    shut: bool,
    /// Worth a pipe.
    bulk: bool,
    /// Pipes in a row that held little.
    small: u8,
    pipe: Option<Pipe>,
    /// Copied, but not taken yet: from this byte on.
    rest: Vec<u8>,
    taken: usize,
}

enum Step {
    Again,
    Stop,
    Broken,
}

/// Two connected sockets.
pub struct Pair {
    sides: [OwnedFd; 2],
    /// From side 0 to 1, and from 1 to 0.
    ways: [Way; 2],
    /// Sides that are waited for to take more.
    filled: [bool; 2],
    /// It is in its loop's list of those that can go on.
    pub queued: bool,
}

/// What a pair's sockets are waited for at first. That one takes more is waited for once it has not ([`Pair::full`]):
/// for most that never happens, and it would be told of each at once.
pub const INTEREST: EventFlags =
    EventFlags::IN.union(EventFlags::PRI).union(EventFlags::RDHUP).union(EventFlags::ET);

impl Pair {
    /// Puts two connected non-blocking sockets together. Both have to be waited for with [`INTEREST`] then.
    pub fn new(sides: [OwnedFd; 2]) -> Self {
        let way = || Way { writable: true, ..Way::default() };
        Self { sides, ways: [way(), way()], filled: [false; 2], queued: false }
    }

    /// One of the sockets.
    pub fn side(&self, side: usize) -> BorrowedFd<'_> {
        self.sides[side].as_fd()
    }

    /// Notes what epoll told of one side.
    pub fn note(&mut self, side: usize, flags: EventFlags) {
        let over = EventFlags::HUP | EventFlags::ERR;
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | over) {
            self.ways[side].readable = true;
        }
        if flags.intersects(EventFlags::RDHUP | EventFlags::PRI | over) {
            self.ways[side].careful = true;
        }
        if flags.intersects(EventFlags::OUT | over) {
            self.ways[1 - side].writable = true;
        }
    }

    /// A side that has not taken all for the first time: from now on it has to be waited for to take more, too
    /// ([`EventFlags::OUT`]).
    pub fn full(&mut self) -> Option<usize> {
        let side = [0, 1].into_iter().find(|side| !self.ways[1 - side].writable && !self.filled[*side])?;
        self.filled[side] = true;
        Some(side)
    }

    /// Moves what can be moved.
    pub fn pump(&mut self, tools: &mut Tools) -> Outcome {
        let mut more = false;
        for from in [0, 1] {
            let last = self.ways[1 - from].shut;
            let (way, source, sink) = (&mut self.ways[from], &self.sides[from], &self.sides[1 - from]);
            if way.shut {
                continue;
            }
            let mut rounds = 0;
            loop {
                match way.step(source, sink, tools, last) {
                    Step::Stop => break,
                    Step::Broken => {
                        self.reset(tools);
                        return Outcome::Done;
                    }
                    Step::Again if rounds == ROUNDS => {
                        more = true;
                        break;
                    }
                    Step::Again => rounds += 1,
                }
            }
        }
        if self.ways[0].shut && self.ways[1].shut {
            return Outcome::Done;
        }
        if more { Outcome::More } else { Outcome::Waits }
    }

    /// Has both sides closed by a reset.
    pub fn reset(&mut self, tools: &mut Tools) {
        for side in &self.sides {
            reset_when_closed(side);
        }
        for way in &mut self.ways {
            if let Some(pipe) = way.pipe.take() {
                tools.give_back(pipe);
            }
            way.shut = true;
        }
    }
}

/// Has a TCP socket send a reset when it is closed, instead of an end.
pub fn reset_when_closed(socket: impl AsFd) {
    // It cannot fail on a stream socket; on one that could not linger an end would be sent instead.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

impl Way {
    /// Does the next thing: empties what is held, passes on the end, or reads. If it is the last way, closing
    /// passes on the end.
    fn step(&mut self, source: &OwnedFd, sink: &OwnedFd, tools: &mut Tools, last: bool) -> Step {
        if self.taken < self.rest.len() {
            return self.write_rest(sink);
        }
        if self.pipe.as_ref().is_some_and(|pipe| pipe.holds > 0) {
            return self.drain(sink);
        }
        if self.ended {
            self.release(tools);
            self.shut = true;
            if !last {
                // The other side may be gone already: then its own way tells.
                let _ = rustix::net::shutdown(sink, Shutdown::Write);
            }
            return Step::Stop;
        }
        if !self.readable {
            self.release(tools);
            return Step::Stop;
        }
        if self.bulk {
            if self.pipe.is_none() {
                self.pipe = tools.pipe();
            }
            if self.pipe.is_some() {
                tools.moved = true;
                return self.fill(source);
            }
        }
        self.copy(source, sink, tools)
    }

    fn release(&mut self, tools: &mut Tools) {
        if let Some(pipe) = self.pipe.take() {
            tools.give_back(pipe);
        }
    }

    fn fill(&mut self, source: &OwnedFd) -> Step {
        let pipe = self.pipe.as_mut().expect("asked for by step");
        match rustix::pipe::splice(source, None, &pipe.writer, None, PIPE, SpliceFlags::NONBLOCK) {
            // The end, or urgent data with the end behind it, which no splice goes past: a copy tells.
            Ok(0) => self.bulk = false,
            Ok(count) => {
                pipe.holds = count;
                self.small = if count < COPIED { self.small + 1 } else { 0 };
                if self.small >= SMALL_ROUNDS {
                    self.bulk = false;
                    self.small = 0;
                }
            }
            Err(Errno::AGAIN) if self.careful => self.bulk = false,
            Err(Errno::AGAIN) => self.readable = false,
            Err(Errno::INTR) => {}
            Err(_) => return Step::Broken,
        }
        Step::Again
    }

    fn drain(&mut self, sink: &OwnedFd) -> Step {
        if !self.writable {
            return Step::Stop;
        }
        let pipe = self.pipe.as_mut().expect("asked for by step");
        match rustix::pipe::splice(&pipe.reader, None, sink, None, pipe.holds, SpliceFlags::NONBLOCK) {
            Ok(count) => pipe.holds -= count,
            Err(Errno::AGAIN) => self.writable = false,
            Err(Errno::INTR) => {}
            Err(_) => return Step::Broken,
        }
        Step::Again
    }

    fn copy(&mut self, source: &OwnedFd, sink: &OwnedFd, tools: &mut Tools) -> Step {
        let read = match rustix::net::recv(source, &mut tools.buffer[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.ended = true;
                return Step::Again;
            }
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => {
                self.readable = false;
                return Step::Again;
            }
            Err(Errno::INTR) => return Step::Again,
            Err(_) => return Step::Broken,
        };
        self.bulk = read == COPIED;
        if !self.bulk && !self.careful {
            // Epoll tells of what comes after this.
            self.readable = false;
        }
        let mut sent = 0;
        while sent < read && self.writable {
            match rustix::net::send(
                sink,
                &tools.buffer[sent..read],
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => self.writable = false,
                Err(Errno::INTR) => {}
                Err(_) => return Step::Broken,
            }
        }
        if sent < read {
            self.rest = tools.buffer[sent..read].to_vec();
            self.taken = 0;
        }
        Step::Again
    }

    fn write_rest(&mut self, sink: &OwnedFd) -> Step {
        if !self.writable {
            return Step::Stop;
        }
        match rustix::net::send(sink, &self.rest[self.taken..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => self.taken += count,
            Err(Errno::AGAIN) => self.writable = false,
            Err(Errno::INTR) => {}
            Err(_) => return Step::Broken,
        }
        if self.taken == self.rest.len() {
            self.rest = Vec::new();
            self.taken = 0;
        }
        Step::Again
    }
}
