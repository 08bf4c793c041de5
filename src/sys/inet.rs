//! Sockets of the Internet families (ip(7), ipv6(7), udp(7), tcp(7)): transparent ones, datagrams in batches
//! with the addresses that they were sent to, errors that the network reported. All sockets are non-blocking.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};

use super::sockopt::set;

/// How many datagrams are received by one call at most.
pub const BATCH: usize = 16;
/// The longest datagram, and the longest run of datagrams that the kernel puts together (bytes).
const LONGEST: usize = 65536;
const CONTROL: usize = 32;
/// `UDP_SEGMENT` and `UDP_GRO` (udp(7)).
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;

/// Makes a socket, non-blocking and close-on-exec.
pub fn socket(v6: bool, kind: SocketType, protocol: Option<Protocol>) -> io::Result<OwnedFd> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    Ok(rustix::net::socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, protocol)?)
}

/// Switches an option on that IPv4 and IPv6 have under numbers of their own.
fn switch_on(fd: impl AsFd, v6: bool, ip: libc::c_int, ipv6: libc::c_int) -> io::Result<()> {
    let (level, option) = if v6 { (libc::SOL_IPV6, ipv6) } else { (libc::SOL_IP, ip) };
    set(fd, level, option, 1)
}

/// Lets a socket have addresses that are not this host's (`IP_TRANSPARENT`): needs CAP_NET_ADMIN or CAP_NET_RAW
/// over its network namespace.
pub fn set_transparent(fd: impl AsFd, v6: bool) -> io::Result<()> {
    switch_on(fd, v6, libc::IP_TRANSPARENT, libc::IPV6_TRANSPARENT)
}

/// Has each datagram tell where it was sent to before it was handed over (`IP_RECVORIGDSTADDR`).
pub fn tell_original_destination(fd: impl AsFd, v6: bool) -> io::Result<()> {
    switch_on(fd, v6, libc::IP_RECVORIGDSTADDR, libc::IPV6_RECVORIGDSTADDR)
}

/// Has each datagram tell the local address that it came to (`IP_PKTINFO`).
pub fn tell_destination(fd: impl AsFd, v6: bool) -> io::Result<()> {
    switch_on(fd, v6, libc::IP_PKTINFO, libc::IPV6_RECVPKTINFO)
}

/// Keeps the errors that the network reports for [`error`] (`IP_RECVERR`).
pub fn keep_errors(fd: impl AsFd, v6: bool) -> io::Result<()> {
    switch_on(fd, v6, libc::IP_RECVERR, libc::IPV6_RECVERR)
}

/// Lets datagrams of one sender be received together (`UDP_GRO`).
pub fn receive_runs(fd: impl AsFd) -> io::Result<()> {
    set(fd, libc::SOL_UDP, UDP_GRO, 1)
}

/// Has a raw socket of ICMP receive echo requests alone (`ICMP_FILTER`, `ICMP6_FILTER`).
pub fn only_echo_requests(fd: impl AsFd, v6: bool) -> io::Result<()> {
    const ICMP_FILTER: libc::c_int = 1;
    if v6 {
        // A bit is set for every type that is kept away.
        let mut filter = [u32::MAX; 8];
        filter[128 / 32] &= !1;
        set(fd, libc::IPPROTO_ICMPV6, ICMP_FILTER, filter)
    } else {
        set(fd, libc::SOL_RAW, ICMP_FILTER, !(1_u32 << 8))
    }
}

fn to_raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: an all-zero sockaddr_storage is valid.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than any address and aligned for it.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

/// An address out of the bytes of a `sockaddr`; none if it is of another family or too short.
pub fn from_raw(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(*bytes.first_chunk()?);
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match i32::from(family) {
        libc::AF_INET => {
            let ip: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some(SocketAddrV4::new(ip.into(), port).into())
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(ip.into(), port, 0, scope).into())
        }
        _ => None,
    }
}

/// A parameter beside the data of a message (cmsg(3)).
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; CONTROL * 8]);

impl Control {
    const EMPTY: Self = Self([0; CONTROL * 8]);

    /// Puts a parameter behind the first `at` bytes; returns the new length.
    fn push(&mut self, at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
        let length = 16 + data.len();
        self.0[at..at + 8].copy_from_slice(&length.to_ne_bytes());
        self.0[at + 8..at + 12].copy_from_slice(&level.to_ne_bytes());
        self.0[at + 12..at + 16].copy_from_slice(&kind.to_ne_bytes());
        self.0[at + 16..at + length].copy_from_slice(data);
        at + length.next_multiple_of(8)
    }

