//! What a configuration says, as the container and the host see it. The comments above the tests name the
//! fields that each proves; `scripts/conformance --fields` makes the table in docs/conformance.md of them.

use std::io::Read;
use std::os::unix::net::UnixListener;

use super::fields::receive;
use super::*;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn root_only(what: &str) -> Option<Bundle> {
    let caller = callers()[0];
    if caller.uid != 0 {
        skip(&format!("only root {what}"), true);
        return None;
    }
    Bundle::new(caller)
}

/// Runs the container in the background; its init's process id.
fn started(b: &Bundle) -> u32 {
    assert!(b.quiet(&["run", "--detach", "--pid-file", "pid", "c"]));
    std::fs::read_to_string(b.dir.join("pid")).unwrap().parse().unwrap()
}

fn outside(program: &str, args: &[&str]) -> String {
    text(&Command::new(program).args(args).output().unwrap().stdout)
}

// spec: root.path, root.readonly, process.args, process.env, process.cwd, hostname
#[test]
fn the_program_is_as_the_configuration_says() {
    each(|b| {
        let script =
            "echo $0 \"$1\"; echo $ONE $HOME $TWO; pwd; cat /proc/sys/kernel/hostname; ls /mark; touch /x";
        b.args(&["sh", "-c", script, "a b", "c  d"]);
        b.config["process"]["env"] = json!(["PATH=/bin", "ONE=1=1", "TWO="]);
        b.config["process"]["cwd"] = json!("/etc");
        b.config["hostname"] = json!("some.name");
        std::fs::write(b.rootfs().join("mark"), "").unwrap();
        std::fs::rename(b.rootfs(), b.dir.join("other root")).unwrap();
        for (path, readonly) in [
            (json!("other root"), true),
            (json!(b.dir.join("other root")), true),
            (json!("other root"), false),
        ] {
            b.config["root"] = json!({"path": path, "readonly": readonly});
            let (out, err, code) = b.run();
            assert_eq!(out, "a b c  d\n1=1 /root\n/etc\nsome.name\n/mark\n", "{err}");
            assert_eq!((code != 0, err.contains("Read-only file system")), (readonly, readonly), "{err}");
        }
        std::fs::rename(b.dir.join("other root"), b.rootfs()).unwrap();
    });
}

// spec: ociVersion, annotations
#[test]
fn the_state_has_version_and_annotations() {
    each(|b| {
        b.args(&["sleep", "100"]);
        b.config["annotations"] = json!({"org.example.key": "a \"value\"", "empty": ""});
        for version in ["1.0.2", "1.3.0", "1.2.1+dev"] {
            b.config["ociVersion"] = json!(version);
            assert!(b.quiet(&["create", "c"]), "{version}");
            let state: Value = serde_json::from_slice(&b.call(&["state", "c"]).stdout).unwrap();
            assert_eq!(
                (&state["ociVersion"], &state["annotations"]),
                (&b.config["ociVersion"], &b.config["annotations"])
            );
            assert!(b.quiet(&["delete", "--force", "c"]));
        }
        for version in ["2.0.0", "0.9.0", "1", "x", ""] {
            b.config["ociVersion"] = json!(version);
            let (_, err, code) = b.run();
            assert!(code == 1 && err.contains("ociVersion"), "{version}: {err}");
        }
    });
}

// spec: process.terminal, process.consoleSize.height, process.consoleSize.width
#[test]
fn a_terminal_of_a_size() {
    each(|b| {
        let path = b.dir.join("console");
        let listener = UnixListener::bind(&path).unwrap();
        own(&path, b.caller);
        b.config["process"]["terminal"] = json!(true);
        b.config["process"]["consoleSize"] = json!({"height": 33, "width": 77});
        b.args(&["sh", "-c", "busybox stty size; busybox tty; exec sleep 100"]);
        assert!(b.quiet(&["run", "--detach", "--console-socket", path.to_str().unwrap(), "c"]));
        let (stream, _) = listener.accept().unwrap();
        let (_, fds) = receive(&stream);
        let mut master = std::fs::File::from(fds.into_iter().next().unwrap());
        let mut said = String::new();
        while !said.contains("/dev/") {
            let mut buffer = [0; 1000];
            let length = master.read(&mut buffer).unwrap();
            said += &text(&buffer[..length]);
        }
        assert!(said.starts_with("33 77\r\n/dev/"), "{said:?}");
    });
}

