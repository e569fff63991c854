//! Mapped memory behind an IOTLB: for the buffers of a batch, and for the parts of a ring.

use vhost_core::{Access, GuestAddress, GuestMemory, Iotlb, Iova, Unmapped, UserAddress};

use super::{AddressSpace, Borrowed, BorrowedRange, MemoryTable, OwnedRange};

/// Mapped memory by what translations lead to: user addresses, or guest addresses in their place with `GPA_ADDRESSES`.
#[derive(Debug)]
pub(crate) struct Targets<'b, 'm> {
    table: &'m MemoryTable,
    borrowed: &'b Borrowed<'m>,
    space: AddressSpace,
}

impl<'b, 'm> Targets<'b, 'm> {
    /// The memory of `table`, in which `borrowed` looks pieces up.
    pub(crate) fn new(table: &'m MemoryTable, borrowed: &'b Borrowed<'m>, space: AddressSpace) -> Self {
        Self { table, borrowed, space }
    }
}

impl<'m> GuestMemory for Targets<'_, 'm> {
    type Address = UserAddress;
    type Range = BorrowedRange<'m>;

    fn piece(&self, target: UserAddress, length: u64, access: Access) -> Result<BorrowedRange<'m>, Unmapped> {
        self.borrowed.piece(guest_address(self.table, self.space, target)?, length, access)
    }
}

/// The same memory for what is used longer, behind an IOTLB. What a driver sees in one piece may lie scattered over pages.
#[derive(Debug)]
pub(crate) struct ScatteredMemory<'m, const N: usize> {
    /// The translations.
    pub(crate) iotlb: &'m Iotlb<UserAddress, N>,
    /// The memory.
    pub(crate) table: &'m MemoryTable,
    /// Which addresses translations lead to.
    pub(crate) space: AddressSpace,
}

impl<const N: usize> GuestMemory for ScatteredMemory<'_, N> {
    type Address = Iova;
    type Range = OwnedRange;

    fn piece(&self, address: Iova, length: u64, access: Access) -> Result<OwnedRange, Unmapped> {
        let (target, count) = self.iotlb.look_up(address, access, &mut 0)?;
        self.table.piece(guest_address(self.table, self.space, target)?, length.min(count), access)
    }

    fn range(&self, address: Iova, length: u64, access: Access) -> Result<OwnedRange, Unmapped> {
        let (mut pieces, mut at, mut left) = (Vec::new(), address, length);
        while left > 0 {
            let piece = self.piece(at, left, access)?;
            let found = vhost_core::GuestRange::len(&piece) as u64;
            pieces.push(piece);
            // A piece is not empty, and at most what was asked for.
            left = left.saturating_sub(found);
            at = Iova(at.0.checked_add(found).or((left == 0).then_some(0)).ok_or(Unmapped::Outside)?);
        }
        OwnedRange::joined(pieces).ok_or(Unmapped::Outside)
    }
}

/// Where a translation leads to in guest memory.
fn guest_address(table: &MemoryTable, space: AddressSpace, target: UserAddress) -> Result<GuestAddress, Unmapped> {
    let (region, offset) = table.region_at(space, target.0).ok_or(Unmapped::Outside)?;
    // Cannot overflow: the offset is below the size, and their sum was checked at mapping.
    Ok(GuestAddress(region.region().guest_address.0.wrapping_add(offset)))
}
