//! Copies as their archives have them, of trees that are made by hand.

mod archives;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

/// A directory of a test's own.
pub struct Scratch(pub PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = crate::sys::tree::remove_all(&self.0);
    }
}

impl Scratch {
    /// With these files: a name that ends in a slash is a directory, one with `->` a link.
    pub fn new(files: &[&str]) -> Self {
        let dir =
            std::env::temp_dir().join(format!("umiak-copy-{:x}", crate::sys::atomic::random().unwrap()));
        let scratch = Self(dir);
        for file in files {
            if let Some((from, to)) = file.split_once("->") {
                fs::create_dir_all(scratch.0.join(from).parent().unwrap()).unwrap();
                symlink(to, scratch.0.join(from)).unwrap();
            } else if let Some(name) = file.strip_suffix('/') {
                fs::create_dir_all(scratch.0.join(name)).unwrap();
            } else {
                scratch.write(file, file);
            }
        }
        scratch
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn trees(&self, names: &[&str]) -> Vec<Tree> {
        names.iter().map(|name| Tree { path: self.0.join(name), plain: true }).collect()
    }
}

/// A copy that is being tried: the context is `context`, the image `image`, the stage that files come from `stage`.
struct Try<'a> {
    scratch: &'a Scratch,
    copy: Copy,
    ignore: &'static str,
    fetched: Vec<Fetched>,
    workdir: &'static str,
    times: Times,
}

impl<'a> Try<'a> {
    fn new(scratch: &'a Scratch, sources: &[&str], destination: &str) -> Self {
        for name in ["context", "image", "stage"] {
            fs::create_dir_all(scratch.0.join(name)).unwrap();
        }
        let copy = Copy {
            sources: sources.iter().map(|source| (*source).to_owned()).collect(),
            destination: destination.to_owned(),
            ..Copy::default()
        };
        Self { scratch, copy, ignore: "", fetched: Vec::new(), workdir: "", times: Times::default() }
    }

    fn with(mut self, change: impl FnOnce(&mut Copy)) -> Self {
        change(&mut self.copy);
        self
    }

    fn ignoring(self, ignore: &'static str) -> Self {
        Self { ignore, ..self }
    }

    fn job<T>(&self, work: impl FnOnce(&Job<'_>) -> T) -> T {
        let root = Root::open(&self.scratch.0.join("context")).unwrap();
        let ignore = Ignore::parse(self.ignore.as_bytes()).unwrap();
        let ignored = |path: &Path, directory: bool| verdict(&ignore, path, directory);
        let stage = self.scratch.trees(&["stage"]);
        let origin = match &self.copy.from {
            Some(_) => Origin::Trees { trees: &stage, remembered: true },
            None => Origin::Context { root: &root, ignored: &ignored },
        };
        work(&Job {
            copy: &self.copy,
            origin,
            fetched: &self.fetched,
            below: &self.scratch.trees(&["image"]),
            workdir: self.workdir,
            times: self.times,
            now: 1000,
        })
    }

    /// The entries of the archive, one line each.
    fn entries(&self) -> Result<Vec<String>, Error> {
        self.job(|job| {
            let before = job.examine()?;
            assert_eq!(job.examine()?, before, "the same twice");
            let bytes = job.write(Vec::new(), Some(&before))?;
            Ok(listed(&bytes))
        })
    }

    #[track_caller]
    fn gives(&self, expected: &[&str]) {
        assert_eq!(self.entries().unwrap_or_else(|error| panic!("{}", chain(&error))), expected);
    }

    #[track_caller]
    fn fails(&self, expected: &str) {
        let error = self.entries().expect_err("it is refused");
        assert_eq!(chain(&error), expected);
    }
}

fn chain(error: &Error) -> String {
    crate::base::report::chain(error)
}

/// An archive's entries: kind, mode, owner if it is not root, path, and what it has in it.
fn listed(bytes: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(bytes);
    let mut lines = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header();
        let kind = match header.entry_type() {
            tar::EntryType::Directory => "d",
            tar::EntryType::Regular => "f",
            tar::EntryType::Symlink => "l",
            tar::EntryType::Link => "h",
            tar::EntryType::Fifo => "p",
            _ => "?",
        };
        let mode = header.mode().unwrap();
        let owner = (header.uid().unwrap(), header.gid().unwrap());
        let owner = if owner == (0, 0) { String::new() } else { format!(" {}:{}", owner.0, owner.1) };
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let link = entry.link_name_bytes().map(|name| format!(" -> {}", String::from_utf8_lossy(&name)));
        let mut text = String::new();
        if kind == "f" {
            text.push(' ');
            io::Read::read_to_string(&mut entry, &mut text).unwrap();
        }
        let mode = if kind == "l" { String::new() } else { format!(" {mode:o}") };
        lines.push(
            format!("{kind}{mode}{owner} {path}{}{text}", link.unwrap_or_default()).trim_end().to_owned(),
        );
    }
    lines
}

