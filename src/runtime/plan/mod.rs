//! From a spec to a plan, in pure code: what the init will do is a list of operations, decided
//! before anything is forked. What cannot be carried out faithfully is refused here.

mod mounts;
mod process;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Spec};

use super::{CreateRequest, Rootfs};
use crate::base::idmap::{IdMapping, IdRange};
use crate::sys::mount::{Attributes, Propagation, PropagationKind};
use crate::sys::namespace::CLONE_NEWTIME;
use crate::sys::seccomp::Filter;

pub use mounts::{MountKind, MountOp};
pub(super) use process::plan_process;
pub use process::{Limit, Privileges, ProcessPlan, UserChoice};

/// The spec asks for what is wrong or not supported.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A field that this runtime does not support.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// A field that is missing or makes no sense.
    #[error("{0}")]
    Invalid(String),
}

pub(super) fn unsupported(what: impl Into<String>) -> PlanError {
    PlanError::Unsupported(what.into())
}

pub(super) fn invalid(what: impl Into<String>) -> PlanError {
    PlanError::Invalid(what.into())
}

/// How the init comes into its namespaces.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct NamespacePlan {
    /// Existing ones to join before the init is cloned, the user namespace first.
    pub join: Vec<(u64, PathBuf)>,
    /// New ones of the clone itself: user and pid.
    pub clone: u64,
    /// New ones that the init makes while its ids are being mapped.
    pub unshare: u64,
    /// The cgroup namespace is made once the init is in its cgroup, which is its root then.
    pub cgroup: bool,
    /// A new time namespace, with its offsets as the kernel reads them.
    pub time: Option<String>,
}

/// One step of the init; each is one or a few system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Write `/proc/self/oom_score_adj`; first, because it is root's once the process is hidden.
    OomScore {
        /// -1000 to 1000.
        value: i32,
        /// Lowering it takes a privilege that a user namespace cannot give.
        best_effort: bool,
    },
    /// Become undumpable (CVE-2019-5736).
    Hide,
    /// Open these paths of the host, for the steps that name them.
    OpenEarly(Vec<PathBuf>),
    /// Become root of the user namespace.
    BecomeRoot,
    /// Enter the new time namespace.
    Time(String),
    /// Bring `lo` up.
    Loopback,
    /// Set the host name.
    Hostname(String),
    /// Set the NIS domain name.
    Domainname(String),
    /// Cut the host's mounts off.
    Propagation(Propagation),
    /// Mount the rootfs.
    Rootfs {
        /// What.
        rootfs: Rootfs,
        /// Its mount's attributes.
        attributes: u64,
    },
    /// Mount something in the rootfs.
    Mount(MountOp),
    /// Make a device node.
    Node(Node),
    /// Bind the host's device node, after a check that it is the one that is meant.
    BindNode(Node),
    /// Make a symbolic link unless something is there.
    Symlink {
        /// Where.
        path: PathBuf,
        /// To what.
        target: String,
    },
    /// Open a terminal in the container's devpts, hand out its master, bind it to `/dev/console`.
    Terminal {
        /// Rows and columns.
        size: Option<(u16, u16)>,
        /// Bind it to `/dev/console`.
        console: bool,
    },
    /// Let the parent run prestart and createRuntime hooks.
    RuntimeHooks,
    /// Run createContainer hooks.
    ContainerHooks(Vec<Hook>),
    /// Write a file below `/proc/sys`.
    Sysctl {
        /// Relative to `/proc/sys`.
        path: PathBuf,
        /// What.
        value: String,
    },
    /// Hide a path behind nothing.
    Mask(PathBuf),
    /// Make a path read-only.
    ReadonlyPath(PathBuf),
    /// Make the root mount read-only.
    ReadonlyRoot,
    /// Make the rootfs `/`.
    Pivot {
        /// Move instead of pivoting.
        no_pivot: bool,
    },
    /// Set the propagation of `/`.
    RootPropagation(Propagation),
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// In the container; the same on the host.
    pub path: PathBuf,
    /// `c`, `b` or `p`.
    pub kind: NodeKind,
    /// Device number.
    pub major: u32,
    /// Device number.
    pub minor: u32,
    /// Permissions.
    pub mode: u32,
    /// Owner inside.
    pub uid: u32,
    /// Group inside.
    pub gid: u32,
}

