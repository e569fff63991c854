//! Inflight records byte by byte: where C programs have their fields, what those left behind, and any other bytes.

use vhost_core::{
    CellRange, Chain, DeviceQueue, Resubmission, RingFault, RingLayout, VirtioFeatures, wire::vring::VringBase,
};

use crate::guest::{ADDRESSES, AVAIL, FREE, Guest, NEXT, Pieces, USED, WRITE, places};
use vhost_tests::numbers::Numbers;

const SPLIT: VirtioFeatures = VirtioFeatures::empty();
const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;

const RECORD: u64 = 0x3000;

/// Bytes of the records of rings of 4: 16 + 4 * 16 and 32 + 4 * 32, rounded up to 64.
const SPLIT_BYTES: u64 = 128;
const PACKED_BYTES: u64 = 192;

/// Field offsets of a split record: header, then entries of 16.
const VERSION: u64 = RECORD + 8;
const SIZE: u64 = RECORD + 10;
const LAST_BATCH: u64 = RECORD + 12;
const USED_INDEX: u64 = RECORD + 14;

fn split_entry(entry: u16) -> u64 {
    RECORD + 16 + 16 * u64::from(entry)
}

fn packed_entry(entry: u16) -> u64 {
    RECORD + 32 + 32 * u64::from(entry)
}

fn native_u16(guest: &Guest, address: u64) -> u16 {
    u16::from_ne_bytes(guest.get(address))
}

/// A split ring of 4 with chains of one writable byte or more at every head, all available from index 0 on.
fn split_ring() -> Guest {
    let guest = Guest::new();
    for head in 0..4 {
        guest.table_entry(ADDRESSES.descriptor.0, head, (FREE, u32::from(head) + 1), WRITE, 0);
        guest.offer(4, head, head);
    }
    guest
}

fn pop<'g>(guest: &'g Guest, queue: &mut DeviceQueue<CellRange<'g>>) -> Chain {
    queue.pop(&guest.memory(), &mut Pieces::new()).unwrap().unwrap()
}

fn recover<'g>(
    guest: &'g Guest,
    queue: &mut DeviceQueue<CellRange<'g>>,
    bytes: u64,
) -> Result<Vec<Resubmission>, RingFault> {
    let mut room = [Resubmission::default(); 4];
    queue.recover(guest.range(RECORD, bytes), &mut room).map(<[_]>::to_vec)
}

fn size_for(layout: RingLayout, size: u16) -> u64 {
    DeviceQueue::<CellRange<'_>>::inflight_size(layout, size)
}

#[test]
fn records_are_as_large_as_those_of_c_programs() {
    for (size, split, packed) in [(1, 64, 64), (2, 64, 128), (128, 2112, 4160), (256, 4160, 8256), (1024, 16448, 32832)]
    {
        assert_eq!(size_for(RingLayout::Split, size), split);
        assert_eq!(size_for(RingLayout::Packed, size), packed);
    }
    // 16-bit arithmetic would wrap around.
    assert_eq!(size_for(RingLayout::Split, 32768), 524_352);
    assert_eq!(size_for(RingLayout::Packed, 32768), 1_048_640);
    assert_eq!(size_for(RingLayout::Split, 4), SPLIT_BYTES);
    assert_eq!(size_for(RingLayout::Packed, 4), PACKED_BYTES);
}

#[test]
fn a_split_record_is_written_step_by_step() {
    let guest = split_ring();
    guest.put(RECORD, &[0xee; SPLIT_BYTES as usize]);
    guest.put(VERSION, &[0, 0]);
    guest.put_u16(ADDRESSES.device.0 + 2, 0);
    let mut queue = guest.device(4, SPLIT);
    assert_eq!(recover(&guest, &mut queue, SPLIT_BYTES), Ok(vec![]));
    assert_eq!(guest.get::<8>(RECORD), [0; 8], "features");
    let header = || [VERSION, SIZE, LAST_BATCH, USED_INDEX].map(|at| native_u16(&guest, at));
    assert_eq!(header(), [1, 4, 0, 0]);
    for entry in 0..4 {
        assert_eq!(guest.get(split_entry(entry)), [0; 16]);
    }
    // Inflight, 5 of padding, next, counter.
    let entry = |entry| {
        let at = split_entry(entry);
        (guest.get::<1>(at)[0], native_u16(&guest, at + 6), u64::from_ne_bytes(guest.get(at + 8)))
    };
    let chains: Vec<_> = (0..3).map(|_| pop(&guest, &mut queue)).collect();
    assert_eq!([0, 1, 2, 3].map(entry), [(1, 0, 0), (1, 0, 1), (1, 0, 2), (0, 0, 0)]);
    let [first, second, third] = chains.try_into().unwrap();
    queue.stage(second, 0).unwrap();
    queue.stage(first, 0).unwrap();
    assert_eq!((header(), entry(1), entry(0)), ([1, 4, 0, 0], (1, 0, 1), (1, 1, 0)), "linked, and still in flight");
    queue.publish().unwrap();
    assert_eq!((header(), entry(1).0, entry(0).0, entry(2).0), ([1, 4, 0, 2], 0, 0, 1));
    queue.push(third, 0).unwrap();
    assert_eq!((header(), entry(2)), ([1, 4, 2, 3], (0, 0, 2)));
    let last = pop(&guest, &mut queue);
    assert_eq!((last.id(), entry(3)), (3, (1, 0, 3)));
}

