//! Rows R1 to R16: who answers what, and when.

use super::{answer, done};
use crate::machines::{Back, Reaction, buffer, frame, offering};
use crate::stage::{PROTOCOL_OFFERED, Stage, flagged, message, say, state};
use core::num::NonZeroU64;
use vhost_core::{
    BackendReply, BackendRequest, Delivery, FrontendReply, FrontendRequest, LogReply, PeerMisbehaved, ProtocolFeatures,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, Message, REPLY, Reply, feature};

#[test]
fn r1_a_request_with_a_reply_of_its_own_is_answered_once() {
    // libblkio and cloud-hypervisor flag everything.
    let ledger = Ledger::new();
    let own = |fixture: &wire::Fixture| matches!(fixture.reply, Reply::Own(_)) && fixture.gate.offered == 0;
    for fixture in wire::all_frontend_requests().iter().filter(|fixture| own(fixture)) {
        let mut answers = Vec::new();
        for flags in [1, 9] {
            let mut back = Stage::of(fixture).acknowledging().back();
            let first = &fixture.answers()[0];
            let bytes = first.message(fixture.id);
            let form = vhost_core::Form::reply(back.session().negotiated().protocol);
            let decoded = FrontendReply::decode(frame(&bytes, ledger.tokens(first.descriptors)), form);
            let reply = decoded.unwrap_or(FrontendReply::Done);
            answers.push(answer(&mut back, &fixture.message(flags), ledger.tokens(fixture.descriptors), Some(reply)));
            assert!(back.own_answer::<Token>().is_none(), "nothing is left to answer");
        }
        let bytes = answers.iter().map(|reaction| match reaction {
            Reaction::Sent(packet) => packet.bytes.clone(),
            other => panic!("{}: {other:?}", fixture.name),
        });
        let [unflagged, flagged] = Vec::from_iter(bytes).try_into().unwrap();
        assert_eq!(unflagged, flagged, "{}", fixture.name);
        assert_eq!(Message::read(&flagged).unwrap().1, flagged.len(), "{}: one message", fixture.name);
    }
}

#[test]
fn r2_the_reply_about_a_log_is_the_log_or_what_was_chosen() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("SET_LOG_BASE");
    let stage = Stage::of(&fixture);
    let choices = [(LogReply::Echo, fixture.payload.clone()), (LogReply::Zero, vec![0; 8]), (LogReply::Empty, vec![])];
    for (log_reply, payload) in choices {
        let mut config = offering(stage.offered, PROTOCOL_OFFERED);
        config.tolerance.log_reply = log_reply;
        let mut back = Back::new(config);
        say(&mut back, &message(16, &stage.protocol.to_ne_bytes()), Vec::new());
        for flags in [1, 9] {
            let Reaction::Sent(packet) = answer(&mut back, &fixture.message(flags), ledger.tokens(1), None) else {
                panic!()
            };
            assert_eq!(packet.bytes, flagged(6, REPLY, &payload));
        }
    }
    assert_eq!(LogReply::default(), LogReply::Echo);
    ledger.assert_settled();
}

#[test]
fn r3_a_log_without_shared_file_is_acknowledged_like_anything_else() {
    let address = wire::frontend_form("SET_LOG_BASE", "an address");
    let mut back = Stage::with(feature::REPLY_ACK).back();
    assert_eq!(done(&mut back, 6, 1, &address.payload, 0), None);
    assert_eq!(done(&mut back, 6, 9, &address.payload, 0), Some(address.acknowledgement(0)));
    assert_eq!(back.session().log(), None);
}

#[test]
fn r4_a_refusal_is_told_with_a_one_and_the_session_goes_on() {
    let mut back = Stage::usual().back();
    let request = flagged(8, 9, &state(1, 3));
    assert!(back.handle_request::<Token>(frame(&request, Vec::new())).is_err());
    let refusal = FrontendReply::<Token>::Refused(NonZeroU64::MIN);
    let Reaction::Sent(packet) = back.answer(refusal, &mut buffer()).unwrap().into() else { panic!() };
    assert_eq!(packet.bytes, flagged(8, REPLY, &1_u64.to_ne_bytes()));
    assert_eq!(done(&mut back, 8, 9, &state(1, 256), 0), Some(flagged(8, REPLY, &[0; 8])));
}

#[test]
fn r5_zero_is_success_and_everything_else_is_not() {
    // 1, minus an error number, a bool: all are refusals.
    for number in [0, 1, 2, u64::MAX, 22_u64.wrapping_neg(), 1 << 63] {
        let mut front = Stage::usual().front();
        drop(front.request(FrontendRequest::<Token>::SetOwner, Delivery::Acknowledged, &mut [0; 12]).unwrap());
        let reply = flagged(3, REPLY, &number.to_ne_bytes());
        let expected = NonZeroU64::new(number).map_or(FrontendReply::Done, FrontendReply::Refused);
        assert_eq!(front.handle_reply::<Token>(frame(&reply, Vec::new())), Ok(expected));
    }
}

