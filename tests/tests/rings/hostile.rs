//! A peer that writes anything anywhere, also between one look and the next: no panic, no endless walk, nothing read or
//! written outside of what was given.

use core::cell::{Cell, RefCell};

use vhost_core::{
    Access, Buffer, CellMemory, Chain, DeviceQueue, DriverFault, DriverQueue, GuestAddress, GuestMemory, GuestRange,
    Iotlb, IotlbMemory, Iova, Load, PopError, PushError, Resubmission, RingAddresses, RingFault, RingLayout, RingParts,
    RingUser, Store, Unmapped, VirtioFeatures,
};

use crate::guest::first_base;
use vhost_tests::numbers::Numbers;

const BYTES: usize = 0x1000;

/// Where an inflight record is.
const RECORD: usize = 0x200;

/// Accesses to memory that one operation makes at most, on a ring of 8 with tables of up to 1024.
const BOUND: usize = 4000;

/// Memory where before every access something else changes, somewhere and mostly where it hurts.
struct Poison {
    cells: Vec<Cell<u8>>,
    numbers: RefCell<Numbers>,
    accesses: Cell<usize>,
    /// One change in so many accesses.
    rarity: u64,
}

impl Poison {
    fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let cells =
            (0..BYTES).map(|_| Cell::new(if numbers.below(3) == 0 { numbers.next() as u8 } else { 0 })).collect();
        let rarity = [1, 4, 20, 100, 300][numbers.below(5) as usize];
        Self { cells, numbers: RefCell::new(numbers), accesses: Cell::new(0), rarity }
    }

    /// Something changes: flags and small numbers mostly, so that chains get long and rings stay alive.
    fn stir(&self) {
        self.accesses.set(self.accesses.get() + 1);
        assert!(self.accesses.get() < BOUND, "an operation that does not end");
        let mut numbers = self.numbers.borrow_mut();
        if numbers.below(self.rarity) > 0 {
            return;
        }
        let at = numbers.below(BYTES as u64 / 2) as usize * 2;
        let values = [0, 1, 2, 3, 4, 5, 7, 8, 0x80, 0x81, 0x8000, 0x8001, 0x8080, 0x8081, 0xffff, 0x100];
        let value: u16 = match numbers.below(4) {
            0 => numbers.next() as u16,
            _ => values[numbers.below(values.len() as u64) as usize],
        };
        for (cell, byte) in self.cells[at..].iter().zip(value.to_le_bytes()) {
            cell.set(byte);
        }
    }

    fn memory(&self) -> PoisonMemory<'_> {
        PoisonMemory { poison: self, memory: CellMemory::new(GuestAddress(0), &self.cells) }
    }
}

#[derive(Clone, Copy)]
struct PoisonMemory<'p> {
    poison: &'p Poison,
    memory: CellMemory<'p>,
}

#[derive(Clone, Copy)]
struct PoisonRange<'p> {
    poison: &'p Poison,
    range: vhost_core::CellRange<'p>,
}

impl core::fmt::Debug for PoisonRange<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}", self.range.guest_address().0)
    }
}

impl<'p> GuestMemory for PoisonMemory<'p> {
    type Address = GuestAddress;
    type Range = PoisonRange<'p>;

    fn piece(&self, address: GuestAddress, length: u64, access: Access) -> Result<PoisonRange<'p>, Unmapped> {
        // Pieces of 256 bytes: buffers cross from one into the next.
        let length = length.min(0x100 - address.0 % 0x100);
        Ok(PoisonRange { poison: self.poison, range: self.memory.piece(address, length, access)? })
    }

    fn range(&self, address: GuestAddress, length: u64, access: Access) -> Result<PoisonRange<'p>, Unmapped> {
        Ok(PoisonRange { poison: self.poison, range: self.memory.range(address, length, access)? })
    }
}

impl GuestRange for PoisonRange<'_> {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn guest_address(&self) -> GuestAddress {
        self.range.guest_address()
    }

    fn load_u16(&self, offset: usize, order: Load) -> Option<u16> {
        self.poison.stir();
        Some(self.range.load_u16(offset, order).expect("inside"))
    }

    fn store_u16(&self, offset: usize, value: u16, order: Store) -> Option<()> {
        self.poison.stir();
        self.range.store_u16(offset, value, order).expect("inside");
        Some(())
    }

    fn fetch_or(&self, offset: usize, bits: u8) -> Option<u8> {
        self.range.fetch_or(offset, bits)
    }

    fn read_into(&self, offset: usize, out: &mut [u8]) -> Option<()> {
        self.poison.stir();
        self.range.read_into(offset, out).expect("inside");
        Some(())
    }

    fn write_from(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        self.poison.stir();
        self.range.write_from(offset, bytes).expect("inside");
        Some(())
    }
}

