//! What the container sends by UDP: a flow for each of its ports and each destination, with a socket of the
//! host that is connected to the destination, and one in the router that is bound to it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::net::SocketType;

use super::echo::Icmp;
use super::factory::{Factory, hold_bursts};
use super::frames;
use super::icmp;
use super::idle::{self, Use};
use super::poll::{Place, Poll, Table, Token};
use crate::sys::inet::{self, Batch};

/// How many datagrams may wait for a socket.
const WAITING: usize = 256;

/// From where to where.
pub type Ends = (SocketAddr, SocketAddr);

/// A datagram of the container, or a run of them.
#[derive(Clone, Copy)]
struct Datagram<'a> {
    ends: Ends,
    bytes: &'a [u8],
    segment: Option<u16>,
}

struct Flow {
    ends: Ends,
    /// What is dialled for it.
    to: IpAddr,
    /// In the router: bound to the destination, connected to the container.
    near: OwnedFd,
    /// Of the host: connected to the destination.
    far: OwnedFd,
    used: Use,
}

/// The flows of a container.
pub struct Flows {
    kind: u8,
    table: Table<Flow>,
    places: HashMap<Ends, Place>,
    /// With where they go to.
    waiting: VecDeque<(Ends, SocketAddr, Vec<u8>, Option<u16>)>,
    factory: Arc<Factory>,
    limit: usize,
    /// Whether somebody carries frames, and counts on the sockets of flows that are not over.
    carried: bool,
}

impl Flows {
    /// No flows; the tokens of their sockets will be of this kind. There will be at most `limit`, and who comes then takes
    /// the place of others, unless frames are `carried`.
    pub fn new(kind: u8, factory: Arc<Factory>, limit: usize, carried: bool) -> Self {
        Self {
            kind,
            table: Table::default(),
            places: HashMap::new(),
            waiting: VecDeque::new(),
            factory,
            limit,
            carried,
        }
    }

    /// Whether there are any, which have to be looked at for their age.
    pub fn any(&self) -> bool {
        self.table.len() > 0
    }

    /// Receives what comes from the container for no flow yet. `decide` says what becomes of it, and does it
    /// if it is not dialled.
    pub fn first(
        &mut self,
        listener: &OwnedFd,
        batch: &mut Batch,
        poll: &Poll,
        messages: &Icmp,
        now: Instant,
        mut decide: impl FnMut(Ends, &[u8]) -> Option<SocketAddr>,
    ) {
        // An error is of an earlier answer; the next datagrams come all the same.
        if batch.receive(listener).is_ok() {
            for (bytes, about) in batch.datagrams() {
                if let (Some(from), Some(to)) = (about.from, about.to) {
                    let ends = (from, to);
                    let datagram = Datagram { ends, bytes, segment: about.segment };
                    self.arrived(datagram, poll, messages, now, &mut decide);
                }
            }
        }
    }

    /// As [`Self::first`], of datagrams that were received by somebody else: all of them come so, those of flows
    /// that are known, too.
    pub fn carried(
        &mut self,
        datagrams: Vec<frames::Datagram>,
        poll: &Poll,
        messages: &Icmp,
        now: Instant,
        mut decide: impl FnMut(Ends, &[u8]) -> Option<SocketAddr>,
    ) {
        for (ends, bytes, segment) in datagrams {
            self.arrived(Datagram { ends, bytes: &bytes, segment }, poll, messages, now, &mut decide);
        }
    }

    fn arrived(
        &mut self,
        datagram: Datagram<'_>,
        poll: &Poll,
        messages: &Icmp,
        now: Instant,
        decide: &mut dyn FnMut(Ends, &[u8]) -> Option<SocketAddr>,
    ) {
        if !self.known(datagram, now)
            && let Some(to) = decide(datagram.ends, datagram.bytes)
        {
            self.one(datagram, to, poll, messages, now);
        }
    }

    /// Sends what was received before its flow's own socket was there.
    fn known(&mut self, datagram: Datagram<'_>, now: Instant) -> bool {
        let Some(flow) = self.places.get(&datagram.ends).and_then(|place| self.table.get(*place)) else {
            return false;
        };
        flow.used.note(false, now);
        let _ = inet::send(&flow.far, datagram.bytes, None, None, datagram.segment);
        true
    }