    /// Calls `each` with the level, kind and data of every parameter in the first `length` bytes.
    fn each(&self, length: usize, mut each: impl FnMut(libc::c_int, libc::c_int, &[u8])) {
        let mut rest = &self.0[..length.min(self.0.len())];
        while rest.len() >= 16 {
            let length = usize::from_ne_bytes(*rest.first_chunk().expect("there are 16"));
            let level = libc::c_int::from_ne_bytes(*rest[8..].first_chunk().expect("there are 16"));
            let kind = libc::c_int::from_ne_bytes(*rest[12..].first_chunk().expect("there are 16"));
            let Some(data) = rest.get(16..length) else { return };
            each(level, kind, data);
            rest = rest.get(length.next_multiple_of(8)..).unwrap_or(&[]);
        }
    }
}

/// What is known of a datagram beside its bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// How long it is in bytes.
    pub length: usize,
    /// Who sent it.
    pub from: Option<SocketAddr>,
    /// Where it was sent to, if the socket was told to say so; the port is 0 with [`tell_destination`].
    pub to: Option<SocketAddr>,
    /// If it is a run of several: of how many bytes each but the last is.
    pub segment: Option<u16>,
}

fn about(length: usize, name: &[u8], control: &Control, control_length: usize) -> About {
    let mut about = About { length, from: from_raw(name), ..About::default() };
    control.each(control_length, |level, kind, data| match (level, kind) {
        (libc::SOL_IP, libc::IP_ORIGDSTADDR) | (libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR) => {
            about.to = from_raw(data);
        }
        (libc::SOL_IP, libc::IP_PKTINFO) if data.len() >= 12 => {
            let ip: [u8; 4] = *data[8..].first_chunk().expect("there are 12");
            about.to = Some(SocketAddr::new(Ipv4Addr::from(ip).into(), 0));
        }
        (libc::SOL_IPV6, libc::IPV6_PKTINFO) if data.len() >= 20 => {
            let ip: [u8; 16] = *data.first_chunk().expect("there are 20");
            let scope = u32::from_ne_bytes(*data[16..].first_chunk().expect("there are 20"));
            let ip = Ipv6Addr::from(ip);
            let scope = if ip.is_unicast_link_local() { scope } else { 0 };
            about.to = Some(SocketAddrV6::new(ip, 0, 0, scope).into());
        }
        (libc::SOL_UDP, UDP_GRO) => {
            let size = data.first_chunk().map_or(0, |bytes| libc::c_int::from_ne_bytes(*bytes));
            about.segment = u16::try_from(size).ok().filter(|size| usize::from(*size) < length && *size > 0);
        }
        _ => {}
    });
    about
}

/// Room for the datagrams of one call.
pub struct Batch {
    bytes: Vec<u8>,
    known: [About; BATCH],
    count: usize,
    /// How many are asked for next: where they come one by one, a call is the cheaper for it.
    wanted: usize,
}

impl Default for Batch {
    fn default() -> Self {
        // Zeroed memory that the kernel gives when it is touched: mostly the first pages of each.
        Self { bytes: vec![0; BATCH * LONGEST], known: [About::default(); BATCH], count: 0, wanted: 1 }
    }
}

/// Parameters of messages of one call, of which only as many are made as are needed: the whole of them is more to
/// write than a short datagram takes to be sent.
struct Headers {
    names: [MaybeUninit<libc::sockaddr_storage>; BATCH],
    controls: [MaybeUninit<Control>; BATCH],
    vectors: [MaybeUninit<libc::iovec>; BATCH],
    headers: [MaybeUninit<libc::mmsghdr>; BATCH],
}

impl Headers {
    fn new() -> Self {
        Self {
            names: [const { MaybeUninit::uninit() }; BATCH],
            controls: [const { MaybeUninit::uninit() }; BATCH],
            vectors: [const { MaybeUninit::uninit() }; BATCH],
            headers: [const { MaybeUninit::uninit() }; BATCH],
        }
    }

    /// Makes the header for these bytes, with nothing else; it is good for as long as `self` is not moved.
    fn make(&mut self, at: usize, bytes: *mut u8, length: usize) -> &mut libc::msghdr {
        let vector = self.vectors[at].write(libc::iovec { iov_base: bytes.cast(), iov_len: length });
        // SAFETY: an all-zero header is valid.
        let header = self.headers[at].write(unsafe { zeroed() });
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        &mut header.msg_hdr
    }
}

