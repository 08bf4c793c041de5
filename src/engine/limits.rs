//! Limits on this machine: whether they can be had, who makes the control group, and what the runtime is told.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::config::limits::{self, Machine};
use super::{Engine, Error, config};
use crate::cgroup::{self, Choice, Manager, Wish};
use crate::monitor::protocol::Request;
use crate::runtime::processes;
use crate::storage::containers::{
    ContainerRecord, DeviceLimit, GroupManager, GroupMode, Limits, NamespaceMode, RunState, Status,
};

impl Engine {
    /// The group of a running container. One that has none, because nothing needed it when it was started by an
    /// ordinary user outside of any delegated group, gets one of the user's systemd now.
    pub(super) fn group_of(
        &self,
        record: &ContainerRecord,
        state: &RunState,
        action: &'static str,
    ) -> Result<PathBuf, Error> {
        if let Some(group) = &state.cgroup {
            return Ok(group.clone());
        }
        let none = || Error::Ungrouped { action, name: record.name.clone() };
        // Processes that share the host's pid namespace cannot be told from others.
        let all = || processes::of(state.pid, None).ok().flatten().unwrap_or_default();
        let own = record.config.pid == NamespaceMode::Private && record.config.cgroups;
        if !own || record.config.limits.manager == GroupManager::Cgroupfs || !all().contains(&state.pid) {
            return Err(none());
        }
        let first_first = || {
            let mut list = all();
            list.sort_by_key(|pid| *pid != state.pid);
            list
        };
        let made = cgroup::adopt(record.id.as_str(), &first_first)
            .map_err(|source| Error::Relimit { name: record.name.clone(), source: Box::new(source) })?;
        let group = made.ok_or_else(none)?;
        let state = RunState { cgroup: Some(group.clone()), ..state.clone() };
        self.containers.write_state(&record.id, &state)?;
        // Who runs health checks in there, and looks out for a want of memory, has to know.
        self.tell_monitor(&record.id, &Request::Reload);
        Ok(group)
    }
}

/// What the runtime is told of the limits; none if there are none. Devices are looked up now.
pub(super) fn resources(limits: &Limits) -> Result<Option<LinuxResources>, config::Error> {
    if !limits.is_limited() {
        return Ok(None);
    }
    let mut resources = limits::resources(limits, &device)?;
    // The type's own default has a rule.
    resources.set_devices(None);
    Ok(Some(resources))
}

/// No limits, and no rules for devices, which the type's own default has.
pub(super) fn nothing() -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    resources
}

/// The numbers of a block device of the host.
fn device(path: &str) -> io::Result<(u32, u32)> {
    let found = std::fs::metadata(path)?;
    if !found.file_type().is_block_device() {
        return Err(io::Error::from_raw_os_error(libc::ENOTBLK));
    }
    let number = found.rdev();
    Ok((rustix::fs::major(number), rustix::fs::minor(number)))
}

/// Who makes the group and where, or why it cannot be had with all its limits.
pub(super) fn choose(
    limits: &Limits,
    grouped: bool,
    id: &str,
    resources: Option<&LinuxResources>,
) -> Result<Choice, Error> {
    let wish = Wish {
        id,
        manager: match (grouped, limits.manager) {
            (false, _) => Some(Manager::Disabled),
            (true, GroupManager::Auto) => None,
            (true, GroupManager::Cgroupfs) => Some(Manager::Cgroupfs),
            (true, GroupManager::Systemd) => Some(Manager::Systemd),
        },
        parent: limits.parent.as_deref(),
        split: limits.mode == GroupMode::Split,
        resources,
    };
    cgroup::choose(&wish).map_err(|error| told(error, limits))
}

/// An error of the control groups' in the words of our flags.
pub(super) fn told(error: cgroup::Error, limits: &Limits) -> Error {
    match error {
        cgroup::Error::Denied { resource, reason, cure } => {
            Error::Limit { flag: limits::flag_of(&resource, limits), reason, cure }
        }
        cgroup::Error::Parent { parent, reason, cure } => {
            Error::Limit { flag: format!("--cgroup-parent \"{parent}\""), reason, cure }
        }
        cgroup::Error::Split { reason, cure } => {
            Error::Limit { flag: "--cgroups=split".to_owned(), reason, cure }
        }
        other => Error::Cgroup(Box::new(other)),
    }
}

/// Refuses what cannot be had here before anything is made.
pub(super) fn check(limits: &Limits, grouped: bool, id: &str) -> Result<(), Error> {
    if limits.is_limited() {
        limits::check(limits, &machine())?;
    }
    if let Some(class) = &limits.rdt_class {
        check_class(class)?;
    }
    let resources = resources(limits)?;
    choose(limits, grouped, id, resources.as_ref()).map(drop)
}

