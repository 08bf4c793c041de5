//! `init`.

use clap::Args;

use super::run::wait_started;
use super::selection::{Selection, for_each};
use super::{Failure, Globals, Outcome};
use crate::storage::containers::Status;

/// Prepare containers for their start.
#[derive(Args, Debug, Clone)]
pub struct InitArgs {
    /// All containers that were never started
    #[arg(short, long)]
    all: bool,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `init`: prints the IDs.
pub fn run(args: InitArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let words = Selection::of(args.all, args.latest, args.containers).resolve(&engine, &[], true)?;
    for_each(&words, |word| {
        let (record, status) = engine.lookup(word)?;
        let lock = match &status {
            Status::Created => engine.charge_unless_running(&record.id)?,
            Status::Exited(_) if !args.all => engine.charge_unless_running(&record.id)?,
            _ => None,
        };
        let Some(lock) = lock else {
            if args.all {
                return Ok(None);
            }
            let told = format!("preparing container \"{}\": it is {}", record.name, status.word());
            return Err(Failure::new(told));
        };
        let (id, name) = (record.id.to_string(), record.name.clone());
        wait_started(&engine.init(record, lock)?, &name)?;
        Ok(Some(id))
    })
}
