//! Limits: what is refused, and what needs no controller. Those that are really kept are tried in a machine with
//! version 2 of control groups (`tests/guest/limits-engine.sh`).

use std::path::{Path, PathBuf};

use crate::requires;
use crate::support::{Need, Output, Umiak};

fn sh(umiak: &Umiak, options: &[&str], script: &str) -> Output {
    umiak.run(&[&["run", "--rm", "--network", "none"], options, &["busybox", "sh", "-c", script]].concat())
}

/// One line that tells why, perhaps one with a cure, and nothing that was made.
fn refused(umiak: &Umiak, options: &[&str], part: &str) {
    let output = sh(umiak, options, "true").exits(125).tells(part);
    let lines: Vec<&str> = output.stderr.lines().collect();
    let hint = lines.get(1).is_none_or(|line| line.starts_with("hint: "));
    assert!(lines[0].starts_with("error: ") && lines.len() <= 2 && hint, "{options:?}: {}", output.stderr);
    umiak.run(&["ps", "-a", "-q"]).ok().says("");
}

/// The machine's limits are version 1's, which are not used.
fn hybrid() -> bool {
    Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists()
}

#[test]
fn nonsense_is_told_and_starts_nothing() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for (options, part) in [
        (&["--memory", "lots"][..], "--memory \"lots\""),
        (&["--memory", "-1"], "0 is no limit"),
        (&["-m", "1x"], "--memory \"1x\""),
        (&["--memory", "999t"], "it would be no limit"),
        (&["--memory-swap", "64m"], "it needs --memory"),
        (&["--memory", "64m", "--memory-swap", "32m"], "it is below --memory"),
        (&["--memory", "64m", "--memory-swap", "-2"], "--memory-swap \"-2\""),
        (&["--memory", "64m", "--memory-reservation", "65m"], "it is above --memory"),
        (&["--memory-swappiness", "50"], "version 2"),
        (&["--memory-swappiness", "101"], "between 0 and 100"),
        (&["--oom-kill-disable"], "version 2"),
        (&["--cpus", "many"], "--cpus \"many\""),
        (&["--cpus", "-1"], "--cpus \"-1\""),
        (&["--cpus", "0.001"], "0.01 is the least"),
        (&["--cpus", "9999"], "it would be no limit"),
        (&["--cpus", "1", "--cpu-quota", "5000"], "--cpus says the same"),
        (&["--cpu-quota", "500"], "at least 1000"),
        (&["--cpu-period", "999"], "between 1000 and 1000000"),
        (&["--cpu-shares", "1"], "between 2 and 262144"),
        (&["-c", "x"], "--cpu-shares \"x\""),
        (&["--cpu-rt-runtime", "5"], "version 2"),
        (&["--cpuset-cpus", "x"], "numbers and ranges"),
        (&["--cpuset-cpus", "4095"], "this machine has no 4095"),
        (&["--cpuset-mems", "63"], "this machine has no 63"),
        (&["--pids-limit", "-5"], "--pids-limit \"-5\""),
        (&["--pids-limit", "99999999"], "no kernel has so many"),
        (&["--blkio-weight", "5"], "between 10 and 1000"),
        (
            &["--blkio-weight-device", "/dev/nothing:50"],
            "--blkio-weight-device \"/dev/nothing\": no such file",
        ),
        (&["--device-read-bps", "/dev/null:1m"], "block device required"),
        (&["--device-write-bps", "/dev/null"], "DEVICE:VALUE"),
        (&["--device-read-iops", "/dev/null:0"], "let nothing through"),
        (&["--device-write-iops", "null:1"], "absolute path"),
        (&["--cgroup-conf", "nonsense=1"], "CONTROLLER.NAME"),
        (&["--cgroup-conf", "cgroup.procs=1"], "ours to write"),
        (&["--cgroup-parent", "/"], "root group"),
        (&["--cgroup-parent", "/a/../b"], "\"..\""),
        (&["--cgroups", "strange"], "enabled, disabled, no-conmon or split"),
        (&["--cgroups", "disabled", "--memory", "64m"], "--memory \"64m\": it takes a control group"),
        (&["--cgroups", "split", "--cgroup-parent", "/x"], "--cgroups=split"),
        (&["--rdt-class", "a/b"], "a class of resctrl"),
        (&["--rdt-class", "gold"], "--rdt-class \"gold\""),
        (&["--shm-size", "x"], "--shm-size"),
        (&["--ulimit", "nofile=2:1"], "above the hard limit"),
        (&["--oom-score-adj", "1001"], "between -1000 and 1000"),
        (&["--device-cgroup-rule", "x 1:2 r"], "--device-cgroup-rule"),
    ] {
        refused(&umiak, options, part);
    }
    // Before anything is fetched.
    umiak.run(&["run", "--memory", "lots", "localhost:1/none"]).exits(125).tells("--memory \"lots\"");
    umiak.run(&["--cgroup-manager", "strange", "ps"]).exits(125).tells("cgroup-manager");
}

