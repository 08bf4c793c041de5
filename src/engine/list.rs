//! `ps`: which containers there are, filtered and sorted.

use std::borrow::Cow;
use std::collections::HashSet;

use jiff::Timestamp;
use regex::Regex;
use serde_json::{Value, json};

use super::network::show;
use super::{Engine, Error};
use crate::base::id::ContainerId;
use crate::base::{size, time};
use crate::storage::containers::{
    self, Brief, BriefRootfs, Exit, HealthStatus, NetworkDetails, NetworkMode, RestartPolicy, Status,
};
use crate::sys::parallel::in_parallel;

/// Which containers to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Stopped ones too.
    pub all: bool,
    /// `KEY=VALUE`, as Podman's `--filter`.
    pub filters: Vec<String>,
    /// Only so many, the newest first.
    pub last: Option<usize>,
    /// The steps of builds that go on, too.
    pub external: bool,
    /// `command`, `created`, `id`, `image`, `names`, `runningfor`, `size` or `status`.
    pub sort: String,
}

/// One container as listed.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What was asked for.
    pub record: Box<Brief>,
    /// What it is doing.
    pub status: Status,
    /// Bytes that it has written, and of all that it sees, if they were counted.
    pub size: Option<(u64, u64)>,
    /// What its health checks have found; none if it has none or does not run.
    pub health: Option<HealthStatus>,
}

/// A container whose records cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// Its id.
    pub id: ContainerId,
    /// Why not.
    pub error: Error,
}

impl Engine {
    /// The containers that fit. Only the running ones are looked at where no more is asked for.
    /// One that cannot be read does not hide the others: its error is told beside them.
    pub fn list(&self, options: &ListOptions) -> Result<(Vec<Listed>, Vec<Unreadable>), Error> {
        let filters =
            options.filters.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>, _>>()?;
        let about_stopped =
            filters.iter().any(|filter| matches!(filter, Filter::Status(_) | Filter::Exited(_)));
        let all = options.all || options.last.is_some() || about_stopped;
        let live: HashSet<_> = self.containers.live_ids()?.into_iter().collect();
        let ids = if all { self.containers.ids()? } else { live.iter().cloned().collect() };
        let mut listed = Vec::with_capacity(ids.len());
        let mut unreadable = Vec::new();
        let may_run = |id: &ContainerId| live.contains(id);
        let containers = self.containers.near();
        let looked = in_parallel(&ids, |id| Self::look_briefly(&containers, id, &may_run));
        for (id, looked) in ids.into_iter().zip(looked) {
            let found = match looked {
                // To finish it takes processes, which are not made beside threads.
                Ok((.., true)) => self
                    .load_one_of(&id, &may_run)
                    .map(|(record, status)| (Box::new((&record).into()), status)),
                other => other.map(|(record, status, _)| (record, status)),
            };
            match found {
                Ok((record, status)) => listed.push(self.listed(record, status)),
                // Gone since the directory was read.
                Err(Error::Containers(containers::Error::NotFound(_))) => {}
                Err(error) => unreadable.push(Unreadable { id, error }),
            }
        }
        let reference = self.reference_times(&filters)?;
        // As with Podman a paused one is listed only among all.
        listed.retain(|c| {
            (all || matches!(c.status, Status::Running(_) | Status::Stopping(_) | Status::Restarting(_)))
                && (options.external || !c.record.config.build)
                && fits(c, &filters, &reference)
                && filters.iter().all(|filter| match filter {
                    Filter::Boot(wanted) => self.starts_at_boot(&c.record) == *wanted,
                    _ => true,
                })
        });
        sort(&mut listed, options)?;
        if let Some(last) = options.last {
            listed.sort_by_key(|c| std::cmp::Reverse(c.record.created));
            listed.truncate(last);
        }
        Ok((listed, unreadable))
    }

    /// A container as it is listed.
    pub(super) fn listed(&self, record: Box<Brief>, status: Status) -> Listed {
        let health = match &status {
            Status::Running(_) | Status::Paused(_) if record.config.has_health_checks() => {
                // A record that cannot be read says nothing.
                Some(self.containers.health(&record.id).ok().flatten().unwrap_or_default().status)
            }
            _ => None,
        };
        Listed { record, status, health, size: None }
    }

