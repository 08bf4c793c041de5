//! Containers from `run -d` to `rm`: ps, exec, logs, stop, kill, wait, inspect.

use std::process::Stdio;

use crate::requires;
use crate::support::{Need, Umiak, eventually, finish};

const SLEEP: &[&str] = &["--network", "none", "busybox", "sleep", "1000"];

fn sleeper(umiak: &Umiak, name: &str) -> String {
    umiak.detached(&[&["--name", name], SLEEP].concat())
}

#[test]
fn detached_until_removed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let id = sleeper(&umiak, "one");
    assert_eq!(umiak.status("one"), "running");
    umiak.run(&["ps", "-q", "--no-trunc"]).ok().says(&id);
    umiak.run(&["rm", "one"]).exits(2).tells("running").hints("rm -f");
    umiak.run(&["stop", "--time", "0", "one"]).ok().says("one");
    assert_eq!(umiak.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    umiak.run(&["ps", "-q"]).ok().says("");
    umiak.run(&["ps", "-aq"]).ok().says(&id[..12]);
    umiak.run(&["rm", "one"]).ok().says("one");
    umiak.run(&["ps", "-aq"]).ok().says("");
    umiak.run(&["inspect", "one"]).exits(125).tells("one");
}

#[test]
fn rm_option_removes_after_the_end() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let id = umiak.detached(&["--rm", "--network", "none", "busybox", "true"]);
    eventually("the container is gone", || umiak.run(&["ps", "-aq"]).ok().stdout.is_empty());
    umiak.run(&["inspect", &id]).exits(125);
    umiak.run(&["run", "--rm", "--name", "again", "busybox", "false"]).exits(1);
    umiak.run(&["run", "--rm", "--name", "again", "busybox", "true"]).ok();
}

#[test]
fn containers_are_found_by_name_and_id_prefix() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let id = sleeper(&umiak, "web");
    for name in ["web", &id, &id[..12], &id[..5]] {
        assert_eq!(umiak.inspect(name, "{{.Id}}"), id, "{name}");
    }
    umiak.run(&["inspect", "--type", "container", "nothing"]).exits(125).tells("nothing");
    // The beginning of a name will do to look at it or to work in it, and not to end it.
    umiak.run(&["exec", "we", "echo", "hello"]).ok().says("hello");
    umiak.run(&["logs", "we"]).ok();
    for words in [&["stop", "we"][..], &["kill", "we"], &["rm", "-f", "we"]] {
        assert_eq!(umiak.run(words).stdout, "", "{words:?}");
        assert_eq!(umiak.inspect("web", "{{.State.Status}}"), "running", "{words:?}");
    }
    umiak.run(&["create", "--name", "web-2", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["exec", "web", "true"]).ok();
    umiak.run(&["exec", "we", "true"]).exits(125).tells("more than one");
}