// spec: process.oomScoreAdj, process.rlimits[].type, process.rlimits[].soft, process.rlimits[].hard
#[test]
fn the_oom_score_and_every_limit() {
    each(|b| {
        b.config["process"]["oomScoreAdj"] = json!(321);
        let limits = [
            ("CPU", "cpu time"),
            ("FSIZE", "file size"),
            ("DATA", "data size"),
            ("STACK", "stack size"),
            ("CORE", "core file size"),
            ("RSS", "resident set"),
            ("NPROC", "processes"),
            ("NOFILE", "open files"),
            ("MEMLOCK", "locked memory"),
            ("AS", "address space"),
            ("LOCKS", "file locks"),
            ("SIGPENDING", "pending signals"),
            ("MSGQUEUE", "msgqueue size"),
            ("NICE", "nice priority"),
            ("RTPRIO", "realtime priority"),
            ("RTTIME", "realtime timeout"),
        ];
        // No more than any caller may have; address space and files enough for the program.
        let value = |name: &str| match name {
            "AS" | "DATA" | "STACK" => 1_u64 << 32,
            "NICE" | "RTPRIO" => 0,
            "MEMLOCK" => 8192,
            _ => 600,
        };
        let list: Vec<Value> = limits
            .iter()
            .map(|(name, _)| {
                json!({"type": format!("RLIMIT_{name}"), "soft": value(name) / 2, "hard": value(name)})
            })
            .collect();
        b.config["process"]["rlimits"] = json!(list);
        let (out, err, code) = b.sh("cat /proc/self/oom_score_adj /proc/self/limits");
        assert_eq!(code, 0, "{err}");
        assert!(out.starts_with("321\n"), "{out}");
        for (name, words) in limits {
            let line = out.lines().find(|line| line.starts_with(&format!("Max {words}"))).unwrap();
            let rest = line.trim_start_matches(&format!("Max {words}"));
            let found: Vec<String> = rest.split_whitespace().take(2).map(str::to_owned).collect();
            assert_eq!(found, [(value(name) / 2).to_string(), value(name).to_string()], "{line}");
        }
    });
}

// spec: process.user.uid, process.user.gid, process.user.additionalGids, process.user.umask
// spec: process.capabilities.permitted, process.capabilities.ambient, process.capabilities.inheritable
#[test]
fn an_ordinary_user_inside_has_ambient_capabilities() {
    let Some(mut b) = root_only("has other ids") else { return };
    b.config["process"]["user"] = json!({"uid": 33, "gid": 44, "umask": 0o77, "additionalGids": [55, 66]});
    let script = "id -u; id -g; id -G; umask; grep ^Cap /proc/self/status";
    let masks = |out: &str| -> Vec<u64> {
        let lines = out.lines().filter(|line| line.starts_with("Cap"));
        lines.map(|line| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()).collect()
    };
    let few = json!(["CAP_CHOWN", "CAP_KILL"]);
    b.config["process"]["capabilities"] = json!({"bounding": few, "permitted": few, "effective": few, "inheritable": few, "ambient": ["CAP_KILL"]});
    let (out, err, _) = b.sh(script);
    assert!(out.starts_with("33\n44\n44 55 66\n0077\n"), "{out}{err}");
    // Inheritable, permitted, effective, bounding, ambient.
    assert_eq!(masks(&out), [0x21, 0x20, 0x20, 0x21, 0x20], "{out}");
    // What is not permitted or not inheritable cannot be ambient.
    for lacking in ["permitted", "inheritable"] {
        let mut other = few.clone();
        other.as_array_mut().unwrap().pop();
        let before = b.config.clone();
        b.config["process"]["capabilities"][lacking] = other;
        if lacking == "permitted" {
            b.config["process"]["capabilities"]["effective"] = json!([]);
        }
        assert_eq!(masks(&b.sh(script).0)[4], 0, "{lacking}");
        b.config = before;
    }
}

