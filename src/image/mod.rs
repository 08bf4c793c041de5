//! Images (L3): references, manifests, transports, registries, unpacking.

pub mod archive;
pub mod layer;
pub mod manifest;
mod pipe;
pub mod reference;
pub mod unpack;
