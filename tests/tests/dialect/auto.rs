//! A front-end that does not know which of two dialects it will hear.

use crate::message::{self, OPERATIONS, Operation, message};
use crate::session::{
    EVERYTHING, FrontendMachine, Outcome, WITHOUT_DESCRIPTORS, acknowledgement, deliver, frame, session,
};
use core::num::NonZeroU64;
use vhost_core::{BackendReply, BackendRequest, Dialect};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire;

fn auto() -> FrontendMachine {
    session(Dialect::Auto, EVERYTHING).0
}

fn send(frontend: &mut FrontendMachine, dialect: Dialect, operation: Operation) -> Outcome {
    let message = message(dialect, operation, &message::eight()).unwrap();
    let bytes = message.bytes(9);
    let reply = if operation == Operation::Io { BackendReply::CacheIo(0) } else { BackendReply::Done };
    let frame = frame(&bytes, &Ledger::new(), message.descriptors);
    let is_right = |request: BackendRequest<'_, Token>| {
        let found = match request {
            BackendRequest::CacheMap(..) => Operation::Map,
            BackendRequest::CacheUnmap(_) => Operation::Unmap,
            BackendRequest::CacheSync(_) => Operation::Sync,
            BackendRequest::CacheIo(..) => Operation::Io,
            _ => panic!("{request:?}"),
        };
        assert_eq!(found, operation);
    };
    deliver(frontend, frame, reply, is_right).0
}

#[test]
fn the_first_request_tells_the_dialect_and_from_then_on_it_is_spoken() {
    for (dialect, other) in [(Dialect::FsA1, Dialect::FsA2), (Dialect::FsA2, Dialect::FsA1)] {
        for first in OPERATIONS {
            let mut frontend = auto();
            assert_eq!(frontend.session().dialect(), Dialect::Auto);
            assert!(matches!(send(&mut frontend, dialect, first), Outcome::Granted(_)), "{dialect}: {first:?}");
            assert_eq!(frontend.session().dialect(), dialect, "{first:?}");
            for operation in OPERATIONS {
                assert!(matches!(send(&mut frontend, dialect, operation), Outcome::Granted(_)));
            }
            // Of the other dialect only what has its own id and no descriptor too many or too few gets through, as
            // something else; here none does.
            let foreign = message(other, Operation::Map, &message::eight()).unwrap();
            let bytes = foreign.bytes(9);
            let frame = frame(&bytes, &Ledger::new(), 1);
            let (outcome, _) = deliver(&mut frontend, frame, BackendReply::Done, drop);
            assert!(matches!(outcome, Outcome::Refused(Some(_))), "{other} in {dialect}");
            assert_eq!(frontend.session().dialect(), dialect);
        }
    }
}

#[test]
fn what_is_said_today_tells_nothing() {
    let mut frontend = auto();
    let before = frontend.session().clone();
    for name in ["VRING_CALL", "SHARED_OBJECT_ADD", "SHARED_OBJECT_REMOVE", "SHMEM_MAP", "SHMEM_UNMAP"] {
        let fixture = wire::backend_request(name);
        let bytes = fixture.message(9);
        let (outcome, _) =
            deliver(&mut frontend, frame(&bytes, &Ledger::new(), fixture.descriptors), BackendReply::Done, drop);
        assert_eq!(outcome, Outcome::Granted(Some(acknowledgement(fixture.id, 0))), "{name}");
        assert_eq!(*frontend.session(), before);
    }
}

#[test]
fn what_neither_dialect_says_tells_nothing() {
    // Map with two descriptors or none, unmap with one, one byte too many, and the other dialects.
    let cases =
        [(4, 256, 0), (4, 256, 2), (5, 256, 1), (6, 256, 2), (7, 256, 2), (8, 256, 1), (4, 257, 1), (6, 255, 1)]
            .into_iter()
            .chain([(6, 264, 1), (6, 264, 0), (10, 256, 0), (1000, 256, 1), (1002, 256, 1)]);
    for (id, size, descriptors) in cases {
        let ledger = Ledger::new();
        let mut frontend = auto();
        let before = frontend.session().clone();
        let bytes = [&wire::header(id, 9, size)[..], &vec![0; size as usize]].concat();
        let (outcome, _) = deliver(&mut frontend, frame(&bytes, &ledger, descriptors), BackendReply::Done, drop);
        assert_eq!(outcome, Outcome::Refused(Some(acknowledgement(id, 1))), "{id} of {size} with {descriptors}");
        assert_eq!(*frontend.session(), before);
        ledger.assert_settled();
    }
}

/// What the machine refuses changes nothing; what the VMM refuses was still said in that dialect.
#[test]
fn a_request_behind_a_shut_gate_tells_nothing() {
    let mut frontend = session(Dialect::Auto, WITHOUT_DESCRIPTORS).0;
    assert_eq!(
        send(&mut frontend, Dialect::FsA1, Operation::Map),
        Outcome::Refused(Some(acknowledgement(4, 1))),
        "answered by the id that came"
    );
    assert_eq!(frontend.session().dialect(), Dialect::Auto);

    let mut frontend = auto();
    let map = message(Dialect::FsA1, Operation::Map, &message::eight()).unwrap();
    let bytes = map.bytes(9);
    let refused = BackendReply::Refused(NonZeroU64::new(12).unwrap());
    let (outcome, _) = deliver(&mut frontend, frame(&bytes, &Ledger::new(), 1), refused, drop);
    assert_eq!(outcome, Outcome::Granted(Some(acknowledgement(4, 12))));
    assert_eq!(frontend.session().dialect(), Dialect::FsA1);
}
