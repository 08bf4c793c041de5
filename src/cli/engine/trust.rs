//! `image trust`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Globals, Outcome};
use crate::base::report;
use crate::cli::output::{self, Listing};
use crate::engine::images::trust::{self, Change};

/// Show and change which images are let in.
#[derive(Args, Debug, Clone)]
pub struct TrustArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug, Clone)]
enum What {
    /// Say which images are let in
    Set(SetArgs),
    /// Show which images are let in
    Show(ShowArgs),
}

#[derive(Args, Debug, Clone)]
struct SetArgs {
    /// The policy to change
    #[arg(long, value_name = "FILE", hide = true, alias = "signature-policy")]
    policypath: Option<PathBuf>,
    /// A file with a public key; each of several must have signed
    #[arg(short = 'f', long, value_name = "FILE")]
    pubkeysfile: Vec<PathBuf>,
    /// accept, reject, signedBy or sigstoreSigned
    #[arg(short, long, value_name = "TYPE", default_value = "signedBy")]
    r#type: String,
    /// The registry, namespace or repository, or default
    registry: String,
}

#[derive(Args, Debug, Clone)]
struct ShowArgs {
    /// Show as JSON
    #[arg(short, long)]
    json: bool,
    /// Leave the headings out
    #[arg(short, long)]
    noheading: bool,
    /// The policy to show
    #[arg(long, value_name = "FILE", hide = true, alias = "signature-policy")]
    policypath: Option<PathBuf>,
    /// Show the policy's file as it is
    #[arg(long)]
    raw: bool,
    /// The directory that tells where signatures are
    #[arg(long, value_name = "DIR", hide = true)]
    registrypath: Option<PathBuf>,
    /// Show what holds for this scope only
    registry: Option<String>,
}

/// Shows or sets.
pub fn run(args: TrustArgs, _: &Globals) -> Outcome {
    match args.what {
        What::Set(args) => {
            let change = Change {
                scope: args.registry,
                kind: args.r#type,
                keys: args.pubkeysfile,
                policy: args.policypath,
            };
            trust::set(&change).map_err(failure)?;
        }
        What::Show(args) => show(&args)?,
    }
    Ok(0)
}

fn failure(error: trust::Error) -> Failure {
    Failure { hint: error.hint(), ..Failure::new(report::chain(&error)) }
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    if args.raw {
        return Ok(output::print_bytes(&trust::raw(args.policypath.as_deref()).map_err(failure)?)?);
    }
    let mut lines = trust::show(args.policypath.as_deref(), args.registrypath.as_deref()).map_err(failure)?;
    if let Some(registry) = &args.registry {
        lines.retain(|line| line.repo_name == *registry);
    }
    if args.json {
        let text = serde_json::to_string_pretty(&lines).map_err(|error| Failure::new(error.to_string()))?;
        return Ok(output::println(&text)?);
    }
    let row = |line: &trust::Shown| {
        json!({
            "Transport": line.transport,
            "RepoName": line.repo_name,
            "Type": line.r#type,
            "GPGId": line.gpg_id,
            "SignatureStore": line.sigstore,
        })
    };
    let rows: Vec<Value> = lines.iter().map(row).collect();
    let listing = Listing {
        default: "{{.Transport}}\t{{.RepoName}}\t{{.Type}}\t{{.GPGId}}\t{{.SignatureStore}}",
        headers: &[("RepoName", "NAME"), ("GPGId", "ID"), ("SignatureStore", "STORE")],
    };
    Ok(output::print(&listing.render(None, !args.noheading, &rows)?)?)
}
