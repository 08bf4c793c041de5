//! Log drivers and their options, and `logs` of what they keep.

use std::process::Stdio;

use crate::requires;
use crate::support::{Need, Umiak, eventually, finish};

#[test]
fn the_last_lines() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words = ["run", "--name", "box", "--network", "none", "busybox", "sh", "-c"];
    let script = "seq 1 5000; printf 'no end'; sleep 0.2; printf ' yet'; sleep 0.2; echo; echo last";
    umiak.run(&[&words[..], &[script]].concat()).ok();
    umiak.run(&["logs", "--tail", "1", "box"]).ok().says("last");
    umiak.run(&["logs", "--tail", "3", "box"]).ok().says("5000\nno end yet\nlast");
    umiak.run(&["logs", "--tail", "0", "box"]).ok().says("");
    for all in ["-1", "all", "100000"] {
        let shown = umiak.run(&["logs", "--tail", all, "box"]).ok().stdout;
        assert_eq!(shown.lines().count(), 5002, "{all}");
    }
    let stamped = umiak.run(&["logs", "-t", "--tail", "2", "box"]).ok().stdout;
    let time = stamped.split(' ').next().unwrap().to_owned();
    umiak.run(&["logs", "--until", &time, "--tail", "1", "box"]).ok().has("no end");
    umiak.run(&["logs", "--since", "1h", "--until=-1h", "--tail", "1", "box"]).ok().says("last");
    umiak.run(&["logs", "--since=-1h", "box"]).ok().says("");
    umiak.run(&["logs", "--tail", "many", "box"]).exits(125).tells("many");
}

#[test]
fn several_containers() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        let script = format!("echo early {name}; while ! [ -e /go ]; do sleep 0.05; done; echo late {name}");
        ids.push(umiak.detached(&["--name", name, "--network", "none", "busybox", "sh", "-c", &script]));
        eventually("it has spoken", || umiak.run(&["logs", name]).ok().stdout.contains("early"));
    }
    let expected: String =
        ids.iter().zip(["one", "two"]).map(|(id, name)| format!("{} early {name}\n", &id[..12])).collect();
    umiak.run(&["logs", "one", "two"]).ok().says(expected.trim_end());
    umiak.run(&["logs", "--names", "one", "two"]).ok().says("one early one\ntwo early two");
    umiak.run(&["logs", "--color", "one"]).ok().has("\x1b[37mearly one\x1b[0m\n");
    let follow = umiak.spawn(&["logs", "-f", "--names", "one", "two"]);
    umiak.let_go("two");
    umiak.run(&["wait", "two"]).ok();
    umiak.let_go("one");
    let shown = finish(follow, b"", "logs -f".to_owned()).ok().stdout;
    assert_eq!(shown, "one early one\ntwo early two\ntwo late two\none late one\n");
    umiak.run(&["logs", "one", "none"]).exits(125).tells("none");
    umiak.run(&["logs"]).exits(125).tells("at least one");
    umiak.run(&["logs", "-l"]).ok().says("early two\nlate two");
}

#[test]
fn full_files_are_kept_and_followed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let path = umiak.dir.join("kept.log");
    let place = format!("path={}", path.display());
    let words = ["--name", "box", "--network", "none", "--log-opt", "max-size=4k", "--log-opt", "max-file=3"];
    let script = "while ! [ -e /go ]; do sleep 0.05; done; for i in $(seq 1 400); do echo line $i; done";
    let rest = ["--log-opt", &place, "busybox", "sh", "-c", script];
    umiak.detached(&[&words[..], &rest].concat());
    let follow = umiak.spawn(&["logs", "-f", "box"]);
    let follow_until = umiak.spawn(&["logs", "-f", "--until=-1s", "box"]);
    finish(follow_until, b"", "logs -f --until".to_owned()).ok().says("");
    umiak.let_go("box");
    umiak.run(&["wait", "box"]).ok();
    finish(follow, b"", "logs -f".to_owned()).ok().has("line 400");
    let shown = umiak.run(&["logs", "box"]).ok().stdout;
    let first: usize = shown.lines().next().unwrap().strip_prefix("line ").unwrap().parse().unwrap();
    assert_eq!(shown, (first..=400).map(|i| format!("line {i}\n")).collect::<String>());
    let sizes: Vec<u64> = ["kept.log", "kept.log.1", "kept.log.2"]
        .map(|name| std::fs::metadata(umiak.dir.join(name)).unwrap().len())
        .into();
    assert!(sizes.iter().all(|size| *size <= 4096), "{sizes:?}");
    let count = shown.lines().count();
    umiak
        .run(&["logs", "--tail", &(count - 1).to_string(), "box"])
        .ok()
        .has(&format!("line {}\n", first + 1));
}

