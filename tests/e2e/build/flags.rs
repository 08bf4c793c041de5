//! What RUN gets, how the image is described, and what is refused.

use serde_json::json;

use super::{build, config, context, nothing_is_left, sh, write};
use crate::requires;
use crate::support::{Need, Umiak};

#[test]
fn what_is_not_done_is_refused() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(&umiak, &[("Dockerfile", "FROM busybox\n")]);
    for option in [
        "--all-platforms",
        "--cache-from=x",
        "--cache-to=x",
        "--compat-volumes",
        "--cpp-flag=x",
        "--cw=x",
        "--decryption-key=x",
        "--disable-compression=false",
        "--force-rm=false",
        "--hooks-dir=x",
        "--isolation=chroot",
        "--jobs=2",
        "--layer-label=x",
        "--load=false",
        "--no-cache-filter=x",
        "--os-feature=x",
        "--os-version=x",
        "--platform=linux/amd64,linux/arm64",
        "--progress=tty",
        "--provenance=true",
        "--rm=false",
        "--runtime=x",
        "--runtime-flag=x",
        "--save-stages",
        "--sbom=x",
        "--sbom-output=x",
        "--sign-by=x",
        "--source-policy-file=x",
        "--stage-labels",
    ] {
        let name = option.split('=').next().unwrap();
        build(&umiak, &dir, &[option]).exits(125).tells(name).tells("not supported yet");
    }
    for (options, part) in [
        (&["--format", "tar"][..], "oci or docker"),
        (&["--pull=sometimes"], "sometimes"),
        (&["--annotation", "x"], "NAME=VALUE"),
        (&["--timestamp", "1", "--source-date-epoch", "2"], "--timestamp"),
        (&["--rewrite-timestamp"], "--rewrite-timestamp"),
        (&["--output", "type=strange"], "strange"),
        (&["--output", "type=tar"], "dest"),
        (&["--push"], "no name"),
        (&["--compression-format", "zstd"], "not compressed"),
        (&["-t", "UPPER"], "UPPER"),
        (&["-t", "a@sha256:0000000000000000000000000000000000000000000000000000000000000000"], "digest"),
        (&["--iidfile", "/nowhere/x"], "/nowhere/x"),
        (&["--logfile", "/nowhere/x"], "/nowhere/x"),
        (&["--memory", "lots"], "--memory \"lots\""),
        (&["--network", "none", "--network", "nothing-such"], "nothing-such"),
        (&["--shm-size", "x"], "--shm-size"),
        (&["--ulimit", "nofile=2:1"], "above the hard limit"),
        (&["--cap-add", "strange"], "strange"),
        (&["--colour"], "--colour"),
    ] {
        write(&dir, "Dockerfile", "FROM busybox\nRUN true\n");
        build(&umiak, &dir, options).exits(125).tells(part);
    }
    // What is so anyway may be asked for.
    let anyway = [
        "-q",
        "--rm",
        "--force-rm",
        "--load",
        "--provenance=false",
        "--sbom=false",
        "--jobs=1",
        "--compress",
    ];
    let more = [
        "--isolation=oci",
        "--progress=plain",
        "--disable-compression",
        "--layers",
        "--compat-volumes=false",
    ];
    build(&umiak, &dir, &[&anyway[..], &more].concat()).ok();
    for words in [&["buildx", "build"][..], &["builder", "build"], &["image", "build"]] {
        umiak.run(&[words, &["-q", "--network", "none", dir.to_str().unwrap()]].concat()).ok();
    }
    nothing_is_left(&umiak);
}

