//! Directories: OCI layouts, and skopeo's own kind. Each file gets its name when it is whole; what makes
//! the image visible comes last.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Destination, Error, Image, LAYOUT, REF_NAME, copy, empty_index, index_entry, list_entry};
use crate::base::digest::Digest;
use crate::image::content::Verified;
use crate::image::registry::Content;
use crate::image::rewrite::Form;
use crate::sys::atomic::Pending;
use crate::sys::lock::Lock;

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Write { path, source }
}

/// Writes a small file at once.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = dir.join(name);
    let mut pending = Pending::create(dir, 0o644).map_err(write_error(&path))?;
    io::Write::write_all(&mut pending.file, bytes).map_err(write_error(&path))?;
    pending.publish(name.as_ref()).map_err(write_error(&path))
}

fn put(dir: &Path, name: &str, content: &Content<'_>, progress: &dyn Fn(u64)) -> Result<(), Error> {
    let path = dir.join(name);
    let mut pending = Pending::create(dir, 0o644).map_err(write_error(&path))?;
    copy(content, &mut pending.file, progress).map_err(|error| error.at(content.digest, &path))?;
    pending.publish(name.as_ref()).map_err(write_error(&path))
}

/// Whether a file holds a blob: nothing tells whether whoever wrote it came to the end.
fn holds(path: &Path, digest: &Digest, size: u64) -> bool {
    let Ok(file) = File::open(path) else { return false };
    if !file.metadata().is_ok_and(|stat| stat.is_file() && stat.len() == size) {
        return false;
    }
    io::copy(&mut Verified::new(file, *digest, size), &mut io::sink()).is_ok()
}

/// Makes a directory, or takes one that is empty or has the file `mark`.
fn take(path: &Path, mark: &str, what: &'static str) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(write_error(path))?;
    let mut entries = fs::read_dir(path).map_err(write_error(path))?;
    if path.join(mark).exists() || entries.next().is_none() {
        return Ok(());
    }
    Err(Error::Foreign { path: path.to_owned(), what })
}

/// A directory in OCI's image layout; images that it has stay.
pub struct Layout {
    path: PathBuf,
    tag: Option<String>,
}

impl Layout {
    /// Makes it where it is missing.
    pub fn new(path: &Path, tag: Option<String>) -> Result<Self, Error> {
        take(path, "oci-layout", "OCI layout")?;
        let blobs = path.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(write_error(&blobs))?;
        if !path.join("oci-layout").exists() {
            write(path, "oci-layout", LAYOUT.as_bytes())?;
        }
        Ok(Self { path: path.to_owned(), tag })
    }

    fn blobs(&self) -> PathBuf {
        self.path.join("blobs/sha256")
    }

    fn put_document(&self, bytes: &[u8]) -> Result<(), Error> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest, bytes.len() as u64)? {
            return Ok(());
        }
        write(&self.blobs(), &digest.hex(), bytes)
    }

    fn enter(&self, entry: Value) -> Result<(), Error> {
        // Somebody else may be adding an image this moment.
        let _lock = Lock::exclusive_existing(&self.path).map_err(write_error(&self.path))?;
        let path = self.path.join("index.json");
        let mut index: Value = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => empty_index(),
            Err(error) => return Err(write_error(&path)(error)),
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| Error::Index { path: path.clone(), source })?,
        };
        add(&mut index, entry, self.tag.as_deref());
        write(&self.path, "index.json", index.to_string().as_bytes())
    }
}

impl Destination for Layout {
    fn form(&self) -> Option<Form> {
        Some(Form::Oci)
    }

    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        Ok(holds(&self.blobs().join(digest.hex()), digest, size))
    }

    fn put_blob(
        &self,
        content: &Content<'_>,
        _: Option<String>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        put(&self.blobs(), &content.digest.hex(), content, progress)
    }

    fn put_image(&self, image: &Image<'_>) -> Result<(), Error> {
        self.put_document(image.manifest)?;
        self.enter(index_entry(image, self.tag.as_deref()))
    }

    fn put_member(&self, _: &str, manifest: &[u8]) -> Result<(), Error> {
        self.put_document(manifest)
    }

    fn put_list(&self, media_type: &str, bytes: &[u8]) -> Result<(), Error> {
        self.put_document(bytes)?;
        self.enter(list_entry(media_type, bytes, self.tag.as_deref()))
    }
}

