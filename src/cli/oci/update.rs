//! `update`: other limits for a container that is there.

use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use oci_spec::runtime::LinuxResources;
use serde_json::{Map, Value};

use super::args::{Known, Parsed, UsageError};
use super::common::{container, stored_spec};
use super::{Done, Error, Global};
use crate::base::size;
use crate::cgroup;
use crate::runtime::state::Status;
use crate::runtime::{self, config};

pub(super) const OPTIONS: &[Known] = &[
    ("resources", Some('r'), true),
    ("blkio-weight", None, true),
    ("cpu-period", None, true),
    ("cpu-quota", None, true),
    ("cpu-burst", None, true),
    ("cpu-share", None, true),
    ("cpu-idle", None, true),
    ("cpu-rt-period", None, true),
    ("cpu-rt-runtime", None, true),
    ("cpuset-cpus", None, true),
    ("cpuset-mems", None, true),
    ("kernel-memory", None, true),
    ("kernel-memory-tcp", None, true),
    ("memory", None, true),
    ("memory-reservation", None, true),
    ("memory-swap", None, true),
    ("pids-limit", None, true),
    ("l3-cache-schema", None, true),
    ("mem-bw-schema", None, true),
];

pub(super) fn update(global: &Global, parsed: &Parsed) -> Done {
    let dir = container(global, parsed, 1)?;
    // Before the lock, which whoever feeds us should not hold.
    let change = change(parsed)?;
    let _lock = dir.lock()?;
    let mut record = dir.read()?;
    let status = dir.status(&record)?.0;
    if status == Status::Stopped {
        return Err(Error::NotRunning);
    }
    let none = || Error::Ungrouped { id: record.id.clone(), what: "update" };
    let group = record.cgroup.clone().ok_or_else(none)?;
    let old = match record.resources.clone() {
        Some(resources) => resources,
        None => {
            let spec = stored_spec(&dir)?;
            spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_else(nothing)
        }
    };
    let schemata: Vec<String> = ["l3-cache-schema", "mem-bw-schema"]
        .iter()
        .filter_map(|o| given(parsed, o))
        .map(str::to_owned)
        .collect();
    if !schemata.is_empty() {
        let processes = cgroup::processes(&group)
            .map_err(|source| Error::Io { action: format!("reading \"{}\"", group.display()), source })?;
        record.cache = runtime::update_cache(&record.cache, &record.id, &processes, schemata)?;
        // Before anything else can fail: it is to be removed with the container.
        dir.write(&record)?;
    }
    record.resources = Some(cgroup::update(&group, record.unit.as_ref(), &old, &change)?);
    dir.write(&record)?;
    Ok(0)
}

/// The type's own default has a rule for devices.
fn nothing() -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources.set_devices(None);
    resources
}

/// What is to be different: from a file, or from the options.
fn change(parsed: &Parsed) -> Result<LinuxResources, Error> {
    match parsed.value("resources").filter(|file| !file.is_empty()) {
        Some(file) => from_file(file),
        None => from_options(parsed),
    }
}

fn from_file(file: &str) -> Result<LinuxResources, Error> {
    let path = PathBuf::from(file);
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().lock().read_to_end(&mut bytes).map(|_| ()),
        _ => std::fs::read(&path).map(|content| bytes = content),
    };
    read.map_err(|source| Error::Read { path: path.clone(), source })?;
    config::parse_resources(&bytes).map_err(|source| Error::Config { path, source })
}

fn from_options(parsed: &Parsed) -> Result<LinuxResources, Error> {
    let mut json = Value::Object(Map::new());
    let mut set = |group: &str, field: &str, value: Value| json[group][field] = value;
    for (option, field) in [
        ("cpu-period", "period"),
        ("cpu-burst", "burst"),
        ("cpu-share", "shares"),
        ("cpu-rt-period", "realtimePeriod"),
    ] {
        number::<u64>(parsed, option)?.into_iter().for_each(|v| set("cpu", field, v.into()));
    }
    for (option, field) in
        [("cpu-quota", "quota"), ("cpu-idle", "idle"), ("cpu-rt-runtime", "realtimeRuntime")]
    {
        number::<i64>(parsed, option)?.into_iter().for_each(|v| set("cpu", field, v.into()));
    }
    for (option, field) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        given(parsed, option).into_iter().for_each(|v| set("cpu", field, v.into()));
    }
    for (option, field) in [
        ("memory", "limit"),
        ("memory-swap", "swap"),
        ("memory-reservation", "reservation"),
        ("kernel-memory", "kernel"),
        ("kernel-memory-tcp", "kernelTCP"),
    ] {
        bytes(parsed, option)?.into_iter().for_each(|v| set("memory", field, v.into()));
    }
    number::<u16>(parsed, "blkio-weight")?.into_iter().for_each(|v| set("blockIO", "weight", v.into()));
    number::<i64>(parsed, "pids-limit")?.into_iter().for_each(|v| set("pids", "limit", v.into()));
    config::parse_resources(json.to_string().as_bytes())
        .map_err(|source| Error::Config { path: "the options".into(), source })
}

fn given<'a>(parsed: &'a Parsed, option: &str) -> Option<&'a str> {
    parsed.value(option).filter(|value| !value.is_empty())
}

fn invalid(option: &'static str, value: &str) -> UsageError {
    UsageError::Invalid { option, value: value.to_owned() }
}

fn number<T: FromStr>(parsed: &Parsed, option: &'static str) -> Result<Option<T>, UsageError> {
    given(parsed, option).map(|text| text.parse().map_err(|_| invalid(option, text))).transpose()
}

/// A size like `64m`, or -1 for none.
fn bytes(parsed: &Parsed, option: &'static str) -> Result<Option<i64>, UsageError> {
    let parse = |text: &str| match text {
        "-1" => Ok(-1),
        _ => size::parse(text).ok().and_then(|n| i64::try_from(n).ok()).ok_or_else(|| invalid(option, text)),
    };
    given(parsed, option).map(parse).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::oci::args;

    fn of(text: &str) -> Result<Value, Error> {
        let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let (parsed, _) = args::parse(&words, OPTIONS, false, None)?;
        Ok(serde_json::to_value(change(&parsed)?).unwrap())
    }

    #[test]
    fn options_become_resources() {
        let value = of(
            "--memory 64m --memory-swap=-1 --cpu-quota 5000 --cpuset-cpus 0-1 --pids-limit 9 --blkio-weight 20 id",
        );
        let expected = serde_json::json!({"memory": {"limit": 64 << 20, "swap": -1}, "cpu": {"quota": 5000, "cpus": "0-1"},
            "pids": {"limit": 9}, "blockIO": {"weight": 20}});
        assert_eq!(value.unwrap(), expected);
        assert_eq!(of("id").unwrap(), serde_json::json!({}));
        for bad in ["--memory x", "--cpu-share -1", "--blkio-weight 70000"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
