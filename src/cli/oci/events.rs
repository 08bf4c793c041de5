//! `events`: what a container uses, at intervals, and when it lacks memory; in runc's JSON.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;
use serde_json::{Map, Value, json};

use super::args::{Known, Parsed, UsageError};
use super::common::container;
use super::{Done, Error, Global, print};
use crate::base::time;
use crate::cgroup::stats::{self, Device, Pressure, Quantity, Stats};

pub(super) const OPTIONS: &[Known] = &[("interval", None, true), ("stats", None, false)];

pub(super) fn events(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    let interval = interval(parsed)?;
    let record = dir.read()?;
    let Some(pidfd) = dir.status(&record)?.1 else { return Err(Error::NotRunning) };
    let id = record.id;
    let group = record.cgroup.ok_or(Error::Ungrouped { id: id.clone(), what: "events" })?;
    if parsed.has("stats") {
        return tell_stats(&id, &group).map(|_| 0);
    }
    let io = |source: rustix::io::Errno| Error::Io {
        action: format!("watching container \"{id}\""),
        source: source.into(),
    };
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).map_err(io)?;
    // Without the memory controller there is no such file, and nothing to tell.
    let _ = inotify::add_watch(&watch, group.join("memory.events"), inotify::WatchFlags::MODIFY);
    let mut kills = stats::oom_kills(&group);
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let timeout =
            rustix::time::Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [
            PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(io)?,
        };
        let ended = !fds[0].revents().is_empty();
        let mut space = [0; 4096];
        while rustix::io::read(&watch, &mut space[..]).is_ok_and(|n| n > 0) {}
        let now = stats::oom_kills(&group);
        if now > kills {
            print(&format!("{{\"type\":\"oom\",\"id\":\"{id}\"}}\n"))?;
        }
        kills = now.max(kills);
        if ended {
            return Ok(0);
        }
        if Instant::now() >= next {
            match tell_stats(&id, &group) {
                // The end came in between. The kernel takes a process out of its group before it tells of its end, and
                // systemd removes a group at once.
                Err(Error::Io { source, .. }) if gone(&source) && has_ended(&pidfd) => return Ok(0),
                other => other?,
            };
            next = Instant::now() + interval;
        }
    }
}

/// Whether a group's file cannot be read because there is no such group any more.
fn gone(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

/// Whether the process has ended, or does so at once.
fn has_ended(pidfd: impl AsFd) -> bool {
    let moment = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&moment)).is_ok_and(|count| count > 0)
}

fn interval(parsed: &Parsed) -> Result<Duration, Error> {
    let text = parsed.value("interval").unwrap_or("5s");
    let duration = time::parse_duration(text).ok().and_then(|duration| Duration::try_from(duration).ok());
    let duration = duration.filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| UsageError::Invalid { option: "--interval", value: text.to_owned() }.into())
}

fn tell_stats(id: &str, group: &Path) -> Done {
    let stats = stats::read(group)
        .map_err(|source| Error::Io { action: format!("reading \"{}\"", group.display()), source })?;
    // In this order, by which some readers tell events apart; an id has nothing that needs quoting.
    print(&format!("{{\"type\":\"stats\",\"id\":\"{id}\",\"data\":{}}}\n", data(&stats)))
}

