//! The process that is a container's way out: how it is born, what it sets up, how it ends.
//!
//! The caller's main thread stays in the host's network namespace; a second thread goes into the router's. Both
//! are in the container's user namespace, which owns the router, and hold no capability over the host.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::mpsc;

use super::ids::RelayIds;
use super::nft::Queue;
use super::plan::NetworkPlan;
use super::relay::{self, Inner, Outbound, Outer};
use super::setup::{self, Requests};
use crate::base::report;
use crate::sys::netlink::{self, Family, Refused, Socket};
use crate::sys::process::{self, Child, CloneOptions};
use crate::sys::{capability, daemon, namespace, socket};

/// Why a container has no network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace of the container could not be opened.
    #[error("opening a namespace of the container")]
    Namespace(#[source] io::Error),
    /// The process could not be made.
    #[error("making the relay's process")]
    Process(#[source] io::Error),
    /// It ended before it was ready.
    #[error("the relay's process died")]
    Died,
    /// It could not set the network up.
    #[error("{0}")]
    Inside(String),
}

/// What failed in the process itself. Told to its maker as text.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{action}")]
    Step {
        action: String,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Relay(#[from] relay::Error),
    #[error("the thread of the router died")]
    Thread,
}

/// Makes an error of what was being done.
fn doing(action: impl Into<String>) -> impl FnOnce(io::Error) -> Failure {
    let action = action.into();
    move |source| Failure::Step { action, source }
}

/// The namespaces of a container.
#[derive(Debug)]
pub struct Namespaces {
    /// Its user namespace, if that is not the caller's.
    pub user: Option<OwnedFd>,
    /// Its network namespace.
    pub net: OwnedFd,
}

impl Namespaces {
    /// Those of a process, which must be one that the caller may look into.
    pub fn of(pid: i32) -> io::Result<Self> {
        let open = |name: &str| namespace::open(format!("/proc/{pid}/ns/{name}").as_ref());
        let own = fs::read_link("/proc/self/ns/user")?;
        let other = fs::read_link(format!("/proc/{pid}/ns/user"))? != own;
        Ok(Self { user: other.then(|| open("user")).transpose()?, net: open("net")? })
    }
}

/// A relay's process. It dies with its maker, and when this is dropped; with it goes all that it set up.
#[derive(Debug)]
pub struct Relay {
    child: Child,
    control: OwnedFd,
}

impl Relay {
    /// Forks the process, which goes to work beside the caller. The caller must be single-threaded.
    pub fn start(plan: &NetworkPlan, namespaces: &Namespaces) -> Result<Self, Error> {
        let (ours, theirs) = socket::packet_pair().map_err(Error::Process)?;
        let options = CloneOptions { close: Some(ours.as_fd()), ..CloneOptions::default() };
        let parent = std::process::id();
        let child = process::spawn(options, || {
            let mut keep = vec![theirs.as_raw_fd(), namespaces.net.as_raw_fd()];
            keep.extend(namespaces.user.as_ref().map(AsRawFd::as_raw_fd));
            // First of all: among them is the gate of the container, which must close when the monitor dies.
            daemon::close_fds_except(&keep);
            match work(parent, plan, namespaces, &theirs) {
                Ok(()) => 0,
                Err(failure) => {
                    // Whoever would be told may be gone, and so shall we be.
                    let _ = socket::send(&theirs, report::chain(&failure).as_bytes(), None);
                    1
                }
            }
        });
        Ok(Self { child: child.map_err(Error::Process)?, control: ours })
    }

    /// Waits until the container may begin.
    pub fn ready(&self) -> Result<(), Error> {
        let (answer, _) = socket::receive(&self.control).map_err(Error::Process)?;
        match answer.as_slice() {
            [] => Err(Error::Died),
            READY => Ok(()),
            text => Err(Error::Inside(String::from_utf8_lossy(text).into_owned())),
        }
    }

    /// Readable when the process ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = process::pidfd_signal(&self.child.pidfd, libc::SIGKILL);
        let _ = process::wait(&self.child.pidfd);
    }
}

/// What the process says when the network is there.
const READY: &[u8] = b"\0ready";

/// All of the process's life.
fn work(parent: u32, plan: &NetworkPlan, namespaces: &Namespaces, control: &OwnedFd) -> Result<(), Failure> {
    let die_with = || process::die_with_parent(parent).map_err(doing("tying the relay to its monitor"));
    die_with()?;
    // With the powers and the network of the one who runs the container.
    let outer = Outer::open(plan)?;
    if let Some(user) = &namespaces.user {
        namespace::join(user, libc::CLONE_NEWUSER as u64)
            .map_err(doing("joining the container's user namespace"))?;
        // Lost with the change of capabilities.
        die_with()?;
    }
    // Against what in the container has powers in that user namespace.
    process::set_undumpable().map_err(doing("hiding the relay"))?;
    let container = namespaces.net.try_clone().map_err(doing("opening the network namespace"))?;
    let (say, hear) = mpsc::channel();
    let for_inner = plan.clone();
    let thread = std::thread::Builder::new().name("inner".into()).spawn(move || {
        match open_router(&for_inner, &container) {
            Ok((inner, outbound)) => {
                drop(container);
                if say.send(Ok(outbound)).is_ok() { inner.run().map_err(Failure::from) } else { Ok(()) }
            }
            Err(failure) => {
                let _ = say.send(Err(failure));
                Ok(())
            }
        }
    });
    drop(thread.map_err(doing("making the thread of the router"))?);
    let outbound = hear.recv().map_err(|_| Failure::Thread)??;
    drop_capabilities().map_err(doing("giving capabilities up"))?;
    socket::send(control, READY, None).map_err(doing("telling the monitor"))?;
    relay::serve(&outer, outbound, control).map_err(Failure::from)
}

/// Makes the router and the container's devices; the calling thread is in the router from then on.
fn open_router(plan: &NetworkPlan, container: &OwnedFd) -> Result<(Inner, Outbound), Failure> {
    let net = libc::CLONE_NEWNET as u64;
    namespace::join(container, net).map_err(doing("joining the container's network namespace"))?;
    let mut inside = Socket::open(Family::Route).map_err(doing("opening a socket in the container"))?;
    namespace::unshare(net).map_err(doing("making the router's network namespace"))?;
    let mut router = Socket::open(Family::Route).map_err(doing("opening a socket in the router"))?;
    carry_out(&mut router, setup::private_router(plan, container.as_raw_fd()))?;
    carry_out(&mut inside, setup::container(plan))?;
    drop((router, inside));
    for (name, value) in setup::settings(plan) {
        let path = format!("/proc/sys/net/{name}");
        fs::write(&path, value).map_err(doing(format!("writing {value} to \"{path}\" of the router")))?;
    }
    let ids = hand_over()?;
    let opened = Inner::open(ids, plan)?;
    drop_capabilities().map_err(doing("giving capabilities up"))?;
    Ok(opened)
}

/// Sends requests; the error tells which one failed.
fn carry_out(socket: &mut Socket, list: Requests) -> Result<(), Failure> {
    socket.send(&list.requests).map_err(|Refused { index, source }| {
        let action = list.what.get(index).cloned().unwrap_or_default();
        Failure::Step { action, source }
    })
}

/// Makes the rules, with the best queue that the kernel has.
fn hand_over() -> Result<RelayIds, Failure> {
    let mut socket =
        Socket::open(Family::Netfilter).map_err(doing("opening a socket of nftables in the router"))?;
    let ids = RelayIds::of_slot(0);
    let number = ids.queue.unwrap_or_default();
    let mut refused = None;
    for queue in [Some(Queue::Native(number)), Some(Queue::Target(number)), None] {
        match socket.send(&setup::private_rules(ids, queue)) {
            Ok(()) => return Ok(RelayIds { queue: queue.and(ids.queue), ..ids }),
            // Without the kind of queue, the kernel says that there is no such thing.
            Err(Refused { source, .. }) => refused = Some(source),
        }
        if refused.as_ref().and_then(netlink::errno) != Some(libc::ENOENT) {
            break;
        }
    }
    let source = refused.unwrap_or_else(|| io::ErrorKind::Unsupported.into());
    Err(doing("making the rules of the router")(source))
}

/// All but what transparent sockets, verdicts on held packets, and sockets with the ports of servers and clients
/// below 1024 need. It counts for the calling thread.
fn drop_capabilities() -> io::Result<()> {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    const NET_ADMIN: u64 = 1 << 12;
    let keep = (NET_ADMIN | NET_BIND_SERVICE) & capability::permitted()?;
    capability::set(&capability::Sets { effective: keep, permitted: keep, ..capability::Sets::default() })
}
