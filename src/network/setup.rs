//! What makes a router and a container's devices, as data: requests to the kernel in their order. Pure.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::RawFd;

use super::ids::{RelayIds, mark};
use super::netlink::{self, End, LOOPBACK, octets};
use super::nft::{
    Base, Batch, Compare, FORWARD, Family, Hook, Meta, PREROUTING, Queue, Reject, Step, Verdict,
};
use super::plan::{Interface, Network, NetworkPlan};
use crate::sys::netlink::Request;

/// The index of the first device of ours in a network namespace; those that the kernel makes by itself have
/// smaller ones.
const FIRST_INDEX: u32 = 100;

/// Devices of one container in a shared router at most.
pub const DEVICES: u32 = 64;
/// The indices of ports of bridges.
const FIRST_PORT_INDEX: u32 = 1 << 20;
/// The indices of bridges.
const FIRST_BRIDGE_INDEX: u32 = 1 << 21;

/// The longest packet of TCP that a container hands over at once (bytes): it goes through all layers whole, to a
/// router that takes it so. In the other direction longer ones than the usual 64 KiB have shown no gain.
const LONGEST: u32 = 256 * 1024;

/// The table of a private router.
const TABLE: &str = "umiak";

/// `NF_IP_PRI_MANGLE`: after fragments were put together, which the tproxy expression sees to.
const PRIORITY: i32 = -150;

/// `NF_BR_PRI_FILTER_BRIDGED`.
const BRIDGE_PRIORITY: i32 = -200;
/// `RTN_UNICAST`: in a subnet of the router, for all others are its own.
const UNICAST: u32 = 1;
const ETHER_IP: u16 = 0x0800;
const ETHER_ARP: u16 = 0x0806;
const ETHER_IPV6: u16 = 0x86dd;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

/// Settings that a kernel without `br_netfilter` has not.
const BRIDGED: [&str; 3] =
    ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables", "bridge/bridge-nf-call-arptables"];

const TCP: u8 = libc::IPPROTO_TCP as u8;
const UDP: u8 = libc::IPPROTO_UDP as u8;
const ICMPV6: u8 = libc::IPPROTO_ICMPV6 as u8;
/// ICMPv6's messages by which neighbours find each other (RFC 4861).
const NEIGHBOURS: (u8, u8) = (133, 137);
/// `PACKET_HOST`: for this machine, not for several.
const FOR_US: u8 = 0;
/// FIN, SYN, RST and ACK, of which a connection's first packet has only SYN.
const FLAGS: (u8, u8) = (0x17, 0x02);

/// A container's device in a shared router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number among the container's, which it has for as long as it is there.
    pub number: u32,
    /// What was asked for.
    pub interface: Interface,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The index of its bridge.
    pub bridge: u32,
}

/// Requests, each with what it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// To be sent.
    pub requests: Vec<Request>,
    /// "adding 10.0.2.100/24 to eth0", for each.
    pub what: Vec<String>,
    /// Those of them that may fail so: what they make may be there, or what they remove may not.
    pub tolerated: Vec<(usize, i32)>,
}

impl Requests {
    pub(super) fn push(&mut self, what: impl Into<String>, request: Request) {
        self.what.push(what.into());
        self.requests.push(request);
    }

    pub(super) fn push_unless(&mut self, errno: i32, what: impl Into<String>, request: Request) {
        self.tolerated.push((self.requests.len(), errno));
        self.push(what, request);
    }
}

/// In a router's network namespace: that every address is its own. Others may have done that.
pub fn router(plan: &NetworkPlan) -> Requests {
    let mut list = Requests::default();
    list.push("switching lo on", netlink::up(LOOPBACK));
    let all = plan.interfaces.iter().flat_map(|interface| &interface.addresses);
    for version in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        if let Some((address, _)) = all.clone().find(|(address, _)| version(address)) {
            let what = "adding the route that makes all addresses local";
            list.push_unless(libc::EEXIST, what, netlink::all_is_local(*address));
        }
    }
    list
}

