//! What an image was made of: `history` and `image tree`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::Error;
use crate::base::digest::{ChainId, Digest};
use crate::engine::Engine;
use crate::storage::ImageRecord;

/// One step of an image's making, the latest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The image here that ends with this step, if there is one.
    pub image: Option<Digest>,
    /// When, RFC 3339, as the configuration says it.
    pub created: Option<String>,
    /// By what.
    pub created_by: String,
    /// Names of the images here that end with this step's layer.
    pub names: Vec<String>,
    /// Bytes of the step's uncompressed layer.
    pub size: u64,
    /// What its maker says.
    pub comment: String,
}

/// OCI image specification, `config.md`, "history"; everything may be absent.
#[derive(Deserialize)]
struct Step {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    empty_layer: Option<bool>,
}

/// A layer in a tree of layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeLayer {
    /// Which.
    pub chain_id: ChainId,
    /// Bytes of the uncompressed archive.
    pub size: u64,
    /// Names of the images here of which it is the topmost layer.
    pub names: Vec<String>,
    /// Layers that stand on it.
    pub children: Vec<TreeLayer>,
}

impl Engine {
    /// The image's history, the latest step first.
    pub fn image_history(&self, name: &str) -> Result<Vec<HistoryEntry>, crate::engine::Error> {
        let images = self.store.images().map_err(Error::from)?;
        let id = self.store.resolve_image(name).map_err(Error::from)?;
        let image = images.iter().find(|image| Some(image.id) == id);
        let image = image.ok_or_else(|| Error::NoSuchImage(name.to_owned()))?;
        Ok(history(image, &images)?)
    }

    /// The image, and its layers: from the lowest one up, or with `upwards` all layers here that
    /// stand on its topmost one.
    pub fn image_tree(
        &self,
        name: &str,
        upwards: bool,
    ) -> Result<(ImageRecord, Vec<TreeLayer>), crate::engine::Error> {
        let images = self.store.images().map_err(Error::from)?;
        let id = self.store.resolve_image(name).map_err(Error::from)?;
        let image = images.iter().find(|image| Some(image.id) == id);
        let image = image.ok_or_else(|| Error::NoSuchImage(name.to_owned()))?;
        let layers = if upwards { standing_on(image, &images) } else { stack(image, &images) };
        Ok((image.clone(), layers))
    }
}

/// Images whose topmost layer is this one, that `first` is among them first.
fn ending_with<'a>(layer: &ChainId, first: &Digest, images: &'a [ImageRecord]) -> Vec<&'a ImageRecord> {
    let ends = |image: &&ImageRecord| image.layers.last().is_some_and(|top| top.chain_id == *layer);
    let mut found: Vec<_> = images.iter().filter(ends).collect();
    found.sort_by_key(|image| (image.id != *first, image.id));
    found
}

fn names(images: &[&ImageRecord]) -> Vec<String> {
    images.iter().flat_map(|image| image.names.iter().cloned()).collect()
}

fn history(image: &ImageRecord, images: &[ImageRecord]) -> Result<Vec<HistoryEntry>, Error> {
    let steps = image.config.get("history").filter(|steps| !steps.is_null());
    let steps: Vec<Step> = steps.map_or_else(|| Ok(Vec::new()), Vec::deserialize).map_err(|source| {
        Error::Storage(crate::storage::Error::Damaged {
            path: format!("images/{}.json", image.id.hex()).into(),
            source,
        })
    })?;
    let mut layers = image.layers.iter().rev().peekable();
    let mut told = BTreeSet::new();
    let mut entries = Vec::new();
    for step in steps.into_iter().rev() {
        let ending = match layers.peek() {
            Some(layer) => ending_with(&layer.chain_id, &image.id, images),
            // Only steps without a layer are left, or the image never had one.
            None => images.iter().filter(|known| known.id == image.id && known.layers.is_empty()).collect(),
        };
        let id = ending.first().map(|image| image.id).filter(|id| told.insert(*id));
        let layer = if step.empty_layer == Some(true) { None } else { layers.next() };
        entries.push(HistoryEntry {
            image: id,
            created: step.created,
            created_by: step.created_by.unwrap_or_default(),
            names: names(&ending),
            size: layer.map_or(0, |layer| layer.size),
            comment: step.comment.unwrap_or_default(),
        });
    }
    Ok(entries)
}

fn stack(image: &ImageRecord, images: &[ImageRecord]) -> Vec<TreeLayer> {
    let layer = |layer: &crate::storage::LayerRef| TreeLayer {
        chain_id: layer.chain_id,
        size: layer.size,
        names: names(&ending_with(&layer.chain_id, &image.id, images)),
        children: Vec::new(),
    };
    image.layers.iter().map(layer).collect()
}

fn standing_on(image: &ImageRecord, images: &[ImageRecord]) -> Vec<TreeLayer> {
    let Some(top) = image.layers.last() else { return Vec::new() };
    // Who stands on whom, for every layer here.
    let mut above: BTreeMap<ChainId, BTreeSet<ChainId>> = BTreeMap::new();
    let mut sizes = BTreeMap::new();
    for layers in images.iter().map(|image| &image.layers) {
        sizes.extend(layers.iter().map(|layer| (layer.chain_id, layer.size)));
        for pair in layers.windows(2) {
            above.entry(pair[0].chain_id).or_default().insert(pair[1].chain_id);
        }
    }
    // A chain id is the hash of what it stands on: no circles, and no image has more than 500 layers.
    fn grow(
        layer: &ChainId,
        image: &Digest,
        images: &[ImageRecord],
        above: &BTreeMap<ChainId, BTreeSet<ChainId>>,
        sizes: &BTreeMap<ChainId, u64>,
    ) -> TreeLayer {
        let children = above.get(layer).into_iter().flatten();
        TreeLayer {
            chain_id: *layer,
            size: sizes.get(layer).copied().unwrap_or_default(),
            names: names(&ending_with(layer, image, images)),
            children: children.map(|child| grow(child, image, images, above, sizes)).collect(),
        }
    }
    vec![grow(&top.chain_id, &image.id, images, &above, &sizes)]
}
