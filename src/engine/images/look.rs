//! What a registry or another place has under a name, without pulling it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use super::pull::{At, Attempt, Failure, PullOptions, attempts, candidates, in_child};
use crate::base::digest::Digest;
use crate::engine::Engine;
use crate::image::list;
use crate::image::manifest::{Config, Document, Manifest, Platform};
use crate::image::source::{self, Fetched, Source};
use crate::image::{Transport, pull};
use crate::storage::Store;

/// An image somewhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceImage {
    /// Its descriptor, with its platform.
    pub descriptor: Value,
    /// Where it is, as a transport is written.
    pub source: String,
}

/// The images that a name means: the one for the platform, or with `all` each of a list.
pub fn look(
    engine: &Engine,
    name: &str,
    options: &PullOptions,
    all: bool,
) -> Result<Vec<SourceImage>, Error> {
    let platform = options.platform()?;
    ask(engine, name, options, |source, place| {
        let root = source.root()?;
        let unusable = |source| source::Error::Manifest { what: name.to_owned(), source };
        let found = |descriptor| SourceImage { descriptor, source: place.to_owned() };
        match Document::parse(&root.bytes, root.media_type.as_deref()).map_err(unusable)? {
            Document::Manifest(manifest) => Ok(vec![found(describe(source, &root, &manifest, name)?)]),
            Document::Index(entries) => {
                let entries = source.select(entries)?;
                let chosen: Vec<_> = if all {
                    entries.iter().collect()
                } else {
                    vec![platform.choose(&entries).map_err(unusable)?]
                };
                let mut images = Vec::new();
                for entry in chosen {
                    let fetched = source::checked_manifest(source, &entry.descriptor)?;
                    let kind = fetched.media_type.as_deref().unwrap_or(&entry.descriptor.media_type);
                    let descriptor = match (&entry.platform, Document::parse(&fetched.bytes, Some(kind))) {
                        (None, Ok(Document::Manifest(manifest))) => {
                            describe(source, &fetched, &manifest, name)?
                        }
                        (platform, _) => list::descriptor(kind, &fetched.bytes, platform.as_ref()),
                    };
                    images.push(found(descriptor));
                }
                Ok(images)
            }
        }
    })
}

/// The manifest or list that a name leads to, as it is there.
pub fn root_document(engine: &Engine, name: &str, options: &PullOptions) -> Result<Vec<u8>, Error> {
    ask(engine, name, options, |source, _| Ok(source.root()?.bytes))
}

/// Where a name leads, as a transport is written, and the digest of what is there; with `all` of each image of a list
/// too.
pub(super) fn digests(
    engine: &Engine,
    name: &str,
    options: &PullOptions,
    all: bool,
) -> Result<(String, Vec<Digest>), Error> {
    ask(engine, name, options, |source, place| {
        let root = source.root()?;
        let mut digests = vec![Digest::of(&root.bytes)];
        if all {
            let unusable = |source| source::Error::Manifest { what: name.to_owned(), source };
            let document = Document::parse(&root.bytes, root.media_type.as_deref()).map_err(unusable)?;
            if let Document::Index(entries) = document {
                digests.extend(entries.iter().map(|entry| entry.descriptor.digest));
            }
        }
        Ok((place.to_owned(), digests))
    })
}

/// An image's descriptor; its platform is in its configuration.
fn describe(
    source: &dyn Source,
    fetched: &Fetched,
    manifest: &Manifest,
    what: &str,
) -> Result<Value, source::Error> {
    let bytes = source::checked_blob(source, &manifest.config)?;
    let config =
        Config::parse(&bytes).map_err(|source| source::Error::Manifest { what: what.to_owned(), source })?;
    let platform: Platform = config.platform();
    Ok(list::descriptor(&manifest.media_type, &fetched.bytes, Some(&platform)))
}

/// Asks the first place that answers, in a process of its own: credentials stay out of this one.
fn ask<T: Serialize + serde::de::DeserializeOwned>(
    engine: &Engine,
    name: &str,
    options: &PullOptions,
    work: impl Fn(&dyn Source, &str) -> Result<T, source::Error>,
) -> Result<T, Error> {
    let at = At::new(engine);
    let sources: Vec<Transport> = match Transport::is_explicit(name) {
        true => vec![name.parse()?],
        false => candidates(&at.store, name, None)?,
    };
    in_child(&at, name, false, |store| {
        let mut last = None;
        for attempt in attempts(&at, &sources, options)? {
            match once(store, &attempt, &work) {
                Ok(value) => return Ok(value),
                Err(error) => last = Some(last.unwrap_or_else(|| Failure::of_pull(&error))),
            }
        }
        Err(last.unwrap_or_else(|| {
            Failure::of_pull(&pull::Error::Source(source::Error::NoSuchImage {
                path: name.into(),
                wanted: name.to_owned(),
                available: Vec::new(),
            }))
        }))
    })
}

fn once<T>(
    store: &Store,
    attempt: &Attempt,
    work: &impl Fn(&dyn Source, &str) -> Result<T, source::Error>,
) -> Result<T, pull::Error> {
    let source = pull::open(store, &attempt.source, &attempt.options)?;
    Ok(work(&*source, &attempt.source.to_string())?)
}