/// libvhost-user and DPDK leave this: entries by head, counters anyhow, the last batch of one not yet cleared.
#[test]
fn a_split_record_of_another_back_end_is_recovered_in_the_order_of_its_counters() {
    let guest = split_ring();
    for (head, counter) in [(0, 70_u64), (1, 5), (2, 1 << 40), (3, 6)] {
        guest.put(split_entry(head), &[1]);
        guest.put(split_entry(head) + 8, &counter.to_ne_bytes());
    }
    for (at, number) in [(VERSION, 1_u16), (SIZE, 4), (LAST_BATCH, 3), (USED_INDEX, 0xffff)] {
        guest.put(at, &number.to_ne_bytes());
    }
    // The driver sees one more used than the record knows: the chain at 3.
    let mut queue = guest.device(4, SPLIT);
    let found = recover(&guest, &mut queue, SPLIT_BYTES).unwrap();
    assert_eq!(found.iter().map(|found| found.entry).collect::<Vec<_>>(), [1, 0, 2]);
    assert_eq!((guest.get(split_entry(3)), native_u16(&guest, USED_INDEX)), ([0], 0));
    assert_eq!((queue.base(), queue.held()), (VringBase::Split { available: 3 }, 3));
    let mut pieces = Pieces::new();
    let chain = queue.pop_recovered(&found[0], &guest.memory(), &mut pieces).unwrap();
    assert_eq!((chain.id(), places(&pieces)), (1, vec![(FREE, 2)]));
    queue.push(chain, 2).unwrap();
    assert_eq!((guest.used(4, 0), guest.used_index()), ((1, 2), 1));
    assert_eq!(pop(&guest, &mut queue).id(), 3, "the one behind those in flight");
    // Counters go on behind the largest.
    assert_eq!(u64::from_ne_bytes(guest.get(split_entry(3) + 8)), (1 << 40) + 1);
}

/// A batch of three, of which the writer cleared one before it ended: the list is walked for the rest.
#[test]
fn the_whole_last_batch_is_walked() {
    let guest = split_ring();
    for head in 0..4 {
        guest.put(split_entry(head), &[u8::from(head != 2)]);
    }
    for (at, number) in [(split_entry(2) + 6, 0_u16), (split_entry(0) + 6, 1), (VERSION, 1), (SIZE, 4), (LAST_BATCH, 2)]
    {
        guest.put(at, &number.to_ne_bytes());
    }
    guest.put_u16(ADDRESSES.device.0 + 2, 3);
    let mut queue = guest.device(4, SPLIT);
    let found = recover(&guest, &mut queue, SPLIT_BYTES).unwrap();
    assert_eq!(found.iter().map(|found| found.entry).collect::<Vec<_>>(), [3]);
    assert_eq!(native_u16(&guest, USED_INDEX), 3);
}

