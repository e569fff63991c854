//! What a front-end puts up with in replies, because real back-ends send it; and what it does not.

use crate::machines::{Front, Packet, buffer, frame};
use crate::stage::{Stage, flagged};
use core::num::NonZeroU64;
use vhost_core::wire::log::{Log, LogBase};
use vhost_core::wire::row::HandleCount;
use vhost_core::{
    ApiMisuse, DecodeError, Delivery, Fault, Form, FrontendCode, FrontendReply, FrontendRequest, PeerMisbehaved,
    Postcopy, Violation,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, Bytes, Fixture, REPLY, Reply, feature};

const REFUSED: FrontendReply<'static, Token> = FrontendReply::Refused(NonZeroU64::MIN);

/// A front-end that waits for the answer to this request.
#[track_caller]
fn asking(fixture: &Fixture, ledger: &Ledger) -> Front {
    let mut front = Stage::of(fixture).acknowledging().front();
    ask(&mut front, fixture, ledger);
    front
}

/// The request as it is sent.
#[track_caller]
fn ask(front: &mut Front, fixture: &Fixture, ledger: &Ledger) -> Vec<u8> {
    let bytes = fixture.request();
    let form = Form::request(front.session().negotiated().protocol);
    let request = FrontendRequest::decode(frame(&bytes, ledger.tokens(fixture.descriptors)), form).unwrap();
    Packet::from_transmit(front.request(request, Delivery::Acknowledged, &mut buffer()).unwrap()).bytes
}

/// The front-end hears this reply with so many descriptors.
fn hears(front: &mut Front, reply: &[u8], descriptors: usize, ledger: &Ledger) -> Result<(), Fault> {
    front.handle_reply(frame(reply, ledger.tokens(descriptors))).map(drop)
}

#[test]
fn flags_that_mean_nothing_in_replies_are_ignored() {
    let ledger = Ledger::new();
    let mut heard = 0;
    for fixture in wire::all_frontend_forms() {
        if fixture.form.starts_with("postcopy") || ["POSTCOPY_LISTEN", "REM_MEM_REG"].contains(&fixture.name) {
            continue; // They need a history.
        }
        if fixture.name == "GET_QUEUE_NUM" || fixture.name == "SET_PROTOCOL_FEATURES" {
            continue; // One is not asked for without a feature, the other is never acknowledged.
        }
        // need_reply repeated by libvhost-user, a reserved bit by DPDK, all of them by nobody.
        for flags in [0x5, 0xd, 0x15, 0xffff_fff5] {
            let replies = match &fixture.reply {
                Reply::Own(answers) => Vec::from_iter(answers.iter().map(|one| (one.payload.clone(), one.descriptors))),
                _ => vec![(0_u64.to_ne_bytes().to_vec(), 0)],
            };
            for (payload, descriptors) in replies {
                let mut front = asking(&fixture, &ledger);
                let reply = flagged(fixture.id, flags, &payload);
                let result = hears(&mut front, &reply, descriptors, &ledger);
                assert_eq!(result, Ok(()), "{} ({}): {flags:#x}", fixture.name, fixture.form);
                assert_eq!(front.outstanding(), 0);
                heard += 1;
            }
        }
    }
    assert!(heard > 300, "{heard}");
    ledger.assert_settled();
}

#[test]
fn the_reply_about_a_log_may_say_anything() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("SET_LOG_BASE");
    let log = Log::new(0x14_0000, 0x3000);
    let replies = [
        // DPDK, libvhost-user, VPP, rust-vmm, and a number that is an error elsewhere.
        (Vec::new(), LogBase::Empty),
        (0x14_0000_u64.to_ne_bytes().to_vec(), LogBase::Number(0x14_0000)),
        (0_u64.to_ne_bytes().to_vec(), LogBase::Number(0)),
        (fixture.payload.clone(), LogBase::Shared(log)),
        (u64::MAX.to_ne_bytes().to_vec(), LogBase::Number(u64::MAX)),
    ];
    for (payload, expected) in replies {
        let mut front = asking(&fixture, &ledger);
        let reply = flagged(6, REPLY, &payload);
        let heard = front.handle_reply(frame(&reply, Vec::new()));
        assert_eq!(heard, Ok(FrontendReply::SetLogBase(expected)));
        assert_eq!(front.session().log(), Some(log), "what was sent counts, not what came back");
    }
    ledger.assert_settled();
}

