//! Lists of images for several platforms.

use serde_json::Value;
use umiak::image::source::Source;

use crate::requires;
use crate::support::{Need, Registry, Umiak, images};

fn document(umiak: &Umiak, name: &str) -> Value {
    serde_json::from_str(&umiak.run(&["manifest", "inspect", name]).ok().stdout).unwrap()
}

#[test]
fn a_list_is_made_changed_and_used() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let id = umiak.run(&["manifest", "create", "all", "busybox"]).ok().stdout.trim().to_owned();
    assert_eq!(id.len(), 64);
    umiak.run(&["manifest", "create", "all"]).exits(125).tells("all").hints("--amend");
    umiak.run(&["manifest", "create", "--amend", "all"]).ok().says(&id);
    umiak.run(&["manifest", "exists", "all"]).ok();
    umiak.run(&["manifest", "exists", "busybox"]).exits(1);
    let words =
        ["manifest", "add", "--arch", "arm", "--variant", "v7", "--annotation", "a=b", "all", "configured"];
    umiak.run(&words).ok().says(&id);
    let listed = document(&umiak, "all");
    assert_eq!(listed["mediaType"], "application/vnd.oci.image.index.v1+json");
    let second = &listed["manifests"][1];
    assert_eq!(
        second["platform"],
        serde_json::json!({ "architecture": "arm", "os": "linux", "variant": "v7" })
    );
    assert_eq!(second["annotations"]["a"], "b");
    let digest = umiak.run(&["image", "inspect", "--format", "{{.Digest}}", "configured"]).ok().stdout;
    assert_eq!(second["digest"].as_str(), Some(digest.trim()));
    // It is listed as an image, and what runs is the image for this machine.
    umiak
        .run(&["images", "--format", "{{.Repository}} {{.ID}}", "all"])
        .ok()
        .says(&format!("localhost/all {}", &id[..12]));
    umiak.run(&["run", "--rm", "--network", "none", "all", "echo", "hello"]).ok().says("hello");
    let words = ["run", "--rm", "--pull", "never", "--arch", "s390x", "--network", "none", "all", "true"];
    umiak.run(&words).exits(125).tells("linux/s390x");
    // Saying more, of an image and of the list.
    umiak
        .run(&["manifest", "annotate", "--os-version", "1", "--annotation", "c=d", "all", digest.trim()])
        .ok();
    umiak.run(&["manifest", "annotate", "--index", "--annotation", "of=list", "all"]).ok();
    let listed = document(&umiak, &id);
    assert_eq!(listed["annotations"], serde_json::json!({ "of": "list" }));
    assert_eq!(listed["manifests"][1]["annotations"], serde_json::json!({ "a": "b", "c": "d" }));
    assert_eq!(listed["manifests"][1]["platform"]["os.version"], "1");
    umiak.run(&["manifest", "remove", "all", digest.trim()]).ok().says(&id);
    umiak.run(&["manifest", "remove", "all", digest.trim()]).exits(125).tells(digest.trim());
    umiak.run(&["manifest", "annotate", "--annotation", "x", "all", "busybox"]).exits(125).tells("KEY=VALUE");
    umiak.run(&["manifest", "annotate", "--index", "--arch", "arm", "all"]).exits(125).tells("--index");
    umiak.run(&["manifest", "add", "busybox", "busybox"]).exits(125).tells("not a manifest list");
    umiak.run(&["manifest", "inspect", "busybox"]).exits(125).tells("not a manifest list");
    umiak
        .run(&["manifest", "add", "nothing", "busybox"])
        .exits(125)
        .tells("nothing")
        .hints("manifest create");
    umiak.run(&["save", "-o", "x.tar", "all"]).exits(125).tells("is a manifest list").hints("manifest push");
    umiak.run(&["push", "all", "oci:x"]).exits(125).tells("is a manifest list");
    umiak.run(&["manifest", "rm", "busybox"]).exits(1).tells("not a manifest list");
    umiak.run(&["manifest", "rm", "all"]).ok().has("localhost/all:latest").has(&id);
    umiak.run(&["manifest", "rm", "all"]).exits(1).tells("all");
    umiak.run(&["manifest", "rm", "-i", "all"]).ok();
    umiak.run(&["run", "--rm", "--network", "none", "busybox", "true"]).ok();
    // One that cannot be filled is not made.
    umiak.run(&["manifest", "create", "new", "oci:/nowhere"]).exits(125).tells("/nowhere");
    umiak.run(&["manifest", "exists", "new"]).exits(1);
}

