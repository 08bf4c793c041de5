//! A runtime that is killed at any step: `list` tells the truth, `delete --force` clears all away.

use super::errors::assert_nothing_left;
use super::*;

/// Calls that concern only the process's own memory and signals: between them nothing has changed.
const IDLE: [&str; 14] = [
    "execve",
    "brk",
    "mmap",
    "mprotect",
    "munmap",
    "rt_sigaction",
    "sigaltstack",
    "arch_prctl",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "prlimit64",
    "sched_getaffinity",
    "getrandom",
];

/// A command under strace with these options. The init is followed by nobody: only the runtime itself is
/// traced.
fn traced(b: &Bundle, options: &[&str], args: &[&str]) -> std::process::ExitStatus {
    let plain = b.command(args);
    let mut command = Command::new("strace");
    command.arg("-qq").args(options).arg(plain.get_program());
    command.args(plain.get_args()).current_dir(&b.dir);
    if b.caller.uid != rustix::process::geteuid().as_raw() {
        command.uid(b.caller.uid).gid(b.caller.gid).env("HOME", "/");
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
}

/// Kills a command at the n-th use of a call; whether it came so far.
fn killed(b: &Bundle, call: &str, n: u32, args: &[&str]) -> bool {
    let inject = format!("inject={call}:signal=KILL:when={n}");
    let status = traced(b, &["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject], args);
    // strace ends as its tracee did.
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

/// The steps of a command: its system calls in their order, each with how often it was used so far.
fn steps(b: &Bundle, args: &[&str]) -> Vec<(String, u32)> {
    let file = b.dir.join("trace");
    std::fs::write(&file, "").unwrap();
    own(&file, b.caller);
    assert!(traced(b, &["-o", file.to_str().unwrap()], args).success(), "{args:?}");
    let mut counts = std::collections::HashMap::<String, u32>::new();
    let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
    let names = text.lines().filter_map(|line| line.split_once('(')).map(|(name, _)| name.to_owned());
    let names = names.filter(|name| name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_'));
    let steps = names.map(|name| {
        let count = counts.entry(name.clone()).or_default();
        *count += 1;
        (name, *count)
    });
    steps.filter(|(name, _)| !IDLE.contains(&name.as_str()) && name != "exit_group").collect()
}

/// What an exec leaves has lost its parent: it goes when the machine's first process has reaped it,
/// for which some take their time.
const FEW: usize = 5;

fn strace_works(b: &Bundle) -> bool {
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !traced.is_ok_and(|status| status.success()) || !b.dir.exists() {
        skip("strace does not work", false);
        return false;
    }
    true
}

/// What `list` says of the container must be what the kernel says of its init.
fn assert_list_is_true(b: &Bundle, what: &str) {
    let output = b.call(&["list", "--format", "json"]);
    assert!(output.status.success(), "{what}: {output:?}");
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    for entry in list.as_array().unwrap() {
        let alive = |pid: &Value| Path::new("/proc").join(pid.to_string()).exists();
        match entry["status"].as_str().unwrap() {
            "stopped" => assert_eq!(entry["pid"], 0, "{what}"),
            _ => assert!(alive(&entry["pid"]), "{what}: {entry}"),
        }
    }
}

/// Kills `args` at every `stride`-th step, having done `before`; afterwards all commands work, and
/// everything goes away.
fn at_every_step(b: &Bundle, before: &[&[&str]], args: &[&str], stride: usize) {
    let prepare = || {
        for args in before {
            assert!(b.quiet(args), "{args:?}");
        }
    };
    prepare();
    let steps = steps(b, args);
    b.quiet(&["delete", "--force", "c"]);
    assert_nothing_left(b, args[0]);
    assert!(steps.len() > 30, "{} steps of {}", steps.len(), args[0]);
    let mut kills = 0;
    for (call, n) in steps.iter().step_by(stride) {
        prepare();
        let what = format!("{} killed at {call} {n}", args[0]);
        kills += usize::from(killed(b, call, *n, args));
        assert_list_is_true(b, &what);
        let state = b.call(&["state", "c"]);
        let said = String::from_utf8_lossy(&state.stderr).into_owned();
        assert!(state.status.success() || said.contains("does not exist"), "{what}: {said}");
        assert!(b.quiet(&["delete", "--force", "c"]), "{what}");
        assert_nothing_left(b, &what);
    }
    // A run may take a few steps less than the one before.
    assert!(kills * 10 >= steps.len() / stride * 9, "{} was killed {kills} times", args[0]);
}

#[test]
fn a_create_killed_at_any_step() {
    each(|b| {
        if strace_works(b) {
            b.args(&["sleep", "100"]);
            at_every_step(b, &[], &["create", "c"], 1);
            // What was left is in nobody's way.
            assert!(b.quiet(&["create", "c"]) && b.quiet(&["delete", "--force", "c"]));
        }
    });
}

#[test]
fn a_start_killed_at_any_step() {
    each(|b| {
        if strace_works(b) {
            b.args(&["sleep", "100"]);
            at_every_step(b, &[&["create", "c"]], &["start", "c"], 1);
        }
    });
}

#[test]
fn an_exec_killed_at_any_step() {
    each(|b| {
        if strace_works(b) {
            b.args(&["sleep", "100"]);
            at_every_step(b, &[&["run", "--detach", "c"]], &["exec", "--detach", "c", "true"], FEW);
        }
    });
}

#[test]
fn a_delete_killed_at_any_step() {
    each(|b| {
        if strace_works(b) {
            b.args(&["sleep", "100"]);
            at_every_step(b, &[&["run", "--detach", "c"]], &["delete", "--force", "c"], 1);
        }
    });
}

#[test]
fn a_run_killed_at_any_step() {
    each(|b| {
        if strace_works(b) {
            b.args(&["sleep", "100"]);
            at_every_step(b, &[], &["run", "--detach", "c"], 3);
        }
    });
}
