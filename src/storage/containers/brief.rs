//! The part of a container's record that lists show. Hundreds are read at a time, and most of a record, as its
//! environment and capabilities, is in no list: it is skipped rather than built and thrown away.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{
    ContainerConfig, ContainerRecord, Containers, Error, MountRecord, NetworkDetails, NetworkMode,
    RestartPolicy, RootfsSource, check_version,
};
use crate::base::digest::Digest;
use crate::base::id::ContainerId;

/// A [`ContainerRecord`] with what lists show; the fields are named as there.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "they are told there")]
pub struct Brief {
    version: u32,
    pub id: ContainerId,
    pub name: String,
    pub created: i64,
    #[serde(default)]
    pub image_id: Option<Digest>,
    pub rootfs: BriefRootfs,
    #[serde(default)]
    pub waits: bool,
    pub config: BriefConfig,
}

/// A [`RootfsSource`] without its layers.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are told there")]
pub enum BriefRootfs {
    Image { id: Digest, name: String },
    Directory(PathBuf),
}

/// A [`ContainerConfig`] with what lists show.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "they are told there")]
pub struct BriefConfig {
    #[serde(default)]
    pub entrypoint: Vec<String>,
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub network: NetworkMode,
    #[serde(default)]
    pub net: NetworkDetails,
    #[serde(default)]
    pub mounts: Vec<BriefMount>,
    #[serde(default)]
    pub restart: RestartPolicy,
    #[serde(default)]
    pub auto_remove: bool,
    /// Only whether there is one.
    #[serde(default)]
    health: Option<IgnoredAny>,
}

/// A [`MountRecord`] with what lists show.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "they are told there")]
pub struct BriefMount {
    #[serde(default)]
    pub name: Option<String>,
    pub source: String,
    pub destination: String,
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
        self.health.is_some()
    }
}

impl Containers {
    /// Reads what lists show of a container's record.
    pub fn brief(&self, id: &ContainerId) -> Result<Brief, Error> {
        let brief: Option<Brief> = self.read(id, "record.json")?;
        let brief = brief.ok_or_else(|| Error::NotFound(id.to_string()))?;
        check_version(brief.version, &|| self.dir(id).join("record.json"))?;
        Ok(brief)
    }
}

impl From<ContainerRecord> for Brief {
    fn from(record: ContainerRecord) -> Self {
        let ContainerRecord { version, id, name, created, image_id, rootfs, waits, config, .. } = record;
        Self { version, id, name, created, image_id, rootfs: rootfs.into(), waits, config: (*config).into() }
    }
}

impl From<RootfsSource> for BriefRootfs {
    fn from(rootfs: RootfsSource) -> Self {
        match rootfs {
            RootfsSource::Image { id, name, .. } => Self::Image { id, name },
            RootfsSource::Directory(path) => Self::Directory(path),
        }
    }
}

impl From<ContainerConfig> for BriefConfig {
    fn from(config: ContainerConfig) -> Self {
        let ContainerConfig { entrypoint, command, labels, network, net, mounts, .. } = config;
        let ContainerConfig { restart, auto_remove, health, .. } = config;
        let health = health.map(|_| IgnoredAny);
        let mounts = mounts.into_iter().map(BriefMount::from).collect();
        Self { entrypoint, command, labels, network, net, mounts, restart, auto_remove, health }
    }
}

impl From<MountRecord> for BriefMount {
    fn from(MountRecord { name, source, destination, .. }: MountRecord) -> Self {
        Self { name, source, destination }
    }
}
