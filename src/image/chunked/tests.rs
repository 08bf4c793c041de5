use std::io::Cursor;

use super::*;

fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind: tar::EntryType, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data).unwrap();
    };
    add("dir/", tar::EntryType::Directory, b"");
    add("dir/empty", tar::EntryType::Regular, b"");
    add("dir/small", tar::EntryType::Regular, b"hello");
    add("large", tar::EntryType::Regular, &b"0123456789abcdef".repeat(8_000));
    add("link", tar::EntryType::Symlink, b"");
    add("other", tar::EntryType::Regular, &b"other".repeat(1000));
    builder.into_inner().unwrap()
}

/// A blob that can be read by ranges, and notes how much of it was.
struct Blob(Vec<u8>, std::sync::Mutex<u64>);

impl Source for Blob {
    fn root(&self) -> Result<super::super::source::Fetched, super::super::source::Error> {
        unreachable!("only ranges are read")
    }
    fn manifest(&self, _: &Descriptor) -> Result<super::super::source::Fetched, super::super::source::Error> {
        unreachable!("only ranges are read")
    }
    fn blob(&self, _: &Descriptor) -> Result<Box<dyn Read + Send + '_>, super::super::source::Error> {
        unreachable!("only ranges are read")
    }
    fn blob_range(
        &self,
        _: &Descriptor,
        offset: u64,
        length: u64,
    ) -> Result<Option<Box<dyn Read + Send + '_>>, super::super::source::Error> {
        *self.1.lock().unwrap() += length;
        let end = (offset + length).min(self.0.len() as u64) as usize;
        Ok(self.0.get(offset as usize..end).map(|bytes| Box::new(bytes) as _))
    }
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

fn chunked() -> (Vec<u8>, Vec<u8>, Written) {
    let archive = archive();
    let mut blob = Vec::new();
    let written = compress(&mut Cursor::new(&archive), &mut blob).unwrap();
    (archive, blob, written)
}

#[test]
fn what_is_written_is_plain_zstandard_and_has_a_table() {
    let (archive, blob, written) = chunked();
    assert_eq!((written.digest, written.size), (Digest::of(&blob), blob.len() as u64));
    assert_eq!(written.diff_id, Digest::of(&archive));
    let mut plain = Vec::new();
    super::super::layer::decompress(&mut &blob[..], &mut plain, 1 << 30).unwrap();
    assert!(plain == archive);
    let mut plain = Vec::new();
    Frames::new(&blob[..]).read_to_end(&mut plain).unwrap();
    assert!(plain == archive);
    let positions = Positions::parse(&written.marks.annotations()).unwrap();
    let descriptor = Descriptor { media_type: String::new(), digest: written.digest, size: written.size };
    let table = Table::fetch(&Blob(blob, 0.into()), &descriptor, &positions).unwrap();
    assert_eq!(table.size(), archive.len() as u64);
    let named: Vec<&str> = table.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(named, ["dir/", "dir/empty", "dir/small", "large", "link", "other"]);
}

#[test]
fn annotations_that_make_no_sense() {
    let (_, _, written) = chunked();
    for (key, value) in [
        (CHECKSUM, "sha256:0"),
        (POSITION, "1:2:3"),
        (POSITION, "1:2:3:2"),
        (POSITION, "-1:2:3:1"),
        (POSITION, "0:99999999999:3:1"),
        (TAR_SPLIT, "x:y:z"),
        (TAR_SPLIT, "0:99999999999:3"),
    ] {
        let mut annotations = written.marks.annotations();
        annotations.insert(key.into(), value.into());
        assert_eq!(Positions::parse(&annotations), None, "{key} {value}");
        annotations.remove(key);
        assert_eq!(Positions::parse(&annotations), None, "{key}");
    }
}

