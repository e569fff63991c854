//! A ring of either layout, for drivers that use both.

use super::{
    driver::{AddError, Buffer, DriverFault, Used},
    fault::RingFault,
    layout::{RingLayout, RingParts},
    packed_driver::{PackedDriver, PackedDriverState},
    split_driver::{SplitDriver, SplitDriverState},
};
use crate::{
    guest_memory::{AddressSpace, GuestRange},
    wire::{feature::VirtioFeatures, vring::VringBase},
};

/// The driver's side of a ring, split or packed, of up to `N` descriptors.
///
/// See [`SplitDriver`] and [`PackedDriver`] for what the methods do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DriverQueue<R, const N: usize> {
    /// A split ring.
    Split(SplitDriver<R, N>),
    /// A packed ring.
    Packed(PackedDriver<R, N>),
}

/// What the driver knows of a ring of either layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DriverQueueState<const N: usize> {
    /// Of a split ring.
    Split(SplitDriverState<N>),
    /// Of a packed ring.
    Packed(PackedDriverState<N>),
}

macro_rules! either {
    ($queue:expr, $ring:ident => $result:expr) => {
        match $queue {
            Self::Split($ring) => $result,
            Self::Packed($ring) => $result,
        }
    };
}

impl<R: GuestRange, const N: usize> DriverQueue<R, N> {
    /// An empty ring of the layout that the acknowledged `features` mean; its memory is zeroed.
    ///
    /// # Errors
    /// As [`SplitDriver::new`] and [`PackedDriver::new`].
    pub fn new(parts: RingParts<R>, size: u32, features: VirtioFeatures) -> Result<Self, RingFault> {
        match RingLayout::of(features) {
            RingLayout::Split => SplitDriver::new(parts, size, features).map(Self::Split),
            RingLayout::Packed => PackedDriver::new(parts, size, features).map(Self::Packed),
        }
    }

    /// A ring that goes on as `state` says, perhaps in other memory.
    pub fn resume(parts: RingParts<R>, state: DriverQueueState<N>) -> Self {
        match state {
            DriverQueueState::Split(state) => Self::Split(SplitDriver::resume(parts, state)),
            DriverQueueState::Packed(state) => Self::Packed(PackedDriver::resume(parts, state)),
        }
    }

    /// Adds a chain; the device sees it after [`DriverQueue::publish`]. Returns its token.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add<A: AddressSpace>(&mut self, readable: &[Buffer<A>], writable: &[Buffer<A>]) -> Result<u16, AddError> {
        either!(self, ring => ring.add(readable, writable))
    }

    /// Adds a chain whose descriptors are written to `table`, where they stay until it comes back.
    ///
    /// # Errors
    /// See [`AddError`].
    pub fn add_indirect<A: AddressSpace>(
        &mut self,
        table: &R,
        readable: &[Buffer<A>],
        writable: &[Buffer<A>],
    ) -> Result<u16, AddError> {
        either!(self, ring => ring.add_indirect(table, readable, writable))
    }

    /// Lets the device see every chain that was added.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn publish(&mut self) -> Result<(), RingFault> {
        either!(self, ring => ring.publish())
    }

    /// Whether the device wants to be kicked for what was published since the last question.
    ///
    /// # Errors
    /// When the ring cannot be read any more.
    pub fn needs_kick(&mut self) -> Result<bool, RingFault> {
        either!(self, ring => ring.needs_kick())
    }

    /// The next chain that came back; `None` when there is none.
    ///
    /// # Errors
    /// When the device broke the ring.
    pub fn poll(&mut self) -> Result<Option<Used>, DriverFault> {
        either!(self, ring => ring.poll())
    }

    /// Asks the device for no calls, as far as it can be asked.
    ///
    /// # Errors
    /// When the ring cannot be written any more.
    pub fn disable_calls(&mut self) -> Result<(), RingFault> {
        either!(self, ring => ring.disable_calls())
    }

    /// Asks the device to call for the next chain that it gives back. True when there is one
    /// already, for which no call may come.
    ///
    /// # Errors
    /// When the ring cannot be accessed any more, or its index is wrong.
    pub fn enable_calls(&mut self) -> Result<bool, DriverFault> {
        either!(self, ring => ring.enable_calls())
    }

    /// Where a device begins that takes over from one which gave its chains back in the order in
    /// which it got them.
    #[must_use]
    pub fn base(&self) -> VringBase {
        either!(self, ring => ring.base())
    }

    /// Descriptors of the ring that are free.
    #[must_use]
    pub fn free(&self) -> u16 {
        either!(self, ring => ring.free())
    }

    /// Chains that are out.
    #[must_use]
    pub fn outstanding(&self) -> u16 {
        either!(self, ring => ring.outstanding())
    }

    /// What the driver knows of the ring.
    #[must_use]
    pub fn state(&self) -> DriverQueueState<N> {
        match self {
            Self::Split(ring) => DriverQueueState::Split(ring.state().clone()),
            Self::Packed(ring) => DriverQueueState::Packed(ring.state().clone()),
        }
    }
}
