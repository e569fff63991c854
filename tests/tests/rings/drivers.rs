//! The driver's side, both layouts: the bytes it writes, what it reads, and what it refuses of a device.

use vhost_core::{
    AddError, Buffer, CellRange, DriverFault, DriverQueue, GuestAddress, RingFault, RingLayout, RingUser, Used,
    VirtioFeatures,
};

use crate::guest::{ADDRESSES, AVAIL, FREE, Guest, INDIRECT, NEXT, USED, WRITE};

const PLAIN: VirtioFeatures = VirtioFeatures::empty();
const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;
const EVENT_IDX: VirtioFeatures = VirtioFeatures::RING_EVENT_IDX;
const INDIRECTS: VirtioFeatures = VirtioFeatures::RING_INDIRECT;
const IN_ORDER: VirtioFeatures = VirtioFeatures::IN_ORDER;

const BOTH: [VirtioFeatures; 2] = [PLAIN, PACKED];

type Queue<'g> = DriverQueue<CellRange<'g>, 4>;

fn buffer(offset: u64, length: u32) -> Buffer {
    Buffer { address: GuestAddress(FREE + offset), length }
}

/// Address, length and two numbers of the descriptor at `index` of a ring or table.
fn descriptor(guest: &Guest, table: u64, index: u16) -> (u64, u32, u16, u16) {
    let at = table + 16 * u64::from(index);
    let number = u64::from_le_bytes(guest.get(at));
    (number, u32::from_le_bytes(guest.get(at + 8)), guest.get_u16(at + 12), guest.get_u16(at + 14))
}

/// The device gives `token` back, as the `turn`-th of a ring of 4 in slots of one descriptor each.
fn give_back(guest: &Guest, features: VirtioFeatures, turn: u16, token: u16, written: u32) {
    match RingLayout::of(features) {
        RingLayout::Split => {
            let at = ADDRESSES.device.0 + 4 + 8 * u64::from(turn % 4);
            guest.put(at, &u32::from(token).to_le_bytes());
            guest.put(at + 4, &written.to_le_bytes());
            guest.put_u16(ADDRESSES.device.0 + 2, turn + 1);
        }
        RingLayout::Packed => {
            let flags = if (turn / 4).is_multiple_of(2) { AVAIL | USED } else { 0 };
            guest.ring_entry(turn % 4, (0, written), token, flags | if written > 0 { WRITE } else { 0 });
        }
    }
}

#[test]
fn a_split_chain_is_written_and_then_shown() {
    let guest = Guest::new();
    let mut queue: Queue<'_> = guest.driver(4, PLAIN);
    let token = queue.add(&[buffer(0, 16), buffer(0x100, 8)], &[buffer(0x200, 1)]).unwrap();
    let table = ADDRESSES.descriptor.0;
    assert_eq!(descriptor(&guest, table, 0), (FREE, 16, NEXT, 1));
    assert_eq!(descriptor(&guest, table, 1), (FREE + 0x100, 8, NEXT, 2));
    assert_eq!(descriptor(&guest, table, 2), (FREE + 0x200, 1, WRITE, 0));
    let available = || guest.get::<6>(ADDRESSES.driver.0);
    assert_eq!((token, queue.free(), available()), (0, 1, [0; 6]));
    queue.publish().unwrap();
    assert_eq!(available(), [0, 0, 1, 0, 0, 0]);
    let second = queue.add(&[buffer(0, 1)], &[]).unwrap();
    assert_eq!((second, queue.free(), queue.outstanding()), (3, 0, 2));
    assert_eq!(guest.get_u16(ADDRESSES.driver.0 + 6), 3);
}

