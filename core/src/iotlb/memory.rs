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
}

impl<M, A, const N: usize> GuestMemory for IotlbMemory<'_, M, A, N>
where
    A: AddressSpace,
    M: GuestMemory<Address = A>,
{
    type Address = Iova;
    type Range = M::Range;

    #[inline]
    fn piece(&self, address: Iova, length: u64, access: Access) -> Result<M::Range, Unmapped> {
        let mut recent = self.recent.get();
        let translated = self.iotlb.look_up(address, access, &mut recent);
        self.recent.set(recent);
        let (target, count) = translated?;
        self.memory.piece(target, length.min(count), access)
    }
}
