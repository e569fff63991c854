//! Requests that another back-end had when it ended: found in the inflight record, and processed before all others.

use vhost_core::{DeviceQueue, Resubmission};

use super::queue::{Budget, End};
use super::{Ring, RingFault, RingMisuse, Vring};
use crate::device::Device;
use crate::inflight::{InflightError, InflightRecord};

/// What the ring of one start knows of an inflight record.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    pub(super) record: Option<InflightRecord>,
    /// The requests that are still to be processed again, the oldest last.
    pub(super) pending: Vec<Resubmission>,
    /// Somebody else may have given requests back and ended before it signalled the driver. With event indices the driver
    /// would never be signalled again: it waits for one that has been passed.
    pub(super) untold: bool,
}

impl Vring {
    /// Records every request in the ring's part of `record` from the next start on, and processes what is in flight there
    /// before anything else. The ring then goes on where the record says, not where its base is.
    ///
    /// # Errors
    /// When the ring is started.
    pub fn set_inflight(&mut self, record: Option<InflightRecord>) -> Result<(), RingMisuse> {
        self.while_stopped(true)?;
        self.recovery.record = record;
        Ok(())
    }

    /// Whether requests that another back-end had are still to be processed.
    #[must_use]
    pub fn has_recovered(&self) -> bool {
        !self.recovery.pending.is_empty()
    }

    /// Lets `device` process what another back-end left, enabled or not, and nothing else: before the ring is stopped or
    /// disabled. What the device does not take, and what lies behind
    /// an IOMMU without a translation, stays in the record.
    ///
    /// # Errors
    /// As [`Vring::process`].
    pub fn settle(&mut self, device: &dyn Device) -> Result<(), RingFault> {
        if self.recovery.pending.is_empty() || !self.is_translated() {
            return Ok(());
        }
        let chains = u16::try_from(self.recovery.pending.len()).unwrap_or(u16::MAX);
        let fault = match self.pass(device, Budget { chains, bytes: u64::MAX }) {
            Ok((End::Fault(fault), _)) | Err(fault) => fault,
            Ok(_) => return Ok(()),
        };
        self.fail(fault);
        self.broken = true;
        Err(fault)
    }

    /// Has a ring that starts go on where its record says.
    pub(super) fn recover(&mut self, ring: &mut Ring) -> Result<(), RingFault> {
        let Some(record) = &self.recovery.record else {
            return Ok(());
        };
        let fault = |error| match error {
            InflightError::TooSmall { needed, found } => RingFault::InflightTooShort { needed, found },
            _ => RingFault::Broken(vhost_core::RingFault::NoInflight),
        };
        let part = record.part(self.index, self.layout()).map_err(fault)?;
        if let Some(part) = part {
            let mut room = vec![Resubmission::default(); usize::from(self.size)];
            self.recovery.pending = ring.recover(part, &mut room)?.to_vec();
            self.recovery.pending.reverse();
        }
        Ok(())
    }

    /// Signals the driver of a ring that has not begun here, once it can be signalled.
    pub(super) fn tell(&mut self) {
        if let Some(call) = self.call.as_ref().filter(|_| self.recovery.untold) {
            self.recovery.untold = false;
            if let Err(error) = call.signal() {
                self.faults.last_call = Some(error);
            }
        }
    }

    /// Makes the ring's part of the record an empty one: a reset ends all requests.
    pub(super) fn clear_record(&self) {
        let part = self.recovery.record.as_ref().map(|record| record.part(self.index, self.layout()));
        if let Some(Ok(Some(part))) = part {
            // It fails only where the record is too small, which the next start tells.
            let _ = DeviceQueue::clear_inflight(&part);
        }
    }
}