#[test]
fn ps_columns_filters_and_formats() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let up = umiak.detached(&[&["--name", "up", "--label", "tier=front"], SLEEP].concat());
    umiak.run(&["run", "--name", "down", "busybox", "sh", "-c", "exit 3"]).exits(3);
    let table = umiak.run(&["ps", "-a"]).ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    let titles: Vec<&str> = lines[0].split("  ").map(str::trim).filter(|t| !t.is_empty()).collect();
    assert_eq!(titles, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    assert_eq!(lines.len(), 3, "{table}");
    let row = |name: &str| *lines.iter().find(|line| line.ends_with(name)).unwrap();
    assert!(row("up").starts_with(&up[..12]) && row("up").contains("Up "), "{table}");
    assert!(row("up").contains("localhost/busybox:latest") && row("up").contains("sleep 1000"), "{table}");
    assert!(row("down").contains("Exited (3) "), "{table}");
    let names = |filter: &[&str]| {
        let args = [&["ps", "-a", "--format", "{{.Names}}"], filter].concat();
        let mut names: Vec<String> = umiak.run(&args).ok().stdout.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    for (filter, expected) in [
        ("status=running", "up"),
        ("status=exited", "down"),
        ("name=^u", "up"),
        ("label=tier=front", "up"),
        ("label=tier", "up"),
        ("exited=3", "down"),
        ("exited=0", ""),
        ("ancestor=localhost/busybox", "down up"),
        (&format!("id={}", &up[..6]), "up"),
    ] {
        assert_eq!(names(&["--filter", filter]), expected, "{filter}");
    }
    assert_eq!(names(&["--filter", "status=running", "--filter", "status=exited"]), "down up");
    umiak.run(&["ps", "--filter", "nonsense=1"]).exits(125).tells("nonsense");
    umiak
        .run(&["ps", "--no-trunc", "--format", "{{.ID}}|{{.State}}|{{.Labels.tier}}"])
        .ok()
        .says(&format!("{up}|running|front"));
    umiak
        .run(&["ps", "--noheading", "--format", "table {{.Names}}\t{{.Image}}"])
        .ok()
        .says("up          localhost/busybox:latest");
    umiak.run(&["ps", "--format", "{{.Nmaes}}"]).exits(125).tells("Nmaes");
    umiak.run(&["ps", "--format", "{{"]).exits(125).tells("template");
    let json: serde_json::Value =
        serde_json::from_str(&umiak.run(&["ps", "-a", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!(json.as_array().unwrap().len(), 2);
    let found = json.as_array().unwrap().iter().find(|c| c["Id"] == up.as_str()).unwrap();
    assert_eq!((&found["State"], &found["Names"][0]), (&"running".into(), &"up".into()), "{json}");
}

#[test]
fn exec_in_a_running_container() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let id = umiak.detached(&[&["--name", "box", "-e", "FROM=run", "--hostname", "inside"], SLEEP].concat());
    let exec = |args: &[&str]| umiak.run(&[&["exec"], args].concat());
    exec(&["box", "hostname"]).ok().says("inside");
    exec(&["box", "echo", "-e", "--", "x"]).ok().says("-- x");
    exec(&["-e", "MORE=1", "box", "sh", "-c", "echo $FROM $MORE"]).ok().says("run 1");
    exec(&["-w", "/tmp", "box", "pwd"]).ok().says("/tmp");
    let file = umiak.file("env", "FILE=read\n");
    exec(&["--env-file", file.to_str().unwrap(), &id, "sh", "-c", "echo $FILE"]).ok().says("read");
    for code in [0, 1, 42] {
        exec(&["box", "sh", "-c", &format!("exit {code}")]).exits(code);
    }
    exec(&["box", "sh", "-c", "kill -9 $$"]).exits(137);
    exec(&["box", "no-such-command"]).exits(127).tells("no-such-command");
    exec(&["box", "/etc/not-executable"]).exits(126).tells("/etc/not-executable");
    exec(&["nothing", "true"]).exits(125).tells("nothing");
    umiak.run_with_input(&["exec", "-i", "box", "cat"], b"piped\0bytes").ok().says("piped\0bytes");
    umiak.run_with_input(&["exec", "box", "wc", "-c"], b"not read").ok().says("0");
    // It shares everything with the container: namespaces, capabilities, filter.
    for kind in ["pid", "mnt", "net", "ipc", "uts", "cgroup", "user"] {
        let script =
            format!("[ $(readlink /proc/self/ns/{kind}) = $(readlink /proc/1/ns/{kind}) ] && echo same");
        exec(&["box", "sh", "-c", &script]).ok().says("same");
    }
    let script = "for f in CapEff CapBnd Seccomp NoNewPrivs; do \
                  [ \"$(grep ^$f: /proc/self/status)\" = \"$(grep ^$f: /proc/1/status)\" ] || echo $f differs; done";
    exec(&["box", "sh", "-c", script]).ok().says("");
    exec(&["box", "ls", "/proc/self/fd"]).ok().has("2").lacks("4");
    exec(&["-d", "box", "sh", "-c", "echo done > /tmp/flag"]).ok();
    eventually("the detached command wrote", || exec(&["box", "cat", "/tmp/flag"]).code == Some(0));
    umiak.run(&["kill", "box"]).ok();
    umiak.until_status("box", "exited");
    exec(&["box", "true"]).exits(255).tells("running");
}

#[test]
fn exec_as_another_user() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    sleeper(&umiak, "box");
    let script = "echo $(id -u):$(id -G | tr ' ' '\\n' | sort -n | tr '\\n' ' ')$(grep CapEff /proc/self/status | cut -f2)";
    umiak
        .run(&["exec", "-u", "app", "box", "sh", "-c", script])
        .ok()
        .says("1000:44 50 1000 0000000000000000");
    umiak.run(&["exec", "-u", "nosuchuser", "box", "id"]).exits(126).tells("nosuchuser");
}

#[test]
fn logs() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "echo one; echo err >&2; echo two; printf 'no newline'";
    umiak.run(&["run", "--name", "talk", "--network", "none", "busybox", "sh", "-c", script]).ok();
    let output = umiak.run(&["logs", "talk"]).ok();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("one\ntwo\nno newline", "err\n"));
    // In a container of its own: between two streams there is no order.
    let script = "echo one; echo two; printf 'no newline'";
    umiak.run(&["run", "--name", "tail", "--network", "none", "busybox", "sh", "-c", script]).ok();
    for (lines, expected) in
        [("0", ""), ("1", "no newline"), ("2", "two\nno newline"), ("9", "one\ntwo\nno newline")]
    {
        assert_eq!(umiak.run(&["logs", "--tail", lines, "tail"]).ok().stdout, expected, "{lines}");
    }
    umiak.run(&["logs", "--since", "1h", "talk"]).ok().has("one\n");
    umiak.run(&["logs", "--since", "2100-01-01T00:00:00Z", "talk"]).ok().says("");
    umiak.run(&["logs", "--since", "gibberish", "talk"]).exits(125).tells("gibberish");
    let stamped = umiak.run(&["logs", "-t", "talk"]).ok().stdout;
    let (stamp, text) = stamped.lines().next().unwrap().split_once(' ').unwrap();
    assert!(text == "one" && stamp.starts_with("20") && stamp.contains('T'), "{stamped}");
    umiak.run(&["logs", "nothing"]).exits(125).tells("nothing");
    // A line longer than any buffer comes back whole.
    let script = "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end";
    umiak.run(&["run", "--name", "long", "--network", "none", "busybox", "sh", "-c", script]).ok();
    let long = umiak.run(&["logs", "long"]).ok().stdout;
    assert_eq!(long, "x".repeat(100_000) + "\nend\n");
}