fn set_mode(scratch: &Scratch, name: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(scratch.0.join(name), fs::Permissions::from_mode(mode)).unwrap();
}

/// Modes do not depend on the umask of whoever runs the tests.
fn plain_modes(scratch: &Scratch, name: &str) {
    for entry in fs::read_dir(scratch.0.join(name)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{name}/{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            set_mode(scratch, &path, 0o750);
            plain_modes(scratch, &path);
        } else if kind.is_file() {
            set_mode(scratch, &path, 0o640);
        }
    }
}

fn context(files: &[&str]) -> Scratch {
    let scratch = Scratch::new(files);
    for name in ["context", "image", "stage"] {
        fs::create_dir_all(scratch.0.join(name)).unwrap();
        plain_modes(&scratch, name);
    }
    scratch
}

#[test]
fn files_go_where_docker_puts_them() {
    let scratch = context(&[
        "context/a",
        "context/b",
        "context/d/x",
        "context/d/e/y",
        "context/empty/",
        "context/link->d/x",
        "context/dirlink->/d",
        "image/there/",
        "image/file",
        "image/there/a",
    ]);
    let new = |sources: &[&str], destination: &str| Try::new(&scratch, sources, destination);
    new(&["a"], "/x").gives(&["f 640 x context/a"]);
    new(&["a"], "/x/").gives(&["d 755 x/", "f 640 x/a context/a"]);
    new(&["./a"], "/x/y/z").gives(&["d 755 x/", "d 755 x/y/", "f 640 x/y/z context/a"]);
    new(&["a"], "/there").gives(&["f 640 there/a context/a"]);
    new(&["../../a"], "/../there/.").gives(&["f 640 there/a context/a"]);
    new(&["a"], ".").gives(&["f 640 a context/a"]);
    Try { workdir: "/w", ..new(&["a"], ".") }.gives(&["d 755 w/", "f 640 w/a context/a"]);
    Try { workdir: "/w", ..new(&["a"], "../q") }.gives(&["f 640 q context/a"]);
    new(&["a", "b"], "/there").gives(&["f 640 there/a context/a", "f 640 there/b context/b"]);
    new(&["a", "b"], "/new").fails("copying 2 files to \"/new\", which is not a directory");
    new(&["[ab]"], "/new").fails("copying 2 files to \"/new\", which is not a directory");
    new(&["[ab]"], "/n/").gives(&["d 755 n/", "f 640 n/a context/a", "f 640 n/b context/b"]);
    // What is in a directory, and not the directory itself.
    let tree = ["d 755 n/", "d 750 n/e/", "f 640 n/e/y context/d/e/y", "f 640 n/x context/d/x"];
    for source in ["d", "d/", "/d", "dirlink", "d/e/.."] {
        new(&[source], "/n").gives(&tree);
    }
    new(&["empty"], "/n").gives(&["d 755 n/"]);
    new(&["empty"], "/there").gives(&[]);
    new(&["link"], "/n").gives(&["f 640 n context/d/x"]);
    new(&["lin*"], "/n/").gives(&["d 755 n/", "f 640 n/link context/d/x"]);
    new(&["d/*"], "/n/").gives(&["d 755 n/", "f 640 n/y context/d/e/y", "f 640 n/x context/d/x"]);
    new(&["dirlink/e/*"], "/").gives(&["f 640 y context/d/e/y"]);
    new(&["*/x"], "/").gives(&["f 640 x context/d/x"]);
    new(&["a"], "/file").gives(&["f 640 file context/a"]);
    new(&["a"], "/file/").fails("copying the directory \"a\" to \"/file\", which is a file in the image");
}

