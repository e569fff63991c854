//! A refusal is no disconnect: the device says no, the other side hears it if it can, and everything is as before.

use crate::bad_input::assert_works;
use crate::machines::{Back, Packet, Reaction, buffer, frame, offering};
use crate::stage::{PROTOCOL_OFFERED, Stage, message, say};
use core::num::NonZeroU64;
use vhost_core::wire::row::{Refusal, ReplyRule};
use vhost_core::{
    BackendCode, BackendReply, Delivery, Form, FrontendCode, FrontendReply, FrontendRequest, SilentRefusal,
};
use vhost_tests::tracked::Ledger;
use vhost_tests::wire::{self, Fixture, Message, REPLY, REQUEST, REQUEST_NEEDING_REPLY, Reply, feature};

/// The requests after which both sides must be of one mind about features or memory.
const MUST_AGREE: [&str; 5] = ["SET_FEATURES", "SET_PROTOCOL_FEATURES", "SET_MEM_TABLE", "ADD_MEM_REG", "REM_MEM_REG"];

/// All requests that need no history.
fn fixtures() -> Vec<Fixture> {
    let mut all = wire::all_frontend_forms();
    all.retain(|fixture| !fixture.form.starts_with("postcopy"));
    all.retain(|fixture| !["POSTCOPY_LISTEN", "REM_MEM_REG"].contains(&fixture.name));
    all
}

fn back_in(stage: Stage, silent_refusal: SilentRefusal) -> Back {
    let mut config = offering(stage.offered, PROTOCOL_OFFERED);
    config.tolerance.silent_refusal = silent_refusal;
    let mut back = Back::new(config);
    say(&mut back, &message(16, &stage.protocol.to_ne_bytes()), Vec::new());
    say(&mut back, &message(2, &stage.features.to_ne_bytes()), Vec::new());
    back
}

/// The device refuses with this number.
fn refuse(back: &mut Back, fixture: &Fixture, flags: u32, number: u64, ledger: &Ledger) -> Reaction {
    let before = back.session().clone();
    let bytes = fixture.message(flags);
    let taken = back.handle_request(frame(&bytes, ledger.tokens(fixture.descriptors)));
    assert!(taken.is_ok(), "{}: {taken:?}", fixture.name);
    drop(taken);
    assert_eq!(*back.session(), before, "{}: nothing happens before the answer", fixture.name);
    let refusal = FrontendReply::Refused(NonZeroU64::new(number).unwrap());
    back.answer(refusal, &mut buffer()).unwrap().into()
}

#[test]
fn every_refusal_is_told_if_it_can_and_changes_nothing() {
    let ledger = Ledger::new();
    for fixture in fixtures() {
        let code = FrontendCode(fixture.id);
        let rule = code.row().unwrap().reply;
        for number in [1, 7, 22, u64::MAX] {
            let mut back = back_in(Stage::of(&fixture).acknowledging(), SilentRefusal::default());
            let before = back.clone();
            match refuse(&mut back, &fixture, REQUEST_NEEDING_REPLY, number, &ledger) {
                Reaction::Sent(Packet { bytes, handles }) => {
                    assert!(handles.is_empty());
                    let (message, _) = Message::read(&bytes).unwrap();
                    assert_eq!((message.header.request, message.header.flags), (fixture.id, REPLY));
                    if matches!(fixture.reply, Reply::Acknowledgement) || rule == ReplyRule::Status {
                        assert_eq!(message.number(), number, "{}", fixture.name);
                    }
                    assert_eq!(back, before, "{}", fixture.name);
                    assert_works(&mut back);
                }
                Reaction::Closed => {
                    let untold = matches!(rule, ReplyRule::Own(Refusal::Close) | ReplyRule::LogFile);
                    assert!(untold && back.has_failed(), "{}", fixture.name);
                    assert_eq!(back.session(), before.session(), "{}", fixture.name);
                }
                Reaction::Silent => panic!("{}: it was asked for", fixture.name),
            }
        }
    }
    ledger.assert_settled();
}

#[test]
fn a_refused_transfer_keeps_its_error_number_in_eight_bits() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_request("SET_DEVICE_STATE_FD");
    for (number, told) in [(1, 0x101), (0x16, 0x116), (0x1ff, 0x1ff), (0x100, 0x101), (u64::MAX, 0x1ff)] {
        let mut back = back_in(Stage::of(&fixture), SilentRefusal::default());
        let Reaction::Sent(packet) = refuse(&mut back, &fixture, REQUEST, number, &ledger) else {
            panic!("{number:#x}")
        };
        assert_eq!(Message::read(&packet.bytes).unwrap().0.number(), told, "{number:#x}");
    }
}

/// What becomes of a refusal that cannot be told.
fn untold(fixture: &Fixture, setting: SilentRefusal, flags: u32) {
    let ledger = Ledger::new();
    // Without REPLY_ACK the flag changes nothing, with it the flag is missing.
    let stage = if flags == REQUEST { Stage::of(fixture).acknowledging() } else { Stage::of(fixture) };
    let mut back = back_in(stage, setting);
    let before = back.clone();
    let closes = match setting {
        SilentRefusal::CloseIfDisagreeing => MUST_AGREE.contains(&fixture.name),
        SilentRefusal::Close => true,
        SilentRefusal::Continue => false,
    };
    match refuse(&mut back, fixture, flags, 1, &ledger) {
        Reaction::Silent => {
            assert!(!closes, "{}: {setting:?}", fixture.name);
            assert_eq!(back, before, "{}", fixture.name);
            assert_works(&mut back);
        }
        Reaction::Closed => {
            assert!(closes && back.has_failed(), "{}: {setting:?}", fixture.name);
            assert_eq!(back.session(), before.session(), "{}", fixture.name);
        }
        Reaction::Sent(packet) => panic!("{}: {packet:?}", fixture.name),
    }
    ledger.assert_settled();
}

