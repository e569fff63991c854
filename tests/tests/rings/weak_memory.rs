//! Ring memory that cannot be written for a while: what failed is done when it is tried again, or never was.

use core::cell::Cell;

use vhost_core::{
    AddError, Buffer, CellRange, DeviceQueue, DriverQueue, GuestAddress, GuestRange, Load, PackedDevice, PushError,
    RingLayout, RingParts, RingUser, Store, Used, VirtioFeatures,
};

use crate::guest::{FREE, Guest, first_base};

const BOTH: [VirtioFeatures; 2] = [VirtioFeatures::empty(), VirtioFeatures::RING_PACKED];

/// A range that can be written so many more times.
#[derive(Clone, Debug)]
struct Weak<'g> {
    range: CellRange<'g>,
    writes: &'g Cell<usize>,
}

impl Weak<'_> {
    fn write_once(&self) -> Option<()> {
        self.writes.set(self.writes.get().checked_sub(1)?);
        Some(())
    }
}

impl GuestRange for Weak<'_> {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn guest_address(&self) -> GuestAddress {
        self.range.guest_address()
    }

    fn load_u16(&self, offset: usize, order: Load) -> Option<u16> {
        self.range.load_u16(offset, order)
    }

    fn store_u16(&self, offset: usize, value: u16, order: Store) -> Option<()> {
        self.write_once()?;
        self.range.store_u16(offset, value, order)
    }

    fn fetch_or(&self, offset: usize, bits: u8) -> Option<u8> {
        self.range.fetch_or(offset, bits)
    }

    fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        self.range.read_into(offset, out)
    }

    fn write_from(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        self.write_once()?;
        self.range.write_from(offset, bytes)
    }
}

fn weak<'g>(guest: &'g Guest, writes: &'g Cell<usize>, layout: RingLayout, user: RingUser) -> RingParts<Weak<'g>> {
    let RingParts { descriptor, driver, device } = guest.parts(layout, 4, user);
    let weak = |range| Weak { range, writes };
    RingParts { descriptor: weak(descriptor), driver: weak(driver), device: weak(device) }
}

fn driver<'g>(guest: &'g Guest, writes: &'g Cell<usize>, features: VirtioFeatures) -> DriverQueue<Weak<'g>, 4> {
    DriverQueue::new(weak(guest, writes, RingLayout::of(features), RingUser::Driver), 4, features).unwrap()
}

fn buffer(offset: u64, length: u32) -> Buffer {
    Buffer { address: GuestAddress(FREE + offset), length }
}

#[test]
fn a_chain_that_was_not_added_leaves_nothing_behind() {
    let chain = [buffer(0, 16), buffer(0x100, 8), buffer(0x200, 4)];
    for features in BOTH {
        for enough in 0..3 {
            let (guest, writes) = (Guest::new(), Cell::new(usize::MAX));
            let mut queue = driver(&guest, &writes, features);
            writes.set(enough);
            assert!(matches!(queue.add(&chain, &[]), Err(AddError::Ring(_))), "{features:?} {enough}");
            assert_eq!((queue.free(), queue.outstanding()), (4, 0));
            writes.set(usize::MAX);
            queue.publish().unwrap();
            let (mut device, mut pieces) = (guest.device(4, features), heapless::Vec::<_, 8>::new());
            assert_eq!(device.pop(&guest.memory(), &mut pieces), Ok(None), "{features:?} {enough}");
            queue.add(&chain, &[]).unwrap();
            queue.publish().unwrap();
            assert_eq!(device.pop(&guest.memory(), &mut pieces).unwrap().unwrap().readable_len(), 28);
            assert_eq!(device.pop(&guest.memory(), &mut pieces), Ok(None));
        }
    }
}

#[test]
fn a_driver_that_could_not_publish_can_try_again() {
    for features in BOTH {
        let (guest, writes) = (Guest::new(), Cell::new(usize::MAX));
        let mut queue = driver(&guest, &writes, features);
        queue.add(&[buffer(0, 16)], &[]).unwrap();
        writes.set(0);
        assert!(queue.publish().is_err());
        assert_eq!(queue.needs_kick(), Ok(false));
        writes.set(usize::MAX);
        let (mut device, mut pieces) = (guest.device(4, features), heapless::Vec::<_, 8>::new());
        assert_eq!(device.pop(&guest.memory(), &mut pieces), Ok(None));
        queue.publish().unwrap();
        assert_eq!(queue.needs_kick(), Ok(true));
        assert_eq!(device.pop(&guest.memory(), &mut pieces).unwrap().unwrap().readable_len(), 16);
    }
}

#[test]
fn a_device_that_could_not_publish_can_try_again() {
    for features in BOTH {
        let (guest, writes) = (Guest::new(), Cell::new(usize::MAX));
        let mut queue: DriverQueue<CellRange<'_>, 4> = guest.driver(4, features);
        let token = queue.add(&[], &[buffer(0, 16)]).unwrap();
        queue.publish().unwrap();
        let layout = RingLayout::of(features);
        let parts = weak(&guest, &writes, layout, RingUser::Device);
        let mut device = DeviceQueue::new(parts, 4, features, first_base(layout)).unwrap();
        let mut pieces = heapless::Vec::<_, 8>::new();
        let chain = device.pop(&guest.memory(), &mut pieces).unwrap().unwrap();
        // The entry is written, but not what tells of it.
        writes.set(1);
        assert!(matches!(device.push(chain, 7), Err(PushError::Ring(_))));
        assert_eq!(queue.poll(), Ok(None));
        writes.set(usize::MAX);
        device.publish().unwrap();
        assert_eq!(device.needs_call(), Ok(true));
        assert_eq!(queue.poll(), Ok(Some(Used { token, written: 7 })));
        assert_eq!(queue.poll(), Ok(None));
    }
}

#[test]
fn a_packed_ring_that_went_on_is_the_one_that_begins_there() {
    let (guest, features) = (Guest::new(), VirtioFeatures::RING_PACKED);
    let mut queue: DriverQueue<CellRange<'_>, 4> = guest.driver(4, features);
    let parts = || guest.parts(RingLayout::Packed, 4, RingUser::Device);
    let mut device = PackedDevice::new(parts(), 4, features, first_base(RingLayout::Packed)).unwrap();
    let mut pieces = heapless::Vec::<_, 8>::new();
    for _ in 0..9 {
        queue.add(&[buffer(0, 16)], &[]).unwrap();
        queue.publish().unwrap();
        let chain = device.pop(&guest.memory(), &mut pieces).unwrap().unwrap();
        device.push(chain, 0).unwrap();
        assert_eq!(device.needs_call(), Ok(true));
        queue.poll().unwrap().unwrap();
        let other = PackedDevice::new(parts(), 4, features, device.base()).unwrap();
        assert_eq!(device.state(), other.state());
    }
}
