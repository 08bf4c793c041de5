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
    /// What is written instead where that file is not there: file and value.
    pub otherwise: Option<(&'static str, String)>,
    /// What it means where it cannot be written.
    pub weight: Weight,
}

/// How much depends on a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// It limits nothing (an engine's "unlimited"): no error where it cannot be written.
    Harmless,
    /// An engine sends it without being asked: no error where the controller is not there.
    Usual,
    /// A kernel without the file does what is asked for anyway.
    Implied,
    /// It was asked for.
    Wanted,
}

fn unavailable(field: &str, reason: &str) -> Error {
    Error::Unavailable { resource: field.to_owned(), reason: reason.to_owned() }
}

fn invalid(field: &str, reason: &str) -> Error {
    Error::Invalid { resource: field.to_owned(), reason: reason.to_owned() }
}

const ONLY_V1: &str = "cgroup v2 does not have it";
/// The kernel's own `cpu.max` period, microseconds.
pub(super) const DEFAULT_PERIOD: u64 = 100_000;

/// Everything that is to be written but the device rules, in an order in which each can be taken.
pub(super) fn settings(resources: Option<&LinuxResources>) -> Result<Vec<Setting>, Error> {
    let mut list = List(Vec::new());
    let Some(resources) = resources else { return Ok(list.0) };
    if let Some(value) = resources.memory() {
        memory(value, &mut list)?;
    }
    if let Some(value) = resources.cpu() {
        cpu(value, &mut list)?;
    }
    if let Some(limit) = resources.pids().map(|pids| pids.limit()).filter(|limit| *limit != 0) {
        // Podman's own.
        let weight = if limit == 2048 { Weight::Usual } else { weight_of_limit(limit) };
        list.push("pids.limit", "pids", "pids.max", limit_text(limit), weight);
    }
    if let Some(value) = resources.block_io() {
        block_io(value, &mut list)?;
    }
    for limit in resources.hugepage_limits().as_deref().unwrap_or_default() {
        let size = limit.page_size();
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(invalid("hugepageLimits", "the page size is not like \"2MB\""));
        }
        list.limit("hugepageLimits", "hugetlb", &format!("hugetlb.{size}.max"), limit.limit());
        // Reserved pages are counted apart since Linux 5.7; before, the limit above is all there is.
        let file = format!("hugetlb.{size}.rsvd.max");
        list.push("hugepageLimits", "hugetlb", &file, limit_text(limit.limit()), Weight::Implied);
    }
    if let Some(network) = resources.network() {
        let priorities = network.priorities().as_ref().is_some_and(|p| !p.is_empty());
        if network.class_id().is_some_and(|id| id != 0) || priorities {
            return Err(unavailable("network", ONLY_V1));
        }
    }
    for (device, limit) in resources.rdma().iter().flatten() {
        if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(invalid("rdma", "a device's name is empty or has a space"));
        }
        let part = |name: &str, value: Option<u32>| value.map(|v| format!(" {name}={v}")).unwrap_or_default();
        let parts = part("hca_handle", limit.hca_handles()) + &part("hca_object", limit.hca_objects());
        if !parts.is_empty() {
            list.push("rdma", "rdma", "rdma.max", device.clone() + &parts, Weight::Wanted);
        }
    }
    unified(resources, &mut list)?;
    Ok(list.0)
}

fn unified(resources: &LinuxResources, list: &mut List) -> Result<(), Error> {
    let mut unified: Vec<(&String, &String)> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let (controller, rest) = file.split_once('.').unwrap_or_default();
        if controller.is_empty() || rest.is_empty() || !file.bytes().all(word) {
            return Err(invalid("unified", &format!("\"{file}\" is not the name of a cgroup file")));
        }
        if controller == "cgroup" && !matches!(rest, "max.depth" | "max.descendants") {
            // Processes, freezing and handing down are the runtime's own business.
            return Err(invalid("unified", &format!("\"{file}\" cannot be set by a configuration")));
        }
        let controller = if controller == "cgroup" { "" } else { controller };
        // It says the same more exactly.
        list.0.retain(|setting| setting.file != *file || file == "io.max" || file == "io.weight");
        list.push("unified", controller, file, value.clone(), Weight::Wanted);
    }
    Ok(())
}

struct List(Vec<Setting>);

impl List {
    fn push(&mut self, field: &'static str, controller: &str, file: &str, value: String, weight: Weight) {
        let (controller, file) = (controller.to_owned(), file.to_owned());
        self.0.push(Setting { field, controller, file, value, otherwise: None, weight });
    }

