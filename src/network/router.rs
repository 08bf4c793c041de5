//! Carries out what [`super::setup`] has planned: the router and the container's devices, by a thread that stays
//! in the router.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::ids::RelayIds;
use super::keeper::{self, Keeper};
use super::nft::{Queue, QueueKind};
use super::plan::NetworkPlan;
use super::relay::{self, Inner, Outbound};
use super::setup::{self, Requests};
use super::shared::Place;
use crate::sys::namespace;
use crate::sys::netlink::{self, Family, Refused, Request, Socket};

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
    /// What keeps the relay's part of a shared router.
    pub keeper: Option<Keeper>,
}

/// Makes the router, or joins it, and the container's devices; the calling thread is in the router from then on.
/// Needs all capabilities over the user namespace that owns both.
/// `known` is the kind of queue that the kernel is said to have.
pub fn open(
    plan: &NetworkPlan,
    container: OwnedFd,
    place: Option<Place>,
    known: Option<QueueKind>,
) -> Result<Opened, Error> {
    let net = libc::CLONE_NEWNET as u64;
    namespace::join(&container, net).map_err(doing("joining the container's network namespace"))?;
    let mut inside = Socket::open(Family::Route).map_err(doing("opening a socket in the container"))?;
    let there = place.as_ref().and_then(|place| place.router.as_ref());
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
                Err(error) if error.kind() == io::ErrorKind::NotFound && setup::may_be_missing(name) => {}
                written => written.map_err(doing(format!("writing {value} to \"{path}\" of the router")))?,
            }
        }
    }
    let (ids, queue, devices) = match &place {
        None => {
            carry_out(&mut router, setup::private_devices(plan, container.as_raw_fd()))?;
            let ids = RelayIds::of_slot(0);
            let (ids, queue) = with_queue(&mut nft, ids, known, |queue| setup::private_rules(ids, queue))?;
            (ids, queue, Vec::new())
        }
        Some(place) => keeper::open((plan, place), &container, &mut router, &mut nft, known)?,
    };
    carry_out(&mut inside, setup::container(plan))?;
    let (inner, outbound) = Inner::open(ids, plan)?;
    let keeper = match place {
        None => None,
        Some(place) => {
            let net = namespace::open("/proc/thread-self/ns/net".as_ref())
                .map_err(doing("opening the router's network namespace"))?;
            let plan = plan.clone();
            Some(Keeper { place, router, inside, nft, container, net, ids, queue, plan, devices })
        }
    };
    Ok(Opened { inner, outbound, queue, keeper })
}

/// Sends requests; the error tells which one failed.
pub(super) fn carry_out(socket: &mut Socket, list: Requests) -> Result<(), Error> {
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

/// Makes the rules of a relay, with the kind of queue that it is known to have, or the best one.
pub(super) fn with_queue(
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
