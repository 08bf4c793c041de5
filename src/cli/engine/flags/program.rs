//! The program: its words, its environment, its streams.

use std::path::PathBuf;

use clap::Args;

use crate::engine::request::RunRequest;

/// The program: its words, its environment, its streams.
#[derive(Args, Debug, Clone)]
pub struct Program {
    /// Keep standard input open
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    interactive: Option<bool>,
    /// Attach to these streams only: stdin, stdout, stderr
    #[arg(short, long, value_name = "STREAM")]
    attach: Vec<String>,
    /// Give the program a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tty: Option<bool>,
    /// Run this in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// The program's working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Set a variable of the environment; without a value it takes ours
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read variables of the environment from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Give the program all of our environment
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    env_host: Option<bool>,
    /// Set a variable; ${NAME} in the value is one of the image's
    #[arg(long, value_name = "NAME=VALUE")]
    env_merge: Vec<String>,
    /// Leave out a variable that the image or the engine sets
    #[arg(long, value_name = "NAME")]
    unsetenv: Vec<String>,
    /// Leave out all variables that the image and the engine set
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    unsetenv_all: Option<bool>,
    /// Pass on the variables that name proxies
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    http_proxy: Option<bool>,
    /// The mask of new files' modes, octal
    #[arg(long, value_name = "MODE")]
    umask: Option<String>,
    /// The time zone: a name like Europe/Berlin, or local
    #[arg(long, value_name = "ZONE")]
    tz: Option<String>,
    /// The execution domain: LINUX or LINUX32
    #[arg(long, value_name = "DOMAIN")]
    personality: Option<String>,
    /// How readily the kernel ends it when memory is short, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
    /// Pass on as many descriptors from 3 on
    #[arg(long, value_name = "NUMBER")]
    preserve_fds: Option<u32>,
    /// Pass on these descriptors
    #[arg(long, value_name = "FD", value_delimiter = ',')]
    preserve_fd: Vec<u32>,
}

impl Program {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut RunRequest) {
        let this = self.clone();
        request.interactive = this.interactive.unwrap_or(false);
        request.attach = this.attach;
        request.tty = this.tty.unwrap_or(false);
        request.entrypoint = this.entrypoint;
        request.workdir = this.workdir;
        request.env = this.env;
        request.env_files = this.env_file;
        request.env_host = this.env_host.unwrap_or(false);
        request.env_merge = this.env_merge;
        request.unsetenv = this.unsetenv;
        request.unsetenv_all = this.unsetenv_all.unwrap_or(false);
        request.http_proxy = this.http_proxy.unwrap_or(false);
        request.umask = this.umask;
        request.tz = this.tz;
        request.personality = this.personality;
        request.oom_score_adj = this.oom_score_adj;
        request.preserve_fds = this.preserve_fds;
        request.preserve_fd = this.preserve_fd;
    }
}
