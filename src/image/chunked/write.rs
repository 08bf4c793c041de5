//! Making zstd:chunked of a layer's archive: for every file a piece of the stream of its own, behind
//! them the table, the archive of headers, and where both are. Who knows nothing of that reads it as
//! plain Zstandard.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use sha2::{Digest as _, Sha256};

use super::{CHECKSUM, POSITION, SPLIT_BYTES, SPLIT_FILE, SplitEntry, TAR_SPLIT, Toc, TocEntry};
use crate::base::digest::Digest;
use crate::image::archive::{Entry, Kind, Reader, Skip};

/// What came of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Digest of what was written.
    pub digest: Digest,
    /// Bytes of it.
    pub size: u64,
    /// Digest of the archive.
    pub diff_id: Digest,
    /// Where its tables are.
    pub marks: Marks,
}

/// Where a blob's tables are, which the annotations of its descriptor must say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    checksum: Digest,
    /// Offset and length of the table, compressed, and its length when it is not.
    table: [u64; 3],
    /// The same of the archive of headers.
    tar_split: [u64; 3],
}

impl Marks {
    /// The annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let ([at, length, unpacked], [split_at, split_length, split_unpacked]) = (self.table, self.tar_split);
        BTreeMap::from([
            (CHECKSUM.to_owned(), self.checksum.to_string()),
            // The type 1 is this form of table.
            (POSITION.to_owned(), format!("{at}:{length}:{unpacked}:1")),
            (TAR_SPLIT.to_owned(), format!("{split_at}:{split_length}:{split_unpacked}")),
        ])
    }
}

/// Bytes of a file that become one frame.
const PIECE: u64 = 1 << 20;

/// Zeros behind an archive that are taken; tar writes up to 10 KiB.
const MAX_REST: u64 = 16 << 20;

/// Behind the table and the rest of a skippable frame's head.
const FRAME_HEAD: u64 = 8;

/// The mark at the end of the footer.
const MAGIC: &[u8; 8] = b"GNUlInUx";

/// Compresses an archive. Fails with `Unsupported` for one with sparse files or names that are not
/// UTF-8: a table cannot hold them, and plain Zstandard must do.
pub fn compress(archive: &mut dyn BufRead, into: &mut dyn Write) -> io::Result<Written> {
    let recorder = Recorder {
        inner: archive,
        hash: RefCell::new(Sha256::new()),
        recorded: RefCell::default(),
        on: Cell::new(true),
    };
    let mut reader = Reader::new(recorder);
    let mut out = Out { into, hash: Sha256::new(), size: 0 };
    let mut split = Split::default();
    let mut entries = Vec::new();
    // Headers wait until a file's content begins, so that a thousand empty ones are one frame.
    let mut headers: Vec<u8> = Vec::new();
    loop {
        reader.get_ref().on.set(true);
        let entry = reader.next_entry().map_err(invalid)?;
        let bytes = reader.get_ref().recorded.take();
        headers.extend_from_slice(&bytes);
        split.bytes(&bytes)?;
        let Some(entry) = entry else { break };
        if entry.sparse.is_some() {
            return Err(unsupported("it has a sparse file"));
        }
        let mut described = describe(&entry)?;
        reader.get_ref().on.set(false);
        let mut sum = 0;
        if entry.kind == Kind::File && entry.size > 0 {
            out.frame(&headers)?;
            headers.clear();
            described.offset = out.size;
            let (digest, crc) = file(&mut reader, entry.size, &mut out)?;
            (described.digest, sum) = (digest.to_string(), crc);
            described.end_offset = out.size;
        }
        split.file(&described.name, described.size, sum)?;
        entries.push(described);
    }
    // What stands behind the last entry: the rest of the zeros, whatever a tar was padded with.
    let mut recorder = reader.into_inner();
    recorder.on.set(false);
    let mut rest = Vec::new();
    recorder.by_ref().take(MAX_REST + 1).read_to_end(&mut rest)?;
    if rest.len() as u64 > MAX_REST {
        return Err(unsupported("too much stands behind its last entry"));
    }
    split.bytes(&rest)?;
    headers.extend_from_slice(&rest);
    out.frame(&headers)?;
    let diff_id = Digest::from_bytes(recorder.hash.into_inner().finalize().into());
    let marks = finish(&mut out, entries, &split.lines)?;
    let digest = Digest::from_bytes(out.hash.finalize().into());
    Ok(Written { digest, size: out.size, diff_id, marks })
}

fn invalid(error: crate::image::archive::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, crate::base::report::chain(&error))
}

