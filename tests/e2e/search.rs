//! `search`, `pull --all-tags`, and what `pull` does with a registry that fails.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use umiak::image::registry::{Options, Registry as Client};
use umiak::image::source::Source;

use crate::requires;
use crate::support::{Need, Registry, Umiak};

/// Gives the image further tags.
fn tag(name: &str, tags: &[&str]) {
    let options = Options { tls_verify: Some(false), ..Options::default() };
    let registry = Client::to_push(&name.parse().unwrap(), &options).unwrap();
    let manifest = registry.root().unwrap();
    for tag in tags {
        registry.put_manifest(tag, manifest.media_type.as_deref().unwrap(), &manifest.bytes).unwrap();
    }
}

#[test]
fn a_registrys_images_and_tags() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let mut umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let name = registry.push("busybox");
    tag(&name, &["1", "2.0", "zz_end"]);
    registry.push_as(
        "other",
        &format!("oci:{}:localhost/busybox:latest", crate::support::images().join("busybox").display()),
    );
    let address = registry.address.clone();
    let repository = format!("{address}/test/busybox");
    let search =
        |umiak: &Umiak, args: &[&str]| umiak.run(&[&["search", "--tls-verify=false"], args].concat());
    let table = search(&umiak, &[&format!("{address}/busy")]).ok().stdout;
    let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
    assert!(lines[0].starts_with("NAME  ") && lines[0].ends_with("DESCRIPTION"), "{table}");
    assert_eq!(&lines[1..], [&repository]);
    let all = search(&umiak, &["--format", "{{.Name}}", &format!("{address}/")]).ok().stdout;
    assert_eq!(all, format!("{repository}\n{address}/test/other\n"));
    assert_eq!(
        search(&umiak, &["--limit", "1", "--format", "{{.Name}}", &format!("{address}/")])
            .ok()
            .stdout
            .lines()
            .count(),
        1
    );
    search(&umiak, &[&format!("{address}/nothing")]).ok().says("");
    let json = search(&umiak, &["--format", "json", &format!("{address}/other")]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json[0]["Index"].as_str(), json[0]["Stars"].as_u64()), (Some(address.as_str()), Some(0)));

    let tags = search(&umiak, &["--list-tags", &repository]).ok().stdout;
    let tags: Vec<Vec<&str>> = tags.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(tags[0], ["NAME", "TAG"]);
    let mut listed: Vec<&str> = tags[1..].iter().map(|row| row[1]).collect();
    listed.sort_unstable();
    assert_eq!(listed, ["1", "2.0", "latest", "zz_end"]);
    let json = search(&umiak, &["--list-tags", "--format", "json", &repository]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (json[0]["Name"].as_str(), json[0]["Tags"].as_array().unwrap().len()),
        (Some(repository.as_str()), 4)
    );
    search(&umiak, &["--list-tags", &format!("{address}/test/nothing")]).exits(125).tells("nothing");
    search(&umiak, &["--list-tags", "--filter", "stars=1", &repository]).exits(125).tells("--list-tags");

    // All of them, of one download.
    let ids = umiak.run(&["pull", "-q", "-a", "--tls-verify=false", &repository]).ok().stdout;
    assert_eq!(ids.lines().count(), 4);
    assert_eq!(umiak.run(&["images", "-n"]).ok().stdout.lines().count(), 4);
    umiak.run(&["pull", "-a", "--tls-verify=false", &name]).exits(125).tells("without tag");
    umiak.run(&["pull", "-a", "oci:/tmp/x"]).exits(125).tells("name a repository");
    // A short name, by registries.conf.
    let conf = umiak.file("registries.conf", &format!("unqualified-search-registries = ['{address}']\n[[registry]]\nlocation = '{address}'\ninsecure = true\n"));
    umiak.set_env("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap());
    assert_eq!(umiak.run(&["search", "--format", "{{.Name}}", "busy"]).ok().stdout.trim(), repository);
    let two =
        umiak.run(&["search", "--list-tags", "--limit", "2", "--format", "{{.Tag}}", "test/busybox"]).ok();
    assert_eq!(two.stdout.lines().count(), 2, "{}", two.stdout);
    assert_eq!(umiak.run(&["pull", "-q", "--all-tags", "test/busybox"]).ok().stdout.lines().count(), 4);
}

