//! Networks that containers share: `networks/<name>.json` is one. Which containers run in it is not written
//! here: that is told by their records and by the leases in the runtime directory.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::store::parse;
use super::{Error, FORMAT, IoContext, Result};
use crate::base::address::Subnet;
use crate::base::digest::Digest;
use crate::sys::atomic::{self, Durability};
use crate::sys::lock::Lock;

/// The network that is there without being made, as in Podman.
pub const DEFAULT_NETWORK: &str = "podman";

/// A subnet of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetRecord {
    /// The subnet.
    pub subnet: Subnet,
    /// The router's address in it.
    pub gateway: IpAddr,
    /// The first and last address that are given to who does not ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(IpAddr, IpAddr)>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Format version.
    pub version: u32,
    /// Its name.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// The bridge's device in the router.
    pub bridge: String,
    /// At least one.
    pub subnets: Vec<SubnetRecord>,
    /// No way out.
    #[serde(default)]
    pub internal: bool,
    /// No way to other networks.
    #[serde(default)]
    pub isolated: bool,
    /// Bytes; the kernel's choice if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether containers find each other by name.
    pub dns: bool,
    /// Who is asked for other names in place of the host's servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<IpAddr>,
    /// What `network create` was told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, as given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

impl NetworkRecord {
    /// A network of this format version without any subnet.
    pub fn new(name: &str, bridge: String, created: i64) -> Self {
        Self {
            version: FORMAT,
            name: name.to_owned(),
            created,
            bridge,
            subnets: Vec::new(),
            internal: false,
            isolated: false,
            mtu: None,
            dns: true,
            servers: Vec::new(),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
        }
    }

    /// The network that is there without being made: Podman's addresses, and as there nobody is known by name.
    pub fn default_network() -> Self {
        let subnet = Subnet::of(Ipv4Addr::new(10, 88, 0, 0).into(), 16);
        let gateway = Ipv4Addr::new(10, 88, 0, 1).into();
        let subnets = subnet.map(|subnet| SubnetRecord { subnet, gateway, range: None });
        Self {
            dns: false,
            subnets: subnets.into_iter().collect(),
            ..Self::new(DEFAULT_NETWORK, "podman0".into(), 0)
        }
    }

    /// Its id, which is made of its name, as in Podman.
    pub fn id(&self) -> String {
        Digest::of(self.name.as_bytes()).hex()
    }

    /// Whether one of its subnets is of IPv6.
    pub fn has_ipv6(&self) -> bool {
        self.subnets.iter().any(|one| one.subnet.is_ipv6())
    }
}

/// The networks of a store.
#[derive(Clone, Debug)]
pub struct Networks {
    dir: PathBuf,
}

impl Networks {
    /// Those of the store at `root`.
    pub fn new(root: &Path) -> Self {
        Self { dir: root.join("networks") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }

    /// Held by who makes or changes networks: nobody else does so meanwhile.
    pub fn lock(&self) -> Result<Lock> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).context("creating", &self.dir)?;
        let path = self.dir.join(".lock");
        Lock::exclusive(&path).context("locking", &path)
    }

    /// The network of this full name. A name must have been checked to be one.
    pub fn get(&self, name: &str) -> Result<Option<NetworkRecord>> {
        match read(&self.path(name))? {
            None if name == DEFAULT_NETWORK => Ok(Some(NetworkRecord::default_network())),
            other => Ok(other),
        }
    }

    /// All networks by name, the default one among them.
    pub fn list(&self) -> Result<Vec<NetworkRecord>> {
        let mut networks = BTreeMap::from([(DEFAULT_NETWORK.to_owned(), NetworkRecord::default_network())]);
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.context("listing", &self.dir)?),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry.context("listing", &self.dir)?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(record) = read(&path)?
            {
                networks.insert(record.name.clone(), record);
            }
        }
        Ok(networks.into_values().collect())
    }

    /// Writes a network, durably, in the stead of one that has its name. Takes the lock to be held.
    pub fn put(&self, record: &NetworkRecord) -> Result<()> {
        let path = self.path(&record.name);
        let bytes =
            serde_json::to_vec(record).map_err(|source| Error::Damaged { path: path.clone(), source })?;
        atomic::write(&path, &bytes, 0o600, Durability::Synced).context("writing", &path)
    }

    /// Removes a network. Takes the lock to be held.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing", &path),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<NetworkRecord>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(parse(path, &bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("reading", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_kept() {
        let dir = std::env::temp_dir().join(format!("umiak-networks-{:x}", atomic::random().unwrap()));
        let networks = Networks::new(&dir);
        assert_eq!(networks.list().unwrap(), [NetworkRecord::default_network()]);
        assert_eq!(networks.get("web").unwrap(), None);
        let lock = networks.lock().unwrap();
        let record = NetworkRecord { name: "web".into(), ..NetworkRecord::default_network() };
        networks.put(&record).unwrap();
        drop(lock);
        assert_eq!(networks.get("web").unwrap(), Some(record));
        assert_eq!(networks.list().unwrap().len(), 2);
        networks.remove("web").unwrap();
        networks.remove("web").unwrap();
        assert_eq!(networks.get("web").unwrap(), None);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_id_is_podmans() {
        let id = NetworkRecord::default_network().id();
        assert_eq!(id, "2f259bab93aaaaa2542ba43ef33eb990d0999ee1b9924b557b7be53c0b7a1bb9");
    }
}
