//! Many requests at once: answered in order, refused one by one, and judged by what is still to come.

use crate::machines::{Back, Front, Packet, REGIONS, Reaction, agree, buffer, frame, front, virtio_features};
use crate::stage::{PROTOCOL_OFFERED, Rings, Stage, flagged, say, state};
use core::num::NonZeroU64;
use vhost_core::wire::memory::{MemoryRegion, MemoryTable};
use vhost_core::wire::vring::{VringDescriptor, VringState};
use vhost_core::{
    ApiMisuse, BackendReply, BackendRequest, Delivery, Fault, FrontendCode, FrontendReply, FrontendRequest,
    GuestAddress, Handles, MemoryFault, PeerMisbehaved, Postcopy, RegionExtent, UserAddress, Violation,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::region::{self, Region};
use vhost_tests::wire::{self, Header, REPLY, feature};

const LIMIT: ApiMisuse = ApiMisuse::TooManyOutstanding { limit: 4 };

fn region(region: Region) -> MemoryRegion {
    MemoryRegion {
        guest_address: GuestAddress(region.guest),
        size: region.size,
        user_address: UserAddress(region.user),
        mmap_offset: region.offset,
        xen: None,
    }
}

fn enable(ring: u32, on: u32) -> FrontendRequest<'static, Token> {
    FrontendRequest::SetVringEnable(VringState::new(ring, on))
}

/// The request as it is sent.
#[track_caller]
fn send(front: &mut Front, request: FrontendRequest<'_, Token>, delivery: Delivery) -> Packet {
    Packet::from_transmit(front.request(request, delivery, &mut buffer()).unwrap())
}

/// The front-end hears an acknowledgement.
#[track_caller]
fn hear(front: &mut Front, id: u32, number: u64) -> FrontendReply<'static, Token> {
    let reply = flagged(id, REPLY, &number.to_ne_bytes());
    match front.handle_reply::<Token>(frame(&reply, Vec::new())).unwrap() {
        FrontendReply::Done => FrontendReply::Done,
        FrontendReply::Refused(number) => FrontendReply::Refused(number),
        other => panic!("{other:?}"),
    }
}

fn stage() -> Stage {
    Stage::usual()
}

#[test]
fn answers_come_in_order_and_refusals_belong_to_their_requests() {
    let mut front = stage().front();
    let before = front.session().clone();
    for ring in 0..4 {
        send(&mut front, enable(ring, 1), Delivery::Acknowledged);
    }
    assert_eq!((front.outstanding(), front.session()), (4, &before));
    for (ring, number) in [0, 1, 0, 7].into_iter().enumerate() {
        let expected = NonZeroU64::new(number).map_or(FrontendReply::Done, FrontendReply::Refused);
        assert_eq!(hear(&mut front, 18, number), expected);
        assert_eq!(front.outstanding(), 3 - ring);
        assert_eq!(front.session().ring(ring).unwrap().is_enabled(), number == 0, "ring {ring}");
    }
    assert!(!front.has_failed());
}

#[test]
fn no_more_is_asked_than_is_remembered() {
    let mut front = stage().front();
    for ring in 0..4 {
        send(&mut front, enable(ring, 1), Delivery::Acknowledged);
    }
    let full = front.clone();
    for delivery in [Delivery::Acknowledged, Delivery::Unacknowledged] {
        assert_eq!(front.request(enable(0, 0), delivery, &mut buffer()).map(drop), Err(LIMIT));
    }
    let own = front.request(FrontendRequest::<Token>::GetFeatures, Delivery::Unacknowledged, &mut buffer()).map(drop);
    assert_eq!(own, Err(LIMIT));
    assert_eq!(front, full);
    hear(&mut front, 18, 0);
    send(&mut front, enable(0, 0), Delivery::Acknowledged);
}

#[test]
fn what_is_not_answered_waits_for_what_was_asked_before() {
    let mut front = stage().front();
    send(&mut front, enable(1, 1), Delivery::Acknowledged);
    send(&mut front, enable(1, 0), Delivery::Unacknowledged);
    send(&mut front, enable(2, 1), Delivery::Unacknowledged);
    assert_eq!(front.outstanding(), 1, "only one of them is answered");
    assert!(!front.session().ring(2).unwrap().is_enabled());
    hear(&mut front, 18, 0);
    assert!(!front.session().ring(1).unwrap().is_enabled(), "it was disabled last");
    assert!(front.session().ring(2).unwrap().is_enabled());
    // With nothing outstanding it takes effect at once.
    send(&mut front, enable(3, 1), Delivery::Unacknowledged);
    assert!(front.session().ring(3).unwrap().is_enabled());
}

