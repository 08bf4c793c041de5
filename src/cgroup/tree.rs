//! The v2 tree, and places in it.

use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::sys::{ids, process};

/// Whether containers of this process can have control groups, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Availability {
    /// Containers get a control group of their own.
    pub available: bool,
    /// The v2 controllers that can be used in it.
    pub controllers: Vec<String>,
    /// Why (not).
    pub why: String,
    /// Not we make it but systemd, and only where it is asked for.
    pub by_systemd: bool,
    /// What would give more.
    pub hint: Option<String>,
}

/// The v2 tree as this process sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The caller's own group, below `mount`.
    pub own: PathBuf,
}

impl Tree {
    /// Whether v1 has most controllers, and this tree those that are left.
    pub fn is_hybrid(&self) -> bool {
        self.mount != Path::new("/sys/fs/cgroup")
    }
}

const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Finds the v2 tree.
pub fn tree() -> Option<Tree> {
    let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .into_iter()
        .find(|path| rustix::fs::statfs(*path).is_ok_and(|s| s.f_type as u64 == CGROUP2_MAGIC))?;
    let own = group_of("self")?;
    Some(Tree { mount: mount.into(), own })
}

/// The v2 group of a process (`self` or a pid), relative to the tree's root.
pub(super) fn group_of(process: &str) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // A group outside of our cgroup namespace's root is shown with "..".
    if own.split('/').any(|part| part == "..") {
        return None;
    }
    Some(own.into())
}

/// The names in one of a group's files (`cgroup.controllers`, `cgroup.subtree_control`).
pub(super) fn words(group: &Path, file: &str) -> Vec<String> {
    let bytes = process::read_small(&group.join(file).to_string_lossy()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).split_whitespace().map(str::to_owned).collect()
}

/// Where a container's group is to be made, relative to the tree's root. `needed` are the controllers
/// that it takes.
/// `root`: the tree is the caller's, as far as they can see.
pub(super) fn place(
    tree: &Tree,
    wanted: Option<&Path>,
    id: &str,
    needed: &[&str],
    root: bool,
) -> Result<PathBuf, Error> {
    let Some(wanted) = wanted.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(match root {
            true => Path::new("umiak").join(id),
            false => base(tree, needed).join(format!("umiak-{id}")),
        });
    };
    let error = |reason| Error::Path { path: wanted.to_owned(), reason };
    if wanted.to_string_lossy().matches(':').count() == 2 {
        return Err(error("systemd's form needs the systemd cgroup manager (--systemd-cgroup)"));
    }
    if wanted.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(error("it has \"..\""));
    }
    Ok(match wanted.strip_prefix("/") {
        Ok(absolute) if absolute.as_os_str().is_empty() => return Err(error("it is the root group")),
        Ok(absolute) => absolute.to_owned(),
        Err(_) => base(tree, needed).join(wanted),
    })
}

/// What relative paths are relative to: our own group; but where that holds processes, the kernel
/// hands no controllers to groups below it, so it is the nearest one above that may be used then.
fn base(tree: &Tree, needed: &[&str]) -> PathBuf {
    if needed.is_empty() {
        return tree.own.clone();
    }
    delegated(tree, needed).unwrap_or_else(|| tree.own.clone())
}

/// The nearest group from ours upwards in which the caller may make groups that are limited by all of these
/// controllers.
pub(super) fn delegated(tree: &Tree, needed: &[&str]) -> Option<PathBuf> {
    let fits = |relative: &&Path| {
        let group = tree.mount.join(relative);
        let given = words(&group, "cgroup.subtree_control");
        if needed.iter().all(|controller| given.iter().any(|c| c == controller)) {
            return true;
        }
        let offered = words(&group, "cgroup.controllers");
        needed.iter().all(|controller| offered.iter().any(|c| c == controller))
            && std::fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|text| text.is_empty())
    };
    let writable = |relative: &&Path| {
        rustix::fs::access(tree.mount.join(relative), rustix::fs::Access::WRITE_OK).is_ok()
    };
    tree.own.ancestors().take_while(writable).find(fits).map(Path::to_owned)
}

/// Whether and why containers of this process get control groups; tried by making one.
pub fn availability() -> Availability {
    let hint = super::choice::advice();
    let no = |why: String| Availability {
        available: false,
        controllers: Vec::new(),
        why,
        by_systemd: false,
        hint: hint.clone(),
    };
    let Some(tree) = tree() else { return no("there is no cgroup v2 tree".to_owned()) };
    if let Some(controllers) = super::choice::by_the_users_systemd(&tree) {
        let why = "the user's systemd makes groups for containers with limits".to_owned();
        return Availability { available: true, controllers, why, by_systemd: true, hint };
    }
    let parent = if ids::euid() == 0 { tree.mount.clone() } else { tree.mount.join(&tree.own) };
    let name = format!("umiak-probe-{}", std::process::id());
    let path = parent.join(name);
    match std::fs::create_dir(&path) {
        Err(error) => no(format!("\"{}\" cannot be used: {error}", parent.display())),
        Ok(()) => {
            let _ = std::fs::remove_dir(&path);
            Availability {
                available: true,
                controllers: words(&parent, "cgroup.controllers"),
                why: format!("\"{}\" is writable", parent.display()),
                by_systemd: false,
                hint,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_in_the_tree() {
        let tree = Tree { mount: "/sys/fs/cgroup".into(), own: "user.slice/x".into() };
        let path = |wanted: &str| place(&tree, Some(Path::new(wanted)), "id", &[], false);
        assert_eq!(path("/a/b").unwrap(), Path::new("a/b"));
        assert_eq!(path("a").unwrap(), Path::new("user.slice/x/a"));
        for bad in ["/a/../b", "/", "system.slice:x:y"] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_full_group_hands_on_to_the_one_above() {
        let mount =
            std::env::temp_dir().join(format!("umiak-tree-{:x}", crate::sys::atomic::random().unwrap()));
        let write = |group: &str, file: &str, text: &str| {
            std::fs::create_dir_all(mount.join(group)).unwrap();
            std::fs::write(mount.join(group).join(file), text).unwrap();
        };
        for (group, processes) in [("a", ""), ("a/b", "1\n")] {
            write(group, "cgroup.controllers", "memory pids");
            write(group, "cgroup.subtree_control", "");
            write(group, "cgroup.procs", processes);
        }
        let tree = Tree { mount: mount.clone(), own: "a/b".into() };
        assert_eq!(base(&tree, &[]), Path::new("a/b"));
        assert_eq!(base(&tree, &["pids"]), Path::new("a"));
        assert_eq!(base(&tree, &["io"]), Path::new("a/b"));
        write("a/b", "cgroup.subtree_control", "pids");
        assert_eq!(base(&tree, &["pids"]), Path::new("a/b"));
        std::fs::remove_dir_all(mount).unwrap();
    }
}