#[test]
fn logs_go_on_over_a_restart() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "sleep 0.2; echo run; exit 1";
    let words = ["--restart", "on-failure:2", "--name", "box", "--network", "none", "busybox", "sh", "-c"];
    umiak.detached(&[&words[..], &[script]].concat());
    umiak.run(&["logs", "-f", "box"]).ok().says("run\nrun\nrun");
}

#[test]
fn passed_through() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words = ["run", "--log-driver", "passthrough", "--name", "box", "--network", "none", "busybox"];
    let script = "cat; echo err >&2; exit 4";
    let output = umiak.run_with_input(&[&words[..], &["sh", "-c", script]].concat(), b"typed\n").exits(4);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("typed\n", "err\n"));
    assert_eq!(umiak.inspect("box", "{{.HostConfig.LogConfig.Type}}"), "passthrough");
    umiak.run(&["logs", "box"]).exits(125).tells("passthrough");
    // Left alone, it goes on to write to what the command had.
    let path = umiak.dir.join("output");
    let file = std::fs::File::create(&path).unwrap();
    let words = ["run", "-d", "--log-driver", "passthrough", "--network", "none", "busybox"];
    let status = umiak
        .command(&[&words[..], &["sh", "-c", "sleep 0.2; echo late"]].concat())
        .stdout(file)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    eventually("it has written", || std::fs::read_to_string(&path).unwrap().contains("late\n"));
    umiak.run(&["run", "-t", "--log-driver", "passthrough", "busybox", "true"]).exits(125).tells("terminal");
}

#[test]
fn no_logs_and_nonsense() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words = ["run", "--log-driver", "none", "--name", "box", "--network", "none", "busybox", "echo", "x"];
    umiak.run(&words).ok().says("x");
    umiak.run(&["logs", "box"]).exits(125).tells("none");
    let words = ["run", "--log-driver", "json-file", "--name", "json", "--network", "none", "busybox"];
    umiak.run(&[&words[..], &["echo", "x"]].concat()).ok();
    umiak.run(&["logs", "json"]).ok().says("x");
    for (flags, told) in [
        (&["--log-driver", "syslog"][..], "syslog"),
        (&["--log-opt", "tag=x"], "tag"),
        (&["--log-driver", "journald", "--log-opt", "path=/x"], "path"),
        (&["--log-driver", "journald", "--log-opt", "tag={{"], "tag"),
        (&["--log-opt", "max-file=3"], "max-size"),
        (&["--log-opt", "max-size=1k", "--log-opt", "max-file=0"], "max-file"),
    ] {
        umiak.run(&[&["run"], flags, &["busybox", "true"]].concat()).exits(125).tells(told);
    }
    if !std::path::Path::new("/run/systemd/journal/socket").exists() {
        let words = ["run", "--log-driver", "journald", "busybox", "true"];
        umiak.run(&words).exits(125).tells("journal").hints("k8s-file");
        assert_eq!(umiak.run(&["ps", "-aq"]).ok().stdout.lines().count(), 2);
    }
    // A place that cannot be written to.
    let words = ["run", "--rm", "--log-opt", "path=/proc/nothing", "--network", "none", "busybox", "true"];
    umiak.run(&words).exits(125).tells("log");
}

#[test]
fn a_full_disk_stops_no_program() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words = ["run", "--name", "box", "--log-opt", "path=/dev/full", "--network", "none", "busybox"];
    umiak.run(&[&words[..], &["echo", "x"]].concat()).exits(125).tells("regular file");
}

