//! Rings that do not exist, and rings that cannot be like that.

use super::{backend_violation, refused, refused_by_front, violation};
use crate::machines::{Back, Reaction, offering};
use crate::stage::{PROTOCOL_OFFERED, Rings, Stage, flagged, say, state};
use vhost_core::{FrontendConfig, Violation};
use vhost_tests::wire::region::{RING, RING_LOG};
use vhost_tests::wire::{Bytes, feature};

/// Rings of the device; the machine has room for more.
const DEVICE_RINGS: usize = 2;

fn stage() -> Stage {
    Stage::with(feature::REPLY_ACK | feature::CROSS_ENDIAN | feature::INBAND_NOTIFICATIONS | feature::HOST_NOTIFIER)
}

/// A back-end whose device has fewer rings than the machine.
fn back() -> Back {
    let stage = stage();
    let mut config = offering(stage.offered, PROTOCOL_OFFERED);
    config.rings = DEVICE_RINGS as u16;
    let mut back = Back::new(config);
    say(&mut back, &flagged(16, 1, &stage.protocol.to_ne_bytes()), Vec::new());
    say(&mut back, &flagged(2, 1, &stage.features.to_ne_bytes()), Vec::new());
    back
}

fn address(index: u32, flags: u32, parts: [u64; 3], log: u64) -> Vec<u8> {
    let [descriptor, used, available] = parts;
    let head = Bytes::new().u32(index).u32(flags);
    head.u64(descriptor).u64(used).u64(available).u64(log).done()
}

#[test]
fn a_ring_that_does_not_exist_is_refused_in_every_message_that_names_one() {
    let back = back();
    let missing = [2, 3, 4, 5, 255, 256, 257, 0x1_0000, 0x1_0001, 1 << 31, u32::MAX - 1, u32::MAX];
    for index in missing {
        let no_such = |id| violation(id, Violation::RingIndex { found: index.into(), rings: DEVICE_RINGS });
        for (id, number) in [(8, 256), (10, 0), (11, 0), (18, 1), (23, 0), (35, 0)] {
            assert_eq!(refused(&back, &flagged(id, 9, &state(index, number)), 0), no_such(id));
        }
        assert_eq!(refused(&back, &flagged(9, 9, &address(index, 0, RING, 0)), 0), no_such(9));
    }
}

#[test]
fn a_ring_that_does_not_exist_is_refused_where_a_bit_says_whether_a_descriptor_comes() {
    let back = back();
    let indices = [2_u64, 3, 4, 255, 0x200, 0x201, 0x1_0000, 0x1_0001, 1 << 31, 1 << 32, 1 << 63, !0x100];
    for index in indices {
        for id in [12, 13, 14] {
            let no_such = violation(id, Violation::RingIndex { found: index, rings: DEVICE_RINGS });
            assert_eq!(refused(&back, &flagged(id, 9, &index.to_ne_bytes()), 1), no_such);
            assert_eq!(refused(&back, &flagged(id, 9, &(index | 0x100).to_ne_bytes()), 0), no_such);
        }
    }
}

#[test]
fn a_ring_that_does_not_exist_is_refused_on_the_channel_of_the_backend() {
    let stage = stage();
    let mut front = crate::machines::Front::new(FrontendConfig::new(DEVICE_RINGS as u16));
    front.assume_offer(
        crate::machines::virtio_features(stage.offered),
        crate::machines::protocol_features(PROTOCOL_OFFERED),
    );
    let protocol = crate::machines::protocol_features(stage.protocol);
    let request = vhost_core::FrontendRequest::<vhost_tests::tracked::Token>::SetProtocolFeatures(protocol);
    drop(front.request(request, vhost_core::Delivery::Unacknowledged, &mut [0; 20]).unwrap());
    for index in [2, 4, 255, 256, 0x1_0000, 1 << 31, u32::MAX] {
        for id in [4, 5] {
            let no_such = backend_violation(id, Violation::RingIndex { found: index.into(), rings: DEVICE_RINGS });
            assert_eq!(refused_by_front(&front, &flagged(id, 9, &state(index, 0)), 0), no_such);
        }
    }
    for index in [2_u64, 4, 255, 0x200, 1 << 32, 1 << 63] {
        let area = |bits: u64| flagged(3, 9, &Bytes::new().u64(bits).u64(0x1000).u64(0).done());
        let no_such = backend_violation(3, Violation::RingIndex { found: index, rings: DEVICE_RINGS });
        assert_eq!(refused_by_front(&front, &area(index), 1), no_such);
        assert_eq!(refused_by_front(&front, &area(index | 0x100), 0), no_such);
    }
}

