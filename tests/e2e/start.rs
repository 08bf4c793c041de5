//! `create`, `start`, `attach`, and the log's size.

use std::process::Stdio;

use crate::requires;
use crate::support::{Need, Terminal, Umiak, eventually, finish};

#[test]
fn created_then_started() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "echo run; echo x >> /count; wc -l < /count; exit 4";
    let args = ["create", "--name", "box", "--network", "none", "busybox", "sh", "-c", script];
    let id = umiak.run(&args).ok().stdout.trim().to_owned();
    assert_eq!(id.len(), 64);
    assert_eq!(umiak.inspect("box", "{{.State.Status}} {{.State.Pid}}"), "created 0");
    umiak.run(&["ps", "-q"]).ok().says("");
    umiak.run(&["ps", "-aq", "--filter", "status=created", "--no-trunc"]).ok().says(&id);
    umiak.run(&["logs", "box"]).ok().says("");
    umiak.run(&["exec", "box", "true"]).exits(255).tells("created");
    umiak.run(&["start", "box"]).ok().says("box");
    umiak.run(&["wait", "box"]).ok().says("4");
    // Its files are kept from one start to the next.
    umiak.run(&["start", "--attach", "box"]).exits(4).says("run\n2");
    // To one that runs, `start --attach` attaches.
    let script = "while ! [ -e /go ]; do sleep 0.05; done; echo said; exit 5";
    umiak.run(&["run", "-d", "--name", "waiting", "--network", "none", "busybox", "sh", "-c", script]).ok();
    let attached = umiak.spawn(&["start", "-a", "waiting"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    umiak.let_go("waiting");
    finish(attached, b"", "start -a".to_owned()).exits(5).says("said");
    umiak.run(&["logs", "box"]).ok().says("run\n1\nrun\n2");
    umiak.run(&["start", "nothing"]).exits(125).tells("nothing").hints("umiak ps -a");
    umiak.run(&["create", "--name", "box", "busybox"]).exits(125).tells("box").hints("umiak rm");
    umiak.run(&["create", "--name", "never", "busybox", "no-such-program"]).ok();
    umiak.run(&["start", "never"]).exits(127).tells("no-such-program");
    umiak.run(&["rm", "box", "never"]).ok();
}

#[test]
fn starting_twice_is_no_error() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    let pid = umiak.inspect("box", "{{.State.Pid}}");
    umiak.run(&["start", "box"]).ok().says("box");
    assert_eq!(umiak.inspect("box", "{{.State.Pid}}"), pid);
    umiak.run(&["stop", "--time", "0", "box"]).ok();
    let starts: Vec<_> = (0..8).map(|_| umiak.spawn(&["start", "box"])).collect();
    for start in starts {
        finish(start, b"", "start".to_owned()).ok();
    }
    assert_eq!(umiak.status("box"), "running");
}

#[test]
fn attached_to_what_runs() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "echo early; while read -r line; do echo \"got $line\"; done; exit 6";
    umiak.detached(&["-i", "--name", "box", "--network", "none", "busybox", "sh", "-c", script]);
    eventually("the first line is past", || umiak.run(&["logs", "box"]).ok().stdout == "early\n");
    let mut command = umiak.command(&["attach", "box"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    finish(child, b"one\ntwo\n", "attach".to_owned()).exits(6).says("got one\ngot two").quiet();
    umiak.run(&["logs", "box"]).ok().says("early\ngot one\ngot two");
    umiak.run(&["attach", "box"]).exits(125).tells("exited");
    umiak.run(&["attach", "nothing"]).exits(125).tells("nothing");
}

#[test]
fn attached_started_and_left_on_a_terminal() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "-it", "--name", "box", "--network", "none", "busybox", "sh"]).ok();
    let mut terminal = Terminal::start(&umiak, &["start", "-ai", "box"]);
    terminal.send(b"echo fir''st; stty size\n");
    terminal.expect("first");
    terminal.expect("24 80");
    terminal.send(b"\x10\x11");
    assert_eq!(terminal.wait().0, Some(0));
    assert_eq!(umiak.status("box"), "running");
    let mut terminal = Terminal::start(&umiak, &["attach", "box"]);
    terminal.send(b"echo sec''ond\n");
    terminal.expect("second");
    terminal.send(b"exit 8\n");
    assert_eq!(terminal.wait().0, Some(8));
}

#[test]
fn the_log_does_not_outgrow_its_size() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "i=0; while [ $i -lt 2000 ]; do echo \"line $i of many\"; i=$((i + 1)); done";
    let line = [
        "run",
        "--name",
        "talk",
        "--network",
        "none",
        "--log-opt",
        "max-size=16k",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    let shown = umiak.run(&line).ok().stdout;
    assert_eq!(shown.lines().count(), 2000, "what is shown is not cut");
    let kept = umiak.run(&["logs", "talk"]).ok().stdout;
    assert!(kept.ends_with("line 1999 of many\n") && kept.len() < 16_384, "{} bytes", kept.len());
    // What is kept is the end without a gap.
    let first: usize = kept.lines().next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let expected: String = (first..2000).map(|i| format!("line {i} of many\n")).collect();
    assert_eq!(kept, expected);
    let path = umiak.inspect("talk", "{{.HostConfig.LogConfig.Path}}");
    assert!(std::fs::metadata(&path).unwrap().len() <= 16_384, "{path}");
    umiak.run(&["run", "--log-opt", "max-size=many", "busybox", "true"]).exits(125).tells("many");
    umiak.run(&["run", "--log-opt", "nonsense=1", "busybox", "true"]).exits(125).tells("nonsense");
    umiak.run(&["run", "--log-driver", "nonsense", "busybox", "true"]).exits(125).tells("nonsense");
}

#[test]
fn logs_go_where_they_are_told() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let path = umiak.dir.join("my.log");
    let option = format!("path={}", path.display());
    umiak.run(&["run", "--name", "talk", "--log-opt", &option, "busybox", "echo", "hello"]).ok();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with(" stdout F hello\n"), "{text}");
    umiak.run(&["logs", "talk"]).ok().says("hello");
    // A reader that waits sees the end of the program even if it says nothing more.
    umiak.detached(&[
        "--name",
        "quiet",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "while [ ! -e /go ]; do sleep 0.05; done",
    ]);
    let follow = umiak
        .command(&["logs", "-f", "quiet"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    umiak.let_go("quiet");
    finish(follow, b"", "logs -f".to_owned()).ok().says("");
    eventually("it has ended", || umiak.status("quiet") == "exited");
}
