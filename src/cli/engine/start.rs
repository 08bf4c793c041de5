//! `start`.

use clap::{ArgAction, Args};

use super::run::{ended, keys, wait_started};
use super::selection::{Selection, for_each};
use super::{Failure, Globals, Outcome};
use crate::engine::attach::{self, DetachKeys, Outputs, Relay};
use crate::engine::run::Started;
use crate::engine::{self, Engine};
use crate::storage::containers::{ContainerRecord, Status};
use crate::sys::lock::Lock;

/// Start containers that were created or have stopped.
#[derive(Args, Debug, Clone)]
pub struct StartArgs {
    /// Start all containers that do not run
    #[arg(long)]
    all: bool,
    /// Attach to the container's output
    #[arg(short, long)]
    attach: bool,
    /// Attach to its input as well
    #[arg(short, long)]
    interactive: bool,
    /// Start the containers that fit
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// The keys that leave the container's terminal
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass our signals on to the program
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    sig_proxy: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `start`.
pub fn run(args: StartArgs, globals: &Globals) -> Outcome {
    let keys = keys(args.detach_keys.as_deref())?;
    let engine = globals.engine()?;
    let attach = args.attach || args.interactive;
    let several = args.all || !args.filter.is_empty();
    if attach && (several || args.containers.len() > 1) {
        return Err(Failure::new("you cannot start and attach multiple containers at once"));
    }
    if let ([word], false) = (args.containers.as_slice(), args.latest || several) {
        return start(&engine, word, attach.then_some((&args, &keys)));
    }
    // As in Podman, filters choose among those that --all names.
    let selection = Selection::of(args.all && args.filter.is_empty(), args.latest, args.containers.clone());
    let words = selection.resolve(&engine, &args.filter, true)?;
    if let ([word], true) = (words.as_slice(), args.latest) {
        return start(&engine, word, attach.then_some((&args, &keys)));
    }
    for_each(&words, |word| {
        if several && engine.lookup(word)?.1.is_up() {
            return Ok(None);
        }
        start(&engine, word, None).map(|_| None)
    })
}

/// Starts one, and with the flags for it attaches to it.
fn start(engine: &Engine, word: &str, attach: Option<(&StartArgs, &DetachKeys)>) -> Outcome {
    let (record, status) = engine.lookup(word)?;
    if let Status::Paused(_) = status {
        return Err(engine::Error::Paused(record.name).into());
    }
    let held = matches!(status, Status::Initialized(_));
    // Somebody else may be starting it: then that is their container to watch.
    let lock = if status.is_up() { None } else { engine.charge_unless_running(&record.id)? };
    let Some(lock) = lock.map(Some).or(held.then_some(None)) else {
        if let Some((args, keys)) = attach {
            let interactive = args.interactive && record.config.interactive;
            return super::attach::to_running(engine, &record, interactive, keys, args.sig_proxy);
        }
        crate::cli::output::println(word)?;
        return Ok(0);
    };
    super::run::warn_of_network(&record);
    let (name, tty) = (record.name.clone(), record.config.tty);
    let Some((args, keys)) = attach else {
        let started = begin(engine, record, lock, false)?;
        wait_started(&started, &name)?;
        crate::cli::output::println(word)?;
        return Ok(0);
    };
    let interactive = args.interactive && record.config.interactive;
    let outputs = Outputs::of(&record.config);
    let signals = attach::catch_signals(args.sig_proxy).map_err(engine::Error::Relay)?;
    let Started { id, socket, stdin, begun } = begin(engine, record, lock, interactive)?;
    let relay = Relay { socket, interactive, tty, stdin, keys, outputs, begun };
    ended(relay.run(&signals).map_err(engine::Error::Relay)?, engine, &id, &name)
}

/// Starts it; without a lock it is one that only waits for the word.
fn begin(
    engine: &Engine,
    record: ContainerRecord,
    lock: Option<Lock>,
    interactive: bool,
) -> Result<Started, engine::Error> {
    match lock {
        Some(lock) => engine.start(record, lock, interactive),
        None => engine.release(&record),
    }
}
