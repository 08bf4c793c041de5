//! A further process in a running container.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::create::check_labels;
use super::hooks::HookState;
use super::init::{Doing, hand_out_master};
use super::launch::{self, Channel, Surroundings};
use super::plan::{self, Affinity, ProcessPlan};
use super::protocol::{Failure, GO, Message};
use super::{Error, ExecRequest, Stdio, create, listener};
use crate::cgroup;
use crate::sys::mount;
use crate::sys::path::Root;
use crate::sys::process::{self, Child, CloneOptions};
use crate::sys::seccomp::Filter;
use crate::sys::{namespace, pty, sched, socket, userns};

/// A process that [`exec`] started; it is a child of the caller.
#[derive(Debug)]
pub struct Executed {
    /// The process, as the caller sees it.
    pub pid: i32,
    /// Readable when it ends.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if [`super::Stdio::Terminal`] was asked for.
    pub terminal: Option<OwnedFd>,
}

/// Runs a program in a running container; returns when it has been executed, or its error
/// ([`Error::exit_code`] tells 126 and 127). The caller must be single-threaded.
pub fn exec(mut request: ExecRequest) -> Result<Executed, Error> {
    let checked = request.pidfd.take();
    let container = checked.or_else(|| process::open_alive(request.pid, request.start_time));
    let container = container.ok_or(Error::NotRunning)?;
    let filter = match (request.filter.take(), &request.seccomp) {
        (None, Some(profile)) => Some(crate::seccomp::compile(profile)?),
        (ready, _) => ready,
    };
    let mut plan = plan::plan_process(&request.process, filter, request.user_by_name.clone())?;
    plan.preserve_fds = request.preserve_fds;
    plan.preserve_list.clone_from(&request.preserve_list);
    plan.groups_by_name.clone_from(&request.groups_by_name);
    plan.keep_groups = request.keep_groups;
    plan.new_keyring = !request.no_new_keyring;
    plan.clamp_limits = request.clamp_limits;
    let namespaces = namespace::differing(request.pid, request.own_namespaces)
        .map_err(|e| Error::host("reading the container's namespaces", e))?;
    plan.persona = plan::plan_persona(request.personality.as_ref())?;
    plan.memory_policy = plan::plan_memory_policy(request.memory_policy.as_ref())?;
    check_labels(&plan.labels)?;
    let affinity = plan::plan_affinity(&request.process)?;
    let size = request.process.console_size().map(|size| (size.height() as u16, size.width() as u16));
    let (ours, theirs) = socket::packet_pair().map_err(|e| Error::host("making a socket", e))?;
    let newcomer = Newcomer {
        request: &request,
        plan: &plan,
        affinity: &affinity,
        size,
        console_socket: create::connect_console(&request.stdio)?,
        channel: Channel::new(theirs, None, false),
    };
    let (child, joined) = newcomer.start(&container, namespaces)?;
    let mut terminal = None;
    let outcome = loop {
        let (bytes, fd) = socket::receive(&ours).map_err(|e| Error::host("waiting for the program", e))?;
        match Message::decode(&bytes) {
            Some(Message::Terminal) => terminal = fd,
            Some(Message::Listener) => {
                let state = request.state.clone().unwrap_or_else(HookState::none);
                let listener = fd.ok_or(Error::Died)?;
                let (answerer, profile) = (request.answerer.as_ref(), request.seccomp.as_ref());
                let handed = listener::hand_over(answerer, profile, &listener, child.pid, &state);
                let handed = handed.and_then(|()| socket::send(&ours, GO, None).map_err(|_| Error::Died));
                if let Err(error) = handed {
                    let _ = process::pidfd_signal(&child.pidfd, libc::SIGKILL);
                    break Err(error);
                }
            }
            Some(Message::End) if joined => break Ok(()),
            Some(Message::Failed(failure)) => break Err(Error::Inside(failure)),
            _ => break Err(Error::Died),
        }
    };
    if let Err(error) = outcome {
        // It has ended or is about to.
        let _ = process::wait(&child.pidfd);
        return Err(error);
    }
    Ok(Executed { pid: child.pid, pidfd: child.pidfd, terminal })
}

