//! Everything that can be mounted into a container.

use std::os::unix::fs::MetadataExt;

use crate::requires;
use crate::support::{self, Need, Umiak};

const RUN: &[&str] = &["run", "--rm", "--network", "none"];

fn sh(umiak: &Umiak, options: &[&str], script: &str) -> support::Output {
    umiak.run(&[RUN, options, &["busybox", "sh", "-c", script]].concat())
}

/// A directory of the test's own with a file `f` and a directory `sub`.
fn source(umiak: &Umiak) -> String {
    let dir = umiak.dir.join("source");
    std::fs::create_dir_all(dir.join("sub")).unwrap();
    std::fs::write(dir.join("f"), "old\n").unwrap();
    std::fs::write(dir.join("sub/g"), "deep\n").unwrap();
    dir.to_str().unwrap().to_owned()
}

#[test]
fn binds_with_options() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = source(&umiak);
    let flag = |options: &str| format!("type=bind,src={dir},dst=/d,{options}");
    sh(&umiak, &["--mount", &flag("ro")], "touch /d/x").exits(1);
    sh(&umiak, &["--mount", &flag("ro=false,consistency=cached,relabel=shared")], "touch /d/x").ok();
    sh(&umiak, &["--mount", &flag("noexec")], "grep ' /d ' /proc/mounts").ok().has("noexec").has("nosuid");
    sh(&umiak, &["--mount", &flag("exec,suid,dev")], "grep ' /d ' /proc/mounts").ok().lacks("noexec");
    sh(&umiak, &["-v", "./source:/d:ro,z"], "cat /d/f").ok().says("old");
    sh(&umiak, &["-v", &format!("{dir}/f:/file")], "cat /file").ok().says("old");
    sh(&umiak, &["--mount", &flag("bind-propagation=shared,bind-nonrecursive")], "cat /d/f").ok().says("old");
    for bad in ["ro=maybe", "bind-propagation=odd", "nonsense", "tmpfs-size=1m", "subpath=x"] {
        sh(&umiak, &["--mount", &flag(bad)], "true").exits(125).tells("--mount");
    }
    sh(&umiak, &["--mount", "type=bind,src=/no/such,dst=/d"], "true").exits(125).tells("/no/such");
    sh(&umiak, &["-v", &format!("{dir}:/d"), "--tmpfs", "/d"], "true").exits(125).tells("duplicate");
}

#[test]
fn owners_are_changed_where_asked_for() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let dir = source(&umiak);
    std::os::unix::fs::symlink("/etc/passwd", umiak.dir.join("source/link")).unwrap();
    let stat = "stat -c %u:%g /d /d/f /d/sub/g; stat -c %u /etc/passwd";
    sh(&umiak, &["-u", "1000:1000", "-v", &format!("{dir}:/d:U")], stat)
        .ok()
        .says("1000:1000\n1000:1000\n1000:1000\n0");
    // And back.
    sh(&umiak, &["--mount", &format!("type=bind,src={dir},dst=/d,chown=true")], stat)
        .ok()
        .says("0:0\n0:0\n0:0\n0");
    assert_eq!(
        std::fs::metadata(umiak.dir.join("source/f")).unwrap().uid(),
        rustix::process::getuid().as_raw()
    );
    sh(&umiak, &["-v", "/etc:/d:U"], "true").exits(125).tells("belongs to the system");
    sh(&umiak, &["-u", "1000", "--mount", "type=tmpfs,dst=/t,U,notmpcopyup"], "touch /t/x && stat -c %u /t")
        .ok()
        .says("1000");
}