    /// A limit, of which a negative one is none.
    fn limit(&mut self, field: &'static str, controller: &str, file: &str, limit: i64) {
        self.push(field, controller, file, limit_text(limit), weight_of_limit(limit));
    }
}

fn weight_of_limit(limit: i64) -> Weight {
    if limit < 0 { Weight::Harmless } else { Weight::Wanted }
}

fn limit_text(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

fn memory(memory: &LinuxMemory, list: &mut List) -> Result<(), Error> {
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
    // v1 counts memory and swap together, v2 swap alone. Before the memory's limit: who lowers both
    // must not push into swap what may not stay there.
    let swap = match (asked(memory.swap()), limit) {
        (None, Some(limit)) if limit < 0 => Some(-1),
        (None, _) => None,
        (Some(swap), _) if swap < 0 => Some(-1),
        (Some(_), None) => return Err(invalid("memory.swap", "it needs memory.limit")),
        (Some(swap), Some(limit)) if limit < 0 => Some(swap),
        (Some(swap), Some(limit)) if swap < limit => {
            return Err(invalid("memory.swap", "it is below memory.limit, which is a part of it"));
        }
        (Some(swap), Some(limit)) => Some(swap - limit),
    };
    // Twice the memory is what engines send where their users say nothing of swap.
    let usual = swap.is_some_and(|swap| swap > 0) && swap == limit;
    match swap {
        // Without swap accounting there is no file, and "none" is not what the kernel does then; but
        // a machine without swap has none to give.
        Some(0) => list.push("memory.swap", "memory", "memory.swap.max", "0".into(), Weight::Implied),
        Some(swap) if usual => {
            list.push("memory.swap", "memory", "memory.swap.max", swap.to_string(), Weight::Usual);
        }
        Some(swap) => list.limit("memory.swap", "memory", "memory.swap.max", swap),
        None => {}
    }
    if let Some(limit) = limit {
        list.limit("memory.limit", "memory", "memory.max", limit);
    }
    if let Some(low) = asked(memory.reservation()) {
        list.limit("memory.reservation", "memory", "memory.low", low);
    }
    Ok(())
}

fn cpu(cpu: &LinuxCpu, list: &mut List) -> Result<(), Error> {
    if cpu.realtime_runtime().is_some_and(|v| v != 0) || cpu.realtime_period().is_some_and(|v| v != 0) {
        return Err(unavailable("cpu.realtimeRuntime", ONLY_V1));
    }
    let idle = match cpu.idle() {
        None => false,
        Some(0) => {
            list.push("cpu.idle", "cpu", "cpu.idle", "0".into(), Weight::Harmless);
            false
        }
        Some(1) => {
            list.push("cpu.idle", "cpu", "cpu.idle", "1".into(), Weight::Wanted);
            true
        }
        Some(_) => return Err(invalid("cpu.idle", "it is neither 0 nor 1")),
    };
    // An idle group has no weight (the kernel refuses to set one).
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && !idle) {
        let weight = if shares == 1024 { Weight::Harmless } else { Weight::Wanted };
        list.push("cpu.shares", "cpu", "cpu.weight", weight_of_shares(shares).to_string(), weight);
    }
    // Before cpu.max, whose quota may not be below it; what the kernel refuses now is tried again after.
    if let Some(burst) = cpu.burst() {
        let weight = if burst == 0 { Weight::Harmless } else { Weight::Wanted };
        list.push("cpu.burst", "cpu", "cpu.max.burst", burst.to_string(), weight);
    }
    let period = cpu.period().filter(|p| *p != 0);
    match cpu.quota().filter(|quota| *quota != 0) {
        Some(quota) if quota > 0 => {
            let value = format!("{quota} {}", period.unwrap_or(DEFAULT_PERIOD));
            list.push("cpu.quota", "cpu", "cpu.max", value, Weight::Wanted);
        }
        other => {
            if let Some(period) = period.or(other.map(|_| DEFAULT_PERIOD)) {
                list.push("cpu.period", "cpu", "cpu.max", format!("max {period}"), Weight::Harmless);
            }
        }
    }
    for (value, field, file) in
        [(cpu.cpus(), "cpu.cpus", "cpuset.cpus"), (cpu.mems(), "cpu.mems", "cpuset.mems")]
    {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            list.push(field, "cpuset", file, value.clone(), Weight::Wanted);
        }
    }
    Ok(())
}

