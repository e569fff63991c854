//! A ring that somebody looks at all the time, so that its driver need not kick.

use super::{Company, RingFault, Turn, Vring};
use crate::device::Device;

impl Vring {
    /// Looks at the ring once and serves what is there; whether a chain was taken. Until [`Vring::leave`] the driver need not
    /// kick. A fault stops the ring and is found in its [faults](Vring::faults).
    pub(crate) fn attend(&mut self, device: &dyn Device) -> bool {
        // Behind an IOMMU the ring may have to wait for where it is.
        let Some(ring) = self.running.as_mut().filter(|_| self.enabled && self.behind.is_none()) else { return false };
        self.attended = true;
        if ring.has_available() == Ok(false) && self.recovery.pending.is_empty() {
            return false;
        }
        self.takes_chains(device, Company::None).1
    }

    /// [`Vring::process`], and whether a chain was taken.
    pub(crate) fn takes_chains(&mut self, device: &dyn Device, company: Company) -> (Result<Turn, RingFault>, bool) {
        let before = self.base();
        self.promptness.keep_company(company);
        let turn = self.process(device);
        (turn, self.base() != before)
    }

    /// From now on the driver has to kick again. If there is something already, the ring is scheduled.
    pub(crate) fn leave(&mut self) {
        if core::mem::take(&mut self.attended)
            && let Some(ring) = &mut self.running
            // A fault is found when the ring is processed.
            && (ring.enable_kicks() != Ok(false) || self.scan_due)
        {
            self.scan();
        }
    }
}
