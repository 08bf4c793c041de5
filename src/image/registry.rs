//! A client of registries (OCI distribution specification), pulling side, over HTTP/1.1.

use std::fmt;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use rustls::CertificateError;
use serde::Deserialize;
use ureq::http::{StatusCode, Uri};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, Body};

use super::auth::{Challenge, Credentials};
use super::manifest::{ACCEPT, Descriptor, MAX_MANIFEST};
use super::reference::Reference;
use super::resolver::OwnResolver;
use super::source::{self, Fetched, Source};
use super::tls::{TlsConnector, Trust};

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
}

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
    #[error("the registry {host} limits the rate of requests{}", detail(message))]
    TooMany {
        /// Host and port.
        host: String,
        /// What it says.
        message: String,
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

/// An error of the HTTP client, in words for people.
#[derive(Debug)]
pub struct HttpError(ureq::Error);

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
            Self::Denied { .. } => Some("is the name right? If the image is private: --creds or --authfile".into()),
            Self::NotFound { .. } => Some("check the name and the tag".into()),
            _ => None,
        }
    }
}

/// One image at a registry.
pub struct Registry {
    agent: Agent,
    /// What the image is called.
    reference: Reference,
    /// What is asked for.
    asked: Reference,
    /// Host and port as in the name.
    host: String,
    /// `https://host` or `http://host`; settled by the first answer.
    base: Mutex<Option<String>>,
    plain_allowed: bool,
    credentials: Option<Credentials>,
    authorization: Mutex<Option<String>>,
}

const ATTEMPTS: u32 = 4;
const REDIRECTS: usize = 5;

impl Registry {
    /// Prepares to ask; connects to nothing yet.
    pub fn new(reference: &Reference, options: &Options) -> Result<Self, Error> {
        let asked = options.location.clone().unwrap_or_else(|| reference.clone());
        let host = asked.registry().ok_or_else(|| Error::NoRegistry(asked.to_string()))?.to_owned();
        let verify = options.tls_verify.unwrap_or(true);
        let trust = Trust::read(&host, verify, options.cert_dir.as_deref())?;
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(TlsConnector::new(trust));
        let config = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .user_agent(concat!("umiak/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .input_buffer_size(256 << 10)
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        Ok(Self {
            agent: Agent::with_parts(config, connector, OwnResolver),
            reference: reference.clone(),
            asked,
            host,
            base: Mutex::new(None),
            plain_allowed: !verify,
            credentials: options.creds.clone(),
            authorization: Mutex::new(None),
        })
    }

    fn url(&self, base: &str, path: &str) -> String {
        format!("{base}/v2/{}/{path}", self.asked.repository())
    }

    /// Asks for `path` below the repository, with everything that may need: HTTP instead of
    /// HTTPS, a token, another try, redirects.
    fn get(
        &self,
        path: &str,
        name: &str,
        accept: &[&str],
        offset: u64,
    ) -> Result<ureq::http::Response<Body>, Error> {
        let known = lock(&self.base).clone();
        // Docker Hub's registry has another name than its images.
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host };
        let mut base = known.clone().unwrap_or_else(|| format!("https://{host}"));
        let mut authenticated = false;
        let mut attempt = 0;
        loop {
            let authorization = lock(&self.authorization).clone();
            let url = self.url(&base, path);
            let response = match self.follow(&url, authorization, accept, offset) {
                Err(Error::Connect { source, .. })
                    if self.plain_allowed
                        && known.is_none()
                        && base.starts_with("https:")
                        && !fatal(&source) =>
                {
                    base = format!("http://{host}");
                    continue;
                }
                Err(Error::Connect { host, source }) if attempt + 1 < ATTEMPTS && transient(&source) => {
                    let _ = host;
                    std::thread::sleep(pause(attempt, None));
                    attempt += 1;
                    continue;
                }
                other => other?,
            };
            *lock(&self.base) = Some(base.clone());
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !authenticated {
                authenticated = true;
                let header = header(&response, "www-authenticate").unwrap_or_default().to_owned();
                let value = self.authenticate(&header, &base)?;
                *lock(&self.authorization) = Some(value);
                continue;
            }
            let busy = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
            if busy && attempt + 1 < ATTEMPTS {
                let after = header(&response, "retry-after").and_then(|text| text.parse().ok());
                std::thread::sleep(pause(attempt, after));
                attempt += 1;
                continue;
            }
            if status.is_success() {
                return Ok(response);
            }
            return Err(self.failed(response, name));
        }
    }

    fn failed(&self, mut response: ureq::http::Response<Body>, name: &str) -> Error {
        let status = response.status();
        let (host, name, message) = (self.host.clone(), name.to_owned(), message(response.body_mut()));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { host, name, message },
            StatusCode::NOT_FOUND => Error::NotFound { host, name, message },
            StatusCode::TOO_MANY_REQUESTS => Error::TooMany { host, message },
            status => Error::Status { host, name, status: status.to_string(), message },
        }
    }

