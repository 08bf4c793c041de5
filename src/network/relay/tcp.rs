//! What the container dials by TCP: its first packet is held until the destination has answered the host, so
//! that what is refused or unreachable for the host is so for the container.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType, sockopt};

use super::frames::Lane;
use super::pair::reset_when_closed;
use super::pairs::Pairs;
use super::poll::{Place, Poll, Table, Token};
use super::queue::{Held, Queue, mark_of};
use super::udp::Ends;
use crate::network::ids::mark;
use crate::network::policy::{Decision, Refusal};
use crate::sys::inet;

/// So long a connection that was let through may take until it is there.
const RELEASED: Duration = Duration::from_secs(60);
/// A peer that vanished is asked for after this time without a word, and noticed some minutes later (tcp(7)).
const KEEP_IDLE: Duration = Duration::from_secs(600);
/// What is accepted before others have their turn.
pub const ACCEPTED: usize = 64;

/// Who waits for a dial.
enum Client {
    /// A packet in the queue, by its number.
    Held(u32),
    /// Let through at this time, to be accepted.
    Released(Instant),
    /// A connection that was accepted before.
    Accepted(OwnedFd),
}

struct Dial {
    ends: Ends,
    /// None for a connection that we answer ourselves.
    socket: Option<OwnedFd>,
    /// Whether the socket is waited for.
    known: bool,
    client: Client,
}

/// Who holds the first packets of connections.
pub enum Hold {
    /// The kernel.
    Queue(Queue),
    /// Who carries the frames.
    Carrier(Lane),
}

impl Hold {
    fn receive(&mut self, into: &mut Vec<Held>) -> io::Result<()> {
        match self {
            Self::Queue(queue) => queue.receive(into),
            Self::Carrier(lane) => {
                lane.receive(into);
                Ok(())
            }
        }
    }

    /// Lets a packet go on with a mark, or forgets it. One that is gone (its device is) has no verdict.
    fn verdict(&self, id: u32, mark: Option<u32>) {
        let _ = match (self, mark) {
            (Self::Queue(queue), Some(mark)) => queue.release(id, mark),
            (Self::Queue(queue), None) => queue.drop(id),
            (Self::Carrier(lane), mark) => {
                lane.verdict(id, mark);
                Ok(())
            }
        };
    }
}

impl AsFd for Hold {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Queue(queue) => queue.as_fd(),
            Self::Carrier(lane) => lane.as_fd(),
        }
    }
}

/// The connections that are being made.
pub struct Dials {
    kind: u8,
    queue: Option<Hold>,
    held: Vec<Held>,
    table: Table<Dial>,
    places: HashMap<Ends, Place>,
    limit: usize,
    /// Let through since they were last accepted, of each family.
    released: [usize; 2],
    /// A socket of each family to dial with, made while nobody waits for it.
    spare: [Option<OwnedFd>; 2],
    /// Families that one was taken of.
    taken: [bool; 2],
}

/// What dialling needs of its loop.
pub struct Around<'a> {
    /// Where sockets are waited for.
    pub poll: &'a Poll,
    /// Where pairs go to.
    pub pairs: &'a mut Pairs,
    /// What becomes of a connection.
    pub decide: &'a mut dyn FnMut(SocketAddr) -> Decision,
    /// The time of this turn.
    pub now: Instant,
}

impl Dials {
    /// None yet; the tokens of sockets will be of this kind. There will be at most `limit` connections.
    pub fn new(kind: u8, queue: Option<Hold>, limit: usize) -> Self {
        Self {
            kind,
            queue,
            held: Vec::new(),
            table: Table::default(),
            places: HashMap::new(),
            limit,
            released: [0; 2],
            spare: [None, None],
            taken: [false; 2],
        }
    }

    /// Who carries the frames, if the kernel does not hand over.
    pub fn lane(&self) -> Option<&Lane> {
        match &self.queue {
            Some(Hold::Carrier(lane)) => Some(lane),
            _ => None,
        }
    }

    /// Whether there are any, which have to be looked at for their age.
    pub fn any(&self) -> bool {
        self.table.len() > 0
    }

    /// Takes held packets and dials for them.
    pub fn held(&mut self, around: &mut Around<'_>) {
        let Some(queue) = &mut self.queue else { return };
        let mut held = std::mem::take(&mut self.held);
        if queue.receive(&mut held).is_ok() {
            for packet in &held {
                self.hold(*packet, around);
            }
        }
        self.held = held;
    }

