//! Rings of both layouts: a driver and a device that use one as they should, and contents that have broken others.

use vhost_fuzz::TARGETS;
use vhost_tests::wire::{Bytes, feature};

use crate::Seed;

/// Bits of an input's first byte.
const PACKED: u8 = 1;
const HONEST: u8 = 2;
/// Operations of the target.
const POP: u8 = 0;
const PUSH: u8 = 2;
const NEEDS_CALL: u8 = 4;
const ENABLE_KICKS: u8 = 5;
const ADD: u8 = 6;
const ADD_INDIRECT: u8 = 7;
const PUBLISH: u8 = 8;
const POLL: u8 = 9;
const ENABLE_CALLS: u8 = 10;
const WRITE: u8 = 11;
/// Flags of a descriptor.
const NEXT: u16 = 1;
const WRITABLE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAILABLE: u16 = 1 << 7;

pub fn all() -> Vec<Seed> {
    assert!(TARGETS.iter().any(|(name, _)| *name == "rings"));
    let features = [0, feature::INDIRECT_DESCRIPTORS, feature::EVENT_INDEX, 1 << 35, u64::MAX];
    let mut inputs = Vec::new();
    for features in features {
        for (layout, sizes) in [(0, &[1, 2, 8, 16][..]), (PACKED, &[1, 3, 8, 16])] {
            for size in sizes {
                inputs.push(well_used(layout, *size, features));
            }
        }
    }
    inputs.extend(split_contents().into_iter().map(|contents| hostile(0, 4, 0, contents)));
    for base in [0, 0x8000_8000] {
        inputs.extend(packed_contents().into_iter().map(|contents| hostile(PACKED, 4, base, contents)));
    }
    inputs.into_iter().map(|input| ("rings", input)).collect()
}

fn begin(control: u8, size: u8, features: u64, base: u64) -> Vec<u8> {
    [&[control, size], &features.to_le_bytes()[..], &base.to_le_bytes()].concat()
}

/// Chains of one to three buffers, directly and by tables, three times around the ring, given back in another order.
fn well_used(layout: u8, size: u8, features: u64) -> Vec<u8> {
    let mut input = begin(layout | HONEST, size, features, 0);
    for round in 0..3 * size {
        for number in [round, round + 1, round + 2] {
            let add = if number % 2 == 0 { ADD } else { ADD_INDIRECT };
            input.extend([add + 12, number, PUBLISH, 0]);
        }
        input.extend([POP, 0, POP, 0, NEEDS_CALL, 0, PUSH, 1, ENABLE_KICKS, 0, PUSH, 0, PUSH, 0, NEEDS_CALL, 0]);
        input.extend([POLL, 0, ENABLE_CALLS, 0, POLL, 0]);
    }
    input
}

/// Memory that somebody else has filled, looked at by both sides, and changed in between.
fn hostile(layout: u8, size: u8, base: u64, mut contents: Vec<u8>) -> Vec<u8> {
    // As many pieces of eight bytes as six bits count.
    contents.resize(63 * 8, 0);
    let mut input = begin(layout | 63 << 2, size, feature::INDIRECT_DESCRIPTORS, base);
    input.extend(contents);
    for at in 0..4 {
        input.extend([POP, 0, PUSH, 0, ADD, 0x11, PUBLISH, 0, POLL, 0, WRITE, at * 8, POP, 0, ENABLE_KICKS, 0]);
    }
    input
}

fn descriptor(address: u64, length: u32, flags: u16, next: u16) -> Bytes {
    Bytes::new().u64(address).u32(length).u16(flags).u16(next)
}

/// A split ring's descriptors, its available ring at 0x100 and its used ring at 0x180.
fn split(descriptors: &[Bytes], available: u16, heads: &[u16], used: u16) -> Vec<u8> {
    let mut contents: Vec<u8> = descriptors.iter().flat_map(|descriptor| descriptor.clone().done()).collect();
    contents.resize(0x100, 0);
    let heads = heads.iter().fold(Bytes::new().u16(0).u16(available), |ring, head| ring.u16(*head));
    contents.extend(heads.done());
    contents.resize(0x180, 0);
    contents.extend(Bytes::new().u16(0).u16(used).u32(3).u32(0x100).u32(0xffff_0001).u32(u32::MAX).done());
    contents
}

