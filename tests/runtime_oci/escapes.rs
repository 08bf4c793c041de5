//! Ways out of a container that were open in other runtimes once, each tried through the runtime's face
//! with a rootfs or a configuration that is made for it.

use std::os::unix::fs::FileTypeExt;

use super::*;

/// What must be the same afterwards.
fn bait(b: &Bundle) -> PathBuf {
    let bait = b.dir.join("bait");
    std::fs::create_dir_all(&bait).unwrap();
    std::fs::write(bait.join("file"), "untouched\n").unwrap();
    own(&bait, b.caller);
    bait
}

fn assert_untouched(bait: &Path) {
    assert_eq!(std::fs::read_to_string(bait.join("file")).unwrap(), "untouched\n");
    assert_eq!(std::fs::read_dir(bait).unwrap().count(), 1, "something was made in {}", bait.display());
}

fn replace(path: &Path, target: impl AsRef<Path>) {
    let _ = std::fs::remove_file(path);
    let _ = std::fs::remove_dir_all(path);
    symlink(target, path).unwrap();
}

/// CVE-2019-5736: the runtime's own file, by `/proc/self/exe`, by process 1's and by that of an exec.
#[test]
fn cve_2019_5736_the_runtimes_file_cannot_be_written() {
    each(|b| {
        let binary = b.dir.join("umiak");
        let before = std::fs::read(&binary).unwrap();
        b.config["root"]["readonly"] = json!(false);
        // The sealed stub that starts programs may be looked at; it is no file.
        let reach = "while :; do for p in /proc/[0-9]*; do { echo overwritten >$p/exe; } 2>/dev/null; \
            { : <$p/exe && cat $p/maps; } 2>/dev/null | grep -q '/umiak$' && echo reached >/tmp/reached; done; done";
        b.args(&["sh", "-c", reach]);
        assert!(b.quiet(&["run", "--detach", "c"]));
        // A library or an interpreter that is the runtime itself would be run as the host's root.
        std::fs::write(b.rootfs().join("bin/self"), "#!/proc/self/exe\n").unwrap();
        std::fs::set_permissions(b.rootfs().join("bin/self"), PermissionsExt::from_mode(0o755)).unwrap();
        for _ in 0..10 {
            let output = b.call(&["exec", "c", "/bin/self", "runtime", "--version"]);
            assert!(!String::from_utf8_lossy(&output.stdout).contains("umiak"), "it ran inside");
            let output = b.call(&["exec", "c", "/proc/self/exe", "runtime", "--version"]);
            assert!(!String::from_utf8_lossy(&output.stdout).contains("umiak"), "it ran inside");
        }
        assert!(!b.rootfs().join("tmp/reached").exists(), "a process of ours could be looked into");
        assert!(b.quiet(&["delete", "--force", "c"]));
        assert!(std::fs::read(&binary).unwrap() == before, "the runtime was changed");
    });
}

/// CVE-2021-30465: a mount's place that a link of the rootfs, or a volume with one, leads out.
#[test]
fn cve_2021_30465_links_lead_no_mount_out() {
    each(|b| {
        let bait = bait(b);
        b.config["root"]["readonly"] = json!(false);
        // A volume that two containers share, in which one has put the link.
        let shared = b.dir.join("shared");
        std::fs::create_dir(&shared).unwrap();
        symlink(&bait, shared.join("absolute")).unwrap();
        symlink("../../../../../../../..".to_owned() + bait.to_str().unwrap(), shared.join("relative"))
            .unwrap();
        symlink("/proc/self/root", shared.join("magic")).unwrap();
        own(&shared, b.caller);
        let good = b.config.clone();
        for place in ["/v/absolute/x", "/v/relative/x", "/v/magic/x", "/v/absolute", "/v/relative"] {
            for mount in [
                json!({"destination": place, "type": "tmpfs"}),
                json!({"destination": place, "source": "rootfs/etc", "options": ["bind"]}),
                json!({"destination": place, "source": "rootfs/etc/passwd", "options": ["bind"]}),
            ] {
                b.config = good.clone();
                let mounts = b.config["mounts"].as_array_mut().unwrap();
                mounts.push(json!({"destination": "/v", "source": shared, "options": ["rbind"]}));
                mounts.push(mount);
                // It may be refused, or made where the link leads inside.
                b.args(&["true"]).run();
                assert_untouched(&bait);
            }
        }
        // The race itself: a link that comes and goes while mounts are made.
        b.config = good;
        let flip = b.rootfs().join("flip");
        let mounts = b.config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/flip/x", "type": "tmpfs"}));
        let (done, caller) = (std::sync::atomic::AtomicBool::new(false), b.caller);
        b.args(&["true"]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let _ = std::fs::remove_dir_all(&flip);
                    let _ = symlink(&bait, &flip);
                    let _ = std::fs::remove_file(&flip);
                    let _ = std::fs::create_dir(&flip);
                    let _ = std::os::unix::fs::lchown(&flip, Some(caller.uid), Some(caller.gid));
                }
            });
            for _ in 0..30 {
                b.run();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_untouched(&bait);
    });
}

