//! Where files come from: directories, archives, standard input, what is left out of them.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use super::{build, context, made, nothing_is_left, sh, write};
use crate::requires;
use crate::support::{Need, Output, Umiak, finish};

/// Builds with this on standard input.
fn build_of(umiak: &Umiak, options: &[&str], input: &[u8]) -> Output {
    let words = [&["build", "--network", "none", "-q", "-t", "made"], options].concat();
    let mut command = umiak.command(&words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    finish(command.spawn().unwrap(), input, format!("umiak {words:?} with input"))
}

/// An archive of files.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const COPY_ALL: &str = "FROM busybox\nCOPY . /all/\n";

fn listed(umiak: &Umiak) -> String {
    sh(umiak, "made", "cd /all && find . -type f | sort | xargs echo")
}

#[test]
fn the_dockerfile_and_its_context() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir =
        context(&umiak, &[("Dockerfile", "FROM busybox\nCOPY a /which"), ("a", "docker"), ("sub/a", "sub")]);
    let place = dir.to_str().unwrap();
    let which = |options: &[&str]| {
        umiak.run(&[&["build", "--network", "none", "-q", "-t", "made"], options].concat()).ok();
        sh(&umiak, "made", "cat /which")
    };
    assert_eq!(which(&[place]), "docker");
    // Containerfile goes before Dockerfile.
    write(&dir, "Containerfile", "FROM busybox\nCOPY sub/a /which");
    assert_eq!(which(&[place]), "sub");
    let own = |name: &str| format!("{place}/{name}");
    assert_eq!(which(&["-f", &own("Dockerfile"), place]), "docker");
    // Without a context it is where the file is.
    write(&dir, "sub/File", "FROM busybox\nCOPY a /which");
    assert_eq!(which(&["-f", &own("sub/File")]), "sub");
    // A name that is not here is one in the context.
    assert_eq!(which(&["-f", "sub/File", place]), "docker");
    // Several are one after the other.
    umiak.file("more", "RUN echo more >> /which\n");
    let more = umiak.dir.join("more");
    assert_eq!(which(&["-f", &own("Dockerfile"), "-f", more.to_str().unwrap(), place]), "dockermore");
    let mut command = umiak.command(&["build", "--network", "none", "-q", "-t", "made"]);
    command.current_dir(&dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    let _ = finish(command.spawn().unwrap(), b"", "umiak build in the context".into()).ok();
    assert_eq!(sh(&umiak, "made", "cat /which"), "sub");
    nothing_is_left(&umiak);
}

#[test]
fn of_standard_input() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    // A Dockerfile alone: there is no context.
    build_of(&umiak, &["-"], b"FROM busybox\nRUN echo alone > /which").ok();
    assert_eq!(sh(&umiak, "made", "cat /which"), "alone");
    build_of(&umiak, &["-"], b"FROM busybox\nCOPY a /a").exits(125).tells("line 2");
    // With a directory beside it.
    let dir = context(&umiak, &[("a", "of the directory")]);
    build_of(&umiak, &["-f", "-", dir.to_str().unwrap()], b"FROM busybox\nCOPY a /which").ok();
    assert_eq!(sh(&umiak, "made", "cat /which"), "of the directory");
    // An archive, also a compressed one, also with another file of it.
    let files = [
        ("Dockerfile", "FROM busybox\nCOPY a /which"),
        ("a", "of the archive"),
        ("d/F", "FROM busybox\nCOPY d/F /which"),
    ];
    let bytes = archive(&files);
    build_of(&umiak, &["-"], &bytes).ok();
    assert_eq!(sh(&umiak, "made", "cat /which"), "of the archive");
    build_of(&umiak, &["-f", "d/F", "-"], &gzip(&bytes)).ok();
    assert!(sh(&umiak, "made", "cat /which").contains("d/F"));
    build_of(&umiak, &["-f", "-", "-"], b"FROM busybox").exits(125).tells("standard input");
    build_of(&umiak, &["--stdin", "-"], b"FROM busybox").exits(125).tells("standard input");
    build_of(&umiak, &["-"], b"").exits(125);
    build_of(&umiak, &["-"], &bytes[..1000]).exits(125);
    // Names that lead out of it lead nowhere.
    let hostile = archive(&[("Dockerfile", COPY_ALL), ("d/x", "x")]);
    let mut hostile = hostile;
    let at = hostile.windows(3).position(|window| window == b"d/x").unwrap();
    hostile[at..at + 3].copy_from_slice(b"../");
    let _ = build_of(&umiak, &["-"], &hostile);
    assert!(!umiak.dir.join("store/staging").join("x").exists());
    nothing_is_left(&umiak);
}

