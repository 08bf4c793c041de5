//! `kill`.

use clap::Args;

use super::selection::{Selection, for_each};
use super::{Failure, Globals, Outcome};
use crate::base::signal;
use crate::engine::Error;

/// Send a signal to containers.
#[derive(Args, Debug, Clone)]
pub struct KillArgs {
    #[command(flatten)]
    selection: Selection,
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
}

/// `kill`.
pub fn run(args: KillArgs, globals: &Globals) -> Outcome {
    let signal = signal::parse(&args.signal)
        .ok_or_else(|| Failure::new(format!("--signal \"{}\": there is no such signal", args.signal)))?;
    let engine = globals.engine()?;
    // The paused ones are among all.
    let words = args.selection.resolve(&engine, &[], args.selection.all)?;
    for_each(&words, |word| match engine.kill(word, signal) {
        Ok(_) => Ok(Some(word.to_owned())),
        Err(Error::NotRunning { .. }) if args.selection.all => Ok(None),
        Err(error) => Err(error.into()),
    })
}