/// What came out of the rings, so that a test that meets nothing is noticed.
#[derive(Debug, Default)]
struct Met {
    chains: usize,
    malformed: usize,
    misses: usize,
    broken: usize,
    driver_broken: usize,
    bad_records: usize,
    recovered: usize,
    used: usize,
}

fn features(numbers: &mut Numbers) -> VirtioFeatures {
    let choices = [
        VirtioFeatures::RING_PACKED,
        VirtioFeatures::RING_EVENT_IDX,
        VirtioFeatures::RING_INDIRECT,
        VirtioFeatures::IN_ORDER,
    ];
    choices.into_iter().filter(|_| numbers.below(2) == 0).fold(VirtioFeatures::empty(), |all, one| all | one)
}

fn parts<'p>(poison: &'p Poison, layout: RingLayout, size: u32) -> RingParts<PoisonRange<'p>> {
    let addresses =
        RingAddresses { descriptor: GuestAddress(0), driver: GuestAddress(0x100), device: GuestAddress(0x180) };
    RingParts::translate(&poison.memory(), addresses, layout, size, RingUser::Driver).unwrap()
}

/// A device and a driver on one ring, four hundred operations of both; every now and then the memory is not what the other
/// side wrote.
struct Pair<'p> {
    poison: &'p Poison,
    numbers: Numbers,
    device: DeviceQueue<PoisonRange<'p>>,
    driver: DriverQueue<PoisonRange<'p>, 8>,
    size: u32,
    found: Vec<Resubmission>,
    held: Vec<Chain>,
    out: u16,
    table: Iotlb<GuestAddress, 4>,
}

impl<'p> Pair<'p> {
    fn new(poison: &'p Poison, seed: u64) -> Self {
        let mut numbers = Numbers::new(seed + 1);
        let features = features(&mut numbers);
        let layout = RingLayout::of(features);
        let size = 1 << numbers.below(4);
        let driver = DriverQueue::new(parts(poison, layout, size), size, features).unwrap();
        let base = first_base(layout);
        let device = DeviceQueue::new(parts(poison, layout, size), size, features, base).unwrap();
        let mut table = Iotlb::new();
        for _ in 0..4 {
            let (iova, target) = (Iova(numbers.below(0x1000)), GuestAddress(numbers.below(0x1000)));
            table.update(iova, 0x400, target, Access::ReadWrite).unwrap();
        }
        Self { poison, numbers, device, driver, size, found: Vec::new(), held: Vec::new(), out: 0, table }
    }

    /// Gives the device a record of any bytes, perhaps with a header that says that it is one.
    fn recover(&mut self, met: &mut Met) {
        let layout = self.device.layout();
        let (version, fresh) = (self.numbers.below(8) > 0, self.numbers.below(3) == 0);
        let put = |at: usize, number: u16| {
            for (cell, byte) in self.poison.cells[RECORD + at..].iter().zip(number.to_ne_bytes()) {
                cell.set(byte);
            }
        };
        if version {
            put(8, u16::from(!fresh));
            put(10, self.size as u16);
        }
        for at in (12..0x100).step_by(2) {
            // Small numbers: links and places that could be right.
            let [low, high] = [(); 2].map(|()| match self.numbers.below(2) {
                0 => 0,
                _ => self.numbers.below(4) as u8,
            });
            put(at, u16::from_le_bytes([low, high]));
        }
        let bytes = DeviceQueue::<PoisonRange<'_>>::inflight_size(layout, self.size as u16);
        let record = self.poison.memory().range(GuestAddress(RECORD as u64), bytes, Access::ReadWrite).unwrap();
        let mut room = [Resubmission::default(); 8];
        match self.device.recover(record, &mut room) {
            Ok(found) => self.found = found.to_vec(),
            Err(_) => met.bad_records += 1,
        }
    }

