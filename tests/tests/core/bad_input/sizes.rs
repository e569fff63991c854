//! Payloads of another size: every message a byte shorter and a byte longer, with surplus bytes refused and ignored.

use super::{refused, refused_by_front};
use crate::machines::{Back, Front, frame, offering};
use crate::stage::{PROTOCOL_OFFERED, Stage, flagged, message, say};
use vhost_core::wire::payload::{Field, PayloadFault, SizeRule};
use vhost_core::{
    BackendReply, BackendRequest, DecodeError, Fault, Form, FrontendConfig, FrontendReply, FrontendRequest,
    TrailingBytes,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, Fixture, Layout, REQUEST_NEEDING_REPLY, feature};

/// Whether surplus bytes are let pass when they are ignored.
fn may_be_longer(layout: Layout) -> bool {
    // Other sizes of these mean something else: the 20 bytes of the specification, the mappings of older peers.
    !matches!(layout, Layout::Inflight | Layout::InflightUnpadded | Layout::Uuid)
}

/// Whether surplus bytes are always let pass: SPDK sends 256 bytes of configuration and means the first ones.
fn is_always_longer(layout: Layout) -> bool {
    layout == Layout::Config
}

/// The message with its payload so long.
fn resized(fixture: &Fixture, size: usize) -> Vec<u8> {
    let mut payload = fixture.payload.clone();
    payload.resize(size, 0xee);
    flagged(fixture.id, REQUEST_NEEDING_REPLY, &payload)
}

#[track_caller]
fn assert_names_size(fault: Fault, found: usize, title: &str) {
    match fault {
        Fault::Bytes(DecodeError::Payload { fault: PayloadFault::Size { expected, found: said }, .. }) => {
            assert_eq!(said, found, "{title}");
            assert!(!expected.allows(found), "{title}: {expected:?}");
        }
        // The size that the payload itself tells is wrong then.
        Fault::Bytes(DecodeError::Payload { fault: PayloadFault::Field { field: Field::ConfigSize, .. }, .. }) => {
            assert!(title.contains("CONFIG"), "{title}");
        }
        Fault::Bytes(DecodeError::Payload { fault: PayloadFault::Field { field: Field::RegionSizes, .. }, .. }) => {
            assert_eq!((title, found), ("GET_SHMEM_CONFIG", 2055));
        }
        other => panic!("{title}: {other}"),
    }
}

/// All requests of a front-end but those whose form depends on what was said before.
fn frontend_fixtures() -> Vec<Fixture> {
    let mut all = wire::all_frontend_forms();
    all.retain(|fixture| !fixture.form.starts_with("postcopy"));
    all
}

fn prepared(fixture: &Fixture, trailing: TrailingBytes) -> Back {
    let stage = Stage::of(fixture).acknowledging();
    let mut config = offering(stage.offered, PROTOCOL_OFFERED);
    config.tolerance.trailing_bytes = trailing;
    let mut back = Back::new(config);
    say(&mut back, &message(16, &stage.protocol.to_ne_bytes()), Vec::new());
    say(&mut back, &message(2, &stage.features.to_ne_bytes()), Vec::new());
    back
}

#[test]
fn a_byte_less_is_refused_by_name() {
    for trailing in [TrailingBytes::Refuse, TrailingBytes::Ignore] {
        for fixture in frontend_fixtures().iter().filter(|fixture| !fixture.payload.is_empty()) {
            let size = fixture.payload.len() - 1;
            let back = prepared(fixture, trailing);
            let fault = refused(&back, &resized(fixture, size), fixture.descriptors);
            assert_names_size(fault, size, &format!("{} ({})", fixture.name, fixture.form));
        }
    }
}

#[test]
fn no_byte_at_all_is_refused_by_name() {
    for fixture in frontend_fixtures().iter().filter(|fixture| !fixture.payload.is_empty()) {
        if fixture.name == "GET_SHARED_OBJECT" {
            continue; // QEMU forgets the name of the object.
        }
        let fault = refused(&prepared(fixture, TrailingBytes::Refuse), &resized(fixture, 0), fixture.descriptors);
        assert_names_size(fault, 0, fixture.name);
    }
}

#[test]
fn a_byte_more_is_refused_by_name() {
    for fixture in frontend_fixtures().iter().filter(|fixture| !is_always_longer(fixture.layout)) {
        let size = fixture.payload.len() + 1;
        let fault = refused(&prepared(fixture, TrailingBytes::Refuse), &resized(fixture, size), fixture.descriptors);
        assert_names_size(fault, size, &format!("{} ({})", fixture.name, fixture.form));
    }
}

