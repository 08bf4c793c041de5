//! Mounts of a spec (`config.md`, "Mounts"; mount(8) for the options).

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Mount;

use super::{PlanError, invalid, propagation_word, unsupported};
use crate::base::idmap::{IdMapping, IdRange};
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
}

impl MountOp {
    /// Whether it is a bind mount.
    pub fn is_bind(&self) -> bool {
        matches!(self.kind, MountKind::Bind { .. })
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

pub(super) fn plan_mounts(mounts: &[Mount], context: &Context<'_>) -> Result<Vec<MountOp>, PlanError> {
    mounts.iter().map(|mount| plan_mount(mount, context)).collect()
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
    data: Vec<(String, Option<String>)>,
}

fn plan_mount(mount: &Mount, context: &Context<'_>) -> Result<MountOp, PlanError> {
    let target = mount.destination();
    let shown = target.display();
    // Older callers leave the slash out (the specification up to 1.0 allowed it).
    let target = Path::new("/").join(target);
    if target.components().any(|c| matches!(c, Component::ParentDir)) {
        return Err(invalid(format!("mount destination \"{shown}\" has \"..\"")));
    }
    if target.components().all(|c| matches!(c, Component::RootDir | Component::CurDir)) {
        return Err(invalid(format!("mount destination \"{shown}\" is the rootfs itself")));
    }
    let has_map = |m: &Option<Vec<_>>| {
        m.as_ref().is_some_and(|m: &Vec<oci_spec::runtime::LinuxIdMapping>| !m.is_empty())
    };
    if has_map(mount.uid_mappings()) || has_map(mount.gid_mappings()) {
        return Err(unsupported(format!("an id-mapped mount at \"{shown}\"")));
    }
    let mut options = Options::default();
    for option in mount.options().as_deref().unwrap_or_default() {
        read_option(option, &mut options)
            .map_err(|option| unsupported(format!("mount option \"{option}\" of \"{shown}\"")))?;
    }
    let fstype = mount.typ().as_deref().unwrap_or("");
    let bind = options.bind.or(matches!(fstype, "bind" | "rbind").then_some(fstype == "rbind"));
    let source = mount.source().as_ref().filter(|s| !s.as_os_str().is_empty());
    let kind = match bind {
        _ if options.remount => MountKind::Remount,
        Some(recursive) => {
            let source = source.ok_or_else(|| invalid(format!("bind mount \"{shown}\" has no source")))?;
            if let Some((name, _)) = options.data.first() {
                return Err(invalid(format!("bind mount \"{shown}\" has the option \"{name}\"")));
            }
            MountKind::Bind { source: context.bundle.join(source), recursive, copy_up: options.copy_up }
        }
        None if fstype.is_empty() => return Err(invalid(format!("mount \"{shown}\" has no type"))),
        None => filesystem(fstype, source, &mut options, context),
    };
    Ok(MountOp {
        target,
        kind,
        attributes: options.attributes,
        recursive_attributes: options.recursive_attributes,
        propagation: options.propagation,
    })
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
                return MountKind::Bind { source: "/sys/fs/cgroup".into(), recursive: true, copy_up: false };
            }
            fstype = "cgroup2";
            fallback = Some("/sys/fs/cgroup".into());
            data.clear();
        }
        "devpts" => drop_unmapped_group(&mut data, context.mapping),
        _ => {}
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

fn read_option<'a>(option: &'a str, options: &mut Options) -> Result<(), &'a str> {
    if let Some((kind, recursive)) = propagation_word(option) {
        options.propagation.push(Propagation { kind, recursive });
        return Ok(());
    }
    match option {
        "" | "defaults" | "rw" | "loud" => {
            if option == "rw" {
                options.attributes.set &= !attr::RDONLY;
            }
        }
        "bind" => options.bind = Some(options.bind.unwrap_or(false)),
        "rbind" => options.bind = Some(true),
        "remount" => options.remount = true,
        "tmpcopyup" => options.copy_up = true,
        "idmap" | "ridmap" | "copy-symlink" | "dest-nofollow" | "src-nofollow" => return Err(option),
        _ => {
            if let Some((set, clear)) = attribute(option) {
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
    Ok(())
}

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
        Context { bundle: Path::new("/b"), mapping, own_pid: true, own_cgroup: true }
    }

    fn mount(json: &str, mapping: Option<&IdMapping>) -> Result<MountOp, PlanError> {
        plan_mount(&serde_json::from_str(json).unwrap(), &context(mapping))
    }

    #[test]
    fn binds_are_relative_to_the_bundle() {
        let op = mount(
            r#"{"destination":"/d","type":"none","source":"x","options":["rbind","ro","rslave","rnosuid","nodev","dev"]}"#,
            None,
        )
        .unwrap();
        assert_eq!(op.kind, MountKind::Bind { source: "/b/x".into(), recursive: true, copy_up: false });
        assert_eq!(op.attributes.set, attr::RDONLY);
        assert_eq!(op.recursive_attributes.set, attr::NOSUID);
        assert_eq!(op.propagation, [Propagation { kind: PropagationKind::Slave, recursive: true }]);
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
    fn what_cannot_be_done_is_refused() {
        for json in [
            r#"{"destination":"/a/../b","type":"tmpfs"}"#,
            r#"{"destination":"/a","type":"bind","source":"/x","options":["idmap"]}"#,
            r#"{"destination":"/a","type":"bind","source":"/x","options":["bind","size=1"]}"#,
            r#"{"destination":"/a","type":"bind"}"#,
            r#"{"destination":"/a"}"#,
            r#"{"destination":"/","type":"bind","source":"/x"}"#,
            r#"{"destination":"/./","type":"tmpfs"}"#,
        ] {
            assert!(mount(json, None).is_err(), "{json}");
        }
    }
}
