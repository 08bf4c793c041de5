//! Patterns for names of files, as Go's `path/filepath.Match` has them, which `COPY` uses: `*`, `?`, `[a-z]`, `[^a-z]`,
//! and `\` before what is to be taken as it is. None but a class matches `/`. Names may be any bytes: `?` and classes
//! take a character of UTF-8, or one byte that belongs to none. [`Glob::deep`] knows `**`, too, as ignore files do.

/// A pattern that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// `[` without `]`, or with nothing or half a range within.
    #[error("its [ has no ], or none of the characters or ranges that belong within")]
    Class,
    /// A backslash at the end.
    #[error("it ends in a backslash")]
    Escape,
    /// Longer than any path could be.
    #[error("it is longer than {LONGEST} bytes")]
    Long,
}

/// The kernel's longest path and as much again for what patterns have besides: what it takes to match grows with it.
const LONGEST: usize = 8192;

/// A pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// How many tokens at the begin are plain bytes.
    plain: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Byte(u8),
    /// `?`
    One,
    /// `[…]`; the ranges include their ends.
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `*`
    Many,
    /// `**` at the end: anything, `/` too.
    Rest,
    /// `**/`: nothing, or directories with the slash.
    Directories,
}

/// Whether a text has characters that make it a pattern.
pub fn is_pattern(text: &[u8]) -> bool {
    text.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
}

impl Glob {
    /// A pattern for one name, or for a path of as many parts as it has.
    pub fn new(pattern: impl AsRef<[u8]>) -> Result<Self, GlobError> {
        Self::parse(pattern.as_ref(), false)
    }

    /// A pattern for a path in which `**` stands for any number of directories.
    pub fn deep(pattern: impl AsRef<[u8]>) -> Result<Self, GlobError> {
        Self::parse(pattern.as_ref(), true)
    }

    fn parse(pattern: &[u8], deep: bool) -> Result<Self, GlobError> {
        if pattern.len() > LONGEST {
            return Err(GlobError::Long);
        }
        let mut tokens = Vec::new();
        let mut rest = pattern;
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match first {
                b'*' if deep && rest.first() == Some(&b'*') => {
                    let slash = rest.get(1) == Some(&b'/');
                    rest = &rest[1 + usize::from(slash)..];
                    let plain_end = !slash && tokens.is_empty() && !is_pattern(rest);
                    // At the very begin of an otherwise plain pattern it stands for the begin of a name as well.
                    let token = if rest.is_empty() || plain_end { Token::Rest } else { Token::Directories };
                    // Twice says no more than once.
                    if tokens.last() != Some(&token) {
                        tokens.push(token);
                    }
                }
                // More of them say no more.
                b'*' if tokens.last() == Some(&Token::Many) => {}
                b'*' => tokens.push(Token::Many),
                b'?' => tokens.push(Token::One),
                b'[' => {
                    let class;
                    (class, rest) = class_of(rest)?;
                    tokens.push(class);
                }
                b'\\' => {
                    let (next, after) = rest.split_first().ok_or(GlobError::Escape)?;
                    tokens.push(Token::Byte(*next));
                    rest = after;
                }
                byte => tokens.push(Token::Byte(*byte)),
            }
        }
        let plain = tokens.iter().take_while(|token| matches!(token, Token::Byte(_))).count();
        Ok(Self { tokens, plain })
    }

    /// Whether it stands for the whole of this name or path.
    pub fn matches(&self, name: impl AsRef<[u8]>) -> bool {
        let Some(rest) = self.after_plain(name.as_ref()) else { return false };
        if self.plain == self.tokens.len() { rest.is_empty() } else { self.states(rest)[self.tokens.len()] }
    }

    /// Whether it may stand for a path that begins so.
    pub fn may_begin(&self, start: &[u8]) -> bool {
        if start.len() <= self.plain {
            return self.tokens.iter().zip(start).all(|(token, byte)| *token == Token::Byte(*byte));
        }
        self.after_plain(start).is_some_and(|rest| self.states(rest).contains(&true))
    }

    /// Whether it has `**`, so that it may match paths of any depth.
    pub fn any_depth(&self) -> bool {
        self.tokens.iter().any(|token| matches!(token, Token::Rest | Token::Directories))
    }

    /// What follows the plain begin, if the name has that. Most names are refused here.
    fn after_plain<'n>(&self, name: &'n [u8]) -> Option<&'n [u8]> {
        let (start, rest) = name.split_at_checked(self.plain)?;
        let same = self.tokens.iter().zip(start).all(|(token, byte)| *token == Token::Byte(*byte));
        same.then_some(rest)
    }

    /// Which tokens may come next once all of what follows the plain begin is read; the one behind the last stands for
    /// the end. All ways are followed at once, so that it takes no longer than the pattern's length times the name's.
    fn states(&self, name: &[u8]) -> Vec<bool> {
        // A character has up to four bytes: so far ahead is noted what may come next.
        let mut ahead: [Vec<bool>; 5] = std::array::from_fn(|_| vec![false; self.tokens.len() + 1]);
        self.enter(self.plain, &mut ahead[0]);
        let mut rest = name;
        while let Some(byte) = rest.first() {
            let (c, width) = first_char(rest);
            for at in 0..self.tokens.len() {
                if !ahead[0][at] {
                    continue;
                }
                match &self.tokens[at] {
                    Token::Byte(own) if own == byte => self.enter(at + 1, &mut ahead[1]),
                    Token::One if c != '/' => self.enter(at + 1, &mut ahead[width]),
                    Token::Class { negated, ranges } => {
                        let within = ranges.iter().any(|(low, high)| (low..=high).contains(&&c));
                        if within != *negated {
                            self.enter(at + 1, &mut ahead[width]);
                        }
                    }
                    Token::Many if c != '/' => self.enter(at, &mut ahead[width]),
                    Token::Rest => self.enter(at, &mut ahead[1]),
                    Token::Directories => {
                        ahead[1][at] = true;
                        if *byte == b'/' {
                            self.enter(at + 1, &mut ahead[1]);
                        }
                    }
                    _ => {}
                }
            }
            rest = &rest[1..];
            ahead.rotate_left(1);
            ahead[4].fill(false);
        }
        let [states, ..] = ahead;
        states
    }

    /// Notes that a token may come next, and those behind it if it may stand for nothing.
    fn enter(&self, mut at: usize, states: &mut [bool]) {
        loop {
            let known = std::mem::replace(&mut states[at], true);
            let nothing = matches!(self.tokens.get(at), Some(Token::Many | Token::Rest | Token::Directories));
            // Directories that have begun are noted without what is behind them.
            let followed = known && self.tokens.get(at) != Some(&Token::Directories);
            if !nothing || followed {
                return;
            }
            at += 1;
        }
    }
}

