//! The parent's side of a container's birth.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, Spec};

use super::hooks::{self, HookState};
use super::init::{self, Init};
use super::label::Modules;
use super::launch::Channel;
use super::plan::{self, InitPlan, Labels, Op};
use super::protocol::{DETACH, GO, Message, START};
use super::{CacheGroups, CreateRequest, Error, Gate, Stdio, cache, early, listener};
use crate::base::idmap::IdMapping;
use crate::cgroup::{self, Group, Outcome, Scope, Unit};
use crate::sys::mount::Held;
use crate::sys::process::{self, Child, CloneOptions};
use crate::sys::userns::{self, Begun};
use crate::sys::{ids, namespace, netdevice, socket};

/// A container whose init waits at the start gate. Dropping it before it is started or detached
/// kills the init.
#[derive(Debug)]
pub struct Created {
    /// The init, as the caller sees it.
    pub pid: i32,
    /// Its start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// The init; readable when it ends.
    pub pidfd: OwnedFd,
    /// The master of the container's terminal, if [`super::Stdio::Terminal`] was asked for.
    pub terminal: Option<OwnedFd>,
    /// The control group directory, if the container has one of its own.
    pub cgroup: Option<PathBuf>,
    /// The systemd unit that the group belongs to, if systemd made it.
    pub unit: Option<Unit>,
    /// Why it has none.
    pub no_cgroup: Option<String>,
    /// Groups of resctrl that were made for it.
    pub cache: CacheGroups,
    /// The rootfs, if without a mount namespace it is mounted in the caller's.
    outside: Option<Held>,
    /// The connection with the init until it is started or detached.
    gate: Option<OwnedFd>,
    /// What it was made of. Taken apart when there is nobody left who waits.
    made_of: Option<Box<(CreateRequest, InitPlan)>>,
}

impl Created {
    /// A rootfs that is mounted in the caller's own mount namespace, for
    /// [`release`](crate::sys::mount::release) when the container is deleted.
    pub fn outside(&self) -> Option<PathBuf> {
        self.outside.as_ref().map(Held::path)
    }

    /// Leaves it mounted when this is dropped: it is recorded.
    pub fn keep_outside(&mut self) {
        if let Some(held) = self.outside.take() {
            held.keep();
        }
    }

    /// Opens a held gate; returns when the program has been executed, or its error.
    pub fn start(&mut self) -> Result<(), Error> {
        let gate = self.gate.as_ref().ok_or(Error::NotRunning)?;
        let said = say_start(gate);
        // Who has ended may have said why.
        read_outcome(gate).and(said)?;
        // Only what was started is not ended when this is dropped.
        self.gate = None;
        Ok(())
    }

    /// Takes apart what it was made of, each page of which the init has a copy of. To be called when nobody waits: the
    /// init, and who is told that it has started, may be run by this processor.
    pub fn forget_making(&mut self) {
        self.made_of = None;
    }

    /// Leaves the init waiting at a [`super::Gate::Path`] after this process is gone. To be called
    /// once the container is recorded: until then an init whose maker dies ends, so that none waits
    /// that nobody knows of.
    pub fn detach(mut self) -> Result<(), Error> {
        let gate = self.gate.take().ok_or(Error::NotRunning)?;
        let detached = socket::send(&gate, DETACH, None).map_err(|_| Error::Died);
        if detached.is_err() {
            discard(&self.pidfd, self.cgroup.as_deref().map(|group| (group, self.unit.as_ref())));
        }
        detached
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if self.gate.is_some() {
            discard(&self.pidfd, self.cgroup.as_deref().map(|group| (group, self.unit.as_ref())));
            // Nobody is left to tell.
            let _ = self.cache.remove();
        }
    }
}

/// Ends an init that will not be started, and what is left of it.
fn discard(pidfd: &OwnedFd, cgroup: Option<(&Path, Option<&Unit>)>) {
    // It may have ended by itself, which is as well.
    let _ = process::pidfd_signal(pidfd, libc::SIGKILL);
    let _ = process::wait(pidfd);
    if let Some((cgroup, unit)) = cgroup {
        let _ = cgroup::destroy(cgroup, unit);
    }
}

fn say_start(socket: &OwnedFd) -> Result<(), Error> {
    socket::send(socket, START, None).map_err(|_| Error::NotRunning)
}

