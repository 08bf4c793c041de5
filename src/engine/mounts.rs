//! `-v`, `--mount` and `--tmpfs` taken apart. Pure but for the two questions asked of the caller:
//! the working directory and where volumes live.

use std::path::{Component, Path, PathBuf};

use crate::base::id::check_name;
use crate::storage::containers::MountRecord;

/// Why a mount cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the form that the flag takes.
    #[error("{flag} \"{value}\": {why}")]
    Syntax {
        /// `-v`, `--mount` or `--tmpfs`.
        flag: &'static str,
        /// As given.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// Podman has it and we do not yet.
    #[error("{flag} \"{value}\": {what} is not supported yet")]
    Unsupported {
        /// The flag.
        flag: &'static str,
        /// As given.
        value: String,
        /// What is not supported.
        what: String,
    },
    /// Two mounts want the same place.
    #[error("{0}: duplicate mount destination")]
    Duplicate(String),
}

const PLAIN: &[&str] = &[
    "rbind",
    "bind",
    "private",
    "rprivate",
    "shared",
    "rshared",
    "slave",
    "rslave",
    "unbindable",
    "runbindable",
    "noexec",
    "exec",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noatime",
    "atime",
    "relatime",
    "nodiratime",
    "diratime",
    "rro",
];

/// `[SOURCE:]DESTINATION[:OPTIONS]`.
pub fn volume(value: &str, cwd: &Path) -> Result<MountRecord, Error> {
    let flag = "--volume";
    let syntax = |why: &str| Error::Syntax { flag, value: value.into(), why: why.into() };
    let parts: Vec<&str> = value.split(':').collect();
    let (source, destination, options) = match parts[..] {
        [destination] => (None, destination, ""),
        [source, destination] => (Some(source), destination, ""),
        [source, destination, options] => (Some(source), destination, options),
        _ => return Err(syntax("it takes [SOURCE:]DESTINATION[:OPTIONS]")),
    };
    let destination = destination_path(destination).map_err(syntax)?;
    let mut mount = match source {
        None => anonymous_volume(destination),
        Some("") => return Err(syntax("the source is empty")),
        Some(source) if source.starts_with(['/', '.']) => bind(source, destination, cwd),
        Some(name) => {
            check_name(name).map_err(|error| syntax(&error.to_string()))?;
            named_volume(name, destination)
        }
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        apply_option(&mut mount, flag, value, option)?;
    }
    finish(&mut mount);
    Ok(mount)
}

/// `type=TYPE,KEY=VALUE,…`.
pub fn mount(value: &str, cwd: &Path) -> Result<MountRecord, Error> {
    let flag = "--mount";
    let syntax = |why: String| Error::Syntax { flag, value: value.into(), why };
    let unsupported = |what: String| Error::Unsupported { flag, value: value.into(), what };
    let (mut kind, mut source, mut destination) = ("volume", None, None);
    let mut rest = Vec::new();
    for item in value.split(',').filter(|item| !item.is_empty()) {
        let (key, text) = match item.split_once('=') {
            Some((key, text)) => (key, Some(text)),
            None => (item, None),
        };
        match (key, text) {
            ("type", Some(text)) => kind = text,
            ("source" | "src", Some(text)) => source = Some(text),
            ("destination" | "dst" | "target", Some(text)) => destination = Some(text),
            _ => rest.push((key, text)),
        }
    }
    let destination = destination.ok_or_else(|| syntax("a destination is missing".into()))?;
    let destination = destination_path(destination).map_err(|why| syntax(why.into()))?;
    let mut mount = match (kind, source) {
        ("bind", Some(source)) => bind(source, destination, cwd),
        ("bind", None) => return Err(syntax("a bind mount needs a source".into())),
        ("volume", None) => anonymous_volume(destination),
        ("volume", Some(name)) => {
            check_name(name).map_err(|error| syntax(error.to_string()))?;
            named_volume(name, destination)
        }
        ("tmpfs", None) => tmpfs_mount(destination),
        ("tmpfs", Some(_)) => return Err(syntax("a tmpfs has no source".into())),
        (other @ ("image" | "glob" | "devpts" | "ramfs" | "artifact"), _) => {
            return Err(unsupported(format!("type={other}")));
        }
        (other, _) => return Err(syntax(format!("there is no mount type \"{other}\""))),
    };
    for (key, text) in rest {
        let on = match text {
            None | Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(_) => None,
        };
        match (key, text, on) {
            ("ro" | "readonly", _, Some(on)) => mount.rw = !on,
            ("rw", _, Some(on)) => mount.rw = on,
            ("bind-propagation", Some(mode), _) => apply_option(&mut mount, flag, value, mode)?,
            ("bind-nonrecursive", _, Some(on)) => {
                apply_option(&mut mount, flag, value, if on { "bind" } else { "rbind" })?;
            }
            ("relabel", Some(mode @ ("shared" | "private")), _) => {
                apply_option(&mut mount, flag, value, if mode == "shared" { "z" } else { "Z" })?;
            }
            ("tmpfs-size", Some(size), _) if mount.kind == "tmpfs" => {
                mount.options.push(format!("size={size}"))
            }
            ("tmpfs-mode", Some(mode), _) if mount.kind == "tmpfs" => {
                mount.options.push(format!("mode={mode}"))
            }
            ("tmpcopyup", _, Some(on)) if mount.kind == "tmpfs" => mount.copy_up = on,
            ("notmpcopyup", None, _) if mount.kind == "tmpfs" => mount.copy_up = false,
            ("U" | "chown" | "idmap" | "volume-opt" | "subpath" | "volume-subpath" | "consistency", ..) => {
                return Err(unsupported(key.to_owned()));
            }
            (_, None, _) => apply_option(&mut mount, flag, value, key)?,
            _ => return Err(syntax(format!("there is no option \"{key}\" of this form"))),
        }
    }
    finish(&mut mount);
    Ok(mount)
}

