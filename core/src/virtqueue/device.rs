//! The device's side of a ring.

mod give;
mod recovery;
mod take;

use super::{
    agreed::Agreed,
    event::Unannounced,
    fault::{RingFault, RingPart},
    kind::{Layout, PackedLayout, SplitLayout},
    layout::{RingLayout, RingParts},
    part::{INDEX, load},
    position::Position,
    used_log::UsedLog,
};
use crate::{
    guest_memory::{GuestRange, Load},
    inflight::{Journal, clear, size_for},
    wire::{feature::VirtioFeatures, vring::VringBase},
};

/// A ring as the device sees it: takes chains, gives them back.
///
/// ```text
///   pop -> ... -> stage, stage, ... -> publish -> needs_call? notify the driver
///    ^ None: enable_kicks -> false: wait for a kick
///    |                       true: more came, go on
/// ```
/// The ring is guest memory and belongs to `R`; everything else is the plain value [`DeviceState`], so that a ring can be
/// moved to other memory or looked at in a test. [`DeviceQueue`] serves both layouts; [`SplitDevice`] and [`PackedDevice`]
/// are compiled for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeviceRing<R, L> {
    parts: RingParts<R>,
    state: DeviceState<L>,
    inflight: Option<Journal<R>>,
    log: Option<UsedLog<R>>,
}

/// The device's side of a ring, split or packed.
pub type DeviceQueue<R> = DeviceRing<R, RingLayout>;
/// The device's side of a split ring.
pub type SplitDevice<R> = DeviceRing<R, SplitLayout>;
/// The device's side of a packed ring.
pub type PackedDevice<R> = DeviceRing<R, PackedLayout>;

/// What the device knows of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceState<L> {
    layout: L,
    agreed: Agreed,
    size: u16,
    /// The next chain to take.
    next_available: Position,
    /// Split: the driver's index when it was last looked at. Packed: always zero, so that equal rings are equal.
    known_available: Position,
    /// Where the next chain is given back.
    next_used: Position,
    /// Up to where the driver sees that chains were given back.
    published: Position,
    /// Slots taken and not given back.
    held: u16,
    /// Chains that were given back and are not published.
    staged: u16,
    /// Packed: the flags of the first of them, which hide all of them while they are not in the ring.
    first_flags: u16,
    unannounced: Unannounced,
}

/// What the device knows of a ring, split or packed.
pub type DeviceQueueState = DeviceState<RingLayout>;
/// What the device knows of a split ring.
pub type SplitDeviceState = DeviceState<SplitLayout>;
/// What the device knows of a packed ring.
pub type PackedDeviceState = DeviceState<PackedLayout>;

impl<R: GuestRange, L: Layout> DeviceRing<R, L> {
    /// A ring of `size` descriptors whose next chain is at `base`; where the next used one of a split ring goes, the ring in
    /// memory says. Of `features`, the acknowledged ones, it goes by `RING_INDIRECT`, `RING_EVENT_IDX` and `IN_ORDER`, and
    /// [`DeviceQueue`] by `RING_PACKED`.
    ///
    /// # Errors
    /// [`RingFault::Size`]; [`RingFault::Base`] for a base of the other layout or one beyond the ring; [`RingFault::Access`].
    pub fn new(parts: RingParts<R>, size: u32, features: VirtioFeatures, base: VringBase) -> Result<Self, RingFault> {
        let kind = L::choose(features);
        let layout = kind.layout();
        let size = layout.check_size(size)?;
        let (next_available, next_used) = match (layout, base) {
            (RingLayout::Split, VringBase::Split { available }) => {
                let used = load(&parts.device, RingPart::UsedRing, INDEX, Load::Relaxed)?;
                (Position(available), Position(used))
            }
            (RingLayout::Packed, VringBase::Packed { available, available_wrap, used, used_wrap })
                if available < size && used < size =>
            {
                (Position::packed(available, available_wrap), Position::packed(used, used_wrap))
            }
            _ => return Err(RingFault::Base { layout, size, base: base.to_num() }),
        };
        Ok(Self::resume(parts, DeviceState::new(kind, Agreed::of(features), size, next_available, next_used)))
    }

    /// A ring that goes on as `state` says, perhaps in other memory. A record and a log have to be
    /// attached again.
    pub const fn resume(parts: RingParts<R>, state: DeviceState<L>) -> Self {
        Self { parts, state, inflight: None, log: None }
    }

    /// Bytes of the inflight record of such a ring.
    #[must_use]
    pub fn inflight_size(layout: RingLayout, size: u16) -> u64 {
        size_for(layout, size).into()
    }

    /// Makes the inflight record that lies in `range` one that nobody has used yet.
    ///
    /// # Errors
    /// [`RingFault::Access`] when it is too short for any ring.
    pub fn clear_inflight(range: &R) -> Result<(), RingFault> {
        clear(range)
    }

    /// Goes on in other memory, where the same ring is now: after the memory table was replaced.
    pub fn relocate(&mut self, parts: RingParts<R>) {
        self.parts = parts;
    }

    /// Logs writes to the ring from now on, or no longer.
    pub fn set_log(&mut self, log: Option<UsedLog<R>>) {
        self.log = log;
    }

    /// Back to the start of an empty ring, as after a reset of the device or of this ring. The
    /// record goes; chains that are out cannot be given back any more.
    pub fn reset(&mut self) {
        let DeviceState { layout, agreed, size, .. } = self.state;
        let start = Position::start(layout.layout());
        self.state = DeviceState::new(layout, agreed, size, start, start);
        self.inflight = None;
    }

    /// Where the ring goes on, for `GET_VRING_BASE`. Give every chain back before.
    #[must_use]
    pub fn base(&self) -> VringBase {
        let DeviceState { next_available, next_used, .. } = self.state;
        next_available.base(self.layout(), next_used)
    }

    /// Chains (split) or descriptors (packed) taken and not given back.
    #[must_use]
    pub fn held(&self) -> u16 {
        self.state.held
    }

    /// Descriptors of the ring.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.state.size
    }

    /// What the device knows of the ring.
    #[must_use]
    pub fn state(&self) -> DeviceState<L> {
        self.state
    }

    /// The layout of the ring.
    #[must_use]
    #[inline]
    pub fn layout(&self) -> RingLayout {
        self.state.layout.layout()
    }

    /// Logs `length` bytes that were written at `offset` of the `part` in `range`.
    #[cfg_attr(not(for_size), inline)]
    fn log(&self, range: &R, part: RingPart, offset: u32, length: u32) -> Result<(), RingFault> {
        match &self.log {
            Some(log) => log.mark(range, part, offset, length),
            None => Ok(()),
        }
    }
}

impl<L: Layout> DeviceState<L> {
    fn new(layout: L, agreed: Agreed, size: u16, next_available: Position, next_used: Position) -> Self {
        let is_split = layout.layout() == RingLayout::Split;
        // What lies between the two is held by nobody: it went back before the base was read.
        Self {
            layout,
            agreed,
            size,
            next_available,
            known_available: if is_split { next_available } else { Position(0) },
            next_used,
            published: next_used,
            held: 0,
            staged: 0,
            first_flags: 0,
            unannounced: Unannounced::default(),
        }
    }
}
