//! Archives that `ADD` unpacks.

use super::*;

/// An archive with these entries: a name that ends in a slash is a directory, with `->` a link, with `=>` another
/// name of a file.
pub fn archive(entries: &[&str]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_uid(5);
        header.set_gid(6);
        header.set_mode(0o640);
        header.set_mtime(50);
        header.set_size(0);
        let (name, link, kind) = match (entry.split_once("->"), entry.split_once("=>")) {
            (Some((name, link)), _) => (name, link, tar::EntryType::Symlink),
            (_, Some((name, link))) => (name, link, tar::EntryType::Link),
            _ if entry.ends_with('/') => (*entry, "", tar::EntryType::Directory),
            _ => (*entry, "", tar::EntryType::Regular),
        };
        header.set_entry_type(kind);
        if kind == tar::EntryType::Directory {
            // Who is not root makes nothing in a directory that he may not pass.
            header.set_mode(0o750);
        }
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        let content = if kind == tar::EntryType::Regular { name } else { "" };
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn archives_are_unpacked() {
    let scratch =
        context(&["context/plain", "image/x->/etc", "image/etc/passwd", "image/dir/f", "image/file"]);
    let add = |bytes: &[u8], destination: &str| {
        scratch.write("context/a.tar", bytes);
        set_mode(&scratch, "context/a.tar", 0o640);
        Try::new(&scratch, &["a.tar"], destination).with(|copy| copy.add = true)
    };
    let bytes = archive(&["./", "d/", "d/f", "/d/l->f", "d/h=>d/f", "e/g"]);
    let unpacked = [
        "d 755 n/",
        "d 750 5:6 n/d/",
        "f 640 5:6 n/d/f d/f",
        "l 5:6 n/d/l -> f",
        "h 640 5:6 n/d/h -> n/d/f",
        "d 755 n/e/",
        "f 640 5:6 n/e/g e/g",
    ];
    add(&bytes, "/n").gives(&unpacked);
    add(&gzip(&bytes), "/n").gives(&unpacked);
    // As a file, where that is said, and where it is COPY.
    let whole = |copy: Try<'_>| copy.job(|job| job.examine().unwrap().entries);
    assert_eq!(whole(add(&bytes, "/n").with(|copy| copy.unpack = Some(false))), 1);
    assert_eq!(whole(add(&bytes, "/n").with(|copy| copy.add = false)), 1);
    add(&archive(&["f"]), "/n")
        .with(|copy| copy.chown = Some("1:2".into()))
        .gives(&["d 755 1:2 n/", "f 640 1:2 n/f f"]);
    // What is no archive is copied.
    add(b"text", "/n").gives(&["f 640 n text"]);
    add(b"", "/n").gives(&["f 640 n"]);
    assert_eq!(whole(add(&gzip(b"text"), "/n")), 1);
    add(b"BZh91AY", "/n").fails("unpacking \"a.tar\": archives compressed with bzip2 are not supported yet");
    add(b"\xfd7zXZ\0\0", "/n")
        .fails("unpacking \"a.tar\": archives compressed with xz are not supported yet");
    let cut = gzip(&archive(&["f", "g"]));
    let error = add(&cut[..cut.len() - 20], "/n").entries().unwrap_err();
    assert_eq!(chain(&error), "unpacking \"a.tar\": reading the archive: the gzip stream is cut off");
}

#[test]
fn hostile_archives_stay_inside() {
    let scratch =
        context(&["image/x->/etc", "image/etc/passwd", "image/dir/f", "image/file", "image/dir/sub/g"]);
    let add = |entries: &[&str]| {
        scratch.write("context/a.tar", archive(entries));
        Try::new(&scratch, &["a.tar"], "/").with(|copy| copy.add = true)
    };
    for name in ["../f", "d/../../f", "d/.."] {
        add(&[name]).fails(&format!("unpacking \"a.tar\": it has the hostile name \"{name}\""));
    }
    add(&["h=>../f"]).fails("unpacking \"a.tar\": it has the hostile name \"../f\"");
    let deep = "a/".repeat(3000);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o755);
    header.set_entry_type(tar::EntryType::Directory);
    builder.append_data(&mut header, &deep, io::empty()).unwrap();
    let long = add(&[]);
    scratch.write("context/a.tar", builder.into_inner().unwrap());
    assert!(matches!(long.entries(), Err(Error::Hostile { .. })));
    let mut builder = tar::Builder::new(Vec::new());
    header.set_entry_type(tar::EntryType::Char);
    header.set_device_major(0).unwrap();
    header.set_device_minor(0).unwrap();
    builder.append_data(&mut header, "file", io::empty()).unwrap();
    scratch.write("context/a.tar", builder.into_inner().unwrap());
    let device = Try::new(&scratch, &["a.tar"], "/").with(|copy| copy.add = true);
    device.fails("unpacking \"a.tar\": it has the hostile name \"file\"");
    // Of the image's own files none gets another name.
    add(&["h=>etc/passwd"])
        .fails("unpacking \"a.tar\": \"h\" is a hard link to \"etc/passwd\", which is not in it");
    add(&[".wh.x"])
        .fails("copying \"/.wh.x\": in a layer a name that begins with .wh. says that another file is gone");
    add(&["d/.wh..wh..opq"]).fails(
        "copying \"/d/.wh..wh..opq\": in a layer a name that begins with .wh. says that another file is gone",
    );
    // Links lead within the image: its own, and those that the archive makes.
    add(&["x/shadow"]).gives(&["f 640 5:6 etc/shadow x/shadow"]);
    add(&["l->../../../../etc", "l/shadow"])
        .gives(&["l 5:6 l -> ../../../../etc", "f 640 5:6 etc/shadow l/shadow"]);
    add(&["d/", "d/l->/dir/sub", "d/l/f", "h=>d/l/f"]).gives(&[
        "d 750 5:6 d/",
        "l 5:6 d/l -> /dir/sub",
        "f 640 5:6 dir/sub/f d/l/f",
        "h 640 5:6 h -> dir/sub/f",
    ]);
    add(&["d/f", "d->/dir", "d/f"]).gives(&[
        "d 755 d/",
        "f 640 5:6 d/f d/f",
        "l 5:6 d -> /dir",
        "f 640 5:6 dir/f d/f",
    ]);
    // What is in the way gives way, as where tar unpacks.
    add(&["dir", "file/", "file/f", "x/"]).gives(&[
        "f 640 5:6 dir dir",
        "d 750 5:6 file/",
        "f 640 5:6 file/f file/f",
        "d 750 5:6 x/",
    ]);
    add(&["file/f"]).fails("copying the directory \"a.tar\" to \"/file\", which is a file in the image");
}

