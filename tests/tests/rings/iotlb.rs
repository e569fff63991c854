//! The IOTLB, against a plain map of pages, and behind a ring.

use std::collections::BTreeMap;

use vhost_core::{
    Access, ChainFaultKind, GuestAddress, GuestMemory, GuestRange, Iotlb, IotlbMemory, IotlbMisuse, Iova, Miss,
    PopError, Unmapped, UserAddress, VirtioFeatures, wire,
};

use crate::guest::{ADDRESSES, FREE, Guest, NEXT, Pieces, START, WRITE, places};
use vhost_tests::numbers::Numbers;

const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::ReadWrite];

/// What address `iova` becomes in `table`: the target, the access, and for how many bytes.
fn look_up<const N: usize>(table: &Iotlb<UserAddress, N>, iova: u64, access: Access) -> Result<(u64, u64), Unmapped> {
    let translated = table.look_up(Iova(iova), access, &mut 0);
    for recent in 0..table.entries().len() + 2 {
        let mut recent = recent;
        assert_eq!(table.look_up(Iova(iova), access, &mut recent), translated, "wherever the last one was");
    }
    translated.map(|(target, length)| (target.0, length))
}

/// Updates and invalidations of all sizes in a space of 64 addresses; a map of single addresses does the same.
#[test]
fn a_table_is_a_map_of_addresses() {
    let mut numbers = Numbers::new(1);
    for base in [0, 1000, u64::MAX - 63] {
        let mut table = Iotlb::<UserAddress, 200>::new();
        let mut map = BTreeMap::new();
        for step in 0..3000 {
            let start = numbers.below(64);
            let longest = (64 - start).min(1 + numbers.below(20));
            let size = 1 + numbers.below(longest);
            let (target, access) = (0x10_0000 * (1 + numbers.below(50)), ACCESSES[numbers.below(3) as usize]);
            let addresses = start..start + size;
            if step % 3 == 0 {
                table.invalidate(Iova(base + start), size);
                map.retain(|address, _| !addresses.contains(address));
            } else {
                table.update(Iova(base + start), size, UserAddress(target), access).unwrap();
                map.extend(addresses.map(|address| (address, (target + (address - start), access))));
            }
            for address in 0..64 {
                for wanted in ACCESSES {
                    let found = look_up(&table, base + address, wanted);
                    let miss = Miss { iova: Iova(base + address), access: wanted };
                    match map.get(&address) {
                        None => assert_eq!(found, Err(Unmapped::Miss(miss))),
                        Some((_, access)) if !access.allows(wanted) => assert_eq!(found, Err(Unmapped::Denied(miss))),
                        Some((target, access)) => {
                            let (place, length) = found.unwrap();
                            assert_eq!(place, *target);
                            let same = |at: u64| map.get(&(address + at)) == Some(&(target + at, *access));
                            assert!(length > 0 && (0..length).all(same), "{length} bytes in one piece");
                        }
                    }
                }
            }
            let entries = table.entries();
            assert!(entries.iter().zip(&entries[1.min(entries.len())..]).all(|(one, next)| one.last < next.first));
        }
    }
}

#[test]
fn a_full_table_forgets_an_old_translation_and_none_is_wrong() {
    let mut numbers = Numbers::new(7);
    let mut table = Iotlb::<UserAddress, 4>::new();
    let mut map = BTreeMap::new();
    for _ in 0..5000 {
        let start = numbers.below(64);
        let size = 1 + numbers.below((64 - start).min(12));
        let target = 0x10_0000 * (1 + numbers.below(50));
        if numbers.below(4) == 0 {
            table.invalidate(Iova(start), size);
            map.retain(|address, _| !(start..start + size).contains(address));
        } else {
            table.update(Iova(start), size, UserAddress(target), Access::Read).unwrap();
            map.extend((start..start + size).map(|address| (address, target + (address - start))));
            assert_eq!(look_up(&table, start, Access::Read), Ok((target, size)), "the newest is there");
        }
        assert!(table.entries().len() <= 4);
        for address in 0..64 {
            if let Ok((found, _)) = look_up(&table, address, Access::Read) {
                assert_eq!(map.get(&address), Some(&found));
            }
        }
    }
    // Each of four pages is found again however often the others were asked for: they make room in turn.
    let mut table = Iotlb::<UserAddress, 4>::new();
    for round in 0..40_u64 {
        table.update(Iova(round * 0x1000), 0x1000, UserAddress(round), Access::Read).unwrap();
        let known = (0..=round).filter(|page| look_up(&table, page * 0x1000, Access::Read).is_ok());
        assert_eq!(known.count() as u64, (round + 1).min(4));
    }
}

