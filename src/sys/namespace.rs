//! Namespaces (namespaces(7)): which a process is in, joining and leaving them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

/// The kinds of namespaces, as `CLONE_NEW*` flags and names below `/proc/PID/ns`.
pub const KINDS: [(u64, &str); 8] = [
    (libc::CLONE_NEWUSER as u64, "user"),
    (libc::CLONE_NEWNS as u64, "mnt"),
    (libc::CLONE_NEWPID as u64, "pid"),
    (libc::CLONE_NEWNET as u64, "net"),
    (libc::CLONE_NEWIPC as u64, "ipc"),
    (libc::CLONE_NEWUTS as u64, "uts"),
    (libc::CLONE_NEWCGROUP as u64, "cgroup"),
    (CLONE_NEWTIME, "time"),
];

/// `CLONE_NEWTIME`, which libc has as a signed int of another type.
pub const CLONE_NEWTIME: u64 = 0x80;

/// Leaves the current namespaces of these kinds for new ones.
pub fn unshare(flags: u64) -> io::Result<()> {
    // SAFETY: concerns only this (single-threaded) process.
    if unsafe { libc::unshare(flags as libc::c_int) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Joins the namespace of a `/proc/PID/ns` file, or all the kinds in `flags` of a pidfd's process.
pub fn join(fd: impl AsFd, flags: u64) -> io::Result<()> {
    // SAFETY: concerns only this (single-threaded) process.
    if unsafe { libc::setns(fd.as_fd().as_raw_fd(), flags as libc::c_int) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Opens a namespace file; what is no namespace is refused by [`join`].
pub fn open(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?)
}

/// The user namespace that owns a namespace (ioctl_ns(2), `NS_GET_USERNS`).
pub fn owner(namespace: impl AsFd) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701;
    // SAFETY: the request takes no argument.
    let fd = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_USERNS) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel made it, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether two descriptors are of the same namespace.
pub fn is_same(one: impl AsFd, other: impl AsFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// The kinds in which process `pid` is elsewhere than the caller; those in `known` are said to be. The
/// kernel refuses to join the user namespace one is in, and others that one has no power over need not
/// be joined.
pub fn differing(pid: i32, known: u64) -> io::Result<u64> {
    // The way through /proc is the dear part of it: once for all kinds.
    let (own, other) = (kinds_of("self")?, kinds_of(&pid.to_string())?);
    let which = |dir: &OwnedFd, name: &str| fs::readlinkat(dir, name, Vec::with_capacity(64));
    let mut flags = known;
    for (flag, name) in KINDS {
        if known & flag != 0 {
            continue;
        }
        let own = match which(&own, name) {
            Ok(own) => own,
            // A kernel without this kind.
            Err(Errno::NOENT) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if which(&other, name)? != own {
            flags |= flag;
        }
    }
    Ok(flags)
}

/// `/proc/PID/ns`.
fn kinds_of(pid: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(fs::open(format!("/proc/{pid}/ns"), flags, Mode::empty())?)
}

/// Moves the caller into a new time namespace whose clocks are offset (time_namespaces(7)):
/// lines `clock-id seconds nanoseconds`.
pub fn unshare_time(offsets: &str) -> io::Result<()> {
    unshare(CLONE_NEWTIME)?;
    if !offsets.is_empty() {
        std::fs::write("/proc/self/timens_offsets", offsets)?;
    }
    // unshare only concerns children; the caller itself enters by setns.
    join(open(Path::new("/proc/self/ns/time_for_children"))?, CLONE_NEWTIME)
}

/// Brings the loopback interface of the current network namespace up.
pub fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the request is a valid ifreq with a terminated name.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_does_not_differ_from_oneself() {
        assert_eq!(super::differing(std::process::id() as i32, 0).unwrap(), 0);
    }
}
