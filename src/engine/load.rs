//! Images that come in by archives and directories, all that are in them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::images::{Failure, sync_later};
use super::push::Error;
use super::{Engine, apart};
use crate::base::digest::Digest;
use crate::image::manifest;
use crate::image::source::{self, Source};
use crate::image::trust::Policy;
use crate::image::{self, Platform, Progress, PullOptions, pull};
use crate::storage::events::Event;
use crate::storage::{ImageRecord, Store};
use crate::sys::atomic::Pending;

/// An image that was loaded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// The names that it had in the archive.
    pub names: Vec<String>,
}

/// What is read, open.
enum Input {
    Path(PathBuf),
    /// Standard input, or what came from it.
    Open(File),
}

const STANDARD_INPUT: &str = "standard input";

impl Engine {
    /// Loads all images of an archive or a directory, or of the archive on standard input.
    ///
    /// The caller must be single-threaded.
    pub fn load_images(&self, path: Option<&Path>, progress: &dyn Progress) -> Result<Vec<Loaded>, Error> {
        let name = path.map_or(STANDARD_INPUT.to_owned(), |path| path.display().to_string());
        let input = match path {
            Some(path) => Input::Path(path.to_owned()),
            None => Input::Open(self.spool()?),
        };
        let policy = Policy::load(None, &|name| std::env::var_os(name))
            .map_err(super::images::Error::from)?
            .map(Arc::new);
        let options = PullOptions { ownership: self.ownership(), policy, ..PullOptions::default() };
        let told = self.in_child(true, || {
            // What killed processes left is swept when there is work to do anyway.
            let _ = self.store.sweep();
            let loaded = load_all(&self.store, &input, &options, progress);
            progress.ended();
            loaded
        });
        let loaded: Vec<Loaded> = apart::told("loading", &name, told)?;
        let events: Vec<_> =
            loaded.iter().map(|image| Event::image("loadfromarchive", image.id.hex(), &name)).collect();
        self.event_log().write(&events);
        Ok(loaded)
    }

    /// Standard input as a file that can be read at any place; copied into the store if it is none.
    fn spool(&self) -> Result<File, Error> {
        let error = |source| Error::Input { path: STANDARD_INPUT.into(), source };
        let stdin = rustix::io::dup(rustix::stdio::stdin()).map_err(|e| error(e.into()))?;
        let mut stdin = File::from(stdin);
        if stdin.metadata().map_err(error)?.is_file() {
            io::Seek::rewind(&mut stdin).map_err(error)?;
            return Ok(stdin);
        }
        let staging = self.store.path("staging");
        let written = |source| Error::Output { path: staging.clone(), source };
        let mut pending = Pending::create(&staging, 0o600).map_err(written)?;
        io::copy(&mut stdin, &mut pending.file).map_err(error)?;
        io::Seek::rewind(&mut pending.file).map_err(written)?;
        pending.file.try_clone().map_err(written)
    }
}

fn load_all(
    store: &Store,
    input: &Input,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>, Failure> {
    let scratch = store.path("staging");
    let limit = options.max_layer;
    let (what, sources) = match input {
        Input::Path(path) => (path.display().to_string(), source::all_images(path, &scratch, limit)),
        Input::Open(file) => {
            let path = Path::new(STANDARD_INPUT);
            let file = file.try_clone().map_err(|error| Failure::new(&error, None))?;
            (STANDARD_INPUT.to_owned(), source::all_in(file, path, &scratch, limit))
        }
    };
    let sources = sources.map_err(|error| {
        let hint = matches!(error, source::Error::NoArchive(_)).then(|| {
            "what \"umiak save\", \"podman save\" or \"docker save\" wrote can be loaded".to_owned()
        });
        Failure::new(&error, hint)
    })?;
    let mut loaded: Vec<Loaded> = Vec::new();
    for source in &sources {
        let image =
            load_one(store, &**source, &what, options, progress).map_err(|error| Failure::of_pull(&error))?;
        sync_later(store, &image.1);
        loaded.push(Loaded { id: image.1.id, names: image.0 });
    }
    Ok(loaded)
}

/// Loads an image for whichever platform it is: an archive holds what was put into it.
fn load_one(
    store: &Store,
    source: &dyn Source,
    what: &str,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<(Vec<String>, ImageRecord), pull::Error> {
    let load = |platform: &Platform| {
        let options = PullOptions { platform: platform.clone(), ..options.clone() };
        let names = source::resolve(source, platform, what)?.names;
        Ok((names, pull::pull_from(store, source, what.to_owned(), &options, progress)?))
    };
    match load(&options.platform) {
        Err(error @ (pull::Error::Source(source::Error::Manifest { .. }) | pull::Error::Manifest { .. })) => {
            let other = match &error {
                pull::Error::Source(source::Error::Manifest { source, .. })
                | pull::Error::Manifest { source, .. } => first_platform(source),
                _ => None,
            };
            other.map_or(Err(error), |platform| load(&platform))
        }
        other => other,
    }
}

fn first_platform(error: &manifest::Error) -> Option<image::Platform> {
    let manifest::Error::NoPlatform { available, .. } = error else { return None };
    available.first()?.parse().ok()
}
