//! Everything a driver can do wrong, in both layouts: each by its name, and the ring goes on where it can.

use vhost_core::{
    CellMemory, ChainFault, ChainFaultKind as Kind, DeviceQueue, GuestAddress, PartFault, PopError, RingAddresses,
    RingFault, RingLayout, RingPart, RingParts, RingUser, Unmapped, VirtioFeatures, wire::vring::VringBase,
};

use crate::guest::{ADDRESSES, AVAIL, END, FREE, Guest, INDIRECT, NEXT, Pieces, START, WRITE, first_base, places};

const PLAIN: VirtioFeatures = VirtioFeatures::empty();
const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;
const INDIRECTS: VirtioFeatures = VirtioFeatures::RING_INDIRECT;

const TABLE: u64 = FREE + 0x1000;
const BOTH: [VirtioFeatures; 2] = [PLAIN, PACKED];

/// A ring of 4 with one chain of these descriptors (address, length, flags) and a good one behind it.
fn ring_with(features: VirtioFeatures, chain: &[(u64, u32, u16)]) -> Guest {
    let guest = Guest::new();
    let good = chain.len() as u16;
    for (index, (address, length, flags)) in (0..).zip(chain) {
        match RingLayout::of(features) {
            RingLayout::Split => {
                guest.table_entry(ADDRESSES.descriptor.0, index, (*address, *length), *flags, index + 1);
            }
            RingLayout::Packed => guest.ring_entry(index, (*address, *length), 40 + index, *flags | AVAIL),
        }
    }
    match RingLayout::of(features) {
        RingLayout::Split => {
            guest.table_entry(ADDRESSES.descriptor.0, good, (FREE, 1), 0, 0);
            guest.offer(4, 0, 0);
            guest.offer(4, 1, good);
        }
        RingLayout::Packed => guest.ring_entry(good, (FREE, 1), 99, AVAIL),
    }
    guest
}

fn ring_part(features: VirtioFeatures) -> RingPart {
    match RingLayout::of(features) {
        RingLayout::Split => RingPart::DescriptorTable,
        RingLayout::Packed => RingPart::DescriptorRing,
    }
}

/// The chain is refused with this fault, goes back with length 0, and the next one is fine.
fn refused(guest: &Guest, features: VirtioFeatures, slots: u16, part: RingPart, index: u16, kind: Kind) {
    let mut queue = guest.device(4, features);
    let mut pieces = Pieces::new();
    let Err(PopError::Malformed { chain, fault }) = queue.pop(&guest.memory(), &mut pieces) else {
        panic!("{kind:?} was not noticed");
    };
    assert_eq!(fault, ChainFault { part, index, kind });
    assert!(!fault.to_string().is_empty());
    assert_eq!((chain.readable_len(), chain.writable_len(), pieces.len()), (0, 0, 0));
    let layout = RingLayout::of(features);
    let id = if layout == RingLayout::Split { 0 } else { 40 + slots - 1 };
    assert_eq!(chain.id(), id, "the driver knows it by this");
    queue.push(chain, 77).unwrap();
    match layout {
        RingLayout::Split => assert_eq!((guest.used_index(), guest.used(4, 0)), (1, (0, 0))),
        RingLayout::Packed => {
            let descriptor: [u8; 8] = guest.get(ADDRESSES.descriptor.0 + 8);
            assert_eq!(descriptor, [0, 0, 0, 0, id as u8, 0, 0x80, 0x80], "length 0, the id, used, nothing written");
        }
    }
    let chain = queue.pop(&guest.memory(), &mut pieces).unwrap().unwrap();
    assert_eq!(places(&pieces), [(FREE, 1)]);
    queue.push(chain, 0).unwrap();
}

#[test]
fn buffers_outside_memory_are_refused() {
    let cases = [(START - 1, 1), (START - 1, 2), (END, 1), (END - 1, 2), (0, 16), (u64::MAX, 1), (u64::MAX - 1, 4)];
    for features in BOTH {
        for (address, length) in cases {
            for flags in [0, WRITE] {
                let guest = ring_with(features, &[(address, length, flags)]);
                refused(&guest, features, 1, ring_part(features), 0, Kind::Unmapped { address, length });
                let guest = ring_with(features, &[(FREE, 4, NEXT), (address, length, flags)]);
                refused(&guest, features, 2, ring_part(features), 1, Kind::Unmapped { address, length });
            }
        }
        let guest = ring_with(features, &[(END - 1, 1, 0)]);
        let mut queue = guest.device(4, features);
        assert!(queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().is_some(), "the last byte is inside");
    }
}

