//! A runtime that is killed at any step: `list` tells the truth, `delete --force` clears all away.

use super::errors::assert_nothing_left;
use super::*;

/// System calls whose n-th use kills the runtime; all but the last few steps of each command use
/// one of them.
const CALLS: [&str; 12] = [
    "clone3",
    "socketpair",
    "pidfd_open",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "openat",
    "mkdir",
    "rename,renameat2,renameat",
    "unlink,unlinkat",
    "socket",
    "connect",
];

const ALL: &[u32] = &[1, 2, 3, 4, 5, 6, 8, 11, 15, 20, 26, 33];
/// What an exec leaves has lost its parent: it goes when the machine's first process has reaped it,
/// for which some take their time.
const FEW: &[u32] = &[1, 2, 4, 8];

/// Runs a command under strace, which kills it at the n-th use of a call; whether it was killed.
fn killed(b: &Bundle, call: &str, n: u32, args: &[&str]) -> bool {
    let plain = b.command(args);
    let mut command = Command::new("strace");
    // The init is followed by nobody: only the runtime itself is traced.
    command.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    command.args(["-e", &format!("inject={call}:signal=KILL:when={n}")]).arg(plain.get_program());
    command.args(plain.get_args()).current_dir(&b.dir);
    if b.caller.uid != rustix::process::geteuid().as_raw() {
        command.uid(b.caller.uid).gid(b.caller.gid).env("HOME", "/");
    }
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    // strace ends as its tracee did.
    std::os::unix::process::ExitStatusExt::signal(&status) == Some(9)
}

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

/// Kills `args` at every step, having done `before`; afterwards everything must go away.
fn at_every_step(b: &Bundle, before: &[&[&str]], args: &[&str], steps: &[u32]) {
    let mut kills = 0;
    for call in CALLS {
        for n in steps.iter().copied() {
            for args in before {
                assert!(b.quiet(args), "{args:?}");
            }
            let what = format!("{} killed at {call} {n}", args[0]);
            let was_killed = killed(b, call, n, args);
            assert_list_is_true(b, &what);
            assert!(b.quiet(&["delete", "--force", "c"]), "{what}");
            assert_nothing_left(b, &what);
            if !was_killed {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills >= 5, "{} was killed {kills} times", args[0]);
}

#[test]
fn a_create_killed_at_any_step() {
    each(|b| {
        if strace_works(b) {
            b.args(&["sleep", "100"]);
            at_every_step(b, &[], &["create", "c"], ALL);
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
            at_every_step(b, &[&["create", "c"]], &["start", "c"], ALL);
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
            at_every_step(b, &[&["run", "--detach", "c"]], &["delete", "--force", "c"], ALL);
        }
    });
}
