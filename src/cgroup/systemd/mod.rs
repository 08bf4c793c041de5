//! Groups that systemd makes: a scope for each container (systemd.scope(5)), asked for over D-Bus.
//!
//! systemd may keep a tree to itself; who lets it make a container's group does not come into its way,
//! and an ordinary user gets controllers delegated. Needs systemd 244, and a bus or systemd's own
//! socket. Device rules are not handed over: our own program at the group says all, and systemd leaves
//! it alone.

mod annotations;
mod bus;
mod message;
mod properties;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use self::bus::Bus;
use self::message::Value;
use super::resources::Setting;

/// An error in talking with systemd.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No bus.
    #[error("connecting to systemd over the {which} bus")]
    Connect {
        /// "user" or "system".
        which: &'static str,
        /// Why the last one that was tried did not answer.
        #[source]
        source: io::Error,
    },
    /// The bus went away, or does not talk D-Bus.
    #[error("talking with systemd ({member})")]
    Talk {
        /// What was being asked for.
        member: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// systemd said no.
    #[error("systemd refuses {member}: {text} ({name})")]
    Refused {
        /// What was being asked for.
        member: String,
        /// The error's name.
        name: String,
        /// Its text.
        text: String,
    },
    /// systemd tried and failed.
    #[error("systemd's job for unit \"{unit}\" ended with \"{result}\"")]
    Job {
        /// The unit.
        unit: String,
        /// `failed`, `canceled`, `timeout`, …
        result: String,
    },
    /// The path is not in systemd's form.
    #[error("cgroup path \"{}\": {reason}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// An annotation that makes no property.
    #[error("annotation \"{name}\": {reason}")]
    Annotation {
        /// Its name.
        name: String,
        /// Why not.
        reason: &'static str,
    },
    /// The unit is there, its group cannot be found.
    #[error("finding the control group of unit \"{0}\"")]
    Lost(String),
}

/// A unit that systemd made for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, `….scope`.
    pub name: String,
    /// It is the user's manager's, not the machine's.
    pub user: bool,
}

impl Unit {
    /// The unit that a group belongs to, if it is one that we have systemd make for a container without a place
    /// of its own name: no other group of ours has such a name.
    pub fn of(group: &Path) -> Option<Self> {
        let name = group.file_name()?.to_str()?;
        let ours = name.starts_with("umiak-") && name.ends_with(".scope");
        ours.then(|| Self { name: name.to_owned(), user: !super::is_real_root() })
    }
}

/// Whether a systemd that the caller may ask seems to be there: its socket is, or an address is given.
pub(super) fn is_reachable(user: bool) -> bool {
    bus::addresses(user).iter().any(bus::Address::is_there)
}

/// Where a unit goes and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub slice: String,
    pub name: String,
    /// It is the user's manager's.
    pub user: bool,
    /// What the configuration asks for by annotations.
    properties: Vec<(String, Value)>,
}

/// Reads `slice:prefix:name`. Without one: `umiak-ID.scope` in systemd's usual slice.
pub(super) fn place(
    wanted: Option<&Path>,
    id: &str,
    user: bool,
    annotations: Option<&HashMap<String, String>>,
) -> Result<Place, Error> {
    let properties = annotations.map(annotations::properties).transpose()?.unwrap_or_default();
    let usual = if user { "user.slice" } else { "system.slice" };
    let Some(wanted) = wanted.filter(|path| !path.as_os_str().is_empty()) else {
        return Ok(Place { slice: usual.to_owned(), name: format!("umiak-{id}.scope"), user, properties });
    };
    let error = |reason| Error::Path { path: wanted.to_owned(), reason };
    let text = wanted.to_str().ok_or_else(|| error("it is not UTF-8"))?;
    let parts: Vec<&str> = text.split(':').collect();
    let [slice, prefix, name] = parts[..] else {
        return Err(error("the systemd cgroup manager expects \"slice:prefix:name\""));
    };
    if name.is_empty() || text.contains('/') {
        return Err(error("a part of it has a slash, or the name is empty"));
    }
    let slice = match slice {
        "" => usual,
        // The root slice.
        "-" | "-.slice" => "-.slice",
        other if other.ends_with(".slice") && other.len() > ".slice".len() => other,
        _ => return Err(error("its first part is no slice")),
    };
    if name.ends_with(".slice") {
        return Err(error("a slice as a container's own unit is not supported yet"));
    }
    let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
    Ok(Place { slice: slice.to_owned(), name, user, properties })
}