#[test]
fn logs_follow_to_the_end() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "echo first; while [ ! -e /go ]; do sleep 0.05; done; echo last";
    umiak.detached(&["--name", "talk", "--network", "none", "busybox", "sh", "-c", script]);
    let mut follow = umiak.command(&["logs", "-f", "talk"]);
    let follow = follow.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    umiak.let_go("talk");
    finish(follow, b"", "logs -f".to_owned()).ok().says("first\nlast");
}

#[test]
fn nothing_is_logged_with_the_none_driver() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["run", "--name", "mute", "--log-driver", "none", "busybox", "echo", "x"]).ok().says("x");
    umiak.run(&["logs", "mute"]).exits(125).tells("none");
}

#[test]
fn stop_and_kill() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "trap 'echo got term; exit 5' TERM; trap 'echo got usr1' USR1; echo ready; while :; do sleep 0.05; done";
    let start = |name: &str| {
        umiak.detached(&["--name", name, "--network", "none", "busybox", "sh", "-c", script]);
        eventually("the traps are set", || umiak.run(&["logs", name]).ok().stdout.contains("ready"));
    };
    start("a");
    umiak.run(&["kill", "--signal", "USR1", "a"]).ok().says("a");
    eventually("the signal came", || umiak.run(&["logs", "a"]).ok().stdout.contains("got usr1"));
    assert_eq!(umiak.status("a"), "running");
    umiak.run(&["stop", "--time", "60", "a"]).ok().says("a");
    assert_eq!(umiak.inspect("a", "{{.State.ExitCode}}"), "5");
    umiak.run(&["stop", "a"]).ok();
    umiak.run(&["kill", "a"]).exits(125).tells("running");
    start("b");
    umiak.run(&["kill", "b"]).ok();
    umiak.until_status("b", "exited");
    assert_eq!(umiak.inspect("b", "{{.State.ExitCode}}"), "137");
    start("c");
    start("d");
    umiak.run(&["stop", "--all", "--time", "60"]).ok();
    umiak.run(&["ps", "-q"]).ok().says("");
    umiak.run(&["kill", "--signal", "NONSENSE", "d"]).exits(125).tells("NONSENSE");
    umiak.run(&["stop", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["stop", "--ignore", "nothing"]).ok();
    umiak.run(&["kill", "nothing"]).exits(125).tells("nothing");
}

#[test]
fn wait_gives_the_exit_code() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&[
        "--name",
        "w",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "while [ ! -e /go ]; do sleep 0.05; done; exit 23",
    ]);
    let waiting =
        umiak.command(&["wait", "w"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    umiak.let_go("w");
    finish(waiting, b"", "wait".to_owned()).ok().says("23");
    umiak.run(&["wait", "w"]).ok().says("23");
    umiak.run(&["wait", "nothing"]).exits(125).tells("nothing");
}

#[test]
fn remove_many() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for name in ["a", "b", "c"] {
        sleeper(&umiak, name);
    }
    umiak.run(&["rm", "nothing"]).exits(1).tells("nothing");
    umiak.run(&["rm", "--ignore", "nothing"]).ok();
    umiak.run(&["rm", "--force", "nothing"]).ok();
    umiak.run(&["rm", "--force", "--time", "0", "a", "b"]).ok().says("a\nb");
    umiak.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().says("c");
    umiak.run(&["rm", "-af", "-t", "0"]).ok();
    umiak.run(&["ps", "-aq"]).ok().says("");
}

