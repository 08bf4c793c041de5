//! `logs`.

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Failure, Globals, Outcome};
use crate::base::time;
use crate::cli::output;
use crate::engine::logs::LogOptions;
use crate::monitor::log::LogLine;
use crate::monitor::protocol::Stream;

/// Show what a container has written.
#[derive(Args, Debug, Clone)]
pub struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Show only what was written since
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Show only what was written until
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Show only the last lines
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show whose line it is
    #[arg(short, long)]
    names: bool,
    /// Containers, by name or ID
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `logs`.
pub fn run(args: LogsArgs, globals: &Globals) -> Outcome {
    let point = |text: &Option<String>| {
        let parse = |text: &String| time::parse_point(text, Timestamp::now(), &TimeZone::system());
        text.as_ref().map(parse).transpose().map_err(|error| Failure::new(error.to_string()))
    };
    let options = LogOptions {
        follow: args.follow,
        // Podman takes a negative number for "all".
        tail: args.tail.and_then(|n| usize::try_from(n).ok()),
        since: point(&args.since)?,
        until: point(&args.until)?,
    };
    let engine = globals.engine()?;
    for container in &args.containers {
        let name = if args.names { Some(engine.lookup(container)?.0.name) } else { None };
        // Whether the last line of each stream was left without its end.
        let mut open = [false; 2];
        let mut closed = false;
        let result = engine.logs(container, &options, &mut |line| {
            write_line(line, args.timestamps, name.as_deref(), &mut open).map_err(|error| {
                closed = matches!(error, output::Error::Closed);
                std::io::Error::other(error)
            })
        });
        if closed {
            return Ok(0);
        }
        result?;
    }
    Ok(0)
}

fn write_line(
    line: &LogLine<'_>,
    timestamps: bool,
    name: Option<&str>,
    open: &mut [bool; 2],
) -> Result<(), output::Error> {
    let stream = usize::from(line.stream == Stream::Stderr);
    let mut bytes = Vec::with_capacity(line.text.len() + 40);
    if !open[stream] {
        if let Some(name) = name {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b' ');
        }
        if timestamps {
            bytes.extend_from_slice(line.time.as_bytes());
            bytes.push(b' ');
        }
    }
    bytes.extend_from_slice(line.text);
    if !line.partial {
        bytes.push(b'\n');
    }
    open[stream] = line.partial;
    match line.stream {
        Stream::Stdout => output::print_bytes(&bytes),
        Stream::Stderr => output::eprint_bytes(&bytes),
    }
}