/// The pairs of devices of a private router whose other ends are in the container, by a descriptor of its
/// network namespace.
pub fn private_devices(plan: &NetworkPlan, container: RawFd) -> Requests {
    let mut list = Requests::default();
    for (number, interface) in (0..).zip(private(plan)) {
        let name = format!("r{number}");
        let index = FIRST_INDEX + number;
        let here = End { index, name: &name, mac: None, mtu: interface.mtu };
        let there = End { index, name: &interface.name, mac: interface.mac, mtu: interface.mtu };
        list.push(format!("making {}", interface.name), netlink::veth(&here, &there, container, None));
        gateway(&mut list, plan, interface, index, &name);
    }
    list
}

/// The devices of a router into which frames are carried by hand: in a namespace of their own one whose other end
/// is the container's, and one that leads to the router; both are without addresses. The last are their indices.
pub fn front(plan: &NetworkPlan, container: RawFd, router: RawFd) -> (Requests, [u32; 2]) {
    let mut list = Requests::default();
    let indices = [FIRST_INDEX, FIRST_INDEX + 1];
    let Some(interface) = private(plan).next() else { return (list, indices) };
    let (mac, mtu) = (interface.mac, interface.mtu);
    let near = (End { index: indices[0], name: "r0", mac: None, mtu }, &interface.name[..], mac, container);
    let far = (End { index: indices[1], name: "a0", mac: None, mtu }, "b0", None, router);
    for (here, name, mac, namespace) in [near, far] {
        let there = End { index: FIRST_INDEX, name, mac, mtu };
        list.push(format!("making {name}"), netlink::veth(&here, &there, namespace, None));
        list.push(format!("switching {} on", here.name), netlink::up(here.index));
    }
    (list, indices)
}

/// The device in the router that frames are carried to.
pub fn back(plan: &NetworkPlan) -> Requests {
    let mut list = Requests::default();
    if let Some(interface) = private(plan).next() {
        gateway(&mut list, plan, interface, FIRST_INDEX, "b0");
    }
    list
}

/// The router's hardware address in each shared network (IEEE 802: locally administered, of one device).
const ROUTER_MAC: [u8; 6] = *b"\x02umiak";

/// The router's link-local address in each network.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// A device of the router gets the addresses that it has for the container, and is switched on.
fn gateway(list: &mut Requests, plan: &NetworkPlan, interface: &Interface, index: u32, name: &str) {
    if interface.addresses.iter().any(|(address, _)| address.is_ipv6()) {
        // The router is known by the same addresses in all networks.
        list.push(format!("keeping {name} without other addresses"), netlink::no_link_local(index));
    }
    for (address, prefix) in router_addresses(plan, interface) {
        list.push(format!("adding {address} to {name}"), netlink::address(index, address, prefix));
    }
    if interface.addresses.iter().any(|(address, _)| address.is_ipv6()) {
        // By it the kernel looks for the neighbour to whom a packet goes that has a client's address.
        list.push(format!("adding {LINK_LOCAL} to {name}"), netlink::address(index, LINK_LOCAL.into(), 64));
    }
    list.push(format!("switching {name} on"), netlink::up(index));
}

/// What removes bridges.
pub fn without<'a>(names: impl Iterator<Item = &'a str>) -> Requests {
    let mut list = Requests::default();
    for name in names {
        list.push_unless(libc::ENODEV, format!("removing the bridge {name}"), netlink::delete(name));
    }
    list
}

/// What makes a bridge with nobody on it.
pub fn bridge(plan: &NetworkPlan, interface: &Interface, name: &str, index: u32) -> Requests {
    let mut list = Requests::default();
    list.push(format!("making the bridge {name}"), netlink::bridge(index, name, ROUTER_MAC, interface.mtu));
    gateway(&mut list, plan, interface, index, name);
    list
}