/// Kinds of device nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// All that the init will do.
#[derive(Debug)]
pub struct InitPlan {
    /// Its namespaces.
    pub namespaces: NamespacePlan,
    /// The mapping of a new user namespace.
    pub mapping: Option<IdMapping>,
    /// Making the container, in order.
    pub ops: Vec<Op>,
    /// Making the process.
    pub process: ProcessPlan,
    /// Run by the init after the gate has opened.
    pub start_hooks: Vec<Hook>,
}

const DEFAULT_NODES: [(&str, u32, u32); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

const DEFAULT_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];

/// Plans a container.
pub fn plan(request: &CreateRequest, filter: Option<Filter>, terminal: bool) -> Result<InitPlan, PlanError> {
    let spec = &request.spec;
    refuse_unsupported(spec)?;
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux is missing"))?;
    let namespaces = plan_namespaces(linux)?;
    let mapping = plan_mapping(linux, namespaces.clone & libc::CLONE_NEWUSER as u64 != 0)?;
    let declared = declared_mapping(linux);
    let in_userns =
        mapping.is_some() || namespaces.join.iter().any(|(kind, _)| *kind == libc::CLONE_NEWUSER as u64);
    let context = mounts::Context {
        bundle: &request.bundle,
        // Of a joined user namespace the mapping is only known if the caller repeats it.
        mapping: declared.as_ref().filter(|_| in_userns),
        own_pid: namespaces.clone & libc::CLONE_NEWPID as u64 != 0,
        own_cgroup: namespaces.cgroup,
    };
    let process = spec.process().as_ref().ok_or_else(|| invalid("process is missing"))?;

    let mut ops = Vec::with_capacity(64);
    if let Some(value) = process.oom_score_adj() {
        if !(-1000..=1000).contains(&value) {
            return Err(invalid(format!("process.oomScoreAdj {value} is not between -1000 and 1000")));
        }
        ops.push(Op::OomScore { value, best_effort: in_userns });
    }
    // Like the OOM score, the offsets are written to a file that is root's once the process is hidden.
    if let Some(offsets) = &namespaces.time {
        ops.push(Op::Time(offsets.clone()));
    }
    ops.push(Op::Hide);
    let attachments = mounts::plan_mounts(spec.mounts().as_deref().unwrap_or_default(), &context)?;
    // Root inside is somebody else than the caller, to whom the caller's directories may be closed.
    let stranger =
        |mapping: &IdMapping| IdMapping::to_host(&mapping.uids, 0).is_some_and(|id| id != request.caller);
    if mapping.as_ref().is_some_and(stranger) {
        let rootfs = match &request.rootfs {
            Rootfs::Dir(path) => Some(path.clone()),
            Rootfs::Overlay { .. } => None,
        };
        let sources = attachments.iter().filter_map(|mount| match &mount.kind {
            MountKind::Bind { source, .. } => Some(source.clone()),
            _ => None,
        });
        ops.push(Op::OpenEarly(rootfs.into_iter().chain(sources).collect()));
    }
    if in_userns {
        ops.push(Op::BecomeRoot);
    }
    plan_identity(spec, &namespaces, &mut ops)?;
    plan_rootfs(request, linux, &attachments, &mut ops)?;
    let own_dev = !attachments.iter().any(|m| m.target == Path::new("/dev") && m.is_bind());
    ops.extend(attachments.into_iter().map(Op::Mount));
    plan_devices(linux, in_userns, own_dev, &mut ops)?;
    if terminal {
        let size = process.console_size().map(|size| (size.height() as u16, size.width() as u16));
        ops.push(Op::Terminal { size, console: own_dev });
    }
    let hooks = spec.hooks().as_ref();
    let of = |list: Option<&Option<Vec<Hook>>>| list.and_then(Clone::clone).unwrap_or_default();
    #[allow(deprecated)]
    let before = of(hooks.map(|h| h.prestart())).len() + of(hooks.map(|h| h.create_runtime())).len();
    if before > 0 {
        ops.push(Op::RuntimeHooks);
    }
    let container_hooks = of(hooks.map(|h| h.create_container()));
    if !container_hooks.is_empty() {
        ops.push(Op::ContainerHooks(container_hooks));
    }
    plan_sysctls(linux, &namespaces, &mut ops)?;
    plan_hidden_paths(linux, &mut ops)?;
    if spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false) {
        ops.push(Op::ReadonlyRoot);
    }
    ops.push(Op::Pivot { no_pivot: request.no_pivot });
    if let Some(text) = linux.rootfs_propagation().as_deref().filter(|t| !t.is_empty()) {
        let (kind, recursive) = propagation_word(text)
            .ok_or_else(|| invalid(format!("linux.rootfsPropagation \"{text}\" is unknown")))?;
        if matches!(kind, PropagationKind::Shared | PropagationKind::Unbindable) {
            ops.push(Op::RootPropagation(Propagation { kind, recursive }));
        }
    }
    let mut process = plan_process(process, filter, request.user_by_name.clone())?;
    process.init = request.init;
    process.create_cwd = request.create_cwd;
    process.preserve_fds = request.preserve_fds;
    process.new_keyring = !request.no_new_keyring;
    process.clamp_limits = request.clamp_limits;
    process.persona = plan_persona(linux)?;
    let start_hooks = of(hooks.map(|h| h.start_container()));
    Ok(InitPlan { namespaces, mapping, ops, process, start_hooks })
}

