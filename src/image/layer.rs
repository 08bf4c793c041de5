//! One layer's way from its source into the store, on three threads: the caller's takes the blob
//! in, hashes and keeps it; one inflates; one hashes the archive and unpacks it.
//!
//! Sizes and digests are checked against the manifest and the configuration before the caller
//! may publish anything.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use flate2::{Decompress, FlushDecompress, Status};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest as _, Sha256};

use super::archive;
use super::manifest::{Compression, Descriptor};
pub use super::pipe::is_cut;
use super::pipe::{self, BUFFER, PipeReader, pipe};
use super::unpack::{self, Report};
use crate::base::digest::Digest;
use crate::storage::{self, LayerRecord, Ownership};

/// A layer that cannot be taken into the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source failed.
    #[error("reading the blob {digest}")]
    Read {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The blob cannot be written into the store.
    #[error("writing \"{}\"", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The blob is shorter or longer than the manifest says.
    #[error("the blob {digest} has {} bytes, the manifest says {expected}", found_text(*found, *expected))]
    Size {
        /// The blob.
        digest: Digest,
        /// What the manifest says.
        expected: u64,
        /// Bytes that came (at least).
        found: u64,
    },
    /// The blob is another.
    #[error("the blob {expected} has the digest {found}")]
    Digest {
        /// What the manifest says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The archive in it is another.
    #[error("the layer {blob} unpacks to the digest {found}, the configuration says {expected}")]
    DiffId {
        /// The blob.
        blob: Digest,
        /// What the configuration says.
        expected: Digest,
        /// What it unpacks to.
        found: Digest,
    },
    /// It cannot be inflated.
    #[error("decompressing the layer {digest}")]
    Inflate {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It inflates to too much.
    #[error("the layer {digest} unpacks to more than the {limit} bytes allowed")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// The limit.
        limit: u64,
    },
    /// It cannot be unpacked.
    #[error("unpacking the layer {digest}")]
    Unpack {
        /// The blob.
        digest: Digest,
        /// Why.
        #[source]
        source: unpack::Error,
    },
    /// No thread can be started.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
}

impl Error {
    /// Whether what was read is at fault, and not the place where it was to go.
    pub fn blames_source(&self) -> bool {
        match self {
            Self::Read { .. }
            | Self::Size { .. }
            | Self::Digest { .. }
            | Self::DiffId { .. }
            | Self::Inflate { .. }
            | Self::TooLarge { .. } => true,
            Self::Unpack { source, .. } => {
                matches!(source, unpack::Error::Archive(_) | unpack::Error::Name(_))
            }
            Self::Write { .. } | Self::Thread(_) => false,
        }
    }

    /// Whether the layer links to a file that is in a layer below, if anywhere.
    pub fn wants_lower(&self) -> bool {
        matches!(self, Self::Unpack { source: unpack::Error::NoTarget { .. }, .. })
    }
}

fn found_text(found: u64, expected: u64) -> String {
    if found > expected { "more".to_owned() } else { found.to_string() }
}

/// What is expected and allowed of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The blob, from the manifest.
    pub blob: &'a Descriptor,
    /// The digest of the archive, from the configuration.
    pub diff_id: Digest,
    /// Most bytes of the archive.
    pub limit: u64,
    /// How to unpack.
    pub unpack: unpack::Options<'a>,
}

/// What came of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Bytes of the uncompressed archive.
    pub size: u64,
    /// What was unpacked.
    pub report: Report,
}

impl Taken {
    /// The record of the layer that it was.
    pub fn record(
        &self,
        diff_id: Digest,
        blob: Digest,
        ownership: Ownership,
    ) -> storage::Result<LayerRecord> {
        let record = LayerRecord::new(diff_id, blob, ownership)?;
        Ok(LayerRecord {
            size: self.size,
            entries: self.report.entries,
            skipped_devices: self.report.skipped_devices,
            skipped_xattrs: self.report.skipped_xattrs,
            plain_whiteouts: self.report.plain_whiteouts,
            shared: self.report.shared,
            ..record
        })
    }
}

