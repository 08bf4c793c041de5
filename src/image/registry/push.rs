//! Writing to a registry: blobs, manifests, names; what refers to what; deleting.

use std::io::{self, Read};

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Body;
use ureq::http::{Method, Response, StatusCode};

use super::Error;
use super::client::{Ask, Registry, Sent, header, is_busy, retry_after, transient};
use crate::base::digest::Digest;
use crate::image::manifest::ACCEPT;

/// A blob that can be read from its beginning as often as an upload has to begin anew.
pub struct Content<'a> {
    /// What it is called.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Opens it.
    pub open: &'a (dyn Fn() -> io::Result<Box<dyn Read + Send + 'a>> + Sync),
}

/// What became of the wish to have a blob of another repository.
#[derive(Debug, PartialEq, Eq)]
pub enum Mounted {
    /// It is there.
    Yes,
    /// The registry began an upload instead, to be gone on with at this address.
    Upload(String),
    /// Neither.
    No,
}

/// A manifest that refers to another (its `subject`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// Media type of the manifest.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its size.
    pub size: u64,
    /// What it is.
    #[serde(default)]
    pub artifact_type: Option<String>,
    /// Its annotations.
    #[serde(default)]
    pub annotations: std::collections::BTreeMap<String, String>,
}

/// The pieces of an upload to a registry, or something before it, that takes no large requests.
const PIECE: u64 = 16 << 20;

/// After so many bytes the line is good again, and failures are counted anew.
const GOOD: u64 = 1 << 20;

/// Tags asked for at a time.
const PAGE: u32 = 1000;

/// More pages than this are a circle.
const PAGES: usize = 10_000;

/// An upload that goes on.
struct Session {
    /// Where to send to.
    url: String,
    /// Bytes that the registry has.
    at: u64,
    /// Bytes of one request; all that is left if none.
    piece: Option<u64>,
}

enum Step {
    /// The registry has the blob.
    Done,
    /// It has more of it.
    Further,
    /// It takes no request of this size.
    TooLarge,
    /// Something that may pass, and how many seconds it wishes to be left alone.
    Failed(Error, Option<u64>),
}

