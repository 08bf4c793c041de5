//! One request to a registry, with everything that it may need: HTTP instead of HTTPS, a token,
//! another try, redirects. Credentials go to nobody but the registry itself.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::Duration;

use serde::Deserialize;
use ureq::http::{Method, Request, Response, StatusCode, Uri};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, TcpConnector};
use ureq::{Agent, AsSendBody, Body, SendBody};

use super::error::HttpError;
use super::{Error, Options, RETRIES};
use crate::image::auth::{Challenge, Credentials};
use crate::image::lock;
use crate::image::manifest::MAX_MANIFEST;
use crate::image::proxy;
use crate::image::reference::Reference;
use crate::image::resolver::OwnResolver;
use crate::image::tls::{TlsConnector, Trust};

/// What is going to be done at a registry: the actions that a token is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// Nothing but to be known.
    Login,
    Pull,
    Push,
    Delete,
}

impl Access {
    fn actions(self) -> &'static str {
        match self {
            Self::Login => "",
            Self::Pull => "pull",
            Self::Push => "pull,push",
            Self::Delete => "delete",
        }
    }
}

/// One repository of a registry.
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
    access: Access,
    retries: u32,
    delay: Option<Duration>,
    /// By the further repository that the token lets read; the empty name is none.
    authorizations: Mutex<HashMap<String, String>>,
}

const REDIRECTS: usize = 5;

/// Seconds that a registry may wish to be left alone for, to be asked again all the same.
const LONGEST: u64 = 60;

/// A registry may take this long to store what it got.
const STORING: Duration = Duration::from_secs(600);

/// What is asked of a registry.
pub(super) struct Ask<'a> {
    /// GET, HEAD, …
    pub method: Method,
    /// Below the repository, or `/v2/…`, or an address that the registry gave.
    pub target: &'a str,
    /// What it is, for errors.
    pub name: &'a str,
    /// Headers beside the usual ones.
    pub headers: &'a [(&'a str, &'a str)],
    /// What is sent with it.
    pub body: Option<&'a [u8]>,
    /// A further repository that must be readable.
    pub also: &'a str,
}

impl<'a> Ask<'a> {
    /// With neither headers nor a body.
    pub fn new(method: Method, target: &'a str, name: &'a str) -> Self {
        Self { method, target, name, headers: &[], body: None, also: "" }
    }
}

impl Registry {
    /// Prepares to read; connects to nothing yet.
    pub fn new(reference: &Reference, options: &Options) -> Result<Self, Error> {
        Self::with_access(reference, options, Access::Pull)
    }

    /// Prepares to write too.
    pub fn to_push(reference: &Reference, options: &Options) -> Result<Self, Error> {
        Self::with_access(reference, options, Access::Push)
    }

    /// Prepares to delete.
    pub fn to_delete(reference: &Reference, options: &Options) -> Result<Self, Error> {
        Self::with_access(reference, options, Access::Delete)
    }

    fn with_access(reference: &Reference, options: &Options, access: Access) -> Result<Self, Error> {
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
            .timeout_per_write(Some(Duration::from_secs(60)))
            .build();
        Ok(Self {
            agent: Agent::with_parts(config, connector, OwnResolver),
            reference: reference.clone(),
            asked,
            host,
            base: Mutex::new(None),
            plain_allowed: !verify,
            credentials: options.creds.clone(),
            access,
            retries: options.retry.unwrap_or(RETRIES),
            delay: options.retry_delay,
            authorizations: Mutex::default(),
        })
    }

    /// What the image is called.
    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    /// What is asked for.
    pub(super) fn asked(&self) -> &Reference {
        &self.asked
    }

    /// Host and port as in the name.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether user and password, or a token, are at hand.
    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// How many times a request is tried in all.
    pub(super) fn attempts(&self) -> u32 {
        self.retries.saturating_add(1)
    }

