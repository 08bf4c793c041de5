//! Flags of `run`, `create` and `exec` about the program, its names and its files in `/etc`.

use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;

use crate::requires;
use crate::support::{self, Need, Umiak, eventually};

const RUN: &[&str] = &["run", "--rm", "--network", "none"];

/// `run --rm --network none OPTIONS… busybox sh -c SCRIPT`.
fn sh(umiak: &Umiak, options: &[&str], script: &str) -> support::Output {
    umiak.run(&[RUN, options, &["busybox", "sh", "-c", script]].concat())
}

#[test]
fn the_environment_in_every_way() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let mut umiak = Umiak::with_busybox();
    umiak.pull("configured");
    umiak.set_env("OTTER", "wet");
    umiak.set_env("HTTP_PROXY", "http://proxy:1");
    sh(&umiak, &["--env-host"], "echo $OTTER").ok().says("wet");
    sh(&umiak, &[], "echo $OTTER$HTTP_PROXY").ok().says("");
    sh(&umiak, &["--http-proxy"], "echo $HTTP_PROXY").ok().says("http://proxy:1");
    sh(&umiak, &["--http-proxy=false"], "echo $HTTP_PROXY").ok().says("");
    // Our own value counts more than that of our environment.
    sh(&umiak, &["--env-host", "-e", "OTTER=dry"], "echo $OTTER").ok().says("dry");
    let env = |options: &[&str]| {
        umiak
            .run(&[RUN, options, &["-u", "0", "--entrypoint", "/bin/busybox", "configured", "env"]].concat())
            .ok()
    };
    env(&["--env-merge", "COLOUR=${COLOUR}-ish"]).has("COLOUR=blue-ish\n");
    env(&["--unsetenv", "COLOUR"]).lacks("COLOUR");
    env(&["--unsetenv", "COLOUR", "-e", "COLOUR=red"]).has("COLOUR=red\n");
    env(&["--unsetenv-all", "-e", "A=1"]).lacks("COLOUR").lacks("container=").has("A=1\n");
    sh(&umiak, &["--unsetenv", "A=B"], "true").exits(125).tells("--unsetenv");
    sh(&umiak, &["--env-merge", "novalue"], "true").exits(125).tells("--env-merge");
}

#[test]
fn the_process() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    sh(&umiak, &["--umask", "0077"], "umask; touch /x; stat -c %a /x").ok().says("0077\n600");
    sh(&umiak, &[], "umask").ok().says("0022");
    for bad in ["9", "1000", "", "u=rwx"] {
        sh(&umiak, &["--umask", bad], "true").exits(125).tells("--umask");
    }
    sh(&umiak, &["--personality", "LINUX32"], "uname -m").ok().says("i686");
    sh(&umiak, &["--personality", "BSD"], "true").exits(125).tells("--personality");
    sh(&umiak, &["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj").ok().says("500");
    sh(&umiak, &["--oom-score-adj", "1001"], "true").exits(125).tells("oom-score-adj");
    sh(&umiak, &["--domainname", "example.org"], "cat /proc/sys/kernel/domainname").ok().says("example.org");
    sh(&umiak, &["--domainname", "x", "--uts", "host"], "true").exits(125).tells("--domainname");
    sh(&umiak, &["--ulimit", "nofile=100:200", "--ulimit", "nofile=110:200"], "ulimit -n").ok().says("110");
    sh(&umiak, &["--ulimit", "host"], "true").ok();
    // Exec has them, too.
    umiak
        .run(&[
            "run",
            "-d",
            "--name",
            "c",
            "--umask",
            "027",
            "--personality",
            "linux32",
            "busybox",
            "sleep",
            "100",
        ])
        .ok();
    umiak.run(&["exec", "c", "sh", "-c", "umask; uname -m"]).ok().says("0027\ni686");
    assert_eq!(umiak.inspect("c", "{{.Config.Umask}}"), "0027");
}

