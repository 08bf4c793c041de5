//! The part of a container's record that lists show. Hundreds are read at a time, and most of a record, as its
//! environment and capabilities, is in no list: that part is a line of its own, the first of the file. Of a record that
//! has no such line the rest is skipped.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;

use rustix::fs::Stat;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::exit::Last;
use super::{
    ContainerConfig, ContainerRecord, Containers, Error, Line, MountRecord, NetworkDetails, NetworkMode,
    RECORD, RestartPolicy, RootfsSource, Status, check_version, is_default,
};
use crate::base::digest::Digest;
use crate::base::id::ContainerId;

/// A [`ContainerRecord`] with what lists show; the fields are named as there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are told there")]
pub struct Brief {
    version: u32,
    pub id: ContainerId,
    pub name: String,
    pub created: i64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub image_id: Option<Digest>,
    pub rootfs: BriefRootfs,
    #[serde(default, skip_serializing_if = "is_default")]
    pub waits: bool,
    pub config: BriefConfig,
}

/// A [`RootfsSource`] without its layers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are told there")]
pub enum BriefRootfs {
    Image { id: Digest, name: String },
    Directory(PathBuf),
}

/// A [`ContainerConfig`] with what lists show.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are told there")]
pub struct BriefConfig {
    #[serde(default, skip_serializing_if = "is_default")]
    pub entrypoint: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: NetworkMode,
    /// None says nothing: most have no networks, and hundreds that are empty take pages.
    #[serde(default, skip_serializing_if = "is_default")]
    net: Option<Box<NetworkDetails>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<BriefMount>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: RestartPolicy,
    #[serde(default, skip_serializing_if = "is_default")]
    pub auto_remove: bool,
    /// Of `marks`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub build: bool,
    /// Only whether there is one.
    #[serde(default, deserialize_with = "is_there", skip_serializing_if = "is_default")]
    health: bool,
}

/// A [`MountRecord`] with what lists show.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "they are told there")]
pub struct BriefMount {
    #[serde(default, skip_serializing_if = "is_default")]
    pub name: Option<String>,
    pub source: String,
    pub destination: String,
}

fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(deserializer).map(|value| value.is_some())
}

impl Brief {
    /// The image's name; the directory of `--rootfs`.
    pub fn image_name(&self) -> Cow<'_, str> {
        match &self.rootfs {
            BriefRootfs::Image { name, .. } => name.into(),
            BriefRootfs::Directory(path) => path.to_string_lossy(),
        }
    }
}

impl BriefConfig {
    /// The program and its arguments.
    pub fn args(&self) -> impl Iterator<Item = &str> {
        self.entrypoint.iter().chain(&self.command).map(String::as_str)
    }

    /// What was asked for of its network.
    pub fn net(&self) -> &NetworkDetails {
        static NONE: LazyLock<NetworkDetails> = LazyLock::new(NetworkDetails::default);
        self.net.as_deref().unwrap_or(&NONE)
    }

    /// Whether it has health checks.
    pub fn has_health_checks(&self) -> bool {
        self.health
    }
}

/// What lists show of a record, and of which file that was said: its format version, the container's name, when it was
/// made, whether it waits, where its files are from, the rest. By position, for names are half of what would have to be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Shown(Stamp, u32, String, i64, bool, Place, BriefConfig);

/// Which file it is: a record is never written to, but replaced by another file. Its inode, bytes, and when it was
/// modified, in seconds and nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp(u64, i64, i64, i64);

impl From<Stat> for Stamp {
    fn from(stat: Stat) -> Self {
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Self(stat.st_ino, stat.st_size, stat.st_mtime, nanoseconds)
    }
}

/// A [`BriefRootfs`] and the image's id, which are one.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Place {
    /// The image and its name.
    #[serde(rename = "i")]
    Image(Digest, String),
    #[serde(rename = "d")]
    Directory(PathBuf),
}

