//! The steps that change files: `RUN`, `COPY` and `ADD`, `WORKDIR`.

use std::io::{self, BufWriter};
use std::path::Path;

use serde_json::{Value, json};

use super::builder::{Builder, From, is_proxy};
use super::copy::{self, Directory, Fetched, Job, Origin, Remote};
use super::error::Failed;
use super::keys;
use super::mounting::{Mounted, Mounting, Source};
use super::request::Allowed;
use super::state::State;
use crate::base::digest::Digest;
use crate::engine::attach::{DetachKeys, Ending, Relay};
use crate::engine::images::Failure;
use crate::engine::request::{BuildStep, RunRequest};
use crate::engine::run::Started;
use crate::image::create::{self, Spool, Spooled};
use crate::image::dockerfile::{Command, Copy, Dockerfile, Run, Step};
use crate::storage::ImageRecord;
use crate::storage::Ownership;

/// The archive of a layer on its way to a file.
type Spooling<'f> = BufWriter<Spool<'f>>;

impl Builder<'_> {
    /// `RUN`
    pub(super) fn run(
        &mut self,
        state: &mut State,
        run: &Run,
        step: &Step,
        file: &Dockerfile,
        index: usize,
    ) -> Result<(), Failed> {
        let mut mounted = self.mounted(state, run, file, index)?;
        let words = self.words(state, run, &mut mounted)?;
        let args = state.visible_args();
        let by = match args.len() {
            0 => words.join(" "),
            count => format!("|{count} {} {}", args.join(" "), words.join(" ")),
        };
        let what = json!({
            "run": words, "env": state.env(), "args": args, "user": state.user(), "workdir": state.workdir(),
            "mounts": mounted.words, "network": run.network, "security": run.security,
            "with": keys::surroundings(self.request),
            "heredocs": run.heredocs.iter().map(|heredoc| &heredoc.text).collect::<Vec<_>>(),
        });
        let key = self.key(state, &what);
        if self.take_former(state, &key, &by)? {
            return Ok(());
        }
        let spooled = self.carry_out(state, run, words, mounted)?;
        self.take_new(state, &key, spooled, (&by, &step.text))
    }

    fn mounted(
        &mut self,
        state: &State,
        run: &Run,
        file: &Dockerfile,
        index: usize,
    ) -> Result<Mounted, Failed> {
        let mut mounted = Mounted::default();
        for mount in &run.mounts {
            let from = match &mount.from {
                Some(from) if mount.kind == "bind" => Some(self.source(from, file, index)?),
                _ if mount.kind == "bind" => Some(From::Context(self.context.clone())),
                _ => None,
            };
            let source = match &from {
                Some(From::Context(context)) => context.root().map(Source::Context),
                Some(From::State(state)) => Some(Source::State(state)),
                None => None,
            };
            self.mounting(state)?.add(&mut mounted, mount, source.as_ref())?;
            if let Some(From::Context(context)) = &from {
                mounted.words.push(self.content(context, mount, state));
            }
        }
        Ok(mounted)
    }

    fn mounting<'s>(&mut self, state: &'s State) -> Result<Mounting<'s>, Failed>
    where
        Self: 's,
    {
        let (engine, request) = (self.engine, self.request);
        Ok(Mounting { engine, request, scratch: self.scratch()?, workdir: state.workdir() })
    }

    /// What is executed.
    fn words(&mut self, state: &State, run: &Run, mounted: &mut Mounted) -> Result<Vec<String>, Failed> {
        match &run.command {
            Command::Shell(text) if !run.heredocs.is_empty() && text.starts_with("#!") => {
                Ok(vec![self.mounting(state)?.script(mounted, text)?])
            }
            command => Ok(state.words(command)),
        }
    }

    /// Runs a container with these words, and takes what it has changed.
    fn carry_out(
        &mut self,
        state: &State,
        run: &Run,
        words: Vec<String>,
        mounted: Mounted,
    ) -> Result<Option<Spooled>, Failed> {
        let engine = self.engine;
        let mut request: RunRequest = self.request.run.clone();
        request.log_driver = Some("none".to_owned());
        // What the step adds to them is the image's.
        request.passwd = false;
        request.interactive = self.request.stdin;
        request.command = words;
        request.env.extend(
            self.request.args.iter().filter(|(name, _)| is_proxy(name)).map(|(n, v)| format!("{n}={v}")),
        );
        request.env.extend(state.visible_args());
        request.image.clone_from(&state.base);
        request.build = Some(BuildStep { mounts: mounted.mounts.clone() });
        match run.network.as_deref() {
            None | Some("default") => {}
            Some("host") => {
                if request.networks != ["host"] {
                    self.allowed("RUN --network=host", Allowed::HostNetwork)?;
                }
                request.networks = vec!["host".to_owned()];
            }
            Some(network) => request.networks = vec![network.to_owned()],
        }
        if run.security.as_deref() == Some("insecure") {
            self.allowed("RUN --security=insecure", Allowed::Insecure)?;
            request.privileged = true;
        }
        let (mut record, lock) = engine.create(&request, Some(&standing_for(state)))?;
        // Secrets among them are not written to the disk: only who starts the container knows of them.
        for item in &mounted.env {
            let name = item.split('=').next();
            record.config.env.retain(|known| known.split('=').next() != name);
            record.config.env.push(item.clone());
        }
        let id = record.id.clone();
        self.ended.push(id.clone());
        let destinations: Vec<String> =
            record.config.mounts.iter().map(|mount| mount.destination.clone()).collect();
        let started = engine.start(record.clone(), lock, self.request.stdin);
        let Started { socket, stdin, begun, .. } = started.inspect_err(|_| engine.discard(&record))?;
        let relayed = |source| Failed::Engine(Box::new(crate::engine::Error::Relay(source)));
        // As long as it is open the container's files stay.
        let held = socket.try_clone().map_err(relayed)?;
        let (no_signals, _silent) = io::pipe().map_err(relayed)?;
        let relay = Relay {
            socket,
            interactive: self.request.stdin,
            tty: false,
            stdin,
            keys: &DetachKeys::default(),
            outputs: self.face.outputs,
            begun,
        };
        let ending = relay.run(&no_signals.into()).map_err(relayed)?;
        let packed = match ending {
            Ending::Exited(0) => engine.pack_step(&record, &destinations, self.request.times),
            Ending::Exited(code) => {
                let code = u8::try_from(code).unwrap_or(125);
                return Err(Failed::Ended { code, hint: self.hint_of(code) });
            }
            Ending::Failed { code, message, hint } => {
                return Err(Failed::NotStarted {
                    code,
                    message,
                    hint: Some(hint).filter(|hint| !hint.is_empty()),
                });
            }
            Ending::Detached | Ending::Lost => {
                let _ = engine.remove(&id, true, Some(0));
                return Err(Failed::Engine(Box::new(crate::engine::Error::MonitorGone(record.name.clone()))));
            }
        };
        drop(held);
        Ok(packed.map_err(crate::engine::Error::from)?)
    }

    /// A Dockerfile, which may be anybody's, does not decide what reaches beyond its container.
    fn allowed(&self, what: &'static str, needed: Allowed) -> Result<(), Failed> {
        if self.request.allow.contains(&needed) { Ok(()) } else { Err(Failed::NotAllowed(what, needed)) }
    }

    fn hint_of(&self, code: u8) -> Option<String> {
        let memory = self.request.run.limits.memory.as_deref()?;
        (code == 137).then(|| format!("it was killed: --memory {memory} may be too little for it"))
    }

    /// `COPY`, `ADD`
    pub(super) fn copy(
        &mut self,
        state: &mut State,
        copy: &Copy,
        step: &Step,
        file: &Dockerfile,
        index: usize,
    ) -> Result<(), Failed> {
        let from = match &copy.from {
            Some(from) => self.source(from, file, index)?,
            None => From::Context(self.context.clone()),
        };
        let remote = |source: &&String| copy.add && copy::remote(source) == Some(Remote::File);
        let fetch = |source: &String| copy::fetch(&self.store, source, copy.checksum.as_deref());
        let fetched: Vec<Fetched> =
            copy.sources.iter().filter(remote).map(fetch).collect::<Result<_, _>>()?;
        let trees = match &from {
            From::State(state) => self.trees(state),
            From::Context(_) => Vec::new(),
        };
        let own = copy.from.is_none();
        let ignore = self.ignore.clone();
        let ignored = |path: &Path, directory: bool| match own {
            true => copy::verdict(&ignore, path, directory),
            false => copy::Verdict::Kept,
        };
        let remembered = self.engine.ownership() == Ownership::Single;
        let origin = match &from {
            From::State(_) => Origin::Trees { trees: &trees, remembered },
            From::Context(context) => match context.root() {
                Some(root) => Origin::Context { root, ignored: &ignored },
                None => Origin::Nothing,
            },
        };
        let below = self.trees(state);
        let now = u64::try_from(self.now / 1_000_000_000).unwrap_or(0);
        let (workdir, times) = (state.workdir().to_owned(), self.request.times);
        let job = Job { copy, origin, fetched: &fetched, below: &below, workdir: &workdir, times, now };
        let examined = self.apart(|| job.examine().map_err(|error| error.told()))?;
        let by = format!("/bin/sh -c #(nop) {}", step.text);
        let key = self.key(state, &json!({ "copy": examined.digest, "times": keys::times(self.request) }));
        for warning in &examined.warnings {
            (self.face.tell)(super::Told::Warning(warning.clone()));
        }
        if self.take_former(state, &key, &by)? {
            return Ok(());
        }
        if examined.entries == 0 {
            return self.take_new(state, &key, None, (&by, &step.text));
        }
        let target = create::spool_file(&self.store)?;
        let (diff_id, size) = self.apart(|| {
            let out = BufWriter::with_capacity(1 << 17, Spool::new(&target));
            finish(job.write(out, Some(&examined)).map_err(|error| error.told())?)
        })?;
        let spooled = Some(Spooled { file: target, diff_id, size });
        self.take_new(state, &key, spooled, (&by, &step.text))
    }

    /// The directory of `WORKDIR` is made if it is not there, and is then that of `USER`.
    pub(super) fn workdir(&mut self, state: &mut State, step: &Step) -> Result<(), Failed> {
        let by = format!("/bin/sh -c #(nop) {}", step.text);
        let path = state.workdir().to_owned();
        let below = self.trees(state);
        let user = state.user().to_owned();
        let owner = self.apart(|| match &*user {
            "" => Ok((0, 0)),
            user => match copy::user_of(&below, user) {
                // Who nobody knows is told when something is to run as him.
                Err(copy::Error::Owner { .. }) => Ok((0, 0)),
                other => other.map_err(|error| error.told()),
            },
        })?;
        let key =
            self.key(state, &json!({ "workdir": path, "owner": owner, "times": keys::times(self.request) }));
        if self.take_former(state, &key, &by)? {
            return Ok(());
        }
        let now = u64::try_from(self.now / 1_000_000_000).unwrap_or(0);
        let times = self.request.times;
        let target = create::spool_file(&self.store)?;
        let made = self.apart(|| {
            let directory = Directory { path: &path, below: &below, owner, times, now };
            let out = BufWriter::with_capacity(1 << 13, Spool::new(&target));
            directory.write(out).map_err(|error| error.told())?.map(finish).transpose()
        })?;
        let spooled = made.map(|(diff_id, size)| Spooled { file: target, diff_id, size });
        self.take_new(state, &key, spooled, (&by, &step.text))
    }
}

/// The digest of an archive that was written, and its bytes.
fn finish(out: Spooling<'_>) -> Result<(Digest, u64), Failure> {
    let failed = |error: io::IntoInnerError<Spooling<'_>>| Failure::new(&error.into_error(), None);
    Ok(out.into_inner().map_err(failed)?.finish())
}

/// An image that is none yet: what a container is made of that is a step upon a state.
fn standing_for(state: &State) -> ImageRecord {
    let of_state =
        |key: &str| state.container().and_then(|config| config.get(key)).cloned().unwrap_or(Value::Null);
    let config = json!({
        "config": { "Env": of_state("Env"), "User": of_state("User"), "WorkingDir": of_state("WorkingDir") },
    });
    let text = |key: &str| state.config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let nothing = Digest::of(b"");
    ImageRecord {
        version: crate::storage::FORMAT,
        id: nothing,
        names: Vec::new(),
        repo_digests: Vec::new(),
        manifest: nothing,
        index: None,
        media_type: String::new(),
        size: 0,
        layers: state.layers.clone(),
        created: None,
        architecture: text("architecture"),
        os: text("os"),
        variant: None,
        config,
        made_from: None,
        list: None,
    }
}
