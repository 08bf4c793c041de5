//! Images for containers: found in the store or pulled into it, shown, removed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Engine;
use crate::base::digest::Digest;
use crate::base::{report, suggest};
use crate::image::manifest::{ParsePlatformError, go_architecture};
use crate::image::reference::ParseReferenceError;
use crate::image::transport::ParseTransportError;
use crate::image::{
    self, Platform, Progress, Reference, Registries, Transport, hello, pull, registries, source,
};
use crate::security::idmap::RungKind;
use crate::storage::containers::ContainerRecord;
use crate::storage::{self, ImageRecord, Ownership, Store};
use crate::sys::child;

/// What goes wrong with images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The name is no name.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// The source is no source.
    #[error(transparent)]
    Transport(#[from] ParseTransportError),
    /// `--platform`.
    #[error(transparent)]
    Platform(#[from] ParsePlatformError),
    /// `registries.conf`.
    #[error(transparent)]
    Registries(#[from] registries::Error),
    /// Credentials.
    #[error(transparent)]
    Auth(#[from] image::auth::Error),
    /// Options that exclude each other.
    #[error("--platform cannot be used together with --os, --arch or --variant")]
    PlatformTwice,
    /// `--creds`.
    #[error("--creds takes user[:password]")]
    Creds,
    /// A policy that is none.
    #[error("\"{0}\" is not a pull policy: use always, missing, newer or never")]
    Policy(String),
    /// Nothing here, and pulling was forbidden.
    #[error("there is no image \"{name}\" here, and pulling is off")]
    NotHere {
        /// As the user named it.
        name: String,
        /// An image here with a name like it.
        similar: Option<String>,
    },
    /// No such image.
    #[error("there is no image \"{0}\"")]
    NoSuchImage(String),
    /// The pull failed. What failed in it was in another process: its chain of errors as text.
    #[error("pulling \"{name}\": {message}")]
    Pull {
        /// What was to be pulled.
        name: String,
        /// Why it failed.
        message: String,
        /// What may help.
        hint: Option<String>,
        /// The name may be a slip.
        misnamed: bool,
    },
    /// The process that works on the store.
    #[error("pulling \"{name}\"")]
    Child {
        /// What was to be pulled.
        name: String,
        /// Why.
        #[source]
        source: child::Error,
    },
    /// `rmi` of an image that containers use.
    #[error("removing image \"{name}\": it is used by {}", list(containers))]
    InUse {
        /// As the user named it.
        name: String,
        /// Names of the containers.
        containers: Vec<String>,
    },
    /// `rmi` by id of an image with several names.
    #[error("removing image \"{id}\": it has several names ({})", names.join(", "))]
    SeveralNames {
        /// The short id.
        id: String,
        /// Its names.
        names: Vec<String>,
    },
}

fn list(containers: &[String]) -> String {
    let plural = if containers.len() == 1 { "container" } else { "containers" };
    format!("{plural} {}", containers.join(", "))
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Pull { hint, .. } => hint.clone(),
            Self::Registries(error) => error.hint(),
            Self::Auth(error) => error.hint(),
            Self::NotHere { similar: Some(image), .. } => Some(format!("did you mean {image}?")),
            Self::NotHere { name, .. } => Some(format!("umiak pull {name}")),
            Self::NoSuchImage(_) => Some("\"umiak images\" lists what is here".to_owned()),
            Self::InUse { containers, .. } => {
                Some(format!("umiak rm {}, or umiak rmi --force", containers.join(" ")))
            }
            // Asked only now: who can enter one need not be asked.
            Self::Child { source: child::Error::Enter(_), .. } => {
                crate::security::idmap::check_user_namespaces().err().map(|unavailable| unavailable.hint)
            }
            Self::SeveralNames { .. } => Some("remove it by its names, or with --force".to_owned()),
            _ => None,
        }
    }

    /// Podman's exit code of `rmi`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoSuchImage(_) => 1,
            Self::InUse { .. } => 2,
            _ => 125,
        }
    }
}

/// When to pull an image that a container is to be made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Always; a failure is one even if there is an image here.
    Always,
    /// If there is none here.
    #[default]
    Missing,
    /// If the registry has another one; what is here serves if it cannot be asked.
    Newer,
    /// Never.
    Never,
}

