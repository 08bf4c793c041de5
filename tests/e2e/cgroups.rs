//! Control groups on the machine as it is: the runtime's `pause`, `ps`, `update`, `events` and device
//! rules. Limits that are really kept are tested in a machine of their own (`scripts/guest`).

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::requires;
use crate::support::{Need, Output, Umiak, eventually, finish};

/// A bundle, and a runtime for it.
struct Runtime {
    umiak: Umiak,
    config: Value,
}

impl Runtime {
    fn new(program: &[&str]) -> Self {
        let umiak = Umiak::new();
        let scripts = std::env::var_os("UMIAK_TEST_SCRIPTS")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts"), PathBuf::from);
        let template = if rustix::process::geteuid().is_root() { "busybox" } else { "rootless" };
        let bundle = umiak.dir.join("bundle");
        let mut make = Command::new(scripts.join("make-bundle"));
        let made = make.args([template.as_ref(), bundle.as_os_str()]).args(program).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        symlink(Umiak::binary(), umiak.dir.join("umiak-runtime")).unwrap();
        let config = serde_json::from_slice(&std::fs::read(bundle.join("config.json")).unwrap()).unwrap();
        Self { umiak, config }
    }

    fn run(&self, args: &[&str]) -> Output {
        let text = self.config.to_string();
        std::fs::write(self.umiak.dir.join("bundle/config.json"), text).unwrap();
        let mut command = Command::new(self.umiak.dir.join("umiak-runtime"));
        command.arg("--root").arg(self.umiak.dir.join("state")).args(args).current_dir(&self.umiak.dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().unwrap(), b"", format!("umiak-runtime {}", args.join(" ")))
    }

