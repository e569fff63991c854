//! The requests of a back-end, right and wrong.

use std::collections::BTreeSet;

use vhost_core::BackendCode;
use vhost_tests::wire::{self, Bytes, Fixture, REQUEST, REQUEST_NEEDING_REPLY};

use crate::case::{Kind, Said};

/// Asks for an acknowledgement.
const NEED_REPLY: u32 = 0x8;

/// One request.
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) said: Said,
}

impl Asked {
    fn new(name: &str, special: &str, said: Said) -> Self {
        Self { name: format!("{name}/{special}"), said }
    }

    /// A request that is always acknowledged, and is not the one that is looked at.
    pub(super) fn barrier(&self) -> Said {
        match self.said.id {
            2 => said(&wire::backend_request("SHARED_OBJECT_REMOVE"), REQUEST_NEEDING_REPLY),
            _ => said(&wire::backend_request("CONFIG_CHANGE_MSG"), REQUEST_NEEDING_REPLY),
        }
    }
}

fn said(fixture: &Fixture, flags: u32) -> Said {
    let descriptors = fixture.descriptors;
    Said { kind: Kind::Memory, descriptors, ..Said::new(fixture.id, flags, &fixture.payload) }
}

/// All of them, each with and without the wish for an acknowledgement.
pub(super) fn all() -> Vec<Asked> {
    let mut asked = Vec::new();
    for fixture in wire::all_backend_forms() {
        let name = format!("{} ({})", fixture.name, fixture.form);
        asked.push(Asked::new(&name, "as it should be", said(&fixture, REQUEST)));
    }
    let names = BackendCode::ALL.iter().filter(|code| code.0 <= 10).filter_map(|code| code.name());
    asked.extend(names.flat_map(|name| wrong(&wire::backend_request(name))));
    asked.extend(mappings());
    for id in [0, 11, 1000, u32::MAX] {
        asked.push(Asked::new(&format!("unknown request {id}"), "8 bytes", Said::new(id, REQUEST, &[7; 8])));
    }
    let flagged = |one: &Asked| Asked {
        name: format!("{}/flagged", one.name),
        said: Said { flags: one.said.flags | NEED_REPLY, ..one.said.clone() },
    };
    let with_flag = Vec::from_iter(asked.iter().map(flagged));
    asked.into_iter().chain(with_flag).collect()
}

/// What can be wrong with any request.
fn wrong(fixture: &Fixture) -> Vec<Asked> {
    let right = said(fixture, REQUEST);
    let mut asked = Vec::new();
    let mut add = |special: String, said| asked.push(Asked::new(fixture.name, &special, said));
    for flags in [0x0, 0x2, 0x3, 0x5, 0x11, 0xffff_fff1] {
        add(format!("flags {flags:#x}"), Said { flags, ..right.clone() });
    }
    let size = fixture.payload.len();
    for wrong in
        BTreeSet::from([0, size.saturating_sub(1), size + 1, 256, 4096]).into_iter().filter(|wrong| *wrong != size)
    {
        let mut payload = fixture.payload.clone();
        payload.resize(wrong, 0);
        add(format!("{wrong} bytes, not {size}"), right.clone().carrying(&payload));
    }
    add("4097 bytes announced".to_owned(), Said { size: 4097, payload: Vec::new(), ..right.clone() });
    for wrong in [0, 1, 2, 8].into_iter().filter(|wrong| *wrong != fixture.descriptors) {
        add(format!("{wrong} descriptors, not {}", fixture.descriptors), right.clone().with(wrong));
    }
    asked
}

/// Mappings that cannot be.
fn mappings() -> Vec<Asked> {
    let payload = |padding: u8, file: u64, place: u64, length: u64, flags: u64| {
        Bytes::new().u8(7).raw(&[padding; 7]).u64(file).u64(place).u64(length).u64(flags).done()
    };
    let each = [
        ("padding", payload(1, 0x3000, 0x4000, 0x2000, 1)),
        ("no byte", payload(0, 0x3000, 0x4000, 0, 1)),
        ("an offset in the file that wraps", payload(0, u64::MAX, 0x4000, 0x2000, 1)),
        ("an offset in the region that wraps", payload(0, 0x3000, u64::MAX, 0x2000, 1)),
        ("an offset within a page", payload(0, 0x3010, 0x4000, 0x2000, 1)),
        ("flags 2", payload(0, 0x3000, 0x4000, 0x2000, 2)),
        ("all flags", payload(0, 0x3000, 0x4000, 0x2000, u64::MAX)),
    ];
    let both = ["SHMEM_MAP", "SHMEM_UNMAP"].into_iter();
    let uuid = |name, byte: u8| {
        Asked::new(
            name,
            &format!("all bytes {byte:#x}"),
            said(&wire::backend_request(name), REQUEST).carrying(&[byte; 16]),
        )
    };
    let names = ["SHARED_OBJECT_ADD", "SHARED_OBJECT_REMOVE", "SHARED_OBJECT_LOOKUP"].into_iter();
    let objects = names.flat_map(|name| [uuid(name, 0), uuid(name, 0xff)]);
    let mapped = both.flat_map(|name| {
        let right = said(&wire::backend_request(name), REQUEST);
        each.clone().map(|(special, payload)| Asked::new(name, special, right.clone().carrying(&payload)))
    });
    mapped.chain(objects).collect()
}
