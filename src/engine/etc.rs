//! Files in a container's `/etc` that are ours: hosts, hostname, resolv.conf, localtime, and lines of passwd
//! and group for those who are to be known in it.

use std::fs;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::config::names::HOST_GATEWAY;
use super::environment::expand;
use super::files::with_ids;
use super::ids::APT_CONFIG;
use super::network::host::{HostNetwork, Resolver};
use super::network::plan::{HOST_NAMES, Texts, plain_resolv};
use super::{Engine, Error, config};
use crate::base::idmap::IdMapping;
use crate::security::passwd;
use crate::storage::containers::{ContainerRecord, DnsRecord, EtcFiles, HostsBase, NetworkMode, UsernsMode};
use crate::sys::{child, copy, host, merged, mount};

/// More of a file is not read.
const LARGEST: u64 = 4 << 20;

impl Engine {
    /// Writes the files that are bound over those in `/etc`: the place in the container, the file.
    pub(super) fn write_files(&self, record: &ContainerRecord) -> Result<Vec<(String, PathBuf)>, Error> {
        let config = &record.config;
        let dir = self.containers.dir(&record.id);
        let network = self.network_of(record)?.map(|(_, texts)| texts);
        let mut texts: Vec<(&str, &str, Vec<u8>)> = Vec::with_capacity(6);
        if let Some(hosts) = self.hosts(record, network.as_ref())? {
            texts.push(("hosts", "/etc/hosts", hosts));
        }
        if let Some(resolv) = self.resolv(record, network)? {
            texts.push(("resolv.conf", "/etc/resolv.conf", resolv.into_bytes()));
        }
        if !config.etc.no_hostname {
            texts.push(("hostname", "/etc/hostname", format!("{}\n", config.hostname).into_bytes()));
        }
        texts.push(("containerenv", "/run/.containerenv", Vec::new()));
        if config.one_id.apt {
            texts.push(("apt.conf", APT_CONFIG, b"APT::Sandbox::User \"root\";\n".to_vec()));
        }
        if let Some(zone) = &config.etc.tz {
            texts.push(("localtime", "/etc/localtime", time_zone(zone)?));
        }
        if let Some((passwd, group)) = self.user_files(record)? {
            texts.extend(passwd.map(|text| ("passwd", "/etc/passwd", text)));
            texts.extend(group.map(|text| ("group", "/etc/group", text)));
        }
        let mut files = Vec::with_capacity(texts.len());
        let other_ids = self.has_other_ids(record);
        for (name, place, text) in texts {
            let path = dir.join(name);
            if other_ids {
                // It belongs to the container's root since the last start, and is not ours to write.
                let _ = fs::remove_file(&path);
            }
            fs::write(&path, text).map_err(|source| Error::File {
                action: "writing",
                path: path.clone(),
                source,
            })?;
            for chroot in &config.etc.chroot_dirs {
                files.push((format!("{}{place}", chroot.trim_end_matches('/')), path.clone()));
            }
            files.push((place.to_owned(), path));
        }
        if other_ids {
            self.give_to_root(record, files.iter().map(|(_, path)| path.as_path()))?;
        }
        Ok(files)
    }