#[test]
fn no_limit_is_none_refused() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let none = [
        "--memory",
        "0",
        "--cpus",
        "0",
        "--pids-limit",
        "-1",
        "--cpu-shares",
        "0",
        "--memory-swappiness",
        "-1",
    ];
    sh(&umiak, &none, "echo runs").ok().says("runs");
    sh(&umiak, &["--cgroups", "disabled", "--memory", "0"], "echo runs").ok().says("runs");
    sh(&umiak, &["--cgroups", "no-conmon"], "echo runs").ok().says("runs");
    umiak
        .run(&["--cgroup-manager", "cgroupfs", "run", "--rm", "--network", "none", "busybox", "echo", "runs"])
        .ok();
    umiak.run(&["create", "--name", "box", "--network", "none", "--shm-size", "2m", "busybox", "true"]).ok();
    let shown = umiak.inspect(
        "box",
        "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.MemorySwappiness}} {{.HostConfig.PidsLimit}} \
         {{.HostConfig.ShmSize}} {{.HostConfig.Cgroups}} {{.HostConfig.CgroupManager}} {{.State.OOMKilled}}",
    );
    assert_eq!(shown, "0 0 -1 0 2097152 default cgroupfs false");
    umiak.run(&["update", "--pids-limit", "0", "--memory", "0", "box"]).ok();
    umiak.run(&["update", "--ulimit", "nofile=100:200", "box"]).ok();
    assert_eq!(umiak.inspect("box", "{{(index .HostConfig.Ulimits 0).Hard}}"), "200");
    umiak.run(&["update", "--memory", "lots", "box"]).exits(125).tells("--memory \"lots\"");
    umiak.run(&["container", "clone", "--cpus", "-1", "box"]).exits(125).tells("--cpus \"-1\"");
    umiak.run(&["container", "clone", "--cpus", "0", "box"]).ok();
}

#[test]
fn limits_of_version_1_are_refused_with_what_would_allow_them() {
    requires!(Need::Image("busybox"));
    if !hybrid() {
        return;
    }
    let umiak = Umiak::with_busybox();
    for (options, part) in [
        (&["--memory", "64m"][..], "--memory: the controller \"memory\" is version 1's"),
        (&["--memory-reservation", "64m"], "--memory-reservation"),
        (&["--cpus", "0.5"], "--cpus: the controller \"cpu\""),
        (&["--cpu-quota", "5000"], "--cpu-quota"),
        (&["--cpu-shares", "512"], "--cpu-shares"),
        (&["--cpuset-cpus", "0"], "--cpuset-cpus"),
        (&["--pids-limit", "50"], "--pids-limit"),
        (&["--blkio-weight", "50"], "--blkio-weight"),
        (&["--cgroup-conf", "memory.high=100000000"], "--cgroup-conf"),
    ] {
        refused(&umiak, options, part);
        sh(&umiak, options, "true").exits(125).hints("systemd.unified_cgroup_hierarchy=1");
    }
    umiak.run(&["create", "--name", "box", "--network", "none", "busybox", "sleep", "1000"]).ok();
    umiak.run(&["update", "--memory", "64m", "box"]).exits(125).tells("--memory: the controller");
    umiak.run(&["container", "clone", "--cpus", "0.5", "box"]).exits(125).tells("--cpus: the controller");
    umiak.run(&["start", "box"]).ok();
    umiak.run(&["update", "--memory", "64m", "box"]).exits(125);
    assert_eq!(umiak.inspect("box", "{{.HostConfig.Memory}} {{.State.Status}}"), "0 running");
    umiak.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().says("box");
    if !Path::new("/run/systemd/system").exists() {
        let words = ["--cgroup-manager", "systemd", "run", "--rm", "--network", "none", "busybox", "true"];
        umiak.run(&words).exits(125).tells("does not run systemd");
    }
}

