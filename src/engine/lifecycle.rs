//! Stopping, killing, waiting for and removing containers.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Engine, Error, pause, volumes};
use crate::base::id::ContainerId;
use crate::base::signal;
use crate::monitor::protocol::Request;
use crate::security::idmap::RungKind;
use crate::storage::containers::{
    Brief, ContainerConfig, ContainerRecord, Containers, Exit, ExitRecord, RestartPolicy, RunState, Status,
};
use crate::storage::events::Event;
use crate::sys::lock::Lock;
use crate::sys::process;

/// How long the end of a killed process is waited for.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

impl Engine {
    /// The container that `text` names, with its record and its status.
    pub fn lookup(&self, text: &str) -> Result<(ContainerRecord, Status), Error> {
        let id = match self.containers.find(text) {
            Err(crate::storage::containers::Error::NotFound(_)) if self.by_prefix => {
                self.containers.find_by_prefix(text)?
            }
            other => other?,
        };
        self.load(&id)
    }

    /// A container's record and status. What a killed monitor left is finished on the way.
    pub fn load(&self, id: &ContainerId) -> Result<(ContainerRecord, Status), Error> {
        self.load_one_of(id, &|id| self.containers.run_dir(id).exists())
    }

    /// The same for who knows already which containers have a volatile directory.
    pub fn load_one_of(
        &self,
        id: &ContainerId,
        may_run: &dyn Fn(&ContainerId) -> bool,
    ) -> Result<(ContainerRecord, Status), Error> {
        let (record, status, left_behind) = self.look(id, may_run)?;
        if left_behind && self.sweep_dead(id)? {
            self.note(Event::container("remove", &record));
            self.delete(&self.containers.trash_of(id), &record);
            return Err(crate::storage::containers::Error::NotFound(id.to_string()).into());
        }
        Ok((record, status))
    }

    /// A container's record and status, and whether a killed monitor left something to finish. Only reads.
    pub(super) fn look(
        &self,
        id: &ContainerId,
        may_run: &dyn Fn(&ContainerId) -> bool,
    ) -> Result<(ContainerRecord, Status, bool), Error> {
        let (record, status) = (self.containers.record(id)?, pause::told(self.containers.status(id)?));
        let goes = record.config.auto_remove && !record.waits;
        let left_behind = is_left_behind(&status, goes, || may_run(id));
        Ok((record, status, left_behind))
    }

    /// The same for a list.
    pub(super) fn look_briefly(
        containers: &Containers,
        id: &ContainerId,
        may_run: &dyn Fn(&ContainerId) -> bool,
    ) -> Result<(Box<Brief>, Status, bool), Error> {
        let (record, status) = containers.brief_and_status(id)?;
        let (record, status) = (Box::new(record), pause::told(status));
        let goes = record.config.auto_remove && !record.waits;
        let left_behind = is_left_behind(&status, goes, || may_run(id));
        Ok((record, status, left_behind))
    }

    /// Finishes what a killed monitor left, its control group too; says whether the container went.
    fn sweep_dead(&self, id: &ContainerId) -> Result<bool, Error> {
        // One that cannot be read names no group, and must not stand in the way.
        let cgroup = self.containers.run_state(id).ok().flatten().and_then(|state| state.cgroup);
        let removed = self.containers.sweep_dead(id)?;
        if !self.containers.in_charge(id)? {
            remove_cgroup(id, cgroup);
        }
        Ok(removed)
    }

