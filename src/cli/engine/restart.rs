//! `restart`.

use clap::Args;

use super::selection::{Selection, for_each};
use super::{Failure, Globals, Outcome, run};
use crate::engine::{Engine, Error};
use crate::storage::containers::Status;

/// Stop containers and start them again.
#[derive(Args, Debug, Clone)]
pub struct RestartArgs {
    #[command(flatten)]
    selection: Selection,
    /// Restart the containers that fit
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Restart all running containers
    #[arg(long)]
    running: bool,
    /// Seconds until a container is killed
    #[arg(short = 't', long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
}

/// `restart`.
pub fn run(mut args: RestartArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    args.selection.all |= args.running;
    let words = args.selection.resolve(&engine, &args.filter, !args.running)?;
    let timeout = super::stop::timeout(args.time);
    for_each(&words, |word| {
        restart(&engine, word, timeout)?;
        Ok(Some(word.to_owned()))
    })
}

fn restart(engine: &Engine, word: &str, timeout: Option<u64>) -> Result<(), Failure> {
    let (record, status) = engine.lookup(word)?;
    if let Status::Paused(_) = status {
        return Err(Error::Paused(record.name).into());
    }
    if record.config.auto_remove && status.is_up() {
        return Err(Failure::new(format!("restarting \"{word}\": it is removed when it stops (--rm)")));
    }
    run::warn_of_network(&record);
    loop {
        engine.stop(&record.id, timeout)?;
        // Somebody else may have started it in between: then it has not been started anew by us.
        let Some(lock) = engine.charge_unless_running(&record.id)? else { continue };
        let started = engine.start(
            engine.containers.record(&record.id).map_err(crate::engine::Error::from)?,
            lock,
            false,
        )?;
        return run::wait_started(&started, &record.name);
    }
}
