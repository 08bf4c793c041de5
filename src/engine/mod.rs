//! The engine (L5): composes storage, images, the runtime and the monitor into containers.
