//! What can go wrong between a spec and a running process.

use std::io;
use std::path::PathBuf;

use super::plan::PlanError;
use super::protocol::{Failure, FailureKind};
use crate::security::idmap;

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec asks for what is wrong or not supported.
    #[error("the container's configuration")]
    Plan(#[from] PlanError),
    /// The seccomp profile cannot be compiled.
    #[error("compiling the seccomp profile")]
    Seccomp(#[from] crate::seccomp::Error),
    /// The control group cannot be made or a limit not be set.
    #[error("setting up the control group")]
    Cgroup(#[from] crate::cgroup::Error),
    /// A step outside of the container failed.
    #[error("{action}")]
    Host {
        /// What was being done, to what.
        action: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses namespaces.
    #[error("creating user and other namespaces")]
    Namespaces(#[source] io::Error),
    /// The user namespace's ids could not be mapped.
    #[error("mapping the user namespace's ids")]
    Mapping(#[from] crate::sys::userns::Error),
    /// A step inside of the container failed; its own chain of causes is the source.
    #[error("{}", .0.chain[0])]
    Inside(#[source] Failure),
    /// A part of the kernel was asked for that is not there.
    #[error("{field}: {module} is not there, or switched off")]
    NoModule {
        /// The field of the configuration.
        field: &'static str,
        /// The part of the kernel.
        module: &'static str,
    },
    /// The init died without a word.
    #[error("the container's init died before it was ready")]
    Died,
    /// The kernel killed the init, which needs memory itself before the program gets any.
    #[error("starting the container: {limit} bytes are too little memory for it")]
    TooLittleMemory {
        /// The limit.
        limit: i64,
    },
    /// A hook failed.
    #[error("running a hook")]
    Hook(#[from] super::hooks::Error),
    /// The process is gone or another one has its pid.
    #[error("the container is not running")]
    NotRunning,
    /// The container whose namespaces were to be joined ended meanwhile.
    #[error("joining another container's namespaces: it has ended")]
    JoinedEnded,
    /// The console socket cannot be used.
    #[error("connecting to console socket \"{}\"", path.display())]
    ConsoleSocket {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The exit status that engines give for this error: 127 if the program was not found, 126 if
    /// it cannot be executed, 125 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Inside(failure) => failure.exit_code(),
            _ => 125,
        }
    }

    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let source = match self {
            Self::Namespaces(source) => source,
            Self::NoModule { module: "resctrl", .. } => {
                return Some(
                    "where the processor can do it, as root: mount -t resctrl resctrl /sys/fs/resctrl".into(),
                );
            }
            Self::Cgroup(error) => return error.hint(),
            Self::Inside(failure) if failure.kind == FailureKind::Unmapped => return idmap::rung().hint,
            _ => return None,
        };
        match source.raw_os_error()? {
            libc::ENOSPC | libc::EUSERS => Some(
                "user namespaces are used up or switched off: as root, raise sysctl user.max_user_namespaces".into(),
            ),
            libc::EPERM | libc::EACCES => Some(
                "unprivileged user namespaces are forbidden here: as root, sysctl kernel.unprivileged_userns_clone=1 \
                 (Debian) or kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu)"
                    .into(),
            ),
            _ => None,
        }
    }

    /// Whether the rootfs would have to be made without overlayfs.
    pub fn is_no_overlay(&self) -> bool {
        matches!(self, Self::Inside(failure) if failure.kind == FailureKind::NoOverlay)
    }

    pub(crate) fn host(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Host { action: action.into(), source: source.into() }
    }
}
