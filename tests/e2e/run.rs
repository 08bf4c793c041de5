//! `umiak run`, option by option, as Podman documents them.

use crate::requires;
use crate::support::{self, Need, Umiak};

const RUN: &[&str] = &["run", "--rm", "--network", "none"];

/// `run --rm --network none OPTIONS… busybox COMMAND…`: `--` parts options from the command.
fn run(umiak: &Umiak, line: &[&str]) -> support::Output {
    let parts: Vec<&[&str]> = line.splitn(2, |word| *word == "--").collect();
    let (options, command) =
        if let [options, command] = parts[..] { (options, command) } else { (&[][..], line) };
    let args: Vec<&str> = [RUN, options, &["localhost/busybox"], command].concat();
    umiak.run(&args)
}

#[test]
fn the_command_and_its_streams() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak
        .run(&[RUN, &["localhost/busybox", "echo", "hello", "--", "world"]].concat())
        .ok()
        .says("hello -- world")
        .quiet();
    let output = run(&umiak, &["sh", "-c", "echo out; echo err >&2"]).ok().says("out");
    assert_eq!(output.stderr, "err\n");
    // Options behind the image belong to the command.
    umiak.run(&["run", "--rm", "busybox", "echo", "--rm", "-it"]).ok().says("--rm -it");
    // The image's own command: a shell, which ends at once without input.
    umiak.run(&["run", "--rm", "busybox"]).ok().says("").quiet();
}

#[test]
fn exit_codes() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for code in [0, 1, 3, 125, 255] {
        run(&umiak, &["sh", "-c", &format!("exit {code}")]).exits(code);
    }
    for (signal, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11)] {
        // Pid 1 is spared from signals without a handler that come from inside: a child dies.
        let script = format!("sh -c 'kill -{signal} $$'; exit $?");
        run(&umiak, &["sh", "-c", &script]).exits(128 + number);
    }
    run(&umiak, &["no-such-command"]).exits(127).tells("no-such-command");
    run(&umiak, &["/no/such/command"]).exits(127).tells("/no/such/command");
    run(&umiak, &["/etc/not-executable"]).exits(126).tells("/etc/not-executable");
    run(&umiak, &["/etc"]).exits(126).tells("/etc");
}

#[test]
fn standard_input() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let args: Vec<&str> = [RUN, &["-i", "busybox", "md5sum"]].concat();
    let input: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 7 % 251) as u8).collect();
    let expected = {
        let file = umiak.dir.join("input");
        std::fs::write(&file, &input).unwrap();
        let sum = std::process::Command::new("md5sum").arg(file).output().unwrap();
        String::from_utf8(sum.stdout).unwrap()[..32].to_owned()
    };
    umiak.run_with_input(&args, &input).ok().says(&format!("{expected}  -"));
    // Without -i nothing gets in.
    umiak.run_with_input(&[RUN, &["busybox", "wc", "-c"]].concat(), b"secret").ok().says("0");
    // Bytes pass unchanged.
    let output = umiak.run_with_input(&[RUN, &["-i", "busybox", "cat"]].concat(), b"\0\xff\r\n\x1b[").ok();
    assert_eq!(output.bytes, b"\0\xff\r\n\x1b[");
}

#[test]
fn environment() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let mut umiak = Umiak::with_busybox();
    umiak.set_env("FROM_HOST", "inherited");
    umiak.set_env("SECRET_OF_HOST", "x");
    let output =
        run(&umiak, &["-e", "A=1", "-e", "B=a=b c", "-e", "FROM_HOST", "-e", "NOT_SET", "--", "env"]).ok();
    let output = output
        .has("A=1\n")
        .has("B=a=b c\n")
        .has("FROM_HOST=inherited\n")
        .lacks("NOT_SET")
        .lacks("SECRET_OF_HOST");
    output
        .has("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n")
        .has("HOME=/root\n")
        .has("container=");
    let file = umiak.file("env", "# a comment\n\nX=1\nY=two words\nFROM_HOST\nX=3\n");
    let file = file.to_str().unwrap();
    let output = run(&umiak, &["--env-file", file, "-e", "Y=over", "--", "env"]).ok();
    output.has("X=3\n").has("Y=over\n").has("FROM_HOST=inherited\n").lacks("comment");
    run(&umiak, &["--env-file", "/no/such", "--", "env"]).exits(125).tells("/no/such");
    run(&umiak, &["-e", "=x", "--", "env"]).exits(125).tells("=x");
    umiak.pull("configured");
    // As root: the image's own user needs an id of its own.
    let line = ["run", "--rm", "-u", "0", "--entrypoint", "env", "-e", "EMPTY=full", "configured"];
    umiak.run(&line).ok().has("COLOUR=blue\n").has("EMPTY=full\n").has("HOME=/root\n");
}

