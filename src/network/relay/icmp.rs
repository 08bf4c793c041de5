//! Messages of ICMP and ICMPv6 (RFC 792, RFC 4443), read and made. The kernel adds the header of IP, and the
//! checksum of ICMPv6.

use std::net::{IpAddr, SocketAddr};

use crate::network::netlink::octets;
use crate::sys::inet::NetworkError;

/// The number of UDP in the header of IP.
pub const UDP: u8 = 17;

/// The number of ICMP, or of ICMPv6, in the header of IP.
pub fn protocol(v6: bool) -> u8 {
    if v6 { 58 } else { 1 }
}

/// An echo request, or its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo<'a> {
    /// By which whoever asked knows his own.
    pub id: u16,
    /// Which one it is.
    pub sequence: u16,
    /// What it carries.
    pub data: &'a [u8],
}

/// Why something could not be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A rule forbids it.
    Prohibited,
    /// The machine is not reached.
    Host,
    /// There is no way to its network.
    Network,
    /// Nobody listens on the port.
    Port,
    /// A link on the way takes packets of so many bytes at most.
    TooBig(u32),
    /// As a machine on the way said it: type and code of its message.
    Said(u8, u8),
}

/// The source, the destination and the echo request in what a raw socket of IPv4 has received.
pub fn request_v4(packet: &[u8]) -> Option<(IpAddr, IpAddr, Echo<'_>)> {
    let header = usize::from(packet.first()? & 15) * 4;
    if packet[0] >> 4 != 4 || header < 20 {
        return None;
    }
    let from: [u8; 4] = *packet.get(12..)?.first_chunk()?;
    let to: [u8; 4] = *packet.get(16..)?.first_chunk()?;
    Some((from.into(), to.into(), echo(packet.get(header..)?, 8)?))
}

/// An echo request of ICMPv6.
pub fn request_v6(message: &[u8]) -> Option<Echo<'_>> {
    echo(message, 128)
}

/// The reply to an echo request.
pub fn reply(message: &[u8], v6: bool) -> Option<Echo<'_>> {
    echo(message, if v6 { 129 } else { 0 })
}

fn echo(message: &[u8], kind: u8) -> Option<Echo<'_>> {
    if *message.first()? != kind || *message.get(1)? != 0 {
        return None;
    }
    let word = |at: usize| message.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    Some(Echo { id: word(4)?, sequence: word(6)?, data: message.get(8..)? })
}

/// The message of an echo request or its reply.
pub fn echo_message(echo: &Echo<'_>, is_reply: bool, v6: bool) -> Vec<u8> {
    let kind = match (v6, is_reply) {
        (false, false) => 8,
        (false, true) => 0,
        (true, false) => 128,
        (true, true) => 129,
    };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(echo.id.to_be_bytes());
    message.extend(echo.sequence.to_be_bytes());
    message.extend(echo.data);
    with_checksum(message, v6)
}

/// The error message for what was sent by `protocol` from one address to another, whose header began with
/// these eight bytes.
pub fn error_message(reason: Reason, from: IpAddr, to: IpAddr, protocol: u8, start: [u8; 8]) -> Vec<u8> {
    let v6 = to.is_ipv6();
    let (kind, code) = match (reason, v6) {
        (Reason::Prohibited, false) => (3, 13),
        (Reason::Prohibited, true) => (1, 1),
        (Reason::Host, false) => (3, 1),
        (Reason::Host, true) => (1, 3),
        (Reason::Network, false) => (3, 0),
        (Reason::Network, true) => (1, 0),
        (Reason::Port, false) => (3, 3),
        (Reason::Port, true) => (1, 4),
        (Reason::TooBig(_), false) => (3, 4),
        (Reason::TooBig(_), true) => (2, 0),
        (Reason::Said(kind, code), _) => (kind, code),
    };
    let mut message = vec![kind, code, 0, 0];
    // RFC 1191 gives it the lower half; RFC 4443 all of it.
    message.extend(if let Reason::TooBig(size) = reason { size } else { 0 }.to_be_bytes());
    message.extend(ip_header(from, to, protocol, start.len() as u16));
    message.extend(start);
    with_checksum(message, v6)
}

/// The header of IP for so many bytes; none for addresses of different families.
pub fn ip_header(from: IpAddr, to: IpAddr, protocol: u8, length: u16) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let [a, b] = (length + 20).to_be_bytes();
            let mut header = vec![0x45, 0, a, b, 0, 0, 0, 0, 64, protocol, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let [a, b] = length.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, a, b, protocol, 64];
            header.extend(from.octets());
            header.extend(to.octets());
            header
        }
        _ => Vec::new(),
    }
}

/// The checksum of a message with the addresses that it goes from and to (RFC 9293, section 3.1; RFC 8200,
/// section 8.1).
pub fn checksum_with_addresses(from: IpAddr, to: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let mut bytes = [octets(from), octets(to)].concat();
    bytes.extend((message.len() as u32).to_be_bytes());
    bytes.extend(u32::from(protocol).to_be_bytes());
    bytes.extend(message);
    checksum(&bytes)
}

/// The header of a UDP datagram without data.
pub fn udp_header(from: SocketAddr, to: SocketAddr) -> [u8; 8] {
    let [a, b] = from.port().to_be_bytes();
    let [c, d] = to.port().to_be_bytes();
    [a, b, c, d, 0, 8, 0, 0]
}

/// The header of an echo request.
pub fn echo_header(id: u16, sequence: u16, v6: bool) -> [u8; 8] {
    let [a, b] = id.to_be_bytes();
    let [c, d] = sequence.to_be_bytes();
    [if v6 { 128 } else { 8 }, 0, 0, 0, a, b, c, d]
}

