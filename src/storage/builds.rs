//! What steps of builds gave: `builds/<key>.json` names the layer that came of a step, by a digest of all that it
//! depends on, so that the next build that comes to the same step takes the layer. `build-mounts/` has the directories
//! that steps keep from one build to the next (`RUN --mount=type=cache`).

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::store::parse;
use super::{FORMAT, IoContext, LayerRef, Result, Store};
use crate::base::digest::Digest;
use crate::sys::atomic::{self, Durability};

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuiltStep {
    /// Format version.
    pub version: u32,
    /// The layer; none if the step changed no file.
    pub layer: Option<LayerRef>,
    /// The instruction as it was written, for people.
    pub step: String,
    /// Nanoseconds since 1970: when it was carried out.
    pub created: i64,
}

impl BuiltStep {
    /// A record of this format version.
    pub fn new(layer: Option<LayerRef>, step: String, created: i64) -> Self {
        Self { version: FORMAT, layer, step, created }
    }
}

/// A step as `system df` and `builder prune` see it.
#[derive(Clone, Debug)]
pub struct KeptStep {
    /// Under which it is found.
    pub key: Digest,
    /// What it gave.
    pub built: BuiltStep,
    /// How long ago a build took it last.
    pub unused: Duration,
}

impl Store {
    fn built_path(&self, key: &Digest) -> PathBuf {
        self.path("builds").join(format!("{}.json", key.hex()))
    }

    /// What the step of this key gave, if it is known and its layer is here. The step counts as used now.
    pub fn built(&self, key: &Digest) -> Result<Option<BuiltStep>> {
        let path = self.built_path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("reading", &path),
        };
        // It can be made again: one that is damaged is as good as none.
        let Ok(built) = parse::<BuiltStep>(&path, &bytes) else { return Ok(None) };
        if let Some(layer) = &built.layer
            && self.layer(&layer.chain_id)?.is_none()
        {
            return Ok(None);
        }
        // Only what is pruned first depends on it.
        let _ = fs::File::open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        Ok(Some(built))
    }

    /// Remembers what a step gave. The caller has its layer pinned.
    pub fn put_built(&self, key: &Digest, built: &BuiltStep) -> Result<()> {
        let dir = self.path("builds");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).context("creating", &dir)?;
        let path = self.built_path(key);
        let bytes = serde_json::to_vec(built).unwrap_or_default();
        atomic::write(&path, &bytes, 0o600, Durability::Volatile).context("writing", &path)
    }

    /// All that is remembered of builds, in no particular order.
    pub fn kept_steps(&self) -> Result<Vec<KeptStep>> {
        let dir = self.path("builds");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context("listing", &dir)?,
        };
        let mut kept = Vec::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let Ok(key) = format!("sha256:{stem}").parse::<Digest>() else { continue };
            let Some(built) = fs::read(&path).ok().and_then(|bytes| parse::<BuiltStep>(&path, &bytes).ok())
            else {
                continue;
            };
            let modified = entry.metadata().and_then(|stat| stat.modified());
            let unused = modified.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
            kept.push(KeptStep { key, built, unused });
        }
        Ok(kept)
    }

    /// Forgets a step. Its layer goes by [`Store::collect`], if nothing else has it.
    pub fn forget_step(&self, key: &Digest) -> Result<()> {
        let path = self.built_path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing", &path),
            _ => Ok(()),
        }
    }

    /// The directories that steps keep.
    pub fn build_mounts(&self) -> Result<Vec<PathBuf>> {
        let dir = self.path("build-mounts");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context("listing", &dir)?,
        };
        Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect())
    }

    /// The directory that steps keep under this name; made if it is missing.
    pub fn build_mount(&self, name: &Digest) -> Result<PathBuf> {
        let path = self.path("build-mounts").join(name.hex());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).context("creating", &path)?;
        Ok(path)
    }
}
