//! Artifacts: names of manifests whose blobs are any files. `artifacts/<name>.json` is one; its blobs lie
//! with all others.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::images::name_file;
use super::store::parse;
use super::{Error, FORMAT, IoContext, Result, Store};
use crate::base::digest::Digest;
use crate::sys::atomic::{self, Durability};

/// An artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Format version.
    pub version: u32,
    /// Full name, `registry/repository:tag`.
    pub name: String,
    /// Digest of its manifest.
    pub manifest: Digest,
    /// All blobs that the manifest names.
    pub blobs: Vec<Digest>,
    /// Nanoseconds since 1970: when it came to be here.
    pub created: i64,
}

impl ArtifactRecord {
    /// A record of this format version.
    pub fn new(name: String, manifest: Digest, blobs: Vec<Digest>, created: i64) -> Self {
        Self { version: FORMAT, name, manifest, blobs, created }
    }
}

impl Store {
    pub(super) fn artifact_path(&self, name: &str) -> PathBuf {
        self.path("artifacts").join(name_file(name))
    }

    /// Stores an artifact durably, in the stead of one that has its name.
    pub fn put_artifact(&self, record: &ArtifactRecord) -> Result<()> {
        let dir = self.path("artifacts");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).context("creating", &dir)?;
        let path = self.artifact_path(&record.name);
        let bytes =
            serde_json::to_vec(record).map_err(|source| Error::Damaged { path: path.clone(), source })?;
        atomic::write(&path, &bytes, 0o600, Durability::Synced).context("writing", &path)
    }

    /// The artifact of this full name.
    pub fn artifact(&self, name: &str) -> Result<Option<ArtifactRecord>> {
        read(&self.artifact_path(name))
    }

    /// All artifacts, in no particular order.
    pub fn artifacts(&self) -> Result<Vec<ArtifactRecord>> {
        let dir = self.path("artifacts");
        let entries = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.context("listing", &dir)?,
        };
        let mut artifacts = Vec::new();
        for entry in entries {
            let path = entry.context("listing", &dir)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                artifacts.extend(read(&path)?);
            }
        }
        Ok(artifacts)
    }

    /// Removes an artifact's record. Its blobs go by [`Store::collect`].
    pub fn remove_artifact(&self, name: &str) -> Result<()> {
        let path = self.artifact_path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context("removing", &path),
            _ => Ok(()),
        }
    }
}

fn read(path: &Path) -> Result<Option<ArtifactRecord>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(parse(path, &bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("reading", path),
    }
}
