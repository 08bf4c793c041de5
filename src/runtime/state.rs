//! What the OCI face keeps of a container: facts. Its status is derived from them and the kernel.
//!
//! `ROOT/ID/` holds `state.json`, a copy of `config.json` and, until the container is started, the
//! start gate `start.sock`. A directory without `state.json` is what a killed `create` left (its
//! init has ended with it) and is swept by whoever comes next; its `config.json`, the first file that
//! is written, tells where the control group is that may be left, too.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::CacheGroups;
use crate::cgroup::Unit;
use crate::sys::atomic::{self, Durability};
use crate::sys::lock::Lock;
use crate::sys::{host, process};

/// An error of the state directory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that cannot be a directory's.
    #[error("invalid container id \"{0}\"")]
    Id(String),
    /// Taken.
    #[error("container with given ID already exists: \"{0}\"")]
    Exists(String),
    /// Unknown.
    #[error("container \"{0}\" does not exist")]
    NotFound(String),
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
    /// Not written by us, or by a newer version.
    #[error("reading \"{}\"", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

/// The record of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Of this format: 1.
    pub format: u32,
    /// The configuration's `ociVersion`.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// Its init, as the host sees it.
    pub pid: i32,
    /// Field 22 of the init's `/proc/PID/stat`: another process with its pid is not it.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`: nothing runs over a reboot.
    pub boot_id: String,
    /// Absolute.
    pub bundle: PathBuf,
    /// Absolute.
    pub rootfs: PathBuf,
    /// RFC 3339.
    pub created: String,
    /// The configuration's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Its control group, if it has its own.
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// Its groups of resctrl, if any were made for it.
    #[serde(default, skip_serializing_if = "CacheGroups::is_empty")]
    pub cache: CacheGroups,
    /// Its rootfs, if without a mount namespace it is mounted in that of who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<PathBuf>,
    /// The systemd unit that the group belongs to, if systemd made it.
    #[serde(default)]
    pub unit: Option<Unit>,
    /// What its limits are since it was updated; before, those of its configuration.
    #[serde(default)]
    pub resources: Option<LinuxResources>,
}

/// What a container is doing (`runtime.md`, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Waiting at the start gate.
    Created,
    /// The program runs.
    Running,
    /// Its processes were told to stand still (runc's own word; the specification has none).
    Paused,
    /// It has ended.
    Stopped,
}

impl Status {
    /// The specification's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container's directory.
#[derive(Debug, Clone)]
pub struct Dir {
    path: PathBuf,
    id: String,
}

/// Whether `id` may name a container: runc's rule, which keeps it a file name.
pub fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-' | b'.');
    if !id.is_empty() && id.len() <= 1024 && id.bytes().all(allowed) && !matches!(id, "." | "..") {
        Ok(())
    } else {
        Err(Error::Id(id.to_owned()))
    }
}

impl Dir {
    /// Names the directory of container `id` below `root`.
    pub fn new(root: &Path, id: &str) -> Result<Self, Error> {
        check_id(id)?;
        Ok(Self { path: root.join(id), id: id.to_owned() })
    }

    /// Takes the id for a new container; the lock is to be held until the record is written.
    pub fn claim(root: &Path, id: &str) -> Result<(Self, Lock), Error> {
        let dir = Self::new(root, id)?;
        let path = &dir.path;
        let error = |action| move |source| Error::Io { action, path: path.clone(), source };
        std::fs::create_dir_all(root).map_err(error("creating"))?;
        match rustix::fs::mkdir(&dir.path, rustix::fs::Mode::RWXU) {
            Ok(()) => {}
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(error("creating")(e.into())),
        }
        let lock = Lock::try_exclusive(&dir.path).map_err(error("locking"))?;
        let lock = lock.ok_or_else(|| Error::Exists(id.to_owned()))?;
        if dir.file("state.json").exists() {
            return Err(Error::Exists(id.to_owned()));
        }
        // What a killed create left.
        let _ = std::fs::remove_file(dir.gate());
        let dir = Self { path: root.join(id), id: id.to_owned() };
        Ok((dir, lock))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory for sd_notify(3)'s socket.
    pub fn notify(&self) -> PathBuf {
        self.file("notify")
    }

    /// Where a restore may mount the rootfs for a while.
    pub fn scratch(&self) -> PathBuf {
        self.file("criu-root")
    }

    /// The start gate.
    pub fn gate(&self) -> PathBuf {
        self.file("start.sock")
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.file(name);
        let error = |source| Error::Io { action: "writing", path: path.clone(), source };
        atomic::write(&path, bytes, 0o600, Durability::Volatile).map_err(error)
    }

    /// Keeps the configuration as it was read, before anything is made: it tells where to look for
    /// what a killed `create` left.
    pub fn begin(&self, config: &[u8]) -> Result<(), Error> {
        self.put("config.json", config)
    }

    /// Records the container.
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        let text = serde_json::to_vec(record)
            .map_err(|source| Error::Parse { path: self.file("state.json"), source })?;
        self.put("state.json", &text)
    }

