//! Answers that do not fit are misuse: they change nothing, and the right one can still be given.

use crate::machines::{Back, Packet, Reaction, buffer, frame};
use crate::stage::{Stage, flagged, message, say, state};
use core::num::NonZeroU64;
use vhost_core::wire::config::Config;
use vhost_core::wire::memory::{MemoryRegion, MemoryTable};
use vhost_core::wire::row::HandleCount;
use vhost_core::wire::vring::VringState;
use vhost_core::{
    ApiMisuse, BackendCode, BackendReply, BackendRequest, Delivery, Fault, FrontendCode, FrontendReply, GuestAddress,
    Incoming, UserAddress, Verdict, VirtioFeatures,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, Fixture, Reply, feature};

/// The back-end with this request to answer.
fn asked(fixture: &Fixture, flags: u32, ledger: &Ledger) -> Back {
    let mut back = Stage::of(fixture).acknowledging().back();
    let bytes = fixture.message(flags);
    drop(back.handle_request(frame(&bytes, ledger.tokens(fixture.descriptors))).unwrap());
    back
}

#[track_caller]
fn assert_misused(back: &Back, reply: FrontendReply<'_, Token>, expected: ApiMisuse) {
    let mut misused = back.clone();
    assert_eq!(misused.answer(reply, &mut buffer()).map(Reaction::from), Err(expected));
    assert_eq!(misused, *back);
}

#[test]
fn an_answer_to_something_else_is_misuse() {
    let ledger = Ledger::new();
    for fixture in wire::all_frontend_requests() {
        if ["POSTCOPY_LISTEN", "REM_MEM_REG"].contains(&fixture.name) {
            continue; // They need a history and are acknowledged like others.
        }
        let expected = FrontendCode(fixture.id).message();
        let misfit = |found: Option<FrontendCode>| ApiMisuse::AnswerDoesNotFit {
            expected,
            found: found.map(FrontendCode::message),
        };
        for flags in [1, 9] {
            let back = asked(&fixture, flags, &ledger);
            if fixture.name != "GET_STATUS" {
                let misuse = misfit(Some(FrontendCode::GET_STATUS));
                assert_misused(&back, FrontendReply::GetStatus(0), misuse);
            }
            let status_only = ["IOTLB_MSG", "POSTCOPY_END", "CHECK_DEVICE_STATE"].contains(&fixture.name);
            // SET_LOG_BASE has a reply, but the machine knows it.
            if matches!(fixture.reply, Reply::Own(_)) && !status_only && fixture.name != "SET_LOG_BASE" {
                assert_misused(&back, FrontendReply::Done, misfit(None));
            }
            if fixture.name != "GET_SHARED_OBJECT" {
                let reply = FrontendReply::GetSharedObject(Some(ledger.token()));
                assert_misused(&back, reply, misfit(Some(FrontendCode::GET_SHARED_OBJECT)));
            }
        }
    }
    ledger.assert_settled();
}

#[test]
fn an_answer_about_another_ring_is_misuse() {
    let back = asked(&wire::frontend_request("GET_VRING_BASE"), 1, &Ledger::new());
    for found in [0, 2, 257] {
        let message = FrontendCode::GET_VRING_BASE.message();
        let misuse = ApiMisuse::AnswerDiffers { message, field: "ring", expected: 1, found };
        assert_misused(&back, FrontendReply::GetVringBase(VringState::new(found as u32, 0)), misuse);
    }
}

#[test]
fn configuration_of_another_size_is_misuse() {
    let back = asked(&wire::frontend_request("GET_CONFIG"), 1, &Ledger::new());
    let data = [0; 300];
    for found in [0, 7, 9, 256] {
        let message = FrontendCode::GET_CONFIG.message();
        let misuse = ApiMisuse::AnswerDiffers { message, field: "size", expected: 8, found: found as u64 };
        assert_misused(
            &back,
            FrontendReply::GetConfig(Config { offset: 0x14, flags: 0, data: &data[..found] }),
            misuse,
        );
    }
}

#[test]
fn a_postcopy_answer_with_other_regions_is_misuse() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().back();
    let mut hear = |name: &str, form: &str, reply: FrontendReply<'_, Token>| {
        let fixture = wire::frontend_form(name, form);
        drop(back.handle_request(frame(&fixture.request(), ledger.tokens(fixture.descriptors))).unwrap());
        drop(back.answer(reply, &mut buffer()).unwrap());
    };
    hear("POSTCOPY_ADVISE", "usual", FrontendReply::PostcopyAdvise(Some(ledger.token())));
    hear("POSTCOPY_LISTEN", "usual", FrontendReply::Done);
    let table = wire::frontend_form("SET_MEM_TABLE", "postcopy");
    drop(back.handle_request(frame(&table.request(), ledger.tokens(2))).unwrap());
    let message = FrontendCode::SET_MEM_TABLE.message();
    assert_misused(&back, FrontendReply::Done, ApiMisuse::AnswerDoesNotFit { expected: message, found: None });
    let misuse = ApiMisuse::AnswerDiffers { message, field: "regions", expected: 2, found: 0 };
    assert_misused(&back, FrontendReply::SetMemTable(MemoryTable::new(&[])), misuse);
    let given = |region: wire::region::Region| {
        MemoryRegion::new(GuestAddress(region.guest), region.size, UserAddress(region.user), region.offset)
    };
    let [first, second] = [given(wire::region::REGIONS[0]), given(wire::region::REGIONS[1])];
    let other_size = MemoryRegion { size: second.size + 1, ..second };
    let misuse =
        ApiMisuse::AnswerDiffers { message, field: "region size", expected: second.size, found: second.size + 1 };
    assert_misused(&back, FrontendReply::SetMemTable(MemoryTable::new(&[first, other_size])), misuse);
    let (expected, found) = (first.guest_address.0, second.guest_address.0);
    let misuse = ApiMisuse::AnswerDiffers { message, field: "guest address", expected, found };
    assert_misused(&back, FrontendReply::SetMemTable(MemoryTable::new(&[second, first])), misuse);
    ledger.assert_settled();
}

