//! `cp`: between the host, containers and archives.

use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::requires;
use crate::support::{Need, Umiak, eventually};

/// A world with one container that runs and one that does not, which share a volume, and a tree to copy.
fn world() -> Umiak {
    let umiak = Umiak::with_busybox();
    umiak.detached(&[
        "--name",
        "live",
        "--network",
        "none",
        "-v",
        "vol:/vol",
        "-w",
        "/work",
        "busybox",
        "sleep",
        "1000",
    ]);
    let still = [
        "create",
        "--name",
        "still",
        "--network",
        "none",
        "-v",
        "vol:/vol",
        "-w",
        "/",
        "busybox",
        "sleep",
        "1000",
    ];
    umiak.run(&still).ok();
    let tree = umiak.dir.join("tree");
    std::fs::create_dir_all(tree.join("sub/deep")).unwrap();
    std::fs::write(tree.join("file"), "content\n").unwrap();
    std::fs::write(tree.join("sub/deep/other"), "deep\n").unwrap();
    std::fs::hard_link(tree.join("file"), tree.join("again")).unwrap();
    symlink("file", tree.join("link")).unwrap();
    symlink("/etc/passwd", tree.join("absolute")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("pipe"), rustix::fs::FileType::Fifo, 0o644.into(), 0)
        .unwrap();
    std::fs::set_permissions(tree.join("file"), PermissionsExt::from_mode(0o640)).unwrap();
    std::fs::set_permissions(tree.join("sub"), PermissionsExt::from_mode(0o751)).unwrap();
    let sparse = std::fs::File::create(tree.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    (&sparse).write_all(b"begin").unwrap();
    umiak
}

fn same_tree(a: &Path, b: &Path) {
    for name in ["file", "again", "sub/deep/other"] {
        assert_eq!(std::fs::read(a.join(name)).unwrap(), std::fs::read(b.join(name)).unwrap(), "{name}");
    }
    let stat = |path: &Path, name: &str| std::fs::symlink_metadata(path.join(name)).unwrap();
    for name in ["file", "sub", "sub/deep", "sub/deep/other", "sparse", "pipe"] {
        let (one, two) = (stat(a, name), stat(b, name));
        assert_eq!((one.mode(), one.mtime()), (two.mode(), two.mtime()), "{name}");
    }
    assert_eq!(stat(b, "file").ino(), stat(b, "again").ino());
    assert_eq!(stat(b, "sparse").len(), 64 << 20);
    assert!(stat(b, "pipe").file_type().is_fifo());
    assert_eq!(std::fs::read_link(b.join("link")).unwrap(), Path::new("file"));
    assert_eq!(std::fs::read_link(b.join("absolute")).unwrap(), Path::new("/etc/passwd"));
}

/// Two threads copy those; where the space ends in the middle, nothing half is left.
#[test]
fn large_files() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.detached(&[
        "--name",
        "c",
        "--network",
        "none",
        "--tmpfs",
        "/small:size=8m",
        "busybox",
        "sleep",
        "1000",
    ]);
    let content: Vec<u8> = (0..40_000_001_u32).map(|at| ((at % 251) ^ (at >> 16)) as u8).collect();
    std::fs::write(umiak.dir.join("large"), &content).unwrap();
    umiak.run(&["cp", "large", "c:/large"]).ok();
    umiak.run(&["cp", "c:/large", "back"]).ok();
    assert!(std::fs::read(umiak.dir.join("back")).unwrap() == content, "other bytes");
    let full = umiak.run(&["cp", "large", "c:/small/large"]).exits(125);
    assert!(full.stderr.contains("No space left on device"), "{}", full.stderr);
    umiak.run(&["exec", "c", "ls", "/small"]).ok().says("");
}

