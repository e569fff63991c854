//! What a connection agrees on, how requests are answered, and the device's configuration space.

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_core::{Tolerance, UnofferedFeatures};
use vhost_std::server::BackendServer;
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring};
use vhost_tests::wire::{self, Bytes, REQUEST, REQUEST_NEEDING_REPLY, Reply, feature};

use crate::support::{Bench, Dialog, EVERYTHING, OFFER, id, message, number, server, state, tolerant};

/// Bits of a disk: SEG_MAX, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, DISCARD, WRITE_ZEROES; of rings and of the protocol.
const OFFERED: u64 = 0x6e44
    | feature::LOG_ALL
    | feature::INDIRECT_DESCRIPTORS
    | feature::EVENT_INDEX
    | feature::PROTOCOL_FEATURES
    | feature::VERSION_1
    | feature::IOMMU_PLATFORM
    | PACKED;
/// Packed rings.
const PACKED: u64 = 1 << 34;
const PROTOCOL_OFFERED: u64 = feature::MQ
    | feature::LOG_SHMFD
    | feature::REPLY_ACK
    | feature::BACKEND_REQ
    | feature::CONFIG
    | feature::RESET_DEVICE
    | feature::INFLIGHT_SHMFD
    | feature::CONFIGURE_MEM_SLOTS
    | feature::STATUS
    | feature::GPA_ADDRESSES;

#[test]
fn s19_what_is_offered_works_and_nothing_else_is_offered() {
    let mut server = server(1);
    let mut bench = Bench::new(&mut server);
    assert_eq!(bench.ask_number("GET_FEATURES"), OFFERED);
    assert_eq!(bench.ask_number("GET_PROTOCOL_FEATURES"), PROTOCOL_OFFERED);
    assert_eq!(PROTOCOL_OFFERED & feature::XEN_MMAP, 0, "QEMU takes it wherever it is offered");
    bench.negotiate(u64::MAX, u64::MAX);
    assert_eq!(bench.ask_number("GET_QUEUE_NUM"), 1);
}

#[test]
fn r4_a_refusal_is_acknowledged_with_1_and_the_connection_goes_on() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    for round in 1..=10 {
        assert_eq!(bench.acknowledged("SET_VRING_NUM", &state(0, 3), &[]), 1);
        assert_eq!(bench.connection().refusals().0, round);
        ring.request(0, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
    }
}

#[test]
fn a_refusal_that_was_not_asked_for_is_silent_and_counted() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    bench.request("SET_VRING_NUM", &state(0, 3), &[]);
    bench.barrier();
    let (count, reason) = bench.connection().refusals();
    assert_eq!(count, 1);
    assert!(reason.unwrap().starts_with("SET_VRING_NUM (8): ring 0: expected a size"), "{reason:?}");
}

/// Requests that have a reply of their own have one reply, with the flag or without it.
#[test]
fn r1_every_request_has_one_reply_at_most() {
    let mut server = server(2);
    for fixture in wire::all_frontend_requests() {
        for flags in [REQUEST, REQUEST_NEEDING_REPLY] {
            let mut bench = Bench::negotiated(&mut server);
            let descriptors = vhost_tests::dialog::descriptors_for(&fixture);
            let borrowed = vhost_tests::dialog::borrowed(&descriptors);
            // A reply that cannot say no ends the connection.
            let Ok(reply) = bench.try_send(&fixture.message(flags), &borrowed) else { continue };
            let is_wanted = flags == REQUEST_NEEDING_REPLY || matches!(fixture.reply, Reply::Own(_));
            if fixture.name != "SET_LOG_BASE" {
                assert_eq!(reply.is_some(), is_wanted, "{} with flags {flags}", fixture.name);
            }
            assert!(!bench.has_reply(), "{}: a second reply", fixture.name);
            bench.barrier();
        }
    }
}

#[test]
fn r6_before_acknowledgements_are_negotiated_nobody_gets_one() {
    let mut server = server(1);
    let mut bench = Bench::new(&mut server);
    bench.say(&message("SET_OWNER", REQUEST_NEEDING_REPLY, &[]), &[]);
    assert!(!bench.has_reply());
    bench.ask_number("GET_PROTOCOL_FEATURES");
    // The flag on the very message that negotiates them counts.
    bench.grant("SET_PROTOCOL_FEATURES", &number(feature::REPLY_ACK), &[]);
}