// spec: process.capabilities.bounding, process.capabilities.effective, process.noNewPrivileges
#[test]
fn root_inside_has_the_capabilities_that_it_is_given() {
    each(|b| {
        let few = json!(["CAP_CHOWN", "CAP_SYS_CHROOT"]);
        b.config["process"]["capabilities"] = json!({"bounding": few, "permitted": few, "effective": few});
        b.config["root"]["readonly"] = json!(false);
        for (given, expected) in [(true, "1"), (false, "0")] {
            b.config["process"]["noNewPrivileges"] = json!(given);
            b.config["linux"].as_object_mut().unwrap().remove("seccomp");
            let (out, err, _) = b.sh("grep -E '^(Cap|NoNew)' /proc/self/status; busybox chroot / true && echo chroot; busybox chroot /proc true; touch /f; busybox nice -n -5 true");
            for line in [
                "CapEff:\t0000000000040001",
                "CapPrm:\t0000000000040001",
                "CapBnd:\t0000000000040001",
                "chroot",
            ] {
                assert!(out.lines().any(|l| l == line), "{line}: {out}{err}");
            }
            assert!(out.contains(&format!("NoNewPrivs:\t{expected}\n")), "{out}");
            assert!(err.contains("setpriority") || err.contains("nice"), "without CAP_SYS_NICE: {err}");
        }
    });
}

#[test]
fn a_capability_that_root_lacks_is_left_out() {
    let Some(mut b) = root_only("may lack a capability that it could give") else { return };
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).unwrap();
    if u64::from_str_radix(held, 16).unwrap() & 1 << 24 != 0 {
        return skip("this machine's root has CAP_SYS_RESOURCE", true);
    }
    let wanted = json!(["CAP_KILL", "CAP_SYS_RESOURCE"]);
    b.config["process"]["capabilities"] =
        json!({"bounding": wanted, "permitted": wanted, "effective": wanted});
    let (out, err, code) = b.sh("grep CapPrm /proc/self/status");
    assert_eq!((out.as_str(), code), ("CapPrm:\t0000000000000020\n", 0), "{err}");
    assert!(
        err.contains("warning: process.capabilities: \"CAP_SYS_RESOURCE\" is not the caller's to give"),
        "{err}"
    );
    b.args(&["sleep", "100"]);
    assert!(b.quiet(&["run", "--detach", "c"]));
    let output = b.call(&["exec", "c", "grep", "CapEff", "/proc/self/status"]);
    assert_eq!(text(&output.stdout), "CapEff:\t0000000000000020\n", "{output:?}");
}

// spec: process.ioPriority.class, process.ioPriority.priority, process.scheduler.policy, process.scheduler.nice
#[test]
fn priorities_as_the_host_sees_them() {
    each(|b| {
        b.args(&["sleep", "100"]);
        b.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        b.config["process"]["scheduler"] = json!({"policy": "SCHED_IDLE"});
        let pid = started(b).to_string();
        assert_eq!(outside("ionice", &["-p", &pid]).trim(), "best-effort: prio 6");
        assert!(outside("chrt", &["-p", &pid]).contains("SCHED_IDLE"));
        assert!(b.quiet(&["delete", "--force", "c"]));
        b.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
        b.config["process"]["scheduler"] = json!({"policy": "SCHED_OTHER", "nice": 11});
        let pid = started(b).to_string();
        assert_eq!(outside("ionice", &["-p", &pid]).trim(), "idle");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        assert_eq!(stat.split(' ').nth(18), Some("11"), "{stat}");
    });
}

