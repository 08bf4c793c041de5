//! `update` and `cleanup`: what can be changed of a container that is there, and what is left of one.

use super::{Engine, Error, config, environment, limits, supervision};
use crate::cgroup::{self, Unit};
use crate::monitor::protocol::Request;
use crate::storage::containers::{ContainerRecord, Limits, RestartPolicy, Status};
use crate::storage::events::Event;

/// What is to be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The restart policy and the health check.
    pub supervision: supervision::Wanted,
    /// `NAME=VALUE`; `NAME` takes our value.
    pub env: Vec<String>,
    /// Names.
    pub unset_env: Vec<String>,
    /// Limits.
    pub limits: config::limits::Wanted,
    /// Limits of each process: `NAME=SOFT[:HARD]`.
    pub ulimits: Vec<String>,
}

impl Engine {
    /// Changes a container, at once where it runs: its limits, its restart policy and its health check. Its
    /// environment and the limits of each process are those of programs that are started from then on.
    pub fn update(&self, text: &str, changes: &Changes) -> Result<ContainerRecord, Error> {
        let (record, status) = self.lookup(text)?;
        let health = record.config.health.clone();
        let record = self.containers.change(&record.id, |record| {
            change(record, changes, health)?;
            // Last: what the kernel has taken is not to be taken back because of something else.
            let limits = config::limits::change(&changes.limits, &record.config.limits)?;
            if limits != record.config.limits {
                self.relimit(record, &status, &limits)?;
                record.config.limits = limits;
            }
            Ok::<(), Error>(())
        })?;
        self.tell_monitor(&record.id, &Request::Reload);
        self.note(Event::container("update", &record));
        Ok(record)
    }

    /// Puts other limits into force where the container runs; where not, it is only looked whether they can be had.
    fn relimit(&self, record: &ContainerRecord, status: &Status, new: &Limits) -> Result<(), Error> {
        if !record.config.cgroups {
            let reason = "there is no control group (--cgroups=disabled)".to_owned();
            let flag = format!("limiting container \"{}\"", record.name);
            return Err(Error::Limit { flag, reason, cure: None });
        }
        let state = match status {
            Status::Initialized(state) | Status::Running(state) | Status::Paused(state) => state,
            _ => return limits::check(new, record.config.cgroups, record.id.as_str()),
        };
        config::limits::check(new, &limits::machine())?;
        let resources = limits::resources(new)?;
        if state.cgroup.is_none() {
            // What nobody could give must not move the container for nothing.
            limits::choose(new, true, record.id.as_str(), resources.as_ref())?;
        }
        let group = self.group_of(record, state, "limiting")?;
        let old = limits::resources(&record.config.limits)?.unwrap_or_else(limits::nothing);
        let new = resources.unwrap_or_else(limits::nothing);
        cgroup::replace(&group, Unit::of(&group).as_ref(), &old, &new)
            .map_err(|source| Error::Relimit { name: record.name.clone(), source: Box::new(source) })
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
    for limit in config::ulimits(&changes.ulimits)? {
        record.config.ulimits.retain(|other| other.name != limit.name);
        record.config.ulimits.push(limit);
    }
    let ours = std::env::vars().collect();
    record.config.env = environment::exec_environment(&record.config.env, &changes.env, &[], &ours, false)?;
    Ok(())
}
