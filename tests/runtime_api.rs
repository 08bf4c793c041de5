//! The runtime as the engine calls it: in-process, with an overlay, a held gate, a terminal, a user
//! by name and a reaping init. Without the test harness, whose threads would be in the way of forks.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use umiak::cgroup::Manager;
use umiak::runtime::{self, CreateRequest, Created, ExecRequest, Overlay, Rootfs, Stdio};
use umiak::seccomp::answer::{self, Consumer};
use umiak::seccomp::{Changes, Told};
use umiak::security::idmap::{self, RungKind};
use umiak::sys::notify::{self, Answer, Call, Listener};
use umiak::sys::process::{self, CloneOptions, ExitStatus};
use umiak::sys::socket;

#[path = "common/skip.rs"]
mod skip;
use skip::skip;

struct Fixture {
    dir: PathBuf,
    spec: Value,
    single: bool,
}

impl Fixture {
    fn new() -> Option<Self> {
        let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists())
        else {
            skip("busybox-static is not installed", false);
            return None;
        };
        if let Err(error) = idmap::check_user_namespaces() {
            skip(&format!("{error}; {}", error.hint), false);
            return None;
        }
        let dir = std::env::temp_dir().join(format!("umiak-api-{}", std::process::id()));
        // A layer whose path has what overlay would take for separators.
        let lower = dir.join("lo:w,er");
        for sub in ["lo:w,er/bin", "lo:w,er/etc", "lo:w,er/data", "upper", "work"] {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
        }
        std::fs::copy(busybox, lower.join("bin/busybox")).unwrap();
        for applet in
            ["sh", "true", "id", "cat", "ps", "sleep", "tty", "stty", "pwd", "ls", "mkdir", "readlink"]
        {
            symlink("busybox", lower.join("bin").join(applet)).unwrap();
        }
        std::fs::write(lower.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:0:0::/home/web:/bin/sh\n")
            .unwrap();
        std::fs::write(lower.join("etc/group"), "root:x:0:\nlogs:x:4:web\n").unwrap();
        std::fs::write(lower.join("data/kept"), "kept").unwrap();
        let rung = idmap::rung();
        let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount", "cgroup"];
        let mut linux = json!({});
        if rung.kind != RungKind::Root {
            namespaces.push("user");
            let map = |ranges: &[umiak::base::idmap::IdRange]| -> Value {
                ranges
                    .iter()
                    .map(|r| json!({"containerID": r.container, "hostID": r.host, "size": r.size}))
                    .collect()
            };
            linux["uidMappings"] = map(&rung.mapping.uids);
            linux["gidMappings"] = map(&rung.mapping.gids);
        }
        linux["namespaces"] = namespaces.iter().map(|kind| json!({"type": kind})).collect();
        linux["seccomp"] = json!(umiak::seccomp::default_profile(&Default::default()));
        let spec = json!({
            "ociVersion": "1.2.0",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "env": ["PATH=/bin"], "cwd": "/"},
            "root": {"path": "unused"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                    "options": ["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
                {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "ro"]},
            ],
            "linux": linux,
        });
        Some(Self { dir, spec, single: rung.kind == RungKind::Single })
    }

    fn request(&self, args: &[&str]) -> CreateRequest {
        let mut spec = self.spec.clone();
        spec["process"]["args"] = json!(args);
        let userxattr = rustix::process::geteuid().as_raw() != 0;
        let rootfs = Rootfs::Overlay(Overlay {
            lower: vec![self.dir.join("lo:w,er")],
            upper: self.dir.join("upper"),
            work: self.dir.join("work"),
            volatile: false,
            userxattr,
        });
        let spec = serde_json::from_value(spec).unwrap();
        let mut request =
            CreateRequest::new(format!("api-{}", std::process::id()), spec, self.dir.clone(), rootfs);
        request.cgroup = Manager::Disabled;
        request
    }

    /// Runs to the end; what it wrote and how it ended.
    fn run(&self, mut request: CreateRequest) -> (String, ExitStatus) {
        let (reader, stdio) = piped();
        request.stdio = stdio;
        let mut created = runtime::create(request).unwrap();
        created.start().unwrap();
        (read(reader), process::wait(&created.pidfd).unwrap())
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let dir = self.dir.clone();
        if rustix::process::geteuid().as_raw() != 0 {
            // Files of subordinate ids are only ours inside.
            let rung = idmap::rung();
            let _ = umiak::sys::userns::enter(&rung.mapping);
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}

fn piped() -> (OwnedFd, Stdio) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let null = File::open("/dev/null").unwrap();
    let stderr = writer.try_clone().unwrap();
    (reader, Stdio::Fds { stdin: null.into(), stdout: writer, stderr })
}