    /// Follows redirects. Credentials go only to the registry itself, and never from HTTPS to HTTP.
    fn follow(
        &self,
        url: &str,
        authorization: Option<String>,
        accept: &[&str],
        offset: u64,
    ) -> Result<ureq::http::Response<Body>, Error> {
        let mut target = url.to_owned();
        for _ in 0..=REDIRECTS {
            let mut request = self.agent.get(&target);
            for kind in accept {
                request = request.header("Accept", *kind);
            }
            if let Some(value) = authorization.as_ref().filter(|_| same_origin(url, &target)) {
                request = request.header("Authorization", value);
            }
            if offset > 0 {
                request = request.header("Range", format!("bytes={offset}-"));
            }
            let host = target.parse::<Uri>().ok().and_then(|u| u.authority().map(ToString::to_string));
            let response = request.call().map_err(|error| Error::Connect {
                host: host.unwrap_or_else(|| self.host.clone()),
                source: HttpError(error),
            })?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = header(&response, "location").unwrap_or_default();
            target = join(&target, location)
                .ok_or_else(|| Error::Redirect { host: self.host.clone(), target: location.to_owned() })?;
        }
        Err(Error::Redirect { host: self.host.clone(), target })
    }

    /// Answers a challenge: the value for the Authorization header.
    fn authenticate(&self, header: &str, base: &str) -> Result<String, Error> {
        let denied = |message: &str| Error::Denied {
            host: self.host.clone(),
            name: self.asked.name(),
            message: message.to_owned(),
        };
        match Challenge::parse(header) {
            Some(Challenge::Basic) => {
                let basic = self.credentials.as_ref().and_then(Credentials::basic);
                basic.ok_or_else(|| denied("user and password are needed"))
            }
            Some(Challenge::Bearer { realm, service, scope }) => {
                // A secret must not be lured onto an open line.
                if base.starts_with("https:") && !realm.starts_with("https:") && !self.plain_allowed {
                    return Err(Error::Redirect { host: self.host.clone(), target: realm });
                }
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.asked.repository()));
                self.token(&realm, service.as_deref(), &scope).map(|token| format!("Bearer {token}"))
            }
            None => Err(Error::Challenge { host: self.host.clone(), challenge: header.to_owned() }),
        }
    }

    /// Gets a token (distribution's `token.md` and `oauth.md`).
    fn token(&self, realm: &str, service: Option<&str>, scope: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
        }
        let connect = |error| Error::Connect { host: realm.to_owned(), source: HttpError(error) };
        let mut response = match &self.credentials {
            Some(Credentials::Identity(refresh)) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service.unwrap_or_default()),
                    ("client_id", "umiak"),
                    ("scope", scope),
                    ("refresh_token", refresh),
                ];
                self.agent.post(realm).send_form(form).map_err(connect)?
            }
            other => {
                let mut request = self.agent.get(realm).query("scope", scope);
                if let Some(service) = service {
                    request = request.query("service", service);
                }
                if let Some(basic) = other.as_ref().and_then(Credentials::basic) {
                    request = request.header("Authorization", basic);
                }
                request.call().map_err(connect)?
            }
        };
        if !response.status().is_success() {
            return Err(self.failed(response, &self.asked.name()));
        }
        let bytes = read_limited(response.body_mut()).ok_or(Error::TooLarge { host: realm.to_owned() })?;
        let answer: Option<Answer> = serde_json::from_slice(&bytes).ok();
        let token = answer.and_then(|a| a.token.or(a.access_token)).filter(|token| !token.is_empty());
        token.filter(|token| token.bytes().all(|b| b.is_ascii_graphic())).ok_or_else(|| Error::Denied {
            host: realm.to_owned(),
            name: self.asked.name(),
            message: "the token server gave no token".to_owned(),
        })
    }

    fn fetch_manifest(&self, selector: &str) -> Result<Fetched, Error> {
        let name = self.asked.to_string();
        let mut response = self.get(&format!("manifests/{selector}"), &name, &ACCEPT, 0)?;
        let media_type =
            header(&response, "content-type").map(|t| t.split(';').next().unwrap_or(t).trim().to_owned());
        let bytes =
            read_limited(response.body_mut()).ok_or_else(|| Error::TooLarge { host: self.host.clone() })?;
        Ok(Fetched { bytes, media_type })
    }
}

