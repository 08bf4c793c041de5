//! `-v`, `--mount` and `--tmpfs` taken apart. Pure but for the two questions asked of the caller:
//! the working directory and where volumes live.

mod glob;
mod options;

use std::path::{Component, Path, PathBuf};

use crate::base::id::check_name;
use crate::storage::containers::{ContainerRecord, MountRecord};
use options::Reading;

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
    let mount = match source {
        None => anonymous_volume(destination),
        Some("") => return Err(syntax("the source is empty")),
        Some(source) if source.starts_with(['/', '.']) => bind(source, destination, cwd),
        Some(name) => {
            check_name(name).map_err(|error| syntax(&error.to_string()))?;
            named_volume(name, destination)
        }
    };
    let mut reading = Reading { flag, value, mount, cwd };
    reading.apply_all(options)?;
    reading.finish()
}

/// The fields of a line of comma-separated values (RFC 4180); none if a quote is not closed, or stands in the
/// middle of a field.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
            Some(mut quoted) => {
                let mut field = String::new();
                loop {
                    let end = quoted.find('"')?;
                    field.push_str(&quoted[..end]);
                    quoted = &quoted[end + 1..];
                    match quoted.strip_prefix('"') {
                        Some(more) => quoted = more,
                        None => break (field, quoted),
                    }
                    field.push('"');
                }
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => return after.is_empty().then_some(fields),
        }
    }
}

/// `type=TYPE,KEY=VALUE,…`: one mount, or for a glob one for each file that it matches. A value that contains
/// commas is quoted with its key: `type=volume,dst=/x,"volume-opt=o=size=1m,mode=700"`.
pub fn mount(value: &str, cwd: &Path) -> Result<Vec<MountRecord>, Error> {
    let flag = "--mount";
    let syntax = |why: String| Error::Syntax { flag, value: value.into(), why };
    let (mut kind, mut source, mut destination) = ("volume", None, None);
    let mut rest = Vec::new();
    let fields = fields(value).ok_or_else(|| syntax("a quoted part has no end".into()))?;
    for item in fields.iter().filter(|item| !item.is_empty()) {
        match item.split_once('=') {
            Some(("type", text)) => kind = text,
            Some(("source" | "src" | "from", text)) => source = Some(text),
            Some(("destination" | "dst" | "target", text)) => destination = Some(text),
            _ => rest.push(item.as_str()),
        }
    }
    let destination = destination.ok_or_else(|| syntax("a destination is missing".into()))?;
    let destination = destination_path(destination).map_err(|why| syntax(why.into()))?;
    let mount = match (kind, source.filter(|source| !source.is_empty())) {
        ("bind" | "glob", Some(source)) => bind(source, destination, cwd),
        ("image", Some(source)) => {
            MountRecord { source: source.into(), rw: false, ..plain("image", destination) }
        }
        ("bind" | "glob" | "image", None) => return Err(syntax(format!("type={kind} needs a source"))),
        ("volume", None) => anonymous_volume(destination),
        ("volume", Some(name)) => {
            check_name(name).map_err(|error| syntax(error.to_string()))?;
            named_volume(name, destination)
        }
        ("tmpfs", None) => tmpfs_mount(destination),
        ("ramfs" | "devpts", None) => plain(kind, destination),
        ("tmpfs" | "ramfs" | "devpts", Some(_)) => return Err(syntax(format!("type={kind} has no source"))),
        ("artifact", _) => {
            let what = "type=artifact".to_owned();
            return Err(Error::Unsupported { flag, value: value.into(), what });
        }
        (other, _) => return Err(syntax(format!("there is no mount type \"{other}\""))),
    };
    let mut reading = Reading { flag, value, mount, cwd };
    reading.agree(&rest)?;
    for item in rest {
        reading.apply_long(item)?;
    }
    let mount = reading.finish()?;
    if kind != "glob" {
        return Ok(vec![mount]);
    }
    let found = glob::expand(Path::new(&mount.source)).map_err(|error| syntax(error.to_string()))?;
    if found.is_empty() {
        return Err(syntax("no file matches it".into()));
    }
    let place = |path: PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let destination = format!("{}/{name}", mount.destination);
        MountRecord { source: path.to_string_lossy().into_owned(), destination, ..mount.clone() }
    };
    Ok(found.into_iter().map(place).collect())
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
    let mut reading = Reading { flag, value, mount: tmpfs_mount(destination), cwd: Path::new("/") };
    reading.apply_all(options)?;
    reading.finish()
}