fn read(fd: OwnedFd) -> String {
    let mut bytes = Vec::new();
    // A terminal's master ends with EIO.
    let _ = File::from(fd).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn overlay_and_copy_up(f: &Fixture) {
    let (out, status) =
        f.run(f.request(&["sh", "-c", "echo new > /etc/new; cat /data/kept; echo x > /data/x; exit 3"]));
    assert!(out.starts_with("kept") && out.contains("Read-only"), "{out}");
    assert_eq!(status, ExitStatus::Code(3));
    assert_eq!(std::fs::read_to_string(f.dir.join("upper/etc/new")).unwrap(), "new\n");
    assert!(
        !std::fs::read_to_string("/proc/self/mounts").unwrap().contains("umiak-api"),
        "nothing is on the host"
    );
}

/// Our children, dead ones too.
fn children() -> Vec<i32> {
    let own = std::process::id() as i32;
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| process::detailed_stat(*pid).is_ok_and(|stat| stat.parent == own)).collect()
}

fn namespaces_begun_before(f: &Fixture) {
    let script = "cat /proc/self/uid_map /proc/self/gid_map; readlink /proc/self/ns/net; id -u";
    let request = || f.request(&["sh", "-c", script]);
    let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    let (told, _) = f.run(request());
    let Some(begun) = runtime::begin(&request().spec) else {
        // With one id, and for root, the maps are a matter of two writes.
        return assert!(f.single || rustix::process::geteuid().is_root());
    };
    assert!(!f.single && children().len() == 3, "the keeper and two helpers");
    drop(begun);
    assert!(children().is_empty(), "all that was begun has ended");

    let mut with = request();
    with.begun = runtime::begin(&with.spec);
    let (begun, status) = f.run(with);
    assert_eq!(status, ExitStatus::Code(0), "{begun}");
    let plain =
        |text: &str| text.lines().filter(|line| !line.starts_with("net:")).collect::<Vec<_>>().join(" ");
    assert_eq!(plain(&begun), plain(&told));
    assert!(begun.contains("net:") && !begun.contains(own("net").to_str().unwrap()), "{begun}");
    assert!(children().is_empty());

    // What does not fit is let go of, and what is needed made.
    let mut other = serde_json::to_value(&request().spec).unwrap();
    let mapping = other["linux"]["uidMappings"].as_array_mut().unwrap().last_mut().unwrap();
    mapping["size"] = json!(mapping["size"].as_u64().unwrap() - 1);
    let other = serde_json::from_value(other).unwrap();
    let mut with = request();
    with.begun = runtime::begin(&other);
    assert!(with.begun.is_some());
    assert_eq!(plain(&f.run(with).0), plain(&told));
    assert!(children().is_empty());

    // Whoever has killed all that was begun: the container is not made, or made another way.
    let mut with = f.request(&["true"]);
    with.begun = runtime::begin(&with.spec);
    for child in children() {
        process::pidfd_signal(process::pidfd_open(child).unwrap(), libc::SIGKILL).unwrap();
    }
    if let Ok(mut created) = runtime::create(with) {
        created.start().unwrap();
        process::wait(&created.pidfd).unwrap();
    }
    assert!(children().is_empty());
}

fn users_by_name(f: &Fixture) {
    let mut request = f.request(&["sh", "-c", "echo $HOME; id -G; pwd"]);
    request.user_by_name = Some("web".to_owned());
    request.create_cwd = true;
    request.spec.process_mut().as_mut().unwrap().set_cwd("/srv/new".into());
    let groups = if f.single { "0" } else { "0 4" };
    assert_eq!(f.run(request).0, format!("/home/web\n{groups}\n/srv/new\n"));
    let mut request = f.request(&["true"]);
    request.user_by_name = Some("nobody".to_owned());
    let error = runtime::create(request).unwrap_err();
    assert!(umiak::base::report::chain(&error).contains("unable to find user nobody"), "{error}");
}

