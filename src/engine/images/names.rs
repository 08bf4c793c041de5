//! `tag` and `untag`: names of images that are here.

use super::Error;
use crate::engine::Engine;
use crate::image::Reference;
use crate::image::reference::ParseReferenceError;
use crate::storage::ImageRecord;
use crate::storage::events::Event;

/// The full name that a user means for an image here: a short one lies below `localhost/`, and one
/// without a tag is `:latest`.
fn full_name(text: &str) -> Result<String, Error> {
    let reference: Reference = text.parse()?;
    let reference = if reference.is_short() { reference.at("localhost") } else { reference };
    if reference.digest().is_some() {
        return Err(Error::NameWithDigest(text.to_owned()));
    }
    reference.tagged().ok_or_else(|| ParseReferenceError::Format(text.to_owned()).into())
}

impl Engine {
    fn known_image(&self, name: &str) -> Result<ImageRecord, Error> {
        self.store.image(name)?.ok_or_else(|| Error::NoSuchImage(name.to_owned()))
    }

    /// Gives an image further names; what had them before loses them. All names are read before the
    /// first is given.
    pub fn tag_image(&self, image: &str, names: &[String]) -> Result<(), crate::engine::Error> {
        let names = names.iter().map(|name| full_name(name)).collect::<Result<Vec<_>, _>>()?;
        // Shared, so that no collection takes the image away between the look and the name.
        let _lock = self.store.lock_shared().map_err(Error::from)?;
        let image = self.known_image(image)?;
        for name in names {
            self.store.tag(&name, &image.id).map_err(Error::from)?;
            self.note(Event::image("tag", image.id.hex(), &name));
        }
        Ok(())
    }

    /// Takes names from an image, all of them if none is given. The image stays, be it without a name.
    pub fn untag_image(&self, image: &str, names: &[String]) -> Result<(), crate::engine::Error> {
        let record = self.known_image(image)?;
        let mut wanted = names.iter().map(|name| full_name(name)).collect::<Result<Vec<_>, _>>()?;
        if let Some(unknown) = wanted.iter().find(|name| !record.names.contains(name)) {
            return Err(Error::NotItsName { image: image.to_owned(), name: unknown.clone() }.into());
        }
        if wanted.is_empty() {
            wanted.clone_from(&record.names);
        }
        for name in wanted {
            self.store.untag(&name).map_err(Error::from)?;
            self.note(Event::image("untag", record.id.hex(), &name));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_full() {
        assert_eq!(full_name("a").unwrap(), "localhost/a:latest");
        assert_eq!(full_name("a/b:1").unwrap(), "localhost/a/b:1");
        assert_eq!(full_name("docker.io/a").unwrap(), "docker.io/library/a:latest");
        let digest = crate::base::digest::Digest::of(b"");
        assert!(matches!(full_name(&format!("a@{digest}")), Err(Error::NameWithDigest(_))));
        assert!(full_name("A").is_err());
    }
}
