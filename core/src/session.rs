//! What both sides agreed on: features, rings, memory, and how far migration is.

use crate::{
    dialect::Dialect,
    memory_map::{MemoryMap, RegionExtent, TableExtents},
    rules::Violation,
    vring::{Power, Vring},
    wire::{
        feature::{ProtocolFeatures, VirtioFeatures},
        log::Log,
        row::{Gate, Negotiation},
    },
};

/// The features that were offered and acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Negotiated {
    /// What the back-end offers; empty until the front-end asked.
    pub offered: VirtioFeatures,
    /// What the front-end acknowledged last.
    pub acknowledged: VirtioFeatures,
    /// What the back-end offers; empty until the front-end asked.
    pub protocol_offered: ProtocolFeatures,
    /// What the front-end acknowledged last.
    pub protocol: ProtocolFeatures,
    /// Whether protocol features were asked for or acknowledged.
    pub protocol_opened: bool,
}

impl Negotiated {
    /// Refuses a request whose gate is closed.
    pub(crate) fn check(&self, gate: &Gate) -> Result<(), Violation> {
        if self.opens(gate) { Ok(()) } else { Err(Violation::NotNegotiated { gate: *gate }) }
    }

    /// Whether a gate is open.
    #[inline]
    pub(crate) fn opens(&self, gate: &Gate) -> bool {
        let bit = VirtioFeatures::PROTOCOL_FEATURES;
        let opened = match gate.negotiation() {
            Negotiation::Any => true,
            Negotiation::Offered => self.offered.contains(bit),
            Negotiation::Opened => {
                self.offered.contains(bit) && (self.protocol_opened || self.acknowledged.contains(bit))
            }
        };
        opened && self.protocol.contains(gate.protocol()) && self.acknowledged.contains(gate.virtio())
    }

    /// Carries out what a granted request does to them.
    pub(crate) fn apply(&mut self, effect: &Effect) {
        match *effect {
            Effect::AcknowledgeFeatures(features) => self.acknowledged = features,
            Effect::OpenProtocol => self.protocol_opened = true,
            Effect::AcknowledgeProtocol(features) => {
                self.protocol = features;
                self.protocol_opened = true;
            }
            Effect::Reset | Effect::Status(0) => self.acknowledged = VirtioFeatures::empty(),
            _ => {}
        }
    }

    /// Whether acknowledgements may be asked for.
    #[must_use]
    pub fn has_acknowledgements(&self) -> bool {
        self.protocol.contains(ProtocolFeatures::REPLY_ACK)
    }

    /// Whether the dirty log is a shared file.
    #[must_use]
    pub fn has_log_file(&self) -> bool {
        self.protocol.contains(ProtocolFeatures::LOG_SHMFD)
    }
}

/// How far postcopy migration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Postcopy {
    /// Not begun, or over.
    #[default]
    Off,
    /// Announced: the front-end has the userfault descriptor.
    Advised,
    /// Memory that is shared from here on is answered with its addresses.
    Listening,
    /// Such an answer was sent and is not acknowledged yet.
    Answered,
}

impl Postcopy {
    /// The same after a request was granted. While postcopy listens, memory is answered and the
    /// answer acknowledged.
    pub(crate) fn after(self, effect: &Effect) -> Self {
        match effect {
            Effect::Postcopy(postcopy) => *postcopy,
            effect if effect.shares_memory() && self == Self::Listening => Self::Answered,
            _ => self,
        }
    }
}

/// What both sides agreed on. Each machine holds one; when no message is under way they are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session<const VRINGS: usize, const REGIONS: usize> {
    pub(crate) negotiated: Negotiated,
    pub(crate) rings: [Vring; VRINGS],
    pub(crate) memory: MemoryMap<REGIONS>,
    pub(crate) postcopy: Postcopy,
    pub(crate) backend_channel: bool,
    pub(crate) log: Option<Log>,
    pub(crate) status: u8,
    pub(crate) dialect: Dialect,
}

impl<const VRINGS: usize, const REGIONS: usize> Session<VRINGS, REGIONS> {
    pub(crate) const fn new(negotiated: Negotiated, dialect: Dialect) -> Self {
        Self {
            negotiated,
            rings: [Vring::NEW; VRINGS],
            memory: MemoryMap::new(),
            postcopy: Postcopy::Off,
            backend_channel: false,
            log: None,
            status: 0,
            dialect,
        }
    }

    /// The features.
    #[must_use]
    pub fn negotiated(&self) -> &Negotiated {
        &self.negotiated
    }

    /// Ring `index`; `None` beyond the rings of the machine.
    #[must_use]
    pub fn ring(&self, index: usize) -> Option<&Vring> {
        self.rings.get(index)
    }

