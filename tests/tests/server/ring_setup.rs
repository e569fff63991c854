//! Bad numbers about rings: each is refused by name, changes nothing, and the ring that runs goes on.

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_std::server::{BackendServer, RingThreads};
use vhost_tests::dialog::event;
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring};
use vhost_tests::wire::{Bytes, REQUEST, feature};

use crate::support::{Bench, Dialog, Image, id, message, number, state};

/// A connection with two rings, of which the first runs.
struct Two {
    memory: Arc<GuestMemory>,
    running: Ring,
    other: Ring,
}

impl Two {
    fn new() -> (BackendServer, Self) {
        let memory = Arc::new(GuestMemory::new(2 * BLOCK));
        let [running, other] = [0, 1].map(|index| Ring::new(&memory, index, 16));
        (Image::new().server(2, RingThreads::Caller), Self { memory, running, other })
    }

    fn bench<'s>(&self, server: &'s mut BackendServer) -> Bench<'s> {
        Bench::running(server, &self.memory, &self.running)
    }

    /// The first ring still serves its driver.
    #[track_caller]
    fn assert_running(&mut self, bench: &mut Bench<'_>) {
        self.running.request(0, Command::Flush, 0);
        self.running.kick();
        assert_eq!(bench.wait_used(&mut self.running), (0, 1));
    }

    fn addresses(&self, descriptors: u64, used: u64, available: u64) -> Vec<u8> {
        Bytes::new().u32(1).u32(0).u64(descriptors).u64(used).u64(available).u64(0).done()
    }
}

#[test]
fn a_ring_that_does_not_exist_is_refused_in_every_message_that_names_one() {
    let (mut server, mut two) = Two::new();
    let mut bench = two.bench(&mut server);
    for index in [2, 3, 255, 256, 0x1_0000, 0x8000_0000, 0x8000_0001, u32::MAX] {
        let rings = format!("expected a ring below 2, found {index}");
        for (name, number) in [("SET_VRING_NUM", 16), ("SET_VRING_BASE", 0), ("SET_VRING_ENABLE", 1)] {
            let reason = bench.refused(name, &state(index, number), &[]);
            assert_eq!(reason, format!("{name} ({}): {rings}", id(name)));
        }
        let payload = Bytes::new().u32(index).u32(0).padding(32).done();
        assert_eq!(bench.refused("SET_VRING_ADDR", &payload, &[]), format!("SET_VRING_ADDR (9): {rings}"));
    }
    // Bit 8 belongs to the flag, all bits above it to an index that cannot be.
    for index in [2, 255, 0x200, 0x1_0000, 0x1_0000_0000, 0x8000_0000_0000_0001] {
        for name in ["SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ERR"] {
            let expected = format!("{name} ({}): expected a ring below 2, found {index}", id(name));
            assert_eq!(bench.refused(name, &number(index), &[event().as_fd()]), expected);
            assert_eq!(bench.refused(name, &number(index | 0x100), &[]), expected);
        }
    }
    two.assert_running(&mut bench);
}

#[test]
fn s7_the_base_of_an_idle_ring_is_what_was_set_and_of_a_missing_ring_ends_the_connection() {
    let (mut server, two) = Two::new();
    for index in [2, 256, 0x1_0000, u32::MAX] {
        let mut bench = two.bench(&mut server);
        bench.grant("SET_VRING_BASE", &state(1, 0xfff0), &[]);
        assert_eq!(bench.stop(&two.other), 0xfff0);
        let error = bench.fails(&message("GET_VRING_BASE", REQUEST, &state(index, 0)), &[]);
        assert_eq!(error.to_string(), format!("GET_VRING_BASE (11): expected a ring below 2, found {index}"));
    }
}

#[test]
fn s8_the_number_in_the_request_for_the_base_means_nothing() {
    let (mut server, two) = Two::new();
    let mut bench = two.bench(&mut server);
    bench.grant("SET_VRING_BASE", &state(1, 7), &[]);
    let reply = bench.ask("GET_VRING_BASE", &state(1, 0xdead_beef));
    assert_eq!(reply.payload(), state(1, 7));
}

#[test]
fn a_size_that_no_ring_can_have_is_refused() {
    let (mut server, mut two) = Two::new();
    let mut bench = two.bench(&mut server);
    for size in [0, 3, 100, 32769, 65535, 65536, 0x1_0010, 0x8000_0000, u32::MAX] {
        let reason = bench.refused("SET_VRING_NUM", &state(1, size), &[]);
        let expected = "ring 1: expected a size of 1 to 32768, a power of two if split";
        assert_eq!(reason, format!("SET_VRING_NUM (8): {expected}, found {size}"));
    }
    for size in [1, 2, 32768] {
        bench.grant("SET_VRING_NUM", &state(1, size), &[]);
    }
    two.assert_running(&mut bench);
}