fn refuse_unsupported(spec: &Spec) -> Result<(), PlanError> {
    let linux = spec.linux().as_ref();
    let is = |present: bool, name: &str| if present { Err(unsupported(name)) } else { Ok(()) };
    is(spec.vm().is_some(), "vm")?;
    is(spec.windows().is_some(), "windows")?;
    is(spec.solaris().is_some(), "solaris")?;
    is(spec.zos().is_some(), "zos")?;
    is(linux.is_some_and(|l| l.intel_rdt().is_some()), "linux.intelRdt")?;
    is(linux.is_some_and(|l| l.memory_policy().is_some()), "linux.memoryPolicy")?;
    let net_devices = linux.and_then(|l| l.net_devices().as_ref()).is_some_and(|d| !d.is_empty());
    is(net_devices, "linux.netDevices")?;
    let label = linux.and_then(|l| l.mount_label().as_deref()).is_some_and(|l| !l.is_empty());
    is(label, "linux.mountLabel (SELinux)")
}

fn plan_namespaces(linux: &Linux) -> Result<NamespacePlan, PlanError> {
    let mut plan = NamespacePlan::default();
    let mut seen = 0;
    let mut new = 0;
    for namespace in linux.namespaces().as_deref().unwrap_or_default() {
        let kind = match namespace.typ() {
            LinuxNamespaceType::User => libc::CLONE_NEWUSER as u64,
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS as u64,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID as u64,
            LinuxNamespaceType::Network => libc::CLONE_NEWNET as u64,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC as u64,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS as u64,
            LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP as u64,
            LinuxNamespaceType::Time => CLONE_NEWTIME,
        };
        if seen & kind != 0 {
            return Err(invalid(format!("linux.namespaces has {} twice", namespace.typ())));
        }
        seen |= kind;
        match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            None => new |= kind,
            Some(path) if !path.is_absolute() => {
                return Err(invalid(format!("namespace path \"{}\" is not absolute", path.display())));
            }
            Some(_) if kind == libc::CLONE_NEWNS as u64 => {
                return Err(unsupported("joining an existing mount namespace"));
            }
            Some(path) => plan.join.push((kind, path.clone())),
        }
    }
    if new & libc::CLONE_NEWNS as u64 == 0 {
        return Err(unsupported("a container without a mount namespace of its own"));
    }
    // Joining the others takes capabilities that joining the user namespace gives.
    plan.join.sort_by_key(|(kind, _)| *kind != libc::CLONE_NEWUSER as u64);
    let at_clone = (libc::CLONE_NEWUSER | libc::CLONE_NEWPID) as u64;
    plan.clone = new & at_clone;
    plan.cgroup = new & libc::CLONE_NEWCGROUP as u64 != 0;
    plan.unshare = new & !(at_clone | libc::CLONE_NEWCGROUP as u64 | CLONE_NEWTIME);
    let offsets = time_offsets(linux.time_offsets().as_ref())?;
    if new & CLONE_NEWTIME != 0 {
        plan.time = Some(offsets);
    } else if !offsets.is_empty() {
        return Err(invalid("linux.timeOffsets needs a new time namespace"));
    }
    Ok(plan)
}