/// `DESTINATION[:OPTIONS]`.
pub fn tmpfs(value: &str) -> Result<MountRecord, Error> {
    let flag = "--tmpfs";
    let (destination, options) = value.split_once(':').unwrap_or((value, ""));
    let destination = destination_path(destination).map_err(|why| Error::Syntax {
        flag,
        value: value.into(),
        why: why.into(),
    })?;
    let mut mount = tmpfs_mount(destination);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        apply_option(&mut mount, flag, value, option)?;
    }
    finish(&mut mount);
    Ok(mount)
}

/// Refuses two mounts at one place.
pub fn check_unique(mounts: &[MountRecord]) -> Result<(), Error> {
    for (at, mount) in mounts.iter().enumerate() {
        if mounts[..at].iter().any(|earlier| earlier.destination == mount.destination) {
            return Err(Error::Duplicate(mount.destination.clone()));
        }
    }
    Ok(())
}

/// The volume of an image's `VOLUME`. The image is hostile: its text is a destination and nothing
/// else, whatever colons stand in it, or an image could ask for directories of the host.
pub fn image_volume(destination: &str) -> Result<MountRecord, Error> {
    let path = destination_path(destination).map_err(|why| Error::Syntax {
        flag: "the image's VOLUME",
        value: destination.into(),
        why: why.into(),
    })?;
    let mut mount = anonymous_volume(path);
    finish(&mut mount);
    Ok(mount)
}

/// The volume of a `-v` or `--mount` that names no source.
fn anonymous_volume(destination: String) -> MountRecord {
    MountRecord { anonymous: true, ..named_volume("", destination) }
}

fn named_volume(name: &str, destination: String) -> MountRecord {
    MountRecord {
        kind: "volume".into(),
        name: Some(name.into()),
        source: String::new(),
        destination,
        options: ["nosuid", "nodev"].map(String::from).into(),
        rw: true,
        copy_up: true,
        anonymous: false,
    }
}

fn bind(source: &str, destination: String, cwd: &Path) -> MountRecord {
    MountRecord {
        kind: "bind".into(),
        name: None,
        source: normalise(&cwd.join(source)).to_string_lossy().into_owned(),
        destination,
        options: ["nosuid", "nodev"].map(String::from).into(),
        rw: true,
        copy_up: false,
        anonymous: false,
    }
}

fn tmpfs_mount(destination: String) -> MountRecord {
    MountRecord {
        kind: "tmpfs".into(),
        name: None,
        source: String::new(),
        destination,
        options: ["nosuid", "nodev"].map(String::from).into(),
        rw: true,
        copy_up: true,
        anonymous: false,
    }
}

fn apply_option(mount: &mut MountRecord, flag: &'static str, value: &str, option: &str) -> Result<(), Error> {
    let tmpfs = mount.kind == "tmpfs";
    match option {
        "ro" => mount.rw = false,
        "rw" => mount.rw = true,
        // Labels mean something only under SELinux; Podman ignores them elsewhere too.
        "z" | "Z" if !tmpfs => {}
        "copy" if mount.kind == "volume" => mount.copy_up = true,
        "nocopy" if mount.kind == "volume" => mount.copy_up = false,
        "tmpcopyup" if tmpfs => mount.copy_up = true,
        "notmpcopyup" if tmpfs => mount.copy_up = false,
        "suid" | "dev" | "exec" => {
            let opposite = format!("no{option}");
            mount.options.retain(|o| *o != opposite);
        }
        option if PLAIN.contains(&option) => mount.options.push(option.into()),
        option
            if tmpfs
                && ["size=", "mode=", "nr_inodes=", "nr_blocks=", "uid=", "gid="]
                    .iter()
                    .any(|prefix| option.starts_with(prefix)) =>
        {
            mount.options.push(option.into());
        }
        "U" | "O" | "idmap" => {
            return Err(Error::Unsupported {
                flag,
                value: value.into(),
                what: format!("the option {option}"),
            });
        }
        option if option.starts_with("upperdir=") || option.starts_with("idmap=") => {
            return Err(Error::Unsupported {
                flag,
                value: value.into(),
                what: format!("the option {option}"),
            });
        }
        other => {
            return Err(Error::Syntax {
                flag,
                value: value.into(),
                why: format!("there is no option \"{other}\""),
            });
        }
    }
    Ok(())
}

