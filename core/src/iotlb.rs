//! The device IOTLB: translations of I/O virtual addresses that the front-end has told.

mod memory;

use core::fmt;

use crate::{
    address::{Iova, UserAddress},
    guest_memory::{Access, AddressSpace, Miss, Unmapped},
    wire,
};

pub use memory::IotlbMemory;

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IotlbEntry<A = UserAddress> {
    /// The first address it translates.
    pub first: Iova,
    /// The last one.
    pub last: Iova,
    /// What the first one becomes.
    pub target: A,
    /// What may be done there.
    pub access: Access,
}

/// Up to `N` translations, without overlap, in the order of their addresses.
///
/// A miss is a value, [`Unmapped::Miss`]: the caller asks the front-end with [`Miss::message`], puts
/// the answer in with [`Iotlb::apply`], and tries again. When there is no room for a new
/// translation, an old one makes room and will be asked for again; `N` should be large enough for
/// all buffers of a chain.
///
/// Targets are user addresses, or guest addresses with `GPA_ADDRESSES`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Iotlb<A, const N: usize> {
    /// The first `len` ones are in use, all others are the same.
    entries: [IotlbEntry<A>; N],
    len: usize,
    /// Which one makes room next.
    victim: usize,
}

/// A message of the front-end to the IOTLB that means nothing. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IotlbMisuse {
    /// A translation of no address.
    Empty {
        /// Where it begins.
        iova: Iova,
    },
    /// The range, or what it is translated to, wraps around.
    Wraps {
        /// Where it begins.
        iova: Iova,
        /// Its bytes.
        size: u64,
    },
    /// The permission is none of read, write and both.
    Permission {
        /// The permission.
        found: u8,
    },
    /// Neither an update nor an invalidation.
    MessageType {
        /// The type.
        found: u8,
    },
}

impl fmt::Display for IotlbMisuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty { iova } => write!(f, "IOTLB update of no address at {iova}"),
            Self::Wraps { iova, size } => write!(f, "IOTLB update of {size:#x} bytes at {iova} wraps around"),
            Self::Permission { found } => write!(f, "IOTLB permission {found}, expected 1 to 3"),
            Self::MessageType { found } => write!(f, "IOTLB message of type {found}, expected 2 or 3"),
        }
    }
}

impl core::error::Error for IotlbMisuse {}

impl Miss {
    /// The message that asks the front-end for the translation.
    #[must_use]
    pub fn message(&self) -> wire::iotlb::Iotlb {
        let permission = match self.access {
            Access::Read => wire::iotlb::Iotlb::READ,
            Access::Write => wire::iotlb::Iotlb::WRITE,
            Access::ReadWrite => wire::iotlb::Iotlb::READ | wire::iotlb::Iotlb::WRITE,
        };
        wire::iotlb::Iotlb::new(self.iova, 0, UserAddress(0), permission, wire::iotlb::Iotlb::MISS)
    }
}

impl<A: AddressSpace, const N: usize> Default for Iotlb<A, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<A: AddressSpace, const N: usize> Iotlb<A, N> {
    /// No translation.
    #[must_use]
    pub fn new() -> Self {
        const { assert!(N > 0) };
        let unused = IotlbEntry { first: Iova(0), last: Iova(0), target: A::from_number(0), access: Access::ReadWrite };
        Self { entries: [unused; N], len: 0, victim: 0 }
    }

    /// Does what a message of the front-end says.
    ///
    /// # Errors
    /// See [`IotlbMisuse`].
    pub fn apply(&mut self, message: &wire::iotlb::Iotlb) -> Result<(), IotlbMisuse> {
        let (iova, size) = (message.iova(), message.size());
        match message.message_type() {
            wire::iotlb::Iotlb::UPDATE => {
                let access = match message.permission() {
                    1 => Access::Read,
                    2 => Access::Write,
                    3 => Access::ReadWrite,
                    found => return Err(IotlbMisuse::Permission { found }),
                };
                self.update(iova, size, A::from_number(message.user_address().0), access)
            }
            wire::iotlb::Iotlb::INVALIDATE => {
                self.invalidate(iova, size);
                Ok(())
            }
            found => Err(IotlbMisuse::MessageType { found }),
        }
    }

    /// Translates `size` bytes at `iova` to those at `target` from now on.
    ///
    /// # Errors
    /// [`IotlbMisuse::Empty`], [`IotlbMisuse::Wraps`].
    pub fn update(&mut self, iova: Iova, size: u64, target: A, access: Access) -> Result<(), IotlbMisuse> {
        let wraps = IotlbMisuse::Wraps { iova, size };
        let behind_first = size.checked_sub(1).ok_or(IotlbMisuse::Empty { iova })?;
        let last = Iova(iova.0.checked_add(behind_first).ok_or(wraps)?);
        target.number().checked_add(behind_first).ok_or(wraps)?;
        self.carve(iova, last);
        if self.len == N {
            self.remove(self.victim);
            self.victim = self.victim.checked_add(1).filter(|next| *next < N).unwrap_or(0);
        }
        self.insert(self.search(iova), IotlbEntry { first: iova, last, target, access });
        Ok(())
    }

