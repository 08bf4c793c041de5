//! Fields of the specification that set something for the process or the kernel.

use std::io::Read;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};

use serde_json::{Value, json};

use super::*;

/// Receives bytes and the descriptors that come with them.
pub fn receive(stream: &UnixStream) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; 65536];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut parts = [std::io::IoSliceMut::new(&mut bytes)];
    let got =
        rustix::net::recvmsg(stream, &mut parts, &mut control, rustix::net::RecvFlags::empty()).unwrap();
    let fds = control
        .drain()
        .filter_map(|message| match message {
            rustix::net::RecvAncillaryMessage::ScmRights(fds) => Some(fds.collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    bytes.truncate(got.bytes);
    (bytes, fds)
}

#[test]
fn scheduling_and_memory_policy() {
    each(|b| {
        b.config["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
        b.config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_IDLE", "priority": 0});
        b.config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_PREFERRED", "nodes": "0"});
        // Field 41 is the policy, 19 the nice value.
        let (out, err, code) = b.sh("cat /proc/self/stat; cat /proc/self/numa_maps | grep -c prefer");
        if err.contains("linux.memoryPolicy") && err.contains("function not implemented") {
            skip("the kernel has no memory nodes", true);
            return;
        }
        assert_eq!(code, 0, "{out}{err}");
        let fields: Vec<&str> = out.lines().next().unwrap().split(' ').collect();
        assert_eq!((fields[40], fields[18]), ("3", "7"), "{out}");
        assert!(out.lines().last().unwrap().parse::<u32>().is_ok_and(|n| n > 0), "{out}");
        // The policy is the container's, and an exec is no child of its init.
        b.args(&["sleep", "100"]);
        assert!(b.quiet(&["run", "--detach", "c"]));
        let output = b.call(&["exec", "c", "grep", "-c", "prefer", "/proc/self/numa_maps"]);
        assert!(output.status.success(), "{output:?}");
    });
}

#[test]
fn a_limit_that_was_asked_for_is_never_dropped() {
    each(|b| {
        let run = |b: &mut Bundle, resources: Value| {
            b.config["linux"]["resources"] = resources;
            b.args(&["true"]);
            let output = b.call(&["--cgroup-manager", "disabled", "run", "c"]);
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        // What engines put into every configuration, and what is no limit, is not asked for.
        for usual in [
            json!({"pids": {"limit": 2048}}),
            json!({"pids": {"limit": -1}}),
            json!({"memory": {"limit": -1}}),
        ] {
            assert_eq!(run(b, usual.clone()), (true, String::new()), "{usual}");
        }
        for (wanted, named) in [
            (json!({"pids": {"limit": 5}}), "pids"),
            (json!({"pids": {"limit": 2047}}), "pids"),
            (json!({"pids": {"limit": 2049}}), "pids"),
            (json!({"memory": {"limit": 100_000_000}}), "memory"),
            (json!({"cpu": {"quota": 10_000, "period": 100_000}}), "cpu"),
            (json!({"cpu": {"cpus": "0"}}), "cpu"),
            (json!({"unified": {"memory.high": "1000000"}}), "unified"),
        ] {
            let (ok, err) = run(b, wanted.clone());
            assert!(!ok && err.starts_with("error: ") && err.contains(named), "{wanted}: {err}");
            assert!(err.contains("control groups are switched off"), "{wanted}: {err}");
            assert!(!b.dir.join("state").join(&b.id).exists());
        }
    });
}

#[test]
fn sysctls_capabilities_and_domain_name() {
    each(|b| {
        b.config["domainname"] = json!("domain");
        b.config["process"]["capabilities"] = json!({"bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_FUTURE"],
            "effective": ["CAP_KILL"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "inheritable": ["CAP_CHOWN"],
            "ambient": ["CAP_CHOWN"]});
        b.config["process"]["noNewPrivileges"] = json!(false);
        b.config["linux"]["sysctl"] = json!({"kernel.shm_rmid_forced": "1"});
        let (out, err, _) = b.sh(
            "cat /proc/sys/kernel/domainname /proc/sys/kernel/shm_rmid_forced; grep Cap /proc/self/status",
        );
        assert!(out.starts_with("domain\n1\n"), "{out}{err}");
        assert!(err.contains("warning: process.capabilities.bounding: \"CAP_FUTURE\" is unknown"), "{err}");
        let set = |name: &str| {
            let line = out.lines().find(|l| l.starts_with(name)).unwrap();
            u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap()
        };
        assert_eq!(set("CapBnd"), 1 << 5 | 1);
        assert_eq!((set("CapInh"), set("CapAmb")), (1, 1));
    });
}

// spec: linux.seccomp.listenerPath, linux.seccomp.listenerMetadata
#[test]
fn a_seccomp_listener_gets_the_process() {
    each(|b| {
        let path = b.dir.join("listener");
        let listener = UnixListener::bind(&path).unwrap();
        own(&path, b.caller);
        b.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path,
            "listenerMetadata": "meta", "syscalls": [{"names": ["swapon"], "action": "SCMP_ACT_NOTIFY"}]});
        for no_new_privileges in [true, false] {
            b.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            if !no_new_privileges && b.caller.uid == 0 {
                b.config["process"]["capabilities"]["bounding"] = json!(["CAP_SYS_ADMIN"]);
            }
            b.args(&["sleep", "100"]);
            assert!(b.quiet(&["create", "c"]));
            let (stream, _) = listener.accept().unwrap();
            let (bytes, fds) = receive(&stream);
            let state: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(state["fds"], json!(["seccompFd"]));
            assert_eq!(state["metadata"], "meta");
            assert_eq!(
                (&state["state"]["id"], &state["state"]["status"]),
                (&json!(b.id), &json!("creating"))
            );
            assert_eq!(state["pid"], state["state"]["pid"]);
            let link =
                std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fds[0])));
            assert_eq!(link.unwrap().to_str(), Some("anon_inode:seccomp notify"));
            assert!(b.quiet(&["start", "c"]));
            // An exec has a filter of its own.
            let child = b.command(&["exec", "c", "true"]).spawn().unwrap();
            let (stream, _) = listener.accept().unwrap();
            let (bytes, _) = receive(&stream);
            let state: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(state["state"]["status"], "running");
            assert!(child.wait_with_output().unwrap().status.success());
            assert!(b.quiet(&["delete", "--force", "c"]));
        }
        // Nobody listens any more, also no process that another test is just making: nothing is made.
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
        let (_, err, code) = b.args(&["true"]).run();
        assert!(code == 1 && err.contains("sending the seccomp listener"), "{err}");
    });
}

