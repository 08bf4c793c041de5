//! What the program may do.

use clap::Args;

use crate::engine::request::RunRequest;

/// What the program may do.
#[derive(Args, Debug, Clone)]
pub struct Security {
    /// Lift what keeps the container apart, as far as we may ourselves
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    privileged: Option<bool>,
    /// Grant a capability
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE|unconfined, mask=PATHS, unmask=PATHS|ALL, systempaths=unconfined, ownership=real|emulated|remembered
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Where the system call filter comes from: default or image
    #[arg(long, value_name = "POLICY")]
    seccomp_policy: Option<String>,
    /// A resource limit of the program
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
}

impl Security {
    /// Writes what was asked for into `request`.
    pub fn fill(&self, request: &mut RunRequest) {
        let this = self.clone();
        request.privileged = this.privileged.unwrap_or(false);
        request.cap_add = this.cap_add;
        request.cap_drop = this.cap_drop;
        request.security_opt = this.security_opt;
        request.seccomp_policy = this.seccomp_policy;
        request.ulimits = this.ulimit;
    }
}
