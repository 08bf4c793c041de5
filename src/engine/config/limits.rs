//! Limits: from flags to what is asked for, and from that to the runtime's words. Pure.

use std::collections::BTreeSet;
use std::io;

use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::{Error, flag};
use crate::base::size;
use crate::storage::containers::{DeviceLimit, GroupManager, GroupMode, Limits};

/// The flags, as typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the flags")]
pub struct Wanted {
    pub memory: Option<String>,
    pub memory_swap: Option<String>,
    pub memory_reservation: Option<String>,
    pub memory_swappiness: Option<String>,
    pub cpus: Option<String>,
    pub cpu_quota: Option<String>,
    pub cpu_period: Option<String>,
    pub cpu_shares: Option<String>,
    pub cpu_rt_period: Option<String>,
    pub cpu_rt_runtime: Option<String>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub pids_limit: Option<String>,
    pub blkio_weight: Option<String>,
    pub blkio_weight_device: Vec<String>,
    pub device_read_bps: Vec<String>,
    pub device_write_bps: Vec<String>,
    pub device_read_iops: Vec<String>,
    pub device_write_iops: Vec<String>,
    pub oom_kill_disable: bool,
    pub cgroup_conf: Vec<String>,
    pub cgroup_parent: Option<String>,
    pub cgroups: Option<String>,
    pub rdt_class: Option<String>,
    pub manager: GroupManager,
}

/// What this machine has at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory and swap; 0 if it does not tell.
    pub memory: u64,
    /// Processors that are online.
    pub processors: BTreeSet<u32>,
    /// Nodes of memory.
    pub nodes: BTreeSet<u32>,
}

const ONLY_V1: &str = "version 2 of control groups does not have it";
/// The kernel's period of processor time, microseconds (`cpu.max`).
const PERIOD: u64 = 100_000;
/// The kernel's `PID_MAX_LIMIT`: `pids.max` takes nothing above it.
const MOST_PIDS: i64 = 4 << 20;

/// The limits of a new container, and whether it has a control group at all.
pub fn resolve(wanted: &Wanted) -> Result<(Limits, bool), Error> {
    let mut limits = change(wanted, &Limits::default())?;
    limits.manager = wanted.manager;
    let grouped = match wanted.cgroups.as_deref() {
        None | Some("enabled" | "") => true,
        Some("no-conmon") => {
            limits.mode = GroupMode::NoConmon;
            true
        }
        Some("split") => {
            limits.mode = GroupMode::Split;
            true
        }
        Some("disabled") => false,
        Some(other) => {
            return Err(flag("cgroups", other, "it takes enabled, disabled, no-conmon or split"));
        }
    };
    for item in &wanted.cgroup_conf {
        let (file, value) = conf(item)?;
        limits.conf.insert(file.to_owned(), value.to_owned());
    }
    limits.parent =
        wanted.cgroup_parent.as_deref().filter(|text| !text.is_empty()).map(parent).transpose()?;
    limits.rdt_class = wanted.rdt_class.as_deref().map(rdt_class).transpose()?;
    if let (Some(parent), GroupMode::Split) = (&limits.parent, limits.mode) {
        return Err(flag(
            "cgroup-parent",
            parent,
            "it cannot be had with --cgroups=split, whose group is below ours",
        ));
    }
    if limits.mode == GroupMode::Split && wanted.manager == GroupManager::Systemd {
        return Err(flag(
            "cgroups",
            "split",
            "it is not systemd that makes such a group (--cgroup-manager systemd)",
        ));
    }
    if !grouped && let Some((name, value)) = first(wanted) {
        return Err(flag(
            name,
            &value,
            "it takes a control group, and there is to be none (--cgroups=disabled)",
        ));
    }
    Ok((limits, grouped))
}

