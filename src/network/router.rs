//! Carries out what [`super::setup`] has planned: the router and the container's devices, by a thread that stays
//! in the router.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use super::ids::RelayIds;
use super::nft::{Queue, QueueKind};
use super::plan::{Network, NetworkPlan};
use super::relay::{self, Inner, Outbound};
use super::setup::{self, Requests};
use super::shared::Place;
use crate::sys::lock::Lock;
use crate::sys::netlink::{self, Family, Refused, Request, Socket};
use crate::sys::{atomic, namespace};

/// What failed while a network was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A step.
    #[error("{action}")]
    Step {
        /// "adding 10.0.2.100/24 to eth0".
        action: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The relay's sockets.
    #[error(transparent)]
    Relay(#[from] relay::Error),
    /// The thread that does all this.
    #[error("the thread of the router died")]
    Thread,
}

impl Error {
    /// What may be done about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Relay(error) => error.hint(),
            _ => None,
        }
    }
}

/// Makes an error of what was being done.
pub fn doing(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let action = action.into();
    move |source| Error::Step { action, source }
}

/// A network that is there.
pub struct Opened {
    /// What the calling thread is to serve.
    pub inner: Inner,
    /// What the thread outside is to serve.
    pub outbound: Outbound,
    /// The kind of queue that the kernel has.
    pub queue: QueueKind,
    /// Of a shared router: what keeps the relay's rules, and the router's network namespace.
    pub shared: Option<(Socket, OwnedFd)>,
}

/// How long a relay that is ending may still have its rules.
const ENDING: (u32, Duration) = (100, Duration::from_millis(10));

/// Makes the router, or joins it, and the container's devices; the calling thread is in the router from then on.
/// Needs all capabilities over the user namespace that owns both.
/// `known` is the kind of queue that the kernel is said to have.
pub fn open(
    plan: &NetworkPlan,
    container: &OwnedFd,
    place: Option<&Place>,
    known: Option<QueueKind>,
) -> Result<Opened, Error> {
    let net = libc::CLONE_NEWNET as u64;
    namespace::join(container, net).map_err(doing("joining the container's network namespace"))?;
    let mut inside = Socket::open(Family::Route).map_err(doing("opening a socket in the container"))?;
    let there = place.and_then(|place| place.router.as_ref());
    match there {
        Some(router) => namespace::join(&router.net, net).map_err(doing("joining the router"))?,
        None => namespace::unshare(net).map_err(doing("making the router's network namespace"))?,
    }
    let mut router = Socket::open(Family::Route).map_err(doing("opening a socket in the router"))?;
    let mut nft =
        Socket::open(Family::Netfilter).map_err(doing("opening a socket of nftables in the router"))?;
    carry_out(&mut router, setup::router(plan))?;
    if there.is_none() {
        for (name, value) in setup::settings(plan) {
            let path = format!("/proc/sys/net/{name}");
            match fs::write(&path, value) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && setup::BRIDGED.contains(&name) => {}
                written => written.map_err(doing(format!("writing {value} to \"{path}\" of the router")))?,
            }
        }
    }
    let (ids, queue) = match place {
        None => {
            carry_out(&mut router, setup::private_devices(plan, container.as_raw_fd()))?;
            let ids = RelayIds::of_slot(0);
            with_queue(&mut nft, ids, known, |queue| setup::private_rules(ids, queue))?
        }
        Some(place) => open_shared((plan, place), container, &mut router, &mut nft, known)?,
    };
    carry_out(&mut inside, setup::container(plan))?;
    let (inner, outbound) = Inner::open(ids, plan)?;
    let shared = match place {
        None => None,
        Some(_) => {
            let own = namespace::open("/proc/thread-self/ns/net".as_ref());
            Some((nft, own.map_err(doing("opening the router's network namespace"))?))
        }
    };
    Ok(Opened { inner, outbound, queue, shared })
}

/// The relay's part of a shared router.
fn open_shared(
    (plan, place): (&NetworkPlan, &Place),
    container: &OwnedFd,
    router: &mut Socket,
    nft: &mut Socket,
    known: Option<QueueKind>,
) -> Result<(RelayIds, QueueKind), Error> {
    let mut macs = Vec::new();
    for interface in &plan.interfaces {
        macs.push(match interface.mac {
            Some(mac) => mac,
            None => random_mac().map_err(doing("choosing a hardware address"))?,
        });
    }
    // Before there is a port that could send what it should not.
    guarded(nft, &setup::guard_rules(plan, place.slot, &macs))?;
    let bridges = {
        let _lock = Lock::exclusive(&place.bridges).map_err(doing("locking the bridges"))?;
        let bridges = bridges(plan, router)?;
        let devices = setup::shared_devices(plan, place.slot, &bridges, &macs, container.as_raw_fd());
        carry_out(router, devices)?;
        bridges
    };
    let ids = RelayIds::of_slot(place.slot);
    with_queue(nft, ids, known, |queue| setup::shared_rules(plan, ids, place.slot, queue, &bridges))
}