#[test]
fn what_is_not_there_is_said() {
    let scratch = context(&["context/a", "context/d/x", "context/out->../image/secret", "image/secret"]);
    let new = |sources: &[&str]| Try::new(&scratch, sources, "/n/");
    new(&["b"]).fails("\"b\" is not in the build context");
    new(&["a/b"]).fails("\"a/b\" is not in the build context");
    new(&["b", "a"]).fails("\"b\" is not in the build context");
    new(&["b*"]).fails("nothing in the build context matches \"b*\"");
    new(&["b*", "x/[y]"]).fails("nothing in the build context matches \"b*\" or \"x/[y]\"");
    new(&["a", "b*"]).gives(&["d 755 n/", "f 640 n/a context/a"]);
    new(&["[a"]).fails(
        "\"[a\" is not a pattern: its [ has no ], or none of the characters or ranges that belong within",
    );
    new(&["a"]).ignoring("a").fails("\"a\" is left out of the build context by its ignore file");
    new(&["d/x"]).ignoring("d").fails("\"d/x\" is left out of the build context by its ignore file");
    let error = new(&["a*"]).ignoring("a").entries().unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains('!')), "{error}");
    // Links do not lead out: there is no `image` in the context.
    new(&["out"]).fails("\"out\" is not in the build context");
    new(&["ou*"]).fails("copying the link \"out\": it leads to nothing that is there");
    new(&["../image/secret"]).fails("\"../image/secret\" is not in the build context");
    let none = new(&["a"]);
    let alone = none.job(|job| Job { origin: Origin::Nothing, ..*job }.examine());
    assert_eq!(alone.unwrap_err().to_string(), "copying \"a\": there is no build context, only a Dockerfile");
}

#[test]
fn ignored_files_are_not_there() {
    let scratch = context(&[
        "context/keep/a",
        "context/keep/b.log",
        "context/node/x/y",
        "context/some/in/deep",
        "context/some/out",
        "context/some/empty/",
    ]);
    let all = |ignore| Try::new(&scratch, &["."], "/").ignoring(ignore);
    all("**/*.log\nnode\nsome\n!some/in").gives(&[
        "d 750 keep/",
        "f 640 keep/a context/keep/a",
        "d 750 some/",
        "d 750 some/in/",
        "f 640 some/in/deep context/some/in/deep",
    ]);
    Try::new(&scratch, &["some"], "/n").ignoring("some\n!some/in").gives(&[
        "d 755 n/",
        "d 750 n/in/",
        "f 640 n/in/deep context/some/in/deep",
    ]);
    Try::new(&scratch, &["*/[ab]*"], "/").ignoring("keep/a").gives(&["f 640 b.log context/keep/b.log"]);
    let excluding = |sources: &[&str], patterns: &[&str]| {
        let patterns = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Try::new(&scratch, sources, "/").with(|copy| copy.exclude = patterns)
    };
    excluding(&["keep"], &["*.log"]).gives(&["f 640 a context/keep/a"]);
    excluding(&["keep/*"], &["*.log"]).gives(&["f 640 a context/keep/a"]);
    excluding(&["some"], &["**", "!in/deep"]).gives(&["d 750 in/", "f 640 in/deep context/some/in/deep"]);
    excluding(&["keep"], &["[x"]).fails(
        "--exclude: line 1: \"[x\": its [ has no ], or none of the characters or ranges that belong within",
    );
}