/// The flag that asks for a limit or a place first, and its value.
fn first(wanted: &Wanted) -> Option<(&'static str, String)> {
    let one = [
        ("memory", &wanted.memory),
        ("memory-swap", &wanted.memory_swap),
        ("memory-reservation", &wanted.memory_reservation),
        ("cpus", &wanted.cpus),
        ("cpu-quota", &wanted.cpu_quota),
        ("cpu-period", &wanted.cpu_period),
        ("cpu-shares", &wanted.cpu_shares),
        ("cpuset-cpus", &wanted.cpuset_cpus),
        ("cpuset-mems", &wanted.cpuset_mems),
        ("pids-limit", &wanted.pids_limit),
        ("blkio-weight", &wanted.blkio_weight),
        ("cgroup-parent", &wanted.cgroup_parent),
    ];
    let many = [
        ("blkio-weight-device", &wanted.blkio_weight_device),
        ("device-read-bps", &wanted.device_read_bps),
        ("device-write-bps", &wanted.device_write_bps),
        ("device-read-iops", &wanted.device_read_iops),
        ("device-write-iops", &wanted.device_write_iops),
        ("cgroup-conf", &wanted.cgroup_conf),
    ];
    let one = one.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    one.chain(many.into_iter().filter_map(|(name, values)| Some((name, values.first()?.clone()))))
        // No limit is what it has without a group, too.
        .find(|(name, value)| {
            !(value.is_empty() || value == "-1" || value == "0" && *name != "cgroup-parent")
        })
}

/// Lays what is wanted over what a container has. Zero and the like mean none.
pub fn change(wanted: &Wanted, old: &Limits) -> Result<Limits, Error> {
    let mut limits = old.clone();
    refuse_version_1(wanted)?;
    memory(wanted, &mut limits)?;
    processors(wanted, &mut limits)?;
    if let Some(text) = &wanted.pids_limit {
        let why = "it takes a number of processes; 0 and -1 are no limit";
        limits.pids = match text.parse().map_err(|_| flag("pids-limit", text, why))? {
            0 | -1 => None,
            count @ 1..MOST_PIDS => Some(count),
            MOST_PIDS.. => return Err(flag("pids-limit", text, "no kernel has so many processes")),
            _ => return Err(flag("pids-limit", text, why)),
        };
    }
    if let Some(text) = &wanted.blkio_weight {
        limits.blkio_weight = match text.parse() {
            Ok(0) if old.blkio_weight.is_none() => None,
            Ok(weight @ 10..=1000) => Some(weight),
            _ => return Err(flag("blkio-weight", text, "it is between 10 and 1000")),
        };
    }
    let weights = &mut limits.blkio_weight_device;
    devices("blkio-weight-device", &wanted.blkio_weight_device, weights, |text| {
        text.parse()
            .ok()
            .filter(|weight| (10..=1000).contains(weight))
            .ok_or("the weight is between 10 and 1000")
    })?;
    let bytes =
        |text: &str| size::parse(text).map_err(|_| "the rate is a size a second, such as 10m; 0 is none");
    let number =
        |text: &str| text.parse().map_err(|_| "the rate is a number of operations a second; 0 is none");
    devices("device-read-bps", &wanted.device_read_bps, &mut limits.read_bps, bytes)?;
    devices("device-write-bps", &wanted.device_write_bps, &mut limits.write_bps, bytes)?;
    devices("device-read-iops", &wanted.device_read_iops, &mut limits.read_iops, number)?;
    devices("device-write-iops", &wanted.device_write_iops, &mut limits.write_iops, number)?;
    Ok(limits)
}

/// What only version 1 has.
fn refuse_version_1(wanted: &Wanted) -> Result<(), Error> {
    if let Some(text) = &wanted.memory_swappiness {
        return match text.parse() {
            // Podman's and Docker's word for "as it is".
            Ok(-1) => Ok(()),
            Ok(0..=100) => Err(flag("memory-swappiness", text, ONLY_V1)),
            _ => Err(flag("memory-swappiness", text, "it is between 0 and 100")),
        };
    }
    if wanted.oom_kill_disable {
        return Err(flag("oom-kill-disable", "true", ONLY_V1));
    }
    for (name, value) in
        [("cpu-rt-period", &wanted.cpu_rt_period), ("cpu-rt-runtime", &wanted.cpu_rt_runtime)]
    {
        match value.as_deref() {
            None | Some("0") => {}
            Some(text) if text.parse::<i64>().is_ok() => return Err(flag(name, text, ONLY_V1)),
            Some(text) => return Err(flag(name, text, "it is a number of microseconds")),
        }
    }
    Ok(())
}

