//! Ids that mean one thing in a dialect and another today: none is taken for the other.

use crate::message::{self, DIALECTS, OPERATIONS, Operation, id, message};
use crate::session::{EVERYTHING, Outcome, acknowledgement, deliver, frame, session};
use vhost_core::wire::header::Header;
use vhost_core::wire::payload::PayloadFault;
use vhost_core::{BackendCode, BackendReply, BackendRequest, DecodeError, Dialect, Fault, Frame};
use vhost_tests::tracked::Ledger;
use vhost_tests::wire;

/// What an id means in a dialect, by hand.
fn meaning(dialect: Dialect, wanted: u32) -> Option<BackendCode> {
    let codes = [BackendCode::FS_MAP, BackendCode::FS_UNMAP, BackendCode::FS_SYNC, BackendCode::FS_IO];
    let own = OPERATIONS.iter().zip(codes).find(|(operation, _)| id(dialect, **operation) == Some(wanted));
    match (own, wanted) {
        (Some((_, code)), _) => Some(code),
        // The answer to a request of that branch which is not spoken.
        (None, 9) if dialect == Dialect::FsA2Gen => None,
        (None, 1000..=1003) => None,
        (None, _) => Some(BackendCode(wanted)),
    }
}

#[test]
fn ids_and_requests_are_translated_both_ways() {
    for dialect in DIALECTS.into_iter().chain([Dialect::Standard, Dialect::Auto]) {
        for id in (0..20).chain(995..1010) {
            assert_eq!(dialect.code(id), meaning(dialect, id), "{dialect} {id}");
        }
        for code in (0..20).chain(1000..1004).map(BackendCode) {
            let ids = Vec::from_iter((0..2000).filter(|id| meaning(dialect, *id) == Some(code)));
            assert!(ids.len() < 2);
            assert_eq!(dialect.id(code), ids.first().copied(), "{dialect} {code:?}");
        }
    }
    assert_eq!(Dialect::FsA2.id(BackendCode(u32::MAX)), Some(u32::MAX), "unknown ids survive");
}

