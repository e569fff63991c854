//! The back-end's side: what a device asks for is said as its session says it, or not at all.

use crate::message::{self, DIALECTS, OPERATIONS, Operation, flags, message};
use crate::session::{BackendMachine, EVERYTHING, NEEDED, WITHOUT_DESCRIPTORS, acknowledgement, ask, frame, session};
use core::num::NonZeroU64;
use vhost_core::wire::shared::SharedMemoryMap;
use vhost_core::{
    ApiMisuse, BackendCode, BackendReply, BackendRequest, CacheAccess, CacheEntries, CacheEntry, Dialect,
    DialectViolation, MAX_MESSAGE, PeerMisbehaved, Violation,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire;

const BOTH: CacheAccess = CacheAccess::READ.union(CacheAccess::WRITE);

fn request<'b>(operation: Operation, entries: CacheEntries<'b>, ledger: &Ledger) -> BackendRequest<'b, Token> {
    match operation {
        Operation::Map => BackendRequest::CacheMap(entries, ledger.token()),
        Operation::Unmap => BackendRequest::CacheUnmap(entries),
        Operation::Sync => BackendRequest::CacheSync(entries),
        Operation::Io => BackendRequest::CacheIo(entries, Some(ledger.token())),
    }
}

fn backend(dialect: Dialect) -> BackendMachine {
    session(dialect, EVERYTHING).1
}

fn hear(backend: &mut BackendMachine, id: u32, number: u64) -> Result<BackendReply<Token>, vhost_core::Fault> {
    backend.handle_reply(frame(&acknowledgement(id, number), &Ledger::new(), 0))
}

fn refusal(number: u64) -> BackendReply<Token> {
    BackendReply::Refused(NonZeroU64::new(number).unwrap())
}

/// What the machine refuses to say; the request's descriptors are closed.
fn violation(backend: &mut BackendMachine, operation: Operation, entries: CacheEntries<'_>) -> Violation {
    let ledger = Ledger::new();
    let misuse = ask(backend, request(operation, entries, &ledger)).unwrap_err();
    ledger.assert_settled();
    match misuse {
        ApiMisuse::Violation { violation, .. } => violation,
        _ => panic!("{misuse}"),
    }
}

#[test]
fn requests_have_the_bytes_of_their_dialect_and_always_ask_for_an_answer() {
    for (dialect, operation) in DIALECTS.iter().flat_map(|dialect| OPERATIONS.map(|operation| (*dialect, operation))) {
        for protocol in [NEEDED, EVERYTHING] {
            for listed in [message::three(), message::eight()] {
                let ledger = Ledger::new();
                let mut backend = session(dialect, protocol).1;
                let entries = CacheEntries::new(&listed).with_flags(flags(dialect));
                let Some(message) = message(dialect, operation, &listed) else {
                    let not_spoken = Violation::Dialect(DialectViolation::NotSpoken { dialect });
                    assert_eq!(violation(&mut backend, operation, entries), not_spoken);
                    continue;
                };
                let (bytes, handles) = ask(&mut backend, request(operation, entries, &ledger)).unwrap();
                assert_eq!(bytes, message.bytes(9), "{dialect}: {operation:?}");
                assert_eq!(handles.len(), message.descriptors);
                assert_eq!(backend.outstanding(), 1);
            }
        }
    }
}

#[test]
fn answers_are_success_refusal_or_a_count_of_bytes() {
    let listed = message::three();
    for (dialect, operation) in DIALECTS.iter().flat_map(|dialect| OPERATIONS.map(|operation| (*dialect, operation))) {
        let Some(id) = message::id(dialect, operation) else { continue };
        let answers = match operation {
            Operation::Io => [
                (0, BackendReply::CacheIo(0)),
                (0x9009, BackendReply::CacheIo(0x9009)),
                (i64::MAX as u64, BackendReply::CacheIo(i64::MAX)),
                (5_u64.wrapping_neg(), refusal(5)),
                (1 << 63, refusal(1 << 63)),
            ],
            // Some say 1, some the error's number below zero.
            _ => [
                (0, BackendReply::Done),
                (1, refusal(1)),
                (0x9009, refusal(0x9009)),
                (5_u64.wrapping_neg(), refusal(5_u64.wrapping_neg())),
                (u64::MAX, refusal(u64::MAX)),
            ],
        };
        for (number, expected) in answers {
            let mut backend = backend(dialect);
            ask(&mut backend, request(operation, CacheEntries::new(&listed), &Ledger::new())).unwrap();
            assert_eq!(hear(&mut backend, id, number), Ok(expected), "{dialect}: {operation:?}");
            assert_eq!(backend.outstanding(), 0);
        }
    }
}

