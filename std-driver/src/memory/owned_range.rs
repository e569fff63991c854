//! A piece of memory for what is used longer than one batch: a part of a ring, a record, a log.

use std::sync::Arc;

use vhost_core::{Access, GuestAddress, GuestMemory, GuestRange, Load, Store, Unmapped};

use super::guest_memory::MappedRange;
use super::{AddressSpace, MappedRegion, MemoryTable};

/// A piece of memory that keeps its mapping alive: for what is used longer than one batch, such as a ring itself.
///
/// Normally it is one mapping. Behind an IOMMU what a driver sees in one piece may lie scattered over pages; those behind
/// the first are then found at every access, which costs nothing where there are none.
#[derive(Clone, Debug)]
pub struct OwnedRange {
    first: Piece,
    others: Option<Arc<[Piece]>>,
}

type Piece = MappedRange<Arc<MappedRegion>>;

/// A table whose pieces are [owned](OwnedRange).
impl GuestMemory for MemoryTable {
    type Address = GuestAddress;
    type Range = OwnedRange;

    fn piece(&self, address: GuestAddress, length: u64, _access: Access) -> Result<OwnedRange, Unmapped> {
        let (region, _) = self.region_at(AddressSpace::Guest, address.0).ok_or(Unmapped::Outside)?;
        OwnedRange::new(Arc::clone(region), address, length).ok_or(Unmapped::Outside)
    }
}

impl OwnedRange {
    /// The first of `length` bytes at `address`, as many as `region` has; `None` if that is none.
    pub(crate) fn new(region: Arc<MappedRegion>, address: GuestAddress, length: u64) -> Option<Self> {
        Some(Self { first: MappedRange::new(region, address, length)?, others: None })
    }

    /// These pieces, one behind the other; `None` if there are none.
    pub(super) fn joined(pieces: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut joined = Vec::<Piece>::new();
        for range in pieces {
            for piece in
                core::iter::once(range.first).chain(range.others.iter().flat_map(|others| others.iter().cloned()))
            {
                match joined.last_mut().map(|last| last.absorb(&piece)) {
                    Some(true) => {}
                    Some(false) | None => joined.push(piece),
                }
            }
        }
        let (first, others) = joined.split_first()?;
        let others = (!others.is_empty()).then(|| others.into());
        Some(Self { first: first.clone(), others })
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        core::iter::once(&self.first).chain(self.others.iter().flat_map(|others| others.iter()))
    }

    /// Accesses `length` bytes at `offset` in the piece behind the first one that has all of them.
    #[cold]
    fn in_one<T>(&self, offset: usize, access: impl FnOnce(&Piece, usize) -> Option<T>) -> Option<T> {
        self.others.as_ref()?;
        let mut offset = offset;
        for piece in self.pieces() {
            match offset.checked_sub(piece.len()) {
                Some(behind) => offset = behind,
                None => return access(piece, offset),
            }
        }
        None
    }

    /// Accesses `length` bytes from `offset` on, piece by piece: each time an offset there, and which of the bytes it is.
    /// Nothing is accessed unless all of them are there.
    #[cold]
    fn in_many(
        &self,
        offset: usize,
        length: usize,
        mut access: impl FnMut(&Piece, usize, core::ops::Range<usize>) -> Option<()>,
    ) -> Option<()> {
        self.others.as_ref()?;
        if offset.checked_add(length)? > self.len() {
            return None;
        }
        let (mut offset, mut done) = (offset, 0);
        for piece in self.pieces() {
            let Some(here) = piece.len().checked_sub(offset).filter(|here| *here > 0) else {
                offset = offset.saturating_sub(piece.len());
                continue;
            };
            let end = done + here.min(length - done);
            if end > done {
                access(piece, offset, done..end)?;
            }
            (offset, done) = (0, end);
        }
        Some(())
    }

    #[cold]
    fn scattered_u128(&self, offset: usize) -> Option<u128> {
        self.read(offset).map(u128::from_le_bytes)
    }
}

impl GuestRange for OwnedRange {
    fn len(&self) -> usize {
        self.pieces().map(Piece::len).sum()
    }

    fn guest_address(&self) -> GuestAddress {
        self.first.guest_address()
    }

    fn guest_address_at(&self, offset: usize) -> Option<GuestAddress> {
        if offset < self.first.len() {
            return self.first.guest_address_at(offset);
        }
        self.in_one(offset, |piece, offset| piece.guest_address_at(offset))
    }

    #[inline]
    fn load_u16(&self, offset: usize, order: Load) -> Option<u16> {
        match self.first.load_u16(offset, order) {
            None => self.in_one(offset, |piece, offset| piece.load_u16(offset, order)),
            found => found,
        }
    }

    #[inline]
    fn store_u16(&self, offset: usize, value: u16, order: Store) -> Option<()> {
        match self.first.store_u16(offset, value, order) {
            None => self.in_one(offset, |piece, offset| piece.store_u16(offset, value, order)),
            found => found,
        }
    }

    fn fetch_or(&self, offset: usize, bits: u8) -> Option<u8> {
        match self.first.fetch_or(offset, bits) {
            None => self.in_one(offset, |piece, offset| piece.fetch_or(offset, bits)),
            found => found,
        }
    }

    #[inline]
    fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        match self.first.read_into(offset, out) {
            None => {
                self.in_many(offset, out.len(), |piece, offset, range| piece.read_into(offset, out.get_mut(range)?))
            }
            found => found,
        }
    }

    #[inline]
    fn read_u128(&self, offset: usize) -> Option<u128> {
        match self.first.read_u128(offset) {
            None => self.scattered_u128(offset),
            found => found,
        }
    }

    #[inline]
    fn write_from(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        match self.first.write_from(offset, bytes) {
            None => {
                self.in_many(offset, bytes.len(), |piece, offset, range| piece.write_from(offset, bytes.get(range)?))
            }
            found => found,
        }
    }
}
