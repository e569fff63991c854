//! Logs the device's writes to a ring itself, for rings whose `LOG` flag is set.

use crate::{
    address::GuestAddress,
    dirty_log::{DirtyLog, LogFault},
    guest_memory::GuestRange,
};

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

    /// Marks `length` bytes that were written at `offset` of the used ring, or of the event suppression area.
    pub(crate) fn mark(&self, part: &R, offset: usize, length: u64) -> Result<(), LogFault> {
        match self.address {
            Some(base) => self.mark_under(base, offset, length),
            None => self.mark_lying(part, offset, length),
        }
    }

    /// Marks `length` bytes, a page at most, that were written at `offset` of `part`, where they lie: the first and the last of
    /// them, because behind an IOMMU two pages need not lie side by side.
    pub(crate) fn mark_lying(&self, part: &R, offset: usize, length: u64) -> Result<(), LogFault> {
        let outside = LogFault { address: part.guest_address(), length };
        let behind_first = length.checked_sub(1).and_then(|behind| usize::try_from(behind).ok()).ok_or(outside)?;
        let first = part.guest_address_at(offset).ok_or(outside)?;
        let last = offset.checked_add(behind_first).and_then(|last| part.guest_address_at(last)).ok_or(outside)?;
        self.log.mark(first, 1)?;
        self.log.mark(last, 1)
    }

    fn mark_under(&self, base: GuestAddress, offset: usize, length: u64) -> Result<(), LogFault> {
        let outside = LogFault { address: base, length };
        let offset = u64::try_from(offset).map_err(|_| outside)?;
        let address = base.0.checked_add(offset).ok_or(outside)?;
        self.log.mark(GuestAddress(address), length)
    }
}
