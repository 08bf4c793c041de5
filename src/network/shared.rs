//! Where the relays of a user's shared networks meet: one router for all of them, held by those that are there.
//!
//! Each relay has a socket in a directory below the runtime directory. Who connects to it is given the router,
//! as a descriptor of its network namespace. Who finds no relay makes a router, and those that come meanwhile
//! wait for it at that one's socket. A router goes with the last relay; nothing is to be tidied up after it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::sys::lock::Lock;
use crate::sys::{namespace, socket};

/// How long somebody who makes a router is waited for.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// Relays of one router at most: so many have ports and queues of their own.
const SLOTS: u16 = 4096;

/// Why there is no place in the shared router.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory, the lock, a socket.
    #[error("{action} in \"{path}\"")]
    Meeting {
        /// "making a socket".
        action: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The router belongs to a user namespace with other ids.
    #[error("the shared networks are in use by containers with another mapping of ids")]
    OtherMapping,
    /// All slots are taken.
    #[error("there are already {SLOTS} containers in shared networks")]
    Full,
}

impl Error {
    /// What may be done about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::OtherMapping => Some(
                "containers of shared networks have one mapping: leave out --userns, or stop the others"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// A relay's place in the shared router.
#[derive(Debug)]
pub struct Place {
    /// Its number, from 0.
    pub slot: u16,
    /// Who connects here is given the router.
    pub door: OwnedFd,
    /// The name of the door.
    pub path: PathBuf,
    /// The router, if there is one.
    pub router: Option<Router>,
    /// What is locked while bridges are made.
    pub bridges: PathBuf,
    /// What those who come are told of the ids.
    pub mapping: String,
}

/// A router that is there.
#[derive(Debug)]
pub struct Router {
    /// Its network namespace.
    pub net: OwnedFd,
    /// The user namespace that owns it, if that is not the caller's.
    pub user: Option<OwnedFd>,
}

/// Takes a place for a container, in the router of those that meet in this directory.
/// `mapping` says which ids the container has: only those with the same can share a router.
pub fn enter(dir: &Path, mapping: &str) -> Result<Place, Error> {
    let at = |action: &'static str| {
        let path = dir.to_owned();
        move |source| Error::Meeting { action, path, source }
    };
    std::fs::create_dir_all(dir).map_err(at("making a directory"))?;
    // Until our door is there: two that found nobody would make two routers.
    let _lock = Lock::exclusive(&dir.join("lock")).map_err(at("locking"))?;
    let mut taken = Vec::new();
    let mut router = None;
    for entry in std::fs::read_dir(dir).map_err(at("listing relays"))? {
        let entry = entry.map_err(at("listing relays"))?;
        let slot = entry.file_name().to_str().and_then(|name| name.strip_prefix("relay-")?.parse().ok());
        let Some(slot) = slot else { continue };
        // One that refuses has lost its relay.
        let Ok(relay) = socket::connect(&entry.path()) else {
            let _ = std::fs::remove_file(entry.path());
            continue;
        };
        if router.is_none() {
            router = ask(&relay).map_err(at("waiting for a relay"))?;
        }
        taken.push(slot);
    }
    let router = match router {
        Some((other, _)) if other != mapping => return Err(Error::OtherMapping),
        Some((_, net)) => {
            let user = namespace::owner(&net).map_err(at("asking for the router's owner"))?;
            let own = namespace::open("/proc/self/ns/user".as_ref()).map_err(at("opening a namespace"))?;
            let same = namespace::is_same(&user, &own).map_err(at("comparing namespaces"))?;
            Some(Router { net, user: (!same).then_some(user) })
        }
        None => None,
    };
    let slot = (0..SLOTS).find(|slot| !taken.contains(slot)).ok_or(Error::Full)?;
    let path = dir.join(format!("relay-{slot}"));
    let door = socket::listen(&path, 0o600).map_err(at("making a socket"))?;
    Ok(Place { slot, door, path, router, bridges: dir.join("bridges"), mapping: mapping.to_owned() })
}

/// Removes the door of a relay that is gone, unless somebody else has it by now.
pub fn remove_door(path: &Path) {
    let Ok(_lock) = Lock::exclusive(&path.with_file_name("lock")) else { return };
    if socket::connect(path).is_err() {
        let _ = std::fs::remove_file(path);
    }
}

/// Asks a relay for its router; with what its ids are. None if it failed to make one.
fn ask(relay: &OwnedFd) -> io::Result<Option<(String, OwnedFd)>> {
    let mut wait = [PollFd::new(relay, PollFlags::IN)];
    if poll(&mut wait, Some(&PATIENCE))? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let (mapping, net) = socket::receive(relay)?;
    Ok(net.map(|net| (String::from_utf8_lossy(&mapping).into_owned(), net)))
}

/// Gives the router to who stands at the door.
pub fn answer_door(place: &Place, router: &OwnedFd) -> io::Result<()> {
    let guest = socket::accept(&place.door)?;
    // Who was not served, since descriptors are short, asks again.
    let _ = socket::send(&guest, place.mapping.as_bytes(), Some(router.as_fd()));
    Ok(())
}