#[test]
fn a_packed_record_is_written_step_by_step() {
    let guest = Guest::new();
    guest.put(RECORD, &[0xee; PACKED_BYTES as usize]);
    guest.put(VERSION, &[0, 0]);
    guest.ring_entry(0, (FREE, 16), 8, NEXT | AVAIL);
    guest.ring_entry(1, (FREE + 64, 8), 9, WRITE | AVAIL);
    guest.ring_entry(2, (FREE + 128, 4), 10, WRITE | AVAIL);
    let mut queue = guest.device(4, PACKED);
    assert_eq!(recover(&guest, &mut queue, PACKED_BYTES), Ok(vec![]));
    // Version, size, free head, old free head, used index, old used index; used wrap counter, old used wrap counter.
    let header = || (8..20).step_by(2).map(|at| native_u16(&guest, RECORD + at)).collect::<Vec<_>>();
    let wraps = || guest.get::<2>(RECORD + 20);
    assert_eq!((header(), wraps()), (vec![1, 4, 0, 0, 0, 0], [1, 1]));
    // Inflight; next, last, num; counter; id, flags, length, address.
    let heads = |entry| {
        let at = packed_entry(entry);
        (guest.get::<1>(at)[0], [2, 4, 6].map(|field| native_u16(&guest, at + field)))
    };
    let copy = |entry| {
        let at = packed_entry(entry) + 16;
        let (length, address) = (u32::from_ne_bytes(guest.get(at + 4)), u64::from_ne_bytes(guest.get(at + 8)));
        (native_u16(&guest, at), native_u16(&guest, at + 2), length, address)
    };
    assert_eq!([0, 1, 2, 3].map(heads), [1, 2, 3, 4].map(|next| (0, [next, 0, 0])), "a list of free entries");
    let first = pop(&guest, &mut queue);
    assert_eq!((header(), heads(0)), (vec![1, 4, 2, 2, 0, 0], (1, [1, 1, 2])));
    assert_eq!(copy(0), (8, NEXT | AVAIL, 16, FREE));
    assert_eq!(copy(1), (9, WRITE | AVAIL, 8, FREE + 64));
    let second = pop(&guest, &mut queue);
    assert_eq!((header(), heads(2)), (vec![1, 4, 3, 3, 0, 0], (1, [3, 2, 1])));
    assert_eq!(u64::from_ne_bytes(guest.get(packed_entry(2) + 8)), 1, "the counter");
    queue.stage(second, 0).unwrap();
    assert_eq!((header(), heads(2)), (vec![1, 4, 2, 3, 0, 0], (1, [3, 2, 1])), "free when the driver sees it");
    queue.stage(first, 0).unwrap();
    queue.publish().unwrap();
    assert_eq!((header(), wraps()), (vec![1, 4, 0, 0, 3, 3], [1, 1]));
    assert_eq!([heads(0), heads(1), heads(2)], [(0, [1, 1, 2]), (0, [2, 0, 0]), (0, [3, 2, 1])]);
}

#[test]
fn a_fresh_packed_record_begins_at_the_base_of_the_ring() {
    let guest = Guest::new();
    let parts = guest.parts(RingLayout::Packed, 4, vhost_core::RingUser::Device);
    let mut queue = DeviceQueue::new(parts, 4, PACKED, VringBase::packed(0x0003_0003)).unwrap();
    assert_eq!(recover(&guest, &mut queue, PACKED_BYTES), Ok(vec![]));
    assert_eq!([16, 18].map(|at| native_u16(&guest, RECORD + at)), [3, 3]);
    assert_eq!((guest.get(RECORD + 20), queue.base()), ([0; 4], VringBase::packed(0x0003_0003)));
}

/// Entry 1 is in flight with two descriptors, the batch before ended between its steps.
fn packed_record(guest: &Guest, used: (u16, u8), old_used: (u16, u8)) {
    let numbers = [(8, 1_u16), (10, 4), (12, 3), (14, 3), (16, used.0), (18, old_used.0)];
    for (at, number) in numbers {
        guest.put(RECORD + at, &number.to_ne_bytes());
    }
    guest.put(RECORD + 20, &[used.1, old_used.1]);
    for (entry, next) in [(0, 4), (1, 2), (2, 0), (3, 0)] {
        guest.put(packed_entry(entry) + 2, &u16::to_ne_bytes(next));
    }
    guest.put(packed_entry(1), &[1]);
    for (at, number) in [(4, 2_u16), (6, 2), (8, 55)] {
        guest.put(packed_entry(1) + at, &number.to_ne_bytes());
    }
    for (entry, id, flags, length, address) in [(1, 5_u16, NEXT | AVAIL, 16_u32, FREE), (2, 77, WRITE, 8, FREE + 64)] {
        let at = packed_entry(entry) + 16;
        guest.put(at, &[id.to_ne_bytes(), flags.to_ne_bytes()].concat());
        guest.put(at + 4, &length.to_ne_bytes());
        guest.put(at + 8, &u64::to_ne_bytes(address));
    }
}