/// The devices of a shared router whose other ends are a container's.
pub fn shared_devices(devices: &[Device], slot: u16, container: RawFd) -> Requests {
    let mut list = Requests::default();
    for Device { number, interface, mac, bridge } in devices {
        let (name, index) = port(slot, *number);
        // That of a relay that had this place before: the kernel takes its time to remove it.
        list.push_unless(libc::ENODEV, format!("removing {name}"), netlink::delete(&name));
        let here = End { index, name: &name, mac: None, mtu: interface.mtu };
        let there =
            End { index: FIRST_INDEX + number, name: &interface.name, mac: Some(*mac), mtu: interface.mtu };
        let made = netlink::veth(&here, &there, container, Some(*bridge));
        list.push(format!("making {}", interface.name), made);
        if interface.addresses.iter().any(|(address, _)| address.is_ipv6()) {
            list.push(format!("keeping {name} without addresses"), netlink::no_link_local(index));
        }
        list.push(format!("switching {name} on"), netlink::up(index));
        // It may have been behind another one in the container's run before, which is about to go.
        list.push(format!("telling the bridge of {name}"), netlink::behind_port(index, *mac));
    }
    list
}

/// What removes devices of a shared router, and with them the other ends.
pub fn without_devices(devices: &[Device], slot: u16) -> Requests {
    let mut list = Requests::default();
    for device in devices {
        let (name, _) = port(slot, device.number);
        let what = format!("removing {}", device.interface.name);
        list.push_unless(libc::ENODEV, what, netlink::delete(&name));
    }
    list
}

/// The name and the index of a port in a shared router.
pub fn port(slot: u16, number: u32) -> (String, u32) {
    (format!("p{slot}e{number}"), FIRST_PORT_INDEX + u32::from(slot) * DEVICES + number)
}

/// Whether a device of the router with this index is a bridge.
pub fn is_bridge(index: u32) -> bool {
    index >= FIRST_BRIDGE_INDEX
}

/// An index for a bridge that is not among the taken ones.
pub fn free_bridge(taken: &[u32]) -> u32 {
    (FIRST_BRIDGE_INDEX..).find(|index| !taken.contains(index)).unwrap_or(FIRST_BRIDGE_INDEX)
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

/// In the container's network namespace: addresses and routes of its devices. Where frames are `carried` by hand
/// they are of the usual length.
pub fn container(plan: &NetworkPlan, carried: bool) -> Requests {
    let mut list = Requests::default();
    for (number, interface) in (0..).zip(&plan.interfaces) {
        if !carried {
            lengthen(&mut list, interface, number);
        }
        inside(&mut list, interface, number);
    }
    for gateway in default_gateways(&plan.interfaces).into_iter().flatten() {
        list.push(format!("adding the route by {gateway}"), netlink::default_route(gateway));
    }
    if !plan.interfaces.is_empty() && plan.interfaces.iter().all(|i| i.network == Network::Private) {
        // Nobody is there to hear it: programs are told so at once.
        let multicast = IpAddr::from([224, 0, 0, 0]);
        list.push("adding the route of multicast", netlink::unreachable(multicast, 4));
    }
    list
}

/// Addresses of a device in the container.
pub(super) fn inside(list: &mut Requests, interface: &Interface, number: u32) {
    let (name, index) = (&interface.name, FIRST_INDEX + number);
    for (address, prefix) in &interface.addresses {
        list.push(format!("adding {address}/{prefix} to {name}"), netlink::address(index, *address, *prefix));
    }
    list.push(format!("switching {name} on"), netlink::up(index));
}

/// Has a device in the container take packets that are longer than usual.
pub(super) fn lengthen(list: &mut Requests, interface: &Interface, number: u32) {
    let what = format!("lengthening the packets of {}", interface.name);
    // Kernels refuse it that know of no longer ones (before 5.19).
    list.push_unless(libc::EINVAL, what, netlink::longest(FIRST_INDEX + number, LONGEST));
}

/// The gateways of the default routes, of IPv4 and of IPv6: those of the first devices that lead out.
pub fn default_gateways(interfaces: &[Interface]) -> [Option<IpAddr>; 2] {
    [false, true].map(|v6| {
        let pairs = interfaces.iter().flat_map(|interface| interface.gateways.iter().zip(&interface.routed));
        pairs
            .filter(|(gateway, routed)| **routed && gateway.is_ipv6() == v6)
            .map(|(gateway, _)| *gateway)
            .next()
    })
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
        Step::Verdict(Verdict::Jump("syn".into())),
    ]);
    for protocol in [TCP, UDP] {
        let handed = [Step::Tproxy(ids.port), Step::Verdict(Verdict::Accept)];
        rule(&[&[meta(Meta::L4Proto), is(&[protocol])][..], &handed].concat());
    }
}