    /// Keeps others from changing the container while this one does.
    pub fn lock(&self) -> Result<Lock, Error> {
        Lock::exclusive_existing(&self.path).map_err(|source| Error::Io {
            action: "locking",
            path: self.path.clone(),
            source,
        })
    }

    /// Reads the record.
    pub fn read(&self) -> Result<Record, Error> {
        let path = self.file("state.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| Error::Parse { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NotFound(self.id.clone())),
            Err(source) => Err(Error::Io { action: "reading", path, source }),
        }
    }

    /// Reads the configuration that the container was made from.
    pub fn config(&self) -> Result<Vec<u8>, Error> {
        let path = self.file("config.json");
        std::fs::read(&path).map_err(|source| Error::Io { action: "reading", path, source })
    }

    /// What the container is doing, and a pidfd of its init if that lives.
    pub fn status(&self, record: &Record) -> Result<(Status, Option<OwnedFd>), Error> {
        let Some(pidfd) = running(record) else { return Ok((Status::Stopped, None)) };
        // A created container may be paused too, and is then told as paused.
        let paused = record.cgroup.as_deref().is_some_and(crate::cgroup::freeze::is_frozen);
        let status = match (paused, self.gate().exists()) {
            (true, _) => Status::Paused,
            (false, true) => Status::Created,
            (false, false) => Status::Running,
        };
        Ok((status, Some(pidfd)))
    }

    /// Notes that the container was started.
    pub fn mark_started(&self) {
        // If this fails the gate answers to nobody all the same.
        let _ = std::fs::remove_file(self.gate());
    }

    /// The name of the user who made the container, or the number where there is no name.
    pub fn owner(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        let Ok(uid) = std::fs::metadata(&self.path).map(|m| m.uid()) else { return String::new() };
        let file = std::fs::read("/etc/passwd").unwrap_or_default();
        let user = crate::security::passwd::users(&file).find(|user| user.uid == uid);
        user.and_then(|user| String::from_utf8(user.name).ok()).unwrap_or_else(|| uid.to_string())
    }

    /// Forgets the container.
    pub fn remove(&self) -> Result<(), Error> {
        // The record first: what remains of a killed removal is rubbish that claim() takes over.
        let _ = std::fs::remove_file(self.file("state.json"));
        match std::fs::remove_dir_all(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { action: "removing", path: self.path.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// Whether anything has this name, also what a killed create left.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }
}

/// A pidfd of the record's init, if that very process lives.
fn running(record: &Record) -> Option<OwnedFd> {
    if record.boot_id != host::boot_id() {
        return None;
    }
    process::open_alive(record.pid, record.start_time)
}

/// The ids of all recorded containers, sorted.
pub fn list(root: &Path) -> Result<Vec<String>, Error> {
    let entries = match std::fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| Error::Io { action: "listing", path: root.to_owned(), source })?,
    };
    let mut ids: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|id| check_id(id).is_ok() && root.join(id).join("state.json").exists())
        .collect();
    ids.sort();
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for good in ["a", "a+b", "-x", "A_1.2"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ä"] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn records_round_trip_and_ids_are_taken_once() {
        let root = std::env::temp_dir().join(format!("umiak-state-{:x}", atomic::random().unwrap()));
        let (dir, lock) = Dir::claim(&root, "c").unwrap();
        assert!(matches!(Dir::claim(&root, "c"), Err(Error::Exists(_))));
        let record = Record {
            format: 1,
            oci_version: "1.0.2".into(),
            id: "c".into(),
            pid: std::process::id() as i32,
            start_time: 1,
            boot_id: host::boot_id().to_owned(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: String::new(),
            annotations: BTreeMap::new(),
            cgroup: None,
            cache: CacheGroups::default(),
            outside: None,
            unit: None,
            resources: None,
        };
        dir.begin(b"{}").unwrap();
        dir.write(&record).unwrap();
        drop(lock);
        assert!(matches!(Dir::claim(&root, "c"), Err(Error::Exists(_))));
        assert_eq!(dir.read().unwrap(), record);
        // A recycled pid is not the container.
        assert_eq!(dir.status(&record).unwrap().0, Status::Stopped);
        let own = Record { start_time: process::start_time(record.pid).unwrap(), ..record };
        assert_eq!(dir.status(&own).unwrap().0, Status::Running);
        assert_eq!(list(&root).unwrap(), ["c"]);
        dir.remove().unwrap();
        assert!(matches!(dir.read(), Err(Error::NotFound(_))));
        std::fs::remove_dir_all(root).unwrap();
    }
}
