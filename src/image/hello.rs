//! The image `localhost/hello`: one layer with one file, this very program, so that there is
//! something to run on a machine without a network, a registry or subordinate ids.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::layer::{self, Expected};
use super::manifest::{Descriptor, Platform};
use super::unpack;
use crate::base::digest::{ChainId, Digest};
use crate::storage::{self, FORMAT, ImageRecord, LayerRef, LayerSlot, Ownership, Store};

/// The image's full name.
pub const NAME: &str = "localhost/hello:latest";

const PROGRAM: &str = "/proc/self/exe";

/// The image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This program's file cannot be read.
    #[error("reading this program from \"{}\"", .0.display())]
    Program(PathBuf, #[source] io::Error),
    /// The store.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// The layer.
    #[error(transparent)]
    Layer(#[from] layer::Error),
}

/// Finds the image if it was made from this very file. Costs one stat.
pub fn current(store: &Store) -> Result<Option<ImageRecord>, Error> {
    let wanted = stamp(&program()?)?;
    Ok(store
        .image_by_name(NAME)?
        .filter(|image| image.made_from.as_ref() == Some(&wanted))
        .filter(|image| image.layers.iter().all(|l| matches!(store.layer(&l.chain_id), Ok(Some(_))))))
}

/// Makes the image from the running program, or finds it made. Starts threads, so the caller
/// does it in a child; needs no user namespace: the one file is the caller's, which is root inside.
pub fn ensure(store: &Store) -> Result<ImageRecord, Error> {
    if let Some(image) = current(store)? {
        return Ok(image);
    }
    let file = program()?;
    let made_from = stamp(&file)?;
    let size = file.metadata().map_err(reading)?.len();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    let mut archive = archive(file.try_clone().map_err(reading)?, size);
    let mut total = 0u64;
    loop {
        match archive.read(&mut buffer).map_err(reading)? {
            0 => break,
            count => {
                hash.update(&buffer[..count]);
                total += count as u64;
            }
        }
    }
    let diff_id = Digest::from_bytes(hash.finalize().into());
    let chain_id = ChainId::chain(&[diff_id])[0];
    let _pins = store.pin(&[chain_id], &[diff_id])?;
    take(store, diff_id, chain_id, total, file.try_clone().map_err(reading)?, size)?;

    let platform = Platform::host();
    // The program's own time: the same for the same file, and nothing of the build is written into it.
    let modified = file.metadata().and_then(|stat| stat.modified()).map_err(reading)?;
    let created = jiff::Timestamp::try_from(modified).ok().map(|time| time.to_string());
    let config = json!({
        "created": created,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": {
            "Entrypoint": ["/hello"],
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "hello",
                "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created_by": "umiak, from itself" }],
    });
    let config_bytes = config.to_string().into_bytes();
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": Digest::of(&config_bytes), "size": config_bytes.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id, "size": total,
        }],
    });
    let _lock = store.lock_shared()?;
    let manifest_digest = store.write_blob(manifest.to_string().as_bytes())?;
    let id = store.write_blob(&config_bytes)?;
    let record = ImageRecord {
        version: FORMAT,
        id,
        names: vec![NAME.to_owned()],
        repo_digests: vec![format!("localhost/hello@{manifest_digest}")],
        manifest: manifest_digest,
        index: None,
        media_type: media_type.to_owned(),
        layers: vec![LayerRef { chain_id, diff_id, blob: Some(diff_id), blob_size: total, size: total }],
        size: total,
        created,
        architecture: platform.architecture,
        os: platform.os,
        variant: None,
        config,
        made_from: Some(made_from),
        list: None,
    };
    let former = store.image_by_name(NAME)?;
    store.put_image(&record)?;
    drop(_lock);
    // What an earlier build of this program was made into serves nobody; a container that still
    // uses its layer keeps that.
    if let Some(former) = former.filter(|former| former.id != id) {
        let former = store.image_by_id(&former.id)?;
        former
            .filter(|former| former.names.is_empty())
            .map_or(Ok(()), |former| store.remove_image(&former))?;
    }
    Ok(record)
}

fn take(
    store: &Store,
    diff_id: Digest,
    chain_id: ChainId,
    total: u64,
    file: File,
    size: u64,
) -> Result<(), Error> {
    let LayerSlot::Vacant(staged) = store.reserve_layer(chain_id)? else { return Ok(()) };
    let blob = Descriptor { media_type: String::new(), digest: diff_id, size: total };
    let ownership = if rustix::process::geteuid().is_root() { Ownership::Host } else { Ownership::Single };
    let unpack =
        unpack::Options { ownership, max_file: size, max_entries: 2, lower: &[], staged: Some(&staged) };
    let expected = Expected { blob: &blob, diff_id, limit: total, unpack };
    let mut archive = archive(file, size);
    let taken = layer::take(&mut archive, None, &staged.diff(), expected, &|_| {})?;
    // The one file is root's, who is the user whichever ids are mapped.
    let record = taken.record(diff_id, diff_id, store.ownership().unwrap_or(ownership))?;
    Ok(staged.publish(&record)?)
}

fn reading(source: io::Error) -> Error {
    Error::Program(PROGRAM.into(), source)
}

fn program() -> Result<File, Error> {
    File::open(PROGRAM).map_err(reading)
}

/// What changes when the program does.
fn stamp(file: &File) -> Result<String, Error> {
    let stat = file.metadata().map_err(reading)?;
    Ok(format!("{}:{}:{}:{}.{:09}", stat.dev(), stat.ino(), stat.size(), stat.mtime(), stat.mtime_nsec()))
}

/// The layer's archive as a stream; the same for the same program, so that its digest is.
fn archive(file: File, size: u64) -> impl Read + Send {
    use std::io::Seek;
    let header = |name: &str, kind, mode, size| {
        let mut header = tar::Header::new_gnu();
        // Cannot fail: the names are short and relative.
        let _ = header.set_path(Path::new(name));
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        io::Cursor::new(header.as_bytes().to_vec())
    };
    let padding = size.next_multiple_of(512) - size + 1024;
    let mut file = file;
    let rewound = file.rewind();
    let content = Rewound { file, failed: rewound.err() };
    header("hello", tar::EntryType::Regular, 0o755, size)
        .chain(content.take(size))
        .chain(io::repeat(0).take(padding))
}

/// A file read from its start, or the error of getting there.
struct Rewound {
    file: File,
    failed: Option<io::Error>,
}

impl Read for Rewound {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.file.read(into),
        }
    }
}