#[test]
fn a_list_has_artifacts_too() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"));
    let umiak = Umiak::with_busybox();
    let registry = Registry::start(&umiak);
    let notes = umiak.file("notes.txt", "remember\n").display().to_string();
    let data = umiak.file("data.bin", "\u{1}\u{2}").display().to_string();
    let config = umiak.file("config.json", "{\"a\":1}").display().to_string();
    umiak.run(&["manifest", "create", "all"]).ok();
    let add = ["manifest", "add", "--artifact", "--artifact-type", "application/vnd.example"];
    let more =
        ["--artifact-config", &config, "--artifact-config-type", "application/json", "--annotation", "a=b"];
    umiak.run(&[&add[..], &more, &["--artifact-subject", "busybox", "all", &notes, &data]].concat()).ok();
    umiak
        .run(&[
            "manifest",
            "add",
            "--artifact",
            "--artifact-exclude-titles",
            "--artifact-layer-type",
            "x/y",
            "all",
            &notes,
        ])
        .ok();
    umiak.run(&["manifest", "add", "all", "busybox"]).ok();
    umiak.run(&["manifest", "annotate", "--index", "--subject", "busybox", "all"]).ok();
    // What belongs to the list alone is kept for it.
    umiak.run(&["image", "prune", "-f"]).ok();
    let listed = document(&umiak, "all");
    let digest = umiak.run(&["image", "inspect", "--format", "{{.Digest}}", "busybox"]).ok().stdout;
    assert_eq!(listed["subject"]["digest"].as_str(), Some(digest.trim()));
    let first = &listed["manifests"][0];
    assert_eq!(first["artifactType"], "application/vnd.example");
    assert_eq!(first["annotations"], serde_json::json!({ "a": "b" }));
    assert!(first.get("platform").is_none(), "{first}");
    // It runs as what it has for this machine, and goes where others read it.
    umiak.run(&["run", "--rm", "--network", "none", "all", "echo", "hello"]).ok().says("hello");
    let name = format!("{}/test/all:1", registry.address);
    umiak.run(&["manifest", "push", "-q", "--tls-verify=false", "all", &format!("docker://{name}")]).ok();
    let options = umiak::image::registry::Options { tls_verify: Some(false), ..Default::default() };
    let manifest = |at: usize| {
        let digest = listed["manifests"][at]["digest"].as_str().unwrap();
        let reference = format!("{}/test/all@{digest}", registry.address).parse().unwrap();
        let there = umiak::image::registry::Registry::new(&reference, &options).unwrap();
        serde_json::from_slice::<Value>(&there.root().unwrap().bytes).unwrap()
    };
    let (one, two) = (manifest(0), manifest(1));
    assert_eq!(one["subject"]["digest"].as_str(), Some(digest.trim()));
    assert_eq!(one["config"]["mediaType"], "application/json");
    assert_eq!(one["config"]["digest"], umiak::base::digest::Digest::of(b"{\"a\":1}").to_string());
    let titles: Vec<_> = one["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| &layer["annotations"]["org.opencontainers.image.title"])
        .collect();
    assert_eq!(titles, ["notes.txt", "data.bin"]);
    assert_eq!(two["artifactType"], "application/vnd.unknown.artifact.v1");
    assert_eq!(two["layers"][0]["mediaType"], "x/y");
    assert!(two["layers"][0].get("annotations").is_none());
    let other = Umiak::new();
    other.run(&["pull", "-q", "--tls-verify=false", &name]).ok();
    other.run(&["run", "--rm", "--network", "none", &name, "echo", "there"]).ok().says("there");
    umiak.run(&["manifest", "push", "-q", "all", "oci:layout"]).ok();
    let blobs = std::fs::read_dir(umiak.dir.join("layout/blobs/sha256")).unwrap().count();
    // Two files, two configurations, two manifests, the list; and of the image configuration, manifest and layer.
    assert_eq!(blobs, 10);
    umiak.run(&["manifest", "add", "--artifact-type", "x/y", "all", &notes]).exits(125).tells("--artifact");
    umiak.run(&["manifest", "add", "--artifact", "all", "/no/such"]).exits(125).tells("/no/such");
    umiak
        .run(&[
            "manifest",
            "add",
            "--artifact",
            "--artifact-subject",
            "absent:1",
            "--tls-verify=false",
            "all",
            &notes,
        ])
        .exits(125)
        .tells("absent:1");
    umiak.run(&["system", "check", "-q"]).ok();
    let notes_blob =
        umiak.dir.join("store/blobs/sha256").join(umiak::base::digest::Digest::of(b"remember\n").hex());
    let content = std::fs::read(&notes_blob).unwrap();
    std::fs::remove_file(&notes_blob).unwrap();
    let told = umiak.run(&["system", "check"]);
    assert!(
        told.code == Some(1)
            || told.code == Some(125) && [told.stdout, told.stderr].concat().contains("is missing")
    );
    std::fs::write(&notes_blob, content).unwrap();
    // With the list go its files.
    umiak.run(&["manifest", "rm", "all"]).ok();
    umiak.run(&["image", "prune", "-f"]).ok();
    assert!(!notes_blob.exists());
}

