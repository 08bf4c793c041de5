//! Layers that want out, and layers that are merely unusual.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use crate::support::{Archive, Image, Scratch, assert_clean, failure, gzip, is_root, unpacked};

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "a/../../x", "/../x", "a/.."] {
        let scratch = Scratch::new();
        let error = unpacked(&scratch, &[Archive::new().file(name, b"x").bytes()]).unwrap_err();
        assert!(error.contains("hostile entry"), "{name}: {error}");
    }
}

#[test]
fn absolute_names_land_inside() {
    let scratch = Scratch::new();
    let root = unpacked(&scratch, &[Archive::new().file("/umiak-absolute/x", b"x").bytes()]).unwrap();
    assert_eq!(std::fs::read(root.join("umiak-absolute/x")).unwrap(), b"x");
    assert!(!std::path::Path::new("/umiak-absolute").exists());
}

#[test]
fn links_do_not_lead_out() {
    let outside = Scratch::new();
    std::fs::write(outside.0.join("secret"), "s").unwrap();
    let target = outside.0.to_str().unwrap();
    // Through a link to a directory outside: it points to nothing inside, so nothing is made.
    let archive = Archive::new().entry("out", b'2', target, b"").file("out/made", b"x");
    assert!(unpacked(&Scratch::new(), &[archive.bytes()]).is_err());
    assert!(!outside.0.join("made").exists());
    // Over a link to a file outside: the link is replaced.
    let scratch = Scratch::new();
    let archive = Archive::new().entry("f", b'2', &format!("{target}/secret"), b"").file("f", b"x");
    let root = unpacked(&scratch, &[archive.bytes()]).unwrap();
    assert!(root.join("f").symlink_metadata().unwrap().is_file());
    assert_eq!(std::fs::read_to_string(outside.0.join("secret")).unwrap(), "s");
    // Hard links.
    for link in ["../secret", &format!("{target}/secret"), "out/secret"] {
        let archive = Archive::new().entry("out", b'2', target, b"").entry("h", b'1', link, b"");
        assert!(unpacked(&Scratch::new(), &[archive.bytes()]).is_err(), "{link}");
    }
    // A directory entry over the link does not make the link's target one's own.
    let scratch = Scratch::new();
    let archive = Archive::new().entry("d", b'2', target, b"").dir("d").file("d/made", b"x");
    let root = unpacked(&scratch, &[archive.bytes()]).unwrap();
    assert!(root.join("d/made").is_file() && !outside.0.join("made").exists());
}

#[test]
fn a_link_inside_is_followed_inside() {
    let scratch = Scratch::new();
    let archive =
        Archive::new().dir("usr").dir("usr/lib").entry("lib", b'2', "/usr/lib", b"").file("lib/x", b"x");
    let root = unpacked(&scratch, &[archive.bytes()]).unwrap();
    assert!(root.join("usr/lib/x").is_file());
}

#[test]
fn later_entries_replace_earlier_ones() {
    let scratch = Scratch::new();
    let archive = Archive::new()
        .dir("a")
        .file("a/x", b"1")
        .file("a", b"file")
        .file("b", b"1")
        .dir("b")
        .file("b/y", b"2")
        .file("c", b"1")
        .file("c", b"22");
    let root = unpacked(&scratch, &[archive.bytes()]).unwrap();
    assert_eq!(std::fs::read(root.join("a")).unwrap(), b"file");
    assert_eq!(std::fs::read(root.join("b/y")).unwrap(), b"2");
    assert_eq!(std::fs::read(root.join("c")).unwrap(), b"22");
}

#[test]
fn whiteouts_become_overlayfs_own() {
    if !is_root() {
        return crate::support::skipped("making a 0:0 device needs root or a user namespace");
    }
    let scratch = Scratch::new();
    let archive = Archive::new()
        .dir("d")
        .file("d/.wh.gone", b"")
        .dir("o")
        .file("o/.wh..wh..opq", b"")
        .file("d/.wh.kept", b"")
        .file("d/kept", b"new")
        .file(".wh.again", b"")
        .dir("again")
        .file(".wh..wh.plnk", b"");
    let root = unpacked(&scratch, &[archive.bytes()]).unwrap();
    let gone = root.join("d/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(root.join("d/kept").is_file());
    let opaque = |dir: &str| {
        let mut value = [0; 4];
        rustix::fs::getxattr(root.join(dir), "trusted.overlay.opaque", &mut value)
            .is_ok_and(|n| value[..n] == *b"y")
    };
    assert!(opaque("o") && opaque("again") && !opaque("d"));
    assert!(!root.join(".wh..wh.plnk").exists());
    for name in [".wh...", "a/.wh..", ".wh."] {
        assert!(unpacked(&Scratch::new(), &[Archive::new().file(name, b"").bytes()]).is_err(), "{name}");
    }
}

#[test]
fn attributes_that_steer_overlayfs_are_left_out() {
    let scratch = Scratch::new();
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.mine", b"a\nb"),
    ];
    let archive = Archive::new().pax(&records).dir("d").pax(&records).file("f", b"");
    let root = unpacked(&scratch, &[archive.bytes()]).unwrap();
    let mut value = [0; 9];
    for path in ["d", "f"] {
        assert!(rustix::fs::getxattr(root.join(path), "user.overlay.redirect", &mut value).is_err());
        let count = rustix::fs::getxattr(root.join(path), "user.mine", &mut value).unwrap();
        assert_eq!(&value[..count], b"a\nb");
    }
}

