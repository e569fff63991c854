//! Rows S1 to S12 and S28 to S34: rings and their descriptors.

use super::{answer, done};
use crate::bad_input::{closes, refused, violation};
use crate::machines::{Back, Packet, Reaction, back, buffer, frame};
use crate::stage::{PROTOCOL_OFFERED, Rings, Stage, flagged, message, say, state};
use vhost_core::wire::vring::{VringBase, VringState};
use vhost_core::{BackendRequest, Delivery, FrontendReply, FrontendRequest, Incoming, Violation};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, REPLY, feature};

/// A ring's start and enable bits.
fn bits(back: &Back, ring: usize) -> (bool, bool) {
    let ring = back.session().ring(ring).unwrap();
    (ring.is_started(), ring.is_enabled())
}

#[test]
fn s1_a_ring_is_enabled_before_features_are_acknowledged() {
    // QEMU's network front-end: several times, right after the protocol features.
    for opening in [message(15, &[]), message(16, &feature::REPLY_ACK.to_ne_bytes())] {
        let mut back = back(feature::OFFERED, PROTOCOL_OFFERED);
        answer(&mut back, &opening, Vec::new(), None);
        for _ in 0..5 {
            assert_eq!(done(&mut back, 18, 1, &state(1, 1), 0), None);
        }
        assert_eq!(bits(&back, 1), (false, true));
        // And the first features do not disable it.
        done(&mut back, 2, 1, &feature::ACKNOWLEDGED.to_ne_bytes(), 0);
        assert_eq!(bits(&back, 1), (false, true));
    }
    // Or protocol features were never asked for, but bit 30 was acknowledged.
    let mut acknowledged = back(feature::OFFERED, PROTOCOL_OFFERED);
    done(&mut acknowledged, 2, 1, &feature::PROTOCOL_FEATURES.to_ne_bytes(), 0);
    done(&mut acknowledged, 18, 1, &state(1, 1), 0);
    // But not out of nothing, and not where there are no protocol features.
    let gate = vhost_core::FrontendCode::SET_VRING_ENABLE.row().unwrap().gate;
    let closed = violation(18, Violation::NotNegotiated { gate });
    assert_eq!(refused(&back(feature::OFFERED, PROTOCOL_OFFERED), &message(18, &state(1, 1)), 0), closed);
    assert_eq!(refused(&back(feature::VERSION_1, 0), &message(18, &state(1, 1)), 0), closed);
}

#[test]
fn s2_a_ring_is_enabled_before_it_is_set_up() {
    let mut back = Stage::usual().back();
    for _ in 0..3 {
        done(&mut back, 18, 1, &state(2, 1), 0);
    }
    let ring = back.session().ring(2).unwrap();
    assert!(ring.is_enabled() && !ring.is_running() && ring.size().is_none() && !ring.has_addresses());
    assert!(back.session().is_suspended());
    done(&mut back, 12, 1, &0x102_u64.to_ne_bytes(), 0);
    assert!(back.session().ring(2).unwrap().is_running());
}

#[test]
fn s3_features_without_bit_30_enable_all_rings() {
    // QEMU before 7.2 negotiates protocol features and acknowledges without the bit.
    let mut back = Stage::usual().back();
    done(&mut back, 2, 1, &(feature::ACKNOWLEDGED & !feature::PROTOCOL_FEATURES).to_ne_bytes(), 0);
    assert!(back.session().rings().iter().all(|ring| ring.is_enabled()));
    // Those that are started later too.
    done(&mut back, 12, 1, &0x103_u64.to_ne_bytes(), 0);
    assert!(back.session().ring(3).unwrap().is_running());
    // With the bit nothing is disabled.
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    done(&mut back, 2, 1, &feature::ACKNOWLEDGED.to_ne_bytes(), 0);
    assert!(back.session().rings().iter().all(|ring| ring.is_running()));
}

#[test]
fn s4_a_kick_descriptor_leaves_a_ring_enabled() {
    for rings in Rings::ALL {
        let mut back = Stage::usual().rings(rings).back();
        done(&mut back, 12, 1, &1_u64.to_ne_bytes(), 1);
        assert_eq!(bits(&back, 1), (true, rings.enabled));
    }
}

#[test]
fn s5_a_ring_is_stopped_without_being_disabled() {
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    let base = FrontendReply::GetVringBase(VringState::new(1, 5));
    answer(&mut back, &message(11, &state(1, 0)), Vec::new(), Some(base));
    assert_eq!(bits(&back, 1), (false, true));
    assert!(!back.session().is_suspended(), "the others run");
}

