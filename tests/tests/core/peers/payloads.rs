//! Rows F16 to F25: payloads that peers lay out in their own ways.

use super::{answer, done};
use crate::bad_input::refused;
use crate::machines::{Back, Packet, Reaction, buffer, frame, front, offering, protocol_features};
use crate::stage::{PROTOCOL_OFFERED, Stage, flagged, message, say};
use core::num::NonZeroU64;
use vhost_core::wire::config::Config;
use vhost_core::wire::shared::SharedMemoryConfig;
use vhost_core::{Delivery, FrontendReply, FrontendRequest, Incoming, ProtocolFeatures, ShmemBit};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, Bytes, Layout, Message, feature, region::REGIONS};

#[test]
fn f16_a_memory_table_may_come_with_all_its_slots() {
    let ledger = Ledger::new();
    let mut table = wire::frontend_request("SET_MEM_TABLE").payload;
    assert_eq!(table.len(), 72, "ours have no slot too many");
    table.resize(264, 0);
    let mut back = Stage::usual().back();
    say(&mut back, &message(5, &table), ledger.tokens(2));
    assert_eq!(back.session().memory().regions().len(), 2);
    ledger.assert_settled();
}

#[test]
fn f17_padding_is_ignored_and_sent_as_zero() {
    let ledger = Ledger::new();
    let mut table = wire::frontend_request("SET_MEM_TABLE").payload;
    table[4..8].copy_from_slice(&[0xff; 4]);
    let mut back = Stage::usual().back();
    let mut front = Stage::usual().front();
    say(&mut back, &message(5, &table), ledger.tokens(2));
    let bytes = message(5, &table);
    let form = vhost_core::Form::request(ProtocolFeatures::empty());
    let request = FrontendRequest::decode(frame(&bytes, ledger.tokens(2)), form).unwrap();
    let mut out = vec![0xee; 4096];
    let transmit = front.request(request, Delivery::Unacknowledged, &mut out).unwrap();
    assert_eq!(transmit.bytes, wire::frontend_request("SET_MEM_TABLE").request());
    drop(transmit);
    ledger.assert_settled();
}

#[test]
fn f18_an_inflight_record_has_24_bytes_or_20() {
    let ledger = Ledger::new();
    for form in ["usual", "20 bytes"] {
        let mut back = Stage::usual().back();
        let set = wire::frontend_form("SET_INFLIGHT_FD", form);
        say(&mut back, &set.request(), ledger.tokens(1));
        let get = wire::frontend_form("GET_INFLIGHT_FD", form).request();
        let Ok(Incoming::Request(FrontendRequest::GetInflightFd(wanted))) =
            back.handle_request::<Token>(frame(&get, Vec::new()))
        else {
            panic!("{form}")
        };
        assert_eq!((wanted.num_queues(), wanted.queue_size()), (2, 256));
        let reply = FrontendReply::GetInflightFd(wanted, Some(ledger.token()));
        let Reaction::Sent(packet) = back.answer(reply, &mut buffer()).unwrap().into() else { panic!() };
        assert_eq!(packet.bytes.len(), 12 + 24, "we send what all real programs send");
    }
    ledger.assert_settled();
}

