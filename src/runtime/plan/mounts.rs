//! Mounts of a spec (`config.md`, "Mounts"; mount(8) for the options).

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;

use super::namespaces::{check_ranges, ranges};
use super::{PlanError, invalid, propagation_word, unsupported};
use crate::base::idmap::{IdMapping, IdRange};
use crate::runtime::MountDetails;
use crate::sys::mount::{Attributes, Filesystem, Propagation, attr};

/// What mounts depend on beside themselves.
pub(super) struct Context<'a> {
    /// Relative sources are relative to it.
    pub bundle: &'a Path,
    /// Of the new user namespace.
    pub mapping: Option<&'a IdMapping>,
    /// The pid namespace is the container's own.
    pub own_pid: bool,
    /// The cgroup namespace is.
    pub own_cgroup: bool,
    /// The init has less power over the host's files than its maker: what it binds is opened by
    /// that one.
    pub weak_init: bool,
    /// `linux.mountLabel`: the SELinux label of file systems that are made for the container.
    pub label: Option<&'a str>,
    /// More about mounts, by destination.
    pub details: Option<&'a HashMap<PathBuf, MountDetails>>,
}

/// One mount in the rootfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOp {
    /// Absolute, in the container.
    pub target: PathBuf,
    /// What is mounted there.
    pub kind: MountKind,
    /// Attributes of the mount.
    pub attributes: Attributes,
    /// Attributes of it and all below it.
    pub recursive_attributes: Attributes,
    /// Applied last, in this order.
    pub propagation: Vec<Propagation>,
    /// What an engine wants of it that the specification has no words for.
    pub details: Option<Box<MountDetails>>,
}

impl MountOp {
    /// The same, also where there is nothing of the kind.
    pub fn details(&self) -> &MountDetails {
        const NOTHING: &MountDetails =
            &MountDetails { overlay: None, subpath: None, chown: false, claim: false, borrowed: None };
        self.details.as_deref().unwrap_or(NOTHING)
    }

    /// Whether it is a bind mount.
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, MountKind::Bind { .. })
    }

    /// Whether its source is copied before the init is made.
    pub fn is_early(&self) -> bool {
        matches!(self.kind, MountKind::Bind { early: true, .. })
    }
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A file or directory of the host.
    Bind {
        /// Absolute, on the host.
        source: PathBuf,
        /// With the mounts below it.
        recursive: bool,
        /// Fill it, if it is an empty directory, with what the rootfs has there (`tmpcopyup`): an
        /// engine's new volume.
        copy_up: bool,
        /// What to do about symbolic links at the last name of source and destination.
        links: Links,
        /// It is copied before the init is made, by who made it, and handed down.
        early: bool,
        /// It shows the files with other ids.
        ids: Option<Ids>,
    },
    /// A file system.
    Filesystem {
        /// Its type, source and own options; attributes stand in the [`MountOp`].
        filesystem: Filesystem,
        /// Bound recursively if the kernel refuses the file system (EPERM): it does when the
        /// namespace that the file system shows belongs to another user namespace.
        fallback: Option<PathBuf>,
        /// Fill it with what the rootfs has there (`tmpcopyup`).
        copy_up: bool,
    },
    /// Change the attributes of what is mounted there already.
    Remount,
}

/// crun's options for symbolic links; without them links are followed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// Bind the source itself if it is a link.
    pub source: bool,
    /// Cover the destination itself if it is a link.
    pub destination: bool,
    /// If the source is a link, make the same link instead of a mount.
    pub copy: bool,
}

/// The mapping of an id-mapped mount (mount_setattr(2)): from ids in the file system to ids of the
/// machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// The mapping, `container` being the file system's side.
    pub mapping: IdMapping,
    /// Of the mounts below, too.
    pub recursive: bool,
}

/// Options of a file system that some callers give to every mount alike. For a bind mount the kernel
/// ignores them (mount(2), "Creating a bind mount"), so other runtimes let them pass, and nothing that
/// anybody could have meant is lost. Any other option of that sort is a mistake.
const OF_A_TMPFS: [&str; 2] = ["mode", "size"];

