//! The OCI face as containerd calls it, through `ctr` and through its CRI plugin as a kubelet does; with everything
//! it keeps in a directory of the test's. What takes real limits is in `tests/guest/containerd.sh`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::daemons::{PATH, archive};
use crate::requires;
use crate::support::{Need, Output, Terminal, Umiak, eventually, finish, tool};

/// The client of the CRI, shared with the tests in the guest.
const CLIENT: &str = include_str!("../guest/cri.py");

struct Containerd {
    /// Its directory goes with it.
    _umiak: Umiak,
    dir: PathBuf,
    rootfs: String,
    daemon: Child,
}

const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Tool("busybox"),
    Need::Tool("containerd"),
    Need::Tool("containerd-shim-runc-v2"),
    Need::Tool("ctr"),
];

impl Containerd {
    fn new() -> Self {
        let umiak = Umiak::new();
        let dir = umiak.dir.join("c");
        std::fs::create_dir_all(dir.join("logs")).unwrap();
        let rootfs = dir.join("rootfs");
        tar::Archive::new(&archive()[..]).unpack(&rootfs).unwrap();
        symlink(Umiak::binary(), dir.join("umiak-runtime")).unwrap();
        let place = dir.display();
        // No limits: the controllers may be version 1's here.
        let text = format!(
            r#"version = 2
root = "{place}/root"
state = "{place}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{place}/socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  stream_server_address = "127.0.0.1"
  disable_cgroup = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "umiak"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.umiak]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.umiak.options]
        BinaryName = "{place}/umiak-runtime"
"#
        );
        std::fs::write(dir.join("config.toml"), text).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(tool("containerd").unwrap());
        command.env_clear().env("PATH", PATH).env("HOME", &dir).env("TMPDIR", &dir);
        command.arg("--config").arg(dir.join("config.toml")).stdin(Stdio::null());
        let daemon = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let this = Self { _umiak: umiak, rootfs: rootfs.display().to_string(), dir, daemon };
        eventually("containerd answers", || this.ctr(&["version"]).code == Some(0));
        this
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tool("ctr").unwrap());
        command.env_clear().env("PATH", PATH).arg("--address").arg(self.dir.join("socket"));
        command.args(["--namespace", "umiak-test"]).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn ctr(&self, args: &[&str]) -> Output {
        finish(self.command(args).spawn().unwrap(), b"", format!("ctr {}", args.join(" ")))
    }

    /// `ctr run` of our runtime.
    fn container(&self, options: &[&str], id: &str, program: &[&str]) -> Output {
        let runtime = self.dir.join("umiak-runtime").display().to_string();
        let common = ["run", "--runc-binary", &runtime, "--rootfs"];
        self.ctr(&[&common[..], options, &[&self.rootfs, id], program].concat())
    }

    /// The client of the CRI.
    fn client(&self, args: &[&str]) -> Output {
        let mut command = Command::new(tool("python3").unwrap());
        command.args(["-c", CLIENT]).args(args).current_dir(&self.dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command.spawn().unwrap(), b"", format!("cri.py {}", args.join(" ")))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Of a test that failed.
        for namespace in ["umiak-test", "k8s.io"] {
            let ids = self.ctr(&["--namespace", namespace, "task", "ls", "-q"]).stdout;
            for id in ids.lines() {
                let _ = self.ctr(&["--namespace", namespace, "task", "rm", "--force", id]).code;
            }
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
        // Directories that containers' groups were in; ours are gone.
        for tree in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
            for name in ["umiak-test", "k8s.io"] {
                let _ = std::fs::remove_dir(Path::new(tree).join(name));
            }
        }
    }
}

#[test]
fn containerd_runs_containers() {
    requires!(NEEDS[0], NEEDS[1], NEEDS[2], NEEDS[3], NEEDS[4]);
    let daemon = Containerd::new();
    let log = std::fs::File::create(daemon.dir.join("events")).unwrap();
    let mut events = daemon.command(&["events"]).stdout(log).spawn().unwrap();
    daemon.container(&["--rm"], "one", &["echo", "through containerd"]).ok().says("through containerd");
    daemon.container(&["--rm"], "two", &["sh", "-c", "exit 7"]).exits(7);
    let output = daemon.container(&["--rm"], "two", &["/no-such-program"]).exits(1);
    assert!(output.stderr.contains("no such file or directory"), "{}", output.stderr);
    daemon.container(&["-d"], "three", &["sleep", "1000"]).ok();
    let exec = |id: &str, program: &[&str]| {
        daemon.ctr(&[&["task", "exec", "--exec-id", id, "three"], program].concat())
    };
    // A moment longer than its output: of a process that has ended ctr drops what it has not copied yet.
    exec("a", &["sh", "-c", "echo inside; sleep 1"]).ok().says("inside");
    exec("b", &["sh", "-c", "exit 9"]).exits(9);
    let mut terminal = Terminal::start_command(daemon.command(&[
        "task",
        "exec",
        "--tty",
        "--exec-id",
        "c",
        "three",
        "sh",
        "-c",
        "tty; exit 5",
    ]));
    terminal.expect("/dev/pts/");
    assert_eq!(terminal.wait().0, Some(5));
    daemon.ctr(&["task", "pause", "three"]).ok();
    daemon.ctr(&["task", "ls"]).ok().has("PAUSED");
    daemon.ctr(&["task", "resume", "three"]).ok();
    let pids = daemon.ctr(&["task", "ps", "three"]).ok().stdout;
    assert_eq!(pids.lines().count(), 2, "{pids}");
    daemon.ctr(&["task", "kill", "-s", "KILL", "three"]).ok();
    eventually("it has stopped", || daemon.ctr(&["task", "ls"]).stdout.contains("STOPPED"));
    let output = daemon.ctr(&["task", "rm", "three"]);
    assert!(output.stderr.contains("exit code 137"), "{}", output.stderr);
    daemon.ctr(&["container", "rm", "three"]).ok();
    let told = || std::fs::read_to_string(daemon.dir.join("events")).unwrap();
    for event in ["create", "start", "exec-started", "paused", "resumed", "exit", "delete"] {
        eventually(event, || told().contains(&format!("/tasks/{event} ")));
    }
    events.kill().unwrap();
    events.wait().unwrap();
}

#[test]
fn a_pod_of_containers() {
    requires!(NEEDS[0], NEEDS[1], NEEDS[2], NEEDS[3], NEEDS[4], Need::Tool("python3"));
    let daemon = Containerd::new();
    daemon.client(&["image", &daemon.rootfs, "pause.tar", "localhost/pause:1"]).ok();
    let archive = daemon.dir.join("pause.tar").display().to_string();
    daemon.ctr(&["--namespace", "k8s.io", "images", "import", "--snapshotter", "native", &archive]).ok();
    let logs = daemon.dir.join("logs").display().to_string();
    let output = daemon.client(&["socket", "localhost/pause:1", &logs, "cgroup=no"]);
    output.ok().lacks("FAILED").has("ok cri: RemovePodSandbox");
}
