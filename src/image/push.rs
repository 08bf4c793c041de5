//! Handing an image out of the store: its layers, some at a time, then its configuration, then the
//! manifest that makes it visible.
//!
//! A layer goes the cheapest way that keeps its digest: not at all, where it is there already; by a
//! word to the registry that has it in another repository; from the blob that is kept; from the
//! archive, where that is the blob; from a registry that it came from. Only if none of these is left is
//! it compressed anew, and the manifest changes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::chunked;
use super::compress::{self, Format};
use super::content::{self, Verified, open_blob, open_tar};
use super::destination::{self, Destination, Image, Layers};
use super::lock;
use super::manifest::{self, Compression, Descriptor, Document, Platform};
use super::pull::Progress;
use super::reference::Reference;
use super::registry::{self, Content, Mounted, Registry};
use super::rewrite::{self, Form, NewBlob};
use super::source::Source;
use crate::base::digest::{ChainId, Digest};
use crate::storage::{self, ImageRecord, LayerRef, Store};
use crate::sys::atomic::Pending;

/// How to push.
#[derive(Clone, Debug, Default)]
pub struct PushOptions {
    /// The kind of manifest; else as it is.
    pub form: Option<Form>,
    /// How layers are compressed that have to be; else gzip.
    pub compression: Option<Format>,
    /// Compress anew also what is compressed in another way.
    pub force_compression: bool,
    /// Compress what is not, wherever it goes.
    pub compress: bool,
    /// Layers go uncompressed.
    pub uncompressed: bool,
    /// Most layers at the same time; 0 is the usual number.
    pub parallel: usize,
    /// Full names that the image is to have, where the destination keeps such.
    pub names: Vec<String>,
}

/// A repository that has the image's blobs, and how to ask there.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `registry/repository`.
    pub reference: Reference,
    /// How to ask.
    pub options: registry::Options,
}

