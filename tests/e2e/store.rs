//! The store: what it takes, pruning, damage, kills and full disks, pulls beside removals, file systems.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use umiak::base::digest::Digest;

use crate::requires;
use crate::support::{Need, Output, Registry, Umiak, finish, images, skip, tool};

/// Writes an OCI layout with one image of these archives.
fn layout(dir: &Path, layers: &[Vec<u8>], labels: &serde_json::Value) -> String {
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({ "digest": digest.to_string(), "size": bytes.len() })
    };
    let described = |mut value: serde_json::Value, kind: &str| {
        value["mediaType"] = kind.into();
        value
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({
        "architecture": umiak::image::Platform::host().architecture, "os": "linux",
        "created": "2023-11-14T22:13:20Z", "config": { "Cmd": ["/bin/true"], "Labels": labels },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = described(put(config.to_string().as_bytes()), "application/vnd.oci.image.config.v1+json");
    let layers: Vec<_> =
        layers.iter().map(|layer| described(put(layer), "application/vnd.oci.image.layer.v1.tar")).collect();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers });
    let manifest = described(put(manifest.to_string().as_bytes()), kind);
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    format!("oci:{}", dir.display())
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, data.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The files that related images have: `count` of them, of 1 to 40 kB.
fn files(count: u32) -> Vec<(String, Vec<u8>)> {
    let content = |n: u32| {
        let length = 1000 + (n as usize * 7919) % 40_000;
        (0..length as u32).map(|at| (at.wrapping_mul(n + 3) >> 5) as u8 ^ n as u8).collect()
    };
    (0..count).map(|n| (format!("usr/lib/d{}/f{n}", n % 9), content(n))).collect()
}

/// One of several images with the same files, cut into layers at other places, and one file of its own.
fn related(dir: &Path, number: usize, files: &[(String, Vec<u8>)]) -> String {
    let cut = files.len() * (number + 1) / 12;
    let own = vec![(format!("usr/own{number}"), vec![number as u8; 3000])];
    let layers = [archive(&files[..cut]), archive(&files[cut..]), archive(&own)];
    layout(&dir.join(format!("related{number}")), &layers, &json!({ "number": number.to_string() }))
}

/// What a directory takes on the disk, in bytes.
fn disk(dir: &Path) -> u64 {
    fn add(dir: &Path, seen: &mut std::collections::HashSet<u64>) -> u64 {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .map(|entry| {
                let stat = entry.path().symlink_metadata().unwrap();
                let own = if seen.insert(stat.ino()) { stat.blocks() * 512 } else { 0 };
                own + if stat.is_dir() { add(&entry.path(), seen) } else { 0 }
            })
            .sum()
    }
    add(dir, &mut std::collections::HashSet::new())
}

fn layers(root: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(root.join("layers")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn shared(root: &Path) -> u64 {
    let record = |layer: &PathBuf| std::fs::read(layer.join("layer.json")).unwrap();
    let parsed =
        layers(root).iter().map(record).map(|bytes| serde_json::from_slice(&bytes).unwrap()).collect();
    let records: Vec<serde_json::Value> = parsed;
    records.iter().filter_map(|record| record["shared"].as_u64()).sum()
}

#[test]
fn related_images_take_little_more_than_one() {
    let umiak = Umiak::new();
    let files = files(300);
    let root = umiak.dir.join("store");
    umiak.run(&["pull", "-q", &related(&umiak.dir, 0, &files)]).ok();
    let one = disk(&root.join("layers"));
    for number in 1..10 {
        umiak.run(&["pull", "-q", &related(&umiak.dir, number, &files)]).ok();
    }
    let ten = disk(&root.join("layers"));
    assert!(ten < one * 3 / 2 || shared(&root) > 8 * one, "one image takes {one}, ten take {ten}");
    umiak.run(&["system", "check"]).ok().says("");
    // What is left of images after others went is whole.
    for number in (0..10).filter(|number| *number != 4) {
        let id = umiak.run(&["images", "-q", "--filter", &format!("label=number={number}")]).ok().stdout;
        umiak.run(&["rmi", id.trim()]).ok();
    }
    umiak.run(&["system", "check"]).ok().says("");
    assert!(disk(&root.join("layers")) <= one * 11 / 10);
}

#[test]
fn what_everything_takes() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let script = "dd if=/dev/zero of=/x bs=1000 count=500 2>/dev/null; echo 12345 >/v/x";
    umiak
        .run(&["run", "--name", "box", "--network", "none", "-v", "data:/v", "busybox", "sh", "-c", script])
        .ok();
    let table = umiak.run(&["system", "df"]).ok().stdout;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]);
    assert_eq!(rows[1][..3], ["Images", "2", "1"]);
    assert_eq!(rows[2][..5], ["Containers", "1", "0", "500", "kB"]);
    assert_eq!(rows[3][..6], ["Local", "Volumes", "1", "1", "6", "B"]);
    umiak
        .run(&["system", "df", "--format", "{{.Type}} {{.TotalCount}}"])
        .ok()
        .says("Images 2\nContainers 1\nLocal Volumes 1\nBuild Cache 0");
    let long = umiak.run(&["system", "df", "-v"]).ok();
    let long = long.has("Images space usage:").has("UNIQUE SIZE").has("VOLUME NAME").has("data");
    assert!(
        long.stdout.lines().any(|line| line.contains("box") && line.contains("500 kB")),
        "{}",
        long.stdout
    );
    umiak.run(&["system", "df", "-v", "--format", "json"]).exits(125).tells("--format");
    // Asked for, and not answered.
    umiak.run(&["system", "prune", "-a", "--volumes"]).ok().says("");
    umiak.run(&["image", "prune", "-f"]).ok().says("");
    umiak.run(&["image", "prune", "-f", "--filter", "colour=red"]).exits(125).tells("colour");
    umiak.run(&["image", "prune", "-af", "--filter", "until=2020-01-01"]).ok().says("");
    let ids = umiak.run(&["images", "-q", "--no-trunc", "configured"]).ok().stdout;
    umiak.run(&["image", "prune", "-af"]).ok().says(ids.trim().trim_start_matches("sha256:"));
    let said = umiak.run(&["system", "prune", "-af", "--volumes"]).ok().stdout;
    for line in ["Deleted Containers", "Deleted Volumes", "data", "Deleted Images", "Total reclaimed space: "]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(layers(&umiak.dir.join("store")).is_empty());
    umiak.run(&["system", "df", "--format", "{{.Size}}"]).ok().says("0 B\n0 B\n0 B\n0 B");
}

