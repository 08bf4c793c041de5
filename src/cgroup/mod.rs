//! Control groups (L2): where a container's processes are tracked and limited (cgroups(7), version 2).
//!
//! On a pure v2 system and on a hybrid one (v2 at `/sys/fs/cgroup/unified`) a container gets a
//! group of its own wherever we may make one. Where not, it goes without, and says why; but a limit
//! that was asked for and cannot be set is an error. What becomes of each field of the
//! specification stands in docs/cgroups.md.

mod apply;
mod choice;
mod create;
mod devices;
pub mod freeze;
pub mod near;
mod resources;
pub mod stats;
mod systemd;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

pub use apply::{replace, update};
pub use choice::{Choice, Wish, choose, step_aside};
pub use create::{Group, Manager, Outcome, Request, Scope, adopt, create, own_path, place};
pub use systemd::{Error as SystemdError, Unit};
pub use tree::{Availability, Tree, availability, tree};

use crate::sys::{ids, userns};

/// An error about a control group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit was asked for that cannot be set here.
    #[error("cannot limit {resource}: {reason}")]
    Unavailable {
        /// What was to be limited.
        resource: String,
        /// Why not.
        reason: String,
    },
    /// A limit, or a group, was asked for that the caller cannot have here.
    #[error("cannot limit {resource}: {reason}")]
    Denied {
        /// What was to be limited.
        resource: String,
        /// Why not.
        reason: String,
        /// What would allow it.
        cure: Option<String>,
    },
    /// The group that is to be above a container's own.
    #[error("the parent control group \"{parent}\": {reason}")]
    Parent {
        /// As it was given.
        parent: String,
        /// Why it cannot be.
        reason: String,
        /// What would allow it.
        cure: Option<String>,
    },
    /// The caller's own group cannot be split.
    #[error("splitting our control group: {reason}")]
    Split {
        /// Why not.
        reason: String,
        /// What would allow it.
        cure: Option<String>,
    },
    /// A value that makes no sense.
    #[error("{resource}: {reason}")]
    Invalid {
        /// The field.
        resource: String,
        /// Why.
        reason: String,
    },
    /// The path cannot be used.
    #[error("cgroup path \"{}\": {reason}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The kernel refused.
    #[error("{action} \"{}\"", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// A controller cannot be handed down.
    #[error("cannot limit {resource}: enabling the controller \"{controller}\" in \"{}\"", path.display())]
    Enable {
        /// What was to be limited.
        resource: String,
        /// What it takes.
        controller: String,
        /// The group above.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A value was refused.
    #[error("cannot limit {resource}: writing \"{value}\" to \"{}\"", path.display())]
    Write {
        /// What was to be limited.
        resource: String,
        /// What to.
        value: String,
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The container uses more than it is to be limited to (`memory.checkBeforeUpdate`).
    #[error("{resource}: {limit} is not above the {usage} bytes in use")]
    InUse {
        /// What was to be limited.
        resource: &'static str,
        /// The new limit in bytes.
        limit: i64,
        /// What is used.
        usage: u64,
    },
    /// systemd, which was to make the group.
    #[error("the systemd cgroup manager")]
    Systemd(#[from] SystemdError),
    /// A container's processes did not stop.
    #[error("pausing \"{}\": its processes did not stop in time", path.display())]
    NotFrozen {
        /// The group.
        path: PathBuf,
    },
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let errno = |source: &io::Error| source.raw_os_error().unwrap_or(0);
        match self {
            Self::Denied { cure, .. } | Self::Parent { cure, .. } | Self::Split { cure, .. } => cure.clone(),
            Self::Enable { path, source, .. } if errno(source) == libc::EBUSY => Some(format!(
                "\"{}\" has processes of its own, and the kernel hands controllers only to the children of groups \
                 that have none: start it from a group of its own (systemd-run --user --scope -p Delegate=yes …), or use the \
                 systemd cgroup manager",
                path.display()
            )),
            Self::Enable { source, .. } | Self::Io { source, .. } | Self::Write { source, .. }
                if matches!(errno(source), libc::EACCES | libc::EPERM) && !is_real_root() =>
            {
                Some(DELEGATE.to_owned())
            }
            Self::Unavailable { reason, .. } if reason.contains("not delegated") => Some(DELEGATE.to_owned()),
            Self::Systemd(SystemdError::Connect { which: "user", .. }) => Some(
                "there is a user's systemd only where they are logged in, or loginctl enable-linger was done for them; it is \
                 found by $DBUS_SESSION_BUS_ADDRESS or $XDG_RUNTIME_DIR"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

const DELEGATE: &str = "an ordinary user limits containers only in a group that is delegated to them, with the controllers: \
     as root, put \"[Service]\\nDelegate=cpu cpuset io memory pids\" into /etc/systemd/system/user@.service.d/delegate.conf, \
     then log in anew";

fn io_error(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
    Error::Io { action, path: path.to_owned(), source: source.into() }
}

/// Root of the machine, not of a user namespace.
fn is_real_root() -> bool {
    ids::euid() == 0 && !userns::is_inside()
}

/// Writes one of a group's files, which must be there: creating one is refused with other errors.
fn write(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Moves a process into a group.
pub fn add(group: &Path, pid: i32) -> Result<(), Error> {
    let path = group.join("cgroup.procs");
    write(&path, &pid.to_string()).map_err(|e| io_error("writing", &path, e))
}

/// Moves a process into a group; or, where that takes none because it has handed its controllers on
/// (as systemd in a container does), to the process `beside`, in whatever group below that is.
pub fn add_or_beside(group: &Path, pid: i32, beside: i32) -> Result<(), Error> {
    match add(group, pid) {
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EBUSY) => {
            let found = tree().zip(tree::group_of(&beside.to_string()));
            let path = found.map(|(tree, relative)| tree.mount.join(relative));
            // What a container's init chose itself may only be a part of its own group.
            match path.filter(|path| path.starts_with(group)) {
                Some(path) => add(&path, pid),
                None => Err(io_error("writing", &group.join("cgroup.procs"), source)),
            }
        }
        other => other,
    }
}

/// As [`add_or_beside`]; where we may not move a process from where we are into a group of our systemd's, as from a
/// login's session (cgroups(7), "delegation containment"), that is asked to.
pub fn join(group: &Path, pid: i32, beside: i32) -> Result<(), Error> {
    match (add_or_beside(group, pid, beside), Unit::of(group)) {
        (Err(Error::Io { source, .. }), Some(unit))
            if matches!(source.raw_os_error(), Some(libc::EACCES | libc::EPERM)) =>
        {
            Ok(systemd::attach(&unit, pid)?)
        }
        (other, _) => other,
    }
}

/// Kills all processes of a control group by `cgroup.kill` (Linux 5.14), or one by one; one that is
/// gone is no error.
pub fn kill(cgroup: &Path) -> io::Result<()> {
    match write(&cgroup.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if !cgroup.exists() {
                return Ok(());
            }
            // Until none is left to make another one.
            for _ in 0..100 {
                let processes = processes(cgroup)?;
                if processes.is_empty() {
                    break;
                }
                signal_each(&processes, libc::SIGKILL);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(())
        }
        other => other,
    }
}

/// Sends a signal to each; one that ended meanwhile needs none.
pub fn signal_each(processes: &[i32], signal: i32) {
    for pid in processes {
        let _ = crate::sys::process::pidfd_open(*pid)
            .and_then(|pidfd| crate::sys::process::pidfd_signal(pidfd, signal));
    }
}

/// The processes of a group and of those below it, as the caller sees them, sorted.
pub fn processes(cgroup: &Path) -> io::Result<Vec<i32>> {
    let mut list = Vec::new();
    collect_processes(cgroup, &mut list)?;
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

/// What a group's `cgroup.procs` says.
fn numbers(text: &str) -> Vec<i32> {
    // Those of pid namespaces that the caller cannot see are told as 0.
    text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0).collect()
}

fn collect_processes(cgroup: &Path, into: &mut Vec<i32>) -> io::Result<()> {
    let text = match std::fs::read_to_string(cgroup.join("cgroup.procs")) {
        // A threaded group's processes are told by the group above.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => String::new(),
        other => other?,
    };
    into.extend(numbers(&text));
    for entry in std::fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            match collect_processes(&entry.path(), into) {
                // Removed just now.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Removes a container's group, and the unit that it belongs to if systemd made it. What still runs in
/// there is ended.
pub fn destroy(cgroup: &Path, unit: Option<&Unit>) -> Result<(), Error> {
    // Processes that outlived an init without a pid namespace of its own.
    let _ = kill(cgroup);
    let stopped = unit.map_or(Ok(()), systemd::stop);
    match remove(cgroup) {
        // A unit whose group is gone goes by itself; and a user's systemd may be gone with all it had.
        Ok(()) => Ok(()),
        Err(error) => {
            stopped?;
            Err(io_error("removing", cgroup, error))
        }
    }
}

/// Removes an empty control group and its children; one that is gone already is no error. Killed
/// processes leave a group some moments after they are dead, so it tries for half a second.
pub fn remove(cgroup: &Path) -> io::Result<()> {
    let mut pause = std::time::Duration::from_millis(1);
    loop {
        match remove_once(cgroup) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && pause.as_millis() < 256 => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            other => return other,
        }
    }
}

fn remove_once(cgroup: &Path) -> io::Result<()> {
    match rustix::fs::rmdir(cgroup) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::BUSY) => {}
        Err(error) => return Err(error.into()),
    }
    for entry in std::fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_once(&entry.path())?;
        }
    }
    Ok(rustix::fs::rmdir(cgroup)?)
}
