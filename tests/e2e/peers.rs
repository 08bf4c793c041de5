//! Podman and buildah read what we write, we read what they write, and both make the same tree of it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use umiak::base::digest::Digest;

use crate::requires;
use crate::support::{Need, Umiak, images, tool};

/// One of the two, with a store of a test's own.
struct Peer<'a> {
    umiak: &'a Umiak,
    program: &'static str,
    /// Podman takes none of more than 50 characters.
    runroot: PathBuf,
}

impl Drop for Peer<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.runroot);
    }
}

impl<'a> Peer<'a> {
    fn new(umiak: &'a Umiak, program: &'static str) -> Self {
        let runroot = PathBuf::from(format!("/tmp/umiak-{program}-{}", std::process::id()));
        Self { umiak, program, runroot }
    }

    fn run(&self, args: &[&str]) -> String {
        let dir = |name: &str| self.umiak.dir.join(format!("{}-{name}", self.program));
        let mut command = Command::new(tool(self.program).unwrap());
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .env("HOME", &self.umiak.dir)
            .env("XDG_RUNTIME_DIR", dir("xdg"))
            .env("TMPDIR", &self.umiak.dir);
        command.arg("--root").arg(dir("root")).arg("--runroot").arg(&self.runroot);
        if self.program == "podman" {
            command.arg("--tmpdir").arg(dir("tmp"));
        }
        command
            .args(["--storage-driver", "vfs"])
            .args(args)
            .current_dir(&self.umiak.dir)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{} {args:?}: {said}", self.program);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// Everything about the files of a tree that an image carries.
fn census(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut names: BTreeMap<(u64, u64), BTreeSet<PathBuf>> = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let content = if stat.is_file() {
                Digest::of(&std::fs::read(&path).unwrap()).hex()
            } else if stat.is_symlink() {
                format!("{:?}", std::fs::read_link(&path).unwrap())
            } else {
                String::new()
            };
            let mut list = vec![0; 4096];
            let length = rustix::fs::llistxattr(&path, &mut list[..]).unwrap_or(0);
            let mut attributes = Vec::new();
            for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
                let mut value = vec![0; 4096];
                let length = rustix::fs::lgetxattr(&path, name, &mut value[..]).unwrap();
                attributes.push((String::from_utf8_lossy(name).into_owned(), value[..length].to_vec()));
            }
            attributes.retain(|(name, _)| !name.contains("overlay"));
            attributes.sort();
            // A directory's size is the file system's business.
            let size = if stat.is_dir() { 0 } else { stat.size() };
            let time = (stat.mtime(), stat.mtime_nsec());
            let kind = (stat.mode(), stat.uid(), stat.gid(), stat.rdev());
            let text = format!("{kind:?} {size} {time:?} {attributes:?} {content}");
            if stat.is_dir() {
                todo.push(path.clone());
            }
            let path = path.strip_prefix(root).unwrap().to_owned();
            names.entry((stat.dev(), stat.ino())).or_default().insert(path.clone());
            found.insert(path, text);
        }
    }
    // Files are told by their names to be one; other images may have a name for them as well.
    for names in names.values().filter(|names| names.len() > 1) {
        // On overlayfs a file that a layer links to parts from its names below, as one that is written to does.
        for name in names.iter().filter(|name| !name.starts_with("links")) {
            found.get_mut(name).unwrap().push_str(&format!(" {names:?}"));
        }
    }
    found
}

fn same(name: &str, ours: &Path, theirs: &Path) {
    let (ours, theirs) = (census(ours), census(theirs));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{name}");
    // Where a layer's archive does not name a directory, others give it the time of unpacking, and we what the layers
    // below say.
    let unnamed = ["gone", "implied", "implied/parent", "links", "plain"];
    // Podman takes 1970 for every time before.
    let others = ["types/before-1970"];
    let known = |path: &Path| unnamed.iter().chain(&others).any(|known| path == Path::new(known));
    let differing: Vec<_> = ours
        .iter()
        .filter(|(path, text)| !known(path) && theirs[*path] != **text)
        .map(|(path, text)| format!("{}\n  {text}\n  {}", path.display(), theirs[path]))
        .collect();
    assert!(differing.is_empty(), "{name}: {}", differing.join("\n"));
}

