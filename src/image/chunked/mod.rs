//! zstd:chunked: a layer whose files are compressed one by one, with a table of contents behind them
//! (containers-storage-zstd-chunked). Of such a layer only those files are fetched that no layer here
//! has.
//!
//! Nothing that the table says is trusted. It says which files to look for; out of what is here, what
//! is fetched, and the table's own archive of headers ("tar-split") the layer's archive is put together
//! again, and that has to have the digest of the image's configuration like every other. Where
//! anything does not fit, the layer is fetched whole.

mod frames;
mod list;
mod rebuild;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::manifest::Descriptor;
use super::source::Source;
use crate::base::digest::Digest;
use crate::storage::Store;

use frames::Frames;
pub use rebuild::Rebuilt;
pub use write::{Marks, Written, compress};

const CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const TAR_SPLIT: &str = "io.github.containers.zstd-chunked.tarsplit-position";

/// Tables with more than this are not worth their memory: the layer is fetched whole.
const MAX_TABLE: u64 = 24 << 20;
const MAX_PACKED: u64 = 16 << 20;

/// Where a layer's table is, from the annotations of its descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    checksum: Digest,
    /// Offset and length, compressed, and length when it is not.
    table: (u64, u64, u64),
    tar_split: (u64, u64),
}

impl Positions {
    fn parse(annotations: &BTreeMap<String, String>) -> Option<Self> {
        let numbers = |key: &str| -> Option<Vec<u64>> {
            annotations.get(key)?.split(':').map(|number| number.parse().ok()).collect()
        };
        let table = numbers(POSITION)?;
        let [offset, length, unpacked, 1] = table.as_slice() else { return None };
        let split = numbers(TAR_SPLIT)?;
        let [split_offset, split_length, _] = split.as_slice() else { return None };
        let fits = *length <= MAX_PACKED && *unpacked <= MAX_TABLE && *split_length <= MAX_PACKED;
        fits.then_some(Self {
            checksum: annotations.get(CHECKSUM)?.parse().ok()?,
            table: (*offset, *length, *unpacked),
            tar_split: (*split_offset, *split_length),
        })
    }
}

/// The chunked layers of a manifest, by the digest of their blobs.
pub fn layers(manifest: &[u8]) -> HashMap<Digest, Positions> {
    #[derive(Deserialize)]
    struct Manifest {
        #[serde(default)]
        layers: Vec<Layer>,
    }
    #[derive(Deserialize)]
    struct Layer {
        digest: String,
        #[serde(default)]
        annotations: Option<BTreeMap<String, String>>,
    }
    // Most images have none, and are spared the parsing.
    if !manifest.windows(POSITION.len()).any(|window| window == POSITION.as_bytes()) {
        return HashMap::new();
    }
    let parsed = serde_json::from_slice::<Manifest>(manifest).map(|manifest| manifest.layers);
    let positions = |layer: Layer| Some((layer.digest.parse().ok()?, Positions::parse(&layer.annotations?)?));
    parsed.unwrap_or_default().into_iter().filter_map(positions).collect()
}

