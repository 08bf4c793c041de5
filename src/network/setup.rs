//! What makes a router and a container's devices, as data: requests to the kernel in their order. Pure.

use std::net::IpAddr;
use std::os::fd::RawFd;

use super::ids::{RelayIds, mark};
use super::netlink::{self, End, LOOPBACK};
use super::nft::{Base, Batch, Compare, Family, Hook, Meta, PREROUTING, Queue, Reject, Step, Verdict};
use super::plan::{Interface, Network, NetworkPlan};
use crate::sys::netlink::Request;

/// The index of the first device of ours in a network namespace; those that the kernel makes by itself have
/// smaller ones.
const FIRST_INDEX: u32 = 100;

/// The table of a private router.
const TABLE: &str = "umiak";

/// `NF_IP_PRI_MANGLE`: after fragments were put together, which the tproxy expression sees to.
const PRIORITY: i32 = -150;

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const ICMPV6: u8 = libc::IPPROTO_ICMPV6 as u8;
/// ICMPv6's messages by which neighbours find each other (RFC 4861).
const NEIGHBOURS: (u8, u8) = (133, 137);
/// `PACKET_HOST`: for this machine, not for several.
const FOR_US: u8 = 0;
/// FIN, SYN, RST and ACK, of which a connection's first packet has only SYN.
const FLAGS: (u8, u8) = (0x17, 0x02);

/// Requests, each with what it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// To be sent.
    pub requests: Vec<Request>,
    /// "adding 10.0.2.100/24 to eth0", for each.
    pub what: Vec<String>,
}

impl Requests {
    fn push(&mut self, what: impl Into<String>, request: Request) {
        self.what.push(what.into());
        self.requests.push(request);
    }
}

/// In the router's network namespace: the pairs of devices whose other ends are in the container, and that
/// every address is the router's own. `container` is a descriptor of the container's network namespace.
pub fn private_router(plan: &NetworkPlan, container: RawFd) -> Requests {
    let mut list = Requests::default();
    list.push("switching lo on", netlink::up(LOOPBACK));
    for (number, interface) in (0..).zip(private(plan)) {
        let name = format!("r{number}");
        let index = FIRST_INDEX + number;
        let here = End { index, name: &name, mac: None, mtu: interface.mtu };
        let there = End { index, name: &interface.name, mac: interface.mac, mtu: interface.mtu };
        list.push(format!("making {}", interface.name), netlink::veth(&here, &there, container, None));
        if interface.addresses.iter().any(|(address, _)| address.is_ipv6()) {
            // The router is known by its gateway's addresses alone.
            list.push(format!("keeping {name} without other addresses"), netlink::no_link_local(index));
        }
        for (address, prefix) in router_addresses(plan, interface) {
            list.push(format!("adding {address} to {name}"), netlink::address(index, address, prefix));
        }
        list.push(format!("switching {name} on"), netlink::up(index));
    }
    let all = plan.interfaces.iter().flat_map(|interface| &interface.addresses);
    for version in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        if let Some((address, _)) = all.clone().find(|(address, _)| version(address)) {
            list.push("adding the route that makes all addresses local", netlink::all_is_local(*address));
        }
    }
    list
}

fn private(plan: &NetworkPlan) -> impl Iterator<Item = &Interface> {
    plan.interfaces.iter().filter(|interface| interface.network == Network::Private)
}

/// The gateways, and those name servers in the subnet that are not gateways also: the container asks its
/// neighbours for them.
fn router_addresses(plan: &NetworkPlan, interface: &Interface) -> Vec<(IpAddr, u8)> {
    let within = |address: IpAddr| {
        interface.addresses.iter().find(|(own, prefix)| contains(*own, *prefix, address)).map(|(_, p)| *p)
    };
    let gateways = interface.gateways.iter().filter_map(|gateway| Some((*gateway, within(*gateway)?)));
    let mut list: Vec<(IpAddr, u8)> = gateways.collect();
    let servers = plan.dns.iter().flat_map(|dns| &dns.addresses);
    let aliases = plan.policy.aliases.iter().map(|(from, _)| from);
    for address in servers.chain(aliases).copied() {
        if within(address).is_some() && !list.iter().any(|(known, _)| *known == address) {
            list.push((address, if address.is_ipv4() { 32 } else { 128 }));
        }
    }
    list
}

/// Whether an address is in the subnet of another one.
fn contains(own: IpAddr, prefix: u8, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    own.is_ipv4() == address.is_ipv4() && (bits(own) ^ bits(address)) & mask == 0
}