#[test]
fn what_is_not_answered_takes_room_only_behind_what_is() {
    let mut front = stage().front();
    for _ in 0..100 {
        send(&mut front, enable(1, 1), Delivery::Unacknowledged);
    }
    send(&mut front, FrontendRequest::GetFeatures, Delivery::Unacknowledged);
    for _ in 0..3 {
        send(&mut front, enable(1, 0), Delivery::Unacknowledged);
    }
    assert_eq!(front.request(enable(1, 1), Delivery::Unacknowledged, &mut buffer()).map(drop), Err(LIMIT));
    let reply = wire::frontend_request("GET_FEATURES").reply();
    drop(front.handle_reply::<Token>(frame(&reply, Vec::new())).unwrap());
    for _ in 0..100 {
        send(&mut front, enable(1, 1), Delivery::Unacknowledged);
    }
}

#[test]
fn features_that_are_on_their_way_open_gates() {
    let mut front = stage().front();
    let features = virtio_features(feature::ACKNOWLEDGED | feature::IOMMU_PLATFORM);
    let translation = || {
        let fixture = wire::frontend_request("IOTLB_MSG").request();
        let form = vhost_core::Form::request(Default::default());
        match FrontendRequest::<Token>::decode(frame(&fixture, Vec::new()), form).unwrap() {
            FrontendRequest::IotlbMsg(message) => FrontendRequest::<Token>::IotlbMsg(message),
            other => panic!("{other:?}"),
        }
    };
    assert!(front.request(translation(), Delivery::Acknowledged, &mut buffer()).is_err());
    send(&mut front, FrontendRequest::SetFeatures(features), Delivery::Acknowledged);
    send(&mut front, translation(), Delivery::Acknowledged);
    // Both are refused; the gate is closed again.
    assert!(matches!(hear(&mut front, 2, 1), FrontendReply::Refused(_)));
    assert!(matches!(hear(&mut front, 22, 1), FrontendReply::Refused(_)));
    assert!(front.request(translation(), Delivery::Acknowledged, &mut buffer()).is_err());
    // And a reset that is on its way closes it.
    send(&mut front, FrontendRequest::SetFeatures(features), Delivery::Unacknowledged);
    send(&mut front, FrontendRequest::ResetDevice, Delivery::Acknowledged);
    assert!(front.request(translation(), Delivery::Acknowledged, &mut buffer()).is_err());
}

#[test]
fn a_ring_is_judged_by_what_is_on_its_way() {
    let mut front = stage().rings(Rings::RUNNING).front();
    let size = || FrontendRequest::SetVringNum(VringState::new(1, 128));
    let running = |ring| ApiMisuse::Violation {
        message: FrontendCode::SET_VRING_NUM.message(),
        violation: Violation::RingRunning { ring },
    };
    assert_eq!(front.request(size(), Delivery::Acknowledged, &mut buffer()).map(drop), Err(running(1)));
    // Stopped and set up anew without waiting.
    send(&mut front, FrontendRequest::GetVringBase(VringState::new(1, 0)), Delivery::Acknowledged);
    send(&mut front, size(), Delivery::Acknowledged);
    // Started again: it runs.
    let kick = FrontendRequest::SetVringKick(VringDescriptor::without_descriptor(1), None);
    send(&mut front, kick, Delivery::Unacknowledged);
    assert_eq!(front.request(size(), Delivery::Acknowledged, &mut buffer()).map(drop), Err(running(1)));
    send(&mut front, enable(1, 0), Delivery::Unacknowledged);
    assert_eq!(front.request(size(), Delivery::Acknowledged, &mut buffer()).map(drop), Err(LIMIT));
}

/// The fault of adding a region.
#[track_caller]
fn add(front: &mut Front, one: Region, ledger: &Ledger) -> Result<(), MemoryFault> {
    let request = FrontendRequest::AddMemReg(region(one), ledger.token());
    match front.request(request, Delivery::Acknowledged, &mut buffer()).map(drop) {
        Ok(()) => Ok(()),
        Err(ApiMisuse::Violation { violation: Violation::Memory(fault), .. }) => Err(fault),
        Err(misuse) => panic!("{misuse}"),
    }
}

