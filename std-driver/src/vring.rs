//! A vring as a passive object: it has no thread and waits for nothing.
//!
//! Somebody sets it up ([`Vring::set_size`], [`Vring::set_addresses`], ...), starts and enables it, and calls
//! [`Vring::process`] when it was kicked: a [`Worker`](crate::worker::Worker), or the caller's own loop.
//!
//! ```text
//!              start                    enable
//!  stopped ----------> started, disabled ------> running: process() serves the driver
//!     ^                    |    ^                   |
//!     |                    |    +------ disable ----+
//!     +--- stop, or a fault of the ring ------------+
//! ```
//!
//! Both edges into *running* and every new kick descriptor ask for one scan, because a kick may have come before.

mod attended;
mod behind;
mod fault;
mod kick;
mod log;
mod place;
mod promptness;
mod queue;
mod recovery;
mod shared;
mod spare;
#[cfg(test)]
pub(crate) mod test_ring;
#[cfg(test)]
mod tests_chain;
#[cfg(test)]
mod tests_recovery;
#[cfg(test)]
mod tests_ring;
#[cfg(test)]
mod tests_turn;
mod turn;

use core::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use vhost_core::wire::vring::VringBase;
use vhost_core::{DeviceQueue, GuestAddress, RingLayout, VirtioFeatures};

pub use self::fault::{ChainFault, RingFault, RingFaults, RingMisuse};
pub use self::queue::Queue;
pub use self::shared::SharedVring;
pub use self::turn::Turn;

pub(crate) use self::log::{RingLog, UsedRing};

pub(crate) use self::behind::BehindIommu;
pub(crate) use self::place::Place;
pub(crate) use self::promptness::Company;

use self::behind::Behind;
use self::kick::Kick;
use self::promptness::Promptness;
use self::recovery::Recovery;
use self::spare::Spares;
use crate::eventfd::{EventFd, EventFdError};
use crate::memory::{MemoryTable, OwnedRange};
use crate::poller::{Poller, Token, WatchError};

/// The features that change how a ring works.
const RING_FEATURES: VirtioFeatures = VirtioFeatures::RING_EVENT_IDX
    .union(VirtioFeatures::RING_INDIRECT)
    .union(VirtioFeatures::RING_PACKED)
    .union(VirtioFeatures::IN_ORDER);

/// Where the three parts of a ring are, as guest addresses.
pub type RingAddresses = vhost_core::RingAddresses<GuestAddress>;

/// A ring that runs.
type Ring = DeviceQueue<OwnedRange>;

/// One ring of a device: its parameters, its descriptors and its place in the driver's list of requests.
pub struct Vring {
    index: u16,
    memory: Option<MemoryTable>,
    log: Option<RingLog>,
    size: u16,
    addresses: Option<RingAddresses>,
    /// In the place of addresses, where the driver uses its own.
    behind: Option<Box<Behind>>,
    /// `None`: at the start of an empty ring.
    base: Option<VringBase>,
    features: VirtioFeatures,
    enabled: bool,
    running: Option<Ring>,
    broken: bool,
    scan_due: bool,
    /// Somebody looks at the ring all the time.
    attended: bool,
    kick: Kick,
    call: Option<EventFd>,
    promptness: Promptness,
    error: Option<EventFd>,
    faults: RingFaults,
    taken: Vec<vhost_core::Chain>,
    spares: Spares,
    recovery: Recovery,
}

impl Vring {
    /// A stopped and disabled ring without any parameter; `index` is its place in the device.
    #[must_use]
    pub fn new(index: u16) -> Self {
        Self {
            index,
            memory: None,
            log: None,
            size: 0,
            addresses: None,
            behind: None,
            base: None,
            features: VirtioFeatures::empty(),
            enabled: false,
            running: None,
            broken: false,
            scan_due: false,
            attended: false,
            kick: Kick::default(),
            call: None,
            promptness: Promptness::new(VirtioFeatures::empty()),
            error: None,
            faults: RingFaults::default(),
            taken: Vec::new(),
            spares: Spares::default(),
            recovery: Recovery::default(),
        }
    }

