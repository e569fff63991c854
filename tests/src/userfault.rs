//! The front-end's part of postcopy migration: it provides pages of memory when somebody else touches them.
#![allow(unsafe_code, reason = "two calls of userfaultfd")]

use core::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::mm::{UserfaultfdFlags, userfaultfd};

use crate::dialog::event;
use crate::driver::{GuestMemory, signal};

const PAGE: u64 = 4096;

/// `UFFD_EVENT_PAGEFAULT`, the first byte of a message of 32; the address is its third number.
const PAGEFAULT: u8 = 0x12;

/// Whether this machine lets this process have faults served by another one.
#[must_use]
pub fn is_granted() -> bool {
    // SAFETY: the descriptor is closed at once.
    unsafe { userfaultfd(UserfaultfdFlags::CLOEXEC) }.is_ok()
}

/// Provides missing pages on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Provider {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<u64>>,
}

impl Provider {
    /// Takes all pages of `memory` away, and provides each when `faults` tells that somebody waits for it, who has the memory
    /// at `address`.
    ///
    /// # Panics
    /// If the memory's pages cannot be taken away.
    #[must_use]
    pub fn start(memory: &Arc<GuestMemory>, faults: OwnedFd, address: u64) -> Self {
        let contents = memory.contents();
        let region = memory.region();
        let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&**memory, mode, region.offset, region.size).unwrap();
        let (memory, stop) = (Arc::clone(memory), Arc::new(event()));
        let until = Arc::clone(&stop);
        let serve = move || {
            let mut provided = 0;
            loop {
                let mut waiting =
                    [PollFd::new(&faults, PollFlags::IN), PollFd::from_borrowed_fd((*until).as_fd(), PollFlags::IN)];
                rustix::io::retry_on_intr(|| poll(&mut waiting, None)).unwrap();
                if !waiting[1].revents().is_empty() {
                    return provided;
                }
                let mut message = [0; 32];
                if rustix::io::read(&faults, &mut message) != Ok(32) || message[0] != PAGEFAULT {
                    continue;
                }
                let missing = u64::from_ne_bytes(message[16..24].try_into().unwrap()) / PAGE * PAGE;
                let offset = missing - address;
                let at = usize::try_from(offset).unwrap();
                memory.write(region.guest + offset, &contents[at..at + PAGE as usize]);
                wake(&faults, missing);
                provided += 1;
            }
        };
        Self { stop, thread: Some(std::thread::spawn(serve)) }
    }

    /// Ends it; how many pages somebody waited for.
    ///
    /// # Panics
    /// If its thread has failed.
    #[must_use]
    pub fn finish(mut self) -> u64 {
        signal(&*self.stop);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// `struct uffdio_range`, for `UFFDIO_WAKE`.
#[repr(C)]
struct Wake {
    start: u64,
    length: u64,
}

// SAFETY: the ioctl reads one `struct uffdio_range`, which `Wake` is, and writes nothing.
unsafe impl Ioctl for Wake {
    type Output = ();
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::read::<Wake>(0xaa, 2)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        core::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

fn wake(faults: &OwnedFd, page: u64) {
    // SAFETY: threads that wait for a page look for it again; no memory changes.
    unsafe { ioctl(faults, Wake { start: page, length: PAGE }) }.unwrap();
}
