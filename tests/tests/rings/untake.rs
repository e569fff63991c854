//! Chains that were taken and stay in the ring after all.

use vhost_core::wire::vring::VringBase;
use vhost_core::{
    Buffer, CellRange, Chain, DeviceQueue, DriverQueue, GuestAddress, PushError, Resubmission, RingLayout, RingUser,
    VirtioFeatures,
};
use vhost_tests::numbers::Numbers;

use crate::guest::{FREE, Guest, Pieces, first_base};

const SIZE: u16 = 8;
const RECORD: u64 = 0x3000;

struct Bench<'g> {
    guest: &'g Guest,
    features: VirtioFeatures,
    layout: RingLayout,
    driver: DriverQueue<CellRange<'g>, 8>,
    device: DeviceQueue<CellRange<'g>>,
    /// Taken and not left in the ring, in this order; whether the device still has them.
    taken: Vec<(Chain, bool)>,
}

impl<'g> Bench<'g> {
    fn new(guest: &'g Guest, features: VirtioFeatures, recorded: bool) -> Self {
        let layout = RingLayout::of(features);
        let (driver, device) = (guest.driver(SIZE, features), guest.device(SIZE, features));
        let mut bench = Self { guest, features, layout, driver, device, taken: Vec::new() };
        if recorded {
            assert!(bench.recover().is_empty());
        }
        bench
    }

    fn recover(&mut self) -> Vec<Resubmission> {
        let mut room = [Resubmission::default(); SIZE as usize];
        let length = DeviceQueue::<CellRange<'_>>::inflight_size(self.layout, SIZE);
        self.device.recover(self.guest.range(RECORD, length), &mut room).unwrap().to_vec()
    }

    fn add(&mut self, buffers: u64) {
        let place = |at| Buffer { address: GuestAddress(FREE + 16 * at), length: 16 };
        let buffers = Vec::from_iter((0..buffers).map(place));
        if self.driver.add(&[], &buffers).is_ok() {
            self.driver.publish().unwrap();
        }
    }

    fn take(&mut self) -> Option<u16> {
        let chain = self.device.pop(&self.guest.memory(), &mut Pieces::new()).unwrap()?;
        let id = chain.id();
        self.taken.push((chain, true));
        Some(id)
    }

    /// Another device goes on from the record, as after a crash.
    fn crash(&mut self) {
        let base = match self.layout {
            RingLayout::Split => VringBase::split(self.guest.used_index().into()),
            RingLayout::Packed => first_base(self.layout),
        };
        let parts = self.guest.parts(self.layout, SIZE, RingUser::Device);
        self.device = DeviceQueue::new(parts, SIZE.into(), self.features, base).unwrap();
        let found = self.recover();
        let mut held = Vec::from_iter(self.taken.drain(..).filter(|(_, held)| *held).map(|(chain, _)| chain.id()));
        for resubmission in found {
            let chain = self.device.pop_recovered(&resubmission, &self.guest.memory(), &mut Pieces::new()).unwrap();
            assert_eq!(chain.id(), held.remove(0), "in the order in which they were taken");
            let again = self.device.untake(chain.clone());
            assert_eq!(again, Err(PushError::NotTaken { chain: chain.clone() }), "the ring may not have it there");
            self.device.push(chain, 0).unwrap();
        }
        assert!(held.is_empty(), "{held:?} are lost");
    }
}

fn each(mut test: impl FnMut(VirtioFeatures, bool, u64)) {
    for layout in [VirtioFeatures::empty(), VirtioFeatures::RING_PACKED] {
        for recorded in [false, true] {
            for seed in 0..400 {
                test(layout | VirtioFeatures::RING_EVENT_IDX, recorded, seed);
            }
        }
    }
}

/// Whatever is taken, left, and given back in any order: the driver gets each chain back once.
#[test]
fn a_chain_that_is_left_in_the_ring_comes_again_and_no_other_way() {
    let mut left = 0;
    each(|features, recorded, seed| {
        let guest = Guest::new();
        let mut bench = Bench::new(&guest, features, recorded);
        let mut dice = Numbers::new(seed);
        let mut next = None;
        for _ in 0..60 {
            match dice.below(6) {
                0 | 1 => bench.add(1 + dice.below(3)),
                2 => {
                    let id = bench.take();
                    assert!(next.is_none() || next == id, "the one that was left is the next one");
                    next = None;
                }
                3 => {
                    let before = bench.device.state();
                    if let Some((other, true)) = bench.taken.first().filter(|_| bench.taken.len() > 1).cloned() {
                        let refused = bench.device.untake(other.clone());
                        assert_eq!(refused, Err(PushError::NotTaken { chain: other }));
                        assert_eq!(bench.device.state(), before);
                    }
                    if let Some((chain, true)) = bench.taken.last().cloned() {
                        let id = chain.id();
                        bench.device.untake(chain).unwrap();
                        bench.taken.pop();
                        (next, left) = (Some(id), left + 1);
                    }
                }
                4 => {
                    let held = Vec::from_iter((0..bench.taken.len()).filter(|at| bench.taken[*at].1));
                    if !held.is_empty() {
                        let (chain, held) = &mut bench.taken[held[dice.below(held.len() as u64) as usize]];
                        *held = false;
                        bench.device.stage(chain.clone(), 0).unwrap();
                    }
                }
                _ => bench.device.publish().unwrap(),
            }
            while bench.driver.poll().unwrap().is_some() {}
        }
        bench.device.publish().unwrap();
        if recorded {
            bench.crash();
        } else {
            for (chain, held) in core::mem::take(&mut bench.taken) {
                if held {
                    bench.device.push(chain, 0).unwrap();
                }
            }
        }
        while bench.take().is_some() {
            let (chain, _) = bench.taken.pop().unwrap();
            bench.device.push(chain, 0).unwrap();
        }
        while bench.driver.poll().unwrap().is_some() {}
        assert_eq!((bench.driver.outstanding(), bench.device.held()), (0, 0), "{features:?} {recorded} {seed}");
    });
    assert!(left > 1000, "{left}");
}

/// A ring that is stopped has not taken it either.
#[test]
fn the_base_of_a_ring_is_as_it_was_before() {
    each(|features, recorded, seed| {
        let guest = Guest::new();
        let mut bench = Bench::new(&guest, features, recorded);
        for round in 0..(seed % 20) {
            bench.add(1 + round % 3);
            bench.add(1);
            bench.take();
            let (first, _) = bench.taken.pop().unwrap();
            bench.device.push(first, 0).unwrap();
            let before = (bench.device.base(), bench.device.held());
            bench.take();
            let (second, _) = bench.taken.pop().unwrap();
            bench.device.untake(second).unwrap();
            assert_eq!((bench.device.base(), bench.device.held()), before);
            bench.take();
            let (second, _) = bench.taken.pop().unwrap();
            bench.device.push(second, 0).unwrap();
            while bench.driver.poll().unwrap().is_some() {}
        }
    });
}
