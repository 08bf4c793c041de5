//! Layers' archives, given back from tree and recipe.

use std::io::Read;

use umiak::base::digest::ChainId;
use umiak::image::recipe::Reader;
use umiak::storage::{Ownership, Store};

use crate::support::{Archive, Image, Scratch, options, pull_text};

/// xorshift64*: the same archives in every run.
struct Random {
    state: u64,
    /// Entries in directories of other entries, through links, and where both are no directories.
    wild: bool,
}

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let zeros = self.next(4) == 0;
        (0..count).map(|_| if zeros { 0 } else { self.next(256) as u8 }).collect()
    }

    /// One of few names, so that entries meet.
    fn path(&mut self) -> String {
        let depth = if self.wild { 1 + self.next(3) } else { 1 };
        let names = ["a", "b", "c", "d", if self.wild { "link" } else { "e" }];
        (0..depth).map(|_| names[self.next(5) as usize]).collect::<Vec<_>>().join("/")
    }
}

fn archive(random: &mut Random) -> Vec<u8> {
    let mut archive = Archive::new().file("first", b"1");
    for _ in 0..random.next(if random.wild { 20 } else { 60 }) {
        let path = random.path();
        let length = match random.next(8) {
            0 => 0,
            1 => 512,
            2 => 50_000,
            _ => random.next(3000) as usize,
        };
        archive = match random.next(14) {
            0..=4 => {
                let data = random.bytes(length);
                archive.file(&path, &data)
            }
            5 => archive.dir(&path),
            6 => archive.entry(&path, b'2', &random.path(), b""),
            7 => archive.entry("link", b'2', ["a", "b", "/c"][random.next(3) as usize], b""),
            // The file is there, if nothing took its place.
            8 => archive.file("target", &random.bytes(700)).entry(&path, b'1', "target", b""),
            9 => archive.entry(&path, b'3', "", b""),
            10 => {
                let (directory, name) = path.rsplit_once('/').unwrap_or((".", &path));
                archive.entry(&format!("{directory}/.wh.{name}"), b'0', "", &random.bytes(length))
            }
            11 if random.wild => archive.entry(&format!("{path}/.wh..wh..opq"), b'0', "", b""),
            12 => {
                let value = random.bytes(300);
                let data = random.bytes(length);
                archive.pax(&[("SCHILY.xattr.user.x", &value), ("mtime", b"1.5")]).file(&path, &data)
            }
            _ => {
                let piece = random.bytes(600);
                let mut data = format!("2\n4096\n500\n90000\n{}\n", piece.len() - 500).into_bytes();
                data.resize(512, 0);
                data.extend(piece);
                archive
                    .pax(&[
                        ("GNU.sparse.major", b"1"),
                        ("GNU.sparse.minor", b"0"),
                        ("GNU.sparse.realsize", b"100000"),
                        ("GNU.sparse.name", path.as_bytes()),
                    ])
                    .file("sparse", &data)
            }
        };
    }
    let mut bytes = archive.bytes();
    match random.next(3) {
        0 => bytes.resize(bytes.len() + 9000, 0),
        1 => bytes.extend(random.bytes(777)),
        _ => {}
    }
    bytes
}

