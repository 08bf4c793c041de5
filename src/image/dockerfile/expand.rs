//! Variables: `$NAME`, `${NAME}` and the forms of POSIX's shell that Dockerfiles know, and quotes.

use super::{Argument, Copy, Heredoc, Instruction, MountError, Run};
use crate::base::report::plain;
use crate::base::signal;

/// How much one instruction may grow to, in bytes: variables that double themselves end here, long before memory does.
const MOST: usize = 16 << 20;
/// How deep `${A:-${B:-…}}` may go.
const DEEPEST: usize = 40;
/// How many characters a pattern may have: what it takes to search grows with it.
const LONGEST_PATTERN: usize = 1000;

/// Variables of an instruction that cannot be replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// In one of its words.
    #[error("\"{}\"", plain(word))]
    Word {
        /// The word as it is written.
        word: String,
        /// What is wrong.
        #[source]
        source: WordError,
    },
    /// `RUN --mount`, once its variables are replaced.
    #[error("--mount")]
    Mount(#[from] MountError),
    /// `STOPSIGNAL`, once its variables are replaced.
    #[error("there is no signal \"{}\"", plain(.0))]
    Signal(String),
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// A quote that does not end.
    #[error("the quote {0} is not closed")]
    Quote(char),
    /// A `${` that does not end.
    #[error("${{ is not closed by }}")]
    Brace,
    /// No name follows `${`.
    #[error("${{ is not followed by a variable's name")]
    Name,
    /// `${NAME^}` and the like.
    #[error("${{{name}{modifier}…}} is not supported yet: -, +, ?, #, % and / may follow the name")]
    Modifier {
        /// The variable.
        name: String,
        /// What follows it.
        modifier: String,
    },
    /// `${NAME:?message}`
    #[error("the variable {name} {}", plain(message))]
    Required {
        /// The variable.
        name: String,
        /// What its user says, or what is wrong.
        message: String,
    },
    /// Too deep.
    #[error("variables stand in one another more than {DEEPEST} levels deep")]
    Deep,
    /// Too much.
    #[error("it becomes longer than {} MiB", MOST >> 20)]
    Long,
    /// A pattern is too long.
    #[error("a pattern is longer than {LONGEST_PATTERN} characters")]
    Pattern,
}

/// The value of a variable, if it has one.
type Lookup<'l> = &'l dyn Fn(&str) -> Option<String>;

/// Replaces the variables of a word and takes its quotes away, as in `FROM`.
pub fn expand_word(text: &str, escape: char, lookup: Lookup) -> Result<String, ExpandError> {
    Expander { escape, lookup, left: MOST.into() }.word(text)
}

/// As [`expand_word`], but parts the result at blanks that are not quoted.
pub fn expand_words(text: &str, escape: char, lookup: Lookup) -> Result<Vec<String>, ExpandError> {
    Expander { escape, lookup, left: MOST.into() }.words(text)
}