#[test]
fn there_and_back() {
    requires!(Need::Image("busybox"));
    let umiak = world();
    for box_ in ["live", "still"] {
        let at = |path: &str| format!("{box_}:{path}");
        // A directory that is not there is made; in one that is there the copy keeps its name.
        umiak.run(&["cp", "tree", &at("/new")]).ok().says("");
        umiak.run(&["cp", "tree", &at("/tmp/")]).ok();
        umiak.run(&["cp", "tree/.", &at("/vol")]).ok();
        for (from, to) in [("/new", "new"), ("/tmp/tree", "tmp"), ("/vol/.", "vol")] {
            let back = umiak.dir.join(format!("{box_}-{to}"));
            umiak.run(&["cp", &at(from), back.to_str().unwrap()]).ok();
            same_tree(&umiak.dir.join("tree"), &back);
            assert!(std::fs::metadata(back.join("sparse")).unwrap().blocks() < 2048, "holes are holes");
        }
        // Single files: under a new name, over another, into a directory, through links.
        umiak.run(&["cp", "tree/file", &at("/one")]).ok();
        umiak.run(&["cp", "tree/sub/deep/other", &at("/one")]).ok();
        umiak.run(&["cp", "tree/file", &at("/tmp")]).ok();
        umiak.run(&["cp", "tree/link", &at("/followed")]).ok();
        umiak.run(&["cp", "-L", "tree/link", &at("/followed2")]).ok();
        umiak.run(&["cp", "--follow-link=false", "tree/link", &at("/linked")]).ok();
        umiak.run(&["cp", &at("/one"), "one"]).ok();
        assert_eq!(std::fs::read_to_string(umiak.dir.join("one")).unwrap(), "deep\n");
        umiak.run(&["cp", &at("/followed"), &at("/tmp/file")]).ok();
        umiak.run(&["cp", "--follow-link=false", &at("/linked"), "linked"]).ok();
        assert_eq!(std::fs::read_link(umiak.dir.join("linked")).unwrap(), Path::new("file"));
        std::fs::remove_file(umiak.dir.join("linked")).unwrap();
        umiak.run(&["cp", &at("/followed2"), "linked"]).ok();
        assert!(std::fs::symlink_metadata(umiak.dir.join("linked")).unwrap().is_file());
        std::fs::remove_file(umiak.dir.join("linked")).unwrap();
    }
    // Relative to the working directory; what is at a mount's place is filled, not replaced.
    umiak.run(&["cp", "tree/file", "live:relative"]).ok();
    umiak.run(&["exec", "live", "cat", "/work/relative"]).ok().says("content");
    umiak.run(&["cp", "tree/file", "live:/etc/hosts"]).ok();
    umiak.run(&["exec", "live", "cat", "/etc/hosts"]).ok().says("content");
    // What the one that did not run got is there when it does.
    umiak.run(&["start", "still"]).ok();
    umiak.run(&["exec", "still", "cat", "/new/sub/deep/other"]).ok().says("deep");
}

