//! `pause` and `unpause`.

use std::path::PathBuf;

use clap::Args;

use super::stop::{Selection, for_each};
use super::{Globals, Outcome};
use crate::engine::{Engine, Error};

/// Which containers are to stand still, or to go on.
#[derive(Args, Debug, Clone)]
pub struct PauseArgs {
    /// All running, or all paused containers
    #[arg(short, long)]
    all: bool,
    /// Read the container's ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// The containers that fit
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `pause`.
pub fn pause(args: PauseArgs, globals: &Globals) -> Outcome {
    each(&args, globals, false, Engine::pause)
}

/// `unpause`.
pub fn unpause(args: PauseArgs, globals: &Globals) -> Outcome {
    // The paused ones are found only among all.
    each(&args, globals, true, Engine::unpause)
}

fn each(
    args: &PauseArgs,
    globals: &Globals,
    stopped: bool,
    act: fn(&Engine, &str) -> Result<(), Error>,
) -> Outcome {
    let engine = globals.engine()?;
    let selection = Selection {
        names: &args.containers,
        cidfiles: &args.cidfile,
        filters: &args.filter,
        all: args.all,
        latest: args.latest,
        stopped,
    };
    let words = selection.resolve(&engine)?;
    let named = !args.all && args.filter.is_empty();
    for_each(&words, |word| match act(&engine, word) {
        Ok(()) => Ok(Some(word.to_owned())),
        // Of many only those count to which it can be done.
        Err(Error::NotPaused { .. } | Error::NotRunning { .. } | Error::Paused(_)) if !named => Ok(None),
        Err(error) => Err(error.into()),
    })
}
