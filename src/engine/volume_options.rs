//! What `volume create` was told of a volume that is more than a directory: options as for mount(8).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What a volume is, if it is no directory of the store. It is mounted in each container that uses it, and
/// only there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeOptions {
    /// As they were told: `type`, `device`, `o`.
    pub told: BTreeMap<String, String>,
    /// The owner of its directory, ids of containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// Why options make no volume.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not of the right form, or not known.
    #[error("--opt \"{option}\": {why}")]
    Option {
        /// As given.
        option: String,
        /// What is wrong with it.
        why: String,
    },
}

/// How a volume is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Its directory in the store is bound.
    Directory,
    /// A directory of the host is bound.
    Bind(PathBuf, Vec<String>),
    /// Directories are laid over one another: lower ones, upper, work.
    Overlay(Vec<PathBuf>, PathBuf, PathBuf),
    /// A file system: its type, its source, its options.
    Filesystem(String, String, Vec<String>),
}

impl VolumeOptions {
    /// Reads `--opt NAME=VALUE`, `--uid` and `--gid`.
    pub fn parse(opts: &[String], uid: Option<u32>, gid: Option<u32>) -> Result<Self, Error> {
        let mut options = Self { uid, gid, ..Self::default() };
        for option in opts {
            let bad = |why: &str| Error::Option { option: option.clone(), why: why.to_owned() };
            let (key, value) = option.split_once('=').ok_or_else(|| bad("it takes NAME=VALUE"))?;
            match key {
                "type" | "device" => {
                    options.told.insert(key.to_owned(), value.to_owned());
                }
                "o" => options.mount_options(value).map_err(|why| bad(&why))?,
                "size" | "inodes" => return Err(bad(QUOTAS)),
                _ => return Err(bad("type, device and o are known")),
            }
        }
        options.check()?;
        Ok(options)
    }