    /// Sets the number of descriptors: 1 to 32768, and a power of two in a split ring.
    ///
    /// # Errors
    /// When it is another number, or the ring is started with another size.
    pub fn set_size(&mut self, size: u32) -> Result<(), RingMisuse> {
        let checked = self.layout().check_size(size).map_err(|_| RingMisuse::Size(size))?;
        self.while_stopped(checked != self.size)?;
        self.size = checked;
        Ok(())
    }

    /// Sets where to go on in the ring.
    ///
    /// # Errors
    /// When the ring is started.
    pub fn set_base(&mut self, base: VringBase) -> Result<(), RingMisuse> {
        self.while_stopped(true)?;
        self.base = Some(base);
        Ok(())
    }

    /// Takes the ring's features from all that the driver acknowledged.
    ///
    /// # Errors
    /// When the ring is started with other ones.
    pub fn set_features(&mut self, acknowledged: VirtioFeatures) -> Result<(), RingMisuse> {
        let features = acknowledged & RING_FEATURES;
        self.while_stopped(features != self.features)?;
        self.features = features;
        Ok(())
    }

    /// Replaces the descriptor that the driver kicks; `None` when it does not kick. The old one is closed.
    ///
    /// # Errors
    /// When a watched ring gets a descriptor that cannot be watched; the old one stays.
    pub fn set_kick(&mut self, kick: Option<OwnedFd>) -> Result<(), WatchError> {
        self.kick.replace(kick)?;
        self.scan();
        Ok(())
    }

    /// Has the ring looked at about every millisecond while it runs, because the driver does not kick. [`Vring::set_kick`]
    /// ends that.
    ///
    /// # Errors
    /// When the system gives no clock; the old descriptor stays.
    pub fn set_polled(&mut self) -> Result<(), WatchError> {
        self.kick.replace_by_clock()?;
        self.scan();
        Ok(())
    }

    /// Replaces the eventfd that signals the driver; `None` when it is not to be signalled.
    ///
    /// # Errors
    /// When the descriptor is no eventfd; the old one stays.
    pub fn set_call(&mut self, call: Option<OwnedFd>) -> Result<(), EventFdError> {
        self.call = call.map(EventFd::try_from).transpose()?;
        self.tell();
        Ok(())
    }

    /// Replaces the eventfd that reports a fault of the ring.
    ///
    /// # Errors
    /// When the descriptor is no eventfd; the old one stays.
    pub fn set_error(&mut self, error: Option<OwnedFd>) -> Result<(), EventFdError> {
        self.error = error.map(EventFd::try_from).transpose()?;
        Ok(())
    }

    /// Starts the ring; a started one is scanned once more. Behind an IOMMU it may have to wait for its translation.
    ///
    /// # Errors
    /// When size, addresses or memory are missing or do not fit; the ring stays stopped.
    pub fn start(&mut self) -> Result<(), RingFault> {
        if self.running.is_none() {
            let ring = match self.open() {
                Err(fault) if self.waits_because_of(fault) => return Ok(()),
                opened => opened.inspect_err(|fault| self.faults.last_ring = Some(*fault))?,
            };
            // A base comes around again, so it does not tell for certain.
            self.recovery.untold = self.recovery.record.is_some() || ring.base() != self.first_base();
            self.running = Some(ring);
            self.promptness = Promptness::new(self.features);
            self.broken = false;
        }
        self.tell();
        self.scan();
        Ok(())
    }

    /// Stops the ring, lets the kick descriptor go, and returns where to go on. No chain is under way.
    pub fn stop(&mut self) -> VringBase {
        self.halt();
        // Only a refused descriptor can fail.
        let _ = self.kick.replace(None);
        self.base()
    }

    /// Stops the ring, which keeps its kick descriptor and its place in the driver's list.
    pub fn pause(&mut self) {
        self.halt();
    }

    /// Back to a new ring, and lets everything of a front-end go: memory, descriptors, faults.
    pub fn forget(&mut self) {
        // First, as the record is for whoever comes next.
        self.recovery = Recovery::default();
        self.reset();
        (self.call, self.error) = (None, None);
        (self.memory, self.log) = (None, None);
        self.faults = RingFaults::default();
    }

    /// Enables the ring.
    pub fn enable(&mut self) {
        self.enabled = true;
        self.scan();
    }

