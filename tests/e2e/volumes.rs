//! Volumes: their first content, their end; and what happens where overlayfs cannot be had.

use std::process::Command;

use crate::requires;
use crate::support::{Need, Umiak, images};

/// The volumes of a world's store.
fn volumes(umiak: &Umiak) -> usize {
    std::fs::read_dir(umiak.dir.join("store/volumes")).map_or(0, Iterator::count)
}

#[test]
fn a_new_volume_gets_what_the_image_has_there() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let run = |options: &[&str], script: &str| {
        let common = ["run", "--rm", "--network", "none"];
        umiak.run(&[&common[..], options, &["busybox", "sh", "-c", script]].concat())
    };
    let passwd = run(&[], "cat /etc/passwd").ok().stdout;
    run(&["-v", "conf:/etc"], "cat /etc/passwd; echo mine > /etc/added").ok().says(passwd.trim_end());
    // The volume keeps what was changed; another directory's files are not mixed into it.
    run(&["-v", "conf:/etc"], "cat /etc/added").ok().says("mine");
    run(&["-v", "conf:/bin/nothing"], "cat /bin/nothing/added").ok().says("mine");
    run(&["-v", "empty:/etc:nocopy"], "ls /etc/passwd").exits(1);
    // Not through the image's own links.
    let links = run(&["-v", "links:/etc"], "ls -l /etc | grep -c ^l; ls /etc | wc -l").code;
    assert_eq!(links, Some(0));
    let mount = ["--mount", "type=tmpfs,destination=/etc,tmpcopyup"];
    run(&mount, "grep ' /etc tmpfs ' /proc/mounts > /dev/null && cat /etc/passwd")
        .ok()
        .says(passwd.trim_end());
}

#[test]
fn an_images_own_volume() {
    requires!(Need::Image("configured"), Need::ManyIds);
    let umiak = Umiak::with_image("configured");
    let run = |options: &[&str], program: &[&str]| {
        umiak.run(&[&["run", "--network", "none", "-u", "0", "--entrypoint"], program, options].concat())
    };
    // Without --rm the volume stays as long as its container, and goes with `rm -v`.
    run(&["--name", "keeper", "configured", "/data/seed"], &["cat"]).ok().says("seed");
    assert_eq!(volumes(&umiak), 1);
    assert_eq!(
        umiak.inspect("keeper", "{{(index .Mounts 0).Destination}} {{(index .Mounts 0).Type}}"),
        "/data volume"
    );
    umiak.run(&["rm", "-v", "keeper"]).ok();
    assert_eq!(volumes(&umiak), 0);
    run(&["--rm", "configured", "/data/seed"], &["cat"]).ok().says("seed");
    crate::support::eventually("the volume is gone", || volumes(&umiak) == 0);
}

#[test]
fn volumes_without_a_name_go_with_rm() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let line =
        ["run", "--rm", "--network", "none", "-v", "/scratch", "-v", "named:/kept", "busybox", "sh", "-c"];
    umiak.run(&[&line[..], &["echo x > /scratch/a && echo y > /kept/b"]].concat()).ok();
    crate::support::eventually("only the named volume is left", || volumes(&umiak) == 1);
    assert_eq!(std::fs::read_to_string(umiak.dir.join("store/volumes/named/_data/b")).unwrap(), "y\n");
    // Also when the program fails or cannot be started.
    umiak.run(&[&line[..], &["exit 3"]].concat()).exits(3);
    umiak.run(&["run", "--rm", "-v", "/scratch", "busybox", "no-such-program"]).exits(127);
    // Or made.
    umiak.run(&["create", "--name", "taken", "busybox"]).ok();
    umiak.run(&["create", "--name", "taken", "-v", "/scratch", "busybox"]).exits(125).tells("taken");
    umiak
        .run(&["create", "--cidfile", "/no/such/dir", "-v", "/scratch", "busybox"])
        .exits(125)
        .tells("/no/such/dir");
    crate::support::eventually("only the named volume is left", || volumes(&umiak) == 1);
}

