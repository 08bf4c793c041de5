//! `run` and `create`.

use std::os::fd::AsFd;

use clap::{ArgAction, Args};

use super::flags::Flags;
use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::attach::{self, DetachKeys, Ending, Relay};
use crate::engine::request::RunRequest;
use crate::engine::run::Started;
use crate::engine::{self, Engine};
use crate::storage::containers::{ContainerRecord, Status};
use crate::storage::images::ImageRecord;
use crate::sys::lock::Lock;
use crate::sys::userns::Begun;

/// Create a container without starting it.
#[derive(Args, Debug, Clone)]
#[command(disable_help_flag = true, override_usage = "umiak create [OPTIONS] IMAGE [COMMAND]...")]
pub struct CreateArgs {
    /// Show this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    flags: Flags,
    /// The image, then the program and its arguments in place of the image's own
    // One list, so that what stands behind the image is never looked at for flags of ours.
    #[arg(trailing_var_arg = true, value_name = "IMAGE [COMMAND]")]
    words: Vec<String>,
}

/// Create and start a container.
#[derive(Args, Debug, Clone)]
#[command(disable_help_flag = true, override_usage = "umiak run [OPTIONS] IMAGE [COMMAND]...")]
pub struct RunArgs {
    /// Leave the container running and print its ID
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    detach: Option<bool>,
    /// The keys that leave the container's terminal
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Pass our signals on to the program
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    sig_proxy: bool,
    #[command(flatten)]
    create: CreateArgs,
}

impl CreateArgs {
    fn request(&self, globals: &Globals) -> Result<RunRequest, Failure> {
        let mut request = self.flags.request();
        request.limits.manager = globals.manager;
        let mut words = self.words.iter().cloned();
        request.image = words
            .next()
            .ok_or_else(|| Failure::new("an image is missing").with_hint("see umiak run --help"))?;
        request.command = words.collect();
        request.create_command = globals.command_line.clone();
        self.flags.refused.check()?;
        request.check()?;
        Ok(request)
    }

    fn image(&self, engine: &Engine, request: &RunRequest) -> Result<Option<ImageRecord>, Failure> {
        if request.rootfs {
            return Ok(None);
        }
        self.flags.image.get(engine, &request.image).map(Some)
    }
}

pub(super) fn keys(text: Option<&str>) -> Result<DetachKeys, Failure> {
    match text {
        None => Ok(DetachKeys::default()),
        Some(text) => DetachKeys::parse(text).ok_or_else(|| {
            Failure::new(format!(
                "--detach-keys \"{text}\": it takes characters and ctrl-CHARACTER, joined by commas"
            ))
        }),
    }
}

/// `run`.
pub fn run(args: RunArgs, globals: &Globals) -> Outcome {
    let keys = keys(args.detach_keys.as_deref())?;
    let (engine, record, lock, begun) = made(&args, globals)?;
    warn_of_network(&record);
    let (name, rm) = (record.name.clone(), record.config.auto_remove);
    let told = &record.config.attach;
    let input = told.is_empty() || told.iter().any(|stream| stream == "stdin");
    let (interactive, tty) = (record.config.interactive && input, record.config.tty);
    let outputs = attach::Outputs::of(&record.config);
    // Caught before there is anybody to pass them on to, so that none is lost.
    let detach = args.detach.unwrap_or(false);
    let signals = if detach {
        None
    } else {
        Some(attach::catch_signals(args.sig_proxy).map_err(engine::Error::Relay)?)
    };
    let spare = record.clone();
    let started = engine.start_begun((record, lock, begun), !detach).inspect_err(|_| {
        if rm {
            engine.discard(&spare);
        }
    })?;
    let Some(signals) = signals else {
        wait_started(&started, &name)?;
        output::println(started.id.as_str())?;
        return Ok(0);
    };
    let Started { id, socket, stdin, begun } = started;
    let relay = Relay { socket, interactive, tty, stdin, keys: &keys, outputs, begun };
    ended(relay.run(&signals).map_err(engine::Error::Relay)?, &engine, &id, &name)
}

/// Says what a container's network gives up, once a start.
pub(super) fn warn_of_network(record: &ContainerRecord) {
    if record.config.net.private.fast {
        output::warning(
            "--network fast: what this container connects by TCP are sockets of the host's network: it sees the \
             host's addresses, and nothing stands between it and its peers",
        );
    }
}

/// Says what a container that was made will cost, and what of its flags does nothing.
fn warn_of_creation(
    engine: &Engine,
    request: &RunRequest,
    record: &ContainerRecord,
    image: Option<&ImageRecord>,
) {
    if !request.publish.is_empty() && !record.config.network.is_relayed() {
        output::warning(
            "--publish does nothing here: it takes --network default or a network that containers share",
        );
    }
    if let Some(cost) = engine.cost(record, image) {
        output::warning(&cost);
    }
}

/// Makes the container of a `run`. Not inlined: what lies on the stack when the monitor begins lies there as long as
/// the container runs.
#[inline(never)]
fn made(
    args: &RunArgs,
    globals: &Globals,
) -> Result<(Engine, ContainerRecord, Lock, Option<Begun>), Failure> {
    let request = args.create.request(globals)?;
    if let (Some(true), Some(stream)) = (args.detach, request.attach.first()) {
        return Err(Failure::new(format!("--attach \"{stream}\" and --detach cannot be used together")));
    }
    let engine = globals.engine()?;
    let image = args.create.image(&engine, &request)?;
    let (record, lock, begun) = engine.create_to_start(&request, image.as_ref())?;
    warn_of_creation(&engine, &request, &record, image.as_ref());
    Ok((engine, record, lock, begun))
}

/// Waits until a monitor has told that the program runs, or why not.
pub(super) fn wait_started(started: &Started, name: &str) -> Result<(), Failure> {
    match attach::wait_started(started.socket.as_fd()).map_err(engine::Error::Relay)? {
        Ok(_) => Ok(()),
        Err(Ending::Failed { code, message, hint }) => Err(failed(code, message, hint)),
        Err(_) => Err(engine::Error::MonitorGone(name.to_owned()).into()),
    }
}

fn failed(code: u8, message: String, hint: String) -> Failure {
    Failure { code, message, hint: (!hint.is_empty()).then_some(hint) }
}

/// The command's exit code from how its relay ended.
pub fn ended(ending: Ending, engine: &Engine, id: &crate::base::id::ContainerId, name: &str) -> Outcome {
    match ending {
        Ending::Exited(code) => Ok(u8::try_from(code).unwrap_or(125)),
        Ending::Failed { code, message, hint } => Err(failed(code, message, hint)),
        Ending::Detached => Ok(0),
        Ending::Lost => {
            // The monitor was killed. The program may go on without it; nobody will know its end.
            let running = matches!(engine.containers.status(id), Ok(Status::Running(_)));
            let failure = Failure::from(engine::Error::MonitorGone(name.to_owned()));
            Err(if running {
                failure.with_hint(format!("the program still runs: umiak stop {name}"))
            } else {
                failure.with_hint("how the program ended is unknown")
            })
        }
    }
}

/// `create`.
pub fn create(args: CreateArgs, globals: &Globals) -> Outcome {
    let mut request = args.request(globals)?;
    request.waits = true;
    let engine = globals.engine()?;
    let image = args.image(&engine, &request)?;
    let (record, _lock) = engine.create(&request, image.as_ref())?;
    warn_of_creation(&engine, &request, &record, image.as_ref());
    output::println(record.id.as_str())?;
    Ok(0)
}
