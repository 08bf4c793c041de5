//! What goes wrong: each is one line that names the file and where in it, and nothing is left.

use std::process::{Child, Command};

use super::{build, context, nothing_is_left, sh, write};
use crate::requires;
use crate::support::{Need, Umiak, eventually, finish};

/// What is written, the line, what is said of it, and the exit code.
const WRONG: &[(&str, usize, &str, i32)] = &[
    ("", 0, "dockerfile", 125),
    ("# nothing but a word\n\n", 0, "dockerfile", 125),
    ("RUN true", 1, "FROM", 125),
    ("FROM busybox\nRNU true", 2, "RNU", 125),
    ("FROM", 1, "FROM", 125),
    ("FROM busybox AS", 1, "AS", 125),
    ("FROM nothing-here:1", 1, "nothing-here", 125),
    ("FROM Busybox:UPPER:x", 1, "Busybox", 125),
    ("ARG EMPTY\nFROM $EMPTY", 2, "EMPTY", 125),
    ("FROM busybox\nENV", 2, "ENV", 125),
    ("FROM busybox\nENV A", 2, "ENV", 125),
    ("FROM busybox\nENV A=\"${B:?it is missing}\"", 2, "it is missing", 125),
    ("FROM busybox\nLABEL a=\"open", 2, "", 125),
    ("FROM busybox\nARG 1x=2\nEXPOSE 99999", 3, "99999", 125),
    ("FROM busybox\nSTOPSIGNAL NOSUCH", 2, "NOSUCH", 125),
    ("FROM busybox\nHEALTHCHECK --interval=soon CMD true", 2, "soon", 125),
    ("FROM busybox\nHEALTHCHECK MAYBE", 2, "MAYBE", 125),
    ("FROM busybox\nSHELL /bin/sh", 2, "SHELL", 125),
    ("FROM busybox\nONBUILD FROM busybox", 2, "ONBUILD", 125),
    ("FROM busybox\nONBUILD ONBUILD RUN true", 2, "ONBUILD", 125),
    ("FROM busybox\nUSER", 2, "USER", 125),
    ("FROM busybox\n\n\nRUN --colour=red true", 4, "colour", 125),
    ("FROM busybox\nRUN <<EOF\ntrue\n", 2, "EOF", 125),
    ("FROM busybox\nCOPY a", 2, "COPY", 125),
    ("FROM busybox\nCOPY nothing /", 2, "nothing", 125),
    ("FROM busybox\nCOPY --from=9 a /", 2, "9", 125),
    ("FROM busybox\nCOPY --strange a /", 2, "strange", 125),
    ("FROM busybox\nADD https://127.0.0.1:1/x /", 2, "127.0.0.1:1", 125),
    ("FROM busybox\nADD git://example.com/x.git /", 2, "not supported yet", 125),
    ("FROM busybox\nUSER nobody-knows\nRUN true", 3, "nobody-knows", 126),
    ("FROM busybox\nRUN true\\\n  && exit 3", 2, "3", 3),
    ("FROM busybox\nRUN [\"/nowhere\"]", 2, "/nowhere", 127),
    ("FROM busybox\nRUN [\"/etc\"]", 2, "/etc", 126),
    ("FROM busybox\nRUN (exit 137)", 2, "137", 137),
    ("FROM busybox\nRUN --network=strange true", 2, "strange", 125),
];

#[test]
fn wrong_files_are_told_by_their_lines() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(&umiak, &[("a", "a")]);
    let images = umiak.run(&["images", "-aq"]).ok().stdout;
    for (text, line, part, code) in WRONG {
        write(&dir, "Dockerfile", text);
        let told = build(&umiak, &dir, &["-q", "--pull=never", "-t", "wrong"]);
        assert_eq!((told.code, told.stdout.as_str()), (Some(*code), ""), "{text:?}: {}", told.stderr);
        let told = told.tells(part).tells("building");
        if *line > 0 {
            assert!(told.stderr.contains(&format!("Dockerfile line {line}")), "{text:?}: {}", told.stderr);
        }
        let lines: Vec<&str> = told.stderr.lines().collect();
        let known =
            |line: &&str| ["error: ", "hint: ", "warning: "].iter().any(|kind| line.starts_with(kind));
        assert!(lines.iter().all(known), "{text:?}: {}", told.stderr);
    }
    umiak.run(&["image", "exists", "wrong"]).exits(1);
    assert_eq!(umiak.run(&["images", "-aq"]).ok().stdout, images);
    nothing_is_left(&umiak);
}

