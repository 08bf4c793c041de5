//! Reading tar archives (POSIX.1-2001 pax, ustar, GNU and their extensions) that may be hostile.
//!
//! The `tar` crate decodes header blocks; what goes over several blocks is read here, because
//! memory must be bounded whatever a header claims, and pax values may contain line feeds
//! (`security.capability` is binary).

use std::io::{self, BufRead, Read};

/// Longest name, link target or pax header that is taken, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;
/// Most pieces of a sparse file.
const MAX_PIECES: usize = 1 << 16;
const BLOCK: u64 = 512;

/// An archive that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream failed: the download, the decompression or an end in the midst.
    #[error("reading the archive")]
    Read(#[source] io::Error),
    /// A header block whose checksum or number is wrong.
    #[error("the archive has a damaged header after entry {0}")]
    Header(u64),
    /// A header claims an extension that is too long.
    #[error("the archive has an extended header of {0} bytes, more than the {MAX_EXTENSION} allowed")]
    Extension(u64),
    /// A pax record is malformed.
    #[error("the archive has a damaged pax header after entry {0}")]
    Pax(u64),
    /// A sparse file's map is malformed.
    #[error("the archive has a damaged sparse map after entry {0}")]
    Sparse(u64),
    /// A type that means nothing here.
    #[error("the archive has an entry of unknown type '{}'", char::from(*.0))]
    Kind(u8),
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Another name of an earlier file.
    HardLink,
    /// Symbolic link.
    SymbolicLink,
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// One entry, without its data.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name as written: not to be trusted.
    pub path: Vec<u8>,
    /// Target of a link as written.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permissions with setuid, setgid and sticky bits (12 bits).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes of the file once it is unpacked.
    pub size: u64,
    /// Where the stored data belong, for a sparse file: offset and length.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Device number.
    pub device: (u32, u32),
}

/// A stream that can pass over bytes, perhaps without reading them.
pub trait Skip: BufRead {
    /// Passes over `count` bytes; `UnexpectedEof` if there are not as many.
    fn skip(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let available = self.fill_buf()?.len() as u64;
            if available == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let step = available.min(count);
            self.consume(step as usize);
            count -= step;
        }
        Ok(())
    }
}

impl Skip for &[u8] {}

impl<R: io::Read> Skip for io::BufReader<R> {}

/// Reads entry after entry.
pub struct Reader<R> {
    stream: R,
    /// Bytes of the current entry's data that were not read yet, and its padding.
    data: u64,
    padding: u64,
    entries: u64,
    global: Pax,
}

#[derive(Clone, Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    sparse_major: Option<u64>,
    sparse_size: Option<u64>,
    sparse_name: Option<Vec<u8>>,
    sparse_map: Option<Vec<u8>>,
}

impl<R: Skip> Reader<R> {
    /// Reads from a stream of uncompressed bytes.
    pub fn new(stream: R) -> Self {
        Self { stream, data: 0, padding: 0, entries: 0, global: Pax::default() }
    }

    /// How many entries were read.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// The stream.
    pub fn get_ref(&self) -> &R {
        &self.stream
    }

    /// The stream, to change how it passes what is read.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// The stream, to read what follows the archive's end.
    pub fn into_inner(self) -> R {
        self.stream
    }