impl Batch {
    /// Receives what is there, at most [`BATCH`] datagrams, and not all of it where it was less before; returns
    /// their number. `WouldBlock` if none is there; an error of the network if one is pending on a connected socket.
    pub fn receive(&mut self, fd: impl AsFd) -> io::Result<usize> {
        self.count = 0;
        let mut all = Headers::new();
        for at in 0..self.wanted {
            // SAFETY: an all-zero sockaddr_storage is valid.
            let name: *mut libc::sockaddr_storage = all.names[at].write(unsafe { zeroed() });
            let control: *mut Control = all.controls[at].write(Control::EMPTY);
            let header = all.make(at, self.bytes[at * LONGEST..].as_mut_ptr(), LONGEST);
            header.msg_name = name.cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_control = control.cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
        // SAFETY: every header that is asked for points at memory of the lengths it says, which lives until after
        // the call.
        let count = unsafe {
            libc::recvmmsg(
                fd.as_fd().as_raw_fd(),
                all.headers.as_mut_ptr().cast(),
                self.wanted as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            self.wanted = 1;
            return Err(io::Error::last_os_error());
        }
        self.count = (count as usize).min(self.wanted);
        for at in 0..self.count {
            // SAFETY: as many as were asked for were made above, and the kernel has filled these.
            let (header, control) =
                unsafe { (all.headers[at].assume_init_ref(), all.controls[at].assume_init_ref()) };
            // SAFETY: sockaddr_storage has no padding that matters: it was zeroed whole.
            let name: &[u8; size_of::<libc::sockaddr_storage>()] = unsafe { &*all.names[at].as_ptr().cast() };
            let name = &name[..(header.msg_hdr.msg_namelen as usize).min(name.len())];
            let length = (header.msg_len as usize).min(LONGEST);
            self.known[at] = about(length, name, control, header.msg_hdr.msg_controllen);
        }
        // Sockets are asked again while they have more.
        self.wanted = if self.count == self.wanted { (2 * self.count).min(BATCH) } else { self.count.max(1) };
        Ok(self.count)
    }

    /// The datagrams that were received last.
    pub fn datagrams(&self) -> impl Iterator<Item = (&[u8], &About)> {
        self.known[..self.count]
            .iter()
            .enumerate()
            .map(|(at, about)| (&self.bytes[at * LONGEST..at * LONGEST + about.length], about))
    }

    /// Sends what was received last by a connected socket. What the socket does not take is lost, as in a full
    /// queue of a router; an error that the network reported before is passed over.
    pub fn forward(&mut self, fd: impl AsFd) {
        let mut all = Headers::new();
        for at in 0..self.count {
            let About { length, segment, .. } = self.known[at];
            let mut control = None;
            if let Some(segment) = segment {
                let place = all.controls[at].write(Control::EMPTY);
                let length = place.push(0, libc::SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
                control = Some((&raw mut *place, length));
            }
            let header = all.make(at, self.bytes[at * LONGEST..].as_mut_ptr(), length);
            if let Some((control, length)) = control {
                header.msg_control = control.cast();
                header.msg_controllen = length as _;
            }
        }
        let mut sent = 0;
        let mut failed = 0;
        while sent < self.count {
            // SAFETY: all up to the number of datagrams were made above, and point at memory that lives until after
            // the call; `sent` is below that number.
            let count = unsafe {
                libc::sendmmsg(
                    fd.as_fd().as_raw_fd(),
                    all.headers[sent..].as_mut_ptr().cast(),
                    (self.count - sent) as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if count > 0 {
                sent += count as usize;
                failed = 0;
                continue;
            }
            // The first error may be one of an earlier datagram, which is told once: the datagram is sent again.
            failed += 1;
            if failed > 1 {
                if let Some(segment) = self.known[sent].segment {
                    let run = &self.bytes[sent * LONGEST..sent * LONGEST + self.known[sent].length];
                    send_each(&fd, run, None, None, segment);
                }
                sent += 1;
                failed = 0;
            }
        }
    }
}

/// Sends the datagrams of a run one by one: together they must fit the route, and the device must be able to.
fn send_each(fd: impl AsFd, run: &[u8], to: Option<SocketAddr>, from: Option<IpAddr>, segment: u16) {
    for datagram in run.chunks(usize::from(segment).max(1)) {
        // What is not taken is lost.
        let _ = send_one(&fd, datagram, to, from, None);
    }
}

/// Sends one datagram (or a run of them, each of `segment` bytes): to an address if the socket is not
/// connected, from a local address if it is bound to none.
pub fn send(
    fd: impl AsFd,
    bytes: &[u8],
    to: Option<SocketAddr>,
    from: Option<IpAddr>,
    segment: Option<u16>,
) -> io::Result<()> {
    match (send_one(&fd, bytes, to, from, segment), segment) {
        (Err(error), Some(segment))
            if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO)) =>
        {
            send_each(fd, bytes, to, from, segment);
            Ok(())
        }
        (sent, _) => sent,
    }
}

fn send_one(
    fd: impl AsFd,
    bytes: &[u8],
    to: Option<SocketAddr>,
    from: Option<IpAddr>,
    segment: Option<u16>,
) -> io::Result<()> {
    let mut name = to.map(to_raw);
    let mut control = Control::EMPTY;
    let mut length = 0;
    match from {
        Some(IpAddr::V4(ip)) => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&ip.octets());
            length = control.push(length, libc::SOL_IP, libc::IP_PKTINFO, &info);
        }
        Some(IpAddr::V6(ip)) => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&ip.octets());
            if let Some(SocketAddr::V6(to)) = to {
                info[16..].copy_from_slice(&to.scope_id().to_ne_bytes());
            }
            length = control.push(length, libc::SOL_IPV6, libc::IPV6_PKTINFO, &info);
        }
        None => {}
    }
    if let Some(segment) = segment {
        length = control.push(length, libc::SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
    }
    let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: an all-zero header is valid.
    let mut header: libc::msghdr = unsafe { zeroed() };
    if let Some((storage, length)) = &mut name {
        header.msg_name = (&raw mut *storage).cast();
        header.msg_namelen = *length;
    }
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    if length > 0 {
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = length as _;
    }
    // SAFETY: the header points at memory of the lengths it says; the kernel only reads the bytes.
    let sent = unsafe {
        libc::sendmsg(fd.as_fd().as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// An error of the network, for something that a socket sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkError {
    /// As an error number.
    pub errno: i32,
    /// ICMP's type and code if a host said it; none if this one did.
    pub icmp: Option<(u8, u8)>,
    /// Who said it.
    pub offender: Option<IpAddr>,
    /// More about it: the size that fits, in bytes, for a packet that was too big.
    pub info: u32,
}

/// Takes the next error that the network reported ([`keep_errors`]).
pub fn error(fd: impl AsFd) -> io::Result<NetworkError> {
    let mut bytes = [0_u8; 64];
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control::EMPTY;
    // SAFETY: an all-zero header is valid.
    let mut header: libc::msghdr = unsafe { zeroed() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = size_of::<Control>() as _;
    // SAFETY: the header points at memory of the lengths it says.
    let received = unsafe {
        libc::recvmsg(fd.as_fd().as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
    };
    if received < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = None;
    control.each(header.msg_controllen, |level, kind, data| {
        if matches!((level, kind), (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR)) {
            found = extended_error(data);
        }
    });
    found.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// `struct sock_extended_err` and the offender's address behind it.
fn extended_error(data: &[u8]) -> Option<NetworkError> {
    let errno = u32::from_ne_bytes(*data.first_chunk()?);
    let (origin, kind, code) = (*data.get(4)?, *data.get(5)?, *data.get(6)?);
    let info = u32::from_ne_bytes(*data.get(8..)?.first_chunk()?);
    let said = origin == libc::SO_EE_ORIGIN_ICMP || origin == libc::SO_EE_ORIGIN_ICMP6;
    Some(NetworkError {
        errno: i32::try_from(errno).ok()?,
        icmp: said.then_some((kind, code)),
        offender: data.get(16..).and_then(from_raw).map(|address| address.ip()),
        info,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(v6: bool) -> (OwnedFd, SocketAddr) {
        let socket = socket(v6, SocketType::DGRAM, None).unwrap();
        let ip: IpAddr = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
        rustix::net::bind(&socket, &SocketAddr::new(ip, 0)).unwrap();
        let address = rustix::net::getsockname(&socket).unwrap().try_into().unwrap();
        (socket, address)
    }

    #[test]
    fn addresses_survive_their_raw_form() {
        for text in ["1.2.3.4:56", "[fd00::1]:80", "[fe80::1%3]:80"] {
            let address: SocketAddr = text.parse().unwrap();
            let (raw, length) = to_raw(address);
            // SAFETY: a sockaddr_storage may be looked at as bytes.
            let bytes: [u8; size_of::<libc::sockaddr_storage>()] = unsafe { std::mem::transmute(raw) };
            assert_eq!(from_raw(&bytes[..length as usize]), Some(address));
        }
        assert_eq!(from_raw(&[2, 0, 1]), None);
        assert_eq!(from_raw(&[]), None);
    }

    #[test]
    fn datagrams_come_in_batches_and_go_on() {
        for v6 in [false, true] {
            let (receiver, to) = bound(v6);
            tell_destination(&receiver, v6).unwrap();
            let (sender, from) = bound(v6);
            for text in ["one", "two", ""] {
                send(&sender, text.as_bytes(), Some(to), Some(from.ip()), None).unwrap();
            }
            let mut batch = Batch { wanted: BATCH, ..Batch::default() };
            assert_eq!(batch.receive(&receiver).unwrap(), 3);
            let got: Vec<_> = batch.datagrams().map(|(bytes, about)| (bytes.to_vec(), *about)).collect();
            assert_eq!(got[1].0, b"two");
            assert!(got[2].0.is_empty());
            assert_eq!(got[0].1.from, Some(from));
            assert_eq!(got[0].1.to.unwrap().ip(), to.ip());
            let (last, there) = bound(v6);
            rustix::net::connect(&sender, &there).unwrap();
            batch.forward(&sender);
            assert_eq!(batch.receive(&last).unwrap(), 3);
            assert_eq!(batch.receive(&last).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn more_are_received_at_once_where_more_come() {
        let (receiver, to) = bound(false);
        let (sender, _) = bound(false);
        let (last, there) = bound(false);
        let (onwards, _) = bound(false);
        rustix::net::connect(&onwards, &there).unwrap();
        for number in 0..40_u8 {
            send(&sender, &[number; 3], Some(to), None, None).unwrap();
        }
        let mut batch = Batch::default();
        for expected in [1, 2, 4, 8, 16, 9] {
            assert_eq!(batch.receive(&receiver).unwrap(), expected);
            batch.forward(&onwards);
        }
        assert_eq!(batch.receive(&receiver).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // All of them, in their order.
        let mut buffer = [0; 8];
        for number in 0..40_u8 {
            let (length, _) =
                rustix::net::recv(&last, &mut buffer[..], rustix::net::RecvFlags::DONTWAIT).unwrap();
            assert_eq!(buffer[..length], [number; 3]);
        }
    }

    #[test]
    fn runs_are_sent_as_datagrams() {
        let (receiver, to) = bound(false);
        let (sender, _) = bound(false);
        send(&sender, &[7; 250], Some(to), None, Some(100)).unwrap();
        let mut batch = Batch { wanted: BATCH, ..Batch::default() };
        assert_eq!(batch.receive(&receiver).unwrap(), 3);
        assert_eq!(batch.datagrams().map(|(bytes, _)| bytes.len()).collect::<Vec<_>>(), [100, 100, 50]);
    }

    #[test]
    fn a_closed_port_is_told() {
        for v6 in [false, true] {
            let (closed, to) = bound(v6);
            drop(closed);
            let (sender, _) = bound(v6);
            keep_errors(&sender, v6).unwrap();
            rustix::net::connect(&sender, &to).unwrap();
            send(&sender, b"x", None, None, None).unwrap();
            let told = error(&sender).unwrap();
            assert_eq!(told.errno, libc::ECONNREFUSED);
            assert_eq!(told.icmp, Some(if v6 { (1, 4) } else { (3, 3) }));
            assert_eq!(told.offender, Some(to.ip()));
        }
    }

    #[test]
    fn parameters_of_any_bytes_do_no_harm() {
        let mut control = Control::EMPTY;
        let mut seed = 1_u64;
        for _ in 0..20_000 {
            for byte in &mut control.0 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = if seed >> 63 == 0 { 0 } else { (seed >> 33) as u8 % 80 };
            }
            let known = about(100, &control.0[..28], &control, control.0.len());
            assert_eq!(known.length, 100);
        }
    }
}