impl Instruction {
    /// Replaces variables where Dockerfiles have them; where a shell does it, nothing changes. All words see the values
    /// from before the instruction. Quotes are gone afterwards, so it is done once.
    pub fn expand(&self, escape: char, lookup: Lookup) -> Result<Self, ExpandError> {
        let expander = Expander { escape, lookup, left: MOST.into() };
        let pairs = |pairs: &[(String, String)]| {
            let pair = |(key, value): &(String, String)| Ok((expander.word(key)?, expander.word(value)?));
            pairs.iter().map(pair).collect::<Result<Vec<_>, ExpandError>>()
        };
        Ok(match self {
            Self::Arg(arguments) => {
                let argument = |argument: &Argument| {
                    let default = argument.default.as_deref().map(|text| expander.word(text)).transpose()?;
                    Ok(Argument { name: expander.word(&argument.name)?, default })
                };
                Self::Arg(arguments.iter().map(argument).collect::<Result<_, ExpandError>>()?)
            }
            Self::Env(list) => Self::Env(pairs(list)?),
            Self::Label(list) => Self::Label(pairs(list)?),
            Self::Run(run) => {
                let expand = |text: &str| expander.word(text);
                let mounts = run.mounts.iter().map(|mount| mount.expanded::<ExpandError>(&expand));
                Self::Run(Run { mounts: mounts.collect::<Result<_, _>>()?, ..run.clone() })
            }
            Self::Copy(copy) => Self::Copy(expander.copy(copy)?),
            Self::Expose(ports) => {
                let words = ports.iter().map(|text| expander.words(text)).collect::<Result<Vec<_>, _>>()?;
                Self::Expose(words.into_iter().flatten().collect())
            }
            Self::Volume(paths) => Self::Volume(expander.list(paths)?),
            Self::User(text) => Self::User(expander.word(text)?),
            Self::Workdir(text) => Self::Workdir(expander.word(text)?),
            Self::StopSignal(text) => {
                let text = expander.word(text)?;
                if signal::parse(&text).is_none() {
                    return Err(ExpandError::Signal(text));
                }
                Self::StopSignal(text)
            }
            Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::OnBuild(_)
            | Self::Shell(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_) => self.clone(),
        })
    }
}

/// What one instruction is replaced with.
struct Expander<'l> {
    escape: char,
    lookup: Lookup<'l>,
    /// How much it may still grow.
    left: std::cell::Cell<usize>,
}

impl Expander<'_> {
    fn lex(&self, text: &str, quotes: Quotes) -> Result<Output, ExpandError> {
        let mut lexer = Lexer::new(text, self.escape, Some(self.lookup), quotes);
        lexer.left = self.left.get();
        let output = lexer.output();
        self.left.set(lexer.left);
        output.map_err(|source| ExpandError::Word { word: text.chars().take(1000).collect(), source })
    }

    fn word(&self, text: &str) -> Result<String, ExpandError> {
        Ok(self.lex(text, Quotes::Remove)?.text)
    }

    fn words(&self, text: &str) -> Result<Vec<String>, ExpandError> {
        Ok(self.lex(text, Quotes::Remove)?.words())
    }

    fn list(&self, words: &[String]) -> Result<Vec<String>, ExpandError> {
        words.iter().map(|text| self.word(text)).collect()
    }

    fn copy(&self, copy: &Copy) -> Result<Copy, ExpandError> {
        let option = |text: &Option<String>| text.as_deref().map(|text| self.word(text)).transpose();
        let inline = |heredoc: &Heredoc| {
            let mut heredoc = heredoc.clone();
            if heredoc.expand {
                heredoc.text = self.lex(&heredoc.text, Quotes::Keep)?.text;
                heredoc.expand = false;
            }
            Ok(heredoc)
        };
        Ok(Copy {
            sources: self.list(&copy.sources)?,
            inline: copy.inline.iter().map(inline).collect::<Result<_, ExpandError>>()?,
            destination: self.word(&copy.destination)?,
            from: option(&copy.from)?,
            chown: option(&copy.chown)?,
            chmod: option(&copy.chmod)?,
            exclude: self.list(&copy.exclude)?,
            checksum: option(&copy.checksum)?,
            ..copy.clone()
        })
    }
}

/// What becomes of quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quotes {
    /// They are gone.
    Remove,
    /// They are nothing special: a text of several lines. The escape character protects only what would be special
    /// without it, as in a shell's.
    Keep,
}

/// What has been read.
#[derive(Default)]
struct Output {
    text: String,
    /// Where in the text a blank parts words.
    blanks: Vec<usize>,
}

impl Output {
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut start = 0;
        for at in self.blanks.iter().copied().chain([self.text.len()]) {
            if at > start {
                words.push(self.text[start..at].to_owned());
            }
            start = at + self.text[at..].chars().next().map_or(0, char::len_utf8);
        }
        words
    }
}

/// Reads a word, character by character, in time and memory that grow with what goes in and comes out alone.
pub(super) struct Lexer<'t, 'l> {
    rest: std::str::Chars<'t>,
    escape: char,
    /// Without: variables are left as they are.
    lookup: Option<Lookup<'l>>,
    quotes: Quotes,
    left: usize,
    depth: usize,
    /// Within what is not used: nothing is looked up, nothing missing is an error.
    unused: bool,
}

