//! Credentials for registries: from the command line, the files that `podman login` and
//! `docker login` write (containers-auth.json(5)), or the helper programs that these name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::reference::Reference;
use super::registries::AUTH_FILES;
use crate::sys::{process, userns};

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("reading the credentials in \"{}\"", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be parsed. What the parser says may hold a secret: only the place is told.
    #[error(
        "parsing the credentials in \"{}\": it is not understood at line {line}, column {column}",
        path.display()
    )]
    Parse {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The file cannot be written.
    #[error("writing the credentials to \"{}\"", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A helper does not keep what it is to keep, or forget it.
    #[error("docker-credential-{helper} fails for \"{host}\": {message}")]
    Kept {
        /// Its name.
        helper: String,
        /// The registry.
        host: String,
        /// What it says.
        message: String,
    },
    /// An entry is not base64 of `user:password`.
    #[error("the credentials for \"{host}\" in \"{}\" are malformed", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The entry.
        host: String,
    },
    /// A helper's name is a path or worse.
    #[error("\"{0}\" is not the name of a credential helper")]
    HelperName(String),
    /// A helper is not installed.
    #[error("the credential helper docker-credential-{0} is not installed")]
    NoHelper(String),
    /// A helper cannot be run, or takes too long.
    #[error("asking docker-credential-{helper} for the credentials of \"{host}\"")]
    Helper {
        /// Its name.
        helper: String,
        /// The registry.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A helper says no.
    #[error("docker-credential-{helper} gives no credentials for \"{host}\": {message}")]
    Refused {
        /// Its name.
        helper: String,
        /// The registry.
        host: String,
        /// What it says.
        message: String,
    },
    /// A helper's answer is not what its protocol wants. The answer may hold a secret: not told.
    #[error("docker-credential-{helper} answers for \"{host}\" with something that is not understood")]
    Answer {
        /// Its name.
        helper: String,
        /// The registry.
        host: String,
    },
}

impl Error {
    /// The file is no auth file.
    pub fn parse(path: PathBuf, error: &serde_json::Error) -> Self {
        Self::Parse { path, line: error.line(), column: error.column() }
    }

    /// What may help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoHelper(_) => {
                Some("install it, or take it out of credHelpers, credsStore or credential-helpers".into())
            }
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("\"podman login\" or \"docker login\" writes such a file; --creds needs none".into())
            }
            Self::Write { .. } => Some("--authfile names another file".into()),
            _ => None,
        }
    }
}

/// A user and a password, or a token to get tokens with.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// For basic authentication.
    Password {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// OAuth2 refresh token (`identitytoken`).
    Identity(String),
}

// Secrets must not get into messages.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

impl Credentials {
    /// The value of an Authorization header for basic authentication.
    pub fn basic(&self) -> Option<String> {
        match self {
            Self::Password { user, password } => {
                Some(format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
            }
            Self::Identity(_) => None,
        }
    }
}

#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: Option<BTreeMap<String, Entry>>,
    /// By registry.
    #[serde(default, rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    /// Docker's: for all registries.
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default, rename = "identitytoken")]
    identity_token: Option<String>,
}

/// The files to look into, in order; the first one that has an entry wins. A file that was named
/// (by option or `$REGISTRY_AUTH_FILE`) is the only one.
pub fn files(option: Option<&Path>, env: &dyn Fn(&str) -> Option<OsString>) -> (Vec<PathBuf>, bool) {
    if let Some(named) = option.map(Path::to_owned).or_else(|| env("REGISTRY_AUTH_FILE").map(PathBuf::from)) {
        return (vec![named], true);
    }
    let below = |variable: &str, path: &str| env(variable).map(|dir| Path::new(&dir).join(path));
    let config = below("XDG_CONFIG_HOME", "containers/auth.json")
        .or_else(|| below("HOME", ".config/containers/auth.json"));
    let docker = below("DOCKER_CONFIG", "config.json").or_else(|| below("HOME", ".docker/config.json"));
    let volatile = below("XDG_RUNTIME_DIR", "containers/auth.json").unwrap_or_else(system_file);
    (std::iter::once(volatile).chain(config).chain(docker).collect(), false)
}

/// The file of a user who has no directory for what is of use until the next boot.
pub(super) fn system_file() -> PathBuf {
    format!("/run/containers/{}/auth.json", rustix::process::getuid().as_raw()).into()
}

