//! A container's files taken out of it.

use std::collections::BTreeMap;
use std::io::Read;

use crate::requires;
use crate::support::{Need, Terminal, Umiak, eventually};

/// One entry of an archive.
#[derive(Debug)]
struct Entry {
    kind: tar::EntryType,
    mode: u32,
    uid: u64,
    target: Option<String>,
    content: Vec<u8>,
}

/// What is in an archive, by path; the same path twice is an error.
fn entries(archive: &[u8]) -> BTreeMap<String, Entry> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().to_vec()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let made = Entry {
            kind: entry.header().entry_type(),
            mode: entry.header().mode().unwrap(),
            uid: entry.header().uid().unwrap(),
            target: entry.link_name_bytes().map(|name| String::from_utf8(name.to_vec()).unwrap()),
            content,
        };
        assert!(found.insert(path.clone(), made).is_none(), "{path} is there twice");
    }
    found
}

#[test]
fn exported() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let long = "l".repeat(120);
    let script = format!(
        "mkdir -m 1770 /d; echo content > /d/file; chmod 4711 /d/file; ln /d/file /d/name; ln -s /etc/passwd /d/link; \
         ln -s /{long} /d/far; mkfifo /d/pipe; mkdir /d/{long}; echo deep > /d/{long}/{long}; rm /etc/group; \
         dd if=/dev/zero of=/d/sparse bs=1 count=1 seek=3000000 2>/dev/null; touch /ready; sleep 1000"
    );
    umiak.detached(&["--name", "box", "--network", "none", "-v", "vol:/mnt", "busybox", "sh", "-c", &script]);
    eventually("it is done", || umiak.run(&["exec", "box", "test", "-e", "/ready"]).code == Some(0));
    umiak.run(&["exec", "box", "touch", "/mnt/outside"]).ok();
    let many = Need::ManyIds.missing().is_none();
    if many {
        umiak
            .run(&["exec", "box", "sh", "-c", "mkdir -m 700 /own; echo x > /own/f; chown -R 12:13 /own"])
            .ok();
    }
    let running = umiak.run(&["export", "box"]).ok().bytes;
    umiak.run(&["stop", "-t", "0", "box"]).ok();
    assert!(umiak.run(&["container", "export", "box"]).ok().bytes == running, "stopped it is the same");
    let file = umiak.dir.join("box.tar");
    umiak.run(&["export", "-o", file.to_str().unwrap(), "box"]).ok().says("");
    assert!(std::fs::read(&file).unwrap() == running, "in a file it is the same");
    let found = entries(&running);
    let file = &found["d/file"];
    assert_eq!((file.kind, file.mode, &*file.content), (tar::EntryType::Regular, 0o4711, &b"content\n"[..]));
    assert_eq!(
        (found["d/name"].kind, found["d/name"].target.as_deref()),
        (tar::EntryType::Link, Some("d/file"))
    );
    assert_eq!(
        (found["d/link"].kind, found["d/link"].target.as_deref()),
        (tar::EntryType::Symlink, Some("/etc/passwd"))
    );
    assert_eq!(found["d/far"].target, Some(format!("/{long}")));
    assert_eq!((found["d/"].kind, found["d/"].mode), (tar::EntryType::Directory, 0o1770));
    assert_eq!(found["d/pipe"].kind, tar::EntryType::Fifo);
    assert_eq!(found[&format!("d/{long}/{long}")].content, b"deep\n");
    assert_eq!(found["d/sparse"].content.len(), 3_000_001);
    assert!(
        found.contains_key("bin/busybox") && found.contains_key("mnt/") && !found.contains_key("etc/group")
    );
    assert!(!found.contains_key("mnt/outside"), "what is mounted is not the container's own");
    assert_eq!(found["etc/passwd"].uid, 0);
    if many {
        assert_eq!((found["own/"].uid, found["own/f"].uid, &*found["own/f"].content), (12, 12, &b"x\n"[..]));
    }
}

#[test]
fn exports_fail_whole() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    umiak.run(&["create", "--name", "box", "--network", "none", "busybox", "true"]).ok();
    umiak.run(&["export", "nothing"]).exits(125).tells("nothing");
    umiak.run(&["export"]).exits(125);
    let file = umiak.file("kept", "kept");
    umiak.run(&["export", "-o", file.to_str().unwrap(), "nothing"]).exits(125);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    umiak.run(&["export", "-o", "/nowhere/x.tar", "box"]).exits(125).tells("/nowhere/x.tar");
    umiak.run(&["export", "-o", "/dev/full", "box"]).exits(125).tells("No space left");
    let mut terminal = Terminal::start(&umiak, &["export", "box"]);
    terminal.expect("not written to a terminal");
    assert_eq!(terminal.wait().0, Some(125));
}

#[test]
fn what_only_a_mount_can_read_is_an_error() {
    requires!(Need::Root, Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let script = "mkdir /moved; truncate -s 5000 /bare";
    umiak.run(&["run", "--name", "box", "--network", "none", "busybox", "sh", "-c", script]).ok();
    let upper = umiak.inspect("box", "{{.GraphDriver.Data.UpperDir}}");
    let set = |file: &str, name: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(format!("{upper}/{file}"), name, b"/home", flags).unwrap();
    };
    umiak.run(&["export", "box"]).ok();
    // As overlayfs does it where redirect_dir and metacopy are on.
    set("bare", "trusted.overlay.metacopy");
    umiak.run(&["export", "box"]).exits(125).tells("bare").tells("metacopy");
    rustix::fs::unlink(format!("{upper}/bare")).unwrap();
    set("moved", "trusted.overlay.redirect");
    umiak.run(&["export", "box"]).exits(125).tells("moved").tells("redirect_dir");
    umiak.run(&["diff", "box"]).exits(125).tells("redirect_dir");
}

#[test]
fn an_export_follows_no_link() {
    requires!(Need::Image("busybox"));
    let umiak = Umiak::with_busybox();
    let secret = umiak.dir.join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("f"), "secret").unwrap();
    // A directory and a file that are links to the host's the next moment.
    let place = secret.display();
    let script = format!(
        "mkdir /a /b; echo mine > /a/f; echo mine > /b/f; cd /; while :; do mv a c; ln -s {place} a; rm a; mv c a; \
         mv b/f g; ln -s {place}/f b/f; rm b/f; mv g b/f; done"
    );
    umiak.detached(&["--name", "box", "--network", "none", "busybox", "sh", "-c", &script]);
    for _ in 0..30 {
        let bytes = umiak.run(&["export", "box"]).ok().bytes;
        let mut archive = tar::Archive::new(&*bytes);
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if path.ends_with("/f") {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                assert!(["mine\n", ""].contains(&text.as_str()), "{path}: {text}");
            }
        }
    }
}