    fn hold(&mut self, packet: Held, around: &mut Around<'_>) {
        let Some(ends) = packet.ends else { return self.verdict(packet.id, None) };
        if let Some(dial) = self.places.get(&ends).and_then(|place| self.table.get(*place)) {
            match &mut dial.client {
                // Sent again, since there was no answer yet: the newest one is kept.
                Client::Held(id) => {
                    let older = std::mem::replace(id, packet.id);
                    self.verdict(older, None);
                }
                Client::Released(_) => self.verdict(packet.id, Some(mark::ACCEPT)),
                Client::Accepted(_) => self.verdict(packet.id, None),
            }
            return;
        }
        self.dial(ends, Client::Held(packet.id), around);
    }

    fn verdict(&self, id: u32, mark: Option<u32>) {
        if let Some(queue) = &self.queue {
            queue.verdict(id, mark);
        }
    }

    fn dial(&mut self, ends: Ends, client: Client, around: &mut Around<'_>) {
        if self.table.len() + around.pairs.len() >= self.limit {
            // Told at once: nobody knows when there will be room.
            super::turn_away();
            return self.give_up(client, Some(mark::RESET));
        }
        let to = match (around.decide)(ends.1) {
            Decision::Dial(to) => to,
            Decision::Local(_) => return self.answer(ends, client, around),
            Decision::Refuse(refusal) => return self.give_up(client, Some(mark_of_refusal(refusal))),
        };
        let family = usize::from(to.is_ipv6());
        self.taken[family] = true;
        let (socket, error) = match connect(self.spare[family].take(), to) {
            Ok(connecting) => connecting,
            Err(error) => return self.give_up(client, mark_of(error)),
        };
        match error {
            None => self.insert(ends, Some(socket), client, false, around),
            Some(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
                let place = self.table.insert(Dial { ends, socket: Some(socket), known: true, client });
                self.places.insert(ends, place);
                let dial = self.table.get(place).expect("just put there");
                let token = Token { kind: self.kind, side: 0, place };
                let socket = dial.socket.as_ref().expect("it has one");
                if around.poll.add(socket, token, EventFlags::OUT | EventFlags::ET).is_err() {
                    self.fail(place, None);
                }
            }
            Some(error) => self.give_up(client, mark_of(error)),
        }
    }

    fn answer(&mut self, ends: Ends, client: Client, around: &mut Around<'_>) {
        self.insert(ends, None, client, false, around);
    }

    /// The destination has answered: so does the router.
    fn insert(
        &mut self,
        ends: Ends,
        socket: Option<OwnedFd>,
        client: Client,
        known: bool,
        around: &mut Around<'_>,
    ) {
        match (client, socket) {
            (Client::Held(id), socket) => {
                // The container's program is the first to wake up: it has more to do until the server is needed.
                self.verdict(id, Some(mark::ACCEPT));
                if let Some(socket) = &socket {
                    send_last_packet(socket);
                }
                let client = Client::Released(around.now);
                let place = self.table.insert(Dial { ends, socket, known, client });
                self.places.insert(ends, place);
                self.released[usize::from(ends.1.is_ipv6())] += 1;
            }
            (Client::Accepted(near), Some(far)) => {
                send_last_packet(&far);
                // What cannot be waited for was reset.
                let _ = around.pairs.add(around.poll, [near, far], known);
            }
            (Client::Accepted(near), None) => reset_when_closed(&near),
            (Client::Released(_), _) => {}
        }
    }

    /// The socket of a dial is connected, or has failed.
    pub fn event(&mut self, token: Token, around: &mut Around<'_>) {
        let Some(dial) = self.table.get(token.place) else { return };
        if !matches!(dial.client, Client::Held(_) | Client::Accepted(_)) {
            // It waits to be accepted: what its peer sends will be seen then.
            return;
        }
        let Some(socket) = &dial.socket else { return };
        match sockopt::socket_error(socket) {
            Ok(Ok(())) => {
                let Some(dial) = self.table.remove(token.place) else { return };
                self.places.remove(&dial.ends);
                self.insert(dial.ends, dial.socket, dial.client, true, around);
            }
            Ok(Err(error)) | Err(error) => self.fail(token.place, Some(error.into())),
        }
    }

    fn fail(&mut self, place: Place, error: Option<io::Error>) {
        if let Some(dial) = self.table.remove(place) {
            self.places.remove(&dial.ends);
            self.give_up(dial.client, error.and_then(mark_of));
        }
    }