fn config(asked_of: u32, size: u32, bytes: &[u8]) -> Vec<u8> {
    flagged(24, REPLY, &Bytes::new().u32(asked_of).u32(size).u32(0).raw(bytes).done())
}

#[test]
fn the_reply_about_the_configuration_may_be_short_or_long() {
    let ledger = Ledger::new();
    // Eight bytes are asked for.
    let fixture = wire::frontend_request("GET_CONFIG");
    let space = Vec::from_iter(0..=255_u8);
    let replies = [
        (config(0x14, 8, &space[..8]), 8),
        // Shorter, with and without saying so.
        (config(0x14, 5, &space[..5]), 5),
        (config(0x14, 8, &space[..5]), 5),
        (config(0x14, 1, &space[..1]), 1),
        // SPDK: 256 bytes always, of which those count that were asked for.
        (config(0x14, 8, &space), 8),
        (config(0x14, 256, &space), 8),
        (config(0x14, u32::MAX, &space), 8),
        (config(0, 9, &space[..9]), 8),
    ];
    for (reply, length) in replies {
        let mut front = asking(&fixture, &ledger);
        let Ok(FrontendReply::GetConfig(read)) = front.handle_reply(frame(&reply, Vec::new())) else {
            panic!("{reply:x?}")
        };
        assert_eq!(read.data, &space[..length], "{reply:x?}");
    }
    // Nothing at all, or nothing but what was asked for.
    for reply in [flagged(24, REPLY, &[]), config(0x14, 8, &[]), config(0x14, 0, &[]), config(0x14, 0, &space[..8])] {
        let mut front = asking(&fixture, &ledger);
        assert_eq!(front.handle_reply(frame(&reply, Vec::new())), Ok(REFUSED), "{reply:x?}");
        assert!(!front.has_failed());
    }
}

#[test]
fn an_inflight_record_of_no_size_is_nothing_to_track() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("GET_INFLIGHT_FD");
    for padding in [0, 4] {
        let mut front = asking(&fixture, &ledger);
        let payload = Bytes::new().u64(0).u64(0).u16(2).u16(256).padding(padding).done();
        let reply = flagged(31, REPLY, &payload);
        let Ok(FrontendReply::GetInflightFd(inflight, None)) = front.handle_reply(frame(&reply, Vec::new())) else {
            panic!("{padding}")
        };
        assert_eq!((inflight.mmap_size(), inflight.num_queues(), inflight.queue_size()), (0, 2, 256));
    }
}

#[test]
fn a_reply_to_something_else_ends_the_session() {
    let ledger = Ledger::new();
    for found in [2, 11, 15, 99] {
        let mut front = asking(&wire::frontend_request("GET_FEATURES"), &ledger);
        let before = front.session().clone();
        let expected =
            PeerMisbehaved::WrongReply { expected: FrontendCode(1).message(), found: FrontendCode(found).message() };
        let result = hears(&mut front, &flagged(found, REPLY, &[0; 8]), 1, &ledger);
        assert_eq!(result, Err(Fault::Peer(expected)));
        assert!(front.has_failed() && *front.session() == before);
        let again = hears(&mut front, &flagged(1, REPLY, &[0; 8]), 0, &ledger);
        assert_eq!(again, Err(Fault::Caller(ApiMisuse::SessionFailed)));
    }
    ledger.assert_settled();
}

#[test]
fn a_reply_about_another_ring_ends_the_session() {
    let ledger = Ledger::new();
    for found in [0, 2, 257, u32::MAX] {
        let mut front = asking(&wire::frontend_request("GET_VRING_BASE"), &ledger);
        let reply = flagged(11, REPLY, &Bytes::new().u32(found).u32(0x0def).done());
        let message = FrontendCode::GET_VRING_BASE.message();
        let expected = PeerMisbehaved::WrongRing { message, expected: 1, found };
        assert_eq!(hears(&mut front, &reply, 0, &ledger), Err(Fault::Peer(expected)));
        assert!(front.has_failed());
    }
}

