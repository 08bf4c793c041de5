//! `image trust`: shows and changes `policy.json`.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::image::Reference;
use crate::image::trust::policy::{self, Keys, Requirement};
use crate::image::trust::{Lookaside, Policy, lookaside, openpgp};
use crate::sys::atomic::{self, Durability};

/// A policy that cannot be shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error(transparent)]
    Policy(#[from] policy::Error),
    /// `registries.d`.
    #[error(transparent)]
    Lookaside(#[from] lookaside::Error),
    /// There is none to show.
    #[error("there is no policy.json: every image is let in")]
    None,
    /// It cannot be written.
    #[error("writing the policy \"{}\"", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A word of `--type`.
    #[error("\"{0}\" is not a type of trust: use accept, reject, signedBy or sigstoreSigned")]
    Type(String),
    /// `signedBy` without a key.
    #[error("\"{0}\" needs a public key: name its file by --pubkeysfile")]
    NoKey(String),
    /// A key with a type that has none.
    #[error("\"{0}\" takes no public key")]
    Key(String),
    /// A key that is not there.
    #[error("reading the key \"{}\"", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What trust is set for.
    #[error("\"{0}\" is neither \"default\" nor a registry, a namespace or a repository")]
    Scope(String),
    /// What would be written is none.
    #[error("HOME does not say where the policy of the user is")]
    NoHome,
}

impl Error {
    /// What may help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::None => Some("umiak image trust set -t reject default makes one".into()),
            Self::Write { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("--policypath names another file".into())
            }
            _ => None,
        }
    }
}

/// One line of `image trust show`, in the form of Podman's JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// `repository` for a registry's images, `all` for everything.
    pub transport: String,
    /// The scope.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The scope.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub repo_name: String,
    /// Where signatures are kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sigstore: String,
    /// `accept`, `reject`, `signed`, …
    pub r#type: String,
    /// Whose key it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gpg_id: String,
}

fn env(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}

/// The policy that holds, as it stands in its file.
pub fn raw(policy: Option<&Path>) -> Result<Vec<u8>, Error> {
    let found = Policy::load(policy, &env)?.ok_or(Error::None)?;
    std::fs::read(&found.path).map_err(|source| policy::Error::Read { path: found.path, source }.into())
}

/// What the policy says, the default first, then by scope.
pub fn show(policy: Option<&Path>, registries_d: Option<&Path>) -> Result<Vec<Shown>, Error> {
    let policy = Policy::load(policy, &env)?.ok_or(Error::None)?;
    let lookaside = match registries_d {
        Some(dir) => Lookaside::read_from(dir)?,
        None => Lookaside::read_from(&lookaside::directory(&env))?,
    };
    let store = |section: Option<&lookaside::Section>| {
        section.and_then(|section| section.lookaside.clone()).unwrap_or_default()
    };
    let default = store(lookaside.default.as_ref());
    let line = |transport: &str, name: &str, repo_name: &str, sigstore: &str, requirement: &Requirement| {
        let (kind, gpg_id) = describe(requirement);
        Shown {
            transport: transport.to_owned(),
            name: name.to_owned(),
            repo_name: repo_name.to_owned(),
            sigstore: sigstore.to_owned(),
            r#type: kind,
            gpg_id,
        }
    };
    let mut lines: Vec<Shown> =
        policy.default.iter().map(|one| line("all", "* (default)", "default", &default, one)).collect();
    for (transport, scopes) in &policy.transports {
        let word = if transport == "docker" { "repository" } else { transport };
        for (scope, requirements) in scopes {
            let reference = scope.parse::<Reference>().ok().filter(|reference| !reference.is_short());
            // A bare host is a scope, and no name of an image.
            let host = format!("{scope}/x").parse::<Reference>().ok();
            let section = reference.or(host).and_then(|reference| lookaside.section(&reference));
            let place =
                if transport == "docker" && section.is_some() { store(section) } else { default.clone() };
            lines.extend(requirements.iter().map(|one| line(word, scope, scope, &place, one)));
        }
    }
    Ok(lines)
}

/// Podman's word for a requirement, and whose keys it wants.
fn describe(requirement: &Requirement) -> (String, String) {
    match requirement {
        Requirement::Accept => ("accept".to_owned(), String::new()),
        Requirement::Reject => ("reject".to_owned(), String::new()),
        Requirement::SignedBy { keys, .. } => ("signed".to_owned(), users(keys)),
        Requirement::SigstoreSigned { .. } | Requirement::Unsupported(_) => {
            ("sigstoreSigned".to_owned(), "N/A".to_owned())
        }
    }
}

/// The addresses on keys; those that cannot be read have none.
fn users(keys: &Keys) -> String {
    let files: Vec<Vec<u8>> = match keys {
        Keys::Paths(paths) => paths.iter().filter_map(|path| std::fs::read(path).ok()).collect(),
        Keys::Data(data) => data.clone(),
    };
    let rings = files.iter().filter_map(|bytes| openpgp::Keyring::parse(bytes).ok());
    let address = |user: String| match user.split_once('<').and_then(|(_, rest)| rest.split_once('>')) {
        Some((address, _)) => address.to_owned(),
        None => user,
    };
    let users: Vec<String> = rings.flat_map(|ring| ring.users).map(address).collect();
    users.join(", ")
}