impl Registry {
    /// Whether the repository has a blob, and its size if that is told.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let path = format!("blobs/{digest}");
        let response = self.ask(Ask::new(Method::HEAD, &path, &path))?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.failed(response, &path)),
        }
    }

    /// The digest of the manifest that a tag or digest stands for, as the registry says it; `None` if
    /// there is none.
    pub fn head_manifest(&self, selector: &str) -> Result<Option<Digest>, Error> {
        let path = format!("manifests/{selector}");
        let accept = ACCEPT.map(|kind| ("Accept", kind));
        let response = self.ask(Ask { headers: &accept, ..Ask::new(Method::HEAD, &path, &path) })?;
        match response.status() {
            status if status.is_success() => {
                let said = header(&response, "docker-content-digest").and_then(|text| text.parse().ok());
                match said {
                    Some(digest) => Ok(Some(digest)),
                    // An old registry: only the manifest itself tells.
                    None => {
                        let mut response = self.get(&path, &path, &accept)?;
                        Ok(Some(Digest::of(&self.read(&mut response)?)))
                    }
                }
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.failed(response, &path)),
        }
    }

    /// Asks the registry to take a blob over from another of its repositories (distribution
    /// specification, "Mounting a blob from another repository").
    pub fn mount(&self, digest: &Digest, from: &str) -> Result<Mounted, Error> {
        let path = format!("blobs/uploads/?mount={digest}&from={from}");
        let response = match self.ask(Ask { also: from, ..Ask::new(Method::POST, &path, &path) }) {
            Ok(response) => response,
            // A token for both repositories may be more than we are allowed: it is uploaded then.
            Err(Error::Denied { .. } | Error::Status { .. } | Error::NotFound { .. }) => {
                return Ok(Mounted::No);
            }
            Err(error) => return Err(error),
        };
        match response.status() {
            StatusCode::CREATED => Ok(Mounted::Yes),
            // With the token for both; the upload itself needs one for this repository alone.
            StatusCode::ACCEPTED => Ok(self.location(&path, &response).map_or(Mounted::No, Mounted::Upload)),
            _ => Ok(Mounted::No),
        }
    }

    /// Uploads a blob: in one request, in pieces if that is too large for the registry; taken up again
    /// where a line was cut, if the registry knows where that was. `session` is an upload that
    /// [`Registry::mount`] began; `progress` is told how many bytes are out.
    pub fn upload(
        &self,
        blob: &Content<'_>,
        session: Option<String>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        let mut session = match session {
            Some(url) => Session { url, at: 0, piece: None },
            None => Session { url: self.begin()?.0, at: 0, piece: None },
        };
        let (mut failures, mut failed_at) = (0, 0);
        loop {
            let (error, wished) = match self.step(&mut session, blob, progress)? {
                Step::Done => return Ok(()),
                Step::Further => {
                    if session.at.saturating_sub(failed_at) >= GOOD {
                        (failures, failed_at) = (0, session.at);
                    }
                    continue;
                }
                Step::TooLarge => {
                    let (url, least) = self.begin()?;
                    session = Session { url, at: 0, piece: Some(PIECE.max(least)) };
                    continue;
                }
                Step::Failed(error, wished) => (error, wished),
            };
            failures += 1;
            if failures >= self.attempts() {
                let (host, digest) = (self.host().to_owned(), blob.digest);
                return Err(Error::Upload { host, digest, times: failures, source: Box::new(error) });
            }
            self.pause(failures - 1, wished);
            if !self.resume(&mut session)? {
                // The answer to the last request may be all that was lost.
                if self.has_blob(&blob.digest)? {
                    return Ok(());
                }
                session = Session { url: self.begin()?.0, at: 0, piece: session.piece };
            }
        }
    }

    /// Begins an upload: where to send to, and how small its pieces may be (`OCI-Chunk-Min-Length`).
    fn begin(&self) -> Result<(String, u64), Error> {
        let path = "blobs/uploads/";
        let response = self.succeed(Ask::new(Method::POST, path, &self.asked().name()))?;
        let least = header(&response, "oci-chunk-min-length").and_then(|text| text.parse().ok());
        Ok((self.location(path, &response)?, least.unwrap_or(0)))
    }

    /// Finds out how much of an upload the registry has; says whether it can go on.
    fn resume(&self, session: &mut Session) -> Result<bool, Error> {
        let Ok(response) = self.ask(Ask::new(Method::GET, &session.url, "an upload")) else {
            return Ok(false);
        };
        if response.status() != StatusCode::NO_CONTENT && response.status() != StatusCode::OK {
            return Ok(false);
        }
        session.at = received(&response).unwrap_or(0);
        if let Ok(url) = self.location(&session.url, &response) {
            session.url = url;
        }
        Ok(true)
    }

    /// One request of an upload.
    fn step(&self, session: &mut Session, blob: &Content<'_>, progress: &dyn Fn(u64)) -> Result<Step, Error> {
        let left = blob.size.saturating_sub(session.at);
        let count = session.piece.map_or(left, |piece| piece.min(left));
        // The last request names the digest; it may bring all of the blob.
        let whole = session.at == 0 && count == blob.size;
        let last = whole || left == 0;
        let (method, mut url) = if last {
            let parting = if session.url.contains('?') { '&' } else { '?' };
            (Method::PUT, format!("{}{parting}digest={}", session.url, blob.digest))
        } else {
            (Method::PATCH, session.url.clone())
        };
        let range = format!("{}-{}", session.at, (session.at + count).saturating_sub(1));
        let headers = [("Content-Range", range.as_str())];
        let headers = if last { &[] } else { &headers[..] };
        let count = if left == 0 { 0 } else { count };
        for _ in 0..5 {
            let mut body = Outgoing::open(blob, session.at, count, progress)?;
            let sent = self.send(method.clone(), &url, headers, count, &mut body);
            if let Some(source) = body.failed.take() {
                return Err(Error::Content { digest: blob.digest, source });
            }
            let response = match sent {
                Ok(Sent::Elsewhere(target)) => {
                    url = target;
                    continue;
                }
                Ok(Sent::Answered(response)) => response,
                Err(Error::Connect { host, source }) if transient(&source) => {
                    return Ok(Step::Failed(Error::Connect { host, source }, None));
                }
                Err(error) => return Err(error),
            };
            return self.stepped(session, &url, last, count, response);
        }
        Err(Error::Redirect { host: self.host().to_owned(), target: url })
    }

    /// What the answer to a request of an upload means.
    fn stepped(
        &self,
        session: &mut Session,
        url: &str,
        last: bool,
        count: u64,
        response: Response<Body>,
    ) -> Result<Step, Error> {
        let status = response.status();
        if status.is_success() {
            if last {
                return Ok(Step::Done);
            }
            session.at = received(&response).filter(|at| *at > 0).unwrap_or(session.at + count);
            session.url = self.location(url, &response)?;
            return Ok(Step::Further);
        }
        if status == StatusCode::PAYLOAD_TOO_LARGE && session.piece.is_none() {
            return Ok(Step::TooLarge);
        }
        let wished = retry_after(&response);
        // The token ran out meanwhile, the pieces do not fit together, the upload is not known any more:
        // a new start mends it.
        let mends = [StatusCode::UNAUTHORIZED, StatusCode::RANGE_NOT_SATISFIABLE, StatusCode::NOT_FOUND];
        let passes = is_busy(status) || mends.contains(&status);
        let error = self.failed(response, url.split('?').next().unwrap_or(url));
        if passes { Ok(Step::Failed(error, wished)) } else { Err(error) }
    }

    /// Stores a manifest under a tag or its own digest, whose blobs must be there.
    pub fn put_manifest(&self, selector: &str, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        let expected = Digest::of(bytes);
        let path = format!("manifests/{selector}");
        let headers = [("Content-Type", media_type)];
        let name = format!("{}:{selector}", self.asked().name());
        let ask = Ask { headers: &headers, body: Some(bytes), ..Ask::new(Method::PUT, &path, &name) };
        let response = self.succeed(ask)?;
        if let Some(found) = header(&response, "docker-content-digest")
            && found != expected.to_string()
        {
            let found = found.chars().filter(|c| c.is_ascii_graphic()).take(100).collect();
            return Err(Error::Stored { host: self.host().to_owned(), expected, found });
        }
        // What refers to another manifest must be listed by us where the registry does not do it.
        if header(&response, "oci-subject").is_none()
            && let Some(subject) = subject(bytes)
        {
            self.list_referrer(&subject, media_type, bytes)?;
        }
        Ok(())
    }

    /// Names of the repository's manifests, in the registry's order, page by page.
    pub fn tags(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut path = format!("tags/list?n={PAGE}");
        let mut tags = Vec::new();
        for _ in 0..PAGES {
            let mut response = self.succeed(Ask::new(Method::GET, &path, &self.asked().name()))?;
            let next = header(&response, "link").and_then(next_page).map(str::to_owned);
            let bytes = self.read(&mut response)?;
            let list: List = serde_json::from_slice(&bytes)
                .map_err(|_| Error::Nonsense { host: self.host().to_owned() })?;
            tags.extend(list.tags.unwrap_or_default());
            // Never another host: the request goes with our credentials.
            match next {
                Some(next) if next.starts_with('/') => path = next,
                Some(next) => path = format!("tags/list{}", query(&next)),
                None => break,
            }
        }
        Ok(tags)
    }

    /// Deletes a manifest, by its digest, or a tag where the registry can do that.
    pub fn delete_manifest(&self, selector: &str) -> Result<(), Error> {
        let path = format!("manifests/{selector}");
        let name = format!("{}@{selector}", self.asked().name());
        self.succeed(Ask::new(Method::DELETE, &path, &name)).map(drop)
    }

    /// The manifests that refer to another, of one type or of all (distribution specification 1.1,
    /// "Listing Referrers"), also where the registry knows nothing of that and clients keep a list
    /// under a tag.
    pub fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Referrer>, Error> {
        let accept = [("Accept", ACCEPT[0])];
        let mut path = format!("referrers/{subject}");
        if let Some(kind) = artifact_type {
            path.push_str(&format!("?artifactType={}", encoded(kind)));
        }
        let response = self.ask(Ask { headers: &accept, ..Ask::new(Method::GET, &path, &path) })?;
        let mut found = match response.status() {
            status if status.is_success() => {
                let mut response = response;
                parse_referrers(&self.read(&mut response)?)
            }
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED => {
                self.listed_referrers(subject)?.1
            }
            _ => return Err(self.failed(response, &path)),
        };
        // A registry need not filter.
        found.retain(|one| artifact_type.is_none_or(|kind| one.artifact_type.as_deref() == Some(kind)));
        Ok(found)
    }

    /// The list under the tag that stands for a digest (distribution specification, "Referrers Tag
    /// Schema"): the index as it is, and what is in it.
    fn listed_referrers(&self, subject: &Digest) -> Result<(Value, Vec<Referrer>), Error> {
        let path = format!("manifests/sha256-{}", subject.hex());
        let accept = [("Accept", ACCEPT[0])];
        let mut response = self.ask(Ask { headers: &accept, ..Ask::new(Method::GET, &path, &path) })?;
        if response.status() == StatusCode::NOT_FOUND {
            let empty = json!({ "schemaVersion": 2, "mediaType": ACCEPT[0], "manifests": [] });
            return Ok((empty, Vec::new()));
        }
        if !response.status().is_success() {
            return Err(self.failed(response, &path));
        }
        let bytes = self.read(&mut response)?;
        let index = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Ok((index, parse_referrers(&bytes)))
    }

    fn list_referrer(&self, subject: &Digest, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        let (mut index, _) = self.listed_referrers(subject)?;
        let manifest: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
        let digest = Digest::of(bytes).to_string();
        let Some(list) = index.get_mut("manifests").and_then(Value::as_array_mut) else { return Ok(()) };
        if list.iter().any(|one| one["digest"] == digest.as_str()) {
            return Ok(());
        }
        let mut entry = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        let kind = manifest.get("artifactType").filter(|kind| kind.as_str().is_some_and(|k| !k.is_empty()));
        if let Some(kind) = kind.or_else(|| manifest.pointer("/config/mediaType")) {
            entry["artifactType"] = kind.clone();
        }
        if let Some(annotations) = manifest.get("annotations").filter(|a| a.is_object()) {
            entry["annotations"] = annotations.clone();
        }
        list.push(entry);
        let index = index.to_string().into_bytes();
        let path = format!("manifests/sha256-{}", subject.hex());
        let headers = [("Content-Type", ACCEPT[0])];
        let ask = Ask { headers: &headers, body: Some(&index), ..Ask::new(Method::PUT, &path, &path) };
        self.succeed(ask).map(drop)
    }
}