#[test]
fn a_packed_record_is_recovered_from_its_copies() {
    // The place of the next used descriptor comes from the record, wherever the base of the front-end is.
    for (used, old_used, flags, place) in [
        ((1, 1), (1, 1), 0, (1, true)),
        // The batch from 0 on is in the ring, and the driver has even made that descriptor available again.
        ((1, 1), (0, 1), AVAIL | USED, (1, true)),
        ((1, 1), (0, 1), USED, (1, true)),
        // It is not: the step is taken back.
        ((1, 1), (0, 1), AVAIL, (0, true)),
        // A batch of a whole lap, in the ring or not: only the wrap counter tells.
        ((3, 0), (3, 1), AVAIL | USED, (3, false)),
        ((3, 0), (3, 1), AVAIL, (3, true)),
    ] {
        let guest = Guest::new();
        packed_record(&guest, used, old_used);
        guest.ring_entry(old_used.0, (0, 0), 0, flags);
        let mut queue = guest.device(4, PACKED);
        let found = recover(&guest, &mut queue, PACKED_BYTES).unwrap();
        assert_eq!(found.iter().map(|found| found.entry).collect::<Vec<_>>(), [1]);
        let VringBase::Packed { used, used_wrap, available, .. } = queue.base() else { unreachable!() };
        assert_eq!(((used, used_wrap), available, queue.held()), (place, (place.0 + 2) % 4, 2));
        let mut pieces = Pieces::new();
        let chain = queue.pop_recovered(&found[0], &guest.memory(), &mut pieces).unwrap();
        assert_eq!((chain.id(), places(&pieces), chain.readable_pieces()), (77, vec![(FREE, 16), (FREE + 64, 8)], 1));
        queue.push(chain, 3).unwrap();
        assert_eq!(guest.get::<1>(packed_entry(1)), [0]);
        let at = ADDRESSES.descriptor.0 + 16 * u64::from(place.0);
        assert_eq!((u32::from_le_bytes(guest.get(at + 8)), guest.get_u16(at + 12)), (3, 77));
    }
}

#[test]
fn entries_of_the_free_list_are_not_in_flight() {
    let guest = Guest::new();
    packed_record(&guest, (1, 1), (1, 1));
    guest.put(packed_entry(3), &[1]);
    guest.put(packed_entry(0), &[1]);
    let mut queue = guest.device(4, PACKED);
    let found = recover(&guest, &mut queue, PACKED_BYTES).unwrap();
    assert_eq!(found.iter().map(|found| found.entry).collect::<Vec<_>>(), [1]);
}

#[test]
fn records_that_do_not_fit_are_refused_by_name() {
    let number = |guest: &Guest, at, number: u16| guest.put(RECORD + at, &number.to_ne_bytes());
    for (features, bytes) in [(SPLIT, SPLIT_BYTES), (PACKED, PACKED_BYTES)] {
        let fault = |edit: &dyn Fn(&Guest), bytes| {
            let guest = Guest::new();
            number(&guest, 8, 1);
            number(&guest, 10, 4);
            edit(&guest);
            let mut queue = guest.device(4, features);
            let before = queue.clone();
            let fault = recover(&guest, &mut queue, bytes).unwrap_err();
            assert_eq!(queue.base(), before.base());
            assert!(!fault.to_string().is_empty());
            fault
        };
        assert_eq!(
            fault(&|_| {}, bytes - 1),
            RingFault::InflightTooShort { layout: RingLayout::of(features), size: 4, found: bytes as u32 - 1 }
        );
        assert_eq!(fault(&|guest| number(guest, 8, 2), bytes), RingFault::InflightVersion { found: 2 });
        assert_eq!(fault(&|guest| number(guest, 10, 8), bytes), RingFault::InflightSize { expected: 4, found: 8 });
        if features == SPLIT {
            let batch = |guest: &Guest| guest.put_u16(ADDRESSES.device.0 + 2, 5);
            assert_eq!(fault(&batch, bytes), RingFault::InflightBatch { count: 5, size: 4 });
            let link = |guest: &Guest| {
                guest.put_u16(ADDRESSES.device.0 + 2, 2);
                number(guest, 12, 1);
                guest.put(split_entry(1) + 6, &4_u16.to_ne_bytes());
            };
            assert_eq!(fault(&link, bytes), RingFault::InflightLink { offset: 16 + 16 + 6, found: 4 });
            let head = |guest: &Guest| {
                guest.put_u16(ADDRESSES.device.0 + 2, 1);
                number(guest, 12, 4);
            };
            assert_eq!(fault(&head, bytes), RingFault::InflightLink { offset: 12, found: 4 });
        } else {
            for (at, offset) in [(16, 16), (18, 18)] {
                let place = |guest: &Guest| number(guest, at, 4);
                assert_eq!(fault(&place, bytes), RingFault::InflightPlace { offset, found: 4 });
            }
            for slots in [0, 5, u16::MAX] {
                let many = |guest: &Guest| {
                    number(guest, 14, 4);
                    guest.put(packed_entry(2), &[1]);
                    guest.put(packed_entry(2) + 6, &slots.to_ne_bytes());
                };
                assert_eq!(fault(&many, bytes), RingFault::InflightTooManyDescriptors { size: 4 });
            }
        }
    }
}