/// The table of a relay in a shared router. It goes with the socket that makes it.
pub fn shared_table(slot: u16) -> String {
    format!("relay-{slot}")
}

/// Rules that hand what a container sends to its relay, for a shared router; and that keep it from the user's
/// other networks, if it is in one without a way out of it.
///
/// With `again` they take the place of those that the relay has.
pub fn shared_rules(
    devices: &[Device],
    ids: RelayIds,
    slot: u16,
    queue: Option<Queue>,
    again: bool,
) -> Vec<Request> {
    let mut batch = Batch::new();
    let (family, table) = (Family::Inet, shared_table(slot));
    if again {
        batch.without_table(family, &table);
    }
    batch.table(family, &table, true);
    for chain in ["syn", "relay"] {
        batch.chain(family, &table, chain, None);
    }
    let before = Hook { number: PREROUTING, priority: PRIORITY };
    batch.chain(family, &table, "prerouting", Some((before, Verdict::Accept)));
    let between = Hook { number: FORWARD, priority: PRIORITY };
    batch.chain(family, &table, "forward", Some((between, Verdict::Accept)));
    let mut rule = |chain, steps: &[Step]| batch.rule(family, &table, chain, steps);
    syn_rules(queue, |steps| rule("syn", steps));
    for Device { interface, bridge, .. } in devices {
        let Network::Shared(shared) = &interface.network else { continue };
        // Whichever of its addresses it has taken for that: the guard lets them all through.
        for address in devices.iter().flat_map(|device| &device.interface.addresses).map(|(a, _)| *a) {
            let from = |then: &[Step]| {
                let mine = [meta(Meta::Iif), is(&bridge.to_ne_bytes())];
                [&mine[..], &source(address), then].concat()
            };
            if shared.internal {
                // Only the gateway, where names are asked for.
                let gateway = interface.gateways.iter().find(|g| g.is_ipv4() == address.is_ipv4());
                let elsewhere = gateway.map(|gateway| destination(Compare::NotEqual, *gateway));
                let refused =
                    [elsewhere.unwrap_or_default(), vec![Step::Reject(Reject::Prohibited)]].concat();
                // Neighbours ask several at a time, and are answered by the bridge's device.
                let single = [meta(Meta::PktType), is(&[FOR_US])];
                rule("prerouting", &from(&[&single[..], &refused].concat()));
            }
            rule("prerouting", &from(&[Step::Verdict(Verdict::Jump("relay".into()))]));
        }
        if shared.isolated || shared.internal {
            for (key, other) in [(Meta::Iif, Meta::Oif), (Meta::Oif, Meta::Iif)] {
                let steps = [
                    meta(key),
                    is(&bridge.to_ne_bytes()),
                    meta(other),
                    Step::Is(Compare::NotEqual, bridge.to_ne_bytes().to_vec()),
                    Step::Reject(Reject::Prohibited),
                ];
                rule("forward", &steps);
            }
        }
    }
    // To a container of another network: the router's part is only to send it on.
    rule("relay", &[Step::DestinationKind, is(&UNICAST.to_ne_bytes()), Step::Verdict(Verdict::Accept)]);
    relay_rules(ids, |steps| rule("relay", steps));
    batch.finish()
}

