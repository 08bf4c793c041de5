//! Lists of images for several platforms (`manifest …`). In the store they are images without layers.

use std::path::PathBuf;

use serde_json::Value;

use super::artifacts::{MakeArtifact, send_artifact};
use super::commit::full_name;
use super::images::{self, Failure, PullOptions, SourceImage};
use super::push::{Target, attach, came_from, failure, signers};
use super::reach::Reach;
use super::{Engine, Error as EngineError, apart, commit, now};
use crate::base::digest::Digest;
use crate::image::artifact;
use crate::image::destination::{self, Members};
use crate::image::list::{self, DOCKER_LIST, INDEX, Remarks};
use crate::image::manifest::{self, Descriptor, Platform};
use crate::image::push::{self, Origin};
use crate::image::registry::{self, Registry};
use crate::image::rewrite::Form;
use crate::image::source::{self, Source};
use crate::image::trust::sign::Chosen;
use crate::image::trust::{self, Policy};
use crate::image::{Progress, PushOptions, Reference, Transport, copy, pull};
use crate::storage::{self, FORMAT, ImageList, ImageRecord, ListEntry, Store};
use crate::sys::atomic;

/// What goes wrong with lists.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Asking for an image.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// Its name.
    #[error(transparent)]
    Name(#[from] commit::Error),
    /// The change.
    #[error("changing the manifest list \"{name}\"")]
    List {
        /// As the user named it.
        name: String,
        /// Why.
        #[source]
        source: list::Error,
    },
    /// There is no such list.
    #[error("there is no manifest list \"{0}\"")]
    NoList(String),
    /// It is an image.
    #[error("\"{0}\" is an image, not a manifest list")]
    NotAList(String),
    /// The name is taken.
    #[error("making the manifest list \"{0}\": there is an image or a list of this name already")]
    Exists(String),
    /// Random bytes.
    #[error("asking the kernel for random bytes")]
    Random(#[source] std::io::Error),
    /// What came is no list.
    #[error("\"{0}\" is neither a manifest list here nor one at a registry")]
    NoDocument(String),
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Images(error) => error.hint(),
            Self::NoList(name) => Some(format!("umiak manifest create {name} makes one")),
            Self::Exists(_) => Some("--amend takes the list that is there".to_owned()),
            _ => None,
        }
    }
}

/// Which entries of a list at a registry are taken, and how it is asked.
#[derive(Clone, Debug, Default)]
pub struct AddOptions {
    /// All of a list's, rather than the one for a platform.
    pub all: bool,
    /// How to ask, and the platform.
    pub pull: PullOptions,
    /// What is said of the image.
    pub remarks: Remarks,
}

impl Engine {
    /// Makes an empty list; with `amend` one that is there will do.
    pub fn create_list(&self, name: &str, amend: bool) -> Result<ImageRecord, EngineError> {
        let names = full_name(Some(name)).map_err(Error::from)?;
        let known = match names.first() {
            Some(full) => self.store.image_by_name(full).map_err(Error::from)?,
            None => None,
        };
        match known {
            Some(known) if amend && known.list.is_some() => return Ok(known),
            Some(_) => return Err(Error::Exists(name.to_owned()).into()),
            None => {}
        }
        let mut id = [0; 32];
        atomic::fill_random(&mut id).map_err(Error::Random)?;
        let mut record = ImageRecord {
            version: FORMAT,
            // Not that of its content, which changes.
            id: Digest::from_bytes(id),
            names,
            repo_digests: Vec::new(),
            manifest: Digest::from_bytes(id),
            index: None,
            media_type: INDEX.to_owned(),
            layers: Vec::new(),
            size: 0,
            created: Some(now()),
            architecture: String::new(),
            os: String::new(),
            variant: None,
            config: Value::Null,
            made_from: None,
            list: Some(ImageList::default()),
        };
        let _lock = self.store.lock_shared().map_err(Error::from)?;
        self.write_document(&mut record).map_err(Error::from)?;
        self.store.put_image(&record).map_err(Error::from)?;
        Ok(record)
    }

    /// Writes the list as a registry would get it, which is what its digest is of.
    fn write_document(&self, record: &mut ImageRecord) -> Result<(), storage::Error> {
        let Some(list) = &record.list else { return Ok(()) };
        let bytes = list::document(list, INDEX).to_string().into_bytes();
        record.manifest = self.store.write_blob(&bytes)?;
        record.size = bytes.len() as u64;
        Ok(())
    }