    /// Forgets the translations of `size` bytes at `iova`, or of all up to the end when that wraps.
    ///
    /// Zero bytes are all of them up to the end too: that is what 64 bits hold of the size of a whole address
    /// space, and to forget too much only costs asking again.
    pub fn invalidate(&mut self, iova: Iova, size: u64) {
        let last = size.checked_sub(1).and_then(|behind_first| iova.0.checked_add(behind_first));
        self.carve(iova, Iova(last.unwrap_or(u64::MAX)));
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// The translations, in the order of their addresses.
    #[must_use]
    pub fn entries(&self) -> &[IotlbEntry<A>] {
        self.entries.get(..self.len).unwrap_or_default()
    }

    /// What `iova` becomes, and how many bytes from there on are translated in one piece.
    ///
    /// `recent` is where the last translation was found. That place and the next one are looked at first, as buffers go on
    /// from page to page; begin with 0.
    ///
    /// # Errors
    /// A miss, or the translation does not allow `access`.
    #[cfg_attr(not(for_size), inline)]
    pub fn look_up(&self, iova: Iova, access: Access, recent: &mut usize) -> Result<(A, u64), Unmapped> {
        let next = recent.saturating_add(1);
        let entry = match (self.entries().get(*recent), self.entries().get(next)) {
            (Some(entry), _) if entry.contains(iova) => entry,
            (_, Some(entry)) if entry.contains(iova) => {
                *recent = next;
                entry
            }
            _ => {
                *recent = self.search(iova);
                let found = self.entries().get(*recent).filter(|entry| entry.contains(iova));
                found.ok_or(Unmapped::Miss(Miss { iova, access }))?
            }
        };
        if !entry.access.allows(access) {
            return Err(Unmapped::Denied(Miss { iova, access }));
        }
        // Within the entry, which does not wrap around on either side.
        let target = entry.target.number().wrapping_add(iova.0.wrapping_sub(entry.first.0));
        Ok((A::from_number(target), entry.last.0.wrapping_sub(iova.0).saturating_add(1)))
    }

    /// The first entry that ends at `iova` or behind it.
    fn search(&self, iova: Iova) -> usize {
        self.entries().partition_point(|entry| entry.last < iova)
    }

    /// Takes the addresses from `first` to `last` out of every entry.
    fn carve(&mut self, first: Iova, last: Iova) {
        let mut at = self.search(first);
        while let Some(entry) = self.entries().get(at).copied().filter(|entry| entry.first <= last) {
            match (entry.before(first), entry.behind(last)) {
                (Some(before), Some(behind)) => {
                    self.set(at, before);
                    // Without room, the part behind will be asked for again.
                    self.insert(at.saturating_add(1), behind);
                    return;
                }
                (Some(part), None) | (None, Some(part)) => {
                    self.set(at, part);
                    at = at.saturating_add(1);
                }
                (None, None) => self.remove(at),
            }
        }
    }

    fn set(&mut self, at: usize, entry: IotlbEntry<A>) {
        if let Some(place) = self.entries.get_mut(at) {
            *place = entry;
        }
    }

    fn insert(&mut self, at: usize, entry: IotlbEntry<A>) {
        if let Some(behind) = self.entries.get_mut(at..=self.len) {
            let mut carried = entry;
            for place in behind {
                core::mem::swap(place, &mut carried);
            }
            self.len = self.len.saturating_add(1);
        }
    }

    fn remove(&mut self, at: usize) {
        if let Some([removed, behind @ ..]) = self.entries.get_mut(at..self.len) {
            let mut place = removed;
            for next in behind {
                *place = *next;
                place = next;
            }
            *place = IotlbEntry::unused();
            self.len = self.len.saturating_sub(1);
        }
    }
}

impl<A: AddressSpace> IotlbEntry<A> {
    /// What stands where no entry is, so that equal tables are equal values.
    fn unused() -> Self {
        Self { first: Iova(0), last: Iova(0), target: A::from_number(0), access: Access::ReadWrite }
    }

    #[cfg_attr(not(for_size), inline)]
    fn contains(&self, iova: Iova) -> bool {
        self.first <= iova && iova <= self.last
    }

    /// The part before `first`.
    fn before(&self, first: Iova) -> Option<Self> {
        let last = Iova(first.0.checked_sub(1)?);
        (self.first <= last).then_some(Self { last, ..*self })
    }

    /// The part behind `last`.
    fn behind(&self, last: Iova) -> Option<Self> {
        let first = Iova(last.0.checked_add(1)?);
        let skipped = first.0.checked_sub(self.first.0)?;
        let target = A::from_number(self.target.number().wrapping_add(skipped));
        (first <= self.last).then_some(Self { first, target, ..*self })
    }
}