/// A group of the test's own.
struct Group(PathBuf);

impl Group {
    fn new() -> Self {
        let mount = if hybrid() { "/sys/fs/cgroup/unified" } else { "/sys/fs/cgroup" };
        let path = Path::new(mount).join(format!("umiak-e2e-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        std::fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn parents() {
    requires!(Need::Root, Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    refused(&umiak, &["--cgroup-parent", "/umiak-no-such-group"], "there is no such control group");
    let group = Group::new();
    let name = format!("/{}", group.0.file_name().unwrap().to_string_lossy());
    let with = ["--cgroup-parent", &name, "--name", "box"];
    let id = umiak.detached(&[&with[..], &["--network", "none", "busybox", "sleep", "1000"]].concat());
    let path = umiak.inspect("box", "{{.State.CgroupPath}}");
    assert_eq!(Path::new(&path), group.0.join(format!("umiak-{id}")));
    assert_eq!(umiak.inspect("box", "{{.HostConfig.CgroupParent}}"), name);
    umiak.run(&["restart", "-t", "0", "box"]).ok();
    assert_eq!(umiak.inspect("box", "{{.State.CgroupPath}}"), path);
    umiak.run(&["pause", "box"]).ok();
    assert_eq!(umiak.status("box"), "paused");
    umiak.run(&["rm", "-f", "-t", "0", "box"]).ok();
    assert!(!Path::new(&path).exists());
    // Controllers that the tree has can be used, whoever has the others.
    let pages = |limit: &str| format!("hugetlb.2MB.max={limit}");
    let offered = std::fs::read_to_string(group.0.join("../cgroup.controllers")).unwrap();
    if offered.contains("hugetlb") && Path::new("/sys/kernel/mm/hugepages/hugepages-2048kB").exists() {
        let conf = pages("4194304");
        umiak.detached(&[
            "--cgroup-conf",
            &conf,
            "--name",
            "pages",
            "--network",
            "none",
            "busybox",
            "sleep",
            "1000",
        ]);
        let path = umiak.inspect("pages", "{{.State.CgroupPath}}");
        assert_eq!(std::fs::read_to_string(Path::new(&path).join("hugetlb.2MB.max")).unwrap(), "4194304\n");
        assert_eq!(umiak.inspect("pages", "{{index .HostConfig.CgroupConf \"hugetlb.2MB.max\"}}"), "4194304");
        umiak.run(&["rm", "-f", "-t", "0", "pages"]).ok();
        let output = sh(&umiak, &["--cgroup-conf", "hugetlb.nothing=1"], "true").exits(125);
        assert!(output.stderr.contains("hugetlb.nothing"), "{}", output.stderr);
    }
}

#[test]
fn a_users_group_is_no_others() {
    requires!(Need::Unprivileged, Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    refused(&umiak, &["--cgroup-parent", "/umiak-no-such-group"], "there is no such control group");
    let other = ["/init.scope", "/system.slice", "/user.slice", "/umiak"].into_iter().find(|name| {
        let mount = if hybrid() { "/sys/fs/cgroup/unified" } else { "/sys/fs/cgroup" };
        Path::new(mount).join(&name[1..]).is_dir()
    });
    if let Some(other) = other {
        refused(&umiak, &["--cgroup-parent", other], "it is not this user's");
    }
}

#[test]
fn all_end_with_the_first_one() {
    requires!(Need::Root, Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    // Without a pid namespace of its own the kernel ends nothing by itself.
    let script = "sleep 4321 & sleep 0.3";
    let id = umiak.run(&[
        "run",
        "--pid",
        "host",
        "--network",
        "none",
        "--name",
        "box",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    id.ok();
    let left = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|text| text.starts_with(b"sleep\x004321"))
        })
    };
    crate::support::eventually("none is left", || !left());
}