fn errors_have_their_codes(f: &Fixture) {
    for (program, code) in [("nosuch", 127), ("/bin/nosuch", 127), ("/etc/passwd", 126), ("/etc", 126)] {
        let error = runtime::create(f.request(&[program])).unwrap_err();
        assert_eq!(error.exit_code(), code, "{program}: {}", umiak::base::report::chain(&error));
    }
    // A script whose interpreter is missing only fails at the exec itself, in the stub.
    let script = f.dir.join("upper/script");
    std::fs::write(&script, "#!/no/such\n").unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut created = runtime::create(f.request(&["/script"])).unwrap();
    assert_eq!(created.start().unwrap_err().exit_code(), 127);
    assert_eq!(process::wait(&created.pidfd).unwrap(), ExitStatus::Code(127));
}

fn a_dropped_container_dies(f: &Fixture) {
    let created = runtime::create(f.request(&["sleep", "100"])).unwrap();
    let pid = created.pid;
    drop(created);
    assert!(process::stat(pid).is_err(), "it is reaped");
}

fn the_reaping_init(f: &Fixture) {
    let mut request =
        f.request(&["sh", "-c", "(sleep 0.1 &) ; echo $$; sleep 0.3; ps | grep -c defunct; exit 9"]);
    request.init = true;
    let (out, status) = f.run(request);
    assert_eq!(status, ExitStatus::Code(9));
    let mut lines = out.lines();
    assert!(lines.next() != Some("1") && lines.next().is_some(), "{out}");
    // Signals reach the program, which an ordinary process 1 would not see.
    let mut request = f.request(&["sleep", "100"]);
    request.init = true;
    let mut created = runtime::create(request).unwrap();
    created.start().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    process::pidfd_signal(&created.pidfd, libc::SIGTERM).unwrap();
    assert_eq!(process::wait(&created.pidfd).unwrap(), ExitStatus::Code(128 + 15));
    let mut request = f.request(&["/script"]);
    request.init = true;
    let mut created = runtime::create(request).unwrap();
    assert_eq!(created.start().unwrap_err().exit_code(), 127);
    process::wait(&created.pidfd).unwrap();
}

fn terminals(f: &Fixture) {
    let mut request = f.request(&["sh", "-c", "tty; stty size; ls -l /dev/console"]);
    request.stdio = Stdio::Terminal;
    let process = request.spec.process_mut().as_mut().unwrap();
    process.set_console_size(Some(serde_json::from_value(json!({"height": 33, "width": 99})).unwrap()));
    let mut created = runtime::create(request).unwrap();
    let terminal = created.terminal.take().unwrap();
    created.start().unwrap();
    assert_eq!(process::wait(&created.pidfd).unwrap(), ExitStatus::Code(0));
    let out = read(terminal);
    assert!(out.contains("/dev/pts/0\r\n33 99\r\n") && out.contains("/dev/console"), "{out}");
}

/// A further process, with our own streams.
fn further(created: &Created, spec: &Value, args: &[&str]) -> ExecRequest {
    let mut process = spec["process"].clone();
    process["args"] = json!(args);
    ExecRequest {
        pid: created.pid,
        start_time: created.start_time,
        process: serde_json::from_value(process).unwrap(),
        user_by_name: None,
        stdio: Stdio::Inherit,
        cgroup: None,
        pidfd: None,
        own_namespaces: 0,
        seccomp: None,
        filter: None,
        answerer: None,
        preserve_fds: 0,
        preserve_list: Vec::new(),
        groups_by_name: Vec::new(),
        keep_groups: false,
        no_new_keyring: false,
        clamp_limits: false,
        state: None,
        personality: None,
        memory_policy: None,
    }
}

fn further_processes(f: &Fixture) {
    let mut created = runtime::create(f.request(&["sleep", "100"])).unwrap();
    created.start().unwrap();
    let exec = |args: &[&str], user: Option<&str>, start_time: u64| {
        let (reader, stdio) = piped();
        let mut request = further(&created, &f.spec, args);
        request.start_time = start_time;
        request.user_by_name = user.map(str::to_owned);
        request.stdio = stdio;
        let executed = runtime::exec(request)?;
        let status = process::wait(&executed.pidfd).unwrap();
        Ok::<_, runtime::Error>((read(reader), status))
    };
    let start_time = created.start_time;
    let (out, status) =
        exec(&["sh", "-c", "echo $HOME; ps | grep -c sleep; exit 4"], Some("web"), start_time).unwrap();
    assert!(out.starts_with("/home/web\n") && status == ExitStatus::Code(4), "{out}");
    assert_eq!(exec(&["nosuch"], None, start_time).unwrap_err().exit_code(), 127);
    assert_eq!(exec(&["/etc/passwd"], None, start_time).unwrap_err().exit_code(), 126);
    assert_eq!(exec(&["/script"], None, start_time).unwrap_err().exit_code(), 127);
    assert!(matches!(exec(&["true"], None, 1), Err(runtime::Error::NotRunning)), "another process");
    process::pidfd_signal(&created.pidfd, libc::SIGKILL).unwrap();
    assert_eq!(process::wait(&created.pidfd).unwrap(), ExitStatus::Signal(9));
}

