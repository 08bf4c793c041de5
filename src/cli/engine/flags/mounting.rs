//! What is mounted: the root file system, volumes, devices.

use clap::Args;

use crate::engine::request::RunRequest;

/// What is mounted: the root file system, volumes, devices.
#[derive(Args, Debug, Clone)]
pub struct Mounting {
    /// Mount a directory of the host or a named volume
    #[arg(short, long, value_name = "[SOURCE:]DIR[:OPTIONS]")]
    volume: Vec<String>,
    /// Mount what a container has mounted
    #[arg(long, value_name = "CONTAINER[:OPTIONS]")]
    volumes_from: Vec<String>,
    /// Mount something, told in full
    #[arg(long, value_name = "type=TYPE,…")]
    mount: Vec<String>,
    /// Mount a file system in memory
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// What the image's own volumes are: anonymous, tmpfs or ignore
    #[arg(long, value_name = "HOW")]
    image_volume: Option<String>,
    /// Let nothing write to the container's root file system
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only: Option<bool>,
    /// With --read-only, leave /run, /tmp and /var/tmp writable (the default)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    read_only_tmpfs: Option<bool>,
    /// IMAGE is a directory to be used as it is; DIR:O leaves it unchanged
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rootfs: Option<bool>,
    /// The size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Mount /etc/hosts and its like in these directories of the container, too
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    chrootdirs: Vec<String>,
    /// Give the container a device of the host
    #[arg(long, value_name = "DEVICE[:PLACE][:rwm]")]
    device: Vec<String>,
    /// Let the container use devices: "c 10:200 rwm"
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
}

impl Mounting {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut RunRequest) {
        let this = self.clone();
        request.volumes = this.volume;
        request.volumes_from = this.volumes_from;
        request.mounts = this.mount;
        request.tmpfs = this.tmpfs;
        request.image_volume = this.image_volume;
        request.read_only = this.read_only.unwrap_or(false);
        request.read_only_tmpfs = this.read_only_tmpfs.unwrap_or(true);
        request.rootfs = this.rootfs.unwrap_or(false);
        request.shm_size = this.shm_size;
        request.chrootdirs = this.chrootdirs;
        request.devices = this.device;
        request.device_rules = this.device_cgroup_rule;
    }
}
