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
    address: GuestAddress,
}

impl<R: GuestRange> UsedLog<R> {
    /// Logs under `address`, which is `log` of `SET_VRING_ADDR`.
    pub const fn new(log: DirtyLog<R>, address: GuestAddress) -> Self {
        Self { log, address }
    }

    /// Marks `length` bytes that were written at `offset` of the part.
    pub(crate) fn mark(&self, offset: usize, length: u64) -> Result<(), LogFault> {
        self.mark_at(self.address, offset, length)
    }

    /// Marks `length` bytes that were written `offset` bytes behind `base`.
    pub(crate) fn mark_at(&self, base: GuestAddress, offset: usize, length: u64) -> Result<(), LogFault> {
        let outside = LogFault { address: base, length };
        let offset = u64::try_from(offset).map_err(|_| outside)?;
        let address = base.0.checked_add(offset).ok_or(outside)?;
        self.log.mark(GuestAddress(address), length)
    }
}
