//! What may be wrong with a Dockerfile.

use crate::base::report::plain;

/// A Dockerfile that says nothing that could be built: where, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Dockerfile line {line}")]
pub struct Error {
    pub(super) line: usize,
    #[source]
    pub(super) problem: Problem,
}

impl Error {
    /// The line that the instruction begins at, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// What is wrong, for who names the file and the line himself.
    pub fn into_problem(self) -> Problem {
        self.problem
    }

    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        self.problem.hint()
    }
}

/// What is wrong, without its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Bytes that are no text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// A NUL, which no program's arguments can have.
    #[error("it has a NUL character")]
    Nul,
    /// No instruction at all.
    #[error("the file has no instruction")]
    NoInstruction,
    /// Nothing to begin with.
    #[error("the file has no FROM, which says what to build upon")]
    NoFrom,
    /// `# escape=` with something else.
    #[error("\"{}\" cannot be the escape character: it is \\ or `", plain(.0))]
    Escape(String),
    /// A directive that is there already.
    #[error("the directive \"{0}\" is there twice")]
    DirectiveTwice(String),
    /// An instruction that there is not.
    #[error("there is no instruction \"{}\"", plain(word))]
    Unknown {
        /// The word.
        word: String,
        /// What may be meant.
        similar: Option<&'static str>,
    },
    /// Before anything that it could apply to.
    #[error("{0} stands before the first FROM: only ARG may")]
    BeforeFrom(&'static str),
    /// Nothing, or too little, follows it.
    #[error("{instruction} lacks {what}")]
    Lacks {
        /// The instruction.
        instruction: &'static str,
        /// What it lacks.
        what: &'static str,
    },
    /// A flag that the instruction does not have.
    #[error("{instruction} has no flag \"--{}\"", plain(flag))]
    Flag {
        /// The instruction.
        instruction: &'static str,
        /// The flag's name.
        flag: String,
        /// What may be meant.
        similar: Option<&'static str>,
    },
    /// A flag that others know.
    #[error("{instruction} --{flag} is not supported yet")]
    FlagUnsupported {
        /// The instruction.
        instruction: &'static str,
        /// The flag's name.
        flag: &'static str,
    },
    /// A flag that is there already.
    #[error("{instruction} --{flag} is there twice")]
    FlagTwice {
        /// The instruction.
        instruction: &'static str,
        /// The flag's name.
        flag: &'static str,
    },
    /// A flag's value is none that it takes.
    #[error("{instruction} --{flag} takes {takes}, not \"{}\"", plain(value))]
    FlagValue {
        /// The instruction.
        instruction: &'static str,
        /// The flag's name.
        flag: &'static str,
        /// What is given.
        value: String,
        /// What is expected.
        takes: &'static str,
    },
    /// `--mount`
    #[error("RUN --mount={}", plain(mount))]
    Mount {
        /// The flag's value.
        mount: String,
        /// What is wrong.
        #[source]
        source: MountError,
    },
    /// What follows the instruction is of the wrong form.
    #[error("{instruction} takes {takes}, not \"{}\"", plain(given))]
    Form {
        /// The instruction.
        instruction: &'static str,
        /// What it takes.
        takes: &'static str,
        /// What is there.
        given: String,
    },
    /// A JSON list with something else than texts.
    #[error("the list that {0} has may consist of texts alone")]
    NotTexts(&'static str),
    /// A stage's name.
    #[error(
        "a stage cannot be named \"{}\": names begin with a letter, letters, digits, \"-\", \"_\" and \".\" follow",
        plain(.0)
    )]
    StageName(String),
    /// `ONBUILD` of what cannot be kept for later.
    #[error("ONBUILD cannot keep {0} for later")]
    OnBuild(&'static str),
    /// A text within the file that does not end.
    #[error(
        "the text that {instruction} begins with <<{} does not end: no line is just that word",
        plain(name)
    )]
    HeredocEnd {
        /// The instruction.
        instruction: &'static str,
        /// The word.
        name: String,
    },
    /// `COPY … <<EOF`
    #[error("the last word of {0} says where to copy to: it cannot be a text of the file (<<)")]
    HeredocDestination(&'static str),
    /// More than one instruction where one is kept.
    #[error("it is more than one instruction")]
    NotSingle,
}

impl Problem {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown { similar: Some(similar), .. } => Some(format!("did you mean {similar}?")),
            Self::Unknown { similar: None, .. } => Some(
                "an instruction that goes on in the next line has a \\ at the end of this one".to_owned(),
            ),
            Self::Flag { similar: Some(similar), .. } => Some(format!("did you mean --{similar}?")),
            Self::Mount { source, .. } => source.hint(),
            Self::NoFrom => {
                Some("begin with \"FROM IMAGE\", or \"FROM scratch\" for an empty one".to_owned())
            }
            _ => None,
        }
    }
}

/// What may be wrong with the members of `RUN --mount`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// `type=`
    #[error(
        "there is no such mount as \"{}\": the types are bind, cache, secret, ssh and tmpfs",
        plain(kind)
    )]
    Kind {
        /// The type.
        kind: String,
        /// What may be meant.
        similar: Option<&'static str>,
    },
    /// A member that there is not.
    #[error("\"{}\" is no member of a mount", plain(member))]
    Member {
        /// Its name.
        member: String,
        /// What may be meant.
        similar: Option<&'static str>,
    },
    /// A member that others know.
    #[error("\"{0}\" of a mount is not supported yet")]
    Unsupported(&'static str),
    /// A member of another kind.
    #[error("a mount of the type {kind} takes no \"{member}\"")]
    NotOfKind {
        /// The type.
        kind: String,
        /// The member.
        member: &'static str,
    },
    /// A member without its value.
    #[error("\"{0}\" lacks its value")]
    NoValue(&'static str),
    /// A member's value.
    #[error("{member} takes {takes}, not \"{}\"", plain(value))]
    Value {
        /// The member.
        member: &'static str,
        /// What it takes.
        takes: &'static str,
        /// What is given.
        value: String,
    },
    /// A member that has to be there.
    #[error("a mount of the type {kind} needs {member}")]
    Needs {
        /// The type.
        kind: String,
        /// The member.
        member: &'static str,
    },
    /// A quote that does not end.
    #[error("a quote is not closed")]
    Quote,
}

impl MountError {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kind { similar: Some(similar), .. } | Self::Member { similar: Some(similar), .. } => {
                Some(format!("did you mean {similar}?"))
            }
            _ => None,
        }
    }
}

/// What a slip may have meant; very long words mean nothing, and would take long to compare.
pub(super) fn similar(word: &str, known: &[&'static str]) -> Option<&'static str> {
    let found = (word.len() <= 30).then(|| crate::base::suggest::closest(word, known.iter().copied()));
    found.flatten()
}
