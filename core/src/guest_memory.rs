//! What rings, inflight records and dirty logs ask of the memory that they share with a peer.
//!
//! A driver of the outside world implements two traits. [`GuestMemory`] translates an address once
//! and gives back a [`GuestRange`]; the range is then read and written many times without another
//! look at the memory table. Nothing here trusts the other side: a value is loaded once, copied,
//! checked, and used from the copy.

mod cells;
#[cfg(target_has_atomic = "16")]
mod words;

use core::{
    fmt,
    sync::atomic::{Ordering, fence},
};

use crate::address::{GuestAddress, Iova, RingAddress, UserAddress};

pub use cells::{CellMemory, CellRange};
#[cfg(target_has_atomic = "16")]
pub use words::{WordMemory, WordRange};

/// Memory that is addressed by its users in one address space.
///
/// ```
/// use core::cell::Cell;
/// use vhost_core::{Access, CellMemory, GuestAddress, GuestMemory, GuestRange, Load};
///
/// let mut bytes = [0; 64];
/// let memory = CellMemory::new(GuestAddress(0x1000), Cell::from_mut(&mut bytes[..]).as_slice_of_cells());
/// let range = memory.range(GuestAddress(0x1010), 16, Access::Read)?;
/// assert_eq!(range.load_u16(2, Load::Acquire), Some(0));
/// assert_eq!(range.load_u16(15, Load::Relaxed), None);
/// assert!(memory.range(GuestAddress(0x1010), 49, Access::Read).is_err());
/// # Ok::<(), vhost_core::Unmapped>(())
/// ```
pub trait GuestMemory {
    /// How a place is named.
    type Address: AddressSpace;
    /// A translated piece of this memory.
    type Range: GuestRange;

    /// The first bytes of `length` bytes at `address`: as many as lie in one piece, one at least.
    ///
    /// A buffer may cross from one memory region into the next. The caller asks again for the rest.
    ///
    /// # Errors
    /// When not even the first byte can be accessed in this way, or `length` is zero.
    fn piece(&self, address: Self::Address, length: u64, access: Access) -> Result<Self::Range, Unmapped>;

    /// All of `length` bytes at `address` in one piece.
    ///
    /// # Errors
    /// When some byte cannot be accessed in this way, the bytes lie in several pieces, or `length`
    /// is zero.
    #[inline]
    fn range(&self, address: Self::Address, length: u64, access: Access) -> Result<Self::Range, Unmapped> {
        let range = self.piece(address, length, access)?;
        if u64::try_from(range.len()).is_ok_and(|found| found == length) { Ok(range) } else { Err(Unmapped::Outside) }
    }
}

/// A piece of memory that was translated, and that somebody else may change at any time.
///
/// Offsets are in bytes from the start of the piece. Every access checks them and answers `None`
/// when it would touch a byte outside, when an atomic access is misaligned, or when the memory is
/// gone; nothing was read or written then. Numbers are little-endian in memory.
pub trait GuestRange: Clone + fmt::Debug {
    /// Bytes in the piece.
    fn len(&self) -> usize;

    /// Where the first byte lies in guest physical memory, for the dirty log.
    fn guest_address(&self) -> GuestAddress;

    /// Where the byte at `offset` lies there; `None` if the address would wrap around. A piece whose bytes do not lie one
    /// behind the other tells it for each.
    fn guest_address_at(&self, offset: usize) -> Option<GuestAddress> {
        let offset = u64::try_from(offset).ok()?;
        self.guest_address().0.checked_add(offset).map(GuestAddress)
    }

    /// Loads a 16-bit number in one access.
    fn load_u16(&self, offset: usize, order: Load) -> Option<u16>;

    /// Stores a 16-bit number in one access.
    fn store_u16(&self, offset: usize, value: u16, order: Store) -> Option<()>;

    /// Sets bits of one byte, atomically and after everything that was written before; the byte as
    /// it was.
    fn fetch_or(&self, offset: usize, bits: u8) -> Option<u8>;

    /// Copies bytes out of the piece, each read once, in no particular order.
    fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()>;

    /// Copies bytes into the piece, in no particular order.
    ///
    /// Memory in which inflight records lie stores eight bytes at a place that is a multiple of eight at once, so that a
    /// process which ends leaves all of them or none. That of [`CellRange`] and [`WordRange`] does not.
    fn write_from(&self, offset: usize, bytes: &[u8]) -> Option<()>;

