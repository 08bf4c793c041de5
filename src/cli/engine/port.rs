//! `port`.

use clap::Args;

use super::{Failure, Globals, Outcome};
use crate::cli::output;
use crate::engine::list::ListOptions;
use crate::engine::network::show::bindings;

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

/// `port`: `80/tcp -> 0.0.0.0:8080` of all, `0.0.0.0:8080` of one that is asked for.
pub fn run(args: PortArgs, globals: &Globals) -> Outcome {
    let engine = globals.engine()?.by_prefix();
    let mut words = args.words.iter();
    if args.all && (args.latest || words.len() > 0) {
        return Err(Failure::new("--all takes neither --latest nor a container"));
    }
    if args.all {
        for one in engine.list(&ListOptions::default())?.0 {
            for binding in bindings(one.record.config.net()) {
                let id = one.record.id.short();
                output::println(&format!("{id}\t{} -> {}", binding.port, binding.address()))?;
            }
        }
        return Ok(0);
    }
    let net = if args.latest {
        let options = ListOptions { last: Some(1), ..ListOptions::default() };
        let newest = engine.list(&options)?.0.into_iter().next();
        newest.ok_or_else(|| Failure::new("there is no container"))?.record.config.net().clone()
    } else {
        let name = words.next().ok_or_else(|| Failure::new("you must name a container"))?;
        engine.lookup(name)?.0.config.net
    };
    let published = bindings(&net);
    let Some(port) = words.next() else {
        for binding in published {
            output::println(&format!("{} -> {}", binding.port, binding.address()))?;
        }
        return Ok(0);
    };
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
    let wanted = format!("{number}/{protocol}");
    let mut found = published.iter().filter(|binding| binding.port == wanted).peekable();
    if found.peek().is_none() {
        return Err(Failure::new(format!("port {wanted} is not published")));
    }
    for binding in found {
        output::println(&binding.address())?;
    }
    Ok(0)
}
