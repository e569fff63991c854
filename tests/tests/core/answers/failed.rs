//! What a machine does with answers that are none, and after that: the channel that failed is of no use, the other one is.

use crate::bad_input::assert_works;
use crate::machines::{Back, Front, Reaction, buffer, frame};
use crate::stage::{Stage, flagged, say, state};
use vhost_core::wire::payload::{PayloadFault, SizeRule};
use vhost_core::wire::row::HandleCount;
use vhost_core::{
    ApiMisuse, BackendCode, BackendReply, BackendRequest, DecodeError, Delivery, Fault, FrontendRequest, Verdict,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::{self, REPLY, feature};

/// A back-end that has asked this on its own channel.
fn asking(request: BackendRequest<'_, Token>, ledger: &Ledger) -> Back {
    let mut back = Stage::with(feature::PROTOCOL_ACKNOWLEDGED | feature::SHARED_OBJECT).acknowledging().back();
    say(&mut back, &wire::frontend_request("SET_BACKEND_REQ_FD").request(), ledger.tokens(1));
    drop(back.request(request, Delivery::Acknowledged, &mut buffer()).unwrap());
    back
}

/// The back-end's channel fails over this answer, and only that; gives back why.
#[track_caller]
fn fault(mut back: Back, reply: &[u8], tokens: Vec<Token>) -> Fault {
    let fault = back.handle_reply::<Token>(frame(reply, tokens)).unwrap_err();
    let failed = back.clone();
    let again = back.handle_reply::<Token>(frame(reply, Vec::new())).unwrap_err();
    assert_eq!((again, &back), (Fault::Caller(ApiMisuse::SessionFailed), &failed));
    assert_works(&mut back);
    fault
}

#[test]
fn a_backend_takes_no_acknowledgement_of_another_form() {
    let ledger = Ledger::new();
    let back = asking(BackendRequest::ConfigChangeMsg, &ledger);
    let message = BackendCode::CONFIG_CHANGE_MSG.message();
    for found in [0, 4, 7, 9, 16] {
        let size = PayloadFault::Size { expected: SizeRule::Exactly(8), found };
        let reply = flagged(2, REPLY, &vec![0; found]);
        let expected = DecodeError::Payload { message, fault: size };
        assert_eq!(fault(back.clone(), &reply, Vec::new()), Fault::Bytes(expected));
    }
    let expected = HandleCount { least: 0, most: 0 };
    let descriptor = fault(back, &flagged(2, REPLY, &[0; 8]), ledger.tokens(1));
    assert_eq!(descriptor, Fault::Bytes(DecodeError::HandleCount { message, expected, found: 1 }));
    ledger.assert_settled();
}

#[test]
fn a_backend_takes_no_reply_of_another_form() {
    let ledger = Ledger::new();
    let uuid = vhost_core::wire::shared::Uuid::new([7; 16]);
    let back = asking(BackendRequest::SharedObjectLookup(uuid), &ledger);
    let message = BackendCode::SHARED_OBJECT_LOOKUP.message();
    for found in [0, 7] {
        let reply = flagged(message.id, REPLY, &vec![0; found]);
        let size = PayloadFault::Size { expected: SizeRule::Exactly(8), found };
        assert_eq!(
            fault(back.clone(), &reply, Vec::new()),
            Fault::Bytes(DecodeError::Payload { message, fault: size })
        );
    }
    let descriptors = fault(back, &flagged(message.id, REPLY, &[0; 8]), ledger.tokens(2));
    assert!(matches!(descriptors, Fault::Bytes(DecodeError::HandleCount { found: 2, .. })), "{descriptors}");
    ledger.assert_settled();
}

/// A front-end whose back-end has asked something.
fn asked() -> Front {
    let mut front = Stage::usual().acknowledging().front();
    drop(front.handle_request::<Token>(frame(&flagged(4, 9, &state(0, 0)), Vec::new())).unwrap());
    front
}

fn answer(front: &mut Front) -> Result<Reaction, ApiMisuse> {
    front.answer_backend(BackendReply::<Token>::Done, &mut buffer()).map(Reaction::from)
}

#[test]
fn a_frontend_that_failed_answers_and_hears_nothing() {
    let mut front = asked();
    // A reply to nothing, on the main channel.
    assert!(front.handle_reply::<Token>(frame(&flagged(1, REPLY, &[0; 8]), Vec::new())).is_err());
    assert!(front.has_failed());
    let failed = front.clone();
    assert_eq!(answer(&mut front), Err(ApiMisuse::SessionFailed));
    let rejection = front.handle_request::<Token>(frame(&flagged(4, 1, &state(0, 0)), Vec::new())).unwrap_err();
    assert_eq!(rejection.verdict(), Verdict::Misuse);
    assert_eq!(rejection.to_string(), "the session has failed");
    assert_eq!(front, failed);
}

#[test]
fn a_frontend_answers_nothing_on_a_channel_that_failed() {
    let mut front = Stage::usual().acknowledging().front();
    // A reply where only requests come.
    let rejection = front.handle_request::<Token>(frame(&flagged(4, REPLY, &[0; 8]), Vec::new())).unwrap_err();
    assert_eq!(rejection.verdict(), Verdict::Close);
    assert_eq!(answer(&mut front), Err(ApiMisuse::SessionFailed));
    // The session goes on.
    assert!(!front.has_failed());
    let request = FrontendRequest::<Token>::GetFeatures;
    assert!(front.request(request, Delivery::Unacknowledged, &mut buffer()).is_ok());
}