#[test]
fn what_is_left_out() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let files = [
        ("Dockerfile", COPY_ALL),
        (
            ".dockerignore",
            "# a word\n*.log\n!kept.log\n/deep/**/x\nDockerfile\n.dockerignore\nsecret*\n!secret-not/in\n",
        ),
        ("a", "a"),
        ("b.log", "b"),
        ("kept.log", "kept"),
        ("sub/c.log", "only patterns without a slash at the top are for the top"),
        ("deep/1/2/x", "x"),
        ("deep/1/2/y", "y"),
        ("secrets/key", "key"),
        ("secret-not/in", "in"),
        ("secret-not/out", "out"),
    ];
    let dir = context(&umiak, &files);
    build(&umiak, &dir, &["-q", "-t", "made"]).ok();
    assert_eq!(listed(&umiak), "./a ./deep/1/2/y ./kept.log ./secret-not/in ./sub/c.log");
    // What is left out is not there to be named.
    write(&dir, "Other", "FROM busybox\nCOPY b.log /");
    build(&umiak, &dir, &["-q", "-f", dir.join("Other").to_str().unwrap()]).exits(125).tells("b.log");
    // Podman's own name for the file goes before Docker's; one beside the Dockerfile before both; a flag before all.
    write(&dir, ".containerignore", "*\n!a\n");
    build(&umiak, &dir, &["-q", "-t", "made"]).ok();
    assert_eq!(listed(&umiak), "./a");
    write(&dir, "Some", COPY_ALL);
    write(&dir, "Some.dockerignore", "*\n!kept.log\n");
    build(&umiak, &dir, &["-q", "-t", "made", "-f", dir.join("Some").to_str().unwrap()]).ok();
    assert_eq!(listed(&umiak), "./kept.log");
    let ignore = umiak.file("ignore", "**\n!sub/c.log\n");
    build(&umiak, &dir, &["-q", "-t", "made", "--ignorefile", ignore.to_str().unwrap()]).ok();
    assert_eq!(listed(&umiak), "./sub/c.log");
}

#[test]
fn links_do_not_lead_out() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let outside = umiak.file("outside", "secret of the host\n");
    let dir = context(&umiak, &[("etc/passwd", "the context's own\n"), ("real/file", "x\n")]);
    symlink("/etc/passwd", dir.join("absolute")).unwrap();
    symlink(&outside, dir.join("out")).unwrap();
    symlink("../../../../../../etc/passwd", dir.join("up")).unwrap();
    symlink("real", dir.join("inner")).unwrap();
    // Named itself, a link is followed, beneath the context.
    write(&dir, "Dockerfile", "FROM busybox\nCOPY absolute /a\nCOPY up /b\nCOPY inner/ /c/");
    build(&umiak, &dir, &["-q", "-t", "made"]).ok();
    assert_eq!(sh(&umiak, "made", "cat /a /b /c/file"), "the context's own\nthe context's own\nx");
    write(&dir, "Dockerfile", "FROM busybox\nCOPY out /a");
    build(&umiak, &dir, &["-q"]).exits(125).tells("out");
    write(&dir, "Dockerfile", "FROM busybox\nCOPY ../outside /a");
    build(&umiak, &dir, &["-q"]).exits(125).tells("outside");
    // Among others it stays a link.
    write(&dir, "Dockerfile", "FROM busybox\nCOPY . /all");
    build(&umiak, &dir, &["-q", "-t", "made"]).ok();
    assert_eq!(
        sh(&umiak, "made", "readlink /all/up; readlink /all/inner"),
        "../../../../../../etc/passwd\nreal"
    );
    // A link of the image's is followed in the image.
    let before = std::fs::read("/etc/passwd").unwrap();
    write(
        &dir,
        "Dockerfile",
        "FROM busybox\nRUN ln -s /etc /link && ln -s /root/.. /top\nCOPY real/file /link/passwd\nWORKDIR /top/made\nCOPY real/file .",
    );
    build(&umiak, &dir, &["-q", "-t", "made"]).ok();
    assert_eq!(sh(&umiak, "made", "cat /etc/passwd /made/file"), "x\nx");
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), before);
    // Nor is a Dockerfile read that is elsewhere.
    std::fs::remove_file(dir.join("Dockerfile")).unwrap();
    symlink(&outside, dir.join("Dockerfile")).unwrap();
    let told = build(&umiak, &dir, &["-q"]).exits(125);
    assert!(!told.stderr.contains("secret of the host"), "{}", told.stderr);
}

