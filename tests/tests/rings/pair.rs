//! Device and driver on one ring for a long time: every combination of features, sizes from 1 on, chains of all shapes.
//! What was written arrives, and what came back is what went out.

use std::collections::HashMap;

use vhost_core::{
    Buffer, CellRange, Chain, DeviceRing, DriverRing, GuestAddress, GuestRange, Layout, PackedLayout, RingLayout,
    SplitLayout, VirtioFeatures,
};

use crate::guest::{FREE, Guest};
use vhost_tests::numbers::Numbers;

/// Bytes of a request's buffers, and of its indirect table; a request has a place of its own for each of 32.
const SPACE: u64 = 0x40;
const TABLES: u64 = FREE + 32 * SPACE;

/// A request that is out: where its buffers are, and what the device has to answer.
struct Request {
    place: u64,
    readable: Vec<Buffer>,
    writable: Vec<Buffer>,
    seed: u8,
}

/// What a device adds to every byte.
const ADDED: u8 = 0x55;

struct Pair<'g, D: Layout, W: Layout> {
    guest: &'g Guest,
    numbers: Numbers,
    features: VirtioFeatures,
    driver: DriverRing<CellRange<'g>, W, 16>,
    device: DeviceRing<CellRange<'g>, D>,
    out: HashMap<u16, Request>,
    free_places: Vec<u64>,
    held: Vec<(Chain, Vec<CellRange<'g>>)>,
    finished: usize,
}

impl<'g, D: Layout, W: Layout> Pair<'g, D, W> {
    fn new(guest: &'g Guest, size: u16, features: VirtioFeatures, seed: u64) -> Self {
        Self {
            guest,
            numbers: Numbers::new(seed),
            features,
            driver: guest.driver_of(size, features),
            device: guest.device_of(size, features),
            out: HashMap::new(),
            free_places: (0..32).collect(),
            held: Vec::new(),
            finished: 0,
        }
    }

    fn add(&mut self) {
        let Some(place) = self.free_places.pop() else {
            return;
        };
        let mut at = FREE + place * SPACE;
        let mut buffer = |numbers: &mut Numbers| {
            let length = 1 + numbers.below(5);
            at += length;
            Buffer { address: GuestAddress(at - length), length: length as u32 }
        };
        let count = 1 + self.numbers.below(4);
        let readable_count = self.numbers.below(count + 1);
        let readable: Vec<_> = (0..readable_count).map(|_| buffer(&mut self.numbers)).collect();
        let writable: Vec<_> = (readable_count..count).map(|_| buffer(&mut self.numbers)).collect();
        let seed = self.numbers.next() as u8;
        for (byte, address) in bytes_of(&readable).enumerate() {
            self.guest.put(address, &[seed.wrapping_add(byte as u8)]);
        }
        let table = self.guest.range(TABLES + place * 0x40, 64);
        let indirect = self.features.contains(VirtioFeatures::RING_INDIRECT) && self.numbers.below(2) == 0;
        let added = if indirect {
            self.driver.add_indirect(&table, &readable, &writable)
        } else {
            self.driver.add(&readable, &writable)
        };
        match added {
            Ok(token) => {
                assert!(self.out.insert(token, Request { place, readable, writable, seed }).is_none());
            }
            Err(_) => self.free_places.push(place),
        }
    }

    fn pop(&mut self) {
        let mut pieces = heapless::Vec::<_, 8>::new();
        if let Some(chain) = self.device.pop(&self.guest.memory(), &mut pieces).unwrap() {
            self.held.push((chain, pieces.into_iter().collect()));
        }
    }

