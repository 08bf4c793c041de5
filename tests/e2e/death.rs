//! Sudden death at any step: of the command, of the monitor, of the container's init. The next command
//! works without repair and tells the truth, and nothing is left.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::requires;
use crate::support::{Account, Need, Umiak, skip};

/// Calls that change something that others can see, or that wait for others.
const CHANGES: &str = "openat,openat2,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,linkat,symlinkat,\
    write,writev,pwrite64,ftruncate,fsync,fdatasync,flock,fchmod,fchmodat,fchown,fchownat,\
    clone,clone3,fork,vfork,execve,execveat,unshare,setns,setsid,\
    mount,umount2,fsopen,fsconfig,fsmount,move_mount,open_tree,mount_setattr,pivot_root,\
    socketpair,bind,listen,connect,accept4,sendto,sendmsg,recvfrom,recvmsg,\
    kill,pidfd_send_signal,waitid,wait4,prctl,poll,ppoll";

/// A command under strace, with all processes that it makes.
fn traced(umiak: &Umiak, options: &[&str], args: &[&str]) -> std::process::ExitStatus {
    let own = umiak.command(args);
    let mut command = Command::new("strace");
    // Setuid programs gain nothing but under root's strace.
    let user = umiak.user.iter().flat_map(|user| ["-u", &user.name]);
    command.args(["-f", "-qq"]).args(user).args(options).arg(own.get_program()).args(own.get_args());
    command.env_clear().envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(&umiak.dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap()
}

/// How often each call is used at most by one process of a command.
fn steps(umiak: &Umiak, args: &[&str]) -> BTreeMap<String, u32> {
    let file = umiak.dir.join("trace");
    let trace = format!("trace={CHANGES}");
    let status = traced(umiak, &["-o", file.to_str().unwrap(), "-e", &trace], args);
    assert!(status.success(), "{args:?} under strace: {status}");
    let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let Some((name, _)) = rest.trim_start().split_once('(') else { continue };
        if name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_') {
            *counts.entry((pid, name)).or_default() += 1;
        }
    }
    let mut most: BTreeMap<String, u32> = BTreeMap::new();
    for ((_, name), count) in counts {
        let known = most.entry(name.to_owned()).or_default();
        *known = (*known).max(count);
    }
    most
}

/// Whether strace works here: not for those whose ids are mapped by setuid programs, which gain nothing
/// while an ordinary user traces them.
fn strace_works(umiak: &Umiak) -> bool {
    let status =
        traced(umiak, &["-o", "/dev/null"], &["run", "--rm", "--network", "none", "busybox", "true"]);
    if status.success() {
        return true;
    }
    skip("the id mappers do not work under strace", true);
    false
}

/// What is told is true: one that runs has its first process.
fn check_told(umiak: &Umiak, step: &str) {
    for volume in umiak.run(&["volume", "ls", "-q"]).ok().stdout.lines() {
        let told = umiak.run(&["volume", "inspect", volume]);
        assert_eq!(told.code, Some(0), "{step}: {}", told.stderr);
    }
    let listed = umiak.run(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.State}} {{.Pid}}"]);
    assert_eq!(listed.code, Some(0), "{step}: {}", listed.stderr);
    for line in listed.stdout.lines() {
        let [id, state, pid] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{step}: {line}") };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie, whose parent was killed, is waiting for somebody to reap it: it has ended.
        let there =
            stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']));
        if state == "running" && !there {
            // It may have ended since.
            let now = umiak.run(&["inspect", "--format", "{{.State.Status}}", id]).stdout;
            assert_ne!(now.trim(), "running", "{step}: {line}");
        }
    }
}

/// Kills a command, its monitor and its init at their steps; `before` makes what it needs. `UMIAK_TEST_STEPS`
/// says how many of the steps are taken: all of them take minutes.
fn sweep(before: &dyn Fn(&Umiak), args: &[&str]) {
    sweep_in(&Umiak::with_busybox(), before, args);
}

fn sweep_in(umiak: &Umiak, before: &dyn Fn(&Umiak), args: &[&str]) {
    if !strace_works(umiak) {
        return;
    }
    before(umiak);
    let all: Vec<(String, u32)> = steps(umiak, args)
        .into_iter()
        .flat_map(|(name, most)| (1..=most).map(move |number| (name.clone(), number)))
        .collect();
    umiak.run(&["rm", "--all", "--force", "--time", "0"]).ok();
    let wanted =
        std::env::var("UMIAK_TEST_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(25_usize);
    let stride = all.len().div_ceil(wanted).max(1);
    let mut killed = 0;
    for (name, number) in all.iter().step_by(stride) {
        let step = format!("{args:?} killed at {name} number {number}");
        before(umiak);
        let inject = format!("inject={name}:signal=KILL:when={number}");
        let trace = format!("trace={name}");
        let status = traced(umiak, &["-o", "/dev/null", "-e", &trace, "-e", &inject], args);
        killed += usize::from(status.signal() == Some(9));
        check_told(umiak, &step);
        // No repair is needed, and what was left is cleared away by what is done anyway.
        let next = umiak.run(&["run", "--rm", "--network", "none", "busybox", "echo", "works"]);
        assert_eq!((next.code, next.stdout.as_str()), (Some(0), "works\n"), "{step}: {}", next.stderr);
        let removed = umiak.run(&["rm", "--all", "--force", "--time", "0"]);
        assert_eq!(removed.code, Some(0), "{step}: {}", removed.stderr);
        if args[0] == "build" {
            // Steps of one whose monitor died with it are for the next one, or for this.
            umiak.run(&["builder", "prune", "-af"]).ok();
        }
        let left = umiak.run(&["ps", "-aq", "--external"]).ok().stdout;
        assert_eq!(left, "", "{step}");
    }
    assert!(killed > 0, "nothing was killed in {} steps", all.len());
    umiak.run(&["run", "--rm", "--network", "none", "busybox", "true"]).ok();
    umiak.check_nothing_left();
}

fn nothing(_: &Umiak) {}

fn created(umiak: &Umiak) {
    umiak.run(&["create", "--name", "box", "--network", "none", "busybox", "true"]).ok();
}

fn running(umiak: &Umiak) {
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sleep", "1000"]);
}

#[test]
fn of_run() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    sweep(&nothing, &["run", "--rm", "--name", "box", "--network", "none", "busybox", "true"]);
}

