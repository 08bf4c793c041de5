//! The flags of `run`, `create` and `update` that are the monitor's to see to.

use clap::Args;

use crate::engine::supervision::Wanted;

/// Restarts, health checks, and a time limit.
#[derive(Args, Debug, Clone, Default)]
pub struct Supervision {
    /// When to start the container again: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    #[command(flatten)]
    health: Health,
}

/// How the container's health is checked.
#[derive(Args, Debug, Clone, Default)]
pub struct Health {
    /// Check nothing, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
    /// The command that tells whether the container is healthy
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// The time from one check to the next, or disable
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_interval: Option<String>,
    /// How long a check may take
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_timeout: Option<String>,
    /// How many failures in a row make the container unhealthy
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    health_retries: Option<String>,
    /// How long failures after the start do not count
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_start_period: Option<String>,
    /// The time from one check to the next in the start period
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_start_interval: Option<String>,
    /// What to do with an unhealthy container: none, kill, restart or stop
    #[arg(long, value_name = "ACTION")]
    health_on_failure: Option<String>,
    /// Where results are kept: local or a directory
    #[arg(long, value_name = "PLACE")]
    health_log_destination: Option<String>,
    /// How many results are kept; 0 for all
    #[arg(long, value_name = "NUMBER")]
    health_max_log_count: Option<u32>,
    /// How many characters are kept of a result; 0 for all
    #[arg(long, value_name = "NUMBER")]
    health_max_log_size: Option<u32>,
    /// The command of the checks that come first
    #[arg(long, value_name = "COMMAND")]
    health_startup_cmd: Option<String>,
    /// The time from one of the first checks to the next, or disable
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_startup_interval: Option<String>,
    /// How long one of the first checks may take
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    health_startup_timeout: Option<String>,
    /// After how many failures of the first checks the container is started again; 0: never
    #[arg(long, value_name = "NUMBER")]
    health_startup_retries: Option<u32>,
    /// How many of the first checks must go well
    #[arg(long, value_name = "NUMBER")]
    health_startup_success: Option<u32>,
}

impl Supervision {
    /// What they ask for.
    pub fn wanted(&self) -> Wanted {
        let health = self.health.clone();
        Wanted {
            restart: self.restart.clone(),
            timeout: None,
            no_healthcheck: health.no_healthcheck,
            health_cmd: health.health_cmd,
            health_interval: health.health_interval,
            health_timeout: health.health_timeout,
            health_retries: health.health_retries,
            health_start_period: health.health_start_period,
            health_start_interval: health.health_start_interval,
            health_on_failure: health.health_on_failure,
            health_log_destination: health.health_log_destination,
            health_max_log_count: health.health_max_log_count,
            health_max_log_size: health.health_max_log_size,
            health_startup_cmd: health.health_startup_cmd,
            health_startup_interval: health.health_startup_interval,
            health_startup_timeout: health.health_startup_timeout,
            health_startup_retries: health.health_startup_retries,
            health_startup_success: health.health_startup_success,
        }
    }
}

/// The same, with what can be said only when a container is made.
#[derive(Args, Debug, Clone, Default)]
pub struct Watch {
    /// Kill the container after so many seconds
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<u64>,
    #[command(flatten)]
    supervision: Supervision,
}

impl Watch {
    /// What they ask for.
    pub fn wanted(&self) -> Wanted {
        Wanted { timeout: self.timeout, ..self.supervision.wanted() }
    }
}