    /// The device answers with the request's bytes, repeated, each larger by a constant; from the front on.
    fn answer(&mut self) {
        if self.held.is_empty() {
            return;
        }
        let in_order = self.features.contains(VirtioFeatures::IN_ORDER);
        let at = if in_order { 0 } else { self.numbers.below(self.held.len() as u64) as usize };
        let (chain, pieces) = self.held.remove(at);
        let (readable, writable) = chain.split(&pieces);
        let mut request = Vec::new();
        for piece in readable {
            let mut bytes = vec![0; piece.len()];
            piece.read_into(0, &mut bytes).unwrap();
            request.extend(bytes);
        }
        let request = if request.is_empty() { vec![0] } else { request };
        let mut answer = request.iter().cycle().map(|byte| byte.wrapping_add(ADDED));
        for piece in writable {
            let bytes: Vec<u8> = answer.by_ref().take(piece.len()).collect();
            piece.write_from(0, &bytes).unwrap();
        }
        let written = chain.writable_len();
        self.device.stage(chain, written).unwrap();
    }

    fn poll(&mut self) {
        while let Some(used) = self.driver.poll().unwrap() {
            let Request { place, readable, writable, seed } = self.out.remove(&used.token).expect("it was out");
            let length = bytes_of(&readable).count().max(1);
            for (index, address) in bytes_of(&writable).enumerate() {
                let sent = if readable.is_empty() { 0 } else { seed.wrapping_add((index % length) as u8) };
                assert_eq!(self.guest.get(address), [sent.wrapping_add(ADDED)]);
            }
            assert_eq!(used.written as usize, bytes_of(&writable).count());
            self.free_places.push(place);
            self.finished += 1;
        }
    }

    fn run(&mut self) {
        for _ in 0..2500 {
            match self.numbers.below(7) {
                0 | 1 => self.add(),
                2 => self.driver.publish().unwrap(),
                3 => self.pop(),
                4 => self.answer(),
                5 => self.device.publish().unwrap(),
                _ => self.poll(),
            }
        }
        self.driver.publish().unwrap();
        for _ in 0..20 {
            (0..20).for_each(|_| self.pop());
            (0..20).for_each(|_| self.answer());
            self.device.publish().unwrap();
            self.poll();
        }
        assert!(self.out.is_empty() && self.held.is_empty());
        assert_eq!((self.driver.outstanding(), self.device.held()), (0, 0));
    }
}

fn bytes_of(buffers: &[Buffer]) -> impl Iterator<Item = u64> + '_ {
    buffers.iter().flat_map(|buffer| buffer.address.0..buffer.address.0 + u64::from(buffer.length))
}

/// Rings of these features and of all sizes, with a device of type `D` and a driver of type `W`.
fn exchange<D: Layout, W: Layout>(features: VirtioFeatures) {
    for size in [1, 2, 3, 4, 7, 16] {
        if RingLayout::of(features).check_size(size).is_err() {
            continue;
        }
        let guest = Guest::new();
        let mut pair = Pair::<D, W>::new(&guest, size as u16, features, features.bits() + u64::from(size));
        pair.run();
        assert!(pair.finished > 30, "{features:?}, {size}: {}", pair.finished);
    }
}

/// All choices of what rings of a layout may have.
fn choices(layout: VirtioFeatures) -> impl Iterator<Item = VirtioFeatures> {
    let bits = [VirtioFeatures::RING_INDIRECT, VirtioFeatures::RING_EVENT_IDX, VirtioFeatures::IN_ORDER];
    (0..8_u8).map(move |choice| (0..3).filter(|bit| choice & 1 << bit != 0).fold(layout, |all, bit| all | bits[bit]))
}

#[test]
fn whatever_goes_out_comes_back_once_and_unharmed() {
    for layout in [VirtioFeatures::empty(), VirtioFeatures::RING_PACKED] {
        choices(layout).for_each(exchange::<RingLayout, RingLayout>);
    }
}

#[test]
fn types_for_one_layout_work_with_each_other_and_with_those_for_both() {
    for features in choices(VirtioFeatures::empty()) {
        exchange::<SplitLayout, SplitLayout>(features);
        exchange::<RingLayout, SplitLayout>(features);
    }
    for features in choices(VirtioFeatures::RING_PACKED) {
        exchange::<PackedLayout, PackedLayout>(features);
        exchange::<PackedLayout, RingLayout>(features);
    }
}