#[test]
fn bytes_more_can_be_ignored() {
    let ledger = Ledger::new();
    for fixture in frontend_fixtures() {
        for more in [1, 8, 100] {
            let size = fixture.payload.len() + more;
            let mut back = prepared(&fixture, TrailingBytes::Ignore);
            if fixture.name == "REM_MEM_REG" {
                let form = if fixture.form == "xen" { "xen" } else { Fixture::USUAL };
                say(&mut back, &wire::frontend_form("ADD_MEM_REG", form).request(), ledger.tokens(1));
            }
            if fixture.name == "POSTCOPY_LISTEN" || fixture.form == "no name" {
                continue; // One needs a history, the other is a name then.
            }
            let longer = resized(&fixture, size);
            if !may_be_longer(fixture.layout) {
                let fault = refused(&back, &longer, fixture.descriptors);
                assert_names_size(fault, size, &format!("{} ({})", fixture.name, fixture.form));
                continue;
            }
            let exact = flagged(fixture.id, REQUEST_NEEDING_REPLY, &fixture.payload);
            let taken = back.clone().handle_request(frame(&longer, ledger.tokens(fixture.descriptors))).map(drop);
            assert_eq!(taken, Ok(()), "{} ({})", fixture.name, fixture.form);
            // And means the same: what it would do is the same.
            let (mut one, mut other) = (back.clone(), back);
            drop(one.handle_request(frame(&longer, ledger.tokens(fixture.descriptors))));
            drop(other.handle_request(frame(&exact, ledger.tokens(fixture.descriptors))));
            assert_eq!(one, other, "{} ({})", fixture.name, fixture.form);
        }
    }
    ledger.assert_settled();
}

#[test]
fn all_eight_slots_of_a_memory_table_may_come_with_fewer_regions() {
    let ledger = Ledger::new();
    for (form, size) in [("one region", 8 + 8 * 32), (Fixture::USUAL, 8 + 8 * 32), ("xen", 8 + 8 * 40)] {
        let fixture = wire::frontend_form("SET_MEM_TABLE", form);
        let mut back = prepared(&fixture, TrailingBytes::Refuse);
        let request = resized(&fixture, size);
        drop(back.handle_request(frame(&request, ledger.tokens(fixture.descriptors))).unwrap());
    }
    ledger.assert_settled();
}

#[test]
fn a_memory_table_with_more_regions_than_eight_is_refused_by_name() {
    let back = prepared(&wire::frontend_request("SET_MEM_TABLE"), TrailingBytes::Refuse);
    for (count, regions) in [(9_u32, 9), (9, 8), (9, 0), (255, 8), (1 << 31, 1), (u32::MAX, 0)] {
        let payload = wire::Bytes::new().u32(count).padding(4 + regions * 32).done();
        for descriptors in [0, 8] {
            let fault = refused(&back, &flagged(5, REQUEST_NEEDING_REPLY, &payload), descriptors);
            let expected = PayloadFault::Field { field: Field::RegionCount, found: count.into() };
            let message = vhost_core::FrontendCode(5).message();
            assert_eq!(fault, Fault::Bytes(DecodeError::Payload { message, fault: expected }));
        }
    }
}

#[test]
fn a_configuration_larger_than_its_message_is_refused_by_name() {
    let back = prepared(&wire::frontend_request("SET_CONFIG"), TrailingBytes::Ignore);
    for (size, follows) in [(9_u32, 8), (257, 256), (1 << 31, 8), (u32::MAX, 0)] {
        for id in [24, 25] {
            let payload = wire::Bytes::new().u32(0).u32(size).u32(0).padding(follows).done();
            let fault = refused(&back, &flagged(id, REQUEST_NEEDING_REPLY, &payload), 0);
            let fault_of_size = PayloadFault::Field { field: Field::ConfigSize, found: size.into() };
            let message = vhost_core::FrontendCode(id).message();
            assert_eq!(fault, Fault::Bytes(DecodeError::Payload { message, fault: fault_of_size }));
        }
    }
    // More than any configuration space has.
    let payload = wire::Bytes::new().u32(0).u32(8).u32(0).padding(257).done();
    assert_names_size(refused(&back, &flagged(25, REQUEST_NEEDING_REPLY, &payload), 0), 269, "SET_CONFIG");
}

fn front_with(fixture: &Fixture, trailing: TrailingBytes) -> Front {
    let stage = Stage::of(fixture).acknowledging();
    let mut config = FrontendConfig::new(4);
    config.tolerance.trailing_bytes = trailing;
    let mut front = Front::new(config);
    front.assume_offer(
        crate::machines::virtio_features(stage.offered),
        crate::machines::protocol_features(PROTOCOL_OFFERED),
    );
    for (id, value) in [(16, stage.protocol), (2, stage.features)] {
        let bytes = message(id, &value.to_ne_bytes());
        let request = FrontendRequest::<Token>::decode(frame(&bytes, Vec::new()), Form::request(Default::default()));
        drop(front.request(request.unwrap(), vhost_core::Delivery::Unacknowledged, &mut [0; 20]).unwrap());
    }
    front
}

