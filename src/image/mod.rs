//! Images (L3): references, manifests, transports, registries, unpacking, handing out.

pub mod archive;
pub mod auth;
pub mod chunked;
pub mod compress;
pub mod content;
pub mod create;
pub mod destination;
pub mod hello;
pub mod instruction;
pub mod layer;
pub mod login;
pub mod manifest;
pub mod pack;
mod pipe;
mod proxy;
pub mod pull;
pub mod push;
pub mod recipe;
pub mod reference;
pub mod registries;
pub mod registry;
mod resolver;
pub mod rewrite;
pub mod source;
mod tls;
pub mod transport;
pub mod trust;
pub mod unpack;

pub use auth::Credentials;
pub use manifest::Platform;
pub use pull::{Progress, PullOptions, Silent, pull};
pub use push::{PushOptions, push};
pub use reference::Reference;
pub use registries::Registries;
pub use transport::Transport;