#[test]
fn memory_is_judged_by_what_is_on_its_way() {
    let ledger = Ledger::new();
    let [first, second, third, ..] = region::REGIONS;
    let mut front = stage().front();
    assert_eq!(add(&mut front, first, &ledger), Ok(()));
    let extent = RegionExtent::from(&region(first));
    assert_eq!(add(&mut front, first, &ledger), Err(MemoryFault::Overlap { first: extent, second: extent }));
    // Taken away and added again, all without waiting.
    send(&mut front, FrontendRequest::RemMemReg(region(first)), Delivery::Acknowledged);
    assert_eq!(add(&mut front, first, &ledger), Ok(()));
    for (id, number) in [(37, 0), (38, 0), (37, 0)] {
        hear(&mut front, id, number);
    }
    assert_eq!(front.session().memory().regions(), [extent]);
    // A table replaces what is there and what was on its way.
    assert_eq!(add(&mut front, second, &ledger), Ok(()));
    let table = [region(third)];
    let request = FrontendRequest::SetMemTable(MemoryTable::new(&table), Handles::from_iter(ledger.tokens(1)));
    send(&mut front, request, Delivery::Acknowledged);
    assert_eq!(add(&mut front, second, &ledger), Ok(()));
    let overlap = RegionExtent::from(&region(third));
    assert_eq!(add(&mut front, third, &ledger), Err(MemoryFault::Overlap { first: overlap, second: overlap }));
    let gone = FrontendRequest::<Token>::RemMemReg(region(first));
    let gone = front.request(gone, Delivery::Acknowledged, &mut buffer()).map(drop);
    let unknown = Violation::Memory(MemoryFault::Unknown(extent));
    let message = FrontendCode::REM_MEM_REG.message();
    assert_eq!(gone, Err(ApiMisuse::Violation { message, violation: unknown }));
    ledger.assert_settled();
}

#[test]
fn no_more_memory_is_on_its_way_than_there_is_room_for() {
    let ledger = Ledger::new();
    let mut front = stage().front();
    for number in 0..REGIONS as u64 - 1 {
        let one = Region { guest: number << 32, user: number << 32, size: 0x1000, ..region::ADDED };
        assert_eq!(add(&mut front, one, &ledger), Ok(()));
        hear(&mut front, 37, 0);
    }
    assert_eq!(add(&mut front, Region { user: 1 << 50, ..region::ADDED }, &ledger), Ok(()));
    let more = Region { user: 1 << 51, guest: 1 << 51, ..region::ADDED };
    assert_eq!(add(&mut front, more, &ledger), Err(MemoryFault::TooMany { slots: REGIONS }));
    // The one on its way is refused: there is room again.
    hear(&mut front, 37, 1);
    assert_eq!(add(&mut front, more, &ledger), Ok(()));
    ledger.assert_settled();
}

#[test]
fn one_memory_table_is_on_its_way() {
    let ledger = Ledger::new();
    let mut front = stage().front();
    let regions = region::REGIONS.map(region);
    let table = |count: usize| {
        let handles = Handles::from_iter(ledger.tokens(count));
        FrontendRequest::SetMemTable(MemoryTable::new(&regions[..count]), handles)
    };
    for answered in [0, 1] {
        send(&mut front, table(2), Delivery::Acknowledged);
        let before = front.clone();
        let another = front.request(table(1), Delivery::Acknowledged, &mut buffer()).map(drop);
        assert_eq!(another, Err(ApiMisuse::MemoryOutstanding));
        assert_eq!(front, before);
        hear(&mut front, 5, answered);
        // The refused one leaves no trace.
        assert_eq!(front.session().memory().regions().len(), 2);
    }
    // Behind something that is answered even one to which no answer comes.
    send(&mut front, enable(0, 1), Delivery::Acknowledged);
    send(&mut front, table(1), Delivery::Unacknowledged);
    let another = front.request(table(3), Delivery::Unacknowledged, &mut buffer()).map(drop);
    assert_eq!(another, Err(ApiMisuse::MemoryOutstanding));
    hear(&mut front, 18, 1);
    assert_eq!(front.session().memory().regions().len(), 1);
    ledger.assert_settled();
}