// spec: process.scheduler.priority, process.scheduler.flags
#[test]
fn a_real_time_program() {
    let Some(mut b) = root_only("may have real-time programs") else { return };
    b.config["process"]["scheduler"] =
        json!({"policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    // Fields 40 and 41 are priority and policy: the shell's own, and its child's, which are reset.
    let (out, err, code) = b.sh("read -r line </proc/$$/stat; echo $line; cat /proc/self/stat; true");
    if err.contains("operation not permitted") {
        return skip("this machine's control groups give no real time", true);
    }
    assert_eq!(code, 0, "{err}");
    let of = |line: usize| -> Vec<&str> {
        let line = out.lines().nth(line).unwrap().rsplit_once(") ").unwrap().1;
        line.split(' ').skip(37).take(2).collect()
    };
    assert_eq!((of(0), of(1)), (vec!["3", "2"], vec!["0", "0"]), "{out}");
}

// spec: process.scheduler.runtime, process.scheduler.deadline, process.scheduler.period
#[test]
fn a_program_with_deadlines() {
    let Some(mut b) = root_only("may have programs with deadlines") else { return };
    b.args(&["sleep", "100"]);
    b.config["process"]["scheduler"] = json!({"policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 50_000_000, "period": 100_000_000});
    let (_, err, code) = b.args(&["true"]).run();
    if code != 0 && (err.contains("operation not permitted") || err.contains("busy")) {
        // It got as far as the kernel, which knows the numbers: impossible ones are another error.
        b.config["process"]["scheduler"]["deadline"] = json!(1);
        let (_, err, _) = b.run();
        assert!(err.contains("process.scheduler: setting the policy: invalid argument"), "{err}");
        return skip("this machine gives no deadlines", true);
    }
    assert_eq!(code, 0, "{err}");
    b.args(&["sleep", "100"]);
    let pid = started(&b).to_string();
    let said = outside("chrt", &["-p", &pid]);
    assert!(said.contains("SCHED_DEADLINE") && said.contains("1000000/50000000/100000000"), "{said}");
}

// spec: process.execCPUAffinity.initial, process.execCPUAffinity.final
#[test]
fn execs_run_on_the_processors_that_they_are_given() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return skip("there is one processor only", true);
    }
    each(|b| {
        for (affinity, expected) in [
            (json!({"initial": "0"}), "0"),
            (json!({"initial": "1"}), "1"),
            (json!({"final": "1"}), "1"),
            (json!({"initial": "0", "final": "0-1"}), "0-1"),
        ] {
            b.args(&["sleep", "100"]);
            b.config["process"]["execCPUAffinity"] = affinity.clone();
            assert!(b.quiet(&["run", "--detach", "c"]));
            let output = b.call(&["exec", "c", "grep", "Cpus_allowed_list", "/proc/self/status"]);
            assert_eq!(text(&output.stdout), format!("Cpus_allowed_list:\t{expected}\n"), "{affinity}");
            assert!(b.quiet(&["delete", "--force", "c"]));
        }
    });
}

// spec: linux.namespaces[].type
// spec: linux.uidMappings[].containerID, linux.uidMappings[].hostID, linux.uidMappings[].size
// spec: linux.gidMappings[].containerID, linux.gidMappings[].hostID, linux.gidMappings[].size
#[test]
fn namespaces_and_mappings() {
    let Some(mut b) = root_only("can map any ids") else { return };
    b.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 500_000, "size": 10},
        {"containerID": 70, "hostID": 600_000, "size": 20}]);
    b.config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": 700_000, "size": 30}]);
    let every = ["mount", "pid", "uts", "ipc", "network", "cgroup", "user", "time"];
    let list: Vec<Value> = every.iter().map(|kind| json!({"type": kind})).collect();
    b.config["linux"]["namespaces"] = json!(list);
    let files = ["mnt", "pid", "uts", "ipc", "net", "cgroup", "user", "time"];
    let script = format!(
        "cat /proc/self/uid_map /proc/self/gid_map; cd /proc/self/ns; for i in {}; do readlink $i; done",
        files.join(" ")
    );
    let (out, err, code) = b.sh(&script);
    assert_eq!(code, 0, "{err}");
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[..3], [["0", "500000", "10"], ["70", "600000", "20"], ["0", "700000", "30"]], "{out}");
    for (line, file) in lines[3..].iter().zip(files) {
        let ours = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
        assert_ne!(line[0], ours.to_str().unwrap(), "{file} is its own");
    }
    // What is not named is the caller's.
    for namespace in ["network", "ipc", "cgroup"] {
        b.config["linux"]["namespaces"] = json!(["mount", "pid", "uts"].map(|kind| json!({"type": kind})));
        b.config["linux"].as_object_mut().unwrap().remove("uidMappings");
        b.config["linux"].as_object_mut().unwrap().remove("gidMappings");
        let file = if namespace == "network" { "net" } else { namespace };
        b.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "mqueue");
        let (out, err, _) = b.sh(&format!("readlink /proc/self/ns/{file}"));
        let ours = std::fs::read_link(format!("/proc/self/ns/{file}")).unwrap();
        assert_eq!(out.trim(), ours.to_str().unwrap(), "{err}");
    }
}

