//! The device's side of a packed ring, on rings written byte by byte.

use vhost_core::wire::vring::VringBase;
use vhost_core::{CellRange, Chain, DeviceQueue, PushError, RingLayout, RingUser, VirtioFeatures};

use crate::guest::{ADDRESSES, AVAIL, FREE, Guest, INDIRECT, NEXT, Pieces, USED, WRITE, first_base, places};

const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;
const EVENT_IDX: VirtioFeatures = VirtioFeatures::RING_EVENT_IDX;
const INDIRECTS: VirtioFeatures = VirtioFeatures::RING_INDIRECT;

fn pop<'g>(guest: &'g Guest, queue: &mut DeviceQueue<CellRange<'g>>) -> Option<(Chain, Vec<(u64, usize)>)> {
    let mut pieces = Pieces::new();
    queue.pop(&guest.memory(), &mut pieces).unwrap().map(|chain| (chain, places(&pieces)))
}

/// Length, id and flags of a descriptor of the ring.
fn descriptor(guest: &Guest, index: u16) -> (u32, u16, u16) {
    let at = ADDRESSES.descriptor.0 + 16 * u64::from(index);
    (u32::from_le_bytes(guest.get(at + 8)), guest.get_u16(at + 12), guest.get_u16(at + 14))
}

/// The flags that make a descriptor available or used in a lap, the first of which has wrap counter 1.
fn available(lap: u32) -> u16 {
    if lap.is_multiple_of(2) { AVAIL } else { USED }
}

fn used(lap: u32) -> u16 {
    if lap.is_multiple_of(2) { AVAIL | USED } else { 0 }
}

#[test]
fn a_chain_comes_out_with_its_pieces_and_takes_its_slots_with_it() {
    let guest = Guest::new();
    guest.ring_entry(0, (FREE, 16), 1, NEXT | AVAIL);
    guest.ring_entry(1, (FREE + 0x100, 8), 2, NEXT | WRITE | AVAIL);
    guest.ring_entry(2, (FREE + 0x200, 1), 0xfedc, WRITE | AVAIL);
    let mut queue = guest.device(5, PACKED);
    let mut pieces = Pieces::new();
    let chain = queue.pop(&guest.memory(), &mut pieces).unwrap().unwrap();
    assert_eq!(places(&pieces), [(FREE, 16), (FREE + 0x100, 8), (FREE + 0x200, 1)]);
    let (readable, writable) = chain.split(&pieces);
    assert_eq!((chain.id(), readable.len(), writable.len(), queue.held()), (0xfedc, 1, 2, 3));
    assert_eq!((chain.readable_len(), chain.writable_len()), (16, 9));
    assert!(pop(&guest, &mut queue).is_none(), "descriptor 3 is not available");

    queue.stage(chain, 5).unwrap();
    assert_eq!(descriptor(&guest, 0), (5, 0xfedc, NEXT | AVAIL), "staged and not yet visible");
    queue.publish().unwrap();
    assert_eq!(descriptor(&guest, 0), (5, 0xfedc, WRITE | AVAIL | USED));
    let (a, u) = (VringBase::packed(0x8003_8003), queue.base());
    assert_eq!((a, queue.held()), (u, 0));

    guest.ring_entry(3, (FREE, 2), 9, AVAIL);
    let (chain, _) = pop(&guest, &mut queue).unwrap();
    queue.push(chain, 0).unwrap();
    assert_eq!(descriptor(&guest, 3), (0, 9, AVAIL | USED), "nothing written, and the slots of the first are skipped");
}

#[test]
fn laps_turn_the_wrap_counters() {
    let guest = Guest::new();
    let mut queue = guest.device(3, PACKED);
    for turn in 0..11_u32 {
        let (index, lap) = ((turn % 3) as u16, turn / 3);
        assert!(pop(&guest, &mut queue).is_none(), "not available in lap {lap}");
        guest.ring_entry(index, (FREE, 4), turn as u16, WRITE | available(lap));
        let (chain, _) = pop(&guest, &mut queue).unwrap();
        queue.push(chain, 1).unwrap();
        assert_eq!(descriptor(&guest, index), (1, turn as u16, WRITE | used(lap)));
    }
    assert_eq!(queue.base(), VringBase::packed(0x0002_0002));
}

