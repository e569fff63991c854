//! When to notify the other side: event indices, and places in a packed ring.

use super::{
    fault::{RingFault, RingPart},
    part::{load, store},
};
use crate::guest_memory::{GuestRange, Load, Store};

/// Split: the driver wants no calls (`VIRTQ_AVAIL_F_NO_INTERRUPT`), the device no kicks
/// (`VIRTQ_USED_F_NO_NOTIFY`).
pub(crate) const SUPPRESS: u16 = 1;

/// Packed: notify always, never, or at one descriptor (`RING_EVENT_FLAGS_*`).
const EVENT_ENABLE: u16 = 0;
const EVENT_DISABLE: u16 = 1;
const EVENT_AT: u16 = 2;

/// Offsets in an event suppression area of a packed ring.
const EVENT_PLACE: u32 = 0;
const EVENT_FLAGS: u32 = 2;

/// What counts the entries since the last decision whether to notify.
///
/// It stays at its end rather than wrap to a small number, which might suppress a notification.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Unannounced(u16);

impl Unannounced {
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn add(&mut self, entries: u16) {
        self.0 = self.0.saturating_add(entries);
    }

    /// What came since the last question; `None` if nothing did.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn take(&mut self) -> Option<u16> {
        match core::mem::take(&mut self.0) {
            0 => None,
            entries => Some(entries),
        }
    }
}

/// Whether an index that has become `new`, after `count` steps, has passed `event`: the step from
/// `event` to its successor is among them.
#[cfg_attr(not(for_size), inline)]
pub(crate) fn passed(event: u16, new: u16, count: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < count
}

/// A place in a packed ring: a descriptor, and the wrap counter of the lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) index: u16,
    pub(crate) wrap: bool,
}

impl Place {
    pub(crate) const START: Self = Self { index: 0, wrap: true };

    /// `slots` further in a ring of `size`; no more than one lap.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn forward(self, slots: u16, size: u16) -> Self {
        // Both are at most 32768, so that the sum cannot wrap.
        let index = self.index.wrapping_add(slots);
        match index.checked_sub(size) {
            Some(index) => Self { index, wrap: !self.wrap },
            None => Self { index, ..self },
        }
    }

    /// As event areas and the vring base hold it: the wrap counter in bit 15.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn to_word(self) -> u16 {
        (self.index & 0x7fff) | (u16::from(self.wrap) << 15)
    }

    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn from_word(word: u16) -> Self {
        Self { index: word & 0x7fff, wrap: word & 0x8000 != 0 }
    }
}

/// Packed: whether the other side, whose event suppression area the `part` in `range` is, wants to be notified after `count`
/// descriptors up to `new`.
#[cfg_attr(not(for_size), inline)]
pub(crate) fn wants_notification<R: GuestRange>(
    range: &R,
    part: RingPart,
    event_idx: bool,
    new: Place,
    count: u16,
    size: u16,
) -> Result<bool, RingFault> {
    // The place is written before the flags that make it valid.
    let flags = load(range, part, EVENT_FLAGS, Load::Acquire)?;
    if flags != EVENT_AT || !event_idx || count > size {
        // A place says no more than the last two laps.
        return Ok(flags != EVENT_DISABLE);
    }
    let event = Place::from_word(load(range, part, EVENT_PLACE, Load::Relaxed)?);
    // Counted from the lap of `new`: a place of the lap before lies `size` below.
    let event = if event.wrap == new.wrap { event.index } else { event.index.wrapping_sub(size) };
    Ok(passed(event, new.index, count))
}

/// Packed: asks the other side for no notification.
pub(crate) fn disable<R: GuestRange>(range: &R, part: RingPart) -> Result<(), RingFault> {
    store(range, part, EVENT_FLAGS, EVENT_DISABLE, Store::Relaxed)
}

/// Packed: asks the other side for a notification when it comes to `at`. The caller looks there
/// again behind a full fence.
pub(crate) fn enable<R: GuestRange>(range: &R, part: RingPart, event_idx: bool, at: Place) -> Result<(), RingFault> {
    if event_idx {
        store(range, part, EVENT_PLACE, at.to_word(), Store::Relaxed)?;
    }
    store(range, part, EVENT_FLAGS, if event_idx { EVENT_AT } else { EVENT_ENABLE }, Store::Release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_passed_exactly_when_its_step_is_among_the_last() {
        for start in [0, 1, 32767, 65533, 65535_u16] {
            for count in 0..8_u16 {
                let new = start.wrapping_add(count);
                let steps: Vec<u16> = (0..count).map(|step| start.wrapping_add(step)).collect();
                for event in (0..20).map(|offset| start.wrapping_sub(10).wrapping_add(offset)) {
                    assert_eq!(passed(event, new, count), steps.contains(&event), "{event} {new} {count}");
                }
            }
        }
    }

    #[test]
    fn a_place_goes_round_and_turns_its_wrap_counter() {
        let mut place = Place::START;
        let mut seen = Vec::new();
        for _ in 0..7 {
            seen.push((place.index, place.wrap));
            assert_eq!(Place::from_word(place.to_word()), place);
            place = place.forward(1, 3);
        }
        assert_eq!(seen, [(0, true), (1, true), (2, true), (0, false), (1, false), (2, false), (0, true)]);
        assert_eq!(Place { index: 32767, wrap: true }.forward(32768, 32768), Place { index: 32767, wrap: false });
    }

    extern crate std;
    use std::vec::Vec;
}
