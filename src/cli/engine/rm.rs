//! `rm`.

use std::collections::HashMap;

use clap::Args;

use super::selection::{Selection, for_each, is_missing};
use super::{Globals, Outcome};
use crate::base::id::ContainerId;
use crate::engine::{self, Engine};

/// Remove containers.
#[derive(Args, Debug, Clone)]
pub struct RmArgs {
    #[command(flatten)]
    selection: Selection,
    /// Remove the containers that need it, too: that share its namespaces or were told to start after it
    #[arg(long)]
    depend: bool,
    /// Remove the containers that fit
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Remove running containers too
    #[arg(short, long)]
    force: bool,
    /// Do not mind containers that are not there
    #[arg(short, long)]
    ignore: bool,
    /// Seconds until a running container is killed
    #[arg(short = 't', long, value_name = "SECONDS")]
    time: Option<u64>,
    /// Remove the volumes without a name as well
    #[arg(short, long)]
    volumes: bool,
}

/// `rm`. Podman's exit codes: 1 for a container that is not there, 2 for one that is running.
pub fn run(args: RmArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let words = args.selection.resolve(&engine, &args.filter, true)?;
    if args.selection.all {
        // What nobody names any more: of commands that were killed.
        let _ = engine.containers.sweep_names();
    }
    let words = if args.depend || words.len() > 1 { in_order(&engine, words, args.depend)? } else { words };
    for_each(&words, |word| {
        let timeout = args.time.or((!args.force).then_some(0));
        let result = engine.lookup(word).and_then(|(record, _)| {
            let timeout = timeout.unwrap_or(record.config.stop_timeout);
            engine.remove(&record.id, args.force, Some(timeout))?;
            Ok(record)
        });
        match result {
            Ok(record) => {
                if args.volumes {
                    engine.remove_anonymous_volumes(&record);
                }
                Ok(Some(word.to_owned()))
            }
            Err(error) if args.force && is_unreadable(&error) => {
                engine.remove_unreadable(word)?;
                Ok(Some(word.to_owned()))
            }
            // With --force a container that is not there is as good as removed.
            Err(error) if (args.ignore || args.force) && is_missing(&error) => Ok(None),
            Err(error) => {
                let code = match &error {
                    error if is_missing(error) => 1,
                    engine::Error::Running(_) => 2,
                    error => error.exit_code(),
                };
                Err(super::Failure::from(error).with_code(code))
            }
        }
    })
}

/// The containers, each after those that need it; with `all` those too.
fn in_order(engine: &Engine, words: Vec<String>, all: bool) -> Result<Vec<String>, super::Failure> {
    let mut named = HashMap::new();
    let mut missing = Vec::new();
    let mut ids = Vec::new();
    for word in &words {
        match engine.lookup(word) {
            Ok((record, _)) => {
                if all {
                    ids.extend(engine.dependents(&record.id)?);
                }
                ids.push(record.id.clone());
                named.insert(record.id, word);
            }
            Err(_) => missing.push(word.clone()),
        }
    }
    let ids = engine.needing_first(ids)?;
    let word = |id: &ContainerId| named.get(id).map_or_else(|| id.to_string(), |word| (*word).clone());
    let mut ordered: Vec<String> = ids.iter().map(word).collect();
    // Each of these is told in the end.
    ordered.extend(missing);
    Ok(ordered)
}

/// Whether a container's records are what cannot be read.
fn is_unreadable(error: &engine::Error) -> bool {
    use crate::storage::containers::Error;
    matches!(error, engine::Error::Containers(Error::Damaged { .. } | Error::Io { action: "reading", .. }))
}
