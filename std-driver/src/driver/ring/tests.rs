//! The driver's side of a ring against a device that is not ours: the queue of rust-vmm's `virtio-queue`.

use virtio_queue::{Queue, QueueT};

use vhost_core::{AddError, DriverFault, PartFault, RingFault, RingPart, VirtioFeatures};

use super::*;
use crate::memory::{MemoryFile, MemoryTable};

const START: u64 = 0x10_0000;
const LENGTH: u64 = 0x10000;
const PLAIN: VirtioFeatures = VirtioFeatures::VERSION_1;
const EVENTS: VirtioFeatures = PLAIN.union(VirtioFeatures::RING_EVENT_IDX);
const TABLES: VirtioFeatures = PLAIN.union(VirtioFeatures::RING_INDIRECT);

/// A buffer as the device sees it: address, length, and whether it may write it.
type Seen = (u64, u32, bool);

/// A ring, its memory, and a device that serves it.
struct Pair {
    ring: DriverRing,
    area: GuestArea,
    table: MemoryTable,
    device: Queue,
}

impl Pair {
    fn new(size: u16, features: VirtioFeatures) -> Self {
        let memory = MemoryFile::create("ring", START, LENGTH).unwrap();
        let area = GuestArea::of(&memory);
        let options = RingOptions { size, features, table_size: 4 };
        let ring = DriverRing::new(area.clone(), &options).unwrap();
        let table = MemoryTable::new([memory.mapped().clone()]).unwrap();
        let device = device(&ring, features);
        Self { ring, area, table, device }
    }

    /// Adds and publishes a chain of one buffer that the device reads and one that it writes.
    fn give(&mut self, token: u64) -> Kick {
        self.ring.add(&[buffer(token, 8)], &[buffer(token + 1, 16)], token).unwrap();
        self.ring.publish().unwrap()
    }

    /// The next chain as the device sees it: its head and its buffers.
    fn pop(&mut self) -> Option<(u16, Vec<Seen>)> {
        let memory = self.table.guest_memory();
        let chain = self.device.pop_descriptor_chain(memory)?;
        let head = chain.head_index();
        Some((head, chain.map(|one| (one.addr().0, one.len(), one.is_write_only())).collect()))
    }

    fn use_up(&mut self, head: u16, written: u32) {
        self.device.add_used(self.table.guest_memory(), head, written).unwrap();
    }

    /// What the device could write anywhere.
    fn poke(&self, offset: u64, bytes: &[u8]) {
        self.area.write(offset, bytes).unwrap();
    }
}

fn full(needed: u16, free: u16) -> Result<(), DriverError> {
    Err(AddError::Full { needed, free }.into())
}

fn device(ring: &DriverRing, features: VirtioFeatures) -> Queue {
    let mut device = Queue::new(ring.size()).unwrap();
    let addresses = ring.guest_addresses();
    let halves = |address: RingAddress| (Some(address.0 as u32), Some((address.0 >> 32) as u32));
    let (low, high) = halves(addresses.descriptor);
    device.set_desc_table_address(low, high);
    let (low, high) = halves(addresses.available);
    device.set_avail_ring_address(low, high);
    let (low, high) = halves(addresses.used);
    device.set_used_ring_address(low, high);
    device.set_size(ring.size());
    device.set_event_idx(features.contains(VirtioFeatures::RING_EVENT_IDX));
    device.set_ready(true);
    device
}

/// Where the device's part of a ring of 8 begins: the used ring, behind 128 bytes of descriptors and 22 of the available
/// ring.
const USED_OF_8: u64 = 192;

fn buffer(number: u64, length: u32) -> Buffer {
    Buffer { address: vhost_core::GuestAddress(START + 0x8000 + number * 16), length }
}

#[test]
fn the_device_sees_buffers_in_order_and_what_it_may_write() {
    for features in [PLAIN, TABLES] {
        let mut pair = Pair::new(8, features);
        let seen = |number, length, writes| (buffer(number, length).address.0, length, writes);
        pair.ring.add(&[buffer(0, 1), buffer(1, 2)], &[buffer(2, 3)], 70).unwrap();
        pair.ring.add(&[], &[buffer(3, 4)], 71).unwrap();
        assert_eq!(pair.pop(), None, "nothing is published yet");
        assert_eq!(pair.ring.publish().unwrap(), Kick::Needed);
        let (head, chain) = pair.pop().unwrap();
        assert_eq!(chain, [seen(0, 1, false), seen(1, 2, false), seen(2, 3, true)]);
        let (_, chain) = pair.pop().unwrap();
        assert_eq!(chain, [seen(3, 4, true)]);
        assert_eq!(pair.pop(), None);
        assert_eq!(pair.ring.poll_used(), Ok(None));
        pair.use_up(head, 3);
        assert_eq!(pair.ring.poll_used(), Ok(Some(Used { token: 70, written: 3 })));
        assert_eq!(pair.ring.poll_used(), Ok(None));
        assert_eq!(pair.ring.outstanding(), [71]);
    }
}

