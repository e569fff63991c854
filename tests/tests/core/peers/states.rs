//! Rows S15 to S27, S35 to S39, S50 and S52: features, resets and whatever comes at another time than expected.

use super::{answer, done};
use crate::bad_input::{assert_works, refused, violation};
use crate::machines::{Back, Reaction, back, buffer, frame, front, offering, pour, protocol_features, virtio_features};
use crate::stage::{PROTOCOL_OFFERED, Rings, Stage, flagged, message, say, state};
use vhost_core::wire::vring::VringArea;
use vhost_core::{
    ApiMisuse, Assembler, BackendCode, BackendReply, BackendRequest, Channel, Delivery, FrontendReply, FrontendRequest,
    Incoming, UnofferedFeatures, Violation,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, Bytes, REPLY, feature};

fn features(back: &mut Back, bits: u64) {
    done(back, 2, 1, &bits.to_ne_bytes(), 0);
}

#[test]
fn s15_the_same_features_come_again_while_rings_run() {
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    let before = back.clone();
    for _ in 0..3 {
        features(&mut back, feature::ACKNOWLEDGED);
    }
    assert_eq!(back, before);
    // Logging comes and goes; nothing else does.
    features(&mut back, feature::ACKNOWLEDGED | feature::LOG_ALL);
    features(&mut back, feature::ACKNOWLEDGED);
    assert_eq!(back, before);
    let changed = virtio_features(feature::EVENT_INDEX);
    let request = flagged(2, 9, &(feature::ACKNOWLEDGED & !feature::EVENT_INDEX).to_ne_bytes());
    assert_eq!(refused(&back, &request, 0), violation(2, Violation::FeaturesWhileRunning { changed }));
}

#[test]
fn s16_features_that_were_not_offered_are_refused_but_for_bit_40() {
    let ring_reset = 1 << 40;
    let mut back = Stage::usual().back();
    features(&mut back, feature::ACKNOWLEDGED | ring_reset);
    assert_eq!(back.session().negotiated().acknowledged.bits(), feature::ACKNOWLEDGED);
    // vhost-device-scsi and bit 2: refusing kills the device, masking does not.
    let excess = virtio_features(1 << 2);
    let request = flagged(2, 9, &(feature::ACKNOWLEDGED | 1 << 2).to_ne_bytes());
    assert_eq!(refused(&back, &request, 0), violation(2, Violation::FeaturesNotOffered { excess }));
    let mut config = offering(feature::OFFERED, PROTOCOL_OFFERED);
    config.tolerance.unoffered_features = UnofferedFeatures::Mask;
    let mut masking = Back::new(config);
    features(&mut masking, feature::ACKNOWLEDGED | 1 << 2);
    assert_eq!(masking.session().negotiated().acknowledged.bits(), feature::ACKNOWLEDGED);
    // Our front-end passes nothing through.
    let mut front = Stage::usual().front();
    let request = FrontendRequest::<Token>::SetFeatures(virtio_features(feature::ACKNOWLEDGED | ring_reset));
    assert!(front.request(request, Delivery::Acknowledged, &mut buffer()).is_err());
}

#[test]
fn s17_protocol_features_come_again_and_unasked() {
    // QEMU: once a queue pair. Cloud Hypervisor: without asking, after a reconnection.
    let mut asked = back(feature::OFFERED, PROTOCOL_OFFERED);
    for _ in 0..3 {
        done(&mut asked, 15, 1, &[], 0);
        done(&mut asked, 16, 1, &feature::REPLY_ACK.to_ne_bytes(), 0);
    }
    let mut unasked = back(feature::OFFERED, PROTOCOL_OFFERED);
    done(&mut unasked, 16, 1, &feature::REPLY_ACK.to_ne_bytes(), 0);
    assert_eq!(asked, unasked);
    // Our front-end does so if it was told the offer.
    let mut front = front();
    let request = || FrontendRequest::<Token>::SetProtocolFeatures(protocol_features(feature::REPLY_ACK));
    assert!(front.request(request(), Delivery::Unacknowledged, &mut buffer()).is_err());
    front.assume_offer(virtio_features(feature::OFFERED), protocol_features(PROTOCOL_OFFERED));
    drop(front.request(request(), Delivery::Unacknowledged, &mut buffer()).unwrap());
}

