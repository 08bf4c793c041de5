use super::*;

fn steps(text: &str) -> Vec<Instruction> {
    let text = format!("FROM scratch\n{text}");
    let file = parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {}", told(&error)));
    file.stages[0].steps.iter().map(|step| step.instruction.clone()).collect()
}

fn step(text: &str) -> Instruction {
    let mut steps = steps(text);
    assert_eq!(steps.len(), 1, "{text}: {steps:?}");
    steps.remove(0)
}

fn told(error: &dyn std::error::Error) -> String {
    crate::base::report::chain(error)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn lookup(name: &str) -> Option<String> {
    let values =
        [("A", "a"), ("E", ""), ("W", "one two"), ("P", "foo/bar/baz.tar.gz"), ("STAR", "*"), ("N", "80 81")];
    values.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
}

fn expanded(text: &str) -> Instruction {
    step(text).expand('\\', &lookup).unwrap_or_else(|error| panic!("{text}: {}", told(&error)))
}

#[test]
fn a_whole_file() {
    let text = "# syntax=docker/dockerfile:1\n\
                # Escape = `\n\
                # a comment\n\
                ARG BASE=debian VERSION\n\
                from --platform=$TARGETPLATFORM ${BASE}:12 As Build-1\n\
                \n\
                RUN echo a `\n  # a comment\n\n  && echo b\n\
                COPY --from=0 --chown=1:2 a b /c/\n\
                FROM scratch\n\
                CMD [\"/x\", \"y z\"]";
    let file = parse(text.as_bytes()).unwrap();
    assert_eq!(file.escape, '`');
    assert_eq!(file.arguments.len(), 2);
    assert_eq!(file.arguments[0], Argument { name: "BASE".into(), default: Some("debian".into()) });
    assert_eq!(file.arguments[1], Argument { name: "VERSION".into(), default: None });
    assert_eq!(file.warnings, ["line 7: RUN has an empty line within it, which is skipped"]);
    let [first, second] = &file.stages[..] else { panic!("{file:?}") };
    assert_eq!((first.line, &*first.base), (5, "${BASE}:12"));
    assert_eq!(first.text, "from --platform=$TARGETPLATFORM ${BASE}:12 As Build-1");
    assert_eq!(
        (first.name.as_deref(), first.platform.as_deref()),
        (Some("build-1"), Some("$TARGETPLATFORM"))
    );
    assert_eq!((second.line, &*second.base, second.name.as_deref()), (12, "scratch", None));
    assert_eq!((first.steps[0].line, &*first.steps[0].text), (7, "RUN echo a   && echo b"));
    assert_eq!((first.steps[1].line, second.steps[0].line), (11, 13));
    assert_eq!(second.steps[0].instruction.keyword(), "CMD");
    assert_eq!(second.steps[0].instruction, Instruction::Cmd(Command::Exec(strings(&["/x", "y z"]))));
}

#[test]
fn lines_and_comments() {
    for (text, expected) in [
        ("RUN a \\\n b", "a  b"),
        ("RUN a\\\nb", "ab"),
        ("RUN a \\  \t\n b", "a  b"),
        ("RUN a \\\r\n b\r\n", "a  b"),
        ("RUN a \\\n# c \\\n  # d\nb", "a b"),
        ("RUN a \\\n# c", "a"),
        ("RUN a # b", "a # b"),
        ("RUN a \\\\\n# no continuation", "a \\\\"),
        ("   run   a  ", "a"),
        ("RUN\ta", "a"),
        ("RUN \\\n  a", "a"),
        ("RUN [ -f x ] && y", "[ -f x ] && y"),
        ("RUN -- --a", "--a"),
        ("RUN a \\\n", "a"),
    ] {
        let Instruction::Run(run) = step(text) else { panic!("{text}") };
        assert_eq!(run.command, Command::Shell(expected.to_owned()), "{text:?}");
    }
    let file = parse("\u{feff}# escape=`\r\n#syntax=x\r\nFROM a`\r\n:b\r\n".as_bytes()).unwrap();
    assert_eq!((file.escape, &*file.stages[0].base, file.stages[0].line), ('`', "a:b", 3));
    for text in ["# comment\n# escape=`\nFROM a", "\n# escape=`\nFROM a", "# unknown=1\n# escape=`\nFROM a"] {
        assert_eq!(parse(text.as_bytes()).unwrap().escape, '\\', "{text:?}");
    }
    assert_eq!(parse(b"FROM a\\\n").unwrap().stages[0].base, "a");
    let twice = parse(b"FROM a AS b\nFROM c as B").unwrap();
    assert_eq!(twice.stages[1].name.as_deref(), Some("b"));
    assert!(
        twice.warnings[0].starts_with("line 2: the stage of line 1 is named \"b\""),
        "{:?}",
        twice.warnings
    );
    assert_eq!(parse(b"\\\n\\\nFROM a").unwrap().stages[0].base, "a");
}

#[test]
fn commands() {
    for (text, expected) in [
        ("CMD [\"a\", \"b\\u0020c\"]", Instruction::Cmd(Command::Exec(strings(&["a", "b c"])))),
        ("CMD []", Instruction::Cmd(Command::Exec(Vec::new()))),
        ("CMD", Instruction::Cmd(Command::Exec(Vec::new()))),
        ("CMD ['a', 'b']", Instruction::Cmd(Command::Shell("['a', 'b']".into()))),
        ("ENTRYPOINT [\"a\" \"b\"]", Instruction::Entrypoint(Command::Shell("[\"a\" \"b\"]".into()))),
        ("entrypoint exec a \"$B\"", Instruction::Entrypoint(Command::Shell("exec a \"$B\"".into()))),
        ("SHELL [\"/bin/bash\", \"-c\"]", Instruction::Shell(strings(&["/bin/bash", "-c"]))),
        ("MAINTAINER A <a@b>", Instruction::Maintainer("A <a@b>".into())),
        ("ONBUILD  RUN  a \\\n b", Instruction::OnBuild("RUN  a  b".into())),
        ("HEALTHCHECK none", Instruction::Healthcheck(Healthcheck::None)),
        (
            "HEALTHCHECK --interval=1m30s --timeout=0s --start-interval=5ms --retries=3 CMD [\"a\"]",
            Instruction::Healthcheck(Healthcheck::Command {
                command: Command::Exec(strings(&["a"])),
                interval: Some(90_000_000_000),
                timeout: None,
                start_period: None,
                start_interval: Some(5_000_000),
                retries: Some(3),
            }),
        ),
    ] {
        assert_eq!(step(text), expected, "{text}");
        assert_eq!(expanded(text), expected, "{text}");
    }
    let file = parse(b"FROM a\nCMD ['a', 'b']\nRUN [ \"a\" = \"b\" ]").unwrap();
    assert_eq!(file.warnings.len(), 1, "{:?}", file.warnings);
    assert!(file.warnings[0].starts_with("line 2: "), "{:?}", file.warnings);
}

#[test]
fn metadata_with_variables() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    for (text, expected) in [
        (
            "ENV X=$A Y=\"$W\" Z='$W'",
            Instruction::Env(vec![pair("X", "a"), pair("Y", "one two"), pair("Z", "$W")]),
        ),
        // All see what was before.
        ("ENV A=b B=$A", Instruction::Env(vec![pair("A", "b"), pair("B", "a")])),
        ("ENV X  one  \"two\" ", Instruction::Env(vec![pair("X", "one  two")])),
        ("ENV X $W", Instruction::Env(vec![pair("X", "one two")])),
        (
            "ENV X=a\\ b Y=\"c d\"e Z=",
            Instruction::Env(vec![pair("X", "a b"), pair("Y", "c de"), pair("Z", "")]),
        ),
        ("ENV X=a=b", Instruction::Env(vec![pair("X", "a=b")])),
        ("LABEL \"a.b c\"=\"d\\\ne\" f=g", Instruction::Label(vec![pair("a.b c", "de"), pair("f", "g")])),
        ("LABEL a b", Instruction::Label(vec![pair("a", "b")])),
        (
            "EXPOSE 80 $N/udp 9000-9001/tcp",
            Instruction::Expose(strings(&["80", "80", "81/udp", "9000-9001/tcp"])),
        ),
        ("VOLUME /a \"/b c\" /$A", Instruction::Volume(strings(&["/a", "/b c", "/a"]))),
        ("VOLUME [\"/a b\", \"/$A\"]", Instruction::Volume(strings(&["/a b", "/a"]))),
        ("USER $A:${E:-b}", Instruction::User("a:b".into())),
        ("WORKDIR \"/a b\"/$A", Instruction::Workdir("/a b/a".into())),
        ("WORKDIR /a b", Instruction::Workdir("/a b".into())),
        ("STOPSIGNAL ${S:-SIGINT}", Instruction::StopSignal("SIGINT".into())),
        (
            "ARG X=$A Y Z=\"b c\"",
            Instruction::Arg(vec![
                Argument { name: "X".into(), default: Some("a".into()) },
                Argument { name: "Y".into(), default: None },
                Argument { name: "Z".into(), default: Some("b c".into()) },
            ]),
        ),
        ("ONBUILD ENV a=$A", Instruction::OnBuild("ENV a=$A".into())),
    ] {
        assert_eq!(expanded(text), expected, "{text}");
    }
}

