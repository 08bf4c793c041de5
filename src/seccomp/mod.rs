//! Seccomp: profiles and the compiler from profiles to cBPF.
