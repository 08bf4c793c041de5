//! Who has which address and which names in a shared network: files below the network's directory in the
//! runtime directory, so that every container's name server finds a name with one look, without asking anybody.
//!
//! ```text
//! leases.lock              held while an address is looked for
//! addresses/10.89.0.5      ID PID START NAME
//! names/web/ID             PID START ADDRESS…
//! ```
//!
//! What belongs to a process that has ended says nothing and may be taken over: nobody has to clean up after a
//! monitor that was killed. Times are clock ticks since boot (field 22 of `/proc/PID/stat`).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::base::address::Subnet;
use crate::sys::atomic::{self, Durability};
use crate::sys::lock::Lock;
use crate::sys::process;

const ADDRESSES: &str = "addresses";
const NAMES: &str = "names";

/// Why no address could be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The one that was asked for belongs to another container.
    #[error("address {address} is in use by container \"{holder}\"")]
    InUse {
        /// Which.
        address: IpAddr,
        /// By whom.
        holder: String,
    },
    /// All are taken.
    #[error("no address is free in {0}")]
    Full(Subnet),
    /// The directory.
    #[error("{action} \"{path}\"")]
    Io {
        /// "writing".
        action: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The process that lives as long as the container runs.
    pub pid: i32,
    /// When that started.
    pub start_time: u64,
}

/// Where addresses are taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The subnet.
    pub subnet: Subnet,
    /// The router's own address, which nobody gets.
    pub gateway: Option<IpAddr>,
    /// The first and the last that are given to who does not ask for one.
    pub range: Option<(IpAddr, IpAddr)>,
    /// The one that is asked for.
    pub wanted: Option<IpAddr>,
}

/// Somebody who has an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: IpAddr,
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

/// Takes an address from each pool, and the names, for a container. What it had before, it gives up, or gets
/// again if that is still free.
pub fn take(dir: &Path, holder: &Holder, pools: &[Pool], names: &[String]) -> Result<Vec<IpAddr>, Error> {
    let addresses = dir.join(ADDRESSES);
    fs::create_dir_all(&addresses).map_err(failed("making", &addresses))?;
    let lock_path = dir.join("leases.lock");
    let _lock = Lock::exclusive(&lock_path).map_err(failed("locking", &lock_path))?;
    let listed = list_names(&addresses)?;
    let taken: BTreeSet<IpAddr> = listed.iter().filter_map(|name| name.parse().ok()).collect();
    let is_free = |address: IpAddr| match read_address(dir, address) {
        Some(lease) => lease.id == holder.id || !lease.is_alive(),
        None => true,
    };
    let mut chosen = Vec::with_capacity(pools.len());
    for pool in pools {
        let address = match pool.wanted {
            Some(address) => {
                if !is_free(address) {
                    let holder = read_address(dir, address).map(|lease| lease.name).unwrap_or_default();
                    return Err(Error::InUse { address, holder });
                }
                address
            }
            None => {
                let usable = |address: &IpAddr| is_usable(pool, *address);
                let again =
                    taken.iter().copied().filter(usable).find(|address| {
                        read_address(dir, *address).is_some_and(|lease| lease.id == holder.id)
                    });
                again
                    .or_else(|| candidates(pool).find(|address| !taken.contains(address)))
                    .or_else(|| taken.iter().copied().filter(usable).find(|address| is_free(*address)))
                    .ok_or(Error::Full(pool.subnet))?
            }
        };
        chosen.push(address);
    }
    let Holder { id, name, pid, start_time } = holder;
    let shown: Vec<String> = chosen.iter().map(ToString::to_string).collect();
    let line = format!("{pid} {start_time} {}\n", shown.join(" "));
    let written = (|| {
        for address in &shown {
            let path = addresses.join(address);
            let line = format!("{id} {pid} {start_time} {name}\n");
            atomic::write(&path, line.as_bytes(), 0o600, Durability::Volatile)
                .map_err(failed("writing", &path))?;
        }
        for name in names.iter().filter_map(|name| file_name(name)) {
            let place = dir.join(NAMES).join(name);
            fs::create_dir_all(&place).map_err(failed("making", &place))?;
            let path = place.join(id);
            atomic::write(&path, line.as_bytes(), 0o600, Durability::Volatile)
                .map_err(failed("writing", &path))?;
        }
        Ok(())
    })();
    // What it has had before and has again was there all the time.
    let (kept, called) = match &written {
        Ok(()) => (&chosen[..], names.iter().filter_map(|name| file_name(name)).collect()),
        Err(_) => (&[][..], Vec::new()),
    };
    let all: BTreeSet<IpAddr> = taken.iter().chain(&chosen).copied().collect();
    forget(dir, id, &all, kept, &called);
    written.map(|()| chosen)
}

