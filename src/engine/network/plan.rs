//! From what was asked for and what the host is to what the relay carries out. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::host::HostNetwork;
use crate::base::address::{self, Subnet};
use crate::network::dns::DOMAIN;
use crate::network::plan::{
    Dns, EgressRule, Interface, Network, NetworkPlan, Policy, Protocol, Published, Shared, Target,
};
use crate::network::policy::DNS_PORT;
use crate::storage::containers::{
    DnsRecord, EgressRecord, NetworkDetails, PortProtocol, PrivateNetwork, Verdict,
};

/// Names of the host in a container.
pub const HOST_NAMES: [&str; 2] = ["host.containers.internal", "host.docker.internal"];

/// Subnets of IPv4 for a private network, in the order of liking. The first is slirp4netns's.
const SUBNETS: [Ipv4Addr; 5] = [
    Ipv4Addr::new(10, 0, 2, 0),
    Ipv4Addr::new(10, 210, 2, 0),
    Ipv4Addr::new(172, 30, 202, 0),
    Ipv4Addr::new(192, 168, 202, 0),
    // For benchmarks (RFC 2544): no network has it.
    Ipv4Addr::new(198, 18, 202, 0),
];

/// The same of IPv6: the usual one, and two that nobody takes by habit.
const SUBNETS_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0xfd75, 0x6d69, 0x616b, 0, 0, 0, 0, 0),
    Ipv6Addr::new(0xfdb7, 0x1c5e, 0x90d2, 0, 0, 0, 0, 0),
];

/// The parts of a private network's subnet that are somebody's, counted from its lowest address.
const GATEWAY: u128 = 2;
const SERVER: u128 = 3;
const CONTAINER: u128 = 100;

/// One shared network with what a container has in it.
#[derive(Clone, Debug)]
pub struct Joined {
    /// What it is.
    pub shared: Shared,
    /// Its addresses and the router's.
    pub addresses: Vec<(IpAddr, u8)>,
    /// At most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Whether names are known there.
    pub dns: bool,
    /// Name servers of the network's own.
    pub servers: Vec<IpAddr>,
    /// The device.
    pub device: String,
    /// Its hardware address.
    pub mac: Option<[u8; 6]>,
    /// Bytes.
    pub mtu: Option<u32>,
}

/// The text of a container's `/etc/resolv.conf`, and names for its `/etc/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// `/etc/resolv.conf`; none if it stays the image's.
    pub resolv: Option<String>,
    /// The container's own addresses.
    pub own: Vec<IpAddr>,
    /// What `host-gateway` and the host's names stand for.
    pub host: Option<IpAddr>,
}

