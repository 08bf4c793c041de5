//! What the user asks of `run` and `create`, as typed: nothing here is resolved yet.

use std::path::PathBuf;

/// The flags of `run` and `create`.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs, reason = "the names are those of the flags")]
pub struct RunRequest {
    pub image: String,
    pub command: Vec<String>,
    pub name: Option<String>,
    pub replace: bool,
    pub interactive: bool,
    pub tty: bool,
    pub rm: bool,
    pub env: Vec<String>,
    pub env_files: Vec<PathBuf>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub volumes: Vec<String>,
    pub mounts: Vec<String>,
    pub tmpfs: Vec<String>,
    pub hostname: Option<String>,
    pub entrypoint: Option<String>,
    pub read_only: bool,
    pub read_only_tmpfs: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub init: bool,
    pub network: Option<String>,
    pub userns: Option<String>,
    pub pid: Option<String>,
    pub ipc: Option<String>,
    pub uts: Option<String>,
    pub cgroupns: Option<String>,
    pub cgroups: Option<String>,
    pub ulimits: Vec<String>,
    pub sysctls: Vec<String>,
    pub devices: Vec<String>,
    pub labels: Vec<String>,
    pub annotations: Vec<String>,
    pub stop_signal: Option<String>,
    pub stop_timeout: Option<u64>,
    pub cidfile: Option<PathBuf>,
    pub rootfs: bool,
    pub log_driver: Option<String>,
    pub log_opts: Vec<String>,
    pub shm_size: Option<String>,
    /// What the monitor is to see to.
    pub supervision: super::supervision::Wanted,
    /// The command line, for `inspect`.
    pub create_command: Vec<String>,
}
