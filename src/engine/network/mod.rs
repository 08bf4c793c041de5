//! The networks of containers: what is known of the host, what becomes of what was asked for, and the networks
//! that containers share.

pub mod create;
pub mod host;
pub mod live;
mod manage;
pub mod plan;
pub mod show;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::OnceLock;

use self::host::HostNetwork;
use self::plan::{Joined, Texts};
use super::{Engine, Error as EngineError};
use crate::base::digest::Digest;
use crate::network::fast;
use crate::network::leases::{self, Holder, Pool};
use crate::network::plan::{NetworkPlan, Shared};
use crate::storage::containers::{
    ContainerConfig, ContainerRecord, Mac, Membership, NetworkMode, PortProtocol, PortRecord, Unfit,
};
use crate::storage::networks::{NetworkRecord, Networks, SubnetRecord};
use crate::sys::{host as machine, process};

/// What is wrong with a network, or with a container's wishes for it.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Error {
    #[error("--{flag} \"{value}\": {why}")]
    Flag { flag: &'static str, value: String, why: String },
    #[error("--{flag} \"{value}\" is not supported yet")]
    Unsupported { flag: &'static str, value: String },
    #[error("there is a network \"{0}\" already")]
    Exists(String),
    #[error("the network \"podman\" is always there")]
    Default,
    #[error("several networks have an ID that begins with \"{0}\"")]
    Ambiguous(String),
    #[error("network \"{network}\" is used by container \"{user}\"")]
    InUse { network: String, user: String },
    #[error("no subnet is free: the networks that are there have all")]
    NoSubnet,
    #[error("network \"{0}\" knows no names: it has no name server to change")]
    NoNames(String),
    #[error("network \"{network}\" has no name server {server}")]
    NoServer { network: String, server: IpAddr },
    #[error("container \"{container}\" and network \"{network}\": {why}")]
    Connect { container: String, network: String, why: Unfit },
    #[error("the networks of container \"{container}\": {message}")]
    Live { container: String, message: String, hint: String },
    #[error("there is no network \"{0}\"")]
    Unknown(String),
    #[error("network \"{network}\": address {address} is not in its subnets")]
    Outside { network: String, address: IpAddr },
    #[error("network \"{network}\": address {address} is {whose}")]
    Reserved { network: String, address: IpAddr, whose: &'static str },
    #[error(
        "--publish: port {port} of the host is for root alone: ordinary users have those from {first} on"
    )]
    Privileged { port: u16, first: u16 },
    #[error(
        "--network fast: with CAP_NET_ADMIN, and no user namespace, the container could do with the host's network \
         what it likes by a socket of it"
    )]
    FastAdmin,
    #[error("--network fast: tying a socket of the host's network to its one peer")]
    FastImpossible(#[source] io::Error),
    #[error("--publish: looking for a free port of the host")]
    NoPort(#[source] io::Error),
    #[error("network \"{network}\": taking an address")]
    Lease {
        network: String,
        #[source]
        source: leases::Error,
    },
    #[error(
        "--add-host: \"host-gateway\" has no address here: the host has no way out, or the container no network"
    )]
    NoHostAddress,
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown(name) => {
                Some(format!("\"umiak network create {name}\" makes it; \"umiak network ls\" lists all"))
            }
            Self::Exists(_) => Some("--ignore takes the one that is there".to_owned()),
            Self::InUse { user, .. } => Some(format!("remove the container first: umiak rm {user}")),
            Self::NoSubnet => Some("--subnet chooses one".to_owned()),
            Self::Live { hint, .. } => Some(hint.clone()).filter(|hint| !hint.is_empty()),
            Self::FastImpossible(_) => Some(
                "this kernel lets root alone do that; --network default keeps what the container may dial by itself"
                    .to_owned(),
            ),
            Self::FastAdmin => {
                Some("--userns auto gives it one; --network default has no such sockets".to_owned())
            }
            Self::Privileged { port, .. } => Some(format!(
                "take a higher port, or let root allow it: sysctl net.ipv4.ip_unprivileged_port_start={port}"
            )),
            _ => None,
        }
    }
}

/// Where the relays of shared networks meet, beside the directories of the networks.
const MEETING: &str = ".router";

/// The file in a container's directory that tells what its rules for what goes out have refused, and when there were
/// too many connections.
const REFUSED: &str = "refused";

impl Engine {
    /// The networks of the store.
    pub fn networks(&self) -> Networks {
        Networks::new(&self.paths.root)
    }

    /// Where those who run in a network meet.
    pub fn network_dir(&self, name: &str) -> PathBuf {
        self.paths.runroot.join("networks").join(name)
    }

    /// What is known of the host's network, looked at once and only when it matters.
    fn host_network(&self) -> &HostNetwork {
        self.host_network.get_or_init(HostNetwork::read)
    }

    /// The same engine for a later run: the host may have moved to another network since.
    pub(super) fn afresh(&self) -> Self {
        Self { host_network: OnceLock::new(), ..self.clone() }
    }

