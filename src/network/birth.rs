//! The process that is a container's way out: how it is born, what it sets up, how it ends.
//!
//! The caller's main thread stays in the host's network namespace; a second thread goes into the router's. Both
//! are in the container's user namespace, which owns the router, and hold no capability over the host.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::helper::{self, Program};
use super::keeper::Keeper;
use super::nft::QueueKind;
use super::plan::{NetworkPlan, Wiring};
use super::relay::{self, Orders, Outer};
use super::router::{self, Opened, doing};
use super::shared::{self, Place};
use crate::base::report;
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
    #[error("{message}")]
    Inside {
        /// What and why.
        message: String,
        /// What may be done about it, if anything.
        hint: String,
    },
    /// The kernel has no way for packets to it.
    #[error("{message}")]
    NoWay {
        /// What it lacks for each.
        message: String,
        /// What may be done about it.
        hint: String,
    },
    /// Nor is there another program that could do it.
    #[error("{message}; {}", report::chain(helper))]
    NoHelper {
        /// What the kernel lacks.
        message: String,
        /// What may be done about it.
        hint: String,
        /// Why the program does not.
        helper: helper::Error,
    },
    /// It does not say what became of a change.
    #[error("the relay's process does not answer")]
    Silent,
    /// There is no place for it in the router of shared networks.
    #[error(transparent)]
    Shared(#[from] shared::Error),
}

impl Error {
    /// What may be done about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Inside { hint, .. } | Self::NoWay { hint, .. } | Self::NoHelper { hint, .. } => {
                Some(hint.clone()).filter(|hint| !hint.is_empty())
            }
            Self::Shared(error) => error.hint(),
            _ => None,
        }
    }
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

    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { user: self.user.as_ref().map(OwnedFd::try_clone).transpose()?, net: self.net.try_clone()? })
    }
}

/// A relay's process. It dies with its maker, and when this is dropped; with it goes all that it set up.
#[derive(Debug)]
pub struct Relay {
    child: Child,
    control: OwnedFd,
    /// The name of its door in the shared router.
    door: Option<PathBuf>,
    /// Whether it has ports of the host.
    published: bool,
    /// The container's, until it is known that no other program needs them.
    namespaces: RefCell<Option<Namespaces>>,
    /// Whether it is one that looks after another program, and ends it when it is told.
    helper: bool,
    /// How many orders it was given.
    orders: Cell<u64>,
}

impl Relay {
    /// Forks the process, which goes to work beside the caller. The caller must be single-threaded.
    /// In a shared router it takes a place.
    /// `known` is the kind of queue that an earlier one found.
    pub fn start(
        plan: &NetworkPlan,
        namespaces: Namespaces,
        place: Option<Place>,
        known: Option<QueueKind>,
    ) -> Result<Self, Error> {
        let (ours, theirs) = socket::packet_pair().map_err(Error::Process)?;
        let options = CloneOptions { close: Some(ours.as_fd()), ..CloneOptions::default() };
        let parent = std::process::id();
        let door = place.as_ref().map(|place| place.path.clone());
        let child = process::spawn(options, || {
            let mut keep = vec![theirs.as_raw_fd(), namespaces.net.as_raw_fd()];
            keep.extend(namespaces.user.as_ref().map(AsRawFd::as_raw_fd));
            if let Some(place) = &place {
                keep.push(place.door.as_raw_fd());
                let router = place.router.as_ref();
                keep.extend(router.map(|router| router.net.as_raw_fd()));
                keep.extend(router.and_then(|router| router.user.as_ref()).map(AsRawFd::as_raw_fd));
            }
            // First of all: among them is the gate of the container, which must close when the monitor dies.
            daemon::close_fds_except(&keep);
            let work = namespaces
                .try_clone()
                .map_err(doing("copying a descriptor"))
                .and_then(|namespaces| work(parent, (plan, known), namespaces, place, &theirs));
            match work {
                Ok(()) => 0,
                Err(failure) => {
                    // Whoever would be told may be gone, and so shall we be.
                    let kind = if failure.is_no_way() { NO_WAY } else { "" };
                    let hint = failure.hint().unwrap_or_default();
                    let text = [&report::chain(&failure)[..], &hint, kind].join("\0");
                    let _ = socket::send(&theirs, text.as_bytes(), None);
                    1
                }
            }
        });
        Ok(Self {
            child: child.map_err(Error::Process)?,
            control: ours,
            door,
            published: !plan.published.is_empty(),
            namespaces: RefCell::new(Some(namespaces)),
            helper: false,
            orders: Cell::new(0),
        })
    }

