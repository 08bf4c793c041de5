//! Where images go to, the same for every transport: registries, OCI layouts, skopeo's directories,
//! archives.

mod archive;
mod directory;

use std::io;
use std::path::PathBuf;

use super::reference::Reference;
use super::registry::{self, Content, Mounted, Registry};
use super::rewrite::Form;
use crate::base::digest::Digest;

pub use archive::{DockerArchive, OciArchive};
pub use directory::{Directory, Layout};

/// An image that cannot be put somewhere.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A file cannot be written.
    #[error("writing \"{}\"", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A blob cannot be read.
    #[error("reading the blob {digest}")]
    Content {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory's index is damaged.
    #[error("parsing \"{}\"", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It holds images only.
    #[error("docker-archive: holds no manifest lists")]
    NoLists,
    /// The directory holds something else, which must not be mixed with an image.
    #[error("\"{}\" is not empty and holds no {what}", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// What it could hold.
        what: &'static str,
    },
}

/// What a destination wants of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// As they are.
    Any,
    /// Compressed, for they go over a line.
    Compressed,
    /// Plain archives.
    Plain,
}

/// An image whose blobs are there.
#[derive(Debug)]
pub struct Image<'a> {
    /// Its manifest.
    pub manifest: &'a [u8],
    /// The manifest's media type.
    pub media_type: &'a str,
    /// Its configuration.
    pub config: &'a [u8],
    /// Digests of its layers as they were put, lowest first.
    pub layers: &'a [Digest],
    /// Full names that it is to have, where the destination keeps such.
    pub names: &'a [String],
    /// Its platform, for an index.
    pub platform: &'a super::Platform,
}

/// What an image is pushed to.
pub trait Destination: Sync {
    /// What it wants of layers.
    fn layers(&self) -> Layers {
        Layers::Any
    }

    /// The one kind of manifest that it takes.
    fn form(&self) -> Option<Form> {
        None
    }

    /// Whether it takes several blobs at a time.
    fn parallel(&self) -> bool {
        true
    }

    /// Whether a blob is there already.
    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error>;

    /// The registry and the repository, if it is one.
    fn repository(&self) -> Option<&Reference> {
        None
    }

    /// Takes a blob over from another repository of the same registry.
    fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted, Error> {
        let _ = (digest, from);
        Ok(Mounted::No)
    }

    /// Stores a layer. `session` is what [`Destination::mount`] began.
    fn put_blob(
        &self,
        content: &Content<'_>,
        session: Option<String>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error>;

    /// Stores a configuration.
    fn put_config(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.has_blob(digest, bytes.len() as u64)? {
            return Ok(());
        }
        let owned = bytes.to_vec();
        let open =
            move || -> io::Result<Box<dyn io::Read + Send>> { Ok(Box::new(io::Cursor::new(owned.clone()))) };
        let content = Content { digest: *digest, size: bytes.len() as u64, open: &open };
        self.put_blob(&content, None, &|_| {})
    }

    /// Makes the image visible.
    fn put_image(&self, image: &Image<'_>) -> Result<(), Error>;

    /// Stores the manifest of one of a list: it gets no name but its digest.
    fn put_member(&self, media_type: &str, manifest: &[u8]) -> Result<(), Error>;

    /// Stores a list whose images are there, under the destination's name.
    fn put_list(&self, media_type: &str, bytes: &[u8]) -> Result<(), Error>;

    /// Ends it: nothing more comes.
    fn finish(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// A destination for the images of a list.
pub struct Members<'a>(pub &'a dyn Destination);

impl Destination for Members<'_> {
    fn layers(&self) -> Layers {
        self.0.layers()
    }

    fn form(&self) -> Option<Form> {
        self.0.form()
    }

    fn parallel(&self) -> bool {
        self.0.parallel()
    }

    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        self.0.has_blob(digest, size)
    }

    fn repository(&self) -> Option<&Reference> {
        self.0.repository()
    }

    fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted, Error> {
        self.0.mount(digest, from)
    }

    fn put_blob(
        &self,
        content: &Content<'_>,
        session: Option<String>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        self.0.put_blob(content, session, progress)
    }

    fn put_image(&self, image: &Image<'_>) -> Result<(), Error> {
        self.0.put_member(image.media_type, image.manifest)
    }

    fn put_member(&self, media_type: &str, manifest: &[u8]) -> Result<(), Error> {
        self.0.put_member(media_type, manifest)
    }

    fn put_list(&self, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        self.0.put_list(media_type, bytes)
    }
}

/// A repository of a registry.
pub struct Remote {
    registry: Registry,
    reference: Reference,
}

impl Remote {
    /// The image `reference`; connects to nothing yet.
    pub fn new(reference: &Reference, options: &registry::Options) -> Result<Self, Error> {
        let registry = Registry::to_push(reference, options)?;
        Ok(Self { registry, reference: reference.clone() })
    }

