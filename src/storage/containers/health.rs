//! Health checks: what was asked for, and what they have found.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What happens to a container that has become unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthAction {
    /// Nothing but that it is told.
    #[default]
    None,
    /// It is killed.
    Kill,
    /// It is killed and started again.
    Restart,
    /// It is stopped as by `stop`.
    Stop,
}

impl HealthAction {
    /// Podman's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Kill => "kill",
            Self::Restart => "restart",
            Self::Stop => "stop",
        }
    }
}

/// Checks that come before the others, until one of them, or as many as asked for, went well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartupCheck {
    /// As [`HealthConfig::test`].
    pub test: Vec<String>,
    /// Nanoseconds.
    pub interval: u64,
    /// Nanoseconds.
    pub timeout: u64,
    /// So many failures, and the container is started again; 0: it never is.
    pub retries: u32,
    /// So many successes in a row are needed; 0 means 1.
    pub success: u32,
}

/// How a container's health is checked. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthConfig {
    /// `CMD` and the words of a command, or `CMD-SHELL` and a line for the shell.
    pub test: Vec<String>,
    /// From the end of one check to the next; 0: only those that are asked for.
    pub interval: u64,
    /// A check that takes longer has failed.
    pub timeout: u64,
    /// Failures in a row that make the container unhealthy.
    pub retries: u32,
    /// So long after the start failures do not count.
    pub start_period: u64,
    /// The interval as long as the start period lasts and nothing went well yet; 0: as `interval`.
    #[serde(default)]
    pub start_interval: u64,
    /// Checks that come first.
    #[serde(default)]
    pub startup: Option<StartupCheck>,
    /// What happens to the container when it has become unhealthy.
    #[serde(default)]
    pub on_failure: HealthAction,
    /// Results that are kept; 0: all.
    pub log_count: u32,
    /// Characters of output that are kept of each; 0: all.
    pub log_size: u32,
    /// A directory for the results; none: with the container.
    #[serde(default)]
    pub log_destination: Option<PathBuf>,
}

/// What is known of a container's health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Nothing yet.
    #[default]
    Starting,
    /// The last check went well, or too few have failed since.
    Healthy,
    /// Too many checks in a row have failed.
    Unhealthy,
}

impl HealthStatus {
    /// Podman's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRun {
    /// Nanoseconds since 1970.
    pub start: i64,
    /// Nanoseconds since 1970.
    pub end: i64,
    /// Of the command; -1 if it took too long, 125 to 127 if it could not be run.
    pub code: i32,
    /// What it wrote, to both streams.
    pub output: String,
}

/// `health.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthRecord {
    /// What is known.
    pub status: HealthStatus,
    /// Failures in a row.
    pub streak: u32,
    /// The last checks, the oldest first.
    pub log: Vec<HealthRun>,
}