#[test]
fn r6_no_acknowledgement_is_asked_for_before_it_was_negotiated() {
    let mut front = Stage::with(0).front();
    let sent = |front: &mut crate::machines::Front, request: FrontendRequest<'_, Token>| {
        let mut out = buffer();
        let transmit = front.request(request, Delivery::Acknowledged, &mut out).unwrap();
        u32::from_ne_bytes(transmit.bytes[4..8].try_into().unwrap())
    };
    assert_eq!(sent(&mut front, FrontendRequest::SetOwner), 1);
    // Nor by the request that negotiates it.
    let protocol = ProtocolFeatures::REPLY_ACK;
    assert_eq!(sent(&mut front, FrontendRequest::SetProtocolFeatures(protocol)), 1);
    assert_eq!(front.outstanding(), 0);
    assert_eq!(sent(&mut front, FrontendRequest::SetOwner), 9);
    assert_eq!(sent(&mut front, FrontendRequest::SetProtocolFeatures(protocol)), 1);
}

#[test]
fn r7_what_qemu_always_flags_is_always_answered() {
    let ledger = Ledger::new();
    for name in ["IOTLB_MSG", "POSTCOPY_LISTEN", "POSTCOPY_END"] {
        let fixture = wire::frontend_request(name);
        let mut back = Stage::of(&fixture).back();
        assert!(!back.session().negotiated().has_acknowledgements());
        if name == "POSTCOPY_LISTEN" {
            let advised = FrontendReply::PostcopyAdvise(Some(ledger.token()));
            drop(answer(&mut back, &message(28, &[]), Vec::new(), Some(advised)));
        }
        assert_eq!(done(&mut back, fixture.id, 9, &fixture.payload, 0), Some(fixture.acknowledgement(0)), "{name}");
    }
    ledger.assert_settled();
}

#[test]
fn r8_features_can_be_asked_for_at_any_time_as_a_barrier() {
    // QEMU without REPLY_ACK: one after each SET_VRING_ENABLE.
    let mut back = Stage::with(0).back();
    let features = done(&mut back, 1, 1, &[], 0);
    for ring in 0..4 {
        assert_eq!(done(&mut back, 18, 1, &state(ring, 1), 0), None);
        assert_eq!(done(&mut back, 1, 1, &[], 0), features);
        assert!(back.session().ring(ring as usize).unwrap().is_enabled());
    }
}

#[test]
fn r9_features_can_be_asked_for_thousands_of_times() {
    let mut back = Stage::usual().back();
    let before = back.clone();
    for _ in 0..5000 {
        assert!(done(&mut back, 1, 1, &[], 0).is_some());
    }
    assert_eq!(back, before);
}

#[test]
fn r11_a_reply_out_of_order_or_unasked_ends_the_session() {
    let mut front = Stage::usual().front();
    for request in [FrontendRequest::<Token>::SetOwner, FrontendRequest::GetFeatures] {
        drop(front.request(request, Delivery::Acknowledged, &mut [0; 12]).unwrap());
    }
    let reply = wire::frontend_request("GET_FEATURES").reply();
    let fault = front.handle_reply::<Token>(frame(&reply, Vec::new())).unwrap_err();
    assert!(matches!(fault, vhost_core::Fault::Peer(PeerMisbehaved::WrongReply { .. })), "{fault}");
    let mut front = Stage::usual().front();
    let fault = front.handle_reply::<Token>(frame(&reply, Vec::new())).unwrap_err();
    assert!(matches!(fault, vhost_core::Fault::Peer(PeerMisbehaved::UnsolicitedReply { .. })), "{fault}");
}

#[test]
fn r12_nothing_to_track_is_an_answer() {
    let mut back = Stage::usual().back();
    let fixture = wire::frontend_request("GET_INFLIGHT_FD");
    let nothing = fixture.answers().iter().find(|answer| answer.form == "nothing to track").unwrap();
    let reply = FrontendReply::GetInflightFd(vhost_core::wire::inflight::Inflight::new(0, 0, 2, 256), None);
    let Reaction::Sent(packet) = answer(&mut back, &fixture.request(), Vec::new(), Some(reply)) else { panic!() };
    assert_eq!((&packet.bytes, packet.handles.len()), (&nothing.message(31), 0));
    let mut front = Stage::usual().front();
    let wanted = vhost_core::wire::inflight::Inflight::new(0, 0, 2, 256);
    let request = FrontendRequest::<Token>::GetInflightFd(wanted);
    drop(front.request(request, Delivery::Acknowledged, &mut [0; 36]).unwrap());
    let heard = front.handle_reply::<Token>(frame(&packet.bytes, Vec::new()));
    assert_eq!(heard, Ok(FrontendReply::GetInflightFd(wanted, None)));
}