#[test]
fn a_full_ring_takes_more_after_chains_come_back_in_any_order_and_indices_wrap() {
    let mut pair = Pair::new(8, PLAIN);
    let mut token = 0;
    // More than 65536 chains in all.
    for round in 0..17_000 {
        for _ in 0..4 {
            let _ = pair.give(token);
            token += 1;
        }
        assert_eq!(pair.ring.add(&[buffer(0, 1)], &[], 99), full(1, 0));
        let mut heads = Vec::from_iter(core::iter::from_fn(|| pair.pop()).map(|(head, chain)| (head, chain.len())));
        assert_eq!(heads.len(), 4);
        assert!(heads.iter().all(|(_, length)| *length == 2));
        heads.rotate_left(round % 4);
        for (head, _) in heads {
            pair.use_up(head, 0);
        }
        let tokens = Vec::from_iter(core::iter::from_fn(|| pair.ring.poll_used().unwrap()).map(|used| used.token));
        let mut expected = Vec::from_iter(token - 4..token);
        expected.rotate_left(round % 4);
        assert_eq!(tokens, expected);
        // The area of buffers is finite.
        token %= 256;
    }
    assert_eq!(pair.device.next_used(), (17_000_u32 * 4) as u16);
}

#[test]
fn tables_make_room_for_as_many_chains_as_there_are_descriptors() {
    let mut pair = Pair::new(4, TABLES);
    for token in 0..4 {
        let _ = pair.give(token);
    }
    assert_eq!(pair.ring.add(&[buffer(0, 1)], &[], 9), full(1, 0));
    // Longer than a table: descriptors of the ring itself.
    let mut pair = Pair::new(8, TABLES);
    let five = [buffer(0, 1); 5];
    pair.ring.add(&five, &[], 1).unwrap();
    assert_eq!(pair.ring.add(&five, &[], 2), full(5, 3));
    let _ = pair.ring.publish().unwrap();
    assert_eq!(pair.pop().unwrap().1.len(), 5);
}

#[test]
fn chains_that_can_never_fit_are_told_apart_from_those_that_can_later() {
    let mut pair = Pair::new(2, PLAIN);
    let limit = AddError::TooManyDescriptors { count: 3, limit: 2 };
    assert_eq!(pair.ring.add(&[buffer(0, 1); 3], &[], 1), Err(limit.into()));
    assert_eq!(pair.ring.add(&[], &[], 1), Err(AddError::Empty.into()));
    assert!(pair.ring.outstanding().is_empty());
    assert_eq!(pair.ring.publish(), Ok(Kick::NotNeeded));
}

#[test]
fn a_device_without_event_indices_says_by_a_flag_that_it_wants_no_kick() {
    let mut pair = Pair::new(8, PLAIN);
    assert_eq!(pair.give(1), Kick::Needed);
    pair.device.disable_notification(pair.table.guest_memory()).unwrap();
    assert_eq!(pair.give(2), Kick::NotNeeded);
    pair.device.enable_notification(pair.table.guest_memory()).unwrap();
    assert_eq!(pair.give(3), Kick::Needed);
}

#[test]
fn a_device_with_event_indices_is_kicked_when_its_event_is_passed() {
    let mut pair = Pair::new(8, EVENTS);
    // The event is at zero: the first chain passes it, the second does not.
    assert_eq!((pair.give(1), pair.give(2)), (Kick::Needed, Kick::NotNeeded));
    // The device has seen one chain and wants to be told of the one after the second.
    pair.pop().unwrap();
    pair.pop().unwrap();
    assert!(!pair.device.enable_notification(pair.table.guest_memory()).unwrap());
    assert_eq!((pair.give(3), pair.give(4)), (Kick::Needed, Kick::NotNeeded));
}

