//! Names and making of images: `tag`, `untag`, `history`, `image tree`.

use serde_json::Value;

use crate::requires;
use crate::support::{Need, Umiak};

fn names(umiak: &Umiak) -> Vec<String> {
    let listed = umiak.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().stdout;
    let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn names_are_given_and_taken() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let id = umiak.run(&["images", "-q", "--no-trunc", "busybox"]).ok().stdout.trim().to_owned();
    umiak.run(&["tag", "busybox", "one", "quay.io/two/three:4", "docker.io/five"]).ok().says("");
    umiak.run(&["image", "tag", &id[..20], "localhost:5000/six"]).ok();
    let all = [
        "docker.io/library/five:latest",
        "localhost/busybox:latest",
        "localhost/configured:latest",
        "localhost/one:latest",
        "localhost:5000/six:latest",
        "quay.io/two/three:4",
    ];
    assert_eq!(names(&umiak), all);
    // A name moves.
    umiak.run(&["tag", "configured", "one"]).ok();
    assert_eq!(names(&umiak), all);
    assert_ne!(umiak.run(&["images", "-q", "--no-trunc", "one"]).ok().stdout.trim(), id);
    umiak
        .run(&["images", "--history", "one"])
        .ok()
        .has("HISTORY")
        .has("localhost/configured:latest, localhost/one:latest");
    umiak.run(&["tag", "busybox", "one"]).ok();

    // What is wrong changes nothing.
    umiak.run(&["tag", "busybox", "good", "Bad"]).exits(125).tells("lower case");
    umiak.run(&["tag", "nothing", "good"]).exits(125).tells("no image \"nothing\"");
    umiak.run(&["tag", "busybox", &format!("good@{id}")]).exits(125).tells("digest");
    umiak.run(&["untag", "busybox", "one", "good"]).exits(125).tells("not called \"localhost/good:latest\"");
    umiak.run(&["untag", "nothing"]).exits(125).tells("no image");
    assert_eq!(names(&umiak), all);

    umiak.run(&["untag", "one", "one", "quay.io/two/three:4"]).ok().says("");
    umiak.run(&["image", "untag", "busybox"]).ok();
    assert_eq!(names(&umiak), ["<none>:<none>", "localhost/configured:latest"]);
    umiak.run(&["run", "--rm", "--network", "none", &id[7..20], "true"]).ok();
}

#[test]
fn how_an_image_was_made() {
    requires!(Need::Image("busybox"), Need::Image("nasty"));
    let umiak = Umiak::with_busybox();
    umiak.pull("nasty");
    let nasty = umiak.run(&["images", "-q", "nasty"]).ok().stdout.trim().to_owned();
    let table = umiak.run(&["history", "nasty"]).ok().stdout;
    let mut lines = table.lines();
    let titles: Vec<&str> =
        lines.next().unwrap().split("  ").map(str::trim).filter(|t| !t.is_empty()).collect();
    assert_eq!(titles, ["ID", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    assert!(lines.next().unwrap().starts_with(&nasty), "{table}");
    assert!(lines.all(|line| line.starts_with("<missing>  ")), "{table}");
    let layers: usize = umiak
        .run(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", "nasty"])
        .ok()
        .stdout
        .trim()
        .parse()
        .unwrap();
    let json: Value =
        serde_json::from_str(&umiak.run(&["image", "history", "--format", "json", "nasty"]).ok().stdout)
            .unwrap();
    let steps = json.as_array().unwrap();
    assert!(steps.len() >= layers);
    assert_eq!(steps[0]["tags"][0], "localhost/nasty:latest");
    assert_eq!(steps[1]["id"], "<missing>");
    let sum: u64 = steps.iter().map(|step| step["size"].as_u64().unwrap()).sum();
    let size: u64 = umiak
        .run(&["image", "inspect", "--format", "{{.Size}}", "nasty"])
        .ok()
        .stdout
        .trim()
        .parse()
        .unwrap();
    assert_eq!(sum, size);
    let whole = umiak.run(&["history", "-q", "--no-trunc", "busybox"]).ok().stdout;
    assert_eq!(whole.trim().len(), 64, "{whole}");
    umiak
        .run(&["history", "--human=false", "--format", "{{.Created}}", "busybox"])
        .ok()
        .has("2023-11-14T22:13:20Z");
    umiak.run(&["history", "nothing"]).exits(125).tells("no image \"nothing\"");

    let tree = umiak.run(&["image", "tree", "nasty"]).ok().stdout;
    assert!(
        tree.starts_with(&format!("Image ID: {nasty}\nTags:     [localhost/nasty:latest]\nSize:     ")),
        "{tree}"
    );
    assert_eq!(tree.matches(" Size: ").count(), layers, "{tree}");
    let top = tree.trim_end().lines().last().unwrap();
    assert!(top.starts_with("└── ID: ") && top.ends_with("Top Layer of: [localhost/nasty:latest]"), "{tree}");
    assert_eq!(tree.matches("Top Layer of:").count(), 1, "{tree}");
    umiak.run(&["image", "tree", "--whatrequires", "busybox"]).ok().has("└── ID: ");
    umiak.run(&["image", "tree", "nothing"]).exits(125).tells("no image \"nothing\"");
}