fn mode(dir: &Path, name: &str, mode: u32) {
    std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn copies_and_their_flags() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let files = [
        (
            "Dockerfile",
            "FROM busybox\nCOPY *.txt one/?? /several/\nCOPY one /dir\nCOPY --chmod=u=rwX,go=rX a.txt /mode\n\
            COPY --parents one/sub/x ./one/./ab /parents/\nCOPY --exclude=*.txt --exclude=**/sub . /without/\nCOPY --link a.txt /deep/er/link\n\
            COPY a.txt one/ab /deep/\nRUN mkdir -m 700 /there\nCOPY one/sub /there\n",
        ),
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("one/ab", "ab"),
        ("one/abc", "abc"),
        ("one/sub/x", "x"),
    ];
    let dir = context(&umiak, &files);
    mode(&dir, "a.txt", 0o600);
    mode(&dir, "one/sub/x", 0o4755);
    build(&umiak, &dir, &["-q", "-t", "made"]).ok();
    let find = |place: &str| sh(&umiak, "made", &format!("cd {place} && find . | sort | xargs echo"));
    assert_eq!(find("/several"), ". ./a.txt ./ab ./b.txt");
    assert_eq!(find("/dir"), ". ./ab ./abc ./sub ./sub/x");
    assert_eq!(find("/parents"), ". ./ab ./one ./one/sub ./one/sub/x");
    assert_eq!(find("/without"), ". ./Dockerfile ./one ./one/ab ./one/abc");
    assert_eq!(find("/deep"), ". ./a.txt ./ab ./er ./er/link");
    let modes = "stat -c '%a %u %g' /several/a.txt /mode /dir/sub/x /there";
    assert_eq!(sh(&umiak, "made", modes), "600 0 0\n644 0 0\n4755 0 0\n700 0 0");
    for (line, why) in [
        ("COPY nothing /", "nothing"),
        ("COPY *.none /", "*.none"),
        ("COPY a.txt b.txt /several", "/several"),
        ("COPY one /bin/busybox", "busybox"),
        ("COPY a.txt /bin/busybox/", "busybox"),
        ("COPY --chown=nobody-here a.txt /", "nobody-here"),
        ("COPY --chmod=9 a.txt /", "chmod"),
        ("COPY --from=7 a.txt /", "7"),
    ] {
        write(&dir, "Dockerfile", &format!("FROM busybox\n{line}\n"));
        build(&umiak, &dir, &["-q"]).exits(125).tells("line 2").tells(why);
    }
    nothing_is_left(&umiak);
}

