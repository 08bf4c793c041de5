//! Control groups (L2): where a container's processes are tracked and limited (cgroups(7), version 2).
//!
//! On a pure v2 system and on a hybrid one (v2 at `/sys/fs/cgroup/unified`) a container gets a
//! group of its own wherever we may make one. Where not, it goes without, and says why; but a limit
//! that was asked for and cannot be set is an error.

mod resources;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use rustix::fs::{Mode, OFlags};

use crate::sys::ids;

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
    /// A value that makes no sense.
    #[error("{resource}: {reason}")]
    Invalid {
        /// The field.
        resource: String,
        /// Why.
        reason: String,
    },
    /// The path cannot be used.
    #[error("cgroup path \"{}\": {reason}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The kernel refused.
    #[error("{action} \"{}\"", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
}

fn io_error(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
    Error::Io { action, path: path.to_owned(), source: source.into() }
}

/// Whether containers of this process can have control groups, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// Containers get a control group of their own.
    pub available: bool,
    /// The v2 controllers that can be used in it.
    pub controllers: Vec<String>,
    /// Why (not).
    pub why: String,
}

/// The v2 tree as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The caller's own group, below `mount`.
    pub own: PathBuf,
}

const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Finds the v2 tree.
pub fn tree() -> Option<Tree> {
    let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|path| rustix::fs::statfs(*path).is_ok_and(|s| s.f_type as u64 == CGROUP2_MAGIC))?;
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A group outside of our cgroup namespace's root is shown with "..".
    if own.split('/').any(|part| part == "..") {
        return None;
    }
    Some(Tree { mount: mount.into(), own: own.into() })
}

/// A container's group.
#[derive(Debug)]
pub struct Group {
    /// Its directory.
    pub path: PathBuf,
    dir: OwnedFd,
}

impl AsFd for Group {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Group {
    /// Moves a process into the group.
    pub fn add(&self, pid: i32) -> Result<(), Error> {
        add(&self.path, pid)
    }
}

/// Moves a process into a group.
pub fn add(group: &Path, pid: i32) -> Result<(), Error> {
    let path = group.join("cgroup.procs");
    std::fs::write(&path, pid.to_string()).map_err(|e| io_error("writing", &path, e))
}

/// What came of the wish for a group.
#[derive(Debug)]
pub enum Outcome {
    /// Here it is.
    Made(Group),
    /// There is none, for this reason.
    None(String),
}

/// Makes a container's group and sets its limits. `wanted` is the specification's `cgroupsPath`:
/// absolute below the tree's root, else below the caller's own group; without one the name is
/// `umiak-ID`, for root in `/umiak`.
pub fn create(
    wanted: Option<&Path>,
    id: &str,
    limits: Option<&LinuxResources>,
    disabled: bool,
) -> Result<Outcome, Error> {
    let settings = resources::settings(limits)?;
    let none = |reason: String| match settings.iter().find(|s| !s.harmless) {
        Some(setting) => Err(Error::Unavailable { resource: setting.field.to_owned(), reason }),
        None => Ok(Outcome::None(reason)),
    };
    if disabled {
        return none("control groups are switched off".to_owned());
    }
    let Some(tree) = tree() else { return none("there is no cgroup v2 tree".to_owned()) };
    let relative = relative_path(&tree, wanted, id)?;
    let path = tree.mount.join(&relative);
    match make(&path) {
        Ok(()) => {}
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) && (ids::euid() != 0 || error.kind() == io::ErrorKind::ReadOnlyFilesystem) =>
        {
            return none(format!(
                "\"{}\" is not delegated to this user",
                tree.mount.join(&tree.own).display()
            ));
        }
        Err(error) => return Err(io_error("creating", &path, error)),
    }
    let result = (|| {
        apply(&tree.mount, &relative, &settings)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| io_error("opening", &path, e))?;
        Ok(Outcome::Made(Group { path: path.clone(), dir }))
    })();
    if result.is_err() {
        let _ = std::fs::remove_dir(&path);
    }
    result
}

/// Where [`create`] puts the group of a container that asks for no place of its own: for finding
/// what a killed process left before it could record it. For a user it depends on where the caller
/// itself is, so it may miss.
pub fn own_path(id: &str) -> Option<PathBuf> {
    place(None, id)
}

/// As [`own_path`], for a container that may ask for a place.
pub fn place(wanted: Option<&Path>, id: &str) -> Option<PathBuf> {
    let tree = tree()?;
    let relative = relative_path(&tree, wanted, id).ok()?;
    Some(tree.mount.join(relative))
}

fn relative_path(tree: &Tree, wanted: Option<&Path>, id: &str) -> Result<PathBuf, Error> {
    let Some(wanted) = wanted.filter(|path| !path.as_os_str().is_empty()) else {
        let own = || tree.own.join(format!("umiak-{id}"));
        return Ok(if ids::euid() == 0 { Path::new("umiak").join(id) } else { own() });
    };
    let error = |reason| Error::Path { path: wanted.to_owned(), reason };
    if wanted.to_string_lossy().matches(':').count() == 2 {
        return Err(error("systemd's form needs the systemd cgroup manager, which is not supported yet"));
    }
    if wanted.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(error("it has \"..\""));
    }
    Ok(match wanted.strip_prefix("/") {
        Ok(absolute) if absolute.as_os_str().is_empty() => return Err(error("it is the root group")),
        Ok(absolute) => absolute.to_owned(),
        Err(_) => tree.own.join(wanted),
    })
}

