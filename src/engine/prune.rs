//! Removing what nothing uses: images, stopped containers, volumes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::list::ListOptions;
use super::{Engine, Error};
use crate::base::digest::{ChainId, Digest};
use crate::base::time;
use crate::storage::ImageRecord;
use crate::storage::containers::Status;
use crate::storage::events::Event;

/// Which images to remove.
#[derive(Clone, Debug, Default)]
pub struct ImageFilter {
    /// Those with names too.
    all: bool,
    until: Option<Timestamp>,
    /// Label, value if one is asked for, and whether it must be there.
    labels: Vec<(String, Option<String>, bool)>,
    /// `dangling`, which says the same as `all` the other way round.
    dangling: Option<bool>,
}

impl ImageFilter {
    /// Of `--filter` flags: `until=TIME`, `label=KEY[=VALUE]`, `label!=KEY[=VALUE]`, `dangling=BOOL`.
    pub fn parse(all: bool, filters: &[String]) -> Result<Self, Error> {
        let mut filter = Self { all, ..Self::default() };
        for text in filters {
            let (key, value) =
                text.split_once('=').ok_or_else(|| Error::Filter(format!("\"{text}\": write key=value")))?;
            match key {
                "until" => {
                    let point = time::parse_point(value, Timestamp::now(), &TimeZone::system())
                        .map_err(|error| Error::Filter(error.to_string()))?;
                    filter.until = Some(filter.until.map_or(point, |known| known.min(point)));
                }
                "label" | "label!" => {
                    let (label, wanted) = match value.split_once('=') {
                        Some((label, wanted)) => (label, Some(wanted.to_owned())),
                        None => (value, None),
                    };
                    filter.labels.push((label.to_owned(), wanted, key == "label"));
                }
                "dangling" => match value {
                    "true" | "1" => filter.dangling = Some(true),
                    "false" | "0" => filter.dangling = Some(false),
                    _ => return Err(Error::Filter(format!("\"{text}\": write true or false"))),
                },
                _ => return Err(Error::Filter(format!("there is no filter \"{key}\""))),
            }
        }
        Ok(filter)
    }

    fn fits(&self, image: &ImageRecord) -> bool {
        let created = image.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        let named = !image.names.is_empty();
        let labels = image.config.pointer("/config/Labels");
        let has = |label: &str, wanted: &Option<String>| {
            let found = labels.and_then(|labels| labels.get(label));
            found.is_some_and(|found| wanted.as_ref().is_none_or(|w| found.as_str() == Some(w)))
        };
        (self.all || !named)
            && self.dangling.is_none_or(|dangling| dangling != named)
            && self.until.is_none_or(|until| created.unwrap_or(Timestamp::UNIX_EPOCH) < until)
            && self.labels.iter().all(|(label, wanted, there)| has(label, wanted) == *there)
    }
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids of containers.
    pub containers: Vec<String>,
    /// Names of volumes.
    pub volumes: Vec<String>,
    /// Ids of images.
    pub images: Vec<Digest>,
    /// Bytes that were had back: of layers as their archives were, of the rest as files.
    pub bytes: u64,
}

