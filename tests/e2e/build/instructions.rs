//! Each instruction does what it says.

use serde_json::json;

use super::{build, config, context, layers, made, sh, write};
use crate::requires;
use crate::support::{Need, Umiak};

const ALL: &str = r#"# syntax=docker/dockerfile:1
ARG BASE=busybox
FROM ${BASE} AS first
LABEL a=1 "b c"="d e" continued=\
yes
ENV PLAIN=1 QUOTED="a b" SINGLE='$PLAIN'
ENV LATER=${PLAIN}2 OTHER=${NOTHING:-default}
ENV old style value
ARG WITH=default
ARG WITHOUT
RUN echo "$WITH/$WITHOUT/$PLAIN/$QUOTED/$SINGLE/$LATER/$old" > /seen
RUN ["sh", "-c", "echo $0 $PWD > /exec", "word"]
WORKDIR /work
WORKDIR deep
RUN pwd > /where
COPY file .
COPY ["with space", "/with space"]
COPY dir/ /copied/
ADD archive.tar /unpacked/
EXPOSE 80 53/udp
VOLUME /data /more
USER 0:0
STOPSIGNAL SIGUSR1
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=5s --timeout=2s --retries=2 CMD test -e /seen
ONBUILD RUN echo triggered > /triggered
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo ran"]
MAINTAINER Somebody
"#;

/// An archive with a directory, a file and a link.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, content: &[u8], link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        match link {
            Some(target) => builder.append_link(&mut header, name, target).unwrap(),
            None => builder.append_data(&mut header, name, content).unwrap(),
        }
    };
    add("in/", tar::EntryType::Directory, b"", None);
    add("in/file", tar::EntryType::Regular, b"unpacked\n", None);
    add("in/link", tar::EntryType::Symlink, b"", Some("file"));
    builder.into_inner().unwrap()
}

#[test]
fn all_of_them() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let files =
        [("Dockerfile", ALL), ("file", "content\n"), ("with space", "spaced\n"), ("dir/sub/x", "x\n")];
    let dir = context(&umiak, &files);
    std::fs::write(dir.join("archive.tar"), archive()).unwrap();
    let told =
        build(&umiak, &dir, &["-t", "made", "--build-arg", "WITHOUT=given", "--format", "docker"]).ok();
    let last = told.stdout.lines().last().unwrap().to_owned();
    assert_eq!(
        last,
        umiak.run(&["images", "-q", "--no-trunc", "made"]).ok().stdout.trim().replace("sha256:", "")
    );
    let steps = ALL.lines().filter(|line| !line.starts_with('#') && !line.starts_with("yes")).count() - 1;
    let told =
        told.has(&format!("STEP 1/{steps}: FROM busybox")).has(&format!("STEP {steps}/{steps}: MAINTAINER"));
    told.has("COMMIT made\n").has("Successfully tagged localhost/made:latest\n");
    let read = "cat /seen /exec /where /work/deep/file '/with space' /copied/sub/x /unpacked/in/link";
    let expected =
        "default/given/1/a b/$PLAIN/12/style value\nword /\n/work/deep\ncontent\nspaced\nx\nunpacked";
    assert_eq!(sh(&umiak, "made", read), expected);
    umiak.run(&["run", "--rm", "--network", "none", "made"]).ok().says("ran");
    umiak.run(&["run", "--rm", "--network", "none", "made", "pwd"]).ok().says("/work/deep");
    let config = config(&umiak, "made");
    let env = config["Env"].as_array().unwrap();
    for wanted in ["PLAIN=1", "QUOTED=a b", "SINGLE=$PLAIN", "LATER=12", "OTHER=default", "old=style value"] {
        assert!(env.contains(&json!(wanted)), "{wanted}: {env:?}");
    }
    // Variables of ARG are not the image's.
    assert!(!env.iter().any(|item| item.as_str().unwrap().starts_with("WITH")), "{env:?}");
    assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c"]));
    assert_eq!(config["Cmd"], json!(["echo ran"]));
    assert_eq!(config["WorkingDir"], "/work/deep");
    assert_eq!(config["User"], "0:0");
    assert_eq!(config["StopSignal"], "SIGUSR1");
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}, "53/udp": {}}));
    assert_eq!(config["Volumes"], json!({"/data": {}, "/more": {}}));
    assert_eq!(config["OnBuild"], json!(["RUN echo triggered > /triggered"]));
    let labels = &config["Labels"];
    assert_eq!(
        (&labels["a"], &labels["b c"], &labels["continued"]),
        (&json!("1"), &json!("d e"), &json!("yes"))
    );
    let check = &config["Healthcheck"];
    assert_eq!(check["Test"], json!(["CMD-SHELL", "test -e /seen"]));
    assert_eq!((&check["Interval"], &check["Retries"]), (&json!(5_000_000_000_u64), &json!(2)));
    // What a base has for those that are built on it is done there, once.
    made(&umiak, "FROM made\nRUN cat /triggered > /next");
    assert_eq!(sh(&umiak, "made", "cat /next"), "triggered");
    assert!(umiak.inspect_json("made")["Config"]["OnBuild"].as_array().is_none_or(Vec::is_empty));
}