impl<'t, 'l> Lexer<'t, 'l> {
    fn new(text: &'t str, escape: char, lookup: Option<Lookup<'l>>, quotes: Quotes) -> Self {
        Self { rest: text.chars(), escape, lookup, quotes, left: MOST, depth: 0, unused: false }
    }

    /// For a word whose variables stay.
    pub fn literal(text: &'t str, escape: char) -> Self {
        Self::new(text, escape, None, Quotes::Remove)
    }

    /// The whole word.
    pub fn word(mut self) -> Result<String, WordError> {
        Ok(self.output()?.text)
    }

    fn output(&mut self) -> Result<Output, WordError> {
        let mut output = Output::default();
        self.until(None, &mut output)?;
        Ok(output)
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek() == Some(wanted);
        if found {
            self.rest.next();
        }
        found
    }

    fn charge(&mut self, bytes: usize) -> Result<(), WordError> {
        self.left = self.left.checked_sub(bytes).ok_or(WordError::Long)?;
        Ok(())
    }

    fn push(&mut self, c: char, output: &mut Output) -> Result<(), WordError> {
        self.charge(c.len_utf8())?;
        output.text.push(c);
        Ok(())
    }

    /// Adds what is not quoted: its blanks part words.
    fn push_open(&mut self, text: &str, output: &mut Output) -> Result<(), WordError> {
        self.charge(text.len())?;
        let start = output.text.len();
        output.blanks.extend(text.match_indices(char::is_whitespace).map(|(at, _)| start + at));
        output.text.push_str(text);
        Ok(())
    }

    /// Reads until a character, or until the end where there is none.
    fn until(&mut self, stop: Option<char>, output: &mut Output) -> Result<(), WordError> {
        while let Some(c) = self.rest.next() {
            match c {
                c if Some(c) == stop => return Ok(()),
                '\'' if self.quotes == Quotes::Remove => self.single(output)?,
                '"' if self.quotes == Quotes::Remove => self.double(output)?,
                '$' if self.lookup.is_some() => {
                    let value = self.dollar()?;
                    self.push_open(&value, output)?;
                }
                c if c == self.escape => self.escaped(stop, output)?,
                c if c.is_whitespace() => {
                    output.blanks.push(output.text.len());
                    self.push(c, output)?;
                }
                c => self.push(c, output)?,
            }
        }
        if stop.is_some() { Err(WordError::Brace) } else { Ok(()) }
    }

    /// What follows the escape character; at the end nothing does, and it is dropped.
    fn escaped(&mut self, stop: Option<char>, output: &mut Output) -> Result<(), WordError> {
        let special = |c: char| c == '$' || c == '`' || c == self.escape || Some(c) == stop;
        match (self.quotes, self.peek()) {
            (Quotes::Keep, Some('\n')) => drop(self.rest.next()),
            (Quotes::Keep, Some(c)) if !special(c) => self.push(self.escape, output)?,
            (Quotes::Keep, None) => self.push(self.escape, output)?,
            (_, None) => {}
            (_, Some(c)) => {
                self.rest.next();
                self.push(c, output)?;
            }
        }
        Ok(())
    }

    fn single(&mut self, output: &mut Output) -> Result<(), WordError> {
        loop {
            match self.rest.next() {
                Some('\'') => return Ok(()),
                Some(c) => self.push(c, output)?,
                None => return Err(WordError::Quote('\'')),
            }
        }
    }

