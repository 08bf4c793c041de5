//! The monitor (L4): one process a container, forked from the command that starts it. It outlives
//! that command; its own death loses nothing but what only it could have seen.

mod acting;
pub mod answers;
mod care;
mod health;
pub mod journal;
pub mod log;
mod oom;
mod people;
mod probe;
pub mod protocol;
mod remember;
mod restart;
mod rewire;
mod streams;
mod supervise;

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use self::answers::Answers;
use self::care::{Care, Checks};
use self::health::Course;
use self::oom::OomWatch;
use self::protocol::Event as Told;
use self::restart::Backoff;
use self::streams::{open_log, pass, streams};
use self::supervise::{Streams, Supervisor};
use crate::base::report;
use crate::cgroup::Unit;
use crate::network::birth::{self, Namespaces, Relay};
use crate::network::nft::QueueKind;
use crate::network::plan::{Network, NetworkPlan};
use crate::network::shared;
use crate::runtime::{self, CreateRequest, Created, Stdio};
use crate::storage::containers::{
    ContainerConfig, ContainerRecord, Containers, Exit, ExitRecord, HealthConfig, HealthRun, NamespaceMode,
    PreparedState, RestartPolicy, RunEndpoint, RunState,
};
use crate::storage::events::{Event, EventLog};
use crate::sys::atomic::{self, Durability};
use crate::sys::lock::Lock;
use crate::sys::process::{self, ExitStatus};
pub use crate::sys::socket::connect;
use crate::sys::userns::Begun;
use crate::sys::{daemon, host, signal, socket};

/// Why a container could not be started or supervised.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime could not create or start it.
    #[error("starting container \"{name}\"")]
    Runtime {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: runtime::Error,
    },
    /// Its network could not be made.
    #[error("making the network of container \"{name}\"")]
    Network {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: birth::Error,
    },
    /// Pipes, sockets, the log.
    #[error("{action} of container \"{name}\"")]
    Io {
        /// "opening the log".
        action: &'static str,
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its records could not be written.
    #[error(transparent)]
    Records(#[from] crate::storage::containers::Error),
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Runtime { source, .. } => source.hint(),
            Self::Network { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// What the command should exit with: 126 and 127 for a program that cannot be executed or
    /// is not there, 125 for anything of ours.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime { source, .. } => source.exit_code(),
            _ => 125,
        }
    }
}

/// Makes the runtime's request for a container's first process.
pub type Requester = Box<dyn Fn(&ContainerRecord) -> io::Result<Box<CreateRequest>>>;

/// Who knows the networks of a container. Asked in the monitor, to whose process addresses and names belong.
pub trait Networks {
    /// The plan of a run; none if it needs no relay.
    fn plan(&self, record: &ContainerRecord) -> io::Result<Option<NetworkPlan>>;
    /// Takes what the new record has in place of the old one while the container runs, writes its files, and
    /// gives the plan.
    fn prepare(&self, old: &ContainerRecord, new: &ContainerRecord) -> io::Result<Option<NetworkPlan>>;
    /// After [`Self::prepare`]: gives back what only the old record has, if it is done; otherwise what only the
    /// new one has.
    fn settle(&self, old: &ContainerRecord, new: &ContainerRecord, done: bool);
    /// Gives back what the container has in networks that others are in, too.
    fn leave(&self, record: &ContainerRecord);
}

/// Runs a command in the running container; its pidfd, or what a shell would exit with and why.
pub type Executor = Box<dyn Fn(&RunState, Vec<String>, Stdio) -> Result<OwnedFd, (u8, String)>>;