#[test]
fn how_the_image_is_described() {
    requires!(Need::Image("busybox"));
    let mut umiak = Umiak::with_busybox();
    umiak.set_env("OURS", "of our environment");
    let base =
        context(&umiak, &[("Dockerfile", "FROM busybox\nLABEL kept=1 gone=2\nENV STAYS=1 LEAVES=2\n")]);
    build(&umiak, &base, &["-q", "-t", "base", "--annotation", "of.base=1", "--annotation", "not.this=1"])
        .ok();
    let dir = context(&umiak, &[("Dockerfile", "FROM base\nRUN echo $NEW/$OURS/$LEAVES > /env\n")]);
    let flags = [
        "--label",
        "a=b=c",
        "--label",
        "bare",
        "--unsetlabel",
        "gone",
        "--env",
        "NEW=x",
        "--env",
        "OURS",
        "--unsetenv",
        "LEAVES",
    ];
    let notes = ["--annotation", "n.a=1", "--unsetannotation", "not.this"];
    build(&umiak, &dir, &[&["-q", "-t", "made"], &flags[..], &notes].concat()).ok();
    let found = config(&umiak, "made");
    let labels = &found["Labels"];
    assert_eq!((&labels["a"], &labels["bare"], &labels["kept"]), (&json!("b=c"), &json!(""), &json!("1")));
    assert!(labels["gone"].is_null(), "{labels}");
    let env = found["Env"].as_array().unwrap();
    assert!(env.contains(&json!("NEW=x")) && env.contains(&json!("OURS=of our environment")), "{env:?}");
    assert!(
        env.contains(&json!("STAYS=1")) && !env.iter().any(|one| one.as_str().unwrap().starts_with("LEAVES")),
        "{env:?}"
    );
    assert!(sh(&umiak, "made", "cat /env").starts_with("x/of our environment/"));
    umiak.run(&["save", "-q", "--format", "oci-dir", "-o", "layout", "made"]).ok();
    let read = |path: &str| {
        let text = std::fs::read(umiak.dir.join("layout").join(path)).unwrap();
        serde_json::from_slice::<serde_json::Value>(&text).unwrap()
    };
    let digest = read("index.json")["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let annotations = read(&format!("blobs/{digest}"))["annotations"].clone();
    assert_eq!((&annotations["n.a"], &annotations["of.base"]), (&json!("1"), &json!("1")), "{annotations}");
    assert!(
        annotations["not.this"].is_null() && annotations["org.opencontainers.image.created"].is_string(),
        "{annotations}"
    );
    build(
        &umiak,
        &dir,
        &["-q", "-t", "bare", "--inherit-labels=false", "--identity-label=false", "--label", "own=1"],
    )
    .ok();
    assert_eq!(config(&umiak, "bare")["Labels"], json!({"own": "1"}));
    let kind = |name: &str| umiak.inspect(name, "{{.ManifestType}}");
    assert_eq!(kind("made"), "application/vnd.oci.image.manifest.v1+json");
    umiak.set_env("BUILDAH_FORMAT", "docker");
    build(&umiak, &dir, &["-q", "-t", "made"]).ok();
    assert_eq!(
        umiak.inspect("made", "{{.ManifestType}}"),
        "application/vnd.docker.distribution.manifest.v2+json"
    );
}

#[test]
fn what_run_gets() {
    requires!(Need::Image("busybox"));
    let mut umiak = Umiak::with_busybox();
    umiak.set_env("http_proxy", "http://proxy.test:1");
    let host = context(&umiak, &[("shared", "of the host\n")]);
    let text = "FROM busybox\nRUN cat /host/shared > /a; touch /host/x 2>/dev/null || echo ro >> /a\n\
        RUN cat /etc/hosts > /hosts.seen; ulimit -n > /b; df -k /dev/shm | tail -1 | awk '{print $2}' >> /b; echo $http_proxy >> /b\n\
        RUN grep CapEff /proc/self/status > /caps; hostname >> /b; test ! -s /etc/hosts || echo hosts\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    let volume = format!("{}:/host:ro", host.display());
    let options = [
        "-q",
        "-t",
        "made",
        "-v",
        &volume,
        "--add-host",
        "other.test:10.9.8.7",
        "--ulimit",
        "nofile=123:123",
    ];
    build(&umiak, &dir, &[&options[..], &["--shm-size", "2m", "--cap-drop", "all"]].concat()).ok();
    assert_eq!(
        sh(&umiak, "made", "cat /a; grep -c other.test /hosts.seen; head -3 /b"),
        "of the host\nro\n1\n123\n2048\nhttp://proxy.test:1"
    );
    assert_eq!(sh(&umiak, "made", "cat /caps"), "CapEff:\t0000000000000000");
    // Neither the volume nor the proxy is the image's.
    assert_eq!(sh(&umiak, "made", "test -e /host || echo none"), "none");
    let found = config(&umiak, "made");
    assert!(!found["Env"].to_string().contains("proxy.test"), "{found}");
    assert!(!std::path::Path::new(&host).join("x").exists());
    build(&umiak, &dir, &["-q", "-t", "plain", "-v", &volume, "--http-proxy=false", "--no-cache"]).ok();
    assert_eq!(sh(&umiak, "plain", "sed -n 3p /b"), "");
    nothing_is_left(&umiak);
}

#[test]
fn what_reaches_out_is_allowed_first() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for (line, word) in [
        ("RUN --network=host ls /sys/class/net > /seen", "network.host"),
        ("RUN --security=insecure grep CapEff /proc/self/status > /seen", "security.insecure"),
    ] {
        let dir = context(&umiak, &[("Dockerfile", &format!("FROM busybox\n{line}\n"))]);
        build(&umiak, &dir, &["-q"]).exits(125).tells("line 2").hints(word);
        build(&umiak, &dir, &["-q", "-t", "made", "--allow", word]).ok();
        assert!(!sh(&umiak, "made", "cat /seen").is_empty());
    }
    let dir = context(
        &umiak,
        &[("Dockerfile", "FROM busybox\nRUN --network=none ls /sys/class/net | xargs > /seen\n")],
    );
    umiak.run(&["build", "-q", "-t", "made", dir.to_str().unwrap()]).ok();
    assert_eq!(sh(&umiak, "made", "cat /seen"), "lo");
    build(&umiak, &dir, &["--allow", "all"]).exits(125).tells("network.host");
}