/// CVE-2020-10725: a length of zero hid the address from the check.
#[test]
fn empty_buffers_are_refused_wherever_they_point() {
    for features in BOTH {
        for address in [FREE, 0, u64::MAX] {
            let guest = ring_with(features, &[(address, 0, 0)]);
            refused(&guest, features, 1, ring_part(features), 0, Kind::Empty { address });
            let guest = ring_with(features, &[(FREE, 1, NEXT), (address, 0, WRITE)]);
            refused(&guest, features, 2, ring_part(features), 1, Kind::Empty { address });
        }
    }
}

#[test]
fn a_readable_buffer_behind_a_writable_one_is_refused() {
    for features in BOTH {
        let guest = ring_with(features, &[(FREE, 1, WRITE | NEXT), (FREE, 1, 0)]);
        refused(&guest, features, 2, ring_part(features), 1, Kind::ReadableAfterWritable { address: FREE });
    }
}

#[test]
fn more_pieces_than_there_is_room_for_are_refused() {
    for features in BOTH {
        let guest = ring_with(features, &[(FREE, 1, NEXT), (FREE, 1, NEXT), (FREE, 1, WRITE)]);
        let mut queue = guest.device(4, features);
        let mut pieces = heapless::Vec::<_, 2>::new();
        let Err(PopError::Malformed { fault, .. }) = queue.pop(&guest.memory(), &mut pieces) else {
            panic!("it does not fit");
        };
        assert_eq!(fault, ChainFault { part: ring_part(features), index: 2, kind: Kind::TooManyPieces });
        let mut pieces = heapless::Vec::<_, 3>::new();
        let mut queue = guest.device(4, features);
        assert!(queue.pop(&guest.memory(), &mut pieces).is_ok(), "exactly full");
    }
}

/// 4 GiB of buffers in a small memory, as often as they are named.
#[test]
fn more_bytes_than_32_bits_count_are_refused() {
    let cells = vec![core::cell::Cell::new(0); 0x10_0000];
    let huge = CellMemory::new(GuestAddress(FREE + 0x1000_0000), &cells);
    for features in BOTH {
        let guest = Guest::new();
        let features = features | INDIRECTS;
        // 1024 times 4 MiB; the memory answers with one piece of 1 MiB for each, so take what 1 MiB gives.
        let entries = 1024_u16;
        for index in 0..entries {
            let next = if index + 1 < entries { NEXT } else { 0 };
            guest.indirect_entry(features, TABLE, index, (FREE + 0x1000_0000, 0x10_0000), (next, index + 1));
        }
        match RingLayout::of(features) {
            RingLayout::Split => guest.table_entry(ADDRESSES.descriptor.0, 0, (TABLE, 16 * 1024), INDIRECT, 0),
            RingLayout::Packed => guest.ring_entry(0, (TABLE, 16 * 1024), 0, INDIRECT | AVAIL),
        }
        guest.offer(4, 0, 0);
        let memory = [guest.memory(), huge];
        let mut queue = guest.device(4, features);
        let mut pieces = heapless::Vec::<_, 1024>::new();
        let chain = queue.pop(&&memory[..], &mut pieces).unwrap().unwrap();
        assert_eq!(chain.readable_len(), 1 << 30);
    }
    for features in BOTH {
        let buffer = (FREE + 0x1000_0000, 0x10_0000, NEXT);
        let guest = ring_with(features, &[buffer, (FREE + 0x1000_0000, u32::MAX - 0xf_ffff, 0)]);
        let mut queue = guest.device(4, features);
        let Err(PopError::Malformed { fault, .. }) = queue.pop(&&[guest.memory(), huge][..], &mut Pieces::new()) else {
            panic!("2^32 bytes");
        };
        assert_eq!((fault.index, fault.kind), (1, Kind::TooLong));
    }
}

#[test]
fn indirect_tables_are_refused_by_name() {
    let outside = |address, length| Kind::IndirectUnmapped { address, length };
    for layout in BOTH {
        let features = layout | INDIRECTS;
        let part = ring_part(features);
        for length in [0, 1, 15, 17, u32::MAX] {
            let guest = ring_with(features, &[(TABLE, length, INDIRECT)]);
            refused(&guest, features, 1, part, 0, Kind::IndirectLength { length });
        }
        for (address, length) in [(END - 8, 16), (START - 16, 32), (u64::MAX - 15, 32), (0, 0xffff_fff0)] {
            let guest = ring_with(features, &[(address, length, INDIRECT)]);
            refused(&guest, features, 1, part, 0, outside(address, length));
        }
        let guest = ring_with(features, &[(TABLE, 16, INDIRECT | NEXT), (FREE, 1, 0)]);
        refused(&guest, features, 2, part, 0, Kind::IndirectWithNext);
        let guest = ring_with(layout, &[(TABLE, 16, INDIRECT)]);
        refused(&guest, layout, 1, part, 0, Kind::IndirectNotNegotiated);

        let inside = RingPart::IndirectTable;
        let guest = ring_with(features, &[(TABLE, 32, INDIRECT)]);
        guest.indirect_entry(features, TABLE, 0, (FREE, 1), (NEXT, 1));
        guest.indirect_entry(features, TABLE, 1, (TABLE, 16), (INDIRECT, 0));
        refused(&guest, features, 1, inside, 1, Kind::NestedIndirect);
        let guest = ring_with(features, &[(TABLE, 32, INDIRECT)]);
        guest.indirect_entry(features, TABLE, 0, (FREE, 1), (NEXT, 1));
        guest.indirect_entry(features, TABLE, 1, (END, 16), (0, 0));
        refused(&guest, features, 1, inside, 1, Kind::Unmapped { address: END, length: 16 });
    }
}