    /// What does it instead of a relay that has failed for want of a way, for the same container.
    /// If there is a program that is `wanted`, no other will do.
    pub fn by_helper(
        &self,
        plan: &NetworkPlan,
        wanted: Option<QueueKind>,
        failure: Error,
    ) -> Result<(Self, QueueKind), Error> {
        let Error::NoWay { message, hint } = failure else { return Err(failure) };
        // What has been opened: by now the container's first process hides.
        let namespaces = self.namespaces.take().ok_or(Error::Died)?;
        let (control, theirs) = socket::packet_pair().map_err(Error::Process)?;
        let wanted = match wanted {
            Some(QueueKind::Pasta) => Some(Program::Pasta),
            Some(QueueKind::Helper) => Some(Program::Slirp4netns),
            _ => None,
        };
        let started = helper::start(plan, &namespaces, &theirs, wanted);
        let (child, program) = started.map_err(|helper| Error::NoHelper { message, hint, helper })?;
        let kind = match program {
            Program::Pasta => QueueKind::Pasta,
            Program::Slirp4netns => QueueKind::Helper,
        };
        let published = !plan.published.is_empty();
        let namespaces = RefCell::new(None);
        Ok((
            Self { child, control, door: None, published, namespaces, helper: true, orders: Cell::new(0) },
            kind,
        ))
    }

    /// Waits until the container may begin. The kind of queue that it has is of use to later ones.
    pub fn ready(&self) -> Result<QueueKind, Error> {
        let (answer, _) = socket::receive(&self.control).map_err(Error::Process)?;
        if let Some(word) = answer.strip_prefix(READY) {
            self.namespaces.replace(None);
            return QueueKind::of_word(&String::from_utf8_lossy(word)).ok_or(Error::Died);
        }
        match answer.as_slice() {
            [] => Err(Error::Died),
            text => said(text).and(Err(Error::Died)),
        }
    }

    /// Changes the container's networks, and waits for that. If it fails they are as before.
    pub fn change(&self, wiring: &Wiring) -> Result<(), Error> {
        let number = self.orders.get() + 1;
        self.orders.set(number);
        let wiring = serde_json::to_vec(wiring).map_err(|error| Error::Process(error.into()))?;
        if wiring.len() > LONGEST {
            return Err(Error::Process(io::ErrorKind::FileTooLarge.into()));
        }
        socket::send(&self.control, &[&number.to_le_bytes()[..], &wiring].concat(), None)
            .map_err(Error::Process)?;
        loop {
            let mut answer = [PollFd::new(&self.control, PollFlags::IN)];
            match poll(&mut answer, Some(&PATIENCE)) {
                Ok(0) => return Err(Error::Silent),
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(|error| Error::Process(error.into()))?,
            };
            let (answer, _) = socket::receive(&self.control).map_err(Error::Process)?;
            let Some((about, text)) = answer.split_first_chunk() else { return Err(Error::Died) };
            // What was answered too late is about an earlier one.
            if u64::from_le_bytes(*about) == number {
                return said(text);
            }
        }
    }

    fn tell_to_end(&self) {
        if self.helper {
            let _ = rustix::net::shutdown(&self.control, rustix::net::Shutdown::Both);
        } else {
            let _ = process::pidfd_signal(&self.child.pidfd, libc::SIGKILL);
        }
    }