#[test]
fn users_and_groups() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let ids = |options: &[&str]| {
        let line = [
            options,
            &[
                "--",
                "sh",
                "-c",
                "echo $(id -u):$(id -g):$(id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' ')$HOME",
            ],
        ]
        .concat();
        run(&umiak, &line).ok().stdout.trim().to_owned()
    };
    assert_eq!(ids(&[]), "0:0:0 /root");
    assert_eq!(ids(&["-u", "app"]), "1000:1000:44 50 1000 /home/app");
    assert_eq!(ids(&["-u", "app:staff"]), "1000:50:50 /home/app");
    assert_eq!(ids(&["-u", "1000"]), "1000:1000:44 50 1000 /home/app");
    assert_eq!(ids(&["-u", "1000:33"]), "1000:33:33 /home/app");
    assert_eq!(ids(&["-u", "4321"]), "4321:0:0 /");
    assert_eq!(ids(&["-u", "nobody:nogroup"]), "65534:65534:65534 /nonexistent");
    run(&umiak, &["-u", "nosuchuser", "--", "id"]).exits(126).tells("nosuchuser");
    run(&umiak, &["-u", "app:nosuchgroup", "--", "id"]).exits(126).tells("nosuchgroup");
    run(&umiak, &["-u", "4294967295", "--", "id"]).exits(126).tells("4294967295");
}

#[test]
fn one_id_is_enough_for_root_inside() {
    requires!(Need::Image("busybox"), Need::NoSubuid);
    let umiak = Umiak::with_busybox();
    run(&umiak, &["id", "-u"]).ok().says("0");
    // Who is to be somebody else has it instead of root.
    run(&umiak, &["-u", "app", "--", "id", "-u"]).ok().says("1000");
    run(&umiak, &["--userns", "keep-id", "-u", "app", "--", "id"]).exits(125).tells("1000").hints("usermod");
    run(&umiak, &["--group-add", "video", "--", "id"]).exits(125).tells("supplementary groups");
}

