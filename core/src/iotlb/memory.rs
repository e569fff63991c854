//! Memory that is addressed through an IOTLB.

use core::cell::Cell;

use super::Iotlb;
use crate::{
    address::Iova,
    guest_memory::{Access, AddressSpace, GuestMemory, Unmapped},
};

/// What devices see with `ACCESS_PLATFORM`: an IOTLB in front of a memory.
///
/// It remembers where the last translation was found, so it belongs to one thread; making one costs
/// nothing.
#[derive(Clone, Debug)]
pub struct IotlbMemory<'i, M, A, const N: usize> {
    iotlb: &'i Iotlb<A, N>,
    memory: M,
    recent: Cell<usize>,
}

impl<'i, M, A, const N: usize> IotlbMemory<'i, M, A, N>
where
    A: AddressSpace,
    M: GuestMemory<Address = A>,
{
    /// `memory` behind `iotlb`, whose targets are its addresses.
    pub const fn new(iotlb: &'i Iotlb<A, N>, memory: M) -> Self {
        Self { iotlb, memory, recent: Cell::new(0) }
    }

    #[cfg_attr(not(for_size), inline)]
    fn look_up(&self, address: Iova, access: Access) -> Result<(A, u64), Unmapped> {
        let mut recent = self.recent.get();
        let translated = self.iotlb.look_up(address, access, &mut recent);
        self.recent.set(recent);
        translated
    }
}

impl<M, A, const N: usize> GuestMemory for IotlbMemory<'_, M, A, N>
where
    A: AddressSpace,
    M: GuestMemory<Address = A>,
{
    type Address = Iova;
    type Range = M::Range;

    #[cfg_attr(not(for_size), inline)]
    fn piece(&self, address: Iova, length: u64, access: Access) -> Result<M::Range, Unmapped> {
        let (target, count) = self.look_up(address, access)?;
        self.memory.piece(target, length.min(count), access)
    }

    /// Translations come page by page: the bytes are in one piece if each goes on where the one before ends.
    fn range(&self, address: Iova, length: u64, access: Access) -> Result<M::Range, Unmapped> {
        let (target, mut known) = self.look_up(address, access)?;
        while known < length {
            let next = address.0.checked_add(known).ok_or(Unmapped::Outside)?;
            let (found, count) = self.look_up(Iova(next), access)?;
            if target.number().checked_add(known) != Some(found.number()) {
                return Err(Unmapped::Outside);
            }
            known = known.saturating_add(count);
        }
        self.memory.range(target, length, access)
    }
}