fn time_offsets(
    offsets: Option<&HashMap<String, oci_spec::runtime::LinuxTimeOffset>>,
) -> Result<String, PlanError> {
    let mut lines = Vec::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(invalid(format!("linux.timeOffsets: the clock \"{clock}\" cannot be offset")));
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        lines.push(format!("{clock} {seconds} {nanoseconds}\n"));
    }
    lines.sort();
    Ok(lines.concat())
}

/// What the spec says of ids, whether they are to be mapped or are already.
fn declared_mapping(linux: &Linux) -> Option<IdMapping> {
    let ranges = |list: &Option<Vec<oci_spec::runtime::LinuxIdMapping>>| -> Vec<IdRange> {
        let list = list.as_deref().unwrap_or_default().iter();
        list.map(|m| IdRange { container: m.container_id(), host: m.host_id(), size: m.size() }).collect()
    };
    let mapping = IdMapping { uids: ranges(linux.uid_mappings()), gids: ranges(linux.gid_mappings()) };
    (mapping != IdMapping::default()).then_some(mapping)
}

fn plan_mapping(linux: &Linux, new: bool) -> Result<Option<IdMapping>, PlanError> {
    let mapping = declared_mapping(linux).unwrap_or_default();
    match (new, mapping.uids.is_empty() && mapping.gids.is_empty()) {
        (false, true) => Ok(None),
        // A joined user namespace is mapped already; callers repeat the mapping for information.
        (false, false)
            if linux.namespaces().iter().flatten().any(|n| n.typ() == LinuxNamespaceType::User) =>
        {
            Ok(None)
        }
        (false, false) => Err(invalid("linux.uidMappings without a user namespace")),
        (true, _) if mapping.uids.is_empty() || mapping.gids.is_empty() => {
            Err(invalid("a new user namespace needs linux.uidMappings and linux.gidMappings"))
        }
        (true, _) => Ok(Some(mapping)),
    }
}

fn plan_identity(spec: &Spec, namespaces: &NamespacePlan, ops: &mut Vec<Op>) -> Result<(), PlanError> {
    if namespaces.unshare & libc::CLONE_NEWNET as u64 != 0 {
        ops.push(Op::Loopback);
    }
    let own_uts = namespaces.unshare & libc::CLONE_NEWUTS as u64 != 0
        || namespaces.join.iter().any(|(kind, _)| *kind == libc::CLONE_NEWUTS as u64);
    let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    for (name, field) in [(named(spec.hostname()), "hostname"), (named(spec.domainname()), "domainname")] {
        let Some(name) = name else { continue };
        if !own_uts {
            // It would rename the host.
            return Err(invalid(format!("{field} needs a UTS namespace of the container's own")));
        }
        ops.push(if field == "hostname" { Op::Hostname(name) } else { Op::Domainname(name) });
    }
    Ok(())
}