#[test]
fn links_in_the_image_lead_into_the_image() {
    let scratch = context(&[
        "context/passwd",
        "context/d/passwd",
        "context/bin/tool",
        "image/x->/etc",
        "image/up->../../../../../../etc",
        "image/etc/passwd",
        "image/bin->usr/bin",
        "image/usr/bin/",
        "image/nowhere->/a/b",
        "image/loop->loop",
        "image/etc/l->/usr/bin",
    ]);
    let new = |sources: &[&str], destination: &str| Try::new(&scratch, sources, destination);
    new(&["passwd"], "/x/").gives(&["f 640 etc/passwd context/passwd"]);
    new(&["passwd"], "/x").gives(&["f 640 etc/passwd context/passwd"]);
    new(&["d"], "/up").gives(&["f 640 etc/passwd context/d/passwd"]);
    new(&["passwd"], "/up/new/").gives(&["d 755 etc/new/", "f 640 etc/new/passwd context/passwd"]);
    new(&["passwd"], "/nowhere/").gives(&["d 755 a/", "d 755 a/b/", "f 640 a/b/passwd context/passwd"]);
    new(&["passwd"], "/nowhere").gives(&["d 755 a/", "f 640 a/b context/passwd"]);
    new(&["passwd"], "/loop/x").fails("following \"/loop/x\": too many links");
    new(&["passwd"], "/etc/passwd/x")
        .fails("copying to \"/etc/passwd/x\": \"/etc/passwd\" is not a directory in the image");
    // A link that is in the way of something beneath what was named: a file takes its place, a directory does not.
    new(&["."], "/")
        .fails("copying the directory \"bin\" to \"/bin\", which is a link to \"usr/bin\" in the image");
    new(&["bin"], "/bin").gives(&["f 640 usr/bin/tool context/bin/tool"]);
    // With --link nothing but directories is seen.
    new(&["bin"], "/bin")
        .with(|copy| copy.link = true)
        .gives(&["d 755 bin/", "f 640 bin/tool context/bin/tool"]);
    new(&["passwd"], "/usr/bin/")
        .with(|copy| copy.link = true)
        .gives(&["f 640 usr/bin/passwd context/passwd"]);
}

#[test]
fn files_and_directories_do_not_replace_each_other() {
    let scratch = context(&[
        "context/one/n",
        "context/two/n/x",
        "context/file",
        "context/links/l->x",
        "image/n/",
        "image/d/n",
        "image/l/l",
        "image/same/n/old",
    ]);
    set_mode(&scratch, "image/same/n", 0o700);
    let new = |sources: &[&str], destination: &str| Try::new(&scratch, sources, destination);
    new(&["one"], "/").fails("copying the file \"one/n\" to \"/n\", which is a directory in the image");
    new(&["file"], "/d/")
        .with(|copy| copy.sources = vec!["one".into(), "two".into()])
        .fails("copying the directory \"two/n\" to \"/d/n\", which is a file in the image");
    new(&["two"], "/d/").fails("copying the directory \"two/n\" to \"/d/n\", which is a file in the image");
    new(&["links"], "/l").gives(&["l l/l -> x"]);
    // Beneath what was named, directories become what the source's are.
    new(&["two"], "/same").gives(&["d 750 same/n/", "f 640 same/n/x context/two/n/x"]);
    new(&["two", "one"], "/e/")
        .fails("copying the file \"one/n\" to \"/e/n\", which is a directory in the image");
}

#[test]
fn parents_are_kept() {
    let scratch = context(&[
        "context/a/b/c.txt",
        "context/a/b/d.md",
        "context/a/e/f.txt",
        "context/g.txt",
        "context/l->a",
        "image/t/a/",
    ]);
    let new = |sources: &[&str], destination: &str| {
        Try::new(&scratch, sources, destination).with(|copy| copy.parents = true)
    };
    let file = "f 640 t/a/b/c.txt context/a/b/c.txt";
    new(&["a/b/c.txt"], "/t").gives(&["d 750 t/a/", "d 750 t/a/b/", file]);
    new(&["./a/b/c.txt", "g.txt"], "/t/").gives(&[
        "d 750 t/a/",
        "d 750 t/a/b/",
        file,
        "f 640 t/g.txt context/g.txt",
    ]);
    new(&["a/./b/c.txt"], "/n").gives(&["d 755 n/", "d 750 n/b/", "f 640 n/b/c.txt context/a/b/c.txt"]);
    new(&["a/./b"], "/n").gives(&[
        "d 755 n/",
        "d 750 n/b/",
        "f 640 n/b/c.txt context/a/b/c.txt",
        "f 640 n/b/d.md context/a/b/d.md",
    ]);
    new(&["**/*.txt"], "/n").gives(&[
        "d 755 n/",
        "f 640 n/g.txt context/g.txt",
        "d 750 n/a/",
        "d 750 n/a/b/",
        "f 640 n/a/b/c.txt context/a/b/c.txt",
        "d 750 n/a/",
        "d 750 n/a/e/",
        "f 640 n/a/e/f.txt context/a/e/f.txt",
    ]);
    new(&["a/*"], "/n").with(|copy| copy.exclude = vec!["**/*.txt".into()]).gives(&[
        "d 755 n/",
        "d 750 n/a/",
        "d 750 n/a/b/",
        "f 640 n/a/b/d.md context/a/b/d.md",
        "d 750 n/a/",
        "d 750 n/a/e/",
    ]);
    new(&["l"], "/n").gives(&["d 755 n/", "l n/l -> a"]);
    new(&["l/b"], "/n").fails("\"l/b\" is not in the build context");
}

