//! `stats`.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::selection::is_missing;
use super::{Failure, Globals, Outcome};
use crate::base::size;
use crate::cli::output::{self, Listing};
use crate::engine::Engine;
use crate::engine::list::ListOptions;
use crate::engine::stats::{self, Sample, Subject};
use crate::storage::containers::{NetworkMode, Status};

/// Show what containers use.
#[derive(Args, Debug, Clone)]
pub struct StatsArgs {
    /// Show containers that do not run, too
    #[arg(short, long)]
    all: bool,
    /// A template, "table TEMPLATE" or json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Seconds between two looks
    #[arg(short, long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    interval: u64,
    /// Show the newest container
    #[arg(short, long)]
    latest: bool,
    /// Do not clear the terminal before each look
    #[arg(long)]
    no_reset: bool,
    /// Show one look and end
    #[arg(long)]
    no_stream: bool,
    /// Shorten nothing
    #[arg(long)]
    no_trunc: bool,
    /// Containers, by name or ID
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

const LISTING: Listing<'_> = Listing {
    default: "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDS}}\t{{.UpTime}}\t{{.AVGCPU}}",
    headers: &[
        ("ID", "ID"),
        ("ContainerID", "ID"),
        ("Container", "CONTAINER"),
        ("CPUPerc", "CPU %"),
        ("CPU", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemUsageBytes", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET IO"),
        ("BlockIO", "BLOCK IO"),
        ("PIDS", "PIDS"),
        ("UpTime", "CPU TIME"),
        ("AVGCPU", "AVG CPU %"),
        ("AvgCPU", "AVG CPU %"),
    ],
};

/// `stats`.
pub fn run(args: StatsArgs, globals: &Globals) -> Outcome {
    let chosen = usize::from(args.all) + usize::from(args.latest) + usize::from(!args.containers.is_empty());
    if chosen > 1 {
        return Err(Failure::new("--all, --latest and containers cannot be used together"));
    }
    let engine = globals.engine()?;
    // A slip in the template is told before anything is measured, and before there is anything.
    if let Some(format) = args.format.as_deref().filter(|format| *format != "json") {
        LISTING.render(Some(format), true, &[row(&args, &ContainerSample::default(), None)])?;
    }
    let mut before: HashMap<String, Sample> = HashMap::new();
    let clear = !args.no_stream && !args.no_reset && std::io::stdout().is_terminal() && args.format.is_none();
    loop {
        let found = look(&engine, &args, before.is_empty())?;
        let mut rows = Vec::new();
        let mut now = HashMap::new();
        for one in &found {
            rows.push(row(&args, one, before.get(&one.id)));
            if let Some(sample) = &one.sample {
                now.insert(one.id.clone(), sample.clone());
            }
        }
        let text = LISTING.render(args.format.as_deref(), true, &rows)?;
        output::print(&if clear { format!("\x1b[H\x1b[2J{text}") } else { text })?;
        if args.no_stream {
            return Ok(0);
        }
        before = now;
        std::thread::sleep(Duration::from_secs(args.interval));
    }
}

#[derive(Default)]
struct ContainerSample {
    id: String,
    name: String,
    sample: Option<Sample>,
}

/// Looks at the containers that are asked for. One that is named and goes later is no error.
fn look(engine: &Engine, args: &StatsArgs, first: bool) -> Result<Vec<ContainerSample>, Failure> {
    let mut found: Vec<(String, String, NetworkMode, Status)> = Vec::new();
    if args.containers.is_empty() {
        let options = ListOptions { all: args.all, last: args.latest.then_some(1), ..ListOptions::default() };
        let (listed, _) = engine.list(&options)?;
        if args.latest && listed.is_empty() {
            return Err(Failure::new("there is no container"));
        }
        found.extend(
            listed.into_iter().map(|one| {
                (one.record.id.to_string(), one.record.name, one.record.config.network, one.status)
            }),
        );
    }
    for name in &args.containers {
        match engine.lookup(name) {
            Ok((record, status)) => {
                found.push((record.id.to_string(), record.name, record.config.network.clone(), status));
            }
            Err(error) if is_missing(&error) && !first => {}
            Err(error) => return Err(error.into()),
        }
    }
    let running = found
        .iter()
        .filter_map(|(_, _, network, status)| Some(Subject { state: status.running()?, network }));
    let mut samples = stats::samples(&running.collect::<Vec<_>>()).into_iter();
    let rows = found.iter().map(|(id, name, _, status)| ContainerSample {
        id: id.clone(),
        name: name.clone(),
        sample: status.running().and_then(|_| samples.next()),
    });
    Ok(rows.collect())
}

