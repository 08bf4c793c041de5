//! What a group's processes use, read from its files.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// A limited quantity. `u64::MAX` is no limit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Quantity {
    /// Used now.
    pub usage: u64,
    /// At most so far.
    pub peak: u64,
    /// What may be used.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Processor time in nanoseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// All of it.
    pub total: u64,
    /// In programs.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
    /// Periods of the limit that have passed.
    pub periods: u64,
    /// Of these, where the limit was reached.
    pub throttled_periods: u64,
    /// How long processes were held back.
    pub throttled_time: u64,
}

/// Block input and output with one device.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Its major number.
    pub major: u64,
    /// Its minor number.
    pub minor: u64,
    /// Bytes.
    pub read_bytes: u64,
    /// Bytes.
    pub written_bytes: u64,
    /// Operations.
    pub reads: u64,
    /// Operations.
    pub writes: u64,
}

/// One line of a `*.pressure` file (`Documentation/accounting/psi.rst`): percent of the time, and
/// microseconds in all.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Stall {
    /// Over 10, 60 and 300 seconds.
    pub averages: [f64; 3],
    /// In all, microseconds.
    pub total: u64,
}

/// How long some, and all, processes had to wait.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// At least one waited.
    pub some: Stall,
    /// All of them waited.
    pub full: Stall,
}

/// All of it. What the group has no controller for is zero or empty.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Bytes of memory.
    pub memory: Quantity,
    /// Bytes of swap alone.
    pub swap: Quantity,
    /// The numbers of `memory.stat`.
    pub memory_stat: BTreeMap<String, u64>,
    /// How often a process was killed for want of memory.
    pub oom_kills: u64,
    /// Processes.
    pub pids: Quantity,
    /// By device.
    pub devices: Vec<Device>,
    /// By page size (`2MB`); bytes.
    pub huge_pages: BTreeMap<String, Quantity>,
    /// `cpuset.cpus.effective`.
    pub cpus: Vec<u16>,
    /// `cpuset.mems.effective`.
    pub mems: Vec<u16>,
    /// Of processors, memory, and input and output.
    pub pressure: [Option<Pressure>; 3],
}

/// Reads everything that the group has.
pub fn read(group: &Path) -> io::Result<Stats> {
    // The one file that every group has: tells a group that is gone from one without controllers.
    std::fs::metadata(group.join("cgroup.procs"))?;
    let text = |file: &str| std::fs::read_to_string(group.join(file)).unwrap_or_default();
    let quantity = |name: &str| Quantity {
        usage: number(&text(&format!("{name}.current"))),
        peak: number(&text(&format!("{name}.peak"))),
        limit: number(&text(&format!("{name}.max"))),
        failures: value(&text(&format!("{name}.events")), "max"),
    };
    let mut stats = Stats {
        cpu: cpu(&text("cpu.stat")),
        memory: quantity("memory"),
        swap: quantity("memory.swap"),
        memory_stat: pairs(&text("memory.stat")).map(|(key, value)| (key.to_owned(), value)).collect(),
        oom_kills: oom_kills(group),
        pids: quantity("pids"),
        devices: devices(&text("io.stat")),
        huge_pages: BTreeMap::new(),
        cpus: ranges(&text("cpuset.cpus.effective")),
        mems: ranges(&text("cpuset.mems.effective")),
        pressure: ["cpu", "memory", "io"].map(|name| pressure(&text(&format!("{name}.pressure")))),
    };
    for entry in std::fs::read_dir(group)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some(size) = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(".current"))
            && !size.contains('.')
        {
            stats.huge_pages.insert(size.to_owned(), quantity(&format!("hugetlb.{size}")));
        }
    }
    Ok(stats)
}

/// How often a process of the group was killed for want of memory (`memory.events`).
pub fn oom_kills(group: &Path) -> u64 {
    value(&std::fs::read_to_string(group.join("memory.events")).unwrap_or_default(), "oom_kill")
}

fn number(text: &str) -> u64 {
    let text = text.trim();
    if text == "max" { u64::MAX } else { text.parse().unwrap_or(0) }
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

fn value(text: &str, key: &str) -> u64 {
    pairs(text).find(|(k, _)| *k == key).map_or(0, |(_, value)| value)
}

fn cpu(text: &str) -> Cpu {
    let nanoseconds = |key| value(text, key).saturating_mul(1000);
    Cpu {
        total: nanoseconds("usage_usec"),
        user: nanoseconds("user_usec"),
        system: nanoseconds("system_usec"),
        periods: value(text, "nr_periods"),
        throttled_periods: value(text, "nr_throttled"),
        throttled_time: nanoseconds("throttled_usec"),
    }
}

fn devices(text: &str) -> Vec<Device> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (major, minor) = words.next()?.split_once(':')?;
            let mut device =
                Device { major: major.parse().ok()?, minor: minor.parse().ok()?, ..Device::default() };
            let mut any = false;
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let field = match key {
                    "rbytes" => &mut device.read_bytes,
                    "wbytes" => &mut device.written_bytes,
                    "rios" => &mut device.reads,
                    "wios" => &mut device.writes,
                    _ => continue,
                };
                *field = value.parse().unwrap_or(0);
                any = true;
            }
            any.then_some(device)
        })
        .collect()
}

fn pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let field =
            |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let average = |key| field(key).and_then(|v| v.parse().ok()).unwrap_or(0.0);
        Some(Stall {
            averages: ["avg10", "avg60", "avg300"].map(average),
            total: field("total").and_then(|v| v.parse().ok()).unwrap_or(0),
        })
    };
    // Before Linux 5.13 there is no "full" of processors.
    Some(Pressure { some: stall("some ")?, full: stall("full ").unwrap_or_default() })
}

/// `0-2,5` as numbers.
fn ranges(text: &str) -> Vec<u16> {
    let parts = text.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    });
    parts.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel() {
        let text =
            "usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_periods 7\nnr_throttled 5\nthrottled_usec 4\n";
        let expected = Cpu {
            total: 3000,
            user: 2000,
            system: 1000,
            periods: 7,
            throttled_periods: 5,
            throttled_time: 4000,
        };
        assert_eq!(cpu(text), expected);
        let list = devices("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:0 \nnonsense\n");
        let expected = Device { major: 8, minor: 0, read_bytes: 1, written_bytes: 2, reads: 3, writes: 4 };
        assert_eq!(list, [expected]);
        assert_eq!(ranges("0-2,5\n"), [0, 1, 2, 5]);
        assert!(ranges("\n").is_empty());
        assert_eq!((number("max\n"), number("12\n"), number("")), (u64::MAX, 12, 0));
        let some = pressure("some avg10=1.50 avg60=0.00 avg300=0.25 total=12\n").unwrap();
        assert_eq!(
            (some.some.averages, some.some.total, some.full),
            ([1.5, 0.0, 0.25], 12, Stall::default())
        );
        assert!(pressure("").is_none());
        assert_eq!(value("low 0\noom_kill 3\n", "oom_kill"), 3);
    }
}
