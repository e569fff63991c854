//! The front-end's machine: what it takes, and that nobody waits for its answers in vain.

use crate::codec::frame;
use crate::message::{self, Message, Reply, edid_data, message};
use core::num::NonZeroU64;
use vhost_core::wire::gpu::{DisplayInfo, Edid};
use vhost_core::wire::payload::PayloadFault;
use vhost_core::{
    Answered, ApiMisuse, DecodeError, Fault, GpuCode, GpuFeatures, GpuFrontend, GpuFrontendConfig, GpuReply,
    GpuViolation, MAX_MESSAGE, PeerMisbehaved, Rejection, Verdict, Violation,
};
use vhost_tests::tracked::{Ledger, Token};

type Answer = GpuReply<'static, Token>;

const REFUSED: Answer = GpuReply::Refused(NonZeroU64::MIN);

/// Four scanouts; both features acknowledged.
fn negotiated() -> GpuFrontend {
    let mut frontend = GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::KNOWN, 4));
    take(&mut frontend, &message("SET_PROTOCOL_FEATURES")).unwrap();
    assert_eq!(answer(&mut frontend, GpuReply::Done), Ok(None));
    assert_eq!(frontend.acknowledged(), GpuFeatures::KNOWN);
    frontend
}

fn take(frontend: &mut GpuFrontend, message: &Message) -> Result<(), Rejection> {
    frontend.handle_request(frame(&message.head(), &Ledger::new(), message.descriptors)).map(drop)
}

/// The bytes of the answer; `None` if nothing is to be sent.
fn answer(frontend: &mut GpuFrontend, reply: GpuReply<'_, Token>) -> Result<Option<Vec<u8>>, ApiMisuse> {
    let before = frontend.clone();
    let mut out = [0; MAX_MESSAGE];
    let result = match frontend.answer(reply, &mut out) {
        Ok(Answered::Send(transmit)) => Ok(Some(transmit.bytes.to_vec())),
        Ok(Answered::Silent) => Ok(None),
        Ok(Answered::Close) => panic!("this protocol has an answer to everything"),
        Err(misuse) => Err(misuse),
    };
    if result.is_err() {
        assert_eq!(*frontend, before, "misuse changes nothing");
    }
    result
}

fn with_scanout(message: &Message, scanout: u32) -> Message {
    let mut message = message.clone();
    message.payload[..4].copy_from_slice(&scanout.to_ne_bytes());
    message
}

#[test]
fn every_request_is_answered_as_the_table_says() {
    let info = DisplayInfo::new(&[]);
    let edid = Edid::new(&edid_data()).unwrap();
    for message in message::all() {
        let mut frontend = negotiated();
        take(&mut frontend, &message).unwrap();
        let mut reply = GpuReply::Done;
        let mut expected = message.whole_reply();
        match message.id {
            1 => reply = frontend.own_answer().unwrap(),
            3 => {
                reply = GpuReply::GetDisplayInfo(&info);
                expected = Some(message::reply(3, &message::response(0x1101).padding(384).done()));
            }
            11 => reply = GpuReply::GetEdid(&edid),
            _ => {}
        }
        assert_eq!(answer(&mut frontend, reply), Ok(expected), "{}", message.name);
        assert_eq!(answer(&mut frontend, GpuReply::Done), Err(ApiMisuse::NothingToAnswer));
    }
}

/// What a back-end hears that asked in vain, whatever the reason: it must not wait for ever.
fn refusal(id: u32) -> Option<Vec<u8>> {
    let error = |size: usize| message::response(0x1200).padding(size - 24).done();
    let payload = match id {
        1 => vec![0; 8],
        3 => error(408),
        10 => Vec::new(),
        11 => error(1056),
        _ => return None,
    };
    Some(message::reply(id, &payload))
}

#[test]
fn what_is_refused_is_answered_all_the_same() {
    for message in message::all() {
        let mut frontend = negotiated();
        let features = frontend.acknowledged();
        take(&mut frontend, &message).unwrap();
        assert_eq!(answer(&mut frontend, REFUSED), Ok(refusal(message.id)), "{}", message.name);
        assert_eq!(frontend.acknowledged(), features);
        assert!(!frontend.has_failed());
    }
}

