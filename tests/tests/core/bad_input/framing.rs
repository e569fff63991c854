//! Headers, sizes and descriptors that make no message.

use super::{assert_failed, bytes, closes, refused, refused_by_front};
use crate::machines::{frame, pour};
use crate::stage::{Stage, flagged, message};
use vhost_core::wire::row::{HandleCount, MessageName};
use vhost_core::{
    ApiMisuse, Assembler, BackendCode, Channel, DecodeError, Delivery, Fault, FrontendCode, FrontendReply,
    FrontendRequest, MAX_HANDLES, MAX_PAYLOAD, PeerMisbehaved, SilentRefusal, UnknownRequest, Verdict,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, feature, header};

const CHANNELS: [Channel; 2] = [Channel::Frontend, Channel::Backend];

fn name(channel: Channel, id: u32) -> MessageName {
    MessageName { channel, id }
}

/// An assembler fails with this error, and goes on failing.
#[track_caller]
fn assert_fails(assembler: &mut Assembler<Token>, bytes: &[u8], descriptors: usize, expected: DecodeError) {
    let ledger = Ledger::new();
    assert_eq!(pour(assembler, bytes, ledger.tokens(descriptors), &[]).unwrap_err(), expected);
    ledger.assert_settled();
    assert!(assembler.read_buf().is_empty() && !assembler.is_whole() && !assembler.is_between_messages());
    assert!(assembler.take().is_none());
    assert_eq!(assembler.filled(0, ledger.tokens(1)), Err(expected));
    assert_eq!(assembler.filled(12, ledger.tokens(0)), Err(expected));
    assert!(assembler.take().is_none());
    ledger.assert_settled();
}

#[test]
fn a_version_other_than_one_ends_the_stream() {
    for (channel, found) in CHANNELS.into_iter().flat_map(|channel| [0, 2, 3].map(|version| (channel, version))) {
        let expected = DecodeError::Version { message: name(channel, 3), found };
        assert_fails(&mut Assembler::new(channel), &header(3, found, 0), 1, expected);
        assert_fails(&mut Assembler::new(channel), &flagged(3, found | 0xfff0, &[0; 8]), 0, expected);
    }
}

#[test]
fn a_version_other_than_one_ends_the_session() {
    let stage = Stage::usual();
    for found in [0, 2, 3] {
        let request = flagged(3, found, &[]);
        let expected = DecodeError::Version { message: FrontendCode(3).message(), found };
        assert_eq!(closes(&stage.back(), &request, 1), bytes(expected));

        let mut front = stage.front();
        let expected = DecodeError::Version { message: BackendCode(2).message(), found };
        let request = flagged(2, found | 8, &[]);
        let rejection = front.handle_request(frame(&request, Vec::new())).unwrap_err();
        assert_eq!((rejection.verdict(), rejection.fault()), (Verdict::Close, bytes(expected)));

        let mut front = stage.front();
        let asked = FrontendRequest::<Token>::GetFeatures;
        drop(front.request(asked, Delivery::Acknowledged, &mut crate::machines::buffer()).unwrap());
        let reply = flagged(1, found | 4, &[0; 8]);
        let expected = DecodeError::Version { message: FrontendCode(1).message(), found };
        assert_eq!(front.handle_reply(frame(&reply, Vec::new())), Err(bytes(expected)));
        assert!(front.has_failed());
    }
}

#[test]
fn more_payload_than_there_is_room_for_ends_the_stream() {
    for found in [MAX_PAYLOAD as u32 + 1, MAX_PAYLOAD as u32 + 2, 1 << 31, u32::MAX] {
        for channel in CHANNELS {
            let expected = DecodeError::PayloadTooLarge { message: name(channel, 3), found, limit: MAX_PAYLOAD };
            assert_fails(&mut Assembler::new(channel), &header(3, 1, found), 2, expected);
        }
    }
    let largest = message(3, &[0; MAX_PAYLOAD]);
    let mut assembler = Assembler::<Token>::new(Channel::Frontend);
    let taken = pour(&mut assembler, &largest, Vec::new(), &[]).unwrap().unwrap();
    assert_eq!(taken.payload.len(), MAX_PAYLOAD);
}

