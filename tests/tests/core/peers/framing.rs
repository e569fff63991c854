//! Rows F1 to F15: bytes, flags and descriptors.

use super::done;
use crate::bad_input::{closes, refused};
use crate::machines::{Back, buffer, offering, pour};
use crate::stage::{PROTOCOL_OFFERED, Stage, flagged, message, say, state};
use vhost_core::wire::row::HandleCount;
use vhost_core::{
    Assembler, Channel, DecodeError, Delivery, ExtraHandles, Fault, FrontendCode, FrontendRequest, MAX_HANDLES,
    MAX_PAYLOAD, TrailingBytes,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, HEADER_SIZE, feature};

fn assembler() -> Assembler<Token> {
    Assembler::new(Channel::Frontend)
}

#[test]
fn f1_header_and_payload_may_come_apart() {
    let ledger = Ledger::new();
    let table = wire::frontend_request("SET_MEM_TABLE").request();
    let mut assembler = assembler();
    let taken = pour(&mut assembler, &table, ledger.tokens(2), &[HEADER_SIZE]).unwrap().unwrap();
    assert_eq!((taken.payload, taken.handles.len()), (&table[HEADER_SIZE..], 2));
}

#[test]
fn f2_a_message_is_sent_in_one_piece_with_its_descriptors() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("SET_VRING_KICK");
    let mut front = Stage::usual().front();
    let target = vhost_core::wire::vring::VringDescriptor::with_descriptor(1);
    let request = FrontendRequest::SetVringKick(target, Some(ledger.token()));
    let mut out = buffer();
    let transmit = front.request(request, Delivery::Unacknowledged, &mut out).unwrap();
    assert_eq!((transmit.bytes, transmit.handles.len()), (&fixture.request()[..], 1));
}

#[test]
fn f3_descriptors_with_the_payload_are_refused_and_closed() {
    let ledger = Ledger::new();
    let kick = wire::frontend_request("SET_VRING_KICK").request();
    let mut assembler = assembler();
    assert!(pour(&mut assembler, &kick[..HEADER_SIZE], Vec::new(), &[]).unwrap().is_none());
    let error = pour(&mut assembler, &kick[HEADER_SIZE..], ledger.tokens(1), &[]).unwrap_err();
    assert_eq!(error, DecodeError::HandlesAfterStart { channel: Channel::Frontend });
    ledger.assert_settled();
}

#[test]
fn f4_no_byte_of_the_next_message_is_read_early() {
    let ledger = Ledger::new();
    let requests = ["SET_VRING_KICK", "GET_FEATURES", "SET_MEM_TABLE"].map(wire::frontend_request);
    let stream = requests.iter().flat_map(wire::Fixture::request).collect::<Vec<_>>();
    let (mut assembler, mut at) = (assembler(), 0);
    for fixture in requests {
        let end = at + fixture.request().len();
        let mut tokens = ledger.tokens(fixture.descriptors);
        while !assembler.is_whole() {
            let room = assembler.read_buf();
            assert!(at + room.len() <= end, "{}: {} bytes from {at}", fixture.name, room.len());
            let count = room.len();
            room.copy_from_slice(&stream[at..at + count]);
            assembler.filled(count, tokens.drain(..)).unwrap();
            at += count;
        }
        assert!(assembler.read_buf().is_empty());
        let taken = assembler.take().unwrap();
        assert_eq!((taken.header.request(), taken.handles.len()), (fixture.id, fixture.descriptors));
    }
    assert_eq!(at, stream.len());
}

#[test]
fn f6_a_descriptor_with_a_message_that_has_none_is_refused_or_closed() {
    let ledger = Ledger::new();
    let expected = HandleCount { least: 0, most: 0 };
    let error = |id| Fault::Bytes(DecodeError::HandleCount { message: FrontendCode(id).message(), expected, found: 1 });
    let stage = Stage::usual();
    let messages = [(1, vec![]), (3, vec![]), (8, state(1, 256)), (13, 0x101_u64.to_ne_bytes().to_vec())];
    let strict = stage.back();
    let mut config = offering(stage.offered, PROTOCOL_OFFERED);
    config.tolerance.extra_handles = ExtraHandles::Close;
    let mut lenient = Back::new(config);
    say(&mut lenient, &message(16, &stage.protocol.to_ne_bytes()), Vec::new());
    for (id, payload) in messages {
        assert_eq!(refused(&strict, &flagged(id, 9, &payload), 1), error(id));
        done(&mut lenient, id, 1, &payload, 1);
        done(&mut lenient, id, 1, &payload, MAX_HANDLES);
    }
    // libblkio sends one with REM_MEM_REG, which older front-ends may.
    let [add, remove] = ["ADD_MEM_REG", "REM_MEM_REG"].map(wire::frontend_request);
    for mut back in [strict, lenient] {
        say(&mut back, &add.request(), ledger.tokens(1));
        say(&mut back, &remove.request(), ledger.tokens(1));
    }
    // A message that has some takes no others.
    let table = wire::frontend_form("SET_MEM_TABLE", "one region").request_needing_reply();
    let mut config = offering(stage.offered, PROTOCOL_OFFERED);
    config.tolerance.extra_handles = ExtraHandles::Close;
    let mut lenient = Back::new(config);
    say(&mut lenient, &message(16, &stage.protocol.to_ne_bytes()), Vec::new());
    refused(&lenient, &table, 2);
    refused(&lenient, &flagged(5, 9, &[0; 8]), 1);
    ledger.assert_settled();
}

