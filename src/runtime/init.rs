//! The interpreter: carries a plan out inside the new namespaces. It decides nothing that the plan
//! could have decided; every failure names the operation.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Stdio;
use super::hooks::{self, HookState};
use super::launch::{self, Channel};
use super::mounting::{self, Opened};
use super::plan::{InitPlan, Node, NodeKind, Op};
use super::protocol::{CREATING, CUTTING_OFF, Failure, FailureKind, GO, Message};
use crate::sys::mount::{self, Attributes, BindOptions, Filesystem, attr};
use crate::sys::path::Root;
use crate::sys::{ids, namespace, process, pty, sched, socket, userns};

/// Turns an error of a step into a failure that names it.
pub(super) trait Doing<T> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, action: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(FailureKind::Setup, action(), &error.into()))
    }
}

/// What the init takes along from the parent.
pub(super) struct Init<'a> {
    pub plan: &'a InitPlan,
    pub channel: Channel,
    pub stdio: &'a Stdio,
    pub console_socket: Option<OwnedFd>,
    /// The parent says when ids are mapped and the cgroup is joined.
    pub wait: bool,
    /// What is made before that is root's after it.
    pub ahead: bool,
    /// The parent waits for the namespaces.
    pub announce: bool,
    pub hook_state: HookState,
    /// Copies of what is bound early, in the plan's order.
    pub early: &'a [Option<OwnedFd>],
}

impl Init<'_> {
    /// The next copy of what was to be bound early, if there is one.
    fn take_early(&self, state: &mut State) -> Result<Option<OwnedFd>, Failure> {
        let copy = self.early.get(state.early).and_then(Option::as_ref);
        state.early += 1;
        copy.map(|fd| fd.try_clone().doing(|| "duplicating a mount".to_owned())).transpose()
    }
}

/// Runs the container's init to its exec; returns its exit code if that failed.
pub(super) fn run(mut init: Init<'_>) -> u8 {
    let failure = match prepare(&mut init) {
        Ok(state) => launch::launch(
            &init.plan.process,
            launch::Surroundings {
                channel: &mut init.channel,
                stdio: init.stdio,
                slave: state.slave,
                start_hooks: &init.plan.start_hooks,
                hook_state: init.hook_state,
            },
        ),
        Err(failure) => failure,
    };
    init.channel.fail(failure)
}

/// What operations leave for later ones.
#[derive(Default)]
struct State {
    /// What [`Op::OpenEarly`] opened.
    opened: Opened,
    root: Option<Root>,
    slave: Option<OwnedFd>,
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
    /// How many early mounts have been made.
    early: usize,
    /// Of the mounts that can be made ahead, in their order.
    ahead: VecDeque<Option<OwnedFd>>,
    /// The directory of the last device or link, if nothing else has been done since: most lie in the same one.
    place: Option<(PathBuf, OwnedFd)>,
}

impl State {
    fn root(&self) -> Result<&Root, Failure> {
        self.root.as_ref().ok_or_else(|| Failure {
            kind: FailureKind::Setup,
            errno: libc::EINVAL,
            chain: vec!["using the rootfs before it is mounted".to_owned()],
        })
    }

    /// The rootfs, the directory that `path` lies in, and its name there.
    fn place<'a>(&mut self, path: &'a Path) -> io::Result<(&Root, &OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(name), Some(root)) = (path.parent(), path.file_name(), &self.root) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let known = self.place.take().filter(|(known, _)| known == parent);
        let (_, directory) = self.place.insert(match known {
            Some(known) => known,
            None => (parent.to_owned(), root.create_dir_all(parent, 0o755)?),
        });
        Ok((root, directory, name))
    }
}

fn prepare(init: &mut Init<'_>) -> Result<State, Failure> {
    // Modes are given whole.
    rustix::process::umask(Mode::empty());
    let namespaces = &init.plan.namespaces;
    namespace::unshare(namespaces.unshare).doing(|| CREATING.to_owned())?;
    if init.announce {
        init.channel.say(&Message::Born, None)?;
    }
    let mut state = State::default();
    for op in init.plan.ops.iter().filter(|op| needs_nobody(op)) {
        carry_out(op, &mut state, init)?;
    }
    if init.wait {
        if init.ahead {
            state.ahead = filesystems_ahead(&init.plan.ops);
        }
        init.channel.wait_for(GO)?;
    }
    if namespaces.cgroup {
        let flag = libc::CLONE_NEWCGROUP as u64;
        namespace::unshare(flag).doing(|| "creating a cgroup namespace".to_owned())?;
    }
    for op in &init.plan.ops {
        if !matches!(op, Op::Node(_) | Op::MadeNode { .. } | Op::BindNode(_) | Op::Symlink { .. }) {
            state.place = None;
        }
        if !needs_nobody(op) {
            carry_out(op, &mut state, init)?;
        }
    }
    state.place = None;
    Ok(state)
}