    fn start(&self, id: &str) -> Output {
        // A container keeps the descriptors it was started with.
        let mut command = Command::new(self.umiak.dir.join("umiak-runtime"));
        let text = self.config.to_string();
        std::fs::write(self.umiak.dir.join("bundle/config.json"), text).unwrap();
        command.arg("--root").arg(self.umiak.dir.join("state")).args(["run", "-d", "-b", "bundle", id]);
        let errors = std::fs::File::create(self.umiak.dir.join("errors")).unwrap();
        command.current_dir(&self.umiak.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let status = command.status().unwrap();
        let text = std::fs::read_to_string(self.umiak.dir.join("errors")).unwrap();
        assert!(status.success(), "{text}");
        self.run(&["state", id])
    }

    /// Whether a container has a group here.
    fn has_group(&self, id: &str) -> bool {
        let record = std::fs::read(self.umiak.dir.join("state").join(id).join("state.json")).unwrap();
        !serde_json::from_slice::<Value>(&record).unwrap()["cgroup"].is_null()
    }
}

#[test]
fn root_with_mknod_reaches_no_device_but_its_own() {
    requires!(Need::Root, Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let run = |options: &[&str], script: &str| {
        umiak.run(&[&["run", "--rm"], options, &["busybox", "sh", "-c", script]].concat())
    };
    let script = "mknod /dev/mem c 1 1 && { head -c1 /dev/mem; } 2>&1";
    run(&["--cap-add", "MKNOD"], script).exits(1).has("not permitted");
    run(
        &["--cap-add", "MKNOD", "--device", "/dev/kmsg"],
        "mknod /dev/full c 1 7; head -c1 /dev/full | wc -c",
    )
    .ok()
    .says("1");
    run(&["--device", "/dev/null:/dev/sink:r"], "head -c1 /dev/sink && echo >/dev/null").ok();
    let output = run(&["--device", "/dev/loop-control:/dev/ctl:w"], "{ head -c1 /dev/ctl; } 2>&1");
    output.exits(1).has("not permitted");
}

fn unique(name: &str) -> String {
    format!("e2e-{name}-{}", std::process::id())
}

#[test]
fn processes_are_listed_stopped_and_ended() {
    requires!(Need::Tool("busybox"), Need::Tool("python3"), Need::Tool("ps"));
    let runtime = Runtime::new(&["sh", "-c", "sleep 1000 & sleep 1001 & wait"]);
    let id = &unique("life");
    runtime.start(id).ok().has("running");
    let pids = || -> Vec<i32> {
        serde_json::from_str(&runtime.run(&["ps", "--format", "json", id]).ok().stdout).unwrap()
    };
    eventually("all are listed", || pids().len() == 3);
    runtime.run(&["ps", id]).ok().has("PPID").has("sleep 1001");
    runtime.run(&["ps", id, "-o", "pid,comm"]).ok().has("COMMAND").has("sleep").lacks("PPID");
    runtime.run(&["ps", "--format", "xml", id]).exits(1).tells("--format");
    if runtime.has_group(id) {
        runtime.run(&["resume", id]).exits(1).tells("cannot resume a container in the running state");
        runtime.run(&["pause", id]).ok();
        runtime.run(&["state", id]).ok().has("paused");
        runtime.run(&["exec", id, "true"]).exits(255).tells("--ignore-paused");
        runtime.run(&["delete", id]).exits(1).tells("not stopped: paused");
        runtime.run(&["resume", id]).ok();
        runtime.run(&["exec", id, "true"]).ok();
        runtime.run(&["exec", "--cgroup", "/nowhere", id, "true"]).exits(255).tells("no such file");
        let figures = runtime.run(&["events", "--stats", id]).ok().stdout;
        assert!(
            figures.starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{id}\",\"data\":{{")),
            "{figures}"
        );
        let figures: Value = serde_json::from_str(&figures).unwrap();
        assert!(figures["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{figures}");
    } else {
        for command in ["pause", "resume", "events", "update"] {
            runtime.run(&[command, id]).exits(1).tells("has no control group of its own");
        }
    }
    runtime.run(&["events", "--interval", "0", id]).exits(1).tells("--interval");
    // Also without a group: they share a pid namespace.
    runtime.run(&["kill", "--all", id, "KILL"]).ok();
    eventually("it has stopped", || runtime.run(&["state", id]).stdout.contains("stopped"));
    runtime.run(&["ps", id]).exits(1).tells("not running");
    runtime.run(&["delete", id]).ok();
}

#[test]
fn events_end_with_the_container() {
    requires!(Need::Tool("busybox"), Need::Tool("python3"));
    let runtime = Runtime::new(&["sleep", "1000"]);
    for round in 0..8 {
        let id = &format!("{}-{round}", unique("end"));
        runtime.start(id).ok();
        let grouped = runtime.has_group(id);
        let mut command = Command::new(runtime.umiak.dir.join("umiak-runtime"));
        command.arg("--root").arg(runtime.umiak.dir.join("state")).args(["events", "--interval", "1ms", id]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if !grouped {
            finish(child, b"", "umiak-runtime events".to_owned()).exits(1).tells("no control group");
            runtime.run(&["delete", "--force", id]).ok();
            continue;
        }
        // It has found the container when it tells the first figures.
        let mut told = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut told).unwrap();
        runtime.run(&["delete", "--force", id]).ok();
        finish(child, b"", "umiak-runtime events".to_owned()).ok().quiet();
    }
}

#[test]
fn limits_that_cannot_be_had_are_named() {
    requires!(Need::Tool("busybox"), Need::Tool("python3"));
    let mut runtime = Runtime::new(&["true"]);
    let id = &unique("limits");
    let mut refused = |resources: Value, field: &str| {
        runtime.config["linux"]["resources"] = resources;
        runtime.run(&["run", "-b", "bundle", id]).exits(1).tells(field);
    };
    refused(json!({"memory": {"swappiness": 5}}), "memory.swappiness");
    refused(json!({"unified": {"../x": "1"}}), "unified");
    refused(json!({"devices": [{"allow": true, "access": "q"}]}), "linux.resources.devices");
    if std::path::Path::new("/sys/fs/cgroup/unified").exists() {
        // The controllers are v1's here.
        refused(json!({"memory": {"limit": 50_000_000}}), "memory.limit");
        refused(json!({"pids": {"limit": 7}}), "pids.limit");
        refused(json!({"cpu": {"quota": 5000}}), "cpu.quota");
    }
    // What engines send without being asked is no limit.
    runtime.config["linux"]["resources"] = json!({"pids": {"limit": -1}, "memory": {"limit": -1, "swap": 0},
        "cpu": {"shares": 1024, "quota": -1}, "blockIO": {"weight": 0}, "devices": [{"allow": false, "access": "rwm"}]});
    runtime.run(&["run", "-b", "bundle", id]).ok();
    runtime.run(&["--cgroup-manager", "disabled", "run", "-b", "bundle", id]).ok();
    runtime
        .run(&["--cgroup-manager", "strange", "run", "-b", "bundle", id])
        .exits(1)
        .tells("--cgroup-manager");
    let systemd = runtime.run(&["--systemd-cgroup", "run", "-b", "bundle", id]);
    if !std::path::Path::new("/run/systemd/system").exists() {
        systemd.exits(1).tells("connecting to systemd");
    }
}

#[test]
fn without_a_namespace_the_hosts_groups_are_read_only_throughout() {
    requires!(Need::Tool("busybox"), Need::Tool("python3"));
    let mut runtime = Runtime::new(&["cat", "/proc/self/mountinfo"]);
    runtime.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "cgroup");
    let mount =
        json!({"destination": "/groups", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]});
    runtime.config["mounts"].as_array_mut().unwrap().push(mount);
    let told = runtime.run(&["run", "-b", "bundle", &unique("groups")]).ok().stdout;
    let mounts: Vec<Vec<&str>> = told.lines().map(|line| line.split(' ').collect()).collect();
    let mounts: Vec<_> = mounts.iter().filter(|fields| fields[4].starts_with("/groups")).collect();
    assert!(!mounts.is_empty(), "{told}");
    for fields in mounts {
        assert!(fields[5].starts_with("ro,") && fields[5].contains("nosuid"), "{fields:?}");
    }
}

#[test]
fn devices_are_what_the_rules_say() {
    requires!(Need::Root, Need::Tool("busybox"), Need::Tool("python3"));
    let mut runtime = Runtime::new(&["sleep", "1000"]);
    for set in runtime.config["process"]["capabilities"].as_object_mut().unwrap().values_mut() {
        set.as_array_mut().unwrap().push("CAP_MKNOD".into());
    }
    runtime.config["linux"]["resources"]["devices"] = json!([{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 4, "access": "r"}, {"allow": true, "type": "b", "major": 7, "access": "rw"}]);
    let id = &unique("devices");
    runtime.start(id).ok();
    if !runtime.has_group(id) {
        runtime.run(&["delete", "--force", id]).ok();
        return;
    }
    let inside = |script: &str| runtime.run(&["exec", id, "sh", "-c", script]);
    inside("mknod /dev/mem c 1 1 && mknod /dev/disk b 8 0").ok();
    let denied = |script: &str| {
        let output = inside(&format!("{{ {script}; }} 2>&1"));
        assert!(output.stdout.contains("not permitted"), "{script}: {}", output.stdout);
    };
    denied("head -c1 /dev/mem");
    denied("head -c1 /dev/disk");
    denied(": >/dev/disk");
    inside("head -c1 /dev/zero >/dev/null && : >/dev/null && head -c1 /dev/urandom >/dev/null").ok();
    runtime.run(&["delete", "--force", id]).ok();
}