/// What the container is told of an error that the network reported. That a packet is too big is passed on, too: the
/// host sends what is large in pieces from then on, but a program that looks for the largest whole packet (QUIC)
/// has to hear of it. Sizes that no link may have (RFC 791, RFC 8200) are nobody's.
pub fn reason_of(error: &NetworkError, v6: bool) -> Option<Reason> {
    match (error.icmp, v6) {
        (Some((3, 4)), false) => (68..=65535).contains(&error.info).then_some(Reason::TooBig(error.info)),
        (Some((2, _)), true) => (1280..=65535).contains(&error.info).then_some(Reason::TooBig(error.info)),
        (Some((kind @ (3 | 11), code)), false) | (Some((kind @ (1 | 3), code)), true) => {
            Some(Reason::Said(kind, code))
        }
        (Some(_), _) => None,
        (None, _) => reason_of_errno(error.errno),
    }
}

/// What the container is told when the host cannot send.
pub fn reason_of_errno(errno: i32) -> Option<Reason> {
    match errno {
        libc::ECONNREFUSED => Some(Reason::Port),
        libc::EHOSTUNREACH | libc::EHOSTDOWN => Some(Reason::Host),
        libc::ENETUNREACH | libc::EAFNOSUPPORT | libc::EINVAL | libc::EADDRNOTAVAIL => Some(Reason::Network),
        libc::EACCES | libc::EPERM => Some(Reason::Prohibited),
        _ => None,
    }
}

fn with_checksum(mut message: Vec<u8>, v6: bool) -> Vec<u8> {
    if !v6 {
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b)));
    let mut sum: u64 = words.map(u64::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn echoes_survive_their_message() {
        for v6 in [false, true] {
            let echo = Echo { id: 0x1234, sequence: 7, data: b"odd" };
            let message = echo_message(&echo, true, v6);
            assert_eq!(reply(&message, v6), Some(echo));
            assert_eq!(reply(&message, !v6), None);
        }
        let mut packet = vec![0x46; 24];
        packet[12..20].copy_from_slice(&[10, 0, 2, 100, 192, 0, 2, 1]);
        packet.extend(echo_message(&Echo { id: 1, sequence: 2, data: &[] }, false, false));
        let (from, to, echo) = request_v4(&packet).unwrap();
        assert_eq!((from.to_string().as_str(), to.to_string().as_str()), ("10.0.2.100", "192.0.2.1"));
        assert_eq!((echo.id, echo.sequence), (1, 2));
    }

    #[test]
    fn checksums_are_those_of_the_rfc() {
        // The example of RFC 1071, section 3.
        assert_eq!(checksum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        let message = echo_message(&Echo { id: 9, sequence: 1, data: &[1, 2, 3] }, false, false);
        assert_eq!(checksum(&message), 0);
    }

    #[test]
    fn errors_carry_what_they_are_about() {
        let ends: (SocketAddr, SocketAddr) =
            ("10.0.2.100:4660".parse().unwrap(), "192.0.2.7:53".parse().unwrap());
        let start = udp_header(ends.0, ends.1);
        let message = error_message(Reason::Port, ends.0.ip(), ends.1.ip(), UDP, start);
        assert_eq!((message[0], message[1], checksum(&message)), (3, 3, 0));
        assert_eq!(checksum(&message[8..28]), 0);
        assert_eq!(&message[28..32], &[0x12, 0x34, 0, 53]);
        let (from, to) = ("fd00::100".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let message = error_message(Reason::Prohibited, from, to, UDP, start);
        assert_eq!((message[0], message[1], message.len()), (1, 1, 8 + 40 + 8));
    }

    #[test]
    fn the_size_that_fits_is_told() {
        let error =
            |icmp, info| NetworkError { errno: libc::EMSGSIZE, icmp: Some(icmp), offender: None, info };
        let said = |icmp, info, v6| reason_of(&error(icmp, info), v6);
        assert_eq!(said((3, 4), 1300, false), Some(Reason::TooBig(1300)));
        assert_eq!(said((2, 0), 1300, true), Some(Reason::TooBig(1300)));
        // No link is so small, or nobody said how large it is.
        for (icmp, info, v6) in
            [((3, 4), 0, false), ((3, 4), 67, false), ((2, 0), 1279, true), ((3, 4), 70000, false)]
        {
            assert_eq!(said(icmp, info, v6), None);
        }
        let start = [0; 8];
        let (from, to) = ("10.0.2.100".parse().unwrap(), "192.0.2.7".parse().unwrap());
        let message = error_message(Reason::TooBig(1300), from, to, UDP, start);
        assert_eq!(message[..2], [3, 4]);
        assert_eq!(message[4..8], [0, 0, 5, 20]);
        assert_eq!(checksum(&message), 0);
        let (from, to) = ("fd00::100".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!(error_message(Reason::TooBig(1300), from, to, UDP, start)[..8], [2, 0, 0, 0, 0, 0, 5, 20]);
    }

    #[test]
    fn packets_of_any_bytes_do_no_harm() {
        let mut seed = 1_u64;
        let mut packet = [0_u8; 48];
        for _ in 0..200_000 {
            for byte in &mut packet {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 33) as u8;
            }
            let length = (seed >> 40) as usize % (packet.len() + 1);
            packet[0] = if seed & 1 << 60 == 0 { packet[0] } else { 0x45 };
            request_v4(&packet[..length]);
            request_v6(&packet[..length]);
            reply(&packet[..length], seed & 1 << 59 == 0);
        }
    }
}
