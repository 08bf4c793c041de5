//! Renaming, restarting, pruning; volumes as objects of their own.

use crate::requires;
use crate::support::{Need, Umiak, eventually};

#[test]
fn restarted() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "echo run >> /count; trap 'exit 0' TERM; while :; do sleep 0.05; done";
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sh", "-c", script]);
    umiak.run(&["create", "--name", "still", "--network", "none", "busybox", "true"]).ok();
    let pid = umiak.inspect("box", "{{.State.Pid}}");
    umiak.run(&["restart", "-t", "5", "box"]).ok().says("box");
    assert_ne!(umiak.inspect("box", "{{.State.Pid}}"), pid);
    eventually("it has run twice", || {
        umiak.run(&["exec", "box", "wc", "-l", "/count"]).stdout.starts_with('2')
    });
    // --running leaves alone what does not run, --all and a name do not.
    umiak.run(&["restart", "--running", "-t", "0"]).ok();
    assert_eq!(umiak.status("still"), "created");
    umiak.run(&["container", "restart", "still"]).ok().says("still");
    eventually("it has run", || umiak.status("still") == "exited");
    umiak.run(&["restart", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["restart"]).exits(125).tells("name at least one container");
    umiak.detached(&["--rm", "--name", "gone", "--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["restart", "-t", "0", "gone"]).exits(125).tells("--rm");
    assert_eq!(umiak.status("gone"), "running");
}

#[test]
fn renamed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let id = umiak.detached(&["--rm", "--name", "old", "--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["create", "--name", "other", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["rename", "old", "new"]).ok().says("");
    assert_eq!(umiak.inspect("new", "{{.Name}} {{.Id}}"), format!("new {id}"));
    umiak.run(&["container", "exists", "new"]).ok();
    umiak.run(&["container", "exists", "old"]).exits(1);
    umiak.run(&["rename", "new", "new"]).ok();
    umiak.run(&["rename", "new", "other"]).exits(125).tells("other");
    umiak.run(&["rename", "new", "no/good"]).exits(125).tells("no/good");
    umiak.run(&["rename", "nothing", "x"]).exits(125).tells("nothing");
    // The old name is free at once, the new one when the container goes, whose monitor knew the old one.
    umiak.run(&["rename", "other", "old"]).ok();
    umiak.run(&["stop", "-t", "0", "new"]).ok();
    eventually("its name is free", || umiak.run(&["rename", "old", "new"]).code == Some(0));
}

#[test]
fn renaming_is_safe_from_sudden_death() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "--name", "a", "--network", "none", "busybox", "true"]).ok();
    for at in 1..=20 {
        // Killed when it makes, renames or removes its n-th file.
        let inject =
            format!("--inject=openat,renameat,renameat2,linkat,unlink,unlinkat:signal=KILL:when={at}");
        let mut command = std::process::Command::new("strace");
        command.args([
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=openat,renameat,renameat2,linkat,unlink,unlinkat",
        ]);
        let own = umiak.command(&["rename", "a", "b"]);
        let environment: Vec<_> = own.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
        let status =
            command.arg(inject).arg(own.get_program()).args(own.get_args()).env_clear().envs(environment);
        let _ = status.stderr(std::process::Stdio::null()).status().unwrap();
        // Whatever it came to, there is one container of one name, and the other is free.
        let name = umiak.run(&["ps", "-a", "--format", "{{.Names}}"]).ok().stdout.trim().to_owned();
        assert!(["a", "b"].contains(&name.as_str()), "{name}");
        let free = if name == "a" { "b" } else { "a" };
        umiak.run(&["run", "--rm", "--name", free, "--network", "none", "busybox", "true"]).ok();
        umiak.run(&["rename", &name, "a"]).ok();
    }
}