#[test]
fn f7_a_memory_table_has_a_descriptor_for_each_region() {
    let back = Stage::usual().back();
    for form in ["usual", "one region", "eight regions"] {
        let table = wire::frontend_form("SET_MEM_TABLE", form);
        for found in (0..=MAX_HANDLES).filter(|found| *found != table.descriptors) {
            let expected = HandleCount { least: table.descriptors, most: table.descriptors };
            let error = DecodeError::HandleCount { message: FrontendCode(5).message(), expected, found };
            assert_eq!(refused(&back, &table.request_needing_reply(), found), Fault::Bytes(error));
        }
    }
}

#[test]
fn f8_more_than_eight_descriptors_end_the_stream() {
    let ledger = Ledger::new();
    let table = wire::frontend_form("SET_MEM_TABLE", "eight regions").request();
    for count in [9, 32, 253] {
        let error = pour(&mut assembler(), &table, ledger.tokens(count), &[]).unwrap_err();
        assert_eq!(error, DecodeError::TooManyHandles { channel: Channel::Frontend, limit: 8 });
    }
    ledger.assert_settled();
}

#[test]
fn f9_a_handle_of_zero_is_a_handle() {
    // A capability, or a descriptor after standard input was closed.
    let mut handles = vhost_core::Handles::<u32>::new();
    handles.push(0).unwrap();
    let frame = vhost_core::Frame {
        header: vhost_core::wire::header::Header::new(12, 1, 8),
        payload: &1_u64.to_ne_bytes(),
        handles,
    };
    let mut back = Stage::usual().back();
    let taken = back.handle_request(frame).unwrap();
    assert!(matches!(taken, vhost_core::Incoming::Request(FrontendRequest::SetVringKick(_, Some(0)))));
}

#[test]
fn f10_replies_have_two_flags_and_no_other() {
    // Whatever came in the request; QEMU and DPDK take no other. What we take: see the tests of replies.
    let mut back = Stage::usual().back();
    for flags in [0x1, 0x9, 0x11, 0xffff_fff9] {
        for (id, payload) in [(1, vec![]), (15, vec![]), (40, vec![])] {
            let reply = done(&mut back, id, flags, &payload, 0).unwrap();
            assert_eq!(reply[4..8], 5_u32.to_ne_bytes());
        }
        let acknowledgement = done(&mut back, 3, flags | 8, &[], 0).unwrap();
        assert_eq!(acknowledgement[4..8], 5_u32.to_ne_bytes());
    }
}

#[test]
fn f11_reserved_flags_are_ignored_and_others_end_the_session() {
    let mut back = Stage::usual().back();
    for flags in [0x11, 0x21, 0x8000_0001, 0xffff_fff1] {
        assert_eq!(done(&mut back, 3, flags, &[], 0), None);
    }
    for flags in [0x0, 0x2, 0x3, 0x5, 0xd] {
        closes(&back, &flagged(3, flags, &[]), 0);
    }
    // We send 1 or 9 only.
    let mut front = Stage::usual().front();
    for (delivery, flags) in [(Delivery::Unacknowledged, 1_u32), (Delivery::Acknowledged, 9)] {
        let mut out = buffer();
        let transmit = front.request(FrontendRequest::<Token>::SetOwner, delivery, &mut out).unwrap();
        assert_eq!(transmit.bytes[4..8], flags.to_ne_bytes());
    }
}

#[test]
fn f12_bytes_after_a_payload_are_refused_or_ignored() {
    let stage = Stage::usual();
    let longer = [state(1, 256), vec![0xee; 4]].concat();
    refused(&stage.back(), &flagged(8, 9, &longer), 0);
    let mut config = offering(stage.offered, PROTOCOL_OFFERED);
    config.tolerance.trailing_bytes = TrailingBytes::Ignore;
    let mut back = Back::new(config);
    assert_eq!(done(&mut back, 8, 1, &longer, 0), None);
    assert_eq!(back.session().ring(1).unwrap().size(), Some(256));
}

#[test]
fn f13_a_payload_that_is_too_short_is_refused() {
    for trailing in [TrailingBytes::Refuse, TrailingBytes::Ignore] {
        let mut config = offering(feature::OFFERED, PROTOCOL_OFFERED);
        config.tolerance.trailing_bytes = trailing;
        let mut back = Back::new(config);
        say(&mut back, &message(16, &feature::REPLY_ACK.to_ne_bytes()), Vec::new());
        refused(&back, &flagged(8, 9, &[1, 0, 0, 0, 0, 1, 0]), 0);
        refused(&back, &flagged(2, 9, &[]), 0);
    }
}

#[test]
fn f14_no_message_is_larger_than_there_is_room_for() {
    let header = wire::header(25, 1, MAX_PAYLOAD as u32 + 1);
    let error = pour(&mut assembler(), &header, Vec::new(), &[]).unwrap_err();
    assert!(matches!(error, DecodeError::PayloadTooLarge { limit: MAX_PAYLOAD, .. }));
    // The largest of the protocol has room.
    let reply = wire::frontend_request("GET_SHMEM_CONFIG").reply();
    assert!(pour(&mut assembler(), &reply, Vec::new(), &[]).unwrap().is_some());
}

#[test]
fn f15_a_single_region_has_padding_in_front() {
    let back = Stage::usual().back();
    let plain = wire::region::ADDED.plain();
    for id in [37, 38] {
        let fault = refused(&back, &flagged(id, 9, &plain), usize::from(id == 37));
        assert!(fault.to_string().ends_with("expected 40 payload bytes, found 32"), "{fault}");
    }
}