/// What is told of a container: for the default columns no more than they show.
fn row(args: &StatsArgs, one: &ContainerSample, before: Option<&Sample>) -> Value {
    let sample = one.sample.clone().unwrap_or_default();
    let known = |text: Option<String>| text.unwrap_or_else(|| "--".to_owned());
    let percent = |value: Option<f64>| known(value.map(|value| format!("{value:.2}%")));
    let both = |pair: Option<(u64, u64)>| match pair {
        Some((a, b)) => format!("{} / {}", size::human(a), size::human(b)),
        None => "-- / --".to_owned(),
    };
    let spent = |from: i64, used: u64| {
        let wall = (sample.at - from).max(1) as f64;
        used as f64 * 100.0 / wall
    };
    let average = sample.cpu.map(|(used, _)| spent(sample.started, used));
    let now = match (before, sample.cpu) {
        (Some(Sample { at, cpu: Some((earlier, _)), .. }), Some((used, _))) => {
            Some(spent(*at, used.saturating_sub(*earlier)))
        }
        _ => average,
    };
    let memory_percent = match (sample.memory, sample.memory_limit) {
        (Some(used), Some(limit)) if limit > 0 => Some(used as f64 * 100.0 / limit as f64),
        _ => None,
    };
    let memory = both(sample.memory.zip(sample.memory_limit));
    let (id, name) = (one.id.as_str(), &one.name);
    let id = if args.no_trunc { id } else { id.get(..12).unwrap_or(id) };
    let time = known(sample.cpu.map(|(used, _)| duration(used)));
    let pids = known(sample.pids.map(|count| count.to_string()));
    if args.format.as_deref() == Some("json") {
        return json!({
            "id": id, "name": name, "cpu_time": time, "cpu_percent": percent(now), "avg_cpu": percent(average),
            "mem_usage": memory, "mem_percent": percent(memory_percent), "net_io": both(sample.network),
            "block_io": both(sample.block), "pids": pids,
        });
    }
    let mut row = json!({
        "ID": id, "Name": name, "CPUPerc": percent(now), "MemUsage": memory, "MemPerc": percent(memory_percent),
        "NetIO": both(sample.network), "BlockIO": both(sample.block), "PIDS": pids, "UpTime": time,
        "AVGCPU": percent(average),
    });
    if args.format.is_some()
        && let Value::Object(fields) = &mut row
    {
        fields.extend(further(&sample, id, (now, average)));
    }
    row
}

/// What no default column shows.
fn further(
    sample: &Sample,
    id: &str,
    (now, average): (Option<f64>, Option<f64>),
) -> serde_json::Map<String, Value> {
    let memory = match (sample.memory, sample.memory_limit) {
        (Some(used), Some(limit)) => format!("{} / {}", binary(used), binary(limit)),
        _ => "-- / --".to_owned(),
    };
    let up = if sample.started > 0 { (sample.at - sample.started).max(0) } else { 0 };
    let further = json!({
        "ContainerID": id, "Container": id, "CPU": now, "AvgCPU": average,
        "CPUNano": sample.cpu.map(|(used, _)| used), "CPUSystemNano": sample.cpu.map(|(_, system)| system),
        "SystemNano": sample.at, "MemUsageBytes": memory, "MemLimit": sample.memory_limit,
        "NetInput": sample.network.map(|n| n.0), "NetOutput": sample.network.map(|n| n.1),
        "BlockInput": sample.block.map(|n| n.0), "BlockOutput": sample.block.map(|n| n.1),
        "PIDs": sample.pids, "Up": duration(up.unsigned_abs()), "Duration": up,
    });
    match further {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

/// Bytes in powers of 1024.
fn binary(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes}B")
    } else {
        format!("{value:.4}").get(..5).unwrap_or("").trim_end_matches('.').to_owned() + UNITS[unit]
    }
}

/// As Go prints a duration.
fn duration(nanoseconds: u64) -> String {
    let seconds = nanoseconds as f64 / 1e9;
    if nanoseconds < 1_000_000 {
        format!("{}µs", nanoseconds / 1000)
    } else if nanoseconds < 1_000_000_000 {
        format!("{:.3}ms", nanoseconds as f64 / 1e6)
    } else if seconds < 60.0 {
        format!("{seconds:.6}s")
    } else if seconds < 3600.0 {
        format!("{}m{:.3}s", seconds as u64 / 60, seconds % 60.0)
    } else {
        format!("{}h{}m{:.3}s", seconds as u64 / 3600, seconds as u64 / 60 % 60, seconds % 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_people_know_it() {
        assert_eq!(binary(512), "512B");
        assert_eq!(binary(1536), "1.500KiB");
        assert_eq!(binary(16 << 30), "16.00GiB");
        assert_eq!(duration(1_500), "1µs");
        assert_eq!(duration(12_345_678), "12.346ms");
        assert_eq!(duration(3_600_000_000_000), "1h0m0.000s");
    }
}