#[test]
fn many_add_to_a_list_at_once() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["manifest", "create", "all"]).ok();
    let names: Vec<String> = (0..8).map(|n| format!("v{n}")).collect();
    umiak.run(&["create", "--name", "box", "--network", "none", "busybox", "true"]).ok();
    for name in &names {
        umiak.run(&["commit", "--change", &format!("LABEL n={name}"), "box", name]).ok();
    }
    let adding: Vec<_> =
        names.iter().map(|name| umiak.spawn(&["manifest", "add", "--variant", name, "all", name])).collect();
    for mut child in adding {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(document(&umiak, "all")["manifests"].as_array().unwrap().len(), names.len());
}

#[test]
fn images_at_a_registry_are_listed_without_being_pulled() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let name = registry.push("busybox");
    umiak.run(&["manifest", "create", "all"]).ok();
    let remote = format!("docker://{name}");
    umiak.run(&["manifest", "add", "--tls-verify=false", "all", &remote]).ok();
    assert_eq!(umiak.run(&["images", "-q"]).ok().stdout.lines().count(), 1, "only the list is here");
    let listed = document(&umiak, "all");
    assert_eq!(listed["manifests"][0]["platform"]["os"], "linux");
    // What is at the registry can be looked at, too.
    let found = umiak.run(&["manifest", "inspect", "--tls-verify=false", &remote]).ok().stdout;
    assert!(serde_json::from_str::<Value>(&found).unwrap()["layers"].is_array());
    umiak
        .run(&["run", "--rm", "--tls-verify=false", "--network", "none", "all", "echo", "pulled"])
        .ok()
        .says("pulled");
    umiak
        .run(&["manifest", "add", "--tls-verify=false", "all", &format!("{remote}-none")])
        .exits(125)
        .tells("has no");
}

