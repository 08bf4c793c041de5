//! What an image, a volume or a program inside tries against the host or against a limit that was set.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::requires;
use crate::support::{Need, Terminal, Umiak, tool};

/// A rootfs of busybox alone, with the given `/etc/passwd`.
fn rootfs(umiak: &Umiak, passwd: &str) -> PathBuf {
    let rootfs = umiak.dir.join("rootfs");
    for dir in ["bin", "etc"] {
        std::fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    std::fs::copy(tool("busybox").unwrap(), rootfs.join("bin/busybox")).unwrap();
    std::fs::write(rootfs.join("etc/passwd"), passwd).unwrap();
    rootfs
}

#[test]
fn files_of_users_are_hostile() {
    requires!(Need::Tool("busybox"), Need::Tool("mkfifo"));
    let umiak = Umiak::new();
    let rootfs = rootfs(&umiak, "1000:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\nhigh:x:4294967295:0::/:\n");
    let passwd = rootfs.join("etc/passwd");
    let run = |user: &str, program: &[&str]| {
        let words = ["run", "--rm", "--network", "none", "-u", user, "--rootfs", rootfs.to_str().unwrap()];
        umiak.run(&[&words, program].concat())
    };
    run("root", &["/bin/busybox", "id", "-u"]).ok().says("0");
    // The kernel's "nobody at all" is no user, and an image does not say which number is root.
    run("high", &["/bin/busybox", "id"]).exits(126).tells("high");
    run("4294967295", &["/bin/busybox", "id"]).exits(126).tells("4294967295");
    run("1000", &["/bin/busybox", "id", "-u"]).ok().says("1000");

    // Nothing outside is read through a link, nothing is waited for, no memory is filled.
    let outside = std::fs::read_to_string("/etc/passwd").unwrap();
    let known =
        outside.lines().filter_map(|line| line.split(':').next()).find(|name| *name != "root").unwrap();
    for target in ["/etc/passwd", "../../../../../../etc/passwd", "/proc/self/root/etc/passwd"] {
        std::fs::remove_file(&passwd).unwrap();
        std::os::unix::fs::symlink(target, &passwd).unwrap();
        run(known, &["/bin/busybox", "true"]).exits(126);
    }
    std::fs::remove_file(&passwd).unwrap();
    std::process::Command::new(tool("mkfifo").unwrap()).arg(&passwd).status().unwrap();
    run("somebody", &["/bin/busybox", "true"]).exits(125);
    std::fs::remove_file(&passwd).unwrap();
    std::fs::File::create(&passwd).unwrap().set_len(1 << 40).unwrap();
    run("somebody", &["/bin/busybox", "true"]).exits(125).tells("too large");
}

#[test]
fn no_terminal_is_taken_along() {
    requires!(Need::Image("busybox"), Need::Tool("busybox"));
    let umiak = Umiak::with_busybox();
    // Without a controlling terminal TIOCSTI, which would type into the caller's shell, is refused.
    let script = "cut -d' ' -f6,7 /proc/self/stat; : < /dev/tty && echo opened";
    let line = ["run", "--rm", "-i", "--network", "none", "busybox", "sh", "-c", script];
    let mut terminal = Terminal::start(&umiak, &line);
    terminal.expect("1 0");
    let (_, shown) = terminal.wait();
    assert!(!shown.contains("opened"), "{shown}");
    // The runtime's face hands the caller's terminal on as plain streams.
    let rootfs = rootfs(&umiak, "");
    let user = rustix::process::geteuid().as_raw();
    let own = format!(
        r#""uidMappings":[{{"containerID":0,"hostID":{user},"size":1}}],"gidMappings":[{{"containerID":0,"hostID":{},"size":1}}]"#,
        rustix::process::getegid().as_raw()
    );
    let spaces = ["pid", "mount", "ipc", "user"].map(|name| format!(r#"{{"type":"{name}"}}"#)).join(",");
    let config = format!(
        r#"{{"ociVersion":"1.2.0","root":{{"path":"{}"}},"linux":{{"namespaces":[{spaces}],{own}}},
        "mounts":[{{"destination":"/proc","type":"proc","source":"proc"}}],
        "process":{{"terminal":false,"cwd":"/","user":{{"uid":0,"gid":0}},"env":[],
        "args":["/bin/busybox","sh","-c","/bin/busybox cut -d' ' -f6,7 /proc/self/stat; echo end"]}}}}"#,
        rootfs.display()
    );
    let bundle = umiak.dir.join("bundle");
    std::fs::create_dir(&bundle).unwrap();
    std::fs::write(bundle.join("config.json"), config).unwrap();
    let state = umiak.dir.join("run/oci");
    let bundle = bundle.to_str().unwrap();
    let line = ["--root", state.to_str().unwrap(), "run", "-b", bundle, "typist"];
    let mut terminal = Terminal::start_runtime(&umiak, &line);
    terminal.expect("1 0");
    terminal.expect("end");
    assert_eq!(terminal.wait().0, Some(0));
}

#[test]
fn set_uid_programs_in_volumes_raise_nobody() {
    requires!(Need::Image("busybox"), Need::Tool("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let shared = umiak.dir.join("shared");
    std::fs::create_dir(&shared).unwrap();
    let program = shared.join("busybox");
    std::fs::copy(tool("busybox").unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let volume = format!("{}:/shared", shared.display());
    let run = |user: &str, script: &str| {
        let words =
            ["run", "--rm", "--network", "none", "-u", user, "-v", &volume, "-v", "kept:/kept", "busybox"];
        umiak.run(&[&words[..], &["sh", "-c", script]].concat())
    };
    // Its owner is root inside. In the image such a program works, in a volume it does not.
    run("0", "cp /shared/busybox /kept/busybox; chmod 4755 /kept/busybox; ls -l /kept").ok().has("rwsr-xr-x");
    run("1000", "/shared/busybox id -u; /kept/busybox id -u").ok().says("1000\n1000");
    // Nor are there devices in it.
    run("0", "grep -E ' /(shared|kept) ' /proc/mounts | grep -c nosuid,nodev").ok().says("2");
}

#[test]
fn a_file_of_users_changed_inside_does_not_hold_exec_up() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["exec", "box", "sh", "-c", "rm /etc/passwd /etc/group; mkfifo /etc/passwd /etc/group"]).ok();
    umiak.run(&["exec", "-u", "somebody", "box", "true"]).exits(125).tells("no regular file");
    umiak.run(&["exec", "box", "echo", "fine"]).ok().says("fine");
}