#[test]
fn overlays_leave_the_source_alone() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = source(&umiak);
    sh(&umiak, &["-v", &format!("{dir}:/d:O")], "echo new > /d/f; rm -r /d/sub; touch /d/x; cat /d/f")
        .ok()
        .says("new");
    assert_eq!(std::fs::read_to_string(umiak.dir.join("source/f")).unwrap(), "old\n");
    assert!(umiak.dir.join("source/sub/g").exists() && !umiak.dir.join("source/x").exists());
    // A container's next start begins anew.
    let volume = format!("{dir}:/d:O");
    umiak
        .run(&["run", "--name", "again", "-v", &volume, "busybox", "sh", "-c", "ls /d; touch /d/mine"])
        .ok()
        .says("f\nsub");
    umiak.run(&["start", "-a", "again"]).ok().says("f\nsub");
    // With directories of one's own the changes stay.
    for name in ["up", "work"] {
        std::fs::create_dir(umiak.dir.join(name)).unwrap();
    }
    let flag = format!("{dir}:/d:O,upperdir=./up,workdir=./work");
    sh(&umiak, &["-v", &flag], "echo kept > /d/kept").ok();
    sh(&umiak, &["-v", &flag], "cat /d/kept /d/f").ok().says("kept\nold");
    assert!(umiak.dir.join("up/kept").exists());
    sh(&umiak, &["-v", &format!("{dir}:/d:O,upperdir=./up")], "true").exits(125).tells("workdir");
    sh(&umiak, &["-v", &format!("{dir}/f:/d:O")], "true").exits(125).tells("not a directory");
    sh(&umiak, &["-v", &format!("{dir}:/d:O,upperdir=/no/such,workdir=/no/such")], "true")
        .exits(125)
        .tells("/no/such");
    // What a container leaves in the scratch directory is its own to remove.
    let _ = std::process::Command::new("chmod").arg("-R").arg("u+rwx").arg(umiak.dir.join("work")).status();
    sh(&umiak, &["-v", "named:/v"], "echo one > /v/a").ok();
    sh(&umiak, &["-v", "named:/v:O"], "echo two > /v/a").ok();
    sh(&umiak, &["-v", "named:/v"], "cat /v/a").ok().says("one");
}

#[test]
fn images_are_mounted() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let flag = |more: &str| format!("type=image,src=configured,dst=/i{more}");
    sh(&umiak, &["--mount", &flag("")], "test -d /i/etc && touch /i/x").exits(1);
    sh(&umiak, &["--mount", &flag(",rw=true")], "touch /i/x && ls /i/x").ok().says("/i/x");
    sh(&umiak, &["--mount", &flag(",rw=true")], "ls /i/x").exits(1);
    sh(&umiak, &["--mount", &flag(",subpath=/etc/passwd")], "head -n1 /i").ok().has("root:");
    sh(&umiak, &["--mount", &flag(",subpath=/no/such")], "true").exits(125).tells("/i");
    sh(&umiak, &["--mount", "type=image,src=nowhere,dst=/i"], "true").exits(125).tells("nowhere");
    // While a container has it mounted an image stays.
    umiak.run(&["create", "--name", "user", "--mount", &flag(""), "busybox", "true"]).ok();
    umiak.run(&["rmi", "configured"]).exits(2).tells("user");
    umiak.run(&["rm", "user"]).ok();
    umiak.run(&["rmi", "configured"]).ok();
}

#[test]
fn a_mounted_image_has_the_containers_ids() {
    requires!(Need::Unprivileged, Need::ManyIds, Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let mount = ["--userns", "keep-id", "--mount", "type=image,src=configured,dst=/i,rw=true"];
    sh(&umiak, &mount, "stat -c '%u:%g' /i /i/data /i/bin/sh; touch /i/data/x")
        .exits(1)
        .has("0:0\n1000:1000\n0:0");
    let root = [&mount[..], &["--user", "0"]].concat();
    sh(&umiak, &root, "touch /i/x /i/data/x && stat -c %u /i/x").ok().says("0");
    // It is copied once, and changes are gone at the next start.
    let name = ["--name", "again", "--network", "none"];
    let script = ["busybox", "sh", "-c", "[ ! -e /i/x ] && touch /i/x"];
    umiak.run(&[&["create"], &name[..], &root, &script].concat()).ok();
    umiak.run(&["start", "-a", "again"]).ok();
    umiak.run(&["start", "-a", "again"]).ok();
    umiak.run(&["rm", "again"]).ok();
}

#[test]
fn parts_of_volumes() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    sh(
        &umiak,
        &["-v", "vol:/v"],
        "mkdir -p /v/a/b; echo part > /v/a/b/f; ln -s /etc /v/out; ln -s /a/b /v/in",
    )
    .ok();
    let flag = |path: &str| format!("type=volume,src=vol,dst=/p,subpath={path}");
    sh(&umiak, &["--mount", &flag("a/b")], "cat /p/f").ok().says("part");
    sh(&umiak, &["--mount", &flag("a/b/f")], "cat /p").ok().says("part");
    // Links stay inside the volume.
    sh(&umiak, &["--mount", &flag("in")], "cat /p/f").ok().says("part");
    sh(&umiak, &["--mount", &flag("out/passwd")], "cat /p").exits(125).tells("/p");
    sh(&umiak, &["--mount", &flag("../../../etc")], "true").exits(125).tells("/p");
    sh(&umiak, &["--mount", &flag("/")], "true").exits(125).tells("subpath");
}

