//! `policy.json` (containers-policy.json(5)): which images may be taken at all, by where they come
//! from. Read as strictly as the manual says: what is not understood forbids everything.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::identity::SignedIdentity;
use crate::image::Transport;

/// A policy that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("reading the policy \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no policy.
    #[error("parsing the policy \"{}\"", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A place of bytes: a file, or the policy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Files.
    Paths(Vec<PathBuf>),
    /// What stood in base64.
    Data(Vec<Vec<u8>>),
}

/// What is demanded of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing.
    Accept,
    /// Not to be used.
    Reject,
    /// A GnuPG signature.
    SignedBy {
        /// Whose.
        keys: Keys,
        /// Of which name.
        identity: SignedIdentity,
    },
    /// A sigstore signature by a key.
    SigstoreSigned {
        /// Whose.
        keys: Keys,
        /// Of which name.
        identity: SignedIdentity,
    },
    /// Something that cannot be checked here, by its key in the file: nothing fulfils it.
    Unsupported(String),
}

impl Requirement {
    /// The word in the file.
    pub fn kind(&self) -> &str {
        match self {
            Self::Accept => "insecureAcceptAnything",
            Self::Reject => "reject",
            Self::SignedBy { .. } => "signedBy",
            Self::SigstoreSigned { .. } => "sigstoreSigned",
            Self::Unsupported(what) => what,
        }
    }
}

/// What is demanded, by scope.
pub type Scopes = BTreeMap<String, Vec<Requirement>>;

/// A policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Where it stands.
    pub path: PathBuf,
    /// What holds where nothing else is said.
    pub default: Vec<Requirement>,
    /// By transport, then by scope; the empty scope is the transport's own default.
    pub transports: BTreeMap<String, Scopes>,
}

/// The files to look for, in order; a named one is the only one.
pub fn places(option: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    if let Some(named) = option {
        return vec![named.to_owned()];
    }
    let home = env("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let own = home.map(|home| home.join(".config/containers/policy.json"));
    own.into_iter().chain([PathBuf::from("/etc/containers/policy.json")]).collect()
}

impl Policy {
    /// Reads the policy that holds: `option`, else the user's, else the system's. `None` if there is
    /// none (docs/adr/0014-no-policy.md).
    pub fn load(
        option: Option<&Path>,
        env: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, Error> {
        for path in places(option, env) {
            match std::fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && option.is_none() => {}
                Err(source) => return Err(Error::Read { path, source }),
                Ok(bytes) => return Self::parse(&path, &bytes).map(Some),
            }
        }
        Ok(None)
    }

    /// Parses a policy; `path` is for errors.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let file: File =
            serde_json::from_slice(bytes).map_err(|source| Error::Parse { path: path.to_owned(), source })?;
        let scopes = |scopes: Unique<Requirements>| scopes.0.into_iter().map(|(k, v)| (k, v.0)).collect();
        let transports = file.transports.map(|transports| transports.0).unwrap_or_default();
        Ok(Self {
            path: path.to_owned(),
            default: file.default.0,
            transports: transports.into_iter().map(|(name, found)| (name, scopes(found))).collect(),
        })
    }

    /// What is demanded of an image from there: by the longest scope that fits.
    pub fn requirements(&self, transport: &Transport) -> &[Requirement] {
        let (name, scopes) = scopes(transport);
        let Some(known) = self.transports.get(name) else { return &self.default };
        let fitting = scopes.iter().find_map(|scope| known.get(scope));
        fitting.or_else(|| known.get("")).unwrap_or(&self.default)
    }
}

/// The transport's name in the file, and the scopes that an image from there fits, narrowest first.
fn scopes(transport: &Transport) -> (&'static str, Vec<String>) {
    match transport {
        Transport::Registry(reference) => {
            let name = reference.name();
            // Podman drops the tag of a name with both.
            let whole = match reference.digest() {
                Some(digest) => format!("{name}@{digest}"),
                None => format!("{name}:{}", reference.tag().unwrap_or("latest")),
            };
            ("docker", registry_scopes(&name, whole))
        }
        Transport::Oci { path, tag } => ("oci", path_scopes(path, tag.as_deref())),
        Transport::OciArchive { path, tag } => ("oci-archive", path_scopes(path, tag.as_deref())),
        Transport::Dir(path) => ("dir", path_scopes(path, None)),
        // An archive may be given any name: its scopes say nothing (containers-policy.json(5)).
        Transport::DockerArchive { .. } => ("docker-archive", Vec::new()),
    }
}

