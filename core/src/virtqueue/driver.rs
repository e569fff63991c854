//! The driver's side of a ring.

mod add;
mod descriptors;
mod error;
mod poll;
mod tokens;

use self::tokens::Tokens;
use super::{
    agreed::Agreed,
    event::Unannounced,
    fault::{RingFault, RingPart},
    kind::{Layout, PackedLayout, SplitLayout},
    layout::{RingLayout, RingParts},
    part::{store, write_descriptor},
    position::Position,
};
use crate::{
    address::GuestAddress,
    guest_memory::{GuestRange, Store},
    virtqueue::descriptor::Descriptor,
    wire::{feature::VirtioFeatures, vring::VringBase},
};

pub use self::error::{AddError, DriverFault};

/// A run of bytes that a driver gives to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer<A = GuestAddress> {
    /// Where it begins, as the device will look it up.
    pub address: A,
    /// Its bytes, not zero.
    pub length: u32,
}

/// A chain that came back from the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Used {
    /// What adding the chain gave.
    pub token: u16,
    /// Bytes the device says it wrote, from the start of the writable part on; no more than that
    /// part has.
    pub written: u32,
}

/// A ring as the driver sees it: adds chains, polls for those that come back. It has room for
/// a ring of up to `N` descriptors.
///
/// ```text
///   add, add, ... -> publish -> needs_kick? notify the device
///   poll -> Some ... None: enable_calls -> false: wait for a call
///    ^                                  true: more came, poll again
/// ```
/// [`DriverQueue`] uses both layouts; [`SplitDriver`] and [`PackedDriver`] are compiled for one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DriverRing<R, L, const N: usize> {
    parts: RingParts<R>,
    state: DriverState<L, N>,
}

/// The driver's side of a ring, split or packed, of up to `N` descriptors.
pub type DriverQueue<R, const N: usize> = DriverRing<R, RingLayout, N>;
/// The driver's side of a split ring of up to `N` descriptors.
pub type SplitDriver<R, const N: usize> = DriverRing<R, SplitLayout, N>;
/// The driver's side of a packed ring of up to `N` descriptors.
pub type PackedDriver<R, const N: usize> = DriverRing<R, PackedLayout, N>;

/// What the driver knows of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DriverState<L, const N: usize> {
    layout: L,
    agreed: Agreed,
    size: u16,
    /// Descriptors of the ring that are free.
    free: u16,
    /// Where the next chain is made available.
    next_available: Position,
    /// Up to where the device sees that chains were made available.
    published: Position,
    /// The next chain to come back; split: and the device's index when it was last looked at.
    next_used: Position,
    known_used: Position,
    /// Packed: the flags of the first descriptor that is not published, which hide all of them while they are not in the ring.
    first_flags: u16,
    unannounced: Unannounced,
    tokens: Tokens<N>,
}

/// What the driver knows of a ring, split or packed.
pub type DriverQueueState<const N: usize> = DriverState<RingLayout, N>;
/// What the driver knows of a split ring.
pub type SplitDriverState<const N: usize> = DriverState<SplitLayout, N>;
/// What the driver knows of a packed ring.
pub type PackedDriverState<const N: usize> = DriverState<PackedLayout, N>;

impl<R: GuestRange, L: Layout, const N: usize> DriverRing<R, L, N> {
    /// An empty ring of `size` descriptors, whose memory is zeroed here. Of `features`, the
    /// acknowledged ones, it goes by `RING_INDIRECT`, `RING_EVENT_IDX` and `IN_ORDER`, and [`DriverQueue`] by `RING_PACKED`.
    ///
    /// # Errors
    /// [`RingFault::Size`], [`RingFault::Capacity`], [`RingFault::Access`].
    pub fn new(parts: RingParts<R>, size: u32, features: VirtioFeatures) -> Result<Self, RingFault> {
        let kind = L::choose(features);
        let layout = kind.layout();
        let size = layout.check_size(size)?;
        if usize::from(size) > N {
            return Err(RingFault::Capacity { size, capacity: u32::try_from(N).unwrap_or(u32::MAX) });
        }
        let [descriptors, driver, device] = layout.parts();
        if layout == RingLayout::Packed {
            for index in 0..size {
                write_descriptor(&parts.descriptor, descriptors.part, index, layout, Descriptor::ZERO)?;
            }
        }
        zero(&parts.driver, driver.part)?;
        zero(&parts.device, device.part)?;
        let start = Position::start(layout);
        let state = DriverState {
            layout: kind,
            agreed: Agreed::of(features),
            size,
            free: size,
            next_available: start,
            published: start,
            next_used: start,
            known_used: start,
            first_flags: 0,
            unannounced: Unannounced::default(),
            tokens: Tokens::new(size),
        };
        Ok(Self::resume(parts, state))
    }

    /// A ring that goes on as `state` says, perhaps in other memory.
    pub const fn resume(parts: RingParts<R>, state: DriverState<L, N>) -> Self {
        Self { parts, state }
    }

    /// Where a device begins that takes over from one which gave its chains back in the order in
    /// which it got them.
    #[must_use]
    pub fn base(&self) -> VringBase {
        self.state.next_used.base(self.layout(), self.state.next_used)
    }

    /// Descriptors of the ring that are free.
    #[must_use]
    pub fn free(&self) -> u16 {
        self.state.free
    }

    /// Chains that are out.
    #[must_use]
    pub fn outstanding(&self) -> u16 {
        self.state.tokens.outstanding
    }

    /// What the driver knows of the ring.
    #[must_use]
    pub fn state(&self) -> DriverState<L, N> {
        self.state.clone()
    }

    #[inline]
    fn layout(&self) -> RingLayout {
        self.state.layout.layout()
    }
}

/// Zeroes flags and index of a split ring's part, or an event suppression area.
fn zero<R: GuestRange>(range: &R, part: RingPart) -> Result<(), RingFault> {
    store(range, part, 0, 0, Store::Relaxed)?;
    store(range, part, 2, 0, Store::Relaxed)
}
