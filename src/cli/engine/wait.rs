//! `wait`.

use clap::Args;

use crate::base::time;

use super::selection::{for_each, is_missing};
use super::{Failure, Globals, Outcome};

/// Wait until containers stop.
#[derive(Args, Debug, Clone)]
pub struct WaitArgs {
    /// The state to wait for: stopped or exited
    #[arg(long, value_name = "STATE")]
    condition: Vec<String>,
    /// Print -1 for containers that are not there
    #[arg(long)]
    ignore: bool,
    /// How often to look at most: every end is told at once, which is never later
    #[arg(short, long, value_name = "DURATION", hide = true)]
    interval: Option<String>,
    /// Containers, by name or ID
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `wait`.
pub fn run(args: WaitArgs, globals: &Globals) -> Outcome {
    if let Some(other) = args.condition.iter().find(|c| !["stopped", "exited"].contains(&c.as_str())) {
        return Err(Failure::new(format!("--condition {other} is not supported yet")));
    }
    if let Some(text) = &args.interval
        && text.parse::<u64>().is_err()
    {
        time::parse_duration(text).map_err(|error| Failure::new(format!("--interval: {error}")))?;
    }
    let engine = globals.engine()?;
    for_each(&args.containers, |word| {
        let result = engine.lookup(word).and_then(|(record, _)| engine.wait(&record.id));
        match result {
            Ok(exit) => Ok(Some(exit.exit.code().to_string())),
            Err(error) if args.ignore && is_missing(&error) => Ok(Some("-1".into())),
            Err(error) => Err(error.into()),
        }
    })
}