/// The table of contents (`TOC` of containers/storage).
#[derive(Debug, Serialize, Deserialize)]
struct Toc {
    version: u64,
    entries: Vec<TocEntry>,
    #[serde(rename = "tarSplitDigest", default, skip_serializing_if = "Option::is_none")]
    tar_split_digest: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TocEntry {
    r#type: String,
    name: String,
    #[serde(rename = "linkName", default, skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    gid: u64,
    #[serde(rename = "modtime", default, skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
    #[serde(rename = "devMajor", default, skip_serializing_if = "is_zero")]
    major: u64,
    #[serde(rename = "devMinor", default, skip_serializing_if = "is_zero")]
    minor: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xattrs: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(default, skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    end_offset: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An entry of the archive of headers (`storage.Entry` of tar-split), one a line.
#[derive(Debug, Serialize, Deserialize)]
struct SplitEntry {
    r#type: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(default)]
    payload: Option<String>,
    #[serde(default)]
    position: u64,
}

/// The content of a file goes here.
const SPLIT_FILE: u8 = 1;
/// These bytes go here.
const SPLIT_BYTES: u8 = 2;

/// What a table says of one entry of the archive.
#[derive(Debug)]
struct File {
    name: String,
    size: u64,
    /// Of the content; only regular files that are not empty have one.
    digest: Option<Digest>,
    /// Where the blob holds it, compressed.
    range: (u64, u64),
}

/// A layer's table, fetched and checked.
#[derive(Debug)]
pub struct Table {
    /// One for each entry of the archive, in its order.
    files: Vec<File>,
    /// Compressed.
    tar_split: Vec<u8>,
    /// Bytes of the archive.
    size: u64,
}

impl Table {
    /// Fetches a layer's table by ranges. `None` if the source has no ranges, or anything is not as it
    /// should be: the layer is fetched whole then.
    pub fn fetch(source: &dyn Source, blob: &Descriptor, positions: &Positions) -> Option<Self> {
        let read = |offset: u64, length: u64| {
            let end = offset.checked_add(length)?;
            let mut bytes = Vec::new();
            let range =
                source.blob_range(blob, offset, length).ok().flatten().filter(|_| end <= blob.size)?;
            range.take(length).read_to_end(&mut bytes).ok()?;
            (bytes.len() as u64 == length).then_some(bytes)
        };
        let (offset, length, unpacked) = positions.table;
        let packed = read(offset, length)?;
        if Digest::of(&packed) != positions.checksum {
            return None;
        }
        let (split_offset, split_length) = positions.tar_split;
        Self::parse(&packed, unpacked, blob.size, || read(split_offset, split_length))
    }

    /// Reads a table whose checksum was looked at. `tar_split` fetches the archive of headers.
    fn parse(
        packed: &[u8],
        unpacked: u64,
        blob: u64,
        tar_split: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Self> {
        let mut text = Vec::new();
        Frames::new(packed).take(unpacked.min(MAX_TABLE) + 1).read_to_end(&mut text).ok()?;
        if text.len() as u64 > MAX_TABLE {
            return None;
        }
        let toc: Toc = serde_json::from_slice(&text).ok().filter(|toc: &Toc| toc.version == 1)?;
        drop(text);
        let expected: Digest = toc.tar_split_digest?.parse().ok()?;
        let files = toc.entries.into_iter().filter(|entry| entry.r#type != "chunk").map(|entry| {
            let regular = entry.r#type == "reg" && entry.size > 0;
            let range = (entry.offset, entry.end_offset);
            let good = !regular || (range.0 < range.1 && range.1 <= blob);
            let digest = if regular { Some(entry.digest.parse().ok()?) } else { None };
            good.then_some(File { name: entry.name, size: entry.size, digest, range })
        });
        let files = files.collect::<Option<Vec<_>>>()?;
        let tar_split = tar_split().filter(|bytes| Digest::of(bytes) == expected)?;
        let mut table = Self { files, tar_split, size: 0 };
        table.size = table.check()?;
        Some(table)
    }

    /// Goes through the archive of headers once: its files must be those of the table. Gives the
    /// archive's size.
    fn check(&self) -> Option<u64> {
        let mut files = self.files.iter();
        let mut size = 0u64;
        for entry in self.steps() {
            let bytes = match entry.ok()? {
                Step::Bytes(bytes) => bytes.len() as u64,
                Step::File { size } => {
                    let file = files.next()?;
                    let expected = if file.digest.is_some() { file.size } else { 0 };
                    (size == expected).then_some(size)?
                }
            };
            size = size.checked_add(bytes)?;
        }
        files.next().is_none().then_some(size)
    }

    fn steps(&self) -> Steps<'_> {
        Steps(io::BufReader::new(Frames::new(&self.tar_split)))
    }

    /// Bytes of the archive.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Notes the layer's files beside its tree, for those who come later; `dir` is the layer's directory.
    pub fn note(&self, dir: &std::path::Path) -> io::Result<()> {
        let files = self.files.iter().filter_map(|file| Some((file.digest?, file.size, file.name.as_str())));
        list::write(dir, files)
    }

    /// The layer's archive, put together of files that are here and of ranges of the blob; `None` if too
    /// little is here for that to be worth it.
    pub fn rebuild<'a>(
        &'a self,
        store: &Store,
        source: &'a dyn Source,
        blob: &'a Descriptor,
    ) -> Option<Rebuilt<'a>> {
        Rebuilt::plan(self, store, source, blob)
    }
}

/// One step of putting an archive together.
enum Step {
    Bytes(Vec<u8>),
    File { size: u64 },
}

/// The archive of headers, line by line.
struct Steps<'a>(io::BufReader<Frames<&'a [u8]>>);

/// Longest line: headers of one entry, which may hold 1 MiB of names and attributes each.
const MAX_LINE: u64 = 8 << 20;

impl Iterator for Steps<'_> {
    type Item = io::Result<Step>;

    fn next(&mut self) -> Option<Self::Item> {
        use base64::Engine as _;
        use io::BufRead as _;
        let invalid = |what: &'static str| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut line = Vec::new();
        match self.0.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Err(error) => return Some(Err(error)),
            Ok(_) => {}
        }
        let parsed: Result<SplitEntry, _> = serde_json::from_slice(&line);
        Some(match parsed {
            Ok(SplitEntry { r#type: SPLIT_FILE, size, .. }) => Ok(Step::File { size }),
            Ok(SplitEntry { r#type: SPLIT_BYTES, payload, .. }) => base64::engine::general_purpose::STANDARD
                .decode(payload.unwrap_or_default())
                .map(Step::Bytes)
                .map_err(|_| invalid("the archive of headers is damaged")),
            _ => Err(invalid("the archive of headers is damaged")),
        })
    }
}

#[cfg(test)]
mod tests;
