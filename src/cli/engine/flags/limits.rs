//! What a container is to keep within.

use clap::Args;

use crate::engine::config::limits::Wanted;
use crate::engine::request::RunRequest;

/// What can be said when a container is made, and changed later.
#[derive(Args, Debug, Clone, Default)]
pub struct Resources {
    /// The most memory: bytes, or a number and k, m or g; 0: no limit
    #[arg(short, long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// The most memory and swap together, -1: all swap there is (default: twice --memory)
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that is left to the container when others are short of it
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Of control groups' version 1: only -1
    #[arg(long, value_name = "PERCENT", allow_hyphen_values = true, hide = true)]
    memory_swappiness: Option<String>,
    /// How many processors' time it may take, such as 1.5; 0: no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    cpus: Option<String>,
    /// Microseconds of processor time in each period; -1: no limit
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<String>,
    /// The period of --cpu-quota, 1000 to 1000000 (default: 100000)
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_period: Option<String>,
    /// Its share of processor time beside others, 2 to 262144 (default: 1024)
    #[arg(short, long, value_name = "SHARES", allow_hyphen_values = true)]
    cpu_shares: Option<String>,
    /// Of control groups' version 1: only 0
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, hide = true)]
    cpu_rt_period: Option<String>,
    /// Of control groups' version 1: only 0
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, hide = true)]
    cpu_rt_runtime: Option<String>,
    /// The processors that it may use: 0-2,5
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    cpuset_cpus: Option<String>,
    /// The nodes of memory that it may use: 0-2,5
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    cpuset_mems: Option<String>,
    /// How many processes there may be; -1: no limit
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<String>,
    /// Its share of input and output beside others, 10 to 1000
    #[arg(long, value_name = "WEIGHT", allow_hyphen_values = true)]
    blkio_weight: Option<String>,
    /// The same with one device
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// The most bytes a second that are read from a device
    #[arg(long, value_name = "DEVICE:SIZE")]
    device_read_bps: Vec<String>,
    /// The most bytes a second that are written to a device
    #[arg(long, value_name = "DEVICE:SIZE")]
    device_write_bps: Vec<String>,
    /// The most readings a second from a device
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_read_iops: Vec<String>,
    /// The most writings a second to a device
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_write_iops: Vec<String>,
}

impl Resources {
    /// What they ask for.
    pub fn wanted(&self) -> Wanted {
        let this = self.clone();
        Wanted {
            memory: this.memory,
            memory_swap: this.memory_swap,
            memory_reservation: this.memory_reservation,
            memory_swappiness: this.memory_swappiness,
            cpus: this.cpus,
            cpu_quota: this.cpu_quota,
            cpu_period: this.cpu_period,
            cpu_shares: this.cpu_shares,
            cpu_rt_period: this.cpu_rt_period,
            cpu_rt_runtime: this.cpu_rt_runtime,
            cpuset_cpus: this.cpuset_cpus,
            cpuset_mems: this.cpuset_mems,
            pids_limit: this.pids_limit,
            blkio_weight: this.blkio_weight,
            blkio_weight_device: this.blkio_weight_device,
            device_read_bps: this.device_read_bps,
            device_write_bps: this.device_write_bps,
            device_read_iops: this.device_read_iops,
            device_write_iops: this.device_write_iops,
            ..Wanted::default()
        }
    }
}

/// The same, with what can be said only when a container is made.
#[derive(Args, Debug, Clone)]
pub struct Limits {
    #[command(flatten)]
    resources: Resources,
    /// Of control groups' version 1: only false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    oom_kill_disable: Option<bool>,
    /// Write into a file of the container's control group: memory.high=1073741824
    #[arg(long, value_name = "FILE=VALUE")]
    cgroup_conf: Vec<String>,
    /// The control group above the container's own: a path, or a slice of systemd
    #[arg(long, value_name = "GROUP")]
    cgroup_parent: Option<String>,
    /// Which control group the container gets: enabled, disabled, no-conmon (as enabled) or split
    #[arg(long, value_name = "HOW")]
    cgroups: Option<String>,
    /// The class of service of resctrl that it is in
    #[arg(long, value_name = "CLASS")]
    rdt_class: Option<String>,
}

impl Limits {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut RunRequest) {
        let this = self.clone();
        request.limits = Wanted {
            oom_kill_disable: this.oom_kill_disable.unwrap_or(false),
            cgroup_conf: this.cgroup_conf,
            cgroup_parent: this.cgroup_parent,
            cgroups: this.cgroups,
            rdt_class: this.rdt_class,
            ..self.resources.wanted()
        };
    }
}
