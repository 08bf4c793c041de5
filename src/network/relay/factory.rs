//! Sockets of the router's network namespace for the thread that is not in it: a socket belongs to the
//! namespace in which it was made, whoever binds and connects it later.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::EventfdFlags;
use rustix::net::SocketType;

use crate::sys::inet;

/// How many are kept ready of each family.
const READY: usize = 16;

/// Unbound transparent UDP sockets, made by one thread and taken by another.
pub struct Factory {
    ready: Mutex<[Vec<OwnedFd>; 2]>,
    wanted: OwnedFd,
    filled: OwnedFd,
}

fn signal(event: &OwnedFd) {
    // It only fails when the counter is full: then it has been signalled.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

fn clear(event: &OwnedFd) {
    let _ = rustix::io::read(event, &mut [0_u8; 8]);
}

impl Factory {
    /// Without sockets yet.
    pub fn new() -> io::Result<Self> {
        let event = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self { ready: Mutex::default(), wanted: event()?, filled: event()? })
    }

    /// Takes a socket; if there is none, some are asked for, and [`Self::filled`] becomes readable.
    pub fn take(&self, v6: bool) -> Option<OwnedFd> {
        let (socket, left) = {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            let ready = &mut ready[usize::from(v6)];
            (ready.pop(), ready.len())
        };
        if left < READY / 2 {
            self.want();
        }
        socket
    }

    /// Wakes the maker.
    pub fn want(&self) {
        signal(&self.wanted);
    }

    /// Becomes readable for the maker when sockets are asked for.
    pub fn wanted(&self) -> BorrowedFd<'_> {
        self.wanted.as_fd()
    }

    /// Becomes readable for the taker when sockets were made.
    pub fn filled(&self) -> BorrowedFd<'_> {
        self.filled.as_fd()
    }

    /// Notes that what was made has been seen.
    pub fn seen(&self) {
        clear(&self.filled);
    }

    /// Makes what is missing, in the network namespace of the calling thread.
    pub fn make(&self) {
        clear(&self.wanted);
        for v6 in [false, true] {
            let missing = {
                let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
                READY.saturating_sub(ready[usize::from(v6)].len())
            };
            // What cannot be made (no IPv6, too many files) is missing later: datagrams are lost then.
            let made: Vec<OwnedFd> = (0..missing).map_while(|_| transparent_udp(v6).ok()).collect();
            self.ready.lock().unwrap_or_else(PoisonError::into_inner)[usize::from(v6)].extend(made);
        }
        signal(&self.filled);
    }
}

/// A UDP socket of the calling thread's network namespace that can be bound to any address, several to one.
pub fn transparent_udp(v6: bool) -> io::Result<OwnedFd> {
    let socket = inet::socket(v6, SocketType::DGRAM, None)?;
    inet::set_transparent(&socket, v6)?;
    rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
    hold_bursts(&socket);
    if v6 {
        rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    Ok(socket)
}

/// What comes while others have their turn waits in the socket, as far as the host lets (`net.core.rmem_max`).
pub fn hold_bursts(socket: impl AsFd) {
    const BYTES: usize = 1 << 20;
    // More than the host lets is cut down, not refused.
    let _ = rustix::net::sockopt::set_socket_recv_buffer_size(socket, BYTES);
}