    /// Counts the bytes of each. The caller must be single-threaded.
    pub fn measure(&self, listed: &mut Vec<Listed>) -> Result<(), Error> {
        let mut records = Vec::with_capacity(listed.len());
        for one in std::mem::take(listed) {
            match self.containers.record(&one.record.id) {
                Ok(record) => {
                    records.push(record);
                    listed.push(one);
                }
                // Gone since it was listed.
                Err(containers::Error::NotFound(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let sizes = self.container_sizes(&records.iter().collect::<Vec<_>>())?;
        listed.iter_mut().zip(sizes).for_each(|(one, size)| one.size = Some(size));
        Ok(())
    }

    /// Whether a container's restart policy wants it to be started at boot.
    fn starts_at_boot(&self, record: &Brief) -> bool {
        match record.config.restart {
            RestartPolicy::Always => true,
            RestartPolicy::UnlessStopped => !self.containers.is_stopped(&record.id),
            RestartPolicy::No | RestartPolicy::OnFailure(_) => false,
        }
    }

    /// When the containers that `before` and `since` name were made.
    fn reference_times(&self, filters: &[Filter]) -> Result<Vec<(String, i64)>, Error> {
        let mut times = Vec::new();
        for filter in filters {
            if let Filter::Before(name) | Filter::Since(name) = filter {
                times.push((name.clone(), self.lookup(name)?.0.created));
            }
        }
        Ok(times)
    }
}

fn sort(listed: &mut [Listed], options: &ListOptions) -> Result<(), Error> {
    match options.sort.as_str() {
        // Counted, and sorted, by who asks for it.
        "size" => {}
        "" | "created" => listed.sort_by_key(|c| c.record.created),
        "runningfor" => listed.sort_by_key(|c| std::cmp::Reverse(c.record.created)),
        "id" => listed.sort_by(|a, b| a.record.id.cmp(&b.record.id)),
        "names" => listed.sort_by(|a, b| a.record.name.cmp(&b.record.name)),
        "image" => listed.sort_by(|a, b| a.record.image_name().cmp(&b.record.image_name())),
        "command" => listed.sort_by_key(|c| c.record.config.command.join(" ")),
        "status" => listed.sort_by_key(|c| c.status.word()),
        other => return Err(Error::Filter(format!("there is no order \"{other}\""))),
    }
    Ok(())
}

enum Filter {
    Id(String),
    Name(Regex),
    Label(String, Option<String>, bool),
    Command(String),
    Status(String),
    Exited(i32),
    Ancestor(String),
    Before(String),
    Since(String),
    Until(i64),
    Network(String),
    Volume(String),
    RestartPolicy(String),
    Boot(bool),
    Health(String),
}

impl Filter {
    fn parse(text: &str) -> Result<Self, Error> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Error::Filter(format!("the filter \"{text}\" is not of the form KEY=VALUE")))?;
        let value = value.to_owned();
        Ok(match key {
            "id" => Self::Id(value),
            "name" => Self::Name(Regex::new(&value).map_err(|error| Error::Filter(error.to_string()))?),
            "label" | "label!" => {
                let there = key == "label";
                match value.split_once('=') {
                    Some((key, value)) => Self::Label(key.into(), Some(value.into()), there),
                    None => Self::Label(value, None, there),
                }
            }
            "command" => Self::Command(value),
            "status" => match value.as_str() {
                "created" | "running" | "exited" | "stopping" | "restarting" => Self::Status(value),
                "stopped" => Self::Status("exited".into()),
                "configured" | "initialized" => Self::Status("created".into()),
                "paused" | "removing" | "unknown" => Self::Status(value),
                _ => return Err(Error::Filter(format!("there is no status \"{value}\""))),
            },
            "exited" => Self::Exited(
                value.parse().map_err(|_| Error::Filter(format!("\"{value}\" is no exit code")))?,
            ),
            "ancestor" => Self::Ancestor(value),
            "before" => Self::Before(value),
            "since" => Self::Since(value),
            "until" => {
                let now = Timestamp::now();
                let point = time::parse_point(&value, now, &jiff::tz::TimeZone::system())
                    .map_err(|error| Error::Filter(error.to_string()))?;
                Self::Until(i64::try_from(point.as_nanosecond()).unwrap_or(i64::MAX))
            }
            "network" => Self::Network(value),
            "volume" => Self::Volume(value),
            "restart-policy" => match value.as_str() {
                "" | "no" | "none" => Self::RestartPolicy("no".into()),
                "always" | "on-failure" | "unless-stopped" => Self::RestartPolicy(value),
                _ => return Err(Error::Filter(format!("there is no restart policy \"{value}\""))),
            },
            "should-start-on-boot" => Self::Boot(
                value.parse().map_err(|_| Error::Filter(format!("\"{value}\" is neither true nor false")))?,
            ),
            "health" => match value.as_str() {
                "starting" | "healthy" | "unhealthy" | "none" => Self::Health(value),
                _ => return Err(Error::Filter(format!("there is no health \"{value}\""))),
            },
            "pod" => {
                return Err(Error::Filter(format!("the filter \"{key}\" is not supported yet")));
            }
            _ => return Err(Error::Filter(format!("there is no filter \"{key}\""))),
        })
    }

    fn fits(&self, c: &Listed, reference: &[(String, i64)]) -> bool {
        let created_of = |name: &str| reference.iter().find(|(n, _)| n == name).map_or(0, |(_, t)| *t);
        let record = &c.record;
        match self {
            Self::Id(prefix) => record.id.as_str().starts_with(prefix.as_str()),
            Self::Name(pattern) => pattern.is_match(&record.name),
            Self::Label(key, None, there) => record.config.labels.contains_key(key) == *there,
            Self::Label(key, Some(value), there) => (record.config.labels.get(key) == Some(value)) == *there,
            Self::Command(word) => record.config.args().next() == Some(word),
            Self::Status(word) => c.status.word() == word,
            Self::Exited(code) => matches!(&c.status, Status::Exited(exit) if exit.exit.code() == *code),
            Self::Ancestor(image) => is_image(record, image),
            Self::Before(name) => record.created < created_of(name),
            Self::Since(name) => record.created > created_of(name),
            Self::Until(time) => record.created < *time,
            Self::Network(name) => {
                network_name(&record.config.network, record.config.net()) == *name
                    || record.config.net().memberships.iter().any(|member| member.network == *name)
            }
            Self::RestartPolicy(name) => record.config.restart.name() == name,
            Self::Health(word) => c.health.map_or("none", HealthStatus::name) == word,
            // Not to be told from what is listed alone.
            Self::Boot(_) => true,
            Self::Volume(name) => record
                .config
                .mounts
                .iter()
                .any(|m| m.name.as_ref() == Some(name) || m.destination == *name || m.source == *name),
        }
    }
}

/// Filters of one key are alternatives but for labels; those of different keys must all fit.
fn fits(c: &Listed, filters: &[Filter], reference: &[(String, i64)]) -> bool {
    filters.iter().all(|filter| {
        if matches!(filter, Filter::Label(..)) {
            return filter.fits(c, reference);
        }
        let kind = std::mem::discriminant(filter);
        filters.iter().filter(|f| std::mem::discriminant(*f) == kind).any(|f| f.fits(c, reference))
    })
}

fn is_image(record: &Brief, image: &str) -> bool {
    let BriefRootfs::Image { id, name } = &record.rootfs else { return false };
    let bare = name.rsplit('/').next().unwrap_or(name);
    name == image
        || bare == image
        || bare.split(':').next() == Some(image)
        || name.split(':').next() == Some(image)
        || (image.len() >= 3 && id.hex().starts_with(image.trim_start_matches("sha256:")))
}

/// Podman's word for a network mode, and ours where there is none.
pub fn network_name(mode: &NetworkMode, details: &NetworkDetails) -> String {
    match mode {
        NetworkMode::Private if details.private.fast => "fast".into(),
        NetworkMode::None => "none".into(),
        NetworkMode::Host => "host".into(),
        NetworkMode::Private => "private".into(),
        NetworkMode::Shared => "bridge".into(),
        NetworkMode::Container(id) => format!("container:{id}"),
        NetworkMode::Path(path) => format!("ns:{}", path.display()),
    }
}

/// A moment stored in nanoseconds.
pub fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Every field that a template of `ps` may name.
pub const FIELDS: &[&str] = &[
    "AutoRemove",
    "CIDFile",
    "Cgroup",
    "Command",
    "Created",
    "CreatedAt",
    "CreatedHuman",
    "ExitCode",
    "Exited",
    "ExitedAt",
    "ExposedPorts",
    "ID",
    "IPC",
    "Id",
    "Image",
    "ImageID",
    "IsInfra",
    "Labels",
    "MNT",
    "Mounts",
    "NET",
    "Names",
    "Namespaces",
    "Networks",
    "PIDNS",
    "Pid",
    "Pod",
    "PodName",
    "Ports",
    "Restarts",
    "RunningFor",
    "Size",
    "StartedAt",
    "State",
    "Status",
    "USERNS",
    "UTS",
];

/// Podman's names for the kinds of namespaces, and the kernel's.
const NAMESPACES: [(&str, &str); 7] = [
    ("Cgroup", "cgroup"),
    ("IPC", "ipc"),
    ("MNT", "mnt"),
    ("NET", "net"),
    ("PIDNS", "pid"),
    ("USERNS", "user"),
    ("UTS", "uts"),
];

/// Fields of rows: hundreds of rows are made, and some fields take time.
#[derive(Clone, Debug)]
pub struct Fields(Vec<&'static str>);

impl Fields {
    /// Those whose name occurs in a template; all where none does, so that the template is held against what
    /// there is.
    pub fn of(format: &str) -> Self {
        // A template over the whole row, as "{{json .}}" or "{{range}}", wants every field.
        let whole = format.contains(". }}") || format.contains(".}}");
        // `.Label "NAME"` is an entry of the labels.
        let spoken = |name: &&str| format.contains(*name) || *name == "Labels" && format.contains(".Label ");
        let named: Vec<_> = FIELDS.iter().copied().filter(spoken).collect();
        Self(if whole || named.is_empty() { FIELDS.to_vec() } else { named })
    }
}

impl Listed {
    fn status_text(&self, now: Timestamp) -> String {
        match &self.status {
            Status::Created => "Created".into(),
            Status::Initialized(_) => "Initialized".into(),
            Status::Running(state) => {
                let up = time::up(timestamp(state.started), now);
                self.health.map_or(up.clone(), |health| format!("{up} ({})", health.name()))
            }
            Status::Paused(_) => "Paused".into(),
            Status::Stopping(_) => "Stopping".into(),
            Status::Restarting(exit) => {
                let since = time::ago(timestamp(exit.finished), now);
                format!("Restarting ({}) {since}", exit.exit.code())
            }
            Status::Exited(exit) => {
                let code = (exit.exit != Exit::Unknown).then(|| exit.exit.code());
                time::exited(code, timestamp(exit.finished), now)
            }
        }
    }

    /// The times that Podman gives in seconds: started and ended.
    fn seconds(&self) -> (i64, i64) {
        match &self.status {
            Status::Running(state) | Status::Paused(state) | Status::Stopping(state) => {
                (state.started / 1_000_000_000, 0)
            }
            Status::Restarting(exit) | Status::Exited(exit) => {
                (exit.started / 1_000_000_000, exit.finished / 1_000_000_000)
            }
            Status::Created | Status::Initialized(_) => (0, 0),
        }
    }

    fn pid(&self) -> i32 {
        self.status.running().map_or(0, |state| state.pid)
    }

    fn exit_code(&self) -> i32 {
        match &self.status {
            Status::Restarting(exit) | Status::Exited(exit) => exit.exit.code(),
            _ => 0,
        }
    }

    /// As `ps --format json` gives it.
    pub fn json(&self, now: Timestamp) -> Value {
        let record = &self.record;
        let (started, ended) = self.seconds();
        json!({
            "AutoRemove": record.config.auto_remove,
            "Command": record.config.args().collect::<Vec<_>>(),
            "CreatedAt": time::ago(timestamp(record.created), now),
            "CIDFile": "",
            "Exited": matches!(self.status, Status::Exited(_)),
            "ExitedAt": ended,
            "ExitCode": self.exit_code(),
            "Id": record.id,
            "Image": record.image_name(),
            "ImageID": record.image_id.map(|id| id.hex()).unwrap_or_default(),
            "IsInfra": false,
            "Labels": record.config.labels,
            "Mounts": self.mounts(),
            "Names": [record.name],
            "Namespaces": self.namespaces(),
            "Networks": show::network_names(record.config.net()),
            "Pid": self.pid(),
            "Pod": "",
            "PodName": "",
            "Ports": show::ports_json(record.config.net()),
            "ExposedPorts": show::exposed_json(record.config.net()),
            "Restarts": self.status.restarts(),
            "Size": self.size.map(|(written, all)| json!({ "rootFsSize": all, "rwSize": written })),
            "StartedAt": started,
            "State": self.status.word(),
            "Status": self.status_text(now),
            "Created": record.created / 1_000_000_000,
        })
    }

    /// The numbers of the namespaces of a running container, by Podman's names for them.
    fn namespaces(&self) -> Value {
        let kinds = NAMESPACES.iter().filter(|_| self.pid() != 0);
        let all: serde_json::Map<_, _> =
            kinds.map(|(name, kind)| ((*name).to_owned(), self.namespace(kind).into())).collect();
        all.into()
    }

    fn namespace(&self, kind: &str) -> String {
        let link = match self.pid() {
            0 => return String::new(),
            pid => std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap_or_default(),
        };
        let text = link.to_string_lossy();
        text.trim_end_matches(']').rsplit('[').next().unwrap_or_default().to_owned()
    }

    fn mounts(&self) -> Vec<&str> {
        self.record.config.mounts.iter().map(|m| m.destination.as_str()).collect()
    }

    /// As a `--format` template sees it, with the fields that are wanted.
    pub fn row(&self, now: Timestamp, truncate: bool, fields: &Fields) -> Value {
        let value = |name: &&'static str| ((*name).to_owned(), self.field(name, now, truncate));
        fields.0.iter().map(value).collect::<serde_json::Map<_, _>>().into()
    }

    /// A field that is a text, as those of the usual columns are.
    pub fn text(&self, name: &str, now: Timestamp, truncate: bool) -> Option<Cow<'_, str>> {
        let record = &self.record;
        Some(match name {
            // Podman's is always empty.
            "CIDFile" => "".into(),
            "Command" => self.command(truncate),
            "Created" | "CreatedHuman" | "RunningFor" => time::ago(timestamp(record.created), now).into(),
            "ID" | "Id" if truncate => record.id.short().into(),
            "ID" | "Id" => record.id.as_str().into(),
            "Image" => record.image_name(),
            "Names" => record.name.as_str().into(),
            "Ports" => show::column(record.config.net()).into(),
            "State" => self.status.word().into(),
            "Status" => self.status_text(now).into(),
            _ => return None,
        })
    }

    /// One field of it.
    pub fn field(&self, name: &str, now: Timestamp, truncate: bool) -> Value {
        if let Some(text) = self.text(name, now, truncate) {
            return text.into();
        }
        let record = &self.record;
        match name {
            "AutoRemove" => record.config.auto_remove.into(),
            "CreatedAt" => time::go(timestamp(record.created), &jiff::tz::TimeZone::system()).into(),
            "ExitCode" => self.exit_code().into(),
            "Exited" => matches!(self.status, Status::Exited(_)).into(),
            "ExitedAt" => self.seconds().1.into(),
            "ExposedPorts" => show::exposed_json(record.config.net()),
            "ImageID" => {
                let id = record.image_id.map(|id| if truncate { id.short() } else { id.hex() });
                id.unwrap_or_default().into()
            }
            "IsInfra" => false.into(),
            "Labels" => json!(record.config.labels),
            "Mounts" => self.mounts().join(",").into(),
            "Namespaces" => self.namespaces(),
            "Size" => match self.size {
                Some((written, all)) => {
                    format!("{} (virtual {})", size::human(written), size::human(all)).into()
                }
                None => "".into(),
            },
            "Pid" => self.pid().into(),
            "Restarts" => self.status.restarts().into(),
            "StartedAt" => self.seconds().0.into(),
            "Networks" => show::network_names(record.config.net()).join(",").into(),
            // The kinds of namespaces; there are no pods.
            name => match NAMESPACES.iter().find(|(kind, _)| *kind == name) {
                Some((_, kind)) => self.namespace(kind).into(),
                None => "".into(),
            },
        }
    }

    fn command(&self, truncate: bool) -> Cow<'_, str> {
        let mut args = self.record.config.args();
        let Some(first) = args.next() else { return "".into() };
        let mut command = Cow::Borrowed(first);
        for arg in args {
            let command = command.to_mut();
            command.push(' ');
            command.push_str(arg);
        }
        if truncate && command.len() > 20 && command.chars().count() > 20 {
            return command.chars().take(17).chain("...".chars()).collect();
        }
        command
    }
}