#[test]
fn a_store_on_an_overlay_is_copied() {
    requires!(
        Need::Root,
        Need::Image("busybox"),
        Need::Image("configured"),
        Need::Image("nasty"),
        Need::Tool("unshare")
    );
    // The upper layer of an overlay mount cannot be on another: what a container in a container meets.
    let umiak = Umiak::new();
    let script = "set -e; mkdir space; mount -t tmpfs tmpfs space; cd space; mkdir lower upper work top; \
        mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work top; cd top; \
        u() { \"$UMIAK\" --root \"$PWD/store\" --runroot \"$PWD/run\" \"$@\"; }; \
        u pull -q oci:$IMAGES/busybox:localhost/busybox:latest; u pull -q oci:$IMAGES/configured:localhost/configured:latest; \
        u run --rm --network none busybox sh -c 'echo new > /etc/motd; cat /etc/motd; '; \
        u run --name kept --network none -u 0 --entrypoint sh configured -c 'cat /data/seed; ls /added 2>&1 | wc -l; echo more > /added; id -u app'; \
        ls -d store/containers/*/rootfs | wc -l; \
        u start -a kept; \
        u run -d --name box --network none busybox sleep 1000 > /dev/null; u exec box cat /etc/hostname | wc -l; \
        u pull -q oci:$IMAGES/nasty:localhost/nasty:latest; \
        u run --rm --network none --entrypoint /bin/sh nasty -c \"$LIST\" > ../here; \
        \"$UMIAK\" --root \"$PWD/../plain\" --runroot \"$PWD/run2\" pull -q oci:$IMAGES/nasty:localhost/nasty:latest; \
        \"$UMIAK\" --root \"$PWD/../plain\" --runroot \"$PWD/run2\" run --rm --network none --entrypoint /bin/sh nasty -c \"$LIST\" > ../there; \
        cmp ../here ../there && wc -l < ../here | grep -q ... && echo alike; \
        u rm -f -t 0 box kept; u rmi --all > /dev/null; \
        find store/containers store/layers store/staging store/trash -mindepth 1 | sed 's/^/left: /'";
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .current_dir(&umiak.dir)
        .env("UMIAK", Umiak::binary())
        .env("IMAGES", images())
        .env("LIST", "find / -xdev ! -path / ! -path '/dev*' ! -path '/proc*' ! -path '/sys*' ! -path /etc/hosts -exec stat -c '%a %u %g %t %T %F %n' {} + | sort")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().filter(|line| line.len() != 64).collect();
    let expected = ["new", "seed", "1", "1000", "1", "seed", "1", "1000", "1", "alike", "box", "kept"];
    assert_eq!(lines, expected, "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
}

#[test]
fn what_is_copied_into_a_volume() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    // An image with a directory of everything.
    let script = "mkdir -p /full/sub && cd /full && echo x > file && ln file sub/link && ln -s file soft && \
        mkfifo pipe && touch -d '2001-02-03 04:05:06' file && chmod 4750 file && chmod 1777 sub";
    umiak.run(&["run", "--name", "full", "busybox", "sh", "-c", script]).ok();
    umiak.run(&["commit", "-q", "full", "localhost/full:latest"]).ok();
    let list =
        "cd /full && stat -c '%n %a %h %Y %F' file sub sub/link soft pipe | sed 's/symbolic link/link/'";
    let lines = |options: &[&str]| {
        umiak.run(&[&["run", "--rm"], options, &["localhost/full", "sh", "-c", list]].concat()).ok().stdout
    };
    assert_eq!(lines(&["-v", "copied:/full"]), lines(&[]));
}

