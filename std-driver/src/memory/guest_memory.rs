//! Mapped memory as the ring code of the core sees it: pieces that were looked up once and are used many times.
//!
//! Rings touch their memory a dozen times for a chain, so an access here is a comparison and an instruction. The way to
//! the bytes is `unsafe`, in this file and by one rule, which [`MappedRange`] states.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::sync::Arc;

use vhost_core::{Access, GuestAddress, GuestMemory, GuestRange, Load, MemoryRegion, Store, Unmapped};
use vm_memory::VolatileSlice;

use super::{AddressSpace, MappedRegion, MemoryTable};

/// Longest copy in machine words; longer ones are left to vm-memory, which copies many bytes faster.
const LONGEST_BY_WORD: usize = 64;

/// A piece of memory that lasts as long as the table it was found in: for the buffers of a batch.
pub type BorrowedRange<'m> = MappedRange<&'m MappedRegion>;

/// A piece of a mapped region, and what keeps the region mapped.
///
/// Invariant: the `length` bytes from `start` on are in the mapping of the region that `owner` points to, and whoever has
/// an `owner` has the region, at the same address. It is never a null pointer, because mappings are at none.
#[derive(Clone, Copy)]
pub struct MappedRange<O> {
    start: NonNull<u8>,
    length: usize,
    owner: O,
}

// SAFETY: mapped memory belongs to the process and not to a thread, and the range does nothing to it but atomic and
// volatile accesses, which any thread may make. The owner goes along, so that it must be able to.
unsafe impl<O: Send> Send for MappedRange<O> {}

// SAFETY: as above; a shared range makes the same accesses.
unsafe impl<O: Sync> Sync for MappedRange<O> {}

/// A table whose pieces are [borrowed](BorrowedRange).
///
/// It remembers where it found the last piece, and looks there first; it belongs to one thread.
#[derive(Clone, Debug)]
pub struct Borrowed<'m> {
    table: &'m MemoryTable,
    recent: Cell<Option<Recent<'m>>>,
}

/// Where a piece was found.
///
/// Invariant: the `size` bytes from `start` on are those of the `region`, whose first guest address is `address`.
#[derive(Clone, Copy, Debug)]
struct Recent<'m> {
    region: &'m MappedRegion,
    address: u64,
    size: u64,
    start: NonNull<u8>,
}

impl<'m> Borrowed<'m> {
    /// Looks pieces up in `table`.
    #[must_use]
    pub fn new(table: &'m MemoryTable) -> Self {
        Self { table, recent: Cell::new(None) }
    }

    /// A piece that does not lie in the region of the last one, or not as a whole.
    #[cold]
    fn find(&self, address: GuestAddress, length: u64) -> Option<BorrowedRange<'m>> {
        let (region, _) = self.table.region_at(AddressSpace::Guest, address.0)?;
        let &MemoryRegion { guest_address: GuestAddress(first), size, .. } = region.region();
        let start = NonNull::new(region.host_address())?;
        self.recent.set(Some(Recent { region, address: first, size, start }));
        MappedRange::new(&**region, address, length)
    }
}

impl<'m> GuestMemory for Borrowed<'m> {
    type Address = GuestAddress;
    type Range = BorrowedRange<'m>;

    #[inline]
    fn piece(&self, address: GuestAddress, length: u64, _access: Access) -> Result<BorrowedRange<'m>, Unmapped> {
        if let Some(Recent { region, address: first, size, start }) = self.recent.get() {
            // Below the first address the offset is huge, and one less than no bytes too.
            let offset = address.0.wrapping_sub(first);
            if offset < size && length.wrapping_sub(1) < size - offset {
                // SAFETY: `offset < size`, so the byte is among those of the region, by the invariant of `Recent`, and both
                // numbers are below the length of a mapping.
                let start = unsafe { start.add(offset as usize) };
                return Ok(MappedRange { start, length: length as usize, owner: region });
            }
        }
        self.find(address, length).ok_or(Unmapped::Outside)
    }
}

impl<'m> BorrowedRange<'m> {
    /// The bytes.
    #[inline]
    #[must_use]
    pub fn slice(&self) -> VolatileSlice<'m> {
        // SAFETY: by the invariant the bytes are in the mapping of a region that is borrowed for 'm, and only dropping it
        // unmaps them. Nobody in this process has references to them, as `Mapping` promises.
        unsafe { VolatileSlice::new(self.start.as_ptr(), self.length) }
    }
}

impl MappedRange<Arc<MappedRegion>> {
    /// Takes in `next` as well if it begins where this one ends, in the same mapping; whether it does.
    pub(super) fn absorb(&mut self, next: &Self) -> bool {
        let adjacent = self.start.as_ptr().wrapping_add(self.length) == next.start.as_ptr();
        if !adjacent || !Arc::ptr_eq(&self.owner, &next.owner) {
            return false;
        }
        // Both are in the mapping of one region, so their sum is too.
        self.length = self.length.saturating_add(next.length);
        true
    }
}

