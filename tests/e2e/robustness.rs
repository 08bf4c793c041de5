//! Killed at any moment, and many at once: the next command works and nothing is left.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::requires;
use crate::support::{Need, Umiak, eventually, finish, processes};

fn kill(pid: i32) {
    // It may be gone already.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

/// The parent of a process.
fn parent(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn the_command_dies_and_the_container_lives() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "while [ ! -e /go ]; do sleep 0.05; done; echo late; exit 4";
    let mut command =
        umiak.spawn(&["run", "--name", "box", "--network", "none", "busybox", "sh", "-c", script]);
    eventually("it runs", || umiak.run(&["ps", "-q", "--filter", "name=box"]).ok().stdout.len() > 1);
    command.kill().unwrap();
    command.wait().unwrap();
    assert_eq!(umiak.status("box"), "running");
    umiak.let_go("box");
    umiak.run(&["wait", "box"]).ok().says("4");
    umiak.run(&["logs", "box"]).ok().says("late");
}

#[test]
fn the_monitor_dies() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    let init: i32 = umiak.inspect("box", "{{.State.Pid}}").parse().unwrap();
    kill(parent(init));
    // Whether the container lived on or not, what is told is true and everything works.
    umiak.run(&["ps", "-a"]).ok().has("box");
    let status = umiak.status("box");
    let alive = std::path::Path::new(&format!("/proc/{init}")).exists();
    assert!(alive == (status == "running") || status == "stopping", "{status}, init is there: {alive}");
    umiak.run(&["run", "--rm", "--network", "none", "busybox", "echo", "works"]).ok().says("works");
    umiak.run(&["rm", "-f", "-t", "0", "box"]).ok();
    eventually("init is gone", || !std::path::Path::new(&format!("/proc/{init}")).exists());
}

#[test]
fn an_unknown_exit_is_never_zero() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    let init: i32 = umiak.inspect("box", "{{.State.Pid}}").parse().unwrap();
    kill(parent(init));
    kill(init);
    eventually("it is seen", || umiak.status("box") != "running");
    let code = umiak.inspect("box", "{{.State.ExitCode}}");
    assert_ne!(code, "0");
    umiak.run(&["rm", "box"]).ok();
}

#[test]
fn the_init_dies() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    kill(umiak.inspect("box", "{{.State.Pid}}").parse().unwrap());
    umiak.run(&["wait", "box"]).ok().says("137");
    assert_eq!(umiak.inspect("box", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
}

#[test]
fn killed_at_any_moment() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    // From before the store is opened to after the end: a run takes some 10 to 50 ms.
    for step in 0..40_u64 {
        let mut command =
            umiak.spawn(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", "sleep 0.02"]);
        std::thread::sleep(Duration::from_micros(step * step * 40));
        // Every process of this world: the command, the monitor, the container's own.
        for pid in processes(&umiak.dir) {
            if step % 2 == 0 || pid == command.id() as i32 {
                kill(pid);
            }
        }
        command.wait().unwrap();
        umiak.run(&["ps", "-a"]).ok();
    }
    umiak.run(&["run", "--rm", "--network", "none", "busybox", "echo", "works"]).ok().says("works");
    umiak.check_nothing_left();
}

#[test]
fn a_pull_killed_at_any_moment() {
    requires!(Need::Image("nasty"));
    let umiak = Umiak::new();
    let source = format!("oci:{}:localhost/nasty:latest", crate::support::images().join("nasty").display());
    for step in 0..20_u64 {
        let mut pull = umiak.spawn(&["pull", "-q", &source]);
        std::thread::sleep(Duration::from_micros(step * step * 200));
        for pid in processes(&umiak.dir) {
            kill(pid);
        }
        pull.wait().unwrap();
        umiak.run(&["images"]).ok();
        umiak.run(&["rmi", "--all", "--force"]).ok();
    }
    umiak.run(&["pull", "-q", &source]).ok();
    umiak.run(&["run", "--rm", "--network", "none", "nasty", "cat", "/plain/replaced"]).ok().says("new");
}

#[test]
fn a_hundred_at_once() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let runs: Vec<_> = (0..100)
        .map(|number| {
            let text = number.to_string();
            (number, umiak.spawn(&["run", "--rm", "--network", "none", "busybox", "echo", &text]))
        })
        .collect();
    for (number, run) in runs {
        finish(run, b"", format!("run {number}")).ok().says(&number.to_string()).quiet();
    }
    umiak.run(&["ps", "-aq"]).ok().says("");
}

