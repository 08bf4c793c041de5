//! What it takes to give a process another socket in the place of one that it has: looking at its descriptors,
//! carrying options over, nailing a socket to its peer, entering it where the old one was waited for.
//!
//! All that is read by a process's number is to be trusted only if the call that it waits in is still the same
//! afterwards ([`super::notify::Listener::is_waiting`]).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

use super::process;
use super::sockopt::{self, get, set};

/// A descriptor of another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A socket with this inode.
    Socket(u64),
    /// An epoll instance.
    Epoll,
}

/// The process of a thread, to take descriptors from. A thread may have a table of its own, which older kernels than
/// 6.9 do not let one name: then it is that of the first thread.
pub fn holder(thread: i32) -> io::Result<OwnedFd> {
    const PIDFD_THREAD: libc::c_int = libc::O_EXCL;
    // SAFETY: takes integers and returns a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, thread, PIDFD_THREAD) };
    if fd >= 0 {
        // SAFETY: the kernel made it, and nobody else knows of it.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    }
    let text = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
    let leader = text.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    process::pidfd_open(leader.ok_or(io::ErrorKind::InvalidData)?)
}

/// A copy of a descriptor of a process (pidfd_getfd(2)), close-on-exec. Needs power over the process as ptrace(2).
pub fn take(holder: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes integers and returns a descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, holder.as_raw_fd(), number, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The sockets and epoll instances among the descriptors of a thread; `None` if it has more than `most` descriptors.
pub fn descriptors(thread: i32, most: usize) -> io::Result<Option<Vec<(RawFd, Kind)>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(format!("/proc/{thread}/fd"), flags, Mode::empty())?;
    let mut found = Vec::new();
    let mut buffer = Vec::new();
    for (count, entry) in rustix::fs::Dir::read_from(&dir)?.enumerate() {
        if count >= most + 2 {
            return Ok(None);
        }
        let entry = entry?;
        let Some(number) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // Closed meanwhile.
        let Ok(link) = rustix::fs::readlinkat(&dir, entry.file_name(), std::mem::take(&mut buffer)) else {
            continue;
        };
        found.extend(link.to_str().ok().and_then(kind_of).map(|kind| (number, kind)));
        buffer = link.into_bytes();
    }
    Ok(Some(found))
}

fn kind_of(link: &str) -> Option<Kind> {
    if link == "anon_inode:[eventpoll]" {
        return Some(Kind::Epoll);
    }
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok().map(Kind::Socket)
}

/// The inode of a socket.
pub fn inode(socket: impl AsFd) -> io::Result<u64> {
    Ok(rustix::fs::fstat(socket)?.st_ino)
}

/// What the kernel tells of a thread's descriptor (proc(5)).
fn fdinfo(thread: i32, number: RawFd) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/{thread}/fdinfo/{number}"))
}

/// Whether a thread's descriptor is closed when it executes a program.
pub fn is_cloexec(thread: i32, number: RawFd) -> io::Result<bool> {
    let text = fdinfo(thread, number)?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    Ok(flags.ok_or(io::ErrorKind::InvalidData)? & libc::O_CLOEXEC as u32 != 0)
}

/// What an epoll instance of a thread waits for at one of its other descriptors, of this inode: events and data as
/// epoll_ctl(2) got them.
pub fn registration(thread: i32, epoll: RawFd, number: RawFd, inode: u64) -> io::Result<Option<(u32, u64)>> {
    let text = fdinfo(thread, epoll)?;
    Ok(text.lines().find_map(|line| registered(line, number, inode)))
}

/// `tfd: 5 events: 8000001d data: 5  pos:0 ino:1f8 sdev:8` (proc(5)): hexadecimal but for the first number.
fn registered(line: &str, number: RawFd, inode: u64) -> Option<(u32, u64)> {
    let field = |name: &str| {
        let (_, rest) = line.split_once(name)?;
        rest.split_whitespace().next()
    };
    if field("tfd:")?.parse() != Ok(number) || u64::from_str_radix(field("ino:")?, 16) != Ok(inode) {
        return None;
    }
    let events = u32::from_str_radix(field("events:")?, 16).ok()?;
    Some((events, u64::from_str_radix(field("data:")?, 16).ok()?))
}

