//! Images that go out: to registries, directories and archives.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::images::{self, Failure, registries};
use super::reach::Reach;
use super::{Engine, apart};
use crate::base::digest::Digest;
use crate::image::destination::{self, Destination, DockerArchive, Layout, OciArchive, Remote};
use crate::image::push::{self, Origin, PushOptions};
use crate::image::reference::ParseReferenceError;
use crate::image::transport::ParseTransportError;
use crate::image::trust::sign::{self, Chosen, Signer};
use crate::image::{Progress, Reference, Transport, registry};
use crate::storage::events::Event;
use crate::storage::{self, ImageRecord, Store};
use crate::sys::atomic::Pending;

/// What goes wrong with images that go out or come in by archives.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Configuration, credentials.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// The name is no name.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// The destination is none.
    #[error(transparent)]
    Transport(#[from] ParseTransportError),
    /// An image without a name goes nowhere by itself.
    #[error("pushing \"{0}\": it is not said where to")]
    Nowhere(String),
    /// It stands for several images.
    #[error("\"{0}\" is a manifest list, not an image")]
    IsList(String),
    /// The archive or directory cannot be made.
    #[error("writing \"{}\"", path.display())]
    Output {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive cannot be read.
    #[error("reading \"{}\"", path.display())]
    Input {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Only a registry keeps signatures.
    #[error("only what goes to a registry is signed")]
    NoSignatures,
    /// The process that did it.
    #[error(transparent)]
    Apart(#[from] apart::Error),
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Images(error) => error.hint(),
            Self::Apart(error) => error.hint(),
            Self::IsList(name) => {
                Some(format!("umiak manifest push {name} REGISTRY/NAME takes it with its images"))
            }
            Self::Nowhere(name) => Some(format!("name a destination: umiak push {name} REGISTRY/NAME")),
            _ => None,
        }
    }
}

/// One image that goes out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// As the user named it.
    pub name: String,
    /// The image.
    pub image: ImageRecord,
    /// How it goes.
    pub options: PushOptions,
    /// What is at the registry then is signed with these.
    pub sign: Vec<Chosen>,
}

/// An image that is where it was to go.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Handed {
    /// The digest of its manifest there.
    pub manifest: Digest,
    /// How many layers had to be compressed anew, so that the digest is not the one that it had.
    pub renewed: usize,
}

/// An archive that is being written, or another kind of file.
pub struct Output {
    path: PathBuf,
    file: File,
    pending: Option<(Pending, PathBuf)>,
}

impl Output {
    /// Makes the file `path`, which gets its name when [`Output::finish`] says that it is whole. What is
    /// no regular file (a fifo, a device) is written to as it is.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let error = |source| Error::Output { path: path.to_owned(), source };
        // A link is written through, not replaced.
        let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let special = std::fs::metadata(&target).is_ok_and(|stat| !stat.is_file());
        if special {
            let file = File::options().write(true).open(path).map_err(error)?;
            return Ok(Self { path: path.to_owned(), file, pending: None });
        }
        let dir = target.parent().unwrap_or(Path::new("."));
        let pending = Pending::create(dir, 0o644).map_err(error)?;
        let file = pending.file.try_clone().map_err(error)?;
        Ok(Self { path: path.to_owned(), file, pending: Some((pending, target)) })
    }

    /// Writes to an open file.
    pub fn to(file: File, name: &str) -> Self {
        Self { path: name.into(), file, pending: None }
    }

    fn finish(self) -> Result<(), Error> {
        let error = |source| Error::Output { path: self.path.clone(), source };
        let Some((pending, target)) = self.pending else { return Ok(()) };
        let name = target.file_name().ok_or_else(|| error(io::ErrorKind::IsADirectory.into()))?;
        pending.publish(name).map_err(error)
    }

    fn file(&self) -> Result<File, Error> {
        self.file.try_clone().map_err(|source| Error::Output { path: self.path.clone(), source })
    }
}

/// Where images go to.
pub enum Target {
    /// A registry.
    Registry(Reference),
    /// A directory.
    Directory(Transport),
    /// An OCI layout in an archive, with this name for the image.
    OciArchive(Output, Option<String>),
    /// An archive as Docker's.
    DockerArchive(Output),
}

impl Target {
    /// The destination of a push. The names that the image gets there are added to `names`.
    pub fn of(transport: Transport, names: &mut Vec<String>) -> Result<Self, Error> {
        Ok(match transport {
            Transport::Registry(reference) if reference.is_short() => {
                Self::Registry(reference.at("docker.io"))
            }
            Transport::Registry(reference) => Self::Registry(reference),
            directory @ (Transport::Oci { .. } | Transport::Dir(_)) => Self::Directory(directory),
            Transport::OciArchive { path, tag } => Self::OciArchive(Output::create(&path)?, tag),
            Transport::DockerArchive { path, name } => {
                if let Some(name) = name.and_then(|name| name.tagged()) {
                    *names = vec![name];
                }
                Self::DockerArchive(Output::create(&path)?)
            }
        })
    }

