//! Images (L3): references, manifests, transports, registries, unpacking, handing out.

pub mod archive;
pub mod artifact;
pub mod auth;
pub mod chunked;
pub mod compress;
pub mod content;
pub mod copy;
pub mod create;
pub mod destination;
pub mod dockerfile;
pub mod hello;
pub mod instruction;
pub mod layer;
pub mod list;
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
pub mod verify;

pub use auth::Credentials;
pub use manifest::Platform;
pub use pull::{Progress, PullOptions, Silent, pull};
pub use push::{PushOptions, push};
pub use reference::Reference;
pub use registries::Registries;
pub use transport::Transport;

/// What a mutex holds, also after a thread that held it has panicked: who joins that thread is told.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