// spec: linux.timeOffsets.*.secs, linux.timeOffsets.*.nanosecs
#[test]
fn both_clocks_are_offset() {
    each(|b| {
        b.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        b.config["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1234, "nanosecs": 567}, "boottime": {"secs": 98765, "nanosecs": 43}});
        let (out, err, _) = b.sh("cat /proc/self/timens_offsets");
        let words: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [["monotonic", "1234", "567"], ["boottime", "98765", "43"]], "{err}");
    });
}

// spec: linux.devices[].type, linux.devices[].path, linux.devices[].major, linux.devices[].minor
// spec: linux.devices[].fileMode, linux.devices[].uid, linux.devices[].gid
#[test]
fn devices_of_every_kind() {
    let Some(mut b) = root_only("makes devices") else { return };
    b.config["linux"]["devices"] = json!([
        {"path": "/dev/deep/char", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644, "uid": 3, "gid": 4},
        {"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 3, "fileMode": 0o600},
        {"path": "/dev/block", "type": "b", "major": 7, "minor": 250, "fileMode": 0o660, "gid": 6},
        {"path": "/etc/pipe", "type": "p", "fileMode": 0o622, "uid": 8},
    ]);
    b.config["root"]["readonly"] = json!(false);
    let (out, err, _) = b.sh("stat -c '%F %t %T %a %u %g' /dev/deep/char /dev/unbuffered /dev/block /etc/pipe; busybox head -c 3 /dev/deep/char | busybox od -An -tx1");
    assert_eq!(
        out,
        "character special file 1 5 644 3 4\ncharacter special file 1 3 600 0 0\nblock special file 7 fa 660 0 6\n\
         fifo 0 0 622 8 0\n 00 00 00\n",
        "{err}"
    );
}

// spec: linux.cgroupsPath
#[test]
fn the_control_group_is_where_it_is_wanted() {
    let Some(mut b) = root_only("surely has control groups") else { return };
    let wanted = format!("/umiak-test-{}/deeper", b.id);
    b.config["linux"]["cgroupsPath"] = json!(wanted);
    b.args(&["sleep", "100"]);
    let pid = started(&b);
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned();
    assert!(own.ends_with(&wanted), "{groups}");
    assert!(b.quiet(&["delete", "--force", "c"]));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let tree = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
    let group = Path::new(tree.split(' ').nth(1).unwrap()).join(own.trim_start_matches('/'));
    assert!(!group.exists(), "{}", group.display());
    let _ = std::fs::remove_dir(group.parent().unwrap());
}

// spec: linux.rootfsPropagation
#[test]
fn the_propagation_of_the_root() {
    each(|b| {
        for (word, optional) in
            [("private", ""), ("rprivate", ""), ("slave", ""), ("unbindable", "unbindable")]
        {
            b.config["linux"]["rootfsPropagation"] = json!(word);
            let (out, err, code) =
                b.sh("grep ' / / \\| /rootfs / ' /proc/self/mountinfo || cat /proc/self/mountinfo");
            assert_eq!(code, 0, "{word}: {err}");
            let line = out.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
            let tags = line.split(" - ").next().unwrap().split(' ').skip(6).collect::<Vec<_>>().join(" ");
            assert!(!tags.contains("shared"), "{word}: {line}");
            assert!(tags.contains(optional), "{word}: {line}");
        }
        b.config["linux"]["rootfsPropagation"] = json!("loud");
        let (_, err, code) = b.run();
        assert!(code == 1 && err.contains("linux.rootfsPropagation"), "{err}");
    });
}

// spec: linux.maskedPaths, linux.readonlyPaths
#[test]
fn paths_that_are_hidden_and_read_only() {
    each(|b| {
        std::fs::write(b.rootfs().join("open"), "x").unwrap();
        std::fs::write(b.rootfs().join("closed"), "x").unwrap();
        own(&b.rootfs(), b.caller);
        b.config["root"]["readonly"] = json!(false);
        b.config["linux"]["maskedPaths"] = json!(["/secret", "/closed", "/proc/timer_list"]);
        b.config["linux"]["readonlyPaths"] = json!(["/etc", "/open"]);
        let (out, err, _) = b
            .sh("ls /secret; cat /closed /proc/timer_list; cat /etc/passwd | grep -c root; cat /open; \
             echo y > /open || echo 1; touch /etc/new || echo 2; touch /tmp/new && echo 3");
        assert_eq!(out, "1\nx1\n2\n3\n", "{err}");
    });
}

// spec: linux.seccomp.defaultAction, linux.seccomp.defaultErrnoRet
// spec: linux.seccomp.flags, linux.seccomp.syscalls[].names, linux.seccomp.syscalls[].action
// spec: linux.seccomp.syscalls[].errnoRet, linux.seccomp.syscalls[].args[].index
// spec: linux.seccomp.syscalls[].args[].value, linux.seccomp.syscalls[].args[].valueTwo
// spec: linux.seccomp.syscalls[].args[].op
#[test]
fn the_kernel_filters_as_the_profile_says() {
    each(|b| {
        b.config["root"]["readonly"] = json!(false);
        // The example's own list of allowed calls, without one, and with a number of its own (71 is EPROTO).
        let mut profile = b.config["linux"]["seccomp"].clone();
        for rule in profile["syscalls"].as_array_mut().unwrap() {
            rule["names"].as_array_mut().unwrap().retain(|name| name != "umask");
        }
        profile["defaultErrnoRet"] = json!(71);
        profile["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
        let chmod = |index: u32| {
            json!([
                {"names": ["NAME"], "action": "SCMP_ACT_ERRNO", "errnoRet": 18,
                    "args": [{"index": index, "value": 0o777, "op": "SCMP_CMP_EQ"}]},
                {"names": ["NAME"], "action": "SCMP_ACT_ERRNO", "errnoRet": 27,
                    "args": [{"index": index, "value": 0o2000, "valueTwo": 0o2000, "op": "SCMP_CMP_MASKED_EQ"}]},
            ])
        };
        let rules = profile["syscalls"].as_array_mut().unwrap();
        for rule in rules.iter_mut() {
            rule["names"].as_array_mut().unwrap().retain(|name| !name.as_str().unwrap().contains("chmod"));
        }
        for (name, index) in [("chmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("fchmod", 1)] {
            for mut rule in chmod(index).as_array().unwrap().clone() {
                rule["names"] = json!([name]);
                rules.push(rule);
            }
            for op in [
                json!({"index": index, "value": 0o644, "op": "SCMP_CMP_EQ"}),
                json!({"index": index, "value": 0o600, "op": "SCMP_CMP_LE"}),
            ] {
                rules.push(json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [op]}));
            }
        }
        b.config["linux"]["seccomp"] = profile;
        for no_new_privileges in [true, false] {
            b.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            let (out, err, _) = b.sh(
                "touch /f; for mode in 644 400 777 2770 755; do busybox chmod $mode /f && echo $mode; done; \
                 stat -c %a /f",
            );
            assert_eq!(out, "644\n400\n400\n", "{err}");
            let errors: Vec<&str> = err.lines().filter_map(|line| line.rsplit(": ").next()).collect();
            // EXDEV, EFBIG, and the default's EPROTO.
            assert_eq!(errors, ["Invalid cross-device link", "File too large", "Protocol error"], "{err}");
        }
        b.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls":
            [{"names": ["umask"], "action": "SCMP_ACT_KILL_PROCESS"}]});
        let ended = b.sh("umask 22; echo alive");
        assert_eq!(ended.2, 128 + 31, "{ended:?}");
    });
}

