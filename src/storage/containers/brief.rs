//! The part of a container's record that lists show. Hundreds are read at a time, and most of a record, as its
//! environment and capabilities, is in no list: that part is a line of its own, the first of the file. Of a record that
//! has no such line the rest is skipped.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use super::{
    ContainerConfig, ContainerRecord, Containers, Error, Line, MountRecord, NetworkDetails, NetworkMode,
    RestartPolicy, RootfsSource, check_version, is_default,
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
    #[serde(default, skip_serializing_if = "is_default")]
    pub net: NetworkDetails,
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
    pub fn image_name(&self) -> String {
        match &self.rootfs {
            BriefRootfs::Image { name, .. } => name.clone(),
            BriefRootfs::Directory(path) => path.display().to_string(),
        }
    }
}

impl BriefConfig {
    /// The program and its arguments.
    pub fn args(&self) -> Vec<String> {
        [self.entrypoint.as_slice(), &self.command].concat()
    }

    /// Whether it has health checks.
    pub fn has_health_checks(&self) -> bool {
        self.health
    }
}

impl Containers {
    /// Reads what lists show of a container's record.
    pub fn brief(&self, id: &ContainerId) -> Result<Brief, Error> {
        let brief: Option<Brief> = self.read_line(id, "record.json", Line::First)?;
        let brief = brief.ok_or_else(|| Error::NotFound(id.to_string()))?;
        check_version(brief.version, &|| self.dir(id).join("record.json"))?;
        Ok(brief)
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
            net: config.net.clone(),
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

    use super::super::{Durability, write_record};
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
        fs::remove_dir_all(root).unwrap();
    }
}
