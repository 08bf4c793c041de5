//! User namespaces, and namespaces of other containers.

use crate::requires;
use crate::support::{self, Need, Umiak};

const RUN: &[&str] = &["run", "--rm", "--network", "none"];

fn sh(umiak: &Umiak, options: &[&str], script: &str) -> support::Output {
    umiak.run(&[RUN, options, &["busybox", "sh", "-c", script]].concat())
}

fn own() -> (u32, u32) {
    (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
}

/// Lines of a map without the blanks between.
const MAP: &str = "while read a b c; do echo $a $b $c; done < /proc/self/uid_map";

#[test]
fn the_users_own_ids() {
    requires!(Need::Image("busybox"), Need::Unprivileged);
    let umiak = Umiak::with_busybox();
    let (uid, gid) = own();
    sh(&umiak, &["--userns", "keep-id"], "echo $(id -u):$(id -g)").ok().says(&format!("{uid}:{gid}"));
    let name = std::process::Command::new("id").arg("-un").output().unwrap();
    let name = String::from_utf8(name.stdout).unwrap();
    sh(&umiak, &["--userns", "keep-id"], "whoami").ok().says(name.trim());
    let home = umiak.dir.to_str().unwrap().to_owned();
    let mount = format!("{home}:/data");
    sh(&umiak, &["--userns", "keep-id", "-v", &mount], "touch /data/mine && stat -c %u /data/mine")
        .ok()
        .says(&uid.to_string());
    for bad in [
        "keep-id:uid=x",
        "keep-id:odd=1",
        "keep-id:size=0",
        "keep-id:uid",
        "keepid",
        "ns:relative",
        "container:nobody",
    ] {
        sh(&umiak, &["--userns", bad], "true").exits(125).tells("--userns");
    }
}

#[test]
fn the_users_own_ids_under_other_numbers() {
    requires!(Need::Image("busybox"), Need::Unprivileged, Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let mount = format!("{}:/data", umiak.dir.display());
    sh(
        &umiak,
        &["--userns", "keep-id:uid=200,gid=210", "-v", &mount],
        "echo $(id -u):$(id -g); touch /data/x; stat -c %u /data/x /etc/passwd",
    )
    .ok()
    .says("200:210\n200\n0");
    sh(&umiak, &["--userns", "keep-id:size=5000"], "awk '{ n += $3 } END { print n }' /proc/self/uid_map")
        .ok()
        .says("5000");
    // The user's own id is no part of it.
    sh(&umiak, &["--userns", "nomap", "-v", &mount], "id -u; stat -c %u /data").ok().says("0\n65534");
    let (uid, _) = own();
    sh(&umiak, &["--userns", "nomap"], MAP).ok().lacks(&format!(" {uid} "));
}

#[test]
fn ids_that_nobody_else_has() {
    requires!(Need::Image("busybox"), Need::Unprivileged, Need::ManyIds);
    let umiak = Umiak::with_busybox();
    for name in ["a", "b"] {
        umiak.run(&["run", "-d", "--name", name, "--userns", "auto", "busybox", "sleep", "100"]).ok();
    }
    let map = |name: &str| umiak.run(&["exec", name, "sh", "-c", MAP]).ok().stdout;
    let (a, b) = (map("a"), map("b"));
    assert!(a != b && a.ends_with(" 1024\n"), "{a} {b}");
    umiak.run(&["exec", "a", "sh", "-c", "id -u; stat -c %u /etc/passwd; touch /x"]).ok().says("0\n0");
    sh(&umiak, &["--userns", "auto:size=3000"], MAP).ok().has(" 3000\n");
    sh(&umiak, &["--userns", "auto:size=2000000000"], "true").exits(125).tells("no other container has");
    sh(&umiak, &["--userns", "auto:size=2000,uidmapping=5:0:1"], MAP).ok().has("5 ");
    // The image has files of users beyond that.
    sh(&umiak, &["--userns", "auto:size=10"], "true").exits(125).hints("ids");
    sh(&umiak, &["--userns", "auto:nope=1"], "true").exits(125).tells("--userns");
}

#[test]
fn told_mappings() {
    requires!(Need::Image("busybox"), Need::Unprivileged, Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let (uid, _) = own();
    sh(&umiak, &["--uidmap", "0:1:2000", "--uidmap", "2000:0:1"], "stat -c %u /etc/passwd; id -u")
        .ok()
        .says("0\n0");
    // What the init makes before its ids are mapped is root's, too, and made later where it would be somebody else's.
    for flags in [&[][..], &["--uidmap", "0:1:2000", "--uidmap", "2000:0:1"]] {
        sh(&umiak, flags, "stat -c %u:%g:%a /dev /dev/shm; hostname > /dev/x").ok().says("0:0:755\n0:0:1777");
    }
    let more = format!("+500:@{uid}:1");
    sh(&umiak, &["--uidmap", "0:1:65000", "--uidmap", &more], MAP).ok().has(&format!("500 {uid} 1\n"));
    for bad in ["x", "0:0", "0:0:0", "0:0:1:1", "0:999999:1", "y1:0:1"] {
        let output = sh(&umiak, &["--uidmap", bad], "true");
        if bad == "0:0" {
            output.code
        } else {
            output.exits(125).tells("--uidmap").code
        };
    }
    sh(&umiak, &["--uidmap", "0:0:1", "--userns", "host"], "true").exits(125).tells("--uidmap");
    sh(&umiak, &["--uidmap", "0:0:1", "--subuidname", "x"], "true").exits(125).tells("--subuidname");
    sh(&umiak, &["--subuidname", "nosuchname"], "true").exits(125).tells("nosuchname");
}

/// All owners, whiteouts and opaque directories are as for a container with the host's ids, in all that looks at them;
/// nothing is copied.
#[test]
fn layers_are_shown_with_other_ids() {
    requires!(Need::Image("nasty"), Need::Root);
    let umiak = Umiak::with_image("nasty");
    const OTHER: [&str; 2] = ["--uidmap", "0:300000:65536"];
    let list = "find / -xdev ! -type l ! -path '/[dps]*' ! -path '/run*' ! -path '/etc/[hr]*' ! -path '/etc' \
                -exec stat -c '%u %g %a %n' {} + | sort -k4";
    let run = |options: &[&str], script: &str| {
        let words = ["run", "--network", "none", "--entrypoint", "/bin/sh"];
        umiak.run(&[&words[..], options, &["nasty", "-c", script]].concat()).ok().stdout
    };
    let plain = run(&["--rm", "-u", "0"], list);
    assert!(plain.lines().any(|line| !line.starts_with("0 ")), "{plain}");
    assert_eq!(run(&["--rm", "-u", "0", OTHER[0], OTHER[1]], list), plain);
    // Changed in there, it is so for who has other ids again.
    let change = "touch /tmp/f /tmp/mine && chown 33:44 /tmp/f && chmod 4755 /tmp/f && rm -rf /etc/passwd && \
                  mkdir /tmp/d && chown 7 /tmp/d && ln -s x /tmp/l && chown -h 8:9 /tmp/l";
    run(&["--name", "box", "-u", "0", OTHER[0], OTHER[1]], change);
    let copies = |name: &str| {
        let dir = std::fs::read_dir(umiak.dir.join("store/containers")).unwrap();
        dir.flatten().any(|entry| entry.path().join(name).exists())
    };
    assert!(!copies("rootfs"), "a copy was made");
    umiak.run(&["diff", "box"]).ok().has("A /tmp/f").has("D /etc/passwd").lacks("/bin");
    umiak.run(&["commit", "-q", "box", "localhost/box:latest"]).ok();
    let look = "stat -c '%u:%g %a' /tmp/f /tmp/d /tmp/l /tmp/mine; test -e /etc/passwd || echo gone";
    let expected = "33:44 4755\n7:0 755\n8:9 777\n0:0 644\ngone";
    for options in [&["-u", "0"][..], &["-u", "0", "--uidmap", "0:500000:5000"]] {
        let words = ["run", "--rm", "--network", "none", "--entrypoint", "/bin/sh"];
        let image = ["localhost/box", "-c", look];
        umiak.run(&[&words[..], options, &image].concat()).ok().says(expected);
    }
    // While it does not run, and while it does.
    let file = umiak.file("given", "given");
    let (file, out) = (file.to_str().unwrap(), umiak.dir.join("out"));
    umiak.run(&["cp", file, "box:/tmp/still"]).ok();
    umiak.run(&["cp", "-a", "box:/tmp/f", out.to_str().unwrap()]).ok();
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&out).unwrap().mode() & 0o777, 0o755);
    run(&["-d", "--name", "runs", "-u", "0", OTHER[0], OTHER[1]], "touch /tmp/own; sleep 1000");
    umiak.run(&["cp", file, "runs:/tmp/live"]).ok();
    let exec = ["exec", "runs", "/bin/sh", "-c"];
    umiak.run(&[&exec[..], &["stat -c %u /tmp/live; chown 5:6 /tmp/live"]].concat()).ok().says("0");
    umiak.run(&["stop", "-t", "0", "runs"]).ok();
    umiak.run(&["start", "runs"]).ok();
    umiak.run(&[&exec[..], &["stat -c %u:%g /tmp/live"]].concat()).ok().says("5:6");
    let archive = umiak.dir.join("archive.tar");
    for (name, lines) in [("box", &["0/0 ", "33/44 ", "8/9 "][..]), ("runs", &["5/6 "])] {
        umiak.run(&["export", "-o", archive.to_str().unwrap(), name]).ok();
        let tar = std::process::Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&archive).output();
        let tar = String::from_utf8(tar.unwrap().stdout).unwrap();
        assert!(lines.iter().all(|line| tar.contains(line)) && !tar.contains("300000"), "{tar}");
    }
    // An image that is mounted, and written to.
    let mount =
        ["--mount", "type=image,src=localhost/box,dst=/i,rw=true", "-u", "0", "--rm", OTHER[0], OTHER[1]];
    let script =
        "stat -c %u:%g /i/tmp/f; test -e /i/etc/passwd || echo gone; touch /i/tmp/n; stat -c %u /i/tmp/n";
    assert_eq!(run(&mount, script).trim_end(), "33:44\ngone\n0");
    assert!(!copies("image-0"), "a copy was made");
    let mount = ["--mount", "type=image,src=localhost/box,dst=/i", "-u", "0", "--rm", OTHER[0], OTHER[1]];
    assert_eq!(
        run(&mount, "stat -c %u:%g /i/tmp/f; touch /i/n 2>/dev/null || echo no").trim_end(),
        "33:44\nno"
    );
}