    /// The list of this name.
    pub fn find_list(&self, name: &str) -> Result<(ImageRecord, ImageList), EngineError> {
        let found = self.store.image(name).map_err(Error::from)?;
        let record = found.ok_or_else(|| Error::NoList(name.to_owned()))?;
        match record.list.clone() {
            Some(list) => Ok((record, list)),
            None => Err(Error::NotAList(name.to_owned()).into()),
        }
    }

    /// Changes a list; returns its id.
    fn change_list(
        &self,
        name: &str,
        change: impl FnOnce(&mut ImageList) -> Result<(), list::Error>,
    ) -> Result<Digest, EngineError> {
        let (record, _) = self.find_list(name)?;
        let failed = |source| Error::List { name: name.to_owned(), source };
        let changed = self.store.change_image(&record.id, |record| -> Result<(), Error> {
            let Some(list) = &mut record.list else { return Err(Error::NotAList(name.to_owned())) };
            change(list).map_err(failed)?;
            Ok(self.write_document(record)?)
        });
        changed.map_err(Error::from)?.ok_or_else(|| Error::NoList(name.to_owned()))??;
        Ok(record.id)
    }

    /// Adds an image, which may be here or be named by a transport; returns the list's id.
    pub fn add_to_list(&self, name: &str, image: &str, options: &AddOptions) -> Result<Digest, EngineError> {
        // Before anything is asked for.
        self.find_list(name)?;
        let found = self.images_of(image, options)?;
        self.change_list(name, |list| {
            found.into_iter().try_for_each(|entry| list::add(list, entry, &options.remarks))
        })
    }

    /// Makes an artifact of files, and adds it to a list that is here; returns the list's digest.
    pub fn add_artifact_to_list(
        &self,
        name: &str,
        files: &[PathBuf],
        make: &MakeArtifact,
        remarks: &Remarks,
    ) -> Result<Digest, EngineError> {
        self.find_list(name)?;
        let subject = make.subject.as_deref().map(|image| self.subject(image)).transpose()?;
        // Until the list speaks of them.
        let made = self.make_artifact(files, make, subject)?;
        let mut descriptor = list::descriptor(artifact::MANIFEST, &made.manifest, None);
        descriptor["artifactType"] = serde_json::json!(made.artifact_type);
        let entry = ListEntry { descriptor, source: None, blobs: made.blobs };
        self.change_list(name, |list| list::add(list, entry, remarks))
    }

    /// The descriptor of an image that something is about.
    fn subject(&self, image: &str) -> Result<Value, EngineError> {
        let found = self.images_of(image, &AddOptions::default())?;
        let first = found.into_iter().next().map(|entry| entry.descriptor);
        let mut descriptor =
            first.ok_or_else(|| images::Error::NoSuchImage(image.to_owned())).map_err(Error::from)?;
        if let Value::Object(descriptor) = &mut descriptor {
            descriptor.remove("platform");
        }
        Ok(descriptor)
    }

    /// The entries for what a name means.
    fn images_of(&self, name: &str, options: &AddOptions) -> Result<Vec<ListEntry>, EngineError> {
        let entry = |descriptor, source| ListEntry { descriptor, source, blobs: Vec::new() };
        if !Transport::is_explicit(name)
            && let Some(image) = self.store.image(name).map_err(Error::from)?
        {
            if let Some(list) = image.list {
                return Ok(list.entries);
            }
            let platform = Platform::from(&image);
            let bytes = self.store.read_blob(&image.manifest).map_err(Error::from)?;
            let bytes =
                bytes.ok_or_else(|| images::Error::NoSuchImage(name.to_owned())).map_err(Error::from)?;
            return Ok(vec![entry(list::descriptor(&image.media_type, &bytes, Some(&platform)), None)]);
        }
        let found = images::look(self, name, &options.pull, options.all).map_err(Error::from)?;
        Ok(found
            .into_iter()
            .map(|SourceImage { descriptor, source }| entry(descriptor, Some(source)))
            .collect())
    }

    /// Says something of an image in a list, which `image` names by digest or as an image that is here.
    pub fn annotate_list(&self, name: &str, image: &str, remarks: &Remarks) -> Result<Digest, EngineError> {
        let digest = self.digest_in_list(image)?;
        self.change_list(name, |list| list::annotate(list, &digest, remarks))
    }

    /// Says something of the list itself: annotations, and which image it is about.
    pub fn annotate_index(
        &self,
        name: &str,
        annotations: &[String],
        subject: Option<&str>,
    ) -> Result<Digest, EngineError> {
        let subject = subject.map(|image| self.subject(image)).transpose()?;
        self.change_list(name, |list| {
            list.annotations.extend(list::annotations(annotations)?);
            list.subject = subject.or(list.subject.take());
            Ok(())
        })
    }

