//! `registries.conf`: where short names lead, and where a registry's images are really fetched
//! from (containers-registries.conf(5), version 2).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::reference::Reference;

/// The configuration cannot be used, or forbids what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("reading \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not TOML, or a value has the wrong type.
    #[error("parsing \"{}\" (line {line}): {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What the parser says, in one line.
        message: String,
    },
    /// A value that cannot be.
    #[error("\"{}\": {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        what: String,
    },
    /// `blocked = true`.
    #[error("\"{name}\" is blocked: registries.conf forbids \"{prefix}\"")]
    Blocked {
        /// The image.
        name: String,
        /// The entry's prefix.
        prefix: String,
    },
    /// A location that makes no image name.
    #[error("registries.conf leads \"{name}\" to \"{target}\", which is not an image name")]
    Target {
        /// The image.
        name: String,
        /// What it was rewritten to.
        target: String,
    },
    /// `short-name-mode = "enforcing"`, and several registries to search.
    #[error("the short name \"{name}\" may mean {}", candidates.join(" or "))]
    Ambiguous {
        /// The name.
        name: String,
        /// The full names.
        candidates: Vec<String>,
    },
}

impl Error {
    /// What may help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Ambiguous { .. } => {
                Some("use the full name, or give it in [aliases] of registries.conf".into())
            }
            _ => None,
        }
    }
}

/// What `short-name-mode` says. Where Podman would ask on a terminal, `Permissive` searches all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ShortNameMode {
    Enforcing,
    #[default]
    Permissive,
    Disabled,
}

/// One file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<String>,
    credential_helpers: Option<Vec<String>>,
    registry: Vec<Entry>,
    aliases: BTreeMap<String, String>,
    /// Of version 1, which nobody writes any more.
    registries: Option<toml::Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Entry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror: Vec<Mirror>,
    mirror_by_digest_only: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: PullFrom,
}

/// For which references a mirror serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

/// One place to fetch an image from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// What to ask for there.
    pub reference: Reference,
    /// Any certificate will do, and plain HTTP.
    pub insecure: bool,
}

/// All files together.
#[derive(Debug, Default)]
pub struct Registries {
    search: Option<Vec<String>>,
    mode: ShortNameMode,
    helpers: Option<Vec<String>>,
    entries: BTreeMap<String, Entry>,
    aliases: BTreeMap<String, Reference>,
}

/// The name that stands for the auth files in `credential-helpers`.
pub const AUTH_FILES: &str = "containers-auth.json";

impl Registries {
    /// Reads the files of the system and the user. `env` is the environment; a file that is not
    /// there is none, but for one that `$CONTAINERS_REGISTRIES_CONF` names.
    pub fn read(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        Self::read_below(Path::new("/etc/containers"), env)
    }

    fn read_below(system: &Path, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let own = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        let own = own.map(|dir| dir.join("containers"));
        let of_user = own.as_ref().map(|dir| dir.join("registries.conf"));
        let mut all = Self::default();
        let mut drop_ins = Vec::new();
        if let Some(named) = set("CONTAINERS_REGISTRIES_CONF") {
            let text = std::fs::read_to_string(&named)
                .map_err(|source| Error::Read { path: named.clone(), source })?;
            all.merge(&named, &text)?;
            drop_ins.push(system.join("registries.conf.d"));
        } else if let Some((path, text)) = of_user.and_then(|path| Some((path.clone(), optional(&path)?))) {
            // A user's own file takes the place of all the system's.
            all.merge(&path, &text?)?;
        } else {
            let path = system.join("registries.conf");
            optional(&path).transpose()?.map_or(Ok(()), |text| all.merge(&path, &text))?;
            drop_ins.push(system.join("registries.conf.d"));
        }
        drop_ins.extend(own.map(|dir| dir.join("registries.conf.d")));
        for dir in drop_ins {
            for path in confs(&dir)? {
                optional(&path).transpose()?.map_or(Ok(()), |text| all.merge(&path, &text))?;
            }
        }
        // What a person has chosen once, asked by Podman, goes before everything; of what it holds
        // only that is taken.
        let cached = chosen_aliases(env);
        if let Some((path, text)) = cached.and_then(|path| Some((path.clone(), optional(&path)?))) {
            let mut chosen = Self::default();
            chosen.merge(&path, &text?)?;
            all.aliases.extend(chosen.aliases);
        }
        Ok(all)
    }