/// `CONTAINER[:OPTIONS]`: the container, and what its mounts become here.
pub fn volumes_from(value: &str, find: &Find<'_>) -> Result<Vec<MountRecord>, Error> {
    let flag = "--volumes-from";
    let syntax = |why: String| Error::Syntax { flag, value: value.into(), why };
    let (container, options) = value.split_once(':').unwrap_or((value, ""));
    let record = find(container).map_err(syntax)?;
    let shared = record.config.mounts.iter().filter(|mount| matches!(mount.kind.as_str(), "bind" | "volume"));
    let mut mounts: Vec<_> =
        shared.map(|mount| MountRecord { anonymous: false, copy_up: false, ..mount.clone() }).collect();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "rw" => mounts.iter_mut().for_each(|mount| {
                mount.rw = option == "rw";
                mount.options.retain(|other| other != "ro" && other != "rw");
                mount.options.push(option.to_owned());
            }),
            // Labels mean something only under SELinux.
            "z" => {}
            other => return Err(syntax(format!("there is no option \"{other}\": ro, rw and z are known"))),
        }
    }
    Ok(mounts)
}

/// Finds a container by name or id; what went wrong in words.
pub type Find<'a> = dyn Fn(&str) -> Result<ContainerRecord, String> + 'a;

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
    let mount = anonymous_volume(path);
    Reading { flag: "the image's VOLUME", value: destination, mount, cwd: Path::new("/") }.finish()
}

/// A mount of a build's step (`bind`, `image` or `tmpfs`): its source is a path, whatever stands in it, and
/// `options` are words of `-v`.
pub fn of_step(
    kind: &str,
    source: String,
    destination: &str,
    options: &[&str],
) -> Result<MountRecord, Error> {
    let flag = "RUN --mount";
    let path = destination_path(destination).map_err(|why| Error::Syntax {
        flag,
        value: destination.into(),
        why: why.into(),
    })?;
    let mount = MountRecord { source, ..plain(kind, path) };
    let mut reading = Reading { flag, value: destination, mount, cwd: Path::new("/") };
    options.iter().try_for_each(|option| reading.apply(option))?;
    reading.finish()
}

/// The volume of a `-v` or `--mount` that names no source.
fn anonymous_volume(destination: String) -> MountRecord {
    MountRecord { anonymous: true, ..named_volume("", destination) }
}

fn named_volume(name: &str, destination: String) -> MountRecord {
    MountRecord { name: Some(name.into()), copy_up: true, ..plain("volume", destination) }
}

fn bind(source: &str, destination: String, cwd: &Path) -> MountRecord {
    let source = normalise(&cwd.join(source)).to_string_lossy().into_owned();
    MountRecord { source, ..plain("bind", destination) }
}

fn tmpfs_mount(destination: String) -> MountRecord {
    MountRecord { copy_up: true, ..plain("tmpfs", destination) }
}

