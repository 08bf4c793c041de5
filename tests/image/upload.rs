//! Pushing to a registry that misbehaves, on loopback.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use umiak::base::digest::Digest;
use umiak::image::content::Verified;
use umiak::image::registry::{Content, Error, Mounted, Options, Registry};
use umiak::image::{Credentials, Reference};

/// A request without its body.
struct Request {
    method: String,
    /// With the query.
    path: String,
    headers: HashMap<String, String>,
}

impl Request {
    fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.path.contains(part)
    }

    fn query(&self, name: &str) -> Option<&str> {
        let query = self.path.split_once('?')?.1;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }
}

/// What goes wrong with a request.
enum Fault {
    None,
    /// This answer instead.
    Answer(&'static str, Vec<(&'static str, String)>),
    /// This content instead.
    Body(Vec<(&'static str, String)>, &'static [u8]),
    /// The line is cut after so many bytes of the body, which are kept.
    Cut(usize),
    /// It is done, and the line cut before the answer.
    Lost,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    uploads: HashMap<u64, Vec<u8>>,
    manifests: HashMap<String, Vec<u8>>,
    /// Method, path, Content-Range and whether there were credentials.
    log: Vec<String>,
    /// What is next to go wrong is found by counting.
    count: HashMap<String, usize>,
}

impl State {
    /// How many times this was asked before.
    fn before(&mut self, what: &str) -> usize {
        let count = self.count.entry(what.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    fn logged(&self, part: &str) -> usize {
        self.log.iter().filter(|line| line.contains(part)).count()
    }
}

#[derive(Clone)]
struct Server {
    host: String,
    state: Arc<Mutex<State>>,
}

type Faults = dyn Fn(&mut State, &Request) -> Fault + Send + Sync;

impl Server {
    fn start(faults: impl Fn(&mut State, &Request) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let server = Self { host, state: Arc::default() };
        let (state, faults): (_, Arc<Faults>) = (server.state.clone(), Arc::new(faults));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, faults) = (state.clone(), faults.clone());
                std::thread::spawn(move || drop(talk(stream, &state, &*faults)));
            }
        });
        server
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn registry(&self, options: Options) -> Registry {
        let reference: Reference = format!("{}/a/b:1", self.host).parse().unwrap();
        let options =
            Options { tls_verify: Some(false), retry_delay: Some(Duration::from_millis(5)), ..options };
        Registry::to_push(&reference, &options).unwrap()
    }

    fn upload(&self, bytes: &[u8]) -> Result<(), String> {
        upload(&self.registry(Options::default()), bytes)
    }
}

fn upload(registry: &Registry, bytes: &[u8]) -> Result<(), String> {
    let digest = Digest::of(bytes);
    let size = bytes.len() as u64;
    let open =
        || -> io::Result<Box<dyn Read + Send + '_>> { Ok(Box::new(Verified::new(bytes, digest, size))) };
    let out = AtomicU64::new(0);
    let content = Content { digest, size, open: &open };
    let result = registry.upload(&content, None, &|count| out.store(count, Ordering::Relaxed));
    result.map_err(|error| umiak::base::report::chain(&error))
}

fn talk(stream: TcpStream, state: &Mutex<State>, faults: &Faults) -> io::Result<()> {
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ').map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let request = Request { method, path, headers };
        let length: usize = request.headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        let fault = {
            let mut state = state.lock().unwrap();
            let range = request.headers.get("content-range").cloned().unwrap_or_default();
            let known = if request.headers.contains_key("authorization") { "with credentials" } else { "" };
            state.log.push(format!("{} {} {range} {known}", request.method, request.path));
            faults(&mut state, &request)
        };
        let take = if let Fault::Cut(count) = fault { count.min(length) } else { length };
        let mut body = vec![0; take];
        reader.read_exact(&mut body)?;
        let (status, mut answer, bytes) = match &fault {
            Fault::Answer(status, headers) => {
                let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
                (*status, headers.collect(), Vec::new())
            }
            Fault::Body(headers, body) => {
                let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
                ("200 OK", headers.collect(), body.to_vec())
            }
            _ => serve(&mut state.lock().unwrap(), &request, &body),
        };
        if matches!(fault, Fault::Cut(_) | Fault::Lost) {
            return writer.shutdown(std::net::Shutdown::Both);
        }
        answer.push(("Content-Length".to_owned(), bytes.len().to_string()));
        let mut head = format!("HTTP/1.1 {status}\r\n");
        answer.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        writer.write_all(format!("{head}\r\n").as_bytes())?;
        if request.method != "HEAD" {
            writer.write_all(&bytes)?;
        }
    }
}