#[test]
fn the_last_address_can_be_translated() {
    let mut table = Iotlb::<UserAddress, 4>::new();
    table.update(Iova(u64::MAX), 1, UserAddress(5), Access::Read).unwrap();
    assert_eq!(look_up(&table, u64::MAX, Access::Read), Ok((5, 1)));
    table.update(Iova(0), u64::MAX, UserAddress(0), Access::Read).unwrap();
    assert_eq!(look_up(&table, 0, Access::Read), Ok((0, u64::MAX)));
    assert_eq!(look_up(&table, u64::MAX, Access::Read), Ok((5, 1)));
    table.invalidate(Iova(1), u64::MAX);
    assert_eq!(look_up(&table, 0, Access::Read), Ok((0, 1)));
    table.update(Iova(5), 5, UserAddress(0), Access::Read).unwrap();
    table.invalidate(Iova(7), 0);
    assert_eq!(look_up(&table, 0, Access::Read), Ok((0, 1)));
    assert_eq!(look_up(&table, 5, Access::Read), Ok((0, 2)));
    table.invalidate(Iova(0), 0);
    assert_eq!(table, Iotlb::default(), "no bytes from the first on are a whole address space");
    table.update(Iova(5), 5, UserAddress(0), Access::Read).unwrap();
    table.clear();
    assert_eq!(table, Iotlb::default());
}

#[test]
fn equal_tables_are_equal_values_whatever_they_have_held() {
    let mut table = Iotlb::<UserAddress, 4>::new();
    for iova in [0x5000, 0x1000, 0x3000] {
        table.update(Iova(iova), 0x1000, UserAddress(iova), Access::Read).unwrap();
    }
    table.invalidate(Iova(0x1000), 0x1000);
    table.invalidate(Iova(0), u64::MAX);
    assert_eq!(table, Iotlb::new());
}

#[test]
fn messages_of_the_front_end_are_applied_or_refused_by_name() {
    let message = |iova, size, user, permission, kind| {
        wire::iotlb::Iotlb::new(Iova(iova), size, UserAddress(user), permission, kind)
    };
    let mut table = Iotlb::<UserAddress, 4>::new();
    for (permission, access) in [(1, Access::Read), (2, Access::Write), (3, Access::ReadWrite)] {
        table.apply(&message(0x1000, 0x1000, 0x7000, permission, 2)).unwrap();
        assert_eq!(table.entries()[0].access, access);
        assert_eq!(look_up(&table, 0x1fff, access), Ok((0x7fff, 1)));
    }
    let before = table.clone();
    for (wrong, fault) in [
        (message(0, 1, 0, 0, 2), IotlbMisuse::Permission { found: 0 }),
        (message(0, 1, 0, 4, 2), IotlbMisuse::Permission { found: 4 }),
        (message(3, 0, 0, 1, 2), IotlbMisuse::Empty { iova: Iova(3) }),
        (message(u64::MAX, 2, 0, 1, 2), IotlbMisuse::Wraps { iova: Iova(u64::MAX), size: 2 }),
        (message(0, 2, u64::MAX, 1, 2), IotlbMisuse::Wraps { iova: Iova(0), size: 2 }),
        (message(0, 1, 0, 1, 1), IotlbMisuse::MessageType { found: 1 }),
        (message(0, 1, 0, 1, 4), IotlbMisuse::MessageType { found: 4 }),
    ] {
        assert_eq!(table.apply(&wrong), Err(fault));
        assert!(!fault.to_string().is_empty());
    }
    assert_eq!(table, before);
    table.apply(&message(0x1800, 0x1000, 0, 0, 3)).unwrap();
    assert_eq!((look_up(&table, 0x17ff, Access::Read), table.entries().len()), (Ok((0x77ff, 1)), 1));
}

#[test]
fn a_miss_asks_with_its_address_and_access() {
    for (access, permission) in ACCESSES.into_iter().zip([1, 2, 3]) {
        let message = Miss { iova: Iova(0x1234), access }.message();
        assert_eq!((message.iova(), message.size(), message.user_address()), (Iova(0x1234), 0, UserAddress(0)));
        assert_eq!((message.permission(), message.message_type()), (permission, 1));
    }
}

