//! Images that go out and come back: `push`, `save`, `load`, read by us and by others.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};

use crate::requires;
use crate::support::{Need, Registry, Terminal, Umiak, eventually, tool};

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>())
}

fn program(umiak: &Umiak, name: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(tool(name).unwrap())
        .args(args)
        .current_dir(&umiak.dir)
        .env("XDG_RUNTIME_DIR", umiak.dir.join("run"))
        .env("TMPDIR", umiak.dir.join("tmp"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The manifest of an image as skopeo reads it.
fn raw(umiak: &Umiak, image: &str) -> Vec<u8> {
    let mut args = vec!["inspect", "--raw", "--tls-verify=false", image];
    if image.starts_with("docker://") {
        args.insert(1, "--creds=user:pass:word");
    }
    program(umiak, "skopeo", &args)
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The digest of the manifest that an image here came with.
fn digest(umiak: &Umiak, image: &str) -> String {
    umiak.inspect(image, "{{.Digest}}")
}

/// Takes the blobs of layers away, as a store does that does not keep them.
fn forget_blobs(umiak: &Umiak, manifest: &serde_json::Value) {
    for layer in manifest["layers"].as_array().unwrap() {
        let hex = &layer["digest"].as_str().unwrap()[7..];
        let _ = std::fs::remove_file(umiak.dir.join("store/blobs/sha256").join(hex));
    }
}

#[test]
fn what_is_pushed_has_the_digest_that_was_pulled() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let umiak = Umiak::with_busybox();
    let registry = Registry::start(&umiak);
    let there = format!("{}/a/busybox:1", registry.address);
    let file = umiak.dir.join("digest");
    let push = ["push", "--tls-verify=false", "--digestfile", file.to_str().unwrap(), "busybox", &there];
    let first = umiak.run(&push).ok().says("");
    assert!(first.stderr.contains("Copying blob"), "{}", first.stderr);
    let expected = digest(&umiak, "busybox");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), expected);
    let manifest = raw(&umiak, &format!("docker://{there}"));
    assert_eq!(sha256(&manifest), expected);
    let again = umiak.run(&push).ok();
    assert!(again.stderr.contains("is there already"), "{}", again.stderr);
    umiak.run(&["image", "push", "-q", "--tls-verify=false", "busybox", &there]).ok().says("").quiet();
    let (code, shown) = Terminal::start(&umiak, &["push", "--tls-verify=false", "busybox", &there]).wait();
    assert_eq!(code, Some(0), "{shown:?}");

    // Pulled elsewhere, by its own name pushed on from there.
    let other = umiak.dir.join("other");
    umiak.run_elsewhere(&other, &["pull", "-q", "--tls-verify=false", &there]).ok();
    let second = Registry::start(&umiak);
    let next = format!("docker://{}/b/c", second.address);
    umiak.run_elsewhere(&other, &["push", "-q", "--tls-verify=false", &there, &next]).ok();
    assert_eq!(sha256(&raw(&umiak, &next)), expected);
    umiak.run_elsewhere(&other, &["push", "-q", "--tls-verify=false", &there]).ok();
    umiak.run_elsewhere(&other, &["rmi", "-af"]).ok();

    umiak.run(&["push", &there]).exits(125).tells("there is no image").hints("umiak images");
    let id = umiak.run(&["images", "-q"]).ok().stdout;
    umiak.run(&["push", id.trim()]).exits(125).tells("it is not said where to").hints("umiak push");
    umiak.run(&["push", "busybox", "127.0.0.1:1/x"]).exits(125).tells("connection refused");
    umiak
        .run(&["push", "--sign-by=x", "busybox", "oci:x"])
        .exits(125)
        .tells("only what goes to a registry is signed");
    umiak
        .run(&["push", "--tls-verify=false", "--retry-delay", "soon", "busybox", &there])
        .exits(125)
        .tells("write a duration");
}

#[test]
fn to_registries_with_a_password_and_with_https() {
    requires!(
        Need::Image("busybox"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo"),
        Need::Tool("openssl")
    );
    let umiak = Umiak::with_busybox();
    let registry = Registry::start_with_password(&umiak);
    let there = format!("{}/a/busybox", registry.address);
    let push = |more: &[&str]| {
        umiak.run(&[&["push", "-q", "--tls-verify=false"], more, &["busybox", &there]].concat())
    };
    push(&[]).exits(125).tells("user and password are needed");
    let wrong = push(&["--creds", "user:wrongword"]).exits(125).tells("denies access");
    assert!(!wrong.stderr.contains("wrongword"), "{}", wrong.stderr);
    push(&["--creds", "user:pass:word"]).ok();
    assert_eq!(sha256(&raw(&umiak, &format!("docker://{there}"))), digest(&umiak, "busybox"));

    let (registry, trusted) = Registry::start_with_tls(&umiak);
    let there = format!("{}/a/busybox", registry.address);
    umiak.run(&["push", "busybox", &there]).exits(125).tells("certificate").hints("--cert-dir");
    umiak.run(&["push", "-q", "--cert-dir", trusted.to_str().unwrap(), "busybox", &there]).ok();
    umiak.run(&["pull", "-q", "--cert-dir", trusted.to_str().unwrap(), &there]).ok();
    assert_eq!(digest(&umiak, &there), digest(&umiak, "busybox"));
}

#[test]
fn a_layer_whose_blob_is_not_kept() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let mut umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let from = registry.push("busybox");
    umiak.run(&["pull", "-q", "--tls-verify=false", &from]).ok();
    let expected = digest(&umiak, &from);
    let manifest = json(&raw(&umiak, &format!("docker://{from}")));
    forget_blobs(&umiak, &manifest);
    // There already; known to the registry in another repository; streamed from where it came from.
    umiak.run(&["push", "--tls-verify=false", &from]).ok();
    let mounted = format!("{}/other/name", registry.address);
    let said = umiak.run(&["push", "--tls-verify=false", &from, &mounted]).ok();
    assert!(said.stderr.contains("is there already"), "{}", said.stderr);
    assert_eq!(sha256(&raw(&umiak, &format!("docker://{mounted}"))), expected);
    let conf = umiak.file(
        "registries.conf",
        &format!("[[registry]]\nlocation = '{}'\ninsecure = true\n", registry.address),
    );
    let second = Registry::start(&umiak);
    let streamed = format!("{}/a/b", second.address);
    umiak.set_env("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap());
    umiak.run(&["push", "-q", "--tls-verify=false", &from, &streamed]).ok();
    assert_eq!(sha256(&raw(&umiak, &format!("docker://{streamed}"))), expected);
    umiak.run(&["save", "-q", "--format", "oci-archive", "-o", "streamed.tar", &from]).ok();
    assert_eq!(sha256(&raw(&umiak, "oci-archive:streamed.tar")), expected);
    // Nowhere to be had: made of what was unpacked, and told.
    drop(registry);
    let last = format!("{}/a/c", second.address);
    let said = umiak.run(&["push", "--tls-verify=false", &from, &last]).ok();
    assert!(said.stderr.contains("warning: a layer was compressed anew"), "{}", said.stderr);
    let changed = raw(&umiak, &format!("docker://{last}"));
    assert_ne!(sha256(&changed), expected);
    assert_eq!(json(&changed)["config"], manifest["config"]);
    // The same each time.
    let said = umiak.run(&["push", "--tls-verify=false", &from, &last]).ok();
    assert!(said.stderr.contains("is there already"), "{}", said.stderr);
    umiak.run(&["pull", "-q", "--tls-verify=false", &last]).ok();
}

#[test]
fn manifests_and_layers_are_converted() {
    requires!(
        Need::Image("busybox"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo"),
        Need::Tool("zstd")
    );
    let umiak = Umiak::with_busybox();
    let registry = Registry::start(&umiak);
    let name = |tag: &str| format!("{}/a/busybox:{tag}", registry.address);
    let push = |tag: &str, more: &[&str]| {
        umiak.run(&[&["push", "-q", "--tls-verify=false"], more, &["busybox", &name(tag)]].concat())
    };
    let source = format!("oci:{}", images("busybox"));
    let config = json(&raw(&umiak, &source))["config"]["digest"].clone();
    let whole = json(&program(&umiak, "skopeo", &["inspect", "--config", "--raw", &source]));
    let diff_id = whole["rootfs"]["diff_ids"][0].as_str().unwrap().to_owned();
    for (tag, more, kind, layer) in [
        ("docker", &["--format", "v2s2"][..], "docker.distribution.manifest.v2", "diff.tar.gzip"),
        ("oci", &["--format", "oci"], "oci.image.manifest.v1", "tar+gzip"),
        ("zstd", &["--compression-format", "zstd"], "oci.image.manifest.v1", "tar+zstd"),
        (
            "level",
            &["--compression-format=gzip", "--compression-level=9"],
            "oci.image.manifest.v1",
            "tar+gzip",
        ),
    ] {
        push(tag, more).ok();
        let manifest = json(&raw(&umiak, &format!("docker://{}", name(tag))));
        assert!(manifest["mediaType"].as_str().unwrap().contains(kind), "{tag}: {manifest}");
        assert!(manifest["layers"][0]["mediaType"].as_str().unwrap().ends_with(layer), "{tag}: {manifest}");
        // The configuration, and so the image's id, stays.
        assert_eq!(manifest["config"]["digest"], config, "{tag}");
        // Others and we take it, and it is the same image.
        let layout = format!("oci:copy-{tag}:x");
        let from = format!("docker://{}", name(tag));
        program(
            &umiak,
            "skopeo",
            &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &layout],
        );
        let copied = json(&raw(&umiak, &layout));
        let hex = copied["layers"][0]["digest"].as_str().unwrap()[7..].to_owned();
        let inflate = if tag == "zstd" { "zstd" } else { "gzip" };
        let blob = format!("copy-{tag}/blobs/sha256/{hex}");
        let command = format!("{inflate} -dc < {blob} | sha256sum");
        let sum = program(&umiak, "sh", &["-c", &command]);
        assert_eq!(String::from_utf8(sum).unwrap()[..64], diff_id[7..], "{tag}");
        let elsewhere = umiak.dir.join(format!("store-{tag}"));
        umiak.run_elsewhere(&elsewhere, &["pull", "-q", "--tls-verify=false", &name(tag)]).ok();
        umiak
            .run_elsewhere(&elsewhere, &["run", "--rm", "--network", "none", &name(tag), "echo", "well"])
            .ok()
            .says("well");
        umiak.run_elsewhere(&elsewhere, &["rmi", "-af"]).ok();
    }
    push("x", &["--format", "v2s2", "--compression-format", "zstd"]).exits(125).tells("zstd");
    push("x", &["--compression-format", "brotli"]).exits(125).tells("brotli");
    push("x", &["--compression-format", "zstd:chunked", "--compression-level", "3"])
        .exits(125)
        .tells("not supported yet");
    push("x", &["--compression-level", "10"]).exits(125).tells("1 to 9");
    push("x", &["--format", "v3"]).exits(125).tells("v3");
    umiak.run(&["push", "--format", "v2s2", "busybox", "oci:layout"]).exits(125).tells("OCI");
}

fn images(name: &str) -> String {
    crate::support::images().join(name).display().to_string()
}

#[test]
fn saved_and_loaded_in_every_form() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let manifest = digest(&umiak, "busybox");
    let save = |args: &[&str]| umiak.run(&[&["save", "-q"], args].concat()).ok().quiet();
    save(&["-o", "docker.tar", "busybox"]);
    save(&["--format", "oci-archive", "-o", "oci.tar", "busybox"]);
    save(&["--format", "oci-dir", "-o", "layout", "busybox"]);
    save(&["--format", "oci-dir", "-o", "layout", "configured"]);
    save(&["--format", "docker-dir", "-o", "dir", "busybox"]);
    save(&["--format", "oci-archive", "--uncompressed", "-o", "plain.tar", "busybox"]);
    save(&["-m", "-o", "both.tar", "busybox", "configured"]);
    umiak.run(&["image", "save", "-q", "-o", "names.tar", "busybox", "second", "example.com/third:3"]).ok();
    // The same at all times, on standard output too.
    for (format, file) in [("docker-archive", "docker.tar"), ("oci-archive", "oci.tar")] {
        let said = umiak.run(&["save", "-q", "--format", format, "busybox"]).ok();
        assert!(said.bytes == std::fs::read(umiak.dir.join(file)).unwrap(), "{format} differs");
    }
    let compressed = umiak.dir.join("both.tar.gz");
    let gzip = Command::new("gzip").args(["-k", "-1", "both.tar"]).current_dir(&umiak.dir).status();
    assert!(gzip.unwrap().success() && compressed.exists());
    let names = |umiak: &Umiak| {
        let said = umiak.run(&["images", "--sort", "repository", "--format", "{{.Repository}}:{{.Tag}}"]);
        said.ok().stdout.trim().replace('\n', " ")
    };
    for (input, loaded) in [
        ("docker.tar", "Loaded image: localhost/busybox:latest"),
        ("oci.tar", "Loaded image: localhost/busybox:latest"),
        ("plain.tar", "Loaded image: localhost/busybox:latest"),
        ("layout", "Loaded image: localhost/busybox:latest\nLoaded image: localhost/configured:latest"),
        ("both.tar", "Loaded image: localhost/busybox:latest\nLoaded image: localhost/configured:latest"),
        ("both.tar.gz", "Loaded image: localhost/busybox:latest\nLoaded image: localhost/configured:latest"),
        (
            "names.tar",
            "Loaded image: localhost/busybox:latest\nLoaded image: localhost/second:latest\nLoaded image: example.com/third:3",
        ),
    ] {
        umiak.run(&["rmi", "-af"]).ok();
        umiak.run(&["load", "-q", "-i", input]).ok().says(loaded).quiet();
        let mut expected: Vec<&str> = loaded.lines().map(|line| &line[14..]).collect();
        expected.sort_unstable();
        assert_eq!(names(&umiak), expected.join(" "), "{input}");
        umiak
            .run(&["run", "--rm", "--network", "none", "localhost/busybox:latest", "echo", "well"])
            .ok()
            .says("well");
        if ["oci.tar", "layout"].contains(&input) {
            assert_eq!(digest(&umiak, "busybox"), manifest, "{input}");
        }
    }
    umiak.run(&["rmi", "-af"]).ok();
    umiak.run(&["image", "load", "-i", "oci.tar"]).ok();
    assert_eq!(digest(&umiak, "busybox"), manifest);
    // A directory without a name of its own gets its path's.
    umiak.run(&["load", "-i", "dir"]).ok().has("Loaded image: localhost/");
    for input in ["both.tar", "both.tar.gz", "oci.tar"] {
        umiak.run(&["rmi", "-af"]).ok();
        let bytes = std::fs::read(umiak.dir.join(input)).unwrap();
        umiak.run_with_input(&["load", "-q"], &bytes).ok().has("Loaded image: localhost/busybox:latest");
    }
}

#[test]
fn what_save_and_load_refuse() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let (code, shown) = Terminal::start(&umiak, &["save", "busybox"]).wait();
    assert_eq!(code, Some(125));
    assert!(shown.contains("not written to a terminal") && shown.len() < 500, "{shown:?}");
    let (code, shown) = Terminal::start(&umiak, &["load"]).wait();
    assert!(code == Some(125) && shown.contains("not read from a terminal"), "{shown:?}");
    umiak.run(&["save", "--format", "oci-dir", "busybox"]).exits(125).tells("--output");
    umiak.run(&["save", "--format", "zip", "busybox"]).exits(125).tells("zip").hints("oci-archive");
    umiak.run(&["save", "--uncompressed", "busybox"]).exits(125).tells("--uncompressed");
    umiak.run(&["save", "--compress", "busybox"]).exits(125).tells("--compress");
    umiak.run(&["save", "--format=oci-archive", "-m", "busybox", "busybox"]).exits(125).tells("several");
    umiak.run(&["save", "-o", "x.tar", "nothing"]).exits(125).tells("there is no image");
    umiak.run(&["save", "-o", "/no/such/x.tar", "busybox"]).exits(125).tells("/no/such/x.tar");
    umiak.run(&["load", "-i", "/no/such/x.tar"]).exits(125).tells("/no/such/x.tar");
    umiak.file("text", "no archive at all");
    umiak.run(&["load", "-i", "text"]).exits(125).tells("text");
    let empty = Command::new("tar").args(["cf", "foreign.tar", "text"]).current_dir(&umiak.dir).status();
    assert!(empty.unwrap().success());
    umiak.run(&["load", "-i", "foreign.tar"]).exits(125).tells("holds no image").hints("umiak save");
    // A full disk: nothing half-made has the name, and what had it stays.
    umiak.file("kept.tar", "before");
    umiak.run(&["save", "-q", "--format", "oci-dir", "-o", "kept.tar", "busybox"]).exits(125);
    assert_eq!(std::fs::read_to_string(umiak.dir.join("kept.tar")).unwrap(), "before");
    umiak.run(&["save", "-q", "-o", "/dev/full", "busybox"]).exits(125).tells("no space left");
    umiak.run(&["save", "-q", "-o", "kept.tar", "busybox"]).ok();
    umiak.run(&["load", "-q", "-i", "kept.tar"]).ok();
    // A truncated archive publishes nothing.
    let bytes = std::fs::read(umiak.dir.join("kept.tar")).unwrap();
    std::fs::write(umiak.dir.join("cut.tar"), &bytes[..bytes.len() / 2]).unwrap();
    umiak.run(&["rmi", "-af"]).ok();
    umiak.run(&["load", "-q", "-i", "cut.tar"]).exits(125);
    umiak.run(&["images", "-q"]).ok().says("");
}

