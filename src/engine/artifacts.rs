//! Artifacts: any files under a name, here and at registries (`artifact …`).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::images::{self, Failure};
use super::push::{Target, attach, failure, signers};
use super::reach::Reach;
use super::{Engine, Error as EngineError, apart, commit, now};
use crate::base::digest::Digest;
use crate::base::report;
use crate::image::artifact::{self, EMPTY, Manifest, TITLE};
use crate::image::content::{Verified, open_blob};
use crate::image::destination::{self, Destination, Remote};
use crate::image::manifest::Descriptor;
use crate::image::registry::{Content, Registry};
use crate::image::source::{self, Source};
use crate::image::trust::sign::Chosen;
use crate::image::{Progress, Reference, push, trust};
use crate::storage::{self, ArtifactRecord, Pins, Store};
use crate::sys::atomic::Pending;
use crate::sys::{child, host};

/// What goes wrong with artifacts.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Its name.
    #[error(transparent)]
    Name(#[from] commit::Error),
    /// How registries are reached.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// What it is made of.
    #[error("{action} artifact \"{name}\"")]
    Artifact {
        /// As "adding to".
        action: &'static str,
        /// The artifact.
        name: String,
        /// Why.
        #[source]
        source: artifact::Error,
    },
    /// A file of the user's.
    #[error("{action} \"{}\"", path.display())]
    File {
        /// As "reading".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The name is taken.
    #[error("adding artifact \"{0}\": there is one of this name already")]
    Exists(String),
    /// There is none.
    #[error("there is no artifact \"{0}\"")]
    NotFound(String),
    /// A digest's beginning fits several.
    #[error("several artifacts have a digest that begins with \"{0}\"")]
    Ambiguous(String),
    /// A blob is gone.
    #[error("the store has lost the file {digest} of artifact \"{name}\"")]
    Lost {
        /// The artifact.
        name: String,
        /// The blob.
        digest: Digest,
    },
    /// Several files do not go into one.
    #[error("extracting artifact \"{name}\": it has {count} files, and \"{}\" is no directory", path.display())]
    Several {
        /// The artifact.
        name: String,
        /// How many.
        count: usize,
        /// Where to.
        path: PathBuf,
    },
    /// The process that talks to a registry.
    #[error(transparent)]
    Apart(#[from] apart::Error),
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exists(_) => Some("--append adds files to it, --replace makes it anew".to_owned()),
            Self::NotFound(_) => Some("\"umiak artifact ls\" lists what is here".to_owned()),
            Self::Lost { name, .. } => Some(format!("umiak artifact pull {name}")),
            Self::Apart(error) => error.hint(),
            Self::Images(error) => error.hint(),
            _ => None,
        }
    }
}

/// The flags of `artifact add`.
#[derive(Clone, Debug, Default)]
pub struct AddFiles {
    /// To those that it has.
    pub append: bool,
    /// In the stead of one that is there.
    pub replace: bool,
    /// What kind of artifact.
    pub artifact_type: Option<String>,
    /// What kind of files; else as they look.
    pub file_type: Option<String>,
    /// `KEY=VALUE`, said of each file.
    pub annotations: BTreeMap<String, String>,
}

/// An artifact for a list: `manifest add --artifact`.
#[derive(Clone, Debug, Default)]
pub struct MakeArtifact {
    /// What kind of artifact.
    pub artifact_type: Option<String>,
    /// Its configuration; an empty one if none.
    pub config: Option<PathBuf>,
    /// What kind of configuration.
    pub config_type: Option<String>,
    /// What kind of files; else as they look.
    pub layer_type: Option<String>,
    /// The files' names are not told.
    pub exclude_titles: bool,
    /// The image that it is about.
    pub subject: Option<String>,
}

/// An artifact whose blobs are stored and not yet spoken of.
pub(super) struct MadeArtifact {
    /// Its manifest.
    pub manifest: Vec<u8>,
    /// What kind of artifact.
    pub artifact_type: Option<String>,
    /// Its manifest and all that this names.
    pub blobs: Vec<Digest>,
    _pins: Pins,
}

