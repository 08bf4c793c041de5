//! Packet sockets (packet(7)): whole frames of a device, with what the kernel has left to the hardware.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::sockopt;

/// What stands before each frame, `struct virtio_net_hdr` (bytes): checksums and segments that are still to be
/// made.
pub const HEADER: usize = 10;
/// The longest frame with its header: a run of segments that the kernel has put together.
pub const LONGEST: usize = HEADER + 14 + 65536;

const PACKET_VNET_HDR: libc::c_int = 15;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
/// Bytes that wait for a reader, where the host lets that be (`net.core.rmem_max`).
const BUFFER: usize = 4 << 20;

/// A socket of the caller's network namespace, which receives nothing before it is bound. Needs CAP_NET_RAW.
pub fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    for option in [PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING] {
        sockopt::set(&socket, libc::SOL_PACKET, option, 1_i32)?;
    }
    // More than the host lets is cut down, not refused.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, BUFFER);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, BUFFER);
    Ok(socket)
}

/// Has a socket receive all frames that come by the device with this index of the socket's namespace.
pub fn bind(socket: impl AsFd, index: u32) -> io::Result<()> {
    // SAFETY: an all-zero address is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as libc::c_int;
    // SAFETY: the address is of the length that is told.
    let done = unsafe {
        libc::bind(
            socket.as_fd().as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives a frame with its header; its length. `WouldBlock` if there is none.
pub fn receive(socket: impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    let (length, _) = rustix::net::recv(socket, &mut *into, RecvFlags::DONTWAIT)?;
    Ok(length.min(into.len()))
}

/// Sends a frame with its header.
pub fn send(socket: impl AsFd, frame: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, frame, SendFlags::DONTWAIT)?;
    Ok(())
}