#[test]
fn a_misaligned_or_wrapping_ring_is_refused() {
    let (mut server, mut two) = Two::new();
    let mut bench = two.bench(&mut server);
    let base = two.memory.region().user;
    bench.grant("SET_VRING_NUM", &two.other.num_payload(), &[]);
    for (addresses, part, alignment, found) in [
        ([base + 8, base, base], "descriptor table", 16, base + 8),
        ([base, base + 2, base], "used ring", 4, base + 2),
        ([base, base, base + 1], "available ring", 2, base + 1),
        // 16 descriptors of 16 bytes, and one byte too many.
        ([u64::MAX - 0xef, base, base], "descriptor table", 16, u64::MAX - 0xef),
        ([base, u64::MAX - 3, base], "used ring", 4, u64::MAX - 3),
        ([base, base, u64::MAX - 1], "available ring", 2, u64::MAX - 1),
    ] {
        let [descriptors, used, available] = addresses;
        let reason = bench.refused("SET_VRING_ADDR", &two.addresses(descriptors, used, available), &[]);
        let expected = format!(
            "SET_VRING_ADDR (9): ring 1: expected the {part} at a multiple of {alignment} and not wrapping around, \
             found {found:#x}"
        );
        assert_eq!(reason, expected);
    }
    two.assert_running(&mut bench);
}

#[test]
fn a_ring_outside_memory_is_refused_when_it_is_to_start() {
    let (mut server, mut two) = Two::new();
    let mut bench = two.bench(&mut server);
    let (base, end) = (two.memory.region().user, two.memory.region().user + two.memory.region().size);
    bench.grant("SET_VRING_NUM", &two.other.num_payload(), &[]);
    for (addresses, expected) in [
        ([0x1000, base, base], "user address 0x1000 is in no region".to_owned()),
        ([end, base, base], format!("user address {end:#x} is in no region")),
        (
            [end - 0xf0, base, base],
            format!("0x100 bytes at user address {:#x} exceed the region, which has 0xf0 left there", end - 0xf0),
        ),
        (
            [base, end - 0x80, base],
            format!("0x86 bytes at user address {:#x} exceed the region, which has 0x80 left there", end - 0x80),
        ),
        (
            [base, base, end - 0x20],
            format!("0x26 bytes at user address {:#x} exceed the region, which has 0x20 left there", end - 0x20),
        ),
    ] {
        let [descriptors, used, available] = addresses;
        bench.grant("SET_VRING_ADDR", &two.addresses(descriptors, used, available), &[]);
        let reason = bench.refused("SET_VRING_KICK", &two.other.event_payload(), &[event().as_fd()]);
        assert_eq!(reason, format!("SET_VRING_KICK (12): {expected}"));
    }
    two.assert_running(&mut bench);
    // Nothing of it stays.
    bench.start(&two.other);
    bench.enable(&two.other, 1);
    two.other.request(0, Command::Flush, 0);
    two.other.kick();
    assert_eq!(bench.wait_used(&mut two.other), (0, 1));
}

#[test]
fn s40_a_running_ring_is_moved_to_a_good_place_and_stays_where_it_is_for_a_bad_one() {
    let (mut server, mut two) = Two::new();
    let mut bench = two.bench(&mut server);
    two.assert_running(&mut bench);
    let outside = Bytes::new().u32(0).u32(0).u64(0x1000).u64(0x2000).u64(0x3000).u64(0).done();
    let reason = bench.refused("SET_VRING_ADDR", &outside, &[]);
    assert_eq!(reason, "SET_VRING_ADDR (9): user address 0x1000 is in no region");
    two.assert_running(&mut bench);
    // A copy of the ring at another place, used from there on.
    for (from, length) in [(two.running.descriptors, 0x100), (two.running.available, 0x40), (two.running.used, 0x100)] {
        let bytes = two.memory.read(from, length);
        two.memory.write(from + BLOCK, &bytes);
    }
    two.running.descriptors += BLOCK;
    two.running.available += BLOCK;
    two.running.used += BLOCK;
    bench.grant("SET_VRING_ADDR", &two.running.address_payload(), &[]);
    two.assert_running(&mut bench);
    assert_eq!(bench.stop(&two.running), 3);
}

#[test]
fn a_running_ring_keeps_its_size_and_base() {
    let (mut server, mut two) = Two::new();
    let mut bench = two.bench(&mut server);
    assert_eq!(bench.refused("SET_VRING_NUM", &state(0, 8), &[]), "SET_VRING_NUM (8): ring 0 runs");
    assert_eq!(bench.refused("SET_VRING_BASE", &state(0, 8), &[]), "SET_VRING_BASE (10): ring 0 runs");
    two.assert_running(&mut bench);
}

#[test]
fn a_ring_is_enabled_with_1_and_disabled_with_0_and_nothing_else() {
    let (mut server, mut two) = Two::new();
    let mut bench = two.bench(&mut server);
    for other in [2, 0x100, u32::MAX] {
        let reason = bench.refused("SET_VRING_ENABLE", &state(0, other), &[]);
        assert_eq!(reason, format!("SET_VRING_ENABLE (18): ring 0: expected 0 or 1, found {other}"));
    }
    two.assert_running(&mut bench);
}

#[test]
fn s15_features_may_be_repeated_while_a_ring_runs_and_not_changed() {
    let (mut server, mut two) = Two::new();
    let mut bench = two.bench(&mut server);
    let same = crate::support::OFFER;
    bench.grant("SET_FEATURES", &number(same), &[]);
    two.assert_running(&mut bench);
    let changed = same | feature::EVENT_INDEX;
    let reason = bench.refused("SET_FEATURES", &number(changed), &[]);
    assert_eq!(reason, "SET_FEATURES (2): features 0x20000000 changed while a ring runs");
    two.assert_running(&mut bench);
}