#[test]
fn postcopy_decides_about_replies_in_the_order_of_the_requests() {
    let ledger = Ledger::new();
    let mut front = stage().front();
    let mut back = stage().back();
    let answer = |front: &mut Front, back: &mut Back, mut packet: Packet| {
        let reply = match back.handle_request(packet.frame()).unwrap() {
            vhost_core::Incoming::Request(FrontendRequest::PostcopyAdvise) => {
                FrontendReply::PostcopyAdvise(Some(ledger.token()))
            }
            vhost_core::Incoming::Request(FrontendRequest::AddMemReg(region, _))
                if back.session().postcopy() != Postcopy::Off =>
            {
                FrontendReply::AddMemReg(region)
            }
            _ => FrontendReply::Done,
        };
        if let Reaction::Sent(mut packet) = back.answer(reply, &mut buffer()).unwrap().into() {
            drop(front.handle_reply(packet.frame()).unwrap());
        }
    };
    let packet = send(&mut front, FrontendRequest::PostcopyAdvise, Delivery::Acknowledged);
    answer(&mut front, &mut back, packet);
    // Listening begins, memory comes, listening ends, memory comes: all before the first answer.
    let [first, second, ..] = region::REGIONS;
    let requests = [
        FrontendRequest::PostcopyListen,
        FrontendRequest::AddMemReg(region(first), ledger.token()),
        FrontendRequest::PostcopyEnd,
        FrontendRequest::AddMemReg(region(second), ledger.token()),
    ];
    let packets = requests.map(|request| send(&mut front, request, Delivery::Unacknowledged));
    assert_eq!(front.outstanding(), 3, "the last one is not answered");
    // Addresses are not acknowledged before all of them are there.
    let too_early = front.acknowledge_postcopy_memory::<Token>(FrontendCode::ADD_MEM_REG, &mut buffer()).map(drop);
    assert!(too_early.is_err());
    for packet in packets {
        answer(&mut front, &mut back, packet);
    }
    assert_eq!((front.outstanding(), front.session().postcopy()), (0, Postcopy::Off));
    assert!(agree(front.session(), back.session()));
    ledger.assert_settled();
}

#[test]
fn addresses_are_acknowledged_when_all_of_them_are_there() {
    let ledger = Ledger::new();
    let mut front = stage().front();
    for name in ["POSTCOPY_ADVISE", "POSTCOPY_LISTEN"] {
        let fixture = wire::frontend_request(name);
        let request =
            if name == "POSTCOPY_ADVISE" { FrontendRequest::PostcopyAdvise } else { FrontendRequest::PostcopyListen };
        send(&mut front, request, Delivery::Acknowledged);
        let descriptors = fixture.answers().first().map_or(0, |answer| answer.descriptors);
        drop(front.handle_reply(frame(&fixture.reply(), ledger.tokens(descriptors))).unwrap());
    }
    let regions = [region::REGIONS[0], region::REGIONS[1]];
    for one in regions {
        send(&mut front, FrontendRequest::AddMemReg(region(one), ledger.token()), Delivery::Acknowledged);
    }
    for (number, one) in regions.into_iter().enumerate() {
        let payload = wire::Bytes::new().padding(8).raw(&one.mapped().plain()).done();
        drop(front.handle_reply::<Token>(frame(&flagged(37, REPLY, &payload), Vec::new())).unwrap());
        assert_eq!(front.session().postcopy(), Postcopy::Answered);
        let acknowledged =
            front.acknowledge_postcopy_memory::<Token>(FrontendCode::ADD_MEM_REG, &mut buffer()).map(drop);
        assert_eq!(acknowledged, if number == 0 { Err(ApiMisuse::MemoryOutstanding) } else { Ok(()) });
    }
    ledger.assert_settled();
}

#[test]
fn a_bring_up_does_not_wait() {
    // Offer and size are known from an earlier connection, or asked for first.
    let mut front = front();
    front.assume_offer(virtio_features(feature::OFFERED), crate::machines::protocol_features(PROTOCOL_OFFERED));
    let mut back = crate::machines::back(feature::OFFERED, PROTOCOL_OFFERED);
    let protocol = crate::machines::protocol_features(feature::REPLY_ACK | feature::MQ | feature::CONFIG);
    let requests = [
        FrontendRequest::SetProtocolFeatures(protocol),
        FrontendRequest::GetQueueNum,
        FrontendRequest::SetOwner,
        FrontendRequest::SetFeatures(virtio_features(feature::ACKNOWLEDGED)),
        enable(0, 1),
    ];
    let packets = Vec::from_iter(requests.map(|request| send(&mut front, request, Delivery::Acknowledged)));
    assert_eq!(front.outstanding(), 4, "all but the first are answered");
    for packet in packets {
        let reaction = match Header::read(*packet.bytes.first_chunk().unwrap()).request {
            17 => {
                drop(back.handle_request(frame(&packet.bytes, Vec::new())).unwrap());
                let reply = back.own_answer::<Token>().unwrap();
                back.answer(reply, &mut buffer()).unwrap().into()
            }
            _ => say(&mut back, &packet.bytes, packet.handles),
        };
        if let Reaction::Sent(mut packet) = reaction {
            drop(front.handle_reply(packet.frame()).unwrap());
        }
    }
    assert_eq!(front.outstanding(), 0);
    assert!(agree(front.session(), back.session()));
    assert!(front.session().ring(0).unwrap().is_enabled());
}

