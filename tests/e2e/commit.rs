//! Images of containers and of archives.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use crate::requires;
use crate::support::{Need, Registry, Umiak};

const NO_NET: [&str; 2] = ["--network", "none"];

/// All files of an archive: name, and everything else that an archive says of them.
fn listed(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(bytes);
    let mut list = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let attributes: Vec<_> =
            entry.pax_extensions().unwrap().into_iter().flatten().map(|e| e.unwrap()).collect();
        let attributes: Vec<_> =
            attributes.iter().map(|e| (e.key().unwrap().to_owned(), e.value_bytes().to_vec())).collect();
        let header = entry.header().clone();
        let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let told = format!(
            "{:?} {:o} {}:{} {} {link:?} {attributes:?} {}",
            header.entry_type(),
            header.mode().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
            header.mtime().unwrap(),
            umiak::base::digest::Digest::of(&content),
        );
        list.insert(name, told);
    }
    list
}

/// The files of a container, but for those that are made to mount something over them.
fn files(umiak: &Umiak, container: &str) -> BTreeMap<String, String> {
    let path = umiak.file("exported", "");
    umiak.run(&["export", "-o", path.to_str().unwrap(), container]).ok();
    let mut list = listed(&std::fs::read(&path).unwrap());
    let ours = ["etc/", "dev/", "proc/", "sys/", "run/", "etc/hosts", "etc/hostname", "etc/resolv.conf"];
    list.retain(|name, _| !ours.contains(&name.as_str()) && !name.starts_with("run/"));
    list
}

fn created(umiak: &Umiak, image: &str) -> String {
    umiak.run(&["create", "--network", "none", image, "true"]).ok().stdout.trim().to_owned()
}

const CHANGE: &str = "echo new > /new; rm /bin/vi /etc/passwd; mkdir -p /d/e; ln /new /d/link; ln -s ../x /d/s; \
    rm -r /home; mkdir /home; echo 1 > /home/x; chmod 4711 /bin/busybox; mkfifo -m 600 /d/p; \
    touch -d 2001-02-03 /d/e; : > /d/empty; mv /etc/group /etc/groups";

#[test]
fn what_a_container_has_changed_becomes_a_layer() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&[&["run", "--name", "box"], &NO_NET[..], &["busybox", "sh", "-c", CHANGE]].concat()).ok();
    let id = umiak.run(&["commit", "-q", "box", "mine:v1"]).ok().stdout.trim().to_owned();
    assert_eq!(id.len(), 64);
    umiak.run(&["images", "--format", "{{.Repository}}:{{.Tag}}", "mine"]).ok().says("localhost/mine:v1");
    let again = created(&umiak, "mine:v1");
    assert_eq!(files(&umiak, "box"), files(&umiak, &again));
    // The image stands on the layer of the other, and has one more.
    let layers = |image: &str| {
        let text = umiak.run(&["image", "inspect", "--format", "{{json .RootFS.Layers}}", image]).ok().stdout;
        serde_json::from_str::<Vec<String>>(&text).unwrap()
    };
    let (below, above) = (layers("busybox"), layers("mine:v1"));
    assert_eq!((above.len(), &above[..below.len()]), (below.len() + 1, &below[..]));
    // What was not there any more is not there, and what runs in it is what ran before.
    let script = "test ! -e /bin/vi && test ! -e /etc/passwd && cat /new && ls /home";
    umiak
        .run(&[&["run", "--rm"], &NO_NET[..], &["mine:v1", "sh", "-c", script]].concat())
        .ok()
        .says("new\nx");
    umiak.run(&[&["run", "--rm"], &NO_NET[..], &[&*id, "true"]].concat()).ok();
    // Of one that runs, and again of what was committed.
    umiak.detached(&[
        "--name",
        "alive",
        "--network",
        "none",
        "mine:v1",
        "sh",
        "-c",
        "echo 2 > /two; exec sleep 1000",
    ]);
    crate::support::eventually("it has written", || {
        umiak.run(&["exec", "alive", "test", "-s", "/two"]).code == Some(0)
    });
    umiak.run(&["container", "commit", "alive", "other.example/mine:v2"]).ok();
    umiak
        .run(&[&["run", "--rm"], &NO_NET[..], &["other.example/mine:v2", "cat", "/two", "/new"]].concat())
        .ok()
        .says("2\nnew");
    // Layers go only when nobody stands on them.
    umiak.run(&["rm", "-f", "-t", "0", "alive", "box", &again]).ok();
    umiak.run(&["rmi", "busybox", "mine:v1"]).ok();
    umiak
        .run(&[&["run", "--rm"], &NO_NET[..], &["other.example/mine:v2", "cat", "/two", "/new"]].concat())
        .ok()
        .says("2\nnew");
}

