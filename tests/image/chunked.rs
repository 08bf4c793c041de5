//! zstd:chunked: of a layer only those files are fetched that no layer here has, and whatever lies
//! about them, the tree is that of the archive.
#![allow(clippy::disallowed_methods, reason = "the tests run Debian's tools")]

use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use umiak::base::digest::Digest;
use umiak::image::chunked;

use crate::peers::have;
use crate::registry::{Answer, Request, honest, serve, try_pull};
use crate::skip::skip;
use crate::support::{Archive, Image, Scratch};

/// Noise that does not compress.
fn noise(seed: u32, size: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// An image of one chunked layer.
fn image(layer: &[u8]) -> Image {
    let mut blob = Vec::new();
    let written = chunked::compress(&mut Cursor::new(layer), &mut blob).unwrap();
    let mut image = Image::with_blobs(&[layer.to_vec()], vec![blob]);
    let entry = &mut image.manifest["layers"][0];
    entry["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+zstd");
    entry["annotations"] = json!(written.marks.annotations());
    image
}

fn layer(version: u32) -> Vec<u8> {
    let mut archive = Archive::new().dir("usr/").file("usr/empty", b"");
    for number in 0..40 {
        archive = archive.file(&format!("usr/file-{number}"), &noise(number, 50_000));
    }
    archive = archive.file("usr/version", format!("this is version {version}").as_bytes());
    archive = archive.file("usr/new", &noise(1000 + version, 60_000));
    archive.entry("usr/link", b'1', "usr/file-3", b"").entry("usr/symbolic", b'2', "new", b"").bytes()
}

/// Answers as a registry with ranges does; counts what it sends of blobs.
fn ranged(image: &Image, request: &Request, sent: &AtomicU64) -> Answer {
    let mut answer = honest(image, request);
    if request.path.contains("/blobs/") {
        let asked = request.headers.get("range").and_then(|range| {
            let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
            Some((from.parse::<usize>().ok()?, to.parse::<usize>().unwrap_or(answer.body.len() - 1)))
        });
        if let Some((from, to)) = asked {
            let total = answer.body.len();
            answer.body = answer.body[from..=to].to_vec();
            answer.status = "206 Partial Content";
            answer = answer.header("Content-Range", format!("bytes {from}-{to}/{total}"));
        }
        sent.fetch_add(answer.body.len() as u64, Ordering::Relaxed);
    }
    answer
}

fn same_trees(a: &Path, b: &Path) {
    let listed = |dir: &Path| {
        let output = std::process::Command::new("find")
            .args([".", "-printf", "%P %y %m %s %l %T@\n"])
            .current_dir(dir)
            .output()
            .unwrap();
        let mut lines: Vec<String> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        // The root's own time is not the archive's.
        lines.retain(|line| !line.starts_with(' '));
        lines.sort();
        lines
    };
    assert_eq!(listed(a), listed(b));
    let status = std::process::Command::new("diff").arg("-r").args([a, b]).status().unwrap();
    assert!(status.success());
}

#[test]
fn only_what_is_missing_is_fetched() {
    let (first, second) = (image(&layer(1)), image(&layer(2)));
    let whole = second.blobs[0].len() as u64;
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let host = serve(move |request| ranged(&first, request, &count));
    let scratch = Scratch::new();
    let store = scratch.store();
    try_pull(&store, &host).unwrap();
    sent.store(0, Ordering::Relaxed);
    let count = sent.clone();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let log = shown.clone();
    let host = serve(move |request| {
        log.lock().unwrap().push(request.headers.get("range").cloned());
        ranged(&second, request, &count)
    });
    let record = try_pull(&store, &host).unwrap();
    let fetched = sent.load(Ordering::Relaxed);
    assert!(fetched < whole / 10, "{fetched} of {whole} bytes: {:?}", shown.lock().unwrap());
    // The same image, pulled whole elsewhere.
    let other = Scratch::new();
    let second = image(&layer(2));
    let host = serve(move |request| honest(&second, request));
    let plain = try_pull(&other.store(), &host).unwrap();
    assert_eq!(plain.id, record.id);
    let tree = |scratch: &Scratch| scratch.store().layer_dir(&record.layers[0].chain_id);
    same_trees(&tree(&scratch), &tree(&other));
    // And a third from the second: what was rebuilt serves too.
    let third = image(&layer(3));
    sent.store(0, Ordering::Relaxed);
    let count = sent.clone();
    let host = serve(move |request| ranged(&third, request, &count));
    try_pull(&store, &host).unwrap();
    assert!(sent.load(Ordering::Relaxed) < whole / 10);
}

#[test]
fn whatever_lies_the_tree_is_right() {
    for lie in [
        "no ranges",
        "another file here",
        "no file here",
        "another range",
        "a cut range",
        "a short range",
        "ranges end",
    ] {
        let (first, second) = (image(&layer(1)), image(&layer(2)));
        let count = Arc::new(AtomicU64::new(0));
        let scratch = Scratch::new();
        let store = scratch.store();
        let quiet = count.clone();
        let host = serve(move |request| ranged(&first, request, &quiet));
        let record = try_pull(&store, &host).unwrap();
        let tree = store.layer_dir(&record.layers[0].chain_id);
        match lie {
            "another file here" => std::fs::write(tree.join("usr/file-7"), noise(99, 50_000)).unwrap(),
            "no file here" => {
                std::fs::remove_file(tree.join("usr/file-8")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", tree.join("usr/file-8")).unwrap();
            }
            _ => {}
        }
        let asked = AtomicU64::new(0);
        let host = serve(move |request| {
            if lie == "no ranges" {
                return honest(&second, request);
            }
            let mut answer = ranged(&second, request, &count);
            // The table and the archive of headers come first.
            let data = answer.status.starts_with("206") && asked.fetch_add(1, Ordering::Relaxed) >= 2;
            match lie {
                "another range" if data => answer.body.iter_mut().for_each(|byte| *byte ^= 1),
                "a cut range" if data => answer.cut = Some(answer.body.len() / 2),
                "a short range" if data => answer.body.truncate(10),
                "ranges end" if data => return Answer::status("416 Range Not Satisfiable"),
                _ => {}
            }
            answer
        });
        let record = try_pull(&store, &host).unwrap_or_else(|error| panic!("{lie}: {error}"));
        let other = Scratch::new();
        let second = image(&layer(2));
        let host = serve(move |request| honest(&second, request));
        try_pull(&other.store(), &host).unwrap();
        let tree = |scratch: &Scratch| scratch.store().layer_dir(&record.layers[0].chain_id);
        same_trees(&tree(&scratch), &tree(&other));
        let staging = std::fs::read_dir(store.path("staging")).unwrap().count();
        assert_eq!(staging, 0, "{lie}");
    }
}

#[test]
fn others_read_what_is_written() {
    if !have(&["skopeo", "zstd"]) {
        return skip("needs skopeo and zstd", true);
    }
    let scratch = Scratch::new();
    let archive = layer(1);
    let image = image(&archive);
    let layout = image.layout(&scratch.0.join("layout"));
    let blob = scratch.0.join("layout/blobs/sha256").join(Digest::of(&image.blobs[0]).hex());
    let plain = std::process::Command::new("zstd")
        .args(["-d", "-c", "-q"])
        .stdin(std::fs::File::open(&blob).unwrap())
        .output()
        .unwrap();
    assert!(plain.status.success() && plain.stdout == archive);
    // Skopeo decompresses it.
    let target = format!("dir:{}", scratch.0.join("out").display());
    let copied = std::process::Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--dest-decompress", &format!("{layout}:test"), &target])
        .env("TMPDIR", &scratch.0)
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let store = scratch.store();
    let a = crate::support::pull_text(&store, &layout).unwrap();
    let b = crate::support::pull_text(&store, &target).unwrap();
    assert_eq!(a.layers[0].diff_id, b.layers[0].diff_id);
    assert_ne!(a.layers[0].blob, b.layers[0].blob);
}
