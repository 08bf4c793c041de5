//! Where the image comes from.

use std::path::PathBuf;

use clap::Args;

use super::super::Failure;
use super::super::access::{Access, Retry};
use crate::engine::images::{PullOptions, PullPolicy};
use crate::engine::{self, Engine};
use crate::storage::images::ImageRecord;

/// Where the image comes from.
#[derive(Args, Debug, Clone)]
pub struct Image {
    /// When to pull the image: always, missing, never or newer
    #[arg(long, value_name = "POLICY", default_value = "missing")]
    pull: String,
    /// The platform of the image: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The architecture of the image
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// The operating system of the image
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// The variant of the image's architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Does nothing, as in Podman: what is trusted stands in policy.json
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[allow(dead_code, reason = "taken so that command lines made for Docker work")]
    disable_content_trust: Option<bool>,
    #[command(flatten)]
    retry: Retry,
    #[command(flatten)]
    access: Access,
    /// The policy that says which images may be pulled
    #[arg(long, value_name = "FILE", hide = true)]
    signature_policy: Option<PathBuf>,
    /// Show nothing of the pull
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    quiet: Option<bool>,
}

impl Image {
    /// The image, pulled where the policy says so.
    pub fn get(&self, engine: &Engine, name: &str) -> Result<ImageRecord, Failure> {
        let policy: PullPolicy = self.pull.parse().map_err(Failure::new)?;
        let options = PullOptions {
            platform: self.platform.clone(),
            os: self.os.clone(),
            arch: self.arch.clone(),
            variant: self.variant.clone(),
            reach: self.access.clone().reach(Some(&self.retry))?,
            signature_policy: self.signature_policy.clone(),
        };
        let progress = crate::cli::progress::for_pull(self.quiet.unwrap_or(false));
        Ok(crate::engine::images::ensure(engine, name, policy, &options, progress)
            .map_err(engine::Error::from)?)
    }
}
