//! `registries.d` (containers-registries.d(5)): where the signatures of a registry's images are kept.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::policy::registry_scopes;
use super::yaml::{self, Value};
use crate::base::digest::Digest;
use crate::image::Reference;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("reading \"{}\"", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not in the part of YAML that is understood.
    #[error("parsing \"{}\"", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: yaml::Error,
    },
    /// A value that cannot be.
    #[error("\"{}\": {what}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Which, and why.
        what: String,
    },
}

/// What one section says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Where signatures are read: `lookaside`, once called `sigstore`.
    pub lookaside: Option<String>,
    /// Where signatures are written: `lookaside-staging`.
    pub staging: Option<String>,
    /// Whether the registry itself holds signatures as attachments.
    pub attachments: Option<bool>,
}

/// All files together.
#[derive(Clone, Debug, Default)]
pub struct Lookaside {
    /// `default-docker`.
    pub default: Option<Section>,
    /// `docker`, by scope.
    pub sections: BTreeMap<String, Section>,
    /// Where signatures are if nothing is said.
    builtin: Option<PathBuf>,
}

/// The directory of the files: the user's if it is there, else the system's.
pub fn directory(env: &dyn Fn(&str) -> Option<OsString>) -> PathBuf {
    let home = env("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let own = home.map(|home| home.join(".config/containers/registries.d")).filter(|dir| dir.is_dir());
    own.unwrap_or_else(|| PathBuf::from("/etc/containers/registries.d"))
}

impl Lookaside {
    /// Reads all `*.yaml` of the directory that holds.
    pub fn read(env: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let mut all = Self::read_from(&directory(env))?;
        all.builtin = if rustix::process::getuid().is_root() {
            Some(PathBuf::from("/var/lib/containers/sigstore"))
        } else {
            let data = env("XDG_DATA_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
            let home = || env("HOME").map(|home| PathBuf::from(home).join(".local/share"));
            data.or_else(home).map(|data| data.join("containers/sigstore"))
        };
        Ok(all)
    }

    /// Reads all `*.yaml` of a directory.
    pub fn read_from(dir: &Path) -> Result<Self, Error> {
        let mut all = Self::default();
        let entries = match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
            other => other.map_err(|source| Error::Read { path: dir.to_owned(), source })?,
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path)
                .map_err(|source| Error::Read { path: path.clone(), source })?;
            all.merge(&path, &text)?;
        }
        Ok(all)
    }

    /// Adds a file. No scope may be spoken of twice.
    pub fn merge(&mut self, path: &Path, text: &str) -> Result<(), Error> {
        let invalid = |what: String| Error::Invalid { path: path.to_owned(), what };
        let value = yaml::parse(text).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
        let no_map = |key: &str| invalid(format!("\"{key}\" holds no keys"));
        for (key, value) in value.map().ok_or_else(|| no_map("the file"))? {
            let map = value.map().ok_or_else(|| no_map(key))?;
            match key.as_str() {
                "default-docker" => {
                    let found = section(map).map_err(&invalid)?;
                    let before = self.default.replace(found);
                    let again = || invalid("\"default-docker\" is there already, from another file".into());
                    before.map_or(Ok(()), |_| Err(again()))?;
                }
                "docker" => {
                    for (scope, value) in map {
                        let found = section(value.map().ok_or_else(|| no_map(scope))?).map_err(&invalid)?;
                        if self.sections.insert(scope.clone(), found).is_some() {
                            return Err(invalid(format!("\"{scope}\" is there already, from another file")));
                        }
                    }
                }
                // Others' keys have been ignored by every reader.
                _ => {}
            }
        }
        Ok(())
    }

    /// The one section that holds for an image: the narrowest scope's.
    pub fn section(&self, reference: &Reference) -> Option<&Section> {
        let name = reference.name();
        let whole = match reference.digest() {
            Some(digest) => format!("{name}@{digest}"),
            None => format!("{name}:{}", reference.tag().unwrap_or("latest")),
        };
        let scopes = registry_scopes(&name, whole);
        scopes
            .iter()
            .filter(|scope| !scope.starts_with('*'))
            .find_map(|s| self.sections.get(s))
            .or(self.default.as_ref())
    }

    /// Where signatures of an image's are written, as a URL.
    pub fn staging(&self, reference: &Reference) -> Option<String> {
        match self.section(reference) {
            Some(section) => section.staging.clone().or_else(|| section.lookaside.clone()),
            None => Some(format!("file://{}", self.builtin.as_ref()?.display())),
        }
    }

    /// Where signature `number` (from 1) of a manifest is, as a URL of `file:`, `http:` or `https:`.
    pub fn url(&self, reference: &Reference, manifest: &Digest, number: usize) -> Option<String> {
        let base = match self.section(reference) {
            Some(section) => section.lookaside.clone()?,
            None => format!("file://{}", self.builtin.as_ref()?.display()),
        };
        let base = base.trim_end_matches('/');
        let repository = reference.repository();
        Some(format!("{base}/{repository}@sha256={}/signature-{number}", manifest.hex()))
    }
}

fn section(map: &BTreeMap<String, Value>) -> Result<Section, String> {
    let text = |key: &str| match map.get(key) {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(Value::Map(_)) => Err(format!("\"{key}\" is not a text")),
    };
    let url = |new: &str, old: &str| {
        let found = text(new)?.or(text(old)?);
        match found {
            Some(url) if !["file://", "http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) => {
                Err(format!("\"{url}\" is neither file:// nor http:// nor https://"))
            }
            found => Ok(found),
        }
    };
    let attachments = match text("use-sigstore-attachments")?.as_deref() {
        None => None,
        Some("true") => Some(true),
        Some("false") => Some(false),
        Some(other) => {
            return Err(format!("use-sigstore-attachments is \"{other}\", neither true nor false"));
        }
    };
    Ok(Section {
        lookaside: url("lookaside", "sigstore")?,
        staging: url("lookaside-staging", "sigstore-staging")?,
        attachments,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_section_holds_alone() {
        let mut all = Lookaside::default();
        let text = "default-docker:\n  lookaside: file:///default\ndocker:\n  r.io:\n    sigstore: https://old/\n  \
                    r.io/a:\n    lookaside: http://new\n    use-sigstore-attachments: true\n  r.io/a/b:1:\n    lookaside-staging: file:///x\n";
        all.merge(Path::new("a.yaml"), text).unwrap();
        let digest = Digest::of(b"");
        let url = |name: &str| all.url(&name.parse().unwrap(), &digest, 1);
        let end = |repository: &str| format!("{repository}@sha256={}/signature-1", digest.hex());
        assert_eq!(url("r.io/b").unwrap(), format!("https://old/{}", end("b")));
        assert_eq!(url("r.io/a/c").unwrap(), format!("http://new/{}", end("a/c")));
        assert_eq!(url("r.io/a/b:1"), None);
        assert_eq!(url("s.io/x").unwrap(), format!("file:///default/{}", end("x")));
        assert_eq!(all.section(&"r.io/a".parse().unwrap()).unwrap().attachments, Some(true));
        let again = all.merge(Path::new("b.yaml"), "docker:\n  r.io:\n").unwrap_err();
        assert!(again.to_string().contains("already"), "{again}");
        for bad in [
            "docker: x",
            "docker:\n  a: x",
            "docker:\n  a:\n    lookaside: ftp://x",
            "docker:\n  a:\n    use-sigstore-attachments: 1",
        ] {
            assert!(Lookaside::default().merge(Path::new("c.yaml"), bad).is_err(), "{bad}");
        }
    }
}
