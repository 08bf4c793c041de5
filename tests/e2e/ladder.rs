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
        sh(&umiak, &["--security-opt", bad], "true")
            .exits(125)
            .tells("it takes real, emulated or remembered");
    }
}

const REMEMBERED: [&str; 2] = ["--security-opt", "ownership=remembered"];

/// What was said to have been done is told by all that ask: other programs, a later start, `exec`, an image of it.
#[test]
fn owners_are_remembered() {
    requires!(Need::Image("busybox"), Need::NoSubuid);
    let umiak = Umiak::with_busybox();
    let make = "cd /tmp && touch f s plain && chown 33:44 f && chown 5 /home/app && chown :6 s && chmod 6755 s && \
                chown 7 s && mkdir -p d/e && chown -R 8:9 d && touch d/e/new && ln f hard && mv d moved && \
                mknod null c 1 3 && mknod disk b 8 70000 && chown 0:6 disk && chown 0:0 /home/app";
    let look = "cd /tmp && stat -c '%n %u:%g %a' f hard s plain moved moved/e moved/e/new /home/app && \
                stat -c '%F %t:%T %g' null disk && (cd moved/e; stat -c %u .. /tmp/../tmp/f) && stat -c %u /proc/self/cwd";
    let expected = "f 33:44 644\nhard 33:44 644\ns 7:6 755\nplain 0:0 644\nmoved 8:9 755\nmoved/e 8:9 755\n\
                    moved/e/new 0:0 644\n/home/app 0:0 755\ncharacter special file 1:3 0\n\
                    block special file 8:11170 6\n8\n33\n0";
    let words =
        ["run", "--name", "box", "--network", "none", REMEMBERED[0], REMEMBERED[1], "busybox", "sh", "-c"];
    let script = format!("test -e /tmp/f || {{ {make}; }}; test ! -e /tmp/wait || sleep 1000; {look}");
    umiak.run(&[&words[..], &[&script]].concat()).ok().says(expected);
    umiak.run(&["start", "-a", "box"]).ok().says(expected);
    umiak.run(&["commit", "-q", "box", "localhost/kept:latest"]).ok();
    let run = |options: &[&str], script: &str| {
        umiak.run(&[RUN, options, &["localhost/kept", "sh", "-c", script]].concat())
    };
    let of_image =
        expected.replace("character special file 1:3 0", "").replace("block special file 8:11170 6", "");
    let look_in_image = look.replace("stat -c '%F %t:%T %g' null disk", "echo; echo");
    run(&REMEMBERED, &look_in_image).ok().says(&of_image);
    // Who does not ask for it is not told.
    run(&[], "stat -c %u:%g /tmp/f /tmp/moved").ok().says("0:0\n0:0");
    let archive = umiak.dir.join("archive.tar");
    let listed = |name: &str| {
        umiak.run(&["export", "-o", archive.to_str().unwrap(), name]).ok();
        let tar = Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&archive).output().unwrap();
        String::from_utf8(tar.stdout).unwrap()
    };
    let tar = listed("box");
    let has = |start: &str, end: &str| tar.lines().any(|line| line.starts_with(start) && line.ends_with(end));
    for (start, end) in [
        ("-rw-r--r-- 33/44 ", " tmp/f"),
        ("-rwxr-xr-x 7/6 ", " tmp/s"),
        ("drwxr-xr-x 8/9 ", " tmp/moved/"),
        ("crw-r--r-- 0/0 ", " tmp/null"),
        ("brw-r--r-- 0/6 ", " tmp/disk"),
        ("-rw-r--r-- 0/0 ", " tmp/moved/e/new"),
    ] {
        assert!(has(start, end), "{start}{end}: {tar}");
    }
    // Further processes, and after the death of who supervises.
    let file = umiak.dir.join("monitor");
    let name = umiak.detached(&[
        "--conmon-pidfile",
        file.to_str().unwrap(),
        "--name",
        "long",
        "--network",
        "none",
        REMEMBERED[0],
        REMEMBERED[1],
        "localhost/kept",
        "sleep",
        "1000",
    ]);
    let exec = |script: &str| umiak.run(&["exec", &name, "sh", "-c", script]);
    exec("stat -c %u:%g /tmp/f; chown 1:2 /tmp/plain").ok().says("33:44");
    exec("stat -c %u:%g /tmp/plain").ok().says("1:2");
    let monitor = std::fs::read_to_string(&file).unwrap();
    assert!(Command::new("kill").args(["-9", &monitor]).status().unwrap().success());
    exec("stat -c %u:%g /tmp/plain; chown 3 /tmp/plain; stat -c %u:%g /tmp/plain").ok().says("1:2\n3:2");
    umiak.run(&["kill", "long"]).ok();
}

