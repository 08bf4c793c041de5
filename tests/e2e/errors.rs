//! Bad input: one clear line, a hint where the cure is known, the right exit code, nothing left.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::requires;
use crate::support::{Need, Umiak, eventually, images};

#[test]
fn unknown_and_unsupported_words() {
    let umiak = Umiak::new();
    umiak.run(&["rnu"]).exits(125).tells("unknown command `rnu`").hints("run");
    umiak.run(&["pod", "create"]).exits(125).tells("`umiak pod create` is not supported yet");
    umiak.run(&["run", "--gpus", "all", "x"]).exits(125).tells("`--gpus` of `run` is not supported yet");
    umiak.run(&["run", "--gpus", "x"]).exits(125).tells("`--gpus` of `run` is not supported yet");
    umiak.run(&["run", "--interactiv", "x"]).exits(125).tells("--interactiv").hints("--interactive");
    assert_eq!(umiak.run(&["run"]).code, Some(125));
    assert_eq!(umiak.run::<&str>(&[]).code, Some(125));
}

#[test]
fn images_that_are_not_there() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    // `--pull never` keeps the network out of it.
    umiak
        .run(&["run", "--pull", "never", "localhost/busybax", "true"])
        .exits(125)
        .tells("busybax")
        .hints("busybox");
    umiak.run(&["run", "--rm", "UPPER/case", "true"]).exits(125).tells("UPPER/case");
    umiak.run(&["run", "--rm", "", "true"]).exits(125);
    umiak.run(&["pull", "oci:/no/such/layout"]).exits(125).tells("/no/such/layout");
    umiak.run(&["pull", "oci-archive:/no/such.tar"]).exits(125).tells("/no/such.tar");
    umiak.run(&["pull", "docker-archive:/etc/passwd"]).exits(125).tells("/etc/passwd");
    umiak.run(&["pull", "dir:/etc"]).exits(125).tells("/etc");
    umiak.run(&["pull", "nonsense:/x"]).exits(125).tells("nonsense");
    umiak.run(&["rmi", "localhost/absent"]).exits(1).tells("localhost/absent");
    umiak.run(&["inspect", "--type", "image", "localhost/absent"]).exits(125).tells("localhost/absent");
}

#[test]
fn a_registry_that_is_down() {
    let umiak = Umiak::new();
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let name = format!("127.0.0.1:{port}/test/x");
    umiak
        .run(&["pull", "--tls-verify=false", &name])
        .exits(125)
        .tells(&format!("127.0.0.1:{port}"))
        .tells("refused");
    umiak.run(&["run", "--rm", "--tls-verify=false", &name, "true"]).exits(125).tells("refused");
}

#[test]
fn a_store_that_cannot_be_written() {
    requires!(Need::Image("busybox"), Need::Unprivileged);
    let umiak = Umiak::new();
    let closed = umiak.dir.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).unwrap();
    let root = closed.join("store");
    let source = format!("oci:{}", images().join("busybox").display());
    let output = umiak.run_elsewhere(&root, &["pull", &source]);
    output.exits(125).tells("closed/store").tells("permission denied");
    let file = umiak.file("file", "");
    umiak.run_elsewhere(&file, &["pull", &source]).exits(125).tells("file");
}

/// Runs a script as root in a mount namespace of its own with a small tmpfs at `DIR/small`.
fn on_a_small_disk(umiak: &Umiak, megabytes: u32, script: &str) -> (Option<i32>, String) {
    let small = umiak.dir.join("small");
    std::fs::create_dir(&small).unwrap();
    let whole =
        format!("mount -t tmpfs -o size={megabytes}m tmpfs {0} && cd {0} && {script}", small.display());
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &whole])
        .env("UMIAK", Umiak::binary())
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn a_full_disk_leaves_nothing() {
    requires!(Need::Root, Need::Image("debian"), Need::Image("busybox"));
    let umiak = Umiak::new();
    let images = images();
    let images = images.display();
    let script = format!(
        "U=\"$UMIAK --root $PWD/store --runroot $PWD/run\"; \
         $U pull -q oci:{images}/debian; echo code $?; \
         find store/staging store/trash store/images -mindepth 1 2>/dev/null | sed 's/^/left: /'; \
         $U pull -q oci:{images}/busybox:localhost/busybox:latest >/dev/null && $U run --rm --network none busybox echo still works"
    );
    let (code, text) = on_a_small_disk(&umiak, 40, &script);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("code 125\n") && text.to_lowercase().contains("no space left"), "{text}");
    assert!(!text.contains("left: ") && text.contains("still works"), "{text}");
}

