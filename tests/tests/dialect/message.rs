//! The requests of every dialect as bytes, field after field from the table of dialects.

use vhost_core::{CacheAccess, CacheEntry, Dialect};
use vhost_tests::wire::{self, Bytes};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Map,
    Unmap,
    Sync,
    Io,
}

pub(crate) const OPERATIONS: [Operation; 4] = [Operation::Map, Operation::Unmap, Operation::Sync, Operation::Io];

/// The dialects that have such requests.
pub(crate) const DIALECTS: [Dialect; 6] =
    [Dialect::FsA1, Dialect::FsA2, Dialect::FsA2Gen, Dialect::FsB, Dialect::Private1000, Dialect::Crosvm1002];

/// One request of a dialect.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) descriptors: usize,
}

impl Message {
    /// The whole message with these flags: 1, or 9 to be answered.
    pub(crate) fn bytes(&self, flags: u32) -> Vec<u8> {
        let size = u32::try_from(self.payload.len()).unwrap();
        [&wire::header(self.id, flags, size), &self.payload[..]].concat()
    }
}

/// The id of an operation; `None` if the dialect has no such request.
pub(crate) fn id(dialect: Dialect, operation: Operation) -> Option<u32> {
    let ids = match dialect {
        Dialect::FsA1 => [4, 5, 6, 7],
        Dialect::FsA2 => [6, 7, 8, 9],
        Dialect::FsA2Gen | Dialect::FsB => [6, 7, 0, 8],
        Dialect::Private1000 => [1000, 1001, 1002, 1003],
        Dialect::Crosvm1002 => [1002, 1003, 1004, 1005],
        _ => [0; 4],
    };
    let place = OPERATIONS.iter().position(|known| *known == operation).unwrap();
    Some(ids[place]).filter(|id| *id != 0)
}

/// The request of an operation in a dialect with these mappings.
pub(crate) fn message(dialect: Dialect, operation: Operation, entries: &[CacheEntry]) -> Option<Message> {
    let payload = match dialect {
        Dialect::FsA2Gen => Bytes::new().u64(1).raw(&columns(entries)),
        Dialect::FsB => {
            let count = u16::try_from(entries.len()).unwrap();
            entries.iter().fold(Bytes::new().u32(1).u16(count).padding(2), |bytes, entry| {
                let CacheEntry { file_offset, cache_offset, length, access } = *entry;
                bytes.u64(file_offset).u64(cache_offset).u64(length).u64(access.bits())
            })
        }
        _ => Bytes::new().raw(&columns(entries)),
    };
    let descriptors = match operation {
        Operation::Map | Operation::Io => 1,
        Operation::Unmap | Operation::Sync => 0,
    };
    Some(Message { id: id(dialect, operation)?, payload: payload.done(), descriptors })
}

/// Flags that concern all mappings, in the dialects that have some.
pub(crate) fn flags(dialect: Dialect) -> u64 {
    u64::from(matches!(dialect, Dialect::FsA2Gen | Dialect::FsB))
}

/// Eight of each: file offsets, offsets in the window, lengths, accesses.
fn columns(entries: &[CacheEntry]) -> Vec<u8> {
    let fields: [fn(&CacheEntry) -> u64; 4] =
        [|entry| entry.file_offset, |entry| entry.cache_offset, |entry| entry.length, |entry| entry.access.bits()];
    let unused = CacheEntry { file_offset: 0, cache_offset: 0, length: 0, access: CacheAccess::empty() };
    let rows = Vec::from_iter(entries.iter().chain([&unused; 8]).take(8));
    let numbers = fields.iter().flat_map(|field| rows.iter().map(|entry| field(entry)));
    numbers.fold(Bytes::new(), Bytes::u64).done()
}

/// An entry whose four fields differ.
pub(crate) fn entry(number: u64, access: CacheAccess) -> CacheEntry {
    CacheEntry { file_offset: 0x1000 + number, cache_offset: 0x20_0000 * (number + 1), length: 0x3000 + number, access }
}

/// Three mappings: read, read and write, read again.
pub(crate) fn three() -> Vec<CacheEntry> {
    let both = CacheAccess::READ | CacheAccess::WRITE;
    vec![entry(0, CacheAccess::READ), entry(1, both), entry(2, CacheAccess::READ)]
}

/// Eight mappings: as many as a request holds.
pub(crate) fn eight() -> Vec<CacheEntry> {
    (0..8).map(|number| entry(number, CacheAccess::READ)).collect()
}
