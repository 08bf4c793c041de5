//! What the user asks of `build`, as typed.

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::images::{PullOptions, PullPolicy};
use crate::engine::request::RunRequest;
use crate::image::rewrite::Form;

/// Where `COPY` and `ADD` take files from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory of the host's.
    Directory(PathBuf),
    /// An archive on standard input (`-`), compressed or not; or a Dockerfile without a context.
    Stdin,
    /// An archive, or a Dockerfile, at `http://…` or `https://…`.
    Url(String),
}

/// What a secret is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file of the host's.
    File(PathBuf),
    /// A variable of our environment.
    Env(String),
}

/// What a Dockerfile may ask for only if the user lets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// `RUN --network=host`
    HostNetwork,
    /// `RUN --security=insecure`
    Insecure,
}

impl Allowed {
    /// Docker's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::HostNetwork => "network.host",
            Self::Insecure => "security.insecure",
        }
    }

    /// What a word means.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::HostNetwork, Self::Insecure].into_iter().find(|allowed| allowed.word() == word)
    }
}

/// Which layers become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Squash {
    /// None.
    #[default]
    None,
    /// Those that the build adds (`--squash`, and `--layers=false`).
    New,
    /// All, the base's too (`--squash-all`).
    All,
}

/// How former results are used.
#[derive(Clone, Copy, Debug)]
pub struct CacheUse {
    /// Look for them.
    pub read: bool,
    /// Only for those that are not older.
    pub ttl: Option<Duration>,
}

/// How times in the image are told (`--timestamp`, `--source-date-epoch`, `--rewrite-timestamp`).
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// Seconds since 1970: when the image and its history were made.
    pub created: Option<u64>,
    /// No file in a new layer is younger.
    pub clamp: Option<u64>,
    /// All files of new layers have exactly this time (`--timestamp`).
    pub exact: bool,
}

/// The flags of `build`.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the names are those of the flags")]
pub struct BuildRequest {
    pub context: ContextSource,
    /// `-f`: several are one after the other; `-` is standard input. Without: `Containerfile`, `Dockerfile` of the context.
    pub files: Vec<PathBuf>,
    pub ignore_file: Option<PathBuf>,
    /// `--build-context NAME=VALUE`: a directory, `docker-image://…`, `container-image://…`, an address.
    pub contexts: Vec<(String, String)>,
    /// `--build-arg NAME=VALUE` and the files of `--build-arg-file`; a name without a value takes our environment's.
    pub args: Vec<(String, String)>,
    /// In place of the last stage's (`--from`: the first) base.
    pub from: Option<String>,
    pub target: Option<String>,
    pub tags: Vec<String>,
    pub labels: Vec<(String, String)>,
    pub annotations: Vec<(String, String)>,
    pub unset_annotations: Vec<String>,
    pub env: Vec<(String, String)>,
    pub unset_env: Vec<String>,
    pub unset_labels: Vec<String>,
    pub inherit_labels: bool,
    pub inherit_annotations: bool,
    pub identity_label: bool,
    pub created_annotation: bool,
    pub format: Form,
    /// What every `RUN` gets: network, limits, capabilities, volumes, devices, …; its image and command are not set.
    pub run: RunRequest,
    pub pull: PullPolicy,
    pub pull_options: PullOptions,
    pub cache: CacheUse,
    pub squash: Squash,
    pub omit_history: bool,
    pub times: Times,
    pub secrets: Vec<(String, SecretSource)>,
    /// `--ssh ID[=SOCKET]`: the socket of an agent.
    pub ssh: Vec<(String, PathBuf)>,
    pub skip_unused_stages: bool,
    /// `--allow`: what a Dockerfile may ask for that reaches beyond its container.
    pub allow: Vec<Allowed>,
    /// Standard input of `RUN` is ours.
    pub stdin: bool,
}
