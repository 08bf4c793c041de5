//! Where the kernel has no rules that hand over what a container sends: its frames are carried by hand into the
//! router, between the device that the container is connected to and one that leads to the kernel's own TCP. What
//! begins a connection is held until it is known what becomes of it, and there is a listener for its port by
//! then. Datagrams are taken out on the way.
//!
//! ```text
//! container ── eth0 ═ r0 ── [carrier] ── a0 ═ b0 ── sockets of the relay
//!                     └ a namespace of its own ┘     └ the router ┘
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, poll};

use super::frame::{self, Kind, Parts};
use super::icmp::Reason;
use super::idle::ANSWERED;
use super::inner::listener;
use super::queue::Held;
use super::udp::Ends;
use crate::network::ids::mark;
use crate::sys::packet;

/// Packets that are held at most: the oldest is forgotten, and will be sent again.
const HELD: usize = 4096;
/// Ports that have a listener at most.
const PORTS: usize = 4096;
/// Datagrams that may wait for the other thread.
const DATAGRAMS: usize = 512;
/// Frames of one side before the other side has its turn.
const TURN: usize = 64;

/// A datagram of the container: from where to where, its content, and the length of each if it is a run.
pub type Datagram = (Ends, Vec<u8>, Option<u16>);

/// What becomes of a held packet: a mark of [`mark`], or none if it is forgotten.
type Verdict = (u32, Option<u32>);

/// The packet sockets of the two devices that are not the router's.
pub struct Front {
    /// To the container.
    pub near: OwnedFd,
    /// To the router.
    pub far: OwnedFd,
}

/// What the carrier is told, and tells: the end of the thread that dials.
pub struct Lane {
    held: mpsc::Receiver<Held>,
    listeners: mpsc::Receiver<OwnedFd>,
    datagrams: mpsc::Receiver<Datagram>,
    verdicts: mpsc::Sender<Verdict>,
    /// Something is held, or there is a listener.
    bell: Arc<OwnedFd>,
    /// There are datagrams.
    other_bell: Arc<OwnedFd>,
    judged: Arc<OwnedFd>,
}

/// What carries the frames.
pub struct Carrier {
    front: Front,
    held: mpsc::Sender<Held>,
    listeners: mpsc::Sender<OwnedFd>,
    datagrams: mpsc::SyncSender<Datagram>,
    verdicts: mpsc::Receiver<Verdict>,
    bell: Arc<OwnedFd>,
    other_bell: Arc<OwnedFd>,
    judged: Arc<OwnedFd>,
    waiting: HashMap<u32, Vec<u8>>,
    order: VecDeque<u32>,
    next: u32,
    ports: HashSet<(bool, u16)>,
    parts: Parts,
    talks: Talks,
}

/// Who has sent datagrams to the container lately, and from which port of it they are answered: there is a socket
/// of the router for these.
#[derive(Default)]
struct Talks(HashMap<Ends, Instant>);

/// Shorter than a socket of the router waits for more ([`ANSWERED`]).
const LATELY: Duration = ANSWERED.saturating_sub(Duration::from_secs(10));
/// So many are known at most.
const TALKS: usize = 8192;

impl Talks {
    fn note(&mut self, ends: Ends, now: Instant) {
        if self.0.len() >= TALKS {
            self.0.retain(|_, last| now.saturating_duration_since(*last) < LATELY);
        }
        if self.0.len() < TALKS {
            self.0.insert(ends, now);
        }
    }

    fn goes_on(&mut self, ends: Ends, now: Instant) -> bool {
        match self.0.get_mut(&ends) {
            Some(last) if now.saturating_duration_since(*last) < LATELY => {
                *last = now;
                true
            }
            _ => false,
        }
    }
}

fn ring(bell: &OwnedFd) {
    // It only fails when the counter is full: then it has been rung.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

fn silence(bell: &OwnedFd) {
    let _ = rustix::io::read(bell, &mut [0_u8; 8]);
}

impl Lane {
    /// Takes what is held since this was last asked.
    pub fn receive(&mut self, into: &mut Vec<Held>) {
        into.clear();
        silence(&self.bell);
        into.extend(self.held.try_iter());
    }

    /// Tells what becomes of a held packet.
    pub fn verdict(&self, id: u32, mark: Option<u32>) {
        if self.verdicts.send((id, mark)).is_ok() {
            ring(&self.judged);
        }
    }

    /// Listeners that were made since this was last asked. They are told of before anybody comes to them.
    pub fn listeners(&self) -> Vec<OwnedFd> {
        self.listeners.try_iter().collect()
    }

    /// Becomes readable when there are datagrams.
    pub fn other_bell(&self) -> BorrowedFd<'_> {
        self.other_bell.as_fd()
    }

    /// Datagrams that have come since this was last asked.
    pub fn datagrams(&self) -> Vec<Datagram> {
        silence(&self.other_bell);
        self.datagrams.try_iter().take(DATAGRAMS).collect()
    }
}