    /// Gives files to the container's root. The user of the host may be somebody else in there, who is not
    /// to write them, or nobody.
    pub(super) fn give_to_root<'a>(
        &self,
        record: &ContainerRecord,
        files: impl Iterator<Item = &'a Path> + Clone,
    ) -> Result<(), Error> {
        let Some((uid, gid)) = self.owner_outside(record, 0, 0) else { return Ok(()) };
        if files.clone().next().is_none() {
            return Ok(());
        }
        let give = || {
            files.clone().try_for_each(|path| {
                std::os::unix::fs::chown(path, Some(uid), Some(gid))
                    .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
            })
        };
        self.outside(record, "giving files to the root of container", give)
    }

    /// Does something with a container's files where their ids are known.
    fn outside(
        &self,
        record: &ContainerRecord,
        action: &'static str,
        work: impl FnOnce() -> Result<(), i32>,
    ) -> Result<(), Error> {
        let name = || record.name.clone();
        child::call(self.files_mapping(record).as_ref(), work)
            .map_err(|source| Error::FilesOfOthers { action, name: name(), source })?
            .map_err(|errno| Error::Files {
                action,
                name: name(),
                source: io::Error::from_raw_os_error(errno),
            })
    }

    /// Gives all below a directory to the container's user, from outside: in there the files may be nobody's,
    /// and then nobody may give them away.
    pub(super) fn give_to_user(&self, record: &ContainerRecord, path: &Path) -> Result<(), Error> {
        let read = |name| Ok::<_, Error>(self.read_inside(record, name)?.unwrap_or_default());
        let user = &record.config.user;
        let identity = passwd::resolve(user, &read("passwd")?, &read("group")?);
        let identity = identity.map_err(|source| Error::UnknownUser { user: user.clone(), source })?;
        let owner = self.owner_outside(record, identity.uid, identity.gid);
        let owner = owner.ok_or_else(|| Error::UnmappedUser(user.clone()))?;
        self.outside(record, "giving a mount to the user of container", || {
            let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
            let opened = mount::open_path(path).map_err(|error| error.raw_os_error())?;
            copy::give(opened, owner).map_err(errno)
        })
    }

    /// Has the network's files of a container that runs say what is so now, in place of what was so before. Lines
    /// that the container has written itself stay.
    pub(in crate::engine) fn rewrite_files(
        &self,
        (old, before): (&ContainerRecord, &Texts),
        (new, after): (&ContainerRecord, &Texts),
    ) -> Result<(), Error> {
        let resolv = |texts: &Texts| texts.resolv.clone().map(String::into_bytes);
        for (name, before, after) in [
            ("hosts", self.hosts(old, Some(before))?, self.hosts(new, Some(after))?),
            ("resolv.conf", resolv(before), resolv(after)),
        ] {
            if let (Some(before), Some(after)) = (before, after)
                && before != after
            {
                self.amend_file(new, name, &before, &after)?;
            }
        }
        Ok(())
    }

    fn amend_file(&self, record: &ContainerRecord, name: &str, old: &[u8], new: &[u8]) -> Result<(), Error> {
        let path = self.containers.dir(&record.id).join(name);
        let amend = || {
            let mut file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
            let mut text = Vec::new();
            Read::by_ref(&mut file).take(LARGEST).read_to_end(&mut text)?;
            let text = amended(&text, old, new);
            // The container has this file, and would not see another one of its name.
            file.write_all_at(&text, 0)?;
            file.set_len(text.len() as u64)
        };
        if self.has_other_ids(record) {
            let errno = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
            return self.outside(record, "writing files of container", || amend().map_err(errno));
        }
        amend().map_err(|source| Error::File { action: "writing", path: path.clone(), source })
    }

    /// The text of `/etc/resolv.conf`; none if the image's own stays.
    fn resolv(&self, record: &ContainerRecord, network: Option<Texts>) -> Result<Option<String>, Error> {
        let config = &record.config;
        let dns = &config.net.dns;
        match (&config.network, network) {
            (_, Some(texts)) => Ok(texts.resolv),
            (NetworkMode::Container(other), _) => {
                let path = self.containers.dir(other).join("resolv.conf");
                Ok(Some(fs::read_to_string(path).unwrap_or_default()))
            }
            _ if dns.untouched => Ok(None),
            // Nobody could be asked.
            (NetworkMode::None, _) if *dns == DnsRecord::default() => Ok(Some(String::new())),
            (NetworkMode::Host, _) if *dns == DnsRecord::default() => {
                Ok(Some(fs::read_to_string("/etc/resolv.conf").unwrap_or_default()))
            }
            _ => {
                let host = HostNetwork { resolver: Resolver::read(), ..HostNetwork::default() };
                Ok(plain_resolv(dns, &host))
            }
        }
    }

    /// The text of `/etc/hosts`; none if the image's own stays.
    fn hosts(&self, record: &ContainerRecord, network: Option<&Texts>) -> Result<Option<Vec<u8>>, Error> {
        let config = &record.config;
        let host_network = config.network == NetworkMode::Host;
        if let NetworkMode::Container(other) = &config.network {
            return Ok(Some(fs::read(self.containers.dir(other).join("hosts")).unwrap_or_default()));
        }
        let EtcFiles { hosts, add_hosts, .. } = &config.etc;
        let usual = "127.0.0.1\tlocalhost localhost.localdomain\n::1\tlocalhost localhost.localdomain\n";
        let mut text = match hosts {
            HostsBase::Untouched => return Ok(None),
            HostsBase::None => usual.as_bytes().to_vec(),
            HostsBase::Usual if host_network => fs::read("/etc/hosts").unwrap_or_default(),
            HostsBase::Usual => Vec::new(),
            HostsBase::Image => self.read_inside(record, "hosts")?.unwrap_or_default(),
            HostsBase::File(path) => config::read_file("hosts-file", path)?.into_bytes(),
        };
        if text.is_empty() {
            text = usual.as_bytes().to_vec();
        }
        if text.last() != Some(&b'\n') {
            text.push(b'\n');
        }
        // What is asked for comes before what others say of the same name.
        let reached = match network {
            Some(texts) => texts.host,
            None if host_network => Some(Ipv4Addr::LOCALHOST.into()),
            None => None,
        };
        let mut own = String::new();
        for line in add_hosts {
            match line.strip_prefix(HOST_GATEWAY) {
                Some(names) => {
                    let address = reached.ok_or(super::network::Error::NoHostAddress)?;
                    own += &format!("{address}{names}\n");
                }
                None => own += &format!("{line}\n"),
            }
        }
        text.splice(0..0, own.into_bytes());
        let loopback = [Ipv4Addr::LOCALHOST.into()];
        let addresses = match network {
            Some(texts) => &texts.own[..],
            None if host_network => &[],
            None => &loopback,
        };
        let mut lines: String =
            addresses.iter().map(|at| format!("{at}\t{} {}\n", config.hostname, record.name)).collect();
        if let Some(address) = network.and_then(|texts| texts.host) {
            lines += &format!("{address}\t{}\n", HOST_NAMES.join(" "));
        }
        text.extend(lines.into_bytes());
        Ok(Some(text))
    }

    /// A file of the container's `/etc` as it lies in its layers, if it is a regular one.
    pub(super) fn read_inside(&self, record: &ContainerRecord, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let files = self.files(record);
        let mapping = self.files_mapping(record);
        let trees: Vec<merged::Tree> = if files.copied {
            vec![files.upper]
        } else {
            std::iter::once(files.upper).chain(files.lower).collect()
        };
        with_ids(mapping.as_ref(), ("reading a file of", &record.name), || {
            merged::read(&trees, &["etc", name], LARGEST)
        })
    }

    /// New texts of `/etc/passwd` and `/etc/group`, where somebody has to be made known. Nothing is read for
    /// who is known for sure: root, and users by name.
    #[allow(clippy::type_complexity, reason = "two files that each may be left as they are")]
    fn user_files(
        &self,
        record: &ContainerRecord,
    ) -> Result<Option<(Option<Vec<u8>>, Option<Vec<u8>>)>, Error> {
        let config = &record.config;
        let who = &config.who;
        let user = config.user.split(':').next().unwrap_or_default();
        let keep_id = config.userns == UsernsMode::KeepId;
        let numbered = user.parse::<u32>().ok().filter(|uid| *uid != 0);
        let told = who.passwd_entry.is_some() || who.group_entry.is_some();
        if who.unlisted || !(numbered.is_some() || keep_id || told || !who.hostusers.is_empty()) {
            return Ok(None);
        }
        let passwd = self.read_inside(record, "passwd")?;
        let group = self.read_inside(record, "group")?;
        // A link, or none at all: what it would mean to cover it nobody knows.
        let (Some(mut passwd), Some(mut group)) = (passwd, group) else { return Ok(None) };
        let before = (passwd.len(), group.len());
        for line in &who.hostusers {
            let known = passwd::users(line.as_bytes()).next();
            let there = |user: &passwd::User| {
                passwd::users(&passwd).any(|other| other.name == user.name || other.uid == user.uid)
            };
            if known.is_some_and(|user| !there(&user)) {
                append(&mut passwd, line);
            }
        }
        let kept = if keep_id { kept_user(record) } else { None };
        let mut entries: Vec<(String, u32, u32, String, String)> = Vec::new();
        if let Some((uid, gid, name, gecos, home)) = kept {
            let inside = config.mounts.iter().any(|mount| Path::new(&home).starts_with(&mount.destination));
            let home = if inside { home } else { config.workdir.clone() };
            entries.push((name, uid, gid, gecos, home));
        }
        if let Some(uid) = numbered.filter(|uid| entries.iter().all(|entry| entry.1 != *uid)) {
            let gid = config.user.split_once(':').and_then(|(_, group)| group.parse().ok()).unwrap_or(0);
            entries.push((uid.to_string(), uid, gid, "container user".to_owned(), config.workdir.clone()));
        }
        for (name, uid, gid, gecos, home) in entries {
            let known = passwd::users(&passwd).any(|user| user.uid == uid || user.name == name.as_bytes());
            if !known {
                let line = match &who.passwd_entry {
                    None => format!("{name}:*:{uid}:{gid}:{gecos}:{home}:/bin/sh"),
                    Some(template) => fill(
                        template,
                        &[
                            ("USERNAME", &name),
                            ("UID", &uid.to_string()),
                            ("GID", &gid.to_string()),
                            ("NAME", &gecos),
                            ("HOME", &home),
                        ],
                    ),
                };
                append(&mut passwd, &line);
            }
            // Who has no name but a number has a group of the like.
            let whose = if name.parse::<u32>().is_ok() { gid.to_string() } else { name.clone() };
            let known =
                passwd::groups(&group).any(|other| other.gid == gid || other.name == whose.as_bytes());
            if !known {
                let line = match &who.group_entry {
                    None => format!("{whose}:x:{gid}:{name}"),
                    Some(template) => fill(
                        template,
                        &[("GROUPNAME", &whose), ("GID", &gid.to_string()), ("USERLIST", &name)],
                    ),
                };
                append(&mut group, &line);
            }
        }
        Ok(Some(((passwd.len() > before.0).then_some(passwd), (group.len() > before.1).then_some(group))))
    }
}

