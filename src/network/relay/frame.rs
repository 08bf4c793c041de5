//! Frames of Ethernet with packets of IP in them: what they are, and answers to them. Pure. Before each frame
//! stands the header of [`crate::sys::packet`].

use std::net::{IpAddr, SocketAddr};

use super::icmp::{self, Reason};
use super::udp::Ends;
use crate::sys::packet::HEADER;

const ETHER: usize = 14;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// FIN, SYN, RST and ACK, of which a connection's first packet has only SYN.
const FLAGS: (u8, u8) = (0x17, 0x02);
/// `VIRTIO_NET_HDR_GSO_UDP_L4`: a run of datagrams of one length.
const RUN: u8 = 5;

/// What a container has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// The first packet of a connection.
    First(Ends),
    /// A datagram of UDP, or a run of them with the length of each.
    Datagram(Ends, &'a [u8], Option<u16>),
    /// A part of a datagram of UDP.
    Part(Part<'a>),
    /// The kernel's, as it is.
    Other,
    /// Nobody's: what is for many receivers.
    Nothing,
}

/// A fragment of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// From where to where, and the number that its parts have in common.
    pub key: (IpAddr, IpAddr, u32),
    /// Where it belongs (bytes).
    pub at: usize,
    /// Whether more follows.
    pub more: bool,
    /// What it is.
    pub bytes: &'a [u8],
}

/// The addresses, the protocol and what follows the header of IP.
struct Packet<'a> {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    body: &'a [u8],
    /// The number of the datagram, where this belongs, whether more follows.
    fragment: Option<(u32, usize, bool)>,
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

fn packet(bytes: &[u8]) -> Option<Packet<'_>> {
    match bytes.first()? >> 4 {
        4 => {
            let (header, length) = (usize::from(bytes[0] & 15) * 4, usize::from(word(bytes, 2)?));
            if header < 20 || length < header {
                return None;
            }
            // What is longer than a packet can be has no length.
            let body = bytes.get(header..if bytes.len() > 0xffff { bytes.len() } else { length })?;
            let from: [u8; 4] = bytes.get(12..16)?.try_into().ok()?;
            let to: [u8; 4] = bytes.get(16..20)?.try_into().ok()?;
            let (number, place) = (word(bytes, 4)?, word(bytes, 6)?);
            let (at, more) = (usize::from(place & 0x1fff) * 8, place & 0x2000 != 0);
            let fragment = (at > 0 || more).then_some((u32::from(number), at, more));
            Some(Packet { from: from.into(), to: to.into(), protocol: *bytes.get(9)?, body, fragment })
        }
        6 => {
            let from: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            let to: [u8; 16] = bytes.get(24..40)?.try_into().ok()?;
            let length = usize::from(word(bytes, 4)?);
            let end = if length == 0 { bytes.len() } else { 40 + length };
            let (protocol, body, fragment) = after_extensions(*bytes.get(6)?, bytes.get(40..end)?)?;
            Some(Packet { from: from.into(), to: to.into(), protocol, body, fragment })
        }
        _ => None,
    }
}

/// What is behind the extension headers of IPv6 (RFC 8200, section 4): protocol, body, which part of what it is.
#[allow(clippy::type_complexity, reason = "three things that are used at once")]
fn after_extensions(mut kind: u8, mut rest: &[u8]) -> Option<(u8, &[u8], Option<(u32, usize, bool)>)> {
    let mut fragment = None;
    loop {
        match kind {
            // Hop-by-hop options, routing, destination options.
            0 | 43 | 60 => {
                kind = *rest.first()?;
                rest = rest.get((usize::from(*rest.get(1)?) + 1) * 8..)?;
            }
            44 => {
                let place = word(rest, 2)?;
                let number = u32::from_be_bytes(rest.get(4..8)?.try_into().ok()?);
                fragment = Some((number, usize::from(place >> 3) * 8, place & 1 != 0));
                kind = *rest.first()?;
                rest = rest.get(8..)?;
                // What follows is a header only in the first part.
                return Some((kind, rest, fragment));
            }
            _ => return Some((kind, rest, fragment)),
        }
    }
}

/// What a frame with its header is to a router.
pub fn kind(frame: &[u8]) -> Kind<'_> {
    known(frame).unwrap_or(Kind::Other)
}

