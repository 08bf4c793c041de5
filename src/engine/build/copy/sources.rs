//! What the sources of `COPY` and `ADD` stand for.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::FileType;

use super::pattern;
use super::view::{Child, Lost, Place, Spot, View};
use super::{Error, Ignored, Origin, Verdict};
use crate::image::dockerfile::glob::Glob;
use crate::sys::merged::{DEPTH, Entry, Level};

/// The tree that sources are in.
pub struct Sources<'a> {
    /// It.
    pub view: View,
    ignored: Option<&'a Ignored<'a>>,
    /// What it is, in words.
    pub place: &'static str,
    /// Its files are the user's, not an image's: whose they are is of no meaning inside.
    pub foreign: bool,
    /// Whose files are is kept beside them.
    pub remembered: bool,
}

/// One thing to be copied.
#[derive(Debug)]
pub struct Match {
    /// Where it is, without links.
    pub path: PathBuf,
    /// What it is called; nothing if it is the root.
    pub name: OsString,
    /// It.
    pub what: Matched,
    /// With `--parents`: how many parts of the path are kept.
    pub kept: usize,
}

/// What it is.
#[derive(Debug)]
pub enum Matched {
    /// A directory.
    Directory(Rc<Level>),
    /// Another file; a link only with `--parents`.
    File(Spot),
}

/// What one source stands for.
#[derive(Debug, Default)]
pub struct Found {
    /// In the order of paths.
    pub matches: Vec<Match>,
    /// It is a pattern.
    pub pattern: bool,
    /// Something that is left out by the ignore file would have been meant, too.
    pub ignored: bool,
}

impl<'a> Sources<'a> {
    /// The tree of an origin; `None` if there is none.
    pub fn open(origin: Origin<'a>) -> Result<Option<Self>, Error> {
        let failed = |place| move |source| Error::Read { path: PathBuf::from("/"), place, source };
        Ok(match origin {
            Origin::Nothing => None,
            Origin::Context { root, ignored } => {
                let place = "the build context";
                Some(Self {
                    view: View::of_root(root).map_err(failed(place))?,
                    ignored: Some(ignored),
                    place,
                    foreign: true,
                    remembered: false,
                })
            }
            Origin::Trees { trees, remembered } => {
                let place = "the stage or image that --from names";
                let view = View::of_trees(trees).map_err(failed(place))?;
                Some(Self { view, ignored: None, place, foreign: false, remembered })
            }
        })
    }

    /// What the ignore file says of a path.
    pub fn verdict(&self, path: &Path, directory: bool) -> Verdict {
        match self.ignored {
            Some(ignored) if !path.as_os_str().is_empty() => ignored(path, directory),
            _ => Verdict::Kept,
        }
    }

    /// A file of the tree cannot be read.
    pub fn unreadable(&self, path: &Path, source: io::Error) -> Error {
        Error::Read { path: path.to_owned(), place: self.place, source }
    }

    /// What a source stands for. It is relative to the root, and `..` does not lead above that. `parents`: the path
    /// after `/./`, or all of it, is to be kept; no link in it is followed.
    pub fn find(&self, text: &str, parents: bool) -> Result<Found, Error> {
        let (fixed, rest) = match text.split_once("/./") {
            Some((pivot, rest)) if parents => (names(pivot), names(rest)),
            _ if parents => (Vec::new(), names(text)),
            _ => {
                let mut fixed = names(text);
                let at = fixed.iter().position(|part| pattern::is_pattern(part)).unwrap_or(fixed.len());
                let rest = fixed.split_off(at);
                (fixed, rest)
            }
        };
        let mut search = Search { sources: self, text, follow: !parents, top: 0, found: Found::default() };
        search.found.pattern = rest.iter().any(|part| pattern::is_pattern(part));
        if let Some(start) = self.resolve(text, &fixed.iter().collect::<PathBuf>())? {
            search.top = start.path.components().count();
            if rest.is_empty() {
                search.take(start, fixed.last().cloned().unwrap_or_default())?;
            } else if let Child::Directory(Some(level)) = start.child {
                let parts = rest.iter().map(|part| Part::new(part, parents, text));
                search.descend(&level, &start.path, &parts.collect::<Result<Vec<_>, _>>()?)?;
            }
        }
        let found = search.found;
        if !found.matches.is_empty() || found.pattern {
            return Ok(found);
        }
        let pattern = text.to_owned();
        Err(match found.ignored {
            true => Error::Ignored { pattern },
            false => Error::NoSource { pattern, place: self.place },
        })
    }

    /// What a path leads to; `None` if nothing.
    fn resolve(&self, text: &str, path: &Path) -> Result<Option<Place>, Error> {
        match self.view.resolve(path, true) {
            Ok(place) => Ok(Some(place).filter(|place| place.missing == 0)),
            Err(Lost::NoDirectory(_)) => Ok(None),
            Err(Lost::Loop) => Err(Error::Loop(text.to_owned())),
            Err(Lost::Failed(path, source)) => Err(self.unreadable(&path, source)),
        }
    }
}