#[test]
fn devices_are_roots_and_never_whiteouts() {
    let scratch = Scratch::new();
    let root = unpacked(&scratch, &[Archive::new().entry("null", b'3', "", b"").bytes()]).unwrap();
    assert_eq!(root.join("null").exists(), is_root());
    let archive = Archive::new().entry("fifo", b'6', "", b"").bytes();
    let scratch = Scratch::new();
    let root = unpacked(&scratch, &[archive]).unwrap();
    assert!(root.join("fifo").symlink_metadata().unwrap().file_type().is_fifo());
}

#[test]
fn hard_links_reach_into_lower_layers() {
    let scratch = Scratch::new();
    let lower = Archive::new().dir("d").file("d/a", b"linked").bytes();
    let upper = Archive::new().entry("d/b", b'1', "d/a", b"").bytes();
    let root = unpacked(&scratch, &[lower, upper]).unwrap();
    assert_eq!(std::fs::read(root.join("d/b")).unwrap(), b"linked");
    assert_eq!(root.join("d/a").metadata().unwrap().ino(), root.join("d/b").metadata().unwrap().ino());
}

#[test]
fn bombs_and_cuts_are_stopped() {
    let scratch = Scratch::new();
    let error = unpacked(&scratch, &[Archive::new().file("zeros", &vec![0; 80 << 20]).bytes()]).unwrap_err();
    assert!(error.contains("more than the 67108864"), "{error}");

    let archive = Archive::new().file("a", &vec![7; 100_000]).bytes();
    let mut cut = gzip(&archive);
    cut.truncate(cut.len() / 2);
    let scratch = Scratch::new();
    let source = Image::with_blobs(&[archive], vec![cut]).layout(&scratch.0.join("layout"));
    let store = scratch.store();
    assert!(failure(&store, &source).contains("cut off"));
    assert_clean(&store);
}

#[test]
fn what_is_not_what_the_manifest_says_is_refused() {
    let archive = Archive::new().file("a", b"a").bytes();
    let other = Archive::new().file("a", b"b").bytes();
    for (change, expected) in
        [("digest", "has the digest"), ("longer", "has more bytes"), ("shorter", "bytes, the manifest says")]
    {
        let scratch = Scratch::new();
        let mut image = Image::new(std::slice::from_ref(&archive));
        let name = image.manifest["layers"][0]["digest"].as_str().unwrap()[7..].to_owned();
        let size = image.blobs[0].len();
        match change {
            "longer" => image.manifest["layers"][0]["size"] = (size - 1).into(),
            "shorter" => image.manifest["layers"][0]["size"] = (size + 1).into(),
            _ => {}
        }
        let layout = scratch.0.join("layout");
        let source = image.layout(&layout);
        if change == "digest" {
            let wrong = gzip(&other);
            let mut padded = wrong.clone();
            padded.resize(size.max(wrong.len()), 0);
            std::fs::write(layout.join("blobs/sha256").join(&name), &padded[..size]).unwrap();
        }
        let store = scratch.store();
        let error = failure(&store, &source);
        assert!(error.contains(expected), "{change}: {error}");
        assert_clean(&store);
    }
    // The archive is another than the configuration says.
    let scratch = Scratch::new();
    let source = Image::with_blobs(&[archive], vec![gzip(&other)]).layout(&scratch.0.join("layout"));
    assert!(failure(&scratch.store(), &source).contains("the configuration says"));
}

#[test]
fn compression_is_told_by_content() {
    let archive = Archive::new().file("a", b"a").bytes();
    let two = archive.split_at(512);
    let members = [gzip(two.0), gzip(two.1)].concat();
    for blob in [archive.clone(), members] {
        let scratch = Scratch::new();
        let source =
            Image::with_blobs(std::slice::from_ref(&archive), vec![blob]).layout(&scratch.0.join("layout"));
        crate::support::pull_text(&scratch.store(), &source).unwrap();
    }
}