    /// Looks at a new container's networks before it is made, and gives the ports that were left to us.
    pub(super) fn check_network(&self, config: &mut ContainerConfig) -> Result<(), EngineError> {
        for membership in &config.net.memberships {
            let record = self.network_named(&membership.network)?;
            check_addresses(&record, membership)?;
        }
        if !config.net.ports.is_empty() {
            check_ports(&config.net.ports)?;
            config.net.ports = choose_ports(&config.net.ports).map_err(Error::NoPort)?;
        }
        Ok(())
    }

    /// Refuses sockets of the host's network to who has power over them there. `apart`: the container has a user
    /// namespace of its own.
    pub(super) fn check_fast(config: &ContainerConfig, apart: bool) -> Result<(), Error> {
        let rules = config.capabilities.iter().any(|name| name == "NET_ADMIN");
        match config.net.private.fast {
            true if rules && !apart => Err(Error::FastAdmin),
            true => fast::Guard::find().map(drop).map_err(Error::FastImpossible),
            false => Ok(()),
        }
    }

    /// The network of this name.
    pub fn network_named(&self, name: &str) -> Result<NetworkRecord, EngineError> {
        self.networks().get(name)?.ok_or_else(|| Error::Unknown(name.to_owned()).into())
    }

    /// A plan with the file in which is noted what of the container's was refused, and what else depends on the
    /// container.
    fn completed(&self, record: &ContainerRecord, plan: NetworkPlan) -> NetworkPlan {
        NetworkPlan {
            log: Some(self.containers.dir(&record.id).join(REFUSED)),
            congestion_chosen: record.config.sysctls.contains_key("net.ipv4.tcp_congestion_control"),
            ..plan
        }
    }

    /// What the relay of a container shall carry out, and what is told of it in the container's files; none for a
    /// container without one. It may be asked for any number of times, but for shared networks by the container's
    /// monitor alone: the addresses are taken for the process that asks.
    pub(super) fn network_of(
        &self,
        record: &ContainerRecord,
    ) -> Result<Option<(NetworkPlan, Texts)>, EngineError> {
        let details = &record.config.net;
        match record.config.network {
            NetworkMode::Private => Ok(Some(plan::private(details, self.host_network()))),
            NetworkMode::Shared => {
                let joined = self.join_networks(record)?;
                let meeting = self.network_dir(MEETING);
                Ok(Some(plan::shared(details, &joined, self.host_network(), meeting)))
            }
            _ => Ok(None),
        }
    }

    /// Takes the addresses of a container in its networks.
    fn join_networks(&self, record: &ContainerRecord) -> Result<Vec<Joined>, EngineError> {
        let pid = std::process::id() as i32;
        let start_time = process::start_time(pid).map_err(EngineError::Socket)?;
        let holder = Holder { id: record.id.to_string(), name: record.name.clone(), pid, start_time };
        let mut joined = Vec::new();
        for (index, membership) in record.config.net.memberships.iter().enumerate() {
            let network = self.network_named(&membership.network)?;
            joined.push(self.join(record, &holder, index, membership, &network)?);
        }
        Ok(joined)
    }

    /// Takes a container's addresses and names in a network.
    pub(super) fn join(
        &self,
        record: &ContainerRecord,
        holder: &Holder,
        index: usize,
        membership: &Membership,
        network: &NetworkRecord,
    ) -> Result<Joined, EngineError> {
        let dir = self.network_dir(&network.name);
        let pools: Vec<Pool> = network.subnets.iter().map(|subnet| pool(subnet, membership)).collect();
        let names = if network.dns { names_of(record, membership) } else { Vec::new() };
        let lease = |source| Error::Lease { network: network.name.clone(), source };
        let addresses = leases::take(&dir, holder, &pools, &names).map_err(lease)?;
        Ok(Joined {
            addresses: addresses
                .into_iter()
                .zip(&network.subnets)
                .map(|(address, subnet)| (address, subnet.subnet.prefix()))
                .collect(),
            gateways: gateways(network),
            shared: Shared {
                name: network.name.clone(),
                bridge: network.bridge.clone(),
                dir,
                internal: network.internal,
                isolated: network.isolated,
            },
            dns: network.dns,
            servers: network.servers.clone(),
            device: membership.interface.clone().unwrap_or_else(|| format!("eth{index}")),
            mac: Some(mac_of(record, membership).0),
            mtu: network.mtu,
        })
    }

    /// Gives back what a container has taken in its networks.
    pub fn leave_networks(&self, record: &ContainerRecord) {
        for membership in &record.config.net.memberships {
            leases::release(&self.network_dir(&membership.network), record.id.as_str());
        }
    }
}

/// The hardware address of a container in a network: the same for all its runs, and nobody else's (IEEE 802:
/// locally administered, of one device).
pub fn mac_of(record: &ContainerRecord, membership: &Membership) -> Mac {
    membership.mac.unwrap_or_else(|| {
        let digest = Digest::of(format!("{} {}", record.id, membership.network).as_bytes());
        let [a, b, c, d, e, f, ..] = *digest.as_bytes();
        let mut mac = [a, b, c, d, e, f];
        mac[0] = mac[0] & 0xfc | 2;
        Mac(mac)
    })
}