/// Makes the group and what is missing above it. One that exists and is empty is what a killed
/// `create` left, and made anew: its limits were another's. One in use is an error, because limits
/// and `kill` would hit others.
fn make(path: &Path) -> io::Result<()> {
    let one = |path: &Path| rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)).map_err(io::Error::from);
    match one(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().ok_or(error)?;
            make_parents(parent)?;
            one(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            // Its init may be about to end.
            remove(path)?;
            one(path)
        }
        other => other,
    }
}

fn make_parents(path: &Path) -> io::Result<()> {
    match std::fs::create_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn apply(mount: &Path, relative: &Path, settings: &[resources::Setting]) -> Result<(), Error> {
    if settings.is_empty() {
        return Ok(());
    }
    let offered = std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    for setting in settings {
        let there =
            setting.controller.is_empty() || offered.split_whitespace().any(|c| c == setting.controller);
        if !there {
            if setting.harmless {
                continue;
            }
            let reason = format!("the cgroup v2 controller \"{}\" is not there", setting.controller);
            return Err(Error::Unavailable { resource: setting.field.to_owned(), reason });
        }
        if !setting.controller.is_empty() {
            enable(mount, relative, &setting.controller)?;
        }
        let file = mount.join(relative).join(&setting.file);
        match std::fs::write(&file, &setting.value) {
            Err(_) if setting.harmless => {}
            other => other.map_err(|e| io_error("writing", &file, e))?,
        }
    }
    Ok(())
}

/// Hands a controller down from the root to the group's parent.
fn enable(mount: &Path, relative: &Path, controller: &str) -> Result<(), Error> {
    let mut at = mount.to_owned();
    for part in relative.components() {
        let file = at.join("cgroup.subtree_control");
        let enabled = std::fs::read_to_string(&file).unwrap_or_default();
        if !enabled.split_whitespace().any(|c| c == controller) {
            std::fs::write(&file, format!("+{controller}")).map_err(|e| io_error("writing", &file, e))?;
        }
        at.push(part);
    }
    Ok(())
}

/// Whether and why containers of this process get control groups; tried by making one.
pub fn availability() -> Availability {
    let no = |why: String| Availability { available: false, controllers: Vec::new(), why };
    let Some(tree) = tree() else { return no("there is no cgroup v2 tree".to_owned()) };
    let parent = if ids::euid() == 0 { tree.mount.clone() } else { tree.mount.join(&tree.own) };
    let name = format!("umiak-probe-{}", std::process::id());
    let path = parent.join(name);
    match std::fs::create_dir(&path) {
        Err(error) => no(format!("\"{}\" cannot be used: {error}", parent.display())),
        Ok(()) => {
            let _ = std::fs::remove_dir(&path);
            let text = std::fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
            Availability {
                available: true,
                controllers: text.split_whitespace().map(str::to_owned).collect(),
                why: format!("\"{}\" is writable", parent.display()),
            }
        }
    }
}

/// Kills all processes of a control group by `cgroup.kill` (Linux 5.14); one that is gone is no error.
pub fn kill(cgroup: &Path) -> io::Result<()> {
    match std::fs::write(cgroup.join("cgroup.kill"), "1") {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) && !cgroup.exists() => Ok(()),
        other => other,
    }
}

/// The processes of a group, as the caller sees them.
pub fn processes(cgroup: &Path) -> io::Result<Vec<i32>> {
    let text = std::fs::read_to_string(cgroup.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Removes an empty control group and its children; one that is gone already is no error. Killed
/// processes leave a group some moments after they are dead, so it tries for half a second.
pub fn remove(cgroup: &Path) -> io::Result<()> {
    let mut pause = std::time::Duration::from_millis(1);
    loop {
        match remove_once(cgroup) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && pause.as_millis() < 256 => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            other => return other,
        }
    }
}

fn remove_once(cgroup: &Path) -> io::Result<()> {
    match rustix::fs::rmdir(cgroup) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::BUSY) => {}
        Err(error) => return Err(error.into()),
    }
    for entry in std::fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_once(&entry.path())?;
        }
    }
    Ok(rustix::fs::rmdir(cgroup)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_tree() {
        let tree = Tree { mount: "/sys/fs/cgroup".into(), own: "user.slice/x".into() };
        let path = |wanted: &str| relative_path(&tree, Some(Path::new(wanted)), "id");
        assert_eq!(path("/a/b").unwrap(), Path::new("a/b"));
        assert_eq!(path("a").unwrap(), Path::new("user.slice/x/a"));
        for bad in ["/a/../b", "/", "system.slice:x:y"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
