//! Host names to addresses: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! The C library's resolver loads plug-ins at run time, which a static binary cannot, so this
//! asks by itself (RFC 1035): A and AAAA over UDP, over TCP when the answer is cut.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

const TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
const A: u16 = 1;
const AAAA: u16 = 28;

/// The resolver that the HTTP client uses.
#[derive(Debug, Clone, Copy)]
pub struct OwnResolver;

impl Resolver for OwnResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        let mut found = self.empty();
        for address in addresses(host).map_err(ureq::Error::Io)?.into_iter().take(16) {
            found.push(SocketAddr::new(address, port));
        }
        if found.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(found) }
    }
}

/// The addresses of a host; none if there is no such host.
fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    let known = in_hosts(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), bare);
    if !known.is_empty() {
        return Ok(known);
    }
    // RFC 6761: never to be asked of a server.
    if bare == "localhost" || bare.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let (servers, search) = configuration(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default());
    let mut names = vec![bare.to_owned()];
    let searched = search.iter().map(|domain| format!("{bare}.{domain}"));
    if bare.contains('.') {
        names.extend(searched)
    } else {
        names.splice(0..0, searched).for_each(drop)
    }
    let mut failure = None;
    for name in names {
        let mut found = Vec::new();
        for kind in [A, AAAA] {
            match ask_servers(&servers, &name, kind) {
                Ok(more) => found.extend(more),
                Err(error) => failure = Some(error),
            }
        }
        if !found.is_empty() {
            return Ok(found);
        }
    }
    failure.map_or(Ok(Vec::new()), Err)
}

fn in_hosts(text: &str, host: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        if let Some(address) = words.next().and_then(|word| word.parse().ok())
            && words.any(|name| name.eq_ignore_ascii_case(host))
        {
            found.push(address);
        }
    }
    found
}

/// Name servers and search domains of resolv.conf(5).
fn configuration(text: &str) -> (Vec<IpAddr>, Vec<String>) {
    let (mut servers, mut search) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                let address = words.next().map(|word| word.split('%').next().unwrap_or(word));
                servers.extend(address.and_then(|word| word.parse::<IpAddr>().ok()));
            }
            Some("search" | "domain") => search = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    if servers.is_empty() {
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    (servers, search)
}

fn ask_servers(servers: &[IpAddr], name: &str, kind: u16) -> io::Result<Vec<IpAddr>> {
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for _ in 0..ATTEMPTS {
        for server in servers {
            match ask(SocketAddr::new(*server, 53), name, kind) {
                Ok(found) => return Ok(found),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

fn ask(server: SocketAddr, name: &str, kind: u16) -> io::Result<Vec<IpAddr>> {
    let id = crate::sys::atomic::random()? as u16;
    let query = query(id, name, kind).ok_or(io::ErrorKind::InvalidInput)?;
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    // Connected: the kernel drops what others send.
    socket.connect(server)?;
    socket.send(&query)?;
    let mut buffer = [0; 4096];
    loop {
        let count = socket.recv(&mut buffer)?;
        match answer(&buffer[..count], &query, kind) {
            Answer::Foreign => {}
            Answer::Cut => return ask_tcp(server, &query, kind),
            Answer::Found(found) => return Ok(found),
            Answer::Refused => return Err(io::Error::other("the name server refused")),
        }
    }
}

fn ask_tcp(server: SocketAddr, query: &[u8], kind: u16) -> io::Result<Vec<IpAddr>> {
    let mut stream = TcpStream::connect_timeout(&server, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(&(query.len() as u16).to_be_bytes())?;
    stream.write_all(query)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    match answer(&bytes, query, kind) {
        Answer::Found(found) => Ok(found),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A question with recursion desired; `None` if the name cannot be one.
fn query(id: u16, name: &str, kind: u16) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(name.len() + 18);
    bytes.extend(id.to_be_bytes());
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|n| (1..=63).contains(n))?;
        bytes.push(length);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    (name.len() <= 253).then_some(bytes)
}

#[derive(Debug, PartialEq)]
enum Answer {
    /// Not an answer to this question.
    Foreign,
    /// Too long for UDP.
    Cut,
    /// The addresses; none if the name does not exist.
    Found(Vec<IpAddr>),
    /// The server failed or refused.
    Refused,
}

fn answer(bytes: &[u8], query: &[u8], kind: u16) -> Answer {
    let question = &query[12..];
    let same = bytes.len() >= query.len() && bytes[..2] == query[..2] && bytes[2] & 0x80 != 0;
    if !same || !bytes[12..query.len()].eq_ignore_ascii_case(question) {
        return Answer::Foreign;
    }
    if bytes[2] & 2 != 0 {
        return Answer::Cut;
    }
    match bytes[3] & 15 {
        0 | 3 => {}
        _ => return Answer::Refused,
    }
    let count = u16::from_be_bytes([bytes[6], bytes[7]]);
    let mut rest = &bytes[query.len()..];
    let mut found = Vec::new();
    for _ in 0..count {
        let Some((record_kind, data, next)) = record(rest) else { break };
        // Aliases (CNAME) are followed by the server: all addresses of the answer are the host's.
        match (record_kind, data.len()) {
            (A, 4) if kind == A => found.extend(<[u8; 4]>::try_from(data).map(IpAddr::from)),
            (AAAA, 16) if kind == AAAA => found.extend(<[u8; 16]>::try_from(data).map(IpAddr::from)),
            _ => {}
        }
        rest = next;
    }
    Answer::Found(found)
}

/// Splits a resource record off: its type and data, and what follows.
fn record(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let mut at = 0;
    loop {
        match *bytes.get(at)? {
            0 => break at += 1,
            // A pointer to an earlier name ends this one.
            length if length & 0xc0 == 0xc0 => break at += 2,
            length => at += 1 + usize::from(length),
        }
    }
    let fixed = bytes.get(at..at + 10)?;
    let kind = u16::from_be_bytes([fixed[0], fixed[1]]);
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let data = bytes.get(at + 10..at + 10 + length)?;
    Some((kind, data, &bytes[at + 10 + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_others_ignored() {
        let query = query(7, "r.example", A).unwrap();
        let mut bytes = query.clone();
        bytes[2] |= 0x80;
        bytes[7] = 2;
        bytes.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 0, 0, 1]);
        assert_eq!(answer(&bytes, &query, A), Answer::Found(vec!["10.0.0.1".parse().unwrap()]));
        for cut in 0..bytes.len() {
            let _ = answer(&bytes[..cut], &query, A);
        }
        bytes[0] = 9;
        assert_eq!(answer(&bytes, &query, A), Answer::Foreign);
    }

    #[test]
    fn files() {
        let hosts = "127.0.0.1 localhost a # b\n::1 a\n";
        assert_eq!(in_hosts(hosts, "A").len(), 2);
        assert!(in_hosts(hosts, "b").is_empty());
        let (servers, search) = configuration("nameserver 1.1.1.1\nsearch x y\nnameserver fe80::1%eth0\n");
        assert_eq!((servers.len(), search.len()), (2, 2));
        assert!(query(1, "a..b", A).is_none());
    }
}
