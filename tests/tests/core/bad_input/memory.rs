//! Memory that cannot be shared, or cannot be taken away.

use super::{refused, violation};
use crate::machines::{Back, Reaction, offering};
use crate::stage::{PROTOCOL_OFFERED, Stage, flagged, say};
use vhost_core::{GuestAddress, MemoryFault, RegionExtent, UserAddress, Violation};
use vhost_tests::tracked::Ledger;
use vhost_tests::wire::region::{ADDED, REGIONS, Region};
use vhost_tests::wire::{Bytes, feature};

const SET_MEM_TABLE: u32 = 5;
const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;

fn stage() -> Stage {
    Stage::with(feature::REPLY_ACK | feature::CONFIGURE_MEM_SLOTS)
}

/// A back-end that holds the first two regions.
fn back(ledger: &Ledger) -> Back {
    let mut back = stage().back();
    for region in &REGIONS[..2] {
        assert_eq!(say(&mut back, &one(ADD_MEM_REG, 1, *region), ledger.tokens(1)), Reaction::Silent);
    }
    back
}

fn one(id: u32, flags: u32, region: Region) -> Vec<u8> {
    flagged(id, flags, &Bytes::new().padding(8).raw(&region.plain()).done())
}

fn table(regions: &[Region]) -> Vec<u8> {
    let head = Bytes::new().u32(regions.len() as u32).padding(4);
    let bytes = regions.iter().fold(head, |bytes, region| bytes.raw(&region.plain()));
    flagged(SET_MEM_TABLE, 9, &bytes.done())
}

fn extent(region: Region) -> RegionExtent {
    RegionExtent {
        guest_address: GuestAddress(region.guest),
        size: region.size,
        user_address: UserAddress(region.user),
    }
}

/// The fault of adding this region alone, and of a table that ends with it.
#[track_caller]
fn assert_refused(region: Region, added: MemoryFault, in_table: MemoryFault) {
    let ledger = Ledger::new();
    let back = back(&ledger);
    assert_eq!(refused(&back, &one(ADD_MEM_REG, 9, region), 1), violation(ADD_MEM_REG, Violation::Memory(added)));
    let regions = [REGIONS[0], REGIONS[1], region];
    assert_eq!(refused(&back, &table(&regions), 3), violation(SET_MEM_TABLE, Violation::Memory(in_table)));
    ledger.assert_settled();
}

#[track_caller]
fn assert_overlaps(region: Region, first: usize) {
    let overlap = MemoryFault::Overlap { first: extent(REGIONS[first]), second: extent(region) };
    assert_refused(region, overlap, overlap);
}

#[test]
fn an_empty_region_is_refused() {
    let empty = Region { size: 0, ..ADDED };
    assert_refused(empty, MemoryFault::Empty(extent(empty)), MemoryFault::Empty(extent(empty)));
}

#[test]
fn a_region_that_wraps_around_is_refused_in_every_space() {
    let places = [
        Region { guest: u64::MAX - ADDED.size + 1, ..ADDED },
        Region { user: u64::MAX - ADDED.size + 1, ..ADDED },
        Region { offset: u64::MAX - ADDED.size + 1, ..ADDED },
        Region { size: u64::MAX, ..ADDED },
        Region { size: u64::MAX - ADDED.user + 1, guest: 0, offset: 0, ..ADDED },
        // rust-vmm and DPDK once added these without looking.
        Region { size: u64::MAX, offset: 1, guest: 0, user: 0, ..ADDED },
    ];
    for region in places {
        assert_refused(region, MemoryFault::Wraps(extent(region)), MemoryFault::Wraps(extent(region)));
    }
}

#[test]
fn regions_that_overlap_are_refused_in_both_spaces() {
    let second = REGIONS[1];
    let places = [
        Region { guest: second.guest, size: 0x1000, ..ADDED },
        Region { guest: second.guest + second.size - 1, size: 0x1000, ..ADDED },
        Region { guest: second.guest - 0xfff, size: 0x1000, ..ADDED },
        Region { guest: second.guest - 0x1000, size: second.size + 0x2000, ..ADDED },
        Region { guest: second.guest + 0x1000, size: 1, ..ADDED },
        Region { user: second.user, size: 0x1000, ..ADDED },
        Region { user: second.user + second.size - 1, size: 0x1000, ..ADDED },
        Region { user: second.user - 0xfff, size: 0x1000, ..ADDED },
        Region { user: second.user - 0x1000, size: second.size + 0x2000, ..ADDED },
        second,
    ];
    for region in places {
        assert_overlaps(region, 1);
    }
}

