//! Keeping credentials: what `login` and `logout` write, into files (containers-auth.json(5), or in the
//! form of Docker's config.json) or by the helper programs that are configured for a registry.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::auth::{self, Credentials, Error};
use super::registries::AUTH_FILES;
use crate::sys::atomic::{self, Durability};
use crate::sys::lock::Lock;

/// A file of credentials.
#[derive(Clone, Debug)]
pub struct AuthFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its keys are Docker's.
    pub docker: bool,
}

impl AuthFile {
    /// The file to write to: the one that was named, else `$REGISTRY_AUTH_FILE`, else Podman's.
    pub fn to_write(named: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let (files, _) = auth::files(named, env);
        let path = files.into_iter().next().unwrap_or_else(auth::system_file);
        Self { path, docker: false }
    }

    /// The key under which a registry, or a part of one, stands in it.
    fn key(&self, name: &str) -> String {
        match name {
            "docker.io" if self.docker => "https://index.docker.io/v1/".to_owned(),
            name => name.to_owned(),
        }
    }

    fn read(&self) -> Result<Map<String, Value>, Error> {
        let path = || self.path.clone();
        let bytes = match std::fs::read(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Map::new()),
            other => other.map_err(|source| Error::Read { path: path(), source })?,
        };
        // `touch` makes one that is empty.
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        serde_json::from_slice(&bytes).map_err(|error| Error::parse(path(), &error))
    }

    /// Changes the file as a whole, alone; what is not understood in it stays.
    fn change<T>(&self, change: impl FnOnce(&mut Map<String, Value>) -> T) -> Result<T, Error> {
        let error = |source| Error::Write { path: self.path.clone(), source };
        // A link is written through: the file may be kept elsewhere.
        let path = self.path.canonicalize().unwrap_or_else(|_| self.path.clone());
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(error)?;
        let _lock = Lock::exclusive_existing(dir).map_err(error)?;
        let mut content = self.read()?;
        let result = change(&mut content);
        let mut bytes = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
        serde::Serialize::serialize(&Value::Object(content), &mut serializer)
            .map_err(|error| Error::parse(self.path.clone(), &error))?;
        atomic::write(&path, &bytes, 0o600, Durability::Synced).map_err(error)?;
        Ok(result)
    }

    /// The helper that keeps the credentials of a registry rather than the file.
    fn helper(&self, host: &str) -> Result<Option<String>, Error> {
        let content = self.read()?;
        let own = content.get("credHelpers").and_then(Value::as_object);
        let own = own.and_then(|all| all.iter().find(|(key, _)| auth::names(key, host)));
        let store = || content.get("credsStore").filter(|_| self.docker);
        let name = own.map(|(_, name)| name).or_else(store).and_then(Value::as_str);
        Ok(name.filter(|name| !name.is_empty()).map(str::to_owned))
    }

    /// Keeps credentials for a registry, or a part of one (`host/path`).
    pub fn store(&self, name: &str, user: &str, password: &str) -> Result<(), Error> {
        if let Some(helper) = self.helper(name)? {
            return auth::keep(&helper, &self.key(name), user, password);
        }
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let key = self.key(name);
        self.change(|content| {
            let auths = content.entry("auths").or_insert_with(|| json!({}));
            if !auths.is_object() {
                *auths = json!({});
            }
            if let Some(auths) = auths.as_object_mut() {
                // The same registry under a name of other days would be found first.
                auths.retain(|other, _| other == &key || !auth::names(other, name));
                auths.insert(key, json!({ "auth": auth }));
            }
        })
    }

    /// Forgets the credentials of a registry; says whether there were any.
    pub fn remove(&self, name: &str) -> Result<bool, Error> {
        if let Some(helper) = self.helper(name)? {
            return auth::forget(&helper, &self.key(name));
        }
        let known = |auths: &Map<String, Value>| auths.keys().any(|key| auth::names(key, name));
        // A file that need not change is not touched, nor made.
        if !self.read()?.get("auths").and_then(Value::as_object).is_some_and(known) {
            return Ok(false);
        }
        self.change(|content| {
            let auths = content.get_mut("auths").and_then(Value::as_object_mut);
            auths.is_some_and(|auths| {
                let before = auths.len();
                auths.retain(|key, _| !auth::names(key, name));
                auths.len() < before
            })
        })
    }

    /// Forgets all credentials, also those that helpers keep.
    pub fn remove_all(&self) -> Result<(), Error> {
        let content = self.read()?;
        for (host, helper) in content.get("credHelpers").and_then(Value::as_object).into_iter().flatten() {
            if let Some(helper) = helper.as_str() {
                auth::forget(helper, host)?;
            }
        }
        if content.get("auths").is_none() {
            return Ok(());
        }
        self.change(|content| drop(content.insert("auths".into(), json!({}))))
    }
}