#[test]
fn the_shell_is_the_one_that_is_named() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    made(&umiak, "FROM busybox\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo $0 $- > /flags\nCMD echo $-");
    assert!(sh(&umiak, "made", "cat /flags").contains('e'));
    assert_eq!(config(&umiak, "made")["Cmd"], json!(["/bin/sh", "-ec", "echo $-"]));
    let dir =
        context(&umiak, &[("Dockerfile", "FROM busybox\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN false; true")]);
    build(&umiak, &dir, &[]).exits(1).tells("line 3");
}

#[test]
fn a_command_of_the_base_goes_with_a_new_entrypoint() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    made(&umiak, "FROM busybox\nCMD [\"a\"]");
    assert_eq!(config(&umiak, "made")["Cmd"], json!(["a"]));
    made(&umiak, "FROM made\nENTRYPOINT [\"echo\"]");
    assert!(config(&umiak, "made")["Cmd"].as_array().is_none_or(Vec::is_empty));
    made(&umiak, "FROM busybox\nCMD [\"b\"]\nENTRYPOINT [\"echo\", \"a\"]");
    umiak.run(&["run", "--rm", "--network", "none", "made"]).ok().says("a b");
}

#[test]
fn stages() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let text = "ARG KIND=two\n\
        FROM busybox AS one\nRUN mkdir /d && echo one > /d/file && ln -s file /d/link\nENV STAGE=one\n\
        FROM busybox AS unused\nRUN false\n\
        FROM one AS two\nARG KIND\nRUN echo $STAGE $KIND > /d/two\n\
        FROM $KIND\nCOPY --from=one /d /from-name\nCOPY --from=0 /d/file /from-number\n\
        COPY --from=configured /etc /from-image\n\
        FROM scratch\nCOPY --from=3 / /\nCMD [\"sh\", \"-c\", \"cat /d/two /from-name/link /from-number\"]\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    let told = build(&umiak, &dir, &["-t", "made"]).ok();
    let told = told.has("[1/5] STEP 1/3: FROM busybox AS one").has("[5/5] STEP 3/3: CMD");
    told.lacks("[2/5]");
    umiak.run(&["run", "--rm", "--network", "none", "made"]).ok().says("one two\none\none");
    assert_eq!(layers(&umiak, "made"), 1);
    // One of them alone; and all, which fails in the one that nobody needs.
    build(&umiak, &dir, &["-q", "-t", "one", "--target", "one"]).ok();
    assert_eq!(sh(&umiak, "one", "cat /d/file; ls /d"), "one\nfile\nlink");
    build(&umiak, &dir, &["-q", "--target", "1"]).exits(1).tells("line 6");
    build(&umiak, &dir, &["-q", "--skip-unused-stages=false"]).exits(1).tells("line 6");
    build(&umiak, &dir, &["-q", "--target", "three"]).exits(125).tells("three");
    // Another base for all that is based on it.
    build(&umiak, &dir, &["-q", "-t", "other", "--build-arg", "KIND=one"]).ok();
    assert_eq!(sh(&umiak, "other", "test -e /d/two || echo none"), "none");
    build(
        &umiak,
        &context(&umiak, &[("Dockerfile", "FROM nothing-that-is\nCMD x")]),
        &["-q", "-t", "x", "--from", "configured"],
    )
    .ok();
    assert_eq!(config(&umiak, "x")["Cmd"], json!(["/bin/sh", "-c", "x"]));
}

