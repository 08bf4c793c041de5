//! What the end-to-end tests share: the binary in a world of its own, its output with assertions,
//! a registry, a terminal, and the check that nothing is left behind.
//!
//! Environment: `UMIAK_TEST_BIN` (the binary; default: cargo's), `UMIAK_TEST_IMAGES` (what
//! `scripts/make-images` made; default: its default), `UMIAK_TEST_SCRIPTS` (a copy of `scripts/` beside
//! one of `oci-bundles/`; default: the checkout's), `UMIAK_TEST_SKIPS` (a file that gets a
//! line for each test that was skipped), `CI=true` (a skip for a missing tool or image is a failure).

pub mod net;
mod registry;
#[path = "../../common/skip.rs"]
mod skip;
mod terminal;
mod world;

pub use registry::Registry;
pub use skip::skip;
pub use terminal::Terminal;
pub use world::{Account, Output, Umiak, eventually, finish, processes};

use std::path::{Path, PathBuf};

/// What a test may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To run as root.
    Root,
    /// To run as somebody else.
    Unprivileged,
    /// To be root, or to have subordinate ids.
    ManyIds,
    /// Not to be root, and to have no subordinate ids.
    NoSubuid,
    /// An image of `scripts/make-images`.
    Image(&'static str),
    /// A program on the PATH.
    Tool(&'static str),
}

impl Need {
    /// Why the need is not met; and whether that is the tier's nature rather than a defect of
    /// the machine.
    pub fn missing(self) -> Option<(String, bool)> {
        let root = rustix::process::geteuid().is_root();
        let said = |met: bool, why: &str, natural| (!met).then(|| (why.to_owned(), natural));
        match self {
            Self::Root => said(root, "needs root", true),
            Self::Unprivileged => said(!root, "needs an ordinary user", true),
            Self::ManyIds => said(root || subordinate(), "needs more than one id", true),
            Self::NoSubuid => said(!root && !subordinate(), "needs a user without subordinate ids", true),
            Self::Image(name) => {
                let there = images().join(name).exists();
                said(there, &format!("needs the image {name}: run scripts/make-images"), false)
            }
            Self::Tool(name) => said(tool(name).is_some(), &format!("needs the program {name}"), false),
        }
    }
}

/// Returns from the test, and notes why, unless all needs are met.
#[macro_export]
macro_rules! requires {
    ($($need:expr),+ $(,)?) => {
        for need in [$($need),+] {
            if let Some((why, natural)) = $crate::support::Need::missing(need) {
                $crate::support::skip(&why, natural);
                return;
            }
        }
    };
}

/// Whether the caller has subordinate ids and the means to use them.
pub fn subordinate() -> bool {
    let uid = rustix::process::getuid().as_raw().to_string();
    let name = std::fs::read_to_string("/etc/passwd")
        .unwrap_or_default()
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&uid.as_str()))
        .map_or(uid.clone(), |fields| fields[0].to_owned());
    let listed = |file| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|line| line.split(':').next().is_some_and(|who| who == name || who == uid))
    };
    listed("/etc/subuid") && listed("/etc/subgid") && tool("newuidmap").is_some()
}

/// Where a program is.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
        .split(':')
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file())
}

/// Where the test images are.
pub fn images() -> PathBuf {
    std::env::var_os("UMIAK_TEST_IMAGES").map_or_else(
        || {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
            cache.unwrap_or_else(home).join("umiak-images")
        },
        PathBuf::from,
    )
}
