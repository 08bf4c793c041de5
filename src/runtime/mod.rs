//! The OCI runtime (L3): from a spec to a plan to a process.
//!
//! [`create`] decides everything that can be decided in pure code ([`plan`]), clones the
//! container's init and lets it carry the plan out ([`init`]) until it waits at the start gate.
//! Higher layers call these functions with a bundle of their own making; nothing here knows of
//! images.

mod cache;
pub mod config;
mod create;
pub mod criu;
mod early;
mod error;
mod exec;
pub mod filters;
pub mod hooks;
mod init;
pub mod label;
mod launch;
mod listener;
pub mod live;
mod mounting;
pub mod plan;
pub mod processes;
pub mod protocol;
pub mod state;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    LinuxMemoryPolicy, LinuxNamespaceType, LinuxPersonality, LinuxSeccomp, Process, Spec,
};

use crate::base::idmap::IdMapping;
use crate::cgroup;
pub use crate::sys::mount::Overlay;
use crate::sys::seccomp::Filter;
use crate::sys::userns::Begun;
pub use cache::{CacheGroups, update as update_cache};
pub use create::{Born, Created, Meanwhile, begin, create, create_with, start};
pub use error::Error;
pub use exec::{Executed, exec};

/// Where the container's root directory comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// A directory on the host, bound in place.
    Dir(PathBuf),
    /// An overlay, mounted by the init in the container's own mount namespace: nothing of it is
    /// ever visible on the host.
    Overlay(Overlay),
}

/// What a mount is beside what the specification has words for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MountDetails {
    /// It is an overlay of these directories and not its source.
    pub overlay: Option<OverlayDetails>,
    /// Only this path of it is mounted, resolved so that no link leads out of it.
    pub subpath: Option<PathBuf>,
    /// All that is in it becomes the program's user's.
    pub chown: bool,
    /// It becomes the user's if it is empty and the rootfs has nothing at its place: a new volume.
    pub claim: bool,
    /// It is what a running container has mounted, and not its source.
    pub borrowed: Option<Borrowed>,
}

impl MountDetails {
    /// Whether its files are shown with other ids than on disk.
    pub(crate) fn has_ids(&self) -> bool {
        self.overlay.as_ref().is_some_and(|overlay| overlay.ids.is_some())
    }
}

/// An overlay that is no rootfs.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct OverlayDetails {
    /// Its directories.
    pub overlay: Overlay,
    /// As [`CreateRequest::rootfs_ids`].
    pub ids: Option<IdMapping>,
}

/// A place in a running container.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Borrowed {
    /// Its first process.
    pub pid: i32,
    /// Field 22 of `/proc/PID/stat`, against the pid's reuse.
    pub start_time: u64,
    /// Absolute, in there.
    pub path: PathBuf,
}

/// What becomes of the program's descriptors 0, 1 and 2.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These three.
    Fds {
        /// Becomes descriptor 0.
        stdin: OwnedFd,
        /// Becomes descriptor 1.
        stdout: OwnedFd,
        /// Becomes descriptor 2.
        stderr: OwnedFd,
    },
    /// A terminal of the container's own devpts; its master is handed back to the caller.
    Terminal,
    /// The same, but the master is sent to this listening Unix socket (`--console-socket`).
    ConsoleSocket(PathBuf),
}

/// How the init learns that it may start the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// By [`Created::start`], from the process that created the container.
    Held,
    /// By [`start`] from any process: the init listens on this Unix socket. The path may be longer
    /// than `sun_path`; its directory must exist.
    Path(PathBuf),
}

/// What [`create`] needs to know. The id mapping stands in `spec.linux.uidMappings` and
/// `gidMappings`, the control group in `spec.linux.cgroupsPath`.
#[derive(Debug)]
pub struct CreateRequest {
    /// The container's id, for hooks' state and the default control group.
    pub id: String,
    /// The container, OCI runtime specification 1.x.
    pub spec: Spec,
    /// Relative paths of the spec are relative to this directory.
    pub bundle: PathBuf,
    /// Replaces `spec.root.path`; `spec.root.readonly` counts.
    pub rootfs: Rootfs,
    /// The rootfs's files on disk have ids that this mapping shows as the host's ([`crate::sys::mapped`]): the
    /// container's own, most often.
    pub rootfs_ids: Option<IdMapping>,
    /// The program's standard descriptors.
    pub stdio: Stdio,
    /// How it will be started.
    pub gate: Gate,
    /// Descriptors 3 to 2+n go through to the program.
    pub preserve_fds: u32,
    /// So do these.
    pub preserve_list: Vec<u32>,
    /// Further groups of the program, names or numbers, looked up as [`Self::user_by_name`] is.
    pub groups_by_name: Vec<String>,
    /// The program keeps the caller's supplementary groups.
    pub keep_groups: bool,
    /// More about the spec's mounts, by their destination.
    pub mount_details: HashMap<PathBuf, MountDetails>,
    /// Processes, with their start times, whose namespaces are joined: if one of them has ended by the time
    /// that was done, its number may have been another's.
    pub witnesses: Vec<(i32, u64)>,
    /// As many of them are listening sockets: the program is told so (sd_listen_fds(3)).
    pub listen_fds: u32,
    /// Move the rootfs over `/` instead of pivoting: for a host whose root is a ramfs.
    pub no_pivot: bool,
    /// Do not make a session keyring.
    pub no_new_keyring: bool,
    /// Where a resource limit cannot be raised as far as asked, take what there is: engines send
    /// defaults that only an unconfined root can have.
    pub clamp_limits: bool,
    /// Run a minimal init as process 1 that reaps orphans and forwards signals.
    pub init: bool,
    /// `name[:group]` (ids also), looked up in the rootfs's own `/etc/passwd` and `/etc/group`
    /// once it is mounted; overrides `spec.process.user`, adds supplementary groups, and sets
    /// `HOME` if the environment has none.
    pub user_by_name: Option<String>,
    /// Make the working directory if the rootfs lacks it.
    pub create_cwd: bool,
    /// Who makes the control group. Limits that were asked for and cannot be set are an error.
    pub cgroup: cgroup::Manager,
    /// As [`cgroup::Request::complete`].
    pub complete_cgroup: bool,
    /// The user who makes the container, by whose permissions the host's paths are opened.
    pub caller: u32,
    /// The filter of its profile, if that is compiled already; `spec.linux.seccomp` is not looked at then.
    pub filter: Option<Filter>,
    /// Its user namespace and others, if they were begun before all this was known. Not used where they are not what
    /// the spec says.
    pub begun: Option<Begun>,
    /// Who gets the filter's listener, if it has one: as [`crate::seccomp::answer::serve`] does. Else it goes to the
    /// profile's `listenerPath`.
    pub answerer: Option<OwnedFd>,
}

