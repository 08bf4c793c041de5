//! Which ids a container may have: the rungs of a ladder.

use crate::base::idmap::IdMapping;

/// How a container's ids are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RungKind {
    /// We are root: no user namespace unless asked for.
    Root,
    /// 0 is the user, 1 and up the user's subordinate ids.
    Subordinate,
    /// Only the user's own id, as 0.
    Single,
}

/// The rung that this machine allows this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// Which.
    pub kind: RungKind,
    /// The mapping; empty for [`RungKind::Root`].
    pub mapping: IdMapping,
    /// Why this one, for `info`.
    pub why: String,
    /// How to reach the next one, if there is one.
    pub hint: Option<String>,
}