#[test]
fn a_packed_chain_is_written_and_then_shown_by_its_first_flags() {
    let guest = Guest::new();
    let mut queue: Queue<'_> = guest.driver(3, PACKED);
    let token = queue.add(&[buffer(0, 16)], &[buffer(0x200, 1)]).unwrap();
    let ring = ADDRESSES.descriptor.0;
    assert_eq!(descriptor(&guest, ring, 0), (FREE, 16, token, 0), "hidden");
    assert_eq!(descriptor(&guest, ring, 1), (FREE + 0x200, 1, token, WRITE | AVAIL));
    queue.publish().unwrap();
    assert_eq!(descriptor(&guest, ring, 0), (FREE, 16, token, NEXT | AVAIL));
    assert_eq!((queue.free(), queue.outstanding()), (1, 1));
    guest.ring_entry(0, (0, 1), token, WRITE | AVAIL | USED);
    assert_eq!(queue.poll(), Ok(Some(Used { token, written: 1 })));
    assert_eq!((queue.free(), queue.poll()), (3, Ok(None)));
    // Across the end: the flags of the next lap are the other ones.
    let token = queue.add(&[buffer(0, 2), buffer(0, 3)], &[]).unwrap();
    queue.publish().unwrap();
    assert_eq!(descriptor(&guest, ring, 2), (FREE, 2, token, NEXT | AVAIL));
    assert_eq!(descriptor(&guest, ring, 0), (FREE, 3, token, USED));
}

#[test]
fn an_indirect_chain_takes_one_descriptor() {
    for layout in BOTH {
        let guest = Guest::new();
        let mut queue: Queue<'_> = guest.driver(4, layout | INDIRECTS);
        let table = guest.range(FREE + 0x1000, 48);
        let token = queue.add_indirect(&table, &[buffer(0, 4)], &[buffer(8, 4), buffer(16, 4)]).unwrap();
        queue.publish().unwrap();
        let links =
            if layout == PLAIN { [(NEXT, 1), (WRITE | NEXT, 2), (WRITE, 0)] } else { [(0, 0), (WRITE, 0), (WRITE, 0)] };
        for (index, (flags, next)) in (0..).zip(links) {
            // In a packed ring the table has the form of the ring: id, flags.
            let (third, fourth) = if layout == PLAIN { (flags, next) } else { (next, flags) };
            let expected = (FREE + 8 * u64::from(index), 4, third, fourth);
            assert_eq!(descriptor(&guest, FREE + 0x1000, index), expected);
        }
        let (address, length, third, fourth) = descriptor(&guest, ADDRESSES.descriptor.0, 0);
        let flags = if layout == PLAIN { (INDIRECT, 0) } else { (token, INDIRECT | AVAIL) };
        assert_eq!((address, length, (third, fourth), queue.free()), (FREE + 0x1000, 48, flags, 3));
        give_back(&guest, layout, 0, token, 100);
        assert_eq!(queue.poll(), Ok(Some(Used { token, written: 8 })), "cut down to what is writable");

        let small = guest.range(FREE + 0x1000, 47);
        let refused = AddError::TableTooSmall { needed: 3, found: 2 };
        assert_eq!(queue.add_indirect(&small, &[buffer(0, 4); 3], &[]), Err(refused));
        let mut queue: Queue<'_> = guest.driver(4, layout);
        assert_eq!(queue.add_indirect(&table, &[buffer(0, 4)], &[]), Err(AddError::IndirectNotNegotiated));
    }
}

#[test]
fn what_cannot_be_added_changes_nothing() {
    for layout in BOTH {
        let guest = Guest::new();
        let mut queue: Queue<'_> = guest.driver(4, layout);
        let before = queue.state();
        for (readable, writable, refused) in [
            (vec![], vec![], AddError::Empty),
            (vec![buffer(0, 0)], vec![], AddError::Empty),
            (vec![buffer(0, 1)], vec![buffer(0, 0)], AddError::Empty),
            (vec![buffer(0, 1); 3], vec![buffer(0, 1); 2], AddError::TooManyDescriptors { count: 5, limit: 4 }),
            (vec![buffer(0, u32::MAX)], vec![buffer(0, 1)], AddError::TooLong),
        ] {
            assert_eq!(queue.add(&readable, &writable), Err(refused));
            assert!(!refused.to_string().is_empty());
        }
        assert_eq!(queue.state(), before);
        assert!(queue.add(&[buffer(0, u32::MAX)], &[]).is_ok());
        queue.add(&[buffer(0, 1); 2], &[]).unwrap();
        assert_eq!(queue.add(&[buffer(0, 1)], &[buffer(0, 1)]), Err(AddError::Full { needed: 2, free: 1 }));
        queue.add(&[buffer(0, 1)], &[]).unwrap();
        assert_eq!(queue.add(&[buffer(0, 1)], &[]), Err(AddError::Full { needed: 1, free: 0 }));
        let parts = guest.parts(RingLayout::of(layout), 8, RingUser::Driver);
        let fault = RingFault::Capacity { size: 8, capacity: 4 };
        assert_eq!(DriverQueue::<_, 4>::new(parts, 8, layout).unwrap_err(), fault);
    }
}

