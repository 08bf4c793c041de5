//! More of what a registry may do wrong. Whatever it is, one line says so and nothing is left.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use umiak::base::digest::Digest;
use umiak::image::registry::Options;
use umiak::image::{PullOptions, Silent, Transport, pull};

use crate::registry::{Answer, Request, honest, image, serve, try_pull};
use crate::support::{Image, Scratch, assert_clean, options};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The pull fails for this reason, in one line, and leaves nothing.
fn fails(host: &str, why: &str) {
    let scratch = Scratch::new();
    let store = scratch.store();
    let source: Transport = format!("docker://{host}/a/b:1").parse().unwrap();
    let registry = Options {
        tls_verify: Some(false),
        retry: Some(1),
        retry_delay: Some(Duration::from_millis(10)),
        ..Options::default()
    };
    let error = pull(&store, &source, &PullOptions { registry, ..options() }, &Silent).expect_err(why);
    let text = umiak::base::report::chain(&error);
    assert!(text.contains(why), "{why}: {text}");
    assert!(!text.contains('\n') && text.len() < 1500, "{text}");
    assert_clean(&store);
}

/// Serves manifests as given, by tag and by digest, and the image's blobs.
fn with_documents(
    root: serde_json::Value,
    kind: &'static str,
    others: Vec<serde_json::Value>,
    image: Image,
) -> String {
    serve(move |request| {
        let Some((_, selector)) = request.path.split_once("/manifests/") else {
            return honest(&image, request);
        };
        let others = others.iter().map(|other| other.to_string());
        let document = match selector {
            "1" => Some(root.to_string()),
            digest => others.into_iter().find(|other| Digest::of(other.as_bytes()).to_string() == digest),
        };
        document.map_or_else(
            || Answer::status("404 Not Found"),
            |text| Answer::ok(text.as_bytes()).header("Content-Type", kind),
        )
    })
}

fn index_of(entries: &[serde_json::Value], platform: Option<serde_json::Value>) -> serde_json::Value {
    let entry = |manifest: &serde_json::Value| {
        let text = manifest.to_string();
        let kind = manifest["mediaType"].as_str().unwrap_or(MANIFEST);
        let mut entry = json!({ "mediaType": kind, "digest": Digest::of(text.as_bytes()).to_string(), "size": text.len() });
        if let Some(platform) = &platform {
            entry["platform"] = platform.clone();
        }
        entry
    };
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries.iter().map(entry).collect::<Vec<_>>() })
}

#[test]
fn the_line_is_cut_at_every_quarter() {
    for quarter in 1..=4 {
        for what in ["/manifests/", "/blobs/"] {
            // Once: it is asked again. Always: it is given up.
            for times in [1, usize::MAX] {
                let image = image();
                let count = AtomicUsize::new(0);
                let cut = move |request: &Request| {
                    let mut answer = honest(&image, request);
                    let large = what == "/manifests/" || answer.body.len() > 100_000;
                    if request.path.contains(what) && large && count.fetch_add(1, Ordering::Relaxed) < times {
                        answer.cut = Some((answer.body.len() * quarter / 4).saturating_sub(1));
                    }
                    answer
                };
                let host = serve(cut);
                // A manifest that is cut is no manifest; asking again is for blobs, which are large.
                match (what, times) {
                    ("/blobs/", 1) => drop(try_pull(&Scratch::new().store(), &host).unwrap()),
                    ("/blobs/", _) => fails(&host, ""),
                    (_, _) => fails(&host, "127.0.0.1"),
                }
            }
        }
    }
}

