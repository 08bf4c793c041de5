//! Images that go, and who uses those that stay.

use std::collections::BTreeMap;

use super::Error;
use crate::base::digest::Digest;
use crate::engine::{self, Engine};
use crate::security::idmap::RungKind;
use crate::storage::containers::ContainerRecord;
use crate::storage::events::Event;
use crate::storage::{self, ImageRecord};

/// What `rmi` did to one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// The image itself, if it is gone.
    pub deleted: Option<Digest>,
}

impl Engine {
    /// Removes a name, and with its last name the image, by Podman's rules: an image with several
    /// names goes by id only by `force`; one that containers use goes only by `force`, which
    /// removes the containers too. Layers go by [`Engine::collect_images`].
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Removed, engine::Error> {
        let found = self.store.image(name).map_err(Error::from)?;
        let image = found.ok_or_else(|| Error::NoSuchImage(name.to_owned()))?;
        let by_name = matching_name(&image, name);
        if let Some(store) = self.store.foreign_image(&image.id) {
            // Such an image can have a name here.
            let Some(tag) = by_name else {
                let name = image.display_name();
                return Err(Error::from(storage::Error::ReadOnly { name, store: store.to_owned() }).into());
            };
            self.store.untag(&tag).map_err(Error::from)?;
            return Ok(Removed { untagged: vec![tag], deleted: None });
        }
        if image.names.len() > 1 {
            if let Some(tag) = by_name {
                self.store.untag(&tag).map_err(Error::from)?;
                self.note(Event::image("untag", image.id.hex(), &tag));
                return Ok(Removed { untagged: vec![tag], deleted: None });
            }
            if !force {
                return Err(Error::SeveralNames { id: image.id.short(), names: image.names }.into());
            }
        }
        let users = self.users_of(&image.id)?;
        if !users.is_empty() && !force {
            let containers = users.into_iter().map(|record| record.name).collect();
            return Err(Error::InUse { name: name.to_owned(), containers }.into());
        }
        if let Some(mounted) = self.mounted_images()?.into_iter().find(|mounted| mounted.id == image.id) {
            if !force {
                return Err(Error::Mounted { name: name.to_owned(), path: mounted.path }.into());
            }
            self.unmount_image(&image.id.hex(), true)?;
        }
        for user in users {
            self.remove(&user.id, true, Some(0))?;
        }
        // Alone, so that no container is being made from it meanwhile.
        let _lock = self.store.lock_exclusive().map_err(Error::from)?;
        let users = self.users_of(&image.id)?;
        if !users.is_empty() {
            let containers = users.into_iter().map(|record| record.name).collect();
            return Err(Error::InUse { name: name.to_owned(), containers }.into());
        }
        self.store.remove_image(&image).map_err(Error::from)?;
        let untagged = image.names.iter().map(|name| Event::image("untag", image.id.hex(), name));
        let gone = Event::image("remove", image.id.hex(), &image.id.hex());
        self.event_log().write(&untagged.chain([gone]).collect::<Vec<_>>());
        Ok(Removed { untagged: image.names, deleted: Some(image.id) })
    }

    /// Removes the layers and blobs that nothing refers to any more.
    pub fn collect_images(&self) -> Result<(), engine::Error> {
        let mapping = match self.rung().kind {
            RungKind::Root => None,
            _ => Some(self.rung().mapping.clone()),
        };
        let store = self.store.clone().with_mapping(mapping);
        store.collect().map_err(Error::from)?;
        Ok(store.sweep().map_err(Error::from)?)
    }

    fn users_of(&self, id: &Digest) -> Result<Vec<ContainerRecord>, engine::Error> {
        let mut users = Vec::new();
        for container in self.containers.ids()? {
            match self.containers.record(&container) {
                Ok(record) if images_of(&record).contains(id) => users.push(record),
                // Being made or removed this moment, or damaged: `ps` tells of the latter.
                _ => {}
            }
        }
        Ok(users)
    }

    /// How many containers use each image.
    pub fn image_users(&self) -> Result<BTreeMap<Digest, usize>, engine::Error> {
        let mut users = BTreeMap::new();
        for container in self.containers.ids()? {
            let Ok(record) = self.containers.record(&container) else { continue };
            for id in images_of(&record) {
                *users.entry(id).or_default() += 1;
            }
        }
        Ok(users)
    }
}

/// The images that a container stands on or has mounted.
fn images_of(record: &ContainerRecord) -> Vec<Digest> {
    let mounted = record.config.mounts.iter().filter(|mount| mount.kind == "image");
    let mut images: Vec<Digest> = mounted.filter_map(|mount| mount.name.as_ref()?.parse().ok()).collect();
    images.extend(record.image_id);
    images
}

/// Which of the image's names the user meant; `None` if it was an id or a digest.
pub(in crate::engine) fn matching_name(image: &ImageRecord, name: &str) -> Option<String> {
    if name.contains('@') {
        return None;
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    let tagged = if last.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    let exact = image.names.iter().find(|known| **known == tagged);
    let suffix = format!("/{tagged}");
    exact.or_else(|| image.names.iter().find(|known| known.ends_with(&suffix))).cloned()
}
