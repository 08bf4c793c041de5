//! Images that are made here: a layer out of an archive of ours, a configuration, a manifest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::layer::{self, Expected};
use super::manifest::{Compression, Descriptor, Platform};
use super::reference::untagged;
use super::rewrite::{self, Form};
use super::unpack;
use crate::base::digest::{ChainId, Digest};
use crate::storage::{self, FORMAT, ImageRecord, LayerRef, LayerSlot, Ownership, Pins, Store};

/// An image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The layer.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// The archive cannot be kept until it is unpacked.
    #[error("writing an archive into \"{}\"", path.display())]
    Spool {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A manifest of the store is not there, or not what it should be.
    #[error("the manifest {0} of the image is not in the store")]
    NoManifest(Digest),
}

/// An uncompressed archive that waits to become a layer: a file without a name, so that nothing is left of
/// it whatever happens.
#[derive(Debug)]
pub struct Spooled {
    /// Has the archive from its start.
    pub file: File,
    /// Digest of the archive.
    pub diff_id: Digest,
    /// Its bytes.
    pub size: u64,
}

/// A file for an archive, without a name, in the store's staging area.
pub fn spool_file(store: &Store) -> Result<File, Error> {
    let path = store.path("staging");
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
    Ok(file.map_err(|source| Error::Spool { path, source: source.into() })?.into())
}

/// Writes an archive to such a file and hashes it on the way.
#[derive(Debug)]
pub struct Spool<'a> {
    file: &'a File,
    hash: Sha256,
    size: u64,
}

impl<'a> Spool<'a> {
    /// Begins at the file's start.
    pub fn new(file: &'a File) -> Self {
        Self { file, hash: Sha256::new(), size: 0 }
    }

    /// All is written: the digest of the archive, and its bytes.
    pub fn finish(self) -> (Digest, u64) {
        (Digest::from_bytes(self.hash.finalize().into()), self.size)
    }
}

impl Write for Spool<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What an image is made of.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The image whose layers come first.
    pub base: Option<&'a ImageRecord>,
    /// The layer that comes upon them.
    pub layer: Option<Spooled>,
    /// All of the configuration but `rootfs` and `history`, to which [`make`] adds.
    pub config: serde_json::Map<String, Value>,
    /// The history's new entry.
    pub history: Value,
    /// Full names.
    pub names: Vec<String>,
    /// How it is described.
    pub format: Form,
}

/// An image whose layers are all there.
#[derive(Debug)]
pub struct Whole {
    /// Lowest first.
    pub layers: Vec<LayerRef>,
    /// What the manifest says of them.
    pub descriptors: Vec<Value>,
    /// All of the configuration but `rootfs`.
    pub config: serde_json::Map<String, Value>,
    /// Of the manifest.
    pub annotations: BTreeMap<String, String>,
    /// Full names.
    pub names: Vec<String>,
    /// How it is described.
    pub format: Form,
}

/// Makes the image: unpacks the new layer, then writes the record. Starts threads: the caller has entered
/// the user namespace that owns the files of layers before. Nothing is synced to the disk but the record:
/// [`Store::sync_layers`] does that.
pub fn make(store: &Store, draft: Draft<'_>, ownership: Ownership) -> Result<ImageRecord, Error> {
    let store = &store.clone().with_ownership(ownership);
    let mut layers = draft.base.map(|base| base.layers.clone()).unwrap_or_default();
    let mut descriptors = match draft.base {
        Some(base) => layer_descriptors(store, base, draft.format)?,
        None => Vec::new(),
    };
    let (_pins, added) = match draft.layer {
        None => (pin(store, &layers)?, None),
        Some(spooled) => {
            let (pins, layer) = add_layer(store, &layers, spooled, ownership)?;
            (pins, Some(layer))
        }
    };
    descriptors.extend(added.iter().map(|layer| new_descriptor(layer, draft.format)));
    layers.extend(added);
    let mut config = draft.config;
    let history = config.entry("history").or_insert_with(|| json!([]));
    if let Value::Array(history) = history {
        history.push(draft.history);
    }
    let annotations = BTreeMap::new();
    publish(
        store,
        Whole { layers, descriptors, config, annotations, names: draft.names, format: draft.format },
    )
}

/// What a manifest says of a layer that was made here.
pub fn new_descriptor(layer: &LayerRef, format: Form) -> Value {
    let kind = format.layer(Compression::None);
    json!({ "mediaType": kind, "digest": layer.diff_id, "size": layer.size })
}

/// Writes the records of an image whose layers the caller has pinned.
pub fn publish(store: &Store, whole: Whole) -> Result<ImageRecord, Error> {
    let Whole { layers, descriptors, mut config, annotations, names, format } = whole;
    let platform = Platform::host();
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
    config.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": diff_ids }));
    let text = |key: &str| config.get(key).and_then(Value::as_str).map(str::to_owned);
    let (created, variant) = (text("created"), text("variant"));
    let architecture = text("architecture").unwrap_or(platform.architecture);
    let os = text("os").unwrap_or(platform.os);
    config.insert("architecture".to_owned(), architecture.clone().into());
    config.insert("os".to_owned(), os.clone().into());
    let config = Value::Object(config);
    let config_bytes = config.to_string().into_bytes();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": format.media_type(),
        "config": {
            "mediaType": format.config(),
            "digest": Digest::of(&config_bytes), "size": config_bytes.len(),
        },
        "layers": descriptors,
    });
    if !annotations.is_empty() {
        manifest["annotations"] = json!(annotations);
    }

    let _lock = store.lock_shared()?;
    let manifest_digest = store.write_blob(manifest.to_string().as_bytes())?;
    let id = store.write_blob(&config_bytes)?;
    let repo_digests = names.iter().map(|name| format!("{}@{manifest_digest}", untagged(name)));
    let record = ImageRecord {
        version: FORMAT,
        id,
        repo_digests: repo_digests.collect(),
        names,
        manifest: manifest_digest,
        index: None,
        media_type: format.media_type().to_owned(),
        size: layers.iter().map(|layer| layer.size).sum(),
        layers,
        created,
        architecture,
        os,
        variant,
        config,
        made_from: None,
        list: None,
    };
    store.put_image(&record)?;
    Ok(store.image_by_id(&id)?.unwrap_or(record))
}

