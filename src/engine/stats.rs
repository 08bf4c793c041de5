//! What containers use: from the files of their control groups where there are controllers, else from `/proc`.
//! What neither tells is not known, rather than nothing.

use std::collections::HashMap;
use std::path::PathBuf;

use rustix::fs::CWD;

use crate::cgroup::near::{Near, Neighbours};
use crate::runtime::processes;
use crate::storage::containers::{NetworkMode, RunState};
use crate::sys::parallel::in_parallel;
use crate::sys::{host, pseudo};

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
    /// Its network.
    pub network: &'a NetworkMode,
}

/// What running containers have used, in their order; many are looked at on all processors.
pub fn samples(subjects: &[Subject<'_>]) -> Vec<Sample> {
    // Without a group its processes are found by their namespace, all containers' in one go.
    let ungrouped = subjects.iter().any(|subject| subject.state.cgroup.is_none());
    let namespaces = if ungrouped { processes::by_namespace().unwrap_or_default() } else { HashMap::new() };
    let groups = Neighbours::new(subjects.iter().filter_map(|subject| subject.state.cgroup.as_deref()));
    in_parallel(subjects, |subject| sample(subject, &groups, &namespaces))
}

fn sample(subject: &Subject<'_>, groups: &Neighbours<'_>, namespaces: &HashMap<PathBuf, Vec<i32>>) -> Sample {
    let state = subject.state;
    let mut sample =
        Sample { at: host::now(), started: state.started, memory_limit: total_memory(), ..Sample::default() };
    // What is read, one file after the other.
    let mut bytes = Vec::with_capacity(4096);
    let group = state.cgroup.as_deref().and_then(|group| groups.near(group));
    if let Some(group) = &group {
        from_group(group, &mut sample, &mut bytes);
    }
    if sample.cpu.is_none() || sample.memory.is_none() || sample.pids.is_none() || sample.block.is_none() {
        let pids = match (&group, &state.cgroup) {
            (Some(group), _) => group.processes(&mut bytes).unwrap_or_default(),
            (None, Some(_)) => Vec::new(),
            (None, None) => {
                let namespace = processes::namespace_of(state.pid).unwrap_or_default();
                namespaces.get(&namespace).cloned().unwrap_or_default()
            }
        };
        from_processes(&pids, &mut sample, &mut bytes);
    }
    sample.network = match subject.network {
        // Its devices are everybody's.
        NetworkMode::Host => None,
        // It has none but loopback, as Podman takes for granted, too: the kernel's table is dear.
        NetworkMode::None => Some((0, 0)),
        _ => {
            let read = pseudo::read(CWD, &format!("/proc/{}/net/dev", state.pid), &mut bytes);
            read.ok().map(|()| traffic(&String::from_utf8_lossy(&bytes)))
        }
    };
    sample
}

fn from_group(group: &Near<'_>, sample: &mut Sample, bytes: &mut Vec<u8>) {
    let number = |text: &str| text.trim_ascii_end().parse::<u64>().ok();
    if let Some(text) = group.text("cpu.stat", bytes) {
        let value = |key: &str| pair(text, key).map(|microseconds| microseconds * 1000);
        sample.cpu = value("usage_usec").map(|all| (all, value("system_usec").unwrap_or(0)));
    }
    sample.memory = group.text("memory.current", bytes).and_then(number).map(|all| {
        // As Podman and Docker count: what the kernel would give up first is not used.
        let cache = group.text("memory.stat", bytes).and_then(|text| pair(text, "inactive_file"));
        all.saturating_sub(cache.unwrap_or(0))
    });
    if let Some(limit) = group.text("memory.max", bytes).and_then(number) {
        sample.memory_limit = Some(sample.memory_limit.map_or(limit, |all| all.min(limit)));
    }
    sample.pids = group.text("pids.current", bytes).and_then(number);
    sample.block = group.text("io.stat", bytes).map(|text| {
        let sum = |key: &str| {
            let values = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key));
            values.filter_map(|value| value.parse::<u64>().ok()).sum()
        };
        (sum("rbytes="), sum("wbytes="))
    });
}

fn pair(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// What the group's files do not tell, of its processes. What ended processes used is lost, but for those that
/// one of these has waited for.
fn from_processes(pids: &[i32], sample: &mut Sample, bytes: &mut Vec<u8>) {
    if pids.is_empty() {
        return;
    }
    if sample.cpu.is_none() {
        let tick = 1_000_000_000 / host::clock_ticks();
        let mut cpu = (0, 0);
        for pid in pids {
            // A program's name may be no text.
            let read = pseudo::read(CWD, &format!("/proc/{pid}/stat"), bytes);
            let times = read.map_or((0, 0), |()| times(&String::from_utf8_lossy(bytes)));
            cpu = (cpu.0 + (times.0 + times.1) * tick, cpu.1 + times.1 * tick);
        }
        sample.cpu = Some(cpu);
    }
    if sample.memory.is_none() {
        let page = rustix::param::page_size() as u64;
        let resident = |pid: &i32, bytes: &mut Vec<u8>| {
            let text = pseudo::text(CWD, &format!("/proc/{pid}/statm"), bytes)?;
            text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let pages: u64 = pids.iter().filter_map(|pid| resident(pid, bytes)).sum();
        sample.memory = Some(pages * page);
    }
    if sample.block.is_none() {
        // The kernel tells it only to who may trace the process.
        sample.block = pids.iter().try_fold((0, 0), |sum, pid| {
            let text = pseudo::text(CWD, &format!("/proc/{pid}/io"), bytes)?;
            let value = |key: &str| {
                text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))?.parse::<u64>().ok()
            };
            Some((sum.0 + value("read_bytes")?, sum.1 + value("write_bytes")?))
        });
    }
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
    let mut sum = (0_u64, 0_u64);
    for line in text.lines() {
        let Some((device, numbers)) = line.split_once(':') else { continue };
        if device.trim() == "lo" {
            continue;
        }
        let mut numbers = numbers.split_ascii_whitespace().map(|word| word.parse().unwrap_or(0));
        sum.0 += numbers.next().unwrap_or(0);
        sum.1 += numbers.nth(7).unwrap_or(0);
    }
    sum
}

/// All that the machine has. It is asked for each container, and stays what it is.
fn total_memory() -> Option<u64> {
    static TOTAL: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    Some(*TOTAL.get_or_init(|| {
        // What `/proc/meminfo` tells first, without all the rest.
        let system = rustix::system::sysinfo();
        system.totalram as u64 * u64::from(system.mem_unit)
    }))
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
