//! `container clone`: a container made as another one was.

use std::path::PathBuf;

use super::{Engine, Error, config, limits};
use crate::base::id::{ContainerId, check_name};
use crate::storage::ImageRecord;
use crate::storage::containers::{self, ContainerRecord, RootfsSource, record_version};
use crate::sys::atomic::{self, Durability};
use crate::sys::host;
use crate::sys::lock::Lock;

impl Engine {
    /// Makes a container with the configuration of `original`, of another image if one is given. Without a name
    /// it gets the original's with `-clone`, and a number if that is taken. Its limits are the original's but for
    /// what is wanted.
    pub fn clone_container(
        &self,
        original: &ContainerRecord,
        name: Option<&str>,
        image: Option<&ImageRecord>,
        wanted: &config::limits::Wanted,
    ) -> Result<(ContainerRecord, Lock), Error> {
        if let Some(name) = name {
            check_name(name)?;
        }
        // While this is held nothing that the container needs is removed.
        let _lock = self.store.lock_shared()?;
        let mut random = [0; 32];
        atomic::fill_random(&mut random).map_err(Error::Random)?;
        let id = ContainerId::from_random(random);
        let mut record = ContainerRecord {
            version: record_version(),
            id: id.clone(),
            created: host::now(),
            ..original.clone()
        };
        let limits = config::limits::change(wanted, &original.config.limits)?;
        if limits != original.config.limits {
            record.config.limits = limits;
            limits::check(&record.config.limits, record.config.cgroups, id.as_str())?;
        }
        // A container whose hostname is its own id's has that of its new one.
        if record.config.hostname == original.id.short() {
            record.config.hostname = id.short().to_owned();
            for variable in &mut record.config.env {
                if *variable == format!("HOSTNAME={}", original.id.short()) {
                    *variable = format!("HOSTNAME={}", id.short());
                }
            }
        }
        if let Some(found) = image {
            record.image_id = Some(found.id);
            record.rootfs = RootfsSource::Image {
                id: found.id,
                name: found.names.first().cloned().unwrap_or_else(|| found.id.to_string()),
                digest: found.manifest,
                layers: found.layers.iter().map(|layer| layer.chain_id).collect(),
            };
        }
        record.config.marks.cidfile = None;
        let new_volumes = self.provide_volumes(&id, &mut record.config.mounts)?;
        if self.has_other_ids(&record) {
            self.give_to_root(&record, new_volumes.iter().map(PathBuf::as_path))?;
        }
        let mut number = 0;
        loop {
            record.name = match (name, number) {
                (Some(name), _) => name.to_owned(),
                (None, 0) => format!("{}-clone", original.name),
                (None, number) => format!("{}-clone{number}", original.name),
            };
            match self.containers.create(&record, Durability::Synced) {
                Ok(created) => return Ok((record, created.lock)),
                Err(containers::Error::NameInUse { .. }) if name.is_none() => number += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