#[test]
fn f19_configuration_is_answered_in_the_size_that_was_asked_for() {
    let space = Vec::from_iter(0..=255_u8);
    for asked in [0, 1, 8, 57, 60, 256] {
        let mut back = Stage::usual().back();
        let payload = Bytes::new().u32(3).u32(asked).u32(0).padding(asked as usize).done();
        let data = &space[..asked as usize];
        let reply = FrontendReply::GetConfig(Config { offset: 3, flags: 0, data });
        let Reaction::Sent(packet) = answer(&mut back, &message(24, &payload), Vec::new(), Some(reply)) else {
            panic!()
        };
        let (sent, _) = Message::read(&packet.bytes).unwrap();
        assert_eq!(sent.payload.len(), payload.len());
        assert_eq!(sent.fields(Layout::Config).bytes("data"), data);
    }
    // SPDK sends 256 bytes with whatever size it means.
    let mut back = Stage::usual().back();
    let payload = Bytes::new().u32(0).u32(8).u32(0).padding(256).done();
    let reply = FrontendReply::GetConfig(Config { offset: 0, flags: 0, data: &space[..8] });
    assert!(matches!(answer(&mut back, &message(24, &payload), Vec::new(), Some(reply)), Reaction::Sent(_)));
    // A failure has no byte; what we take as one: see the tests of replies.
    let refusal = FrontendReply::Refused(NonZeroU64::MIN);
    let Reaction::Sent(packet) = answer(&mut back, &message(24, &payload), Vec::new(), Some(refusal)) else { panic!() };
    assert_eq!(packet.bytes, flagged(24, wire::REPLY, &[]));
}

#[test]
fn f20_configuration_is_written_in_the_size_that_is_meant() {
    let mut back = Stage::usual().back();
    let payload = Bytes::new().u32(0x14).u32(1).u32(0).raw(&[7]).padding(255).done();
    let request = message(25, &payload);
    let Ok(Incoming::Request(FrontendRequest::SetConfig(written))) =
        back.handle_request::<Token>(frame(&request, Vec::new()))
    else {
        panic!()
    };
    assert_eq!((written.offset, written.data), (0x14, &[7][..]));
}

