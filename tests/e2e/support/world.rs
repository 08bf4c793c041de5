//! The binary with a store, a runtime directory and an environment of its own.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up. A safety net, not a measure: other tests, and the guest, run
/// beside it.
const PATIENCE: Duration = Duration::from_secs(300);

/// One test's own umiak. Dropping it removes its containers and checks that nothing is left.
pub struct Umiak {
    /// A private directory, also for the test's own files.
    pub dir: PathBuf,
    /// Whose commands they are, if not the test's own user's.
    pub user: Option<Account>,
    env: Vec<(String, String)>,
    ids: RefCell<Vec<String>>,
}

/// An ordinary user of the machine.
pub struct Account {
    /// As `strace -u` takes it.
    pub name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// One with subordinate ids.
    pub fn with_many_ids() -> Option<Self> {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let (subuid, passwd) = (read("/etc/subuid"), read("/etc/passwd"));
        let known = |name: &str| subuid.lines().any(|line| line.split(':').next() == Some(name));
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, ..] = fields[..] else { return None };
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            (uid != 0 && known(name)).then(|| Self { name: name.to_owned(), uid, gid })
        })
    }
}

impl Umiak {
    /// A world without images.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::temp_dir();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = base.join(format!("umiak-e2e-{}-{number}", std::process::id()));
        for part in ["", "home", "run", "tmp"] {
            std::fs::create_dir(dir.join(part)).unwrap();
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode;
        std::fs::set_permissions(dir.join("run"), mode(0o700)).unwrap();
        let text = |part: &str| dir.join(part).to_str().unwrap().to_owned();
        let env = vec![
            ("HOME".to_owned(), text("home")),
            ("XDG_RUNTIME_DIR".to_owned(), text("run")),
            ("TMPDIR".to_owned(), text("tmp")),
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
            ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
            ("TERM".to_owned(), "xterm".to_owned()),
        ];
        let mut umiak = Self { dir, user: None, env, ids: RefCell::default() };
        // All tests of networks can be run on one rung of the ladder.
        if let Ok(rung) = std::env::var("UMIAK_NETWORK_RUNG") {
            umiak.set_env("UMIAK_NETWORK_RUNG", &rung);
        }
        umiak
    }

    /// A world with `busybox` of another user's than the test's, who is root.
    pub fn of_user(account: Account) -> Self {
        let mut umiak = Self::new();
        let image = umiak.readable_image("busybox");
        for part in ["", "home", "run", "tmp"] {
            std::os::unix::fs::chown(umiak.dir.join(part), Some(account.uid), Some(account.gid)).unwrap();
        }
        umiak.user = Some(account);
        umiak.run(&["pull", "-q", &format!("oci:{}:localhost/busybox:latest", image.display())]).ok();
        umiak
    }