/// An object without the fields that are zero or empty (Go's `omitempty`, which readers expect).
fn present(fields: &[(&str, Value)]) -> Value {
    let empty = |value: &Value| match value {
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Null => true,
        _ => false,
    };
    let kept = fields.iter().filter(|(_, value)| !empty(value));
    Value::Object(kept.map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn data(stats: &Stats) -> Value {
    let [cpu_pressure, memory_pressure, io_pressure] = stats.pressure.map(pressure);
    let cpu = &stats.cpu;
    let mut usage = present(&[("total", cpu.total.into())]);
    usage["kernel"] = cpu.system.into();
    usage["user"] = cpu.user.into();
    let throttling = present(&[
        ("periods", cpu.periods.into()),
        ("throttledPeriods", cpu.throttled_periods.into()),
        ("throttledTime", cpu.throttled_time.into()),
    ]);
    let mut cpu = json!({"usage": usage, "throttling": throttling});
    let mut io = blkio(&stats.devices);
    let raw: Map<String, Value> = stats.memory_stat.iter().map(|(k, v)| (k.clone(), (*v).into())).collect();
    let nothing = Quantity::default();
    let mut memory = present(&[("cache", stats.memory_stat.get("file").copied().unwrap_or(0).into())]);
    memory["usage"] = entry(&stats.memory);
    memory["swap"] = entry(&with_memory(&stats.swap, &stats.memory));
    memory["kernel"] = entry(&nothing);
    memory["kernelTCP"] = entry(&nothing);
    memory["raw"] = Value::Object(raw);
    for (object, pressure) in
        [(&mut cpu, cpu_pressure), (&mut memory, memory_pressure), (&mut io, io_pressure)]
    {
        if !pressure.is_null() {
            object["psi"] = pressure;
        }
    }
    // Unlimited is told as 0, which is left out.
    let limit = if stats.pids.limit == u64::MAX { 0 } else { stats.pids.limit };
    let huge_pages: Map<String, Value> = stats
        .huge_pages
        .iter()
        .map(|(size, quantity)| {
            let mut value = present(&[("usage", quantity.usage.into()), ("max", quantity.peak.into())]);
            value["failcnt"] = quantity.failures.into();
            (size.clone(), value)
        })
        .collect();
    json!({
        "cpu": cpu,
        "cpuset": cpuset(stats),
        "memory": memory,
        "pids": present(&[("current", stats.pids.usage.into()), ("limit", limit.into())]),
        "blkio": io,
        "hugetlb": huge_pages,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// v1 told memory and swap together, and so do readers expect it.
fn with_memory(swap: &Quantity, memory: &Quantity) -> Quantity {
    let limit = if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_add(memory.limit) };
    Quantity { usage: swap.usage + memory.usage, peak: 0, limit, failures: swap.failures }
}

fn entry(quantity: &Quantity) -> Value {
    let mut value = present(&[("usage", quantity.usage.into()), ("max", quantity.peak.into())]);
    value["limit"] = quantity.limit.into();
    value["failcnt"] = quantity.failures.into();
    value
}

fn cpuset(stats: &Stats) -> Value {
    let mut value = present(&[("cpus", json!(stats.cpus)), ("mems", json!(stats.mems))]);
    // Switches of v1.
    for name in [
        "cpu_exclusive",
        "mem_hardwall",
        "mem_exclusive",
        "memory_migrate",
        "memory_spread_page",
        "memory_spread_slab",
        "memory_pressure",
        "sched_load_balance",
        "sched_relax_domain_level",
    ] {
        value[name] = 0.into();
    }
    value
}

fn blkio(devices: &[Device]) -> Value {
    let list = |figures: fn(&Device) -> [(&'static str, u64); 2]| -> Value {
        let one = |device: &Device, op: &str, value: u64| {
            let numbers = [("major", device.major), ("minor", device.minor), ("value", value)];
            let mut object = present(&numbers.map(|(key, value)| (key, value.into())));
            object["op"] = op.into();
            object
        };
        let all = devices.iter().flat_map(|device| figures(device).map(|(op, value)| one(device, op, value)));
        Value::Array(all.collect())
    };
    present(&[
        ("ioServiceBytesRecursive", list(|d| [("Read", d.read_bytes), ("Write", d.written_bytes)])),
        ("ioServicedRecursive", list(|d| [("Read", d.reads), ("Write", d.writes)])),
    ])
}

fn pressure(pressure: Option<Pressure>) -> Value {
    let Some(pressure) = pressure else { return Value::Null };
    let stall = |stall: &stats::Stall| {
        let [avg10, avg60, avg300] = stall.averages;
        json!({"avg10": avg10, "avg60": avg60, "avg300": avg300, "total": stall.total})
    };
    json!({"some": stall(&pressure.some), "full": stall(&pressure.full)})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_in_runcs_words() {
        let stats = Stats {
            memory: Quantity { usage: 5, peak: 9, limit: 100, failures: 2 },
            swap: Quantity { usage: 1, limit: 10, ..Quantity::default() },
            pids: Quantity { usage: 3, limit: u64::MAX, ..Quantity::default() },
            devices: vec![Device { major: 8, read_bytes: 4, ..Device::default() }],
            cpus: vec![0, 1],
            ..Stats::default()
        };
        let value = data(&stats);
        assert_eq!(value["memory"]["usage"], json!({"limit": 100, "usage": 5, "max": 9, "failcnt": 2}));
        assert_eq!(value["memory"]["swap"], json!({"limit": 110, "usage": 6, "failcnt": 0}));
        assert_eq!(value["pids"], json!({"current": 3}));
        assert_eq!(value["cpuset"]["cpus"], json!([0, 1]));
        let first = json!({"major": 8, "op": "Read", "value": 4});
        assert_eq!(value["blkio"]["ioServiceBytesRecursive"][0], first);
        assert_eq!(value["cpu"]["usage"], json!({"kernel": 0, "user": 0}));
    }
}