#[test]
fn working_directory_entrypoint_and_hostname() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    run(&umiak, &["pwd"]).ok().says("/");
    run(&umiak, &["-w", "/tmp", "--", "pwd"]).ok().says("/tmp");
    run(&umiak, &["--workdir", "/etc/../tmp", "--", "pwd"]).ok().says("/tmp");
    run(&umiak, &["-w", "relative", "--", "pwd"]).exits(125).tells("relative");
    run(&umiak, &["--hostname", "otter", "--", "sh", "-c", "hostname; cat /etc/hostname"])
        .ok()
        .says("otter\notter");
    run(&umiak, &["--hostname", "otter", "--", "cat", "/etc/hosts"]).ok().has("otter").has("localhost");
    run(&umiak, &["--entrypoint", "/bin/echo", "--", "from", "entrypoint"]).ok().says("from entrypoint");
    run(&umiak, &["--entrypoint", r#"["/bin/echo", "a b"]"#, "--", "c"]).ok().says("a b c");
    let name = run(&umiak, &["hostname"]).ok().stdout;
    assert!(
        name.trim().len() == 12 && name.trim().bytes().all(|b| b.is_ascii_hexdigit()),
        "not the short id: {name:?}"
    );
}

#[test]
fn the_images_configuration() {
    requires!(Need::Image("configured"), Need::ManyIds);
    let umiak = Umiak::with_image("configured");
    let run = |args: &[&str]| umiak.run(&[RUN, args].concat());
    run(&["configured"]).ok().says("entry default words");
    run(&["configured", "mine"]).ok().says("entry mine");
    run(&["--entrypoint", "/bin/pwd", "configured"]).ok().says("/work/here");
    run(&["--entrypoint", "id", "configured", "-un"]).ok().says("app");
    run(&["--entrypoint", "env", "configured"]).ok().has("COLOUR=blue\n").has("HOME=/home/app\n");
    run(&["--entrypoint", "cat", "configured", "/data/seed"]).ok().says("seed");
}

#[test]
fn read_only_and_tmpfs() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    run(&umiak, &["sh", "-c", "echo x > /file && cat /file"]).ok().says("x");
    let output = run(&umiak, &["--read-only", "--", "sh", "-c", "echo x > /file"]).exits(1);
    assert!(output.stderr.contains("Read-only file system"), "{}", output.stderr);
    // Podman keeps these writable.
    let script = "for d in /tmp /run /var/tmp /dev/shm; do echo x > $d/file || exit 1; done; echo all";
    run(&umiak, &["--read-only", "--", "sh", "-c", script]).ok().says("all");
    let script = "grep ' /scratch ' /proc/mounts; echo x > /scratch/y && cat /scratch/y";
    let output = run(&umiak, &["--tmpfs", "/scratch:size=1m,mode=700,noexec", "--", "sh", "-c", script]).ok();
    output
        .has("tmpfs")
        .has("size=1024k")
        .has("mode=700")
        .has("noexec")
        .has("nosuid")
        .has("nodev")
        .has("\nx\n");
    run(&umiak, &["--tmpfs", "relative", "--", "true"]).exits(125).tells("relative");
    run(&umiak, &["--tmpfs", "/x:nonsense=1", "--", "true"]).exits(125).tells("nonsense");
}

#[test]
fn bind_mounts() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let shared = umiak.dir.join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("in"), "from the host\n").unwrap();
    let host = shared.to_str().unwrap();
    let volume = format!("{host}:/data");
    run(&umiak, &["-v", &volume, "--", "sh", "-c", "cat /data/in; echo back > /data/out"])
        .ok()
        .says("from the host");
    assert_eq!(std::fs::read_to_string(shared.join("out")).unwrap(), "back\n");
    let read_only = format!("{volume}:ro");
    let output =
        run(&umiak, &["-v", &read_only, "--", "sh", "-c", "cat /data/in; echo x > /data/in"]).exits(1);
    assert!(output.says("from the host").stderr.contains("Read-only"));
    let mount = format!("type=bind,source={host},destination=/m,ro");
    let output = run(&umiak, &["--mount", &mount, "--", "sh", "-c", "cat /m/in; touch /m/x"]).exits(1);
    assert!(output.says("from the host").stderr.contains("Read-only"));
    let file = format!("{host}/in:/etc/motd:ro");
    run(&umiak, &["-v", &file, "--", "cat", "/etc/motd"]).ok().says("from the host");
    run(&umiak, &["--mount", "type=tmpfs,destination=/t,tmpfs-size=1m", "--", "df", "-k", "/t"])
        .ok()
        .has("1024");
    run(&umiak, &["-v", "/no/such/dir:/x", "--", "true"]).exits(125).tells("/no/such/dir");
    run(&umiak, &["-v", &format!("{host}:relative"), "--", "true"]).exits(125).tells("relative");
    run(&umiak, &["-v", &format!("{host}:/x:nonsense"), "--", "true"]).exits(125).tells("nonsense");
    run(&umiak, &["--mount", "type=bind,src=/,dst=/x,nonsense=1", "--", "true"]).exits(125).tells("nonsense");
    run(&umiak, &["--mount", "type=nonsense,dst=/x", "--", "true"]).exits(125).tells("nonsense");
    // A link in the image must not lead a mount out of the container.
    let script = format!("ln -s {host} /link 2>/dev/null; ls /");
    run(&umiak, &["sh", "-c", &script]).ok().has("link");
}