#[test]
fn an_event_within_a_batch_is_worth_a_kick() {
    // Chains given together from the start, and whether an event at that index makes them worth a kick.
    for (event, kick) in [(0, Kick::Needed), (1, Kick::Needed), (2, Kick::Needed), (3, Kick::NotNeeded)] {
        let mut pair = Pair::new(8, EVENTS);
        for token in 0..3 {
            pair.ring.add(&[buffer(0, 1)], &[], token).unwrap();
        }
        pair.poke(USED_OF_8 + 4 + 8 * 8, &u16::to_le_bytes(event));
        assert_eq!(pair.ring.publish(), Ok(kick), "event at {event}");
        assert_eq!(pair.ring.publish(), Ok(Kick::NotNeeded), "nothing new");
    }
}

#[test]
fn a_call_is_asked_for_at_the_next_chain() {
    let mut pair = Pair::new(8, EVENTS);
    for token in [10, 20, 30] {
        let _ = pair.give(token);
    }
    let heads = Vec::from_iter(core::iter::from_fn(|| pair.pop()).map(|(head, _)| head));
    assert_eq!(pair.ring.request_call(), Ok(false));
    pair.use_up(heads[0], 0);
    assert!(pair.device.needs_notification(pair.table.guest_memory()).unwrap());
    pair.use_up(heads[1], 0);
    assert!(!pair.device.needs_notification(pair.table.guest_memory()).unwrap(), "one call was enough");
    assert_eq!(pair.ring.request_call(), Ok(true), "there is something already");
    while pair.ring.poll_used().unwrap().is_some() {}
    assert_eq!(pair.ring.request_call(), Ok(false));
    pair.use_up(heads[2], 0);
    assert!(pair.device.needs_notification(pair.table.guest_memory()).unwrap());
}

#[test]
fn a_device_that_breaks_the_ring_is_found_out() {
    let mut pair = Pair::new(8, PLAIN);
    let _ = pair.give(5);
    let (head, _) = pair.pop().unwrap();
    let unknown = |token| DriverFault::UnknownToken { position: 0, token };
    let ahead = |used| DriverFault::UsedAhead { used, next: 0, outstanding: 1 };
    let head = u32::from(head);
    let cases = [
        (2_u16, head, ahead(2)),
        (u16::MAX, 0, ahead(u16::MAX)),
        (1, 8, unknown(8)),
        (1, 0x1_0000 + head, unknown(0x1_0000 + head)),
        (1, head + 1, unknown(head + 1)),
    ];
    for (index, id, fault) in cases {
        pair.poke(USED_OF_8 + 2, &index.to_le_bytes());
        pair.poke(USED_OF_8 + 4, &[id.to_le_bytes(), [0; 4]].concat());
        assert_eq!(pair.ring.poll_used(), Err(DriverError::Device(fault)));
        assert_eq!(pair.ring.outstanding(), [5], "nothing is lost");
    }
    // The same chain twice, and more written than there was room for.
    let _ = pair.give(6);
    pair.poke(USED_OF_8 + 2, &2_u16.to_le_bytes());
    let element = [head.to_le_bytes(), 17_u32.to_le_bytes()].concat();
    pair.poke(USED_OF_8 + 4, &[element.clone(), element].concat());
    assert_eq!(pair.ring.poll_used(), Ok(Some(Used { token: 5, written: 16 })));
    let again = DriverFault::UnknownToken { position: 1, token: head };
    assert_eq!(pair.ring.poll_used(), Err(again.into()));
}

#[test]
fn a_ring_needs_an_aligned_place_of_its_size() {
    let memory = MemoryFile::create("ring", START, 0x1000).unwrap();
    let area = GuestArea::of(&memory);
    let options = |size| RingOptions { size, features: PLAIN, table_size: 0 };
    let failure = |area: GuestArea, size| DriverRing::new(area, &options(size)).unwrap_err();
    for size in [0, 3, 0xffff] {
        let fault = RingFault::Size { layout: RingLayout::Split, size: size.into() };
        assert_eq!(failure(area.clone(), size), fault.into());
    }
    let needed = options(64).bytes().unwrap();
    assert!(needed <= 0x1000);
    let short = area.part(0, needed - 1).unwrap();
    let outside = DriverError::OutsideArea { offset: 0, length: needed, available: needed - 1 };
    assert_eq!(failure(short, 64), outside);
    let crooked = area.part(8, needed).unwrap();
    let address = crooked.guest_address(0).0;
    let fault = PartFault::Misaligned { part: RingPart::DescriptorTable, address, alignment: 16 };
    assert_eq!(failure(crooked, 64), fault.into());
    let memory = MemoryFile::create("ring", START, 0x10_0000).unwrap();
    let fault = RingFault::Capacity { size: 2048, capacity: 1024 };
    assert_eq!(failure(GuestArea::of(&memory), 2048), fault.into());
}