#[test]
fn damage_is_found_and_mended() {
    requires!(Need::Root, Need::Image("busybox"), Need::Image("nasty"));
    let umiak = Umiak::with_busybox();
    umiak.pull("nasty");
    umiak.run(&["system", "check"]).ok().says("");
    let root = umiak.dir.join("store");
    let tree = umiak.inspect_json("busybox")["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap().to_owned();
    let tree = Path::new(&tree);
    let program = tree.join("bin/busybox");
    let check = |damage: &dyn Fn(), word: &str| {
        damage();
        umiak.run(&["system", "check"]).exits(1).has(word);
        umiak.run(&["system", "check", "--repair"]).ok().has(word).has(": mended");
        umiak.run(&["system", "check"]).ok().says("");
        umiak.run(&["run", "--rm", "--network", "none", "busybox", "echo", "well"]).ok().says("well");
    };
    let open = || std::fs::File::options().write(true).open(&program).unwrap();
    check(&|| open().write_all_at(b"x", 5000).unwrap(), "bin/busybox");
    check(&|| open().set_len(5000).unwrap(), "bin/busybox");
    check(&|| std::fs::remove_file(&program).unwrap(), "bin/busybox");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    check(&|| std::fs::set_permissions(tree.join("tmp"), mode(0o700)).unwrap(), "another mode");
    check(&|| std::fs::write(tree.join("bin/intruder"), "x").unwrap(), "not of this layer");
    let attribute = rustix::fs::XattrFlags::empty();
    let set = || rustix::fs::setxattr(tree.join("tmp"), "user.strange", b"x", attribute).unwrap();
    check(&set, "attribute that was not its own");
    check(&|| std::fs::remove_file(tree.join("bin/sh")).unwrap(), "bin/sh");
    check(&|| std::fs::remove_dir_all(tree.parent().unwrap()).unwrap(), "is missing");
    // Names and records.
    std::fs::write(root.join("tags/docker.io%2Flibrary%2Fx:latest.json"), "{").unwrap();
    umiak.run(&["system", "check", "--quick"]).exits(1).has("cannot be read");
    umiak.run(&["system", "check", "--quick", "--repair"]).ok().has(": removed");
    std::fs::create_dir_all(root.join(format!("layers/{}/diff", "5".repeat(64)))).unwrap();
    umiak.run(&["system", "check", "--quick"]).ok().says("");
    umiak.run(&["system", "check", "--quick", "--max", "0s"]).exits(1).has("belongs to no image");
    umiak.run(&["system", "check", "--quick", "--max", "0s", "--repair"]).ok().has(": removed");
    let file = umiak.file("whatever", "of an artifact");
    umiak.run(&["artifact", "add", "localhost/thing:1", file.to_str().unwrap()]).ok();
    umiak.run(&["system", "check"]).ok().says("");
    let blob = root.join("blobs/sha256").join(Digest::of(b"of an artifact").hex());
    std::fs::write(&blob, "of an artefact").unwrap();
    umiak.run(&["system", "check"]).exits(1).has("blob");
    umiak.run(&["system", "check", "--repair"]).ok().has("thing:1").has(": removed");
    umiak.run(&["artifact", "add", "localhost/thing:1", file.to_str().unwrap()]).ok();
    std::fs::remove_file(&blob).unwrap();
    umiak.run(&["system", "check", "--quick"]).exits(1).has("its blob");
    umiak.run(&["system", "check", "--quick", "--repair"]).ok().has(": removed");
    umiak.run(&["artifact", "add", "localhost/thing:1", file.to_str().unwrap()]).ok();
    let record = std::fs::read_dir(root.join("artifacts")).unwrap().flatten().next().unwrap().path();
    std::fs::write(&record, "{").unwrap();
    umiak.run(&["system", "check", "--quick", "--repair"]).ok().has("cannot be read").has(": removed");
    umiak.run(&["artifact", "ls", "--noheading"]).ok().says("");
    // What cannot be had back goes; containers only by force.
    umiak.run(&["create", "--name", "box", "busybox", "true"]).ok();
    let blob = Digest::of(&std::fs::read(images().join("busybox/index.json")).unwrap());
    assert!(!root.join("blobs/sha256").join(blob.hex()).exists());
    open().write_all_at(b"x", 5000).unwrap();
    for blob in std::fs::read_dir(root.join("blobs/sha256")).unwrap().flatten() {
        if blob.metadata().unwrap().len() > 100_000 {
            std::fs::remove_file(blob.path()).unwrap();
        }
    }
    umiak.run(&["system", "check", "--repair"]).exits(1).has("container box uses the image");
    umiak.run(&["system", "check", "--repair", "--force"]).ok().has(": removed");
    umiak.run(&["system", "check"]).ok().says("");
    umiak.run(&["ps", "-aq"]).ok().says("");
}

#[test]
fn what_a_registry_gave_is_had_from_there_again() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let mut umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let name = registry.push("busybox");
    let text = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.address);
    let conf = umiak.file("registries.conf", &text);
    umiak.set_env("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap());
    umiak.run(&["pull", "-q", &name]).ok();
    umiak.run(&["tag", &name, "mine"]).ok();
    let layer = layers(&umiak.dir.join("store")).remove(0);
    let damage = || {
        let program = std::fs::File::options().write(true).open(layer.join("diff/bin/busybox")).unwrap();
        program.write_all_at(b"x", 5000).unwrap();
    };
    damage();
    umiak.run(&["system", "check"]).exits(1).has("bin/busybox");
    umiak.run(&["system", "check", "--repair"]).ok().has(": mended");
    umiak.run(&["system", "check"]).ok().says("");
    // Under all its names, and with what it was.
    umiak.run(&["run", "--rm", "--network", "none", "mine", "echo", "well"]).ok().says("well");
    umiak.run(&["images", "-q", &name]).ok();
    // Where the registry is gone as well, the image is.
    damage();
    drop(registry);
    umiak.run(&["system", "check", "--repair"]).has(": removed");
    umiak.run(&["images", "-q"]).ok().says("");
    umiak.run(&["system", "check"]).ok().says("");
}

