//! `system check`.

use std::time::Duration;

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::check::{CheckOptions, Fault, State};

/// Look for damage in the store.
#[derive(Args, Debug, Clone)]
pub struct CheckArgs {
    /// With --repair: remove containers too where that is the only way
    #[arg(short, long, requires = "repair")]
    force: bool,
    /// Layers that belong to no image are damage when they are older (such as 24h or 90m)
    #[arg(short, long, value_name = "DURATION", default_value = "24h")]
    max: String,
    /// Look only at the records: read no files
    #[arg(short, long)]
    quick: bool,
    /// Mend what can be mended, remove what cannot
    #[arg(short, long)]
    repair: bool,
}

/// `system check`: a line for each fault. The exit code is 1 if damage is left.
pub fn run(args: CheckArgs, globals: &Globals) -> Outcome {
    let max = duration(&args.max)
        .ok_or_else(|| Failure::new(format!("--max \"{}\": write a duration such as 24h", args.max)))?;
    let options = CheckOptions { quick: args.quick, repair: args.repair, force: args.force, max };
    let faults = globals.engine()?.check(options)?;
    for fault in &faults {
        output::println(&output::one_line(&line(fault)))?;
    }
    let left = faults.iter().any(Fault::is_left);
    if left && !args.repair {
        output::warning("there is damage: \"umiak system check --repair\" mends what can be mended");
    }
    Ok(u8::from(left))
}

fn line(fault: &Fault) -> String {
    let told = format!("{}: {}", fault.object, fault.what);
    match &fault.state {
        State::Found => told,
        State::Mended => format!("{told}: mended"),
        State::Removed => format!("{told}: removed"),
        State::Left(why) => format!("{told}: left as it is, because {why}"),
    }
}

/// A duration as Go writes them.
fn duration(text: &str) -> Option<Duration> {
    crate::base::time::parse_duration(text).ok().and_then(|span| Duration::try_from(span).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        for bad in ["", "24", "h", "1d", "-1h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
