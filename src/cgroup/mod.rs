//! Control groups (L2): where a container's processes are tracked and limited.
//!
//! Only version 2 is used. On a hybrid machine, whose controllers sit on version 1, its tree is at
//! `/sys/fs/cgroup/unified` and has none: processes are tracked and killed there, limits are not to be had.

mod resources;

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use oci_spec::runtime::LinuxResources;
use rustix::fs::{FsWord, statfs};

/// `CGROUP2_SUPER_MAGIC`, statfs(2).
const CGROUP2: FsWord = 0x6367_7270;

/// An error about a control group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A limit was asked for that cannot be set here.
    #[error("cannot limit {resource}: {reason}")]
    Unavailable {
        /// What was to be limited.
        resource: String,
        /// Why not.
        reason: String,
    },
    /// A value that no kernel takes.
    #[error("the {resource} {value} is out of range")]
    Range {
        /// What was to be limited.
        resource: &'static str,
        /// The value asked for.
        value: String,
    },
    /// The kernel refused.
    #[error("{action} \"{}\"", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What control groups give here, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// `v2`, `v1` or `none`.
    pub version: &'static str,
    /// The controllers of our own place in the tree.
    pub controllers: Vec<String>,
    /// "limits", "tracking" or "none".
    pub rung: &'static str,
    /// Why not more.
    pub why: String,
}

/// Our place in the tree of version 2.
#[derive(Debug, Clone)]
struct Tree {
    mount: PathBuf,
    /// Of this process, relative to the mount.
    own: PathBuf,
}

impl Tree {
    fn find() -> Option<Self> {
        let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
            .into_iter()
            .map(PathBuf::from)
            .find(|path| statfs(path).is_ok_and(|fs| fs.f_type == CGROUP2))?;
        let text = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(Self { mount, own: own.trim_start_matches('/').into() })
    }

    /// Where containers' groups are made: root at the top, others below their own group.
    fn parent(&self) -> PathBuf {
        if rustix::process::geteuid().is_root() { self.mount.clone() } else { self.mount.join(&self.own) }
    }
}