#[test]
fn images_are_mounted_to_be_read() {
    requires!(Need::Root, Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let path = umiak.run(&["image", "mount", "busybox"]).ok().stdout.trim().to_owned();
    assert!(Path::new(&path).join("bin/busybox").is_file());
    assert!(std::fs::write(Path::new(&path).join("x"), "").is_err(), "it can be written to");
    umiak.run(&["image", "mount", "busybox"]).ok().says(&path);
    umiak.run(&["image", "mount"]).ok().says(&format!("localhost/busybox:latest {path}"));
    umiak.run(&["image", "mount", "--format", "json"]).ok().has("mountpoint");
    umiak.run(&["rmi", "busybox"]).exits(2).tells("mounted").hints("unmount");
    umiak.run(&["image", "prune", "-af"]).ok();
    umiak.run(&["images", "--format", "{{.Repository}}"]).ok().says("localhost/busybox");
    let id = umiak.inspect("busybox", "{{.Id}}");
    umiak.run(&["image", "unmount", "busybox"]).ok().says(&id);
    assert!(Path::new(&path).join("bin/busybox").is_file(), "it was mounted twice");
    umiak.run(&["image", "umount", "--all"]).ok().says(&id);
    assert!(!Path::new(&path).exists());
    umiak.run(&["image", "unmount", "busybox"]).exits(125).tells("not mounted");
    umiak.run(&["image", "mount", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["image", "mount", "-a"]).ok();
    umiak.run(&["rmi", "-f", "busybox"]).ok();
    umiak.run(&["image", "mount"]).ok().says("");
}

#[test]
fn users_are_told_that_they_cannot_mount() {
    requires!(Need::Unprivileged, Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["image", "mount", "busybox"]).exits(125).tells("root").hints("export");
}

/// Calls at which a pull is killed. After each of them the store looks different.
const CALLS: [&str; 12] = [
    "openat",
    "openat2",
    "write",
    "rename",
    "mkdir",
    "mkdirat",
    "flock",
    "fchown",
    "utimensat",
    "fsync",
    "unlink",
    "clone",
];

/// Runs a command in which every process is killed at its `n`th call of `call`.
fn killed_at(umiak: &Umiak, args: &[&str], call: &str, n: u32) -> Output {
    let plain = umiak.command(args);
    let mut command = Command::new("strace");
    let inject = format!("inject={call}:signal=KILL:when={n}");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]);
    command.arg(plain.get_program()).args(plain.get_args()).current_dir(&umiak.dir);
    command.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    finish(child.unwrap(), b"", format!("{args:?} killed at {call} {n}"))
}