#[test]
fn a_chain_lies_across_the_end_of_the_ring() {
    let guest = Guest::new();
    guest.ring_entry(2, (FREE, 4), 1, NEXT | AVAIL);
    guest.ring_entry(0, (FREE + 8, 4), 1, NEXT | USED);
    guest.ring_entry(1, (FREE + 16, 4), 3, WRITE | USED);
    let parts = guest.parts(RingLayout::Packed, 3, RingUser::Device);
    let mut queue = DeviceQueue::new(parts, 3, PACKED, VringBase::packed(0x8002_8002)).unwrap();
    let (chain, places) = pop(&guest, &mut queue).unwrap();
    assert_eq!((places, chain.id()), (vec![(FREE, 4), (FREE + 8, 4), (FREE + 16, 4)], 3));
    queue.push(chain, 4).unwrap();
    assert_eq!(descriptor(&guest, 2), (4, 3, WRITE | AVAIL | USED));
    assert_eq!(queue.base(), VringBase::packed(0x0002_0002));
}

#[test]
fn available_and_used_may_be_apart_in_the_base() {
    let guest = Guest::new();
    guest.ring_entry(1, (FREE, 4), 6, USED);
    let parts = guest.parts(RingLayout::Packed, 4, RingUser::Device);
    let mut queue = DeviceQueue::new(parts, 4, PACKED, VringBase::packed(0x8003_0001)).unwrap();
    let (chain, _) = pop(&guest, &mut queue).unwrap();
    queue.push(chain, 0).unwrap();
    let base = VringBase::Packed { available: 2, available_wrap: false, used: 0, used_wrap: false };
    assert_eq!((descriptor(&guest, 3), queue.base()), ((0, 6, AVAIL | USED), base));
}

#[test]
fn chains_go_back_in_any_order_and_the_first_of_a_batch_hides_the_others() {
    let guest = Guest::new();
    for index in 0..4 {
        guest.ring_entry(index, (FREE, 4), 10 + index, WRITE | AVAIL);
    }
    let mut queue = guest.device(4, PACKED);
    let chains: Vec<_> = core::iter::from_fn(|| pop(&guest, &mut queue)).map(|(chain, _)| chain).collect();
    for chain in chains.into_iter().rev().take(3) {
        queue.stage(chain, 2).unwrap();
    }
    assert_eq!(descriptor(&guest, 0).2 & (AVAIL | USED), AVAIL, "the driver sees nothing");
    assert_eq!(descriptor(&guest, 1), (2, 12, WRITE | AVAIL | USED));
    queue.publish().unwrap();
    assert_eq!([0, 1, 2].map(|index| descriptor(&guest, index).1), [13, 12, 11]);
    assert_eq!(descriptor(&guest, 0).2, WRITE | AVAIL | USED);
    assert_eq!((queue.held(), queue.base()), (1, VringBase::packed(0x8003_0000)));
}

#[test]
fn chains_that_were_not_taken_cannot_go_back() {
    let guest = Guest::new();
    guest.ring_entry(0, (FREE, 4), 0, AVAIL);
    let mut queue = guest.device(4, PACKED);
    let (chain, _) = pop(&guest, &mut queue).unwrap();
    queue.reset();
    assert_eq!(queue.push(chain.clone(), 0), Err(PushError::NotTaken { chain }));
    assert_eq!(queue.base(), first_base(RingLayout::Packed));
}

#[test]
fn in_order_chains_go_back_in_order_and_several_take_one_descriptor() {
    let guest = Guest::new();
    guest.ring_entry(0, (FREE, 4), 0, WRITE | AVAIL);
    guest.ring_entry(1, (FREE, 4), 1, NEXT | WRITE | AVAIL);
    guest.ring_entry(2, (FREE, 4), 1, WRITE | AVAIL);
    guest.ring_entry(3, (FREE, 4), 2, WRITE | AVAIL);
    let mut queue = guest.device(4, PACKED | VirtioFeatures::IN_ORDER);
    let chains: Vec<_> = core::iter::from_fn(|| pop(&guest, &mut queue)).map(|(chain, _)| chain).collect();
    let [first, second, third] = chains.try_into().unwrap();
    let refused = queue.stage(second.clone(), 1).unwrap_err();
    assert_eq!(refused, PushError::NotInOrder { chain: second.clone() });
    assert_eq!(refused.to_string(), "chain 1 is not the oldest of an in-order ring");
    queue.stage_filled([first, second]).unwrap();
    queue.publish().unwrap();
    assert_eq!((descriptor(&guest, 0), descriptor(&guest, 1).2), ((8, 1, WRITE | AVAIL | USED), NEXT | WRITE | AVAIL));
    queue.push(third, 3).unwrap();
    assert_eq!(descriptor(&guest, 3), (3, 2, WRITE | AVAIL | USED), "three slots further");
}