/// CVE-2024-21626: a working directory, or a program, that is a leaked descriptor of the host's.
#[test]
fn cve_2024_21626_no_descriptor_leads_out() {
    each(|b| {
        let good = b.config.clone();
        for number in 3..20 {
            for cwd in [format!("/proc/self/fd/{number}"), format!("/proc/self/fd/{number}/../../..")] {
                b.config = good.clone();
                b.config["process"]["cwd"] = json!(cwd);
                let (out, err, code) = b.args(&["sh", "-c", "pwd; ls -a ."]).run();
                assert!(code != 0, "{cwd}: {out}{err}");
            }
        }
        // By a link of the rootfs, and for an exec.
        symlink("/proc/self/fd", b.rootfs().join("fds")).unwrap();
        b.config = good;
        b.args(&["sleep", "100"]);
        assert!(b.quiet(&["run", "--detach", "c"]));
        for number in 3..20 {
            for cwd in [format!("/proc/self/fd/{number}"), format!("/fds/{number}")] {
                let output = b.call(&["exec", "--cwd", &cwd, "c", "sh", "-c", "pwd; ls -a ."]);
                assert!(!output.status.success(), "{cwd}: {}", String::from_utf8_lossy(&output.stdout));
            }
            let program = format!("/proc/self/fd/{number}/bin/sh");
            assert!(!b.call(&["exec", "c", &program, "-c", "true"]).status.success(), "{program}");
        }
        let output = b.call(&["exec", "c", "ls", "/proc/self/fd", "/proc/1/fd"]);
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        // 3 is ls's own.
        assert_eq!(out, "/proc/1/fd:\n0\n1\n2\n\n/proc/self/fd:\n0\n1\n2\n3\n");
    });
}

/// CVE-2025-31133: `/dev/null`, which hides paths, is the rootfs's own link or file.
#[test]
fn cve_2025_31133_what_hides_is_not_the_rootfs_own() {
    each(|b| {
        let bait = bait(b);
        b.config["root"]["readonly"] = json!(false);
        std::fs::write(b.rootfs().join("secret/plain"), "secret\n").unwrap();
        own(&b.rootfs(), b.caller);
        b.config["linux"]["maskedPaths"] = json!(["/secret/plain", "/proc/keys", "/proc/timer_list"]);
        let script = "stat -c '%F %t,%T' /secret/plain; cat /secret/plain; echo x >/secret/plain; \
            cat /secret/plain; cat /proc/keys; [ -c /dev/null ] && stat -c %t,%T /dev/null";
        // With the container's usual /dev, and with one that the rootfs or a volume brings.
        let (out, err, _) = b.sh(script);
        assert_eq!(out, "character special file 1,3\n1,3\n", "{err}");
        let dev = b.dir.join("dev");
        std::fs::create_dir(&dev).unwrap();
        symlink(bait.join("file"), dev.join("null")).unwrap();
        symlink("/proc/sys/kernel/core_pattern", dev.join("zero")).unwrap();
        own(&dev, b.caller);
        b.config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| mount["destination"].as_str().is_some_and(|place| !place.starts_with("/dev")));
        b.config["mounts"]
            .as_array_mut()
            .unwrap()
            .push(json!({"destination": "/dev", "source": dev, "options": ["rbind"]}));
        let (out, err, _) = b.sh("stat -c '%F %t,%T' /secret/plain; cat /secret/plain");
        assert_eq!(out, "character special file 1,3\n", "{err}");
        assert_untouched(&bait);
        // And where /dev is no mount at all, made of links.
        b.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev");
        for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "pts", "shm"] {
            replace(&b.rootfs().join("dev").join(name), bait.join("file"));
        }
        let (out, err, code) = b.sh("stat -c '%F %t,%T' /secret/plain; cat /secret/plain");
        assert!(code != 0 || out == "character special file 1,3\n", "{out}{err}");
        assert_untouched(&bait);
    });
}

