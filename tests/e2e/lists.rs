//! Lists of images for several platforms.

use serde_json::Value;

use crate::requires;
use crate::support::{Need, Registry, Umiak};

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
