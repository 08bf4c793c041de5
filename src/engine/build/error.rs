//! Why nothing is built.

use std::io;
use std::path::PathBuf;

use super::request::Allowed;
use super::{context, copy, stages};
use crate::engine;
use crate::image::{create, dockerfile, instruction};
use crate::sys::child;

/// Why nothing is built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The context, or the Dockerfile in it, cannot be read.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// A file that a flag names cannot be read.
    #[error("reading \"{}\"", path.display())]
    File {
        /// As given.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no Dockerfile.
    #[error("\"{context}\" has neither a Containerfile nor a Dockerfile")]
    NoFile {
        /// The context.
        context: String,
    },
    /// The Dockerfile is none.
    #[error("{file} line {line}")]
    Parse {
        /// Its name.
        file: String,
        /// From 1.
        line: usize,
        /// Why.
        #[source]
        source: dockerfile::Problem,
    },
    /// The ignore file is none.
    #[error("{file}")]
    Ignore {
        /// Its name.
        file: String,
        /// Why.
        #[source]
        source: dockerfile::ignore::IgnoreError,
    },
    /// A name of a stage.
    #[error(transparent)]
    Stage(#[from] stages::Error),
    /// A step.
    #[error("{file} line {line}: {text}")]
    Step {
        /// The Dockerfile.
        file: String,
        /// From 1.
        line: usize,
        /// The instruction, in short.
        text: String,
        /// Why.
        #[source]
        source: Box<Failed>,
    },
    /// Putting the image together.
    #[error("putting the image together")]
    Whole(#[source] Box<Failed>),
    /// The name of the new image.
    #[error(transparent)]
    Name(#[from] engine::commit::Error),
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Variables.
    #[error(transparent)]
    Expand(#[from] dockerfile::ExpandError),
    /// What it says of the configuration.
    #[error(transparent)]
    Instruction(#[from] instruction::Error),
    /// An instruction that the base image wants carried out.
    #[error("the base image's \"ONBUILD {0}\"")]
    Trigger(String, #[source] dockerfile::Problem),
    /// Copying.
    #[error(transparent)]
    Copy(#[from] copy::Error),
    /// The context.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// Images, containers, the store.
    #[error(transparent)]
    Engine(Box<engine::Error>),
    /// What a process that worked on files has told.
    #[error("{message}")]
    Told {
        /// The chain of errors.
        message: String,
        /// What may help.
        hint: Option<String>,
    },
    /// It told nothing.
    #[error(transparent)]
    Apart(#[from] child::Error),
    /// Making an image.
    #[error(transparent)]
    Create(#[from] create::Error),
    /// The command ended with another status than 0.
    #[error("the command ended with status {code}")]
    Ended {
        /// As a shell tells it.
        code: u8,
        /// What may have been the reason.
        hint: Option<String>,
    },
    /// The command could not be started.
    #[error("{message}")]
    NotStarted {
        /// As a shell tells it.
        code: u8,
        /// Why.
        message: String,
        /// The cure, if it is known.
        hint: Option<String>,
    },
    /// It reaches beyond the container, and the user has not said that it may.
    #[error("{0} is not allowed")]
    NotAllowed(&'static str, Allowed),
    /// A stage that it takes files of.
    #[error(transparent)]
    Stage(Box<Error>),
    /// Known, and not done here.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// Something that a mount needs is not there.
    #[error("--mount of {kind}: {why}")]
    Mount {
        /// As `secret`.
        kind: String,
        /// What is wrong.
        why: String,
    },
    /// A file for a mount.
    #[error("{action} \"{}\"", path.display())]
    File {
        /// As "writing".
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `FROM` has nothing to say after its variables are replaced.
    #[error("after its variables are replaced, \"{0}\" is no image's name")]
    NoBase(String),
}

impl From<engine::Error> for Failed {
    fn from(error: engine::Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl From<crate::storage::Error> for Failed {
    fn from(error: crate::storage::Error) -> Self {
        Self::Engine(Box::new(error.into()))
    }
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Step { source, .. } | Self::Whole(source) => source.hint(),
            Self::Context(error) => error.hint(),
            Self::Parse { source, .. } => source.hint(),
            Self::Name(error) => error.hint(),
            Self::NoFile { .. } => {
                Some("-f FILE names it; the last word is the context's directory".to_owned())
            }
            _ => None,
        }
    }

    /// What to exit with: a step's own status where a command failed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Step { source, .. } => match &**source {
                Failed::Ended { code, .. } | Failed::NotStarted { code, .. } => *code,
                Failed::Engine(error) => error.exit_code(),
                Failed::Stage(error) => error.exit_code(),
                _ => 125,
            },
            _ => 125,
        }
    }
}

impl Failed {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Ended { hint, .. } | Self::NotStarted { hint, .. } | Self::Told { hint, .. } => {
                hint.clone()
            }
            Self::Engine(error) => error.hint(),
            Self::Stage(error) => error.hint(),
            Self::NotAllowed(_, allowed) => {
                Some(format!("--allow {} lets the Dockerfile do that", allowed.word()))
            }
            Self::Context(error) => error.hint(),
            _ => None,
        }
    }
}
