//! Which containers a command is about, and doing something to each.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::{Failure, Outcome};
use crate::cli::output;
use crate::engine::Engine;
use crate::engine::list::ListOptions;
use crate::storage::containers;

/// The flags that commands about several containers have in common.
#[derive(Args, Debug, Clone, Default)]
pub struct Selection {
    /// All containers to which it can be done
    #[arg(short, long)]
    pub all: bool,
    /// Read the container's ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Selection {
    /// The newest container alone.
    pub fn newest() -> Self {
        Self { latest: true, ..Self::default() }
    }

    /// What a command says whose own flags are others.
    pub fn of(all: bool, latest: bool, containers: Vec<String>) -> Self {
        Self { all, latest, cidfile: Vec::new(), containers }
    }

    /// The words to look containers up by; `filters` choose among all, `stopped`: among stopped ones, too.
    pub fn resolve(
        &self,
        engine: &Engine,
        filters: &[String],
        stopped: bool,
    ) -> Result<Vec<String>, Failure> {
        let mut words = self.containers.clone();
        for path in &self.cidfile {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Failure::new(format!("reading the container's ID from \"{}\": {error}", path.display()))
            })?;
            words.push(text.trim().to_owned());
        }
        let listed = self.all || self.latest || !filters.is_empty();
        if listed && !words.is_empty() {
            let flag = if self.latest { "--latest" } else { "--all or --filter" };
            return Err(Failure::new(format!("containers cannot be named together with {flag}")));
        }
        if self.latest && (self.all || !filters.is_empty()) {
            return Err(Failure::new("--latest cannot be used together with --all or --filter"));
        }
        if listed {
            let last = self.latest.then_some(1);
            let wanted = filters.to_vec();
            let options = ListOptions { all: stopped, filters: wanted, last, ..ListOptions::default() };
            let (listed, unreadable) = engine.list(&options)?;
            words.extend(listed.into_iter().map(|c| c.record.id.to_string()));
            if self.latest && words.is_empty() {
                return Err(Failure::new("there is no container"));
            }
            if filters.is_empty() && !self.latest {
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

/// What there is to show of each of several things; what cannot be shown is told, and its code is returned.
pub fn shown<E>(words: &[String], mut show: impl FnMut(&str) -> Result<Value, E>) -> (Vec<Value>, u8)
where
    Failure: From<E>,
{
    let mut found = Vec::new();
    let mut code = 0;
    for word in words {
        match show(word) {
            Ok(value) => found.push(value),
            Err(error) => {
                let failure = Failure::from(error);
                output::error_line(&failure.message, failure.hint.as_deref());
                code = failure.code;
            }
        }
    }
    (found, code)
}

/// Whether a container's not being there is what went wrong.
pub fn is_missing(error: &crate::engine::Error) -> bool {
    matches!(error, crate::engine::Error::Containers(containers::Error::NotFound(_)))
}
