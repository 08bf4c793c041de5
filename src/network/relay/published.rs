//! Who comes to published ports, seen from the router: a connection to the container from the client's own
//! address, which the router's sockets may have though it is not the router's.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{SocketFlags, SocketType, sockopt};

use super::factory::transparent_udp;
use super::host::Listener;
use super::idle::{self, Use};
use super::pair::reset_when_closed;
use super::pairs::Pairs;
use super::poll::{Place, Poll, Table, Token};
use super::{Limits, tcp};
use crate::base::address::Subnet;
use crate::network::plan::{Network, NetworkPlan, Protocol};
use crate::sys::inet::{self, Batch};

/// What is accepted before others have their turn.
const ACCEPTED: usize = 64;

/// The container's side of published ports.
struct Target {
    addresses: [Option<IpAddr>; 2],
    subnets: Vec<Subnet>,
}

impl Target {
    fn new(plan: &NetworkPlan) -> Self {
        let internal = |network: &Network| matches!(network, Network::Shared(shared) if shared.internal);
        let mut addresses = [None; 2];
        let mut subnets = Vec::new();
        for interface in plan.interfaces.iter().filter(|interface| !internal(&interface.network)) {
            for (address, prefix) in &interface.addresses {
                addresses[usize::from(address.is_ipv6())].get_or_insert(*address);
                subnets.extend(Subnet::of(*address, *prefix));
            }
        }
        Self { addresses, subnets }
    }

    /// Where a client is connected to, and the address that it has there; the router's own one if none.
    fn of(&self, client: SocketAddr, port: u16) -> Option<(SocketAddr, Option<SocketAddr>)> {
        let [same, other] = if client.is_ipv6() { [1, 0] } else { [0, 1] };
        let address = self.addresses[same].or(self.addresses[other])?;
        let ip = client.ip();
        let keeps = address.is_ipv6() == ip.is_ipv6()
            && !ip.is_loopback()
            && !ip.is_unspecified()
            && !is_link_local(ip)
            && !self.subnets.iter().any(|subnet| subnet.contains(ip));
        Some((SocketAddr::new(address, port), keeps.then_some(client)))
    }
}

/// Such an address means another machine on each link.
fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// A client that waits for the container.
struct Connecting {
    client: OwnedFd,
    near: OwnedFd,
}

struct Flow {
    key: Key,
    /// In the router: bound to the client's address, connected to the container.
    near: OwnedFd,
    used: Use,
}

/// The listener, the client, the address that it came to.
type Key = (usize, SocketAddr, Option<IpAddr>);

/// The published ports.
pub struct Ports {
    kinds: [u8; 3],
    target: Target,
    listeners: Vec<Listener>,
    connecting: Table<Connecting>,
    flows: Table<Flow>,
    places: HashMap<Key, Place>,
    limits: Limits,
}

impl Ports {
    /// Without ports yet; the tokens of listeners, connections that are being made and flows will be of these
    /// kinds. There will be at most so much.
    pub fn new(plan: &NetworkPlan, kinds: [u8; 3], limits: Limits) -> Self {
        Self {
            kinds,
            target: Target::new(plan),
            listeners: Vec::new(),
            connecting: Table::default(),
            flows: Table::default(),
            places: HashMap::new(),
            limits,
        }
    }

    /// Serves one more port.
    pub fn add(&mut self, listener: Listener, poll: &Poll) -> io::Result<()> {
        let token = Token::numbered(self.kinds[0], self.listeners.len());
        poll.add(&listener.socket, token, EventFlags::IN)?;
        self.listeners.push(listener);
        Ok(())
    }

    /// The container has other addresses; who is connected to one that it has no longer finds that out.
    pub fn rewire(&mut self, plan: &NetworkPlan) {
        self.target = Target::new(plan);
        for place in self.flows.places(|_| true) {
            // They go on from the next datagram, to where the container is now.
            if let Some(flow) = self.flows.remove(place) {
                self.places.remove(&flow.key);
            }
        }
    }

    /// Whether there are flows, which have to be looked at for their age.
    pub fn any_flows(&self) -> bool {
        self.flows.len() > 0
    }

