//! What is done to a container that is there: `mounts`, and an exec before its start.

use super::*;

fn mounts(b: &Bundle, action: &str, list: &Value) -> (bool, String) {
    let file = b.dir.join("mounts.json");
    std::fs::write(&file, list.to_string()).unwrap();
    let output = b.call(&["mounts", action, "c", "mounts.json"]);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn inside(b: &Bundle, script: &str) -> String {
    let output = b.call(&["exec", "c", "sh", "-c", script]);
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn source(b: &Bundle) -> PathBuf {
    let source = b.dir.join("source");
    std::fs::create_dir_all(source.join("sub")).unwrap();
    std::fs::write(source.join("file"), "outside\n").unwrap();
    own(&source, b.caller);
    source
}

#[test]
fn mounts_come_and_go() {
    each(|b| {
        let source = source(b);
        b.config["root"]["readonly"] = json!(false);
        b.args(&["sleep", "100"]);
        assert!(b.quiet(&["run", "--detach", "c"]));
        let list = json!([
            {"destination": "/new/dir", "type": "bind", "source": source, "options": ["rbind", "ro", "nosuid"]},
            {"destination": "/new/file", "source": "source/file", "options": ["bind"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "noexec"]},
        ]);
        assert_eq!(mounts(b, "add", &list), (true, String::new()));
        let said = inside(
            b,
            "cat /new/dir/file /new/file; touch /new/dir/x; touch /tmp/y && echo made; cat /proc/self/mountinfo",
        );
        assert!(said.starts_with("outside\noutside\n") && said.contains("made\n"), "{said}");
        assert!(said.contains("Read-only file system"), "{said}");
        let line =
            |place: &str| said.lines().find(|line| line.contains(place)).unwrap_or_default().to_owned();
        assert!(line(" /new/dir ").contains("ro,nosuid"), "{said}");
        assert!(line(" /tmp ").contains("noexec") && line(" /tmp ").contains("size=1024k"), "{said}");
        // Of what goes only the place counts; a configuration will do as well.
        let places = json!({"mounts": [{"destination": "/new/dir"}, {"destination": "/new/file"}, {"destination": "/tmp"}]});
        assert_eq!(mounts(b, "remove", &places), (true, String::new()));
        assert_eq!(
            inside(b, "ls /new/dir; cat /new/file; grep -c -E ' (/tmp|/new/[a-z]*) ' /proc/self/mountinfo"),
            "0\n"
        );
        let (ok, err) = mounts(b, "remove", &places);
        assert!(!ok && err == "error: unmounting \"/tmp\": nothing is mounted there\n", "{err}");
        // It has no part in the container's end.
        assert!(b.quiet(&["delete", "--force", "c"]));
        super::errors::assert_nothing_left(b, "mounts");
    });
}

#[test]
fn mounts_are_made_all_or_none() {
    each(|b| {
        let source = source(b);
        b.config["root"]["readonly"] = json!(false);
        b.args(&["sleep", "100"]);
        assert!(b.quiet(&["run", "--detach", "c"]));
        let first = json!({"destination": "/one", "source": source, "options": ["bind"]});
        for (second, expected) in [
            (
                json!({"destination": "/two", "source": "nosuch", "options": ["bind"]}),
                "no such file or directory",
            ),
            (json!({"destination": "/two", "type": "nosuchfs"}), "mounting \"nosuchfs\" at \"/two\""),
            (json!({"destination": "/two/../x", "type": "tmpfs"}), "mounts[1].destination"),
            (
                json!({"destination": "/two", "type": "tmpfs", "options": ["size=x"]}),
                "mounting \"tmpfs\" at \"/two\"",
            ),
            // What masks rely on stays what it is.
            (
                json!({"destination": "/proc", "source": source, "options": ["bind"]}),
                "over the container's proc",
            ),
            (json!({"destination": "/proc/1", "type": "tmpfs"}), "over the container's proc"),
        ] {
            let (ok, err) = mounts(b, "add", &json!([first, second]));
            assert!(!ok && err.contains(expected), "{second}: {err}");
            assert_eq!(err.lines().filter(|line| !line.starts_with("hint: ")).count(), 1, "{err}");
            assert_eq!(inside(b, "grep -c ' /one ' /proc/self/mountinfo"), "0\n", "{second}");
        }
        let said = |args: &[&str]| String::from_utf8_lossy(&b.call(args).stderr).into_owned();
        assert!(said(&["mounts", "ad", "c", "x"]).contains("did you mean \"add\"?"));
        assert!(said(&["mounts", "add", "c"]).contains("the file with the mounts is missing"));
        assert!(said(&["mounts", "add", "c", "nosuch"]).contains("no such file or directory"));
        assert!(said(&["mounts", "add", "nosuch", "x"]).contains("does not exist"));
        assert!(mounts(b, "add", &json!("x")).1.contains("the configuration"));
    });
}

#[test]
fn links_inside_lead_no_mount_out() {
    each(|b| {
        let source = source(b);
        let outside = b.dir.join("outside");
        std::fs::create_dir_all(outside.join("etc")).unwrap();
        own(&outside, b.caller);
        b.config["root"]["readonly"] = json!(false);
        symlink(&outside, b.rootfs().join("absolute")).unwrap();
        symlink("../../../../outside", b.rootfs().join("relative")).unwrap();
        symlink("/proc/1/root", b.rootfs().join("magic")).unwrap();
        own(&b.rootfs(), b.caller);
        b.args(&["sleep", "100"]);
        assert!(b.quiet(&["run", "--detach", "c"]));
        for target in ["/absolute/a", "/relative/b", "/magic/c"] {
            let list = json!([{"destination": target, "source": source, "options": ["bind"]}]);
            // Where the link leads inside, or nowhere.
            mounts(b, "add", &list);
        }
        let names: Vec<_> = std::fs::read_dir(&outside).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(names, ["etc"], "nothing is made outside");
        let own_mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!own_mounts.contains(b.dir.to_str().unwrap()), "{own_mounts}");
    });
}

#[test]
fn what_is_unmounted_does_not_depend_on_the_containers_proc() {
    each(|b| {
        // Descriptors' links that lead elsewhere: to what hides a secret.
        b.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        b.config["linux"].as_object_mut().unwrap().remove("maskedPaths");
        b.config["linux"].as_object_mut().unwrap().remove("readonlyPaths");
        b.config["mounts"].as_array_mut().unwrap().push(json!({"destination": "/secret", "type": "tmpfs"}));
        let links = b.rootfs().join("proc/self/fd");
        std::fs::create_dir_all(&links).unwrap();
        for number in 0..64 {
            symlink("/secret", links.join(number.to_string())).unwrap();
        }
        b.config["root"]["readonly"] = json!(false);
        own(&b.rootfs(), b.caller);
        b.args(&["sleep", "100"]);
        assert!(b.quiet(&["run", "--detach", "c"]));
        let list = json!([{"destination": "/tmp", "type": "tmpfs"}]);
        assert_eq!(mounts(b, "add", &list), (true, String::new()));
        assert_eq!(inside(b, "touch /tmp/in-memory; ls /tmp /secret"), "/secret:\n\n/tmp:\nin-memory\n");
        assert_eq!(mounts(b, "remove", &list), (true, String::new()));
        assert_eq!(inside(b, "ls /tmp /secret"), "/secret:\n\n/tmp:\n");
    });
}

#[test]
fn a_container_can_be_entered_before_its_start() {
    let caller = callers()[0];
    let Some(mut b) = Bundle::new(caller) else { return };
    b.args(&["sleep", "100"]);
    assert!(b.quiet(&["create", "c"]));
    if caller.uid != 0 {
        // The kernel lets nobody else look into what is still a copy of the runtime.
        let refused = "a container that is not started, but as root\nhint: ";
        assert!(inside(&b, "true").contains(refused), "{}", inside(&b, "true"));
        let (ok, err) = mounts(&b, "add", &json!([{"destination": "/tmp", "type": "tmpfs"}]));
        assert!(!ok && err.contains(refused), "{err}");
        return;
    }
    assert_eq!(
        inside(&b, "echo $$ >/dev/null; ls -d /secret; cat /proc/sys/kernel/hostname"),
        "/secret\numiak\n"
    );
    assert_eq!(mounts(&b, "add", &json!([{"destination": "/tmp", "type": "tmpfs"}])), (true, String::new()));
    assert!(b.quiet(&["start", "c"]));
    assert!(inside(&b, "cat /proc/1/cmdline; grep ' /tmp ' /proc/self/mountinfo").contains("sleep"));
}
