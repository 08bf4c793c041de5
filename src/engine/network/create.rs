//! From `network create` to a network's record. Pure: the networks that are there already and the host's ways
//! come in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Error;
use crate::base::address::Subnet;
use crate::base::id::check_name;
use crate::engine::config::network::{device, mtu};
use crate::storage::networks::{NetworkRecord, SubnetRecord};

/// What `network create` was told.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are those of the flags")]
pub struct NetworkRequest {
    pub name: Option<String>,
    pub subnets: Vec<String>,
    pub gateways: Vec<String>,
    pub ip_ranges: Vec<String>,
    pub ipv6: bool,
    pub internal: bool,
    pub disable_dns: bool,
    pub dns: Vec<String>,
    pub labels: Vec<String>,
    pub options: Vec<String>,
    pub interface_name: Option<String>,
}

/// What is there already.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// Networks.
    pub networks: Vec<NetworkRecord>,
    /// Subnets that the host has a way to.
    pub routes: Vec<Subnet>,
    /// Nanoseconds since 1970.
    pub now: i64,
    /// Random bytes for a subnet of IPv6.
    pub random: u64,
}

/// Names that mean something else to `--network`.
const TAKEN: [&str; 10] =
    ["none", "host", "bridge", "default", "private", "pasta", "slirp4netns", "container", "ns", "fast"];

fn bad(flag: &'static str, value: &str, why: impl Into<String>) -> Error {
    Error::Flag { flag, value: value.to_owned(), why: why.into() }
}

/// Makes the record of a new network.
pub fn network(request: &NetworkRequest, present: &Present) -> Result<NetworkRecord, Error> {
    let name = match &request.name {
        Some(name) => {
            check_name(name).map_err(|error| bad("name", name, error.to_string()))?;
            if TAKEN.contains(&name.as_str()) {
                return Err(bad("name", name, "the word means something else to --network"));
            }
            name.clone()
        }
        None => free_name(present),
    };
    let mut record = NetworkRecord::new(&name, bridge(request, present)?, present.now);
    record.subnets = subnets(request, present)?;
    record.internal = request.internal;
    record.dns = !request.disable_dns;
    if let (true, Some(server)) = (request.disable_dns, request.dns.first()) {
        return Err(bad("dns", server, "it cannot be used together with --disable-dns"));
    }
    for server in &request.dns {
        record.servers.push(server.parse().map_err(|_| bad("dns", server, "it is no IP address"))?);
    }
    record.labels = pairs("label", &request.labels)?;
    record.options = pairs("opt", &request.options)?;
    for (key, value) in &record.options {
        let text = format!("{key}={value}");
        match key.as_str() {
            "mtu" | "com.docker.network.driver.mtu" => {
                record.mtu = match value.as_str() {
                    "0" => None,
                    value => Some(mtu(value).map_err(|why| bad("opt", &text, why))?),
                };
            }
            "isolate" => {
                record.isolated = match value.as_str() {
                    "true" | "strict" => true,
                    "false" => false,
                    _ => return Err(bad("opt", &text, "it takes true, false or strict")),
                };
            }
            _ => return Err(Error::Unsupported { flag: "opt", value: text }),
        }
    }
    Ok(record)
}