/// Answers what is asked about one call, and tells what it was asked.
struct Refuses(File);

impl Consumer for Refuses {
    fn told(&self) -> Vec<Told> {
        vec![Told::always("mkdir"), Told::always("sendmsg")]
    }

    fn begin(&mut self, first: i32) -> std::io::Result<()> {
        std::fs::metadata(format!("/proc/{first}")).map(drop)
    }

    fn answer(&mut self, name: &'static str, call: &Call, listener: &Arc<Listener>) -> Option<Answer> {
        if name != "mkdir" {
            return Some(Answer::Continue);
        }
        let path = String::from_utf8(notify::read_path(call.pid, call.arguments[0]).unwrap()).unwrap();
        assert!(listener.is_waiting(call.id));
        writeln!(self.0, "{path}").unwrap();
        Some(Answer::Error(libc::EDQUOT))
    }
}

/// One process answers for all processes, born in the container or brought into it, to the last.
fn calls_are_answered(f: &Fixture) {
    let door_path = f.dir.join("door");
    let door = socket::listen(&door_path, 0o600).unwrap();
    let (asked, note) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (ours, theirs) = socket::packet_pair().unwrap();
    let consumer = Refuses(note.into());
    let profile = serde_json::from_value(f.spec["linux"]["seccomp"].clone()).unwrap();
    let changes = Changes { told: consumer.told(), ..Changes::default() };
    let filter = umiak::seccomp::compile_with(Some(&profile), &changes).unwrap();
    let options = CloneOptions { close: Some(ours.as_fd()), ..CloneOptions::default() };
    let answerer = process::spawn(options, || {
        u8::from(answer::serve(&theirs, Some(&door), vec![Box::new(consumer)]).is_err())
    })
    .unwrap();
    drop((theirs, door));
    let mut request = f.request(&["sh", "-c", "mkdir /a; sleep 100"]);
    let (reader, stdio) = piped();
    request.stdio = stdio;
    request.filter = Some(filter.clone());
    request.answerer = Some(ours);
    let mut created = runtime::create(request).unwrap();
    created.start().unwrap();
    let mut further = further(&created, &f.spec, &["sh", "-c", "mkdir /b; pwd"]);
    let (out, stdio) = piped();
    further.stdio = stdio;
    further.filter = Some(filter);
    further.answerer = Some(socket::connect(&door_path).unwrap());
    let executed = runtime::exec(further).unwrap();
    assert_eq!(process::wait(&executed.pidfd).unwrap(), ExitStatus::Code(0));
    let out = read(out);
    assert!(
        out.contains("can't create directory '/b': ") && out.contains("quota") && out.ends_with("/\n"),
        "{out}"
    );
    process::pidfd_signal(&created.pidfd, libc::SIGKILL).unwrap();
    process::wait(&created.pidfd).unwrap();
    let out = read(reader);
    assert!(out.contains("can't create directory '/a': "), "{out}");
    assert_eq!(process::wait(&answerer.pidfd).unwrap(), ExitStatus::Code(0), "it goes with the last of them");
    assert_eq!(read(asked), "/a\n/b\n");
}

fn main() {
    let Some(fixture) = Fixture::new() else { return };
    type Test = fn(&Fixture);
    let tests: [(&str, Test); 9] = [
        ("overlay_and_copy_up", overlay_and_copy_up),
        ("namespaces_begun_before", namespaces_begun_before),
        ("users_by_name", users_by_name),
        ("errors_have_their_codes", errors_have_their_codes),
        ("a_dropped_container_dies", a_dropped_container_dies),
        ("the_reaping_init", the_reaping_init),
        ("terminals", terminals),
        ("further_processes", further_processes),
        ("calls_are_answered", calls_are_answered),
    ];
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests {
        // The first failure ends it: a panic unwinds no further than the fixture's end.
        test(&fixture);
        println!("test {name} ... ok");
    }
    println!("\ntest result: ok. {} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n", tests.len());
}
