//! Carries what a container sends between its router's network namespace and the host's.
//!
//! Two threads share the work, each with a loop of its own. The *outer* one is in the host's network namespace:
//! it dials what the container wants to reach. The *inner* one is in the router's: it connects to the container
//! for those who come to published ports. Each connection and flow is served by one of them alone, for what
//! `accept` returns belongs to the listener's namespace, whichever thread accepts.
//!
//! ```text
//! main thread: Outer::open(plan) ── spawn ──► inner thread: enters the router, sets it up
//!                     │                                     Inner::open(ids, plan) → (inner, outbound)
//!              serve(outer, outbound, control) ◄─ outbound ─┤
//!                                                           inner.run()
//! ```

mod echo;
mod factory;
mod frame;
mod frames;
mod host;
mod icmp;
mod idle;
mod inner;
mod log;
mod names;
mod orders;
mod outer;
mod pair;
mod pairs;
mod poll;
mod published;
mod queue;
mod tcp;
mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, Rlimit};

pub use frames::{Carrier, Front};
pub use inner::{Inner, Outbound, Reply, replies};
pub use orders::{Duty, Orders, Rewired, pair as orders};

use self::host::Listener;
use self::log::Log;
use super::plan::{NetworkPlan, Protocol, Published};

/// Why the network of a container cannot be carried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A published port. Port 0 is one of the kernel's choice.
    #[error(
        "publishing port {port}/{} on {}", name(*protocol),
        address.map_or("the host".into(), |address| address.to_string())
    )]
    Publish {
        /// The host's address, if not all.
        address: Option<IpAddr>,
        /// The host's port.
        port: u16,
        /// Of which kind.
        protocol: Protocol,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A socket of the router.
    #[error("opening a socket in the router")]
    Router(#[source] io::Error),
    /// The queue of held packets.
    #[error("opening the queue of new connections in the router")]
    Queue(#[source] io::Error),
    /// Waiting.
    #[error("waiting for sockets")]
    Poll(#[source] io::Error),
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

impl Error {
    /// What may be done about it.
    pub fn hint(&self) -> Option<String> {
        let Self::Publish { address, port, source, .. } = self else { return None };
        match source.raw_os_error()? {
            libc::EADDRINUSE => {
                Some(format!("port {port} is in use by another program: \"ss -lntup\" shows which"))
            }
            libc::EACCES => Some(format!(
                "ordinary users may not use port {port}: choose one of 1024 and above, or let them with \"sysctl \
                 net.ipv4.ip_unprivileged_port_start={port}\""
            )),
            libc::EADDRNOTAVAIL => Some(format!(
                "no device of the host has the address {}",
                address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
            )),
            _ => None,
        }
    }
}

/// Connections that were reset since there are as many as there may be. A relay is a process.
static TURNED_AWAY: AtomicU64 = AtomicU64::new(0);

/// Notes that a connection is turned away.
fn turn_away() {
    TURNED_AWAY.fetch_add(1, Ordering::Relaxed);
}

/// Connections of each thread at most, whatever the number of open files allows.
const CONNECTIONS: u64 = 32768;
/// Flows of datagrams of each thread at most.
const FLOWS: u64 = 4096;
/// Descriptors for everything but connections.
const OTHERS: u64 = 512;

/// The outer thread's part.
pub struct Outer {
    plan: NetworkPlan,
    listeners: Vec<Listener>,
    published: Vec<Published>,
    log: Log,
}

impl Outer {
    /// Opens what is needed in the host's network namespace, which the calling thread is in: the published
    /// ports and the log.
    pub fn open(plan: &NetworkPlan) -> Result<Self, Error> {
        let (listeners, published) = host::open(plan)?;
        let log = Log::new(plan.log.as_deref(), !plan.policy.egress.is_empty());
        Ok(Self { plan: plan.clone(), listeners, published, log })
    }

    /// The published ports, in the plan's order, with the host's port where the kernel chose it.
    pub fn published(&self) -> &[Published] {
        &self.published
    }
}

/// Serves what the container dials, and has the inner thread serve the published ports, until the other end of
/// `control` is closed. The calling thread is the one that opened `outer`, and keeps CAP_NET_ADMIN over the router
/// for verdicts about held packets. What comes over `control` is another [`Wiring`](super::plan::Wiring) in JSON,
/// with a number before it that the answer has, too; devices are changed by who has the other end of `orders`.
pub fn serve(
    outer: Outer,
    outbound: Outbound,
    control: &OwnedFd,
    orders: Option<Orders>,
) -> Result<(), Error> {
    outbound.publish(outer.listeners);
    let limits = limits(&outer.plan);
    outer::Loop::new(outer.plan, outbound, outer.log, (control, orders), limits)?.run()
}

/// How much there may be of what the other side decides, for each of the two threads.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections, of two descriptors each.
    connections: usize,
    /// Flows of datagrams, of two descriptors at most.
    flows: usize,
}

/// As much as the hard limit of open files allows. The inner thread has half of it if there are published ports,
/// and nothing to do otherwise.
fn limits(plan: &NetworkPlan) -> Limits {
    let threads = if plan.published.is_empty() { 1 } else { 2 };
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let files = files.unwrap_or(u64::MAX).min(1 << 20);
    let flows = (files / 16).min(FLOWS);
    let left = files.saturating_sub(OTHERS + 2 * flows * threads);
    Limits { connections: (left / 2 / threads).clamp(16, CONNECTIONS) as usize, flows: flows as usize }
}
