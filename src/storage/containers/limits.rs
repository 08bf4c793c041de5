//! What a container was told to keep within, as it was asked for: what becomes of it is the kernel's and this
//! machine's affair, and worked out at each start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::is_default;

/// Who makes the control group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupManager {
    /// Whoever can here.
    #[default]
    Auto,
    /// We do, in the kernel's file system.
    Cgroupfs,
    /// systemd.
    Systemd,
}

/// Which control group the container gets, beside none (`--cgroups`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupMode {
    /// One of its own.
    #[default]
    Enabled,
    /// The same; that the monitor has none is so anyway.
    NoConmon,
    /// One below the caller's own, whose processes move into another one there.
    Split,
}

/// A block device and what is said of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLimit {
    /// On the host. Its numbers are looked up at each start.
    pub path: String,
    /// A weight of 10 to 1000, bytes a second, or operations a second.
    pub value: u64,
}

/// Limits; what is none says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; -1: as much swap as there is.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_swap: Option<i64>,
    /// Bytes that others shall not take from it.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_reservation: Option<u64>,
    /// Thousand-millionths of a processor.
    #[serde(skip_serializing_if = "is_default")]
    pub nano_cpus: Option<u64>,
    /// Microseconds of processor time in a period; -1 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_period: Option<u64>,
    /// 2 to 262144.
    #[serde(skip_serializing_if = "is_default")]
    pub cpu_shares: Option<u64>,
    /// Processors: `0-2,5`.
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset_cpus: String,
    /// Nodes of memory: `0-2,5`.
    #[serde(skip_serializing_if = "is_default")]
    pub cpuset_mems: String,
    /// Processes; -1 is no limit.
    #[serde(skip_serializing_if = "is_default")]
    pub pids: Option<i64>,
    /// 10 to 1000.
    #[serde(skip_serializing_if = "is_default")]
    pub blkio_weight: Option<u16>,
    /// The same for single devices.
    #[serde(skip_serializing_if = "is_default")]
    pub blkio_weight_device: Vec<DeviceLimit>,
    /// Bytes a second.
    #[serde(skip_serializing_if = "is_default")]
    pub read_bps: Vec<DeviceLimit>,
    /// Bytes a second.
    #[serde(skip_serializing_if = "is_default")]
    pub write_bps: Vec<DeviceLimit>,
    /// Operations a second.
    #[serde(skip_serializing_if = "is_default")]
    pub read_iops: Vec<DeviceLimit>,
    /// Operations a second.
    #[serde(skip_serializing_if = "is_default")]
    pub write_iops: Vec<DeviceLimit>,
    /// Files of the group and what is written into them.
    #[serde(skip_serializing_if = "is_default")]
    pub conf: BTreeMap<String, String>,
    /// The group above the container's own.
    #[serde(skip_serializing_if = "is_default")]
    pub parent: Option<String>,
    /// Who makes the group.
    #[serde(skip_serializing_if = "is_default")]
    pub manager: GroupManager,
    /// Which group it is.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: GroupMode,
    /// A class of service of resctrl.
    #[serde(skip_serializing_if = "is_default")]
    pub rdt_class: Option<String>,
}

impl Limits {
    /// Whether a controller is needed for anything.
    pub fn is_limited(&self) -> bool {
        let group = Self {
            parent: self.parent.clone(),
            manager: self.manager,
            mode: self.mode,
            rdt_class: self.rdt_class.clone(),
            ..Self::default()
        };
        *self != group
    }

    /// Whether processes may be killed for want of memory that the container alone is short of.
    pub fn bounds_memory(&self) -> bool {
        self.memory.is_some()
            || self.parent.is_some()
            || self.conf.keys().any(|file| file.starts_with("memory."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_nothing_written() {
        assert_eq!(serde_json::to_string(&Limits::default()).unwrap(), "{}");
        assert!(!Limits::default().is_limited());
        let placed = Limits { parent: Some("/x".into()), mode: GroupMode::Split, ..Limits::default() };
        assert!(!placed.is_limited() && placed.bounds_memory());
        let limited = Limits { pids: Some(5), ..placed };
        assert!(limited.is_limited());
        let text = serde_json::to_string(&limited).unwrap();
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), limited);
    }
}
