//! Taking an image into the store: manifest, configuration, then the layers in parallel, each
//! published when it is whole; last the record, which makes the image visible.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::layer::{self, Expected};
use super::lock;
use super::manifest::{self, Config, Descriptor, Platform};
use super::recipe;
use super::reference::untagged;
use super::registry::{self, Registry};
use super::source::{self, Directory, DockerArchive, Layout, Source};
use super::transport::Transport;
use super::{chunked, trust, unpack};
use crate::base::digest::{ChainId, Digest};
use crate::storage::{
    self, ContainerConfig, FORMAT, ImageRecord, LayerFiles, LayerRef, LayerSlot, Ownership, Store,
};

/// How to pull.
#[derive(Clone, Debug)]
pub struct PullOptions {
    /// For which machine.
    pub platform: Platform,
    /// Whose the unpacked files are: what the caller's user namespace allows.
    pub ownership: Ownership,
    /// How to reach a registry.
    pub registry: registry::Options,
    /// Most layers at the same time.
    pub parallel: usize,
    /// Most bytes of one uncompressed layer.
    pub max_layer: u64,
    /// Which images may be taken; all without one.
    pub policy: Option<Arc<trust::Policy>>,
}

impl Default for PullOptions {
    fn default() -> Self {
        let parallel = std::thread::available_parallelism().map_or(2, |n| n.get());
        Self {
            platform: Platform::host(),
            ownership: Ownership::Host,
            registry: registry::Options::default(),
            // Each layer has three threads, of which one waits for the network.
            parallel: parallel.clamp(2, 6),
            max_layer: 64 << 30,
            policy: None,
        }
    }
}

/// An image that cannot be pulled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// A layer.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// It may not be taken.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// The configuration or the manifest.
    #[error("the image \"{what}\" is unusable")]
    Manifest {
        /// The source.
        what: String,
        /// Why.
        #[source]
        source: manifest::Error,
    },
}

/// Is told how a pull goes on, from several threads.
pub trait Progress: Sync {
    /// A layer's blob of `size` bytes is about to be read.
    fn started(&self, digest: &Digest, size: u64);
    /// So many bytes of it came.
    fn advanced(&self, digest: &Digest, bytes: u64);
    /// The layer is in the store; `existed` if it was before.
    fn finished(&self, digest: &Digest, existed: bool);
    /// Nothing more comes, whether all went well or not.
    fn ended(&self);
}