#[test]
fn an_answer_to_another_id_is_a_fault() {
    let listed = message::three();
    let mut backend = backend(Dialect::Crosvm1002);
    ask(&mut backend, request(Operation::Map, CacheEntries::new(&listed), &Ledger::new())).unwrap();
    // 1000 is how the request is called here, not on the wire.
    let fault = hear(&mut backend, 1000, 0).unwrap_err();
    let wrong =
        PeerMisbehaved::WrongReply { expected: BackendCode::FS_MAP.message(), found: BackendCode(1000).message() };
    assert_eq!(fault, wrong.into());
}

#[test]
fn a_standard_session_says_one_mapping_in_the_words_of_today() {
    for dialect in [Dialect::Standard, Dialect::Auto] {
        let mut backend = backend(dialect);
        for (access, form) in [(BOTH, wire::Fixture::USUAL), (CacheAccess::READ, "read-only")] {
            let entry = CacheEntry { file_offset: 0x3000, cache_offset: 0x4000, length: 0x2000, access };
            let unused = CacheEntry { length: 0, ..entry };
            let mut expected = wire::backend_form("SHMEM_MAP", form);
            expected.payload[0] = 0; // the window is region 0
            let entries = [unused, entry, unused];
            let map = request(Operation::Map, CacheEntries::new(&entries), &Ledger::new());
            let (bytes, handles) = ask(&mut backend, map).unwrap();
            assert_eq!((bytes, handles.len()), (expected.message(1), 1));
        }
        let entry = CacheEntry { file_offset: 0x3000, cache_offset: 0x4000, length: 0x2000, access: BOTH };
        let mut expected = wire::backend_request("SHMEM_UNMAP");
        expected.payload[0] = 0;
        let unmap = request(Operation::Unmap, CacheEntries::new(core::slice::from_ref(&entry)), &Ledger::new());
        assert_eq!(ask(&mut backend, unmap).unwrap().0, expected.message(1));
    }
}

#[test]
fn what_a_standard_session_cannot_say_is_refused() {
    let dialect = Dialect::Standard;
    let mut backend = backend(dialect);
    let entry = message::entry(0, BOTH);
    let mut refused =
        |operation, entries: &[CacheEntry]| match violation(&mut backend, operation, CacheEntries::new(entries)) {
            Violation::Dialect(violation) => violation,
            violation => panic!("{violation}"),
        };
    let not_spoken = DialectViolation::NotSpoken { dialect };
    assert_eq!(refused(Operation::Sync, &[entry]), not_spoken);
    assert_eq!(refused(Operation::Io, &[entry]), not_spoken);
    assert_eq!(refused(Operation::Map, &[]), not_spoken, "nothing to say");
    for operation in [Operation::Map, Operation::Unmap] {
        let too_many = DialectViolation::Mappings { dialect, found: 2, limit: 1 };
        assert_eq!(refused(operation, &[entry, entry]), too_many);
    }
    let whole = CacheEntry { length: CacheEntry::WHOLE_WINDOW, ..entry };
    assert_eq!(refused(Operation::Unmap, &[whole]), DialectViolation::WholeWindow { dialect });
    for found in [CacheAccess::empty(), CacheAccess::WRITE, CacheAccess::from_bits_retain(5)] {
        assert_eq!(
            refused(Operation::Map, &[CacheEntry { access: found, ..entry }]),
            DialectViolation::Access { dialect, found }
        );
    }
    let flagged = CacheEntries::new(core::slice::from_ref(&entry)).with_flags(CacheEntries::DROP_FSETID);
    let flags = Violation::Dialect(DialectViolation::Flags { dialect, found: 1 });
    assert_eq!(violation(&mut backend, Operation::Map, flagged), flags);
    // Without SHMEM today's words are not to be had either.
    let mut backend = session(dialect, NEEDED).1;
    let gate = BackendCode::SHMEM_MAP.row().unwrap().gate;
    let shut = violation(&mut backend, Operation::Map, CacheEntries::new(core::slice::from_ref(&entry)));
    assert_eq!(shut, Violation::NotNegotiated { gate });
}

#[test]
fn what_a_dialect_cannot_say_is_refused() {
    let nine = Vec::from_iter((0..9).map(|number| message::entry(number, CacheAccess::READ)));
    let one = &nine[..1];
    for dialect in DIALECTS {
        let mut backend = backend(dialect);
        let too_many = Violation::Dialect(DialectViolation::Mappings { dialect, found: 9, limit: 8 });
        assert_eq!(violation(&mut backend, Operation::Map, CacheEntries::new(&nine)), too_many);
        let largest = match dialect {
            Dialect::FsA2Gen => u64::MAX,
            Dialect::FsB => u32::MAX.into(),
            _ => 0,
        };
        let map = request(Operation::Map, CacheEntries::new(one).with_flags(largest), &Ledger::new());
        ask(&mut backend, map).unwrap();
        if let Some(found) = largest.checked_add(1) {
            let flags = Violation::Dialect(DialectViolation::Flags { dialect, found });
            assert_eq!(violation(&mut backend, Operation::Map, CacheEntries::new(one).with_flags(found)), flags);
        }
    }
}

