//! How registries are asked, coming in and going out.

use std::path::PathBuf;
use std::time::Duration;

use super::images;
use crate::image::{Credentials, Reference, Registries, auth, registry};

/// How registries are reached: what `push`, `login` and their kin are told on the command line.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// `--tls-verify`.
    pub tls_verify: Option<bool>,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--creds`.
    pub creds: Option<String>,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// `--retry`.
    pub retry: Option<u32>,
    /// `--retry-delay`.
    pub retry_delay: Option<Duration>,
}

impl Reach {
    /// What `--creds` says.
    pub(super) fn credentials(&self) -> Result<Option<Credentials>, images::Error> {
        let Some(text) = &self.creds else { return Ok(None) };
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        if user.is_empty() {
            return Err(images::Error::Creds);
        }
        Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
    }

    /// How to ask for `reference` at the registry itself: mirrors are for pulls alone. Asks credential
    /// helpers: for a process that ends soon.
    pub(super) fn options(
        &self,
        reference: &Reference,
        configuration: &Registries,
        given: bool,
    ) -> Result<registry::Options, images::Error> {
        let mut endpoints = configuration.endpoints(reference)?;
        let endpoint = endpoints.pop();
        let (location, insecure) =
            endpoint.map_or((reference.clone(), false), |endpoint| (endpoint.reference, endpoint.insecure));
        let creds = match self.credentials()?.filter(|_| given) {
            Some(creds) => Some(creds),
            None => {
                let env = |name: &str| std::env::var_os(name);
                let helpers = configuration.credential_helpers();
                auth::find(&location, self.authfile.as_deref(), &helpers, &env)?
            }
        };
        Ok(registry::Options {
            tls_verify: self.tls_verify.filter(|_| given).or(insecure.then_some(false)),
            creds,
            location: Some(location),
            cert_dir: self.cert_dir.clone().filter(|_| given),
            retry: self.retry,
            retry_delay: self.retry_delay,
        })
    }
}