#[test]
fn f21_flags_of_configuration_are_handed_on_as_they_are() {
    for flags in [0, 1, 2, u32::MAX] {
        for id in [24, 25] {
            let mut back = Stage::usual().back();
            let request = message(id, &Bytes::new().u32(0).u32(1).u32(flags).u8(9).done());
            let taken = back.handle_request::<Token>(frame(&request, Vec::new())).unwrap();
            match taken {
                Incoming::Request(FrontendRequest::GetConfig(config) | FrontendRequest::SetConfig(config)) => {
                    assert_eq!(config.flags, flags);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((Config::WRITABLE, Config::MIGRATION), (0, 1));
}

#[test]
fn f22_shared_memory_regions_are_counted_where_they_are_not_empty() {
    let mut back = Stage::usual().back();
    let sizes = [0, 0x1000, 0, 0, 0x2000];
    let reply = FrontendReply::GetShmemConfig(SharedMemoryConfig::new(&sizes));
    let Reaction::Sent(packet) = answer(&mut back, &message(44, &[]), Vec::new(), Some(reply)) else { panic!() };
    let (sent, _) = Message::read(&packet.bytes).unwrap();
    let fields = sent.fields(Layout::SharedMemory);
    assert_eq!((sent.payload.len(), fields.number("num_regions"), fields.number("padding")), (2056, 2, 0));
    assert_eq!(
        (fields.number("sizes[1]"), fields.number("sizes[4]"), fields.number("sizes[255]")),
        (0x1000, 0x2000, 0)
    );
    // The other way: see the tests of replies.
}

#[test]
fn f23_the_bit_of_shared_memory_is_that_of_the_peer() {
    let places = [(ShmemBit::Bit22, 22), (ShmemBit::Bit21, 21), (ShmemBit::Bit20, 20)];
    let channel = feature::BACKEND_REQ | feature::BACKEND_SEND_FD;
    for (shmem_bit, place) in places {
        let wire_bits = channel | 1 << place;
        // A back-end of ours for such a front-end.
        let mut config = offering(feature::OFFERED, channel | feature::SHMEM);
        config.tolerance.shmem_bit = shmem_bit;
        let mut back = Back::new(config);
        assert_eq!(done(&mut back, 15, 1, &[], 0), Some(flagged(15, wire::REPLY, &wire_bits.to_ne_bytes())));
        done(&mut back, 16, 1, &wire_bits.to_ne_bytes(), 0);
        assert!(back.session().negotiated().protocol.contains(ProtocolFeatures::SHMEM));
        // A front-end of ours for such a back-end.
        let mut config = vhost_core::FrontendConfig::new(4);
        config.tolerance.shmem_bit = shmem_bit;
        let mut front = crate::machines::Front::new(config);
        front.assume_offer(crate::machines::virtio_features(feature::OFFERED), ProtocolFeatures::empty());
        drop(
            front.request(FrontendRequest::<Token>::GetProtocolFeatures, Delivery::Acknowledged, &mut [0; 12]).unwrap(),
        );
        let reply = flagged(15, wire::REPLY, &wire_bits.to_ne_bytes());
        let offered = protocol_features(channel | feature::SHMEM);
        assert_eq!(
            front.handle_reply::<Token>(frame(&reply, Vec::new())),
            Ok(FrontendReply::GetProtocolFeatures(offered))
        );
        let mut out = buffer();
        let request = FrontendRequest::<Token>::SetProtocolFeatures(offered);
        let transmit = front.request(request, Delivery::Acknowledged, &mut out).unwrap();
        assert_eq!(transmit.bytes, message(16, &wire_bits.to_ne_bytes()));
    }
    // With the usual bit, the others keep their meaning.
    let mut front = front();
    front.assume_offer(crate::machines::virtio_features(feature::OFFERED), protocol_features(feature::GPA_ADDRESSES));
    let request = FrontendRequest::<Token>::SetProtocolFeatures(ProtocolFeatures::GPA_ADDRESSES);
    let mut out = buffer();
    let transmit = front.request(request, Delivery::Unacknowledged, &mut out).unwrap();
    assert_eq!(transmit.bytes, message(16, &(1_u64 << 21).to_ne_bytes()));
}

#[test]
fn f24_a_shared_object_without_name_is_not_found() {
    let mut back = Stage::usual().back();
    let request = wire::frontend_form("GET_SHARED_OBJECT", "no name").request();
    assert_eq!(
        back.clone().handle_request::<Token>(frame(&request, Vec::new())),
        Ok(Incoming::Request(FrontendRequest::GetSharedObject(None)))
    );
    let refusal = FrontendReply::Refused(NonZeroU64::MIN);
    let Reaction::Sent(Packet { bytes, handles }) = answer(&mut back, &request, Vec::new(), Some(refusal)) else {
        panic!()
    };
    assert_eq!((bytes, handles.len()), (flagged(41, wire::REPLY, &[]), 0));
    assert!(!back.has_failed());
}

#[test]
fn f25_the_operation_of_a_crypto_session_has_64_bits() {
    let mut back = Stage::usual().back();
    let request = wire::frontend_request("CREATE_CRYPTO_SESSION").request();
    let Ok(Incoming::Request(FrontendRequest::CreateCryptoSession(session))) =
        back.handle_request::<Token>(frame(&request, Vec::new()))
    else {
        panic!()
    };
    assert_eq!(session.op_code(), 0x0302);
    let parameters = Message::read(&request).unwrap().0.fields(Layout::CryptoSession).bytes("parameters").to_vec();
    assert_eq!(session.parameters()[..], parameters);
    // Key lengths inside the parameters are the device's business: a longer message is refused, not read beyond.
    let longer = [request, vec![0; 8]].concat();
    let payload = &longer[12..];
    refused(&Stage::usual().back(), &flagged(26, 9, payload), 0);
}

#[test]
fn f16_all_eight_regions_fit() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().back();
    say(&mut back, &wire::frontend_form("SET_MEM_TABLE", "eight regions").request(), ledger.tokens(8));
    assert_eq!(back.session().memory().regions().len(), REGIONS.len());
    let mut config = offering(feature::OFFERED, PROTOCOL_OFFERED);
    config.memory_slots = 0;
    let mut back = Back::new(config);
    say(&mut back, &wire::frontend_form("SET_MEM_TABLE", "eight regions").request(), ledger.tokens(8));
    ledger.assert_settled();
}
