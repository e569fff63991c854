//! The inflight record: which chains the device holds, in memory that outlives it.
//!
//! A back-end that ends in the middle of its work leaves this record behind. The next one finds in
//! it which chains were taken and not given back, and processes them again. The record is shared
//! with the front-end, so nothing in it is trusted: walks are bounded and links checked.
//!
//! The order of the steps is that of the vhost-user specification, section "Inflight I/O tracking".
//! A process can end between any two stores, so what has to change together is one store of eight
//! bytes. Numbers are in the machine's byte order.

mod packed;
mod sort;
mod split;

use core::{
    fmt,
    sync::atomic::{Ordering, compiler_fence},
};

use crate::guest_memory::{GuestRange, Load, Store};

pub use packed::PackedInflight;
pub use split::SplitInflight;

/// What the parts of a record, one for each ring, are aligned to.
const ALIGNMENT: u64 = 64;

/// The version of the record that this is; 0 is one that nobody has used yet.
const VERSION: u16 = 1;

/// Offsets in the header of both forms.
const VERSION_AT: usize = 8;
const SIZE_AT: usize = 10;

/// A chain that was in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resubmission {
    /// Its entry in the record; in a split ring that is its first descriptor.
    pub entry: u16,
    /// Where it was in the ring, in the ring's own terms.
    pub(crate) position: u16,
    /// Slots of the ring that it takes.
    pub(crate) slots: u16,
    /// Chains that were taken earlier have a smaller one.
    pub(crate) counter: u64,
}

/// The inflight record of a ring cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InflightFault {
    /// The memory is too small for the ring.
    TooShort {
        /// Bytes needed.
        expected: u64,
        /// Bytes there are.
        found: usize,
    },
    /// The version is neither 0 nor 1.
    Version {
        /// The version.
        found: u16,
    },
    /// The record has fewer entries than the ring has descriptors, or more than there is room for.
    Size {
        /// Descriptors of the ring.
        expected: u16,
        /// Entries of the record.
        found: u16,
    },
    /// The last batch has more chains than the ring.
    Batch {
        /// Its chains.
        count: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// A field that should hold the number of an entry holds something else.
    Link {
        /// Where the field is, in bytes from the start of the record.
        offset: usize,
        /// What it holds.
        found: u16,
        /// Entries of the record.
        size: u16,
    },
    /// A field that should hold a place in the ring holds something else.
    Place {
        /// Where the field is, in bytes from the start of the record.
        offset: usize,
        /// What it holds.
        found: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// A chain is in flight that begins at a descriptor that a split ring does not have.
    Entry {
        /// The descriptor.
        found: u16,
        /// Descriptors of the ring.
        size: u16,
    },
    /// The chains in flight have more descriptors than the ring.
    TooManyDescriptors {
        /// Descriptors of the ring.
        size: u16,
    },
    /// There are more chains in flight than the caller has room for.
    NoRoom {
        /// Chains there is room for.
        room: usize,
    },
    /// The ring has no record.
    NoRecord,
    /// The memory cannot be accessed.
    Access {
        /// Where, in bytes from the start of the record.
        offset: usize,
    },
}

impl fmt::Display for InflightFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("inflight record: ")?;
        match self {
            Self::TooShort { expected, found } => write!(f, "{found} bytes, expected {expected}"),
            Self::Version { found } => write!(f, "version {found}, expected 0 or 1"),
            Self::Size { expected, found } => {
                write!(f, "{found} entries, expected {expected} or as many more as it has room for")
            }
            Self::Batch { count, size } => write!(f, "last batch of {count} chains on a ring of {size}"),
            Self::Entry { found, size } => write!(f, "chain {found} in flight on a ring of {size}"),
            Self::Link { offset, found, size } => {
                write!(f, "entry {found} named at byte {offset}, expected less than {size}")
            }
            Self::Place { offset, found, size } => {
                write!(f, "place {found} at byte {offset}, expected less than {size}")
            }
            Self::TooManyDescriptors { size } => write!(f, "more descriptors in flight than the {size} of the ring"),
            Self::NoRoom { room } => write!(f, "more than {room} chains in flight"),
            Self::NoRecord => f.write_str("the ring has none"),
            Self::Access { offset } => write!(f, "cannot be accessed at byte {offset}"),
        }
    }
}

