//! Mounts, devices and joined namespaces.

use std::os::unix::fs::MetadataExt;

use super::*;

fn mount(b: &mut Bundle, value: Value) {
    b.config["mounts"].as_array_mut().unwrap().push(value);
}

/// Root with a user namespace whose ids are no one's on this machine.
fn remapped() -> Option<Bundle> {
    if rustix::process::geteuid().as_raw() != 0 {
        skip("only root can map any ids", true);
        return None;
    }
    let mut b = Bundle::new(callers()[0])?;
    b.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    for kind in ["uidMappings", "gidMappings"] {
        b.config["linux"][kind] = json!([{"containerID": 0, "hostID": 500_000, "size": 1000}]);
    }
    Some(b)
}

// spec: mounts[].uidMappings, mounts[].gidMappings
#[test]
fn files_are_shown_with_other_ids() {
    let Some(mut b) = remapped() else { return };
    let source = b.dir.join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "x").unwrap();
    chown(source.join("file"), Some(5), Some(6)).unwrap();
    let range = |first: u32, host: u32| json!([{"containerID": first, "hostID": host, "size": 10}]);
    let cases = [
        (json!(["bind", "idmap"]), json!({}), "5 6"),
        (json!(["rbind", "ridmap"]), json!({}), "5 6"),
        (json!(["bind"]), json!({"uidMappings": range(5, 500_001), "gidMappings": range(6, 500_002)}), "1 2"),
        (json!(["bind", "idmap=uids=5-500007-1;gids=@6-8-1"]), json!({}), "7 8"),
        // Without a mapping they are nobody's.
        (json!(["bind"]), json!({}), "65534 65534"),
    ];
    for (options, more, expected) in cases {
        let before = b.config.clone();
        let mut value = json!({"destination": "/tmp", "source": source, "options": options});
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        mount(&mut b, value);
        let (out, err, _) = b.sh("stat -c '%u %g' /tmp/file");
        if err.contains("mapping the ids") && err.contains("invalid argument") {
            return skip("the file system of the temporary directory cannot map ids", true);
        }
        assert_eq!(out, format!("{expected}\n"), "{options}: {err}");
        b.config = before;
    }
}

#[test]
fn a_user_namespace_gets_what_only_root_can_open() {
    let Some(mut b) = remapped() else { return };
    let private = b.dir.join("private");
    std::fs::create_dir_all(private.join("shared")).unwrap();
    std::fs::write(private.join("shared/file"), "inside\n").unwrap();
    std::fs::set_permissions(&private, PermissionsExt::from_mode(0o700)).unwrap();
    mount(
        &mut b,
        json!({"destination": "/tmp", "source": private.join("shared"), "options": ["rbind", "ro"]}),
    );
    b.config["linux"]["devices"] = json!([{"path": "/dev/own", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 3, "gid": 4}]);
    let (out, err, _) =
        b.sh("cat /tmp/file; touch /tmp/x || echo read-only; stat -c '%t %T %a %u %g' /dev/own");
    assert_eq!(out, "inside\nread-only\n1 3 640 3 4\n", "{err}");
}

// spec: mounts[].options
#[test]
fn options_of_mounts() {
    each(|b| {
        let source = b.dir.join("source");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("file"), "x").unwrap();
        symlink("file", source.join("link")).unwrap();
        own(&source, b.caller);
        b.config["root"]["readonly"] = json!(false);
        symlink("../nowhere/file", b.rootfs().join("etc/dangling")).unwrap();
        own(&b.rootfs(), b.caller);
        mount(
            b,
            json!({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["sync", "noexec", "size=1m"]}),
        );
        mount(b, json!({"destination": "/b", "source": source, "options": ["rbind", "rro", "rnosuid"]}));
        // What only a tmpfs has is of no effect.
        mount(
            b,
            json!({"destination": "/etc/dangling", "source": source.join("file"), "options": ["bind", "mode=755", "size=1k"]}),
        );
        mount(
            b,
            json!({"destination": "/copied", "source": source.join("link"), "options": ["bind", "copy-symlink"]}),
        );
        mount(b, json!({"destination": "/etc", "type": "tmpfs", "options": ["tmpcopyup"]}));
        let (out, err, code) = b.sh(
            "grep -E ' (/tmp|/b) ' /proc/self/mountinfo; cat /nowhere/file; echo; readlink /copied; cat /etc/passwd | grep -c root",
        );
        assert_eq!(code, 0, "{out}{err}");
        let line = |target: &str| out.lines().find(|l| l.contains(target)).unwrap_or_default().to_owned();
        assert!(line(" /tmp ").contains("noexec") && line(" /tmp ").contains("sync"), "{out}");
        assert!(line(" /b ").contains("ro,nosuid"), "{out}");
        assert!(out.ends_with("x\nfile\n1\n"), "{out}{err}");
        assert!(b.rootfs().join("nowhere/file").exists(), "made where the link leads, inside");
    });
}