#[test]
fn an_assembler_of_another_size_has_another_limit() {
    let mut assembler = Assembler::<Token, 20>::new(Channel::Backend);
    assert!(pour(&mut assembler, &message(4, &[0; 8]), Vec::new(), &[]).unwrap().is_some());
    let error = pour(&mut assembler, &message(9, &[0; 9]), Vec::new(), &[]).unwrap_err();
    assert_eq!(error, DecodeError::PayloadTooLarge { message: name(Channel::Backend, 9), found: 9, limit: 8 });
}

#[test]
fn descriptors_after_the_first_byte_end_the_stream() {
    let ledger = Ledger::new();
    let request = wire::frontend_request("SET_MEM_TABLE").request();
    for place in 1..request.len() {
        for at_start in [0, 2] {
            let mut assembler = Assembler::<Token>::new(Channel::Frontend);
            let first = &request[..place];
            assert!(pour(&mut assembler, first, ledger.tokens(at_start), &[]).unwrap().is_none());
            let expected = DecodeError::HandlesAfterStart { channel: Channel::Frontend };
            assert_fails(&mut assembler, &request[place..], 1, expected);
        }
    }
    ledger.assert_settled();
}

#[test]
fn more_descriptors_than_any_message_has_end_the_stream() {
    for channel in CHANNELS {
        let expected = DecodeError::TooManyHandles { channel, limit: MAX_HANDLES };
        assert_fails(&mut Assembler::new(channel), &message(5, &[0; 8]), MAX_HANDLES + 1, expected);
        assert_fails(&mut Assembler::new(channel), &message(5, &[0; 8]), 100, expected);
    }
}

#[test]
fn every_message_with_another_number_of_descriptors_is_named() {
    // Which messages take which numbers is the business of the tables; here is what the error says.
    let back = Stage::usual().back();
    let kick = message(12, &1_u64.to_ne_bytes());
    let error = |id, expected, found| {
        let expected = HandleCount { least: expected, most: expected };
        bytes(DecodeError::HandleCount { message: FrontendCode(id).message(), expected, found })
    };
    let fault = refused(&back, &kick, 0);
    assert_eq!(fault, error(12, 1, 0));
    assert_eq!(fault.to_string(), "SET_VRING_KICK (12): expected 1 descriptors, found 0");
    assert_eq!(refused(&back, &kick, 2), error(12, 1, 2));
    assert_eq!(refused(&back, &message(12, &0x101_u64.to_ne_bytes()), 1), error(12, 0, 1));
    assert_eq!(refused(&back, &message(1, &[]), 1), error(1, 0, 1));
}

#[test]
fn a_reply_where_a_request_is_due_ends_the_channel() {
    let stage = Stage::usual();
    for (flags, id) in [(0x5, 1), (0xd, 1), (0x15, 1), (0x5, 99)] {
        let reply = flagged(id, flags, &[0; 8]);
        let expected = DecodeError::ReplyInsteadOfRequest { message: FrontendCode(id).message() };
        assert_eq!(closes(&stage.back(), &reply, 1), bytes(expected));

        let mut front = stage.front();
        let before = front.session().clone();
        let reply = flagged(8, flags, &[0; 8]);
        let expected = DecodeError::ReplyInsteadOfRequest { message: BackendCode(8).message() };
        let rejection = front.handle_request(frame(&reply, Vec::new())).unwrap_err();
        assert_eq!((rejection.verdict(), rejection.fault()), (Verdict::Close, bytes(expected)));
        // Only this channel is closed.
        assert!(!front.has_failed() && *front.session() == before);
        let request = flagged(2, 9, &[]);
        let rejection = front.handle_request(frame(&request, Vec::new())).unwrap_err();
        assert_eq!(rejection.fault(), Fault::Caller(ApiMisuse::SessionFailed));
    }
}