#[test]
fn owners_and_modes_are_as_asked() {
    let scratch = context(&["context/d/x", "context/d/e/y", "context/l->d"]);
    scratch.write("image/etc/passwd", "www:x:33:34::/:/x\n");
    set_mode(&scratch, "context/d/x", 0o4755);
    Try::new(&scratch, &["d"], "/n").with(|copy| copy.chown = Some("www".into())).gives(&[
        "d 755 33:34 n/",
        "d 750 33:34 n/e/",
        "f 640 33:34 n/e/y context/d/e/y",
        "f 4755 33:34 n/x context/d/x",
    ]);
    Try::new(&scratch, &["d"], "/n").with(|copy| copy.chmod = Some("u=rwX,go=rX".into())).gives(&[
        "d 755 n/",
        "d 755 n/e/",
        "f 644 n/e/y context/d/e/y",
        "f 755 n/x context/d/x",
    ]);
    Try::new(&scratch, &["."], "/").with(|copy| copy.chmod = Some("0711".into())).gives(&[
        "d 711 d/",
        "d 711 d/e/",
        "f 711 d/e/y context/d/e/y",
        "f 711 d/x context/d/x",
        "l l -> d",
    ]);
    Try::new(&scratch, &["d"], "/n")
        .with(|copy| copy.chown = Some("who".into()))
        .fails("--chown=who: unable to find user who: no matching entries in passwd file");
    // From a stage they are kept; what is kept beside the file is what counts.
    scratch.write("stage/f", "stage");
    set_mode(&scratch, "stage/f", 0o600);
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let own = if (uid, gid) == (0, 0) { String::new() } else { format!(" {uid}:{gid}") };
    let stage = || Try::new(&scratch, &["f"], "/n/").with(|copy| copy.from = Some("0".into()));
    stage().gives(&["d 755 n/", &format!("f 600{own} n/f stage")]);
    let owner = crate::sys::owners::Owner { uid: 7, gid: 8, device: None };
    if crate::sys::owners::set(&scratch.0.join("stage/f"), &owner).is_ok() {
        stage().gives(&["d 755 n/", "f 600 7:8 n/f stage"]);
        stage().with(|copy| copy.chown = Some("1:2".into())).gives(&["d 755 1:2 n/", "f 600 1:2 n/f stage"]);
    }
}

#[test]
fn odd_files_are_copied_or_said() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = context(&["context/a"]);
    let dir = scratch.0.join("context");
    fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
    fs::write(dir.join(OsStr::from_bytes(b"n\n\xff")), "odd").unwrap();
    set_mode(&scratch, "context/a", 0o644);
    let odd = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(dir.join(OsStr::from_bytes(b"n\n\xff")), odd).unwrap();
    set_mode(&scratch, "context/fifo", 0o600);
    let all = Try::new(&scratch, &["."], "/");
    all.gives(&["f 644 a context/a", "h 644 b -> a", "p 600 fifo", "f 600 n\n\u{fffd} odd"]);
    let warnings = all.job(|job| job.examine().unwrap().warnings);
    assert_eq!(warnings, ["\"s\" is a socket, which is not copied"]);
    scratch.write("context/.wh.a", "");
    all.fails("copying \"/.wh.a\": in a layer a name that begins with .wh. says that another file is gone");
}

