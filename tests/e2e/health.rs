//! Health checks: states, times, what follows from them.

use crate::requires;
use crate::support::{Need, Umiak, eventually, finish};

fn health(umiak: &Umiak, name: &str) -> String {
    umiak.inspect(name, "{{.State.Health.Status}}")
}

/// Starts a container that sleeps, with these flags.
fn sleeping(umiak: &Umiak, name: &str, flags: &[&str]) -> String {
    let words = ["--name", name, "--network", "none"];
    umiak.detached(&[&words[..], flags, &["busybox", "sleep", "1000"]].concat())
}

#[test]
fn healthy_then_unhealthy_then_healthy() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let flags = ["--health-cmd", "echo seen; [ ! -e /ill ] || exit 9", "--health-interval", "200ms"];
    sleeping(&umiak, "box", &[&flags[..], &["--health-retries", "2"]].concat());
    umiak.run(&["wait", "--condition", "healthy", "box"]).ok().says("-1");
    assert_eq!(health(&umiak, "box"), "healthy");
    umiak.run(&["ps", "--format", "{{.Status}}"]).ok().has("(healthy)");
    umiak.run(&["healthcheck", "run", "box"]).ok().says("").quiet();
    let wait = umiak.spawn(&["wait", "--condition", "unhealthy", "box"]);
    umiak.run(&["exec", "box", "touch", "/ill"]).ok();
    finish(wait, b"", "wait".to_owned()).ok().says("-1");
    umiak.run(&["ps", "--format", "{{.Status}}"]).ok().has("(unhealthy)");
    umiak.run(&["healthcheck", "run", "box"]).exits(1).says("unhealthy").quiet();
    umiak.run(&["healthcheck", "run", "--ignore-result", "box"]).ok().says("unhealthy");
    let state = umiak.inspect_json("box");
    let found = &state["State"]["Health"];
    assert!(found["FailingStreak"].as_u64().unwrap() >= 2, "{found}");
    let log = found["Log"].as_array().unwrap();
    assert!(!log.is_empty() && log.len() <= 5, "{found}");
    assert_eq!((&log[log.len() - 1]["ExitCode"], &log[0]["Output"]), (&9.into(), &"seen\n".into()));
    assert_eq!(state["Config"]["Healthcheck"]["Interval"], 200_000_000);
    assert_eq!(state["Config"]["Healthcheck"]["Test"][0], "CMD-SHELL");
    let fits = |value: &str| umiak.run(&["ps", "-q", "--filter", &format!("health={value}")]).ok().stdout;
    assert!(fits("unhealthy").len() > 1 && fits("healthy").is_empty() && fits("none").is_empty());
    umiak.run(&["exec", "box", "rm", "/ill"]).ok();
    eventually("it is well again", || health(&umiak, "box") == "healthy");
    // What is stopped is checked no more, and says so.
    umiak.run(&["stop", "-t", "0", "box"]).ok();
    umiak.run(&["healthcheck", "run", "box"]).exits(125).tells("exited");
    umiak.run(&["wait", "--condition", "healthy", "box"]).exits(125).tells("ended");
    umiak.run(&["start", "box"]).ok();
    eventually("it is well again", || health(&umiak, "box") == "healthy");
}