/// Errors are the kernel's; what is refused stays refused; links, roots and descriptors are the caller's.
#[test]
fn remembering_changes_nothing_else() {
    requires!(Need::Image("busybox"), Need::NoSubuid);
    let umiak = Umiak::with_busybox();
    let remembered = |options: &[&str], script: &str| sh(&umiak, &[options, &REMEMBERED].concat(), script);
    let script = "chown 33 /none; stat /none; chown 33 ''; stat /etc/passwd/x; ln -s loop /loop; stat -L /loop; \
                  mknod /etc/passwd c 1 3; mknod /none/x c 1 3; chown 33 /proc/self/none";
    let errors = remembered(&[], script).stderr;
    for error in ["No such file", "Not a directory", "Too many levels", "File exists"] {
        assert!(errors.contains(error), "{error}: {errors}");
    }
    assert_eq!(errors.matches("No such file").count(), 5, "{errors}");
    let script = "mkdir -p /r/etc /r/bin && cp /bin/busybox /r/bin && echo inner > /r/etc/passwd && \
                  ln -s /etc/passwd /r/link && chroot /r /bin/busybox sh -c 'busybox chown 9 link' && \
                  stat -c %u /r/etc/passwd /etc/passwd && chroot /r /bin/busybox stat -L -c %u link; \
                  ln -s ../../../../../../etc/group up && chown 4 up && stat -c %u /etc/group && stat -c %u up";
    remembered(&[], script).ok().says("9\n0\n9\n4\n0");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["chown", "fchownat", "lchown"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
    let profile = umiak.file("profile.json", profile);
    let option = format!("seccomp={}", profile.display());
    remembered(&["--security-opt", &option], "chown 33 /etc/passwd 2>&1 | grep -c 'Permission denied'")
        .ok()
        .says("1");
    // A directory of the host's that is mounted read-only, and one that is not.
    let dir = umiak.dir.join("given");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("f"), "").unwrap();
    let mount = format!("{}:/given:ro", dir.display());
    remembered(&["-v", &mount], "chown 33 /given/f 2>&1; stat -c %u /given/f")
        .ok()
        .has("Read-only")
        .has("\n0\n");
    let mount = format!("{}:/given", dir.display());
    remembered(&["-v", &mount], "chown 33 /given/f; stat -c %u /given/f").ok().says("33");
    remembered(&["-v", &mount], "stat -c %u /given/f; chown 0:0 /given/f").ok().says("33");
    remembered(&["-v", &mount, "--read-only"], "stat -c %u /given/f").ok().says("0");
    // Where there is no room for it nothing is remembered, and nobody stopped.
    remembered(&[], "chown 33 /dev/null /proc && mkfifo /p && chown 33 /p && stat -c %u /p").ok().says("0");
}

/// Two answer calls of one container, each from where it has to be.
#[test]
fn owners_are_remembered_beside_a_fast_network() {
    requires!(Need::Image("busybox"), Need::Root);
    let umiak = Umiak::with_busybox();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "touch /f; chown 33:44 /f; stat -c %u:%g /f; nc -w 2 127.0.0.1 {port} </dev/null || echo inside; \
         stat -c %u:%g /f; sleep 1000"
    );
    let one = ["--uidmap", "0:0:1", "--gidmap", "0:0:1"];
    let words = ["run", "-d", "--name", "box", "--network", "fast", REMEMBERED[0], REMEMBERED[1]];
    umiak.run(&[&words[..], &one, &["busybox", "sh", "-c", &script]].concat()).ok();
    support::eventually("it has looked twice", || {
        umiak.run(&["logs", "box"]).stdout.matches("33:44").count() == 2
    });
    umiak.run(&["exec", "box", "stat", "-c", "%u:%g", "/f"]).ok().says("33:44");
    umiak.run(&["rm", "-f", "-t", "0", "box"]).ok();
}

#[test]
fn owners_are_remembered_where_one_id_was_asked_for() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    sh(&umiak, &REMEMBERED, "true").exits(125).tells("more ids than one");
    let one = ["--uidmap", "0:0:1", "--gidmap", "0:0:1", REMEMBERED[0], REMEMBERED[1]];
    sh(&umiak, &one, "touch /tmp/f; chown 33:44 /tmp/f; stat -c %u:%g /tmp/f").ok().says("33:44");
}

/// Programs that look: GNU tar, install, and dpkg with a package whose owners it checks.
#[test]
fn programs_that_look_find_owners() {
    requires!(Need::Image("debian"), Need::NoSubuid);
    let umiak = Umiak::with_image("debian");
    let script = "set -e; cd /tmp; mkdir t; touch t/a t/b; chown daemon:mail t/a; chown 1234:5678 t/b; \
                  tar --numeric-owner -cpf t.tar t; rm -r t; tar --numeric-owner -xpf t.tar; stat -c %u:%g t/a t/b; \
                  install -o www-data -g adm -m 4750 /bin/true prog; stat -c '%U:%G %a' prog; \
                  cp -a t copy; find copy -uid 1234 -printf '%f\\n'; \
                  mkdir -p p/DEBIAN p/srv; printf 'Package: otter\\nVersion: 1\\nArchitecture: all\\nMaintainer: O <o@x.org>\\nDescription: t\\n' > p/DEBIAN/control; \
                  touch p/srv/file; chown games:man p/srv/file; dpkg-deb -b p p.deb >/dev/null; \
                  dpkg-deb -c p.deb | grep -o 'games/man'; dpkg -i p.deb >/dev/null 2>&1; stat -c %U:%G /srv/file; \
                  chroot / stat -c %U:%G /srv/file; stat -c %G /etc/shadow";
    let words = [RUN, &REMEMBERED, &["debian", "sh", "-c", script]].concat();
    let expected = "1:8\n1234:5678\nwww-data:adm 4750\nb\ngames/man\ngames:man\ngames:man\nshadow";
    umiak.run(&words).ok().says(expected);
}

#[test]
fn with_one_id_a_containers_user_has_it() {
    requires!(Need::Image("busybox"), Need::NoSubuid);
    let umiak = Umiak::with_busybox();
    let script = "echo $(id -u):$(id -g); touch /home/x; stat -c %u /home/x /etc/passwd; grep Cap[EP] /proc/self/status";
    let none = "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000";
    sh(&umiak, &["-u", "app"], script).ok().says(&format!("1000:1000\n1000\n1000\n{none}"));
    sh(&umiak, &["-u", "33:7"], script).ok().says(&format!("33:7\n33\n33\n{none}"));
    sh(&umiak, &["-u", "nobodyknows"], "true").exits(126).tells("nobodyknows");
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
