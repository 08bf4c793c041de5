//! The engine (L5): composes storage, images, the runtime and the monitor into containers.

pub mod apart;
pub mod artifacts;
pub mod attach;
pub mod build;
pub mod check;
pub mod clone;
pub mod commit;
pub mod config;
pub mod copy;
mod dependents;
pub mod diff;
pub mod doctor;
pub mod environment;
pub mod etc;
pub mod events;
pub mod exec;
pub mod export;
pub mod files;
mod filter;
pub mod health;
pub mod ids;
pub mod images;
pub mod info;
pub mod inspect;
pub mod lifecycle;
mod limits;
pub mod list;
pub mod lists;
pub mod load;
pub mod logging;
pub mod login;
pub mod logs;
mod mapped;
pub mod mounted;
pub mod mounts;
pub mod name;
pub mod network;
pub mod pause;
pub mod prune;
pub mod push;
pub mod reach;
pub mod request;
mod rootfs;
pub mod run;
pub mod sources;
pub mod specgen;
pub mod stats;
pub mod supervision;
pub mod top;
pub mod unshare;
pub mod update;
pub mod usage;
pub mod userns;
pub mod volume_files;
pub mod volume_options;
pub mod volumes;

use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

use self::network::host::HostNetwork;
use crate::base::id::ParseIdError;
use crate::security::idmap::{self, Rung, RungKind};
use crate::storage::containers::{ContainerRecord, Containers};
use crate::storage::{Ownership, Paths, Store, containers};
use crate::sys::host;

/// An engine over one store.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Where the store is.
    pub paths: Paths,
    /// Images and layers.
    pub store: Store,
    /// Containers.
    pub containers: Containers,
    rung: OnceLock<Rung>,
    /// Containers are found by the beginning of their name, too.
    by_prefix: bool,
    host_network: OnceLock<HostNetwork>,
}

impl Engine {
    /// Opens the store at `paths`, making it where it is missing.
    pub fn open(paths: Paths) -> Result<Self, Error> {
        let store = Store::open(&paths)?;
        let containers = Containers::new(&paths.root, &paths.runroot);
        let (rung, host_network) = (OnceLock::new(), OnceLock::new());
        Ok(Self { paths, store, containers, rung, by_prefix: false, host_network })
    }

    /// For what only looks at a container or works in it: finds it by the beginning of its name, too. What
    /// ends or removes one must be told which.
    #[must_use]
    pub fn by_prefix(self) -> Self {
        Self { by_prefix: true, ..self }
    }

    /// Which ids containers can have here, found out once and only when it matters.
    pub fn rung(&self) -> &Rung {
        self.rung.get_or_init(idmap::rung)
    }

    /// Whose the files of layers are that are unpacked here.
    pub fn ownership(&self) -> Ownership {
        if let (RungKind::Root, Some(ownership)) = (self.rung().kind, unshare::ownership()) {
            return ownership;
        }
        match self.rung().kind {
            RungKind::Root => Ownership::Host,
            RungKind::Subordinate => Ownership::Mapped,
            RungKind::Single => Ownership::Single,
        }
    }

    /// The store with the layers that a container stands on: for the mapping that it was made with.
    fn layer_store(&self, record: &ContainerRecord) -> Store {
        let ownership = match &record.mapping {
            None => Ownership::Host,
            // Only root can be on that rung; the way to the others leads through some files.
            _ if host::uid() == 0 && self.rung().kind == RungKind::Root => {
                unshare::ownership().unwrap_or(Ownership::Host)
            }
            Some(mapping) if mapping.is_single() => Ownership::Single,
            Some(_) => Ownership::Mapped,
        };
        self.store.clone().with_ownership(ownership)
    }
}

/// This moment, in RFC 3339: what configurations and manifests say of when they were made.
fn now() -> String {
    jiff::Timestamp::from_nanosecond(host::now().into()).unwrap_or_default().to_string()
}

