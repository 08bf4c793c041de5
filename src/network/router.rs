//! Carries out what [`super::setup`] has planned: the router and the container's devices, by a thread that stays
//! in the router.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use super::ids::RelayIds;
use super::keeper::{self, Keeper};
use super::nft::{Queue, QueueKind};
use super::plan::NetworkPlan;
use super::relay::{self, Carrier, Front, Inner, Outbound};
use super::setup::{self, Requests};
use super::shared::Place;
use crate::base::report;
use crate::sys::netlink::{self, Family, Refused, Request, Socket};
use crate::sys::{namespace, packet};

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
    /// There is no way for packets to the relay.
    #[error("the kernel has no way for it{}{}", if .0.is_empty() { "" } else { ": " }, .0.iter().map(|error| report::chain(error)).collect::<Vec<_>>().join("; "))]
    NoWay(Vec<Error>),
    /// The thread that does all this.
    #[error("the thread of the router died")]
    Thread,
}

impl Error {
    /// Whether the kernel lacks what was wanted of it.
    fn is_missing(&self) -> bool {
        match self {
            Self::Step { source, .. } => is_missing(source),
            Self::Relay(relay::Error::Queue(source)) => is_missing(source),
            _ => false,
        }
    }

    /// Whether another program might do it.
    pub fn is_no_way(&self) -> bool {
        matches!(self, Self::NoWay(_))
    }

    /// What may be done about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Relay(error) => error.hint(),
            Self::NoWay(_) => Some(
                "this kernel lets users make no network: --network host has the host's, --network none has none".into(),
            ),
            _ => None,
        }
    }
}

/// Whether the kernel says so of something that it has not, or lets nobody have.
fn is_missing(error: &io::Error) -> bool {
    const MISSING: [i32; 8] = [
        libc::ENOENT,
        libc::EOPNOTSUPP,
        libc::EPROTONOSUPPORT,
        libc::EAFNOSUPPORT,
        libc::ENOPROTOOPT,
        libc::EPERM,
        libc::EACCES,
        libc::ENOSYS,
    ];
    netlink::errno(error).is_some_and(|errno| MISSING.contains(&errno))
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
    /// What carries frames into the router, where no rules hand them over.
    pub carrier: Option<Carrier>,
    /// What keeps the relay's part of a shared router.
    pub keeper: Option<Keeper>,
}

/// Makes the router, or joins it, and the container's devices; the calling thread is in the router from then on.
/// Needs all capabilities over the user namespace that owns both.
/// `known` is how earlier ones were handed packets.
pub fn open(
    plan: &NetworkPlan,
    container: OwnedFd,
    place: Option<Place>,
    known: Option<QueueKind>,
) -> Result<Opened, Error> {
    namespace::join(&container, NET).map_err(doing("joining the container's network namespace"))?;
    let mut inside = Socket::open(Family::Route).map_err(doing("opening a socket in the container"))?;
    if !plan.congestion_chosen {
        prefer(&[setup::CONGESTION]);
    }
    let Some(place) = place else {
        let opened = private(plan, &container, known)?;
        carry_out(&mut inside, setup::container(plan, opened.carrier.is_some()))?;
        return Ok(opened);
    };
    match &place.router {
        Some(router) => namespace::join(&router.net, NET).map_err(doing("joining the router"))?,
        None => new_namespace()?,
    }
    let mut router = route_socket()?;
    let mut nft = nft_socket()?;
    carry_out(&mut router, setup::router(plan))?;
    if place.router.is_none() {
        write_settings(plan)?;
    }
    let (ids, queue, devices) = keeper::open((plan, &place), &container, &mut router, &mut nft, known)?;
    carry_out(&mut inside, setup::container(plan, false))?;
    let (inner, outbound) = Inner::open(ids, plan, None)?;
    let net = own_namespace()?;
    let keeper =
        Keeper { place, router, inside, nft, container, net, ids, queue, plan: plan.clone(), devices };
    Ok(Opened { inner, outbound, queue, carrier: None, keeper: Some(keeper) })
}

/// A router for one container alone, by the first way that the kernel has.
fn private(plan: &NetworkPlan, container: &OwnedFd, known: Option<QueueKind>) -> Result<Opened, Error> {
    new_namespace()?;
    let mut failures = Vec::new();
    for way in QueueKind::ways(known, true) {
        let opened = match way {
            QueueKind::Frames => carried(plan, container),
            way => ruled(plan, container, way),
        };
        match opened {
            // The other ways are about the same devices and sockets.
            Err(error) if !error.is_missing() => return Err(error),
            Err(error) => failures.push(error),
            opened => return opened,
        }
    }
    Err(Error::NoWay(failures))
}