/// CVE-2025-52565: `/dev/console`, which the terminal is bound to, or the terminal itself, is the
/// rootfs's own link.
#[test]
fn cve_2025_52565_the_terminal_is_bound_inside() {
    each(|b| {
        let bait = bait(b);
        b.config["root"]["readonly"] = json!(false);
        b.config["process"]["terminal"] = json!(true);
        let good = b.config.clone();
        let socket = b.dir.join("console.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o777)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let dev = b.dir.join("dev");
        for (name, target) in [
            ("console", bait.join("file")),
            ("console", PathBuf::from("/proc/sys/kernel/core_pattern")),
            (
                "console",
                PathBuf::from("../../../../../..").join(bait.strip_prefix("/").unwrap()).join("file"),
            ),
            ("pts", bait.clone()),
            ("ptmx", bait.join("file")),
        ] {
            for with_mount in [true, false] {
                let _ = std::fs::remove_dir_all(&dev);
                std::fs::create_dir(&dev).unwrap();
                b.config = good.clone();
                let mounts = b.config["mounts"].as_array_mut().unwrap();
                mounts.retain(|mount| mount["destination"] != "/dev");
                let place = if with_mount {
                    mounts.insert(1, json!({"destination": "/dev", "source": dev, "options": ["rbind"]}));
                    dev.join(name)
                } else {
                    b.rootfs().join("dev").join(name)
                };
                replace(&place, &target);
                own(&dev, b.caller);
                own(&b.rootfs(), b.caller);
                b.args(&["sleep", "100"]);
                b.quiet(&["create", "--console-socket", "console.sock", "c"]);
                // Whatever was made of it is the container's own terminal, and nothing outside.
                assert_untouched(&bait);
                assert!(b.quiet(&["delete", "--force", "c"]));
                let _ = std::fs::remove_file(&place);
                let _ = std::fs::remove_dir(&place);
            }
        }
        let own_mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!own_mounts.contains(b.dir.to_str().unwrap()), "{own_mounts}");
    });
}

/// CVE-2025-52881: writes to `/proc` (sysctls, labels) that a link or another mount redirects.
#[test]
fn cve_2025_52881_writes_to_proc_go_there() {
    each(|b| {
        let bait = bait(b);
        b.config["root"]["readonly"] = json!(false);
        b.config["linux"]["sysctl"] = json!({"net.ipv4.ip_default_ttl": "33"});
        let good = b.config.clone();
        // A file of the rootfs where the sysctl would be, with proc not mounted at all.
        let fake = b.rootfs().join("proc/sys/net/ipv4");
        std::fs::create_dir_all(&fake).unwrap();
        symlink(bait.join("file"), fake.join("ip_default_ttl")).unwrap();
        own(&b.rootfs(), b.caller);
        b.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
        let (out, err, code) = b.args(&["true"]).run();
        assert!(code == 1 && err.contains("sysctl"), "{out}{err}");
        assert_untouched(&bait);
        std::fs::remove_file(fake.join("ip_default_ttl")).unwrap();
        std::fs::write(fake.join("ip_default_ttl"), "untouched\n").unwrap();
        own(&b.rootfs(), b.caller);
        let (_, err, code) = b.args(&["true"]).run();
        assert!(code == 1 && err.contains("sysctl"), "{err}");
        assert_eq!(std::fs::read_to_string(fake.join("ip_default_ttl")).unwrap(), "untouched\n");
        // Another file system over a part of the true one, or a file over a file.
        for mount in [
            json!({"destination": "/proc/sys/net/ipv4", "type": "tmpfs"}),
            json!({"destination": "/proc/sys/net", "source": bait, "options": ["bind"]}),
            json!({"destination": "/proc/sys/net/ipv4/ip_default_ttl", "source": bait.join("file"), "options": ["bind"]}),
            json!({"destination": "/proc/self/attr", "type": "tmpfs"}),
            json!({"destination": "/proc/thread-self/attr/exec", "source": bait.join("file"), "options": ["bind"]}),
            json!({"destination": "/link/net", "type": "tmpfs"}),
        ] {
            b.config = good.clone();
            replace(&b.rootfs().join("link"), "/proc/sys");
            b.config["mounts"].as_array_mut().unwrap().push(mount.clone());
            let (_, err, code) = b.args(&["true"]).run();
            assert!(code == 1 && err.contains("over the container's proc"), "{mount}: {code} {err}");
            assert_untouched(&bait);
        }
        // A shared procfs' own magic links.
        b.config = good;
        b.config["linux"]["sysctl"] = json!({"net/../../sysrq-trigger": "h"});
        let (_, err, code) = b.args(&["true"]).run();
        assert!(code == 1 && err.contains("linux.sysctl"), "{err}");
    });
}

/// Devices that are made are those that were asked for, also where the rootfs has others in their place.
#[test]
fn devices_are_what_they_are_said_to_be() {
    each(|b| {
        let bait = bait(b);
        b.config["root"]["readonly"] = json!(false);
        b.config["linux"]["devices"] = json!([{"path": "/etc/dev", "type": "c", "major": 1, "minor": 3}]);
        replace(&b.rootfs().join("etc/dev"), bait.join("file"));
        let (out, err, code) = b.sh("stat -c '%F %t,%T' -L /etc/dev");
        assert!(code == 0 && out == "character special file 1,3\n" || code == 1, "{out}{err}");
        assert_untouched(&bait);
        assert!(!std::fs::metadata(bait.join("file")).unwrap().file_type().is_char_device());
    });
}
