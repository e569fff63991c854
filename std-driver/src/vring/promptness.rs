//! How soon a driver is signalled of what is complete while more of its chains are waiting.
//!
//! A driver on another processor that is signalled in the middle of a batch goes on beside the device, which makes twice as
//! many requests of one queue in a second. On the device's own processor it would only run in the device's place, with less to
//! do at a time for both. Which of them it is shows when a signal is over: has the driver looked at the ring already?

use vhost_core::VirtioFeatures;

/// Completed chains after which a driver is signalled that goes on beside the device.
const EARLY: u16 = 12;
/// Completed chains after which any driver is signalled, so that the first of a long batch does not wait for the last.
const LATE: u16 = 64;
/// Batches after which it is found out anew.
const BATCHES: u16 = 256;

/// Whether other rings wait for the same thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// None do: the thread has nothing to do behind the batch, unless the driver goes on early.
    None,
    /// Some do, and nothing is gained by having this ring's driver go on early.
    Others,
}

/// What is known of a ring's driver and of the thread that processes the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Promptness {
    /// The driver says behind which chain it wants to be signalled. If not, whoever is awake would be signalled too.
    by_index: bool,
    company: Company,
    /// Batches for which the driver is taken to run on the device's own processor.
    alternating: u16,
}

impl Promptness {
    /// Nothing is known of the driver that acknowledged these features.
    pub(super) fn new(features: VirtioFeatures) -> Self {
        let by_index = features.contains(VirtioFeatures::RING_EVENT_IDX);
        Self { by_index, company: Company::None, alternating: 0 }
    }

    /// Completed chains after which the driver is signalled.
    pub(super) fn signal_after(&self) -> u16 {
        if self.is_early() { EARLY } else { LATE }
    }

    /// Whether the driver is taken to go on beside the device.
    pub(super) fn is_early(&self) -> bool {
        self.by_index && self.company == Company::None && self.alternating == 0
    }

    pub(super) fn keep_company(&mut self, company: Company) {
        self.company = company;
    }

    /// When an early signal was over, the driver had looked at the ring.
    pub(super) fn alternates(&mut self) {
        self.alternating = BATCHES;
    }

    pub(super) fn batch_ended(&mut self) {
        self.alternating = self.alternating.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_runs_in_the_device_s_place_is_signalled_late_for_a_while() {
        let mut promptness = Promptness::new(VirtioFeatures::RING_EVENT_IDX);
        assert_eq!(promptness.signal_after(), 12);
        promptness.alternates();
        for _ in 0..256 {
            assert_eq!(promptness.signal_after(), 64);
            promptness.batch_ended();
        }
        assert_eq!(promptness.signal_after(), 12);
    }
}