impl Source for Registry {
    fn root(&self) -> Result<Fetched, source::Error> {
        let fetched = self.fetch_manifest(&self.asked.selector())?;
        if let Some(expected) = self.reference.digest() {
            let found = crate::base::digest::Digest::of(&fetched.bytes);
            if found != expected {
                return Err(source::Error::Digest { expected, found });
            }
        }
        Ok(fetched)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Fetched, source::Error> {
        Ok(self.fetch_manifest(&descriptor.digest.to_string())?)
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send + '_>, source::Error> {
        let mut blob = Blob {
            registry: self,
            descriptor: descriptor.clone(),
            at: 0,
            body: None,
            failures: 0,
            failed_at: 0,
        };
        blob.connect()?;
        Ok(Box::new(blob))
    }

    fn names(&self) -> Vec<String> {
        self.reference.tagged().into_iter().collect()
    }

    fn repository(&self) -> Option<String> {
        Some(self.reference.name())
    }
}

/// A blob's download, taken up again where it was cut.
struct Blob<'a> {
    registry: &'a Registry,
    descriptor: Descriptor,
    at: u64,
    body: Option<ureq::BodyReader<'static>>,
    failures: u32,
    /// Where the first of these failures was.
    failed_at: u64,
}

/// After so many bytes the line is good again, and failures are counted anew: else a server that
/// sends a byte at a time would be asked for ever.
const GOOD: u64 = 1 << 20;

