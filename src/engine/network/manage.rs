//! The networks of a store: made, listed, changed, removed; containers that join and leave them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::create::{self, NetworkRequest, Present};
use super::host::HostNetwork;
use super::{Error, check_addresses};
use crate::base::id::{ContainerId, check_name};
use crate::engine::{Engine, Error as EngineError};
use crate::monitor::protocol::Request;
use crate::network::leases::{self, Lease};
use crate::storage::containers::{ContainerRecord, Membership, NetworkChange, Status};
use crate::storage::events::Event;
use crate::storage::networks::{DEFAULT_NETWORK, NetworkRecord};
use crate::sys::{atomic, host};

impl Engine {
    /// Makes a network; with `ignore` one that is there already will do.
    pub fn create_network(
        &self,
        request: &NetworkRequest,
        ignore: bool,
    ) -> Result<NetworkRecord, EngineError> {
        let networks = self.networks();
        let _lock = networks.lock()?;
        let present = Present {
            networks: networks.list()?,
            routes: HostNetwork::read().routes,
            now: host::now(),
            random: atomic::random().map_err(EngineError::Random)?,
        };
        let named = |name: &&NetworkRecord| request.name.as_ref() == Some(&name.name);
        if let Some(known) = present.networks.iter().find(named) {
            return if ignore { Ok(known.clone()) } else { Err(Error::Exists(known.name.clone()).into()) };
        }
        let record = create::network(request, &present)?;
        networks.put(&record)?;
        self.note(Event::new("network", "create", &record.name));
        Ok(record)
    }

