//! Which files of a layer have the content of files of other layers.
//!
//! While a layer is unpacked its files are listed by a hash of their content. The list lies beside the
//! tree (`files`): its largest files first, as a sketch of the layer, then all, sorted by hash, then their paths,
//! as a gzip stream. A new layer is compared with the sketches of those that are there, and shares files with the few that
//! have most in common with it. There is no index of the whole store, which would have to be kept
//! right; what a hash says is checked by comparing bytes. See `docs/adr/0011-content-of-layers.md`.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::layers::{SINGLE, StagedLayer, layer_at, tree_in};
use crate::sys::path::Root;
use crate::sys::share::Sharer;

const MAGIC: &[u8; 8] = b"umiakfl2";
/// Magic, number of files in the sketch, number of files.
const HEAD: usize = 16;
/// Bytes of a hash that are kept: what is taken for equal is compared anyway.
const HASH: usize = 10;
/// Hash and size.
const SKETCHED: usize = HASH + 8;
/// Hash, and where the path is.
const LISTED: usize = HASH + 4;
/// Files in a sketch.
const SKETCH: usize = 64;
/// How many of a new layer's largest files are looked for in each other layer.
const PROBES: usize = 16;
/// With how many layers one shares, and how many are thought of.
const PARTNERS: usize = 8;
const CANDIDATES: usize = 32;
/// Layers with less content do not look for others.
const WORTHWHILE: u64 = 64 << 10;
/// Bytes of memory for the list of one layer. Files beyond are not shared.
const MAX_LIST: usize = 8 << 20;
/// Files of one content that are looked at.
const MAX_EQUAL: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Listed {
    hash: u128,
    size: u64,
    path: u32,
}

/// The regular files of a layer that is being unpacked.
#[derive(Debug, Default)]
pub struct FileList {
    files: Vec<Listed>,
    paths: Vec<u8>,
    linked: HashSet<PathBuf>,
}

impl FileList {
    /// Takes in a file: the hash of its content, its size in bytes, its path in the tree.
    pub fn add(&mut self, hash: u128, size: u64, path: &Path) {
        let name = path.as_os_str().as_bytes();
        let hash = number_of(&hash_of(hash));
        let taken = self.paths.len() + self.files.len() * size_of::<Listed>();
        let (Ok(length), true) = (u16::try_from(name.len()), size > 0 && taken < MAX_LIST) else { return };
        self.files.push(Listed { hash, size, path: self.paths.len() as u32 });
        self.paths.extend_from_slice(&length.to_le_bytes());
        self.paths.extend_from_slice(name);
    }

    /// Says that a file has several names in this layer: it is never shared, for it would become
    /// one with them wherever it is.
    pub fn linked(&mut self, path: &Path) {
        if self.linked.len() * 100 < MAX_LIST {
            self.linked.insert(path.to_owned());
        } else {
            self.files.clear();
            self.paths.clear();
        }
    }

    fn path(&self, listed: &Listed) -> &Path {
        path_at(&self.paths, listed.path).unwrap_or(Path::new(""))
    }

    /// Sorted by hash, without those that have several names.
    fn finish(&mut self) {
        let mut files = std::mem::take(&mut self.files);
        if !self.linked.is_empty() {
            files.retain(|listed| !self.linked.contains(self.path(listed)));
        }
        files.sort_unstable_by_key(|listed| listed.hash);
        self.files = files;
    }

    fn largest(&self, count: usize) -> Vec<Listed> {
        let mut files = self.files.clone();
        if files.len() > count {
            files.select_nth_unstable_by_key(count, |listed| std::cmp::Reverse(listed.size));
            files.truncate(count);
        }
        files
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let mut file = BufWriter::new(file);
        let sketch = self.largest(SKETCH);
        file.write_all(MAGIC)?;
        file.write_all(&(sketch.len() as u32).to_le_bytes())?;
        file.write_all(&(self.files.len() as u32).to_le_bytes())?;
        for listed in &sketch {
            file.write_all(&hash_of(listed.hash))?;
            file.write_all(&listed.size.to_le_bytes())?;
        }
        for listed in &self.files {
            file.write_all(&hash_of(listed.hash))?;
            file.write_all(&listed.path.to_le_bytes())?;
        }
        // As they came, one directory after the other: in this order they take a fifth.
        let mut paths = GzEncoder::new(file, Compression::fast());
        paths.write_all(&self.paths)?;
        let file = paths.finish()?;
        file.into_inner().map_err(|error| error.into_error())?;
        Ok(())
    }
}

