//! `linux.resources` (written for v1) as files of cgroup v2
//! (`Documentation/admin-guide/cgroup-v2.rst`).

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::Error;

/// One file to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The specification's field.
    pub field: &'static str,
    /// The controller that has the file; empty for the core's.
    pub controller: String,
    /// The file.
    pub file: String,
    /// What is written.
    pub value: String,
    /// It limits nothing (an engine's "unlimited"): no error where it cannot be written.
    pub harmless: bool,
}

fn unavailable(field: &str, reason: &str) -> Error {
    Error::Unavailable { resource: field.to_owned(), reason: reason.to_owned() }
}

fn invalid(field: &str, reason: &str) -> Error {
    Error::Invalid { resource: field.to_owned(), reason: reason.to_owned() }
}

const ONLY_V1: &str = "cgroup v2 does not have it";

/// Everything that is to be written. Device rules are left out: a container has the nodes that it
/// was given and, without CAP_MKNOD or in a user namespace, can make no others.
pub(super) fn settings(resources: Option<&LinuxResources>) -> Result<Vec<Setting>, Error> {
    let mut list = Vec::new();
    let Some(resources) = resources else { return Ok(list) };
    if let Some(value) = resources.memory() {
        memory(value, &mut list)?;
    }
    if let Some(value) = resources.cpu() {
        cpu(value, &mut list)?;
    }
    if let Some(limit) = resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
        push(&mut list, "pids.limit", "pids", "pids.max", limit_text(limit), limit < 0);
    }
    if let Some(value) = resources.block_io() {
        block_io(value, &mut list)?;
    }
    for limit in resources.hugepage_limits().as_deref().unwrap_or_default() {
        let size = limit.page_size();
        if size.contains('/') {
            return Err(invalid("hugepageLimits", "the page size has a slash"));
        }
        let file = format!("hugetlb.{size}.max");
        push(&mut list, "hugepageLimits", "hugetlb", &file, limit_text(limit.limit()), limit.limit() < 0);
    }
    if let Some(network) = resources.network() {
        let priorities = network.priorities().as_ref().is_some_and(|p| !p.is_empty());
        if network.class_id().is_some_and(|id| id != 0) || priorities {
            return Err(unavailable("network", ONLY_V1));
        }
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        let part = |name: &str, value: Option<u32>| value.map(|v| format!(" {name}={v}")).unwrap_or_default();
        let value = format!(
            "{device}{}{}",
            part("hca_handle", limit.hca_handles()),
            part("hca_object", limit.hca_objects())
        );
        push(&mut list, "rdma", "rdma", "rdma.max", value, false);
    }
    let mut unified: Vec<(&String, &String)> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let controller = file.split('.').next().unwrap_or_default();
        if file.contains('/') || !file.contains('.') {
            return Err(invalid("unified", "a key is not the name of a cgroup file"));
        }
        let controller = if controller == "cgroup" { "" } else { controller };
        push(&mut list, "unified", controller, file, value.clone(), false);
    }
    Ok(list)
}

fn push(
    list: &mut Vec<Setting>,
    field: &'static str,
    controller: &str,
    file: &str,
    value: String,
    harmless: bool,
) {
    list.push(Setting { field, controller: controller.to_owned(), file: file.to_owned(), value, harmless });
}

