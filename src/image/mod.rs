//! Images (L3): references, manifests, transports, registries, unpacking.
