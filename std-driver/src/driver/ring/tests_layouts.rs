//! Rings of both layouts, served by the core's device side, through the loss of a device.

use vhost_core::{Chain as Taken, DeviceQueue, GuestRange, VirtioFeatures};

use super::*;
use crate::memory::MemoryFile;

const START: u64 = 0x10_0000;
const LENGTH: u64 = 0x10000;
/// Where buffers are.
const BUFFERS: u64 = 0x8000;

const RING: VirtioFeatures = VirtioFeatures::VERSION_1;
const EVENTS: VirtioFeatures = VirtioFeatures::RING_EVENT_IDX;
const TABLES: VirtioFeatures = VirtioFeatures::RING_INDIRECT;
const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;

/// Both layouts with each of these features, and with all.
fn layouts() -> impl Iterator<Item = VirtioFeatures> {
    let options = [VirtioFeatures::empty(), EVENTS, TABLES, EVENTS | TABLES];
    options.into_iter().flat_map(|options| [RING | options, RING | options | PACKED])
}

/// A buffer as the device finds it: its guest address and its bytes.
type Seen = (u64, usize);

/// A ring, its memory, and a device that serves it.
struct Pair {
    ring: DriverRing,
    area: GuestArea,
    device: DeviceQueue<OwnedRange>,
}

impl Pair {
    fn new(size: u16, features: VirtioFeatures) -> Self {
        let memory = MemoryFile::create("ring", START, LENGTH).unwrap();
        let area = GuestArea::of(&memory);
        let options = RingOptions { size, features, table_size: 4 };
        let ring = DriverRing::new(area.clone(), &options).unwrap();
        let device = device(&ring, &area);
        Self { ring, area, device }
    }

    /// Adds and publishes a chain of one buffer that the device reads and one that it writes.
    fn give(&mut self, token: u64) -> Kick {
        self.ring.add(&[buffer(2 * token, 8)], &[buffer(2 * token + 1, 16)], token).unwrap();
        self.ring.publish().unwrap()
    }

    /// The next chain, and what the device may read and write of it.
    fn pop(&mut self) -> Option<(Taken, Vec<Seen>, Vec<Seen>)> {
        let mut pieces = heapless::Vec::<OwnedRange, 8>::new();
        let chain = self.device.pop(&self.area, &mut pieces).unwrap()?;
        let (readable, writable) = chain.split(&pieces);
        let seen = |pieces: &[OwnedRange]| pieces.iter().map(|one| (one.guest_address().0, one.len())).collect();
        let (readable, writable) = (seen(readable), seen(writable));
        Some((chain, readable, writable))
    }
}

fn device(ring: &DriverRing, area: &GuestArea) -> DeviceQueue<OwnedRange> {
    let addresses = ring.guest_addresses();
    let [descriptor, driver, device] =
        [addresses.descriptor, addresses.available, addresses.used].map(|at| vhost_core::GuestAddress(at.0));
    let addresses = RingAddresses { descriptor, driver, device };
    let size = ring.size().into();
    let parts = RingParts::translate(area, addresses, ring.layout(), size, RingUser::Device).unwrap();
    DeviceQueue::new(parts, size, ring.options.features, ring.base()).unwrap()
}

fn buffer(number: u64, length: u32) -> Buffer {
    Buffer { address: vhost_core::GuestAddress(START + BUFFERS + number * 16), length }
}

fn seen(number: u64, length: usize) -> Vec<Seen> {
    vec![(buffer(number, 0).address.0, length)]
}

#[test]
fn chains_go_and_come_many_times_around_the_ring_in_any_order() {
    for features in layouts() {
        let mut pair = Pair::new(8, features);
        assert_eq!(pair.ring.layout(), RingLayout::of(features));
        for round in 0..500 {
            for token in 0..4 {
                let _ = pair.give(token);
            }
            let mut chains = Vec::new();
            for token in 0..4 {
                let (chain, readable, writable) = pair.pop().unwrap();
                assert_eq!((readable, writable), (seen(2 * token, 8), seen(2 * token + 1, 16)), "{features:?}");
                chains.push((token, chain));
            }
            assert!(pair.pop().is_none());
            assert_eq!(pair.ring.request_call(), Ok(false));
            chains.rotate_left(round % 4);
            for (token, chain) in chains {
                pair.device.push(chain, 16).unwrap();
                assert_eq!(pair.ring.request_call(), Ok(true));
                assert_eq!(pair.ring.poll_used(), Ok(Some(Used { token, written: 16 })), "{features:?}");
            }
            assert_eq!(pair.ring.base(), pair.device.base(), "both are at the same place");
        }
    }
}

