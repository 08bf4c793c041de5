//! `pull`.

use std::path::PathBuf;

use clap::Args;

use super::access::{Access, Retry};
use super::{Failure, Globals, Outcome};
use crate::cli::{output, progress};
use crate::engine;
use crate::engine::images::{self, PullOptions, PullPolicy};

/// Fetch an image.
#[derive(Args, Debug, Clone)]
pub struct PullArgs {
    /// Pull all images of a repository
    #[arg(short, long)]
    all_tags: bool,
    /// Choose the architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    #[command(flatten)]
    access: Access,
    /// Does nothing, as in Podman: what is trusted stands in policy.json
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[allow(dead_code, reason = "taken so that command lines made for Docker work")]
    disable_content_trust: Option<bool>,
    /// Choose the operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Choose operating system and architecture
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// When to pull: always, missing, newer or never
    #[arg(long, value_name = "POLICY", default_value = "always")]
    policy: String,
    /// Print nothing but the image's ID
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    retry: Retry,
    /// The policy that says which images may be pulled
    #[arg(long, value_name = "FILE", hide = true)]
    signature_policy: Option<PathBuf>,
    /// Choose the variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Images: NAME[:TAG|@DIGEST], docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG],
    /// docker-archive:FILE[:NAME] or dir:DIR
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Pulls each image and prints its id.
pub fn run(args: PullArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let policy: PullPolicy = args.policy.parse().map_err(Failure::new)?;
    let options = PullOptions {
        platform: args.platform,
        os: args.os,
        arch: args.arch,
        variant: args.variant,
        reach: args.access.reach(Some(&args.retry))?,
        signature_policy: args.signature_policy,
    };
    let mut names = args.images;
    if args.all_tags {
        let all = names.iter().map(|name| images::all_tags(&engine, name, &options));
        names = all.collect::<Result<Vec<_>, _>>().map_err(engine::Error::from)?.concat();
    }
    for name in &names {
        let progress = progress::for_pull(args.quiet);
        let image = images::ensure(&engine, name, policy, &options, progress).map_err(engine::Error::from)?;
        output::println(&image.id.hex())?;
    }
    Ok(0)
}