#[test]
fn a_bomb_fills_no_more_than_the_disk() {
    requires!(Need::Root, Need::Image("hostile"));
    let umiak = Umiak::new();
    let script = format!(
        "$UMIAK --root $PWD/store --runroot $PWD/run pull -q oci-archive:{}/hostile/bomb.tar; echo code $?; \
         find store/staging store/trash -mindepth 1 2>/dev/null | sed 's/^/left: /'",
        images().display()
    );
    let (_, text) = on_a_small_disk(&umiak, 64, &script);
    assert!(text.contains("code 125\n") && !text.contains("left: "), "{text}");
}

#[test]
fn user_namespaces_switched_off() {
    requires!(Need::Unprivileged, Need::Image("busybox"), Need::Tool("bwrap"));
    // A sandbox whose limit of user namespaces is used up.
    let umiak = Umiak::with_busybox();
    let mut command = Command::new("bwrap");
    command.args(["--dev-bind", "/", "/", "--unshare-user", "--disable-userns", "--"]).arg(Umiak::binary());
    command.arg("--root").arg(umiak.dir.join("store")).arg("--runroot").arg(umiak.dir.join("run/umiak"));
    let output = command.args(["run", "--rm", "busybox", "true"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{text}");
    assert!(text.contains("error: ") && text.contains("user namespace") && text.contains("hint: "), "{text}");
}

#[test]
fn an_image_for_another_architecture() {
    requires!(Need::Image("hostile"));
    let umiak = Umiak::new();
    let source = format!("oci-archive:{}/hostile/other-arch.tar", images().display());
    // Podman pulls it with a warning when it is the only one; running it must not fail obscurely.
    let pulled = umiak.run(&["pull", &source]);
    assert!(pulled.stderr.contains("s390x"), "the architecture is not named: {}", pulled.stderr);
}

/// The file that a hostile whiteout wants to remove; it goes with its owner, also when a test fails.
struct Victim;

impl Victim {
    const PATH: &str = "/tmp/umiak-escaped-victim";

    fn new() -> Self {
        std::fs::write(Self::PATH, "untouched").unwrap();
        Self
    }

    fn content(&self) -> String {
        std::fs::read_to_string(Self::PATH).unwrap_or_default()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Self::PATH);
    }
}

#[test]
fn hostile_layers_are_refused_or_confined() {
    requires!(Need::Image("hostile"));
    let umiak = Umiak::new();
    let victim = Victim::new();
    let escaped = || -> Vec<_> {
        let all = std::fs::read_dir("/tmp")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap_or_default());
        all.filter(|name| name.starts_with("umiak-escaped-") && name != "umiak-escaped-victim").collect()
    };
    for name in [
        "absolute",
        "dotdot",
        "symlink-write",
        "symlink-dotdot",
        "symlink-file",
        "hardlink-outside",
        "hardlink-through",
        "whiteout-dotdot",
        "whiteout-through",
    ] {
        let output = umiak.run(&["pull", &format!("oci-archive:{}/hostile/{name}.tar", images().display())]);
        match output.code {
            Some(0) => {}
            Some(125) => drop(output.tells("")),
            code => panic!("{name}: exit code {code:?}: {}", output.stderr),
        }
        assert!(escaped().is_empty(), "{name} wrote {:?}", escaped());
        assert_eq!(victim.content(), "untouched", "{name}");
    }
    // No file of the host was linked into an image that was taken.
    let names = umiak.run(&["images", "--format", "{{.Repository}}"]).ok().stdout;
    for name in names.lines().filter(|name| name.contains("hardlink")) {
        let output =
            umiak.run(&["run", "--rm", "--network", "none", name, "cat", "/stolen", "/stolen-absolute"]);
        let secret = std::fs::read_to_string("/etc/hostname").unwrap();
        assert!(!output.stdout.contains(secret.trim()), "{name}: {}", output.stdout);
    }
}

#[test]
fn broken_images_are_refused() {
    requires!(Need::Image("hostile"));
    let umiak = Umiak::new();
    for (name, part) in [
        ("truncated", ""),
        ("wrong-digest", "digest"),
        ("wrong-size", "size"),
        ("wrong-diff-id", "diff"),
        ("layer-count", "layer"),
        ("huge-size", ""),
        ("bad-header", ""),
        ("digest-path", "digest"),
        ("missing-blob", ""),
        ("bad-json", "parsing"),
        ("no-index", ""),
    ] {
        for source in [
            format!("oci-archive:{}/hostile/{name}.tar", images().display()),
            format!("oci:{}/hostile/{name}", images().display()),
        ] {
            umiak.run(&["pull", &source]).exits(125).tells(part);
        }
    }
    umiak.run(&["images", "-aq"]).ok().says("");
}