/// Keeps credentials where registries.conf's `credential-helpers` says: the first that takes them.
pub fn store(
    file: &AuthFile,
    helpers: &[String],
    name: &str,
    credentials: &Credentials,
) -> Result<(), Error> {
    let Credentials::Password { user, password } = credentials else { return Ok(()) };
    let mut result = Ok(());
    for helper in helpers {
        result = if helper == AUTH_FILES || file.docker {
            file.store(name, user, password)
        } else {
            auth::keep(helper, name, user, password)
        };
        if result.is_ok() {
            return Ok(());
        }
    }
    result
}

/// Forgets credentials wherever they may be kept; says whether there were any.
pub fn remove(file: &AuthFile, helpers: &[String], name: &str) -> Result<bool, Error> {
    let mut found = false;
    for helper in helpers {
        found |= if helper == AUTH_FILES || file.docker {
            file.remove(name)?
        } else {
            auth::forget(helper, name)?
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_and_go_and_the_rest_stays() {
        let dir = std::env::temp_dir().join(format!("umiak-login-{:x}", atomic::random().unwrap()));
        let file = AuthFile { path: dir.join("deep/auth.json"), docker: false };
        assert!(!file.remove("r.io").unwrap() && !dir.exists());
        file.store("r.io", "u", "p:w").unwrap();
        file.store("docker.io", "a", "b").unwrap();
        let text = std::fs::read_to_string(&file.path).unwrap();
        assert_eq!(
            text,
            "{\n\t\"auths\": {\n\t\t\"docker.io\": {\n\t\t\t\"auth\": \"YTpi\"\n\t\t},\n\t\t\"r.io\": {\n\t\t\t\"auth\": \"dTpwOnc=\"\n\t\t}\n\t}\n}"
        );
        use std::os::unix::fs::MetadataExt;
        assert_eq!(std::fs::metadata(&file.path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(dir.join("deep")).unwrap().mode() & 0o777, 0o700);
        // What others wrote, and what is not ours.
        let old = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"x"},"r.io/team":{"auth":"y"}},"HttpHeaders":{"a":"b"}}"#;
        std::fs::write(&file.path, old).unwrap();
        file.store("docker.io", "u", "p").unwrap();
        assert!(file.remove("r.io/team").unwrap() && !file.remove("r.io/team").unwrap());
        let value: Value = serde_json::from_slice(&std::fs::read(&file.path).unwrap()).unwrap();
        assert_eq!(value, json!({"auths": {"docker.io": {"auth": "dTpw"}}, "HttpHeaders": {"a": "b"}}));
        let docker = AuthFile { path: file.path.clone(), docker: true };
        docker.store("docker.io", "u", "q").unwrap();
        let value: Value = serde_json::from_slice(&std::fs::read(&file.path).unwrap()).unwrap();
        assert_eq!(value["auths"], json!({"https://index.docker.io/v1/": {"auth": "dTpx"}}));
        file.remove_all().unwrap();
        let value: Value = serde_json::from_slice(&std::fs::read(&file.path).unwrap()).unwrap();
        assert_eq!(value["auths"], json!({}));
        std::fs::write(&file.path, "{").unwrap();
        assert!(matches!(file.store("r.io", "u", "p"), Err(Error::Parse { .. })));
        assert_eq!(std::fs::read_to_string(&file.path).unwrap(), "{");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
