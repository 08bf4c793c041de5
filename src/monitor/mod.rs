//! The monitor (L4): one process a container, forked from the command that starts it. It outlives
//! that command; its own death loses nothing but what only it could have seen.

pub mod log;
pub mod protocol;
mod supervise;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use self::log::LogWriter;
use self::protocol::Event;
use self::supervise::{Streams, Supervisor};
use crate::base::report;
use crate::runtime::{self, CreateRequest, Created, Stdio};
use crate::storage::containers::{ContainerConfig, ContainerRecord, Containers, Exit, ExitRecord, RunState};
use crate::sys::atomic::{self, Durability};
use crate::sys::lock::Lock;
use crate::sys::process::{self, ExitStatus};
use crate::sys::{daemon, host, signal};

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

/// All that a monitor needs. Made by the command, used by the process forked from it.
pub struct Job {
    /// The store's containers.
    pub containers: Containers,
    /// Which container.
    pub record: ContainerRecord,
    /// For the runtime; its streams are set here.
    pub request: Option<CreateRequest>,
    /// Copies the layers for a container that cannot have an overlay, and makes another request.
    pub without_overlay: Box<dyn Fn() -> io::Result<CreateRequest>>,
    /// The command's socket.
    pub client: OwnedFd,
    /// The read end of the program's standard input, if the command holds the other.
    pub stdin: Option<OwnedFd>,
    /// Says that this container has somebody in charge.
    pub lock: Lock,
    /// Volumes without a name, which go with a container that is removed when it ends.
    pub anonymous_volumes: Vec<PathBuf>,
    /// Removes what others, who were killed, left in the store.
    pub sweep: Box<dyn Fn()>,
    /// Deletes a tree that the container left, whoever owns the files.
    pub delete: Box<dyn Fn(&std::path::Path)>,
}

/// Works until the container has ended. The result is the process's exit code.
pub fn run(mut job: Job) -> u8 {
    detach(&job);
    let mut supervisor = None;
    match supervise(&mut job, &mut supervisor) {
        Ok(code) => {
            let trash = job.record.config.auto_remove.then(|| job.containers.remove(&job.record));
            if let Some(mut supervisor) = supervisor {
                supervisor.finish(&Event::Exited(code));
            }
            // What takes time comes last: nobody waits for it.
            match trash {
                Some(Ok(trash)) => delete(&job, &trash),
                Some(Err(_)) => {}
                None => drop(std::fs::remove_dir_all(job.containers.run_dir(&job.record.id))),
            }
            (job.sweep)();
            0
        }
        Err(error) => {
            fail(&job, &error);
            1
        }
    }
}

/// Tells the command, and for containers that stay the record, why there is nothing to supervise.
fn fail(job: &Job, error: &Error) {
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
    let mut packet = Vec::new();
    Event::Failed { code: error.exit_code(), message: &message, hint: &hint }.encode(&mut packet);
    let _ = rustix::net::send(&job.client, &packet, rustix::net::SendFlags::NOSIGNAL);
    if let Some(trash) = trash {
        delete(job, &trash);
    }
}

fn delete(job: &Job, trash: &std::path::Path) {
    (job.delete)(trash);
    job.anonymous_volumes.iter().for_each(|volume| (job.delete)(volume));
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
    keep.extend(job.stdin.as_ref().map(AsRawFd::as_raw_fd));
    keep.extend(job.record.config.kernel.preserve_fds.iter().map(|fd| *fd as i32));
    daemon::close_fds_except(&keep);
    for ignored in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGPIPE] {
        signal::ignore(ignored);
    }
}