/// Takes a layer in: reads the blob from `source`, keeps it in the file `keep` if one is given and it
/// is compressed (else the recipe gives it back), and unpacks it into the directory `root`. `progress` is told how many bytes came.
pub fn take(
    source: &mut dyn Read,
    keep: Option<&Path>,
    root: &Path,
    expected: Expected<'_>,
    progress: &dyn Fn(u64),
) -> Result<Taken, Error> {
    let (to_inflate, inflate_from) = pipe();
    let (to_unpack, unpack_from) = pipe();
    let digest = expected.blob.digest;
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    thread::scope(|scope| {
        let inflating = named("inflate")
            .spawn_scoped(scope, move || inflate(inflate_from, to_unpack, expected.limit))
            .map_err(Error::Thread)?;
        let unpacking = named("unpack")
            .spawn_scoped(scope, move || {
                let mut hashed = Hashed { inner: unpack_from, hash: Sha256::new(), size: 0, seen: 0 };
                let report = unpack::unpack(Borrowed(&mut hashed), root, expected.unpack)?;
                Ok((report, hashed.size, Digest::from_bytes(hashed.hash.finalize().into())))
            })
            .map_err(Error::Thread)?;
        let fetched = fetch(source, keep, expected.blob, to_inflate, progress);
        let inflated = join(inflating);
        let unpacked: Result<_, unpack::Error> = join(unpacking);
        // Whoever failed first cut the others off: the cause is told, not its consequences.
        let blob_cut = |error: &unpack::Error| matches!(error, unpack::Error::Archive(archive::Error::Read(e)) if pipe::is_cut(e));
        match (fetched, inflated, unpacked) {
            (_, _, Err(source)) if !blob_cut(&source) => Err(Error::Unpack { digest, source }),
            (_, Err(Inflate::TooLarge), _) => Err(Error::TooLarge { digest, limit: expected.limit }),
            (Err(error), _, _) => Err(error),
            (_, Err(Inflate::Failed(source)), _) => Err(Error::Inflate { digest, source }),
            (_, Err(Inflate::Gone), Err(source)) | (_, Ok(()), Err(source)) => {
                Err(Error::Unpack { digest, source })
            }
            (Ok(()), _, Ok((_, _, found))) if found != expected.diff_id => {
                Err(Error::DiffId { blob: digest, expected: expected.diff_id, found })
            }
            (Ok(()), _, Ok((report, size, _))) => Ok(Taken { size, report }),
        }
    })
}

fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Reads the blob, checks it, keeps it and hands it on.
fn fetch(
    source: &mut dyn Read,
    keep: Option<&Path>,
    blob: &Descriptor,
    next: pipe::Writer,
    progress: &dyn Fn(u64),
) -> Result<(), Error> {
    let digest = blob.digest;
    let write_error = |source| Error::Write { path: keep.unwrap_or(Path::new("")).to_owned(), source };
    let mut file = None;
    let mut hash = Sha256::new();
    let mut size = 0;
    loop {
        let mut buffer = next.buffer();
        // One byte more than is left shows a blob that is too long.
        let limit = (blob.size - size + 1).min(BUFFER as u64);
        // At least what one read gives, and no more reads than fill the buffer.
        let count = read_some(source, &mut buffer, limit as usize)
            .map_err(|source| Error::Read { digest, source })?;
        if count == 0 {
            break;
        }
        if let (0, Some(keep)) = (size, keep)
            && Compression::detect(&buffer) != Compression::None
        {
            file = Some(File::create_new(keep).map_err(write_error)?);
        }
        size += count as u64;
        if size > blob.size {
            return Err(Error::Size { digest, expected: blob.size, found: size });
        }
        hash.update(&buffer);
        if let Some(file) = &mut file {
            file.write_all(&buffer).map_err(write_error)?;
        }
        progress(size);
        if next.send(buffer).is_err() {
            // It failed, and says why itself: no more need be fetched.
            return Ok(());
        }
    }
    if size != blob.size {
        return Err(Error::Size { digest, expected: blob.size, found: size });
    }
    let found = Digest::from_bytes(hash.finalize().into());
    if found != digest {
        return Err(Error::Digest { expected: digest, found });
    }
    // Only now: what was unpacked from a blob that is another must never look complete.
    let _ = next.end();
    Ok(())
}

