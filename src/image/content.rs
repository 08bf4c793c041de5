//! The content of layers, for everything that hands them out (`save`, `push`): the archive that was
//! unpacked, byte for byte, and the blob that it came in where that is kept.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};

use super::layer::{self, Inflate};
use super::manifest::Compression;
use super::pipe::{self, BUFFER, PipeReader, pipe};
use super::recipe;
use crate::base::digest::Digest;
use crate::storage::{self, LayerRef, Store};

/// Content that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// It cannot be made of the unpacked files.
    #[error(transparent)]
    Recipe(#[from] recipe::Error),
    /// Neither its blob nor anything that the archive could be made from is here.
    #[error("the content of layer {0} is not here any more")]
    Gone(Digest),
    /// A file of the store cannot be opened.
    #[error("opening \"{}\"", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No thread can be started.
    #[error("starting a thread")]
    Thread(#[source] io::Error),
}

/// The uncompressed archive of a layer, exactly as it was hashed to its diff id. The last bytes come
/// only after all were checked: a reader that got `layer.size` of them has the right ones.
pub fn open_tar(store: &Store, layer: &LayerRef) -> Result<Box<dyn Read + Send>, Error> {
    let unpacked_from = store.layer(&layer.chain_id)?.map(|record| record.blob);
    for digest in layer.blob.into_iter().chain(unpacked_from).chain([layer.diff_id]) {
        if let Some(file) = open_blob(store, &digest, None)? {
            let tar = inflated(file, layer.size)?;
            return Ok(Box::new(Verified::new(tar, layer.diff_id, layer.size)));
        }
    }
    let mut kinds = store.layer_kinds(&layer.chain_id).into_iter();
    let files = kinds.find(|files| files.recipe().exists()).ok_or(Error::Gone(layer.diff_id))?;
    let tar = recipe::Reader::open(&files.recipe(), &files.tree(), &files.aside())?;
    Ok(Box::new(Verified::new(tar, layer.diff_id, layer.size)))
}

/// A blob as it was pulled, if it is kept whole. Its content is not checked: see [`Verified`].
pub fn open_blob(store: &Store, digest: &Digest, size: Option<u64>) -> Result<Option<File>, Error> {
    let path = store.blob_path(digest);
    let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
    match opened {
        Ok((found, file)) => Ok(size.is_none_or(|size| size == found).then_some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Open { path, source }),
    }
}

/// Reads what must have a certain digest and size. The last byte is handed out only if both are right.
pub struct Verified<R> {
    inner: R,
    hash: Option<Sha256>,
    expected: Digest,
    left: u64,
}

impl<R: Read> Verified<R> {
    /// Of this digest and size.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        Self { inner, hash: Some(Sha256::new()), expected, left: size }
    }

    fn check(&mut self) -> io::Result<()> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let found = Digest::from_bytes(hash.finalize().into());
        if found == self.expected {
            return Ok(());
        }
        let text = format!("it has the digest {found}, not {}", self.expected);
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            self.check()?;
            return Ok(0);
        }
        let limit = (into.len() as u64).min(self.left) as usize;
        let count = self.inner.read(&mut into[..limit])?;
        if count == 0 && limit > 0 {
            let text = format!("{} bytes are missing at its end", self.left);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if let Some(hash) = &mut self.hash {
            hash.update(&into[..count]);
        }
        self.left -= count as u64;
        if self.left == 0 {
            // What is longer is another thing, too.
            if self.inner.read(&mut [0])? > 0 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than it was"));
            }
            self.check()?;
        }
        Ok(count)
    }
}

/// The uncompressed content of a file, inflated by threads of its own where it is compressed.
fn inflated(file: File, limit: u64) -> Result<Box<dyn Read + Send>, Error> {
    let mut start = [0; 4];
    let count = file.read_at(&mut start, 0).map_err(Error::Thread)?;
    if Compression::detect(&start[..count]) == Compression::None {
        return Ok(Box::new(file));
    }
    let failed: Arc<Mutex<Option<io::Error>>> = Arc::default();
    let (to_inflate, inflate_from) = pipe();
    let (out, tar) = pipe();
    let named = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let told = failed.clone();
    let reading = move || {
        if let Err(error) = feed(file, to_inflate) {
            tell(&told, error);
        }
    };
    named("read").spawn(reading).map_err(Error::Thread)?;
    let told = failed.clone();
    let inflating = move || match layer::inflate(inflate_from, out, limit) {
        Err(Inflate::Failed(error)) => tell(&told, error),
        Err(Inflate::TooLarge) => {
            tell(&told, io::Error::new(io::ErrorKind::InvalidData, "it is longer than it was"));
        }
        // Whoever reads is done, or the file could not be read.
        Err(Inflate::Gone) | Ok(()) => {}
    };
    named("inflate").spawn(inflating).map_err(Error::Thread)?;
    Ok(Box::new(Inflated { tar, failed }))
}

fn feed(mut file: File, next: pipe::Writer) -> io::Result<()> {
    loop {
        let mut buffer = next.buffer();
        if layer::read_some(&mut file, &mut buffer, BUFFER)? == 0 {
            let _ = next.end();
            return Ok(());
        }
        if next.send(buffer).is_err() {
            return Ok(());
        }
    }
}

fn tell(slot: &Mutex<Option<io::Error>>, error: io::Error) {
    slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(error);
}

/// What the threads make, and why they ended if it is not whole.
struct Inflated {
    tar: PipeReader,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Read for Inflated {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.tar.read(into) {
            Err(error) if pipe::is_cut(&error) => {
                let mut failed = self.failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                Err(failed.take().unwrap_or(error))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_comes_only_if_all_is_right() {
        let read = |bytes: &'static [u8], of: &[u8], size| {
            let mut into = Vec::new();
            let mut reader = Verified::new(bytes, Digest::of(of), size);
            // As an upload reads: no more than the size.
            reader.by_ref().take(size).read_to_end(&mut into).map(|_| into)
        };
        assert_eq!(read(b"abc", b"abc", 3).unwrap(), b"abc");
        assert_eq!(read(b"", b"", 0).unwrap(), b"");
        for (bytes, of, size) in
            [(&b"abd"[..], &b"abc"[..], 3), (b"ab", b"abc", 3), (b"abcd", b"abc", 3), (b"ab", b"ab", 3)]
        {
            assert!(read(bytes, of, size).is_err(), "{bytes:?}");
        }
        assert!(Verified::new(&b""[..], Digest::of(b"x"), 0).read(&mut [0]).is_err());
    }
}