/// Reads what becomes of the exec: the socket is closed by it, or carries its error.
pub(super) fn read_outcome(socket: &OwnedFd) -> Result<(), Error> {
    let (bytes, _) = socket::receive(socket).map_err(|e| Error::host("waiting for the program", e))?;
    match Message::decode(&bytes) {
        Some(Message::End) => Ok(()),
        Some(Message::Failed(failure)) => Err(Error::Inside(failure)),
        _ => Err(Error::Died),
    }
}

/// Opens a [`super::Gate::Path`] from any process; returns when the program has been executed, or
/// its error. [`Error::NotRunning`] if nobody waits there.
pub fn start(gate: &Path) -> Result<(), Error> {
    let socket = socket::connect(gate).map_err(|_| Error::NotRunning)?;
    let said = say_start(&socket);
    read_outcome(&socket).and(said)
}

/// Makes the container; its init waits at the gate when this returns. The caller must be
/// single-threaded: the init is a fork of it.
pub fn create(request: CreateRequest) -> Result<Created, Error> {
    create_with(request, None, &mut |_, _, _| {})
}

/// Begins what of a container's namespaces can be begun before the rest of it is known, for [`CreateRequest::begun`].
pub fn begin(spec: &Spec) -> Option<Begun> {
    let (mapping, kinds) = plan::to_begin(spec.linux().as_ref()?)?;
    Begun::begin(&mapping, kinds)
}

