//! What is written of a container: what was asked for, what happened.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{
    EtcFiles, ExitRecord, HealthConfig, Kernel, Limits, Marks, NamespaceMode, NetworkDetails, NetworkMode,
    UsernsMode, VERSION, Who, is_default,
};
use crate::base::digest::{ChainId, Digest};
use crate::base::id::ContainerId;
use crate::base::idmap::IdMapping;

/// One mount that the user asked for, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// `bind`, `volume`, `tmpfs`, …
    pub kind: String,
    /// The volume's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// On the host; empty for tmpfs.
    pub source: String,
    /// Absolute, in the container.
    pub destination: String,
    /// Mount options in mount(8)'s words.
    pub options: Vec<String>,
    /// Whether the container may write.
    pub rw: bool,
    /// Whether an empty volume gets what the image has at the destination.
    #[serde(default)]
    pub copy_up: bool,
    /// Whether it came from the image's own `VOLUME` list and is removed with the container.
    #[serde(default)]
    pub anonymous: bool,
    /// All that is in it becomes the program's user's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub chown: bool,
    /// What is below it is only shown, and changes go elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayRecord>,
    /// Only this path of the volume or image is mounted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    /// A volume that is no directory: what is mounted in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<DriverRecord>,
    /// Of an image: its layers, lowest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<ChainId>,
    /// Options (`type=tmpfs`) of the volume if it has to be made; its own record keeps them.
    #[serde(skip)]
    pub volume_options: Vec<String>,
    /// Likewise its labels (`NAME` or `NAME=VALUE`).
    #[serde(skip)]
    pub volume_labels: Vec<String>,
}

/// What a volume's options make of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverRecord {
    /// A directory of the host.
    Bind(PathBuf),
    /// Directories over one another.
    Overlay {
        /// The topmost first.
        lower: Vec<PathBuf>,
        /// Where changes go.
        upper: PathBuf,
        /// The kernel's scratch directory.
        work: PathBuf,
    },
    /// A file system.
    Filesystem {
        /// `tmpfs`.
        kind: String,
        /// A device, where there is one.
        source: String,
    },
}

/// An overlay over a mount's source (`:O`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayRecord {
    /// Where changes go and stay; without it they go with the container's run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<PathBuf>,
    /// The kernel's scratch directory beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PathBuf>,
}

/// A device that the user asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// On the host.
    pub host: String,
    /// In the container.
    pub container: String,
    /// Any of `rwm`.
    pub permissions: String,
}

/// A resource limit (setrlimit(2)); `None` is unlimited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UlimitRecord {
    /// `RLIMIT_NOFILE`, …
    pub name: String,
    /// Soft limit.
    pub soft: Option<u64>,
    /// Hard limit.
    pub hard: Option<u64>,
}

/// Who keeps a container's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// A file in Kubernetes' format.
    #[default]
    K8sFile,
    /// The same under Docker's name, as with Podman.
    JsonFile,
    /// systemd's journal.
    Journald,
    /// Nobody: the program has the streams of the command that started it.
    Passthrough,
    /// Nobody.
    None,
}

impl LogDriver {
    /// Podman's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::K8sFile => "k8s-file",
            Self::JsonFile => "json-file",
            Self::Journald => "journald",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }

    /// Whether output is in a file of ours.
    pub fn is_file(self) -> bool {
        matches!(self, Self::K8sFile | Self::JsonFile)
    }
}

/// How output is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// Who keeps it.
    #[serde(default)]
    pub driver: LogDriver,
    /// The file, where the user chose one.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Bytes after which the file is begun anew.
    #[serde(default)]
    pub size_max: Option<u64>,
    /// How many files are kept: the one that is written to, and those before it (`PATH.1`, …).
    #[serde(default, skip_serializing_if = "is_default")]
    pub file_max: Option<u32>,
    /// A template of what the journal's entries are marked with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tag: Option<String>,
    /// Labels of the container that become fields of the journal's entries.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Vec<String>,
}

/// When a container that has ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// If its exit code is not 0, so many times at most.
    OnFailure(Option<u32>),
    /// Always, but for one that its user has stopped.
    Always,
    /// As `Always`; the difference is in what is started at boot.
    UnlessStopped,
}

impl RestartPolicy {
    /// Podman's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// The most restarts in a row; 0 is no bound.
    pub fn bound(self) -> u32 {
        if let Self::OnFailure(Some(bound)) = self { bound } else { 0 }
    }
}

/// What was asked for, resolved against the image: all that `inspect` tells and `exec` needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the flags")]
pub struct ContainerConfig {
    #[serde(default, skip_serializing_if = "is_default")]
    pub entrypoint: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub command: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub user: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub workdir: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub hostname: String,
    #[serde(default, skip_serializing_if = "is_default")]
    pub tty: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub interactive: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub annotations: std::collections::BTreeMap<String, String>,
    pub stop_signal: i32,
    pub stop_timeout: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: NetworkMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub net: NetworkDetails,
    #[serde(default, skip_serializing_if = "is_default")]
    pub pid: NamespaceMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ipc: NamespaceMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub uts: NamespaceMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub cgroupns: NamespaceMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub userns: UsernsMode,
    #[serde(default, skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub capabilities: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub cap_add: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub cap_drop: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub security_opt: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_new_privileges: bool,
    pub seccomp: SeccompChoice,
    #[serde(default, skip_serializing_if = "is_default")]
    pub unmask: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub mask: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Vec<MountRecord>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub devices: Vec<DeviceRecord>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub ulimits: Vec<UlimitRecord>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub sysctls: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: RestartPolicy,
    /// Seconds that a run may last; 0 is no bound.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeout: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: Option<HealthConfig>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub auto_remove: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub attach: Vec<String>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub who: Who,
    #[serde(default, skip_serializing_if = "is_default")]
    pub etc: EtcFiles,
    #[serde(default, skip_serializing_if = "is_default")]
    pub kernel: Kernel,
    #[serde(default, skip_serializing_if = "is_default")]
    pub marks: Marks,
    #[serde(default, skip_serializing_if = "is_default")]
    pub privileged: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_shm: bool,
    /// A `--rootfs` directory stays as it is: changes go to the container's own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rootfs_overlay: bool,
    /// On disk the rootfs and what is written over it have ids that are shown by this mapping; the container's own,
    /// but for a `--rootfs` with another. Without it they have the ids that they are shown with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rootfs_ids: Option<IdMapping>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub requires: Vec<ContainerId>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub one_id: OneId,
    pub log: LogConfig,
    pub cgroups: bool,
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: Limits,
}

