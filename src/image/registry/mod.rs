//! A client of registries (OCI distribution specification) over HTTP/1.1.

mod address;
mod client;
mod error;
mod pull;
mod push;
mod search;

use std::path::PathBuf;
use std::time::Duration;

pub use address::{Download, Said, fetch, is_address};
pub use client::Registry;
pub use error::{Error, HttpError};
pub use push::{Content, Mounted, Referrer};
pub use search::{Found, search};

use super::auth::Credentials;
use super::reference::Reference;

/// How many times more a request is tried that fails for a cause that passes, as Podman does.
pub const RETRIES: u32 = 3;

/// How to reach a registry.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Demand HTTPS with a certificate that is known (the default); else HTTPS with any, or HTTP.
    pub tls_verify: Option<bool>,
    /// What to prove to the registry who we are.
    pub creds: Option<Credentials>,
    /// Where to ask, and for what, if that is not what the image's name says: a mirror.
    pub location: Option<Reference>,
    /// A directory with `*.crt` (authorities), `*.cert` and `*.key` (ours).
    pub cert_dir: Option<PathBuf>,
    /// How many times more a request is tried that fails for a cause that passes; else [`RETRIES`].
    pub retry: Option<u32>,
    /// How long to wait before; else 0.2 s, 0.4 s, … or what the registry wishes.
    pub retry_delay: Option<Duration>,
}
