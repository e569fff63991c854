//! What the two channels of a front-end share: the core's machine.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vhost_core::{BackendReply, FrontendConfig};

use super::{MAX_RINGS, Refusal, channel::MAX_ANSWER};

/// Memory regions that the machine remembers: more slots than any known back-end has.
const MAX_REGIONS: usize = 512;
/// Requests that may wait for their answers.
const MAX_OUTSTANDING: usize = 64;

pub(super) type Machine = vhost_core::Frontend<{ MAX_RINGS as usize }, MAX_REGIONS, MAX_OUTSTANDING>;

/// The machine and which channel it serves. The lock is held for a change of state and never across a system call, so
/// that neither channel ever waits for the other.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) machine: Machine,
    /// How many channels the back-end was given; only the last one counts.
    channels: u64,
}

impl Shared {
    pub(super) fn new(config: FrontendConfig) -> Self {
        let machine = Machine::new(config);
        Self { state: Mutex::new(State { machine, channels: 0 }) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock panics; if it did, the machine would still be one that it was before.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes room for a new channel in the place of the one before; its number.
    pub(super) fn replace_channel(&mut self) -> u64 {
        self.channels += 1;
        // If the old channel still owes an answer, that goes nowhere; if not, the machine says so, and nobody listens.
        let refused = BackendReply::<()>::Refused(Refusal::UNSUPPORTED.number());
        drop(self.machine.answer_backend(refused, &mut [0; MAX_ANSWER]));
        self.channels
    }

    /// Whether the channel of this number is the one that the back-end was given last.
    pub(super) fn is_current(&self, channel: u64) -> bool {
        self.channels == channel
    }
}