/// From 2..=262144 shares to a weight of 1..=10000, such that each end and the default (1024 shares,
/// weight 100) fall on each other: a parabola in the exponents, as runc and crun have it since 2025.
pub(super) fn weight_of_shares(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // A rounding error must not lift a whole number to the next one.
            (10_f64.powf(exponent) - 1e-6).ceil() as u64
        }
    }
}

/// From BFQ's 10..=1000 to 1..=10000, linearly.
fn io_weight(weight: u16) -> u64 {
    1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
}

fn block_io(io: &LinuxBlockIo, list: &mut List) -> Result<(), Error> {
    let devices = io.weight_device().as_deref().unwrap_or_default();
    let leaves = devices.iter().map(|device| device.leaf_weight());
    if std::iter::once(io.leaf_weight()).chain(leaves).flatten().any(|weight| weight != 0) {
        return Err(unavailable("blockIO.leafWeight", ONLY_V1));
    }
    let in_range = |field, weight| match weight {
        10..=1000 => Ok(weight),
        _ => Err(invalid(field, "it is not in 10..1000")),
    };
    let mut weigh = |field, device: &str, default: &str, weight: u16| {
        let value = format!("{device}{weight}");
        list.push(field, "io", "io.bfq.weight", value, Weight::Wanted);
        if let Some(setting) = list.0.last_mut() {
            setting.otherwise = Some(("io.weight", format!("{default}{}", io_weight(weight))));
        }
    };
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        weigh("blockIO.weight", "", "default ", in_range("blockIO.weight", weight)?);
    }
    for device in devices {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let name = format!("{}:{} ", device.major(), device.minor());
            weigh("blockIO.weightDevice", &name, &name, in_range("blockIO.weightDevice", weight)?);
        }
    }
    let throttles: [(&Option<Vec<LinuxThrottleDevice>>, &str); 4] = [
        (io.throttle_read_bps_device(), "rbps"),
        (io.throttle_write_bps_device(), "wbps"),
        (io.throttle_read_iops_device(), "riops"),
        (io.throttle_write_iops_device(), "wiops"),
    ];
    for (devices, key) in throttles {
        for device in devices.as_deref().unwrap_or_default() {
            // 0 takes a limit off, as in v1.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            list.push("blockIO.throttle", "io", "io.max", value, Weight::Wanted);
        }
    }
    Ok(())
}

/// What takes off the limits that were set before and are not any more, as far as that can be said.
pub(super) fn lifted(before: &[Setting], now: &[Setting]) -> Vec<Setting> {
    let gone = |old: &&Setting| {
        // A line a device.
        let key = |setting: &Setting| {
            setting.value.split(' ').next().filter(|k| k.contains(':')).map(str::to_owned)
        };
        let rate = |setting: &Setting| setting.value.split('=').next().map(str::to_owned);
        !now.iter().any(|new| {
            new.file == old.file && key(new) == key(old) && (old.file != "io.max" || rate(new) == rate(old))
        })
    };
    let usual = |old: &Setting| -> Option<String> {
        Some(match old.file.as_str() {
            "memory.max" | "memory.swap.max" | "memory.high" | "pids.max" => "max".to_owned(),
            "memory.low" | "memory.min" => "0".to_owned(),
            "cpu.weight" => "100".to_owned(),
            "cpu.max" => format!("max {DEFAULT_PERIOD}"),
            "cpuset.cpus" | "cpuset.mems" => "\n".to_owned(),
            "io.max" => old.value.split_once('=')?.0.to_owned() + "=max",
            _ => return None,
        })
    };
    let lift = |old: &Setting| {
        Some(Setting { value: usual(old)?, otherwise: None, weight: Weight::Implied, ..old.clone() })
    };
    before.iter().filter(gone).filter_map(lift).collect()
}

/// What a container's limits are after an update: what the update names is replaced, the rest stays
/// (some limits are worked out of two fields).
pub(super) fn merge(old: &LinuxResources, update: &LinuxResources) -> Result<LinuxResources, Error> {
    let value = |resources: &LinuxResources| {
        serde_json::to_value(resources).map_err(|e| invalid("linux.resources", &e.to_string()))
    };
    let mut update = value(update)?;
    // Unlimited memory means unlimited swap, where nothing is said of it (as in v1).
    if let Some(memory) = update.get_mut("memory").and_then(serde_json::Value::as_object_mut)
        && memory.get("limit") == Some(&(-1).into())
    {
        memory.entry("swap").or_insert((-1).into());
    }
    let mut merged = value(old)?;
    overlay(&mut merged, update);
    let mut merged: LinuxResources =
        serde_json::from_value(merged).map_err(|e| invalid("linux.resources", &e.to_string()))?;
    // What the old configuration said in v2's own words gives way to what the update says in v1's.
    let named: Vec<String> = named_files(&merged, old)?;
    if let Some(unified) = merged.unified_mut() {
        unified.retain(|file, value| {
            !named.contains(file) || old.unified().as_ref().and_then(|old| old.get(file)) != Some(value)
        });
    }
    Ok(merged)
}

