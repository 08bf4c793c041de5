//! The OCI face as dockerd calls it, with everything that this keeps in a directory of the test's. What takes real
//! limits is in `tests/guest/docker.sh`.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::requires;
use crate::support::{Need, Output, Terminal, Umiak, eventually, finish, tool};

/// dockerd with `umiak` among its runtimes, and the containerd that it starts.
struct Daemon {
    /// Its directory goes with it.
    _umiak: Umiak,
    dir: PathBuf,
    daemon: Child,
}

const NEEDS: [Need; 6] = [
    Need::Root,
    Need::Tool("busybox"),
    Need::Tool("dockerd"),
    Need::Tool("docker"),
    Need::Tool("containerd"),
    // dockerd asks it for its version.
    Need::Tool("runc"),
];

pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl Daemon {
    fn new() -> Self {
        let umiak = Umiak::new();
        let dir = umiak.dir.join("d");
        std::fs::create_dir(&dir).unwrap();
        let runtime = dir.join("umiak-runtime");
        symlink(Umiak::binary(), &runtime).unwrap();
        std::fs::write(dir.join("daemon.json"), "{}").unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(tool("dockerd").unwrap());
        command.env_clear().env("PATH", PATH).env("HOME", &dir).env("TMPDIR", &dir);
        for (option, file) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(option).arg(dir.join(file));
        }
        command.arg("--host").arg(format!("unix://{}", dir.join("socket").display()));
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-masq=false"]);
        command.args(["--storage-driver", "vfs", "--add-runtime", &format!("umiak={}", runtime.display())]);
        let daemon =
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let this = Self { _umiak: umiak, dir, daemon };
        eventually("dockerd answers", || this.docker(&["info"]).code == Some(0));
        this
    }

    fn docker_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(tool("docker").unwrap());
        command.env_clear().env("PATH", PATH).env("HOME", &self.dir);
        command.arg("--host").arg(format!("unix://{}", self.dir.join("socket").display())).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn docker(&self, args: &[&str]) -> Output {
        let child = self.docker_command(args).spawn().unwrap();
        finish(child, b"", format!("docker {}", args.join(" ")))
    }

    /// `docker run` of our runtime.
    fn container(&self, options: &[&str], program: &[&str]) -> Output {
        let common = ["run", "--runtime", "umiak", "--network", "none"];
        self.docker(&[&common[..], options, &["box"], program].concat())
    }

    /// Makes the image `box`.
    fn import(&self) {
        let mut command = self.docker_command(&["import", "-", "box"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&archive()).unwrap();
        finish(child, b"", "docker import".to_owned()).ok();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ids = self.docker(&["ps", "-aq"]).stdout;
        for id in ids.lines() {
            let _ = self.docker(&["rm", "-f", id]).code;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.daemon.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.daemon.wait();
        // Group directories that the daemons' container groups were in; ours are gone.
        for tree in ["/sys/fs/cgroup/unified/docker", "/sys/fs/cgroup/docker"] {
            let _ = std::fs::remove_dir(tree);
        }
    }
}

/// A root file system with busybox in it, as a tar archive.
pub fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, mode: u32, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            archive.append_data(&mut header, name, content).unwrap();
        } else {
            archive.append_link(&mut header, name, link).unwrap();
        }
    };
    for dir in ["bin/", "etc/", "proc/", "sys/", "dev/", "tmp/"] {
        add(dir, tar::EntryType::Directory, 0o755, "", &[]);
    }
    let busybox = std::fs::read(tool("busybox").unwrap()).unwrap();
    add("bin/busybox", tar::EntryType::Regular, 0o755, "", &busybox);
    for applet in
        ["sh", "echo", "cat", "id", "sleep", "tty", "true", "wc", "mknod", "head", "stty", "readlink", "grep"]
    {
        add(&format!("bin/{applet}"), tar::EntryType::Symlink, 0o777, "busybox", &[]);
    }
    add("etc/passwd", tar::EntryType::Regular, 0o644, "", b"root:x:0:0::/:/bin/sh\n");
    archive.into_inner().unwrap()
}