pub(super) fn plan_mounts(mounts: &[Mount], context: &Context<'_>) -> Result<Vec<MountOp>, PlanError> {
    mounts.iter().enumerate().map(|(index, mount)| plan_mount(index, mount, context)).collect()
}

/// What options say together.
#[derive(Default)]
struct Options {
    attributes: Attributes,
    recursive_attributes: Attributes,
    propagation: Vec<Propagation>,
    bind: Option<bool>,
    remount: bool,
    copy_up: bool,
    links: Links,
    /// `idmap` or `ridmap`, with the mapping after the `=`.
    ids: Option<(bool, Option<String>)>,
    /// Flags of the file system as a whole, which only one that is made here can have.
    superblock: Vec<String>,
    data: Vec<(String, Option<String>)>,
}

fn plan_mount(index: usize, mount: &Mount, context: &Context<'_>) -> Result<MountOp, PlanError> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let target = mount.destination();
    let shown = target.display();
    let bad = |problem: &str| Err(invalid(format!("{}: \"{shown}\" {problem}", field("destination"))));
    let zero = |path: &Path| path.as_os_str().as_encoded_bytes().contains(&0);
    if target.as_os_str().is_empty() || zero(target) {
        return bad("is no path");
    }
    // Older callers leave the slash out (the specification up to 1.0 allowed it).
    let target = Path::new("/").join(target);
    if target.components().any(|c| matches!(c, Component::ParentDir)) {
        return bad("has \"..\"");
    }
    if target.components().all(|c| matches!(c, Component::RootDir | Component::CurDir)) {
        return bad("is the rootfs itself");
    }
    let mut options = Options::default();
    for (at, option) in mount.options().iter().flatten().enumerate() {
        if option.contains('\0') {
            return Err(invalid(format!("{}[{at}]: it has a zero byte", field("options"))));
        }
        read_option(option, &mut options);
    }
    let fstype = mount.typ().as_deref().unwrap_or("");
    let bind = options.bind.or(matches!(fstype, "bind" | "rbind").then_some(fstype == "rbind"));
    let source = mount.source().as_ref().filter(|s| !s.as_os_str().is_empty());
    if source.is_some_and(|source| zero(source)) || fstype.contains('\0') {
        return Err(invalid(format!("{}, {}: there is a zero byte", field("source"), field("type"))));
    }
    let ids = plan_ids(mount, &options, &field, context)?;
    let details = context.details.and_then(|all| all.get(&target)).cloned().map(Box::new);
    let of_its_own = |has: fn(&MountDetails) -> bool| details.as_deref().is_some_and(has);
    if bind.is_none() || options.remount {
        if ids.is_some() {
            return Err(unsupported(format!(
                "{}: an id-mapped mount that is no bind mount",
                field("options")
            )));
        }
        if options.links != Links::default() {
            return Err(invalid(format!("{}: only a bind mount can be told about links", field("options"))));
        }
    }
    let kind = match bind {
        _ if options.remount => match options.data.first() {
            Some((name, _)) => {
                return Err(unsupported(format!("{}: \"{name}\" with \"remount\"", field("options"))));
            }
            None => MountKind::Remount,
        },
        Some(recursive) => {
            let missing =
                || invalid(format!("{}: it is missing, and a bind mount needs it", field("source")));
            let source = source.ok_or_else(missing)?;
            if let Some((name, _)) =
                options.data.iter().find(|(name, _)| !OF_A_TMPFS.contains(&name.as_str()))
            {
                return Err(invalid(format!("{}: \"{name}\" is none of a bind mount's", field("options"))));
            }
            MountKind::Bind {
                source: context.bundle.join(source),
                recursive,
                copy_up: options.copy_up,
                links: options.links,
                // An overlay is mounted by the init, which opens what it is made of.
                early: of_its_own(|details| details.borrowed.is_some() || details.has_ids())
                    || !of_its_own(|details| details.overlay.is_some())
                        && (ids.is_some() || context.weak_init),
                ids,
            }
        }
        None if fstype.is_empty() || fstype == "none" => {
            return Err(invalid(format!("{}: it is missing", field("type"))));
        }
        None => filesystem(fstype, source, &mut options, context),
    };
    Ok(MountOp {
        target,
        kind,
        attributes: options.attributes,
        recursive_attributes: options.recursive_attributes,
        propagation: options.propagation,
        details,
    })
}

