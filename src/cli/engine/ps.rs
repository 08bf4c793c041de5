//! `ps`.

use clap::{ArgAction, Args};

use super::{Failure, Globals, Outcome};
use crate::base::report;
use crate::cli::output::{self, Listing};
use crate::engine::list::{ListOptions, Unreadable};

/// List containers.
#[derive(Args, Debug, Clone)]
pub struct PsArgs {
    /// Show stopped containers too
    #[arg(short, long)]
    all: bool,
    /// Show only containers that fit: id, name, label, status, exited, ancestor, before, since, until, network, volume
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// A template, "table TEMPLATE" or json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show only so many of the newest containers
    #[arg(short = 'n', long, value_name = "NUMBER")]
    last: Option<i64>,
    /// Show only the newest container
    #[arg(short, long)]
    latest: bool,
    /// Shorten nothing
    #[arg(long)]
    no_trunc: bool,
    /// Leave the heading out
    #[arg(long)]
    noheading: bool,
    /// Print only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Sort by command, created, id, image, names, runningfor or status
    #[arg(long, value_name = "KEY", default_value = "created")]
    sort: String,
    /// Ask the kernel, which is always done
    #[arg(long, hide = true, action = ArgAction::SetTrue)]
    sync: bool,
}

const LISTING: Listing<'_> = Listing {
    default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.Created}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Id", "CONTAINER ID"),
        ("ImageID", "IMAGE ID"),
        ("RunningFor", "CREATED"),
        ("CreatedHuman", "CREATED"),
    ],
};

/// Every field that a template may name.
const ALL_FIELDS: &str = "AutoRemove Command Created CreatedAt CreatedHuman ExitCode Exited ExitedAt ExposedPorts ID Id \
    Image ImageID IsInfra Labels Mounts Names Namespaces Networks Pid Pod PodName Ports Restarts RunningFor Size StartedAt \
    State Status";

/// `ps`.
pub fn run(args: PsArgs, globals: &Globals) -> Outcome {
    if args.quiet && args.format.is_some() {
        return Err(Failure::new("quiet and format cannot be used together"));
    }
    let last = if args.latest { Some(1) } else { args.last.and_then(|n| usize::try_from(n).ok()) };
    let options = ListOptions { all: args.all, filters: args.filter, last, sort: args.sort };
    let (listed, unreadable) = globals.engine()?.list(&options)?;
    let code = tell_unreadable(&unreadable);
    let now = jiff::Timestamp::now();
    if args.quiet {
        let id = |c: &crate::engine::list::Listed| {
            if args.no_trunc { format!("{}\n", c.record.id) } else { format!("{}\n", c.record.id.short()) }
        };
        output::print(&listed.iter().map(id).collect::<String>())?;
        return Ok(code);
    }
    let rows: Vec<_> = if args.format.as_deref() == Some("json") {
        listed.iter().map(|c| c.json(now)).collect()
    } else {
        // A template over the whole row, as "{{json .}}" or "{{range}}", wants every field.
        let format = args.format.as_deref().unwrap_or(LISTING.default);
        let fields =
            if format.starts_with("table") && !format.contains("{{") { LISTING.default } else { format };
        let fields = if fields.contains(". }}") || fields.contains(".}}") { ALL_FIELDS } else { fields };
        // Nothing but slips of the pen: the template tells which, held against what there is.
        let known = ALL_FIELDS.split_whitespace().any(|field| fields.contains(field));
        let fields = if known { fields } else { ALL_FIELDS };
        listed.iter().map(|c| c.row(now, !args.no_trunc, fields)).collect()
    };
    output::print(&LISTING.render(args.format.as_deref(), !args.noheading, &rows)?)?;
    Ok(code)
}

/// Tells of the containers that cannot be listed; returns the exit code that follows.
fn tell_unreadable(unreadable: &[Unreadable]) -> u8 {
    for Unreadable { id, error } in unreadable {
        let message = format!("container {}: {}", id.short(), report::chain(error));
        output::error_line(&message, error.hint().as_deref());
    }
    if unreadable.is_empty() { 0 } else { 125 }
}
