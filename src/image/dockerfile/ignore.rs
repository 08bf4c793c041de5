//! What of a context is left out: `.containerignore`, `.dockerignore`, and `COPY --exclude`.
//! The rules are those of <https://docs.docker.com/build/concepts/context/#dockerignore-files>: of all patterns that
//! match a path, or a directory that it is in, the last one says.

use super::glob::{Glob, GlobError};
use crate::base::report::plain;

/// A line that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: \"{}\"", plain(pattern))]
pub struct IgnoreError {
    /// Its line, or which of the patterns it is, from 1.
    pub line: usize,
    /// As it is written.
    pub pattern: String,
    /// What is wrong.
    #[source]
    pub source: IgnoreProblem,
}

/// What may be wrong with a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreProblem {
    /// `!` alone.
    #[error("nothing follows the !")]
    Nothing,
    /// No pattern.
    #[error(transparent)]
    Glob(#[from] GlobError),
}

/// Patterns of paths that are left out. Paths are relative to the context, without `.`, `..` and slashes at their ends.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    glob: Glob,
    /// How many parts a path has that it matches, unless that may be any number.
    parts: Option<usize>,
    /// It takes paths back in (`!`).
    exception: bool,
}

impl Ignore {
    /// Reads an ignore file: a pattern a line, `#` at the very begin of a line makes it a comment.
    pub fn parse(text: &[u8]) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let lines = text.split(|byte| *byte == b'\n').enumerate();
        Self::of(lines.filter(|(_, line)| !line.starts_with(b"#")))
    }

    /// Takes patterns as they are, as `COPY --exclude` has them.
    pub fn patterns<T: AsRef<[u8]>>(patterns: impl IntoIterator<Item = T>) -> Result<Self, IgnoreError> {
        Self::of(patterns.into_iter().enumerate())
    }

    fn of<T: AsRef<[u8]>>(patterns: impl Iterator<Item = (usize, T)>) -> Result<Self, IgnoreError> {
        let mut rules = Vec::new();
        for (number, pattern) in patterns {
            let pattern = pattern.as_ref().trim_ascii();
            let error = |source| {
                let pattern = String::from_utf8_lossy(&pattern[..pattern.len().min(1000)]).into_owned();
                IgnoreError { line: number + 1, pattern, source }
            };
            rules.extend(rule(pattern).map_err(error)?);
        }
        Ok(Self { rules })
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether this path is left out. The context itself never is.
    pub fn excluded(&self, path: impl AsRef<[u8]>) -> bool {
        let ends = ends(path.as_ref());
        self.rules
            .iter()
            .rev()
            .find(|rule| rule.covers(path.as_ref(), &ends))
            .is_some_and(|rule| !rule.exception)
    }

    /// Whether nothing beneath this directory, which is left out itself, may be taken back in: it need not be entered.
    pub fn excluded_with_all(&self, directory: impl AsRef<[u8]>) -> bool {
        let directory = directory.as_ref();
        let ends = ends(directory);
        let mut inside = directory.to_vec();
        inside.push(b'/');
        for rule in self.rules.iter().rev() {
            if rule.covers(directory, &ends) {
                return !rule.exception;
            }
            if rule.exception && rule.glob.may_begin(&inside) {
                return false;
            }
        }
        false
    }
}

/// Where the directories end that a path is in, and where it ends itself.
fn ends(path: &[u8]) -> Vec<usize> {
    memchr::memchr_iter(b'/', path).chain([path.len()]).collect()
}

impl Rule {
    /// Whether it matches a path or a directory that the path is in.
    fn covers(&self, path: &[u8], ends: &[usize]) -> bool {
        match self.parts {
            Some(parts) => ends.get(parts - 1).is_some_and(|end| self.glob.matches(&path[..*end])),
            None => ends.iter().any(|end| self.glob.matches(&path[..*end])),
        }
    }
}

