//! What both sides agreed on: features, rings, memory, and how far migration is.

use crate::{
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
    pub(crate) fn check(&self, gate: Gate) -> Result<(), Violation> {
        let bit = VirtioFeatures::PROTOCOL_FEATURES;
        let opened = match gate.negotiation {
            Negotiation::Any => true,
            Negotiation::Offered => self.offered.contains(bit),
            Negotiation::Opened => {
                self.offered.contains(bit) && (self.protocol_opened || self.acknowledged.contains(bit))
            }
        };
        if opened && self.protocol.contains(gate.protocol) && self.acknowledged.contains(gate.virtio) {
            Ok(())
        } else {
            Err(Violation::NotNegotiated { gate })
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
}

impl<const VRINGS: usize, const REGIONS: usize> Session<VRINGS, REGIONS> {
    pub(crate) const fn new(negotiated: Negotiated) -> Self {
        Self {
            negotiated,
            rings: [Vring::NEW; VRINGS],
            memory: MemoryMap::new(),
            postcopy: Postcopy::Off,
            backend_channel: false,
            log: None,
            status: 0,
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
    pub(crate) fn apply(&mut self, effect: Effect, table: &mut TableExtents) {
        match effect {
            Effect::None => {}
            Effect::AcknowledgeFeatures(features) => {
                self.negotiated.acknowledged = features;
                if !features.contains(VirtioFeatures::PROTOCOL_FEATURES) {
                    self.rings.iter_mut().for_each(|ring| ring.set_enabled(Power::On));
                }
            }
            Effect::OpenProtocol => self.negotiated.protocol_opened = true,
            Effect::AcknowledgeProtocol(features) => {
                self.negotiated.protocol = features;
                self.negotiated.protocol_opened = true;
            }
            Effect::DisableAll => self.rings.iter_mut().for_each(|ring| ring.set_enabled(Power::Off)),
            Effect::Reset => self.reset(),
            Effect::Status(status) => {
                self.status = status;
                if status == 0 {
                    self.reset();
                }
            }
            Effect::ReplaceMemory => {
                self.memory.replace(table);
                table.clear();
                self.memory_answered();
            }
            Effect::AddRegion(extent) => {
                self.memory.add(extent);
                self.memory_answered();
            }
            Effect::RemoveRegion(extent) => self.memory.remove(extent.guest_address),
            Effect::Log(log) => self.log = log,
            Effect::OpenBackendChannel => self.backend_channel = true,
            Effect::Postcopy(postcopy) => self.postcopy = postcopy,
            Effect::Ring { index, change } => {
                if let Some(ring) = self.rings.get_mut(usize::from(index)) {
                    change.apply(ring);
                }
            }
        }
    }

    /// While postcopy listens, memory is answered and the answer acknowledged.
    fn memory_answered(&mut self) {
        if self.postcopy == Postcopy::Listening {
            self.postcopy = Postcopy::Answered;
        }
    }

    /// Rings and features go back to the beginning; connection, protocol features, memory and log
    /// stay, because QEMU does not send them again.
    fn reset(&mut self) {
        self.rings = [Vring::NEW; VRINGS];
        self.negotiated.acknowledged = VirtioFeatures::empty();
        self.status = 0;
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