type Answer = (&'static str, Vec<(String, String)>, Vec<u8>);

/// What an honest registry does.
fn serve(state: &mut State, request: &Request, body: &[u8]) -> Answer {
    let path = request.path.split('?').next().unwrap();
    let last = path.rsplit('/').next().unwrap().to_owned();
    let header = |name: &str, value: String| vec![(name.to_owned(), value)];
    let location = |id: u64| header("Location", format!("/v2/a/b/blobs/uploads/{id}?state=x"));
    let nothing = || ("404 Not Found", Vec::new(), Vec::new());
    if path.contains("/blobs/uploads/") {
        if request.method == "POST" {
            let id = state.uploads.len() as u64 + 1;
            state.uploads.insert(id, Vec::new());
            return ("202 Accepted", location(id), Vec::new());
        }
        let id: u64 = last.parse().unwrap();
        let Some(upload) = state.uploads.get_mut(&id) else { return nothing() };
        if let Some(range) = request.headers.get("content-range") {
            let start: usize = range.split('-').next().unwrap().parse().unwrap();
            if start != upload.len() {
                return ("416 Range Not Satisfiable", Vec::new(), Vec::new());
            }
        }
        upload.extend_from_slice(body);
        let mut headers = location(id);
        headers.extend(header("Range", format!("0-{}", upload.len().saturating_sub(1))));
        return match request.method.as_str() {
            "GET" => ("204 No Content", headers, Vec::new()),
            "PATCH" => ("202 Accepted", headers, Vec::new()),
            _ => {
                let digest = request.query("digest").unwrap().to_owned();
                if digest != Digest::of(upload).to_string() {
                    return ("400 Bad Request", Vec::new(), Vec::new());
                }
                let upload = state.uploads.remove(&id).unwrap();
                state.blobs.insert(digest, upload);
                ("201 Created", Vec::new(), Vec::new())
            }
        };
    }
    if path.contains("/blobs/") {
        return state.blobs.get(&last).map_or_else(nothing, |blob| ("200 OK", Vec::new(), blob.clone()));
    }
    if path.contains("/manifests/") {
        return match request.method.as_str() {
            "PUT" => {
                state.manifests.insert(last, body.to_vec());
                ("201 Created", Vec::new(), Vec::new())
            }
            "DELETE" => state
                .manifests
                .remove(&last)
                .map_or_else(nothing, |_| ("202 Accepted", Vec::new(), Vec::new())),
            _ => state.manifests.get(&last).map_or_else(nothing, |m| ("200 OK", Vec::new(), m.clone())),
        };
    }
    nothing()
}

/// Bytes that are not all the same.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 / 7) as u8).collect()
}

fn password() -> Options {
    let creds = Credentials::Password { user: "u".into(), password: "secret".into() };
    Options { creds: Some(creds), ..Options::default() }
}

#[test]
fn one_request_is_enough() {
    let server = Server::start(|_, _| Fault::None);
    for length in [0, 1, 300_000] {
        let bytes = noise(length);
        server.upload(&bytes).unwrap();
        assert_eq!(server.state().blobs[&Digest::of(&bytes).to_string()], bytes);
    }
    assert_eq!(server.state().logged("PATCH"), 0);
    assert_eq!(server.state().logged("PUT"), 3);
    let registry = server.registry(Options::default());
    assert!(registry.has_blob(&Digest::of(&noise(1))).unwrap());
    assert!(!registry.has_blob(&Digest::of(b"another")).unwrap());
}

#[test]
fn a_cut_upload_is_taken_up() {
    let server = Server::start(|state, request| match request.method.as_str() {
        "PUT" if state.before("put") == 0 => Fault::Cut(100_000),
        "PATCH" if state.before("patch") == 0 => Fault::Cut(50_000),
        _ => Fault::None,
    });
    let bytes = noise(300_000);
    server.upload(&bytes).unwrap();
    let state = server.state();
    assert_eq!(state.blobs[&Digest::of(&bytes).to_string()], bytes);
    let patches: Vec<&String> = state.log.iter().filter(|line| line.starts_with("PATCH")).collect();
    assert!(patches[0].contains("100000-299999") && patches[1].contains("150000-299999"), "{patches:?}");
    assert_eq!(state.logged("POST"), 1, "{:?}", state.log);
}

