//! Where the store is.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, Result};

/// The two directories of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What outlives a reboot: blobs, layers, images, containers, volumes.
    pub root: PathBuf,
    /// What is of use until the next boot only: sockets, locks, facts about running containers.
    pub runroot: PathBuf,
    /// Other stores, which are only read.
    pub additional: Vec<PathBuf>,
}

impl Paths {
    /// The directories for the user with the effective id `euid` in an environment.
    ///
    /// Root has `/var/lib/umiak` and `/run/umiak`. Others have `$XDG_DATA_HOME/umiak` (else
    /// `~/.local/share/umiak`) and `$XDG_RUNTIME_DIR/umiak`, or, without that variable,
    /// where that is no directory of theirs, `/tmp/umiak-UID-run`: [`Paths::with_run_user`] prefers `/run/user/UID` where it exists.
    pub fn default_for(euid: u32, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        if euid == 0 {
            return Ok(Self::new("/var/lib/umiak".into(), "/run/umiak".into()));
        }
        // The XDG base directory specification: relative values are invalid and to be ignored.
        let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let data = absolute("XDG_DATA_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
            .ok_or(Error::NoHome)?;
        // One that is gone, or another user's (su and sudo leave it), is as good as none.
        let usable =
            |dir: &PathBuf| std::fs::metadata(dir).is_ok_and(|stat| stat.is_dir() && stat.uid() == euid);
        let runroot = match absolute("XDG_RUNTIME_DIR").filter(usable) {
            Some(dir) => dir.join("umiak"),
            None => fallback(euid),
        };
        Ok(Self::new(data.join("umiak"), runroot))
    }

    /// Two directories, and no other store.
    pub fn new(root: PathBuf, runroot: PathBuf) -> Self {
        Self { root, runroot, additional: Vec::new() }
    }

    /// The directories of this process.
    pub fn discover() -> Result<Self> {
        let euid = rustix::process::geteuid().as_raw();
        let paths = Self::default_for(euid, &|name| std::env::var_os(name))?;
        Ok(paths.with_run_user(euid))
    }

    /// Takes `/run/user/UID` for the fallback in `/tmp` if it is there: a shell got by `su` lacks the variable. Where
    /// nothing can be made in `/tmp` either, it is a directory of the store.
    fn with_run_user(mut self, euid: u32) -> Self {
        let user = PathBuf::from(format!("/run/user/{euid}"));
        if self.runroot != fallback(euid) {
            return self;
        }
        if user.is_dir() {
            self.runroot = user.join("umiak");
        } else if !self.runroot.exists() && !is_writable(Path::new("/tmp")) {
            self.runroot = self.root.join("run");
        }
        self
    }
}

fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Where there is no directory of the user's for what is volatile.
fn fallback(euid: u32) -> PathBuf {
    PathBuf::from(format!("/tmp/umiak-{euid}-run"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults() {
        let none = |_: &str| None;
        assert_eq!(Paths::default_for(0, &none).unwrap().root, PathBuf::from("/var/lib/umiak"));
        assert!(matches!(Paths::default_for(1000, &none), Err(Error::NoHome)));
        let home = |name: &str| (name == "HOME").then(|| OsString::from("/home/u"));
        let paths = Paths::default_for(1000, &home).unwrap();
        assert_eq!(paths.root, PathBuf::from("/home/u/.local/share/umiak"));
        assert_eq!(paths.runroot, PathBuf::from("/tmp/umiak-1000-run"));
        let xdg = |name: &str| match name {
            "XDG_DATA_HOME" => Some(OsString::from("/d")),
            "XDG_RUNTIME_DIR" => Some(OsString::from("relative")),
            _ => None,
        };
        let paths = Paths::default_for(1000, &xdg).unwrap();
        assert_eq!((paths.root, paths.runroot), ("/d/umiak".into(), "/tmp/umiak-1000-run".into()));
    }
}
