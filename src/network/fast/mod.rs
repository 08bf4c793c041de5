//! `--network fast`: what a program connects by TCP becomes a socket of the host's network, and goes its way with
//! nobody between (docs/adr/0021). It is the network of a container's own otherwise; what is not replaced goes by
//! its relay.
//!
//! Asked at each connect(2), a process outside of the container decides by the same policy as the relay, dials with
//! its own copy of the address, and puts the socket in the place of the caller's. Who waits for the connection waits
//! in the kernel, who finds the socket on its way; so signals and time limits are the kernel's. Whatever is not to be
//! replaced, or cannot be, the kernel goes on with as if nobody had been asked. That is safe whatever the caller's
//! other threads do meanwhile, for nothing that was looked at is relied on: a socket of the container's own reaches
//! what the relay lets through, and one of the host's is nailed to its one peer by the kernel.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::plan::{NetworkPlan, Protocol};
use super::policy::{Decision, Policy};
use crate::seccomp::answer::Consumer;
use crate::seccomp::{Kernel, Told};
use crate::sys::notify::{self, Answer, Call, Listener};
use crate::sys::transplant::{self, Kind};
use crate::sys::{inet, landlock, namespace, socket};

/// The lengths of addresses (bytes) with which a connect(2) may be one of the Internet: `sockaddr_in`,
/// `sockaddr_in6`, `sockaddr_storage`. Those of Unix sockets are mostly others, and nobody is asked about them.
const LENGTHS: [u32; 3] = [16, 28, 128];

/// Of a process with more open files than this nothing is replaced: each of them has to be looked at, since it may
/// be a copy of the socket, or wait for it.
const DESCRIPTORS: usize = 256;

/// How long the container's namespace may be waited for.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// `MSG_FASTOPEN` of sendto(2): connects and sends.
const FAST_OPEN: u32 = 0x2000_0000;

/// The subcalls of socketcall(2) that send, whose flags no filter sees: `sendto`, `sendmsg`, `sendmmsg`.
const SENDING: [u32; 3] = [11, 16, 20];

/// So many calls may wait for connections that are made for them.
const WAITING: usize = 512;
/// Bytes of a thread's stack.
const STACK: usize = 64 * 1024;

/// What keeps a program from making something else of a socket of the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The socket is nailed to its peer.
    Nail,
    /// The program may connect no TCP socket; we do it for it. Newer kernels keep filters of TCP sockets for
    /// CAP_NET_ADMIN over their network, which ordinary users do not have over the host's.
    Rules,
}

impl Guard {
    /// What this kernel and user have.
    pub fn find() -> io::Result<Self> {
        let socket = inet::socket(false, SocketType::STREAM, None)?;
        // Without them our sockets would not be known again.
        transplant::net_cookie(&socket)?;
        match transplant::nail(&socket, SocketAddr::from(([127, 0, 0, 1], 9))) {
            Ok(()) => Ok(Self::Nail),
            Err(_) if landlock::rules_network() => Ok(Self::Rules),
            Err(error) => Err(error),
        }
    }

    /// About which calls the process wants to be asked.
    fn told(self) -> Vec<Told> {
        let bit = |name, index| Told { name, kernel: Kernel::Bits { index, mask: FAST_OPEN, value: 0 } };
        match self {
            Self::Nail => {
                vec![Told { name: "connect", kernel: Kernel::Unless { index: 2, values: LENGTHS } }]
            }
            Self::Rules => vec![
                Told::always("connect"),
                bit("sendto", 3),
                bit("sendmsg", 2),
                bit("sendmmsg", 3),
                Told { name: "socketcall", kernel: Kernel::Unless { index: 0, values: SENDING } },
                Told::always("io_uring_setup"),
            ],
        }
    }
}

/// What the process has to know of a container.
#[derive(Debug)]
pub struct Seat {
    policy: Policy,
    /// Where the container's network namespace comes from.
    source: OwnedFd,
}

impl Seat {
    /// The seat of a container with this network, and where its network namespace is to be sent once it is there.
    pub fn new(plan: &NetworkPlan) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socket::packet_pair()?;
        Ok((Self { policy: Policy::new(plan), source: theirs }, ours))
    }

    /// The number of the descriptor that has to stay open until [`Consumer::begin`].
    pub fn descriptor(&self) -> RawFd {
        self.source.as_raw_fd()
    }
}

