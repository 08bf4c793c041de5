//! Containers that need others: whose namespaces they share, or after which they are to start.

use std::collections::HashSet;

use super::{Engine, Error};
use crate::base::id::ContainerId;
use crate::storage::containers::{ContainerConfig, NamespaceMode, NetworkMode, UsernsMode};

/// The containers that one of this configuration needs.
pub(super) fn needed(config: &ContainerConfig) -> impl Iterator<Item = &ContainerId> {
    let modes = [&config.pid, &config.ipc, &config.uts, &config.cgroupns];
    let namespaces = modes.into_iter().filter_map(|mode| match mode {
        NamespaceMode::Container(id) => Some(id),
        _ => None,
    });
    let user = match &config.userns {
        UsernsMode::Container(id) => Some(id),
        _ => None,
    };
    let network = match &config.network {
        NetworkMode::Container(id) => Some(id),
        _ => None,
    };
    config.requires.iter().chain(namespaces).chain(user).chain(network)
}

#[derive(Default)]
struct Found {
    known: HashSet<ContainerId>,
    order: Vec<ContainerId>,
}

impl Engine {
    /// The containers that need this one, directly or not. Who needs another comes before it.
    pub fn dependents(&self, id: &ContainerId) -> Result<Vec<ContainerId>, Error> {
        let mut found = Found::default();
        self.visit(id, &mut found)?;
        found.order.pop();
        Ok(found.order)
    }

    /// Containers in such an order that who needs another comes before it.
    pub fn needing_first(&self, ids: Vec<ContainerId>) -> Result<Vec<ContainerId>, Error> {
        let mut found = Found::default();
        for id in &ids {
            self.visit(id, &mut found)?;
        }
        let wanted: HashSet<ContainerId> = ids.into_iter().collect();
        found.order.retain(|id| wanted.contains(id));
        Ok(found.order)
    }

    /// None can need itself: what a container needs is there before it is made.
    fn visit(&self, id: &ContainerId, found: &mut Found) -> Result<(), Error> {
        if !found.known.insert(id.clone()) {
            return Ok(());
        }
        for dependent in self.containers.dependents(id)? {
            self.visit(&dependent, found)?;
        }
        found.order.push(id.clone());
        Ok(())
    }

    /// Refuses if a container needs this one.
    pub(super) fn check_unneeded(&self, id: &ContainerId, name: &str) -> Result<(), Error> {
        let dependents = self.containers.dependents(id)?;
        if dependents.is_empty() {
            return Ok(());
        }
        let names = dependents.iter().map(|id| match self.containers.record(id) {
            Ok(record) => record.name,
            Err(_) => id.short().to_owned(),
        });
        Err(Error::Needed { name: name.to_owned(), by: names.collect::<Vec<_>>().join(", ") })
    }
}