/// Has an epoll instance wait for a socket as if it had been entered by the number that it has elsewhere: a later
/// change names it by that number.
pub fn register(epoll: &OwnedFd, socket: &OwnedFd, number: RawFd, events: u32, data: u64) -> io::Result<()> {
    let (epoll, socket) = (epoll.as_raw_fd(), socket.as_raw_fd());
    let body = move || {
        // From here on the table of descriptors is this thread's own, and goes with it: nothing in it is any other
        // part's of this process.
        // SAFETY: takes a flag.
        if unsafe { libc::unshare(libc::CLONE_FILES) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: numbers that are open in this table, which is private and about to go.
        let entered = unsafe {
            let epoll = if epoll == number { libc::fcntl(epoll, libc::F_DUPFD, number + 1) } else { epoll };
            let mut event = libc::epoll_event { events, u64: data };
            if epoll < 0
                || (socket != number && libc::dup2(socket, number) < 0)
                || libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, number, &raw mut event) != 0
            {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        };
        // Who joins a thread does not wait for its table to go, and as long as a copy of the old socket is open, that
        // one's entry tells of it under the same number.
        // SAFETY: closes what is in the private table.
        unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
        entered
    };
    let thread = std::thread::Builder::new().name("epoll".into()).stack_size(64 * 1024).spawn(body)?;
    thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
}

/// The number by which the kernel tells network namespaces apart that are there together: of the one that a socket
/// is in (`SO_NETNS_COOKIE`, Linux 5.14).
pub fn net_cookie(socket: impl AsFd) -> io::Result<u64> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    get(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE)
}

/// The network namespace that a socket is in (`SIOCGSKNS`). Needs CAP_NET_ADMIN over it.
pub fn net_namespace(socket: impl AsFd) -> io::Result<OwnedFd> {
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    // SAFETY: the request takes no argument.
    let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a TCP socket is neither connected, nor about to be, nor listening.
pub fn is_closed(socket: impl AsFd) -> io::Result<bool> {
    const TCP_CLOSE: u8 = 7;
    // The first byte of struct tcp_info; the kernel cuts the rest off.
    Ok(get::<u8>(socket, libc::IPPROTO_TCP, libc::TCP_INFO)? == TCP_CLOSE)
}

/// Options with an integer, of a socket that is neither connected nor listening.
const OPTIONS: &[(libc::c_int, &[libc::c_int])] = &[
    (
        libc::SOL_SOCKET,
        &[
            libc::SO_KEEPALIVE,
            libc::SO_OOBINLINE,
            libc::SO_REUSEADDR,
            libc::SO_REUSEPORT,
            libc::SO_DONTROUTE,
            libc::SO_PRIORITY,
            libc::SO_RCVLOWAT,
            libc::SO_TIMESTAMP,
            libc::SO_TIMESTAMPNS,
            libc::SO_TIMESTAMPING,
            libc::SO_ZEROCOPY,
            libc::SO_BUSY_POLL,
            libc::SO_MAX_PACING_RATE,
        ],
    ),
    (
        libc::IPPROTO_TCP,
        &[
            libc::TCP_NODELAY,
            libc::TCP_CORK,
            libc::TCP_MAXSEG,
            libc::TCP_KEEPIDLE,
            libc::TCP_KEEPINTVL,
            libc::TCP_KEEPCNT,
            libc::TCP_SYNCNT,
            libc::TCP_LINGER2,
            libc::TCP_DEFER_ACCEPT,
            libc::TCP_WINDOW_CLAMP,
            libc::TCP_USER_TIMEOUT,
            libc::TCP_NOTSENT_LOWAT,
            TCP_INQ,
        ],
    ),
    (
        libc::IPPROTO_IP,
        &[libc::IP_TOS, libc::IP_TTL, libc::IP_MTU_DISCOVER, libc::IP_RECVTOS, libc::IP_RECVTTL],
    ),
];
const TCP_INQ: libc::c_int = 36;
/// Those of IPv6.
const OPTIONS_V6: &[libc::c_int] = &[
    libc::IPV6_V6ONLY,
    libc::IPV6_UNICAST_HOPS,
    libc::IPV6_TCLASS,
    libc::IPV6_RECVTCLASS,
    libc::IPV6_MTU_DISCOVER,
    libc::IPV6_DONTFRAG,
];

/// Gives a fresh TCP socket the options that have been set at another one. What it may not have, it does without.
pub fn carry_options(from: &OwnedFd, to: &OwnedFd, v6: bool) {
    let copy = |level, name| {
        if let (Ok(old), Ok(new)) =
            (get::<libc::c_int>(from, level, name), get::<libc::c_int>(to, level, name))
            && old != new
        {
            let _ = set(to, level, name, old);
        }
    };
    OPTIONS.iter().for_each(|(level, names)| names.iter().for_each(|name| copy(*level, *name)));
    if v6 {
        OPTIONS_V6.iter().for_each(|name| copy(libc::IPPROTO_IPV6, *name));
    }
    // Told as twice what was asked for, the kernel's own needs with it (socket(7)). What nobody has set is left to
    // the kernel, who lets it grow.
    for name in [libc::SO_RCVBUF, libc::SO_SNDBUF] {
        if let (Ok(old), Ok(new)) =
            (get::<libc::c_int>(from, libc::SOL_SOCKET, name), get::<libc::c_int>(to, libc::SOL_SOCKET, name))
            && old != new
        {
            let _ = set(to, libc::SOL_SOCKET, name, old / 2);
        }
    }
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO, libc::SO_LINGER] {
        // Two numbers, of four bytes for the last one.
        if name == libc::SO_LINGER {
            if let Ok(linger) = get::<[libc::c_int; 2]>(from, libc::SOL_SOCKET, name)
                && linger[0] != 0
            {
                let _ = set(to, libc::SOL_SOCKET, name, linger);
            }
        } else if let Ok(time) = get::<[libc::c_long; 2]>(from, libc::SOL_SOCKET, name)
            && time != [0, 0]
        {
            let _ = set(to, libc::SOL_SOCKET, name, time);
        }
    }
    // Its name, of 16 bytes.
    if let (Ok(old), Ok(new)) = (
        get::<[u8; 16]>(from, libc::IPPROTO_TCP, libc::TCP_CONGESTION),
        get::<[u8; 16]>(to, libc::IPPROTO_TCP, libc::TCP_CONGESTION),
    ) && old != new
    {
        let _ = set(to, libc::IPPROTO_TCP, libc::TCP_CONGESTION, old);
    }
}

