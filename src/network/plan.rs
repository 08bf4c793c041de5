//! What a container's network shall be, as data: made by the engine before the container is, carried out by
//! its relay.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The network of one run of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkPlan {
    /// Its devices, `eth0` first. The first one of each family that has a gateway gets the default route.
    pub interfaces: Vec<Interface>,
    /// Ports of the host that lead into it.
    pub published: Vec<Published>,
    /// What it may dial.
    pub policy: Policy,
    /// Who answers its questions for names; nobody if it has none of our servers.
    pub dns: Option<Dns>,
    /// The file in which the relay notes what it refused by rules or for want of room, a line each; nothing is noted
    /// if none.
    pub log: Option<PathBuf>,
    /// The directory where the relays of shared networks meet; none for a network of the container's own. A
    /// container that has left all shared networks is there still: it may join others.
    pub meeting: Option<PathBuf>,
    /// Somebody wants TCP's congestion control in the container to be one that he names.
    pub congestion_chosen: bool,
}

impl NetworkPlan {
    /// What of it can be changed while the container runs.
    pub fn wiring(&self) -> Wiring {
        let (interfaces, dns) = (self.interfaces.clone(), self.dns.clone());
        Wiring { interfaces, dns, aliases: self.policy.aliases.clone() }
    }

    /// The same with another wiring.
    pub fn rewired(&self, wiring: Wiring) -> Self {
        let Wiring { interfaces, dns, aliases } = wiring;
        let policy = Policy { aliases, ..self.policy.clone() };
        Self { interfaces, dns, policy, ..self.clone() }
    }
}

/// What of a plan can be changed while the container runs: its networks and who answers for names. Ports and
/// rules stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wiring {
    /// [`NetworkPlan::interfaces`].
    pub interfaces: Vec<Interface>,
    /// [`NetworkPlan::dns`].
    pub dns: Option<Dns>,
    /// [`Policy::aliases`].
    pub aliases: Vec<(IpAddr, IpAddr)>,
}

/// A device in the container and the network behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// Which network it belongs to.
    pub network: Network,
    /// Its addresses, with the length of the subnet's prefix in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The router's addresses in the same subnets, at most one of each family.
    pub gateways: Vec<IpAddr>,
    /// Whether the family has a default route by the gateway, in the order of `gateways`. Without, what is
    /// beyond the subnet is unreachable at once.
    pub routed: Vec<bool>,
    /// Its hardware address; the kernel's choice if none.
    pub mac: Option<[u8; 6]>,
    /// Bytes; the kernel's choice (1500) if none.
    pub mtu: Option<u32>,
}

/// What is at the other end of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A router of this container's own.
    Private,
    /// A bridge in a router that containers share.
    Shared(Shared),
}

/// A network that several containers of one user are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Its name.
    pub name: String,
    /// The bridge's device in the router (at most 15 bytes).
    pub bridge: String,
    /// Where those who run meet: below the runtime directory. It has a lock and what names the router.
    pub dir: PathBuf,
    /// No way out: neither dialled nor published.
    pub internal: bool,
    /// No way to the user's other networks.
    pub isolated: bool,
}

/// A port of the host that leads to one of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The host's address; all of them if none.
    pub host: Option<IpAddr>,
    /// The host's port; 0 leaves it to the kernel.
    pub host_port: u16,
    /// The container's port.
    pub port: u16,
    /// Of which kind.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// What a container may dial. The host's loopback and link-local addresses are never dialled, but by `aliases`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Addresses of the container's network that stand for others (`host.containers.internal`): what is sent
    /// to the first goes to the second.
    pub aliases: Vec<(IpAddr, IpAddr)>,
    /// Rules for what goes out; the first that fits decides.
    pub egress: Vec<EgressRule>,
    /// Whether what no rule fits is refused.
    pub refuse_others: bool,
    /// Names (or `*.example.org`) that our name server asks others for though no rule lets go there.
    pub lookups: Vec<String>,
}

/// A rule for what goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRule {
    /// Whether what fits may go out.
    pub allow: bool,
    /// Where to.
    pub target: Target,
    /// To which port; all of them if none.
    pub port: Option<u16>,
}

/// Where a rule applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Everywhere.
    All,
    /// A subnet: an address and the length of the prefix.
    Subnet(IpAddr, u8),
    /// The addresses that our name server has given for this name, or for names below it (`*.example.org`).
    Name(String),
}

/// The name server that the relay is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// The addresses it has in the container's networks (port 53).
    pub addresses: Vec<IpAddr>,
    /// Who is asked for names that are not the networks' own, in this order.
    pub upstream: Vec<SocketAddr>,
    /// The directories of the shared networks, where names of containers are found.
    pub networks: Vec<PathBuf>,
    /// Names that are known here, with their addresses.
    pub hosts: Vec<(String, Vec<IpAddr>)>,
}
