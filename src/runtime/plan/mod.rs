//! From a spec to a plan, in pure code: what the init will do is a list of operations, decided
//! before anything is forked. What cannot be carried out faithfully is refused here.

mod devices;
mod kernel;
mod mounts;
pub use mounts::named_mapping;
mod namespaces;
mod process;

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Hook, Linux, Spec};

use super::{CreateRequest, Overlay, OverlayDetails, Rootfs};
use crate::base::idmap::IdMapping;
use crate::base::report;
use crate::sys::mount::{Attributes, Propagation, PropagationKind};
use crate::sys::seccomp::Filter;

pub use devices::{Node, NodeKind};
pub use kernel::{CachePlan, MEMORY_FLAGS, MEMORY_MODES};
pub(super) use kernel::{plan_memory_policy, plan_persona};
pub use mounts::{Ids, Links, MountKind, MountOp, known_options};
pub use namespaces::{own_among, own_kinds, to_begin};
pub use process::{Affinity, Labels, Limit, Privileges, ProcessPlan, Scheduling, UserChoice};
pub(super) use process::{plan_affinity, plan_process};

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
    PlanError::Unsupported(report::plain(&what.into()))
}

pub(super) fn invalid(what: impl Into<String>) -> PlanError {
    PlanError::Invalid(report::plain(&what.into()))
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
    /// There is no mount namespace: what is mounted is mounted in the maker's, on the rootfs.
    pub outside: bool,
}

impl NamespacePlan {
    /// Whether the container has a namespace of this kind that is not its maker's, new or joined.
    pub fn has(&self, kind: u64) -> bool {
        (self.clone | self.unshare) & kind != 0 || self.join.iter().any(|(joined, _)| *joined == kind)
    }
}

impl NamespacePlan {
    /// Takes kinds out that somebody else has made already.
    pub fn leave_out(&mut self, kinds: u64) {
        self.clone &= !kinds;
        self.unshare &= !kinds;
    }
}

impl InitPlan {
    /// Whether it can have a user namespace with this mapping and, in it, others of these kinds from who has begun them.
    pub fn takes(&self, mapping: &IdMapping, kinds: u64) -> bool {
        let plan = &self.namespaces;
        plan.join.is_empty() && plan.unshare & kinds == kinds && self.mapping.as_ref() == Some(mapping)
    }
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
    BecomeRoot {
        /// The supplementary groups stay.
        keep_groups: bool,
    },
    /// Enter the new time namespace.
    Time(String),
    /// Take memory from these nodes, set_mempolicy(2).
    MemoryPolicy {
        /// The mode with its flags.
        mode: u32,
        /// The nodes.
        nodes: Vec<u32>,
    },
    /// Let the parent move network devices in.
    NetDevices,
    /// Bring `lo` up.
    Loopback,
    /// Set the host name.
    Hostname(String),
    /// Set the NIS domain name.
    Domainname(String),
    /// Cut the host's mounts off.
    Propagation(Propagation),
    /// Keep what is mounted on the rootfs from the peers of the mount around it.
    SurroundingPrivate(PathBuf),
    /// Mount the rootfs.
    Rootfs {
        /// What.
        rootfs: Rootfs,
        /// Its mount's attributes.
        attributes: u64,
        /// As [`CreateRequest::rootfs_ids`]: it is mounted by the init's maker then.
        ids: Option<IdMapping>,
    },
    /// Mount something in the rootfs.
    Mount(MountOp),
    /// Make a device node.
    Node(Node),
    /// Attach a device node that the init's maker made, because the init's root may make none.
    MadeNode {
        /// The node.
        node: Node,
        /// Who it belongs to outside.
        owner: (u32, u32),
    },
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
    /// Make the working directory while the rootfs can be written.
    WorkingDirectory(PathBuf),
    /// Make the root mount read-only.
    ReadonlyRoot,
    /// Take the rootfs that the init's maker mounted where it lies.
    OutsideRootfs(PathBuf),
    /// Make the rootfs the `/` of the init alone.
    Chroot,
    /// Make the rootfs `/`.
    Pivot {
        /// Move instead of pivoting.
        no_pivot: bool,
        /// Mounts may have peers outside.
        shared: bool,
    },
    /// Set the propagation of `/`.
    RootPropagation(Propagation),
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
    /// Network devices of the host that are moved in, with their new names.
    pub net_devices: Vec<(String, String)>,
    /// Cache and memory bandwidth.
    pub cache: Option<CachePlan>,
}