#[test]
fn ids_of_steps() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let text = "FROM busybox\nRUN cat /proc/self/uid_map > /map; touch /x; chown 5:6 /x\nRUN stat -c '%u %g' /x > /seen\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    // Whatever ids a step has outside: the image has those that the step sees.
    for options in
        [&["--userns", "host"][..], &["--userns-uid-map", "0:1:65535", "--userns-gid-map", "0:1:65535"]]
    {
        build(&umiak, &dir, &[&["-q", "--no-cache", "-t", "made"], options].concat()).ok();
        assert_eq!(sh(&umiak, "made", "cat /seen; stat -c '%u %g' /x /seen"), "5 6\n5 6\n0 0", "{options:?}");
    }
    nothing_is_left(&umiak);
}

#[test]
fn for_another_machine() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let text = "ARG TARGETPLATFORM\nFROM scratch\nARG TARGETARCH\nARG BUILDARCH\nLABEL for=$TARGETARCH on=$BUILDARCH all=$TARGETPLATFORM\nCOPY Dockerfile /\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    let told = |options: &[&str]| {
        build(&umiak, &dir, &[&["-q", "-t", "made"], options].concat()).ok();
        umiak.inspect("made", "{{.Os}}/{{.Architecture}} {{.Labels.for}}")
    };
    let own = told(&[]);
    let machine = own.rsplit(' ').next().unwrap().to_owned();
    assert_eq!(own, format!("linux/{machine} {machine}"));
    assert_eq!(umiak.inspect("made", "{{.Labels.on}}"), machine);
    assert_eq!(told(&["--platform", "linux/s390x"]), "linux/s390x s390x");
    assert_eq!(told(&["--arch", "riscv64"]), "linux/riscv64 riscv64");
    for (options, part) in [
        (&["--platform", "strange"][..], "strange"),
        (&["--platform", "linux/arm64", "--arch", "arm64"], "--platform"),
    ] {
        build(&umiak, &dir, options).exits(125).tells(part);
    }
    // What is here is for this machine; another is asked for, and there is none.
    write(&dir, "Dockerfile", "FROM busybox\n");
    build(&umiak, &dir, &["--pull=never", "--platform", "linux/s390x"]).exits(125).tells("busybox");
}