/// The parts of a path, as Go's `path.Clean` leaves them of one below `/`.
pub fn names(text: &str) -> Vec<OsString> {
    let mut names: Vec<OsString> = Vec::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    names
}

/// One part of a pattern of paths.
enum Part<'a> {
    Name(&'a OsStr),
    Pattern(Glob),
    /// `**`: any number of directories.
    Any,
}

impl<'a> Part<'a> {
    fn new(part: &'a OsStr, any: bool, text: &str) -> Result<Self, Error> {
        match part {
            part if any && part == "**" => Ok(Self::Any),
            part if !pattern::is_pattern(part) => Ok(Self::Name(part)),
            part => pattern::parse(part, text).map(Self::Pattern),
        }
    }
}

struct Search<'s, 'a> {
    sources: &'s Sources<'a>,
    text: &'s str,
    /// Links at the end of a path are followed.
    follow: bool,
    /// How many parts the path has where the search began.
    top: usize,
    found: Found,
}

impl Search<'_, '_> {
    /// Looks for what the parts describe in a directory.
    fn descend(&mut self, level: &Rc<Level>, path: &Path, parts: &[Part<'_>]) -> Result<(), Error> {
        if path.components().count() - self.top > DEPTH as usize {
            return Err(Error::TooDeep(path.display().to_string()));
        }
        let Some((part, rest)) = parts.split_first() else { return Ok(()) };
        let failed = |source| self.sources.unreadable(path, source);
        let entries: Vec<(CString, Entry)> = match part {
            Part::Name(name) => {
                let name = CString::new(name.as_bytes()).map_err(|error| failed(error.into()))?;
                let entry = level.find(&name).map_err(failed)?;
                entry.map(|entry| (name, entry)).into_iter().collect()
            }
            Part::Pattern(pattern) => {
                let all = level.entries().map_err(failed)?.into_iter();
                all.filter(|(name, _)| pattern.matches(name.to_bytes())).collect()
            }
            Part::Any => {
                if rest.is_empty() {
                    // All that is here, whatever it is called.
                    let all = level.entries().map_err(failed)?;
                    return all
                        .into_iter()
                        .try_for_each(|(name, entry)| self.entry(level, path, name, entry));
                }
                self.descend(level, path, rest)?;
                level.entries().map_err(failed)?.into_iter().collect()
            }
        };
        for (name, entry) in entries {
            let below = match part {
                Part::Any => parts,
                _ if rest.is_empty() => {
                    self.entry(level, path, name, entry)?;
                    continue;
                }
                _ => rest,
            };
            let inside = path.join(OsStr::from_bytes(name.to_bytes()));
            if entry.kind() != FileType::Directory {
                continue;
            }
            if self.sources.verdict(&inside, true) == Verdict::Hidden {
                self.found.ignored = true;
                continue;
            }
            let entered =
                level.enter(&name, &entry).map_err(|error| self.sources.unreadable(&inside, error))?;
            self.descend(&Rc::new(entered), &inside, below)?;
        }
        Ok(())
    }

    /// One that matches.
    fn entry(&mut self, level: &Rc<Level>, path: &Path, name: CString, entry: Entry) -> Result<(), Error> {
        let own = OsStr::from_bytes(name.to_bytes()).to_owned();
        let path = path.join(&own);
        let unreadable = |error| self.sources.unreadable(&path, error);
        let child = match entry.kind() {
            FileType::Directory => {
                Child::Directory(Some(Rc::new(level.enter(&name, &entry).map_err(unreadable)?)))
            }
            FileType::Symlink if self.follow => {
                let place = self.sources.resolve(self.text, &path)?;
                let place = place.ok_or_else(|| Error::Dangling(path.display().to_string()))?;
                return self.take(place, own);
            }
            _ => Child::Other,
        };
        let found = Some(Spot { level: level.clone(), name, entry });
        self.take(Place { path, missing: 0, child, found }, own)
    }

    fn take(&mut self, place: Place, name: OsString) -> Result<(), Error> {
        let directory = matches!(place.child, Child::Directory(_));
        if self.sources.verdict(&place.path, directory) == Verdict::Hidden {
            self.found.ignored = true;
            return Ok(());
        }
        let what = match (place.child, place.found) {
            (Child::Directory(Some(level)), _) => Matched::Directory(level),
            (_, Some(spot)) => Matched::File(spot),
            // Only what is being made can be in neither.
            _ => return Ok(()),
        };
        let kept = if self.follow { 0 } else { place.path.components().count().saturating_sub(self.top) };
        self.found.matches.push(Match { path: place.path, name, what, kept });
        Ok(())
    }
}