#[test]
fn in_the_journal() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("unshare"), Need::Tool("python3"));
    let umiak = Umiak::with_busybox();
    // A journal of our own, seen only in a mount namespace of our own.
    let receiver = umiak.file(
        "journal.py",
        "import os, socket, subprocess, sys\n\
         os.makedirs('/run/systemd/journal')\n\
         s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n\
         s.bind('/run/systemd/journal/socket')\n\
         code = subprocess.call(sys.argv[1:])\n\
         s.settimeout(5)\n\
         for _ in range(2): sys.stdout.buffer.write(s.recv(65536))\n\
         sys.exit(code)\n",
    );
    let program = [
        "run",
        "--name",
        "box",
        "--network",
        "none",
        "--log-driver",
        "journald",
        "--log-opt",
        "tag={{.Name}}/{{.ImageName}}",
        "--label",
        "of.it=yes",
        "--log-opt",
        "labels=of.it",
        "busybox",
        "sh",
        "-c",
        "echo out; sleep 0.1; echo err >&2",
    ];
    let script = "mount -t tmpfs none /run/systemd 2>/dev/null || { mkdir -p /run/systemd && mount -t tmpfs none /run/systemd; }; \
                  exec python3 \"$@\"";
    let text = beside(&umiak, &["sh", "-c", script, "sh", receiver.to_str().unwrap()], &program);
    for part in
        ["MESSAGE\n", "out\n", "err\n", "box/localhost/busybox:latest", "OF_IT\n", "CONTAINER_ID_FULL"]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
fn what_the_journal_keeps_is_shown() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("unshare"), Need::Tool("journalctl"));
    let umiak = Umiak::with_busybox();
    // A journal of our own, seen only in a mount namespace of our own.
    let script = umiak.file(
        "journal.sh",
        r#"set -e
for dir in /run/systemd /run/log /var/log; do mkdir -p $dir; mount -t tmpfs none $dir; done
mkdir -p /run/systemd/journal /run/log/journal
[ -e /etc/machine-id ] || touch /etc/machine-id
echo 0123456789abcdef0123456789abcdef >/run/log/id
mount --bind /run/log/id /etc/machine-id
/lib/systemd/systemd-journald 2>/dev/null &
trap "kill $!" EXIT
until [ -S /run/systemd/journal/socket ]; do sleep 0.05; done
run() { "$@" run --network none --log-driver journald --name box busybox sh -c 'echo out; sleep 0.2; echo err >&2
    sleep 0.2; printf part; head -c 300000 /dev/zero | tr "\0" x; echo'; }
run "$@" >/dev/null 2>&1
until [ "$("$@" logs --tail 1 box | wc -c)" = 300005 ]; do sleep 0.05; done
echo "all $("$@" logs box 2>/dev/null | cut -c1-5 | tr '\n' ' ')"
echo "errors $("$@" logs box 2>&1 >/dev/null)"
echo "two $("$@" logs --tail 2 box 2>&1 | cut -c1-4 | tr '\n' ' ')"
echo "none $("$@" logs --tail 0 box)"
echo "early $("$@" logs --until 2000-01-01 box)"
echo "late $("$@" logs --since 1h --tail 1 box | cut -c1-4)"
"$@" run -d --network none --log-driver journald --name long busybox sh -c 'for i in 1 2 3; do echo $i; sleep 0.3; done' >/dev/null
echo "followed $("$@" logs -f long | tr '\n' ' ')"
"#,
    );
    let text = beside(&umiak, &["bash", script.to_str().unwrap()], &[]);
    let expected = "all out partx \nerrors err\ntwo err part \nnone \nearly \nlate part\nfollowed 1 2 3 \n";
    assert_eq!(text, expected);
}

/// Runs a program in a mount namespace of its own, with a command line of ours behind its arguments; its output.
fn beside(umiak: &Umiak, program: &[&str], ours: &[&str]) -> String {
    let own = umiak.command(ours);
    let output = std::process::Command::new("unshare")
        .arg("-m")
        .args(program)
        .arg(own.get_program())
        .args(own.get_args())
        .env_clear()
        .envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .current_dir(&umiak.dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}