/// What a plan depends on beside the request.
#[derive(Debug, Default, Clone)]
pub struct Inputs {
    /// The compiled seccomp profile.
    pub filter: Option<Filter>,
    /// The program gets a terminal.
    pub terminal: bool,
    /// The caller is the machine's root.
    pub root: bool,
}

/// Plans a container.
pub fn plan(request: &CreateRequest, inputs: Inputs) -> Result<InitPlan, PlanError> {
    let spec = &request.spec;
    refuse_unsupported(spec)?;
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux: it is missing"))?;
    let namespaces = namespaces::plan_namespaces(linux)?;
    let mapping = namespaces::plan_mapping(linux, namespaces.clone & libc::CLONE_NEWUSER as u64 != 0)?;
    let declared = namespaces::declared_mapping(linux);
    let in_userns = namespaces.has(libc::CLONE_NEWUSER as u64);
    let process = plan_the_process(request, linux, inputs.filter)?;

    let mut ops = Vec::with_capacity(64);
    if let Some(value) = spec.process().as_ref().and_then(|p| p.oom_score_adj()) {
        if !(-1000..=1000).contains(&value) {
            return Err(invalid(format!("process.oomScoreAdj: {value} is not between -1000 and 1000")));
        }
        ops.push(Op::OomScore { value, best_effort: in_userns });
    }
    // Like the OOM score, the offsets are written to a file that is root's once the process is hidden.
    if let Some(offsets) = &namespaces.time {
        ops.push(Op::Time(offsets.clone()));
    }
    ops.push(Op::Hide);
    let context = mounts::Context {
        bundle: &request.bundle,
        // Of a joined user namespace the mapping is only known if the caller repeats it.
        mapping: declared.as_ref().filter(|_| in_userns),
        own_pid: namespaces.clone & libc::CLONE_NEWPID as u64 != 0,
        own_cgroup: namespaces.cgroup || namespaces.has(libc::CLONE_NEWCGROUP as u64),
        weak_init: in_userns && inputs.root,
        label: linux.mount_label().as_deref().filter(|label| !label.is_empty()),
        details: Some(&request.mount_details),
    };
    let attachments = mounts::plan_mounts(spec.mounts().as_deref().unwrap_or_default(), &context)?;
    // Root inside is somebody else than the caller, to whom the caller's directories may be closed.
    let stranger =
        |mapping: &IdMapping| IdMapping::to_host(&mapping.uids, 0).is_some_and(|id| id != request.caller);
    if mapping.as_ref().is_some_and(stranger) {
        let rootfs = match &request.rootfs {
            Rootfs::Dir(path) => Some(path.clone()),
            Rootfs::Overlay(overlay) => request.rootfs_ids.as_ref().map(|_| overlay.upper.clone()),
        };
        let late = attachments.iter().filter(|mount| !mount.is_early());
        let sources = late.flat_map(|mount| match (&mount.kind, &mount.details().overlay) {
            (_, Some(OverlayDetails { overlay, .. })) => {
                let upper = [overlay.upper.clone(), overlay.work.clone()];
                overlay.lower.iter().cloned().chain(upper).collect()
            }
            (MountKind::Bind { source, .. }, None) => vec![source.clone()],
            _ => Vec::new(),
        });
        ops.push(Op::OpenEarly(rootfs.into_iter().chain(sources).collect()));
    }
    if in_userns {
        ops.push(Op::BecomeRoot { keep_groups: process.keep_groups });
    }
    if let Some((mode, nodes)) = plan_memory_policy(linux.memory_policy().as_ref())? {
        ops.push(Op::MemoryPolicy { mode, nodes });
    }
    let net_devices = kernel::plan_net_devices(linux, &namespaces)?;
    if !net_devices.is_empty() {
        ops.push(Op::NetDevices);
    }
    plan_identity(spec, &namespaces, &mut ops)?;
    if namespaces.outside {
        ops.push(plan_outside(request, linux)?);
    } else {
        plan_rootfs(request, linux, &attachments, &mut ops)?;
    }
    let own_dev = !attachments.iter().any(|m| m.target == Path::new("/dev") && m.is_bind());
    ops.extend(attachments.into_iter().map(Op::Mount));
    let maker = context.mapping.filter(|_| inputs.root);
    devices::plan_devices(linux, devices::Means { in_userns, maker, own_dev }, &mut ops)?;
    if inputs.terminal {
        let size = spec.process().as_ref().and_then(|p| {
            let size = p.console_size();
            size.map(|size| (size.height() as u16, size.width() as u16))
        });
        ops.push(Op::Terminal { size, console: own_dev });
    }
    let start_hooks = plan_hooks(spec, &mut ops)?;
    kernel::plan_sysctls(linux, &namespaces, spec.hostname().as_deref(), &mut ops)?;
    kernel::plan_hidden_paths(linux, &mut ops)?;
    if spec.root().as_ref().and_then(|r| r.readonly()).unwrap_or(false) {
        if request.create_cwd && process.cwd != Path::new("/") {
            ops.push(Op::WorkingDirectory(process.cwd.clone()));
        }
        ops.push(Op::ReadonlyRoot);
    }
    let propagation = root_propagation(linux)?;
    let shared = propagation.is_some_and(|p| p.kind == PropagationKind::Shared);
    ops.push(match namespaces.outside {
        true => Op::Chroot,
        false => Op::Pivot { no_pivot: request.no_pivot, shared },
    });
    if let Some(propagation) = propagation
        && matches!(propagation.kind, PropagationKind::Shared | PropagationKind::Unbindable)
    {
        ops.push(Op::RootPropagation(propagation));
    }
    let cache = kernel::plan_cache(linux)?;
    Ok(InitPlan { namespaces, mapping, ops, process, start_hooks, net_devices, cache })
}

