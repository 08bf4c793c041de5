//! `RUN --mount`: what a step has while it runs, and no image after it.

use std::os::unix::net::UnixListener;

use super::{build, context, made, nothing_is_left, sh, write};
use crate::requires;
use crate::support::{Need, Umiak};

#[test]
fn binds_and_tmpfs() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox AS one\nRUN mkdir /d && echo stage > /d/file\n\
        FROM busybox\n\
        RUN --mount=type=bind,target=/ctx cat /ctx/sub/file > /a; touch /ctx/x 2>/dev/null && echo written >> /a; true\n\
        RUN --mount=target=/ctx,source=sub,rw touch /ctx/new && ls /ctx > /b\n\
        RUN --mount=type=bind,from=one,source=/d,target=/one cat /one/file > /c\n\
        RUN --mount=type=bind,from=busybox,target=/img test -e /img/bin/busybox && echo image > /d\n\
        RUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/x && stat -f -c %T /t > /e\n";
    let dir = context(&umiak, &[("Dockerfile", text), ("sub/file", "bound\n")]);
    build(&umiak, &dir, &["-q", "-t", "made"]).ok();
    assert_eq!(sh(&umiak, "made", "cat /a /b /c /d /e"), "bound\nfile\nnew\nstage\nimage\ntmpfs");
    // Nothing that was mounted is in the image, not even where it was; and the context is what it was.
    assert_eq!(sh(&umiak, "made", "ls -d /ctx /one /img /t 2>/dev/null | wc -l"), "0");
    assert!(!dir.join("sub/new").exists() && !dir.join("x").exists());
    for (line, why) in [
        ("--mount=type=strange,target=/x", "strange"),
        ("--mount=type=bind", "target"),
        ("--mount=type=bind,target=/x,source=nothing", "nothing"),
        ("--mount=type=bind,target=/x,source=../../etc", "etc"),
        ("--mount=type=bind,target=/x,colour=red", "colour"),
        ("--mount=type=cache", "target"),
        ("--mount=type=secret,id=none,required=true", "none"),
        ("--mount=type=ssh,required=true", "default"),
    ] {
        write(&dir, "Dockerfile", &format!("FROM busybox\nRUN {line} true\n"));
        build(&umiak, &dir, &["-q"]).exits(125).tells("line 2").tells(why);
    }
    nothing_is_left(&umiak);
}

#[test]
fn caches_last() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let run = |word: &str, mount: &str| {
        made(
            &umiak,
            &format!("FROM busybox\nRUN --mount=type=cache,{mount} echo {word} >> /c/log; cat /c/log > /log"),
        );
        sh(&umiak, "made", "cat /log; ls -A /c 2>/dev/null | wc -l")
    };
    assert_eq!(run("one", "target=/c"), "one\n0");
    assert_eq!(run("two", "target=/c"), "one\ntwo\n0");
    assert_eq!(run("other", "target=/c,id=other,sharing=locked"), "other\n0");
    assert_eq!(run("more", "target=/c,id=other,sharing=private,mode=700"), "other\nmore\n0");
    // Not by what it has in it: the same line is not run again.
    assert_eq!(run("two", "target=/c"), "one\ntwo\n0");
}

#[test]
fn secrets_stay_secret() {
    requires!(Need::Image("busybox"));
    let mut umiak = Umiak::with_busybox();
    umiak.set_env("TOKEN", "of-the-environment");
    let secret = umiak.file("secret-file", "of-a-file");
    let text = "FROM busybox\n\
        RUN --mount=type=secret,id=one cat /run/secrets/one | md5sum > /one; stat -c '%a %u' /run/secrets/one > /mode\n\
        RUN --mount=type=secret,id=two,target=/x,mode=0444 cat /x | md5sum > /two\n\
        RUN --mount=type=secret,id=two,env=VALUE echo $VALUE | md5sum > /three\n\
        RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    let one = format!("id=one,src={}", secret.display());
    build(&umiak, &dir, &["-q", "-t", "made", "--secret", &one, "--secret", "id=two,env=TOKEN"]).ok();
    let expected = sh(
        &umiak,
        "busybox",
        "printf of-a-file | md5sum; printf of-the-environment | md5sum; echo of-the-environment | md5sum",
    );
    assert_eq!(sh(&umiak, "made", "cat /one /two /three"), expected);
    assert_eq!(sh(&umiak, "made", "cat /mode"), "400 0");
    // Neither in the image's files and configuration, nor anywhere in the store.
    umiak.run(&["save", "-q", "-o", "made.tar", "made"]).ok();
    for words in ["of-a-file", "of-the-environment"] {
        let found = |bytes: &[u8]| bytes.windows(words.len()).any(|window| window == words.as_bytes());
        assert!(!found(&std::fs::read(umiak.dir.join("made.tar")).unwrap()), "{words} is in the image");
        let grep =
            std::process::Command::new("grep").args(["-rlF", words]).arg(umiak.dir.join("store")).output();
        let places = String::from_utf8(grep.unwrap().stdout).unwrap();
        assert_eq!(places, "", "{words} is in the store");
        let run =
            std::process::Command::new("grep").args(["-rlF", words]).arg(umiak.dir.join("run")).output();
        assert_eq!(String::from_utf8(run.unwrap().stdout).unwrap(), "");
    }
    // Another value is no reason to run it again.
    let told =
        build(&umiak, &dir, &["-t", "made", "--secret", "id=one,env=TOKEN", "--secret", "id=two,env=TOKEN"])
            .ok();
    told.has("Using cache");
    build(&umiak, &dir, &["--secret", "id=x,src=/nowhere"]).exits(125).tells("/nowhere");
    build(&umiak, &dir, &["--secret", "id=x,env=NOWHERE"]).exits(125).tells("NOWHERE");
    nothing_is_left(&umiak);
}

#[test]
fn an_agent_can_be_asked() {
    requires!(Need::Image("busybox"));
    let mut umiak = Umiak::with_busybox();
    let socket = umiak.dir.join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    let answering = std::thread::spawn(move || {
        use std::io::Write;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"from the agent\n").unwrap();
    });
    umiak.set_env("SSH_AUTH_SOCK", socket.to_str().unwrap());
    let text = "FROM busybox\nRUN test -z \"$SSH_AUTH_SOCK\"\nRUN --mount=type=ssh test -S $SSH_AUTH_SOCK && nc local:$SSH_AUTH_SOCK < /dev/null > /said || ls -l $SSH_AUTH_SOCK > /said\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    build(&umiak, &dir, &["-q", "-t", "made", "--ssh", "default"]).ok();
    assert!(!sh(&umiak, "made", "cat /said").is_empty());
    // Where nobody asked it: it is not waited for.
    drop(std::os::unix::net::UnixStream::connect(&socket));
    answering.join().unwrap();
    build(&umiak, &dir, &["--ssh", "x=/etc/passwd"]).exits(125).tells("no key");
}
