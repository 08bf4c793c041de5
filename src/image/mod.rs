//! Images (L3): references, manifests, transports, registries, unpacking.

pub mod archive;
pub mod auth;
pub mod create;
pub mod hello;
pub mod instruction;
pub mod layer;
pub mod manifest;
pub mod pack;
mod pipe;
mod proxy;
pub mod pull;
pub mod recipe;
pub mod reference;
pub mod registries;
pub mod registry;
mod resolver;
pub mod source;
mod tls;
pub mod transport;
pub mod trust;
pub mod unpack;

pub use auth::Credentials;
pub use manifest::Platform;
pub use pull::{Progress, PullOptions, Silent, pull};
pub use reference::Reference;
pub use registries::Registries;
pub use transport::Transport;
