//! `wait`.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::Args;

use crate::base::time;
use crate::cli::output;
use crate::engine::Engine;
use crate::engine::health::Condition;

use super::selection::{for_each, is_missing};
use super::{Failure, Globals, Outcome};

/// Wait until containers stop.
#[derive(Args, Debug, Clone)]
pub struct WaitArgs {
    /// The state to wait for: stopped, exited, healthy, unhealthy, running, paused, created, …
    #[arg(long, value_name = "STATE")]
    condition: Vec<String>,
    /// Wait until the first of them is so, and print its code only
    #[arg(long)]
    exit_first_match: bool,
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
    let engine = globals.engine()?.by_prefix();
    let containers = if args.latest { vec![super::diff::newest(&engine)?] } else { args.containers };
    let waiter =
        Waiter { engine, conditions, interval: interval.max(Duration::from_millis(1)), ignore: args.ignore };
    if args.exit_first_match {
        return first(waiter, containers);
    }
    for_each(&containers, |word| waiter.wait(word).map(Some))
}

/// Waits for one container, as the flags say it.
struct Waiter {
    engine: Engine,
    conditions: Vec<Condition>,
    interval: Duration,
    ignore: bool,
}

impl Waiter {
    /// What is printed in the end: its exit code; -1 for what has not ended.
    fn wait(&self, word: &str) -> Result<String, Failure> {
        let result = self
            .engine
            .lookup(word)
            .and_then(|(record, _)| self.engine.wait_for(&record.id, &self.conditions, self.interval));
        match result {
            Ok(exit) => Ok(exit.map_or(-1, |exit| exit.exit.code()).to_string()),
            Err(error) if self.ignore && is_missing(&error) => Ok("-1".to_owned()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits for all at once, until the first of them is done.
fn first(waiter: Waiter, containers: Vec<String>) -> Outcome {
    // A name that is none is told at once, not after hours.
    if !waiter.ignore {
        for word in &containers {
            waiter.engine.lookup(word)?;
        }
    }
    let waiter = Arc::new(waiter);
    let (done, first) = mpsc::channel();
    for word in containers {
        let (waiter, done) = (Arc::clone(&waiter), done.clone());
        // They end with this process.
        std::thread::spawn(move || done.send(waiter.wait(&word)));
    }
    drop(done);
    let code = first.recv().map_err(|_| Failure::new("waiting: no thread of ours is left"))??;
    output::println(&code)?;
    Ok(0)
}