    /// Adds a file; what it says goes before what was said.
    fn merge(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let invalid = |what: String| Error::Invalid { path: path.to_owned(), what };
        let file: File = toml::from_str(text).map_err(|error| Error::Parse {
            path: path.to_owned(),
            line: text[..error.span().map_or(0, |span| span.start.min(text.len()))].matches('\n').count() + 1,
            message: error.message().replace('\n', " "),
        })?;
        if file.registries.is_some() {
            return Err(invalid("the format of version 1 ([registries]) is not supported".into()));
        }
        self.search = file.unqualified_search_registries.or(self.search.take());
        self.helpers = file.credential_helpers.or(self.helpers.take());
        match file.short_name_mode.as_deref() {
            None | Some("") => {}
            Some("enforcing") => self.mode = ShortNameMode::Enforcing,
            Some("permissive") => self.mode = ShortNameMode::Permissive,
            Some("disabled") => self.mode = ShortNameMode::Disabled,
            Some(other) => return Err(invalid(format!("short-name-mode \"{other}\" is not known"))),
        }
        for mut entry in file.registry {
            for text in [&mut entry.prefix, &mut entry.location]
                .into_iter()
                .chain(entry.mirror.iter_mut().map(|mirror| &mut mirror.location))
            {
                text.truncate(text.trim_end_matches('/').len());
            }
            if entry.prefix.is_empty() {
                entry.prefix.clone_from(&entry.location);
            }
            if entry.prefix.is_empty() {
                return Err(invalid("a [[registry]] has neither prefix nor location".into()));
            }
            if entry.location.is_empty() && !entry.prefix.starts_with("*.") {
                return Err(invalid(format!("the [[registry]] \"{}\" has no location", entry.prefix)));
            }
            if entry.prefix.starts_with("*.") && entry.prefix.contains(['/', '@', ':']) {
                return Err(invalid(format!(
                    "the prefix \"{}\" is not of the form *.example.com",
                    entry.prefix
                )));
            }
            if entry.mirror.iter().any(|mirror| mirror.location.is_empty()) {
                return Err(invalid(format!("a mirror of \"{}\" has no location", entry.prefix)));
            }
            if entry.mirror_by_digest_only {
                if entry.mirror.iter().any(|mirror| mirror.pull_from_mirror != PullFrom::All) {
                    let what = format!("\"{}\" has mirror-by-digest-only and pull-from-mirror", entry.prefix);
                    return Err(invalid(what));
                }
                entry.mirror.iter_mut().for_each(|mirror| mirror.pull_from_mirror = PullFrom::DigestOnly);
            }
            self.entries.insert(entry.prefix.clone(), entry);
        }
        for (name, target) in file.aliases {
            if target.is_empty() {
                // So a drop-in takes an alias back.
                self.aliases.remove(&name);
                continue;
            }
            let parsed = target.parse::<Reference>().ok();
            let full = parsed.filter(|r| !r.is_short() && r.tag().is_none() && r.digest().is_none());
            let full = full.ok_or_else(|| {
                invalid(format!("the alias \"{name}\" = \"{target}\" is not registry/name"))
            })?;
            self.aliases.insert(name, full);
        }
        Ok(())
    }

    /// What `credential-helpers` says; the auth files alone if it says nothing.
    pub fn credential_helpers(&self) -> Vec<String> {
        self.helpers.clone().unwrap_or_else(|| vec![AUTH_FILES.to_owned()])
    }

    /// Where short names are looked for; without a word about it Docker's rule.
    pub fn search_registries(&self) -> Vec<String> {
        let named = self.search.clone().filter(|list| !list.is_empty());
        named.unwrap_or_else(|| vec!["docker.io".to_owned()])
    }

    /// The first registry that short names are searched in, if the files name one.
    pub fn first(&self) -> Option<&str> {
        self.search.as_deref()?.first().map(String::as_str)
    }

    /// The full names that a short name may mean, in the order to try; a full name means itself.
    pub fn candidates(&self, reference: &Reference) -> Result<Vec<Reference>, Error> {
        if !reference.is_short() {
            return Ok(vec![reference.clone()]);
        }
        if self.mode != ShortNameMode::Disabled
            && let Some(target) = self.aliases.get(reference.repository())
        {
            return Ok(vec![reference.named_as(target)]);
        }
        let candidates: Vec<Reference> =
            self.search_registries().iter().map(|registry| reference.at(registry)).collect();
        if self.mode == ShortNameMode::Enforcing && candidates.len() > 1 {
            let candidates = candidates.iter().map(ToString::to_string).collect();
            return Err(Error::Ambiguous { name: reference.to_string(), candidates });
        }
        Ok(candidates)
    }