fn memory(wanted: &Wanted, limits: &mut Limits) -> Result<(), Error> {
    let bytes = |name, text: &String| {
        let bytes = size::parse(text).map_err(|error| flag(name, text, reason(text, &error)))?;
        Ok::<_, Error>((bytes > 0).then_some(bytes))
    };
    if let Some(text) = &wanted.memory {
        limits.memory = bytes("memory", text)?;
    }
    if let Some(text) = &wanted.memory_reservation {
        limits.memory_reservation = bytes("memory-reservation", text)?;
    }
    if let Some(text) = &wanted.memory_swap {
        limits.memory_swap = match text.as_str() {
            "-1" => Some(-1),
            _ => bytes("memory-swap", text)?.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        };
    }
    let shown = |text: &Option<String>, value: u64| text.clone().unwrap_or_else(|| value.to_string());
    if let Some(swap) = limits.memory_swap {
        let text = shown(&wanted.memory_swap, swap.unsigned_abs());
        match limits.memory {
            // Of a limit that was taken off, its swap's goes too.
            None if wanted.memory_swap.is_none() || swap == -1 => limits.memory_swap = None,
            None => return Err(flag("memory-swap", &text, "it needs --memory, which is a part of it")),
            Some(memory) if swap >= 0 && swap.unsigned_abs() < memory => {
                let why = format!("it is below --memory ({memory} bytes), which is a part of it");
                return Err(flag("memory-swap", &text, why));
            }
            Some(_) => {}
        }
    }
    if let (Some(memory), Some(reservation)) = (limits.memory, limits.memory_reservation)
        && reservation > memory
    {
        let why = format!("it is above --memory ({memory} bytes)");
        return Err(flag("memory-reservation", &shown(&wanted.memory_reservation, reservation), why));
    }
    Ok(())
}

fn reason(text: &str, error: &size::ParseSizeError) -> String {
    if text.starts_with('-') { "it is not negative; 0 is no limit".to_owned() } else { error.to_string() }
}

fn processors(wanted: &Wanted, limits: &mut Limits) -> Result<(), Error> {
    if let Some(text) = &wanted.cpus {
        for (name, other) in [("cpu-quota", &wanted.cpu_quota), ("cpu-period", &wanted.cpu_period)] {
            if let Some(other) = other.as_ref().filter(|other| *other != "0") {
                return Err(flag(name, other, "--cpus says the same"));
            }
        }
        limits.nano_cpus = cpus(text)?;
        (limits.cpu_quota, limits.cpu_period) = (None, None);
    }
    if let Some(text) = &wanted.cpu_period {
        let period = match text.parse() {
            Ok(0) => None,
            Ok(period @ 1000..=1_000_000) => Some(period),
            _ => return Err(flag("cpu-period", text, "it is between 1000 and 1000000 microseconds")),
        };
        if let (Some(nano), None) = (limits.nano_cpus, &wanted.cpu_quota) {
            // As many processors as before.
            let quota = u128::from(nano) * u128::from(period.unwrap_or(PERIOD)) / 1_000_000_000;
            limits.cpu_quota = i64::try_from(quota).ok();
        }
        limits.nano_cpus = None;
        limits.cpu_period = period;
    }
    if let Some(text) = &wanted.cpu_quota {
        limits.nano_cpus = None;
        limits.cpu_quota = match text.parse() {
            Ok(0 | -1) => None,
            Ok(quota) if quota >= 1000 => Some(quota),
            _ => {
                return Err(flag(
                    "cpu-quota",
                    text,
                    "it is at least 1000 microseconds; 0 and -1 are no limit",
                ));
            }
        };
    }
    if let Some(text) = &wanted.cpu_shares {
        limits.cpu_shares = match text.parse() {
            Ok(0) => None,
            Ok(shares @ 2..=262_144) => Some(shares),
            _ => return Err(flag("cpu-shares", text, "it is between 2 and 262144; 0 is the usual, 1024")),
        };
    }
    for (name, text, into) in [
        ("cpuset-cpus", &wanted.cpuset_cpus, &mut limits.cpuset_cpus),
        ("cpuset-mems", &wanted.cpuset_mems, &mut limits.cpuset_mems),
    ] {
        if let Some(text) = text {
            if !text.is_empty() && numbers(text).is_none() {
                return Err(flag(name, text, "it takes numbers and ranges, such as 0-2,5"));
            }
            into.clone_from(text);
        }
    }
    Ok(())
}