/// The sizes that a ring refuses out of those that somebody has tried.
fn refused_sizes(back: &Back) -> Vec<u32> {
    let tried = [0, 1, 2, 3, 100, 255, 256, 1 << 14, 32767, 32768, 32769, 40000, 65535, 65536, 1 << 31, u32::MAX];
    let is_refused = |size: &u32| {
        let request = flagged(8, 9, &state(1, *size));
        let mut taken = back.clone();
        if taken
            .handle_request::<()>(vhost_core::Frame {
                header: vhost_core::wire::header::Header::new(8, 9, 8),
                payload: &request[12..],
                handles: vhost_core::Handles::new(),
            })
            .is_ok()
        {
            return false;
        }
        let expected = violation(8, Violation::RingSize { ring: 1, found: *size });
        assert_eq!(refused(back, &request, 0), expected);
        true
    };
    tried.into_iter().filter(is_refused).collect()
}

#[test]
fn a_split_ring_has_a_power_of_two_of_descriptors() {
    assert_eq!(refused_sizes(&back()), [0, 3, 100, 255, 32767, 32769, 40000, 65535, 65536, 1 << 31, u32::MAX]);
}

#[test]
fn a_packed_ring_has_any_number_of_descriptors_up_to_the_same_limit() {
    let packed = 1 << 34;
    let mut stage = stage();
    stage.offered |= packed;
    stage.features |= packed;
    assert_eq!(refused_sizes(&stage.back()), [0, 32769, 40000, 65535, 65536, 1 << 31, u32::MAX]);
}

#[test]
fn the_parts_of_a_ring_are_aligned() {
    let back = back();
    for (which, part, alignment) in [(0, "descriptor table", 16), (1, "used ring", 4), (2, "available ring", 2)] {
        for off in 1..alignment {
            let mut parts = RING;
            parts[which] += off;
            let found = parts[which];
            let expected = violation(9, Violation::RingAddress { ring: 1, part, found, alignment });
            assert_eq!(refused(&back, &flagged(9, 9, &address(1, 0, parts, 0)), 0), expected);
        }
    }
}

#[test]
fn the_parts_of_a_ring_do_not_wrap_around() {
    let mut back = back();
    assert_eq!(say(&mut back, &flagged(8, 1, &state(1, 256)), Vec::new()), Reaction::Silent);
    // 16 bytes a descriptor; 8 a used element and 6 more; 2 an available element and 6 more.
    let parts = [(0, "descriptor table", 16, 4096), (1, "used ring", 4, 2054), (2, "available ring", 2, 518)];
    for (which, part, alignment, bytes) in parts {
        // The last place for it, and the first one too far.
        let last = (u64::MAX - bytes) / alignment * alignment;
        let mut parts = RING;
        parts[which] = last;
        let mut taken = back.clone();
        assert_eq!(say(&mut taken, &flagged(9, 1, &address(1, 0, parts, 0)), Vec::new()), Reaction::Silent);
        parts[which] = last + alignment;
        let expected = violation(9, Violation::RingAddress { ring: 1, part, found: parts[which], alignment });
        assert_eq!(refused(&back, &flagged(9, 9, &address(1, 0, parts, 0)), 0), expected);
    }
}

#[test]
fn the_log_of_a_ring_does_not_wrap_around_if_there_is_one() {
    let back = back();
    let log = u64::MAX - 4;
    let expected =
        violation(9, Violation::RingAddress { ring: 1, part: "log of the used ring", found: log, alignment: 1 });
    assert_eq!(refused(&back, &flagged(9, 9, &address(1, 1, RING, log)), 0), expected);
    for (flags, log) in [(0, log), (1, RING_LOG), (1, RING_LOG + 1)] {
        let mut taken = back.clone();
        assert_eq!(say(&mut taken, &flagged(9, 1, &address(1, flags, RING, log)), Vec::new()), Reaction::Silent);
    }
}

#[test]
fn what_is_on_or_off_is_nothing_else() {
    let back = back();
    for id in [18, 23] {
        for found in [2, 3, 0x100, 0x101, 1 << 31, u32::MAX] {
            let expected = violation(id, Violation::NotZeroOrOne { ring: 1, found });
            assert_eq!(refused(&back, &flagged(id, 9, &state(1, found)), 0), expected);
        }
    }
}

#[test]
fn a_running_ring_keeps_its_size_and_its_base() {
    let running = stage().rings(Rings::RUNNING).back();
    for (id, number) in [(8, 256), (8, 3), (10, 0)] {
        let expected = violation(id, Violation::RingRunning { ring: 3 });
        assert_eq!(refused(&running, &flagged(id, 9, &state(3, number)), 0), expected);
    }
}