/// A class is the machine's, made by its administrator. One that we made ourselves would limit nothing.
fn check_class(class: &str) -> Result<(), Error> {
    let refused = |reason: String, cure: Option<&str>| {
        Err(Error::Limit { flag: format!("--rdt-class \"{class}\""), reason, cure: cure.map(str::to_owned) })
    };
    let root = Path::new("/sys/fs/resctrl");
    if !root.join("schemata").exists() {
        let cure = "where the processor can do it, as root: mount -t resctrl resctrl /sys/fs/resctrl";
        return refused("resctrl is not mounted".to_owned(), Some(cure));
    }
    let dir = root.join(class);
    if !dir.join("tasks").exists() {
        return refused(format!("there is no class \"{}\"", dir.display()), None);
    }
    if rustix::fs::access(dir.join("tasks"), rustix::fs::Access::WRITE_OK).is_err() {
        return refused("only root puts processes into classes".to_owned(), None);
    }
    Ok(())
}

/// What this machine has.
pub(super) fn machine() -> Machine {
    let set = |path: &str| -> BTreeSet<u32> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        limits::numbers(&text).unwrap_or_default()
    };
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let kib = total("MemTotal:").unwrap_or(0) + total("SwapTotal:").unwrap_or(0);
    Machine {
        memory: kib * 1024,
        processors: set("/sys/devices/system/cpu/online"),
        nodes: set("/sys/devices/system/node/online"),
    }
}

/// Limits as `inspect` shows them, in Podman's shape.
pub(super) struct Shown<'a>(pub &'a Limits);

impl Shown<'_> {
    /// Who makes the group: as it was, where it is there.
    pub fn manager(&self, status: &Status) -> &'static str {
        let group = match status {
            Status::Initialized(s) | Status::Running(s) | Status::Paused(s) | Status::Stopping(s) => {
                s.cgroup.as_deref()
            }
            _ => None,
        };
        match self.0.manager {
            GroupManager::Systemd => "systemd",
            GroupManager::Auto if group.is_some_and(|group| cgroup::Unit::of(group).is_some()) => "systemd",
            _ => "cgroupfs",
        }
    }

    /// Podman's word for the group.
    pub fn mode(&self, grouped: bool) -> &'static str {
        match (grouped, self.0.mode) {
            (false, _) => "disabled",
            (true, GroupMode::Enabled) => "default",
            (true, GroupMode::NoConmon) => "no-conmon",
            (true, GroupMode::Split) => "split",
        }
    }

    /// The fields of `HostConfig`.
    pub fn add_to(&self, value: &mut Value) {
        let limits = self.0;
        let devices = |list: &[DeviceLimit], word: &str| match list {
            [] => Value::Null,
            list => list.iter().map(|limit| json!({ "Path": limit.path, word: limit.value })).collect(),
        };
        let (quota, period) = limits::quota(limits);
        let conf = if limits.conf.is_empty() { Value::Null } else { json!(limits.conf) };
        let fields = [
            ("CpuShares", json!(limits.cpu_shares.unwrap_or(0))),
            ("Memory", json!(limits.memory.unwrap_or(0))),
            ("NanoCpus", json!(limits.nano_cpus.unwrap_or(0))),
            ("CgroupParent", json!(limits.parent.as_deref().unwrap_or_default())),
            ("BlkioWeight", json!(limits.blkio_weight.unwrap_or(0))),
            ("BlkioWeightDevice", devices(&limits.blkio_weight_device, "Weight")),
            ("BlkioDeviceReadBps", devices(&limits.read_bps, "Rate")),
            ("BlkioDeviceWriteBps", devices(&limits.write_bps, "Rate")),
            ("BlkioDeviceReadIOps", devices(&limits.read_iops, "Rate")),
            ("BlkioDeviceWriteIOps", devices(&limits.write_iops, "Rate")),
            ("CgroupConf", conf),
            ("CpuPeriod", json!(period.unwrap_or(0))),
            ("CpuQuota", json!(quota.unwrap_or(0))),
            ("CpuRealtimePeriod", json!(0)),
            ("CpuRealtimeRuntime", json!(0)),
            ("CpusetCpus", json!(limits.cpuset_cpus)),
            ("CpusetMems", json!(limits.cpuset_mems)),
            ("DiskQuota", json!(0)),
            ("KernelMemory", json!(0)),
            ("MemoryReservation", json!(limits.memory_reservation.unwrap_or(0))),
            ("MemorySwap", json!(limits::swap(limits).unwrap_or(0))),
            ("MemorySwappiness", json!(-1)),
            ("OomKillDisable", json!(false)),
            ("CpuCount", json!(0)),
            ("CpuPercent", json!(0)),
            ("IOMaximumIOps", json!(0)),
            ("IOMaximumBandwidth", json!(0)),
            ("PidsLimit", json!(limits.pids.unwrap_or(0))),
            ("IntelRdtClosID", json!(limits.rdt_class.as_deref().unwrap_or_default())),
        ];
        for (name, field) in fields {
            value[name] = field;
        }
    }
}
