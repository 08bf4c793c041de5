//! Flags of `build` that Podman and Docker have, and of which only what is so anyway can be asked for here.

use clap::Args;

use super::super::Failure;

/// Flags that can only be told what is so anyway.
#[derive(Args, Debug, Clone)]
pub struct RefusedOfBuild {
    /// How RUN is kept apart: only oci
    #[arg(long, value_name = "TYPE", hide = true)]
    isolation: Option<String>,
    /// How many stages are built at a time: only 1
    #[arg(long, value_name = "NUMBER", hide = true)]
    jobs: Option<String>,
    /// No working container is kept: only true
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    rm: Option<bool>,
    /// No working container is kept: only true
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    force_rm: Option<bool>,
    /// What RUN writes into volumes stays in the image: only false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    compat_volumes: Option<bool>,
    /// One log file for all platforms: only false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    logsplit: Option<bool>,
    /// Images of stages are not kept: only false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    save_stages: Option<bool>,
    /// Nor labelled: only false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    stage_labels: Option<bool>,
    /// For this machine's platform only: only false
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    all_platforms: Option<bool>,
    /// Docker's attestation of how it was built: only false
    #[arg(long, value_name = "BOOL", hide = true)]
    provenance: Option<String>,
    /// A list of what is in it: only false
    #[arg(long, value_name = "BOOL", hide = true)]
    sbom: Option<String>,
    /// Put the image into the store (it always is)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    load: Option<bool>,
    /// Layers in the store are not compressed: only true
    #[arg(short = 'D', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    disable_compression: Option<bool>,
    /// Does nothing, as in Podman: there is no daemon to send the context to
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    #[allow(dead_code, reason = "taken so that command lines made for Docker work")]
    compress: Option<bool>,
    /// Does nothing, as in Podman: what is trusted stands in policy.json
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    #[allow(dead_code, reason = "taken so that command lines made for Docker work")]
    disable_content_trust: Option<bool>,
}

impl RefusedOfBuild {
    /// Refuses what cannot be had.
    pub fn check(&self) -> Result<(), Failure> {
        let word = |name: &str, value: Option<&str>, known: &[&str]| match value {
            Some(value) if !known.contains(&value) => {
                Err(Failure::new(format!("--{name} \"{value}\" is not supported yet")))
            }
            _ => Ok(()),
        };
        let only = |name: &str, value: Option<bool>, known: bool| match value {
            Some(value) if value != known => {
                Err(Failure::new(format!("--{name}={value} is not supported yet")))
            }
            _ => Ok(()),
        };
        word("isolation", self.isolation.as_deref(), &["", "oci", "default"])?;
        word("jobs", self.jobs.as_deref(), &["1"])?;
        only("rm", self.rm, true)?;
        only("force-rm", self.force_rm, true)?;
        only("compat-volumes", self.compat_volumes, false)?;
        only("logsplit", self.logsplit, false)?;
        only("save-stages", self.save_stages, false)?;
        only("stage-labels", self.stage_labels, false)?;
        only("all-platforms", self.all_platforms, false)?;
        word("provenance", self.provenance.as_deref(), &["false"])?;
        word("sbom", self.sbom.as_deref(), &["false"])?;
        only("load", self.load, true)?;
        only("disable-compression", self.disable_compression, true)
    }
}
