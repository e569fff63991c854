//! Logs the device's writes to a ring itself, for rings whose `LOG` flag is set.

use super::{
    by_address::ByAddress,
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
    mark: ByAddress<Mark<R>>,
}

type Mark<R> = fn(&UsedLog<R>, &R, RingPart, u32, u32) -> Result<(), RingFault>;

impl<R: GuestRange> UsedLog<R> {
    /// Logs under `address`, which is `log` of `SET_VRING_ADDR`.
    pub const fn new(log: DirtyLog<R>, address: GuestAddress) -> Self {
        Self { log, address: Some(address), mark: ByAddress(mark) }
    }

    /// Logs where the ring lies: behind an IOMMU, where `log` of `SET_VRING_ADDR` is an address of the driver's, which the
    /// log does not know.
    pub const fn where_it_lies(log: DirtyLog<R>) -> Self {
        Self { log, address: None, mark: ByAddress(mark) }
    }

    /// Marks `length` bytes that were written at `offset` of the `part` in `range`: a page at most where they lie.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn mark(&self, range: &R, part: RingPart, offset: u32, length: u32) -> Result<(), RingFault> {
        (self.mark.0)(self, range, part, offset, length)
    }
}

fn mark<R: GuestRange>(log: &UsedLog<R>, range: &R, part: RingPart, offset: u32, length: u32) -> Result<(), RingFault> {
    let marked = match log.address {
        Some(base) if part != RingPart::DescriptorRing => {
            let address = base.0.checked_add(offset.into()).map(GuestAddress);
            address.and_then(|address| log.log.set(address, length.into()))
        }
        _ => mark_where_it_lies(&log.log, range, offset, length),
    };
    marked.ok_or(RingFault::Log { part, offset })
}

/// Marks the first and the last byte, because behind an IOMMU two pages need not lie side by side.
fn mark_where_it_lies<R: GuestRange>(log: &DirtyLog<R>, range: &R, offset: u32, length: u32) -> Option<()> {
    let last = offset.wrapping_add(length).wrapping_sub(1);
    log.set(range.guest_address_at(place(offset))?, 1)?;
    log.set(range.guest_address_at(place(last))?, 1)
}
