//! From a spec to a plan, in pure code.

/// The spec asks for what is wrong or not supported.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A field that this runtime does not support.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// A field that is missing or makes no sense.
    #[error("{0}")]
    Invalid(String),
}