#[test]
fn only_when_asked() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let flags = ["--health-cmd", "CMD test -e /well", "--health-interval", "disable"];
    sleeping(&umiak, "box", &flags);
    assert_eq!(health(&umiak, "box"), "starting");
    umiak.run(&["ps", "--format", "{{.Status}}"]).ok().has("(starting)");
    umiak.run(&["healthcheck", "run", "box"]).exits(1).says("starting");
    umiak.run(&["exec", "box", "touch", "/well"]).ok();
    umiak.run(&["healthcheck", "run", "box"]).ok();
    assert_eq!(health(&umiak, "box"), "healthy");
    assert_eq!(umiak.inspect("box", "{{len .State.Health.Log}}"), "2");
    sleeping(&umiak, "none", &[]);
    assert_eq!(health(&umiak, "none"), "");
    umiak.run(&["healthcheck", "run", "none"]).exits(125).tells("no health check");
    umiak.run(&["wait", "--condition", "healthy", "none"]).exits(125).tells("no health check");
    umiak.run(&["healthcheck", "run", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["ps", "--filter", "health=splendid"]).exits(125).tells("splendid");
    umiak.run(&["wait", "--condition", "splendid", "box"]).exits(125).tells("splendid");
    umiak.run(&["wait", "--condition", "running", "box"]).ok().says("-1");
}

#[test]
fn what_takes_too_long_or_cannot_be_run_has_failed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let manual = ["--health-interval", "disable", "--health-retries", "1"];
    let slow = ["--health-cmd", "echo before; sleep 1000", "--health-timeout", "1s"];
    sleeping(&umiak, "slow", &[&manual[..], &slow].concat());
    umiak.run(&["healthcheck", "run", "slow"]).exits(1).says("unhealthy");
    let run = "{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}";
    let told = umiak.inspect("slow", run);
    assert!(told.starts_with("-1 ") && told.contains("longer than 1s"), "{told}");
    let names = umiak.run(&["top", "slow", "args"]).ok().stdout;
    assert!(!names.contains("before"), "it still runs: {names}");
    sleeping(&umiak, "absent", &[&manual[..], &["--health-cmd", "CMD no-such-program"]].concat());
    umiak.run(&["healthcheck", "run", "absent"]).exits(1).says("unhealthy");
    let told = umiak.inspect("absent", run);
    assert!(told.starts_with("127 ") && told.contains("no-such-program"), "{told}");
    // One that writes without end is cut.
    let flags = ["--health-cmd", "yes | head -c 1000000", "--health-max-log-size", "7"];
    sleeping(&umiak, "loud", &[&manual[..], &flags].concat());
    umiak.run(&["healthcheck", "run", "loud"]).ok();
    assert_eq!(umiak.inspect("loud", run), "0 y\ny\ny\ny");
    // The container ends in the middle of a check.
    let flags = ["--health-cmd", "sleep 1000", "--health-interval", "100ms"];
    sleeping(&umiak, "ends", &flags);
    umiak.run(&["kill", "ends"]).ok();
    umiak.run(&["wait", "ends"]).ok().says("137");
}

#[test]
fn the_ill_are_killed_stopped_or_started_again() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let ill = ["--health-cmd", "false", "--health-interval", "50ms", "--health-retries", "2"];
    let with = |action: &'static str| [&ill[..], &["--health-on-failure", action]].concat();
    sleeping(&umiak, "killed", &with("kill"));
    umiak.run(&["wait", "killed"]).ok().says("137");
    assert_eq!(umiak.inspect("killed", "{{.RestartCount}} {{.State.Health.Status}}"), "0 unhealthy");
    let flags = [&with("stop")[..], &["--stop-signal", "USR1"]].concat();
    let words = [&["--name", "stopped", "--network", "none"], &flags[..]].concat();
    let script = "trap 'exit 5' USR1; while :; do sleep 0.05; done";
    umiak.detached(&[&words[..], &["busybox", "sh", "-c", script]].concat());
    umiak.run(&["wait", "stopped"]).ok();
    assert_eq!(umiak.inspect("stopped", "{{.State.ExitCode}}"), "5");
    sleeping(&umiak, "again", &with("restart"));
    eventually("it is started again", || {
        umiak.inspect("again", "{{.RestartCount}}").parse::<u32>().unwrap() > 1
    });
    umiak.run(&["stop", "-t", "0", "again"]).ok();
    assert_eq!(umiak.status("again"), "exited");
    sleeping(&umiak, "told", &with("none"));
    umiak.run(&["wait", "--condition", "unhealthy", "told"]).ok();
    assert_eq!(umiak.status("told"), "running");
}