/// An address of a device that was given out by nobody (IEEE 802: locally administered, of a single device).
fn random_mac() -> io::Result<[u8; 6]> {
    let mut mac = [0; 6];
    atomic::fill_random(&mut mac)?;
    mac[0] = mac[0] & 0xfc | 2;
    Ok(mac)
}

/// The bridges of the interfaces, which are made if nobody is on them. Others that nobody is on any more go.
fn bridges(plan: &NetworkPlan, router: &mut Socket) -> Result<Vec<u32>, Error> {
    let refused = |Refused { source, .. }| doing("listing the bridges of the router")(source);
    let links = super::netlink::links(router.exchange(&[super::netlink::list_links()]).map_err(refused)?);
    let used = |link: &&super::netlink::Link| links.iter().any(|port| port.master == Some(link.index));
    let (used, idle): (Vec<_>, Vec<_>) =
        links.iter().filter(|link| setup::is_bridge(link.index)).partition(used);
    carry_out(router, setup::without(idle.iter().map(|link| link.name.as_str())))?;
    let mut taken: Vec<u32> = used.iter().map(|link| link.index).collect();
    let mut bridges = Vec::new();
    for interface in &plan.interfaces {
        let Network::Shared(shared) = &interface.network else { continue };
        bridges.push(match used.iter().find(|link| link.name == shared.bridge) {
            Some(bridge) => bridge.index,
            None => {
                let index = setup::free_bridge(&taken);
                taken.push(index);
                carry_out(router, setup::bridge(plan, interface, &shared.bridge, index))?;
                index
            }
        });
    }
    Ok(bridges)
}

/// Sends requests; the error tells which one failed.
fn carry_out(socket: &mut Socket, list: Requests) -> Result<(), Error> {
    let step = |Refused { index, source }| {
        let action = list.what.get(index).cloned().unwrap_or_default();
        Error::Step { action, source }
    };
    let (_, refused) = socket.try_all(&list.requests).map_err(step)?;
    let tolerated = |refused: &Refused| {
        let errno = netlink::errno(&refused.source);
        list.tolerated.iter().any(|(index, known)| *index == refused.index && errno == Some(*known))
    };
    match refused.into_iter().find(|refused| !tolerated(refused)) {
        Some(refused) => Err(step(refused)),
        None => Ok(()),
    }
}

/// Makes rules. Those of a relay that had this place before may be about to go.
fn guarded(nft: &mut Socket, batch: &[Request]) -> Result<(), Error> {
    let (mut tries, pause) = ENDING;
    loop {
        match nft.send(batch) {
            Ok(()) => return Ok(()),
            Err(Refused { source, .. }) if tries > 0 && is_anothers(&source) => tries -= 1,
            Err(Refused { source, .. }) => return Err(doing("making the rules of the bridges")(source)),
        }
        std::thread::sleep(pause);
    }
}

/// Whether a table of this name belongs to another socket.
fn is_anothers(error: &io::Error) -> bool {
    matches!(netlink::errno(error), Some(libc::EPERM | libc::EEXIST | libc::EBUSY))
}

/// Makes the rules of a relay, with the kind of queue that it is known to have, or the best one.
fn with_queue(
    nft: &mut Socket,
    ids: RelayIds,
    known: Option<QueueKind>,
    rules: impl Fn(Option<Queue>) -> Vec<Request>,
) -> Result<(RelayIds, QueueKind), Error> {
    let number = ids.queue.unwrap_or_default();
    let mut refused: io::Error = io::ErrorKind::Unsupported.into();
    for kind in known.into_iter().chain(QueueKind::ALL) {
        let queue = kind.queue(number);
        match nft.send(&rules(queue)) {
            Ok(()) => return Ok((RelayIds { queue: queue.and(ids.queue), ..ids }, kind)),
            Err(Refused { source, .. }) => refused = source,
        }
        // That is what the kernel says of a kind of queue that it has not.
        if netlink::errno(&refused) != Some(libc::ENOENT) {
            break;
        }
    }
    Err(doing("making the rules of the router")(refused))
}