#[test]
fn a_reply_where_an_acknowledgement_is_due_is_misuse() {
    let ledger = Ledger::new();
    let region = wire::region::ADDED;
    let same = MemoryRegion::new(GuestAddress(region.guest), region.size, UserAddress(region.user), region.offset);
    // Outside postcopy migration it has no reply of its own.
    let mut back = asked(&wire::frontend_request("ADD_MEM_REG"), 9, &ledger);
    let message = FrontendCode::ADD_MEM_REG.message();
    let misfit = ApiMisuse::AnswerDoesNotFit { expected: message, found: Some(message) };
    assert_misused(&back, FrontendReply::AddMemReg(same), misfit);
    let reply = FrontendReply::<Token>::Done;
    assert!(matches!(Reaction::from(back.answer(reply, &mut buffer()).unwrap()), Reaction::Sent(_)));
    ledger.assert_settled();
}

#[test]
fn an_answer_with_another_number_of_descriptors_is_misuse() {
    let ledger = Ledger::new();
    let back = asked(&wire::frontend_request("SET_DEVICE_STATE_FD"), 1, &ledger);
    let message = FrontendCode::SET_DEVICE_STATE_FD.message();
    let misuse = |count, found| {
        let expected = HandleCount { least: count, most: count };
        ApiMisuse::HandleCount { message, expected, found }
    };
    assert_misused(&back, FrontendReply::SetDeviceStateFd(0, None), misuse(1, 0));
    assert_misused(&back, FrontendReply::SetDeviceStateFd(0x100, Some(ledger.token())), misuse(0, 1));
    ledger.assert_settled();
}

#[test]
fn an_answer_that_has_no_room_is_misuse_and_can_be_given_again() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("GET_FEATURES");
    let mut back = asked(&fixture, 1, &ledger);
    let before = back.clone();
    for given in 0..20 {
        let reply = FrontendReply::<Token>::GetFeatures(VirtioFeatures::empty());
        let misuse = back.answer(reply, &mut vec![0; given]).map(Reaction::from);
        assert_eq!(misuse, Err(ApiMisuse::BufferTooSmall { message: FrontendCode(1).message(), given }));
        assert_eq!(back, before);
    }
    let reply = back.own_answer::<Token>().unwrap();
    assert!(matches!(Reaction::from(back.answer(reply, &mut [0; 20]).unwrap()), Reaction::Sent(_)));
}

#[test]
fn a_refusal_that_has_no_room_is_misuse_and_can_be_given_again() {
    let mut back = asked(&wire::frontend_request("GET_INFLIGHT_FD"), 1, &Ledger::new());
    let (before, message) = (back.clone(), FrontendCode::GET_INFLIGHT_FD.message());
    let refused = || FrontendReply::<Token>::Refused(NonZeroU64::MIN);
    for given in 0..36 {
        let misuse = back.answer(refused(), &mut vec![0; given]).map(Reaction::from);
        assert_eq!(misuse, Err(ApiMisuse::BufferTooSmall { message, given }));
        assert_eq!(back, before);
    }
    assert!(matches!(Reaction::from(back.answer(refused(), &mut [0; 36]).unwrap()), Reaction::Sent(_)));
}

#[test]
fn what_the_machine_refused_is_not_answered_with_content() {
    let mut back = Stage::usual().back();
    let rejection = back.handle_request(frame(&message(11, &state(99, 0)), Vec::new())).unwrap_err();
    assert_eq!(rejection.verdict(), Verdict::Refuse);
    let expected = FrontendCode::GET_VRING_BASE.message();
    let misuse = ApiMisuse::AnswerDoesNotFit { expected, found: Some(expected) };
    assert_misused(&back, FrontendReply::GetVringBase(VringState::new(99, 0)), misuse);
}

#[test]
fn there_is_one_answer_to_one_request() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().back();
    let reply =
        || FrontendReply::GetInflightFd(vhost_core::wire::inflight::Inflight::new(0, 0, 0, 0), Some(ledger.token()));
    assert_misused(&back, reply(), ApiMisuse::NothingToAnswer);
    assert!(back.own_answer::<Token>().is_none());
    say(&mut back, &message(3, &[]), Vec::new());
    assert_misused(&back, FrontendReply::Done, ApiMisuse::NothingToAnswer);
    ledger.assert_settled();
}

