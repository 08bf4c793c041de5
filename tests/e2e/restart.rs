//! Restart policies, time limits, and what ends them.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::requires;
use crate::support::{Need, Terminal, Umiak, eventually, finish};

fn restarts(umiak: &Umiak, name: &str) -> u32 {
    umiak.inspect(name, "{{.RestartCount}}").parse().unwrap()
}

/// A script that counts its runs in `/count`.
fn counting(rest: &str) -> String {
    format!("echo x >> /count; {rest}")
}

#[test]
fn on_failure_as_often_as_asked() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = counting("echo run; exit 3");
    let words = ["run", "--restart", "on-failure:2", "--name", "box", "--network", "none", "busybox", "sh"];
    // The command stays attached over all runs, and ends as the last one.
    umiak.run(&[&words[..], &["-c", &script]].concat()).exits(3).says("run\nrun\nrun");
    assert_eq!(restarts(&umiak, "box"), 2);
    let policy = "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}";
    assert_eq!(umiak.inspect("box", policy), "on-failure 2");
    assert_eq!(umiak.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    umiak.run(&["logs", "box"]).ok().says("run\nrun\nrun");
    umiak.run(&["ps", "-a", "--format", "{{.Restarts}}"]).ok().says("2");
    // What ends well is not started again; a start by hand counts anew.
    let script = counting("[ $(wc -l < /count) = 2 ]");
    let words =
        ["run", "-d", "--restart", "on-failure", "--name", "well", "--network", "none", "busybox", "sh"];
    umiak.run(&[&words[..], &["-c", &script]].concat()).ok();
    umiak.run(&["wait", "well"]).ok().says("0");
    assert_eq!(restarts(&umiak, "well"), 1);
    umiak.run(&["start", "-a", "box"]).exits(3).says("run\nrun\nrun");
    assert_eq!(restarts(&umiak, "box"), 2);
}

#[test]
fn always_until_it_is_stopped() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words = ["--restart", "always", "--name", "box", "--network", "none", "busybox", "sh", "-c"];
    umiak.detached(&[&words[..], &[&counting("sleep 0.05")]].concat());
    eventually("it has been started three times", || restarts(&umiak, "box") >= 2);
    // While it rests, that is told, and it cannot be removed.
    eventually("it rests", || umiak.status("box") == "restarting");
    umiak.run(&["stop", "box"]).ok().says("box");
    assert_eq!(umiak.status("box"), "exited");
    let count = restarts(&umiak, "box");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((restarts(&umiak, "box"), umiak.status("box").as_str()), (count, "exited"));
    umiak.run(&["rm", "box"]).ok();

    // What runs for long is stopped the same way, and killed too.
    for (name, end) in [("stopped", &["stop", "-t", "0"][..]), ("killed", &["kill"])] {
        let words = ["--restart", "unless-stopped", "--name", name, "--network", "none", "busybox"];
        umiak.detached(&[&words[..], &["sleep", "1000"]].concat());
        umiak.run(&[end, &[name]].concat()).ok();
        umiak.run(&["wait", name]).ok().says("137");
        assert_eq!((umiak.status(name).as_str(), restarts(&umiak, name)), ("exited", 0));
    }
    // A signal that does not mean the end is no stop.
    let words = ["--restart", "always", "--name", "hup", "--network", "none", "busybox", "sh", "-c"];
    umiak.detached(&[&words[..], &["trap 'exit 1' HUP; while :; do sleep 0.02; done"]].concat());
    eventually("the trap is set", || {
        umiak.run(&["kill", "-s", "HUP", "hup"]).code == Some(0) && restarts(&umiak, "hup") > 0
    });
    umiak.run(&["restart", "-t", "0", "hup"]).ok();
    eventually("it runs", || umiak.status("hup") == "running");
    assert_eq!(restarts(&umiak, "hup"), 0);
    umiak.run(&["rm", "-f", "-t", "0", "hup"]).ok();
}

#[test]
fn while_it_rests() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words = ["--restart", "always", "--name", "box", "--network", "none", "busybox", "sh", "-c"];
    umiak.detached(&[&words[..], &[&counting("echo said; exit 7")]].concat());
    // The rests grow: in the fourth there is time for all that follows.
    eventually("it has been started four times", || restarts(&umiak, "box") >= 3);
    eventually("it rests", || umiak.status("box") == "restarting");
    let status = umiak.run(&["ps", "--format", "{{.State}}: {{.Status}}"]).ok().stdout;
    assert!(status.starts_with("restarting: Restarting (7) "), "{status}");
    assert_eq!(umiak.inspect("box", "{{.State.Restarting}} {{.State.ExitCode}}"), "true 7");
    umiak.run(&["rm", "box"]).exits(2).tells("running");
    umiak.run(&["exec", "box", "true"]).exits(255).tells("box");
    // One that waits hears of the last end only.
    let wait = umiak.spawn(&["wait", "box"]);
    let attach = umiak.spawn(&["attach", "box"]);
    eventually("it has been started again", || restarts(&umiak, "box") >= 5);
    umiak.run(&["rm", "-f", "-t", "0", "box"]).ok();
    finish(wait, b"", "wait".to_owned()).ok().says("7");
    let attached = finish(attach, b"", "attach".to_owned()).exits(7);
    assert!(attached.stdout.starts_with("said\n"), "{}", attached.stdout);
}

