//! A registry that misbehaves, on loopback.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use umiak::base::digest::Digest;
use umiak::image::registry::Options;
use umiak::image::{Credentials, PullOptions, Silent, Transport, pull};
use umiak::storage::{ImageRecord, Store};

use crate::support::{Archive, Image, Scratch, options};

/// A request: its path and headers in lower case.
pub struct Request {
    pub path: String,
    pub headers: HashMap<String, String>,
}

/// Status line, headers, body, and how many bytes of it are sent before the line is cut.
pub struct Answer {
    pub status: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub cut: Option<usize>,
    /// Instead of the body's.
    pub length: Option<String>,
}

impl Answer {
    pub fn ok(body: &[u8]) -> Self {
        Self { status: "200 OK", headers: Vec::new(), body: body.to_vec(), cut: None, length: None }
    }

    pub fn status(status: &'static str) -> Self {
        Self { status, ..Self::ok(b"{\"errors\":[{\"code\":\"X\",\"message\":\"because\"}]}") }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// Serves until the test's process ends; returns host:port.
pub fn serve(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let handler = Arc::new(handler);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let handler = handler.clone();
            std::thread::spawn(move || talk(stream, &*handler));
        }
    });
    host
}

fn talk(stream: TcpStream, handler: &dyn Fn(&Request) -> Answer) {
    let mut writer = stream.try_clone().unwrap();
    let mut lines = BufReader::new(stream).split(b'\n').map_while(Result::ok);
    while let Some(first) = lines.next() {
        let Ok(first) = String::from_utf8(first) else { return };
        let Some(path) = first.split(' ').nth(1) else { return };
        let mut headers = HashMap::new();
        for line in lines.by_ref() {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let answer = handler(&Request { path: path.to_owned(), headers });
        let length = answer.length.clone().unwrap_or_else(|| answer.body.len().to_string());
        let mut head = format!("HTTP/1.1 {}\r\nContent-Length: {length}\r\n", answer.status);
        for (name, value) in &answer.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let _ = writer.write_all(format!("{head}\r\n").as_bytes());
        let _ = writer.write_all(&answer.body[..answer.cut.unwrap_or(answer.body.len())]);
        if answer.cut.is_some() {
            let _ = writer.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// What an honest registry would answer.
pub fn honest(image: &Image, request: &Request) -> Answer {
    if request.path.contains("/manifests/") {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        return Answer::ok(image.manifest.to_string().as_bytes()).header("Content-Type", kind);
    }
    let digest = request.path.rsplit('/').next().unwrap_or_default();
    let blob = image.blobs.iter().find(|blob| Digest::of(blob).to_string() == digest);
    blob.map_or_else(|| Answer::status("404 Not Found"), |blob| Answer::ok(blob))
}

/// Bytes that do not compress, so that blobs have some length.
pub fn image() -> Image {
    let mut state = 1u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(300_000)
    .collect();
    Image::new(&[Archive::new().file("noise", &noise).bytes()])
}

pub fn pull_options(creds: Option<Credentials>) -> PullOptions {
    let registry = Options { tls_verify: Some(false), creds, ..Options::default() };
    PullOptions { registry, ..options() }
}

pub fn try_pull(store: &Store, host: &str) -> Result<ImageRecord, String> {
    let source: Transport = format!("docker://{host}/a/b:1").parse().unwrap();
    pull(store, &source, &pull_options(None), &Silent).map_err(|e| umiak::base::report::chain(&e))
}

#[test]
fn an_honest_registry_serves() {
    let image = image();
    let host = serve(move |request| honest(&image, request));
    let scratch = Scratch::new();
    let record = try_pull(&scratch.store(), &host).unwrap();
    assert_eq!(record.names, [format!("{host}/a/b:1")]);
    assert_eq!(record.repo_digests, [format!("{host}/a/b@{}", record.manifest)]);
    // By default, nothing but HTTPS.
    let source: Transport = format!("docker://{host}/a/b:1").parse().unwrap();
    assert!(pull(&scratch.store(), &source, &options(), &Silent).is_err());
}

#[test]
fn a_cut_download_is_taken_up_where_it_was_cut() {
    for ranges in [true, false] {
        let image = image();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let host = serve(move |request| {
            let mut answer = honest(&image, request);
            if answer.body.len() < 100_000 {
                return answer;
            }
            let range = request.headers.get("range").cloned();
            seen.lock().unwrap().push(range.clone());
            match range
                .filter(|_| ranges)
                .and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok())
            {
                Some(from) => {
                    let from: usize = from;
                    let total = answer.body.len();
                    answer.body.drain(..from);
                    answer.status = "206 Partial Content";
                    answer = answer.header("Content-Range", format!("bytes {from}-{}/{total}", total - 1));
                }
                None if seen.lock().unwrap().len() < 2 => answer.cut = Some(100_000),
                None => {}
            }
            answer
        });
        let scratch = Scratch::new();
        try_pull(&scratch.store(), &host).unwrap();
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(asked[1].as_ref().is_some_and(|range| range.starts_with("bytes=")));
    }
}

#[test]
fn a_line_that_is_always_cut_is_given_up() {
    // Some bytes each time, with ranges: progress alone must not keep it going.
    for (ranges, each) in [(true, 10), (true, 0), (false, 1000)] {
        let image = image();
        let asked = Arc::new(AtomicUsize::new(0));
        let seen = asked.clone();
        let host = serve(move |request| {
            let mut answer = honest(&image, request);
            if answer.body.len() < 100_000 {
                return answer;
            }
            seen.fetch_add(1, Ordering::Relaxed);
            let range = request.headers.get("range").filter(|_| ranges).cloned();
            let from = range.and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
            if let Some(from) = from {
                let total = answer.body.len();
                answer.body.drain(..from);
                answer.status = "206 Partial Content";
                answer = answer.header("Content-Range", format!("bytes {from}-{}/{total}", total - 1));
            }
            answer.cut = Some(each);
            answer
        });
        let scratch = Scratch::new();
        let store = scratch.store();
        let error = try_pull(&store, &host).unwrap_err();
        assert!(error.contains("was cut ") || error.contains("the manifest says"), "{error}");
        let count = asked.load(Ordering::Relaxed);
        assert!((2..=5).contains(&count), "asked {count} times");
        crate::support::assert_clean(&store);
    }
}

#[test]
fn answers_of_a_wrong_length() {
    // The header says more than comes, and the line stays open or is closed: a cut. It says less: the
    // blob is shorter than the manifest says.
    for (what, expected) in [("-1", "the manifest says"), ("nonsense", "127.0.0.1")] {
        let image = image();
        let host = serve(move |request| {
            let mut answer = honest(&image, request);
            if answer.body.len() > 100_000 {
                let length = answer.body.len();
                answer.length = Some(match what {
                    "-1" => (length - 1).to_string(),
                    other => other.to_owned(),
                });
                // Nothing of the body may be taken for the next answer.
                answer.cut = Some(if what == "-1" { length - 1 } else { 0 });
            }
            answer
        });
        let scratch = Scratch::new();
        let store = scratch.store();
        let error = try_pull(&store, &host).unwrap_err();
        assert!(error.contains(expected), "{what}: {error}");
        crate::support::assert_clean(&store);
    }
}

#[test]
fn endless_challenges_end() {
    let tokens = Arc::new(AtomicUsize::new(0));
    let given = tokens.clone();
    let realm = serve(move |_| {
        given.fetch_add(1, Ordering::Relaxed);
        Answer::ok(br#"{"token":"T"}"#)
    });
    for challenge in ["Basic realm=\"x\"".to_owned(), format!("Bearer realm=\"http://{realm}/t\"")] {
        let asked = Arc::new(AtomicUsize::new(0));
        let seen = asked.clone();
        let host = serve(move |_| {
            seen.fetch_add(1, Ordering::Relaxed);
            Answer::status("401 Unauthorized").header("WWW-Authenticate", challenge.clone())
        });
        let source: Transport = format!("docker://{host}/a/b:1").parse().unwrap();
        let creds = Credentials::Password { user: "u".into(), password: "secret".into() };
        let scratch = Scratch::new();
        let store = scratch.store();
        let error = pull(&store, &source, &pull_options(Some(creds)), &Silent).unwrap_err();
        let text = umiak::base::report::chain(&error);
        assert!(text.contains("denies access") && !text.contains("secret"), "{text}");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        crate::support::assert_clean(&store);
    }
    assert_eq!(tokens.load(Ordering::Relaxed), 1);
}

#[test]
fn a_token_names_service_and_scope_and_is_renewed() {
    let image = image();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let realm = serve(move |request| {
        let mut seen = seen.lock().unwrap();
        seen.push((request.path.clone(), request.headers.contains_key("authorization")));
        // Some servers call it so.
        Answer::ok(format!("{{\"access_token\":\"T{}\"}}", seen.len()).as_bytes())
    });
    let used = AtomicUsize::new(0);
    let host = serve(move |request| {
        // Every token serves once.
        let good = format!("Bearer T{}", used.load(Ordering::SeqCst) + 1);
        if request.headers.get("authorization") == Some(&good) {
            used.fetch_add(1, Ordering::SeqCst);
            return honest(&image, request);
        }
        let challenge = format!(
            "Bearer realm=\"http://{realm}/t?x=1\",service=\"my registry\",scope=\"repository:a/b:pull\""
        );
        Answer::status("401 Unauthorized").header("WWW-Authenticate", challenge)
    });
    try_pull(&Scratch::new().store(), &host).unwrap();
    let asked = asked.lock().unwrap();
    // Manifest, configuration, layer.
    assert_eq!(asked.len(), 3, "{asked:?}");
    for (path, authorised) in asked.iter() {
        let fits = path.starts_with("/t?x=1&")
            && path.contains("scope=repository%3Aa%2Fb%3Apull")
            && (path.contains("service=my%20registry") || path.contains("service=my+registry"));
        assert!(fits && !authorised, "{path}");
    }
}

#[test]
fn statuses_are_told_apart() {
    for (status, expected) in [
        ("404 Not Found", "has no \"127.0.0.1"),
        ("403 Forbidden", "denies access"),
        ("429 Too Many Requests", "limits the rate of requests (because)"),
        ("500 Internal Server Error", "answered 500"),
        ("418 I'm a teapot", "answered 418"),
    ] {
        let host = serve(move |_| Answer::status(status));
        let scratch = Scratch::new();
        let store = scratch.store();
        let error = try_pull(&store, &host).unwrap_err();
        assert!(error.contains(expected), "{status}: {error}");
        crate::support::assert_clean(&store);
    }
    let scratch = Scratch::new();
    let error = try_pull(&scratch.store(), "127.0.0.1:1").unwrap_err();
    assert!(error.ends_with("connection refused"), "{error}");
}

#[test]
fn a_busy_registry_is_asked_again() {
    let image = image();
    let count = AtomicUsize::new(0);
    let host = serve(move |request| match count.fetch_add(1, Ordering::Relaxed) {
        0 => Answer::status("503 Service Unavailable"),
        1 => Answer::status("429 Too Many Requests").header("Retry-After", "0"),
        _ => honest(&image, request),
    });
    try_pull(&Scratch::new().store(), &host).unwrap();
}

#[test]
fn wrong_content_is_refused() {
    for (what, expected) in
        [("swap", "has the digest"), ("longer", "has more bytes"), ("shorter", "the manifest says")]
    {
        let image = image();
        let host = serve(move |request| {
            let mut answer = honest(&image, request);
            if answer.body.len() > 100_000 {
                match what {
                    // A byte of the gzip header that changes nothing of the content.
                    "swap" => answer.body[9] ^= 1,
                    "longer" => answer.body.push(0),
                    _ => answer.body.truncate(50_000),
                }
            }
            answer
        });
        let scratch = Scratch::new();
        let store = scratch.store();
        let error = try_pull(&store, &host).unwrap_err();
        assert!(error.contains(expected), "{what}: {error}");
        crate::support::assert_clean(&store);
    }
}

#[test]
fn tokens_are_fetched_and_credentials_stay_at_home() {
    let image = Arc::new(image());
    let stranger_saw = Arc::new(Mutex::new(Vec::new()));
    let (blobs, saw) = (image.clone(), stranger_saw.clone());
    let stranger = serve(move |request| {
        saw.lock().unwrap().push(request.headers.contains_key("authorization"));
        honest(&blobs, request)
    });
    let tokens = serve(|request| {
        let good = request.headers.get("authorization").is_some_and(|v| v == "Basic dTpw")
            && request.path.contains("scope=repository%3Aa%2Fb%3Apull");
        if good { Answer::ok(br#"{"token":"T"}"#) } else { Answer::status("401 Unauthorized") }
    });
    let host = serve(move |request| {
        if request.headers.get("authorization").map(String::as_str) != Some("Bearer T") {
            let challenge =
                format!("Bearer realm=\"http://{tokens}/t\",service=\"s\",scope=\"repository:a/b:pull\"");
            return Answer::status("401 Unauthorized").header("WWW-Authenticate", challenge);
        }
        if request.path.contains("/blobs/") {
            let target = format!("http://{stranger}{}", request.path);
            return Answer::status("307 Temporary Redirect").header("Location", target);
        }
        honest(&image, request)
    });
    let source: Transport = format!("docker://{host}/a/b:1").parse().unwrap();
    let password = |p: &str| Credentials::Password { user: "u".into(), password: p.into() };
    let scratch = Scratch::new();
    pull(&scratch.store(), &source, &pull_options(Some(password("p"))), &Silent).unwrap();
    let seen = stranger_saw.lock().unwrap().clone();
    assert!(!seen.is_empty() && seen.iter().all(|authorised| !authorised));
    let scratch = Scratch::new();
    let error = pull(&scratch.store(), &source, &pull_options(Some(password("wrong"))), &Silent).unwrap_err();
    let text = umiak::base::report::chain(&error);
    assert!(text.contains("denies access") && !text.contains("wrong"), "{text}");
}

#[test]
fn circles_and_giants_end() {
    let host = serve(|request| Answer::status("302 Found").header("Location", request.path.clone()));
    assert!(try_pull(&Scratch::new().store(), &host).unwrap_err().contains("redirects"));
    let host = serve(|_| Answer::ok(&vec![b' '; 5 << 20]));
    assert!(try_pull(&Scratch::new().store(), &host).unwrap_err().contains("more than"));
    let schema1 = br#"{"schemaVersion":1,"fsLayers":[],"name":"x"}"#;
    let host = serve(|_| Answer::ok(schema1));
    assert!(try_pull(&Scratch::new().store(), &host).unwrap_err().contains("schema 1"));
}