/// What goes wrong with containers.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error("making the runtime configuration")]
    Specgen(#[from] specgen::Error),
    #[error(transparent)]
    Containers(#[from] containers::Error),
    #[error("opening the store")]
    Store(#[from] crate::storage::Error),
    #[error(transparent)]
    Network(#[from] network::Error),
    #[error(transparent)]
    Images(#[from] images::Error),
    #[error(transparent)]
    Commit(#[from] commit::Error),
    #[error("building \"{context}\"")]
    Build {
        context: String,
        #[source]
        source: Box<build::Error>,
    },
    #[error(transparent)]
    Copy(#[from] copy::Error),
    #[error(transparent)]
    Lists(#[from] lists::Error),
    #[error(transparent)]
    Artifacts(#[from] artifacts::Error),
    #[error(transparent)]
    Push(#[from] push::Error),
    #[error(transparent)]
    Login(#[from] login::Error),
    #[error(transparent)]
    Name(#[from] ParseIdError),
    #[error("image \"{0}\" was removed at this moment")]
    ImageGone(String),
    #[error("running in container \"{container}\"")]
    Exec {
        container: String,
        #[source]
        source: crate::runtime::Error,
    },
    #[error("asking the kernel for random bytes")]
    Random(#[source] io::Error),
    #[error("finding the working directory")]
    WorkingDirectory(#[source] io::Error),
    #[error("making a socket to the monitor")]
    Socket(#[source] io::Error),
    #[error("starting the monitor")]
    Fork(#[source] io::Error),
    #[error("relaying the container's streams")]
    Relay(#[source] io::Error),
    #[error("encoding a record")]
    Json(#[source] serde_json::Error),
    #[error("{action} \"{}\"", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("writing the container's ID to \"{}\"", path.display())]
    Cidfile {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("using \"{}\" as the rootfs", path.display())]
    RootfsDirectory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("mounting \"{}\" into the container", path.display())]
    MountSource {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("giving device \"{}\" to the container", path.display())]
    Device {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("giving device \"{}\" to the container: it is no device", .0.display())]
    NoDevice(PathBuf),
    #[error(
        "giving device \"{}\" with the permissions \"{permissions}\": only reading and writing together can be granted \
         where there are no device rules: in a user namespace, and without control groups",
        path.display()
    )]
    DevicePermissions { path: PathBuf, permissions: String },
    #[error("compiling the seccomp profile")]
    SeccompFilter(#[from] crate::seccomp::Error),
    #[error("--security-opt ownership={0}: the container has more ids than one, and real owners")]
    RealIds(String),
    #[error("--security-opt ownership=remembered: the file system of \"{}\" has no room for owners", path.display())]
    NoAttributes {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("reading the seccomp profile \"{}\"", path.display())]
    SeccompProfile {
        path: PathBuf,
        #[source]
        source: crate::seccomp::file::Error,
    },
    #[error("copying the image's files for container \"{}\"", id.short())]
    CopyLayers {
        id: crate::base::id::ContainerId,
        #[source]
        source: io::Error,
    },
    #[error("the user \"{user}\" of the container")]
    UnknownUser {
        user: String,
        #[source]
        source: crate::security::passwd::LookupError,
    },
    #[error("the user \"{0}\" of the container has no id that is mapped")]
    UnmappedUser(String),
    #[error("mapping the ids of the mount \"{}\": {why}", path.display())]
    MapIds { path: PathBuf, why: &'static str },
    #[error("changing the owner of \"{}\": it belongs to the system", .0.display())]
    ChownSystem(PathBuf),
    #[error(
        "--device-cgroup-rule \"{0}\": there are no device rules in a user namespace, and none without control groups"
    )]
    NoDeviceRules(String),
    #[error(
        "joining namespaces of container \"{0}\": they belong to its user namespace, and another one was asked for"
    )]
    OtherUserNamespace(String),
    #[error("starting container \"{name}\", which this one requires: {message}")]
    Required { name: String, message: String },
    #[error("container \"{name}\" is {status}, not running")]
    NotRunning { name: String, status: &'static str },
    #[error("container \"{0}\" has no health check")]
    NoHealthCheck(String),
    #[error("container \"{0}\" ended before it was as it was waited for")]
    EndedBefore(String),
    #[error("container \"{0}\" is paused")]
    Paused(String),
    #[error("container \"{name}\" is {status}, not paused")]
    NotPaused { name: String, status: &'static str },
    #[error("{flag}: {reason}")]
    Limit { flag: String, reason: String, cure: Option<String> },
    #[error("limiting the container")]
    Cgroup(#[source] Box<crate::cgroup::Error>),
    #[error("limiting container \"{name}\"")]
    Relimit {
        name: String,
        #[source]
        source: Box<crate::cgroup::Error>,
    },
    #[error("{action} container \"{name}\": it has no control group of its own")]
    Ungrouped { action: &'static str, name: String },
    #[error("{action} container \"{name}\"")]
    Freezer {
        action: &'static str,
        name: String,
        #[source]
        source: Box<crate::cgroup::Error>,
    },
    #[error("listing the processes of container \"{name}\"")]
    Processes {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("container \"{0}\" was made of a directory (--rootfs): what that was before is not known")]
    NoLayers(String),
    #[error("exporting container \"{name}\": \"{path}\"")]
    Export {
        name: String,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("no container or image \"{0}\" found")]
    NoObject(String),
    #[error("{action} \"{name}\"")]
    Files {
        action: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("{action} \"{name}\"")]
    FilesOfOthers {
        action: &'static str,
        name: String,
        #[source]
        source: crate::sys::child::Error,
    },
    #[error("unshare is for ordinary users: root has no user namespace")]
    UnshareAsRoot,
    #[error("entering a user namespace")]
    Unshare(#[source] io::Error),
    #[error("running \"{program}\"")]
    Program {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("{action} container \"{name}\"")]
    Mount {
        action: &'static str,
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("mounting a container takes root")]
    MountAsUser,
    #[error("container \"{0}\" is not mounted")]
    NotMounted(String),
    #[error("{action} volume \"{name}\"")]
    VolumeFiles {
        action: &'static str,
        name: String,
        #[source]
        source: crate::sys::transfer::Problem,
    },
    #[error("mounting volume \"{name}\": \"{what}\" is not supported yet for a volume of its type")]
    VolumeMount { name: String, what: &'static str },
    #[error("making a volume")]
    VolumeOptions(#[from] volume_options::Error),
    #[error("mounting volume \"{name}\": only root can mount a file system of type \"{fstype}\"")]
    VolumeType { name: String, fstype: String },
    #[error("volume \"{0}\" is mounted anew in each container: outside of them it has no files")]
    VolumeNowhere(String),
    #[error("there is no volume \"{0}\"")]
    NoVolume(String),
    #[error("there is a volume \"{0}\" already")]
    VolumeExists(String),
    #[error("volume \"{name}\" is used by container \"{user}\"")]
    VolumeInUse { name: String, user: String },
    #[error("several volumes have a name that begins with \"{0}\"")]
    AmbiguousVolume(String),
    #[error("container \"{0}\" is running: stop it first, or remove it by force")]
    Running(String),
    #[error("removing container \"{name}\": container {by} needs it")]
    Needed { name: String, by: String },
    #[error("sending signal {signal} to container \"{name}\"")]
    Signal {
        name: String,
        signal: String,
        #[source]
        source: io::Error,
    },
    #[error("talking to the process that answers system calls of container \"{name}\"")]
    Answers {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("container \"{0}\": its monitor is gone")]
    MonitorGone(String),
    #[error("container \"{name}\" keeps no logs that could be read (--log-driver {driver})")]
    NoLogs { name: String, driver: &'static str },
    #[error("reading the journal's log of container \"{name}\"")]
    Journal {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("--log-driver journald: connecting to the journal \"{}\"", path.display())]
    NoJournal {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("--log-driver passthrough: the program would get a terminal, which it must not share with us")]
    PassthroughTerminal,
    #[error("listing events: {0}")]
    EventFilter(String),
    #[error("listing containers: {0}")]
    Filter(String),
    #[error("reading the log of container \"{name}\"")]
    Log {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("container \"{name}\" was not stopped within {seconds} s of SIGKILL")]
    Unkillable { name: String, seconds: u64 },
}

impl Error {
    /// What the command should exit with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exec { source, .. } => source.exit_code(),
            Self::Build { source, .. } => source.exit_code(),
            Self::UnknownUser { .. } | Self::UnmappedUser(_) => 126,
            _ => 125,
        }
    }

    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Containers(containers::Error::NameInUse { name, .. }) => {
                Some(format!("remove it with \"umiak rm -f {name}\"; run and create do that with --replace"))
            }
            Self::Store(crate::storage::Error::Io { source, .. })
                if matches!(source.raw_os_error(), Some(libc::EROFS | libc::EACCES)) =>
            {
                Some("--root DIR, or XDG_DATA_HOME, names a directory that can be written to".to_owned())
            }
            Self::Containers(containers::Error::NotFound(_)) => {
                Some("\"umiak ps -a\" lists all containers".to_owned())
            }
            Self::Containers(containers::Error::Damaged { .. }) => {
                Some("\"umiak rm -f\" removes a container whose records cannot be read".to_owned())
            }
            Self::NotRunning { name, status: "created" } => Some(format!("umiak start {name} starts it")),
            Self::NotRunning { .. } => Some("\"umiak ps -a\" tells how it ended".to_owned()),
            Self::Paused(name) => Some(format!("umiak unpause {name} lets it go on")),
            Self::Ungrouped { .. } => Some(pause::why_ungrouped()),
            Self::Limit { cure, .. } => cure.clone(),
            Self::Cgroup(source) | Self::Relimit { source, .. } | Self::Freezer { source, .. } => {
                source.hint()
            }
            Self::NoVolume(_) => Some("\"umiak volume ls\" lists all volumes".to_owned()),
            Self::NoJournal { .. } => Some("--log-driver k8s-file keeps output in a file".to_owned()),
            Self::Journal { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("it takes journalctl, which comes with systemd".to_owned())
            }
            Self::Journal { .. } => Some(
                "sudo usermod -aG systemd-journal \"$USER\" lets you read it, from your next login on"
                    .to_owned(),
            ),
            Self::PassthroughTerminal => Some("redirect its input and output to files or pipes".to_owned()),
            Self::VolumeExists(_) => Some("--ignore takes the one that is there".to_owned()),
            Self::VolumeInUse { user, .. } => {
                Some(format!("remove the container first: umiak rm {}", &user[..user.len().min(12)]))
            }
            Self::CopyLayers { source, .. } if source.raw_os_error() == Some(libc::EOVERFLOW) => {
                Some("the image has files of ids that are not mapped: map more ids".to_owned())
            }
            Self::Needed { name, .. } => Some(format!("umiak rm --depend {name} removes those too")),
            Self::Running(name) => Some(format!("umiak stop {name}, or umiak rm -f {name}")),
            Self::MountSource { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("the host's side of a bind mount must exist already".to_owned())
            }
            Self::MountAsUser => Some("umiak unshare gives a shell in which it works".to_owned()),
            Self::Network(error) => error.hint(),
            Self::Images(error) => error.hint(),
            Self::Commit(error) => error.hint(),
            Self::Build { source, .. } => source.hint(),
            Self::Lists(error) => error.hint(),
            Self::Artifacts(error) => error.hint(),
            Self::Push(error) => error.hint(),
            Self::Login(error) => error.hint(),
            Self::Config(config::Error::ImageStopSignal(_)) => {
                Some("--stop-signal chooses another".to_owned())
            }
            _ => None,
        }
    }
}
