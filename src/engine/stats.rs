//! What containers use: from the files of their control groups where there are controllers, else from `/proc`.
//! What neither tells is not known, rather than nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::cgroup;
use crate::runtime::processes;
use crate::storage::containers::RunState;
use crate::sys::parallel::in_parallel;
use crate::sys::{host, process};

/// What a container has used at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds since 1970.
    pub at: i64,
    /// Nanoseconds since 1970 of its start.
    pub started: i64,
    /// Processor time since then, in nanoseconds, and what of it the kernel took.
    pub cpu: Option<(u64, u64)>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// What of it the container may have at most: its limit, or all that the machine has.
    pub memory_limit: Option<u64>,
    /// Bytes received and sent by its own network devices.
    pub network: Option<(u64, u64)>,
    /// Bytes read from and written to block devices.
    pub block: Option<(u64, u64)>,
    /// Processes.
    pub pids: Option<u64>,
}

/// A running container.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The facts of its run.
    pub state: &'a RunState,
    /// Whether its network devices are the host's.
    pub host_network: bool,
}

/// What running containers have used, in their order; many are looked at on all processors.
pub fn samples(subjects: &[Subject<'_>]) -> Vec<Sample> {
    // Without a group its processes are found by their namespace, all containers' in one go.
    let ungrouped = subjects.iter().any(|subject| subject.state.cgroup.is_none());
    let namespaces = if ungrouped { processes::by_namespace().unwrap_or_default() } else { HashMap::new() };
    in_parallel(subjects, |subject| sample(subject, &namespaces))
}

fn sample(subject: &Subject<'_>, namespaces: &HashMap<PathBuf, Vec<i32>>) -> Sample {
    let state = subject.state;
    let mut sample =
        Sample { at: host::now(), started: state.started, memory_limit: total_memory(), ..Sample::default() };
    if let Some(group) = &state.cgroup {
        from_group(group, &mut sample);
    }
    if sample.cpu.is_none() || sample.memory.is_none() || sample.pids.is_none() || sample.block.is_none() {
        let pids = match &state.cgroup {
            Some(group) => cgroup::processes(group).unwrap_or_default(),
            None => {
                let namespace = processes::namespace_of(state.pid).unwrap_or_default();
                namespaces.get(&namespace).cloned().unwrap_or_default()
            }
        };
        from_processes(&pids, &mut sample);
    }
    if !subject.host_network {
        sample.network = whole(format!("/proc/{}/net/dev", state.pid).as_ref()).map(|text| traffic(&text));
    }
    sample
}

/// A file of the kernel's, which has no size to be known before: in one reading, and not in small pieces.
fn whole(path: &Path) -> Option<String> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut bytes = Vec::with_capacity(8192);
    while rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes)).ok()? > 0 {
        bytes.reserve(4096);
    }
    String::from_utf8(bytes).ok()
}

fn from_group(group: &Path, sample: &mut Sample) {
    let read = |file: &str| whole(&group.join(file));
    let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
    if let Some(text) = read("cpu.stat") {
        let value = |key: &str| pair(&text, key).map(|microseconds| microseconds * 1000);
        sample.cpu = value("usage_usec").map(|all| (all, value("system_usec").unwrap_or(0)));
    }
    sample.memory = number("memory.current").map(|all| {
        // As Podman and Docker count: what the kernel would give up first is not used.
        let cache = read("memory.stat").and_then(|text| pair(&text, "inactive_file")).unwrap_or(0);
        all.saturating_sub(cache)
    });
    if let Some(limit) = number("memory.max") {
        sample.memory_limit = Some(sample.memory_limit.map_or(limit, |all| all.min(limit)));
    }
    sample.pids = number("pids.current");
    sample.block = read("io.stat").map(|text| {
        let sum = |key: &str| {
            let values = text.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            values.filter_map(|value| value.parse::<u64>().ok()).sum()
        };
        (sum("rbytes"), sum("wbytes"))
    });
}

fn pair(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// What the group's files do not tell, of its processes. What ended processes used is lost, but for those that
/// one of these has waited for.
fn from_processes(pids: &[i32], sample: &mut Sample) {
    if pids.is_empty() {
        return;
    }
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let page = rustix::param::page_size() as u64;
    let (mut cpu, mut memory, mut block) = ((0, 0), 0, Some((0_u64, 0_u64)));
    for pid in pids {
        let text = |file: &str| process::read_small(&format!("/proc/{pid}/{file}")).unwrap_or_default();
        let times = times(&String::from_utf8_lossy(&text("stat")));
        cpu = (cpu.0 + (times.0 + times.1) * tick, cpu.1 + times.1 * tick);
        let statm = text("statm");
        let resident =
            String::from_utf8_lossy(&statm).split_whitespace().nth(1).and_then(|w| w.parse::<u64>().ok());
        memory += resident.unwrap_or(0) * page;
        let io = text("io");
        let io = String::from_utf8_lossy(&io);
        let value = |key: &str| {
            io.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))?.parse::<u64>().ok()
        };
        block = match (block, value("read_bytes"), value("write_bytes")) {
            (Some((read, written)), Some(more), Some(further)) => Some((read + more, written + further)),
            // The kernel tells it only to who may trace the process.
            _ => None,
        };
    }
    sample.cpu = sample.cpu.or(Some(cpu));
    sample.memory = sample.memory.or(Some(memory));
    sample.block = sample.block.or(block);
    sample.pids = sample.pids.or(Some(pids.len() as u64));
}

/// Clock ticks in programs and in the kernel, of a process and its ended children (proc_pid_stat(5)).
fn times(stat: &str) -> (u64, u64) {
    // The name, in parentheses, may have anything in it.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = |number: usize| {
        rest.split_whitespace().nth(number - 3).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
    };
    (field(14) + field(16), field(15) + field(17))
}

/// Bytes received and sent by all devices but loopback (`/proc/net/dev`).
fn traffic(text: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for line in text.lines() {
        let Some((device, numbers)) = line.split_once(':') else { continue };
        if device.trim() == "lo" {
            continue;
        }
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        sum.0 += numbers.first().unwrap_or(&0);
        sum.1 += numbers.get(8).unwrap_or(&0);
    }
    sum
}

/// All that the machine has. It is asked for each container, and stays what it is.
fn total_memory() -> Option<u64> {
    static TOTAL: std::sync::OnceLock<Option<u64>> = std::sync::OnceLock::new();
    *TOTAL.get_or_init(read_total_memory)
}

fn read_total_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_kernel() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 100 20 3 4 20 0 1 0 99";
        assert_eq!(times(stat), (103, 24));
        assert_eq!(times("nonsense"), (0, 0));
        let dev = "Inter-|   Receive |  Transmit\n face |bytes\n    lo: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n  eth0: 10 1 0 0 0 0 0 0 20 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(dev), (10, 20));
        assert_eq!(pair("usage_usec 5\nuser_usec 4\n", "user_usec"), Some(4));
        assert_eq!(pair("usage_usec 5\n", "usage"), None);
    }
}