    /// Ends the process. If it has ports of the host, they are free when this returns. That all else is gone
    /// takes the kernel longer: it is waited for when this is dropped.
    pub fn end(&self) {
        self.tell_to_end();
        if self.published {
            let mut ended = [PollFd::new(&self.child.pidfd, PollFlags::IN)];
            let _ = poll(&mut ended, None);
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tell_to_end();
        let _ = process::wait(&self.child.pidfd);
        if let Some(door) = &self.door {
            shared::remove_door(door);
        }
    }
}

/// What the process says of an error and what may be done about it; nothing of what went well.
fn said(text: &[u8]) -> Result<(), Error> {
    let text = String::from_utf8_lossy(text);
    let mut parts = text.split('\0').map(str::to_owned);
    let mut next = || parts.next().unwrap_or_default();
    let (message, hint, kind) = (next(), next(), next());
    match (message.is_empty(), kind == NO_WAY) {
        (true, _) => Ok(()),
        (false, true) => Err(Error::NoWay { message, hint }),
        (false, false) => Err(Error::Inside { message, hint }),
    }
}

/// A message has at most so many bytes beside its number.
const LONGEST: usize = 65000;

/// Marks an error for which there may be another program.
const NO_WAY: &str = "no way";

/// How long the relay may take to change networks.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// What the process says when the network is there.
const READY: &[u8] = b"\0ready ";

/// All of the process's life.
fn work(
    parent: u32,
    (plan, known): (&NetworkPlan, Option<QueueKind>),
    namespaces: Namespaces,
    place: Option<Place>,
    control: &OwnedFd,
) -> Result<(), router::Error> {
    let die_with = || process::die_with_parent(parent).map_err(doing("tying the relay to its monitor"));
    die_with()?;
    // With the powers and the network of the one who runs the container.
    let outer = Outer::open(plan)?;
    let Namespaces { user, net } = namespaces;
    if let Some(user) = user {
        namespace::join(user, libc::CLONE_NEWUSER as u64)
            .map_err(doing("joining the container's user namespace"))?;
        // Lost with the change of capabilities.
        die_with()?;
    }
    // Against what in the container has powers in that user namespace.
    process::set_undumpable().map_err(doing("hiding the relay"))?;
    let (say, hear) = mpsc::channel();
    let for_inner = plan.clone();
    spawn("inner", move || {
        let opened = router::open(&for_inner, net, place, known);
        let kept = opened.and_then(|Opened { inner, outbound, queue, carrier, keeper }| {
            drop_capabilities()?;
            if let Some(carrier) = carrier {
                spawn("carrier", move || {
                    let _ = carrier.run();
                    process::exit_now(1)
                })?;
            }
            let orders = keeper.map(keep).transpose()?;
            Ok((inner, outbound, queue, orders))
        });
        match kept {
            Ok((inner, outbound, queue, orders)) => {
                if say.send(Ok((outbound, queue, orders))).is_ok() {
                    let _ = inner.run();
                }
                // Without it there is no relay.
                process::exit_now(1)
            }
            // Told by the other thread.
            Err(failure) => drop(say.send(Err(failure))),
        }
    })?;
    let (outbound, queue, orders) = hear.recv().map_err(|_| router::Error::Thread)??;
    drop_capabilities()?;
    socket::send(control, &[READY, queue.word().as_bytes()].concat(), None)
        .map_err(doing("telling the monitor"))?;
    Ok(relay::serve(outer, outbound, control, orders)?)
}

/// Starts the thread that keeps the relay's part of a shared router, in the network namespace of the calling one.
fn keep(keeper: Keeper) -> Result<Orders, router::Error> {
    let (orders, duty) = relay::orders().map_err(doing("making an eventfd"))?;
    spawn("keeper", move || {
        let _ = keeper.run(&duty);
        // The rules have gone with it, and what they guard goes with them.
        process::exit_now(1)
    })?;
    Ok(orders)
}

/// Starts a thread that needs little memory.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), router::Error> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK).spawn(body);
    thread.map(drop).map_err(doing(format!("making the thread \"{name}\"")))
}

/// Bytes of a thread's stack. Of what is not touched nothing is there.
const STACK: usize = 512 * 1024;

/// All but what transparent sockets, verdicts on held packets, and sockets with the ports of servers and clients
/// below 1024 need. It counts for the calling thread.
fn drop_capabilities() -> Result<(), router::Error> {
    const NET_BIND_SERVICE: u64 = 1 << 10;
    const NET_ADMIN: u64 = 1 << 12;
    let drop_all = || {
        let keep = (NET_ADMIN | NET_BIND_SERVICE) & capability::permitted()?;
        capability::set(&capability::Sets { effective: keep, permitted: keep, ..capability::Sets::default() })
    };
    drop_all().map_err(doing("giving capabilities up"))
}