/// A pattern, if there is one.
fn rule(pattern: &[u8]) -> Result<Option<Rule>, IgnoreProblem> {
    let exception = pattern.first() == Some(&b'!');
    let pattern = pattern[usize::from(exception)..].trim_ascii();
    if pattern.is_empty() {
        return if exception { Err(IgnoreProblem::Nothing) } else { Ok(None) };
    }
    let glob = clean(pattern);
    // Nothing of a context has such a path.
    if glob.is_empty() || glob.starts_with(b"../") || glob == b".." {
        return Ok(None);
    }
    let parts = memchr::memchr_iter(b'/', &glob).count() + 1;
    let glob = Glob::deep(glob)?;
    Ok(Some(Rule { parts: (!glob.any_depth()).then_some(parts), glob, exception }))
}

/// A pattern without `.`, `..`, empty parts and slashes at its ends: all are relative to the context.
fn clean(pattern: &[u8]) -> Vec<u8> {
    let rooted = pattern.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in pattern.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(text: &str) -> Ignore {
        Ignore::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_last_match_says() {
        for (text, out, kept) in [
            ("# a\n\n  tmp \r\n/x/\n./y/../z", "tmp tmp/a x x/y z", "# a tmpx a/tmp y"),
            (" #a", "#a", "a"),
            ("\u{feff}a", "a", "b"),
            ("*", "a .a a/b", ""),
            ("*\n!a", "b b/a", "a a/b"),
            ("*.md\n!README*.md\nREADME-secret.md", "a.md README-secret.md", "README.md README-x.md x/a.md"),
            ("*.md\nREADME-secret.md\n!README*.md", "a.md", "README.md README-secret.md"),
            ("**/*.o\n!keep/**", "a.o x/y/a.o", "keep/a.o keep/x/a.o a.c"),
            ("dir\n!dir/keep", "dir dir/a dir/a/keep", "dir/keep dir/keep/a"),
            ("dir\n! /dir/keep/", "dir", "dir/keep"),
            ("*/temp*\ntemp?", "a/temp a/tempx/y tempa", "temp a/b/temp tempab"),
            ("**/node_modules", "node_modules a/b/node_modules/c", "node_modulesx"),
            ("a/**/z", "a/z a/b/c/z a/z/x", "a b/z"),
            ("a/**", "a/b a/b/c", "a"),
            ("/\n.\n..\n../x", "", "a x"),
            ("a\\*b", "a*b", "axb"),
            ("!a\nb", "b", "a"),
        ] {
            let ignore = ignore(text);
            for path in out.split_terminator(' ') {
                assert!(ignore.excluded(path), "{text:?}: {path}");
            }
            for path in kept.split_terminator(' ') {
                assert!(!ignore.excluded(path), "{text:?}: {path}");
            }
        }
        assert!(Ignore::parse(b"\xff*").unwrap().excluded(b"\xff\xfe"));
        assert!(Ignore::parse(b"# a\n\n").unwrap().is_empty());
        assert!(Ignore::patterns(["#a", "b*"]).unwrap().excluded("#a"));
    }

    #[test]
    fn directories_are_entered_for_exceptions_alone() {
        for (text, directory, expected) in [
            ("a", "a", true),
            ("a\n!b", "a", true),
            ("a\n!a/b", "a", false),
            ("a\n!a/b/c", "a/x", true),
            ("a\n!a/b/c", "a/b", false),
            ("a\n!**/c", "a/b", false),
            ("!a/b\na", "a", true),
            ("a\n!a/*\na/b", "a/b", true),
            ("*\n!x/*.c", "x", false),
            ("*\n!x/*.c", "y", true),
        ] {
            let ignore = ignore(text);
            assert!(ignore.excluded(directory), "{text:?}");
            assert_eq!(ignore.excluded_with_all(directory), expected, "{text:?}: {directory}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, part) in [("a\n!", 2, "follows"), ("#\n\n[a", 3, "["), ("a\\", 1, "backslash")] {
            let error = Ignore::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error.line, line, "{text:?}");
            assert!(crate::base::report::chain(&error).contains(part), "{text:?}: {error:?}");
        }
    }
}
