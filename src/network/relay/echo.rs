//! ICMP of the container: its echo requests go out by the host's ping sockets (icmp(7), `ping_group_range`),
//! and it is told what became of its datagrams.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{Protocol, RawProtocol, SocketType};

use super::icmp::{self, Echo, Reason};
use super::log::Log;
use super::poll::{Place, Poll, Table, Token};
use super::udp::Ends;
use crate::network::plan::NetworkPlan;
use crate::network::policy::{Decision, Policy, Refusal};
use crate::sys::inet::{self, Batch};

/// Who does not ask for this time is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// Who asks whom: so many at most.
const ASKED: usize = 512;

/// The source, its identifier, the destination.
type Key = (IpAddr, u16, IpAddr);

struct Asked {
    key: Key,
    /// A ping socket of the host that is connected to the destination.
    socket: OwnedFd,
    sequence: u16,
    last: Instant,
}

/// The raw sockets of the router, of IPv4 and IPv6, and who asks.
pub struct Icmp {
    kind: u8,
    raw: [Option<OwnedFd>; 2],
    /// Addresses that are ours: the router's and the name server's.
    own: Vec<IpAddr>,
    gateways: Vec<IpAddr>,
    table: Table<Asked>,
    places: HashMap<Key, Place>,
}

fn protocol(v6: bool) -> Option<Protocol> {
    RawProtocol::new(u32::from(icmp::protocol(v6))).map(Protocol::from_raw)
}

/// Opens what receives echo requests and sends messages from any address, in the router.
pub fn raw(v6: bool) -> io::Result<OwnedFd> {
    let socket = inet::socket(v6, SocketType::RAW, protocol(v6))?;
    inet::only_echo_requests(&socket, v6)?;
    inet::set_transparent(&socket, v6)?;
    inet::tell_destination(&socket, v6)?;
    Ok(socket)
}

impl Icmp {
    /// Nobody asks yet; the tokens of ping sockets will be of this kind.
    pub fn new(plan: &NetworkPlan, raw: [Option<OwnedFd>; 2], kind: u8) -> Self {
        let (own, gateways) = (Vec::new(), Vec::new());
        let mut icmp = Self { kind, raw, own, gateways, table: Table::default(), places: HashMap::new() };
        icmp.rewire(plan);
        icmp
    }

    /// Answers for another plan.
    pub fn rewire(&mut self, plan: &NetworkPlan) {
        self.gateways =
            plan.interfaces.iter().flat_map(|interface| interface.gateways.iter().copied()).collect();
        let servers = plan.dns.iter().flat_map(|dns| dns.addresses.iter().copied());
        self.own = self.gateways.iter().copied().chain(servers).collect();
    }

    /// Whether anybody asks.
    pub fn any(&self) -> bool {
        self.table.len() > 0
    }

    /// The container asks.
    pub fn requests(
        &mut self,
        v6: bool,
        batch: &mut Batch,
        poll: &Poll,
        policy: &Policy,
        log: &mut Log,
        now: Instant,
    ) {
        let Some(raw) = &self.raw[usize::from(v6)] else { return };
        if batch.receive(raw).is_err() {
            return;
        }
        for (bytes, about) in batch.datagrams() {
            let found = if v6 {
                let ends = about.from.zip(about.to);
                ends.zip(icmp::request_v6(bytes)).map(|((from, to), echo)| (from.ip(), to.ip(), echo))
            } else {
                icmp::request_v4(bytes)
            };
            if let Some((from, to, echo)) = found {
                let mut decide = || {
                    let decision = policy.decide_echo(to);
                    if let Decision::Refuse(refusal) = decision {
                        log.refused("icmp", SocketAddr::new(to, 0), refusal, now);
                    }
                    decision
                };
                self.request(from, to, &echo, poll, &mut decide, now);
            }
        }
    }

    fn request(
        &mut self,
        from: IpAddr,
        to: IpAddr,
        echo: &Echo<'_>,
        poll: &Poll,
        decide: &mut dyn FnMut() -> Decision,
        now: Instant,
    ) {
        let v6 = to.is_ipv6();
        if self.own.contains(&to) {
            return self.send(from, to, &icmp::echo_message(echo, true, v6));
        }
        let key = (from, echo.id, to);
        let place = match self.places.get(&key) {
            Some(place) => Ok(*place),
            None => match decide() {
                Decision::Dial(address) => self.open(key, address.ip(), poll, now),
                Decision::Local(_) => return,
                Decision::Refuse(refusal) => {
                    let start = icmp::echo_header(echo.id, echo.sequence, v6);
                    return self.tell(reason_of_refusal(refusal), from, to, icmp::protocol(v6), start, None);
                }
            },
        };
        let sent = place.and_then(|place| {
            let asked = self.table.get(place).ok_or(io::ErrorKind::NotFound)?;
            asked.last = now;
            asked.sequence = echo.sequence;
            inet::send(&asked.socket, &icmp::echo_message(echo, false, v6), None, None, None)
        });
        if let Some(reason) = sent.err().and_then(|error| icmp::reason_of_errno(error.raw_os_error()?)) {
            let start = icmp::echo_header(echo.id, echo.sequence, v6);
            self.tell(reason, from, to, icmp::protocol(v6), start, None);
        }
    }

