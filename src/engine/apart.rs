//! Work that is done in a process of its own: its errors come back as text, named by what was being done.

use super::images::Failure;
use crate::sys::child;

/// What such a process did not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It failed, and told why.
    #[error("{action} \"{name}\": {message}")]
    Failed {
        /// As "pushing".
        action: &'static str,
        /// What.
        name: String,
        /// The chain of errors.
        message: String,
        /// What may help.
        hint: Option<String>,
    },
    /// It gave no answer.
    #[error("{action} \"{name}\"")]
    Child {
        /// As "pushing".
        action: &'static str,
        /// What.
        name: String,
        /// Why.
        #[source]
        source: child::Error,
    },
}

impl Error {
    /// How to mend it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Failed { hint, .. } => hint.clone(),
            Self::Child { .. } => None,
        }
    }
}

/// What came of it.
pub(super) fn told<T>(
    action: &'static str,
    name: &str,
    answer: Result<Result<T, Failure>, child::Error>,
) -> Result<T, Error> {
    let name = name.to_owned();
    match answer {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(Failure { message, hint, .. })) => Err(Error::Failed { action, name, message, hint }),
        Err(source) => Err(Error::Child { action, name, source }),
    }
}
