//! The interpreter: carries a plan out inside the new namespaces. It decides nothing that the plan
//! could have decided; every failure names the operation.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::hooks::{self, HookState};
use super::launch::{self, Channel};
use super::plan::{InitPlan, MountKind, MountOp, Node, NodeKind, Op};
use super::protocol::{Failure, FailureKind, GO, Message};
use super::{Rootfs, Stdio};
use crate::sys::mount::{self, Attributes, BindOptions, Filesystem, Overlay, attr};
use crate::sys::path::Root;
use crate::sys::{copy, ids, namespace, process, pty, socket, userns};

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
    pub hook_state: HookState,
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
struct State {
    /// What [`Op::OpenEarly`] opened.
    early: Vec<(PathBuf, OwnedFd)>,
    root: Option<Root>,
    slave: Option<OwnedFd>,
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl State {
    /// A path of the host, opened by this process as it is now, or as it was before it became root.
    fn host_path(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.early.iter().find(|(early, _)| early == path) {
            Some((_, fd)) => fd.try_clone(),
            None => Ok(mount::open_path(path)?),
        }
    }

    fn root(&self) -> Result<&Root, Failure> {
        self.root.as_ref().ok_or_else(|| Failure {
            kind: FailureKind::Setup,
            errno: libc::EINVAL,
            chain: vec!["using the rootfs before it is mounted".to_owned()],
        })
    }
}

fn prepare(init: &mut Init<'_>) -> Result<State, Failure> {
    // Modes are given whole.
    rustix::process::umask(Mode::empty());
    let namespaces = &init.plan.namespaces;
    namespace::unshare(namespaces.unshare).doing(|| "creating namespaces".to_owned())?;
    if init.wait {
        init.channel.wait_for(GO)?;
    }
    if namespaces.cgroup {
        let flag = libc::CLONE_NEWCGROUP as u64;
        namespace::unshare(flag).doing(|| "creating a cgroup namespace".to_owned())?;
    }
    let mut state = State { early: Vec::new(), root: None, slave: None, null: None, empty: None };
    for op in &init.plan.ops {
        carry_out(op, &mut state, init)?;
    }
    Ok(state)
}

fn carry_out(op: &Op, state: &mut State, init: &Init<'_>) -> Result<(), Failure> {
    match op {
        Op::OomScore { value, best_effort } => {
            match std::fs::write("/proc/self/oom_score_adj", value.to_string()) {
                Err(error) if *best_effort && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                other => other.doing(|| format!("setting the OOM score to {value}")),
            }
        }
        Op::Hide => process::set_undumpable().doing(|| "hiding the init".to_owned()),
        Op::OpenEarly(paths) => paths.iter().try_for_each(|path| {
            // What is missing is told by the step that needs it, and by its name.
            if let Ok(fd) = mount::open_path(path) {
                state.early.push((path.clone(), fd));
            }
            Ok(())
        }),
        Op::BecomeRoot => userns::become_root().doing(|| "becoming root of the user namespace".to_owned()),
        Op::Time(offsets) => {
            namespace::unshare_time(offsets).doing(|| "creating a time namespace".to_owned())
        }
        Op::Loopback => namespace::loopback_up().doing(|| "bringing lo up".to_owned()),
        Op::Hostname(name) => {
            rustix::system::sethostname(name.as_bytes()).doing(|| format!("setting the host name \"{name}\""))
        }
        Op::Domainname(name) => {
            ids::set_domainname(name.as_bytes()).doing(|| format!("setting the domain name \"{name}\""))
        }
        Op::Propagation(propagation) => mount::change_propagation(Path::new("/"), *propagation)
            .doing(|| "cutting off the host's mounts".to_owned()),
        Op::Rootfs { rootfs, attributes } => {
            state.root = Some(mount_rootfs(rootfs, *attributes, state)?);
            Ok(())
        }
        Op::Mount(op) => carry_out_mount(op, state),
        Op::Node(node) => {
            make_node(node, state.root()?).doing(|| format!("making device \"{}\"", node.path.display()))
        }
        Op::BindNode(node) => bind_node(node, state.root()?)
            .doing(|| format!("binding the host's device \"{}\"", node.path.display())),
        Op::Symlink { path, target } => {
            symlink(path, target, state.root()?).doing(|| format!("linking \"{}\"", path.display()))
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
        Op::Pivot { no_pivot } => {
            let root = state.root()?;
            let result = if *no_pivot { mount::move_over_root(root) } else { mount::pivot(root) };
            result.doing(|| "making the rootfs the root".to_owned())
        }
        Op::RootPropagation(propagation) => mount::change_propagation(Path::new("/"), *propagation)
            .doing(|| "setting the propagation of the rootfs".to_owned()),
    }
}

fn mount_rootfs(rootfs: &Rootfs, attributes: u64, state: &State) -> Result<Root, Failure> {
    let (place, overlay) = match rootfs {
        Rootfs::Dir(path) => (path, None),
        Rootfs::Overlay { lower, upper, work, volatile, userxattr } => {
            let overlay = Overlay {
                lower: lower.clone(),
                upper: upper.clone(),
                work: work.clone(),
                volatile: *volatile,
                userxattr: *userxattr,
            };
            // Any directory would do to attach it to; this one surely exists.
            (upper, Some(overlay))
        }
    };
    let action = || format!("mounting the rootfs \"{}\"", place.display());
    let target = state.host_path(place).doing(action)?;
    match overlay {
        Some(overlay) => mount::overlay(&overlay, attributes, &target).map_err(|error| {
            // ENOENT: a layer whose tree is not for overlayfs.
            let refused = [libc::ENODEV, libc::EINVAL, libc::EPERM, libc::EOPNOTSUPP, libc::ENOENT];
            let kind = match error.raw_os_error() {
                Some(errno) if refused.contains(&errno) => FailureKind::NoOverlay,
                _ => FailureKind::Setup,
            };
            Failure::new(kind, action(), &error)
        })?,
        None => {
            let attributes = Attributes { set: attributes, clear: 0 };
            let options = BindOptions { recursive: true, attributes, ..Default::default() };
            if let Some(mounted) = mount::bind(&target, &target, options).doing(action)? {
                return Ok(Root::from_fd(mounted));
            }
        }
    }
    // Opened again: the old descriptor is below the mount.
    Root::open(place).doing(action)
}

fn carry_out_mount(op: &MountOp, state: &State) -> Result<(), Failure> {
    let root = state.root()?;
    let target = op.target.display();
    match &op.kind {
        MountKind::Bind { source, recursive, copy_up } => {
            let action = || format!("binding \"{}\" to \"{target}\"", source.display());
            let from = state.host_path(source).doing(action)?;
            let kind = FileType::from_raw_mode(rustix::fs::fstat(&from).doing(action)?.st_mode);
            let to = if kind == FileType::Directory {
                root.create_dir_all(&op.target, 0o755)
            } else {
                root.create_file(&op.target, 0o644)
            };
            let to = to.doing(action)?;
            check_not_over_proc(op, root, &to, Some(&from)).doing(action)?;
            if *copy_up && kind == FileType::Directory {
                let action = || format!("filling the volume at \"{target}\" from the image");
                copy::fill(&to, &from).doing(action)?;
            }
            bind(&from, to, *recursive, op).doing(action)
        }
        MountKind::Filesystem { filesystem, fallback, copy_up } => {
            let name = &filesystem.fstype;
            mount_filesystem(filesystem, fallback.as_deref(), *copy_up, op, root)
                .doing(|| format!("mounting \"{name}\" at \"{target}\""))
        }
        MountKind::Remount => (|| {
            let mounted = root.open_in(&op.target, OFlags::PATH, 0)?;
            finish_mount(&mounted, op)
        })()
        .doing(|| format!("remounting \"{target}\"")),
    }
}

/// Files of a proc file system that may be covered: what lxcfs and checkpointing replace, and what
/// no protection rests on.
const COVERABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// Refuses a mount over the container's proc or a part of it: an image's volume or a link could
/// else take its place and with it what masks and labels rely on (CVE-2019-16884, CVE-2023-28642).
/// The kernel is asked what stands there, so the path's spelling is of no matter.
fn check_not_over_proc(op: &MountOp, root: &Root, to: &OwnedFd, from: Option<&OwnedFd>) -> io::Result<()> {
    let is_proc = |fd: &OwnedFd| Ok::<_, io::Error>(rustix::fs::fstatfs(fd)?.f_type as u64 == PROC_MAGIC);
    if !is_proc(to)? || from.map_or(Ok(false), is_proc)? {
        return Ok(());
    }
    let plain = op.target.strip_prefix("/").unwrap_or(&op.target);
    let coverable = COVERABLE.iter().any(|path| op.target == Path::new(path));
    if coverable && root.open_strict(plain, OFlags::PATH, 0).is_ok() {
        return Ok(());
    }
    Err(io::Error::other("nothing may be mounted over the container's proc"))
}

fn bind(from: &OwnedFd, to: OwnedFd, recursive: bool, op: &MountOp) -> io::Result<()> {
    let options =
        BindOptions { recursive, attributes: op.attributes, recursive_attributes: op.recursive_attributes };
    match mount::bind(from, &to, options)? {
        Some(mounted) => set_propagation(&mounted, op),
        None => set_propagation(&to, op),
    }
}

fn finish_mount(mounted: impl AsFd, op: &MountOp) -> io::Result<()> {
    if !op.recursive_attributes.is_empty() {
        mount::change_attributes(&mounted, op.recursive_attributes, true)?;
    }
    if !op.attributes.is_empty() {
        mount::change_attributes(&mounted, op.attributes, false)?;
    }
    set_propagation(&mounted, op)
}

fn set_propagation(mounted: impl AsFd, op: &MountOp) -> io::Result<()> {
    op.propagation.iter().try_for_each(|p| mount::change_propagation_fd(&mounted, *p))
}

fn mount_filesystem(
    filesystem: &Filesystem,
    fallback: Option<&Path>,
    copy_up: bool,
    op: &MountOp,
    root: &Root,
) -> io::Result<()> {
    if op.target == Path::new("/") {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let existing = root.open_in(&op.target, OFlags::PATH | OFlags::DIRECTORY, 0).ok();
    if matches!(filesystem.fstype.as_str(), "proc" | "sysfs") && existing.is_some() {
        // Later writes to /proc/sys and masks below it rely on the real thing being at that very
        // path, so a link is refused (CVE-2019-19921).
        let relative = op.target.strip_prefix("/").unwrap_or(&op.target);
        root.open_strict(relative, OFlags::PATH | OFlags::DIRECTORY, 0)?;
    }
    let target = match &existing {
        Some(directory) => directory.try_clone()?,
        None => root.create_dir_all(&op.target, 0o755)?,
    };
    let mut filesystem = filesystem.clone();
    let has_mode = filesystem.options.iter().any(|(key, _)| key == "mode");
    if filesystem.fstype == "tmpfs"
        && !has_mode
        && let Some(directory) = &existing
    {
        // A tmpfs over an image's directory looks like it.
        let mode = rustix::fs::fstat(directory)?.st_mode & 0o7777;
        filesystem.options.push(("mode".to_owned(), Some(format!("{mode:o}"))));
    }
    let late_ro = copy_up && filesystem.attributes.set & attr::RDONLY != 0;
    if late_ro {
        filesystem.attributes.set &= !attr::RDONLY;
    }
    if filesystem.fstype != "proc" {
        check_not_over_proc(op, root, &target, None)?;
    }
    match mount::filesystem(&filesystem, &target) {
        Ok(mounted) => {
            let mounted = match mounted {
                Some(mounted) => mounted,
                None => root.open_in(&op.target, OFlags::PATH | OFlags::DIRECTORY, 0)?,
            };
            if copy_up {
                copy::tree(&target, &mounted)?;
            }
            if late_ro || !op.recursive_attributes.is_empty() {
                return finish_mount(&mounted, op);
            }
            set_propagation(&mounted, op)
        }
        Err(error) => match fallback {
            Some(path) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBUSY)) => {
                bind(&mount::open_path(path)?, target, true, op)
            }
            _ => Err(error),
        },
    }
}

fn make_node(node: &Node, root: &Root) -> io::Result<()> {
    let (parent, name) = place(&node.path, root)?;
    let kind = match node.kind {
        NodeKind::Char => FileType::CharacterDevice,
        NodeKind::Block => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
    };
    let device = rustix::fs::makedev(node.major, node.minor);
    match rustix::fs::mknodat(&parent, name, kind, Mode::from_raw_mode(node.mode), device) {
        Err(rustix::io::Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let there = rustix::fs::openat(&parent, name, flags, Mode::empty())?;
            return check_node(node, &there);
        }
        // Root of a user namespace that somebody else made: devices are not for it to make.
        Err(rustix::io::Errno::PERM) => return bind_node(node, root),
        other => other?,
    }
    if (node.uid, node.gid) != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(node.uid), rustix::fs::Gid::from_raw(node.gid));
        rustix::fs::chownat(&parent, name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
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

fn bind_node(node: &Node, root: &Root) -> io::Result<()> {
    let host = mount::open_path(&node.path)?;
    check_node(node, &host)?;
    let target = root.create_file(&node.path, 0o666)?;
    mount::bind(&host, &target, BindOptions::default())?;
    Ok(())
}

fn symlink(path: &Path, target: &str, root: &Root) -> io::Result<()> {
    let (parent, name) = place(path, root)?;
    match rustix::fs::symlinkat(target, &parent, name) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn place<'a>(path: &'a Path, root: &Root) -> io::Result<(OwnedFd, &'a std::ffi::OsStr)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Ok((root.create_dir_all(parent, 0o755)?, name))
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

const PROC_MAGIC: u64 = 0x9fa0;

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