#[test]
fn s6_a_ring_is_disabled_without_being_stopped() {
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    done(&mut back, 18, 1, &state(1, 0), 0);
    assert_eq!(bits(&back, 1), (true, false));
    assert!(!back.session().is_suspended());
    // libkrun sets it up anew like that.
    for (id, number) in [(8, 128), (10, 0)] {
        done(&mut back, id, 1, &state(1, number), 0);
    }
    done(&mut back, 18, 1, &state(1, 1), 0);
    assert!(back.session().ring(1).unwrap().is_running());
}

#[test]
fn s7_an_idle_ring_is_stopped_and_a_missing_one_ends_the_session() {
    let mut back = Stage::usual().back();
    let base = FrontendReply::GetVringBase(VringState::new(1, 0));
    let Reaction::Sent(packet) = answer(&mut back, &message(11, &state(1, 0)), Vec::new(), Some(base)) else {
        panic!()
    };
    assert_eq!(packet.bytes, flagged(11, REPLY, &state(1, 0)));
    // There is no reply that tells it.
    let fault = refused(&back, &message(11, &state(4, 0)), 0);
    assert_eq!(fault, violation(11, Violation::RingIndex { found: 4, rings: 4 }));
}

#[test]
fn s8_the_number_means_nothing_where_a_ring_is_stopped() {
    for number in [0, 1, 0xdead_beef, u32::MAX] {
        let mut back = Stage::usual().rings(Rings::RUNNING).back();
        let base = FrontendReply::GetVringBase(VringState::new(0, 7));
        assert!(matches!(
            answer(&mut back, &message(11, &state(0, number)), Vec::new(), Some(base)),
            Reaction::Sent(_)
        ));
        assert_eq!(bits(&back, 0), (false, true));
        // In-band kicks have it too.
        done(&mut back, 35, 1, &state(0, number), 0);
        assert_eq!(bits(&back, 0), (true, true));
    }
}

#[test]
fn s9_half_a_base_of_a_packed_ring_is_a_whole_one() {
    let packed =
        |available, available_wrap, used, used_wrap| VringBase::Packed { available, available_wrap, used, used_wrap };
    // QEMU, VPP, OpenVMM send both halves.
    assert_eq!(VringBase::packed(0x8000_8000), packed(0, true, 0, true));
    assert_eq!(VringBase::packed(0x8045_807b), packed(0x7b, true, 0x45, true));
    assert_eq!(VringBase::packed(0x0045_807b), packed(0x7b, true, 0x45, false));
    // DPDK sends one: nothing is in flight.
    assert_eq!(VringBase::packed(0x8000), packed(0, true, 0, true));
    assert_eq!(VringBase::packed(0x0012), packed(0x12, false, 0x12, false));
    assert_eq!(VringBase::packed(0), packed(0, false, 0, false));
    for number in [0, 0x8000_8000, 0x8045_807b, 0x1234_5678] {
        assert_eq!(VringBase::packed(number).to_num(), number);
    }
}

#[test]
fn s11_a_base_may_be_beyond_the_size_of_its_ring() {
    let mut back = Stage::usual().back();
    done(&mut back, 8, 1, &state(1, 256), 0);
    for base in [256, 257, 0x7fff, 0xffff] {
        done(&mut back, 10, 1, &state(1, base), 0);
        assert_eq!(VringBase::split(base).to_num(), base);
    }
}

#[test]
fn s12_a_ring_is_set_up_in_any_order() {
    // NUM, BASE, ADDR, KICK, CALL and ENABLE in all 720 orders; front-ends use at least six of them.
    let requests = ["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK", "SET_VRING_CALL"];
    let mut requests = Vec::from(requests.map(wire::frontend_request));
    let mut enable = wire::frontend_request("SET_VRING_ENABLE");
    enable.payload = state(1, 1);
    requests.push(enable);
    let ledger = Ledger::new();
    let mut orders = Vec::new();
    permute(&mut Vec::from_iter(0..requests.len()), 0, &mut orders);
    assert_eq!(orders.len(), 720);
    let mut ends = Vec::new();
    for order in orders {
        let mut back = Stage::usual().back();
        // A ring that runs keeps its size and base: those who start it first set it up first.
        let position = |name: &str| order.iter().position(|&one| requests[one].name == name).unwrap();
        let runs = position("SET_VRING_KICK").max(position("SET_VRING_ENABLE"));
        if position("SET_VRING_NUM").max(position("SET_VRING_BASE")) > runs {
            continue;
        }
        for one in &order {
            say(&mut back, &requests[*one].request(), ledger.tokens(requests[*one].descriptors));
        }
        ends.push(back.session().clone());
    }
    assert!(ends.len() > 200, "{}", ends.len());
    assert!(ends.iter().all(|end| *end == ends[0]));
    let ring = ends[0].ring(1).unwrap();
    assert!(ring.is_running() && ring.has_addresses() && ring.size() == Some(256));
    ledger.assert_settled();
}