#[test]
fn servers_that_are_out_of_order() {
    for status in
        ["500 Internal Server Error", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"]
    {
        let image = image();
        let count = AtomicUsize::new(0);
        let host = serve(move |request| match count.fetch_add(1, Ordering::Relaxed) % 3 {
            0 => Answer::status(status),
            _ => honest(&image, request),
        });
        try_pull(&Scratch::new().store(), &host).unwrap();
        fails(&serve(move |_| Answer::status(status)), &status[..3]);
    }
    let host = serve(|_| Answer::status("429 Too Many Requests").header("Retry-After", "99999"));
    fails(&host, "limits the rate of requests (because), it may be asked again in 28 hours");
    let host = serve(|_| Answer::status("429 Too Many Requests"));
    fails(&host, "limits the rate of requests (because)");
}

#[test]
fn answers_that_are_something_else() {
    let html = b"<html><body>Please log in to the network</body></html>";
    let html = move |_: &Request| Answer::ok(html).header("Content-Type", "text/html");
    fails(&serve(html), "parsing the manifest");
    fails(&serve(|_| Answer::ok(b"")), "parsing the manifest");
    fails(&serve(|_| Answer::ok(b"{}")), "unusable");
    fails(&serve(|_| Answer::ok(b"[[[[[[[[[[")), "parsing the manifest");
    fails(&serve(|_| Answer::ok(&[b'['; 100_000])), "parsing the manifest");
    fails(
        &serve(|_| Answer::ok(br#"{"schemaVersion":2,"mediaType":"text/plain","config":null}"#)),
        "text/plain",
    );
    // What the manifest calls itself counts, not what the server calls it.
    let good = image();
    let host = serve(move |request| {
        let mut answer = honest(&good, request);
        answer.headers = vec![("Content-Type".into(), "text/plain; charset=utf-8".into())];
        answer
    });
    try_pull(&Scratch::new().store(), &host).unwrap();
    // An error page instead of a blob, with a good status.
    let good = image();
    let host = serve(move |request| {
        if request.path.contains("/blobs/") {
            Answer::ok(b"<html>moved</html>")
        } else {
            honest(&good, request)
        }
    });
    fails(&host, "was asked for, but");
    let terminal = br#"{"errors":[{"code":"X","message":"\u001b[2Jgone\nerror: other line"}]}"#;
    fails(&serve(|_| Answer { status: "403 Forbidden", ..Answer::ok(terminal) }), "[2Jgoneerror: other line");
}

#[test]
fn indexes_that_lead_nowhere() {
    let (os, architecture) = ("linux", umiak::image::Platform::host().architecture);
    let good = image();
    let manifest = good.manifest.clone();
    let other = Some(json!({ "os": "plan9", "architecture": architecture }));
    fails(
        &with_documents(index_of(std::slice::from_ref(&manifest), other), INDEX, vec![manifest], good),
        "there are plan9",
    );
    fails(&with_documents(index_of(&[], None), INDEX, vec![], image()), "there are none");
    let good = image();
    let two = vec![good.manifest.clone(), json!({ "mediaType": MANIFEST, "x": 1 })];
    fails(&with_documents(index_of(&two, None), INDEX, two, good), "there is no image for");
    // Deeper and deeper: five are too many, four lead to the image.
    let here = Some(json!({ "os": os, "architecture": architecture }));
    for (depth, good_end) in [(3, true), (8, false)] {
        let good = image();
        let mut all = vec![good.manifest.clone()];
        for _ in 0..depth {
            let next = index_of(std::slice::from_ref(all.last().unwrap()), here.clone());
            all.push(next);
        }
        let root = all.last().unwrap().clone();
        let host = with_documents(root, INDEX, all, good);
        if good_end {
            try_pull(&Scratch::new().store(), &host).unwrap();
        } else {
            fails(&host, "nested too deeply");
        }
    }
    // In a circle: by digests that cannot be true.
    let circle = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [{
        "mediaType": INDEX, "digest": Digest::of(b"x").to_string(), "size": 1,
        "platform": { "os": os, "architecture": architecture } }] });
    let text = circle.to_string();
    fails(&serve(move |_| Answer::ok(text.as_bytes()).header("Content-Type", INDEX)), "was asked for, but");
    // Both at once.
    let mut both = image().manifest;
    both["manifests"] = json!([]);
    fails(&with_documents(both, MANIFEST, vec![], image()), "not an image's");
}

#[test]
fn redirects_that_lead_nowhere() {
    for target in
        ["", "ftp://127.0.0.1/x", "file:///etc/passwd", "http://", "::", "http://[", "http://127.0.0.1:1/x"]
    {
        let host = serve(move |_| Answer::status("307 Temporary Redirect").header("Location", target));
        fails(&host, "127.0.0.1");
    }
    // From one host to the other and back.
    let to: Arc<std::sync::Mutex<String>> = Arc::default();
    let known = to.clone();
    let first = serve(move |request| {
        let target = format!("http://{}{}", known.lock().unwrap(), request.path);
        Answer::status("302 Found").header("Location", target)
    });
    let back = first.clone();
    let second = serve(move |request| {
        Answer::status("302 Found").header("Location", format!("http://{back}{}", request.path))
    });
    *to.lock().unwrap() = second;
    fails(&first, "redirects to");
}

#[test]
fn token_servers_that_misbehave() {
    for (body, status) in [
        (&b"<html>"[..], "200 OK"),
        (b"", "200 OK"),
        (b"{\"token\":\"\"}", "200 OK"),
        (b"{\"token\":\"a\\r\\nX-Header: b\"}", "200 OK"),
        (b"{\"errors\":[{\"message\":\"no\"}]}", "500 Internal Server Error"),
    ] {
        let realm = serve(move |_| Answer { status, ..Answer::ok(body) });
        let host = serve(move |_| {
            let challenge = format!("Bearer realm=\"http://{realm}/t\",service=\"s\"");
            Answer::status("401 Unauthorized").header("WWW-Authenticate", challenge)
        });
        fails(&host, "127.0.0.1");
    }
    for challenge in [
        "",
        "Bearer",
        "Bearer realm=",
        "Bearer realm=\"\"",
        "Bearer realm=\"nonsense\"",
        "Digest realm=\"x\"",
        "Bearer realm=\"http://127.0.0.1:1/t\"",
        "Basic",
    ] {
        let host = serve(move |_| Answer::status("401 Unauthorized").header("WWW-Authenticate", challenge));
        fails(&host, "");
    }
}

/// A server that does not speak HTTP as it should: whatever is asked, it sends these bytes.
fn raw(bytes: impl Fn(&mut dyn Write) -> std::io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let bytes = Arc::new(bytes);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let bytes = bytes.clone();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let _ = bytes(&mut stream);
            });
        }
    });
    host
}

