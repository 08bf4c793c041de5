//! Builds of Dockerfiles and contexts that nobody vouches for, what their steps are known by, and what is left of
//! builds that were killed.

use std::path::{Path, PathBuf};

use crate::requires;
use crate::support::{Need, Output, Umiak, eventually};

/// A context with this Dockerfile.
fn context(umiak: &Umiak, name: &str, dockerfile: &str) -> PathBuf {
    let dir = umiak.dir.join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("Dockerfile"), dockerfile).unwrap();
    dir
}

#[must_use = "a command's result must be asserted"]
fn build(umiak: &Umiak, dir: &Path, options: &[&str]) -> Output {
    umiak.run(&[&["build", "--network", "none", "-t", "made"], options, &[dir.to_str().unwrap()]].concat())
}

/// What a script says in a container of `made`.
fn sh(umiak: &Umiak, script: &str) -> String {
    let run = ["run", "--rm", "--network", "none", "--user", "0", "made", "sh", "-c", script];
    umiak.run(&run).ok().stdout.trim_end().to_owned()
}

#[test]
fn a_step_is_known_by_all_that_it_can_tell() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox\nRUN --mount=type=bind,target=/c cat /c/d/f /c/x* > /f; grep one /etc/hosts > /h; true\n";
    let dir = context(&umiak, "context", text);
    std::fs::create_dir(dir.join("d")).unwrap();
    std::fs::write(dir.join("d/f"), "first").unwrap();
    std::fs::write(dir.join("x[y]"), "-").unwrap();
    let host = ["--add-host", "one:192.0.2.1"];
    let cached = |options: &[&str]| build(&umiak, &dir, options).ok().stdout.contains("Using cache");
    assert!(!cached(&host));
    assert!(cached(&host));
    assert_eq!(sh(&umiak, "cat /f"), "first-");
    std::fs::write(dir.join("d/f"), "second").unwrap();
    assert!(!cached(&host), "the files that it had mounted are others");
    assert_eq!(sh(&umiak, "cat /f"), "second-");
    assert!(!cached(&["--add-host", "one:192.0.2.2"]));
    assert!(sh(&umiak, "cat /h").starts_with("192.0.2.2"));
    for options in [&["--cap-drop", "chown"][..], &["--shm-size", "1m"], &["--volume", "/tmp:/v"]] {
        assert!(!cached(options), "{options:?}");
        assert!(cached(options), "{options:?}");
    }
    // One file, with a name that would be a pattern.
    let text = "FROM busybox\nRUN --mount=type=bind,source=x[y],target=/c cat /c > /f\n";
    std::fs::write(dir.join("Dockerfile"), text).unwrap();
    assert!(!cached(&[]));
    std::fs::write(dir.join("d/f"), "third").unwrap();
    assert!(cached(&[]), "only that one counts");
    std::fs::write(dir.join("x[y]"), "+").unwrap();
    assert!(!cached(&[]));
    assert_eq!(sh(&umiak, "cat /f"), "+");
}

#[test]
fn times_that_are_asked_for_are_those_of_all_files() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(&umiak, "context", "FROM busybox\nCOPY Dockerfile /c\nRUN echo > /r\nWORKDIR /w\n");
    build(&umiak, &dir, &[]).ok();
    for time in ["100", "200"] {
        build(&umiak, &dir, &["--timestamp", time]).ok().lacks("Using cache");
        assert_eq!(sh(&umiak, "stat -c %Y /c /r /w"), [time; 3].join("\n"));
    }
    build(&umiak, &dir, &["--timestamp", "100"]).ok().has("Using cache");
}

#[test]
fn stages_whose_need_is_seen_late_are_built_then() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let trigger = context(&umiak, "trigger", "FROM busybox\nONBUILD COPY --from=tools /tool /of-trigger\n");
    umiak.run(&["build", "-q", "-t", "trigger", trigger.to_str().unwrap()]).ok();
    let text = "FROM busybox AS unused\nRUN exit 1\n\
        FROM busybox AS below\nLABEL below=it\n\
        FROM below AS tools\nRUN echo it > /tool\n\
        FROM trigger\nARG PLACE=tools\nCOPY --from=$PLACE /tool /of-variable\n";
    let dir = context(&umiak, "context", text);
    build(&umiak, &dir, &[]).ok();
    assert_eq!(sh(&umiak, "cat /of-trigger /of-variable"), "it\nit");
    std::fs::write(dir.join("Dockerfile"), text.replace("echo it > /tool", "exit 7")).unwrap();
    build(&umiak, &dir, &[]).exits(7).tells("line 6");
}

