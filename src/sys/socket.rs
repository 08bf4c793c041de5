//! Unix sockets: packets, passed descriptors, and paths longer than `sun_path`.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Two connected seqpacket sockets: messages arrive whole, and the end of one is seen by the other.
pub fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message, with a descriptor if given.
pub fn send(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_with(socket, bytes, fd, SendFlags::NOSIGNAL)
}

/// The flags by which a filter knows the call that hands its own listener out, and lets it through: to other calls
/// it could not be told, for there is nobody to answer yet. Unix sockets do not look at these two, and no program
/// sets them (they are segments' of TCP, `MSG_SYN` and `MSG_RST` of linux/socket.h).
pub const HANDING_OVER: u32 = 0x1400;

/// As [`send`], by a process whose filter may tell `sendmsg` to the listener that is sent.
pub fn hand_over(socket: impl AsFd, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    send_with(socket, bytes, Some(fd), SendFlags::NOSIGNAL | SendFlags::from_bits_retain(HANDING_OVER))
}

fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&fds));
    }
    loop {
        match rustix::net::sendmsg(&socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// The peer has gone without reading all that was sent to it. That is told once, and before what the peer has sent
/// itself, which is there still: whoever takes it for the end loses messages.
pub const LEFT_UNREAD: rustix::io::Errno = rustix::io::Errno::CONNRESET;

/// Receives one message of at most 64 KiB; an empty one is the end. A passed descriptor is
/// close-on-exec.
pub fn receive(socket: impl AsFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    // Most messages are of some bytes: room for the longest would be sixteen fresh pages each time.
    let mut bytes = vec![0; next_length(&socket)?.min(65536)];
    if bytes.is_empty() {
        return Ok((bytes, None));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(&socket, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR | LEFT_UNREAD) => {}
            Err(error) => return Err(error.into()),
            Ok(message) => break message.bytes,
        }
    };
    let mut fd = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            for passed in fds {
                fd.get_or_insert(passed);
            }
        }
    }
    bytes.truncate(length);
    Ok((bytes, fd))
}

/// Waits for a message and tells its length.
fn next_length(socket: impl AsFd) -> io::Result<usize> {
    loop {
        match rustix::net::recv(&socket, &mut [0_u8; 0][..], RecvFlags::PEEK | RecvFlags::TRUNC) {
            Err(rustix::io::Errno::INTR | LEFT_UNREAD) => {}
            Err(error) => return Err(error.into()),
            Ok((_, length)) => return Ok(length),
        }
    }
}

/// Makes a listening seqpacket socket at `path`, whose directory must exist.
pub fn listen(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    through_directory(path, |address| {
        rustix::net::bind(&socket, address)?;
        Ok(())
    })?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// Takes the next connection of a listening socket.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    loop {
        match rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNABORTED) => {}
            other => return Ok(other?),
        }
    }
}

/// Connects to a seqpacket socket.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    connect_as(path, SocketType::SEQPACKET)
}

/// Connects to a stream socket (a console socket).
pub fn connect_stream(path: &Path) -> io::Result<OwnedFd> {
    connect_as(path, SocketType::STREAM)
}

fn connect_as(path: &Path, kind: SocketType) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    through_directory(path, |address| {
        loop {
            match rustix::net::connect(&socket, address) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    })?;
    Ok(socket)
}

/// `sun_path` takes 107 bytes; a longer path is named through a descriptor of its directory.
fn through_directory(path: &Path, call: impl FnOnce(&SocketAddrUnix) -> io::Result<()>) -> io::Result<()> {
    if let Ok(address) = SocketAddrUnix::new(path) {
        return call(&address);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    call(&SocketAddrUnix::new(&short)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_and_carry_descriptors() {
        let (a, b) = packet_pair().unwrap();
        send(&a, b"one", None).unwrap();
        send(&a, b"two", Some(b.as_fd())).unwrap();
        assert_eq!(receive(&b).unwrap().0, b"one");
        let (bytes, fd) = receive(&b).unwrap();
        assert!(bytes == b"two" && fd.is_some());
        drop((a, fd));
        assert!(receive(&b).unwrap().0.is_empty());
    }

    #[test]
    fn what_was_sent_before_leaving_arrives() {
        let (ours, theirs) = packet_pair().unwrap();
        send(&theirs, b"one", None).unwrap();
        send(&theirs, b"two", None).unwrap();
        send(&ours, b"never read", None).unwrap();
        drop(theirs);
        assert_eq!(receive(&ours).unwrap().0, b"one");
        assert_eq!(receive(&ours).unwrap().0, b"two");
        assert!(receive(&ours).unwrap().0.is_empty());
    }

    #[test]
    fn long_paths_can_be_bound() {
        let dir = std::env::temp_dir().join(format!("umiak-{:x}", crate::sys::atomic::random().unwrap()));
        let deep = dir.join("x".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let listener = listen(&deep.join("s"), 0o600).unwrap();
        let client = connect(&deep.join("s")).unwrap();
        send(&client, b"x", None).unwrap();
        assert_eq!(receive(accept(&listener).unwrap()).unwrap().0, b"x");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