fn with_channel(ledger: &Ledger) -> Back {
    let mut back = stage().back();
    say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
    back
}

#[test]
fn a_backend_too_asks_without_waiting() {
    let ledger = Ledger::new();
    let mut back = with_channel(&ledger);
    let call = || BackendRequest::<Token>::VringCall(VringState::new(0, 0));
    let error = || BackendRequest::<Token>::VringErr(VringState::new(0, 0));
    for request in [call(), error(), call(), BackendRequest::ConfigChangeMsg] {
        drop(back.request(request, Delivery::Acknowledged, &mut buffer()).unwrap());
    }
    let full = back.clone();
    assert_eq!(back.request(call(), Delivery::Acknowledged, &mut buffer()).map(drop), Err(LIMIT));
    assert_eq!(back, full);
    // What is not answered needs no room: a call never waits.
    drop(back.request(call(), Delivery::Unacknowledged, &mut buffer()).unwrap());
    for (id, number) in [(4, 0), (5, 3), (4, 0), (2, 0)] {
        let expected = NonZeroU64::new(number).map_or(BackendReply::Done, BackendReply::Refused);
        let reply = flagged(id, REPLY, &number.to_ne_bytes());
        assert_eq!(back.handle_reply::<Token>(frame(&reply, Vec::new())), Ok(expected));
    }
    assert_eq!(back.outstanding(), 0);
    // In another order the channel is of no use; the session goes on.
    drop(back.request(call(), Delivery::Acknowledged, &mut buffer()).unwrap());
    let wrong = flagged(5, REPLY, &[0; 8]);
    let fault = back.handle_reply::<Token>(frame(&wrong, Vec::new())).unwrap_err();
    assert!(matches!(fault, Fault::Peer(PeerMisbehaved::WrongReply { .. })));
    assert_eq!(back.request(call(), Delivery::Acknowledged, &mut buffer()).map(drop), Err(ApiMisuse::SessionFailed));
    crate::bad_input::assert_works(&mut back);
    ledger.assert_settled();
}

#[test]
fn a_new_channel_of_the_backend_starts_afresh() {
    let ledger = Ledger::new();
    let mut back = with_channel(&ledger);
    let call = || BackendRequest::<Token>::VringCall(VringState::new(0, 0));
    let reply = flagged(4, REPLY, &[0; 8]);
    drop(back.request(call(), Delivery::Acknowledged, &mut buffer()).unwrap());
    // What was asked on the old one is not answered on the new one.
    say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
    assert_eq!(back.outstanding(), 0);
    assert!(back.handle_reply::<Token>(frame(&reply, Vec::new())).is_err());
    assert!(back.request(call(), Delivery::Acknowledged, &mut buffer()).is_err());
    // That one has failed; the next one has not.
    say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
    drop(back.request(call(), Delivery::Acknowledged, &mut buffer()).unwrap());
    assert_eq!(back.handle_reply::<Token>(frame(&reply, Vec::new())), Ok(BackendReply::Done));
    ledger.assert_settled();
}

#[test]
fn a_new_channel_starts_afresh_for_the_frontend_too() {
    let ledger = Ledger::new();
    let mut front = stage().front();
    let call = flagged(4, 9, &state(0, 0));
    let open = || FrontendRequest::SetBackendReqFd(ledger.token());
    send(&mut front, open(), Delivery::Unacknowledged);
    drop(front.handle_request::<Token>(frame(&call, Vec::new())).unwrap());
    send(&mut front, open(), Delivery::Acknowledged);
    hear(&mut front, 21, 0);
    // The question came through the old one.
    let late = front.answer_backend::<Token>(BackendReply::Done, &mut buffer()).map(drop);
    assert_eq!(late, Err(ApiMisuse::NothingToAnswer));
    assert!(front.handle_request::<Token>(frame(&flagged(4, 5, &[0; 8]), Vec::new())).is_err());
    assert!(front.handle_request::<Token>(frame(&call, Vec::new())).is_err());
    send(&mut front, open(), Delivery::Unacknowledged);
    assert!(front.handle_request::<Token>(frame(&call, Vec::new())).is_ok());
    ledger.assert_settled();
}