#[test]
fn a_scanout_that_does_not_exist_is_refused_and_still_answered() {
    let with_scanouts = message::all().into_iter().filter(|message| matches!(message.id, 4..));
    for message in with_scanouts {
        for found in [4, 16, 0x100, 0x1_0000, u32::MAX] {
            let mut frontend = negotiated();
            let rejection = take(&mut frontend, &with_scanout(&message, found)).unwrap_err();
            let violation = Violation::Gpu(GpuViolation::Scanout { found, scanouts: 4 });
            let name = GpuCode(message.id).message();
            assert_eq!(rejection.fault(), Fault::Peer(PeerMisbehaved::Violation { message: name, violation }));
            assert_eq!(rejection.verdict(), Verdict::Refuse);
            assert!(matches!(answer(&mut frontend, GpuReply::Done), Err(ApiMisuse::AnswerDoesNotFit { .. })));
            assert_eq!(answer(&mut frontend, REFUSED), Ok(refusal(message.id)), "{}", message.name);
        }
        take(&mut negotiated(), &with_scanout(&message, 3)).unwrap();
    }
    // No display has more than 16, whatever the configuration says.
    let mut frontend = GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::KNOWN, 200));
    take(&mut frontend, &with_scanout(&message("SCANOUT"), 16)).unwrap_err();
    assert_eq!(answer(&mut frontend, REFUSED), Ok(None));
    take(&mut frontend, &with_scanout(&message("SCANOUT"), 15)).unwrap();
}

#[test]
fn a_refusal_may_name_the_error_for_the_guest() {
    let mut frontend = negotiated();
    for (number, kind) in
        [(0x1202, 0x1202), (0x12ff, 0x12ff), (0x1300, 0x1200), (0x1101, 0x1200), (0x1_0000_1202, 0x1200)]
    {
        take(&mut frontend, &message("GET_EDID")).unwrap();
        let reply = GpuReply::Refused(NonZeroU64::new(number).unwrap());
        let expected = message::reply(11, &message::response(kind).padding(1032).done());
        assert_eq!(answer(&mut frontend, reply), Ok(Some(expected)), "{number:#x}");
    }
}

#[test]
fn an_unknown_request_is_no_reason_to_close() {
    let mut frontend = negotiated();
    for id in [0, 13, 33, u32::MAX] {
        let unknown = Message { id, ..message("SCANOUT") };
        let rejection = take(&mut frontend, &unknown).unwrap_err();
        assert_eq!(rejection.fault(), Fault::Bytes(DecodeError::UnknownRequest { message: GpuCode(id).message() }));
        assert_eq!(rejection.verdict(), Verdict::Refuse);
        assert_eq!(answer(&mut frontend, REFUSED), Ok(None));
        take(&mut frontend, &message("SCANOUT")).unwrap();
        answer(&mut frontend, GpuReply::Done).unwrap();
    }
}

#[test]
fn what_was_not_acknowledged_is_refused_and_still_answered() {
    for name in ["GET_EDID", "DMABUF_SCANOUT2"] {
        let mut frontend = GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::KNOWN, 4));
        let message = message(name);
        let rejection = take(&mut frontend, &message).unwrap_err();
        let gate = GpuCode(message.id).row().unwrap().gate;
        let fault = PeerMisbehaved::Violation {
            message: GpuCode(message.id).message(),
            violation: Violation::NotNegotiated { gate },
        };
        assert_eq!((rejection.fault(), rejection.verdict()), (Fault::Peer(fault), Verdict::Refuse));
        assert_eq!(answer(&mut frontend, REFUSED), Ok(refusal(message.id)));
    }
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let mut frontend = GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::EDID, 4));
    let rejection = take(&mut frontend, &message("SET_PROTOCOL_FEATURES")).unwrap_err();
    let violation = Violation::Gpu(GpuViolation::FeaturesNotOffered { excess: GpuFeatures::DMABUF2 });
    let message = GpuCode::SET_PROTOCOL_FEATURES.message();
    assert_eq!(rejection.fault(), Fault::Peer(PeerMisbehaved::Violation { message, violation }));
    assert_eq!(answer(&mut frontend, REFUSED), Ok(None));
    assert_eq!(frontend.acknowledged(), GpuFeatures::empty());
}

/// Refused here means also: none of what needs them is taken afterwards.
#[test]
fn features_that_were_refused_are_not_acknowledged() {
    let mut frontend = GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::KNOWN, 4));
    take(&mut frontend, &message("SET_PROTOCOL_FEATURES")).unwrap();
    assert_eq!(answer(&mut frontend, REFUSED), Ok(None));
    assert_eq!(frontend.acknowledged(), GpuFeatures::empty());
    take(&mut frontend, &message("GET_EDID")).unwrap_err();
    assert_eq!(answer(&mut frontend, REFUSED), Ok(refusal(11)));
    assert!(!frontend.has_failed());
}