#[test]
fn s18_protocol_features_that_were_not_offered_are_refused() {
    let mut back = back(feature::OFFERED, feature::REPLY_ACK | feature::MQ);
    done(&mut back, 16, 1, &feature::REPLY_ACK.to_ne_bytes(), 0);
    for bit in [feature::CONFIG, feature::XEN_MMAP, 1 << 23, 1 << 63] {
        let excess = protocol_features(bit);
        let request = flagged(16, 9, &(feature::REPLY_ACK | bit).to_ne_bytes());
        assert_eq!(refused(&back, &request, 0), violation(16, Violation::ProtocolFeaturesNotOffered { excess }));
    }
}

#[test]
fn s19_only_what_was_configured_is_offered() {
    // QEMU acknowledges XEN_MMAP if it is offered, and has no code for it.
    for protocol in [feature::MQ, PROTOCOL_OFFERED & !feature::XEN_MMAP, PROTOCOL_OFFERED] {
        let mut back = back(feature::OFFERED, protocol);
        assert_eq!(done(&mut back, 15, 1, &[], 0), Some(flagged(15, REPLY, &protocol.to_ne_bytes())));
    }
    // Bit 30 is offered if and only if there is something behind it.
    for (protocol, bit) in [(0, 0), (feature::MQ, feature::PROTOCOL_FEATURES)] {
        let mut back = back(feature::VERSION_1 | feature::PROTOCOL_FEATURES, protocol);
        let offered = feature::VERSION_1 | bit;
        assert_eq!(done(&mut back, 1, 1, &[], 0), Some(flagged(1, REPLY, &offered.to_ne_bytes())));
    }
}

#[test]
fn s20_the_owner_comes_first_late_again_or_never() {
    let mut back = back(feature::OFFERED, PROTOCOL_OFFERED);
    features(&mut back, feature::ACKNOWLEDGED);
    done(&mut back, 8, 1, &state(0, 256), 0);
    let before = back.clone();
    for _ in 0..3 {
        done(&mut back, 3, 1, &[], 0);
    }
    assert_eq!(back, before);
}

#[test]
fn s21_what_was_not_negotiated_is_neither_sent_nor_done() {
    let back = Stage::with(feature::REPLY_ACK).back();
    let front = Stage::with(feature::REPLY_ACK).front();
    for name in ["SET_STATUS", "SET_INFLIGHT_FD", "SET_CONFIG", "RESET_DEVICE", "SET_DEVICE_STATE_FD"] {
        let fixture = wire::frontend_request(name);
        refused(&back, &fixture.request_needing_reply(), fixture.descriptors);
        let (bytes, ledger) = (fixture.request(), Ledger::new());
        let form = vhost_core::Form::request(protocol_features(0));
        let request = FrontendRequest::decode(frame(&bytes, ledger.tokens(fixture.descriptors)), form).unwrap();
        let misuse = front.clone().request(request, Delivery::Acknowledged, &mut buffer()).map(drop);
        assert!(
            matches!(misuse, Err(ApiMisuse::Violation { violation: Violation::NotNegotiated { .. }, .. })),
            "{name}"
        );
        ledger.assert_settled();
    }
}

#[test]
fn s22_the_number_of_queues_is_told_without_mq() {
    let mut config = offering(feature::OFFERED, 0);
    config.queue_num = 7;
    let mut back = Back::new(config);
    assert_eq!(done(&mut back, 17, 1, &[], 0), Some(flagged(17, REPLY, &7_u64.to_ne_bytes())));
}

#[test]
fn s23_a_reset_keeps_what_is_not_sent_again() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().back();
    // Before anything else, more than once (QEMU), and without an acknowledgement.
    for _ in 0..2 {
        assert_eq!(done(&mut back, 34, 1, &[], 0), None);
    }
    features(&mut back, feature::ACKNOWLEDGED);
    say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
    say(&mut back, &wire::frontend_request("ADD_MEM_REG").request(), ledger.tokens(1));
    answer(&mut back, &wire::frontend_request("SET_LOG_BASE").request(), ledger.tokens(1), None);
    done(&mut back, 39, 1, &0xf_u64.to_ne_bytes(), 0);
    say(&mut back, &wire::frontend_request("SET_VRING_NUM").request(), Vec::new());
    say(&mut back, &wire::frontend_request("SET_VRING_KICK").request(), ledger.tokens(1));
    done(&mut back, 18, 1, &state(1, 1), 0);
    let before = back.session().clone();
    assert!(before.is_running());
    assert_eq!(done(&mut back, 34, 1, &[], 0), None);
    let after = back.session();
    assert_eq!(after.memory(), before.memory());
    assert_eq!((after.log(), after.has_backend_channel()), (before.log(), true));
    assert_eq!(after.negotiated().protocol, before.negotiated().protocol);
    assert!(after.rings().iter().all(|ring| *ring == vhost_core::Vring::default()));
    assert!(after.negotiated().acknowledged.is_empty());
    assert_eq!(after.status(), 0);
    // QEMU's network front-end enables its rings again before it acknowledges features.
    done(&mut back, 18, 1, &state(1, 1), 0);
    ledger.assert_settled();
}