fn full_name(name: &str) -> Result<String, Error> {
    let names = commit::full_name(Some(name))?;
    names.into_iter().next().ok_or_else(|| Error::NotFound(name.to_owned()))
}

impl Engine {
    /// Makes an artifact of files, or adds files to one; returns the digest of its manifest.
    pub fn add_artifact(&self, name: &str, files: &[PathBuf], add: &AddFiles) -> Result<Digest, EngineError> {
        let full = full_name(name)?;
        let known = self.store.artifact(&full).map_err(Error::from)?;
        let failed = |source| Error::Artifact { action: "adding to", name: name.to_owned(), source };
        let mut manifest = match &known {
            Some(_) if !add.append && !add.replace => return Err(Error::Exists(name.to_owned()).into()),
            Some(known) if add.append => self.artifact_manifest(known)?,
            None if add.append => return Err(Error::NotFound(name.to_owned()).into()),
            _ => Manifest::new(add.artifact_type.clone(), now()),
        };
        let mut pending = Vec::new();
        for path in files {
            let (file, taken) = take_file(&self.store, path, add)?;
            manifest.add(file.clone()).map_err(failed)?;
            pending.push((taken, file.digest));
        }
        let bytes = manifest.bytes().map_err(failed)?;
        let (digest, blobs, _pins) = self.publish_artifact(&manifest, &bytes, pending)?;
        let record = ArtifactRecord::new(full, digest, blobs, host::now());
        self.store.put_artifact(&record).map_err(Error::from)?;
        Ok(digest)
    }

    /// Stores the files of an artifact and its manifest, which stay while the pins are held: their digests.
    fn publish_artifact(
        &self,
        manifest: &Manifest,
        bytes: &[u8],
        pending: Vec<(Pending, Digest)>,
    ) -> Result<(Digest, Vec<Digest>, Pins), Error> {
        let mut blobs = manifest.blobs();
        let pins = self.store.pin(&[], &[&blobs[..], &[Digest::of(bytes)]].concat())?;
        for (taken, digest) in pending {
            let place = self.store.blob_path(&digest);
            let publish = taken.publish(digest.hex().as_ref());
            publish.map_err(|source| Error::File { action: "writing", path: place, source })?;
        }
        if blobs.contains(&Digest::of(EMPTY)) {
            self.store.write_blob(EMPTY)?;
        }
        let digest = self.store.write_blob(bytes)?;
        blobs.sort_unstable();
        blobs.dedup();
        Ok((digest, blobs, pins))
    }

    /// Makes an artifact for a list, which has no name of its own.
    pub(super) fn make_artifact(
        &self,
        files: &[PathBuf],
        make: &MakeArtifact,
        subject: Option<Value>,
    ) -> Result<MadeArtifact, Error> {
        let failed = |source| Error::Artifact { action: "making", name: "for the list".to_owned(), source };
        let mut manifest = Manifest::new(make.artifact_type.clone(), now());
        let add = AddFiles { file_type: make.layer_type.clone(), ..AddFiles::default() };
        let mut pending = Vec::new();
        for path in files {
            let (mut file, taken) = take_file(&self.store, path, &add)?;
            if make.exclude_titles {
                file.annotations = None;
            }
            pending.push((taken, file.digest));
            manifest.add(file).map_err(failed)?;
        }
        if let Some(path) = &make.config {
            let (file, taken) = take_file(&self.store, path, &AddFiles::default())?;
            pending.push((taken, file.digest));
            manifest.config = artifact::File { annotations: None, ..file };
        }
        if make.config.is_some() || make.config_type.is_some() {
            let given = make.config_type.clone();
            manifest.config.media_type = given.unwrap_or_else(|| artifact::UNKNOWN_CONFIG.to_owned());
        }
        manifest.set_subject(subject);
        let bytes = manifest.bytes().map_err(failed)?;
        let (digest, mut blobs, pins) = self.publish_artifact(&manifest, &bytes, pending)?;
        blobs.push(digest);
        Ok(MadeArtifact { manifest: bytes, artifact_type: manifest.artifact_type, blobs, _pins: pins })
    }

