//! The runtime on a real kernel, through its command line: as root and as an unprivileged user.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

#[path = "../common/skip.rs"]
mod skip;
use skip::skip;

mod commands;
mod errors;
mod escapes;
mod fields;
mod killed;
mod live;
mod mounts;
mod spec;

/// Who calls the runtime.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Caller {
    uid: u32,
    gid: u32,
}

/// Root if we are, and an unprivileged user: ourselves, or the first with subordinate ids.
fn callers() -> Vec<Caller> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    if uid != 0 {
        return vec![Caller { uid, gid }];
    }
    let mut callers = vec![Caller { uid, gid }];
    let subuid = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let known = subuid.lines().any(|l| l.split(':').next() == Some(fields[0]));
        let uid: u32 = fields.get(2)?.parse().ok()?;
        (known && uid >= 1000).then_some(Caller { uid, gid: fields.get(3)?.parse().ok()? })
    });
    match user {
        Some(user) => callers.push(user),
        None => skip("no ordinary user is in /etc/subuid", false),
    }
    callers
}

/// Programs that are executed: copied once, while no other thread can fork with the copy open for
/// writing (which would make it busy), and linked into each bundle.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("umiak-oci-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        // The target directory may lie where the user cannot go.
        let binary = std::env::var_os("UMIAK_TEST_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_umiak").into());
        std::fs::copy(binary, dir.join("umiak")).unwrap();
        if let Some(busybox) =
            ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists())
        {
            std::fs::copy(busybox, dir.join("busybox")).unwrap();
        }
        dir
    })
}

/// A bundle of a caller with busybox in it; removed at the end.
struct Bundle {
    dir: PathBuf,
    caller: Caller,
    config: Value,
    id: String,
}

