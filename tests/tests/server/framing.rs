//! Bytes on a real socket: what makes a message, and what becomes of everything else.

use std::os::fd::AsFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, socketpair};
use vhost_core::{DecodeError, Tolerance, TrailingBytes};
use vhost_std::endpoint::EndpointError;
use vhost_std::server::{Progress, ServeError};
use vhost_std::socket::Socket;
use vhost_tests::descriptors::leaves_nothing_open;
use vhost_tests::dialog::{borrowed, event};
use vhost_tests::driver::{BLOCK, GuestMemory, table};
use vhost_tests::wire::{self, Layout, REQUEST, REQUEST_NEEDING_REPLY};

use crate::support::{Bench, Dialog, id, message, number, server, state, tolerant};

#[test]
fn f1_header_and_payload_come_in_separate_writes() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    let memory = GuestMemory::new(BLOCK);
    let whole = message("SET_MEM_TABLE", REQUEST_NEEDING_REPLY, &table(&[memory.region()]));
    bench.say(&whole[..12], &[memory.as_fd()]);
    assert!(!bench.has_reply());
    bench.say(&whole[12..], &[]);
    assert_eq!(bench.frontend().receive_reply(id("SET_MEM_TABLE")).number(), 0);
    assert_eq!(bench.connection().session().memory().regions().len(), 1);
}

/// On a socket that keeps the borders of sends, a reply in two pieces would come in two.

#[test]
fn f2_a_reply_is_sent_in_one_piece() {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let mut server = server(1);
    let mut connection = server.connect(Socket::from(theirs));
    for (name, payload, length) in [
        ("GET_FEATURES", vec![], 20),
        ("SET_PROTOCOL_FEATURES", number(1 << 9 | 1 << 3), 0),
        ("GET_CONFIG", wire::Bytes::new().u32(0).u32(60).u32(0).padding(60).done(), 84),
        ("GET_VRING_BASE", state(0, 0), 20),
    ] {
        let whole = message(name, REQUEST, &payload);
        // The back-end reads header and payload apart, so that they must be two packets.
        for piece in [&whole[..12], &whole[12..]].into_iter().filter(|piece| !piece.is_empty()) {
            assert_eq!(rustix::net::send(&ours, piece, SendFlags::empty()), Ok(piece.len()));
        }
        let _ = connection.process().unwrap();
        if length > 0 {
            let mut bytes = [0; 4096];
            let (_, count) = recv(&ours, &mut bytes, RecvFlags::DONTWAIT).unwrap();
            assert_eq!(count, length, "{name}");
        }
    }
}

#[test]
fn f4_messages_in_one_segment_keep_their_own_descriptors() {
    let mut server = server(2);
    let mut bench = Bench::negotiated(&mut server);
    let call = |ring| message("SET_VRING_CALL", REQUEST_NEEDING_REPLY, &number(ring));
    let barrier = message("GET_FEATURES", REQUEST, &[]);
    // One send whose descriptor is that of its first message, and more of them before anybody reads.
    for ring in 0..2 {
        bench.frontend().send(&[call(ring), barrier.clone(), barrier.clone()].concat(), &[event().as_fd()]);
    }
    let _ = bench.process();
    for _ in 0..2 {
        assert_eq!(bench.frontend().receive_reply(id("SET_VRING_CALL")).number(), 0);
        bench.frontend().receive_reply(id("GET_FEATURES"));
        bench.frontend().receive_reply(id("GET_FEATURES"));
    }
    // A descriptor in one send with a message that wants none and one that does goes where it is wanted: nothing tells this
    // from two sends.
    let enable = message("SET_VRING_ENABLE", REQUEST_NEEDING_REPLY, &state(0, 0));
    bench.say(&[enable, call(0)].concat(), &[event().as_fd()]);
    assert_eq!(bench.frontend().receive_reply(id("SET_VRING_ENABLE")).number(), 0);
    assert_eq!(bench.frontend().receive_reply(id("SET_VRING_CALL")).number(), 0);
}

#[test]
fn f10_replies_have_the_flags_5_whatever_the_request_had() {
    let mut server = server(1);
    let mut bench = Bench::negotiated(&mut server);
    for extra in [0, 0x8, 0x10, 0xffff_fff8] {
        // The reply's flags are checked where it is received.
        bench.say(&message("GET_FEATURES", REQUEST | extra, &[]), &[]);
        bench.frontend().receive_reply(id("GET_FEATURES"));
        bench.say(&message("GET_VRING_BASE", REQUEST | extra, &state(0, 0)), &[]);
        bench.frontend().receive_reply(id("GET_VRING_BASE"));
        assert!(!bench.has_reply(), "one reply to a request, not two");
    }
}

#[test]
fn f11_another_version_and_the_reply_bit_end_the_connection_and_reserved_bits_mean_nothing() {
    leaves_nothing_open(
        "framing::f11_another_version_and_the_reply_bit_end_the_connection_and_reserved_bits_mean_nothing",
        || {
            let mut server = server(1);
            for version in [0, 2, 3] {
                let mut bench = Bench::negotiated(&mut server);
                let error = bench.fails(&message("SET_VRING_CALL", version | 8, &number(0)), &[event().as_fd()]);
                assert!(matches!(error, ServeError::Receive(EndpointError::Bytes(DecodeError::Version { .. }))));
                let expected = format!("SET_VRING_CALL (13): expected protocol version 1, found {version}");
                assert_eq!(error.to_string(), expected);
            }
            for flags in [5, 0xd] {
                let mut bench = Bench::negotiated(&mut server);
                let error = bench.fails(&message("SET_VRING_CALL", flags, &number(0)), &[event().as_fd()]);
                assert!(matches!(error, ServeError::Protocol(_)));
                assert_eq!(error.to_string(), "SET_VRING_CALL (13): expected a request, found the reply flag");
            }
            let mut bench = Bench::negotiated(&mut server);
            bench.say(&message("SET_VRING_ENABLE", 0xffff_fff9, &state(0, 1)), &[]);
            assert_eq!(bench.frontend().receive_reply(id("SET_VRING_ENABLE")).number(), 0);
        },
    );
}

