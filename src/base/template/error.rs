//! What can be wrong with a template.

use std::fmt;

/// A template that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The text is no template.
    #[error("template, line {line}, column {column}: {problem}")]
    Parse {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong there.
        problem: ParseProblem,
    },
    /// The template does not fit the data.
    #[error("template, at <{at}>: {problem}")]
    Render {
        /// The field, variable or function that failed, as written.
        at: String,
        /// Why.
        problem: RenderProblem,
    },
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ParseProblem {
    /// `{{` without `}}`.
    UnclosedAction,
    /// `{{/*` without `*/}}`.
    UnclosedComment,
    /// A string or character constant without its end.
    UnclosedQuote,
    /// An escape that Go does not know.
    BadEscape(String),
    /// A character constant that is not one character.
    BadCharacter,
    /// A text that starts like a number and is none.
    BadNumber(String),
    /// A character that no token starts with.
    UnexpectedCharacter(char),
    /// A token in a place where it cannot stand.
    Unexpected(String),
    /// `{{}}`, `a | ` or the like.
    MissingValue,
    /// A function that is not known.
    UnknownFunction(String),
    /// A variable that is not declared.
    UnknownVariable(String),
    /// `if`, `range` or `with` without `end`.
    MissingEnd(&'static str),
    /// `break` or `continue` outside `range`.
    OutsideRange(&'static str),
    /// `define`, `template` or `block`.
    Unsupported(String),
    /// Parentheses or blocks nested too deeply.
    TooDeep,
    /// A field of a constant, or a constant that is given arguments.
    NotAFunction(String),
}

impl fmt::Display for ParseProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnclosedAction => f.write_str("\"{{\" is not closed by \"}}\""),
            Self::UnclosedComment => f.write_str("the comment is not closed by \"*/}}\""),
            Self::UnclosedQuote => f.write_str("the quoted text is not closed"),
            Self::BadEscape(text) => write!(f, "unknown escape \"{text}\""),
            Self::BadCharacter => f.write_str("a character constant must hold one character"),
            Self::BadNumber(text) => write!(f, "\"{text}\" is not a number"),
            Self::UnexpectedCharacter(c) => write!(f, "unexpected character {c:?}"),
            Self::Unexpected(text) => write!(f, "unexpected {text}"),
            Self::MissingValue => f.write_str("a value is missing"),
            Self::UnknownFunction(name) => write!(f, "function \"{name}\" is not defined"),
            Self::UnknownVariable(name) => write!(f, "variable \"{name}\" is not defined"),
            Self::MissingEnd(what) => write!(f, "\"{{{{{what}}}}}\" has no \"{{{{end}}}}\""),
            Self::OutsideRange(what) => write!(f, "\"{what}\" outside \"range\""),
            Self::Unsupported(what) => write!(f, "\"{what}\" is not supported"),
            Self::TooDeep => f.write_str("nested too deeply"),
            Self::NotAFunction(text) => write!(f, "{text} takes no arguments: it is not a function"),
        }
    }
}

/// Why a template does not fit the data.
#[derive(Debug, Clone, PartialEq)]
pub enum RenderProblem {
    /// No such field, and perhaps one of a similar name.
    NoField {
        /// The name.
        name: String,
        /// A field that the user may have meant.
        similar: Option<String>,
    },
    /// A field of something that has no fields.
    FieldOf {
        /// The name.
        name: String,
        /// The kind of the value: `string`, `number` …
        kind: &'static str,
    },
    /// A function was given too few or too many arguments.
    ArgumentCount {
        /// What it takes.
        want: &'static str,
        /// What it was given.
        got: usize,
    },
    /// An argument of the wrong kind.
    ArgumentKind {
        /// What it takes.
        want: &'static str,
        /// The kind it was given.
        got: &'static str,
    },
    /// An index beyond a list's end.
    IndexOutOfRange {
        /// The index.
        index: i64,
        /// The list's length.
        len: usize,
    },
    /// Values that cannot be compared.
    Incomparable(&'static str, &'static str),
    /// `range` over something that is no list, map or number.
    NotARange(&'static str),
}

impl fmt::Display for RenderProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoField { name, similar: None } => write!(f, "there is no field \"{name}\""),
            Self::NoField { name, similar: Some(similar) } => {
                write!(f, "there is no field \"{name}\" (did you mean \"{similar}\"?)")
            }
            Self::FieldOf { name, kind } => write!(f, "field \"{name}\" of a {kind}"),
            Self::ArgumentCount { want, got } => write!(f, "takes {want}, got {got}"),
            Self::ArgumentKind { want, got } => write!(f, "takes a {want}, got a {got}"),
            Self::IndexOutOfRange { index, len } => write!(f, "index {index} of a list of {len}"),
            Self::Incomparable(a, b) => write!(f, "a {a} cannot be compared with a {b}"),
            Self::NotARange(kind) => write!(f, "\"range\" over a {kind}"),
        }
    }
}
