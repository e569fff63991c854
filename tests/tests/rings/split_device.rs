//! The device's side of a split ring, on rings written byte by byte.

use vhost_core::{CellRange, wire::vring::VringBase};
use vhost_core::{Chain, DeviceQueue, GuestAddress, PushError, RingFault, RingLayout, RingUser, VirtioFeatures};

use crate::guest::{ADDRESSES, FREE, Guest, INDIRECT, NEXT, Pieces, WRITE, first_base, places};

const PLAIN: VirtioFeatures = VirtioFeatures::empty();
const EVENT_IDX: VirtioFeatures = VirtioFeatures::RING_EVENT_IDX;
const INDIRECTS: VirtioFeatures = VirtioFeatures::RING_INDIRECT;

/// Offsets that a ring of 4 has its event indices at.
const USED_EVENT: u64 = ADDRESSES.driver.0 + 4 + 2 * 4;
const AVAIL_EVENT: u64 = ADDRESSES.device.0 + 4 + 8 * 4;

fn pop<'g>(guest: &'g Guest, queue: &mut DeviceQueue<CellRange<'g>>) -> Option<(Chain, Vec<(u64, usize)>)> {
    let mut pieces = Pieces::new();
    queue.pop(&guest.memory(), &mut pieces).unwrap().map(|chain| (chain, places(&pieces)))
}

/// A ring of 4 whose descriptors are each a chain of one writable byte or more.
fn ring_of_chains() -> Guest {
    let guest = Guest::new();
    for head in 0..4 {
        guest.table_entry(ADDRESSES.descriptor.0, head, (FREE, u32::from(head) + 1), WRITE, 0);
    }
    guest
}

#[test]
fn a_chain_comes_out_with_its_pieces_and_goes_back_with_its_length() {
    let guest = Guest::new();
    let table = ADDRESSES.descriptor.0;
    guest.table_entry(table, 2, (FREE, 16), NEXT, 0);
    guest.table_entry(table, 0, (FREE + 0x100, 8), NEXT | WRITE, 3);
    guest.table_entry(table, 3, (FREE + 0x200, 1), WRITE, 2);
    guest.offer(4, 0, 2);
    let mut queue = guest.device(4, PLAIN);
    let mut pieces = Pieces::new();
    let chain = queue.pop(&guest.memory(), &mut pieces).unwrap().unwrap();
    assert_eq!(places(&pieces), [(FREE, 16), (FREE + 0x100, 8), (FREE + 0x200, 1)]);
    assert_eq!((chain.id(), chain.readable_len(), chain.writable_len(), chain.readable_pieces()), (2, 16, 9, 1));
    let (readable, writable) = chain.split(&pieces);
    assert_eq!((readable.len(), writable.len(), queue.held()), (1, 2, 1));
    assert_eq!(queue.pop(&guest.memory(), &mut pieces), Ok(None));

    queue.stage(chain, 5).unwrap();
    assert_eq!((guest.used(4, 0), guest.used_index()), ((2, 5), 0), "staged and not yet visible");
    queue.publish().unwrap();
    assert_eq!((guest.used_index(), queue.held()), (1, 0));
    assert_eq!(queue.base(), VringBase::Split { available: 1 });
}

#[test]
fn the_written_length_is_cut_down_to_the_writable_part() {
    let guest = ring_of_chains();
    guest.offer(4, 0, 3);
    let mut queue = guest.device(4, PLAIN);
    let (chain, _) = pop(&guest, &mut queue).unwrap();
    queue.push(chain, u32::MAX).unwrap();
    assert_eq!(guest.used(4, 0), (3, 4));
}

#[test]
fn indices_wrap_around() {
    let guest = ring_of_chains();
    guest.put_u16(ADDRESSES.device.0 + 2, 0xfffd);
    let parts = guest.parts(RingLayout::Split, 4, RingUser::Device);
    let mut queue = DeviceQueue::new(parts, 4, PLAIN, VringBase::split(0xfffd)).unwrap();
    for round in 0..8_u16 {
        let index = 0xfffd_u16.wrapping_add(round);
        guest.offer(4, index, round % 4);
        let (chain, _) = pop(&guest, &mut queue).unwrap();
        assert_eq!(chain.id(), round % 4);
        queue.push(chain, 1).unwrap();
        assert_eq!((guest.used(4, index), guest.used_index()), ((u32::from(round % 4), 1), index.wrapping_add(1)));
    }
    assert_eq!(queue.base().to_num(), 5);
}