    fn one(&mut self, datagram: Datagram<'_>, to: SocketAddr, poll: &Poll, messages: &Icmp, now: Instant) {
        let Datagram { ends, bytes, segment } = datagram;
        if self.table.len() >= self.limit {
            self.expire(now);
        }
        if self.table.len() >= self.limit && !self.carried {
            idle::spared(&self.table, |flow| flow.used).into_iter().for_each(|place| self.close(place));
        }
        if self.table.len() >= self.limit {
            return;
        }
        let Some(near) = self.factory.take(ends.1.is_ipv6()) else {
            if self.waiting.len() < WAITING {
                self.waiting.push_back((ends, to, bytes.to_vec(), segment));
            }
            return;
        };
        // What fails here is the loss of a datagram; the next one tries again.
        let sent = self.open(ends, to, near, poll, now).and_then(|place| {
            let flow = self.table.get(place).ok_or(io::ErrorKind::NotFound)?;
            inet::send(&flow.far, bytes, None, None, segment)
        });
        if let Some(reason) = sent.err().and_then(|error| icmp::reason_of_errno(error.raw_os_error()?)) {
            messages.undelivered(ends, reason, None);
        }
    }

    fn open(
        &mut self,
        ends: Ends,
        to: SocketAddr,
        near: OwnedFd,
        poll: &Poll,
        now: Instant,
    ) -> io::Result<Place> {
        let far = inet::socket(to.is_ipv6(), SocketType::DGRAM, None)?;
        inet::keep_errors(&far, to.is_ipv6())?;
        hold_bursts(&far);
        rustix::net::connect(&far, &to)?;
        rustix::net::bind(&near, &ends.1)?;
        rustix::net::connect(&near, &ends.0)?;
        // An old kernel receives one by one.
        let _ = inet::receive_runs(&near);
        let _ = inet::receive_runs(&far);
        let place = self.table.insert(Flow { ends, to: to.ip(), near, far, used: Use::new(now) });
        self.places.insert(ends, place);
        let flow = self.table.get(place).expect("just put there");
        let token = |side| Token { kind: self.kind, side, place };
        let waited = poll
            .add(&flow.near, token(0), EventFlags::IN)
            .and_then(|()| poll.add(&flow.far, token(1), EventFlags::IN));
        if let Err(error) = waited {
            self.close(place);
            return Err(error);
        }
        Ok(place)
    }

    fn close(&mut self, place: Place) {
        if let Some(flow) = self.table.remove(place) {
            self.places.remove(&flow.ends);
        }
    }

    /// Sockets were made: what waited for one is sent.
    pub fn filled(&mut self, poll: &Poll, messages: &Icmp, now: Instant) {
        self.factory.seen();
        for (ends, to, bytes, segment) in std::mem::take(&mut self.waiting) {
            let datagram = Datagram { ends, bytes: &bytes, segment };
            if !self.known(datagram, now) {
                self.one(datagram, to, poll, messages, now);
            }
        }
    }

    /// Passes on what came to one socket of a flow.
    pub fn event(
        &mut self,
        token: Token,
        flags: EventFlags,
        batch: &mut Batch,
        messages: &Icmp,
        now: Instant,
    ) {
        let Some(flow) = self.table.get(token.place) else { return };
        if token.side == 1 && flags.contains(EventFlags::ERR) {
            while let Ok(error) = inet::error(&flow.far) {
                if let Some(reason) = icmp::reason_of(&error, flow.ends.1.is_ipv6()) {
                    // What is said of the address that was dialled is said of the one that was meant.
                    let offender = error.offender.filter(|offender| *offender != flow.to);
                    messages.undelivered(flow.ends, reason, offender.or(Some(flow.ends.1.ip())));
                }
            }
        }
        let (from, to) = if token.side == 0 { (&flow.near, &flow.far) } else { (&flow.far, &flow.near) };
        let arrived = batch.receive(from).is_ok();
        flow.used.note(arrived && token.side == 1, now);
        if arrived {
            batch.forward(to);
        }
    }

    /// Forgets flows from addresses that the container has no longer.
    pub fn cut(&mut self, lost: &[IpAddr]) {
        for place in self.table.places(|flow| lost.contains(&flow.ends.0.ip())) {
            self.close(place);
        }
    }

    /// Forgets flows that were idle for long.
    pub fn expire(&mut self, now: Instant) {
        for place in self.table.places(|flow| flow.used.is_over(now)) {
            self.close(place);
        }
    }
}