fn permute(order: &mut Vec<usize>, from: usize, all: &mut Vec<Vec<usize>>) {
    if from == order.len() {
        return all.push(order.clone());
    }
    for other in from..order.len() {
        order.swap(from, other);
        permute(order, from + 1, all);
        order.swap(from, other);
    }
}

#[test]
fn s28_no_descriptor_means_polling_or_no_interrupts() {
    let mut back = Stage::usual().back();
    for (id, starts) in [(13, false), (14, false), (12, true)] {
        done(&mut back, id, 1, &0x101_u64.to_ne_bytes(), 0);
        assert_eq!(bits(&back, 1).0, starts, "polling counts as started");
    }
    // With in-band notifications it means messages; the session is the same.
    let mut back = Stage::with(feature::INBAND_NOTIFICATIONS).back();
    done(&mut back, 12, 1, &0x101_u64.to_ne_bytes(), 0);
    done(&mut back, 35, 1, &state(2, 0), 0);
    assert_eq!((bits(&back, 1).0, bits(&back, 2).0), (true, true));
}

#[test]
fn s29_neither_descriptor_nor_word_of_none_is_refused() {
    let back = Stage::usual().back();
    for id in [12, 13, 14] {
        let fault = refused(&back, &flagged(id, 9, &1_u64.to_ne_bytes()), 0);
        assert!(fault.to_string().ends_with("expected 1 descriptors, found 0"), "{fault}");
    }
}

#[test]
fn s30_descriptors_are_replaced_while_a_ring_runs() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    let before = back.clone();
    for id in [12, 13, 14] {
        for (payload, descriptors) in [(1_u64, 1), (0x101, 0), (1, 1)] {
            let request = message(id, &payload.to_ne_bytes());
            let Ok(Incoming::Request(taken)) = back.handle_request(frame(&request, ledger.tokens(descriptors))) else {
                panic!()
            };
            // Each is handed on to the device, which closes the one before.
            let handle = match taken {
                FrontendRequest::SetVringKick(_, handle)
                | FrontendRequest::SetVringCall(_, handle)
                | FrontendRequest::SetVringErr(_, handle) => handle,
                other => panic!("{other:?}"),
            };
            assert_eq!(handle.is_some(), descriptors == 1);
            drop(back.answer::<Token>(FrontendReply::Done, &mut buffer()).unwrap());
        }
    }
    assert_eq!(back, before);
    ledger.assert_settled();
}

#[test]
fn s33_in_band_notifications_need_no_answer() {
    let ledger = Ledger::new();
    let stage = Stage::with(feature::INBAND_NOTIFICATIONS).rings(Rings::RUNNING);
    let mut back = stage.back();
    say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
    let call = || BackendRequest::<Token>::VringCall(VringState::new(1, 0));
    // Even while a request of the front-end waits for its answer.
    let stop = message(11, &state(1, 0));
    assert!(back.handle_request::<Token>(frame(&stop, Vec::new())).is_ok());
    for (delivery, flags, outstanding) in [(Delivery::Unacknowledged, 1, 0), (Delivery::Acknowledged, 9, 1)] {
        let packet = Packet::from_transmit(back.request(call(), delivery, &mut buffer()).unwrap());
        assert_eq!(packet.bytes, flagged(4, flags, &state(1, 0)));
        assert_eq!(back.outstanding(), outstanding);
    }
    // Without the feature they are not sent, and end nothing when they come.
    let front = Stage::with(feature::BACKEND_REQ | feature::REPLY_ACK).front();
    crate::bad_input::refused_by_front(&front, &flagged(4, 9, &state(1, 0)), 0);
    refused(&Stage::with(feature::REPLY_ACK).back(), &flagged(35, 9, &state(1, 0)), 0);
    // And not without what they need.
    let alone = message(16, &feature::INBAND_NOTIFICATIONS.to_ne_bytes());
    closes(&Stage::usual().back(), &alone, 0);
    ledger.assert_settled();
}

#[test]
fn s34_an_error_descriptor_is_always_taken() {
    for rings in Rings::ALL {
        let mut back = Stage::with(0).rings(rings).back();
        let before = back.clone();
        done(&mut back, 14, 1, &1_u64.to_ne_bytes(), 1);
        assert_eq!(back, before);
    }
}
