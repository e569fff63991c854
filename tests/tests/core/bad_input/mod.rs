//! What a peer must not send: each with the error that names it. A refused message leaves everything as it was and the
//! session works on; after a fatal one it stays failed; no descriptor is lost either way.

mod framing;
mod memory;
mod negotiation;
mod rings;
mod sizes;

use crate::machines::{Back, Front, Reaction, buffer, frame};
use crate::stage::message;
use core::num::NonZeroU64;
use vhost_core::wire::row::{Refusal, ReplyRule};
use vhost_core::{
    ApiMisuse, BackendCode, BackendReply, DecodeError, Fault, FrontendCode, FrontendReply, Incoming, PeerMisbehaved,
    Verdict, Violation,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::Message;

/// The back-end refuses this message; gives back why.
#[track_caller]
pub(crate) fn refused(back: &Back, bytes: &[u8], descriptors: usize) -> Fault {
    let ledger = Ledger::new();
    let mut back_end = back.clone();
    let rejection = match back_end.handle_request(frame(bytes, ledger.tokens(descriptors))) {
        Err(rejection) => rejection,
        Ok(incoming) => panic!("{incoming:?} should be refused"),
    };
    ledger.assert_settled();
    assert_eq!(rejection.verdict(), Verdict::Refuse, "{rejection}");
    let again = back_end.handle_request(frame(bytes, ledger.tokens(descriptors))).unwrap_err();
    assert_eq!(again.verdict(), Verdict::Misuse, "it must be answered first");
    // An answer as if it had been granted does not fit.
    let misuse = back_end.answer(FrontendReply::<Token>::Done, &mut buffer()).unwrap_err();
    assert!(matches!(misuse, ApiMisuse::AnswerDoesNotFit { .. }), "{misuse}");
    let refusal = FrontendReply::Refused(NonZeroU64::MIN);
    let reaction = Reaction::from(back_end.answer(refusal, &mut buffer()).unwrap());
    if reaction == Reaction::Closed {
        let row = FrontendCode(Message::read(bytes).unwrap().0.header.request).row().unwrap();
        // Their replies cannot tell a failure.
        assert!(matches!(row.reply, ReplyRule::Own(Refusal::Close) | ReplyRule::LogFile), "closed: {rejection}");
        assert_failed(&mut back_end);
    } else {
        assert_eq!(back_end, *back, "{rejection}");
        assert_works(&mut back_end);
    }
    ledger.assert_settled();
    rejection.fault()
}

/// The back-end closes the connection over this message; gives back why.
#[track_caller]
pub(crate) fn closes(back: &Back, bytes: &[u8], descriptors: usize) -> Fault {
    let ledger = Ledger::new();
    let mut back_end = back.clone();
    let rejection = match back_end.handle_request(frame(bytes, ledger.tokens(descriptors))) {
        Err(rejection) => rejection,
        Ok(incoming) => panic!("{incoming:?} should close the connection"),
    };
    assert_eq!(rejection.verdict(), Verdict::Close, "{rejection}");
    assert_eq!(back_end.session(), back.session(), "{rejection}");
    assert_failed(&mut back_end);
    ledger.assert_settled();
    rejection.fault()
}

/// The front-end refuses this message of the back-end; gives back why.
#[track_caller]
pub(crate) fn refused_by_front(front: &Front, bytes: &[u8], descriptors: usize) -> Fault {
    let ledger = Ledger::new();
    let mut front_end = front.clone();
    let rejection = match front_end.handle_request(frame(bytes, ledger.tokens(descriptors))) {
        Err(rejection) => rejection,
        Ok(request) => panic!("{request:?} should be refused"),
    };
    ledger.assert_settled();
    assert_eq!(rejection.verdict(), Verdict::Refuse, "{rejection}");
    let refusal = BackendReply::Refused(NonZeroU64::MIN);
    let reaction = Reaction::from(front_end.answer_backend(refusal, &mut buffer()).unwrap());
    assert_ne!(reaction, Reaction::Closed, "{rejection}");
    assert_eq!(front_end, *front, "{rejection}");
    rejection.fault()
}

/// The back-end does what it is asked.
#[track_caller]
pub(crate) fn assert_works(back: &mut Back) {
    let request = message(1, &[]);
    assert!(matches!(back.handle_request(frame(&request, Vec::new())), Ok(Incoming::Request(_))));
    let reply = back.own_answer().unwrap();
    assert!(matches!(Reaction::from(back.answer(reply, &mut buffer()).unwrap()), Reaction::Sent(_)));
}

/// The back-end does nothing any more, and a repetition changes nothing.
#[track_caller]
pub(crate) fn assert_failed(back: &mut Back) {
    let failed = ApiMisuse::SessionFailed;
    assert!(back.has_failed());
    let before = back.clone();
    for request in [message(1, &[]), message(99, &[])] {
        let rejection = back.handle_request(frame(&request, Vec::new())).unwrap_err();
        assert_eq!((rejection.verdict(), rejection.fault()), (Verdict::Misuse, Fault::Caller(failed)));
    }
    assert_eq!(back.answer(FrontendReply::Done, &mut buffer()).map(Reaction::from), Err(failed));
    let request = vhost_core::BackendRequest::<Token>::ConfigChangeMsg;
    let sent = back.request(request, vhost_core::Delivery::Unacknowledged, &mut buffer()).map(drop);
    assert_eq!(sent, Err(failed));
    assert_eq!(*back, before);
}

/// This violation by this request.
pub(crate) fn violation(id: u32, violation: Violation) -> Fault {
    Fault::Peer(PeerMisbehaved::Violation { message: FrontendCode(id).message(), violation })
}

/// This violation by this request of a back-end.
pub(crate) fn backend_violation(id: u32, violation: Violation) -> Fault {
    Fault::Peer(PeerMisbehaved::Violation { message: BackendCode(id).message(), violation })
}

/// The bytes are wrong.
pub(crate) fn bytes(error: DecodeError) -> Fault {
    Fault::Bytes(error)
}