/// `1.5` in thousand-millionths, exactly; none for 0.
fn cpus(text: &str) -> Result<Option<u64>, Error> {
    let bad = || flag("cpus", text, "it takes a number of processors, such as 1.5; 0 is no limit");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || whole.len() + part.len() == 0 || part.len() > 9 {
        return Err(bad());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
    let part: u64 = format!("{part:0<9}").parse().map_err(|_| bad())?;
    let nano = whole.checked_mul(1_000_000_000).and_then(|nano| nano.checked_add(part)).ok_or_else(bad)?;
    match nano {
        0 => Ok(None),
        // A thousandth of a second in each period is the kernel's least.
        1..10_000_000 => Err(flag("cpus", text, "0.01 is the least")),
        _ => Ok(Some(nano)),
    }
}

/// `0-2,5` as numbers.
pub fn numbers(text: &str) -> Option<BTreeSet<u32>> {
    let mut set = BTreeSet::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (first, last): (u32, u32) = match digits(first) && digits(last) {
            true => (first.parse().ok()?, last.parse().ok()?),
            false => return None,
        };
        // More than any kernel is built for.
        if first > last || last > 65_535 {
            return None;
        }
        set.extend(first..=last);
    }
    Some(set)
}

/// `PATH:VALUE` each, over what there is; 0 takes a rate off.
fn devices(
    name: &'static str,
    items: &[String],
    into: &mut Vec<DeviceLimit>,
    parse: impl Fn(&str) -> Result<u64, &'static str>,
) -> Result<(), Error> {
    for item in items {
        let bad = |why| flag(name, item, why);
        let (path, value) = item.rsplit_once(':').ok_or_else(|| bad("it takes DEVICE:VALUE"))?;
        if !path.starts_with('/') {
            return Err(bad("the device is an absolute path"));
        }
        let value = parse(value).map_err(bad)?;
        let had = into.iter().any(|limit| limit.path == path);
        if value == 0 && !had {
            return Err(bad("a rate of 0 would let nothing through"));
        }
        into.retain(|limit| limit.path != path);
        if value > 0 {
            into.push(DeviceLimit { path: path.to_owned(), value });
        }
    }
    Ok(())
}

fn conf(item: &str) -> Result<(&str, &str), Error> {
    let bad = |why: &str| flag("cgroup-conf", item, why);
    let (file, value) =
        item.split_once('=').ok_or_else(|| bad("it takes FILE=VALUE, as memory.high=1073741824"))?;
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let (controller, rest) = file.split_once('.').unwrap_or_default();
    if controller.is_empty() || rest.is_empty() || !file.bytes().all(word) {
        return Err(bad("a control group's file is called CONTROLLER.NAME"));
    }
    if controller == "cgroup" && !matches!(rest, "max.depth" | "max.descendants") {
        return Err(bad("this file is ours to write"));
    }
    if value.trim().is_empty() || value.contains('\n') {
        return Err(bad("the value is one line"));
    }
    Ok((file, value))
}

