//! Paths in merged trees, and in a layer that is being made upon them: each name is looked up in an open directory,
//! and what a link says is looked up the same way from the same root. Nothing leads out.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::FileType;

use crate::sys::merged::{Entry, Level, Tree};
use crate::sys::path::Root;
use crate::sys::visit::{self, Content};

/// How many links one path may go through, as in the kernel (path_resolution(7)).
const LINKS: usize = 40;

/// Why a path leads nowhere.
#[derive(Debug)]
pub enum Lost {
    /// Too many links.
    Loop,
    /// What is at this path is no directory, but more follows.
    NoDirectory(PathBuf),
    /// What is at this path cannot be looked at.
    Failed(PathBuf, io::Error),
}

/// What is in the layer that is being made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A directory, upon that of the trees below if there is one.
    Directory,
    /// A link, to this.
    Link(OsString),
    /// Another file.
    Other,
}

/// A directory: as it is in the trees, if it is there.
pub type Dir = Option<Rc<Level>>;

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum Child {
    /// Nothing.
    Missing,
    /// A directory.
    Directory(Dir),
    /// A link, to this.
    Link(OsString),
    /// Another file.
    Other,
}

/// What a path leads to.
#[derive(Debug)]
pub struct Place {
    /// The path without links, below the root. Its parts that are missing are as they were given.
    pub path: PathBuf,
    /// How many of its last parts are not there.
    pub missing: usize,
    /// What is there. A link only where it was not to be followed.
    pub child: Child,
    /// Where it was found in the trees.
    pub found: Option<Spot>,
}

/// An entry and the directory that it is in.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The directory.
    pub level: Rc<Level>,
    /// Its name there.
    pub name: CString,
    /// It.
    pub entry: Entry,
}

/// Merged trees, and what is made upon them.
#[derive(Debug)]
pub struct View {
    root: Dir,
    made: Node,
    /// Only directories are seen: what else is there gives way.
    blind: bool,
}

/// What was made at a path, if anything, and beneath it. A tree, so that deep paths take no more room than their parts.
#[derive(Debug, Default)]
struct Node {
    made: Option<Made>,
    below: BTreeMap<OsString, Node>,
}

impl Node {
    fn find(&self, path: &Path) -> Option<&Self> {
        path.iter().try_fold(self, |node, name| node.below.get(name))
    }
}

impl View {
    /// Of these trees, the topmost first.
    pub fn of_trees(trees: &[Tree]) -> io::Result<Self> {
        let root = if trees.is_empty() { None } else { Some(Rc::new(Level::open(trees)?)) };
        Ok(Self { root, made: Node::default(), blind: false })
    }

    /// Of one directory.
    pub fn of_root(root: &Root) -> io::Result<Self> {
        Ok(Self { root: Some(Rc::new(Level::of(root)?)), made: Node::default(), blind: false })
    }

    /// Nothing but directories is seen.
    pub fn blind(self, blind: bool) -> Self {
        Self { blind, ..self }
    }

    /// Something was made at a path that [`View::resolve`] gave. What was made there, or in it, before is gone unless
    /// both are directories.
    pub fn make(&mut self, path: &Path, made: Made) {
        let node =
            path.iter().fold(&mut self.made, |node, name| node.below.entry(name.to_owned()).or_default());
        if made != Made::Directory {
            node.below.clear();
        }
        node.made = Some(made);
    }

    /// What was made at a path.
    pub fn made(&self, path: &Path) -> Option<&Made> {
        self.made.find(path)?.made.as_ref()
    }

    /// What is called `name` in the directory that is at `path` (without links).
    pub fn child(&self, dir: &Dir, path: &Path, name: &OsStr) -> io::Result<Child> {
        Ok(self.look(dir, path, name)?.0)
    }

