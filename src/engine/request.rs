//! What the user asks of `run` and `create`, as typed: nothing here is resolved yet.

use std::path::PathBuf;

use super::config::{self, Error};
use crate::storage::containers::MountRecord;
use crate::sys::process;

/// What a step of a build has that no flag gives.
#[derive(Clone, Debug, Default)]
pub struct BuildStep {
    /// Mounts beside those that flags ask for.
    pub mounts: Vec<MountRecord>,
}

/// The flags of `run` and `create`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are those of the flags")]
pub struct RunRequest {
    pub image: String,
    pub command: Vec<String>,
    pub name: Option<String>,
    pub replace: bool,
    pub rm: bool,
    pub rmi: bool,
    pub labels: Vec<String>,
    pub label_files: Vec<PathBuf>,
    pub annotations: Vec<String>,
    pub stop_signal: Option<String>,
    pub stop_timeout: Option<u64>,
    pub cidfile: Option<PathBuf>,
    pub pidfile: Option<PathBuf>,
    pub conmon_pidfile: Option<PathBuf>,
    pub requires: Vec<String>,
    pub log_driver: Option<String>,
    pub log_opts: Vec<String>,
    /// What the monitor is to see to.
    pub supervision: super::supervision::Wanted,
    pub init: bool,
    pub interactive: bool,
    pub attach: Vec<String>,
    pub tty: bool,
    pub entrypoint: Option<String>,
    pub workdir: Option<String>,
    pub env: Vec<String>,
    pub env_files: Vec<PathBuf>,
    pub env_host: bool,
    pub env_merge: Vec<String>,
    pub unsetenv: Vec<String>,
    pub unsetenv_all: bool,
    pub http_proxy: bool,
    pub umask: Option<String>,
    pub tz: Option<String>,
    pub personality: Option<String>,
    pub oom_score_adj: Option<i32>,
    pub preserve_fds: Option<u32>,
    pub preserve_fd: Vec<u32>,
    pub user: Option<String>,
    pub group_add: Vec<String>,
    pub userns: Option<String>,
    pub uidmaps: Vec<String>,
    pub gidmaps: Vec<String>,
    pub subuidname: Option<String>,
    pub subgidname: Option<String>,
    pub hostusers: Vec<String>,
    pub passwd: bool,
    pub passwd_entry: Option<String>,
    pub group_entry: Option<String>,
    pub volumes: Vec<String>,
    pub volumes_from: Vec<String>,
    pub mounts: Vec<String>,
    pub tmpfs: Vec<String>,
    pub image_volume: Option<String>,
    pub read_only: bool,
    pub read_only_tmpfs: bool,
    pub rootfs: bool,
    pub shm_size: Option<String>,
    pub chrootdirs: Vec<String>,
    pub devices: Vec<String>,
    pub device_rules: Vec<String>,
    pub networks: Vec<String>,
    pub publish: Vec<String>,
    pub publish_all: bool,
    pub expose: Vec<String>,
    pub ip: Option<String>,
    pub ip6: Option<String>,
    pub mac_address: Option<String>,
    pub network_aliases: Vec<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    pub egress: Vec<String>,
    pub pid: Option<String>,
    pub ipc: Option<String>,
    pub uts: Option<String>,
    pub cgroupns: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub add_hosts: Vec<String>,
    pub hosts_file: Option<String>,
    pub no_hosts: bool,
    pub no_hostname: bool,
    pub sysctls: Vec<String>,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub seccomp_policy: Option<String>,
    pub ulimits: Vec<String>,
    /// What it is to keep within.
    pub limits: super::config::limits::Wanted,
    /// It is `create` that asks: the container is started later.
    pub waits: bool,
    /// It is a step of a build.
    pub build: Option<BuildStep>,
    /// The command line, for `inspect`.
    pub create_command: Vec<String>,
}

impl RunRequest {
    /// Refuses what needs no look at the image, before that is pulled, and before anything is opened.
    pub fn check(&self) -> Result<(), super::Error> {
        let (limits, grouped) = config::limits::resolve(&self.limits)?;
        super::limits::check(&limits, grouped, "")?;
        Ok(self.check_files()?)
    }

    fn check_files(&self) -> Result<(), Error> {
        let closed = process::first_closed(&config::preserved(self)?);
        if let Some(fd) = closed {
            return Err(config::flag(
                "preserve-fds",
                &fd.to_string(),
                "no descriptor of this number was passed",
            ));
        }
        if self.replace && self.name.is_none() {
            return Err(config::flag("replace", "", "it needs --name"));
        }
        match &self.cidfile {
            Some(path) if path.symlink_metadata().is_ok() => {
                let shown = path.to_string_lossy();
                let why = "the file is there already: another container may use it, or it is to be deleted";
                Err(config::flag("cidfile", &shown, why))
            }
            _ => Ok(()),
        }
    }
}
