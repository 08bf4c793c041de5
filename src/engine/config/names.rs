//! Flags about namespaces and the names in them.

use std::net::IpAddr;

use super::{Error, Surroundings, flag, read_file};
use crate::base::id::ContainerId;
use crate::engine::request::RunRequest;
use crate::storage::containers::{ContainerRecord, EtcFiles, HostsBase, NamespaceMode, NetworkMode};

/// One of `--pid`, `--ipc`, `--uts` and `--cgroupns`.
pub(super) fn namespace(
    name: &'static str,
    value: Option<&str>,
    around: &Surroundings<'_>,
) -> Result<NamespaceMode, Error> {
    match value {
        None | Some("" | "private") => Ok(NamespaceMode::Private),
        // What is shared with other containers is asked for by them.
        Some("shareable" | "none") if name == "ipc" => Ok(NamespaceMode::Private),
        Some("host") => Ok(NamespaceMode::Host),
        Some(value) => match value.split_once(':') {
            Some(("container", other)) => {
                Ok(NamespaceMode::Container(container(name, value, other, around)?.id))
            }
            Some(("ns", path)) if path.starts_with('/') => Ok(NamespaceMode::Path(path.into())),
            Some(("ns", _)) => Err(flag(name, value, "the path of a namespace is absolute")),
            _ => Err(flag(name, value, "it takes private, host, container:NAME or ns:PATH")),
        },
    }
}

/// The container that a flag names.
pub(super) fn container(
    name: &'static str,
    value: &str,
    other: &str,
    around: &Surroundings<'_>,
) -> Result<ContainerRecord, Error> {
    (around.find)(other).map_err(|why| flag(name, value, why))
}

/// `--hostname`, or what stands for it.
pub(super) fn hostname(
    request: &RunRequest,
    network: &NetworkMode,
    uts: &NamespaceMode,
    around: &Surroundings<'_>,
) -> Result<String, Error> {
    match (&request.hostname, uts) {
        (Some(name), NamespaceMode::Host) => {
            Err(flag("hostname", name, "it cannot be set together with --uts host"))
        }
        (Some(name), NamespaceMode::Container(_) | NamespaceMode::Path(_)) => {
            Err(flag("hostname", name, "it cannot be set in somebody else's uts namespace"))
        }
        // HOST_NAME_MAX of Linux.
        (Some(name), _)
            if name.len() > 64 || name.is_empty() || name.contains(|c: char| c == '/' || c.is_control()) =>
        {
            Err(flag("hostname", name, "a hostname has 1 to 64 characters and no slash"))
        }
        (Some(name), _) => Ok(name.clone()),
        (None, NamespaceMode::Container(id)) => {
            Ok((around.find)(id.as_str()).map_or_else(|_| around.short_id.into(), |r| r.config.hostname))
        }
        (None, NamespaceMode::Host) => Ok(around.host_name.into()),
        (None, _) if *network == NetworkMode::Host => Ok(around.host_name.into()),
        (None, _) => Ok(around.short_id.into()),
    }
}

/// `--domainname`.
pub(super) fn domainname(request: &RunRequest, uts: &NamespaceMode) -> Result<String, Error> {
    match &request.domainname {
        None => Ok(String::new()),
        Some(name) if *uts != NamespaceMode::Private => {
            Err(flag("domainname", name, "it needs a uts namespace of the container's own"))
        }
        Some(name) if name.is_empty() || name.len() > 64 || name.contains(char::is_control) => {
            Err(flag("domainname", name, "a domain name has 1 to 64 characters"))
        }
        Some(name) => Ok(name.clone()),
    }
}

/// Files in `/etc` that are ours.
pub(super) fn etc_files(request: &RunRequest, around: &Surroundings<'_>) -> Result<EtcFiles, Error> {
    let hosts = match (request.hosts_file.as_deref(), request.no_hosts) {
        (Some(file), true) => {
            return Err(flag("hosts-file", file, "it cannot be used together with --no-hosts"));
        }
        (None, true) => HostsBase::Untouched,
        (None | Some(""), false) => HostsBase::Usual,
        (Some("none"), false) => HostsBase::None,
        (Some("image"), false) => HostsBase::Image,
        (Some(path), false) => {
            let path = around.cwd.join(path);
            read_file("hosts-file", &path)?;
            HostsBase::File(path)
        }
    };
    if let (HostsBase::Untouched, Some(entry)) = (&hosts, request.add_hosts.first()) {
        return Err(flag("add-host", entry, "it cannot be used together with --no-hosts"));
    }
    let absolute = |dir: &String| {
        if dir.starts_with('/') {
            Ok(crate::engine::mounts::clean(dir))
        } else {
            Err(flag("chrootdirs", dir, "a directory of the container is an absolute path"))
        }
    };
    Ok(EtcFiles {
        hosts,
        add_hosts: request.add_hosts.iter().map(|entry| host_line(entry)).collect::<Result<_, _>>()?,
        no_hostname: request.no_hostname,
        tz: request.tz.as_deref().map(time_zone).transpose()?,
        chroot_dirs: request.chrootdirs.iter().map(absolute).collect::<Result<_, _>>()?,
    })
}

/// Stands for the host's address in `--add-host`, which is known when the container starts.
pub(in crate::engine) const HOST_GATEWAY: &str = "host-gateway";

/// `NAME[;NAME…]:ADDRESS` as a line of `/etc/hosts`.
fn host_line(entry: &str) -> Result<String, Error> {
    let bad = |why: &str| flag("add-host", entry, why);
    let (names, address) = entry.split_once(':').ok_or_else(|| bad("it takes NAME[;NAME…]:ADDRESS"))?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address != HOST_GATEWAY {
        address.parse::<IpAddr>().map_err(|_| bad(&format!("\"{address}\" is no address")))?;
    }
    let names: Vec<&str> = names.split(';').collect();
    let sound = |name: &&str| {
        !name.is_empty()
            && name.len() <= 253
            && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#')
    };
    if !names.iter().all(sound) {
        return Err(bad("a host's name is missing, or has characters that none has"));
    }
    Ok(format!("{address}\t{}", names.join(" ")))
}

/// Where the files of time zones are.
pub(in crate::engine) const ZONES: &str = "/usr/share/zoneinfo";

/// A name that is not there is told now rather than at the start.
fn time_zone(zone: &str) -> Result<String, Error> {
    if zone == "local" {
        return Ok(zone.to_owned());
    }
    let plain = zone.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    let is_zone = || std::fs::metadata(format!("{ZONES}/{zone}")).is_ok_and(|file| file.is_file());
    if plain && !zone.contains('\0') && is_zone() {
        Ok(zone.to_owned())
    } else {
        Err(flag("tz", zone, format!("there is no such time zone in {ZONES}; \"local\" is the host's")))
    }
}

/// `--requires`.
pub(super) fn requires(request: &RunRequest, around: &Surroundings<'_>) -> Result<Vec<ContainerId>, Error> {
    request.requires.iter().map(|text| Ok(container("requires", text, text, around)?.id)).collect()
}
