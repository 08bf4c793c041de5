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
    add("large", tar::EntryType::Regular, &b"0123456789abcdef".repeat(200_000));
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
    let positions = Positions::parse(&written.annotations).unwrap();
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
        let mut annotations = written.annotations.clone();
        annotations.insert(key.into(), value.into());
        assert_eq!(Positions::parse(&annotations), None, "{key} {value}");
        annotations.remove(key);
        assert_eq!(Positions::parse(&annotations), None, "{key}");
    }
}

#[test]
fn a_table_that_lies_gives_none() {
    let (_, blob, written) = chunked();
    let positions = Positions::parse(&written.annotations).unwrap();
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