    /// The manifest of an artifact.
    pub fn artifact_manifest(&self, record: &ArtifactRecord) -> Result<Manifest, Error> {
        let name = record.name.clone();
        let bytes = self.store.read_blob(&record.manifest)?;
        let bytes = bytes.ok_or_else(|| Error::Lost { name: name.clone(), digest: record.manifest })?;
        Manifest::parse(&bytes).map_err(|source| Error::Artifact { action: "reading", name, source })
    }

    /// The artifact of this name, or whose manifest's digest begins so.
    pub fn find_artifact(&self, text: &str) -> Result<ArtifactRecord, Error> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(full) = full_name(text)
            && let Some(record) = self.store.artifact(&full)?
        {
            return Ok(record);
        }
        let digits = hex.len() >= 3 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        let mut fitting: Vec<_> = self.store.artifacts()?;
        fitting.retain(|record| digits && record.manifest.hex().starts_with(hex));
        match fitting.len() {
            0 => Err(Error::NotFound(text.to_owned())),
            1 => Ok(fitting.remove(0)),
            _ => Err(Error::Ambiguous(text.to_owned())),
        }
    }

    /// Removes an artifact. Its files go by [`Engine::collect_images`].
    pub fn remove_artifact(&self, text: &str) -> Result<Digest, EngineError> {
        let record = self.find_artifact(text)?;
        self.store.remove_artifact(&record.name).map_err(Error::from)?;
        Ok(record.manifest)
    }

    /// Writes the files of an artifact, or the one that has the digest or the title, into the directory
    /// `path`, or a single one to the file `path`.
    pub fn extract_artifact(
        &self,
        text: &str,
        path: &Path,
        digest: Option<&str>,
        title: Option<&str>,
    ) -> Result<(), Error> {
        let record = self.find_artifact(text)?;
        let manifest = self.artifact_manifest(&record)?;
        let name = record.name.clone();
        let failed = |source| Error::Artifact { action: "extracting", name: name.clone(), source };
        let files = manifest.select(digest, title).map_err(failed)?;
        let into = path.is_dir();
        if !into && files.len() != 1 {
            return Err(Error::Several { name, count: files.len(), path: path.to_owned() });
        }
        for file in files {
            let target = if into { path.join(file.name().map_err(failed)?) } else { path.to_owned() };
            let lost = || Error::Lost { name: name.clone(), digest: file.digest };
            let blob =
                open_blob(&self.store, &file.digest, Some(file.size)).ok().flatten().ok_or_else(lost)?;
            let writing = |source| Error::File { action: "writing", path: target.clone(), source };
            let dir = target.parent().unwrap_or(Path::new("."));
            let mut pending = Pending::create(dir, 0o644).map_err(writing)?;
            io::copy(&mut Verified::new(blob, file.digest, file.size), &mut pending.file).map_err(writing)?;
            let own = target.file_name().ok_or_else(|| writing(io::ErrorKind::IsADirectory.into()))?;
            pending.publish(own).map_err(writing)?;
        }
        Ok(())
    }

    /// Fetches an artifact from a registry; returns the digest of its manifest.
    pub fn pull_artifact(
        &self,
        name: &str,
        reach: &Reach,
        progress: &dyn Progress,
    ) -> Result<Digest, EngineError> {
        let full = full_name(name)?;
        let reference: Reference = full.parse().map_err(commit::Error::from).map_err(Error::from)?;
        let (digest, blobs): (Digest, Vec<Digest>) = self.apart("pulling artifact", name, || {
            let configuration = images::registries().map_err(|error| Failure::new(&error, error.hint()))?;
            let options = reach.options(&reference, &configuration, true);
            let options = options.map_err(|error| Failure::new(&error, error.hint()))?;
            let result = fetch(&self.store, &reference, &options, progress);
            progress.ended();
            result
        })?;
        let record = ArtifactRecord::new(full, digest, blobs, host::now());
        self.store.put_artifact(&record).map_err(Error::from)?;
        Ok(digest)
    }

    /// Puts an artifact into a registry; returns the digest of its manifest.
    pub fn push_artifact(
        &self,
        text: &str,
        destination: Option<&str>,
        reach: &Reach,
        sign: &[Chosen],
        progress: &dyn Progress,
    ) -> Result<Digest, EngineError> {
        let record = self.find_artifact(text)?;
        let target = destination.unwrap_or(&record.name);
        let target = target.strip_prefix("docker://").unwrap_or(target);
        let reference: Reference = target.parse().map_err(commit::Error::from).map_err(Error::from)?;
        let reference = if reference.is_short() { reference.at("docker.io") } else { reference };
        let told = self.apart("pushing artifact", text, || {
            let configuration = images::registries().map_err(|error| Failure::new(&error, error.hint()))?;
            let options = reach.options(&reference, &configuration, true);
            let options = options.map_err(|error| Failure::new(&error, error.hint()))?;
            let target = Target::Registry(reference.clone());
            let signers = signers(sign, &target)?;
            let remote = Remote::new(&reference, &options);
            let told = remote.and_then(|remote| {
                let bytes = send_artifact(&self.store, &record.manifest, &remote, progress)?;
                remote.put_document(artifact::MANIFEST, &bytes)
            });
            progress.ended();
            told.map_err(|error| failure(&push::Error::from(error)))?;
            attach(&signers, &target, Some(&options), &record.manifest)?;
            Ok(record.manifest)
        });
        Ok(told?)
    }

    /// Works in a process of its own: credentials stay out of this one.
    fn apart<T: Serialize + DeserializeOwned>(
        &self,
        action: &'static str,
        name: &str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let told = child::call(None, || {
            // This process has none; what a helper writes is nobody else's business.
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            work()
        });
        Ok(apart::told(action, name, told)?)
    }
}