#[test]
fn descriptors_are_passed_on() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let file = std::fs::File::open(umiak.file("secret", "through\n")).unwrap();
    let number = file.as_raw_fd();
    let with = |args: &[&str], at: i32| {
        let mut command = umiak.command(args);
        // SAFETY: dup2 is async-signal-safe.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || match libc::dup2(number, at) {
                -1 => Err(std::io::Error::last_os_error()),
                // If it had that number already it would still be closed by the exec.
                fd => (libc::fcntl(fd, libc::F_SETFD, 0) == 0)
                    .then_some(())
                    .ok_or(std::io::ErrorKind::Other.into()),
            });
        }
        let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
        support::finish(child.unwrap(), b"", args.join(" "))
    };
    with(&[RUN, &["--preserve-fds", "1", "busybox", "cat", "/proc/self/fd/3"]].concat(), 3)
        .ok()
        .says("through");
    with(&[RUN, &["--preserve-fd", "7", "busybox", "sh", "-c", "cat <&7"]].concat(), 7).ok();
    umiak.run(&[RUN, &["--preserve-fds", "1", "busybox", "true"]].concat()).exits(125).tells("preserve-fds");
    umiak.run(&[RUN, &["--preserve-fd", "1", "busybox", "true"]].concat()).exits(125).tells("preserve-fd");
    umiak.run(&["run", "-d", "--name", "c", "busybox", "sleep", "100"]).ok();
    let file = umiak.file("again", "again\n");
    let file = std::fs::File::open(file).unwrap();
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
    with(&["exec", "--preserve-fds=1", "c", "sh", "-c", "test -e /proc/self/fd/3"], 3).ok();
    umiak.run(&["exec", "c", "sh", "-c", "test -e /proc/self/fd/3"]).exits(1);
}

#[test]
fn streams_that_are_shown() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "echo out; echo err >&2";
    let shown = |options: &[&str]| {
        let output = sh(&umiak, options, script).ok();
        (output.stdout.trim().to_owned(), output.stderr.trim().to_owned())
    };
    let pair = |out: &str, err: &str| (out.to_owned(), err.to_owned());
    assert_eq!(shown(&[]), pair("out", "err"));
    assert_eq!(shown(&["-a", "stdout"]), pair("out", ""));
    assert_eq!(shown(&["-a", "STDERR"]), pair("", "err"));
    assert_eq!(shown(&["-a", "stdout", "--attach=stderr"]), pair("out", "err"));
    let line = ["run", "--rm", "-a", "stdin", "-a", "stdout", "busybox", "cat"];
    umiak.run_with_input(&line, b"typed").ok().says("typed");
    sh(&umiak, &["-a", "odd"], "true").exits(125).tells("--attach");
    umiak.run(&["run", "-d", "-a", "stdout", "busybox", "true"]).exits(125).tells("--detach");
}

#[test]
fn groups() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let ids = |options: &[&str]| sh(&umiak, options, "id -G").ok().stdout.trim().to_owned();
    assert_eq!(ids(&["--group-add", "staff", "--group-add", "1234"]), "0 50 1234");
    assert_eq!(ids(&["-u", "1000:1000", "--group-add", "staff"]), "1000 50");
    sh(&umiak, &["--group-add", "nosuchgroup"], "true").exits(126).tells("nosuchgroup");
    sh(&umiak, &["--group-add", "keep-groups", "--group-add", "staff"], "true")
        .exits(125)
        .tells("keep-groups");
    sh(&umiak, &["--group-add", ""], "true").exits(125).tells("--group-add");
    sh(&umiak, &["--group-add", "keep-groups"], "true").ok();
    umiak.run(&["run", "-d", "--name", "c", "--group-add", "staff", "busybox", "sleep", "100"]).ok();
    umiak.run(&["exec", "c", "id", "-G"]).ok().says("0 50");
}

