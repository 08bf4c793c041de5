//! The monitor (L4): one supervising process a container.
