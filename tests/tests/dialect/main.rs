//! Where sessions differ: the dialects of the back-end's channel, the bit that means SHMEM, Xen's regions, and what is
//! in a crypto session.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod auto;
mod collisions;
mod crypto;
mod maps;
mod message;
mod receiving;
mod sending;
mod session;
mod shmem_bit;
mod xen;
