//! The pairs of a loop: each has its turn.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::epoll::EventFlags;

use super::pair::{INTEREST, Outcome, Pair, Tools};
use super::poll::{Place, Poll, Table, Token};

/// Pairs of connected sockets, served in turns.
pub struct Pairs {
    kind: u8,
    table: Table<Pair>,
    ready: VecDeque<Place>,
    tools: Tools,
}

impl Pairs {
    /// No pairs; the tokens of their sockets will be of this kind.
    pub fn new(kind: u8) -> Self {
        Self { kind, table: Table::default(), ready: VecDeque::new(), tools: Tools::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Adds two connected sockets; the second may be waited for already.
    pub fn add(&mut self, poll: &Poll, sides: [OwnedFd; 2], known: bool) -> io::Result<()> {
        let place = self.table.insert(Pair::new(sides));
        let token = |side| Token { kind: self.kind, side, place };
        let pair = self.table.get(place).expect("just put there");
        let waited = poll.add(pair.side(0), token(0), INTEREST).and_then(|()| {
            if known {
                poll.change(pair.side(1), token(1), INTEREST)
            } else {
                poll.add(pair.side(1), token(1), INTEREST)
            }
        });
        if waited.is_err() {
            pair.reset(&mut self.tools);
            self.table.remove(place);
        }
        waited
    }

    /// Notes an event; what can be moved is moved in the next [`Self::turn`].
    pub fn event(&mut self, token: Token, flags: EventFlags) {
        if let Some(pair) = self.table.get(token.place) {
            pair.note(usize::from(token.side), flags);
            if !pair.queued {
                pair.queued = true;
                self.ready.push_back(token.place);
            }
        }
    }

    /// Resets those that have one of these addresses at an end: the container has it no longer.
    pub fn cut(&mut self, lost: &[IpAddr]) {
        let is_lost = |side: BorrowedFd<'_>| {
            let peer = rustix::net::getpeername(side).ok().flatten();
            peer.and_then(|peer| SocketAddr::try_from(peer).ok())
                .is_some_and(|peer| lost.contains(&peer.ip()))
        };
        for place in self.table.places(|pair| is_lost(pair.side(0)) || is_lost(pair.side(1))) {
            if let Some(mut pair) = self.table.remove(place) {
                pair.reset(&mut self.tools);
            }
        }
    }

    /// Whether much was moved in the last turn: then there will be more soon, and enough to do for all.
    pub fn busy(&self) -> bool {
        self.tools.moved
    }

    /// Gives every pair that can go on its turn. Returns whether some can still go on.
    pub fn turn(&mut self, poll: &Poll) -> bool {
        self.tools.moved = false;
        for _ in 0..self.ready.len() {
            let Some(place) = self.ready.pop_front() else { break };
            let Some(pair) = self.table.get(place) else { continue };
            let mut outcome = pair.pump(&mut self.tools);
            while let Some(side) = pair.full().filter(|_| outcome != Outcome::Done) {
                let token = Token { kind: self.kind, side: side as u8, place };
                // It tells at once if there is room again.
                if poll.change(pair.side(side), token, INTEREST | EventFlags::OUT).is_err() {
                    pair.reset(&mut self.tools);
                    outcome = Outcome::Done;
                }
            }
            match outcome {
                Outcome::Waits => pair.queued = false,
                Outcome::More => self.ready.push_back(place),
                Outcome::Done => {
                    self.table.remove(place);
                }
            }
        }
        !self.ready.is_empty()
    }
}