#[test]
fn variables() {
    for (text, expected) in [
        ("$A", "a"),
        ("${A}b$A.c", "aba.c"),
        ("$UNSET", ""),
        ("$A$", "a$"),
        ("$ A", "$ A"),
        ("$$", ""),
        ("$1x", "x"),
        ("\\$A", "$A"),
        ("\\\\$A", "\\a"),
        ("'$A'", "$A"),
        ("\"$A\"", "a"),
        ("\"\\$A\\x\\\"\"", "$A\\x\""),
        ("a\"b'c\"'d\"e'", "ab'cd\"e"),
        ("a\\", "a"),
        ("é${A}é", "éaé"),
        ("${A:-b}", "a"),
        ("${E:-b}", "b"),
        ("${E-b}", ""),
        ("${U-b}", "b"),
        ("${U:-$A}", "a"),
        ("${U:-${E:-\"x y\"}}z", "x yz"),
        ("${U:-\\}}", "}"),
        ("${U:-'}'}", "}"),
        ("${A:+b}", "b"),
        ("${E:+b}", ""),
        ("${E+b}", "b"),
        ("${U+b}", ""),
        ("${A:?b}", "a"),
        ("${E?b}", ""),
        // What is not used is not looked at.
        ("${A:-${U:?b}}", "a"),
        ("${U:+${U:?b}}", ""),
        ("${P#*/}", "bar/baz.tar.gz"),
        ("${P##*/}", "baz.tar.gz"),
        ("${P%.*}", "foo/bar/baz.tar"),
        ("${P%%.*}", "foo/bar/baz"),
        ("${P%/*}", "foo/bar"),
        ("${P#f?o}", "/bar/baz.tar.gz"),
        ("${P#x}", "foo/bar/baz.tar.gz"),
        ("${P#$STAR/}", "bar/baz.tar.gz"),
        ("${P#\"*\"}", "foo/bar/baz.tar.gz"),
        ("${P#\\*}", "foo/bar/baz.tar.gz"),
        ("${P%gz}", "foo/bar/baz.tar."),
        ("${P##*}", ""),
        ("${P#*}", "foo/bar/baz.tar.gz"),
        ("${P/\\//-}", "foo-bar/baz.tar.gz"),
        ("${P//\\//-}", "foo-bar-baz.tar.gz"),
        ("${P//ba?/$A}", "foo/a/a.tar.gz"),
        ("${P/b*z/x}", "foo/x"),
        ("${P//b*r/x}", "foo/x.gz"),
        ("${P//o}", "f/bar/baz.tar.gz"),
        ("${P//o/}", "f/bar/baz.tar.gz"),
        ("${P/x/y}", "foo/bar/baz.tar.gz"),
        ("${P//x*o/y}", "foo/bar/baz.tar.gz"),
        ("${P///}", "foo/bar/baz.tar.gz"),
        ("${U/a/b}", ""),
    ] {
        assert_eq!(expand_word(text, '\\', &lookup).as_deref(), Ok(expected), "{text}");
    }
    assert_eq!(expand_word("`$A\\`\"", '`', &lookup).as_deref(), Ok("$A\\\""));
    assert_eq!(expand_words("a\"b c\" $W '' d", '\\', &lookup), Ok(strings(&["ab c", "one", "two", "d"])));
    for (text, part) in [
        ("'a", "the quote ' is not closed"),
        ("a\"b", "the quote \" is not closed"),
        ("${A", "not closed by }"),
        ("${", "not closed by }"),
        ("${A:-b", "not closed by }"),
        ("${A#b", "not closed by }"),
        ("${A/b", "not closed by }"),
        ("${}", "name"),
        ("${:-a}", "name"),
        ("${A^^}", "${A^…} is not supported yet"),
        ("${A:1:2}", "${A:1…} is not supported yet"),
        ("${A:}", "${A:}…}"),
        ("${U:?it is needed}", "the variable U it is needed"),
        ("${U:?}", "the variable U is not set"),
        ("${E:?}", "the variable E is empty"),
    ] {
        let error = expand_word(text, '\\', &lookup).unwrap_err();
        assert!(told(&error).contains(part), "{text}: {}", told(&error));
        assert!(told(&error).starts_with(&format!("\"{text}\": ")), "{text}: {}", told(&error));
    }
}

