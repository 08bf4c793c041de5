//! The OCI runtime (L3): from a spec to a plan to a process.
