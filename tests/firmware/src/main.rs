//! A vhost-user device as firmware: `vhost-core` on a machine without an operating system.
//!
//! The line that a socket would be elsewhere is a serial line, see `line`; a descriptor is a number; the front-end's memory
//! is a part of this machine's own RAM, see `ram`; kicks and calls are messages. Before it serves anybody, the machine tries
//! both sides of the protocol and of its rings against each other, see `self_test`.
//!
//! It ends with a status, see `device::End`.

#![no_std]
#![no_main]

mod device;
mod line;
mod machine;
mod ram;
mod ring;
mod self_test;

use core::panic::PanicInfo;

use self::device::{Device, End};

/// What the machine does once it has a stack.
#[unsafe(no_mangle)]
extern "C" fn start() -> ! {
    let end = match self_test::run() {
        Some(()) => Device::new().serve(&mut line::Line::open()),
        None => End::SelfTest,
    };
    machine::end(end as u8)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    machine::end(End::Panic as u8)
}
