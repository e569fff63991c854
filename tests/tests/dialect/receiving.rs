//! The front-end's side: every request of every dialect, and what only looks like one.

use crate::message::{self, DIALECTS, Message, OPERATIONS, Operation, flags, message};
use crate::session::{
    EVERYTHING, FrontendMachine, NEEDED, Outcome, WITHOUT_DESCRIPTORS, acknowledgement, deliver, frame, session,
};
use core::num::NonZeroU64;
use vhost_core::wire::payload::{Field, Form, PayloadFault, SizeRule};
use vhost_core::{
    BackendCode, BackendReply, BackendRequest, CacheAccess, CacheEntries, CacheEntry, DecodeError, Dialect, Fault,
    MAX_MESSAGE, PeerMisbehaved, Violation,
};
use vhost_tests::tracked::{Ledger, Token};

/// Every request of every dialect with three mappings.
fn all() -> Vec<(Dialect, Operation, Message)> {
    let pairs = DIALECTS.iter().flat_map(|dialect| OPERATIONS.map(|operation| (*dialect, operation)));
    let all = pairs.filter_map(|(dialect, operation)| {
        message(dialect, operation, &message::three()).map(|message| (dialect, operation, message))
    });
    all.collect()
}

fn frontend(dialect: Dialect) -> FrontendMachine {
    session(dialect, EVERYTHING).0
}

fn entries_of<'b>(request: &BackendRequest<'b, Token>) -> (Operation, CacheEntries<'b>) {
    match request {
        BackendRequest::CacheMap(entries, _) => (Operation::Map, *entries),
        BackendRequest::CacheUnmap(entries) => (Operation::Unmap, *entries),
        BackendRequest::CacheSync(entries) => (Operation::Sync, *entries),
        BackendRequest::CacheIo(entries, _) => (Operation::Io, *entries),
        _ => panic!("{request:?}"),
    }
}

fn granting(operation: Operation) -> BackendReply<Token> {
    if operation == Operation::Io { BackendReply::CacheIo(0x3003) } else { BackendReply::Done }
}

#[test]
fn every_request_of_every_dialect_says_the_same() {
    assert_eq!(all().len(), 22, "four of each, three of two");
    for (dialect, operation, message) in all() {
        let ledger = Ledger::new();
        let mut frontend = frontend(dialect);
        let bytes = message.bytes(9);
        let frame = frame(&bytes, &ledger, message.descriptors);
        let (outcome, _) = deliver(&mut frontend, frame, granting(operation), |request| {
            let (found, entries) = entries_of(&request);
            assert_eq!(found, operation, "{dialect}");
            assert_eq!(Vec::from_iter(entries.iter()), message::three(), "{dialect}: {operation:?}");
            assert_eq!(entries.flags(), flags(dialect), "{dialect}: {operation:?}");
            assert_eq!(request.into_handle().is_some(), message.descriptors == 1);
        });
        let number = if operation == Operation::Io { 0x3003 } else { 0 };
        assert_eq!(outcome, Outcome::Granted(Some(acknowledgement(message.id, number))), "{dialect}: {operation:?}");
        ledger.assert_settled();
    }
}

#[test]
fn every_request_goes_back_to_the_same_bytes() {
    for (dialect, operation, message) in all() {
        let form = Form::request(NEEDED).with_dialect(dialect);
        let bytes = message.bytes(9);
        let request = BackendRequest::decode(frame(&bytes, &Ledger::new(), message.descriptors), form).unwrap();
        let mut out = [0xee; MAX_MESSAGE];
        let transmit = request.encode(true, form, &mut out).unwrap();
        assert_eq!(transmit.bytes, bytes, "{dialect}: {operation:?}");
        assert_eq!(transmit.handles.len(), message.descriptors);
    }
}

