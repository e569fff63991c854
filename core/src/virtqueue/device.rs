//! A ring of either layout, for devices that serve both.

use super::{
    chain::{Chain, ChainBuffer},
    fault::{PopError, PushError, RingFault},
    layout::{RingLayout, RingParts},
    packed_device::{PackedDevice, PackedDeviceState},
    split_device::{SplitDevice, SplitDeviceState},
    used_log::UsedLog,
};
use crate::{
    guest_memory::{GuestMemory, GuestRange},
    inflight::{InflightFault, PackedInflight, Resubmission, SplitInflight, clear},
    wire::{feature::VirtioFeatures, vring::VringBase},
};

/// The device's side of a ring, split or packed.
///
/// See [`SplitDevice`] and [`PackedDevice`] for what the methods do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DeviceQueue<R> {
    /// A split ring.
    Split(SplitDevice<R>),
    /// A packed ring.
    Packed(PackedDevice<R>),
}

/// What the device knows of a ring of either layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceQueueState {
    /// Of a split ring.
    Split(SplitDeviceState),
    /// Of a packed ring.
    Packed(PackedDeviceState),
}

macro_rules! either {
    ($queue:expr, $ring:ident => $result:expr) => {
        match $queue {
            Self::Split($ring) => $result,
            Self::Packed($ring) => $result,
        }
    };
}

impl<R: GuestRange> DeviceQueue<R> {
    /// A ring of the layout that the acknowledged `features` mean.
    ///
    /// # Errors
    /// As [`SplitDevice::new`] and [`PackedDevice::new`].
    pub fn new(parts: RingParts<R>, size: u32, features: VirtioFeatures, base: VringBase) -> Result<Self, RingFault> {
        match RingLayout::of(features) {
            RingLayout::Split => SplitDevice::new(parts, size, features, base).map(Self::Split),
            RingLayout::Packed => PackedDevice::new(parts, size, features, base).map(Self::Packed),
        }
    }

    /// A ring that goes on as `state` says, perhaps in other memory. A record and a log have to be
    /// attached again.
    pub const fn resume(parts: RingParts<R>, state: DeviceQueueState) -> Self {
        match state {
            DeviceQueueState::Split(state) => Self::Split(SplitDevice::resume(parts, state)),
            DeviceQueueState::Packed(state) => Self::Packed(PackedDevice::resume(parts, state)),
        }
    }

    /// Bytes of the inflight record of such a ring.
    #[must_use]
    pub fn inflight_size(layout: RingLayout, size: u16) -> u64 {
        match layout {
            RingLayout::Split => SplitInflight::<R>::size_for(size),
            RingLayout::Packed => PackedInflight::<R>::size_for(size),
        }
    }

    /// Makes the inflight record that lies in `range` one that nobody has used yet.
    ///
    /// # Errors
    /// When it is too short for any ring.
    pub fn clear_inflight(range: &R) -> Result<(), InflightFault> {
        clear(range)
    }

