//! Stopping a group's processes for a while (`cgroup.freeze`, Linux 5.2).

use std::path::Path;
use std::time::Duration;

use super::{Error, io_error, write};
use crate::sys::pseudo;

/// How long pausing may take: a process in an uninterruptible wait (a dead network file system) stops
/// only when that is over.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the group was told to stand still.
pub fn is_frozen(group: &Path) -> bool {
    // Lists ask it of every container: one reading is enough.
    let mut bytes = Vec::new();
    let file = group.join("cgroup.freeze");
    let read = file.to_str().map(|file| pseudo::read(rustix::fs::CWD, file, &mut bytes));
    matches!(read, Some(Ok(()))) && bytes.first() == Some(&b'1')
}

/// Stops all processes of the group; returns when they stand still, or lets them go on and says so.
pub fn freeze(group: &Path) -> Result<(), Error> {
    set(group, "1")?;
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_micros(200);
    while !stands_still(group) {
        if !group.exists() {
            return Err(io_error("reading", &group.join("cgroup.events"), std::io::ErrorKind::NotFound));
        }
        if waited >= PATIENCE {
            set(group, "0")?;
            return Err(Error::NotFrozen { path: group.to_owned() });
        }
        std::thread::sleep(pause);
        waited += pause;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

/// Lets them go on.
pub fn thaw(group: &Path) -> Result<(), Error> {
    set(group, "0")
}

fn set(group: &Path, value: &str) -> Result<(), Error> {
    let path = group.join("cgroup.freeze");
    write(&path, value).map_err(|e| io_error("writing", &path, e))
}

fn stands_still(group: &Path) -> bool {
    let text = std::fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    text.lines().any(|line| line == "frozen 1")
}