/// All that a monitor needs. Made by the command, used by the process forked from it.
pub struct Job {
    /// The store's containers.
    pub containers: Containers,
    /// What happens is noted there.
    pub events: EventLog,
    /// Which container.
    pub record: ContainerRecord,
    /// For the runtime; its streams are set here. If none, `again` makes it.
    pub request: Option<Box<CreateRequest>>,
    /// Makes the request of a further run.
    pub again: Requester,
    /// Copies the layers for a container that cannot have an overlay, and makes another request.
    pub without_overlay: Requester,
    /// The first run's program begins only when somebody says so.
    pub hold: bool,
    /// Its networks.
    pub networks: Box<dyn Networks>,
    /// The relay of the run that ended.
    pub ended: Option<Relay>,
    /// For health checks.
    pub executor: Executor,
    /// The command's own streams, where the program gets them (`--log-driver passthrough`).
    pub passed: Option<[OwnedFd; 3]>,
    /// The command's socket.
    pub client: OwnedFd,
    /// The read end of the program's standard input, if the command holds the other.
    pub stdin: Option<OwnedFd>,
    /// The size of the command's terminal, rows and columns.
    pub size: Option<(u16, u16)>,
    /// Says that this container has somebody in charge.
    pub lock: Lock,
    /// Volumes without a name, which go with a container that is removed when it ends.
    pub anonymous_volumes: Vec<PathBuf>,
    /// Removes what others, who were killed, left in the store.
    pub sweep: Box<dyn Fn()>,
    /// Deletes a tree that the container left, whoever owns the files.
    pub delete: Box<dyn Fn(&std::path::Path)>,
}

/// Works until the container has ended for good. The result is the process's exit code.
pub fn run(mut job: Box<Job>) -> u8 {
    detach(&job);
    let mut supervisor = None;
    let result = supervise(&mut job, &mut supervisor);
    // Before anybody hears of the end: the next one may want the same address.
    job.networks.leave(&job.record);
    match result {
        Ok(code) => {
            if let (true, Some(supervisor)) = (job.record.config.marks.build, &mut supervisor) {
                // Who builds takes the files, and is gone when it has them.
                supervisor.finish(&Told::Exited(code));
                wait_for_end(&job.client);
            }
            let trash = job.record.config.auto_remove.then(|| job.containers.remove(&job.record));
            if let Some(Ok(_)) = trash {
                job.events.write(&[Event::container("remove", &job.record)]);
            }
            if let Some(mut supervisor) = supervisor {
                supervisor.finish(&Told::Exited(code));
            }
            // What takes time comes last: nobody waits for it.
            job.ended = None;
            match trash {
                Some(Ok(trash)) => delete(&job, &trash),
                Some(Err(_)) => {}
                None => drop(std::fs::remove_dir_all(job.containers.run_dir(&job.record.id))),
            }
            (job.sweep)();
            0
        }
        Err(error) => {
            fail(&job, supervisor, &error);
            1
        }
    }
}