#[test]
fn inspect_has_podmans_shape() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = umiak.dir.to_str().unwrap().to_owned();
    let id = umiak.detached(
        &[
            &[
                "--name",
                "shape",
                "-e",
                "A=1",
                "-w",
                "/tmp",
                "--label",
                "x=y",
                "-v",
                &format!("{dir}:/here:ro"),
                "--hostname",
                "h",
            ][..],
            SLEEP,
        ]
        .concat(),
    );
    let told = umiak.inspect_json("shape");
    assert_eq!(told["Id"], id.as_str());
    assert_eq!(told["Name"], "shape");
    assert_eq!(told["Path"], "sleep");
    assert_eq!(told["Args"], serde_json::json!(["1000"]));
    assert_eq!(told["State"]["Status"], "running");
    assert_eq!(told["State"]["Running"], true);
    let pid = told["State"]["Pid"].as_u64().unwrap();
    assert!(std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap().starts_with("sleep"), "{pid}");
    assert_eq!(told["ImageName"], "localhost/busybox:latest");
    assert_eq!(told["Config"]["Hostname"], "h");
    assert_eq!(told["Config"]["WorkingDir"], "/tmp");
    assert_eq!(told["Config"]["Labels"]["x"], "y");
    assert_eq!(told["Config"]["Cmd"], serde_json::json!(["sleep", "1000"]));
    assert!(told["Config"]["Env"].as_array().unwrap().contains(&"A=1".into()), "{}", told["Config"]["Env"]);
    let mount = &told["Mounts"][0];
    assert_eq!(
        (&mount["Type"], &mount["Destination"], &mount["RW"]),
        (&"bind".into(), &"/here".into(), &false.into())
    );
    assert_eq!(told["HostConfig"]["NetworkMode"], "none");
    for key in
        ["Created", "Image", "Driver", "MountLabel", "ExecIDs", "NetworkSettings", "Namespace", "IsInfra"]
    {
        assert!(told.get(key).is_some(), "{key} is missing");
    }
    assert_eq!(umiak.inspect("shape", "{{.State.Running}} {{index .Config.Labels \"x\"}}"), "true y");
    let image = umiak.inspect_json("localhost/busybox");
    assert_eq!(image["RepoTags"], serde_json::json!(["localhost/busybox:latest"]));
    assert_eq!(image["Id"], told["Image"]);
    assert_eq!(image["Config"]["Cmd"], serde_json::json!(["sh"]));
}

#[test]
fn info_version_completion() {
    let umiak = Umiak::new();
    let info: serde_json::Value =
        serde_json::from_str(&umiak.run(&["info", "--format", "json"]).ok().stdout).unwrap();
    assert_eq!(info["store"]["graphRoot"], umiak.dir.join("store").to_str().unwrap());
    assert!(info["host"]["kernel"].as_str().is_some_and(|kernel| kernel.contains('.')), "{info}");
    let rootless = (!rustix::process::geteuid().is_root()).to_string();
    umiak.run(&["info", "--format", "{{.Host.Security.Rootless}}"]).ok().says(&rootless);
    umiak.run(&["version"]).ok().has(env!("CARGO_PKG_VERSION"));
    umiak.run(&["version", "--format", "{{.Client.Version}}"]).ok().says(env!("CARGO_PKG_VERSION"));
    umiak.run(&["--version"]).ok().has(env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish"] {
        umiak.run(&["completion", shell]).ok().has("umiak");
    }
    umiak.run(&["--help"]).ok().has("run").has("exec");
    umiak.run(&["run", "--help"]).ok().has("--volume");
}

#[test]
fn the_first_that_ends_is_enough() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for name in ["long", "short"] {
        umiak.run(&["run", "-d", "--network", "none", "--name", name, "busybox", "sleep", "1000"]).ok();
    }
    let wait = umiak.spawn(&["wait", "--exit-first-match", "long", "short"]);
    umiak.run(&["kill", "short"]).ok();
    crate::support::finish(wait, b"", "wait".to_owned()).ok().says("137");
    // One that is so already, and names that are none.
    umiak.run(&["wait", "--exit-first-match", "--condition", "running", "short", "long"]).ok().says("-1");
    umiak.run(&["wait", "--exit-first-match", "long", "none"]).exits(125).tells("none");
    umiak.run(&["wait", "--exit-first-match", "--ignore", "long", "none"]).ok().says("-1");
    umiak.run(&["exec", "--no-session", "long", "echo", "hello"]).ok().says("hello");
    umiak.run(&["exec", "--no-session", "-d", "long", "true"]).exits(125).tells("--no-session");
    umiak.run(&["rm", "-f", "-t", "0", "long", "short"]).ok();
}