    fn give_up(&self, client: Client, mark: Option<u32>) {
        match client {
            Client::Held(id) => self.verdict(id, mark),
            Client::Accepted(socket) => reset_when_closed(socket),
            Client::Released(_) => {}
        }
    }

    /// How many were let through since this was last asked, of each family: they are mostly there at once.
    pub fn released(&mut self) -> [usize; 2] {
        std::mem::take(&mut self.released)
    }

    /// Has a socket ready for the next one that is dialled, in place of one that was taken.
    pub fn prepare(&mut self) {
        for family in [0, 1] {
            if std::mem::take(&mut self.taken[family]) && self.spare[family].is_none() {
                // Whoever finds none tries it himself.
                self.spare[family] = outgoing(family == 1).ok();
            }
        }
    }

    /// Accepts what came to a listener of the router, at most so many. Returns those that we answer ourselves.
    pub fn accept(&mut self, listener: &OwnedFd, most: usize, around: &mut Around<'_>) -> Vec<OwnedFd> {
        let mut answered = Vec::new();
        for _ in 0..most {
            let accepted =
                rustix::net::acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC);
            let (socket, from) = match accepted {
                Ok((socket, Some(from))) => (socket, from),
                Ok((_, None)) | Err(Errno::CONNABORTED | Errno::INTR) => continue,
                // Nothing more; or no descriptors, which the limit prevents.
                Err(_) => break,
            };
            let to = rustix::net::getsockname(&socket).ok().and_then(|to| SocketAddr::try_from(to).ok());
            let (Ok(from), Some(to)) = (SocketAddr::try_from(from), to) else { continue };
            let place = self.places.remove(&(from, to));
            match place.and_then(|place| self.table.remove(place)) {
                Some(Dial { socket: Some(far), known, .. }) => {
                    // What cannot be waited for was reset.
                    let _ = around.pairs.add(around.poll, [socket, far], known);
                }
                Some(Dial { socket: None, .. }) => answered.push(socket),
                None if matches!((around.decide)(to), Decision::Local(_)) => {
                    answered.push(socket);
                }
                None => self.dial((from, to), Client::Accepted(socket), around),
            }
        }
        answered
    }

    /// Forgets connections that were let through and never came.
    pub fn expire(&mut self, now: Instant) {
        let old = |dial: &Dial| match dial.client {
            Client::Released(since) => now.duration_since(since) > RELEASED,
            Client::Held(_) | Client::Accepted(_) => false,
        };
        for place in self.table.places(old) {
            self.fail(place, None);
        }
    }
}

fn mark_of_refusal(refusal: Refusal) -> u32 {
    match refusal {
        Refusal::Prohibited => mark::PROHIBITED,
        Refusal::Unreachable => mark::HOST_UNREACHABLE,
        Refusal::Closed => mark::RESET,
    }
}

/// A socket to dial with.
fn outgoing(v6: bool) -> io::Result<OwnedFd> {
    let socket = inet::socket(v6, SocketType::STREAM, None)?;
    set_options(&socket)?;
    hold_last_packet(&socket)?;
    Ok(socket)
}

/// Has the handshake's last packet wait for [`send_last_packet`], or some tenths of a second (tcp(7), `TCP_QUICKACK`):
/// it wakes the server, which takes longer than a verdict, and costs the container's program its processor.
fn hold_last_packet(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_tcp_quickack(socket, false)?)
}

/// Has the server know that its answer has come.
fn send_last_packet(socket: impl AsFd) {
    // It cannot fail on a TCP socket; the packet would come a little later then.
    let _ = sockopt::set_tcp_quickack(socket, true);
}

/// Begins to connect: the socket, and why it is not connected yet.
fn connect(spare: Option<OwnedFd>, to: SocketAddr) -> io::Result<(OwnedFd, Option<io::Error>)> {
    let socket = spare.map_or_else(|| outgoing(to.is_ipv6()), Ok)?;
    let error = match rustix::net::connect(&socket, &to) {
        // Whoever is near has answered within the call.
        Err(Errno::INPROGRESS) if rustix::net::getpeername(&socket).is_ok() => None,
        other => other.err(),
    };
    Ok((socket, error.map(io::Error::from)))
}

/// Both ends do themselves what TCP does for small packets: nothing is held back here. Who vanished is noticed.
/// Sockets that a listener accepts have its options.
pub fn set_options(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEP_IDLE)?;
    // Urgent data would be left out of what is read otherwise.
    sockopt::set_socket_oobinline(&socket, true)?;
    Ok(sockopt::set_socket_keepalive(&socket, true)?)
}
