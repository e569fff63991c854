//! What is done to the rings of a device, whoever asks for it: a front-end's messages, or calls in this process.

use core::fmt;
use std::{
    os::fd::OwnedFd,
    sync::{Arc, MutexGuard},
};

use vhost_core::wire::vring::VringBase;
use vhost_core::{IotlbMisuse, Logging, VirtioFeatures, VringAddresses};

use super::{Guest, RingSet};
use crate::{
    device::Device,
    eventfd::{EventFd, EventFdError},
    inflight::{InflightError, InflightRecord},
    memory::{AddressSpace, LogFile, MemoryError, MemoryTable},
    poller::WatchError,
    vring::{Place, RingFault, RingMisuse, Vring},
};

/// Features that concern the way to a device and not the device.
const NOT_OF_DEVICES: VirtioFeatures =
    VirtioFeatures::PROTOCOL_FEATURES.union(VirtioFeatures::LOG_ALL).union(VirtioFeatures::ACCESS_PLATFORM);

/// Why a ring cannot be set up so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// The device has fewer rings.
    NoSuchRing {
        /// The index asked for.
        found: u64,
        /// How many rings there are.
        rings: u16,
    },
    /// The memory cannot be like that.
    Memory(MemoryError),
    /// The value is not possible, or not now.
    Misuse(RingMisuse),
    /// The ring cannot start.
    Fault(RingFault),
    /// The kick descriptor is not one.
    Kick(WatchError),
    /// The call or error descriptor is not one.
    Signal(EventFdError),
    /// A message about translations means nothing.
    Iotlb(IotlbMisuse),
    /// The inflight record is not one.
    Inflight(InflightError),
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchRing { found, rings } => write!(f, "expected a ring below {rings}, found {found}"),
            Self::Memory(error) => error.fmt(f),
            Self::Misuse(error) => error.fmt(f),
            Self::Fault(error) => error.fmt(f),
            Self::Kick(error) => error.fmt(f),
            Self::Signal(error) => error.fmt(f),
            Self::Iotlb(error) => error.fmt(f),
            Self::Inflight(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RingError {}

macro_rules! from {
    ($($error:ty => $variant:ident),*) => {$(
        impl From<$error> for RingError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

from! {
    MemoryError => Memory, RingMisuse => Misuse, RingFault => Fault, WatchError => Kick, EventFdError => Signal,
    IotlbMisuse => Iotlb, InflightError => Inflight
}

/// A device, its rings and its guest, for the time of one request.
pub(crate) struct Control<'c> {
    pub(crate) device: &'c dyn Device,
    pub(crate) rings: &'c RingSet,
    pub(crate) guest: &'c mut Guest,
    /// Which addresses the parts of rings have.
    pub(crate) addresses: AddressSpace,
}

impl Control<'_> {
    /// Replaces guest memory. Rings that run go on in it; a fault of theirs is kept in the ring and signalled.
    pub(crate) fn set_memory(&mut self, memory: MemoryTable) {
        self.guest.set_memory(memory);
        self.place();
    }

    /// Replaces the dirty log. When this returns, all rings mark in the new one, and what they wrote before is in the old.
    pub(crate) fn set_log(&mut self, log: LogFile) -> Result<(), RingError> {
        log.check_covers(&self.guest.memory())?;
        self.guest.set_log(log);
        self.place();
        Ok(())
    }

    /// Sets the eventfd that tells the front-end that pages were marked.
    pub(crate) fn set_log_signal(&mut self, signal: OwnedFd) -> Result<(), RingError> {
        self.guest.set_log_signal(Arc::new(EventFd::try_from(signal)?));
        self.place();
        Ok(())
    }

    pub(crate) fn set_size(&mut self, ring: u64, size: u32) -> Result<(), RingError> {
        {
            let mut vring = self.ring(ring)?;
            // A disabled ring is set up anew without having been stopped (libkrun).
            vring.pause();
            vring.set_size(size)?;
        }
        self.guest.wish(ring, |wish| wish.size = u16::try_from(size).ok());
        self.place();
        Ok(())
    }

    pub(crate) fn set_base(&self, ring: u64, base: VringBase) -> Result<(), RingError> {
        {
            let mut vring = self.ring(ring)?;
            vring.pause();
            vring.set_base(base)?;
        }
        self.place();
        Ok(())
    }

    /// Says where a ring lies; memory and size may come later. A started ring is not moved to where it cannot be: it goes on
    /// where it is.
    pub(crate) fn set_addresses(&mut self, ring: u64, addresses: VringAddresses) -> Result<(), RingError> {
        {
            let vring = self.ring(ring)?;
            if let Some(size) = self.guest.wished(ring).size.filter(|_| vring.is_started())
                && let Place::Guest(place) = self.guest.translate(&addresses, vring.layout(), size, self.addresses)?
            {
                vring.check_addresses(place)?;
            }
            self.guest.check_log(&addresses, vring.layout(), self.guest.wished(ring).size)?;
        }
        self.guest.wish(ring, |wish| wish.addresses = Some(addresses));
        self.place();
        Ok(())
    }

    /// Sets the kick descriptor, which starts the ring; one whose place is not known yet starts as soon as it is.
    pub(crate) fn set_kick(&mut self, ring: u64, kick: Option<OwnedFd>) -> Result<(), RingError> {
        let mut vring = self.ring(ring)?;
        let was_started = vring.is_started();
        if self.guest.place(ring, vring.layout(), self.addresses)?.is_some() {
            vring.start()?;
        }
        // Without a descriptor the back-end has to look by itself (section "SET_VRING_KICK": polling).
        let kicked = if kick.is_some() { vring.set_kick(kick) } else { vring.set_polled() };
        kicked.inspect_err(|_| {
            if !was_started {
                vring.pause();
            }
        })?;
        drop(vring);
        self.guest.wish(ring, |wish| wish.started = true);
        Ok(())
    }

    /// Has all rings use this inflight record from their next start on; one that is started starts anew.
    pub(crate) fn set_inflight(&self, record: Option<&InflightRecord>) -> Result<(), RingError> {
        if let Some(record) = record {
            for vring in self.rings.each() {
                record.check(vring.layout())?;
            }
        }
        for mut vring in self.rings.each() {
            vring.pause();
            vring.set_inflight(record.cloned())?;
        }
        self.place();
        Ok(())
    }

    pub(crate) fn set_call(&self, ring: u64, call: Option<OwnedFd>) -> Result<(), RingError> {
        Ok(self.ring(ring)?.set_call(call)?)
    }

    pub(crate) fn set_error(&self, ring: u64, error: Option<OwnedFd>) -> Result<(), RingError> {
        Ok(self.ring(ring)?.set_error(error)?)
    }

    /// Stops a ring; where to go on in it.
    pub(crate) fn stop(&mut self, ring: u64) -> Result<VringBase, RingError> {
        let base = {
            let mut vring = self.ring(ring)?;
            // Nobody hears of a fault any more: the ring stops in any case.
            let _ = vring.settle(self.device);
            vring.stop()
        };
        self.guest.wish(ring, |wish| wish.started = false);
        if !self.guest.is_any_started() {
            // The front-end does not take translations back from a device that is stopped.
            self.rings.iommu().clear();
        }
        Ok(base)
    }

    /// Gives rings and device the features that the driver accepted.
    pub(crate) fn acknowledge(&mut self, features: VirtioFeatures) {
        let is_behind_iommu = features.contains(VirtioFeatures::ACCESS_PLATFORM);
        self.guest.set_iommu(is_behind_iommu.then(|| Arc::clone(self.rings.iommu())));
        let logging = if features.contains(VirtioFeatures::LOG_ALL) { Logging::On } else { Logging::Off };
        self.guest.set_logging(logging);
        for mut vring in self.rings.each() {
            if vring.set_features(features).is_err() {
                // Started and disabled: it starts again when the rings are placed.
                vring.pause();
                let _ = vring.set_features(features);
            }
        }
        self.device.features_acknowledged(features.difference(NOT_OF_DEVICES).bits());
        self.place();
    }

    /// Enables those rings and disables the others.
    pub(crate) fn enable(&self, is_enabled: impl Fn(u16) -> bool) {
        for mut vring in self.rings.each() {
            match is_enabled(vring.index()) {
                true if !vring.is_enabled() => vring.enable(),
                false => self.disable(&mut vring),
                _ => {}
            }
        }
    }

    /// Disables a ring, and tells the device if that changes anything.
    pub(crate) fn disable(&self, vring: &mut Vring) {
        if vring.is_enabled() {
            // A fault of the ring is kept in it and was reported through its error descriptor.
            let _ = vring.settle(self.device);
            vring.disable();
            self.device.queue_disabled(vring.index());
        }
    }

    /// Everything as before a driver came, but for memory and what front-ends do not send again.
    pub(crate) fn reset(&mut self) {
        for mut vring in self.rings.each() {
            vring.reset();
            vring.set_log(None);
        }
        self.guest.forget_rings();
        self.rings.iommu().clear();
        self.guest.set_logging(Logging::Off);
        self.device.reset();
    }

    /// Lets everything of a guest go, as nobody will ask for anything any more.
    pub(crate) fn forget(&mut self) {
        for mut vring in self.rings.each() {
            vring.forget();
        }
        self.guest.forget();
        self.rings.iommu().clear();
        self.device.reset();
    }

    /// Waits for the batch under way on a ring, and holds it.
    pub(crate) fn ring(&self, ring: u64) -> Result<MutexGuard<'_, Vring>, RingError> {
        let vring = usize::try_from(ring).ok().and_then(|index| self.rings.lock(index));
        vring.ok_or(RingError::NoSuchRing { found: ring, rings: self.rings.count() })
    }

    /// Gives all rings the memory and their places in it, and starts those that waited for one.
    ///
    /// A ring that is started and has no place any more is stopped. One that its driver broke stays stopped until the
    /// front-end starts it. Either fault is kept in the ring and was reported through its error descriptor.
    fn place(&self) {
        for mut vring in self.rings.each() {
            let index = u64::from(vring.index());
            let place = self.guest.place(index, vring.layout(), self.addresses).ok().flatten();
            let is_somewhere = place.is_some();
            vring.set_log(self.guest.ring_log(index));
            let _ = vring.set_place(self.guest.memory(), place);
            if self.guest.is_started(index) && !vring.is_started() && !vring.is_broken() && is_somewhere {
                let _ = vring.start();
            }
        }
    }
}