    /// Where to fetch an image of a full name, in the order to try: mirrors first.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
        let text = reference.to_string();
        let matching =
            self.entries.values().filter_map(|entry| Some((matched(&entry.prefix, &text)?, entry)));
        let Some((length, entry)) = matching.max_by_key(|(length, entry)| (*length, entry.prefix.len()))
        else {
            return Ok(vec![Endpoint { reference: reference.clone(), insecure: false }]);
        };
        if entry.blocked {
            return Err(Error::Blocked { name: text, prefix: entry.prefix.clone() });
        }
        let rewrite = |location: &str| {
            if location.is_empty() {
                return Ok(reference.clone());
            }
            let target = format!("{location}{}", &text[length..]);
            let parsed = target.parse::<Reference>().ok().filter(|target| !target.is_short());
            parsed.ok_or_else(|| Error::Target { name: text.clone(), target })
        };
        let serves = |mirror: &&Mirror| match mirror.pull_from_mirror {
            PullFrom::All => true,
            PullFrom::DigestOnly => reference.digest().is_some(),
            PullFrom::TagOnly => reference.digest().is_none(),
        };
        let mirrors = entry.mirror.iter().filter(serves).map(|mirror| (&mirror.location, mirror.insecure));
        mirrors
            .chain([(&entry.location, entry.insecure)])
            .map(|(location, insecure)| Ok(Endpoint { reference: rewrite(location)?, insecure }))
            .collect()
    }
}

/// Where Podman notes the answers to its questions (containers-registries.conf(5), "short-name-mode").
fn chosen_aliases(env: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    const NAME: &str = "containers/short-name-aliases.conf";
    if rustix::process::geteuid().is_root() {
        return Some(Path::new("/var/cache").join(NAME));
    }
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join(NAME))
}

/// How many bytes of a full name a prefix takes; `None` if it is no prefix of it.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    let boundary = |length: usize| matches!(name.as_bytes().get(length), None | Some(b'/' | b':' | b'@'));
    match prefix.strip_prefix('*') {
        Some(domain) => {
            let host = name.split('/').next().unwrap_or(name);
            let host = host.split(':').next().unwrap_or(host);
            (host.len() > domain.len() && host.ends_with(domain)).then_some(host.len())
        }
        None => (name.starts_with(prefix) && boundary(prefix.len())).then_some(prefix.len()),
    }
}

fn optional(path: &Path) -> Option<Result<String, Error>> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        other => Some(other.map_err(|source| Error::Read { path: path.to_owned(), source })),
    }
}