/// A chain over two pages: each miss leaves the ring as it was, and once both are known the chain comes out whole, in
/// as many pieces as there are translations. Both layouts.
#[test]
fn a_chain_waits_for_its_translations() {
    for features in [VirtioFeatures::empty(), VirtioFeatures::RING_PACKED] {
        let guest = Guest::new();
        let (first, second) = (0xdead_0ff8, 0xffff_ffff_ffff_f000);
        if features.is_empty() {
            guest.table_entry(ADDRESSES.descriptor.0, 0, (first, 16), NEXT, 1);
            guest.table_entry(ADDRESSES.descriptor.0, 1, (second, 4), WRITE, 0);
            guest.offer(4, 0, 0);
        } else {
            guest.ring_entry(0, (first, 16), 0, NEXT | crate::guest::AVAIL);
            guest.ring_entry(1, (second, 4), 3, WRITE | crate::guest::AVAIL);
        }
        let mut queue = guest.device(4, features);
        let before = queue.base();
        let mut table = Iotlb::<GuestAddress, 8>::new();
        let mut pieces = Pieces::new();
        for (iova, target, access) in [
            (0xdead_0ff8, FREE, Access::Read),
            (0xdead_1000, FREE + 0x1000, Access::Read),
            (second, FREE + 0x800, Access::Write),
        ] {
            let missed = queue.pop(&IotlbMemory::new(&table, guest.memory()), &mut pieces);
            assert_eq!(missed, Err(PopError::Miss(Miss { iova: Iova(iova), access })));
            assert_eq!((queue.base(), queue.held()), (before, 0), "nothing was taken");
            table.update(Iova(iova & !0xfff), 0x1000, GuestAddress(target & !0xfff), access).unwrap();
        }
        let chain = queue.pop(&IotlbMemory::new(&table, guest.memory()), &mut pieces).unwrap().unwrap();
        assert_eq!(places(&pieces), [(FREE + 0xff8, 8), (FREE + 0x1000, 8), (FREE, 4)]);
        assert_eq!((chain.readable_pieces(), chain.readable_len(), chain.writable_len()), (2, 16, 4));
    }
}

#[test]
fn a_buffer_that_may_not_be_written_is_the_drivers_fault() {
    let guest = Guest::new();
    guest.table_entry(ADDRESSES.descriptor.0, 0, (0x10, 4), WRITE, 0);
    guest.offer(4, 0, 0);
    let mut table = Iotlb::<GuestAddress, 1>::new();
    table.update(Iova(0), 0x1000, GuestAddress(START), Access::Read).unwrap();
    let mut queue = guest.device(4, VirtioFeatures::empty());
    match queue.pop(&IotlbMemory::new(&table, guest.memory()), &mut Pieces::new()) {
        Err(PopError::Malformed { fault, .. }) => {
            assert_eq!(fault.kind, ChainFaultKind::Unmapped { address: 0x10, length: 4 });
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn bytes_under_several_translations_are_one_piece_only_side_by_side() {
    let guest = Guest::new();
    let mut table = Iotlb::<GuestAddress, 8>::new();
    for (page, target, access) in [
        (1, FREE, Access::Read),
        (2, FREE + 0x1000, Access::ReadWrite),
        (3, FREE + 0x2000, Access::Read),
        (4, FREE, Access::ReadWrite),
    ] {
        table.update(Iova(page * 0x1000), 0x1000, GuestAddress(target), access).unwrap();
    }
    let memory = IotlbMemory::new(&table, guest.memory());
    let range = |address, length, access| {
        memory.range(Iova(address), length, access).map(|range| (range.guest_address().0, range.len()))
    };
    assert_eq!(range(0x1ff0, 0x20, Access::Read), Ok((FREE + 0xff0, 0x20)));
    assert_eq!(range(0x1ff0, 0x1020, Access::Read), Ok((FREE + 0xff0, 0x1020)), "three of them");
    assert_eq!(range(0x3ff0, 0x20, Access::Read), Err(Unmapped::Outside), "the last one is elsewhere");
    let miss = |iova, access| Miss { iova: Iova(iova), access };
    assert_eq!(range(0x1ff0, 0x20, Access::Write), Err(Unmapped::Denied(miss(0x1ff0, Access::Write))));
    assert_eq!(range(0x2ff0, 0x20, Access::Write), Err(Unmapped::Denied(miss(0x3000, Access::Write))));
    assert_eq!(range(0x4ff0, 0x20, Access::Read), Err(Unmapped::Miss(miss(0x5000, Access::Read))));
}

#[test]
fn a_translation_may_point_outside_memory() {
    let guest = Guest::new();
    let mut table = Iotlb::<GuestAddress, 1>::new();
    table.update(Iova(0), 0x2000, GuestAddress(START - 0x1000), Access::Read).unwrap();
    let memory = IotlbMemory::new(&table, guest.memory());
    assert_eq!(memory.range(Iova(0xfff), 1, Access::Read).unwrap_err(), Unmapped::Outside);
    assert_eq!(memory.range(Iova(0x1000), 1, Access::Read).unwrap().guest_address(), GuestAddress(START));
}