#[test]
fn removals_and_names_killed_at_any_step() {
    requires!(Need::Image("nasty"), Need::Image("busybox"), Need::Tool("strace"));
    let umiak = Umiak::with_busybox();
    let source = format!("oci:{}", images().join("nasty").display());
    let mut kills = 0;
    for call in ["renameat", "unlink", "openat", "flock", "fsync", "write"] {
        for n in [1, 3, 8] {
            umiak.run(&["pull", "-q", &source]).ok();
            umiak.run(&["tag", "nasty", "other"]).ok();
            for words in
                [&["tag", "nasty", "third"][..], &["untag", "nasty", "other"], &["rmi", "-f", "nasty"]]
            {
                let killed = killed_at(&umiak, words, call, n);
                if killed.stderr.contains("PTRACE") || killed.stderr.contains("ptrace") {
                    return skip("strace does not work", false);
                }
                kills += u32::from(killed.code.is_none());
                let checked = umiak.run(&["system", "check"]);
                assert!(
                    checked.code == Some(0),
                    "{words:?} {call} {n}: {}{}",
                    checked.stdout,
                    checked.stderr
                );
                // Nothing of another image is lost, and the same again does what was wanted.
                umiak.run(&["image", "exists", "busybox"]).ok();
                let again = umiak.run(words);
                assert!(matches!(again.code, Some(0 | 1 | 125)), "{words:?}: {}", again.stderr);
            }
            umiak.run(&["rmi", "-f", "-i", "nasty", "other", "third"]).ok();
            umiak.run(&["images", "-q", "--no-trunc", "nasty"]).ok().says("");
            assert_eq!(layers(&umiak.dir.join("store")).len(), 1, "{call} {n}");
        }
    }
    assert!(kills > 10, "killed {kills} times");
}