impl<O: Deref<Target = MappedRegion>> MappedRange<O> {
    /// The first of `length` bytes at `address`, as many as `owner` has; `None` if that is none.
    ///
    /// `owner` is a reference or an `Arc`: it derefs to the same region for as long as it or a copy of it exists.
    #[inline]
    pub(super) fn new(owner: O, address: GuestAddress, length: u64) -> Option<Self> {
        let region = owner.region();
        let offset = address.0.wrapping_sub(region.guest_address.0);
        // Below the first address the offset is huge.
        let left = region.size.checked_sub(offset)?;
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length.min(left)).ok()?);
        if length == 0 {
            return None;
        }
        // Inside the mapping, whose bytes are all those of the region: `offset + length <= region.size`.
        let start = NonNull::new(owner.host_address().wrapping_add(offset))?;
        Some(Self { start, length, owner })
    }
}

impl<O> MappedRange<O> {
    /// Where `length` bytes at `offset` begin, if all of them are inside.
    #[inline]
    fn bytes(&self, offset: usize, length: usize) -> Option<*mut u8> {
        let end = offset.checked_add(length)?;
        (end <= self.length).then(|| self.start.as_ptr().wrapping_add(offset))
    }

    /// Gives the number at `offset` to `access`, if it is inside and aligned.
    #[inline]
    fn number<T>(&self, offset: usize, access: impl FnOnce(&AtomicU16) -> T) -> Option<T> {
        let at = self.bytes(offset, size_of::<u16>())?.cast::<u16>();
        if !at.is_aligned() {
            return None;
        }
        // SAFETY: both bytes are in the range, so they are mapped for as long as the borrow of `self` lasts, which has
        // the owner; the address was found to be aligned. Whoever else accesses them, in this process or another one,
        // does so without Rust references: by atomic or volatile accesses, as all of vm-memory does.
        Some(access(unsafe { AtomicU16::from_ptr(at) }))
    }
}

/// Copies `out.len()` bytes of `slice` from `offset` on, each read once; `None`, and nothing happened, if there are fewer.
#[inline]
pub(crate) fn copy_out(slice: &VolatileSlice<'_>, offset: usize, out: &mut [u8]) -> Option<()> {
    let left = slice.len().checked_sub(offset)?;
    if out.len() > left {
        return None;
    }
    if out.len() > LONGEST_BY_WORD {
        slice.offset(offset).ok()?.copy_to(out);
        return Some(());
    }
    let guard = slice.ptr_guard();
    // SAFETY: a slice has `len` bytes that are valid for volatile accesses, pinned by `guard`; `offset + out.len()` is no more.
    unsafe { words::read(guard.as_ptr().wrapping_add(offset), out) };
    Some(())
}

/// The little-endian number at `offset` of `slice`, each byte read once; `None` if they are not all there.
#[inline]
pub(crate) fn read_u128(slice: &VolatileSlice<'_>, offset: usize) -> Option<u128> {
    if slice.len().checked_sub(offset)? < size_of::<u128>() {
        return None;
    }
    let guard = slice.ptr_guard();
    // SAFETY: as in `copy_out`.
    Some(unsafe { words::read_u128(guard.as_ptr().wrapping_add(offset)) })
}

/// Copies all of `bytes` to `offset` of `slice`, each written once; `None`, and nothing happened, if there is no room.
#[inline]
pub(crate) fn copy_in(slice: &VolatileSlice<'_>, offset: usize, bytes: &[u8]) -> Option<()> {
    let left = slice.len().checked_sub(offset)?;
    if bytes.len() > left {
        return None;
    }
    if bytes.len() > LONGEST_BY_WORD {
        slice.offset(offset).ok()?.copy_from(bytes);
        return Some(());
    }
    let guard = slice.ptr_guard_mut();
    // SAFETY: as in `copy_out`.
    unsafe { words::write(guard.as_ptr().wrapping_add(offset), bytes) };
    Some(())
}

impl<O: Deref<Target = MappedRegion> + Clone> GuestRange for MappedRange<O> {
    fn len(&self) -> usize {
        self.length
    }

    fn guest_address(&self) -> GuestAddress {
        let offset = self.start.as_ptr().addr().wrapping_sub(self.owner.host_address().addr());
        GuestAddress(self.owner.region().guest_address.0.wrapping_add(offset as u64))
    }

    #[inline]
    fn load_u16(&self, offset: usize, order: Load) -> Option<u16> {
        let order = match order {
            Load::Relaxed => Ordering::Relaxed,
            Load::Acquire => Ordering::Acquire,
        };
        self.number(offset, |number| u16::from_le(number.load(order)))
    }