#[test]
fn owners_are_shown_as_others() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = source(&umiak);
    let flag = |options: &str| format!("{dir}:/d:{options}");
    if !rustix::process::geteuid().is_root() {
        sh(&umiak, &["-v", &flag("idmap")], "true").exits(125).tells("only root");
        return;
    }
    let userns = ["--uidmap", "0:200000:65536", "-v"];
    sh(&umiak, &[&userns[..], &[&flag("rw")]].concat(), "stat -c %u /d/f").ok().says("65534");
    sh(&umiak, &[&userns[..], &[&flag("idmap")]].concat(), "stat -c %u /d/f; touch /d/new").ok().says("0");
    assert_eq!(std::fs::metadata(umiak.dir.join("source/new")).unwrap().uid(), 0);
    let told = flag("idmap=uids=0-200005-1;gids=0-200005-1");
    sh(&umiak, &[&userns[..], &[&told]].concat(), "stat -c %u /d/f").ok().says("5");
    sh(&umiak, &["-v", &flag("idmap")], "true").exits(125).tells("user namespace");
    sh(&umiak, &["-v", &flag("idmap=odd")], "true").exits(125).tells("odd");
}

#[test]
fn many_files_at_once() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for name in ["one.txt", "two.txt", "three.log", ".hidden.txt"] {
        umiak.file(name, name);
    }
    let flag = format!("type=glob,src={}/*.txt,dst=/all,ro", umiak.dir.display());
    sh(
        &umiak,
        &["--mount", &flag],
        "ls -A /all; cat /all/one.txt; touch /all/one.txt 2>/dev/null || echo ' ro'",
    )
    .ok()
    .says("one.txt\ntwo.txt\none.txt ro");
    sh(&umiak, &["--mount", "type=glob,src=/no/such/*,dst=/all"], "true").exits(125).tells("matches");
}

#[test]
fn other_file_systems() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let mounts = "grep ' /m ' /proc/mounts";
    sh(&umiak, &["--mount", "type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=700"], mounts)
        .ok()
        .has("size=1024k")
        .has("mode=700");
    sh(&umiak, &["--tmpfs", "/m:size=2m,mode=755,noexec"], mounts).ok().has("size=2048k").has("noexec");
    sh(&umiak, &["--mount", "type=ramfs,dst=/m"], "grep ' /m ramfs' /proc/mounts").ok();
    sh(&umiak, &["--mount", "type=devpts,dst=/m,mode=600"], "grep ' /m devpts' /proc/mounts")
        .ok()
        .has("mode=600");
    sh(&umiak, &["--tmpfs", "/m:size=lots"], "true").exits(125).tells("lots");
    sh(&umiak, &["--tmpfs", "relative"], "true").exits(125).tells("absolute");
    sh(&umiak, &["--tmpfs", "/etc"], "test -s /etc/passwd").ok();
    sh(&umiak, &["--tmpfs", "/etc:notmpcopyup"], "test -s /etc/passwd").exits(1);
    sh(&umiak, &["--shm-size", "1m"], "df -k /dev/shm | tail -n1").ok().has("1024");
    sh(&umiak, &["--shm-size", "odd"], "true").exits(125).tells("--shm-size");
    sh(&umiak, &["--shm-size", "1m", "--ipc", "host"], "true").exits(125).tells("--shm-size");
    sh(&umiak, &["--ipc", "none"], "grep -c ' /dev/shm ' /proc/mounts").exits(1).says("0");
}