/// The mapping of a mount: its own, that of crun's `idmap=`, or the container's.
fn plan_ids(
    mount: &Mount,
    options: &Options,
    field: &impl Fn(&str) -> String,
    context: &Context<'_>,
) -> Result<Option<Ids>, PlanError> {
    let own = IdMapping { uids: ranges(mount.uid_mappings()), gids: ranges(mount.gid_mappings()) };
    let recursive = matches!(options.ids, Some((true, _)));
    let mapping = match &options.ids {
        Some((_, Some(text))) => named_mapping(text, context.mapping)
            .ok_or_else(|| invalid(format!("{}: \"idmap={text}\" is no mapping", field("options"))))?,
        _ if own.uids.is_empty() != own.gids.is_empty() => {
            let names = [field("uidMappings"), field("gidMappings")].join(", ");
            return Err(invalid(format!("{names}: one needs the other")));
        }
        _ if !own.uids.is_empty() => own,
        None => return Ok(None),
        Some((_, None)) => {
            let mapping = context.mapping.ok_or_else(|| {
                invalid(format!(
                    "{}: \"idmap\" without a mapping, of the mount or the container",
                    field("options")
                ))
            })?;
            mapping.clone()
        }
    };
    check_ranges(&mapping.uids, &field("uidMappings"))?;
    check_ranges(&mapping.gids, &field("gidMappings"))?;
    Ok(Some(Ids { mapping, recursive }))
}

/// crun's `uids=0-1-10#10-100-10;gids=…`: first id in the file system, first id outside, count; `@`
/// before a range means that its second id is one of the container's.
pub fn named_mapping(text: &str, container: Option<&IdMapping>) -> Option<IdMapping> {
    let mut mapping = IdMapping::default();
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (kind, list) = part.split_once('=')?;
        let (into, outer) = match kind {
            "uids" => (&mut mapping.uids, container.map(|c| &c.uids)),
            "gids" => (&mut mapping.gids, container.map(|c| &c.gids)),
            _ => return None,
        };
        for range in list.split('#') {
            let (relative, range) = match range.strip_prefix('@') {
                Some(rest) => (true, rest),
                None => (false, range),
            };
            let numbers: Vec<u32> = range.split('-').map(str::parse).collect::<Result<_, _>>().ok()?;
            let [first, mut host, size] = numbers[..] else { return None };
            if relative {
                host = IdMapping::to_host(outer?, host)?;
            }
            into.push(IdRange { container: first, host, size });
        }
    }
    (!mapping.uids.is_empty() && !mapping.gids.is_empty()).then_some(mapping)
}

fn filesystem(
    fstype: &str,
    source: Option<&PathBuf>,
    options: &mut Options,
    context: &Context<'_>,
) -> MountKind {
    let mut data = std::mem::take(&mut options.data);
    let mut fstype = fstype;
    let mut fallback = None;
    match fstype {
        "proc" if !context.own_pid => fallback = Some("/proc".into()),
        "sysfs" => fallback = Some("/sys".into()),
        "cgroup" | "cgroup2" => {
            // The kernel shows a cgroup namespace's own tree, which a foreign one would not be.
            if !context.own_cgroup {
                // Version 1 is a directory of mounts, one for each controller: what is said of the one holds for all,
                // or its root could freeze the host's groups.
                options.recursive_attributes.set |= options.attributes.set;
                return MountKind::Bind {
                    source: "/sys/fs/cgroup".into(),
                    recursive: true,
                    copy_up: false,
                    links: Links::default(),
                    early: false,
                    ids: None,
                };
            }
            fstype = "cgroup2";
            fallback = Some("/sys/fs/cgroup".into());
            data.clear();
        }
        "devpts" => drop_unmapped_group(&mut data, context.mapping),
        _ => {}
    }
    data.extend(options.superblock.drain(..).map(|name| (name, None)));
    if let Some(label) = context.label.filter(|_| !matches!(fstype, "proc" | "sysfs" | "mqueue" | "cgroup2"))
        && !data.iter().any(|(key, _)| key.ends_with("context"))
    {
        data.push(("context".to_owned(), Some(label.to_owned())));
    }
    let filesystem = Filesystem {
        fstype: fstype.to_owned(),
        source: source.map(|s| s.to_string_lossy().into_owned()),
        options: data,
        attributes: Attributes { set: options.attributes.set, clear: 0 },
    };
    MountKind::Filesystem { filesystem, fallback, copy_up: options.copy_up && fstype == "tmpfs" }
}