#[test]
fn a_container_with_its_own_ids_is_committed_too() {
    requires!(Need::Image("busybox"), Need::Unprivileged, Need::ManyIds);
    let umiak = Umiak::with_busybox();
    let words =
        ["run", "--name", "box", "--userns", "keep-id", "--user", "0", "--network", "none", "busybox"];
    // Where the user's own entry stands, /etc/passwd is mounted.
    let change = "echo new > /new; rm -r /bin/vi /home; rm /etc/not-executable; chmod 700 /usr/bin";
    umiak.run(&[&words[..], &["sh", "-c", change]].concat()).ok();
    umiak.run(&["commit", "box", "mine"]).ok();
    let script = "test ! -e /bin/vi && test ! -e /home && test ! -e /etc/not-executable && stat -c '%a %u' /usr/bin && cat /new";
    umiak
        .run(&[&["run", "--rm"], &NO_NET[..], &["mine", "sh", "-c", script]].concat())
        .ok()
        .says("700 0\nnew");
    let size = umiak.run(&["image", "inspect", "--format", "{{.Size}}", "mine"]).ok().stdout;
    let before = umiak.run(&["image", "inspect", "--format", "{{.Size}}", "busybox"]).ok().stdout;
    let grown = size.trim().parse::<u64>().unwrap() - before.trim().parse::<u64>().unwrap();
    assert!(grown < 100_000, "files that were not changed are in the layer: {grown} bytes");
}

#[test]
fn all_layers_become_one() {
    requires!(Need::Image("nasty"));
    let umiak = Umiak::with_image("nasty");
    let before = created(&umiak, "nasty");
    umiak.run(&["commit", "--squash", &before, "one"]).ok();
    let after = created(&umiak, "one");
    let (before, after) = (files(&umiak, &before), files(&umiak, &after));
    for (name, told) in &before {
        assert_eq!(after.get(name), Some(told), "{name}");
    }
    assert_eq!(before.len(), after.len());
    let text =
        umiak.run(&["image", "inspect", "--format", "{{len .RootFS.Layers}} {{len .History}}", "one"]).ok();
    text.says("1 1");
}

#[test]
fn what_is_committed_and_pushed_is_the_same_elsewhere() {
    requires!(Need::Image("nasty"), Need::Tool("docker-registry"));
    let umiak = Umiak::with_image("nasty");
    let registry = Registry::start(&umiak);
    let script = "mkdir -p /new/dir; echo content > /new/file; ln /new/file /new/dir/link; ln -s ../file /new/dir/sym; \
        chmod 2755 /new/dir; for d in /*; do [ -d $d ] && [ -w $d ] && rm -rf $d/* 2>/dev/null && break; done; \
        chown 7:8 /new/file; truncate -s 5000000 /new/sparse; touch -d 1969-12-31 /new/dir; exit 0";
    // Not every image has a shell of this name: what it has is changed, or nothing is.
    umiak.run(&["create", "--name", "plain", "--network", "none", "nasty", "true"]).ok();
    let _ = umiak.run(&[&["run", "--name", "box"], &NO_NET[..], &["nasty", "sh", "-c", script]].concat());
    let changed = if umiak.run(&["container", "exists", "box"]).code == Some(0) { "box" } else { "plain" };
    umiak.run(&["commit", changed, "mine"]).ok();
    let name = format!("{}/made/mine:1", registry.address);
    umiak.run(&["push", "-q", "--tls-verify=false", "mine", &name]).ok();
    let other = Umiak::new();
    other.run(&["pull", "-q", "--tls-verify=false", &name]).ok();
    let (here, there) = (files(&umiak, changed), files(&other, &created(&other, &name)));
    for (name, told) in &here {
        assert_eq!(there.get(name), Some(told), "{name}");
    }
    assert_eq!(here.len(), there.len());
    // The image is the same image.
    let id =
        |umiak: &Umiak, name: &str| umiak.run(&["image", "inspect", "--format", "{{.Id}}", name]).ok().stdout;
    assert_eq!(id(&umiak, "mine"), id(&other, &name));
}

