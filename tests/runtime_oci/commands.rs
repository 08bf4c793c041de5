//! The command line: options, output, exit codes.

use super::*;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn many_containers_by_a_regular_expression() {
    each(|b| {
        b.args(&["sleep", "100"]);
        let (first, second) = (format!("{}-a", b.id), format!("{}-b", b.id));
        for id in [&first, &second] {
            assert!(b.quiet(&["run", "--detach", id]));
        }
        let pattern = format!("^{}-[ab]$", b.id);
        assert!(b.quiet(&["kill", "--regex", &pattern, "KILL"]));
        assert!(b.quiet(&["delete", "--force", "--regex", &pattern]));
        assert_eq!(text(&b.call(&["list", "--quiet"]).stdout), "");
        assert!(!b.quiet(&["delete", "--regex", "("]));
    });
}

#[test]
fn processes_of_an_exec_as_they_are_asked_for() {
    each(|b| {
        b.args(&["sleep", "100"]);
        assert!(b.quiet(&["run", "--detach", "c"]));
        let exec = |args: &[&str]| {
            let all: Vec<&str> = [&["exec"], args].concat();
            let output = b.call(&all);
            (text(&output.stdout), text(&output.stderr))
        };
        let (out, err) = exec(&[
            "--env",
            "PATH=/bin:/x",
            "-e",
            "NEW=1",
            "--cwd",
            "/tmp",
            "c",
            "sh",
            "-c",
            "echo $PATH $NEW; pwd",
        ]);
        assert_eq!(out, "/bin:/x 1\n/tmp\n", "{err}");
        let (out, err) =
            exec(&["--cap", "CAP_SYS_CHROOT,CAP_NEW", "c", "grep", "CapEff", "/proc/self/status"]);
        assert_eq!(out, "CapEff:\t0000000020040420\n", "{err}");
        assert!(err.contains("warning: --cap: \"CAP_NEW\" is unknown"), "{err}");
        let (out, err) = exec(&["--user", "root", "c", "id", "-u"]);
        assert_eq!(out, "0\n", "{err}");
        assert!(exec(&["--user", "nosuch", "c", "id"]).1.contains("nosuch"));
        assert!(exec(&["--user", ":1", "c", "id"]).1.contains("invalid value \":1\" of --user"));
        if b.caller.uid == 0 {
            assert_eq!(exec(&["--user", "7:8", "-g", "9", "-g", "10", "c", "id", "-G"]).0, "8 9 10\n");
        }
        assert!(exec(&["--console-socket", "/x", "c", "true"]).1.contains("needs a terminal"));
        if !Path::new("/sys/kernel/security/apparmor").exists() {
            assert!(exec(&["--apparmor", "p", "c", "true"]).1.contains("AppArmor is not there"));
        }
        let output = b.call(&["exec", "c"]);
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(255), "error: the program is missing\n".into())
        );
    });
}

