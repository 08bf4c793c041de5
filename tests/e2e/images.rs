//! Images: every transport, a registry, what a nasty layer becomes, `images` and `rmi`.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::requires;
use crate::support::{Need, Registry, Umiak, images, tool};

#[test]
fn every_transport_gives_the_same_image() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::new();
    let dir = images().display().to_string();
    let mut ids = Vec::new();
    for source in [
        format!("oci:{dir}/busybox:localhost/busybox:latest"),
        format!("oci-archive:{dir}/busybox.tar"),
        format!("docker-archive:{dir}/busybox-docker.tar"),
        format!("dir:{dir}/busybox-dir"),
    ] {
        let id = umiak.run(&["pull", "-q", &source]).ok().stdout.trim().to_owned();
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{source}: {id}");
        ids.push(id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    umiak.run(&["run", "--rm", "--network", "none", &ids[0][..12], "echo", "by id"]).ok().says("by id");
}

#[test]
fn listing_and_removing() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let table = umiak.run(&["images"]).ok().stdout;
    let titles: Vec<&str> =
        table.lines().next().unwrap().split("  ").map(str::trim).filter(|t| !t.is_empty()).collect();
    assert_eq!(titles, ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    let row = table.lines().find(|line| line.starts_with("localhost/busybox ")).unwrap();
    assert!(row.contains(" latest ") && row.contains(" ago ") && row.ends_with(" MB"), "{table}");
    umiak
        .run(&["images", "--format", "{{.Repository}}:{{.Tag}}", "busybox"])
        .ok()
        .says("localhost/busybox:latest");
    assert_eq!(umiak.run(&["images", "-q"]).ok().stdout.lines().count(), 2);
    umiak.run(&["images", "-n", "-q", "nothing"]).ok().says("");
    let json: serde_json::Value =
        serde_json::from_str(&umiak.run(&["images", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    umiak.run(&["run", "--name", "user", "busybox", "true"]).ok();
    umiak.run(&["rmi", "busybox"]).exits(2).tells("user").hints("--force");
    umiak.run(&["rmi", "configured"]).ok().has("Untagged: localhost/configured:latest").has("Deleted: ");
    umiak.run(&["rm", "user"]).ok();
    umiak.run(&["rmi", "busybox"]).ok();
    umiak.run(&["images", "-q"]).ok().says("");
    let layers = std::fs::read_dir(umiak.dir.join("store/layers")).unwrap().count();
    assert_eq!(layers, 0, "layers of removed images stay");
}

#[test]
fn from_a_registry() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let name = registry.push("busybox");
    umiak.run(&["pull", &name]).exits(125).tells(&registry.address).hints("--tls-verify=false");
    umiak.run(&["pull", "--tls-verify=false", &name]).ok();
    umiak.run(&["run", "--rm", "--network", "none", &name, "echo", "pulled"]).ok().says("pulled");
    umiak.run(&["rmi", &name]).ok();
    umiak
        .run(&["run", "--rm", "--network", "none", "--tls-verify=false", &name, "echo", "on demand"])
        .ok()
        .says("on demand");
    let missing = name.replace("busybox", "nothing");
    umiak.run(&["pull", "--tls-verify=false", &missing]).exits(125).tells("nothing");
    let missing = name.replace("latest", "v2");
    umiak.run(&["pull", "--tls-verify=false", &missing]).exits(125).tells("v2");
}

#[test]
fn a_spoiled_blob_in_a_registry() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"), Need::Tool("skopeo"));
    let umiak = Umiak::new();
    let registry = Registry::start(&umiak);
    let name = registry.push("busybox");
    let mut blobs = Vec::new();
    for prefix in std::fs::read_dir(registry.blobs()).unwrap() {
        for blob in std::fs::read_dir(prefix.unwrap().path()).unwrap() {
            blobs.push(blob.unwrap().path().join("data"));
        }
    }
    // The largest blob is the layer.
    let layer = blobs.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(layer).unwrap();
    let last = bytes.len() - 20;
    bytes[last] ^= 1;
    std::fs::write(layer, bytes).unwrap();
    umiak.run(&["pull", "--tls-verify=false", &name]).exits(125).tells("digest");
    umiak.run(&["images", "-aq"]).ok().says("");
}

/// The layout of busybox with its layer as `pack` makes it, and its media type's end; as a source.
fn repacked(umiak: &Umiak, name: &str, suffix: &str, pack: impl Fn(Vec<u8>) -> Vec<u8>) -> String {
    use std::io::Read;
    use umiak::base::digest::Digest;
    let (from, to) = (images().join("busybox"), umiak.dir.join(name));
    let blobs =
        |dir: &Path, digest: &str| dir.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    std::fs::create_dir_all(to.join("blobs/sha256")).unwrap();
    let json = |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
    let put = |bytes: &[u8], descriptor: &mut Value| {
        let digest = Digest::of(bytes).to_string();
        std::fs::write(blobs(&to, &digest), bytes).unwrap();
        descriptor["digest"] = digest.into();
        descriptor["size"] = bytes.len().into();
    };
    let mut index = json(&from.join("index.json"));
    let entry = &mut index["manifests"][0];
    let mut manifest = json(&blobs(&from, entry["digest"].as_str().unwrap()));
    let config = std::fs::read(blobs(&from, manifest["config"]["digest"].as_str().unwrap())).unwrap();
    put(&config, &mut manifest["config"]);
    for layer in manifest["layers"].as_array_mut().unwrap() {
        let packed = std::fs::File::open(blobs(&from, layer["digest"].as_str().unwrap())).unwrap();
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(packed).read_to_end(&mut plain).unwrap();
        put(&pack(plain), layer);
        layer["mediaType"] = format!("application/vnd.oci.image.layer.v1.tar{suffix}").into();
    }
    put(manifest.to_string().as_bytes(), entry);
    std::fs::write(to.join("index.json"), index.to_string()).unwrap();
    std::fs::copy(from.join("oci-layout"), to.join("oci-layout")).unwrap();
    format!("oci:{}", to.display())
}

#[test]
fn every_compression_of_layers() {
    requires!(Need::Image("busybox"), Need::Tool("zstd"));
    let umiak = Umiak::new();
    let zstd = |bytes: Vec<u8>| {
        let file = umiak.dir.join("plain");
        std::fs::write(&file, bytes).unwrap();
        let output =
            Command::new(tool("zstd").unwrap()).args(["-q", "-12", "-c"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let whole = repacked(&umiak, "zstd", "+zstd", zstd);
    // Two frames, and one to be skipped, as in images that "zstd:chunked" was used for.
    let frames = repacked(&umiak, "frames", "+zstd", |bytes| {
        let (first, second) = bytes.split_at(bytes.len() / 3);
        [zstd(first.to_vec()), zstd(second.to_vec()), b"\x50\x2a\x4d\x18\x03\0\0\0toc".to_vec()].concat()
    });
    let plain = repacked(&umiak, "plain-tar", "", |bytes| bytes);
    let mut ids = Vec::new();
    for source in [&whole, &frames, &plain] {
        let id = umiak.run(&["pull", "-q", source]).ok().stdout.trim().to_owned();
        umiak.run(&["run", "--rm", "--network", "none", &id, "echo", "unpacked"]).ok().says("unpacked");
        // So that the next one is unpacked, not found.
        umiak.run(&["rmi", "--force", &id]).ok();
        ids.push(id);
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // What is cut off or of another kind is refused, and nothing is left of it.
    let cut = repacked(&umiak, "cut", "+zstd", |bytes| {
        let mut packed = zstd(bytes);
        packed.truncate(packed.len() / 2);
        packed
    });
    umiak.run(&["pull", "-q", &cut]).exits(125).tells("zstd");
    let odd = repacked(&umiak, "odd", "+lzma", |bytes| bytes);
    umiak.run(&["pull", "-q", &odd]).exits(125).tells("tar+lzma").tells("not supported");
    umiak.run(&["images", "-aq"]).ok().says("");
}

#[test]
fn an_image_of_a_name_is_found_without_the_others() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    // A tag that cannot be read: whoever reads it fails.
    let other = umiak.dir.join("store/tags/localhost%2Fother:latest.json");
    std::fs::write(&other, "{").unwrap();
    for name in ["busybox", "localhost/busybox", "localhost/busybox:latest"] {
        umiak.run(&["run", "--rm", "--network", "none", name, "true"]).ok();
    }
    umiak.run(&["images"]).exits(125).tells("other");
    std::fs::remove_file(&other).unwrap();
}

#[test]
fn the_hello_image_has_a_time() {
    let umiak = Umiak::new();
    umiak.run(&["run", "--rm", "--network", "none", "hello"]).ok();
    let created = umiak.run(&["images", "--format", "{{.Created}}"]).ok().lacks("N/A").has("ago");
    drop(created);
    let modified = std::fs::metadata(Umiak::binary()).unwrap().modified().unwrap();
    let seconds = modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let json: Value = serde_json::from_str(&umiak.run(&["images", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!(json[0]["Created"].as_u64(), Some(seconds));
}

#[test]
fn a_nasty_image_is_unpacked_right() {
    requires!(Need::Image("nasty"), Need::ManyIds);
    let umiak = Umiak::with_image("nasty");
    let inside = |script: &str| {
        let args = ["run", "--rm", "--network", "none", "nasty", "sh", "-c", script];
        umiak.run(&args).ok().stdout.trim_end().to_owned()
    };
    for (script, expected) in [
        // Whiteouts and opaque directories.
        ("ls /gone /opaque", "/gone:\n\n/opaque:\nabove"),
        ("cat /plain/replaced /plain/was-dir; ls /plain/was-file", "new\nnow a file\nchild"),
        ("ls / | grep -e implied -e wh | wc -l", "0"),
        // Modes and owners.
        ("stat -c '%a %u:%g' /types/setuid /types/setgid /types/sticky", "4755 0:0\n2755 0:50\n1777 0:0"),
        ("stat -c '%a' /types/secret", "0"),
        ("stat -c '%u:%g' /types/owned /types/high", "1000:50\n60000:60001"),
        ("stat -c '%F' /types/fifo", "fifo"),
        (
            "for link in dangling absolute up; do readlink /types/$link; done",
            "/no/such/file\n/etc/passwd\n../../../../etc/passwd",
        ),
        ("head -c 4 /types/up", "root"),
        ("stat -c %Y /types/nanoseconds", "1700000000"),
        ("stat -c %s /types/empty /types/sparse", "0\n1048576"),
        ("tail -c +524289 /types/sparse | head -c 12", "islandisland"),
        ("[ $(du -k /types/sparse | cut -f1) -lt 100 ] && echo sparse", "sparse"),
        // Hard links, also to a file of a lower layer.
        ("cat /links/first /links/second /links/third", "linked\nlinked\nlinked"),
        // A link to it from above has copied "first" up, as overlayfs does it: the two above are one file.
        ("cd /links; [ first -ef third ] && echo same; stat -c %h first second", "same\n2\n2"),
        // Names.
        ("ls /names | wc -l", "12"),
        ("cat /names/ccc*", "255"),
        ("cat /names/ddd*/*/*/*/*/end", "deep"),
        (
            "cat /names/latin-*; cd /names; printf %s latin-* | od -An -tx1 | tr -d ' '",
            "bytes\n6c6174696e2de9ff",
        ),
        (
            "cat '/names/new\nline' '/names/-rf' '/names/ spaces and\ttabs ' /names/doubled",
            "newline\ndash\nspaces\ndoubled",
        ),
        ("readlink /names/link | wc -c", "301"),
    ] {
        assert_eq!(inside(script), expected, "{script}");
    }
    // A device of an image is dead: nobody can use it to reach the host's.
    let output =
        umiak.run(&["run", "--rm", "--network", "none", "nasty", "sh", "-c", "head -c 1 /types/block"]);
    assert_ne!(output.code, Some(0), "a block device of the image was opened");
}

#[test]
fn a_nasty_image_with_one_id() {
    requires!(Need::Image("nasty"), Need::NoSubuid);
    let umiak = Umiak::with_image("nasty");
    umiak
        .run(&["run", "--rm", "--network", "none", "nasty", "cat", "/plain/replaced", "/links/third"])
        .ok()
        .says("new\nlinked");
}

#[test]
fn layers_of_one_id_do_not_serve_for_many() {
    requires!(Need::Image("nasty"), Need::Unprivileged, Need::ManyIds);
    let mut umiak = Umiak::new();
    let usual = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    // A helper that has no privileges leaves one id.
    let helpers = umiak.dir.join("helpers");
    std::fs::create_dir(&helpers).unwrap();
    std::fs::copy("/bin/true", helpers.join("newuidmap")).unwrap();
    let poor = format!("{}:{usual}", helpers.display());
    let owner = |umiak: &Umiak, expected: &str| {
        let args = ["run", "--rm", "--network", "none", "--pull", "never", "nasty", "stat", "-c", "%u:%g"];
        umiak.run(&[&args[..], &["/types/owned"]].concat()).ok().says(expected);
    };
    let hello = |umiak: &Umiak| drop(umiak.run(&["run", "--rm", "--network", "none", "hello"]).ok());
    umiak.set_env("PATH", &poor);
    umiak.pull("nasty");
    owner(&umiak, "0:0");
    let stat = ["run", "--name", "box", "--network", "none", "nasty", "stat", "-c", "%u:%g", "/types/owned"];
    umiak.run(&stat).ok().says("0:0");
    // As stores were once: one place for both kinds.
    let layers = || {
        let dir = std::fs::read_dir(umiak.dir.join("store/layers")).unwrap();
        let mut names: Vec<_> = dir.map(|entry| entry.unwrap().path().display().to_string()).collect();
        names.sort();
        names
    };
    let single = layers();
    for path in &single {
        std::fs::rename(path, path.strip_suffix("-single").unwrap()).unwrap();
    }
    owner(&umiak, "0:0");
    // More ids: unpacked anew from the blobs, and the container keeps what it had.
    umiak.set_env("PATH", usual);
    owner(&umiak, "1000:50");
    umiak.run(&["start", "-a", "box"]).ok().says("0:0");
    umiak.set_env("PATH", &poor);
    owner(&umiak, "0:0");
    umiak.set_env("PATH", usual);
    owner(&umiak, "1000:50");
    // The image of the program itself is made anew likewise.
    hello(&umiak);
    umiak.set_env("PATH", &poor);
    hello(&umiak);
    umiak.set_env("PATH", usual);
    hello(&umiak);
    umiak.run(&["rmi", "hello"]).ok();
    let both = std::fs::read_dir(umiak.dir.join("store/layers")).unwrap().count();
    assert_eq!(both, 2 * single.len());
    umiak.run(&["rm", "box"]).ok();
    umiak.run(&["rmi", "nasty"]).ok();
    assert_eq!(std::fs::read_dir(umiak.dir.join("store/layers")).unwrap().count(), 0);
}

#[test]
fn ids_beyond_the_mapping() {
    requires!(Need::Image("ids"));
    let umiak = Umiak::new();
    let source = format!("oci-archive:{}", images().join("ids.tar").display());
    if rustix::process::geteuid().is_root() {
        umiak.run(&["pull", "-q", &source]).ok();
        umiak
            .run(&["run", "--rm", "localhost/ids", "stat", "-c", "%u:%g", "/far"])
            .ok()
            .says("2000000000:2000000001");
    } else {
        let output = umiak.run(&["pull", "-q", &source]);
        if output.code != Some(0) {
            output.exits(125).tells("2000000000").hints("subuid");
        }
    }
}

#[test]
fn the_older_form_of_sparse_files() {
    requires!(Need::Image("sparse"));
    let umiak = Umiak::new();
    let output =
        umiak.run(&["pull", "-q", &format!("oci-archive:{}", images().join("sparse.tar").display())]);
    // Either right or refused, never silently wrong.
    if output.code == Some(0) {
        let script = "stat -c %s /data/sparse; tail -c +524289 /data/sparse | head -c 6";
        umiak
            .run(&["run", "--rm", "--network", "none", "localhost/sparse", "sh", "-c", script])
            .ok()
            .says("1048576\nisland");
    } else {
        output.exits(125).tells("sparse");
    }
}

#[test]
fn a_whole_debian() {
    requires!(Need::Image("debian"), Need::ManyIds);
    let umiak = Umiak::with_image("debian");
    let script = "dpkg --verify && dpkg -l | grep -c ^ii && su nobody -s /bin/sh -c id";
    umiak.run(&["run", "--rm", "--network", "none", "debian", "sh", "-c", script]).ok().has("65534(nobody)");
}

#[test]
fn parallel_pulls_of_one_image() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::new();
    let source = format!("oci:{}:localhost/busybox:latest", images().join("busybox").display());
    let pulls: Vec<_> = (0..8).map(|_| umiak.spawn(&["pull", "-q", &source])).collect();
    let ids: Vec<String> = pulls
        .into_iter()
        .map(|pull| crate::support::finish(pull, b"", "pull".to_owned()).ok().stdout)
        .collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    umiak.run(&["run", "--rm", "--network", "none", "busybox", "true"]).ok();
}