/// How many bytes of an upload a registry says that it has. Docker's says `0-0` when it has none.
fn received(response: &Response<Body>) -> Option<u64> {
    let range = header(response, "range")?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let (start, end) = range.trim().split_once('-')?;
    let end: u64 = end.parse().ok()?;
    (start == "0").then_some(if end == 0 { 0 } else { end + 1 })
}

/// The address of the next page in a Link header (RFC 8288).
pub(super) fn next_page(link: &str) -> Option<&str> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = |p: &str| {
        let p = p.trim().to_ascii_lowercase();
        p == "rel=next" || p == "rel=\"next\""
    };
    parameters.split([';', ',']).any(next).then_some(address)
}

fn query(address: &str) -> &str {
    address.find('?').map_or("", |at| &address[at..])
}

/// A text within a query (RFC 3986, 2.3).
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn parse_referrers(bytes: &[u8]) -> Vec<Referrer> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Option<Vec<Referrer>>,
    }
    serde_json::from_slice::<Index>(bytes).ok().and_then(|index| index.manifests).unwrap_or_default()
}

fn subject(manifest: &[u8]) -> Option<Digest> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    manifest.pointer("/subject/digest")?.as_str()?.parse().ok()
}

/// A piece of a blob on its way out. What fails in reading it is kept apart from what fails on the line.
struct Outgoing<'a, 'p> {
    inner: Box<dyn Read + Send + 'a>,
    at: u64,
    left: u64,
    failed: Option<io::Error>,
    progress: &'p dyn Fn(u64),
}

