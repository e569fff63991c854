//! Numbers that a request should not carry, and the last ones that it may.

use vhost_tests::wire::{Bytes, feature};

use super::{begins_with_ring, case, requests, state, usual};
use crate::case::{Case, Kind, Said};
use crate::stage::{Offer, Stage};

pub(super) fn cases(offer: Offer) -> Vec<Case> {
    [ring_indices(offer), ring_numbers(), ring_addresses(), features(), config(), inflight(), others()].concat()
}

/// One case from the usual form with another payload.
fn with(stage: Stage, name: &str, special: &str, payload: Bytes) -> Case {
    case(stage, name, special, [usual(name).carrying(&payload.done())])
}

fn ring_indices(offer: Offer) -> Vec<Case> {
    let mut cases = Vec::new();
    for (_, fixture) in requests(offer).filter(|(_, fixture)| begins_with_ring(fixture)) {
        for index in [2, 255, 256, 0x8000_0000, u32::MAX] {
            let payload = Bytes::new().u32(index).raw(&fixture.payload[4..]);
            cases.push(with(Stage::Shared, fixture.name, &format!("ring {index:#x}"), payload));
        }
    }
    for name in ["SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR"] {
        for bits in [2, 255, 1 << 9 | 1, 1 << 32 | 1, 1 << 63 | 1] {
            cases.push(with(Stage::Shared, name, &format!("ring {bits:#x}"), Bytes::new().u64(bits)));
        }
        let one_and_none = usual(name).carrying(&0x101_u64.to_ne_bytes());
        cases.push(case(Stage::Shared, name, "a descriptor with bit 8", [one_and_none]));
        cases.push(case(Stage::Shared, name, "neither a descriptor nor bit 8", [usual(name).with(0)]));
        let memory = Said { kind: Kind::Memory, ..usual(name) };
        cases.push(case(Stage::Shared, name, "a descriptor that counts nothing", [memory]));
    }
    cases
}

fn ring_numbers() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut each = |name, numbers: &[u32]| {
        for number in numbers {
            let payload = Bytes::new().raw(&state(1, *number));
            cases.push(with(Stage::Agreed, name, &format!("number {number:#x}"), payload));
        }
    };
    each("SET_VRING_NUM", &[0, 1, 3, 1024, 2048, 32768, 65535, 65536, u32::MAX]);
    each("SET_VRING_BASE", &[0, 1, 65535, 65536, u32::MAX]);
    each("GET_VRING_BASE", &[1, u32::MAX]);
    each("SET_VRING_ENABLE", &[2, u32::MAX]);
    each("SET_VRING_ENDIAN", &[2, u32::MAX]);
    cases
}

fn ring_addresses() -> Vec<Case> {
    let [descriptors, used, available] = vhost_tests::wire::region::RING;
    let place = |flags, descriptors, used, available, log| {
        Bytes::new().u32(1).u32(flags).u64(descriptors).u64(used).u64(available).u64(log)
    };
    let each = [
        ("flags 2", place(2, descriptors, used, available, 0)),
        ("all flags", place(u32::MAX, descriptors, used, available, 0)),
        ("log that wraps", place(1, descriptors, used, available, u64::MAX)),
        ("unused log that wraps", place(0, descriptors, used, available, u64::MAX)),
        ("misaligned descriptors", place(0, descriptors + 8, used, available, 0)),
        ("misaligned used ring", place(0, descriptors, used + 2, available, 0)),
        ("misaligned available ring", place(0, descriptors, used, available + 1, 0)),
        ("descriptors that wrap", place(0, u64::MAX - 15, used, available, 0)),
        ("used ring that wraps", place(0, descriptors, u64::MAX - 3, available, 0)),
        ("descriptors outside memory", place(0, 0x1000, used, available, 0)),
        ("used ring outside memory", place(0, descriptors, 0x1000, available, 0)),
        ("available ring outside memory", place(0, descriptors, used, 0x1000, 0)),
        ("everything at 0", place(0, 0, 0, 0, 0)),
    ];
    let mut cases =
        Vec::from_iter(each.map(|(special, payload)| with(Stage::Shared, "SET_VRING_ADDR", special, payload)));
    cases.push(case(Stage::Agreed, "SET_VRING_ADDR", "no memory", [usual("SET_VRING_ADDR")]));
    cases
}

fn features() -> Vec<Case> {
    let virtio = [
        ("none", 0),
        ("bit 30 alone", feature::PROTOCOL_FEATURES),
        ("version 1 alone", feature::VERSION_1),
        ("bit 63", feature::VERSION_1 | feature::PROTOCOL_FEATURES | 1 << 63),
        ("bit 40", feature::VERSION_1 | feature::PROTOCOL_FEATURES | 1 << 40),
    ];
    let protocol = [
        ("none", 0),
        ("bit 63", feature::REPLY_ACK | 1 << 63),
        ("in-band notifications alone", feature::INBAND_NOTIFICATIONS),
        ("record of stopped rings alone", feature::GET_VRING_BASE_INFLIGHT),
        ("all", u64::MAX),
    ];
    let mut cases = Vec::new();
    for (name, all) in [("SET_FEATURES", virtio), ("SET_PROTOCOL_FEATURES", protocol)] {
        for (special, bits) in all {
            cases.push(with(Stage::Agreed, name, special, Bytes::new().u64(bits)));
        }
    }
    cases.push(with(Stage::Fresh, "SET_PROTOCOL_FEATURES", "acknowledgements", Bytes::new().u64(feature::REPLY_ACK)));
    cases
}