#[test]
fn what_the_registry_forgets_is_sent_anew() {
    let server = Server::start(|state, request| match request.method.as_str() {
        "PUT" if state.before("put") == 0 => Fault::Cut(100_000),
        "GET" => Fault::Answer("404 Not Found", Vec::new()),
        _ => Fault::None,
    });
    let bytes = noise(300_000);
    server.upload(&bytes).unwrap();
    assert_eq!(server.state().logged("POST"), 2);
    // Nonsense about what it has: the pieces do not fit, and all is sent anew.
    let server = Server::start(|state, request| match request.method.as_str() {
        "PUT" if state.before("put") == 0 => Fault::Cut(100_000),
        "GET" if state.before("get") == 0 => {
            let range = ("Range", "0-54321".to_owned());
            Fault::Answer("204 No Content", vec![range, ("Location", "/v2/a/b/blobs/uploads/1".to_owned())])
        }
        _ => Fault::None,
    });
    server.upload(&bytes).unwrap();
    assert_eq!(server.state().blobs[&Digest::of(&bytes).to_string()], bytes);
    // Only the answer was lost: nothing is sent twice.
    let server = Server::start(|state, request| match request.method.as_str() {
        "PUT" if state.before("put") == 0 => Fault::Lost,
        _ => Fault::None,
    });
    server.upload(&bytes).unwrap();
    assert_eq!(server.state().logged("PUT"), 1);
    assert_eq!(server.state().logged("POST"), 1);
}

#[test]
fn a_busy_registry_is_asked_again_and_a_hopeless_one_given_up() {
    let server = Server::start(|state, request| match (request.method.as_str(), state.before("all")) {
        (_, 0) => Fault::Answer("503 Service Unavailable", Vec::new()),
        (_, 1) => Fault::Answer("429 Too Many Requests", vec![("Retry-After", "0".to_owned())]),
        ("PUT", _) if state.before("put") < 2 => Fault::Answer("502 Bad Gateway", Vec::new()),
        _ => Fault::None,
    });
    server.upload(&noise(300_000)).unwrap();
    for (fault, expected) in [
        ("503 Service Unavailable", "503"),
        ("429 Too Many Requests", "limits the rate"),
        ("401 Unauthorized", "denies"),
        ("cut", "given up after 4 attempts"),
    ] {
        let server = Server::start(move |_, request| match (request.method.as_str(), fault) {
            ("PUT", "cut") => Fault::Cut(0),
            ("PUT", status) => Fault::Answer(status, Vec::new()),
            _ => Fault::None,
        });
        let error = server.upload(&noise(3000)).unwrap_err();
        assert!(error.contains(expected) && error.contains("given up after 4 attempts"), "{fault}: {error}");
        assert_eq!(server.state().logged("PUT"), 4, "{fault}");
        let once = server.registry(Options { retry: Some(0), ..Options::default() });
        let error = upload(&once, &noise(3000)).unwrap_err();
        assert!(error.contains("given up after 1 attempt:"), "{error}");
    }
    for (status, expected) in [
        ("403 Forbidden", "denies access"),
        ("400 Bad Request", "answered 400"),
        ("507 Insufficient Storage", "507"),
    ] {
        let server = Server::start(move |_, request| match request.method.as_str() {
            "PUT" => Fault::Answer(status, Vec::new()),
            _ => Fault::None,
        });
        let error = server.upload(&noise(3000)).unwrap_err();
        assert!(error.contains(expected), "{status}: {error}");
    }
}

#[test]
fn a_large_blob_goes_in_pieces_where_it_must() {
    let server = Server::start(|_, request| {
        let length = request.headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        if length > 17 << 20 { Fault::Answer("413 Payload Too Large", Vec::new()) } else { Fault::None }
    });
    let bytes = vec![7; 20 << 20];
    server.upload(&bytes).unwrap();
    let state = server.state();
    assert!(state.blobs[&Digest::of(&bytes).to_string()] == bytes);
    assert_eq!(state.logged("PATCH"), 2, "{:?}", state.log);
}