#[test]
fn a_request_where_a_reply_is_due_ends_the_session() {
    let ledger = Ledger::new();
    for (id, flags) in [(1, 1), (1, 9), (2, 1), (99, 1)] {
        let mut front = Stage::usual().front();
        drop(front.request(FrontendRequest::<Token>::GetFeatures, Delivery::Acknowledged, &mut [0; 12]).unwrap());
        let request = flagged(id, flags, &[0; 8]);
        let fault = front.handle_reply(frame(&request, ledger.tokens(2))).unwrap_err();
        assert_eq!(fault, bytes(DecodeError::RequestInsteadOfReply { message: FrontendCode(id).message() }));
        assert!(front.has_failed());
        let reply = flagged(1, 5, &[0; 8]);
        let again = front.handle_reply(frame(&reply, ledger.tokens(0)));
        assert_eq!(again, Err(Fault::Caller(ApiMisuse::SessionFailed)));
        let request = front.request(FrontendRequest::<Token>::SetOwner, Delivery::Acknowledged, &mut [0; 12]).map(drop);
        assert_eq!(request, Err(ApiMisuse::SessionFailed));
    }
    ledger.assert_settled();
}

#[test]
fn an_unknown_request_is_refused_if_that_can_be_told_and_else_ends_the_session() {
    let stage = Stage::with(feature::REPLY_ACK);
    for id in [0, 45, 46, 1000, 1 << 31, u32::MAX] {
        let unknown = bytes(DecodeError::UnknownRequest { message: FrontendCode(id).message() });
        assert_eq!(refused(&stage.back(), &flagged(id, 9, &[1, 2, 3]), 2), unknown);
        assert_eq!(closes(&stage.back(), &message(id, &[1, 2, 3]), 2), unknown);
        // Without REPLY_ACK the flag means nothing.
        assert_eq!(closes(&Stage::with(0).back(), &flagged(id, 9, &[]), 1), unknown);
    }
}

#[test]
fn an_unknown_request_can_be_ignored() {
    let stage = Stage::with(0);
    let mut config = crate::machines::offering(stage.offered, 0);
    config.tolerance.unknown_request = UnknownRequest::Ignore;
    let mut back = crate::machines::Back::new(config);
    let unknown = bytes(DecodeError::UnknownRequest { message: FrontendCode(77).message() });
    assert_eq!(refused(&back, &message(77, &[1, 2, 3]), 3), unknown);
    super::assert_works(&mut back);
}

#[test]
fn an_unknown_request_of_a_backend_never_ends_its_channel() {
    let front = Stage::with(feature::BACKEND_REQ | feature::REPLY_ACK).front();
    for id in [0, 11, 1000, 1 << 31, u32::MAX] {
        let unknown = bytes(DecodeError::UnknownRequest { message: BackendCode(id).message() });
        assert_eq!(refused_by_front(&front, &message(id, &[1, 2, 3]), 1), unknown);
        assert_eq!(refused_by_front(&front, &flagged(id, 9, &[]), 1), unknown);
    }
}

#[test]
fn replies_nobody_asked_for_end_the_session() {
    for id in [1, 2, 99] {
        let mut front = Stage::usual().front();
        let reply = flagged(id, 5, &[0; 8]);
        let expected = PeerMisbehaved::UnsolicitedReply { message: FrontendCode(id).message() };
        assert_eq!(front.handle_reply(frame(&reply, Vec::new())), Err(Fault::Peer(expected)));
        assert!(front.has_failed());

        let mut back = Stage::usual().back();
        let expected = PeerMisbehaved::UnsolicitedReply { message: BackendCode(id).message() };
        assert_eq!(back.handle_reply(frame(&reply, Vec::new())), Err(Fault::Peer(expected)));
        // The channel of the back-end is of no use any more, the session is.
        assert!(!back.has_failed());
        assert_eq!(back.handle_reply(frame(&reply, Vec::new())), Err(Fault::Caller(ApiMisuse::SessionFailed)));
        super::assert_works(&mut back);
    }
}

#[test]
fn a_refusal_that_cannot_be_told_can_end_the_session() {
    let stage = Stage::with(0);
    let mut config = crate::machines::offering(stage.offered, 0);
    config.tolerance.silent_refusal = SilentRefusal::Close;
    let mut back = crate::machines::Back::new(config);
    let request = message(8, &crate::stage::state(4, 256));
    assert!(back.handle_request(frame(&request, Vec::new())).is_err());
    let refusal = FrontendReply::Refused(core::num::NonZeroU64::MIN);
    let answered = back.answer::<Token>(refusal, &mut []).unwrap();
    assert_eq!(answered, vhost_core::Answered::Close);
    assert_failed(&mut back);
}
