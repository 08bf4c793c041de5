//! Containers that stand still for a while. Nothing is recorded: the control group says it.

use super::{Engine, Error};
use crate::cgroup::{self, freeze};
use crate::storage::containers::{ContainerRecord, RunState, Status};
use crate::storage::events::Event;

impl Engine {
    /// Lets all processes of a running container stand still.
    pub fn pause(&self, text: &str) -> Result<(), Error> {
        let (record, status) = self.lookup(text)?;
        match &status {
            Status::Running(state) => self.set(record, state, ("pausing", "pause"), freeze::freeze),
            Status::Paused(_) => Err(Error::Paused(record.name)),
            _ => Err(Error::NotRunning { name: record.name, status: status.word() }),
        }
    }

    /// Lets a paused container go on.
    pub fn unpause(&self, text: &str) -> Result<(), Error> {
        let (record, status) = self.lookup(text)?;
        match &status {
            Status::Paused(state) => self.set(record, state, ("unpausing", "unpause"), freeze::thaw),
            _ => Err(Error::NotPaused { name: record.name, status: status.word() }),
        }
    }

    fn set(
        &self,
        record: ContainerRecord,
        state: &RunState,
        (action, event): (&'static str, &str),
        how: fn(&std::path::Path) -> Result<(), cgroup::Error>,
    ) -> Result<(), Error> {
        let noted = Event::container(event, &record);
        let group = self.group_of(&record, state, action)?;
        let name = record.name;
        how(&group).map_err(|source| match self.load(&record.id) {
            // It ended in between, and its group with it.
            Ok((_, status)) if status.running().is_none() => {
                Error::NotRunning { name, status: status.word() }
            }
            _ => Error::Freezer { action, name, source: Box::new(source) },
        })?;
        self.note(noted);
        Ok(())
    }
}

/// The status with what the control group has to say of it.
pub(super) fn told(status: Status) -> Status {
    match status {
        Status::Running(state) if state.cgroup.as_deref().is_some_and(freeze::is_frozen) => {
            Status::Paused(state)
        }
        other => other,
    }
}

/// Why a container can have no group: something of the machine, or its own making.
pub(super) fn why_ungrouped() -> String {
    let availability = cgroup::availability();
    if availability.by_systemd {
        "it was made without limits, and nobody had to be asked for a group: run --cgroup-manager systemd asks".to_owned()
    } else if availability.available {
        "it was made without one (--cgroups=disabled), or when none could be had".to_owned()
    } else {
        format!("no container can have one here: {}", availability.why)
    }
}
