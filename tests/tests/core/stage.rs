//! How far a session is when a test begins, reached by messages written by hand.

use crate::machines::{Back, Front, RINGS, Reaction, back, buffer, frame, front, protocol_features, virtio_features};
use vhost_core::{Delivery, FrontendReply, FrontendRequest, Incoming};
use vhost_tests::tracked::Token;
use vhost_tests::wire::feature::{self, with_dependencies};
use vhost_tests::wire::{Bytes, Fixture, header};

/// The state of every ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rings {
    pub(crate) started: bool,
    pub(crate) enabled: bool,
}

impl Rings {
    /// As they are when nothing was said about them.
    pub(crate) const NEW: Self = Self { started: false, enabled: false };
    /// Started and enabled.
    pub(crate) const RUNNING: Self = Self { started: true, enabled: true };
    /// Stopped or started, disabled or enabled.
    pub(crate) const ALL: [Self; 4] =
        [Self::NEW, Self { started: false, enabled: true }, Self { started: true, enabled: false }, Self::RUNNING];
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    /// Virtio features that the back-end offers.
    pub(crate) offered: u64,
    /// Virtio features that the front-end took.
    pub(crate) features: u64,
    /// Protocol features that the front-end took.
    pub(crate) protocol: u64,
    pub(crate) rings: Rings,
}

/// Protocol features that the back-end under test offers, if any: all that are known.
pub(crate) const PROTOCOL_OFFERED: u64 = (1 << 23) - 1;

impl Stage {
    /// Virtio and protocol features of the fixtures' front-end, rings as they begin.
    pub(crate) fn usual() -> Self {
        Self::with(feature::PROTOCOL_ACKNOWLEDGED)
    }

    /// These protocol features with what they need.
    pub(crate) fn with(protocol: u64) -> Self {
        Self {
            offered: feature::OFFERED,
            features: feature::ACKNOWLEDGED,
            protocol: with_dependencies(protocol),
            rings: Rings::NEW,
        }
    }

    /// Where this request may be sent.
    pub(crate) fn of(fixture: &Fixture) -> Self {
        let stage = Self::with(fixture.gate.protocol);
        assert_eq!(stage.protocol & fixture.gate.without, 0, "{} ({})", fixture.name, fixture.form);
        Self { features: stage.features | fixture.gate.virtio, ..stage }
    }

    /// The same with acknowledgements, if they can be negotiated.
    pub(crate) fn acknowledging(self) -> Self {
        let acknowledgements = if self.has_protocol() { feature::REPLY_ACK } else { 0 };
        Self { protocol: self.protocol | acknowledgements, ..self }
    }

    /// The same with all rings like that.
    pub(crate) fn rings(self, rings: Rings) -> Self {
        Self { rings, ..self }
    }

    fn has_protocol(&self) -> bool {
        self.offered & feature::PROTOCOL_FEATURES != 0
    }

    /// Whether SET_FEATURES enables all rings.
    fn enables_all(&self) -> bool {
        self.features & feature::PROTOCOL_FEATURES == 0
    }

    /// The messages that lead here from the beginning of a connection.
    fn messages(&self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        if self.has_protocol() {
            messages.push(message(16, &self.protocol.to_ne_bytes()));
        }
        messages.push(message(2, &self.features.to_ne_bytes()));
        if !self.rings.enabled && self.enables_all() {
            messages.push(message(4, &[]));
        }
        for ring in 0..RINGS as u32 {
            if self.rings.started {
                messages.push(message(12, &u64::from(ring | 0x100).to_ne_bytes()));
            }
            if self.rings.enabled && !self.enables_all() {
                messages.push(message(18, &state(ring, 1)));
            }
        }
        messages
    }

    /// A back-end that is so far.
    #[track_caller]
    pub(crate) fn back(&self) -> Back {
        let protocol = if self.has_protocol() { PROTOCOL_OFFERED } else { 0 };
        let mut machine = back(self.offered, protocol);
        for message in self.messages() {
            assert_eq!(say(&mut machine, &message, Vec::new()), Reaction::Silent);
        }
        for ring in machine.session().rings() {
            assert_eq!((ring.is_started(), ring.is_enabled()), (self.rings.started, self.rings.enabled), "{self:?}");
        }
        machine
    }

    /// A front-end that is so far.
    #[track_caller]
    pub(crate) fn front(&self) -> Front {
        let mut machine = front();
        let protocol = if self.has_protocol() { PROTOCOL_OFFERED } else { 0 };
        machine.assume_offer(virtio_features(self.offered), protocol_features(protocol));
        for message in self.messages() {
            repeat(&mut machine, &message);
        }
        machine
    }
}

/// A request without flags.
pub(crate) fn message(id: u32, payload: &[u8]) -> Vec<u8> {
    flagged(id, 1, payload)
}

/// A message with any flags.
pub(crate) fn flagged(id: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    Bytes::new().raw(&header(id, flags, payload.len() as u32)).raw(payload).done()
}

/// The payload that has a ring and a number.
pub(crate) fn state(index: u32, number: u32) -> Vec<u8> {
    Bytes::new().u32(index).u32(number).done()
}

/// The back-end takes a request and its device does it; a reply of its own is not due.
#[track_caller]
pub(crate) fn say(back: &mut Back, bytes: &[u8], tokens: Vec<Token>) -> Reaction {
    match back.handle_request(frame(bytes, tokens)) {
        Ok(Incoming::Request(_)) => back.answer(FrontendReply::Done, &mut buffer()).unwrap().into(),
        Ok(Incoming::PostcopyMemoryMapped) => Reaction::Silent,
        Err(rejection) => panic!("{rejection}"),
    }
}

/// The front-end makes this request and waits for nothing.
#[track_caller]
fn repeat(front: &mut Front, bytes: &[u8]) {
    let form = vhost_core::Form::request(front.session().negotiated().protocol);
    let request = FrontendRequest::decode(frame(bytes, Vec::new()), form).unwrap();
    let mut out = buffer();
    let transmit = front.request(request, Delivery::Unacknowledged, &mut out).unwrap();
    assert_eq!(transmit.bytes, bytes);
}
