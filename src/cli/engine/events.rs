//! `events`.

use clap::{ArgAction, Args};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Failure, Globals, Outcome};
use crate::base::template::Template;
use crate::base::time;
use crate::cli::output;
use crate::engine::events::{EventFilter, EventOptions, fields, line};

/// Show what happens to containers, images and volumes.
#[derive(Args, Debug, Clone)]
pub struct EventsArgs {
    /// Show only what fits: container, event, image, label, type or volume
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// A template or json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show IDs in full
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    no_trunc: bool,
    /// Begin with what happened since
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Go on with what happens
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = ArgAction::Set)]
    stream: bool,
    /// End with what happens until
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
}

/// `events`.
pub fn run(args: EventsArgs, globals: &Globals) -> Outcome {
    let now = Timestamp::now();
    let point = |name: &str, text: &Option<String>| {
        let parse = |text: &String| {
            time::parse_point(text, now, &TimeZone::system())
                .map_err(|error| Failure::new(format!("--{name}: {error}")))
        };
        text.as_ref().map(parse).transpose()
    };
    let options = EventOptions {
        since: point("since", &args.since)?,
        until: point("until", &args.until)?,
        filter: EventFilter::parse(&args.filter)?,
        stream: args.stream,
    };
    let format = args.format.as_deref().map(str::trim).filter(|format| !format.is_empty());
    let template = match format {
        None | Some("json") => None,
        Some(text) => Some(Template::parse(text)?),
    };
    let engine = globals.engine()?;
    let mut failure = None;
    engine.events(&options, &mut |event| {
        let text = match (&template, format) {
            (Some(template), _) => match template.render(&fields(event, !args.no_trunc, true)) {
                Ok(text) => text,
                Err(error) => {
                    failure = Some(Failure::from(error));
                    return Ok(false);
                }
            },
            (None, Some(_)) => fields(event, !args.no_trunc, false).to_string(),
            (None, None) => output::one_line(&line(event, !args.no_trunc)),
        };
        match output::println(&text) {
            Ok(()) => Ok(true),
            Err(error) => {
                failure = Some(Failure::from(error));
                Ok(false)
            }
        }
    })?;
    match failure {
        None => Ok(0),
        // Whoever closed the pipe has seen enough.
        Some(failure) if failure.code == 0 => Ok(0),
        Some(failure) => Err(failure),
    }
}
