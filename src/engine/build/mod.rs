//! `build`: images out of Dockerfiles.

mod builder;
pub(super) mod changes;
pub mod context;
pub mod copy;
pub mod error;
mod finish;
mod keys;
mod mounting;
pub mod output;
pub mod prune;
pub mod request;
pub mod stages;
mod state;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use self::builder::Builder;
use self::context::Context;
pub use self::error::Error;
use self::request::{BuildRequest, ContextSource};
use super::attach::Outputs;
use super::{Engine, commit};
use crate::image::Progress;
use crate::image::dockerfile::{self, ignore::Ignore};
use crate::storage::ImageRecord;
use crate::sys::host;

/// What a build tells while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A step begins.
    Step {
        /// Number of the stage from 1, and how many there are, where it is more than one.
        stage: Option<(usize, usize)>,
        /// Number of the step from 1, `FROM` being one.
        step: usize,
        /// How many there are in this stage.
        of: usize,
        /// The instruction as it is written.
        text: String,
    },
    /// A step came to this.
    Layer {
        /// The first digits of what identifies all files there are now; empty if there are none.
        id: String,
        /// It was there from a former build.
        cached: bool,
    },
    /// The image is being put together, under these names.
    Commit(Vec<String>),
    /// Something that is no error.
    Warning(String),
}

/// Who watches a build.
pub struct Face<'a> {
    /// Told what goes on.
    pub tell: &'a mut dyn FnMut(Told),
    /// Makes who watches a pull.
    pub progress: &'a dyn Fn() -> Box<dyn Progress>,
    /// What is shown of the output of commands.
    pub outputs: Outputs,
}

/// Larger Dockerfiles are none.
const LARGEST: u64 = 16 << 20;

impl Engine {
    /// Builds an image.
    ///
    /// The caller must be single-threaded.
    pub fn build<'a>(
        &'a self,
        request: &'a BuildRequest,
        face: Face<'a>,
    ) -> Result<ImageRecord, super::Error> {
        let failed =
            |source| super::Error::Build { context: shown(&request.context), source: Box::new(source) };
        self.build_here(request, face).map_err(failed)
    }

    fn build_here<'a>(&'a self, request: &'a BuildRequest, face: Face<'a>) -> Result<ImageRecord, Error> {
        self.sweep_steps();
        // What cannot be removed now can be by the next build.
        drop(self.store.clone().with_mapping(self.default_mapping()).sweep());
        let tags = request.tags.iter().map(|tag| commit::full_name(Some(tag))).collect::<Result<Vec<_>, _>>();
        let names: Vec<String> = tags?.into_iter().flatten().collect();
        let store = self.store.clone().with_ownership(self.ownership());
        let context = Context::open(&store, &request.context)?;
        let (file_name, text) = read_dockerfile(request, &context)?;
        let file = dockerfile::parse(&text).map_err(|error| {
            let (file, line) = (file_name.clone(), error.line());
            Error::Parse { file, line, source: error.into_problem() }
        })?;
        let ignore = Rc::new(read_ignore(request, &context)?);
        let mut builder = Builder {
            engine: self,
            store,
            request,
            file: Rc::new(file),
            file_name,
            context: Rc::new(context),
            ignore,
            face,
            done: BTreeMap::new(),
            globals: BTreeMap::new(),
            images: BTreeMap::new(),
            contexts: BTreeMap::new(),
            used: BTreeSet::new(),
            now: host::now(),
            scratch: None,
            ended: Vec::new(),
            pins: Vec::new(),
        };
        for warning in &builder.file.warnings {
            (builder.face.tell)(Told::Warning(format!("{} {warning}", builder.file_name)));
        }
        let built = builder.all().and_then(|state| builder.finish(state, names));
        builder.settle();
        built
    }

    /// Ends the steps of builds whose builder and monitor were both killed.
    fn sweep_steps(&self) {
        for id in self.containers.live_ids().unwrap_or_default() {
            let step = self.containers.brief(&id).is_ok_and(|brief| brief.config.build);
            if step && matches!(self.containers.in_charge(&id), Ok(false)) {
                // What cannot be removed now can be by the next build.
                let _ = self.remove(&id, true, Some(0));
            }
        }
    }
}

/// The Dockerfile's name for people, and its text.
fn read_dockerfile(request: &BuildRequest, context: &Context) -> Result<(String, Vec<u8>), Error> {
    if let ([], Some(text)) = (&request.files[..], context.dockerfile()) {
        return Ok(("Dockerfile".to_owned(), text.to_vec()));
    }
    let of_context = |path: &Path| {
        let read = context.read(path, LARGEST);
        read.map_err(|source| Error::File { path: path.to_owned(), source })
    };
    if request.files.is_empty() {
        for name in ["Containerfile", "Dockerfile"] {
            if let Some(text) = of_context(Path::new(name))? {
                return Ok((name.to_owned(), text));
            }
        }
        return Err(Error::NoFile { context: shown(&request.context) });
    }
    let mut whole = Vec::new();
    for path in &request.files {
        let failed = |source| Error::File { path: path.clone(), source };
        let text = if path == Path::new("-") {
            let mut text = Vec::new();
            std::io::stdin().take(LARGEST).read_to_end(&mut text).map_err(failed)?;
            text
        } else {
            match read_file(path) {
                // As Podman: where it is not here it may be in the context.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    of_context(path)?.ok_or_else(|| failed(error))?
                }
                other => other.map_err(failed)?,
            }
        };
        whole.extend(text);
        if !whole.ends_with(b"\n") {
            whole.push(b'\n');
        }
    }
    let first = &request.files[0];
    let name = if first == Path::new("-") { "Dockerfile".to_owned() } else { first.display().to_string() };
    Ok((name, whole))
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LARGEST { Err(std::io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

/// The ignore file that a flag names, that of the Dockerfile, or the context's.
fn read_ignore(request: &BuildRequest, context: &Context) -> Result<Ignore, Error> {
    let parsed = |path: PathBuf, text: Vec<u8>| {
        Ignore::parse(&text).map_err(|source| Error::Ignore { file: path.display().to_string(), source })
    };
    if let Some(path) = &request.ignore_file {
        let text = read_file(path).map_err(|source| Error::File { path: path.clone(), source })?;
        return parsed(path.clone(), text);
    }
    if let [file] = &request.files[..] {
        for extension in ["containerignore", "dockerignore"] {
            let mut path = file.clone().into_os_string();
            path.push(format!(".{extension}"));
            let path = PathBuf::from(path);
            match read_file(&path) {
                Ok(text) => return parsed(path, text),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(Error::File { path, source }),
            }
        }
    }
    for name in [".containerignore", ".dockerignore"] {
        let path = PathBuf::from(name);
        let text = context.read(&path, LARGEST);
        if let Some(text) = text.map_err(|source| Error::File { path: path.clone(), source })? {
            return parsed(path, text);
        }
    }
    Ok(Ignore::default())
}

/// A context for people.
fn shown(context: &ContextSource) -> String {
    match context {
        ContextSource::Directory(path) => path.display().to_string(),
        ContextSource::Stdin => "-".to_owned(),
        ContextSource::Url(url) => url.clone(),
    }
}
