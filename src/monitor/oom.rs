//! Processes that the kernel kills for want of memory, as the container's control group tells it.
//!
//! The file is held open and watched: systemd removes a group as soon as its last process has ended, and who
//! looks only then may come too late. The kernel tells of the killing before the killed process has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The watch over one run's `memory.events` (`Documentation/admin-guide/cgroup-v2.rst`).
#[derive(Debug)]
pub struct OomWatch {
    file: Option<OwnedFd>,
    kills: u64,
}

impl OomWatch {
    /// Begins to watch a group; none if memory is not accounted there.
    pub fn new(group: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::open(group.join("memory.events"), flags, Mode::empty()).ok()?;
        let mut watch = Self { file: Some(file), kills: 0 };
        // Only what comes after a reading makes the file readable.
        watch.look();
        Some(watch)
    }

    /// What has POLLPRI when there may be something new; none when the group is gone.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// Reads anew; whether processes were killed since the last look.
    pub fn look(&mut self) -> bool {
        let Some(file) = &self.file else { return false };
        let mut buffer = [0; 512];
        match rustix::io::pread(file, &mut buffer, 0) {
            Ok(length) => {
                let text = String::from_utf8_lossy(&buffer[..length]);
                let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
                let before = self.kills;
                self.kills = count.unwrap_or(before);
                self.kills > before
            }
            Err(rustix::io::Errno::INTR) => false,
            Err(_) => {
                // An error stays readable for ever.
                self.file = None;
                false
            }
        }
    }

    /// Whether any was killed in this run.
    pub fn any(&self) -> bool {
        self.kills > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_is_news() {
        let dir = std::env::temp_dir().join(format!("umiak-oom-{:x}", crate::sys::atomic::random().unwrap()));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(OomWatch::new(&dir).is_none());
        let tell = |count: u32| {
            let text = format!("low 0\nhigh 3\nmax 9\noom 1\noom_kill {count}\noom_group_kill 0\n");
            std::fs::write(dir.join("memory.events"), text).unwrap();
        };
        tell(0);
        let mut watch = OomWatch::new(&dir).unwrap();
        assert!(!watch.look() && !watch.any());
        tell(2);
        assert!(watch.look() && !watch.look() && watch.any());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(watch.any() && watch.fd().is_some());
    }
}
