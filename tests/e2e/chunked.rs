//! zstd:chunked to and from Debian's registry.

use std::process::Command;

use crate::requires;
use crate::support::{Need, Registry, Umiak, tool};

#[test]
fn a_chunked_image_goes_out_and_comes_in() {
    requires!(
        Need::Image("busybox"),
        Need::Image("configured"),
        Need::Tool("docker-registry"),
        Need::Tool("skopeo")
    );
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let registry = Registry::start(&umiak);
    let name = |image: &str| format!("docker://{}/test/{image}:1", registry.address);
    let skopeo = |args: &[&str]| {
        let output = Command::new(tool("skopeo").unwrap())
            .args(["--insecure-policy"])
            .args(args)
            .env("TMPDIR", &umiak.dir)
            .env("XDG_RUNTIME_DIR", &umiak.dir)
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let mut configurations = Vec::new();
    for image in ["busybox", "configured"] {
        let push = ["push", "--tls-verify=false", "--compression-format=zstd:chunked", image, &name(image)];
        umiak.run(&push).ok();
        let raw = skopeo(&["inspect", "--raw", "--tls-verify=false", &name(image)]);
        let manifest: serde_json::Value = serde_json::from_str(&raw).unwrap();
        let layer = &manifest["layers"][0];
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
        for mark in ["manifest-checksum", "manifest-position", "tarsplit-position"] {
            assert!(
                layer["annotations"][format!("io.github.containers.zstd-chunked.{mark}")].is_string(),
                "{raw}"
            );
        }
        configurations.push(manifest["config"]["digest"].as_str().unwrap().to_owned());
        // Those who know nothing of it.
        let dir = format!("dir:{}", umiak.dir.join(image).display());
        skopeo(&["copy", "-q", "--src-tls-verify=false", "--dest-decompress", &name(image), &dir]);
        umiak.run(&["pull", "-q", &dir]).ok();
    }
    // The same bytes at every time.
    let digest = |image: &str| {
        let file = umiak.dir.join("digest");
        umiak
            .run(&[
                "push",
                "--tls-verify=false",
                "--compression-format=zstd:chunked",
                "--digestfile",
                file.to_str().unwrap(),
                image,
                &name(image),
            ])
            .ok();
        std::fs::read_to_string(file).unwrap()
    };
    assert_eq!(digest("busybox"), digest("busybox"));
    // Elsewhere: the second has nearly all of its files from the first.
    let other = Umiak::new();
    for (image, configuration) in ["busybox", "configured"].iter().zip(configurations) {
        let id = other.run(&["pull", "-q", "--tls-verify=false", &name(image)]).ok().stdout;
        assert_eq!(format!("sha256:{}", id.trim()), configuration);
    }
    other
        .run(&[
            "run",
            "--rm",
            "--network",
            "none",
            &name("busybox").replace("docker://", ""),
            "echo",
            "whole",
        ])
        .ok()
        .says("whole");
    let layers = other.dir.join("store/layers");
    let lists =
        std::fs::read_dir(layers).unwrap().flatten().filter(|layer| layer.path().join("contents").exists());
    assert_eq!(lists.count(), 2);
}
