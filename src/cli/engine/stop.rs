//! `stop`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::Engine;
use crate::engine::list::ListOptions;
use crate::storage::containers;

/// Stop containers.
#[derive(Args, Debug, Clone)]
pub struct StopArgs {
    /// Stop all running containers
    #[arg(short, long)]
    all: bool,
    /// Read the container's ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Stop the containers that fit
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not mind containers that are not there
    #[arg(short, long)]
    ignore: bool,
    /// Seconds until the container is killed
    #[arg(short = 't', long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Which containers a command is about.
pub struct Selection<'a> {
    /// By name or ID.
    pub names: &'a [String],
    /// From files.
    pub cidfiles: &'a [PathBuf],
    /// By what they are.
    pub filters: &'a [String],
    /// All that there are, or that are running.
    pub all: bool,
    /// The newest of them.
    pub latest: bool,
    /// Whether stopped ones count.
    pub stopped: bool,
}

impl Selection<'_> {
    /// The words to look containers up by.
    pub fn resolve(&self, engine: &Engine) -> Result<Vec<String>, Failure> {
        let mut words = self.names.to_vec();
        for path in self.cidfiles {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(format!("reading the container's ID from \"{}\": {error}", path.display()))
            })?;
            words.push(text.trim().to_owned());
        }
        let listed = self.all || self.latest || !self.filters.is_empty();
        if listed && !words.is_empty() {
            let flag = if self.latest { "--latest" } else { "--all or --filter" };
            return Err(Failure::new(format!("containers cannot be named together with {flag}")));
        }
        if self.latest && (self.all || !self.filters.is_empty()) {
            return Err(Failure::new("--latest cannot be used together with --all or --filter"));
        }
        if listed {
            let filters = self.filters.to_vec();
            let last = self.latest.then_some(1);
            let options = ListOptions { all: self.stopped, filters, last, ..ListOptions::default() };
            let (listed, unreadable) = engine.list(&options)?;
            words.extend(listed.into_iter().map(|c| c.record.id.to_string()));
            if self.latest && words.is_empty() {
                return Err(Failure::new("there is no container"));
            }
            if self.filters.is_empty() && !self.latest {
                words.extend(unreadable.into_iter().map(|c| c.id.to_string()));
            }
        } else if words.is_empty() {
            return Err(Failure::new("you must name at least one container"));
        }
        Ok(words)
    }
}

/// Does something to each of several containers, telling of each what happened; goes on after
/// failures and returns the worst one's code.
pub fn for_each(words: &[String], mut act: impl FnMut(&str) -> Result<Option<String>, Failure>) -> Outcome {
    let mut worst = 0;
    for word in words {
        match act(word) {
            Ok(Some(line)) => output::println(&line)?,
            Ok(None) => {}
            Err(failure) => {
                output::error_line(&failure.message, failure.hint.as_deref());
                worst = worst.max(failure.code);
            }
        }
    }
    Ok(worst)
}

/// Whether a container's not being there is what went wrong.
pub fn is_missing(error: &crate::engine::Error) -> bool {
    matches!(error, crate::engine::Error::Containers(containers::Error::NotFound(_)))
}

/// The seconds of `--time`; less than none means for ever, as in Podman.
pub fn timeout(seconds: Option<i64>) -> Option<u64> {
    seconds.map(|seconds| u64::try_from(seconds).unwrap_or(u64::from(u32::MAX)))
}

/// `stop`.
pub fn run(args: StopArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let selection = Selection {
        names: &args.containers,
        cidfiles: &args.cidfile,
        filters: &args.filter,
        all: args.all,
        latest: args.latest,
        stopped: false,
    };
    let words = selection.resolve(&engine)?;
    let timeout = timeout(args.time);
    for_each(&words, |word| {
        let result =
            engine.containers.find(word).map_err(Into::into).and_then(|id| engine.stop(&id, timeout));
        match result {
            Ok(_) => Ok(Some(word.to_owned())),
            Err(error) if args.ignore && is_missing(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    })
}
