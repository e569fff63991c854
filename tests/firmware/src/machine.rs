//! What differs between machines: how they begin, where the serial line is, and how they end.

#[cfg(target_arch = "riscv64")]
mod riscv64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "riscv64")]
pub(crate) use riscv64::{RAM, end, read_port, write_port};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{RAM, end, read_port, write_port};