#[test]
fn docker_runs_containers() {
    requires!(NEEDS[0], NEEDS[1], NEEDS[2], NEEDS[3], NEEDS[4], NEEDS[5]);
    let daemon = Daemon::new();
    daemon.import();
    let run = |program: &[&str]| daemon.container(&["--rm"], program);
    run(&["echo", "through docker"]).ok().says("through docker");
    run(&["sh", "-c", "exit 7"]).exits(7);
    // The runtime's words decide these codes.
    run(&["/no-such-program"]).exits(127);
    run(&["/etc/passwd"]).exits(126);
    daemon.container(&["--rm", "-t"], &["tty"]).ok().has("/dev/pts/0");
    daemon.container(&["--rm", "--user", "1:2", "--read-only"], &["id", "-g"]).ok().says("2");
    // It gives no cgroup namespace on version 1.
    let script = "grep ' /sys/fs/cgroup' /proc/self/mountinfo | grep -v ' ro,' | wc -l";
    run(&["sh", "-c", script]).ok().says("0");
    // Device rules: making a node is allowed, using it is not.
    let script = "mknod /dev/x c 1 1 && head -c1 /dev/x 2>&1";
    daemon.container(&["--rm", "--cap-add", "MKNOD"], &["sh", "-c", script]).exits(1).has("not permitted");
    daemon
        .container(&["--rm", "--device", "/dev/full"], &["sh", "-c", "head -c1 /dev/full | wc -c"])
        .ok()
        .says("1");

    daemon
        .container(&["-d", "--name", "one"], &["sh", "-c", "trap 'exit 5' TERM; while :; do sleep .1; done"])
        .ok();
    let status = || daemon.docker(&["inspect", "-f", "{{.State.Status}}", "one"]).ok().stdout;
    daemon.docker(&["exec", "one", "sh", "-c", "echo inside; exit 3"]).exits(3).says("inside");
    daemon.docker(&["exec", "-t", "one", "tty"]).ok().has("/dev/pts/");
    daemon.docker(&["exec", "one", "/no-such-program"]).exits(126);
    daemon.docker(&["pause", "one"]).ok();
    assert_eq!(status(), "paused\n");
    daemon.docker(&["unpause", "one"]).ok();
    assert_eq!(status(), "running\n");
    daemon.docker(&["top", "one"]).ok().has("sleep");
    daemon.docker(&["stop", "one"]).ok();
    assert_eq!(daemon.docker(&["inspect", "-f", "{{.State.ExitCode}}", "one"]).ok().stdout, "5\n");
    daemon.docker(&["start", "one"]).ok();
    daemon.docker(&["kill", "one"]).ok();
    daemon.docker(&["wait", "one"]).ok().says("137");
    daemon.docker(&["rm", "one"]).ok();
}

#[test]
fn docker_on_a_terminal_in_health_and_again() {
    requires!(NEEDS[0], NEEDS[1], NEEDS[2], NEEDS[3], NEEDS[4], NEEDS[5]);
    let daemon = Daemon::new();
    daemon.import();
    let common = ["run", "--runtime", "umiak", "--network", "none"];
    let terminal = Terminal::start_command(
        daemon.docker_command(&[&common[..], &["--rm", "-it", "box", "sh"]].concat()),
    );
    terminal.use_shell();

    let health = ["-d", "--name", "well", "--health-cmd", "cat /tmp/well", "--health-interval", "100ms"];
    daemon.container(&[&health[..], &["--health-retries", "1"]].concat(), &["sleep", "1000"]).ok();
    let status = || daemon.docker(&["inspect", "-f", "{{.State.Health.Status}}", "well"]).ok().stdout;
    eventually("it is unwell", || status() == "unhealthy\n");
    let mut terminal = Terminal::start_command(daemon.docker_command(&["exec", "-it", "well", "sh"]));
    terminal.send(b"echo >/tmp/well; exit 3\n");
    assert_eq!(terminal.wait().0, Some(3));
    eventually("it is well", || status() == "healthy\n");
    daemon.docker(&["kill", "-s", "KILL", "well"]).ok();
    daemon.docker(&["wait", "well"]).ok().says("137");

    daemon.container(&["-d", "--name", "again", "--restart", "on-failure:2"], &["sh", "-c", "exit 3"]).ok();
    let format = "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}";
    eventually("it was started again, twice", || {
        daemon.docker(&["inspect", "-f", format, "again"]).ok().stdout == "2 exited 3\n"
    });
}

/// umiak within Docker's containers: as their root, as a user of them, and with Docker's own filter.
#[test]
fn umiak_in_containers_of_docker() {
    for need in NEEDS.into_iter().chain([Need::Image("busybox")]) {
        requires!(need);
    }
    let daemon = Daemon::new();
    daemon.import();
    let image = format!("{}:/image:ro", crate::support::images().join("busybox").display());
    let binary = format!("{}:/umiak:ro", Umiak::binary().display());
    let common = ["--rm", "-v", &image, "-v", &binary, "-e", "HOME=/tmp"];
    let script = "/umiak pull -q oci:/image:localhost/busybox:latest >/dev/null && \
                  /umiak run --rm --network none $OPTIONS busybox sh -c 'touch /f && chown 0:0 /f && id -u'";
    let run = |options: &[&str]| {
        daemon.container(&[&common[..], options].concat(), &["/bin/busybox", "sh", "-c", script])
    };
    run(&[]).exits(125).tells("user namespace").hints("--security-opt seccomp=unconfined");
    let no_filter = ["--security-opt", "seccomp=unconfined"];
    run(&no_filter).exits(125).tells("mounting \"proc\"").hints("systempaths=unconfined");
    run(&[&no_filter[..], &["-e", "OPTIONS=--pid=host"]].concat()).ok().says("0");
    let open = [&no_filter[..], &["--security-opt", "systempaths=unconfined"]].concat();
    run(&open).ok().says("0");
    run(&[&open[..], &["--user", "1000:1000", "--tmpfs", "/own:uid=1000", "-e", "HOME=/own"]].concat())
        .ok()
        .says("0");
    let bare = [&open[..], &["--cap-drop", "ALL"]].concat();
    run(&bare).exits(125).tells("uid_map").hints("SETFCAP");
    run(&[&bare[..], &["--cap-add", "SETFCAP"]].concat()).ok().says("0");
    run(&["--privileged"]).ok().says("0");
}