/// Copies a file into the store, without a name yet.
fn take_file(store: &Store, path: &Path, add: &AddFiles) -> Result<(artifact::File, Pending), Error> {
    let reading = |source| Error::File { action: "reading", path: path.to_owned(), source };
    let mut file = File::open(path).map_err(reading)?;
    if !file.metadata().map_err(reading)?.is_file() {
        return Err(reading(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    let title = path.file_name().and_then(|name| name.to_str());
    let no_name = || reading(io::Error::new(io::ErrorKind::InvalidInput, "its name is no text"));
    let title = title.ok_or_else(no_name)?;
    let place = store.path("blobs/sha256");
    let writing = |source| Error::File { action: "writing", path: place.clone(), source };
    let mut pending = Pending::create(&place, 0o600).map_err(writing)?;
    let mut hash = Sha256::new();
    let (mut size, mut kind) = (0, None);
    let mut buffer = vec![0; 1 << 17];
    loop {
        let count = file.read(&mut buffer).map_err(reading)?;
        kind.get_or_insert_with(|| artifact::media_type(&buffer[..count.min(512)]).to_owned());
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        pending.file.write_all(&buffer[..count]).map_err(writing)?;
        size += count as u64;
    }
    let mut annotations = add.annotations.clone();
    annotations.insert(TITLE.to_owned(), title.to_owned());
    let media_type = add.file_type.clone().or(kind).unwrap_or_default();
    let digest = Digest::from_bytes(hash.finalize().into());
    let file =
        artifact::File { media_type, digest, size, annotations: Some(annotations), other: BTreeMap::new() };
    Ok((file, pending))
}

/// Takes the files of an artifact at a registry into the store: the digest of its manifest, and its blobs.
fn fetch(
    store: &Store,
    reference: &Reference,
    options: &crate::image::registry::Options,
    progress: &dyn Progress,
) -> Result<(Digest, Vec<Digest>), Failure> {
    let registry = Registry::new(reference, options).map_err(|error| Failure::new(&error, error.hint()))?;
    let asked = |error: source::Error| match &error {
        source::Error::Registry(inner) => Failure::new(&error, inner.hint()),
        _ => Failure::new(&error, None),
    };
    let root = registry.root().map_err(asked)?;
    // As for images: before anything but the manifest is read.
    let policy = trust::Policy::load(None, &|name| std::env::var_os(name));
    let policy = policy.map_err(|error| Failure::new(&error, None))?;
    trust::check(policy.as_ref(), &registry, options, &root.bytes)
        .map_err(|error| Failure::new(&error, error.hint()))?;
    let manifest = Manifest::parse(&root.bytes).map_err(|error| Failure::new(&error, None))?;
    let stored = |error: storage::Error| Failure::new(&error, None);
    let mut blobs = manifest.blobs();
    let _pins = store.pin(&[], &[&blobs[..], &[Digest::of(&root.bytes)]].concat()).map_err(stored)?;
    for file in manifest.layers.iter().chain([&manifest.config]) {
        let digest = file.digest;
        if open_blob(store, &digest, Some(file.size)).is_ok_and(|blob| blob.is_some()) {
            progress.finished(&digest, true);
            continue;
        }
        progress.started(&digest, file.size);
        let place = store.path("blobs/sha256");
        let writing = |error: io::Error| Failure {
            message: format!("fetching the file {digest}: {}", report::chain(&error)),
            hint: None,
            misnamed: false,
        };
        let mut pending = Pending::create(&place, 0o600).map_err(writing)?;
        let descriptor = Descriptor { media_type: file.media_type.clone(), digest, size: file.size };
        let blob = registry.blob(&descriptor).map_err(asked)?;
        let mut counted = Told { inner: Verified::new(blob, digest, file.size), at: 0, digest, progress };
        io::copy(&mut counted, &mut pending.file).map_err(writing)?;
        pending.publish(digest.hex().as_ref()).map_err(writing)?;
        progress.finished(&digest, false);
    }
    let digest = store.write_blob(&root.bytes).map_err(stored)?;
    blobs.sort_unstable();
    blobs.dedup();
    Ok((digest, blobs))
}

/// Tells how much was read.
struct Told<'a, R> {
    inner: R,
    at: u64,
    digest: Digest,
    progress: &'a dyn Progress,
}

impl<R: Read> Read for Told<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.at += count as u64;
        self.progress.advanced(&self.digest, self.at);
        Ok(count)
    }
}

/// Sends the blobs of an artifact; its manifest, which is still to be sent.
pub(super) fn send_artifact(
    store: &Store,
    manifest: &Digest,
    destination: &dyn Destination,
    progress: &dyn Progress,
) -> Result<Vec<u8>, destination::Error> {
    let lost = |source| destination::Error::Content { digest: *manifest, source };
    let bytes = std::fs::read(store.blob_path(manifest)).map_err(lost)?;
    let parsed = Manifest::parse(&bytes).map_err(|error| lost(io::Error::other(error)))?;
    for file in parsed.layers.iter().chain([&parsed.config]) {
        let digest = file.digest;
        if destination.has_blob(&digest, file.size)? {
            progress.finished(&digest, true);
            continue;
        }
        progress.started(&digest, file.size);
        let open = || -> io::Result<Box<dyn Read + Send>> {
            let blob = File::open(store.blob_path(&digest))?;
            Ok(Box::new(Verified::new(blob, digest, file.size)))
        };
        let content = Content { digest, size: file.size, open: &open };
        destination.put_blob(&content, None, &|bytes| progress.advanced(&digest, bytes))?;
        progress.finished(&digest, false);
    }
    Ok(bytes)
}
