//! What a container's network has to know of the host's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::base::address::{self, Subnet};

/// What is known of the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetwork {
    /// The address that it goes out by, of each family; none where there is no way out.
    pub own: (Option<Ipv4Addr>, Option<Ipv6Addr>),
    /// Whether it has IPv6 at all.
    pub ipv6: bool,
    /// Subnets that it has a way to; those of IPv6 where that leads out.
    pub routes: Vec<Subnet>,
    /// What its `/etc/resolv.conf` says.
    pub resolver: Resolver,
}

/// `/etc/resolv.conf`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Domains.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// Far away, a root name server's: to look for the way there sends nothing.
const FAR: (Ipv4Addr, Ipv6Addr) =
    (Ipv4Addr::new(198, 41, 0, 4), Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30));

impl HostNetwork {
    /// Looks at the host.
    pub fn read() -> Self {
        let socket =
            |family| rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok();
        let own = |socket: &OwnedFd, far: SocketAddr| {
            rustix::net::connect(socket, &far).ok()?;
            let own = SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
            Some(own.ip()).filter(|address| !address.is_loopback())
        };
        let v4 = match socket(AddressFamily::INET).and_then(|socket| own(&socket, (FAR.0, 9).into())) {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        };
        let v6_socket = socket(AddressFamily::INET6);
        let ipv6 = v6_socket.is_some();
        let v6 = match v6_socket.and_then(|socket| own(&socket, (FAR.1, 9).into())) {
            Some(IpAddr::V6(address)) => Some(address),
            _ => None,
        };
        let mut routes = routes(&fs::read_to_string("/proc/net/route").unwrap_or_default());
        if v6.is_some() {
            routes.extend(routes_v6(&fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default()));
        }
        Self { own: (v4, v6), ipv6, routes, resolver: Resolver::read() }
    }
}

impl Resolver {
    /// That of the host.
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    /// Reads the form of resolv.conf(5). Servers of link-local addresses are left out: they mean nothing
    /// without a device.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    resolver.servers.extend(words.next().and_then(|word| word.parse::<IpAddr>().ok()))
                }
                // The last of them counts.
                Some("search" | "domain") => {
                    resolver.search = words.filter(|word| *word != ".").map(str::to_owned).collect();
                }
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }
}

/// The subnets of `/proc/net/route`, whose addresses are in the machine's byte order, without the default one.
fn routes(text: &str) -> Vec<Subnet> {
    let subnet = |line: &str| {
        let mut fields = line.split_whitespace();
        let number = |text: &str| {
            u32::from_str_radix(text, 16).ok().map(|number| u32::from_be_bytes(number.to_ne_bytes()))
        };
        let (address, mask) = (number(fields.nth(1)?)?, number(fields.nth(5)?)?);
        Subnet::of(Ipv4Addr::from(address).into(), mask.leading_ones() as u8)
    };
    text.lines().skip(1).filter_map(subnet).filter(|subnet| subnet.prefix() > 0).collect()
}

/// The subnets of `/proc/net/ipv6_route`, without the default one, single addresses and what is of a link.
fn routes_v6(text: &str) -> Vec<Subnet> {
    let subnet = |line: &str| {
        let (address, rest) = line.split_once(' ')?;
        let address = Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?);
        let prefix = u8::from_str_radix(rest.split_whitespace().next()?, 16).ok()?;
        Subnet::of(address.into(), prefix)
    };
    let usual = |subnet: &Subnet| (1..128).contains(&subnet.prefix()) && !address::is_local(subnet.address());
    text.lines().filter_map(subnet).filter(usual).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_file_is_read() {
        let text = "# a comment\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver ::1\nsearch old\n\
                    options edns0 trust-ad\nsearch a.example b.example\nnonsense\nnameserver\n";
        let resolver = Resolver::parse(text);
        assert_eq!(resolver.servers, ["127.0.0.53".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(resolver.search, ["a.example", "b.example"]);
        assert_eq!(resolver.options, ["edns0", "trust-ad"]);
    }

    #[test]
    fn routes_of_ipv6_are_read() {
        let line = |address: &str, prefix: &str| {
            let zero = "0".repeat(32);
            format!("{address} {prefix} {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n")
        };
        let text = line(&format!("fd00{}", "0".repeat(28)), "40")
            + &line(&"0".repeat(32), "00")
            + &line(&format!("fe80{}", "0".repeat(28)), "40")
            + &line(&format!("fd00{}5", "0".repeat(27)), "80")
            + &line(&format!("ff00{}", "0".repeat(28)), "08")
            + "nonsense\n";
        assert_eq!(routes_v6(&text), ["fd00::/64".parse::<Subnet>().unwrap()]);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn routes_are_read() {
        let text = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                    eth0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    eth0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\nnonsense\n";
        assert_eq!(routes(text), ["10.0.2.0/24".parse::<Subnet>().unwrap()]);
    }
}