/// The drop-ins of a directory, in the order of their names.
fn confs(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| Error::Read { path: dir.to_owned(), source })?,
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(texts: &[&str]) -> Registries {
        let mut all = Registries::default();
        texts.iter().for_each(|text| all.merge(Path::new("f"), text).unwrap());
        all
    }

    fn refusal(text: &str) -> String {
        Registries::default().merge(Path::new("f"), text).unwrap_err().to_string()
    }

    fn endpoints(all: &Registries, name: &str) -> Vec<(String, bool)> {
        let found = all.endpoints(&name.parse().unwrap()).unwrap();
        found.into_iter().map(|e| (e.reference.to_string(), e.insecure)).collect()
    }

    fn candidates(all: &Registries, name: &str) -> Vec<String> {
        all.candidates(&name.parse().unwrap()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn short_names() {
        let none = Registries::default();
        assert_eq!(candidates(&none, "x"), ["docker.io/library/x"]);
        let two = "unqualified-search-registries = [\n 'a.io', # c\n \"b.io\",\n]\n[aliases]\n\"x\" = \"c.io/y/x\"\n";
        let all = registries(&[two]);
        assert_eq!(candidates(&all, "z:1"), ["a.io/z:1", "b.io/z:1"]);
        assert_eq!(candidates(&all, "x:1"), ["c.io/y/x:1"]);
        assert_eq!(candidates(&all, "d.io/x"), ["d.io/x"]);
        let strict = registries(&[two, "short-name-mode = \"enforcing\""]);
        assert!(matches!(strict.candidates(&"z".parse().unwrap()), Err(Error::Ambiguous { .. })));
        assert_eq!(candidates(&strict, "x"), ["c.io/y/x"]);
        let without = registries(&[two, "[aliases]\nx = \"\"", "unqualified-search-registries = [\"e.io\"]"]);
        assert_eq!(candidates(&without, "x"), ["e.io/x"]);
        let off = registries(&[two, "short-name-mode = 'disabled'"]);
        assert_eq!(candidates(&off, "x"), ["a.io/x", "b.io/x"]);
    }

    #[test]
    fn the_longest_prefix_rewrites() {
        let all = registries(&["
            [[registry]]
            location = 'a.io'
            [[registry]]
            prefix = 'a.io/team'
            location = 'b.io:5000/mirror/'
            insecure = true
            [[registry]]
            prefix = '*.example.com'
            [[registry.mirror]]
            location = 'm.io/all'
            [[registry]]
            prefix = 'no.io/x'
            location = 'no.io/x'
            blocked = true
        "]);
        let plain = |name: &str| vec![(name.to_owned(), false)];
        assert_eq!(endpoints(&all, "a.io/x:1"), plain("a.io/x:1"));
        assert_eq!(endpoints(&all, "a.io/team/x:1"), [("b.io:5000/mirror/x:1".to_owned(), true)]);
        assert_eq!(endpoints(&all, "a.io/teams/x"), plain("a.io/teams/x"));
        assert_eq!(
            endpoints(&all, "q.w.example.com/x"),
            [("m.io/all/x".to_owned(), false), ("q.w.example.com/x".to_owned(), false)]
        );
        assert_eq!(endpoints(&all, "example.com/x"), plain("example.com/x"));
        assert_eq!(endpoints(&all, "c.io/q.example.com/x"), plain("c.io/q.example.com/x"));
        let blocked = |name: &str| all.endpoints(&name.parse().unwrap()).is_err();
        assert!(blocked("no.io/x:1") && blocked("no.io/x/y") && !blocked("no.io/xy"));
    }

    #[test]
    fn mirrors_for_digests_or_tags() {
        let digest = format!("a.io/x@sha256:{}", "0".repeat(64));
        let all = registries(&["
            [[registry]]
            location = 'a.io'
            mirror = [
                { location = 'd.io', pull-from-mirror = 'digest-only' },
                { location = 't.io', pull-from-mirror = 'tag-only', insecure = true },
            ]
        "]);
        assert_eq!(endpoints(&all, "a.io/x"), [("t.io/x".to_owned(), true), ("a.io/x".to_owned(), false)]);
        assert_eq!(endpoints(&all, &digest)[0].0, digest.replace("a.io", "d.io"));
        let all = registries(&[
            "[[registry]]\nlocation='a.io'\nmirror-by-digest-only=true\nmirror=[{location='m.io'}]",
        ]);
        assert_eq!(endpoints(&all, "a.io/x").len(), 1);
        assert_eq!(endpoints(&all, &digest).len(), 2);
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert!(refusal("a = [\n").contains("(line "));
        assert!(refusal("\nunqualified-search-registries = 3").contains("(line 2)"));
        for (text, part) in [
            ("[[registry]]\ninsecure = true", "neither prefix nor location"),
            ("[[registry]]\nprefix = 'a.io'", "no location"),
            ("[[registry]]\nprefix = '*.a.io/x'\nlocation = 'b'", "*.example.com"),
            ("[[registry]]\nlocation = 'a.io'\n[[registry.mirror]]\ninsecure = true", "a mirror"),
            (
                "[[registry]]\nlocation = 'a.io'\nmirror = [{location='b', pull-from-mirror='x'}]",
                "unknown variant",
            ),
            ("short-name-mode = 'x'", "short-name-mode"),
            ("[aliases]\nx = 'y'", "the alias"),
            ("[registries.search]\nregistries = ['a']", "version 1"),
        ] {
            assert!(refusal(text).contains(part), "{text}: {}", refusal(text));
        }
        let bad = registries(&["[[registry]]\nprefix = 'a.io'\nlocation = 'B'"]);
        assert!(matches!(bad.endpoints(&"a.io/x".parse().unwrap()), Err(Error::Target { .. })));
    }

    #[test]
    fn files_of_system_and_user() {
        let dir = std::env::temp_dir().join(format!("umiak-registries-{}", std::process::id()));
        let write = |path: &str, search: &str| {
            let path = dir.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, format!("unqualified-search-registries = ['{search}']")).unwrap();
            path
        };
        let first = |named: Option<&Path>| {
            let env = |name: &str| match name {
                "HOME" => Some(dir.join("home").into()),
                "CONTAINERS_REGISTRIES_CONF" => named.map(Into::into),
                _ => None,
            };
            let all = Registries::read_below(&dir.join("etc"), &env);
            all.map(|all| candidates(&all, "x").remove(0))
        };
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(first(None).unwrap(), "docker.io/library/x");
        write("etc/registries.conf", "system.io");
        assert_eq!(first(None).unwrap(), "system.io/x");
        write("etc/registries.conf.d/2.conf", "second.io");
        write("etc/registries.conf.d/1.conf", "first.io");
        write("etc/registries.conf.d/3.txt", "text.io");
        assert_eq!(first(None).unwrap(), "second.io/x");
        write("home/.config/containers/registries.conf", "user.io");
        assert_eq!(first(None).unwrap(), "user.io/x");
        let named = write("named", "named.io");
        std::fs::remove_dir_all(dir.join("etc/registries.conf.d")).unwrap();
        assert_eq!(first(Some(&named)).unwrap(), "named.io/x");
        write("home/.config/containers/registries.conf.d/x.conf", "drop.io");
        assert_eq!(first(Some(&named)).unwrap(), "drop.io/x");
        assert_eq!(first(None).unwrap(), "drop.io/x");
        assert!(first(Some(&dir.join("absent"))).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