fn plain(kind: &str, destination: String) -> MountRecord {
    let options = ["nosuid", "nodev"].map(String::from).into();
    MountRecord { kind: kind.into(), destination, options, rw: true, ..MountRecord::default() }
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
        for bad in
            ["", "a:b", ":/x", "/a:/", "/a:/b/..", "a:b:c:d", "/a:/b:shiny", "no/slash:/x", "/a:/b:U=1"]
        {
            assert!(v(bad).is_err(), "{bad}");
        }
        for contrary in ["ro,rw", "z,Z", "exec,noexec", "shared,rslave", "nosuid,suid"] {
            let error = v(&format!("/a:/b:{contrary}")).unwrap_err().to_string();
            assert!(error.contains("exclude each other"), "{error}");
            assert!(mount(&format!("type=bind,src=/a,dst=/b,{contrary}"), Path::new("/")).is_err());
        }
        assert!(!v("/a:/b:ro,ro").unwrap().rw);
        assert!(v("/a:/b:U,z").unwrap().chown);
        let overlay = v("/a:/b:O,upperdir=up,workdir=/w").unwrap().overlay.unwrap();
        assert_eq!(overlay.upper.as_deref(), Some(Path::new("/home/u/up")));
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
        let all = |value| mount(value, Path::new("/w"));
        let m = |value| all(value).map(|mut mounts| mounts.remove(0));
        let bind = m("type=bind,src=/s,dst=/d,ro=true,bind-propagation=rslave").unwrap();
        assert!(!bind.rw && bind.options.contains(&"rslave".to_owned()));
        let tmp = m("type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1777").unwrap();
        assert_eq!(tmp.options, ["nosuid", "nodev", "size=64m", "mode=1777", "rw"]);
        let image = m("type=image,src=x,dst=/y,subpath=/a/../b").unwrap();
        assert_eq!((image.subpath.as_deref(), image.rw), (Some("/b"), false));
        assert!(m("type=image,src=x,dst=/y,rw=true").unwrap().rw);
        assert!(m("type=bind,src=/s,dst=/d,U").unwrap().chown);
        assert!(!m("type=volume,src=v,dst=/d,volume-nocopy").unwrap().copy_up);
        let made =
            m(r#"src=v,dst=/d,volume-opt=type=tmpfs,"volume-opt=o=size=1m,mode=700",volume-label=a=b"#);
        let made = made.unwrap();
        assert_eq!(made.volume_options, ["type=tmpfs", "o=size=1m,mode=700"]);
        assert_eq!(made.volume_labels, ["a=b"]);
        assert_eq!(m(r#"type=bind,"src=/a ""b"",c",dst=/d"#).unwrap().source, r#"/a "b",c"#);
        assert!(matches!(m("src=v,dst=/d,volume-driver=nfs"), Err(Error::Unsupported { .. })));
        let devpts = m("type=devpts,dst=/pts,mode=600,max=5").unwrap();
        assert!(devpts.options.contains(&"mode=600".to_owned()) && devpts.kind == "devpts");
        assert!(matches!(m("type=artifact,src=x,dst=/y"), Err(Error::Unsupported { .. })));
        for bad in [
            "type=bind,src=/s",
            "type=bind,dst=/d",
            "type=odd,dst=/d",
            "type=tmpfs,dst=/d,src=/x",
            "type=tmpfs,dst=/d,tmpfs-size=x",
            "type=tmpfs,dst=/d,tmpfs-mode=9",
            "type=tmpfs,dst=/d,subpath=x",
            "type=tmpfs,dst=/d,bind-propagation=rslave",
            "type=bind,src=/s,dst=/d,bind-propagation=odd",
            "type=bind,src=/s,dst=/d,ro=perhaps",
            "type=bind,src=/s,dst=/d,tmpcopyup",
            "type=volume,src=v,dst=/d,subpath=/",
            "type=glob,src=/no/such/*,dst=/d",
            "type=bind,src=/s,dst=/d,upperdir=/u",
            "type=devpts,dst=/p,max=many",
            "type=ramfs,dst=/p,copy",
            "type=bind,src=/s,dst=/d,volume-opt=type=tmpfs",
            "src=v,dst=/d,volume-opt=shiny=1",
            "src=v,dst=/d,volume-label==x",
            "type=bind,\"src=/s,dst=/d",
            "type=bind,\"src=/s\"x,dst=/d",
            "",
        ] {
            assert!(all(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn volumes_of_others() {
        let find = |name: &str| Err(format!("no container {name}"));
        assert!(volumes_from("x", &find).is_err());
        assert!(volumes_from("", &find).is_err());
    }

    #[test]
    fn tmpfs_flag_and_duplicates() {
        let a = tmpfs("/run:size=1m,noexec").unwrap();
        assert!(a.options.contains(&"size=1m".to_owned()));
        assert!(check_unique(&[a.clone(), v("x:/run").unwrap()]).is_err());
        assert!(check_unique(&[a]).is_ok());
    }
}
