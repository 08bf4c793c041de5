//! The OCI face as real engines call it: Podman through conmon. What takes real limits is in `tests/guest/callers.sh`.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::requires;
use crate::support::{Need, Output, Terminal, Umiak, eventually, finish, images, tool};

/// Podman with `umiak-runtime` as its runtime and everything it keeps in a directory of the test's.
struct Podman {
    /// Its directory goes with it, after Podman has tidied up.
    _umiak: Umiak,
    dir: PathBuf,
    /// Podman takes no more than 50 characters for it.
    runroot: PathBuf,
    image: String,
}

impl Podman {
    fn new() -> Self {
        let umiak = Umiak::new();
        let dir = umiak.dir.join("p");
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let runroot = PathBuf::from(format!("/tmp/umiak-podman-{}-{number}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        symlink(Umiak::binary(), dir.join("umiak-runtime")).unwrap();
        let text = format!(
            "[containers]\nlog_driver = \"k8s-file\"\n\
             [engine]\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\n\
             runtime_supports_nocgroup = [\"umiak-runtime\"]\nruntime_supports_json = [\"umiak-runtime\"]\n\
             [engine.runtimes]\numiak-runtime = [\"{}\"]\n",
            dir.join("umiak-runtime").display()
        );
        std::fs::write(dir.join("containers.conf"), text).unwrap();
        std::fs::write(dir.join("policy.json"), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)
            .unwrap();
        let mut podman = Self { _umiak: umiak, dir, runroot, image: String::new() };
        let source = format!("oci-archive:{}", images().join("busybox.tar").display());
        let policy = podman.dir.join("policy.json").to_str().unwrap().to_owned();
        podman.image =
            podman.run(&["pull", "-q", "--signature-policy", &policy, &source]).ok().stdout.trim().to_owned();
        podman
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tool("podman").unwrap());
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", &self.dir).env("XDG_RUNTIME_DIR", &self.dir).env("TMPDIR", &self.dir);
        command.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        command.arg("--root").arg(self.dir.join("root")).arg("--tmpdir").arg(self.dir.join("tmp"));
        command.arg("--runroot").arg(&self.runroot);
        command.args(["--storage-driver", "vfs", "--runtime", "umiak-runtime"]).args(args);
        command.current_dir(&self.dir).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        let child = self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(child, b"", format!("podman {}", args.join(" ")))
    }

    /// `run` or `create` with what every machine allows: no control group and no limit raised.
    fn container(&self, word: &str, options: &[&str], program: &[&str]) -> Output {
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];
        let common = ["--network", "none", "--cgroups=disabled"];
        self.run(&[&[word], &common[..], &limits, options, &[&self.image], program].concat())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.command(&["rm", "--all", "--force", "--time", "0"]).output();
        if !rustix::process::geteuid().is_root() {
            // Files of subordinate ids go only from inside; and the process that keeps Podman's user
            // namespace would stay.
            let _ = self.command(&["unshare", "rm", "-rf", "root"]).arg(&self.runroot).output();
            for place in ["tmp/pause.pid", "libpod/tmp/pause.pid"] {
                let pid = std::fs::read_to_string(self.dir.join(place)).unwrap_or_default();
                if let Some(pid) = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
        }
        let _ = std::fs::remove_dir_all(&self.runroot);
    }
}

#[test]
fn podman_runs_containers() {
    requires!(Need::Image("busybox"), Need::ManyIds, Need::Tool("podman"), Need::Tool("conmon"));
    let podman = Podman::new();
    let run = |program: &[&str]| podman.container("run", &["--rm"], program);
    run(&["echo", "through podman"]).ok().says("through podman");
    for code in [1, 7, 255] {
        run(&["sh", "-c", &format!("exit {code}")]).exits(code);
    }
    // The runtime's words decide Podman's exit codes.
    run(&["no-such-program"]).exits(127);
    run(&["/etc/not-executable"]).exits(126);
    let script = "echo $$; id -u; hostname; grep -E '^(Seccomp|CapEff):' /proc/self/status | tr '\\n' ' '";
    let told = podman.container("run", &["--rm", "--hostname", "otter"], &["sh", "-c", script]).ok();
    assert!(
        told.stdout.starts_with("1\n0\notter\n") && told.stdout.contains("Seccomp:\t2"),
        "{}",
        told.stdout
    );
    podman
        .container("run", &["--rm", "-u", "app", "-w", "/tmp"], &["sh", "-c", "id -un; pwd"])
        .ok()
        .says("app\n/tmp");
    podman.container("run", &["--rm", "--read-only"], &["touch", "/x"]).exits(1);
    // A terminal comes over the console socket.
    podman.container("run", &["--rm", "-t"], &["tty"]).ok().has("/dev/pts/0");
    assert_eq!(podman.run(&["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn podman_starts_enters_and_ends_containers() {
    requires!(Need::Image("busybox"), Need::ManyIds, Need::Tool("podman"), Need::Tool("conmon"));
    let podman = Podman::new();
    let script = "trap 'echo got term; exit 5' TERM; echo ready; while :; do sleep 0.05; done";
    podman.container("create", &["--name", "box"], &["sh", "-c", script]).ok();
    assert_eq!(podman.run(&["inspect", "-f", "{{.State.Status}}", "box"]).ok().stdout, "created\n");
    podman.run(&["start", "box"]).ok();
    eventually("the trap is set", || podman.run(&["logs", "box"]).ok().stdout == "ready\n");
    podman.run(&["exec", "box", "sh", "-c", "echo inside; exit 3"]).exits(3).says("inside");
    podman.run(&["exec", "-t", "box", "tty"]).ok().has("/dev/pts/");
    podman.run(&["exec", "box", "no-such-program"]).exits(127);
    podman.run(&["stop", "--time", "60", "box"]).ok();
    assert_eq!(podman.run(&["inspect", "-f", "{{.State.ExitCode}}", "box"]).ok().stdout, "5\n");
    assert!(podman.run(&["logs", "box"]).ok().stdout.ends_with("got term\n"));
    podman.run(&["start", "box"]).ok();
    podman.run(&["kill", "box"]).ok();
    podman.run(&["wait", "box"]).ok().says("137");
    podman.run(&["rm", "box"]).ok();
    podman.container("run", &["-d", "--name", "force"], &["sleep", "1000"]).ok();
    podman.run(&["rm", "--force", "--time", "0", "force"]).ok();
}

#[test]
fn podman_on_a_terminal_and_in_health() {
    requires!(Need::Image("busybox"), Need::ManyIds, Need::Tool("podman"), Need::Tool("conmon"));
    let podman = Podman::new();
    let common = ["--network", "none", "--cgroups=disabled", "--ulimit", "nofile=1024:1024"];
    let limit = ["--ulimit", "nproc=4096:4096"];
    let args = [&["run", "--rm", "-it"], &common[..], &limit, &[&podman.image, "sh"]].concat();
    let terminal = Terminal::start_command(podman.command(&args));
    terminal.use_shell();

    // Only when asked: its timers are systemd's.
    let health = ["-d", "--name", "well", "--health-cmd", "cat /tmp/well", "--health-interval", "disable"];
    podman.container("run", &health, &["sleep", "1000"]).ok();
    podman.run(&["healthcheck", "run", "well"]).exits(1);
    let mut terminal = Terminal::start_command(podman.command(&["exec", "-it", "well", "sh"]));
    terminal.send(b"echo >/tmp/well; exit 3\n");
    assert_eq!(terminal.wait().0, Some(3));
    podman.run(&["healthcheck", "run", "well"]).ok();
    podman.run(&["kill", "-s", "KILL", "well"]).ok();
    podman.run(&["wait", "well"]).ok().says("137");
}

#[test]
fn a_bundle_of_the_templates() {
    requires!(Need::Tool("busybox"), Need::Tool("python3"));
    let Some(scripts) = std::env::var_os("UMIAK_TEST_SCRIPTS").map(PathBuf::from) else {
        // Called by hand, without scripts/test: the checkout is where it was built.
        return bundle(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts"));
    };
    bundle(&scripts);
}

fn bundle(scripts: &std::path::Path) {
    let umiak = Umiak::new();
    let dir = umiak.dir.join("bundle");
    let runtime = umiak.dir.join("umiak-runtime");
    symlink(Umiak::binary(), &runtime).unwrap();
    let template = if rustix::process::geteuid().is_root() { "busybox" } else { "rootless" };
    let made = Command::new(scripts.join("make-bundle"))
        .args([template.as_ref(), dir.as_os_str()])
        .args(["sh", "-c", "echo from a bundle; exit 9"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let run = Command::new(&runtime)
        .arg("--root")
        .arg(umiak.dir.join("state"))
        .args(["run", "--bundle"])
        .arg(&dir)
        .arg("e2e-template")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&run.stdout),
        "from a bundle\n",
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert_eq!(run.status.code(), Some(9));
}