fn rebuilt(store: &Store, chain_id: &ChainId) -> std::io::Result<Vec<u8>> {
    let files = &store.layer_kinds(chain_id)[0];
    let mut reader = Reader::open(&files.recipe(), &files.tree(), &files.aside()).unwrap();
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[test]
fn tree_and_recipe_give_the_archive() {
    let mut unpacked = 0;
    let mut aside = 0;
    for seed in 1..120 {
        let tar = archive(&mut Random { state: seed << 32 | 0x7f4a_7c15, wild: seed % 2 == 0 });
        let scratch = Scratch::new();
        let store = scratch.store().with_ownership(options().ownership);
        // Some go through links that lead to nothing or into circles, which is refused.
        let source = Image::new(std::slice::from_ref(&tar)).layout(&scratch.0.join("layout"));
        let image = match pull_text(&store, &source) {
            Ok(image) => image,
            Err(_) if seed % 2 == 0 => continue,
            Err(error) => panic!("seed {seed}: {}", umiak::base::report::chain(&error)),
        };
        unpacked += 1;
        let chain_id = &image.layers[0].chain_id;
        aside += u32::from(store.layer_kinds(chain_id)[0].aside().exists());
        assert!(rebuilt(&store, chain_id).unwrap() == tar, "seed {seed}");
    }
    assert!(unpacked > 70 && aside > 20, "{unpacked} unpacked, {aside} with files set aside");
}

#[test]
fn a_changed_tree_or_recipe_is_named() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let tar =
        Archive::new().file("dir/cut", &[7; 5000]).file("flipped", &[1; 800]).file("gone", b"1").bytes();
    let source = Image::new(&[tar]).layout(&scratch.0.join("layout"));
    let chain_id = pull_text(&store, &source).unwrap().layers[0].chain_id;
    let files = store.layer_kinds(&chain_id)[0].clone();
    let fails = |name: &str| {
        let text = rebuilt(&store, &chain_id).unwrap_err().to_string();
        assert!(text.contains(name), "{text}");
    };
    let tree = files.tree();
    std::fs::rename(tree.join("gone"), scratch.0.join("gone")).unwrap();
    fails("gone");
    std::fs::rename(scratch.0.join("gone"), tree.join("gone")).unwrap();
    std::fs::write(tree.join("flipped"), [2; 800]).unwrap();
    fails("flipped");
    std::fs::write(tree.join("dir/cut"), [7; 4999]).unwrap();
    fails("dir/cut");
    let bytes = std::fs::read(files.recipe()).unwrap();
    for bad in [&bytes[..bytes.len() / 2], &bytes[..bytes.len() - 1], b""] {
        std::fs::write(files.recipe(), bad).unwrap();
        let opened = Reader::open(&files.recipe(), &tree, &files.aside());
        let failed = opened.map(|mut reader| reader.read_to_end(&mut Vec::new()));
        assert!(!matches!(failed, Ok(Ok(_))));
    }
}

#[test]
fn blobs_that_can_be_made_again_are_not_kept() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let tar = Archive::new().file("a", &[7; 5000]).bytes();
    let plain = Image::with_blobs(std::slice::from_ref(&tar), vec![tar.clone()]);
    let image = pull_text(&store, &plain.layout(&scratch.0.join("plain"))).unwrap();
    let blob = image.layers[0].blob.unwrap();
    assert!(!store.blob_path(&blob).exists());
    let other = Archive::new().file("b", &[7; 5000]).bytes();
    let image = pull_text(&store, &Image::new(&[other]).layout(&scratch.0.join("gzip"))).unwrap();
    assert!(store.blob_path(&image.layers[0].blob.unwrap()).exists());
}

#[test]
fn a_layer_is_made_again_from_what_is_here() {
    let scratch = Scratch::new();
    let options = options();
    let store = scratch.store().with_ownership(options.ownership);
    let tar = Archive::new().file("a", &[7; 5000]).file("b/c", b"c").file("a", b"later").bytes();
    let layout = scratch.0.join("layout");
    let source = Image::with_blobs(std::slice::from_ref(&tar), vec![tar.clone()]).layout(&layout);
    let image = pull_text(&store, &source).unwrap();
    let layer = &image.layers[0];
    // As after a power cut: the boot is another.
    let record = store.layer_dir(&layer.chain_id).with_file_name("layer.json");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let forget = || {
        let text = std::fs::read_to_string(&record).unwrap();
        std::fs::write(&record, text.replace(boot.trim(), "another")).unwrap();
        assert!(store.layer(&layer.chain_id).unwrap().is_none());
    };
    forget();
    std::fs::remove_dir_all(&layout).unwrap();
    umiak::image::pull::renew(&store, &image, &options).unwrap();
    assert!(store.layer(&layer.chain_id).unwrap().is_some());
    assert_eq!(std::fs::read(store.layer_dir(&layer.chain_id).join("a")).unwrap(), b"later");
    assert!(rebuilt(&store, &layer.chain_id).unwrap() == tar);
    // What the power cut damaged is not taken for good.
    forget();
    std::fs::write(store.layer_dir(&layer.chain_id).join("b/c"), "x").unwrap();
    umiak::image::pull::renew(&store, &image, &options).unwrap_err();
    assert!(store.layer(&layer.chain_id).unwrap().is_none());
    // Unpacked for another mapping of ids.
    if options.ownership == Ownership::Host {
        let image = pull_text(
            &store,
            &Image::with_blobs(std::slice::from_ref(&tar), vec![tar.clone()]).layout(&layout),
        )
        .unwrap();
        std::fs::remove_dir_all(&layout).unwrap();
        let single = scratch.store().with_ownership(Ownership::Single);
        assert!(single.layer(&layer.chain_id).unwrap().is_none());
        let options = umiak::image::PullOptions { ownership: Ownership::Single, ..options };
        umiak::image::pull::renew(&single, &image, &options).unwrap();
        assert!(single.layer(&layer.chain_id).unwrap().is_some());
        assert!(rebuilt(&single, &layer.chain_id).unwrap() == tar);
    }
}
