//! Which processes belong to a container.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};

use crate::cgroup;

/// All processes of the running container of this first process and control group, as the caller sees them: those of its control group, or
/// without one those of its pid namespace. `None` if it has neither of its own, so that its processes
/// cannot be told from others.
pub fn of(first: i32, group: Option<&Path>) -> io::Result<Option<Vec<i32>>> {
    if let Some(group) = group {
        return cgroup::processes(group).map(Some);
    }
    let namespace = |pid: &str| -> io::Result<PathBuf> {
        std::fs::read_link(Path::new("/proc").join(pid).join("ns/pid"))
    };
    let wanted = namespace(&first.to_string())?;
    if namespace("self")? == wanted {
        return Ok(None);
    }
    let mut list = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // Others' processes may not be looked at, and some have just ended.
        if namespace(name.to_str().unwrap_or_default()).is_ok_and(|found| found == wanted) {
            list.push(pid);
        }
    }
    list.sort_unstable();
    Ok(Some(list))
}

/// The processes of all pid namespaces, each namespace by the text of its link in `/proc/PID/ns`; those that the
/// caller may look at. For who asks about many containers: each alone would go through all of `/proc`.
pub fn by_namespace() -> io::Result<HashMap<PathBuf, Vec<i32>>> {
    let mut map: HashMap<PathBuf, Vec<i32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if let Ok(namespace) = namespace_of(pid) {
            map.entry(namespace).or_default().push(pid);
        }
    }
    // One that is ours too is nobody's own.
    if let Ok(ours) = std::fs::read_link("/proc/self/ns/pid") {
        map.remove(&ours);
    }
    Ok(map)
}

/// The pid namespace of a process.
pub fn namespace_of(pid: i32) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid"))
}

/// When the machine was started.
pub fn boot_time() -> Timestamp {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = uptime.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    Timestamp::now() - SignedDuration::from_millis((seconds * 1000.0) as i64)
}

/// The command line, with what would move a terminal's cursor made visible.
pub fn command(pid: i32, name: &str) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&bytes);
    let words = words.trim_end_matches('\0').replace('\0', " ");
    let text = if words.is_empty() { format!("[{name}]") } else { words };
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// `tty_nr` of proc_pid_stat(5): the minor's bits stand around the major's.
pub fn terminal(number: u32) -> String {
    let (major, minor) = (number >> 8 & 0xfff, number & 0xff | number >> 12 & 0xfff00);
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 if minor < 64 => format!("tty{minor}"),
        4 => format!("ttyS{}", minor - 64),
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_by_number() {
        assert_eq!(
            (terminal(0x8803), terminal(0), terminal(0x401)),
            ("pts/3".into(), "?".into(), "tty1".into())
        );
    }
}