/// Rules of the bridges that keep a container from taking others' addresses: what it sends has its own ones, of
/// IP, of the link, in ARP and in what neighbours of IPv6 tell each other; it advertises no router.
///
/// With `again` they take the place of those that the relay has.
pub fn guard_rules(devices: &[Device], slot: u16, again: bool) -> Vec<Request> {
    let mut batch = Batch::new();
    let (family, table) = (Family::Bridge, shared_table(slot));
    if again {
        batch.without_table(family, &table);
    }
    batch.table(family, &table, true);
    let hook = Hook { number: PREROUTING, priority: BRIDGE_PRIORITY };
    batch.chain(family, &table, "prerouting", Some((hook, Verdict::Accept)));
    for Device { number, interface, mac, .. } in devices {
        let (_, index) = port(slot, *number);
        let name = format!("port{number}");
        batch.chain(family, &table, &name, None);
        let others = devices.iter().filter(|device| device.number != *number);
        let elsewhere: Vec<IpAddr> =
            others.flat_map(|device| &device.interface.addresses).map(|(address, _)| *address).collect();
        for steps in guard(interface, *mac, &elsewhere) {
            batch.rule(family, &table, &name, &steps);
        }
        let here = [meta(Meta::Iif), is(&index.to_ne_bytes()), Step::Verdict(Verdict::Jump(name))];
        batch.rule(family, &table, "prerouting", &here);
    }
    batch.finish()
}

/// `elsewhere`: its addresses in its other networks. Who asked one of them is answered from it, by whatever device leads
/// to who asked.
fn guard(interface: &Interface, mac: [u8; 6], elsewhere: &[IpAddr]) -> Vec<Vec<Step>> {
    let payload = |base, at, length| Step::Payload(base, at, length);
    let not = |value: &[u8]| Step::Is(Compare::NotEqual, value.to_vec());
    let drop = || Step::Verdict(Verdict::Drop);
    let accept = || Step::Verdict(Verdict::Accept);
    let ether = |kind: u16| [payload(Base::Link, 12, 2), is(&kind.to_be_bytes())];
    let own = |v6: bool| interface.addresses.iter().map(|(a, _)| *a).filter(move |a| a.is_ipv6() == v6);
    let mut list = vec![vec![payload(Base::Link, 6, 6), not(&mac), drop()]];
    for address in own(false) {
        let from = [payload(Base::Network, 12, 4), is(&octets(address)), accept()];
        list.push([&ether(ETHER_IP)[..], &from].concat());
    }
    // A kernel asks for a neighbour in the name of what it is to send, which may be the address elsewhere.
    let senders = own(false).chain(elsewhere.iter().copied().filter(IpAddr::is_ipv4)).map(octets);
    // Whether somebody has an address is asked without having one (RFC 5227).
    for sender in senders.chain([vec![0; 4]]) {
        let asks =
            [payload(Base::Network, 8, 6), is(&mac), payload(Base::Network, 14, 4), is(&sender), accept()];
        list.push([&ether(ETHER_ARP)[..], &asks].concat());
    }
    if own(true).next().is_some() {
        let icmp =
            |kind: u8| [meta(Meta::L4Proto), is(&[ICMPV6]), payload(Base::Transport, 0, 1), is(&[kind])];
        for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
            list.push([&ether(ETHER_IPV6)[..], &icmp(kind), &[drop()]].concat());
        }
        let local = link_local(mac);
        let all = || own(true).map(octets).chain([local.to_vec()]);
        for address in all() {
            let target = [
                payload(Base::Transport, 8, 16),
                is(&address),
                payload(Base::Network, 8, 16),
                is(&address),
                accept(),
            ];
            list.push([&ether(ETHER_IPV6)[..], &icmp(NEIGHBOUR_ADVERTISEMENT), &target].concat());
        }
        list.push([&ether(ETHER_IPV6)[..], &icmp(NEIGHBOUR_ADVERTISEMENT), &[drop()]].concat());
        for address in all().chain([vec![0; 16]]) {
            list.push(
                [&ether(ETHER_IPV6)[..], &[payload(Base::Network, 8, 16), is(&address), accept()]].concat(),
            );
        }
    }
    // A family that the network has not gets no further, either: what else is dropped of it stands above.
    for address in elsewhere.iter().filter(|address| own(address.is_ipv6()).next().is_some()) {
        let (kind, at, length) = if address.is_ipv4() { (ETHER_IP, 12, 4) } else { (ETHER_IPV6, 8, 16) };
        let sender = [payload(Base::Network, at, length), is(&octets(*address)), accept()];
        list.push([&ether(kind)[..], &sender].concat());
    }
    list.push(vec![drop()]);
    list
}

