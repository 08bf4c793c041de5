//! The first packets of TCP connections, held in a queue of nfnetlink (`linux/netfilter/nfnetlink_queue.h`)
//! until it is known what becomes of them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::RecvFlags;

use crate::network::ids::mark;
use crate::sys::netlink::{self, ACK, Family, Request, Socket, attribute, attributes};

const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIG: u16 = SUBSYSTEM | 2;

const CFG_CMD: u16 = 1;
const CFG_PARAMS: u16 = 2;
const CFG_QUEUE_MAXLEN: u16 = 3;
const CMD_BIND: u8 = 1;
const COPY_PACKET: u8 = 2;

const PACKET_HDR: u16 = 1;
const VERDICT_HDR: u16 = 2;
const MARK: u16 = 3;
const PAYLOAD: u16 = 10;

const NF_DROP: u32 = 0;
const NF_REPEAT: u32 = 4;

/// Enough for the headers of IP with extensions, and of TCP (bytes).
const COPY_RANGE: u32 = 128;
/// How many packets may wait.
const LENGTH: u32 = 8192;

/// A queue of held packets.
pub struct Queue {
    socket: Socket,
    number: u16,
    buffer: Vec<u8>,
}

/// A held packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its number in the queue.
    pub id: u32,
    /// From where to where, if it is a TCP packet.
    pub ends: Option<(SocketAddr, SocketAddr)>,
}

impl Queue {
    /// Opens the queue of this number in the caller's network namespace, over which it needs CAP_NET_ADMIN
    /// also for every verdict.
    pub fn open(number: u16) -> io::Result<Self> {
        let mut socket = Socket::open(Family::Netfilter)?;
        let mut params = COPY_RANGE.to_be_bytes().to_vec();
        params.push(COPY_PACKET);
        let mut body = head(number);
        attribute(CFG_CMD, &[CMD_BIND, 0, 0, 0], &mut body);
        attribute(CFG_PARAMS, &params, &mut body);
        attribute(CFG_QUEUE_MAXLEN, &LENGTH.to_be_bytes(), &mut body);
        // The number of the error alone: callers look for it.
        socket.send(&[Request { kind: CONFIG, flags: ACK, body }]).map_err(|refused| {
            netlink::errno(&refused.source).map_or(refused.source, io::Error::from_raw_os_error)
        })?;
        Ok(Self { socket, number, buffer: vec![0; 16 * 1024] })
    }

    /// Takes what waits, at most as much as one call gives. `WouldBlock` if nothing does.
    pub fn receive(&mut self, into: &mut Vec<Held>) -> io::Result<()> {
        into.clear();
        let (length, _) = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT)?;
        let messages = netlink::messages(&self.buffer[..length.min(self.buffer.len())]);
        into.extend(messages.filter(|(kind, _)| *kind == PACKET).filter_map(|(_, body)| held(body)));
        Ok(())
    }

    /// Lets a packet go on with a mark of [`mark`].
    pub fn release(&self, id: u32, mark: u32) -> io::Result<()> {
        self.verdict(id, NF_REPEAT, Some(mark))
    }

    /// Drops a packet.
    pub fn drop(&self, id: u32) -> io::Result<()> {
        self.verdict(id, NF_DROP, None)
    }

    fn verdict(&self, id: u32, verdict: u32, mark: Option<u32>) -> io::Result<()> {
        let mut body = head(self.number);
        let mut header = verdict.to_be_bytes().to_vec();
        header.extend(id.to_be_bytes());
        attribute(VERDICT_HDR, &header, &mut body);
        if let Some(mark) = mark {
            attribute(MARK, &mark.to_be_bytes(), &mut body);
        }
        self.socket.tell(&Request { kind: VERDICT, flags: 0, body })
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The mark for a connection whose dial gave this error; none if it shall go on waiting for an answer.
pub fn mark_of(error: io::Error) -> Option<u32> {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => Some(mark::RESET),
        Some(libc::EHOSTUNREACH | libc::EHOSTDOWN) => Some(mark::HOST_UNREACHABLE),
        Some(libc::ENETUNREACH | libc::EAFNOSUPPORT | libc::EINVAL | libc::EADDRNOTAVAIL) => {
            Some(mark::NET_UNREACHABLE)
        }
        Some(libc::EACCES | libc::EPERM) => Some(mark::PROHIBITED),
        _ => None,
    }
}