fn config() -> Vec<Case> {
    let part = |offset, size, flags, data| Bytes::new().u32(offset).u32(size).u32(flags).padding(data);
    let each = [
        ("one byte", part(0, 1, 0, 1)),
        ("all of a disk's", part(0, 60, 0, 60)),
        ("256 bytes", part(0, 256, 0, 256)),
        ("past the end", part(60, 8, 0, 8)),
        ("at the end of all offsets", part(u32::MAX, 8, 0, 8)),
        ("no byte", part(0, 0, 0, 0)),
        ("257 bytes", part(0, 257, 0, 257)),
        ("fewer bytes than it says", part(0, 16, 0, 8)),
        ("more bytes than it says", part(0, 8, 0, 16)),
        ("all bytes there are", part(0, u32::MAX, 0, 8)),
        ("flags 1", part(0, 8, 1, 8)),
        ("flags 2", part(0, 8, 2, 8)),
        ("flags 3", part(0, 8, 3, 8)),
        ("flags 4", part(0, 8, 4, 8)),
        ("all flags", part(0, 8, u32::MAX, 8)),
    ];
    let both = ["GET_CONFIG", "SET_CONFIG"].into_iter();
    both.flat_map(|name| each.clone().map(|(special, payload)| with(Stage::Agreed, name, special, payload))).collect()
}

fn inflight() -> Vec<Case> {
    let shape = |size, offset, queues, depth, padding: [u8; 4]| {
        Bytes::new().u64(size).u64(offset).u16(queues).u16(depth).raw(&padding)
    };
    let each = [
        ("no queue", shape(0x2080, 0, 0, 256, [0; 4])),
        ("queues of 0", shape(0x2080, 0, 2, 0, [0; 4])),
        ("3 queues", shape(0x4000, 0, 3, 256, [0; 4])),
        ("65535 queues", shape(0x4000, 0, 65535, 1, [0; 4])),
        ("queues of 65535", shape(0x40_0000, 0, 1, 65535, [0; 4])),
        ("no byte", shape(0, 0, 2, 256, [0; 4])),
        ("too few bytes", shape(0x1000, 0, 2, 256, [0; 4])),
        ("an offset that wraps", shape(0x2080, u64::MAX, 2, 256, [0; 4])),
        ("more than the file", shape(0x2080, 0x1000_0000, 2, 256, [0; 4])),
        ("padding", shape(0x2080, 0, 2, 256, [7; 4])),
    ];
    let both = ["GET_INFLIGHT_FD", "SET_INFLIGHT_FD"].into_iter();
    both.flat_map(|name| each.clone().map(|(special, payload)| with(Stage::Agreed, name, special, payload))).collect()
}

fn others() -> Vec<Case> {
    let two = |one, other| Bytes::new().u64(one).u64(other);
    let not_a_socket = |name| Said { kind: Kind::Memory, ..usual(name) };
    vec![
        with(Stage::Agreed, "SET_LOG_BASE", "no byte", two(0, 0)),
        with(Stage::Agreed, "SET_LOG_BASE", "an offset that wraps", two(0x1000, u64::MAX)),
        with(Stage::Agreed, "SET_LOG_BASE", "an offset within a page", two(0x1000, 0x10)),
        with(Stage::Agreed, "SET_LOG_BASE", "more than the file", two(0x1000, 0x1000_0000)),
        with(Stage::Agreed, "SET_DEVICE_STATE_FD", "direction 2", Bytes::new().u32(2).u32(0)),
        with(Stage::Agreed, "SET_DEVICE_STATE_FD", "phase 1", Bytes::new().u32(0).u32(1)),
        with(Stage::Agreed, "SET_STATUS", "0", Bytes::new().u64(0)),
        with(Stage::Agreed, "SET_STATUS", "256", Bytes::new().u64(256)),
        with(Stage::Agreed, "GET_SHARED_OBJECT", "zeros", two(0, 0)),
        with(Stage::Agreed, "GET_SHARED_OBJECT", "ones", two(u64::MAX, u64::MAX)),
        with(Stage::Agreed, "GET_SHARED_OBJECT", "unknown", two(0x0202_0202_0202_0202, 0)),
        case(Stage::Agreed, "SET_BACKEND_REQ_FD", "no socket", [not_a_socket("SET_BACKEND_REQ_FD")]),
        case(Stage::Agreed, "GPU_SET_SOCKET", "no socket", [not_a_socket("GPU_SET_SOCKET")]),
    ]
}
