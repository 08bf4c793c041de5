//! The ladder of ids: what is done where a user has one id only, and that it is left alone where he has more.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::requires;
use crate::support::{self, Need, Umiak};

const RUN: &[&str] = &["run", "--rm", "--network", "none"];

fn sh(umiak: &Umiak, options: &[&str], script: &str) -> support::Output {
    umiak.run(&[RUN, options, &["busybox", "sh", "-c", script]].concat())
}

#[test]
fn with_one_id_owners_are_emulated() {
    requires!(Need::Image("busybox"), Need::NoSubuid);
    let umiak = Umiak::with_busybox();
    // Said to have been done, and not done; what the kernel can do itself, it does, with its errors.
    let script = "touch /f && chown 33:44 /f && stat -c %u:%g /f && chown -h 33 /f && chgrp 5 /f && chown 0:0 /f && \
                  ! chown 0 /none 2>/dev/null && mknod /null c 1 3 && ! test -e /null && mknod /fifo p && \
                  test -p /fifo && su app -c 'id -u'";
    sh(&umiak, &[], script).ok().says("0:0\n0");
    sh(&umiak, &["--privileged"], "chown 33 /etc/passwd").exits(1);
    let both = ["--privileged", "--security-opt", "ownership=emulated"];
    sh(&umiak, &both, "touch /f && chown 33 /f && id -u").ok().says("0");
    sh(&umiak, &["--userns", "keep-id"], "touch /tmp/f && chown 0 /tmp/f && chown 33 /tmp/f").ok();
    let name = umiak.detached(&["--name", "long", "--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["exec", &name, "sh", "-c", "chown 33 /etc/passwd && stat -c %u /etc/passwd"]).ok().says("0");
    umiak.run(&["exec", "--privileged", &name, "chown", "33", "/etc/passwd"]).ok();
    sh(&umiak, &["--security-opt", "ownership=real"], "chown 33 /etc/passwd").exits(1);
    sh(&umiak, &["--security-opt", "ownership=emulated"], "chown 33 /etc/passwd").ok();
}

#[test]
fn what_a_profile_refuses_is_not_emulated() {
    requires!(Need::Image("busybox"), Need::NoSubuid);
    let umiak = Umiak::with_busybox();
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["chown", "fchownat", "lchown"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    let profile = umiak.file("profile.json", profile);
    let option = format!("seccomp={}", profile.display());
    let script = "chown 33 /etc/passwd 2>&1 | grep -c 'Permission denied'; mknod /null c 1 3";
    sh(&umiak, &["--security-opt", &option], script).ok().says("1");
}

#[test]
fn where_there_are_ids_nothing_is_emulated() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    sh(&umiak, &[], "touch /f && chown 33:44 /f && stat -c %u:%g /f && su app -c 'id -u'")
        .ok()
        .says("33:44\n1000");
    sh(&umiak, &["--cap-add", "mknod"], "mknod /null c 1 3 && test -c /null || echo refused")
        .ok()
        .says(if rustix::process::geteuid().is_root() { "" } else { "refused" });
    sh(&umiak, &["--security-opt", "ownership=emulated"], "true").exits(125).tells("more ids than one");
    // One id because it was asked for is one id without pretence.
    let one = ["--uidmap", "0:0:1", "--gidmap", "0:0:1"];
    sh(&umiak, &one, "chown 33 /dev/shm").exits(1);
    let emulated = [&one[..], &["--security-opt", "ownership=emulated"]].concat();
    sh(&umiak, &emulated, "chown 33 /dev/shm").ok();
}

#[test]
fn bad_choices_of_ownership() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for bad in ["ownership=", "ownership", "ownership=fake"] {
        sh(&umiak, &["--security-opt", bad], "true").exits(125).tells("it takes real or emulated");
    }
    sh(&umiak, &["--security-opt", "ownership=remembered"], "true").exits(125).tells("not supported yet");
}

#[test]
fn with_one_id_a_containers_user_has_it() {
    requires!(Need::Image("busybox"), Need::NoSubuid);
    let umiak = Umiak::with_busybox();
    let script = "echo $(id -u):$(id -g); touch /home/x; stat -c %u /home/x /etc/passwd; grep Cap[EP] /proc/self/status";
    let none = "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000";
    sh(&umiak, &["-u", "app"], script).ok().says(&format!("1000:1000\n1000\n1000\n{none}"));
    sh(&umiak, &["-u", "33:7"], script).ok().says(&format!("33:7\n33\n33\n{none}"));
    sh(&umiak, &["-u", "nobodyknows"], "true").exits(125).tells("nobodyknows");
    sh(&umiak, &["-u", "root"], "id -u").ok().says("0");
    umiak
        .run(&["run", "-d", "--name", "app", "-u", "app", "--network", "none", "busybox", "sleep", "1000"])
        .ok();
    umiak.run(&["exec", "app", "id", "-u"]).ok().says("1000");
    // Nobody else is there.
    umiak.run(&["exec", "-u", "0", "app", "id"]).exits(125).tells("is it mapped?");
}

/// Makes a repository of `count` packages, whose files belong to many, and whose scripts do what scripts of
/// packages do: users, owners, nodes, changes of the user.
const REPOSITORY: &str = r##"
import hashlib, io, sys, tarfile
place, count = sys.argv[1], int(sys.argv[2])
index = open(place + "/Packages", "w")
def tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, mode, owner, content in files:
            entry = tarfile.TarInfo(name)
            entry.mode, (entry.uid, entry.gid), entry.mtime = mode, owner, 1
            if content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return out.getvalue()
for number in range(count):
    name = "otter%d" % number
    depends = "Depends: otter%d\n" % (number - 1) if number else ""
    control = "Package: %s\nVersion: 1.0\nArchitecture: all\nMaintainer: Otter <o@example.com>\n%sDescription: test\n" % (name, depends)
    script = """#!/bin/sh -e
adduser --system --group --no-create-home --home /var/lib/NAME _NAME >/dev/null
install -d -o _NAME -g _NAME -m 2777 /var/lib/NAME
chown -R _NAME:_NAME /usr/share/NAME
chown root:adm /usr/share/NAME/file
setpriv --reuid 42 --regid 42 --clear-groups touch /var/lib/NAME/made
su -s /bin/sh _NAME -c 'touch /var/lib/NAME/by-su'
dpkg-statoverride --list /usr/share/NAME/program >/dev/null ||
    dpkg-statoverride --update --add _NAME root 4755 /usr/share/NAME/program
""".replace("NAME", name)
    data = tar([("./", 0o755, (0, 0), None), ("./usr/", 0o755, (0, 0), None), ("./usr/share/", 0o755, (0, 0), None),
        ("./usr/share/%s/" % name, 0o2775, (33, 50), None), ("./usr/share/%s/file" % name, 0o640, (1, 42), b"x" * 5000),
        ("./usr/share/%s/program" % name, 0o4755, (0, 0), b"#!/bin/sh\n")])
    package = b"!<arch>\n"
    for part, content in [("debian-binary", b"2.0\n"), ("control.tar", tar([("./control", 0o644, (0, 0), control.encode()),
            ("./postinst", 0o755, (0, 0), script.encode())])), ("data.tar", data)]:
        package += ("%-16s%-12d%-6d%-6d%-8s%-10d`\n" % (part, 1, 0, 0, "100644", len(content))).encode()
        package += content + (b"\n" if len(content) % 2 else b"")
    open("%s/%s.deb" % (place, name), "wb").write(package)
    index.write(control + "Filename: ./%s.deb\nSize: %d\nSHA256: %s\n\n" % (name, len(package), hashlib.sha256(package).hexdigest()))
"##;

fn python(program: &str, args: &[&str]) {
    let status = Command::new("python3").args(["-c", program]).args(args).status().unwrap();
    assert!(status.success());
}

/// A directory that a container may read.
fn share(umiak: &Umiak, name: &str) -> PathBuf {
    let dir = umiak.dir.join(name);
    std::fs::create_dir(&dir).unwrap();
    dir
}

#[test]
fn apt_installs_packages() {
    requires!(Need::Image("debian"), Need::Tool("python3"));
    let umiak = Umiak::with_image("debian");
    let repository = share(&umiak, "repository");
    python(REPOSITORY, &[repository.to_str().unwrap(), "4"]);
    let mount = format!("{}:/repository:ro", repository.display());
    let script = "rm -rf /etc/apt/sources.list.d/* && echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list \
        && export DEBIAN_FRONTEND=noninteractive && apt-get update && apt-get install -y otter3 && dpkg --audit \
        && test -u /usr/share/otter3/program && test -e /var/lib/otter3/by-su && ls -ldn /var/lib/otter3 \
        && apt-get install --reinstall -y otter0 && apt-get purge -y otter3 && ! test -e /usr/share/otter3/file \
        && echo done";
    let output = umiak.run(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-v",
        &mount,
        "localhost/debian",
        "sh",
        "-c",
        script,
    ]);
    assert!(output.stdout.ends_with("done\n"), "{}\n{}", output.stdout, output.stderr);
    output.ok();
}