#[test]
fn one_name_goes_to_one_container() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let runs: Vec<_> = (0..20)
        .map(|_| {
            umiak.spawn(&["run", "-d", "--name", "only", "--network", "none", "busybox", "sleep", "1000"])
        })
        .collect();
    let codes: Vec<_> = runs.into_iter().map(|run| finish(run, b"", "run".to_owned()).code).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(125)).count(), 19, "{codes:?}");
    assert_eq!(umiak.run(&["ps", "-aq"]).ok().stdout.lines().count(), 1);
}

#[test]
fn the_binary_is_out_of_reach_from_inside() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let before = std::fs::read(Umiak::binary()).unwrap();
    // CVE-2019-5736: a program that is /proc/self/exe, and a reach for pid 1's and exec's own binary.
    let run = umiak.run(&["run", "--rm", "--network", "none", "busybox", "/proc/self/exe", "--version"]);
    assert!(!run.stdout.contains("umiak"), "the binary ran inside: {}", run.stdout);
    umiak.detached(&[
        "--name",
        "box",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        "while :; do for p in /proc/[0-9]*/exe; do { echo overwritten > $p; } 2>/dev/null; done; done",
    ]);
    for _ in 0..20 {
        umiak.run(&["exec", "box", "true"]).ok();
    }
    assert!(before == std::fs::read(Umiak::binary()).unwrap(), "the binary was changed");
}

#[test]
fn no_program_but_the_id_mappers_is_started() {
    // Setuid programs such as newuidmap gain nothing while an ordinary user traces them.
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("strace"));
    let umiak = Umiak::with_busybox();
    let trace = umiak.dir.join("trace");
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=execve,execveat", "-e", "status=successful", "-o"]).arg(&trace);
    command
        .arg(Umiak::binary())
        .arg("--root")
        .arg(umiak.dir.join("store"))
        .arg("--runroot")
        .arg(umiak.dir.join("run/umiak"));
    command
        .args(["run", "--rm", "--network", "none", "busybox", "true"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&trace).unwrap();
    let started: Vec<&str> = text.lines().filter(|line| line.contains("exec")).collect();
    assert!(!started.is_empty(), "the trace is empty");
    for line in started {
        // The binary itself, the sealed stub (a descriptor and no path), the container's program.
        let known =
            ["newuidmap", "newgidmap", "umiak", "/bin/true", "\"\""].iter().any(|name| line.contains(name));
        assert!(known, "a foreign program: {line}");
    }
}

#[test]
fn a_slow_reader_loses_nothing() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "(seq 1 60000) & seq 60001 120000 >&2; wait";
    let mut run = umiak.spawn(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script]);
    // Until the pipes, the sockets and the monitor are full.
    std::thread::sleep(Duration::from_millis(500));
    let (out, err) = (run.stdout.take().unwrap(), run.stderr.take().unwrap());
    let read = |stream: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || std::io::read_to_string(stream).unwrap())
    };
    let (out, err) = (read(Box::new(out)), read(Box::new(err)));
    let expected = |range: std::ops::RangeInclusive<u32>| range.map(|n| format!("{n}\n")).collect::<String>();
    assert!(out.join().unwrap() == expected(1..=60000), "standard output is not whole");
    assert!(err.join().unwrap() == expected(60001..=120_000), "standard error is not whole");
    assert!(run.wait().unwrap().success());
}

