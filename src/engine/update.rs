//! `update` and `cleanup`: what can be changed of a container that is there, and what is left of one.

use super::{Engine, Error, config, environment, supervision};
use crate::monitor::protocol::Request;
use crate::storage::containers::{ContainerRecord, RestartPolicy, Status};
use crate::storage::events::Event;

/// What is to be changed.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The restart policy and the health check.
    pub supervision: supervision::Wanted,
    /// `NAME=VALUE`; `NAME` takes our value.
    pub env: Vec<String>,
    /// Names.
    pub unset_env: Vec<String>,
}

impl Engine {
    /// Changes a container, at once where it runs: its restart policy and its health check. Its environment
    /// is that of programs that are started from then on.
    pub fn update(&self, text: &str, changes: &Changes) -> Result<ContainerRecord, Error> {
        let (record, _) = self.lookup(text)?;
        let health = record.config.health.clone();
        let record = self.containers.change(&record.id, |record| {
            change(record, changes, health)?;
            Ok::<(), Error>(())
        })?;
        self.tell_monitor(&record.id, &Request::Reload);
        self.note(Event::container("update", &record));
        Ok(record)
    }

    /// Finishes what is left of a container that does not run. Says whether there was one to look at.
    pub fn cleanup(&self, text: &str) -> Result<ContainerRecord, Error> {
        let (record, status) = self.lookup(text)?;
        match status {
            Status::Created | Status::Exited(_) => {
                self.note(Event::container("cleanup", &record));
                Ok(record)
            }
            Status::Initialized(_)
            | Status::Running(_)
            | Status::Paused(_)
            | Status::Stopping(_)
            | Status::Restarting(_) => Err(Error::Running(record.name)),
        }
    }
}

fn change(
    record: &mut ContainerRecord,
    changes: &Changes,
    health: Option<crate::storage::containers::HealthConfig>,
) -> Result<(), config::Error> {
    let wanted = &changes.supervision;
    if let Some(policy) = &wanted.restart {
        let policy = supervision::restart(policy)?;
        if record.config.auto_remove && policy != RestartPolicy::No {
            let why = "a container that is removed when it ends (--rm) cannot be restarted";
            return Err(config::flag("restart", policy.name(), why));
        }
        record.config.restart = policy;
    }
    record.config.health = supervision::change_health(wanted, health)?;
    for name in &changes.unset_env {
        let prefix = format!("{name}=");
        record.config.env.retain(|item| !item.starts_with(&prefix));
    }
    let ours = std::env::vars().collect();
    record.config.env = environment::exec_environment(&record.config.env, &changes.env, &[], &ours, false)?;
    Ok(())
}