#[test]
fn s24_a_reset_that_was_not_negotiated_is_refused() {
    let gate = vhost_core::FrontendCode::RESET_DEVICE.row().unwrap().gate;
    let back = Stage::with(feature::REPLY_ACK).back();
    assert_eq!(refused(&back, &flagged(34, 9, &[]), 0), violation(34, Violation::NotNegotiated { gate }));
}

#[test]
fn s25_resetting_the_owner_disables_all_rings() {
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    let acknowledgement = done(&mut back, 4, 9, &[], 0);
    assert_eq!(acknowledgement, Some(flagged(4, REPLY, &[0; 8])));
    assert!(back.session().rings().iter().all(|ring| ring.is_started() && !ring.is_enabled()));
    assert_eq!(back.session().negotiated().acknowledged.bits(), feature::ACKNOWLEDGED);
}

#[test]
fn s26_a_status_is_remembered_and_zero_resets() {
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    // QEMU: 8, then 0xf. DPDK: 0xb, then 0xf. Nothing in between is waited for, nothing refused.
    for status in [8_u64, 0xb, 0xf, 0x4f] {
        done(&mut back, 39, 1, &status.to_ne_bytes(), 0);
        assert_eq!(done(&mut back, 40, 1, &[], 0), Some(flagged(40, REPLY, &status.to_ne_bytes())));
        assert!(back.session().is_running());
    }
    done(&mut back, 39, 1, &[0; 8], 0);
    assert_eq!(done(&mut back, 40, 1, &[], 0), Some(flagged(40, REPLY, &[0; 8])));
    assert!(back.session().is_suspended() && back.session().negotiated().acknowledged.is_empty());
}

#[test]
fn s27_an_inflight_record_comes_before_rings_and_unasked() {
    let ledger = Ledger::new();
    let set = wire::frontend_request("SET_INFLIGHT_FD");
    // QEMU before any ring, Cloud Hypervisor after their sizes, a reconnected QEMU without asking for one.
    let mut back = Stage::usual().back();
    say(&mut back, &set.request(), ledger.tokens(1));
    done(&mut back, 8, 1, &state(0, 256), 0);
    say(&mut back, &set.request(), ledger.tokens(1));
    for rings in Rings::ALL {
        let mut back = Stage::usual().rings(rings).back();
        if rings == Rings::RUNNING {
            let expected = violation(32, Violation::RingRunning { ring: 0 });
            assert_eq!(refused(&back, &set.request_needing_reply(), 1), expected);
        } else {
            say(&mut back, &set.request(), ledger.tokens(1));
        }
    }
    ledger.assert_settled();
}

#[test]
fn s35_neither_channel_waits_for_the_other() {
    let ledger = Ledger::new();
    let stage = Stage::usual();
    let (mut front, mut back) = (stage.front(), stage.back());
    let open = FrontendRequest::SetBackendReqFd(ledger.token());
    drop(front.request(open, Delivery::Unacknowledged, &mut buffer()).unwrap());
    say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
    // The back-end tells of a change; QEMU asks for the configuration before it acknowledges that.
    let change = BackendRequest::<Token>::ConfigChangeMsg;
    drop(back.request(change, Delivery::Acknowledged, &mut buffer()).unwrap());
    let change = wire::backend_request("CONFIG_CHANGE_MSG");
    drop(front.handle_request::<Token>(frame(&change.request_needing_reply(), Vec::new())).unwrap());
    let get = wire::frontend_request("GET_STATUS");
    let mut out = buffer();
    let asked = front.request(FrontendRequest::<Token>::GetStatus, Delivery::Acknowledged, &mut out).unwrap();
    let Reaction::Sent(mut packet) = answer(&mut back, asked.bytes, Vec::new(), None) else { panic!() };
    assert_eq!(asked.bytes, get.request());
    assert_eq!(front.handle_reply(packet.frame()), Ok(FrontendReply::GetStatus(0)));
    drop(front.answer_backend::<Token>(BackendReply::Done, &mut buffer()).unwrap());
    let acknowledgement = change.acknowledgement(0);
    assert_eq!(back.handle_reply::<Token>(frame(&acknowledgement, Vec::new())), Ok(BackendReply::Done));
    ledger.assert_settled();
}