/// Starts a container's scope with processes in it, the first of which tells where it is; returns the group's path below the tree's root. With
/// `replace` a scope of that name is what the container's run before left, and ended first.
pub(super) fn start(
    place: &Place,
    id: &str,
    pids: &[i32],
    settings: &[Setting],
    replace: bool,
) -> Result<PathBuf, Error> {
    let mut bus = Bus::connect(place.user)?;
    let yes = || Value::Bool(true);
    let mut list = vec![
        ("Description".to_owned(), Value::text(format!("container {id}"))),
        ("Slice".to_owned(), Value::text(place.slice.as_str())),
        ("PIDs".to_owned(), Value::Array("u", pids.iter().map(|pid| Value::U32(*pid as u32)).collect())),
        ("Delegate".to_owned(), yes()),
        ("MemoryAccounting".to_owned(), yes()),
        ("CPUAccounting".to_owned(), yes()),
        ("IOAccounting".to_owned(), yes()),
        ("TasksAccounting".to_owned(), yes()),
        ("DefaultDependencies".to_owned(), Value::Bool(false)),
        // A container that fails leaves no failed unit behind that its name could not be used again for.
        ("CollectMode".to_owned(), Value::text("inactive-or-failed")),
    ];
    list.extend(properties::properties(settings));
    if replace && !list.iter().any(|(name, _)| name == "TasksMax") {
        // systemd's own DefaultTasksMax= is a limit that nobody asked for.
        list.push(("TasksMax".to_owned(), Value::U64(u64::MAX)));
    }
    // What the configuration says itself comes in place of ours: systemd sets up names once.
    list.retain(|(name, _)| place.properties.iter().all(|(own, _)| own != name));
    list.extend(place.properties.iter().cloned());
    let arguments = || {
        vec![
            Value::text(place.name.as_str()),
            Value::text("fail"),
            Value::properties(&list),
            // Auxiliary units: none.
            Value::Array("(sa(sv))", Vec::new()),
        ]
    };
    let job = match bus.manager("StartTransientUnit", arguments()) {
        // What another runtime, or an older systemd, left after a failure.
        Err(Error::Refused { name, .. }) if name.ends_with(".UnitExists") => {
            let name = || Value::text(place.name.as_str());
            if replace && let Ok(job) = bus.manager("StopUnit", vec![name(), Value::text("replace")]) {
                let job = job.text(0).unwrap_or_default().to_owned();
                bus.job_result(&job)?;
            }
            let _ = bus.manager("ResetFailedUnit", vec![name()]);
            bus.manager("StartTransientUnit", arguments())?
        }
        other => other?,
    };
    let lost = || Error::Lost(place.name.clone());
    let result = bus.job_result(job.text(0).ok_or_else(lost)?)?;
    if result != "done" {
        return Err(Error::Job { unit: place.name.clone(), result });
    }
    let pid = pids.first().copied().unwrap_or_default();
    let group = super::tree::group_of(&pid.to_string()).ok_or_else(lost)?;
    // The process may have ended meanwhile, or the manager not be allowed to move it.
    if group.file_name().is_some_and(|name| name == place.name.as_str()) { Ok(group) } else { Err(lost()) }
}

/// Changes a scope's properties, until it ends.
pub(super) fn set(unit: &Unit, settings: &[Setting]) -> Result<(), Error> {
    let list = properties::properties(settings);
    if list.is_empty() {
        return Ok(());
    }
    let arguments = vec![Value::text(unit.name.as_str()), Value::Bool(true), Value::properties(&list)];
    Bus::connect(unit.user)?.manager("SetUnitProperties", arguments).map(|_| ())
}

/// Moves a process into a scope's group. A user's systemd, which may not do that itself, has the machine's do it.
pub(super) fn attach(unit: &Unit, pid: i32) -> Result<(), Error> {
    let pids = Value::Array("u", vec![Value::U32(pid as u32)]);
    let arguments = vec![Value::text(unit.name.as_str()), Value::text(""), pids];
    Bus::connect(unit.user)?.manager("AttachProcessesToUnit", arguments).map(|_| ())
}

/// Stops a scope, which ends what is in it; one that is gone is no error.
pub(super) fn stop(unit: &Unit) -> Result<(), Error> {
    let mut bus = Bus::connect(unit.user)?;
    let name = || Value::text(unit.name.as_str());
    match bus.manager("StopUnit", vec![name(), Value::text("replace")]) {
        Err(Error::Refused { name, .. }) if name.ends_with(".NoSuchUnit") => return Ok(()),
        Err(error) => return Err(error),
        Ok(job) => {
            let job = job.text(0).unwrap_or_default().to_owned();
            bus.job_result(&job)?;
        }
    }
    // Only if it has failed, and that is forgotten by itself.
    let _ = bus.manager("ResetFailedUnit", vec![name()]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_runc_reads_them() {
        let of = |text: &str, user| place(Some(Path::new(text)), "id", user, None).map(|p| (p.slice, p.name));
        let is = |slice: &str, name: &str| (slice.to_owned(), name.to_owned());
        assert_eq!(of("a-b.slice:libpod:x", false).unwrap(), is("a-b.slice", "libpod-x.scope"));
        assert_eq!(of(":libpod:x", true).unwrap(), is("user.slice", "libpod-x.scope"));
        assert_eq!(of("-::x", false).unwrap(), is("-.slice", "x.scope"));
        assert_eq!(of("", false).unwrap(), is("system.slice", "umiak-id.scope"));
        for bad in ["/a/b", "a:b:c", "a.slice:b", "a.slice:b:", "a/b.slice:c:d", ".slice:a:b", "::x.slice"] {
            assert!(of(bad, false).is_err(), "{bad}");
        }
    }
}