#[test]
fn a_standard_request_whose_id_is_taken_is_refused() {
    for (dialect, taken) in [
        (Dialect::FsA1, &[4, 5, 6, 7][..]),
        (Dialect::FsA2, &[6, 7, 8, 9]),
        (Dialect::FsA2Gen, &[6, 7, 8, 9]),
        (Dialect::FsB, &[6, 7, 8]),
        (Dialect::Private1000, &[]),
        (Dialect::Crosvm1002, &[]),
        (Dialect::Auto, &[]),
    ] {
        let uuid = vhost_core::wire::shared::Uuid::new([1; 16]);
        let state = vhost_core::wire::vring::VringState::new(1, 0);
        let map = SharedMemoryMap::new(7, 0, 0x1000, 0x2000, 0);
        let requests: [BackendRequest<'_, Token>; 8] = [
            BackendRequest::ConfigChangeMsg,
            BackendRequest::VringCall(state),
            BackendRequest::VringErr(state),
            BackendRequest::SharedObjectAdd(uuid),
            BackendRequest::SharedObjectRemove(uuid),
            BackendRequest::SharedObjectLookup(uuid),
            BackendRequest::ShmemMap(map, Ledger::new().token()),
            BackendRequest::ShmemUnmap(map),
        ];
        for request in requests {
            let code = request.code();
            let expected = if taken.contains(&code.0) {
                let violation = Violation::Dialect(DialectViolation::NotSpoken { dialect });
                Err(ApiMisuse::Violation { message: code.message(), violation })
            } else {
                Ok(code.0)
            };
            let result = ask(&mut backend(dialect), request);
            let id = result.map(|(bytes, _)| u32::from_ne_bytes(bytes[..4].try_into().unwrap()));
            assert_eq!(id, expected, "{dialect}");
        }
    }
}

#[test]
fn the_gate_and_wrapping_hold_for_the_sender_too() {
    let entry = message::entry(0, CacheAccess::READ);
    let far = CacheEntry { cache_offset: u64::MAX, ..entry };
    for dialect in DIALECTS {
        let wraps = Violation::ExtentWraps { size: entry.length, offset: u64::MAX };
        assert_eq!(violation(&mut backend(dialect), Operation::Map, CacheEntries::new(&[entry, far])), wraps);
        let mut shut = session(dialect, WITHOUT_DESCRIPTORS).1;
        let gate = BackendCode::FS_MAP.row().unwrap().gate;
        let violation = violation(&mut shut, Operation::Map, CacheEntries::new(&[entry]));
        assert_eq!(violation, Violation::NotNegotiated { gate });
    }
    let map = SharedMemoryMap::new(0, 0, u64::MAX, 2, 0);
    for request in [BackendRequest::ShmemMap(map, Ledger::new().token()), BackendRequest::ShmemUnmap(map)] {
        assert!(matches!(
            ask(&mut backend(Dialect::Standard), request),
            Err(ApiMisuse::Violation { violation: Violation::ExtentWraps { size: 2, offset: u64::MAX }, .. })
        ));
    }
}

#[test]
fn violations_name_the_dialect() {
    let violation = Violation::Dialect(DialectViolation::Mappings { dialect: Dialect::FsA1, found: 9, limit: 8 });
    assert_eq!(violation.to_string(), "the dialect FsA1 takes at most 8 mappings in a request, not 9");
    let violation = Violation::Dialect(DialectViolation::NotSpoken { dialect: Dialect::FsB });
    assert_eq!(violation.to_string(), "the dialect FsB has no such request");
}

/// Entries of length zero say nothing, but take room.
#[test]
fn more_entries_than_a_message_has_room_for_are_not_sent() {
    for (dialect, limit) in [(Dialect::FsA1, 8), (Dialect::FsA2Gen, 8), (Dialect::FsB, 32), (Dialect::Crosvm1002, 8)] {
        let nothing = CacheEntry { length: 0, ..message::entry(1, BOTH) };
        let listed = [message::eight(), vec![nothing; limit - 7]].concat();
        let ledger = Ledger::new();
        let mut backend = backend(dialect);
        let before = backend.clone();
        let mut send = |listed| ask(&mut backend, request(Operation::Map, CacheEntries::new(listed), &ledger));
        let (message, given) = (BackendCode::FS_MAP.message(), MAX_MESSAGE);
        assert_eq!(send(&listed), Err(ApiMisuse::BufferTooSmall { message, given }), "{dialect}");
        assert!(send(&listed[..limit]).is_ok(), "{dialect}");
        assert_ne!(backend, before);
        ledger.assert_settled();
    }
}
