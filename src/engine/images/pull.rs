//! An image for a container: the one in the store, or one that is pulled.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Error, PullPolicy};
use crate::base::digest::Digest;
use crate::base::{report, suggest};
use crate::engine::Engine;
use crate::engine::reach::Reach;
use crate::image::manifest::go_architecture;
use crate::image::trust::Policy;
use crate::image::{self, Platform, Progress, Reference, Registries, Transport, hello, list, pull, source};
use crate::security::idmap::RungKind;
use crate::storage::events::Event;
use crate::storage::{ImageRecord, Ownership, Store};
use crate::sys::child;

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
    /// How registries are asked.
    pub reach: Reach,
    /// `--signature-policy`.
    pub signature_policy: Option<PathBuf>,
}

impl PullOptions {
    /// The platform that the flags name, the machine's else.
    pub fn platform(&self) -> Result<Platform, Error> {
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
        let reach = &self.reach;
        let registry = image::registry::Options {
            tls_verify: reach.tls_verify,
            creds: reach.credentials()?,
            location: None,
            cert_dir: reach.cert_dir.clone(),
            retry: reach.retry,
            retry_delay: reach.retry_delay,
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
pub(super) struct At<'a> {
    pub engine: &'a Engine,
    /// The engine's, with this user's ownership of layers.
    pub store: Store,
}

impl<'a> At<'a> {
    pub fn new(engine: &'a Engine) -> Self {
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
    if let Some(here) = name.strip_prefix("containers-storage:") {
        return of_the_store(&at, here);
    }
    if Transport::is_explicit(name) {
        return pull_from(&at, &[name.parse()?], name, options, &progress);
    }
    if is_hello(&at.store, name)? {
        return make_hello(&at, name);
    }
    let local = match at.store.image_to_run(name)? {
        Some(image) if image.list.is_some() => return of_list(&at, &image, policy, options, &progress),
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

/// The image for this machine in a list that is here.
fn of_list(
    at: &At<'_>,
    record: &ImageRecord,
    policy: PullPolicy,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<ImageRecord, Error> {
    let name = record.display_name();
    let list = record.list.clone().unwrap_or_default();
    let chosen = list::choose(&list, &options.platform()?);
    let (manifest, source) = chosen.map_err(|source| Error::List { name: name.clone(), source })?;
    if let Some(image) = at.store.image_by_manifest(&manifest)?
        && is_whole(&at.store, &image)?
    {
        return Ok(image);
    }
    match source {
        Some(source) if policy != PullPolicy::Never => {
            let mut transport: Transport = source.parse()?;
            if let Transport::Registry(reference) = &transport {
                transport = Transport::Registry(format!("{}@{manifest}", reference.name()).parse()?);
            }
            pull_from(at, &[transport], &source, options, progress)
        }
        _ => Err(Error::NotHere { name: manifest.to_string(), similar: None }),
    }
}

/// What `containers-storage:NAME` means: an image that is here. Another store than ours cannot be named.
fn of_the_store(at: &At<'_>, name: &str) -> Result<ImageRecord, Error> {
    if name.starts_with('[') {
        return Err(Error::OtherStore(name.to_owned()));
    }
    let missing = || Error::NoSuchImage(name.to_owned());
    at.store.image(name.strip_prefix('@').unwrap_or(name))?.ok_or_else(missing)
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
pub(super) fn candidates(
    store: &Store,
    name: &str,
    local: Option<&ImageRecord>,
) -> Result<Vec<Transport>, Error> {
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

/// `registries.conf` of this user.
pub(in crate::engine) fn registries() -> Result<Registries, Error> {
    Ok(Registries::read(&|name| std::env::var_os(name))?)
}

/// One place that an image may come from: its name, and how to ask there.
pub(super) struct Attempt {
    pub source: Transport,
    pub options: image::PullOptions,
}

/// Where the sources lead by registries.conf, with the credentials for each place.
///
/// Only for a process that pulls and ends: secrets must not get into the memory of a monitor, which is
/// a fork of the command (docs/adr/0001-fork-model.md).
pub(super) fn attempts(
    at: &At<'_>,
    sources: &[Transport],
    options: &PullOptions,
) -> Result<Vec<Attempt>, Failure> {
    // This process has none; what a helper writes is nobody else's business.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    find_attempts(at, sources, options).map_err(|error| Failure::new(&error, error.hint()))
}

fn find_attempts(at: &At<'_>, sources: &[Transport], options: &PullOptions) -> Result<Vec<Attempt>, Error> {
    let env = |name: &str| std::env::var_os(name);
    let policy = Policy::load(options.signature_policy.as_deref(), &env)?.map(Arc::new);
    let resolved = image::PullOptions { policy, ..options.resolve(at.ownership())? };
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
                let authfile = options.reach.authfile.as_deref();
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
pub(in crate::engine) struct Failure {
    /// The chain of errors.
    pub message: String,
    /// What may help.
    pub hint: Option<String>,
    /// The name may be a slip: nothing answers to it.
    pub misnamed: bool,
}

impl Failure {
    /// Of an error, with what may help.
    pub fn new(error: &dyn std::error::Error, hint: Option<String>) -> Self {
        Self { message: report::chain(error), hint, misnamed: false }
    }

    /// What a child of this process told, to be told on.
    fn again(error: Error) -> Self {
        match error {
            Error::Pull { message, hint, misnamed, .. } => Self { message, hint, misnamed },
            Error::Child { ref source, .. } => Self::new(source, error.hint()),
            other => Self::new(&other, other.hint()),
        }
    }

    pub(super) fn of_registry(error: &image::registry::Error) -> Self {
        Self { misnamed: error.may_be_a_slip(), ..Self::new(error, error.hint()) }
    }

    /// Several places failed.
    pub(super) fn of_all(failures: Vec<Self>) -> Self {
        let hint = failures.iter().find_map(|failure| failure.hint.clone());
        let misnamed = failures.iter().all(|failure| failure.misnamed);
        let messages: Vec<String> = failures.into_iter().map(|failure| failure.message).collect();
        Self { message: messages.join("; "), hint, misnamed }
    }

    /// Of a pull.
    pub fn of_pull(error: &pull::Error) -> Self {
        let hint = match error {
            pull::Error::Source(source::Error::Registry(error)) => error.hint(),
            pull::Error::Layer(layer) => layer_hint(layer),
            pull::Error::Trust(error) => error.hint(),
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

/// What may help with a layer that could not be taken in.
pub(in crate::engine) fn layer_hint(error: &image::layer::Error) -> Option<String> {
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
pub(super) fn in_child<T: Serialize + serde::de::DeserializeOwned>(
    at: &At<'_>,
    name: &str,
    enter: bool,
    work: impl FnOnce(&Store) -> Result<T, Failure>,
) -> Result<T, Error> {
    match at.engine.in_child(enter, || work(&at.store)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure { message, hint, misnamed })) => {
            Err(Error::Pull { name: name.to_owned(), message, hint, misnamed })
        }
        Err(source) => Err(Error::Child { name: name.to_owned(), source }),
    }
}

impl Engine {
    /// Runs work in a forked child; with `enter` as root of the user namespace that owns the layers' files,
    /// where there is one. The caller must be single-threaded.
    pub(in crate::engine) fn in_child<T: Serialize + serde::de::DeserializeOwned>(
        &self,
        enter: bool,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, child::Error> {
        let rung = enter.then(|| self.rung());
        let mapping = rung.filter(|rung| rung.kind != RungKind::Root).map(|rung| &rung.mapping);
        child::call(mapping, work)
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
    at.engine.note(Event::image("pull", id.hex(), name));
    // Under the name that was asked for, if it has that: no other is looked for.
    if let Ok(Some(image)) = at.store.image_by_name(name)
        && image.id == id
    {
        return Ok(image);
    }
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
    Err(Failure::of_all(failures))
}

/// Nobody need wait for the disk: until the layers are marked as synced they count only during
/// this boot (docs/adr/0002-state-layout.md).
pub(in crate::engine) fn sync_later(store: &Store, image: &ImageRecord) {
    let layers: Vec<_> = image.layers.iter().map(|layer| layer.chain_id).collect();
    if store.lacks_sync(&layers) {
        let _ = child::detach(|| drop(store.sync_layers(&layers)));
    }
}

/// Makes an image whole again: of what is here of it, else from where it came. The text of the error says
/// why neither could be.
pub(in crate::engine) fn mend(engine: &Engine, image: &ImageRecord) -> Result<(), String> {
    let at = At::new(engine);
    let name = image.display_name();
    let whole = || -> Result<bool, Error> {
        let store = &at.store;
        let records =
            [image.manifest, image.id].iter().all(|blob| matches!(store.read_blob(blob), Ok(Some(_))));
        Ok(records && is_whole(store, image)?)
    };
    let mut why = "what is here does not give it back, and it came from no registry".to_owned();
    let renewed = renew(&at, image, &name).and_then(|_| whole());
    if renewed.map_err(|error| report::chain(&error))? {
        return Ok(());
    }
    if image.made_from.is_some() {
        return make_hello(&at, &name).map(drop).map_err(|error| report::chain(&error));
    }
    // A blob that is not what its name says would stand in the way.
    for blob in [image.manifest, image.id] {
        if at.store.read_blob(&blob).is_err() {
            at.store.discard(&at.store.blob_path(&blob)).map_err(|error| report::chain(&error))?;
        }
    }
    let platform = Some(format!("{}/{}", image.os, image.architecture));
    let options = PullOptions { platform, variant: None, ..PullOptions::default() };
    for source in &image.repo_digests {
        let Ok(reference) = source.parse::<Reference>() else { continue };
        if reference.registry() == Some("localhost") {
            continue;
        }
        match pull_from(&at, &[Transport::Registry(reference)], source, &options, &image::Silent) {
            Ok(_) => match whole() {
                Ok(true) => return Ok(()),
                Ok(false) => why = format!("{source} is another image now"),
                Err(error) => why = report::chain(&error),
            },
            Err(error) => why = report::chain(&error),
        }
    }
    Err(why)
}

/// Unpacks layers that are missing anew, if all of their blobs are kept; says whether it did.
fn renew(at: &At<'_>, image: &ImageRecord, name: &str) -> Result<bool, Error> {
    let options = PullOptions::default().resolve(at.ownership())?;
    let platform = Platform::from(image);
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

#[cfg(test)]
mod tests {
    use super::*;

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