type Seen = Arc<Mutex<Vec<String>>>;

/// Answers every request with what `answer` gives for its path; returns the address, and the paths.
fn serve(answer: impl Fn(&str, usize) -> String + Send + 'static) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let seen = Seen::default();
    let log = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let Some(path) = lines.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)) else {
                continue;
            };
            lines.find(|line| line.is_empty());
            let count = {
                let mut seen = log.lock().unwrap();
                seen.push(path.clone());
                seen.len()
            };
            let _ = (&stream).write_all(answer(&path, count).as_bytes());
        }
    });
    (address, seen)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn as_docker_hub_is_searched() {
    let umiak = Umiak::new();
    let (address, seen) = serve(|_, _| {
        answer(
            "200 OK",
            "",
            r#"{"results":[
            {"name":"good","description":"one\ntwo of a description that is longer than forty-four characters","star_count":7,"is_official":true,"is_automated":false},
            {"name":"a/b","description":null,"star_count":2,"is_automated":true}]}"#,
        )
    });
    let search = |args: &[&str]| {
        umiak.run(&[&["search", "--tls-verify=false"], args, &[&format!("{address}/a term")]].concat())
    };
    let table = search(&["--compatible"]).ok().stdout;
    let first: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["NAME", "DESCRIPTION", "STARS", "OFFICIAL", "AUTOMATED"]);
    assert!(
        table.contains(&format!("{address}/good"))
            && table.contains("one two of a description that is longer than...  7"),
        "{table}"
    );
    assert!(seen.lock().unwrap().contains(&"/v1/search?q=a%20term&n=25".to_owned()), "{seen:?}");
    search(&["--no-trunc"]).ok().has("forty-four characters");
    let names = |args: &[&str]| {
        search(&[args, &["--format", "{{.Name}} {{.Stars}}{{.Official}}"]].concat()).ok().stdout
    };
    assert_eq!(names(&["--filter", "stars=3"]), format!("{address}/good 7[OK]\n"));
    assert_eq!(names(&["-f", "is-automated"]), format!("{address}/a/b 2\n"));
    assert_eq!(names(&["-f", "is-official=false"]), format!("{address}/a/b 2\n"));
    search(&["-f", "shiny"]).exits(125).tells("is-official");
    // A server that knows neither way.
    let (address, _) = serve(|_, _| answer("404 Not Found", "", ""));
    umiak
        .run(&["search", "--tls-verify=false", &format!("{address}/x")])
        .exits(125)
        .tells("searching for")
        .tells(&address);
}

#[test]
fn a_registry_that_has_had_enough() {
    let umiak = Umiak::new();
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit"}]}"#;
    let (address, seen) = serve(move |_, _| answer("429 Too Many Requests", "Retry-After: 7200\r\n", body));
    let pull = |args: &[&str]| {
        umiak
            .run(&[&["pull", "-q", "--tls-verify=false"], args, &[&format!("{address}/a")]].concat())
            .exits(125)
    };
    // HTTPS is tried first: that connection is none of HTTP.
    let asked = || seen.lock().unwrap().iter().filter(|path| path.starts_with("/v2/")).count();
    let output = pull(&["--retry", "0"])
        .tells("limits the rate of requests")
        .tells("You have reached your pull rate limit")
        .tells("2 hours");
    assert_eq!(output.stderr.matches("error:").count(), 1, "{}", output.stderr);
    assert_eq!(asked(), 1);
    let (address, seen) = serve(|_, _| answer("503 Service Unavailable", "", ""));
    let pull = |args: &[&str]| {
        umiak
            .run(&[&["pull", "-q", "--tls-verify=false"], args, &[&format!("{address}/a")]].concat())
            .exits(125)
    };
    let asked = || seen.lock().unwrap().iter().filter(|path| path.starts_with("/v2/")).count();
    pull(&["--retry=2", "--retry-delay=10ms"]).tells("503");
    assert_eq!(asked(), 3);
    pull(&["--retry-delay=soon"]).tells("write a duration");
    pull(&["--disable-content-trust", "--retry=0"]).tells("503");
}