#[test]
fn sparse_files_have_their_holes() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.as_old_mut().name[0] = b's';
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(4);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.sparse[0].offset.copy_from_slice(b"00000000003\0");
    gnu.sparse[0].numbytes.copy_from_slice(b"00000000002\0");
    gnu.sparse[1].offset.copy_from_slice(b"00000000010\0");
    gnu.sparse[1].numbytes.copy_from_slice(b"00000000002\0");
    gnu.realsize.copy_from_slice(b"00000000014\0");
    header.set_cksum();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append(&header, &b"abcd"[..]).unwrap();
    let scratch = context(&[]);
    scratch.write("context/a.tar", builder.into_inner().unwrap());
    let add = Try::new(&scratch, &["a.tar"], "/").with(|copy| copy.add = true);
    add.gives(&["f 600 s \0\0\0ab\0\0\0cd\0\0"]);
}

/// What unpacking makes of a layer's archive, upon what lies below.
#[test]
fn a_layer_of_it_can_be_unpacked() {
    use std::os::unix::fs::MetadataExt;

    use crate::image::unpack;
    use crate::storage::Ownership;
    let scratch = context(&["context/d/a", "context/d/l->a", "image/x->/etc", "image/etc/passwd"]);
    fs::hard_link(scratch.0.join("context/d/a"), scratch.0.join("context/d/b")).unwrap();
    scratch.write("context/a.tar", archive(&["x/s", "n/", "n/f", "h=>n/f", "n->/etc", "n/t"]));
    let copy = Try::new(&scratch, &["d", "a.tar"], "/").with(|copy| copy.add = true);
    let bytes = copy.job(|job| job.write(Vec::new(), None).unwrap());
    let into = scratch.0.join("unpacked");
    fs::create_dir(&into).unwrap();
    let lower = [scratch.0.join("image")];
    let options = unpack::Options {
        ownership: Ownership::Single,
        max_file: 1 << 20,
        max_entries: 1000,
        lower: &lower,
        staged: None,
    };
    let report = unpack::unpack(&*bytes, &into, options).unwrap();
    assert_eq!(report.entries, 9);
    let read = |name: &str| fs::read_to_string(into.join(name)).unwrap();
    assert_eq!(
        ["a", "b", "l", "h", "etc/s", "etc/t"].map(read),
        ["context/d/a", "context/d/a", "context/d/a", "n/f", "x/s", "n/t"]
    );
    let number = |name: &str| fs::metadata(into.join(name)).unwrap().ino();
    assert_eq!(number("a"), number("b"));
    assert_eq!(fs::read_link(into.join("n")).unwrap(), PathBuf::from("/etc"));
    assert!(!into.join("x").exists(), "what was there is not in the layer");
}

