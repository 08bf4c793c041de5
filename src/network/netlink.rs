//! Requests of rtnetlink(7) as bytes: devices, addresses, routes. Pure.

use std::net::IpAddr;
use std::os::fd::RawFd;

use crate::sys::netlink::{ACK, CREATE, DUMP, EXCLUSIVE, REPLACE, Request, attribute, attributes};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_NEWNEIGH: u16 = 28;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_GSO_MAX_SIZE: u16 = 41;
const IFLA_GSO_IPV4_MAX_SIZE: u16 = 63;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// No link-local address is made.
const ADDR_GEN_MODE_NONE: u8 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// The address counts at once; nobody is asked whether he has it.
const IFA_F_NODAD: u32 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RTN_UNREACHABLE: u8 = 7;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_HOST: u8 = 254;

const NDA_LLADDR: u16 = 2;
/// It is what it is, and does not age.
const NUD_NOARP: u16 = 0x40;
/// Of the bridge that the device is a port of.
const NTF_MASTER: u8 = 4;

const NLA_F_NESTED: u16 = 0x8000;

/// The loopback device's index in every network namespace.
pub const LOOPBACK: u32 = 1;

/// Appends an attribute that consists of others.
pub fn nested(kind: u16, into: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = into.len();
    into.extend([0; 4]);
    fill(into);
    let length = (into.len() - at) as u16;
    into[at..at + 2].copy_from_slice(&length.to_ne_bytes());
    into[at + 2..at + 4].copy_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
}

fn text(value: &str) -> Vec<u8> {
    [value.as_bytes(), &[0]].concat()
}

/// `struct ifinfomsg`.
fn link_head(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    // Only the flags that are set are changed.
    body.extend(flags.to_ne_bytes());
    body
}

/// One end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End<'a> {
    /// The index it shall have.
    pub index: u32,
    /// Its name, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address; the kernel's choice if none.
    pub mac: Option<[u8; 6]>,
    /// Bytes; 1500 if none.
    pub mtu: Option<u32>,
}

impl End<'_> {
    fn attributes(&self, into: &mut Vec<u8>) {
        attribute(IFLA_IFNAME, &text(self.name), into);
        if let Some(mac) = self.mac {
            attribute(IFLA_ADDRESS, &mac, into);
        }
        if let Some(mtu) = self.mtu {
            attribute(IFLA_MTU, &mtu.to_ne_bytes(), into);
        }
    }
}

/// A veth pair: one end here, its peer in another network namespace. Its master may be a bridge of this namespace.
pub fn veth(here: &End<'_>, there: &End<'_>, namespace: RawFd, bridge: Option<u32>) -> Request {
    let mut body = link_head(here.index, 0);
    here.attributes(&mut body);
    if let Some(bridge) = bridge {
        attribute(IFLA_MASTER, &bridge.to_ne_bytes(), &mut body);
    }
    nested(IFLA_LINKINFO, &mut body, |info| {
        attribute(IFLA_INFO_KIND, b"veth", info);
        nested(IFLA_INFO_DATA, info, |data| {
            nested(VETH_INFO_PEER, data, |peer| {
                peer.extend(link_head(there.index, 0));
                there.attributes(peer);
                attribute(IFLA_NET_NS_FD, &namespace.to_ne_bytes(), peer);
            });
        });
    });
    Request { kind: RTM_NEWLINK, flags: ACK | CREATE | EXCLUSIVE, body }
}

/// A bridge with this hardware address. Without, it would have the lowest of its ports', another one each time
/// that a container comes or goes, and their neighbours would have to find that out.
pub fn bridge(index: u32, name: &str, mac: [u8; 6], mtu: Option<u32>) -> Request {
    let mut body = link_head(index, 0);
    End { index, name, mac: Some(mac), mtu }.attributes(&mut body);
    nested(IFLA_LINKINFO, &mut body, |info| attribute(IFLA_INFO_KIND, b"bridge", info));
    Request { kind: RTM_NEWLINK, flags: ACK | CREATE | EXCLUSIVE, body }
}

/// A device makes no link-local address of IPv6 when it is switched on. A kernel without IPv6 refuses.
pub fn no_link_local(index: u32) -> Request {
    let mut body = link_head(index, 0);
    nested(IFLA_AF_SPEC, &mut body, |families| {
        nested(libc::AF_INET6 as u16, families, |own| {
            attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE], own);
        });
    });
    Request { kind: RTM_NEWLINK, flags: ACK, body }
}

/// Switches a device on.
pub fn up(index: u32) -> Request {
    Request { kind: RTM_NEWLINK, flags: ACK, body: link_head(index, libc::IFF_UP as u32) }
}

