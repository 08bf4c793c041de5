//! `stop`.

use clap::Args;

use super::selection::{Selection, for_each, is_missing};
use super::{Globals, Outcome};

/// Stop containers.
#[derive(Args, Debug, Clone)]
pub struct StopArgs {
    #[command(flatten)]
    selection: Selection,
    /// Stop the containers that fit
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not mind containers that are not there
    #[arg(short, long)]
    ignore: bool,
    /// Seconds until the container is killed
    #[arg(short = 't', long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
}

/// The seconds of `--time`; less than none means for ever, as in Podman.
pub fn timeout(seconds: Option<i64>) -> Option<u64> {
    seconds.map(|seconds| u64::try_from(seconds).unwrap_or(u64::from(u32::MAX)))
}

/// `stop`.
pub fn run(args: StopArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let words = args.selection.resolve(&engine, &args.filter, false)?;
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
