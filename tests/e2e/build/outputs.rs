//! What becomes of an image that was built.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::{build, config, context, nothing_is_left, sh, write};
use crate::requires;
use crate::support::{Need, Registry, Umiak};

const TEXT: &str = "FROM busybox AS files\nRUN mkdir -m 750 /d && echo x > /d/file && ln -s file /d/link && ln /d/file /d/hard \
    && chmod 4711 /d/file && mkfifo /d/pipe\nFROM scratch\nCOPY --from=files /d /d\nCMD [\"x\"]\n";

#[test]
fn files_in_a_directory_and_in_an_archive() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(&umiak, &[("Dockerfile", TEXT)]);
    for output in ["type=local,dest=out/new", "out/plain"] {
        build(&umiak, &dir, &["-q", "-o", output]).ok();
        let out = umiak.dir.join(output.rsplit('=').next().unwrap());
        assert_eq!(std::fs::read_to_string(out.join("d/link")).unwrap(), "x\n");
        let stat = |name: &str| out.join(name).symlink_metadata().unwrap();
        assert_eq!(stat("d").permissions().mode() & 0o7777, 0o750);
        assert_eq!(stat("d/file").ino(), stat("d/hard").ino());
        assert_eq!(stat("d/file").uid(), rustix::process::getuid().as_raw());
        assert!(stat("d/link").is_symlink());
        // Bits that would make it the user's own program are for containers.
        let set = stat("d/file").permissions().mode() & 0o7000;
        assert_eq!(set, if rustix::process::geteuid().is_root() { 0o4000 } else { 0 });
    }
    // Once more, over what is there; never through a link.
    build(&umiak, &dir, &["-q", "-o", "out/new"]).ok();
    let victim = umiak.dir.join("victim");
    std::fs::create_dir(&victim).unwrap();
    std::fs::create_dir(umiak.dir.join("trap")).unwrap();
    symlink(&victim, umiak.dir.join("trap/d")).unwrap();
    build(&umiak, &dir, &["-q", "-o", "trap"]).exits(125).tells("trap");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
    build(&umiak, &dir, &["-q", "-o", "/proc/nothing"]).exits(125).tells("/proc/nothing");
    // As an archive in a file and on standard output, which has nothing else.
    build(&umiak, &dir, &["-q", "-o", "type=tar,dest=files.tar"]).ok();
    let listed = |bytes: &[u8]| {
        let mut names = Vec::new();
        for entry in tar::Archive::new(bytes).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            names.push(format!("{} {text}", entry.path().unwrap().display()).trim().to_owned());
        }
        names
    };
    let of_file = listed(&std::fs::read(umiak.dir.join("files.tar")).unwrap());
    assert!(
        ["d/", "d/file x", "d/link", "d/pipe"].iter().all(|name| of_file.contains(&(*name).to_owned())),
        "{of_file:?}"
    );
    for output in ["-", "type=tar,dest=-"] {
        let told = build(&umiak, &dir, &["--no-cache", "-o", output]).ok();
        assert_eq!(listed(&told.bytes), of_file);
        assert!(told.stderr.contains("STEP 1/2"), "{}", told.stderr);
    }
    build(&umiak, &dir, &["-q", "-o", "-", "-o", "type=tar,dest=-"]).exits(125).tells("standard output");
    nothing_is_left(&umiak);
}

#[test]
fn archives_of_images() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(&umiak, &[("Dockerfile", TEXT)]);
    for (output, source) in [
        ("type=oci,dest=a.tar", "oci-archive:a.tar"),
        ("type=docker,dest=b.tar", "docker-archive:b.tar"),
        ("type=oci,dest=layout,tar=false", "oci:layout"),
    ] {
        let id = build(&umiak, &dir, &["-q", "-t", "made:v1", "-o", output]).ok().stdout;
        let other = Umiak::new();
        let (kind, name) = source.split_once(':').unwrap();
        let source = format!("{kind}:{}", umiak.dir.join(name).display());
        other.run(&["pull", "-q", &source]).ok().says(id.trim());
    }
    let told = build(&umiak, &dir, &["-q", "-t", "made:v1", "-o", "type=docker,dest=-"]).ok();
    let other = Umiak::new();
    other.run_with_input(&["load"], &told.bytes).ok().has("localhost/made:v1");
    nothing_is_left(&umiak);
}