#[test]
fn of_build() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox AS one\nRUN echo 1 > /one\nFROM one\nCOPY Dockerfile /two\nWORKDIR /three\n";
    umiak.file("Dockerfile", text);
    let dir = umiak.dir.to_str().unwrap().to_owned();
    umiak.file(".dockerignore", "*\n!Dockerfile\n");
    sweep_in(&umiak, &nothing, &["build", "-q", "--network", "none", "-t", "made", &dir]);
    // What comes of it is whole.
    umiak.run(&["build", "-q", "--network", "none", "-t", "made", &dir]).ok();
    let run = ["run", "--rm", "--network", "none", "made", "sh", "-c", "cat /one /two; pwd"];
    umiak.run(&run).ok().says(&format!("1\n{text}/three"));
    umiak.run(&["system", "check"]).ok().says("");
}

#[test]
fn of_run_detached() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    sweep(&nothing, &["run", "-d", "--name", "box", "--network", "none", "-v", "data:/d", "busybox", "true"]);
}

#[test]
fn of_a_restart() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    let words =
        ["run", "-d", "--restart", "on-failure:1", "--name", "box", "--network", "none", "busybox", "false"];
    sweep(&nothing, &words);
}

#[test]
fn of_start() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    sweep(&created, &["start", "box"]);
}

#[test]
fn of_stop() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    sweep(&running, &["stop", "-t", "0", "box"]);
}

#[test]
fn of_exec() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    sweep(&running, &["exec", "box", "true"]);
}

#[test]
fn of_rm() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    sweep(&running, &["rm", "-f", "-t", "0", "box"]);
}

#[test]
fn of_update() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    sweep(&running, &["update", "--restart", "always", "box"]);
}

#[test]
fn of_cp() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    let into = |umiak: &Umiak| {
        umiak.file("many", &"line\n".repeat(50_000));
        running(umiak);
    };
    sweep(&into, &["cp", "many", "box:/tmp/many"]);
    sweep(&running, &["cp", "box:/bin", "taken"]);
}

#[test]
fn of_commit() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    let changed = |umiak: &Umiak| {
        let make =
            ["--name", "box", "--network", "none", "busybox", "sh", "-c", "echo new >/new; sleep 1000"];
        umiak.detached(&make);
        umiak.run(&["exec", "box", "sh", "-c", "until test -s /new; do :; done"]).ok();
    };
    sweep(&changed, &["commit", "-q", "box", "localhost/box:changed"]);
}

#[test]
fn of_volume_commands() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    let none = |umiak: &Umiak| drop(umiak.run(&["volume", "rm", "-f", "data"]).ok());
    let one = |umiak: &Umiak| drop(umiak.run(&["volume", "create", "--ignore", "data"]).ok());
    sweep(&none, &["volume", "create", "--label", "a=b", "data"]);
    sweep(&one, &["volume", "rm", "data"]);
    sweep(&one, &["volume", "prune", "-f", "-a"]);
    let filled = |umiak: &Umiak| {
        none(umiak);
        one(umiak);
        umiak
            .run(&["run", "--rm", "--network", "none", "-v", "data:/d", "busybox", "cp", "-r", "/bin", "/d"])
            .ok();
        umiak.run(&["volume", "export", "-o", "data.tar", "data"]).ok();
    };
    sweep(&filled, &["volume", "import", "data", "data.tar"]);
    sweep(&filled, &["volume", "export", "-o", "again.tar", "data"]);
}

/// Of an ordinary user with subordinate ids, whose maps setuid programs write.
#[test]
fn with_subordinate_ids() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("strace"), Need::Tool("newuidmap"));
    let Some(account) = Account::with_many_ids() else {
        return skip("no user has subordinate ids", true);
    };
    let umiak = Umiak::of_user(account);
    let plain = ["--name", "box", "--network", "none", "busybox"];
    sweep_in(&umiak, &nothing, &[&["run", "--rm"], &plain[..], &["true"]].concat());
    sweep_in(&umiak, &nothing, &["run", "-d", "--name", "box", "-v", "data:/d", "busybox", "true"]);
    sweep_in(&umiak, &nothing, &[&["run", "--rm", "--userns", "keep-id"], &plain[..], &["true"]].concat());
    sweep_in(&umiak, &created, &["start", "box"]);
    sweep_in(&umiak, &running, &["exec", "box", "true"]);
    sweep_in(&umiak, &running, &["rm", "-f", "-t", "0", "box"]);
}
