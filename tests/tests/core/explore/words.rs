//! The messages that an exploration says, by hand, and what the protocol says about each.

use crate::stage::state;
use vhost_core::{Postcopy, ProtocolFeatures, Session};
use vhost_tests::wire::{self, Bytes, Fixture, Layout, REPLY, REQUEST, REQUEST_NEEDING_REPLY, Reply, feature};

/// A request with its flags.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) fixture: Fixture,
    pub(crate) flagged: bool,
}

/// What answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// A number, zero for success.
    Number,
    /// A reply of its own.
    Own,
}

/// What a machine made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Understood,
    Rejected,
}

impl Word {
    pub(crate) fn name(&self) -> String {
        let flag = if self.flagged { ", flagged" } else { "" };
        format!("{} ({}{flag})", self.fixture.name, self.fixture.form)
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.fixture.message(if self.flagged { REQUEST_NEEDING_REPLY } else { REQUEST })
    }

    /// Whether a request may be sent now, as the protocol's tables have it.
    pub(crate) fn is_allowed<const V: usize, const R: usize>(&self, session: &Session<V, R>) -> bool {
        let negotiated = session.negotiated();
        let mut gate = self.fixture.gate;
        match self.fixture.name {
            // QEMU sends these two before it acknowledges features.
            "SET_VRING_ENABLE" if negotiated.protocol_opened => gate.virtio = 0,
            "NET_SET_MTU" => gate.virtio = 0,
            // Front-ends ask early.
            "GET_QUEUE_NUM" => gate.protocol = 0,
            // The feature decides about the form, a shared file or an address.
            "SET_LOG_BASE" => gate.protocol = 0,
            _ => {}
        }
        negotiated.protocol.bits() & gate.protocol == gate.protocol
            && negotiated.acknowledged.bits() & gate.virtio == gate.virtio
            && negotiated.offered.bits() & gate.offered == gate.offered
    }

    /// What answers the request now, written down once more from the specification.
    pub(crate) fn due<const V: usize, const R: usize>(&self, session: &Session<V, R>, heard: Heard) -> Due {
        let mut protocol = session.negotiated().protocol;
        if self.fixture.name == "SET_PROTOCOL_FEATURES" && heard == Heard::Understood {
            // The flag counts if this very message negotiates acknowledgements.
            protocol = ProtocolFeatures::from_bits_retain(wire_number(&self.fixture.payload));
        }
        let acknowledged = match self.flagged && protocol.contains(ProtocolFeatures::REPLY_ACK) {
            true => Due::Number,
            false => Due::Nothing,
        };
        let listening = matches!(session.postcopy(), Postcopy::Listening | Postcopy::Answered);
        match (self.fixture.name, &self.fixture.reply) {
            ("SET_MEM_TABLE" | "ADD_MEM_REG", _) if listening => Due::Own,
            ("SET_MEM_TABLE" | "ADD_MEM_REG", _) => acknowledged,
            ("SET_LOG_BASE", _) if protocol.contains(ProtocolFeatures::LOG_SHMFD) => Due::Own,
            ("SET_LOG_BASE", _) => acknowledged,
            ("IOTLB_MSG" | "POSTCOPY_END" | "CHECK_DEVICE_STATE", Reply::Own(_)) => Due::Number,
            // QEMU flags it without having negotiated acknowledgements, and waits.
            ("POSTCOPY_LISTEN", _) if self.flagged => Due::Number,
            (_, Reply::Own(_)) => Due::Own,
            (_, Reply::Acknowledgement) => acknowledged,
            (_, Reply::Never) => Due::Nothing,
        }
    }