/// The list of a layer that is there.
struct Other {
    file: File,
    sketch: Vec<(u128, u64)>,
    count: usize,
    dir: PathBuf,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    number.copy_from_slice(&bytes[at..at + N]);
    number
}

/// The first bytes of a hash, as they lie in the file.
fn hash_of(hash: u128) -> [u8; HASH] {
    number(&hash.to_be_bytes(), 0)
}

/// A hash of which only the first bytes are known.
fn number_of(bytes: &[u8; HASH]) -> u128 {
    let mut hash = [0; 16];
    hash[..HASH].copy_from_slice(bytes);
    u128::from_be_bytes(hash)
}

fn path_at(paths: &[u8], at: u32) -> Option<&Path> {
    let at = at as usize;
    let length = usize::from(u16::from_le_bytes(*paths.get(at..)?.first_chunk()?));
    Some(Path::new(OsStr::from_bytes(paths.get(at + 2..at + 2 + length)?)))
}

impl Other {
    fn open(dir: PathBuf) -> io::Result<Option<Self>> {
        let file = match File::open(dir.join("files")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut head = [0; HEAD + SKETCH * SKETCHED];
        let mut filled = 0;
        while filled < head.len() {
            match file.read_at(&mut head[filled..], filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        let sketched = u32::from_le_bytes(number(&head, 8)) as usize;
        if filled < HEAD || &head[..8] != MAGIC || sketched > SKETCH || HEAD + sketched * SKETCHED > filled {
            return Ok(None);
        }
        let sketch = (0..sketched)
            .map(|n| HEAD + n * SKETCHED)
            .map(|at| (number_of(&number(&head, at)), u64::from_le_bytes(number(&head, at + HASH))))
            .collect();
        Ok(Some(Self { file, sketch, count: u32::from_le_bytes(number(&head, 12)) as usize, dir }))
    }

    fn list_at(&self) -> u64 {
        (HEAD + self.sketch.len() * SKETCHED) as u64
    }

    /// Whether it has a file of this content. Hashes are spread evenly, so where one stands in the
    /// sorted list is known to within a few times the root of the list's length.
    fn has(&self, hash: u128) -> io::Result<bool> {
        let expected = (((hash >> 64) * self.count as u128) >> 64) as usize;
        let around = 4 * self.count.isqrt() + 8;
        let (from, to) = (expected.saturating_sub(around), (expected + around).min(self.count));
        let mut window = vec![0; to.saturating_sub(from) * LISTED];
        self.file.read_exact_at(&mut window, self.list_at() + (from * LISTED) as u64)?;
        let (listed, _) = window.as_chunks::<LISTED>();
        Ok(listed.binary_search_by_key(&hash, |listed| number_of(&number(listed, 0))).is_ok())
    }

    /// A guess at how much it has in common with `files`, whose largest are known: of its own largest
    /// files those that are in the list, and of the list's largest those that it has.
    fn common_bytes(&self, files: &FileList, largest: &[Listed]) -> u64 {
        let known = |hash: u128| files.files.binary_search_by_key(&hash, |listed| listed.hash).is_ok();
        let mut common: u64 = self.sketch.iter().filter(|(hash, _)| known(*hash)).map(|(_, size)| size).sum();
        for listed in largest {
            let sketched = self.sketch.iter().any(|(hash, _)| *hash == listed.hash);
            if !sketched && self.has(listed.hash).unwrap_or(false) {
                common += listed.size;
            }
        }
        common
    }

    /// All that it has of the contents in `wanted`, which is sorted: hash and path, sorted by hash.
    fn common(&self, wanted: &[Listed]) -> io::Result<Vec<(u128, PathBuf)>> {
        use std::io::Seek;
        let mut file = &self.file;
        file.seek(io::SeekFrom::Start(self.list_at()))?;
        let mut list = BufReader::with_capacity(64 << 10, file);
        let mut common: Vec<(u128, u32)> = Vec::new();
        let mut at = 0;
        let mut record = [0; LISTED];
        for _ in 0..self.count {
            list.read_exact(&mut record)?;
            let hash = number_of(&number(&record, 0));
            while wanted.get(at).is_some_and(|listed| listed.hash < hash) {
                at += 1;
            }
            if wanted.get(at).is_some_and(|listed| listed.hash == hash) {
                common.push((hash, u32::from_le_bytes(number(&record, HASH))));
            }
        }
        if common.is_empty() {
            return Ok(Vec::new());
        }
        let mut paths = Vec::new();
        // No list is written that has more.
        GzDecoder::new(list).take(MAX_LIST as u64 * 2).read_to_end(&mut paths)?;
        Ok(common.iter().filter_map(|(hash, at)| Some((*hash, path_at(&paths, *at)?.to_owned()))).collect())
    }
}

/// Files that a hard link must not join although nothing can write to them: some programs refuse
/// configuration and tables with several names (cron, for one).
fn may_link(path: &Path) -> bool {
    !path.starts_with("etc") && !path.starts_with("var/spool")
}

impl StagedLayer {
    /// Writes the list of the layer's files and lets those share their content that other layers
    /// have as well. Gives the bytes that are shared. Sharing is a matter of space only: what
    /// fails there is passed over; an error is one of writing the list.
    pub fn share(&self, mut files: FileList) -> io::Result<u64> {
        files.finish();
        if files.files.is_empty() {
            return Ok(0);
        }
        files.write(&self.files())?;
        if files.files.iter().map(|listed| listed.size).sum::<u64>() < WORTHWHILE {
            return Ok(0);
        }
        let Ok(mut sharer) = Sharer::new(&self.diff(), self.scratch()) else { return Ok(0) };
        let mut shared = 0;
        let mut candidates = self.candidates(&files);
        for _ in 0..PARTNERS {
            // Anew each time: what is shared already counts no more.
            let largest = files.largest(PROBES);
            let common = candidates.iter().map(|other| other.common_bytes(&files, &largest));
            let best = common.enumerate().max_by_key(|(_, common)| *common);
            let Some((place, 1..)) = best else { break };
            let other = candidates.swap_remove(place);
            shared += share_with(&mut files, &other, &mut sharer).unwrap_or(0);
        }
        Ok(shared)
    }

    /// The layers that have something in common with this one, if there are many those with most.
    fn candidates(&self, files: &FileList) -> Vec<Other> {
        let largest = files.largest(PROBES);
        let mut found: Vec<(u64, Other)> = Vec::new();
        let Ok(layers) = fs::read_dir(self.store().path("layers")) else { return Vec::new() };
        for entry in layers.flatten() {
            let single = entry.file_name().as_bytes().ends_with(SINGLE.as_bytes());
            if single != self.is_single() {
                continue;
            }
            let Ok(Some(other)) = Other::open(entry.path()) else { continue };
            let common = other.common_bytes(files, &largest);
            if common > 0 {
                found.push((common, other));
                found.sort_unstable_by_key(|(common, _)| std::cmp::Reverse(*common));
                found.truncate(CANDIDATES);
            }
        }
        let usable = |other: &Other| matches!(layer_at(&other.dir), Ok(Some(_)));
        found.into_iter().map(|(_, other)| other).filter(usable).collect()
    }
}

/// Takes out of `files` what shares its content now.
fn share_with(files: &mut FileList, other: &Other, sharer: &mut Sharer) -> io::Result<u64> {
    let common = other.common(&files.files)?;
    let tree = Root::open(&tree_in(&other.dir))?;
    let mut shared = 0;
    let mut left = Vec::with_capacity(files.files.len());
    let mut at = 0;
    for listed in &files.files {
        while common.get(at).is_some_and(|(hash, _)| *hash < listed.hash) {
            at += 1;
        }
        let equal = common[at..].iter().take_while(|(hash, _)| *hash == listed.hash).take(MAX_EQUAL);
        let path = files.path(listed);
        let mut done = false;
        let mut first = None;
        for (_, theirs) in equal {
            // Only under the same path: wherever one of two is seen, the other is not, so no two files
            // that were different become one.
            if theirs == path && may_link(path) {
                done = sharer.share(&tree, theirs, path, true).unwrap_or(false);
                first = None;
                break;
            }
            first = first.or(Some(theirs));
        }
        if let Some(theirs) = first.filter(|_| !sharer.only_links()) {
            done = sharer.share(&tree, theirs, path, false).unwrap_or(false);
        }
        match done {
            true => shared += listed.size,
            false => left.push(*listed),
        }
    }
    files.files = left;
    Ok(shared)
}
