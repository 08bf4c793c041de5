//! `system df`: what images, containers and volumes take, and what could be had back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::list::Listed;
use super::volumes::VolumeRecord;
use super::{Engine, Error};
use crate::base::digest::{ChainId, Digest};
use crate::storage::ImageRecord;
use crate::storage::containers::{ContainerRecord, Status};
use crate::sys::{child, usage};

/// What everything takes. Sizes of images come from their records; only what containers and volumes
/// hold is counted file by file.
#[derive(Debug)]
pub struct Usage {
    /// Images.
    pub images: Vec<ImageUsage>,
    /// Bytes of all layers, each once.
    pub layers: u64,
    /// Bytes of the layers that no container stands on.
    pub reclaimable: u64,
    /// Containers whose records can be read.
    pub containers: Vec<ContainerUsage>,
    /// Volumes.
    pub volumes: Vec<VolumeUsage>,
}

/// What an image takes.
#[derive(Debug)]
pub struct ImageUsage {
    /// The image.
    pub image: ImageRecord,
    /// Bytes of layers that other images have too.
    pub shared: u64,
    /// Bytes of layers that only this image has.
    pub unique: u64,
    /// How many containers are made from it.
    pub containers: usize,
}

/// What a container takes.
#[derive(Debug)]
pub struct ContainerUsage {
    /// The container.
    pub listed: Listed,
    /// Bytes that it has written.
    pub size: u64,
}

impl ContainerUsage {
    /// Whether it runs, or stands still.
    pub fn is_active(&self) -> bool {
        matches!(
            self.listed.status,
            Status::Initialized(_) | Status::Running(_) | Status::Paused(_) | Status::Stopping(_)
        )
    }
}

/// What a volume takes.
#[derive(Debug)]
pub struct VolumeUsage {
    /// The volume.
    pub record: VolumeRecord,
    /// How many containers use it.
    pub users: usize,
    /// Bytes in it.
    pub size: u64,
}

impl Engine {
    /// What everything takes. The caller must be single-threaded.
    pub fn usage(&self) -> Result<Usage, Error> {
        let mut containers = Vec::new();
        for id in self.containers.ids()? {
            // What is being removed, or cannot be read, is counted by nobody.
            if let Ok((record, status)) = self.load(&id) {
                containers.push(ContainerUsage {
                    listed: self.listed(Box::new((&record).into()), status),
                    size: 0,
                });
            }
        }
        let mut volumes: Vec<VolumeUsage> =
            self.volumes()?.into_iter().map(|record| VolumeUsage { record, users: 0, size: 0 }).collect();
        let users = self.volume_users()?;
        let uppers: Vec<_> =
            containers.iter().map(|c| self.containers.dir(&c.listed.record.id).join("diff")).collect();
        let data: Vec<_> = volumes.iter().map(|volume| self.volume_data(&volume.record.name)).collect();
        // Files of subordinate ids are seen only from inside their user namespace.
        let sizes = self.tree_sizes(&[uppers, data].concat())?;
        let (of_containers, of_volumes) = sizes.split_at(containers.len().min(sizes.len()));
        for (container, size) in containers.iter_mut().zip(of_containers) {
            container.size = *size;
        }
        for (volume, size) in volumes.iter_mut().zip(of_volumes) {
            volume.size = *size;
            volume.users = users.get(&volume.record.name).map_or(0, Vec::len);
        }
        let images = self.store.images()?;
        Ok(Usage { volumes, ..of_images(images, containers) })
    }

    /// Bytes that each container has written, and of all that it sees of its own and its image's. The caller
    /// must be single-threaded.
    pub fn container_sizes(&self, records: &[&ContainerRecord]) -> Result<Vec<(u64, u64)>, Error> {
        let uppers: Vec<_> = records.iter().map(|record| self.files(record).upper.path).collect();
        let written = self.tree_sizes(&uppers)?;
        let mut sizes = Vec::new();
        for (record, written) in records.iter().zip(written) {
            let image = match &record.image_id {
                Some(id) => self.store.image_by_id(id)?,
                None => None,
            };
            let layers: u64 = image.iter().flat_map(|image| &image.layers).map(|layer| layer.size).sum();
            // A copy of the layers has them in it.
            let copied = self.files(record).copied;
            let written = if copied { written.saturating_sub(layers) } else { written };
            sizes.push((written, written + layers));
        }
        Ok(sizes)
    }

    /// Bytes of the files in each of the directories. Files of subordinate ids are seen only from inside
    /// their user namespace, so that the caller must be single-threaded.
    pub(super) fn tree_sizes(&self, trees: &[PathBuf]) -> Result<Vec<u64>, Error> {
        if trees.is_empty() {
            return Ok(Vec::new());
        }
        let sizes = || trees.iter().map(|path| usage::bytes(path).unwrap_or(0)).collect();
        child::call(self.default_mapping().as_ref(), sizes).map_err(|source| Error::FilesOfOthers {
            action: "counting",
            name: "the files of containers and volumes".into(),
            source,
        })
    }
}

fn of_images(images: Vec<ImageRecord>, containers: Vec<ContainerUsage>) -> Usage {
    let mut sizes: BTreeMap<ChainId, (u64, usize)> = BTreeMap::new();
    for image in &images {
        let own: BTreeMap<ChainId, u64> =
            image.layers.iter().map(|layer| (layer.chain_id, layer.size)).collect();
        for (chain_id, size) in own {
            sizes.entry(chain_id).or_insert((size, 0)).1 += 1;
        }
    }
    let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
    for id in containers.iter().filter_map(|container| container.listed.record.image_id) {
        *users.entry(id).or_default() += 1;
    }
    let used: BTreeSet<ChainId> = images
        .iter()
        .filter(|image| users.contains_key(&image.id))
        .flat_map(|image| image.layers.iter().map(|layer| layer.chain_id))
        .collect();
    let layers = sizes.values().map(|(size, _)| size).sum();
    let reclaimable =
        sizes.iter().filter(|(chain_id, _)| !used.contains(chain_id)).map(|(_, (size, _))| size).sum();
    let images = images
        .into_iter()
        .map(|image| {
            let own: BTreeSet<ChainId> = image.layers.iter().map(|layer| layer.chain_id).collect();
            let sum = |several: bool| {
                let counted = own.iter().filter_map(|chain_id| sizes.get(chain_id));
                counted.filter(|(_, count)| (*count > 1) == several).map(|(size, _)| size).sum()
            };
            let (shared, unique) = (sum(true), sum(false));
            let containers = users.get(&image.id).copied().unwrap_or(0);
            ImageUsage { image, shared, unique, containers }
        })
        .collect();
    Usage { images, layers, reclaimable, containers, volumes: Vec::new() }
}