#[test]
fn a_pull_killed_at_any_step() {
    requires!(Need::Image("nasty"), Need::Image("busybox"), Need::Tool("strace"));
    let umiak = Umiak::with_busybox();
    let source = format!("oci:{}", images().join("nasty").display());
    let mut kills = 0;
    for (place, call) in CALLS.iter().enumerate() {
        for n in [1, 2, 3, 5, 9, 20, 60, 150] {
            // Not all of them at every call: they add up.
            if n > 5 && !(place + n as usize).is_multiple_of(3) {
                continue;
            }
            let killed = killed_at(&umiak, &["pull", "-q", &source], call, n);
            if killed.stderr.contains("PTRACE") || killed.stderr.contains("ptrace") {
                skip("strace does not work", false);
                return;
            }
            kills += u32::from(killed.code != Some(0));
            let checked = umiak.run(&["system", "check"]);
            assert!(checked.code == Some(0), "{call} {n}: {}{}", checked.stdout, checked.stderr);
        }
    }
    assert!(kills > 12, "killed {kills} times");
    umiak.run(&["pull", "-q", &source]).ok();
    umiak.run(&["system", "check"]).ok().says("");
    umiak.run(&["rmi", "--all"]).ok();
    assert!(layers(&umiak.dir.join("store")).is_empty());
}

#[test]
fn a_full_disk() {
    requires!(Need::Root, Need::Image("debian"), Need::Image("busybox"));
    let umiak = Umiak::new();
    let root = umiak.dir.join("small");
    std::fs::create_dir(&root).unwrap();
    let mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=20m", "none"], &root).unwrap();
    let store = root.join("store");
    let at = |args: &[&str]| umiak.run_elsewhere(&store, args);
    let source = |image: &str| format!("oci:{}", images().join(image).display());
    at(&["pull", "-q", &source("busybox")]).ok();
    for _ in 0..2 {
        at(&["pull", "-q", &source("debian")]).exits(125).tells("No space left").hints("umiak");
        at(&["system", "check"]).ok().says("");
        assert_eq!(std::fs::read_dir(store.join("staging")).unwrap().count(), 0);
    }
    // Not even a record fits.
    let filler = std::fs::File::create(root.join("filler")).unwrap();
    let mut at_end = 0;
    while filler.write_at(&[1; 4096], at_end).is_ok_and(|count| count > 0) {
        at_end += 4096;
    }
    let id = at(&["images", "-q"]).ok().stdout;
    at(&["pull", "-q", &source("nasty")]).exits(125);
    at(&["system", "check"]).ok().says("");
    assert_eq!(at(&["images", "-q"]).ok().stdout, id);
    // Emptied first: a program that another test is about to start may hold the file for a moment still.
    filler.set_len(0).unwrap();
    drop(filler);
    std::fs::remove_file(root.join("filler")).unwrap();
    at(&["run", "--rm", "--network", "none", "busybox", "echo", "well"]).ok().says("well");
    at(&["rmi", "--all"]).ok();
    drop(mounted);
}