fn split_contents() -> Vec<Vec<u8>> {
    let plain = || descriptor(0x400, 16, 0, 0);
    vec![
        split(&[plain(), descriptor(0x410, 8, WRITABLE, 0)], 2, &[0, 1], 1),
        // CVE-2019-9547: a chain that goes round, also to itself.
        split(&[descriptor(0x400, 8, NEXT, 1), descriptor(0x408, 8, NEXT, 0)], 1, &[0], 0),
        split(&[descriptor(0x400, 8, NEXT, 0)], 1, &[0], 0),
        // Links and heads beyond the ring.
        split(&[descriptor(0x400, 8, NEXT, 4)], 1, &[0], 0),
        split(&[plain()], 2, &[4, 0xffff], 0),
        // More available than the ring holds; used ahead of what was added.
        split(&[plain()], 5, &[0, 0, 0, 0], 0xffff),
        split(&[plain()], 0x8000, &[0], 0x8000),
        // CVE-2018-1059, CVE-2020-10725: addresses outside, without bytes, across the end, wrapping.
        split(&[descriptor(0x800, 1, 0, 0), descriptor(0x7ff, 2, 0, 0)], 2, &[0, 1], 0),
        split(&[descriptor(0x400, 0, 0, 0), descriptor(u64::MAX, 0, 0, 0)], 2, &[0, 1], 0),
        split(&[descriptor(u64::MAX - 7, 16, 0, 0), descriptor(0, u32::MAX, WRITABLE, 0)], 2, &[0, 1], 0),
        // Readable behind writable; tables: of no whole descriptor, within each other, with more behind, outside.
        split(&[descriptor(0x400, 8, NEXT | WRITABLE, 1), plain()], 1, &[0], 0),
        split(&[descriptor(0x20, 24, INDIRECT, 0), descriptor(0x20, 0, INDIRECT, 0)], 2, &[0, 1], 0),
        split(&[descriptor(0x10, 16, INDIRECT, 0), descriptor(0x10, 16, INDIRECT, 0)], 1, &[0], 0),
        split(&[descriptor(0x20, 32, INDIRECT | NEXT, 1), plain(), plain(), plain()], 1, &[0], 0),
        split(&[descriptor(0x1000, 32, INDIRECT, 0), descriptor(0x20, u32::MAX - 15, INDIRECT, 0)], 2, &[0, 1], 0),
        split(&[descriptor(0x20, 32, INDIRECT, 0), plain(), descriptor(0x400, 8, NEXT, 9), plain()], 1, &[0], 0),
    ]
}

/// A packed ring's descriptors; the events are at 0x100 and 0x180.
fn packed(descriptors: &[(u64, u32, u16, u16)], events: [u16; 4]) -> Vec<u8> {
    let each = descriptors
        .iter()
        .map(|&(address, length, id, flags)| Bytes::new().u64(address).u32(length).u16(id).u16(flags).done());
    let mut contents = each.collect::<Vec<_>>().concat();
    contents.resize(0x100, 0);
    contents.extend(Bytes::new().u16(events[0]).u16(events[1]).done());
    contents.resize(0x180, 0);
    contents.extend(Bytes::new().u16(events[2]).u16(events[3]).done());
    contents
}

fn packed_contents() -> Vec<Vec<u8>> {
    let used = AVAILABLE | 1 << 15;
    let events = [0x8000, 2, 0x8001, 2];
    vec![
        packed(&[(0x400, 16, 0, AVAILABLE), (0x410, 8, 1, AVAILABLE | WRITABLE)], events),
        // A chain that is longer than the ring, and one of which the end is missing.
        packed(&[(0x400, 8, 0, AVAILABLE | NEXT); 4], events),
        packed(&[(0x400, 8, 0, AVAILABLE | NEXT), (0x408, 8, 0, used)], events),
        // SPDK 3860: ids beyond the ring; the same id twice.
        packed(&[(0x400, 8, 4, AVAILABLE), (0x400, 8, 0xffff, AVAILABLE)], events),
        packed(&[(0x400, 8, 1, AVAILABLE), (0x408, 8, 1, AVAILABLE)], events),
        // Everything used, which nobody added.
        packed(&[(0, 8, 0, used), (0, 8, 1, used), (0, 8, 2, used), (0, 8, 3, used)], events),
        packed(&[(0x20, 32, 0, AVAILABLE | INDIRECT), (0, 0, 0, 0), (0x400, 8, 0, WRITABLE), (0x400, 8, 0, 0)], events),
        packed(&[(0x20, 24, 0, AVAILABLE | INDIRECT), (0x1000, 16, 1, AVAILABLE | INDIRECT)], [0xffff, 3, 0, 3]),
        packed(&[(u64::MAX, 2, 0, AVAILABLE), (0x400, 0, 1, AVAILABLE)], [0, 1, 0, 1]),
    ]
}
