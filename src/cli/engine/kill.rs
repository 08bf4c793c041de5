//! `kill`.

use std::path::PathBuf;

use clap::Args;

use super::stop::{Selection, for_each};
use super::{Failure, Globals, Outcome};
use crate::base::signal;
use crate::engine::Error;

/// Send a signal to containers.
#[derive(Args, Debug, Clone)]
pub struct KillArgs {
    /// Signal all running containers
    #[arg(short, long)]
    all: bool,
    /// Read the container's ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `kill`.
pub fn run(args: KillArgs, globals: &Globals) -> Outcome {
    let signal = signal::parse(&args.signal)
        .ok_or_else(|| Failure::new(format!("--signal \"{}\": there is no such signal", args.signal)))?;
    let engine = globals.engine()?;
    let selection = Selection {
        names: &args.containers,
        cidfiles: &args.cidfile,
        filters: &[],
        all: args.all,
        latest: args.latest,
        // The paused ones are among them.
        stopped: args.all,
    };
    let words = selection.resolve(&engine)?;
    for_each(&words, |word| match engine.kill(word, signal) {
        Ok(_) => Ok(Some(word.to_owned())),
        Err(Error::NotRunning { .. }) if args.all => Ok(None),
        Err(error) => Err(error.into()),
    })
}
