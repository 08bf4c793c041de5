//! How a container's network is shown: in the shapes of Podman's `ps`, `port` and `inspect`.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Map, Value, json};

use super::mac_of;
use crate::engine::Engine;
use crate::engine::list::network_name;
use crate::network::leases;
use crate::storage::containers::{ContainerRecord, NetworkDetails, NetworkMode, PortRecord, RunState};
use crate::storage::networks::NetworkRecord;

/// A published port as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// `80/tcp`.
    pub port: String,
    /// `0.0.0.0`, where all of the host's addresses are meant.
    pub host: IpAddr,
    /// The host's port.
    pub host_port: u16,
}

impl Binding {
    /// `0.0.0.0:8080`, `[::1]:8080`.
    pub fn address(&self) -> String {
        std::net::SocketAddr::new(self.host, self.host_port).to_string()
    }
}

fn host_of(record: &PortRecord) -> IpAddr {
    record.host.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

/// The published ports one by one, in the order of the container's.
pub fn bindings(details: &NetworkDetails) -> Vec<Binding> {
    let mut all: Vec<(u16, Binding)> = Vec::new();
    for record in &details.ports {
        all.extend((0..record.count).map(|offset| {
            let port = format!("{}/{}", record.port + offset, record.protocol.name());
            let host_port = record.host_port + offset;
            (record.port + offset, Binding { port, host: host_of(record), host_port })
        }));
    }
    all.sort_by_key(|(port, _)| *port);
    all.into_iter().map(|(_, binding)| binding).collect()
}

/// The column of `ps`: `0.0.0.0:8000-8002->80-82/tcp, 53/udp`.
pub fn column(details: &NetworkDetails) -> String {
    let range = |first: u16, count: u16| match count {
        1 => first.to_string(),
        _ => format!("{first}-{}", first + (count - 1)),
    };
    let published = details.ports.iter().map(|record| {
        let host = match host_of(record) {
            IpAddr::V6(address) => format!("[{address}]"),
            IpAddr::V4(address) => address.to_string(),
        };
        let (from, to) = (range(record.host_port, record.count), range(record.port, record.count));
        format!("{host}:{from}->{to}/{}", record.protocol.name())
    });
    let known = |port: u16, protocol| {
        details.ports.iter().any(|record| {
            record.protocol == protocol && (record.port..=record.port + (record.count - 1)).contains(&port)
        })
    };
    let exposed = details
        .exposed
        .iter()
        .filter(|(port, protocol)| !known(*port, *protocol))
        .map(|(port, protocol)| format!("{port}/{}", protocol.name()));
    published.chain(exposed).collect::<Vec<_>>().join(", ")
}

/// The same in `ps --format json`.
pub fn ports_json(details: &NetworkDetails) -> Value {
    if details.ports.is_empty() {
        return Value::Null;
    }
    let one = |record: &PortRecord| {
        json!({
            "host_ip": record.host.map(|host| host.to_string()).unwrap_or_default(),
            "container_port": record.port,
            "host_port": record.host_port,
            "range": record.count,
            "protocol": record.protocol.name(),
        })
    };
    details.ports.iter().map(one).collect()
}

/// What is exposed, by number: `{"80": ["tcp"]}`.
pub fn exposed_json(details: &NetworkDetails) -> Value {
    let mut all: Map<String, Value> = Map::new();
    for (port, protocol) in &details.exposed {
        let list = all.entry(port.to_string()).or_insert_with(|| json!([]));
        list.as_array_mut().into_iter().for_each(|list| list.push(protocol.name().into()));
    }
    all.into()
}

/// The networks that containers share and this one is in.
pub fn network_names(details: &NetworkDetails) -> Vec<&str> {
    details.memberships.iter().map(|membership| membership.network.as_str()).collect()
}

/// `NetworkSettings.Ports` and `HostConfig.PortBindings` of `inspect`; with `exposed` also those that are not
/// published.
pub fn port_map(details: &NetworkDetails, exposed: bool) -> Value {
    let mut map: Map<String, Value> = Map::new();
    if exposed {
        let all = details.exposed.iter();
        map.extend(all.map(|(port, protocol)| (format!("{port}/{}", protocol.name()), Value::Null)));
    }
    for binding in bindings(details) {
        let one = json!({ "HostIp": binding.host, "HostPort": binding.host_port.to_string() });
        match map.get_mut(&binding.port).and_then(Value::as_array_mut) {
            Some(list) => list.push(one),
            None => drop(map.insert(binding.port, json!([one]))),
        }
    }
    map.into()
}

/// The addresses of a container in a network.
#[derive(Default)]
struct Endpoint {
    addresses: Vec<(IpAddr, u8)>,
    gateways: Vec<IpAddr>,
    mac: String,
}

impl Endpoint {
    fn of(ipv6: bool, list: &[(IpAddr, u8)]) -> (String, u8) {
        let found = list.iter().find(|(address, _)| address.is_ipv6() == ipv6);
        found.map(|(address, prefix)| (address.to_string(), *prefix)).unwrap_or_default()
    }

    fn value(&self) -> Value {
        let gateway = |ipv6| {
            let found = self.gateways.iter().find(|gateway| gateway.is_ipv6() == ipv6);
            found.map(ToString::to_string).unwrap_or_default()
        };
        let (v4, v6) = (Self::of(false, &self.addresses), Self::of(true, &self.addresses));
        json!({
            "EndpointID": "",
            "Gateway": gateway(false),
            "IPAddress": v4.0,
            "IPPrefixLen": v4.1,
            "IPv6Gateway": gateway(true),
            "GlobalIPv6Address": v6.0,
            "GlobalIPv6PrefixLen": v6.1,
            "MacAddress": self.mac,
        })
    }
}

impl Engine {
    /// `NetworkSettings` of `inspect`.
    pub(in crate::engine) fn network_settings(
        &self,
        record: &ContainerRecord,
        running: Option<&RunState>,
    ) -> Value {
        let details = &record.config.net;
        let mut networks = Map::new();
        let mut first = Endpoint::default();
        match record.config.network {
            NetworkMode::Private if running.is_some() => {
                if let Some(endpoint) = running.and_then(|state| state.endpoint.clone()) {
                    first.addresses = endpoint.addresses;
                    first.gateways = endpoint.gateways;
                }
                first.mac = details.private.mac.map(|mac| mac.to_string()).unwrap_or_default();
            }
            NetworkMode::Shared => {
                for (index, membership) in details.memberships.iter().enumerate() {
                    let network = self.networks().get(&membership.network).ok().flatten();
                    let endpoint = network.as_ref().filter(|_| running.is_some()).map(|network| Endpoint {
                        mac: mac_of(record, membership).to_string(),
                        ..self.endpoint(network, record)
                    });
                    let endpoint = endpoint.unwrap_or_default();
                    let mut value = endpoint.value();
                    value["NetworkID"] = membership.network.as_str().into();
                    value["DriverOpts"] = Value::Null;
                    value["IPAMConfig"] = Value::Null;
                    value["Links"] = Value::Null;
                    value["Aliases"] =
                        json!([&membership.aliases[..], &[record.id.short().to_owned()]].concat());
                    networks.insert(membership.network.clone(), value);
                    if index == 0 {
                        first = endpoint;
                    }
                }
            }
            _ => {}
        }
        if networks.is_empty() {
            let name = network_name(&record.config.network, details);
            let mut value = first.value();
            value["NetworkID"] = name.as_str().into();
            for none in ["DriverOpts", "IPAMConfig", "Links"] {
                value[none] = Value::Null;
            }
            networks.insert(name, value);
        }
        let mut value = first.value();
        let key = running.map(|state| format!("/proc/{}/ns/net", state.pid)).unwrap_or_default();
        for (name, field) in [
            ("Bridge", json!("")),
            ("SandboxID", json!("")),
            ("HairpinMode", json!(false)),
            ("LinkLocalIPv6Address", json!("")),
            ("LinkLocalIPv6PrefixLen", json!(0)),
            ("Ports", port_map(details, true)),
            ("SandboxKey", json!(key)),
            ("Networks", networks.into()),
        ] {
            value[name] = field;
        }
        value
    }

    fn endpoint(&self, network: &NetworkRecord, record: &ContainerRecord) -> Endpoint {
        let held = leases::list(&self.network_dir(&network.name));
        let own = held.into_iter().filter(|lease| lease.id == record.id.as_str());
        let prefix = |address: IpAddr| {
            let of = network.subnets.iter().find(|one| one.subnet.contains(address));
            of.map_or(0, |one| one.subnet.prefix())
        };
        Endpoint {
            addresses: own.map(|lease| (lease.address, prefix(lease.address))).collect(),
            gateways: network.subnets.iter().map(|one| one.gateway).collect(),
            mac: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::config::network::publish;
    use crate::storage::containers::PortProtocol;

    #[test]
    fn ports_are_shown_as_podman_shows_them() {
        let ports = ["127.0.0.1:8080:80", "8000-8002:90-92/udp", "[::1]:9000:70"];
        let details = NetworkDetails {
            ports: ports.map(|text| publish(text).expect(text)).to_vec(),
            exposed: vec![(80, PortProtocol::Tcp), (443, PortProtocol::Tcp)],
            ..NetworkDetails::default()
        };
        assert_eq!(
            column(&details),
            "127.0.0.1:8080->80/tcp, 0.0.0.0:8000-8002->90-92/udp, [::1]:9000->70/tcp, 443/tcp"
        );
        let all = bindings(&details);
        assert_eq!((all.len(), all[0].port.as_str(), all[0].address()), (5, "70/tcp", "[::1]:9000".into()));
        assert_eq!(port_map(&details, true)["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(port_map(&details, true)["443/tcp"], Value::Null);
        assert!(port_map(&details, false).get("443/tcp").is_none());
        assert_eq!(ports_json(&details)[1]["range"], 3);
        assert_eq!(exposed_json(&details)["443"][0], "tcp");
        assert_eq!(ports_json(&NetworkDetails::default()), Value::Null);
    }
}