pub(super) fn read_some(source: &mut dyn Read, buffer: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
    buffer.resize(limit, 0);
    let mut filled = 0;
    while filled < limit {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    buffer.truncate(filled);
    Ok(filled)
}

pub(super) enum Inflate {
    /// The stream is damaged.
    Failed(io::Error),
    /// More than the limit came out.
    TooLarge,
    /// The unpacking thread ended, or the fetching one: the cause is theirs.
    Gone,
}

impl From<io::Error> for Inflate {
    fn from(error: io::Error) -> Self {
        if pipe::is_cut(&error) { Self::Gone } else { Self::Failed(error) }
    }
}

/// Where inflated bytes go, with a count.
struct Output {
    next: pipe::Writer,
    size: u64,
    limit: u64,
}

impl Output {
    fn send(&mut self, buffer: Vec<u8>) -> Result<(), Inflate> {
        self.size += buffer.len() as u64;
        if self.size > self.limit {
            return Err(Inflate::TooLarge);
        }
        self.next.send(buffer).map_err(|pipe::Gone| Inflate::Gone)
    }
}

pub(super) fn inflate(mut source: PipeReader, next: pipe::Writer, limit: u64) -> Result<(), Inflate> {
    let mut output = Output { next, size: 0, limit };
    match Compression::detect(source.fill_buf()?) {
        Compression::None => plain(&mut source, &mut output)?,
        Compression::Gzip => gzip(&mut source, &mut output)?,
        Compression::Zstd => zstd(&mut source, &mut output)?,
    }
    output.next.end().map_err(|pipe::Gone| Inflate::Gone)
}

fn plain(source: &mut PipeReader, output: &mut Output) -> Result<(), Inflate> {
    loop {
        let piece = source.fill_buf()?;
        if piece.is_empty() {
            return Ok(());
        }
        let mut buffer = output.next.buffer();
        buffer.extend_from_slice(piece);
        let count = piece.len();
        source.consume(count);
        output.send(buffer)?;
    }
}

/// Inflates all members of a gzip stream; zlib checks their headers and sums itself.
fn gzip(source: &mut PipeReader, output: &mut Output) -> Result<(), Inflate> {
    const WINDOW: u8 = 15;
    let invalid = |what: &'static str| Inflate::Failed(io::Error::new(io::ErrorKind::InvalidData, what));
    let mut inflater = Decompress::new_gzip(WINDOW);
    let mut member_open = true;
    let mut buffer = output.next.buffer();
    loop {
        let input = source.fill_buf()?;
        if input.is_empty() {
            if member_open {
                return Err(invalid("the gzip stream is cut off"));
            }
            return if buffer.is_empty() { Ok(()) } else { output.send(buffer) };
        }
        if !member_open {
            // pigz and bgzip end a stream by zero bytes up to a block.
            if input.iter().all(|b| *b == 0) {
                let count = input.len();
                source.consume(count);
                continue;
            }
            inflater = Decompress::new_gzip(WINDOW);
        }
        let before = inflater.total_in();
        let status = inflater
            .decompress_vec(input, &mut buffer, FlushDecompress::None)
            .map_err(|_| invalid("the gzip stream is damaged"))?;
        let used = (inflater.total_in() - before) as usize;
        let stuck = used == 0 && buffer.len() < buffer.capacity() && status == Status::BufError;
        source.consume(used);
        if stuck {
            return Err(invalid("the gzip stream is damaged"));
        }
        member_open = status != Status::StreamEnd;
        if buffer.len() == buffer.capacity() {
            output.send(std::mem::take(&mut buffer))?;
            buffer = output.next.buffer();
        }
    }
}

/// Decompresses all frames of a Zstandard stream (RFC 8878). Frames' checksums are not looked at:
/// the digests say more.
fn zstd(source: &mut PipeReader, output: &mut Output) -> Result<(), Inflate> {
    let mut decoder = FrameDecoder::new();
    while !source.fill_buf()?.is_empty() {
        use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
        match decoder.reset(&mut *source) {
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let skipped = io::copy(&mut source.by_ref().take(length.into()), &mut io::sink())?;
                if skipped < u64::from(length) {
                    return Err(zstd_error(source));
                }
                continue;
            }
            other => other.map_err(|_| zstd_error(source))?,
        }
        loop {
            let strategy = BlockDecodingStrategy::UptoBytes(BUFFER);
            let finished = decoder.decode_blocks(&mut *source, strategy).map_err(|_| zstd_error(source))?;
            while decoder.can_collect() > 0 {
                let mut buffer = output.next.buffer();
                buffer.resize(decoder.can_collect().min(BUFFER), 0);
                let count = decoder.read(&mut buffer)?;
                buffer.truncate(count);
                output.send(buffer)?;
            }
            if finished {
                break;
            }
        }
    }
    Ok(())
}

