//! Where a side is in its ring: sixteen bits in both layouts.

use super::layout::RingLayout;
use crate::wire::vring::VringBase;

/// The wrap counter of the lap, in a packed ring.
const WRAP: u16 = 1 << 15;

/// A place in a ring. Split: an index that runs freely. Packed: a descriptor, and above it the wrap counter of the lap, as
/// event areas and the vring base hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Position(pub(crate) u16);

impl Position {
    /// Where an empty ring begins.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) const fn start(layout: RingLayout) -> Self {
        match layout {
            RingLayout::Split => Self(0),
            RingLayout::Packed => Self(WRAP),
        }
    }

    /// Packed: the descriptor `index` in the lap `wrap`.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) const fn packed(index: u16, wrap: bool) -> Self {
        Self((index & !WRAP) | if wrap { WRAP } else { 0 })
    }

    /// Packed: the descriptor.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) const fn index(self) -> u16 {
        self.0 & !WRAP
    }

    /// Packed: the wrap counter.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) const fn wrap(self) -> bool {
        self.0 & WRAP != 0
    }

    /// `slots` further in a ring of `size`; no more than one lap.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn forward(self, layout: RingLayout, slots: u16, size: u16) -> Self {
        if layout == RingLayout::Split {
            return Self(self.0.wrapping_add(slots));
        }
        // Both are at most 32768, so that the sum cannot wrap.
        let index = self.index().wrapping_add(slots);
        match index.checked_sub(size) {
            Some(index) => Self::packed(index, !self.wrap()),
            None => Self::packed(index, self.wrap()),
        }
    }

    /// Slots from here to `end` in a ring of `size`; no more than one lap.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn distance(self, layout: RingLayout, end: Self, size: u16) -> u16 {
        let numbers = end.0.wrapping_sub(self.0);
        if layout == RingLayout::Split || self.wrap() == end.wrap() {
            return numbers;
        }
        // The wrap counters differ, which is not among what was counted.
        numbers.wrapping_add(size).wrapping_add(WRAP)
    }

    /// The base of a ring whose next chain is here, and whose next used one is at `used`.
    pub(crate) const fn base(self, layout: RingLayout, used: Self) -> VringBase {
        match layout {
            RingLayout::Split => VringBase::Split { available: self.0 },
            RingLayout::Packed => VringBase::Packed {
                available: self.index(),
                available_wrap: self.wrap(),
                used: used.index(),
                used_wrap: used.wrap(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn a_place_of_a_packed_ring_goes_round_and_turns_its_wrap_counter() {
        let packed = RingLayout::Packed;
        let mut position = Position::start(packed);
        let mut seen = Vec::new();
        for _ in 0..7 {
            seen.push((position.index(), position.wrap()));
            assert_eq!(Position::packed(position.index(), position.wrap()), position);
            assert_eq!(
                Position::start(packed).distance(packed, position, 3),
                u16::try_from(seen.len() - 1).unwrap() % 6
            );
            position = position.forward(packed, 1, 3);
        }
        assert_eq!(seen, [(0, true), (1, true), (2, true), (0, false), (1, false), (2, false), (0, true)]);
        let last = Position::packed(32767, true);
        assert_eq!(last.forward(packed, 32768, 32768), Position::packed(32767, false));
    }

    #[test]
    fn an_index_of_a_split_ring_runs_freely() {
        assert_eq!(Position::start(RingLayout::Split), Position(0));
        assert_eq!(Position(65535).forward(RingLayout::Split, 3, 4), Position(2));
    }
}