#[test]
fn descriptors_with_a_reply_that_has_none_end_the_session() {
    let ledger = Ledger::new();
    for name in ["GET_FEATURES", "GET_CONFIG", "SET_OWNER", "GET_VRING_BASE", "SET_LOG_BASE", "CHECK_DEVICE_STATE"] {
        let fixture = wire::frontend_request(name);
        let mut front = asking(&fixture, &ledger);
        let message = FrontendCode(fixture.id).message();
        let expected = HandleCount { least: 0, most: 0 };
        let error = DecodeError::HandleCount { message, expected, found: 2 };
        assert_eq!(hears(&mut front, &fixture.reply(), 2, &ledger), Err(Fault::Bytes(error)), "{name}");
        assert!(front.has_failed());
    }
    ledger.assert_settled();
}

#[test]
fn a_transfer_says_whether_a_descriptor_comes() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("SET_DEVICE_STATE_FD");
    let number = |value: u64| flagged(42, REPLY, &value.to_ne_bytes());
    let mut front = asking(&fixture, &ledger);
    let reply = number(0x100);
    let heard = front.handle_reply(frame(&reply, Vec::new()));
    assert_eq!(heard, Ok(FrontendReply::SetDeviceStateFd(0x100, None)));
    let mut front = asking(&fixture, &ledger);
    let reply = number(0);
    let heard = front.handle_reply(frame(&reply, ledger.tokens(1)));
    assert!(matches!(heard, Ok(FrontendReply::SetDeviceStateFd(0, Some(_)))));
    drop(heard);
    // An error needs neither bit nor descriptor.
    for (value, descriptors) in [(0x101, 0), (1, 0), (1, 1), (0x1ff, 0)] {
        let mut front = asking(&fixture, &ledger);
        let reply = number(value);
        let heard = front.handle_reply(frame(&reply, ledger.tokens(descriptors)));
        assert_eq!(heard, Ok(FrontendReply::Refused(NonZeroU64::new(value & 0xff).unwrap())));
    }
    for (value, descriptors, count) in [(0, 0, 1), (0x100, 1, 0)] {
        let mut front = asking(&fixture, &ledger);
        let message = FrontendCode(42).message();
        let expected = HandleCount { least: count, most: count };
        let error = DecodeError::HandleCount { message, expected, found: descriptors };
        assert_eq!(hears(&mut front, &number(value), descriptors, &ledger), Err(Fault::Bytes(error)));
    }
    ledger.assert_settled();
}

/// A front-end at the point where memory is answered.
fn listening(ledger: &Ledger) -> Front {
    let mut front = Stage::with(feature::PAGEFAULT | feature::CONFIGURE_MEM_SLOTS | feature::REPLY_ACK).front();
    for name in ["POSTCOPY_ADVISE", "POSTCOPY_LISTEN"] {
        let fixture = wire::frontend_request(name);
        ask(&mut front, &fixture, ledger);
        let descriptors = fixture.answers().first().map_or(0, |answer| answer.descriptors);
        assert_eq!(hears(&mut front, &fixture.reply(), descriptors, ledger), Ok(()));
    }
    assert_eq!(front.session().postcopy(), Postcopy::Listening);
    front
}

#[test]
fn memory_in_postcopy_is_exchanged_in_three_steps() {
    let ledger = Ledger::new();
    for (name, last) in [("SET_MEM_TABLE", "postcopy, bases taken"), ("ADD_MEM_REG", "postcopy, base taken")] {
        let fixture = wire::frontend_form(name, "postcopy");
        let code = FrontendCode(fixture.id);
        let mut front = listening(&ledger);
        // No flag, although an acknowledgement was wanted: the reply comes anyway.
        assert_eq!(ask(&mut front, &fixture, &ledger), fixture.request());
        let too_early = front.acknowledge_postcopy_memory::<Token>(code, &mut buffer()).map(drop);
        let violation = Violation::PostcopyOrder { state: Postcopy::Listening };
        assert_eq!(too_early, Err(ApiMisuse::Violation { message: code.message(), violation }));

        let mapped = &fixture.answers()[0];
        let reply = mapped.message(fixture.id);
        let base = match front.handle_reply(frame(&reply, Vec::new())) {
            Ok(FrontendReply::<Token>::SetMemTable(table)) => table.iter().next().unwrap().user_address,
            Ok(FrontendReply::AddMemReg(region)) => region.user_address,
            other => panic!("{other:?}"),
        };
        let fields = mapped.layout.decode(&mapped.payload).unwrap();
        let field = if fixture.id == 5 { "regions[0].user_address" } else { "user_address" };
        assert_eq!(base.0, fields.number(field));
        assert_eq!(front.session().postcopy(), Postcopy::Answered);
        let regions = front.session().memory().regions();
        assert!(
            regions.iter().all(|region| region.user_address != base),
            "the session keeps the front-end's addresses"
        );

        // With this payload it would be another request.
        for other in [FrontendCode::SET_FEATURES, FrontendCode::REM_MEM_REG, FrontendCode(0), FrontendCode(999)] {
            let misused = front.acknowledge_postcopy_memory::<Token>(other, &mut buffer()).map(drop);
            assert_eq!(misused, Err(ApiMisuse::NothingToAnswer));
        }
        let mut out = buffer();
        let transmit = front.acknowledge_postcopy_memory::<Token>(code, &mut out).unwrap();
        assert_eq!(transmit.bytes, wire::frontend_form(name, last).request());
        assert_eq!((front.outstanding(), front.session().postcopy()), (0, Postcopy::Listening));
    }
    ledger.assert_settled();
}