/// Keeps layers, and the blobs that they came from, from being collected.
pub fn pin(store: &Store, layers: &[LayerRef]) -> Result<Pins, Error> {
    let chain: Vec<ChainId> = layers.iter().map(|layer| layer.chain_id).collect();
    let blobs: Vec<Digest> = layers.iter().filter_map(|layer| layer.blob).collect();
    Ok(store.pin(&chain, &blobs)?)
}

/// The descriptors of an image's layers, in the words of `format`.
pub fn layer_descriptors(store: &Store, base: &ImageRecord, format: Form) -> Result<Vec<Value>, Error> {
    let missing = || Error::NoManifest(base.manifest);
    let manifest: Value = serde_json::from_slice(&read_manifest(store, base)?).map_err(|_| missing())?;
    let layers = manifest.get("layers").and_then(Value::as_array).ok_or_else(missing)?;
    let described = |layer: &Value| {
        let kind = layer.get("mediaType").and_then(Value::as_str).unwrap_or_default();
        json!({ "mediaType": format.layer(rewrite::compression(kind).unwrap_or(Compression::Gzip)), "digest": layer["digest"], "size": layer["size"] })
    };
    let described: Vec<Value> = layers.iter().map(described).collect();
    if described.len() == base.layers.len() { Ok(described) } else { Err(missing()) }
}

/// The layer that an archive makes upon others.
pub fn layer_upon(below: &[LayerRef], Spooled { diff_id, size, .. }: &Spooled) -> LayerRef {
    let diff_ids: Vec<Digest> = below.iter().map(|layer| layer.diff_id).chain([*diff_id]).collect();
    let chain_id = ChainId::chain(&diff_ids).last().copied().unwrap_or(ChainId(*diff_id));
    LayerRef { chain_id, diff_id: *diff_id, blob: Some(*diff_id), blob_size: *size, size: *size }
}

/// The annotations of an image's manifest.
pub fn annotations(store: &Store, image: &ImageRecord) -> Result<BTreeMap<String, String>, Error> {
    let manifest: Value = serde_json::from_slice(&read_manifest(store, image)?)
        .map_err(|_| Error::NoManifest(image.manifest))?;
    let annotations = manifest.get("annotations").and_then(Value::as_object).into_iter().flatten();
    Ok(annotations.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect())
}

fn read_manifest(store: &Store, image: &ImageRecord) -> Result<Vec<u8>, Error> {
    store.read_blob(&image.manifest)?.ok_or(Error::NoManifest(image.manifest))
}

/// Unpacks an archive as the layer that comes upon `below`, unless it is there. Starts threads; the caller is as for
/// [`make`].
pub fn add_layer(
    store: &Store,
    below: &[LayerRef],
    mut spooled: Spooled,
    ownership: Ownership,
) -> Result<(Pins, LayerRef), Error> {
    let (diff_id, size) = (spooled.diff_id, spooled.size);
    let added = layer_upon(below, &spooled);
    let chain_id = added.chain_id;
    let chain: Vec<ChainId> = below.iter().map(|layer| layer.chain_id).chain([chain_id]).collect();
    let all: Vec<LayerRef> = below.iter().chain([&added]).cloned().collect();
    let pins = pin(store, &all)?;
    if let LayerSlot::Vacant(staged) = store.reserve_layer(chain_id)? {
        let lower: Vec<PathBuf> = below.iter().rev().map(|layer| store.layer_tree(&layer.chain_id)).collect();
        let spool = |source| Error::Spool { path: store.path("staging"), source };
        spooled.file.rewind().map_err(spool)?;
        let blob = Descriptor { media_type: String::new(), digest: diff_id, size };
        let unpack = unpack::Options {
            ownership,
            max_file: size,
            max_entries: u64::MAX,
            lower: &lower,
            staged: Some(&staged),
        };
        let expected = Expected { blob: &blob, diff_id, limit: size, unpack };
        let taken = layer::take(&mut spooled.file, None, &staged.diff(), expected, &|_| {})?;
        let record = taken.record(diff_id, diff_id, ownership)?;
        staged.publish(&record)?;
    }
    store.settle_layer(&chain)?;
    Ok((pins, added))
}

/// Writes an archive of any supported compression to a file of [`spool_file`], uncompressed and at most to
/// `limit` bytes: its digest, and its bytes. Starts threads.
pub fn spool(file: &File, source: &mut (dyn Read + Send), limit: u64) -> io::Result<(Digest, u64)> {
    let mut spool = Spool::new(file);
    layer::decompress(source, &mut spool, limit)?;
    Ok(spool.finish())
}
