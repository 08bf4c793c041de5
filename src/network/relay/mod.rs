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

mod factory;
mod inner;
mod names;
mod outer;
mod pair;
mod pairs;
mod poll;
mod queue;
mod tcp;
mod udp;

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Resource, Rlimit};

pub use inner::{Inner, Outbound};

use super::plan::NetworkPlan;

/// Why the network of a container cannot be carried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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

/// Connections of a container at most, whatever the number of open files allows.
const CONNECTIONS: u64 = 32768;
/// Descriptors for everything but connections.
const OTHERS: u64 = 512;

/// The outer thread's part.
pub struct Outer {
    plan: NetworkPlan,
}

impl Outer {
    /// Opens what is needed in the host's network namespace, which the calling thread is in.
    pub fn open(plan: &NetworkPlan) -> Result<Self, Error> {
        Ok(Self { plan: plan.clone() })
    }
}

/// Serves what the container dials, until the other end of `control` is closed. The calling thread is the one
/// that opened `outer`, and keeps CAP_NET_ADMIN over the router for verdicts about held packets.
pub fn serve(outer: &Outer, outbound: Outbound, control: &OwnedFd) -> Result<(), Error> {
    outer::Loop::new(&outer.plan, outbound, control, connections())?.run()
}

/// How many connections there may be: two descriptors each, of as many as the hard limit allows.
fn connections() -> usize {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    files.map_or(CONNECTIONS, |files| (files.saturating_sub(OTHERS) / 2).clamp(16, CONNECTIONS)) as usize
}