/// How long packets of TCP may be that are handed to a device in one piece (bytes), of IPv6 and of IPv4. The latter
/// is passed over by a kernel that does not know it (before 6.3).
pub fn longest(index: u32, bytes: u32) -> Request {
    let mut body = link_head(index, 0);
    attribute(IFLA_GSO_MAX_SIZE, &bytes.to_ne_bytes(), &mut body);
    attribute(IFLA_GSO_IPV4_MAX_SIZE, &bytes.to_ne_bytes(), &mut body);
    Request { kind: RTM_NEWLINK, flags: ACK, body }
}

/// Removes the device of this name.
pub fn delete(name: &str) -> Request {
    let mut body = link_head(0, 0);
    attribute(IFLA_IFNAME, &text(name), &mut body);
    Request { kind: RTM_DELLINK, flags: ACK, body }
}

/// A hardware address is behind this port of a bridge, and behind no other.
pub fn behind_port(index: u32, mac: [u8; 6]) -> Request {
    let mut body = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(NUD_NOARP.to_ne_bytes());
    body.extend([NTF_MASTER, 0]);
    attribute(NDA_LLADDR, &mac, &mut body);
    Request { kind: RTM_NEWNEIGH, flags: ACK | CREATE | REPLACE, body }
}

/// Gives a device an address, that counts at once.
pub fn address(index: u32, address: IpAddr, prefix: u8) -> Request {
    let mut body = vec![family(address), prefix, 0, RT_SCOPE_UNIVERSE];
    body.extend(index.to_ne_bytes());
    let bytes = octets(address);
    attribute(IFA_LOCAL, &bytes, &mut body);
    attribute(IFA_ADDRESS, &bytes, &mut body);
    match address {
        IpAddr::V4(v4) if prefix < 31 => {
            let broadcast = u32::from(v4) | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            attribute(IFA_BROADCAST, &broadcast.to_be_bytes(), &mut body);
        }
        IpAddr::V4(_) => {}
        IpAddr::V6(_) => attribute(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes(), &mut body),
    }
    Request { kind: RTM_NEWADDR, flags: ACK | CREATE | EXCLUSIVE, body }
}

/// `struct rtmsg`.
fn route(target: (IpAddr, u8), scope: u8, kind: u8, fill: impl FnOnce(&mut Vec<u8>)) -> Request {
    let (address, prefix) = target;
    let mut body = vec![family(address), prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, kind];
    body.extend(0_u32.to_ne_bytes());
    if prefix > 0 {
        attribute(RTA_DST, &octets(address), &mut body);
    }
    fill(&mut body);
    Request { kind: RTM_NEWROUTE, flags: ACK | CREATE | EXCLUSIVE, body }
}

/// The default route of the gateway's family.
pub fn default_route(gateway: IpAddr) -> Request {
    route((unspecified(gateway), 0), RT_SCOPE_UNIVERSE, RTN_UNICAST, |body| {
        attribute(RTA_GATEWAY, &octets(gateway), body);
    })
}

/// Removes the default route by this gateway.
pub fn without_default_route(gateway: IpAddr) -> Request {
    Request { kind: RTM_DELROUTE, flags: ACK, ..default_route(gateway) }
}

/// Every address of the family of `like`, but for those that other routes lead to, is this namespace's own.
pub fn all_is_local(like: IpAddr) -> Request {
    route((unspecified(like), 0), RT_SCOPE_HOST, RTN_LOCAL, |body| {
        attribute(RTA_OIF, &LOOPBACK.to_ne_bytes(), body);
    })
}

/// A subnet that cannot be reached, which programs are told at once.
pub fn unreachable(address: IpAddr, prefix: u8) -> Request {
    route((address, prefix), RT_SCOPE_UNIVERSE, RTN_UNREACHABLE, |_| {})
}

/// Asks for all devices.
pub fn list_links() -> Request {
    Request { kind: RTM_GETLINK, flags: DUMP, body: link_head(0, 0) }
}

/// A device that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
}

/// The answers to [`list_links`].
pub fn links(answers: Vec<(u16, Vec<u8>)>) -> Vec<Link> {
    answers.iter().filter(|(kind, _)| *kind == RTM_NEWLINK).filter_map(|(_, body)| link(body)).collect()
}

fn link(body: &[u8]) -> Option<Link> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_ne_bytes);
    let mut link = Link { index: number(body.get(4..8)?)?, name: String::new(), master: None };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => link.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
            IFLA_MASTER => link.master = number(value),
            _ => {}
        }
    }
    Some(link)
}

fn family(address: IpAddr) -> u8 {
    (if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }) as u8
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    }
}

/// An address as the network has it.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
