//! `pause` and `unpause`.

use clap::Args;

use super::selection::{Selection, for_each};
use super::{Globals, Outcome};
use crate::engine::{Engine, Error};

/// Which containers are to stand still, or to go on.
#[derive(Args, Debug, Clone)]
pub struct PauseArgs {
    #[command(flatten)]
    selection: Selection,
    /// The containers that fit
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
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
    let words = args.selection.resolve(&engine, &args.filter, stopped)?;
    let named = !args.selection.all && args.filter.is_empty();
    for_each(&words, |word| match act(&engine, word) {
        Ok(()) => Ok(Some(word.to_owned())),
        // Of many only those count to which it can be done.
        Err(Error::NotPaused { .. } | Error::NotRunning { .. } | Error::Paused(_)) if !named => Ok(None),
        Err(error) => Err(error.into()),
    })
}
