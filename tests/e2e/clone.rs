//! `container clone`, `mount`, `unmount`, `unshare`; archives of volumes.

use crate::requires;
use crate::support::{Need, Umiak, eventually};

#[test]
fn cloned() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "hostname; echo $A; sleep 1000";
    umiak.detached(&[
        "--name",
        "box",
        "--network",
        "none",
        "-e",
        "A=b",
        "-v",
        "vol:/vol",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let id = umiak.run(&["container", "clone", "box"]).ok().stdout.trim().to_owned();
    assert_eq!(umiak.inspect(&id, "{{.Name}} {{.State.Status}}"), "box-clone created");
    umiak.run(&["container", "clone", "box"]).ok();
    assert_eq!(umiak.status("box-clone1"), "created");
    umiak.run(&["container", "clone", "--run", "box", "third"]).ok();
    umiak.run(&["container", "clone", "--run", "--name", "fourth", "box"]).ok();
    let third = umiak.run(&["inspect", "-f", "{{.Id}}", "third"]).ok().stdout;
    eventually("it says its own name", || {
        umiak.run(&["logs", "third"]).stdout == format!("{}\nb\n", &third[..12])
    });
    assert_eq!(umiak.inspect("third", "{{(index .Mounts 0).Name}}"), "vol");
    umiak.run(&["container", "clone", "third", "fourth"]).exits(125).tells("fourth");
    umiak.run(&["container", "clone", "third", "no/good"]).exits(125).tells("no/good");
    umiak.run(&["container", "clone", "--name", "x", "third", "y"]).exits(125).tells("twice");
    umiak.run(&["container", "clone", "strange"]).exits(125).tells("strange");
    umiak.run(&["container", "clone", "-f", "third"]).exits(125).tells("--destroy");
    umiak.run(&["container", "clone", "--pod", "p", "third"]).exits(125).tells("not supported yet");
    umiak.run(&["container", "clone", "--destroy", "third"]).exits(125).tells("running");
    assert_eq!(umiak.status("third"), "running");
    umiak.run(&["container", "clone", "--destroy", "-f", "third", "fifth", "busybox"]).ok();
    umiak.run(&["container", "exists", "third"]).exits(1);
    umiak.run(&["container", "clone", "--destroy", "fifth", "sixth"]).ok();
    umiak.run(&["container", "exists", "fifth"]).exits(1);
}

#[test]
fn mounted_by_root() {
    requires!(Need::Root, Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "live", "--network", "none", "-v", "vol:/vol", "busybox", "sleep", "1000"]);
    umiak.run(&["create", "--name", "still", "--network", "none", "busybox", "cat", "/new"]).ok();
    umiak.run(&["exec", "live", "sh", "-c", "echo here > /file; echo no > /vol/file"]).ok();
    let live = umiak.run(&["mount", "live"]).ok().stdout.trim().to_owned();
    assert_eq!(std::fs::read_to_string(format!("{live}/file")).unwrap(), "here\n");
    assert!(!std::path::Path::new(&format!("{live}/vol/file")).exists());
    let still = umiak.run(&["mount", "still"]).ok().stdout.trim().to_owned();
    std::fs::write(format!("{still}/new"), "new\n").unwrap();
    assert_eq!(umiak.run(&["mount"]).ok().stdout.lines().count(), 2);
    let json: serde_json::Value =
        serde_json::from_str(&umiak.run(&["mount", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!((json[0]["Names"][0].as_str(), json[1]["mountpoint"].as_str()), (Some("live"), Some(&*still)));
    // Counted.
    umiak.run(&["mount", "still"]).ok().says(&still);
    umiak.run(&["unmount", "still"]).ok().says("still");
    assert!(std::path::Path::new(&format!("{still}/new")).exists());
    umiak.run(&["umount", "still"]).ok();
    umiak.run(&["unmount", "still"]).exits(125).tells("not mounted");
    umiak.run(&["start", "-a", "still"]).ok().says("new");
    umiak.run(&["mount", "still"]).ok();
    umiak.run(&["mount", "still"]).ok();
    umiak.run(&["container", "unmount", "-f", "still"]).ok();
    assert_eq!(umiak.run(&["mount"]).ok().stdout.lines().count(), 1);
    umiak.run(&["mount", "-a"]).ok();
    umiak.run(&["mount", "strange"]).exits(125).tells("strange");
    umiak.run(&["mount", "--format", "x"]).exits(125).tells("json");
    // What is removed is mounted no more.
    umiak.run(&["rm", "-f", "-t", "0", "live", "still"]).ok();
    umiak.run(&["mount"]).ok().says("");
    assert!(!std::path::Path::new(&live).exists() && !std::path::Path::new(&still).exists());
}

#[test]
fn unshared() {
    requires!(Need::Unprivileged, Need::Image("busybox"));
    let mut umiak = Umiak::with_busybox();
    umiak.run(&["create", "--name", "box", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["unshare", "id", "-u"]).ok().says("0");
    umiak.run(&["unshare", "sh", "-c", "exit 7"]).exits(7);
    umiak.run(&["unshare", "/nothing/there"]).exits(127).tells("/nothing/there");
    // Another user's directory in PATH is no reason to say that the program is closed to us.
    umiak.set_env("PATH", "/proc/1/cwd:/usr/bin:/bin");
    umiak.run(&["unshare", "no-such-program"]).exits(127).tells("no such file");
    umiak.run(&["unshare", "/etc/passwd"]).exits(126).tells("/etc/passwd");
    umiak.run(&["unshare", "--rootless-netns", "true"]).exits(125).tells("not supported yet");
    umiak.run(&["mount", "box"]).exits(125).hints("unshare");
    let own = Umiak::binary().display().to_string();
    let script = format!(
        "at=$({own} mount box) && test -f $at/bin/busybox && echo x > $at/new && {own} unmount box && \
         at=$({own} image mount busybox) && test -f $at/bin/busybox && {own} image unmount -a && \
         {own} ps -a --format '{{{{.Names}}}}'"
    );
    let output = umiak.run(&["unshare", "sh", "-c", &script]).ok();
    assert!(output.stdout.ends_with("box\n"), "{}", output.stdout);
    umiak.run(&["cp", "box:/new", "new"]).ok();
    assert_eq!(std::fs::read_to_string(umiak.dir.join("new")).unwrap(), "x\n");
}

#[test]
fn unshare_is_not_for_root() {
    requires!(Need::Root);
    let umiak = Umiak::new();
    umiak.run(&["unshare", "true"]).exits(125).tells("ordinary users");
}

#[test]
fn archives_of_volumes() {
    requires!(Need::Image("busybox"), Need::Tool("tar"));
    let umiak = Umiak::with_busybox();
    let many = "mkdir /vol/d; echo one > /vol/d/f; ln -s d/f /vol/l; chown -R 7:8 /vol/d 2>/dev/null; chmod 640 /vol/d/f";
    umiak.run(&["run", "--rm", "--network", "none", "-v", "one:/vol", "busybox", "sh", "-c", many]).ok();
    umiak.run(&["volume", "create", "two"]).ok();
    let archive = umiak.command(&["volume", "export", "one"]).output().unwrap();
    assert!(archive.status.success());
    umiak.run_with_input(&["volume", "import", "two", "-"], &archive.stdout).ok().says("");
    umiak.run(&["volume", "export", "-o", "file.tar", "one"]).ok();
    umiak.run(&["volume", "create", "three"]).ok();
    umiak.run(&["volume", "import", "three", "file.tar"]).ok();
    // What is there is replaced, not mixed up.
    umiak.run(&["volume", "import", "three", "file.tar"]).ok();
    let shown = |volume: &str| {
        let mount = format!("{volume}:/vol");
        let script = "cat /vol/l; stat -c '%u %g %a' /vol/d/f";
        umiak
            .run(&["run", "--rm", "--network", "none", "-v", &mount, "busybox", "sh", "-c", script])
            .ok()
            .stdout
    };
    assert!(shown("one").starts_with("one\n"));
    assert_eq!(shown("one"), shown("two"));
    assert_eq!(shown("one"), shown("three"));
    umiak.run(&["volume", "import", "two", "/etc/passwd"]).exits(125).tells("archive");
    umiak.run(&["volume", "import", "two", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["volume", "import", "strange", "file.tar"]).exits(125).tells("strange");
    umiak.run(&["volume", "export", "strange", "-o", "other"]).exits(125).tells("strange");
    assert!(!umiak.dir.join("other").exists());
    let place = umiak.run(&["volume", "inspect", "-f", "{{.Mountpoint}}", "one"]).ok().stdout;
    umiak.run(&["volume", "mount", "one"]).ok().says(place.trim());
    umiak.run(&["volume", "unmount", "one"]).ok().says("one");
    umiak.run(&["volume", "mount", "strange"]).exits(125).tells("strange");
    umiak.run(&["volume", "reload"]).ok().says("");
}
