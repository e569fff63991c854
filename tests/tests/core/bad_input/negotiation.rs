//! Features, numbers and orders that were not agreed on.

use super::{closes, refused, violation};
use crate::machines::{Back, Reaction, offering, protocol_features, virtio_features};
use crate::stage::{PROTOCOL_OFFERED, Rings, Stage, flagged, message, say};
use vhost_core::{BrokenDependency, Postcopy, UnofferedFeatures, Violation};
use vhost_tests::tracked::Ledger;
use vhost_tests::wire::{self, Bytes, feature};

const RING_RESET: u64 = 1 << 40;

fn features(bits: u64) -> Vec<u8> {
    flagged(2, 9, &bits.to_ne_bytes())
}

fn protocol(bits: u64) -> Vec<u8> {
    flagged(16, 9, &bits.to_ne_bytes())
}

/// A back-end in the usual stage that lets other things pass.
fn tolerating(tolerate: impl FnOnce(&mut vhost_core::Tolerance)) -> Back {
    let stage = Stage::usual();
    let mut config = offering(stage.offered, PROTOCOL_OFFERED);
    tolerate(&mut config.tolerance);
    let mut back = Back::new(config);
    say(&mut back, &message(16, &stage.protocol.to_ne_bytes()), Vec::new());
    say(&mut back, &message(2, &stage.features.to_ne_bytes()), Vec::new());
    back
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let back = Stage::usual().back();
    for bit in (0..64).map(|bit| 1 << bit).filter(|bit| feature::OFFERED & bit == 0 && *bit != RING_RESET) {
        for rest in [0, feature::ACKNOWLEDGED, RING_RESET] {
            let expected = violation(2, Violation::FeaturesNotOffered { excess: virtio_features(bit) });
            assert_eq!(refused(&back, &features(rest | bit), 0), expected);
        }
    }
}

#[test]
fn one_feature_that_was_not_offered_is_masked() {
    let mut back = Stage::usual().back();
    let before = back.clone();
    let reaction = say(&mut back, &features(feature::ACKNOWLEDGED | RING_RESET), Vec::new());
    assert!(matches!(reaction, Reaction::Sent(_)));
    assert_eq!(back, before);
    let strict = tolerating(|tolerance| tolerance.always_accepted = virtio_features(0));
    let expected = violation(2, Violation::FeaturesNotOffered { excess: virtio_features(RING_RESET) });
    assert_eq!(refused(&strict, &features(feature::ACKNOWLEDGED | RING_RESET), 0), expected);
}

#[test]
fn features_that_were_not_offered_can_all_be_masked() {
    let mut back = tolerating(|tolerance| tolerance.unoffered_features = UnofferedFeatures::Mask);
    say(&mut back, &features(u64::MAX), Vec::new());
    assert_eq!(back.session().negotiated().acknowledged.bits(), feature::OFFERED);
}

#[test]
fn features_do_not_change_under_a_running_ring() {
    let running = Stage::usual().rings(Rings::RUNNING).back();
    for bit in [feature::NET_MTU, feature::EVENT_INDEX, feature::INDIRECT_DESCRIPTORS, feature::PROTOCOL_FEATURES] {
        let expected = violation(2, Violation::FeaturesWhileRunning { changed: virtio_features(bit) });
        assert_eq!(refused(&running, &features(feature::ACKNOWLEDGED ^ bit), 0), expected);
        assert_eq!(refused(&running, &features((feature::ACKNOWLEDGED | feature::LOG_ALL) ^ bit), 0), expected);
    }
    for rings in [Rings { started: true, enabled: false }, Rings { started: false, enabled: true }] {
        let mut idle = Stage::usual().rings(rings).back();
        say(&mut idle, &features(feature::VERSION_1 | feature::PROTOCOL_FEATURES), Vec::new());
    }
}

#[test]
fn protocol_features_that_were_not_offered_are_refused() {
    let stage = Stage::with(feature::REPLY_ACK);
    let mut back = Back::new(offering(stage.offered, feature::MQ | feature::REPLY_ACK));
    say(&mut back, &message(16, &stage.protocol.to_ne_bytes()), Vec::new());
    for bit in (1..64).map(|bit| 1 << bit).filter(|bit| *bit != feature::REPLY_ACK) {
        let expected = violation(16, Violation::ProtocolFeaturesNotOffered { excess: protocol_features(bit) });
        assert_eq!(refused(&back, &protocol(feature::MQ | feature::REPLY_ACK | bit), 0), expected);
    }
}

#[test]
fn in_band_notifications_without_what_they_need_end_the_session() {
    let needs = feature::BACKEND_REQ | feature::REPLY_ACK;
    for missing in [needs, feature::BACKEND_REQ, feature::REPLY_ACK] {
        let expected = Violation::ProtocolFeatureNeeds {
            feature: protocol_features(feature::INBAND_NOTIFICATIONS),
            missing: protocol_features(missing),
        };
        let request = protocol((needs & !missing) | feature::INBAND_NOTIFICATIONS);
        assert_eq!(closes(&Stage::usual().back(), &request, 0), violation(16, expected));
    }
}