/// Has a TCP socket hear nothing but one peer, for good: whoever gets hold of it can dissolve its connection, but
/// no other one will ever come about. (`SO_ATTACH_FILTER` and `SO_LOCK_FILTER`, socket(7).)
pub fn nail(socket: &OwnedFd, peer: SocketAddr) -> io::Result<()> {
    // Relative to the header of IP, `SKF_NET_OFF`; what has no such offset is relative to that of TCP.
    const NETWORK: u32 = -0x10_0000_i32 as u32;
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let mut tests = vec![(LOAD_HALF, 0, u32::from(peer.port()))];
    match peer.ip() {
        IpAddr::V4(ip) => tests.push((LOAD_WORD, NETWORK + 12, u32::from(ip))),
        IpAddr::V6(ip) => {
            let words = ip.octets();
            let words =
                words.chunks(4).map(|word| word.iter().fold(0, |all, byte| all << 8 | u32::from(*byte)));
            tests.extend(words.zip(0..).map(|(word, at)| (LOAD_WORD, NETWORK + 8 + 4 * at, word)));
        }
    }
    let mut program = Vec::with_capacity(2 * tests.len() + 2);
    for (index, (load, offset, expected)) in tests.iter().enumerate() {
        program.push((*load, 0, 0, *offset));
        // To the last instruction.
        program.push((IF_EQUAL, 0, (2 * (tests.len() - index) - 1) as u8, *expected));
    }
    program.push((RETURN, 0, 0, u32::MAX));
    program.push((RETURN, 0, 0, 0));
    sockopt::filter(socket, &program)?;
    set(socket, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
    use rustix::net::SocketType;

    use super::super::inet;
    use super::*;

    fn listener(v6: bool) -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind(if v6 { "[::1]:0" } else { "127.0.0.1:0" }).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn connect(socket: &OwnedFd, to: SocketAddr, patience: i64) -> bool {
        match rustix::net::connect(socket, &to) {
            Ok(()) => return true,
            Err(error) => assert_eq!(error, rustix::io::Errno::INPROGRESS),
        }
        let mut wait = [PollFd::new(socket, PollFlags::OUT)];
        let time = Timespec { tv_sec: patience, tv_nsec: 0 };
        poll(&mut wait, Some(&time)).unwrap() == 1
            && rustix::net::sockopt::socket_error(socket).unwrap().is_ok()
    }

    #[test]
    fn a_nailed_socket_has_one_peer_for_good() {
        for v6 in [false, true] {
            let ((first, there), (_second, elsewhere)) = (listener(v6), listener(v6));
            let socket = inet::socket(v6, SocketType::STREAM, None).unwrap();
            match nail(&socket, there) {
                // Newer kernels keep that for CAP_NET_ADMIN.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
                nailed => nailed.unwrap(),
            }
            assert!(connect(&socket, there, 10));
            let (mut accepted, _) = first.accept().unwrap();
            accepted.write_all(&[7; 100_000]).unwrap();
            drop(accepted);
            let mut got = Vec::new();
            let mut stream = TcpStream::from(socket.try_clone().unwrap());
            stream.set_nonblocking(false).unwrap();
            stream.read_to_end(&mut got).unwrap();
            assert_eq!(got.len(), 100_000);
            stream.set_nonblocking(true).unwrap();
            // Whoever has it cannot make anything else of it.
            let detach = set(&socket, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0).unwrap_err();
            assert_eq!(detach.raw_os_error(), Some(libc::EPERM));
            assert!(nail(&socket, elsewhere).is_err());
            rustix::net::connect_unspec(&socket).unwrap();
            assert!(!connect(&socket, elsewhere, 1), "{elsewhere}");
        }
    }

    #[test]
    fn what_was_set_is_carried_over() {
        let old = inet::socket(true, SocketType::STREAM, None).unwrap();
        let set_all = [
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, 70_000),
            (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, 1234),
            (libc::IPPROTO_IP, libc::IP_TTL, 9),
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, 0x20),
        ];
        for (level, name, value) in set_all {
            set(&old, level, name, value).unwrap();
        }
        set(&old, libc::SOL_SOCKET, libc::SO_LINGER, [1, 5]).unwrap();
        set(&old, libc::SOL_SOCKET, libc::SO_SNDTIMEO, [2 as libc::c_long, 500_000]).unwrap();
        let new = inet::socket(true, SocketType::STREAM, None).unwrap();
        carry_options(&old, &new, true);
        for (level, name, _) in set_all {
            let of = |socket: &OwnedFd| get::<libc::c_int>(socket, level, name).unwrap();
            assert_eq!(of(&old), of(&new), "{level} {name}");
        }
        assert_eq!(get::<[libc::c_int; 2]>(&new, libc::SOL_SOCKET, libc::SO_LINGER).unwrap(), [1, 5]);
        let patience = get::<[libc::c_long; 2]>(&new, libc::SOL_SOCKET, libc::SO_SNDTIMEO).unwrap();
        assert_eq!(patience[0], 2);
        let fresh = inet::socket(true, SocketType::STREAM, None).unwrap();
        assert!(is_closed(&fresh).unwrap());
        assert_eq!(net_cookie(&fresh).unwrap(), net_cookie(&old).unwrap());
    }

    #[test]
    fn descriptors_are_found_and_entered_again() {
        let own = std::process::id() as i32;
        let (_there, address) = listener(false);
        let socket = inet::socket(false, SocketType::STREAM, None).unwrap();
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let (number, node) = (socket.as_raw_fd(), inode(&socket).unwrap());
        let events = epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&poller, &socket, epoll::EventData::new_u64(u64::MAX - 5), events).unwrap();
        let all = descriptors(own, 10_000).unwrap().unwrap();
        assert!(all.contains(&(number, Kind::Socket(node))));
        assert!(all.contains(&(poller.as_raw_fd(), Kind::Epoll)));
        assert_eq!(descriptors(own, 1).unwrap(), None);
        assert!(is_cloexec(own, number).unwrap() && !is_cloexec(own, 0).unwrap());
        let (events, data) = registration(own, poller.as_raw_fd(), number, node).unwrap().unwrap();
        assert_eq!(data, u64::MAX - 5);
        assert_eq!(registration(own, poller.as_raw_fd(), number, node + 1).unwrap(), None);
        // Another one under a number that nobody has here.
        let other = inet::socket(false, SocketType::STREAM, None).unwrap();
        let _ = rustix::net::connect(&other, &address);
        register(&poller, &other, 250, events, 42).unwrap();
        let there = registration(own, poller.as_raw_fd(), 250, inode(&other).unwrap()).unwrap();
        assert_eq!(there.map(|(_, data)| data), Some(42));
        // This process has not got that number.
        assert!(!std::path::Path::new("/proc/self/fd/250").exists());
        let holder = holder(own).unwrap();
        let copy = take(&holder, number).unwrap();
        assert_eq!(inode(&copy).unwrap(), node);
        assert_eq!(take(&holder, 9999).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    #[test]
    fn lines_of_epoll_are_read() {
        let line = "tfd:        5 events:       1d data: ffffffff00000005  pos:0 ino:1f8 sdev:8";
        assert_eq!(registered(line, 5, 0x1f8), Some((0x1d, 0xffff_ffff_0000_0005)));
        for (number, inode) in [(6, 0x1f8), (5, 0x1f9)] {
            assert_eq!(registered(line, number, inode), None);
        }
        for line in ["", "pos:\t0", "tfd: 5 events: x data: 5 ino:1f8", "tfd: 5 ino:1f8"] {
            assert_eq!(registered(line, 5, 0x1f8), None, "{line}");
        }
    }
}