    /// Whether the piece has no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `N` bytes out, each read once.
    #[inline]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.read_into(offset, &mut bytes)?;
        Some(bytes)
    }

    /// Copies sixteen bytes out, each read once, as a number: a descriptor.
    #[inline]
    fn read_u128(&self, offset: usize) -> Option<u128> {
        self.read(offset).map(u128::from_le_bytes)
    }

    /// Keeps every access before it from passing any access behind it, stores and loads alike.
    #[inline]
    fn full_fence(&self) {
        fence(Ordering::SeqCst);
    }
}

/// A kind of address: a newtype over 64 bits.
pub trait AddressSpace: Copy + Eq + fmt::Debug + fmt::Display {
    /// The address of this number.
    fn from_number(number: u64) -> Self;
    /// The number of this address.
    fn number(self) -> u64;
}

macro_rules! address_spaces {
    ($($name:ty),*) => {$(
        impl AddressSpace for $name {
            #[inline]
            fn from_number(number: u64) -> Self {
                Self(number)
            }
            #[inline]
            fn number(self) -> u64 {
                self.0
            }
        }
    )*};
}

address_spaces!(GuestAddress, UserAddress, Iova, RingAddress);

/// What is wanted of a piece of memory, or allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Loads.
    Read,
    /// Stores.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    /// Whether loads are part of it.
    #[must_use]
    pub const fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    /// Whether stores are part of it.
    #[must_use]
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }

    /// Whether whoever is allowed this may do `wanted`.
    #[must_use]
    pub const fn allows(self, wanted: Self) -> bool {
        (self.reads() || !wanted.reads()) && (self.writes() || !wanted.writes())
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "reading",
            Self::Write => "writing",
            Self::ReadWrite => "reading and writing",
        })
    }
}

/// What may not pass a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Load {
    /// Anything may.
    Relaxed,
    /// No access behind it may happen before it.
    Acquire,
}

/// What may not pass a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Store {
    /// Anything may.
    Relaxed,
    /// No access before it may happen behind it.
    Release,
}

/// Why an address has no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unmapped {
    /// There is no memory, or not for this access. Asking again does not help.
    Outside,
    /// The IOTLB has no translation: ask the front-end, and try again when it has answered.
    Miss(Miss),
    /// The IOTLB has a translation, for other accesses only.
    Denied(Miss),
}

/// A translation that the IOTLB does not have, or not for this access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Miss {
    /// The address that is to be translated.
    pub iova: Iova,
    /// What for.
    pub access: Access,
}

impl fmt::Display for Unmapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Outside => f.write_str("outside guest memory"),
            Self::Miss(Miss { iova, access }) => write!(f, "no translation of {iova} for {access}"),
            Self::Denied(Miss { iova, access }) => write!(f, "the translation of {iova} does not allow {access}"),
        }
    }
}

impl core::error::Error for Unmapped {}

impl<M: GuestMemory + ?Sized> GuestMemory for &M {
    type Address = M::Address;
    type Range = M::Range;

    #[inline]
    fn piece(&self, address: Self::Address, length: u64, access: Access) -> Result<Self::Range, Unmapped> {
        (**self).piece(address, length, access)
    }
}

/// Several memories side by side: the first that has the address answers.
impl<M: GuestMemory> GuestMemory for [M] {
    type Address = M::Address;
    type Range = M::Range;

    fn piece(&self, address: Self::Address, length: u64, access: Access) -> Result<Self::Range, Unmapped> {
        let mut answer = Err(Unmapped::Outside);
        for memory in self {
            answer = memory.piece(address, length, access);
            if answer.is_ok() {
                break;
            }
        }
        answer
    }
}

/// The bytes from `address` on of a memory of `size` bytes that begins at `base`: offset and count.
fn locate(base: GuestAddress, size: usize, address: GuestAddress, length: u64) -> Result<(usize, usize), Unmapped> {
    let offset = address.0.checked_sub(base.0).and_then(|offset| usize::try_from(offset).ok());
    let offset = offset.ok_or(Unmapped::Outside)?;
    let left = size.saturating_sub(offset);
    let count = usize::try_from(length).unwrap_or(usize::MAX).min(left);
    if count == 0 { Err(Unmapped::Outside) } else { Ok((offset, count)) }
}
