//! Taking an image from one place to another without having it here, and what belongs to it as it is.

use std::io::{self, Read};

use super::content::Verified;
use super::destination::{self, Destination, Image};
use super::manifest::{self, Config, Descriptor, Document};
use super::pull::Progress;
use super::registry::{Content, Mounted};
use super::source::{self, Fetched, Source};
use super::trust;
use crate::base::digest::Digest;

/// An image that cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Where it comes from.
    #[error(transparent)]
    Source(#[from] source::Error),
    /// Where it goes to.
    #[error(transparent)]
    Destination(#[from] destination::Error),
    /// It may not be taken.
    #[error(transparent)]
    Trust(#[from] trust::Error),
    /// Its manifest or configuration.
    #[error("the image's manifest is unusable")]
    Manifest(#[source] manifest::Error),
}

/// Copies the image with this manifest, byte for byte; what is there already is not read.
pub fn copy(
    source: &dyn Source,
    manifest: &Fetched,
    destination: &dyn Destination,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let document = Document::parse(&manifest.bytes, manifest.media_type.as_deref());
    let Document::Manifest(parsed) = document.map_err(Error::Manifest)? else {
        return Err(Error::Manifest(manifest::Error::Nesting));
    };
    for layer in &parsed.layers {
        copy_blob(source, layer, destination, progress)?;
    }
    let config = source::checked_blob(source, &parsed.config)?;
    destination.put_config(&parsed.config.digest, &config)?;
    let platform = Config::parse(&config).map_err(Error::Manifest)?.platform();
    let layers: Vec<Digest> = parsed.layers.iter().map(|layer| layer.digest).collect();
    destination.put_image(&Image {
        manifest: &manifest.bytes,
        media_type: &parsed.media_type,
        config: &config,
        layers: &layers,
        names: &[],
        platform: &platform,
    })?;
    Ok(())
}

/// Copies one blob, or has the registry take it over from another of its repositories.
pub fn copy_blob(
    source: &dyn Source,
    blob: &Descriptor,
    destination: &dyn Destination,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let Descriptor { digest, size, .. } = *blob;
    if destination.has_blob(&digest, size)? {
        progress.finished(&digest, true);
        return Ok(());
    }
    let mut session = None;
    if let (Some(from), Some(there)) = (source.repository(), destination.repository())
        && let Some((registry, repository)) = from.split_once('/')
        && Some(registry) == there.registry()
    {
        match destination.mount(&digest, repository)? {
            Mounted::Yes => {
                progress.finished(&digest, true);
                return Ok(());
            }
            Mounted::Upload(begun) => session = Some(begun),
            Mounted::No => {}
        }
    }
    progress.started(&digest, size);
    let open = || -> io::Result<Box<dyn Read + Send + '_>> {
        let opened =
            source.blob(blob).map_err(|error| io::Error::other(crate::base::report::chain(&error)))?;
        Ok(Box::new(Verified::new(opened, digest, size)))
    };
    let content = Content { digest, size, open: &open };
    destination.put_blob(&content, session, &|bytes| progress.advanced(&digest, bytes))?;
    progress.finished(&digest, false);
    Ok(())
}
