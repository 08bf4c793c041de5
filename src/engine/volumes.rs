//! Volumes: a directory each, made when first named or by `volume create`.
//!
//! ```text
//! volumes/<name>/_data         what is mounted
//!               volume.json    when and for whom it was made
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::volume_options::{Driver, VolumeOptions};
use super::{Engine, Error};
use crate::base::id::{ContainerId, check_name};
use crate::security::idmap::RungKind;
use crate::storage::containers::{self, DriverRecord, MountRecord};
use crate::storage::events::{Event, EventLog};
use crate::sys::atomic::{self, Durability};
use crate::sys::host;
use crate::sys::lock::Lock;

/// `volume.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Format version.
    pub version: u32,
    /// The volume's name.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// The container with which it goes, if it was never given a name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anonymous_of: Option<ContainerId>,
    /// What `volume create` was told.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it is, if it is no plain directory.
    #[serde(default, skip_serializing_if = "VolumeOptions::is_empty")]
    pub options: VolumeOptions,
}

impl Engine {
    /// Where the content of a volume lies.
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.volume_dir(name).join("_data")
    }

    fn volume_dir(&self, name: &str) -> PathBuf {
        self.paths.root.join("volumes").join(name)
    }

    /// Makes a volume; with `ignore` one that is there already will do.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: BTreeMap<String, String>,
        options: VolumeOptions,
        ignore: bool,
    ) -> Result<VolumeRecord, Error> {
        let name = match name {
            Some(name) => {
                check_name(name)?;
                name.to_owned()
            }
            None => random_name()?,
        };
        let record = VolumeRecord { labels, options, ..VolumeRecord::new(name, None) };
        if self.make_volume(&record)? || ignore { Ok(record) } else { Err(Error::VolumeExists(record.name)) }
    }

    /// Makes a volume of what its record says; says whether it was not there.
    fn make_volume(&self, record: &VolumeRecord) -> Result<bool, Error> {
        if let Driver::Filesystem(fstype, ..) = record.options.driver()
            && self.rung().kind != RungKind::Root
            && !matches!(fstype.as_str(), "tmpfs" | "ramfs")
        {
            return Err(Error::VolumeType { name: record.name.clone(), fstype });
        }
        let VolumeOptions { uid, gid, .. } = record.options;
        let owned = |data: &Path| {
            if uid.is_none() && gid.is_none() {
                return Ok(());
            }
            // Ids are those that a container sees.
            let give = || {
                std::os::unix::fs::chown(data, uid, gid)
                    .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
            };
            let action = "giving the volume to its owner:";
            let name = || record.name.clone();
            crate::sys::child::call(self.default_mapping().as_ref(), give)
                .map_err(|source| Error::FilesOfOthers { action, name: name(), source })?
                .map_err(|errno| Error::Files {
                    action,
                    name: name(),
                    source: io::Error::from_raw_os_error(errno),
                })
        };
        make(&self.paths.root, record, &owned)
    }

    /// Gives every volume among `mounts` its directory, and those without a name a name. Returns the
    /// directories that were made.
    pub(super) fn provide_volumes(
        &self,
        id: &ContainerId,
        mounts: &mut [MountRecord],
    ) -> Result<Vec<PathBuf>, Error> {
        let mut new = Vec::new();
        for mount in mounts.iter_mut().filter(|mount| mount.kind == "volume") {
            if mount.anonymous {
                mount.name = Some(random_name()?);
            }
            let name = mount.name.clone().unwrap_or_default();
            let data = self.volume_data(&name);
            mount.source = data.to_string_lossy().into_owned();
            let mut record = VolumeRecord::new(name.clone(), mount.anonymous.then(|| id.clone()));
            record.options = VolumeOptions::parse(&mount.volume_options, None, None)?;
            record.labels = mount.volume_labels.iter().filter_map(|label| split_label(label)).collect();
            if self.make_volume(&record)? {
                new.push(data);
            } else if let Some(there) = read(&self.volume_dir(&name), &name)? {
                record = there;
            }
            drive(mount, &record);
            let directory = matches!(mount.driver, None | Some(DriverRecord::Bind(_)));
            let file_system = matches!(mount.driver, Some(DriverRecord::Filesystem { .. }));
            if !directory && mount.overlay.is_some() || file_system && mount.subpath.is_some() {
                let what = if mount.overlay.is_some() { "O" } else { "subpath" };
                return Err(Error::VolumeMount { name, what });
            }
        }
        Ok(new)
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, Error> {
        let dir = self.paths.root.join("volumes");
        let error = |source| Error::File { action: "listing", path: dir.clone(), source };
        let entries = match fs::read_dir(&dir) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(error)?,
        };
        let mut volumes = Vec::new();
        for entry in entries {
            // Names are checked before they become a directory's.
            let Ok(name) = entry.map_err(error)?.file_name().into_string() else { continue };
            volumes.extend(read(&self.volume_dir(&name), &name)?);
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// The volume of this name, or the only one whose name begins so.
    pub fn volume(&self, text: &str) -> Result<VolumeRecord, Error> {
        if check_name(text).is_ok()
            && let Some(volume) = read(&self.volume_dir(text), text)?
        {
            return Ok(volume);
        }
        let mut volumes = self.volumes()?;
        volumes.retain(|volume| !text.is_empty() && volume.name.starts_with(text));
        match volumes.len() {
            0 => Err(Error::NoVolume(text.to_owned())),
            1 => Ok(volumes.remove(0)),
            _ => Err(Error::AmbiguousVolume(text.to_owned())),
        }
    }

    /// Which containers use which volume.
    pub fn volume_users(&self) -> Result<BTreeMap<String, Vec<ContainerId>>, Error> {
        let mut users: BTreeMap<String, Vec<ContainerId>> = BTreeMap::new();
        for id in self.containers.ids()? {
            let record = match self.containers.record(&id) {
                Err(containers::Error::NotFound(_)) => continue,
                // Unknown what it uses: nothing must be taken from it.
                other => other?,
            };
            let volumes = record.config.mounts.iter().filter(|mount| mount.kind == "volume");
            for name in volumes.filter_map(|mount| mount.name.clone()) {
                users.entry(name).or_default().push(id.clone());
            }
        }
        Ok(users)
    }

    /// Removes a volume that no container uses.
    pub fn remove_volume(&self, name: &str) -> Result<(), Error> {
        // A container is recorded, with what it uses, by who holds the lock together with others.
        let _lock = self.store.lock_exclusive()?;
        if let Some(user) = self.volume_users()?.get(name).and_then(|users| users.first()) {
            return Err(Error::VolumeInUse { name: name.to_owned(), user: user.to_string() });
        }
        let dir = self.volume_dir(name);
        if !dir.exists() {
            return Err(Error::NoVolume(name.to_owned()));
        }
        let mapping = self.default_mapping();
        self.store.clone().with_mapping(mapping).discard(&dir)?;
        self.note(Event::new("volume", "remove", name));
        Ok(())
    }
}

impl VolumeRecord {
    fn new(name: String, anonymous_of: Option<ContainerId>) -> Self {
        let (labels, options) = (BTreeMap::new(), VolumeOptions::default());
        Self { version: VERSION, name, created: host::now(), anonymous_of, labels, options }
    }
}

/// The format version of records; a higher one is refused.
const VERSION: u32 = 1;

/// A volume's record; none if the volume is not there.
fn read(dir: &Path, name: &str) -> Result<Option<VolumeRecord>, Error> {
    let path = dir.join("volume.json");
    let bytes = match fs::read(&path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound && dir.join("_data").is_dir() => {
            // A power cut may have taken the record, never the content.
            return Ok(Some(VolumeRecord { created: 0, ..VolumeRecord::new(name.to_owned(), None) }));
        }
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| Error::File { action: "reading", path: path.clone(), source })?,
    };
    match serde_json::from_slice::<VolumeRecord>(&bytes) {
        Ok(record) if record.version > VERSION => {
            let source = io::Error::new(io::ErrorKind::Unsupported, "it was written by a later version");
            Err(Error::File { action: "reading", path, source })
        }
        Ok(record) => Ok(Some(record)),
        Err(_) => Ok(Some(VolumeRecord { created: 0, ..VolumeRecord::new(name.to_owned(), None) })),
    }
}

