//! Reaches every public function of `vhost-core` with values that the compiler cannot know.
//!
//! The panic handler calls a function that does not exist. If any panic is left after optimisation, linking fails and
//! names `CORE_HAS_A_REACHABLE_PANIC`. With the feature `planted` there is one, to show that it is found.
//!
//! With the feature `firmware` it is only what firmware has of the core, with `recovery` a bit more: what the size of that is
//! measured on.
//!
//! The lists of functions are compared with the documentation of `vhost-core` by `.ci/no-panic`: one that is not in a list
//! is a failure.

#![no_std]

#[macro_use]
mod reach;

#[cfg(not(feature = "firmware"))]
mod all;
#[cfg(feature = "firmware")]
mod firmware;
#[cfg(feature = "recovery")]
mod recovery;

use core::{
    panic::PanicInfo,
    sync::atomic::{AtomicU32, Ordering},
};

unsafe extern "C" {
    fn CORE_HAS_A_REACHABLE_PANIC() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: it does not exist, so a library in which this is reached does not link.
    unsafe { CORE_HAS_A_REACHABLE_PANIC() }
}

/// Memory that others change at any time.
pub(crate) type Memory = vhost_core::WordMemory<'static>;
pub(crate) type Piece = vhost_core::WordRange<'static>;
pub(crate) type Pieces = heapless::Vec<Piece, 64>;

/// Something that must be given back, so that no place where a handle is dropped is optimised away.
#[derive(PartialEq)]
pub struct Handle(u32);

static GIVEN_BACK: AtomicU32 = AtomicU32::new(0);

impl Drop for Handle {
    fn drop(&mut self) {
        GIVEN_BACK.fetch_add(self.0, Ordering::Relaxed);
    }
}

#[cfg(feature = "planted")]
#[unsafe(no_mangle)]
pub extern "C" fn planted(bytes: &[u8; 8], index: usize) -> u8 {
    bytes[index]
}
