//! Which processes belong to a container.

use std::io;
use std::path::{Path, PathBuf};

use super::state::Record;
use crate::cgroup;

/// All processes of a running container, as the caller sees them: those of its control group, or
/// without one those of its pid namespace. `None` if it has neither of its own, so that its processes
/// cannot be told from others.
pub fn of(record: &Record) -> io::Result<Option<Vec<i32>>> {
    if let Some(group) = &record.cgroup {
        return cgroup::processes(group).map(Some);
    }
    let namespace = |pid: &str| -> io::Result<PathBuf> {
        std::fs::read_link(Path::new("/proc").join(pid).join("ns/pid"))
    };
    let wanted = namespace(&record.pid.to_string())?;
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
