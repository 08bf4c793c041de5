//! Names: one small file each, made exclusively, that holds the id of whose it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::containers::Error;
use crate::base::id::ContainerId;
use crate::sys::atomic::{self, Durability};
use crate::sys::lock::Lock;

/// The directory of names.
#[derive(Debug)]
pub struct Names {
    dir: PathBuf,
}

/// Says, while it lives, that the name's container is being made.
#[derive(Debug)]
pub struct Claim {
    _lock: Lock,
}

impl Names {
    /// The names kept in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Takes `name` for `id`. The inner `Err` tells whose it is already. A name whose container
    /// does not exist and is not being made (its maker holds the lock) was left by somebody who
    /// died, and is taken over.
    pub fn claim(
        &self,
        name: &str,
        id: &ContainerId,
        exists: impl Fn(&ContainerId) -> bool,
    ) -> Result<Result<Claim, ContainerId>, Error> {
        let path = self.dir.join(name);
        let error = |action, source| Error::Io { action, path: path.clone(), source };
        loop {
            match atomic::create_new(&path, id.as_str().as_bytes(), 0o600, Durability::Volatile) {
                Ok(()) => {
                    let lock = match Lock::exclusive_existing(&path) {
                        Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
                        other => other.map_err(|source| error("locking", source))?,
                    };
                    // Between its creation and the lock somebody may have taken it for a dead one's.
                    if self.get(name)?.as_ref() == Some(id) {
                        return Ok(Ok(Claim { _lock: lock }));
                    }
                }
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                    let Some(owner) = self.get(name)? else {
                        // Gone again, or a file that holds no id: nobody's.
                        let _ = fs::remove_file(&path);
                        continue;
                    };
                    if exists(&owner) {
                        return Ok(Err(owner));
                    }
                    let lock = match Lock::exclusive_existing(&path) {
                        Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
                        other => other.map_err(|source| error("locking", source))?,
                    };
                    if exists(&owner) {
                        return Ok(Err(owner));
                    }
                    if self.get(name)?.as_ref() == Some(&owner) {
                        let _ = fs::remove_file(&path);
                    }
                    drop(lock);
                }
                Err(source) => return Err(error("writing", source)),
            }
        }
    }

    /// Removes the names whose container does not exist and is not being made; `exists` is told
    /// name and container.
    pub fn sweep(&self, exists: impl Fn(&str, &ContainerId) -> bool) -> Result<(), Error> {
        for name in self.list()? {
            let path = self.dir.join(&name);
            let exists = |id: &ContainerId| exists(&name, id);
            if self.get(&name)?.as_ref().is_some_and(exists) {
                continue;
            }
            // Its maker holds the lock until the container is there; the second look is the valid one.
            if let Ok(Some(lock)) = Lock::try_exclusive_existing(&path)
                && lock.is_at(&path)
                && !self.get(&name)?.as_ref().is_some_and(exists)
            {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Whose the name is.
    pub fn get(&self, name: &str) -> Result<Option<ContainerId>, Error> {
        let path = self.dir.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.parse().ok()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io { action: "reading", path, source }),
        }
    }

    /// Frees the name if it is `id`'s, and says whether it was.
    pub fn release(&self, name: &str, id: &ContainerId) -> Result<bool, Error> {
        if self.get(name)?.as_ref() != Some(id) {
            return Ok(false);
        }
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Io { action: "removing", path, source })
            }
            _ => Ok(true),
        }
    }

    /// All names, in no order.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        let error = |source| Error::Io { action: "listing", path: self.dir.clone(), source };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(error)? {
            if let Ok(name) = entry.map_err(error)?.file_name().into_string()
                && !name.starts_with('.')
            {
                names.push(name);
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(byte: u8) -> ContainerId {
        ContainerId::from_random([byte; 32])
    }

    #[test]
    fn a_name_is_taken_once_and_a_dead_ones_is_taken_over() {
        let dir = std::env::temp_dir().join(format!("umiak-names-{:x}", atomic::random().unwrap()));
        fs::create_dir(&dir).unwrap();
        let names = Names::new(&dir);
        let claim = names.claim("web", &id(1), |_| true).unwrap().unwrap();
        drop(claim);
        assert_eq!(names.claim("web", &id(2), |_| true).unwrap().unwrap_err(), id(1));
        let _claim = names.claim("web", &id(2), |_| false).unwrap().unwrap();
        assert_eq!(names.get("web").unwrap(), Some(id(2)));
        names.release("web", &id(1)).unwrap();
        assert_eq!(names.list().unwrap(), ["web"]);
        names.release("web", &id(2)).unwrap();
        assert_eq!(names.get("web").unwrap(), None);
        fs::remove_dir_all(dir).unwrap();
    }
}