    fn look(&self, dir: &Dir, path: &Path, name: &OsStr) -> io::Result<(Child, Option<Spot>)> {
        let made = self.made.find(path).and_then(|node| node.below.get(name)?.made.as_ref());
        match made {
            Some(Made::Link(target)) => return Ok((self.seen(Child::Link(target.clone())), None)),
            Some(Made::Other) => return Ok((self.seen(Child::Other), None)),
            Some(Made::Directory) | None => {}
        }
        let nothing = if made.is_some() { Child::Directory(None) } else { Child::Missing };
        let Some(level) = dir else { return Ok((nothing, None)) };
        let text = CString::new(name.as_bytes()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let Some(entry) = level.find(&text)? else { return Ok((nothing, None)) };
        let child = match entry.kind() {
            FileType::Directory => Child::Directory(Some(Rc::new(level.enter(&text, &entry)?))),
            _ if made.is_some() => nothing,
            FileType::Symlink => match visit::look(level, &text, &entry)?.map(|looked| looked.content) {
                Some(Content::Symlink(target)) => Child::Link(target),
                _ => Child::Other,
            },
            _ => Child::Other,
        };
        Ok((self.seen(child), Some(Spot { level: level.clone(), name: text, entry })))
    }

    fn seen(&self, child: Child) -> Child {
        match child {
            Child::Link(_) | Child::Other if self.blind => Child::Missing,
            child => child,
        }
    }

    /// Where a path from the root leads: through links, and through a link at its end if `follow`. `..` is what is
    /// above where a link led to, and the root above the root.
    pub fn resolve(&self, path: &Path, follow: bool) -> Result<Place, Lost> {
        let mut walk = Walk { at: Vec::new(), path: PathBuf::new(), missing: 0, links: 0 };
        let mut todo = Vec::new();
        push(&mut todo, path);
        while let Some(name) = todo.pop() {
            if name == ".." {
                walk.up();
                continue;
            }
            let dir = walk.at.last().map_or(&self.root, |dir| dir);
            let (child, spot) = match walk.missing {
                0 => self
                    .look(dir, &walk.path, &name)
                    .map_err(|error| Lost::Failed(walk.path.join(&name), error))?,
                _ => (Child::Missing, None),
            };
            let last = todo.is_empty();
            match child {
                Child::Missing => walk.down(&name, None, 1),
                Child::Directory(dir) if !last => walk.down(&name, dir, 0),
                Child::Directory(dir) => {
                    walk.down(&name, dir.clone(), 0);
                    return Ok(walk.place(Child::Directory(dir), spot));
                }
                Child::Link(target) if !last || follow => {
                    walk.links += 1;
                    if walk.links > LINKS {
                        return Err(Lost::Loop);
                    }
                    let target = Path::new(&target);
                    if target.has_root() {
                        (walk.at, walk.path) = Default::default();
                    }
                    push(&mut todo, target);
                }
                other => {
                    walk.down(&name, None, 0);
                    return if last {
                        Ok(walk.place(other, spot))
                    } else {
                        Err(Lost::NoDirectory(walk.path))
                    };
                }
            }
        }
        let child = match walk.missing {
            0 => Child::Directory(walk.at.last().map_or_else(|| self.root.clone(), Clone::clone)),
            _ => Child::Missing,
        };
        Ok(walk.place(child, None))
    }
}

/// The parts of a path, the first on top.
fn push(todo: &mut Vec<OsString>, path: &Path) {
    todo.extend(path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    }));
}

struct Walk {
    /// The directories gone through.
    at: Vec<Dir>,
    path: PathBuf,
    missing: usize,
    links: usize,
}

impl Walk {
    fn down(&mut self, name: &OsStr, dir: Dir, missing: usize) {
        self.path.push(name);
        self.at.push(dir);
        self.missing += missing;
    }

    fn up(&mut self) {
        self.path.pop();
        self.at.pop();
        self.missing = self.missing.saturating_sub(1);
    }

    fn place(self, child: Child, found: Option<Spot>) -> Place {
        Place { path: self.path, missing: self.missing, child, found }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    fn shown(view: &View, path: &str, follow: bool) -> String {
        match view.resolve(Path::new(path), follow) {
            Err(Lost::Loop) => "loop".to_owned(),
            Err(Lost::NoDirectory(at)) => format!("no directory {}", at.display()),
            Err(Lost::Failed(at, error)) => format!("{} {error}", at.display()),
            Ok(place) => {
                let kind = match place.child {
                    Child::Missing => format!("missing {}", place.missing),
                    Child::Directory(_) => "directory".to_owned(),
                    Child::Link(target) => format!("link {}", target.display()),
                    Child::Other => "file".to_owned(),
                };
                format!("{} {kind}", place.path.display())
            }
        }
    }

    #[test]
    fn paths_stay_inside() {
        let scratch = Scratch::new(&[
            "0/etc/new",
            "1/etc/passwd",
            "1/x->/etc",
            "1/up->../../../../../etc/passwd",
            "1/l1->l2",
            "1/l2->l1",
            "1/dangling->/no/where/x",
            "1/d/e/f",
            "1/d/back->../x/..",
        ]);
        let mut view = View::of_trees(&scratch.trees(&["0", "1"])).unwrap();
        for (path, follow, expected) in [
            ("/", true, " directory"),
            ("..", true, " directory"),
            ("x", true, "etc directory"),
            ("x", false, "x link /etc"),
            ("x/passwd", false, "etc/passwd file"),
            ("x/new", false, "etc/new file"),
            ("up", true, "etc/passwd file"),
            ("l1", true, "loop"),
            ("l1/x", false, "loop"),
            ("dangling/y", true, "no/where/x/y missing 4"),
            ("d/e/f/g", true, "no directory d/e/f"),
            ("d/back", true, " directory"),
            ("d/back/etc", true, "etc directory"),
            ("n/../../../n2", true, "n2 missing 1"),
            ("x/../etc/./passwd", true, "etc/passwd file"),
        ] {
            assert_eq!(shown(&view, path, follow), expected, "{path}");
        }
        view.make(Path::new("n"), Made::Directory);
        view.make(Path::new("n/l"), Made::Link("/d/e".into()));
        assert_eq!(shown(&view, "n/l/f", true), "d/e/f file");
        view.make(Path::new("d/e"), Made::Directory);
        assert_eq!(shown(&view, "n/l/f", true), "d/e/f file", "it lies upon that of the image");
        view.make(Path::new("n"), Made::Other);
        assert_eq!(shown(&view, "n/l/f", true), "no directory n");
        view.make(Path::new("n"), Made::Directory);
        assert_eq!(shown(&view, "n/l", true), "n/l missing 1", "what was in it is gone");
        let blind = View::of_trees(&scratch.trees(&["1"])).unwrap().blind(true);
        assert_eq!(shown(&blind, "x/passwd", true), "x/passwd missing 2");
        assert_eq!(shown(&View::of_trees(&[]).unwrap(), "a/b", true), "a/b missing 2");
    }
}