fn plan_rootfs(
    request: &CreateRequest,
    linux: &Linux,
    mounts: &[MountOp],
    ops: &mut Vec<Op>,
) -> Result<(), PlanError> {
    let asked = linux.rootfs_propagation().as_deref().and_then(propagation_word);
    let kind = match asked {
        Some((PropagationKind::Private, _)) => PropagationKind::Private,
        // Slave: volumes that the host mounts later can still be seen in binds that ask for it, and
        // nothing goes out.
        _ => PropagationKind::Slave,
    };
    ops.push(Op::Propagation(Propagation { kind, recursive: true }));
    let rootfs = match &request.rootfs {
        Rootfs::Dir(path) => Rootfs::Dir(request.bundle.join(path)),
        overlay @ Rootfs::Overlay { lower, .. } => {
            if lower.is_empty() {
                return Err(invalid("an overlay rootfs needs at least one layer"));
            }
            overlay.clone()
        }
    };
    // With a /dev of its own, nodes in the image's layers are of no use but to an attacker.
    let own_dev = mounts.iter().any(|m| m.target == Path::new("/dev"));
    let nodev = own_dev && matches!(rootfs, Rootfs::Overlay { .. });
    let attributes = if nodev { crate::sys::mount::attr::NODEV } else { 0 };
    ops.push(Op::Rootfs { rootfs, attributes });
    Ok(())
}

fn plan_devices(linux: &Linux, in_userns: bool, own_dev: bool, ops: &mut Vec<Op>) -> Result<(), PlanError> {
    let asked: Vec<Node> =
        linux.devices().as_deref().unwrap_or_default().iter().map(node).collect::<Result<_, _>>()?;
    let default = DEFAULT_NODES.iter().map(|(path, major, minor)| Node {
        path: path.into(),
        kind: NodeKind::Char,
        major: *major,
        minor: *minor,
        mode: 0o666,
        uid: 0,
        gid: 0,
    });
    let mut nodes: Vec<Node> = Vec::new();
    if own_dev {
        nodes.extend(default.filter(|node| !asked.iter().any(|a| a.path == node.path)));
    }
    nodes.extend(asked);
    for node in nodes {
        // A user namespace may make no devices, but pipes.
        let bind = in_userns && node.kind != NodeKind::Fifo;
        ops.push(if bind { Op::BindNode(node) } else { Op::Node(node) });
    }
    if own_dev {
        let links = DEFAULT_LINKS.iter();
        ops.extend(links.map(|(path, target)| Op::Symlink { path: path.into(), target: (*target).into() }));
    }
    Ok(())
}

fn node(device: &LinuxDevice) -> Result<Node, PlanError> {
    let path = device.path().clone();
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => NodeKind::Char,
        LinuxDeviceType::B => NodeKind::Block,
        LinuxDeviceType::P => NodeKind::Fifo,
        LinuxDeviceType::A => return Err(invalid(format!("device \"{}\" of type a", path.display()))),
    };
    let number = |n: i64| {
        u32::try_from(n).map_err(|_| invalid(format!("device number {n} of \"{}\"", path.display())))
    };
    if !path.is_absolute() {
        return Err(invalid(format!("device path \"{}\" is not absolute", path.display())));
    }
    Ok(Node {
        kind,
        major: number(device.major())?,
        minor: number(device.minor())?,
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
        path,
    })
}