#[test]
fn a_request_cut_anywhere_or_too_long_is_refused_with_a_nack() {
    for (dialect, operation, message) in all() {
        let mut frontend = frontend(dialect);
        let before = frontend.session().clone();
        let whole = message.payload.len();
        for size in (0..whole).chain([whole + 1, whole + 8, whole + 32]) {
            let ledger = Ledger::new();
            let mut other = message.clone();
            other.payload.resize(size, 0);
            let bytes = other.bytes(9);
            let frame = frame(&bytes, &ledger, message.descriptors);
            let (outcome, rejection) = deliver(&mut frontend, frame, BackendReply::Done, drop);
            assert_eq!(
                outcome,
                Outcome::Refused(Some(nack(operation, message.id))),
                "{dialect}: {operation:?} of {size}"
            );
            let Fault::Bytes(DecodeError::Payload { message: name, fault }) = rejection.unwrap().fault() else {
                panic!("{rejection:?}")
            };
            assert_eq!(dialect.id(BackendCode(name.id)), Some(message.id));
            let list_without_count = dialect == Dialect::FsB && size < 8;
            let expected = SizeRule::Exactly(if list_without_count { 8 } else { whole });
            assert_eq!(fault, PayloadFault::Size { expected, found: size });
            ledger.assert_settled();
        }
        assert_eq!(*frontend.session(), before, "refused means unchanged");
    }
}

/// A refusal: 1, or for what counts bytes -1.
fn nack(operation: Operation, id: u32) -> Vec<u8> {
    acknowledgement(id, if operation == Operation::Io { u64::MAX } else { 1 })
}

#[test]
fn descriptors_are_one_to_map_and_none_to_unmap() {
    for (dialect, operation, message) in all() {
        for descriptors in 0..4 {
            let ledger = Ledger::new();
            let mut frontend = frontend(dialect);
            let allowed = match operation {
                Operation::Map => descriptors == 1,
                Operation::Unmap | Operation::Sync => descriptors == 0,
                Operation::Io => descriptors <= 1,
            };
            let bytes = message.bytes(9);
            let frame = frame(&bytes, &ledger, descriptors);
            let (outcome, rejection) = deliver(&mut frontend, frame, granting(operation), drop);
            assert_eq!(rejection.is_none(), allowed, "{dialect}: {operation:?} with {descriptors}");
            if let Some(rejection) = rejection {
                assert!(matches!(rejection.fault(), Fault::Bytes(DecodeError::HandleCount { .. })), "{rejection}");
                assert_eq!(outcome, Outcome::Refused(Some(nack(operation, message.id))));
            }
            ledger.assert_settled();
        }
    }
}

#[test]
fn they_need_the_channel_and_its_descriptors() {
    for (dialect, operation, message) in all() {
        let mut frontend = session(dialect, WITHOUT_DESCRIPTORS).0;
        let bytes = message.bytes(9);
        let frame = frame(&bytes, &Ledger::new(), message.descriptors);
        let (outcome, rejection) = deliver(&mut frontend, frame, BackendReply::Done, drop);
        let Fault::Peer(PeerMisbehaved::Violation { violation: Violation::NotNegotiated { gate }, .. }) =
            rejection.unwrap().fault()
        else {
            panic!("{rejection:?}")
        };
        assert_eq!(gate.protocol(), NEEDED);
        assert_eq!(outcome, Outcome::Refused(Some(nack(operation, message.id))));
    }
}

/// Senders of that time set the flag without having negotiated acknowledgements, and wait.
#[test]
fn they_are_answered_when_they_ask_and_only_then() {
    for (dialect, operation, message) in all() {
        let answer = |protocol, flags, reply| {
            let mut frontend = session(dialect, protocol).0;
            let bytes = message.bytes(flags);
            deliver(&mut frontend, frame(&bytes, &Ledger::new(), message.descriptors), reply, drop).0
        };
        let done = acknowledgement(message.id, if operation == Operation::Io { 0x3003 } else { 0 });
        assert_eq!(answer(NEEDED, 9, granting(operation)), Outcome::Granted(Some(done)));
        let refused = || BackendReply::Refused(NonZeroU64::new(5).unwrap());
        let number = if operation == Operation::Io { 5_u64.wrapping_neg() } else { 5 };
        assert_eq!(answer(NEEDED, 9, refused()), Outcome::Granted(Some(acknowledgement(message.id, number))));
        for protocol in [NEEDED, EVERYTHING] {
            assert_eq!(answer(protocol, 1, granting(operation)), Outcome::Granted(None));
            assert_eq!(answer(protocol, 1, refused()), Outcome::Granted(None));
        }
    }
}