    fn double(&mut self, output: &mut Output) -> Result<(), WordError> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') if self.lookup.is_some() => {
                    let value = self.dollar()?;
                    self.charge(value.len())?;
                    output.text.push_str(&value);
                }
                // It protects these three only.
                Some(c) if c == self.escape => match self.peek() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        self.rest.next();
                        self.push(next, output)?;
                    }
                    _ => self.push(c, output)?,
                },
                Some(c) => self.push(c, output)?,
                None => return Err(WordError::Quote('"')),
            }
        }
    }

    /// What `$…` stands for; the dollar is read.
    fn dollar(&mut self) -> Result<String, WordError> {
        if !self.take('{') {
            let name = self.name();
            // A dollar alone is one.
            return if name.is_empty() {
                Ok("$".to_owned())
            } else {
                Ok(self.value(&name)?.unwrap_or_default())
            };
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(WordError::Deep);
        }
        let value = self.braced();
        self.depth -= 1;
        value
    }

    fn value(&mut self, name: &str) -> Result<Option<String>, WordError> {
        let Some(lookup) = self.lookup.filter(|_| !self.unused) else { return Ok(None) };
        let value = lookup(name);
        self.charge(value.as_deref().map_or(0, str::len))?;
        Ok(value)
    }

    /// A name: letters, digits and `_`, or digits alone, or one of the shell's special ones, which nobody sets here.
    fn name(&mut self) -> String {
        let text = self.rest.as_str();
        let first = self.peek().unwrap_or(' ');
        let end = if first.is_ascii_digit() {
            text.find(|c: char| !c.is_ascii_digit())
        } else if matches!(first, '@' | '*' | '#' | '?' | '-' | '$' | '!') {
            Some(1)
        } else {
            text.find(|c: char| !c.is_alphanumeric() && c != '_')
        };
        let (name, rest) = text.split_at(end.unwrap_or(text.len()));
        self.rest = rest.chars();
        name.to_owned()
    }

    /// What follows `${`.
    fn braced(&mut self) -> Result<String, WordError> {
        if self.peek().is_none() {
            return Err(WordError::Brace);
        }
        let name = self.name();
        if name.is_empty() {
            return Err(WordError::Name);
        }
        let value = self.value(&name)?;
        let colon = self.take(':');
        let modifier = self.rest.next().ok_or(WordError::Brace)?;
        let set = value.as_deref().is_some_and(|value| !colon || !value.is_empty());
        match modifier {
            '}' if !colon => Ok(value.unwrap_or_default()),
            '-' => {
                let word = self.nested(set)?;
                Ok(if set { value.unwrap_or_default() } else { word })
            }
            '+' => {
                let word = self.nested(!set)?;
                Ok(if set { word } else { String::new() })
            }
            '?' => {
                let mut message = self.nested(set)?;
                if set || self.unused {
                    return Ok(value.unwrap_or_default());
                }
                if message.is_empty() {
                    message = if value.is_some() { "is empty" } else { "is not set" }.to_owned();
                }
                Err(WordError::Required { name, message })
            }
            '#' | '%' if !colon => {
                let longest = self.take(modifier);
                let pattern = self.pattern(false)?;
                let value = value.unwrap_or_default();
                Ok(if modifier == '#' {
                    pattern.without_start(&value, longest)
                } else {
                    pattern.without_end(&value, longest)
                })
            }
            '/' if !colon => {
                let all = self.take('/');
                let pattern = self.pattern(true)?;
                // Without a second slash what matches is taken away.
                let word = if pattern.closed { String::new() } else { self.nested(false)? };
                let most = self.left;
                pattern.replace(&value.unwrap_or_default(), &word, all, most).ok_or(WordError::Long)
            }
            other => {
                let colon = if colon { ":" } else { "" };
                Err(WordError::Modifier { name, modifier: format!("{colon}{other}") })
            }
        }
    }

    /// A word within braces, up to the one that closes them.
    fn nested(&mut self, unused: bool) -> Result<String, WordError> {
        let before = (self.unused, self.quotes);
        self.unused |= unused;
        let mut output = Output::default();
        let result = self.until(Some('}'), &mut output);
        (self.unused, self.quotes) = before;
        result.map(|()| output.text)
    }

    /// A pattern up to the brace that closes, or, where that is asked for, to a slash. What is quoted is no pattern.
    fn pattern(&mut self, slash: bool) -> Result<Pattern, WordError> {
        let mut pattern = Pattern { parts: vec![Vec::new()], closed: false };
        let mut length = 0;
        loop {
            let c = self.rest.next().ok_or(WordError::Brace)?;
            let mut quoted = Output::default();
            let mut open = String::new();
            match c {
                '}' => {
                    pattern.closed = true;
                    return Ok(pattern);
                }
                '/' if slash => return Ok(pattern),
                '\'' if self.quotes == Quotes::Remove => self.single(&mut quoted)?,
                '"' if self.quotes == Quotes::Remove => self.double(&mut quoted)?,
                '$' => open = self.dollar()?,
                c if c == self.escape => quoted.text.extend(self.rest.next()),
                c => open.push(c),
            }
            length += quoted.text.len() + open.len();
            if length > LONGEST_PATTERN {
                return Err(WordError::Pattern);
            }
            quoted.text.chars().for_each(|c| pattern.add(Some(c)));
            for c in open.chars() {
                match c {
                    '*' => pattern.parts.push(Vec::new()),
                    '?' => pattern.add(None),
                    c => pattern.add(Some(c)),
                }
            }
        }
    }
}

