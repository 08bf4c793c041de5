//! Changes of a container's networks while it runs: all of it, or nothing.

use std::cell::Cell;
use std::io;

use super::Job;
use super::care::Change;
use crate::base::report;
use crate::network::birth::Relay;
use crate::storage::containers::{self, NetworkChange};

/// Why the networks are as before.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("reading the request")]
    Request(#[source] serde_json::Error),
    #[error(transparent)]
    Unfit(#[from] containers::Unfit),
    #[error(transparent)]
    Records(#[from] containers::Error),
    #[error(transparent)]
    Plan(io::Error),
    #[error("changing the networks")]
    Relay(#[source] crate::network::birth::Error),
}

/// What carries out requests. `changed` becomes true when the container's record is another one.
pub fn changes<'a>(job: &'a Job, relay: &'a Relay, changed: &'a Cell<bool>) -> Box<Change<'a>> {
    Box::new(move |request| {
        let told = |error: Error| {
            let hint = match &error {
                Error::Relay(error) => error.hint(),
                _ => None,
            };
            (report::chain(&error), hint.unwrap_or_default())
        };
        change(job, relay, request).map(|()| changed.set(true)).map_err(told)
    })
}

fn change(job: &Job, relay: &Relay, request: &[u8]) -> Result<(), Error> {
    let request: NetworkChange = serde_json::from_slice(request).map_err(Error::Request)?;
    let (containers, id) = (&job.containers, &job.record.id);
    let old = containers.record(id)?;
    let mut new = old.clone();
    request.apply(&new.config.network, &mut new.config.net.memberships)?;
    let attempt = || {
        let plan = job.networks.prepare(&old, &new).map_err(Error::Plan)?;
        let Some(plan) = plan else { return Ok(()) };
        relay.change(&plan.wiring()).map_err(Error::Relay)?;
        if new.config.net == old.config.net {
            return Ok(());
        }
        // Last: who is killed before has lost the network with all that was changed of it.
        let written = containers.change(id, |record| {
            let config = &mut record.config;
            Ok::<(), Error>(request.apply(&config.network, &mut config.net.memberships)?)
        });
        match written {
            Ok(_) => Ok(()),
            Err(error) => {
                if let Ok(Some(plan)) = job.networks.prepare(&new, &old) {
                    // It was like that before.
                    let _ = relay.change(&plan.wiring());
                }
                Err(error)
            }
        }
    };
    let result = attempt();
    job.networks.settle(&old, &new, result.is_ok());
    result
}

/// Goes on with the networks that the container has now.
pub fn take_note(job: &mut Job, changed: &Cell<bool>) {
    if changed.get()
        && let Ok(record) = job.containers.record(&job.record.id)
    {
        job.record.config.net = record.config.net;
    }
}