// spec: linux.rootfsPropagation
#[test]
fn what_a_shared_root_mounts_is_seen_outside() {
    let caller = callers()[0];
    if caller.uid != 0 {
        return skip("only root can share mounts", true);
    }
    let mut b = Bundle::new(caller).unwrap();
    let outside = b.dir.join("outside");
    std::fs::create_dir(&outside).unwrap();
    b.config["linux"]["rootfsPropagation"] = json!("rshared");
    let all: Vec<String> = ["CAP_SYS_ADMIN"].map(str::to_owned).to_vec();
    b.config["process"]["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all});
    b.config["linux"].as_object_mut().unwrap().remove("seccomp");
    mount(&mut b, json!({"destination": "/tmp", "source": outside, "options": ["rbind", "rshared"]}));
    b.args(&["sh", "-c", "busybox mkdir /tmp/m && mount -t tmpfs none /tmp/m && echo mounted && sleep 100"]);
    std::fs::write(b.dir.join("config.json"), b.config.to_string()).unwrap();
    // In a mount namespace of the test's own, all of which is shared.
    let script = "set -e; mount --bind $1 $1; mount --make-rshared /; cd $2; \
        $2/umiak runtime --root $2/state run --detach $3 >$2/out 2>&1; \
        for i in 1 2 3 4 5 6 7 8 9 10; do grep -q mounted $2/out && break; sleep 0.3; done; \
        grep -c \"$1/m \" /proc/self/mountinfo; grep -c \"$2/rootfs\" /proc/self/mountinfo || true; \
        $2/umiak runtime --root $2/state delete --force $3";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    let output = command.arg(&outside).arg(&b.dir).arg(&b.id).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text,
        "1\n0\n",
        "{} {}",
        String::from_utf8_lossy(&output.stderr),
        std::fs::read_to_string(b.dir.join("out")).unwrap()
    );
}

// spec: linux.namespaces[].path
#[test]
fn a_mount_namespace_is_joined() {
    let caller = callers()[0];
    if caller.uid != 0 {
        return skip("only root can join a mount namespace without its user namespace", true);
    }
    let mut b = Bundle::new(caller).unwrap();
    let mut holder = Command::new("unshare");
    let mark = b.dir.join("mark");
    std::fs::create_dir(&mark).unwrap();
    let script = "mount -t tmpfs none $0; echo there > $0/file; echo; exec sleep 100";
    holder.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(&mark);
    let mut holder = holder.stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    b.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .filter(|namespace| namespace["type"] == "mount")
        .for_each(|namespace| namespace["path"] = json!(format!("/proc/{}/ns/mnt", holder.id())));
    // What is mounted there is bound; the host does not have it.
    mount(&mut b, json!({"destination": "/tmp", "source": mark, "options": ["bind"]}));
    let (out, err, code) = b.sh("cat /tmp/file");
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!((out.as_str(), code), ("there\n", 0), "{err}");
    // A namespace of another kind is refused.
    for namespace in b.config["linux"]["namespaces"].as_array_mut().unwrap() {
        if namespace["type"] == "mount" {
            namespace["path"] = json!("/proc/self/ns/net");
        }
    }
    let (_, err, code) = b.args(&["true"]).run();
    assert!(
        code == 1 && err.contains("joining the namespace \"/proc/self/ns/net\": invalid argument"),
        "{err}"
    );
}