#[test]
fn apt_is_told_of_the_one_id_and_the_image_is_not() {
    requires!(Need::Image("debian"), Need::NoSubuid);
    let umiak = Umiak::with_image("debian");
    umiak
        .run(&["run", "--name", "a", "--network", "none", "localhost/debian", "sh", "-c", "echo $APT_CONFIG"])
        .ok()
        .says("/run/.apt.conf");
    umiak.run(&["diff", "a"]).ok().lacks("apt.conf");
    umiak.run(&["commit", "-q", "a", "localhost/b"]).ok();
    umiak
        .run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--security-opt",
            "ownership=real",
            "localhost/b",
            "ls",
            "/run",
        ])
        .ok()
        .lacks("apt");
    let image = umiak.run(&["image", "inspect", "localhost/b"]).ok().stdout;
    assert!(!image.contains("APT_CONFIG="), "{image}");
    let own = [
        "run",
        "--rm",
        "--network",
        "none",
        "-e",
        "APT_CONFIG=/mine",
        "localhost/b",
        "printenv",
        "APT_CONFIG",
    ];
    umiak.run(&own).ok().says("/mine");
}

/// A wheel with one module and one program.
const WHEEL: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1] + "/otter-1.0-py3-none-any.whl", "w") as wheel:
    wheel.writestr("otter.py", "def main():\n    print('swims')\n")
    info = "otter-1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: otter\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "entry_points.txt", "[console_scripts]\notter=otter:main\n")
    wheel.writestr(info + "RECORD", "otter.py,,\n%sMETADATA,,\n%sWHEEL,,\n%sentry_points.txt,,\n%sRECORD,,\n" % ((info,) * 4))