impl core::error::Error for InflightFault {}

/// The memory of a record, with its entries counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Record<R> {
    range: R,
    size: u16,
}

/// Whether somebody has used a record before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Age {
    Fresh,
    Used,
}

/// Makes a record of either form one that nobody has used yet.
pub(crate) fn clear<R: GuestRange>(range: &R) -> Result<(), InflightFault> {
    range.store_u16(VERSION_AT, 0, Store::Release).ok_or(InflightFault::Access { offset: VERSION_AT })
}

impl<R: GuestRange> Record<R> {
    /// Checks the header of the record of a ring; `bytes` tells how long one of so many entries is.
    ///
    /// It may have more entries than the ring: the front-end asks for one before the driver chooses how
    /// large the ring is, and other back-ends count what was asked for.
    fn open(range: R, ring: u16, bytes: impl Fn(u16) -> u64) -> Result<(Self, Age), InflightFault> {
        let has = |expected| !u64::try_from(range.len()).is_ok_and(|len| len < expected);
        if !has(bytes(ring)) {
            return Err(InflightFault::TooShort { expected: bytes(ring), found: range.len() });
        }
        let record = Self { range: range.clone(), size: ring };
        match record.number(VERSION_AT)? {
            0 => Ok((record, Age::Fresh)),
            VERSION => match record.number(SIZE_AT)? {
                size if size >= ring && has(bytes(size)) => Ok((Self { size, ..record }, Age::Used)),
                found => Err(InflightFault::Size { expected: ring, found }),
            },
            found => Err(InflightFault::Version { found }),
        }
    }

    /// Makes a fresh record a used one; everything else has been written.
    fn mark_used(&self) -> Result<(), InflightFault> {
        self.set_number(SIZE_AT, self.size)?;
        self.set_number(VERSION_AT, VERSION)
    }

    /// A 16-bit number in the machine's byte order.
    #[inline]
    fn number(&self, offset: usize) -> Result<u16, InflightFault> {
        let number = self.range.load_u16(offset, Load::Relaxed).ok_or(InflightFault::Access { offset })?;
        Ok(u16::from_ne_bytes(number.to_le_bytes()))
    }

    #[inline]
    fn set_number(&self, offset: usize, number: u16) -> Result<(), InflightFault> {
        let number = u16::from_le_bytes(number.to_ne_bytes());
        in_order();
        self.range.store_u16(offset, number, Store::Release).ok_or(InflightFault::Access { offset })
    }

    #[inline]
    fn bytes<const N: usize>(&self, offset: usize) -> Result<[u8; N], InflightFault> {
        self.range.read(offset).ok_or(InflightFault::Access { offset })
    }

    #[inline]
    fn set_bytes<const N: usize>(&self, offset: usize, bytes: [u8; N]) -> Result<(), InflightFault> {
        in_order();
        self.range.write(offset, bytes).ok_or(InflightFault::Access { offset })
    }

    /// The number of an entry, at `offset`.
    #[inline]
    fn link(&self, offset: usize) -> Result<u16, InflightFault> {
        let found = self.number(offset)?;
        self.check_link(offset, found)
    }

    /// Checks a number of an entry that was read at `offset`.
    #[inline]
    fn check_link(&self, offset: usize, found: u16) -> Result<u16, InflightFault> {
        if found < self.size { Ok(found) } else { Err(InflightFault::Link { offset, found, size: self.size }) }
    }
}

/// Keeps the compiler from changing the order of stores around it.
///
/// The next process sees all stores that this one made, wherever it ended, so the processor's order
/// does not matter.
#[inline]
fn in_order() {
    compiler_fence(Ordering::SeqCst);
}

/// Bytes of a record with a header of `header` bytes and `size` entries of `entry` bytes.
const fn bytes_for(header: u64, entry: u64, size: u16) -> u64 {
    let mut bytes = header;
    // `From` is not const; the high byte and the low byte of the size are.
    let [low, high] = size.to_le_bytes();
    let size = u64::from_le_bytes([low, high, 0, 0, 0, 0, 0, 0]);
    bytes = bytes.saturating_add(entry.saturating_mul(size));
    bytes.saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1)
}
