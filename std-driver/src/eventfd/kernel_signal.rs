//! A signal that the kernel gives to an eventfd in our place, because no call of ours can be kept from waiting.
//!
//! A `write` to an eventfd waits while its counter is full, unless the file is in non-blocking mode; and both, counter and mode,
//! a peer can change at any moment. But the kernel can be asked to signal an eventfd whenever an asynchronous operation is
//! complete (`IOCB_FLAG_RESFD`), and it never waits for that: a counter that is full stays full. The operation is to poll the
//! eventfd itself, which is complete at once, as there is always either room in its counter or something to take from it.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::ptr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use libc::{c_long, c_ulong, iocb, timespec};
use rustix::io::Errno;

/// Completions that the kernel keeps until they are fetched: nobody wants them, and they are fetched when there is no room left.
const COMPLETIONS: usize = 128;

/// `IOCB_CMD_POLL`, `IOCB_FLAG_RESFD` (linux/aio_abi.h).
const POLL: u16 = 5;
const SIGNAL_EVENTFD: u32 = 1;

/// How often completions are fetched for one signal while other threads use up the room.
const ATTEMPTS: usize = 16;

/// Signals `event`, which must be an eventfd; `None` if the kernel does not do it, or not for this process.
pub(super) fn signal(event: BorrowedFd<'_>) -> Option<()> {
    let context = context()?;
    let descriptor = u32::try_from(event.as_raw_fd()).ok()?;
    // SAFETY: zeros are a control block, which consists of numbers only.
    let mut control: iocb = unsafe { MaybeUninit::zeroed().assume_init() };
    control.aio_lio_opcode = POLL;
    control.aio_fildes = descriptor;
    control.aio_buf = (libc::POLLIN | libc::POLLOUT) as u64;
    control.aio_flags = SIGNAL_EVENTFD;
    control.aio_resfd = descriptor;
    for _ in 0..ATTEMPTS {
        let blocks: [*mut iocb; 1] = [&raw mut control];
        // SAFETY: one pointer to one control block, which the kernel copies before the call is over. It names no memory.
        let submitted = unsafe { libc::syscall(libc::SYS_io_submit, context, 1 as c_long, blocks.as_ptr()) };
        match submitted {
            1 => return Some(()),
            -1 if last_errno() == Errno::AGAIN => fetch(context),
            _ => return None,
        }
    }
    None
}

/// Makes room: takes the completions that are there.
fn fetch(context: c_ulong) {
    let mut completions = [const { MaybeUninit::<Completion>::uninit() }; COMPLETIONS];
    let at_once = timespec { tv_sec: 0, tv_nsec: 0 };
    let most = completions.len() as c_long;
    let (target, limit) = (completions.as_mut_ptr(), &raw const at_once);
    // SAFETY: the kernel writes at most `most` completions to the array, which has room for them, and reads the time; both live
    // until the call is over.
    unsafe { libc::syscall(libc::SYS_io_getevents, context, 0 as c_long, most, target, limit) };
}

/// `struct io_event`: what was asked, and what came of it. Nobody reads it.
#[repr(C)]
struct Completion([u64; 4]);

/// The process' context of asynchronous operations, made when it is needed first; `None` where there is none. It takes no
/// descriptor, and the kernel removes it with the process.
fn context() -> Option<c_ulong> {
    static CONTEXT: OnceLock<Option<c_ulong>> = OnceLock::new();
    *CONTEXT.get_or_init(|| {
        let mut context: c_ulong = 0;
        let place = ptr::addr_of_mut!(context);
        // SAFETY: the kernel writes one number to `context`, which is zero as it has to be.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, COMPLETIONS as c_long, place) };
        (made == 0).then_some(context)
    })
}

/// The errno of the call that just failed on this thread.
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