/// Adds an image to an index. The name goes over to it; what had it before stays without one.
fn add(index: &mut Value, entry: Value, tag: Option<&str>) {
    if !index.get("manifests").is_some_and(Value::is_array) {
        let fresh = empty_index();
        match index.as_object_mut() {
            Some(index) => drop(index.insert("manifests".into(), fresh["manifests"].clone())),
            None => *index = fresh,
        }
    }
    let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) else { return };
    let name = |one: &Value| one["annotations"][REF_NAME].as_str().map(str::to_owned);
    for one in manifests.iter_mut().filter(|one| tag.is_some() && name(one).as_deref() == tag) {
        if let Some(annotations) = one.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove(REF_NAME);
        }
    }
    // The same image again under no other name is the same entry.
    let same = |one: &Value| {
        one["digest"] == entry["digest"] && (name(one).is_none() || name(one).as_deref() == tag)
    };
    manifests.retain(|one| !same(one));
    manifests.push(entry);
}

/// A directory as `skopeo copy … dir:` writes it: one image.
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Makes it where it is missing. An image that it has is replaced in the end.
    pub fn new(path: &Path) -> Result<Self, Error> {
        take(path, "version", "image as skopeo writes it")?;
        if !path.join("version").exists() {
            write(path, "version", b"Directory Transport Version: 1.1\n")?;
        }
        Ok(Self { path: path.to_owned() })
    }
}

impl Destination for Directory {
    fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        Ok(holds(&self.path.join(digest.hex()), digest, size))
    }

    fn put_blob(
        &self,
        content: &Content<'_>,
        _: Option<String>,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        put(&self.path, &content.digest.hex(), content, progress)
    }

    fn put_image(&self, image: &Image<'_>) -> Result<(), Error> {
        write(&self.path, "manifest.json", image.manifest)?;
        // What an image before this one has left is of no use any more.
        let mut wanted: Vec<String> = image.layers.iter().map(Digest::hex).collect();
        wanted.push(Digest::of(image.config).hex());
        for entry in fs::read_dir(&self.path).map_err(write_error(&self.path))?.flatten() {
            let name = entry.file_name();
            let blob = |name: &str| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
            let old = name.to_str().is_some_and(|name| {
                name.starts_with("signature-") || blob(name) && !wanted.iter().any(|one| one == name)
            });
            if old {
                fs::remove_file(entry.path()).map_err(write_error(&entry.path()))?;
            }
        }
        Ok(())
    }

    fn put_member(&self, _: &str, manifest: &[u8]) -> Result<(), Error> {
        write(&self.path, &format!("{}.manifest.json", Digest::of(manifest).hex()), manifest)
    }

    fn put_list(&self, _: &str, bytes: &[u8]) -> Result<(), Error> {
        write(&self.path, "manifest.json", bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_move_and_images_stay() {
        let entry = |digest: &str, tag: Option<&str>| {
            let mut entry = json!({ "digest": digest });
            if let Some(tag) = tag {
                entry["annotations"] = json!({ REF_NAME: tag });
            }
            entry
        };
        let mut index = empty_index();
        for (digest, tag) in
            [("a", Some("1")), ("b", Some("1")), ("b", Some("2")), ("b", Some("1")), ("c", None)]
        {
            add(&mut index, entry(digest, tag), tag);
        }
        let found: Vec<(String, String)> = index["manifests"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
                (text(&one["digest"]), text(&one["annotations"][REF_NAME]))
            })
            .collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(found, [pair("a", "-"), pair("b", "2"), pair("b", "1"), pair("c", "-")]);
        let mut damaged = json!([]);
        add(&mut damaged, entry("a", None), None);
        assert_eq!(damaged["manifests"].as_array().unwrap().len(), 1);
    }
}