impl Shown {
    /// None where the record says more than there is room for.
    fn of(stamp: Stamp, brief: Brief) -> Option<Self> {
        let Brief { version, name, created, image_id, rootfs, waits, config, .. } = brief;
        let place = match rootfs {
            BriefRootfs::Image { id, name } if image_id == Some(id) => Place::Image(id, name),
            BriefRootfs::Directory(path) if image_id.is_none() => Place::Directory(path),
            _ => return None,
        };
        Some(Self(stamp, version, name, created, waits, place, config))
    }

    /// What was said of the container `id`.
    fn brief(self, id: ContainerId) -> Brief {
        let Self(_, version, name, created, waits, place, config) = self;
        let (image_id, rootfs) = match place {
            Place::Image(id, name) => (Some(id), BriefRootfs::Image { id, name }),
            Place::Directory(path) => (None, BriefRootfs::Directory(path)),
        };
        Brief { version, id, name, created, image_id, rootfs, waits, config }
    }
}

impl Containers {
    /// Reads what lists show of a container's record.
    pub fn brief(&self, id: &ContainerId) -> Result<Brief, Error> {
        let brief: Option<Brief> = self.read_line(id, RECORD, Line::First)?;
        self.checked(id, brief.ok_or_else(|| Error::NotFound(id.to_string()))?)
    }

    fn checked(&self, id: &ContainerId, brief: Brief) -> Result<Brief, Error> {
        check_version(brief.version, &|| self.dir(id).join(RECORD))?;
        Ok(brief)
    }

    /// The same with what the container is doing ([`Containers::status`]): for lists, with as few system calls as
    /// can be.
    pub fn brief_and_status(&self, id: &ContainerId) -> Result<(Brief, Status), Error> {
        let last = self.last(id)?;
        if let Some(Last { exit, shown: Some(shown) }) = last
            && !exit.again
            && self.stat(id, RECORD).is_ok_and(|stat| Stamp::from(stat) == shown.0)
        {
            return Ok((self.checked(id, shown.brief(id.clone()))?, Status::Exited(exit)));
        }
        Ok((self.brief(id)?, self.status(id)?))
    }

    /// What lists show of the record that is there now.
    pub(super) fn shown(&self, id: &ContainerId) -> Result<Option<Shown>, Error> {
        // The record may be replaced in between: it is the same one if it was before and after.
        let stamp = |stat: rustix::io::Result<Stat>| stat.ok().map(Stamp::from);
        let Some(before) = stamp(self.stat(id, RECORD)) else { return Ok(None) };
        let brief = self.brief(id)?;
        let same = stamp(self.stat(id, RECORD)) == Some(before);
        Ok(Shown::of(before, brief).filter(|_| same))
    }