fn random_name() -> Result<String, Error> {
    let mut random = [0; 32];
    atomic::fill_random(&mut random).map_err(Error::Random)?;
    Ok(ContainerId::from_random(random).to_string())
}

/// `NAME=VALUE`; without a value it is empty. None without a name.
pub fn split_label(label: &str) -> Option<(String, String)> {
    let (name, value) = label.split_once('=').unwrap_or((label, ""));
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

/// Writes what a volume's options make of it into its mount.
fn drive(mount: &mut MountRecord, record: &VolumeRecord) {
    let mut more = Vec::new();
    mount.driver = match record.options.driver() {
        Driver::Directory => None,
        Driver::Bind(path, words) => {
            let plain = ["bind", "rbind", "ro", "rw"];
            more =
                words.into_iter().filter(|word| *word == "ro" || !plain.contains(&word.as_str())).collect();
            Some(DriverRecord::Bind(path))
        }
        Driver::Overlay(lower, upper, work) => Some(DriverRecord::Overlay { lower, upper, work }),
        Driver::Filesystem(kind, source, words) => {
            more = words;
            Some(DriverRecord::Filesystem { kind, source })
        }
    };
    if mount.driver.is_some() {
        // What is in it is its own.
        mount.copy_up = matches!(&mount.driver, Some(DriverRecord::Filesystem { kind, .. }) if kind == "tmpfs")
            && mount.copy_up;
        mount.rw = mount.rw && !more.iter().any(|word| word == "ro");
        mount.options.extend(more);
    }
}

/// Makes a volume; says whether it was not there. `finish` does what is left to be done to its directory.
fn make(
    root: &Path,
    record: &VolumeRecord,
    finish: &dyn Fn(&Path) -> Result<(), Error>,
) -> Result<bool, Error> {
    let dir = root.join("volumes").join(&record.name);
    let data = dir.join("_data");
    if data.is_dir() {
        return Ok(false);
    }
    let error = |action, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| Error::File { action, path, source }
    };
    let staging =
        root.join("staging").join(format!("volume-{:016x}", atomic::random().map_err(Error::Random)?));
    // Says to whoever sweeps the staging area that somebody is at work here.
    let _lock = Lock::new_directory(&staging, 0o700).map_err(error("making", &staging))?;
    fs::create_dir(staging.join("_data")).map_err(error("making", &staging))?;
    // The container's root is mapped to its owner, and other ids inside must get in.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(staging.join("_data"), mode).map_err(error("making", &staging))?;
    finish(&staging.join("_data")).inspect_err(|_| drop(fs::remove_dir_all(&staging)))?;
    let bytes = serde_json::to_vec(record).map_err(Error::Json)?;
    let path = staging.join("volume.json");
    atomic::write(&path, &bytes, 0o600, Durability::Volatile).map_err(error("writing", &path))?;
    fs::create_dir_all(root.join("volumes")).map_err(error("making", &dir))?;
    match fs::rename(&staging, &dir) {
        Ok(()) => {
            EventLog::new(root).write(&[Event::new("volume", "create", &record.name)]);
            Ok(true)
        }
        // Somebody else made it at the same moment.
        Err(_) if data.is_dir() => {
            let _ = fs::remove_dir_all(&staging);
            Ok(false)
        }
        Err(source) => {
            let _ = fs::remove_dir_all(&staging);
            Err(Error::File { action: "making", path: dir, source })
        }
    }
}

