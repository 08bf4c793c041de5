//! `build`: images out of Dockerfiles.

pub(super) mod changes;
pub mod output;
pub mod prune;
pub mod request;

use self::request::BuildRequest;
use super::Engine;
use crate::storage::ImageRecord;

/// What a build tells while it goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A step begins.
    Step {
        /// Number of the stage from 1, and how many there are, where it is more than one.
        stage: Option<(usize, usize)>,
        /// Number of the step from 1, `FROM` being one.
        step: usize,
        /// How many there are in this stage.
        of: usize,
        /// The instruction as it is written.
        text: String,
    },
    /// The step was there from a former build.
    Cached,
    /// A layer was made; the first digits of what identifies it.
    Layer(String),
    /// The image is being put together, under these names.
    Commit(Vec<String>),
    /// Something that is no error.
    Warning(String),
}

/// Why nothing is built.
#[derive(Debug, thiserror::Error)]
pub enum Error {}

impl Engine {
    /// Builds an image.
    ///
    /// The caller must be single-threaded.
    pub fn build(
        &self,
        request: &BuildRequest,
        tell: &mut dyn FnMut(Told),
    ) -> Result<ImageRecord, super::Error> {
        let _ = (request, tell);
        unreachable!()
    }
}
