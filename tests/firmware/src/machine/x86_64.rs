//! A PC, as QEMU makes them.

use core::{
    arch::{asm, global_asm},
    hint::spin_loop,
};

/// Where RAM begins; its first byte is the first one of its file.
pub(crate) const RAM: usize = 0;

const SERIAL: u16 = 0x3f8;
const DEBUG_EXIT: u16 = 0xf4;

// QEMU begins in 32-bit mode without paging. Long mode needs page tables: the first GiB, each address as it is.
global_asm!(
    ".section .note.pvh, \"a\"",
    ".balign 4",
    ".long 4, 8, 18", // the lengths of name and content; 18 says that the content is the address to begin at
    ".asciz \"Xen\"",
    ".quad entry",
    ".section .bss.tables, \"aw\", @nobits",
    ".balign 4096",
    "tables: .skip 3 * 4096",
    ".section .rodata.segments, \"a\"",
    ".balign 8",
    "segments: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
    "segments_place: .word 23",
    ".quad segments",
    ".section .text.entry, \"ax\"",
    ".globl entry",
    ".code32",
    "entry:",
    "movl $tables + 4096 + 3, tables",
    "movl $tables + 8192 + 3, tables + 4096",
    "xorl %ecx, %ecx",
    "2: movl %ecx, %eax",
    "shll $21, %eax",
    "orl $0x83, %eax", // 2 MiB, present, writable
    "movl %eax, tables + 8192(, %ecx, 8)",
    "incl %ecx",
    "cmpl $512, %ecx",
    "jne 2b",
    "movl $tables, %eax",
    "movl %eax, %cr3",
    "movl %cr4, %eax",
    "orl $0x620, %eax", // long page table entries, SSE and its exceptions
    "movl %eax, %cr4",
    "movl $0xc0000080, %ecx",
    "rdmsr",
    "orl $0x100, %eax", // long mode
    "wrmsr",
    "movl %cr0, %eax",
    "andl $~4, %eax",        // no emulation of the FPU
    "orl $0x80000002, %eax", // paging
    "movl %eax, %cr0",
    "lgdt segments_place",
    "ljmp $8, $long_mode",
    ".code64",
    "long_mode:",
    "movw $16, %ax",
    "movw %ax, %ds",
    "movw %ax, %es",
    "movw %ax, %ss",
    "movabsq $stack_top, %rsp",
    "call start",
    options(att_syntax)
);

/// Reads a register of the serial line.
pub(crate) fn read_port(register: u16) -> u8 {
    let value: u8;
    // SAFETY: the machine has the registers of a 16550 there, and reading one only takes a byte from its queue.
    unsafe { asm!("in al, dx", out("al") value, in("dx") SERIAL + register, options(nomem, nostack)) }
    value
}

/// Writes a register of the serial line.
pub(crate) fn write_port(register: u16, value: u8) {
    // SAFETY: as above; the callers write bytes to send and settings, which touch no memory.
    unsafe { asm!("out dx, al", in("al") value, in("dx") SERIAL + register, options(nomem, nostack)) }
}

/// Ends the machine with this status; QEMU makes `2 * status + 1` of it.
pub(crate) fn end(status: u8) -> ! {
    // SAFETY: QEMU's debug exit device is there; it ends QEMU.
    unsafe { asm!("out dx, al", in("al") status, in("dx") DEBUG_EXIT, options(nomem, nostack)) }
    loop {
        spin_loop();
    }
}

/// What the compiler calls to copy, fill and compare; on this target the C library has them elsewhere.
mod memory {
    use core::arch::asm;

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        // SAFETY: whoever calls it promises `count` bytes at both places, apart from each other.
        unsafe {
            asm!("rep movsb", inout("rcx") count => _, inout("rdi") to => _, inout("rsi") from => _, options(nostack));
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
        if to.addr().wrapping_sub(from.addr()) >= count {
            // SAFETY: as promised by the caller; forwards, no byte is overwritten before it is read.
            return unsafe { memcpy(to, from, count) };
        }
        let (to_last, from_last) = (to.wrapping_add(count).wrapping_sub(1), from.wrapping_add(count).wrapping_sub(1));
        // SAFETY: as promised by the caller; backwards, no byte is overwritten before it is read.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") count => _, inout("rdi") to_last => _,
                inout("rsi") from_last => _, options(nostack));
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
        // SAFETY: whoever calls it promises `count` bytes.
        unsafe {
            asm!("rep stosb", inout("rcx") count => _, inout("rdi") to => _, in("al") value as u8, options(nostack));
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        for offset in 0..count {
            // SAFETY: whoever calls it promises `count` bytes at both places.
            let (a, b) = unsafe { (one.add(offset).read_volatile(), other.add(offset).read_volatile()) };
            if a != b {
                return i32::from(a).wrapping_sub(i32::from(b));
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, count: usize) -> i32 {
        // SAFETY: as promised by the caller.
        unsafe { memcmp(one, other, count) }
    }
}