#[test]
fn chains_come_back_in_any_order_and_their_descriptors_are_used_again() {
    for layout in BOTH {
        let guest = Guest::new();
        let mut queue: Queue<'_> = guest.driver(4, layout);
        let mut turn = 0;
        for round in 0..50_u16 {
            let mut tokens = Vec::new();
            while let Ok(token) = queue.add(&[], &[buffer(0, 100)]) {
                tokens.push(token);
            }
            queue.publish().unwrap();
            assert_eq!(tokens.len(), 4);
            tokens.rotate_left(usize::from(round % 4));
            for token in tokens {
                assert_eq!(queue.poll(), Ok(None));
                give_back(&guest, layout, turn, token, u32::from(turn % 99));
                assert_eq!(queue.poll(), Ok(Some(Used { token, written: u32::from(turn % 99) })));
                turn += 1;
            }
        }
    }
}

#[test]
fn a_device_that_names_unknown_chains_is_refused() {
    for layout in BOTH {
        for wrong in [1, 3, 4, 0x7fff, 0xffff] {
            let guest = Guest::new();
            let mut queue: Queue<'_> = guest.driver(4, layout);
            queue.add(&[buffer(0, 1)], &[]).unwrap();
            queue.publish().unwrap();
            give_back(&guest, layout, 0, wrong, 0);
            let fault = DriverFault::UnknownToken { position: 0, token: wrong.into() };
            assert_eq!(queue.poll(), Err(fault));
            assert!(!fault.to_string().is_empty());
        }
        // The same chain twice.
        let guest = Guest::new();
        let mut queue: Queue<'_> = guest.driver(4, layout);
        queue.add(&[buffer(0, 1)], &[]).unwrap();
        queue.add(&[buffer(0, 1)], &[]).unwrap();
        queue.publish().unwrap();
        give_back(&guest, layout, 0, 0, 0);
        give_back(&guest, layout, 1, 0, 0);
        assert_eq!(queue.poll(), Ok(Some(Used { token: 0, written: 0 })));
        assert_eq!(queue.poll(), Err(DriverFault::UnknownToken { position: 1, token: 0 }));
    }
    let guest = Guest::new();
    let mut queue: Queue<'_> = guest.driver(4, PLAIN);
    queue.add(&[buffer(0, 1)], &[]).unwrap();
    queue.publish().unwrap();
    guest.put(ADDRESSES.device.0 + 4, &0x1_0000_u32.to_le_bytes());
    guest.put_u16(ADDRESSES.device.0 + 2, 1);
    assert_eq!(queue.poll(), Err(DriverFault::UnknownToken { position: 0, token: 0x1_0000 }), "the upper half counts");
}

#[test]
fn a_device_whose_index_runs_ahead_is_refused() {
    let guest = Guest::new();
    let mut queue: Queue<'_> = guest.driver(4, PLAIN);
    queue.add(&[buffer(0, 1)], &[]).unwrap();
    queue.publish().unwrap();
    for used in [2, 0xffff] {
        guest.put_u16(ADDRESSES.device.0 + 2, used);
        let fault = DriverFault::UsedAhead { used, next: 0, outstanding: 1 };
        assert_eq!((queue.poll(), queue.enable_calls()), (Err(fault), Err(fault)));
    }
}

#[test]
fn in_order_one_entry_brings_several_back() {
    for layout in BOTH {
        let guest = Guest::new();
        let mut queue: Queue<'_> = guest.driver(4, layout | IN_ORDER);
        let mut turn = 0;
        for _ in 0..5 {
            let tokens: Vec<_> = (1..4).map(|length| queue.add(&[], &[buffer(0, length)]).unwrap()).collect();
            queue.publish().unwrap();
            // Entry `turn` names the last of three; the index, or the last one's slot, is three further.
            give_back(&guest, layout, turn, tokens[2], 1);
            if layout == PLAIN {
                guest.put_u16(ADDRESSES.device.0 + 2, turn + 3);
            }
            turn += 3;
            for (token, written) in tokens.iter().zip([1, 2, 1]) {
                assert_eq!(queue.poll(), Ok(Some(Used { token: *token, written })));
            }
            assert_eq!((queue.poll(), queue.outstanding()), (Ok(None), 0));
        }
    }
    let guest = Guest::new();
    let mut queue: Queue<'_> = guest.driver(4, IN_ORDER);
    let tokens = [1, 2, 3].map(|length| queue.add(&[], &[buffer(0, length)]).unwrap());
    queue.publish().unwrap();
    give_back(&guest, PLAIN, 0, tokens[2], 0);
    assert!(queue.poll().is_ok(), "the first of the batch");
    assert_eq!(queue.poll(), Err(DriverFault::UnfinishedBatch { token: tokens[2] }));
}

