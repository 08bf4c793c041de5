//! The store (L2): blobs, layers, images and containers on disk.