/// `--rootfs DIR:idmap`: the directory's files are the container's, and stay as they are outside.
#[test]
fn a_directory_with_other_ids() {
    requires!(Need::Image("busybox"), Need::Root);
    let umiak = Umiak::with_busybox();
    use std::os::unix::fs::MetadataExt;
    let dir = umiak.dir.join("rootfs");
    std::fs::create_dir(&dir).unwrap();
    umiak.run(&["run", "--name", "source", "--network", "none", "busybox", "true"]).ok();
    let archive = umiak.dir.join("archive.tar");
    umiak.run(&["export", "-o", archive.to_str().unwrap(), "source"]).ok();
    let status = std::process::Command::new("tar").args(["-xf"]).arg(&archive).arg("-C").arg(&dir).status();
    assert!(status.unwrap().success());
    let run = |option: &str, name: &[&str], script: &str| {
        let rootfs = format!("{}{option}", dir.display());
        let words = ["run", "--network", "none", "--uidmap", "0:300000:65536"];
        umiak.run(&[&words[..], name, &["--rootfs", &rootfs, "sh", "-c", script]].concat())
    };
    let owner = |name: &str| std::fs::metadata(dir.join(name)).unwrap().uid();
    run("", &["--rm"], "stat -c %u /bin/busybox").ok().says("65534");
    run(":idmap", &["--rm"], "stat -c %u /bin/busybox; touch /new; touch /two; chown 33 /two").ok().says("0");
    assert_eq!((owner("new"), owner("two")), (0, 33));
    run(":idmap,O", &["--name", "over"], "chown 5 /new; stat -c %u /new /two").ok().says("5\n33");
    assert_eq!(owner("new"), 0);
    umiak.run(&["export", "-o", archive.to_str().unwrap(), "over"]).ok();
    umiak.run(&["cp", "over:/new", umiak.dir.join("out").to_str().unwrap()]).ok();
    run(":idmap=uids=0-300007-100;gids=0-300000-100", &["--rm"], "stat -c %u:%g /new /two")
        .ok()
        .says("7:0\n40:0");
    run(":idmap=uids=0-x", &["--rm"], "true").exits(125).tells("idmap");
    let plain = format!("{}:idmap", dir.display());
    umiak.run(&["run", "--rm", "--rootfs", &plain, "true"]).exits(125).tells("user namespace");
}