#[test]
fn several_are_taken_at_once_and_given_back_in_any_order() {
    let guest = ring_of_chains();
    for head in 0..4 {
        guest.offer(4, head, 3 - head);
    }
    let mut queue = guest.device(4, PLAIN);
    let mut chains: Vec<_> = core::iter::from_fn(|| pop(&guest, &mut queue)).map(|(chain, _)| chain).collect();
    assert_eq!(chains.iter().map(Chain::id).collect::<Vec<_>>(), [3, 2, 1, 0]);
    chains.swap(0, 2);
    for chain in chains {
        queue.stage(chain, 1).unwrap();
    }
    assert_eq!(guest.used_index(), 0);
    queue.publish().unwrap();
    assert_eq!(guest.used_index(), 4);
    assert_eq!([0, 1, 2, 3].map(|index| guest.used(4, index).0), [1, 2, 3, 0]);
}

#[test]
fn chains_that_were_not_taken_cannot_go_back() {
    let guest = ring_of_chains();
    guest.offer(4, 0, 0);
    let mut queue = guest.device(4, PLAIN);
    let (chain, _) = pop(&guest, &mut queue).unwrap();
    queue.reset();
    assert_eq!(queue.push(chain.clone(), 0), Err(PushError::NotTaken { chain }));
    assert_eq!((guest.used_index(), queue.base()), (0, first_base(RingLayout::Split)));
}

#[test]
fn in_order_chains_go_back_in_order_and_several_take_one_entry() {
    let guest = ring_of_chains();
    for head in 0..4 {
        guest.offer(4, head, head);
    }
    let mut queue = guest.device(4, VirtioFeatures::IN_ORDER);
    let mut chains: Vec<_> = core::iter::from_fn(|| pop(&guest, &mut queue)).map(|(chain, _)| chain).collect();
    let second = chains.remove(1);
    assert_eq!(queue.stage(second.clone(), 1), Err(PushError::NotInOrder { chain: second.clone() }));
    let last = chains.pop().unwrap();
    let [first, third] = chains.try_into().unwrap();
    queue.stage(first, 1).unwrap();
    queue.stage_filled([second, third]).unwrap();
    queue.publish().unwrap();
    assert_eq!((guest.used_index(), guest.used(4, 0), guest.used(4, 1)), (3, (0, 1), (2, 3)));
    assert_eq!(guest.used(4, 2), (0, 0), "skipped");
    queue.push(last, 2).unwrap();
    assert_eq!((guest.used_index(), guest.used(4, 3)), (4, (3, 2)));
}

#[test]
fn a_filled_batch_ends_at_the_first_chain_that_is_out_of_order() {
    let guest = ring_of_chains();
    for head in 0..3 {
        guest.offer(4, head, head);
    }
    let mut queue = guest.device(4, VirtioFeatures::IN_ORDER);
    let chains: Vec<_> = core::iter::from_fn(|| pop(&guest, &mut queue)).map(|(chain, _)| chain).collect();
    let [first, second, third] = chains.try_into().unwrap();
    assert_eq!(
        queue.stage_filled([first, third.clone(), second.clone()]),
        Err(PushError::NotInOrder { chain: third.clone() })
    );
    queue.stage_filled([second, third]).unwrap();
    queue.publish().unwrap();
    assert_eq!((guest.used_index(), guest.used(4, 0), guest.used(4, 1)), (3, (0, 1), (2, 3)));
}

#[test]
fn without_in_order_a_filled_batch_has_an_entry_for_each() {
    let guest = ring_of_chains();
    guest.offer(4, 0, 1);
    guest.offer(4, 1, 2);
    let mut queue = guest.device(4, PLAIN);
    let chains: Vec<_> = core::iter::from_fn(|| pop(&guest, &mut queue)).map(|(chain, _)| chain).collect();
    queue.stage_filled(chains).unwrap();
    queue.publish().unwrap();
    assert_eq!((guest.used_index(), guest.used(4, 0), guest.used(4, 1)), (2, (1, 2), (2, 3)));
}