#[test]
fn a_filter_may_deny_what_we_call_ourselves() {
    each(|b| {
        b.config["process"]["noNewPrivileges"] = json!(false);
        b.config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["getcwd", "swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71}]});
        // EPROTO.
        let (_, err, code) = b.args(&["busybox", "pwd"]).run();
        assert!(code == 1 && err.contains("Protocol error"), "{code} {err}");
        b.config["process"]["noNewPrivileges"] = json!(true);
        let (_, err, code) = b.args(&["busybox", "pwd"]).run();
        assert!(code == 1 && err.contains("Protocol error"), "{code} {err}");
    });
}

// spec: linux.netDevices.*.name
#[test]
fn a_network_device_moves_in_with_its_addresses() {
    if rustix::process::geteuid().as_raw() != 0 {
        return skip("only root can move network devices", true);
    }
    let mut b = Bundle::new(callers()[0]).unwrap();
    let name = format!("um{}", std::process::id() % 100_000);
    let ip = |args: &[&str]| Command::new("ip").args(args).output();
    match ip(&["link", "add", &name, "type", "veth", "peer", "name", &format!("{name}p")]) {
        Ok(made) if made.status.success() => {}
        _ => return skip("ip cannot make a veth device", false),
    }
    ip(&["addr", "add", "10.231.7.9/24", "dev", &name]).unwrap();
    b.config["linux"]["netDevices"] = json!({&name: {"name": "moved0"}});
    let (out, err, code) = b.sh(
        "cat /sys/class/net/moved0/flags; cat /proc/net/fib_trie | grep -c 10.231.7.9; ls /sys/class/net",
    );
    let left = ip(&["link", "del", &name]).unwrap().status.success();
    assert_eq!(code, 0, "{out}{err}");
    let lines: Vec<&str> = out.lines().collect();
    let flags = u32::from_str_radix(lines[0].trim_start_matches("0x"), 16).unwrap();
    assert!(flags & 1 != 0, "it is up: {out}");
    assert_ne!(lines[1], "0", "{out}");
    assert!(!left, "it is gone from here");
    b.config["linux"]["netDevices"] = json!({"nosuch0": {}});
    let (_, err, code) = b.args(&["true"]).run();
    assert!(
        code == 1 && err.contains("linux.netDevices: moving \"nosuch0\" in: no such device")
            || err.contains("no such device"),
        "{err}"
    );
}

#[test]
fn listening_sockets_are_told_of() {
    each(|b| {
        b.args(&["sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd"]);
        let output = b.command(&["run", "c"]).env("LISTEN_FDS", "2").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("2 1\n"), "{output:?}");
    });
}

