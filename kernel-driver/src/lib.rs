//! Kernel