#[test]
fn more_in_flight_than_there_is_room_for_is_an_error() {
    let guest = split_ring();
    for head in 0..3 {
        guest.put(split_entry(head), &[1]);
    }
    guest.put(VERSION, &[1_u16.to_ne_bytes(), 4_u16.to_ne_bytes()].concat());
    for room in 0..4 {
        let mut queue = guest.device(4, SPLIT);
        let mut list = vec![Resubmission::default(); room];
        let found = queue.recover(guest.range(RECORD, SPLIT_BYTES), &mut list).map(<[_]>::len);
        let expected = if room < 3 { Err(RingFault::InflightNoRoom { room: room as u16 }) } else { Ok(3) };
        assert_eq!(found, expected);
    }
}

/// The record has entries for more than the ring, as it may; one that is none of the ring's is in flight in it.
#[test]
fn a_chain_in_flight_that_a_smaller_ring_does_not_have_is_refused() {
    let guest = split_ring();
    guest.put(VERSION, &[1_u16.to_ne_bytes(), 8_u16.to_ne_bytes()].concat());
    guest.put(split_entry(5), &[1]);
    let mut queue = guest.device(4, SPLIT);
    let refused = recover(&guest, &mut queue, size_for(RingLayout::Split, 8));
    assert_eq!(refused, Err(RingFault::InflightEntry { found: 5, size: 4 }));
    assert_eq!(queue.held(), 0);
    // A batch of more chains than the ring has is none either.
    guest.put(split_entry(5), &[0]);
    guest.put(USED_INDEX, &0xfffb_u16.to_ne_bytes());
    let refused = recover(&guest, &mut queue, size_for(RingLayout::Split, 8));
    assert_eq!(refused, Err(RingFault::InflightBatch { count: 5, size: 4 }));
}

/// Any bytes: recovery ends, what it finds is within the ring, and using it is an error at worst.
#[test]
fn any_bytes_are_recovered_or_refused() {
    let mut counts = [0_usize; 4];
    for seed in 0..20_000 {
        let mut numbers = Numbers::new(seed);
        let guest = Guest::new();
        for at in (0..PACKED_BYTES).step_by(2) {
            let [low, high] = [(); 2].map(|()| match numbers.below(40) {
                0 => numbers.next() as u8,
                1..10 => numbers.below(4) as u8,
                _ => 0,
            });
            guest.put(RECORD + at, &u16::from_le_bytes([low, high]).to_ne_bytes());
        }
        guest.put(VERSION, &[1_u16.to_ne_bytes(), 4_u16.to_ne_bytes()].concat());
        let features = if seed % 2 == 0 { SPLIT } else { PACKED };
        for index in 0..4 {
            let (address, flags) = ([FREE, 0][numbers.below(2) as usize], [0, AVAIL, USED, AVAIL | USED]);
            guest.ring_entry(index, (address, 1), 0, flags[numbers.below(4) as usize]);
        }
        let used = (native_u16(&guest, USED_INDEX)).wrapping_add(numbers.below(6) as u16);
        guest.put_u16(ADDRESSES.device.0 + 2, used);
        let mut queue = guest.device(4, features);
        let Ok(found) = recover(&guest, &mut queue, PACKED_BYTES) else {
            counts[0] += 1;
            continue;
        };
        assert!(found.len() <= 4 && queue.held() <= 4);
        assert!(found.iter().all(|found| found.entry < 4));
        for resubmission in &found {
            match queue.pop_recovered(resubmission, &guest.memory(), &mut Pieces::new()) {
                Ok(chain) => {
                    counts[1] += 1;
                    let _ = queue.push(chain, 1);
                }
                Err(vhost_core::PopError::Malformed { chain, .. }) => {
                    counts[2] += 1;
                    let _ = queue.push(chain, 1);
                }
                Err(_) => counts[3] += 1,
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 50), "{counts:?}");
}