/// Makes beside those who map the ids what else would take its time after them. What cannot be made yet is made in
/// its turn.
fn filesystems_ahead(ops: &[Op]) -> VecDeque<Option<OwnedFd>> {
    let ahead = ops.iter().filter_map(|op| match op {
        Op::Mount(op) => mounting::can_be_made_ahead(op),
        _ => None,
    });
    ahead.map(|filesystem| mount::detached(filesystem).ok()).collect()
}

/// Whether a step can be taken before the ids are mapped and the control group is joined: beside those who do that.
fn needs_nobody(op: &Op) -> bool {
    matches!(op, Op::Loopback | Op::Hostname(_) | Op::Domainname(_))
}

fn carry_out(op: &Op, state: &mut State, init: &Init<'_>) -> Result<(), Failure> {
    match op {
        Op::OomScore { value, best_effort } => set_oom_score(*value, *best_effort),
        Op::Hide => process::set_undumpable().doing(|| "hiding the init".to_owned()),
        Op::OpenEarly(paths) => {
            state.opened = Opened::new(paths);
            Ok(())
        }
        Op::BecomeRoot { keep_groups } => {
            userns::become_root_with(*keep_groups).doing(|| "becoming root of the user namespace".to_owned())
        }
        Op::Time(offsets) => {
            namespace::unshare_time(offsets).doing(|| "creating a time namespace".to_owned())
        }
        Op::MemoryPolicy { mode, nodes } => sched::set_memory_policy(*mode, nodes)
            .doing(|| format!("linux.memoryPolicy: taking memory from nodes {nodes:?}")),
        Op::NetDevices => {
            init.channel.say(&Message::NetDevices, None)?;
            init.channel.wait_for(GO)
        }
        Op::Loopback => namespace::loopback_up().doing(|| "bringing lo up".to_owned()),
        Op::Hostname(name) => {
            rustix::system::sethostname(name.as_bytes()).doing(|| format!("setting the host name \"{name}\""))
        }
        Op::Domainname(name) => {
            ids::set_domainname(name.as_bytes()).doing(|| format!("setting the domain name \"{name}\""))
        }
        Op::Propagation(propagation) => {
            mount::change_propagation(Path::new("/"), *propagation).doing(|| CUTTING_OFF.to_owned())
        }
        Op::SurroundingPrivate(path) => mount::make_surrounding_private(path)
            .doing(|| format!("making the mount around \"{}\" private", path.display())),
        Op::WorkingDirectory(path) => state
            .root()?
            .create_dir_all(path, 0o755)
            .map(drop)
            .doing(|| format!("making the working directory \"{}\"", path.display())),
        Op::Rootfs { rootfs, attributes, ids: None } => {
            state.root = Some(mounting::mount_rootfs(rootfs, *attributes, &state.opened)?);
            Ok(())
        }
        Op::Rootfs { rootfs, ids: Some(_), .. } => {
            let made = init.take_early(state)?;
            state.root = Some(mounting::attach_rootfs(rootfs, made, &state.opened)?);
            Ok(())
        }
        Op::OutsideRootfs(path) => {
            let action = || format!("opening the rootfs \"{}\"", path.display());
            state.root = Some(Root::open(path).doing(action)?);
            Ok(())
        }
        Op::Chroot => mount::chroot(state.root()?).doing(|| "changing the root".to_owned()),
        Op::Mount(op) => {
            let early = match op.is_early() {
                true => init.take_early(state)?,
                false if mounting::can_be_made_ahead(op).is_some() => state.ahead.pop_front().flatten(),
                false => None,
            };
            let whose = || launch::who(&init.plan.process, state.root()?);
            mounting::carry_out_mount(op, state.root()?, early, &state.opened, &whose)
        }
        Op::Node(node) => {
            make_node(node, state).doing(|| format!("making device \"{}\"", node.path.display()))
        }
        Op::MadeNode { node, .. } => {
            let made = init.take_early(state)?;
            attach_node(node, made, state).doing(|| format!("making device \"{}\"", node.path.display()))
        }
        Op::BindNode(node) => {
            bind_node(node, state).doing(|| format!("binding the host's device \"{}\"", node.path.display()))
        }
        Op::Symlink { path, target } => {
            symlink(path, target, state).doing(|| format!("linking \"{}\"", path.display()))
        }
        Op::Terminal { size, console } => open_terminal(*size, *console, state, init),
        Op::RuntimeHooks => {
            init.channel.say(&Message::Hooks, None)?;
            init.channel.wait_for(GO)
        }
        Op::ContainerHooks(list) => {
            let mut hook_state = init.hook_state.clone();
            // The host's /proc is still there and knows us by the host's number.
            let host_pid = std::fs::read_link("/proc/self").ok().and_then(|p| p.to_str()?.parse().ok());
            hook_state.pid = host_pid.unwrap_or_else(|| rustix::process::getpid().as_raw_nonzero().get());
            hooks::run(list, &hook_state).map_err(|error| Failure {
                kind: FailureKind::Hook,
                errno: 0,
                chain: vec!["running createContainer hooks".into(), crate::base::report::chain(&error)],
            })
        }
        Op::Sysctl { path, value } => write_sysctl(path, value, state.root()?)
            .doing(|| format!("setting sysctl {} to \"{value}\"", path.display())),
        Op::Mask(path) => mask(path, state),
        Op::ReadonlyPath(path) => {
            readonly_path(path, state.root()?).doing(|| format!("making \"{}\" read-only", path.display()))
        }
        Op::ReadonlyRoot => {
            let attributes = Attributes { set: attr::RDONLY, clear: 0 };
            mount::change_attributes(state.root()?, attributes, false)
                .doing(|| "making the rootfs read-only".to_owned())
        }
        Op::Pivot { no_pivot, shared } => {
            let root = state.root()?;
            let result = if *no_pivot { mount::move_over_root(root) } else { mount::pivot(root, *shared) };
            result.doing(|| "making the rootfs the root".to_owned())
        }
        Op::RootPropagation(propagation) => mount::change_propagation(Path::new("/"), *propagation)
            .doing(|| "setting the propagation of the rootfs".to_owned()),
    }
}