/// As those of `run`: kept, or refused; never passed over. That they are kept is tried in a machine that delegates
/// control groups (`tests/guest/build.sh`).
#[test]
fn limits_are_kept_or_refused() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(&umiak, &[("Dockerfile", "FROM busybox\nRUN cat /sys/fs/cgroup/pids.max > /max\n")]);
    for limit in
        [&["--pids-limit", "9"][..], &["--memory", "64m"], &["--cpus", "0.5"], &["--cpuset-cpus", "0"]]
    {
        let run = umiak.run(&[&["run", "--rm", "--network", "none"], limit, &["busybox", "true"]].concat());
        let built = build(&umiak, &dir, &[&["-q", "--no-cache", "-t", "made"], limit].concat());
        match run.code {
            Some(0) => drop(built.ok()),
            _ => {
                assert_eq!(built.code, Some(125), "{limit:?}");
                let line = |text: &str| text.lines().next().unwrap().rsplit("--").next().unwrap().to_owned();
                assert_eq!(line(&built.stderr), line(&run.stderr), "{limit:?}");
            }
        }
    }
    nothing_is_left(&umiak);
}

#[test]
fn what_is_read_and_shown() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(
        &umiak,
        &[(
            "Dockerfile",
            "FROM busybox\nRUN read line; echo got:$line\nRUN echo to-stdout; echo to-stderr >&2\n",
        )],
    );
    let words = ["build", "--network", "none", "--stdin", "--no-cache", dir.to_str().unwrap()];
    let told = umiak.run_with_input(&words, b"a line\n").ok();
    let at = |part: &str| told.stdout.find(part).unwrap_or_else(|| panic!("{part}: {}", told.stdout));
    assert!(at("STEP 1/3: FROM busybox") < at("STEP 2/3: RUN read line"));
    assert!(at("STEP 2/3") < at("\ngot:a line\n") && at("\ngot:a line\n") < at("STEP 3/3"));
    assert!(at("STEP 3/3") < at("\nto-stdout\n") && at("\nto-stdout\n") < at("COMMIT\n"));
    assert!(told.stderr.contains("to-stderr") && !told.stdout.contains("\nto-stderr"), "{}", told.stderr);
    // Without, there is nothing to be read.
    write(&dir, "Dockerfile", "FROM busybox\nRUN read line\n");
    build(&umiak, &dir, &["--no-cache"]).exits(1).tells("line 2");
    write(&dir, "Dockerfile", "FROM busybox\nRUN echo to-stdout\n");
    for quiet in [&["-q"][..], &["--progress=quiet"]] {
        let told = build(&umiak, &dir, &[quiet, &["--no-cache"]].concat()).ok().quiet().stdout;
        assert!(told.len() == 65 && told.trim().bytes().all(|b| b.is_ascii_hexdigit()), "{told}");
    }
    let told = build(&umiak, &dir, &["--no-cache", "--logfile", "log"]).ok().stdout;
    assert_eq!(told.lines().count(), 1, "{told}");
    let log = std::fs::read_to_string(umiak.dir.join("log")).unwrap();
    assert!(log.contains("STEP 2/2: RUN echo to-stdout\nto-stdout\n--> "), "{log}");
    // Who reads may go away.
    let words = ["build", "--network", "none", "--no-cache", "-t", "made", dir.to_str().unwrap()];
    let mut child = umiak.spawn(&words);
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    umiak.run(&["image", "exists", "made"]).ok();
}