#[test]
fn a_user_namespace_of_roots_without_a_mapping_has_roots_id() {
    let Some(mut b) = remapped() else { return };
    for kind in ["uidMappings", "gidMappings"] {
        b.config["linux"].as_object_mut().unwrap().remove(kind);
    }
    b.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "devpts");
    let (out, err, code) = b.sh("cat /proc/self/uid_map /proc/self/gid_map");
    let words: Vec<&str> = out.split_whitespace().collect();
    assert_eq!((words, code), (vec!["0", "0", "1", "0", "0", "1"], 0), "{err}");
    // Half a mapping is a mistake.
    b.config["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let (_, err, code) = b.sh("true");
    assert!(code == 1 && err.contains("linux.gidMappings"), "{err}");
}

#[test]
fn an_ordinary_users_container_gets_a_user_namespace() {
    for caller in callers().into_iter().filter(|caller| caller.uid != 0) {
        let Some(mut b) = Bundle::new(caller) else { return };
        let linux = b.config["linux"].as_object_mut().unwrap();
        linux.remove("uidMappings");
        linux.remove("gidMappings");
        linux["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "user");
        let (out, err, code) = b.sh("id -u; cat /proc/self/uid_map");
        if err.contains("creating namespaces") || err.contains("mapping the user namespace") {
            skip(&format!("as uid {}: {}", caller.uid, err.trim()), false);
            continue;
        }
        assert_eq!(code, 0, "{err}");
        let map: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!((out.lines().next(), map[0], map[1].parse()), (Some("0"), "0", Ok(caller.uid)), "{out}");
    }
    let _ = std::fs::metadata("/").map(|m| m.uid());
}

// spec: linux.namespaces[].type
#[test]
fn without_a_mount_namespace_the_mounts_are_the_hosts_until_the_end() {
    let caller = callers()[0];
    if caller.uid != 0 {
        return skip("only root may mount in the host's namespace", true);
    }
    let mut b = Bundle::new(caller).unwrap();
    b.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != "mount");
    let rootfs = b.rootfs();
    let mounted = || {
        let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        all.lines().filter(|line| line.contains(rootfs.to_str().unwrap())).count()
    };
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let (out, err, code) = b.sh("readlink /proc/self/ns/mnt; ls /secret; pwd; ls -d /proc/self; touch /x");
    assert_eq!(out, format!("{}\nfile\n/\n/proc/self\n", own.display()), "{err}");
    assert!(code == 1 && err.contains("Read-only"), "{err}");
    assert_eq!(mounted(), 0, "nothing is left mounted");
    b.args(&["sleep", "100"]);
    assert!(b.quiet(&["run", "--detach", "c"]));
    assert!(mounted() > 1);
    // Not in the host's root, although the namespace is the same.
    let output = b.call(&["exec", "c", "sh", "-c", "ls /secret; ls -d /usr"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "file\n", "{output:?}");
    assert!(b.quiet(&["delete", "--force", "c"]));
    assert_eq!(mounted(), 0);
    // What fails half-way leaves nothing either.
    for (key, value) in [("sysctl", json!({"net.nosuch": "1"})), ("rootfsPropagation", json!("slave"))] {
        b.config["linux"][key] = value;
        assert_eq!(b.args(&["true"]).run().2, 1, "{key}");
        assert_eq!(mounted(), 0, "{key}");
        b.config["linux"].as_object_mut().unwrap().remove(key);
    }
    assert!(b.args(&["/nosuch"]).run().1.contains("no such file"));
    assert_eq!(mounted(), 0);
    // By a link, too; but never onto the host's root.
    symlink("rootfs", b.dir.join("link")).unwrap();
    b.config["root"]["path"] = json!("link");
    assert_eq!(b.args(&["true"]).run().2, 0);
    assert_eq!(mounted(), 0);
    b.config["root"]["path"] = json!("/");
    let (_, err, code) = b.run();
    assert!(code == 1 && err.contains("mounting the rootfs \"/\""), "{err}");
}