    /// Takes an image out of a list.
    pub fn remove_from_list(&self, name: &str, image: &str) -> Result<Digest, EngineError> {
        let digest = self.digest_in_list(image)?;
        self.change_list(name, |list| list::remove(list, &digest))
    }

    fn digest_in_list(&self, text: &str) -> Result<String, EngineError> {
        if text.parse::<Digest>().is_ok() {
            return Ok(text.to_owned());
        }
        let image = self.store.image(text).map_err(Error::from)?;
        Ok(image.map_or_else(|| text.to_owned(), |image| image.manifest.to_string()))
    }

    /// The document of a list that is here, or of what a registry has under the name.
    pub fn inspect_list(&self, name: &str, options: &PullOptions) -> Result<Value, EngineError> {
        if !Transport::is_explicit(name)
            && let Some(image) = self.store.image(name).map_err(Error::from)?
        {
            let Some(list) = image.list else { return Err(Error::NotAList(name.to_owned()).into()) };
            return Ok(list::document(&list, &image.media_type));
        }
        let bytes = images::root_document(self, name, options).map_err(Error::from)?;
        let document: Value =
            serde_json::from_slice(&bytes).map_err(|_| Error::NoDocument(name.to_owned()))?;
        if document.get("manifests").is_none() && document.get("layers").is_none() {
            return Err(Error::NoDocument(name.to_owned()).into());
        }
        Ok(document)
    }
}

/// How a list is pushed.
#[derive(Clone, Debug, Default)]
pub struct PushList {
    /// Its images as well.
    pub all: bool,
    /// How they are pushed, and what kind of list it becomes.
    pub options: PushOptions,
    /// It is signed at the registry.
    pub sign: Vec<Chosen>,
}

/// An image of a list, ready to go.
enum Member {
    /// From here, with the registries that it may have come from.
    Here(Box<ImageRecord>, Vec<Origin>),
    /// From a registry.
    There(Reference, Box<registry::Options>),
    /// From a directory or an archive.
    Path(Transport),
    /// An artifact that is here.
    Artifact(Digest),
}

impl Engine {
    /// Pushes a list, with its images if that is asked for; returns the digest of the list there.
    ///
    /// The caller must be single-threaded.
    pub fn push_list(
        &self,
        name: &str,
        destination: Option<&str>,
        reach: &Reach,
        push: &PushList,
        progress: &dyn Progress,
    ) -> Result<Digest, EngineError> {
        let (record, list) = self.find_list(name)?;
        let transport: Transport = match (destination, record.names.first()) {
            (Some(text), _) => text.parse().map_err(super::push::Error::from)?,
            (None, Some(own)) => Transport::Registry(own.parse().map_err(super::push::Error::from)?),
            (None, None) => return Err(super::push::Error::Nowhere(name.to_owned()).into()),
        };
        let target = Target::of(transport, &mut Vec::new())?;
        let store = self.store.clone().with_ownership(self.ownership());
        let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        rustix::process::umask(umask);
        let told = self.in_child(false, || {
            // This process has none; what a helper writes is nobody else's business.
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
            let prepared = self.members(&list, &target, reach, push.all);
            let prepared = prepared.map_err(|error| Failure::new(&error, error.hint()))?;
            let done = self.in_child(true, || {
                rustix::process::umask(umask);
                let result = push_members(&store, &list, prepared, &target, push, progress);
                progress.ended();
                result
            });
            done.unwrap_or_else(|error| Err(Failure::new(&error, None)))
        });
        let digest = apart::told("pushing", name, told).map_err(super::push::Error::from)?;
        target.finish()?;
        Ok(digest)
    }

