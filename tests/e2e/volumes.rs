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