#[test]
fn a_configuration_is_merged_in() {
    requires!(Need::Image("configured"));
    let umiak = Umiak::with_image("configured");
    umiak.run(&["create", "--name", "box", "--network", "none", "-e", "KEPT=1", "configured", "true"]).ok();
    let file = umiak.file(
        "config.json",
        r#"{"Cmd": ["echo", "merged"], "Env": ["NEW=a b"], "Labels": {"l": "m"}, "User": "7", "Volumes": null}"#,
    );
    let config = ["commit", "-q", "--config", file.to_str().unwrap()];
    umiak.run(&[&config[..], &["--change", "USER 8", "box", "mine"]].concat()).ok();
    let text = "{{.Config.Cmd}} {{.User}} {{index .Labels \"l\"}} {{.Config.Env}}";
    let told = umiak.run(&["image", "inspect", "--format", text, "mine"]).ok().stdout;
    assert!(told.starts_with("[echo merged] 8 m "), "{told}");
    assert!(told.contains("KEPT=1") && told.contains("NEW=a b"), "{told}");
    for (wrong, why) in [
        ("{", "config.json"),
        ("[]", "config.json"),
        (r#"{"Cmd": "x"}"#, "\"Cmd\""),
        (r#"{"Env": ["x"]}"#, "\"Env\""),
        (r#"{"Hostname": "x"}"#, "\"Hostname\""),
    ] {
        std::fs::write(&file, wrong).unwrap();
        umiak.run(&[&config[..], &["box", "other"]].concat()).exits(125).tells(why);
    }
    umiak.run(&["image", "exists", "other"]).exits(1);
    umiak.run(&["commit", "--config", "/nowhere", "box"]).exits(125).tells("/nowhere");
}

#[test]
fn the_configuration_is_the_containers_with_changes() {
    requires!(Need::Image("configured"));
    let umiak = Umiak::with_image("configured");
    let words =
        ["create", "--name", "box", "-e", "MORE=1", "--label", "l=container", "-w", "/tmp", "-v", "/data"];
    umiak
        .run(&[&words[..], &["--network", "none", "configured", "echo", "from the container"]].concat())
        .ok();
    let iidfile = umiak.file("iid", "");
    let words = [
        "commit",
        "-a",
        "An Author",
        "-m",
        "why",
        "--iidfile",
        iidfile.to_str().unwrap(),
        "--include-volumes",
        "--change",
        "ENV ADDED=\"a b\"",
        "-c",
        "EXPOSE 80",
        "--change=USER=7:8",
        "--pause=false",
        "box",
        "mine",
    ];
    let id = umiak.run(&words).ok().stdout.trim().to_owned();
    assert_eq!(std::fs::read_to_string(&iidfile).unwrap(), id);
    let text = umiak.run(&["image", "inspect", "mine"]).ok().stdout;
    let inspected: serde_json::Value = serde_json::from_str(&text).unwrap();
    let config = &inspected[0]["Config"];
    let env: Vec<_> = config["Env"].as_array().unwrap().iter().filter_map(|e| e.as_str()).collect();
    assert!(env.contains(&"MORE=1") && env.contains(&"ADDED=a b"), "{env:?}");
    assert!(!env.iter().any(|e| e.starts_with("HOSTNAME=") || e.starts_with("container=")), "{env:?}");
    assert_eq!(config["Cmd"], serde_json::json!(["echo", "from the container"]));
    assert_eq!((&config["User"], &config["WorkingDir"]), (&"7:8".into(), &"/tmp".into()));
    assert_eq!(config["Labels"]["l"], "container");
    assert!(
        config["ExposedPorts"]["80/tcp"].is_object() && config["Volumes"]["/data"].is_object(),
        "{config}"
    );
    let history = inspected[0]["History"].as_array().unwrap().last().unwrap();
    assert_eq!((&history["comment"], &history["author"]), (&"why".into(), &"An Author".into()));
    assert_eq!(inspected[0]["Author"], "An Author");
    // In Docker's words.
    umiak.run(&["commit", "-f", "docker", "box", "docker"]).ok();
    let kind = "application/vnd.docker.distribution.manifest.v2+json";
    umiak.run(&["image", "inspect", "--format", "{{.ManifestType}}", "docker"]).ok().says(kind);
}

#[test]
fn what_cannot_be_committed_is_told() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&[&["create", "--name", "box"], &NO_NET[..], &["busybox", "true"]].concat()).ok();
    umiak.run(&["commit", "nothing", "x"]).exits(125).tells("nothing");
    umiak.run(&["commit", "box", "Bad Name"]).exits(125).tells("Bad Name");
    umiak.run(&["commit", "box", &format!("x@sha256:{}", "0".repeat(64))]).exits(125).tells("digest");
    umiak.run(&["commit", "--change", "RUN x", "box", "x"]).exits(125).tells("RUN x");
    umiak.run(&["commit", "--format", "zip", "box", "x"]).exits(125).tells("zip");
    umiak.run(&["commit", "--iidfile", "/proc/nowhere/x", "box", "x"]).exits(125).tells("/proc/nowhere/x");
    umiak.run(&["commit", "--config", "f", "box", "x"]).exits(125).tells("no such file");
    umiak.run(&["images", "-q", "x"]).ok().says("");
    let rootfs = umiak.file("keep", "").with_file_name("rootfs");
    std::fs::create_dir(&rootfs).unwrap();
    umiak
        .run(
            &[&["create", "--name", "dir"], &NO_NET[..], &["--rootfs", rootfs.to_str().unwrap(), "x"]]
                .concat(),
        )
        .ok();
    umiak.run(&["commit", "dir", "x"]).exits(125).tells("--rootfs").hints("import");
}

#[test]
fn a_commit_is_safe_from_sudden_death() {
    requires!(Need::Image("busybox"), Need::Tool("strace"));
    let umiak = Umiak::with_busybox();
    umiak.run(&[&["run", "--name", "box"], &NO_NET[..], &["busybox", "sh", "-c", CHANGE]].concat()).ok();
    for at in (1..=60).step_by(7) {
        // The command, or one of its children, is killed when it makes, links or renames its n-th file.
        let calls = "openat,openat2,renameat,renameat2,mkdirat,mkdir,linkat,rename,symlinkat";
        let inject = format!("--inject={calls}:signal=KILL:when={at}");
        let mut command = std::process::Command::new("strace");
        let own = umiak.command(&["commit", "box", "mine"]);
        let environment: Vec<_> = own.get_envs().filter_map(|(name, value)| Some((name, value?))).collect();
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]).arg(inject);
        command.arg(own.get_program()).args(own.get_args()).env_clear().envs(environment);
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        // It is there and whole, or it is not there.
        if umiak.run(&["image", "exists", "mine"]).code == Some(0) {
            umiak.run(&[&["run", "--rm"], &NO_NET[..], &["mine", "cat", "/new"]].concat()).ok().says("new");
            umiak.run(&["rmi", "mine"]).ok();
        }
    }
    umiak.run(&["commit", "box", "mine"]).ok();
    umiak.run(&[&["run", "--rm"], &NO_NET[..], &["mine", "cat", "/new"]].concat()).ok().says("new");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A web server with one file, in full, cut, and behind a redirect; its address.