#[test]
fn names_lists_and_files_that_tell() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(&umiak, &[("Dockerfile", "FROM busybox\nCMD true\n")]);
    let files = ["--iidfile", "iid", "--iidfile-raw", "raw", "--metadata-file", "meta"];
    let names = ["-t", "one", "--tag", "two:v2", "-t", "example.com/x/three"];
    let told = build(&umiak, &dir, &[&files[..], &names].concat()).ok().stdout;
    let lines: Vec<&str> = told.lines().collect();
    let [.., first, second, third, id] = lines[..] else { panic!("{told}") };
    let said = |name: &str| format!("Successfully tagged {name}");
    assert_eq!(
        [first, second, third].map(str::to_owned),
        ["localhost/one:latest", "localhost/two:v2", "example.com/x/three:latest"].map(said)
    );
    let read = |name: &str| std::fs::read_to_string(umiak.dir.join(name)).unwrap();
    assert_eq!((read("iid"), read("raw")), (format!("sha256:{id}"), id.to_owned()));
    let meta: serde_json::Value = serde_json::from_str(&read("meta")).unwrap();
    assert_eq!(meta["containerimage.config.digest"], format!("sha256:{id}"));
    assert_eq!(meta["containerimage.digest"], umiak.inspect("one", "{{.Digest}}"));
    assert_eq!(meta["image.name"], "localhost/one:latest,localhost/two:v2,example.com/x/three:latest");
    for name in ["one", "two:v2", "example.com/x/three"] {
        assert_eq!(umiak.inspect(name, "{{.Id}}").trim_start_matches("sha256:"), id);
    }
    // A name goes over to the image that was built last; a file that tells of one goes with a failure.
    write(&dir, "Dockerfile", "FROM busybox\nCMD false\n");
    build(&umiak, &dir, &["-q", "-t", "one", "--iidfile", "iid"]).ok();
    assert_eq!(config(&umiak, "one")["Cmd"][2], "false");
    assert_eq!(config(&umiak, "two:v2")["Cmd"][2], "true");
    write(&dir, "Dockerfile", "FROM busybox\nRUN false\n");
    build(&umiak, &dir, &["-q", "--iidfile", "iid"]).exits(1).tells("line 2");
    assert!(!umiak.dir.join("iid").exists());
    // Into a list, which is made for it.
    write(&dir, "Dockerfile", "FROM busybox\nCMD list\n");
    let id = build(&umiak, &dir, &["-q", "--manifest", "several"]).ok().stdout;
    let list = umiak.run(&["manifest", "inspect", "several"]).ok().stdout;
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["manifests"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["manifests"][0]["digest"], umiak.inspect(id.trim(), "{{.Digest}}"));
    build(&umiak, &dir, &["-q", "--manifest", "several"]).ok();
    let again = umiak.run(&["manifest", "inspect", "several"]).ok().stdout;
    assert_eq!(again.matches("sha256:").count(), 1, "{again}");
    build(&umiak, &dir, &["-q", "--manifest", "one"]).exits(125).tells("one");
}

#[test]
fn to_a_registry() {
    requires!(Need::Image("busybox"), Need::Tool("docker-registry"));
    let umiak = Umiak::with_busybox();
    let registry = Registry::start(&umiak);
    let dir = context(&umiak, &[("Dockerfile", "FROM busybox\nRUN echo pushed > /x\n")]);
    let name = |tag: &str| format!("{}/made/image:{tag}", registry.address);
    build(&umiak, &dir, &["-q", "--tls-verify=false", "-t", &name("one"), "--push"]).ok();
    build(
        &umiak,
        &dir,
        &["-q", "--tls-verify=false", "-o", &format!("type=image,name={},push=true", name("two"))],
    )
    .ok();
    build(
        &umiak,
        &dir,
        &[
            "-q",
            "--tls-verify=false",
            "-o",
            &format!("type=registry,name={}", name("three")),
            "--compression-format=zstd",
        ],
    )
    .ok();
    for tag in ["one", "two", "three"] {
        let other = Umiak::new();
        other.run(&["pull", "-q", "--tls-verify=false", &name(tag)]).ok();
        assert_eq!(sh(&other, &name(tag), "cat /x"), "pushed");
    }
    // What is built on it is fetched from there, as the policy says.
    let text = format!("FROM {}\nCOPY --from={} /x /y\n", name("one"), name("two"));
    write(&dir, "Dockerfile", &text);
    let other = Umiak::new();
    build(&other, &dir, &["-q", "--pull=never", "--tls-verify=false"]).exits(125).tells("line 1");
    let told = build(&other, &dir, &["--tls-verify=false", "-t", "made"]).ok();
    assert!(told.stderr.contains("Copying blob"), "{}", told.stderr);
    assert_eq!(sh(&other, "made", "cat /y"), "pushed");
}
