//! What the options of a mount mean, of `-v`, `--tmpfs` and `--mount` alike.

use std::path::Path;

use super::super::volume_options::VolumeOptions;
use super::super::volumes::split_label;
use super::{Error, clean, normalise};
use crate::storage::containers::{MountRecord, OverlayRecord};

/// Passed on as they are.
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
    "nosuid",
    "nodev",
    "noatime",
    "atime",
    "relatime",
    "strictatime",
    "nodiratime",
    "diratime",
    "rro",
];

const PROPAGATION: &[&str] =
    &["private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable"];

/// Of each of these only one can be meant.
const CONTRARY: &[&[&str]] = &[
    &["ro", "rw"],
    &["z", "Z"],
    &["exec", "noexec"],
    &["dev", "nodev"],
    &["suid", "nosuid"],
    &["bind", "rbind"],
    &["copy", "nocopy"],
    &["tmpcopyup", "notmpcopyup"],
    PROPAGATION,
];

/// A mount whose options are being read.
pub(super) struct Reading<'a> {
    pub flag: &'static str,
    pub value: &'a str,
    pub mount: MountRecord,
    pub cwd: &'a Path,
}

impl Reading<'_> {
    fn syntax(&self, why: impl Into<String>) -> Error {
        Error::Syntax { flag: self.flag, value: self.value.into(), why: why.into() }
    }

    fn unknown(&self, option: &str) -> Error {
        self.syntax(format!("there is no option \"{option}\" for it"))
    }

    fn is(&self, kinds: &[&str]) -> bool {
        kinds.contains(&self.mount.kind.as_str())
    }

    /// The words of `-v` and `--tmpfs`, parted by commas.
    pub fn apply_all(&mut self, options: &str) -> Result<(), Error> {
        let words = || options.split(',').filter(|option| !option.is_empty());
        self.agree(&words().collect::<Vec<_>>())?;
        words().try_for_each(|option| self.apply(option))
    }

    /// Refuses words of which one takes back another, as Podman does.
    pub fn agree(&self, words: &[&str]) -> Result<(), Error> {
        for group in CONTRARY {
            let mut of = words.iter().filter(|word| group.contains(word));
            if let Some(first) = of.next()
                && let Some(other) = of.find(|word| *word != first)
            {
                return Err(self.syntax(format!("\"{first}\" and \"{other}\" exclude each other")));
            }
        }
        Ok(())
    }

    /// A word of `-v` and `--tmpfs`.
    pub fn apply(&mut self, option: &str) -> Result<(), Error> {
        let (tmpfs, files) = (self.is(&["tmpfs", "ramfs"]), self.is(&["bind", "volume"]));
        let (key, text) = option.split_once('=').map_or((option, None), |(key, text)| (key, Some(text)));
        let mount = &mut self.mount;
        match (key, text) {
            ("ro", None) => mount.rw = false,
            ("rw", None) => mount.rw = true,
            // Labels mean something only under SELinux; Podman ignores them elsewhere too. "cached" and the
            // like were for Docker on other systems.
            ("z" | "Z" | "cached" | "delegated" | "consistent", None) if files => {}
            ("U", None) if files || tmpfs => mount.chown = true,
            ("O", None) if files => drop(mount.overlay.get_or_insert_default()),
            ("upperdir" | "workdir", Some(dir)) if files => {
                let path = normalise(&self.cwd.join(dir));
                let overlay = mount.overlay.get_or_insert_default();
                if key == "upperdir" { overlay.upper = Some(path) } else { overlay.work = Some(path) }
            }
            ("idmap" | "ridmap", _) if files => mount.options.push(option.into()),
            ("copy", None) if mount.kind == "volume" => mount.copy_up = true,
            ("nocopy", None) if mount.kind == "volume" => mount.copy_up = false,
            ("tmpcopyup", None) if mount.kind == "tmpfs" => mount.copy_up = true,
            ("notmpcopyup", None) if mount.kind == "tmpfs" => mount.copy_up = false,
            ("suid" | "dev" | "exec", None) => {
                let opposite = format!("no{option}");
                mount.options.retain(|o| *o != opposite);
            }
            (key, None) if PROPAGATION.contains(&key) || matches!(key, "bind" | "rbind") => {
                if !files {
                    return Err(self.unknown(option));
                }
                if PROPAGATION.contains(&key) {
                    mount.options.retain(|other| !PROPAGATION.contains(&other.as_str()));
                } else {
                    mount.options.retain(|other| other != "bind" && other != "rbind");
                }
                mount.options.push(key.into());
            }
            (key, None) if PLAIN.contains(&key) => mount.options.push(key.into()),
            ("size" | "mode" | "nr_inodes" | "nr_blocks" | "uid" | "gid", Some(text)) if tmpfs => {
                return self.of_tmpfs(key, text);
            }
            _ => return Err(self.unknown(option)),
        }
        Ok(())
    }

    /// What the kernel would refuse without a reason.
    fn of_tmpfs(&mut self, key: &str, text: &str) -> Result<(), Error> {
        let digits = text.trim_end_matches(|c: char| "kKmMgGtT%".contains(c));
        let number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        let sound = match key {
            "size" | "nr_inodes" | "nr_blocks" => number && text.len() - digits.len() <= 1,
            "mode" => u32::from_str_radix(text, 8).is_ok_and(|mode| mode <= 0o7777),
            _ => number && text == digits,
        };
        if !sound {
            return Err(self.syntax(format!("\"{text}\" is no {key}")));
        }
        self.mount.options.push(format!("{key}={text}"));
        Ok(())
    }

    /// A word of `--mount`.
    pub fn apply_long(&mut self, item: &str) -> Result<(), Error> {
        let (key, text) = item.split_once('=').map_or((item, None), |(key, text)| (key, Some(text)));
        let on = match text {
            None | Some("true" | "1") => Some(true),
            Some("false" | "0") => Some(false),
            Some(_) => None,
        };
        let files = self.is(&["bind", "volume"]);
        match (key, text, on) {
            ("ro" | "readonly", _, Some(on)) => self.mount.rw = !on,
            ("rw" | "readwrite", _, Some(on)) => self.mount.rw = on,
            ("bind-propagation", Some(mode), _) if PROPAGATION.contains(&mode) => return self.apply(mode),
            ("bind-nonrecursive", _, Some(on)) => return self.apply(if on { "bind" } else { "rbind" }),
            ("relabel", Some("shared"), _) => return self.apply("z"),
            ("relabel", Some("private"), _) => return self.apply("Z"),
            ("U" | "chown", _, Some(on)) if files || self.is(&["tmpfs", "ramfs"]) => self.mount.chown = on,
            ("consistency", Some(_), _) => {}
            ("tmpfs-size", Some(size), _) if self.is(&["tmpfs"]) => return self.of_tmpfs("size", size),
            ("tmpfs-mode", Some(mode), _) if self.is(&["tmpfs"]) => return self.of_tmpfs("mode", mode),
            ("tmpcopyup", _, Some(on)) if self.is(&["tmpfs"]) => self.mount.copy_up = on,
            ("volume-nocopy", _, Some(on)) if self.is(&["volume"]) => self.mount.copy_up = !on,
            ("no-dereference", _, Some(on)) if self.is(&["bind"]) => {
                self.mount.options.retain(|other| other != "src-nofollow");
                self.mount.options.extend(on.then(|| "src-nofollow".to_owned()));
            }
            ("subpath" | "volume-subpath", Some(path), _) if self.is(&["volume", "image"]) => {
                let clean = clean(path);
                if clean == "/" {
                    return Err(self.syntax(format!("the subpath \"{path}\" names nothing below it")));
                }
                self.mount.subpath = Some(clean);
            }
            ("uid" | "gid" | "max" | "mode", Some(text), _) if self.is(&["devpts"]) => {
                let radix = if key == "mode" { 8 } else { 10 };
                if u32::from_str_radix(text, radix).is_err() {
                    return Err(self.syntax(format!("\"{text}\" is no {key}")));
                }
                self.mount.options.push(item.into());
            }
            ("volume-opt", Some(option), _) if self.is(&["volume"]) => {
                self.mount.volume_options.push(option.into());
            }
            ("volume-label", Some(label), _) if self.is(&["volume"]) => {
                self.mount.volume_labels.push(label.into());
            }
            ("volume-driver", Some("local"), _) if self.is(&["volume"]) => {}
            ("volume-driver", Some(_), _) if self.is(&["volume"]) => {
                return Err(Error::Unsupported {
                    flag: self.flag,
                    value: self.value.into(),
                    what: item.to_owned(),
                });
            }
            _ => return self.apply(item),
        }
        Ok(())
    }

    /// Adds what was left to be understood: how it is bound, its propagation, its direction.
    pub fn finish(self) -> Result<MountRecord, Error> {
        if let Some(OverlayRecord { upper, work }) = &self.mount.overlay {
            if upper.is_some() != work.is_some() {
                return Err(self.syntax("upperdir and workdir need each other"));
            }
            if self.mount.options.iter().any(|option| option.contains("idmap")) {
                return Err(self.syntax("an overlay cannot have ids mapped"));
            }
        }
        let made = VolumeOptions::parse(&self.mount.volume_options, None, None);
        made.map_err(|why| self.syntax(why.to_string()))?;
        if self.mount.volume_labels.iter().any(|label| split_label(label).is_none()) {
            return Err(self.syntax("a label has no name"));
        }
        let mut mount = self.mount;
        let mut options = std::mem::take(&mut mount.options);
        if matches!(mount.kind.as_str(), "bind" | "volume" | "image") {
            if !options.iter().any(|o| o == "bind" || o == "rbind") {
                options.push("rbind".into());
            }
            if !options.iter().any(|option| PROPAGATION.contains(&option.as_str())) {
                options.push("rprivate".into());
            }
        }
        if mount.kind == "devpts" {
            options.retain(|option| option != "nodev");
            options.push("newinstance".into());
            options.push("ptmxmode=0666".into());
        }
        options.push(if mount.rw { "rw" } else { "ro" }.into());
        let mut seen = Vec::with_capacity(options.len());
        for option in options {
            if !seen.contains(&option) {
                seen.push(option);
            }
        }
        mount.options = seen;
        Ok(mount)
    }
}
