//! `attach`.

use clap::{ArgAction, Args};

use super::{Globals, Outcome, run};
use crate::engine::attach::{self, DetachKeys, Outputs, Relay};
use crate::engine::{Engine, Error};
use crate::storage::containers::{ContainerRecord, Status};

/// Attach to a running container.
#[derive(Args, Debug, Clone)]
pub struct AttachArgs {
    /// The keys that leave the container's terminal
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Do not pass our input on
    #[arg(long)]
    no_stdin: bool,
    /// Pass our signals on to the program
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    sig_proxy: bool,
    /// The newest container
    #[arg(short, long, conflicts_with = "container")]
    latest: bool,
    /// The container, by name or ID
    #[arg(required_unless_present = "latest")]
    container: Option<String>,
}

/// `attach`.
pub fn run(args: AttachArgs, globals: &Globals) -> Outcome {
    let keys = run::keys(args.detach_keys.as_deref())?;
    let engine = globals.engine()?.by_prefix();
    let container = match args.container {
        Some(container) => container,
        None => super::diff::newest(&engine)?,
    };
    let (record, status) = engine.lookup(&container)?;
    if let Status::Paused(_) = status {
        return Err(Error::Paused(record.name).into());
    }
    if !status.is_up() {
        return Err(Error::NotRunning { name: record.name, status: status.word() }.into());
    }
    let interactive = record.config.interactive && !args.no_stdin;
    to_running(&engine, &record, interactive, &keys, args.sig_proxy)
}

/// Attaches to a container that runs, until it ends or the user leaves it.
pub(super) fn to_running(
    engine: &Engine,
    record: &ContainerRecord,
    interactive: bool,
    keys: &DetachKeys,
    sig_proxy: bool,
) -> Outcome {
    let signals = attach::catch_signals(sig_proxy).map_err(Error::Relay)?;
    let socket = crate::monitor::connect(&engine.containers.attach_socket(&record.id))
        .map_err(|_| Error::MonitorGone(record.name.clone()))?;
    let outputs = Outputs { stdout: true, stderr: true };
    let relay =
        Relay { socket, interactive, tty: record.config.tty, stdin: None, keys, outputs, begun: None };
    run::ended(relay.run(&signals).map_err(Error::Relay)?, engine, &record.id, &record.name)
}