    /// Sends a signal to the first process of a container.
    pub fn kill(&self, text: &str, signal: i32) -> Result<ContainerRecord, Error> {
        let (record, status) = self.lookup(text)?;
        // A paused one takes signals too: SIGKILL at once, the others when it goes on.
        let Some(state) = status.running() else {
            return Err(Error::NotRunning { name: record.name, status: status.word() });
        };
        let Some(pidfd) = open(state) else {
            return Err(Error::NotRunning { name: record.name, status: "exited" });
        };
        if signal == libc::SIGKILL || signal == record.config.stop_signal {
            // As good as stopped, which a restart policy is not to undo.
            self.note_stop(&record)?;
        }
        process::pidfd_signal(pidfd.as_fd(), signal).map_err(|source| Error::Signal {
            name: record.name.clone(),
            signal: signal::name(signal),
            source,
        })?;
        self.note(Event::container("kill", &record));
        Ok(record)
    }

    /// Notes that a container is not to be started again. To be done before it ends.
    fn note_stop(&self, record: &ContainerRecord) -> Result<(), Error> {
        if may_restart(&record.config) {
            self.containers.set_stopped(&record.id, true)?;
        }
        Ok(())
    }

    /// Gives a container another name.
    pub fn rename(&self, record: &ContainerRecord, name: &str) -> Result<(), Error> {
        self.containers.rename(&record.id, name)?;
        self.note(Event { name: name.to_owned(), ..Event::container("rename", record) });
        Ok(())
    }

    /// Tells a container's monitor something, if it has one.
    pub(super) fn tell_monitor(&self, id: &ContainerId, request: &Request<'_>) {
        if let Ok(monitor) = crate::monitor::connect(&self.containers.attach_socket(id)) {
            let mut packet = Vec::new();
            request.encode(&mut packet);
            let _ = rustix::net::send(&monitor, &packet, rustix::net::SendFlags::NOSIGNAL);
        }
    }