    /// The ids of `o=` are not for mount(8).
    fn mount_options(&mut self, value: &str) -> Result<(), String> {
        let mut rest = Vec::new();
        for word in value.split(',').filter(|word| !word.is_empty()) {
            let id = |text: &str| text.parse::<u32>().map_err(|_| format!("\"{text}\" is no id"));
            match word.split_once('=') {
                Some(("uid", text)) => self.uid = Some(id(text)?),
                Some(("gid", text)) => self.gid = Some(id(text)?),
                Some(("timeout", _)) | None if word == "noquota" || word.starts_with("timeout=") => {}
                _ => rest.push(word),
            }
        }
        if !rest.is_empty() {
            let all = self.told.entry("o".to_owned()).or_default();
            if !all.is_empty() {
                all.push(',');
            }
            all.push_str(&rest.join(","));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        let error = |key: &str, why: &str| {
            let value = self.told.get(key).map_or("", String::as_str);
            Err(Error::Option { option: format!("{key}={value}"), why: why.to_owned() })
        };
        let of = |key: &str| self.told.get(key).map(String::as_str).filter(|text| !text.is_empty());
        let words = self.words();
        let binds = words.iter().any(|word| word == "bind" || word == "rbind");
        if words.iter().any(|word| word.starts_with("size=") || word.starts_with("nr_inodes="))
            && of("type") != Some("tmpfs")
        {
            return error("o", QUOTAS);
        }
        match (of("type"), of("device")) {
            (None, None) if !words.is_empty() => error("o", "mount options need a type or a device"),
            (Some("bind" | "none"), None) => error("type", "it needs a device: the directory"),
            (Some("bind" | "none"), Some(path)) | (None, Some(path))
                if binds || of("type") == Some("bind") =>
            {
                if path.starts_with('/') {
                    Ok(())
                } else {
                    error("device", "a directory is an absolute path")
                }
            }
            (Some("none") | None, Some(_)) => error("device", "it needs a type, or o=bind"),
            (Some("overlay"), _) => match self.overlay() {
                Some(_) => Ok(()),
                None => error("o", "an overlay needs lowerdir=, upperdir= and workdir="),
            },
            (Some("tmpfs" | "ramfs"), _) | (None, None) => Ok(()),
            (Some(_), None) => error("type", "it needs a device"),
            (Some(_), Some(_)) => Ok(()),
        }
    }

    fn words(&self) -> Vec<String> {
        let told = self.told.get("o").map_or("", String::as_str);
        told.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    fn overlay(&self) -> Option<(Vec<PathBuf>, PathBuf, PathBuf)> {
        let words = self.words();
        let of = |key: &str| words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let lower: Vec<PathBuf> = of("lowerdir")?.split(':').map(PathBuf::from).collect();
        let absolute = |path: &Path| path.is_absolute();
        let (upper, work) = (PathBuf::from(of("upperdir")?), PathBuf::from(of("workdir")?));
        let all = lower.iter().all(|path| absolute(path)) && absolute(&upper) && absolute(&work);
        all.then_some((lower, upper, work))
    }

    /// How the volume is mounted.
    pub fn driver(&self) -> Driver {
        let of = |key: &str| self.told.get(key).map(String::as_str).filter(|text| !text.is_empty());
        let words = self.words();
        let binds = words.iter().any(|word| word == "bind" || word == "rbind");
        match (of("type"), of("device")) {
            (None, None) => Driver::Directory,
            (Some("bind"), Some(path)) => Driver::Bind(path.into(), words),
            (_, Some(path)) if binds => Driver::Bind(path.into(), words),
            (Some("overlay"), _) => match self.overlay() {
                Some((lower, upper, work)) => Driver::Overlay(lower, upper, work),
                None => Driver::Directory,
            },
            (fstype, device) => {
                let fstype = fstype.unwrap_or("none").to_owned();
                let source = device.map_or_else(|| fstype.clone(), str::to_owned);
                let mut words = words;
                if matches!(fstype.as_str(), "tmpfs" | "ramfs") {
                    // Of such a one the ids are the file system's own.
                    words.extend(self.uid.map(|id| format!("uid={id}")));
                    words.extend(self.gid.map(|id| format!("gid={id}")));
                }
                Driver::Filesystem(fstype, source, words)
            }
        }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

const QUOTAS: &str =
    "sizes of directories need project quotas, which are not supported yet; type=tmpfs has one";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(opts: &[&str]) -> Result<VolumeOptions, Error> {
        VolumeOptions::parse(&opts.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), None, None)
    }

    #[test]
    fn drivers() {
        assert_eq!(parse(&[]).unwrap().driver(), Driver::Directory);
        let owned = parse(&["o=uid=5,gid=6"]).unwrap();
        assert_eq!((owned.driver(), owned.uid, owned.gid), (Driver::Directory, Some(5), Some(6)));
        let bind = parse(&["type=none", "o=bind,ro", "device=/x"]).unwrap().driver();
        assert_eq!(bind, Driver::Bind("/x".into(), vec!["bind".into(), "ro".into()]));
        let tmpfs = parse(&["type=tmpfs", "device=tmpfs", "o=size=1m,uid=7"]).unwrap().driver();
        let words = vec!["size=1m".to_owned(), "uid=7".to_owned()];
        assert_eq!(tmpfs, Driver::Filesystem("tmpfs".into(), "tmpfs".into(), words));
        let overlay = parse(&["type=overlay", "device=overlay", "o=lowerdir=/a:/b,upperdir=/u,workdir=/w"]);
        let lower = vec![PathBuf::from("/a"), "/b".into()];
        assert_eq!(overlay.unwrap().driver(), Driver::Overlay(lower, "/u".into(), "/w".into()));
        for bad in [
            &["x"][..],
            &["odd=1"],
            &["size=1g"],
            &["o=size=1g"],
            &["o=uid=x"],
            &["o=ro"],
            &["type=bind"],
            &["type=none", "device=/x"],
            &["type=none", "o=bind", "device=rel"],
            &["type=overlay", "device=overlay", "o=lowerdir=/a"],
            &["type=ext4"],
            &["device=/dev/x"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