    #[inline]
    fn store_u16(&self, offset: usize, value: u16, order: Store) -> Option<()> {
        let order = match order {
            Store::Relaxed => Ordering::Relaxed,
            Store::Release => Ordering::Release,
        };
        self.number(offset, |number| number.store(value.to_le(), order))
    }

    fn fetch_or(&self, offset: usize, bits: u8) -> Option<u8> {
        let at = self.bytes(offset, 1)?;
        // SAFETY: as in `number`; a byte is always aligned.
        let byte = unsafe { AtomicU8::from_ptr(at) };
        Some(byte.fetch_or(bits, Ordering::AcqRel))
    }

    #[inline]
    fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        let at = self.bytes(offset, out.len())?;
        if out.len() > LONGEST_BY_WORD {
            // SAFETY: the bytes are mapped while `self` is borrowed, and nobody has references to them (see `slice`).
            let slice = unsafe { VolatileSlice::new(at, out.len()) };
            slice.copy_to(out);
            return Some(());
        }
        // SAFETY: all of `out.len()` bytes from `at` on are in the range and stay mapped while `self` is borrowed.
        unsafe { words::read(at, out) };
        Some(())
    }

    #[inline]
    fn read_u128(&self, offset: usize) -> Option<u128> {
        let at = self.bytes(offset, size_of::<u128>())?;
        // SAFETY: the bytes are in the range and stay mapped while `self` is borrowed.
        Some(unsafe { words::read_u128(at) })
    }

    #[inline]
    fn write_from(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        let at = self.bytes(offset, bytes.len())?;
        if bytes.len() > LONGEST_BY_WORD {
            // SAFETY: as in `read_into`.
            let slice = unsafe { VolatileSlice::new(at, bytes.len()) };
            slice.copy_from(bytes);
            return Some(());
        }
        // SAFETY: as in `read_into`.
        unsafe { words::write(at, bytes) };
        Some(())
    }
}

impl<O> fmt::Debug for MappedRange<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedRange").field("start", &self.start).field("length", &self.length).finish_non_exhaustive()
    }
}

/// Short copies in the largest words that the address allows, each byte accessed once.
mod words {
    /// The little-endian number at `at`.
    ///
    /// # Safety
    /// Its bytes are valid for volatile reads.
    #[inline]
    pub(super) unsafe fn read_u128(at: *const u8) -> u128 {
        let words = at.cast::<[u64; 2]>();
        if !words.is_aligned() {
            // SAFETY: as promised by the caller.
            return unsafe { read_misaligned_u128(at) };
        }
        // SAFETY: as promised by the caller, and the address was found to be aligned.
        let [low, high] = unsafe { words.read_volatile() };
        u128::from(u64::from_le(low)) | u128::from(u64::from_le(high)) << 64
    }

    /// # Safety
    /// As for [`read_u128`].
    #[cold]
    unsafe fn read_misaligned_u128(at: *const u8) -> u128 {
        let mut bytes = [0; 16];
        // SAFETY: as promised by the caller.
        unsafe { read(at, &mut bytes) };
        u128::from_le_bytes(bytes)
    }

    macro_rules! by_word {
        ($($word:ty),*) => {
            /// Copies `out.len()` bytes from `at` on.
            ///
            /// # Safety
            /// All of them are valid for volatile reads.
            #[inline(always)]
            pub(super) unsafe fn read(at: *const u8, out: &mut [u8]) {
                let (mut at, mut out) = (at, out);
                $(
                    if at.cast::<$word>().is_aligned() {
                        let (chunks, rest) = core::mem::take(&mut out).as_chunks_mut();
                        for word in chunks {
                            // SAFETY: `out` has a word left, so there is one at `at`, which is aligned: it was before
                            // the loop, and every turn moves it by a whole word.
                            let value: $word = unsafe { at.cast::<$word>().read_volatile() };
                            *word = value.to_ne_bytes();
                            at = at.wrapping_add(size_of::<$word>());
                        }
                        out = rest;
                    }
                )*
                debug_assert!(out.is_empty());
            }

            /// Copies all of `bytes` to `at`.
            ///
            /// # Safety
            /// As many bytes are valid for volatile writes there.
            #[inline(always)]
            pub(super) unsafe fn write(at: *mut u8, bytes: &[u8]) {
                let (mut at, mut bytes) = (at, bytes);
                $(
                    if at.cast::<$word>().is_aligned() {
                        let (chunks, rest) = bytes.as_chunks();
                        for word in chunks {
                            let value = <$word>::from_ne_bytes(*word);
                            // SAFETY: `bytes` has a word left, so there is room for one at `at`, which is aligned: it
                            // was before the loop, and every turn moves it by a whole word.
                            unsafe { at.cast::<$word>().write_volatile(value) };
                            at = at.wrapping_add(size_of::<$word>());
                        }
                        bytes = rest;
                    }
                )*
                debug_assert!(bytes.is_empty());
            }
        };
    }

    by_word!(u64, u32, u16, u8);
}

#[cfg(test)]
mod tests;