/// A pattern of the shell's: what stands between its `*`, in which `None` is any one character.
struct Pattern {
    parts: Vec<Vec<Option<char>>>,
    /// It ended at a brace.
    closed: bool,
}

impl Pattern {
    fn add(&mut self, c: Option<char>) {
        // There is always one.
        if let Some(part) = self.parts.last_mut() {
            part.push(c);
        }
    }

    /// Where the match that begins exactly at the text's begin ends.
    fn end(&self, text: &[char], longest: bool) -> Option<usize> {
        let (first, others) = self.parts.split_first()?;
        if !matches(first, text) {
            return None;
        }
        let mut at = first.len();
        for (number, part) in others.iter().enumerate() {
            // What stands before a `*` may as well match as early as it can.
            let last = number + 1 == others.len();
            at += match last && longest {
                true => (0..=text.len() - at).rev().find(|from| matches(part, &text[at + from..]))?,
                false => (0..=text.len() - at).find(|from| matches(part, &text[at + from..]))?,
            };
            at += part.len();
        }
        Some(at)
    }

    fn without_start(&self, value: &str, longest: bool) -> String {
        let text: Vec<char> = value.chars().collect();
        let end = self.end(&text, longest).unwrap_or(0);
        text[end..].iter().collect()
    }

    fn without_end(&self, value: &str, longest: bool) -> String {
        let text: Vec<char> = value.chars().rev().collect();
        let parts = self.parts.iter().rev().map(|part| part.iter().rev().copied().collect()).collect();
        let end = Self { parts, closed: false }.end(&text, longest).unwrap_or(0);
        text[end..].iter().rev().collect()
    }

    /// The value with `word` where the pattern matches: at the first place, as long as it can, or at all. Nothing if it
    /// became longer than `most` bytes.
    fn replace(&self, value: &str, word: &str, all: bool, most: usize) -> Option<String> {
        let text: Vec<char> = value.chars().collect();
        let mut result = String::new();
        let mut at = 0;
        let first = &self.parts[0];
        while at < text.len() {
            // If it matches anywhere, then where what stands before its first `*` does.
            let found = (at..text.len()).find(|from| matches(first, &text[*from..]));
            let found = found.and_then(|from| Some((from, from + self.end(&text[from..], true)?)));
            // What matches nothing would be found everywhere.
            let Some((from, to)) = found.filter(|(from, to)| to > from) else { break };
            result.extend(&text[at..from]);
            result.push_str(word);
            at = to;
            if result.len() > most {
                return None;
            }
            if !all {
                break;
            }
        }
        result.extend(&text[at..]);
        (result.len() <= most).then_some(result)
    }
}

/// Whether the text begins with the part.
fn matches(part: &[Option<char>], text: &[char]) -> bool {
    part.len() <= text.len() && part.iter().zip(text).all(|(part, c)| part.is_none_or(|part| part == *c))
}
