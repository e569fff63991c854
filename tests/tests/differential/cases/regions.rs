//! Memory that cannot be: empty, wrapping, overlapping, too much of it.

use vhost_tests::driver::table;
use vhost_tests::wire::region::{ADDED, REGIONS, Region, one_too_many};
use vhost_tests::wire::{Bytes, MAXIMUM_DESCRIPTORS};

use super::{case, usual};
use crate::case::{Case, Said};
use crate::stage::Stage;

pub(super) fn cases() -> Vec<Case> {
    [one_region(), tables(), slots()].concat()
}

/// What can be wrong with one region.
fn strange(region: Region) -> Vec<(&'static str, Region)> {
    vec![
        ("no byte", Region { size: 0, ..region }),
        ("one byte", Region { size: 1, ..region }),
        ("half a page", Region { size: 0x800, ..region }),
        ("guest addresses that wrap", Region { guest: u64::MAX - 0xfff, ..region }),
        ("user addresses that wrap", Region { user: u64::MAX - 0xfff, ..region }),
        ("an offset that wraps", Region { offset: u64::MAX - 0xfff, ..region }),
        ("all bytes there are", Region { size: u64::MAX, ..region }),
        ("the last guest addresses", Region { guest: 0_u64.wrapping_sub(region.size), ..region }),
        ("more than the file", Region { offset: 0x1000_0000, ..region }),
        ("an offset within a page", Region { offset: region.offset + 0x10, ..region }),
        ("guest addresses within a page", Region { guest: region.guest + 0x10, ..region }),
        ("user addresses within a page", Region { user: region.user + 0x10, ..region }),
    ]
}

fn one_region() -> Vec<Case> {
    let mut cases = Vec::new();
    for (special, region) in strange(REGIONS[1]) {
        let said = usual("SET_MEM_TABLE").carrying(&table(&[REGIONS[0], region]));
        cases.push(case(Stage::Agreed, "SET_MEM_TABLE", special, [said]));
    }
    for (special, region) in strange(ADDED) {
        cases.push(case(Stage::Shared, "ADD_MEM_REG", special, [add(region)]));
        cases.push(case(Stage::Added, "REM_MEM_REG", special, [remove(region)]));
    }
    cases
}

fn tables() -> Vec<Case> {
    let [one, two, ..] = REGIONS;
    let tables = [
        ("one region twice", vec![one, one]),
        ("guest addresses twice", vec![one, Region { guest: one.guest + one.size - 0x1000, ..two }]),
        ("user addresses twice", vec![one, Region { user: one.user + one.size - 0x1000, ..two }]),
        ("one region within another", vec![one, Region { guest: one.guest + 0x1000, size: 0x1000, ..two }]),
        ("regions that touch", vec![one, Region { guest: one.guest + one.size, user: one.user + one.size, ..two }]),
        ("regions out of order", vec![two, one]),
        ("no region", vec![]),
        ("three regions", REGIONS[..3].to_vec()),
        ("eight regions", REGIONS.to_vec()),
        ("nine regions", one_too_many()),
    ];
    let set = |payload: &[u8], descriptors| usual("SET_MEM_TABLE").carrying(payload).with(descriptors);
    let mut cases = Vec::new();
    for (special, regions) in tables {
        let said = set(&table(&regions), regions.len());
        cases.push(case(Stage::Agreed, "SET_MEM_TABLE", special, [said.clone()]));
        cases.push(case(Stage::Shared, "SET_MEM_TABLE", special, [said]));
    }
    let two_regions = &table(&REGIONS[..2])[8..];
    let counted = |count, padding, regions: &[u8]| Bytes::new().u32(count).u32(padding).raw(regions).done();
    for (special, payload, descriptors) in [
        ("padding", counted(2, 7, two_regions), 2),
        ("one region counted of two", counted(1, 0, two_regions), 1),
        ("one region counted of two, both shared", counted(1, 0, two_regions), 2),
        ("three regions counted of two", counted(3, 0, two_regions), 3),
        ("no region counted of two", counted(0, 0, two_regions), 0),
        ("all numbers counted", counted(u32::MAX, 0, two_regions), 2),
        ("no region and a descriptor", counted(0, 0, &[]), 1),
        ("room for eight regions", counted(2, 0, &[two_regions, &[0; 6 * 32]].concat()), 2),
        ("nine regions, eight descriptors", table(&one_too_many()), MAXIMUM_DESCRIPTORS),
    ] {
        cases.push(case(Stage::Agreed, "SET_MEM_TABLE", special, [set(&payload, descriptors)]));
    }
    cases
}

fn slots() -> Vec<Case> {
    let [one, two, three, ..] = REGIONS;
    let padded = |said: Said| {
        let payload = Bytes::new().u64(7).raw(&said.payload[8..]).done();
        said.carrying(&payload)
    };
    let other_file_offset = Region { offset: ADDED.offset + 0x1000, ..ADDED };
    vec![
        case(Stage::Added, "ADD_MEM_REG", "the same again", [add(ADDED)]),
        case(Stage::Added, "ADD_MEM_REG", "guest addresses twice", [add(Region { user: one.user, ..ADDED })]),
        case(Stage::Added, "ADD_MEM_REG", "user addresses twice", [add(Region { guest: one.guest, ..ADDED })]),
        case(Stage::Added, "ADD_MEM_REG", "another", [add(one)]),
        case(Stage::Added, "ADD_MEM_REG", "three others", [add(one), add(two), add(three)]),
        case(Stage::Agreed, "ADD_MEM_REG", "padding", [padded(add(ADDED))]),
        case(Stage::Added, "REM_MEM_REG", "padding", [padded(remove(ADDED))]),
        case(Stage::Added, "REM_MEM_REG", "another", [remove(one)]),
        case(Stage::Added, "REM_MEM_REG", "twice", [remove(ADDED), remove(ADDED)]),
        case(Stage::Added, "REM_MEM_REG", "other guest addresses", [remove(Region { guest: one.guest, ..ADDED })]),
        case(Stage::Added, "REM_MEM_REG", "other user addresses", [remove(Region { user: one.user, ..ADDED })]),
        case(Stage::Added, "REM_MEM_REG", "another size", [remove(Region { size: 0x1000, ..ADDED })]),
        case(Stage::Added, "REM_MEM_REG", "another offset", [remove(other_file_offset)]),
        case(Stage::Added, "REM_MEM_REG", "and added again", [remove(ADDED), add(ADDED)]),
        case(Stage::Shared, "REM_MEM_REG", "of a table", [remove(one)]),
        case(Stage::Shared, "ADD_MEM_REG", "to a table", [add(ADDED)]),
        case(Stage::Added, "SET_MEM_TABLE", "in the place of slots", [usual("SET_MEM_TABLE"), add(ADDED)]),
    ]
}

fn add(region: Region) -> Said {
    usual("ADD_MEM_REG").carrying(&Bytes::new().u64(0).raw(&region.plain()).done())
}

fn remove(region: Region) -> Said {
    usual("REM_MEM_REG").carrying(&Bytes::new().u64(0).raw(&region.plain()).done())
}
