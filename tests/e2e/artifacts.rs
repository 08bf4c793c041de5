//! Artifacts: any files under a name, here and at a registry.

use std::process::Command;

use serde_json::Value;

use crate::requires;
use crate::support::{Need, Registry, Umiak, tool};

fn inspected(umiak: &Umiak, name: &str) -> Value {
    serde_json::from_str(&umiak.run(&["artifact", "inspect", name]).ok().stdout).unwrap()
}

#[test]
fn files_become_an_artifact_and_files_again() {
    let umiak = Umiak::new();
    let text = umiak.file("model.txt", "weights");
    let other = umiak.file("other.bin", "\u{1}\u{2}");
    let (text, other) = (text.to_str().unwrap(), other.to_str().unwrap());
    let digest = umiak.run(&["artifact", "add", "--type", "application/x-model", "model:v1", text]).ok();
    let digest = digest.stdout.trim().to_owned();
    assert_eq!(digest.len(), 64);
    umiak.run(&["artifact", "add", "model:v1", other]).exits(125).tells("model:v1").hints("--append");
    umiak.run(&["artifact", "add", "--append", "--annotation", "a=b", "model:v1", other]).ok();
    umiak.run(&["artifact", "add", "--append", "model:v1", other]).exits(125).tells("other.bin");
    umiak.run(&["artifact", "add", "--append", "absent", other]).exits(125).tells("absent");
    let told = inspected(&umiak, "localhost/model:v1");
    assert_eq!(told["Manifest"]["artifactType"], "application/x-model");
    let layers = &told["Manifest"]["layers"];
    assert_eq!(layers[0]["mediaType"], "text/plain; charset=utf-8");
    assert_eq!(layers[0]["annotations"]["org.opencontainers.image.title"], "model.txt");
    assert_eq!(
        (&layers[1]["mediaType"], &layers[1]["annotations"]["a"]),
        (&"application/octet-stream".into(), &"b".into())
    );
    umiak
        .run(&["artifact", "ls", "--noheading", "--format", "{{.Repository}} {{.Tag}} {{.VirtualSize}}"])
        .ok()
        .says("localhost/model v1 9");
    umiak.run(&["artifact", "ls"]).ok().has("REPOSITORY").has("localhost/model");
    // Pruning images leaves an artifact's files alone.
    umiak.run(&["image", "prune", "-af"]).ok();
    let into = umiak.dir.join("into");
    std::fs::create_dir(&into).unwrap();
    umiak.run(&["artifact", "extract", "model:v1", into.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read_to_string(into.join("model.txt")).unwrap(), "weights");
    assert_eq!(std::fs::read(into.join("other.bin")).unwrap(), [1, 2]);
    let single = umiak.dir.join("single");
    umiak.run(&["artifact", "extract", "model:v1", single.to_str().unwrap()]).exits(125).tells("2 files");
    let whole = inspected(&umiak, "model:v1")["Digest"].as_str().unwrap()[7..19].to_owned();
    umiak.run(&["artifact", "extract", "--title", "other.bin", &whole, single.to_str().unwrap()]).ok();
    assert_eq!(std::fs::read(&single).unwrap(), [1, 2]);
    umiak
        .run(&["artifact", "extract", "--title", "none", "model:v1", single.to_str().unwrap()])
        .exits(125)
        .tells("none");
    // Made anew, and gone.
    umiak.run(&["artifact", "add", "--replace", "model:v1", other]).ok();
    assert_eq!(inspected(&umiak, "model:v1")["Manifest"]["layers"].as_array().unwrap().len(), 1);
    umiak.run(&["artifact", "rm", "model:v1"]).ok();
    umiak.run(&["artifact", "rm", "model:v1"]).exits(125).tells("model:v1");
    umiak.run(&["artifact", "rm", "-i", "model:v1"]).ok();
    umiak.run(&["artifact", "inspect", "model:v1"]).exits(125).tells("model:v1");
    let blobs = umiak.dir.join("data/umiak/blobs/sha256");
    if blobs.exists() {
        assert_eq!(std::fs::read_dir(blobs).unwrap().count(), 0, "an artifact's files go with it");
    }
    for bad in ["/nowhere", "/dev/null", into.to_str().unwrap()] {
        umiak.run(&["artifact", "add", "bad", bad]).exits(125).tells(bad);
    }
    umiak.run(&["artifact", "add", "Bad Name", text]).exits(125).tells("Bad Name");
    umiak.run(&["artifact", "ls", "--noheading"]).ok().says("");
}

#[test]
fn artifacts_go_to_registries_and_come_back() {
    requires!(Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let file = umiak.file("data", &"x".repeat(300_000));
    let name = format!("{}/files/data:v1", registry.address);
    umiak.run(&["artifact", "add", &name, file.to_str().unwrap()]).ok();
    let digestfile = umiak.file("digest", "");
    let words =
        ["artifact", "push", "-q", "--tls-verify=false", "--digestfile", digestfile.to_str().unwrap(), &name];
    umiak.run(&words).ok();
    let digest = std::fs::read_to_string(&digestfile).unwrap();
    assert_eq!(inspected(&umiak, &name)["Digest"], digest);
    // Under another name, whose files are there already.
    let second = format!("docker://{}/files/data:v2", registry.address);
    umiak.run(&["artifact", "push", "-q", "--tls-verify=false", &name, &second]).ok();
    let output = Command::new(tool("skopeo").unwrap())
        .args(["--insecure-policy", "inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")])
        .env("TMPDIR", &umiak.dir)
        .output()
        .unwrap();
    assert_eq!(umiak::base::digest::Digest::of(&output.stdout).to_string(), digest);
    // Somewhere else.
    let other = Umiak::new();
    let pulled = other.run(&["artifact", "pull", "-q", "--tls-verify=false", &name]).ok().stdout;
    assert_eq!(format!("sha256:{}", pulled.trim()), digest);
    let target = other.dir.join("out");
    other.run(&["artifact", "extract", &name, target.to_str().unwrap()]).ok();
    assert_eq!(std::fs::metadata(&target).unwrap().len(), 300_000);
    // A policy that refuses the registry refuses its artifacts.
    let strict = Umiak::new();
    let own = strict.dir.join("home/.config/containers/policy.json");
    std::fs::create_dir_all(own.parent().unwrap()).unwrap();
    std::fs::write(&own, r#"{"default":[{"type":"reject"}]}"#).unwrap();
    strict.run(&["artifact", "pull", "-q", "--tls-verify=false", &name]).exits(125).tells("forbids");
    // An artifact is no image, and says so.
    other.run(&["pull", "-q", "--tls-verify=false", &name]).exits(125).tells("artifact");
    let absent = format!("{}/files/absent", registry.address);
    other.run(&["artifact", "pull", "-q", "--tls-verify=false", &absent]).exits(125).tells("absent");
    other.run(&["artifact", "push", "-q", "--tls-verify=false", "absent"]).exits(125).tells("absent");
    // A blob that was changed at the registry leaves nothing.
    let hex = umiak::base::digest::Digest::of(&std::fs::read(&file).unwrap()).hex();
    let blob = registry.blobs().join(&hex[..2]).join(&hex).join("data");
    std::fs::write(&blob, "y".repeat(300_000)).unwrap();
    let third = Umiak::new();
    third.run(&["artifact", "pull", "-q", "--tls-verify=false", &name]).exits(125).tells("digest");
    third.run(&["artifact", "ls", "--noheading"]).ok().says("");
}