/// The character that a name begins with and how many bytes it has; U+FFFD for a byte that belongs to none.
fn first_char(name: &[u8]) -> (char, usize) {
    let start = &name[..name.len().min(4)];
    let valid = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8()))
}

/// A class, without its `[`, and what follows it.
fn class_of(mut rest: &[u8]) -> Result<(Token, &[u8]), GlobError> {
    let negated = rest.first() == Some(&b'^');
    rest = &rest[usize::from(negated)..];
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.first() == Some(&b']') {
            return Ok((Token::Class { negated, ranges }, &rest[1..]));
        }
        let low;
        (low, rest) = class_char(rest)?;
        let mut high = low;
        if rest.first() == Some(&b'-') {
            (high, rest) = class_char(&rest[1..])?;
        }
        ranges.push((low, high));
    }
}

/// An end of a range within a class.
fn class_char(rest: &[u8]) -> Result<(char, &[u8]), GlobError> {
    let rest = match rest.first() {
        None | Some(b'-' | b']') => return Err(GlobError::Class),
        Some(b'\\') => &rest[1..],
        Some(_) => rest,
    };
    if rest.is_empty() {
        return Err(GlobError::Class);
    }
    let (c, width) = first_char(rest);
    Ok((c, &rest[width..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "a", false),
            ("*x", "xxx", true),
            ("[!a]", "!", true),
            ("", "", true),
            ("", "a", false),
            ("**", "ab", true),
            ("**", "a/b", false),
            ("*[^é]", "é", false),
            ("é?", "éé", true),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(name), expected, "{pattern} {name}");
        }
        assert!(Glob::new("a?b").unwrap().matches(b"a\xffb"));
        assert!(Glob::new(b"\xff*").unwrap().matches(b"\xff\xfe"));
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "[\\"] {
            assert_eq!(Glob::new(pattern), Err(GlobError::Class), "{pattern}");
        }
        assert_eq!(Glob::new("a\\"), Err(GlobError::Escape));
    }

    #[test]
    fn two_stars_stand_for_directories() {
        for (pattern, path, expected) in [
            ("**", "a/b", true),
            ("**/b", "b", true),
            ("**/b", "a/c/b", true),
            ("**/b", "ab", false),
            ("**b", "a/xb", true),
            ("**b*", "xb", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("a**", "ab/c", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/xb", false),
            ("**/*.go", "x/y.go", true),
            ("**/*.go", "y.go", true),
            ("**/*.go", "y.go/x", false),
            ("**/a/**/b", "x/a/y/z/b", true),
            ("**/a/**/b", "x/a/y/z/bb", false),
            ("*/**/c", "a/b/c", true),
            ("*/**/c", "a/c", true),
            ("*/**/c", "c", false),
        ] {
            assert_eq!(Glob::deep(pattern).unwrap().matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn what_a_path_may_begin_with() {
        for (pattern, start, expected) in [
            ("a/b/c", "a/", true),
            ("a/b/c", "a/b/", true),
            ("a/b/c", "b/", false),
            ("a/b", "a/b/", false),
            ("**/c", "x/y/", true),
            ("a*/c", "ab/", true),
            ("a*/c", "ab/c/", false),
            ("a/**", "a/b/", true),
            ("?/*", "a/", true),
        ] {
            assert_eq!(
                Glob::deep(pattern).unwrap().may_begin(start.as_bytes()),
                expected,
                "{pattern} {start}"
            );
        }
    }

    #[test]
    fn many_stars_take_no_time() {
        let glob = Glob::deep("*a".repeat(200) + "**/b").unwrap();
        assert!(!glob.matches("a".repeat(2000)));
    }
}
