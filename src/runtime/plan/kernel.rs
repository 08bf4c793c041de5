//! Settings of the kernel for one container: sysctls, hidden paths, execution domain, memory nodes,
//! cache and memory bandwidth, network devices.

use std::path::PathBuf;

use oci_spec::runtime::{
    Linux, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, MemoryPolicyModeType as Mode,
};

use super::{NamespacePlan, Op, PlanError, invalid, unsupported};
use crate::sys::netdevice::NAME_LENGTH;

pub(super) fn plan_sysctls(
    linux: &Linux,
    namespaces: &NamespacePlan,
    hostname: Option<&str>,
    ops: &mut Vec<Op>,
) -> Result<(), PlanError> {
    let own = |kind: libc::c_int| namespaces.has(kind as u64);
    let mut sysctls: Vec<(&String, &String)> = linux.sysctl().iter().flatten().collect();
    sysctls.sort();
    for (key, value) in sysctls {
        let field = format!("linux.sysctl.{key}");
        let path =
            sysctl_path(key).ok_or_else(|| invalid(format!("{field}: that is no name of a sysctl")))?;
        let text = path.to_string_lossy().into_owned();
        const IPC: [&str; 8] =
            ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
        let ipc = text.starts_with("fs/mqueue/")
            || text.strip_prefix("kernel/").is_some_and(|name| IPC.contains(&name));
        if text == "kernel/hostname" {
            // There is a field for it, and two answers would be one too many.
            let problem = if hostname.is_some() { "it contradicts hostname" } else { "hostname sets that" };
            return Err(invalid(format!("{field}: {problem}")));
        }
        let separate = match () {
            () if ipc => own(libc::CLONE_NEWIPC),
            () if text.starts_with("net/") => own(libc::CLONE_NEWNET),
            () if text == "kernel/domainname" => own(libc::CLONE_NEWUTS),
            () => false,
        };
        if !separate {
            return Err(invalid(format!("{field}: it is not in a namespace of the container's own")));
        }
        ops.push(Op::Sysctl { path, value: value.clone() });
    }
    Ok(())
}

/// sysctl(8)'s rule: what comes first, `.` or `/`, separates; the other one stands for itself.
fn sysctl_path(key: &str) -> Option<PathBuf> {
    let text = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    };
    let normal = text.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    (normal && !text.contains('\0')).then(|| PathBuf::from(text))
}

pub(super) fn plan_hidden_paths(linux: &Linux, ops: &mut Vec<Op>) -> Result<(), PlanError> {
    let absolute = |(index, path): (usize, &String), field: &str| {
        if path.starts_with('/') && !path.contains('\0') {
            Ok(PathBuf::from(path))
        } else {
            Err(invalid(format!("linux.{field}[{index}]: \"{path}\" is not absolute")))
        }
    };
    for path in linux.readonly_paths().iter().flatten().enumerate() {
        ops.push(Op::ReadonlyPath(absolute(path, "readonlyPaths")?));
    }
    for path in linux.masked_paths().iter().flatten().enumerate() {
        ops.push(Op::Mask(absolute(path, "maskedPaths")?));
    }
    Ok(())
}

pub(crate) fn plan_persona(personality: Option<&LinuxPersonality>) -> Result<Option<u64>, PlanError> {
    let Some(personality) = personality else { return Ok(None) };
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        // The specification has none so far.
        return Err(unsupported("linux.personality.flags"));
    }
    Ok(Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }))
}

/// Numbers as in `0-3,7`; at most [`MOST_NUMBERS`].
pub(super) fn numbers(text: &str, field: &str) -> Result<Vec<u32>, PlanError> {
    let bad = || invalid(format!("{field}: \"{}\" is no list like 0-3,7", text));
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number =
            |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n < MOST_NUMBERS).ok_or_else(bad);
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(bad());
        }
        list.extend(first..=last);
    }
    Ok(list)
}