/// Everybody's template asks for `gid=5` (tty). Where only one id is mapped there is no such group
/// and the kernel would refuse the mount; terminals then belong to their opener's group.
fn drop_unmapped_group(data: &mut Vec<(String, Option<String>)>, mapping: Option<&IdMapping>) {
    let Some(mapping) = mapping else { return };
    let mapped =
        |id: &str, ranges: &[IdRange]| id.parse().is_ok_and(|id| IdMapping::to_host(ranges, id).is_some());
    data.retain(|(key, value)| key != "gid" || value.as_deref().is_some_and(|id| mapped(id, &mapping.gids)));
}

fn read_option(option: &str, options: &mut Options) {
    if let Some((kind, recursive)) = propagation_word(option) {
        options.propagation.push(Propagation { kind, recursive });
        return;
    }
    let ids = |text: &str, name: &str| -> Option<Option<String>> {
        let rest = text.strip_prefix(name)?;
        if rest.is_empty() { Some(None) } else { Some(Some(rest.strip_prefix('=')?.to_owned())) }
    };
    match option {
        // What mount(8) keeps for itself, and noise that the kernel no longer makes.
        "" | "defaults" | "loud" | "silent" | "auto" | "noauto" | "nofail" | "_netdev" => {}
        "rw" => options.attributes.set &= !attr::RDONLY,
        "bind" => options.bind = Some(options.bind.unwrap_or(false)),
        "rbind" => options.bind = Some(true),
        "remount" => options.remount = true,
        "tmpcopyup" => options.copy_up = true,
        "copy-symlink" => options.links.copy = true,
        "src-nofollow" => options.links.source = true,
        "dest-nofollow" => options.links.destination = true,
        "sync" | "async" | "dirsync" | "mand" | "nomand" | "lazytime" | "nolazytime" => {
            options.superblock.push(option.to_owned());
        }
        // Of file systems that no kernel has any more, or that it sets by itself.
        "iversion" | "noiversion" | "nodirsync" => {}
        _ => {
            if let Some(mapping) = ids(option, "idmap") {
                options.ids = Some((false, mapping));
            } else if let Some(mapping) = ids(option, "ridmap") {
                options.ids = Some((true, mapping));
            } else if let Some((set, clear)) = attribute(option) {
                // Clearing only undoes an earlier option: what the host set stays, and in a user
                // namespace is locked.
                options.attributes.set = options.attributes.set & !clear | set;
            } else if let Some((set, clear)) = option.strip_prefix('r').and_then(attribute) {
                let all = &mut options.recursive_attributes;
                all.set = all.set & !clear | set;
                all.clear = all.clear & !set | clear;
            } else if let Some((key, value)) = option.split_once('=') {
                options.data.push((key.to_owned(), Some(value.to_owned())));
            } else {
                options.data.push((option.to_owned(), None));
            }
        }
    }
}

/// The words that mount options may be, for `features`; the kernel knows others.
pub fn known_options() -> Vec<String> {
    const PLAIN: [&str; 26] = [
        "async",
        "bind",
        "copy-symlink",
        "defaults",
        "dest-nofollow",
        "dirsync",
        "idmap",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noiversion",
        "nolazytime",
        "nomand",
        "private",
        "rbind",
        "remount",
        "ridmap",
        "shared",
        "silent",
        "slave",
        "src-nofollow",
        "sync",
        "tmpcopyup",
        "unbindable",
        "rw",
    ];
    let mut words: Vec<String> = PLAIN.iter().map(|word| (*word).to_owned()).collect();
    words.extend(["rprivate", "rshared", "rslave", "runbindable"].map(str::to_owned));
    for word in ATTRIBUTES {
        words.extend([word.to_owned(), format!("r{word}")]);
    }
    words.sort();
    words.dedup();
    words
}