#[test]
fn an_indirect_table_is_followed_alone_or_behind_direct_descriptors() {
    let guest = Guest::new();
    let (ring, table) = (ADDRESSES.descriptor.0, FREE + 0x1000);
    // The write flag of the descriptor that points to a table means nothing.
    guest.table_entry(ring, 0, (table, 48), INDIRECT | WRITE, 0);
    guest.table_entry(table, 0, (FREE, 4), NEXT, 2);
    guest.table_entry(table, 2, (FREE + 8, 4), NEXT | WRITE, 1);
    guest.table_entry(table, 1, (FREE + 16, 4), WRITE, 77);
    guest.table_entry(ring, 1, (FREE + 0x40, 2), NEXT, 2);
    guest.table_entry(ring, 2, (table, 16), INDIRECT, 0);
    guest.offer(4, 0, 0);
    let mut queue = guest.device(4, INDIRECTS);
    let (chain, places) = pop(&guest, &mut queue).unwrap();
    assert_eq!((places, chain.id()), (vec![(FREE, 4), (FREE + 8, 4), (FREE + 16, 4)], 0));
    assert_eq!((chain.readable_len(), chain.writable_len()), (4, 8));
    queue.push(chain, 8).unwrap();

    guest.table_entry(table, 0, (FREE, 4), WRITE, 0);
    guest.offer(4, 1, 1);
    let (chain, places) = pop(&guest, &mut queue).unwrap();
    assert_eq!((places, chain.id()), (vec![(FREE + 0x40, 2), (FREE, 4)], 1));
}

#[test]
fn a_buffer_that_crosses_regions_is_several_pieces() {
    let (low, high) = (Guest::new(), Guest::new());
    let end = crate::guest::END;
    low.table_entry(ADDRESSES.descriptor.0, 0, (end - 3, 10), 0, 0);
    low.offer(4, 0, 0);
    let regions = [low.memory(), vhost_core::CellMemory::new(GuestAddress(end), high.cells())];
    let mut queue = low.device(4, PLAIN);
    let mut pieces = Pieces::new();
    let chain = queue.pop(&&regions[..], &mut pieces).unwrap().unwrap();
    assert_eq!(places(&pieces), [(end - 3, 3), (end, 7)]);
    assert_eq!((chain.readable_len(), chain.readable_pieces()), (10, 2));
}

#[test]
fn kicks_are_switched_by_a_flag_and_asked_for_again_without_a_gap() {
    let guest = ring_of_chains();
    let mut queue = guest.device(4, PLAIN);
    queue.disable_kicks().unwrap();
    assert_eq!(guest.get_u16(ADDRESSES.device.0), 1);
    assert_eq!(queue.enable_kicks(), Ok(false));
    assert_eq!(guest.get_u16(ADDRESSES.device.0), 0);
    queue.disable_kicks().unwrap();
    guest.offer(4, 0, 0);
    assert_eq!(queue.enable_kicks(), Ok(true), "it came before it was asked for");
    assert_eq!(queue.has_available(), Ok(true));
}

#[test]
fn with_event_index_a_kick_is_asked_for_at_the_next_chain() {
    let guest = ring_of_chains();
    let mut queue = guest.device(4, EVENT_IDX);
    guest.put_u16(ADDRESSES.device.0, 0x77);
    for round in 0..5_u16 {
        guest.offer(4, round, 0);
        let (chain, _) = pop(&guest, &mut queue).unwrap();
        queue.disable_kicks().unwrap();
        assert_eq!(queue.enable_kicks(), Ok(false));
        assert_eq!(guest.get_u16(AVAIL_EVENT), round + 1);
        queue.push(chain, 0).unwrap();
    }
    assert_eq!(guest.get_u16(ADDRESSES.device.0), 0x77, "the flags mean nothing then");
}

