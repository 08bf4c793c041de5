//! Containers on disk: what was asked for, what happened, and who is in charge.
//!
//! ```text
//! containers/<id>/record.json   what was asked for; written anew only by `rename` and `update`. Two lines: what
//!                               lists show of it, and all of it
//!                 exit          how it ended, as the target of a link; absent while it runs or was never
//!                               started (`exit.json` where it is too long for a link)
//!                 ctr.log       output, k8s-file format
//!                 diff/ work/   upper and work directory of the overlay
//!                 stopped       there if its user has stopped it: the restart policy is over
//!                 health.json   what its health checks have found
//!                 state.json    facts of its last run, with the boot id: they outlive a reboot only
//!                               to tell that an end was not seen
//! <runroot>/containers/<id>/attach.sock   there from start to end: what may be running
//! ```
//!
//! Whoever is in charge of a container, the creating command and then its monitor, holds a flock
//! on its directory: the kernel drops it when they die. Status is derived from these and from the kernel, never stored ([`Containers::status`]).

mod asked;
mod brief;
mod exit;
mod health;
mod limits;
mod network;
mod record;

pub use asked::*;
pub use brief::*;
pub use exit::*;
pub use health::*;
pub use limits::*;
pub use network::*;
pub use record::*;

use std::fs::{self, DirBuilder};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::names::Names;
use crate::base::id::ContainerId;
use crate::sys::atomic::{self, Durability, Written};
use crate::sys::lock::Lock;
use crate::sys::{host, process};

/// The format version of every record here; a higher one is refused.
const VERSION: u32 = 1;
/// The directory beside a container's record with a file for each container that needs it.
const DEPENDENTS: &str = "dependents";

/// What goes wrong with a container's records.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory could not be read, written or removed.
    #[error("{action} \"{}\"", path.display())]
    Io {
        /// What was being done, as "reading".
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A record is not what it should be.
    #[error("reading the record \"{}\"", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A record was written by a later version.
    #[error("the record \"{}\" has format version {version}, this program knows {VERSION}", path.display())]
    Version {
        /// Which file.
        path: PathBuf,
        /// The version found.
        version: u32,
    },
    /// No container answers to the name or id.
    #[error("no container with name or ID \"{0}\" found: no such container")]
    NotFound(String),
    /// The beginning of an id or a name fits several containers.
    #[error("more than one container's name or ID begins with \"{0}\"")]
    Ambiguous(String),
    /// The name belongs to another container.
    #[error(
        "the container name \"{name}\" is already in use by {id}: that container has to be removed to reuse the name"
    )]
    NameInUse {
        /// The name.
        name: String,
        /// Whose it is.
        id: ContainerId,
    },
}

/// The file of a container's record.
const RECORD: &str = "record.json";

/// Every container of one store.
#[derive(Clone, Debug)]
pub struct Containers {
    root: PathBuf,
    runroot: PathBuf,
    /// `containers/`, for who reads many records: the kernel need not walk to it for each.
    near: Option<Arc<OwnedFd>>,
}

/// A container that has just been made; the lock says that somebody is in charge of it.
#[derive(Debug)]
pub struct Created {
    /// Held by the maker, and by the monitor that is forked from it.
    pub lock: Lock,
}

/// The facts of a run that has not begun. Forgotten when it is dropped.
#[derive(Debug)]
pub struct PreparedState {
    written: Written,
    path: PathBuf,
}

impl PreparedState {
    /// From now on they are the facts.
    pub fn publish(self) -> Result<(), Error> {
        let Self { written, path } = self;
        written.publish().map_err(|source| Error::Io { action: "writing", path, source })
    }
}

impl Containers {
    /// The containers of the store at `root` with its volatile side at `runroot`.
    pub fn new(root: &Path, runroot: &Path) -> Self {
        Self { root: root.to_owned(), runroot: runroot.to_owned(), near: None }
    }