#[test]
fn out_of_order_filled_chains_take_a_descriptor_each() {
    let guest = Guest::new();
    for (index, length) in [(0, 4), (1, 6)] {
        guest.ring_entry(index, (FREE, length), 10 + index, WRITE | AVAIL);
    }
    let mut queue = guest.device(4, PACKED);
    let chains: Vec<_> = core::iter::from_fn(|| pop(&guest, &mut queue)).map(|(chain, _)| chain).collect();
    queue.stage_filled(chains.into_iter().rev()).unwrap();
    queue.publish().unwrap();
    assert_eq!(descriptor(&guest, 0), (6, 11, WRITE | AVAIL | USED));
    assert_eq!(descriptor(&guest, 1), (4, 10, WRITE | AVAIL | USED));
}

#[test]
fn an_indirect_table_is_taken_in_order_alone_or_behind_direct_descriptors() {
    let guest = Guest::new();
    let table = FREE + 0x1000;
    // Neither the id nor the flag `NEXT` means anything in it.
    guest.table_entry(table, 0, (FREE, 4), 9, 0);
    guest.table_entry(table, 1, (FREE + 8, 4), 0, NEXT | WRITE);
    guest.ring_entry(0, (table, 32), 5, INDIRECT | WRITE | AVAIL);
    guest.ring_entry(1, (FREE + 0x40, 2), 6, NEXT | AVAIL);
    guest.ring_entry(2, (table, 16), 7, INDIRECT | AVAIL);
    let mut queue = guest.device(4, PACKED | INDIRECTS);
    let (chain, places) = pop(&guest, &mut queue).unwrap();
    assert_eq!((places, chain.id(), chain.writable_len()), (vec![(FREE, 4), (FREE + 8, 4)], 5, 4));
    let (other, places) = pop(&guest, &mut queue).unwrap();
    assert_eq!((places, other.id()), (vec![(FREE + 0x40, 2), (FREE, 4)], 7));
    queue.push(other, 0).unwrap();
    queue.push(chain, 4).unwrap();
    assert_eq!([descriptor(&guest, 0).1, descriptor(&guest, 2).1], [7, 5]);
}

#[test]
fn kicks_are_switched_by_flags_and_asked_for_again_without_a_gap() {
    let guest = Guest::new();
    let mut queue = guest.device(4, PACKED);
    queue.disable_kicks().unwrap();
    assert_eq!(guest.get(ADDRESSES.device.0), [0, 0, 1, 0]);
    assert_eq!(queue.enable_kicks(), Ok(false));
    assert_eq!(guest.get(ADDRESSES.device.0), [0, 0, 0, 0]);
    guest.ring_entry(0, (FREE, 1), 0, AVAIL);
    assert_eq!((queue.enable_kicks(), queue.has_available()), (Ok(true), Ok(true)));
}

#[test]
fn with_event_index_a_kick_is_asked_for_at_the_next_place() {
    let guest = Guest::new();
    let mut queue = guest.device(2, PACKED | EVENT_IDX);
    for turn in 0..5_u32 {
        let (index, lap) = ((turn % 2) as u16, turn / 2);
        assert_eq!(queue.enable_kicks(), Ok(false));
        let wrap = u16::from(lap.is_multiple_of(2)) << 15;
        assert_eq!([0, 2].map(|at| guest.get_u16(ADDRESSES.device.0 + at)), [index | wrap, 2]);
        queue.disable_kicks().unwrap();
        assert_eq!(guest.get_u16(ADDRESSES.device.0 + 2), 1);
        guest.ring_entry(index, (FREE, 1), 0, available(lap));
        let (chain, _) = pop(&guest, &mut queue).unwrap();
        queue.push(chain, 0).unwrap();
    }
}

