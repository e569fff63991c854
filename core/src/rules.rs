//! The rules of a session: which request is allowed when, and what it does.
//!
//! Both machines ask here, so that what the front-end sends is what the back-end accepts. It does
//! not know for which side it works.

use core::fmt;

use crate::{
    dialect::DialectViolation,
    gpu::GpuViolation,
    memory_map::{MemoryFault, RegionExtent, TableExtents, check_alone, check_table},
    projection::Projection,
    session::{Effect, Postcopy},
    tolerance::{BrokenDependency, Tolerance, UnofferedFeatures},
    virtqueue::RingLayout,
    vring::RingChange,
    wire::{
        backend_request::BackendRequest,
        feature::{ProtocolFeatures, VirtioFeatures},
        frontend_request::FrontendRequest,
        inflight::Inflight,
        log::LogBase,
        memory::MemoryRegion,
        migration::Transfer,
        row::Gate,
        vring::{VringAddr, VringState},
    },
};

/// A rule that a well-formed request breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// What the request needs was not negotiated.
    NotNegotiated {
        /// What it needs.
        gate: Gate,
    },
    /// Features were acknowledged that were not offered.
    FeaturesNotOffered {
        /// Those.
        excess: VirtioFeatures,
    },
    /// Features changed while a ring runs (only `LOG_ALL` may).
    FeaturesWhileRunning {
        /// What changed.
        changed: VirtioFeatures,
    },
    /// Protocol features were acknowledged that were not offered.
    ProtocolFeaturesNotOffered {
        /// Those.
        excess: ProtocolFeatures,
    },
    /// A protocol feature was acknowledged without another one that it needs.
    ProtocolFeatureNeeds {
        /// The feature.
        feature: ProtocolFeatures,
        /// What it misses.
        missing: ProtocolFeatures,
    },
    /// There is no such ring.
    RingIndex {
        /// The index that came.
        found: u64,
        /// How many rings there are.
        rings: usize,
    },
    /// A ring cannot have this size.
    RingSize {
        /// The ring.
        ring: u8,
        /// The size that came; split rings have a power of two, all rings 1 to 32768.
        found: u32,
    },
    /// A ring's part cannot lie there: misaligned, or wrapping around.
    RingAddress {
        /// The ring.
        ring: u8,
        /// Which part of it.
        part: &'static str,
        /// The address that came.
        found: u64,
        /// Its alignment in bytes.
        alignment: u64,
    },
    /// The request is not allowed while the ring runs.
    RingRunning {
        /// The ring.
        ring: u8,
    },
    /// A number that can only be 0 or 1 was something else.
    NotZeroOrOne {
        /// The ring.
        ring: u8,
        /// The number that came.
        found: u32,
    },
    /// The memory cannot be like that.
    Memory(MemoryFault),
    /// A file's extent wraps around.
    ExtentWraps {
        /// Bytes.
        size: u64,
        /// Offset in bytes.
        offset: u64,
    },
    /// The inflight record covers more rings than there are.
    InflightQueues {
        /// Rings covered.
        found: u16,
        /// How many rings there are.
        rings: usize,
    },
    /// The device status has eight bits.
    Status {
        /// The status that came.
        found: u64,
    },
    /// The device's state goes one of two ways, and only while the device is stopped.
    Transfer {
        /// The direction that came.
        direction: u32,
        /// The phase that came.
        phase: u32,
    },
    /// The back-end has no channel for requests yet.
    NoBackendChannel,
    /// Postcopy requests came out of order.
    PostcopyOrder {
        /// How far postcopy is.
        state: Postcopy,
    },
    /// A request on the GPU channel makes no sense.
    Gpu(GpuViolation),
    /// The session's dialect cannot say it.
    Dialect(DialectViolation),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNegotiated { gate } => write!(f, "it needs {gate}, which was not negotiated"),
            Self::FeaturesNotOffered { excess } => write!(f, "features {:#x} were not offered", excess.bits()),
            Self::FeaturesWhileRunning { changed } => {
                write!(f, "features {:#x} changed while a ring runs", changed.bits())
            }
            Self::ProtocolFeaturesNotOffered { excess } => write!(f, "protocol features {excess:?} were not offered"),
            Self::ProtocolFeatureNeeds { feature, missing } => {
                write!(f, "protocol feature {feature:?} needs {missing:?}")
            }
            Self::RingIndex { found, rings } => write!(f, "expected a ring below {rings}, found {found}"),
            Self::RingSize { ring, found } => {
                write!(f, "ring {ring}: expected a size of 1 to 32768, a power of two if split, found {found}")
            }
            Self::RingAddress { ring, part, found, alignment } => write!(
                f,
                "ring {ring}: expected the {part} at a multiple of {alignment} and not wrapping around, found {found:#x}"
            ),
            Self::RingRunning { ring } => write!(f, "ring {ring} runs"),
            Self::NotZeroOrOne { ring, found } => write!(f, "ring {ring}: expected 0 or 1, found {found}"),
            Self::Memory(fault) => fault.fmt(f),
            Self::ExtentWraps { size, offset } => write!(f, "{size:#x} bytes at offset {offset:#x} wrap around"),
            Self::InflightQueues { found, rings } => {
                write!(f, "expected an inflight record of at most {rings} rings, found {found}")
            }
            Self::Status { found } => write!(f, "expected a device status of eight bits, found {found:#x}"),
            Self::Transfer { direction, phase } => {
                write!(f, "expected direction 0 or 1 and phase 0, found direction {direction} and phase {phase}")
            }
            Self::NoBackendChannel => f.write_str("there is no channel for requests of the back-end yet"),
            Self::Gpu(violation) => violation.fmt(f),
            Self::Dialect(violation) => violation.fmt(f),
            Self::PostcopyOrder { state } => write!(f, "postcopy migration is at {state:?}"),
        }
    }
}