    fn serve(&mut self, met: &mut Met) -> Result<(), RingFault> {
        let (memory, mut pieces) = (self.poison.memory(), heapless::Vec::<PoisonRange<'_>, 16>::new());
        match self.numbers.below(10) {
            0..4 => {
                let popped = if self.numbers.below(6) == 0 {
                    self.device.pop(&IotlbMemory::new(&self.table, memory), &mut pieces)
                } else {
                    self.device.pop(&memory, &mut pieces)
                };
                if let Ok(Some(chain)) = &popped {
                    let total: usize = pieces.iter().map(GuestRange::len).sum();
                    assert_eq!(total as u64, u64::from(chain.readable_len()) + u64::from(chain.writable_len()));
                }
                self.take(popped, met)
            }
            4 => match self.found.pop() {
                Some(resubmission) => {
                    met.recovered += 1;
                    let popped = self.device.pop_recovered(&resubmission, &memory, &mut pieces);
                    self.take(popped.map(Some), met)
                }
                None => Ok(()),
            },
            5..7 if !self.held.is_empty() => {
                let chain = self.held.remove(self.numbers.below(self.held.len() as u64) as usize);
                match self.device.stage(chain, self.numbers.next() as u32) {
                    Err(PushError::NotInOrder { chain } | PushError::NotTaken { chain }) => self.held.insert(0, chain),
                    Err(PushError::Ring(fault)) => return Err(fault),
                    Ok(()) => {}
                }
                Ok(())
            }
            7 => self.device.publish(),
            8 => self.device.needs_call().map(drop),
            _ => self.device.enable_kicks().map(drop).and_then(|()| self.device.disable_kicks()),
        }
    }

    fn take(&mut self, popped: Result<Option<Chain>, PopError>, met: &mut Met) -> Result<(), RingFault> {
        match popped {
            Ok(chain) => {
                met.chains += usize::from(chain.is_some());
                self.held.extend(chain);
            }
            Err(PopError::Malformed { chain, .. }) => {
                met.malformed += 1;
                self.held.push(chain);
            }
            Err(PopError::Miss(_)) => met.misses += 1,
            Err(PopError::Ring(fault)) => return Err(fault),
        }
        Ok(())
    }

    fn drive(&mut self, met: &mut Met) -> Result<(), DriverFault> {
        let numbers = &mut self.numbers;
        match numbers.below(8) {
            0..3 => {
                let mut buffer = || Buffer {
                    address: GuestAddress(if numbers.below(9) == 0 { numbers.next() } else { numbers.below(0xf00) }),
                    length: numbers.below(0x100) as u32,
                };
                let (readable, writable) = ([buffer()], [buffer(), buffer()]);
                let writable = &writable[..self.numbers.below(3) as usize];
                let table = self.poison.memory().range(GuestAddress(0x400), 48, Access::ReadWrite).unwrap();
                let added = match self.numbers.below(3) {
                    0 => self.driver.add_indirect(&table, &readable, writable),
                    _ => self.driver.add(&readable, writable),
                };
                self.out += u16::from(added.is_ok());
            }
            3..6 => {
                if let Some(used) = self.driver.poll()? {
                    met.used += 1;
                    assert!(used.written <= 0x200 && u32::from(used.token) < self.size, "{used:?}");
                    self.out -= 1;
                }
            }
            6 => {
                self.driver.publish()?;
                self.driver.needs_kick()?;
            }
            _ => {
                self.driver.enable_calls()?;
                self.driver.disable_calls()?;
            }
        }
        assert_eq!(self.driver.outstanding(), self.out);
        assert!(u32::from(self.driver.free()) <= self.size);
        Ok(())
    }

    fn run(&mut self, met: &mut Met) {
        let mut faults = 0;
        for step in 0..400 {
            self.poison.accesses.set(0);
            if step == 20 && self.numbers.below(3) == 0 {
                self.held.clear();
                self.recover(met);
            } else if step % 2 == 0 {
                let outcome = self.serve(met);
                met.broken += usize::from(outcome.is_err());
                faults += usize::from(outcome.is_err());
            } else {
                let outcome = self.drive(met);
                met.driver_broken += usize::from(outcome.is_err());
                faults += usize::from(outcome.is_err());
            }
            assert!(self.held.len() <= 8, "no more than the ring has");
            if faults > 20 {
                break;
            }
        }
    }
}

#[test]
fn both_sides_survive_any_other_side() {
    let mut met = Met::default();
    for seed in 0..4000 {
        let poison = Poison::new(seed);
        Pair::new(&poison, seed).run(&mut met);
    }
    println!("{met:?}");
    let Met { chains, malformed, misses, broken, driver_broken, bad_records, recovered, used } = met;
    assert!(chains > 10_000 && malformed > 5000 && misses > 1000 && used > 10_000);
    assert!(broken > 1000 && driver_broken > 1000 && bad_records > 100 && recovered > 100);
}