#[test]
fn pruned() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "alive", "--network", "none", "busybox", "sleep", "1000"]);
    let create = |name: &str, label: &str| {
        let words = ["create", "--name", name, "--label", label, "--network", "none", "busybox", "true"];
        umiak.run(&words).ok().stdout.trim().to_owned()
    };
    let (kept, gone) = (create("kept", "keep=yes"), create("gone", "keep=no"));
    // Without an answer nothing is removed.
    umiak.run(&["container", "prune"]).ok().says("");
    umiak.run(&["container", "prune", "-f", "--filter", "nonsense=1"]).exits(125).tells("nonsense");
    umiak.run(&["container", "prune", "-f", "--filter", "label=keep=no"]).ok().says(&gone);
    umiak.run_with_input(&["container", "prune"], b"y\n").ok().says(&kept);
    assert_eq!(umiak.status("alive"), "running");
    umiak.run(&["container", "exists", "kept"]).exits(1);
    umiak.run(&["image", "exists", "localhost/busybox"]).ok();
    umiak.run(&["image", "exists", "localhost/absent"]).exits(1);
}

#[test]
fn volumes_are_made_listed_and_removed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["volume", "create", "--label", "of=test", "data"]).ok().says("data");
    umiak.run(&["volume", "create", "data"]).exits(125).tells("data").hints("--ignore");
    umiak.run(&["volume", "create", "--ignore", "data"]).ok().says("data");
    umiak.run(&["volume", "create", "../up"]).exits(125).tells("../up");
    umiak.run(&["volume", "create", "-d", "nfs", "x"]).exits(125).tells("not supported yet");
    umiak.run(&["volume", "create", "-o", "size=1g", "x"]).exits(125).tells("not supported yet");
    let unnamed = umiak.run(&["volume", "create"]).ok().stdout.trim().to_owned();
    assert_eq!(unnamed.len(), 64);
    umiak.run(&["volume", "exists", "data"]).ok();
    umiak.run(&["volume", "exists", "none"]).exits(1);
    // What a container writes is where inspect says.
    let words = ["create", "--name", "user", "--network", "none", "-v", "data:/d", "busybox", "true"];
    umiak.run(&words).ok();
    umiak
        .run(&["run", "--rm", "--network", "none", "-v", "data:/d", "busybox", "sh", "-c", "echo x > /d/f"])
        .ok();
    let place = umiak.run(&["volume", "inspect", "--format", "{{.Mountpoint}}", "data"]).ok().stdout;
    assert_eq!(std::fs::read_to_string(format!("{}/f", place.trim())).unwrap(), "x\n");
    umiak
        .run(&["volume", "inspect", "-f", "{{.Name}} {{.Labels.of}} {{.Driver}}", "dat"])
        .ok()
        .says("data test local");
    umiak.run(&["volume", "inspect", "nothing"]).exits(125).tells("nothing");
    // The listing.
    let listing = umiak.run(&["volume", "ls"]).ok().stdout;
    assert!(listing.starts_with("DRIVER") && listing.contains("VOLUME NAME"), "{listing}");
    umiak.run(&["volume", "ls", "-q", "--filter", "label=of"]).ok().says("data");
    umiak.run(&["volume", "ls", "-q", "--filter", "dangling=true"]).ok().says(&unnamed);
    umiak.run(&["volume", "ls", "--filter", "colour=red"]).exits(125).tells("colour");
    umiak.run(&["volume", "ls", "-q", "--filter", "until=1h"]).ok().says("");
    // Removal: not of what is used, unless by force, and then with its user.
    umiak.run(&["volume", "rm", "data"]).exits(2).tells("is used by").hints("umiak rm");
    umiak.run(&["volume", "rm", "nothing"]).exits(1).tells("nothing");
    umiak.run(&["volume", "prune", "-f"]).ok().says(&unnamed);
    umiak.run(&["volume", "rm", "-f", "data"]).ok().says("data");
    umiak.run(&["container", "exists", "user"]).exits(1);
    umiak.run(&["volume", "ls", "-q"]).ok().says("");
    umiak.run(&["volume", "export", "x"]).exits(125).tells("there is no volume");
    umiak.run(&["volume", "lss"]).exits(125).tells("unknown command `volume lss`").hints("volume ls");
    umiak.run(&["volume", "ls", "--sort", "x"]).exits(125).tells("--sort");
}

