//! `ps`.

use std::borrow::Cow;
use std::io::IsTerminal;

use clap::{ArgAction, Args};

use super::{Globals, Outcome};
use crate::base::report;
use crate::cli::output::{self, Listing};
use crate::engine::list::{self, Fields, ListOptions, Unreadable};

/// List containers.
#[derive(Args, Debug, Clone)]
pub struct PsArgs {
    /// Show stopped containers too
    #[arg(short, long)]
    all: bool,
    /// Show the steps of builds that go on, too
    #[arg(long)]
    external: bool,
    /// Show only containers that fit: id, name, label, label!, command, status, exited, ancestor, before, since, until, network, volume
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
    /// Show the namespaces of the containers' processes
    #[arg(long, visible_alias = "ns", conflicts_with_all = ["format", "pod", "size"])]
    namespace: bool,
    /// Shorten nothing
    #[arg(long)]
    no_trunc: bool,
    /// Leave the heading out
    #[arg(long)]
    noheading: bool,
    /// Show the pods that containers are in, of which there are none
    #[arg(short, long, conflicts_with = "format")]
    pod: bool,
    /// Print only IDs
    #[arg(short, long)]
    quiet: bool,
    /// Count what containers' files take
    #[arg(short, long)]
    size: bool,
    /// Sort by command, created, id, image, names, runningfor or status
    #[arg(long, value_name = "KEY", default_value = "created")]
    sort: String,
    /// Ask the kernel, which is always done
    #[arg(long, action = ArgAction::SetTrue)]
    sync: bool,
    /// Show it again every so many seconds
    #[arg(short, long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    watch: Option<u64>,
}

const LISTING: Listing<'_> = Listing {
    default: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.Created}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
    headers: &[
        ("ID", "CONTAINER ID"),
        ("Id", "CONTAINER ID"),
        ("ImageID", "IMAGE ID"),
        ("RunningFor", "CREATED"),
        ("CreatedHuman", "CREATED"),
        ("Cgroup", "CGROUPNS"),
        ("Pod", "POD ID"),
        ("PodName", "PODNAME"),
    ],
};

/// The columns of `--namespace`, and those of `--size` and `--pod` besides the usual ones.
const NAMESPACES: &str = "table {{.ID}}\t{{.Names}}\t{{.Pid}}\t{{.Cgroup}}\t{{.IPC}}\t{{.MNT}}\t{{.NET}}\t{{.PIDNS}}\t{{.USERNS}}\t{{.UTS}}";
const SIZE: &str = "\t{{.Size}}";
const POD: &str = "\t{{.Pod}}\t{{.PodName}}";

/// `ps`.
pub fn run(args: PsArgs, globals: &Globals) -> Outcome {
    let Some(seconds) = args.watch else { return once(&args, globals, false) };
    let clear = std::io::stdout().is_terminal();
    loop {
        once(&args, globals, clear)?;
        std::thread::sleep(std::time::Duration::from_secs(seconds));
    }
}

fn once(args: &PsArgs, globals: &Globals, clear: bool) -> Outcome {
    let last = if args.latest { Some(1) } else { args.last.and_then(|n| usize::try_from(n).ok()) };
    let options = ListOptions {
        all: args.all,
        filters: args.filter.clone(),
        last,
        external: args.external,
        sort: args.sort.clone(),
    };
    let engine = globals.engine()?;
    let (mut listed, unreadable) = engine.list(&options)?;
    let wanted = args.size || args.sort == "size";
    if wanted {
        engine.measure(&mut listed)?;
        if args.sort == "size" {
            listed.sort_by_key(|one| one.size);
        }
    }
    let own = match (args.namespace, args.size, args.pod) {
        (true, ..) => Some(NAMESPACES.to_owned()),
        (_, false, false) => None,
        (_, size, pod) => Some(format!(
            "table {}{}{}",
            LISTING.default,
            if pod { POD } else { "" },
            if size { SIZE } else { "" }
        )),
    };
    let format = args.format.clone().or(own);
    if clear {
        output::print("\x1b[H\x1b[2J")?;
    }
    let code = tell_unreadable(&unreadable);
    let now = jiff::Timestamp::now();
    // A format says what is shown, whether --quiet is there or not, as in Podman.
    if args.quiet && args.format.is_none() {
        let id = |c: &list::Listed| {
            if args.no_trunc { format!("{}\n", c.record.id) } else { format!("{}\n", c.record.id.short()) }
        };
        output::print(&listed.iter().map(id).collect::<String>())?;
        return Ok(code);
    }
    let format = format.as_deref();
    let heading = !args.noheading;
    let truncate = !args.no_trunc;
    let text = if format == Some("json") {
        LISTING.render_made(format, heading, &listed, |one| Cow::Owned(one.json(now)))
    } else if format.is_none_or(|format| format.trim() == "table") {
        Ok(LISTING
            .render_default(heading, &listed, |one, name| one.text(name, now, truncate).unwrap_or_default()))
    } else {
        let bare = format.is_none_or(|format| format.starts_with("table") && !format.contains("{{"));
        let fields = Fields::of(format.filter(|_| !bare).unwrap_or(LISTING.default));
        LISTING.render_made(format, heading, &listed, |one| Cow::Owned(one.row(now, truncate, &fields)))
    };
    output::print(&text?)?;
    // The process is about to end, and giving back thousands of pieces takes a tenth of the time.
    if args.watch.is_none() {
        std::mem::forget(listed);
    }
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