#[test]
fn r13_a_refused_postcopy_has_no_descriptor() {
    let fixture = wire::frontend_request("POSTCOPY_ADVISE");
    let mut back = Stage::of(&fixture).back();
    for refusal in [FrontendReply::Refused(NonZeroU64::MIN), FrontendReply::PostcopyAdvise(None)] {
        let Reaction::Sent(packet) = answer(&mut back, &fixture.request(), Vec::new(), Some(refusal)) else { panic!() };
        assert_eq!((packet.bytes, packet.handles.len()), (flagged(28, REPLY, &[]), 0));
    }
    let mut front = Stage::of(&fixture).front();
    drop(front.request(FrontendRequest::<Token>::PostcopyAdvise, Delivery::Acknowledged, &mut [0; 12]).unwrap());
    let reply = flagged(28, REPLY, &[]);
    let heard = front.handle_reply::<Token>(frame(&reply, Vec::new()));
    assert_eq!(heard, Ok(FrontendReply::Refused(NonZeroU64::MIN)));
}

#[test]
fn r14_a_transfer_says_with_a_bit_that_no_descriptor_comes() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("SET_DEVICE_STATE_FD");
    let answers = [
        (FrontendReply::SetDeviceStateFd(0x100, None), 0x100, 0),
        (FrontendReply::SetDeviceStateFd(0, Some(ledger.token())), 0, 1),
        (FrontendReply::Refused(NonZeroU64::MIN), 0x101, 0),
    ];
    for (reply, number, descriptors) in answers {
        let mut back = Stage::of(&fixture).back();
        let Reaction::Sent(packet) = answer(&mut back, &fixture.request(), ledger.tokens(1), Some(reply)) else {
            panic!()
        };
        assert_eq!(Message::read(&packet.bytes).unwrap().0.number(), number);
        assert_eq!(packet.handles.len(), descriptors);
    }
    ledger.assert_settled();
}

#[test]
fn r15_a_lookup_is_always_answered_and_needs_no_descriptor() {
    let ledger = Ledger::new();
    let fixture = wire::backend_request("SHARED_OBJECT_LOOKUP");
    let bytes = fixture.request();
    let uuid = || {
        let form = vhost_core::Form::request(ProtocolFeatures::empty());
        BackendRequest::<Token>::decode(frame(&bytes, Vec::new()), form).unwrap()
    };
    // Found here, found but with the descriptor on the wrong socket (QEMU), not found, not found with a descriptor.
    for (number, descriptors) in [(0_u64, 1), (0, 0), (1, 0), (5, 1)] {
        let mut back = Stage::of(&fixture).back();
        say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
        drop(back.request(uuid(), Delivery::Unacknowledged, &mut buffer()).unwrap());
        assert_eq!(back.outstanding(), 1);
        let reply = flagged(8, REPLY, &number.to_ne_bytes());
        match (number, back.handle_reply(frame(&reply, ledger.tokens(descriptors))).unwrap()) {
            (0, BackendReply::SharedObjectLookup(0, handle)) => assert_eq!(handle.is_some(), descriptors == 1),
            (_, BackendReply::Refused(refused)) => assert_eq!(refused.get(), number),
            (_, other) => panic!("{other:?}"),
        }
    }
    ledger.assert_settled();
}

#[test]
fn r16_a_mapping_of_older_backends_is_no_shared_object() {
    // 256 bytes under the ids of objects; QEMU acknowledges them as objects. Whatever is let pass, we refuse.
    for trailing in [vhost_core::TrailingBytes::Refuse, vhost_core::TrailingBytes::Ignore] {
        let mut config = vhost_core::FrontendConfig::new(4);
        config.tolerance.trailing_bytes = trailing;
        let mut front = crate::machines::Front::new(config);
        front.assume_offer(
            crate::machines::virtio_features(feature::OFFERED),
            crate::machines::protocol_features(PROTOCOL_OFFERED),
        );
        let protocol = crate::machines::protocol_features(feature::PROTOCOL_ACKNOWLEDGED);
        let request = FrontendRequest::<Token>::SetProtocolFeatures(protocol);
        drop(front.request(request, Delivery::Unacknowledged, &mut [0; 20]).unwrap());
        for id in [6, 7, 8] {
            let mapping = flagged(id, 9, &[0; 256]);
            crate::bad_input::refused_by_front(&front, &mapping, 0);
            crate::bad_input::refused_by_front(&front, &mapping, 1);
        }
    }
}