impl FromStr for PullPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "always" | "true" => Ok(Self::Always),
            "missing" | "ifnotpresent" | "" => Ok(Self::Missing),
            "newer" | "ifnewer" => Ok(Self::Newer),
            "never" | "false" => Ok(Self::Never),
            _ => Err(Error::Policy(text.to_owned()).to_string()),
        }
    }
}

/// The flags of `pull` that `run` and `create` share.
#[derive(Clone, Debug, Default)]
pub struct PullOptions {
    /// `--platform`.
    pub platform: Option<String>,
    /// `--os`.
    pub os: Option<String>,
    /// `--arch`.
    pub arch: Option<String>,
    /// `--variant`.
    pub variant: Option<String>,
    /// `--tls-verify`.
    pub tls_verify: Option<bool>,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--creds`.
    pub creds: Option<String>,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
}

impl PullOptions {
    fn platform(&self) -> Result<Platform, Error> {
        let apart = self.os.is_some() || self.arch.is_some() || self.variant.is_some();
        if let Some(platform) = &self.platform {
            if apart {
                return Err(Error::PlatformTwice);
            }
            return Ok(platform.parse()?);
        }
        let mut platform = Platform::host();
        if let Some(os) = &self.os {
            platform.os.clone_from(os);
        }
        if let Some(arch) = &self.arch {
            platform.architecture = go_architecture(arch).to_owned();
            platform.variant = None;
        }
        if self.variant.is_some() {
            platform.variant.clone_from(&self.variant);
        }
        Ok(platform)
    }

    /// Whether an image here is for the machine that was asked for; any is if none was.
    fn fits(&self, image: &ImageRecord) -> Result<bool, Error> {
        if self.platform.is_none() && self.os.is_none() && self.arch.is_none() && self.variant.is_none() {
            return Ok(true);
        }
        let wanted = self.platform()?;
        let variant = wanted.variant.is_none() || wanted.variant == image.variant;
        Ok(wanted.os == image.os && wanted.architecture == image.architecture && variant)
    }

    fn resolve(&self, ownership: Ownership) -> Result<image::PullOptions, Error> {
        let creds = match &self.creds {
            None => None,
            Some(text) => {
                let (user, password) = text.split_once(':').unwrap_or((text, ""));
                if user.is_empty() {
                    return Err(Error::Creds);
                }
                Some(image::Credentials::Password { user: user.to_owned(), password: password.to_owned() })
            }
        };
        let registry = image::registry::Options {
            tls_verify: self.tls_verify,
            creds,
            location: None,
            cert_dir: self.cert_dir.clone(),
        };
        Ok(image::PullOptions {
            platform: self.platform()?,
            ownership,
            registry,
            ..image::PullOptions::default()
        })
    }
}

/// Where an image goes.
struct At<'a> {
    engine: &'a Engine,
    /// The engine's, with this user's ownership of layers.
    store: Store,
}

impl<'a> At<'a> {
    fn new(engine: &'a Engine) -> Self {
        let store = engine.store.clone().with_ownership(engine.ownership());
        Self { engine, store }
    }

    fn ownership(&self) -> Ownership {
        self.engine.ownership()
    }
}

/// The image that `name` means, pulled as the policy says. `name` may be a source
/// (`oci:/path`, …), which is then always read.
///
/// The caller must be single-threaded: the pull runs in a forked child, inside the user namespace
/// that owns the layers' files.
pub fn ensure(
    engine: &Engine,
    name: &str,
    policy: PullPolicy,
    options: &PullOptions,
    progress: impl Progress,
) -> Result<ImageRecord, Error> {
    let at = At::new(engine);
    if Transport::is_explicit(name) {
        return pull_from(&at, &[name.parse()?], name, options, &progress);
    }
    if is_hello(&at.store, name)? {
        return make_hello(&at, name);
    }
    let local = match at.store.image_to_run(name)? {
        Some(image) if !options.fits(&image)? => None,
        Some(image) if is_whole(&at.store, &image)? || renew(&at, &image, name)? => Some(image),
        _ => None,
    };
    match (policy, local) {
        (PullPolicy::Missing | PullPolicy::Never, Some(image)) => Ok(image),
        (PullPolicy::Never, None) => {
            Err(Error::NotHere { name: name.to_owned(), similar: similar(&at.store, name) })
        }
        (PullPolicy::Newer, Some(image)) => match candidates(&at.store, name, Some(&image)) {
            Ok(sources) => Ok(newer(&at, &image, &sources, name, options, &progress)?.unwrap_or(image)),
            Err(_) => Ok(image),
        },
        (_, local) => {
            let sources = candidates(&at.store, name, local.as_ref())?;
            pull_from(&at, &sources, name, options, &progress).map_err(|error| match error {
                Error::Pull { name, message, hint, misnamed: true } => {
                    let here = similar(&at.store, &name);
                    let hint = here.map(|image| format!("did you mean {image}, which is here?")).or(hint);
                    Error::Pull { name, message, hint, misnamed: true }
                }
                error => error,
            })
        }
    }
}

/// The image here whose name `name` is most likely a slip of.
fn similar(store: &Store, name: &str) -> Option<String> {
    let images = store.images().ok()?;
    let full: Vec<&str> = images.iter().flat_map(|image| &image.names).map(String::as_str).collect();
    // Names are compared as far as they were typed: with or without the tag and the registry.
    let forms = full.iter().flat_map(|full| {
        let untagged = full.rsplit_once(':').map_or(*full, |(head, _)| head);
        [*full, untagged]
            .into_iter()
            .flat_map(|form| [form, form.rsplit_once('/').map_or(form, |(_, tail)| tail)])
    });
    suggest::closest(name, forms).map(str::to_owned)
}

/// Whether all layers of an image are there: a power cut may have taken some.
fn is_whole(store: &Store, image: &ImageRecord) -> Result<bool, Error> {
    for layer in &image.layers {
        if store.layer(&layer.chain_id)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the name means the image that is made from this program: that one itself, or no other.
fn is_hello(store: &Store, name: &str) -> Result<bool, Error> {
    if !["hello", "hello:latest", "localhost/hello", hello::NAME].contains(&name) {
        return Ok(false);
    }
    Ok(store.image_to_run(name)?.is_none_or(|image| image.made_from.is_some()))
}

fn make_hello(at: &At<'_>, name: &str) -> Result<ImageRecord, Error> {
    let store = &at.store;
    if let Ok(Some(image)) = hello::current(store) {
        return Ok(image);
    }
    let id = in_child(at, name, false, |store| {
        hello::ensure(store).map(|image| image.id).map_err(|error| Failure::new(&error, None))
    })?;
    store.image_by_id(&id)?.ok_or_else(|| Error::NoSuchImage(name.to_owned()))
}

/// Where a name may be pulled from, in the order to try.
fn candidates(store: &Store, name: &str, local: Option<&ImageRecord>) -> Result<Vec<Transport>, Error> {
    let reference: Reference = name.parse()?;
    if !reference.is_short() {
        return Ok(vec![Transport::Registry(reference)]);
    }
    // What is here under a short name says where it came from.
    if let Some(known) = local.and_then(|image| image.names.iter().find_map(|n| n.parse::<Reference>().ok()))
        && known.registry() != Some("localhost")
        && local.is_some_and(|image| store.resolve_image(name).is_ok_and(|id| id == Some(image.id)))
    {
        return Ok(vec![Transport::Registry(known)]);
    }
    let candidates = registries()?.candidates(&reference)?;
    Ok(candidates.into_iter().map(Transport::Registry).collect())
}

fn registries() -> Result<Registries, Error> {
    Ok(Registries::read(&|name| std::env::var_os(name))?)
}

/// One place that an image may come from: its name, and how to ask there.
struct Attempt {
    source: Transport,
    options: image::PullOptions,
}

/// Where the sources lead by registries.conf, with the credentials for each place.
///
/// Only for a process that pulls and ends: secrets must not get into the memory of a monitor, which is
/// a fork of the command (docs/adr/0001-fork-model.md).
fn attempts(at: &At<'_>, sources: &[Transport], options: &PullOptions) -> Result<Vec<Attempt>, Failure> {
    // This process has none; what a helper writes is nobody else's business.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    find_attempts(at, sources, options).map_err(|error| Failure::new(&error, error.hint()))
}

fn find_attempts(at: &At<'_>, sources: &[Transport], options: &PullOptions) -> Result<Vec<Attempt>, Error> {
    let resolved = options.resolve(at.ownership())?;
    let env = |name: &str| std::env::var_os(name);
    let mut configuration = None;
    let mut attempts = Vec::new();
    for source in sources {
        let Transport::Registry(reference) = source else {
            attempts.push(Attempt { source: source.clone(), options: resolved.clone() });
            continue;
        };
        let registries = match &mut configuration {
            Some(known) => known,
            none => none.insert(registries()?),
        };
        for endpoint in registries.endpoints(reference)? {
            let mut options_here = resolved.clone();
            let registry = &mut options_here.registry;
            if registry.creds.is_none() {
                let helpers = registries.credential_helpers();
                let authfile = options.authfile.as_deref();
                registry.creds = image::auth::find(&endpoint.reference, authfile, &helpers, &env)?;
            }
            registry.tls_verify = registry.tls_verify.or(endpoint.insecure.then_some(false));
            registry.location = Some(endpoint.reference);
            attempts.push(Attempt { source: source.clone(), options: options_here });
        }
    }
    Ok(attempts)
}

/// What a child that failed tells.
#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    message: String,
    hint: Option<String>,
    /// The name may be a slip: nothing answers to it.
    misnamed: bool,
}

impl Failure {
    fn new(error: &dyn std::error::Error, hint: Option<String>) -> Self {
        Self { message: report::chain(error), hint, misnamed: false }
    }

    /// What a child of this process told, to be told on.
    fn again(error: Error) -> Self {
        match error {
            Error::Pull { message, hint, misnamed, .. } => Self { message, hint, misnamed },
            Error::Child { source, .. } => Self::new(&source, None),
            other => Self::new(&other, other.hint()),
        }
    }

    fn of_pull(error: &pull::Error) -> Self {
        let hint = match error {
            pull::Error::Source(source::Error::Registry(error)) => error.hint(),
            pull::Error::Layer(layer) => layer_hint(layer),
            pull::Error::Manifest { source: image::manifest::Error::NoPlatform { .. }, .. }
            | pull::Error::Source(source::Error::Manifest {
                source: image::manifest::Error::NoPlatform { .. },
                ..
            }) => Some("--platform OS/ARCHITECTURE chooses another".to_owned()),
            _ => None,
        };
        let misnamed =
            matches!(error, pull::Error::Source(source::Error::Registry(error)) if error.may_be_a_slip());
        Self { misnamed, ..Self::new(error, hint) }
    }
}

fn layer_hint(error: &image::layer::Error) -> Option<String> {
    match error {
        image::layer::Error::Unpack { source: image::unpack::Error::Owner { .. }, .. } => {
            Some("give the user more subordinate ids: usermod --add-subuids … --add-subgids …".to_owned())
        }
        image::layer::Error::Write { source, .. }
        | image::layer::Error::Unpack { source: image::unpack::Error::Entry { source, .. }, .. }
            if source.kind() == std::io::ErrorKind::StorageFull =>
        {
            Some("the disk is full: umiak rmi removes images".to_owned())
        }
        _ => None,
    }
}

/// Runs work on the store in a forked child, which enters the user namespace that owns the files
/// where there is one.
fn in_child<T: Serialize + serde::de::DeserializeOwned>(
    at: &At<'_>,
    name: &str,
    enter: bool,
    work: impl FnOnce(&Store) -> Result<T, Failure>,
) -> Result<T, Error> {
    let rung = enter.then(|| at.engine.rung());
    let mapping = rung.filter(|rung| rung.kind != RungKind::Root).map(|rung| &rung.mapping);
    let result = child::call(mapping, || work(&at.store));
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure { message, hint, misnamed })) => {
            Err(Error::Pull { name: name.to_owned(), message, hint, misnamed })
        }
        Err(source) => Err(Error::Child { name: name.to_owned(), source }),
    }
}

/// Pulls from the first place that has the image.
fn pull_from(
    at: &At<'_>,
    sources: &[Transport],
    name: &str,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<ImageRecord, Error> {
    let id = in_child(at, name, false, |_| {
        let attempts = attempts(at, sources, options)?;
        // One more process: a credential helper runs as the user, layers are unpacked by root of a
        // user namespace.
        in_child(at, name, true, |store| pull_first(store, &attempts, progress)).map_err(Failure::again)
    })?;
    at.store.image_by_id(&id)?.ok_or_else(|| Error::NoSuchImage(name.to_owned()))
}

/// Pulls from the first place that has the image.
fn pull_first(store: &Store, attempts: &[Attempt], progress: &dyn Progress) -> Result<Digest, Failure> {
    // What killed processes left is swept when there is work to do anyway.
    let _ = store.sweep();
    let mut failures: Vec<Failure> = Vec::new();
    for Attempt { source, options } in attempts {
        match image::pull(store, source, options, progress) {
            Ok(image) => {
                progress.ended();
                sync_later(store, &image);
                return Ok(image.id);
            }
            Err(error) => failures.push(Failure::of_pull(&error)),
        }
    }
    progress.ended();
    let hint = failures.iter().find_map(|failure| failure.hint.clone());
    let misnamed = failures.iter().all(|failure| failure.misnamed);
    let messages: Vec<String> = failures.into_iter().map(|failure| failure.message).collect();
    Err(Failure { message: messages.join("; "), hint, misnamed })
}

/// Nobody need wait for the disk: until the layers are marked as synced they count only during
/// this boot (docs/adr/0002-state-layout.md).
fn sync_later(store: &Store, image: &ImageRecord) {
    let layers: Vec<_> = image.layers.iter().map(|layer| layer.chain_id).collect();
    let _ = child::detach(|| drop(store.sync_layers(&layers)));
}

/// Unpacks layers that are missing anew, if all of their blobs are kept; says whether it did.
fn renew(at: &At<'_>, image: &ImageRecord, name: &str) -> Result<bool, Error> {
    let options = PullOptions::default().resolve(at.ownership())?;
    let platform = Platform {
        os: image.os.clone(),
        architecture: image.architecture.clone(),
        variant: image.variant.clone(),
    };
    let options = image::PullOptions { platform, ..options };
    let renewed = in_child(at, name, true, |store| {
        pull::renew(store, image, &options).map_err(|error| Failure::of_pull(&error))?;
        sync_later(store, image);
        Ok(())
    });
    match renewed {
        Ok(()) => Ok(true),
        // It is pulled then, and if that fails too this is not what stands in the way.
        Err(Error::Pull { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Pulls if the first place that answers has another manifest than `image`; `None` if not.
fn newer(
    at: &At<'_>,
    image: &ImageRecord,
    sources: &[Transport],
    name: &str,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Option<ImageRecord>, Error> {
    let remote = in_child(at, name, false, |store| {
        let attempts = attempts(at, sources, options)?;
        let found = attempts.iter().find_map(|attempt| {
            let digest = pull::remote_manifest(store, &attempt.source, &attempt.options).ok()?;
            Some((attempt.source.to_string(), digest))
        });
        Ok(found)
    });
    match remote {
        Ok(Some((source, digest))) if digest != image.manifest => {
            pull_from(at, &[source.parse()?], name, options, progress).map(Some)
        }
        // It cannot be asked, or has the same.
        _ => Ok(None),
    }
}

/// What `rmi` did to one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Names that were taken away.
    pub untagged: Vec<String>,
    /// The image itself, if it is gone.
    pub deleted: Option<Digest>,
}

impl Engine {
    /// Removes a name, and with its last name the image, by Podman's rules: an image with several
    /// names goes by id only by `force`; one that containers use goes only by `force`, which
    /// removes the containers too. Layers go by [`Engine::collect_images`].
    pub fn remove_image(&self, name: &str, force: bool) -> Result<Removed, super::Error> {
        let found = self.store.image(name).map_err(Error::from)?;
        let image = found.ok_or_else(|| Error::NoSuchImage(name.to_owned()))?;
        let by_name = matching_name(&image, name);
        if image.names.len() > 1 {
            if let Some(tag) = by_name {
                self.store.untag(&tag).map_err(Error::from)?;
                return Ok(Removed { untagged: vec![tag], deleted: None });
            }
            if !force {
                return Err(Error::SeveralNames { id: image.id.short(), names: image.names }.into());
            }
        }
        let users = self.users_of(&image.id)?;
        if !users.is_empty() && !force {
            let containers = users.into_iter().map(|record| record.name).collect();
            return Err(Error::InUse { name: name.to_owned(), containers }.into());
        }
        for user in users {
            self.remove(&user.id, true, Some(0))?;
        }
        // Alone, so that no container is being made from it meanwhile.
        let _lock = self.store.lock_exclusive().map_err(Error::from)?;
        let users = self.users_of(&image.id)?;
        if !users.is_empty() {
            let containers = users.into_iter().map(|record| record.name).collect();
            return Err(Error::InUse { name: name.to_owned(), containers }.into());
        }
        self.store.remove_image(&image).map_err(Error::from)?;
        Ok(Removed { untagged: image.names, deleted: Some(image.id) })
    }

    /// Removes the layers and blobs that nothing refers to any more.
    pub fn collect_images(&self) -> Result<(), super::Error> {
        let mapping = match self.rung().kind {
            RungKind::Root => None,
            _ => Some(self.rung().mapping.clone()),
        };
        let store = self.store.clone().with_mapping(mapping);
        store.collect().map_err(Error::from)?;
        Ok(store.sweep().map_err(Error::from)?)
    }

    fn users_of(&self, id: &Digest) -> Result<Vec<ContainerRecord>, super::Error> {
        let mut users = Vec::new();
        for container in self.containers.ids()? {
            match self.containers.record(&container) {
                Ok(record) if record.image_id == Some(*id) => users.push(record),
                // Being made or removed this moment, or damaged: `ps` tells of the latter.
                _ => {}
            }
        }
        Ok(users)
    }

    /// How many containers use each image.
    pub fn image_users(&self) -> Result<BTreeMap<Digest, usize>, super::Error> {
        let mut users = BTreeMap::new();
        for container in self.containers.ids()? {
            if let Ok(ContainerRecord { image_id: Some(id), .. }) = self.containers.record(&container) {
                *users.entry(id).or_default() += 1;
            }
        }
        Ok(users)
    }
}

/// Which of the image's names the user meant; `None` if it was an id or a digest.
fn matching_name(image: &ImageRecord, name: &str) -> Option<String> {
    if name.contains('@') {
        return None;
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    let tagged = if last.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    let exact = image.names.iter().find(|known| **known == tagged);
    let suffix = format!("/{tagged}");
    exact.or_else(|| image.names.iter().find(|known| known.ends_with(&suffix))).cloned()
}

/// What `podman image inspect` shows of an image; `None` if there is none.
pub fn inspect(store: &Store, name: &str) -> Result<Option<Value>, Error> {
    let Some(image) = store.image(name)? else { return Ok(None) };
    let container = image.config.get("config").cloned().unwrap_or_else(|| json!({}));
    let text = |key: &str| image.config.get(key).cloned().unwrap_or_else(|| json!(""));
    let layers: Vec<String> = image.layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let lower: Vec<String> = image
        .layers
        .iter()
        .rev()
        .skip(1)
        .map(|layer| store.layer_dir(&layer.chain_id).display().to_string())
        .collect();
    let mut data = serde_json::Map::new();
    if !lower.is_empty() {
        data.insert("LowerDir".to_owned(), lower.join(":").into());
    }
    if let Some(top) = image.layers.last() {
        data.insert("UpperDir".to_owned(), store.layer_dir(&top.chain_id).display().to_string().into());
    }
    let labels = container.get("Labels").filter(|labels| !labels.is_null()).cloned();
    let user = container.get("User").cloned().unwrap_or_else(|| json!(""));
    Ok(Some(json!({
        "Id": image.id.hex(),
        "Digest": image.manifest,
        "RepoTags": image.names,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": text("comment"),
        "Created": image.created,
        "Config": container,
        "Version": text("docker_version"),
        "Author": text("author"),
        "Architecture": image.architecture,
        "Variant": image.variant.clone().unwrap_or_default(),
        "Os": image.os,
        "Size": image.size,
        "VirtualSize": image.size,
        "GraphDriver": { "Name": "overlay", "Data": data },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Labels": labels,
        "Annotations": annotations(store, &image),
        "ManifestType": image.media_type,
        "User": user,
        "History": image.config.get("history").cloned().unwrap_or_else(|| json!([])),
        "NamesHistory": image.names,
    })))
}

fn annotations(store: &Store, image: &ImageRecord) -> Value {
    let manifest = store.read_blob(&image.manifest).ok().flatten();
    let manifest = manifest.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    manifest.and_then(|m| m.get("annotations").cloned()).filter(Value::is_object).unwrap_or_else(|| json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies() {
        assert_eq!("always".parse(), Ok(PullPolicy::Always));
        assert_eq!("ifnotpresent".parse(), Ok(PullPolicy::Missing));
        assert!("sometimes".parse::<PullPolicy>().is_err());
    }

    #[test]
    fn platforms_come_from_either_kind_of_flag() {
        let one = PullOptions { platform: Some("linux/aarch64".into()), ..PullOptions::default() };
        assert_eq!(one.platform().unwrap().to_string(), "linux/arm64");
        let two =
            PullOptions { arch: Some("arm".into()), variant: Some("v6".into()), ..PullOptions::default() };
        assert_eq!(two.platform().unwrap().to_string(), "linux/arm/v6");
        let both = PullOptions { arch: Some("arm".into()), ..one };
        assert!(matches!(both.platform(), Err(Error::PlatformTwice)));
    }
}