fn mounted(umiak: &Umiak, image: &str) -> PathBuf {
    PathBuf::from(umiak.run(&["image", "mount", image]).ok().stdout.trim())
}

#[test]
fn podman_and_buildah_make_the_same_of_an_image() {
    requires!(
        Need::Root,
        Need::Image("nasty"),
        Need::Image("busybox"),
        Need::Image("configured"),
        Need::Tool("podman"),
        Need::Tool("buildah")
    );
    let umiak = Umiak::with_image("nasty");
    umiak.pull("busybox");
    let (podman, buildah) = (Peer::new(&umiak, "podman"), Peer::new(&umiak, "buildah"));
    let id = |name: &str| {
        let text = umiak.run(&["image", "inspect", "--format", "{{.Id}}", name]).ok().stdout;
        text.trim().trim_start_matches("sha256:").to_owned()
    };
    let ours = mounted(&umiak, "nasty");
    for (format, transport) in
        [("docker-archive", "docker-archive"), ("oci-archive", "oci-archive"), ("docker-dir", "dir")]
    {
        umiak.run(&["save", "-q", "--format", format, "-o", transport, "nasty"]).ok();
        let source = format!("{transport}:{transport}");
        let pulled = podman.run(&["pull", "-q", &source]);
        if transport != "docker-archive" {
            assert_eq!(pulled, id("nasty"), "{transport}");
        }
        let theirs = PathBuf::from(podman.run(&["image", "mount", &pulled]));
        same(transport, &ours, &theirs);
        podman.run(&["image", "unmount", &pulled]);
        podman.run(&["rmi", "-f", &pulled]);
        let container = buildah.run(&["from", "-q", &source]);
        same(transport, &ours, Path::new(&buildah.run(&["mount", &container])));
        buildah.run(&["rm", &container]);
    }
    // And the other way: of an image that Podman can save, which that one is not for Podman 4.3.
    // Podman makes a name of the path, and not of every path: a short one from here.
    let copied = Command::new("cp").arg("-a").args([&images().join("configured"), &umiak.dir]).status();
    assert!(copied.unwrap().success());
    let pulled = podman.run(&["pull", "-q", "oci:configured"]);
    let theirs = PathBuf::from(podman.run(&["image", "mount", &pulled]));
    for format in ["docker-archive", "oci-archive"] {
        let file = format!("podman-{format}");
        podman.run(&["save", "-q", "--format", format, "-o", &file, &pulled]);
        let other = Umiak::new();
        let path = umiak.dir.join(&file).display().to_string();
        other.run(&["load", "-q", "-i", &path]).ok();
        let loaded = other.run(&["images", "-q"]).ok().stdout;
        let ours = mounted(&other, loaded.trim());
        same(&file, &ours, &theirs);
        other.run(&["image", "unmount", "--all"]).ok();
    }
    podman.run(&["image", "unmount", "--all"]);
    // What buildah has changed is what runs here.
    umiak.run(&["save", "-q", "--format", "oci-archive", "-o", "box.tar", "busybox"]).ok();
    let container = buildah.run(&["from", "-q", "oci-archive:box.tar"]);
    let tree = buildah.run(&["mount", &container]);
    std::fs::write(Path::new(&tree).join("made"), "by buildah\n").unwrap();
    std::fs::remove_file(Path::new(&tree).join("bin/vi")).unwrap();
    buildah.run(&["config", "--cmd", "cat /made", "--env", "WHO=buildah", &container]);
    for format in ["oci", "docker"] {
        let target = format!("dir:built-{format}");
        buildah.run(&["commit", "-q", "--format", format, &container, &target]);
        let id = umiak.run(&["pull", "-q", &target]).ok().stdout;
        let run = ["run", "--rm", "--network", "none", id.trim()];
        umiak.run(&run).ok().says("by buildah");
        umiak.run(&[&run[..], &["sh", "-c", "test ! -e /bin/vi && echo $WHO"]].concat()).ok().says("buildah");
    }
    umiak.run(&["image", "unmount", "--all"]).ok();
}