/// In the container's network namespace: addresses and routes of its devices.
pub fn container(plan: &NetworkPlan) -> Requests {
    let mut list = Requests::default();
    let mut defaults = [false; 2];
    for (number, interface) in (0..).zip(&plan.interfaces) {
        let (name, index) = (&interface.name, FIRST_INDEX + number);
        for (address, prefix) in &interface.addresses {
            list.push(
                format!("adding {address}/{prefix} to {name}"),
                netlink::address(index, *address, *prefix),
            );
        }
        list.push(format!("switching {name} on"), netlink::up(index));
        for (gateway, routed) in interface.gateways.iter().zip(&interface.routed) {
            let taken = &mut defaults[usize::from(gateway.is_ipv6())];
            if *routed && !*taken {
                *taken = true;
                list.push(format!("adding the route by {gateway}"), netlink::default_route(*gateway));
            }
        }
    }
    if !plan.interfaces.is_empty() && plan.interfaces.iter().all(|i| i.network == Network::Private) {
        // Nobody is there to hear it: programs are told so at once.
        let multicast = IpAddr::from([224, 0, 0, 0]);
        list.push("adding the route of multicast", netlink::unreachable(multicast, 4));
    }
    list
}

/// Rules that hand what the container sends to its relay, for a private router. A connection's first packet
/// waits in the relay's queue, if it has one, and comes back with a mark that says what becomes of it.
pub fn private_rules(ids: RelayIds, queue: Option<Queue>) -> Vec<Request> {
    let mut batch = Batch::new();
    let family = Family::Inet;
    batch.table(family, TABLE, false);
    batch.chain(family, TABLE, "syn", None);
    let hook = Hook { number: PREROUTING, priority: PRIORITY };
    batch.chain(family, TABLE, "prerouting", Some((hook, Verdict::Accept)));
    let mut rule = |chain, steps: &[Step]| batch.rule(family, TABLE, chain, steps);
    syn_rules(queue, |steps| rule("syn", steps));
    rule("prerouting", &[meta(Meta::Iif), is(&LOOPBACK.to_ne_bytes()), Step::Verdict(Verdict::Accept)]);
    relay_rules(ids, |steps| rule("prerouting", steps));
    batch.finish()
}

fn meta(key: Meta) -> Step {
    Step::Meta(key)
}

fn is(value: &[u8]) -> Step {
    Step::Is(Compare::Equal, value.to_vec())
}

/// What becomes of a connection's first packet.
fn syn_rules(queue: Option<Queue>, mut rule: impl FnMut(&[Step])) {
    let Some(queue) = queue else { return };
    let marked = |value: u32, then: Step| {
        let mask = Step::Mask(mark::MASK.to_ne_bytes().to_vec());
        [meta(Meta::Mark), mask, is(&value.to_ne_bytes()), then]
    };
    rule(&marked(0, Step::Queue(queue)));
    rule(&marked(mark::ACCEPT, Step::Verdict(Verdict::Return)));
    rule(&marked(mark::RESET, Step::Reject(Reject::Reset)));
    rule(&marked(mark::HOST_UNREACHABLE, Step::Reject(Reject::Host)));
    rule(&marked(mark::NET_UNREACHABLE, Step::Reject(Reject::NoRoute)));
    rule(&marked(mark::PROHIBITED, Step::Reject(Reject::Prohibited)));
    rule(&marked(mark::PORT_UNREACHABLE, Step::Reject(Reject::Port)));
    rule(&[Step::Verdict(Verdict::Drop)]);
}

/// What a container sends. ICMP and what is neither TCP nor UDP is left to the router: it has the relay's raw
/// sockets for the former, and refuses the latter.
fn relay_rules(ids: RelayIds, mut rule: impl FnMut(&[Step])) {
    let icmp_type = Step::Payload(Base::Transport, 0, 1);
    rule(&[
        meta(Meta::L4Proto),
        is(&[ICMPV6]),
        icmp_type,
        Step::Is(Compare::AtLeast, vec![NEIGHBOURS.0]),
        Step::Is(Compare::AtMost, vec![NEIGHBOURS.1]),
        Step::Verdict(Verdict::Accept),
    ]);
    rule(&[meta(Meta::PktType), Step::Is(Compare::NotEqual, vec![FOR_US]), Step::Verdict(Verdict::Drop)]);
    rule(&[
        meta(Meta::L4Proto),
        is(&[TCP]),
        Step::Payload(Base::Transport, 13, 1),
        Step::Mask(vec![FLAGS.0]),
        is(&[FLAGS.1]),
        Step::Verdict(Verdict::Jump("syn")),
    ]);
    for protocol in [TCP, UDP] {
        let handed = [Step::Tproxy(ids.port), Step::Verdict(Verdict::Accept)];
        rule(&[&[meta(Meta::L4Proto), is(&[protocol])][..], &handed].concat());
    }
}

/// What is written below `/proc/sys/net` in the router's network namespace. Echo requests are the relay's to
/// answer. That a destination is unreachable is told each time, to a single container.
pub fn settings(plan: &NetworkPlan) -> Vec<(&'static str, &'static str)> {
    let mut list = vec![("ipv4/icmp_echo_ignore_all", "1"), ("ipv4/icmp_ratemask", "0")];
    if plan.interfaces.iter().any(|interface| interface.addresses.iter().any(|(a, _)| a.is_ipv6())) {
        list.extend([("ipv6/icmp/echo_ignore_all", "1"), ("ipv6/icmp/ratelimit", "0")]);
    }
    list
}