"#;

#[test]
fn pip_installs_a_wheel() {
    requires!(Need::Image("debian"), Need::Tool("python3"));
    let wheels = Path::new("/usr/share/python-wheels");
    let pip = std::fs::read_dir(wheels).into_iter().flatten().flatten().map(|entry| entry.path());
    let pip =
        pip.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("pip-")));
    let Some(pip) = pip.last() else {
        support::skip("needs pip's wheel: python3-pip-whl", false);
        return;
    };
    let umiak = Umiak::with_image("debian");
    let wheel = share(&umiak, "wheel");
    python(WHEEL, &[wheel.to_str().unwrap()]);
    let mount = format!("{}:/wheel:ro", wheel.display());
    // The host's programs, for the image has no Python.
    let script = format!(
        "/usr/bin/python3 {}/pip install --root-user-action ignore --no-index --break-system-packages --no-cache-dir \
         /wheel/otter-1.0-py3-none-any.whl && otter && /usr/bin/python3 {}/pip uninstall --break-system-packages -y otter && ! otter",
        pip.display(),
        pip.display()
    );
    let words = [
        "-v",
        "/usr:/usr:ro",
        "--tmpfs",
        "/usr/local:exec",
        "-v",
        &mount,
        "localhost/debian",
        "sh",
        "-c",
        &script,
    ];
    umiak.run(&[RUN, &words].concat()).ok().has("swims\n");
}

/// Containers within each other: each is started by root of the one around, who has no powers over it.
#[test]
fn three_deep() {
    requires!(Need::Image("busybox"), Need::Unprivileged);
    let umiak = Umiak::with_busybox();
    let (image, binary) = (support::images().join("busybox"), Umiak::binary());
    let mounts = [format!("{}:/image:ro", image.display()), format!("{}:/umiak:ro", binary.display())];
    let open = "--security-opt seccomp=unconfined --security-opt unmask=ALL --network none";
    let inner = |script: &str| {
        format!(
            "/umiak pull -q oci:/image:localhost/busybox:latest > /dev/null && /umiak run --rm {open} \
             -v /image:/image:ro -v /umiak:/umiak:ro busybox sh -c '{script}'"
        )
    };
    let quoted = |script: &str| script.replace('\'', "'\\''");
    let third = inner("echo third $(id -u) && touch /f && chown 0:0 /f");
    let second = inner(&quoted(&format!("echo second $(id -u); {third}")));
    let first = format!("echo first $(id -u); {second}");
    let mut words: Vec<&str> = vec!["run", "--rm", "-v", &mounts[0], "-v", &mounts[1]];
    words.extend(open.split(' '));
    words.extend(["busybox", "sh", "-c", &first]);
    umiak.run(&words).ok().says("first 0\nsecond 0\nthird 0");
    // Without that, it is said what the container around lacks.
    let plain = ["run", "--rm", "--network", "none", "-v", &mounts[0], "-v", &mounts[1], "busybox", "/umiak"];
    let told = umiak.run(&[&plain[..], &["pull", "-q", "oci:/image:localhost/busybox:latest"]].concat());
    told.exits(125).tells("user namespace").hints("seccomp=unconfined");
    umiak.run(&[&plain[..], &["doctor", "-q"]].concat()).exits(1).has("broken").has("unmask=ALL");
}
