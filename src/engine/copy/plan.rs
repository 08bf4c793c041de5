//! Where a copy goes: Podman's and Docker's rules about what is there already, pure.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::sys::transfer::Problem;

/// A side of a copy, as it is written on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// `-`: an archive on standard input or output.
    Stream,
    /// A path of the host's.
    Host(PathBuf),
    /// `CONTAINER:PATH`
    Container(String, PathBuf),
}

impl Side {
    /// A colon makes a path a container's, but for one that begins with a slash or a dot.
    pub fn parse(text: &str) -> Self {
        if text == "-" {
            return Self::Stream;
        }
        match text.split_once(':') {
            Some((container, path)) if !text.starts_with(['/', '.']) => {
                Self::Container(container.to_owned(), path.into())
            }
            _ => Self::Host(text.into()),
        }
    }
}

/// What is copied, as far as its path says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Its last name; `None` if what is in it is copied rather than it (`DIR/.`, `/`).
    pub name: Option<OsString>,
}

impl Wanted {
    /// What a path means as a source.
    pub fn of(path: &Path) -> Self {
        use std::os::unix::ffi::OsStrExt;
        let bytes = path.as_os_str().as_bytes();
        let trimmed = bytes.iter().rposition(|b| *b != b'/').map_or(&bytes[..0], |last| &bytes[..=last]);
        let contents = trimmed == b"." || trimmed.ends_with(b"/.") || trimmed.ends_with(b"..");
        let name = path.file_name().filter(|_| !contents);
        Self { name: name.map(OsString::from) }
    }
}

/// What is at a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum There {
    /// Nothing.
    Nothing,
    /// A directory.
    Directory,
    /// Something else.
    File,
}

/// What the copy is called, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// In the directory that the destination is: under this name, or as the directory itself.
    Inside(Option<OsString>),
    /// It is the destination.
    Itself,
}

/// Where something goes, which is a directory or not.
pub fn target(wanted: &Wanted, directory: bool, path: &Path, there: There) -> Result<Target, Problem> {
    use std::os::unix::ffi::OsStrExt;
    let shown = || path.display().to_string();
    let bytes = path.as_os_str().as_bytes();
    let must_be_directory = bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b".";
    match (there, directory) {
        (There::Directory, _) => Ok(Target::Inside(wanted.name.clone())),
        (There::File, true) => Err(Problem::FileThere(shown())),
        (There::File, false) if must_be_directory => Err(Problem::FileThere(shown())),
        (There::Nothing, false) if must_be_directory => Err(Problem::Missing(shown())),
        _ => Ok(Target::Itself),
    }
}

/// A container's path, from its root: others are relative to its working directory.
pub fn absolute(path: &Path, workdir: &str) -> PathBuf {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    // Not `join`, which takes the slash at the end off.
    if path.is_absolute() {
        return path.to_owned();
    }
    let mut bytes = vec![b'/'];
    bytes.extend(workdir.as_bytes());
    bytes.push(b'/');
    bytes.extend(path.as_os_str().as_bytes());
    PathBuf::from(OsString::from_vec(bytes))
}

/// Whether `path` is at or below `above`, as far as that can be told from their names.
pub fn is_below(path: &Path, above: &Path) -> bool {
    let names = |path: &Path| {
        let mut names: Vec<OsString> = Vec::new();
        for part in path.components() {
            match part {
                Component::Normal(name) => names.push(name.to_owned()),
                Component::ParentDir => drop(names.pop()),
                _ => {}
            }
        }
        names
    };
    names(path).starts_with(&names(above))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let container = |name: &str, path: &str| Side::Container(name.into(), path.into());
        for (text, side) in [
            ("-", Side::Stream),
            ("box:/a", container("box", "/a")),
            ("box:a:b", container("box", "a:b")),
            ("box:", container("box", "")),
            (":x", container("", "x")),
            ("a", Side::Host("a".into())),
            ("./a:b", Side::Host("./a:b".into())),
            ("/a:b", Side::Host("/a:b".into())),
        ] {
            assert_eq!(Side::parse(text), side, "{text}");
        }
    }

    #[test]
    fn what_a_source_means() {
        for (path, name) in [
            ("/a/b", Some("b")),
            ("/a/b/", Some("b")),
            ("a", Some("a")),
            ("/a/b/.", None),
            ("/a/./", None),
            (".", None),
            ("/", None),
            ("a/..", None),
        ] {
            assert_eq!(Wanted::of(Path::new(path)).name, name.map(OsString::from), "{path}");
        }
    }

    #[test]
    fn where_it_goes() {
        let named = Wanted { name: Some("s".into()) };
        let contents = Wanted { name: None };
        let go =
            |wanted: &Wanted, directory, path: &str, there| target(wanted, directory, Path::new(path), there);
        let inside = |name: Option<&str>| Ok(Target::Inside(name.map(OsString::from)));
        assert_eq!(go(&named, false, "/d", There::Directory), inside(Some("s")));
        assert_eq!(go(&named, true, "/d", There::Directory), inside(Some("s")));
        assert_eq!(go(&contents, true, "/d", There::Directory), inside(None));
        assert_eq!(go(&named, false, "/f", There::File), Ok(Target::Itself));
        assert_eq!(go(&named, false, "/f/", There::File), Err(Problem::FileThere("/f/".into())));
        assert_eq!(go(&contents, true, "/f", There::File), Err(Problem::FileThere("/f".into())));
        assert_eq!(go(&named, false, "/n", There::Nothing), Ok(Target::Itself));
        assert_eq!(go(&named, false, "/n/", There::Nothing), Err(Problem::Missing("/n/".into())));
        assert_eq!(go(&named, true, "/n/", There::Nothing), Ok(Target::Itself));
        assert_eq!(go(&contents, true, "/n", There::Nothing), Ok(Target::Itself));
    }

    #[test]
    fn paths_of_containers() {
        assert_eq!(absolute(Path::new("/a/"), "/w").as_os_str(), "/a/");
        assert_eq!(absolute(Path::new("a/."), "/w").as_os_str(), "//w/a/.");
        assert!(is_below(Path::new("/a/b/../c"), Path::new("/a")));
        assert!(!is_below(Path::new("/ab"), Path::new("/a")));
        assert!(is_below(Path::new("/a"), Path::new("/a/")));
    }
}