#[test]
fn a_table_that_lies_gives_none() {
    let (_, blob, written) = chunked();
    let positions = Positions::parse(&written.marks.annotations()).unwrap();
    let descriptor = Descriptor { media_type: String::new(), digest: written.digest, size: written.size };
    let source = Blob(blob.clone(), 0.into());
    assert!(Table::fetch(&source, &descriptor, &positions).is_some());
    let shorter = Descriptor { size: 100, ..descriptor.clone() };
    assert!(Table::fetch(&source, &shorter, &positions).is_none());
    let mut moved = positions.clone();
    moved.table.0 += 1;
    assert!(Table::fetch(&source, &descriptor, &moved).is_none());
    // Every changed byte of the table or of the archive of headers.
    let start = positions.table.0 as usize;
    for at in (start..start + positions.table.1 as usize).step_by(7) {
        let mut changed = blob.clone();
        changed[at] ^= 4;
        assert!(Table::fetch(&Blob(changed, 0.into()), &descriptor, &positions).is_none(), "{at}");
    }
    // Its own checksum, but other content: files that the archive of headers does not have, ranges that
    // lead out of the blob, sizes that are others.
    let unpacked = {
        let mut text = String::new();
        let end = start + positions.table.1 as usize;
        Frames::new(&blob[start..end]).read_to_string(&mut text).unwrap();
        text
    };
    let split = &blob[positions.tar_split.0 as usize..][..positions.tar_split.1 as usize];
    let parse = |text: &str| {
        let packed =
            ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
        Table::parse(&packed, text.len() as u64, blob.len() as u64, || Some(split.to_vec()))
    };
    assert!(parse(&unpacked).is_some());
    for (from, to) in [
        ("\"version\":1", "\"version\":2"),
        ("\"size\":5,", "\"size\":6,"),
        ("\"type\":\"symlink\"", "\"type\":\"chunk\""),
        ("\"endOffset\":", "\"endOffset\":9"),
        ("\"digest\":\"sha256:", "\"digest\":\"md5:"),
        ("tarSplitDigest", "tarSplit"),
        ("]", "],"),
    ] {
        assert!(unpacked.contains(from), "{from}");
        assert!(parse(&unpacked.replacen(from, to, 1)).is_none(), "{from}");
    }
}

#[test]
fn tables_that_were_changed_at_random() {
    let (archive, blob, written) = chunked();
    let positions = Positions::parse(&written.marks.annotations()).unwrap();
    let unpack = |(at, length): (u64, u64)| {
        let mut bytes = Vec::new();
        Frames::new(&blob[at as usize..(at + length) as usize]).read_to_end(&mut bytes).unwrap();
        bytes
    };
    let table = unpack((positions.table.0, positions.table.1));
    let split = unpack(positions.tar_split);
    let pack =
        |bytes: &[u8]| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    let mut state = 7u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as usize) % below
    };
    let descriptor = Descriptor { media_type: String::new(), digest: written.digest, size: written.size };
    let source = Blob(blob.clone(), 0.into());
    let mut accepted = 0;
    for _ in 0..2000 {
        let (mut table, mut split) = (table.clone(), split.clone());
        let target = if next(2) == 0 { &mut table } else { &mut split };
        for _ in 0..=next(3) {
            let at = next(target.len());
            match next(4) {
                0 => target[at] ^= 1 << next(8),
                1 => target[at] = b"0123456789\"{},:"[next(15)],
                2 => target.truncate(at + 1),
                _ => drop(target.drain(at..(at + next(9)).min(target.len()))),
            }
        }
        let packed_split = pack(&split);
        let digest = Digest::of(&packed_split).to_string();
        let text = String::from_utf8_lossy(&table).into_owned();
        let old = text.find("\"tarSplitDigest\":\"").map(|at| at + 18);
        let table = match old.filter(|at| text.is_char_boundary(at + 71) && text.len() > at + 71) {
            Some(at) => format!("{}{digest}{}", &text[..at], &text[at + 71..]),
            None => text,
        };
        let parsed = Table::parse(&pack(table.as_bytes()), table.len() as u64, blob.len() as u64, || {
            Some(packed_split)
        });
        let Some(table) = parsed else { continue };
        accepted += 1;
        // What is made of it is another archive at worst; it never goes on for ever.
        let mut rebuilt = Rebuilt::from_blob(&table, &source, &descriptor);
        let mut bytes = Vec::new();
        let _ = rebuilt.by_ref().take(archive.len() as u64 * 4).read_to_end(&mut bytes);
    }
    assert!(accepted > 100, "{accepted}");
}

#[test]
fn a_whole_archive_from_ranges() {
    let (archive, blob, written) = chunked();
    let positions = Positions::parse(&written.marks.annotations()).unwrap();
    let descriptor = Descriptor { media_type: String::new(), digest: written.digest, size: written.size };
    let source = Blob(blob, 0.into());
    let table = Table::fetch(&source, &descriptor, &positions).unwrap();
    let mut rebuilt = Rebuilt::from_blob(&table, &source, &descriptor);
    assert!(rebuilt.to_fetch() <= written.size);
    let mut bytes = Vec::new();
    rebuilt.read_to_end(&mut bytes).unwrap();
    assert!(bytes == archive);
}
