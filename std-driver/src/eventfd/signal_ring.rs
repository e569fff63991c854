//! A signal that the kernel gives to an eventfd, in less time: an `io_uring` of its own for an eventfd that is signalled often.
//!
//! The kernel signals the eventfd that is registered with an `io_uring` whenever an operation there is complete, and never
//! waits for that, as with [`kernel_signal`](super::kernel_signal). Here the operation is to do nothing, which takes 0.4 µs less
//! than what asynchronous I/O has to offer; but each eventfd costs a descriptor, a page and some memory of the kernel's.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, Ordering};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, TryLockError};

use rustix::io_uring::{
    IORING_OFF_SQ_RING, IoringEnterFlags, IoringFeatureFlags, IoringRegisterOp, io_uring_enter, io_uring_params,
    io_uring_register, io_uring_setup,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Signals after which an eventfd is one that is signalled often: the ring costs more than as many signals without it.
const OFTEN: u32 = 64;

/// Bytes of the ring's indices and what else lies before its completions; the kernel gives whole pages.
const MAPPED: usize = 256;

/// The ring of one eventfd, once it is worth having.
#[derive(Debug, Default)]
pub(super) struct SignalRing {
    signals: AtomicU32,
    /// `None` where the system has no such rings, or a sandbox refuses them.
    ring: OnceLock<Option<Mutex<Ring>>>,
}

impl SignalRing {
    /// Signals `event`, always the same one; `None` if somebody else has to.
    pub(super) fn signal(&self, event: BorrowedFd<'_>) -> Option<()> {
        let Some(ring) = self.ring.get() else {
            // Counted by several threads at once it may become a few more.
            let signals = self.signals.load(Ordering::Relaxed).saturating_add(1);
            self.signals.store(signals, Ordering::Relaxed);
            if signals > OFTEN {
                self.ring.get_or_init(|| Ring::new(event).map(Mutex::new));
            }
            return None;
        };
        match ring.as_ref()?.try_lock() {
            Ok(mut ring) => ring.signal(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().signal(),
            // Rings have one thread; whoever comes beside it does not wait.
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// An `io_uring` with room for one operation, which is none: what the kernel has zeroed is `IORING_OP_NOP` already.
///
/// Invariant: `start` is a mapping of `MAPPED` bytes of the ring, ours alone, and each index lies in it and is aligned.
#[derive(Debug)]
struct Ring {
    descriptor: OwnedFd,
    start: NonNull<c_void>,
    /// Places of the indices: operations submitted, completions taken, completions there are.
    submitted: usize,
    taken: usize,
    completed: usize,
}

// SAFETY: the mapping belongs to the process and not to a thread, and goes where the value goes.
unsafe impl Send for Ring {}

impl Ring {
    fn new(event: BorrowedFd<'_>) -> Option<Self> {
        let mut parameters = io_uring_params::default();
        // SAFETY: the ring is made for an operation that names neither memory nor descriptors.
        let descriptor = unsafe { io_uring_setup(1, &mut parameters) }.ok()?;
        let place = |offset: u32| {
            let offset = usize::try_from(offset).ok()?;
            let end = offset.checked_add(size_of::<u32>())?;
            (end <= MAPPED && offset.is_multiple_of(align_of::<u32>())).then_some(offset)
        };
        let submitted = place(parameters.sq_off.tail)?;
        let (taken, completed) = (place(parameters.cq_off.head)?, place(parameters.cq_off.tail)?);
        // Linux 5.4; before it completions have a mapping of their own.
        if !parameters.features.contains(IoringFeatureFlags::SINGLE_MMAP) {
            return None;
        }
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        // SAFETY: without MAP_FIXED and with no address wished for, the kernel takes addresses that nothing uses.
        let start = unsafe { mmap(ptr::null_mut(), MAPPED, protection, flags, &descriptor, IORING_OFF_SQ_RING) };
        let ring = Self { descriptor, start: NonNull::new(start.ok()?)?, submitted, taken, completed };
        let registered = event.as_raw_fd();
        let argument = ptr::from_ref(&registered).cast();
        // SAFETY: the kernel reads one number from `argument`, where there is one, and takes a reference to the eventfd.
        unsafe { io_uring_register(ring.descriptor.as_fd(), IoringRegisterOp::RegisterEventfd, argument, 1) }.ok()?;
        Some(ring)
    }

    fn signal(&mut self) -> Option<()> {
        let submitted = self.index(self.submitted);
        submitted.store(submitted.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        // SAFETY: the one operation that can be submitted does nothing.
        let entered = unsafe { io_uring_enter(&self.descriptor, 1, 0, IoringEnterFlags::empty()) };
        let completed = self.index(self.completed).load(Ordering::Acquire);
        let taken = self.index(self.taken);
        let is_signalled = entered == Ok(1) && taken.load(Ordering::Relaxed) != completed;
        taken.store(completed, Ordering::Release);
        is_signalled.then_some(())
    }

    fn index(&self, place: usize) -> &AtomicU32 {
        let at = self.start.as_ptr().wrapping_byte_add(place).cast::<u32>();
        // SAFETY: by the invariant the number is in the mapping, which lives as long as `self`, and aligned. The kernel accesses
        // it atomically, and nobody else does.
        unsafe { AtomicU32::from_ptr(at) }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: a whole mapping of our own, by the invariant, of which nothing is borrowed any more.
        let outcome = unsafe { munmap(self.start.as_ptr(), MAPPED) };
        // A drop cannot report; with what mmap has given it does not fail.
        debug_assert!(outcome.is_ok(), "munmap: {outcome:?}");
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{EventfdFlags, eventfd};
    use vhost_tests::program::not_run;

    use super::*;

    const REFUSED: &str = "the system has no io_uring, or does not grant it";

    fn count(event: &OwnedFd) -> u64 {
        let mut count = [0; 8];
        rustix::io::read(event, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
    }

    #[test]
    fn only_what_is_signalled_often_has_a_ring_and_then_each_signal_counts() {
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let signals = SignalRing::default();
        for _ in 0..=OFTEN {
            assert!(signals.ring.get().is_none());
            assert_eq!(signals.signal(event.as_fd()), None);
        }
        assert_eq!(count(&event), 0);
        if signals.ring.get().unwrap().is_none() {
            return not_run(REFUSED);
        }
        for signals_given in 1..300 {
            for _ in 0..signals_given {
                assert_eq!(signals.signal(event.as_fd()), Some(()));
            }
            assert_eq!(count(&event), signals_given);
        }
    }

    /// In this test a signal that blocks would hang.
    #[test]
    fn a_full_counter_in_blocking_mode_holds_nobody_up() {
        let event = eventfd(0, EventfdFlags::empty()).unwrap();
        let Some(mut ring) = Ring::new(event.as_fd()) else { return not_run(REFUSED) };
        assert_eq!(rustix::io::write(&event, &(u64::MAX - 1).to_ne_bytes()), Ok(8));
        for _ in 0..3 {
            assert_eq!(ring.signal(), Some(()));
        }
        assert!(count(&event) >= u64::MAX - 1);
        assert_eq!(ring.signal(), Some(()));
        assert_eq!(count(&event), 1);
    }

    #[test]
    fn without_a_ring_and_beside_another_thread_somebody_else_has_to_signal() {
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let none = SignalRing { signals: AtomicU32::default(), ring: OnceLock::from(None) };
        assert_eq!(none.signal(event.as_fd()), None);
        let Some(ring) = Ring::new(event.as_fd()) else { return not_run(REFUSED) };
        let busy = SignalRing { signals: AtomicU32::default(), ring: OnceLock::from(Some(Mutex::new(ring))) };
        let other_thread = busy.ring.get().unwrap().as_ref().unwrap().lock().unwrap();
        assert_eq!(busy.signal(event.as_fd()), None);
        drop(other_thread);
        assert_eq!((busy.signal(event.as_fd()), count(&event)), (Some(()), 1));
    }

    #[test]
    fn its_descriptor_is_close_on_exec() {
        let event = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let Some(ring) = Ring::new(event.as_fd()) else { return not_run(REFUSED) };
        assert!(rustix::io::fcntl_getfd(&ring.descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    }
}