    /// The next entry, or `None` at the end of the archive. Data not read are skipped.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let mut pax = self.global.clone();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_data()?;
            let Some(block) = self.block()? else { return Ok(None) };
            if block.iter().all(|b| *b == 0) {
                return Ok(None);
            }
            let header = tar::Header::from_byte_slice(&block);
            let damaged = |_| Error::Header(self.entries);
            if header.cksum().map_err(damaged)? != checksum(&block) {
                return Err(Error::Header(self.entries));
            }
            let size = blank(&block, 124..136).map_or_else(|| header.entry_size().map_err(damaged), Ok)?;
            self.set_size(size)?;
            match block[156] {
                b'x' | b'X' => self.parse_pax(&mut pax)?,
                b'g' => {
                    let mut global = std::mem::take(&mut self.global);
                    self.parse_pax(&mut global)?;
                    self.global = global.clone();
                    pax = global;
                }
                b'L' => long_name = Some(self.extension_text()?),
                b'K' => long_link = Some(self.extension_text()?),
                // Volume labels and multi-volume dumps' directory lists hold nothing to unpack.
                b'V' | b'D' => {}
                _ => {
                    let header = header.clone();
                    return self.entry(&header, pax, long_name, long_link).map(Some);
                }
            }
        }
    }

    fn set_size(&mut self, size: u64) -> Result<(), Error> {
        // 8 EiB and more would overflow file offsets.
        if size > i64::MAX as u64 - BLOCK {
            return Err(Error::Header(self.entries));
        }
        self.data = size;
        self.padding = size.next_multiple_of(BLOCK) - size;
        Ok(())
    }

    fn entry(
        &mut self,
        header: &tar::Header,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, Error> {
        let entries = self.entries;
        let damaged = |_| Error::Header(entries);
        let kind = match header.as_bytes()[156] {
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::SymbolicLink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(Error::Kind(other)),
        };
        if let Some(size) = pax.size {
            self.set_size(size)?;
        }
        let narrow = |id: u64| u32::try_from(id).map_err(|_| Error::Header(entries));
        let block = header.as_bytes();
        let number = |field, value: io::Result<u64>| blank(block, field).map_or(value, Ok).map_err(damaged);
        let mut entry = Entry {
            path: pax.path.or(long_name).unwrap_or_else(|| header.path_bytes().into_owned()),
            link: pax
                .link
                .or(long_link)
                .unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned()),
            kind,
            mode: number(100..108, header.mode().map(u64::from))? as u32 & 0o7777,
            uid: pax.uid.map_or_else(|| narrow(number(108..116, header.uid())?), Ok)?,
            gid: pax.gid.map_or_else(|| narrow(number(116..124, header.gid())?), Ok)?,
            // Times before 1970 are in pax headers, or base-256 numbers that read as huge ones.
            mtime: pax
                .mtime
                .map_or_else(|| number(136..148, header.mtime()).map(|seconds| (seconds as i64, 0)), Ok)?,
            size: self.data,
            sparse: None,
            xattrs: pax.xattrs,
            device: (0, 0),
        };
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            let wide = |n: io::Result<Option<u32>>| n.map(|n| n.unwrap_or_default().into());
            let major = number(329..337, wide(header.device_major()))?;
            let minor = number(337..345, wide(header.device_minor()))?;
            entry.device = (narrow(major)?, narrow(minor)?);
        }
        // An old archive's directory is a file whose name ends in a slash.
        if kind == Kind::File && header.as_bytes()[156] != b'S' && entry.path.ends_with(b"/") {
            entry.kind = Kind::Directory;
        }
        if header.as_bytes()[156] == b'S' {
            self.gnu_sparse(header, &mut entry)?;
        } else if pax.sparse_major == Some(1) {
            entry.path = pax.sparse_name.unwrap_or(entry.path);
            let size = pax.sparse_size.ok_or(Error::Sparse(entries))?;
            entry.sparse = Some(self.pax_sparse_map()?);
            entry.size = size;
        } else if let Some(map) = pax.sparse_map {
            entry.path = pax.sparse_name.unwrap_or(entry.path);
            let size = pax.sparse_size.ok_or(Error::Sparse(entries))?;
            entry.sparse = Some(sparse_text(&map).ok_or(Error::Sparse(entries))?);
            entry.size = size;
        }
        if !matches!(entry.kind, Kind::File) && self.data > 0 {
            // Data of a link or directory mean nothing; some writers give a link its file's size
            // without storing data, which POSIX allows for hard links only with zero size here.
            entry.size = 0;
        }
        self.check_sparse(&entry)?;
        self.entries += 1;
        Ok(entry)
    }

    fn check_sparse(&self, entry: &Entry) -> Result<(), Error> {
        let Some(pieces) = &entry.sparse else { return Ok(()) };
        let mut end = 0u64;
        let mut stored = 0u64;
        for (offset, length) in pieces {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= entry.size);
            end = next.ok_or(Error::Sparse(self.entries))?;
            stored += length;
        }
        if stored != self.data || entry.size > i64::MAX as u64 {
            return Err(Error::Sparse(self.entries));
        }
        Ok(())
    }

    /// GNU's old form: four pieces in the header, more in blocks that follow.
    fn gnu_sparse(&mut self, header: &tar::Header, entry: &mut Entry) -> Result<(), Error> {
        let error = Error::Sparse(self.entries);
        let Some(gnu) = header.as_gnu() else { return Err(error) };
        let mut pieces = Vec::new();
        let entries = self.entries;
        let mut add = |list: &[tar::GnuSparseHeader]| {
            for piece in list.iter().filter(|piece| !piece.is_empty()) {
                let offset = piece.offset().map_err(|_| Error::Sparse(entries))?;
                let length = piece.length().map_err(|_| Error::Sparse(entries))?;
                pieces.push((offset, length));
            }
            if pieces.len() > MAX_PIECES { Err(Error::Sparse(entries)) } else { Ok(()) }
        };
        add(&gnu.sparse)?;
        let mut extended = gnu.is_extended();
        while extended {
            let mut more = tar::GnuExtSparseHeader::new();
            // These blocks stand before the data and are not counted in the entry's size.
            self.stream.read_exact(more.as_mut_bytes()).map_err(Error::Read)?;
            add(more.sparse())?;
            extended = more.is_extended();
        }
        entry.size = gnu.real_size().map_err(|_| error)?;
        entry.sparse = Some(pieces);
        Ok(())
    }

    /// pax form 1.0: decimal numbers, one a line, at the start of the data, padded to a block.
    fn pax_sparse_map(&mut self) -> Result<Vec<(u64, u64)>, Error> {
        let mut read = 0u64;
        let mut number = || -> Result<u64, Error> {
            let mut value = 0u64;
            loop {
                let mut byte = [0];
                if read >= self.data {
                    return Err(Error::Sparse(self.entries));
                }
                self.stream.read_exact(&mut byte).map_err(Error::Read)?;
                read += 1;
                match byte[0] {
                    b'\n' => return Ok(value),
                    digit @ b'0'..=b'9' => {
                        let next = value.checked_mul(10).and_then(|v| v.checked_add(u64::from(digit - b'0')));
                        value = next.ok_or(Error::Sparse(self.entries))?;
                    }
                    _ => return Err(Error::Sparse(self.entries)),
                }
            }
        };
        let count = number()?;
        if count > MAX_PIECES as u64 {
            return Err(Error::Sparse(self.entries));
        }
        let pieces = (0..count).map(|_| Ok((number()?, number()?))).collect::<Result<Vec<_>, Error>>()?;
        let map = read.next_multiple_of(BLOCK);
        if map > self.data {
            return Err(Error::Sparse(self.entries));
        }
        self.discard(map - read)?;
        self.data -= map;
        Ok(pieces)
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK as usize]>, Error> {
        // An archive may end without the two zero blocks.
        if self.stream.fill_buf().map_err(Error::Read)?.is_empty() {
            return Ok(None);
        }
        let mut block = [0; BLOCK as usize];
        self.stream.read_exact(&mut block).map_err(Error::Read)?;
        Ok(Some(block))
    }

    fn extension(&mut self) -> Result<Vec<u8>, Error> {
        if self.data > MAX_EXTENSION {
            return Err(Error::Extension(self.data));
        }
        let mut bytes = vec![0; self.data as usize];
        self.stream.read_exact(&mut bytes).map_err(Error::Read)?;
        self.data = 0;
        Ok(bytes)
    }

    fn extension_text(&mut self) -> Result<Vec<u8>, Error> {
        let mut bytes = self.extension()?;
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        Ok(bytes)
    }

    fn parse_pax(&mut self, pax: &mut Pax) -> Result<(), Error> {
        let bytes = self.extension()?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (key, value, next) = pax_record(rest).ok_or(Error::Pax(self.entries))?;
            pax.take(key, value).ok_or(Error::Pax(self.entries))?;
            rest = next;
        }
        Ok(())
    }

    fn skip_data(&mut self) -> Result<(), Error> {
        let left = std::mem::take(&mut self.data) + std::mem::take(&mut self.padding);
        self.discard(left)
    }

    fn discard(&mut self, count: u64) -> Result<(), Error> {
        self.stream.skip(count).map_err(Error::Read)
    }

    /// The next stretch of the entry's data, at most `limit` bytes; empty at their end.
    /// [`Reader::consume`] goes on.
    pub fn data(&mut self, limit: u64) -> Result<&[u8], Error> {
        let limit = limit.min(self.data) as usize;
        if limit == 0 {
            return Ok(&[]);
        }
        let available = self.stream.fill_buf().map_err(Error::Read)?;
        if available.is_empty() {
            return Err(Error::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(&available[..available.len().min(limit)])
    }

    /// Passes over `count` bytes that [`Reader::data`] gave.
    pub fn consume(&mut self, count: usize) {
        self.stream.consume(count);
        self.data -= count as u64;
    }
}

impl<R: Skip> Read for Reader<R> {
    /// Reads the current entry's data.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.data(into.len() as u64).map_err(|error| match error {
            Error::Read(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        })?;
        let count = piece.len();
        into[..count].copy_from_slice(piece);
        self.consume(count);
        Ok(count)
    }
}