#[test]
fn calls_go_by_the_drivers_flags() {
    for (flags, event_idx, call) in
        [(0, false, true), (1, false, false), (2, false, true), (3, true, true), (1, true, false)]
    {
        let guest = Guest::new();
        let features = if event_idx { PACKED | EVENT_IDX } else { PACKED };
        guest.put_u16(ADDRESSES.driver.0 + 2, flags);
        guest.put_u16(ADDRESSES.driver.0, 0x8003);
        guest.ring_entry(0, (FREE, 1), 0, AVAIL);
        let mut queue = guest.device(4, features);
        assert_eq!(queue.needs_call(), Ok(false), "nothing was used");
        let (chain, _) = pop(&guest, &mut queue).unwrap();
        queue.stage(chain, 0).unwrap();
        assert_eq!(queue.needs_call(), Ok(false), "nothing is visible");
        queue.publish().unwrap();
        assert_eq!([queue.needs_call(), queue.needs_call()], [Ok(call), Ok(false)], "{flags}");
    }
}

/// For every place in two laps, every start, and batches up to a whole lap: a call is due exactly when the driver's place
/// is among those that were just used.
#[test]
fn with_event_index_a_call_is_due_when_the_place_is_passed() {
    let size = 3_u32;
    for start in 0..2 * size {
        for batch in 1..=size {
            for event in start..start + 2 * size {
                let guest = Guest::new();
                let place = |turn: u32| (turn % size) | (u32::from((turn / size).is_multiple_of(2)) << 15);
                guest.put_u16(ADDRESSES.driver.0, place(event) as u16);
                guest.put_u16(ADDRESSES.driver.0 + 2, 2);
                for turn in start..start + batch {
                    guest.ring_entry((turn % size) as u16, (FREE, 1), 0, available(turn / size));
                }
                let parts = guest.parts(RingLayout::Packed, size as u16, RingUser::Device);
                let base = VringBase::packed(place(start) | (place(start) << 16));
                let mut queue = DeviceQueue::new(parts, size, PACKED | EVENT_IDX, base).unwrap();
                for _ in 0..batch {
                    let (chain, _) = pop(&guest, &mut queue).unwrap();
                    queue.push(chain, 0).unwrap();
                }
                // A place of the lap after next looks like one of this lap.
                let passed = (start..start + batch).any(|turn| place(turn) == place(event));
                assert_eq!(queue.needs_call(), Ok(passed), "{start} {batch} {event}");
            }
        }
    }
}

#[test]
fn a_driver_shows_its_place_when_indices_are_used() {
    let guest = Guest::new();
    guest.put_u16(ADDRESSES.driver.0, 0x8003);
    guest.put_u16(ADDRESSES.driver.0 + 2, 1);
    assert_eq!(guest.device(4, PACKED | EVENT_IDX).driver_event(), Ok(Some(0x8003)));
    assert_eq!(guest.device(4, PACKED).driver_event(), Ok(None));
}

/// More than a lap was used since the last question: a place was passed whatever it says, even one of two laps ago.
#[test]
fn after_more_than_a_lap_every_place_is_passed() {
    for place in [0x8000, 0x8002, 0, 2] {
        for turns in 4..10 {
            let guest = Guest::new();
            guest.put_u16(ADDRESSES.driver.0, place);
            guest.put_u16(ADDRESSES.driver.0 + 2, 2);
            let mut queue = guest.device(3, PACKED | EVENT_IDX);
            for turn in 0..turns {
                guest.ring_entry((turn % 3) as u16, (FREE, 1), 0, available(turn / 3));
                let (chain, _) = pop(&guest, &mut queue).unwrap();
                queue.push(chain, 0).unwrap();
            }
            assert_eq!(queue.needs_call(), Ok(true), "{place:#x}, {turns}");
        }
    }
}

#[test]
fn staged_chains_do_not_count_as_passed() {
    let guest = Guest::new();
    guest.put_u16(ADDRESSES.driver.0, 0x8001);
    guest.put_u16(ADDRESSES.driver.0 + 2, 2);
    guest.ring_entry(0, (FREE, 1), 0, AVAIL);
    guest.ring_entry(1, (FREE, 1), 1, AVAIL);
    let mut queue = guest.device(4, PACKED | EVENT_IDX);
    let (first, _) = pop(&guest, &mut queue).unwrap();
    let (second, _) = pop(&guest, &mut queue).unwrap();
    queue.push(first, 0).unwrap();
    queue.stage(second, 0).unwrap();
    assert_eq!(queue.needs_call(), Ok(false));
    queue.publish().unwrap();
    assert_eq!(queue.needs_call(), Ok(true));
}
