//! Going through a Dockerfile: stage by stage, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::copy;
use super::error::{Error, Failed};
use super::mounting::Scratch;
use super::request::{BuildRequest, ContextSource};
use super::stages;
use super::state::{Entry, State};
use super::{Face, Told};
use crate::base::digest::Digest;
use crate::base::id::ContainerId;
use crate::engine::images::{self, Failure};
use crate::engine::{Engine, files};
use crate::image::create::{self, Spooled};
use crate::image::dockerfile::ignore::Ignore;
use crate::image::dockerfile::{self, Argument, Dockerfile, Instruction, Stage, Step, expand_word};
use crate::image::{Platform, Progress};
use crate::storage::builds::BuiltStep;
use crate::storage::{ImageRecord, LayerRef, Pins, Store};
use crate::sys::host;
use crate::sys::merged::Tree;

/// Docker passes these on to every command if they are given, and no key has them.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// How much of an instruction stands in an error.
const SHOWN: usize = 60;

/// A build that goes on.
pub(super) struct Builder<'a> {
    pub engine: &'a Engine,
    /// The engine's, with the ownership that layers have here.
    pub store: Store,
    pub request: &'a BuildRequest,
    pub file: Rc<Dockerfile>,
    pub file_name: String,
    pub context: Rc<Context>,
    pub ignore: Rc<Ignore>,
    pub face: Face<'a>,
    /// Stages that are done.
    pub done: BTreeMap<usize, State>,
    /// Variables of `ARG`s before the first `FROM`; none if nothing gives them a value.
    pub globals: BTreeMap<String, Option<String>>,
    /// Images that files were taken of.
    pub images: BTreeMap<String, State>,
    /// Other contexts.
    pub contexts: BTreeMap<String, Rc<Context>>,
    /// Build arguments that some `ARG` has asked for.
    pub used: BTreeSet<String>,
    /// Nanoseconds since 1970: when the build began.
    pub now: i64,
    /// Made when a step needs one.
    pub scratch: Option<Rc<Scratch>>,
    /// Containers whose monitors may still be at work.
    pub ended: Vec<ContainerId>,
    /// What the build stands on stays until it has ended.
    pub pins: Vec<Pins>,
}

/// From where files are taken.
pub(super) enum From {
    Context(Rc<Context>),
    State(Box<State>),
}