fn known(frame: &[u8]) -> Option<Kind<'_>> {
    let (header, ether) = frame.split_at_checked(HEADER)?;
    let kind = word(ether, 12)?;
    if kind == ARP {
        return None;
    }
    if kind != IPV4 && kind != IPV6 {
        return Some(Kind::Nothing);
    }
    let packet = packet(&ether[ETHER..])?;
    // Neighbours of IPv6 ask several at a time.
    if ether[0] & 1 != 0 {
        return (packet.protocol != ICMPV6).then_some(Kind::Nothing);
    }
    match (packet.protocol, packet.fragment) {
        (TCP, None) if *packet.body.get(13)? & FLAGS.0 == FLAGS.1 => {
            let ends = (
                SocketAddr::new(packet.from, word(packet.body, 0)?),
                SocketAddr::new(packet.to, word(packet.body, 2)?),
            );
            Some(Kind::First(ends))
        }
        (UDP, None) => {
            let (ends, bytes) = datagram(packet.from, packet.to, packet.body)?;
            let run = (header[1] & 0x7f == RUN).then(|| u16::from_ne_bytes([header[4], header[5]]));
            Some(Kind::Datagram(ends, bytes, run.filter(|segment| *segment > 0)))
        }
        (UDP, Some((number, at, more))) => {
            Some(Kind::Part(Part { key: (packet.from, packet.to, number), at, more, bytes: packet.body }))
        }
        _ => None,
    }
}

/// The ends and the content of a datagram of UDP.
pub fn datagram(from: IpAddr, to: IpAddr, udp: &[u8]) -> Option<(Ends, &[u8])> {
    let ends = (SocketAddr::new(from, word(udp, 0)?), SocketAddr::new(to, word(udp, 2)?));
    let length = usize::from(word(udp, 4)?);
    // What is longer than a datagram can be has no length.
    let end = if length < 8 { udp.len() } else { length };
    Some((ends, udp.get(8..end)?))
}

/// Datagrams that come in parts.
#[derive(Default)]
pub struct Parts {
    waiting: Vec<(Whole, Vec<u8>, Covered)>,
}

/// Whose parts they are: source, destination, identification.
type Whole = (IpAddr, IpAddr, u32);

/// Which bytes are there, and the length once it is known.
#[derive(Default)]
struct Covered {
    ranges: Vec<(usize, usize)>,
    length: Option<usize>,
}

/// Datagrams whose parts are waited for at most: the oldest one is given up.
const WAITING: usize = 32;

impl Parts {
    /// Takes a part; the whole, header of UDP and all, if it was the last one missing. Parts that overlap belong to
    /// nobody (RFC 5722).
    pub fn take(&mut self, part: Part<'_>) -> Option<Vec<u8>> {
        let end = part.at + part.bytes.len();
        if end > usize::from(u16::MAX) || part.bytes.is_empty() {
            return None;
        }
        let place = match self.waiting.iter().position(|(key, ..)| *key == part.key) {
            Some(place) => place,
            None => {
                if self.waiting.len() >= WAITING {
                    self.waiting.remove(0);
                }
                self.waiting.push((part.key, Vec::new(), Covered::default()));
                self.waiting.len() - 1
            }
        };
        let (_, bytes, covered) = &mut self.waiting[place];
        if covered.ranges.iter().any(|(from, to)| part.at < *to && *from < end) {
            self.waiting.remove(place);
            return None;
        }
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[part.at..end].copy_from_slice(part.bytes);
        covered.ranges.push((part.at, end));
        if !part.more {
            covered.length = Some(end);
        }
        let there: usize = covered.ranges.iter().map(|(from, to)| to - from).sum();
        if covered.length == Some(there) && bytes.len() == there {
            return Some(self.waiting.remove(place).1);
        }
        None
    }
}