#[test]
fn requests_of_a_backend_a_byte_shorter_or_longer_are_refused_by_name() {
    for fixture in wire::all_backend_forms() {
        for trailing in [TrailingBytes::Refuse, TrailingBytes::Ignore] {
            let size = fixture.payload.len();
            let front = front_with(&fixture, trailing);
            if let Some(shorter) = size.checked_sub(1) {
                let fault = refused_by_front(&front, &resized(&fixture, shorter), fixture.descriptors);
                assert_names_size(fault, shorter, fixture.name);
            }
            if trailing == TrailingBytes::Refuse || !may_be_longer(fixture.layout) {
                let fault = refused_by_front(&front, &resized(&fixture, size + 1), fixture.descriptors);
                assert_names_size(fault, size + 1, fixture.name);
            } else {
                let (longer, ledger) = (resized(&fixture, size + 1), Ledger::new());
                let mut front = front;
                let taken = front.handle_request(frame(&longer, ledger.tokens(fixture.descriptors))).unwrap();
                let exact = fixture.request();
                let form = Form::request(front.session().negotiated().protocol);
                let expected = BackendRequest::decode(frame(&exact, Vec::new()), form);
                // They are equal but for the descriptors, which are tokens that differ.
                if fixture.descriptors == 0 {
                    assert_eq!(taken, expected.unwrap());
                }
            }
        }
    }
}

/// Replies whose content means nothing may have any: those of SET_LOG_BASE have 0, 8 or 16 bytes, others should be empty.
fn has_free_reply(fixture: &Fixture) -> bool {
    ["POSTCOPY_ADVISE", "GET_SHARED_OBJECT"].contains(&fixture.name)
}

#[test]
fn replies_of_another_size_are_refused_by_name() {
    let ledger = Ledger::new();
    for fixture in frontend_fixtures().iter().filter(|fixture| !has_free_reply(fixture)) {
        let form = Form::reply(crate::machines::protocol_features(fixture.gate.protocol));
        let replies = fixture.answers().iter().filter(|answer| !answer.payload.is_empty());
        for answer in replies {
            for size in [answer.payload.len() - 1, answer.payload.len() + 1] {
                let mut payload = answer.payload.clone();
                payload.resize(size, 0);
                let reply = flagged(fixture.id, wire::REPLY, &payload);
                let decoded = FrontendReply::decode(frame(&reply, ledger.tokens(answer.descriptors)), form);
                let is_status = vhost_core::FrontendCode(fixture.id).row().unwrap().reply_payload.size();
                match decoded {
                    // An acknowledgement in all but name: it is read as one.
                    Err(DecodeError::UnknownRequest { .. }) => assert_eq!(is_status, SizeRule::Exactly(0)),
                    Err(error) => assert_names_size(Fault::Bytes(error), size, fixture.name),
                    // Configuration may be shorter than asked for, and is clipped.
                    Ok(_) => assert_eq!(fixture.layout, Layout::Config, "{}: {size}", fixture.name),
                }
            }
        }
    }
    ledger.assert_settled();
}

#[test]
fn an_acknowledgement_is_no_reply_of_its_own() {
    let form = Form::reply(crate::machines::protocol_features(feature::REPLY_ACK));
    for payload in [&[][..], &[0; 8]] {
        let error = FrontendReply::decode(frame(&flagged(3, wire::REPLY, payload), Vec::new()), form).unwrap_err();
        assert_eq!(error, DecodeError::UnknownRequest { message: vhost_core::FrontendCode::SET_OWNER.message() });
    }
}

#[test]
fn replies_to_a_backend_of_another_size_are_refused_by_name() {
    let form = Form::reply(crate::machines::protocol_features(feature::SHARED_OBJECT));
    for size in [0, 7, 9] {
        let reply = flagged(8, wire::REPLY, &vec![0; size]);
        let error = BackendReply::decode(frame(&reply, Vec::new()), form).unwrap_err();
        assert_names_size(Fault::Bytes(error), size, "SHARED_OBJECT_LOOKUP");
    }
}

#[test]
fn acknowledgements_of_another_size_end_the_session() {
    for size in [0, 4, 7, 9, 16] {
        let mut front = Stage::usual().front();
        let asked = FrontendRequest::<Token>::SetOwner;
        drop(front.request(asked, vhost_core::Delivery::Acknowledged, &mut [0; 12]).unwrap());
        let reply = flagged(3, wire::REPLY, &vec![0; size]);
        assert_names_size(front.handle_reply(frame(&reply, Vec::new())).unwrap_err(), size, "SET_OWNER");
        assert!(front.has_failed());
    }
}
