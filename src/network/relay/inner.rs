//! The thread in the router's network namespace: it opens what the other one serves there, and serves the
//! connections that come to published ports wholly.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;
use rustix::net::{SocketType, sockopt};

use super::Error;
use super::factory::{Factory, transparent_udp};
use super::frames::Lane;
use super::host::{Listener, no_family};
use super::pairs::Pairs;
use super::poll::{Poll, Token};
use super::published::Ports;
use super::queue::Queue;
use super::tcp::Hold;
use super::{echo, limits, tcp};
use crate::network::ids::RelayIds;
use crate::network::plan::NetworkPlan;
use crate::network::policy::DNS_PORT;
use crate::sys::inet::{self, Batch};

const WANTED: u8 = 0;
const PORT: u8 = 1;
const CONNECTING: u8 = 2;
const FLOW: u8 = 3;
const PAIR: u8 = 4;

/// How often flows are looked at for their age, if there are any.
const SWEEP: Duration = Duration::from_secs(10);

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;

/// The sockets of the router that the outer thread serves; of each two, the first is of IPv4.
pub struct Outbound {
    pub(super) listeners: [Option<OwnedFd>; 2],
    pub(super) datagrams: [Option<OwnedFd>; 2],
    pub(super) hold: Option<Hold>,
    pub(super) factory: Arc<Factory>,
    /// What the name server answers from, with its addresses.
    pub(super) replies: Vec<Reply>,
    pub(super) raw: [Option<OwnedFd>; 2],
    pub(super) tell: mpsc::Sender<News>,
}

/// What the inner thread is told.
pub(super) enum News {
    /// Ports to be served.
    Published(Vec<Listener>),
    /// The container has other addresses, and no longer these.
    Rewired(Box<NetworkPlan>, Vec<IpAddr>),
}

/// A socket of the router that the name server answers from, with its address.
pub type Reply = (SocketAddr, OwnedFd);

impl Outbound {
    /// Hands published ports to the inner thread.
    pub(super) fn publish(&self, listeners: Vec<Listener>) {
        // Nobody takes them if the thread has ended, and the process with it.
        if !listeners.is_empty() && self.tell.send(News::Published(listeners)).is_ok() {
            self.factory.want();
        }
    }
}

/// What the inner thread serves.
pub struct Inner {
    poll: Poll,
    factory: Arc<Factory>,
    news: mpsc::Receiver<News>,
    ports: Ports,
    pairs: Pairs,
    batch: Batch,
}

/// A socket of a family, or none where the kernel has the family not.
fn of_family(opened: io::Result<OwnedFd>) -> Result<Option<OwnedFd>, Error> {
    match opened {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if no_family(&error) => Ok(None),
        Err(error) => Err(Error::Router(error)),
    }
}

fn any(v6: bool, port: u16) -> SocketAddr {
    let ip: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    SocketAddr::new(ip, port)
}

/// A listener for connections of one port to all addresses, in the network namespace of the calling thread.
pub(super) fn listener(v6: bool, port: u16) -> io::Result<OwnedFd> {
    let socket = inet::socket(v6, SocketType::STREAM, None)?;
    inet::set_transparent(&socket, v6)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if v6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    tcp::set_options(&socket)?;
    rustix::net::bind(&socket, &any(v6, port))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn datagrams(v6: bool, port: u16) -> io::Result<OwnedFd> {
    let socket = transparent_udp(v6)?;
    inet::tell_original_destination(&socket, v6)?;
    rustix::net::bind(&socket, &any(v6, port))?;
    Ok(socket)
}

/// Opens what the name server of a plan answers from, in the network namespace of the calling thread.
pub fn replies(plan: &NetworkPlan) -> Result<Vec<Reply>, Error> {
    let mut replies = Vec::new();
    for address in plan.dns.iter().flat_map(|dns| &dns.addresses) {
        let address = SocketAddr::new(*address, DNS_PORT);
        let bound = transparent_udp(address.is_ipv6()).and_then(|socket| {
            rustix::net::bind(&socket, &address)?;
            Ok(socket)
        });
        replies.extend(of_family(bound)?.map(|socket| (address, socket)));
    }
    Ok(replies)
}

impl Inner {
    /// Opens in the network namespace of the calling thread, a router, what its rules hand packets to. Needs
    /// CAP_NET_ADMIN over it, and CAP_NET_BIND_SERVICE for ports below 1024. What comes by a `lane` is not
    /// handed over by rules.
    pub fn open(ids: RelayIds, plan: &NetworkPlan, lane: Option<Lane>) -> Result<(Self, Outbound), Error> {
        let pair = |open: fn(bool, u16) -> io::Result<OwnedFd>| match &lane {
            None => Ok([of_family(open(false, ids.port))?, of_family(open(true, ids.port))?]),
            Some(_) => Ok([None, None]),
        };
        let (listeners, datagrams) = (pair(listener)?, pair(datagrams)?);
        let hold = match lane {
            Some(lane) => Some(Hold::Carrier(lane)),
            None => ids
                .queue
                .map(|number| Queue::open(number).map(Hold::Queue))
                .transpose()
                .map_err(Error::Queue)?,
        };
        let factory = Arc::new(Factory::new().map_err(Error::Router)?);
        let (tell, news) = mpsc::channel();
        let outbound = Outbound {
            listeners,
            datagrams,
            hold,
            factory: Arc::clone(&factory),
            replies: replies(plan)?,
            raw: [of_family(echo::raw(false))?, of_family(echo::raw(true))?],
            tell,
        };
        let poll = Poll::new().map_err(Error::Poll)?;
        poll.add(factory.wanted(), Token::single(WANTED), EventFlags::IN).map_err(Error::Poll)?;
        let inner = Self {
            poll,
            factory,
            news,
            ports: Ports::new(plan, [PORT, CONNECTING, FLOW], limits(plan)),
            pairs: Pairs::new(PAIR),
            batch: Batch::default(),
        };
        Ok((inner, outbound))
    }

    /// Serves for as long as the process lives; the calling thread is the one that opened it.
    pub fn run(mut self) -> Result<(), Error> {
        let mut events = Vec::new();
        let mut more = false;
        let mut swept = Instant::now();
        loop {
            let timeout = if more { Some(Duration::ZERO) } else { self.ports.any_flows().then_some(SWEEP) };
            let waited = match timeout {
                Some(Duration::ZERO) => self.poll.wait(timeout, &mut events),
                _ if self.pairs.busy() => self.poll.wait(timeout, &mut events),
                _ => self.poll.wait_eagerly(timeout, &mut events, || {}),
            };
            waited.map_err(Error::Poll)?;
            let now = Instant::now();
            let Self { poll, factory, news, ports, pairs, batch } = &mut self;
            for (token, flags) in &events {
                match token.kind {
                    PAIR => pairs.event(*token, *flags),
                    PORT => ports.arrival(*token, poll, pairs, batch, now),
                    CONNECTING => ports.connected(*token, poll, pairs),
                    FLOW => ports.answer(*token, batch, now),
                    _ => {
                        factory.make();
                        for news in news.try_iter() {
                            match news {
                                News::Published(list) => {
                                    for listener in list {
                                        ports.add(listener, poll).map_err(Error::Poll)?;
                                    }
                                }
                                News::Rewired(plan, lost) => {
                                    ports.rewire(&plan);
                                    pairs.cut(&lost);
                                }
                            }
                        }
                    }
                }
            }
            more = pairs.turn(poll);
            if now.duration_since(swept) >= SWEEP {
                swept = now;
                ports.expire(now);
            }
        }
    }
}