#[test]
fn heredocs() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox\nENV NAME=value\nRUN <<EOF\necho first $NAME > /run-text\necho second >> /run-text\nEOF\n\
        RUN <<EOF\n#!/bin/busybox awk -f\nBEGIN { print \"awk\" > \"/awk\" }\nEOF\n\
        RUN cat <<EOF > /of-the-shell; cat <<-'TWO' >> /of-the-shell\nan $NAME\nEOF\n\ta $NAME\nTWO\n\
        COPY <<one <<-\"two\" /made/\nexpanded: $NAME\none\n\tnot: $NAME\ntwo\nCOPY --chmod=755 <<EOF /script\n#!/bin/sh\necho ran\nEOF\n";
    made(&umiak, text);
    let read = "cat /run-text /awk /of-the-shell /made/one /made/two; /script";
    let expected = "first value\nsecond\nawk\nan value\na $NAME\nexpanded: value\nnot: $NAME\nran";
    assert_eq!(sh(&umiak, "made", read), expected);
}

#[test]
fn times_and_history() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(
        &umiak,
        &[("Dockerfile", "FROM busybox\nRUN echo 1 > /one\nCOPY file /\nCMD true"), ("file", "x")],
    );
    let id = |name: &str, options: &[&str]| {
        build(&umiak, &dir, &[&["-q", "--no-cache", "-t", name], options].concat()).ok().stdout
    };
    let same = ["--timestamp", "1000000000"];
    assert_eq!(id("a", &same), id("b", &same));
    assert_eq!(sh(&umiak, "a", "stat -c %Y /one /file"), "1000000000\n1000000000");
    assert!(umiak.inspect_json("a")["Created"].as_str().unwrap().starts_with("2001-09-09T01:46:40"));
    // Of when it was made alone, and of files that are younger, too.
    id("c", &["--source-date-epoch", "1000000000"]);
    assert!(sh(&umiak, "c", "stat -c %Y /one").parse::<u64>().unwrap() > 1_600_000_000);
    id("d", &["--source-date-epoch", "1000000000", "--rewrite-timestamp"]);
    assert_eq!(sh(&umiak, "d", "stat -c %Y /one"), "1000000000");
    let history = umiak.run(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "a"]).ok();
    history.has("RUN echo 1 > /one").has("COPY").has("CMD");
    id("e", &["--omit-history"]);
    assert!(umiak.inspect_json("e")["History"].as_array().is_none_or(Vec::is_empty));
}

#[test]
fn layers_are_as_many_as_wanted() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(
        &umiak,
        &[("Dockerfile", "FROM busybox\nRUN echo 1 > /one\nRUN rm /one; echo 2 > /two\nENV X=1")],
    );
    let base = layers(&umiak, "busybox");
    for (options, expected) in [
        (&[][..], base + 2),
        (&["--squash"], base + 1),
        (&["--layers=false"], base + 1),
        (&["--squash-all"], 1),
    ] {
        build(&umiak, &dir, &[&["-q", "-t", "made"], options].concat()).ok();
        assert_eq!(layers(&umiak, "made"), expected, "{options:?}");
        assert_eq!(sh(&umiak, "made", "cat /two; test ! -e /one && echo $X"), "2\n1", "{options:?}");
    }
}

#[test]
fn a_line_that_changes_nothing_is_no_layer() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    made(&umiak, "FROM busybox\nRUN true\nWORKDIR /\nENV A=1");
    assert!(layers(&umiak, "made") <= layers(&umiak, "busybox") + 1);
    let dir = context(&umiak, &[("Dockerfile", "FROM scratch\nLABEL only=this")]);
    build(&umiak, &dir, &["-q", "-t", "empty"]).ok();
    assert_eq!(config(&umiak, "empty")["Labels"]["only"], "this");
    // Files of the context that are made after each other, with and without a directory in front.
    write(&dir, "Dockerfile", "FROM scratch\nCOPY Dockerfile /a/b/c\nCOPY Dockerfile /a/b/d");
    build(&umiak, &dir, &["-q", "-t", "files"]).ok();
    assert_eq!(layers(&umiak, "files"), 2);
}

#[test]
fn a_user_of_the_image_runs_what_follows() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    made(
        &umiak,
        "FROM busybox\nRUN adduser -D -u 1234 worker && mkdir /own && chown worker /own\nUSER worker\nWORKDIR /own\n\
         RUN id -u > who && echo ~ > home\nCOPY --chown=worker:7 --chmod=640 Dockerfile /own/copied\nUSER 0\nRUN id -u > root\n",
    );
    let read = "cat who home root; stat -c '%u %g %a' copied; stat -c %u who";
    assert_eq!(sh(&umiak, "made", read), "1234\n/home/worker\n0\n1234 7 640\n1234");
}