#[test]
fn credentials_stay_at_home() {
    let stranger = Server::start(|_, _| Fault::None);
    stranger.state().uploads.insert(1, Vec::new());
    stranger.state().uploads.insert(2, Vec::new());
    let there = stranger.host.clone();
    let server = Server::start(move |state, request| {
        if !request.headers.contains_key("authorization") {
            let challenge = ("WWW-Authenticate", "Basic realm=\"x\"".to_owned());
            return Fault::Answer("401 Unauthorized", vec![challenge]);
        }
        let to = |id: u64| vec![("Location", format!("http://{there}/v2/a/b/blobs/uploads/{id}"))];
        match request.method.as_str() {
            // An upload that begins elsewhere, and one that is sent elsewhere.
            "POST" if state.before("post") == 0 => Fault::Answer("202 Accepted", to(1)),
            "PUT" => {
                let digest = request.query("digest").unwrap();
                let to = format!("http://{there}/v2/a/b/blobs/uploads/2?digest={digest}");
                Fault::Answer("307 Temporary Redirect", vec![("Location", to)])
            }
            _ => Fault::None,
        }
    });
    let registry = server.registry(password());
    assert!(!registry.has_blob(&Digest::of(b"")).unwrap());
    for length in [300_000, 200_000] {
        upload(&registry, &noise(length)).unwrap();
    }
    let log = stranger.state().log.clone();
    assert!(log.len() >= 2 && log.iter().all(|line| !line.contains("with credentials")), "{log:?}");
    assert_eq!(stranger.state().blobs.len(), 2);

    // A stranger who asks for a password gets none, nor may it name who does.
    let stranger = Server::start(|_, _| {
        Fault::Answer("401 Unauthorized", vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())])
    });
    let there = stranger.host.clone();
    let server = Server::start(move |_, request| match request.method.as_str() {
        "POST" => {
            let to = format!("http://{there}/v2/a/b/blobs/uploads/1");
            Fault::Answer("202 Accepted", vec![("Location", to)])
        }
        _ => Fault::None,
    });
    let error = upload(&server.registry(password()), &noise(1000)).unwrap_err();
    assert!(error.contains("denies access") && !error.contains("secret"), "{error}");
    assert_eq!(stranger.state().logged("with credentials"), 0);
}

#[test]
fn one_token_does_for_all() {
    // What the token server says is served as a blob.
    let tokens = Server::start(|_, _| Fault::None);
    tokens.state().blobs.insert("token".to_owned(), b"{\"token\":\"T\"}".to_vec());
    let realm = format!("http://{}/v2/a/b/blobs/token", tokens.host);
    let server = Server::start(move |_, request| {
        if request.headers.get("authorization").is_none_or(|value| value != "Bearer T") {
            let scope = if request.method == "HEAD" { "pull" } else { "pull,push" };
            let challenge =
                format!("Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:a/b:{scope}\"");
            return Fault::Answer("401 Unauthorized", vec![("WWW-Authenticate", challenge)]);
        }
        Fault::None
    });
    let registry = server.registry(Options::default());
    registry.has_blob(&Digest::of(b"x")).unwrap();
    upload(&registry, &noise(1000)).unwrap();
    registry.put_manifest("1", "application/x", b"{}").unwrap();
    let asked = tokens.state().log.clone();
    assert!(asked.len() == 1 && asked[0].contains("scope=repository%3Aa%2Fb%3Apull%2Cpush"), "{asked:?}");
    // To take a blob over from another repository, that must be readable too.
    assert!(matches!(registry.mount(&Digest::of(b"x"), "other/one"), Ok(Mounted::Upload(_))));
    let asked = tokens.state().log.clone();
    assert!(
        asked.len() == 2
            && asked[1].contains("repository%3Aother%2Fone%3Apull")
            && asked[1].contains("pull%2Cpush"),
        "{asked:?}"
    );
}

#[test]
fn mounts() {
    let digest = Digest::of(b"x");
    let server = Server::start(|_, request| match request.query("from") {
        Some("good/one") => Fault::Answer("201 Created", Vec::new()),
        Some("denied/one") => Fault::Answer("403 Forbidden", Vec::new()),
        Some("odd/one") => Fault::Answer("405 Method Not Allowed", Vec::new()),
        Some("lost/one") => Fault::Answer("202 Accepted", Vec::new()),
        _ => Fault::None,
    });
    let registry = server.registry(Options::default());
    assert_eq!(registry.mount(&digest, "good/one").unwrap(), Mounted::Yes);
    for no in ["denied/one", "odd/one", "lost/one"] {
        assert_eq!(registry.mount(&digest, no).unwrap(), Mounted::No, "{no}");
    }
    let Mounted::Upload(url) = registry.mount(&digest, "other/one").unwrap() else { panic!() };
    // The upload that it began instead is gone on with.
    let bytes = b"x";
    let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(&bytes[..])) };
    let content = Content { digest, size: 1, open: &open };
    let before = server.state().logged("POST");
    registry.upload(&content, Some(url), &|_| {}).unwrap();
    assert_eq!(server.state().logged("POST"), before);
    assert!(registry.has_blob(&digest).unwrap());
}

