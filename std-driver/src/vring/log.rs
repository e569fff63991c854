//! Where a ring's writes are logged while a front-end migrates the guest.

use vhost_core::{GuestAddress, UsedLog};

use super::{Ring, Vring};
use crate::memory::{LogFile, OwnedRange};

/// The dirty log as one ring uses it.
#[derive(Clone, Debug)]
pub(crate) struct RingLog {
    /// Where the pages are marked that devices write to.
    pub(crate) file: LogFile,
    /// Whether and where writes to the ring itself are logged.
    pub(crate) used: UsedRing,
}

/// Whether and where writes to the used ring are logged, or to the device event suppression area and the descriptors of a
/// packed ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UsedRing {
    /// They are not.
    Unlogged,
    /// Under this address, which the front-end chose.
    Under(GuestAddress),
    /// Where it lies.
    WhereItLies,
}

impl RingLog {
    fn of_ring(&self) -> Option<UsedLog<OwnedRange>> {
        let pages = || self.file.pages().clone();
        match self.used {
            UsedRing::Unlogged => None,
            UsedRing::Under(address) => Some(UsedLog::new(pages(), address)),
            UsedRing::WhereItLies => Some(UsedLog::where_it_lies(pages())),
        }
    }
}

impl Vring {
    /// Logs writes from now on there, or no longer; a started ring goes on. Everything that was written before is in the
    /// log that was there before.
    pub(crate) fn set_log(&mut self, log: Option<RingLog>) {
        self.log = log;
        if let Some(mut ring) = self.running.take() {
            self.attach_log(&mut ring);
            self.running = Some(ring);
        }
    }

    /// Has a ring that is about to run log its own writes.
    pub(super) fn attach_log(&self, ring: &mut Ring) {
        ring.set_log(self.log.as_ref().and_then(RingLog::of_ring));
    }
}
