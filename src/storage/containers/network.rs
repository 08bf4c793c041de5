//! What was asked for of a container's network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;
use crate::base::address::Subnet;
use crate::base::id::ContainerId;

/// Whose the network of a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Only a loopback device.
    #[default]
    None,
    /// The host's.
    Host,
    /// A network of its own, with the host as its way out.
    Private,
    /// Networks that containers share.
    Shared,
    /// That of a container, which must run.
    Container(ContainerId),
    /// That of a file in `/proc/PID/ns` or one that it was bound to.
    Path(PathBuf),
}

impl NetworkMode {
    /// Whether the container has a network namespace of its own.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::None | Self::Private | Self::Shared)
    }

    /// Whether its sysfs may be mounted by the container's own user namespace: it belongs to the network's.
    pub fn has_sysfs(&self) -> bool {
        !matches!(self, Self::Host | Self::Path(_))
    }

    /// Whether there is a relay for it.
    pub fn is_relayed(&self) -> bool {
        matches!(self, Self::Private | Self::Shared)
    }
}

/// The rest of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkDetails {
    /// The shared networks, in the order of the devices.
    #[serde(default, skip_serializing_if = "is_default")]
    pub memberships: Vec<Membership>,
    /// Of a private network.
    #[serde(default, skip_serializing_if = "is_default")]
    pub private: PrivateNetwork,
    /// Ports of the host that lead into the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ports: Vec<PortRecord>,
    /// Ports that image and user name without publishing them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub exposed: Vec<(u16, PortProtocol)>,
    /// What stands in `/etc/resolv.conf`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub dns: DnsRecord,
    /// Rules for what goes out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub egress: Vec<EgressRecord>,
}

/// A container's place in a shared network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The network's name.
    pub network: String,
    /// Names that it has there beside its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub aliases: Vec<String>,
    /// Addresses that were asked for.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ip: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "is_default")]
    #[allow(missing_docs, reason = "as before")]
    pub ip6: Option<Ipv6Addr>,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mac: Option<Mac>,
    /// The device's name, where it is not `ethN`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub interface: Option<String>,
}

/// A change of a container's networks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkChange {
    /// It joins a network.
    Connect(Membership),
    /// It leaves the network of this name.
    Disconnect(String),
    /// It stays where it is, and sees what has changed outside: name servers, names of its own.
    Reload,
}

/// Why a container's networks cannot be changed so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has it.
    #[error("it is in there already")]
    Already,
    /// Its network is its own, somebody else's, or none.
    #[error("it is in no network that containers share")]
    NotShared,
    /// It cannot leave it.
    #[error("it is not in there")]
    NotIn,
}

impl NetworkChange {
    /// Makes the change. The devices keep their names from then on, whoever comes and goes.
    pub fn apply(&self, mode: &NetworkMode, memberships: &mut Vec<Membership>) -> Result<(), Unfit> {
        let is_in = |name: &str| memberships.iter().any(|known| known.network == name);
        match self {
            Self::Connect(membership) if is_in(&membership.network) => return Err(Unfit::Already),
            Self::Connect(_) if *mode != NetworkMode::Shared => return Err(Unfit::NotShared),
            Self::Disconnect(name) if !is_in(name) => return Err(Unfit::NotIn),
            Self::Connect(_) | Self::Disconnect(_) => {}
            Self::Reload => return Ok(()),
        }
        for (index, membership) in memberships.iter_mut().enumerate() {
            membership.interface.get_or_insert_with(|| format!("eth{index}"));
        }
        match self {
            Self::Connect(membership) => {
                let is_free =
                    |name: &String| memberships.iter().all(|known| known.interface.as_ref() != Some(name));
                let free = (0..).map(|number| format!("eth{number}")).find(is_free);
                let interface = membership.interface.clone().or(free);
                memberships.push(Membership { interface, ..membership.clone() });
            }
            Self::Disconnect(name) => memberships.retain(|known| known.network != *name),
            Self::Reload => {}
        }
        Ok(())
    }
}