/// Calls of poll(2) in a process, as its voluntary context switches count them.
fn switches(pid: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find(|line| line.starts_with("voluntary")).unwrap().to_owned()
}

#[test]
fn an_idle_monitor_sleeps() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
    let monitor = umiak.inspect("box", "{{.State.ConmonPid}}");
    // Once it has seen that nothing is to be done for some time.
    let mut before = String::new();
    eventually("it sleeps", || {
        before = switches(&monitor);
        std::thread::sleep(Duration::from_secs(3));
        switches(&monitor) == before
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(switches(&monitor), before);
}

#[test]
fn clocks_and_pids_deceive_nobody() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let facts = |name: &str| {
        let id = umiak.inspect(name, "{{.Id}}");
        umiak.dir.join("store/containers").join(id).join("state.json")
    };
    let change = |name: &str, change: &dyn Fn(&mut serde_json::Value)| {
        let path = facts(name);
        let mut state: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut state);
        std::fs::write(&path, state.to_string()).unwrap();
    };
    // The clock was set back since it was started: it is young, and it runs.
    umiak.detached(&["--name", "young", "--network", "none", "busybox", "sleep", "1000"]);
    change("young", &|state| state["started"] = (state["started"].as_i64().unwrap() + (1 << 52)).into());
    umiak.run(&["ps", "--format", "{{.Status}}"]).ok().says("Up Less than a second");
    assert_eq!(umiak.status("young"), "running");
    // Its process's number belongs to another one, which is left alone.
    let mut stranger = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    umiak.detached(&["--name", "gone", "--network", "none", "busybox", "sleep", "1000"]);
    let (init, monitor) = {
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(facts("gone")).unwrap()).unwrap();
        (state["pid"].as_i64().unwrap() as i32, state["monitor"].as_i64().unwrap() as i32)
    };
    kill(monitor);
    kill(init);
    eventually("it has ended", || umiak.status("gone") == "exited");
    std::fs::remove_file(facts("gone").with_file_name("exit")).unwrap();
    change("gone", &|state| state["pid"] = stranger.id().into());
    assert_eq!(umiak.inspect("gone", "{{.State.Status}} {{.State.ExitCode}}"), "exited -1");
    umiak.run(&["kill", "gone"]).exits(125).tells("exited");
    umiak.run(&["stop", "-t", "0", "gone"]).ok();
    umiak.run(&["rm", "-f", "-t", "0", "gone"]).ok();
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    // Without the runtime directory a container still runs, is found, stopped and removed.
    std::fs::remove_dir_all(umiak.dir.join("run/umiak")).unwrap();
    assert_eq!(umiak.status("young"), "running");
    umiak.run(&["exec", "young", "true"]).ok();
    umiak.run(&["stop", "-t", "0", "young"]).ok();
    assert_eq!(umiak.inspect("young", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
}

#[test]
fn a_churn_leaves_nothing() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    // `UMIAK_TEST_CHURN`: how many containers each of eight processes makes, starts and removes.
    let rounds = std::env::var("UMIAK_TEST_CHURN").ok().and_then(|text| text.parse().ok()).unwrap_or(5_u32);
    let script = format!(
        "set -e; worker=$1; shift; i=0; while [ $i -lt {rounds} ]; do i=$((i + 1)); n=box-$worker-$i; \
         \"$@\" create --name $n --network none busybox true; \"$@\" start $n; \"$@\" wait $n; \"$@\" rm $n; done"
    );
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let own = umiak.command(&[""; 0]);
            let mut command = std::process::Command::new("sh");
            command.args(["-c", &script, "sh", &worker.to_string()]).arg(own.get_program());
            command.args(own.get_args()).env_clear();
            command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
            command.current_dir(&umiak.dir).stdin(Stdio::null());
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for worker in workers {
        finish(worker, b"", "churn".to_owned()).ok().quiet();
    }
    umiak.run(&["ps", "-aq"]).ok().says("");
    umiak.check_nothing_left();
}