/// A file system that cannot show other ids: layers are copied, and that is said.
#[test]
fn where_ids_cannot_be_mapped_layers_are_copied() {
    requires!(Need::Image("busybox"), Need::Root, Need::Tool("unshare"));
    let umiak = Umiak::new();
    let store = umiak.dir.join("memory");
    std::fs::create_dir(&store).unwrap();
    let script = "mount -t ramfs none $1 && $0 --root $1/store pull -q $2 && \
                  $0 --root $1/store info --format '{{.host.isolation.ids.otherMappings}}' && \
                  $0 --root $1/store run --name box --network none --uidmap 0:300000:65536 busybox \
                  sh -c 'stat -c %u /etc/passwd; touch /mine; chown 5 /mine' && \
                  $0 --root $1/store start -a box && test -e $1/store/containers/*/rootfs/mine && \
                  $0 --root $1/store diff box | grep /mine && $0 --root $1/store rm box";
    let mut command = std::process::Command::new("unshare");
    let copy = umiak.command(&["x"]);
    command.args(["-m", "sh", "-ec", script]).arg(Umiak::binary()).arg(&store);
    command.arg(format!("oci:{}", umiak.readable_image("busybox").display()));
    command.envs(copy.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (said(&output.stdout), said(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("copy the image's files") && out.contains("A /mine"), "{out}");
    assert!(err.contains("are copied for this container before its first start"), "{err}");
}

#[test]
fn root_with_a_user_namespace() {
    requires!(Need::Image("busybox"), Need::Root);
    let umiak = Umiak::with_busybox();
    let told = ["--uidmap", "0:200000:65536"];
    sh(&umiak, &told, &format!("id -u; stat -c %u /etc/passwd; touch /x; {MAP}"))
        .ok()
        .says("0\n0\n0 200000 65536");
    sh(&umiak, &[&told[..], &["-u", "1000"]].concat(), "id -u").ok().says("1000");
    let mount = format!("{}:/data", umiak.dir.display());
    sh(&umiak, &[&told[..], &["-v", &mount]].concat(), "stat -c %u /data").ok().says("65534");
    sh(&umiak, &[&told[..], &["-v", "vol:/v"]].concat(), "touch /v/x && stat -c %u /v/x").ok().says("0");
    umiak.run(&["run", "--name", "stays", told[0], told[1], "busybox", "touch", "/kept"]).ok();
    umiak.run(&["diff", "stays"]).ok().has("A /kept");
    umiak.run(&["start", "stays"]).ok();
    // Outside its files have the ids that they have inside.
    let archive = umiak.dir.join("archive.tar");
    umiak.run(&["export", "-o", archive.to_str().unwrap(), "stays"]).ok();
    let list =
        std::process::Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(&archive).output().unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    assert!(list.contains(" 0/0 ") && !list.contains("200000"), "{list}");
    umiak.run(&["commit", "-q", "stays", "localhost/again:latest"]).ok();
    umiak.run(&["run", "--rm", "localhost/again", "stat", "-c", "%u", "/kept"]).ok().says("0");
    umiak.run(&["cp", "stays:/kept", umiak.dir.join("out").to_str().unwrap()]).ok();
    umiak.run(&["cp", archive.to_str().unwrap(), "stays:/in"]).ok();
    umiak.run(&["start", "stays"]).ok();
    sh(&umiak, &["--userns", "keep-id"], "true").exits(125).tells("only for users");
    sh(&umiak, &["--userns", "private"], "true").exits(125).tells("--uidmap");
}

#[test]
fn namespaces_of_another_container() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak
        .run(&[
            "run",
            "-d",
            "--name",
            "a",
            "--hostname",
            "otter",
            "busybox",
            "sh",
            "-c",
            "echo shared > /dev/shm/x; exec sleep 1000",
        ])
        .ok();
    support::eventually("the file is there", || {
        umiak.run(&["exec", "a", "test", "-s", "/dev/shm/x"]).code == Some(0)
    });
    sh(&umiak, &["--uts", "container:a"], "hostname; echo $HOSTNAME").ok().says("otter\notter");
    sh(&umiak, &["--ipc", "container:a"], "cat /dev/shm/x; echo more > /dev/shm/y").ok().says("shared");
    umiak.run(&["exec", "a", "cat", "/dev/shm/y"]).ok().says("more");
    sh(&umiak, &["--pid", "container:a"], "ps -o args | grep -c '[s]leep 1000'").ok().says("1");
    sh(&umiak, &["--cgroupns", "container:a"], "true").ok();
    sh(&umiak, &["--pid", "container:a", "--uts", "container:a", "--ipc", "container:a"], "hostname")
        .ok()
        .says("otter");
    sh(&umiak, &["--uts", "container:a", "--hostname", "x"], "true").exits(125).tells("--hostname");
    sh(&umiak, &["--userns", "container:a"], MAP).ok();
    let pid = umiak.inspect("a", "{{.State.Pid}}");
    let (user, uts) = (format!("ns:/proc/{pid}/ns/user"), format!("ns:/proc/{pid}/ns/uts"));
    let options = ["--userns", &user, "--uts", &uts];
    let options = if own().0 == 0 { &options[2..] } else { &options[..] };
    sh(&umiak, options, "hostname").ok().says("otter");
    assert!(
        umiak.run(&["create", "--name", "b", "--pid", "container:a", "busybox", "true"]).ok().code == Some(0)
    );
    assert!(umiak.inspect("b", "{{.HostConfig.PidMode}}").starts_with("container:"));
    umiak.run(&["rm", "-f", "-t", "0", "a"]).exits(125).tells("container b needs it");
    umiak.run(&["stop", "-t", "0", "a"]).ok();
    umiak.run(&["start", "b"]).exits(125).tells("not running");
    umiak.run(&["rm", "--depend", "a"]).ok();
    umiak.run(&["ps", "-aq"]).ok().says("");
    sh(&umiak, &["--pid", "ns:/no/such"], "true").exits(125).tells("/no/such");
    umiak.run(&["create", "--name", "stopped", "busybox"]).ok();
    sh(&umiak, &["--uts", "container:stopped"], "true").exits(125).tells("not running");
}