/// `host/a/b:tag`, `host/a/b`, `host/a`, `host`, then `*.example.com`, `*.com`.
pub(super) fn registry_scopes(name: &str, whole: String) -> Vec<String> {
    let mut scopes = vec![whole, name.to_owned()];
    let mut rest = name;
    while let Some((head, _)) = rest.rsplit_once('/') {
        scopes.push(head.to_owned());
        rest = head;
    }
    let mut host = rest.split(':').next().unwrap_or(rest);
    while let Some((_, tail)) = host.split_once('.') {
        scopes.push(format!("*.{tail}"));
        host = tail;
    }
    scopes
}

fn path_scopes(path: &Path, tag: Option<&str>) -> Vec<String> {
    // Scopes are paths without symbolic links; what cannot be resolved fits no scope but the default.
    let Ok(path) = path.canonicalize() else { return Vec::new() };
    let tagged = tag.map(|tag| format!("{}:{tag}", path.display()));
    let parents = path.ancestors().filter(|path| path.parent().is_some());
    tagged.into_iter().chain(parents.map(|path| path.display().to_string())).collect()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Requirements,
    #[serde(default)]
    transports: Option<Unique<Unique<Requirements>>>,
}

/// An object without doubled keys.
struct Unique<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Object<T> {
            type Value = Unique<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, T>()? {
                    if found.contains_key(&key) {
                        return Err(A::Error::custom(format!("\"{key}\" occurs twice")));
                    }
                    found.insert(key, value);
                }
                Ok(Unique(found))
            }
        }
        deserializer.deserialize_map(Object(PhantomData))
    }
}

struct Requirements(Vec<Requirement>);

impl<'de> Deserialize<'de> for Requirements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Vec::<RawRequirement>::deserialize(deserializer)?;
        // An empty list would accept everything by saying nothing.
        if raw.is_empty() {
            return Err(D::Error::custom("a list of requirements is empty"));
        }
        raw.into_iter().map(|raw| raw.checked().map_err(D::Error::custom)).collect::<Result<_, _>>().map(Self)
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RawRequirement {
    r#type: String,
    key_type: Option<String>,
    key_path: Option<String>,
    key_paths: Option<Vec<String>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    signed_identity: Option<SignedIdentity>,
    fulcio: Option<serde_json::Value>,
    pki: Option<serde_json::Value>,
    rekor_public_key_path: Option<serde_json::Value>,
    rekor_public_key_paths: Option<serde_json::Value>,
    rekor_public_key_data: Option<serde_json::Value>,
    rekor_public_key_datas: Option<serde_json::Value>,
}

impl RawRequirement {
    fn checked(mut self) -> Result<Requirement, String> {
        let kind = std::mem::take(&mut self.r#type);
        match kind.as_str() {
            "insecureAcceptAnything" => self.bare(&kind).map(|()| Requirement::Accept),
            "reject" => self.bare(&kind).map(|()| Requirement::Reject),
            "signedBy" => {
                if self.unsupported().is_some() || self.key_datas.is_some() {
                    return Err("\"signedBy\" has keys of \"sigstoreSigned\"".to_owned());
                }
                match self.key_type.as_deref() {
                    Some("GPGKeys") => {}
                    Some(other) => {
                        return Err(format!("the keyType \"{other}\" is not supported: use GPGKeys"));
                    }
                    None => return Err("\"signedBy\" has no keyType".to_owned()),
                }
                let keys = self.keys(&kind)?;
                Ok(Requirement::SignedBy { keys, identity: self.signed_identity.unwrap_or_default() })
            }
            "sigstoreSigned" => {
                if self.key_type.is_some() {
                    return Err("\"sigstoreSigned\" has no keyType".to_owned());
                }
                if let Some(what) = self.unsupported() {
                    return Ok(Requirement::Unsupported(format!("sigstoreSigned with {what}")));
                }
                let keys = self.keys(&kind)?;
                Ok(Requirement::SigstoreSigned { keys, identity: self.signed_identity.unwrap_or_default() })
            }
            other => Err(format!("the requirement \"{other}\" is not known")),
        }
    }

    /// The first of what is known and cannot be checked.
    fn unsupported(&self) -> Option<&'static str> {
        [
            ("fulcio", &self.fulcio),
            ("pki", &self.pki),
            ("rekorPublicKeyPath", &self.rekor_public_key_path),
            ("rekorPublicKeyPaths", &self.rekor_public_key_paths),
            ("rekorPublicKeyData", &self.rekor_public_key_data),
            ("rekorPublicKeyDatas", &self.rekor_public_key_datas),
        ]
        .into_iter()
        .find_map(|(name, value)| value.is_some().then_some(name))
    }

    fn bare(&self, kind: &str) -> Result<(), String> {
        let keys = [&self.key_type, &self.key_path, &self.key_data].into_iter().any(Option::is_some);
        let lists = self.key_paths.is_some() || self.key_datas.is_some() || self.signed_identity.is_some();
        if keys || lists || self.unsupported().is_some() {
            return Err(format!("\"{kind}\" has nothing but its type"));
        }
        Ok(())
    }