/// Whether a container has a control group of its own here.
fn has_group(umiak: &Umiak, name: &str) -> bool {
    !umiak.inspect(name, "{{.State.CgroupPath}}").is_empty()
}

#[test]
fn paused() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "trap 'exit 7' TERM; while :; do echo x >> /beat; sleep 0.05; done";
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sh", "-c", script]);
    umiak.run(&["create", "--name", "still", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["pause", "still"]).exits(125).tells("created");
    umiak.run(&["unpause", "box"]).exits(125).tells("running, not paused");
    umiak.run(&["pause", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["pause"]).exits(125).tells("name at least one container");
    umiak.run(&["pause", "--latest", "box"]).exits(125).tells("--latest");
    if !has_group(&umiak, "box") {
        umiak.run(&["pause", "box"]).exits(125).tells("no control group of its own").hints("here");
        umiak.run(&["pause", "--all"]).exits(125).tells("no control group of its own");
        return;
    }
    umiak.run(&["pause", "box"]).ok().says("box");
    assert_eq!(
        umiak.inspect("box", "{{.State.Status}} {{.State.Paused}} {{.State.Running}}"),
        "paused true false"
    );
    // Nothing of it runs.
    let beat = || {
        let upper = umiak.inspect("box", "{{.GraphDriver.Data.UpperDir}}");
        std::fs::metadata(format!("{upper}/beat")).unwrap().len()
    };
    let before = beat();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(beat(), before);
    // Who lists, and what cannot be done with it.
    umiak.run(&["ps", "--format", "{{.Names}}"]).ok().says("");
    umiak
        .run(&["ps", "-a", "--filter", "status=paused", "--format", "{{.Names}} {{.Status}}"])
        .ok()
        .says("box Paused");
    umiak
        .run(&["info", "--format", "{{.Store.ContainerStore.Paused}} {{.Store.ContainerStore.Running}}"])
        .ok()
        .says("1 0");
    umiak.run(&["exec", "box", "true"]).exits(255).tells("is paused").hints("umiak unpause box");
    for command in [&["stop", "box"], &["restart", "box"], &["attach", "box"], &["top", "box"]] {
        umiak.run(command).exits(125).tells("is paused").hints("umiak unpause box");
    }
    umiak.run(&["pause", "box"]).exits(125).tells("is paused");
    umiak.run(&["start", "box"]).exits(125).tells("is paused");
    umiak.run(&["rm", "box"]).exits(2);
    umiak.run(&["container", "prune", "-f", "--filter", "label=none"]).ok().says("");
    umiak.run(&["stop", "--all"]).ok().says("");
    umiak.run(&["pause", "--all"]).ok().says("");
    umiak.run(&["container", "unpause", "box"]).ok().says("box");
    eventually("it goes on", || beat() > before);
    // All of them; a signal that is caught waits until it goes on.
    let id = umiak.inspect("box", "{{.Id}}");
    umiak.run(&["pause", "--all"]).ok().says(&id);
    umiak.run(&["kill", "-s", "TERM", "box"]).ok();
    assert_eq!(umiak.status("box"), "paused");
    umiak.run(&["unpause", "--filter", "name=box"]).ok().says(&id);
    umiak.run(&["wait", "box"]).ok().says("7");
}

#[test]
fn paused_containers_can_be_killed_and_removed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let start = |name: &str| {
        let words = ["--name", name, "--network", "none", "busybox", "sh", "-c", "sleep 1000 & sleep 1001"];
        umiak.detached(&words);
    };
    start("box");
    if !has_group(&umiak, "box") {
        return;
    }
    umiak.run(&["pause", "--latest"]).ok();
    umiak.run(&["kill", "--all"]).ok();
    umiak.run(&["wait", "box"]).ok().says("137");
    umiak.run(&["start", "box"]).ok();
    start("other");
    umiak.run(&["pause", "box", "other"]).ok().says("box\nother");
    let file = umiak.dir.join("cid");
    std::fs::write(&file, umiak.inspect("other", "{{.Id}}") + "\n").unwrap();
    umiak.run(&["unpause", "--cidfile", file.to_str().unwrap()]).ok();
    assert_eq!(umiak.status("other"), "running");
    umiak.run(&["pause", "other"]).ok();
    umiak.run(&["rm", "-f", "other"]).ok();
    umiak.run(&["rm", "-f", "-t", "20", "box"]).ok();
    // Others of the host's pid namespace do not stay behind, standing still.
    let words = ["--name", "box", "--network", "none", "--pid", "host", "busybox", "sh", "-c"];
    umiak.detached(&[&words[..], &["sleep 1234 & sleep 1235"]].concat());
    umiak.run(&["pause", "box"]).ok();
    umiak.run(&["rm", "-f", "box"]).ok();
    // A paused one of --rm goes like any other.
    umiak.detached(&["--rm", "--name", "gone", "--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["pause", "gone"]).ok();
    umiak.run(&["kill", "gone"]).ok();
    eventually("it has gone", || umiak.run(&["container", "exists", "gone"]).code == Some(1));
}

#[test]
fn processes_are_listed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "printf 'guest:x:12:12::/:\\n' >> /etc/passwd; sleep 1000 & exec sleep 1001";
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sh", "-c", script]);
    eventually("both are there", || umiak.run(&["top", "box"]).ok().stdout.lines().count() == 3);
    eventually("they have begun", || !umiak.run(&["top", "box"]).ok().stdout.contains("sh -c"));
    let text = umiak.run(&["container", "top", "box"]).ok().stdout;
    let heading: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["USER", "PID", "PPID", "%CPU", "ELAPSED", "TTY", "TIME", "COMMAND"]);
    assert!(text.starts_with("USER        PID         PPID "), "{text}");
    let first: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((first[0], first[1], first[2], &first[7..]), ("root", "1", "0", &["sleep", "1001"][..]));
    let second: Vec<&str> = text.lines().nth(2).unwrap().split_whitespace().collect();
    assert_eq!((second[2], &second[7..]), ("1", &["sleep", "1000"][..]));
    // Pids of both sides, ids by the container's own names, what protects it.
    let pid = umiak.inspect("box", "{{.State.Pid}}");
    let text = umiak.run(&["top", "-l", "hpid,pid", "seccomp,%c", "state"]).ok().stdout;
    let first: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(first, [&pid, "1", "filter", "sleep", "S"]);
    if Need::ManyIds.missing().is_none() {
        let words = ["exec", "-d", "-u", "12", "box", "sleep", "77"];
        umiak.run(&words).ok();
        eventually("its user is told by name", || {
            umiak.run(&["top", "box", "user", "group", "ppid", "args"]).ok().stdout.lines().any(|line| {
                line.split_whitespace().collect::<Vec<_>>() == ["guest", "12", "0", "sleep", "77"]
            })
        });
    }
    // What are no columns are options of the container's own ps.
    umiak.run(&["top", "box", "-o", "pid,args"]).ok().has("sleep 1001").has("ps -o").lacks("USER");
    umiak.run(&["top"]).exits(125).tells("name a container");
    umiak.run(&["top", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["create", "--name", "still", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["top", "still"]).exits(125).tells("created, not running");
}

#[test]
fn a_process_cannot_forge_lines() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let name = "x\n\troot 99 \u{1b}[2J";
    let script = "while :; do sleep 1000; done";
    let words = ["--name", "box", "--network", "none", "busybox", "sh", "-c", script, name];
    umiak.detached(&words);
    eventually("it has begun", || umiak.run(&["top", "box"]).ok().stdout.lines().count() == 3);
    let text = umiak.run(&["top", "box", "pid,args"]).ok().stdout;
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.contains("99"), "{text}");
    assert!(!text.contains('\u{1b}') && !text.contains('\t'), "{text:?}");
}

