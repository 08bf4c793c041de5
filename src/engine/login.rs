//! Logging in to registries and out of them.

use std::path::PathBuf;

use super::images::{self, registries};
use super::reach::Reach;
use crate::image::login::{self, AuthFile};
use crate::image::{Credentials, Reference, Registries, auth, registry};

/// What goes wrong with logging in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration.
    #[error(transparent)]
    Images(#[from] images::Error),
    /// registries.conf.
    #[error(transparent)]
    Registries(#[from] crate::image::registries::Error),
    /// Files of credentials, and helpers.
    #[error(transparent)]
    Auth(#[from] auth::Error),
    /// No registry was named, and there is none to search in.
    #[error("no registry was named")]
    NoRegistry,
    /// A text that is no registry.
    #[error("\"{0}\" is not the name of a registry")]
    Name(String),
    /// The registry says no, or nothing.
    #[error("logging in to {name}")]
    Refused {
        /// The registry.
        name: String,
        /// Why.
        #[source]
        source: registry::Error,
    },
    /// There is nothing to tell or to forget.
    #[error("not logged in to {0}")]
    NotLoggedIn(String),
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Images(error) => error.hint(),
            Self::Auth(error) => error.hint(),
            Self::NoRegistry => Some("name one: umiak login REGISTRY".to_owned()),
            Self::Refused { source: registry::Error::Denied { .. }, .. } => {
                Some("user or password are wrong, or the account may not use the registry".to_owned())
            }
            Self::Refused { source, .. } => source.hint(),
            _ => None,
        }
    }
}

/// A registry, or a part of one, that somebody logs in to or out of.
pub struct Account {
    /// `host` or `host/path`, as it stands in the file.
    pub name: String,
    /// The file that is written.
    pub file: AuthFile,
    configuration: Registries,
    reach: Reach,
}

impl Account {
    /// Finds out which registry is meant (the first to search in if none is named), and which file.
    pub fn new(name: Option<&str>, reach: Reach, compat: Option<PathBuf>) -> Result<Self, Error> {
        let configuration = registries()?;
        let name = match name {
            Some(name) => normal(name),
            None => configuration.first().ok_or(Error::NoRegistry)?.to_owned(),
        };
        reference(&name)?;
        Ok(Self { name, file: file(&reach, compat), configuration, reach })
    }

    /// What is known already, if it is a user and a password.
    pub fn existing(&self) -> Result<Option<(String, String)>, Error> {
        let reference = reference(&self.name)?;
        let env = |name: &str| std::env::var_os(name);
        let helpers = self.configuration.credential_helpers();
        let named = if self.file.docker { Some(&self.file.path) } else { self.reach.authfile.as_ref() };
        // One that is not there yet has nothing.
        if named.is_some_and(|path| !path.exists()) {
            return Ok(None);
        }
        let found = auth::find(&reference, named.map(PathBuf::as_path), &helpers, &env)?;
        Ok(found.and_then(|credentials| match credentials {
            Credentials::Password { user, password } => Some((user, password)),
            Credentials::Identity(_) => None,
        }))
    }

    /// Asks the registry whether it takes the credentials.
    pub fn check(&self, user: &str, password: &str) -> Result<(), Error> {
        let reference = reference(&self.name)?;
        let endpoint = self.configuration.endpoints(&reference)?.pop();
        let insecure = endpoint.as_ref().is_some_and(|endpoint| endpoint.insecure);
        let asked = endpoint.map_or(reference, |endpoint| endpoint.reference);
        let options = registry::Options {
            tls_verify: self.reach.tls_verify.or(insecure.then_some(false)),
            creds: Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }),
            cert_dir: self.reach.cert_dir.clone(),
            ..registry::Options::default()
        };
        let refused = |source| Error::Refused { name: self.name.clone(), source };
        registry::Registry::check_login(asked.registry().unwrap_or_default(), &options).map_err(refused)
    }

    /// Keeps the credentials.
    pub fn store(&self, user: &str, password: &str) -> Result<(), Error> {
        let credentials = Credentials::Password { user: user.to_owned(), password: password.to_owned() };
        let helpers = self.configuration.credential_helpers();
        Ok(login::store(&self.file, &helpers, &self.name, &credentials)?)
    }

    /// Forgets the credentials.
    pub fn remove(&self) -> Result<(), Error> {
        let helpers = self.configuration.credential_helpers();
        if login::remove(&self.file, &helpers, &self.name)? {
            return Ok(());
        }
        Err(Error::NotLoggedIn(self.name.clone()))
    }
}

/// Forgets all credentials of the file.
pub fn remove_all(reach: &Reach, compat: Option<PathBuf>) -> Result<(), Error> {
    Ok(file(reach, compat).remove_all()?)
}

fn file(reach: &Reach, compat: Option<PathBuf>) -> AuthFile {
    match compat {
        Some(path) => AuthFile { path, docker: true },
        None => AuthFile::to_write(reach.authfile.as_deref(), &|name| std::env::var_os(name)),
    }
}

/// Without what Docker's tools put around it.
fn normal(name: &str) -> String {
    let name = name.strip_prefix("https://").or_else(|| name.strip_prefix("http://")).unwrap_or(name);
    let name = name.trim_end_matches('/');
    match name {
        "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1" => "docker.io".to_owned(),
        name => name.to_owned(),
    }
}

/// A name below the registry, by which it is looked up.
fn reference(name: &str) -> Result<Reference, Error> {
    let wrong = || Error::Name(name.to_owned());
    // A single word is a host here: "login myregistry" of a local network.
    let parsed: Reference = format!("{name}/x").parse().map_err(|_| wrong())?;
    if parsed.is_short() || parsed.tag().is_some() || parsed.digest().is_some() {
        return Err(wrong());
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_registries() {
        assert_eq!(normal("https://index.docker.io/v1/"), "docker.io");
        assert_eq!(normal("http://r.io:5000/"), "r.io:5000");
        assert_eq!(reference("r.io/team").unwrap().name(), "r.io/team/x");
        for bad in ["", "word", "r.io:x", "r.io/UP", "a b.c"] {
            assert!(reference(bad).is_err(), "{bad}");
        }
    }
}