/// The user of `keep-id` as the container knows it: ids inside, name, full name, home.
fn kept_user(record: &ContainerRecord) -> Option<(u32, u32, String, String, String)> {
    let mapping = record.mapping.as_ref()?;
    let uid = IdMapping::to_container(&mapping.uids, host::uid())?;
    let gid = IdMapping::to_container(&mapping.gids, host::gid())?;
    let file = fs::read("/etc/passwd").ok()?;
    let line = String::from_utf8_lossy(passwd::line_of(&host::uid().to_string(), &file)?).into_owned();
    let fields: Vec<&str> = line.split(':').collect();
    let field = |at: usize| fields.get(at).copied().unwrap_or_default().to_owned();
    (uid != 0).then(|| (uid, gid, field(0), field(4), field(5)))
}

/// A text of lines after what it is made of has changed: lines of the old one that are not in the new one go,
/// those that are only in the new one come.
fn amended(current: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    if current == old {
        return new.to_vec();
    }
    let lines = |text: &[u8]| {
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(<[u8]>::to_vec)
            .collect::<Vec<_>>()
    };
    let (old, new) = (lines(old), lines(new));
    let mut all = lines(current);
    all.retain(|line| !old.contains(line) || new.contains(line));
    all.extend(new.into_iter().filter(|line| !old.contains(line)));
    all.into_iter().flat_map(|line| [line, b"\n".to_vec()].concat()).collect()
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let value = |name: &str| values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
    expand(template.trim_end(), &|name| value(name).to_owned())
}