#[test]
fn files_in_etc() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let hosts = "cat /etc/hosts";
    sh(&umiak, &["--add-host", "web;www:10.0.0.9"], hosts).ok().has("10.0.0.9\tweb www\n").has("localhost");
    sh(&umiak, &["--add-host", "six:[::1]"], hosts).ok().has("::1\tsix\n");
    for bad in ["web", "web:", "web:nowhere", ":1.2.3.4", "a b:1.2.3.4", "web:host-gateway"] {
        sh(&umiak, &["--add-host", bad], "true").exits(125).tells("--add-host");
    }
    let own = umiak.file("hosts", "9.9.9.9 nine\n");
    let own = own.to_str().unwrap();
    sh(&umiak, &["--hosts-file", own], hosts).ok().has("9.9.9.9 nine").has("127.0.0.1");
    sh(&umiak, &["--hosts-file", "/no/such"], hosts).exits(125).tells("/no/such");
    sh(&umiak, &["--hosts-file", "none"], hosts).ok().has("localhost");
    sh(&umiak, &["--no-hosts"], "test -s /etc/hosts").exits(1);
    sh(&umiak, &["--no-hosts", "--add-host", "a:1.2.3.4"], "true").exits(125).tells("--no-hosts");
    sh(&umiak, &["--no-hosts", "--hosts-file", own], "true").exits(125).tells("--no-hosts");
    sh(&umiak, &["--hostname", "otter", "--no-hostname"], "hostname; cat /etc/hostname 2>&1 | grep -c otter")
        .exits(1)
        .says("otter\n0");
    sh(&umiak, &["--chrootdirs", "/jail,/jail/two"], "cat /jail/etc/hosts /jail/two/etc/hostname")
        .ok()
        .has("localhost");
    sh(&umiak, &["--chrootdirs", "relative"], "true").exits(125).tells("--chrootdirs");
    sh(&umiak, &["--tz", "Nowhere/Atlantis"], "true").exits(125).tells("Atlantis");
    sh(&umiak, &["--tz", "../../etc/passwd"], "true").exits(125).tells("--tz");
    sh(&umiak, &["--tz", "local"], "true").ok();
    if std::path::Path::new("/usr/share/zoneinfo/Asia/Tokyo").exists() {
        sh(&umiak, &["--tz", "Asia/Tokyo"], "head -c 4 /etc/localtime").ok().says("TZif");
    }
}

#[test]
fn who_is_known_inside() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let whoami = "id -un; grep :4321: /etc/passwd";
    sh(&umiak, &["-u", "4321:33"], whoami).ok().says("4321\n4321:*:4321:33:container user:/:/bin/sh");
    sh(&umiak, &["-u", "4321:33", "--passwd=false"], "id -g").ok().says("33");
    sh(&umiak, &["-u", "4321:4444"], "grep 4444 /etc/group").ok().says("4444:x:4444:4321");
    sh(&umiak, &["-u", "4321", "--passwd=false"], "grep -c 4321 /etc/passwd").exits(1).says("0");
    let entry = ["-u", "4321", "--passwd-entry", "me:*:$UID:$GID:x:/home/me:/bin/sh"];
    sh(&umiak, &entry, "id -un; echo $HOME").ok().says("me\n/home/me");
    let entry = ["-u", "4321:4322", "--group-entry", "us:x:$GID:"];
    sh(&umiak, &entry, "id -gn").ok().says("us");
    sh(&umiak, &["--passwd-entry", "a\nb"], "true").exits(125).tells("--passwd-entry");
    sh(&umiak, &["--hostuser", "bin"], "grep ^bin: /etc/passwd").ok().has("bin:");
    sh(&umiak, &["--hostuser", "nosuchuser"], "true").exits(125).tells("nosuchuser");
    // The image's own file is left alone.
    umiak.run(&["run", "--name", "c", "-u", "4321", "busybox", "true"]).ok();
    umiak.run(&["diff", "c"]).ok().lacks("/etc/passwd");
}

#[test]
fn files_on_the_host() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let path = |name: &str| umiak.dir.join(name).to_str().unwrap().to_owned();
    let (cid, pid, monitor) = (path("cid"), path("pid"), path("monitor"));
    let flags = ["--cidfile", &cid, "--pidfile", &pid, "--conmon-pidfile", &monitor];
    let id = umiak
        .run(&[&["run", "-d", "--name", "c"], &flags[..], &["busybox", "sleep", "100"]].concat())
        .ok()
        .stdout;
    assert_eq!(std::fs::read_to_string(&cid).unwrap(), id.trim());
    assert_eq!(std::fs::read_to_string(&pid).unwrap(), umiak.inspect("c", "{{.State.Pid}}"));
    assert_eq!(std::fs::read_to_string(&monitor).unwrap(), umiak.inspect("c", "{{.State.ConmonPid}}"));
    umiak.run(&["exec", "--cidfile", &cid, "echo", "found"]).ok().says("found");
    umiak.run(&["exec", "--latest", "echo", "found"]).ok().says("found");
    umiak.run(&["exec", "--cidfile", &pid, "true"]).exits(125).tells("--cidfile");
    // Taken already: told before anything is made.
    umiak.run(&["run", "--rm", "--cidfile", &cid, "no-such-image", "true"]).exits(125).tells("--cidfile");
    umiak.run(&["rm", "-f", "-t", "0", "c"]).ok();
    assert!(!std::path::Path::new(&cid).exists());
    umiak.run(&["create", "--cidfile", "/no/such/dir/cid", "busybox"]).exits(125).tells("/no/such/dir/cid");
    umiak.run(&["run", "--pidfile", "/no/such/dir/pid", "busybox", "true"]).exits(125).tells("process ids");
    umiak.run(&["run", "--rm", "--replace", "busybox"]).exits(125).tells("--replace");
    let labels = umiak.file("labels", "# no\n\na=1\nb=two words\n");
    umiak
        .run(&["create", "--name", "l", "--label-file", labels.to_str().unwrap(), "-l", "b=3", "busybox"])
        .ok();
    assert_eq!(umiak.inspect("l", "{{.Config.Labels.a}} {{.Config.Labels.b}}"), "1 3");
    let format = "{{.Names}} {{.Label \"b\"}}{{.Label \"none\"}}{{.CIDFile}}";
    umiak.run(&["ps", "-a", "--filter", "name=^l$", "--format", format]).ok().says("l 3");
    umiak.run(&["create", "--label-file", "/no/such", "busybox"]).exits(125).tells("/no/such");
}

