//! The networks of a container while its monitor looks after it: planned for each run, changed while it runs.

use std::cell::RefCell;
use std::io;

use super::plan::Texts;
use crate::base::address::Subnet;
use crate::engine::{Engine, Error};
use crate::monitor::Networks;
use crate::network::leases;
use crate::network::plan::NetworkPlan;
use crate::storage::containers::{ContainerRecord, NetworkMode};

/// What a container has, and what its files say of it.
struct Known {
    plan: NetworkPlan,
    texts: Texts,
}

/// A container's networks as its monitor knows them.
pub struct Live {
    engine: Engine,
    /// What there is; nothing before the first run.
    now: RefCell<Option<Known>>,
    /// What was prepared.
    next: RefCell<Option<Known>>,
}

impl Live {
    /// Those of a container that is about to be started by this process.
    pub fn new(engine: Engine) -> Self {
        Self { engine, now: RefCell::default(), next: RefCell::default() }
    }

    fn known(engine: &Engine, record: &ContainerRecord) -> Result<Option<Known>, Error> {
        let Some((plan, texts)) = engine.network_of(record)? else { return Ok(None) };
        Ok(Some(Known { plan: engine.completed(record, plan), texts }))
    }

    fn change(&self, old: &ContainerRecord, new: &ContainerRecord) -> Result<Option<NetworkPlan>, Error> {
        let now = self.now.borrow();
        let Some(now) = &*now else { return Ok(None) };
        let engine = self.engine.afresh();
        let mut wanted = new.clone();
        let own = now.plan.interfaces.first().and_then(|eth0| eth0.addresses.first());
        if wanted.config.network == NetworkMode::Private {
            // Its devices are what they are, wherever the host has moved to.
            wanted.config.net.private.subnet =
                own.and_then(|(address, prefix)| Subnet::of(*address, *prefix));
        }
        let Some(mut next) = Self::known(&engine, &wanted)? else { return Ok(None) };
        if wanted.config.network == NetworkMode::Private {
            next.plan.interfaces.clone_from(&now.plan.interfaces);
            next.plan.policy.aliases.clone_from(&now.plan.policy.aliases);
            next.texts.own.clone_from(&now.texts.own);
        }
        engine.rewrite_files((old, &now.texts), (new, &next.texts))?;
        let plan = next.plan.clone();
        *self.next.borrow_mut() = Some(next);
        Ok(Some(plan))
    }
}

impl Networks for Live {
    fn plan(&self, record: &ContainerRecord) -> io::Result<Option<NetworkPlan>> {
        let first = self.now.borrow().is_none();
        // What the files of the first run say is what it gets.
        let known = if first {
            Self::known(&self.engine, record)
        } else {
            Self::known(&self.engine.afresh(), record)
        };
        let known = known.map_err(io::Error::other)?;
        let plan = known.as_ref().map(|known| known.plan.clone());
        *self.now.borrow_mut() = known;
        Ok(plan)
    }

    fn prepare(&self, old: &ContainerRecord, new: &ContainerRecord) -> io::Result<Option<NetworkPlan>> {
        *self.next.borrow_mut() = None;
        self.change(old, new).map_err(io::Error::other)
    }

    fn settle(&self, old: &ContainerRecord, new: &ContainerRecord, done: bool) {
        let next = self.next.borrow_mut().take();
        let (stays, goes) = if done { (new, old) } else { (old, new) };
        match (done, next) {
            (true, Some(next)) => *self.now.borrow_mut() = Some(next),
            (false, Some(next)) => {
                if let Some(now) = &*self.now.borrow() {
                    // What cannot be written back is written at the next start.
                    let _ = self.engine.rewrite_files((new, &next.texts), (old, &now.texts));
                }
            }
            (_, None) => {}
        }
        let is_left = |name: &str| stays.config.net.memberships.iter().all(|member| member.network != name);
        for member in goes.config.net.memberships.iter().filter(|member| is_left(&member.network)) {
            leases::release(&self.engine.network_dir(&member.network), old.id.as_str());
        }
    }

    fn leave(&self, record: &ContainerRecord) {
        self.engine.leave_networks(record);
    }
}
