//! What is left of a layer's archive when the files are taken out: with the unpacked tree it gives
//! the archive back, byte for byte.
//!
//! The file is a gzip stream (for its sum: a recipe that was cut or changed is seen as such) of
//! steps. Numbers are LEB128.
//!
//! | step | fields | gives |
//! |---|---|---|
//! | 0 | total | the end; the archive had so many bytes |
//! | 1 | count, bytes | these bytes |
//! | 2 | count | so many zero bytes |
//! | 3 | path, size, hash | the content of a file of the tree |
//! | 4 | path, size, hash, count, (offset, length)… | pieces of a sparse file of the tree |
//! | 5 | path, number | nothing: what had this path until here is in `aside/` under the number (hexadecimal) |
//!
//! A path is its length and its bytes, without links on the way; the hash is XXH3 with 128 bits of
//! the bytes that the step gives.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use rustix::fs::OFlags;
use xxhash_rust::xxh3::Xxh3;

use super::archive::Skip;
use crate::sys::path::Root;

const MAGIC: &[u8] = b"umiak recipe 1\n";
const END: u8 = 0;
const BYTES: u8 = 1;
const ZEROS: u8 = 2;
const FILE: u8 = 3;
const SPARSE: u8 = 4;
const MOVED: u8 = 5;

/// Shorter runs of zeros are written out: a step of their own takes as much.
const ZERO_RUN: usize = 8;
/// Bytes are gathered up to so many before they become a step.
const GATHER: usize = 32 << 10;
/// No path, no list of pieces is longer, whatever a damaged recipe claims.
const MAX_PATH: u64 = 2 << 20;
const MAX_PIECES: u64 = 1 << 16;

/// A recipe that cannot be read, or that the tree no longer fits.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The recipe or the tree cannot be opened.
    #[error("opening \"{}\"", path.display())]
    Open {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The recipe is damaged.
    #[error("the recipe \"{}\" is damaged", path.display())]
    Damaged {
        /// The recipe.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the tree cannot be read.
    #[error("reading the layer's file \"{}\"", path.display())]
    File {
        /// Its path in the layer.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the tree is longer or shorter than it was.
    #[error("the layer's file \"{}\" has {found} bytes instead of {expected}", path.display())]
    Size {
        /// Its path in the layer.
        path: PathBuf,
        /// What it had.
        expected: u64,
        /// What it has.
        found: u64,
    },
    /// A file of the tree has another content than it had.
    #[error("the layer's file \"{}\" has another content than was unpacked", path.display())]
    Content {
        /// Its path in the layer.
        path: PathBuf,
    },
}

impl Error {
    /// The file of the tree that is at fault, if one is.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Open { .. } | Self::Damaged { .. } => None,
            Self::File { path, .. } | Self::Size { path, .. } | Self::Content { path } => Some(path),
        }
    }
}

/// Hashes what is unpacked into a file. Not against malice: what it is used for is checked by bytes
/// or by a digest.
pub type Hasher = Xxh3;

/// A hasher of nothing yet.
pub fn hasher() -> Hasher {
    Xxh3::new()
}

/// Writes a recipe while a layer is unpacked. Its failures come out in [`Writer::finish`] at the
/// latest; memory is bounded.
pub struct Writer {
    out: GzEncoder<BufWriter<File>>,
    gathered: Vec<u8>,
    zeros: u64,
    total: u64,
    failed: Option<io::Error>,
}