#[test]
fn between_containers() {
    requires!(Need::Image("busybox"));
    let umiak = world();
    umiak.run(&["create", "--name", "third", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["cp", "tree", "live:/a"]).ok();
    for (from, to) in
        [("live:/a", "still:/b"), ("still:/b", "third:/c"), ("third:/c", "live:/d"), ("live:/d", "live:/e")]
    {
        umiak.run(&["cp", from, to]).ok();
    }
    umiak.run(&["container", "cp", "third:/c", "third:/tmp"]).ok();
    for (from, to) in [("live:/e", "one"), ("third:/tmp/c", "two")] {
        umiak.run(&["cp", from, to]).ok();
        same_tree(&umiak.dir.join("tree"), &umiak.dir.join(to));
    }
    umiak.run(&["cp", "live:/a", "live:/a/sub"]).exits(125).tells("into itself");
}

#[test]
fn archives() {
    requires!(Need::Image("busybox"), Need::Tool("tar"), Need::Tool("gzip"));
    let umiak = world();
    let umiak = &umiak;
    let tar = |args: &[&str], input: &[u8]| {
        use std::process::{Command, Stdio};
        let mut child = Command::new("tar")
            .args(args)
            .current_dir(&umiak.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input));
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{args:?}");
            output.stdout
        })
    };
    for box_ in ["live", "still"] {
        for (flags, to) in [("-c", "/tmp"), ("-cz", "/vol"), ("-cS", "/home")] {
            let packed = tar(&[flags, "-f", "-", "tree"], b"");
            let to = format!("{box_}:{to}");
            umiak.run_with_input(&["cp", "-", &to], &packed).ok().says("");
            let back = format!("back-{box_}{flags}");
            umiak.run(&["cp", &format!("{to}/tree"), &back]).ok();
            same_tree(&umiak.dir.join("tree"), &umiak.dir.join(back));
        }
        let output = umiak.command(&["cp", &format!("{box_}:/tmp/tree"), "-"]).output().unwrap();
        let out = umiak.dir.join(format!("{box_}-out"));
        std::fs::create_dir(&out).unwrap();
        tar(&["-x", "-f", "-", "-C", out.to_str().unwrap()], &output.stdout);
        same_names(&umiak.dir.join("tree"), &out.join("tree"));
        let output = umiak.command(&["cp", &format!("{box_}:/tmp/tree/sub/."), "-"]).output().unwrap();
        let listed = String::from_utf8(tar(&["-t", "-f", "-"], &output.stdout)).unwrap();
        assert_eq!(listed, "deep/\ndeep/other\n");
        let to = format!("{box_}:/tmp");
        umiak.run_with_input(&["cp", "-", &to], b"no archive at all").exits(125).tells("archive");
        umiak.run(&["cp", "-", &to]).exits(125).tells("archive");
        let packed = tar(&["-c", "-f", "-", "tree"], b"");
        umiak.run_with_input(&["cp", "-", &format!("{box_}:/nowhere")], &packed).exits(125).tells("/nowhere");
        umiak
            .run_with_input(&["cp", "-", &format!("{box_}:/etc/passwd")], &packed)
            .exits(125)
            .tells("/etc/passwd");
        umiak.run_with_input(&["cp", "-", &to], &packed[..packed.len() / 2]).exits(125);
    }
}

fn same_names(a: &Path, b: &Path) {
    let names = |dir: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(a), names(b));
    assert_eq!(names(&a.join("sub/deep")), names(&b.join("sub/deep")));
}

#[test]
fn owners_and_attributes() {
    requires!(Need::Image("busybox"), Need::ManyIds);
    let umiak = Umiak::with_busybox();
    umiak.detached(&[
        "--name",
        "box",
        "--network",
        "none",
        "--user",
        "1000:1000",
        "busybox",
        "sleep",
        "1000",
    ]);
    let file = umiak.file("file", "x");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4755)).unwrap();
    let attribute = rustix::fs::setxattr(&file, "user.colour", b"blue", rustix::fs::XattrFlags::empty());
    umiak.run(&["cp", "file", "box:/theirs"]).ok();
    umiak.run(&["cp", "-a=false", "file", "box:/ours"]).ok();
    umiak.run(&["exec", "box", "stat", "-c", "%u:%g", "/theirs", "/ours"]).ok().says("1000:1000\n0:0");
    // What would run with our rights has none; what a container has it keeps there.
    umiak.run(&["cp", "box:/theirs", "back"]).ok();
    let back = std::fs::metadata(umiak.dir.join("back")).unwrap();
    assert_eq!(back.mode() & 0o7777, 0o755);
    assert_eq!(back.uid(), rustix::process::geteuid().as_raw());
    umiak.run(&["exec", "box", "stat", "-c", "%a", "/theirs"]).ok().says("4755");
    if attribute.is_ok() {
        let mut value = [0; 9];
        let length = rustix::fs::getxattr(umiak.dir.join("back"), "user.colour", &mut value).unwrap();
        assert_eq!(&value[..length], b"blue");
    }
}