/// Finds the credentials for an image. `helpers` is what `credential-helpers` of registries.conf
/// says: names of programs, or the word for the files. Helpers run as the caller: not to be called
/// in a user namespace, where a keyring's daemon would not know the user.
pub fn find(
    reference: &Reference,
    option: Option<&Path>,
    helpers: &[String],
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<Credentials>, Error> {
    for helper in helpers {
        let found = if helper == AUTH_FILES {
            in_files(reference, option, env)?
        } else {
            ask(helper, reference.registry().unwrap_or_default())?
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn in_files(
    reference: &Reference,
    option: Option<&Path>,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<Credentials>, Error> {
    let (files, named) = files(option, env);
    for path in files {
        let bytes = match std::fs::read(&path) {
            // Variables of another login (su, sudo) lead to directories that are none of ours.
            Err(error)
                if !named
                    && matches!(
                        error.kind(),
                        io::ErrorKind::NotFound
                            | io::ErrorKind::PermissionDenied
                            | io::ErrorKind::NotADirectory
                    ) =>
            {
                continue;
            }
            other => other.map_err(|source| Error::Read { path: path.clone(), source })?,
        };
        let file: AuthFile =
            serde_json::from_slice(&bytes).map_err(|error| Error::parse(path.clone(), &error))?;
        let host = reference.registry().unwrap_or_default();
        let helpers = file.helpers.unwrap_or_default();
        if let Some((key, helper)) = helpers.iter().find(|(key, _)| names(key, host))
            && let Some(found) = ask(helper, key)?
        {
            return Ok(Some(found));
        }
        if let Some(found) = look_up(&file.auths.unwrap_or_default(), reference, &path)? {
            return Ok(Some(found));
        }
        if let Some(store) = file.store.filter(|store| !store.is_empty()) {
            // The key under which "docker login" keeps it.
            let key = if host == "docker.io" { "https://index.docker.io/v1/" } else { host };
            if let Some(found) = ask(&store, key)? {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

/// Long enough for somebody to unlock a keyring.
const HELPER_TIMEOUT_MS: u32 = 60_000;

/// Asks a helper program: the registry on its standard input, JSON on its standard output
/// (docker-credential-helpers' protocol, `get`).
fn ask(helper: &str, host: &str) -> Result<Option<Credentials>, Error> {
    let said = run(helper, "get", host, host.as_bytes())?;
    answer(helper, host, said.status.success(), &said.output)
}

/// Runs a helper program. What it is given may hold a secret, and comes by its standard input.
fn run(helper: &str, verb: &str, host: &str, input: &[u8]) -> Result<process::Said, Error> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if helper.is_empty() || !helper.bytes().all(fits) {
        return Err(Error::HelperName(helper.to_owned()));
    }
    let program = userns::find_helper(&format!("docker-credential-{helper}"));
    let program = program.ok_or_else(|| Error::NoHelper(helper.to_owned()))?;
    let said = process::ask_program(&program, &[verb], input, HELPER_TIMEOUT_MS);
    said.map_err(|source| Error::Helper { helper: helper.to_owned(), host: host.to_owned(), source })
}

/// What a helper says of its failure, made harmless for a terminal.
fn complaint(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(300).collect();
    if text.is_empty() { "it failed and said nothing".to_owned() } else { text }
}

/// Has a helper keep credentials (docker-credential-helpers' protocol, `store`).
pub(super) fn keep(helper: &str, host: &str, user: &str, password: &str) -> Result<(), Error> {
    let input = serde_json::json!({ "ServerURL": host, "Username": user, "Secret": password }).to_string();
    let said = run(helper, "store", host, input.as_bytes())?;
    if said.status.success() {
        return Ok(());
    }
    let (helper, host) = (helper.to_owned(), host.to_owned());
    Err(Error::Kept { helper, host, message: complaint(&said.output) })
}

/// Has a helper forget credentials (`erase`); says whether it had any.
pub(super) fn forget(helper: &str, host: &str) -> Result<bool, Error> {
    if ask(helper, host)?.is_none() {
        return Ok(false);
    }
    let said = run(helper, "erase", host, host.as_bytes())?;
    if said.status.success() {
        return Ok(true);
    }
    let (helper, host) = (helper.to_owned(), host.to_owned());
    Err(Error::Kept { helper, host, message: complaint(&said.output) })
}

fn answer(helper: &str, host: &str, success: bool, output: &[u8]) -> Result<Option<Credentials>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let (helper, host) = (helper.to_owned(), host.to_owned());
    if !success {
        let message = complaint(output);
        if message.contains("credentials not found") {
            return Ok(None);
        }
        return Err(Error::Refused { helper, host, message });
    }
    let Ok(Answer { username, secret }) = serde_json::from_slice(output) else {
        return Err(Error::Answer { helper, host });
    };
    Ok(match (username.as_str(), secret) {
        (_, secret) if secret.is_empty() => None,
        ("<token>", secret) => Some(Credentials::Identity(secret)),
        (_, password) => Some(Credentials::Password { user: username, password }),
    })
}

/// Whether a key of an auth file means this registry, or part of one.
pub(super) fn names(key: &str, host: &str) -> bool {
    // Docker writes URLs: https://index.docker.io/v1/
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.strip_suffix("/v1/").or_else(|| key.strip_suffix("/v2/")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key == host || host == "docker.io" && ["index.docker.io", "registry-1.docker.io"].contains(&key)
}

/// The longest key that the name begins with: `host/team/app`, `host/team`, `host`.
fn look_up(
    entries: &BTreeMap<String, Entry>,
    reference: &Reference,
    path: &Path,
) -> Result<Option<Credentials>, Error> {
    let name = reference.name();
    let mut key = name.as_str();
    loop {
        if let Some((host, entry)) = entries.iter().find(|(host, _)| names(host, key)) {
            return credentials(entry, host, path);
        }
        match key.rsplit_once('/') {
            Some((shorter, _)) => key = shorter,
            None => return Ok(None),
        }
    }
}

fn credentials(entry: &Entry, host: &str, path: &Path) -> Result<Option<Credentials>, Error> {
    if let Some(token) = entry.identity_token.as_ref().filter(|token| !token.is_empty()) {
        return Ok(Some(Credentials::Identity(token.clone())));
    }
    // An entry without a secret stands for one that a credential helper keeps.
    let Some(auth) = entry.auth.as_ref().filter(|auth| !auth.is_empty()) else { return Ok(None) };
    let malformed = || Error::Malformed { path: path.to_owned(), host: host.to_owned() };
    let text = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = text.ok_or_else(malformed)?;
    let (user, password) = text.trim_end_matches('\0').split_once(':').ok_or_else(malformed)?;
    Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
}

/// What a registry demands in a WWW-Authenticate header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password.
    Basic,
    /// A token from a server.
    Bearer {
        /// Where to get it.
        realm: String,
        /// Whom it is for.
        service: Option<String>,
        /// What it allows.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Parses the header (RFC 7235); prefers Bearer where both are offered.
    pub fn parse(header: &str) -> Option<Self> {
        let (scheme, parameters) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (mut realm, mut service, mut scope) = (None, None, None);
        let mut rest = parameters.trim();
        while let Some((key, after)) = rest.split_once('=') {
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_at(after.find(',').unwrap_or(after.len())),
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                "scope" => scope = Some(value.to_owned()),
                _ => {}
            }
            rest = next.trim_start_matches([',', ' ']);
        }
        Some(Self::Bearer { realm: realm?, service, scope })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let text = r#"Bearer realm="https://a/token",service="a, b",scope="repository:x:pull""#;
        let Some(Challenge::Bearer { realm, service, scope }) = Challenge::parse(text) else { panic!() };
        assert_eq!((realm.as_str(), service.as_deref()), ("https://a/token", Some("a, b")));
        assert_eq!(scope.as_deref(), Some("repository:x:pull"));
        assert_eq!(Challenge::parse("Basic realm=\"x\""), Some(Challenge::Basic));
        for bad in ["", "Bearer", "Bearer realm=\"x", "Negotiate x"] {
            assert_eq!(Challenge::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_of_helpers() {
        let get = |success, output: &str| answer("h", "r.io", success, output.as_bytes());
        let good = r#"{"ServerURL":"r.io","Username":"u","Secret":"p"}"#;
        let password = Credentials::Password { user: "u".into(), password: "p".into() };
        assert_eq!(get(true, good).unwrap(), Some(password));
        let token = get(true, r#"{"Username":"<token>","Secret":"t"}"#).unwrap();
        assert_eq!(token, Some(Credentials::Identity("t".into())));
        assert_eq!(get(true, "{}").unwrap(), None);
        assert_eq!(get(false, "credentials not found in native keychain\n").unwrap(), None);
        assert!(
            get(false, "the keyring\x1b is locked\n")
                .unwrap_err()
                .to_string()
                .ends_with(": the keyring is locked")
        );
        let error = get(true, "secret").unwrap_err().to_string();
        assert!(error.contains("not understood") && !error.contains("secret"), "{error}");
        for bad in ["", "a/b", "..;", "a b"] {
            assert!(matches!(ask(bad, "r.io"), Err(Error::HelperName(_))), "{bad}");
        }
        assert!(matches!(ask("surely-absent", "r.io"), Err(Error::NoHelper(_))));
    }

    #[test]
    fn the_longest_key_wins() {
        let file: AuthFile = serde_json::from_str(
            r#"{"auths":{"r.io":{"auth":"YTpi"},"r.io/team":{"auth":"Yzpk"},"https://index.docker.io/v1/":{"auth":"ZTpm"}}}"#,
        )
        .unwrap();
        let entries = file.auths.unwrap();
        let user = |name: &str| {
            let found = look_up(&entries, &name.parse().unwrap(), Path::new("f")).unwrap();
            found.map(|c| match c {
                Credentials::Password { user, .. } => user,
                Credentials::Identity(_) => panic!(),
            })
        };
        assert_eq!(user("r.io/x").as_deref(), Some("a"));
        assert_eq!(user("r.io/team/x").as_deref(), Some("c"));
        assert_eq!(user("docker.io/x").as_deref(), Some("e"));
        assert_eq!(user("other.io/x"), None);
    }
}