fn pairs(flag: &'static str, items: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let pair = |item: &String| {
        let (key, value) = item.split_once('=').unwrap_or((item, ""));
        if key.is_empty() {
            return Err(bad(flag, item, "it takes KEY=VALUE"));
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    items.iter().map(pair).collect()
}

fn free_name(present: &Present) -> String {
    let taken = |name: &String| present.networks.iter().any(|network| network.name == *name);
    (1_u32..).map(|number| format!("podman{number}")).find(|name| !taken(name)).unwrap_or_default()
}

fn bridge(request: &NetworkRequest, present: &Present) -> Result<String, Error> {
    let taken = |name: &str| present.networks.iter().any(|network| network.bridge == name);
    match &request.interface_name {
        Some(name) => {
            let name = device(name).map_err(|why| bad("interface-name", name, why))?;
            if taken(&name) {
                return Err(bad("interface-name", &name, "another network has this device"));
            }
            Ok(name)
        }
        None => {
            let mut all = (1_u32..).map(|number| format!("podman{number}"));
            Ok(all.find(|name| !taken(name)).unwrap_or_default())
        }
    }
}

fn subnets(request: &NetworkRequest, present: &Present) -> Result<Vec<SubnetRecord>, Error> {
    let mut records: Vec<SubnetRecord> = Vec::new();
    for text in &request.subnets {
        let subnet: Subnet = text.parse().map_err(|why| bad("subnet", text, format!("{why}")))?;
        if subnet.prefix() == 0 || subnet.nth(3).is_none() {
            return Err(bad("subnet", text, "it has room for no router and container, or is all there is"));
        }
        if crate::base::address::is_local(subnet.address()) {
            return Err(bad(
                "subnet",
                text,
                "its addresses are for one machine or link, or for many receivers",
            ));
        }
        if let Some(other) = taken(subnet, present) {
            return Err(bad("subnet", text, format!("it overlaps {} of network \"{}\"", other.1, other.0)));
        }
        if let Some(other) = records.iter().find(|other| other.subnet.overlaps(subnet)) {
            return Err(bad("subnet", text, format!("it overlaps {}", other.subnet)));
        }
        records.push(with_gateway(subnet));
    }
    if !records.iter().any(|record| !record.subnet.is_ipv6())
        && (records.is_empty() || !request.ipv6)
        && request.subnets.is_empty()
    {
        records.insert(0, with_gateway(free_subnet(present)?));
    }
    if request.ipv6 && !records.iter().any(|record| record.subnet.is_ipv6()) {
        records.push(with_gateway(random_subnet(present)));
    }
    let family = |ipv6| records.iter().filter(|record| record.subnet.is_ipv6() == ipv6).count();
    if let Some(text) = request.subnets.get(1).filter(|_| family(false) > 1 || family(true) > 1) {
        return Err(Error::Unsupported { flag: "subnet", value: text.clone() });
    }
    for text in &request.gateways {
        let gateway: IpAddr = text.parse().map_err(|_| bad("gateway", text, "it is no IP address"))?;
        let of = records.iter_mut().find(|record| record.subnet.contains(gateway));
        let record = of.ok_or_else(|| bad("gateway", text, "it is in none of the network's subnets"))?;
        if !record.subnet.has_host(gateway) {
            return Err(bad("gateway", text, "it is that of the subnet itself or for broadcasts"));
        }
        record.gateway = gateway;
    }
    for text in &request.ip_ranges {
        let (first, last) = range(text)?;
        let of =
            records.iter_mut().find(|record| record.subnet.contains(first) && record.subnet.contains(last));
        let record = of.ok_or_else(|| bad("ip-range", text, "it is in none of the network's subnets"))?;
        record.range = Some((first, last));
    }
    Ok(records)
}

/// `10.89.0.128/25` or `10.89.0.10-10.89.0.20`.
fn range(text: &str) -> Result<(IpAddr, IpAddr), Error> {
    if let Some((first, last)) = text.split_once('-') {
        let address = |part: &str| part.parse::<IpAddr>();
        let (Ok(first), Ok(last)) = (address(first), address(last)) else {
            return Err(bad("ip-range", text, "it takes a subnet or FIRST-LAST"));
        };
        if first.is_ipv4() != last.is_ipv4() || first > last {
            return Err(bad("ip-range", text, "the last address is below the first"));
        }
        return Ok((first, last));
    }
    let subnet: Subnet = text.parse().map_err(|why| bad("ip-range", text, format!("{why}")))?;
    Ok((subnet.address(), subnet.last()))
}

fn with_gateway(subnet: Subnet) -> SubnetRecord {
    SubnetRecord { subnet, gateway: subnet.nth(1).unwrap_or(subnet.address()), range: None }
}

/// The network that has a part of a subnet, and that part.
fn taken(subnet: Subnet, present: &Present) -> Option<(&str, Subnet)> {
    present.networks.iter().find_map(|network| {
        let other = network.subnets.iter().find(|other| other.subnet.overlaps(subnet))?;
        Some((network.name.as_str(), other.subnet))
    })
}

/// The first of Podman's subnets that is free here and on the host: 10.89.0.0/24 and those above it.
fn free_subnet(present: &Present) -> Result<Subnet, Error> {
    let first = u32::from(Ipv4Addr::new(10, 89, 0, 0));
    let all = (0..(256 - 89) * 256).map(|number| Ipv4Addr::from(first + (number << 8)));
    all.filter_map(|address| Subnet::of(address.into(), 24))
        .find(|subnet| {
            taken(*subnet, present).is_none() && !present.routes.iter().any(|route| route.overlaps(*subnet))
        })
        .ok_or(Error::NoSubnet)
}

/// One of the unique local addresses (RFC 4193), whose 40 random bits nobody else has.
fn random_subnet(present: &Present) -> Subnet {
    let global = u128::from(present.random & 0xff_ffff_ffff);
    let address = IpAddr::V6(Ipv6Addr::from(0xfd << 120 | global << 80));
    Subnet::of(address, 64).unwrap_or(Subnet::host(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present() -> Present {
        Present {
            networks: vec![NetworkRecord::default_network()],
            routes: vec!["10.89.0.0/24".parse().unwrap()],
            now: 1,
            random: 0x12_3456_789a,
        }
    }

    fn made(change: impl FnOnce(&mut NetworkRequest)) -> Result<NetworkRecord, String> {
        let mut request = NetworkRequest { name: Some("web".into()), ..NetworkRequest::default() };
        change(&mut request);
        network(&request, &present()).map_err(|error| error.to_string())
    }

    fn own(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn what_is_free_is_taken() {
        let record = made(|_| ()).unwrap();
        assert_eq!((record.bridge.as_str(), record.dns, record.internal), ("podman1", true, false));
        assert_eq!(record.subnets, [with_gateway("10.89.1.0/24".parse().unwrap())]);
        assert_eq!(record.subnets[0].gateway.to_string(), "10.89.1.1");
        let record = made(|request| request.ipv6 = true).unwrap();
        assert_eq!(record.subnets[1].subnet.to_string(), "fd12:3456:789a::/64");
        assert_eq!(made(|request| request.name = None).unwrap().name, "podman1");
    }

    #[test]
    fn what_was_asked_for_is_there() {
        let record = made(|request| {
            request.subnets = own(&["10.5.0.0/16", "fd05::/64"]);
            request.gateways = own(&["10.5.0.254"]);
            request.ip_ranges = own(&["10.5.1.0/24", "fd05::10-fd05::20"]);
            request.options = own(&["mtu=1400", "isolate=true"]);
            request.dns = own(&["9.9.9.9"]);
            request.labels = own(&["a=b"]);
            request.interface_name = Some("br-web".into());
        })
        .unwrap();
        assert_eq!(record.subnets[0].gateway.to_string(), "10.5.0.254");
        assert_eq!(record.subnets[0].range.map(|range| range.1.to_string()).unwrap(), "10.5.1.255");
        assert_eq!(record.subnets[1].range.map(|range| range.0.to_string()).unwrap(), "fd05::10");
        assert_eq!((record.mtu, record.isolated, record.bridge.as_str()), (Some(1400), true, "br-web"));
        assert_eq!((record.labels["a"].as_str(), record.servers.len()), ("b", 1));
        let record = made(|request| request.subnets = own(&["fd05::/64"])).unwrap();
        assert_eq!(record.subnets.len(), 1);
    }

    #[test]
    fn mistakes_are_told() {
        type Change<'a> = &'a dyn Fn(&mut NetworkRequest);
        let bad: [(&str, Change<'_>); 26] = [
            ("name", &|request| request.name = Some("a/b".into())),
            ("--network", &|request| request.name = Some("host".into())),
            ("ADDRESS/BITS", &|request| request.subnets = own(&["10.0.0.0"])),
            ("no IP", &|request| request.subnets = own(&["x/8"])),
            ("32 bits", &|request| request.subnets = own(&["10.0.0.0/33"])),
            ("no router", &|request| request.subnets = own(&["10.0.0.0/31"])),
            ("all there is", &|request| request.subnets = own(&["0.0.0.0/0"])),
            ("one machine", &|request| request.subnets = own(&["127.0.0.0/24"])),
            ("one machine", &|request| request.subnets = own(&["224.0.0.0/24"])),
            ("overlaps 10.88.0.0/16 of network \"podman\"", &|request| {
                request.subnets = own(&["10.88.3.0/24"])
            }),
            ("overlaps", &|request| request.subnets = own(&["10.5.0.0/16", "10.5.1.0/24"])),
            ("not supported yet", &|request| request.subnets = own(&["10.5.0.0/24", "10.5.1.0/24"])),
            ("no IP", &|request| request.gateways = own(&["x"])),
            ("in none", &|request| request.gateways = own(&["10.5.0.1"])),
            ("itself", &|request| {
                request.subnets = own(&["10.5.0.0/24"]);
                request.gateways = own(&["10.5.0.255"]);
            }),
            ("FIRST-LAST", &|request| request.ip_ranges = own(&["a-b"])),
            ("below", &|request| request.ip_ranges = own(&["10.89.1.9-10.89.1.3"])),
            ("in none", &|request| request.ip_ranges = own(&["10.5.0.0/25"])),
            ("--disable-dns", &|request| {
                request.disable_dns = true;
                request.dns = own(&["9.9.9.9"]);
            }),
            ("no IP", &|request| request.dns = own(&["x"])),
            ("KEY=VALUE", &|request| request.labels = own(&["=x"])),
            ("not supported yet", &|request| request.options = own(&["vlan=5"])),
            ("no MTU", &|request| request.options = own(&["mtu=5"])),
            ("true, false", &|request| request.options = own(&["isolate=x"])),
            ("no name of a device", &|request| request.interface_name = Some("x".repeat(16))),
            ("another network", &|request| request.interface_name = Some("podman0".into())),
        ];
        for (part, change) in bad {
            let error = made(change).unwrap_err();
            assert!(error.contains(part), "{error} lacks {part}");
        }
    }
}
