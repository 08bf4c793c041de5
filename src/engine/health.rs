//! Asking monitors: for a health check at once, and for the moment that a container is as one wants it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{Engine, Error};
use crate::base::id::ContainerId;
use crate::monitor::protocol::{Event, MAX_BODY, Request};
use crate::storage::containers::{ContainerRecord, ExitRecord, HealthStatus, Status};

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has ended and is not started again.
    Exited,
    /// It has this health.
    Health(HealthStatus),
    /// Its status has this word.
    Status(&'static str),
}

impl Condition {
    /// Podman's word.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "exited" | "stopped" => Self::Exited,
            "healthy" => Self::Health(HealthStatus::Healthy),
            "unhealthy" => Self::Health(HealthStatus::Unhealthy),
            "configured" | "created" | "initialized" => Self::Status("created"),
            "running" => Self::Status("running"),
            "paused" => Self::Status("paused"),
            "stopping" => Self::Status("stopping"),
            "removing" => Self::Status("removing"),
            "unknown" => Self::Status("unknown"),
            _ => return None,
        })
    }

    fn met(self, status: &Status, health: Option<HealthStatus>) -> bool {
        match self {
            Self::Exited => matches!(status, Status::Exited(_)),
            Self::Health(wanted) => status.running().is_some() && health == Some(wanted),
            Self::Status(word) => status.word() == word,
        }
    }
}

/// What somebody who listens to a monitor hears.
enum Heard {
    Something,
    Checked(HealthStatus, i32),
    Networks(String, String),
    Nothing,
    End,
}

impl Engine {
    /// Checks a running container's health now: what is known then, and whether the check went well.
    pub fn check_now(&self, text: &str) -> Result<(HealthStatus, bool), Error> {
        let (record, status) = self.lookup(text)?;
        if record.config.health.is_none() {
            return Err(Error::NoHealthCheck(record.name));
        }
        if !matches!(status, Status::Running(_)) {
            return Err(Error::NotRunning { name: record.name, status: status.word() });
        }
        let socket = self.listen_to(&record)?;
        say(&socket, &Request::Check).map_err(|_| Error::MonitorGone(record.name.clone()))?;
        loop {
            match hear(&socket, None).map_err(Error::Relay)? {
                Heard::Checked(status, code) => return Ok((status, code == 0)),
                Heard::End => {
                    return Err(Error::NotRunning { name: record.name, status: "exited" });
                }
                _ => {}
            }
        }
    }

    /// Asks a container's monitor to change networks: what went wrong, empty if nothing did, and the hint; none if
    /// it ended before it answered.
    pub(super) fn ask_monitor(
        &self,
        record: &ContainerRecord,
        request: &Request<'_>,
    ) -> Result<Option<(String, String)>, Error> {
        let Ok(socket) = self.listen_to(record) else { return Ok(None) };
        if say(&socket, request).is_err() {
            return Ok(None);
        }
        loop {
            match hear(&socket, None).map_err(Error::Relay)? {
                Heard::Networks(message, hint) => return Ok(Some((message, hint))),
                Heard::End => return Ok(None),
                _ => {}
            }
        }
    }

    /// A connection with a container's monitor that hears of all but output.
    fn listen_to(&self, record: &ContainerRecord) -> Result<OwnedFd, Error> {
        let gone = |_| Error::MonitorGone(record.name.clone());
        let socket = crate::monitor::connect(&self.containers.attach_socket(&record.id)).map_err(gone)?;
        say(&socket, &Request::Mute).map_err(gone)?;
        Ok(socket)
    }

    /// Waits until a container is as one of the conditions says; how it ended, if it has. What monitors do
    /// not tell of is looked for every `interval`.
    pub fn wait_for(
        &self,
        id: &ContainerId,
        conditions: &[Condition],
        interval: Duration,
    ) -> Result<Option<ExitRecord>, Error> {
        if conditions.iter().all(|condition| *condition == Condition::Exited) {
            return self.wait(id).map(Some);
        }
        let told = |condition: &Condition| !matches!(condition, Condition::Status(_));
        loop {
            // Listening comes before looking, lest something happen in between.
            let record = self.containers.record(id)?;
            let socket = self.listen_to(&record).ok();
            let (record, status) = self.load(id)?;
            if conditions.iter().any(|c| matches!(c, Condition::Health(_))) && record.config.health.is_none()
            {
                return Err(Error::NoHealthCheck(record.name));
            }
            let listed = self.listed(Box::new((&record).into()), status);
            if conditions.iter().any(|condition| condition.met(&listed.status, listed.health)) {
                return Ok(match listed.status {
                    Status::Exited(exit) => Some(exit),
                    _ => None,
                });
            }
            if let (Status::Exited(_), true) = (&listed.status, conditions.iter().all(told)) {
                return Err(Error::EndedBefore(listed.record.name));
            }
            let patience = (!conditions.iter().all(told)).then_some(interval);
            match &socket {
                Some(socket) => {
                    // Whatever it is, what follows is looked for.
                    hear(socket, patience).map_err(Error::Relay)?;
                }
                None => std::thread::sleep(interval),
            }
        }
    }
}

fn say(socket: &OwnedFd, request: &Request<'_>) -> io::Result<()> {
    let mut packet = Vec::new();
    request.encode(&mut packet);
    send(socket, &packet, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn hear(socket: &OwnedFd, patience: Option<Duration>) -> io::Result<Heard> {
    let timeout = patience.map(|patience| Timespec {
        tv_sec: patience.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    });
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], timeout.as_ref()) {
        Ok(0) | Err(Errno::INTR) => return Ok(Heard::Nothing),
        other => other?,
    };
    let mut buffer = vec![0; MAX_BODY + 1];
    match recv(socket, &mut *buffer, RecvFlags::empty()) {
        Err(Errno::INTR) => Ok(Heard::Nothing),
        Ok((0, _)) | Err(_) => Ok(Heard::End),
        Ok((length, _)) => Ok(match Event::decode(&buffer[..length]) {
            Some(Event::Checked(status, code)) => Heard::Checked(status, code),
            Some(Event::Networks { message, hint }) => Heard::Networks(message.to_owned(), hint.to_owned()),
            Some(Event::Exited(_) | Event::Failed { .. }) => Heard::End,
            _ => Heard::Something,
        }),
    }
}
