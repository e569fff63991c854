//! Every recorded message becomes a typed message, and that becomes the same bytes.

use super::difference::{Difference, Differences, FLAGS};
use crate::machines::{buffer, frame, protocol_features};
use core::num::NonZeroU64;
use vhost_core::wire::row::{ReplyRule, Row};
use vhost_core::{
    BackendCode, BackendReply, BackendRequest, Form, FrontendCode, FrontendReply, FrontendRequest, ProtocolFeatures,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::vectors::{self, Channel, Direction, Message};

const SET_PROTOCOL_FEATURES: u32 = 16;
const GET_CONFIG: u32 = 24;
const REM_MEM_REG: u32 = 38;

/// A message with the channel and the protocol features of its time.
struct Seen<'m> {
    channel: Channel,
    message: &'m Message,
    protocol: ProtocolFeatures,
}

fn differences() -> Differences {
    let repeated = |sessions| Difference {
        sessions,
        direction: Direction::BackendToFrontend,
        ids: &[GET_CONFIG],
        bytes: FLAGS,
        reason: "libvhost-user repeats need_reply in replies; QEMU refuses that, so we do not",
    };
    Differences::new([repeated("blkio-qsd"), repeated("qemutools-qsd")])
}

#[test]
fn every_recorded_message_becomes_typed_and_the_same_bytes_again() {
    let (ledger, differences) = (Ledger::new(), differences());
    let mut count = 0;
    for session in vectors::sessions() {
        // Of each connection, as its front-end acknowledged them.
        let mut protocol = std::collections::BTreeMap::new();
        for event in &session.events {
            let vectors::What::Message(message) = &event.what else { continue };
            if event.channel == Channel::Gpu {
                continue;
            }
            let acknowledged = protocol.entry(event.connection).or_insert(ProtocolFeatures::empty());
            let seen = Seen { channel: event.channel, message, protocol: *acknowledged };
            differences.compare(&session.name, message, &seen.through_types(&ledger));
            if event.channel == Channel::Main && message.header.request == SET_PROTOCOL_FEATURES && seen.is_request() {
                *acknowledged = protocol_features(u64::from_ne_bytes(message.payload[..].try_into().unwrap()));
            }
            count += 1;
        }
    }
    assert_eq!(count, 1811, "messages of both channels in all sessions");
    differences.assert_all_seen();
    assert!(ledger.made() > 100, "{ledger:?}");
    ledger.assert_settled();
}

impl Seen<'_> {
    fn is_request(&self) -> bool {
        let asks = match self.channel {
            Channel::Main => Direction::FrontendToBackend,
            Channel::Backend => Direction::BackendToFrontend,
            Channel::Gpu => panic!("another protocol"),
        };
        self.message.direction == asks
    }

    /// The message again after it was typed.
    fn through_types(&self, ledger: &Ledger) -> Vec<u8> {
        let bytes = self.message.bytes();
        let tokens = ledger.tokens(self.message.descriptors.len());
        let id = self.message.header.request;
        match (self.channel, self.is_request()) {
            (Channel::Main, true) => self.frontend_request(&bytes, tokens),
            (Channel::Main, false) => self.frontend_reply(FrontendCode(id), &bytes, tokens),
            (_, true) => self.backend_request(&bytes, tokens),
            (_, false) => self.backend_reply(BackendCode(id), &bytes, tokens),
        }
    }

    fn frontend_request(&self, bytes: &[u8], tokens: Vec<Token>) -> Vec<u8> {
        let form = Form::request(self.protocol);
        let request = FrontendRequest::decode(frame(bytes, tokens), form).unwrap();
        let mut out = buffer();
        let transmit = request.encode(self.message.header.needs_reply(), form, &mut out).unwrap();
        assert_eq!(transmit.handles.len(), self.kept_descriptors(), "{}", self.message.name);
        transmit.bytes.to_vec()
    }

    fn backend_request(&self, bytes: &[u8], tokens: Vec<Token>) -> Vec<u8> {
        let form = Form::request(self.protocol);
        let request = BackendRequest::decode(frame(bytes, tokens), form).unwrap();
        let mut out = buffer();
        let transmit = request.encode(self.message.header.needs_reply(), form, &mut out).unwrap();
        assert_eq!(transmit.handles.len(), self.kept_descriptors(), "{}", self.message.name);
        transmit.bytes.to_vec()
    }

    fn frontend_reply(&self, code: FrontendCode, bytes: &[u8], tokens: Vec<Token>) -> Vec<u8> {
        let form = Form::reply(self.protocol);
        let reply = if self.is_own(code.row().unwrap()) {
            FrontendReply::decode(frame(bytes, tokens), form).unwrap()
        } else {
            NonZeroU64::new(self.number()).map_or(FrontendReply::Done, FrontendReply::Refused)
        };
        let mut out = buffer();
        let transmit = reply.encode(code, form, &mut out).unwrap();
        assert_eq!(transmit.handles.len(), self.kept_descriptors(), "{}", self.message.name);
        transmit.bytes.to_vec()
    }

    fn backend_reply(&self, code: BackendCode, bytes: &[u8], tokens: Vec<Token>) -> Vec<u8> {
        let form = Form::reply(self.protocol);
        let reply = if self.is_own(code.row().unwrap()) {
            BackendReply::decode(frame(bytes, tokens), form).unwrap()
        } else {
            NonZeroU64::new(self.number()).map_or(BackendReply::Done, BackendReply::Refused)
        };
        let mut out = buffer();
        reply.encode(code, form, &mut out).unwrap().bytes.to_vec()
    }

    fn is_own(&self, row: &Row) -> bool {
        match row.reply {
            ReplyRule::Own(_) => true,
            ReplyRule::LogFile => self.protocol.contains(ProtocolFeatures::LOG_SHMFD),
            // No recording has a postcopy migration.
            _ => false,
        }
    }

    /// How many descriptors the typed message has.
    fn kept_descriptors(&self) -> usize {
        match self.message.descriptors.len() {
            // libblkio sends one with it, which is closed unused.
            1 if self.channel == Channel::Main && self.message.header.request == REM_MEM_REG => 0,
            count => count,
        }
    }

    fn number(&self) -> u64 {
        u64::from_ne_bytes(self.message.payload[..].try_into().unwrap())
    }
}