#[test]
fn files_and_directories_in_the_way() {
    requires!(Need::Image("busybox"));
    let umiak = world();
    umiak.run(&["exec", "live", "mkdir", "-p", "/d/file", "/d/keep"]).ok();
    umiak.run(&["exec", "live", "touch", "/d/sub"]).ok();
    umiak.run(&["cp", "tree/file", "live:/d"]).exits(125).tells("is a directory");
    umiak.run(&["cp", "tree/sub", "live:/d"]).exits(125).tells("is no directory");
    umiak.run(&["cp", "tree/.", "live:/d"]).exits(125);
    umiak.run(&["cp", "--overwrite", "tree/.", "live:/d"]).ok();
    umiak.run(&["exec", "live", "cat", "/d/file", "/d/sub/deep/other"]).ok().says("content\ndeep");
    umiak.run(&["exec", "live", "test", "-d", "/d/keep"]).ok();
    for (from, to, told) in [
        ("tree", "live:/etc/passwd", "is no directory"),
        ("tree/file", "live:/nowhere/", "/nowhere/"),
        ("tree/file", "live:/no/where", "/no"),
        ("tree/file", "live:/etc/passwd/x", "Not a directory"),
        ("tree/file", "live:/etc/passwd/", "Not a directory"),
        ("nothing", "live:/", "nothing"),
        ("live:/nothing", "x", "/nothing"),
        ("live:/etc/passwd/", "x", "Not a directory"),
        ("live:/etc/passwd", "no/where", "no"),
        ("live:/etc", "tree/file", "is no directory"),
        ("live:/dev/null", "x", "device"),
        ("live:", "x", "no path"),
        ("a", "b", "CONTAINER:PATH"),
        ("-", "-", "CONTAINER:PATH"),
        ("-", "x", "CONTAINER:PATH"),
        ("strange:/x", "x", "strange"),
        (":/x", "x", ""),
    ] {
        umiak.run(&["cp", from, to]).exits(125).tells(told);
    }
    umiak.run(&["cp", "a"]).exits(125);
    umiak.run(&["cp", "live:/etc/passwd", &format!("live:/{}", "n".repeat(300))]).exits(125);
    assert!(!umiak.dir.join("x").exists());
}

#[test]
fn links_do_not_lead_out() {
    requires!(Need::Image("busybox"));
    let umiak = world();
    let secret = umiak.file("secret", "secret");
    let here = umiak.dir.display().to_string();
    let hostile = format!(
        "ln -s {here} /out; ln -s ../../../../../../{here}/secret /up; ln -s /proc/self/root/etc /magic; \
         mkdir -p /evil; ln -s {here} /evil/sub; ln -s {here}/secret /evil/file"
    );
    umiak.run(&["exec", "live", "sh", "-c", &hostile]).ok();
    for path in ["/out/secret", "/up", "/magic/passwd", "/../../../../../../../../../../etc/none"] {
        umiak.run(&["cp", &format!("live:{path}"), "stolen"]).exits(125);
        assert!(!umiak.dir.join("stolen").exists(), "{path}");
    }
    umiak.run(&["cp", "tree/file", "live:/out/secret"]).exits(125);
    // Inside links are followed to where they are named, but never in what is filled.
    umiak.run(&["cp", "--overwrite", "tree/.", "live:/evil"]).ok();
    umiak.run(&["exec", "live", "test", "-d", "/evil/sub/deep"]).ok();
    umiak.run(&["exec", "live", "test", "-L", "/evil/sub"]).exits(1);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    // The other way: a copied link is not written through by the next copy.
    umiak.run(&["exec", "live", "ln", "-s", &here, "/way"]).ok();
    umiak.run(&["exec", "live", "mkdir", "-p", "/first", "/second/way"]).ok();
    umiak.run(&["exec", "live", "mv", "/way", "/first/way"]).ok();
    umiak.run(&["exec", "live", "sh", "-c", "echo stolen > /second/way/secret"]).ok();
    std::fs::create_dir(umiak.dir.join("goal")).unwrap();
    umiak.run(&["cp", "live:/first/.", "goal"]).ok();
    umiak.run(&["cp", "live:/second/.", "goal"]).exits(125).tells("is no directory");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
}