#[test]
fn what_is_not_there() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let empty = context(&umiak, &[]);
    build(&umiak, &empty, &[]).exits(125).tells("dockerfile").hints("-f");
    build(&umiak, &empty, &["-f", "/nowhere/Dockerfile"]).exits(125).tells("/nowhere/Dockerfile");
    umiak.run(&["build", "/nowhere"]).exits(125).tells("/nowhere");
    umiak.run(&["build", "https://example.com/x.git"]).exits(125).tells("git").hints("clone");
    umiak.run(&["build", "http://127.0.0.1:1/x.tar"]).exits(125).tells("127.0.0.1:1");
    let file = umiak.file("Dockerfile", "FROM scratch\n");
    umiak.run(&["build", file.to_str().unwrap()]).exits(125).tells("no directory").hints("-f");
    umiak.run(&["build", "-q", "-f", file.to_str().unwrap()]).ok();
    build(&umiak, &empty, &["-f", empty.to_str().unwrap()]).exits(125);
    nothing_is_left(&umiak);
}

/// Starts a build whose second step does not end; returns it when that runs.
fn endless(umiak: &Umiak) -> (std::path::PathBuf, Child) {
    let text = "FROM busybox\nRUN echo done > /first\nRUN echo begun > /second; sleep 1000\n";
    let dir = context(umiak, &[("Dockerfile", text)]);
    let child = umiak.spawn(&["build", "--network", "none", "-t", "made", dir.to_str().unwrap()]);
    eventually("the step runs", || {
        let listed = umiak.run(&["ps", "--external", "--no-trunc", "--format", "{{.Command}}"]).ok().stdout;
        listed.contains("/second")
    });
    umiak.run(&["ps", "-q"]).ok().says("");
    (dir, child)
}

fn goes_on(umiak: &Umiak, dir: &std::path::Path) {
    eventually("no step is left", || umiak.run(&["ps", "-aq", "--external"]).ok().stdout.is_empty());
    umiak.run(&["image", "exists", "made"]).exits(1);
    write(dir, "Dockerfile", "FROM busybox\nRUN echo done > /first\nRUN echo begun > /second\n");
    build(umiak, dir, &["-t", "made"]).ok().has("Using cache");
    assert_eq!(sh(umiak, "made", "cat /first /second"), "done\nbegun");
    umiak.check_nothing_left();
    nothing_is_left(umiak);
}

#[test]
fn an_interrupt_ends_it_all() {
    requires!(Need::Image("busybox"));
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let umiak = Umiak::with_busybox();
        let (dir, child) = endless(&umiak);
        let status = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(status.success());
        let told = finish(child, b"", "umiak build, interrupted".into());
        // By the signal itself, or with what a shell makes of it.
        assert!(told.code.is_none_or(|told| told == code), "{:?}: {}", told.code, told.stderr);
        goes_on(&umiak, &dir);
    }
}

#[test]
fn sudden_death_leaves_nothing() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let (dir, mut child) = endless(&umiak);
    child.kill().unwrap();
    child.wait().unwrap();
    goes_on(&umiak, &dir);
}

#[test]
fn the_death_of_who_watches_a_step_is_told() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let (dir, child) = endless(&umiak);
    let id = umiak.run(&["ps", "-q", "--no-trunc", "--external"]).ok().stdout;
    let monitor = umiak.inspect(id.trim(), "{{.State.ConmonPid}}");
    assert!(Command::new("kill").args(["-9", &monitor]).status().unwrap().success());
    let told = finish(child, b"", "umiak build without its monitor".into());
    told.exits(125).tells("line 3");
    goes_on(&umiak, &dir);
}

#[test]
fn several_at_a_time() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox\nRUN echo same > /same\nARG N\nRUN echo $N > /number\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    let builds: Vec<_> = (0..4)
        .map(|number| {
            let (name, arg) = (format!("made-{number}"), format!("N={number}"));
            umiak.spawn(&[
                "build",
                "--network",
                "none",
                "-q",
                "-t",
                &name,
                "--build-arg",
                &arg,
                dir.to_str().unwrap(),
            ])
        })
        .collect();
    // Meanwhile what seems to be nobody's is removed.
    umiak.run(&["image", "prune", "-f"]).ok();
    umiak.run(&["builder", "prune", "-af"]).ok();
    for (number, child) in builds.into_iter().enumerate() {
        let _ = finish(child, b"", format!("umiak build number {number}")).ok();
    }
    for number in 0..4 {
        assert_eq!(sh(&umiak, &format!("made-{number}"), "cat /same /number"), format!("same\n{number}"));
    }
    nothing_is_left(&umiak);
}
