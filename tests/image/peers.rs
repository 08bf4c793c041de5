//! The same images through Debian's tools: skopeo writes every transport, docker-registry serves,
//! umoci unpacks for comparison.
#![allow(clippy::disallowed_methods, reason = "the tests run Debian's tools")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use umiak::image::registry::Options;
use umiak::image::{PullOptions, Silent, Transport, pull};

use crate::skip::skip;
use crate::support::{Archive, Image, Scratch, is_root, options, pull_text};

/// Whether all programs are there.
pub fn have(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    programs.iter().all(|program| std::env::split_paths(&path).any(|dir| dir.join(program).exists()))
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Docker's registry on loopback, ended with the value.
struct DockerRegistry {
    process: Child,
    host: String,
}

impl DockerRegistry {
    fn start(dir: &Path) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let config = dir.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{host}\"}}\nlog: {{level: error}}\n",
            dir.join("registry").display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while std::net::TcpStream::connect(&host).is_err() {
            assert!(start.elapsed() < Duration::from_secs(120), "docker-registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { process, host }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn sample() -> Image {
    let lower = Archive::new().dir("d").file("d/a", b"a").file("d/b", b"b").dir("o").file("o/x", b"x");
    let upper =
        Archive::new().file("d/c", &[7; 70_000]).entry("l", b'2', "d/c", b"").entry("h", b'1', "d/c", b"");
    Image::new(&[lower.bytes(), upper.bytes()])
}

#[test]
fn every_transport_gives_the_same_image() {
    if !have(&["skopeo", "docker-registry"]) {
        return skip("skopeo and docker-registry are not installed", false);
    }
    let scratch = Scratch::new();
    let layout = sample().layout(&scratch.0.join("layout"));
    let registry = DockerRegistry::start(&scratch.0);
    let at = |name: &str| scratch.0.join(name).display().to_string();
    let plain: Transport = format!("docker://{}/team/app:1", registry.host).parse().unwrap();
    let sources = [
        layout.clone(),
        format!("oci-archive:{}", at("oci.tar")),
        format!("docker-archive:{}", at("docker.tar")),
        format!("dir:{}", at("dir")),
        plain.to_string(),
    ];
    for target in &sources[1..] {
        let target = match target.strip_prefix("docker-archive:") {
            Some(_) => format!("{target}:team/app:1"),
            None => target.clone(),
        };
        let source = format!("{layout}:test");
        run("skopeo", &["copy", "-q", "--insecure-policy", "--dest-tls-verify=false", &source, &target]);
    }
    let wanted = pull_text(&scratch.store(), &layout).unwrap();
    let insecure = Options { tls_verify: Some(false), ..Options::default() };
    for source in &sources {
        let empty = Scratch::new();
        let store = empty.store();
        let transport: Transport = source.parse().unwrap();
        let options = PullOptions { registry: insecure.clone(), ..options() };
        let image = pull(&store, &transport, &options, &Silent)
            .unwrap_or_else(|error| panic!("{source}: {}", umiak::base::report::chain(&error)));
        // docker-archive rewrites the configuration, and with it the id; never the layers.
        let ids =
            |image: &umiak::storage::ImageRecord| image.layers.iter().map(|l| l.chain_id).collect::<Vec<_>>();
        assert_eq!(ids(&image), ids(&wanted), "{source}");
        if !source.starts_with("docker-archive:") {
            assert_eq!(image.id, wanted.id, "{source}");
        }
        // An archive without a name gives none, as with Podman.
        assert_eq!(image.names.is_empty(), source.starts_with("oci-archive:"), "{source}");
    }
}

#[test]
fn a_compressed_archive_is_read_too() {
    if !have(&["skopeo"]) {
        return skip("skopeo is not installed", false);
    }
    let scratch = Scratch::new();
    let layout = sample().layout(&scratch.0.join("layout"));
    let file = scratch.0.join("oci.tar");
    run(
        "skopeo",
        &["copy", "-q", "--insecure-policy", &layout, &format!("oci-archive:{}:x", file.display())],
    );
    let packed = crate::support::gzip(&std::fs::read(&file).unwrap());
    std::fs::write(&file, packed).unwrap();
    let image = pull_text(&scratch.store(), &format!("oci-archive:{}", file.display())).unwrap();
    assert_eq!(image.names, ["localhost/x:latest"]);
}

/// All that a file is, but for its inode.
fn census(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let content = if stat.is_file() {
                umiak::base::digest::Digest::of(&std::fs::read(&path).unwrap()).hex()
            } else if stat.is_symlink() {
                std::fs::read_link(&path).unwrap().display().to_string()
            } else {
                String::new()
            };
            // A directory's link count is the file system's business.
            let links = if stat.is_dir() { 0 } else { stat.nlink() };
            let text = format!(
                "{:o} {}:{} {} {}.{} {} {content}",
                stat.mode(),
                stat.uid(),
                stat.gid(),
                links,
                stat.mtime(),
                stat.mtime_nsec(),
                stat.rdev()
            );
            if stat.is_dir() {
                todo.push(path.clone());
            }
            found.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), text);
        }
    }
    found
}

/// With `UMIAK_TEST_IMAGES`, where `scripts/make-images` writes, on a whole Debian; else on a small image.
#[test]
fn umoci_unpacks_to_the_same_tree() {
    if !is_root() {
        return skip("needs root", true);
    }
    if !have(&["umoci"]) {
        return skip("umoci is not installed", false);
    }
    let scratch = Scratch::new();
    let debian = std::env::var_os("UMIAK_TEST_IMAGES").map(|dir| Path::new(&dir).join("debian"));
    let (source, image) = match debian.filter(|dir| dir.exists()) {
        // umoci takes no tag with a slash.
        Some(dir) if have(&["skopeo"]) => {
            let copy = scratch.0.join("copy").display().to_string();
            let from = format!("oci:{}", dir.display());
            run("skopeo", &["copy", "-q", "--insecure-policy", &from, &format!("oci:{copy}:x")]);
            (from, format!("{copy}:x"))
        }
        _ => {
            let single = Archive::new().dir("d").file("d/a", b"a").entry("d/b", b'1', "d/a", b"");
            let layout = scratch.0.join("layout");
            let source = Image::new(&[single.dir("e").entry("l", b'2', "/x", b"").bytes()]).layout(&layout);
            std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
            (source, format!("{}:test", layout.display()))
        }
    };
    let bundle = scratch.0.join("bundle");
    run("umoci", &["unpack", "--image", &image, bundle.to_str().unwrap()]);
    let store = scratch.store();
    let ours = pull_text_large(&store, &source);
    let (theirs, ours) = (census(&bundle.join("rootfs")), census(&store.layer_dir(&ours.layers[0].chain_id)));
    assert_eq!(theirs.keys().collect::<Vec<_>>(), ours.keys().collect::<Vec<_>>());
    for (path, text) in &theirs {
        assert_eq!(text, &ours[path], "{path}");
    }
}

fn pull_text_large(store: &umiak::storage::Store, source: &str) -> umiak::storage::ImageRecord {
    let large = PullOptions { max_layer: 4 << 30, ..options() };
    pull(store, &source.parse::<Transport>().unwrap(), &large, &Silent).unwrap()
}