#[test]
fn volumes_with_options() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let create = |options: &[&str]| umiak.run(&[&["volume", "create"], options].concat());
    let run = |options: &[&str], script: &str| {
        umiak
            .run(&[&["run", "--rm", "--network", "none"], options, &["busybox", "sh", "-c", script]].concat())
    };
    create(&["--opt", "type=tmpfs", "--opt", "device=tmpfs", "-o", "o=size=1m,mode=700", "mem"])
        .ok()
        .says("mem");
    run(&["-v", "mem:/m"], "grep ' /m ' /proc/mounts").ok().has("tmpfs").has("size=1024k");
    assert!(
        umiak
            .run(&["volume", "inspect", "mem", "--format", "{{.Options.type}} {{.Options.o}}"])
            .ok()
            .stdout
            .contains("tmpfs size=1m,mode=700")
    );
    // One that two containers have at a time is the same for both.
    umiak
        .run(&[
            "run",
            "-d",
            "--name",
            "first",
            "-v",
            "mem:/a",
            "busybox",
            "sh",
            "-c",
            "echo here > /a/f; exec sleep 100",
        ])
        .ok();
    crate::support::eventually("the file is there", || {
        umiak.run(&["exec", "first", "test", "-s", "/a/f"]).code == Some(0)
    });
    run(&["-v", "mem:/b"], "cat /b/f; echo back > /b/g").ok().says("here");
    umiak.run(&["exec", "first", "cat", "/a/g"]).ok().says("back");
    umiak.run(&["rm", "-f", "-t", "0", "first"]).ok();
    // The same, made at first use.
    let made = r#"src=made,dst=/m,volume-opt=type=tmpfs,volume-opt=device=tmpfs,"volume-opt=o=size=2m",volume-label=of=us"#;
    run(&["--mount", made], "grep ' /m ' /proc/mounts").ok().has("tmpfs").has("size=2048k");
    umiak
        .run(&["volume", "inspect", "made", "--format", "{{.Options.o}} {{.Labels.of}}"])
        .ok()
        .says("size=2m us");
    run(&["--mount", "src=odd,dst=/m,volume-opt=shiny=1"], "true").exits(125).tells("shiny=1");
    umiak.run(&["volume", "exists", "odd"]).exits(1);
    run(&["-v", "mem:/m:O"], "true").exits(125).tells("not supported yet");
    run(&["-v", "mem:/m:ro"], "touch /m/x").exits(1);
    let dir = umiak.dir.join("bound");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "host\n").unwrap();
    let device = format!("device={}", dir.display());
    create(&["--opt", "type=none", "--opt", "o=bind", "--opt", &device, "bound"]).ok();
    run(&["-v", "bound:/m"], "cat /m/f; touch /m/new").ok().says("host");
    assert!(dir.join("new").exists());
    run(&["-v", "bound:/m:O"], "rm /m/new; cat /m/f").ok().says("host");
    assert!(dir.join("new").exists());
    run(&["--mount", "type=volume,src=bound,dst=/p,subpath=f"], "cat /p").ok().says("host");
    create(&["--opt", "type=none", "--opt", "o=bind,ro", "--opt", &device, "fixed"]).ok();
    run(&["-v", "fixed:/m"], "touch /m/x").exits(1);
    create(&["--opt", "type=none", "--opt", "o=bind", "--opt", "device=/no/such", "lost"]).ok();
    run(&["-v", "lost:/m"], "true").exits(125).tells("/no/such");
    for name in ["low", "up", "work"] {
        std::fs::create_dir(umiak.dir.join(name)).unwrap();
    }
    std::fs::write(umiak.dir.join("low/f"), "low\n").unwrap();
    let place = |name: &str| umiak.dir.join(name).display().to_string();
    let options = format!("o=lowerdir={},upperdir={},workdir={}", place("low"), place("up"), place("work"));
    create(&["--opt", "type=overlay", "--opt", "device=overlay", "--opt", &options, "over"]).ok();
    run(&["-v", "over:/m"], "cat /m/f; echo up > /m/new").ok().says("low");
    assert!(umiak.dir.join("up/new").exists() && !umiak.dir.join("low/new").exists());
    let _ = Command::new("chmod").arg("-R").arg("u+rwx").arg(umiak.dir.join("work")).status();
    for bad in ["type=ext4", "odd=1", "size=1g", "o=size=1g", "nonsense", "o=uid=x", "o=ro"] {
        create(&["--opt", bad, "bad"]).exits(125).tells("--opt");
    }
    create(&["--driver", "nfs", "bad"]).exits(125).tells("nfs");
    if !rustix::process::geteuid().is_root() {
        create(&["--opt", "type=ext4", "--opt", "device=/dev/sda", "bad"]).exits(125).tells("only root");
    }
}

#[test]
fn volumes_with_owners() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    umiak.run(&["volume", "create", "--uid", "1000", "--gid", "50", "mine"]).ok();
    umiak.run(&["volume", "create", "-o", "o=uid=1001", "other"]).ok();
    umiak.run(&["volume", "create", "-o", "type=tmpfs", "mem"]).ok();
    umiak.run(&["run", "--rm", "-u", "1000", "-v", "mem:/new/mem", "busybox", "touch", "/new/mem/x"]).ok();
    let line = ["run", "--rm", "-u", "1000", "-v", "mine:/m", "-v", "other:/etc", "busybox", "sh", "-c"];
    let script = "touch /m/x && stat -c %u:%g /m && stat -c %u /etc && test -s /etc/passwd && echo full";
    umiak.run(&[&line[..], &[script]].concat()).ok().says("1000:50\n1001\nfull");
}