#[test]
fn the_image_goes_with_its_container() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "--name", "other", "busybox", "true"]).ok();
    umiak.run(&["run", "--rmi", "busybox", "true"]).ok();
    umiak.run(&["image", "exists", "busybox"]).ok();
    let umiak = Umiak::with_busybox();
    umiak.run(&["run", "--rmi", "busybox", "echo", "last"]).ok().says("last");
    eventually("the image is gone", || umiak.run(&["image", "exists", "busybox"]).code == Some(1));
}

#[test]
fn what_is_required_is_started_first() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "--name", "first", "busybox", "sleep", "100"]).ok();
    umiak
        .run(&["run", "--name", "second", "--requires", "first", "busybox", "echo", "here"])
        .ok()
        .says("here");
    assert_eq!(umiak.status("first"), "running");
    umiak.run(&["run", "--requires", "nobody", "busybox", "true"]).exits(125).tells("nobody");
    umiak.run(&["create", "--name", "broken", "busybox", "/no/such"]).ok();
    umiak
        .run(&["run", "--name", "third", "--requires", "broken", "busybox", "true"])
        .exits(125)
        .tells("broken");
}

#[test]
fn privileged() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let caps = |options: &[&str]| {
        let out = sh(&umiak, options, "grep CapEff /proc/self/status").ok().stdout;
        u64::from_str_radix(out.split_whitespace().last().unwrap(), 16).unwrap().count_ones()
    };
    assert!(caps(&["--privileged"]) > 30 && caps(&[]) < 16);
    assert!(caps(&["--privileged=false"]) < 16);
    sh(
        &umiak,
        &["--privileged"],
        "grep Seccomp: /proc/self/status; test -e /proc/kcore && head -c1 /proc/keys > /dev/null",
    )
    .has("Seccomp:\t0");
    sh(&umiak, &["--privileged"], "mkdir /m && mount -t tmpfs none /m && mount | grep -c ' /m '")
        .ok()
        .says("1");
    let covered = "grep ' /proc/' /proc/mounts || echo open";
    sh(&umiak, &[], covered).ok().has("/proc/").lacks("open");
    for option in ["systempaths=unconfined", "unmask=ALL"] {
        sh(&umiak, &["--security-opt", option], covered).ok().says("open");
    }
    sh(&umiak, &["--security-opt", "systempaths=x"], "true").exits(125).tells("it takes unconfined");
    umiak.run(&["run", "-d", "--name", "c", "busybox", "sleep", "100"]).ok();
    let eff = |options: &[&str]| {
        let line = [&["exec"], options, &["c", "grep", "CapEff", "/proc/self/status"]].concat();
        umiak.run(&line).ok().stdout
    };
    assert_ne!(eff(&["--privileged"]), eff(&[]));
}

#[test]
fn filters_of_images() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    sh(&umiak, &["--seccomp-policy", "image"], "true").ok();
    // One that an image brings denies what it likes.
    let profile = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#;
    let change = format!("LABEL io.containers.seccomp.profile='{profile}'");
    umiak.run(&["create", "--name", "base", "busybox"]).ok();
    umiak.run(&["commit", "-q", "--change", &change, "base", "localhost/filtered"]).ok();
    let run = |policy: &str| {
        umiak.run(&["run", "--rm", "--seccomp-policy", policy, "localhost/filtered", "mkdir", "/made"])
    };
    run("image").exits(1);
    run("default").ok();
    sh(&umiak, &["--seccomp-policy", "odd"], "true").exits(125).tells("--seccomp-policy");
}