#[test]
fn tables_serve_one_chain_at_a_time_and_come_back() {
    for features in [RING | TABLES, RING | TABLES | PACKED] {
        let mut pair = Pair::new(4, features);
        for _ in 0..50 {
            for token in 0..4 {
                let _ = pair.give(token);
            }
            assert!(pair.ring.add(&[buffer(0, 1)], &[], 9).is_err(), "there is room for as many as descriptors");
            let chains = Vec::from_iter(core::iter::from_fn(|| pair.pop()));
            for (token, (_, readable, _)) in (0..).zip(&chains) {
                assert_eq!(*readable, seen(2 * token, 8), "no table was written over");
            }
            for (chain, ..) in chains {
                pair.device.push(chain, 0).unwrap();
                pair.ring.poll_used().unwrap().unwrap();
            }
        }
    }
}

#[test]
fn another_device_gets_in_order_what_the_one_before_had_not_used() {
    for features in layouts() {
        let mut pair = Pair::new(16, features);
        // The indices are somewhere.
        for token in 0..7 {
            let _ = pair.give(token);
            let (chain, ..) = pair.pop().unwrap();
            pair.device.push(chain, 0).unwrap();
            pair.ring.poll_used().unwrap().unwrap();
        }
        let fresh = Pair::new(16, features).ring.base();
        assert_ne!(pair.ring.base(), fresh);
        for token in [20, 30, 40] {
            let _ = pair.give(token);
        }
        let [_first, second, _third] = [(); 3].map(|()| pair.pop().unwrap().0);
        pair.device.push(second, 0).unwrap();
        assert_eq!(pair.ring.rebuild(), Err(DriverError::UsedNotTaken));
        assert_eq!(pair.ring.poll_used().unwrap().unwrap().token, 30);
        // It takes the place of the chain that has come back.
        let _ = pair.give(50);
        assert_eq!(pair.ring.outstanding(), [20, 40, 50]);

        // The device dies, and takes with it what it says of kicks and all tables.
        let layout = pair.ring.layout;
        let [_, _, said] = layout.ring.lengths(16);
        let said = if layout.ring == RingLayout::Packed { 0..said } else { said - 2..said };
        for (from, to) in [(layout.device + said.start, layout.device + said.end), (layout.tables, layout.end)] {
            pair.area.write(from, &vec![0xff; (to - from) as usize]).unwrap();
        }
        pair.ring.rebuild().unwrap();
        assert_eq!(pair.ring.base(), fresh);
        assert_eq!(pair.ring.outstanding(), [20, 40, 50]);
        pair.device = device(&pair.ring, &pair.area);
        assert_eq!(pair.ring.publish(), Ok(Kick::Needed), "nobody has told the new device: {features:?}");

        let chains = [20, 40, 50].map(|token| {
            let (chain, readable, writable) = pair.pop().unwrap();
            assert_eq!((readable, writable), (seen(2 * token, 8), seen(2 * token + 1, 16)), "{features:?}");
            (token, chain)
        });
        assert!(pair.pop().is_none());
        for (token, chain) in chains.into_iter().rev() {
            pair.device.push(chain, 16).unwrap();
            assert_eq!(pair.ring.poll_used(), Ok(Some(Used { token, written: 16 })));
        }
        let _ = pair.give(60);
        assert_eq!(pair.pop().unwrap().1, seen(120, 8));
    }
}

#[test]
fn a_reset_ring_is_new_and_tells_what_was_in_it() {
    for features in layouts() {
        let mut pair = Pair::new(4, features);
        let _ = pair.give(1);
        let (chain, ..) = pair.pop().unwrap();
        let _ = pair.give(2);
        pair.device.push(chain, 0).unwrap();
        assert_eq!(pair.ring.reset(), Ok(vec![1, 2]));
        assert!(pair.ring.outstanding().is_empty());
        pair.device = device(&pair.ring, &pair.area);
        assert!(pair.pop().is_none(), "{features:?}");
        assert_eq!(pair.give(7), Kick::Needed);
        assert_eq!(pair.pop().unwrap().1, seen(14, 8));
        assert_eq!(pair.ring.poll_used(), Ok(None));
    }
}

#[test]
fn a_packed_ring_has_any_size() {
    let mut pair = Pair::new(5, RING | PACKED);
    for token in 0..23 {
        let _ = pair.give(token);
        let (chain, readable, _) = pair.pop().unwrap();
        assert_eq!(readable, seen(2 * token, 8));
        pair.device.push(chain, 1).unwrap();
        assert_eq!(pair.ring.poll_used(), Ok(Some(Used { token, written: 1 })));
    }
}

#[test]
fn a_device_that_breaks_a_packed_ring_is_found_out() {
    let mut pair = Pair::new(8, RING | PACKED);
    let _ = pair.give(3);
    // An id that was not given out, with flags that say it is used in the first lap.
    pair.area.write(8, &[0, 0, 0, 0, 77, 0, 0x80, 0x80]).unwrap();
    let fault = vhost_core::DriverFault::UnknownToken { position: 0, token: 77 };
    assert_eq!(pair.ring.poll_used(), Err(fault.into()));
    assert_eq!(pair.ring.outstanding(), [3], "nothing is lost");
}