#[test]
fn f12_bytes_after_a_payload_are_refused_or_let_pass() {
    let longer = [state(0, 1), vec![0; 3]].concat();
    let mut strict = server(1);
    let reason = Bench::negotiated(&mut strict).refused("SET_VRING_ENABLE", &longer, &[]);
    assert_eq!(reason, "SET_VRING_ENABLE (18): expected 8 payload bytes, found 11");

    let mut tolerance = Tolerance::new();
    tolerance.trailing_bytes = TrailingBytes::Ignore;
    let mut kind = tolerant(tolerance);
    Bench::negotiated(&mut kind).grant("SET_VRING_ENABLE", &longer, &[]);
}

#[test]
fn f13_every_request_of_another_size_is_refused_and_the_stream_stays_in_step() {
    leaves_nothing_open("framing::f13_every_request_of_another_size_is_refused_and_the_stream_stays_in_step", || {
        let mut server = server(2);
        for fixture in wire::all_frontend_requests() {
            let length = fixture.payload.len();
            for wrong in [length.checked_sub(1), Some(length + 1), Some(length / 2)].into_iter().flatten() {
                // Front-ends send more configuration bytes than they count.
                if wrong == length || (wrong > length && fixture.layout == Layout::Config) {
                    continue;
                }
                let mut payload = fixture.payload.clone();
                payload.resize(wrong, 0);
                let mut bench = Bench::negotiated(&mut server);
                let descriptors = vhost_tests::dialog::descriptors_for(&fixture);
                let whole = message(fixture.name, REQUEST_NEEDING_REPLY, &payload);
                match bench.try_send(&whole, &borrowed(&descriptors)) {
                    Ok(_) => {
                        assert_eq!(bench.connection().refusals().0, 1, "{} of {wrong} bytes was granted", fixture.name);
                        bench.barrier();
                    }
                    Err(error) => assert!(matches!(error, ServeError::Refused(_)), "{}: {error:?}", fixture.name),
                }
            }
        }
    });
}

#[test]
fn f14_an_announced_size_reserves_nothing_and_ends_the_connection() {
    let mut server = server(1);
    for (size, limit) in [(4097, 4096), (u32::MAX, 4096)] {
        let mut bench = Bench::negotiated(&mut server);
        let error = bench.fails(&wire::header(id("GET_CONFIG"), REQUEST_NEEDING_REPLY, size), &[]);
        let expected = format!("GET_CONFIG (24): expected at most {limit} payload bytes, found {size} announced");
        assert_eq!(error.to_string(), expected);
    }
    // As many as are allowed are read, and refused.
    let mut bench = Bench::negotiated(&mut server);
    let reason = bench.refused("SET_VRING_ENABLE", &[0; 4096], &[]);
    assert_eq!(reason, "SET_VRING_ENABLE (18): expected 8 payload bytes, found 4096");
}

#[test]
fn unknown_requests_are_refused_where_that_can_be_told_and_else_end_the_connection() {
    leaves_nothing_open(
        "framing::unknown_requests_are_refused_where_that_can_be_told_and_else_end_the_connection",
        || {
            let mut server = server(1);
            for unknown in [0, 45, 1000, 0x8000_0000, u32::MAX] {
                let mut bench = Bench::negotiated(&mut server);
                let whole = |flags| [&wire::header(unknown, flags, 8)[..], &[7; 8]].concat();
                let reply = bench.try_send(&whole(REQUEST_NEEDING_REPLY), &[event().as_fd()]).unwrap().unwrap();
                assert_eq!((reply.id(), reply.number()), (unknown, 1));
                assert_eq!(
                    bench.connection().refusals(),
                    (1, Some(&*format!("front-end request {unknown} is unknown")))
                );
                bench.barrier();
                let error = bench.fails(&whole(REQUEST), &[event().as_fd()]);
                assert_eq!(error.to_string(), format!("front-end request {unknown} is unknown"));
            }
        },
    );
}

/// The same with options of the server.

#[test]
fn a_server_that_is_told_to_ignore_unknown_requests_goes_on() {
    let mut tolerance = Tolerance::new();
    tolerance.unknown_request = vhost_core::UnknownRequest::Ignore;
    let mut server = tolerant(tolerance);
    let mut bench = Bench::negotiated(&mut server);
    bench.say(&wire::header(4711, REQUEST, 0), &[]);
    bench.barrier();
}

#[test]
fn many_messages_at_once_are_served_in_shares() {
    let mut server = server(1);
    let mut connection = server.connect(Socket::from(theirs_with(&message("SET_OWNER", REQUEST, &[]).repeat(4000))));
    let mut shares = 0;
    while connection.process().unwrap() == Progress::Busy {
        shares += 1;
    }
    assert!(shares > 8, "4000 messages in {shares} shares");
    assert_eq!(connection.process().unwrap(), Progress::Closed, "and nothing is forgotten");
}

/// The other end of a connection on which this was sent, and nothing more will be.
fn theirs_with(bytes: &[u8]) -> std::os::unix::net::UnixStream {
    let (ours, theirs) = vhost_tests::dialog::Socket::pair();
    ours.send(bytes, &[]);
    theirs
}