#[test]
fn what_others_need_is_not_removed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let make = |name: &str, more: &[&str]| {
        let front = ["create", "--name", name, "--network", "none"];
        umiak.run(&[&front[..], more, &["busybox", "true"]].concat()).ok();
    };
    umiak.run(&["run", "-d", "--name", "base", "--network", "none", "busybox", "sleep", "1000"]).ok();
    make("side", &["--ipc", "container:base"]);
    make("later", &["--requires", "side"]);
    let refused = umiak.run(&["rm", "-f", "-t", "0", "base"]).exits(125);
    refused.tells("removing container \"base\": container side needs it").hints("umiak rm --depend base");
    umiak.run(&["exec", "base", "true"]).ok();
    umiak.run(&["rm", "side"]).exits(125).tells("container later needs it");
    // A prune leaves what something needs, and takes them in the right order.
    umiak.run(&["container", "prune", "-f"]).ok();
    umiak.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().says("base");
    make("side", &["--requires", "base"]);
    make("later", &["--requires", "side"]);
    // Who went away, or was removed in another way, needs nothing any more.
    umiak.run(&["rm", "later"]).ok().says("later");
    make("later", &["--requires", "side"]);
    umiak.run(&["rm", "-f", "-t", "0", "base", "side", "later"]).ok().says("later\nside\nbase");
    umiak.run(&["run", "-d", "--name", "base", "--network", "none", "busybox", "sleep", "1000"]).ok();
    make("side", &["--requires", "base"]);
    umiak.run(&["rm", "--all", "-f", "-t", "0"]).ok();
    umiak.run(&["ps", "-aq"]).ok().says("");
}

#[test]
fn prepared_and_then_started() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let make = |name: &str, words: &[&str]| {
        let front = ["create", "--name", name, "--network", "none", "busybox"];
        umiak.run(&[&front[..], words].concat()).ok().stdout.trim().to_owned()
    };
    let id = make("box", &["sh", "-c", "echo begun; sleep 1000"]);
    umiak.run(&["init", "box"]).ok().says(&id);
    assert_eq!(umiak.inspect("box", "{{.State.Status}} {{.State.Running}}"), "initialized false");
    let pid: i32 = umiak.inspect("box", "{{.State.Pid}}").parse().unwrap();
    assert!(pid > 0 && std::path::Path::new(&format!("/proc/{pid}")).exists());
    umiak.run(&["ps", "--format", "{{.Names}}"]).ok().says("");
    umiak.run(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).ok().says("box Initialized");
    umiak.run(&["exec", "box", "true"]).exits(255).tells("initialized");
    umiak.run(&["init", "box"]).exits(125).tells("it is initialized");
    umiak.run(&["logs", "box"]).ok().says("");
    umiak.run(&["start", "box"]).ok().says("box");
    // The same first process.
    assert_eq!(umiak.inspect("box", "{{.State.Status}} {{.State.Pid}}"), format!("running {pid}"));
    crate::support::eventually("it has begun", || umiak.run(&["logs", "box"]).stdout == "begun\n");
    umiak.run(&["rm", "-f", "-t", "0", "box"]).ok();
    // Started and attached at once, its code is ours.
    make("code", &["sh", "-c", "echo out; exit 3"]);
    umiak.run(&["init", "code"]).ok();
    umiak.run(&["start", "-a", "code"]).exits(3).says("out");
    umiak.run(&["init", "code"]).ok();
    umiak.run(&["start", "-a", "code"]).exits(3).says("out");
    make("none", &["/no/such"]);
    umiak.run(&["init", "none"]).exits(127).tells("/no/such");
    // Stopped, removed, and killed while they wait.
    for name in ["one", "two", "three"] {
        make(name, &["true"]);
    }
    umiak.run(&["init", "--all"]).ok();
    umiak.run(&["stop", "one"]).ok();
    assert_eq!(umiak.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    umiak.run(&["rm", "two"]).ok();
    let monitor: i32 = umiak.inspect("three", "{{.State.ConmonPid}}").parse().unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(monitor).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    crate::support::eventually("its end is told", || umiak.inspect("three", "{{.State.Status}}") == "exited");
    umiak.run(&["start", "-a", "three"]).ok();
    umiak.run(&["init", "nobody"]).exits(125).tells("nobody");
}
