//! `run` and `create`.

use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::access::{Access, Retry};
use super::supervision::Watch;
use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::attach::{self, DetachKeys, Ending, Relay};
use crate::engine::images::{PullOptions, PullPolicy};
use crate::engine::request::RunRequest;
use crate::engine::run::Started;
use crate::engine::{self, Engine};
use crate::storage::containers::Status;
use crate::storage::images::ImageRecord;

/// Create a container without starting it.
#[derive(Args, Debug, Clone)]
#[command(disable_help_flag = true)]
pub struct CreateArgs {
    /// Show this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Name the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Remove a container that has the name first
    #[arg(long)]
    replace: bool,
    /// Set a variable of the environment; without a value it takes ours
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables of the environment from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// The program's working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Run as this user of the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Mount a directory of the host or a named volume
    #[arg(short, long, value_name = "[SOURCE:]DIR[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount something, told in full
    #[arg(long, value_name = "type=TYPE,…")]
    mount: Vec<String>,
    /// Mount a file system in memory
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// The container's host name
    #[arg(short, long, value_name = "NAME")]
    hostname: Option<String>,
    /// Run this in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Let nothing write to the container's root file system
    #[arg(long)]
    read_only: bool,
    /// With --read-only, leave /run, /tmp and /var/tmp writable
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    read_only_tmpfs: bool,
    /// Grant a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE|unconfined, mask=PATHS, unmask=PATHS|ALL
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Run an init that reaps processes and passes signals on
    #[arg(long)]
    init: bool,
    /// When to pull the image: always, missing, never or newer
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pull: String,
    /// The container's network: none or host
    #[arg(long, visible_alias = "net", value_name = "MODE")]
    network: Option<String>,
    /// The user namespace: host or keep-id
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// The pid namespace: private or host
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// The ipc namespace: private or host
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// The uts namespace: private or host
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// The cgroup namespace: private or host
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// Whether the container gets a control group: enabled or disabled
    #[arg(long, value_name = "HOW")]
    cgroups: Option<String>,
    /// A resource limit of the program
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// A kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// Give the container a device of the host
    #[arg(long, value_name = "DEVICE[:PLACE][:rwm]")]
    device: Vec<String>,
    /// Attach a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Attach an annotation
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// The signal that asks the program to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How long it may take to end, in seconds
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// Write the container's ID to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// IMAGE is a directory to be used as it is
    #[arg(long)]
    rootfs: bool,
    /// Who keeps the output: k8s-file, json-file, journald, passthrough or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// path=FILE, max-size=SIZE, max-file=NUMBER; with journald tag=TEMPLATE, labels=LABELS
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// The size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// The platform of the image: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The architecture of the image
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The operating system of the image
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// The variant of the image's architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Does nothing, as in Podman: what is trusted stands in policy.json
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[allow(dead_code, reason = "taken so that command lines made for Docker work")]
    disable_content_trust: Option<bool>,
    #[command(flatten)]
    retry: Retry,
    #[command(flatten)]
    access: Access,
    /// The policy that says which images may be pulled
    #[arg(long, value_name = "FILE", hide = true)]
    signature_policy: Option<PathBuf>,
    #[command(flatten)]
    watch: Watch,
    /// Show nothing of the pull
    #[arg(short, long)]
    quiet: bool,
    /// The image
    image: String,
    /// The program and its arguments, in place of the image's own
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Create and start a container.
#[derive(Args, Debug, Clone)]
#[command(disable_help_flag = true)]
pub struct RunArgs {
    /// Leave the container running and print its ID
    #[arg(short, long)]
    detach: bool,
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
    fn request(&self, command_line: &[String]) -> RunRequest {
        let this = self.clone();
        RunRequest {
            image: this.image,
            command: this.command,
            name: this.name,
            replace: this.replace,
            interactive: this.interactive,
            tty: this.tty,
            rm: this.rm,
            env: this.env,
            env_files: this.env_file,
            workdir: this.workdir,
            user: this.user,
            volumes: this.volume,
            mounts: this.mount,
            tmpfs: this.tmpfs,
            hostname: this.hostname,
            entrypoint: this.entrypoint,
            read_only: this.read_only,
            read_only_tmpfs: this.read_only_tmpfs,
            cap_add: this.cap_add,
            cap_drop: this.cap_drop,
            security_opt: this.security_opt,
            init: this.init,
            network: this.network,
            userns: this.userns,
            pid: this.pid,
            ipc: this.ipc,
            uts: this.uts,
            cgroupns: this.cgroupns,
            cgroups: this.cgroups,
            ulimits: this.ulimit,
            sysctls: this.sysctl,
            devices: this.device,
            labels: this.label,
            annotations: this.annotation,
            stop_signal: this.stop_signal,
            stop_timeout: this.stop_timeout,
            cidfile: this.cidfile,
            rootfs: this.rootfs,
            log_driver: this.log_driver,
            log_opts: this.log_opt,
            shm_size: this.shm_size,
            supervision: self.watch.wanted(),
            create_command: command_line.to_vec(),
        }
    }

    fn image(&self, engine: &Engine) -> Result<Option<ImageRecord>, Failure> {
        if self.rootfs {
            return Ok(None);
        }
        let policy: PullPolicy = self.pull.parse().map_err(Failure::new)?;
        let options = PullOptions {
            platform: self.platform.clone(),
            os: self.os.clone(),
            arch: self.arch.clone(),
            variant: self.variant.clone(),
            reach: self.access.clone().reach(Some(&self.retry))?,
            signature_policy: self.signature_policy.clone(),
        };
        let progress = crate::cli::progress::for_pull(self.quiet);
        let record = crate::engine::images::ensure(engine, &self.image, policy, &options, progress)
            .map_err(engine::Error::from)?;
        Ok(Some(record))
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
    let engine = globals.engine()?;
    let image = args.create.image(&engine)?;
    let request = args.create.request(&globals.command_line);
    let (record, lock) = engine.create(&request, image.as_ref())?;
    let (name, rm) = (record.name.clone(), record.config.auto_remove);
    let (interactive, tty) = (record.config.interactive, record.config.tty);
    // Caught before there is anybody to pass them on to, so that none is lost.
    let signals = if args.detach {
        None
    } else {
        Some(attach::catch_signals(args.sig_proxy).map_err(engine::Error::Relay)?)
    };
    let spare = record.clone();
    let started = engine.start(record, lock, !args.detach).inspect_err(|_| {
        if rm {
            engine.discard(&spare);
        }
    })?;
    let Some(signals) = signals else {
        wait_started(&started, &name)?;
        output::println(started.id.as_str())?;
        return Ok(0);
    };
    let relay = Relay { socket: started.socket, interactive, tty, stdin: started.stdin, keys: &keys };
    ended(relay.run(&signals).map_err(engine::Error::Relay)?, &engine, &started.id, &name)
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
    let engine = globals.engine()?;
    let image = args.image(&engine)?;
    let (record, _lock) = engine.create(&args.request(&globals.command_line), image.as_ref())?;
    output::println(record.id.as_str())?;
    Ok(0)
}