/// Plans mounts for a container that is there already.
pub(super) fn plan_more_mounts(
    spec: &Spec,
    mounts: &[oci_spec::runtime::Mount],
    bundle: &Path,
) -> Result<Vec<MountOp>, PlanError> {
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux: it is missing"))?;
    let namespaces = namespaces::plan_namespaces(linux)?;
    let declared = namespaces::declared_mapping(linux);
    let context = mounts::Context {
        bundle,
        mapping: declared.as_ref().filter(|_| namespaces.has(libc::CLONE_NEWUSER as u64)),
        own_pid: namespaces.clone & libc::CLONE_NEWPID as u64 != 0,
        own_cgroup: namespaces.cgroup,
        weak_init: false,
        label: linux.mount_label().as_deref().filter(|label| !label.is_empty()),
        details: None,
    };
    mounts::plan_mounts(mounts, &context)
}

fn plan_the_process(
    request: &CreateRequest,
    linux: &Linux,
    filter: Option<Filter>,
) -> Result<ProcessPlan, PlanError> {
    let mut process = match request.spec.process() {
        Some(process) => {
            plan_affinity(process)?;
            plan_process(process, filter, request.user_by_name.clone())?
        }
        None => process::no_process(),
    };
    process.init = request.init;
    process.create_cwd = request.create_cwd;
    process.preserve_fds = request.preserve_fds;
    process.preserve_list.clone_from(&request.preserve_list);
    process.groups_by_name.clone_from(&request.groups_by_name);
    process.listen_fds = request.listen_fds;
    process.new_keyring = !request.no_new_keyring;
    process.clamp_limits = request.clamp_limits;
    process.persona = plan_persona(linux.personality().as_ref())?;
    let keep = request.spec.annotations().as_ref().and_then(|all| all.get(KEEP_GROUPS));
    process.keep_groups = request.keep_groups || keep.is_some_and(|value| value == "1");
    Ok(process)
}

/// crun's annotation: the caller's supplementary groups stay. It may give access to what they own.
pub const KEEP_GROUPS: &str = "run.oci.keep_original_groups";