#[test]
fn a_working_directory_is_its_users() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox\nRUN echo 'joe:x:77:78::/:/bin/sh' >> /etc/passwd\n\
        USER joe\nWORKDIR /home/joe/work\nRUN echo mine > file\n\
        USER nobody-at-all\nWORKDIR /of-nobody\nUSER 5:6\nWORKDIR /five\nUSER 9\nWORKDIR /five\n";
    let dir = context(&umiak, "context", text);
    build(&umiak, &dir, &[]).ok();
    let owners = sh(&umiak, "stat -c %u:%g /home/joe /home/joe/work /of-nobody /five");
    assert_eq!(owners, "77:78\n77:78\n0:0\n5:6");
}

#[test]
fn secrets_of_killed_builds_go_with_the_next_command() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let secret = umiak.file("secret", "of-a-file");
    let text = "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s; sleep 1000\n";
    let dir = context(&umiak, "context", text);
    let option = format!("id=s,src={}", secret.display());
    let mut child = umiak.spawn(&["build", "--network", "none", "--secret", &option, dir.to_str().unwrap()]);
    let steps = || umiak.run(&["ps", "-q", "--external"]).ok().stdout;
    eventually("the step runs", || !steps().is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("no step is left", || steps().is_empty());
    umiak.run(&["system", "check"]).ok();
    let found = std::process::Command::new("grep")
        .args(["-rlF", "of-a-file"])
        .args([umiak.dir.join("run"), umiak.dir.join("store")])
        .output();
    assert_eq!(String::from_utf8(found.unwrap().stdout).unwrap(), "");
}

#[test]
fn what_is_made_to_mount_on_is_not_in_the_image() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox\nRUN ln -s /usr/tools /tools && ln -s ../../../etc /e && mkdir -p /usr/tools\n\
        RUN --mount=type=bind,source=Dockerfile,target=/tools/one --mount=type=tmpfs,target=/e/two/three \
        test -s /usr/tools/one && test -d /etc/two/three\n";
    let dir = context(&umiak, "context", text);
    build(&umiak, &dir, &[]).ok();
    assert_eq!(sh(&umiak, "ls -A /usr/tools; test -e /etc/two || echo none"), "none");
}

/// Swaps two names of a directory as fast as it can until it is dropped.
struct Swapping {
    end: std::sync::Arc<std::sync::atomic::AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Swapping {
    fn of(dir: &Path, one: &str, other: &str) -> Self {
        let end = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (ended, one, other) = (end.clone(), dir.join(one), dir.join(other));
        let work = move || {
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, exchange).unwrap();
            }
        };
        Self { end, thread: Some(std::thread::spawn(work)) }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.end.store(true, std::sync::atomic::Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn links_put_in_the_place_of_what_is_mounted_do_not_lead_out() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox\nRUN --mount=type=bind,source=d,target=/m ls /m\n";
    let dir = context(&umiak, "context", text);
    std::fs::create_dir(dir.join("d")).unwrap();
    std::fs::write(dir.join("d/of-the-context"), "").unwrap();
    let outside = umiak.dir.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("of-the-host"), "").unwrap();
    std::os::unix::fs::symlink(&outside, dir.join("l")).unwrap();
    let swapping = Swapping::of(&dir, "d", "l");
    for _ in 0..15 {
        // It succeeds, or finds nothing.
        let told = build(&umiak, &dir, &["--no-cache"]);
        assert!(matches!(told.code, Some(0 | 125)), "{:?}: {}", told.code, told.stderr);
        told.lacks("of-the-host");
    }
    drop(swapping);
    umiak.check_nothing_left();
}