#[test]
fn what_grows_without_end_is_refused() {
    let long = "x".repeat(1 << 20);
    let lookup = |name: &str| (name == "L").then(|| long.clone());
    let word = "$L".repeat(20);
    let failure = |text: &str| told(&expand_word(text, '\\', &lookup).unwrap_err());
    assert!(failure(&word).contains("longer than 16 MiB"), "{}", failure(&word));
    assert!(failure(&format!("${{U:+{word}}}${{U:-{word}}}")).contains("16 MiB"));
    assert!(failure(&format!("${{L//x/{}}}", "y".repeat(100))).contains("16 MiB"));
    let env = Instruction::Env(vec![("A".into(), "$L".into()); 20]);
    assert!(env.expand('\\', &lookup).is_err());
    let deep = "${U:-".repeat(100_000);
    assert!(failure(&deep).contains("levels deep"));
    assert!(failure(&format!("${{L#{}}}", "x".repeat(2000))).contains("a pattern is longer"));
    assert_eq!(expand_word("$L", '\\', &lookup).unwrap().len(), 1 << 20);
}

#[test]
fn copies() {
    let copy = |text: &str| match step(text) {
        Instruction::Copy(copy) => copy,
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(
        copy(
            "COPY --from=b --chown=$A:c --chmod=u=rwX --link --parents=false --exclude=*.md --exclude=x a 'b c' d/"
        ),
        Copy {
            sources: strings(&["a", "'b c'"]),
            destination: "d/".into(),
            from: Some("b".into()),
            chown: Some("$A:c".into()),
            chmod: Some("u=rwX".into()),
            link: true,
            exclude: strings(&["*.md", "x"]),
            ..Copy::default()
        }
    );
    assert_eq!(
        copy("ADD --keep-git-dir --unpack=FALSE --checksum=sha256:1 [\"a b\", \"/c\"]"),
        Copy {
            add: true,
            sources: strings(&["a b"]),
            destination: "/c".into(),
            checksum: Some("sha256:1".into()),
            keep_git_dir: true,
            unpack: Some(false),
            ..Copy::default()
        }
    );
    let Instruction::Copy(copied) =
        expanded("COPY --from=$A --chown=$A --exclude=$A/* \"$W\" 'b c' $STAR /$A/")
    else {
        panic!()
    };
    assert_eq!(copied.sources, ["one two", "b c", "*"]);
    assert_eq!((&*copied.destination, copied.from.as_deref()), ("/a/", Some("a")));
    assert_eq!((copied.chown.as_deref(), &*copied.exclude[0]), (Some("a"), "a/*"));
}

fn doc(name: &str, text: &str, expand: bool) -> Heredoc {
    Heredoc { name: name.into(), text: text.into(), expand }
}

#[test]
fn texts_within_the_file() {
    let run = |text: &str| match &steps(text)[0] {
        Instruction::Run(run) => run.clone(),
        other => panic!("{text}: {other:?}"),
    };
    for (text, command, docs) in [
        (
            "RUN <<EOF\na\n  b \\\n\n# c\nEOF\n",
            "a\n  b \\\n\n# c\n",
            vec![doc("EOF", "a\n  b \\\n\n# c\n", true)],
        ),
        ("RUN <<-'E F'\n\ta\n\t\tb\n\tE F\n", "a\nb\n", vec![doc("E F", "a\nb\n", false)]),
        ("RUN << EOF\na\nEOF", "a\n", vec![doc("EOF", "a\n", true)]),
        ("RUN 3<<E\\OF\na\r\nEOF\r\n", "a\r\n", vec![doc("EOF", "a\r\n", false)]),
        ("RUN <<EOF\nEOF\n", "", vec![doc("EOF", "", true)]),
        ("RUN cat <<EOF >x\na\nEOF\n", "cat <<EOF >x\na\nEOF", vec![doc("EOF", "a\n", true)]),
        (
            "RUN <<-A cat >x && \\\n <<\"B\" cat\n\ta\n\tA\nFROM b\nB\n",
            "<<-A cat >x &&  <<\"B\" cat\n\ta\nA\nFROM b\nB",
            vec![doc("A", "a\n", true), doc("B", "FROM b\n", false)],
        ),
        // None of these.
        ("RUN echo $((1 << 2)) x", "echo $((1 << 2)) x", vec![]),
        ("RUN echo \"<<EOF\"", "echo \"<<EOF\"", vec![]),
        ("RUN cat <<< x", "cat <<< x", vec![]),
        ("RUN echo a<<b", "echo a<<b", vec![]),
        ("RUN it's <<EOF", "it's <<EOF", vec![]),
        ("RUN a <<", "a <<", vec![]),
    ] {
        assert_eq!(run(text).command, Command::Shell(command.into()), "{text:?}");
        assert_eq!(run(text).heredocs, docs, "{text:?}");
        assert_eq!(steps(&format!("{text}\nUSER a")).len(), 2, "{text:?}");
    }
    assert_eq!(run("RUN [\"<<EOF\"]").command, Command::Exec(strings(&["<<EOF"])));
    let text =
        "COPY a <<X <<'Y' b /d/\n$A \\$A \\n \"q\" \\\\ \\\nz\nX\n$A\nY\nONBUILD COPY <<Z /z\n$A\nZ\nUSER u";
    let list = steps(text);
    assert_eq!(list.len(), 3);
    let Instruction::Copy(copy) = list[0].expand('\\', &lookup).unwrap() else { panic!() };
    assert_eq!((&copy.sources[..], &*copy.destination), (&strings(&["a", "b"])[..], "/d/"));
    assert_eq!(copy.inline, [doc("X", "a $A \\n \"q\" \\ z\n", false), doc("Y", "$A\n", false)]);
    assert_eq!(list[1], Instruction::OnBuild("COPY <<Z /z\n$A\nZ".into()));
    let later = parse_step("COPY <<Z /z\n$A\nZ", '\\').unwrap();
    assert_eq!(later.text, "COPY <<Z /z");
    assert!(matches!(later.instruction, Instruction::Copy(copy) if copy.inline == [doc("Z", "$A\n", true)]));
}

#[test]
fn mounts() {
    let run = |text: &str| match step(text) {
        Instruction::Run(run) => run,
        other => panic!("{other:?}"),
    };
    let parsed = run(
        "RUN --network=none --security=sandbox --mount=target=/a --mount=type=cache,id=$A,dst=/c,sharing=locked,\
                      mode=0755,uid=1,gid=2,ro=false,from=b,src=s --mount=type=tmpfs,target=/t,size=64m \
                      --mount=type=secret,src=s,required,env=S --mount=type=ssh --mount=\"from=x,\\\"target=/a,b\\\",rw\" a",
    );
    assert_eq!((parsed.network.as_deref(), parsed.security.as_deref()), (Some("none"), Some("sandbox")));
    let kinds: Vec<_> = parsed.mounts.iter().map(|mount| &*mount.kind).collect();
    assert_eq!(kinds, ["bind", "cache", "tmpfs", "secret", "ssh", "bind"]);
    let cache = &parsed.mounts[1];
    assert_eq!((cache.id.as_deref(), cache.target.as_deref()), (Some("$A"), Some("/c")));
    assert_eq!((cache.mode, cache.uid, cache.gid), (Some(0o755), Some(1), Some(2)));
    assert_eq!((cache.read_only, cache.sharing.as_deref()), (Some(false), Some("locked")));
    assert_eq!((cache.from.as_deref(), cache.source.as_deref()), (Some("b"), Some("s")));
    assert_eq!(parsed.mounts[2].size, Some(64 << 20));
    let secret = &parsed.mounts[3];
    assert_eq!((secret.id.as_deref(), secret.required, secret.env.as_deref()), (Some("s"), true, Some("S")));
    assert_eq!(parsed.mounts[5].target.as_deref(), Some("/a,b"));
    assert_eq!(parsed.mounts[5].read_only, Some(false));

    let open = run("RUN --mount=type=${T:-cache},target=/$A/'x y',uid=${U:-7},mode=$M a $A");
    assert_eq!((open.mounts[0].uid, open.mounts[0].target.as_deref()), (None, Some("/$A/x y")));
    let value = |name: &str| if name == "M" { Some("700".to_owned()) } else { lookup(name) };
    let Instruction::Run(open) = Instruction::Run(open).expand('\\', &value).unwrap() else { panic!() };
    assert_eq!(open.command, Command::Shell("a $A".into()));
    let mount = &open.mounts[0];
    assert_eq!((&*mount.kind, mount.target.as_deref()), ("cache", Some("/a/x y")));
    assert_eq!((mount.uid, mount.mode), (Some(7), Some(0o700)));
    assert_eq!(run("RUN --mount=from=b a").mounts[0].target.as_deref(), Some("."));
    let error = step("RUN --mount=type=$A,target=/x a").expand('\\', &lookup).unwrap_err();
    assert_eq!(
        told(&error),
        "--mount: there is no such mount as \"a\": the types are bind, cache, secret, ssh and tmpfs"
    );
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (text, line, part, hint) in [
        ("", 1, "no instruction", ""),
        ("# a\n\n", 2, "no instruction", ""),
        ("ARG a\n", 1, "no FROM", "FROM scratch"),
        ("RUN a", 1, "RUN stands before the first FROM", ""),
        ("FROM", 1, "FROM lacks", ""),
        ("FROM a b", 1, "IMAGE [AS NAME], not \"a b\"", ""),
        ("FROM a AS 1b", 1, "cannot be named \"1b\"", ""),
        ("FROM a AS $B", 1, "cannot be named", ""),
        ("FROM --platfrom=x a", 1, "FROM has no flag \"--platfrom\"", "--platform?"),
        ("# escape=x\nFROM a", 1, "\"x\" cannot be the escape", ""),
        ("# escape=`\n# escape=`\nFROM a", 2, "twice", ""),
        ("FROM a\nRNU x", 2, "no instruction \"RNU\"", "did you mean RUN?"),
        ("FROM a\nRUN x\n  && y", 3, "no instruction \"&&\"", "\\ at the end"),
        ("FROM a\nRUN x \\\n y\nCOYP a b", 4, "no instruction \"COYP\"", "COPY"),
        ("FROM a\nRUN", 2, "RUN lacks a command", ""),
        ("FROM a\nRUN []", 2, "RUN lacks a command", ""),
        ("FROM a\nRUN [\"a\", 1]", 2, "texts alone", ""),
        ("FROM a\nRUN --netwrk=x a", 2, "no flag", "--network?"),
        ("FROM a\nRUN --network a", 2, "--network takes a value", ""),
        ("FROM a\nRUN --network=bridge a", 2, "default, none or host, not \"bridge\"", ""),
        ("FROM a\nRUN --device=x a", 2, "RUN --device is not supported yet", ""),
        ("FROM a\nRUN --mount=tpye=bind a", 2, "RUN --mount=tpye=bind: \"tpye\" is no member", "type?"),
        ("FROM a\nRUN --mount=type=bin,target=/ a", 2, "no such mount as \"bin\"", "bind?"),
        ("FROM a\nRUN --mount=type=cache a", 2, "needs target", ""),
        ("FROM a\nRUN --mount=type=secret a", 2, "needs id", ""),
        ("FROM a\nRUN --mount=type=tmpfs,target=/x,from=b a", 2, "tmpfs takes no \"from\"", ""),
        ("FROM a\nRUN --mount=target=/x,mode=8 a", 2, "mode takes an octal mode, not \"8\"", ""),
        ("FROM a\nRUN --mount=target=/x,nosuid a", 2, "\"nosuid\" of a mount is not supported yet", ""),
        ("FROM a\nRUN --mount=target a", 2, "\"target\" lacks its value", ""),
        ("FROM a\nCOPY a", 2, "COPY lacks where to", ""),
        ("FROM a\nCOPY", 2, "COPY lacks what", ""),
        ("FROM a\nCOPY --link=maybe a b", 2, "true or false, not \"maybe\"", ""),
        ("FROM a\nCOPY --from=a --from=b a b", 2, "--from is there twice", ""),
        ("FROM a\nCOPY --checksum=x a b", 2, "COPY has no flag", ""),
        ("FROM a\nCOPY a <<EOF\nEOF\n", 2, "where to copy to", ""),
        ("FROM a\nCOPY <<EOF <<X /b\nEOF\nx\n", 2, "<<X does not end", ""),
        ("FROM a\nRUN <<EOF\n EOF", 2, "<<EOF does not end", ""),
        ("FROM a\nENV", 2, "lacks", ""),
        ("FROM a\nENV a", 2, "KEY=VALUE, not \"a\"", ""),
        ("FROM a\nENV a=b c", 2, "KEY=VALUE, not \"c\"", ""),
        ("FROM a\nENV =b", 2, "KEY=VALUE, not \"=b\"", ""),
        ("FROM a\nARG =b", 2, "NAME[=DEFAULT]", ""),
        ("FROM a\nSHELL /bin/sh", 2, "JSON list", ""),
        ("FROM a\nSHELL []", 2, "JSON list", ""),
        ("FROM a\nEXPOSE 70000", 2, "not \"70000\"", ""),
        ("FROM a\nSTOPSIGNAL x", 2, "a signal's name", ""),
        ("FROM a\nVOLUME [\"\"]", 2, "directories", ""),
        ("FROM a\nHEALTHCHECK", 2, "NONE, or CMD", ""),
        ("FROM a\nHEALTHCHECK curl x", 2, "NONE, or CMD and a command, not \"curl\"", ""),
        ("FROM a\nHEALTHCHECK CMD", 2, "a command after CMD", ""),
        ("FROM a\nHEALTHCHECK NONE x", 2, "nothing after NONE", ""),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x", 2, "at least 1ms", ""),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x", 2, "a number", ""),
        ("FROM a\nONBUILD", 2, "lacks an instruction", ""),
        ("FROM a\nONBUILD FROM b", 2, "ONBUILD cannot keep FROM", ""),
        ("FROM a\nONBUILD ONBUILD RUN b", 2, "cannot keep ONBUILD", ""),
        ("FROM a\nONBUILD RUM b", 2, "\"RUM\"", "RUN"),
        ("FROM a\nUSER", 2, "lacks a user", ""),
        ("FROM a\nCMD --x y", 2, "CMD has no flag", ""),
        ("FROM a\nRUN x\0y", 2, "NUL", ""),
    ] {
        let error = parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.line(), line, "{text:?}: {}", told(&error));
        assert!(told(&error).contains(part), "{text:?}: {}", told(&error));
        assert!(told(&error).starts_with(&format!("Dockerfile line {line}: ")), "{text:?}: {}", told(&error));
        assert!(error.hint().unwrap_or_default().contains(hint), "{text:?}: {:?}", error.hint());
        assert_eq!(error.hint().is_some(), !hint.is_empty(), "{text:?}: {:?}", error.hint());
    }
    assert_eq!(parse(b"FROM a\n\nRUN \xff").unwrap_err().line(), 3);
    for (text, part) in
        [("FROM a", "FROM"), ("RUN a\nRUN b", "more than one"), ("", "no instruction"), ("X", "\"X\"")]
    {
        assert!(told(&parse_step(text, '\\').unwrap_err()).contains(part), "{text}");
    }
    assert_eq!(told(&step("STOPSIGNAL $A").expand('\\', &lookup).unwrap_err()), "there is no signal \"a\"");
}