#[test]
fn named_volumes_keep_their_files() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    run(&umiak, &["-v", "box:/data", "--", "sh", "-c", "echo kept > /data/file"]).ok();
    run(&umiak, &["-v", "box:/data", "--", "cat", "/data/file"]).ok().says("kept");
    run(&umiak, &["--mount", "type=volume,src=box,dst=/d", "--", "cat", "/d/file"]).ok().says("kept");
    run(&umiak, &["-v", "b*x:/data", "--", "true"]).exits(125).tells("b*x");
}

#[test]
fn capabilities() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let caps = |options: &[&str]| {
        let line =
            [options, &["--", "sh", "-c", "grep -E 'Cap(Eff|Bnd|Prm)' /proc/self/status | cut -f2"]].concat();
        let text = run(&umiak, &line).ok().stdout;
        let sets: Vec<u64> = text.lines().map(|line| u64::from_str_radix(line.trim(), 16).unwrap()).collect();
        assert!(sets.iter().all(|set| *set == sets[0]), "{text}");
        sets[0]
    };
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT: Podman's defaults.
    let default = 0x0000_0000_8004_05fb;
    assert_eq!(caps(&[]), default);
    assert_eq!(caps(&["--cap-drop", "all"]), 0);
    assert_eq!(caps(&["--cap-drop", "ALL", "--cap-add", "chown"]), 1);
    assert_eq!(caps(&["--cap-add", "CAP_NET_ADMIN"]), default | 1 << 12);
    assert_eq!(caps(&["--cap-drop", "kill,chown"]), default & !(1 << 5) & !1);
    run(&umiak, &["--cap-add", "fly", "--", "true"]).exits(125).tells("fly");
}

#[test]
fn capabilities_of_an_ordinary_user_inside() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let script = "grep CapEff /proc/self/status | cut -f2; chown 1 /tmp 2>/dev/null || echo refused";
    run(&umiak, &["-u", "app", "--", "sh", "-c", script]).ok().says("0000000000000000\nrefused");
}