/// All words that [`attribute`] knows.
const ATTRIBUTES: [&str; 18] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "strictatime",
    "atime",
    "relatime",
    "norelatime",
    "nostrictatime",
    "nodiratime",
    "diratime",
    "nosymfollow",
    "symfollow",
];

/// The attributes that an option sets and clears.
fn attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "ro" => (attr::RDONLY, 0),
        "rw" => (0, attr::RDONLY),
        "nosuid" => (attr::NOSUID, 0),
        "suid" => (0, attr::NOSUID),
        "nodev" => (attr::NODEV, 0),
        "dev" => (0, attr::NODEV),
        "noexec" => (attr::NOEXEC, 0),
        "exec" => (0, attr::NOEXEC),
        "noatime" => (attr::NOATIME, attr::ATIME),
        "strictatime" => (attr::STRICTATIME, attr::ATIME),
        "atime" | "relatime" | "norelatime" | "nostrictatime" => (0, attr::ATIME),
        "nodiratime" => (attr::NODIRATIME, 0),
        "diratime" => (0, attr::NODIRATIME),
        "nosymfollow" => (attr::NOSYMFOLLOW, 0),
        "symfollow" => (0, attr::NOSYMFOLLOW),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount::PropagationKind;

    fn context(mapping: Option<&IdMapping>) -> Context<'_> {
        let bundle = Path::new("/b");
        Context {
            bundle,
            mapping,
            own_pid: true,
            own_cgroup: true,
            weak_init: false,
            label: None,
            details: None,
        }
    }

    fn mount(json: &str, mapping: Option<&IdMapping>) -> Result<MountOp, PlanError> {
        plan_mount(0, &serde_json::from_str(json).unwrap(), &context(mapping))
    }

    #[test]
    fn binds_are_relative_to_the_bundle() {
        let op = mount(
            r#"{"destination":"/d","type":"none","source":"x","options":["rbind","ro","rslave","rnosuid","nodev","dev"]}"#,
            None,
        )
        .unwrap();
        let MountKind::Bind { source, recursive, early, .. } = &op.kind else { panic!("{:?}", op.kind) };
        assert_eq!((source.as_path(), *recursive, *early), (Path::new("/b/x"), true, false));
        assert_eq!(op.attributes.set, attr::RDONLY);
        assert_eq!(op.recursive_attributes.set, attr::NOSUID);
        assert_eq!(op.propagation, [Propagation { kind: PropagationKind::Slave, recursive: true }]);
    }

    // spec: linux.mountLabel
    #[test]
    fn new_file_systems_get_the_label() {
        let labelled = Context { label: Some("u:r:t:s0:c1,c2"), ..context(None) };
        let options =
            |json: &str| match plan_mount(0, &serde_json::from_str(json).unwrap(), &labelled).unwrap().kind {
                MountKind::Filesystem { filesystem, .. } => filesystem.options,
                other => panic!("{other:?}"),
            };
        let context = |label: &str| ("context".to_owned(), Some(label.to_owned()));
        let tmpfs = options(r#"{"destination":"/d","type":"tmpfs","options":["size=1m"]}"#);
        assert!(tmpfs.contains(&context("u:r:t:s0:c1,c2")) && tmpfs.len() == 2, "{tmpfs:?}");
        // One of its own counts, and proc has none.
        let own = options(r#"{"destination":"/d","type":"tmpfs","options":["context=own"]}"#);
        assert_eq!(own, [context("own")]);
        assert!(options(r#"{"destination":"/proc","type":"proc"}"#).is_empty());
    }

    #[test]
    fn the_hosts_groups_are_bound_with_all_that_is_in_them() {
        let json =
            r#"{"destination":"/c","type":"cgroup","source":"cgroup","options":["ro","nosuid","relatime"]}"#;
        let foreign = Context { own_cgroup: false, ..context(None) };
        let op = plan_mount(0, &serde_json::from_str(json).unwrap(), &foreign).unwrap();
        assert!(matches!(&op.kind, MountKind::Bind { recursive: true, .. }), "{:?}", op.kind);
        assert_eq!(op.recursive_attributes.set & attr::RDONLY, attr::RDONLY);
        assert_eq!(op.recursive_attributes.set & attr::NOSUID, attr::NOSUID);
        let own = mount(json, None).unwrap();
        assert!(
            matches!(&own.kind, MountKind::Filesystem { filesystem, .. } if filesystem.fstype == "cgroup2")
        );
    }

    #[test]
    fn an_unmapped_group_of_devpts_is_dropped() {
        let json = r#"{"destination":"/dev/pts","type":"devpts","options":["newinstance","gid=5"]}"#;
        let options = |mapping| match mount(json, mapping).unwrap().kind {
            MountKind::Filesystem { filesystem, .. } => filesystem.options.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(options(None), 2);
        assert_eq!(options(Some(&IdMapping::single(0, 1000, 0, 1000))), 1);
    }

    #[test]
    fn mounts_with_other_ids_are_made_early() {
        let container = IdMapping::single(0, 1000, 0, 2000);
        let of = |options: &str, more: &str| {
            let json = format!(
                r#"{{"destination":"/d","type":"bind","source":"/x","options":["{options}"]{more}}}"#
            );
            match mount(&json, Some(&container)).unwrap().kind {
                MountKind::Bind { early: true, ids: Some(ids), .. } => ids,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of("idmap", ""), Ids { mapping: container.clone(), recursive: false });
        assert_eq!(of("ridmap", ""), Ids { mapping: container.clone(), recursive: true });
        let range = |container, host| vec![IdRange { container, host, size: 1 }];
        let named = of("idmap=uids=5-6-1;gids=@7-0-1", "");
        assert_eq!(named.mapping, IdMapping { uids: range(5, 6), gids: range(7, 2000) });
        let own = r#","uidMappings":[{"containerID":1,"hostID":2,"size":1}],"gidMappings":[{"containerID":3,"hostID":4,"size":1}]"#;
        assert_eq!(of("bind", own).mapping, IdMapping { uids: range(1, 2), gids: range(3, 4) });
    }

    #[test]
    fn all_known_words_are_understood() {
        for word in ATTRIBUTES {
            assert!(attribute(word).is_some(), "{word}");
        }
        for word in known_options() {
            let mut options = Options::default();
            read_option(&word, &mut options);
            assert!(options.data.is_empty(), "{word}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for json in [
            r#"{"destination":"/a/../b","type":"tmpfs"}"#,
            r#"{"destination":"/a","type":"bind","source":"/x","options":["idmap"]}"#,
            r#"{"destination":"/a","type":"bind","source":"/x","options":["bind","nr_inodes=1"]}"#,
            r#"{"destination":"/a","type":"bind"}"#,
            r#"{"destination":"/a","type":"bind","source":"/x","options":["idmap=uids=1;gids=2"]}"#,
            r#"{"destination":"/a","type":"bind","source":"/x","options":["idmap=uids=@7-8-9;gids=0-0-1"]}"#,
            r#"{"destination":"/a","type":"bind","source":"/x","uidMappings":[{"containerID":0,"hostID":0,"size":1}]}"#,
            r#"{"destination":"/a","type":"tmpfs","options":["idmap=uids=0-0-1;gids=0-0-1"]}"#,
            r#"{"destination":"/a","type":"tmpfs","options":["copy-symlink"]}"#,
            r#"{"destination":"/a"}"#,
            r#"{"destination":"/","type":"bind","source":"/x"}"#,
            r#"{"destination":"/./","type":"tmpfs"}"#,
        ] {
            assert!(mount(json, None).is_err(), "{json}");
        }
    }
}
