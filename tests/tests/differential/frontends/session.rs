//! One call on a new session of either front-end, with everything that it will hear said in advance.

use core::fmt::Write;
use std::net::Shutdown;

use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Error as TheirError, Frontend as TheirFrontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{Error as TheirOuterError, VhostBackend};
use vhost_core::{Channel, FrontendConfig, ProtocolFeatures, VirtioFeatures};
use vhost_std::endpoint::Endpoint;
use vhost_std::frontend::{Confirmation, Frontend, FrontendError};
use vhost_tests::dialog::{Received, Socket, borrowed, memory};
use vhost_tests::wire::{REPLY, header};

use super::before;
use super::calls::Call;
use super::replies;
use crate::conversation::hear;
use crate::recorder::{PROTOCOL, RINGS, VIRTIO};

/// How far a session is, and whether acknowledgements are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing was said.
    Fresh,
    /// Everything is agreed; no acknowledgements.
    Silent,
    /// Everything is agreed; an acknowledgement of everything.
    Flagged,
}

/// What a back-end says.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    pub(super) bytes: Vec<u8>,
    pub(super) descriptors: usize,
}

/// What went out, and what the caller was told.
pub(super) struct Held {
    pub(super) sent: String,
    pub(super) result: String,
}

/// What a call said, or how it failed.
type Outcome = Result<String, &'static str>;

/// The messages that agree on everything.
const AGREEMENT: usize = 5;

/// Both ends of a session, of which one has said everything in advance.
struct Stage {
    socket: Socket,
    /// Messages before the one that counts.
    before: usize,
}

impl Stage {
    fn new(mode: Mode, call: &Call, socket: Socket) -> Self {
        let stage = Self { socket, before: before(call).len() + if mode == Mode::Fresh { 0 } else { AGREEMENT } };
        if mode != Mode::Fresh {
            stage.say(&number(1, VIRTIO));
            stage.say(&number(15, PROTOCOL));
        }
        for call in before(call) {
            stage.say(&replies::usual(call, mode));
        }
        stage
    }

    fn say(&self, reply: &Reply) {
        let descriptors = Vec::from_iter((0..reply.descriptors).map(|_| memory(0x1000_0000)));
        if !reply.bytes.is_empty() {
            self.socket.send(&reply.bytes, &borrowed(&descriptors));
        }
    }

    /// Says the last words: the reply to the call, and to a GET_FEATURES after it.
    fn end(&self, reply: &Reply) {
        self.say(reply);
        self.say(&number(1, VIRTIO));
        self.socket.stream().shutdown(Shutdown::Write).unwrap();
    }

    /// What was sent, once the front-end is gone.
    fn held(self, outcome: Outcome) -> Held {
        let sent = hear(&self.socket).unwrap();
        let sent = sent.get(self.before).map_or_else(|| "nothing".to_owned(), words);
        Held { sent, result: outcome.unwrap_or_else(str::to_owned) }
    }
}

/// A reply of one number.
fn number(id: u32, value: u64) -> Reply {
    Reply { bytes: [&header(id, REPLY, 8)[..], &value.to_ne_bytes()].concat(), descriptors: 0 }
}

/// A message in words.
fn words(message: &Received) -> String {
    let mut text = format!("{} flags {:#x}", message.id(), message.header().flags);
    // The last four bytes of an inflight record's description are padding, in which rust-vmm sends what was in its memory.
    let meant = if matches!(message.id(), 31 | 32) { &message.payload()[..20] } else { message.payload() };
    for (at, byte) in meant.iter().enumerate() {
        let _ = write!(text, "{}{byte:02x}", if at == 0 { ", " } else { "" });
    }
    if !message.descriptors.is_empty() {
        let _ = write!(text, " + {} fd", message.descriptors.len());
    }
    text
}

/// Whether the session is in step after the call.
fn followed(outcome: Outcome, follow: impl FnOnce() -> bool) -> Outcome {
    let goes_on = matches!(outcome, Ok(_) | Err("refused"));
    if goes_on && !follow() { Err("out of step") } else { outcome }
}

/// Makes the call on our front-end.
pub(super) fn ours(mode: Mode, call: &Call, reply: &Reply) -> Held {
    let (socket, end) = Socket::pair();
    let stage = Stage::new(mode, call, socket);
    // The answers are there before the questions: reading ahead would take those that are not asked for yet.
    let endpoint = Endpoint::exact(end.into(), Channel::Frontend);
    let mut frontend = Frontend::over(endpoint, FrontendConfig::new(RINGS as u16));
    frontend.set_confirmation(Confirmation::None);
    if mode != Mode::Fresh {
        frontend.get_features().unwrap();
        frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(ProtocolFeatures::from_bits_retain(PROTOCOL)).unwrap();
        frontend.set_owner().unwrap();
        frontend.set_features(VirtioFeatures::from_bits_retain(VIRTIO)).unwrap();
    }
    if mode == Mode::Flagged {
        frontend.set_confirmation(Confirmation::Acknowledgement);
    }
    for call in before(call) {
        let done = (call.ours)(&mut frontend);
        assert!(done.is_ok() || mode == Mode::Fresh, "{}: {done:?}", call.name);
    }
    stage.end(reply);
    let outcome = (call.ours)(&mut frontend).map_err(|error| match error {
        FrontendError::Refused { .. } => "refused",
        FrontendError::Misuse(_) | FrontendError::TooManyRegions { .. } => "not sent",
        _ => "fails",
    });
    let outcome = followed(outcome, || frontend.get_features().is_ok());
    drop(frontend);
    stage.held(outcome)
}

/// Makes the call on theirs.
pub(super) fn theirs(mode: Mode, call: &Call, reply: &Reply) -> Held {
    let (socket, end) = Socket::pair();
    let stage = Stage::new(mode, call, socket);
    let mut frontend = TheirFrontend::from_stream(end, RINGS);
    if mode != Mode::Fresh {
        frontend.get_features().unwrap();
        frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(VhostUserProtocolFeatures::from_bits_retain(PROTOCOL)).unwrap();
        frontend.set_owner().unwrap();
        frontend.set_features(VIRTIO).unwrap();
    }
    if mode == Mode::Flagged {
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
    }
    for call in before(call) {
        let done = (call.theirs)(&mut frontend);
        assert!(done.is_ok() || mode == Mode::Fresh, "{}: {done:?}", call.name);
    }
    stage.end(reply);
    let outcome = (call.theirs)(&mut frontend).map_err(|error| match error {
        TheirOuterError::VhostUserProtocol(TheirError::BackendInternalError) => "refused",
        TheirOuterError::VhostUserProtocol(
            TheirError::InvalidParam | TheirError::InactiveFeature(_) | TheirError::InactiveOperation(_),
        ) => "not sent",
        _ => "fails",
    });
    let outcome = followed(outcome, || frontend.get_features().is_ok());
    drop(frontend);
    stage.held(outcome)
}