#[test]
fn nothing_is_taken_while_an_answer_is_pending() {
    let ledger = Ledger::new();
    let mut back = asked(&wire::frontend_request("SET_OWNER"), 9, &ledger);
    let before = back.clone();
    // Not even what would end the session.
    let others =
        [message(1, &[]), flagged(8, 9, &state(9, 9)), flagged(1, 5, &[0; 8]), flagged(99, 1, &[]), flagged(1, 2, &[])];
    for other in others {
        let rejection = back.handle_request(frame(&other, ledger.tokens(3))).unwrap_err();
        let misuse = ApiMisuse::AnswerOutstanding { message: FrontendCode(3).message() };
        assert_eq!((rejection.verdict(), rejection.fault()), (Verdict::Misuse, Fault::Caller(misuse)));
        assert_eq!(back, before);
    }
    let reply = FrontendReply::<Token>::Done;
    assert!(matches!(Reaction::from(back.answer(reply, &mut buffer()).unwrap()), Reaction::Sent(_)));
    ledger.assert_settled();
}

#[test]
fn a_late_answer_leaves_the_other_channel_free() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().back();
    say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
    say(&mut back, &wire::frontend_form("SET_VRING_KICK", "no descriptor").request(), Vec::new());
    let stop = wire::frontend_request("GET_VRING_BASE").request();
    assert!(matches!(back.handle_request(frame(&stop, Vec::new())), Ok(Incoming::Request(_))));
    // The ring drains; meanwhile it is not stopped, and the back-end's own channel works.
    assert!(back.session().ring(1).unwrap().is_started());
    let request = BackendRequest::<Token>::ConfigChangeMsg;
    drop(back.request(request, Delivery::Acknowledged, &mut buffer()).unwrap());
    let done = wire::backend_request("CONFIG_CHANGE_MSG").acknowledgement(0);
    assert_eq!(back.handle_reply(frame(&done, Vec::new())), Ok(BackendReply::Done));
    let base = FrontendReply::<Token>::GetVringBase(VringState::new(1, 0x0def));
    let Reaction::Sent(Packet { bytes, .. }) = back.answer(base, &mut buffer()).unwrap().into() else { panic!() };
    assert_eq!(bytes, wire::frontend_request("GET_VRING_BASE").reply());
    assert!(!back.session().ring(1).unwrap().is_started());
    ledger.assert_settled();
}

#[test]
fn a_frontend_answers_its_backend_by_the_same_rules() {
    let ledger = Ledger::new();
    let mut front = Stage::with(feature::REPLY_ACK | feature::SHARED_OBJECT | feature::CONFIG).front();
    let answer = |front: &mut crate::machines::Front, reply: BackendReply<Token>| {
        front.answer_backend(reply, &mut buffer()).map(Reaction::from)
    };
    assert_eq!(answer(&mut front, BackendReply::Done), Err(ApiMisuse::NothingToAnswer));
    let lookup = wire::backend_request("SHARED_OBJECT_LOOKUP");
    drop(front.handle_request(frame(&lookup.request(), Vec::new())).unwrap());
    let before = front.clone();
    let expected = BackendCode::SHARED_OBJECT_LOOKUP.message();
    let misfit = ApiMisuse::AnswerDoesNotFit { expected, found: None };
    assert_eq!(answer(&mut front, BackendReply::Done), Err(misfit));
    let other = frame(&lookup.request(), ledger.tokens(1)).header;
    let frame_of_other =
        vhost_core::Frame { header: other, payload: &[], handles: vhost_core::Handles::<Token>::new() };
    let rejection = front.handle_request(frame_of_other).unwrap_err();
    assert_eq!(rejection.fault(), Fault::Caller(ApiMisuse::AnswerOutstanding { message: expected }));
    assert_eq!(front, before);
    let found = BackendReply::SharedObjectLookup(0, Some(ledger.token()));
    let Ok(Reaction::Sent(packet)) = answer(&mut front, found) else { panic!() };
    assert_eq!((&packet.bytes, packet.handles.len()), (&lookup.reply(), 1));
    drop(packet);
    // And an acknowledgement is no look-up.
    let change = wire::backend_request("CONFIG_CHANGE_MSG");
    drop(front.handle_request(frame(&change.request_needing_reply(), Vec::new())).unwrap());
    let found = BackendReply::SharedObjectLookup(0, Some(ledger.token()));
    let expected = BackendCode::CONFIG_CHANGE_MSG.message();
    let misfit = ApiMisuse::AnswerDoesNotFit { expected, found: Some(BackendCode::SHARED_OBJECT_LOOKUP.message()) };
    assert_eq!(answer(&mut front, found), Err(misfit));
    let refused = BackendReply::Refused(NonZeroU64::new(9).unwrap());
    let Ok(Reaction::Sent(packet)) = answer(&mut front, refused) else { panic!() };
    assert_eq!(packet.bytes, change.acknowledgement(9));
    ledger.assert_settled();
}