    /// Every answer that may come: bytes, and how many descriptors come along.
    pub(crate) fn answers(&self, due: Due) -> Vec<(Vec<u8>, usize)> {
        let id = self.fixture.id;
        match (due, self.fixture.answers()) {
            (Due::Nothing, _) => Vec::new(),
            (Due::Number, _) => [0, 1].map(|number| (self.fixture.acknowledgement(number), 0)).to_vec(),
            // Memory that is shared while postcopy listens is answered with what it is; here at the same addresses.
            (Due::Own, []) => vec![(crate::stage::flagged(id, REPLY, &self.fixture.payload), 0)],
            (Due::Own, answers) => answers.iter().map(|answer| (answer.message(id), answer.descriptors)).collect(),
        }
    }
}

fn wire_number(payload: &[u8]) -> u64 {
    u64::from_ne_bytes(payload.try_into().unwrap())
}

/// All requests of a front-end that are not for Xen (those of postcopy have the same bytes), flagged and not, with more forms of those that change much.
pub(crate) fn frontend_words() -> Vec<Word> {
    let all = [wire::all_frontend_forms(), more()].concat().into_iter();
    let plain =
        all.filter(|fixture| fixture.gate.protocol & feature::XEN_MMAP == 0 && !fixture.form.starts_with("postcopy"));
    both(plain)
}

/// Those of them with these names.
pub(crate) fn frontend_words_of(names: &[&str]) -> Vec<Word> {
    let words = frontend_words();
    for name in names {
        assert!(words.iter().any(|word| word.fixture.name == *name), "{name}");
    }
    words.into_iter().filter(|word| names.contains(&word.fixture.name)).collect()
}

/// All requests of a back-end, flagged and not.
pub(crate) fn backend_words() -> Vec<Word> {
    both(wire::all_backend_forms().into_iter())
}

fn both(fixtures: impl Iterator<Item = Fixture>) -> Vec<Word> {
    fixtures.flat_map(|fixture| [false, true].map(|flagged| Word { fixture: fixture.clone(), flagged })).collect()
}

/// What the fixtures do not have: other features, the other ring, and requests that make no sense.
fn more() -> Vec<Fixture> {
    let number = |id, name, form, value| Fixture::new(id, name, Layout::U64, Bytes::new().u64(value)).form(form);
    let ring = |id, name, form, index, value| {
        Fixture::new(id, name, Layout::VringState, Bytes::new().raw(&state(index, value))).form(form)
    };
    let without = feature::ACKNOWLEDGED & !feature::PROTOCOL_FEATURES;
    let protocol = |form, value| number(16, "SET_PROTOCOL_FEATURES", form, value).offered(feature::PROTOCOL_FEATURES);
    vec![
        number(2, "SET_FEATURES", "none", 0),
        number(2, "SET_FEATURES", "no protocol features", without),
        number(2, "SET_FEATURES", "iommu", feature::ACKNOWLEDGED | feature::IOMMU_PLATFORM),
        number(2, "SET_FEATURES", "not offered", feature::ACKNOWLEDGED | 1 << 60),
        protocol("none", 0),
        protocol("acknowledgements only", feature::REPLY_ACK),
        protocol("not offered", 1 << 40),
        number(39, "SET_STATUS", "reset", 0).gate(feature::STATUS),
        number(39, "SET_STATUS", "too large", 0x100).gate(feature::STATUS),
        ring(8, "SET_VRING_NUM", "not a power of two", 1, 255),
        ring(8, "SET_VRING_NUM", "no such ring", 99, 256),
        ring(18, "SET_VRING_ENABLE", "the same ring", 1, 1).virtio(feature::PROTOCOL_FEATURES),
        ring(18, "SET_VRING_ENABLE", "neither", 1, 2).virtio(feature::PROTOCOL_FEATURES),
        number(99, "UNKNOWN", "unknown", 5),
    ]
}

/// The acknowledgement of the addresses that postcopy has answered.
pub(crate) fn addresses_taken(id: u32) -> Vec<u8> {
    crate::stage::message(id, &[0; 8])
}

/// Whether these bytes answer that request: its id, the flags of a reply.
pub(crate) fn is_reply_to(bytes: &[u8], id: u32) -> bool {
    let header = wire::Header::read(*bytes.first_chunk().unwrap());
    (header.request, header.flags) == (id, REPLY)
}
