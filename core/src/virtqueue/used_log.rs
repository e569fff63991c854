//! Logs the device's writes to a ring itself, for rings whose `LOG` flag is set.

use super::{
    fault::{RingFault, RingPart},
    part::place,
};
use crate::{address::GuestAddress, dirty_log::DirtyLog, guest_memory::GuestRange};

/// A dirty log, and where in it the ring's writes are logged.
///
/// Descriptors of a packed ring are logged where they lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UsedLog<R> {
    log: DirtyLog<R>,
    /// Where the used ring is logged, or the device event suppression area of a packed ring; `None`: where it lies.
    address: Option<GuestAddress>,
}

impl<R: GuestRange> UsedLog<R> {
    /// Logs under `address`, which is `log` of `SET_VRING_ADDR`.
    pub const fn new(log: DirtyLog<R>, address: GuestAddress) -> Self {
        Self { log, address: Some(address) }
    }

    /// Logs where the ring lies: behind an IOMMU, where `log` of `SET_VRING_ADDR` is an address of the driver's, which the
    /// log does not know.
    pub const fn where_it_lies(log: DirtyLog<R>) -> Self {
        Self { log, address: None }
    }

    /// Marks `length` bytes that were written at `offset` of the `part` in `range`: the used ring, or the device event
    /// suppression area.
    pub(crate) fn mark(&self, range: &R, part: RingPart, offset: u32, length: u32) -> Result<(), RingFault> {
        let Some(base) = self.address else {
            return self.mark_lying(range, part, offset, length);
        };
        let address = base.0.checked_add(offset.into()).map(GuestAddress);
        let marked = address.and_then(|address| self.log.set(address, length.into()));
        marked.ok_or(RingFault::Log { part, offset })
    }

    /// Marks `length` bytes, a page at most, that were written at `offset` of the `part` in `range`, where they lie: the first
    /// and the last of them, because behind an IOMMU two pages need not lie side by side.
    pub(crate) fn mark_lying(&self, range: &R, part: RingPart, offset: u32, length: u32) -> Result<(), RingFault> {
        for at in [offset, offset.wrapping_add(length).wrapping_sub(1)] {
            let marked = range.guest_address_at(place(at)).and_then(|address| self.log.set(address, 1));
            marked.ok_or(RingFault::Log { part, offset })?;
        }
        Ok(())
    }
}