#[test]
fn what_is_refused_says_so() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for flag in ["--pod", "--secret", "--gpus", "--decryption-key", "--shm-size-systemd"] {
        sh(&umiak, &[flag, "x"], "true").exits(125).tells("is not supported yet");
    }
    sh(&umiak, &["--systemd", "always"], "true").exits(125).tells("is not supported yet");
    sh(&umiak, &["--sdnotify", "conmon"], "true").exits(125).tells("is not supported yet");
    sh(&umiak, &["--systemd=false", "--sdnotify=ignore"], "true").ok();
    umiak.run(&["create", "--pod", "x", "busybox"]).exits(125).tells("is not supported yet");
    sh(&umiak, &["--annotation", "a"], "true").exits(125).tells("KEY=VALUE");
    sh(&umiak, &["-v", "/:/x:ro,rw"], "true").exits(125).tells("\"ro\" and \"rw\"");
    sh(&umiak, &["--link", "db:db"], "true").exits(125).tells("--link").hints("--network");
    umiak.run(&["run"]).exits(125).tells("an image is missing").hints("umiak run --help");
    umiak.run(&["exec", "x"]).exits(125).tells("a command is missing");
    // Of a flag that is given twice the last one counts.
    sh(&umiak, &["--hostname", "a", "--hostname", "b"], "hostname").ok().says("b");
    sh(&umiak, &["--read-only", "--read-only=false"], "touch /x").ok();
    for (flag, value) in
        [("--pid", "odd"), ("--ipc", "ns:rel"), ("--uts", "container:nobody"), ("--cgroupns", "")]
    {
        let output = sh(&umiak, &[flag, value], "true");
        if value.is_empty() {
            output.ok()
        } else {
            output.exits(125).tells(flag)
        };
    }
}

/// Every flag that takes a value, with values that nobody means: it works, or one clear line tells why not,
/// and nothing stays behind.
#[test]
fn switches_with_a_value() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let run =
        ["run", "--rm=1", "--network=none", "--no-healthcheck=true", "-it=f", "busybox", "echo", "--rm=0"];
    umiak.run(&run).ok().says("--rm=0");
    umiak.run(&["create", "--name", "box", "--network", "none", "--rm=False", "busybox", "true"]).ok();
    assert_eq!(umiak.inspect("box", "{{.HostConfig.AutoRemove}}"), "false");
    umiak.run(&["ps", "--all=true", "-q=false", "--format", "{{.Names}}"]).ok().says("box");
    umiak.run(&["ps", "-a=false", "--noheading=1"]).ok().says("");
    umiak.run(&["rm", "--force=yes", "box"]).exits(125).tells("--force");
    umiak.run(&["rm", "-f=t", "box"]).ok();
}

#[test]
fn nonsense_for_every_flag() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let help = umiak.run(&["run", "--help"]).ok().stdout;
    let flags: Vec<&str> = help
        .split_whitespace()
        .filter(|word| word.starts_with("--"))
        .map(|word| word.split(['[', '=', ',']).next().unwrap())
        .collect();
    assert!(flags.len() > 90, "{flags:?}");
    let long = "x".repeat(5000);
    let values =
        ["", "-1", "🦦", "a\u{1}b\u{1b}[31m", "../../etc", "=", ":", ",", "0:0:0:0", "%s{{.}}$HOME", &long];
    // They wait for the network, or ask for help.
    let left_out =
        ["--help", "--retry-delay", "--retry", "--pull", "--platform", "--arch", "--os", "--variant"];
    for flag in flags.into_iter().filter(|flag| !left_out.contains(flag)) {
        for value in values {
            let output = umiak.run(&["run", "--rm", &format!("{flag}={value}"), "busybox", "true"]);
            let shown = format!("{flag}={value:?}: {:?} {}", output.code, output.stderr);
            assert!(matches!(output.code, Some(0 | 125..=127)), "{shown}");
            if output.code != Some(0) {
                let output = output.tells("");
                assert!(output.stderr.lines().count() <= 2 && !output.stderr.contains('\u{1b}'), "{shown}");
            }
        }
    }
}
