//! Where a ring's writes are logged while a front-end migrates the guest.

use vhost_core::{GuestAddress, UsedLog};

use super::{Ring, Vring};
use crate::memory::{LogFile, OwnedRange};

/// The dirty log as one ring uses it.
#[derive(Clone, Debug)]
pub(crate) struct RingLog {
    /// Where the pages are marked that devices write to.
    pub(crate) file: LogFile,
    /// Under which address writes to the ring itself are logged, if they are: to the used ring, or to the device event
    /// suppression area and the descriptors of a packed ring.
    pub(crate) used: Option<GuestAddress>,
}

impl RingLog {
    fn of_ring(&self, is_behind_iommu: bool) -> Option<UsedLog<OwnedRange>> {
        let pages = || self.file.pages().clone();
        // There it would be an address of the driver's own.
        self.used
            .map(|address| if is_behind_iommu { UsedLog::in_place(pages()) } else { UsedLog::new(pages(), address) })
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
        let is_behind_iommu = self.behind.is_some();
        ring.set_log(self.log.as_ref().and_then(|log| log.of_ring(is_behind_iommu)));
    }
}