#[test]
fn a_full_disk_gets_nothing_half_made() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("unshare"));
    let umiak = Umiak::with_busybox();
    let small = umiak.dir.join("small");
    std::fs::create_dir(&small).unwrap();
    // In a mount namespace of its own: half a megabyte of room.
    let script = format!(
        "mount -t tmpfs -o size=512k tmpfs {small} && echo before > {small}/kept.tar && \
         U=\"$UMIAK --root {dir}/store --runroot {dir}/run/umiak\" && \
         if $U save -q -o {small}/kept.tar busybox; then exit 3; fi; \
         if $U save -q -o {small}/new.tar busybox; then exit 4; fi; \
         if $U save -q --format oci-archive -o {small}/new.tar busybox; then exit 5; fi; \
         cat {small}/kept.tar; ls -A {small}; \
         if $U save -q --format oci-dir -o {small}/layout busybox; then exit 6; fi; \
         find {small}/layout -type f",
        small = small.display(),
        dir = umiak.dir.display(),
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("UMIAK", Umiak::binary())
        .output()
        .unwrap();
    let (said, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(errors.matches("no space left").count(), 4, "{errors}");
    assert_eq!(said, format!("before\nkept.tar\n{}/layout/oci-layout\n", small.display()));
}

/// A tree as `tar` tells it, for comparison: kinds, modes, owners, sizes, times and names.
fn listing(dir: &Path) -> String {
    let output = Command::new("sh")
        .args(["-c", "find . -mindepth 1 -printf '%y %m %U %G %s %T@ %p %l\\n' | sed 's/^d \\([^ ]* [^ ]* [^ ]*\\) [0-9]* /d \\1 - /' | sort"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success());
    // Names need not be text.
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn others_read_what_is_saved() {
    requires!(Need::Root, Need::Image("nasty"), Need::Tool("skopeo"), Need::Tool("umoci"));
    let umiak = Umiak::with_image("nasty");
    let source = format!("oci:{}:localhost/nasty:latest", images("nasty"));
    let config = |image: &str| sha256(&program(&umiak, "skopeo", &["inspect", "--config", "--raw", image]));
    umiak.run(&["save", "-q", "-o", "docker.tar", "nasty"]).ok();
    umiak.run(&["save", "-q", "--format", "oci-archive", "-o", "oci.tar", "nasty"]).ok();
    umiak.run(&["save", "-q", "--format", "docker-dir", "-o", "dir", "nasty"]).ok();
    umiak.run(&["push", "-q", "--compression-level", "1", "--force-compression", "nasty", "oci:gzip:1"]).ok();
    umiak.run(&["push", "-q", "nasty", "oci:kept:1"]).ok();
    assert_eq!(raw(&umiak, "oci:kept:1"), raw(&umiak, &source));
    assert_eq!(raw(&umiak, "oci-archive:oci.tar"), raw(&umiak, &source));
    let expected = unpacked(&umiak, &source);
    for image in ["docker-archive:docker.tar", "oci-archive:oci.tar", "dir:dir", "oci:gzip:1"] {
        assert_eq!(config(image), config(&source), "{image}");
        assert_eq!(unpacked(&umiak, image), expected, "{image}");
    }
}

/// The tree that umoci makes of an image.
fn unpacked(umiak: &Umiak, image: &str) -> String {
    let number = std::fs::read_dir(&umiak.dir).unwrap().count();
    let layout = format!("umoci-{number}");
    program(umiak, "skopeo", &["--insecure-policy", "copy", "-q", image, &format!("oci:{layout}:x")]);
    let bundle = umiak.dir.join(format!("{layout}-tree"));
    program(umiak, "umoci", &["unpack", "--image", &format!("{layout}:x"), bundle.to_str().unwrap()]);
    let listing = listing(&bundle.join("rootfs"));
    std::fs::remove_dir_all(&bundle).unwrap();
    listing
}

#[test]
fn what_others_saved_is_loaded() {
    requires!(Need::Image("busybox"), Need::Image("configured"), Need::Tool("skopeo"));
    let umiak = Umiak::new();
    let source = |name: &str| format!("oci:{}:localhost/{name}:latest", images(name));
    let copy = |from: &str, to: &str| {
        program(&umiak, "skopeo", &["--insecure-policy", "copy", "-q", from, to]);
    };
    copy(&source("busybox"), "docker-archive:docker.tar:example.com/a/busybox:1");
    copy(&source("busybox"), "oci-archive:oci.tar:example.com/a/busybox:2");
    copy(&source("busybox"), "oci:layout:one");
    copy(&source("configured"), "oci:layout:two");
    umiak.run(&["load", "-q", "-i", "docker.tar"]).ok().says("Loaded image: example.com/a/busybox:1");
    umiak.run(&["load", "-q", "-i", "oci.tar"]).ok().says("Loaded image: example.com/a/busybox:2");
    umiak
        .run(&["load", "-q", "-i", "layout"])
        .ok()
        .says("Loaded image: localhost/one:latest\nLoaded image: localhost/two:latest");
    // One without a name.
    copy(&source("busybox"), "oci-archive:nameless.tar");
    umiak.run(&["load", "-q", "-i", "nameless.tar"]).ok().has("Loaded image: sha256:");
}

#[test]
fn killed_at_work() {
    requires!(Need::Image("debian"), Need::Image("busybox"), Need::Tool("docker-registry"));
    let umiak = Umiak::with_image("debian");
    umiak.pull("busybox");
    let registry = Registry::start(&umiak);
    let there = format!("{}/a/debian", registry.address);
    let store = umiak.dir.join("store");
    let left = || {
        let names = |dir: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
        };
        names(&store.join("staging")).len()
    };
    let archive = umiak.dir.join("killed");
    std::fs::create_dir(&archive).unwrap();
    for args in [
        &["push", "-q", "--tls-verify=false", "debian", &there][..],
        &["push", "-q", "--tls-verify=false", "--compression-format", "zstd", "debian", &there],
        &["save", "-q", "-o", "killed/debian.tar", "debian"],
        &["save", "-q", "--format", "oci-dir", "-o", "killed/layout", "debian"],
        &["load", "-q", "-i", images("debian.tar").leak()],
    ] {
        if args[0] == "load" {
            umiak.run(&["rmi", "-f", "debian"]).ok();
        }
        let mut child = umiak.spawn(args);
        // It has told the others what it uses: it is at work.
        eventually("it works", || left() > 0 || child.try_wait().unwrap().is_some());
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("its processes end", || crate::support::processes(&umiak.dir.join("store")).is_empty());
        assert!(!archive.join("debian.tar").exists());
        // A process that was killed loses its command line a moment before its locks.
        eventually("what it left is swept", || {
            umiak.run(&["save", "-q", "-o", "after.tar", "busybox"]).ok();
            left() == 0
        });
    }
    let hidden = std::fs::read_dir(&archive).unwrap().count();
    assert!(hidden <= 1, "half-made archives are left");
    // What was begun is gone on with: pulled, pushed, and saved beside what is there.
    umiak.run(&["load", "-q", "-i", &images("debian.tar")]).ok();
    umiak.run(&["push", "-q", "--tls-verify=false", "debian", &there]).ok();
    umiak.run(&["save", "-q", "--format", "oci-dir", "-o", "killed/layout", "debian"]).ok();
    umiak.run(&["save", "-q", "--format", "oci-dir", "-o", "killed/layout", "busybox"]).ok();
}
