//! Intel's Resource Director Technology: cache and memory bandwidth of a container (`config-linux.md`,
//! "IntelRdt"; the kernel's resctrl documentation).

use std::io;
use std::path::{Path, PathBuf};

use super::Error;
use super::plan::CachePlan;

/// What was made for a container, to be removed with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CacheGroups {
    /// The class of service, if it was made for this container alone.
    pub class: Option<PathBuf>,
    /// The monitoring group.
    pub monitor: Option<PathBuf>,
}

impl CacheGroups {
    /// Whether there is anything to remove.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Removes them; that they are gone is as well.
    pub fn remove(&self) -> io::Result<()> {
        for path in self.monitor.iter().chain(&self.class) {
            match rustix::fs::rmdir(path) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Where resctrl is mounted.
fn mounted() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find(|f| f.get(2) == Some(&"resctrl")).map(|f| PathBuf::from(f[1]))
}

/// Puts process `pid` of container `id` into its class of service.
pub(super) fn apply(plan: &CachePlan, id: &str, pid: i32) -> Result<CacheGroups, Error> {
    let root = mounted().ok_or(Error::NoModule { field: "linux.intelRdt", module: "resctrl" })?;
    let mut groups = CacheGroups::default();
    let result = apply_below(&root, plan, id, pid, &mut groups);
    if result.is_err() {
        // The error itself is of more use.
        let _ = groups.remove();
    }
    result.map(|()| groups)
}

/// Gives the processes of a running container other schemata: in the class that was made for it, or in
/// one that is made now. A class that it shares with others is left, not changed. Returns what is to be
/// removed with the container.
pub fn update(
    groups: &CacheGroups,
    id: &str,
    processes: &[i32],
    schemata: Vec<String>,
) -> Result<CacheGroups, Error> {
    let root = mounted().ok_or_else(|| {
        Error::host("finding where resctrl is mounted", io::Error::from(io::ErrorKind::NotFound))
    })?;
    update_below(&root, groups, id, processes, schemata)
}

fn update_below(
    root: &Path,
    groups: &CacheGroups,
    id: &str,
    processes: &[i32],
    schemata: Vec<String>,
) -> Result<CacheGroups, Error> {
    let write = |path: PathBuf, text: String| {
        std::fs::write(&path, text)
            .map_err(|e| Error::host(format!("linux.intelRdt: writing \"{}\"", path.display()), e))
    };
    if let Some(class) = &groups.class {
        write(class.join("schemata"), schemata.join("\n") + "\n")?;
        return Ok(groups.clone());
    }
    let Some((first, others)) = processes.split_first() else { return Err(Error::NotRunning) };
    let plan = CachePlan { class: None, schemata, monitor: false };
    let mut made = CacheGroups { class: None, monitor: groups.monitor.clone() };
    let result = apply_below(root, &plan, id, *first, &mut made).and_then(|()| {
        // The kernel moves threads, one a write; those of the first process too.
        for pid in std::iter::once(first).chain(others) {
            for entry in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                match write(root.join(id).join("tasks"), entry.file_name().to_string_lossy().into_owned()) {
                    // It has ended meanwhile.
                    Err(Error::Host { source, .. }) if source.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    });
    if result.is_err() {
        let _ = CacheGroups { class: made.class.take(), monitor: None }.remove();
    }
    result.map(|()| made)
}

fn apply_below(
    root: &Path,
    plan: &CachePlan,
    id: &str,
    pid: i32,
    groups: &mut CacheGroups,
) -> Result<(), Error> {
    let failed = |what: &str, path: &Path, e: io::Error| {
        Error::host(format!("linux.intelRdt: {what} \"{}\"", path.display()), e)
    };
    let class = root.join(plan.class.as_deref().unwrap_or(id));
    let made = match std::fs::create_dir(&class) {
        Ok(()) => {
            groups.class = Some(class.clone());
            true
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(failed("making", &class, error)),
    };
    if !made && plan.class.is_none() {
        // Somebody else's class must not be taken for this container's own.
        return Err(failed("making", &class, io::ErrorKind::AlreadyExists.into()));
    }
    let write = |name: &str, text: String| {
        let path = class.join(name);
        std::fs::write(&path, text).map_err(|e| failed("writing", &path, e))
    };
    if !plan.schemata.is_empty() {
        if made || plan.class.is_none() {
            write("schemata", plan.schemata.join("\n") + "\n")?;
        } else {
            // "If closID is set and the group exists, its schemata must be the same": it is others' too.
            let path = class.join("schemata");
            let now = std::fs::read_to_string(&path).map_err(|e| failed("reading", &path, e))?;
            let squeeze = |line: &str| line.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let has = |wanted: &str| now.lines().any(|line| squeeze(line) == squeeze(wanted));
            if !plan.schemata.iter().flat_map(|lines| lines.lines()).all(has) {
                let other = io::Error::other("it exists and has other schemata");
                return Err(failed("joining", &class, other));
            }
        }
    }
    write("tasks", pid.to_string())?;
    if plan.monitor {
        let path = class.join("mon_groups").join(id);
        std::fs::create_dir(&path).map_err(|e| failed("making", &path, e))?;
        groups.monitor = Some(path.clone());
        let tasks = path.join("tasks");
        std::fs::write(&tasks, pid.to_string()).map_err(|e| failed("writing", &tasks, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: linux.intelRdt.enableMonitoring
    #[test]
    fn a_container_is_monitored_in_its_class() {
        let root =
            std::env::temp_dir().join(format!("umiak-rdt-{:x}", crate::sys::atomic::random().unwrap()));
        // What the kernel makes with a class.
        std::fs::create_dir_all(root.join("gold/mon_groups")).unwrap();
        let plan = CachePlan { class: Some("gold".to_owned()), schemata: Vec::new(), monitor: true };
        let mut groups = CacheGroups::default();
        apply_below(&root, &plan, "c", 7, &mut groups).unwrap();
        assert_eq!(std::fs::read_to_string(root.join("gold/mon_groups/c/tasks")).unwrap(), "7");
        assert_eq!((groups.class, groups.monitor), (None, Some(root.join("gold/mon_groups/c"))));
        std::fs::remove_dir_all(root).unwrap();
    }

    // spec: linux.intelRdt.closID, linux.intelRdt.schemata
    #[test]
    fn classes_are_made_joined_and_removed() {
        let root =
            std::env::temp_dir().join(format!("umiak-rdt-{:x}", crate::sys::atomic::random().unwrap()));
        std::fs::create_dir_all(&root).unwrap();
        let plan = |class: Option<&str>, line: &str| CachePlan {
            class: class.map(str::to_owned),
            schemata: vec![line.to_owned()],
            monitor: false,
        };
        let mut groups = CacheGroups::default();
        apply_below(&root, &plan(Some("gold"), "L3:0=ff"), "c", 7, &mut groups).unwrap();
        assert_eq!(std::fs::read_to_string(root.join("gold/schemata")).unwrap(), "L3:0=ff\n");
        assert_eq!(std::fs::read_to_string(root.join("gold/tasks")).unwrap(), "7");
        let mut others = CacheGroups::default();
        apply_below(&root, &plan(Some("gold"), "L3:0=ff"), "d", 8, &mut others).unwrap();
        assert!(others.is_empty(), "it is the first one's");
        assert!(apply_below(&root, &plan(Some("gold"), "L3:0=0f"), "e", 9, &mut others).is_err());
        assert!(apply_below(&root, &plan(None, "L3:0=0f"), "gold", 9, &mut others).is_err());
        let ours = [std::process::id() as i32];
        let changed = update_below(&root, &groups, "c", &ours, vec!["L3:0=1".into()]).unwrap();
        assert_eq!(changed, groups);
        assert_eq!(std::fs::read_to_string(root.join("gold/schemata")).unwrap(), "L3:0=1\n");
        let own = update_below(&root, &others, "d", &ours, vec!["MB:0=20".into()]).unwrap();
        assert_eq!(own.class, Some(root.join("d")));
        assert!(update_below(&root, &others, "f", &[], vec![]).is_err());
        std::fs::remove_dir_all(root).unwrap();
        groups.remove().unwrap();
    }
}