/// Waits until nobody has the other end of a socket any more.
fn wait_for_end(socket: &OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    let mut watched = [PollFd::new(socket, PollFlags::empty())];
    while !watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
        match poll(&mut watched, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Tells the command, and for containers that stay the record, why there is nothing to supervise.
fn fail(job: &Job, supervisor: Option<Supervisor>, error: &Error) {
    let message = report::chain(error);
    let hint = error.hint().unwrap_or_default();
    let now = host::now();
    let trash = if job.record.config.auto_remove {
        job.containers.remove(&job.record).ok()
    } else {
        let exit = ExitRecord {
            error: Some(message.clone()),
            ..ExitRecord::new(Exit::Code(error.exit_code()), 0, now)
        };
        let _ = job.containers.write_exit(&job.record.id, &exit, Durability::Synced);
        let _ = std::fs::remove_dir_all(job.containers.run_dir(&job.record.id));
        None
    };
    let event = Told::Failed { code: error.exit_code(), message: &message, hint: &hint };
    match supervisor {
        Some(mut supervisor) => supervisor.finish(&event),
        None => {
            let mut packet = Vec::new();
            event.encode(&mut packet);
            let _ = rustix::net::send(&job.client, &packet, rustix::net::SendFlags::NOSIGNAL);
        }
    }
    if let Some(trash) = trash {
        delete(job, &trash);
    }
}

fn delete(job: &Job, trash: &std::path::Path) {
    (job.delete)(trash);
    for volume in &job.anonymous_volumes {
        (job.delete)(volume);
        let name = volume.file_name().unwrap_or_default().to_string_lossy().into_owned();
        job.events.write(&[Event::new("volume", "remove", &name)]);
    }
}

/// Leaves the command's session, terminal and open files behind.
fn detach(job: &Job) {
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    let mut keep = vec![job.client.as_raw_fd(), job.lock.as_fd().as_raw_fd()];
    keep.extend(job.stdin.iter().chain(job.passed.iter().flatten()).map(AsRawFd::as_raw_fd));
    let begun = job.request.iter().filter_map(|request| request.begun.as_ref());
    keep.extend(begun.flat_map(Begun::descriptors).map(|fd| fd.as_raw_fd()));
    keep.extend(job.record.config.kernel.preserve_fds.iter().map(|fd| *fd as i32));
    daemon::close_fds_except(&keep);
    for ignored in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
        signal::ignore(ignored);
    }
}

/// One run after the other, as the restart policy wants it; the last one's exit code.
fn supervise(job: &mut Job, slot: &mut Option<Supervisor>) -> Result<i32, Error> {
    let mut backoff = Backoff::new();
    let mut restarts = 0;
    loop {
        let run = begin(job, slot, restarts)?;
        let Some(supervisor) = slot else {
            return Err(io_error(job, "watching")(io::ErrorKind::Other.into()));
        };
        let began = Instant::now();
        let (exit, again) = watch(job, supervisor, run)?;
        if !again {
            return Ok(exit.exit.code());
        }
        let until = Instant::now() + backoff.rest(began.elapsed());
        let goes_on = supervisor.rest(until).map_err(io_error(job, "waiting for the restart"))?;
        if !goes_on || job.containers.is_stopped(&job.record.id) {
            let last = ExitRecord { again: false, ..exit };
            job.containers.write_exit(&job.record.id, &last, Durability::Synced)?;
            return Ok(last.exit.code());
        }
        restarts += 1;
        // The record may have been changed: by `update`, by `rename`.
        job.record = job.containers.record(&job.record.id)?;
        job.request = Some((job.again)(&job.record).map_err(io_error(job, "preparing the restart"))?);
        // The init's id maps are written by way of its directory in /proc, which is root's while we are
        // hidden, and it would inherit that.
        process::set_dumpable().map_err(io_error(job, "preparing the restart"))?;
    }
}

fn io_error(job: &Job, action: &'static str) -> impl Fn(io::Error) -> Error + use<> {
    let name = job.record.name.clone();
    move |source| Error::Io { action, name: name.clone(), source }
}

/// A program that has been started.
struct Run {
    created: Created,
    state: RunState,
    /// Goes when the run is over.
    relay: Option<Relay>,
    /// So does this.
    answers: Option<Answers>,
}

/// Where `attach` and others come. A client that goes before it is taken must not leave us waiting for the next.
fn listen(path: &Path) -> io::Result<OwnedFd> {
    let listener = socket::listen(path, 0o600)?;
    rustix::io::ioctl_fionbio(&listener, true)?;
    Ok(listener)
}

/// Creates the container and starts its program. Not inlined: what it keeps on the stack would be kept as long as
/// the container runs.
#[inline(never)]
fn begin(job: &mut Job, slot: &mut Option<Supervisor>, restarts: u32) -> Result<Run, Error> {
    job.ended = None;
    let fresh = match slot {
        Some(_) => None,
        None => {
            let log = open_log(job).map_err(io_error(job, "opening the log"))?;
            let listener = listen(&job.containers.attach_socket(&job.record.id))
                .map_err(io_error(job, "opening the attach socket"))?;
            Some((log, listener))
        }
    };
    let Born { mut created, mut streams, plan, mut relay, answers, known, facts } = create(job, restarts)?;
    // The program has them now; a pipe is not to stay open because we hold an end of it.
    daemon::close_fds(&job.record.config.kernel.preserve_fds);
    // Against a look at our memory or at /proc/PID/exe from a container that sees the host's pids. Not
    // before: the init would inherit it, and its id maps would be root's to write.
    let _ = process::set_undumpable();
    streams.terminal = created.terminal.take();
    let size = slot.as_ref().and_then(Supervisor::size).or(job.size);
    if let (Some(terminal), Some((ws_row, ws_col))) = (&streams.terminal, size) {
        // Before the program can ask for it.
        let size = rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        let _ = rustix::termios::tcsetwinsize(terminal, size);
    }
    let id = &job.record.id;
    let (mut state, prepared) = match facts {
        Some(facts) => facts,
        None => {
            let of = (created.pid, created.start_time, created.cgroup.as_deref());
            prepare_facts(job, restarts, plan.as_ref(), of)?
        }
    };
    let held = state.held;
    // Before the gate opens: a program that runs is always one that `ps` knows of. If we die in
    // between, the gate's end closes and the program never begins. The end of the run before is the
    // truth until then.
    prepared.publish()?;
    job.containers.clear_exit(id)?;
    write_marks(job, created.pid).map_err(io_error(job, "writing the process IDs"))?;
    if let (Some(ours), Some(plan)) = (&relay, &plan) {
        let failed = |source| Error::Network { name: job.record.name.clone(), source };
        let queue = match ours.ready() {
            Err(failure) => {
                let (helper, kind) = ours.by_helper(plan, forced_way(), failure).map_err(failed)?;
                relay = Some(helper);
                kind
            }
            Ok(queue) => queue,
        };
        // Who shares a router finds a worse way than who is alone may have found.
        let lesser = |kind: QueueKind| kind == QueueKind::Frames || kind.is_helper();
        let better = known.is_some_and(lesser) && plan.meeting.is_some();
        if known != Some(queue) && !better {
            // The next one finds it out by itself, if this cannot be written.
            let word = queue.word().as_bytes();
            let _ = atomic::write(&queue_file(job), word, 0o600, Durability::Volatile);
        }
    }
    let name = job.record.name.clone();
    let failed = move |source| Error::Runtime { name: name.clone(), source };
    if !held {
        created.start().map_err(&failed)?;
    }
    match (&mut *slot, fresh) {
        (Some(supervisor), _) => {
            supervisor.renew(streams).map_err(io_error(job, "attaching to the streams"))?;
        }
        (None, Some((log, listener))) => {
            let client = rustix::io::fcntl_dupfd_cloexec(&job.client, 3)
                .map_err(|e| io_error(job, "attaching")(e.into()))?;
            let supervisor = Supervisor::new(streams, Some(client), Some(listener), log);
            *slot = Some(supervisor.map_err(io_error(job, "attaching to the streams"))?);
        }
        (None, None) => {}
    }
    if let (true, Some(supervisor)) = (held, &mut *slot) {
        if !hold(job, supervisor, &created, relay.as_ref())? {
            return Ok(Run { created, state, relay, answers });
        }
        state.held = false;
        state.started = host::now();
        job.containers.write_state(&job.record.id, &state)?;
        created.start().map_err(failed)?;
    }
    let statuses = if held {
        &["start"][..]
    } else if restarts > 0 {
        &["restart", "init", "start"][..]
    } else {
        &["init", "start"]
    };
    let events: Vec<Event> = statuses.iter().map(|status| Event::container(status, &job.record)).collect();
    job.events.write(&events);
    if let Some(supervisor) = slot {
        supervisor.tell(&Told::Started(created.pid));
    }
    created.forget_making();
    Ok(Run { created, state, relay, answers })
}

/// The facts of a run, written down for the moment in which it begins.
fn prepare_facts(
    job: &Job,
    restarts: u32,
    plan: Option<&NetworkPlan>,
    (pid, start_time, cgroup): (i32, u64, Option<&std::path::Path>),
) -> Result<(RunState, PreparedState), Error> {
    let (boot_id, cgroup) = (host::boot_id().to_owned(), cgroup.map(PathBuf::from));
    let mut state = RunState::new(boot_id, pid, start_time, host::now(), cgroup);
    state.restarts = restarts;
    state.held = job.hold && restarts == 0;
    state.endpoint = plan.and_then(endpoint);
    let prepared = job.containers.prepare_state(&job.record.id, &state)?;
    Ok((state, prepared))
}

/// Waits for the word that the program may begin; if it will not, the first process is ended.
fn hold(
    job: &mut Job,
    supervisor: &mut Supervisor,
    created: &Created,
    relay: Option<&Relay>,
) -> Result<bool, Error> {
    job.events.write(&[Event::container("init", &job.record)]);
    supervisor.tell(&Told::Started(created.pid));
    let pidfd = created.pidfd.as_fd();
    let changed = Cell::new(false);
    let networks = relay.map(|relay| rewire::changes(job, relay, &changed));
    let mut care = Care { networks, ..Care::default() };
    let goes_on =
        supervisor.hold(pidfd, &mut care).map_err(io_error(job, "waiting for the word to begin"))?;
    drop(care);
    rewire::take_note(job, &changed);
    if !goes_on {
        // Its own end may be what ended the wait.
        let _ = process::pidfd_signal(pidfd, libc::SIGKILL);
    }
    Ok(goes_on)
}

/// What is told of a network that nobody else is in, as it is set up: later the host may be elsewhere.
fn endpoint(plan: &NetworkPlan) -> Option<RunEndpoint> {
    let [eth0] = &plan.interfaces[..] else { return None };
    (eth0.network == Network::Private)
        .then(|| RunEndpoint { addresses: eth0.addresses.clone(), gateways: eth0.gateways.clone() })
}

/// Watches a run to its end, and records that; whether another one follows.
fn watch(job: &mut Job, supervisor: &mut Supervisor, run: Run) -> Result<(ExitRecord, bool), Error> {
    let Run { created, state, relay, answers } = run;
    let (started, restarts) = (state.started, state.restarts);
    let facts = RefCell::new(state);
    let mounts = hold_mounts(created.pid);
    let auto_remove = job.record.config.auto_remove;
    let durability = if auto_remove { Durability::Volatile } else { Durability::Synced };
    let config = &job.record.config;
    let (containers, events, record) = (&job.containers, &job.events, &job.record);
    let id = &job.record.id;
    let rewired = Cell::new(false);
    let mut care = Care {
        kill_at: (config.timeout > 0).then(|| Instant::now() + Duration::from_secs(config.timeout)),
        stop: (config.stop_signal, Duration::from_secs(config.stop_timeout)),
        bound: config.marks.build,
        ..Care::default()
    };
    let note = move |course: &Course, run: Option<&HealthRun>| {
        // What cannot be written is not worth the container's life.
        let _ = containers.write_health(id, course.record());
        if run.is_some() {
            let health = Some(course.record().status.name().to_owned());
            events.write(&[Event { health, ..Event::container("health_status", record) }]);
        }
        if let Some(dir) = &course.config().log_destination
            && let Ok(text) = serde_json::to_vec(course.record())
        {
            let path = dir.join(format!("{id}-healthcheck.log"));
            let _ = atomic::write(&path, &text, 0o600, Durability::Volatile);
        }
    };
    let (executor, facts) = (&job.executor, &facts);
    let checks = move |health: &Option<HealthConfig>| {
        let course = health.clone().map(Course::new);
        course.map(|course| Checks::new(course, executor, facts, Box::new(note)))
    };
    // systemd removes its groups by itself.
    let watch = |group: &Path| OomWatch::new(group, Unit::of(group).is_some());
    care.watch = Some(Box::new(move || {
        if facts.borrow().cgroup.is_none() {
            // `pause` and `update` have one made by systemd where there was none.
            let now = containers.run_state(id).ok().flatten();
            facts.borrow_mut().cgroup = now.and_then(|now| now.cgroup);
        }
        watch(facts.borrow().cgroup.as_deref()?)
    }));
    if let Some(group) = created.cgroup.as_deref().filter(|group| watches_memory(config, group)) {
        care.memory = watch(group);
    }
    care.oom = Some(Box::new(move || events.write(&[Event::container("oom", record)])));
    care.checks = checks(&config.health);
    let mut known = config.health.clone();
    care.renew = Some(Box::new(move || {
        let changed = containers.record(id).ok()?.config.health;
        (changed != known).then(|| {
            known = changed;
            checks(&known)
        })
    }));
    let policy = config.restart;
    care.networks = relay.as_ref().map(|relay| rewire::changes(job, relay, &rewired));
    let mut last = None;
    let (_, again) = supervisor
        .run(created.pidfd.as_fd(), &mut care, |supervisor, care, status| {
            // First of all, so that whatever happens to us from here on the end is known.
            let exit = exit_of(status);
            let policy = match supervisor.take_changed().then(|| containers.record(id)) {
                Some(Ok(changed)) => changed.config.restart,
                _ => policy,
            };
            // Told before the end, however close they are.
            let oom = care.killed_for_memory();
            let wanted = care.restart || (!care.end && restart::again(policy, exit, restarts));
            let again = wanted && !supervisor.is_stopped() && !containers.is_stopped(id);
            let last_words = ExitRecord {
                error: supervisor.log_error().map(|error| format!("writing the log: {error}")),
                restarts,
                again,
                oom,
                ..ExitRecord::new(exit, started, host::now())
            };
            if !auto_remove {
                let _ = containers.write_exit(id, &last_words, durability);
            }
            let exit_code = Some(exit.code());
            events.write(&[Event { exit_code, ..Event::container("died", record) }]);
            last = Some(last_words);
            again
        })
        .map_err(io_error(job, "watching the streams"))?;
    drop(care);
    if let Some(relay) = &relay {
        relay.end();
    }
    rewire::take_note(job, &rewired);
    // Waited for when it is replaced, or when the command has been told of the container's end.
    job.ended = relay;
    if let Some(cgroup) = &facts.borrow().cgroup {
        if job.record.config.pid != NamespaceMode::Private {
            // The kernel ends no others with the first one there.
            let _ = crate::cgroup::kill(cgroup);
        }
        let _ = crate::cgroup::remove(cgroup);
    }
    let _ = created.cache.remove();
    drop((mounts, answers));
    let unknown = || ExitRecord::new(Exit::Unknown, started, host::now());
    Ok((last.unwrap_or_else(unknown), again))
}

/// Whether a group's processes may be killed because it is short of memory and not the machine: without limits
/// of its own and of what is above it nobody need look. (systemd's groups all have their figures.)
fn watches_memory(config: &ContainerConfig, group: &Path) -> bool {
    config.limits.bounds_memory() || Unit::of(group).is_some()
}

/// Writes the files that were asked for by `--pidfile` and `--conmon-pidfile`.
fn write_marks(job: &Job, pid: i32) -> io::Result<()> {
    let marks = &job.record.config.marks;
    let own = rustix::process::getpid().as_raw_nonzero().get();
    for (path, pid) in [(&marks.pidfile, pid), (&marks.monitor_pidfile, own)] {
        if let Some(path) = path {
            atomic::write(path, pid.to_string().as_bytes(), 0o644, Durability::Volatile)?;
        }
    }
    Ok(())
}

/// In the volatile directory: the kind of queue that the kernel has for held connections.
pub const QUEUE_FILE: &str = "network-queue";

fn queue_file(job: &Job) -> PathBuf {
    let containers = job.containers.run_dir(&job.record.id);
    containers.parent().unwrap_or(&containers).with_file_name(QUEUE_FILE)
}

/// For tests: a word of [`QueueKind`] that is tried before all others.
const FORCED: &str = "UMIAK_NETWORK_RUNG";

fn forced_way() -> Option<QueueKind> {
    std::env::var(FORCED).ok().and_then(|word| QueueKind::of_word(&word))
}

fn known_queue(job: &Job) -> Option<QueueKind> {
    std::fs::read_to_string(queue_file(job)).ok().and_then(|word| QueueKind::of_word(&word))
}

/// A container whose program has not begun.
struct Born {
    created: Created,
    streams: Streams,
    /// Its network, if that takes a relay.
    plan: Option<NetworkPlan>,
    /// Its way out.
    relay: Option<Relay>,
    /// Who answers its calls, if somebody does.
    answers: Option<Answers>,
    /// The kind of queue that an earlier relay found.
    known: Option<QueueKind>,
    /// What is to be recorded of it, if that could be written already.
    facts: Option<(RunState, PreparedState)>,
}

/// Creates the container: over an overlay, or, where there can be none, over a copy of the layers.
fn create(job: &mut Job, restarts: u32) -> Result<Born, Error> {
    let name = job.record.name.clone();
    let plan = job.networks.plan(&job.record).map_err(io_error(job, "planning the network"))?;
    let known = plan.as_ref().and_then(|_| known_queue(job));
    let alone = plan.as_ref().is_some_and(|plan| plan.meeting.is_none());
    // Who is alone may have a better way than one who shares a router has found.
    let known = known.filter(|kind| !(alone && *kind == QueueKind::Absent));
    let tried = forced_way().or(known);
    let stdin = job.stdin.take();
    let copy = || stdin.as_ref().and_then(|fd| fd.try_clone().ok());
    let spare = copy();
    if job.record.config.restart != RestartPolicy::No {
        job.stdin = copy();
    }
    let request = match job.request.take() {
        Some(request) => request,
        None => (job.again)(&job.record).map_err(io_error(job, "preparing the start"))?,
    };
    let attempt = |mut request: Box<CreateRequest>, stdin: Option<OwnedFd>| {
        let io = |source| Error::Io { action: "making the streams", name: name.clone(), source };
        let (stdio, streams) = match &job.passed {
            Some(passed) => (pass(passed).map_err(io)?, Streams::default()),
            None => streams(&job.record.config, stdin).map_err(io)?,
        };
        request.stdio = stdio;
        let failed = |source: birth::Error| Error::Network { name: name.clone(), source };
        let place = plan.as_ref().and_then(|plan| plan.meeting.as_deref()).map(|dir| {
            let mapping = serde_json::to_string(&job.record.mapping).unwrap_or_default();
            shared::enter(dir, &mapping).map_err(|source| failed(source.into()))
        });
        let mut place = place.transpose()?;
        if let Some(user) = place.as_ref().and_then(|place| place.router.as_ref()?.user.as_ref()) {
            // The router's, for only who has powers over both can connect the two.
            request.join_user(&PathBuf::from(format!("/proc/self/fd/{}", user.as_raw_fd())));
        }
        let run_dir = job.containers.run_dir(&job.record.id);
        let answers = Answers::start(&job.record, &run_dir, plan.as_ref()).map_err(|source| Error::Io {
            action: "making the process that answers system calls",
            name: name.clone(),
            source,
        })?;
        let mut answers = answers.map(|(answers, connection)| {
            request.answerer = Some(connection);
            answers
        });
        // Beside the container's own making, which takes as long.
        let mut relay = None;
        let mut begin = |pid: i32| {
            let Some(plan) = &plan else { return Ok(()) };
            let namespaces = Namespaces::of(pid).map_err(birth::Error::Namespace);
            if let (Some(answers), Ok(namespaces)) = (&mut answers, &namespaces) {
                // Whoever waits for it says that nothing came.
                let _ = answers.tell_network(&namespaces.net);
            }
            relay =
                Some(namespaces.and_then(|namespaces| Relay::start(plan, namespaces, place.take(), tried)));
            Ok(())
        };
        let born: Option<runtime::Born<'_>> = plan.is_some().then_some(&mut begin);
        let mut facts = None;
        let mut meanwhile = |pid: i32, start_time: Option<u64>, cgroup: Option<&std::path::Path>| {
            // What goes wrong here goes wrong once more, and is told, when it is needed.
            facts =
                start_time.and_then(|at| prepare_facts(job, restarts, plan.as_ref(), (pid, at, cgroup)).ok());
        };
        let created = runtime::create_with(*request, born, &mut meanwhile)
            .map_err(|source| Error::Runtime { name: name.clone(), source })?;
        let relay = relay.transpose().map_err(failed)?;
        Ok(Born { created, streams, plan: plan.clone(), relay, answers, known, facts })
    };
    match attempt(request, stdin) {
        Err(Error::Runtime { source, .. }) if source.is_no_overlay() => {
            let request = (job.without_overlay)(&job.record).map_err(|source| Error::Io {
                action: "copying the layers",
                name: name.clone(),
                source,
            })?;
            attempt(request, spare)
        }
        other => other,
    }
}

/// A descriptor of the container's mount namespace: while it is open the kernel does not take the
/// mounts down, which it would else do before it tells us of the program's end.
fn hold_mounts(pid: i32) -> Option<OwnedFd> {
    let path = PathBuf::from(format!("/proc/{pid}/ns/mnt"));
    rustix::fs::open(
        path,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .ok()
}

fn exit_of(status: ExitStatus) -> Exit {
    match status {
        ExitStatus::Code(code) => Exit::Code(code),
        ExitStatus::Signal(signal) => Exit::Signal(signal),
    }
}
