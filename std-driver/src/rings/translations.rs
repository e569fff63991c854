//! Translations that the front-end gives and takes back, for rings behind an IOMMU.

use vhost_core::wire::iotlb::Iotlb;

use super::{Control, RingError};

impl Control<'_> {
    /// Does what a message about translations says. When this returns, no ring uses one that was taken back or replaced, and
    /// those that waited for a new one go on.
    pub(crate) fn translate(&self, message: &Iotlb) -> Result<(), RingError> {
        let iommu = self.rings.iommu();
        if let Some((first, last)) = iommu.apply(message)? {
            // Whoever looked a translation up before it went holds the lock of its ring until it is done with it.
            for mut vring in self.rings.each() {
                vring.invalidate(first, last);
            }
        }
        if message.message_type() != Iotlb::INVALIDATE {
            for ring in iommu.waiting() {
                if let Ok(mut vring) = self.ring(ring.into()) {
                    vring.retry();
                }
            }
        }
        Ok(())
    }

    /// There is somebody else to be asked for translations.
    pub(crate) fn ask_again(&self) {
        for ring in self.rings.iommu().waiting() {
            if let Ok(mut vring) = self.ring(ring.into()) {
                vring.ask_again();
            }
        }
    }
}
