//! OCI hooks (`config.md`, "POSIX-platform Hooks"): host programs that get the container's state on
//! standard input.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Stdio;

use oci_spec::runtime::Hook;
use serde::Serialize;

use crate::sys::process;

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be run.
    #[error("running \"{}\"", path.display())]
    Run {
        /// The hook.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It said no.
    #[error("hook \"{}\" failed: {status}", path.display())]
    Status {
        /// The hook.
        path: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// It took too long and was killed.
    #[error("hook \"{}\" took longer than {seconds} s", path.display())]
    Timeout {
        /// The hook.
        path: PathBuf,
        /// Its limit.
        seconds: i64,
    },
}

/// What a hook reads (`runtime.md`, "State").
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HookState {
    /// Version of the specification.
    pub oci_version: String,
    /// The container.
    pub id: String,
    /// `creating`, `created`, `running` or `stopped`.
    pub status: &'static str,
    /// Its init.
    pub pid: i32,
    /// Its bundle.
    pub bundle: PathBuf,
    /// Its annotations.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

impl HookState {
    /// For a process that has no hooks.
    pub(super) fn none() -> Self {
        Self {
            oci_version: String::new(),
            id: String::new(),
            status: "running",
            pid: 0,
            bundle: PathBuf::new(),
            annotations: std::collections::BTreeMap::new(),
        }
    }
}

/// Runs hooks one after the other; the first that fails ends it.
pub fn run(hooks: &[Hook], state: &HookState) -> Result<(), Error> {
    hooks.iter().try_for_each(|hook| run_one(hook, state))
}

fn run_one(hook: &Hook, state: &HookState) -> Result<(), Error> {
    let path = hook.path();
    let error = |source: io::Error| Error::Run { path: path.clone(), source };
    let strings = |list: &Vec<String>| list.iter().map(OsString::from).collect::<Vec<_>>();
    let args = hook.args().as_ref().map(strings).unwrap_or_else(|| vec![path.clone().into()]);
    let env = hook.env().as_ref().map(strings);
    let mut child = process::run_program(path, &args, env.as_deref(), Stdio::piped()).map_err(error)?;
    if let Some(mut stdin) = child.stdin.take() {
        let state = serde_json::to_vec(state).map_err(|e| error(e.into()))?;
        match stdin.write_all(&state) {
            // A hook need not read its state.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            other => other.map_err(error)?,
        }
    }
    if let Some(seconds) = hook.timeout().filter(|seconds| *seconds > 0) {
        let pidfd = process::pidfd_open(child.id() as i32).map_err(error)?;
        let limit = u32::try_from(seconds.saturating_mul(1000)).unwrap_or(u32::MAX);
        if !process::wait_end(&pidfd, limit).map_err(error)? {
            child.kill().map_err(error)?;
            child.wait().map_err(error)?;
            return Err(Error::Timeout { path: path.clone(), seconds });
        }
    }
    let status = child.wait().map_err(error)?;
    if status.success() { Ok(()) } else { Err(Error::Status { path: path.clone(), status }) }
}
