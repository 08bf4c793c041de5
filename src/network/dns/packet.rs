//! Messages of the domain name system (RFC 1035), read without trust: by a container's programs they may be
//! anything.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of a message's header.
pub const HEADER: usize = 12;
/// The class of the internet.
pub const IN: u16 = 1;
/// Longest name on the wire (RFC 1035, 2.3.4).
const NAME_MAX: usize = 255;
/// More records of an answer are not looked at.
const RECORDS: usize = 512;

/// Types of records (RFC 1035, 3596, 6891, 5936).
#[allow(missing_docs, reason = "the names are those of the registry")]
pub mod kind {
    pub const A: u16 = 1;
    pub const CNAME: u16 = 5;
    pub const PTR: u16 = 12;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// Answers' codes (RFC 1035, 4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the registry")]
pub enum Code {
    NoError = 0,
    FormErr = 1,
    ServFail = 2,
    NxDomain = 3,
    NotImp = 4,
    Refused = 5,
}

/// The fixed part of a message.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// By which an answer is known.
    pub id: u16,
    flags: u16,
    counts: [u16; 4],
}

impl Header {
    /// Reads it; none if the message is too short to have one.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let word = |at| u16_at(packet, at);
        Some(Self { id: word(0)?, flags: word(2)?, counts: [word(4)?, word(6)?, word(8)?, word(10)?] })
    }

    /// Whether it is an answer.
    pub fn is_answer(self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// 0 for a plain question.
    pub fn operation(self) -> u16 {
        self.flags >> 11 & 0xf
    }

    /// The code of an answer.
    pub fn code(self) -> u16 {
        self.flags & 0xf
    }

    /// How many questions it has.
    pub fn questions(self) -> u16 {
        self.counts[0]
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name as text: lower case, without a final dot, empty for the root. None if it has bytes that no
    /// host's name has: then it means the same to nobody.
    pub name: Option<String>,
    /// The type of record.
    pub kind: u16,
    /// The class.
    pub class: u16,
    /// Where the question ends in the message.
    pub end: usize,
    /// The bytes of answers that the asker takes by UDP.
    pub room: usize,
    /// Whether it has an OPT record (EDNS), which the answer needs then, too.
    pub extended: bool,
}

/// Reads a message with one question; none if it is malformed.
pub fn question(packet: &[u8]) -> Option<Question> {
    let header = Header::read(packet).filter(|header| header.questions() == 1)?;
    let (labels, at) = name(packet, HEADER)?;
    let (kind, class) = (u16_at(packet, at)?, u16_at(packet, at + 2)?);
    let end = at + 4;
    let mut question = Question { name: text(&labels), kind, class, end, room: 512, extended: false };
    if header.is_answer() {
        return Some(question);
    }
    let mut at = end;
    for _ in 0..header.counts[1..].iter().map(|count| usize::from(*count)).sum::<usize>().min(RECORDS) {
        let record = record(packet, at)?;
        if record.kind == kind::OPT && !question.extended {
            question.extended = true;
            question.room = usize::from(record.class).clamp(512, 4096);
        }
        at = record.end;
    }
    Some(question)
}

/// A record of an answer.
struct Record<'p> {
    labels: Vec<&'p [u8]>,
    kind: u16,
    class: u16,
    /// Where its data is in the message.
    data: usize,
    end: usize,
}

fn record(packet: &[u8], at: usize) -> Option<Record<'_>> {
    let (labels, at) = name(packet, at)?;
    let (kind, class) = (u16_at(packet, at)?, u16_at(packet, at + 2)?);
    let length = usize::from(u16_at(packet, at + 8)?);
    let data = at + 10;
    let end = data.checked_add(length).filter(|end| *end <= packet.len())?;
    Some(Record { labels, kind, class, data, end })
}

