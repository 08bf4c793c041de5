//! What registries answer, in words for people.

use std::fmt;
use std::io;
use std::path::PathBuf;

use rustls::CertificateError;

use crate::base::digest::Digest;
use crate::base::time;
use crate::image::manifest::MAX_MANIFEST;

/// What a registry or the way to it did.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name lacks a registry.
    #[error("\"{0}\" names no registry")]
    NoRegistry(String),
    /// Certificates.
    #[error("reading certificates from \"{}\"", path.display())]
    Certificates {
        /// File or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No answer.
    #[error("asking the registry {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// 401 or 403, also from the token server.
    #[error("the registry {host} denies access to \"{name}\"{}", detail(message))]
    Denied {
        /// Host and port.
        host: String,
        /// The repository.
        name: String,
        /// What it says.
        message: String,
    },
    /// 404.
    #[error("the registry {host} has no \"{name}\"{}", detail(message))]
    NotFound {
        /// Host and port.
        host: String,
        /// The image or blob.
        name: String,
        /// What it says.
        message: String,
    },
    /// 429.
    #[error("the registry {host} limits the rate of requests{}{}", detail(message), again(*after))]
    TooMany {
        /// Host and port.
        host: String,
        /// What it says.
        message: String,
        /// After how many seconds it may be asked again, if it says so.
        after: Option<u64>,
    },
    /// Another status.
    #[error("the registry {host} answered {status} for \"{name}\"{}", detail(message))]
    Status {
        /// Host and port.
        host: String,
        /// The image or blob.
        name: String,
        /// The status line.
        status: String,
        /// What it says.
        message: String,
    },
    /// A redirect that must not be followed or leads nowhere.
    #[error("the registry {host} redirects to \"{target}\", which is not followed")]
    Redirect {
        /// Host and port.
        host: String,
        /// Where to.
        target: String,
    },
    /// An answer larger than allowed.
    #[error("the registry {host} answered with more than {MAX_MANIFEST} bytes")]
    TooLarge {
        /// Host and port.
        host: String,
    },
    /// An upload without a place to send to, or with one that makes no sense.
    #[error("the registry {host} does not say where to upload to")]
    NoLocation {
        /// Host and port.
        host: String,
    },
    /// What was to be uploaded cannot be read.
    #[error("reading the blob {digest}")]
    Content {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An upload that never came through.
    #[error("uploading the blob {digest} to {host}: given up after {times} attempt{}", if *times == 1 { "" } else { "s" })]
    Upload {
        /// Host and port.
        host: String,
        /// The blob.
        digest: Digest,
        /// How many.
        times: u32,
        /// What stopped the last one.
        #[source]
        source: Box<Error>,
    },
    /// It has stored something else than was sent.
    #[error("the registry {host} says that it stored {found}, but {expected} was sent")]
    Stored {
        /// Host and port.
        host: String,
        /// What was sent.
        expected: Digest,
        /// What it says.
        found: String,
    },
    /// An answer that makes no sense.
    #[error("the registry {host} answered with something that is not understood")]
    Nonsense {
        /// Host and port.
        host: String,
    },
    /// An authentication scheme that is not known.
    #[error("the registry {host} demands an unknown kind of authentication: \"{challenge}\"")]
    Challenge {
        /// Host and port.
        host: String,
        /// The header.
        challenge: String,
    },
}

fn detail(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

fn again(after: Option<u64>) -> String {
    let span =
        after.map(|seconds| jiff::SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)));
    span.map_or_else(String::new, |span| {
        format!(", it may be asked again in {}", time::human(span).to_lowercase())
    })
}

/// An error of the HTTP client, in words for people.
#[derive(Debug)]
pub struct HttpError(pub(super) ureq::Error);

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ureq::Error::Io(error) => match self.certificate() {
                Some(problem) => f.write_str(&certificate_problem(problem)),
                None => write!(f, "{error}"),
            },
            ureq::Error::HostNotFound => f.write_str("no such host"),
            ureq::Error::Timeout(_) => f.write_str("no answer in time"),
            ureq::Error::Rustls(error) => write!(f, "{error}"),
            other => write!(f, "{other}"),
        }
    }
}

impl std::error::Error for HttpError {}

impl HttpError {
    /// What is wrong with the certificate that the server showed, if that is it.
    fn certificate(&self) -> Option<&CertificateError> {
        let error = match &self.0 {
            ureq::Error::Rustls(error) => error,
            ureq::Error::Io(error) => error.get_ref()?.downcast_ref::<rustls::Error>()?,
            _ => return None,
        };
        match error {
            rustls::Error::InvalidCertificate(problem) => Some(problem),
            _ => None,
        }
    }
}

fn certificate_problem(problem: &CertificateError) -> String {
    use CertificateError as E;
    let text = match problem {
        E::UnknownIssuer => "nobody who is trusted has signed its certificate",
        E::Expired | E::ExpiredContext { .. } => "its certificate has expired",
        E::NotValidYet | E::NotValidYetContext { .. } => "its certificate is not valid yet",
        E::NotValidForName | E::NotValidForNameContext { .. } => "its certificate is for another name",
        other => return format!("its certificate is unusable: {other}"),
    };
    text.to_owned()
}

impl Error {
    /// Whether the image's name may be wrong, rather than something else.
    pub fn may_be_a_slip(&self) -> bool {
        match self {
            Self::NotFound { .. } => true,
            Self::Connect { source, .. } => source.certificate().is_none(),
            // Docker Hub says so of what it does not have.
            Self::Denied { host, .. } => host == "docker.io",
            _ => false,
        }
    }

    /// What might help.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { source, .. } if source.certificate().is_some() => match source.certificate() {
                Some(CertificateError::UnknownIssuer) => {
                    Some("if its certificate is one of your own, trust it with --cert-dir; --tls-verify=false trusts any".into())
                }
                _ => Some("the registry needs another certificate; --tls-verify=false trusts any".into()),
            },
            Self::Connect { source: HttpError(ureq::Error::Rustls(_) | ureq::Error::Tls(_)), .. } => {
                Some("if the registry speaks plain HTTP or has a certificate of its own, use --tls-verify=false or --cert-dir".into())
            }
            Self::Connect { source: HttpError(ureq::Error::Io(error)), .. }
                if error.kind() == io::ErrorKind::InvalidData =>
            {
                Some("if the registry speaks plain HTTP or has a certificate of its own, use --tls-verify=false or --cert-dir".into())
            }
            Self::Connect { source: HttpError(ureq::Error::Io(error)), .. }
                if error.kind() == io::ErrorKind::ConnectionRefused =>
            {
                Some("is the registry running, and the port right?".into())
            }
            Self::Connect { source: HttpError(ureq::Error::HostNotFound), .. } => {
                Some("check the name of the registry and the network".into())
            }
            Self::TooMany { .. } => Some("registries often allow more to users who are known: --creds or --authfile".into()),
            Self::Denied { .. } => Some("is the name right? If the image is private: --creds or --authfile".into()),
            Self::NotFound { .. } => Some("check the name and the tag".into()),
            Self::Upload { source, .. } => source.hint(),
            _ => None,
        }
    }
}
