//! Whose copies are.

use std::path::Path;

use super::Error;
use super::view::{Child, Lost, Place, View};
use crate::security::passwd::{self, LookupError};
use crate::sys::merged::Tree;
use crate::sys::visit::{self, Content};

/// Most bytes of a passwd or group file.
const MAX: u64 = 16 << 20;

/// Who `user[:group]` is in the image of these trees (the topmost first), as `--chown` has it: a user who is named
/// without a group has his own, one who is numbered the group of the same number.
pub fn user_of(below: &[Tree], text: &str) -> Result<(u32, u32), Error> {
    let (user, group) = text.split_once(':').map_or((text, ""), |(user, group)| (user, group));
    let unknown = |source| Error::Owner { text: text.to_owned(), source };
    // Only if it is needed: most say numbers.
    let file = |path: &str| match View::of_trees(below) {
        Ok(view) => read(&view, path),
        Err(source) => Err(Error::Image { path: "/".into(), source }),
    };
    let number = |text: &str| text.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    let (uid, own) = match number(user) {
        Some(uid) => (uid, uid),
        None if user.is_empty() => (0, 0),
        None => {
            let passwd = file("/etc/passwd")?;
            let found = passwd::users(&passwd).find(|known| known.name == user.as_bytes());
            let found = found.ok_or_else(|| unknown(LookupError::User(user.to_owned())))?;
            (found.uid, found.gid)
        }
    };
    let gid = match number(group) {
        Some(gid) => gid,
        None if group.is_empty() => own,
        None => passwd::group_id(group, &file("/etc/group")?).map_err(unknown)?,
    };
    Ok((uid, gid))
}

/// Reads a file of the image; nothing if it is not there.
fn read(view: &View, path: &str) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Image { path: path.into(), source };
    let spot = match view.resolve(Path::new(path), true) {
        Ok(Place { child: Child::Other, found: Some(spot), .. }) => spot,
        Ok(_) | Err(Lost::NoDirectory(_)) => return Ok(Vec::new()),
        Err(Lost::Loop) => return Err(Error::Loop(path.to_owned())),
        Err(Lost::Failed(_, source)) => return Err(failed(source)),
    };
    let looked = visit::look(&spot.level, &spot.name, &spot.entry).map_err(failed)?;
    let Some(Content::File(file)) = looked.map(|looked| looked.content) else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX), &mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn people_are_those_of_the_image() {
        let scratch = Scratch::new(&["0/etc/group->/usr/share/group", "1/etc/x", "1/usr/share/x"]);
        scratch.write("1/etc/passwd", "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/:/x\n1000:x:5:5::/:/x\n");
        scratch.write("1/usr/share/group", "www:x:33:\nadm:x:4:\n");
        let trees = scratch.trees(&["0", "1"]);
        for (text, expected) in [
            ("0", (0, 0)),
            ("55", (55, 55)),
            ("55:1", (55, 1)),
            ("www", (33, 34)),
            ("www:adm", (33, 4)),
            ("www:7", (33, 7)),
            ("1000", (1000, 1000)),
            (":adm", (0, 4)),
            ("7:", (7, 7)),
        ] {
            assert_eq!(user_of(&trees, text).unwrap(), expected, "{text}");
        }
        for text in ["nobody", "0:nogroup", "4294967295", "-1"] {
            let error = user_of(&trees, text).unwrap_err();
            assert!(matches!(error, Error::Owner { .. }), "{text}: {error}");
        }
        assert!(user_of(&[], "www").is_err());
        assert_eq!(user_of(&[], "3").unwrap(), (3, 3));
    }
}
