//! Layers for containers with other ids than the layers were unpacked with: shown with these ids by the kernel where
//! root asks for it and the file system can, copied with other owners everywhere else.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::config::flag;
use super::{Engine, Error};
use crate::base::idmap::IdMapping;
use crate::base::size;
use crate::runtime::plan::named_mapping;
use crate::security::idmap::RungKind;
use crate::storage::containers::{ContainerRecord, RootfsSource};
use crate::storage::images::ImageRecord;
use crate::sys::lock::Lock;
use crate::sys::mount::Overlay;
use crate::sys::{atomic, mapped};

impl Engine {
    /// The mapping by which the layers of a container that is being made are shown; none if they have its ids
    /// already, or have to be copied.
    pub(super) fn layer_ids(&self, record: &ContainerRecord) -> Option<IdMapping> {
        let RootfsSource::Image { layers, .. } = &record.rootfs else { return None };
        if !self.has_other_ids(record) || self.rung().kind != RungKind::Root {
            return None;
        }
        let mapping = record.mapping.clone()?;
        let store = self.layer_store(record);
        let lower: Vec<PathBuf> = layers.iter().rev().map(|chain_id| store.layer_dir(chain_id)).collect();
        self.try_mapped(Some(lower), &mapping).is_ok().then_some(mapping)
    }

    /// Whether layers in this store can be shown with other ids: what comes of trying.
    pub(super) fn can_map_layers(&self) -> bool {
        let range = |host| vec![crate::base::idmap::IdRange { container: 0, host, size: 1000 }];
        let mapping = IdMapping { uids: range(100_000), gids: range(100_000) };
        self.rung().kind == RungKind::Root && self.try_mapped(None, &mapping).is_ok()
    }

    /// Mounts an overlay as a container would have it, attached nowhere.
    fn try_mapped(&self, lower: Option<Vec<PathBuf>>, mapping: &IdMapping) -> io::Result<()> {
        let dir = self.paths.root.join("staging").join(format!("mapped-{:016x}", atomic::random()?));
        // While it is locked nobody takes it for rubbish.
        let _lock = Lock::new_directory(&dir, 0o700)?;
        let (upper, work, empty) = (dir.join("upper"), dir.join("work"), dir.join("lower"));
        let made = [&upper, &work, &empty].into_iter().try_for_each(fs::create_dir);
        let tried = made.and_then(|()| {
            let lower = lower.unwrap_or_else(|| vec![empty]);
            let overlay = Overlay { lower, upper, work, volatile: true, userxattr: false };
            mapped::overlay(&overlay, mapping, 0)
        });
        let removed = fs::remove_dir_all(&dir);
        tried.map(drop).and(removed)
    }

    /// The mapping of a `--rootfs DIR:idmap`.
    pub(super) fn asked_ids(
        &self,
        path: &Path,
        option: &str,
        own: Option<&IdMapping>,
    ) -> Result<IdMapping, Error> {
        let refused = |why| Error::MapIds { path: path.to_owned(), why };
        if self.rung().kind != RungKind::Root {
            return Err(refused("only root can"));
        }
        let mapping = match option.split_once('=') {
            None => own
                .cloned()
                .ok_or_else(|| refused("the container has no user namespace (--uidmap, --userns auto)"))?,
            Some((_, text)) => named_mapping(text, own).ok_or_else(|| {
                let why = "it is no mapping; one is idmap=uids=0-100000-65536;gids=0-100000-65536";
                Error::Config(flag("rootfs", option, why))
            })?,
        };
        match mapped::directory(path, &mapping, true) {
            Ok(_) => Ok(mapping),
            Err(_) => Err(refused("the kernel or its file system cannot")),
        }
    }

    /// What it costs that a container's ids are not those of its layers, if that is anything to speak of.
    pub fn cost(&self, record: &ContainerRecord, image: Option<&ImageRecord>) -> Option<String> {
        let image = image.filter(|_| self.needs_copy(record))?;
        let all: u64 = image.layers.iter().map(|layer| layer.size).sum();
        let why = match self.rung().kind {
            RungKind::Root => "the kernel or the store's file system cannot show them with its ids",
            _ => "the kernel shows files with other ids for root only",
        };
        Some(format!(
            "the image's files ({}) are copied for this container before its first start: {why}",
            size::human(all)
        ))
    }
}