/// The process on its way in.
struct Newcomer<'a> {
    request: &'a ExecRequest,
    plan: &'a ProcessPlan,
    affinity: &'a Affinity,
    size: Option<(u16, u16)>,
    console_socket: Option<OwnedFd>,
    channel: Channel,
}

impl Newcomer<'_> {
    /// Joins by way of a short-lived process, because a pid namespace is only entered by a child;
    /// the newcomer is its sibling and thus our child. Tells whether it came that far.
    fn start(self, container: &OwnedFd, namespaces: u64) -> Result<(Child, bool), Error> {
        let group = self.request.cgroup.as_deref().map(open_group).transpose()?;
        if !self.affinity.initial.is_empty() {
            // Inherited by the newcomer, and the caller does nothing else from here on than wait for it.
            sched::set_affinity(&self.affinity.initial)
                .map_err(|e| Error::host("process.execCPUAffinity.initial: setting it", e))?;
        }
        let cgroup = group.as_ref().map(AsFd::as_fd);
        let spawn = Spawn { sharing: self.may_share(namespaces) };
        if namespaces & libc::CLONE_NEWPID as u64 == 0 {
            let options = CloneOptions { cgroup, ..Default::default() };
            let enter = |late: Option<&Path>| {
                let joined = self.join_group(late).and_then(|()| join(container, namespaces, self.request));
                match joined {
                    Ok(()) => self.run(),
                    Err(failure) => self.channel.fail(failure),
                }
            };
            let child = match spawn.spawn(options, || enter(None)) {
                Err(_) if cgroup.is_some() => {
                    spawn.spawn(CloneOptions::default(), || enter(self.request.cgroup.as_deref()))
                }
                other => other,
            };
            return child.map(|child| (child, true)).map_err(|e| Error::host("creating a process", e));
        }
        let (ours, theirs) = socket::packet_pair().map_err(|e| Error::host("making a socket", e))?;
        let between = |late: Option<&Path>| {
            if let Err(failure) = self.join_group(late) {
                return self.channel.fail(failure);
            }
            if let Err(failure) = join(container, namespaces, self.request) {
                return self.channel.fail(failure);
            }
            let options = CloneOptions { sibling: true, ..Default::default() };
            match spawn.spawn(options, || self.run()).doing(|| "creating a process".to_owned()) {
                Ok(child) => u8::from(socket::send(&theirs, &child.pid.to_ne_bytes(), None).is_err()),
                Err(failure) => self.channel.fail(failure),
            }
        };
        let options = CloneOptions { cgroup, ..Default::default() };
        let child = match spawn.spawn(options, || between(None)) {
            // As at the container's birth: not every kernel and sandbox lets us clone into a group.
            Err(_) if cgroup.is_some() => {
                spawn.spawn(CloneOptions::default(), || between(self.request.cgroup.as_deref()))
            }
            other => other,
        }
        .map_err(|e| Error::host("creating a process", e))?;
        drop((theirs, self.channel));
        let (pid, _) = socket::receive(&ours).map_err(|e| Error::host("joining the container", e))?;
        match <[u8; 4]>::try_from(pid.as_slice()) {
            Ok(bytes) => {
                process::wait(&child.pidfd).map_err(|e| Error::host("joining the container", e))?;
                let pid = i32::from_ne_bytes(bytes);
                // It is our child, so its pid stays its own until we reap it.
                let pidfd = process::pidfd_open(pid).map_err(|e| Error::host("opening the process", e))?;
                Ok((Child { pid, pidfd }, true))
            }
            // It told its failure over the other socket, which the caller reads.
            Err(_) => Ok((child, false)),
        }
    }

    /// Moves itself into the group, where it could not be made in there.
    fn join_group(&self, late: Option<&Path>) -> Result<(), Failure> {
        let Some(group) = late else { return Ok(()) };
        let own = rustix::process::getpid().as_raw_nonzero().get();
        cgroup::join(group, own, self.request.pid).map_err(|error| Failure {
            kind: super::protocol::FailureKind::Setup,
            errno: 0,
            chain: vec![crate::base::report::chain(&error)],
        })
    }

    /// Whether it may borrow our memory on its way in. Not where it has to wait for us; not into a time
    /// namespace, for which the kernel wants memory of its own; and only into a user namespace: for a
    /// root of ours who is in the container, too, it would be a way to our memory (ptrace(2)).
    fn may_share(&self, namespaces: u64) -> bool {
        let listens = self.plan.privileges.filter.as_ref().is_some_and(Filter::has_listener);
        let user = namespaces & libc::CLONE_NEWUSER as u64 != 0;
        user && !listens && namespaces & namespace::CLONE_NEWTIME == 0
    }

    /// The newcomer itself, in the container.
    fn run(&self) -> u8 {
        let mut channel = match self.channel.duplicate() {
            Ok(channel) => channel,
            Err(failure) => return self.channel.fail(failure),
        };
        if !self.affinity.last.is_empty()
            && let Err(failure) = sched::set_affinity(&self.affinity.last)
                .doing(|| "process.execCPUAffinity.final: setting it".to_owned())
        {
            return channel.fail(failure);
        }
        let failure = match self.open_terminal() {
            Ok(slave) => launch::launch(
                self.plan,
                Surroundings {
                    channel: &mut channel,
                    stdio: &self.request.stdio,
                    slave,
                    start_hooks: &[],
                    hook_state: HookState::none(),
                },
            ),
            Err(failure) => failure,
        };
        channel.fail(failure)
    }

    fn open_terminal(&self) -> Result<Option<OwnedFd>, Failure> {
        if !matches!(self.request.stdio, Stdio::Terminal | Stdio::ConsoleSocket(_)) {
            return Ok(None);
        }
        let action = || "opening the container's terminal".to_owned();
        let root = Root::open(Path::new("/")).doing(action)?;
        let pty = pty::open_in(&root).doing(action)?;
        if let Some((rows, columns)) = self.size {
            pty::set_size(&pty.master, rows, columns).doing(action)?;
        }
        hand_out_master(&pty.master, self.console_socket.as_ref(), &self.channel)?;
        Ok(Some(pty.slave))
    }
}