#[test]
fn entries_that_are_not_used_are_skipped() {
    let used = message::entry(3, CacheAccess::READ);
    let unused = CacheEntry { length: 0, ..message::entry(4, CacheAccess::WRITE) };
    let eight = [unused, used, unused, unused, used, unused, unused, used];
    for dialect in DIALECTS {
        for (slots, count) in [(&eight[..], 3), (&eight[..1], 0), (&[][..], 0)] {
            let message = message(dialect, Operation::Map, slots).unwrap();
            let bytes = message.bytes(9);
            deliver(&mut frontend(dialect), frame(&bytes, &Ledger::new(), 1), BackendReply::Done, |request| {
                let (_, entries) = entries_of(&request);
                assert_eq!(Vec::from_iter(entries.iter()), vec![used; count], "{dialect}");
            });
        }
    }
}

#[test]
fn what_wraps_around_is_refused_but_not_the_whole_window() {
    let base = message::entry(0, CacheAccess::READ);
    let whole = CacheEntry { length: CacheEntry::WHOLE_WINDOW, ..base };
    let far_window = CacheEntry { cache_offset: u64::MAX - 1, length: 2, ..base };
    let far_file = CacheEntry { file_offset: u64::MAX - 1, length: 2, ..base };
    let last = CacheEntry { cache_offset: u64::MAX - 2, file_offset: u64::MAX - 2, length: 2, ..base };
    for dialect in DIALECTS {
        for (operation, entry, accepted) in [
            (Operation::Unmap, whole, true),
            (Operation::Map, whole, false),
            (Operation::Io, whole, false),
            (Operation::Unmap, far_window, false),
            (Operation::Unmap, far_file, true),
            (Operation::Map, far_window, false),
            (Operation::Map, far_file, false),
            (Operation::Io, far_file, false),
            (Operation::Map, last, true),
        ] {
            // Behind a good one: each entry is looked at.
            let Some(message) = message(dialect, operation, &[base, entry]) else { continue };
            let bytes = message.bytes(9);
            let frame = frame(&bytes, &Ledger::new(), message.descriptors);
            let (_, rejection) = deliver(&mut frontend(dialect), frame, granting(operation), drop);
            assert_eq!(rejection.is_none(), accepted, "{dialect}: {operation:?} {entry:?}");
            if let Some(rejection) = rejection {
                let Fault::Peer(PeerMisbehaved::Violation { violation, .. }) = rejection.fault() else { panic!() };
                assert!(matches!(violation, Violation::ExtentWraps { .. }), "{violation}");
            }
        }
    }
}

#[test]
fn a_list_has_as_many_entries_as_it_counts() {
    for count in [0_usize, 1, 8, 9, 32] {
        let entries = Vec::from_iter((0..count).map(|_| message::entry(0, CacheAccess::READ)));
        let message = message(Dialect::FsB, Operation::Map, &entries).unwrap();
        assert_eq!(message.payload.len(), 8 + 32 * count);
        let bytes = message.bytes(9);
        deliver(&mut frontend(Dialect::FsB), frame(&bytes, &Ledger::new(), 1), BackendReply::Done, |request| {
            assert_eq!(entries_of(&request).1.iter().count(), count);
        });
    }
    for count in [33_usize, 0xffff] {
        let mut message = message(Dialect::FsB, Operation::Map, &message::eight()).unwrap();
        message.payload[4..6].copy_from_slice(&u16::try_from(count).unwrap().to_ne_bytes());
        let bytes = message.bytes(9);
        let frame = frame(&bytes, &Ledger::new(), 1);
        let (_, rejection) = deliver(&mut frontend(Dialect::FsB), frame, BackendReply::Done, drop);
        let expected = PayloadFault::Field { field: Field::MappingCount, found: count as u64 };
        let Fault::Bytes(DecodeError::Payload { fault, .. }) = rejection.unwrap().fault() else { panic!() };
        assert_eq!(fault, expected);
    }
}
