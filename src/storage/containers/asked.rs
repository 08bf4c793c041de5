//! What was asked for beside the common things, by what it is about. Records are read by the hundred, so
//! what says nothing is left out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::is_default;
use crate::base::id::ContainerId;

/// Where a namespace comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceMode {
    /// One of its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// That of a container, which must run.
    Container(ContainerId),
    /// That of a file in `/proc/PID/ns` or one that it was bound to.
    Path(PathBuf),
}

/// Where the user namespace comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UsernsMode {
    /// Root without one, users with their ids mapped.
    #[default]
    Default,
    /// As `Default`, with the user's own ids kept inside, or having the numbers that were asked for.
    KeepId,
    /// Without the user's own id.
    Nomap,
    /// Ids that no other container has.
    Auto,
    /// A mapping that was told in full.
    Private,
    /// That of a container, which must run.
    Container(ContainerId),
    /// That of a file in `/proc/PID/ns` or one that it was bound to.
    Path(PathBuf),
}

/// Who the program is beside its user, and who is known in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Further groups, by name or number.
    #[serde(default, skip_serializing_if = "is_default")]
    pub groups: Vec<String>,
    /// The caller's supplementary groups stay.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_groups: bool,
    /// `/etc/passwd` and `/etc/group` are left alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub unlisted: bool,
    /// The template of the user's line in `/etc/passwd`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub passwd_entry: Option<String>,
    /// The template of its group's line in `/etc/group`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub group_entry: Option<String>,
    /// Users of the host who are known in the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hostusers: Vec<String>,
}

/// What `/etc/hosts` is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostsBase {
    /// The usual.
    #[default]
    Usual,
    /// Nothing but the container's own lines.
    None,
    /// The image's file, with the container's own lines.
    Image,
    /// A file of the host, with the container's own lines.
    File(PathBuf),
    /// The image's file stays as it is.
    Untouched,
}

/// Files of the container that are ours to write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcFiles {
    /// `/etc/hosts`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub hosts: HostsBase,
    /// Further lines of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub add_hosts: Vec<String>,
    /// `/etc/hostname` is left alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub no_hostname: bool,
    /// `/etc/localtime`: a file below `/usr/share/zoneinfo`, or `local`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tz: Option<String>,
    /// Directories in which there are all of them, too.
    #[serde(default, skip_serializing_if = "is_default")]
    pub chroot_dirs: Vec<String>,
}

/// Settings of the program in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// umask(2).
    #[serde(default, skip_serializing_if = "is_default")]
    pub umask: Option<u32>,
    /// personality(2): `PER_LINUX32`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub linux32: Option<bool>,
    /// `/proc/PID/oom_score_adj`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub oom_score_adj: Option<i32>,
    /// The NIS domain name.
    #[serde(default, skip_serializing_if = "is_default")]
    pub domainname: String,
    /// Rules for devices, `c 10:200 rwm`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub device_rules: Vec<String>,
    /// Descriptors that the command passes on.
    #[serde(default, skip_serializing_if = "is_default")]
    pub preserve_fds: Vec<u32>,
}

/// What is written and kept on the host for whoever started the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// The container's id; goes with the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cidfile: Option<PathBuf>,
    /// Its first process.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pidfile: Option<PathBuf>,
    /// Its monitor.
    #[serde(default, skip_serializing_if = "is_default")]
    pub monitor_pidfile: Option<PathBuf>,
    /// The image goes with the container.
    #[serde(default, skip_serializing_if = "is_default")]
    pub rmi: bool,
    /// It is a step of a build: it goes when who builds is gone, and lists leave it out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub build: bool,
}