    /// Somebody comes to a port.
    pub fn arrival(&mut self, token: Token, poll: &Poll, pairs: &mut Pairs, batch: &mut Batch, now: Instant) {
        let at = token.place.number();
        match self.listeners.get(at).map(|listener| listener.protocol) {
            Some(Protocol::Tcp) => self.accept(at, poll, pairs),
            Some(Protocol::Udp) => self.datagrams(at, poll, batch, now),
            None => {}
        }
    }

    fn accept(&mut self, at: usize, poll: &Poll, pairs: &mut Pairs) {
        for _ in 0..ACCEPTED {
            let listener = &self.listeners[at];
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let (client, from) = match rustix::net::acceptfrom_with(&listener.socket, flags) {
                Ok((client, Some(from))) => (client, from),
                Ok((_, None)) | Err(Errno::CONNABORTED | Errno::INTR) => continue,
                Err(_) => return,
            };
            if self.connecting.len() + pairs.len() >= self.limits.connections {
                super::turn_away();
                reset_when_closed(client);
                continue;
            }
            let target = SocketAddr::try_from(from).ok().and_then(|from| self.target.of(from, listener.port));
            match target.map(|(to, from)| connect(to, from)) {
                Some(Ok((near, true))) => {
                    // What cannot be waited for was reset.
                    let _ = pairs.add(poll, [near, client], false);
                }
                Some(Ok((near, false))) => {
                    let place = self.connecting.insert(Connecting { client, near });
                    let connecting = self.connecting.get(place).expect("just put there");
                    let token = Token { kind: self.kinds[1], side: 0, place };
                    if poll.add(&connecting.near, token, EventFlags::OUT | EventFlags::ET).is_err() {
                        self.refuse(place);
                    }
                }
                Some(Err(_)) | None => reset_when_closed(client),
            }
        }
    }

    /// The container has answered, or refused.
    pub fn connected(&mut self, token: Token, poll: &Poll, pairs: &mut Pairs) {
        let Some(connecting) = self.connecting.get(token.place) else { return };
        if !matches!(sockopt::socket_error(&connecting.near), Ok(Ok(()))) {
            return self.refuse(token.place);
        }
        if let Some(Connecting { client, near }) = self.connecting.remove(token.place) {
            // What cannot be waited for was reset. The container's side is the second: it is waited for already.
            let _ = pairs.add(poll, [client, near], true);
        }
    }

    fn refuse(&mut self, place: Place) {
        if let Some(connecting) = self.connecting.remove(place) {
            reset_when_closed(connecting.client);
        }
    }

    fn datagrams(&mut self, at: usize, poll: &Poll, batch: &mut Batch, now: Instant) {
        if batch.receive(&self.listeners[at].socket).is_err() {
            return;
        }
        for (bytes, about) in batch.datagrams() {
            let Some(from) = about.from else { continue };
            let key = (at, from, about.to.map(|to| to.ip()));
            let place = match self.places.get(&key) {
                Some(place) => *place,
                None => match self.open(key, poll, now) {
                    Some(place) => place,
                    None => continue,
                },
            };
            if let Some(flow) = self.flows.get(place) {
                flow.used.note(false, now);
                // What is not taken is lost.
                let _ = inet::send(&flow.near, bytes, None, None, about.segment);
            }
        }
    }

    fn open(&mut self, key: Key, poll: &Poll, now: Instant) -> Option<Place> {
        if self.flows.len() >= self.limits.flows {
            self.expire(now);
        }
        if self.flows.len() >= self.limits.flows {
            self.forget(idle::spared(&self.flows, |flow| flow.used));
        }
        let (to, from) = self.target.of(key.1, self.listeners[key.0].port)?;
        let near = flow_socket(to, from).ok()?;
        let place = self.flows.insert(Flow { key, near, used: Use::new(now) });
        let flow = self.flows.get(place).expect("just put there");
        if poll.add(&flow.near, Token { kind: self.kinds[2], side: 0, place }, EventFlags::IN).is_err() {
            self.flows.remove(place);
            return None;
        }
        self.places.insert(key, place);
        Some(place)
    }