#[test]
fn links_swapped_while_copying_do_not_lead_out() {
    requires!(Need::Image("busybox"));
    let umiak = world();
    let guarded = umiak.dir.join("guarded");
    std::fs::create_dir(&guarded).unwrap();
    std::fs::write(guarded.join("file"), "guarded").unwrap();
    // In the container a directory and a link to the host's path take turns under one name.
    let race = format!(
        "mkdir -p /race/real; echo inside > /race/real/file; ln -s {} /race/link; \
         while :; do ln -sfn /race/link /race/x; mv -T /race/x /race/name; rm -rf /race/name; \
         cp -r /race/real /race/name; rm -rf /race/name; done",
        guarded.display()
    );
    let mut racer = umiak.spawn(&["exec", "live", "sh", "-c", &race]);
    eventually("it has begun", || umiak.run(&["exec", "live", "test", "-L", "/race/link"]).code == Some(0));
    let mut copied = 0;
    for round in 0..60 {
        let to = umiak.dir.join(format!("out-{round}"));
        let from = ["live:/race/name/file", "live:/race/name", "live:/race/."][round % 3];
        copied += usize::from(umiak.run(&["cp", from, to.to_str().unwrap()]).code == Some(0));
        let inside = ["live:/race/name/file", "live:/race/name", "live:/race"][round % 3];
        let _ = umiak.run(&["cp", "--overwrite", "tree/file", inside]);
        for found in [to.join("file"), to.join("name/file"), to.clone()] {
            if std::fs::symlink_metadata(&found).is_ok_and(|m| m.is_file()) {
                assert_ne!(std::fs::read_to_string(&found).unwrap(), "guarded", "{from}");
            }
        }
        assert_eq!(std::fs::read_to_string(guarded.join("file")).unwrap(), "guarded");
        assert_eq!(std::fs::read_dir(&guarded).unwrap().count(), 1);
    }
    assert!(copied > 0, "some copies are made");
    umiak.run(&["rm", "-f", "-t", "0", "live"]).ok();
    let _ = racer.wait();
}

#[test]
fn archives_do_not_lead_out() {
    requires!(Need::Image("busybox"));
    let umiak = world();
    let mut builder = tar::Builder::new(Vec::new());
    let mut entry = |kind: tar::EntryType, name: &[u8], link: &[u8], content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).unwrap();
    };
    let here = umiak.dir.display().to_string();
    entry(tar::EntryType::Symlink, b"way", here.as_bytes(), b"");
    entry(tar::EntryType::Regular, b"way/gotten", b"", b"out");
    let archive = builder.into_inner().unwrap();
    umiak.run_with_input(&["cp", "-", "live:/tmp"], &archive).exits(125);
    umiak.run_with_input(&["cp", "-", "still:/tmp"], &archive).exits(125);
    assert!(!umiak.dir.join("gotten").exists());
    for (kind, name, link) in [
        (tar::EntryType::Regular, &b"../../up"[..], &b""[..]),
        (tar::EntryType::Link, b"hard", b"../../../etc/passwd"),
        (tar::EntryType::Link, b"hard", b"etc/passwd"),
    ] {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        umiak.run_with_input(&["cp", "-", "live:/"], &builder.into_inner().unwrap()).exits(125);
    }
    // Links that lead somewhere inside are followed, as an archive of a merged /usr needs it.
    umiak.run(&["exec", "live", "sh", "-c", "mkdir -p /usr/merged; ln -s usr/merged /merged"]).ok();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_path("merged/file").unwrap();
    header.set_size(2);
    header.set_mode(0o644);
    header.set_cksum();
    builder.append(&header, &b"in"[..]).unwrap();
    umiak.run_with_input(&["cp", "-", "live:/"], &builder.into_inner().unwrap()).ok();
    umiak.run(&["exec", "live", "cat", "/usr/merged/file"]).ok().says("in");
}

