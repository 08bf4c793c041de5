//! `build`: images out of Dockerfiles, as people who know Docker's and Podman's builds expect them.

mod cache;
mod failures;
mod files;
mod flags;
mod instructions;
mod mounts;
mod outputs;
mod peers;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::support::{Output, Umiak};

/// A new context with these files.
fn context(umiak: &Umiak, files: &[(&str, &str)]) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let dir = umiak.dir.join(format!("context-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    std::fs::create_dir(&dir).unwrap();
    for (name, content) in files {
        write(&dir, name, content);
    }
    dir
}

/// Writes a file of a context.
fn write(dir: &Path, name: &str, content: &str) {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Builds in a context, without a network.
#[must_use = "a command's result must be asserted"]
fn build(umiak: &Umiak, dir: &Path, options: &[&str]) -> Output {
    umiak.run(&[&["build", "--network", "none"], options, &[dir.to_str().unwrap()]].concat())
}

/// Builds `localhost/made:latest` of a Dockerfile alone; returns its ID.
fn made(umiak: &Umiak, dockerfile: &str) -> String {
    let dir = context(umiak, &[("Dockerfile", dockerfile)]);
    let id = build(umiak, &dir, &["-q", "-t", "made"]).ok().stdout;
    assert!(id.len() == 65 && id.trim().bytes().all(|b| b.is_ascii_hexdigit()), "no image ID: {id:?}");
    id.trim().to_owned()
}

/// What a script says in a container of an image.
fn sh(umiak: &Umiak, image: &str, script: &str) -> String {
    let run = ["run", "--rm", "--network", "none", "--user", "0", "--entrypoint", "sh", image, "-c", script];
    umiak.run(&run).ok().stdout.trim_end().to_owned()
}

/// The member `Config` of an image.
fn config(umiak: &Umiak, image: &str) -> Value {
    umiak.inspect_json(image)["Config"].clone()
}

/// How many layers an image has.
fn layers(umiak: &Umiak, image: &str) -> usize {
    umiak.inspect_json(image)["RootFS"]["Layers"].as_array().unwrap().len()
}

/// No container, and no part of a build, is left; the store is sound.
fn nothing_is_left(umiak: &Umiak) {
    umiak.run(&["ps", "-a", "-q", "--external"]).ok().says("");
    umiak.run(&["system", "check"]).ok().says("");
}