fn controllers(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

fn writable(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
}

/// What control groups give here.
pub fn describe() -> Description {
    let Some(tree) = Tree::find() else {
        let v1 = Path::new("/sys/fs/cgroup/memory").exists();
        return Description {
            version: if v1 { "v1" } else { "none" },
            controllers: Vec::new(),
            rung: "none",
            why: "no control group tree of version 2 is mounted".into(),
        };
    };
    let parent = tree.parent();
    let controllers = controllers(&parent);
    let limits = controllers.iter().any(|name| name == "memory" || name == "pids");
    let (rung, why) = match (writable(&parent), limits) {
        (false, _) => ("none", format!("{} is not ours to write", parent.display())),
        (true, false) => ("tracking", "the controllers of this machine sit on version 1".into()),
        (true, true) => ("limits", format!("{} is ours", parent.display())),
    };
    let version = if tree.mount.ends_with("unified") { "v1" } else { "v2" };
    Description { version, controllers, rung, why }
}

/// Makes a container's control group and sets its limits. `path` is `linux.cgroupsPath`: absolute from the
/// root of the tree, relative from where containers' groups are; none stands for `umiak/ID`.
///
/// `None` where no group can be had and nothing that was asked for needs one.
pub fn create(
    path: Option<&Path>,
    id: &str,
    asked: Option<&LinuxResources>,
) -> Result<Option<PathBuf>, Error> {
    let settings = asked.map(resources::settings).transpose()?.unwrap_or_default();
    let refuse = |reason: String| match settings.first() {
        Some(setting) => Err(Error::Unavailable { resource: setting.resource.into(), reason }),
        None => Ok(None),
    };
    let Some(tree) = Tree::find() else {
        return refuse("no control group tree of version 2 is mounted".into());
    };
    let parent = tree.parent();
    let relative = match path {
        // systemd's form (slice:prefix:name) is for its own driver.
        Some(path) if path.to_string_lossy().matches(':').count() == 2 => Path::new("umiak").join(id),
        Some(path) => inside(path),
        None => Path::new("umiak").join(id),
    };
    let dir =
        if path.is_some_and(Path::is_absolute) { tree.mount.join(&relative) } else { parent.join(&relative) };
    match make(&tree.mount, &dir, &settings) {
        Ok(()) => {}
        // An old place of ours, or nobody's: without a limit to keep, do without the group.
        Err(Error::Io { source, .. }) if settings.is_empty() && is_denial(&source) => return Ok(None),
        Err(Error::Io { path, source, .. }) if is_denial(&source) => {
            return refuse(format!("{} is not ours to write", path.display()));
        }
        Err(error) => return Err(error),
    }
    if let Err(error) = write_settings(&dir, &settings) {
        let _ = remove(&dir);
        return Err(error);
    }
    Ok(Some(dir))
}

/// Changes the limits of an existing group.
pub fn apply(dir: &Path, asked: &LinuxResources) -> Result<(), Error> {
    write_settings(dir, &resources::settings(asked)?)
}

fn is_denial(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// Without anything that leads out of the tree.
fn inside(path: &Path) -> PathBuf {
    path.components().filter(|c| matches!(c, Component::Normal(_))).collect()
}

/// Makes the directories down to `dir`, handing the controllers that are needed down on the way.
fn make(mount: &Path, dir: &Path, settings: &[resources::Setting]) -> Result<(), Error> {
    let relative = dir.strip_prefix(mount).unwrap_or(dir);
    let mut at = mount.to_owned();
    for component in relative.components() {
        let parent = at.clone();
        at.push(component);
        match fs::create_dir(&at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(Error::Io { action: "making", path: at, source }),
        }
        let here = controllers(&at);
        for setting in settings.iter().filter(|s| !s.controller.is_empty()) {
            if !here.iter().any(|name| name == setting.controller) {
                // Refused where processes sit in the parent ("no internal processes", cgroups(7)); the
                // missing file tells of it where it matters.
                let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{}", setting.controller));
            }
        }
    }
    Ok(())
}

fn write_settings(dir: &Path, settings: &[resources::Setting]) -> Result<(), Error> {
    for setting in settings {
        let path = dir.join(&setting.file);
        match fs::write(&path, &setting.value) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_denial(&error) => {
                let reason = if setting.controller.is_empty() {
                    format!("the kernel has no {}", setting.file)
                } else {
                    format!("the controller \"{}\" is not available in {}", setting.controller, dir.display())
                };
                return Err(Error::Unavailable { resource: setting.resource.into(), reason });
            }
            Err(source) => return Err(Error::Io { action: "writing", path, source }),
        }
    }
    Ok(())
}

/// Moves a process into the group.
pub fn attach(dir: &Path, pid: i32) -> io::Result<()> {
    fs::write(dir.join("cgroup.procs"), pid.to_string())
}

/// The processes of the group and of those below it.
pub fn pids(dir: &Path) -> io::Result<Vec<i32>> {
    let mut pids: Vec<i32> =
        fs::read_to_string(dir.join("cgroup.procs"))?.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(dir) {
        pids.extend(self::pids(&child).unwrap_or_default());
    }
    Ok(pids)
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Kills all processes of the group and of those below it.
pub fn kill(dir: &Path) -> io::Result<()> {
    match fs::write(dir.join("cgroup.kill"), "1") {
        // Before Linux 5.14: one by one, until no fork got away.
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.exists() => {
            for _ in 0..100 {
                let pids = pids(dir)?;
                if pids.is_empty() {
                    break;
                }
                for pid in pids.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            Ok(())
        }
        other => other,
    }
}

/// Stops or continues all processes of the group; returns when the kernel says that it is done.
pub fn freeze(dir: &Path, frozen: bool) -> io::Result<()> {
    let wanted = if frozen { "1" } else { "0" };
    fs::write(dir.join("cgroup.freeze"), wanted)?;
    let line = format!("frozen {wanted}");
    for _ in 0..1000 {
        if fs::read_to_string(dir.join("cgroup.events"))?.lines().any(|l| l == line) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Whether the group is frozen.
pub fn is_frozen(dir: &Path) -> bool {
    fs::read_to_string(dir.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
}

/// Removes the group and those below it. Processes that have been killed leave it a moment later
/// than their parent hears of it, so this tries for a while. One that is gone already is no error.
pub fn remove(dir: &Path) -> io::Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        for child in children(dir) {
            remove(&child)?;
        }
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && pause < Duration::from_millis(200) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(inside(Path::new("/a/../../b/./c")), PathBuf::from("a/b/c"));
    }

    #[test]
    fn description_names_a_reason() {
        let description = describe();
        assert!(!description.why.is_empty() && ["limits", "tracking", "none"].contains(&description.rung));
    }
}
