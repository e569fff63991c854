use std::fs;
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::*;

fn file(name: &str, size: u64) -> OwnedFd {
    let file = memfd_create(name, MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

fn region(guest_address: u64, user_address: u64, size: u64) -> MemoryRegion {
    MemoryRegion::new(vhost_core::GuestAddress(guest_address), size, vhost_core::UserAddress(user_address), 0)
}

fn map(region: MemoryRegion) -> Arc<MappedRegion> {
    let size = region.mmap_offset + region.size;
    Arc::new(MappedRegion::new(region, file("table", size)).unwrap())
}

fn table(regions: &[MemoryRegion]) -> Result<MemoryTable, MemoryError> {
    MemoryTable::new(regions.iter().copied().map(map))
}

fn starts(table: &MemoryTable) -> Vec<u64> {
    let regions = table.regions().iter();
    regions.map(|mapped| mapped.region().guest_address.0).collect()
}

const NOT_MAPPED: fn(AddressSpace, u64) -> MemoryError = |space, address| MemoryError::NotMapped { space, address };

#[test]
fn overlaps_are_refused_with_both_regions() {
    let guest = |at| region(at, at + 0x100_0000, 0x2000);
    for (first, second, space) in [
        (guest(0x1000), region(0x2fff, 0x8000, 0x1000), AddressSpace::Guest),
        (guest(0x1000), region(0x1000, 0x8000, 0x1), AddressSpace::Guest),
        (region(0x9000, 0x1000, 0x2000), region(0x1000, 0x2fff, 0x1000), AddressSpace::User),
        (region(0x9000, 0x1000, 0x4000), region(0x1000, 0x2000, 0x1), AddressSpace::User),
    ] {
        let overlap = MemoryError::Overlap { space, first, second };
        assert_eq!(table(&[first, second]).unwrap_err(), overlap);
        let one = table(&[first]).unwrap();
        assert_eq!(one.insert(map(second)).unwrap_err(), overlap);
        assert_eq!(starts(&one), [first.guest_address.0]);
    }
}

#[test]
fn regions_that_touch_do_not_overlap() {
    let regions = [region(0x3000, 0x1000, 0x1000), region(0x1000, 0x2000, 0x2000)];
    let table = table(&regions).unwrap();
    assert_eq!(starts(&table), [0x1000, 0x3000]);
}

#[test]
fn user_addresses_are_translated_within_one_region() {
    // Adjacent by both addresses, the second one mapped elsewhere in this process.
    let table = table(&[
        region(0x1000, 0x7000_0000, 0x2000),
        region(0x3000, 0x7000_2000, 0x1000),
        region(0x10_0000, 0x1000, 0x1000),
    ])
    .unwrap();
    for (user, length, guest) in [
        (0x7000_0000, 0x2000, 0x1000),
        (0x7000_1fff, 1, 0x2fff),
        (0x7000_2000, 0x1000, 0x3000),
        (0x1010, 0x10, 0x10_0010),
        (0x7000_0010, 0, 0x1010),
    ] {
        assert_eq!(table.user_to_guest(user, length), Ok(guest));
    }
    let space = AddressSpace::User;
    for (address, length, available) in [
        (0x7000_0000, 0x2001, 0x2000),
        (0x7000_1fff, 2, 1),
        (0x7000_1000, u64::MAX, 0x1000),
        (0x7000_0001, u64::MAX - 0x7000_0000, 0x1fff),
        (0x1fff, 2, 1),
    ] {
        let error = MemoryError::PastRegionEnd { space, address, length, available };
        assert_eq!(table.user_to_guest(address, length), Err(error));
    }
    for address in [0, 0xfff, 0x2000, 0x6fff_ffff, 0x7000_3000, u64::MAX] {
        for length in [0, 1, u64::MAX] {
            let error = NOT_MAPPED(space, address);
            assert_eq!(table.user_to_guest(address, length), Err(error));
        }
    }
}

#[test]
fn the_highest_addresses_are_translated() {
    let size = 0x1000;
    let highest = region(u64::MAX - size, u64::MAX - size, size);
    let table = table(&[highest]).unwrap();
    assert_eq!(table.user_to_guest(u64::MAX - 1, 1), Ok(u64::MAX - 1));
    assert!(table.user_to_guest(u64::MAX - 1, 2).is_err());
    let error = NOT_MAPPED(AddressSpace::User, u64::MAX);
    assert_eq!(table.user_to_guest(u64::MAX, 1), Err(error));
}

#[test]
fn guest_slices_are_the_bytes_of_one_region() {
    let regions = [region(0x1000, 0x8000, 0x1000), region(0x2000, 0x1000, 0x1000)];
    let table = table(&regions).unwrap();
    table.guest_memory().write_obj(0x55_u8, GuestAddress(0x2003)).unwrap();
    let slice = table.guest_slice(0x2000, 0x1000).unwrap();
    let mut bytes = [0_u8; 4];
    slice.copy_to(&mut bytes);
    assert_eq!(bytes, [0, 0, 0, 0x55]);
    let space = AddressSpace::Guest;
    let crossing = MemoryError::PastRegionEnd { space, address: 0x1fff, length: 2, available: 1 };
    assert_eq!(table.guest_slice(0x1fff, 2).unwrap_err(), crossing);
    assert_eq!(table.guest_slice(0x3000, 0).unwrap_err(), NOT_MAPPED(space, 0x3000));
}

#[test]
fn removing_goes_by_addresses_and_size_but_not_by_offset() {
    let kept = region(0x1000, 0x1000, 0x1000);
    let gone = MemoryRegion { mmap_offset: 0x1000, ..region(0x2000, 0x2000, 0x1000) };
    let table = table(&[kept, gone]).unwrap();
    for other in [region(0x2001, 0x2000, 0x1000), region(0x2000, 0x2001, 0x1000), region(0x2000, 0x2000, 0xfff)] {
        let error = MemoryError::UnknownRegion(other);
        assert_eq!(table.remove(&other).unwrap_err(), error);
    }
    let smaller = table.remove(&region(0x2000, 0x2000, 0x1000)).unwrap();
    assert_eq!(starts(&smaller), [0x1000]);
    assert_eq!(starts(&table), [0x1000, 0x2000]);
    let empty = smaller.remove(&kept).unwrap();
    assert!(empty.regions().is_empty());
    assert_eq!(empty.guest_memory().num_regions(), 0);
    assert_eq!(starts(&empty.insert(map(gone)).unwrap()), [0x2000]);
}

#[test]
fn a_mapping_lives_as_long_as_the_last_snapshot() {
    let name = "vhost-table-snapshot";
    let wanted = format!("/memfd:{name} (deleted)");
    let mappings = || {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.ends_with(&wanted)).count()
    };
    let removed = region(0x1000, 0x1000, 0x1000);
    let mapped = MappedRegion::new(removed, file(name, 0x1000)).unwrap();
    let table = MemoryTable::new([mapped]).unwrap();
    let larger = table.insert(map(region(0x4000, 0x4000, 0x1000))).unwrap();
    let smaller = larger.remove(&removed).unwrap();
    drop(larger);
    assert_eq!(mappings(), 1);
    // A device that works on an old snapshot, and memory that was cloned out of it.
    let memory = table.guest_memory().clone();
    let address = GuestAddress(0x1ffc);
    drop(table);
    assert_eq!(mappings(), 1);
    memory.write_obj(9_u32, address).unwrap();
    assert_eq!(memory.read_obj::<u32>(address).unwrap(), 9);
    drop(memory);
    assert_eq!(mappings(), 0);
    assert_eq!(starts(&smaller), [0x4000]);
}

#[test]
fn the_most_regions_fit_and_one_more_does_not() {
    let page = 0x1000;
    let descriptor = file("most", page);
    // User addresses in the opposite order, so that neither order serves for both.
    let user = |at: u64| (1000 - at) * page;
    let mapped = |at: u64| {
        let region = region(at * page, user(at), page);
        MappedRegion::new(region, descriptor.try_clone().unwrap()).unwrap()
    };
    let regions = (0..MAX_REGIONS as u64).map(mapped);
    let table = MemoryTable::new(regions).unwrap();
    assert_eq!(table.guest_memory().num_regions(), MAX_REGIONS);
    for at in [0, 1, 254, 507, 508] {
        assert_eq!(table.user_to_guest(user(at) + 7, page - 7), Ok(at * page + 7));
    }
    let count = MAX_REGIONS + 1;
    let error = MemoryError::TooManyRegions { count };
    let one_more = table.insert(mapped(MAX_REGIONS as u64));
    assert_eq!(one_more.unwrap_err(), error);
}

#[test]
fn a_table_is_an_address_space_of_vm_memory() {
    let table = table(&[region(0x1000, 0x1000, 0x1000)]).unwrap();
    let shared = table.memory();
    shared.write_obj(3_u8, GuestAddress(0x1000)).unwrap();
    let memory = table.clone().memory();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x1000)).unwrap(), 3);
    assert!(MemoryTable::default().regions().is_empty());
}