/// Serves files at the address that it returns, as long as the test's process is there.
fn serve(files: Vec<(&'static str, Vec<u8>)>) -> String {
    use std::io::{BufRead, BufReader};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap_or(Ok(String::new())).unwrap_or_default();
            // The rest of what is asked, up to the empty line.
            let _ = lines.map_while(Result::ok).find(String::is_empty);
            let name = first.split(' ').nth(1).unwrap_or_default();
            let found = files.iter().find(|(known, _)| *known == name);
            let (status, body) =
                found.map_or(("404 Not Found", &b"no such file"[..]), |(_, body)| ("200 OK", body));
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nLast-Modified: Tue, 02 Jan 2001 03:04:05 GMT\r\n\
                 Connection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    address
}

#[test]
fn from_an_address() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let whole = archive(&[("Dockerfile", "FROM busybox\nCOPY a /which"), ("a", "of the archive")]);
    let inner = archive(&[("in/file", "unpacked")]);
    let digest = umiak::base::digest::Digest::of(b"fetched");
    let server = serve(vec![
        ("/context.tar.gz", gzip(&whole)),
        ("/Dockerfile", b"FROM busybox\nRUN echo alone > /which".to_vec()),
        ("/dir/file.txt", b"fetched".to_vec()),
        ("/inner.tar", inner),
    ]);
    let at = |name: &str| format!("{server}/{name}");
    build_of(&umiak, &[&at("context.tar.gz")], b"").ok();
    assert_eq!(sh(&umiak, "made", "cat /which"), "of the archive");
    build_of(&umiak, &[&at("Dockerfile")], b"").ok();
    assert_eq!(sh(&umiak, "made", "cat /which"), "alone");
    build_of(&umiak, &[&at("nothing.tar")], b"").exits(125).tells("nothing.tar");
    let add = |line: &str| {
        let dir = context(&umiak, &[("Dockerfile", &format!("FROM busybox\n{line}\n"))]);
        build(&umiak, &dir, &["-q", "-t", "made"])
    };
    add(&format!("ADD {} /got/", at("dir/file.txt"))).ok();
    assert_eq!(
        sh(&umiak, "made", "cat /got/file.txt; stat -c ' %a %Y' /got/file.txt"),
        "fetched 600 978404645"
    );
    add(&format!("ADD --checksum={digest} --chmod=644 {} /one", at("dir/file.txt"))).ok();
    assert_eq!(sh(&umiak, "made", "stat -c %a /one"), "644");
    add(&format!("ADD {} /plain/\nADD --unpack=true {} /open/", at("inner.tar"), at("inner.tar"))).ok();
    assert_eq!(sh(&umiak, "made", "ls /plain; cat /open/in/file"), "inner.tar\nunpacked");
    add(&format!("ADD --checksum=sha256:{} {} /one", "0".repeat(64), at("dir/file.txt")))
        .exits(125)
        .tells("line 2");
    add(&format!("ADD {} /one", at("nothing"))).exits(125).tells("nothing");
    let other = format!("other={}", at("context.tar.gz"));
    let dir = context(&umiak, &[("Dockerfile", "FROM busybox\nCOPY --from=other a /which\n")]);
    build(&umiak, &dir, &["-q", "-t", "made", "--build-context", &other]).ok();
    assert_eq!(sh(&umiak, "made", "cat /which"), "of the archive");
    nothing_is_left(&umiak);
}

#[test]
fn further_contexts() {
    requires!(Need::Image("busybox"), Need::Image("configured"));
    let umiak = Umiak::with_busybox();
    umiak.pull("configured");
    let other = context(&umiak, &[("x", "other\n"), (".dockerignore", "y\n"), ("y", "y\n")]);
    let text =
        "FROM base\nCOPY --from=other x /x\nRUN --mount=type=bind,from=other,target=/m cat /m/x > /y\n";
    let dir = context(&umiak, &[("Dockerfile", text)]);
    let other = format!("other={}", other.display());
    let options = [
        "-q",
        "-t",
        "made",
        "--build-context",
        &other,
        "--build-context",
        "base=docker-image://localhost/busybox",
    ];
    build(&umiak, &dir, &options).ok();
    assert_eq!(sh(&umiak, "made", "cat /x /y"), "other\nother");
    for (wrong, why) in [("other", "NAME=PLACE"), ("other=/nowhere", "/nowhere")] {
        let options =
            ["-q", "--build-context", "base=docker-image://localhost/busybox", "--build-context", wrong];
        build(&umiak, &dir, &options).exits(125).tells(why);
    }
}

#[test]
fn files_of_any_kind_keep_what_they_are() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let dir = context(
        &umiak,
        &[("Dockerfile", COPY_ALL), ("tree/a", "a"), ("tree/with space", "b"), ("tree/empty/.keep", "")],
    );
    std::fs::hard_link(dir.join("tree/a"), dir.join("tree/linked")).unwrap();
    symlink("a", dir.join("tree/symbolic")).unwrap();
    let long = "n".repeat(250);
    write(&dir, &format!("tree/{long}/{long}"), "long");
    let file = std::fs::File::create(dir.join("tree/sparse")).unwrap();
    file.set_len(3_000_000).unwrap();
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"tree/no\xfftext");
    std::fs::write(dir.join(name), "bytes").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
    build(&umiak, &dir, &["-q", "-t", "made"]).ok();
    let long = format!("cat /all/tree/{long}/{long}");
    assert_eq!(sh(&umiak, "made", &long), "long");
    let script = "cd /all/tree && cat symbolic 'with space' no?text && stat -c %s sparse && test ! -e ../s && ls -d empty";
    assert_eq!(sh(&umiak, "made", script), "abbytes3000000\nempty");
    made(&umiak, "FROM made\nCOPY --from=busybox /bin/busybox /all/tree/");
    assert_eq!(sh(&umiak, "made", "cmp /bin/busybox /all/tree/busybox && echo same"), "same");
}