    /// 0.2 s, 0.4 s, …, or what was asked for on the command line; what the server wishes, up to 10 s.
    pub(super) fn pause(&self, attempt: u32, wished: Option<u64>) {
        let pause = match (wished, self.delay) {
            (Some(seconds), _) => Duration::from_secs(seconds.min(10)),
            (None, Some(delay)) => delay,
            (None, None) => Duration::from_millis(200 << attempt.min(5)),
        };
        std::thread::sleep(pause);
    }

    /// Asks for `path` below the repository.
    pub(super) fn get(
        &self,
        path: &str,
        name: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Body>, Error> {
        self.succeed(Ask { headers, ..Ask::new(Method::GET, path, name) })
    }

    /// As [`Registry::ask`], with every status but 2xx an error.
    pub(super) fn succeed(&self, ask: Ask<'_>) -> Result<Response<Body>, Error> {
        let name = ask.name;
        let response = self.ask(ask)?;
        if response.status().is_success() { Ok(response) } else { Err(self.failed(response, name)) }
    }

    /// Asks, and returns what is answered in the end, whatever its status.
    pub(super) fn ask(&self, ask: Ask<'_>) -> Result<Response<Body>, Error> {
        let known = lock(&self.base).clone();
        // Docker Hub's registry has another name than its images.
        let host = if self.host == "docker.io" { "registry-1.docker.io" } else { &self.host };
        let mut base = known.clone().unwrap_or_else(|| format!("https://{host}"));
        let mut authenticated = false;
        let mut attempt = 0;
        loop {
            let url = match ask.target {
                given if given.starts_with("https://") || given.starts_with("http://") => given.to_owned(),
                root if root.starts_with('/') => format!("{base}{root}"),
                path => format!("{base}/v2/{}/{path}", self.asked.repository()),
            };
            let (response, own) = match self.follow(&url, &base, &ask) {
                Err(Error::Connect { source, .. })
                    if self.plain_allowed
                        && known.is_none()
                        && base.starts_with("https:")
                        && !fatal(&source) =>
                {
                    base = format!("http://{host}");
                    continue;
                }
                Err(Error::Connect { host, source }) if attempt < self.retries && transient(&source) => {
                    let _ = host;
                    self.pause(attempt, None);
                    attempt += 1;
                    continue;
                }
                other => other?,
            };
            *lock(&self.base) = Some(base.clone());
            let status = response.status();
            // Nobody else is told who we are, nor may say where that is to be proved.
            if status == StatusCode::UNAUTHORIZED && !authenticated && own {
                authenticated = true;
                let header = header(&response, "www-authenticate").unwrap_or_default().to_owned();
                let value = self.authenticate(&header, &base, ask.also)?;
                lock(&self.authorizations).insert(ask.also.to_owned(), value);
                continue;
            }
            // Whoever wishes to be left alone for long is told on, not waited for.
            let soon = retry_after(&response).is_none_or(|seconds| seconds <= LONGEST);
            if is_busy(status) && attempt < self.retries && soon {
                self.pause(attempt, retry_after(&response));
                attempt += 1;
                continue;
            }
            return Ok(response);
        }
    }

    /// The error that a status stands for.
    pub(super) fn failed(&self, mut response: Response<Body>, name: &str) -> Error {
        let status = response.status();
        let after = retry_after(&response);
        let (host, name, message) = (self.host.clone(), name.to_owned(), message(response.body_mut()));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::Denied { host, name, message },
            StatusCode::NOT_FOUND => Error::NotFound { host, name, message },
            StatusCode::TOO_MANY_REQUESTS => Error::TooMany { host, message, after },
            status => Error::Status { host, name, status: status.to_string(), message },
        }
    }

