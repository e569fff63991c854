//! What a ring tells of itself: its parts, its size, where it goes on; and to where it was moved.

use vhost_core::{
    Buffer, DriverQueue, GuestAddress, PartFault, RingFault, RingLayout, RingParts, RingUser, VirtioFeatures,
    wire::vring::VringBase,
};

use crate::guest::{ADDRESSES, AVAIL, FREE, Guest, Pieces, USED, WRITE, first_base};

const BOTH: [VirtioFeatures; 2] = [VirtioFeatures::empty(), VirtioFeatures::RING_PACKED];

#[test]
fn parts_have_the_lengths_of_the_specification() {
    // Virtio, sections "Split Virtqueues" and "Packed Virtqueues"; both rings with their event index.
    assert_eq!(RingLayout::Split.lengths(4), [16 * 4, 6 + 2 * 4, 6 + 8 * 4]);
    assert_eq!(RingLayout::Split.lengths(32768), [0x8_0000, 0x1_0006, 0x4_0006]);
    assert_eq!(RingLayout::Packed.lengths(5), [16 * 5, 4, 4]);
}

#[test]
fn no_parts_are_found_of_a_ring_that_cannot_be() {
    let guest = Guest::new();
    for (layout, size) in [(RingLayout::Split, 3), (RingLayout::Split, 0), (RingLayout::Packed, 32769)] {
        let found = RingParts::translate(&guest.memory(), ADDRESSES, layout, size, RingUser::Device);
        assert_eq!(found.map(drop), Err(PartFault::Ring(RingFault::Size { layout, size })));
    }
}

#[test]
fn a_device_knows_how_large_its_ring_is() {
    let guest = Guest::new();
    for (features, size) in [(BOTH[0], 8), (BOTH[1], 5)] {
        assert_eq!(guest.device(size, features).size(), size);
    }
}

#[test]
fn a_driver_knows_what_came_back_last() {
    let guest = Guest::new();
    let buffer = [Buffer { address: GuestAddress(FREE), length: 1 }];
    let mut driver: DriverQueue<_, 4> = guest.driver(4, BOTH[0]);
    let token = driver.add(&buffer, &[]).unwrap();
    driver.publish().unwrap();
    assert_eq!(driver.base(), VringBase::Split { available: 0 });
    guest.put(ADDRESSES.device.0 + 4, &u32::from(token).to_le_bytes());
    guest.put_u16(ADDRESSES.device.0 + 2, 1);
    assert!(driver.poll().unwrap().is_some());
    assert_eq!(driver.base(), VringBase::Split { available: 1 });

    let guest = Guest::new();
    let mut driver: DriverQueue<_, 4> = guest.driver(1, BOTH[1]);
    assert_eq!(driver.base(), first_base(RingLayout::Packed));
    let token = driver.add(&buffer, &[]).unwrap();
    driver.publish().unwrap();
    guest.ring_entry(0, (0, 0), token, AVAIL | USED);
    assert!(driver.poll().unwrap().is_some());
    assert_eq!(driver.base(), VringBase::packed(0), "the next lap");
}

/// The ring's memory was unplugged and is elsewhere now: the device goes on there, at the same place.
#[test]
fn a_device_goes_on_where_its_ring_was_moved_to() {
    for features in BOTH {
        let (old, new) = (Guest::new(), Guest::new());
        let layout = RingLayout::of(features);
        for guest in [&old, &new] {
            for turn in 0..2 {
                match layout {
                    RingLayout::Split => {
                        guest.table_entry(ADDRESSES.descriptor.0, turn, (FREE, 1), WRITE, 0);
                        guest.offer(4, turn, turn);
                    }
                    RingLayout::Packed => guest.ring_entry(turn, (FREE, 1), turn, WRITE | AVAIL),
                }
            }
        }
        let mut queue = old.device(4, features);
        let chain = queue.pop(&old.memory(), &mut Pieces::new()).unwrap().unwrap();
        assert_eq!((chain.id(), queue.held()), (0, 1));
        queue.relocate(new.parts(layout, 4, RingUser::Device));
        old.put(ADDRESSES.descriptor.0, &[0xff; 64]);
        let chain = queue.pop(&new.memory(), &mut Pieces::new()).unwrap().unwrap();
        assert_eq!((chain.id(), queue.held()), (1, 2));
        let before = old.get::<0x1000>(ADDRESSES.descriptor.0);
        queue.push(chain, 1).unwrap();
        assert_eq!(old.get(ADDRESSES.descriptor.0), before, "nothing is written to where it was");
    }
}