fn serve(file: &[u8]) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let file = file.to_vec();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                request.push(byte[0]);
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (head, body): (String, &[u8]) = match path {
                "/files.tar" => (format!("200 OK\r\nContent-Length: {}", file.len()), &file),
                "/cut.tar" => (format!("200 OK\r\nContent-Length: {}", file.len()), &file[..file.len() / 2]),
                "/elsewhere" => ("302 Found\r\nLocation: /files.tar\r\nContent-Length: 0".into(), b""),
                "/loop" => ("302 Found\r\nLocation: /loop\r\nContent-Length: 0".into(), b""),
                _ => ("404 Not Found\r\nContent-Length: 0".into(), b""),
            };
            let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
            let _ = stream.write_all(body);
        }
    });
    address
}

#[test]
fn archives_become_images() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let box_ = created(&umiak, "busybox");
    let path = umiak.file("files.tar", "");
    umiak.run(&["export", "-o", path.to_str().unwrap(), &box_]).ok();
    let bytes = std::fs::read(&path).unwrap();
    let words = ["import", "--change", "CMD [\"cat\", \"/etc/group\"]", "-m", "why", "--arch", "amd64"];
    let first = umiak.run(&[&words[..], &[path.to_str().unwrap(), "imported:1"]].concat()).ok();
    assert_eq!(first.stdout.trim().len(), 64);
    umiak.run(&[&["run", "--rm"], &NO_NET[..], &["imported:1"]].concat()).ok().has("root");
    assert_eq!(files(&umiak, &created(&umiak, "imported:1")), files(&umiak, &box_));
    umiak.run(&["image", "inspect", "--format", "{{(index .History 0).Comment}}", "imported:1"]).ok();
    // Compressed, from standard input; the same layer need not be unpacked again.
    umiak.run_with_input(&["image", "import", "-", "imported:2"], &gzip(&bytes)).ok();
    assert_eq!(files(&umiak, &created(&umiak, "imported:2")), files(&umiak, &box_));
    // Without a name.
    let id = umiak.run(&["import", path.to_str().unwrap()]).ok().stdout.trim().to_owned();
    umiak.run(&["image", "exists", &id]).ok();
    // What is no archive leaves nothing.
    let images = umiak.run(&["images", "-qa"]).ok().stdout;
    umiak.run(&["import", "/nowhere", "x"]).exits(125).tells("/nowhere");
    umiak.run_with_input(&["import", "-", "x"], b"").exits(125).tells("importing");
    umiak.run_with_input(&["import", "-", "x"], &[7; 2000]).exits(125).tells("importing");
    umiak.run_with_input(&["import", "-", "x"], &bytes[..bytes.len() / 2]).exits(125).tells("importing");
    let server = serve(&bytes);
    umiak.run(&["import", &format!("http://{server}/missing.tar"), "x"]).exits(125).tells("missing.tar");
    umiak.run(&["import", &format!("http://{server}/cut.tar"), "x"]).exits(125).tells("cut.tar");
    umiak.run(&["import", &format!("http://{server}/loop"), "x"]).exits(125).tells("redirect");
    umiak.run(&["import", "http://:x", "x"]).exits(125).tells("http://:x");
    assert_eq!(umiak.run(&["images", "-qa"]).ok().stdout, images);
    umiak.run(&["import", &format!("http://{server}/elsewhere"), "fetched"]).ok();
    assert_eq!(files(&umiak, &created(&umiak, "fetched")), files(&umiak, &box_));
    let root = Path::new("/proc/self/mem");
    umiak.run(&["import", root.to_str().unwrap(), "x"]).exits(125).tells("importing");
}