    /// The same for who is about to read many records.
    pub fn near(&self) -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Without it the paths lead there.
        let near = rustix::fs::open(self.root.join("containers"), flags, Mode::empty()).ok();
        Self { near: near.map(Arc::new), ..self.clone() }
    }

    /// Reads a record of a container; none if it is not there.
    fn read<T: DeserializeOwned>(&self, id: &ContainerId, name: &str) -> Result<Option<T>, Error> {
        self.read_line(id, name, Line::Only)
    }

    fn read_line<T: DeserializeOwned>(
        &self,
        id: &ContainerId,
        name: &str,
        line: Line,
    ) -> Result<Option<T>, Error> {
        let path = || self.dir(id).join(name);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let opened = match &self.near {
            Some(near) => rustix::fs::openat(near, &*[id.as_str(), "/", name].concat(), flags, Mode::empty()),
            None => rustix::fs::open(path(), flags, Mode::empty()),
        };
        match opened {
            Ok(file) => parse(file, &path, line),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::Io { action: "reading", path: path(), source: errno.into() }),
        }
    }

    /// `containers/<id>`.
    pub fn dir(&self, id: &ContainerId) -> PathBuf {
        self.root.join("containers").join(id.as_str())
    }

    /// `<runroot>/containers/<id>`.
    pub fn run_dir(&self, id: &ContainerId) -> PathBuf {
        self.runroot.join("containers").join(id.as_str())
    }

    /// The socket that `attach` connects to.
    pub fn attach_socket(&self, id: &ContainerId) -> PathBuf {
        self.run_dir(id).join("attach.sock")
    }

    /// The file of the container's output.
    pub fn log_path(&self, record: &ContainerRecord) -> PathBuf {
        record.config.log.path.clone().unwrap_or_else(|| self.dir(&record.id).join("ctr.log"))
    }

    /// Removes names that killed processes left without a container.
    pub fn sweep_names(&self) -> Result<(), Error> {
        self.names().sweep(|name, id| self.has_name(id, name))
    }

    /// Whether a name's file tells the truth. Not, where somebody died while renaming the container.
    fn has_name(&self, id: &ContainerId, name: &str) -> bool {
        self.dir(id).exists() && self.record(id).map_or(true, |record| record.name == name)
    }

    /// Gives a container another name; returns the old one. The new name is claimed, then recorded,
    /// then the old one is freed: whoever dies in between leaves a name that is nobody's.
    pub fn rename(&self, id: &ContainerId, name: &str) -> Result<String, Error> {
        let names = self.names();
        let (record, _serial) = self.record_alone(id)?;
        if record.name == name {
            return Ok(record.name);
        }
        let _claim = loop {
            match names.claim(name, id, |owner| owner != id && self.has_name(owner, name))? {
                Ok(claim) => break claim,
                Err(owner) if self.sweep_dead(&owner)? => {}
                Err(owner) => return Err(Error::NameInUse { name: name.to_owned(), id: owner }),
            }
        };
        let renamed = ContainerRecord { name: name.to_owned(), ..record.clone() };
        let written = write_record(&self.dir(id), &renamed, Durability::Synced);
        if written.is_err() {
            let _ = names.release(name, id);
        }
        written?;
        names.release(&record.name, id)?;
        Ok(record.name)
    }

    /// A container's record, for one who changes it: all who do, do it one after the other, by the lock of
    /// the name.
    fn record_alone(&self, id: &ContainerId) -> Result<(ContainerRecord, Option<Lock>), Error> {
        loop {
            let name = self.record(id)?.name;
            let path = self.root.join("names").join(&name);
            let lock = match Lock::exclusive_existing(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Io { action: "locking", path, source });
                }
                other => other.ok(),
            };
            let record = self.record(id)?;
            if record.name == name {
                return Ok((record, lock));
            }
        }
    }

    /// Writes a container's record anew as `change` makes it.
    pub fn change<E: From<Error>>(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut ContainerRecord) -> Result<(), E>,
    ) -> Result<ContainerRecord, E> {
        let (mut record, _serial) = self.record_alone(id)?;
        change(&mut record)?;
        write_record(&self.dir(id), &record, Durability::Synced)?;
        Ok(record)
    }

    fn names(&self) -> Names {
        Names::new(&self.root.join("names"))
    }

    /// Publishes a new container: its name, then its directory with the record. Whoever dies in
    /// between leaves a name without a container, which the next one to want it takes over.
    pub fn create(&self, record: &ContainerRecord, durability: Durability) -> Result<Created, Error> {
        let _claim = loop {
            match self.names().claim(&record.name, &record.id, |id| self.has_name(id, &record.name))? {
                Ok(claim) => break claim,
                Err(id) if self.sweep_dead(&id)? => {}
                Err(id) => return Err(Error::NameInUse { name: record.name.clone(), id }),
            }
        };
        let result = self.publish(record, durability);
        if result.is_err() {
            let _ = self.names().release(&record.name, &record.id);
        }
        result
    }

    fn publish(&self, record: &ContainerRecord, durability: Durability) -> Result<Created, Error> {
        let staging = self.root.join("staging").join(format!("container-{}", record.id));
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        let lock = Lock::new_directory(&staging, 0o700).map_err(io("making", &staging))?;
        let result = (|| {
            for name in ["diff", "work"] {
                let path = staging.join(name);
                // The container's root looks at this mode when it looks at "/".
                DirBuilder::new().mode(0o755).create(&path).map_err(io("making", &path))?;
            }
            write_record(&staging, record, durability)?;
            let dir = self.dir(&record.id);
            fs::rename(&staging, &dir).map_err(io("publishing", &dir))?;
            if durability == Durability::Synced {
                let parent = self.root.join("containers");
                atomic::sync_dir(&parent).map_err(io("syncing", &parent))?;
            }
            Ok(Created { lock })
        })();
        if result.is_err() {
            let _ = fs::remove_dir_all(&staging);
        }
        result
    }

    /// Reads a container's record.
    pub fn record(&self, id: &ContainerId) -> Result<ContainerRecord, Error> {
        let record: Option<ContainerRecord> = self.read_line(id, RECORD, Line::Last)?;
        let record = record.ok_or_else(|| Error::NotFound(id.to_string()))?;
        check_version(record.version, &|| self.dir(id).join(RECORD))?;
        Ok(record)
    }

    /// The ids of all containers, in no order.
    pub fn ids(&self) -> Result<Vec<ContainerId>, Error> {
        list_ids(&self.root.join("containers"))
    }

    /// Notes that container `id`, which is about to be made, needs `other`.
    pub fn add_dependent(&self, other: &ContainerId, id: &ContainerId) -> Result<(), Error> {
        let dir = self.dir(other).join(DEPENDENTS);
        let noted = match fs::DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => fs::File::create(dir.join(id.as_str())).map(drop),
        };
        match noted {
            // It has just been removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound(other.to_string())),
            other => other.map_err(|source| Error::Io { action: "writing", path: dir, source }),
        }
    }

    /// The containers that need this one.
    pub fn dependents(&self, of: &ContainerId) -> Result<Vec<ContainerId>, Error> {
        let mut ids = list_ids(&self.dir(of).join(DEPENDENTS))?;
        // Those that are gone need nothing.
        ids.retain(|id| self.dir(id).exists());
        Ok(ids)
    }

    /// The ids of the containers that may be running: a number that does not grow with the
    /// stopped ones.
    pub fn live_ids(&self) -> Result<Vec<ContainerId>, Error> {
        list_ids(&self.runroot.join("containers"))
    }

    /// Finds a container by its name, its id or the beginning of its id.
    pub fn find(&self, text: &str) -> Result<ContainerId, Error> {
        if let Ok(id) = text.parse::<ContainerId>()
            && self.dir(&id).exists()
        {
            return Ok(id);
        }
        if crate::base::id::check_name(text).is_ok()
            && let Some(id) = self.names().get(text)?
            && self.dir(&id).exists()
        {
            return Ok(id);
        }
        if text.is_empty() || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(Error::NotFound(text.to_owned()));
        }
        let mut fitting = self.ids()?.into_iter().filter(|id| id.as_str().starts_with(text));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => Ok(id),
            (None, _) => Err(Error::NotFound(text.to_owned())),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
        }
    }

    /// Finds a container by the beginning of its name, if it is the only one of which that holds.
    pub fn find_by_prefix(&self, text: &str) -> Result<ContainerId, Error> {
        let mut fitting = self.all_names()?.into_iter().filter(|name| name.starts_with(text));
        match (fitting.next().filter(|_| !text.is_empty()), fitting.next()) {
            (Some(name), None) => self.find(&name),
            (None, _) => Err(Error::NotFound(text.to_owned())),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
        }
    }

    /// All names, for "did you mean".
    pub fn all_names(&self) -> Result<Vec<String>, Error> {
        self.names().list()
    }

    /// Records that the container's first process runs.
    pub fn write_state(&self, id: &ContainerId, state: &RunState) -> Result<(), Error> {
        self.prepare_state(id, state)?.publish()
    }

    /// Writes them for a moment that is still to come.
    pub fn prepare_state(&self, id: &ContainerId, state: &RunState) -> Result<PreparedState, Error> {
        let path = self.dir(id).join("state.json");
        let bytes = to_bytes(&path, state)?;
        match Written::new(&path, &bytes, 0o600) {
            Ok(written) => Ok(PreparedState { written, path }),
            Err(source) => Err(Error::Io { action: "writing", path, source }),
        }
    }

    /// Notes that the container's user has stopped it, which ends its restart policy, or takes that back.
    pub fn set_stopped(&self, id: &ContainerId, stopped: bool) -> Result<(), Error> {
        let path = self.dir(id).join("stopped");
        let result = if stopped { fs::File::create(&path).map(drop) } else { fs::remove_file(&path) };
        match result {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { action: "noting the stop in", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Whether the container's user has stopped it.
    pub fn is_stopped(&self, id: &ContainerId) -> bool {
        self.dir(id).join("stopped").exists()
    }

    /// What the container's health checks have found; none without checks, or before the first start.
    pub fn health(&self, id: &ContainerId) -> Result<Option<HealthRecord>, Error> {
        self.read(id, "health.json")
    }

    /// Records what the health checks have found.
    pub fn write_health(&self, id: &ContainerId, health: &HealthRecord) -> Result<(), Error> {
        write(&self.dir(id).join("health.json"), health, Durability::Volatile)
    }

    /// The facts of the container's run, of this boot or another.
    pub fn run_state(&self, id: &ContainerId) -> Result<Option<RunState>, Error> {
        self.read(id, "state.json")
    }

    /// What the container is doing: its records held against the kernel. A start removes the
    /// record of an earlier end first, so one that is there is the last word.
    pub fn status(&self, id: &ContainerId) -> Result<Status, Error> {
        self.status_among(id, &|| self.in_charge(id))
    }

    /// The same for who is in charge, so that nobody else is.
    pub fn status_in_charge(&self, id: &ContainerId, _charge: &Lock) -> Result<Status, Error> {
        self.status_among(id, &|| Ok(false))
    }

    fn status_among(
        &self,
        id: &ContainerId,
        in_charge: &dyn Fn() -> Result<bool, Error>,
    ) -> Result<Status, Error> {
        if let Some(exit) = self.exit(id)? {
            // Only who is there can start it again.
            let again = exit.again && in_charge()?;
            return Ok(if again { Status::Restarting(exit) } else { Status::Exited(exit) });
        }
        let state = match self.run_state(id) {
            Ok(Some(state)) => state,
            Ok(None) => return Ok(Status::Created),
            // A power cut may leave it empty; the run is over then.
            Err(Error::Damaged { .. }) if !in_charge()? => {
                return Ok(Status::Exited(ExitRecord::new(Exit::Unknown, 0, host::now())));
            }
            Err(error) => return Err(error),
        };
        let same_boot = state.boot_id == host::boot_id();
        if same_boot && process::is_alive(state.pid, state.start_time) {
            return Ok(if state.held { Status::Initialized(state) } else { Status::Running(state) });
        }
        let in_charge = in_charge()?;
        // The monitor may have written the record between the two looks.
        if let Some(exit) = self.exit(id)? {
            return Ok(Status::Exited(exit));
        }
        if in_charge {
            return Ok(Status::Stopping(state));
        }
        Ok(Status::Exited(ExitRecord::new(Exit::Unknown, state.started, host::now())))
    }

    /// Whether somebody, the creating command or the monitor, is in charge of the container.
    pub fn in_charge(&self, id: &ContainerId) -> Result<bool, Error> {
        let path = self.dir(id);
        match Lock::try_exclusive_existing(&path) {
            Ok(lock) => Ok(lock.is_none()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(Error::Io { action: "locking", path, source }),
        }
    }

    /// Waits until nobody is in charge, and is in charge then.
    pub fn take_charge(&self, id: &ContainerId) -> Result<Lock, Error> {
        let path = self.dir(id);
        let lock = match Lock::exclusive_existing(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                return Err(Error::NotFound(id.to_string()));
            }
            other => other.map_err(|source| Error::Io { action: "locking", path: path.clone(), source })?,
        };
        // While we waited, who was in charge may have removed it.
        if path.exists() { Ok(lock) } else { Err(Error::NotFound(id.to_string())) }
    }

    /// Is in charge if nobody else is now.
    pub fn try_take_charge(&self, id: &ContainerId) -> Result<Option<Lock>, Error> {
        let path = self.dir(id);
        match Lock::try_exclusive_existing(&path) {
            Ok(Some(lock)) if !lock.is_at(&path) => Err(Error::NotFound(id.to_string())),
            Ok(lock) => Ok(lock),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(Error::NotFound(id.to_string())),
            Err(source) => Err(Error::Io { action: "locking", path, source }),
        }
    }

    /// Makes the volatile directory of a container about to start.
    pub fn prepare_run_dir(&self, id: &ContainerId) -> Result<(), Error> {
        let path = self.run_dir(id);
        let _ = fs::remove_dir_all(&path);
        mkdir(&path).map_err(|source| Error::Io { action: "making", path, source })
    }

    /// Finishes what a killed monitor left: an end that nobody saw is recorded as unknown, and a
    /// container that should go when it ends is removed. Says whether it removed the container.
    pub fn sweep_dead(&self, id: &ContainerId) -> Result<bool, Error> {
        let Ok(Some(lock)) = Lock::try_exclusive_existing(&self.dir(id)) else { return Ok(false) };
        let record = match self.record(id) {
            Err(Error::NotFound(_)) => return Ok(true),
            other => other?,
        };
        let status = self.status_in_charge(id, &lock)?;
        if status.running().is_some() {
            return Ok(false);
        }
        if record.config.auto_remove && !(record.waits && status == Status::Created) {
            self.remove(&record)?;
            return Ok(true);
        }
        if let Status::Exited(exit) = &status
            && self.run_dir(id).exists()
        {
            self.write_exit(id, exit, Durability::Synced)?;
            let _ = fs::remove_dir_all(self.run_dir(id));
        }
        Ok(false)
    }

    /// Takes the container off the lists: its directory goes into the trash, its name is free.
    /// The caller is in charge of it and empties the trash afterwards ([`Containers::trash_of`]).
    pub fn remove(&self, record: &ContainerRecord) -> Result<PathBuf, Error> {
        let dir = self.dir(&record.id);
        let trash = self.trash_of(&record.id);
        match fs::rename(&dir, &trash) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { action: "removing", path: dir, source });
            }
            _ => {}
        }
        if !self.names().release(&record.name, &record.id)? {
            // Renamed since the caller read the record.
            self.names().sweep(|name, id| id != &record.id && self.has_name(id, name))?;
        }
        let _ = fs::remove_dir_all(self.run_dir(&record.id));
        let marks = &record.config.marks;
        if let Some(path) = &marks.cidfile
            && fs::read_to_string(path).is_ok_and(|id| id.trim() == record.id.as_str())
        {
            // Whoever asked for it may have taken it away.
            let _ = fs::remove_file(path);
        }
        Ok(trash)
    }

    /// Takes a container off the lists whose record cannot be read: all names that are its own go.
    pub fn remove_unreadable(&self, id: &ContainerId) -> Result<PathBuf, Error> {
        for name in self.names().list()? {
            self.names().release(&name, id)?;
        }
        let dir = self.dir(id);
        let trash = self.trash_of(id);
        fs::rename(&dir, &trash).map_err(|source| Error::Io { action: "removing", path: dir, source })?;
        let _ = fs::remove_dir_all(self.run_dir(id));
        Ok(trash)
    }

    /// Where a removed container's files wait for their deletion.
    pub fn trash_of(&self, id: &ContainerId) -> PathBuf {
        self.root.join("trash").join(format!("container-{id}"))
    }
}