fn set_oom_score(value: i32, best_effort: bool) -> Result<(), Failure> {
    match std::fs::write("/proc/self/oom_score_adj", value.to_string()) {
        Err(error) if best_effort && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other.doing(|| format!("setting the OOM score to {value}")),
    }
}

fn make_node(node: &Node, state: &mut State) -> io::Result<()> {
    let (_, parent, name) = state.place(&node.path)?;
    let kind = match node.kind {
        NodeKind::Char => FileType::CharacterDevice,
        NodeKind::Block => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
    };
    let device = rustix::fs::makedev(node.major, node.minor);
    match rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(node.mode), device) {
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let there = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            return check_node(node, &there);
        }
        // Root of a user namespace that somebody else made: devices are not for it to make.
        Err(Errno::PERM) => return bind_node(node, state),
        other => other?,
    }
    if (node.uid, node.gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(node.uid), rustix::fs::Gid::from_raw(node.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

/// That an open object is the device that is meant, and not what somebody put in its place.
fn check_node(node: &Node, there: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(there)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let right = match node.kind {
        NodeKind::Char => kind == FileType::CharacterDevice,
        NodeKind::Block => kind == FileType::BlockDevice,
        NodeKind::Fifo => {
            return if kind == FileType::Fifo { Ok(()) } else { Err(io::ErrorKind::AlreadyExists.into()) };
        }
    };
    if right && stat.st_rdev == rustix::fs::makedev(node.major, node.minor) {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

/// Attaches a node that was made for us; where it could not be, the host's own has to do.
fn attach_node(node: &Node, made: Option<OwnedFd>, state: &mut State) -> io::Result<()> {
    let Some(made) = made else { return bind_node(node, state) };
    mount::attach(made, node_file(node, state)?)
}

fn bind_node(node: &Node, state: &mut State) -> io::Result<()> {
    let host = mount::open_path(&node.path)?;
    check_node(node, &host)?;
    mount::bind(&host, node_file(node, state)?, BindOptions::default())?;
    Ok(())
}

/// The file that a device is mounted on. Most are missing, on a new file system.
fn node_file(node: &Node, state: &mut State) -> io::Result<OwnedFd> {
    let (root, parent, name) = state.place(&node.path)?;
    match Root::make_file(parent, name, 0o666) {
        Err(Errno::EXIST) => root.create_file(&node.path, 0o666),
        other => Ok(other?),
    }
}

fn symlink(path: &Path, target: &str, state: &mut State) -> io::Result<()> {
    let (_, parent, name) = state.place(path)?;
    match rustix::fs::symlinkat(target, parent, name) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn open_terminal(
    size: Option<(u16, u16)>,
    console: bool,
    state: &mut State,
    init: &Init<'_>,
) -> Result<(), Failure> {
    let root = state.root()?;
    let action = || "opening the container's terminal".to_owned();
    let pty = pty::open_in(root).doing(action)?;
    if let Some((rows, columns)) = size {
        pty::set_size(&pty.master, rows, columns).doing(action)?;
    }
    hand_out_master(&pty.master, init.console_socket.as_ref(), &init.channel)?;
    if console {
        (|| {
            let target = root.create_file(Path::new("/dev/console"), 0o600)?;
            mount::bind(&pty.slave, &target, BindOptions::default())?;
            Ok::<_, io::Error>(())
        })()
        .doing(|| "binding the terminal to \"/dev/console\"".to_owned())?;
    }
    state.slave = Some(pty.slave);
    Ok(())
}

/// Gives the master to who asked for the terminal.
pub(super) fn hand_out_master(
    master: &OwnedFd,
    console_socket: Option<&OwnedFd>,
    channel: &Channel,
) -> Result<(), Failure> {
    match console_socket {
        Some(socket) => {
            pty::send_master(socket, master).doing(|| "sending the terminal to the console socket".to_owned())
        }
        None => channel.say(&Message::Terminal, Some(master.as_fd())),
    }
}

/// `PROC_SUPER_MAGIC`.
pub(super) const PROC_MAGIC: u64 = 0x9fa0;

fn write_sysctl(path: &Path, value: &str, root: &Root) -> io::Result<()> {
    let file = root.open_in(&PathBuf::from("/proc/sys").join(path), OFlags::WRONLY, 0)?;
    // Not into whatever else stands at that path (CVE-2025-52881).
    if rustix::fs::fstatfs(&file)?.f_type as u64 != PROC_MAGIC {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

/// Opens what a masked or read-only path names; nothing there needs no hiding.
fn open_hidden(path: &Path, root: &Root) -> io::Result<Option<OwnedFd>> {
    match root.open_in(path, OFlags::PATH, 0) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn mask(path: &Path, state: &mut State) -> Result<(), Failure> {
    let action = || format!("masking \"{}\"", path.display());
    let Some(target) = open_hidden(path, state.root()?).doing(action)? else { return Ok(()) };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&target).doing(action)?.st_mode);
    if kind != FileType::Directory {
        if state.null.is_none() {
            state.null = Some(host_null().doing(action)?);
        }
        if let Some(null) = &state.null {
            mount::bind(null, &target, BindOptions::default()).doing(action)?;
        }
        return Ok(());
    }
    if let Some(empty) = &state.empty {
        mount::bind(empty, &target, BindOptions::default()).doing(action)?;
        return Ok(());
    }
    let set = attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC;
    let filesystem = Filesystem {
        fstype: "tmpfs".to_owned(),
        source: None,
        options: vec![
            ("size".to_owned(), Some("0".to_owned())),
            ("nr_inodes".to_owned(), Some("1".to_owned())),
        ],
        attributes: Attributes { set, clear: 0 },
    };
    state.empty = mount::filesystem(&filesystem, &target).doing(action)?;
    Ok(())
}

/// The host's `/dev/null`, opened before the pivot: the container's could be a trap (CVE-2025-31133).
fn host_null() -> io::Result<OwnedFd> {
    let null = mount::open_path(Path::new("/dev/null"))?;
    let stat = rustix::fs::fstat(&null)?;
    let device = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if device && stat.st_rdev == rustix::fs::makedev(1, 3) {
        Ok(null)
    } else {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

fn readonly_path(path: &Path, root: &Root) -> io::Result<()> {
    let Some(target) = open_hidden(path, root)? else { return Ok(()) };
    let attributes = Attributes { set: attr::RDONLY, clear: 0 };
    mount::bind(&target, &target, BindOptions { recursive: true, attributes, ..Default::default() })?;
    Ok(())
}

/// Asks the kernel to send a message that a socket of the other side can take.
pub(super) fn send(socket: &OwnedFd, message: &Message) -> io::Result<()> {
    socket::send(socket, &message.encode(), None)
}