impl From<MemoryFault> for Violation {
    fn from(fault: MemoryFault) -> Self {
        Self::Memory(fault)
    }
}

impl From<GpuViolation> for Violation {
    fn from(violation: GpuViolation) -> Self {
        Self::Gpu(violation)
    }
}

/// The rules as one machine applies them.
#[derive(Debug)]
pub(crate) struct Rules<'s, const VRINGS: usize, const REGIONS: usize> {
    pub(crate) state: Projection<'s, VRINGS, REGIONS>,
    /// How many of the machine's rings the device has.
    pub(crate) rings: usize,
    /// How many memory regions may be added one by one.
    pub(crate) slots: usize,
    pub(crate) tolerance: &'s Tolerance,
}

impl<const VRINGS: usize, const REGIONS: usize> Rules<'_, VRINGS, REGIONS> {
    /// Puts what a request does into `effect`, and the regions of a table into `table`, or tells which rule it breaks.
    ///
    /// Into its place and not as a value, so that nothing is moved that is as large as the largest.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn judge<H>(
        &self,
        request: &FrontendRequest<'_, H>,
        table: &mut TableExtents,
        effect: &mut Effect,
    ) -> Result<(), Violation> {
        use FrontendRequest as Request;
        match request {
            Request::SetFeatures(features) => self.features(*features, effect),
            Request::ResetOwner => put(effect, Effect::DisableAll),
            // On the wire this is the acknowledgement of the addresses, byte for byte.
            Request::SetMemTable(regions, _) if regions.is_empty() && self.state.postcopy() == Postcopy::Answered => {
                Err(Violation::PostcopyOrder { state: Postcopy::Answered })
            }
            Request::SetMemTable(regions, _) => {
                check_table(REGIONS, regions, table)?;
                put(effect, Effect::ReplaceMemory)
            }
            Request::AddMemReg(region, _) => self.add_region(region, effect),
            Request::RemMemReg(region) => self.remove_region(region, effect),
            Request::SetLogBase(LogBase::Shared(log), _) => {
                extent(log.size(), log.offset())?;
                put(effect, Effect::Log(Some(*log)))
            }
            Request::SetLogBase(..) => put(effect, Effect::Log(None)),
            Request::SetVringNum(state) => self.ring_size(state, effect),
            Request::SetVringAddr(address) => self.ring_addresses(address, effect),
            Request::SetVringBase(state) => self.ring_base(state, effect),
            Request::GetVringBase(state) => self.ring_change(state.index().into(), RingChange::STOPPED, effect),
            Request::VringKick(state) => self.ring_change(state.index().into(), RingChange::STARTED, effect),
            Request::SetVringKick(target, _) => self.ring_change(target.index(), RingChange::STARTED, effect),
            Request::SetVringCall(target, _) | Request::SetVringErr(target, _) => match self.ring(target.index()) {
                Some(_) => put(effect, Effect::None),
                None => self.no_ring(target.index()),
            },
            Request::SetVringEnable(state) => match state.num() {
                0 => self.ring_change(state.index().into(), RingChange::DISABLED, effect),
                1 => self.ring_change(state.index().into(), RingChange::ENABLED, effect),
                _ => self.not_zero_or_one(state),
            },
            Request::SetVringEndian(state) => match self.ring(state.index().into()) {
                Some(_) if state.num() <= 1 => put(effect, Effect::None),
                _ => self.not_zero_or_one(state),
            },
            Request::GetProtocolFeatures => put(effect, Effect::OpenProtocol),
            Request::SetProtocolFeatures(features) => self.protocol_features(*features, effect),
            Request::SetBackendReqFd(_) => put(effect, Effect::OpenBackendChannel),
            Request::PostcopyAdvise => put(effect, Effect::Postcopy(Postcopy::Advised)),
            Request::PostcopyListen => match self.state.postcopy() {
                Postcopy::Advised => put(effect, Effect::Postcopy(Postcopy::Listening)),
                state => Err(Violation::PostcopyOrder { state }),
            },
            Request::PostcopyEnd => put(effect, Effect::Postcopy(Postcopy::Off)),
            Request::GetInflightFd(inflight) => self.inflight(inflight, effect),
            Request::SetInflightFd(inflight, _) => match self.state.running_ring() {
                Some(ring) => Err(Violation::RingRunning { ring }),
                None => self.inflight(inflight, effect),
            },
            Request::ResetDevice => put(effect, Effect::Reset),
            Request::SetStatus(status) => match u8::try_from(*status) {
                Ok(status) => put(effect, Effect::Status(status)),
                Err(_) => Err(Violation::Status { found: *status }),
            },
            Request::GetConfig(config) => {
                // A payload has 256 bytes of it at most.
                put(effect, Effect::ReadConfig(u16::try_from(config.data.len()).unwrap_or(u16::MAX)))
            }
            Request::SetDeviceStateFd(transfer, _) => match (transfer.direction(), transfer.phase()) {
                (Transfer::SAVE | Transfer::LOAD, Transfer::STOPPED) => put(effect, Effect::None),
                (direction, phase) => Err(Violation::Transfer { direction, phase }),
            },
            _ => put(effect, Effect::None),
        }
    }

    #[cfg_attr(not(for_size), inline(never))]
    fn features(&self, features: VirtioFeatures, effect: &mut Effect) -> Result<(), Violation> {
        let negotiated = self.state.negotiated();
        let excess = features.difference(negotiated.offered | self.tolerance.always_accepted);
        if !excess.is_empty() && self.tolerance.unoffered_features == UnofferedFeatures::Refuse {
            return Err(Violation::FeaturesNotOffered { excess });
        }
        let features = features.intersection(negotiated.offered);
        let changed = features.symmetric_difference(negotiated.acknowledged).difference(VirtioFeatures::LOG_ALL);
        if !changed.is_empty() && self.state.running_ring().is_some() {
            return Err(Violation::FeaturesWhileRunning { changed });
        }
        put(effect, Effect::AcknowledgeFeatures(features))
    }

    #[cfg_attr(not(for_size), inline(never))]
    fn protocol_features(&self, features: ProtocolFeatures, effect: &mut Effect) -> Result<(), Violation> {
        let excess = features.difference(self.state.negotiated().protocol_offered);
        if !excess.is_empty() {
            return Err(Violation::ProtocolFeaturesNotOffered { excess });
        }
        match features.broken_dependency() {
            Some((feature, missing))
                if feature == ProtocolFeatures::INBAND_NOTIFICATIONS
                    || self.tolerance.broken_dependency == BrokenDependency::Refuse =>
            {
                Err(Violation::ProtocolFeatureNeeds { feature, missing })
            }
            _ => put(effect, Effect::AcknowledgeProtocol(features)),
        }
    }

    #[inline(never)]
    fn add_region(&self, region: &MemoryRegion, effect: &mut Effect) -> Result<(), Violation> {
        let second = check_alone(region)?;
        if let Some(&first) = self.state.overlapping(&second) {
            return Err(MemoryFault::Overlap { first, second }.into());
        }
        if self.state.region_count() >= self.slots {
            return Err(MemoryFault::TooMany { slots: self.slots }.into());
        }
        put(effect, Effect::AddRegion(second))
    }

    #[cfg_attr(not(for_size), inline(never))]
    fn remove_region(&self, region: &MemoryRegion, effect: &mut Effect) -> Result<(), Violation> {
        // Guest address, size and user address are the key.
        let extent = RegionExtent::from(region);
        if self.state.has_region(&extent) {
            put(effect, Effect::RemoveRegion(extent.guest_address))
        } else {
            Err(MemoryFault::Unknown(extent).into())
        }
    }

    /// The ring of this index, if there is one.
    #[inline]
    fn ring(&self, index: u64) -> Option<u8> {
        ring_below(self.rings, index)
    }

    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn ring_change(&self, index: u64, change: RingChange, effect: &mut Effect) -> Result<(), Violation> {
        match self.ring(index) {
            Some(index) => put(effect, Effect::Ring { index, change }),
            None => self.no_ring(index),
        }
    }

    #[inline]
    fn ring_base(&self, state: &VringState, effect: &mut Effect) -> Result<(), Violation> {
        match self.ring(state.index().into()) {
            Some(ring) if !self.runs(ring) => put(effect, Effect::None),
            _ => self.no_stopped_ring(state),
        }
    }

    #[inline]
    fn ring_size(&self, state: &VringState, effect: &mut Effect) -> Result<(), Violation> {
        match (self.ring(state.index().into()), self.layout().check_size(state.num())) {
            (Some(index), Ok(size)) if !self.runs(index) => {
                put(effect, Effect::Ring { index, change: RingChange::size(size) })
            }
            _ => self.no_stopped_ring(state),
        }
    }

    /// Not merely started: libkrun sets a ring up again after disabling it.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn runs(&self, ring: u8) -> bool {
        self.state.ring(ring).is_running()
    }

    /// Checks alignment and wrapping. Whether memory is there is known only when the ring starts,
    /// because memory may come later.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    fn ring_addresses(&self, address: &VringAddr, effect: &mut Effect) -> Result<(), Violation> {
        let Some(ring) = self.ring(address.index().into()) else { return self.no_ring(address.index().into()) };
        let size = self.state.ring(ring).size().unwrap_or(1);
        let check = |part: &'static str, found: u64, alignment: u64, length| {
            let aligned = found & alignment.wrapping_sub(1) == 0;
            let fits = aligned && found.checked_add(length).is_some();
            if fits { Ok(()) } else { Err(Violation::RingAddress { ring, part, found, alignment }) }
        };
        let parts = self.layout().parts();
        let addresses = [address.descriptor(), address.available(), address.used()];
        for (part, address) in parts.iter().zip(addresses) {
            check(part.part.name(), address.0, part.alignment.into(), part.length(size).into())?;
        }
        let [.., used] = parts;
        // Without the flag the log address means nothing, and QEMU sends one all the same.
        if address.logs_used() {
            check("log of the used ring", address.log().0, 1, used.length(size).into())?;
        }
        put(effect, Effect::Ring { index: ring, change: RingChange::ADDRESSED })
    }

    #[cold]
    #[inline(never)]
    fn no_ring(&self, found: u64) -> Result<(), Violation> {
        Err(Violation::RingIndex { found, rings: self.rings })
    }

    /// Why this is nothing for a ring that must not run: there is none, it runs, or it cannot have that size.
    #[cold]
    #[inline(never)]
    fn no_stopped_ring(&self, state: &VringState) -> Result<(), Violation> {
        match self.ring(state.index().into()) {
            None => self.no_ring(state.index().into()),
            Some(ring) if self.runs(ring) => Err(Violation::RingRunning { ring }),
            Some(ring) => Err(Violation::RingSize { ring, found: state.num() }),
        }
    }

    /// Why this does not turn a ring on or off: there is none, or the number means neither.
    #[cold]
    #[inline(never)]
    fn not_zero_or_one(&self, state: &VringState) -> Result<(), Violation> {
        match self.ring(state.index().into()) {
            None => self.no_ring(state.index().into()),
            Some(ring) => Err(Violation::NotZeroOrOne { ring, found: state.num() }),
        }
    }

    fn layout(&self) -> RingLayout {
        RingLayout::of(self.state.negotiated().acknowledged)
    }

    #[inline(never)]
    fn inflight(&self, inflight: &Inflight, effect: &mut Effect) -> Result<(), Violation> {
        extent(inflight.mmap_size(), inflight.mmap_offset())?;
        if usize::from(inflight.num_queues()) > self.rings {
            return Err(Violation::InflightQueues { found: inflight.num_queues(), rings: self.rings });
        }
        put(effect, Effect::None)
    }
}