#[test]
fn security_options() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let status = |options: &[&str], field: &str| {
        let command = format!("grep '^{field}:' /proc/self/status | cut -f2");
        run(&umiak, &[options, &["--", "sh", "-c", &command]].concat()).ok().stdout.trim().to_owned()
    };
    assert_eq!(status(&[], "Seccomp"), "2");
    assert_eq!(status(&[], "NoNewPrivs"), "0");
    assert_eq!(status(&["--security-opt", "no-new-privileges"], "NoNewPrivs"), "1");
    assert_eq!(status(&["--security-opt", "no-new-privileges"], "Seccomp"), "2");
    assert_eq!(status(&["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
    run(&umiak, &["--security-opt", "nonsense=1", "--", "true"]).exits(125).tells("nonsense");
    // The default filter: no new user namespaces without CAP_SYS_ADMIN.
    let output = run(&umiak, &["unshare", "-U", "true"]);
    assert_ne!(output.code, Some(0), "unshare -U must be refused");
    let output = run(&umiak, &["mount", "-t", "tmpfs", "x", "/tmp"]);
    assert_ne!(output.code, Some(0), "mount must be refused");
}

#[test]
fn what_is_hidden_and_read_only() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script =
        "cat /proc/kcore | head -c 1 | wc -c; ls -A /sys/firmware | wc -l; cat /proc/timer_list | wc -c";
    run(&umiak, &["sh", "-c", script]).ok().says("0\n0\n0");
    for path in ["/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/sys/kernel/uevent_helper"] {
        let output = run(&umiak, &["sh", "-c", &format!("echo x > {path}")]);
        assert_ne!(output.code, Some(0), "{path} must not be writable");
    }
    let script =
        "ls /dev | sort | tr '\\n' ' '; ls -l /dev/null | cut -c1-10; readlink /dev/fd; readlink /dev/ptmx";
    let output =
        run(&umiak, &["sh", "-c", script]).ok().has("null").has("zero").has("full").has("urandom").has("tty");
    output.has("crw-rw-rw-").has("/proc/self/fd").has("pts/ptmx").lacks("sda").lacks("kmsg").lacks("fuse");
    run(&umiak, &["sh", "-c", "echo x > /dev/null && head -c 4 /dev/zero | wc -c"]).ok().says("4");
    // The program gets three descriptors and no other. Looked at from beside it: a shell has some of
    // its own while it sets up what it runs.
    umiak
        .run(&["run", "-d", "--name", "still", "--network", "none", "localhost/busybox", "sleep", "1000"])
        .ok();
    umiak.run(&["exec", "still", "ls", "/proc/1/fd"]).ok().says("0\n1\n2");
    umiak.run(&["rm", "--force", "--time", "0", "still"]).ok();
    let output = run(&umiak, &["sh", "-c", "cat /proc/mounts"]).ok();
    output.has(" /dev/pts devpts ").has(" /dev/mqueue mqueue ").has(" /dev/shm tmpfs ").has(" /proc proc ");
}

#[test]
fn namespaces() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let own = |kind: &str| {
        std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
    };
    let inside = |options: &[&str], kind: &str| {
        let link = format!("/proc/self/ns/{kind}");
        let line = [&["run", "--rm"], options, &["busybox", "readlink", &link]].concat();
        umiak.run(&line).ok().stdout.trim().to_owned()
    };
    for kind in ["pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        assert_ne!(inside(&["--network", "none"], kind), own(kind), "{kind}");
    }
    for (options, kind) in [
        (["--network", "host"], "net"),
        (["--pid", "host"], "pid"),
        (["--ipc", "host"], "ipc"),
        (["--uts", "host"], "uts"),
    ] {
        assert_eq!(inside(&options, kind), own(kind), "{kind}");
    }
    run(&umiak, &["sh", "-c", "echo $$"]).ok().says("1");
    run(&umiak, &["sh", "-c", "ls /sys/class/net"]).ok().says("lo");
    // Debian's busybox knows only raw sockets; other programs ping without the capability.
    run(&umiak, &["--cap-add", "net_raw", "--", "ping", "-c1", "127.0.0.1"]).ok().has("1 packets received");
    run(&umiak, &["cat", "/proc/sys/net/ipv4/ping_group_range"]).ok().says("0\t0");
    for option in ["--network", "--pid", "--ipc", "--uts", "--userns"] {
        umiak.run(&["run", "--rm", option, "nonsense", "busybox", "true"]).exits(125).tells("nonsense");
    }
}

#[test]
fn user_namespaces() {
    requires!(Need::Image("busybox"), Need::Unprivileged);
    let umiak = Umiak::with_busybox();
    let own = rustix::process::getuid().as_raw().to_string();
    let map = run(&umiak, &["cat", "/proc/self/uid_map"]).ok().stdout;
    let first: Vec<&str> = map.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(first, ["0", own.as_str(), "1"]);
    run(&umiak, &["--userns", "host", "--", "id", "-u"]).ok().says("0");
}