/// `struct nfgenmsg`: no family, version 0, the queue; with room for what follows.
fn head(queue: u16) -> Vec<u8> {
    let mut body = Vec::with_capacity(48);
    body.extend([0, 0]);
    body.extend(queue.to_be_bytes());
    body
}

fn held(body: &[u8]) -> Option<Held> {
    let (mut id, mut ends) = (None, None);
    for (kind, data) in attributes(body.get(4..)?) {
        match kind {
            PACKET_HDR => id = data.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)),
            PAYLOAD => ends = tcp_ends(data),
            _ => {}
        }
    }
    Some(Held { id: id?, ends })
}

/// From where to where a packet of IPv4 or IPv6 goes, if it is one of TCP.
fn tcp_ends(packet: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet[0] & 15) * 4;
            let offset = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?) & 0x1fff;
            if length < 20 || offset != 0 || *packet.get(9)? != 6 {
                return None;
            }
            let from: [u8; 4] = *packet.get(12..)?.first_chunk()?;
            let to: [u8; 4] = *packet.get(16..)?.first_chunk()?;
            (from.into(), to.into(), packet.get(length..)?)
        }
        6 => {
            let from: [u8; 16] = *packet.get(8..)?.first_chunk()?;
            let to: [u8; 16] = *packet.get(24..)?.first_chunk()?;
            (from.into(), to.into(), after_extensions(*packet.get(6)?, packet.get(40..)?)?)
        }
        _ => return None,
    };
    let from_port = u16::from_be_bytes(*tcp.first_chunk()?);
    let to_port = u16::from_be_bytes(*tcp.get(2..)?.first_chunk()?);
    Some((SocketAddr::new(from, from_port), SocketAddr::new(to, to_port)))
}

/// What is behind the extension headers of IPv6 (RFC 8200, section 4), if it is TCP.
fn after_extensions(mut kind: u8, mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        match kind {
            6 => return Some(rest),
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                kind = *rest.first()?;
                rest = rest.get((usize::from(*rest.get(1)?) + 1) * 8..)?;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(flags: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 2, 100, 192, 0, 2, 7];
        packet.extend([0x12, 0x34, 0, 80]);
        packet.extend(flags);
        packet
    }

    fn packet_message(payload: &[u8]) -> Vec<u8> {
        let mut body = head(1);
        attribute(PACKET_HDR, &[0, 0, 0, 7, 8, 0, 1], &mut body);
        attribute(PAYLOAD, payload, &mut body);
        let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(PACKET.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_held_packet_tells_its_ends() {
        let bytes = packet_message(&v4(&[0; 16]));
        let [(PACKET, body)] = netlink::messages(&bytes).collect::<Vec<_>>()[..] else { panic!("{bytes:?}") };
        let ends = Some(("10.0.2.100:4660".parse().unwrap(), "192.0.2.7:80".parse().unwrap()));
        assert_eq!(held(body), Some(Held { id: 7, ends }));
    }

    #[test]
    fn extension_headers_are_passed_over() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 28, 60, 64];
        packet.extend([0xfd; 16]);
        packet.extend([0x20; 16]);
        packet.extend([6, 0, 0, 0, 0, 0, 0, 0]);
        packet.extend([0, 1, 0, 2]);
        let (from, to) = tcp_ends(&packet).unwrap();
        assert_eq!((from.port(), to.port()), (1, 2));
        packet[40] = 17;
        assert_eq!(tcp_ends(&packet), None);
    }

    #[test]
    fn fragments_and_other_protocols_have_no_ends() {
        let mut packet = v4(&[0; 16]);
        packet[7] = 1;
        assert_eq!(tcp_ends(&packet), None);
        let mut packet = v4(&[0; 16]);
        packet[9] = 17;
        assert_eq!(tcp_ends(&packet), None);
    }

    #[test]
    fn packets_of_any_bytes_do_no_harm() {
        let good = packet_message(&v4(&[0; 16]));
        let mut seed = 1_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize
        };
        for _ in 0..200_000 {
            let mut bytes = good.clone();
            for _ in 0..1 + random() % 6 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() % (bytes.len() + 1));
            for (rounds, (_, body)) in netlink::messages(&bytes).enumerate() {
                held(body);
                assert!(rounds < 100, "no end");
            }
            tcp_ends(&bytes);
        }
    }
}