#[test]
fn checks_that_come_first() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let flags = [
        "--health-cmd",
        "echo regular",
        "--health-interval",
        "100ms",
        "--health-startup-cmd",
        "test -e /up",
        "--health-startup-interval",
        "100ms",
    ];
    sleeping(&umiak, "box", &flags);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(health(&umiak, "box"), "starting");
    umiak.run(&["exec", "box", "touch", "/up"]).ok();
    umiak.run(&["wait", "--condition", "healthy", "box"]).ok();
    // Too many failures of these start it again.
    sleeping(&umiak, "again", &[&flags[..], &["--health-startup-retries", "2"]].concat());
    eventually("it is started again", || umiak.inspect("again", "{{.RestartCount}}") != "0");
}

#[test]
fn results_go_where_they_are_told() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = umiak.dir.join("results");
    std::fs::create_dir(&dir).unwrap();
    let place = dir.to_str().unwrap();
    let flags = ["--health-cmd", "echo result", "--health-log-destination", place];
    let id = sleeping(&umiak, "box", &flags);
    let file = dir.join(format!("{id}-healthcheck.log"));
    eventually("it is written", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains("result")));
    assert_eq!(umiak.inspect("box", "{{.Config.HealthLogDestination}}"), place);
}

#[test]
fn nonsense() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let cmd = ["--health-cmd", "true"];
    for (flags, told) in [
        (&["--health-interval", "1s"][..], "no health check"),
        (&["--health-cmd", ""], "names no command"),
        (&[cmd[0], cmd[1], "--no-healthcheck"], "no-healthcheck"),
        (&[cmd[0], cmd[1], "--health-interval", "often"], "often"),
        (&[cmd[0], cmd[1], "--health-interval=-1s"], "negative"),
        (&[cmd[0], cmd[1], "--health-timeout", "1ms"], "1 second"),
        (&[cmd[0], cmd[1], "--health-retries", "0"], "greater than 0"),
        (&[cmd[0], cmd[1], "--health-retries", "-3"], "greater than 0"),
        (&[cmd[0], cmd[1], "--health-on-failure", "explode"], "explode"),
        (&[cmd[0], cmd[1], "--health-log-destination", "events_logger"], "not supported yet"),
        (&[cmd[0], cmd[1], "--health-max-log-count", "-1"], "-1"),
        (&[cmd[0], cmd[1], "--health-startup-success", "1"], "health-startup-cmd"),
    ] {
        umiak.run(&[&["run"], flags, &["busybox", "true"]].concat()).exits(125).tells(told);
    }
    umiak.run(&["ps", "-aq"]).ok().says("");
}

#[test]
fn the_images_own_check() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    // As if the image had been built with HEALTHCHECK.
    let images = std::fs::read_dir(umiak.dir.join("store/images")).unwrap();
    for path in images.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some()) {
        let mut image: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        image["config"]["config"]["Healthcheck"] =
            serde_json::json!({"Test": ["CMD-SHELL", "echo own"], "Interval": 200_000_000, "Retries": 7});
        std::fs::write(&path, image.to_string()).unwrap();
    }
    sleeping(&umiak, "own", &[]);
    umiak.run(&["wait", "--condition", "healthy", "own"]).ok();
    let said = "{{(index .State.Health.Log 0).Output}}{{.Config.Healthcheck.Retries}} {{.Config.Healthcheck.Timeout}}";
    assert_eq!(umiak.inspect("own", said), "own\n7 30000000000");
    sleeping(&umiak, "none", &["--no-healthcheck"]);
    assert_eq!(health(&umiak, "none"), "");
    sleeping(&umiak, "other", &["--health-cmd", "false", "--health-retries", "1"]);
    umiak.run(&["wait", "--condition", "unhealthy", "other"]).ok();
}