    /// A copy of a test image's layout that every user can read: the images may be in root's own cache.
    pub fn readable_image(&self, image: &str) -> PathBuf {
        let copy = self.dir.join(format!("image-{image}"));
        let source = super::images().join(image);
        assert!(Command::new("cp").arg("-r").arg(source).arg(&copy).status().unwrap().success());
        assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(&copy).status().unwrap().success());
        copy
    }

    /// A world that has `image` of `scripts/make-images` as `localhost/IMAGE:latest`.
    pub fn with_image(image: &str) -> Self {
        let umiak = Self::new();
        umiak.pull(image);
        umiak
    }

    /// A world with `busybox`.
    pub fn with_busybox() -> Self {
        Self::with_image("busybox")
    }

    /// Pulls a test image from its layout.
    pub fn pull(&self, image: &str) {
        let source = format!("oci:{}:localhost/{image}:latest", super::images().join(image).display());
        self.run(&["pull", "-q", &source]).ok();
    }

    /// Adds a variable to the environment of every later command.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// A file of the test's own.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The binary under test.
    pub fn binary() -> PathBuf {
        std::env::var_os("UMIAK_TEST_BIN").map_or_else(|| env!("CARGO_BIN_EXE_umiak").into(), PathBuf::from)
    }

    /// The command, ready to be started, with the global options of this world.
    pub fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        self.command_elsewhere(&self.dir.join("store"), args)
    }

    /// The command with a store at another place.
    fn command_elsewhere<A: AsRef<OsStr>>(&self, root: &Path, args: &[A]) -> Command {
        let mut command = Command::new(Self::binary());
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.arg("--root").arg(root).arg("--runroot").arg(self.dir.join("run/umiak"));
        command.args(args).current_dir(&self.dir).stdin(Stdio::null());
        if let Some(account) = &self.user {
            use std::os::unix::process::CommandExt;
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Runs a command to its end.
    #[must_use = "a command's result must be asserted"]
    pub fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> Output {
        self.run_with_input(args, b"")
    }

    /// Runs a command with `input` on its standard input.
    #[must_use = "a command's result must be asserted"]
    pub fn run_with_input<A: AsRef<OsStr>>(&self, args: &[A], input: &[u8]) -> Output {
        let mut command = self.command(args);
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = finish(child, input, describe(args));
        self.remember(&output.stdout);
        output
    }

    /// Tells a container that waits for the file `/go`. It may have ended, and with it the program that
    /// makes the file, before that program has.
    pub fn let_go(&self, name: &str) {
        let output = self.run(&["exec", name, "touch", "/go"]);
        assert!(matches!(output.code, Some(0 | 137)), "{}", output.stderr);
    }

    /// Runs a command with a store at another place.
    #[must_use = "a command's result must be asserted"]
    pub fn run_elsewhere<A: AsRef<OsStr>>(&self, root: &Path, args: &[A]) -> Output {
        let mut command = self.command_elsewhere(root, args);
        finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), b"", describe(args))
    }

    /// Starts a command and leaves it running, with pipes on all three streams.
    pub fn spawn<A: AsRef<OsStr>>(&self, args: &[A]) -> Child {
        let mut command = self.command(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Starts a detached container and returns its id.
    pub fn detached(&self, args: &[&str]) -> String {
        let args: Vec<&str> = ["run", "-d"].iter().chain(args).copied().collect();
        let id = self.run(&args).ok().stdout.trim().to_owned();
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "no container id: {id:?}");
        id
    }

    /// A field of `inspect`.
    pub fn inspect(&self, name: &str, format: &str) -> String {
        self.run(&["inspect", "--format", format, name]).ok().stdout.trim_end_matches('\n').to_owned()
    }

    /// `inspect`'s whole JSON of one container or image.
    pub fn inspect_json(&self, name: &str) -> serde_json::Value {
        let text = self.run(&["inspect", name]).ok().stdout;
        let mut list: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        assert_eq!(list.len(), 1, "{text}");
        list.remove(0)
    }

    /// The status that is derived for a container.
    pub fn status(&self, name: &str) -> String {
        self.inspect(name, "{{.State.Status}}")
    }

    /// Waits until a container has a status.
    pub fn until_status(&self, name: &str, status: &str) {
        eventually(&format!("{name} is {status}"), || self.status(name) == status);
    }

    fn remember(&self, stdout: &str) {
        let ids =
            stdout.lines().filter(|line| line.len() == 64 && line.bytes().all(|b| b.is_ascii_hexdigit()));
        self.ids.borrow_mut().extend(ids.map(str::to_owned));
    }

    /// Removes all containers and images, then fails if a process, mount, cgroup or half-done
    /// directory is left.
    pub fn check_nothing_left(&self) {
        self.run(&["rm", "--all", "--force", "--time", "0"]).ok();
        let containers = self.run(&["ps", "--all", "--quiet"]).ok().stdout;
        assert_eq!(containers, "", "containers that cannot be removed");
        eventually("no process of this test is left", || processes(&self.dir).is_empty());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let left: Vec<&str> =
            mounts.lines().filter(|line| line.contains(self.dir.to_str().unwrap())).collect();
        assert!(left.is_empty(), "mounts are left: {left:?}");
        let mut cgroups = Vec::new();
        named(Path::new("/sys/fs/cgroup"), &self.ids.borrow(), 0, &mut cgroups);
        assert!(cgroups.is_empty(), "cgroups are left: {cgroups:?}");
        for part in ["staging", "trash", "containers", "names"] {
            let dir = self.dir.join("store").join(part);
            let left: Vec<_> =
                std::fs::read_dir(&dir).into_iter().flatten().map(|e| e.unwrap().path()).collect();
            assert!(left.is_empty(), "left in the store: {left:?}");
        }
    }
}

impl Drop for Umiak {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The first failure is the one to tell; only tidy up.
            let _ = self.command(&["rm", "--all", "--force", "--time", "0"]).output();
        } else if self.dir.join("store").exists() {
            self.check_nothing_left();
        }
        // Files of subordinate ids go only through umiak itself.
        let _ = self.command(&["rmi", "--all", "--force"]).output();
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("{} stays: {error}", self.dir.display());
        }
    }
}

