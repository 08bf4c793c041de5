//! Control groups (L2): where a container's processes are tracked and limited.