/// QEMU 11.1 takes the first 16 bytes of such a message for a UUID and acknowledges it: the mapping does not exist, and
/// nobody knows.
#[test]
fn a_standard_session_refuses_the_requests_of_all_dialects_with_a_nack() {
    let mut frontend = session(Dialect::Standard, EVERYTHING).0;
    let mut refused = 0;
    for dialect in DIALECTS {
        for operation in OPERATIONS {
            // Eight mappings: with one, a list has the 40 bytes of SHMEM_MAP, but another id.
            for entries in [message::eight(), message::eight()[..1].to_vec()] {
                let Some(message) = message(dialect, operation, &entries) else { continue };
                let ledger = Ledger::new();
                let bytes = message.bytes(9);
                let (outcome, _) =
                    deliver(&mut frontend, frame(&bytes, &ledger, message.descriptors), BackendReply::Done, drop);
                // SHARED_OBJECT_LOOKUP has a reply of its own, which says the same.
                let expected = Outcome::Refused(Some(acknowledgement(message.id, 1)));
                assert_eq!(outcome, expected, "{dialect}: {operation:?}");
                ledger.assert_settled();
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 2 * 22);
}

#[test]
fn a_shared_object_has_sixteen_bytes() {
    let mut frontend = session(Dialect::Standard, EVERYTHING).0;
    for id in [6, 7, 8] {
        for size in [0_usize, 8, 15, 17, 24, 40, 256, 264] {
            let bytes = [&wire::header(id, 9, size as u32)[..], &vec![7; size]].concat();
            let (outcome, rejection) =
                deliver(&mut frontend, frame(&bytes, &Ledger::new(), 0), BackendReply::Done, drop);
            assert_eq!(outcome, Outcome::Refused(Some(acknowledgement(id, 1))), "{id} of {size}");
            let Fault::Bytes(DecodeError::Payload { fault: PayloadFault::Size { found, .. }, .. }) =
                rejection.unwrap().fault()
            else {
                panic!("{rejection:?}")
            };
            assert_eq!(found, size);
        }
    }
}

/// The sizes of the dialects are eight bytes apart, and what one sends the others refuse.
#[test]
fn no_dialect_takes_the_size_of_another() {
    for spoken in DIALECTS {
        for sent in DIALECTS {
            let mut frontend = session(spoken, EVERYTHING).0;
            let message = message(sent, Operation::Map, &message::eight()).unwrap();
            let bytes = message.bytes(9);
            let (outcome, _) = deliver(&mut frontend, frame(&bytes, &Ledger::new(), 1), BackendReply::Done, drop);
            let refused = Outcome::Refused(Some(acknowledgement(message.id, 1)));
            match (spoken, sent) {
                _ if spoken == sent => {
                    assert_eq!(outcome, Outcome::Granted(Some(acknowledgement(message.id, 0))), "{spoken}");
                }
                // Both have 264 bytes, and nothing in them tells which it is: this is why a session has one dialect.
                (Dialect::FsB, Dialect::FsA2Gen) => assert_eq!(outcome, refused, "the count is no count"),
                (Dialect::FsA2Gen, Dialect::FsB) => {
                    assert_eq!(outcome, Outcome::Granted(Some(acknowledgement(message.id, 0))));
                }
                // Crosvm's map is what rust-vmm called synchronise.
                (Dialect::Private1000, Dialect::Crosvm1002) => assert_eq!(outcome, refused, "one descriptor too many"),
                _ => assert_eq!(outcome, refused, "{sent} in {spoken}"),
            }
        }
    }
}

/// The front-end of that branch stops the channel with what is SET_STATUS and GET_STATUS today; its answer is not taken
/// for SHMEM_MAP.
#[test]
fn the_answer_to_a_stopped_channel_is_unknown() {
    let mut frontend = session(Dialect::FsA2Gen, EVERYTHING).0;
    let bytes = wire::backend_request("SHMEM_MAP").message(9);
    let (outcome, rejection) = deliver(&mut frontend, frame(&bytes, &Ledger::new(), 1), BackendReply::Done, drop);
    assert_eq!(outcome, Outcome::Refused(Some(acknowledgement(9, 1))));
    let unknown = DecodeError::UnknownRequest { message: BackendCode(9).message() };
    assert_eq!(rejection.unwrap().fault(), Fault::Bytes(unknown));
}

/// The answer repeats the id that came, also when another request has it as its name here.
#[test]
fn what_is_unknown_is_refused_by_its_own_id() {
    for (dialect, id) in
        [(Dialect::FsA2, 1000), (Dialect::Standard, 1003), (Dialect::Crosvm1002, 1001), (Dialect::FsB, 99)]
    {
        let mut frontend = session(dialect, EVERYTHING).0;
        let header = Header::request_of(id, true, 0);
        let frame = Frame { header, payload: &[], handles: Ledger::new().tokens(0).into_iter().collect() };
        let (outcome, _) = deliver(&mut frontend, frame, BackendReply::Done, drop);
        assert_eq!(outcome, Outcome::Refused(Some(acknowledgement(id, 1))), "{dialect}");
    }
}

#[test]
fn standard_requests_are_spoken_beside_a_dialect_unless_it_has_their_id() {
    let standard = wire::all_backend_requests();
    for dialect in DIALECTS {
        for fixture in standard.iter().filter(|fixture| !matches!(fixture.id, 1 | 3)) {
            let taken = meaning(dialect, fixture.id) != Some(BackendCode(fixture.id));
            let mut frontend = session(dialect, EVERYTHING).0;
            let bytes = fixture.message(1);
            let frame = frame(&bytes, &Ledger::new(), fixture.descriptors);
            let mut code = None;
            let reply = match fixture.id {
                8 => BackendReply::SharedObjectLookup(0, None),
                _ => BackendReply::Done,
            };
            if taken {
                let rejection = frontend.handle_request(frame).unwrap_err();
                assert!(matches!(rejection.fault(), Fault::Bytes(_)), "{dialect}: {}: {rejection}", fixture.name);
            } else {
                let look = |request: BackendRequest<'_, _>| code = Some(request.code());
                let (outcome, _) = deliver(&mut frontend, frame, reply, look);
                assert!(matches!(outcome, Outcome::Granted(_)), "{dialect}: {}", fixture.name);
                assert_eq!(code, Some(BackendCode(fixture.id)));
            }
        }
    }
}