/// Plans the hooks of create; returns those of start.
fn plan_hooks(spec: &Spec, ops: &mut Vec<Op>) -> Result<Vec<Hook>, PlanError> {
    let Some(hooks) = spec.hooks() else { return Ok(Vec::new()) };
    #[allow(deprecated)]
    let prestart = hooks.prestart();
    let all = [
        ("prestart", prestart),
        ("createRuntime", hooks.create_runtime()),
        ("createContainer", hooks.create_container()),
        ("startContainer", hooks.start_container()),
        ("poststart", hooks.poststart()),
        ("poststop", hooks.poststop()),
    ];
    for (name, list) in all {
        for (index, hook) in list.iter().flatten().enumerate() {
            let field = |part: &str| format!("hooks.{name}[{index}].{part}");
            let path = hook.path();
            if !path.is_absolute() {
                return Err(invalid(format!("{}: \"{}\" is not absolute", field("path"), path.display())));
            }
            if let Some(timeout) = hook.timeout().filter(|timeout| *timeout <= 0) {
                return Err(invalid(format!("{}: {timeout} is not above 0", field("timeout"))));
            }
            for (part, list) in [("args", hook.args()), ("env", hook.env())] {
                if list.iter().flatten().any(|text| text.contains('\0')) {
                    return Err(invalid(format!("{}: there is a zero byte", field(part))));
                }
            }
        }
    }
    let is_some = |list: &Option<Vec<Hook>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if is_some(prestart) || is_some(hooks.create_runtime()) {
        ops.push(Op::RuntimeHooks);
    }
    if let Some(list) = hooks.create_container().clone().filter(|list| !list.is_empty()) {
        ops.push(Op::ContainerHooks(list));
    }
    Ok(hooks.start_container().clone().unwrap_or_default())
}

fn root_propagation(linux: &Linux) -> Result<Option<Propagation>, PlanError> {
    let Some(text) = linux.rootfs_propagation().as_deref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let (kind, recursive) = propagation_word(text)
        .ok_or_else(|| invalid(format!("linux.rootfsPropagation: \"{}\" is no propagation", text)))?;
    Ok(Some(Propagation { kind, recursive }))
}

fn refuse_unsupported(spec: &Spec) -> Result<(), PlanError> {
    let is = |present: bool, name: &str| if present { Err(unsupported(name)) } else { Ok(()) };
    is(spec.vm().is_some(), "vm")?;
    is(spec.windows().is_some(), "windows")?;
    is(spec.solaris().is_some(), "solaris")?;
    is(spec.zos().is_some(), "zos")
}