#[test]
fn times_are_as_asked_and_count_for_nothing_in_the_digest() {
    let scratch = context(&["context/f", "context/g"]);
    let set = |name: &str, time| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::new(time, 5);
        fs::File::options().write(true).open(scratch.0.join(name)).unwrap().set_modified(time).unwrap();
    };
    set("context/f", 50);
    set("context/g", 5000);
    let times = |times: Times| {
        let bytes = Try { times, ..Try::new(&scratch, &["f", "g"], "/n/") };
        let bytes = bytes.job(|job| job.write(Vec::new(), None).unwrap());
        let mut archive = tar::Archive::new(&*bytes);
        let mut list = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let exact = entry.pax_extensions().unwrap().and_then(|mut list| {
                list.find_map(|item| {
                    item.ok().filter(|item| item.key() == Ok("mtime"))?.value().ok().map(str::to_owned)
                })
            });
            list.push(exact.unwrap_or_else(|| entry.header().mtime().unwrap().to_string()));
        }
        list
    };
    assert_eq!(times(Times::default()), ["1000", "50.000000005", "5000.000000005"]);
    let clamp = Times { clamp: Some(60), ..Times::default() };
    assert_eq!(times(clamp), ["60", "50.000000005", "60"]);
    assert_eq!(times(Times { exact: true, ..clamp }), ["60", "60", "60"]);
    let new = || Try::new(&scratch, &["f", "g"], "/n/");
    let before = new().job(|job| job.examine().unwrap());
    set("context/f", 51);
    let after = new().job(|job| job.examine().unwrap());
    assert_eq!(before.digest, after.digest);
    assert_ne!(before.seen, after.seen);
    // What was examined is what is written, or nothing is.
    let written = new().job(|job| job.write(Vec::new(), Some(&before)).map(drop));
    assert!(matches!(written, Err(Error::AnyChanged)));
    scratch.write("context/f", "other");
    assert_ne!(before.digest, new().job(|job| job.examine().unwrap().digest));
}