/// The files that `new` has settings for, apart from `unified`, that `old` has not or has others for.
fn named_files(new: &LinuxResources, old: &LinuxResources) -> Result<Vec<String>, Error> {
    let plain = |resources: &LinuxResources| {
        let mut resources = resources.clone();
        resources.set_unified(None);
        settings(Some(&resources))
    };
    let before = plain(old)?;
    Ok(plain(new)?.into_iter().filter(|s| !before.contains(s)).map(|s| s.file).collect())
}

/// Fields whose zero means a zero; everywhere else it means "as it is".
const ZERO_COUNTS: [&str; 4] = ["idle", "burst", "hcaHandles", "hcaObjects"];

/// Lays one JSON object over another. Lists are replaced whole; a zero or an empty text says nothing.
fn overlay(under: &mut serde_json::Value, over: serde_json::Value) {
    use serde_json::Value;
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                if value == 0 && !ZERO_COUNTS.contains(&key.as_str()) {
                    continue;
                }
                match under.get_mut(&key) {
                    Some(below) => overlay(below, value),
                    None => {
                        under.insert(key, value);
                    }
                }
            }
        }
        (_, Value::Null) => {}
        (under, Value::String(text)) if text.is_empty() && under.is_string() => {}
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    fn of(json: &str) -> Result<Vec<(String, String, Weight)>, Error> {
        Ok(settings(Some(&parse(json)))?.into_iter().map(|s| (s.file, s.value, s.weight)).collect())
    }

    fn texts(json: &str) -> Vec<String> {
        of(json).unwrap().into_iter().map(|(file, value, _)| format!("{file}={value}")).collect()
    }

    // spec: linux.resources.memory.limit, linux.resources.memory.swap, linux.resources.memory.reservation
    // spec: linux.resources.cpu.shares, linux.resources.cpu.quota, linux.resources.cpu.cpus, linux.resources.pids.limit
    #[test]
    fn v1_becomes_v2() {
        let json = r#"{"memory":{"limit":100,"swap":150,"reservation":50},"cpu":{"shares":512,"quota":5000,"cpus":"0"},"pids":{"limit":9}}"#;
        assert_eq!(
            texts(json),
            [
                "memory.swap.max=50",
                "memory.max=100",
                "memory.low=50",
                "cpu.weight=59",
                "cpu.max=5000 100000",
                "cpuset.cpus=0",
                "pids.max=9"
            ]
        );
        assert!(of(json).unwrap().iter().all(|(_, _, weight)| *weight == Weight::Wanted));
    }

    #[test]
    fn shares_become_weights_that_keep_the_default() {
        let pairs = [(1, 1), (2, 1), (1024, 100), (262_144, 10_000), (u64::MAX, 10_000), (4096, 303)];
        for (shares, weight) in pairs {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
        assert!((2..262_144).step_by(7).all(|s| weight_of_shares(s) <= weight_of_shares(s + 7)));
    }

    #[test]
    fn defaults_of_engines_are_harmless() {
        let json = r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":-1,"swap":0,"disableOOMKiller":false},"cpu":{"shares":0,"quota":-1,"idle":0,"burst":0},"pids":{"limit":-1},"blockIO":{"weight":0}}"#;
        let list = of(json).unwrap();
        assert!(list.iter().all(|(_, _, weight)| *weight == Weight::Harmless), "{list:?}");
        assert!(of("{}").unwrap().is_empty());
        assert_eq!(of(r#"{"pids":{"limit":2048}}"#).unwrap()[0].2, Weight::Usual);
    }

    #[test]
    fn what_v2_lacks_is_refused() {
        for json in [
            r#"{"memory":{"swappiness":10}}"#,
            r#"{"memory":{"swap":5}}"#,
            r#"{"memory":{"swap":5,"limit":6}}"#,
            r#"{"memory":{"kernel":5}}"#,
            r#"{"cpu":{"realtimeRuntime":5}}"#,
            r#"{"cpu":{"idle":2}}"#,
            r#"{"network":{"classID":5}}"#,
            r#"{"blockIO":{"leafWeight":5}}"#,
            r#"{"blockIO":{"weight":5}}"#,
            r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#,
            r#"{"rdma":{"a b":{"hcaHandles":1}}}"#,
            r#"{"unified":{"../x":"1"}}"#,
            r#"{"unified":{"memory":"1"}}"#,
            r#"{"unified":{"cgroup.procs":"1"}}"#,
        ] {
            assert!(of(json).is_err(), "{json}");
        }
    }

    #[test]
    fn swap_is_what_exceeds_memory() {
        assert_eq!(texts(r#"{"memory":{"limit":7,"swap":7}}"#), ["memory.swap.max=0", "memory.max=7"]);
        assert_eq!(texts(r#"{"memory":{"limit":-1}}"#), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(texts(r#"{"memory":{"limit":-1,"swap":9}}"#), ["memory.swap.max=9", "memory.max=max"]);
        assert_eq!(texts(r#"{"memory":{"limit":7}}"#), ["memory.max=7"]);
    }

    #[test]
    fn processors() {
        assert_eq!(texts(r#"{"cpu":{"idle":1,"shares":9}}"#), ["cpu.idle=1"]);
        assert_eq!(
            texts(r#"{"cpu":{"period":1000,"quota":500,"burst":10}}"#),
            ["cpu.max.burst=10", "cpu.max=500 1000"]
        );
        assert_eq!(texts(r#"{"cpu":{"period":1000}}"#), ["cpu.max=max 1000"]);
    }

    // spec: linux.resources.blockIO.weight, linux.resources.blockIO.weightDevice[].major
    // spec: linux.resources.blockIO.weightDevice[].minor, linux.resources.blockIO.weightDevice[].weight
    #[test]
    fn block_devices() {
        let json = r#"{"blockIO":{"weight":500,"weightDevice":[{"major":8,"minor":0,"weight":1000}],
            "throttleReadBpsDevice":[{"major":8,"minor":0,"rate":1}],"throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":0}]}}"#;
        let list = settings(Some(&parse(json))).unwrap();
        assert_eq!(list[0].value, "500");
        assert_eq!(list[0].otherwise, Some(("io.weight", "default 4950".to_owned())));
        assert_eq!(list[1].value, "8:0 1000");
        assert_eq!(list[1].otherwise, Some(("io.weight", "8:0 10000".to_owned())));
        assert_eq!(texts(json)[2..], ["io.max=8:0 rbps=1", "io.max=8:1 wiops=max"]);
    }

    // spec: linux.resources.hugepageLimits[].pageSize, linux.resources.hugepageLimits[].limit
    // spec: linux.resources.rdma.*.hcaHandles, linux.resources.rdma.*.hcaObjects, linux.resources.unified
    #[test]
    fn the_rest_of_the_resources() {
        let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4}],"rdma":{"mlx":{"hcaHandles":3,"hcaObjects":4}},
            "pids":{"limit":3},"unified":{"pids.max":"5","memory.high":"1M"}}"#;
        assert_eq!(
            texts(json),
            [
                "hugetlb.2MB.max=4",
                "hugetlb.2MB.rsvd.max=4",
                "rdma.max=mlx hca_handle=3 hca_object=4",
                "memory.high=1M",
                "pids.max=5"
            ]
        );
    }

    #[test]
    fn updates_keep_what_they_do_not_name() {
        let merged = |old: &str, update: &str| {
            let merged = merge(&parse(old), &parse(update)).unwrap();
            settings(Some(&merged)).unwrap().into_iter().map(|s| s.file + "=" + &s.value).collect::<Vec<_>>()
        };
        let old = r#"{"memory":{"limit":100},"cpu":{"quota":5000,"period":10000,"cpus":"0"},"unified":{"pids.max":"5"}}"#;
        assert_eq!(
            merged(old, r#"{"memory":{"swap":150,"limit":0},"cpu":{"quota":6000,"cpus":"","period":0}}"#),
            ["memory.swap.max=50", "memory.max=100", "cpu.max=6000 10000", "cpuset.cpus=0", "pids.max=5"]
        );
        assert_eq!(
            merged(old, r#"{"memory":{"limit":-1},"pids":{"limit":7}}"#),
            ["memory.swap.max=max", "memory.max=max", "cpu.max=5000 10000", "cpuset.cpus=0", "pids.max=7"]
        );
        assert!(merge(&parse(old), &parse(r#"{"memory":{"swap":50}}"#)).is_err());
    }
}