impl Writer {
    /// Starts the new file `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        let file = BufWriter::with_capacity(64 << 10, file);
        let mut out = GzEncoder::new(file, Compression::fast());
        out.write_all(MAGIC)?;
        Ok(Self { out, gathered: Vec::with_capacity(GATHER), zeros: 0, total: 0, failed: None })
    }

    /// Takes bytes of the archive that the tree does not hold.
    pub fn bytes(&mut self, mut bytes: &[u8]) {
        self.total += bytes.len() as u64;
        while let Some(first) = bytes.first() {
            let zero = *first == 0;
            let length = bytes.iter().position(|byte| (*byte == 0) != zero).unwrap_or(bytes.len());
            let (run, rest) = bytes.split_at(length);
            if zero {
                self.zeros += length as u64;
            } else {
                self.end_zeros();
                self.gathered.extend_from_slice(run);
                if self.gathered.len() >= GATHER {
                    self.end_bytes();
                }
            }
            bytes = rest;
        }
    }

    /// Says that the next bytes of the archive are what the file `path` of the tree holds, or if
    /// there are `pieces` (offset, length) of it, these.
    pub fn file(&mut self, path: &Path, size: u64, pieces: Option<&[(u64, u64)]>, hash: u128) {
        let name = path.as_os_str().as_bytes();
        let mut step = Vec::with_capacity(name.len() + 40);
        step.push(if pieces.is_some() { SPARSE } else { FILE });
        put_path(&mut step, name);
        put(&mut step, size);
        step.extend_from_slice(&hash.to_le_bytes());
        match pieces {
            None => self.total += size,
            Some(pieces) => {
                put(&mut step, pieces.len() as u64);
                for (offset, length) in pieces {
                    put(&mut step, *offset);
                    put(&mut step, *length);
                    self.total += length;
                }
            }
        }
        self.step(&step);
    }

    /// Says that what had the path so far was set aside under a number, because a later entry took its place.
    pub fn moved(&mut self, path: &Path, number: u64) {
        let mut step = vec![MOVED];
        put_path(&mut step, path.as_os_str().as_bytes());
        put(&mut step, number);
        self.step(&step);
    }

    /// Ends the recipe and hands everything to the kernel.
    pub fn finish(mut self) -> io::Result<()> {
        let mut step = vec![END];
        put(&mut step, self.total);
        self.step(&step);
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.out.finish()?.into_inner().map_err(|error| error.into_error())?;
        Ok(())
    }

    fn end_zeros(&mut self) {
        match std::mem::take(&mut self.zeros) {
            0 => {}
            few if few < ZERO_RUN as u64 => self.gathered.resize(self.gathered.len() + few as usize, 0),
            many => {
                self.end_bytes();
                let mut step = vec![ZEROS];
                put(&mut step, many);
                self.write(&step);
            }
        }
    }

    fn end_bytes(&mut self) {
        if !self.gathered.is_empty() {
            let mut head = vec![BYTES];
            put(&mut head, self.gathered.len() as u64);
            self.write(&head);
            let gathered = std::mem::take(&mut self.gathered);
            self.write(&gathered);
            self.gathered = gathered;
            self.gathered.clear();
        }
    }

    fn step(&mut self, step: &[u8]) {
        self.end_zeros();
        self.end_bytes();
        self.write(step);
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.failed = self.out.write_all(bytes).err();
        }
    }
}

fn put(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

fn put_path(into: &mut Vec<u8>, path: &[u8]) {
    put(into, path.len() as u64);
    into.extend_from_slice(path);
}

/// Lets a stream through and writes into a recipe what passes, but for the content of files.
pub struct Tap<R> {
    inner: R,
    recipe: Option<Writer>,
    /// What passes is the content of a file.
    pub content: bool,
}

impl<R: BufRead> Tap<R> {
    /// Without a recipe the stream is only let through.
    pub fn new(inner: R, recipe: Option<Writer>) -> Self {
        Self { inner, recipe, content: false }
    }

    /// The recipe.
    pub fn recipe(&mut self) -> Option<&mut Writer> {
        self.recipe.as_mut()
    }

    /// Ends the recipe.
    pub fn finish(self) -> io::Result<()> {
        self.recipe.map_or(Ok(()), Writer::finish)
    }
}

impl<R: BufRead> BufRead for Tap<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if !self.content
            && count > 0
            && let Some(recipe) = &mut self.recipe
        {
            // What was filled before is given again without a read.
            match self.inner.fill_buf() {
                Ok(buffer) => recipe.bytes(&buffer[..count.min(buffer.len())]),
                Err(error) => recipe.failed = recipe.failed.take().or(Some(error)),
            }
        }
        self.inner.consume(count);
    }
}

impl<R: BufRead> Read for Tap<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> Skip for Tap<R> {}

enum Step {
    End(u64),
    Bytes(u64),
    Zeros(u64),
    File { path: PathBuf, size: u64, hash: u128, pieces: Option<Vec<(u64, u64)>> },
    Moved { path: PathBuf, number: u64 },
}