    fn keys(&self, kind: &str) -> Result<Keys, String> {
        let decode =
            |text: &String| STANDARD.decode(text).map_err(|_| format!("a key of \"{kind}\" is not base64"));
        let paths = [self.key_path.clone().map(|path| vec![path]), self.key_paths.clone()];
        let datas = [self.key_data.clone().map(|data| vec![data]), self.key_datas.clone()];
        let mut found = Vec::new();
        found.extend(
            paths
                .into_iter()
                .flatten()
                .map(|paths| Ok(Keys::Paths(paths.into_iter().map(PathBuf::from).collect()))),
        );
        found.extend(
            datas
                .into_iter()
                .flatten()
                .map(|datas| datas.iter().map(decode).collect::<Result<_, _>>().map(Keys::Data)),
        );
        match (found.pop(), found.is_empty()) {
            (Some(keys), true) => match keys? {
                Keys::Paths(paths) if paths.is_empty() => Err(format!("\"{kind}\" names no key")),
                Keys::Data(data) if data.is_empty() => Err(format!("\"{kind}\" names no key")),
                keys => Ok(keys),
            },
            _ => Err(format!("\"{kind}\" needs exactly one of keyPath, keyPaths and keyData")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Result<Policy, String> {
        Policy::parse(Path::new("p"), text.as_bytes()).map_err(|error| crate::base::report::chain(&error))
    }

    #[test]
    fn the_narrowest_scope_rules() {
        let text = r#"{"default":[{"type":"reject"}],"transports":{
            "docker":{"":[{"type":"insecureAcceptAnything"}],
                "a.example.com":[{"type":"reject"}],
                "a.example.com:5000/x":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}],
                "a.example.com:5000/x/y:1":[{"type":"insecureAcceptAnything"}],
                "*.example.com":[{"type":"sigstoreSigned","keyData":"AAAA"}]},
            "dir":{"/tmp":[{"type":"insecureAcceptAnything"}]}}}"#;
        let policy = policy(text).unwrap();
        for (name, expected) in [
            ("a.example.com/b", "reject"),
            ("a.example.com:5000/x/y", "signedBy"),
            ("a.example.com:5000/x/y:1", "insecureAcceptAnything"),
            ("a.example.com:5000/xy", "sigstoreSigned"),
            ("b.example.com/y", "sigstoreSigned"),
            ("example.com/y", "insecureAcceptAnything"),
            ("quay.io/y", "insecureAcceptAnything"),
            ("dir:/tmp", "insecureAcceptAnything"),
            ("dir:/usr", "reject"),
            ("dir:/", "reject"),
            ("oci:/tmp", "reject"),
            ("docker-archive:/tmp/x", "reject"),
        ] {
            let transport: Transport = name.parse().unwrap();
            assert_eq!(policy.requirements(&transport)[0].kind(), expected, "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (text, expected) in [
            ("{}", "missing field `default`"),
            (r#"{"default":[]}"#, "is empty"),
            (r#"{"default":[{"type":"accept"}]}"#, "\"accept\" is not known"),
            (r#"{"default":[{"type":"reject"}],"more":1}"#, "unknown field"),
            (r#"{"default":[{"type":"reject"}],"default":[{"type":"reject"}]}"#, "duplicate field"),
            (r#"{"default":[{"type":"reject","keyPath":"/k"}]}"#, "nothing but its type"),
            (r#"{"default":[{"type":"signedBy","keyPath":"/k"}]}"#, "no keyType"),
            (r#"{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}"#, "exactly one"),
            (
                r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyData":"AAAA"}]}"#,
                "exactly one",
            ),
            (r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPaths":[]}]}"#, "no key"),
            (
                r#"{"default":[{"type":"signedBy","keyType":"X509Certificates","keyPath":"/k"}]}"#,
                "use GPGKeys",
            ),
            (r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyData":"!"}]}"#, "not base64"),
            (
                r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[{"type":"reject"}],"a":[{"type":"insecureAcceptAnything"}]}}}"#,
                "occurs twice",
            ),
            (r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a":[]}}}"#, "is empty"),
            (
                r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","signedIdentity":{"type":"matchAll"}}]}"#,
                "matchAll",
            ),
            ("[", "EOF"),
        ] {
            let error = policy(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let known =
            policy(r#"{"default":[{"type":"sigstoreSigned","fulcio":{},"rekorPublicKeyPath":"/r"}]}"#);
        assert_eq!(known.unwrap().default, [Requirement::Unsupported("sigstoreSigned with fulcio".into())]);
    }
}