/// Makes a command anew whenever it is called, on any thread.
fn again(umiak: &Umiak, args: &[&str]) -> impl Fn() -> Command + Sync + use<> {
    let plain = umiak.command(args);
    let own = |text: &std::ffi::OsStr| text.to_owned();
    let program = own(plain.get_program());
    let args: Vec<_> = plain.get_args().map(own).collect();
    let env: Vec<_> = plain.get_envs().filter_map(|(name, value)| Some((own(name), own(value?)))).collect();
    move || {
        let mut command = Command::new(&program);
        command.args(&args).env_clear().envs(env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }
}

#[test]
fn pulls_beside_removals_lose_nothing() {
    requires!(Need::ManyIds);
    let umiak = Umiak::new();
    let files = files(60);
    let sources: Vec<String> = (0..3).map(|number| related(&umiak.dir, number, &files)).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let done = || stop.load(std::sync::atomic::Ordering::Relaxed);
    let prune = again(&umiak, &["image", "prune", "-af"]);
    let check = again(&umiak, &["system", "check", "--quick"]);
    let pulls: Vec<_> = sources.iter().map(|source| again(&umiak, &["pull", "-q", source])).collect();
    let run = |command: &(dyn Fn() -> Command + Sync)| {
        let child = command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, b"", "beside others".to_owned())
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done() {
                let pruned = run(&prune);
                assert_eq!(pruned.code, Some(0), "{}", pruned.stderr);
            }
        });
        scope.spawn(|| {
            while !done() {
                let checked = run(&check);
                assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);
            }
        });
        let pulling: Vec<_> = pulls
            .iter()
            .map(|pull| {
                scope.spawn(|| {
                    for _ in 0..8 {
                        let pulled = run(pull);
                        // The only thing that may happen is that it is pruned once it is there.
                        let gone = pulled.stderr.contains("there is no image");
                        assert!(pulled.code == Some(0) || gone, "{}", pulled.stderr);
                    }
                })
            })
            .collect();
        let failed = pulling.into_iter().filter_map(|pull| pull.join().err()).count() > 0;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(!failed);
    });
    for source in &sources {
        umiak.run(&["pull", "-q", source]).ok();
    }
    umiak.run(&["system", "check"]).ok().says("");
    umiak.run(&["image", "prune", "-af"]).ok();
    assert!(layers(&umiak.dir.join("store")).is_empty());
}

/// Something that is mounted until its value goes.
struct Mounted(PathBuf);