#[test]
fn other_features_without_what_they_need_are_let_pass_or_refused() {
    let channel = feature::BACKEND_REQ | feature::BACKEND_SEND_FD;
    let needs = [
        (feature::GET_VRING_BASE_INFLIGHT, feature::INFLIGHT_SHMFD),
        (feature::HOST_NOTIFIER, channel),
        (feature::SHMEM, channel),
    ];
    for (one, missing) in needs {
        let mut back = Stage::usual().back();
        say(&mut back, &protocol(one), Vec::new());
        assert_eq!(back.session().negotiated().protocol.bits(), one);
        let strict = tolerating(|tolerance| tolerance.broken_dependency = BrokenDependency::Refuse);
        let (feature, missing) = (protocol_features(one), protocol_features(missing));
        let expected = violation(16, Violation::ProtocolFeatureNeeds { feature, missing });
        assert_eq!(refused(&strict, &protocol(one), 0), expected);
    }
}

#[test]
fn a_status_has_eight_bits() {
    let back = Stage::usual().back();
    for found in [256, 0x10f, 1 << 32, u64::MAX] {
        let expected = violation(39, Violation::Status { found });
        assert_eq!(refused(&back, &flagged(39, 9, &found.to_ne_bytes()), 0), expected);
    }
    let mut back = back;
    say(&mut back, &flagged(39, 9, &255_u64.to_ne_bytes()), Vec::new());
    assert_eq!(back.session().status(), 255);
}

#[test]
fn an_inflight_record_covers_no_more_rings_than_there_are() {
    let back = Stage::usual().back();
    for found in [5, 256, u16::MAX] {
        let payload = Bytes::new().u64(0x1000).u64(0).u16(found).u16(256).padding(4).done();
        for (id, descriptors) in [(31, 0), (32, 1)] {
            let expected = violation(id, Violation::InflightQueues { found, rings: 4 });
            assert_eq!(refused(&back, &flagged(id, 9, &payload), descriptors), expected);
        }
    }
    let whole = Bytes::new().u64(0x1000).u64(0).u16(4).u16(256).padding(4).done();
    let ledger = Ledger::new();
    say(&mut back.clone(), &message(32, &whole), ledger.tokens(1));
    ledger.assert_settled();
}

#[test]
fn extents_of_files_do_not_wrap_around() {
    let back = Stage::usual().back();
    for (size, offset) in [(u64::MAX - 0xfff, 0x2000), (u64::MAX, 1), (1, u64::MAX), (1 << 63, 1 << 63)] {
        let log = Bytes::new().u64(size).u64(offset).done();
        let inflight = Bytes::new().u64(size).u64(offset).u16(1).u16(256).padding(4).done();
        for (id, payload, descriptors) in [(6, &log, 1), (31, &inflight, 0), (32, &inflight, 1)] {
            let expected = violation(id, Violation::ExtentWraps { size, offset });
            assert_eq!(refused(&back, &flagged(id, 9, payload), descriptors), expected);
        }
    }
}

#[test]
fn a_state_transfer_goes_one_of_two_ways_while_the_device_is_stopped() {
    let back = Stage::usual().back();
    for (direction, phase) in [(2, 0), (u32::MAX, 0), (0, 1), (1, 1), (0, u32::MAX)] {
        let payload = Bytes::new().u32(direction).u32(phase).done();
        let expected = violation(42, Violation::Transfer { direction, phase });
        assert_eq!(refused(&back, &flagged(42, 9, &payload), 1), expected);
    }
}

#[test]
fn postcopy_is_announced_before_it_listens() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().back();
    let listen = wire::frontend_request("POSTCOPY_LISTEN").request_needing_reply();
    let order = |state| violation(29, Violation::PostcopyOrder { state });
    assert_eq!(refused(&back, &listen, 0), order(Postcopy::Off));
    let advise = wire::frontend_request("POSTCOPY_ADVISE").request();
    drop(back.handle_request(crate::machines::frame(&advise, Vec::new())).unwrap());
    let reply = vhost_core::FrontendReply::PostcopyAdvise(Some(ledger.token()));
    drop(back.answer(reply, &mut crate::machines::buffer()).unwrap());
    say(&mut back, &listen, Vec::new());
    assert_eq!(refused(&back, &listen, 0), order(Postcopy::Listening));
    ledger.assert_settled();
}

#[test]
fn the_last_word_about_memory_in_postcopy_is_a_bad_table_at_any_other_time() {
    let back = Stage::usual().back();
    for (id, form) in [(5, "SET_MEM_TABLE"), (37, "ADD_MEM_REG")] {
        let last = if id == 5 { "postcopy, bases taken" } else { "postcopy, base taken" };
        let payload = wire::frontend_form(form, last).payload;
        let taken = back.clone().handle_request(crate::machines::frame(&message(id, &payload), Vec::new())).is_ok();
        // An empty table is a table; a region of eight bytes is none.
        assert_eq!(taken, id == 5);
    }
}

#[test]
fn nothing_is_asked_of_a_backend_that_was_not_negotiated() {
    // Each with the flag and REPLY_ACK, so that the refusal can be told.
    let back = Stage::with(feature::REPLY_ACK).back();
    for fixture in wire::all_frontend_requests() {
        let gate = vhost_core::FrontendCode(fixture.id).row().unwrap().gate;
        let is_open = gate.protocol().is_empty() && gate.virtio().is_empty() || fixture.name == "GET_QUEUE_NUM";
        if !is_open {
            let expected = violation(fixture.id, Violation::NotNegotiated { gate });
            assert_eq!(refused(&back, &fixture.request_needing_reply(), fixture.descriptors), expected);
        }
    }
}
