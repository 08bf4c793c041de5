//! The store: names, sharing, killed processes, damage.

use umiak::base::digest::{ChainId, Digest};
use umiak::storage::{Error, LayerSlot, Paths, Store};

use crate::support::{Archive, Image, Scratch, pull_text, unpacked};

#[test]
fn names_are_found_as_podman_finds_them() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let source = Image::new(&[Archive::new().file("a", b"a").bytes()]).layout(&scratch.0.join("layout"));
    let image = pull_text(&store, &source).unwrap();
    assert_eq!(image.names, ["localhost/test:latest"]);
    store.tag("quay.io/team/app:1", &image.id).unwrap();
    store.tag("docker.io/library/busybox:latest", &image.id).unwrap();
    let short = image.id.short();
    for name in [
        "test",
        "localhost/test",
        "busybox",
        "library/busybox",
        "team/app:1",
        "app:1",
        &short,
        &image.id.to_string(),
    ] {
        assert_eq!(store.resolve_image(name).unwrap(), Some(image.id), "{name}");
    }
    let digest = format!("localhost/test@{}", image.manifest);
    assert_eq!(store.resolve_image(&digest).unwrap(), Some(image.id));
    for name in ["app", "est", "quay.io/app:1", &short[..2]] {
        assert_eq!(store.resolve_image(name).unwrap(), None, "{name}");
    }
}

#[test]
fn a_name_moves_and_the_old_image_stays() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let one = Image::new(&[Archive::new().file("a", b"1").bytes()]).layout(&scratch.0.join("one"));
    let two = Image::new(&[Archive::new().file("a", b"2").bytes()]).layout(&scratch.0.join("two"));
    let (one, two) = (pull_text(&store, &one).unwrap(), pull_text(&store, &two).unwrap());
    assert_eq!(store.image("test").unwrap().unwrap().id, two.id);
    assert!(store.image_by_id(&one.id).unwrap().unwrap().names.is_empty());
    store.remove_image(&store.image_by_id(&one.id).unwrap().unwrap()).unwrap();
    store.collect().unwrap();
    assert!(store.layer(&one.layers[0].chain_id).unwrap().is_none());
    assert!(store.layer(&two.layers[0].chain_id).unwrap().is_some());
    assert!(!store.blob_path(&one.manifest).exists() && store.blob_path(&two.manifest).exists());
}

#[test]
fn pulls_at_once_share_their_work() {
    let scratch = Scratch::new();
    let layers: Vec<_> = (0..4u8).map(|n| Archive::new().file("f", &vec![n; 300_000]).bytes()).collect();
    let source = Image::new(&layers).layout(&scratch.0.join("layout"));
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| pull_text(&scratch.store(), &source).unwrap());
        }
    });
    let store = scratch.store();
    assert_eq!(std::fs::read_dir(store.path("layers")).unwrap().count(), 4);
    assert_eq!(std::fs::read_dir(store.path("staging")).unwrap().count(), 0);
}

#[test]
fn what_a_killed_pull_left_is_swept_or_taken_over() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let archive = Archive::new().file("a", b"a").bytes();
    let chain = ChainId::chain(&[Digest::of(&archive)])[0];
    let rubbish = store.path("staging").join(chain.0.hex());
    std::fs::create_dir_all(rubbish.join("diff/half")).unwrap();
    std::fs::create_dir_all(store.path("staging/other/diff")).unwrap();
    std::fs::create_dir_all(store.path("trash/x/y")).unwrap();
    unpacked(&scratch, &[archive]).unwrap();
    assert!(!store.layer_dir(&chain).join("half").exists());
    // Held staging stays, free staging goes.
    let held = ChainId(Digest::of(b"held"));
    let LayerSlot::Vacant(staged) = store.reserve_layer(held).unwrap() else { panic!() };
    store.sweep().unwrap();
    assert!(
        staged.diff().exists() && !store.path("staging/other").exists() && !store.path("trash/x").exists()
    );
    drop(staged);
    assert_eq!(std::fs::read_dir(store.path("staging")).unwrap().count(), 0);
}

#[test]
fn layers_of_an_earlier_boot_count_only_if_synced() {
    let scratch = Scratch::new();
    let store = scratch.store();
    let source = Image::new(&[Archive::new().file("a", b"a").bytes()]).layout(&scratch.0.join("layout"));
    let chain = pull_text(&store, &source).unwrap().layers[0].chain_id;
    let file = store.layer_dir(&chain).parent().unwrap().join("layer.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    std::fs::write(&file, text.replace(boot.trim(), "another")).unwrap();
    assert!(store.layer(&chain).unwrap().is_none());
    // The blob is damaged as well: it is fetched anew.
    let blob = store.image("test").unwrap().unwrap().layers[0].blob.unwrap();
    let size = std::fs::metadata(store.blob_path(&blob)).unwrap().len();
    std::fs::write(store.blob_path(&blob), vec![0; size as usize]).unwrap();
    pull_text(&store, &source).unwrap();
    assert!(store.layer(&chain).unwrap().is_some());
    store.sync_layers(&[chain]).unwrap();
    std::fs::write(&file, text.replace(boot.trim(), "another")).unwrap();
    assert!(store.layer(&chain).unwrap().is_some());
}

#[test]
fn foreign_and_damaged_files_are_named() {
    let scratch = Scratch::new();
    let paths = Paths::new(scratch.0.join("foreign"), scratch.0.join("run"));
    std::fs::create_dir_all(paths.root.join("somebody's")).unwrap();
    assert!(matches!(Store::open(&paths), Err(Error::Foreign(_))));
    let store = scratch.store();
    std::fs::write(store.path("format.json"), r#"{"version":99}"#).unwrap();
    assert!(matches!(Store::open(store.paths()), Err(Error::Version { found: 99, .. })));
    std::fs::write(store.path("format.json"), "{").unwrap();
    let error = Store::open(store.paths()).unwrap_err();
    assert!(umiak::base::report::chain(&error).contains("format.json\" is damaged"));
}