/// What is done for a container that has one id only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OneId {
    /// Calls that need another id are answered with success.
    pub emulated: bool,
    /// It has apt, which is told to do without a user of its own: it looks whether it has become him.
    pub apt: bool,
    /// Owners that it does not have are remembered, and told to who asks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub remembered: bool,
}

/// Which system calls are let through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeccompChoice {
    /// Our allow list.
    Default,
    /// All.
    Unconfined,
    /// A profile in Docker's or OCI's JSON, as it was when the container was made.
    Profile {
        /// The file it came from.
        path: PathBuf,
        /// Its content.
        content: String,
    },
}

/// Where the rootfs comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RootfsSource {
    /// Layers of an image, lowest first.
    Image {
        /// Digest of its configuration.
        id: Digest,
        /// As the user's reference was resolved.
        name: String,
        /// Digest of its manifest.
        digest: Digest,
        /// Its layers.
        layers: Vec<ChainId>,
    },
    /// A directory (`--rootfs`).
    Directory(PathBuf),
}

/// `record.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Format version.
    pub version: u32,
    /// The container's id.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Nanoseconds since 1970.
    pub created: i64,
    /// Digest of the image's configuration: what `rmi` looks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<Digest>,
    /// Where the rootfs comes from.
    pub rootfs: RootfsSource,
    /// The mapping of its user namespace; none as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<IdMapping>,
    /// The command line that made it.
    pub create_command: Vec<String>,
    /// Made to be started later: that it has not run yet does not mean that its maker was killed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub waits: bool,
    /// All the rest. Large, and records are handed on and kept: not by value.
    pub config: Box<ContainerConfig>,
}

impl ContainerRecord {
    /// The image's name; the directory of `--rootfs`.
    pub fn image_name(&self) -> String {
        match &self.rootfs {
            RootfsSource::Image { name, .. } => name.clone(),
            RootfsSource::Directory(path) => path.display().to_string(),
        }
    }
}

/// `state.json`: facts of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunState {
    /// Format version.
    pub version: u32,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Of the first process, in the host's pid namespace.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`: against a pid's reuse.
    pub start_time: u64,
    /// Of the monitor.
    pub monitor: i32,
    /// Nanoseconds since 1970.
    pub started: i64,
    /// The cgroup's directory, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// How often its monitor has started it again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restarts: u32,
    /// Its program has not begun, and begins when somebody says so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub held: bool,
    /// What a network of its own alone was set up with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<RunEndpoint>,
}

/// The addresses of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEndpoint {
    /// Its addresses, with the length of the subnet's prefix in bits.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The router's.
    pub gateways: Vec<IpAddr>,
}

impl RunState {
    /// A record of this format version.
    pub fn new(boot_id: String, pid: i32, start_time: u64, started: i64, cgroup: Option<PathBuf>) -> Self {
        Self {
            version: VERSION,
            boot_id,
            pid,
            start_time,
            monitor: rustix::process::getpid().as_raw_nonzero().get(),
            started,
            cgroup,
            restarts: 0,
            held: false,
            endpoint: None,
        }
    }
}

/// What a container is doing now, derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Never started.
    Created,
    /// Its first process is there, and waits for the word to become the program.
    Initialized(RunState),
    /// Its first process is there.
    Running(RunState),
    /// Its first process is there, and stands still with all others. Only who knows of control groups can
    /// tell this from running ([`Containers::status`](super::Containers::status) cannot).
    Paused(RunState),
    /// Its first process is gone, but its monitor has not recorded the end yet.
    Stopping(RunState),
    /// It ended, and its monitor waits for the moment to start it again.
    Restarting(ExitRecord),
    /// It ended, or could not be started.
    Exited(ExitRecord),
}

impl Status {
    /// Podman's word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Initialized(_) => "initialized",
            Self::Running(_) => "running",
            Self::Paused(_) => "paused",
            Self::Stopping(_) => "stopping",
            Self::Restarting(_) => "restarting",
            Self::Exited(_) => "exited",
        }
    }

    /// Whether its monitor has it in hand and will go on with it: it cannot be started or removed.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Initialized(_) | Self::Running(_) | Self::Paused(_) | Self::Restarting(_))
    }

    /// How often its monitor has started it again.
    pub fn restarts(&self) -> u32 {
        match self {
            Self::Running(state) | Self::Paused(state) | Self::Stopping(state) => state.restarts,
            Self::Restarting(exit) | Self::Exited(exit) => exit.restarts,
            Self::Created | Self::Initialized(_) => 0,
        }
    }

    /// The facts of a container whose first process is there, paused or not.
    pub fn running(&self) -> Option<&RunState> {
        match self {
            Self::Running(state) | Self::Paused(state) => Some(state),
            _ => None,
        }
    }
}
