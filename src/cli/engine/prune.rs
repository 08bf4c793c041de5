//! `container prune`.

use std::io::{BufRead, IsTerminal, Write};

use clap::Args;

use super::selection::for_each;
use super::{Failure, Globals, Outcome};
use crate::engine::Error;
use crate::engine::list::ListOptions;
use crate::storage::containers::Status;

/// Remove all containers that do not run.
#[derive(Args, Debug, Clone)]
pub struct PruneArgs {
    /// Remove only those that fit: label, until
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Asks before something is removed for good; without a terminal or an answer it is not.
pub fn confirmed(what: &str) -> Result<bool, Failure> {
    let error = |source| Failure::new(format!("asking whether to go on: {source}"));
    let mut stream = std::io::stderr();
    write!(stream, "This removes {what}. Go on? [y/N] ").and_then(|()| stream.flush()).map_err(error)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(error)?;
    if !std::io::stdin().is_terminal() {
        // Nobody has ended the line for us.
        writeln!(stream).map_err(error)?;
    }
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// `container prune`: prints the IDs of what it removed.
pub fn run(args: PruneArgs, globals: &Globals) -> Outcome {
    for filter in &args.filter {
        if !["label=", "until="].iter().any(|known| filter.starts_with(known)) {
            return Err(Failure::new(format!("--filter \"{filter}\": it takes label=… or until=…")));
        }
    }
    if !args.force && !confirmed("all containers that do not run")? {
        return Ok(0);
    }
    let engine = globals.engine()?;
    let (listed, _) =
        engine.list(&ListOptions { all: true, filters: args.filter, ..ListOptions::default() })?;
    let stopped = listed.iter().filter(|c| matches!(c.status, Status::Created | Status::Exited(_)));
    let ids = engine.needing_first(stopped.map(|container| container.record.id.clone()).collect())?;
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    for_each(&ids, |id| match engine.remove(&id.parse().map_err(Error::from)?, false, None) {
        Ok(()) => Ok(Some(id.to_owned())),
        // Started since it was listed, or needed by one that runs.
        Err(Error::Running(_) | Error::Needed { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    })
}
