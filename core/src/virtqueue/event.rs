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

/// Whether the last `count` steps have passed an event that lies so far behind: the step from it to its successor is among
/// them.
#[cfg_attr(not(for_size), inline)]
fn passed(distance: u16, count: u16) -> bool {
    distance.wrapping_sub(1) < count
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
        Ok(passed(event.distance(self.layout, new, self.size), count))
    }

    /// The place behind which whoever wrote the wishes asked last to be notified; `None` without event indices.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn place(&self) -> Result<Option<u16>, RingFault> {
        if !self.event_idx {
            return Ok(None);
        }
        load(self.range, self.part.part, self.place_at(), Load::Relaxed).map(Some)
    }

    /// Writes the wish to be notified of what comes behind `at`, or of nothing. After asking, the caller looks behind a full
    /// fence whether there is something. False when nothing was to be written: split rings with event indices cannot refuse,
    /// there the other side does not notify again until it was asked to.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn write(&self, at: Option<Position>) -> Result<bool, RingFault> {
        let is_by_index = self.event_idx && self.layout == RingLayout::Split;
        let mut flags = DISABLE;
        if let Some(at) = at {
            flags = ENABLE;
            if self.event_idx {
                flags = AT;
                store(self.range, self.part.part, self.place_at(), at.0, Store::Relaxed)?;
            }
        }
        if is_by_index {
            return Ok(at.is_some());
        }
        store(self.range, self.part.part, self.flags_at(), flags, Store::Release)?;
        Ok(true)
    }

    /// Where the wish is, and its bytes.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn extent(&self) -> (u32, u32) {
        match self.layout {
            RingLayout::Split => (if self.event_idx { self.place_at() } else { 0 }, 2),
            RingLayout::Packed => (0, 4),
        }
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
                    let distance = Position(event).distance(RingLayout::Split, Position(new), 8);
                    assert_eq!(passed(distance, count), steps.contains(&event), "{event} {new} {count}");
                }
            }
        }
    }
}