#[test]
fn a_list_goes_to_a_registry_with_its_images() {
    requires!(
        Need::Image("busybox"),
        Need::Image("configured"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo")
    );
    let umiak = Umiak::with_busybox();
    let registry = Registry::start(&umiak);
    // One image is here, one was made here, one is at the registry, one in a directory.
    umiak.run(&["create", "--name", "box", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["commit", "--change", "CMD [\"echo\",\"made here\"]", "box", "made"]).ok();
    let there = registry.push_as(
        "there",
        &format!("oci:{}:localhost/configured:latest", images().join("configured").display()),
    );
    umiak.run(&["manifest", "create", "all"]).ok();
    umiak.run(&["manifest", "add", "all", "made"]).ok();
    umiak.run(&["manifest", "add", "--arch", "arm64", "all", "busybox"]).ok();
    let remote = format!("docker://{there}");
    umiak
        .run(&["manifest", "add", "--tls-verify=false", "--arch", "amd64", "--os", "linux", "all", &remote])
        .ok();
    let last = document(&umiak, "all")["manifests"][2]["digest"].as_str().unwrap().to_owned();
    umiak.run(&["manifest", "annotate", "--arch", "riscv64", "all", &last]).ok();
    let layout = format!("oci:{}", images().join("ids").display());
    umiak.run(&["manifest", "add", "all", &layout]).ok();
    let listed = document(&umiak, "all");
    umiak
        .run(&[
            "manifest",
            "annotate",
            "--arch",
            "s390x",
            "all",
            listed["manifests"][3]["digest"].as_str().unwrap(),
        ])
        .ok();
    let name = format!("{}/lists/all:v1", registry.address);
    let digestfile = umiak.file("digest", "");
    let words =
        ["manifest", "push", "-q", "--tls-verify=false", "--digestfile", digestfile.to_str().unwrap(), "all"];
    umiak.run(&[&words[..], &[&format!("docker://{name}")]].concat()).ok().says("");
    let text =
        umiak.run(&["manifest", "inspect", "--tls-verify=false", &format!("docker://{name}")]).ok().stdout;
    let pushed: Value = serde_json::from_str(&text).unwrap();
    let architectures: Vec<_> =
        pushed["manifests"].as_array().unwrap().iter().map(|m| &m["platform"]["architecture"]).collect();
    assert_eq!(architectures, ["amd64", "arm64", "riscv64", "s390x"]);
    // What was pulled or lies elsewhere keeps its digest.
    let before = document(&umiak, "all");
    for place in 1..4 {
        assert_eq!(pushed["manifests"][place]["digest"], before["manifests"][place]["digest"], "{place}");
    }
    // Another program takes each of them, and so does another store of ours.
    for architecture in ["amd64", "arm64", "riscv64", "s390x"] {
        let output = std::process::Command::new(crate::support::tool("skopeo").unwrap())
            .args([
                "--insecure-policy",
                "--override-arch",
                architecture,
                "copy",
                "--quiet",
                "--src-tls-verify=false",
            ])
            .arg(format!("docker://{name}"))
            .arg(format!("dir:{}", umiak.dir.join(architecture).display()))
            .env("TMPDIR", &umiak.dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{architecture}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let other = Umiak::new();
    let words = ["run", "--rm", "--tls-verify=false", "--network", "none"];
    if cfg!(target_arch = "x86_64") {
        other.run(&[&words[..], &[&name]].concat()).ok().says("made here");
    }
    // Into directories and an archive, too.
    let at = |kind: &str| format!("{kind}:{}", umiak.dir.join(kind).display());
    for destination in [format!("{}:v1", at("oci")), format!("{}:v1", at("oci-archive")), at("dir")] {
        umiak.run(&["manifest", "push", "-q", "--tls-verify=false", "all", &destination]).ok();
        for architecture in ["arm64", "riscv64"] {
            let copy = umiak.dir.join("copied");
            let output = std::process::Command::new(crate::support::tool("skopeo").unwrap())
                .args(["--insecure-policy", "--override-arch", architecture, "copy", "--quiet", &destination])
                .arg(format!("dir:{}", copy.display()))
                .env("TMPDIR", &umiak.dir)
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{destination} {architecture}: {said}");
        }
        let made = umiak.run(&["image", "inspect", "--format", "{{.Id}}", "made"]).ok().stdout;
        let pulled = other.run(&["pull", "-q", "--platform", "linux/amd64", &destination]).ok().stdout;
        assert!(made.contains(pulled.trim()), "{destination}: {made} {pulled}");
    }
    let docker = format!("docker-archive:{}", umiak.dir.join("docker.tar").display());
    umiak.run(&["manifest", "push", "--tls-verify=false", "all", &docker]).exits(125).tells("manifest lists");
    assert!(!umiak.dir.join("docker.tar").exists());
    // Only the list, whose images are there; the list here goes.
    let name = format!("{}/lists/all:v2", registry.address);
    let words = ["manifest", "push", "--rm", "--all=false", "--tls-verify=false", "all", &name];
    umiak.run(&["manifest", "remove", "all", "made"]).ok();
    let digest = umiak.run(&words).ok().stdout;
    assert!(digest.starts_with("sha256:"), "{digest}");
    umiak.run(&["manifest", "exists", "all"]).exits(1);
    umiak.run(&["manifest", "create", "empty"]).ok();
    umiak.run(&["manifest", "push", "busybox", &name]).exits(125).tells("not a manifest list");
}