    pub(super) fn open(&self, options: Option<&registry::Options>) -> Result<Box<dyn Destination>, Failure> {
        let failed = |error: destination::Error| failure(&push::Error::from(error));
        let file = |output: &Output| output.file().map_err(|error| Failure::new(&error, None));
        Ok(match self {
            Self::Registry(reference) => {
                let options = options.cloned().unwrap_or_default();
                Box::new(Remote::new(reference, &options).map_err(failed)?)
            }
            Self::Directory(Transport::Oci { path, tag }) => {
                Box::new(Layout::new(path, tag.clone()).map_err(failed)?)
            }
            Self::Directory(Transport::Dir(path)) => {
                Box::new(destination::Directory::new(path).map_err(failed)?)
            }
            Self::OciArchive(output, tag) => {
                let archive = OciArchive::new(file(output)?, &output.path, tag.clone());
                Box::new(archive.map_err(failed)?)
            }
            Self::DockerArchive(output) => Box::new(DockerArchive::new(file(output)?, &output.path)),
            Self::Directory(other) => {
                let error = ParseTransportError::Unsupported(other.to_string());
                return Err(Failure::new(&error, None));
            }
        })
    }

    pub(super) fn finish(self) -> Result<(), Error> {
        match self {
            Self::OciArchive(output, _) | Self::DockerArchive(output) => output.finish(),
            Self::Registry(_) | Self::Directory(_) => Ok(()),
        }
    }
}

/// What a process tells that could not push.
pub(super) fn failure(error: &push::Error) -> Failure {
    let hint = match error {
        push::Error::Destination(destination::Error::Registry(error)) => error.hint(),
        push::Error::Destination(destination::Error::Foreign { .. }) => {
            Some("name another directory, or empty this one".to_owned())
        }
        push::Error::Content(crate::image::content::Error::Gone(_)) => Some("pull the image anew".to_owned()),
        push::Error::Lost { .. } => Some("pull the image anew".to_owned()),
        _ => None,
    };
    Failure::new(error, hint)
}

impl Engine {
    /// The image that a name means.
    pub fn image_to_push(&self, name: &str) -> Result<ImageRecord, Error> {
        let image = self.store.image(name)?.ok_or_else(|| images::Error::NoSuchImage(name.to_owned()))?;
        if image.list.is_some() { Err(Error::IsList(name.to_owned())) } else { Ok(image) }
    }

    /// Pushes an image to where `destination` says, or to the registry that its name says.
    ///
    /// The caller must be single-threaded.
    pub fn push(
        &self,
        name: &str,
        destination: Option<&str>,
        reach: &Reach,
        mut options: PushOptions,
        sign: Vec<Chosen>,
        progress: &dyn Progress,
    ) -> Result<Handed, Error> {
        let image = self.image_to_push(name)?;
        let full = full_name(&image, name);
        let transport: Transport = match (destination, &full) {
            (Some(text), _) => text.parse()?,
            (None, Some(full)) => Transport::Registry(full.parse()?),
            // What is no name of the image is an id.
            (None, None) => return Err(Error::Nowhere(name.to_owned())),
        };
        options.names.extend(full);
        let target = Target::of(transport, &mut options.names)?;
        let pushed = Event::image("push", image.id.hex(), name);
        let outgoing = Outgoing { name: name.to_owned(), image, options, sign };
        let handed = self.hand_out("pushing", &[outgoing], target, reach, progress)?;
        self.note(pushed);
        handed.first().copied().ok_or_else(|| Error::Nowhere(name.to_owned()))
    }

    /// Hands images out, in their order.
    ///
    /// The caller must be single-threaded.
    pub fn hand_out(
        &self,
        action: &'static str,
        images: &[Outgoing],
        target: Target,
        reach: &Reach,
        progress: &dyn Progress,
    ) -> Result<Vec<Handed>, Error> {
        let name = images.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ");
        let store = self.store.clone().with_ownership(self.ownership());
        // What is written for the user has the user's mode; there is no asking but by setting.
        let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        rustix::process::umask(umask);
        let told = self.in_child(false, || {
            // This process has none; what a helper writes is nobody else's business.
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let (remote, origins) =
                self.reach_out(images, &target, reach).map_err(|error| Failure::new(&error, error.hint()))?;
            // One more process: a credential helper runs as the user, layers are read by root of a user
            // namespace.
            let done = self.in_child(true, || {
                rustix::process::umask(umask);
                // What killed processes left is swept when there is work to do anyway.
                let _ = store.sweep();
                let result = hand_out_all(&store, images, &target, remote.as_ref(), &origins, progress);
                progress.ended();
                result
            });
            done.unwrap_or_else(|error| Err(Failure::new(&error, None)))
        });
        let done: Vec<Handed> = apart::told(action, &name, told)?;
        target.finish()?;
        Ok(done)
    }