/// An image that cannot be pushed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Where it goes to.
    #[error(transparent)]
    Destination(#[from] destination::Error),
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// A layer.
    #[error(transparent)]
    Content(#[from] content::Error),
    /// Its manifest or configuration is not in the store any more.
    #[error("the store has lost the {what} {digest}")]
    Lost {
        /// What.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// The manifest.
    #[error("the image's manifest is unusable")]
    Manifest(#[source] manifest::Error),
    /// An OCI layout with another kind of manifest.
    #[error("an OCI layout takes OCI's manifests only")]
    Form,
    /// What Docker's schema 2 has no word for.
    #[error("manifests of Docker's schema 2 have no zstd layers")]
    Zstd,
    /// A layer cannot be compressed.
    #[error("compressing the layer {digest}")]
    Compress {
        /// Its diff id.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// The digest of the manifest.
    pub manifest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// Its kind.
    pub form: Form,
    /// How many layers had to be compressed anew because their blobs were nowhere to be had.
    pub renewed: usize,
}

/// Puts an image somewhere. `origins` are the registries that it may have come from.
///
/// Starts threads: the caller has entered the user namespace that owns the layers' files before.
pub fn push(
    store: &Store,
    image: &ImageRecord,
    destination: &dyn Destination,
    origins: &[Origin],
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<Pushed, Error> {
    let lost = |what, digest| Error::Lost { what, digest };
    let chain: Vec<ChainId> = image.layers.iter().map(|layer| layer.chain_id).collect();
    let mut blobs: Vec<Digest> = image.layers.iter().flat_map(|layer| layer.blob).collect();
    blobs.extend([image.manifest, image.id]);
    let _pins = store.pin(&chain, &blobs)?;
    let bytes = store.read_blob(&image.manifest)?.ok_or_else(|| lost("manifest", image.manifest))?;
    let config = store.read_blob(&image.id)?.ok_or_else(|| lost("configuration", image.id))?;
    let document = Document::parse(&bytes, Some(&image.media_type)).map_err(Error::Manifest)?;
    let Document::Manifest(manifest) = document else {
        return Err(Error::Manifest(manifest::Error::MediaType(image.media_type.clone())));
    };
    if manifest.layers.len() != image.layers.len() {
        let (diff_ids, layers) = (image.layers.len(), manifest.layers.len());
        return Err(Error::Manifest(manifest::Error::LayerCount { diff_ids, layers }));
    }
    let zstd = matches!(options.compression, Some(Format::Zstd | Format::Chunked));
    let form = match (options.form, destination.form()) {
        (Some(asked), Some(only)) if asked != only => return Err(Error::Form),
        (Some(Form::Docker), _) if zstd => return Err(Error::Zstd),
        (None, None) if zstd => Form::Oci,
        (asked, only) => asked.or(only).unwrap_or(Form::of(&manifest.media_type)),
    };
    let placing = Placing {
        store,
        destination,
        options,
        form,
        progress,
        origins,
        known: known_repositories(store, image, destination)?,
        native: Form::of(&manifest.media_type) == Form::Oci
            && image.repo_digests.iter().any(|known| known.ends_with(&image.manifest.to_string())),
        opened: Mutex::default(),
        renewed: AtomicUsize::new(0),
    };
    let jobs: Vec<(&LayerRef, &Descriptor)> = image.layers.iter().zip(&manifest.layers).collect();
    let placed = placing.all(&jobs)?;
    let renewed = placing.renewed.load(Ordering::Relaxed);
    destination.put_config(&image.id, &config)?;
    let (bytes, media_type) =
        rewrite::rewrite(&bytes, &manifest.media_type, form, &placed).map_err(Error::Manifest)?;
    let layers: Vec<Digest> = jobs
        .iter()
        .zip(&placed)
        .map(|((_, descriptor), new)| new.map_or(descriptor.digest, |blob| blob.digest))
        .collect();
    let platform = Platform::from(image);
    destination.put_image(&Image {
        manifest: &bytes,
        media_type: &media_type,
        config: &config,
        layers: &layers,
        names: &options.names,
        platform: &platform,
    })?;
    Ok(Pushed { manifest: Digest::of(&bytes), size: bytes.len() as u64, form, renewed })
}

/// The other repositories of the destination's registry that have a layer's blob, as far as images here
/// came from them.
fn known_repositories(
    store: &Store,
    image: &ImageRecord,
    destination: &dyn Destination,
) -> Result<HashMap<Digest, Vec<String>>, Error> {
    let mut known: HashMap<Digest, Vec<String>> = HashMap::new();
    let Some(there) = destination.repository() else { return Ok(known) };
    let wanted: Vec<Digest> = image.layers.iter().map(|layer| layer.diff_id).collect();
    for other in store.images()? {
        let repositories: Vec<String> = other
            .repo_digests
            .iter()
            .filter_map(|name| name.parse::<Reference>().ok())
            .filter(|name| name.registry() == there.registry() && name.repository() != there.repository())
            .map(|name| name.repository().to_owned())
            .collect();
        if repositories.is_empty() {
            continue;
        }
        for layer in other.layers.iter().filter(|layer| wanted.contains(&layer.diff_id)) {
            let of_layer = known.entry(layer.diff_id).or_default();
            of_layer.extend(
                repositories.iter().filter(|one| !of_layer.contains(one)).cloned().collect::<Vec<_>>(),
            );
        }
    }
    Ok(known)
}

/// More repositories than this are not asked for one blob.
const MOUNTS: usize = 3;

/// How a layer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// As the blob that the manifest names.
    Keep,
    /// As a plain archive.
    Plain,
    /// Compressed by us.
    Compress(Format),
}

struct Placing<'a> {
    store: &'a Store,
    destination: &'a dyn Destination,
    options: &'a PushOptions,
    form: Form,
    progress: &'a dyn Progress,
    origins: &'a [Origin],
    known: HashMap<Digest, Vec<String>>,
    /// The manifest came from elsewhere in OCI's form: a plain layer in it is meant so.
    native: bool,
    /// Origins that were asked already, by their place; `None` if they cannot be.
    opened: Mutex<HashMap<usize, Option<std::sync::Arc<Registry>>>>,
    renewed: AtomicUsize,
}

impl<'a> Placing<'a> {
    /// Puts all layers, some at a time. The first failure stops the others.
    fn all(&self, jobs: &[(&LayerRef, &Descriptor)]) -> Result<Vec<Option<NewBlob>>, Error> {
        let usual = || std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 6);
        let parallel = match (self.destination.parallel(), self.options.parallel) {
            (false, _) => 1,
            (true, 0) => usual(),
            (true, number) => number,
        };
        // The same layer may be in an image several times: it goes once.
        let first: Vec<usize> = jobs
            .iter()
            .map(|(_, blob)| jobs.iter().position(|(_, other)| other.digest == blob.digest).unwrap_or(0))
            .collect();
        let next = AtomicUsize::new(0);
        let stop = AtomicBool::new(false);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        let done: Vec<Mutex<Option<NewBlob>>> = jobs.iter().map(|_| Mutex::new(None)).collect();
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let place = next.fetch_add(1, Ordering::Relaxed);
                let Some((layer, blob)) = jobs.get(place) else { return };
                if first[place] != place {
                    continue;
                }
                match self.place(layer, blob) {
                    Ok(new) => *lock(&done[place]) = new,
                    Err(error) => {
                        let mut failure = lock(&failure);
                        if !stop.swap(true, Ordering::Relaxed) {
                            *failure = Some(error);
                        }
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..parallel.min(jobs.len()) {
                // Fewer threads than wished are slower, not wrong.
                let _ = std::thread::Builder::new().name("layer".into()).spawn_scoped(scope, work);
            }
            work();
        });
        if let Some(error) = failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            return Err(error);
        }
        let done: Vec<Option<NewBlob>> = done.iter().map(|slot| *lock(slot)).collect();
        Ok(first.iter().map(|place| done[*place]).collect())
    }

    fn treatment(&self, blob: &Descriptor) -> Treatment {
        let now = rewrite::compression(&blob.media_type);
        let wanted = self.options.compression.unwrap_or(Format::GZIP);
        let is_wanted = match wanted {
            // A level that was asked for is not known to be the blob's.
            Format::Gzip(level) => now == Some(Compression::Gzip) && Format::Gzip(level) == Format::GZIP,
            Format::Zstd => now == Some(Compression::Zstd),
            // Whether the blob has a table its type does not say.
            Format::Chunked => false,
        };
        let plain = now == Some(Compression::None);
        match self.destination.layers() {
            Layers::Plain if plain => Treatment::Keep,
            Layers::Plain => Treatment::Plain,
            _ if self.options.uncompressed && !plain => Treatment::Plain,
            _ if self.options.uncompressed => Treatment::Keep,
            _ if self.options.force_compression && !is_wanted => Treatment::Compress(wanted),
            // containers/image knows no such thing.
            _ if now == Some(Compression::Zstd) && self.form == Form::Docker => {
                Treatment::Compress(Format::GZIP)
            }
            _ if plain && self.options.compress => Treatment::Compress(wanted),
            Layers::Compressed if plain && !self.native => Treatment::Compress(wanted),
            _ => Treatment::Keep,
        }
    }

    /// Puts one layer; returns the blob that it became, if that is another than the manifest names.
    fn place(&self, layer: &LayerRef, blob: &Descriptor) -> Result<Option<NewBlob>, Error> {
        let format = match self.treatment(blob) {
            Treatment::Keep if self.place_as_it_is(layer, blob)? => return Ok(None),
            Treatment::Keep => {
                self.renewed.fetch_add(1, Ordering::Relaxed);
                let zstd = rewrite::compression(&blob.media_type) == Some(Compression::Zstd);
                if zstd { Format::Zstd } else { Format::GZIP }
            }
            Treatment::Plain => {
                let (digest, size) = (layer.diff_id, layer.size);
                if self.destination.has_blob(&digest, size)? {
                    self.progress.finished(&digest, true);
                } else {
                    self.put(digest, size, &|| self.tar(layer), None)?;
                }
                return Ok(Some(NewBlob { digest, size, compression: Compression::None, chunked: None }));
            }
            Treatment::Compress(format) => format,
        };
        self.place_compressed(layer, format).map(Some)
    }

    /// The ways that keep the digest, the cheapest first; says whether one of them was open.
    fn place_as_it_is(&self, layer: &LayerRef, blob: &Descriptor) -> Result<bool, Error> {
        let digest = blob.digest;
        if self.destination.has_blob(&digest, blob.size)? {
            self.progress.finished(&digest, true);
            return Ok(true);
        }
        let mut session = None;
        for from in self.known.get(&layer.diff_id).into_iter().flatten().take(MOUNTS) {
            match self.destination.mount(&digest, from)? {
                Mounted::Yes => {
                    self.progress.finished(&digest, true);
                    return Ok(true);
                }
                Mounted::Upload(url) => {
                    session = Some(url);
                    break;
                }
                Mounted::No => {}
            }
        }
        if open_blob(self.store, &digest, Some(blob.size))?.is_some() {
            let open = || -> io::Result<Box<dyn Read + Send>> {
                let file = open_blob(self.store, &digest, Some(blob.size)).map_err(io::Error::other)?;
                let file = file.ok_or(io::ErrorKind::NotFound)?;
                Ok(Box::new(Verified::new(file, digest, blob.size)))
            };
            self.put(digest, blob.size, &open, session)?;
            return Ok(true);
        }
        if digest == layer.diff_id {
            self.put(digest, layer.size, &|| self.tar(layer), session)?;
            return Ok(true);
        }
        for place in 0..self.origins.len() {
            let Some(registry) = self.origin(place) else { continue };
            if !matches!(registry.has_blob(&digest), Ok(true)) {
                continue;
            }
            let open = || -> io::Result<Box<dyn Read + Send + '_>> {
                let reader = registry.blob(blob).map_err(io::Error::other)?;
                Ok(Box::new(Verified::new(reader, digest, blob.size)))
            };
            self.put(digest, blob.size, &open, session)?;
            return Ok(true);
        }
        Ok(false)
    }

    fn origin(&self, place: usize) -> Option<std::sync::Arc<Registry>> {
        let mut opened = lock(&self.opened);
        let origin = &self.origins[place];
        let registry = opened.entry(place).or_insert_with(|| {
            Registry::new(&origin.reference, &origin.options).ok().map(std::sync::Arc::new)
        });
        registry.clone()
    }

    /// Compresses a layer into a file without a name, so that its digest is known before it goes.
    fn place_compressed(&self, layer: &LayerRef, format: Format) -> Result<NewBlob, Error> {
        let failed = |source| Error::Compress { digest: layer.diff_id, source };
        let mut tar = open_tar(self.store, layer)?;
        let mut pending = Pending::create(&self.store.path("staging"), 0o600).map_err(failed)?;
        if format == Format::Chunked {
            match chunked::compress(&mut io::BufReader::new(&mut tar), &mut pending.file) {
                Ok(written) => {
                    let (digest, size, chunked) = (written.digest, written.size, Some(written.marks));
                    let new = NewBlob { digest, size, compression: Compression::Zstd, chunked };
                    return self.put_file(new, &pending.file);
                }
                // Sparse files, names that are no UTF-8: no table can hold them.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                    return self.place_compressed(layer, Format::Zstd);
                }
                Err(source) => return Err(failed(source)),
            }
        }
        let (digest, size) = compress::compress(&mut tar, format, &mut pending.file).map_err(failed)?;
        let compression = match format {
            Format::Gzip(_) => Compression::Gzip,
            Format::Zstd | Format::Chunked => Compression::Zstd,
        };
        self.put_file(NewBlob { digest, size, compression, chunked: None }, &pending.file)
    }

    /// Puts a blob that is in a file, unless it is there.
    fn put_file(&self, new: NewBlob, file: &File) -> Result<NewBlob, Error> {
        let NewBlob { digest, size, .. } = new;
        if self.destination.has_blob(&digest, size)? {
            self.progress.finished(&digest, true);
            return Ok(new);
        }
        let open = || -> io::Result<Box<dyn Read + Send + '_>> { Ok(Box::new(FromStart { file, at: 0 })) };
        self.put(digest, size, &open, None)?;
        Ok(new)
    }

    fn tar(&self, layer: &LayerRef) -> io::Result<Box<dyn Read + Send>> {
        open_tar(self.store, layer).map_err(io::Error::other)
    }

    #[allow(
        clippy::elidable_lifetime_names,
        clippy::needless_lifetimes,
        reason = "a closure's result needs it"
    )]
    fn put<'c>(
        &self,
        digest: Digest,
        size: u64,
        open: &'c (dyn Fn() -> io::Result<Box<dyn Read + Send + 'c>> + Sync),
        session: Option<String>,
    ) -> Result<(), Error> {
        self.progress.started(&digest, size);
        let content = Content { digest, size, open };
        self.destination.put_blob(&content, session, &|bytes| self.progress.advanced(&digest, bytes))?;
        self.progress.finished(&digest, false);
        Ok(())
    }
}

/// Reads a file from its beginning whatever its offset is.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
