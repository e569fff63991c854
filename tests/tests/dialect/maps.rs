//! One way to look at mappings: a VMM has one code path for all dialects.

use crate::message::{self, DIALECTS, Operation, message};
use crate::session::{EVERYTHING, FrontendMachine, Outcome, deliver, frame, session};
use vhost_core::{BackendReply, BackendRequest, CacheAccess, CacheEntry, Dialect, MapChange};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire;

/// What a VMM would do: it looks at changes and at the descriptor, and knows of no dialect.
fn changes(frontend: &mut FrontendMachine, bytes: &[u8], descriptors: usize) -> (Vec<MapChange>, bool) {
    let mut seen = (Vec::new(), false);
    let ledger = Ledger::new();
    let (outcome, _) = deliver(
        frontend,
        frame(bytes, &ledger, descriptors),
        BackendReply::Done,
        |request: BackendRequest<'_, Token>| {
            let maps = request.maps();
            seen = (Vec::new(), request.into_handle().is_some());
            // The changes outlive the request.
            seen.0.extend(maps);
        },
    );
    assert!(matches!(outcome, Outcome::Granted(_)));
    ledger.assert_settled();
    seen
}

#[test]
fn mapping_looks_the_same_in_every_dialect() {
    let both = CacheAccess::READ | CacheAccess::WRITE;
    let entry = CacheEntry { file_offset: 0x3000, cache_offset: 0x4000, length: 0x2000, access: both };
    let map = |region| MapChange::Map { region, offset: 0x4000, length: 0x2000, file_offset: 0x3000, access: both };
    let unmap = |region| MapChange::Unmap { region, offset: 0x4000, length: 0x2000 };
    for dialect in DIALECTS {
        let mut frontend = session(dialect, EVERYTHING).0;
        let request = message(dialect, Operation::Map, &[entry]).unwrap();
        assert_eq!(changes(&mut frontend, &request.bytes(9), 1), (vec![map(0)], true), "{dialect}");
        let request = message(dialect, Operation::Unmap, &[entry]).unwrap();
        assert_eq!(changes(&mut frontend, &request.bytes(9), 0), (vec![unmap(0)], false), "{dialect}");
    }
    let mut frontend = session(Dialect::Standard, EVERYTHING).0;
    let request = wire::backend_request("SHMEM_MAP");
    assert_eq!(changes(&mut frontend, &request.message(9), 1), (vec![map(7)], true));
    let request = wire::backend_request("SHMEM_UNMAP");
    assert_eq!(changes(&mut frontend, &request.message(9), 0), (vec![unmap(7)], false));
    let request = wire::backend_form("SHMEM_MAP", "read-only");
    let (read_only, _) = changes(&mut frontend, &request.message(9), 1);
    assert!(matches!(read_only[..], [MapChange::Map { access: CacheAccess::READ, .. }]), "{read_only:?}");
}

#[test]
fn eight_mappings_are_eight_changes_with_one_descriptor_and_one_answer() {
    for dialect in DIALECTS {
        let mut frontend = session(dialect, EVERYTHING).0;
        let request = message(dialect, Operation::Map, &message::eight()).unwrap();
        let (maps, has_handle) = changes(&mut frontend, &request.bytes(9), 1);
        let expected = message::eight().into_iter().map(|entry| MapChange::Map {
            region: 0,
            offset: entry.cache_offset,
            length: entry.length,
            file_offset: entry.file_offset,
            access: entry.access,
        });
        assert_eq!((maps, has_handle), (expected.collect(), true), "{dialect}");
    }
}

#[test]
fn the_whole_window_is_unmapped_at_once() {
    let base = message::entry(0, CacheAccess::empty());
    let entries = [base, CacheEntry { length: CacheEntry::WHOLE_WINDOW, ..base }];
    for dialect in DIALECTS {
        let mut frontend = session(dialect, EVERYTHING).0;
        let request = message(dialect, Operation::Unmap, &entries).unwrap();
        let unmap = MapChange::Unmap { region: 0, offset: base.cache_offset, length: base.length };
        let (maps, _) = changes(&mut frontend, &request.bytes(9), 0);
        assert_eq!(maps, [unmap, MapChange::UnmapAll { region: 0 }], "{dialect}");
    }
}

#[test]
fn other_requests_change_no_mapping() {
    let mut frontend = session(Dialect::Private1000, EVERYTHING).0;
    for name in ["CONFIG_CHANGE_MSG", "VRING_CALL", "SHARED_OBJECT_ADD"] {
        let request = wire::backend_request(name);
        assert_eq!(changes(&mut frontend, &request.message(9), 0), (Vec::new(), false), "{name}");
    }
    let request = message(Dialect::Private1000, Operation::Sync, &message::eight()).unwrap();
    assert_eq!(changes(&mut frontend, &request.bytes(9), 0), (Vec::new(), false));
}

/// What a device asks for reaches the VMM as it was meant, whatever is spoken between.
#[test]
fn what_a_device_asks_for_is_what_a_vmm_sees() {
    let entry = message::entry(0, CacheAccess::READ);
    let expected = MapChange::Map {
        region: 0,
        offset: entry.cache_offset,
        length: entry.length,
        file_offset: entry.file_offset,
        access: entry.access,
    };
    for dialect in DIALECTS.into_iter().chain([Dialect::Standard]) {
        let (mut frontend, mut backend) = session(dialect, EVERYTHING);
        let entries = vhost_core::CacheEntries::new(core::slice::from_ref(&entry));
        let request = BackendRequest::CacheMap(entries, Ledger::new().token());
        let (bytes, handles) = crate::session::ask(&mut backend, request).unwrap();
        assert_eq!(changes(&mut frontend, &bytes, handles.len()), (vec![expected], true), "{dialect}");
    }
}
