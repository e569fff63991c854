//! Rows S13, S14, S45, S46, S48 and S49: memory.

use super::{answer, done};
use crate::bad_input::{refused, violation};
use crate::machines::{Back, Reaction, offering};
use crate::stage::{PROTOCOL_OFFERED, Rings, Stage, flagged, message, say, state};
use vhost_core::{MemoryFault, Violation};
use vhost_tests::tracked::Ledger;
use vhost_tests::wire::region::{ADDED, REGIONS, Region};
use vhost_tests::wire::{self, Bytes, REPLY, feature};

fn one(id: u32, region: Region) -> Vec<u8> {
    message(id, &Bytes::new().padding(8).raw(&region.plain()).done())
}

#[test]
fn s13_addresses_of_a_ring_may_come_before_memory() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().back();
    done(&mut back, 8, 1, &state(1, 256), 0);
    say(&mut back, &wire::frontend_request("SET_VRING_ADDR").request(), Vec::new());
    assert!(back.session().ring(1).unwrap().has_addresses());
    assert!(back.session().memory().regions().is_empty());
    say(&mut back, &wire::frontend_request("SET_MEM_TABLE").request(), ledger.tokens(2));
    ledger.assert_settled();
}

#[test]
fn s14_memory_is_replaced_while_rings_run() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    let table = wire::frontend_request("SET_MEM_TABLE").request();
    say(&mut back, &table, ledger.tokens(2));
    let before = back.clone();
    // The same again is nothing new, another one is the memory from then on; rings run on.
    say(&mut back, &table, ledger.tokens(2));
    assert_eq!(back, before);
    say(&mut back, &wire::frontend_form("SET_MEM_TABLE", "eight regions").request(), ledger.tokens(8));
    assert_eq!(back.session().memory().regions().len(), 8);
    assert_eq!(back.session().rings(), before.session().rings());
    ledger.assert_settled();
}

#[test]
fn s45_the_number_of_slots_is_fixed_and_at_most_what_fits() {
    // libvhost-user and rust-vmm 509, DPDK 8, crosvm 0; our machine here holds 9.
    for (slots, told) in [(509_u16, 9_u64), (8, 8), (0, 0)] {
        let mut config = offering(feature::OFFERED, PROTOCOL_OFFERED);
        config.memory_slots = slots;
        let mut back = Back::new(config);
        done(&mut back, 16, 1, &feature::CONFIGURE_MEM_SLOTS.to_ne_bytes(), 0);
        for _ in 0..2 {
            assert_eq!(done(&mut back, 36, 1, &[], 0), Some(flagged(36, REPLY, &told.to_ne_bytes())));
        }
    }
    assert_eq!(offering(0, 0).memory_slots, 509);
}

#[test]
fn s46_a_region_is_found_by_its_place_alone() {
    let ledger = Ledger::new();
    // QEMU sends no offset, libblkio a descriptor.
    for (offset, descriptors) in [(ADDED.offset, 0), (0, 0), (u64::MAX, 0), (0, 1)] {
        let mut back = Stage::usual().back();
        say(&mut back, &one(37, ADDED), ledger.tokens(1));
        say(&mut back, &one(38, Region { offset, ..ADDED }), ledger.tokens(descriptors));
        assert!(back.session().memory().regions().is_empty());
    }
    ledger.assert_settled();
}

#[test]
fn s48_user_addresses_may_be_anything() {
    let ledger = Ledger::new();
    let first = REGIONS[0];
    let places = [
        // A real address (QEMU), the guest's (libblkio), the guest's and 2^52 (OpenVMM), the last there is, zero.
        first.user,
        first.guest,
        first.guest + (1 << 52),
        u64::MAX - first.size,
        0,
    ];
    for user in places {
        let mut back = Stage::usual().back();
        say(&mut back, &one(37, Region { user, ..first }), ledger.tokens(1));
        assert_eq!(back.session().memory().regions()[0].user_address.0, user);
    }
    // virtio_user: guest and user addresses are both those of its own memory.
    let mut back = Stage::usual().back();
    say(&mut back, &one(37, Region { guest: first.user, ..first }), ledger.tokens(1));
    ledger.assert_settled();
}

#[test]
fn s49_regions_that_overlap_are_refused_in_either_space() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().back();
    say(&mut back, &one(37, ADDED), ledger.tokens(1));
    for region in [Region { user: 0, ..ADDED }, Region { guest: 0, ..ADDED }] {
        let request = flagged(37, 9, &one(37, region)[12..]);
        let fault = refused(&back, &request, 1);
        let Violation::Memory(overlap @ MemoryFault::Overlap { .. }) = named(fault) else { panic!("{fault}") };
        assert_eq!(fault, violation(37, Violation::Memory(overlap)));
    }
    ledger.assert_settled();
}

fn named(fault: vhost_core::Fault) -> Violation {
    match fault {
        vhost_core::Fault::Peer(vhost_core::PeerMisbehaved::Violation { violation, .. }) => violation,
        other => panic!("{other}"),
    }
}

#[test]
fn s45_what_is_told_is_held() {
    let ledger = Ledger::new();
    let mut config = offering(feature::OFFERED, PROTOCOL_OFFERED);
    config.memory_slots = 2;
    let mut back = Back::new(config);
    done(&mut back, 16, 1, &(feature::CONFIGURE_MEM_SLOTS | feature::REPLY_ACK).to_ne_bytes(), 0);
    for region in &REGIONS[..2] {
        say(&mut back, &one(37, *region), ledger.tokens(1));
    }
    let request = flagged(37, 9, &one(37, ADDED)[12..]);
    let expected = violation(37, Violation::Memory(MemoryFault::TooMany { slots: 2 }));
    assert_eq!(refused(&back, &request, 1), expected);
    assert!(matches!(answer(&mut back, &one(38, REGIONS[0]), Vec::new(), None), Reaction::Silent));
    say(&mut back, &one(37, ADDED), ledger.tokens(1));
    ledger.assert_settled();
}