#[test]
fn a_malformed_request_is_refused_and_its_descriptors_are_closed() {
    let ledger = Ledger::new();
    let mut frontend = negotiated();
    let update = message("UPDATE");
    let head = update.head_with(0, 20 + 80);
    let rejection = frontend.handle_request(frame(&head, &ledger, 0)).unwrap_err();
    let fault = PayloadFault::Image { width: 7, height: 3, found: 80 };
    let error = DecodeError::Payload { message: GpuCode::UPDATE.message(), fault };
    assert_eq!((rejection.fault(), rejection.verdict()), (Fault::Bytes(error), Verdict::Refuse));
    assert_eq!(answer(&mut frontend, REFUSED), Ok(None));
    for message in message::all() {
        let head = message.head();
        let rejection = frontend.handle_request(frame(&head, &ledger, message.descriptors + 1)).unwrap_err();
        assert!(matches!(rejection.fault(), Fault::Bytes(DecodeError::HandleCount { .. })));
        ledger.assert_settled();
        assert_eq!(answer(&mut frontend, REFUSED), Ok(refusal(message.id)));
    }
}

#[test]
fn a_reply_where_a_request_is_expected_ends_the_channel() {
    let mut frontend = negotiated();
    let bytes = message("DMABUF_UPDATE").whole_reply().unwrap();
    let rejection = frontend.handle_request(frame(&bytes, &Ledger::new(), 0)).unwrap_err();
    let message_name = GpuCode::DMABUF_UPDATE.message();
    let error = DecodeError::ReplyInsteadOfRequest { message: message_name };
    assert_eq!((rejection.fault(), rejection.verdict()), (Fault::Bytes(error), Verdict::Close));
    assert!(frontend.has_failed());
    let before = frontend.clone();
    let rejection = take(&mut frontend, &message("SCANOUT")).unwrap_err();
    assert_eq!((rejection.fault(), rejection.verdict()), (Fault::Caller(ApiMisuse::SessionFailed), Verdict::Misuse));
    assert_eq!(frontend, before);
}

#[test]
fn a_version_that_does_not_exist_ends_the_channel() {
    for (flags, accepted) in [(0, true), (1, true), (2, false), (3, false)] {
        let mut frontend = negotiated();
        let head = message("SCANOUT").head_with(flags, 12);
        let result = frontend.handle_request(frame(&head, &Ledger::new(), 0)).map(drop);
        assert_eq!(result.is_ok(), accepted, "flags {flags}");
        assert_eq!(frontend.has_failed(), !accepted, "flags {flags}");
    }
}

#[test]
fn answers_fit_and_come_before_the_next_request() {
    let mut frontend = negotiated();
    let edid = Edid::new(&[]).unwrap();
    take(&mut frontend, &message("GET_DISPLAY_INFO")).unwrap();
    let rejection = take(&mut frontend, &message("SCANOUT")).unwrap_err();
    let expected = GpuCode::GET_DISPLAY_INFO.message();
    let outstanding = ApiMisuse::AnswerOutstanding { message: expected };
    assert_eq!((rejection.fault(), rejection.verdict()), (Fault::Caller(outstanding), Verdict::Misuse));
    for (reply, found) in [(GpuReply::Done, None), (GpuReply::GetEdid(&edid), Some(GpuCode::GET_EDID.message()))] {
        assert_eq!(answer(&mut frontend, reply), Err(ApiMisuse::AnswerDoesNotFit { expected, found }));
    }
    let mut out = [0; 419];
    let info = DisplayInfo::new(&[]);
    let small = frontend.answer::<Token>(GpuReply::GetDisplayInfo(&info), &mut out).unwrap_err();
    assert_eq!(small, ApiMisuse::BufferTooSmall { message: expected, given: 419 });
    assert_eq!(frontend.own_answer::<Token>(), None);
    answer(&mut frontend, GpuReply::GetDisplayInfo(&info)).unwrap().unwrap();

    // An EDID for a request that is not answered at all.
    take(&mut frontend, &message("SCANOUT")).unwrap();
    answer(&mut frontend, GpuReply::GetEdid(&edid)).unwrap_err();
    answer(&mut frontend, GpuReply::Done).unwrap();
}

/// The reply kinds above come from this list; it must be the table's.
#[test]
fn refusals_are_due_where_replies_are() {
    for message in message::all() {
        assert_eq!(refusal(message.id).is_some(), message.reply != Reply::Nothing, "{}", message.name);
    }
}