    /// All rings of the machine.
    #[must_use]
    pub fn rings(&self) -> &[Vring] {
        &self.rings
    }

    /// The shared memory regions.
    #[must_use]
    pub fn memory(&self) -> &MemoryMap<REGIONS> {
        &self.memory
    }

    /// How far postcopy migration is.
    #[must_use]
    pub fn postcopy(&self) -> Postcopy {
        self.postcopy
    }

    /// Whether the back-end was given its channel.
    #[must_use]
    pub fn has_backend_channel(&self) -> bool {
        self.backend_channel
    }

    /// The extent of the dirty log's file, if it is one.
    #[must_use]
    pub fn log(&self) -> Option<Log> {
        self.log
    }

    /// The device status that was set last.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.status
    }

    /// What the back-end's channel speaks; [`Dialect::Auto`] until it is known.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether all rings are stopped: the device is suspended and must not touch guest memory.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.rings.iter().all(|ring| !ring.is_started())
    }

    /// Whether a ring runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.rings.iter().any(Vring::is_running)
    }

    /// Carries out what a request does to the session.
    ///
    /// A reset leaves the connection, the protocol features, memory and log, because QEMU does not
    /// send them again.
    pub(crate) fn apply(&mut self, effect: &Effect, table: &mut TableExtents) {
        match *effect {
            // Most requests change one ring or nothing.
            Effect::None | Effect::ReadConfig(_) => return,
            Effect::Ring { index, change } => {
                if let Some(ring) = self.rings.get_mut(usize::from(index)) {
                    change.apply(ring);
                }
                return;
            }
            Effect::ReplaceMemory => {
                self.memory.replace(table);
                table.clear();
            }
            Effect::AddRegion(extent) => self.memory.add(extent),
            Effect::RemoveRegion(extent) => self.memory.remove(extent.guest_address),
            Effect::Log(log) => self.log = log,
            Effect::OpenBackendChannel => self.backend_channel = true,
            Effect::Reset => self.status = 0,
            Effect::Status(status) => self.status = status,
            _ => {}
        }
        self.negotiated.apply(effect);
        self.postcopy = self.postcopy.after(effect);
        if effect.concerns_all_rings() {
            for ring in &mut self.rings {
                effect.apply_to(ring);
            }
        }
    }
}

/// What a request does to the session once it is granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    #[default]
    None,
    AcknowledgeFeatures(VirtioFeatures),
    OpenProtocol,
    AcknowledgeProtocol(ProtocolFeatures),
    DisableAll,
    Reset,
    Status(u8),
    /// The regions wait beside the effect, because there can be eight of them.
    ReplaceMemory,
    AddRegion(RegionExtent),
    RemoveRegion(RegionExtent),
    Log(Option<Log>),
    /// Nothing, but the answer has as many bytes as the request.
    ReadConfig(u16),
    OpenBackendChannel,
    Postcopy(Postcopy),
    Ring {
        index: u8,
        change: RingChange,
    },
}

/// What a request does to one ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RingChange {
    Size(u16),
    Addresses,
    Started(Power),
    Enabled(Power),
}

impl Effect {
    /// Whether the request shares memory with the back-end.
    pub(crate) fn shares_memory(&self) -> bool {
        matches!(self, Self::ReplaceMemory | Self::AddRegion(_))
    }

    /// Whether the request may change ring `index`.
    pub(crate) fn concerns_ring(&self, index: u8) -> bool {
        match self {
            Self::Ring { index: changed, .. } => *changed == index,
            effect => effect.concerns_all_rings(),
        }
    }

    #[inline]
    fn concerns_all_rings(&self) -> bool {
        match self {
            // From here on there is nothing to enable them by.
            Self::AcknowledgeFeatures(features) => !features.contains(VirtioFeatures::PROTOCOL_FEATURES),
            Self::DisableAll | Self::Reset | Self::Status(0) => true,
            _ => false,
        }
    }

    /// Carries out on a ring that the request concerns what it does to it.
    #[inline]
    pub(crate) fn apply_to(&self, ring: &mut Vring) {
        match self {
            Self::Ring { change, .. } => change.apply(ring),
            Self::AcknowledgeFeatures(_) => ring.set_enabled(Power::On),
            Self::DisableAll => ring.set_enabled(Power::Off),
            Self::Reset | Self::Status(0) => *ring = Vring::NEW,
            _ => {}
        }
    }
}

impl RingChange {
    fn apply(self, ring: &mut Vring) {
        match self {
            Self::Size(size) => ring.set_size(size),
            Self::Addresses => ring.set_addressed(),
            Self::Started(power) => ring.set_started(power),
            Self::Enabled(power) => ring.set_enabled(power),
        }
    }
}
