//! The container itself: its name, its end, what is written of it.

use std::path::PathBuf;

use clap::Args;

use crate::cli::engine::supervision::Watch;
use crate::engine::request::RunRequest;

/// The container itself: its name, its end, what is written of it.
#[derive(Args, Debug, Clone)]
pub struct Life {
    /// Name the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Remove a container that has the name first
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    replace: Option<bool>,
    /// Remove the container when it ends
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,
    /// Remove the image, too, when it ends, unless something else uses it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rmi: Option<bool>,
    /// Attach a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Attach an annotation
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// The signal that asks the program to end
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// How long it may take to end, in seconds
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// Write the container's ID to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Write the process ID of the container's program to a file
    #[arg(long, value_name = "FILE")]
    pidfile: Option<PathBuf>,
    /// Write the process ID of the container's monitor to a file
    #[arg(long, value_name = "FILE")]
    conmon_pidfile: Option<PathBuf>,
    /// Start these containers first
    #[arg(long, value_name = "CONTAINER", value_delimiter = ',')]
    requires: Vec<String>,
    #[command(flatten)]
    watch: Watch,
    /// Who keeps the output: k8s-file, json-file, journald, passthrough or none
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// path=FILE, max-size=SIZE, max-file=NUMBER; with journald tag=TEMPLATE, labels=LABELS
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// Run an init that reaps processes and passes signals on
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init: Option<bool>,
}

impl Life {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut RunRequest) {
        let this = self.clone();
        request.name = this.name;
        request.replace = this.replace.unwrap_or(false);
        request.rm = this.rm.unwrap_or(false);
        request.rmi = this.rmi.unwrap_or(false);
        request.labels = this.label;
        request.label_files = this.label_file;
        request.annotations = this.annotation;
        request.stop_signal = this.stop_signal;
        request.stop_timeout = this.stop_timeout;
        request.cidfile = this.cidfile;
        request.pidfile = this.pidfile;
        request.conmon_pidfile = this.conmon_pidfile;
        request.requires = this.requires;
        request.log_driver = this.log_driver;
        request.log_opts = this.log_opt;
        request.supervision = this.watch.wanted();
        request.init = this.init.unwrap_or(false);
    }
}