/// A router with rules that hand over.
fn ruled(plan: &NetworkPlan, container: &OwnedFd, way: QueueKind) -> Result<Opened, Error> {
    let ids = RelayIds::of_slot(0);
    let rules = |queue| setup::private_rules(ids, queue);
    let (ids, queue) = with_queue(&mut nft_socket()?, ids, &[way], rules)?;
    let mut router = route_socket()?;
    carry_out(&mut router, setup::router(plan))?;
    write_settings(plan)?;
    carry_out(&mut router, setup::private_devices(plan, container.as_raw_fd()))?;
    let (inner, outbound) = Inner::open(ids, plan, None)?;
    Ok(Opened { inner, outbound, queue, carrier: None, keeper: None })
}

/// A router into which frames are carried. The calling thread is in a new namespace, which becomes that of the
/// devices between; it leaves it.
fn carried(plan: &NetworkPlan, container: &OwnedFd) -> Result<Opened, Error> {
    for scope in ["all", "default"] {
        // The kernel is to have no part in what comes there. Without IPv6 it has none.
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
        match fs::write(&path, "1") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(doing(format!("writing 1 to \"{path}\" of the devices between"))(error));
            }
            _ => {}
        }
    }
    let mut between = route_socket()?;
    let open = || packet::open().map_err(doing("opening a packet socket"));
    let front = Front { near: open()?, far: open()? };
    new_namespace()?;
    let mut router = route_socket()?;
    carry_out(&mut router, setup::router(plan))?;
    write_settings(plan)?;
    let own = own_namespace()?;
    let (devices, [near, far]) = setup::front(plan, container.as_raw_fd(), own.as_raw_fd());
    carry_out(&mut between, devices)?;
    carry_out(&mut router, setup::back(plan))?;
    for (socket, index) in [(&front.near, near), (&front.far, far)] {
        packet::bind(socket, index).map_err(doing("binding a packet socket"))?;
    }
    let (carrier, lane) = Carrier::new(front).map_err(doing("making an eventfd"))?;
    let (inner, outbound) = Inner::open(RelayIds { queue: None, ..RelayIds::of_slot(0) }, plan, Some(lane))?;
    Ok(Opened { inner, outbound, queue: QueueKind::Frames, carrier: Some(carrier), keeper: None })
}

const NET: u64 = libc::CLONE_NEWNET as u64;

fn new_namespace() -> Result<(), Error> {
    namespace::unshare(NET).map_err(doing("making the router's network namespace"))
}

fn own_namespace() -> Result<OwnedFd, Error> {
    namespace::open("/proc/thread-self/ns/net".as_ref())
        .map_err(doing("opening the router's network namespace"))
}

fn route_socket() -> Result<Socket, Error> {
    Socket::open(Family::Route).map_err(doing("opening a socket in the router"))
}

fn nft_socket() -> Result<Socket, Error> {
    Socket::open(Family::Netfilter).map_err(doing("opening a socket of nftables in the router"))
}

/// Writes the settings of the router that the calling thread is in.
fn write_settings(plan: &NetworkPlan) -> Result<(), Error> {
    for (name, value) in setup::settings(plan) {
        let path = format!("/proc/sys/net/{name}");
        match fs::write(&path, value) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && setup::may_be_missing(name) => {}
            written => written.map_err(doing(format!("writing {value} to \"{path}\" of the router")))?,
        }
    }
    prefer(&setup::PREFERENCES);
    Ok(())
}

/// Writes settings of the namespace that the calling thread is in, as far as the kernel lets.
fn prefer(settings: &[(&str, &str)]) {
    for (name, value) in settings {
        let _ = fs::write(format!("/proc/sys/net/{name}"), value);
    }
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

/// Makes the rules of a relay, with the first kind of queue that the kernel has.
pub(super) fn with_queue(
    nft: &mut Socket,
    ids: RelayIds,
    ways: &[QueueKind],
    rules: impl Fn(Option<Queue>) -> Vec<Request>,
) -> Result<(RelayIds, QueueKind), Error> {
    let number = ids.queue.unwrap_or_default();
    let mut refused: io::Error = io::ErrorKind::Unsupported.into();
    for kind in ways.iter().copied() {
        let queue = kind.queue(number);
        match nft.send(&rules(queue)) {
            Ok(()) => return Ok((RelayIds { queue: queue.and(ids.queue), ..ids }, kind)),
            Err(Refused { source, .. }) => refused = source,
        }
        if !is_missing(&refused) {
            break;
        }
    }
    Err(doing("making the rules of the router")(refused))
}