/// Gives back what a container has in a network.
pub fn release(dir: &Path, id: &str) {
    let path = dir.join("leases.lock");
    // Nobody has anything where there is no lock.
    if !path.exists() {
        return;
    }
    let Ok(_lock) = Lock::exclusive(&path) else { return };
    let Ok(listed) = list_names(&dir.join(ADDRESSES)) else { return };
    forget(dir, id, &listed.iter().filter_map(|name| name.parse().ok()).collect(), &[], &[]);
}

/// Removes what is a container's, but for these addresses and names. What fails is left: it is not alive any more.
fn forget(dir: &Path, id: &str, addresses: &BTreeSet<IpAddr>, kept: &[IpAddr], called: &[String]) {
    for address in addresses.iter().filter(|address| !kept.contains(address)) {
        if read_address(dir, *address).is_some_and(|lease| lease.id == id) {
            let _ = fs::remove_file(dir.join(ADDRESSES).join(address.to_string()));
        }
    }
    let names = dir.join(NAMES);
    for name in list_names(&names).unwrap_or_default().into_iter().filter(|name| !called.contains(name)) {
        let place = names.join(name);
        if fs::remove_file(place.join(id)).is_ok() {
            // Goes if it was the last one's.
            let _ = fs::remove_dir(place);
        }
    }
}

/// Whether somebody may get an address without asking for it.
fn is_usable(pool: &Pool, address: IpAddr) -> bool {
    let inside = match pool.range {
        Some((first, last)) => address >= first && address <= last && address.is_ipv4() == first.is_ipv4(),
        None => true,
    };
    inside && pool.subnet.has_host(address) && Some(address) != pool.gateway
}

/// The addresses of a pool in order. There can be more than anybody could look at.
fn candidates(pool: &Pool) -> impl Iterator<Item = IpAddr> + use<'_> {
    let first = pool.range.and_then(|(first, _)| pool.subnet.offset(first)).unwrap_or(0);
    (first..first.saturating_add(1 << 24))
        .map_while(|offset| pool.subnet.nth(offset))
        .take_while(|address| pool.range.is_none_or(|(_, last)| *address <= last))
        .filter(|address| is_usable(pool, *address))
}

/// The addresses of a name; empty if nobody who is alive has it.
pub fn addresses_of(dir: &Path, name: &str) -> Vec<IpAddr> {
    let Some(name) = file_name(name) else { return Vec::new() };
    let place = dir.join(NAMES).join(name);
    let mut found = Vec::new();
    for id in list_names(&place).unwrap_or_default() {
        let Ok(text) = fs::read_to_string(place.join(id)) else { continue };
        let mut fields = text.split_ascii_whitespace();
        let process = (|| Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)))();
        if process.is_some_and(|(pid, start)| process::is_alive(pid, start)) {
            found.extend(fields.filter_map(|field| field.parse::<IpAddr>().ok()));
        }
    }
    found.sort_unstable();
    found
}

/// The name of the container that has an address.
pub fn name_of(dir: &Path, address: IpAddr) -> Option<String> {
    read_address(dir, address).filter(Holder::is_alive).map(|lease| lease.name)
}

/// Who has addresses in a network, in the addresses' order.
pub fn list(dir: &Path) -> Vec<Lease> {
    let listed = list_names(&dir.join(ADDRESSES)).unwrap_or_default();
    let addresses: BTreeSet<IpAddr> = listed.iter().filter_map(|name| name.parse().ok()).collect();
    addresses
        .into_iter()
        .filter_map(|address| {
            let lease = read_address(dir, address).filter(Holder::is_alive)?;
            Some(Lease { address, id: lease.id, name: lease.name })
        })
        .collect()
}

impl Holder {
    fn is_alive(&self) -> bool {
        process::is_alive(self.pid, self.start_time)
    }
}

fn read_address(dir: &Path, address: IpAddr) -> Option<Holder> {
    let text = fs::read_to_string(dir.join(ADDRESSES).join(address.to_string())).ok()?;
    let mut fields = text.split_ascii_whitespace();
    Some(Holder {
        id: fields.next()?.to_owned(),
        pid: fields.next()?.parse().ok()?,
        start_time: fields.next()?.parse().ok()?,
        name: fields.next()?.to_owned(),
    })
}