    /// The network of this name or beginning of an id.
    pub fn find_network(&self, text: &str) -> Result<NetworkRecord, EngineError> {
        let unknown = || Error::Unknown(text.to_owned());
        if check_name(text).is_err() {
            return Err(unknown().into());
        }
        if let Some(record) = self.networks().get(text)? {
            return Ok(record);
        }
        let mut fitting =
            self.networks().list()?.into_iter().filter(|network| network.id().starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(record), None) => Ok(record),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned()).into()),
            (None, _) => Err(unknown().into()),
        }
    }

    /// The containers that are to be in each network, by its name.
    pub fn network_users(&self) -> Result<BTreeMap<String, Vec<ContainerId>>, EngineError> {
        let mut users: BTreeMap<String, Vec<ContainerId>> = BTreeMap::new();
        for id in self.containers.ids()? {
            // What cannot be read is not known to use anything.
            let Ok(record) = self.containers.record(&id) else { continue };
            for membership in &record.config.net.memberships {
                users.entry(membership.network.clone()).or_default().push(id.clone());
            }
        }
        Ok(users)
    }

    /// Who has addresses in a network now.
    pub fn network_leases(&self, name: &str) -> Vec<Lease> {
        leases::list(&self.network_dir(name))
    }

    /// Removes a network that no container uses.
    pub fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        // A container is recorded, with what it uses, by who holds the store's lock together with others.
        let _store = self.store.lock_exclusive()?;
        let _lock = self.networks().lock()?;
        self.network_named(name)?;
        if name == DEFAULT_NETWORK {
            return Err(Error::Default.into());
        }
        if let Some(user) = self.network_users()?.get(name).and_then(|users| users.first()) {
            let user = self.containers.record(user).map_or_else(|_| user.to_string(), |record| record.name);
            return Err(Error::InUse { network: name.to_owned(), user }.into());
        }
        self.networks().remove(name)?;
        let _ = std::fs::remove_dir_all(self.network_dir(name));
        self.note(Event::new("network", "remove", name));
        Ok(())
    }

    /// Changes a network's name servers, at once also for the containers that are in it.
    pub fn update_network(&self, name: &str, add: &[IpAddr], drop: &[IpAddr]) -> Result<(), EngineError> {
        let networks = self.networks();
        let _lock = networks.lock()?;
        let mut record = self.network_named(name)?;
        if !record.dns {
            return Err(Error::NoNames(name.to_owned()).into());
        }
        if let Some(missing) = drop.iter().find(|server| !record.servers.contains(server)) {
            return Err(Error::NoServer { network: name.to_owned(), server: *missing }.into());
        }
        record.servers.retain(|server| !drop.contains(server));
        for server in add {
            if !record.servers.contains(server) {
                record.servers.push(*server);
            }
        }
        networks.put(&record)?;
        let ids: BTreeSet<String> = self.network_leases(name).into_iter().map(|lease| lease.id).collect();
        for id in ids {
            match self.reload_network(&id) {
                // Ended meanwhile: its next start sees it.
                Ok(_) | Err(EngineError::NotRunning { .. } | EngineError::Containers(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has a container that runs see what has changed outside: name servers, its name.
    pub fn reload_network(&self, container: &str) -> Result<ContainerRecord, EngineError> {
        let (record, status) = self.lookup(container)?;
        let not_running =
            |record: ContainerRecord, word| EngineError::NotRunning { name: record.name, status: word };
        if status.running().is_none() {
            return Err(not_running(record, status.word()));
        }
        // Whoever has no relay sees everything as it is.
        if record.config.network.is_relayed() && !self.change_live(&record, &NetworkChange::Reload)? {
            return Err(not_running(record, "exited"));
        }
        Ok(record)
    }

    /// Puts a container into a network. One that runs gets the device at once.
    pub fn connect(&self, container: &str, membership: Membership) -> Result<(), EngineError> {
        let network = membership.network.clone();
        self.change_networks(container, ("connect", &network), &NetworkChange::Connect(membership))
    }

    /// Takes a container out of a network. One that runs loses the device at once.
    pub fn disconnect(&self, container: &str, network: &str) -> Result<(), EngineError> {
        self.change_networks(
            container,
            ("disconnect", network),
            &NetworkChange::Disconnect(network.to_owned()),
        )
    }

    fn change_networks(
        &self,
        container: &str,
        (verb, network): (&'static str, &str),
        change: &NetworkChange,
    ) -> Result<(), EngineError> {
        // The network stays while this is held.
        let _store = self.store.lock_shared()?;
        let named = self.network_named(network)?;
        let (record, status) = self.lookup(container)?;
        let mut wanted = record.config.net.memberships.clone();
        let unfit = |why| Error::Connect { container: record.name.clone(), network: network.to_owned(), why };
        change.apply(&record.config.network, &mut wanted).map_err(unfit)?;
        if let Some(membership) = wanted.iter().find(|known| known.network == network) {
            check_addresses(&named, membership)?;
        }
        let is_live = match status {
            Status::Running(_) | Status::Paused(_) | Status::Initialized(_) => true,
            Status::Created | Status::Stopping(_) | Status::Restarting(_) | Status::Exited(_) => false,
        };
        // Who ends while he is asked takes part from the next start on.
        if !is_live || !self.change_live(&record, change)? {
            self.containers.change(&record.id, |record| {
                change.apply(&record.config.network, &mut record.config.net.memberships).map_err(unfit)?;
                Ok::<(), EngineError>(())
            })?;
        }
        self.note(Event { id: record.id.to_string(), ..Event::new("network", verb, network) });
        Ok(())
    }

    /// Has the monitor of a container change its networks; false if the container has ended.
    fn change_live(&self, record: &ContainerRecord, change: &NetworkChange) -> Result<bool, EngineError> {
        let failed =
            |message: String, hint: String| Error::Live { container: record.name.clone(), message, hint };
        let change = serde_json::to_vec(change).map_err(|error| failed(error.to_string(), String::new()))?;
        match self.ask_monitor(record, &Request::Networks(&change))? {
            Some((message, _)) if message.is_empty() => Ok(true),
            Some((message, hint)) => Err(failed(message, hint).into()),
            None if self.load(&record.id)?.1.running().is_none() => Ok(false),
            // Of another version, or it was killed.
            None => {
                let hint = format!("umiak restart {}", record.name);
                Err(failed("its monitor does not answer".to_owned(), hint).into())
            }
        }
    }
}