    /// Passes on what the container answered.
    pub fn answer(&mut self, token: Token, batch: &mut Batch, now: Instant) {
        let Some(flow) = self.flows.get(token.place) else { return };
        // An error is that nobody listens in the container.
        if batch.receive(&flow.near).is_err() {
            return;
        }
        flow.used.note(true, now);
        let (at, to, from) = flow.key;
        for (bytes, about) in batch.datagrams() {
            let _ = inet::send(&self.listeners[at].socket, bytes, Some(to), from, about.segment);
        }
    }

    /// Forgets flows that were idle for long.
    pub fn expire(&mut self, now: Instant) {
        self.forget(self.flows.places(|flow| flow.used.is_over(now)));
    }

    fn forget(&mut self, places: Vec<Place>) {
        for place in places {
            if let Some(flow) = self.flows.remove(place) {
                self.places.remove(&flow.key);
            }
        }
    }
}

/// Connects to the container from an address, if the socket can have it: the client's port may be in use for
/// another connection to the same port. Returns whether it is connected already.
fn connect(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<(OwnedFd, bool)> {
    let begin = |from: Option<SocketAddr>| {
        let socket = inet::socket(to.is_ipv6(), SocketType::STREAM, None)?;
        tcp::set_options(&socket)?;
        if let Some(from) = from {
            inet::set_transparent(&socket, from.is_ipv6())?;
            sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &from)?;
        }
        match rustix::net::connect(&socket, &to) {
            Ok(()) => Ok((socket, true)),
            Err(Errno::INPROGRESS) => Ok((socket, false)),
            Err(error) => Err(io::Error::from(error)),
        }
    };
    match begin(from) {
        Err(error)
            if from.is_some()
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EADDRINUSE | libc::EADDRNOTAVAIL | libc::EACCES)
                ) =>
        {
            begin(None)
        }
        other => other,
    }
}

fn flow_socket(to: SocketAddr, from: Option<SocketAddr>) -> io::Result<OwnedFd> {
    let socket = transparent_udp(to.is_ipv6())?;
    if let Some(from) = from {
        rustix::net::bind(&socket, &from)?;
    }
    rustix::net::connect(&socket, &to)?;
    // An old kernel receives one by one.
    let _ = inet::receive_runs(&socket);
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plan::Interface;

    fn target(addresses: &[(&str, u8)]) -> Target {
        let addresses = addresses.iter().map(|(ip, prefix)| (ip.parse().unwrap(), *prefix)).collect();
        let interface = Interface {
            name: "eth0".into(),
            network: Network::Private,
            addresses,
            gateways: Vec::new(),
            routed: Vec::new(),
            mac: None,
            mtu: None,
        };
        Target::new(&NetworkPlan { interfaces: vec![interface], ..NetworkPlan::default() })
    }

    #[test]
    fn clients_keep_their_address_where_it_means_the_same_to_the_container() {
        let both = target(&[("10.0.2.100", 24), ("fd00::100", 64)]);
        let of = |target: &Target, client: &str| {
            let (to, from) = target.of(client.parse().unwrap(), 80).unwrap();
            (to.to_string(), from.map(|from| from.to_string()))
        };
        let v4 = "10.0.2.100:80".to_owned();
        let v6 = "[fd00::100]:80".to_owned();
        assert_eq!(of(&both, "192.0.2.1:5"), (v4.clone(), Some("192.0.2.1:5".into())));
        assert_eq!(of(&both, "[2001:db8::1]:5"), (v6.clone(), Some("[2001:db8::1]:5".into())));
        for client in ["127.0.0.1:5", "169.254.1.1:5", "10.0.2.7:5", "10.0.2.100:5"] {
            assert_eq!(of(&both, client), (v4.clone(), None));
        }
        for client in ["[::1]:5", "[fe80::1]:5", "[fd00::7]:5"] {
            assert_eq!(of(&both, client), (v6.clone(), None));
        }
        let one = target(&[("10.0.2.100", 24)]);
        assert_eq!(of(&one, "[2001:db8::1]:5"), (v4, None));
        assert!(target(&[]).of("192.0.2.1:5".parse().unwrap(), 80).is_none());
    }
}