#[test]
fn what_is_damaged_is_not_sent_whole() {
    let server = Server::start(|_, _| Fault::None);
    let registry = server.registry(Options::default());
    let bytes = noise(300_000);
    let digest = Digest::of(&bytes);
    for (damaged, size) in [(noise(299_999), 300_000), (vec![0; 300_000], 300_000), (noise(300_001), 300_000)]
    {
        let open = || -> io::Result<Box<dyn Read + Send + '_>> {
            Ok(Box::new(Verified::new(&damaged[..], digest, size)))
        };
        let content = Content { digest, size, open: &open };
        let error = registry.upload(&content, None, &|_| {}).unwrap_err();
        assert!(matches!(error, Error::Content { .. }), "{error}");
    }
    assert!(server.state().blobs.is_empty());
}

#[test]
fn manifests_and_tags_and_what_refers_to_them() {
    let server = Server::start(|_, request| {
        if request.is("GET", "/tags/list") {
            let link = match request.query("last") {
                None => Some("</v2/a/b/tags/list?n=1000&last=x>; rel=\"next\""),
                // Another host is not asked with our credentials: this one is, for the same page.
                Some("x") => Some("<http://127.0.0.1:1/v2/a/b/tags/list?last=y>; rel=next"),
                Some(_) => None,
            };
            let link = link.map(|link| ("Link", link.to_owned())).into_iter().collect();
            return Fault::Body(link, br#"{"name":"a/b","tags":["one"]}"#);
        }
        Fault::None
    });
    let registry = server.registry(Options::default());
    assert_eq!(registry.tags().unwrap(), ["one", "one", "one"]);
    assert_eq!(server.state().logged("/tags/list"), 3);
    let subject = Digest::of(b"subject");
    let manifest = format!(
        r#"{{"schemaVersion":2,"artifactType":"application/sig","subject":{{"digest":"{subject}"}},"annotations":{{"k":"v"}}}}"#
    );
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let own = Digest::of(manifest.as_bytes());
    for _ in 0..2 {
        registry.put_manifest(&own.to_string(), kind, manifest.as_bytes()).unwrap();
    }
    assert_eq!(registry.head_manifest(&own.to_string()).unwrap(), Some(own));
    assert_eq!(registry.head_manifest("nothing").unwrap(), None);
    // The registry knows nothing of referrers: the list is kept under a tag, once.
    let found = registry.referrers(&subject, None).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].digest.as_str(), found[0].annotations["k"].as_str()),
        (own.to_string().as_str(), "v")
    );
    assert_eq!(registry.referrers(&subject, Some("application/sig")).unwrap().len(), 1);
    assert_eq!(registry.referrers(&subject, Some("application/other")).unwrap().len(), 0);
    assert_eq!(registry.referrers(&own, None).unwrap().len(), 0);
    registry.delete_manifest(&own.to_string()).unwrap();
    assert!(matches!(registry.delete_manifest(&own.to_string()), Err(Error::NotFound { .. })));

    let liar = Server::start(|_, request| {
        let digest = Digest::of(b"something else").to_string();
        match request.method.as_str() {
            "PUT" => Fault::Answer("201 Created", vec![("Docker-Content-Digest", digest)]),
            _ => Fault::None,
        }
    });
    let error = liar.registry(Options::default()).put_manifest("1", kind, b"{}").unwrap_err();
    assert!(matches!(error, Error::Stored { .. }), "{error}");
}

#[test]
fn logins_are_checked() {
    let options = |password: &str| Options {
        tls_verify: Some(false),
        creds: Some(Credentials::Password { user: "u".into(), password: password.into() }),
        ..Options::default()
    };
    let server = Server::start(|_, request| match request.headers.get("authorization").map(String::as_str) {
        // u:p
        Some("Basic dTpw") => Fault::Answer("200 OK", Vec::new()),
        _ => Fault::Answer("401 Unauthorized", vec![("WWW-Authenticate", "Basic realm=\"x\"".to_owned())]),
    });
    Registry::check_login(&server.host, &options("p")).unwrap();
    let error = Registry::check_login(&server.host, &options("q")).unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error}");
    assert!(server.state().log.iter().all(|line| line.starts_with("GET /v2/ ")));
}