#[test]
fn addresses_of_other_regions_in_postcopy_end_the_session() {
    let ledger = Ledger::new();
    let mut front = listening(&ledger);
    ask(&mut front, &wire::frontend_form("SET_MEM_TABLE", "postcopy"), &ledger);
    let one = wire::frontend_form("SET_MEM_TABLE", "one region").payload;
    let expected = PeerMisbehaved::WrongRegionCount { message: FrontendCode(5).message(), expected: 2, found: 1 };
    assert_eq!(hears(&mut front, &flagged(5, REPLY, &one), 0, &ledger), Err(Fault::Peer(expected)));
    assert!(front.has_failed());
    for name in ["SET_MEM_TABLE", "ADD_MEM_REG"] {
        let fixture = wire::frontend_form(name, "postcopy");
        // The guest address and the size, behind the count or the padding.
        for changed in [8, 16] {
            let mut front = listening(&ledger);
            ask(&mut front, &fixture, &ledger);
            let mut payload = fixture.answers()[0].payload.clone();
            payload[changed + 2] ^= 1;
            let result = hears(&mut front, &flagged(fixture.id, REPLY, &payload), 0, &ledger);
            assert!(matches!(result, Err(Fault::Peer(PeerMisbehaved::WrongRegion { .. }))), "{name}: {result:?}");
            assert!(front.has_failed());
        }
    }
}

#[test]
fn a_userfault_descriptor_that_does_not_come_is_a_refusal() {
    let ledger = Ledger::new();
    for payload in [&[][..], &[0; 8]] {
        let mut front = asking(&wire::frontend_request("POSTCOPY_ADVISE"), &ledger);
        let reply = flagged(28, REPLY, payload);
        assert_eq!(front.handle_reply(frame(&reply, Vec::new())), Ok(REFUSED));
        assert_eq!(front.session().postcopy(), Postcopy::Off);
    }
}

#[test]
fn a_shared_memory_reply_may_be_shorter_and_is_read_by_index() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("GET_SHMEM_CONFIG");
    // crosvm once counted the regions and sent as many; the count means nothing here.
    for (count, sizes) in [(0, vec![]), (1, vec![0x1000]), (7, vec![0, 0x1000, 0, 0x2000]), (u32::MAX, vec![5; 256])] {
        let head = Bytes::new().u32(count).padding(4);
        let payload = sizes.iter().fold(head, |bytes, size| bytes.u64(*size)).done();
        let mut front = asking(&fixture, &ledger);
        let reply = flagged(44, REPLY, &payload);
        let Ok(FrontendReply::<Token>::GetShmemConfig(config)) = front.handle_reply(frame(&reply, Vec::new())) else {
            panic!("{count}")
        };
        for id in 0..=255_u8 {
            assert_eq!(config.size(id), sizes.get(usize::from(id)).copied().unwrap_or(0));
        }
    }
}

#[test]
fn a_name_in_the_reply_about_a_shared_object_means_nothing() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("GET_SHARED_OBJECT");
    let mut front = asking(&fixture, &ledger);
    let reply = flagged(41, REPLY, &fixture.payload);
    let heard = front.handle_reply(frame(&reply, ledger.tokens(1)));
    assert!(matches!(heard, Ok(FrontendReply::GetSharedObject(Some(_)))));
    drop(heard);
    let mut front = asking(&fixture, &ledger);
    assert_eq!(front.handle_reply(frame(&reply, Vec::new())), Ok(REFUSED));
    ledger.assert_settled();
}