#[test]
fn r8_requests_are_served_in_order() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    for round in 0..200 {
        let enable = message("SET_VRING_ENABLE", REQUEST, &state(0, round % 2));
        let barrier = message("GET_FEATURES", REQUEST, &[]);
        bench.say(&[enable, barrier].concat(), &[]);
        bench.frontend().receive_reply(id("GET_FEATURES"));
        assert_eq!(bench.connection().session().ring(0).unwrap().is_enabled(), round % 2 == 1);
    }
}

#[test]
fn r9_the_features_are_told_as_often_as_somebody_asks() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    // More than are served at once, in one piece.
    let many = message("GET_FEATURES", REQUEST, &[]).repeat(2000);
    bench.frontend().send(&many, &[]);
    for _ in 0..2000 {
        while !bench.has_reply() {
            let _ = bench.process();
        }
        assert_eq!(bench.frontend().receive_reply(id("GET_FEATURES")).number(), OFFERED);
    }
    ring.request(0, Command::Flush, 0);
    ring.kick();
    assert_eq!(bench.wait_used(&mut ring), (0, 1));
}

#[test]
fn s16_features_that_were_not_offered_are_refused_or_masked() {
    let unoffered = 1 << 36 | 1 << 35;
    let mut strict = server(1);
    let mut bench = Bench::negotiated(&mut strict);
    let reason = bench.refused("SET_FEATURES", &number(OFFER | unoffered), &[]);
    assert_eq!(reason, "SET_FEATURES (2): features 0x1800000000 were not offered");
    // QEMU's vhost-user-gpu passes this one on, whatever is offered.
    bench.grant("SET_FEATURES", &number(OFFER | 1 << 40), &[]);
    assert_eq!(bench.connection().session().negotiated().acknowledged.bits(), OFFER);

    let mut tolerance = Tolerance::new();
    tolerance.unoffered_features = UnofferedFeatures::Mask;
    let mut kind = tolerant(tolerance);
    let mut bench = Bench::negotiated(&mut kind);
    bench.grant("SET_FEATURES", &number(OFFER | unoffered), &[]);
    assert_eq!(bench.connection().session().negotiated().acknowledged.bits(), OFFER);
}

#[test]
fn s17_protocol_features_are_set_again_and_without_having_been_asked_for() {
    let mut server = server(1);
    let mut bench = Bench::new(&mut server);
    for _ in 0..4 {
        bench.grant("SET_PROTOCOL_FEATURES", &number(PROTOCOL_OFFERED), &[]);
    }
    assert_eq!(bench.ask_number("GET_QUEUE_NUM"), 1);
}

#[test]
fn s18_protocol_features_that_were_not_offered_are_refused() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    for unoffered in [feature::XEN_MMAP, feature::GET_VRING_BASE_INFLIGHT, 1 << 23, 1 << 63] {
        let reason = bench.refused("SET_PROTOCOL_FEATURES", &number(feature::REPLY_ACK | unoffered), &[]);
        assert!(reason.starts_with("SET_PROTOCOL_FEATURES (16): protocol features "), "{reason}");
        assert_eq!(bench.connection().session().negotiated().protocol.bits(), PROTOCOL_OFFERED & EVERYTHING);
    }
}

#[test]
fn s20_the_owner_is_set_late_or_twice_or_never() {
    let mut server = server(1);
    let memory = Arc::new(GuestMemory::new(BLOCK));
    for times in 0..3 {
        let mut ring = Ring::new(&memory, 0, 16);
        let mut bench = Bench::new(&mut server);
        bench.grant("SET_PROTOCOL_FEATURES", &number(PROTOCOL_OFFERED & EVERYTHING), &[]);
        bench.grant("SET_FEATURES", &number(OFFER), &[]);
        for _ in 0..times {
            bench.grant("SET_OWNER", &[], &[]);
        }
        bench.share(&[&memory]);
        bench.start(&ring);
        bench.enable(&ring, 1);
        ring.request(0, Command::Flush, 0);
        ring.kick();
        assert_eq!(bench.wait_used(&mut ring), (0, 1));
    }
}