    /// What is there already.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Stores a document whose blobs and images are there, under the reference's tag.
    pub fn put_document(&self, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.registry.put_manifest(&self.reference.selector(), media_type, bytes)?)
    }
}

impl Destination for Remote {
    fn layers(&self) -> Layers {
        Layers::Compressed
    }

    fn has_blob(&self, digest: &Digest, _: u64) -> Result<bool, Error> {
        Ok(self.registry.has_blob(digest)?)
    }

    fn repository(&self) -> Option<&Reference> {
        Some(&self.reference)
    }

    fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted, Error> {
        Ok(self.registry.mount(digest, from)?)
    }

    fn put_blob(
        &self,
        content: &Content<'_>,
        session: Option<String>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        Ok(self.registry.upload(content, session, progress)?)
    }

    fn put_image(&self, image: &Image<'_>) -> Result<(), Error> {
        self.put_document(image.media_type, image.manifest)
    }

    fn put_member(&self, media_type: &str, manifest: &[u8]) -> Result<(), Error> {
        let digest = Digest::of(manifest).to_string();
        Ok(self.registry.put_manifest(&digest, media_type, manifest)?)
    }

    fn put_list(&self, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        self.put_document(media_type, bytes)
    }
}

/// Copies a blob whole; the progress is told.
fn copy(content: &Content<'_>, into: &mut dyn io::Write, progress: &dyn Fn(u64)) -> Result<(), CopyError> {
    let mut source = (content.open)().map_err(CopyError::Read)?;
    let mut buffer = vec![0; 128 << 10];
    let mut left = content.size;
    while left > 0 {
        let limit = left.min(buffer.len() as u64) as usize;
        match source.read(&mut buffer[..limit]) {
            Ok(0) => return Err(CopyError::Read(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                into.write_all(&buffer[..count]).map_err(CopyError::Write)?;
                left -= count as u64;
                progress(content.size - left);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(CopyError::Read(error)),
        }
    }
    Ok(())
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

impl CopyError {
    fn at(self, digest: Digest, path: &std::path::Path) -> Error {
        match self {
            Self::Read(source) => Error::Content { digest, source },
            Self::Write(source) => Error::Write { path: path.to_owned(), source },
        }
    }
}

/// An image's entry in the index of an OCI layout.
fn index_entry(image: &Image<'_>, tag: Option<&str>) -> serde_json::Value {
    let mut entry = serde_json::json!({
        "mediaType": image.media_type,
        "digest": Digest::of(image.manifest),
        "size": image.manifest.len(),
        "platform": { "os": image.platform.os, "architecture": image.platform.architecture },
    });
    if let Some(variant) = &image.platform.variant {
        entry["platform"]["variant"] = variant.as_str().into();
    }
    named(entry, tag)
}

/// A list's entry in the index of an OCI layout.
fn list_entry(media_type: &str, bytes: &[u8], tag: Option<&str>) -> serde_json::Value {
    let entry =
        serde_json::json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() });
    named(entry, tag)
}

fn named(mut entry: serde_json::Value, tag: Option<&str>) -> serde_json::Value {
    if let Some(tag) = tag {
        entry["annotations"] = serde_json::json!({ REF_NAME: tag });
    }
    entry
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The file `oci-layout`.
const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

fn empty_index() -> serde_json::Value {
    serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [],
    })
}