// spec: linux.memoryPolicy.mode, linux.memoryPolicy.nodes, linux.memoryPolicy.flags
#[test]
fn memory_comes_from_where_it_shall() {
    each(|b| {
        b.config["linux"]["memoryPolicy"] =
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
        let (out, err, code) = b.sh("cat /proc/self/numa_maps");
        if err.contains("linux.memoryPolicy") && err.contains("function not implemented") {
            return skip("the kernel has no memory nodes", true);
        }
        assert_eq!(code, 0, "{err}");
        assert!(out.lines().any(|line| line.split(' ').nth(1) == Some("bind=static:0")), "{out}");
    });
}

// spec: linux.sysctl, domainname
#[test]
fn kernel_settings_of_its_namespaces() {
    each(|b| {
        b.config["domainname"] = json!("some.domain");
        b.config["linux"]["sysctl"] =
            json!({"net.ipv4.ip_default_ttl": "33", "kernel/msgmax": "9000", "fs.mqueue.msg_max": "11"});
        let (out, err, _) = b.sh(
            "cd /proc/sys; cat net/ipv4/ip_default_ttl kernel/msgmax fs/mqueue/msg_max kernel/domainname",
        );
        assert_eq!(out, "33\n9000\n11\nsome.domain\n", "{err}");
    });
}