/// How processes are made.
#[derive(Clone, Copy)]
struct Spawn {
    sharing: bool,
}

impl Spawn {
    fn spawn(self, options: CloneOptions<'_>, child: impl FnOnce() -> u8) -> io::Result<Child> {
        if self.sharing { process::spawn_sharing(options, child) } else { process::spawn(options, child) }
    }
}

fn open_group(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|e| Error::host(format!("opening \"{}\"", path.display()), io::Error::from(e)))
}

/// Enters the container's namespaces, all at once, unseen by what is in there.
fn join(container: &OwnedFd, namespaces: u64, request: &ExecRequest) -> Result<(), Failure> {
    if let Some(value) = request.process.oom_score_adj() {
        match std::fs::write("/proc/self/oom_score_adj", value.to_string()) {
            // Lowering it takes a privilege that a user namespace cannot give.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && crate::sys::ids::euid() != 0 => {
            }
            other => other.doing(|| format!("setting the OOM score to {value}"))?,
        }
    }
    process::set_undumpable().doing(|| "hiding the process".to_owned())?;
    // Where it shares our mounts, its root is a directory of ours.
    let root = if namespaces & libc::CLONE_NEWNS as u64 == 0 {
        let path = PathBuf::from(format!("/proc/{}/root", request.pid));
        Some(mount::open_path(&path).doing(|| "opening the container's root".to_owned())?)
    } else {
        None
    };
    namespace::join(container, namespaces).doing(|| "joining the container's namespaces".to_owned())?;
    if namespaces & libc::CLONE_NEWUSER as u64 != 0 {
        userns::become_root_with(request.keep_groups)
            .doing(|| "becoming root of the user namespace".to_owned())?;
        process::set_undumpable().doing(|| "hiding the process".to_owned())?;
    }
    root.map_or(Ok(()), |root| mount::chroot(root).doing(|| "changing the root".to_owned()))
}
