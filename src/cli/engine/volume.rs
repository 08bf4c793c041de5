//! `volume create`, `inspect`, `ls`, `prune` and `rm`.

use std::collections::BTreeMap;

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::{Failure, Globals, Outcome, fields, prune};
use crate::base::time;
use crate::cli::output::{self, Listing};
use crate::engine::list::timestamp;
use crate::engine::volume_options::VolumeOptions;
use crate::engine::volumes::{VolumeRecord, split_label};

use crate::engine::{Engine, Error};

/// Make a volume.
#[derive(Args, Debug, Clone)]
pub struct CreateArgs {
    /// The driver; there is only "local"
    #[arg(short, long, value_name = "NAME", default_value = "local")]
    driver: String,
    /// Do not mind that it is there already
    #[arg(long)]
    ignore: bool,
    /// Give it a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// What it is: type=TYPE, device=DEVICE, o=OPTIONS as for mount(8)
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// The owner of its directory
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// The group of its directory
    #[arg(long, value_name = "GID")]
    gid: Option<u32>,
    /// Its name; one is made up without
    name: Option<String>,
}

/// Show everything about volumes.
#[derive(Args, Debug, Clone)]
pub struct InspectArgs {
    /// All volumes
    #[arg(short, long)]
    all: bool,
    /// A template or json
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Volumes, by name
    #[arg(value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// List volumes.
#[derive(Args, Debug, Clone)]
pub struct LsArgs {
    /// Show only volumes that fit: dangling, driver, label, label!, name, scope, since, until
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// A template, "table TEMPLATE" or json
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Leave the heading out
    #[arg(short, long)]
    noheading: bool,
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
}

/// Remove the volumes that no container uses.
#[derive(Args, Debug, Clone)]
pub struct PruneArgs {
    /// Remove those with names, too, which is always done
    #[arg(short, long)]
    all: bool,
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Remove only those that fit: label, label!, name, since, until
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Remove volumes.
#[derive(Args, Debug, Clone)]
pub struct RmArgs {
    /// Remove all volumes
    #[arg(short, long)]
    all: bool,
    /// Remove the containers that use them, too
    #[arg(short, long)]
    force: bool,
    /// Seconds until a running container is killed
    #[arg(short = 't', long, value_name = "SECONDS")]
    time: Option<u64>,
    /// Volumes, by name
    #[arg(value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// `volume create`: prints the name.
pub fn create(args: CreateArgs, globals: &Globals) -> Outcome {
    if args.driver != "local" {
        return Err(Failure::new(format!("--driver \"{}\" is not supported yet", args.driver)));
    }
    let mut labels = BTreeMap::new();
    for label in &args.label {
        let bad = || Failure::new(format!("--label \"{label}\": it takes KEY=VALUE"));
        labels.extend([split_label(label).ok_or_else(bad)?]);
    }
    let options = VolumeOptions::parse(&args.opt, args.uid, args.gid).map_err(Error::from)?;
    let record = globals.engine()?.create_volume(args.name.as_deref(), labels, options, args.ignore)?;
    output::println(&record.name)?;
    Ok(0)
}

/// A volume as JSON, with the fields that a template in `format` may want besides.
pub(super) fn details(engine: &Engine, volume: &VolumeRecord, format: Option<&str>) -> Value {
    let value = json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": engine.volume_data(&volume.name),
        "CreatedAt": time::rfc3339(timestamp(volume.created), &TimeZone::system()),
        "Labels": volume.labels,
        "Scope": "local",
        "Options": volume.options.told,
        "UID": volume.options.uid.unwrap_or(0),
        "GID": volume.options.gid.unwrap_or(0),
        "Anonymous": volume.anonymous_of.is_some(),
        "MountCount": 0,
        "NeedsCopyUp": false,
        "NeedsChown": false,
    });
    fields::complete(value, fields::VOLUME, format)
}

/// `volume inspect`.
pub fn inspect(args: InspectArgs, globals: &Globals) -> Outcome {
    if args.all != args.volumes.is_empty() {
        return Err(Failure::new("name volumes, or ask for --all"));
    }
    let engine = globals.engine()?;
    let details = |volume: &VolumeRecord| details(&engine, volume, args.format.as_deref());
    let mut found: Vec<Value> = Vec::new();
    if args.all {
        found = engine.volumes()?.iter().map(details).collect();
    }
    let (named, code) =
        super::selection::shown(&args.volumes, |name| engine.volume(name).map(|one| details(&one)));
    found.extend(named);
    output::print(&output::values(args.format.as_deref(), found)?)?;
    Ok(code)
}

enum Filter {
    Dangling(bool),
    Driver(String),
    Label(String, Option<String>, bool),
    Name(regex::Regex),
    Option(String, Option<String>),
    Scope(String),
    /// Made before this moment, in nanoseconds since 1970.
    Until(i128),
    /// Made after the volume of this name.
    Since(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::new(format!("--filter \"{text}\": {why}"));
        let (key, value) = text.split_once('=').ok_or_else(|| bad("it takes KEY=VALUE"))?;
        Ok(match key {
            "dangling" => Self::Dangling(value.parse().map_err(|_| bad("it takes true or false"))?),
            "driver" => Self::Driver(value.to_owned()),
            "label" | "label!" => {
                let (label, wanted) = match value.split_once('=') {
                    Some((label, wanted)) => (label, Some(wanted.to_owned())),
                    None => (value, None),
                };
                Self::Label(label.to_owned(), wanted, key == "label")
            }
            "scope" => Self::Scope(value.to_owned()),
            "until" => {
                let now = jiff::Timestamp::now();
                let point = time::parse_point(value, now, &TimeZone::system());
                Self::Until(point.map_err(|error| bad(&error.to_string()))?.as_nanosecond())
            }
            "since" | "after" => Self::Since(value.to_owned()),
            "name" => Self::Name(regex::Regex::new(value).map_err(|_| bad("it takes a regular expression"))?),
            "opt" => match value.split_once('=') {
                Some((option, wanted)) => Self::Option(option.to_owned(), Some(wanted.to_owned())),
                None => Self::Option(value.to_owned(), None),
            },
            _ => return Err(bad("there is no such filter")),
        })
    }