#[test]
fn a_container_says_when_it_is_ready() {
    each(|b| {
        let path = b.dir.join("manager");
        let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        own(&path, b.caller);
        b.args(&["sh", "-c", "echo $NOTIFY_SOCKET; ls $NOTIFY_SOCKET; exec sleep 100"]);
        let run = |b: &Bundle, args: &[&str]| {
            let mut command = b.command(args);
            command.env("NOTIFY_SOCKET", &path).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        };
        let mut child = run(b, &["run", "--detach", "c"]);
        let inside = b.dir.join("state").join(&b.id).join("notify/notify");
        for _ in 0..500 {
            if inside.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let container = std::os::unix::net::UnixDatagram::unbound().unwrap();
        container.connect(&inside).unwrap();
        container.send(b"STOPPING=1").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(child.try_wait().unwrap().is_none(), "it is not ready yet");
        container.send(b"STATUS=x\nREADY=1\nMAINPID=1").unwrap();
        let mut buffer = [0; 100];
        let length = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        let length = manager.recv(&mut buffer).unwrap();
        let state: Value = serde_json::from_slice(&b.call(&["state", "c"]).stdout).unwrap();
        assert_eq!(String::from_utf8_lossy(&buffer[..length]), format!("MAINPID={}", state["pid"]));
        assert!(child.wait().unwrap().success());
        assert!(b.quiet(&["delete", "--force", "c"]));
    });
}

// spec: linux.personality.domain
#[test]
#[cfg(target_arch = "x86_64")]
fn the_execution_domain_is_that_of_every_process() {
    each(|b| {
        b.config["linux"]["personality"] = json!({"domain": "LINUX32"});
        b.args(&["sh", "-c", "busybox uname -m; exec sleep 100"]);
        let log = std::fs::File::create(b.dir.join("out")).unwrap();
        assert!(b.command(&["run", "--detach", "c"]).stdout(log).status().unwrap().success());
        let output = b.call(&["exec", "c", "busybox", "uname", "-m"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "i686\n");
        for _ in 0..200 {
            if std::fs::read_to_string(b.dir.join("out")).unwrap() == "i686\n" {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{}", std::fs::read_to_string(b.dir.join("out")).unwrap());
    });
}

#[test]
fn a_missing_working_directory_is_made() {
    each(|b| {
        b.config["process"]["cwd"] = json!("/new/dir");
        for readonly in [true, false] {
            b.config["root"]["readonly"] = json!(readonly);
            assert_eq!(b.sh("pwd").0, "/new/dir\n");
        }
    });
}

// spec-refused: process.apparmorProfile, process.selinuxLabel
#[test]
fn labels_need_a_kernel_that_has_them() {
    each(|b| {
        let missing = |b: &mut Bundle, what: &str| {
            let (_, err, code) = b.args(&["true"]).run();
            assert!(code == 1 && err.contains("is not there, or switched off"), "{what}: {err}");
        };
        let good = b.config.clone();
        if !Path::new("/sys/kernel/security/apparmor").exists() {
            b.config["process"]["apparmorProfile"] = json!("p");
            missing(b, "AppArmor");
            // What is not confined needs nobody to confine it.
            b.config["process"]["apparmorProfile"] = json!("unconfined");
            assert_eq!(b.args(&["true"]).run().2, 0);
        }
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            b.config = good.clone();
            b.config["process"]["selinuxLabel"] = json!("system_u:system_r:container_t:s0");
            missing(b, "selinuxLabel");
            // That of files says what labelled processes may do; without any it is only told.
            b.config = good.clone();
            b.config["linux"]["mountLabel"] = json!("system_u:object_r:container_file_t:s0");
            let (_, err, code) = b.args(&["true"]).run();
            assert!(code == 0 && err.starts_with("warning: linux.mountLabel: SELinux is not there"), "{err}");
        }
        b.config = good;
    });
}

#[test]
fn hooks_that_fail_stop_what_they_stand_before() {
    each(|b| {
        let log = b.dir.join("ended");
        let no = json!([{"path": "/bin/false"}]);
        let touch =
            json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo x >> {}", log.display())]}]);
        for name in ["prestart", "createRuntime", "createContainer", "startContainer", "poststart"] {
            let no = if name == "startContainer" {
                json!([{"path": "/bin/sh", "args": ["sh", "-c", "exit 1"]}])
            } else {
                no.clone()
            };
            b.config["hooks"] = json!({ name: no });
            let (out, err, code) = b.args(&["sleep", "100"]).run();
            assert!(code == 1 && out.is_empty() && err.starts_with("error: "), "{name}: {code} {err}");
            assert_eq!(std::fs::read_dir(b.dir.join("state")).unwrap().count(), 0, "{name}");
        }
        // What comes after everything is only warned of, and the rest still runs.
        b.config["hooks"] = json!({"poststop": [no[0].clone(), touch[0].clone()]});
        let (_, err, code) = b.args(&["true"]).run();
        assert!(code == 0 && err.contains("warning: hook \"/bin/false\" failed"), "{code} {err}");
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "x\n");
        // Of a start, too.
        b.config["hooks"] = json!({"poststart": no});
        b.args(&["sleep", "100"]);
        assert!(b.quiet(&["create", "c"]) && !b.quiet(&["start", "c"]));
        let state: Value = serde_json::from_slice(&b.call(&["state", "c"]).stdout).unwrap();
        assert_eq!(state["status"], "stopped");
        assert!(b.quiet(&["delete", "c"]));
    });
}

#[test]
fn a_container_without_a_process_is_made_but_not_started() {
    each(|b| {
        b.config.as_object_mut().unwrap().remove("process");
        assert!(b.quiet(&["create", "c"]));
        let output = b.call(&["start", "c"]);
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.starts_with("error: process: "), "{text}");
        assert!(b.quiet(&["delete", "--force", "c"]));
    });
}

#[test]
fn a_pidfd_is_sent() {
    each(|b| {
        let path = b.dir.join("pidfd.sock");
        let listener = UnixListener::bind(&path).unwrap();
        own(&path, b.caller);
        b.args(&["sleep", "100"]);
        let socket = path.to_str().unwrap();
        assert!(b.quiet(&["create", "--pidfd-socket", socket, "c"]));
        let (stream, _) = listener.accept().unwrap();
        let (_, fds) = receive(&stream);
        let fdinfo = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&fds[0]));
        let mut text = String::new();
        std::fs::File::open(fdinfo).unwrap().read_to_string(&mut text).unwrap();
        let state: Value = serde_json::from_slice(&b.call(&["state", "c"]).stdout).unwrap();
        assert!(text.contains(&format!("Pid:\t{}\n", state["pid"])), "{text}");
        assert!(b.quiet(&["delete", "--force", "c"]));
        rustix::net::shutdown(&listener, rustix::net::Shutdown::Both).unwrap();
        assert!(!b.quiet(&["create", "--pidfd-socket", socket, "c"]));
        assert!(!b.dir.join("state").join(&b.id).exists());
    });
}

#[test]
fn an_exec_runs_where_it_is_told_to() {
    each(|b| {
        b.args(&["sleep", "100"]);
        b.config["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
        assert!(b.quiet(&["run", "--detach", "c"]));
        let output = b.call(&["exec", "c", "grep", "Cpus_allowed_list", "/proc/self/status"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "Cpus_allowed_list:\t0\n", "{output:?}");
    });
}