impl AsFd for Lane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Carrier {
    /// Between two devices, with the other thread's end.
    pub fn new(front: Front) -> io::Result<(Self, Lane)> {
        let bell = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Arc::new);
        let (bell, other_bell, judged) = (bell()?, bell()?, bell()?);
        let (hold, held) = mpsc::channel();
        let (listen, listeners) = mpsc::channel();
        let (send, datagrams) = mpsc::sync_channel(DATAGRAMS);
        let (judge, verdicts) = mpsc::channel();
        let lane = Lane {
            held,
            listeners,
            datagrams,
            verdicts: judge,
            bell: Arc::clone(&bell),
            other_bell: Arc::clone(&other_bell),
            judged: Arc::clone(&judged),
        };
        let carrier = Self {
            front,
            held: hold,
            listeners: listen,
            datagrams: send,
            verdicts,
            bell,
            other_bell,
            judged,
            waiting: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
            ports: HashSet::new(),
            parts: Parts::default(),
            talks: Talks::default(),
        };
        Ok((carrier, lane))
    }

    /// Carries for as long as the process lives. The calling thread is in the router.
    pub fn run(mut self) -> io::Result<()> {
        let mut buffer = vec![0; packet::LONGEST];
        loop {
            let ready = {
                let mut wait = [&self.front.near, &self.front.far, &*self.judged]
                    .map(|fd| PollFd::new(fd, PollFlags::IN));
                match poll(&mut wait, None) {
                    Err(rustix::io::Errno::INTR) => continue,
                    other => other?,
                };
                wait.map(|fd| !fd.revents().is_empty())
            };
            if ready[2] {
                silence(&self.judged);
                for verdict in self.verdicts.try_iter().collect::<Vec<_>>() {
                    self.judge(verdict);
                }
            }
            let now = Instant::now();
            for _ in 0..if ready[0] { TURN } else { 0 } {
                // What cannot be received now will be; an error is that the container is going.
                let Ok(length) = packet::receive(&self.front.near, &mut buffer) else { break };
                self.outgoing(&buffer[..length], now);
            }
            for _ in 0..if ready[1] { TURN } else { 0 } {
                let Ok(length) = packet::receive(&self.front.far, &mut buffer) else { break };
                if let Kind::Datagram((from, to), ..) = frame::kind(&buffer[..length]) {
                    self.talks.note((to, from), now);
                }
                // What is not taken is lost, and sent again by whoever minds.
                let _ = packet::send(&self.front.near, &buffer[..length]);
            }
        }
    }

    fn outgoing(&mut self, frame: &[u8], now: Instant) {
        match frame::kind(frame) {
            Kind::First(ends) => self.hold(ends, frame),
            Kind::Datagram(ends, ..) if self.talks.goes_on(ends, now) => {
                let _ = packet::send(&self.front.far, frame);
            }
            Kind::Datagram(ends, bytes, run) => self.tell(ends, bytes, run),
            Kind::Part(part) => {
                let (from, to, _) = part.key;
                if let Some(whole) = self.parts.take(part)
                    && let Some((ends, bytes)) = frame::datagram(from, to, &whole)
                {
                    self.tell(ends, bytes, None);
                }
            }
            Kind::Other => drop(packet::send(&self.front.far, frame)),
            Kind::Nothing => {}
        }
    }

    fn tell(&self, ends: Ends, bytes: &[u8], run: Option<u16>) {
        // What is too much is lost.
        if self.datagrams.try_send((ends, bytes.to_vec(), run)).is_ok() {
            ring(&self.other_bell);
        }
    }

    fn hold(&mut self, ends: Ends, frame: &[u8]) {
        self.next = self.next.wrapping_add(1);
        self.waiting.insert(self.next, frame.to_vec());
        self.order.push_back(self.next);
        while self.order.len() > HELD {
            let oldest = self.order.pop_front();
            oldest.and_then(|id| self.waiting.remove(&id));
        }
        if self.held.send(Held { id: self.next, ends: Some(ends) }).is_ok() {
            ring(&self.bell);
        }
    }

    fn judge(&mut self, (id, verdict): Verdict) {
        let Some(frame) = self.waiting.remove(&id) else { return };
        if self.waiting.is_empty() {
            self.order.clear();
        }
        let Some(verdict) = verdict else { return };
        if verdict == mark::ACCEPT {
            if let Kind::First((_, to)) = frame::kind(&frame)
                && self.listen(to.is_ipv6(), to.port())
            {
                let _ = packet::send(&self.front.far, &frame);
            }
            return;
        }
        let reason = match verdict {
            mark::HOST_UNREACHABLE => Some(Reason::Host),
            mark::NET_UNREACHABLE => Some(Reason::Network),
            mark::PROHIBITED => Some(Reason::Prohibited),
            mark::PORT_UNREACHABLE => Some(Reason::Port),
            _ => None,
        };
        if let Some(answer) = frame::refusal(&frame, reason) {
            let _ = packet::send(&self.front.near, &answer);
        }
    }

    /// Sees to it that there is a listener for a port; false if there can be none.
    fn listen(&mut self, v6: bool, port: u16) -> bool {
        if self.ports.contains(&(v6, port)) {
            return true;
        }
        if self.ports.len() >= PORTS {
            return false;
        }
        let Ok(socket) = listener(v6, port) else { return false };
        self.ports.insert((v6, port));
        if self.listeners.send(socket).is_ok() {
            ring(&self.bell);
        }
        true
    }
}