    /// Follows redirects. Credentials go only to the registry itself (`base`), and never from HTTPS
    /// to HTTP. Says too whether it was the registry that answered.
    fn follow(&self, url: &str, base: &str, ask: &Ask<'_>) -> Result<(Response<Body>, bool), Error> {
        let authorization = lock(&self.authorizations).get(ask.also).cloned();
        let mut target = url.to_owned();
        for _ in 0..=REDIRECTS {
            let mut request = Request::builder().method(ask.method.clone()).uri(&target);
            for (name, value) in ask.headers {
                request = request.header(*name, *value);
            }
            if let Some(value) = authorization.as_ref().filter(|_| same_origin(base, &target)) {
                request = request.header("Authorization", value);
            }
            let result = match ask.body {
                Some(bytes) => self.run(request.body(bytes), false),
                None if ask.method == Method::POST => self.run(request.body(&[][..]), false),
                None => self.run(request.body(()), false),
            };
            let response = result.map_err(|error| self.connect_error(&target, error))?;
            match self.redirection(&target, &response)? {
                Some(next) => target = next,
                None => return Ok((response, same_origin(base, &target))),
            }
        }
        Err(Error::Redirect { host: self.host.clone(), target })
    }

    fn run(
        &self,
        request: Result<Request<impl AsSendBody>, ureq::http::Error>,
        slow: bool,
    ) -> Result<Response<Body>, ureq::Error> {
        let request = request?;
        let proxy = proxy_of(request.uri())?;
        let configured = self.agent.configure_request(request).proxy(proxy);
        let configured = if slow { configured.timeout_recv_response(Some(STORING)) } else { configured };
        self.agent.run(configured.build())
    }