    /// Where the images of a list are, and how to ask there.
    fn members(
        &self,
        list: &ImageList,
        target: &Target,
        reach: &Reach,
        all: bool,
    ) -> Result<Prepared, Error> {
        let configuration = images::registries()?;
        let target = match target {
            Target::Registry(reference) => Some(reference),
            _ => None,
        };
        let to = target.map(|target| reach.options(target, &configuration, true)).transpose()?;
        let policy = Policy::load(None, &|name| std::env::var_os(name)).map_err(images::Error::from)?;
        let mut members = Vec::new();
        for entry in list.entries.iter().filter(|_| all) {
            let options = |reference: &Reference| {
                match target {
                    Some(target) => {
                        reach.options(reference, &configuration, reference.registry() == target.registry())
                    }
                    // Nobody said for which of several registries a password was meant.
                    None => Reach { creds: None, ..reach.clone() }.options(reference, &configuration, true),
                }
            };
            let digest: Option<Digest> = entry.descriptor["digest"].as_str().and_then(|d| d.parse().ok());
            let here = digest.map(|digest| self.store.image_by_manifest(&digest)).transpose()?.flatten();
            if let (Some(digest), false) = (digest, entry.blobs.is_empty()) {
                members.push(Member::Artifact(digest));
                continue;
            }
            members.push(match (here, &entry.source) {
                (Some(image), _) => {
                    let origins = came_from(&image).into_iter().filter_map(|reference| {
                        // What cannot be asked is passed over: there are other ways.
                        Some(Origin { options: options(&reference).ok()?, reference })
                    });
                    let origins = origins.collect();
                    Member::Here(Box::new(image), origins)
                }
                (None, Some(source)) => match source.parse().map_err(images::Error::from)? {
                    Transport::Registry(reference) => {
                        let options = Box::new(options(&reference)?);
                        Member::There(reference, options)
                    }
                    path => Member::Path(path),
                },
                (None, None) => {
                    let digest = entry.descriptor["digest"].as_str().unwrap_or_default().to_owned();
                    return Err(images::Error::NoSuchImage(digest).into());
                }
            });
        }
        Ok(Prepared { to, members, policy })
    }
}

/// What a push of a list needs of the network.
struct Prepared {
    /// How to ask the registry that it goes to.
    to: Option<registry::Options>,
    members: Vec<Member>,
    /// Which images may be taken from elsewhere.
    policy: Option<Policy>,
}

/// Pushes the images, then the list as they have become.
fn push_members(
    store: &Store,
    list: &ImageList,
    prepared: Prepared,
    target: &Target,
    push: &PushList,
    progress: &dyn Progress,
) -> Result<Digest, Failure> {
    let Prepared { to, members, policy } = prepared;
    let at = |error: destination::Error| failure(&push::Error::from(error));
    let mut list = list.clone();
    let signers = signers(&push.sign, target)?;
    let destination = target.open(to.as_ref())?;
    let remote = Members(&*destination);
    for (entry, member) in list.entries.iter_mut().zip(&members) {
        let copy = |source: &dyn Source, options: &registry::Options| -> Result<(), copy::Error> {
            let descriptor = descriptor_of(&entry.descriptor)?;
            let fetched = source::checked_manifest(source, &descriptor)?;
            trust::check(policy.as_ref(), source, options, &fetched.bytes)?;
            copy::copy(source, &fetched, &remote, progress)
        };
        let copied = |result: Result<(), copy::Error>| result.map_err(|error| Failure::new(&error, None));
        match member {
            Member::Here(image, origins) => {
                let pushed = push::push(store, image, &remote, origins, &push.options, progress);
                let pushed = pushed.map_err(|error| failure(&error))?;
                entry.descriptor["digest"] = serde_json::json!(pushed.manifest);
                entry.descriptor["size"] = serde_json::json!(pushed.size);
                entry.descriptor["mediaType"] = serde_json::json!(pushed.form.media_type());
            }
            Member::There(reference, options) => {
                let source = Registry::new(reference, options).map_err(|e| Failure::new(&e, e.hint()))?;
                copied(copy(&source, options))?;
            }
            Member::Path(path) => {
                let source = pull::open(store, path, &crate::image::PullOptions::default());
                let source = source.map_err(|error| Failure::new(&error, None))?;
                copied(copy(&*source, &registry::Options::default()))?;
            }
            Member::Artifact(digest) => {
                let bytes = send_artifact(store, digest, &*destination, progress).map_err(at)?;
                destination.put_member(artifact::MANIFEST, &bytes).map_err(at)?;
            }
        }
    }
    let form = destination.form().or(push.options.form);
    let kind = if form == Some(Form::Docker) { DOCKER_LIST } else { INDEX };
    let bytes = list::document(&list, kind).to_string().into_bytes();
    destination.put_list(kind, &bytes).map_err(at)?;
    destination.finish().map_err(at)?;
    let digest = Digest::of(&bytes);
    attach(&signers, target, to.as_ref(), &digest)?;
    Ok(digest)
}

fn descriptor_of(value: &Value) -> Result<Descriptor, copy::Error> {
    let unusable = copy::Error::Manifest(manifest::Error::MediaType(value.to_string()));
    let digest = value["digest"].as_str().and_then(|digest| digest.parse().ok());
    let (Some(digest), Some(size)) = (digest, value["size"].as_u64()) else { return Err(unusable) };
    let media_type = value["mediaType"].as_str().unwrap_or_default().to_owned();
    Ok(Descriptor { media_type, digest, size })
}
