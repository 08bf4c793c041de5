//! Looking at everything in a store, whatever state it is in: for `system check`.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::images::Tag;
use super::layers::{LayerFiles, LayerRecord, SINGLE, layer_at};
use super::store::parse;
use super::{ArtifactRecord, Error, ImageRecord, IoContext, Result, Store};
use crate::base::digest::{ChainId, Digest};
use crate::sys::atomic::{self, Durability};

/// What is in a store.
#[derive(Debug, Default)]
pub struct Survey {
    /// Images whose records can be read, without their names.
    pub images: Vec<ImageRecord>,
    /// Artifacts whose records can be read.
    pub artifacts: Vec<ArtifactRecord>,
    /// Records of images, names and artifacts that cannot be read.
    pub unreadable: Vec<PathBuf>,
    /// Names that lead to no image, or are not where they belong: the file and the name.
    pub stray_names: Vec<(PathBuf, String)>,
    /// All layers.
    pub layers: Vec<SurveyedLayer>,
    /// All blobs.
    pub blobs: Vec<Digest>,
}

/// A layer, whatever it is worth.
#[derive(Clone, Debug)]
pub struct SurveyedLayer {
    /// Its identity.
    pub chain_id: ChainId,
    /// Whether it lies where layers of one id do.
    pub single: bool,
    /// Its files.
    pub files: LayerFiles,
    /// Its record, if its content can be trusted.
    pub record: Option<LayerRecord>,
    /// How long ago it was made.
    pub age: Duration,
}

impl Store {
    /// Looks at everything. Only what cannot be looked at at all is an error.
    pub fn survey(&self) -> Result<Survey> {
        let mut survey = Survey::default();
        for path in self.list("images")? {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Ok(bytes) = fs::read(&path) else { continue };
            match parse::<ImageRecord>(&path, &bytes) {
                Ok(image) if path.file_stem().is_some_and(|stem| *stem == *image.id.hex()) => {
                    survey.images.push(image);
                }
                Err(error @ Error::Version { .. }) => return Err(error),
                _ => survey.unreadable.push(path),
            }
        }
        let known: HashSet<Digest> = survey.images.iter().map(|image| image.id).collect();
        for path in self.list("tags")? {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Ok(bytes) = fs::read(&path) else { continue };
            match parse::<Tag>(&path, &bytes) {
                Ok(tag)
                    if (known.contains(&tag.id) || self.foreign_image(&tag.id).is_some())
                        && path == self.tag_path(&tag.name) => {}
                Ok(tag) => survey.stray_names.push((path, tag.name)),
                Err(error @ Error::Version { .. }) => return Err(error),
                Err(_) => survey.unreadable.push(path),
            }
        }
        // Older stores have no such directory.
        for path in self.list("artifacts").unwrap_or_default() {
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Ok(bytes) = fs::read(&path) else { continue };
            match parse::<ArtifactRecord>(&path, &bytes) {
                Ok(artifact) if path == self.artifact_path(&artifact.name) => {
                    survey.artifacts.push(artifact);
                }
                Err(error @ Error::Version { .. }) => return Err(error),
                _ => survey.unreadable.push(path),
            }
        }
        for path in self.list("layers")? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let hex = name.strip_suffix(SINGLE).unwrap_or(name);
            let Ok(digest) = format!("sha256:{hex}").parse::<Digest>() else { continue };
            let made = fs::metadata(&path).and_then(|stat| stat.modified());
            survey.layers.push(SurveyedLayer {
                chain_id: ChainId(digest),
                single: hex.len() != name.len(),
                record: layer_at(&path).ok().flatten(),
                age: made
                    .ok()
                    .and_then(|made| SystemTime::now().duration_since(made).ok())
                    .unwrap_or_default(),
                files: LayerFiles::at(path),
            });
        }
        let names = self.list("blobs/sha256")?;
        survey.blobs = names
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .filter_map(|hex| format!("sha256:{hex}").parse().ok())
            .collect();
        Ok(survey)
    }

    fn list(&self, directory: &str) -> Result<Vec<PathBuf>> {
        let dir = self.path(directory);
        let entries = fs::read_dir(&dir).context("listing", &dir)?;
        entries.map(|entry| Ok(entry.context("listing", &dir)?.path())).collect()
    }
}

impl SurveyedLayer {
    /// Lets the layer count as absent from now on, so that whoever wants it makes it anew.
    pub fn distrust(&self) -> Result<()> {
        self.files.distrust(|path, bytes| {
            atomic::write(path, bytes, 0o600, Durability::Synced).context("writing", path)
        })
    }
}
