//! Processes that the kernel kills for want of memory, as the container's control group tells it.
//!
//! The file is held open and watched: systemd removes a group as soon as its last process has ended, and who
//! looks only then may come too late. The kernel tells of the killing before the killed process has ended.
//!
//! On a busy machine that may still be too late: of a group that is gone, nothing can be read (ENODEV). Two things
//! are known then all the same. Whether the group's file has been told of since it was read last: an epoll(7)
//! instance keeps that where poll(2), which asks the file, does not. And how many were killed in all groups of the
//! slice: its file counts them too, those of groups that are gone included, and a slice stays. Where both say yes,
//! it was in this group; a coincidence takes two containers of one slice within the moment in which the monitor
//! had to wait, and one of them would have to come to its limit without being killed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The kernel tells of a file at most once in 10 ms, and not at all what it still had to tell when the group goes
/// (`cgroup_file_notify`, `cgroup_rm_file`). So long after a look there may be something of which nobody was told.
const UNTOLD: Duration = Duration::from_secs(1);

/// The watch over one run's `memory.events` (`Documentation/admin-guide/cgroup-v2.rst`).
#[derive(Debug)]
pub struct OomWatch {
    file: Option<OwnedFd>,
    kills: u64,
    /// Where somebody else removes the group.
    witness: Option<Witness>,
}

/// What is still known of a group that is gone.
#[derive(Debug)]
struct Witness {
    /// The same file of the group above.
    above: OwnedFd,
    /// What it said when ours was read last.
    kills: Option<u64>,
    /// Has an event if ours has been told of since.
    told: OwnedFd,
    /// When we last heard of something.
    heard: Option<Instant>,
}

impl OomWatch {
    /// Begins to watch a group; none if memory is not accounted there. `passing`: it is not we who remove it.
    pub fn new(group: &Path, passing: bool) -> Option<Self> {
        let file = open(group)?;
        let witness = passing.then(|| Witness::new(group, &file)).flatten();
        let mut watch = Self { file: Some(file), kills: 0, witness };
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
        // Before ours: what is killed in between is in both or, where ours goes, news in the other.
        let heard = self.witness.as_mut().map(Witness::listen);
        let before = self.kills;
        match kills(file) {
            Ok(count) => {
                self.kills = count.unwrap_or(before);
                if let (Some(witness), Some((_, above))) = (&mut self.witness, heard) {
                    // What ours counts, the other one does too, if only after we had read it.
                    let known = witness.kills.map(|earlier| earlier + (self.kills - before));
                    witness.kills = above.max(known);
                }
            }
            Err(Errno::INTR) => {}
            Err(_) => {
                // An error stays readable for ever.
                self.file = None;
                let earlier = self.witness.take().and_then(|witness| witness.kills);
                if let (Some(earlier), Some((true, Some(above)))) = (earlier, heard)
                    && above > earlier
                {
                    self.kills += 1;
                }
            }
        }
        self.kills > before
    }

    /// Whether any was killed in this run.
    pub fn any(&self) -> bool {
        self.kills > 0
    }
}

impl Witness {
    fn new(group: &Path, file: &OwnedFd) -> Option<Self> {
        let above = open(group.parent()?)?;
        let told = epoll::create(epoll::CreateFlags::CLOEXEC).ok()?;
        // By edges, so that to ask is to forget.
        let events = epoll::EventFlags::PRI | epoll::EventFlags::ET;
        epoll::add(&told, file, epoll::EventData::new_u64(0), events).ok()?;
        Some(Self { above, kills: None, told, heard: None })
    }

    /// Whether there was something in the group since the last look, or may have been; and what the group above
    /// counts.
    fn listen(&mut self) -> (bool, Option<u64>) {
        let mut events = Vec::with_capacity(1);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let told = epoll::wait(&self.told, rustix::buffer::spare_capacity(&mut events), Some(&now));
        let told = told.is_ok_and(|count| count > 0);
        if told {
            self.heard = Some(Instant::now());
        }
        let heard = self.heard.is_some_and(|heard| heard.elapsed() < UNTOLD);
        (heard, kills(&self.above).ok().flatten())
    }
}

fn open(group: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(group.join("memory.events"), flags, Mode::empty()).ok()
}

/// How many processes of a group were killed, by its open file.
fn kills(file: &OwnedFd) -> Result<Option<u64>, Errno> {
    let mut buffer = [0; 512];
    let length = rustix::io::pread(file, &mut buffer, 0)?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    Ok(text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_is_news() {
        let dir = std::env::temp_dir().join(format!("umiak-oom-{:x}", crate::sys::atomic::random().unwrap()));
        std::fs::create_dir_all(&dir).unwrap();
        assert!(OomWatch::new(&dir, false).is_none());
        let tell = |count: u32| {
            let text = format!("low 0\nhigh 3\nmax 9\noom 1\noom_kill {count}\noom_group_kill 0\n");
            std::fs::write(dir.join("memory.events"), text).unwrap();
        };
        tell(0);
        let mut watch = OomWatch::new(&dir, false).unwrap();
        assert!(!watch.look() && !watch.any());
        tell(2);
        assert!(watch.look() && !watch.look() && watch.any());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(watch.any() && watch.fd().is_some());
    }
}