    fn stat(&self, id: &ContainerId, name: &str) -> rustix::io::Result<Stat> {
        match &self.near {
            Some(near) => {
                let path = [id.as_str(), "/", name].concat();
                rustix::fs::statat(near, &*path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            }
            None => rustix::fs::lstat(self.dir(id).join(name)),
        }
    }
}

impl From<&ContainerRecord> for Brief {
    fn from(record: &ContainerRecord) -> Self {
        let ContainerRecord { version, id, name, created, image_id, rootfs, waits, config, .. } = record;
        Self {
            version: *version,
            id: id.clone(),
            name: name.clone(),
            created: *created,
            image_id: *image_id,
            rootfs: rootfs.into(),
            waits: *waits,
            config: (&**config).into(),
        }
    }
}

impl From<&RootfsSource> for BriefRootfs {
    fn from(rootfs: &RootfsSource) -> Self {
        match rootfs {
            RootfsSource::Image { id, name, .. } => Self::Image { id: *id, name: name.clone() },
            RootfsSource::Directory(path) => Self::Directory(path.clone()),
        }
    }
}

impl From<&ContainerConfig> for BriefConfig {
    fn from(config: &ContainerConfig) -> Self {
        Self {
            entrypoint: config.entrypoint.clone(),
            command: config.command.clone(),
            labels: config.labels.clone(),
            network: config.network.clone(),
            net: (!is_default(&config.net)).then(|| Box::new(config.net.clone())),
            mounts: config.mounts.iter().map(BriefMount::from).collect(),
            restart: config.restart,
            auto_remove: config.auto_remove,
            build: config.marks.build,
            health: config.health.is_some(),
        }
    }
}

impl From<&MountRecord> for BriefMount {
    fn from(MountRecord { name, source, destination, .. }: &MountRecord) -> Self {
        Self { name: name.clone(), source: source.clone(), destination: destination.clone() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::exit::LONGEST;
    use super::super::{Durability, Exit, ExitRecord, write_record};
    use super::*;
    use crate::sys::atomic;

    #[test]
    fn what_lists_show_is_the_same_however_a_record_is_written() {
        let root = std::env::temp_dir().join(format!("umiak-brief-{:x}", atomic::random().unwrap()));
        let id: ContainerId = "b".repeat(64).parse().unwrap();
        let containers = Containers::new(&root, &root.join("run"));
        fs::create_dir_all(containers.dir(&id)).unwrap();
        let env = vec!["x=\n".repeat(3000)];
        let whole = serde_json::json!({
            "version": 1, "id": id, "name": "box", "created": 7, "rootfs": { "directory": "/" }, "create_command": [],
            "mapping": null,
            "config": {
                "command": ["sh", "a\nb"], "env": env, "labels": { "a": "b" }, "workdir": "/",
                "hostname": "h", "stop_signal": 15, "stop_timeout": 10, "capabilities": [], "seccomp": "default",
                "log": { "driver": "k8s-file", "path": null, "size_max": null }, "cgroups": true,
                "health": {
                    "test": ["CMD"], "interval": 1, "timeout": 1, "retries": 1, "start_period": 0, "log_count": 1,
                    "log_size": 1,
                },
                "mounts": [{ "kind": "bind", "source": "/s", "destination": "/d", "options": [], "rw": true }],
            },
        });
        let path = containers.dir(&id).join("record.json");
        // One line, as it was once.
        fs::write(&path, whole.to_string()).unwrap();
        let (record, old) = (containers.record(&id).unwrap(), containers.brief(&id).unwrap());
        write_record(&containers.dir(&id), &record, Durability::Volatile).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().next().unwrap().len() < 400, "{text}");
        for containers in [containers.clone(), containers.near()] {
            assert_eq!(containers.record(&id).unwrap().config.env, record.config.env);
            let new = containers.brief(&id).unwrap();
            assert_eq!(format!("{new:?}"), format!("{old:?}"));
            assert!(new.config.has_health_checks() && new.config.mounts[0].destination == "/d");
        }
        // At the end it is said with it, and believed as long as the record is the same file.
        let exit = ExitRecord::new(Exit::Code(3), 1, 2);
        containers.write_exit(&id, &exit, Durability::Volatile).unwrap();
        let shown = |containers: &Containers| {
            let known = containers.last(&id).unwrap().unwrap().shown.is_some();
            let (brief, status) = containers.brief_and_status(&id).unwrap();
            assert_eq!(status, Status::Exited(exit.clone()));
            (known, brief.name)
        };
        for containers in [containers.clone(), containers.near()] {
            assert_eq!(shown(&containers), (true, "box".into()));
        }
        let renamed = ContainerRecord { name: "bag".into(), ..record };
        write_record(&containers.dir(&id), &renamed, Durability::Volatile).unwrap();
        assert_eq!(shown(&containers.near()), (true, "bag".into()));
        fs::write(&path, "").unwrap();
        assert!(containers.brief_and_status(&id).is_err());
        containers.clear_exit(&id).unwrap();
        let long = ContainerRecord { name: "x".repeat(LONGEST), ..renamed };
        write_record(&containers.dir(&id), &long, Durability::Volatile).unwrap();
        containers.write_exit(&id, &exit, Durability::Volatile).unwrap();
        assert_eq!(shown(&containers), (false, long.name));
        fs::remove_dir_all(root).unwrap();
    }
}