#[test]
fn keep_id() {
    requires!(Need::Image("busybox"), Need::Unprivileged);
    let umiak = Umiak::with_busybox();
    let own = rustix::process::getuid().as_raw().to_string();
    run(&umiak, &["--userns", "keep-id", "--", "id", "-u"]).ok().says(&own);
    if !support::subordinate() {
        return;
    }
    // What belongs to root in the image does so in the container, and what is ours outside is inside.
    let shared = umiak.dir.join("shared");
    std::fs::create_dir(&shared).unwrap();
    let volume = format!("{}:/shared", shared.display());
    let script =
        "stat -c %u /bin/busybox /shared; touch /shared/made; touch /bin/mine 2> /dev/null || echo refused";
    let words = ["--userns", "keep-id", "-v", &volume, "--", "sh", "-c", script];
    run(&umiak, &words).ok().says(&format!("0\n{own}\nrefused"));
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(shared.join("made")).unwrap().uid().to_string(), own);
    run(
        &umiak,
        &["--userns", "keep-id", "-u", "0", "--", "sh", "-c", "touch /bin/mine; stat -c %u /bin/mine"],
    )
    .ok()
    .says("0");
    // What was changed stays until the end, and then nothing is left.
    let script = "echo x >> /tmp/count; wc -l < /tmp/count";
    let words =
        ["run", "--userns", "keep-id", "--name", "kept", "--network", "none", "busybox", "sh", "-c", script];
    umiak.run(&words).ok().says("1");
    umiak.run(&["start", "-a", "kept"]).ok().says("2");
    umiak.run(&["rm", "kept"]).ok();
    support::eventually("nothing is left", || {
        let left = |name| std::fs::read_dir(umiak.dir.join("store").join(name)).map_or(0, Iterator::count);
        left("containers") + left("trash") == 0
    });
}

#[test]
fn keep_id_knows_all_owners() {
    requires!(Need::Image("nasty"), Need::ManyIds, Need::Unprivileged);
    let umiak = Umiak::with_image("nasty");
    let script = "find / -xdev ! -type l -exec stat -c '%u %g %a %n' {} + | sort -k4";
    let list = |options: &[&str]| {
        let words = [
            &["run", "--rm", "--network", "none", "--entrypoint", "/bin/sh"],
            options,
            &["nasty", "-c", script],
        ];
        let lines = umiak.run(&words.concat()).ok().stdout;
        // What the runtime makes or binds is not the image's.
        let made = [
            "/",
            "/dev",
            "/proc",
            "/sys",
            "/run",
            "/run/.containerenv",
            "/etc/hosts",
            "/etc/hostname",
            "/etc/resolv.conf",
        ];
        lines
            .lines()
            .filter(|line| !made.iter().any(|path| line.ends_with(&format!(" {path}"))))
            .collect::<Vec<_>>()
            .join("\n")
    };
    let plain = list(&["-u", "0"]);
    assert!(plain.lines().any(|line| !line.starts_with("0 ")), "{plain}");
    assert_eq!(list(&["--userns", "keep-id", "-u", "0"]), plain);
}

#[test]
fn limits_sysctls_and_devices() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    run(&umiak, &["--ulimit", "nofile=64:128", "--", "sh", "-c", "ulimit -Sn; ulimit -Hn"])
        .ok()
        .says("64\n128");
    run(&umiak, &["--ulimit", "core=0", "--", "sh", "-c", "ulimit -c"]).ok().says("0");
    run(&umiak, &["--ulimit", "nonsense=1", "--", "true"]).exits(125).tells("nonsense");
    run(&umiak, &["--ulimit", "nofile=9:3", "--", "true"]).exits(125).tells("nofile");
    run(&umiak, &["--sysctl", "net.ipv4.ip_forward=1", "--", "cat", "/proc/sys/net/ipv4/ip_forward"])
        .ok()
        .says("1");
    run(&umiak, &["--sysctl", "kernel.msgmax=9000", "--", "cat", "/proc/sys/kernel/msgmax"])
        .ok()
        .says("9000");
    run(&umiak, &["--sysctl", "vm.swappiness=1", "--", "true"]).exits(125).tells("vm.swappiness");
    run(&umiak, &["--sysctl", "net.ipv4.ip_forward", "--", "true"]).exits(125).tells("net.ipv4.ip_forward");
    run(
        &umiak,
        &["--device", "/dev/null:/dev/mine", "--", "sh", "-c", "echo x > /dev/mine && ls -l /dev/mine"],
    )
    .ok()
    .has("1,   3");
    run(&umiak, &["--device", "/dev/no-such", "--", "true"]).exits(125).tells("/dev/no-such");
}

