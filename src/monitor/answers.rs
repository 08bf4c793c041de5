//! The process that answers system calls of a container, where something has been asked for that takes one
//! ([`crate::seccomp::answer`]). It is no thread of the monitor, which goes on forking; and it outlives the monitor,
//! for without it the container's programs would find calls missing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::remember::Remember;
use crate::base::idmap::IdRange;
use crate::base::report;
use crate::network::fast::{self, Fast, Seat};
use crate::network::plan::NetworkPlan;
use crate::seccomp::Told;
use crate::seccomp::answer::{self, Consumer};
use crate::storage::containers::ContainerRecord;
use crate::sys::process::{self, Child, CloneOptions};
use crate::sys::{daemon, socket};

/// In the container's volatile directory: where further processes of it hand their listeners in.
pub const DOOR: &str = "answers.sock";

/// Who answers calls of a container. For most nobody does. What they have to know is there only where they begin.
fn consumers(record: &ContainerRecord, seat: Option<Seat>) -> Vec<Box<dyn Consumer>> {
    let mut all: Vec<Box<dyn Consumer>> = Vec::new();
    if record.config.one_id.remembered {
        let only = |ranges: &[IdRange]| ranges.first().map_or(0, |range| range.container);
        let own = record.mapping.as_ref().map_or((0, 0), |ids| (only(&ids.uids), only(&ids.gids)));
        // First: it may fork, and others make threads when they begin.
        all.push(Box::new(Remember::new(own, !record.config.net.private.fast)));
    }
    if record.config.net.private.fast {
        all.push(Box::new(Fast::new(seat)));
    }
    all
}

/// The calls of a container that are answered by a process.
pub fn told(record: &ContainerRecord) -> Vec<Told> {
    consumers(record, None).iter().flat_map(|consumer| consumer.told()).collect()
}

/// Whether a container's processes have all their connections made for them.
pub fn connects(record: &ContainerRecord) -> bool {
    record.config.net.private.fast && fast::Guard::find().is_ok_and(|guard| guard == fast::Guard::Rules)
}

/// A connection with the process that answers the calls of a running container, to hand in the listener of a
/// further filter; none if nobody answers.
pub fn of_running(record: &ContainerRecord, run_dir: &Path) -> io::Result<Option<OwnedFd>> {
    match consumers(record, None).is_empty() {
        true => Ok(None),
        false => socket::connect(&run_dir.join(DOOR)).map(Some),
    }
}

/// The process. It ends with the last process of the container, and when this is dropped.
#[derive(Debug)]
pub struct Answers {
    child: Child,
    /// Where the container's network namespace is to be sent, if somebody waits for it.
    network: Option<OwnedFd>,
}

impl Answers {
    /// Forks it, if any calls of the container are answered; with the connection to hand in the first listener. The
    /// caller must be single-threaded. `plan`: what its network will be.
    pub fn start(
        record: &ContainerRecord,
        run_dir: &Path,
        plan: Option<&NetworkPlan>,
    ) -> io::Result<Option<(Self, OwnedFd)>> {
        let fast = plan.filter(|_| record.config.net.private.fast);
        let (seat, network) = fast.map(Seat::new).transpose()?.unzip();
        let mut keep: Vec<RawFd> = seat.iter().map(Seat::descriptor).collect();
        let consumers = consumers(record, seat);
        if consumers.is_empty() {
            return Ok(None);
        }
        let path = run_dir.join(DOOR);
        // Of the run before.
        let _ = std::fs::remove_file(&path);
        let door = socket::listen(&path, 0o600)?;
        let (ours, theirs) = socket::packet_pair()?;
        let options = CloneOptions { close: Some(ours.as_fd()), ..CloneOptions::default() };
        let child = process::spawn(options, || {
            // Among them are the container's lock, which says that somebody is in charge, and its gate.
            keep.extend([theirs.as_raw_fd(), door.as_raw_fd()]);
            daemon::close_fds_except(&keep);
            // Who looks into it could answer in its place.
            let hidden = process::set_undumpable();
            let end = hidden.and_then(|()| answer::serve(&theirs, Some(&door), consumers));
            if let Err(error) = &end {
                let _ = socket::send(&theirs, report::chain(error).as_bytes(), None);
            }
            u8::from(end.is_err())
        })?;
        Ok(Some((Self { child, network }, ours)))
    }
}

impl Answers {
    /// Gives those who wait for it the container's network namespace.
    pub fn tell_network(&mut self, namespace: impl AsFd) -> io::Result<()> {
        let Some(socket) = self.network.take() else { return Ok(()) };
        socket::send(&socket, b"net", Some(namespace.as_fd()))
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let _ = process::pidfd_signal(&self.child.pidfd, libc::SIGKILL);
        let _ = process::wait(&self.child.pidfd);
    }
}
