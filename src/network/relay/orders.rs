//! Between the thread that hears what shall become of a container's network and the one that carries it out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};

use rustix::event::EventfdFlags;

use crate::network::plan::NetworkPlan;

/// A network that has been changed.
pub struct Rewired {
    /// What it is now.
    pub plan: NetworkPlan,
    /// What the name server answers from, with its addresses.
    pub replies: Vec<(SocketAddr, OwnedFd)>,
    /// Addresses that the container no longer has.
    pub lost: Vec<IpAddr>,
}

/// What came of an order: the network, or why it is as before and what may be done about it.
pub type Outcome = Result<Rewired, (String, String)>;

/// The end of the one who orders.
pub struct Orders {
    orders: mpsc::Sender<NetworkPlan>,
    ordered: Arc<OwnedFd>,
    outcomes: mpsc::Receiver<Outcome>,
    done: Arc<OwnedFd>,
}

/// The end of the one who carries out.
pub struct Duty {
    orders: mpsc::Receiver<NetworkPlan>,
    ordered: Arc<OwnedFd>,
    outcomes: mpsc::Sender<Outcome>,
    done: Arc<OwnedFd>,
}

/// Both ends.
pub fn pair() -> io::Result<(Orders, Duty)> {
    let bell = || rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Arc::new);
    let (ordered, done) = (bell()?, bell()?);
    let (order, orders) = mpsc::channel();
    let (tell, outcomes) = mpsc::channel();
    let ours = Orders { orders: order, ordered: Arc::clone(&ordered), outcomes, done: Arc::clone(&done) };
    Ok((ours, Duty { orders, ordered, outcomes: tell, done }))
}

fn ring(bell: &OwnedFd) {
    // It only fails when the counter is full: then it has been rung.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

fn silence(bell: &OwnedFd) {
    let _ = rustix::io::read(bell, &mut [0_u8; 8]);
}

impl Orders {
    /// Orders that the network become this one.
    pub fn order(&self, plan: NetworkPlan) {
        if self.orders.send(plan).is_ok() {
            ring(&self.ordered);
        }
    }

    /// Becomes readable when an order has been carried out.
    pub fn done(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    /// What came of orders since this was last asked.
    pub fn outcomes(&self) -> Vec<Outcome> {
        silence(&self.done);
        self.outcomes.try_iter().collect()
    }
}

impl Duty {
    /// Becomes readable when something is ordered.
    pub fn ordered(&self) -> BorrowedFd<'_> {
        self.ordered.as_fd()
    }

    /// What was ordered since this was last asked.
    pub fn orders(&self) -> Vec<NetworkPlan> {
        silence(&self.ordered);
        self.orders.try_iter().collect()
    }

    /// Tells what came of an order.
    pub fn tell(&self, outcome: Outcome) {
        if self.outcomes.send(outcome).is_ok() {
            ring(&self.done);
        }
    }
}