#[test]
fn regions_may_touch() {
    let ledger = Ledger::new();
    let second = REGIONS[1];
    let places = [
        Region { guest: second.guest + second.size, ..ADDED },
        Region { guest: second.guest - 0x1000, size: 0x1000, ..ADDED },
        Region { user: second.user + second.size, ..ADDED },
        Region { user: second.user - 0x1000, size: 0x1000, ..ADDED },
        Region { guest: 0, user: 0, offset: 0, size: 0x1000, ..ADDED },
        Region { guest: u64::MAX - 0x1000, size: 0x1000, ..ADDED },
        // The same part of the same file at another place is fine.
        Region { offset: second.offset, ..ADDED },
    ];
    for region in places {
        let mut back = back(&ledger);
        say(&mut back, &one(ADD_MEM_REG, 1, region), ledger.tokens(1));
        assert_eq!(back.session().memory().regions().len(), 3);
        let mut back = stage().back();
        say(&mut back, &flagged(SET_MEM_TABLE, 1, &table(&[REGIONS[0], second, region])[12..]), ledger.tokens(3));
        assert_eq!(back.session().memory().regions().len(), 3);
    }
    ledger.assert_settled();
}

#[test]
fn a_table_that_was_refused_leaves_the_old_one() {
    let ledger = Ledger::new();
    let mut back = back(&ledger);
    let old = [extent(REGIONS[0]), extent(REGIONS[1])];
    let overlapping = table(&[REGIONS[4], REGIONS[5], REGIONS[5]]);
    refused(&back, &overlapping, 3);
    assert_eq!(back.session().memory().regions(), old);
    // Nothing of a table that the device refuses is kept either.
    let request = table(&REGIONS[4..6]);
    drop(back.handle_request(crate::machines::frame(&request, ledger.tokens(2))).unwrap());
    let refusal = vhost_core::FrontendReply::<()>::Refused(core::num::NonZeroU64::MIN);
    drop(back.answer(refusal, &mut [0; 20]).unwrap());
    assert_eq!(back.session().memory().regions(), old);
    assert_eq!(back, self::back(&ledger));
    ledger.assert_settled();
}

#[test]
fn no_more_regions_are_added_than_slots_were_told() {
    let ledger = Ledger::new();
    for slots in [0, 1, 8] {
        let stage = stage();
        let mut config = offering(stage.offered, PROTOCOL_OFFERED);
        config.memory_slots = slots;
        let mut back = Back::new(config);
        say(&mut back, &flagged(16, 1, &stage.protocol.to_ne_bytes()), Vec::new());
        for region in &REGIONS[..usize::from(slots)] {
            say(&mut back, &one(ADD_MEM_REG, 1, *region), ledger.tokens(1));
        }
        let expected = Violation::Memory(MemoryFault::TooMany { slots: slots.into() });
        assert_eq!(refused(&back, &one(ADD_MEM_REG, 9, ADDED), 1), violation(ADD_MEM_REG, expected));
        // A table is no matter of slots: a front-end that finds too few falls back to it.
        let request = flagged(SET_MEM_TABLE, 1, &table(&REGIONS[..2])[12..]);
        say(&mut back, &request, ledger.tokens(2));
        assert_eq!(back.session().memory().regions().len(), 2);
    }
    ledger.assert_settled();
}

#[test]
fn more_regions_than_the_machine_holds_are_refused() {
    let ledger = Ledger::new();
    let stage = stage();
    let mut back = vhost_core::Backend::<1, 1, 1>::new(offering(stage.offered, PROTOCOL_OFFERED));
    let request = table(&REGIONS[..2]);
    let rejection = back.handle_request(crate::machines::frame(&request, ledger.tokens(2))).unwrap_err();
    let expected = Violation::Memory(MemoryFault::TooMany { slots: 1 });
    assert_eq!(rejection.fault(), violation(SET_MEM_TABLE, expected));
    ledger.assert_settled();
}

#[test]
fn a_region_that_is_not_there_is_not_removed() {
    let ledger = Ledger::new();
    let back = back(&ledger);
    let known = REGIONS[1];
    let unknown = [
        ADDED,
        Region { guest: known.guest + 0x1000, ..known },
        Region { size: known.size - 1, ..known },
        Region { user: known.user + 0x1000, ..known },
        Region { size: 0, ..known },
        Region { size: u64::MAX, ..known },
    ];
    for region in unknown {
        let expected = violation(REM_MEM_REG, Violation::Memory(MemoryFault::Unknown(extent(region))));
        assert_eq!(refused(&back, &one(REM_MEM_REG, 9, region), 0), expected);
        assert_eq!(refused(&back, &one(REM_MEM_REG, 9, region), 1), expected);
    }
    let mut back = back;
    say(&mut back, &one(REM_MEM_REG, 1, known), Vec::new());
    let expected = violation(REM_MEM_REG, Violation::Memory(MemoryFault::Unknown(extent(known))));
    assert_eq!(refused(&back, &one(REM_MEM_REG, 9, known), 0), expected);
    ledger.assert_settled();
}