impl<P: Progress + ?Sized> Progress for Box<P> {
    fn started(&self, digest: &Digest, size: u64) {
        (**self).started(digest, size);
    }
    fn advanced(&self, digest: &Digest, bytes: u64) {
        (**self).advanced(digest, bytes);
    }
    fn finished(&self, digest: &Digest, existed: bool) {
        (**self).finished(digest, existed);
    }
    fn ended(&self) {
        (**self).ended();
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn started(&self, _: &Digest, _: u64) {}
    fn advanced(&self, _: &Digest, _: u64) {}
    fn finished(&self, _: &Digest, _: bool) {}
    fn ended(&self) {}
}

/// Pulls an image and returns its record. Layers and blobs that are there already are not read.
///
/// Starts threads: the caller has entered its user namespace before. Nothing is synced to the
/// disk but the record: [`Store::sync_layers`] does that.
pub fn pull(
    store: &Store,
    transport: &Transport,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<ImageRecord, Error> {
    let source = open(store, transport, options)?;
    pull_from(store, &*source, transport.to_string(), options, progress)
}

/// The same from a source that is open; `what` is what errors call it. The record has the names that the image
/// got now, not those that it had before.
pub fn pull_from(
    store: &Store,
    source: &dyn Source,
    what: String,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<ImageRecord, Error> {
    let store = &store.clone().with_ownership(options.ownership);
    let resolved = source::resolve(source, &options.platform, &what)?;
    let source::Resolved { manifest, bytes: manifest_bytes, index, names } = resolved;
    trust::check(options.policy.as_deref(), source, &options.registry, &manifest_bytes)?;
    let unusable = |source| Error::Manifest { what: what.clone(), source };
    // What is damaged here is had anew.
    let config_bytes = match store.read_blob(&manifest.config.digest) {
        Ok(Some(bytes)) => bytes,
        _ => source::checked_blob(source, &manifest.config)?,
    };
    let config = Config::parse(&config_bytes).map_err(unusable)?;
    // What only a container will read is looked at now: an image that cannot be run is refused here.
    container_config(&config_bytes).map_err(unusable)?;
    options.platform.check(&config).map_err(unusable)?;
    let diff_ids = config.diff_ids(manifest.layers.len()).map_err(unusable)?;
    let chain = ChainId::chain(&diff_ids);

    let mut blobs: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
    blobs.extend([manifest.config.digest, Digest::of(&manifest_bytes)]);
    let _pins = store.pin(&chain, &blobs)?;
    let mut chunked = chunked::layers(&manifest_bytes);
    let jobs: Vec<Job> = manifest
        .layers
        .iter()
        .zip(diff_ids.iter().zip(&chain))
        .map(|(blob, (diff_id, chain_id))| Job {
            blob,
            diff_id: *diff_id,
            chain_id: *chain_id,
            chunked: chunked.remove(&blob.digest),
        })
        .collect();
    let layers = take_layers(store, source, &jobs, options, progress)?;

    let _lock = store.lock_shared()?;
    let manifest_digest = store.write_blob(&manifest_bytes)?;
    let id = store.write_blob(&config_bytes)?;
    let repository = source.repository();
    let digests = [Some(manifest_digest), index].into_iter().flatten();
    let mut repo_digests: Vec<String> = match repository {
        Some(repository) => digests.map(|digest| format!("{repository}@{digest}")).collect(),
        None => names.iter().map(|name| format!("{}@{manifest_digest}", untagged(name))).collect(),
    };
    if let Some(known) = store.nameless_image(&id)? {
        repo_digests
            .extend(known.repo_digests.into_iter().filter(|d| !d.ends_with(&manifest_digest.to_string())));
    }
    repo_digests.dedup();
    let platform = config.platform();
    let record = ImageRecord {
        version: FORMAT,
        id,
        names,
        repo_digests,
        manifest: manifest_digest,
        index: None,
        media_type: manifest.media_type.clone(),
        size: layers.iter().map(|layer| layer.size).sum(),
        layers,
        created: config.created.clone(),
        architecture: platform.architecture,
        os: platform.os,
        variant: platform.variant,
        config: serde_json::from_slice(&config_bytes).map_err(|e| unusable(manifest::Error::Config(e)))?,
        made_from: None,
        list: None,
    };
    store.put_image(&record)?;
    Ok(record)
}

/// Unpacks those layers of an image that are missing from what is here of them: lost with a power
/// cut, or unpacked for another mapping of ids. Fails if neither a blob nor a recipe gives one.
///
/// Starts threads, as [`pull`] does.
pub fn renew(store: &Store, image: &ImageRecord, options: &PullOptions) -> Result<(), Error> {
    let store = &store.clone().with_ownership(options.ownership);
    let kept = Kept { store, image };
    let source::Resolved { manifest, .. } = source::resolve(&kept, &options.platform, &image.display_name())?;
    let chain: Vec<ChainId> = image.layers.iter().map(|layer| layer.chain_id).collect();
    let blobs: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
    let _pins = store.pin(&chain, &blobs)?;
    let jobs: Vec<Job> = manifest
        .layers
        .iter()
        .zip(&image.layers)
        .map(|(blob, layer)| Job { blob, diff_id: layer.diff_id, chain_id: layer.chain_id, chunked: None })
        .collect();
    take_layers(store, &kept, &jobs, options, &Silent).map(drop)
}

/// An image's own blobs in the store as a source.
struct Kept<'a> {
    store: &'a Store,
    image: &'a ImageRecord,
}

impl Kept<'_> {
    fn open(&self, digest: &Digest) -> Result<std::fs::File, source::Error> {
        let path = self.store.blob_path(digest);
        std::fs::File::open(&path).map_err(|source| source::Error::Open { path, source })
    }

    fn document(&self, digest: &Digest, media_type: &str) -> Result<source::Fetched, source::Error> {
        let mut bytes = Vec::new();
        let file = self.open(digest)?;
        let path = self.store.blob_path(digest);
        file.take(manifest::MAX_MANIFEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| source::Error::Open { path, source })?;
        Ok(source::Fetched { bytes, media_type: Some(media_type.to_owned()) })
    }
}

impl Source for Kept<'_> {
    fn root(&self) -> Result<source::Fetched, source::Error> {
        self.document(&self.image.manifest, &self.image.media_type)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<source::Fetched, source::Error> {
        self.document(&descriptor.digest, &descriptor.media_type)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, source::Error> {
        Ok(Box::new(self.open(&descriptor.digest)?))
    }

    fn names(&self) -> Vec<String> {
        self.image.names.clone()
    }
}

fn container_config(bytes: &[u8]) -> Result<(), manifest::Error> {
    #[derive(serde::Deserialize)]
    struct Whole {
        #[allow(dead_code, reason = "only its form is of interest")]
        config: Option<ContainerConfig>,
    }
    serde_json::from_slice::<Whole>(bytes).map(drop).map_err(manifest::Error::Config)
}

/// How much a layer of this size in the manifest may unpack to. gzip reaches 1000 : 1 on what says
/// nothing (a bomb), real layers 10 : 1; small ones may be of any kind.
fn unpacked_limit(blob: u64, max: u64) -> u64 {
    blob.saturating_mul(200).max(1 << 30).min(max)
}

/// Opens what a transport names.
pub fn open(store: &Store, transport: &Transport, options: &PullOptions) -> Result<Box<dyn Source>, Error> {
    let scratch = store.path("staging");
    let limit = options.max_layer;
    Ok(match transport {
        Transport::Registry(reference) => {
            Box::new(Registry::new(reference, &options.registry).map_err(source::Error::from)?)
        }
        Transport::Oci { path, tag } => Box::new(Layout::directory(path, tag.clone())?),
        Transport::OciArchive { path, tag } => Box::new(Layout::archive(path, tag.clone(), &scratch, limit)?),
        Transport::DockerArchive { path, name } => {
            Box::new(DockerArchive::new(path, name.as_ref(), &scratch, limit)?)
        }
        Transport::Dir(path) => Box::new(Directory::new(path)?),
    })
}

/// Asks a source for the digest of the manifest that a pull would take, for the policy `newer`.
pub fn remote_manifest(store: &Store, transport: &Transport, options: &PullOptions) -> Result<Digest, Error> {
    let source = open(store, transport, options)?;
    let resolved = source::resolve(&*source, &options.platform, &transport.to_string())?;
    Ok(Digest::of(&resolved.bytes))
}

struct Job<'a> {
    blob: &'a Descriptor,
    diff_id: Digest,
    chain_id: ChainId,
    /// Where its table of contents is, if it has one.
    chunked: Option<chunked::Positions>,
}

/// Takes all layers in, some at a time. The first failure stops the others.
fn take_layers(
    store: &Store,
    source: &dyn Source,
    jobs: &[Job<'_>],
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<LayerRef>, Error> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failure: Mutex<Option<Error>> = Mutex::new(None);
    // Layers with hard links to files of layers below have to wait for these. They are rare:
    // most archivers store such a file anew.
    let late: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    let done: Vec<Mutex<Option<LayerRef>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = jobs.get(place) else { return };
            match take_layer(store, source, job, &[], options, progress, &stop) {
                Ok(layer) => *lock(&done[place]) = Some(layer),
                Err(Error::Layer(error)) if error.wants_lower() && place > 0 => lock(&late).push(place),
                Err(error) => {
                    let mut failure = lock(&failure);
                    // Those that were stopped fail too, but are not the cause.
                    if !stop.swap(true, Ordering::Relaxed) {
                        *failure = Some(error);
                    }
                    return;
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..options.parallel.min(jobs.len()) {
            // Fewer threads than wished are slower, not wrong.
            let _ = std::thread::Builder::new().name("layer".into()).spawn_scoped(scope, work);
        }
        work();
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(error);
    }
    let mut late = late.into_inner().unwrap_or_else(|e| e.into_inner());
    late.sort_unstable();
    for place in late {
        let below = jobs[..place].iter().rev();
        let lower: Vec<PathBuf> = below.map(|job| store.layer_tree(&job.chain_id)).collect();
        let layer = take_layer(store, source, &jobs[place], &lower, options, progress, &stop)?;
        *lock(&done[place]) = Some(layer);
    }
    let chain: Vec<ChainId> = jobs.iter().map(|job| job.chain_id).collect();
    for count in 1..=chain.len() {
        store.settle_layer(&chain[..count])?;
    }
    Ok(done.into_iter().filter_map(|layer| layer.into_inner().unwrap_or_else(|e| e.into_inner())).collect())
}

fn take_layer(
    store: &Store,
    source: &dyn Source,
    job: &Job<'_>,
    lower: &[PathBuf],
    options: &PullOptions,
    progress: &dyn Progress,
    stop: &AtomicBool,
) -> Result<LayerRef, Error> {
    let digest = job.blob.digest;
    let told = |bytes: u64| progress.advanced(&digest, bytes.min(job.blob.size));
    let mut begun = false;
    let mut table = None;
    for origin in origins(store, job) {
        let staged = match store.reserve_layer(job.chain_id)? {
            LayerSlot::Ready(record) => {
                progress.finished(&digest, true);
                return Ok(layer_ref(job, record.size));
            }
            LayerSlot::Vacant(staged) => staged,
        };
        if !std::mem::replace(&mut begun, true) {
            progress.started(&digest, job.blob.size);
        }
        let unpack = unpack::Options {
            ownership: options.ownership,
            max_file: options.max_layer,
            max_entries: 20_000_000,
            lower,
            staged: Some(&staged),
        };
        let limit = unpacked_limit(job.blob.size, options.max_layer);
        let expected = Expected { blob: job.blob, diff_id: job.diff_id, limit, unpack };
        let take = |inner: Box<dyn Read + Send + '_>, keep: Option<PathBuf>, expected: Expected<'_>| {
            let mut reader = Stoppable { inner, stop };
            layer::take(&mut reader, keep.as_deref(), &staged.diff(), expected, &told)
        };
        let taken = match &origin {
            Origin::Blob(path) => match std::fs::File::open(path) {
                Ok(file) => take(Box::new(file), None, expected),
                Err(_) => continue,
            },
            Origin::Recipe(files) => {
                let Some(kept) = files.record() else { continue };
                let Ok(archive) = recipe::Reader::open(&files.recipe(), &files.tree(), &files.aside()) else {
                    continue;
                };
                let archived = Descriptor { media_type: String::new(), digest: job.diff_id, size: kept.size };
                take(Box::new(archive), None, Expected { blob: &archived, ..expected })
            }
            Origin::Chunked(positions) => {
                table = chunked::Table::fetch(source, job.blob, positions);
                let rebuilt = table.as_ref().and_then(|table| table.rebuild(store, source, job.blob));
                let (Some(archive), Some(table)) = (rebuilt, &table) else { continue };
                let archived =
                    Descriptor { media_type: String::new(), digest: job.diff_id, size: table.size() };
                take(Box::new(archive), None, Expected { blob: &archived, ..expected })
            }
            Origin::Source => {
                // What a registry gave it gives again; anything else may be gone tomorrow.
                let keep = source.repository().is_none().then(|| staged.blob());
                take(source.blob(job.blob)?, keep, expected)
            }
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) if error.wants_lower() || stop.load(Ordering::Relaxed) => return Err(error.into()),
            // What a power cut left of it is not what was written.
            Err(error) if error.blames_source() && !matches!(origin, Origin::Source) => {
                drop(staged);
                if let Origin::Blob(path) = origin {
                    store.discard(&path)?;
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let record = taken.record(job.diff_id, digest, options.ownership)?;
        if let (Some(table), Some(dir)) = (&table, staged.diff().parent()) {
            // Without it the next one is fetched whole.
            let _ = table.note(dir);
        }
        staged.publish(&record)?;
        progress.finished(&digest, false);
        return Ok(layer_ref(job, taken.size));
    }
    // The source is the last origin, and either gives the layer or an error.
    Err(source::Error::Open { path: store.blob_path(&digest), source: io::ErrorKind::NotFound.into() }.into())
}

/// What a layer can be made of.
enum Origin {
    /// The same blob lies here: it belongs to another image too, or was unpacked before.
    Blob(PathBuf),
    /// The layer was unpacked for another mapping of ids, or a power cut took its being trusted: what
    /// is made of it is checked by its digest.
    Recipe(LayerFiles),
    /// Files of other layers, and parts of a blob with a table of contents.
    Chunked(chunked::Positions),
    /// What is pulled from.
    Source,
}

fn origins(store: &Store, job: &Job<'_>) -> Vec<Origin> {
    let mut origins = Vec::new();
    let kept = store.blob_path(&job.blob.digest);
    if std::fs::metadata(&kept).is_ok_and(|stat| stat.len() == job.blob.size) {
        origins.push(Origin::Blob(kept));
    }
    let kinds = store.layer_kinds(&job.chain_id).into_iter();
    origins.extend(kinds.filter(|files| files.recipe().exists()).map(Origin::Recipe));
    origins.extend(job.chunked.clone().map(Origin::Chunked));
    origins.push(Origin::Source);
    origins
}

fn layer_ref(job: &Job<'_>, size: u64) -> LayerRef {
    LayerRef {
        chain_id: job.chain_id,
        diff_id: job.diff_id,
        blob: Some(job.blob.digest),
        blob_size: job.blob.size,
        size,
    }
}

/// A reader that fails once another layer has.
struct Stoppable<'a, R> {
    inner: R,
    stop: &'a AtomicBool,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped because another layer failed"));
        }
        self.inner.read(into)
    }
}