impl Blob<'_> {
    fn connect(&mut self) -> Result<(), Error> {
        let path = format!("blobs/{}", self.descriptor.digest);
        let response = self.registry.get(&path, &path, &[], self.at)?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let from = header(&response, "content-range")
            .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
        // Limits of whole reads do not apply to a stream; the manifest's size does.
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        if self.at > 0 && !(partial && from == Some(self.at)) {
            // The server sends all again: pass over what is here.
            let passed = io::copy(&mut body.by_ref().take(self.at), &mut io::sink()).unwrap_or_default();
            if passed < self.at {
                return Ok(());
            }
        }
        self.body = Some(body);
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match &mut self.body {
                Some(body) => body.read(into),
                None => Err(io::ErrorKind::ConnectionReset.into()),
            };
            let cut = match result {
                Ok(0) if self.at < self.descriptor.size && !into.is_empty() => {
                    io::Error::from(io::ErrorKind::UnexpectedEof)
                }
                Ok(count) => {
                    self.at += count as u64;
                    if self.at - self.failed_at >= GOOD {
                        (self.failures, self.failed_at) = (0, self.at);
                    }
                    return Ok(count);
                }
                Err(error) => error,
            };
            self.body = None;
            self.failures += 1;
            // A server that always sends a part and stops has the wrong size, not a bad line.
            if self.failures >= ATTEMPTS || (cut.kind() == io::ErrorKind::UnexpectedEof && self.failures > 1)
            {
                if cut.kind() == io::ErrorKind::UnexpectedEof {
                    return Ok(0);
                }
                let text = format!("the connection was cut {} times, at last: {cut}", self.failures);
                return Err(io::Error::new(cut.kind(), text));
            }
            std::thread::sleep(pause(self.failures - 1, None));
            match self.connect() {
                // The rest of a blob that is shorter than the manifest says: no such range.
                Err(Error::Status { .. }) => return Ok(0),
                Err(error) => return Err(io::Error::other(crate::base::report::chain(&error))),
                Ok(()) => {}
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn header<'a>(response: &'a ureq::http::Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// 0.2 s, 0.4 s, …; what the server wishes, up to 10 s.
fn pause(attempt: u32, wished: Option<u64>) -> Duration {
    match wished {
        Some(seconds) => Duration::from_secs(seconds.min(10)),
        None => Duration::from_millis(200 << attempt.min(5)),
    }
}

fn transient(error: &HttpError) -> bool {
    match &error.0 {
        ureq::Error::Io(error) => error.kind() != io::ErrorKind::ConnectionRefused,
        ureq::Error::Protocol(_) | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

/// Errors that plain HTTP would not heal.
fn fatal(error: &HttpError) -> bool {
    matches!(&error.0, ureq::Error::HostNotFound | ureq::Error::Timeout(_))
}

/// Scheme, host and port are the same.
fn same_origin(a: &str, b: &str) -> bool {
    let origin = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let host = uri.host()?.to_ascii_lowercase();
        Some((uri.scheme_str()?.to_owned(), host, uri.port_u16().unwrap_or(default)))
    };
    origin(a).is_some_and(|a| Some(a) == origin(b))
}

/// Resolves a Location header; `None` if it leads from HTTPS to HTTP or to no web address.
fn join(from: &str, location: &str) -> Option<String> {
    let target = if location.starts_with("https://") || location.starts_with("http://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{}://{rest}", from.split("://").next()?)
    } else if location.starts_with('/') {
        let uri: Uri = from.parse().ok()?;
        format!("{}://{}{location}", uri.scheme_str()?, uri.authority()?)
    } else if location.is_empty() || location.contains("://") {
        return None;
    } else {
        format!("{}/{location}", from.rsplit_once('/')?.0)
    };
    let downgrade = from.starts_with("https:") && !target.starts_with("https:");
    (!downgrade && target.parse::<Uri>().is_ok()).then_some(target)
}

fn read_limited(body: &mut Body) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    body.with_config()
        .limit(MAX_MANIFEST + 2)
        .reader()
        .take(MAX_MANIFEST + 1)
        .read_to_end(&mut bytes)
        .ok()?;
    (bytes.len() as u64 <= MAX_MANIFEST).then_some(bytes)
}

/// What a registry says went wrong (distribution specification, "Error Codes"), made harmless for a terminal.
fn message(body: &mut Body) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<One>,
    }
    #[derive(Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let bytes = read_limited(body).unwrap_or_default();
    let Ok(errors) = serde_json::from_slice::<Errors>(&bytes) else { return String::new() };
    let texts = errors.errors.iter().take(3).map(|e| if e.message.is_empty() { &e.code } else { &e.message });
    let text = texts.cloned().collect::<Vec<_>>().join("; ");
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects() {
        let from = "https://r.io:5000/v2/a/blobs/x";
        assert_eq!(join(from, "/y").as_deref(), Some("https://r.io:5000/y"));
        assert_eq!(join(from, "//cdn/y").as_deref(), Some("https://cdn/y"));
        assert_eq!(join(from, "y").as_deref(), Some("https://r.io:5000/v2/a/blobs/y"));
        for bad in ["http://r.io/y", "file:///etc/passwd", "", "ftp://x"] {
            assert_eq!(join(from, bad), None, "{bad}");
        }
        assert!(same_origin("https://R.io/a", "https://r.io:443/b"));
        assert!(
            !same_origin("https://r.io", "https://r.io:444")
                && !same_origin("https://r.io", "http://r.io:443")
        );
    }
}