/// The directories of a container's volumes that go with it, unless somebody else takes them as well.
pub fn anonymous(root: &Path, mounts: &[MountRecord]) -> Vec<PathBuf> {
    let own = mounts.iter().filter(|mount| mount.anonymous);
    own.filter_map(|mount| mount.name.as_ref()).map(|name| root.join("volumes").join(name)).collect()
}

/// Whether a volume, if this is one's directory, belongs to one container alone.
pub fn is_shared(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    matches!(read(dir, name), Ok(Some(VolumeRecord { anonymous_of: None, .. })))
}

/// Notes that volumes of one container are another's, too, and go with neither.
pub fn share(root: &Path, mounts: &[MountRecord]) -> Result<(), Error> {
    for mount in mounts.iter().filter(|mount| mount.kind == "volume" && !mount.anonymous) {
        let Some(name) = &mount.name else { continue };
        let dir = root.join("volumes").join(name);
        if let Some(record) = read(&dir, name)?.filter(|record| record.anonymous_of.is_some()) {
            let record = VolumeRecord { anonymous_of: None, ..record };
            let path = dir.join("volume.json");
            let bytes = serde_json::to_vec(&record).map_err(Error::Json)?;
            atomic::write(&path, &bytes, 0o600, Durability::Volatile).map_err(|source| Error::File {
                action: "writing",
                path,
                source,
            })?;
        }
    }
    Ok(())
}