#[test]
fn a_packed_table_longer_than_any_honest_one_is_refused_and_not_walked() {
    let features = PACKED | INDIRECTS;
    let guest = ring_with(features, &[(TABLE, 16 * 1025, INDIRECT)]);
    refused(&guest, features, 1, RingPart::IndirectTable, 1024, Kind::TooManyDescriptors { limit: 1024 });
}

/// CVE-2019-9547: a chain that bites its own tail.
#[test]
fn loops_end() {
    let features = PLAIN | INDIRECTS;
    for target in 0..2 {
        let guest = ring_with(features, &[(FREE, 1, NEXT), (FREE, 1, NEXT)]);
        guest.table_entry(ADDRESSES.descriptor.0, 1, (FREE, 1), NEXT, target);
        let mut queue = guest.device(4, features);
        let Err(PopError::Malformed { fault, .. }) = queue.pop(&guest.memory(), &mut Pieces::new()) else {
            panic!("a loop");
        };
        assert_eq!((fault.part, fault.kind), (RingPart::DescriptorTable, Kind::TooManyDescriptors { limit: 4 }));
    }
    let guest = ring_with(features, &[(TABLE, 48, INDIRECT)]);
    for index in 0..3 {
        guest.table_entry(TABLE, index, (FREE, 1), NEXT, (index + 1) % 3);
    }
    refused(&guest, features, 1, RingPart::IndirectTable, 0, Kind::TooManyDescriptors { limit: 3 });
}

#[test]
fn links_out_of_a_table_are_refused() {
    let features = PLAIN | INDIRECTS;
    for next in [4, 5, 0x8000, 0xffff] {
        let guest = ring_with(features, &[(FREE, 1, NEXT)]);
        guest.table_entry(ADDRESSES.descriptor.0, 0, (FREE, 1), NEXT, next);
        refused(&guest, features, 1, RingPart::DescriptorTable, 0, Kind::NextBeyondTable { next, size: 4 });
        let guest = ring_with(features, &[(TABLE, 32, INDIRECT)]);
        guest.table_entry(TABLE, 0, (FREE, 1), NEXT, next);
        refused(&guest, features, 1, RingPart::IndirectTable, 0, Kind::NextBeyondTable { next, size: 2 });
    }
}

