//! Memory that threads share without unsafe code: an array of 16-bit atomics, the grain of rings.

use core::sync::atomic::{AtomicU16, Ordering};

use super::{Access, GuestMemory, GuestRange, Load, Store, Unmapped, locate};
use crate::address::GuestAddress;

/// 16-bit words that several threads read and write, placed at an even guest address.
///
/// The bytes of a word are in the machine's order, as they would be in plain memory.
#[derive(Clone, Copy, Debug)]
pub struct WordMemory<'a> {
    base: GuestAddress,
    words: &'a [AtomicU16],
}

/// A part of a [`WordMemory`].
#[derive(Clone, Copy, Debug)]
pub struct WordRange<'a> {
    address: GuestAddress,
    words: &'a [AtomicU16],
    /// Bytes of the first word that lie before the part: 0 or 1.
    lead: usize,
    len: usize,
}

impl<'a> WordMemory<'a> {
    /// `words` as guest memory that begins at `base`; `None` when `base` is odd.
    #[must_use]
    pub const fn new(base: GuestAddress, words: &'a [AtomicU16]) -> Option<Self> {
        if base.0.is_multiple_of(2) { Some(Self { base, words }) } else { None }
    }
}

impl<'a> GuestMemory for WordMemory<'a> {
    type Address = GuestAddress;
    type Range = WordRange<'a>;

    fn piece(&self, address: GuestAddress, length: u64, _: Access) -> Result<WordRange<'a>, Unmapped> {
        let (offset, len) = locate(self.base, self.words.len().saturating_mul(2), address, length)?;
        let words = self.words.get(offset / 2..).ok_or(Unmapped::Outside)?;
        Ok(WordRange { address, words, lead: offset % 2, len })
    }
}

impl<'a> WordRange<'a> {
    /// Where byte `offset` lies: its word, and which of the two bytes it is.
    fn place(&self, offset: usize) -> Option<(&'a AtomicU16, Half)> {
        if offset >= self.len {
            return None;
        }
        // Inside, so it cannot wrap.
        let at = offset.wrapping_add(self.lead);
        let half = if at.is_multiple_of(2) { Half::First } else { Half::Second };
        Some((self.words.get(at / 2)?, half))
    }

    /// The word that is the number at `offset`, if it lies at an even address and inside.
    fn number(&self, offset: usize) -> Option<&'a AtomicU16> {
        let at = offset.wrapping_add(self.lead);
        if self.len.checked_sub(offset)? < 2 || !at.is_multiple_of(2) {
            return None;
        }
        self.words.get(at / 2)
    }

    fn contains(&self, offset: usize, length: usize) -> Option<()> {
        (offset.checked_add(length)? <= self.len).then_some(())
    }
}

/// A byte of a word, in the order of addresses.
#[derive(Clone, Copy)]
enum Half {
    First,
    Second,
}

impl Half {
    /// A word with `byte` in this half and `other` in the other one.
    fn word(self, byte: u8, other: u8) -> u16 {
        u16::from_ne_bytes(match self {
            Self::First => [byte, other],
            Self::Second => [other, byte],
        })
    }

    fn byte(self, word: u16) -> u8 {
        let [first, second] = word.to_ne_bytes();
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }
}

impl GuestRange for WordRange<'_> {
    fn len(&self) -> usize {
        self.len
    }

    fn guest_address(&self) -> GuestAddress {
        self.address
    }

    fn load_u16(&self, offset: usize, order: Load) -> Option<u16> {
        let order = match order {
            Load::Relaxed => Ordering::Relaxed,
            Load::Acquire => Ordering::Acquire,
        };
        Some(u16::from_le(self.number(offset)?.load(order)))
    }

    fn store_u16(&self, offset: usize, value: u16, order: Store) -> Option<()> {
        let order = match order {
            Store::Relaxed => Ordering::Relaxed,
            Store::Release => Ordering::Release,
        };
        self.number(offset)?.store(value.to_le(), order);
        Some(())
    }

    fn fetch_or(&self, offset: usize, bits: u8) -> Option<u8> {
        let (word, half) = self.place(offset)?;
        Some(half.byte(word.fetch_or(half.word(bits, 0), Ordering::AcqRel)))
    }

    fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        self.contains(offset, out.len())?;
        let mut at = offset;
        let mut out = out;
        while let Some((byte, behind)) = core::mem::take(&mut out).split_first_mut() {
            let (word, half) = self.place(at)?;
            let value = word.load(Ordering::Relaxed);
            *byte = half.byte(value);
            at = at.checked_add(1)?;
            out = match (half, behind) {
                // The second byte of the word comes from the same load.
                (Half::First, [second, behind @ ..]) => {
                    *second = Half::Second.byte(value);
                    at = at.checked_add(1)?;
                    behind
                }
                (_, behind) => behind,
            };
        }
        Some(())
    }

    fn write_from(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        self.contains(offset, bytes.len())?;
        let mut at = offset;
        let mut bytes = bytes;
        while let Some((byte, behind)) = bytes.split_first() {
            let (word, half) = self.place(at)?;
            match (half, behind.split_first()) {
                (Half::First, Some((second, behind))) => {
                    word.store(u16::from_ne_bytes([*byte, *second]), Ordering::Relaxed);
                    at = at.checked_add(2)?;
                    bytes = behind;
                }
                _ => {
                    // Two steps without a loop; the neighbour's byte is never touched.
                    word.fetch_and(half.word(0, u8::MAX), Ordering::Relaxed);
                    word.fetch_or(half.word(*byte, 0), Ordering::Relaxed);
                    at = at.checked_add(1)?;
                    bytes = behind;
                }
            }
        }
        Some(())
    }
}