#[test]
fn calls_go_by_the_drivers_flag() {
    let guest = ring_of_chains();
    guest.offer(4, 0, 0);
    guest.offer(4, 1, 1);
    let mut queue = guest.device(4, PLAIN);
    assert_eq!(queue.needs_call(), Ok(false), "nothing was used");
    let (chain, _) = pop(&guest, &mut queue).unwrap();
    queue.stage(chain, 0).unwrap();
    assert_eq!(queue.needs_call(), Ok(false), "nothing is visible");
    queue.publish().unwrap();
    assert_eq!([queue.needs_call(), queue.needs_call()], [Ok(true), Ok(false)], "asked once");
    guest.put_u16(ADDRESSES.driver.0, 1);
    let (chain, _) = pop(&guest, &mut queue).unwrap();
    queue.push(chain, 0).unwrap();
    assert_eq!(queue.needs_call(), Ok(false));
}

/// For every event index near the wrap, and batches of 1 to 3, a call is due exactly when the driver's index is among
/// those that were just used.
#[test]
fn with_event_index_a_call_is_due_when_the_index_is_passed() {
    for event in (0..10).map(|offset| 0xfffa_u16.wrapping_add(offset)) {
        for batch in 1..4_u16 {
            let guest = ring_of_chains();
            guest.put_u16(ADDRESSES.device.0 + 2, 0xfffe);
            guest.put_u16(USED_EVENT, event);
            let parts = guest.parts(RingLayout::Split, 4, RingUser::Device);
            let mut queue = DeviceQueue::new(parts, 4, EVENT_IDX, VringBase::split(0xfffe)).unwrap();
            for round in 0..batch {
                guest.offer(4, 0xfffe_u16.wrapping_add(round), round);
            }
            while let Some((chain, _)) = pop(&guest, &mut queue) {
                queue.push(chain, 0).unwrap();
            }
            let passed: Vec<u16> = (0..batch).map(|round| 0xfffe_u16.wrapping_add(round)).collect();
            assert_eq!(queue.needs_call(), Ok(passed.contains(&event)), "{event:#x}, {batch}");
        }
    }
}

#[test]
fn a_driver_shows_its_place_when_indices_are_used() {
    let guest = ring_of_chains();
    guest.put_u16(USED_EVENT, 0x1234);
    assert_eq!(guest.device(4, EVENT_IDX).driver_event(), Ok(Some(0x1234)));
    assert_eq!(guest.device(4, PLAIN).driver_event(), Ok(None));
}

#[test]
fn the_used_index_goes_on_where_the_memory_says() {
    let guest = ring_of_chains();
    guest.put_u16(ADDRESSES.device.0 + 2, 7);
    let parts = guest.parts(RingLayout::Split, 4, RingUser::Device);
    // The base may be any number; it runs freely.
    let mut queue = DeviceQueue::new(parts, 4, PLAIN, VringBase::split(0x1_0009)).unwrap();
    assert_eq!(queue.base(), VringBase::Split { available: 9 });
    guest.offer(4, 9, 2);
    let (chain, _) = pop(&guest, &mut queue).unwrap();
    queue.push(chain, 1).unwrap();
    assert_eq!((guest.used(4, 7), guest.used_index()), ((2, 1), 8));
}

#[test]
fn a_ring_goes_on_in_other_memory() {
    let (old, new) = (ring_of_chains(), ring_of_chains());
    old.offer(4, 0, 0);
    let mut queue = old.device(4, PLAIN);
    let (chain, _) = pop(&old, &mut queue).unwrap();
    queue.push(chain, 0).unwrap();
    let state = queue.state();
    new.offer(4, 1, 3);
    queue.relocate(new.parts(RingLayout::Split, 4, RingUser::Device));
    let (chain, _) = pop(&new, &mut queue).unwrap();
    queue.push(chain, 1).unwrap();
    assert_eq!((old.used_index(), new.used_index(), new.used(4, 1)), (1, 2, (3, 1)));
    let parts = new.parts(RingLayout::Split, 4, RingUser::Device);
    assert_eq!(DeviceQueue::resume(parts, state).base(), VringBase::Split { available: 1 });
}

#[test]
fn a_base_of_the_other_layout_is_refused() {
    let guest = Guest::new();
    let base = first_base(RingLayout::Packed);
    let parts = guest.parts(RingLayout::Split, 4, RingUser::Device);
    let fault = RingFault::Base { layout: RingLayout::Split, size: 4, base: base.to_num() };
    assert_eq!(DeviceQueue::new(parts, 4, PLAIN, base).unwrap_err(), fault);
}
