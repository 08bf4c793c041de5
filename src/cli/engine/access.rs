//! The flags by which registries are reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args};

use super::Failure;
use crate::engine::reach::Reach;
use crate::image::trust::sign::{self, Chosen, KeyFile, User};

/// How a registry is asked.
#[derive(Args, Debug, Clone)]
pub struct Access {
    /// Take credentials from this file
    #[arg(long, value_name = "PATH")]
    authfile: Option<PathBuf>,
    /// Take certificates from this directory
    #[arg(long, value_name = "PATH")]
    cert_dir: Option<PathBuf>,
    /// User and password for the registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    creds: Option<String>,
    #[command(flatten)]
    tls: Tls,
}

/// Whether its certificate counts.
#[derive(Args, Debug, Clone)]
pub struct Tls {
    /// Demand HTTPS and a certificate that is known
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = ArgAction::Set)]
    pub tls_verify: Option<bool>,
}

/// How often it is asked.
#[derive(Args, Debug, Clone)]
pub struct Retry {
    /// How many times more to try what fails
    #[arg(long, value_name = "NUMBER")]
    retry: Option<u32>,
    /// How long to wait before: 2s, 500ms, 1m
    #[arg(long, value_name = "DURATION")]
    retry_delay: Option<String>,
}

/// Whether it is signed.
#[derive(Args, Debug, Clone)]
pub struct Signing {
    /// Sign with this user's key of GnuPG's (a fingerprint, or a part of the name); registries.d says where the
    /// signature is kept
    #[arg(long, value_name = "KEY")]
    sign_by: Option<String>,
    /// Sign with this private key of sigstore's (cosign's); the signature is put beside the image
    #[arg(long, value_name = "FILE")]
    sign_by_sigstore_private_key: Option<PathBuf>,
    /// The key's passphrase is in this file; asked for on the terminal, or by GnuPG's agent, otherwise
    #[arg(long, value_name = "FILE")]
    sign_passphrase_file: Option<PathBuf>,
}

impl Signing {
    /// The keys, with their passphrases.
    pub fn keys(self) -> Result<Vec<Chosen>, Failure> {
        let passphrase = self.sign_passphrase_file.as_deref().map(read_passphrase).transpose()?;
        match (self.sign_by_sigstore_private_key, self.sign_by) {
            (None, None) if passphrase.is_some() => {
                Err(Failure::new("--sign-passphrase-file: it is not said which key signs"))
            }
            (Some(_), Some(_)) if passphrase.is_some() => Err(Failure::new(
                "--sign-passphrase-file: it is not said whether it is sigstore's key's or GnuPG's",
            )),
            (path, name) => {
                let mut keys = Vec::new();
                if let Some(path) = path {
                    let passphrase = match &passphrase {
                        Some(passphrase) => passphrase.clone(),
                        None => ask_passphrase()?,
                    };
                    keys.push(Chosen::Sigstore(KeyFile { path, passphrase }));
                }
                keys.extend(name.map(|name| Chosen::GnuPg(User { name, passphrase })));
                Ok(keys)
            }
        }
    }
}

/// Reads the file of `--sign-passphrase-file`.
pub fn read_passphrase(file: &Path) -> Result<Vec<u8>, Failure> {
    sign::passphrase(file).map_err(|error| {
        let why = crate::base::report::chain(&error);
        Failure::new(format!("reading the passphrase from \"{}\": {why}", file.display()))
    })
}

fn ask_passphrase() -> Result<Vec<u8>, Failure> {
    let hint = "--sign-passphrase-file reads it from a file";
    Ok(super::login::ask_secret("Passphrase for the key: ", "a passphrase", hint)?.into_bytes())
}

impl Access {
    /// What is told by the flags.
    pub fn reach(self, retry: Option<&Retry>) -> Result<Reach, Failure> {
        Ok(Reach {
            tls_verify: self.tls.tls_verify,
            authfile: self.authfile,
            creds: self.creds,
            cert_dir: self.cert_dir,
            retry: retry.and_then(|retry| retry.retry),
            retry_delay: delay(retry.and_then(|retry| retry.retry_delay.as_deref()))?,
        })
    }
}

/// The value of `--retry-delay`: Go's durations.
fn delay(text: Option<&str>) -> Result<Option<Duration>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let parsed = crate::base::time::parse_duration(text).ok().and_then(|span| Duration::try_from(span).ok());
    let wrong = || Failure::new(format!("--retry-delay \"{text}\": write a duration such as 5s or 1m30s"));
    parsed.map(Some).ok_or_else(wrong)
}