/// Whatever an archive says, each entry of the layer is where its path says, through no link; and what comes of it is
/// what the entries say one after the other.
#[test]
fn any_archive_makes_a_layer_that_is_what_it_says() {
    use std::collections::BTreeMap;

    use crate::image::unpack;
    use crate::storage::Ownership;
    let scratch = context(&["image/a/b/c", "image/b->a", "image/c->../../a/b", "image/a/l->/x/y", "image/d"]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let (mut made, mut refused) = (0, 0);
    for _ in 0..400 {
        let mut entries = Vec::new();
        for _ in 0..random(9) + 1 {
            let mut path = |most| {
                let parts =
                    (0..=random(most)).map(|_| ["a", "b", "c", "d", "l", "..", "."][random(7) as usize]);
                parts.collect::<Vec<_>>().join("/")
            };
            let (one, two) = (path(3), path(2));
            // A name that leads out ends it all: not too often.
            let one = one.replace("..", "e");
            entries.push(match random(6) {
                0 | 1 => format!("{one}/"),
                2 => format!("{one}->{}{two}", if random(2) == 0 { "/" } else { "" }),
                3 => format!("{one}=>{}", two.replace("..", "f")),
                _ => one,
            });
        }
        let names: Vec<&str> = entries.iter().map(String::as_str).collect();
        scratch.write("context/a.tar", archive(&names));
        let copy = Try::new(&scratch, &["a.tar"], ["/", "/b", "/c/n"][random(3) as usize]);
        let copy = copy.with(|copy| copy.add = true);
        let Ok(bytes) = copy.job(|job| job.write(Vec::new(), None)) else {
            refused += 1;
            continue;
        };
        made += 1;
        let mut expected: BTreeMap<PathBuf, tar::EntryType> = BTreeMap::new();
        for entry in tar::Archive::new(&*bytes).entries().unwrap() {
            let entry = entry.unwrap();
            let path = entry.path().unwrap().components().collect::<PathBuf>();
            assert!(
                path.components().all(|part| matches!(part, std::path::Component::Normal(_))),
                "{names:?}"
            );
            let kind = entry.header().entry_type();
            if kind != tar::EntryType::Directory {
                expected.retain(|below, _| !below.starts_with(&path));
            }
            expected.insert(path, kind);
        }
        let into = scratch.0.join("unpacked");
        let _ = crate::sys::tree::remove_all(&into);
        fs::create_dir(&into).unwrap();
        let lower = [scratch.0.join("image")];
        let options = unpack::Options {
            ownership: Ownership::Single,
            max_file: 1 << 20,
            max_entries: 1000,
            lower: &lower,
            staged: None,
        };
        unpack::unpack(&*bytes, &into, options).unwrap_or_else(|error| panic!("{names:?}: {error}"));
        for (path, kind) in &expected {
            for above in path.ancestors().skip(1) {
                let kind = expected.get(above);
                assert!(kind.is_none_or(|kind| kind.is_dir()), "{names:?}: {}", path.display());
            }
            let found = fs::symlink_metadata(into.join(path)).unwrap().file_type();
            let same = match kind {
                tar::EntryType::Directory => found.is_dir(),
                tar::EntryType::Symlink => found.is_symlink(),
                tar::EntryType::Regular => found.is_file(),
                _ => !found.is_dir(),
            };
            assert!(same, "{names:?}: {}", path.display());
        }
        for path in crate::sys::tree::paths(&into).unwrap() {
            let implied = into.join(&path).is_dir() && expected.keys().any(|below| below.starts_with(&path));
            assert!(implied || expected.contains_key(&path), "{names:?}: {}", path.display());
        }
    }
    assert!(made > 100 && refused > 20, "{made} {refused}");
}