/// Answers for one container. Without a seat it only tells what it would want to be asked about.
#[derive(Debug)]
pub struct Fast {
    guard: Guard,
    seat: Option<Seat>,
    place: Option<Place>,
}

/// What is known when calls come.
#[derive(Debug)]
struct Place {
    guard: Guard,
    policy: Policy,
    namespace: OwnedFd,
    /// The cookie of the container's network namespace, as soon as it is known.
    inside: Option<u64>,
    /// That of our own, the host's.
    outside: u64,
    /// How many calls wait.
    waiting: Arc<AtomicUsize>,
    untold: Arc<Untold>,
}

/// Sockets, by their inodes, whose callers have not been told yet what came of the first call: one that is interrupted
/// is made again, and is to be answered as if it were the first.
#[derive(Debug, Default)]
struct Untold(Mutex<HashSet<u64>>);

/// So many of those are remembered: some die before they are told.
const UNTOLD: usize = 4096;

impl Untold {
    fn lock(&self) -> MutexGuard<'_, HashSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, socket: &OwnedFd) -> io::Result<()> {
        let inode = transplant::inode(socket)?;
        let mut all = self.lock();
        if all.len() >= UNTOLD {
            all.clear();
        }
        all.insert(inode);
        Ok(())
    }

    fn say(&self, socket: &OwnedFd, answer: Answer, id: u64, listener: &Listener) -> io::Result<Outcome> {
        let inode = transplant::inode(socket)?;
        let answer = match (answer, self.lock().contains(&inode)) {
            (Answer::Error(libc::EISCONN), true) => Answer::Value(0),
            (Answer::Error(libc::EALREADY), true) => Answer::Error(libc::EINPROGRESS),
            (answer, _) => answer,
        };
        if listener.answer_waiting(id, answer)? {
            self.lock().remove(&inode);
        }
        Ok(None)
    }
}

impl Fast {
    /// For a container.
    pub fn new(seat: Option<Seat>) -> Self {
        // What cannot be had was refused before.
        Self { guard: Guard::find().unwrap_or(Guard::Rules), seat, place: None }
    }
}

impl Consumer for Fast {
    fn told(&self) -> Vec<Told> {
        self.guard.told()
    }

    fn begin(&mut self, _first: i32) -> io::Result<()> {
        let Some(Seat { policy, source }) = self.seat.take() else { return Ok(()) };
        let ready = poll(&mut [PollFd::new(&source, PollFlags::IN)], Some(&PATIENCE))?;
        let namespace = if ready > 0 { socket::receive(&source)?.1 } else { None };
        let namespace = namespace.ok_or(io::ErrorKind::TimedOut)?;
        let own = inet::socket(false, SocketType::STREAM, None)?;
        // Linux 5.14; without it our sockets would not be known again.
        let outside = transplant::net_cookie(&own)?;
        let waiting = Arc::new(AtomicUsize::new(0));
        self.place = Some(Place {
            guard: self.guard,
            policy,
            namespace,
            inside: None,
            outside,
            waiting,
            untold: Arc::default(),
        });
        Ok(())
    }

    fn answer(&mut self, name: &'static str, call: &Call, listener: &Arc<Listener>) -> Option<Answer> {
        match (name, &mut self.place) {
            // What cannot be looked at goes by the relay, or is refused by the rules.
            ("connect", Some(place)) => place.connect(call, listener).unwrap_or(GO_ON),
            ("connect", None) => GO_ON,
            // As if the kernel had not got that.
            ("io_uring_setup", _) => Some(Answer::Error(libc::ENOSYS)),
            ("socketcall", _) => Some(Answer::Error(libc::EACCES)),
            _ => Some(Answer::Error(libc::EOPNOTSUPP)),
        }
    }
}

/// An answer, or none if it will be given when it is known.
type Outcome = Option<Answer>;

const GO_ON: Outcome = Some(Answer::Continue);