/// The plan of a private network.
pub fn private(details: &NetworkDetails, host: &HostNetwork) -> (NetworkPlan, Texts) {
    let PrivateNetwork { host_loopback, no_ipv6, subnet, mtu, mac, .. } = details.private;
    let subnet = subnet.unwrap_or_else(|| free_subnet(host));
    let at = |offset| subnet.nth(offset).unwrap_or(subnet.address());
    let mut addresses = vec![(at(CONTAINER), subnet.prefix())];
    let mut gateways = vec![at(GATEWAY)];
    let mut routed = vec![true];
    let mut aliases = vec![(at(GATEWAY), IpAddr::V4(Ipv4Addr::LOCALHOST))];
    if host.ipv6 && !no_ipv6 {
        let subnet = free_subnet_v6(host);
        let v6 = |offset| subnet.nth(offset).unwrap_or(subnet.address());
        addresses.push((v6(0x100), subnet.prefix()));
        gateways.push(v6(GATEWAY));
        // Without it what is beyond is unreachable at once, and programs take IPv4.
        routed.push(host.own.1.is_some());
        aliases.push((v6(GATEWAY), IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }
    let reached = if host_loopback { Some(at(GATEWAY)) } else { host.own.0.map(IpAddr::V4) };
    let upstream = upstream(&details.dns, &[], host);
    // Servers that were asked for are shown as they are, as in Podman, where they can be dialled as they are
    // and nobody has to see what they answer.
    let direct = !details.dns.servers.is_empty()
        && details.egress.is_empty()
        && !details.dns.servers.iter().any(|server| address::is_local(*server));
    let shown = if direct { details.dns.servers.clone() } else { vec![at(SERVER)] };
    let texts = Texts {
        resolv: resolv(&details.dns, &shown, &[], host),
        own: addresses.iter().map(|(address, _)| *address).collect(),
        host: reached,
    };
    let plan = NetworkPlan {
        interfaces: vec![Interface {
            name: "eth0".into(),
            network: Network::Private,
            addresses,
            gateways,
            routed,
            mac: mac.map(|mac| mac.0),
            mtu,
        }],
        published: published(details),
        policy: Policy {
            aliases: if host_loopback { aliases } else { Vec::new() },
            ..policy(&details.egress)
        },
        dns: Some(Dns {
            addresses: vec![at(SERVER)],
            upstream,
            networks: Vec::new(),
            hosts: host_names(reached),
        }),
        log: None,
        meeting: None,
        congestion_chosen: false,
    };
    (plan, texts)
}

/// The plan of a container in shared networks. Those with a way out come first, for the first one gives the way.
/// Their relays meet in the directory `meeting`.
pub fn shared(
    details: &NetworkDetails,
    joined: &[Joined],
    host: &HostNetwork,
    meeting: PathBuf,
) -> (NetworkPlan, Texts) {
    let named: Vec<&Joined> = joined.iter().filter(|network| network.dns).collect();
    let own_servers: Vec<IpAddr> = named.iter().flat_map(|network| network.servers.iter().copied()).collect();
    let addresses: Vec<IpAddr> = named.iter().flat_map(|network| network.gateways.iter().copied()).collect();
    let upstream = upstream(&details.dns, &own_servers, host);
    let reached = host.own.0.map(IpAddr::V4);
    let interfaces: Vec<Interface> = joined
        .iter()
        .map(|network| Interface {
            name: network.device.clone(),
            network: Network::Shared(network.shared.clone()),
            addresses: network.addresses.clone(),
            gateways: network.gateways.clone(),
            routed: network
                .gateways
                .iter()
                .map(|gateway| !network.shared.internal && (gateway.is_ipv4() || host.own.1.is_some()))
                .collect(),
            mac: network.mac,
            mtu: network.mtu,
        })
        .collect();
    let networks: Vec<PathBuf> = named.iter().map(|network| network.shared.dir.clone()).collect();
    let shown: Vec<IpAddr> = if named.is_empty() {
        let servers =
            if details.dns.servers.is_empty() { &host.resolver.servers } else { &details.dns.servers };
        servers.clone()
    } else {
        addresses
            .iter()
            .copied()
            .filter(IpAddr::is_ipv4)
            .chain(addresses.iter().copied().filter(IpAddr::is_ipv6))
            .collect()
    };
    let domain = if named.is_empty() { &[][..] } else { &[DOMAIN][..] };
    let texts = Texts {
        resolv: resolv(&details.dns, &shown, domain, host),
        own: joined.iter().flat_map(|network| &network.addresses).map(|(address, _)| *address).collect(),
        host: reached,
    };
    let dns = (!named.is_empty()).then(|| Dns { addresses, upstream, networks, hosts: host_names(reached) });
    let plan = NetworkPlan {
        interfaces,
        published: published(details),
        policy: policy(&details.egress),
        dns,
        log: None,
        meeting: Some(meeting),
        congestion_chosen: false,
    };
    (plan, texts)
}

fn host_names(address: Option<IpAddr>) -> Vec<(String, Vec<IpAddr>)> {
    let one = |address: IpAddr| HOST_NAMES.map(|name| (name.to_owned(), vec![address])).to_vec();
    address.map(one).unwrap_or_default()
}

/// The first subnet that the host itself has no way to. Where it has a way to all, what is lost is one of them.
fn free_subnet(host: &HostNetwork) -> Subnet {
    let wide = |address: Ipv4Addr| Subnet::of(address.into(), 24).unwrap_or(Subnet::host(address.into()));
    let is_free = |subnet: &Subnet| !host.routes.iter().any(|route| route.overlaps(*subnet));
    SUBNETS.map(wide).into_iter().find(is_free).unwrap_or(wide(SUBNETS[0]))
}

fn free_subnet_v6(host: &HostNetwork) -> Subnet {
    let wide = |address: Ipv6Addr| Subnet::of(address.into(), 64).unwrap_or(Subnet::host(address.into()));
    let is_free = |subnet: &Subnet| !host.routes.iter().any(|route| route.overlaps(*subnet));
    SUBNETS_V6.map(wide).into_iter().find(is_free).unwrap_or(wide(SUBNETS_V6[0]))
}

fn upstream(dns: &DnsRecord, networks: &[IpAddr], host: &HostNetwork) -> Vec<SocketAddr> {
    let servers = match (&dns.servers[..], networks, &host.resolver.servers[..]) {
        // A resolver without any asks its own machine (resolv.conf(5)).
        ([], [], []) => &[IpAddr::V4(Ipv4Addr::LOCALHOST)][..],
        ([], [], servers) | ([], servers, _) | (servers, ..) => servers,
    };
    servers.iter().map(|server| SocketAddr::new(*server, DNS_PORT)).collect()
}

fn resolv(dns: &DnsRecord, servers: &[IpAddr], domain: &[&str], host: &HostNetwork) -> Option<String> {
    if dns.untouched {
        return None;
    }
    let given = dns.search.as_ref();
    let asked: Vec<&str> = given.unwrap_or(&host.resolver.search).iter().map(String::as_str).collect();
    // "--dns-search ." is for none at all.
    let none = given.is_some_and(Vec::is_empty);
    let search: Vec<&str> = if none { Vec::new() } else { domain.iter().copied().chain(asked).collect() };
    let options = if dns.options.is_empty() { &host.resolver.options } else { &dns.options };
    let mut text = String::new();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    for server in servers {
        text += &format!("nameserver {server}\n");
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    Some(text)
}

/// `/etc/resolv.conf` of a container without a relay: the host's servers, or those that were asked for.
pub fn plain_resolv(dns: &DnsRecord, host: &HostNetwork) -> Option<String> {
    let servers = if dns.servers.is_empty() { &host.resolver.servers } else { &dns.servers };
    resolv(dns, servers, &[], host)
}

fn published(details: &NetworkDetails) -> Vec<Published> {
    let one = |record: &crate::storage::containers::PortRecord| {
        let record = *record;
        (0..record.count).map(move |offset| Published {
            host: record.host,
            host_port: record.host_port + offset,
            port: record.port + offset,
            protocol: match record.protocol {
                PortProtocol::Tcp => Protocol::Tcp,
                PortProtocol::Udp => Protocol::Udp,
            },
        })
    };
    details.ports.iter().flat_map(one).collect()
}

fn policy(rules: &[EgressRecord]) -> Policy {
    let mut policy = Policy::default();
    for EgressRecord { verdict, target, port } in rules {
        if *verdict == Verdict::Resolve {
            policy.lookups.push(target.clone());
            continue;
        }
        let allow = *verdict == Verdict::Allow;
        // Who says what may go out says that nothing else may.
        policy.refuse_others |= allow;
        let subnet = target.parse::<Subnet>().ok().or_else(|| target.parse().ok().map(Subnet::host));
        let target = match subnet {
            _ if target == "*" => Target::All,
            Some(subnet) => Target::Subnet(subnet.address(), subnet.prefix()),
            None => Target::Name(target.clone()),
        };
        policy.egress.push(EgressRule { allow, target, port: *port });
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::network::host::Resolver;
    use crate::storage::containers::PortRecord;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn host() -> HostNetwork {
        HostNetwork {
            own: (Some(Ipv4Addr::new(192, 0, 2, 9)), None),
            ipv6: true,
            routes: vec!["192.0.2.0/24".parse().expect("a subnet")],
            resolver: Resolver {
                servers: vec![ip("127.0.0.53")],
                search: vec!["example.org".into()],
                options: vec!["edns0".into()],
            },
        }
    }

    #[test]
    fn the_private_network_is_that_of_slirp4netns() {
        let (plan, texts) = private(&NetworkDetails::default(), &host());
        let [eth0] = &plan.interfaces[..] else { panic!("one device") };
        assert_eq!(eth0.addresses, [(ip("10.0.2.100"), 24), (ip("fd00::100"), 64)]);
        assert_eq!(eth0.gateways, [ip("10.0.2.2"), ip("fd00::2")]);
        assert_eq!(eth0.routed, [true, false]);
        let dns = plan.dns.expect("a name server");
        assert_eq!(
            (dns.addresses, dns.upstream),
            (vec![ip("10.0.2.3")], vec!["127.0.0.53:53".parse().unwrap()])
        );
        assert_eq!(dns.hosts[0].1, [ip("192.0.2.9")]);
        assert_eq!(plan.policy, Policy::default());
        assert_eq!(texts.resolv.as_deref(), Some("search example.org\nnameserver 10.0.2.3\noptions edns0\n"));
    }

    #[test]
    fn another_subnet_is_taken_where_the_host_has_the_first() {
        let mut host = host();
        host.routes.push("10.0.0.0/16".parse().expect("a subnet"));
        let (plan, _) = private(&NetworkDetails::default(), &host);
        assert_eq!(plan.interfaces[0].addresses[0].0, ip("10.210.2.100"));
        host.routes.push("fd00::/64".parse().expect("a subnet"));
        let (plan, _) = private(&NetworkDetails::default(), &host);
        assert_eq!(plan.interfaces[0].addresses[1].0, ip("fd75:6d69:616b::100"));
        host.routes.push("0.0.0.0/1".parse().expect("a subnet"));
        host.routes.push("128.0.0.0/1".parse().expect("a subnet"));
        let (plan, _) = private(&NetworkDetails::default(), &host);
        assert_eq!(plan.interfaces[0].addresses[0].0, ip("10.0.2.100"));
    }

    #[test]
    fn the_loopback_is_opened_by_its_option() {
        let private_network =
            PrivateNetwork { host_loopback: true, no_ipv6: true, ..PrivateNetwork::default() };
        let details = NetworkDetails { private: private_network, ..NetworkDetails::default() };
        let (plan, texts) = private(&details, &host());
        // That the container has no IPv6 does not matter to a rule nobody can use.
        assert_eq!(plan.policy.aliases, [(ip("10.0.2.2"), ip("127.0.0.1"))]);
        assert_eq!(texts.host, Some(ip("10.0.2.2")));
        assert_eq!(plan.interfaces[0].addresses.len(), 1);
    }

    #[test]
    fn servers_and_rules() {
        let mut details = NetworkDetails::default();
        details.dns.servers = vec![ip("9.9.9.9")];
        details.dns.search = Some(Vec::new());
        let (plan, texts) = private(&details, &host());
        assert_eq!(texts.resolv.as_deref(), Some("nameserver 9.9.9.9\noptions edns0\n"));
        assert_eq!(plan.dns.expect("a server").upstream, ["9.9.9.9:53".parse().unwrap()]);
        let rule = |verdict, target: &str, port| EgressRecord { verdict, target: target.into(), port };
        details.egress = vec![
            rule(Verdict::Allow, "example.org", Some(443)),
            rule(Verdict::Deny, "10.0.0.1", None),
            rule(Verdict::Resolve, "*.corp", None),
            rule(Verdict::Deny, "*", None),
        ];
        let (plan, texts) = private(&details, &host());
        assert_eq!(texts.resolv.as_deref(), Some("nameserver 10.0.2.3\noptions edns0\n"));
        assert!(plan.policy.refuse_others);
        assert_eq!(plan.policy.lookups, ["*.corp"]);
        assert_eq!(plan.policy.egress[1].target, Target::Subnet(ip("10.0.0.1"), 32));
        assert_eq!(plan.policy.egress[2].target, Target::All);
        details.egress.remove(0);
        assert!(!private(&details, &host()).0.policy.refuse_others);
        details.dns.untouched = true;
        assert_eq!(private(&details, &host()).1.resolv, None);
    }

    #[test]
    fn ranges_become_ports() {
        let ports =
            vec![PortRecord { host: None, host_port: 8000, port: 80, count: 3, protocol: PortProtocol::Udp }];
        let details = NetworkDetails { ports, ..NetworkDetails::default() };
        let (plan, _) = private(&details, &host());
        let ports: Vec<_> = plan.published.iter().map(|one| (one.host_port, one.port)).collect();
        assert_eq!(ports, [(8000, 80), (8001, 81), (8002, 82)]);
    }

    #[test]
    fn shared_networks_have_names() {
        let network = |name: &str, last: &str, dns, internal| Joined {
            shared: Shared {
                name: name.into(),
                bridge: name.into(),
                dir: PathBuf::from("/run").join(name),
                internal,
                isolated: false,
            },
            addresses: vec![(ip(&format!("10.89.{last}.5")), 24)],
            gateways: vec![ip(&format!("10.89.{last}.1"))],
            dns,
            servers: Vec::new(),
            device: format!("eth{last}"),
            mac: None,
            mtu: None,
        };
        let details = NetworkDetails::default();
        let (plan, texts) = shared(
            &details,
            &[network("a", "0", true, false), network("b", "1", false, true)],
            &host(),
            "/m".into(),
        );
        assert_eq!(plan.interfaces[1].routed, [false]);
        let dns = plan.dns.expect("a server");
        assert_eq!((dns.addresses, dns.networks), (vec![ip("10.89.0.1")], vec![PathBuf::from("/run/a")]));
        assert_eq!(
            texts.resolv.as_deref(),
            Some("search dns.podman example.org\nnameserver 10.89.0.1\noptions edns0\n")
        );
        assert_eq!(texts.own, [ip("10.89.0.5"), ip("10.89.1.5")]);
        let (plan, texts) = shared(&details, &[network("b", "1", false, true)], &host(), "/m".into());
        assert_eq!(plan.dns, None);
        assert!(texts.resolv.expect("a text").contains("nameserver 127.0.0.53"));
    }
}