    /// Records every chain in the inflight record that lies in `range` from now on, and finds in it
    /// what is to be taken again.
    ///
    /// # Errors
    /// When the record cannot be used; the ring is as it was then.
    pub fn recover<'r>(&mut self, range: R, room: &'r mut [Resubmission]) -> Result<&'r [Resubmission], RingFault> {
        let opened = |fault: InflightFault| RingFault::Inflight(fault);
        match self {
            Self::Split(ring) => ring.recover(SplitInflight::open(range, ring.size()).map_err(opened)?, room),
            Self::Packed(ring) => ring.recover(PackedInflight::open(range, ring.size()).map_err(opened)?, room),
        }
    }

    /// Goes on in other memory, where the same ring is now: after the memory table was replaced.
    pub fn relocate(&mut self, parts: RingParts<R>) {
        either!(self, ring => ring.relocate(parts));
    }

    /// Logs writes to the ring from now on, or no longer.
    pub fn set_log(&mut self, log: Option<UsedLog<R>>) {
        either!(self, ring => ring.set_log(log));
    }

    /// Takes the next chain; `None` when there is none. Its pieces are in `buffer` then.
    ///
    /// # Errors
    /// See [`PopError`].
    #[inline]
    pub fn pop<M, B>(&mut self, memory: &M, buffer: &mut B) -> Result<Option<Chain>, PopError>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        either!(self, ring => ring.pop(memory, buffer))
    }

    /// Takes a chain again that was in flight when the record's last writer ended.
    ///
    /// # Errors
    /// See [`PopError`].
    pub fn pop_recovered<M, B>(
        &mut self,
        resubmission: &Resubmission,
        memory: &M,
        buffer: &mut B,
    ) -> Result<Chain, PopError>
    where
        M: GuestMemory,
        B: ChainBuffer<M::Range>,
    {
        either!(self, ring => ring.pop_recovered(resubmission, memory, buffer))
    }

    /// Leaves the chain in the ring that was taken last, as if it had not been: it is the next one again.
    ///
    /// # Errors
    /// [`PushError::NotTaken`] for any other chain, and for one that was [recovered](Self::pop_recovered).
    pub fn untake(&mut self, chain: Chain) -> Result<(), PushError> {
        either!(self, ring => ring.untake(chain))
    }

    /// Gives a chain back with the number of bytes written, and lets the driver see it.
    ///
    /// # Errors
    /// See [`PushError`].
    #[inline]
    pub fn push(&mut self, chain: Chain, written: u32) -> Result<(), PushError> {
        either!(self, ring => ring.push(chain, written))
    }

    /// Gives a chain back; the driver sees it after [`DeviceQueue::publish`].
    ///
    /// # Errors
    /// See [`PushError`].
    #[inline]
    pub fn stage(&mut self, chain: Chain, written: u32) -> Result<(), PushError> {
        either!(self, ring => ring.stage(chain, written))
    }

    /// Gives chains back whose writable parts are all written completely.
    ///
    /// # Errors
    /// See [`PushError`]. The chains before the one it names were given back.
    pub fn stage_filled(&mut self, chains: impl IntoIterator<Item = Chain>) -> Result<(), PushError> {
        either!(self, ring => ring.stage_filled(chains))
    }

    /// Lets the driver see every chain that was staged.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    #[inline]
    pub fn publish(&mut self) -> Result<(), RingFault> {
        either!(self, ring => ring.publish())
    }

    /// Whether the driver wants to be called for what was published since the last question.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    #[inline]
    pub fn needs_call(&mut self) -> Result<bool, RingFault> {
        either!(self, ring => ring.needs_call())
    }

    /// Asks the driver not to kick, as far as it can be asked.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_kicks(&mut self) -> Result<(), RingFault> {
        either!(self, ring => ring.disable_kicks())
    }

    /// Asks the driver to kick at the next chain. True when there is one already, for which no kick
    /// may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more, or its index is wrong.
    pub fn enable_kicks(&mut self) -> Result<bool, RingFault> {
        either!(self, ring => ring.enable_kicks())
    }

    /// Whether the next [`DeviceQueue::pop`] finds a chain.
    ///
    /// # Errors
    /// When the ring cannot be read any more, or its index is wrong.
    pub fn has_available(&mut self) -> Result<bool, RingFault> {
        either!(self, ring => ring.has_available())
    }

    /// Back to the start of an empty ring, as after a reset of the device or of this ring.
    pub fn reset(&mut self) {
        either!(self, ring => ring.reset());
    }

    /// Where the ring goes on, for `GET_VRING_BASE`. Give every chain back before.
    #[must_use]
    pub fn base(&self) -> VringBase {
        either!(self, ring => ring.base())
    }

    /// Chains (split) or descriptors (packed) taken and not given back.
    #[must_use]
    pub fn held(&self) -> u16 {
        either!(self, ring => ring.held())
    }

    /// Descriptors of the ring.
    #[must_use]
    pub fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }

    /// What the device knows of the ring.
    #[must_use]
    pub fn state(&self) -> DeviceQueueState {
        match self {
            Self::Split(ring) => DeviceQueueState::Split(*ring.state()),
            Self::Packed(ring) => DeviceQueueState::Packed(*ring.state()),
        }
    }

    /// The layout of the ring.
    #[must_use]
    pub const fn layout(&self) -> RingLayout {
        match self {
            Self::Split(_) => RingLayout::Split,
            Self::Packed(_) => RingLayout::Packed,
        }
    }
}