    /// Disables the ring: it keeps its place and is not processed.
    pub fn disable(&mut self) {
        self.enabled = false;
        self.scan_due = false;
    }

    /// Back to the state of a new ring, but for being watched, its memory, its record of faults, and the descriptors that
    /// signal: front-ends do not send those again after a reset.
    pub fn reset(&mut self) {
        self.stop();
        self.clear_record();
        self.disable();
        (self.size, self.base, self.features) = (0, None, VirtioFeatures::empty());
        self.addresses = None;
        self.leave_iommu();
    }

    /// Reports kicks of this ring, and the scans it needs, to `poller` as `token`.
    ///
    /// # Errors
    /// When the kick descriptor cannot be watched; then nobody watches the ring.
    pub fn watch(&mut self, poller: Arc<Poller>, token: Token) -> Result<(), WatchError> {
        self.kick.watch(poller, token)?;
        self.scan();
        Ok(())
    }

    /// Ends [`Vring::watch`].
    pub fn unwatch(&mut self) {
        self.kick.unwatch();
    }

    /// Index of the ring in its device.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Where to go on in the ring.
    #[must_use]
    pub fn base(&self) -> VringBase {
        self.running.as_ref().map(Ring::base).or(self.base).unwrap_or_else(|| self.first_base())
    }

    /// The form of the ring.
    #[must_use]
    pub fn layout(&self) -> RingLayout {
        RingLayout::of(self.features)
    }

    /// True from [`Vring::start`] to [`Vring::stop`] or a fault.
    #[must_use]
    pub fn is_started(&self) -> bool {
        self.running.is_some()
    }

    /// True from a fault that the driver made in the ring to [`Vring::start`], [`Vring::stop`] or [`Vring::pause`]. A ring
    /// that was stopped because its memory went away is not broken.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// True from [`Vring::enable`] to [`Vring::disable`].
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// True when [`Vring::process`] should be called although no kick came; for rings that no poller watches.
    #[must_use]
    pub fn is_scan_due(&self) -> bool {
        self.scan_due
    }

    /// What becomes readable when the ring should be processed: the descriptor that the driver kicks, or a clock.
    #[must_use]
    pub fn kick(&self) -> Option<BorrowedFd<'_>> {
        self.kick.fd()
    }

    /// What went wrong so far.
    #[must_use]
    pub fn faults(&self) -> &RingFaults {
        &self.faults
    }

    fn open(&mut self) -> Result<Ring, RingFault> {
        let mut ring = Ring::new(self.parts()?, self.size.into(), self.features, self.base())?;
        // First, as recovery may write to the ring.
        self.attach_log(&mut ring);
        self.recover(&mut ring)?;
        Ok(ring)
    }

    /// The base of an empty ring.
    fn first_base(&self) -> VringBase {
        match self.layout() {
            RingLayout::Split => VringBase::split(0),
            // Both wrap counters begin at 1 (virtio, section "Driver and Device Ring Wrap Counters").
            RingLayout::Packed => VringBase::packed(0x8000_8000),
        }
    }

    fn while_stopped(&self, change: bool) -> Result<(), RingMisuse> {
        if change && self.running.is_some() { Err(RingMisuse::Running) } else { Ok(()) }
    }

    fn scan(&mut self) {
        if self.running.is_some() && self.enabled {
            self.scan_due = true;
            self.kick.schedule();
        }
    }

    fn halt(&mut self) {
        if let Some(ring) = self.running.take() {
            self.base = Some(ring.base());
        }
        self.wait_no_longer();
        self.recovery.pending.clear();
        self.recovery.untold = false;
        self.broken = false;
        self.scan_due = false;
    }

    fn fail(&mut self, fault: RingFault) {
        self.halt();
        self.faults.last_ring = Some(fault);
        if let Some(Err(error)) = self.error.as_ref().map(EventFd::signal) {
            self.faults.last_call = Some(error);
        }
    }
}

impl fmt::Debug for Vring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vring")
            .field("index", &self.index)
            .field("size", &self.size)
            .field("addresses", &self.addresses)
            .field("base", &self.base())
            .field("started", &self.is_started())
            .field("enabled", &self.enabled)
            .field("kick", &self.kick)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}
