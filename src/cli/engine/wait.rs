//! `wait`.

use std::time::Duration;

use clap::Args;

use crate::base::time;
use crate::engine::health::Condition;

use super::selection::{for_each, is_missing};
use super::{Failure, Globals, Outcome};

/// Wait until containers stop.
#[derive(Args, Debug, Clone)]
pub struct WaitArgs {
    /// The state to wait for: stopped, exited, healthy, unhealthy, running, paused, created, …
    #[arg(long, value_name = "STATE")]
    condition: Vec<String>,
    /// Print -1 for containers that are not there
    #[arg(long)]
    ignore: bool,
    /// How often to look for what is not told at once, as ends and health are
    #[arg(short, long, value_name = "DURATION")]
    interval: Option<String>,
    /// The newest container
    #[arg(short, long, conflicts_with = "containers")]
    latest: bool,
    /// Containers, by name or ID
    #[arg(required_unless_present = "latest", value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `wait`.
pub fn run(args: WaitArgs, globals: &Globals) -> Outcome {
    let mut conditions = Vec::new();
    for text in args.condition.iter().flat_map(|text| text.split(',')) {
        let condition = Condition::parse(text)
            .ok_or_else(|| Failure::new(format!("--condition \"{text}\": there is no such state")))?;
        conditions.push(condition);
    }
    let interval = match &args.interval {
        None => Duration::from_millis(250),
        Some(text) => match text.parse::<u64>() {
            Ok(milliseconds) => Duration::from_millis(milliseconds),
            Err(_) => {
                let span = time::parse_duration(text)
                    .map_err(|error| Failure::new(format!("--interval: {error}")))?;
                Duration::try_from(span)
                    .map_err(|_| Failure::new(format!("--interval \"{text}\": it must not be negative")))?
            }
        },
    };
    let engine = globals.engine()?;
    let containers = if args.latest { vec![super::diff::newest(&engine)?] } else { args.containers };
    for_each(&containers, |word| {
        let result = engine.lookup(word).and_then(|(record, _)| {
            engine.wait_for(&record.id, &conditions, interval.max(Duration::from_millis(1)))
        });
        match result {
            // What has not ended has no code.
            Ok(exit) => Ok(Some(exit.map_or(-1, |exit| exit.exit.code()).to_string())),
            Err(error) if args.ignore && is_missing(&error) => Ok(Some("-1".into())),
            Err(error) => Err(error.into()),
        }
    })
}