impl Builder<'_> {
    /// Builds all stages that are needed; the state of the last.
    pub fn all(&mut self) -> Result<State, Error> {
        self.resolve_globals()?;
        let request = self.request;
        let expand = |word: &str| self.expand_global(word).ok();
        let needed =
            stages::needed(&self.file, request.target.as_deref(), !request.skip_unused_stages, &expand)?;
        let mut last = State::default();
        for (turn, index) in needed.iter().enumerate() {
            let number = (needed.len() > 1).then_some((turn + 1, needed.len()));
            last = self.built(*index, number)?;
        }
        let given = request.args.iter().map(|(name, _)| name);
        let unused: Vec<&str> =
            given.filter(|name| !self.used.contains(*name) && !is_proxy(name)).map(|n| &**n).collect();
        if !unused.is_empty() {
            let what = format!("no ARG asks for these build arguments: {}", unused.join(", "));
            (self.face.tell)(Told::Warning(what));
        }
        Ok(last)
    }

    fn at(&self, line: usize, text: &str) -> impl Fn(Failed) -> Error + use<> {
        let (file, mut text) = (self.file_name.clone(), text.to_owned());
        if text.chars().count() > SHOWN {
            text = text.chars().take(SHOWN).chain("…".chars()).collect();
        }
        move |source| Error::Step { file: file.clone(), line, text: text.clone(), source: Box::new(source) }
    }

    /// What a stage comes to; it is built if it was not yet.
    fn built(&mut self, index: usize, number: Option<(usize, usize)>) -> Result<State, Error> {
        if let Some(done) = self.done.get(&index) {
            return Ok(done.clone());
        }
        let file = self.file.clone();
        let state = self.stage(&file, &file.stages[index], index, number)?;
        self.done.insert(index, state.clone());
        Ok(state)
    }

    /// The same for a stage that a name leads to. Only now it may be known that it is needed: a variable has its name,
    /// or the base's `ONBUILD`.
    fn built_for_another(&mut self, index: usize) -> Result<State, Failed> {
        self.built(index, None).map_err(|error| Failed::Stage(Box::new(error)))
    }

    fn stage(
        &mut self,
        file: &Dockerfile,
        stage: &Stage,
        index: usize,
        number: Option<(usize, usize)>,
    ) -> Result<State, Error> {
        let failed = self.at(stage.line, &stage.text);
        // Before the base is known, so that people see what is being pulled.
        let mut told =
            Told::Step { stage: number, step: 1, of: stage.steps.len() + 1, text: stage.text.clone() };
        (self.face.tell)(told.clone());
        let mut state = self.base(file, stage, index).map_err(&failed)?;
        for (name, value) in &self.request.env {
            let env = Instruction::Env(vec![(name.clone(), value.clone())]);
            state.configure(&env).map_err(|error| failed(error.into()))?;
        }
        let mut steps = Vec::new();
        for text in state.take_triggers() {
            let step = dockerfile::parse_step(&text, '\\');
            let step = step.map_err(|error| failed(Failed::Trigger(text.clone(), error.into_problem())))?;
            steps.push(Step { line: stage.line, ..step });
        }
        steps.extend(stage.steps.iter().cloned());
        for (position, step) in steps.iter().enumerate() {
            let failed = self.at(step.line, &step.text);
            told = Told::Step {
                stage: number,
                step: position + 2,
                of: steps.len() + 1,
                text: step.text.clone(),
            };
            (self.face.tell)(told.clone());
            self.step(&mut state, step, file, index).map_err(failed)?;
        }
        Ok(state)
    }

    /// Gives the `ARG`s before the first `FROM` their values, each knowing those before it.
    pub fn resolve_globals(&mut self) -> Result<(), Error> {
        for argument in &self.file.arguments {
            let given = self.given(&argument.name);
            if given.is_some() {
                self.used.insert(argument.name.clone());
            }
            let text = argument.default.as_deref();
            let default = || text.map(|text| self.expand_global(text)).transpose();
            let value = match given {
                Some(value) => Some(value),
                None => {
                    default().map_err(|error| self.at(1, &format!("ARG {}", argument.name))(error.into()))?
                }
            };
            self.globals.insert(argument.name.clone(), value);
        }
        Ok(())
    }

    /// The value of a variable that stands before the first `FROM`, or that every build has.
    fn global(&self, name: &str) -> Option<String> {
        match self.globals.get(name) {
            Some(Some(value)) => Some(value.clone()),
            _ => self.predefined(name),
        }
    }

    fn expand_global(&self, text: &str) -> Result<String, dockerfile::ExpandError> {
        expand_word(text, self.file.escape, &|name: &str| self.global(name))
    }

    /// `--build-arg`.
    fn given(&self, name: &str) -> Option<String> {
        self.request.args.iter().rev().find(|(given, _)| given == name).map(|(_, value)| value.clone())
    }

    /// What the image is for, if not for this machine.
    fn target(&self) -> Platform {
        // Flags that make no sense were refused before.
        self.request.pull_options.platform().unwrap_or_else(|_| Platform::host())
    }

    /// The variables about platforms: of who builds, and of whom it is built for.
    fn predefined(&self, name: &str) -> Option<String> {
        let (side, what) =
            ["TARGET", "BUILD"].iter().find_map(|side| Some((side, name.strip_prefix(side)?)))?;
        if *side == "TARGET"
            && let Some(given) = self.given(name)
        {
            return Some(given);
        }
        let platform = if *side == "TARGET" { self.target() } else { Platform::host() };
        match what {
            "PLATFORM" => Some(platform.to_string()),
            "OS" => Some(platform.os),
            "ARCH" => Some(platform.architecture),
            "VARIANT" => Some(platform.variant.unwrap_or_default()),
            "STAGE" => Some(self.request.target.clone().unwrap_or_else(|| "default".to_owned())),
            _ => None,
        }
    }

    /// What `FROM` says.
    fn base(&mut self, file: &Dockerfile, stage: &Stage, index: usize) -> Result<State, Failed> {
        let base = match (&self.request.from, index) {
            (Some(from), 0) => from.clone(),
            _ => self.expand_global(&stage.base)?,
        };
        if base.is_empty() {
            return Err(Failed::NoBase(stage.base.clone()));
        }
        if let Some(found) = stages::find(&file.stages, &base, index, false) {
            return Ok(State::of_stage(&self.built_for_another(found)?));
        }
        if base == "scratch" {
            return Ok(State::scratch(self.target()));
        }
        let platform = stage.platform.as_deref().map(|platform| self.expand_global(platform)).transpose()?;
        // An architecture alone is one of this system's.
        let whole = |platform: String| match platform.is_empty() || platform.contains('/') {
            true => platform,
            false => format!("{}/{platform}", Platform::host().os),
        };
        self.of_image(&base, platform.map(whole))
    }

    /// The image of this name, pulled where that is missing.
    fn of_image(&mut self, name: &str, platform: Option<String>) -> Result<State, Failed> {
        let named = match self.named(name) {
            None => name.to_owned(),
            Some(value) => image_of(value).ok_or_else(|| Failed::NoBase(name.to_owned()))?,
        };
        let name = &*named;
        let mut options = self.request.pull_options.clone();
        if let Some(platform) = platform.filter(|platform| !platform.is_empty()) {
            options = images::PullOptions {
                platform: Some(platform),
                os: None,
                arch: None,
                variant: None,
                ..options
            };
        }
        let progress: Box<dyn Progress> = (self.face.progress)();
        let image = images::ensure(self.engine, name, self.request.pull, &options, progress);
        let image: ImageRecord = image.map_err(crate::engine::Error::from)?;
        self.pins.push(create::pin(&self.store, &image.layers)?);
        let descriptors = create::layer_descriptors(&self.store, &image, self.request.format)?;
        let mut state = State::of_image(
            &image,
            &image.names.first().cloned().unwrap_or_else(|| name.to_owned()),
            descriptors,
        );
        state.base_digest = Some(image.manifest);
        if self.request.inherit_annotations {
            state.annotations = create::annotations(&self.store, &image)?;
        }
        if !self.request.inherit_labels {
            state.container_mut().remove("Labels");
        }
        Ok(state)
    }

    fn step(
        &mut self,
        state: &mut State,
        step: &Step,
        file: &Dockerfile,
        index: usize,
    ) -> Result<(), Failed> {
        let lookup = |name: &str| state.lookup(name);
        let instruction = step.instruction.expand(file.escape, &lookup)?;
        match &instruction {
            Instruction::Arg(arguments) => {
                arguments.iter().for_each(|argument| self.declare(state, argument));
                state.note(&step.text);
                Ok(())
            }
            Instruction::Run(run) => self.run(state, run, step, file, index),
            Instruction::Copy(copy) => self.copy(state, copy, step, file, index),
            Instruction::Workdir(_) => {
                state.configure(&instruction)?;
                self.workdir(state, step)
            }
            _ => {
                state.configure(&instruction)?;
                state.note(&step.text);
                Ok(())
            }
        }
    }

    /// `ARG` within a stage.
    fn declare(&mut self, state: &mut State, argument: &Argument) {
        let given = self.given(&argument.name);
        if given.is_some() {
            self.used.insert(argument.name.clone());
        }
        let value = given.or_else(|| argument.default.clone()).or_else(|| self.global(&argument.name));
        state.set_arg(&argument.name, value);
    }

    /// What `--build-context` gives this name to.
    fn named(&self, name: &str) -> Option<&str> {
        let contexts = self.request.contexts.iter().rev();
        contexts.clone().find(|(context, _)| context == name).map(|(_, value)| &**value)
    }

    /// What a `--from` means, in a stage. What is no stage and no other context is an image.
    pub fn source(&mut self, word: &str, file: &Dockerfile, index: usize) -> Result<From, Failed> {
        if let Some(found) = stages::find(&file.stages, word, index, true) {
            return Ok(From::State(Box::new(self.built_for_another(found)?)));
        }
        if let Some(value) = self.named(word).filter(|value| image_of(value).is_none()) {
            if let Some(context) = self.contexts.get(word) {
                return Ok(From::Context(context.clone()));
            }
            let address = crate::image::registry::is_address(value);
            let source = if address {
                ContextSource::Url(value.to_owned())
            } else {
                ContextSource::Directory(value.into())
            };
            let context = Rc::new(Context::open(&self.store, &source)?);
            self.contexts.insert(word.to_owned(), context.clone());
            return Ok(From::Context(context));
        }
        let image = match self.images.get(word) {
            Some(image) => image.clone(),
            None => self.of_image(word, None)?,
        };
        self.images.insert(word.to_owned(), image.clone());
        Ok(From::State(Box::new(image)))
    }

    /// The trees of a state, the topmost first.
    pub fn trees(&self, state: &State) -> Vec<Tree> {
        files::of_image(&self.store, &state.layers)
    }

    /// The directory that this build has for itself.
    pub fn scratch(&mut self) -> Result<Rc<Scratch>, Failed> {
        if let Some(scratch) = &self.scratch {
            return Ok(scratch.clone());
        }
        let scratch = Rc::new(Scratch::new(&self.engine.paths.runroot)?);
        self.scratch = Some(scratch.clone());
        Ok(scratch)
    }

    /// Does something with files, as who owns those of layers, in a process of its own.
    pub fn apart<T: Serialize + DeserializeOwned>(
        &self,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failed> {
        match self.engine.in_child(true, work) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Failure { message, hint, .. })) => Err(Failed::Told { message, hint }),
            Err(source) => Err(Failed::Apart(source)),
        }
    }

    /// The key of a step upon a state.
    pub fn key(&self, state: &State, what: &impl Serialize) -> Digest {
        let below = state.layers.last().map(|layer| layer.chain_id);
        Digest::of(&serde_json::to_vec(&(below, what)).unwrap_or_default())
    }

    /// Takes what a former build came to, if that is known and wanted.
    pub fn take_former(&mut self, state: &mut State, key: &Digest, by: &str) -> Result<bool, Failed> {
        if !self.request.cache.read {
            return Ok(false);
        }
        let Some(mut built) = self.store.built(key)? else { return Ok(false) };
        if let Some(layer) = &built.layer {
            // Pinned, and then looked at once more: it may have been collected in between.
            self.pins.push(create::pin(&self.store, std::slice::from_ref(layer))?);
            match self.store.built(key)? {
                Some(again) => built = again,
                None => return Ok(false),
            }
        }
        let age = i128::from(self.now) - i128::from(built.created);
        if self.request.cache.ttl.is_some_and(|ttl| age > i128::try_from(ttl.as_nanos()).unwrap_or(i128::MAX))
        {
            return Ok(false);
        }
        self.put(state, built.layer, by, built.created);
        self.tell_layer(state, true);
        Ok(true)
    }

    fn tell_layer(&mut self, state: &State, cached: bool) {
        let id = state.layers.last().map_or_else(String::new, |layer| layer.chain_id.0.short());
        (self.face.tell)(Told::Layer { id, cached });
    }

    fn put(&self, state: &mut State, layer: Option<LayerRef>, by: &str, created: i64) {
        let entry = Entry { by: by.to_owned(), created: Some(created), empty: false, comment: None };
        let format = self.request.format;
        state.add(layer, |layer| create::new_descriptor(layer, format), entry);
    }

    /// Makes a layer of what a step gave, and remembers it.
    pub fn take_new(
        &mut self,
        state: &mut State,
        key: &Digest,
        spooled: Option<Spooled>,
        (by, text): (&str, &str),
    ) -> Result<(), Failed> {
        let layer = match spooled {
            None => None,
            Some(spooled) => Some(self.layer(&state.layers, spooled)?),
        };
        let built = BuiltStep::new(layer.clone(), text.to_owned(), host::now());
        self.store.put_built(key, &built)?;
        self.put(state, layer, by, built.created);
        self.tell_layer(state, false);
        Ok(())
    }

    /// Makes a layer of an archive, upon others. It is pinned from before it is there.
    pub fn layer(&mut self, below: &[LayerRef], spooled: Spooled) -> Result<LayerRef, Failed> {
        let all = [below, &[create::layer_upon(below, &spooled)]].concat();
        self.pins.push(create::pin(&self.store, &all)?);
        let ownership = self.engine.ownership();
        self.apart(|| {
            let hint = |error: &create::Error| match error {
                create::Error::Layer(layer) => images::layer_hint(layer),
                _ => None,
            };
            let added = create::add_layer(&self.store, below, spooled, ownership);
            added.map(|(_pins, layer)| layer).map_err(|error| Failure::new(&error, hint(&error)))
        })
    }

    /// Waits until nothing is left of the containers that ran.
    pub fn settle(&mut self) {
        for id in std::mem::take(&mut self.ended) {
            // It is gone when its monitor lets go of it, or was gone before.
            drop(self.engine.containers.take_charge(&id));
        }
    }
}

/// The image that a value of `--build-context` names, if it names one rather than files.
fn image_of(value: &str) -> Option<String> {
    match value.split_once("://")? {
        ("docker-image" | "container-image" | "docker", image) => Some(image.to_owned()),
        ("oci-layout", path) => Some(format!("oci:{path}")),
        _ => None,
    }
}

/// Whether a build argument is one that no `ARG` need ask for.
pub(super) fn is_proxy(name: &str) -> bool {
    PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
}

impl copy::Error {
    /// For the process that asked for it.
    pub(super) fn told(&self) -> Failure {
        Failure::new(self, self.hint())
    }
}
