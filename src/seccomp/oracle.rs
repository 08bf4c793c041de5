//! Our filters against libseccomp's, which every other engine uses: both are run on every system call
//! number, with arguments around every value that a rule names.

use std::collections::BTreeSet;
use std::path::Path;

use oci_spec::runtime::LinuxSeccomp;

use super::interpret::{Call, run};
use super::numbers::Architecture;
use super::{compile, default_profile};
use crate::sys::seccomp::Instruction;

#[path = "../../tests/common/skip.rs"]
mod skip;

/// Writes the program that libseccomp makes of a profile.
const LIBSECCOMP: &str = r#"
import json, sys, seccomp
profile = json.load(open(sys.argv[1]))
def action(name, errno):
    return {"SCMP_ACT_ERRNO": seccomp.ERRNO(1 if errno is None else errno), "SCMP_ACT_ALLOW": seccomp.ALLOW,
            "SCMP_ACT_KILL": seccomp.KILL, "SCMP_ACT_LOG": seccomp.LOG}[name]
compare = {"SCMP_CMP_" + name: getattr(seccomp, name) for name in ("EQ", "NE", "LT", "LE", "GE", "GT", "MASKED_EQ")}
default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
made = seccomp.SyscallFilter(default)
for rule in profile["syscalls"]:
    act = action(rule["action"], rule.get("errnoRet"))
    tests = rule.get("args") or []
    # Several tests of one argument are alternatives.
    several = len({t["index"] for t in tests}) < len(tests)
    for group in [[t] for t in tests] if several else [tests]:
        args = [seccomp.Arg(t["index"], compare[t["op"]], t["value"], t.get("valueTwo") or 0) for t in group]
        for name in rule["names"]:
            try:
                act == default or made.add_rule(act, name, *args)
            except (RuntimeError, ValueError):
                # A call that this libseccomp does not know.
                print(name)
made.export_bpf(open(sys.argv[2], "wb"))
"#;

/// libseccomp's program, and the names that it does not know.
#[allow(clippy::disallowed_methods, reason = "a test may start programs")]
fn theirs(profile: &LinuxSeccomp, dir: &Path) -> Option<(Vec<Instruction>, BTreeSet<String>)> {
    let (input, output) = (dir.join("profile.json"), dir.join("program"));
    std::fs::write(&input, serde_json::to_vec(profile).unwrap()).unwrap();
    let python = std::process::Command::new("/usr/bin/python3")
        .args(["-c", LIBSECCOMP])
        .args([&input, &output])
        .output()
        .ok()
        .filter(|output| {
            output.status.success() || !String::from_utf8_lossy(&output.stderr).contains("ModuleNotFound")
        })?;
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let bytes = std::fs::read(&output).unwrap();
    let word = |b: &[u8]| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]);
    let program = bytes
        .chunks_exact(8)
        .map(|b| Instruction { code: u16::from_ne_bytes([b[0], b[1]]), jt: b[2], jf: b[3], k: word(&b[4..]) })
        .collect();
    let unknown = String::from_utf8_lossy(&python.stdout).lines().map(str::to_owned).collect();
    Some((program, unknown))
}

/// Arguments that tell rules apart: around each value that one compares with.
fn arguments(profile: &LinuxSeccomp) -> Vec<[u64; 6]> {
    let mut all = vec![[0; 6], [1; 6], [u64::MAX; 6]];
    for test in profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten()) {
        for value in [test.value(), test.value_two().unwrap_or(0)] {
            for near in [value, value.wrapping_add(1), value.wrapping_sub(1), value | 1 << 32, !value] {
                let mut arguments = [0; 6];
                arguments[test.index()] = near;
                all.push(arguments);
            }
        }
    }
    all
}

fn agree(what: &str, profile: &LinuxSeccomp, dir: &Path) -> bool {
    let Some((theirs, unknown)) = theirs(profile, dir) else { return false };
    let ours = compile(profile).unwrap();
    let named: BTreeSet<&str> = profile
        .syscalls()
        .iter()
        .flatten()
        .flat_map(|rule| rule.names().iter().map(String::as_str))
        .collect();
    let mut compared = 0;
    for (name, number) in Architecture::NATIVE.calls() {
        // What neither names, but is newer than what the profile knows, is unknown for us (ENOSYS).
        if unknown.contains(name) || !named.contains(name) {
            continue;
        }
        for arguments in arguments(profile) {
            let call = Call { number, architecture: Architecture::NATIVE.audit(), arguments };
            let (our, their) = (run(&ours.program, &call).0, run(&theirs, &call).0);
            assert_eq!(our, their, "{what}: {name}({arguments:x?})");
            compared += 1;
        }
    }
    assert!(compared > 1000, "{compared}");
    true
}

#[test]
fn libseccomp_says_the_same() {
    let dir = std::env::temp_dir().join(format!("umiak-seccomp-{:x}", crate::sys::atomic::random().unwrap()));
    std::fs::create_dir(&dir).unwrap();
    let mut there = agree("the default profile", &default_profile(&Default::default()), &dir);
    let names = ["SYS_ADMIN", "SYS_CHROOT", "NET_ADMIN"];
    let all = names.iter().filter_map(|name| name.parse().ok()).collect();
    there &= agree("the default profile with capabilities", &default_profile(&all), &dir);
    let podman = ["/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json"];
    if let Some(content) = podman.iter().find_map(|path| std::fs::read_to_string(path).ok()) {
        let capabilities: Vec<String> = vec!["CHOWN".into(), "SYS_CHROOT".into()];
        let conditions =
            super::file::Conditions { capabilities: &capabilities, architecture: "amd64", kernel: (6, 1) };
        there &= agree("Podman's profile", &super::file::parse(&content, &conditions).unwrap(), &dir);
    }
    std::fs::remove_dir_all(&dir).unwrap();
    if !there {
        skip::skip("python3-seccomp is not installed", false);
    }
}