fn plan_sysctls(linux: &Linux, namespaces: &NamespacePlan, ops: &mut Vec<Op>) -> Result<(), PlanError> {
    let own = |kind: libc::c_int| {
        namespaces.unshare & kind as u64 != 0 || namespaces.join.iter().any(|(k, _)| *k == kind as u64)
    };
    let mut sysctls: Vec<(&String, &String)> = linux.sysctl().iter().flatten().collect();
    sysctls.sort();
    for (key, value) in sysctls {
        let path = sysctl_path(key).ok_or_else(|| invalid(format!("\"{key}\" is no name of a sysctl")))?;
        let text = path.to_string_lossy().into_owned();
        const IPC: [&str; 8] =
            ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
        let ipc = text.starts_with("fs/mqueue/")
            || text.strip_prefix("kernel/").is_some_and(|name| IPC.contains(&name));
        let separate = match () {
            () if ipc => own(libc::CLONE_NEWIPC),
            () if text.starts_with("net/") => own(libc::CLONE_NEWNET),
            () if matches!(text.as_str(), "kernel/domainname" | "kernel/hostname") => own(libc::CLONE_NEWUTS),
            () => false,
        };
        if !separate {
            return Err(invalid(format!("sysctl \"{key}\" is not in a namespace of the container's own")));
        }
        ops.push(Op::Sysctl { path, value: value.clone() });
    }
    Ok(())
}

/// sysctl(8)'s rule: what comes first, `.` or `/`, separates; the other one stands for itself.
fn sysctl_path(key: &str) -> Option<PathBuf> {
    let text = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    };
    let normal = text.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    normal.then(|| PathBuf::from(text))
}

fn plan_hidden_paths(linux: &Linux, ops: &mut Vec<Op>) -> Result<(), PlanError> {
    let list = |paths: &Option<Vec<String>>| paths.clone().unwrap_or_default();
    let absolute = |path: &String| {
        if path.starts_with('/') {
            Ok(PathBuf::from(path))
        } else {
            Err(invalid(format!("path \"{path}\" is not absolute")))
        }
    };
    for path in &list(linux.readonly_paths()) {
        ops.push(Op::ReadonlyPath(absolute(path)?));
    }
    for path in &list(linux.masked_paths()) {
        ops.push(Op::Mask(absolute(path)?));
    }
    Ok(())
}

