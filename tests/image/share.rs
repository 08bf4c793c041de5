//! Files that layers share by content.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use umiak::storage::Store;

use crate::support::{Archive, Image, Scratch, options, pull_text};

const BIG: &[u8] = &[5; 90_000];

fn pull(store: &Store, scratch: &Scratch, name: &str, layers: &[Vec<u8>]) -> Vec<PathBuf> {
    let image = pull_text(store, &Image::new(layers).layout(&scratch.0.join(name))).unwrap();
    image.layers.iter().map(|layer| store.layer_tree(&layer.chain_id)).collect()
}

fn inode(tree: &Path, path: &str) -> u64 {
    tree.join(path).metadata().unwrap().ino()
}

/// Whether two files are one content on the disk: by a link, or by a reflink, of which their first extent
/// tells (FIEMAP would; here it is enough that both were told to be shared).
fn linked(one: &Path, two: &Path, path: &str) -> bool {
    inode(one, path) == inode(two, path)
}

#[test]
fn equal_files_are_one_where_nobody_can_tell() {
    let scratch = Scratch::new();
    let store = scratch.store().with_ownership(options().ownership);
    let base = |archive: Archive| {
        archive
            .dir("usr")
            .file("usr/big", BIG)
            .file("usr/small", b"small")
            .file("usr/empty", b"")
            .file("etc/crontab", BIG)
            .file("usr/one", b"one of two")
            .entry("usr/two", b'1', "usr/one", b"")
    };
    let first = pull(&store, &scratch, "one", &[base(Archive::new()).file("usr/a", BIG).bytes()]);
    let second = pull(
        &store,
        &scratch,
        "two",
        &[
            Archive::new().file("lower", b"x").bytes(),
            base(Archive::new()).pax(&[("mtime", b"7")]).file("usr/a", BIG).file("usr/b", BIG).bytes(),
        ],
    );
    let (one, two) = (&first[0], &second[1]);
    // File systems with reflinks leave every file an inode of its own.
    let reflinks = !linked(one, two, "usr/big");
    for (path, expected) in [
        ("usr/big", true),
        ("usr/small", true),
        ("usr/empty", false),
        ("etc/crontab", false),
        ("usr/one", false),
        ("usr/a", false),
    ] {
        assert_eq!(linked(one, two, path), expected && !reflinks, "{path}");
    }
    assert_ne!(inode(two, "usr/big"), inode(two, "usr/b"));
    assert_eq!(two.join("usr/a").metadata().unwrap().mtime(), 7);
    assert_eq!(two.join("usr").metadata().unwrap().mtime(), 1_700_000_000);
    // The sum of what is shared stands in the record.
    let record = std::fs::read_to_string(two.with_file_name("layer.json")).unwrap();
    assert!(record.contains("\"shared\":"), "{record}");
    // One of the images goes: nothing of the other's changes.
    for image in store.images().unwrap().iter().filter(|image| image.layers.len() == 1) {
        store.remove_image(image).unwrap();
    }
    store.collect().unwrap();
    assert!(!one.exists());
    assert_eq!(std::fs::read(two.join("usr/big")).unwrap(), BIG);
}

#[test]
fn a_hash_is_not_believed() {
    let scratch = Scratch::new();
    let store = scratch.store().with_ownership(options().ownership);
    let first = pull(&store, &scratch, "one", &[Archive::new().file("f", BIG).bytes()]);
    // What is in the first layer is no longer what it was listed as.
    let time = first[0].join("f").metadata().unwrap().modified().unwrap();
    let mut bad = BIG.to_vec();
    bad[70_000] = 6;
    std::fs::write(first[0].join("f"), bad).unwrap();
    std::fs::File::options().write(true).open(first[0].join("f")).unwrap().set_modified(time).unwrap();
    let second = pull(&store, &scratch, "two", &[Archive::new().file("f", BIG).file("g", b"").bytes()]);
    assert_eq!(std::fs::read(second[0].join("f")).unwrap(), BIG);
    // Nor is a list that is damaged.
    for damaged in [&b"umiakfl1\xff\xff\xff\xff\xff\xff\xff\xff"[..], b"", b"umiakfl1"] {
        std::fs::write(first[0].with_file_name("files"), damaged).unwrap();
        let scratch_name = format!("three{}", damaged.len());
        let third = pull(
            &store,
            &scratch,
            &scratch_name,
            &[Archive::new().file("f", BIG).file(&scratch_name, b"").bytes()],
        );
        assert_eq!(std::fs::read(third[0].join("f")).unwrap(), BIG);
    }
}

#[test]
fn a_small_layer_is_found_in_a_large_one_and_the_other_way() {
    let scratch = Scratch::new();
    let store = scratch.store().with_ownership(options().ownership);
    let fill = |archive: Archive, from: u32, to: u32| {
        (from..to).fold(archive, |archive, n| {
            let data = n.to_le_bytes().repeat(300 + n as usize);
            archive.file(&format!("f{n}"), &data)
        })
    };
    let large = pull(&store, &scratch, "large", &[fill(Archive::new(), 0, 500).bytes()]);
    // None of these is among the large layer's largest.
    let small = pull(&store, &scratch, "small", &[fill(Archive::new(), 20, 120).bytes()]);
    let shared = |one: &Path, two: &Path, path: &str| {
        let text = std::fs::read_to_string(two.with_file_name("layer.json")).unwrap();
        assert!(text.contains("\"shared\":"), "{text}");
        one.join(path).exists()
    };
    assert!(shared(&large[0], &small[0], "f30"));
    let scratch = Scratch::new();
    let store = scratch.store().with_ownership(options().ownership);
    let small = pull(&store, &scratch, "small", &[fill(Archive::new(), 20, 120).bytes()]);
    let large = pull(&store, &scratch, "large", &[fill(Archive::new(), 0, 500).bytes()]);
    assert!(shared(&small[0], &large[0], "f30"));
}