#[test]
fn killed_while_copying() {
    requires!(Need::Image("busybox"));
    let umiak = world();
    let big = std::fs::File::create(umiak.dir.join("tree/big")).unwrap();
    for _ in 0..64 {
        (&big).write_all(&vec![7; 1 << 20]).unwrap();
    }
    for (round, (from, to)) in
        [("tree", "live:/k"), ("tree", "still:/k"), ("live:/k", "out"), ("still:/k", "out")]
            .iter()
            .enumerate()
    {
        for delay in [5, 20, 60] {
            let mut child = umiak.spawn(&["cp", from, to]);
            std::thread::sleep(std::time::Duration::from_millis(delay));
            let _ = child.kill();
            child.wait().unwrap();
        }
        // Whatever came of it, the next one is whole, and no half-made file lies about.
        umiak.run(&["cp", "--overwrite", &format!("{from}/."), to]).ok();
        let check = umiak.dir.join(format!("check-{round}"));
        let back = if to.contains(':') { (*to).to_owned() } else { format!("{}/{to}", umiak.dir.display()) };
        if back.contains("e:/") || back.contains("l:/") {
            umiak.run(&["cp", &back, check.to_str().unwrap()]).ok();
        } else {
            std::fs::rename(&back, &check).unwrap();
        }
        assert_eq!(std::fs::metadata(check.join("big")).unwrap().len(), 64 << 20);
        let left = std::fs::read_dir(&check).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|name| name.starts_with(".umiak")).collect();
        assert_eq!(left, [""; 0]);
    }
    umiak.run(&["start", "still"]).ok();
    eventually("it runs", || umiak.status("still") == "running");
}

#[test]
fn volumes_of_other_kinds() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    for part in ["bound", "lower", "upper", "work"] {
        std::fs::create_dir(umiak.dir.join(part)).unwrap();
    }
    std::fs::write(umiak.dir.join("lower/below"), "below\n").unwrap();
    let at = |part: &str| umiak.dir.join(part).display().to_string();
    let bound = format!("device={}", at("bound"));
    umiak.run(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &bound, "bound"]).ok();
    let overlay = format!("o=lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
    umiak
        .run(&["volume", "create", "-o", "type=overlay", "-o", "device=overlay", "-o", &overlay, "over"])
        .ok();
    umiak.run(&["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "gone"]).ok();
    let flags = ["-v", "bound:/bound", "-v", "over:/over", "-v", "gone:/gone"];
    let create = ["create", "--name", "still", "--network", "none"];
    umiak.run(&[&create[..], &flags, &["busybox", "sleep", "1000"]].concat()).ok();
    umiak.file("file", "content\n");
    umiak.run(&["cp", "file", "still:/bound/file"]).ok();
    umiak.run(&["cp", "file", "still:/over/file"]).ok();
    umiak.run(&["cp", "still:/over/below", "below"]).ok();
    assert_eq!(std::fs::read_to_string(umiak.dir.join("bound/file")).unwrap(), "content\n");
    assert_eq!(std::fs::read_to_string(umiak.dir.join("upper/file")).unwrap(), "content\n");
    assert_eq!(std::fs::read_to_string(umiak.dir.join("below")).unwrap(), "below\n");
    umiak.run(&["volume", "mount", "bound"]).ok().says(&at("bound"));
    umiak.run(&["volume", "export", "-o", "x.tar", "bound"]).ok();
    umiak.run(&["volume", "export", "gone"]).exits(125).tells("mounted anew");
    umiak.run(&["volume", "import", "over", "x.tar"]).exits(125).tells("mounted anew");
    // The whole of a container is copied without the kernel's own files.
    umiak.run(&["start", "still"]).ok();
    umiak.run(&["cp", "still:/", "whole"]).ok();
    assert!(umiak.dir.join("whole/over/below").exists() && umiak.dir.join("whole/bound/file").exists());
    assert_eq!(std::fs::read_dir(umiak.dir.join("whole/proc")).unwrap().count(), 0);
}