/// Told the init's pid as soon as that has its namespaces and ids; it does nothing before this returns.
pub type Born<'a> = &'a mut (dyn FnMut(i32) -> io::Result<()> + 'a);

/// Told the init's pid, its start time if that is known, and the directory of its control group, when the init has all
/// that it waits for: what is done there is done beside what the init does.
pub type Meanwhile<'a> = &'a mut (dyn FnMut(i32, Option<u64>, Option<&Path>) + 'a);

/// As [`create`]; with what shall be begun beside the container's own making.
pub fn create_with(
    mut request: CreateRequest,
    born: Option<Born<'_>>,
    meanwhile: Meanwhile<'_>,
) -> Result<Created, Error> {
    let (ready, begun) = (request.filter.take(), request.begun.take());
    let linux = request.spec.linux().as_ref();
    let filter = match linux.and_then(|linux| linux.seccomp().as_ref()) {
        Some(profile) if ready.is_none() => Some(crate::seccomp::compile(profile)?),
        _ => ready,
    };
    let terminal = matches!(request.stdio, Stdio::Terminal | Stdio::ConsoleSocket(_));
    let inputs = plan::Inputs { filter, terminal, root: ids::euid() == 0 };
    let mut plan = plan::plan(&request, inputs)?;
    check_labels(&plan.process.labels)?;
    if linux.and_then(|linux| linux.mount_label().as_deref()).is_some_and(|label| !label.is_empty())
        && !Modules::present().selinux
    {
        return Err(Error::NoModule { field: "linux.mountLabel", module: "SELinux" });
    }
    let outside = mount_outside(&plan)?;
    let early = early::prepare(&plan)?;
    let console_socket = connect_console(&request.stdio)?;
    let listener = match &request.gate {
        Gate::Held => None,
        Gate::Path(path) => Some(
            socket::listen(path, 0o600)
                .map_err(|e| Error::host(format!("making the start gate \"{}\"", path.display()), e))?,
        ),
    };
    let outcome = cgroup::create(&request.cgroup_request())?;
    let (mut group, scope, no_cgroup) = match outcome {
        Outcome::Made(group) => (Some(group), None, None),
        Outcome::Later(scope) => (None, Some(scope), None),
        Outcome::None(reason) => (None, None, Some(reason)),
    };
    let begun = begun.filter(|begun| plan.takes(begun.mapping(), begun.kinds()) && begun.is_there());
    if let Some(begun) = &begun {
        plan.namespaces.leave_out(begun.kinds() | libc::CLONE_NEWUSER as u64);
    }
    let mut unit = None;
    let birth = Birth {
        request: &request,
        plan: &plan,
        group: group.as_ref(),
        console_socket,
        listener,
        early,
        begun,
        born,
        meanwhile,
    };
    let mut made = None;
    let born = birth.go(scope, &mut made).and_then(|born| match request.witnesses.iter().all(alive) {
        true => Ok(born),
        false => {
            discard(&born.child.pidfd, None);
            Err(Error::JoinedEnded)
        }
    });
    if let Some((scope_group, scope_unit)) = made {
        group = Some(scope_group);
        unit = Some(scope_unit);
    }
    match born {
        Ok(Made { child, start_time, gate, terminal, cache }) => Ok(Created {
            pid: child.pid,
            start_time: match start_time {
                Some(start_time) => start_time,
                None => process::start_time(child.pid)
                    .map_err(|e| Error::host("reading the init's start time", e))?,
            },
            pidfd: child.pidfd,
            terminal,
            cgroup: group.map(|group| group.path),
            unit,
            no_cgroup,
            cache,
            outside,
            gate: Some(gate),
            made_of: Some({
                // The program has these now; who holds them would keep them from ever ending.
                (request.stdio, request.answerer) = (Stdio::Inherit, None);
                Box::new((request, plan))
            }),
        }),
        Err(error) => {
            let error = match starved(&request, group.as_ref()) {
                Some(limit) if matches!(error, Error::Died) || error.is_want_of_memory() => {
                    Error::TooLittleMemory { limit }
                }
                _ => error,
            };
            if let Some(group) = &group {
                let _ = cgroup::destroy(&group.path, unit.as_ref());
            }
            Err(error)
        }
    }
}

/// The limit of memory, if an init that died without a word may have died of that: the group tells so, or it is
/// gone (systemd's go with their last process) and the limit is less than any init needs.
fn starved(request: &CreateRequest, group: Option<&Group>) -> Option<i64> {
    const LEAST: i64 = 1 << 20;
    let resources = request.spec.linux().as_ref()?.resources().as_ref()?;
    let limit = resources.memory().as_ref()?.limit().filter(|limit| *limit > 0)?;
    let told = group.is_some_and(|group| cgroup::stats::oom_kills(&group.path) > 0);
    (told || limit < LEAST).then_some(limit)
}

fn alive((pid, start_time): &(i32, u64)) -> bool {
    process::is_alive(*pid, *start_time)
}

/// Mounts the rootfs of a container that has no mount namespace.
fn mount_outside(plan: &InitPlan) -> Result<Option<Held>, Error> {
    let path = plan.ops.iter().find_map(|op| match op {
        Op::OutsideRootfs(path) => Some(path),
        _ => None,
    });
    let Some(path) = path.filter(|_| plan.namespaces.outside) else { return Ok(None) };
    let held = Held::new(path);
    held.map(Some).map_err(|e| Error::host(format!("mounting the rootfs \"{}\"", path.display()), e))
}

/// That a label that was asked for can be given.
pub(super) fn check_labels(labels: &Labels) -> Result<(), Error> {
    if *labels == Labels::default() {
        return Ok(());
    }
    let modules = Modules::present();
    if labels.apparmor.is_some() && !modules.apparmor {
        return Err(Error::NoModule { field: "process.apparmorProfile", module: "AppArmor" });
    }
    if labels.selinux.is_some() && !modules.selinux {
        return Err(Error::NoModule { field: "process.selinuxLabel", module: "SELinux" });
    }
    Ok(())
}

pub(super) fn connect_console(stdio: &Stdio) -> Result<Option<OwnedFd>, Error> {
    let Stdio::ConsoleSocket(path) = stdio else { return Ok(None) };
    let socket =
        socket::connect_stream(path).map_err(|source| Error::ConsoleSocket { path: path.clone(), source })?;
    Ok(Some(socket))
}

/// One container's birth.
struct Birth<'a, 'b, 'c> {
    request: &'a CreateRequest,
    plan: &'a InitPlan,
    group: Option<&'a Group>,
    console_socket: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    early: Vec<Option<OwnedFd>>,
    begun: Option<Begun>,
    born: Option<Born<'b>>,
    meanwhile: Meanwhile<'c>,
}

struct Made {
    child: Child,
    start_time: Option<u64>,
    gate: OwnedFd,
    terminal: Option<OwnedFd>,
    cache: CacheGroups,
}

impl Birth<'_, '_, '_> {
    /// A group that systemd makes around the init is told in `made`, also if the birth fails later.
    fn go(mut self, scope: Option<Scope>, made: &mut Option<(Group, Unit)>) -> Result<Made, Error> {
        let (ours, theirs) = socket::packet_pair().map_err(|e| Error::host("making a socket", e))?;
        let cgroup = self.group.map(AsFd::as_fd);
        let born = match self.spawn((&ours, &theirs), cgroup, scope.is_some()) {
            // Old kernels and seccomp filters of outer containers: joined after the birth then.
            Err(Error::Namespaces(source) | Error::Host { source, .. })
                if cgroup.is_some() && cannot_clone_into(&source) =>
            {
                let child = self.spawn((&ours, &theirs), None, true)?;
                if let Some(group) = self.group
                    && let Err(error) = group.add(child.pid)
                {
                    discard(&child.pidfd, None);
                    return Err(error.into());
                }
                (child, true)
            }
            other => (other?, scope.is_some()),
        };
        let (child, late) = born;
        // Now: where /proc hides processes (hidepid), it hides one that has made itself untouchable even from who
        // made it.
        let start_time = process::start_time(child.pid).ok();
        if let Some(scope) = scope {
            match scope.start(child.pid) {
                Ok(pair) => *made = Some(pair),
                Err(error) => {
                    discard(&child.pidfd, None);
                    return Err(error.into());
                }
            }
        }
        drop((theirs, self.listener.take()));
        let cache = match &self.plan.cache {
            None => Ok(CacheGroups::default()),
            Some(plan) => cache::apply(plan, &self.request.id, child.pid),
        };
        let group = made.as_ref().map(|(group, _)| group).or(self.group).map(|group| &*group.path);
        let result = cache.and_then(|cache| match self.accompany(&child, &ours, late, (start_time, group)) {
            Ok(terminal) => Ok((terminal, cache)),
            Err(error) => {
                discard(&child.pidfd, None);
                // What remains says less than the error.
                let _ = cache.remove();
                Err(error)
            }
        });
        match result {
            Ok((terminal, cache)) => Ok(Made { child, start_time, gate: ours, terminal, cache }),
            Err(error) => {
                discard(&child.pidfd, None);
                Err(error)
            }
        }
    }

    fn spawn(
        &mut self,
        (ours, theirs): (&OwnedFd, &OwnedFd),
        cgroup: Option<BorrowedFd<'_>>,
        late_cgroup: bool,
    ) -> Result<Child, Error> {
        let namespaces = &self.plan.namespaces;
        let wait = self.plan.mapping.is_some() || late_cgroup || self.born.is_some();
        let stuff = |e: io::Error| Error::host("making a socket", e);
        let channel = theirs.try_clone().map_err(stuff)?;
        let listener = self.listener.as_ref().map(OwnedFd::try_clone).transpose().map_err(stuff)?;
        let console_socket =
            self.console_socket.as_ref().map(OwnedFd::try_clone).transpose().map_err(stuff)?;
        let init = Init {
            plan: self.plan,
            channel: Channel::new(channel, listener, true),
            stdio: &self.request.stdio,
            console_socket,
            wait,
            ahead: is_root_to_be(self.plan),
            announce: self.born.is_some(),
            early: &self.early,
            hook_state: self.hook_state("creating", 0),
        };
        let options =
            CloneOptions { namespaces: namespaces.clone, cgroup, sibling: false, close: Some(ours.as_fd()) };
        if let Some(begun) = &self.begun {
            return spawn_in(begun, options, init);
        }
        if namespaces.join.is_empty() {
            return process::spawn(options, || init::run(init)).map_err(Error::Namespaces);
        }
        self.spawn_joined(options, init)
    }

    /// Existing namespaces are joined by a short-lived process between, whose sibling the init is:
    /// the caller stays where it is, and new namespaces belong to the joined user namespace.
    fn spawn_joined(&self, options: CloneOptions<'_>, init: Init<'_>) -> Result<Child, Error> {
        let (ours, theirs) = socket::packet_pair().map_err(|e| Error::host("making a socket", e))?;
        let first = CloneOptions { namespaces: 0, ..options };
        let between = process::spawn(first, || {
            let answer = match join_all(self.plan).and_then(|()| {
                let second = CloneOptions { cgroup: None, sibling: true, close: None, ..options };
                process::spawn(second, || init::run(init)).map_err(|e| ("creating namespaces".to_owned(), e))
            }) {
                Ok(child) => format!("P{}", child.pid),
                Err((action, error)) => format!("E{} {action}", error.raw_os_error().unwrap_or(0)),
            };
            u8::from(socket::send(&theirs, answer.as_bytes(), None).is_err())
        })
        .map_err(|e| Error::host("creating a process", e))?;
        drop(theirs);
        let (answer, _) = socket::receive(&ours).map_err(|e| Error::host("joining namespaces", e))?;
        process::wait(&between.pidfd).map_err(|e| Error::host("joining namespaces", e))?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if let Some(pid) = answer.strip_prefix('P').and_then(|pid| pid.parse().ok()) {
            // It is our child, so its pid stays its own until we reap it.
            let pidfd = process::pidfd_open(pid).map_err(|e| Error::host("opening the init", e))?;
            return Ok(Child { pid, pidfd });
        }
        match answer.strip_prefix('E').and_then(|rest| rest.split_once(' ')) {
            Some((errno, action)) => {
                Err(Error::host(action, io::Error::from_raw_os_error(errno.parse().unwrap_or(0))))
            }
            None => Err(Error::Died),
        }
    }

    /// Does the parent's part until the init waits at the gate; returns the terminal.
    fn accompany(
        &mut self,
        child: &Child,
        socket: &OwnedFd,
        late: bool,
        (start_time, group): (Option<u64>, Option<&Path>),
    ) -> Result<Option<OwnedFd>, Error> {
        let go = || socket::send(socket, GO, None).map_err(|_| Error::Died);
        let begun = self.begun.take();
        match (&begun, &self.plan.mapping) {
            (Some(begun), _) => begun.finish()?,
            (None, Some(mapping)) => userns::write_maps(child.pid, mapping)?,
            (None, None) => {}
        }
        let born = self.born.take();
        let waits = self.plan.mapping.is_some() || late || born.is_some();
        if let Some(born) = born {
            let (bytes, _) = socket::receive(socket).map_err(|e| Error::host("waiting for the init", e))?;
            match Message::decode(&bytes) {
                Some(Message::Born) => {}
                Some(Message::Failed(failure)) => return Err(Error::Inside(failure)),
                _ => return Err(Error::Died),
            }
            born(child.pid).map_err(|e| Error::host("beginning with the network", e))?;
        }
        if waits {
            go()?;
        }
        // Others are in the namespaces now.
        drop(begun);
        (self.meanwhile)(child.pid, start_time, group);
        let mut terminal = None;
        loop {
            let (bytes, fd) = socket::receive(socket).map_err(|e| Error::host("waiting for the init", e))?;
            match Message::decode(&bytes) {
                Some(Message::Ready) => return Ok(terminal),
                Some(Message::Terminal) => terminal = fd,
                Some(Message::Hooks) => {
                    self.run_hooks(child.pid)?;
                    go()?;
                }
                Some(Message::NetDevices) => {
                    self.move_devices(child.pid)?;
                    go()?;
                }
                Some(Message::Listener) => {
                    let profile =
                        self.request.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
                    let listener = fd.ok_or(Error::Died)?;
                    listener::hand_over(
                        self.request.answerer.as_ref(),
                        profile,
                        &listener,
                        child.pid,
                        &self.hook_state("creating", child.pid),
                    )?;
                    go()?;
                }
                Some(Message::Failed(failure)) => return Err(Error::Inside(failure)),
                Some(Message::Born | Message::End) | None => return Err(Error::Died),
            }
        }
    }

    /// Moves network devices of the host into the container's namespace, where a process of ours
    /// gives them back what they lost on the way.
    fn move_devices(&self, pid: i32) -> Result<(), Error> {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let namespace =
            namespace::open(&path).map_err(|e| Error::host("opening the network namespace", e))?;
        for (name, new) in &self.plan.net_devices {
            let failed = |e| Error::host(format!("linux.netDevices: moving \"{name}\" in as \"{new}\""), e);
            let moved = netdevice::send(name, new, &namespace).map_err(failed)?;
            let (ours, theirs) = socket::packet_pair().map_err(failed)?;
            let inside =
                process::spawn(CloneOptions { close: Some(ours.as_fd()), ..Default::default() }, || {
                    let settled = namespace::join(&namespace, libc::CLONE_NEWNET as u64)
                        .and_then(|()| netdevice::settle(&moved));
                    let errno = settled.err().map_or(0, |e| e.raw_os_error().unwrap_or(libc::EIO));
                    u8::from(socket::send(&theirs, &errno.to_ne_bytes(), None).is_err())
                })
                .map_err(failed)?;
            drop(theirs);
            let (answer, _) = socket::receive(&ours).map_err(failed)?;
            process::wait(&inside.pidfd).map_err(failed)?;
            match <[u8; 4]>::try_from(answer.as_slice()).map(i32::from_ne_bytes) {
                Ok(0) => {}
                Ok(errno) => return Err(failed(io::Error::from_raw_os_error(errno))),
                Err(_) => return Err(Error::Died),
            }
        }
        Ok(())
    }

    fn run_hooks(&self, pid: i32) -> Result<(), Error> {
        let Some(all) = self.request.spec.hooks() else { return Ok(()) };
        let mut state = self.hook_state("created", pid);
        #[allow(deprecated)]
        let prestart: &[Hook] = all.prestart().as_deref().unwrap_or_default();
        // When these were not yet deprecated, they ran after the create operation, and their programs
        // know the state so.
        hooks::run(prestart, &state)?;
        state.status = "creating";
        Ok(hooks::run(all.create_runtime().as_deref().unwrap_or_default(), &state)?)
    }

    fn hook_state(&self, status: &'static str, pid: i32) -> HookState {
        let annotations: BTreeMap<_, _> =
            self.request.spec.annotations().clone().unwrap_or_default().into_iter().collect();
        HookState {
            oci_version: self.request.spec.version().clone(),
            id: self.request.id.clone(),
            status,
            pid,
            bundle: self.request.bundle.clone(),
            annotations,
        }
    }
}