/// Zero for a numeric field that was left empty, as every other reader takes it.
fn blank(block: &[u8; BLOCK as usize], field: std::ops::Range<usize>) -> Option<u64> {
    block[field].iter().all(|b| matches!(b, 0 | b' ')).then_some(0)
}

/// The sum of a header's bytes with its checksum field taken as spaces.
fn checksum(block: &[u8; BLOCK as usize]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
    sum(&block[..148]) + 8 * 32 + sum(&block[156..])
}

/// Splits off `length key=value\n`.
fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
        return None;
    }
    let record = &bytes[space + 1..length - 1];
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

impl Pax {
    /// Takes a record in; `None` if its value is malformed. An empty value takes back a global one.
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        fn number<T: std::str::FromStr>(value: &[u8]) -> Option<Option<T>> {
            if value.is_empty() {
                return Some(None);
            }
            std::str::from_utf8(value).ok()?.parse().ok().map(Some)
        }
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = text(),
            b"linkpath" => self.link = text(),
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" => self.mtime = if value.is_empty() { None } else { Some(time(value)?) },
            b"GNU.sparse.major" => self.sparse_major = number(value)?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => self.sparse_size = number(value)?,
            b"GNU.sparse.name" => self.sparse_name = text(),
            b"GNU.sparse.map" => self.sparse_map = text(),
            // The form 0.0 repeats these; no writer has made it since 2006.
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => return None,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.retain(|(known, _)| known != name);
                    self.xattrs.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// Parses `seconds[.fraction]`, which may be negative.
fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanoseconds: u32 = format!("{:0<9.9}", fraction).parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

/// Parses `offset,length,offset,length…` (pax form 0.1).
fn sparse_text(map: &[u8]) -> Option<Vec<(u64, u64)>> {
    let text = std::str::from_utf8(map).ok()?;
    let numbers = text.split(',').map(|n| n.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let even = numbers.len().is_multiple_of(2) && numbers.len() / 2 <= MAX_PIECES;
    even.then(|| numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_values_may_hold_line_feeds() {
        let (key, value, rest) = pax_record(b"10 a=b\nc\n\nnext").unwrap();
        assert_eq!((key, value, rest), (&b"a"[..], &b"b\nc\n"[..], &b"next"[..]));
        for bad in [&b"10 a=b\n"[..], b"3 a=b\n", b"7 a=bcd", b"x a=b\n", b"", b"99999999999999999999 a=b\n"]
        {
            assert!(pax_record(bad).is_none());
        }
    }

    #[test]
    fn times() {
        assert_eq!(time(b"12.5"), Some((12, 500_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        assert_eq!(time(b"1.-5"), None);
    }

    #[test]
    fn lengths_that_lie_do_not_take_memory() {
        let mut header = tar::Header::new_gnu();
        header.set_size(1 << 40);
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_cksum();
        let mut reader = Reader::new(&header.as_bytes()[..]);
        assert!(matches!(reader.next_entry(), Err(Error::Extension(_))));
        header.set_size(u64::MAX);
        header.set_cksum();
        let mut reader = Reader::new(&header.as_bytes()[..]);
        assert!(matches!(reader.next_entry(), Err(Error::Header(_))));
    }

    #[test]
    fn a_wrong_checksum_and_a_cut_are_seen() {
        let mut header = tar::Header::new_gnu();
        header.set_path("a").unwrap();
        header.set_size(5);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        let mut reader = Reader::new(bytes.as_slice());
        assert_eq!(reader.next_entry().unwrap().unwrap().path, b"a");
        assert!(matches!(reader.next_entry(), Err(Error::Read(_))));
        bytes[0] = b'b';
        assert!(matches!(Reader::new(bytes.as_slice()).next_entry(), Err(Error::Header(0))));
    }
}