/// The decoder wraps the pipe's error: a cut must still be seen as one. What it says itself is for
/// programmers.
fn zstd_error(source: &mut PipeReader) -> Inflate {
    let what = match source.fill_buf() {
        Err(cut) if pipe::is_cut(&cut) => return Inflate::Gone,
        Ok([]) => "the zstd stream is cut off",
        _ => "the zstd stream is damaged",
    };
    Inflate::Failed(io::Error::new(io::ErrorKind::InvalidData, what))
}

/// Decompresses a whole file of any supported compression, at most to `limit` bytes.
pub fn decompress(source: &mut (dyn Read + Send), into: &mut dyn Write, limit: u64) -> io::Result<()> {
    let (written, inflated) = inflated(source, limit, |stream| io::copy(stream, into));
    inflated.and(written.map(drop))
}

/// Gives a file of any supported compression, decompressed and at most `limit` bytes of it, to `work`, which need not
/// read it to its end. What was wrong with the file comes with the answer; to `work` it is a stream that breaks off.
pub fn inflated<T>(
    source: &mut (dyn Read + Send),
    limit: u64,
    work: impl FnOnce(&mut dyn BufRead) -> T,
) -> (T, io::Result<()>) {
    let (to_inflate, inflate_from) = pipe();
    let (to_work, mut work_from) = pipe();
    thread::scope(|scope| {
        let reading = scope.spawn(move || -> io::Result<()> {
            loop {
                let mut buffer = to_inflate.buffer();
                if read_some(source, &mut buffer, BUFFER)? == 0 {
                    let _ = to_inflate.end();
                    return Ok(());
                }
                if to_inflate.send(buffer).is_err() {
                    return Ok(());
                }
            }
        });
        let inflating = scope.spawn(move || inflate(inflate_from, to_work, limit));
        let done = work(&mut work_from);
        drop(work_from);
        let inflated = match join(inflating) {
            Err(Inflate::Failed(error)) => Err(error),
            Err(Inflate::TooLarge) => Err(io::ErrorKind::FileTooLarge.into()),
            _ => Ok(()),
        };
        (done, join(reading).and(inflated))
    })
}

/// A borrowed stream, to have it back after unpacking.
struct Borrowed<'a, R>(&'a mut R);

impl<R: Read> Read for Borrowed<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<R: BufRead> BufRead for Borrowed<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.0.consume(count);
    }
}

impl<R: BufRead> archive::Skip for Borrowed<'_, R> {}

/// Hashes what is read through it, buffer by buffer.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
    size: u64,
    /// Bytes of the inner buffer that were hashed already.
    seen: usize,
}

impl<R: BufRead> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let buffer = self.inner.fill_buf()?;
        if self.seen < buffer.len() {
            self.hash.update(&buffer[self.seen..]);
            self.size += (buffer.len() - self.seen) as u64;
            self.seen = buffer.len();
        }
        Ok(buffer)
    }

    fn consume(&mut self, count: usize) {
        self.seen -= count.min(self.seen);
        self.inner.consume(count);
    }
}

impl<R: BufRead> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}