/// More than any kernel is built for (`NR_CPUS`, `MAX_NUMNODES`).
const MOST_NUMBERS: u32 = 8192;

/// Modes of set_mempolicy(2).
pub const MEMORY_MODES: [(&str, u32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

/// Flags of its modes.
pub const MEMORY_FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// The mode with its flags, as set_mempolicy(2) takes them, and the nodes.
pub(crate) fn plan_memory_policy(
    policy: Option<&LinuxMemoryPolicy>,
) -> Result<Option<(u32, Vec<u32>)>, PlanError> {
    let Some(policy) = policy else { return Ok(None) };
    let number = |table: &[(&str, u32)], name: &str| {
        table.iter().find(|(known, _)| *known == name).map_or(0, |(_, number)| *number)
    };
    let mode = number(&MEMORY_MODES, &policy.mode().to_string());
    let flags = policy.flags().iter().flatten().map(|flag| number(&MEMORY_FLAGS, &flag.to_string()));
    let flags = flags.fold(0, |all, bit| all | bit);
    let text = policy.nodes().as_deref().unwrap_or_default();
    let nodes = if text.is_empty() { Vec::new() } else { numbers(text, "linux.memoryPolicy.nodes")? };
    let without = matches!(policy.mode(), Mode::MpolDefault | Mode::MpolLocal);
    match (nodes.is_empty(), policy.mode()) {
        (false, _) if without => return Err(invalid("linux.memoryPolicy.nodes: this mode takes none")),
        // Preferring no node is preferring the local one.
        (true, mode) if !without && mode != Mode::MpolPreferred => {
            return Err(invalid("linux.memoryPolicy.nodes: this mode needs some"));
        }
        _ => {}
    }
    if flags & (3 << 14) == 3 << 14 {
        return Err(invalid("linux.memoryPolicy.flags: static and relative nodes exclude each other"));
    }
    Ok(Some((mode | flags, nodes)))
}

/// What is written to resctrl(5)'s files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePlan {
    /// The class of service; the container's id unless given.
    pub class: Option<String>,
    /// Lines for `schemata`.
    pub schemata: Vec<String>,
    /// A monitoring group for the container.
    pub monitor: bool,
}

pub(super) fn plan_cache(linux: &Linux) -> Result<Option<CachePlan>, PlanError> {
    let Some(rdt) = linux.intel_rdt() else { return Ok(None) };
    let class = rdt.clos_id().clone().filter(|class| !class.is_empty());
    if let Some(class) = &class
        && (class.contains(['/', '\0', '\n'])
            || matches!(class.as_str(), "." | ".." | "info" | "mon_groups" | "mon_data"))
    {
        return Err(invalid(format!("linux.intelRdt.closID: \"{class}\" cannot name a class")));
    }
    let schemata = rdt.schemata().clone().unwrap_or_default();
    let single =
        [("l3CacheSchema", "L3:", rdt.l3_cache_schema()), ("memBwSchema", "MB:", rdt.mem_bw_schema())];
    let mut lines = Vec::new();
    for (field, prefix, line) in single {
        let Some(line) = line.as_deref().filter(|line| !line.is_empty()) else { continue };
        if !schemata.is_empty() {
            return Err(invalid(format!("linux.intelRdt.{field}: it contradicts linux.intelRdt.schemata")));
        }
        // Lines of the other kind would come in unseen.
        if line.lines().any(|line| !line.starts_with(prefix)) && field == "memBwSchema" {
            return Err(invalid(format!("linux.intelRdt.{field}: it does not start with \"{prefix}\"")));
        }
        lines.push(line.to_owned());
    }
    for (index, line) in schemata.iter().enumerate() {
        if line.contains('\n') {
            return Err(invalid(format!("linux.intelRdt.schemata[{index}]: it has more than one line")));
        }
    }
    lines.extend(schemata);
    Ok(Some(CachePlan { class, schemata: lines, monitor: rdt.enable_monitoring().unwrap_or(false) }))
}

/// Devices of the host to be moved, with their new names, sorted.
pub(super) fn plan_net_devices(
    linux: &Linux,
    namespaces: &NamespacePlan,
) -> Result<Vec<(String, String)>, PlanError> {
    let mut devices = Vec::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let new = device.name().clone().filter(|new| !new.is_empty()).unwrap_or_else(|| name.clone());
        for (text, field) in
            [(name, format!("linux.netDevices.{name}")), (&new, format!("linux.netDevices.{name}.name"))]
        {
            let bad = text.is_empty()
                || text.len() > NAME_LENGTH
                || matches!(text.as_str(), "." | "..")
                || text.bytes().any(|b| b.is_ascii_whitespace() || matches!(b, 0 | b'/' | b':'));
            // The kernel numbers a pattern by itself, but only in the new name.
            let pattern = text.contains('%')
                && (text == name || !text.ends_with("%d") || text.matches('%').count() != 1);
            if bad || pattern {
                return Err(invalid(format!("{field}: \"{}\" cannot name a device", text)));
            }
        }
        devices.push((name.clone(), new));
    }
    if !devices.is_empty() && !namespaces.has(libc::CLONE_NEWNET as u64) {
        return Err(invalid("linux.netDevices: linux.namespaces has no network namespace"));
    }
    devices.sort();
    let mut names: Vec<&String> =
        devices.iter().map(|(_, new)| new).filter(|new| !new.contains('%')).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(invalid(format!("linux.netDevices: two are to be named \"{}\"", twice[0])));
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(json: &str) -> Result<Option<CachePlan>, PlanError> {
        plan_cache(&serde_json::from_str::<Linux>(&format!(r#"{{"intelRdt":{json}}}"#)).unwrap())
    }

    // spec: linux.intelRdt.closID, linux.intelRdt.schemata, linux.intelRdt.l3CacheSchema
    // spec: linux.intelRdt.memBwSchema, linux.intelRdt.enableMonitoring
    #[test]
    fn schemata_of_the_cache() {
        let plan = |class: Option<&str>, lines: &[&str], monitor| CachePlan {
            class: class.map(str::to_owned),
            schemata: lines.iter().map(|line| (*line).to_owned()).collect(),
            monitor,
        };
        for (json, expected) in [
            (r#"{"closID":"gold"}"#, plan(Some("gold"), &[], false)),
            (
                r#"{"l3CacheSchema":"L3:0=f","memBwSchema":"MB:0=20"}"#,
                plan(None, &["L3:0=f", "MB:0=20"], false),
            ),
            (
                r#"{"schemata":["L2:0=1","MB:0=9"],"enableMonitoring":true}"#,
                plan(None, &["L2:0=1", "MB:0=9"], true),
            ),
        ] {
            assert_eq!(cache(json).unwrap(), Some(expected), "{json}");
        }
        for json in [
            r#"{"closID":"../x"}"#,
            r#"{"closID":"mon_groups"}"#,
            r#"{"schemata":["L3:0=f"],"l3CacheSchema":"L3:0=f"}"#,
            r#"{"schemata":["L3:0=f\nMB:0=1"]}"#,
            r#"{"memBwSchema":"L3:0=f"}"#,
        ] {
            assert!(cache(json).is_err(), "{json}");
        }
    }

    #[test]
    fn the_tables_have_the_specifications_words() {
        for (name, _) in MEMORY_MODES {
            assert_eq!(name.parse::<Mode>().unwrap().to_string(), name);
        }
        for (name, _) in MEMORY_FLAGS {
            let flag = name.parse::<oci_spec::runtime::MemoryPolicyFlagType>().unwrap();
            assert_eq!(flag.to_string(), name);
        }
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers("0-2,5", "f").unwrap(), [0, 1, 2, 5]);
        for bad in ["", "a", "3-1", "1-", "0-99999999999", "99999"] {
            assert!(numbers(bad, "f").is_err(), "{bad}");
        }
    }
}