// spec: hooks.prestart[].path, hooks.prestart[].args, hooks.prestart[].env, hooks.prestart[].timeout
// spec: hooks.createRuntime[].path, hooks.createRuntime[].args, hooks.createRuntime[].env
// spec: hooks.createRuntime[].timeout, hooks.createContainer[].path, hooks.createContainer[].args
// spec: hooks.createContainer[].env, hooks.createContainer[].timeout, hooks.startContainer[].path
// spec: hooks.startContainer[].args, hooks.startContainer[].env, hooks.startContainer[].timeout
// spec: hooks.poststart[].path, hooks.poststart[].args, hooks.poststart[].env, hooks.poststart[].timeout
// spec: hooks.poststop[].path, hooks.poststop[].args, hooks.poststop[].env, hooks.poststop[].timeout
#[test]
fn every_hook_has_its_arguments_environment_and_time() {
    each(|b| {
        let log = b.dir.join("log");
        std::fs::write(&log, "").unwrap();
        own(&log, b.caller);
        let all = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
        let hook = |name: &str, then: &str| {
            // startContainer hooks run inside, with the program's own output.
            let into = if name == "startContainer" { String::new() } else { format!(">> {}", log.display()) };
            json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo $0 $1 $MINE {into}; {then}"), name, "one"],
                "env": [format!("MINE=of-{name}"), "PATH=/bin"], "timeout": 1}])
        };
        b.config["hooks"] =
            Value::Object(all.iter().map(|name| ((*name).to_owned(), hook(name, "true"))).collect());
        let (out, err, code) = b.args(&["true"]).run();
        assert_eq!((code, out.as_str()), (0, "startContainer one of-startContainer\n"), "{err}");
        let lines = std::fs::read_to_string(&log).unwrap();
        let expected: String = all
            .iter()
            .filter(|name| **name != "startContainer")
            .map(|name| format!("{name} one of-{name}\n"))
            .collect();
        assert_eq!(lines, expected);
        for name in all {
            b.config["hooks"] = json!({name: hook(name, "exec sleep 60")});
            let (_, err, code) = b.args(&["true"]).run();
            assert!(err.contains("took longer than 1 s"), "{name}: {err}");
            // After the end it is only told.
            assert_eq!(code, i32::from(name != "poststop"), "{name}: {err}");
        }
    });
}

