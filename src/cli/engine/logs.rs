//! `logs`.

use std::io;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::selection::Selection;
use super::{Failure, Globals, Outcome};
use crate::base::time;
use crate::cli::output;
use crate::engine::logs::{LogOptions, Sink};
use crate::monitor::log::LogLine;
use crate::monitor::protocol::Stream;

/// Show what containers have written.
#[derive(Args, Debug, Clone)]
pub struct LogsArgs {
    /// Show each container's lines in a colour of their own
    #[arg(long)]
    color: bool,
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// The newest container
    #[arg(short, long)]
    latest: bool,
    /// Show only what was written since
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Show only what was written until
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Show only the last lines
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<String>,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Show whose line it is, by name
    #[arg(short, long)]
    names: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `logs`.
pub fn run(args: LogsArgs, globals: &Globals) -> Outcome {
    let now = Timestamp::now();
    let point = |text: &Option<String>| {
        let parse = |text: &String| time::parse_point(text, now, &TimeZone::system());
        text.as_ref().map(parse).transpose().map_err(|error| Failure::new(error.to_string()))
    };
    let tail = match args.tail.as_deref() {
        // Podman takes a negative number for "all", Docker the word.
        None | Some("all") => None,
        Some(text) => {
            let number: i64 = text.parse().map_err(|_| {
                Failure::new(format!("--tail \"{text}\": it takes a number of lines, or all"))
            })?;
            usize::try_from(number).ok()
        }
    };
    let options =
        LogOptions { follow: args.follow, tail, since: point(&args.since)?, until: point(&args.until)? };
    let engine = globals.engine()?.by_prefix();
    let selection = Selection::of(false, args.latest, args.containers.clone());
    let words = selection.resolve(&engine, &[], true)?;
    let mut prefixes = Vec::new();
    for word in &words {
        let (record, _) = engine.lookup(word)?;
        prefixes.push(match (args.names, words.len()) {
            (true, _) => format!("{} ", record.name),
            (false, 1) => String::new(),
            (false, _) => format!("{} ", record.id.short()),
        });
    }
    let mut show = Show {
        open: vec![[false; 2]; prefixes.len()],
        prefixes,
        colour: args.color && output::allows_colour(),
        timestamps: args.timestamps,
        held: Vec::with_capacity(HELD),
        stream: Stream::Stdout,
        closed: false,
    };
    let result = engine.logs(&words, &options, &mut show);
    if show.closed {
        return Ok(0);
    }
    // What was held back belongs before the word of what went wrong.
    let shown = show.pause();
    if show.closed {
        return Ok(0);
    }
    result?;
    shown.map_err(|error| Failure::new(error.to_string()))?;
    Ok(0)
}

/// So many bytes are shown at once.
const HELD: usize = 128 * 1024;

/// The colours of containers' lines.
const COLOURS: [&str; 6] = ["\x1b[37m", "\x1b[31m", "\x1b[33m", "\x1b[34m", "\x1b[35m", "\x1b[36m"];

struct Show {
    prefixes: Vec<String>,
    colour: bool,
    timestamps: bool,
    /// Whether the last line of each container's streams was left without its end.
    open: Vec<[bool; 2]>,
    held: Vec<u8>,
    /// Where what is held belongs.
    stream: Stream,
    closed: bool,
}

impl Sink for Show {
    fn line(&mut self, container: usize, line: &LogLine<'_>) -> io::Result<()> {
        if line.stream != self.stream {
            self.pause()?;
            self.stream = line.stream;
        }
        let colour = self.colour.then(|| COLOURS[container % COLOURS.len()]);
        let open = &mut self.open[container][usize::from(line.stream == Stream::Stderr)];
        let held = &mut self.held;
        held.extend_from_slice(colour.unwrap_or_default().as_bytes());
        if !*open {
            held.extend_from_slice(self.prefixes[container].as_bytes());
            if self.timestamps {
                held.extend_from_slice(line.time.as_bytes());
                held.push(b' ');
            }
        }
        held.extend_from_slice(line.text);
        if colour.is_some() {
            held.extend_from_slice(b"\x1b[0m");
        }
        if !line.partial {
            held.push(b'\n');
        }
        *open = line.partial;
        if held.len() >= HELD { self.pause() } else { Ok(()) }
    }

    fn pause(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let result = match self.stream {
            Stream::Stdout => output::print_bytes(&self.held),
            Stream::Stderr => output::eprint_bytes(&self.held),
        };
        self.held.clear();
        result.map_err(|error| {
            self.closed = matches!(error, output::Error::Closed);
            io::Error::other(error)
        })
    }
}
