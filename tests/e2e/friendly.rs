//! Completion, manual pages, suggestions.

use crate::requires;
use crate::support::{Need, Umiak};

/// What `umiak __complete` offers for words of this world.
fn offered(umiak: &Umiak, words: &[&str]) -> Vec<String> {
    let mut command = std::process::Command::new(Umiak::binary());
    let own = umiak.command::<&str>(&[]);
    command.env_clear().envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let globals: Vec<_> = own.get_args().map(ToOwned::to_owned).collect();
    let output = command.arg("__complete").args(globals).args(words).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect()
}

#[test]
fn names_are_completed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&["--name", "web", "--network", "none", "busybox", "sleep", "1000"]);
    umiak.run(&["create", "--name", "worker", "--network", "none", "-v", "vol:/vol", "busybox", "true"]).ok();
    for (words, told) in [
        (&["rm", "w"][..], &["web", "worker"][..]),
        (&["container", "rm", "wo"], &["worker"]),
        (&["stop", ""], &["web"]),
        (&["exec", "-it", ""], &["web"]),
        (&["exec", "web", ""], &[]),
        (&["cp", "./x", "wo"], &["worker:"]),
        (&["run", "bu"], &["busybox:latest"]),
        (&["run", "localhost/b"], &["localhost/busybox:latest"]),
        (&["run", "--name", ""], &[]),
        (&["run", "-v", ""], &["vol:"]),
        (&["volume", "rm", ""], &["vol"]),
        (&["image", "inspect", ""], &["busybox:latest"]),
        (&["inspect", "w"], &["web", "worker"]),
        (&["unp"], &["unpause"]),
        (&["volume", "ex"], &["exists", "export"]),
        (&["ps", "--noh"], &["--noheading"]),
        (&["strange", ""], &[]),
        (&["rm", "--", ""], &["web", "worker"]),
    ] {
        assert_eq!(offered(&umiak, words), told, "{words:?}");
    }
}

#[test]
fn a_store_that_is_not_there_is_not_made() {
    let umiak = Umiak::new();
    assert_eq!(offered(&umiak, &["rm", ""]), [""; 0]);
    assert!(!umiak.dir.join("store").exists());
}

#[test]
fn bash_completes() {
    requires!(Need::Image("busybox"), Need::Tool("bash"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "--name", "worker", "--network", "none", "busybox", "true"]).ok();
    let script = umiak.run(&["completion", "bash"]).ok().stdout;
    let line = umiak.command(&["rm", "wo"]);
    let mut words = vec![line.get_program().to_str().unwrap().to_owned()];
    words.extend(line.get_args().map(|word| word.to_str().unwrap().to_owned()));
    let ask = format!(
        "{script}\nCOMP_LINE='{}'; COMP_POINT=${{#COMP_LINE}}; _umiak; echo \"${{COMPREPLY[*]}}\"",
        words.join(" ")
    );
    let output = std::process::Command::new("bash").arg("-c").arg(ask).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "worker\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        umiak.run(&["completion", shell]).ok().has("umiak");
    }
    umiak.run(&["completion", "--no-desc", "zsh"]).ok().has("cut -f 1");
    umiak.run(&["completion", "tcsh"]).exits(125);
}

#[test]
fn slips_are_noticed() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak
        .run(&["create", "--name", "worker", "--network", "none", "-v", "volume:/vol", "busybox", "true"])
        .ok();
    umiak.run(&["rm", "wroker"]).exits(1).hints("\"worker\"");
    umiak.run(&["inspect", "-t", "container", "wroker"]).exits(125);
    umiak.run(&["start", "workr"]).exits(125).hints("\"worker\"");
    umiak.run(&["volume", "rm", "volmue"]).exits(1).hints("\"volume\"");
    umiak.run(&["rmi", "busybx"]).exits(1).hints("\"busybox\"");
    umiak.run(&["history", "bosybox"]).exits(125).hints("\"busybox\"");
    umiak.run(&["rm", "nothinglikeit"]).exits(1).hints("umiak ps -a");
}

#[test]
fn help_is_a_command_too() {
    let umiak = Umiak::new();
    for (line, like) in [
        ("help", "--help"),
        ("help volume create", "volume create --help"),
        ("volume help", "volume --help"),
        ("container help run", "run --help"),
    ] {
        let told = |line: &str| umiak.run(&line.split(' ').collect::<Vec<_>>()).ok().stdout;
        assert_eq!(told(line), told(like), "{line}");
    }
    umiak.run(&["help", "strange"]).exits(125).tells("strange");
}

#[test]
fn manual_pages() {
    let umiak = Umiak::new();
    let output =
        std::process::Command::new(Umiak::binary()).arg("__man").arg(umiak.dir.join("man")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (page, has) in [
        ("umiak.1", "umiak\\-run"),
        ("umiak-run.1", "\\-\\-volume"),
        ("umiak-volume-create.1", "\\-\\-label"),
        ("umiak-container-clone.1", "\\-\\-destroy"),
    ] {
        let text = std::fs::read_to_string(umiak.dir.join("man").join(page)).unwrap();
        assert!(text.contains(has), "{page}");
    }
}