/// A slice of systemd, or a path in the tree.
fn parent(text: &str) -> Result<String, Error> {
    let bad = |why: &str| flag("cgroup-parent", text, why);
    if text.contains(['\0', '\n', ':']) {
        return Err(bad("it is a path of control groups, or a slice of systemd"));
    }
    let trimmed = text.trim_end_matches('/');
    if trimmed.split('/').any(|part| part == "..") {
        return Err(bad("it has \"..\""));
    }
    if trimmed.is_empty() || trimmed == "." {
        return Err(bad("the root group is not a container's to be limited in"));
    }
    Ok(trimmed.to_owned())
}

fn rdt_class(text: &str) -> Result<String, Error> {
    let usual = matches!(text, "." | ".." | "info" | "mon_groups" | "mon_data");
    if text.is_empty() || usual || text.contains(['/', '\0', '\n']) {
        return Err(flag("rdt-class", text, "it takes the name of a class of resctrl"));
    }
    Ok(text.to_owned())
}

/// Refuses what is over the machine's.
pub fn check(limits: &Limits, machine: &Machine) -> Result<(), Error> {
    // What the kernel keeps for itself is not told: counted up to what people call the machine's memory.
    let most = machine.memory.next_multiple_of(1 << 30);
    if let Some(memory) = limits.memory.filter(|memory| machine.memory > 0 && *memory > most) {
        let why = format!(
            "this machine has {} of memory and swap: it would be no limit",
            size::human_binary(machine.memory)
        );
        return Err(flag("memory", &memory.to_string(), why));
    }
    let count = machine.processors.len() as u64;
    if let Some(nano) = limits.nano_cpus.filter(|nano| count > 0 && *nano > count * 1_000_000_000) {
        let why = format!("this machine has {count}: it would be no limit");
        return Err(flag("cpus", &decimal(nano), why));
    }
    for (name, text, have, what) in [
        ("cpuset-cpus", &limits.cpuset_cpus, &machine.processors, "processors"),
        ("cpuset-mems", &limits.cpuset_mems, &machine.nodes, "nodes of memory"),
    ] {
        let wanted = numbers(text).unwrap_or_default();
        if let Some(missing) = wanted.iter().find(|number| !have.is_empty() && !have.contains(number)) {
            return Err(flag(name, text, format!("this machine has no {missing} among its {what}")));
        }
    }
    Ok(())
}