impl Engine {
    /// Removes the images that no container uses and `filter` fits, and the layers that are nobody's then.
    /// A pull that goes on meanwhile keeps what it needs.
    pub fn prune_images(&self, filter: &ImageFilter) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        {
            // Alone, so that no container is being made from one meanwhile.
            let _lock = self.store.lock_exclusive()?;
            let mut users = self.image_users()?;
            users.extend(self.mounted_images()?.into_iter().map(|mounted| (mounted.id, 1)));
            let (gone, mut stay): (Vec<_>, Vec<_>) = self
                .store
                .images()?
                .into_iter()
                .filter(|image| self.store.foreign_image(&image.id).is_none())
                .partition(|image| !users.contains_key(&image.id) && filter.fits(image));
            // What a list is made of that stays is in use.
            let listed: HashSet<String> = stay.iter().flat_map(listed_manifests).collect();
            let (kept, gone): (Vec<_>, Vec<_>) =
                gone.into_iter().partition(|image| listed.contains(&image.manifest.to_string()));
            stay.extend(kept);
            let kept: HashSet<ChainId> =
                stay.iter().flat_map(|image| image.layers.iter().map(|layer| layer.chain_id)).collect();
            let mut freed: BTreeMap<ChainId, u64> = BTreeMap::new();
            for image in gone {
                self.store.remove_image(&image)?;
                self.note(Event::image("remove", image.id.hex(), &image.display_name()));
                let own = image.layers.iter().filter(|layer| !kept.contains(&layer.chain_id));
                freed.extend(own.map(|layer| (layer.chain_id, layer.size)));
                pruned.images.push(image.id);
            }
            pruned.bytes = freed.values().sum();
        }
        self.collect_images()?;
        Ok(pruned)
    }

    /// Removes the containers that do not run and fit `filters` (`until=`, `label=`).
    pub fn prune_containers(&self, filters: &[String]) -> Result<Pruned, Error> {
        let options = ListOptions { all: true, filters: filters.to_vec(), ..ListOptions::default() };
        let (listed, _) = self.list(&options)?;
        let stopped: Vec<_> = listed
            .into_iter()
            .filter(|container| matches!(container.status, Status::Created | Status::Exited(_)))
            .map(|container| container.record.id)
            .collect();
        let stopped = self.needing_first(stopped)?;
        let uppers: Vec<_> = stopped.iter().map(|id| self.containers.dir(id).join("diff")).collect();
        let sizes = self.tree_sizes(&uppers)?;
        let mut pruned = Pruned::default();
        for (id, size) in stopped.iter().zip(sizes) {
            match self.remove(id, false, None) {
                Ok(()) => {
                    pruned.containers.push(id.to_string());
                    pruned.bytes += size;
                }
                // Started, or removed, since it was listed; or needed by one that runs.
                Err(
                    Error::Running(_)
                    | Error::Needed { .. }
                    | Error::Containers(crate::storage::containers::Error::NotFound(_)),
                ) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }

    /// Removes the volumes that no container uses and that have all labels of `filters`.
    pub fn prune_volumes(&self, filters: &[String]) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        let used: BTreeSet<String> = self.volume_users()?.into_keys().collect();
        for volume in self.volumes()?.into_iter().filter(|volume| !used.contains(&volume.name)) {
            if !filters.iter().all(|filter| volume_fits(&volume.labels, filter)) {
                continue;
            }
            let size = self.tree_sizes(&[self.volume_data(&volume.name)])?.first().copied().unwrap_or(0);
            match self.remove_volume(&volume.name) {
                Ok(()) => {
                    pruned.volumes.push(volume.name);
                    pruned.bytes += size;
                }
                Err(Error::VolumeInUse { .. } | Error::NoVolume(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }
}

/// The digests of the manifests that a list names.
fn listed_manifests(image: &ImageRecord) -> Vec<String> {
    let entries = image.list.iter().flat_map(|list| &list.entries);
    entries.filter_map(|entry| Some(entry.descriptor.get("digest")?.as_str()?.to_owned())).collect()
}

fn volume_fits(labels: &BTreeMap<String, String>, filter: &str) -> bool {
    let has = |text: &str| match text.split_once('=') {
        Some((label, value)) => labels.get(label).is_some_and(|found| found == value),
        None => labels.contains_key(text),
    };
    match filter.split_once('=') {
        Some(("label", text)) => has(text),
        Some(("label!", text)) => !has(text),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(names: &[&str], created: &str, labels: serde_json::Value) -> ImageRecord {
        let digest = Digest::of(b"x");
        serde_json::from_value::<ImageRecord>(json!({
            "version": 1, "id": digest, "manifest": digest, "media_type": "", "layers": [], "size": 0,
            "created": created, "architecture": "amd64", "os": "linux",
            "config": { "config": { "Labels": labels } },
        }))
        .map(|record| ImageRecord { names: names.iter().map(|n| (*n).to_owned()).collect(), ..record })
        .unwrap()
    }

    #[test]
    fn filters_choose_images() {
        let old = image(&["a:1"], "2020-01-01T00:00:00Z", json!({ "keep": "1" }));
        let bare = image(&[], "2024-01-01T00:00:00Z", json!(null));
        let chosen = |all, filters: &[&str]| {
            let filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
            let filter = ImageFilter::parse(all, &filters).unwrap();
            (filter.fits(&old), filter.fits(&bare))
        };
        assert_eq!(chosen(false, &[]), (false, true));
        assert_eq!(chosen(true, &[]), (true, true));
        assert_eq!(chosen(true, &["until=2022-01-01T00:00:00Z"]), (true, false));
        assert_eq!(chosen(true, &["label=keep"]), (true, false));
        assert_eq!(chosen(true, &["label=keep=2"]), (false, false));
        assert_eq!(chosen(true, &["label!=keep"]), (false, true));
        assert_eq!(chosen(true, &["dangling=true"]), (false, true));
        for bad in ["x", "x=1", "until=yesterday-ish", "dangling=perhaps"] {
            assert!(ImageFilter::parse(true, &[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
