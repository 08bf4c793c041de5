//! The files of a chunked layer that is here, by the digest of their contents: `contents` in the
//! layer's directory. Only read when another chunked layer is pulled. What it says is checked by the
//! digest whenever a file is used.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::storage::Store;

const MAGIC: &[u8; 8] = b"umiakzc1";
const NAME: &str = "contents";

/// A file of a layer that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// The layer's directory.
    pub dir: PathBuf,
    /// Where in its tree.
    pub name: PathBuf,
}

/// Writes a layer's list.
pub fn write<'a>(dir: &Path, files: impl Iterator<Item = (Digest, u64, &'a str)>) -> io::Result<()> {
    let mut out = BufWriter::new(fs::File::create(dir.join(NAME))?);
    out.write_all(MAGIC)?;
    for (digest, size, name) in files {
        let Ok(length) = u16::try_from(name.len()) else { continue };
        out.write_all(digest.as_bytes())?;
        out.write_all(&size.to_le_bytes())?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(name.as_bytes())?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(())
}

/// Looks for contents, each with its size, among the layers of a store.
pub fn find(store: &Store, wanted: &HashMap<Digest, u64>) -> HashMap<Digest, Here> {
    let mut found = HashMap::new();
    let Ok(layers) = fs::read_dir(store.path("layers")) else { return found };
    for dir in layers.flatten().map(|entry| entry.path()) {
        if found.len() == wanted.len() {
            break;
        }
        // A list that is damaged or cut off has served as far as it goes.
        let _ = search(&dir, wanted, &mut found);
    }
    found
}

fn search(dir: &Path, wanted: &HashMap<Digest, u64>, found: &mut HashMap<Digest, Here>) -> io::Result<()> {
    let mut list = BufReader::with_capacity(64 << 10, fs::File::open(dir.join(NAME))?);
    let mut magic = [0; 8];
    list.read_exact(&mut magic)?;
    if &magic != MAGIC {
        return Ok(());
    }
    loop {
        let (mut digest, mut size, mut length) = ([0; 32], [0; 8], [0; 2]);
        list.read_exact(&mut digest)?;
        list.read_exact(&mut size)?;
        list.read_exact(&mut length)?;
        let mut name = vec![0; usize::from(u16::from_le_bytes(length))];
        list.read_exact(&mut name)?;
        let digest = Digest::from_bytes(digest);
        if wanted.get(&digest) == Some(&u64::from_le_bytes(size))
            && !found.contains_key(&digest)
            && let Ok(name) = String::from_utf8(name)
        {
            let name = PathBuf::from(name.trim_start_matches("./").trim_start_matches('/'));
            found.insert(digest, Here { dir: dir.to_owned(), name });
        }
    }
}
