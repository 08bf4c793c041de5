//! Moving a network device into another network namespace (rtnetlink(7)): what the kernel takes
//! away from it on the way, addresses and the state, is given back.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::net::{AddressFamily, SocketType};

use super::netlink::{self, ACK, CREATE, DUMP, EXCLUSIVE, Family, Request, Socket, attribute, attributes};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_FLAGS: u16 = 8;
/// Attributes of an address that describe it for good: local, peer, label, broadcast, anycast, flags, metric.
const KEPT: [u16; 7] = [1, 2, 3, 4, 5, IFA_FLAGS, 9];

/// An address as the kernel tells it: `struct ifaddrmsg` and the attributes to be kept.
type Address = Vec<u8>;

/// The longest name of a device, without its final zero (`IFNAMSIZ`).
pub const NAME_LENGTH: usize = 15;

/// `struct ifinfomsg`.
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Only the flags that are set here are changed.
    bytes.extend(flags.to_ne_bytes());
    bytes
}

/// Sends a request; the bodies of the messages that answer it.
fn ask(netlink: &mut Socket, kind: u16, flags: u16, body: Vec<u8>) -> io::Result<Vec<Vec<u8>>> {
    let answers = netlink.exchange(&[Request { kind, flags, body }]).map_err(|refused| {
        // The number alone: callers look for it.
        netlink::errno(&refused.source).map_or(refused.source, io::Error::from_raw_os_error)
    })?;
    Ok(answers.into_iter().map(|(_, body)| body).collect())
}

/// The index of a device of the current network namespace.
fn index_of(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    Ok(rustix::net::netdevice::name_to_index(socket, name)?)
}

/// What of an answer to `RTM_GETADDR` is an address of `index` to be kept: permanent ones of global
/// scope; the others the kernel makes anew.
fn kept_address(answer: &[u8], index: u32) -> Option<Address> {
    let head = answer.get(..8)?;
    let (scope, at) = (head[3], u32::from_ne_bytes(head[4..8].try_into().ok()?));
    let list = || attributes(&answer[8..]);
    let flags = list().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, v)| v.try_into().ok());
    let flags = flags.map_or(u32::from(head[2]), u32::from_ne_bytes);
    if at != index || scope != 0 || flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    let mut address = head.to_vec();
    for (kind, value) in list().filter(|(kind, _)| KEPT.contains(kind)) {
        attribute(kind, value, &mut address);
    }
    Some(address)
}

/// The index of a link whose name is `prefix` and a number.
fn numbered(link: &[u8], prefix: &str) -> Option<u32> {
    let index = u32::from_ne_bytes(link.get(4..8)?.try_into().ok()?);
    let name = attributes(link.get(16..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
    let number = name.strip_suffix(&[0])?.strip_prefix(prefix.as_bytes())?;
    (!number.is_empty() && number.iter().all(u8::is_ascii_digit)).then_some(index)
}

/// A device on its way: what it had before it was moved.
#[derive(Debug)]
pub struct Moved {
    name: String,
    addresses: Vec<Address>,
}

/// Moves the device `name` of the caller's network namespace into `namespace`, as `new_name` (which
/// may have `%d` for a number that the kernel chooses). Needs `CAP_NET_ADMIN` in both.
pub fn send(name: &str, new_name: &str, namespace: impl AsFd) -> io::Result<Moved> {
    let index = index_of(name)?;
    let mut netlink = Socket::open(Family::Route)?;
    let answers = ask(&mut netlink, RTM_GETADDR, DUMP, vec![0; 8])?;
    let addresses = answers.iter().filter_map(|answer| kept_address(answer, index)).collect();
    let mut request = link(index, 0);
    attribute(IFLA_NET_NS_FD, &namespace.as_fd().as_raw_fd().to_ne_bytes(), &mut request);
    attribute(IFLA_IFNAME, &[new_name.as_bytes(), &[0]].concat(), &mut request);
    ask(&mut netlink, RTM_NEWLINK, ACK, request)?;
    Ok(Moved { name: new_name.to_owned(), addresses })
}

/// Gives a moved device its addresses back and switches it on; to be called in its new namespace.
pub fn settle(moved: &Moved) -> io::Result<()> {
    let mut netlink = Socket::open(Family::Route)?;
    let index = match moved.name.split_once('%') {
        None => index_of(&moved.name)?,
        // The kernel chose the number; the newest device of that pattern is ours.
        Some((prefix, _)) => {
            let links = ask(&mut netlink, RTM_GETLINK, DUMP, vec![0; 16])?;
            let fits = links.iter().filter_map(|link| numbered(link, prefix));
            fits.max().ok_or(io::ErrorKind::NotFound)?
        }
    };
    for address in &moved.addresses {
        let mut request = address.clone();
        request[4..8].copy_from_slice(&index.to_ne_bytes());
        ask(&mut netlink, RTM_NEWADDR, ACK | CREATE | EXCLUSIVE, request)?;
    }
    ask(&mut netlink, RTM_NEWLINK, ACK, link(index, libc::IFF_UP as u32))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permanent_global_addresses_are_kept() {
        let mut answer = vec![libc::AF_INET as u8, 24, 0x80, 0];
        answer.extend(7_u32.to_ne_bytes());
        attribute(1, &[10, 0, 0, 1], &mut answer);
        attribute(6, &[0; 16], &mut answer);
        let kept = kept_address(&answer, 7).unwrap();
        assert_eq!(attributes(&kept[8..]).collect::<Vec<_>>(), [(1, &[10, 0, 0, 1][..])]);
        assert!(kept_address(&answer, 8).is_none());
        // Of the link's own scope, and one with a lifetime.
        for (at, value) in [(3, 253), (2, 0)] {
            let mut other = answer.clone();
            other[at] = value;
            assert!(kept_address(&other, 7).is_none());
        }
    }

    #[test]
    fn the_loopback_device_is_found() {
        assert_eq!(index_of("lo").unwrap(), 1);
        let mut netlink = Socket::open(Family::Route).unwrap();
        assert!(ask(&mut netlink, RTM_GETADDR, DUMP, vec![0; 8]).is_ok());
    }
}
