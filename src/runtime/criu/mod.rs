//! Taking a container's processes down into files and up again, by the program criu (criu(8)), the one
//! helper that the runtime's face has: where it is not installed, these two commands fail and nothing
//! else does.
//!
//! Criu is asked over a socket (`criu swrk`, as its own library does), because only so it hands over a
//! terminal's master and lets hooks be run while it restores. What it must know of a container is
//! taken from the kernel where that knows it (mounts of a running one) and from the configuration
//! where not. Images are as runc's and crun's: the same names for what comes from outside.

mod dump;
mod request;
mod restore;
mod session;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

pub use dump::{Dump, checkpoint};
pub use request::{CgroupMode, NetworkLock, Options};
pub use restore::{Restored, restore};

use super::plan::PlanError;

/// What can go wrong between a container and criu.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no criu.
    #[error("criu, which does this, is not installed")]
    NotInstalled,
    /// Only root can do it.
    #[error("criu needs root's privileges")]
    NotRoot,
    /// The configuration.
    #[error("the container's configuration")]
    Plan(#[from] PlanError),
    /// A file or directory.
    #[error("{what} \"{}\"", path.display())]
    Path {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// It makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A part of the configuration that cannot be restored.
    #[error("restore: {0} is not supported yet")]
    Unsupported(&'static str),
    /// Criu could not be run or talked with.
    #[error("running criu")]
    Run(#[source] io::Error),
    /// Criu said no.
    #[error("criu's {what} failed: {line} (more in \"{}\")", log.display())]
    Failed {
        /// `dump` or `restore`.
        what: &'static str,
        /// What its log says.
        line: String,
        /// Its log.
        log: PathBuf,
    },
    /// Making the mount points.
    #[error("preparing the rootfs: {0}")]
    Prepare(String),
    /// The list of descriptors of a checkpoint.
    #[error("reading \"{}\"", path.display())]
    Descriptors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A step of ours.
    #[error(transparent)]
    Runtime(#[from] super::Error),
    /// The control group.
    #[error("setting up the control group")]
    Cgroup(#[from] crate::cgroup::Error),
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotInstalled => Some(
                "install the package \"criu\" (https://criu.org), or stop the container and start it anew"
                    .to_owned(),
            ),
            Self::Failed { line, .. }
                if line.contains("--tcp-established") || line.contains("tcp-established") =>
            {
                Some("there are open TCP connections: give --tcp-established".to_owned())
            }
            Self::Failed { line, .. } if line.contains("shell-job") => {
                Some("it belongs to the caller's session: give --shell-job".to_owned())
            }
            Self::Runtime(error) => error.hint(),
            Self::Cgroup(error) => error.hint(),
            _ => None,
        }
    }
}

/// What stands for descriptors 0, 1 and 2 in the images, as runc writes it.
const DESCRIPTORS: &str = "descriptors.json";

/// The names that runc and crun give to namespaces that a container did not make itself.
const EXTERNAL: [(u64, &str, &str); 2] =
    [(libc::CLONE_NEWNET as u64, "net", "extRootNetNS"), (libc::CLONE_NEWPID as u64, "pid", "extRootPidNS")];

/// Opens a directory.
fn open_dir(what: &'static str, path: &Path) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::Path { what, path: path.to_owned(), source: e.into() })
}

/// Opens the working directory, made where it is missing, if there is one of its own.
fn open_work(options: &Options) -> Result<Option<OwnedFd>, Error> {
    let Some(path) = &options.work else { return Ok(None) };
    make_dir("making the working directory", path)?;
    open_dir("opening the working directory", path).map(Some)
}

/// Makes a directory for the caller alone; tells whether it was missing.
fn make_dir(what: &'static str, path: &Path) -> Result<bool, Error> {
    use std::os::unix::fs::DirBuilderExt;
    if path.is_dir() {
        return Ok(false);
    }
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Error::Path { what, path: path.to_owned(), source })?;
    Ok(true)
}

/// The annotation that names a file with criu's options, or takes away the usual one.
const CONFIG: &str = "org.criu.config";
const USUAL_CONFIG: &str = "/etc/criu/runc.conf";

/// Criu's file of options for this container: those count more than what it is asked for.
fn config_file(spec: &oci_spec::runtime::Spec) -> Option<PathBuf> {
    let named = spec.annotations().as_ref().and_then(|all| all.get(CONFIG));
    let path = named.map_or(USUAL_CONFIG, String::as_str);
    Some(PathBuf::from(path)).filter(|path| !path.as_os_str().is_empty() && path.exists())
}
