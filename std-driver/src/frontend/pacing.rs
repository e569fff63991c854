//! How many requests are under way at a time, and what to do for a back-end that takes only one.

use core::sync::atomic::{AtomicBool, Ordering};

use super::Frontend;

/// How [`bring_up`](Frontend::bring_up) and [`tear_down`](Frontend::tear_down) make their requests.
///
/// No back-end is known that cannot take them together. One that could not would read more than one message at a time and
/// drop what it does not expect, or go: then requests stay without an answer, and the session ends, by
/// [`TimedOut`](super::FrontendError::TimedOut) for one that stays silent (so a [timeout](Frontend::set_timeout) is needed).
/// [`Reconnect`](super::Reconnect) makes the next session one by one after that, and goes on so if it succeeds; if that
/// fails too, the reason was another, and the next one is pipelined again. Whoever connects by other means asks
/// [`next_pacing`](Frontend::next_pacing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pacing {
    /// Each is confirmed before the next is made: for a back-end that cannot take them otherwise.
    OneByOne,
    /// All that go into one system call; then all are confirmed. Several times as fast, and every back-end that reads its
    /// requests from a stream takes it. After a refusal the requests behind it have been carried out too.
    #[default]
    Pipelined,
}

/// What sessions with a back-end have shown: whether it takes requests that come together.
#[derive(Debug, Default)]
pub(super) struct Experience {
    /// The last session that ended in the middle of them was pipelined.
    lost_some: AtomicBool,
}

impl Experience {
    /// How the next session is to be.
    pub(super) fn pacing(&self) -> Pacing {
        // Nothing else is read by the flag's word.
        if self.lost_some.load(Ordering::Relaxed) { Pacing::OneByOne } else { Pacing::Pipelined }
    }

    /// A session ended with requests of these unanswered.
    pub(super) fn failed(&self, pacing: Pacing) {
        self.lost_some.store(pacing == Pacing::Pipelined, Ordering::Relaxed);
    }
}

impl Frontend {
    /// Sets how devices are started and stopped.
    pub fn set_pacing(&mut self, pacing: Pacing) {
        self.pacing = pacing;
    }

    /// How devices are started and stopped.
    #[must_use]
    pub fn pacing(&self) -> Pacing {
        self.pacing
    }

    /// What to [set](Self::set_pacing) in the next session with this back-end: one by one if this one has ended with several
    /// requests unanswered.
    #[must_use]
    pub fn next_pacing(&self) -> Pacing {
        self.experience.pacing()
    }
}