fn gateways(network: &NetworkRecord) -> Vec<IpAddr> {
    let of = |ipv6| network.subnets.iter().map(|one| one.gateway).find(|gateway| gateway.is_ipv6() == ipv6);
    of(false).into_iter().chain(of(true)).collect()
}

fn pool(subnet: &SubnetRecord, membership: &Membership) -> Pool {
    let wanted: Option<IpAddr> =
        if subnet.subnet.is_ipv6() { membership.ip6.map(Into::into) } else { membership.ip.map(Into::into) };
    Pool {
        subnet: subnet.subnet,
        gateway: Some(subnet.gateway),
        range: subnet.range,
        wanted: wanted.filter(|address| subnet.subnet.contains(*address)),
    }
}

/// What a container is called in a network: its name, the beginning of its id, its hostname, its aliases.
fn names_of(record: &ContainerRecord, membership: &Membership) -> Vec<String> {
    let mut names = vec![record.name.clone(), record.id.short().to_owned(), record.config.hostname.clone()];
    names.extend(membership.aliases.iter().cloned());
    names
}

/// Refuses addresses that cannot be had in a network.
pub(super) fn check_addresses(network: &NetworkRecord, membership: &Membership) -> Result<(), Error> {
    let wanted = [membership.ip.map(IpAddr::from), membership.ip6.map(IpAddr::from)];
    for address in wanted.into_iter().flatten() {
        let name = || network.name.clone();
        let Some(subnet) = network.subnets.iter().find(|one| one.subnet.contains(address)) else {
            return Err(Error::Outside { network: name(), address });
        };
        let reserved = |whose| Error::Reserved { network: name(), address, whose };
        if subnet.gateway == address {
            return Err(reserved("the router's own"));
        }
        if !subnet.subnet.has_host(address) {
            return Err(reserved("that of the subnet itself or for broadcasts"));
        }
    }
    Ok(())
}

/// Refuses ports that an ordinary user cannot listen at.
fn check_ports(ports: &[PortRecord]) -> Result<(), Error> {
    if machine::uid() == 0 {
        return Ok(());
    }
    let low = ports.iter().map(|record| record.host_port).filter(|port| (1..1024).contains(port)).min();
    let Some(port) = low else { return Ok(()) };
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1024);
    if port < first { Err(Error::Privileged { port, first }) } else { Ok(()) }
}

/// Gives ports of the host to those that have none: free ones at this moment, which stay the container's.
fn choose_ports(ports: &[PortRecord]) -> io::Result<Vec<PortRecord>> {
    let mut chosen = Vec::with_capacity(ports.len());
    // Held until all are chosen, so that none is given twice.
    let mut held = (Vec::new(), Vec::new());
    for record in ports {
        if record.host_port != 0 {
            chosen.push(*record);
            continue;
        }
        for offset in 0..record.count {
            let any =
                if machine_has_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            let at = SocketAddr::new(record.host.unwrap_or(any), 0);
            let host_port = match record.protocol {
                PortProtocol::Tcp => {
                    let socket = TcpListener::bind(at)?;
                    let port = socket.local_addr()?.port();
                    held.0.push(socket);
                    port
                }
                PortProtocol::Udp => {
                    let socket = UdpSocket::bind(at)?;
                    let port = socket.local_addr()?.port();
                    held.1.push(socket);
                    port
                }
            };
            chosen.push(PortRecord { host_port, port: record.port + offset, count: 1, ..*record });
        }
    }
    Ok(chosen)
}

fn machine_has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_network() {
        let network = NetworkRecord::default_network();
        let with = |ip: &str| {
            let membership = Membership { ip: Some(ip.parse().unwrap()), ..Membership::default() };
            check_addresses(&network, &membership).map_err(|error| error.to_string())
        };
        assert_eq!(with("10.88.0.5"), Ok(()));
        for (ip, part) in [
            ("10.89.0.5", "not in"),
            ("10.88.0.1", "router"),
            ("10.88.0.0", "itself"),
            ("10.88.255.255", "broadcasts"),
        ] {
            assert!(with(ip).unwrap_err().contains(part), "{ip}");
        }
        let membership = Membership { ip6: Some("fd00::5".parse().unwrap()), ..Membership::default() };
        assert!(check_addresses(&network, &membership).is_err());
    }

    #[test]
    fn ports_that_nobody_chose_are_chosen_once() {
        let record = PortRecord { host: None, host_port: 0, port: 80, count: 3, protocol: PortProtocol::Tcp };
        let fixed = PortRecord { host_port: 9999, count: 2, ..record };
        let chosen =
            choose_ports(&[record, fixed, PortRecord { protocol: PortProtocol::Udp, ..record }]).unwrap();
        assert_eq!(chosen.len(), 7);
        assert_eq!(chosen[3], fixed);
        let mut ports: Vec<_> = chosen[..3].iter().map(|one| one.host_port).collect();
        ports.dedup();
        assert!(ports.len() == 3 && ports.iter().all(|port| *port >= 1024));
        assert_eq!(chosen[1].port, 81);
    }
}
