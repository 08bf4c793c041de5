//! Dockerfiles (Containerfiles): what they say, stage by stage. Pure: variables are replaced when an instruction's
//! turn comes ([`Instruction::expand`]), by whoever knows their values then.
//!
//! The language is that of <https://docs.docker.com/reference/dockerfile/>. [`parse`] reads a file, [`parse_step`] one
//! instruction as `ONBUILD` keeps it.

pub mod glob;

mod error;
mod expand;
mod flags;
mod heredoc;
pub mod ignore;
mod lines;
mod mount;
mod parse;
#[cfg(test)]
mod tests;
mod words;

pub use error::{Error, MountError, Problem};
pub use expand::{ExpandError, WordError, expand_word, expand_words};
pub use parse::{parse, parse_step};
pub(in crate::image) use words::{pairs, unquoted, unquoted_words};

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dockerfile {
    /// What joins lines and protects characters: a backslash, or what `# escape=` says.
    pub escape: char,
    /// `ARG` before the first `FROM`: what `FROM` lines may refer to.
    pub arguments: Vec<Argument>,
    /// The stages, in their order; at least one.
    pub stages: Vec<Stage>,
    /// What is odd but no error, one line each.
    pub warnings: Vec<String>,
}

/// `ARG NAME[=default]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its value if nobody gives another, with variables.
    pub default: Option<String>,
}

/// What follows one `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The line of `FROM`, from 1.
    pub line: usize,
    /// The instruction as it is written, in one line.
    pub text: String,
    /// An image, a stage before or `scratch`, with variables.
    pub base: String,
    /// `--platform`, with variables.
    pub platform: Option<String>,
    /// `AS name`, in small letters. Several stages may have the same: the last one before counts.
    pub name: Option<String>,
    /// What follows.
    pub steps: Vec<Step>,
}

/// An instruction where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its first line, from 1.
    pub line: usize,
    /// As it is written, in one line, without heredocs: for the history and for people.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
}

/// What is to be run: a line for the shell, or a program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// For the shell that `SHELL` names.
    Shell(String),
    /// Words of a JSON list.
    Exec(Vec<String>),
}

/// A text within the file (`<<EOF`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it; the file's name where `COPY` makes one of it.
    pub name: String,
    /// The text, every line with its end; tabs at the begin of lines are gone for `<<-`.
    pub text: String,
    /// Whether variables in it are replaced (the word was not quoted).
    pub expand: bool,
}

/// What an instruction says. Texts have variables until [`Instruction::expand`] replaces them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `ARG`
    Arg(Vec<Argument>),
    /// `ENV`
    Env(Vec<(String, String)>),
    /// `LABEL`
    Label(Vec<(String, String)>),
    /// `RUN`
    Run(Run),
    /// `COPY`, `ADD`
    Copy(Copy),
    /// `CMD`
    Cmd(Command),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `EXPOSE`: `port[-port][/protocol]`, each a word
    Expose(Vec<String>),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `USER`
    User(String),
    /// `WORKDIR`
    Workdir(String),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `ONBUILD`: the instruction, as text
    OnBuild(String),
    /// `SHELL`
    Shell(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `MAINTAINER`
    Maintainer(String),
}

/// `HEALTHCHECK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// None, not even the base's.
    None,
    /// A command, and its flags as they are written (`30s`).
    Command {
        /// What is run.
        command: Command,
        /// `--interval`, in nanoseconds.
        interval: Option<u64>,
        /// `--timeout`, in nanoseconds.
        timeout: Option<u64>,
        /// `--start-period`, in nanoseconds.
        start_period: Option<u64>,
        /// `--start-interval`, in nanoseconds.
        start_interval: Option<u64>,
        /// `--retries`
        retries: Option<u32>,
    },
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is run. With one heredoc and nothing else on the line it is that one's text ([`Heredoc::text`]), which
    /// runs as a script: by the program that its `#!` names, by the shell else. Where the line has more than that, it
    /// is the line and all texts as they are written, which is what the shell gets.
    pub command: Command,
    /// Its heredocs.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`
    pub mounts: Vec<Mount>,
    /// `--network`: `default`, `none`, `host`
    pub network: Option<String>,
    /// `--security`: `sandbox`, `insecure`
    pub security: Option<String>,
}

/// `RUN --mount`; whether a member is one that its kind takes is checked. Before [`Instruction::expand`], members that
/// are numbers or yes and no are missing if they have variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// As it is written, of which [`Instruction::expand`] makes the other members anew.
    pub written: String,
    /// `bind` (the default), `cache`, `tmpfs`, `secret`, `ssh`.
    pub kind: String,
    /// `target`, `dst`, `destination`: relative to the working directory, which it is itself for a `bind` without one.
    pub target: Option<String>,
    /// `source`, `src`: below `from`, or below the context.
    pub source: Option<String>,
    /// A stage, an image or another context.
    pub from: Option<String>,
    /// `id`; of a secret `source`, too.
    pub id: Option<String>,
    /// `rw`, `readwrite`, `ro`, `readonly`
    pub read_only: Option<bool>,
    /// `sharing` of a cache: `shared` (the default), `private`, `locked`.
    pub sharing: Option<String>,
    /// `required`
    pub required: bool,
    /// `mode`, octal.
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
    /// `size` of a tmpfs, in bytes.
    pub size: Option<u64>,
    /// `env`: a secret becomes this variable, too.
    pub env: Option<String>,
}

/// `COPY`, `ADD`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    /// It is `ADD`: takes addresses, and unpacks archives.
    pub add: bool,
    /// Paths, patterns, addresses (`ADD`). Heredocs are not among them.
    pub sources: Vec<String>,
    /// Files that stand in the Dockerfile itself.
    pub inline: Vec<Heredoc>,
    /// Where to.
    pub destination: String,
    /// `--from`: a stage by name or number, an image, another context.
    pub from: Option<String>,
    /// `--chown`: `user[:group]`, names or numbers.
    pub chown: Option<String>,
    /// `--chmod`: octal, or symbolic (`u=rwX,go=rX`).
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, patterns.
    pub exclude: Vec<String>,
    /// `--checksum` of what is fetched (`ADD`).
    pub checksum: Option<String>,
    /// `--keep-git-dir` (`ADD`).
    pub keep_git_dir: bool,
    /// `--unpack` (`ADD`).
    pub unpack: Option<bool>,
}

impl Instruction {
    /// The word that it begins with, in capital letters.
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::Arg(_) => "ARG",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Run(_) => "RUN",
            Self::Copy(copy) if copy.add => "ADD",
            Self::Copy(_) => "COPY",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::User(_) => "USER",
            Self::Workdir(_) => "WORKDIR",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::OnBuild(_) => "ONBUILD",
            Self::Shell(_) => "SHELL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}
