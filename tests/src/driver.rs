//! The guest's side by hand: memory in a memfd, and split rings and disk requests written into it byte by byte.
//!
//! The driver reads and writes its memory through the descriptor, the device through a mapping of it; Linux keeps both the
//! same.

mod disk;
mod memory;
mod ring;

pub use disk::{Command, SECTOR};
pub use memory::{GuestMemory, table};
pub use ring::{BLOCK, INDIRECT, NEXT, Ring, WRITE, signal, signals, wait_readable};