    /// How to ask the registry that images go to, and those that they came from where their blobs are
    /// not kept.
    fn reach_out(
        &self,
        images: &[Outgoing],
        target: &Target,
        reach: &Reach,
    ) -> Result<(Option<registry::Options>, Vec<Vec<Origin>>), images::Error> {
        let all_kept = |image: &ImageRecord| {
            let kept = |digest: &Digest| self.store.blob_path(digest).exists();
            image.layers.iter().all(|layer| layer.blob.is_some_and(|blob| kept(&blob)))
        };
        let lacking = images.iter().any(|one| !all_kept(&one.image));
        if !lacking && !matches!(target, Target::Registry(_)) {
            return Ok((None, images.iter().map(|_| Vec::new()).collect()));
        }
        let configuration = registries()?;
        let remote = match target {
            Target::Registry(reference) => Some(reach.options(reference, &configuration, true)?),
            _ => None,
        };
        let mut origins = Vec::new();
        for one in images {
            let mut of_image = Vec::new();
            if !all_kept(&one.image) && !matches!(target, Target::DockerArchive(_)) {
                for reference in came_from(&one.image) {
                    let same = same_host(target, &reference);
                    // What cannot be asked is passed over: there are other ways.
                    let Ok(options) = reach.options(&reference, &configuration, same) else { continue };
                    let anybody = registry::Options {
                        tls_verify: Some(false),
                        creds: None,
                        cert_dir: None,
                        ..options.clone()
                    };
                    of_image.push(Origin { reference: reference.clone(), options });
                    // Digests say whether it is the right blob, whoever gives it; nobody is told who we are.
                    if !same && reach.tls_verify == Some(false) {
                        of_image.push(Origin { reference, options: anybody });
                    }
                }
            }
            origins.push(of_image);
        }
        Ok((remote, origins))
    }
}

/// Whether what was said on the command line about the destination is meant for this registry too.
fn same_host(target: &Target, reference: &Reference) -> bool {
    matches!(target, Target::Registry(there) if there.registry() == reference.registry())
}

/// The repositories that an image came from.
pub(super) fn came_from(image: &ImageRecord) -> Vec<Reference> {
    let parsed = image.repo_digests.iter().filter_map(|name| name.parse::<Reference>().ok());
    let mut found: Vec<Reference> = Vec::new();
    for reference in parsed.filter(|reference| reference.registry() != Some("localhost")) {
        if !found.iter().any(|known| known.name() == reference.name()) {
            found.push(reference);
        }
    }
    found
}

fn hand_out_all(
    store: &Store,
    images: &[Outgoing],
    target: &Target,
    remote: Option<&registry::Options>,
    origins: &[Vec<Origin>],
    progress: &dyn Progress,
) -> Result<Vec<Handed>, Failure> {
    // Before anything goes out that it could not be put beside.
    let signers: Vec<Vec<Signer>> =
        images.iter().map(|one| signers(&one.sign, target)).collect::<Result<_, _>>()?;
    let destination = target.open(remote)?;
    let mut handed = Vec::new();
    for ((one, origins), signers) in images.iter().zip(origins).zip(signers) {
        let pushed = push::push(store, &one.image, &*destination, origins, &one.options, progress);
        let pushed = pushed.map_err(|error| failure(&error))?;
        attach(&signers, target, remote, &pushed.manifest)?;
        handed.push(Handed { manifest: pushed.manifest, renewed: pushed.renewed });
    }
    destination.finish().map_err(|error| failure(&push::Error::from(error)))?;
    Ok(handed)
}

/// The keys that sign what goes to a registry.
pub(super) fn signers(chosen: &[Chosen], target: &Target) -> Result<Vec<Signer>, Failure> {
    match target {
        Target::Registry(_) => chosen.iter().map(|key| key.open().map_err(unsigned)).collect(),
        _ if chosen.is_empty() => Ok(Vec::new()),
        _ => Err(Failure::new(&Error::NoSignatures, None)),
    }
}

fn unsigned(error: sign::Error) -> Failure {
    Failure::new(&error, error.hint())
}

/// Signs what was pushed.
pub(super) fn attach(
    signers: &[Signer],
    target: &Target,
    options: Option<&registry::Options>,
    manifest: &Digest,
) -> Result<(), Failure> {
    let Target::Registry(reference) = target else { return Ok(()) };
    let options = options.cloned().unwrap_or_default();
    signers.iter().try_for_each(|signer| signer.attach(reference, &options, manifest)).map_err(unsigned)
}

/// The full name by which the user named an image; `None` if it was an id or a digest.
pub fn full_name(image: &ImageRecord, name: &str) -> Option<String> {
    if name.contains('@') {
        return None;
    }
    images::matching_name(image, name)
}