/// The labels of a name that begins at `at`, and where what is behind it begins. A pointer (RFC 1035, 4.1.4)
/// must point further back than all before it, so that they come to an end.
fn name(packet: &[u8], mut at: usize) -> Option<(Vec<&[u8]>, usize)> {
    let mut labels = Vec::new();
    let mut length = 0;
    let mut behind = None;
    let mut lowest = at;
    loop {
        let first = *packet.get(at)?;
        match first >> 6 {
            0 if first == 0 => return Some((labels, behind.unwrap_or(at + 1))),
            0 => {
                let label = packet.get(at + 1..at + 1 + usize::from(first))?;
                length += label.len() + 1;
                if length >= NAME_MAX {
                    return None;
                }
                labels.push(label);
                at += 1 + label.len();
            }
            3 => {
                let target = usize::from(u16_at(packet, at)? & 0x3fff);
                if target >= lowest {
                    return None;
                }
                behind.get_or_insert(at + 2);
                lowest = target;
                at = target;
            }
            _ => return None,
        }
    }
}

/// A name as text, if it has nothing in it but what is in hosts' names.
fn text(labels: &[&[u8]]) -> Option<String> {
    let usual = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let mut text = String::new();
    for label in labels {
        if !label.iter().all(usual) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    Some(text)
}

/// The addresses that an answer gives for the name that was asked for: its own, and those of the names that it
/// says are the same. What else it brings along is not looked at, for whoever owns one name could say anything
/// of others by it.
pub fn addresses(packet: &[u8]) -> Option<(String, Vec<IpAddr>)> {
    let header = Header::read(packet).filter(|header| header.is_answer() && header.code() == 0)?;
    let question = question(packet).filter(|question| question.class == IN)?;
    let asked = question.name?;
    let mut records = Vec::new();
    let mut at = question.end;
    for _ in 0..usize::from(header.counts[1]).min(RECORDS) {
        let record = record(packet, at)?;
        at = record.end;
        if record.class == IN && matches!(record.kind, kind::A | kind::AAAA | kind::CNAME) {
            records.push(record);
        }
    }
    let mut current = asked.clone();
    // A chain of names is at most as long as there are records: it need not come to an end.
    for _ in 0..=records.len() {
        let own = |record: &&Record<'_>| text(&record.labels).is_some_and(|name| name == current);
        let found: Vec<IpAddr> =
            records.iter().filter(own).filter_map(|record| address(packet, record)).collect();
        if !found.is_empty() {
            return Some((asked, found));
        }
        let alias = records.iter().filter(own).find(|record| record.kind == kind::CNAME);
        let Some(alias) = alias else { break };
        let (labels, _) = name(packet, alias.data)?;
        current = text(&labels)?;
    }
    None
}

fn address(packet: &[u8], record: &Record<'_>) -> Option<IpAddr> {
    let data = packet.get(record.data..record.end)?;
    match record.kind {
        kind::A => <[u8; 4]>::try_from(data).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        kind::AAAA => <[u8; 16]>::try_from(data).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

/// The data of a record that we give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// Of a name.
    Address(IpAddr),
    /// Of an address: a name.
    Name(String),
}

/// Writes the answer to a question: its bytes up to `question.end`, and what we say to it. By UDP it is cut at
/// what the asker takes, and says so.
pub fn answer(packet: &[u8], question: &Question, code: Code, data: &[Data], over_tcp: bool) -> Vec<u8> {
    let room = if over_tcp { usize::from(u16::MAX) } else { question.room };
    let mut out = packet.get(..question.end).unwrap_or_default().to_vec();
    let opt = if question.extended { 11 } else { 0 };
    let mut written = 0_u16;
    let mut cut = false;
    for item in data {
        let before = out.len();
        // The name is the question's.
        out.extend([0xc0, HEADER as u8]);
        let (kind, bytes) = match item {
            Data::Address(IpAddr::V4(address)) => (kind::A, address.octets().to_vec()),
            Data::Address(IpAddr::V6(address)) => (kind::AAAA, address.octets().to_vec()),
            Data::Name(name) => (kind::PTR, wire(name)),
        };
        out.extend(kind.to_be_bytes());
        out.extend(IN.to_be_bytes());
        // Nobody is to keep it: containers come and go.
        out.extend(0_u32.to_be_bytes());
        out.extend((bytes.len() as u16).to_be_bytes());
        out.extend(bytes);
        if out.len() + opt > room {
            out.truncate(before);
            cut = true;
            break;
        }
        written += 1;
    }
    if question.extended {
        // The root, OPT, our room for UDP, no further flags, no data.
        out.extend([0, 0, kind::OPT as u8, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    }
    set_header(&mut out, code, cut, [1, written, 0, u16::from(question.extended)]);
    out
}

/// The answer to a message that has no question that could be read: its header alone. None if it has none.
pub fn bare_answer(packet: &[u8], code: Code) -> Option<Vec<u8>> {
    let mut out = packet.get(..HEADER)?.to_vec();
    set_header(&mut out, code, false, [0; 4]);
    Some(out)
}

fn set_header(out: &mut [u8], code: Code, cut: bool, counts: [u16; 4]) {
    let Some(header) = out.get_mut(..HEADER) else { return };
    // An answer, the operation and "recursion desired" as asked; "recursion available".
    header[2] = 0x80 | header[2] & 0x79 | if cut { 2 } else { 0 };
    header[3] = 0x80 | code as u8;
    for (place, count) in header[4..].chunks_exact_mut(2).zip(counts) {
        place.copy_from_slice(&count.to_be_bytes());
    }
}

/// A name as it stands in a message. What is no name of a host is none here.
pub fn wire(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|label| (1..=63).contains(&label.len())) {
        if out.len() + label.len() + 2 > NAME_MAX {
            break;
        }
        out.push(label.len() as u8);
        out.extend(label.bytes());
    }
    out.push(0);
    out
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
pub fn reversed(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0; 4];
        let mut parts = rest.split('.');
        for octet in octets.iter_mut().rev() {
            let part = parts.next()?;
            *octet = part.parse().ok().filter(|_| part.bytes().all(|byte| byte.is_ascii_digit()))?;
        }
        return parts.next().is_none().then(|| IpAddr::from(octets));
    }
    let rest = name.strip_suffix(".ip6.arpa")?;
    let mut number = 0_u128;
    let mut parts = rest.split('.');
    for at in 0..32 {
        let part = parts.next().filter(|part| part.len() == 1)?;
        number |= u128::from(u8::from_str_radix(part, 16).ok()?) << (4 * at);
    }
    parts.next().is_none().then(|| Ipv6Addr::from(number).into())
}

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A question for a name.
    pub fn ask(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        out.extend(wire(name));
        out.extend(kind.to_be_bytes());
        out.extend(IN.to_be_bytes());
        out
    }

    /// An answer with records: owner, type, data.
    pub fn reply(name: &str, kind: u16, records: &[(&str, u16, Vec<u8>)]) -> Vec<u8> {
        let mut out = ask(name, kind);
        out[2] = 0x81;
        out[3] = 0x80;
        out[7] = records.len() as u8;
        for (owner, kind, data) in records {
            out.extend(wire(owner));
            out.extend(kind.to_be_bytes());
            out.extend(IN.to_be_bytes());
            out.extend(60_u32.to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(data);
        }
        out
    }

    #[test]
    fn questions_are_read() {
        let read = question(&ask("WWW.Example.org", kind::AAAA)).expect("a question");
        assert_eq!(read.name.as_deref(), Some("www.example.org"));
        assert_eq!((read.kind, read.class, read.room, read.extended), (kind::AAAA, IN, 512, false));
        let mut extended = ask("a", kind::A);
        extended[11] = 1;
        extended.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 0]);
        let read = question(&extended).expect("a question");
        assert_eq!((read.room, read.extended), (1232, true));
        assert_eq!(question(&ask("", kind::A)).expect("the root").name.as_deref(), Some(""));
    }

    #[test]
    fn a_label_with_a_dot_is_no_name() {
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 11];
        packet.extend(b"example.org\0\0\x01\0\x01");
        assert_eq!(question(&packet).expect("a question").name, None);
    }

    #[test]
    fn malformed_questions_are_none() {
        let good = ask("www.example.org", kind::A);
        for length in 0..good.len() {
            assert_eq!(question(&good[..length]), None, "{length} bytes");
        }
        let mut two = good.clone();
        two[5] = 2;
        assert_eq!(question(&two), None);
        // A pointer to itself, forward, into the header's end and round about.
        for pointer in [[0xc0, 12], [0xc0, 14], [0xff, 0xff]] {
            let mut packet = good[..HEADER].to_vec();
            packet.extend(pointer);
            packet.extend([0, 1, 0, 1]);
            assert_eq!(question(&packet), None, "{pointer:?}");
        }
        let mut reserved = good.clone();
        reserved[HEADER] = 0x80;
        assert_eq!(question(&reserved), None);
        let mut long = good[..HEADER].to_vec();
        for _ in 0..5 {
            long.push(63);
            long.extend([b'a'; 63]);
        }
        long.extend([0, 0, 1, 0, 1]);
        assert_eq!(question(&long), None);
    }

    #[test]
    fn answers_are_followed_from_the_question_alone() {
        let a = |last| vec![192, 0, 2, last];
        let both = reply("a.org", kind::A, &[("a.org", kind::A, a(1)), ("a.org", kind::A, a(2))]);
        let (name, found) = addresses(&both).expect("addresses");
        assert_eq!((name.as_str(), found.len()), ("a.org", 2));
        let chain = reply(
            "a.org",
            kind::A,
            &[
                ("c.net", kind::A, a(3)),
                ("a.org", kind::CNAME, wire("b.org")),
                ("b.org", kind::CNAME, wire("c.net")),
            ],
        );
        assert_eq!(addresses(&chain).expect("addresses").1, [IpAddr::from([192, 0, 2, 3])]);
        let stray = reply("a.org", kind::A, &[("example.org", kind::A, a(4))]);
        assert_eq!(addresses(&stray), None);
        let circle = reply(
            "a.org",
            kind::A,
            &[("a.org", kind::CNAME, wire("b.org")), ("b.org", kind::CNAME, wire("a.org"))],
        );
        assert_eq!(addresses(&circle), None);
        let short = reply("a.org", kind::A, &[("a.org", kind::A, vec![1, 2, 3])]);
        assert_eq!(addresses(&short), None);
        assert_eq!(addresses(&ask("a.org", kind::A)), None);
        for length in 0..both.len() {
            // Whatever was cut off: no panic, nothing that was not there.
            let _ = addresses(&both[..length]);
        }
    }

    #[test]
    fn nothing_at_random_panics() {
        let seeds = [
            ask("www.example.org", kind::A),
            reply(
                "a.org",
                kind::A,
                &[("a.org", kind::CNAME, vec![0xc0, 12]), ("a.org", kind::A, vec![1, 2, 3, 4])],
            ),
        ];
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        for seed in seeds {
            for _ in 0..50_000 {
                let mut packet = seed.clone();
                for _ in 0..random() % 6 {
                    let at = random() % packet.len();
                    packet[at] = random() as u8;
                }
                packet.truncate(packet.len() - random() % 8);
                if let Some(question) = question(&packet) {
                    assert!(question.end <= packet.len());
                    let out = answer(
                        &packet,
                        &question,
                        Code::NoError,
                        &[Data::Address([1, 2, 3, 4].into())],
                        false,
                    );
                    assert!(out.len() <= question.room);
                }
                let _ = addresses(&packet);
                let _ = bare_answer(&packet, Code::FormErr);
            }
        }
    }

    #[test]
    fn long_answers_are_cut_by_udp_alone() {
        let packet = ask("many", kind::AAAA);
        let question = question(&packet).expect("a question");
        let data: Vec<Data> =
            (0..100).map(|n| Data::Address(IpAddr::V6(Ipv6Addr::from(u128::from(n as u8))))).collect();
        let cut = answer(&packet, &question, Code::NoError, &data, false);
        assert!(cut.len() <= 512 && cut[2] & 2 != 0);
        let whole = answer(&packet, &question, Code::NoError, &data, true);
        assert_eq!((whole[2] & 2, u16_at(&whole, 6)), (0, Some(100)));
    }

    #[test]
    fn addresses_are_told_backwards() {
        assert_eq!(reversed("5.0.89.10.in-addr.arpa"), Some(IpAddr::from([10, 89, 0, 5])));
        for text in [
            "0.89.10.in-addr.arpa",
            "1.5.0.89.10.in-addr.arpa",
            "x.0.0.1.in-addr.arpa",
            "+5.0.0.1.in-addr.arpa",
            "256.0.0.1.in-addr.arpa",
            "ip6.arpa",
        ] {
            assert_eq!(reversed(text), None, "{text}");
        }
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(reversed(six), Some("fd00::1".parse().expect("an address")));
    }
}