fn plan_identity(spec: &Spec, namespaces: &NamespacePlan, ops: &mut Vec<Op>) -> Result<(), PlanError> {
    if namespaces.unshare & libc::CLONE_NEWNET as u64 != 0 {
        ops.push(Op::Loopback);
    }
    let own_uts = namespaces.has(libc::CLONE_NEWUTS as u64);
    let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    for (name, field) in [(named(spec.hostname()), "hostname"), (named(spec.domainname()), "domainname")] {
        let Some(name) = name else { continue };
        if !own_uts {
            // It would rename the host.
            return Err(invalid(format!("{field}: linux.namespaces has no UTS namespace")));
        }
        // __NEW_UTS_LEN.
        if name.len() > 64 || name.contains('\0') {
            return Err(invalid(format!("{field}: \"{name}\" is longer than 64 bytes, or no name")));
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
    let asked = root_propagation(linux)?;
    let propagation = match asked {
        // What a bind mount with "rshared" mounts is to be seen outside, so its source's mount must
        // keep its peers.
        Some(shared @ Propagation { kind: PropagationKind::Shared, .. }) => shared,
        Some(Propagation { kind: PropagationKind::Private, .. }) => {
            Propagation { kind: PropagationKind::Private, recursive: true }
        }
        // Slave: volumes that the host mounts later can still be seen in binds that ask for it, and
        // nothing goes out.
        _ => Propagation { kind: PropagationKind::Slave, recursive: true },
    };
    ops.push(Op::Propagation(propagation));
    let rootfs = match &request.rootfs {
        Rootfs::Dir(path) => Rootfs::Dir(request.bundle.join(path)),
        overlay @ Rootfs::Overlay(Overlay { lower, .. }) => {
            if lower.is_empty() {
                return Err(invalid("root: an overlay needs at least one layer"));
            }
            overlay.clone()
        }
    };
    if propagation.kind == PropagationKind::Shared
        && let Rootfs::Dir(path) = &rootfs
    {
        ops.push(Op::SurroundingPrivate(path.clone()));
    }
    // With a /dev of its own, nodes in the image's layers are of no use but to an attacker.
    let own_dev = mounts.iter().any(|m| m.target == Path::new("/dev"));
    let nodev = own_dev && matches!(rootfs, Rootfs::Overlay(_));
    let attributes = if nodev { crate::sys::mount::attr::NODEV } else { 0 };
    ops.push(Op::Rootfs { rootfs, attributes, ids: request.rootfs_ids.clone() });
    Ok(())
}

/// Without a mount namespace the rootfs is mounted onto itself by the init's maker, who unmounts it with
/// all that is mounted on it when the container is deleted.
fn plan_outside(request: &CreateRequest, linux: &Linux) -> Result<Op, PlanError> {
    if linux.rootfs_propagation().as_ref().is_some_and(|word| !word.is_empty()) {
        return Err(invalid("linux.rootfsPropagation: linux.namespaces has no mount namespace"));
    }
    match &request.rootfs {
        Rootfs::Dir(_) if request.rootfs_ids.is_some() => {
            Err(invalid("linux.namespaces: a rootfs with other ids needs a mount namespace"))
        }
        Rootfs::Dir(path) => Ok(Op::OutsideRootfs(request.bundle.join(path))),
        Rootfs::Overlay(_) => Err(invalid("linux.namespaces: an overlay needs a mount namespace")),
    }
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
        plan(&request, Inputs::default())
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
            let root = ops.iter().position(|op| matches!(op, Op::BecomeRoot { .. })).unwrap();
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
    fn roots_binds_into_a_user_namespace_are_opened_early() {
        let early = |root| {
            let spec = serde_json::from_value(in_userns(config())).unwrap();
            let request = CreateRequest::new("id".into(), spec, "/b".into(), Rootfs::Dir("rootfs".into()));
            let plan = plan(&request, Inputs { root, ..Inputs::default() }).unwrap();
            plan.ops
                .iter()
                .any(|op| matches!(op, Op::Mount(MountOp { kind: MountKind::Bind { early: true, .. }, .. })))
        };
        assert!(early(true) && !early(false));
    }

    #[test]
    fn a_shared_root_keeps_its_peers_but_for_the_rootfs() {
        let mut config = config();
        config["linux"]["rootfsPropagation"] = json!("rshared");
        let plan = of(config).unwrap();
        assert!(names(&plan).contains("Propagation SurroundingPrivate Rootfs"), "{}", names(&plan));
        assert!(names(&plan).ends_with("Pivot RootPropagation"));
    }

    #[test]
    fn a_container_without_a_process_can_be_planned() {
        let mut config = config();
        config.as_object_mut().unwrap().remove("process");
        assert!(of(config).unwrap().process.args.is_empty());
    }

    #[test]
    fn without_a_mount_namespace_nothing_is_pivoted() {
        let mut config = config();
        config["linux"]["namespaces"] = json!([{"type": "uts"}, {"type": "network"}]);
        let plan = of(config.clone()).unwrap();
        let names = names(&plan);
        assert!(plan.namespaces.outside && names.contains("OutsideRootfs Mount"), "{names}");
        assert!(names.ends_with("ReadonlyRoot Chroot") && !names.contains("Propagation"), "{names}");
        config["linux"]["rootfsPropagation"] = json!("slave");
        assert!(of(config).is_err());
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
        let cases: [(&str, Value); 19] = [
            ("/linux/namespaces", json!([{"type": "user"}])),
            ("/linux/namespaces", json!([{"type": "mount"}, {"type": "mount"}])),
            ("/linux/namespaces/1/path", json!("relative")),
            ("/linux/sysctl", json!({"kernel.hostname": "x"})),
            ("/linux/netDevices", json!({"eth0": {"name": "a/b"}})),
            ("/linux/netDevices", json!({"eth0": {"name": "e"}, "eth1": {"name": "e"}})),
            ("/linux/intelRdt", json!({"closID": "../x"})),
            ("/linux/intelRdt", json!({"schemata": ["L3:0=f"], "l3CacheSchema": "L3:0=f"})),
            ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND"})),
            ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "x"})),
            ("/process/scheduler", json!({"policy": "SCHED_FIFO"})),
            ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20})),
            ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8})),
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
            let error = of(config).unwrap_err().to_string();
            assert!(
                error.starts_with(&pointer[1..].split('/').take(2).collect::<Vec<_>>().join(".")),
                "{error}"
            );
        }
        let mut unmapped = in_userns(config());
        unmapped["linux"].as_object_mut().unwrap().remove("uidMappings");
        assert!(of(unmapped).is_err());
        let mut mapped = config();
        mapped["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
        assert!(of(mapped).is_err());
    }
}