impl CreateRequest {
    /// What is asked for as its control group.
    pub(crate) fn cgroup_request(&self) -> cgroup::Request<'_> {
        let linux = self.spec.linux().as_ref();
        cgroup::Request {
            wanted: linux.and_then(|linux| linux.cgroups_path().as_deref()),
            id: &self.id,
            resources: linux.and_then(|linux| linux.resources().as_ref()),
            annotations: self.spec.annotations().as_ref(),
            manager: self.cgroup,
            complete: self.complete_cgroup,
        }
    }

    /// The container joins a user namespace instead of making one; `path` is a file of it.
    pub fn join_user(&mut self, path: &Path) {
        let mut linux = self.spec.linux().clone().unwrap_or_default();
        let mut namespaces = linux.namespaces().clone().unwrap_or_default();
        for namespace in &mut namespaces {
            if namespace.typ() == LinuxNamespaceType::User {
                namespace.set_path(Some(path.to_owned()));
            }
        }
        linux.set_namespaces(Some(namespaces));
        self.spec.set_linux(Some(linux));
    }

    /// A request with the ordinary answers to everything that is optional.
    pub fn new(id: String, spec: Spec, bundle: PathBuf, rootfs: Rootfs) -> Self {
        Self {
            id,
            spec,
            bundle,
            rootfs,
            rootfs_ids: None,
            stdio: Stdio::Inherit,
            gate: Gate::Held,
            preserve_fds: 0,
            preserve_list: Vec::new(),
            groups_by_name: Vec::new(),
            keep_groups: false,
            mount_details: HashMap::new(),
            witnesses: Vec::new(),
            listen_fds: 0,
            no_pivot: false,
            no_new_keyring: false,
            clamp_limits: false,
            init: false,
            user_by_name: None,
            create_cwd: false,
            cgroup: cgroup::Manager::default(),
            complete_cgroup: false,
            caller: crate::sys::ids::euid(),
            filter: None,
            begun: None,
            answerer: None,
        }
    }
}

/// What [`exec`] needs to know.
#[derive(Debug)]
pub struct ExecRequest {
    /// The container's init, as seen by the caller.
    pub pid: i32,
    /// Its start time (field 22 of `/proc/PID/stat`): a recycled pid is not joined.
    pub start_time: u64,
    /// The program to run in there.
    pub process: Process,
    /// As [`CreateRequest::user_by_name`].
    pub user_by_name: Option<String>,
    /// The program's standard descriptors.
    pub stdio: Stdio,
    /// The container's control group directory, to be joined.
    pub cgroup: Option<PathBuf>,
    /// A pidfd of that very process, if the caller has made sure of it.
    pub pidfd: Option<OwnedFd>,
    /// Kinds of namespaces (`CLONE_NEW*`) that were made for the container, so that they need not be
    /// compared with the caller's. Not the user namespace.
    pub own_namespaces: u64,
    /// The container's profile (`spec.linux.seccomp`).
    pub seccomp: Option<LinuxSeccomp>,
    /// Its filter, if it is compiled already.
    pub filter: Option<Filter>,
    /// As [`CreateRequest::answerer`].
    pub answerer: Option<OwnedFd>,
    /// Descriptors 3 to 2+n go through to the program.
    pub preserve_fds: u32,
    /// So do these.
    pub preserve_list: Vec<u32>,
    /// As [`CreateRequest::groups_by_name`].
    pub groups_by_name: Vec<String>,
    /// As [`CreateRequest::keep_groups`].
    pub keep_groups: bool,
    /// Do not make a session keyring.
    pub no_new_keyring: bool,
    /// As [`CreateRequest::clamp_limits`].
    pub clamp_limits: bool,
    /// The container's execution domain (`spec.linux.personality`).
    pub personality: Option<LinuxPersonality>,
    /// Where the container's memory comes from (`spec.linux.memoryPolicy`): the kernel has that of each
    /// process, and an exec is no child of the init.
    pub memory_policy: Option<LinuxMemoryPolicy>,
    /// What a seccomp listener is told of the container.
    pub state: Option<hooks::HookState>,
}