#[test]
fn changed_files_are_told() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "mkdir -p /new/deep /root/hidden; echo x > /new/deep/file; echo x >> /etc/passwd; rm /etc/group; \
                  rm -r /home; touch /root/hidden/file; chmod 700 /root/hidden; ln -s /etc/passwd /new/link";
    umiak.run(&["run", "--name", "box", "--network", "none", "busybox", "sh", "-c", script]).ok();
    let expected = [
        "C /etc",
        "D /etc/group",
        "C /etc/passwd",
        "D /home",
        "A /new",
        "A /new/deep",
        "A /new/deep/file",
        "A /new/link",
        "C /root",
        "A /root/hidden",
        "A /root/hidden/file",
    ];
    umiak.run(&["diff", "box"]).ok().says(&expected.join("\n"));
    umiak.run(&["container", "diff", "-l"]).ok().says(&expected.join("\n"));
    let text = umiak.run(&["diff", "--format", "json", "box"]).ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["deleted"], serde_json::json!(["/etc/group", "/home"]));
    assert_eq!(json["added"].as_array().unwrap().len(), 6, "{text}");
    // A directory that was made anew, and files of other users.
    let script = "rm -r /home; mkdir /home; echo x > /home/x";
    umiak.detached(&[
        "--name",
        "again",
        "--network",
        "none",
        "busybox",
        "sh",
        "-c",
        &format!("{script}; sleep 1000"),
    ]);
    eventually("it is there", || umiak.run(&["diff", "again"]).ok().stdout.contains("A /home/x"));
    umiak.run(&["diff", "again"]).ok().says("C /etc\nC /home\nD /home/app\nA /home/x");
    if Need::ManyIds.missing().is_none() {
        let script = "mkdir -m 700 /own; touch /own/file; chown -R 12:12 /own";
        umiak.run(&["exec", "again", "sh", "-c", script]).ok();
        umiak.run(&["diff", "again"]).ok().has("A /own/file");
    }
    // An image: what its topmost layer has.
    umiak.run(&["diff", "busybox"]).ok().has("A /bin/busybox\n").lacks("C ").lacks("D ");
    umiak.run(&["image", "diff", "busybox"]).ok().has("A /etc/passwd\n");
    umiak.run(&["diff", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["image", "diff", "box"]).exits(125).tells("no such image");
    umiak.run(&["container", "diff", "busybox"]).exits(125).tells("busybox");
    umiak.run(&["diff"]).exits(125).tells("name a container");
    umiak.run(&["diff", "--format", "xml", "box"]).exits(125).tells("--format");
    umiak.run(&["diff", "-l", "box"]).exits(125).tells("--latest");
}

#[test]
fn the_newest_container_needs_no_name() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["stop", "--latest"]).exits(125).tells("there is no container");
    umiak.run(&["top", "--latest"]).exits(125).tells("there is no container");
    let old = umiak.detached(&["--network", "none", "busybox", "sleep", "1000"]);
    let new = umiak.detached(&["--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["stop", "-l", "-t", "0"]).ok().says(&new);
    umiak.run(&["restart", "-l", "-t", "0"]).ok().says(&new);
    assert_eq!((umiak.status(&old), umiak.status(&new)), ("running".to_owned(), "running".to_owned()));
    umiak.run(&["kill", "--latest"]).ok().says(&new);
    umiak.run(&["wait", &new]).ok().says("137");
    umiak.run(&["rm", "--latest"]).ok().says(&new);
    umiak.run(&["rm", "--latest", &old]).exits(125).tells("--latest");
    umiak.run(&["rm", "--latest", "--all"]).exits(125).tells("--latest");
    assert_eq!(umiak.status(&old), "running");
}