/// Adds what was left to be understood: how it is bound, its propagation, its direction.
fn finish(mount: &mut MountRecord) {
    let mut options = std::mem::take(&mut mount.options);
    if mount.kind != "tmpfs" {
        if !options.iter().any(|o| o == "bind" || o == "rbind") {
            options.push("rbind".into());
        }
        let propagation = ["private", "shared", "slave", "unbindable"];
        if !options.iter().any(|o| propagation.contains(&o.strip_prefix('r').unwrap_or(o)) || o == "private")
        {
            options.push("rprivate".into());
        }
    }
    options.push(if mount.rw { "rw" } else { "ro" }.into());
    let mut seen = Vec::with_capacity(options.len());
    for option in options {
        if !seen.contains(&option) {
            seen.push(option);
        }
    }
    mount.options = seen;
}

/// Where a mount goes: [`clean`]ed; or why nothing can be mounted there.
fn destination_path(path: &str) -> Result<String, &'static str> {
    if !path.starts_with('/') {
        return Err("the destination is no absolute path");
    }
    match clean(path) {
        root if root == "/" => Err("the destination is the container's root"),
        path => Ok(path),
    }
}

/// An absolute path without `.`, `..` and doubled slashes; `..` at the root stays there.
pub fn clean(path: &str) -> String {
    normalise(Path::new(path)).to_string_lossy().into_owned()
}

fn normalise(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(value: &str) -> Result<MountRecord, Error> {
        volume(value, Path::new("/home/u"))
    }

    #[test]
    fn volumes_in_every_form() {
        let mount = v("./src:/app:ro").unwrap();
        assert_eq!(
            (mount.kind.as_str(), mount.source.as_str(), mount.destination.as_str(), mount.rw),
            ("bind", "/home/u/src", "/app", false)
        );
        assert_eq!(mount.options, ["nosuid", "nodev", "rbind", "rprivate", "ro"]);
        let mount = v("data:/var/lib//data/").unwrap();
        assert_eq!((mount.kind.as_str(), mount.name.as_deref()), ("volume", Some("data")));
        assert_eq!(mount.destination, "/var/lib/data");
        assert!(mount.copy_up && !mount.anonymous);
        assert!(v("/only").unwrap().anonymous);
        let mount = v("/a:/b:rw,shared,exec,dev").unwrap();
        assert_eq!(mount.options, ["nosuid", "shared", "rbind", "rw"]);
    }

    #[test]
    fn bad_volumes_are_told_apart() {
        for bad in ["", "a:b", ":/x", "/a:/", "/a:/b/..", "a:b:c:d", "/a:/b:shiny", "no/slash:/x", "/a:/b:U"]
        {
            assert!(v(bad).is_err(), "{bad}");
        }
        assert!(matches!(v("/a:/b:U"), Err(Error::Unsupported { .. })));
    }

    #[test]
    fn an_images_volume_is_a_destination_only() {
        let mount = image_volume("/:/host").unwrap();
        assert!(mount.anonymous && mount.kind == "volume" && mount.source.is_empty());
        assert_eq!(mount.destination, "/:/host");
        assert_eq!(image_volume("/a/../data/").unwrap().destination, "/data");
        for bad in ["", "data", "/", "/x/..", "name:/data"] {
            assert!(image_volume(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn mount_flag() {
        let m = |value| mount(value, Path::new("/w"));
        let bind = m("type=bind,src=/s,dst=/d,ro=true,bind-propagation=rslave").unwrap();
        assert!(!bind.rw && bind.options.contains(&"rslave".to_owned()));
        let tmp = m("type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1777").unwrap();
        assert_eq!(tmp.options, ["nosuid", "nodev", "size=64m", "mode=1777", "rw"]);
        assert!(matches!(m("type=image,src=x,dst=/y"), Err(Error::Unsupported { .. })));
        assert!(m("type=bind,src=/s").is_err() && m("type=odd,dst=/d").is_err());
    }

    #[test]
    fn tmpfs_flag_and_duplicates() {
        let a = tmpfs("/run:size=1m,noexec").unwrap();
        assert!(a.options.contains(&"size=1m".to_owned()));
        assert!(check_unique(&[a.clone(), v("x:/run").unwrap()]).is_err());
        assert!(check_unique(&[a]).is_ok());
    }
}