    /// Sends `size` bytes of `body` once: neither a failure nor a refusal is mended here, only
    /// redirects are told.
    pub(super) fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        size: u64,
        body: &mut dyn Read,
    ) -> Result<Sent, Error> {
        let base = lock(&self.base).clone().unwrap_or_default();
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request = request.header("Content-Type", "application/octet-stream");
        request = request.header("Content-Length", size.to_string());
        let authorization = lock(&self.authorizations).get("").cloned();
        if let Some(value) = authorization.filter(|_| same_origin(&base, url)) {
            request = request.header("Authorization", value);
        }
        let request = request.body(SendBody::from_reader(body));
        let response = self.run(request, true).map_err(|error| self.connect_error(url, error))?;
        Ok(match self.redirection(url, &response)? {
            Some(next) => Sent::Elsewhere(next),
            None => Sent::Answered(response),
        })
    }

    fn connect_error(&self, url: &str, error: ureq::Error) -> Error {
        let host = url.parse::<Uri>().ok().and_then(|u| u.authority().map(ToString::to_string));
        Error::Connect { host: host.unwrap_or_else(|| self.host.clone()), source: HttpError(error) }
    }

    /// Where an answer leads to, if it is a redirect.
    fn redirection(&self, from: &str, response: &Response<Body>) -> Result<Option<String>, Error> {
        if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let location = header(response, "location").unwrap_or_default();
        let target = join(from, location);
        let refused = || Error::Redirect { host: self.host.clone(), target: location.to_owned() };
        target.map(Some).ok_or_else(refused)
    }

    /// Where an upload goes on, from the Location header.
    pub(super) fn location(&self, asked: &str, response: &Response<Body>) -> Result<String, Error> {
        let base = lock(&self.base).clone().unwrap_or_default();
        let from = if asked.contains("://") {
            asked.to_owned()
        } else {
            format!("{base}/v2/{}/{asked}", self.asked.repository())
        };
        let location = header(response, "location").filter(|location| !location.is_empty());
        let location = location.ok_or_else(|| Error::NoLocation { host: self.host.clone() })?;
        let refused = || Error::Redirect { host: self.host.clone(), target: location.to_owned() };
        join(&from, location).ok_or_else(refused)
    }

    /// Answers a challenge: the value for the Authorization header.
    fn authenticate(&self, header: &str, base: &str, also: &str) -> Result<String, Error> {
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
                let scopes = self.scopes(scope.as_deref(), also);
                let token = self.token(&realm, service.as_deref(), &scopes)?;
                Ok(format!("Bearer {token}"))
            }
            None => Err(Error::Challenge { host: self.host.clone(), challenge: header.to_owned() }),
        }
    }

    /// What the token must allow: what the registry names, and what will be needed next, so that one
    /// token does for all.
    fn scopes(&self, named: Option<&str>, also: &str) -> Vec<String> {
        let repository = self.asked.repository();
        let mut scopes: Vec<String> =
            named.unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect();
        let named_is_enough = match self.access {
            Access::Login => true,
            Access::Pull => !scopes.is_empty(),
            Access::Push | Access::Delete => false,
        };
        if !named_is_enough {
            let own = format!("repository:{repository}:");
            let mut actions: BTreeSet<&str> = self.access.actions().split(',').collect();
            actions.extend(scopes.iter().filter_map(|s| s.strip_prefix(&own)).flat_map(|a| a.split(',')));
            let actions = actions.into_iter().collect::<Vec<_>>().join(",");
            let wanted = format!("{own}{actions}");
            scopes.retain(|scope| !scope.starts_with(&own));
            scopes.insert(0, wanted);
        }
        let from = format!("repository:{also}:pull");
        if !also.is_empty() && !scopes.contains(&from) {
            scopes.push(from);
        }
        scopes
    }

    /// Gets a token (distribution's `token.md` and `oauth.md`).
    fn token(&self, realm: &str, service: Option<&str>, scopes: &[String]) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Answer {
            #[serde(default)]
            token: Option<String>,
            #[serde(default)]
            access_token: Option<String>,
        }
        let connect = |error| Error::Connect { host: realm.to_owned(), source: HttpError(error) };
        let proxy = realm.parse::<Uri>().map_or(Ok(None), |realm| proxy_of(&realm)).map_err(connect)?;
        let mut response = match &self.credentials {
            Some(Credentials::Identity(refresh)) => {
                let scope = scopes.join(" ");
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", service.unwrap_or_default()),
                    ("client_id", "umiak"),
                    ("scope", &scope),
                    ("refresh_token", refresh),
                ];
                self.agent.post(realm).config().proxy(proxy).build().send_form(form).map_err(connect)?
            }
            other => {
                let mut request = self.agent.get(realm).config().proxy(proxy).build();
                for scope in scopes {
                    request = request.query("scope", scope);
                }
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

    /// Asks whether the registry takes the credentials at all.
    pub fn check_login(host: &str, options: &Options) -> Result<(), Error> {
        // The repository is of no account: `/v2/` belongs to none.
        let reference: Reference =
            format!("{host}/login").parse().map_err(|_| Error::NoRegistry(host.to_owned()))?;
        let registry = Self::with_access(&reference, options, Access::Login)?;
        registry.succeed(Ask::new(Method::GET, "/v2/", &registry.host)).map(drop)
    }

    /// Reads a short answer.
    pub(super) fn read(&self, response: &mut Response<Body>) -> Result<Vec<u8>, Error> {
        read_limited(response.body_mut()).ok_or_else(|| Error::TooLarge { host: self.host.clone() })
    }
}

/// The proxy before an address. What is wrong with it is told as the cause of not getting there.
fn proxy_of(url: &Uri) -> Result<Option<ureq::Proxy>, ureq::Error> {
    proxy::of(url, &|name| std::env::var(name).ok()).map_err(|error| ureq::Error::Io(io::Error::other(error)))
}

/// What came of [`Registry::send`].
pub(super) enum Sent {
    /// The registry, or whom it sent us to, has answered.
    Answered(Response<Body>),
    /// It is to be sent there instead, from the beginning.
    Elsewhere(String),
}

pub(super) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Whether the same request may succeed later.
pub(super) fn is_busy(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

/// Seconds that the server wishes to be left alone.
pub(super) fn retry_after(response: &Response<Body>) -> Option<u64> {
    header(response, "retry-after").and_then(|text| text.parse().ok())
}

/// Whether an error of the line may pass.
pub(super) fn transient(error: &HttpError) -> bool {
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

/// A short answer; `None` if it is long.
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