#[test]
fn init_reaps_and_forwards() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "cat /proc/1/comm; (sleep 0.1 &) ; sleep 0.5; ps -o stat= | grep -c Z; exit 7";
    let output = run(&umiak, &["--init", "--", "sh", "-c", script]).exits(7);
    assert!(output.stdout.ends_with("\n0\n") && !output.stdout.starts_with("sh\n"), "{}", output.stdout);
    let id = umiak.detached(&["--init", "--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["stop", "--time", "60", &id]).ok().says(&id);
    // Without init `sleep` as pid 1 would ignore SIGTERM and end by SIGKILL, 137.
    assert_eq!(umiak.inspect(&id, "{{.State.ExitCode}}"), "143");
}

#[test]
fn labels_cidfile_names_and_stop_signal() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let cidfile = umiak.dir.join("cid");
    let cidfile = cidfile.to_str().unwrap();
    let id = umiak.detached(&[
        "--cidfile",
        cidfile,
        "--name",
        "web",
        "--label",
        "a=1",
        "-l",
        "b",
        "--stop-signal",
        "USR1",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "trap 'exit 9' USR1; while :; do sleep 0.05; done",
    ]);
    assert_eq!(std::fs::read_to_string(cidfile).unwrap().trim(), id);
    assert_eq!(
        umiak.inspect("web", "{{.Id}} {{.Name}} {{.Config.Labels.a}} [{{.Config.Labels.b}}]"),
        format!("{id} web 1 []")
    );
    umiak.run(&["run", "--name", "web", "busybox", "true"]).exits(125).tells("web").hints("rm");
    umiak.run(&["run", "--cidfile", cidfile, "busybox", "true"]).exits(125).tells(cidfile);
    umiak.run(&["run", "--name", "no/good", "busybox", "true"]).exits(125).tells("no/good");
    umiak.run(&["stop", "-t", "60", "web"]).ok().says("web");
    assert_eq!(umiak.inspect("web", "{{.State.ExitCode}}"), "9");
    run(&umiak, &["--stop-signal", "NONSENSE", "--", "true"]).exits(125).tells("NONSENSE");
}

#[test]
fn a_plain_rootfs() {
    requires!(Need::Image("busybox"), Need::Tool("busybox"));
    let umiak = Umiak::new();
    let rootfs = umiak.dir.join("rootfs");
    std::fs::create_dir_all(rootfs.join("bin")).unwrap();
    std::fs::copy(support::tool("busybox").unwrap(), rootfs.join("bin/busybox")).unwrap();
    let args = [
        "run",
        "--rm",
        "--network",
        "none",
        "--rootfs",
        rootfs.to_str().unwrap(),
        "/bin/busybox",
        "echo",
        "plain",
    ];
    umiak.run(&args).ok().says("plain");
    umiak
        .run(&["run", "--rm", "--rootfs", "/no/such/rootfs", "/bin/true"])
        .exits(125)
        .tells("/no/such/rootfs");
}

#[test]
fn pull_policies() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["run", "--rm", "--pull", "never", "localhost/busybox", "true"]).ok();
    umiak.run(&["run", "--rm", "--pull", "missing", "localhost/busybox", "true"]).ok();
    umiak
        .run(&["run", "--rm", "--pull", "never", "localhost/absent", "true"])
        .exits(125)
        .tells("localhost/absent");
    umiak
        .run(&["run", "--rm", "--pull", "nonsense", "localhost/busybox", "true"])
        .exits(125)
        .tells("nonsense");
}

#[test]
fn hello_tells_what_isolates_it() {
    let umiak = Umiak::new();
    let output = umiak.run(&["run", "--rm", "hello"]).ok();
    output.has("namespace").has("seccomp").has("capabilities");
    let output = umiak.run(&["run", "--rm", "hello", "--json"]).ok();
    let told: serde_json::Value = serde_json::from_str(&output.stdout).unwrap();
    for namespace in ["pid", "mnt", "net", "ipc", "uts", "cgroup"] {
        assert_eq!(told["namespaces"][namespace]["private"], true, "{namespace}: {told}");
    }
    assert_eq!(told["seccomp"]["mode"], "filter", "{told}");
    assert_eq!(told["pid"], 1, "{told}");
}