#[test]
fn help_version_and_features() {
    let b = Bundle::new(callers()[0]).unwrap();
    let out = |args: &[&str]| {
        let output = b.call(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    assert!(out(&["--version"]).starts_with("umiak-runtime version "));
    assert!(out(&["--help"]).contains("\n  create "));
    for command in [
        "create",
        "start",
        "run",
        "exec",
        "state",
        "list",
        "kill",
        "delete",
        "features",
        "spec",
        "checkpoint",
        "restore",
        "mounts",
    ] {
        let help = out(&[command, "--help"]);
        assert!(help.starts_with(&format!("Usage: umiak-runtime {command} ")), "{help}");
        assert_eq!(help, out(&["help", command]));
    }
    let features: Value = serde_json::from_str(&out(&["features"])).unwrap();
    for pointer in ["/linux/seccomp/actions", "/linux/memoryPolicy/modes", "/mountOptions", "/hooks"] {
        assert!(
            features.pointer(pointer).is_some_and(|list| list.as_array().unwrap().len() > 3),
            "{pointer}"
        );
    }
    // Every namespace that is said to be there is accepted.
    assert!(features["linux"]["mountExtensions"]["idmap"]["enabled"].as_bool().unwrap());
}

#[test]
fn mistakes_on_the_command_line() {
    let b = Bundle::new(callers()[0]).unwrap();
    let err = |args: &[&str], code: i32| {
        let output = b.call(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        text(&output.stderr)
    };
    assert_eq!(err(&["craete", "x"], 1), "error: unknown command \"craete\" (did you mean \"create\"?)\n");
    assert_eq!(err(&["create", "--nosuch", "x"], 1), "error: unknown option \"--nosuch\"\n");
    assert_eq!(err(&["create"], 1), "error: the container id is missing\n");
    assert_eq!(err(&["start", "a", "b"], 1), "error: unexpected argument \"b\"\n");
    assert!(err(&["--log-format", "xml", "list"], 1).contains("--log-format"));
    assert!(err(&["--log-level", "loud", "list"], 1).contains("--log-level"));
    assert!(
        err(&["--log", "/nosuch/dir/log", "list"], 1)
            .contains("opening the log \"/nosuch/dir/log\": no such file")
    );
    assert!(err(&["--rootless", "perhaps", "list"], 1).contains("--rootless"));
    assert!(err(&["--cgroup-manager", "x", "list"], 1).contains("--cgroup-manager"));
    assert!(err(&["mounts", "add"], 1).contains("the container id is missing"));
    assert!(err(&["checkpoint", "x"], 1).contains("\"x\" does not exist"));
    assert!(err(&["restore", "--no-pivot", "x"], 1).contains("restore --no-pivot is not supported yet"));
    assert!(err(&["restore", "--empty-ns", "mount", "x"], 1).contains("--empty-ns"));
    assert!(err(&["restore", "--manage-cgroups-mode", "odd", "x"], 1).contains("--manage-cgroups-mode"));
    assert!(err(&["restore", "--network-lock", "odd", "x"], 1).contains("--network-lock"));
    assert!(err(&["kill", "x", "NOSUCH"], 1).contains("NOSUCH"));
    assert!(err(&["create", "a/b"], 1).contains("invalid container id"));
}

#[test]
fn a_control_group_can_be_demanded() {
    each(|b| {
        let output =
            b.args(&["true"]).call(&["--rootless=false", "--cgroup-manager", "disabled", "run", "c"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output.stderr).starts_with("error: --rootless=false: the container has no control group")
        );
        assert_eq!(std::fs::read_dir(b.dir.join("state")).unwrap().count(), 0);
        assert!(b.call(&["--rootless=true", "--cgroup-manager", "disabled", "run", "c"]).status.success());
    });
}

#[test]
fn a_terminal_needs_somebody_to_have_it() {
    each(|b| {
        b.config["process"]["terminal"] = json!(true);
        let output = b.call(&["create", "c"]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(
            text(&output.stderr),
            "error: process.terminal: a detached terminal needs --console-socket\n"
        );
        b.config["process"]["terminal"] = json!(false);
        let output = b.call(&["create", "--console-socket", "/x", "c"]);
        assert!(text(&output.stderr).contains("--console-socket needs a terminal"));
        assert_eq!(std::fs::read_dir(b.dir.join("state")).unwrap().count(), 0);
    });
}

#[test]
fn the_log_is_as_its_reader_wants_it() {
    each(|b| {
        b.config["process"]["capabilities"]["bounding"] = json!(["CAP_FUTURE"]);
        b.config["process"]["args"] = json!(["nosuch"]);
        for (format, warning, error) in [
            (
                "json",
                "{\"level\":\"warning\",\"msg\":\"process.capabilities",
                "{\"level\":\"error\",\"msg\":\"exec: ",
            ),
            ("text", "level=warning msg=\"process.capabilities", "level=error msg=\"exec: "),
        ] {
            let log = format!("log-{format}");
            let output = b.call(&["--log", &log, "--log-format", format, "run", "c"]);
            assert_eq!(output.status.code(), Some(1));
            let written = std::fs::read_to_string(b.dir.join(&log)).unwrap();
            assert!(written.contains(warning) && written.contains(error), "{written}");
        }
        let output = b.call(&["--log", "log-quiet", "--log-level", "error", "run", "c"]);
        assert!(!text(&output.stderr).contains("warning"));
        assert!(!std::fs::read_to_string(b.dir.join("log-quiet")).unwrap().contains("warning"));
        b.call(&["--debug", "--log", "log-debug", "list"]);
        assert!(
            std::fs::read_to_string(b.dir.join("log-debug")).unwrap().contains("level=debug msg=\"list\"")
        );
    });
}

#[test]
fn a_kill_reaches_all_where_the_init_is_not_the_first_process() {
    let caller = callers()[0];
    if caller.uid != 0 {
        // It may have no control group, and then nothing knows of the others.
        return skip("only root surely has control groups", true);
    }
    let mut b = Bundle::new(caller).unwrap();
    b.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "pid");
    b.args(&["sh", "-c", "sleep 100 & exec sleep 100"]);
    assert!(b.quiet(&["run", "--detach", "c"]));
    assert!(b.quiet(&["kill", "c", "0"]), "it is there");
    assert!(b.quiet(&["kill", "c", "KILL"]));
    let state = || -> Value { serde_json::from_slice(&b.call(&["state", "c"]).stdout).unwrap() };
    let processes =
        || super::errors::left(&b).into_iter().filter(|left| left.starts_with("process")).collect::<Vec<_>>();
    for _ in 0..500 {
        if processes().is_empty() && state()["status"] == "stopped" {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(processes(), Vec::<String>::new());
    assert!(!b.quiet(&["kill", "c", "0"]));
    assert!(b.quiet(&["delete", "c"]));
}
