//! Flags of instructions: `--name[=value]` before everything else.

use super::Problem;
use super::error::similar;

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    Text,
    /// `--name`, `--name=true`, `--name=false`
    YesNo,
    /// As [`Takes::Text`], any number of times.
    Texts,
    /// Others know it.
    Unsupported,
}

/// The flags of each instruction.
fn known(instruction: &str) -> &'static [(&'static str, Takes)] {
    use Takes::{Text, Texts, Unsupported, YesNo};
    match instruction {
        "FROM" => &[("platform", Text)],
        "RUN" => &[("mount", Texts), ("network", Text), ("security", Text), ("device", Unsupported)],
        "COPY" => &[
            ("from", Text),
            ("chown", Text),
            ("chmod", Text),
            ("link", YesNo),
            ("parents", YesNo),
            ("exclude", Texts),
        ],
        "ADD" => &[
            ("chown", Text),
            ("chmod", Text),
            ("link", YesNo),
            ("exclude", Texts),
            ("checksum", Text),
            ("keep-git-dir", YesNo),
            ("unpack", YesNo),
        ],
        "HEALTHCHECK" => &[
            ("interval", Text),
            ("timeout", Text),
            ("start-period", Text),
            ("start-interval", Text),
            ("retries", Text),
        ],
        _ => &[],
    }
}

/// The flags that are given, without their quotes.
#[derive(Debug)]
pub(super) struct Flags {
    instruction: &'static str,
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// Takes the flags from the begin of what follows an instruction. Second, the rest.
    pub fn take<'t>(
        instruction: &'static str,
        text: &'t str,
        escape: char,
    ) -> Result<(Self, &'t str), Problem> {
        let known = known(instruction);
        let mut flags = Self { instruction, given: Vec::new() };
        let mut rest = text.trim();
        while rest.starts_with("--") {
            let (word, after) = first_word(rest, escape);
            rest = after.trim_start();
            if word == "--" {
                break;
            }
            let (name, value) = match word[2..].split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&word[2..], None),
            };
            let Some((flag, takes)) = known.iter().find(|(flag, _)| *flag == name) else {
                let names: Vec<_> = known.iter().map(|(flag, _)| *flag).collect();
                let similar = similar(name, &names);
                return Err(Problem::Flag { instruction, flag: name.to_owned(), similar });
            };
            if *takes != Takes::Texts && flags.given.iter().any(|(given, _)| given == flag) {
                return Err(Problem::FlagTwice { instruction, flag });
            }
            let value = match (takes, value) {
                (Takes::Unsupported, _) => return Err(Problem::FlagUnsupported { instruction, flag }),
                (Takes::YesNo, value) => match &*value.unwrap_or_default().to_ascii_lowercase() {
                    "" | "true" => "true".to_owned(),
                    "false" => "false".to_owned(),
                    _ => return Err(flags.wrong(flag, value.unwrap_or_default(), "true or false")),
                },
                (_, Some(value)) => value.to_owned(),
                (_, None) => return Err(flags.wrong(flag, "", "a value, as in --flag=VALUE")),
            };
            flags.given.push((flag, value));
        }
        Ok((flags, rest))
    }

    /// The value of a flag that takes a text; an empty one is none.
    pub fn text(&self, name: &str) -> Option<String> {
        self.texts(name).next().filter(|value| !value.is_empty())
    }

    /// The values of a flag that may be there more than once.
    pub fn texts<'s>(&'s self, name: &str) -> impl Iterator<Item = String> + use<'s> {
        let given = self.given.iter().position(|(given, _)| *given == name);
        let flag = given.map(|at| self.given[at].0);
        self.given.iter().filter(move |(given, _)| Some(*given) == flag).map(|(_, value)| value.clone())
    }

    /// Yes or no, if it is there.
    pub fn yes_no(&self, name: &str) -> Option<bool> {
        self.texts(name).next().map(|value| value == "true")
    }

    /// The value of a flag, if it is one of those that it may have.
    pub fn one_of(
        &self,
        flag: &'static str,
        values: &[&str],
        takes: &'static str,
    ) -> Result<Option<String>, Problem> {
        match self.text(flag) {
            Some(value) if !values.contains(&&*value) => Err(self.wrong(flag, &value, takes)),
            value => Ok(value),
        }
    }

    /// Whether there is any.
    pub fn first(&self) -> Option<&'static str> {
        self.given.first().map(|(name, _)| *name)
    }

    pub fn wrong(&self, flag: &'static str, value: &str, takes: &'static str) -> Problem {
        Problem::FlagValue { instruction: self.instruction, flag, value: value.to_owned(), takes }
    }
}

/// A word without its quotes, and what follows it. Variables stay.
fn first_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            (c, None | Some('"')) if c == escape => word.extend(chars.next().map(|(_, c)| c)),
            (c, None) if c.is_whitespace() => return (word, &text[at..]),
            _ => word.push(c),
        }
    }
    (word, "")
}