/// Thousand-millionths as people write them.
fn decimal(nano: u64) -> String {
    let text = format!("{}.{:09}", nano / 1_000_000_000, nano % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Bytes of memory and swap together that `inspect` tells and the runtime is given: twice the memory where
/// nothing else is said, as in Podman and Docker.
pub fn swap(limits: &Limits) -> Option<i64> {
    let usual = || i64::try_from(limits.memory?.checked_mul(2)?).ok();
    limits.memory_swap.or_else(usual)
}

/// Quota and period, also of what was asked for as a number of processors.
pub fn quota(limits: &Limits) -> (Option<i64>, Option<u64>) {
    match limits.nano_cpus {
        Some(nano) => (i64::try_from(nano / (1_000_000_000 / PERIOD)).ok(), Some(PERIOD)),
        None => (limits.cpu_quota, limits.cpu_period),
    }
}

/// The device numbers of a path.
pub type Numbers<'a> = dyn Fn(&str) -> io::Result<(u32, u32)> + 'a;

/// The runtime's words for limits.
pub fn resources(limits: &Limits, device: &Numbers<'_>) -> Result<LinuxResources, Error> {
    let mut json = json!({});
    let mut set = |part: &str, name: &str, value: Value| {
        if !value.is_null() {
            json[part][name] = value;
        }
    };
    set("memory", "limit", json!(limits.memory));
    set("memory", "swap", json!(swap(limits)));
    set("memory", "reservation", json!(limits.memory_reservation));
    let (quota, period) = quota(limits);
    set("cpu", "quota", json!(quota));
    set("cpu", "period", json!(period));
    set("cpu", "shares", json!(limits.cpu_shares));
    let text = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    set("cpu", "cpus", text(&limits.cpuset_cpus));
    set("cpu", "mems", text(&limits.cpuset_mems));
    set("pids", "limit", json!(limits.pids));
    set("blockIO", "weight", json!(limits.blkio_weight));
    for (name, flag_name, field, list) in [
        ("weightDevice", "blkio-weight-device", "weight", &limits.blkio_weight_device),
        ("throttleReadBpsDevice", "device-read-bps", "rate", &limits.read_bps),
        ("throttleWriteBpsDevice", "device-write-bps", "rate", &limits.write_bps),
        ("throttleReadIOPSDevice", "device-read-iops", "rate", &limits.read_iops),
        ("throttleWriteIOPSDevice", "device-write-iops", "rate", &limits.write_iops),
    ] {
        let mut items = Vec::new();
        for limit in list {
            let (major, minor) = device(&limit.path).map_err(|source| Error::Device {
                flag: flag_name,
                path: limit.path.clone(),
                source,
            })?;
            let mut item = json!({ "major": major, "minor": minor });
            item[field] = limit.value.into();
            items.push(item);
        }
        set("blockIO", name, if items.is_empty() { Value::Null } else { items.into() });
    }
    for (file, value) in &limits.conf {
        set("unified", file, value.as_str().into());
    }
    let parsed = serde_json::from_value(json);
    parsed.map_err(|error| flag("memory", "", error.to_string()))
}

/// The flag that asks for a field of the runtime's.
pub fn flag_of(field: &str, limits: &Limits) -> String {
    let name = match field {
        "memory.limit" => "memory",
        "memory.swap" => "memory-swap",
        "memory.reservation" => "memory-reservation",
        "cpu.quota" | "cpu.period" if limits.nano_cpus.is_some() => "cpus",
        "cpu.quota" => "cpu-quota",
        "cpu.period" => "cpu-period",
        "cpu.shares" => "cpu-shares",
        "cpu.cpus" => "cpuset-cpus",
        "cpu.mems" => "cpuset-mems",
        "pids.limit" => "pids-limit",
        "blockIO.weight" => "blkio-weight",
        "blockIO.weightDevice" => "blkio-weight-device",
        "blockIO.throttle" if !limits.read_bps.is_empty() => "device-read-bps",
        "blockIO.throttle" if !limits.write_bps.is_empty() => "device-write-bps",
        "blockIO.throttle" if !limits.read_iops.is_empty() => "device-read-iops",
        "blockIO.throttle" => "device-write-iops",
        "unified" => "cgroup-conf",
        other => return other.to_owned(),
    };
    format!("--{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Slot = fn(&mut Wanted) -> &mut Option<String>;

    fn with(pairs: &[(Slot, &str)]) -> Wanted {
        let mut wanted = Wanted::default();
        for (slot, text) in pairs {
            *slot(&mut wanted) = Some((*text).to_owned());
        }
        wanted
    }

    const MEMORY: Slot = |w| &mut w.memory;
    const SWAP: Slot = |w| &mut w.memory_swap;
    const RESERVATION: Slot = |w| &mut w.memory_reservation;
    const SWAPPINESS: Slot = |w| &mut w.memory_swappiness;
    const CPUS: Slot = |w| &mut w.cpus;
    const QUOTA: Slot = |w| &mut w.cpu_quota;
    const PERIOD_: Slot = |w| &mut w.cpu_period;
    const SHARES: Slot = |w| &mut w.cpu_shares;
    const RT: Slot = |w| &mut w.cpu_rt_runtime;
    const SET: Slot = |w| &mut w.cpuset_cpus;
    const PIDS: Slot = |w| &mut w.pids_limit;
    const WEIGHT: Slot = |w| &mut w.blkio_weight;
    const PARENT: Slot = |w| &mut w.cgroup_parent;
    const GROUPS: Slot = |w| &mut w.cgroups;
    const CLASS: Slot = |w| &mut w.rdt_class;

    fn words(wanted: &Wanted) -> Value {
        let (limits, _) = resolve(wanted).unwrap();
        serde_json::to_value(resources(&limits, &|_| Ok((8, 16))).unwrap()).unwrap()
    }

    #[test]
    fn flags_become_resources() {
        assert_eq!(words(&Wanted::default()), json!({}));
        let wanted =
            with(&[(MEMORY, "64m"), (RESERVATION, "32m"), (CPUS, "1.5"), (SHARES, "512"), (PIDS, "9")]);
        let expected = json!({"memory": {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20},
            "cpu": {"quota": 150_000, "period": 100_000, "shares": 512}, "pids": {"limit": 9}});
        assert_eq!(words(&wanted), expected);
        let mut wanted = with(&[(MEMORY, "64m"), (SWAP, "-1"), (WEIGHT, "300"), (SET, "0-1,3")]);
        wanted.device_read_bps = vec!["/dev/sda:1m".into(), "/dev/sda:2m".into()];
        wanted.device_write_iops = vec!["/dev/sda:7".into()];
        wanted.blkio_weight_device = vec!["/dev/sda:20".into()];
        wanted.cgroup_conf = vec!["memory.high=5".into()];
        let expected = json!({"memory": {"limit": 64 << 20, "swap": -1}, "cpu": {"cpus": "0-1,3"},
            "blockIO": {"weight": 300, "weightDevice": [{"major": 8, "minor": 16, "weight": 20}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 2 << 20}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 7}]},
            "unified": {"memory.high": "5"}});
        assert_eq!(words(&wanted), expected);
    }

    #[test]
    fn zero_is_no_limit_where_podman_says_so() {
        let wanted = with(&[
            (MEMORY, "0"),
            (SWAP, "-1"),
            (CPUS, "0.0"),
            (SHARES, "0"),
            (PIDS, "0"),
            (WEIGHT, "0"),
            (SET, ""),
            (SWAPPINESS, "-1"),
            (RT, "0"),
        ]);
        assert_eq!(words(&wanted), json!({}));
        assert!(!resolve(&wanted).unwrap().0.is_limited());
        assert_eq!(words(&with(&[(QUOTA, "-1"), (PIDS, "-1")])), json!({}));
    }

    #[test]
    fn nonsense_is_one_clear_line() {
        for (slot, name, texts) in [
            (MEMORY, "memory", &["x", "-1", "-64m", "1x", "99999999999g"][..]),
            (SWAP, "memory-swap", &["x", "-2", "64m"]),
            (RESERVATION, "memory-reservation", &["x", "-5"]),
            (SWAPPINESS, "memory-swappiness", &["x", "50", "101", "-2"]),
            (CPUS, "cpus", &["x", "-1", "", ".", "1e3", "0.001", "nan", "99999999999999999999"]),
            (QUOTA, "cpu-quota", &["x", "500", "-2"]),
            (PERIOD_, "cpu-period", &["x", "999", "1000001", "-1"]),
            (SHARES, "cpu-shares", &["x", "1", "262145", "-1"]),
            (RT, "cpu-rt-runtime", &["x", "5"]),
            (SET, "cpuset-cpus", &["x", "1-0", "0,", "-1", "0-99999999", "+1"]),
            (PIDS, "pids-limit", &["x", "-2", "4194304", "1.5"]),
            (WEIGHT, "blkio-weight", &["x", "9", "1001", "-1"]),
            (PARENT, "cgroup-parent", &["/", "a/../b", "a:b:c", "/../x"]),
            (GROUPS, "cgroups", &["x"]),
            (CLASS, "rdt-class", &["", "a/b", ".."]),
        ] {
            for text in texts {
                let told = resolve(&with(&[(slot, text)])).unwrap_err().to_string();
                assert!(
                    told.starts_with(&format!("--{name} \"{text}\": ")) && !told.contains('\n'),
                    "{text}: {told}"
                );
            }
        }
        for (list, items) in [
            (
                (|w: &mut Wanted| &mut w.device_read_bps) as fn(&mut Wanted) -> &mut Vec<String>,
                ["/dev/sda", "sda:1m", "/dev/sda:0"],
            ),
            (|w| &mut w.device_write_iops, ["/dev/sda:1m", "/dev/sda:-1", "/dev/sda:"]),
            (|w| &mut w.blkio_weight_device, ["/dev/sda:5", "/dev/sda", ":7"]),
            (|w| &mut w.cgroup_conf, ["memory.high", "nonsense=1", "cgroup.procs=1"]),
        ] {
            for item in items {
                let mut wanted = Wanted::default();
                list(&mut wanted).push(item.to_owned());
                assert!(resolve(&wanted).is_err(), "{item}");
            }
        }
        let disabled = Wanted { oom_kill_disable: true, ..Wanted::default() };
        assert!(resolve(&disabled).is_err());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for pairs in [
            &[(MEMORY, "64m"), (SWAP, "32m")][..],
            &[(MEMORY, "64m"), (RESERVATION, "65m")],
            &[(CPUS, "1"), (QUOTA, "5000")],
            &[(CPUS, "1"), (PERIOD_, "5000")],
            &[(GROUPS, "disabled"), (MEMORY, "64m")],
            &[(GROUPS, "disabled"), (PARENT, "/x")],
            &[(GROUPS, "split"), (PARENT, "/x")],
        ] {
            assert!(resolve(&with(pairs)).is_err(), "{:?}", with(pairs));
        }
        assert!(!resolve(&with(&[(GROUPS, "disabled"), (MEMORY, "0"), (PIDS, "-1")])).unwrap().1);
        assert_eq!(resolve(&with(&[(MEMORY, "64m"), (SWAP, "64m")])).unwrap().0.memory_swap, Some(64 << 20));
    }

    #[test]
    fn changes_lie_over_what_there_is() {
        let (old, _) =
            resolve(&with(&[(MEMORY, "64m"), (SWAP, "100m"), (CPUS, "0.5"), (PIDS, "9")])).unwrap();
        let to = |pairs: &[(Slot, &str)]| change(&with(pairs), &old);
        assert_eq!(to(&[]).unwrap(), old);
        assert!(to(&[(MEMORY, "101m")]).is_err(), "above memory and swap");
        let free = to(&[(MEMORY, "0"), (PIDS, "-1")]).unwrap();
        assert_eq!((free.memory, free.memory_swap, free.pids), (None, None, None));
        let period = to(&[(PERIOD_, "50000")]).unwrap();
        assert_eq!((quota(&period), period.nano_cpus), ((Some(25_000), Some(50_000)), None));
        let quota_only = to(&[(QUOTA, "7000")]).unwrap();
        assert_eq!(quota(&quota_only), (Some(7000), None));
        let mut wanted = Wanted { device_read_bps: vec!["/dev/sda:1m".into()], ..Wanted::default() };
        let slow = change(&wanted, &old).unwrap();
        wanted.device_read_bps = vec!["/dev/sda:0".into()];
        assert_eq!(change(&wanted, &slow).unwrap(), old);
    }

    #[test]
    fn what_is_over_the_machines() {
        let machine = Machine { memory: 3 << 29, processors: [0, 1].into(), nodes: [0].into() };
        let checked = |pairs: &[(Slot, &str)]| check(&resolve(&with(pairs)).unwrap().0, &machine);
        for fine in [(MEMORY, "2g"), (CPUS, "2"), (SET, "0-1")] {
            checked(&[fine]).unwrap();
        }
        for (slot, text, part) in
            [(MEMORY, "3g", "1.5GiB"), (CPUS, "2.5", "\"2.5\": this machine has 2"), (SET, "1-2", "no 2")]
        {
            let told = checked(&[(slot, text)]).unwrap_err().to_string();
            assert!(told.contains(part), "{told}");
        }
        assert!(
            check(&resolve(&with(&[(SET, "9")])).unwrap().0, &Machine::default()).is_ok(),
            "nothing is known"
        );
    }
}