/// A name as a file is called; none for what is no name. They come from anywhere.
fn file_name(name: &str) -> Option<String> {
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = (1..=253).contains(&name.len()) && name.bytes().all(usual) && !name.starts_with('.');
    fits.then(|| name.to_ascii_lowercase())
}

/// The names in a directory; none if it is not there.
fn list_names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed("listing", dir))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| !name.starts_with('.')).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("umiak-leases-{:x}", atomic::random().unwrap()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn holder(id: &str, alive: bool) -> Holder {
        let pid = std::process::id() as i32;
        let start_time = process::start_time(pid).unwrap() + u64::from(!alive);
        Holder { id: id.into(), name: format!("name-{id}"), pid, start_time }
    }

    fn pool(subnet: &str) -> Pool {
        let subnet: Subnet = subnet.parse().expect("a subnet");
        Pool { subnet, gateway: subnet.nth(1), range: None, wanted: None }
    }

    #[test]
    fn addresses_are_given_in_order_and_again_to_who_had_them() {
        let dir = Dir::new();
        let pools = [pool("10.89.0.0/24"), pool("fd01::/64")];
        let names = ["Web".to_owned(), "www".to_owned()];
        assert_eq!(
            take(&dir.0, &holder("a", true), &pools, &names).unwrap(),
            [ip("10.89.0.2"), ip("fd01::2")]
        );
        assert_eq!(take(&dir.0, &holder("b", true), &pools, &names).unwrap()[0], ip("10.89.0.3"));
        assert_eq!(take(&dir.0, &holder("a", true), &pools, &names[..1]).unwrap()[0], ip("10.89.0.2"));
        assert_eq!(addresses_of(&dir.0, "web").len(), 4);
        assert_eq!(addresses_of(&dir.0, "www"), [ip("10.89.0.3"), ip("fd01::3")]);
        assert_eq!(name_of(&dir.0, ip("10.89.0.3")).as_deref(), Some("name-b"));
        assert_eq!(list(&dir.0).len(), 4);
        release(&dir.0, "b");
        assert_eq!(addresses_of(&dir.0, "www"), [] as [IpAddr; 0]);
        assert_eq!(name_of(&dir.0, ip("10.89.0.3")), None);
        assert_eq!(take(&dir.0, &holder("c", true), &pools, &[]).unwrap()[0], ip("10.89.0.3"));
    }

    #[test]
    fn what_the_dead_have_is_free() {
        let dir = Dir::new();
        let small = [Pool { range: Some((ip("10.0.0.5"), ip("10.0.0.6"))), ..pool("10.0.0.0/24") }];
        take(&dir.0, &holder("a", false), &small, &["a".into()]).unwrap();
        take(&dir.0, &holder("b", true), &small, &["b".into()]).unwrap();
        assert_eq!(addresses_of(&dir.0, "a"), [] as [IpAddr; 0]);
        assert_eq!(name_of(&dir.0, ip("10.0.0.5")), None);
        assert_eq!(take(&dir.0, &holder("c", true), &small, &[]).unwrap(), [ip("10.0.0.5")]);
        let full = take(&dir.0, &holder("d", true), &small, &[]);
        assert!(matches!(full, Err(Error::Full(_))), "{full:?}");
    }

    #[test]
    fn an_address_that_is_asked_for_belongs_to_one() {
        let dir = Dir::new();
        let wanted = [Pool { wanted: Some(ip("10.0.0.77")), ..pool("10.0.0.0/24") }];
        assert_eq!(take(&dir.0, &holder("a", true), &wanted, &[]).unwrap(), [ip("10.0.0.77")]);
        let error = take(&dir.0, &holder("b", true), &wanted, &["b".into()]).unwrap_err();
        assert_eq!(error.to_string(), "address 10.0.0.77 is in use by container \"name-a\"");
        assert_eq!(addresses_of(&dir.0, "b"), [] as [IpAddr; 0]);
        assert_eq!(take(&dir.0, &holder("a", true), &wanted, &[]).unwrap(), [ip("10.0.0.77")]);
    }

    #[test]
    fn names_stay_in_their_directory() {
        for name in ["", ".", "..", "../addresses", "a/b", ".hidden", "a\0b", "ä"] {
            assert_eq!(file_name(name), None, "{name:?}");
        }
        assert_eq!(file_name("Web_1.x-y").as_deref(), Some("web_1.x-y"));
    }
}
