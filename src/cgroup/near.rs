//! Reading files of many groups: those beside each other are reached from the open directory above them, so that the
//! kernel need not walk to it each time; and that tells which controllers, and so which files, they have.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::sys::pseudo;

/// Groups by the directories above them.
#[derive(Debug, Default)]
pub struct Neighbours<'a>(HashMap<&'a Path, Above>);

#[derive(Debug)]
struct Above {
    dir: OwnedFd,
    given: Given,
}

/// The controllers that groups have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Given {
    memory: bool,
    pids: bool,
    io: bool,
}

/// A group, seen from above.
#[derive(Clone, Copy, Debug)]
pub struct Near<'a> {
    above: &'a Above,
    group: &'a Path,
    name: &'a str,
}

impl<'a> Neighbours<'a> {
    /// Opens what is above these groups.
    pub fn new(groups: impl Iterator<Item = &'a Path>) -> Self {
        let mut all = HashMap::new();
        for parent in groups.filter_map(Path::parent) {
            if !all.contains_key(parent)
                && let Some(above) = Above::open(parent)
            {
                all.insert(parent, above);
            }
        }
        Self(all)
    }

    /// One of them; none where nothing can be read above it.
    pub fn near(&self, group: &'a Path) -> Option<Near<'_>> {
        let above = self.0.get(group.parent()?)?;
        Some(Near { above, group, name: group.file_name()?.to_str()? })
    }
}

impl Above {
    fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        let words = pseudo::text(&dir, "cgroup.subtree_control", &mut bytes)?;
        let has = |controller| words.split_ascii_whitespace().any(|word| word == controller);
        let given = Given { memory: has("memory"), pids: has("pids"), io: has("io") };
        Some(Self { dir, given })
    }
}

impl Near<'_> {
    /// A file of the group; none if it has no such file, or is gone.
    pub fn text<'b>(&self, file: &str, bytes: &'b mut Vec<u8>) -> Option<&'b str> {
        let given = &self.above.given;
        let there = match file.split('.').next()? {
            "memory" => given.memory,
            "pids" => given.pids,
            "io" => given.io,
            _ => true,
        };
        if there { pseudo::text(&self.above.dir, &[self.name, "/", file].concat(), bytes) } else { None }
    }

    /// The processes of the group and of those below it, as [`processes`](super::processes).
    pub fn processes(&self, bytes: &mut Vec<u8>) -> io::Result<Vec<i32>> {
        // Each group below is one more link of the directory.
        let links = rustix::fs::statat(&self.above.dir, self.name, AtFlags::empty())?.st_nlink;
        match self.text("cgroup.procs", bytes) {
            Some(text) if links == 2 => {
                let mut list = super::numbers(text);
                list.sort_unstable();
                Ok(list)
            }
            _ => super::processes(self.group),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_given() {
        let dir =
            std::env::temp_dir().join(format!("umiak-near-{:x}", crate::sys::atomic::random().unwrap()));
        let (one, below) = (dir.join("one"), dir.join("two/below"));
        std::fs::create_dir_all(&one).unwrap();
        std::fs::create_dir_all(&below).unwrap();
        let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
        write(&dir.join("cgroup.subtree_control"), "cpu memory\n");
        for (group, processes) in [(&one, "7\n0\n3\n"), (&dir.join("two"), ""), (&below, "9\n")] {
            write(&group.join("cgroup.procs"), processes);
            write(&group.join("memory.max"), "max\n");
            write(&group.join("pids.current"), "1\n");
        }
        let two = dir.join("two");
        let groups =
            Neighbours::new([one.as_path(), &two, Path::new("/no/such"), Path::new("/")].into_iter());
        let near = groups.near(&one).unwrap();
        let mut bytes = Vec::new();
        assert_eq!(near.text("memory.max", &mut bytes), Some("max\n"));
        assert_eq!(near.text("pids.current", &mut bytes), None);
        assert_eq!(near.processes(&mut bytes).unwrap(), [3, 7]);
        assert_eq!(groups.near(&two).unwrap().processes(&mut bytes).unwrap(), [9]);
        assert!(groups.near(Path::new("/no/such")).is_none() && groups.near(Path::new("/")).is_none());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(near.processes(&mut bytes).is_err());
    }
}
