//! What both sides agreed on: features, rings, memory, and how far migration is.

use crate::{
    address::GuestAddress,
    dialect::Dialect,
    memory_map::{MemoryMap, RegionExtent, TableExtents},
    vring::{RingChange, Vring},
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
    /// Whether a gate is open.
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn opens(&self, gate: &Gate) -> bool {
        // Half of the requests need nothing.
        if *gate == Gate::ALWAYS {
            return true;
        }
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
    #[cfg_attr(for_size, inline(never))]
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn apply(&mut self, effect: &Effect, table: &mut TableExtents) {
        match *effect {
            // Most requests change one ring or nothing.
            Effect::None | Effect::ReadConfig(_) => {}
            Effect::Ring { index, change } => {
                if let Some(ring) = self.rings.get_mut(usize::from(index)) {
                    ring.change(change);
                }
            }
            _ => self.apply_more(effect, table),
        }
    }

    #[inline(never)]
    fn apply_more(&mut self, effect: &Effect, table: &mut TableExtents) {
        match *effect {
            Effect::ReplaceMemory => {
                self.memory.replace(table);
                table.clear();
            }
            Effect::AddRegion(ref extent) => self.memory.add(extent),
            Effect::RemoveRegion(guest_address) => self.memory.remove(guest_address),
            Effect::Log(log) => self.log = log,
            Effect::OpenBackendChannel => self.backend_channel = true,
            Effect::Reset => self.status = 0,
            Effect::Status(status) => self.status = status,
            _ => {}
        }
        self.negotiated.apply(effect);
        self.postcopy = self.postcopy.after(effect);
        if let Some(change) = effect.on_all_rings() {
            for ring in &mut self.rings {
                ring.change(change);
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
    /// The one that begins there.
    RemoveRegion(GuestAddress),
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

impl Effect {
    /// Whether the request shares memory with the back-end.
    pub(crate) fn shares_memory(&self) -> bool {
        matches!(self, Self::ReplaceMemory | Self::AddRegion(_))
    }

    /// What the request does to ring `index`, if anything.
    pub(crate) fn on_ring(&self, index: u8) -> Option<RingChange> {
        match *self {
            Self::Ring { index: changed, change } if changed == index => Some(change),
            _ => self.on_all_rings(),
        }
    }

    /// What the request does to every ring, if anything.
    fn on_all_rings(&self) -> Option<RingChange> {
        match self {
            // From here on there is nothing to enable them by.
            Self::AcknowledgeFeatures(features) if !features.contains(VirtioFeatures::PROTOCOL_FEATURES) => {
                Some(RingChange::ENABLED)
            }
            Self::DisableAll => Some(RingChange::DISABLED),
            Self::Reset | Self::Status(0) => Some(RingChange::RESET),
            _ => None,
        }
    }
}