/// The processes that have `dir` in their command line, environment or mounts.
pub fn processes(dir: &Path) -> Vec<i32> {
    let needle = dir.to_str().unwrap().as_bytes();
    let mine = std::process::id() as i32;
    let names = |pid: i32, file: &str| {
        let content = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        content.windows(needle.len()).any(|window| window == needle)
    };
    let all = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    all.filter(|pid: &i32| {
        *pid != mine && ["cmdline", "environ", "mountinfo"].iter().any(|file| names(*pid, file))
    })
    .collect()
}

/// Directories below `dir` whose name holds one of `ids`.
fn named(dir: &Path, ids: &[String], depth: usize, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if depth > 8 || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if ids.iter().any(|id| entry.file_name().to_string_lossy().contains(id.as_str())) {
            found.push(entry.path());
        }
        named(&entry.path(), ids, depth + 1, found);
    }
}

/// Waits for something that must come true.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn describe<A: AsRef<OsStr>>(args: &[A]) -> String {
    let args: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
    format!("umiak {}", args.join(" "))
}

/// Feeds a started command, collects what it says and waits for its end.
#[must_use = "a command's result must be asserted"]
pub fn finish(mut child: Child, input: &[u8], command: String) -> Output {
    let reader = |stream: Option<Box<dyn Read + Send>>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            if let Some(mut stream) = stream {
                stream.read_to_end(&mut bytes).unwrap();
            }
            bytes
        })
    };
    let stdout = reader(child.stdout.take().map(|s| Box::new(s) as _));
    let stderr = reader(child.stderr.take().map(|s| Box::new(s) as _));
    if let Some(mut stdin) = child.stdin.take() {
        // The command may end without reading everything.
        let _ = stdin.write_all(input);
    }
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("{command}: does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let bytes = stdout.join().unwrap();
    Output {
        command,
        code: status.code(),
        stdout: String::from_utf8_lossy(&bytes).into_owned(),
        bytes,
        stderr: String::from_utf8_lossy(&stderr.join().unwrap()).into_owned(),
    }
}

/// What a command said, and its exit code.
pub struct Output {
    command: String,
    /// `None`: killed by a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub bytes: Vec<u8>,
    pub stderr: String,
}

impl Output {
    fn fail(&self, why: &str) -> ! {
        panic!(
            "{}: {why}\nexit code: {:?}\nstdout:\n{}\nstderr:\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }

    /// Exit code 0.
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// This exit code.
    pub fn exits(self, code: i32) -> Self {
        if self.code != Some(code) {
            self.fail(&format!("exit code {code} was expected"));
        }
        self
    }

    /// Exactly this on standard output, but for the last newline.
    pub fn says(self, expected: &str) -> Self {
        if self.stdout.strip_suffix('\n').unwrap_or(&self.stdout) != expected {
            self.fail(&format!("standard output should be {expected:?}"));
        }
        self
    }

    /// This somewhere on standard output.
    pub fn has(self, part: &str) -> Self {
        if !self.stdout.contains(part) {
            self.fail(&format!("standard output should contain {part:?}"));
        }
        self
    }

    /// This nowhere on standard output.
    pub fn lacks(self, part: &str) -> Self {
        if self.stdout.contains(part) {
            self.fail(&format!("standard output should not contain {part:?}"));
        }
        self
    }

    /// One clear line that starts with `error: ` and contains this; at most a hint follows.
    pub fn tells(self, part: &str) -> Self {
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        if errors.len() != 1 || !errors[0].to_lowercase().contains(&part.to_lowercase()) {
            self.fail(&format!("one error line should contain {part:?}"));
        }
        if let Some(other) =
            self.stderr.lines().find(|l| ["panicked", "Os {", "Some("].iter().any(|w| l.contains(w)))
        {
            self.fail(&format!("not a text for people: {other}"));
        }
        self
    }

    /// A line that starts with `hint: ` and contains this.
    pub fn hints(self, part: &str) -> Self {
        let mut hints = self.stderr.lines().filter(|line| line.starts_with("hint: "));
        if !hints.any(|line| line.to_lowercase().contains(&part.to_lowercase())) {
            self.fail(&format!("a hint should contain {part:?}"));
        }
        self
    }

    /// Nothing on standard error.
    pub fn quiet(self) -> Self {
        if !self.stderr.is_empty() {
            self.fail("standard error should be empty");
        }
        self
    }
}