fn append(file: &mut Vec<u8>, line: &str) {
    if !file.is_empty() && file.last() != Some(&b'\n') {
        file.push(b'\n');
    }
    file.extend(line.bytes());
    file.push(b'\n');
}

fn time_zone(zone: &str) -> Result<Vec<u8>, Error> {
    let path = match zone {
        "local" => PathBuf::from("/etc/localtime"),
        zone => Path::new(config::ZONES).join(zone),
    };
    match fs::read(&path) {
        // A host without the file keeps universal time, and so does its container.
        Err(error) if zone == "local" && error.kind() == io::ErrorKind::NotFound => {
            fs::read(Path::new(config::ZONES).join("UTC")).or(Ok(Vec::new()))
        }
        other => other.map_err(|source| Error::File { action: "reading", path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_has_written_itself_stays() {
        let (old, new) = (b"1 localhost\n2 me\n", b"1 localhost\n2 me\n3 me\n");
        assert_eq!(amended(old, old, new), new);
        assert_eq!(amended(new, new, old), old);
        let own = b"1 localhost\n9 other\n2 me\n";
        assert_eq!(amended(own, old, new), b"1 localhost\n9 other\n2 me\n3 me\n");
        assert_eq!(amended(b"9 other\n2 me", old, b"1 localhost\n"), b"9 other\n");
        assert_eq!(amended(b"", old, b""), b"");
    }

    #[test]
    fn entries_are_filled_in() {
        let values = [("USERNAME", "me"), ("UID", "5")];
        assert_eq!(fill("$USERNAME:x:${UID}:$$:$NONE!\n", &values), "me:x:5:$$:!");
        let mut file = b"a:b".to_vec();
        append(&mut file, "c:d");
        assert_eq!(file, b"a:b\nc:d\n");
    }
}