fn mkdir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).recursive(true).create(path)
        }
        other => other,
    }
}

fn list_ids(dir: &Path) -> Result<Vec<ContainerId>, Error> {
    let error = |source| Error::Io { action: "listing", path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(error)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        if let Some(id) = entry.map_err(error)?.file_name().to_str().and_then(|name| name.parse().ok()) {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Which line of a file is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    /// There is only one.
    Only,
    First,
    Last,
}

/// Reads a small file with as few system calls as can be: lists read hundreds.
fn parse<T: DeserializeOwned>(
    file: OwnedFd,
    path: &dyn Fn() -> PathBuf,
    line: Line,
) -> Result<Option<T>, Error> {
    use std::io::Read;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
    let mut whole = Vec::new();
    let failed = |source| Error::Io { action: "reading", path: path(), source };
    let (mut bytes, rest) = rustix::io::read(&file, &mut buffer).map_err(|errno| failed(errno.into()))?;
    if rest.is_empty() && !(line == Line::First && bytes.contains(&b'\n')) {
        whole.extend_from_slice(bytes);
        fs::File::from(file).read_to_end(&mut whole).map_err(failed)?;
        bytes = &mut whole;
    }
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let wanted = match line {
        Line::Only => Some(&*bytes),
        Line::First => lines.next(),
        Line::Last => lines.next_back(),
    };
    serde_json::from_slice(wanted.unwrap_or_default())
        .map(Some)
        .map_err(|source| Error::Damaged { path: path(), source })
}

fn write<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<(), Error> {
    write_bytes(path, &to_bytes(path, value)?, durability)
}

/// Writes `record.json` in a container's directory.
fn write_record(dir: &Path, record: &ContainerRecord, durability: Durability) -> Result<(), Error> {
    let path = dir.join(RECORD);
    let brief = to_bytes(&path, &Brief::from(record))?;
    let bytes = [&brief[..], b"\n", &to_bytes(&path, record)?].concat();
    write_bytes(&path, &bytes, durability)
}

fn to_bytes<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|source| Error::Damaged { path: path.to_owned(), source })
}

fn write_bytes(path: &Path, bytes: &[u8], durability: Durability) -> Result<(), Error> {
    atomic::write(path, bytes, 0o600, durability).map_err(|source| Error::Io {
        action: "writing",
        path: path.to_owned(),
        source,
    })
}

/// For fields that are left out of a record.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn check_version(version: u32, path: &dyn Fn() -> PathBuf) -> Result<(), Error> {
    if version > VERSION { Err(Error::Version { path: path(), version }) } else { Ok(()) }
}

/// The version that new records carry.
pub fn record_version() -> u32 {
    VERSION
}