impl<'a, 'p> Outgoing<'a, 'p> {
    fn open(blob: &Content<'a>, at: u64, count: u64, progress: &'p dyn Fn(u64)) -> Result<Self, Error> {
        let error = |source| Error::Content { digest: blob.digest, source };
        let mut inner: Box<dyn Read + Send + 'a> =
            if count == 0 { Box::new(io::empty()) } else { (blob.open)().map_err(error)? };
        if count > 0 {
            let passed = io::copy(&mut inner.by_ref().take(at), &mut io::sink()).map_err(error)?;
            if passed < at {
                return Err(error(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(Self { inner, at, left: count, failed: None, progress })
    }
}

impl Read for Outgoing<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let limit = (into.len() as u64).min(self.left) as usize;
        if limit == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut into[..limit]) {
            Ok(0) => {
                self.failed = Some(io::ErrorKind::UnexpectedEof.into());
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => {
                self.left -= count as u64;
                self.at += count as u64;
                (self.progress)(self.at);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(error);
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(range: &str) -> Response<Body> {
        Response::builder().header("Range", range).body(Body::builder().data("")).unwrap()
    }

    #[test]
    fn what_a_registry_has() {
        for (range, expected) in [
            ("0-0", Some(0)),
            ("0-9", Some(10)),
            ("bytes=0-9", Some(10)),
            ("5-9", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(received(&answer(range)), expected, "{range}");
        }
    }

    #[test]
    fn pages() {
        assert_eq!(
            next_page("</v2/a/tags/list?n=2&last=b>; rel=\"next\""),
            Some("/v2/a/tags/list?n=2&last=b")
        );
        assert_eq!(next_page("</v2/a>; rel=\"prev\""), None);
        for bad in ["", "<", "x; rel=next", "<>"] {
            assert_eq!(next_page(bad), None, "{bad}");
        }
        assert_eq!(query("https://else.where/x?last=b"), "?last=b");
        assert_eq!(encoded("application/x+y z"), "application%2Fx%2By%20z");
        assert_eq!(encoded("a b/ü*"), "a%20b%2F%C3%BC%2A");
    }
}