#[test]
fn long_inputs_take_no_time_that_grows_with_their_square() {
    let begin = std::time::Instant::now();
    let many = |text: &str| text.repeat((1 << 20) / text.len());
    for text in [
        many("a"),
        many("\\\n"),
        many("a\\\n"),
        many("# a\n"),
        many("RUN a\n"),
        many("FROM a\n"),
        many("# escape=\\\n"),
        format!("RUN {}", many("<<E ")),
        format!("RUN {}", many("$((")),
        format!("RUN {}", many("\"")),
        format!("RUN {}", many("a\\\n\n")),
        format!("RUN {}\n{}", "<<E ".repeat(1000), many("E\n")),
        format!("RUN {}a", many("--mount=target=/a ")),
        format!("RUN --mount={}", many("target=/a,")),
        format!("RUN {}", many("[")),
        format!("RUN [{}1]", many("1,")),
        format!("COPY {}", many("<<E ")),
        format!("COPY {}", many("$A ")),
        format!("ENV {}", many("A=$A ")),
        format!("ENV A {}", many("${A")),
        format!("ENV A={}", many("${A:-")),
        format!("ENV A={}", many("${A/a/b}")),
        format!("ENV A={}", many("'")),
        format!("EXPOSE {}", many("$A ")),
        format!("ARG {}", many("A ")),
        format!("ONBUILD {}", many("ONBUILD ")),
    ] {
        let text = format!("FROM a\n{text}\n");
        if let Ok(file) = parse(text.as_bytes()) {
            for step in file.stages.iter().flat_map(|stage| &stage.steps) {
                let _ = step.instruction.expand('\\', &lookup);
            }
        }
    }
    let ignore = ignore::Ignore::parse(many("a/**/*b/\n").as_bytes()).unwrap();
    assert!(!ignore.excluded("x/y"));
    assert!(begin.elapsed().as_secs() < 60, "{:?}", begin.elapsed());
}
