//! `update` and `container cleanup`.

use rustix::process::{Pid, Signal, kill_process};

use crate::requires;
use crate::support::{Need, Umiak, eventually};

#[test]
fn restart_policies_change_while_it_runs() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "while ! [ -e /go ]; do sleep 0.05; done; rm /go; exit 3";
    let id = umiak.detached(&["--name", "box", "--network", "none", "busybox", "sh", "-c", script]);
    umiak.run(&["update", "--restart", "always", "box"]).ok().says(&id);
    assert_eq!(umiak.inspect("box", "{{.HostConfig.RestartPolicy.Name}}"), "always");
    umiak.let_go("box");
    eventually("it is started again", || umiak.inspect("box", "{{.RestartCount}}") == "1");
    eventually("it runs", || umiak.status("box") == "running");
    umiak.run(&["container", "update", "--restart", "no", "box"]).ok();
    umiak.let_go("box");
    umiak.run(&["wait", "box"]).ok().says("3");
    // What a rename and an update write does not undo the other.
    umiak.run(&["rename", "box", "other"]).ok();
    umiak.run(&["update", "--restart", "on-failure:5", "other"]).ok();
    assert_eq!(
        umiak.inspect("other", "{{.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}}"),
        "other 5"
    );
    umiak.run(&["events", "--stream=false", "--filter", "event=update"]).ok().has("name=other");
}

#[test]
fn health_and_environment_change() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let words =
        ["--name", "box", "--env", "A=1", "--env", "B=2", "--network", "none", "busybox", "sleep", "1000"];
    umiak.detached(&words);
    umiak.run(&["update", "--health-cmd", "true", "--health-interval", "100ms", "box"]).ok();
    umiak.run(&["wait", "--condition", "healthy", "box"]).ok();
    umiak.run(&["update", "--health-cmd", "false", "--health-retries", "1", "box"]).ok();
    umiak.run(&["wait", "--condition", "unhealthy", "box"]).ok();
    assert_eq!(umiak.inspect("box", "{{.Config.Healthcheck.Interval}}"), "100000000");
    umiak.run(&["update", "--no-healthcheck", "box"]).ok();
    umiak.run(&["healthcheck", "run", "box"]).exits(125).tells("no health check");
    umiak.run(&["update", "--env", "A=3", "--env", "C=4", "--unsetenv", "B", "box"]).ok();
    let env = umiak.run(&["exec", "box", "env"]).ok().stdout;
    assert!(env.contains("A=3\n") && env.contains("C=4\n") && !env.contains("B="), "{env}");
    assert_eq!(umiak.status("box"), "running");
}

/// A command tells the monitor of a change and is gone, while the monitor has something to tell to all.
#[test]
fn changes_arrive_though_nobody_waits_for_answers() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let check = ["--health-cmd", "sleep 0.3", "--health-interval", "50ms", "--health-retries", "1"];
    let words = ["--name", "box", "--network", "none", "busybox", "sleep", "1000"];
    umiak.detached(&[&check[..], &words].concat());
    umiak.run(&["wait", "--condition", "healthy", "box"]).ok();
    let monitor: i32 = umiak.inspect("box", "{{.State.ConmonPid}}").parse().unwrap();
    let monitor = Pid::from_raw(monitor).unwrap();
    for (command, becomes) in [("sleep 0.3; false", "unhealthy"), ("sleep 0.3", "healthy")].repeat(3) {
        // The next check is on its way, and ends: its result waits for the monitor, beside the change.
        std::thread::sleep(std::time::Duration::from_millis(150));
        kill_process(monitor, Signal::STOP).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(500));
        umiak.run(&["update", "--health-cmd", command, "box"]).ok();
        kill_process(monitor, Signal::CONT).unwrap();
        umiak.run(&["wait", "--condition", becomes, "box"]).ok();
    }
}

#[test]
fn bad_changes_change_nothing() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "--name", "box", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["create", "--rm", "--name", "gone", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["update", "box"]).exits(125).tells("nothing to change");
    umiak.run(&["update", "--restart", "sometimes", "box"]).exits(125).tells("sometimes");
    umiak.run(&["update", "--restart", "always", "gone"]).exits(125).tells("--rm");
    umiak.run(&["update", "--health-interval", "1s", "box"]).exits(125).tells("no health check");
    umiak.run(&["update", "--restart", "no", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["update", "--restart", "always"]).exits(125).tells("at least one");
    assert_eq!(umiak.inspect("box", "{{.HostConfig.RestartPolicy.Name}}"), "no");
}

#[test]
fn cleaned_up() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "up", "--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["run", "--name", "box", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["container", "cleanup", "box"]).ok().says("box");
    umiak.run(&["container", "cleanup", "up"]).exits(125).tells("running");
    umiak.run(&["container", "cleanup", "--all", "--rm"]).ok();
    umiak.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().says("up");
    umiak.run(&["container", "cleanup", "nothing"]).exits(125).tells("nothing");
}

#[test]
fn made_to_be_removed_but_not_yet_started() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "--rm", "--name", "box", "--network", "none", "busybox", "echo", "x"]).ok();
    umiak.run(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok().says("box created");
    umiak.run(&["start", "-a", "box"]).ok().says("x");
    umiak.run(&["ps", "-aq"]).ok().says("");
}