fn unsupported(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// Compresses the current entry's data; gives its digest and its sum.
fn file<R: Skip>(reader: &mut Reader<R>, size: u64, out: &mut Out<'_>) -> io::Result<(Digest, u64)> {
    let (mut hash, mut crc) = (Sha256::new(), Crc::default());
    let mut left = size;
    while left > 0 {
        let mut piece = Vec::new();
        reader.by_ref().take(PIECE.min(left)).read_to_end(&mut piece)?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= piece.len() as u64;
        hash.update(&piece);
        crc.update(&piece);
        out.frame(&piece)?;
    }
    Ok((Digest::from_bytes(hash.finalize().into()), crc.sum()))
}

fn describe(entry: &Entry) -> io::Result<TocEntry> {
    let text = |bytes: &[u8]| {
        String::from_utf8(bytes.to_vec()).map_err(|_| unsupported("it has a name that is not UTF-8"))
    };
    let kind = match entry.kind {
        Kind::File => "reg",
        Kind::HardLink => "hardlink",
        Kind::SymbolicLink => "symlink",
        Kind::Directory => "dir",
        Kind::Fifo => "fifo",
        Kind::CharDevice => "char",
        Kind::BlockDevice => "block",
    };
    let xattrs: BTreeMap<String, String> = entry
        .xattrs
        .iter()
        .map(|(name, value)| Ok((text(name)?, STANDARD.encode(value))))
        .collect::<io::Result<_>>()?;
    let time = jiff::Timestamp::new(entry.mtime.0, i32::try_from(entry.mtime.1).unwrap_or(0)).ok();
    Ok(TocEntry {
        r#type: kind.to_owned(),
        name: text(&entry.path)?,
        link_name: text(&entry.link)?,
        mode: entry.mode.into(),
        size: if entry.kind == Kind::File { entry.size } else { 0 },
        uid: entry.uid.into(),
        gid: entry.gid.into(),
        modified: time.map(|time| time.to_string()),
        major: entry.device.0.into(),
        minor: entry.device.1.into(),
        xattrs: (!xattrs.is_empty()).then_some(xattrs),
        ..TocEntry::default()
    })
}

/// Writes the table, the archive of headers and the footer.
fn finish(out: &mut Out<'_>, entries: Vec<TocEntry>, split: &[u8]) -> io::Result<Marks> {
    let packed_split = compress_to_vec(split, CompressionLevel::Fastest);
    let toc = Toc { version: 1, entries, tar_split_digest: Some(Digest::of(&packed_split).to_string()) };
    let table = serde_json::to_vec(&toc)?;
    let packed = compress_to_vec(&table[..], CompressionLevel::Fastest);
    let at = out.size + FRAME_HEAD;
    out.skippable(&packed)?;
    let split_at = out.size + FRAME_HEAD;
    out.skippable(&packed_split)?;
    let lengths = [packed.len(), table.len(), packed_split.len(), split.len()].map(|length| length as u64);
    let [length, unpacked, split_length, split_unpacked] = lengths;
    let numbers = [at, length, unpacked, 1, split_at, split_length, split_unpacked];
    let footer: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).chain(*MAGIC).collect();
    out.skippable(&footer)?;
    Ok(Marks {
        checksum: Digest::of(&packed),
        table: [at, length, unpacked],
        tar_split: [split_at, split_length, split_unpacked],
    })
}

/// Where the blob goes, with its digest.
struct Out<'a> {
    into: &'a mut dyn Write,
    hash: Sha256,
    size: u64,
}

impl Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        self.into.write_all(bytes)
    }

    fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.write(&compress_to_vec(bytes, CompressionLevel::Fastest))
    }

    fn skippable(&mut self, bytes: &[u8]) -> io::Result<()> {
        let length = u32::try_from(bytes.len()).map_err(|_| unsupported("its table is too long"))?;
        self.write(&[0x50, 0x2a, 0x4d, 0x18])?;
        self.write(&length.to_le_bytes())?;
        self.write(bytes)
    }
}

/// The archive of headers, as lines.
#[derive(Default)]
struct Split {
    lines: Vec<u8>,
    position: u64,
}

impl Split {
    fn line(&mut self, entry: &SplitEntry) -> io::Result<()> {
        serde_json::to_writer(&mut self.lines, entry)?;
        self.lines.push(b'\n');
        self.position += 1;
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let payload = Some(STANDARD.encode(bytes));
        self.line(&SplitEntry { r#type: SPLIT_BYTES, name: None, size: 0, payload, position: self.position })
    }

    fn file(&mut self, name: &str, size: u64, sum: u64) -> io::Result<()> {
        let payload = (size > 0).then(|| STANDARD.encode(sum.to_be_bytes()));
        let name = Some(name.to_owned());
        self.line(&SplitEntry { r#type: SPLIT_FILE, name, size, payload, position: self.position })
    }
}

/// CRC-64 of ISO 3309, as tar-split sums files.
#[derive(Default)]
struct Crc(u64);

impl Crc {
    const TABLE: [u64; 256] = {
        let mut table = [0u64; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut sum = byte as u64;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0xd800_0000_0000_0000 } else { sum >> 1 };
                bit += 1;
            }
            table[byte] = sum;
            byte += 1;
        }
        table
    };

    fn update(&mut self, bytes: &[u8]) {
        let mut sum = !self.0;
        for byte in bytes {
            sum = Self::TABLE[usize::from(sum as u8 ^ byte)] ^ (sum >> 8);
        }
        self.0 = !sum;
    }

    fn sum(&self) -> u64 {
        self.0
    }
}

/// Hashes all that is read, and notes it while it is `on`.
struct Recorder<'a> {
    inner: &'a mut dyn BufRead,
    hash: RefCell<Sha256>,
    recorded: RefCell<Vec<u8>>,
    on: Cell<bool>,
}

impl BufRead for Recorder<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if let Ok(bytes) = self.inner.fill_buf() {
            let bytes = &bytes[..count.min(bytes.len())];
            self.hash.get_mut().update(bytes);
            if self.on.get() {
                self.recorded.get_mut().extend_from_slice(bytes);
            }
        }
        self.inner.consume(count);
    }
}

impl Read for Recorder<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.inner.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Skip for Recorder<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_go() {
        let mut crc = Crc::default();
        crc.update(b"123456789");
        // The check value of CRC-64/GO-ISO.
        assert_eq!(crc.sum(), 0xb909_56c7_75a4_1001);
    }
}