#[test]
fn a_refusal_that_cannot_be_told_ends_the_session_as_the_settings_say() {
    let mut fixtures = fixtures();
    fixtures.retain(|fixture| matches!(fixture.reply, Reply::Acknowledgement));
    for setting in [SilentRefusal::CloseIfDisagreeing, SilentRefusal::Close, SilentRefusal::Continue] {
        for fixture in &fixtures {
            untold(fixture, setting, REQUEST);
            // A flag without REPLY_ACK; these two need it anyway, or bring it.
            if !["VRING_KICK", "SET_PROTOCOL_FEATURES"].contains(&fixture.name) {
                untold(fixture, setting, REQUEST_NEEDING_REPLY);
            }
        }
    }
}

#[test]
fn a_frontend_hears_of_a_refusal_and_goes_on() {
    let ledger = Ledger::new();
    for fixture in fixtures().iter().filter(|fixture| matches!(fixture.reply, Reply::Acknowledgement)) {
        if fixture.name == "SET_PROTOCOL_FEATURES" {
            continue; // Never acknowledged.
        }
        for number in [1, 12, u64::MAX] {
            let mut front = Stage::of(fixture).acknowledging().front();
            let before = front.clone();
            let bytes = fixture.request();
            let form = Form::request(front.session().negotiated().protocol);
            let request = FrontendRequest::decode(frame(&bytes, ledger.tokens(fixture.descriptors)), form).unwrap();
            drop(front.request(request, Delivery::Acknowledged, &mut buffer()).unwrap());
            assert_eq!(front.session(), before.session(), "{}: nothing happens before the answer", fixture.name);
            let reply = fixture.acknowledgement(number);
            let refused = FrontendReply::Refused(NonZeroU64::new(number).unwrap());
            assert_eq!(front.handle_reply(frame(&reply, Vec::new())), Ok(refused), "{}", fixture.name);
            assert_eq!(front, before, "{}", fixture.name);
        }
    }
    ledger.assert_settled();
}

#[test]
fn a_frontend_reads_the_refusal_in_a_reply() {
    let ledger = Ledger::new();
    let telling = ["refused", "not found", "unsound"];
    for fixture in fixtures() {
        let refusals = fixture.answers().iter().filter(|answer| telling.contains(&answer.form));
        for refusal in refusals {
            let mut front = Stage::of(&fixture).front();
            let before = front.session().clone();
            let bytes = fixture.request();
            let form = Form::request(front.session().negotiated().protocol);
            let request = FrontendRequest::decode(frame(&bytes, ledger.tokens(fixture.descriptors)), form).unwrap();
            drop(front.request(request, Delivery::Acknowledged, &mut buffer()).unwrap());
            let reply = refusal.message(fixture.id);
            let heard = front.handle_reply(frame(&reply, ledger.tokens(refusal.descriptors))).unwrap();
            assert!(matches!(heard, FrontendReply::Refused(_)), "{}: {heard:?}", fixture.name);
            drop(heard);
            assert!(*front.session() == before && !front.has_failed(), "{}", fixture.name);
        }
    }
    ledger.assert_settled();
}

#[test]
fn a_backend_hears_of_a_refusal_and_goes_on() {
    let ledger = Ledger::new();
    for fixture in wire::all_backend_forms() {
        let mut back = back_in(Stage::of(&fixture).acknowledging(), SilentRefusal::default());
        say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
        let before = back.clone();
        let bytes = fixture.request();
        let form = Form::request(back.session().negotiated().protocol);
        let request =
            vhost_core::BackendRequest::decode(frame(&bytes, ledger.tokens(fixture.descriptors)), form).unwrap();
        assert_eq!(request.code(), BackendCode(fixture.id));
        drop(back.request(request, Delivery::Acknowledged, &mut buffer()).unwrap());
        let reply = fixture.acknowledgement(5);
        let refused = BackendReply::Refused(NonZeroU64::new(5).unwrap());
        assert_eq!(back.handle_reply(frame(&reply, Vec::new())), Ok(refused), "{}", fixture.name);
        assert_eq!(back, before);
    }
    ledger.assert_settled();
}

#[test]
fn a_request_that_was_not_acknowledged_before_reply_ack_is_silent() {
    // The flag before REPLY_ACK is negotiated: libvhost-user and DPDK answer, rust-vmm and we do not.
    let mut back = crate::machines::back(feature::OFFERED, PROTOCOL_OFFERED);
    let owner = wire::frontend_request("SET_OWNER").request_needing_reply();
    assert_eq!(say(&mut back, &owner, Vec::new()), Reaction::Silent);
    say(&mut back, &message(16, &feature::REPLY_ACK.to_ne_bytes()), Vec::new());
    assert!(matches!(say(&mut back, &owner, Vec::new()), Reaction::Sent(_)));
}