impl Bundle {
    fn new(caller: Caller) -> Option<Self> {
        if !template().join("busybox").exists() {
            skip("busybox-static is not installed", false);
            return None;
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("umiak-oci-{}-{number}", std::process::id()));
        let rootfs = dir.join("rootfs");
        for sub in ["bin", "etc", "proc", "sys", "dev", "tmp", "secret"] {
            std::fs::create_dir_all(rootfs.join(sub)).unwrap();
        }
        std::fs::hard_link(template().join("busybox"), rootfs.join("bin/busybox")).unwrap();
        for applet in
            ["sh", "true", "ls", "cat", "id", "sleep", "grep", "echo", "mount", "readlink", "touch", "stat"]
        {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        std::fs::write(rootfs.join("secret/file"), "secret\n").unwrap();
        std::fs::create_dir(dir.join("state")).unwrap();
        own(&dir, caller);
        std::fs::hard_link(template().join("umiak"), dir.join("umiak")).unwrap();
        let spec = dir.join("spec");
        std::fs::create_dir(&spec).unwrap();
        let made =
            Command::new(dir.join("umiak")).args(["runtime", "spec", "-b"]).arg(&spec).status().unwrap();
        assert!(made.success());
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(spec.join("config.json")).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        if caller.uid != 0 {
            config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": caller.uid, "size": 1}]);
            config["linux"]["gidMappings"] = json!([{"containerID": 0, "hostID": caller.gid, "size": 1}]);
        }
        let id = format!("oci-{}-{number}", std::process::id());
        Some(Self { dir, caller, config, id })
    }

    fn args(&mut self, args: &[&str]) -> &mut Self {
        self.config["process"]["args"] = json!(args);
        self
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    fn command(&self, args: &[&str]) -> Command {
        std::fs::write(self.dir.join("config.json"), self.config.to_string()).unwrap();
        let mut command = Command::new(self.dir.join("umiak"));
        command.arg("runtime").arg("--root").arg(self.dir.join("state")).current_dir(&self.dir);
        // "c" stands for the container's id, which is a control group's name, too.
        command.args(args.iter().map(|arg| if *arg == "c" { self.id.as_str() } else { arg }));
        command.stdin(Stdio::null());
        if self.caller.uid != rustix::process::geteuid().as_raw() {
            command.uid(self.caller.uid).gid(self.caller.gid).env("HOME", "/");
        }
        command
    }

    fn call(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs the container; its output and exit code.
    fn run(&self) -> (String, String, i32) {
        let output = self.call(&["run", "c"]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr), output.status.code().unwrap_or(-1))
    }

    fn sh(&mut self, script: &str) -> (String, String, i32) {
        self.args(&["sh", "-c", script]).run()
    }

    /// Creates without holding our pipes open, as an engine does with a log file.
    fn quiet(&self, args: &[&str]) -> bool {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.quiet(&["delete", "--force", "c"]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Shared by the tests of this process; the last bundle of any of them may still need it, so only
/// its own test removes what an earlier process left.
#[test]
fn old_templates_are_removed() {
    for entry in std::fs::read_dir(std::env::temp_dir()).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("umiak-oci-").and_then(|rest| rest.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn own(path: &Path, caller: Caller) {
    if rustix::process::geteuid().as_raw() != 0 {
        return;
    }
    std::os::unix::fs::lchown(path, Some(caller.uid), Some(caller.gid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path(), caller);
        }
    }
}

/// Runs a test for each caller that this machine has.
fn each(test: impl Fn(&mut Bundle)) {
    for caller in callers() {
        let Some(mut bundle) = Bundle::new(caller) else { return };
        if caller.uid != 0 {
            let output = bundle.args(&["true"]).run();
            if output.1.contains("creating namespaces") {
                skip(&format!("as uid {}: {}", caller.uid, output.1.trim()), false);
                continue;
            }
        }
        test(&mut bundle);
    }
}

#[test]
fn exit_codes_are_the_programs() {
    each(|b| {
        assert_eq!(b.args(&["true"]).run(), (String::new(), String::new(), 0));
        assert_eq!(b.sh("exit 7").2, 7);
        assert_eq!(b.sh("kill -TERM $$; kill -KILL $$; exit 1").2, 1, "process 1 is deaf to itself");
        let (_, err, code) = b.args(&["nosuch"]).run();
        assert_eq!(code, 1);
        assert_eq!(
            err,
            "error: exec: \"nosuch\": executable file not found in $PATH: no such file or directory\n"
        );
        let (_, err, code) = b.args(&["/etc/passwd"]).run();
        assert!(code == 1 && err.contains("permission denied"), "{err}");
        assert_eq!(std::fs::read_dir(b.dir.join("state")).unwrap().count(), 0, "nothing is left");
    });
}

#[test]
fn the_program_is_isolated() {
    each(|b| {
        let (out, err, code) = b.sh(
            "echo $$; ls /proc/self/fd; grep -E '^(Cap(Eff|Bnd)|NoNewPrivs|Seccomp|SigIgn|SigBlk):' /proc/self/status; \
             cat /proc/sys/kernel/hostname; ls /proc | grep -c '^[0-9]'; ls /sys/class/net; touch /x; cat /proc/1/environ",
        );
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0] == "1" && code == 0, "{out}{err}");
        // 3 is the directory itself.
        assert_eq!(&lines[1..5], ["0", "1", "2", "3"], "{out}");
        let has = |text: &str| assert!(out.contains(text), "{text}: {out}{err}");
        has("CapEff:\t0000000020000420");
        has("CapBnd:\t0000000020000420");
        has("NoNewPrivs:\t1");
        has("Seccomp:\t2");
        has("SigIgn:\t0000000000000000");
        has("SigBlk:\t0000000000000000");
        has("\numiak\n");
        has("\nlo\n");
        has("HOME=/root");
        assert!(err.contains("Read-only file system"), "{err}");
    });
}

// spec: linux.maskedPaths
#[test]
fn masked_and_read_only_paths_hold() {
    each(|b| {
        symlink("/secret", b.rootfs().join("alias")).unwrap();
        symlink("/nowhere", b.rootfs().join("dangling")).unwrap();
        std::fs::write(b.rootfs().join("plain"), "x").unwrap();
        own(&b.rootfs(), b.caller);
        b.config["root"]["readonly"] = json!(false);
        b.config["linux"]["maskedPaths"] = json!(["/alias", "/dangling", "/plain", "/none"]);
        let (out, err, _) = b.sh(
            "ls /secret; cat /plain; echo 1 > /proc/sys/net/ipv4/ip_forward || echo refused; touch /tmp/ok && echo ok; \
             touch /secret/x || echo masked",
        );
        assert_eq!(out, "refused\nok\nmasked\n", "{err}");
    });
}

#[test]
fn proc_is_not_mounted_over_a_link() {
    each(|b| {
        std::fs::remove_dir(b.rootfs().join("proc")).unwrap();
        symlink("/etc", b.rootfs().join("proc")).unwrap();
        let (_, err, code) = b.args(&["true"]).run();
        assert!(code == 1 && err.contains("mounting \"proc\" at \"/proc\""), "{err}");
    });
}

#[test]
fn mounts_do_not_leave_the_rootfs() {
    each(|b| {
        let outside = b.dir.join("outside");
        std::fs::create_dir(&outside).unwrap();
        symlink(&outside, b.rootfs().join("evil")).unwrap();
        symlink("../../outside", b.rootfs().join("up")).unwrap();
        own(&b.dir.join("outside"), b.caller);
        own(&b.rootfs(), b.caller);
        b.config["root"]["readonly"] = json!(false);
        for target in ["/evil/a", "/up/b"] {
            b.config["mounts"].as_array_mut().unwrap().push(json!({"destination": target, "type": "tmpfs"}));
        }
        let (_, _, _) = b.args(&["true"]).run();
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    });
}

#[test]
fn our_binary_is_out_of_reach() {
    each(|b| {
        let before = std::fs::read(b.dir.join("umiak")).unwrap();
        symlink("/proc/self/exe", b.rootfs().join("bin/self")).unwrap();
        std::fs::write(b.rootfs().join("bin/script"), "#!/proc/self/exe\n").unwrap();
        std::fs::set_permissions(b.rootfs().join("bin/script"), PermissionsExt::from_mode(0o755)).unwrap();
        for entry in ["/bin/self", "/bin/script", "/proc/self/exe"] {
            let (out, err, code) = b.args(&[entry, "runtime", "--version"]).run();
            assert!(code != 0 && !out.contains("umiak-runtime version"), "{entry}: {out}{err}");
        }
        assert!(std::fs::read(b.dir.join("umiak")).unwrap() == before);
    });
}

#[test]
fn the_working_directory_is_inside() {
    each(|b| {
        for cwd in ["/proc/self/fd/3", "/proc/self/fd/7", "/proc/self/fd/9/../..", "/proc/1/root/../.."] {
            b.config["process"]["cwd"] = json!(cwd);
            let (out, _, code) = b.sh("pwd; ls -d /rootfs");
            assert!(code != 0, "{cwd}: {out}");
        }
        b.config["process"]["cwd"] = json!("/tmp");
        assert_eq!(b.sh("pwd").0, "/tmp\n");
    });
}

#[test]
fn created_started_entered_killed_deleted() {
    each(|b| {
        b.args(&["sleep", "100"]);
        let state = |b: &Bundle| -> Value {
            serde_json::from_slice(&b.call(&["state", "c"]).stdout).unwrap_or(Value::Null)
        };
        assert!(b.quiet(&["create", "c", "--pid-file", "pid"]));
        assert_eq!(state(b)["status"], "created");
        assert_eq!(state(b)["pid"].to_string(), std::fs::read_to_string(b.dir.join("pid")).unwrap());
        assert!(!b.quiet(&["create", "c"]), "the id is taken");
        assert!(b.quiet(&["start", "c"]));
        assert!(!b.quiet(&["start", "c"]), "it runs already");
        assert_eq!(state(b)["status"], "running");
        let output = b.call(&[
            "exec",
            "c",
            "sh",
            "-c",
            "id -u; ls /proc/self/fd; grep Seccomp: /proc/self/status; exit 5",
        ]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n0\n1\n2\n3\nSeccomp:\t2\n");
        assert_eq!(output.status.code(), Some(5));
        let output = b.call(&["exec", "c", "nosuch"]);
        assert_eq!(output.status.code(), Some(255));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no such file or directory"));
        assert!(!b.quiet(&["delete", "c"]), "it runs");
        assert!(b.quiet(&["kill", "c", "KILL"]));
        for _ in 0..200 {
            if state(b)["status"] == "stopped" {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(state(b)["status"], "stopped");
        assert!(!b.quiet(&["kill", "c", "KILL"]), "it has ended");
        assert!(b.quiet(&["delete", "c"]));
        assert!(!b.quiet(&["state", "c"]) && !b.quiet(&["delete", "c"]) && b.quiet(&["delete", "-f", "c"]));
    });
}

#[test]
fn a_killed_create_leaves_nothing_in_the_way() {
    each(|b| {
        b.args(&["sleep", "100"]);
        for step in 0..25 {
            let mut child =
                b.command(&["create", "c"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(std::time::Duration::from_micros(step * 700));
            let _ = child.kill();
            child.wait().unwrap();
            assert!(b.quiet(&["delete", "--force", "c"]), "after step {step}");
            assert!(!b.dir.join("state").join(&b.id).exists());
        }
        assert!(b.quiet(&["create", "c"]) && b.quiet(&["delete", "c"]));
    });
}

#[test]
fn hooks_run_in_their_order() {
    each(|b| {
        let log = b.dir.join("log");
        std::fs::write(&log, "").unwrap();
        if b.caller.uid != rustix::process::geteuid().as_raw() {
            chown(&log, Some(b.caller.uid), Some(b.caller.gid)).unwrap();
        }
        let hook = |name: &str| {
            let script = format!("echo {name} $(grep -o '\"status\":\"[a-z]*\"') >> {}", log.display());
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
        };
        b.config["hooks"] = json!({
            "prestart": hook("prestart"), "createRuntime": hook("createRuntime"),
            "createContainer": hook("createContainer"), "poststart": hook("poststart"),
            "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "cat > /dev/null; echo startContainer"]}],
            "poststop": hook("poststop"),
        });
        let (out, err, code) = b.args(&["true"]).run();
        assert_eq!((out.as_str(), code), ("startContainer\n", 0), "{err}");
        let names: Vec<String> = std::fs::read_to_string(&log).unwrap().lines().map(str::to_owned).collect();
        let expected = [
            "prestart \"status\":\"created\"",
            "createRuntime \"status\":\"creating\"",
            "createContainer \"status\":\"creating\"",
            "poststart \"status\":\"running\"",
            "poststop \"status\":\"stopped\"",
        ];
        assert_eq!(names, expected);
        b.config["hooks"] =
            json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]});
        let (_, err, code) = b.args(&["true"]).run();
        assert!(code == 1 && err.contains("took longer than 1 s"), "{err}");
    });
}

#[test]
fn what_is_not_supported_is_refused() {
    each(|b| {
        let good = b.config.clone();
        for (pointer, value) in [
            ("/linux/intelRdt", json!({"closID": "x"})),
            ("/process/apparmorProfile", json!("p")),
            ("/process/selinuxLabel", json!("l")),
            ("/process/scheduler", json!({"policy": "SCHED_ISO"})),
            ("/linux/netDevices", json!({"nosuch0": {}})),
            ("/linux/personality", json!({"domain": "LINUX", "flags": ["x"]})),
            ("/linux/resources", json!({"memory": {"swappiness": 1}})),
            ("/linux/sysctl", json!({"kernel.panic": "1"})),
            ("/linux/timeOffsets", json!({"boottime": {"secs": 1}})),
        ] {
            b.config = good.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            b.config.pointer_mut(parent).unwrap()[key] = value;
            let (_, err, code) = b.args(&["true"]).run();
            assert!(code == 1 && err.starts_with("error: "), "{pointer}: {code} {err}");
            assert!(!b.dir.join("state").join(&b.id).exists());
        }
        b.config = good;
    });
}

#[test]
fn users_limits_sysctls_and_time() {
    each(|b| {
        b.config["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
        b.config["process"]["user"]["umask"] = json!(0o27);
        b.config["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "33"});
        b.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        b.config["linux"]["timeOffsets"] = json!({"boottime": {"secs": 864000000}});
        let (out, err, _) = b.sh("ulimit -n; umask; cat /proc/sys/net/ipv4/ip_default_ttl; cat /proc/uptime");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 4, "{out}{err}");
        assert_eq!(&lines[..3], ["77", "0027", "33"], "{err}");
        assert!(lines[3].parse::<f64>().is_err() && lines[3].split('.').next().unwrap().len() >= 9, "{out}");
        if b.caller.uid == 0 {
            b.config["process"]["user"] = json!({"uid": 33, "gid": 44, "additionalGids": [55]});
            assert_eq!(b.sh("id -u; id -g; id -G").0, "33\n44\n44 55\n");
        } else {
            b.config["process"]["user"] = json!({"uid": 33, "gid": 44});
            let (_, err, code) = b.sh("id");
            assert!(code == 1 && err.contains("is it mapped"), "{err}");
        }
    });
}

// spec: linux.namespaces[].path
#[test]
fn namespaces_of_another_container_are_joined() {
    each(|b| {
        b.args(&["sleep", "100"]);
        assert!(b.quiet(&["run", "--detach", "--pid-file", "pid", "c"]));
        let pid = std::fs::read_to_string(b.dir.join("pid")).unwrap();
        let mut other = Bundle::new(b.caller).unwrap();
        for namespace in other.config["linux"]["namespaces"].as_array_mut().unwrap() {
            let kind = namespace["type"].as_str().unwrap().to_owned();
            if let "pid" | "network" | "ipc" | "uts" | "user" = kind.as_str() {
                let name = if kind == "network" { "net" } else { &kind };
                namespace["path"] = json!(format!("/proc/{pid}/ns/{name}"));
            }
        }
        other.config.as_object_mut().unwrap().remove("hostname");
        let (out, err, code) = other
            .sh("cat /proc/sys/kernel/hostname; readlink /proc/self/ns/net; ls /proc | grep -c '^[0-9]'");
        assert_eq!(code, 0, "{err}");
        let net = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        // sleep, sh and the pipeline.
        assert!(out.starts_with(&format!("umiak\n{}\n", net.display())), "{out}");
        let processes: u32 = out.lines().last().unwrap().parse().unwrap();
        assert!(processes >= 3, "{out}");
    });
}