fn ring_fault(guest: &Guest, queue: &mut DeviceQueue<vhost_core::CellRange<'_>>) -> RingFault {
    match queue.pop(&guest.memory(), &mut Pieces::new()) {
        Err(PopError::Ring(fault)) => {
            assert!(!fault.to_string().is_empty());
            fault
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_split_ring_with_a_wrong_index_or_head_is_broken() {
    for available in [5, 0x8000, 0xffff] {
        let guest = ring_with(PLAIN, &[(FREE, 1, 0)]);
        guest.put_u16(ADDRESSES.driver.0 + 2, available);
        let mut queue = guest.device(4, PLAIN);
        let fault = RingFault::AvailableAhead { available, next: 0, size: 4 };
        assert_eq!(ring_fault(&guest, &mut queue), fault);
        assert_eq!((queue.enable_kicks(), queue.has_available()), (Err(fault), Err(fault)));
        assert_eq!(queue.base().to_num(), 0, "nothing was taken");
    }
    for head in [4, 0xffff] {
        let guest = ring_with(PLAIN, &[(FREE, 1, 0)]);
        guest.offer(4, 0, head);
        let fault = RingFault::HeadBeyondTable { position: 0, head, size: 4 };
        assert_eq!(ring_fault(&guest, &mut guest.device(4, PLAIN)), fault);
    }
}

#[test]
fn a_packed_chain_without_end_breaks_the_ring() {
    let guest = Guest::new();
    for index in 0..4 {
        guest.ring_entry(index, (FREE, 1), 7, NEXT | AVAIL);
    }
    let mut queue = guest.device(4, PACKED);
    assert_eq!(ring_fault(&guest, &mut queue), RingFault::EndlessChain { index: 0, size: 4 });
}

#[test]
fn no_more_is_taken_than_the_ring_holds() {
    let guest = ring_with(PLAIN, &[(FREE, 1, 0)]);
    let mut queue = guest.device(4, PLAIN);
    let mut chains = Vec::new();
    for round in 0..4 {
        guest.offer(4, round, 0);
        chains.push(queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().unwrap());
    }
    guest.offer(4, 4, 0);
    assert_eq!(ring_fault(&guest, &mut queue), RingFault::Overcommitted { held: 4, size: 4 });
    queue.push(chains.pop().unwrap(), 0).unwrap();
    assert!(queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().is_some());

    let guest = Guest::new();
    for index in 0..4 {
        guest.ring_entry(index, (FREE, 1), index, AVAIL);
    }
    let mut queue = guest.device(4, PACKED);
    while queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().is_some() {}
    assert_eq!(queue.held(), 4);
    guest.ring_entry(0, (FREE, 1), 0, crate::guest::USED);
    assert_eq!(ring_fault(&guest, &mut queue), RingFault::Overcommitted { held: 4, size: 4 });
}

#[test]
fn rings_lie_whole_and_aligned_in_memory() {
    let guest = Guest::new();
    let translate = |addresses, layout, size| {
        RingParts::translate(&guest.memory(), addresses, layout, size, RingUser::Device).map(|_| ())
    };
    let misaligned = |part, address, alignment| Err(PartFault::Misaligned { part, address, alignment });
    let unmapped = |part, address, length| Err(PartFault::Unmapped { part, address, length, cause: Unmapped::Outside });
    let descriptor = |address| RingAddresses { descriptor: GuestAddress(address), ..ADDRESSES };
    let driver = |address| RingAddresses { driver: GuestAddress(address), ..ADDRESSES };
    let device = |address| RingAddresses { device: GuestAddress(address), ..ADDRESSES };
    use RingLayout::{Packed, Split};
    for (addresses, expected) in [
        (descriptor(FREE + 8), misaligned(RingPart::DescriptorTable, FREE + 8, 16)),
        (driver(FREE + 1), misaligned(RingPart::AvailableRing, FREE + 1, 2)),
        (device(FREE + 2), misaligned(RingPart::UsedRing, FREE + 2, 4)),
        (descriptor(END - 112), unmapped(RingPart::DescriptorTable, END - 112, 128)),
        (driver(END - 20), unmapped(RingPart::AvailableRing, END - 20, 22)),
        (device(END - 68), unmapped(RingPart::UsedRing, END - 68, 70)),
        (device(u64::MAX - 3), unmapped(RingPart::UsedRing, u64::MAX - 3, 70)),
        (descriptor(END - 128), Ok(())),
        (driver(END - 22), Ok(())),
        (device(END - 72), Ok(())),
    ] {
        assert_eq!(translate(addresses, Split, 8), expected);
    }
    for (addresses, expected) in [
        (descriptor(FREE + 8), misaligned(RingPart::DescriptorRing, FREE + 8, 16)),
        (driver(FREE + 2), misaligned(RingPart::DriverEvent, FREE + 2, 4)),
        (device(FREE + 2), misaligned(RingPart::DeviceEvent, FREE + 2, 4)),
        (descriptor(END - 64), unmapped(RingPart::DescriptorRing, END - 64, 80)),
        (driver(END), unmapped(RingPart::DriverEvent, END, 4)),
        (device(START - 4), unmapped(RingPart::DeviceEvent, START - 4, 4)),
        (descriptor(END - 80), Ok(())),
        (device(END - 4), Ok(())),
    ] {
        assert_eq!(translate(addresses, Packed, 5), expected);
    }
}

#[test]
fn sizes_and_bases_are_checked() {
    for size in [0, 3, 100, 32767, 32769, 65536, 0x1_0001, u32::MAX] {
        let fault = RingFault::Size { layout: RingLayout::Split, size };
        assert_eq!(RingLayout::Split.check_size(size), Err(fault));
    }
    for size in [1, 2, 256, 32768] {
        assert_eq!(RingLayout::Split.check_size(size).map(u32::from), Ok(size));
    }
    for size in [1, 3, 100, 32767, 32768] {
        assert_eq!(RingLayout::Packed.check_size(size).map(u32::from), Ok(size));
    }
    for size in [0, 32769, 65536, u32::MAX] {
        assert!(RingLayout::Packed.check_size(size).is_err());
    }
    let guest = Guest::new();
    for base in [VringBase::packed(0x8000_8004), VringBase::packed(0x8004_8000), first_base(RingLayout::Split)] {
        let parts = guest.parts(RingLayout::Packed, 4, RingUser::Device);
        let fault = RingFault::Base { layout: RingLayout::Packed, size: 4, base: base.to_num() };
        assert_eq!(DeviceQueue::new(parts, 4, PACKED, base).unwrap_err(), fault);
    }
}