#[test]
fn no_http_at_all() {
    for text in [
        "",
        "\0\0\0\0",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/1.1 999 ?\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        fails(&raw(move |out| out.write_all(text.as_bytes())), "127.0.0.1");
    }
    // Headers without end, a manifest without end: memory and time are bounded.
    let headers = raw(|out| {
        out.write_all(b"HTTP/1.1 200 OK\r\n")?;
        (0..).try_for_each(|number| write!(out, "X-{number}: {}\r\n", "x".repeat(1000)))
    });
    fails(&headers, "127.0.0.1");
    let body = raw(|out| {
        out.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        (0..).try_for_each(|_: u64| write!(out, "1000\r\n{}\r\n", " ".repeat(0x1000)))
    });
    fails(&body, "more than");
}

#[test]
fn a_slow_server_serves() {
    let image = image();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let behind = serve(move |request| honest(&image, request));
    // In pieces of a kilobyte with pauses, 300 of them.
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = std::net::TcpStream::connect(&behind).unwrap();
            let (mut up, mut from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut up));
            std::thread::spawn(move || {
                let (mut server, mut client) = (server, client);
                let mut piece = [0; 1024];
                while let Ok(count @ 1..) = server.read(&mut piece) {
                    if client.write_all(&piece[..count]).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(2));
                }
                let _ = client.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    try_pull(&Scratch::new().store(), &host).unwrap();
}

#[test]
fn files_beside_a_registry() {
    use umiak::image::registry::fetch;
    let there = serve(|request| match request.path.as_str() {
        "/a/signature-1" => Answer::ok(b"signature"),
        "/moved" => Answer::status("302 Found").header("Location", "/a/signature-1"),
        "/secret" => Answer::status("401 Unauthorized").header("WWW-Authenticate", "Basic realm=\"x\""),
        "/broken" => Answer::status("501 Not Implemented"),
        "/large" => Answer::ok(&vec![b'x'; 5 << 20]),
        _ => Answer::status("404 Not Found"),
    });
    let get = |path: &str| fetch(&format!("http://{there}{path}"));
    assert_eq!(get("/a/signature-1").unwrap().unwrap(), b"signature");
    assert_eq!(get("/moved").unwrap().unwrap(), b"signature");
    assert_eq!(get("/a/signature-2").unwrap(), None);
    for path in ["/secret", "/broken", "/large"] {
        assert!(get(path).is_err(), "{path}");
    }
    // What is not there at all is no "there is none".
    assert!(fetch("http://127.0.0.1:1/signature-1").is_err());
    assert!(fetch("nonsense").is_err() && fetch("http://").is_err());
}