impl Mounted {
    fn new(args: &[&str], at: &Path) -> Result<Self, String> {
        let output = Command::new("mount").args(args).arg(at).output().unwrap();
        let error = || String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(Self(at.to_owned())) } else { Err(error()) }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A process that syncs after a pull has it open for a moment.
        for _ in 0..100 {
            if Command::new("umount").arg(&self.0).stderr(Stdio::null()).status().unwrap().success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// Pulls, runs, shares, damages and removes in a store on the file system at `dir`.
fn use_store(umiak: &Umiak, dir: &Path, kind: &str) {
    let store = dir.join("store");
    let at = |args: &[&str]| umiak.run_elsewhere(&store, args);
    at(&["pull", "-q", &format!("oci:{}", images().join("busybox").display())]).ok();
    at(&["pull", "-q", &format!("oci:{}", images().join("nasty").display())]).ok();
    at(&["run", "--rm", "--network", "none", "busybox", "echo", kind]).ok().says(kind);
    let files = files(100);
    let sources: Vec<String> = (0..3).map(|number| related(&umiak.dir.join(kind), number, &files)).collect();
    for source in &sources {
        at(&["pull", "-q", source]).ok();
    }
    let sum: u64 = files.iter().map(|(_, data)| data.len() as u64).sum();
    assert!(shared(&store) > sum, "{kind}: {} of {sum} bytes are shared", shared(&store));
    at(&["system", "check"]).ok().says("");
    let written = [
        "run",
        "--name",
        "box",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo x >>/bin/sh; rm /bin/ls; ls",
    ];
    assert_ne!(at(&written).code, Some(125), "{kind}");
    at(&["rm", "box"]).ok();
    at(&["system", "check"]).ok().says("");
    at(&["rmi", "--all"]).ok();
    assert!(layers(&store).is_empty(), "{kind}");
}

fn on_a_disk(kind: &str, make: &[&str], megabytes: u64) {
    requires!(Need::Root, Need::Image("busybox"), Need::Image("nasty"));
    let Some(program) = tool(&format!("mkfs.{kind}")) else {
        skip(&format!("needs the program mkfs.{kind}"), false);
        return;
    };
    let umiak = Umiak::new();
    let (image, dir) = (umiak.dir.join("disk"), umiak.dir.join("mounted"));
    std::fs::create_dir(&dir).unwrap();
    std::fs::File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
    assert!(Command::new(program).args(make).arg(&image).stdout(Stdio::null()).status().unwrap().success());
    match Mounted::new(&["-t", kind, "-o", "loop", image.to_str().unwrap()], &dir) {
        Ok(_mounted) => use_store(&umiak, &dir, kind),
        Err(why) => skip(&format!("{kind} cannot be mounted: {why}"), false),
    }
}

#[test]
fn on_ext4() {
    on_a_disk("ext4", &["-q"], 64);
}

#[test]
fn on_xfs() {
    on_a_disk("xfs", &["-q"], 320);
}

#[test]
fn on_btrfs() {
    on_a_disk("btrfs", &["-q"], 160);
}

#[test]
fn on_tmpfs() {
    requires!(Need::Root, Need::Image("busybox"), Need::Image("nasty"));
    let umiak = Umiak::new();
    let dir = umiak.dir.join("mounted");
    std::fs::create_dir(&dir).unwrap();
    let mounted = Mounted::new(&["-t", "tmpfs", "none"], &dir).unwrap();
    use_store(&umiak, &dir, "tmpfs");
    drop(mounted);
}

#[test]
fn without_attributes_and_overlays() {
    requires!(Need::Root, Need::Image("busybox"), Need::Image("nasty"), Need::Tool("bindfs"));
    let umiak = Umiak::new();
    let (source, dir) = (umiak.dir.join("source"), umiak.dir.join("mounted"));
    for dir in [&source, &dir] {
        std::fs::create_dir(dir).unwrap();
    }
    let info = |store: &Path| {
        let template = "{{.host.isolation.files.rung}}";
        umiak.run_elsewhere(store, &["info", "--format", template]).ok().stdout
    };
    assert_eq!(info(&umiak.dir.join("store")).trim(), "overlay");
    // As network file systems are: no extended attributes, no overlay can write to it.
    let mounted = Command::new("bindfs").args(["--xattr-none"]).args([&source, &dir]).output().unwrap();
    if !mounted.status.success() {
        return skip(&format!("bindfs: {}", String::from_utf8_lossy(&mounted.stderr)), false);
    }
    let _mounted = Mounted(dir.clone());
    use_store(&umiak, &dir, "copies");
    assert_eq!(info(&dir.join("store")).trim(), "copies");
    assert_eq!(std::fs::read_dir(dir.join("store/staging")).unwrap().count(), 0);
}

#[test]
fn inside_an_overlay() {
    requires!(Need::Root, Need::Image("busybox"), Need::Image("nasty"));
    let umiak = Umiak::new();
    for part in ["lower", "upper", "work", "mounted"] {
        std::fs::create_dir(umiak.dir.join(part)).unwrap();
    }
    let text = |part: &str| umiak.dir.join(part).display().to_string();
    let options = format!("lowerdir={},upperdir={},workdir={}", text("lower"), text("upper"), text("work"));
    let dir = umiak.dir.join("mounted");
    match Mounted::new(&["-t", "overlay", "-o", &options, "none"], &dir) {
        Ok(_mounted) => use_store(&umiak, &dir, "overlay"),
        Err(why) => skip(&format!("an overlay cannot be mounted: {why}"), false),
    }
}

#[test]
fn images_of_another_store_are_used_where_they_lie() {
    requires!(Need::Image("busybox"), Need::Image("nasty"));
    let umiak = Umiak::new();
    let shared = umiak.dir.join("shared");
    let source = |name: &str| format!("oci:{}", images().join(name).display());
    umiak.run_elsewhere(&shared, &["pull", "-q", &source("busybox")]).ok();
    let before = umiak.run_elsewhere(&shared, &["images", "--no-trunc"]).ok().stdout;
    let option = format!("additionalimagestore={}", shared.display());
    let with = |args: &[&str]| umiak.run(&[&["--storage-opt", &option], args].concat());
    umiak.run(&["images", "-q"]).ok().says("");
    with(&["images", "--format", "{{.Repository}} {{.ReadOnly}}"]).ok().says("localhost/busybox true");
    with(&["images"]).ok().has("R/O");
    with(&["images", "-q", "--filter", "readonly=false"]).ok().says("");
    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "echo x >/etc/new; rm /bin/vi; echo well",
    ];
    with(&run).ok().says("well");
    assert!(layers(&umiak.dir.join("store")).is_empty(), "nothing was copied");
    let tree = shared.join("layers");
    let kept = layers(&shared)[0].join("diff/bin/vi");
    assert!(kept.symlink_metadata().is_ok(), "{}", tree.display());
    // A second pull finds the layers, too; what is only here is removed here.
    with(&["pull", "-q", &source("busybox")]).ok();
    assert!(layers(&umiak.dir.join("store")).is_empty());
    with(&["images", "--format", "{{.Repository}} {{.ReadOnly}}"]).ok().says("localhost/busybox false");
    with(&["system", "check"]).ok().says("");
    with(&["rmi", "busybox"]).ok();
    with(&["images", "--format", "{{.Repository}} {{.ReadOnly}}"]).ok().says("localhost/busybox true");
    // Names of one's own can be given and taken; the store's own cannot.
    with(&["tag", "busybox", "mine"]).ok();
    with(&["run", "--rm", "--network", "none", "mine", "echo", "mine"]).ok().says("mine");
    with(&["system", "check"]).ok().says("");
    with(&["rmi", "mine"]).ok().has("Untagged: localhost/mine:latest");
    for refused in [&["rmi", "busybox"][..], &["rmi", "-f", "busybox"], &["untag", "busybox"]] {
        with(refused).exits(125).tells("which is only read");
    }
    with(&["rmi", "--all"]).ok();
    with(&["image", "prune", "-af"]).ok();
    with(&["system", "prune", "-af"]).ok();
    // An image that stands on one of the other store, and a container on that.
    with(&["create", "--name", "box", "--network", "none", "busybox", "sh", "-c", "echo made >/made"]).ok();
    with(&["start", "-a", "box"]).ok();
    with(&["commit", "-q", "box", "made"]).ok();
    assert_eq!(layers(&umiak.dir.join("store")).len(), 1);
    with(&["run", "--rm", "--network", "none", "made", "cat", "/made"]).ok().says("made");
    let archive = umiak.dir.join("made.tar").display().to_string();
    with(&["save", "-q", "-o", &archive, "made"]).ok();
    Umiak::new().run(&["load", "-q", "-i", &archive]).ok();
    with(&["rm", "box"]).ok();
    assert_eq!(umiak.run_elsewhere(&shared, &["images", "--no-trunc"]).ok().stdout, before);
    umiak.run_elsewhere(&shared, &["system", "check"]).ok().says("");
    // The environment names it as well; what is no store is refused.
    let mut command = umiak.command(&["images", "--format", "{{.ReadOnly}}", "busybox"]);
    let output = command.env("UMIAK_ADDITIONAL_STORES", &shared).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "true\n");
    let nowhere = format!("additionalimagestore={}", umiak.dir.display());
    umiak.run(&["--storage-opt", &nowhere, "images"]).exits(125).tells("no format.json");
    umiak.run(&["--storage-opt", "additionalimagestore", "images"]).exits(125).tells("NAME=VALUE");
    umiak.run(&["--storage-opt", "size=1G", "images"]).exits(125).tells("not supported yet");
}

#[test]
fn layers_of_anothers_store_are_made_anew() {
    requires!(Need::ManyIds, Need::Image("busybox"));
    let umiak = Umiak::new();
    let shared = umiak.dir.join("shared");
    let source = format!("oci:{}", images().join("busybox").display());
    umiak.run_elsewhere(&shared, &["pull", "-q", &source]).ok();
    // Unpacked for other ids, it is of no use for a container as it is.
    let record = layers(&shared)[0].join("layer.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let (own, other) =
        if text.contains("\"host\"") { ("\"host\"", "\"mapped\"") } else { ("\"mapped\"", "\"host\"") };
    assert!(text.contains(own));
    std::fs::write(&record, text.replace(own, other)).unwrap();
    let option = format!("additionalimagestore={}", shared.display());
    let run = ["run", "--rm", "--network", "none", "busybox", "stat", "-c", "%u", "/bin"];
    umiak.run(&[&["--storage-opt", &option], &run[..]].concat()).ok().says("0");
    assert_eq!(layers(&umiak.dir.join("store")).len(), 1);
}