// spec-refused: linux.resources.memory.kernel, linux.resources.memory.kernelTCP
// spec-refused: linux.resources.memory.swappiness, linux.resources.memory.disableOOMKiller
// spec-refused: linux.resources.cpu.realtimeRuntime, linux.resources.cpu.realtimePeriod
// spec-refused: linux.resources.blockIO.leafWeight, linux.resources.blockIO.weightDevice[].leafWeight
// spec-refused: linux.resources.network.classID, linux.resources.network.priorities[].name
// spec-refused: linux.resources.network.priorities[].priority
// spec-refused: linux.resources.rdma.*.hcaHandles, linux.resources.rdma.*.hcaObjects
// spec-refused: linux.personality.flags, linux.intelRdt.closID, linux.intelRdt.schemata
// spec-refused: linux.intelRdt.l3CacheSchema, linux.intelRdt.memBwSchema, linux.intelRdt.enableMonitoring
// spec-refused: process.apparmorProfile, process.selinuxLabel
#[test]
fn what_cannot_be_given_is_refused_by_name() {
    each(|b| {
        let module = |path: &str| Path::new(path).exists();
        let resources = |value: Value| ("/linux/resources", value);
        let mut cases = vec![
            (resources(json!({"memory": {"kernel": 5}})), "memory.kernel"),
            (resources(json!({"memory": {"kernelTCP": 5}})), "memory.kernelTCP"),
            (resources(json!({"memory": {"swappiness": 5}})), "memory.swappiness"),
            (resources(json!({"memory": {"disableOOMKiller": true}})), "memory.disableOOMKiller"),
            (resources(json!({"cpu": {"realtimeRuntime": 5}})), "cpu.realtimeRuntime"),
            (resources(json!({"cpu": {"realtimePeriod": 5}})), "cpu.realtime"),
            (resources(json!({"blockIO": {"leafWeight": 50}})), "blockIO.leafWeight"),
            (
                resources(json!({"blockIO": {"weightDevice": [{"major": 7, "minor": 0, "leafWeight": 50}]}})),
                "blockIO.leafWeight",
            ),
            (resources(json!({"network": {"classID": 5}})), "network"),
            (resources(json!({"network": {"priorities": [{"name": "lo", "priority": 5}]}})), "network"),
            (("/linux/personality", json!({"domain": "LINUX", "flags": ["x"]})), "linux.personality.flags"),
        ];
        if !module("/sys/class/infiniband") {
            cases.push((resources(json!({"rdma": {"mlx4_0": {"hcaHandles": 3}}})), "rdma"));
            cases.push((resources(json!({"rdma": {"mlx4_0": {"hcaObjects": 3}}})), "rdma"));
        }
        if !module("/sys/fs/resctrl/schemata") {
            let rdt = |value: Value| (("/linux/intelRdt", value), "linux.intelRdt");
            cases.push(rdt(json!({"closID": "class"})));
            cases.push(rdt(json!({"schemata": ["L3:0=1"]})));
            cases.push(rdt(json!({"l3CacheSchema": "L3:0=1"})));
            cases.push(rdt(json!({"memBwSchema": "MB:0=50"})));
            cases.push(rdt(json!({"enableMonitoring": true})));
        }
        if !module("/sys/kernel/security/apparmor") {
            cases.push((
                ("/process/apparmorProfile", json!("p")),
                "process.apparmorProfile: AppArmor is not there",
            ));
        }
        if !module("/sys/fs/selinux/enforce") {
            cases.push((("/process/selinuxLabel", json!("l")), "process.selinuxLabel: SELinux is not there"));
        }
        let good = b.args(&["true"]).config.clone();
        for ((pointer, value), words) in cases {
            b.config = good.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            b.config.pointer_mut(parent).unwrap()[key] = value.clone();
            let (_, err, code) = b.run();
            let mut lines = err.lines();
            assert!(
                code == 1 && lines.next().is_some_and(|line| line.contains(words)),
                "{value}: {code} {err}"
            );
            assert!(!b.dir.join("state").join(&b.id).exists(), "{value}");
        }
        b.config = good;
    });
}

// spec: mounts[].destination, mounts[].source, mounts[].type, mounts[].options
#[test]
fn mounts_have_their_place_type_source_and_options() {
    each(|b| {
        let source = b.dir.join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "x").unwrap();
        own(&source, b.caller);
        b.config["root"]["readonly"] = json!(false);
        let mounts = b.config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/new/place", "type": "tmpfs", "source": "named",
            "options": ["nosuid", "nodev", "noexec", "ro", "size=64k", "mode=711"]}));
        // Relative to the bundle.
        mounts.push(json!({"destination": "/b", "type": "none", "source": "source", "options": ["bind", "ro", "nosuid"]}));
        let (out, err, _) = b.sh("cat /b/file; echo; stat -c %a /new/place; grep -E ' (/new/place|/b) ' /proc/self/mountinfo; touch /b/x");
        assert!(out.starts_with("x\n711\n") && err.contains("Read-only"), "{out}{err}");
        let line = |target: &str| out.lines().find(|line| line.contains(target)).unwrap().to_owned();
        let tmpfs = line(" /new/place ");
        assert!(
            tmpfs.contains(" ro,nosuid,nodev,noexec")
                && tmpfs.contains(" - tmpfs named ")
                && tmpfs.contains("size=64k"),
            "{tmpfs}"
        );
        assert!(line(" /b ").contains(" ro,nosuid"), "{out}");
    });
}
