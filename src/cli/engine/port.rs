//! `port`.

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::list::ListOptions;

/// Show which ports of a container are published.
#[derive(Args, Debug, Clone)]
pub struct PortArgs {
    /// Of all containers that run
    #[arg(short, long)]
    all: bool,
    /// Of the newest container
    #[arg(short, long)]
    latest: bool,
    /// The container, by name or ID, and a port of it: 80, 53/udp
    #[arg(value_name = "CONTAINER [PORT]", num_args = 0..=2)]
    words: Vec<String>,
}

/// `port`: no network that containers have here publishes any, so that a port that is asked for is an error.
pub fn run(args: PortArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?;
    let mut words = args.words.iter();
    if args.all && (args.latest || words.len() > 0) {
        return Err(Failure::new("--all takes neither --latest nor a container"));
    }
    if args.latest {
        let options = ListOptions { last: Some(1), ..ListOptions::default() };
        if engine.list(&options)?.0.is_empty() {
            return Err(Failure::new("there is no container"));
        }
    } else if !args.all {
        let name = words.next().ok_or_else(|| Failure::new("you must name a container"))?;
        engine.lookup(name)?;
    }
    let Some(port) = words.next() else { return Ok(0) };
    if words.next().is_some() {
        return Err(Failure::new("--latest takes one port"));
    }
    let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
    let valid =
        number.parse::<u16>().is_ok_and(|number| number > 0) && ["tcp", "udp", "sctp"].contains(&protocol);
    if !valid {
        return Err(Failure::new(format!("\"{}\" is no port", output::one_line(port)))
            .with_hint("write 80 or 53/udp"));
    }
    Err(Failure::new(format!("port {number}/{protocol} is not published")))
}
