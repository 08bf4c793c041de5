//! `doctor`: what this machine gives containers of this user, what it does not, why, and the command that mends it.
//!
//! [`gather`] tries everything once and notes what it saw as [`Findings`]; [`diagnose`], which is pure, names the
//! causes. A store that cannot be opened is a finding, so none is needed.

mod diagnose;
mod gather;
mod trial;
mod user_ids;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::idmap::IdRange;
use crate::cgroup::Availability;
use crate::security::idmap::Rung;
use crate::security::refused::Signs;

pub use diagnose::{NETWORK, diagnose};
pub use gather::{gather, run};
pub use trial::may_tell_more;

/// How far something is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// As it should be.
    Fine,
    /// Containers run, with less.
    Lesser,
    /// Containers do not run.
    Broken,
}

impl State {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Lesser => "lesser",
            Self::Broken => "broken",
        }
    }
}

/// What was found out about one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// What it is about, as "user ids".
    pub topic: &'static str,
    /// How far it is given.
    pub state: State,
    /// A short name of the cause that does not change; `ok` if all is well.
    pub cause: &'static str,
    /// For people, with the evidence.
    pub text: String,
    /// What mends it.
    pub cure: Option<String>,
}

impl Diagnosis {
    /// As `doctor --format json` and `info` have it.
    pub fn value(&self) -> Value {
        json!({
            "topic": self.topic,
            "state": self.state.word(),
            "cause": self.cause,
            "text": self.text,
            "cure": self.cure,
        })
    }
}

/// What came of a try: nothing if it worked, else the error number.
pub type Tried = Option<i32>;

/// What came of running a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It ran.
    Ran,
    /// The error, and the hint if there was one.
    Failed(String, Option<String>),
}

/// What is tried as root of a user namespace with one id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inside {
    /// Making each kind of namespace.
    pub namespaces: Vec<(String, Tried)>,
    /// Mounting a tmpfs.
    pub tmpfs: Tried,
    /// Mounting a proc in a pid namespace of its own.
    pub proc: Tried,
    /// A pair of network devices.
    pub veth: Tried,
    /// A table of packet rules with the relay's rules in it.
    pub nft: Tried,
}

/// What came of making a user namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserNamespace {
    /// Not needed: we are root.
    Unneeded(Inside),
    /// It could not be made.
    Refused(i32),
    /// Its ids could not be mapped; the chain of errors.
    Unmapped(String),
    /// It works as far as this.
    Works(Inside),
}

/// One of `/etc/subuid` and `/etc/subgid`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubIds {
    /// Why it cannot be read.
    pub unreadable: Tried,
    /// The user's ranges.
    pub ranges: Vec<IdRange>,
    /// Lines of the user that count for nothing.
    pub ill: Vec<String>,
    /// Another user who has some of the same ids.
    pub shared_with: Option<String>,
}

/// `newuidmap` or `newgidmap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Helper {
    /// Where it is.
    pub path: Option<PathBuf>,
    /// It has the set-user-ID bit and belongs to root, or has file capabilities.
    pub privileged: bool,
    /// It is on a mount where neither counts.
    pub nosuid: bool,
}

/// `$XDG_RUNTIME_DIR`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RuntimeDir {
    /// Root needs none; or the caller has said where to put things.
    #[default]
    Unneeded,
    /// Not set.
    Unset,
    /// Set to what is no absolute path.
    Relative,
    /// There is no such directory.
    Missing,
    /// It belongs to this user.
    Foreign(u32),
    /// It is there, and ours.
    Good,
}

/// The store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreFindings {
    /// The directory.
    pub root: PathBuf,
    /// Why it cannot be opened: the chain of errors, the error number if there is one, the path.
    pub closed: Option<(String, Tried, PathBuf)>,
    /// Whose the directory is, if it is there.
    pub owner: Option<u32>,
    /// A part of it that is another user's, and whose.
    pub foreign: Option<(PathBuf, u32)>,
    /// Bytes and inodes that are free.
    pub free: Option<(u64, u64)>,
    /// Its file system.
    pub fstype: String,
    /// Whether layers can be stacked in it.
    pub overlay: Tried,
}

/// Everything that was seen.
#[derive(Clone, Debug)]
pub struct Findings {
    /// User id.
    pub uid: u32,
    /// Name, if the system knows one.
    pub name: Option<String>,
    /// What tells why a user namespace may be refused.
    pub signs: Signs,
    /// Programs gain nothing by set-user-ID bits (no_new_privs).
    pub no_new_privileges: bool,
    /// There is a proc on `/proc`.
    pub proc: bool,
    /// Which ids containers get.
    pub rung: Rung,
    /// `/etc/subuid`, `/etc/subgid`.
    pub sub_ids: [SubIds; 2],
    /// `newuidmap`, `newgidmap`.
    pub helpers: [Helper; 2],
    /// Why a user namespace with all subordinate ids could not be made; the chain of errors.
    pub many_ids: Option<String>,
    /// A user namespace with one id.
    pub userns: UserNamespace,
    /// The store.
    pub store: StoreFindings,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: RuntimeDir,
    /// Making an executable file in memory.
    pub memfd: Tried,
    /// Loading a seccomp filter.
    pub seccomp: Tried,
    /// Device nodes that are none.
    pub nodes: Vec<&'static str>,
    /// Opening `/dev/net/tun`.
    pub tun: Tried,
    /// Soft limits of open files and of a file's size; `u64::MAX` for none.
    pub files: u64,
    /// See `files`.
    pub file_size: u64,
    /// Control groups.
    pub cgroup: Availability,
    /// Where the v2 tree is mounted.
    pub cgroup_mount: Option<PathBuf>,
    /// The process that the caller was started by: a shell.
    pub shell: u32,
    /// The first range of subordinate ids that nobody has.
    pub free_ids: u32,
    /// What came of running a container, if that was tried.
    pub trial: Option<Trial>,
    /// There is a sysfs on `/sys`.
    pub sysfs: bool,
    /// systemd runs the machine.
    pub systemd: bool,
    /// The user's services go on without a login.
    pub lingering: bool,
}
