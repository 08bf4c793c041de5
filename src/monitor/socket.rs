//! The sockets by which commands talk to a monitor.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Listens for `attach` in the container's volatile directory.
pub(super) fn listen(dir: &std::path::Path) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    with_short_path(&dir.join("attach.sock"), |address| {
        rustix::net::bind(&socket, address)?;
        Ok(())
    })?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// Connects to the monitor whose socket is at `path`.
pub fn connect(path: &std::path::Path) -> io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    with_short_path(path, |address| {
        rustix::net::connect(&socket, address)?;
        Ok(())
    })?;
    Ok(socket)
}

/// A socket's address has room for 107 bytes (unix(7)), a store's path may be longer: go by way of
/// a descriptor of the directory.
fn with_short_path<T>(
    path: &std::path::Path,
    act: impl FnOnce(&SocketAddrUnix) -> io::Result<T>,
) -> io::Result<T> {
    use rustix::fs::{Mode, OFlags};
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    act(&SocketAddrUnix::new(short)?)
}

/// The two ends of a connection between a command and its monitor.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}