/// Whether what the init makes before its ids are mapped is its root's afterwards, in a mount namespace of its own.
fn is_root_to_be(plan: &InitPlan) -> bool {
    let root = |mapping: &IdMapping| {
        let root = (IdMapping::to_host(&mapping.uids, 0), IdMapping::to_host(&mapping.gids, 0));
        root == (Some(ids::euid()), Some(ids::egid()))
    };
    plan.namespaces.unshare & libc::CLONE_NEWNS as u64 != 0 && plan.mapping.as_ref().is_some_and(root)
}

/// Has the init born in namespaces that are there already, by way of a short-lived process whose sibling it is. Their
/// ids may still be being mapped.
fn spawn_in(begun: &Begun, options: CloneOptions<'_>, init: Init<'_>) -> Result<Child, Error> {
    let mut born = Err(io::ErrorKind::NotFound.into());
    // Stays ours: what the one between closed would be closed in its own table alone.
    let mut init = Some(init);
    let between = process::spawn_sharing(CloneOptions { namespaces: 0, ..options }, || {
        born = begun.join().and_then(|()| {
            let second = CloneOptions { cgroup: None, sibling: true, close: None, ..options };
            process::spawn(second, || init.take().map_or(125, init::run)).map(|child| child.pid)
        });
        0
    })
    .map_err(|e| Error::host("creating a process", e))?;
    process::wait(&between.pidfd).map_err(|e| Error::host("joining namespaces", e))?;
    let pid = born.map_err(Error::Namespaces)?;
    // It is our child, so its pid stays its own until we reap it.
    let pidfd = process::pidfd_open(pid).map_err(|e| Error::host("opening the init", e))?;
    Ok(Child { pid, pidfd })
}

fn join_all(plan: &InitPlan) -> Result<(), (String, io::Error)> {
    let failed = |path: &Path| {
        let action = format!("joining the namespace \"{}\"", path.display());
        move |e| (action, e)
    };
    // All are opened first: in another mount namespace the paths would name something else.
    let open = |(kind, path): &(u64, PathBuf)| {
        let fd = namespace::open(path).map_err(failed(path))?;
        Ok((*kind, path.clone(), fd))
    };
    let mut namespaces = plan.namespaces.join.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    namespaces.sort_by_key(|(kind, ..)| *kind == libc::CLONE_NEWNS as u64);
    for (kind, path, fd) in namespaces {
        namespace::join(&fd, kind).map_err(failed(&path))?;
        if kind == libc::CLONE_NEWUSER as u64 {
            userns::become_root().map_err(failed(&path))?;
        }
    }
    Ok(())
}

fn cannot_clone_into(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENOSYS
                | libc::EINVAL
                | libc::E2BIG
                | libc::EOPNOTSUPP
                | libc::EACCES
                | libc::EPERM
                | libc::EBADF
        )
    )
}