/// The address that the kernel makes of a hardware address (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> [u8; 16] {
    let [a, b, c, d, e, f] = mac;
    [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]
}

fn source(address: IpAddr) -> Vec<Step> {
    addressed(address, 12, 8, Compare::Equal)
}

fn destination(compare: Compare, address: IpAddr) -> Vec<Step> {
    addressed(address, 16, 24, compare)
}

/// An address in IP's header, at an offset for each family.
fn addressed(address: IpAddr, v4: u32, v6: u32, compare: Compare) -> Vec<Step> {
    let (family, at, length) = match address {
        IpAddr::V4(_) => (libc::NFPROTO_IPV4, v4, 4),
        IpAddr::V6(_) => (libc::NFPROTO_IPV6, v6, 16),
    };
    vec![
        meta(Meta::NfProto),
        is(&[family as u8]),
        Step::Payload(Base::Network, at, length),
        Step::Is(compare, octets(address)),
    ]
}

/// What is written below `/proc/sys/net` in the router's network namespace. Echo requests are the relay's to
/// answer. That a destination is unreachable is told each time: to the user's own containers alone.
/// Those of a kernel without IPv6 are not there. Those in `bridge` are there only if the kernel has bridges' packets seen by the rules of IP; they must not be: a
/// packet would have its socket before it has left the bridge, and lose it then.
pub fn settings(plan: &NetworkPlan) -> Vec<(&'static str, &'static str)> {
    let shared = plan.meeting.is_some();
    let mut list = vec![("ipv4/icmp_echo_ignore_all", "1"), ("ipv4/icmp_ratemask", "0")];
    if shared {
        // Between networks. That also makes it a router to its neighbours.
        list.push(("ipv4/ip_forward", "1"));
        list.extend(BRIDGED.map(|name| (name, "0")));
    }
    // Those who come to a shared router later may have IPv6.
    if shared || plan.interfaces.iter().any(|interface| interface.addresses.iter().any(|(a, _)| a.is_ipv6()))
    {
        list.extend([("ipv6/icmp/echo_ignore_all", "1"), ("ipv6/icmp/ratelimit", "0")]);
        if shared {
            list.push(("ipv6/conf/all/forwarding", "1"));
        }
    }
    list
}

/// TCP's congestion control where nothing gets lost and nobody else is on the way: between a container and its
/// router, and between containers. One that paces (`bbr`) has a timer for each packet and learns how fast a line
/// is that has no speed. The relay's sockets outside have the host's. Every kernel has this one.
pub const CONGESTION: (&str, &str) = ("ipv4/tcp_congestion_control", "reno");

/// What a router is the faster for, and can do without: written as [`settings`] are.
///
/// What waits in a socket there is still warm in a processor's cache when it is passed on, if it is not more
/// than this (least, first and most bytes); nor does a line that is slow fill the host's memory.
pub const PREFERENCES: [(&str, &str); 2] = [CONGESTION, ("ipv4/tcp_rmem", "4096 131072 1048576")];

