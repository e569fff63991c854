//! A ring between the thread that processes it and the thread that sets it up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Vring;

/// A ring behind a lock that is fair: whoever waits gets the ring after the batch that is under way.
///
/// With a plain mutex a worker that finds work all the time takes the lock back before a sleeping waiter can, and a request
/// to stop might wait for ever.
#[derive(Debug)]
pub struct SharedVring {
    /// Held while waiting for the ring, so that the one who just let go of it queues up behind.
    gate: Mutex<()>,
    ring: Mutex<Vring>,
}

impl SharedVring {
    /// Puts `ring` behind a lock.
    #[must_use]
    pub fn new(ring: Vring) -> Self {
        Self { gate: Mutex::new(()), ring: Mutex::new(ring) }
    }

    /// Waits for the end of the batch under way, at most. A ring whose device panicked can still be locked.
    pub fn lock(&self) -> MutexGuard<'_, Vring> {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        drop(gate);
        ring
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use vhost_core::wire::vring::VringBase;

    use super::*;

    #[test]
    fn who_waits_comes_before_who_just_had_the_ring() {
        let shared = Arc::new(SharedVring::new(Vring::new(0)));
        for round in 1..=100 {
            let mut ring = shared.lock();
            let other = Arc::clone(&shared);
            let waiter = thread::spawn(move || other.lock().set_base(VringBase::Split { available: round }).unwrap());
            while shared.gate.try_lock().is_ok() {
                thread::yield_now();
            }
            ring.set_base(VringBase::Split { available: 0 }).unwrap();
            drop(ring);
            assert_eq!(shared.lock().base(), VringBase::Split { available: round }, "the waiter had its turn");
            waiter.join().unwrap();
        }
    }
}