fn limit_text(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

fn memory(memory: &LinuxMemory, list: &mut Vec<Setting>) -> Result<(), Error> {
    let asked = |value: Option<i64>| value.filter(|value| *value != 0);
    for (value, field) in [(memory.kernel(), "memory.kernel"), (memory.kernel_tcp(), "memory.kernelTCP")] {
        if asked(value).is_some_and(|v| v > 0) {
            return Err(unavailable(field, ONLY_V1));
        }
    }
    if memory.swappiness().is_some_and(|v| v != 60) {
        return Err(unavailable("memory.swappiness", ONLY_V1));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(unavailable("memory.disableOOMKiller", ONLY_V1));
    }
    let limit = asked(memory.limit());
    if let Some(limit) = limit {
        push(list, "memory.limit", "memory", "memory.max", limit_text(limit), limit < 0);
    }
    if let Some(low) = asked(memory.reservation()) {
        push(list, "memory.reservation", "memory", "memory.low", limit_text(low.max(0)), low < 0);
    }
    // v1 counts memory and swap together, v2 swap alone.
    match (asked(memory.swap()), limit) {
        (None, _) => {}
        (Some(swap), _) if swap < 0 => {
            push(list, "memory.swap", "memory", "memory.swap.max", "max".into(), true)
        }
        (Some(_), None) => return Err(invalid("memory.swap", "it needs memory.limit")),
        (Some(_), Some(limit)) if limit < 0 => {
            return Err(invalid("memory.swap", "it is limited and memory.limit is not"));
        }
        (Some(swap), Some(limit)) if swap < limit => {
            return Err(invalid("memory.swap", "it is below memory.limit"));
        }
        (Some(swap), Some(limit)) => {
            push(list, "memory.swap", "memory", "memory.swap.max", (swap - limit).to_string(), false);
        }
    }
    Ok(())
}

fn cpu(cpu: &LinuxCpu, list: &mut Vec<Setting>) -> Result<(), Error> {
    if cpu.realtime_runtime().is_some_and(|v| v != 0) || cpu.realtime_period().is_some_and(|v| v != 0) {
        return Err(unavailable("cpu.realtimeRuntime", ONLY_V1));
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        push(list, "cpu.shares", "cpu", "cpu.weight", weight_of_shares(shares).to_string(), shares == 1024);
    }
    let period = cpu.period().filter(|p| *p != 0);
    match cpu.quota().filter(|quota| *quota != 0) {
        Some(quota) if quota > 0 => {
            let value = format!("{quota} {}", period.unwrap_or(100_000));
            push(list, "cpu.quota", "cpu", "cpu.max", value, false);
        }
        other => {
            if let Some(period) = period.or(other.map(|_| 100_000)) {
                push(list, "cpu.period", "cpu", "cpu.max", format!("max {period}"), true);
            }
        }
    }
    if let Some(burst) = cpu.burst().filter(|burst| *burst != 0) {
        push(list, "cpu.burst", "cpu", "cpu.max.burst", burst.to_string(), false);
    }
    if let Some(idle) = cpu.idle().filter(|idle| *idle != 0) {
        push(list, "cpu.idle", "cpu", "cpu.idle", idle.to_string(), false);
    }
    for (value, field, file) in
        [(cpu.cpus(), "cpu.cpus", "cpuset.cpus"), (cpu.mems(), "cpu.mems", "cpuset.mems")]
    {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            push(list, field, "cpuset", file, value.clone(), false);
        }
    }
    Ok(())
}

/// From 2..=262144 shares to a weight of 1..=10000, linearly, as all runtimes do.
fn weight_of_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

fn block_io(io: &LinuxBlockIo, list: &mut Vec<Setting>) -> Result<(), Error> {
    let leaf = io.leaf_weight().is_some_and(|w| w != 0);
    if leaf || io.weight_device().as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(unavailable("blockIO.weightDevice", "only the group's weight is supported"));
    }
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        let weight = 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990;
        push(list, "blockIO.weight", "io", "io.weight", format!("default {weight}"), false);
    }
    let throttles: [(&Option<Vec<LinuxThrottleDevice>>, &str); 4] = [
        (io.throttle_read_bps_device(), "rbps"),
        (io.throttle_write_bps_device(), "wbps"),
        (io.throttle_read_iops_device(), "riops"),
        (io.throttle_write_iops_device(), "wiops"),
    ];
    for (devices, key) in throttles {
        for device in devices.as_deref().unwrap_or_default() {
            let value = format!("{}:{} {key}={}", device.major(), device.minor(), device.rate());
            push(list, "blockIO.throttle", "io", "io.max", value, false);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Vec<(String, String, bool)>, Error> {
        let resources: LinuxResources = serde_json::from_str(json).unwrap();
        Ok(settings(Some(&resources))?.into_iter().map(|s| (s.file, s.value, s.harmless)).collect())
    }

    #[test]
    fn v1_becomes_v2() {
        let list = of(r#"{"memory":{"limit":100,"swap":150,"reservation":50},"cpu":{"shares":512,"quota":5000,"cpus":"0"},"pids":{"limit":9}}"#).unwrap();
        let expected = [
            ("memory.max", "100"),
            ("memory.low", "50"),
            ("memory.swap.max", "50"),
            ("cpu.weight", "20"),
            ("cpu.max", "5000 100000"),
            ("cpuset.cpus", "0"),
            ("pids.max", "9"),
        ];
        let got: Vec<(&str, &str)> = list.iter().map(|(f, v, _)| (f.as_str(), v.as_str())).collect();
        assert_eq!(got, expected);
        assert!(list.iter().all(|(_, _, harmless)| !harmless));
    }

    #[test]
    fn defaults_of_engines_are_harmless() {
        let list = of(r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":-1,"swap":0},"cpu":{"shares":0,"quota":-1},"pids":{"limit":-1}}"#).unwrap();
        assert!(list.iter().all(|(_, _, harmless)| *harmless), "{list:?}");
        assert!(of("{}").unwrap().is_empty());
    }

    #[test]
    fn what_v2_lacks_is_refused() {
        for json in [
            r#"{"memory":{"swappiness":10}}"#,
            r#"{"memory":{"swap":5}}"#,
            r#"{"memory":{"kernel":5}}"#,
            r#"{"cpu":{"realtimeRuntime":5}}"#,
            r#"{"network":{"classID":5}}"#,
            r#"{"unified":{"../x":"1"}}"#,
        ] {
            assert!(of(json).is_err(), "{json}");
        }
    }
}
