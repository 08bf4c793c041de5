//! What can go wrong between a spec and a running process.

use std::io;
use std::path::PathBuf;

use super::plan::PlanError;
use super::protocol::{CREATING, CUTTING_OFF, Failure, FailureKind, WRITING_STUB};
use crate::security::idmap;
use crate::security::refused::{Signs, Stage};

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

/// The kernel's rule: what is hidden of a proc would be seen in a new one (`mount_too_revealing`).
const COVERED_PROC: &str = "parts of /proc are covered here, as in containers, and then the kernel mounts no other one: \
     --pid=host shares the processes around; or let the container around have its whole /proc (Docker: \
     --security-opt systempaths=unconfined; podman: --security-opt unmask=ALL; Kubernetes: procMount: Unmasked)";

/// What is known of a step that was refused.
fn refused(step: &str, errno: i32) -> Option<String> {
    match errno {
        libc::EPERM if step.starts_with("mounting \"proc\"") => Some(COVERED_PROC.to_owned()),
        libc::EPERM if step == CUTTING_OFF => Some(why(Stage::Used, errno)),
        libc::ENOSPC | libc::EUSERS if step == CREATING => Some(why(Stage::Made, errno)),
        libc::EACCES if step == WRITING_STUB => Some(MEMFD.to_owned()),
        _ => None,
    }
}

const MEMFD: &str = "vm.memfd_noexec is 2: files in memory cannot be executed, by which every container is started; as root: \
     sysctl vm.memfd_noexec=1";

/// The cause of a refusal, and the cure.
fn why(stage: Stage, errno: i32) -> String {
    let cause = Signs::gather().cause(stage, errno);
    format!("{}; {}", cause.text, cause.cure)
}

impl Error {
    /// Whether the kernel had no memory left for something, as where a group may have none (clone(2) into it).
    pub fn is_want_of_memory(&self) -> bool {
        std::iter::successors(Some(self as &dyn std::error::Error), |error| error.source())
            .filter_map(|error| error.downcast_ref::<io::Error>())
            .any(|error| error.raw_os_error() == Some(libc::ENOMEM))
    }

    /// The exit status that engines give for this error: 127 if the program was not found, 126 if
    /// it cannot be executed or its user is unknown, 125 for everything else.
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
            Self::Inside(failure) => return refused(failure.chain.first()?, failure.errno),
            Self::Host { action, source } => return refused(action, source.raw_os_error()?),
            _ => return None,
        };
        Some(why(Stage::Made, source.raw_os_error()?))
    }

    /// Whether the rootfs would have to be made without overlayfs.
    pub fn is_no_overlay(&self) -> bool {
        matches!(self, Self::Inside(failure) if failure.kind == FailureKind::NoOverlay)
    }

    pub(crate) fn host(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Host { action: action.into(), source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_memory_is_known_however_deep() {
        let failed = |errno| io::Error::from_raw_os_error(errno);
        assert!(Error::Namespaces(failed(libc::ENOMEM)).is_want_of_memory());
        let mapping = crate::sys::userns::Error::Create(failed(libc::ENOMEM));
        assert!(Error::Mapping(mapping).is_want_of_memory());
        assert!(!Error::Namespaces(failed(libc::ENOSPC)).is_want_of_memory());
        assert!(!Error::Died.is_want_of_memory());
    }
}