    fn open(&mut self, key: Key, to: IpAddr, poll: &Poll, now: Instant) -> io::Result<Place> {
        if self.table.len() >= ASKED {
            self.expire(now);
        }
        if self.table.len() >= ASKED {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let socket = inet::socket(to.is_ipv6(), SocketType::DGRAM, protocol(to.is_ipv6()))?;
        inet::keep_errors(&socket, to.is_ipv6())?;
        rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
        let place = self.table.insert(Asked { key, socket, sequence: 0, last: now });
        let asked = self.table.get(place).expect("just put there");
        if let Err(error) = poll.add(&asked.socket, Token { kind: self.kind, side: 0, place }, EventFlags::IN)
        {
            self.table.remove(place);
            return Err(error);
        }
        self.places.insert(key, place);
        Ok(place)
    }

    /// Somebody replied, or the network reported an error.
    pub fn replies(&mut self, token: Token, flags: EventFlags, batch: &mut Batch) {
        let Some(asked) = self.table.get(token.place) else { return };
        let ((from, id, to), sequence) = (asked.key, asked.sequence);
        let v6 = to.is_ipv6();
        let mut messages = Vec::new();
        if flags.contains(EventFlags::ERR) {
            let mut told = None;
            while let Ok(error) = inet::error(&asked.socket) {
                told = Some(error);
            }
            if let Some(error) = told
                && let Some(reason) = icmp::reason_of(&error, v6)
            {
                let start = icmp::echo_header(id, sequence, v6);
                self.tell(reason, from, to, icmp::protocol(v6), start, error.offender);
            }
            return;
        }
        if batch.receive(&asked.socket).is_ok() {
            for (bytes, _) in batch.datagrams() {
                let reply = icmp::reply(bytes, v6).map(|echo| Echo { id, ..echo });
                messages.extend(reply.map(|echo| icmp::echo_message(&echo, true, v6)));
            }
        }
        for message in messages {
            self.send(from, to, &message);
        }
    }

    /// Forgets who has not asked for long.
    pub fn expire(&mut self, now: Instant) {
        for place in self.table.places(|asked| now.duration_since(asked.last) > IDLE) {
            if let Some(asked) = self.table.remove(place) {
                self.places.remove(&asked.key);
            }
        }
    }

    /// Tells the container why a datagram was not delivered.
    pub fn undelivered(&self, ends: Ends, reason: Reason, offender: Option<IpAddr>) {
        let start = icmp::udp_header(ends.0, ends.1);
        self.tell(reason, ends.0.ip(), ends.1.ip(), icmp::UDP, start, offender);
    }

    fn tell(
        &self,
        reason: Reason,
        from: IpAddr,
        to: IpAddr,
        protocol: u8,
        start: [u8; 8],
        offender: Option<IpAddr>,
    ) {
        let of_family = |ip: &IpAddr| ip.is_ipv6() == to.is_ipv6();
        let closed = matches!(reason, Reason::Port);
        let gateway = || self.gateways.iter().copied().find(of_family).filter(|_| !closed);
        let teller = offender.filter(of_family).or_else(gateway).unwrap_or(to);
        self.send(from, teller, &icmp::error_message(reason, from, to, protocol, start));
    }

    /// Sends to the container, as if from an address.
    fn send(&self, container: IpAddr, from: IpAddr, message: &[u8]) {
        if let Some(raw) = &self.raw[usize::from(container.is_ipv6())] {
            // As lost as any packet may be.
            let _ = inet::send(raw, message, Some(SocketAddr::new(container, 0)), Some(from), None);
        }
    }
}

/// What the container is told of a refusal.
pub fn reason_of_refusal(refusal: Refusal) -> Reason {
    match refusal {
        Refusal::Prohibited => Reason::Prohibited,
        Refusal::Unreachable => Reason::Host,
        Refusal::Closed => Reason::Port,
    }
}