#[test]
fn s36_the_channel_of_the_backend_comes_early_late_or_again() {
    let ledger = Ledger::new();
    let channel = wire::frontend_request("SET_BACKEND_REQ_FD").request();
    let change = || BackendRequest::<Token>::ConfigChangeMsg;
    for rings in [Rings::NEW, Rings::RUNNING] {
        let mut back = Stage::usual().rings(rings).back();
        let message = BackendCode::CONFIG_CHANGE_MSG.message();
        let too_early = back.request(change(), Delivery::Unacknowledged, &mut buffer()).map(drop);
        assert_eq!(too_early, Err(ApiMisuse::Violation { message, violation: Violation::NoBackendChannel }));
        for _ in 0..3 {
            say(&mut back, &channel, ledger.tokens(1));
            drop(back.request(change(), Delivery::Unacknowledged, &mut buffer()).unwrap());
        }
    }
    ledger.assert_settled();
}

#[test]
fn s37_a_host_notifier_is_taken_away_with_a_bit() {
    let ledger = Ledger::new();
    let mut front = Stage::with(feature::HOST_NOTIFIER).front();
    for (bits, descriptors) in [(1_u64, 1), (0x101, 0)] {
        let request = message(3, &Bytes::new().u64(bits).u64(0x1000).u64(0).done());
        let taken = front.handle_request(frame(&request, ledger.tokens(descriptors))).unwrap();
        let BackendRequest::VringHostNotifierMsg(area, handle) = taken else { panic!() };
        assert_eq!(area, VringArea::new(bits, 0x1000, 0));
        assert_eq!((area.target().index(), handle.is_some()), (1, descriptors == 1));
        drop(front.answer_backend::<Token>(BackendReply::Done, &mut buffer()).unwrap());
    }
    ledger.assert_settled();
}

#[test]
fn s38_an_announcement_comes_before_features_and_rings() {
    let rarp = wire::frontend_request("SEND_RARP");
    let mut back = back(feature::OFFERED, PROTOCOL_OFFERED);
    done(&mut back, 16, 1, &feature::RARP.to_ne_bytes(), 0);
    for _ in 0..5 {
        assert_eq!(done(&mut back, 19, 1, &rarp.payload, 0), None);
    }
}

#[test]
fn s39_the_mtu_comes_before_features() {
    let mtu = wire::frontend_request("NET_SET_MTU");
    let mut back = back(feature::OFFERED, PROTOCOL_OFFERED);
    done(&mut back, 16, 1, &(feature::MTU | feature::REPLY_ACK).to_ne_bytes(), 0);
    assert_eq!(done(&mut back, 20, 9, &mtu.payload, 0), Some(mtu.acknowledgement(0)));
}

#[test]
fn s50_a_connection_ends_at_any_byte_and_loses_nothing() {
    for fixture in wire::all_frontend_forms() {
        let bytes = fixture.request();
        let ledger = Ledger::new();
        for end in 0..=bytes.len().min(300) {
            let mut assembler = Assembler::<Token>::new(Channel::Frontend);
            let tokens = if end == 0 { Vec::new() } else { ledger.tokens(fixture.descriptors) };
            let taken = pour(&mut assembler, &bytes[..end], tokens, &[]).unwrap().is_some();
            // The end is clean between two messages only.
            assert_eq!(taken, end == bytes.len());
            assert_eq!(assembler.is_between_messages(), end == 0 || taken);
            drop(assembler);
            ledger.assert_settled();
        }
    }
    // Between a request and its answer too; the next connection has a machine of its own.
    let ledger = Ledger::new();
    let mut gone = Stage::usual().back();
    let table = wire::frontend_request("SET_MEM_TABLE").request();
    let Ok(Incoming::Request(request)) = gone.handle_request(frame(&table, ledger.tokens(2))) else { panic!() };
    drop(gone);
    drop(request);
    ledger.assert_settled();
    assert_works(&mut Stage::usual().back());
}

#[test]
fn s52_the_byte_order_of_a_ring_is_taken_between_base_and_address() {
    let mut back = Stage::usual().back();
    for (id, number) in [(8, 256), (10, 0), (23, 1), (23, 0)] {
        done(&mut back, id, 1, &state(1, number), 0);
    }
    say(&mut back, &wire::frontend_request("SET_VRING_ADDR").request(), Vec::new());
}