/// Does something when a piece of the archive is written that has these bytes at its start.
struct Meanwhile<F: FnMut()>(&'static [u8], F);

impl<F: FnMut()> Write for Meanwhile<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.starts_with(self.0) {
            (self.1)();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn what_changes_meanwhile_is_not_copied() {
    let scratch = context(&["context/d/a", "image/secret"]);
    let path = scratch.0.join("context/d/b");
    let (gone, secret) = (|| fs::remove_file(&path).unwrap(), scratch.0.join("image/secret"));
    // The directory has been read, and the file before is being written, or this one.
    let before = b"context/d/a";
    let swap = || {
        gone();
        symlink(&secret, &path).unwrap();
    };
    let directory = || {
        gone();
        fs::create_dir(&path).unwrap();
    };
    let changes: [(&'static [u8], &dyn Fn()); 5] = [
        (before, &gone),
        (before, &swap),
        (before, &directory),
        (b"xxx", &|| fs::File::options().write(true).open(&path).unwrap().set_len(5).unwrap()),
        (b"xxx", &|| fs::write(&path, "y".repeat(2 << 20)).unwrap()),
    ];
    for (number, (when, change)) in changes.into_iter().enumerate() {
        let _ = fs::remove_dir(&path);
        let _ = fs::remove_file(&path);
        scratch.write("context/d/b", "x".repeat(1 << 20));
        let copy = Try::new(&scratch, &["d"], "/n");
        let error = copy.job(|job| job.write(Meanwhile(when, change), None).map(drop)).unwrap_err();
        assert_eq!(error.to_string(), "\"d/b\" changes while it is copied", "{number}");
        assert!(error.hint().is_some());
    }
}

#[test]
fn what_was_fetched_and_what_the_dockerfile_has() {
    let scratch = context(&["context/a", "image/there/"]);
    let fetched = |name: Option<&str>, bytes: &[u8]| {
        scratch.write("fetched", bytes);
        Fetched {
            url: "http://x/y".to_owned(),
            name: name.map(str::to_owned),
            file: fs::File::open(scratch.0.join("fetched")).unwrap(),
            size: bytes.len() as u64,
            modified: Some(50),
            digest: Digest::of(bytes),
        }
    };
    let add = |destination: &str, name, bytes: &[u8]| {
        let copy = Try::new(&scratch, &["http://x/y"], destination).with(|copy| copy.add = true);
        Try { fetched: vec![fetched(name, bytes)], ..copy }
    };
    add("/n", None, b"text").gives(&["f 600 n text"]);
    add("/n/", Some("y"), b"text").gives(&["d 755 n/", "f 600 n/y text"]);
    add("/there", Some("y"), b"text").gives(&["f 600 there/y text"]);
    add("/there", None, b"text").fails(
        "\"http://x/y\" tells no name for the file: name it in the destination, without a slash at its end",
    );
    let bytes = archives::archive(&["f"]);
    let unpacked = add("/n", None, &bytes).with(|copy| copy.unpack = Some(true));
    unpacked.gives(&["d 755 n/", "f 640 5:6 n/f f"]);
    assert_eq!(add("/n", None, &bytes).job(|job| job.examine().unwrap().entries), 1);
    add("/n", None, b"")
        .with(|copy| copy.sources = vec!["http://z".into()])
        .fails("\"http://z\" was not fetched");
    add("/n", None, b"")
        .with(|copy| copy.sources = vec!["http://z/y.git".into()])
        .fails("\"http://z/y.git\": adding a Git repository is not supported yet");
    Try::new(&scratch, &["a"], "/n")
        .with(|copy| copy.checksum = Some("sha256:0".into()))
        .fails("--checksum is only for ADD of addresses");
    let inline = |sources: &[&str], destination: &str| {
        Try::new(&scratch, sources, destination).with(|copy| {
            let text =
                |name: &str, text: &str| Heredoc { name: name.into(), text: text.into(), expand: false };
            copy.inline = vec![text("one", "1\n"), text("two", "2\n")];
        })
    };
    inline(&[], "/n/").gives(&["d 755 n/", "f 644 n/one 1\n", "f 644 n/two 2\n"].map(str::trim_end));
    inline(&[], "/n").fails("copying 2 files to \"/n\", which is not a directory");
    inline(&[], "/n").with(|copy| drop(copy.inline.pop())).gives(&["f 644 n 1"]);
    inline(&["a"], "/there").gives(&["f 640 there/a context/a", "f 644 there/one 1", "f 644 there/two 2"]);
}

#[test]
fn a_working_directory_is_made_once() {
    let scratch = context(&["image/x->/etc", "image/etc/passwd", "image/bad->/etc/passwd"]);
    let below = scratch.trees(&["image"]);
    let wanted = |path| {
        let directory = Directory { path, below: &below, owner: (7, 8), times: Times::default(), now: 5 };
        directory.write(Vec::new()).map(|bytes| bytes.map(|bytes| listed(&bytes)))
    };
    assert_eq!(wanted("/a/b").unwrap().unwrap(), ["d 755 7:8 a/", "d 755 7:8 a/b/"]);
    assert_eq!(wanted("/x/new").unwrap().unwrap(), ["d 755 7:8 etc/new/"]);
    for path in ["/", "", "/etc", "/x", "/x/", "/../etc/./"] {
        assert_eq!(wanted(path).unwrap(), None, "{path}");
    }
    assert!(wanted("/etc/passwd").is_err() && wanted("/bad/x").is_err());
}

#[test]
fn many_files_are_read_fast() {
    let scratch = context(&[]);
    for directory in 0..20 {
        for file in 0..100 {
            scratch.write(&format!("context/d{directory}/f{file}"), "text");
        }
    }
    let all = Try::new(&scratch, &["."], "/app/");
    let start = std::time::Instant::now();
    assert_eq!(all.job(|job| job.examine().unwrap().entries), 2021);
    // It takes a fiftieth of that where nothing else runs, and less with optimization.
    assert!(start.elapsed() < std::time::Duration::from_secs(4), "{:?}", start.elapsed());
}