#[test]
fn kicks_go_by_the_devices_wish() {
    for (layout, flags, event_idx, kick) in [
        (PLAIN, 0, false, true),
        (PLAIN, 1, false, false),
        (PACKED, 0, false, true),
        (PACKED, 1, false, false),
        (PACKED, 1, true, false),
        (PACKED, 0, true, true),
    ] {
        let guest = Guest::new();
        let features = if event_idx { layout | EVENT_IDX } else { layout };
        let mut queue: Queue<'_> = guest.driver(4, features);
        let flags_at = ADDRESSES.device.0 + if layout == PLAIN { 0 } else { 2 };
        guest.put_u16(flags_at, flags);
        assert_eq!(queue.needs_kick(), Ok(false), "nothing was added");
        queue.add(&[buffer(0, 1)], &[]).unwrap();
        assert_eq!(queue.needs_kick(), Ok(false), "nothing is visible");
        queue.publish().unwrap();
        assert_eq!([queue.needs_kick(), queue.needs_kick()], [Ok(kick), Ok(false)]);
    }
}

#[test]
fn with_event_index_a_kick_is_due_when_the_place_is_passed() {
    for event in 0..6_u16 {
        let guest = Guest::new();
        let mut queue: Queue<'_> = guest.driver(4, EVENT_IDX);
        guest.put_u16(ADDRESSES.device.0 + 4 + 8 * 4, event);
        for _ in 0..3 {
            queue.add(&[buffer(0, 1)], &[]).unwrap();
        }
        queue.publish().unwrap();
        assert_eq!(queue.needs_kick(), Ok(event < 3), "{event}");

        let guest = Guest::new();
        let mut queue: Queue<'_> = guest.driver(4, PACKED | EVENT_IDX);
        guest.put_u16(ADDRESSES.device.0, (event % 4) | if event < 4 { 0x8000 } else { 0 });
        guest.put_u16(ADDRESSES.device.0 + 2, 2);
        for _ in 0..2 {
            queue.add(&[buffer(0, 1)], &[]).unwrap();
        }
        queue.publish().unwrap();
        queue.add(&[buffer(0, 1)], &[]).unwrap();
        assert_eq!(queue.needs_kick(), Ok(event < 2), "the third is not visible: {event}");
        queue.publish().unwrap();
        assert_eq!(queue.needs_kick(), Ok(event == 2));
    }
}

#[test]
fn calls_are_asked_for_again_without_a_gap() {
    for layout in BOTH {
        for event_idx in [PLAIN, EVENT_IDX] {
            let guest = Guest::new();
            let mut queue: Queue<'_> = guest.driver(4, layout | event_idx);
            queue.add(&[buffer(0, 1)], &[]).unwrap();
            queue.publish().unwrap();
            queue.disable_calls().unwrap();
            let area = ADDRESSES.driver.0;
            let wish = || (guest.get_u16(area), guest.get_u16(area + 2), guest.get_u16(area + 12));
            let disabled = wish();
            assert_eq!(queue.enable_calls(), Ok(false));
            let enabled = wish();
            give_back(&guest, layout, 0, 0, 0);
            assert_eq!(queue.enable_calls(), Ok(true), "it came before it was asked for");
            queue.poll().unwrap();
            assert_eq!(queue.enable_calls(), Ok(false));
            let expected = match (layout == PLAIN, event_idx == PLAIN) {
                (true, true) => [(1, 1, 0), (0, 1, 0), (0, 1, 0)],
                (true, false) => [(0, 1, 0), (0, 1, 0), (0, 1, 1)],
                (false, true) => [(0, 1, 0), (0, 0, 0), (0, 0, 0)],
                (false, false) => [(0, 1, 0), (0x8000, 2, 0), (0x8001, 2, 0)],
            };
            assert_eq!([disabled, enabled, wish()], expected);
        }
    }
}
