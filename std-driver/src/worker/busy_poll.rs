//! Looking at rings for a while before waiting for a kick, for those who have processors to spare.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use super::ring_loop::RingLoop;
use crate::system_error::SystemError;
use crate::vring::SharedVring;

/// Looks after which everything else is done that there is to do, which takes a system call.
const LOOKS: u32 = 32;

impl RingLoop {
    /// Looks at these rings, which are its own, until `patience` has passed without a chain or `stop` is set.
    pub(super) fn keep_looking(
        &self,
        rings: &[Arc<SharedVring>],
        patience: Duration,
        stop: &AtomicBool,
    ) -> Result<(), SystemError> {
        let mut last = Instant::now();
        let mut outcome = Ok(());
        for look in 1_u32.. {
            let mut found = false;
            for ring in rings {
                found |= ring.lock().attend(self.device());
            }
            if found {
                last = Instant::now();
            } else if last.elapsed() >= patience {
                break;
            } else {
                // The driver may wait for this very processor.
                thread::yield_now();
            }
            if look.is_multiple_of(LOOKS) {
                outcome = self.take_turns(Some(Duration::ZERO)).map(drop);
                if outcome.is_err() || stop.load(Ordering::Acquire) {
                    break;
                }
            }
        }
        for ring in rings {
            ring.lock().leave();
        }
        outcome
    }
}