fn plan_persona(linux: &Linux) -> Result<Option<u64>, PlanError> {
    let Some(personality) = linux.personality() else { return Ok(None) };
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(unsupported("linux.personality.flags"));
    }
    Ok(Some(match personality.domain() {
        oci_spec::runtime::LinuxPersonalityDomain::PerLinux => 0,
        oci_spec::runtime::LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// A word for a propagation, as in mount options and `rootfsPropagation`.
pub(super) fn propagation_word(word: &str) -> Option<(PropagationKind, bool)> {
    let (kind, recursive) = match word.strip_prefix('r') {
        Some(kind) => (kind, true),
        None => (word, false),
    };
    let kind = match kind {
        "shared" => PropagationKind::Shared,
        "slave" => PropagationKind::Slave,
        "private" => PropagationKind::Private,
        "unbindable" => PropagationKind::Unbindable,
        _ => return None,
    };
    Some((kind, recursive))
}

/// No change of attributes.
pub const UNCHANGED: Attributes = Attributes { set: 0, clear: 0 };

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "hostname": "h",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "oomScoreAdj": 5},
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [
                {"destination": "/proc", "type": "proc"},
                {"destination": "/dev", "type": "tmpfs"},
                {"destination": "/v", "type": "bind", "source": "/host", "options": ["rbind", "ro"]},
            ],
            "linux": {
                "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "network"}, {"type": "uts"}],
                "sysctl": {"net.ipv4.conf.eth0/1.forwarding": "1"},
                "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
                "maskedPaths": ["/proc/kcore"],
                "readonlyPaths": ["/proc/sys"],
            },
        })
    }

    fn of(config: Value) -> Result<InitPlan, PlanError> {
        let spec = serde_json::from_value(config).unwrap();
        let mut request = CreateRequest::new("id".into(), spec, "/b".into(), Rootfs::Dir("rootfs".into()));
        request.caller = 1000;
        plan(&request, None, false)
    }

    #[test]
    fn the_callers_paths_are_opened_by_the_caller() {
        let early = |host: u32| {
            let mut config = config();
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            for ids in ["uidMappings", "gidMappings"] {
                config["linux"][ids] = json!([{"containerID": 0, "hostID": host, "size": 10}]);
            }
            let ops = of(config).unwrap().ops;
            let root = ops.iter().position(|op| *op == Op::BecomeRoot).unwrap();
            ops.into_iter().take(root).find_map(|op| match op {
                Op::OpenEarly(paths) => Some(paths),
                _ => None,
            })
        };
        assert_eq!(early(1000), None);
        assert_eq!(early(100_000), Some(vec!["rootfs".into(), "/host".into()]));
    }

    fn in_userns(mut config: Value) -> Value {
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        config
    }

    /// The operations by name, equal neighbours once.
    fn names(plan: &InitPlan) -> String {
        let mut names: Vec<String> = plan
            .ops
            .iter()
            .map(|op| format!("{op:?}").chars().take_while(|c| c.is_alphanumeric()).collect())
            .collect();
        names.dedup();
        names.join(" ")
    }

    #[test]
    fn the_order_of_operations() {
        let plan = of(config()).unwrap();
        assert_eq!(
            names(&plan),
            "OomScore Hide Loopback Hostname Propagation Rootfs Mount Node Symlink Sysctl ReadonlyPath Mask \
             ReadonlyRoot Pivot"
        );
        let (pid, rest) = (libc::CLONE_NEWPID, libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS);
        assert_eq!((plan.namespaces.clone, plan.namespaces.unshare), (pid as u64, rest as u64));
        let sysctl = Op::Sysctl { path: "net/ipv4/conf/eth0.1/forwarding".into(), value: "1".into() };
        assert!(plan.ops.contains(&sysctl));
    }

    #[test]
    fn a_user_namespace_binds_devices() {
        let plan = of(in_userns(config())).unwrap();
        assert!(names(&plan).contains("Hide BecomeRoot Loopback"), "{}", names(&plan));
        assert!(names(&plan).contains("Mount BindNode Symlink"));
        assert_eq!(plan.ops.iter().filter(|op| matches!(op, Op::BindNode(_))).count(), 7);
        assert!(plan.mapping.is_some());
    }

    #[test]
    fn a_bound_dev_is_left_alone() {
        let mut config = config();
        config["mounts"][1] = json!({"destination": "/dev", "type": "bind", "source": "/dev"});
        let names = names(&of(config).unwrap());
        assert!(!names.contains("Symlink"), "{names}");
    }

    #[test]
    fn nonsense_is_refused() {
        let cases: [(&str, Value); 12] = [
            ("/process", Value::Null),
            ("/linux/namespaces", json!([{"type": "pid"}])),
            ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}])),
            ("/linux/namespaces", json!([{"type": "mount"}])),
            ("/linux/namespaces/1/path", json!("relative")),
            ("/linux/namespaces/0/path", json!("/proc/1/ns/mnt")),
            ("/linux/maskedPaths", json!(["relative"])),
            ("/linux/sysctl", json!({"kernel.panic": "1"})),
            ("/linux/sysctl", json!({"net/../kernel/panic": "1"})),
            ("/linux/rootfsPropagation", json!("odd")),
            ("/process/cwd", json!("relative")),
            ("/process/oomScoreAdj", json!(5000)),
        ];
        for (pointer, value) in cases {
            let mut config = config();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = config.pointer_mut(parent).unwrap();
            parent[key] = value;
            if parent[key].is_null() {
                parent.as_object_mut().unwrap().remove(key);
            }
            assert!(of(config).is_err(), "{pointer}");
        }
        let mut unmapped = in_userns(config());
        unmapped["linux"].as_object_mut().unwrap().remove("uidMappings");
        assert!(of(unmapped).is_err());
        let mut mapped = config();
        mapped["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        assert!(of(mapped).is_err());
    }
}
