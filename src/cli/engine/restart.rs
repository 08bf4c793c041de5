//! `restart`.

use std::path::PathBuf;

use clap::Args;

use super::stop::{Selection, for_each};
use super::{Failure, Globals, Outcome, run};
use crate::engine::{Engine, Error};
use crate::storage::containers::Status;

/// Stop containers and start them again.
#[derive(Args, Debug, Clone)]
pub struct RestartArgs {
    /// Restart all containers, the stopped ones too
    #[arg(short, long)]
    all: bool,
    /// Read the container's ID from a file
    #[arg(long, value_name = "FILE")]
    cidfile: Vec<PathBuf>,
    /// Restart the containers that fit
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Restart all running containers
    #[arg(long)]
    running: bool,
    /// Seconds until a container is killed
    #[arg(short = 't', long, value_name = "SECONDS", allow_negative_numbers = true)]
    time: Option<i64>,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `restart`.
pub fn run(args: RestartArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let selection = Selection {
        names: &args.containers,
        cidfiles: &args.cidfile,
        filters: &args.filter,
        all: args.all || args.running,
        latest: args.latest,
        stopped: !args.running,
    };
    let words = selection.resolve(&engine)?;
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
    if record.config.auto_remove && status.running().is_some() {
        return Err(Failure::new(format!("restarting \"{word}\": it is removed when it stops (--rm)")));
    }
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
