//! What Podman makes of the same Dockerfile on the same machine.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{build, context, write};
use crate::requires;
use crate::support::{Need, Umiak, images, tool};

/// Podman with a store of the test's own.
struct Podman<'a> {
    umiak: &'a Umiak,
    /// Not more than 50 characters.
    runroot: PathBuf,
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.runroot);
    }
}

impl Podman<'_> {
    fn run(&self, args: &[&str]) -> String {
        let dir = |name: &str| self.umiak.dir.join(format!("podman-{name}"));
        let mut command = Command::new(tool("podman").unwrap());
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command
            .env("HOME", &self.umiak.dir)
            .env("XDG_RUNTIME_DIR", dir("xdg"))
            .env("TMPDIR", &self.umiak.dir);
        command
            .arg("--root")
            .arg(dir("root"))
            .arg("--runroot")
            .arg(&self.runroot)
            .arg("--tmpdir")
            .arg(dir("tmp"));
        command
            .args(["--storage-driver", "vfs"])
            .args(args)
            .current_dir(&self.umiak.dir)
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(output.status.success(), "podman {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

const TEXT: &str = r#"ARG BASE=localhost/busybox:latest
FROM $BASE AS one
ARG VALUE=default
ENV A=1 B="two words" C=$VALUE
ENV old style value
LABEL x=y "with space"='single $A'
WORKDIR /work/$A
COPY . here/
COPY --chmod=640 a.txt dir/../a.txt /flat/
ADD made.tar /unpacked
RUN echo "$A $B $C" > said && mkdir -p /gone/inner /kept && echo x > /gone/inner/x && ln -s /flat/a.txt /kept/link
RUN rm -r /gone && chmod 711 /kept && rm /bin/vi
EXPOSE 80 90/udp
VOLUME /data
USER 12:34
STOPSIGNAL SIGUSR1
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["true", "a b"]
ONBUILD COPY x /y
FROM one
COPY --from=one /work/1/here/dir /from-stage
COPY --from=one /flat/*.txt /wild/
CMD echo shell form $A
"#;

/// The members of a configuration that both are to have alike.
fn comparable(config: &Value) -> Value {
    let mut config = config.clone();
    if let Some(labels) = config["Labels"].as_object_mut() {
        labels.remove("io.buildah.version");
    }
    let keys = [
        "Env",
        "Cmd",
        "Entrypoint",
        "ExposedPorts",
        "Labels",
        "OnBuild",
        "StopSignal",
        "User",
        "Volumes",
        "WorkingDir",
    ];
    keys.iter().map(|key| ((*key).to_owned(), config[*key].clone())).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn the_same_dockerfile_gives_the_same_image() {
    requires!(Need::Root, Need::Image("busybox"), Need::Tool("podman"));
    let umiak = Umiak::with_busybox();
    let podman = Podman { umiak: &umiak, runroot: format!("/tmp/umiak-build-{}", std::process::id()).into() };
    let dir = context(
        &umiak,
        &[("Dockerfile", TEXT), ("a.txt", "a\n"), ("dir/b.txt", "b\n"), ("dir/sub/c", "c\n")],
    );
    write(&dir, ".dockerignore", "ignored*\nmade.tar.not\n**/*.tmp\n!kept.tmp\n");
    for name in ["ignored-file", "ignored/x", "dir/x.tmp", "kept.tmp"] {
        write(&dir, name, name);
    }
    std::os::unix::fs::symlink("a.txt", dir.join("link")).unwrap();
    let made = std::fs::File::create(dir.join("made.tar")).unwrap();
    let mut builder = tar::Builder::new(made);
    builder.append_dir_all("in", dir.join("dir")).unwrap();
    builder.finish().unwrap();
    let copied = Command::new("cp").arg("-a").args([&images().join("busybox"), &umiak.dir]).status();
    assert!(copied.unwrap().success());
    let pulled = podman.run(&["pull", "-q", "oci:busybox"]);
    podman.run(&["tag", &pulled, "localhost/busybox:latest"]);
    let place = dir.to_str().unwrap();
    for options in
        [&["--build-arg", "VALUE=given"][..], &["--squash"], &["--target", "one", "--format", "docker"]]
    {
        let words = ["build", "-q", "--isolation", "chroot", "--network", "host", "-t", "made"];
        podman.run(&[&words[..], options, &[place]].concat());
        build(&umiak, &dir, &[&["-q", "-t", "made"], options].concat()).ok();
        let theirs: Value = serde_json::from_str(&podman.run(&["image", "inspect", "made"])).unwrap();
        let ours = umiak.inspect_json("made");
        assert_eq!(comparable(&ours["Config"]), comparable(&theirs[0]["Config"]), "{options:?}");
        let tree = PathBuf::from(podman.run(&["image", "mount", "made"]));
        let own = PathBuf::from(umiak.run(&["image", "mount", "made"]).ok().stdout.trim());
        let (own, theirs) = (census(&own), census(&tree));
        assert_eq!(own, theirs, "{options:?}");
        podman.run(&["image", "unmount", "--all"]);
        umiak.run(&["image", "unmount", "--all"]).ok();
    }
}

/// Kind, mode, owner and content of each file, in the order of names.
fn census(root: &std::path::Path) -> std::collections::BTreeMap<PathBuf, String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = std::collections::BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = path.symlink_metadata().unwrap();
            let content = if stat.is_file() {
                umiak::base::digest::Digest::of(&std::fs::read(&path).unwrap()).hex()
            } else if stat.is_symlink() {
                format!("{:?}", std::fs::read_link(&path).unwrap())
            } else {
                String::new()
            };
            if stat.is_dir() {
                todo.push(path.clone());
            }
            let told = format!("{:o} {}:{} {content}", stat.mode(), stat.uid(), stat.gid());
            found.insert(path.strip_prefix(root).unwrap().to_owned(), told);
        }
    }
    // What each engine makes to mount something over it, in steps that run with the other's own means.
    found.retain(|path, _| {
        !["dev", "proc", "sys", "run", "etc/resolv.conf", "etc/hosts"].iter().any(|own| path.starts_with(own))
    });
    found
}