#[test]
fn the_monitor_dies_between_two_runs() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words =
        ["--restart", "always", "--name", "box", "--network", "none", "busybox", "sh", "-c", "exit 4"];
    umiak.detached(&words);
    eventually("it has been started three times", || restarts(&umiak, "box") >= 3);
    eventually("it rests", || umiak.status("box") == "restarting");
    let facts = umiak.dir.join("store/containers");
    let dir = std::fs::read_dir(&facts).unwrap().next().unwrap().unwrap().path();
    let state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.join("state.json")).unwrap()).unwrap();
    let monitor = state["monitor"].as_i64().unwrap() as i32;
    kill_process(Pid::from_raw(monitor).unwrap(), Signal::KILL).unwrap();
    // Nobody is there to start it again, and that is told.
    eventually("it has ended", || umiak.status("box") == "exited");
    assert_eq!(umiak.inspect("box", "{{.State.ExitCode}}"), "4");
    umiak.run(&["start", "box"]).ok();
    eventually("it goes on", || restarts(&umiak, "box") >= 1);
    umiak.run(&["stop", "-t", "0", "box"]).ok();
}

#[test]
fn what_is_started_at_boot() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for (name, policy) in [("never", "no"), ("always", "always"), ("unless", "unless-stopped")] {
        let words = ["--restart", policy, "--name", name, "--network", "none", "busybox", "sleep", "1000"];
        umiak.detached(&words);
        // A reboot: another boot id, no process, an empty runtime directory.
        let pid: i32 = umiak.inspect(name, "{{.State.Pid}}").parse().unwrap();
        let state = {
            let id = umiak.inspect(name, "{{.Id}}");
            umiak.dir.join("store/containers").join(id).join("state.json")
        };
        let text = std::fs::read_to_string(&state).unwrap();
        let monitor: serde_json::Value = serde_json::from_str(&text).unwrap();
        let own = monitor["boot_id"].as_str().unwrap();
        std::fs::write(&state, text.replace(own, "00000000-0000-0000-0000-000000000000")).unwrap();
        for pid in [monitor["monitor"].as_i64().unwrap() as i32, pid] {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
    std::fs::remove_dir_all(umiak.dir.join("run/umiak")).unwrap();
    umiak.run(&["ps", "-q"]).ok().says("");
    let names = |filter: &str| {
        let line = ["ps", "-a", "--filter", filter, "--format", "{{.Names}}", "--sort", "names"];
        umiak.run(&line).ok().stdout.lines().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("restart-policy=always"), "always");
    assert_eq!(names("should-start-on-boot=true"), "always unless");
    umiak.run(&["start", "--all", "--filter", "restart-policy=always"]).ok();
    assert_eq!(names("status=running"), "always");
    umiak.run(&["start", "--filter", "should-start-on-boot=true"]).ok();
    assert_eq!(names("status=running"), "always unless");
    umiak.run(&["stop", "-t", "0", "always", "unless"]).ok();
    assert_eq!(names("should-start-on-boot=true"), "always");
    umiak.run(&["start", "--all"]).ok();
    assert_eq!(names("status=running"), "always never unless");
    umiak.run(&["ps", "--filter", "restart-policy=sometimes"]).exits(125).tells("sometimes");
    umiak.run(&["ps", "--filter", "should-start-on-boot=maybe"]).exits(125).tells("maybe");
    umiak.run(&["start", "--all", "always"]).exits(125).tells("--all");
    umiak.run(&["start", "--all", "--attach"]).exits(125).tells("attach");
    umiak.run(&["start"]).exits(125).tells("at least one");
}

#[test]
fn input_and_terminals_outlive_a_restart() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = counting("read -r line; echo \"got $line\"; exit 1");
    let words =
        ["run", "-i", "--restart", "on-failure:2", "--network", "none", "busybox", "sh", "-c", &script];
    let run = umiak.spawn(&words);
    finish(run, b"one\ntwo\nthree\n", "run -i".to_owned()).exits(1).says("got one\ngot two\ngot three");
    let script = counting("stty size; read -r line; echo \"got $line\"; exit 1");
    let words =
        ["run", "-it", "--restart", "on-failure:1", "--network", "none", "busybox", "sh", "-c", &script];
    let mut terminal = Terminal::start(&umiak, &words);
    terminal.expect("24 80");
    terminal.send(b"first\n");
    terminal.expect("got first");
    terminal.expect("24 80");
    terminal.send(b"second\n");
    terminal.expect("got second");
    assert_eq!(terminal.wait().0, Some(1));
}

#[test]
fn nonsense() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for (flags, told) in [
        (&["--restart", "sometimes"][..], "sometimes"),
        (&["--restart", "always:3"], "on-failure"),
        (&["--restart", "on-failure:many"], "many"),
        (&["--restart", "always", "--rm"], "--rm"),
        (&["--timeout", "-1"], "timeout"),
        (&["--timeout", "soon"], "soon"),
    ] {
        umiak.run(&[&["run"], flags, &["busybox", "true"]].concat()).exits(125).tells(told);
    }
    umiak.run(&["ps", "-aq"]).ok().says("");
    umiak.run(&["run", "--rm", "--restart", "no", "--network", "none", "busybox", "true"]).ok();
}

#[test]
fn a_run_lasts_no_longer_than_its_limit() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let begin = Instant::now();
    let words = ["run", "--rm", "--timeout", "1", "--network", "none", "busybox", "sleep", "1000"];
    umiak.run(&words).exits(137);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    let words = ["run", "--name", "box", "--timeout", "1000", "--network", "none", "busybox", "true"];
    umiak.run(&words).ok();
    assert_eq!(umiak.inspect("box", "{{.Config.Timeout}}"), "1000");
}
