//! QEMU's RISC-V machine "virt".

use core::{arch::global_asm, hint::spin_loop};

/// Where RAM begins; its first byte is the first one of its file.
pub(crate) const RAM: usize = 0x8000_0000;

const SERIAL: usize = 0x1000_0000;
const TEST_DEVICE: usize = 0x10_0000;

global_asm!(
    ".section .text.entry, \"ax\"",
    ".globl entry",
    "entry:",
    // The compiler may use registers for floating-point numbers: the state "initial" lets it.
    "li t0, 0x2000",
    "csrs mstatus, t0",
    "la sp, stack_top",
    "call start",
);

/// Reads a register of the serial line.
pub(crate) fn read_port(register: u16) -> u8 {
    let address = SERIAL + usize::from(register);
    // SAFETY: the machine has the registers of a 16550 there, and reading one only takes a byte from its queue.
    unsafe { (address as *const u8).read_volatile() }
}

/// Writes a register of the serial line.
pub(crate) fn write_port(register: u16, value: u8) {
    let address = SERIAL + usize::from(register);
    // SAFETY: as above; the callers write bytes to send and settings, which touch no memory.
    unsafe { (address as *mut u8).write_volatile(value) }
}

/// Ends the machine with this status.
pub(crate) fn end(status: u8) -> ! {
    let word = match status {
        0 => 0x5555,
        _ => (u32::from(status) << 16) | 0x3333,
    };
    // SAFETY: the machine's test device is there; it ends QEMU.
    unsafe { (TEST_DEVICE as *mut u32).write_volatile(word) }
    loop {
        spin_loop();
    }
}
