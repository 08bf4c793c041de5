//! stub
use crate::storage::{Store, images::ImageRecord};
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct Error;
impl Error {
    pub fn hint(&self) -> Option<String> {
        None
    }
}
pub enum PullPolicy {
    A,
}
impl std::str::FromStr for PullPolicy {
    type Err = String;
    fn from_str(_: &str) -> Result<Self, String> {
        Ok(Self::A)
    }
}
pub struct PullOptions {
    pub platform: Option<String>,
    pub os: Option<String>,
    pub arch: Option<String>,
    pub variant: Option<String>,
    pub tls_verify: Option<bool>,
    pub authfile: Option<std::path::PathBuf>,
    pub creds: Option<String>,
    pub cert_dir: Option<std::path::PathBuf>,
}
pub fn ensure(_: &Store, _: &str, _: PullPolicy, _: &PullOptions, _: ()) -> Result<ImageRecord, Error> {
    Err(Error)
}
pub fn inspect(_: &Store, _: &str) -> Result<Option<serde_json::Value>, Error> {
    Err(Error)
}
