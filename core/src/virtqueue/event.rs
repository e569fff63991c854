//! When to notify the other side: flags, event indices, and event suppression areas.

use super::{
    fault::RingFault,
    layout::{PartLayout, RingLayout},
    part::{load, store},
    position::Position,
};
use crate::guest_memory::{GuestRange, Load, Store};

/// Notify always, never, or at one place. In a split ring one bit is the difference between the first two
/// (`VIRTQ_AVAIL_F_NO_INTERRUPT`, `VIRTQ_USED_F_NO_NOTIFY`); packed rings have all three (`RING_EVENT_FLAGS_*`).
const ENABLE: u16 = 0;
const DISABLE: u16 = 1;
const AT: u16 = 2;

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
}

/// Whether an index that has become `new`, after `count` steps, has passed `event`: the step from
/// `event` to its successor is among them.
#[cfg_attr(not(for_size), inline)]
fn passed(event: u16, new: u16, count: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < count
}

/// The part of a ring in which one side says when it wants to be notified. Split: the available or the used ring. Packed: an
/// event suppression area.
pub(crate) struct Wishes<'r, R> {
    pub(crate) range: &'r R,
    pub(crate) part: &'static PartLayout,
    pub(crate) layout: RingLayout,
    pub(crate) size: u16,
    pub(crate) event_idx: bool,
}

impl<R: GuestRange> Wishes<'_, R> {
    /// Whether whoever wrote the wishes wants to be notified of what is `unannounced`, up to `new`. Nothing is
    /// unannounced then.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn want(&self, unannounced: &mut Unannounced, new: Position) -> Result<bool, RingFault> {
        let count = core::mem::take(unannounced).0;
        if count == 0 {
            return Ok(false);
        }
        // The other side writes its wish and then looks at the ring; here it is the other way round.
        self.range.full_fence();
        let is_packed = self.layout == RingLayout::Packed;
        if is_packed || !self.event_idx {
            // The place is written before the flags that make it valid.
            let flags = load(self.range, self.part.part, self.flags_at(), Load::Acquire)?;
            if !is_packed {
                return Ok(flags & DISABLE == ENABLE);
            }
            if flags != AT || !self.event_idx || count > self.size {
                // A place says no more than the last two laps.
                return Ok(flags != DISABLE);
            }
        }
        let event = Position(load(self.range, self.part.part, self.place_at(), Load::Relaxed)?);
        Ok(if !is_packed {
            passed(event.0, new.0, count)
        } else if event.wrap() == new.wrap() {
            passed(event.index(), new.index(), count)
        } else {
            // Counted from the lap of `new`: a place of the lap before lies `size` below.
            passed(event.index().wrapping_sub(self.size), new.index(), count)
        })
    }

    /// Writes the wish to be notified of what comes behind `at`, or of nothing. Split rings with event indices cannot say
    /// nothing; there the other side does not notify again until it was asked to.
    ///
    /// Returns where the wish is, and its bytes. After asking, the caller looks behind a full fence whether there is something.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn write(&self, at: Option<Position>) -> Result<Option<(u32, u32)>, RingFault> {
        let mut flags = DISABLE;
        if let Some(at) = at {
            flags = ENABLE;
            if self.event_idx {
                flags = AT;
                store(self.range, self.part.part, self.place_at(), at.0, Store::Relaxed)?;
            }
        }
        if self.layout == RingLayout::Split && self.event_idx {
            return Ok(at.map(|_| (self.place_at(), 2)));
        }
        store(self.range, self.part.part, self.flags_at(), flags, Store::Release)?;
        Ok(Some((0, if self.layout == RingLayout::Split { 2 } else { 4 })))
    }

    /// Where the flags are. Packed: behind the place.
    #[cfg_attr(not(for_size), inline)]
    fn flags_at(&self) -> u32 {
        if self.layout == RingLayout::Split { 0 } else { 2 }
    }

    /// Where the index or place is. Split: at the end of the ring.
    #[cfg_attr(not(for_size), inline)]
    fn place_at(&self) -> u32 {
        if self.layout == RingLayout::Split { self.part.length(self.size).wrapping_sub(2) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

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
}