    /// Asks the container to end, and after `timeout` makes it. Says whether it was running.
    pub fn stop(&self, id: &ContainerId, mut timeout: Option<u64>) -> Result<bool, Error> {
        let (record, status) = self.load(id)?;
        let state = match status {
            Status::Running(state) | Status::Stopping(state) => state,
            Status::Initialized(state) => {
                // Who has not begun has nothing to tidy up, and no handler for a signal.
                timeout = Some(0);
                state
            }
            Status::Restarting(_) => {
                self.note_stop(&record)?;
                self.tell_monitor(id, &Request::Stop);
                // It may have been about to start it: then there is a program to end.
                self.settle(id)?;
                self.stop(id, timeout)?;
                return Ok(true);
            }
            Status::Paused(_) => return Err(Error::Paused(record.name)),
            Status::Created | Status::Exited(_) => return Ok(false),
        };
        let name = &record.name;
        self.note_stop(&record)?;
        if let Some(pidfd) = open(&state) {
            let timeout = timeout.unwrap_or(record.config.stop_timeout);
            let failed = |signal: i32| {
                let name = name.clone();
                move |source| Error::Signal { name, signal: signal::name(signal), source }
            };
            let mut ended = false;
            if timeout > 0 {
                let signal = record.config.stop_signal;
                ignore_gone(process::pidfd_signal(pidfd.as_fd(), signal)).map_err(failed(signal))?;
                ended = wait_end(&pidfd, Some(Duration::from_secs(timeout)));
            }
            if !ended {
                ignore_gone(process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL))
                    .map_err(failed(libc::SIGKILL))?;
                if !wait_end(&pidfd, Some(KILL_PATIENCE)) {
                    let seconds = KILL_PATIENCE.as_secs();
                    return Err(Error::Unkillable { name: name.clone(), seconds });
                }
            }
        }
        self.note(Event::container("stop", &record));
        self.settle(id)?;
        Ok(true)
    }

    /// Waits until the monitor has done its last, and does it where there is none.
    fn settle(&self, id: &ContainerId) -> Result<(), Error> {
        match self.charge_unless_running(id) {
            Ok(Some(lock)) => drop(lock),
            // Somebody has started it again.
            Ok(None) | Err(Error::Containers(crate::storage::containers::Error::NotFound(_))) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if let Ok(record) = self.containers.record(id)
            && self.sweep_dead(id)?
        {
            self.delete(&self.containers.trash_of(id), &record);
        }
        Ok(())
    }

    /// Removes a container; a running one only by `force`, after `timeout` seconds of asking.
    pub fn remove(&self, id: &ContainerId, force: bool, timeout: Option<u64>) -> Result<(), Error> {
        loop {
            let (record, status) = match self.load(id) {
                // It went by itself.
                Err(Error::Containers(crate::storage::containers::Error::NotFound(_))) => return Ok(()),
                other => other?,
            };
            self.check_unneeded(id, &record.name)?;
            if status.is_up() || matches!(status, Status::Stopping(_)) {
                if !force && status.is_up() && !matches!(status, Status::Initialized(_)) {
                    return Err(Error::Running(record.name));
                }
                if let Status::Paused(state) = &status {
                    end_paused(&record, state)?;
                }
                self.stop(id, Some(timeout.unwrap_or(0)))?;
            }
            let _lock = match self.charge_unless_running(id) {
                Ok(Some(lock)) => lock,
                // Somebody has started it between the two.
                Ok(None) => continue,
                Err(Error::Containers(crate::storage::containers::Error::NotFound(_))) => return Ok(()),
                Err(error) => return Err(error),
            };
            let cgroup = self.containers.run_state(id).ok().flatten().and_then(|state| state.cgroup);
            let trash = self.containers.remove(&record)?;
            self.forget_mount(id);
            remove_cgroup(id, cgroup);
            self.note(Event::container("remove", &record));
            self.delete(&trash, &record);
            return Ok(());
        }
    }

    /// Is in charge as soon as nobody else is; none if the container runs or will run again, whose monitor
    /// is in charge to its end.
    pub fn charge_unless_running(&self, id: &ContainerId) -> Result<Option<Lock>, Error> {
        loop {
            let lock = self.containers.try_take_charge(id)?;
            let status = match &lock {
                Some(lock) => self.containers.status_in_charge(id, lock)?,
                None => self.containers.status(id)?,
            };
            if status.is_up() {
                return Ok(None);
            }
            if lock.is_some() {
                return Ok(lock);
            }
            match status {
                // Its monitor is at its last.
                Status::Stopping(_) => drop(self.containers.take_charge(id)?),
                // It is being made or started: a matter of milliseconds.
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Removes a container by force whose records cannot be read, as after a power cut.
    pub fn remove_unreadable(&self, text: &str) -> Result<(), Error> {
        let id = self.containers.find(text)?;
        // Its first process cannot be known any more, but its monitor, if there is one, knows it.
        self.tell_monitor(&id, &Request::Stop);
        self.tell_monitor(&id, &Request::Signal(libc::SIGKILL));
        let _lock = self.containers.take_charge(&id)?;
        let trash = self.containers.remove_unreadable(&id)?;
        remove_cgroup(&id, None);
        let mapping = (self.rung().kind != RungKind::Root).then(|| self.rung().mapping.clone());
        let _ = self.store.clone().with_mapping(mapping).discard(&trash);
        Ok(())
    }

    /// Removes the volumes that nobody gave a name and that were the container's alone.
    pub fn remove_anonymous_volumes(&self, record: &ContainerRecord) {
        for dir in volumes::anonymous(&self.paths.root, &record.config.mounts) {
            if !volumes::is_shared(&dir) {
                self.delete(&dir, record);
                let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                self.note(Event::new("volume", "remove", &name));
            }
        }
    }

    /// Waits until the container has ended; how it did.
    pub fn wait(&self, id: &ContainerId) -> Result<ExitRecord, Error> {
        loop {
            let (record, status) = self.load(id)?;
            match status {
                Status::Exited(exit) => return Ok(exit),
                Status::Initialized(state) | Status::Running(state) | Status::Paused(state) => {
                    // The monitor tells even of containers that are removed when they end.
                    if let Some(exit) = self.watch(&record, Some(&state))? {
                        return Ok(exit);
                    }
                }
                Status::Restarting(_) => {
                    if let Some(exit) = self.watch(&record, None)? {
                        return Ok(exit);
                    }
                }
                Status::Stopping(_) => drop(self.containers.take_charge(id)?),
                Status::Created => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Listens to the monitor until it tells of the end; none if it goes without a word.
    fn watch(&self, record: &ContainerRecord, state: Option<&RunState>) -> Result<Option<ExitRecord>, Error> {
        use crate::monitor::{connect, protocol::Event};
        let Ok(socket) = connect(&self.containers.attach_socket(&record.id)) else {
            match state.and_then(open) {
                Some(pidfd) => drop(wait_end(&pidfd, None)),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
            return Ok(None);
        };
        let mut packet = Vec::new();
        Request::Mute.encode(&mut packet);
        let _ = rustix::net::send(&socket, &packet, rustix::net::SendFlags::NOSIGNAL);
        let mut buffer = vec![0; crate::monitor::protocol::MAX_BODY + 1];
        loop {
            match rustix::net::recv(&socket, &mut *buffer, rustix::net::RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Ok((0, _)) | Err(_) => return Ok(None),
                Ok((length, _)) => {
                    if let Some(Event::Exited(code)) = Event::decode(&buffer[..length]) {
                        let exit = u8::try_from(code).map_or(Exit::Unknown, Exit::Code);
                        let started = state.map_or(0, |state| state.started);
                        return Ok(Some(ExitRecord::new(exit, started, crate::sys::host::now())));
                    }
                }
            }
        }
    }
}

/// Whether a container in such a state was left by a killed monitor. `goes`: it is removed when it ends.
fn is_left_behind(status: &Status, goes: bool, may_run: impl FnOnce() -> bool) -> bool {
    match status {
        Status::Exited(exit) => exit.exit == Exit::Unknown || may_run(),
        Status::Created => goes,
        _ => false,
    }
}

/// Ends a container that stands still: killed first, so that nothing of it runs again.
fn end_paused(record: &ContainerRecord, state: &RunState) -> Result<(), Error> {
    if let Some(pidfd) = open(state) {
        ignore_gone(process::pidfd_signal(pidfd.as_fd(), libc::SIGKILL)).map_err(|source| Error::Signal {
            name: record.name.clone(),
            signal: signal::name(libc::SIGKILL),
            source,
        })?;
    }
    if let Some(group) = &state.cgroup {
        // Gone with its last process, perhaps.
        let _ = crate::cgroup::freeze::thaw(group);
    }
    Ok(())
}

/// Removes a dead container's control group: the recorded one, or, if whoever made it died before
/// that, the one that it must have been.
fn remove_cgroup(id: &ContainerId, recorded: Option<std::path::PathBuf>) {
    if let Some(cgroup) = recorded.or_else(|| crate::cgroup::own_path(id.as_str()))
        && cgroup.exists()
    {
        // Processes that outlived the first one, as with --pid host, are part of what was left.
        let _ = crate::cgroup::kill(&cgroup).and_then(|()| crate::cgroup::remove(&cgroup));
    }
}

/// Whether its monitor may start a container again: by its restart policy, or because of its health whatever that
/// policy is, and perhaps at the moment in which somebody stops it.
pub(super) fn may_restart(config: &ContainerConfig) -> bool {
    config.restart != RestartPolicy::No || config.health.is_some()
}

/// The container's first process, if it is still the same.
pub fn open(state: &RunState) -> Option<OwnedFd> {
    process::open_alive(state.pid, state.start_time)
}

fn ignore_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        other => other,
    }
}

/// Waits for a process's end; false after `timeout`.
fn wait_end(pidfd: &OwnedFd, timeout: Option<Duration>) -> bool {
    let deadline = timeout.map(|timeout| std::time::Instant::now() + timeout);
    loop {
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, left.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => return true,
        }
    }
}