fn supervise(job: &mut Job, slot: &mut Option<Supervisor>) -> Result<i32, Error> {
    let name = job.record.name.clone();
    let io = |action| {
        let name = name.clone();
        move |source: io::Error| Error::Io { action, name, source }
    };
    let runtime_error = |source| Error::Runtime { name: name.clone(), source };
    let config = &job.record.config;
    let log = if config.log.enabled {
        let path = job.containers.log_path(&job.record);
        Some(LogWriter::open(&path, config.log.size_max).map_err(io("opening the log"))?)
    } else {
        None
    };
    let listener =
        listen(&job.containers.run_dir(&job.record.id)).map_err(io("opening the attach socket"))?;
    let (mut created, mut streams) = create(job)?;
    // The program has them now; a pipe is not to stay open because we hold an end of it.
    daemon::close_fds(&job.record.config.kernel.preserve_fds);
    // Against a look at our memory or at /proc/PID/exe from a container that sees the host's pids. Not
    // before: the init would inherit it, and its id maps would be root's to write.
    let _ = process::set_undumpable();
    streams.terminal = created.terminal.take();
    let id = job.record.id.clone();
    let started = host::now();
    let state = RunState::new(
        host::boot_id().to_owned(),
        created.pid,
        created.start_time,
        started,
        created.cgroup.clone(),
    );
    job.containers.clear_exit(&id)?;
    // Before the gate opens: a program that runs is always one that `ps` knows of. If we die in
    // between, the gate's end closes and the program never begins.
    job.containers.write_state(&id, &state)?;
    write_marks(job, created.pid).map_err(io("writing the process IDs"))?;
    created.start().map_err(runtime_error)?;
    let client = rustix::io::fcntl_dupfd_cloexec(&job.client, 3).map_err(|e| io("attaching")(e.into()))?;
    let supervisor = slot.insert(
        Supervisor::new(streams, Some(client), Some(listener), log)
            .map_err(io("attaching to the streams"))?,
    );
    supervisor.tell(&Event::Started(created.pid));
    daemon::release_memory();
    let mounts = hold_mounts(created.pid);
    let durability = if job.record.config.auto_remove { Durability::Volatile } else { Durability::Synced };
    let containers = &job.containers;
    let auto_remove = job.record.config.auto_remove;
    let status = supervisor
        .run(created.pidfd.as_fd(), |status, log_error| {
            // First of all, so that whatever happens to us from here on the end is known.
            if !auto_remove {
                let exit = ExitRecord {
                    error: log_error.map(|error| format!("writing the log: {error}")),
                    ..ExitRecord::new(exit_of(status), started, host::now())
                };
                let _ = containers.write_exit(&id, &exit, durability);
            }
        })
        .map_err(io("watching the streams"))?;
    if let Some(cgroup) = &created.cgroup {
        let _ = crate::cgroup::remove(cgroup);
    }
    drop(mounts);
    Ok(exit_of(status).code())
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

/// Creates the container: over an overlay, or, where there can be none, over a copy of the layers.
fn create(job: &mut Job) -> Result<(Created, Streams), Error> {
    let name = job.record.name.clone();
    let attempt = |request: Option<CreateRequest>, stdin: Option<OwnedFd>| {
        let io = |source| Error::Io { action: "making the streams", name: name.clone(), source };
        let mut request = request.ok_or_else(|| io(io::ErrorKind::InvalidInput.into()))?;
        let (stdio, streams) = streams(&job.record.config, stdin).map_err(io)?;
        request.stdio = stdio;
        let created =
            runtime::create(request).map_err(|source| Error::Runtime { name: name.clone(), source })?;
        Ok((created, streams))
    };
    let stdin = job.stdin.take();
    let spare = stdin.as_ref().and_then(|fd| fd.try_clone().ok());
    match attempt(job.request.take(), stdin) {
        Err(Error::Runtime { source, .. }) if source.is_no_overlay() => {
            let request = (job.without_overlay)().map_err(|source| Error::Io {
                action: "copying the layers",
                name: name.clone(),
                source,
            })?;
            attempt(Some(request), spare)
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

/// The program's ends of its streams, and ours.
fn streams(config: &ContainerConfig, stdin: Option<OwnedFd>) -> io::Result<(Stdio, Streams)> {
    if config.tty {
        return Ok((Stdio::Terminal, Streams::default()));
    }
    let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (stdout_read, stdout) = pipe()?;
    let (stderr_read, stderr) = pipe()?;
    let mut streams = Streams { stdout: Some(stdout_read), stderr: Some(stderr_read), ..Streams::default() };
    let stdin = match stdin {
        Some(read) => read,
        None if config.interactive => {
            let (read, write) = pipe()?;
            streams.stdin = Some(write);
            read
        }
        None => std::fs::File::open("/dev/null")?.into(),
    };
    Ok((Stdio::Fds { stdin, stdout, stderr }, streams))
}

/// Listens for `attach` in the container's volatile directory.
fn listen(dir: &std::path::Path) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    with_short_path(&dir.join("attach.sock"), |address| {
        rustix::net::bind(&socket, address)?;
        Ok(())
    })?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// Connects to the monitor whose socket is at `path`.
pub fn connect(path: &std::path::Path) -> io::Result<OwnedFd> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    with_short_path(path, |address| {
        rustix::net::connect(&socket, address)?;
        Ok(())
    })?;
    Ok(socket)
}

/// A socket's address has room for 107 bytes (unix(7)), a store's path may be longer: go by way of
/// a descriptor of the directory.
fn with_short_path<T>(
    path: &std::path::Path,
    act: impl FnOnce(&SocketAddrUnix) -> io::Result<T>,
) -> io::Result<T> {
    use rustix::fs::{Mode, OFlags};
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    act(&SocketAddrUnix::new(short)?)
}

/// The two ends of a connection between a command and its monitor.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}
