//! From the runtime spec's resources, which speak version 1, to files of version 2. Pure.

use oci_spec::runtime::LinuxResources;

use super::Error;

/// One value for one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Which controller has the file; empty for those of every group.
    pub controller: &'static str,
    /// Its name.
    pub file: String,
    /// What to write.
    pub value: String,
    /// What it limits, for people.
    pub resource: &'static str,
}

fn setting(controller: &'static str, file: &str, value: impl ToString, resource: &'static str) -> Setting {
    Setting { controller, file: file.into(), value: value.to_string(), resource }
}

/// A limit in bytes or processes: -1 is none at all.
fn limit(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// What has to be written for these resources. What engines always send and means nothing (zeros, the
/// list of devices, which bind mounts and mknod's absence enforce) is passed over.
pub fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, Error> {
    let mut list = Vec::new();
    memory(resources, &mut list)?;
    cpu(resources, &mut list)?;
    if let Some(pids) = resources.pids()
        && pids.limit() != 0
    {
        list.push(setting("pids", "pids.max", limit(pids.limit()), "processes"));
    }
    for page in resources.hugepage_limits().iter().flatten() {
        let file = format!("hugetlb.{}.max", page.page_size());
        list.push(setting("hugetlb", &file, page.limit(), "huge pages"));
    }
    for (file, value) in resources.unified().iter().flatten() {
        let controller = file.split('.').next().unwrap_or_default();
        let known = ["cpu", "cpuset", "io", "memory", "pids", "hugetlb", "rdma", "misc"];
        let controller = known.iter().find(|name| **name == controller).copied().unwrap_or("");
        if file.contains('/') {
            return Err(Error::Range { resource: "unified file name", value: file.clone() });
        }
        list.push(setting(controller, file, value, "what \"unified\" names"));
    }
    block_io(resources, &mut list)?;
    Ok(list)
}

fn memory(resources: &LinuxResources, list: &mut Vec<Setting>) -> Result<(), Error> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let max = memory.limit().filter(|value| *value != 0);
    if let Some(max) = max {
        list.push(setting("memory", "memory.max", limit(max), "memory"));
    }
    if let Some(swap) = memory.swap().filter(|value| *value != 0) {
        // Version 1 counts memory and swap together, version 2 swap alone.
        let value = match max {
            _ if swap < 0 => "max".to_owned(),
            Some(max) if max > 0 && swap >= max => (swap - max).to_string(),
            _ => {
                return Err(Error::Range { resource: "limit of memory and swap", value: swap.to_string() });
            }
        };
        list.push(setting("memory", "memory.swap.max", value, "swap"));
    }
    if let Some(low) = memory.reservation().filter(|value| *value != 0) {
        list.push(setting("memory", "memory.low", limit(low), "the memory reservation"));
    }
    Ok(())
}

fn cpu(resources: &LinuxResources, list: &mut Vec<Setting>) -> Result<(), Error> {
    let Some(cpu) = resources.cpu() else { return Ok(()) };
    if let Some(shares) = cpu.shares().filter(|value| *value != 0) {
        list.push(setting("cpu", "cpu.weight", weight(shares), "the share of the processors"));
    }
    let quota = cpu.quota().filter(|value| *value != 0);
    let period = cpu.period().filter(|value| *value != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|value| *value > 0).map_or("max".into(), |value| value.to_string());
        let value = format!("{quota} {}", period.unwrap_or(100_000));
        list.push(setting("cpu", "cpu.max", value, "the time of the processors"));
    }
    if cpu.realtime_runtime().is_some_and(|value| value != 0)
        || cpu.realtime_period().is_some_and(|value| value != 0)
    {
        return Err(Error::Unavailable {
            resource: "real-time scheduling".into(),
            reason: "control groups of version 2 have no such limit".into(),
        });
    }
    for (file, value) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            list.push(setting("cpuset", file, value, "the choice of processors"));
        }
    }
    if let Some(idle) = cpu.idle() {
        list.push(setting("cpu", "cpu.idle", idle, "processor idleness"));
    }
    Ok(())
}

/// Shares from 2 to 262144 become a weight from 1 to 10000, with 1024 at 100 as runc and crun now
/// have it: log2 of the weight is a parabola through those three points.
fn weight(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let l = (shares as f64).log2();
    let exponent = (l * l + 125.0 * l) / 612.0 - 7.0 / 34.0;
    (10_f64.powf(exponent)).ceil() as u64
}

fn block_io(resources: &LinuxResources, list: &mut Vec<Setting>) -> Result<(), Error> {
    let Some(io) = resources.block_io() else { return Ok(()) };
    if let Some(weight) = io.weight().filter(|value| *value != 0) {
        // 10 to 1000 becomes 1 to 10000.
        let value = 1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990;
        list.push(setting("io", "io.weight", value, "the share of the disks"));
    }
    let throttles = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten() {
            let value = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
            list.push(setting("io", "io.max", value, "the rate of the disks"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: serde_json::Value) -> Result<Vec<(String, String)>, Error> {
        let resources: LinuxResources = serde_json::from_value(json).unwrap();
        Ok(settings(&resources)?.into_iter().map(|s| (s.file, s.value)).collect())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn harmless_defaults_ask_for_nothing() {
        let defaults = serde_json::json!({
            "devices": [{"allow": false, "access": "rwm"}], "memory": {"limit": 0}, "cpu": {"shares": 0}, "pids": {"limit": 0},
        });
        assert_eq!(written(defaults).unwrap(), []);
    }

    #[test]
    fn memory_and_swap_are_parted() {
        let json = serde_json::json!({"memory": {"limit": 100, "swap": 300, "reservation": 50}});
        let expected = pairs(&[("memory.max", "100"), ("memory.swap.max", "200"), ("memory.low", "50")]);
        assert_eq!(written(json).unwrap(), expected);
        assert!(written(serde_json::json!({"memory": {"limit": 300, "swap": 100}})).is_err());
        let json = serde_json::json!({"memory": {"limit": -1, "swap": -1}});
        assert_eq!(written(json).unwrap(), pairs(&[("memory.max", "max"), ("memory.swap.max", "max")]));
    }

    #[test]
    fn processors() {
        let json =
            serde_json::json!({"cpu": {"shares": 1024, "quota": 50000, "period": 200000, "cpus": "0-1"}});
        let expected = pairs(&[("cpu.weight", "100"), ("cpu.max", "50000 200000"), ("cpuset.cpus", "0-1")]);
        assert_eq!(written(json).unwrap(), expected);
        assert_eq!([weight(2), weight(262_144), weight(1)], [1, 10_000, 1]);
        let json = serde_json::json!({"cpu": {"realtimeRuntime": 5}});
        assert!(matches!(written(json), Err(Error::Unavailable { .. })));
    }

    #[test]
    fn processes_and_files_by_name() {
        let json = serde_json::json!({"pids": {"limit": 10}, "unified": {"memory.high": "5"}});
        assert_eq!(written(json).unwrap(), pairs(&[("pids.max", "10"), ("memory.high", "5")]));
        assert!(written(serde_json::json!({"unified": {"../x": "5"}})).is_err());
    }
}
