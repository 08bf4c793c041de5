//! `doctor`.

use clap::Args;
use serde_json::json;

use super::{Globals, Outcome};
use crate::cli::output;
use crate::engine::doctor::{self, Diagnosis, State};

/// Look for what keeps containers from running, or from running well.
#[derive(Args, Debug, Clone)]
pub struct DoctorArgs {
    /// A template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Only what is not as it should be
    #[arg(short, long)]
    quiet: bool,
}

/// `doctor`: a line for each thing, and one with the command that mends it. The exit code is 1 if containers
/// cannot run.
pub fn run(args: DoctorArgs, globals: &Globals) -> Outcome {
    let mut found = doctor::gather(&globals.paths, globals.told_runroot);
    let is_broken = |all: &[Diagnosis]| all.iter().any(|one| one.state == State::Broken);
    let mut all = doctor::diagnose(&found);
    if !is_broken(&all) || doctor::may_tell_more(&found) {
        let network = all.iter().all(|one| one.topic != doctor::NETWORK || one.state == State::Fine);
        found.trial = Some(doctor::run(&globals.paths, network));
        all = doctor::diagnose(&found);
    }
    let broken = is_broken(&all);
    if args.quiet {
        all.retain(|one| one.state != State::Fine);
    }
    match args.format.as_deref() {
        None => output::print(&all.iter().map(lines).collect::<String>())?,
        format => {
            let checks: Vec<_> = all.iter().map(Diagnosis::value).collect();
            output::print(&output::value(format, &json!({ "broken": broken, "checks": checks }))?)?;
        }
    }
    Ok(u8::from(broken))
}

fn lines(one: &Diagnosis) -> String {
    let text = output::one_line(&one.text);
    let cure = one.cure.as_ref().map(|cure| format!("{:8} → {}\n", "", output::one_line(cure)));
    format!("{:8} {}: {text}\n{}", one.state.word(), one.topic, cure.unwrap_or_default())
}