/// What a request does that breaks no rule.
#[inline]
fn put(place: &mut Effect, effect: Effect) -> Result<(), Violation> {
    *place = effect;
    Ok(())
}

pub(crate) fn extent(size: u64, offset: u64) -> Result<(), Violation> {
    match offset.checked_add(size) {
        Some(_) => Ok(()),
        None => Err(Violation::ExtentWraps { size, offset }),
    }
}

/// The ring of this index among so many, if there is one.
#[inline]
fn ring_below(rings: usize, index: u64) -> Option<u8> {
    u8::try_from(index).ok().filter(|ring| usize::from(*ring) < rings)
}

/// The violation that there is none, if there is none.
fn check_ring(index: u64, rings: usize) -> Result<(), Violation> {
    if ring_below(rings, index).is_some() { Ok(()) } else { Err(Violation::RingIndex { found: index, rings }) }
}

/// Which rule a request of the back-end breaks, if any, in a session with so many rings.
pub(crate) fn check_backend_request<H>(request: &BackendRequest<H>, rings: usize) -> Result<(), Violation> {
    match request {
        BackendRequest::VringCall(state) | BackendRequest::VringErr(state) => {
            check_ring(u64::from(state.index()), rings)
        }
        BackendRequest::VringHostNotifierMsg(area, _) => check_ring(area.target().index(), rings),
        _ => request.check_mappings(),
    }
}