impl Place {
    fn connect(&mut self, call: &Call, listener: &Arc<Listener>) -> io::Result<Outcome> {
        let [number, address, length, ..] = call.arguments;
        let number = number as RawFd;
        let mut bytes = [0; 28];
        let length = bytes.len().min(length as u32 as usize);
        notify::read_memory(call.pid, address, &mut bytes[..length])?;
        let Some(to) = inet::from_raw(&bytes[..length]) else { return Ok(GO_ON) };
        let holder = transplant::holder(call.pid)?;
        let old = transplant::take(&holder, number)?;
        if !is_tcp(&old, to)? {
            return Ok(GO_ON);
        }
        // What was found is the caller's own.
        if !listener.is_waiting(call.id) {
            return Ok(GO_ON);
        }
        let cookie = transplant::net_cookie(&old)?;
        let again = cookie == self.outside;
        // Of one that is connected, or about to be, the kernel knows what to say.
        if !transplant::is_closed(&old)? {
            return self.go_on(old, to, call, listener);
        }
        match (again, self.is_dialled(to)) {
            (true, true) => {}
            // It could reach nobody but its old peer.
            (true, false) => return Ok(Some(Answer::Error(libc::ENETUNREACH))),
            (false, true) if self.is_inside(cookie, &old) && !is_bound(&old)? => {}
            (false, _) => return self.go_on(old, to, call, listener),
        }
        let Some(known) = transplant::descriptors(call.pid, DESCRIPTORS)? else {
            // One of the host's was given to another place.
            let refused = Ok(Some(Answer::Error(libc::ENETUNREACH)));
            return if again { refused } else { self.go_on(old, to, call, listener) };
        };
        let v6 = to.is_ipv6();
        let new = inet::socket(v6, SocketType::STREAM, None)?;
        transplant::carry_options(&old, &new, v6);
        if self.guard == Guard::Nail {
            transplant::nail(&new, canonical(to))?;
        }
        let answer = match rustix::net::connect(&new, &to) {
            Ok(()) => Answer::Value(0),
            Err(Errno::INPROGRESS) => Answer::Error(libc::EINPROGRESS),
            // The caller's own socket is as it was.
            Err(error) => return Ok(Some(Answer::Error(error.raw_os_error()))),
        };
        let waits = waits(&old)?;
        if waits {
            rustix::io::ioctl_fionbio(&new, false)?;
        }
        let caller = Caller { call, listener, holder: &holder, known: &known };
        self.untold.begin(&new)?;
        caller.replace(number, transplant::inode(&old)?, &new)?;
        // Before there is an answer: as long as a copy is open, its entries in epoll instances tell of it.
        drop(old);
        // A socket on its way asks for no address: it is waited for, or told what became of it.
        if waits {
            self.go_on(new, to, call, listener)
        } else {
            self.untold.say(&new, answer, call.id, listener)
        }
    }

    /// Has the kernel go on with a call; where the caller may not make it, it is made for him.
    fn go_on(
        &self,
        socket: OwnedFd,
        to: SocketAddr,
        call: &Call,
        listener: &Arc<Listener>,
    ) -> io::Result<Outcome> {
        let connect = move |socket: &OwnedFd| match rustix::net::connect(socket, &to) {
            Ok(()) => Answer::Value(0),
            Err(error) => Answer::Error(error.raw_os_error()),
        };
        if self.guard == Guard::Nail {
            return Ok(GO_ON);
        }
        if transplant::is_closed(&socket)? {
            self.untold.begin(&socket)?;
        }
        if !waits(&socket)? {
            return self.untold.say(&socket, connect(&socket), call.id, listener);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Ok(Some(Answer::Error(libc::EAGAIN)));
        }
        let (listener, waiting, id) = (Arc::clone(listener), Arc::clone(&self.waiting), call.id);
        let untold = Arc::clone(&self.untold);
        let wait = move || {
            let _ = untold.say(&socket, connect(&socket), id, &listener);
            waiting.fetch_sub(1, Ordering::Relaxed);
        };
        std::thread::Builder::new().name("connect".into()).stack_size(STACK).spawn(wait)?;
        Ok(None)
    }

    /// Whether the host dials this very address. What stands for another one goes by the relay, which also knows
    /// what names have been answered with.
    fn is_dialled(&self, to: SocketAddr) -> bool {
        let to = canonical(to);
        !self.policy.has_names() && self.policy.decide(Protocol::Tcp, to) == Decision::Dial(to)
    }

    /// Whether a socket is of the container's own network namespace; a program in there may have made others, by
    /// which it keeps something from the network.
    fn is_inside(&mut self, cookie: u64, socket: &OwnedFd) -> bool {
        if self.inside.is_none() {
            let namespace = transplant::net_namespace(socket);
            let same = namespace.and_then(|namespace| namespace::is_same(namespace, &self.namespace));
            self.inside = same.unwrap_or(false).then_some(cookie);
        }
        self.inside == Some(cookie)
    }
}

/// Who asks.
struct Caller<'a> {
    call: &'a Call,
    listener: &'a Listener,
    holder: &'a OwnedFd,
    /// His sockets and epoll instances.
    known: &'a [(RawFd, Kind)],
}

