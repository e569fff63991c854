//! Logs the device's writes to a ring itself, for rings whose `LOG` flag is set.

use crate::{
    address::GuestAddress,
    dirty_log::{DirtyLog, LogFault},
    guest_memory::GuestRange,
};

/// A dirty log, and the guest address that the ring's writes are logged under.
///
/// In a split ring it is the address of the used ring, in a packed ring that of the device event
/// suppression area; descriptors of a packed ring are logged where they lie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UsedLog<R> {
    log: DirtyLog<R>,
    address: Option<GuestAddress>,
}

impl<R: GuestRange> UsedLog<R> {
    /// Logs under `address`, which is `log` of `SET_VRING_ADDR`.
    pub const fn new(log: DirtyLog<R>, address: GuestAddress) -> Self {
        Self { log, address: Some(address) }
    }

    /// Logs every part where it lies. Behind an IOMMU an address that the driver uses says nothing of that.
    pub const fn in_place(log: DirtyLog<R>) -> Self {
        Self { log, address: None }
    }

    /// Marks `length` bytes, a page at most, that were written at `offset` of `part`, which the device writes.
    pub(crate) fn mark(&self, part: &R, offset: usize, length: u64) -> Result<(), LogFault> {
        let Some(base) = self.address else {
            return self.mark_in(part, offset, length);
        };
        let outside = LogFault { address: base, length };
        let offset = u64::try_from(offset).map_err(|_| outside)?;
        let address = base.0.checked_add(offset).ok_or(outside)?;
        self.log.mark(GuestAddress(address), length)
    }

    /// Marks `length` bytes, a page at most, that were written at `offset` of `part`, where it lies.
    pub(crate) fn mark_in(&self, part: &R, offset: usize, length: u64) -> Result<(), LogFault> {
        let outside = LogFault { address: part.guest_address(), length };
        let behind_first = usize::try_from(length.saturating_sub(1)).map_err(|_| outside)?;
        let first = part.guest_address_of(offset).ok_or(outside)?;
        let last = offset.checked_add(behind_first).and_then(|last| part.guest_address_of(last)).ok_or(outside)?;
        if first.0.checked_add(length.saturating_sub(1)) == Some(last.0) {
            return self.log.mark(first, length);
        }
        // Scattered over two pages.
        self.log.mark(first, 1)?;
        self.log.mark(last, 1)
    }
}