#[test]
fn names_that_are_taken_or_wrong() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["run", "--name", "one", "busybox", "true"]).ok();
    umiak.run(&["run", "--name", "one", "busybox", "true"]).exits(125).tells("one").hints("umiak rm");
    for name in ["", "-x", "a b", "../x", "a/b"] {
        assert_eq!(
            umiak.run(&["run", &format!("--name={name}"), "busybox", "true"]).code,
            Some(125),
            "{name:?}"
        );
    }
    umiak.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().says("one");
    for command in ["exec", "logs", "stop", "kill", "wait", "inspect"] {
        let args = if command == "exec" { vec![command, "nobody", "true"] } else { vec![command, "nobody"] };
        umiak.run(&args).exits(125).tells("nobody");
    }
    umiak
        .run(&["run", "--rm", "--workdir", "/etc/passwd", "busybox", "true"])
        .exits(125)
        .tells("/etc/passwd");
}

#[test]
fn a_gone_reader_is_no_error() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    use std::process::Stdio;
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    drop(reader);
    let mut command = umiak.command(&["images"]);
    let output = command.stdout(Stdio::from(writer)).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn damaged_records_hide_nothing_and_can_be_removed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["run", "--name", "whole", "--network", "none", "busybox", "true"]).ok();
    for (file, content) in
        [("record.json", ""), ("record.json", "{\"a\":"), ("state.json", ""), ("exit", "{")]
    {
        let id = if file == "state.json" {
            umiak.detached(&["--name", "torn", "--network", "none", "busybox", "sleep", "1000"])
        } else {
            umiak.run(&["run", "--name", "torn", "--network", "none", "busybox", "true"]).ok();
            umiak.inspect("torn", "{{.Id}}")
        };
        let path = umiak.dir.join("store/containers").join(id.trim()).join(file);
        if file == "exit" {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(content, &path).unwrap();
        } else {
            std::fs::write(&path, content).unwrap();
        }
        let listed = umiak.run(&["ps", "-a", "--format", "{{.Names}}"]);
        assert!(listed.stdout.contains("whole"), "{file}: {}", listed.stdout);
        if file == "exit" {
            // An end of which nothing is known.
            umiak.run(&["ps", "-a"]).ok().has("Exited (unknown)");
        } else {
            listed.exits(125).tells(&format!("store/containers/{}/{file}", id.trim())).hints("rm -f");
        }
        umiak.run(&["rm", "-f", "torn"]).ok();
        umiak.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().says("whole");
        eventually("nothing of it runs", || crate::support::processes(&umiak.dir).is_empty());
    }
}

#[test]
fn nothing_is_mounted_over_proc_or_the_root() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let run = |destination: &str| {
        let volume = format!("{}:{destination}", umiak.dir.display());
        umiak.run(&["run", "--rm", "--network", "none", "-v", &volume, "busybox", "true"])
    };
    for destination in ["/proc", "/proc/sys", "/proc/1", "/proc/self/fd", "/x/../proc/acpi"] {
        run(destination).exits(125).tells("proc");
    }
    run("/").exits(125).tells("the container's root");
    run("/dev/../inside").ok();
}

#[test]
fn users_and_programs_that_are_not_there() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let run = |args: &[&str]| umiak.run(&[&["run", "--rm", "--network", "none"], args].concat());
    let output = run(&["-u", "nobody-such", "busybox", "true"]).exits(126).tells("nobody-such");
    assert!(!output.stderr.contains(": \n"), "{:?}", output.stderr);
    run(&["busybox", ""]).exits(127);
    run(&["-w", "/a/../../../b", "busybox", "pwd"]).ok().says("/b");
    let huge =
        umiak.file("env", &(0..4000).map(|n| format!("A{n}={}\n", "x".repeat(1000))).collect::<String>());
    let cidfile = umiak.dir.join("cid");
    // With --rm the file would go with the container.
    umiak
        .run(&[
            "run",
            "--network",
            "none",
            "--cidfile",
            cidfile.to_str().unwrap(),
            "--env-file",
            huge.to_str().unwrap(),
            "busybox",
            "true",
        ])
        .exits(126)
        .tells("argument list too long");
    let id = std::fs::read_to_string(cidfile).unwrap();
    for tree in ["/sys/fs/cgroup/umiak", "/sys/fs/cgroup/unified/umiak"] {
        assert!(!std::path::Path::new(tree).join(&id).exists(), "its control group is left");
    }
    run(&["--env-file", "/dev/zero", "busybox", "true"]).exits(125).tells("/dev/zero");
}