impl Caller<'_> {
    /// Puts a socket in the place of the one with this inode, under all its numbers, and enters it where that one
    /// was waited for.
    fn replace(&self, number: RawFd, inode: u64, new: &OwnedFd) -> io::Result<()> {
        let copies =
            self.known.iter().filter(|(_, kind)| *kind == Kind::Socket(inode)).map(|(copy, _)| *copy);
        let mut numbers: Vec<RawFd> = copies.filter(|copy| *copy != number).collect();
        numbers.push(number);
        for (epoll, _) in self.known.iter().filter(|(_, kind)| *kind == Kind::Epoll) {
            for number in &numbers {
                let entry = transplant::registration(self.call.pid, *epoll, *number, inode)?;
                if let Some((events, data)) = entry {
                    let epoll = transplant::take(self.holder, *epoll)?;
                    transplant::register(&epoll, new, *number, events, data)?;
                }
            }
        }
        for number in numbers {
            let cloexec = transplant::is_cloexec(self.call.pid, number)?;
            self.listener.add_fd(self.call.id, new.as_fd(), Some(number), cloexec)?;
        }
        Ok(())
    }
}

/// The same address without a veil: one of IPv4 is dialled by a socket of IPv6, too.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether a socket is one of TCP that can be connected to the address.
fn is_tcp(socket: &OwnedFd, to: SocketAddr) -> io::Result<bool> {
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    Ok(sockopt::socket_domain(socket)? == family
        && sockopt::socket_type(socket)? == SocketType::STREAM
        && sockopt::socket_protocol(socket)? == Some(rustix::net::ipproto::TCP))
}

/// Whether who uses a socket waits for what it does.
fn waits(socket: &OwnedFd) -> io::Result<bool> {
    Ok(!rustix::fs::fcntl_getfl(socket)?.contains(OFlags::NONBLOCK))
}

/// Whether a socket has got an address or a port by bind(2), of the container's.
fn is_bound(socket: &OwnedFd) -> io::Result<bool> {
    let own = SocketAddr::try_from(rustix::net::getsockname(socket)?)?;
    Ok(own.port() != 0 || !own.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_host_dials_as_it_is_is_replaced() {
        use crate::network::plan::{EgressRule, Interface, Network, Target};
        let eth0 = Interface {
            name: "eth0".into(),
            network: Network::Private,
            addresses: vec![("10.0.2.100".parse().unwrap(), 24)],
            gateways: vec!["10.0.2.2".parse().unwrap()],
            routed: vec![true],
            mac: None,
            mtu: None,
        };
        let mut plan = NetworkPlan { interfaces: vec![eth0], ..NetworkPlan::default() };
        let loopback = ("10.0.2.2".parse().unwrap(), "127.0.0.1".parse().unwrap());
        let place = |plan: &NetworkPlan| Place {
            policy: Policy::new(plan),
            namespace: std::fs::File::open("/dev/null").unwrap().into(),
            guard: Guard::Nail,
            inside: None,
            outside: 0,
            waiting: Arc::default(),
            untold: Arc::default(),
        };
        let open = place(&plan);
        let dialled = |place: &Place, to: &str| place.is_dialled(to.parse().unwrap());
        assert!(dialled(&open, "192.0.2.1:80") && dialled(&open, "[::ffff:192.0.2.1]:80"));
        for to in [
            "127.0.0.1:80",
            "[::ffff:127.0.0.1]:80",
            "[::1]:80",
            "0.0.0.0:80",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "10.0.2.100:80",
            "10.0.2.2:80",
        ] {
            assert!(!dialled(&open, to), "{to}");
        }
        plan.policy.aliases = vec![loopback];
        assert!(!dialled(&place(&plan), "10.0.2.2:80"));
        let rule = |allow, target| EgressRule { allow, target, port: None };
        plan.policy.egress = vec![rule(false, Target::Subnet("192.0.2.0".parse().unwrap(), 24))];
        let ruled = place(&plan);
        assert!(!dialled(&ruled, "192.0.2.1:80") && !dialled(&ruled, "[::ffff:192.0.2.1]:80"));
        assert!(dialled(&ruled, "198.51.100.1:80"));
        // What a name means only the relay knows.
        plan.policy.egress.push(rule(false, Target::Name("example.org".into())));
        assert!(!dialled(&place(&plan), "198.51.100.1:80"));
    }
}