/// Options of a private network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateNetwork {
    /// The router's address stands for the host's loopback.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host_loopback: bool,
    /// No IPv6.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_ipv6: bool,
    /// Its subnet, where the usual one is not wanted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub subnet: Option<Subnet>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mtu: Option<u32>,
    /// The device's hardware address.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mac: Option<Mac>,
    /// What is connected by TCP becomes a socket of the host's network.
    #[serde(default, skip_serializing_if = "is_default")]
    pub fast: bool,
}

/// A hardware address, written `02:00:00:00:00:01`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let why = "a hardware address is written as in 02:00:00:00:00:01";
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or(why)?;
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| !part.starts_with('+')).ok_or(why)?;
        }
        if parts.next().is_some() {
            return Err(why);
        }
        match bytes {
            [0, 0, 0, 0, 0, 0] => Err("that of all zeros is nobody's"),
            [first, ..] if first & 1 != 0 => Err("it is one for many receivers: its first byte is odd"),
            bytes => Ok(Self(bytes)),
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

/// Of which kind a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the protocols' names")]
pub enum PortProtocol {
    Tcp,
    Udp,
}

impl PortProtocol {
    /// `tcp` or `udp`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Ports of the host that lead to as many of the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRecord {
    /// The host's address; all of them if none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub host: Option<IpAddr>,
    /// The first port of the host.
    pub host_port: u16,
    /// The first port of the container.
    pub port: u16,
    /// How many.
    pub count: u16,
    /// Of which kind.
    pub protocol: PortProtocol,
}

/// Name servers and how they are asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// The image's file stays.
    #[serde(default, skip_serializing_if = "is_default")]
    pub untouched: bool,
    /// Who is asked in place of the host's servers.
    #[serde(default, skip_serializing_if = "is_default")]
    pub servers: Vec<IpAddr>,
    /// Domains that are searched in place of the host's; empty for none (`.`).
    #[serde(default, skip_serializing_if = "is_default")]
    pub search: Option<Vec<String>>,
    /// Options in place of the host's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub options: Vec<String>,
}

/// A rule for what goes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRecord {
    /// What it does.
    pub verdict: Verdict,
    /// `*`, a subnet, a name, or `*.NAME`.
    pub target: String,
    /// Of which port; all of them if none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub port: Option<u16>,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may go out.
    Allow,
    /// It may not.
    Deny,
    /// The name may be asked for.
    Resolve,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        let mac: Mac = "02:00:0A:ff:00:01".parse().expect("an address");
        assert_eq!(mac.to_string(), "02:00:0a:ff:00:01");
        for text in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "01:00:00:00:00:00",
            "00:00:00:00:00:00",
            "zz:00:00:00:00:00",
            "+2:00:00:00:00:01",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn devices_keep_their_names_whoever_leaves() {
        let member = |network: &str| Membership { network: network.into(), ..Membership::default() };
        let mut list = vec![member("a"), member("b")];
        let mut change = |change: NetworkChange| {
            let result = change.apply(&NetworkMode::Shared, &mut list);
            let shown =
                |one: &Membership| format!("{} {}", one.network, one.interface.clone().unwrap_or_default());
            result.map(|()| list.iter().map(shown).collect::<Vec<_>>().join(", "))
        };
        assert_eq!(change(NetworkChange::Reload).as_deref(), Ok("a , b "));
        assert_eq!(change(NetworkChange::Disconnect("a".into())).as_deref(), Ok("b eth1"));
        assert_eq!(change(NetworkChange::Connect(member("c"))).as_deref(), Ok("b eth1, c eth0"));
        assert_eq!(change(NetworkChange::Connect(member("c"))), Err(Unfit::Already));
        assert_eq!(change(NetworkChange::Disconnect("a".into())), Err(Unfit::NotIn));
        let alone = NetworkChange::Connect(member("a")).apply(&NetworkMode::Private, &mut Vec::new());
        assert_eq!(alone, Err(Unfit::NotShared));
    }

    #[test]
    fn modes_of_old_records_are_read() {
        for (text, mode) in [("\"none\"", NetworkMode::None), ("\"host\"", NetworkMode::Host)] {
            assert_eq!(serde_json::from_str::<NetworkMode>(text).expect(text), mode);
        }
        let path = NetworkMode::Path("/run/netns/a".into());
        let text = serde_json::to_string(&path).expect("JSON");
        assert_eq!(serde_json::from_str::<NetworkMode>(&text).expect("a mode"), path);
    }
}