struct Steps {
    stream: BufReader<GzDecoder<BufReader<File>>>,
    /// How many steps were read.
    count: u64,
}

impl Steps {
    fn open(path: &Path) -> io::Result<Self> {
        let mut stream =
            BufReader::with_capacity(64 << 10, GzDecoder::new(BufReader::new(File::open(path)?)));
        let mut magic = [0; MAGIC.len()];
        stream.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(invalid("it begins like none, or like one of a newer version"));
        }
        Ok(Self { stream, count: 0 })
    }

    fn next(&mut self) -> io::Result<Step> {
        self.count += 1;
        Ok(match self.byte()? {
            END => {
                let total = self.number()?;
                // Reading on to the end makes the decoder look at the sum.
                match self.stream.fill_buf()? {
                    [] => Step::End(total),
                    _ => return Err(invalid("something follows its end")),
                }
            }
            BYTES => Step::Bytes(self.number()?),
            ZEROS => Step::Zeros(self.number()?),
            kind @ (FILE | SPARSE) => {
                let path = self.path()?;
                let size = self.number()?;
                let mut hash = [0; 16];
                self.stream.read_exact(&mut hash)?;
                let pieces = if kind == SPARSE { Some(self.pieces()?) } else { None };
                Step::File { path, size, hash: u128::from_le_bytes(hash), pieces }
            }
            MOVED => Step::Moved { path: self.path()?, number: self.number()? },
            _ => return Err(invalid("it has an unknown step")),
        })
    }

    fn pieces(&mut self) -> io::Result<Vec<(u64, u64)>> {
        let count = self.number()?;
        if count > MAX_PIECES {
            return Err(invalid("it has too long a list of pieces"));
        }
        (0..count).map(|_| Ok((self.number()?, self.number()?))).collect()
    }

    fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(invalid("it has a number of too many digits"))
    }

    fn path(&mut self) -> io::Result<PathBuf> {
        let length = self.number()?;
        if length > MAX_PATH {
            return Err(invalid("it has too long a path"));
        }
        let mut bytes = vec![0; length as usize];
        self.stream.read_exact(&mut bytes)?;
        Ok(PathBuf::from(std::ffi::OsString::from(std::ffi::OsStr::from_bytes(&bytes))))
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Something that a later entry took the place of.
struct Moved {
    /// Number of the step that says so.
    at: u64,
    path: PathBuf,
    number: u64,
}

/// A layer's archive, made of its recipe and its tree. Errors of [`Read::read`] carry an [`Error`].
pub struct Reader {
    recipe: PathBuf,
    steps: Steps,
    tree: Root,
    aside: Option<Root>,
    moved: Vec<Moved>,
    state: State,
    given: u64,
}

enum State {
    Between,
    Bytes(u64),
    Zeros(u64),
    File(Box<Source>),
    End,
}

/// A file whose content is being given.
struct Source {
    file: File,
    path: PathBuf,
    hash: u128,
    hashed: Xxh3,
    /// What is still to be given: offset and length, the next one last.
    pieces: Vec<(u64, u64)>,
}

impl Reader {
    /// Opens a recipe, the tree that it was written for, and the directory of what was set aside,
    /// which exists only if anything was.
    pub fn open(recipe: &Path, tree: &Path, aside: &Path) -> Result<Self, Error> {
        let opening = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Open { path, source }
        };
        let open_steps = || {
            Steps::open(recipe).map_err(|source| match source.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput => {
                    Error::Damaged { path: recipe.to_owned(), source }
                }
                _ => Error::Open { path: recipe.to_owned(), source },
            })
        };
        let damaged = |source| Error::Damaged { path: recipe.to_owned(), source };
        let aside = match Root::open(aside) {
            Ok(root) => Some(root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(opening(aside)(error)),
        };
        let mut moved = Vec::new();
        if aside.is_some() {
            // Rare: what was set aside is told after the step that wants it, so it is looked for first.
            let mut steps = open_steps()?;
            loop {
                match steps.next().map_err(damaged)? {
                    Step::End(_) => break,
                    Step::Bytes(count) => {
                        io::copy(&mut (&mut steps.stream).take(count), &mut io::sink()).map_err(damaged)?;
                    }
                    Step::Moved { path, number } => moved.push(Moved { at: steps.count, path, number }),
                    Step::Zeros(_) | Step::File { .. } => {}
                }
            }
        }
        Ok(Self {
            steps: open_steps()?,
            tree: Root::open(tree).map_err(opening(tree))?,
            recipe: recipe.to_owned(),
            aside,
            moved,
            state: State::Between,
            given: 0,
        })
    }

    fn damaged(&self, source: io::Error) -> Error {
        Error::Damaged { path: self.recipe.clone(), source }
    }

    fn advance(&mut self) -> Result<(), Error> {
        let step = self.steps.next().map_err(|error| self.damaged(error))?;
        self.state = match step {
            Step::End(total) if total != self.given => {
                return Err(self.damaged(invalid("it gives more or less than the archive was")));
            }
            Step::End(_) => State::End,
            Step::Bytes(count) => State::Bytes(count),
            Step::Zeros(count) => State::Zeros(count),
            Step::Moved { .. } => State::Between,
            Step::File { path, size, hash, pieces } => self.open_file(path, size, hash, pieces)?,
        };
        Ok(())
    }

    fn open_file(
        &self,
        path: PathBuf,
        size: u64,
        hash: u128,
        pieces: Option<Vec<(u64, u64)>>,
    ) -> Result<State, Error> {
        let at = self.steps.count;
        let set_aside = self.moved.iter().find(|moved| moved.at > at && path.starts_with(&moved.path));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let opened = match (set_aside, &self.aside) {
            (Some(moved), Some(aside)) => {
                let mut place = PathBuf::from(format!("{:x}", moved.number));
                let below = path.strip_prefix(&moved.path).unwrap_or(Path::new(""));
                if !below.as_os_str().is_empty() {
                    place.push(below);
                }
                aside.open_strict(&place, flags, 0)
            }
            _ => self.tree.open_strict(&path, flags, 0),
        };
        let file = opened.map(File::from).map_err(|source| Error::File { path: path.clone(), source })?;
        let stat = file.metadata().map_err(|source| Error::File { path: path.clone(), source })?;
        if !stat.is_file() || stat.len() != size {
            return Err(Error::Size { path, expected: size, found: stat.len() });
        }
        let mut pieces = pieces.unwrap_or_else(|| vec![(0, size)]);
        pieces.reverse();
        Ok(State::File(Box::new(Source { file, path, hash, hashed: hasher(), pieces })))
    }

    fn give(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        loop {
            let count = match &mut self.state {
                State::End => return Ok(0),
                State::Between | State::Bytes(0) | State::Zeros(0) => 0,
                State::Zeros(left) => {
                    let count = into.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    into[..count].fill(0);
                    *left -= count as u64;
                    count
                }
                State::Bytes(left) => {
                    let count = into.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let read = self.steps.stream.read(&mut into[..count]);
                    let count = match read {
                        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                        other => other,
                    };
                    let count =
                        count.map_err(|source| Error::Damaged { path: self.recipe.clone(), source })?;
                    *left -= count as u64;
                    count
                }
                State::File(source) => source.give(into)?,
            };
            if count > 0 {
                self.given += count as u64;
                return Ok(count);
            }
            self.advance()?;
        }
    }
}

impl Source {
    fn give(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        use std::os::unix::fs::FileExt;
        while self.pieces.last().is_some_and(|(_, length)| *length == 0) {
            self.pieces.pop();
        }
        let Some((offset, left)) = self.pieces.last_mut() else {
            if self.hashed.digest128() != self.hash {
                return Err(Error::Content { path: self.path.clone() });
            }
            return Ok(0);
        };
        let count = into.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        let read = match self.file.read_at(&mut into[..count], *offset) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            other => other,
        };
        let count = read.map_err(|source| Error::File { path: self.path.clone(), source })?;
        self.hashed.update(&into[..count]);
        *offset += count as u64;
        *left -= count as u64;
        Ok(count)
    }
}

impl Read for Reader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        self.give(into).map_err(|error| {
            let kind = match &error {
                Error::Open { source, .. } | Error::Damaged { source, .. } | Error::File { source, .. } => {
                    source.kind()
                }
                Error::Size { .. } | Error::Content { .. } => io::ErrorKind::InvalidData,
            };
            io::Error::new(kind, error)
        })
    }
}