    fn fits(&self, volume: &VolumeRecord, used: bool, all: &[VolumeRecord]) -> bool {
        match self {
            Self::Dangling(wanted) => *wanted != used,
            Self::Driver(name) => name == "local",
            Self::Label(key, None, there) => volume.labels.contains_key(key) == *there,
            Self::Label(key, Some(value), there) => (volume.labels.get(key) == Some(value)) == *there,
            Self::Option(key, wanted) => volume
                .options
                .told
                .get(key)
                .is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value)),
            Self::Scope(name) => name == "local",
            Self::Until(moment) => i128::from(volume.created) < *moment,
            Self::Since(name) => all
                .iter()
                .find(|other| other.name == *name)
                .is_some_and(|other| volume.created > other.created),
            Self::Name(pattern) => pattern.is_match(&volume.name),
        }
    }
}

/// The volumes that fit all filters.
fn chosen(engine: &Engine, filters: &[String], unused: bool) -> Result<Vec<VolumeRecord>, Failure> {
    let mut filters = filters.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>, _>>()?;
    filters.extend(unused.then_some(Filter::Dangling(true)));
    let mut volumes = engine.volumes()?;
    let all = volumes.clone();
    for filter in &filters {
        if let Filter::Since(name) = filter
            && !all.iter().any(|volume| volume.name == *name)
        {
            return Err(Error::NoVolume(name.clone()).into());
        }
    }
    // Only who asks for it waits until every container's record has been read.
    let users = if filters.iter().any(|filter| matches!(filter, Filter::Dangling(_))) {
        engine.volume_users()?
    } else {
        BTreeMap::new()
    };
    volumes.retain(|volume| {
        filters.iter().all(|filter| filter.fits(volume, users.contains_key(&volume.name), &all))
    });
    Ok(volumes)
}

/// `volume ls`.
pub fn ls(args: LsArgs, globals: &Globals) -> Outcome {
    if args.quiet && args.format.is_some() {
        return Err(Failure::new("quiet and format cannot be used together"));
    }
    const LISTING: Listing<'_> =
        Listing { default: "{{.Driver}}\t{{.Name}}", headers: &[("Name", "VOLUME NAME")] };
    let engine = globals.engine()?;
    let volumes = chosen(&engine, &args.filter, false)?;
    if args.quiet {
        output::print(&volumes.iter().map(|volume| volume.name.clone() + "\n").collect::<String>())?;
        return Ok(0);
    }
    let rows: Vec<Value> =
        volumes.iter().map(|volume| details(&engine, volume, args.format.as_deref())).collect();
    output::print(&LISTING.render(args.format.as_deref(), !args.noheading, &rows)?)?;
    Ok(0)
}

/// `volume prune`: prints the names of what it removed.
pub fn prune(args: PruneArgs, globals: &Globals) -> Outcome {
    let _ = args.all;
    if !args.dry_run && !args.force && !prune::confirmed("all volumes that no container uses")? {
        return Ok(0);
    }
    let engine = globals.engine()?;
    if args.dry_run {
        for volume in chosen(&engine, &args.filter, true)? {
            output::println(&volume.name)?;
        }
        return Ok(0);
    }
    for volume in chosen(&engine, &args.filter, true)? {
        match engine.remove_volume(&volume.name) {
            Ok(()) => output::println(&volume.name)?,
            // Taken into use, or removed, since they were listed.
            Err(Error::VolumeInUse { .. } | Error::NoVolume(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(0)
}

/// `volume rm`. Podman's exit codes: 1 for a volume that is not there, 2 for one that is in use.
pub fn rm(args: RmArgs, globals: &Globals) -> Outcome {
    if args.all != args.volumes.is_empty() {
        return Err(Failure::new("name volumes, or ask for --all"));
    }
    let engine = globals.engine()?;
    let names = if args.all {
        engine.volumes()?.into_iter().map(|volume| volume.name).collect()
    } else {
        args.volumes.clone()
    };
    super::selection::for_each(&names, |name| {
        let result = engine.volume(name).and_then(|volume| {
            if args.force {
                for user in engine.volume_users()?.remove(&volume.name).unwrap_or_default() {
                    engine.remove(&user, true, args.time)?;
                }
            }
            engine.remove_volume(&volume.name)?;
            Ok(volume.name)
        });
        match result {
            Ok(name) => Ok(Some(name)),
            Err(Error::NoVolume(_)) if args.force => Ok(None),
            Err(error) => {
                let code = match &error {
                    Error::NoVolume(_) => 1,
                    Error::VolumeInUse { .. } => 2,
                    error => error.exit_code(),
                };
                Err(Failure::from(error).with_code(code))
            }
        }
    })
}