/// The answer to a connection's first packet that is refused: a reset, or an error of ICMP.
pub fn refusal(frame: &[u8], reason: Option<Reason>) -> Option<Vec<u8>> {
    let ether = frame.get(HEADER..)?;
    let packet = packet(ether.get(ETHER..)?)?;
    let start: [u8; 8] = packet.body.get(..8)?.try_into().ok()?;
    let (protocol, mut message) = match reason {
        None => (TCP, reset(packet.body)?),
        Some(reason) => {
            let message = icmp::error_message(reason, packet.from, packet.to, TCP, start);
            (icmp::protocol(packet.to.is_ipv6()), message)
        }
    };
    // From whoever was asked to who has asked.
    let (from, to) = (packet.to, packet.from);
    if protocol != icmp::protocol(false) {
        let at = if protocol == TCP { 16 } else { 2 };
        let sum = icmp::checksum_with_addresses(from, to, protocol, &message);
        message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    let mut answer = vec![0; HEADER];
    answer.extend(&ether[6..12]);
    answer.extend(&ether[..6]);
    answer.extend(&ether[12..14]);
    answer.extend(icmp::ip_header(from, to, protocol, message.len() as u16));
    answer.extend(message);
    Some(answer)
}

/// A reset of a connection by the first packet's header (RFC 9293, section 3.10.7.1); its checksum is missing.
fn reset(tcp: &[u8]) -> Option<Vec<u8>> {
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    let mut message = tcp.get(2..4)?.to_vec();
    message.extend(&tcp[..2]);
    message.extend([0; 4]);
    message.extend(sequence.wrapping_add(1).to_be_bytes());
    // Five words, RST and ACK.
    message.extend([0x50, 0x14, 0, 0, 0, 0, 0, 0]);
    Some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u16, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; HEADER];
        frame.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        frame.extend(kind.to_be_bytes());
        frame.extend(packet);
        frame
    }

    fn v4(protocol: u8, place: u16, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0];
        packet.extend((20 + body.len() as u16).to_be_bytes());
        packet.extend([0, 9]);
        packet.extend(place.to_be_bytes());
        packet.extend([64, protocol, 0, 0, 10, 0, 2, 100, 192, 0, 2, 7]);
        packet.extend(body);
        frame(IPV4, &packet)
    }

    fn tcp(flags: u8) -> Vec<u8> {
        vec![0x12, 0x34, 0, 80, 0, 0, 0, 7, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]
    }

    fn udp(data: &[u8]) -> Vec<u8> {
        let mut udp = vec![0x12, 0x34, 0, 53];
        udp.extend((8 + data.len() as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(data);
        udp
    }

    fn ends(port: u16) -> Ends {
        ("10.0.2.100:4660".parse().unwrap(), format!("192.0.2.7:{port}").parse().unwrap())
    }

    #[test]
    fn frames_are_told_apart() {
        assert_eq!(kind(&v4(TCP, 0, &tcp(2))), Kind::First(ends(80)));
        assert_eq!(kind(&v4(TCP, 0, &tcp(0x12))), Kind::Other);
        assert_eq!(kind(&v4(UDP, 0, &udp(b"who"))), Kind::Datagram(ends(53), b"who", None));
        assert_eq!(kind(&v4(1, 0, &[8, 0])), Kind::Other);
        assert_eq!(kind(&frame(ARP, &[0; 28])), Kind::Other);
        assert_eq!(kind(&frame(0x88cc, &[])), Kind::Nothing);
        let mut many = v4(UDP, 0, &udp(b"who"));
        many[HEADER] = 1;
        assert_eq!(kind(&many), Kind::Nothing);
        let mut run = v4(UDP, 0, &udp(b"abcdef"));
        run[1] = RUN;
        run[4..6].copy_from_slice(&3_u16.to_ne_bytes());
        assert_eq!(kind(&run), Kind::Datagram(ends(53), b"abcdef", Some(3)));
        let mut v6 = vec![0x60, 0, 0, 0, 0, 20, TCP, 64];
        v6.extend([0xfd; 16]);
        v6.extend([0x20; 16]);
        v6.extend(tcp(2));
        assert!(
            matches!(kind(&frame(IPV6, &v6)), Kind::First((from, to)) if from.is_ipv6() && to.port() == 80)
        );
    }

    #[test]
    fn parts_make_a_whole_in_any_order() {
        let whole = udp(&[7; 32]);
        let mut parts = Parts::default();
        let mut take = |at: usize, end: usize, more: bool| {
            let place = (at / 8) as u16 | if more { 0x2000 } else { 0 };
            let frame = v4(UDP, place, &whole[at..end]);
            let Kind::Part(part) = kind(&frame) else { panic!("a part") };
            parts.take(part)
        };
        assert_eq!(take(16, 40, false), None);
        assert_eq!(take(0, 16, true).as_deref(), Some(&whole[..]));
        // One that overlaps spoils all.
        assert_eq!(take(0, 16, true), None);
        assert_eq!(take(8, 24, true), None);
        assert_eq!(take(16, 40, false), None);
        let (from, to) = (IpAddr::from([10, 0, 2, 100]), IpAddr::from([192, 0, 2, 7]));
        assert_eq!(datagram(from, to, &whole), Some((ends(53), &[7; 32][..])));
    }

    #[test]
    fn refusals_are_valid_answers() {
        let syn = v4(TCP, 0, &tcp(2));
        let answer = refusal(&syn, None).unwrap();
        let packet = packet(&answer[HEADER + ETHER..]).unwrap();
        assert_eq!(
            (packet.protocol, packet.body[13], &packet.body[..4]),
            (TCP, 0x14, &[0, 80, 0x12, 0x34][..])
        );
        assert_eq!(packet.body[8..12], 8_u32.to_be_bytes());
        assert_eq!(icmp::checksum_with_addresses(packet.from, packet.to, TCP, packet.body), 0);
        assert_eq!(answer[HEADER..HEADER + 6], syn[HEADER + 6..HEADER + 12]);
        let told = refusal(&syn, Some(Reason::Host)).unwrap();
        assert_eq!(&told[HEADER + ETHER + 20..][..2], &[3, 1]);
    }

    #[test]
    fn frames_of_any_bytes_do_no_harm() {
        let good = [v4(TCP, 0, &tcp(2)), v4(UDP, 0x2000, &udp(b"who")), v4(UDP, 0, &udp(b"who"))];
        let mut seed = 1_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize
        };
        let mut parts = Parts::default();
        for _ in 0..200_000 {
            let mut bytes = good[random() % 3].clone();
            for _ in 0..1 + random() % 6 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() % (bytes.len() + 1));
            if let Kind::Part(part) = kind(&bytes) {
                parts.take(part);
            }
            refusal(&bytes, None);
            refusal(&bytes, Some(Reason::Prohibited));
        }
    }
}