/// What `image trust set` is told.
#[derive(Clone, Debug)]
pub struct Change {
    /// `default`, a registry, a namespace or a repository.
    pub scope: String,
    /// `accept`, …
    pub kind: String,
    /// Files of keys, each of which must have signed.
    pub keys: Vec<PathBuf>,
    /// The file to change; the user's own, or the system's for root.
    pub policy: Option<PathBuf>,
}

/// Changes what the policy says of one scope. The user's own policy is made from the one that holds.
pub fn set(change: &Change) -> Result<(), Error> {
    let requirements = requirements(change)?;
    let target = target(change.policy.as_deref())?;
    let start = if target.exists() { Some(target.clone()) } else { None };
    let known = match change.policy {
        Some(_) => start,
        None => start.or(Policy::load(None, &env)?.map(|policy| policy.path)),
    };
    let mut file = match known {
        Some(path) => {
            let bytes =
                std::fs::read(&path).map_err(|source| policy::Error::Read { path: path.clone(), source })?;
            // Checked as a policy, then changed as it stands.
            Policy::parse(&path, &bytes)?;
            serde_json::from_slice(&bytes).map_err(|source| policy::Error::Parse { path, source })?
        }
        // What held until now (docs/adr/0014-no-policy.md).
        None => json!({ "default": [{ "type": "insecureAcceptAnything" }] }),
    };
    if change.scope == "default" {
        file["default"] = requirements;
    } else {
        let scopes = file.as_object_mut().map(|file| file.entry("transports").or_insert_with(|| json!({})));
        let scopes =
            scopes.and_then(Value::as_object_mut).map(|map| map.entry("docker").or_insert_with(|| json!({})));
        if let Some(scopes) = scopes.and_then(Value::as_object_mut) {
            scopes.insert(change.scope.clone(), requirements);
        }
    }
    let bytes = pretty(&file);
    Policy::parse(&target, &bytes)?;
    let write = |source| Error::Write { path: target.clone(), source };
    if let Some(dir) = target.parent() {
        std::fs::create_dir_all(dir).map_err(write)?;
    }
    atomic::write(&target, &bytes, 0o644, Durability::Synced).map_err(write)
}

fn target(named: Option<&Path>) -> Result<PathBuf, Error> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    let mut places = policy::places(None, &env);
    let own = places.len() > 1;
    let last = places.pop().ok_or(Error::NoHome)?;
    // Root speaks for the system, unless it has a policy of its own.
    match places.pop().filter(|_| own) {
        Some(own) if !rustix::process::geteuid().is_root() || own.exists() => Ok(own),
        None if !rustix::process::geteuid().is_root() => Err(Error::NoHome),
        _ => Ok(last),
    }
}

fn requirements(change: &Change) -> Result<Value, Error> {
    let scope = &change.scope;
    let fits = scope == "default"
        || scope.strip_prefix("*.").is_some_and(|domain| format!("{domain}/x").parse::<Reference>().is_ok())
        || format!("{scope}/x").parse::<Reference>().is_ok_and(|reference| !reference.is_short())
        || scope.parse::<Reference>().is_ok_and(|reference| !reference.is_short());
    if !fits {
        return Err(Error::Scope(scope.clone()));
    }
    let kind = match change.kind.as_str() {
        "accept" | "insecureAcceptAnything" => "insecureAcceptAnything",
        known @ ("reject" | "signedBy" | "sigstoreSigned") => known,
        other => return Err(Error::Type(other.to_owned())),
    };
    let signed = matches!(kind, "signedBy" | "sigstoreSigned");
    match (signed, change.keys.as_slice()) {
        (true, []) => return Err(Error::NoKey(kind.to_owned())),
        (false, []) => return Ok(json!([{ "type": kind }])),
        (false, _) => return Err(Error::Key(kind.to_owned())),
        (true, _) => {}
    }
    let one = |path: &PathBuf| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        std::fs::metadata(&path).map_err(|source| Error::KeyFile { path: path.clone(), source })?;
        let mut requirement = Map::new();
        requirement.insert("type".into(), kind.into());
        if kind == "signedBy" {
            requirement.insert("keyType".into(), "GPGKeys".into());
        }
        requirement.insert("keyPath".into(), path.display().to_string().into());
        Ok(Value::Object(requirement))
    };
    change.keys.iter().map(one).collect::<Result<_, _>>().map(Value::Array)
}

/// With four spaces, as Podman writes it.
fn pretty(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    // A value always serializes into memory; were it not so, the check before the writing would fail.
    let _ = value.serialize(&mut serializer);
    bytes.push(b'\n');
    bytes
}