/// Whether a kernel may do without a setting.
pub fn may_be_missing(name: &str) -> bool {
    BRIDGED.contains(&name) || name.starts_with("ipv6/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::plan::{Dns, Shared};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn plan(network: Network) -> NetworkPlan {
        let interface = Interface {
            name: "eth0".into(),
            network,
            addresses: vec![(ip("10.0.2.100"), 24), (ip("fd00::100"), 64)],
            gateways: vec![ip("10.0.2.2"), ip("fd00::2")],
            routed: vec![true, false],
            mac: None,
            mtu: None,
        };
        let dns = Dns { addresses: vec![ip("10.0.2.3"), ip("9.9.9.9")], ..Dns::default() };
        NetworkPlan { interfaces: vec![interface], dns: Some(dns), ..NetworkPlan::default() }
    }

    #[test]
    fn the_router_has_what_the_container_asks_its_neighbours_for() {
        let plan = plan(Network::Private);
        let expected = [(ip("10.0.2.2"), 24), (ip("fd00::2"), 64), (ip("10.0.2.3"), 32)];
        assert_eq!(router_addresses(&plan, &plan.interfaces[0]), expected);
    }

    #[test]
    fn subnets_end_where_their_prefix_does() {
        assert!(contains(ip("10.0.2.100"), 24, ip("10.0.2.255")));
        assert!(!contains(ip("10.0.2.100"), 24, ip("10.0.3.0")));
        assert!(!contains(ip("10.0.2.100"), 24, ip("fd00::1")));
        assert!(contains(ip("fd00::1"), 0, ip("2001:db8::1")) && contains(ip("10.0.0.1"), 0, ip("9.9.9.9")));
        assert!(!contains(ip("10.0.0.1"), 32, ip("10.0.0.2")));
    }

    #[test]
    fn a_container_has_default_routes_only_where_there_is_a_way() {
        let list = container(&plan(Network::Private), false);
        let what: Vec<&str> = list.what.iter().map(String::as_str).collect();
        assert_eq!(
            what,
            [
                "lengthening the packets of eth0",
                "adding 10.0.2.100/24 to eth0",
                "adding fd00::100/64 to eth0",
                "switching eth0 on",
                "adding the route by 10.0.2.2",
                "adding the route of multicast",
            ]
        );
        assert_eq!(list.requests.len(), what.len());
        // A kernel may refuse to have longer packets, and what is carried by hand has the usual length.
        assert_eq!(list.tolerated, [(0, libc::EINVAL)]);
        assert_eq!(container(&plan(Network::Private), true).what, what[1..]);
    }

    #[test]
    fn devices_of_relays_have_numbers_of_their_own() {
        let mut seen = std::collections::HashSet::new();
        for slot in [0, 1, 2, 4095] {
            for number in [0, 1, DEVICES - 1] {
                let (name, index) = port(slot, number);
                assert!(seen.insert(index) && !is_bridge(index) && name.len() <= 15, "{name} {index}");
            }
        }
        let first = free_bridge(&[]);
        assert!(is_bridge(first) && free_bridge(&[first]) == first + 1);
    }

    #[test]
    fn an_internal_network_is_kept_from_others() {
        let shared = |internal, isolated| {
            let shared =
                Shared { name: "n".into(), bridge: "b".into(), dir: "/n".into(), internal, isolated };
            let interface = plan(Network::Shared(shared)).interfaces.remove(0);
            let devices = [Device { number: 0, interface, mac: [2; 6], bridge: 9 }];
            shared_rules(&devices, RelayIds::of_slot(0), 0, None, false).len()
        };
        // Two rules between bridges; of an internal one also a refusal for each address.
        assert_eq!(shared(false, true), shared(false, false) + 2);
        assert_eq!(shared(true, false), shared(false, false) + 4);
    }

    #[test]
    fn the_kernels_own_address_of_the_link_is_known() {
        let expected: std::net::Ipv6Addr = "fe80::c017:dcff:fe48:95e2".parse().unwrap();
        assert_eq!(link_local([0xc2, 0x17, 0xdc, 0x48, 0x95, 0xe2]), expected.octets());
    }
}