#[test]
fn volumes_of_another_container() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = source(&umiak);
    let own = format!("{dir}:/bound");
    umiak
        .run(&[
            "run",
            "--name",
            "data",
            "-v",
            "/anon",
            "-v",
            "named:/named",
            "-v",
            &own,
            "busybox",
            "sh",
            "-c",
            "echo a > /anon/f; echo n > /named/f",
        ])
        .ok();
    sh(&umiak, &["--volumes-from", "data"], "cat /anon/f /named/f /bound/f").ok().says("a\nn\nold");
    sh(
        &umiak,
        &["--volumes-from", "data:ro"],
        "touch /anon/x 2>/dev/null || touch /bound/x 2>/dev/null || echo ro",
    )
    .ok()
    .says("ro");
    // What is told in full counts more.
    sh(&umiak, &["--volumes-from", "data", "--tmpfs", "/named"], "ls /named").ok().says("");
    sh(&umiak, &["--volumes-from", "nobody"], "true").exits(125).tells("nobody");
    sh(&umiak, &["--volumes-from", "data:odd"], "true").exits(125).tells("odd");
    // A volume that somebody else has, too, does not go with its first container.
    umiak.run(&["create", "--name", "heir", "--volumes-from", "data", "busybox", "cat", "/anon/f"]).ok();
    umiak.run(&["rm", "-v", "data"]).ok();
    umiak.run(&["start", "-a", "heir"]).ok().says("a");
}

#[test]
fn volumes_of_images_as_told() {
    requires!(Need::Image("configured"), Need::ManyIds);
    let umiak = Umiak::with_image("configured");
    let run = |how: &str| {
        umiak.run(&[
            "run",
            "--rm",
            "-u",
            "0",
            "--image-volume",
            how,
            "--entrypoint",
            "sh",
            "configured",
            "-c",
            "grep ' /data ' /proc/mounts | cut -d' ' -f3; cat /data/seed",
        ])
    };
    run("ignore").ok().says("seed");
    run("tmpfs").ok().says("tmpfs\nseed");
    run("anonymous").ok().has("seed");
    run("odd").exits(125).tells("--image-volume");
}

#[test]
fn a_new_volume_belongs_to_the_user() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    sh(
        &umiak,
        &["-u", "1000:1000", "-v", "mine:/brand/new"],
        "touch /brand/new/x && stat -c %u:%g /brand/new",
    )
    .ok()
    .says("1000:1000");
    // Not again, and not what the image has an owner for.
    sh(&umiak, &["-u", "1001", "-v", "mine:/brand/new"], "stat -c %u /brand/new").ok().says("1000");
    sh(&umiak, &["-u", "1000", "-v", "etc:/etc"], "stat -c %u /etc").ok().says("0");
}

#[test]
fn a_rootfs_that_stays_as_it_is() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let rootfs = umiak.dir.join("rootfs");
    let status = std::process::Command::new("cp")
        .arg("-r")
        .arg(support::images().join("busybox-dir"))
        .arg(&rootfs)
        .status();
    if !status.unwrap().success() || !rootfs.join("bin/sh").exists() {
        return;
    }
    let over = format!("{}:O", rootfs.display());
    umiak
        .run(&[
            "run",
            "--rm",
            "--network",
            "none",
            "--rootfs",
            &over,
            "/bin/sh",
            "-c",
            "echo x > /new; cat /new",
        ])
        .ok()
        .says("x");
    assert!(!rootfs.join("new").exists());
    umiak.run(&["run", "--rm", "--rootfs", "/no/such:O", "true"]).exits(125).tells("/no/such");
    umiak
        .run(&["run", "--rm", "--rootfs", &format!("{}:odd", rootfs.display()), "true"])
        .exits(125)
        .tells("odd");
}

#[test]
fn devices() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    sh(&umiak, &["--device", "/dev/null:/dev/nothing"], "echo x > /dev/nothing && test -c /dev/nothing").ok();
    sh(&umiak, &["--device", "/dev/null:/dev/nothing:rw"], "test -c /dev/nothing").ok();
    let nodes = umiak.dir.join("nodes");
    std::fs::create_dir(&nodes).unwrap();
    let dir = nodes.to_str().unwrap();
    sh(&umiak, &["--device", dir], "true").exits(125).tells("no device");
    sh(&umiak, &["--device", "/etc/passwd"], "true").exits(125).tells("no device");
    sh(&umiak, &["--device", "/dev/no-such"], "true").exits(125).tells("/dev/no-such");
    sh(&umiak, &["--device", "relative"], "true").exits(125).tells("--device");
    sh(&umiak, &["--device", "vendor.com/class=name"], "true").exits(125).tells("not supported yet");
    sh(&umiak, &["--device-cgroup-rule", "nonsense"], "true").exits(125).tells("--device-cgroup-rule");
    if !rustix::process::geteuid().is_root() {
        sh(&umiak, &["--device-cgroup-rule", "c 1:3 rwm"], "true").exits(125).tells("device rules");
    }
}