#[test]
fn s21_requests_that_were_not_negotiated_are_refused() {
    let mut server = server(1);
    let mut bench = Bench::new(&mut server);
    bench.grant("SET_PROTOCOL_FEATURES", &number(feature::REPLY_ACK), &[]);
    for (name, payload, gate) in [
        ("SET_STATUS", number(0), "STATUS"),
        ("RESET_DEVICE", vec![], "RESET_DEVICE"),
        ("SET_CONFIG", Bytes::new().u32(32).u32(1).u32(0).u8(0).done(), "CONFIG"),
        ("SET_VRING_ENDIAN", state(0, 0), "CROSS_ENDIAN"),
        ("VRING_KICK", state(0, 0), "INBAND_NOTIFICATIONS"),
        ("SEND_RARP", number(0), "RARP"),
    ] {
        let reason = bench.refused(name, &payload, &[]);
        assert_eq!(reason, format!("{name} ({}): it needs {gate}, which was not negotiated", id(name)));
    }
    let file = vhost_tests::dialog::memory(4096);
    let inflight = Bytes::new().u64(4096).u64(0).u16(1).u16(16).padding(4).done();
    let reason = bench.refused("SET_INFLIGHT_FD", &inflight, &[file.as_fd()]);
    assert_eq!(reason, "SET_INFLIGHT_FD (32): it needs INFLIGHT_SHMFD, which was not negotiated");
}

#[test]
fn s22_the_number_of_queues_is_told_without_mq() {
    let mut server = server(5);
    let mut bench = Bench::new(&mut server);
    assert_eq!(bench.ask_number("GET_QUEUE_NUM"), 5);
}

fn config(offset: u32, size: u32, flags: u32, data: &[u8]) -> Vec<u8> {
    Bytes::new().u32(offset).u32(size).u32(flags).raw(data).done()
}

#[test]
fn f19_configuration_is_answered_in_the_size_that_was_asked_for() {
    let mut server = server(3);
    let mut bench = Bench::negotiated(&mut server);
    let whole = bench.ask("GET_CONFIG", &config(0, 60, 0, &[0; 60]));
    assert_eq!(whole.payload()[..12], config(0, 60, 0, &[]));
    let whole = &whole.payload()[12..];
    assert_eq!((whole[..8].to_vec(), whole[34]), (128_u64.to_le_bytes().to_vec(), 3), "sectors and queues");
    for (offset, size) in [(0, 57), (0, 60), (0, 256), (34, 2), (59, 1), (60, 1), (50, 20), (u32::MAX, 8)] {
        let reply = bench.ask("GET_CONFIG", &config(offset, size, 1, &vec![7; size as usize]));
        let at = |byte: usize| whole.get(offset as usize + byte).copied().unwrap_or(0);
        let expected = Vec::from_iter((0..size as usize).map(at));
        assert_eq!(reply.payload(), config(offset, size, 1, &expected), "{size} bytes at {offset}");
    }
    // The error is an empty reply.
    for bad in [config(0, 257, 0, &[0; 256]), config(0, u32::MAX, 0, &[]), config(0, 8, 0, &[0; 7]), vec![0; 11]] {
        assert!(bench.ask("GET_CONFIG", &bad).payload().is_empty());
    }
}

#[test]
fn f20_more_configuration_bytes_than_are_counted_mean_nothing() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let mut long = config(32, 1, 0, &[0]);
    long.resize(268, 0xee);
    bench.grant("SET_CONFIG", &long, &[]);
    assert_eq!(bench.ask("GET_CONFIG", &config(32, 1, 0, &[9])).payload(), config(32, 1, 0, &[0]));
    bench.grant("SET_CONFIG", &config(32, 1, 1, &[1]), &[]);
    assert_eq!(bench.ask("GET_CONFIG", &config(32, 1, 0, &[9])).payload(), config(32, 1, 0, &[1]));
    for (offset, data) in [(32, vec![2]), (0, vec![1]), (31, vec![0, 0]), (u32::MAX, vec![0])] {
        let reason = bench.refused("SET_CONFIG", &config(offset, data.len() as u32, 0, &data), &[]);
        let expected = format!("the device refuses a write of {} bytes at offset {offset}", data.len());
        assert!(reason.starts_with(&format!("SET_CONFIG (25): {expected}")), "{reason}");
    }
}

#[test]
fn requests_that_this_device_has_no_use_for_are_refused() {
    let mut server: BackendServer = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let socket = std::os::unix::net::UnixStream::pair().unwrap().0;
    let reason = bench.refused("GPU_SET_SOCKET", &[], &[socket.as_fd()]);
    assert_eq!(reason, "GPU_SET_SOCKET (33): this device has no use for it");
}
