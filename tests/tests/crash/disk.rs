//! The driver of a disk: a request in each of its slots, one after another, and every answer checked.

use core::time::Duration;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Instant;

use vhost_core::{
    Access, Buffer, DriverQueue, GuestAddress, GuestMemory, GuestRange, Load, RingAddress, RingAddresses, RingLayout,
    RingParts, RingUser, VirtioFeatures,
};
use vhost_std::deadline::Deadline;
use vhost_std::eventfd::EventFd;
use vhost_std::frontend::{Logging, VringAddresses};
use vhost_std::memory::{MemoryFile, MemoryTable, OwnedRange};

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;
/// Requests, and what a disk says of them (virtio, section "Block Device").
pub(crate) const READ: u8 = 0;
pub(crate) const WRITE: u8 = 1;
pub(crate) const OK: u8 = 0;
pub(crate) const IO_ERROR: u8 = 1;
const UNANSWERED: u8 = 0xff;

/// Descriptors of the ring, and requests at a time: more than there are descriptors for when all are direct.
pub(crate) const SIZE: u16 = 64;
const SLOTS: u16 = 32;

const ADDRESSES: RingAddresses<GuestAddress> =
    RingAddresses { descriptor: GuestAddress(0), driver: GuestAddress(0x1000), device: GuestAddress(0x2000) };

/// Bytes of a slot, and what is where in it.
const SLOT: u64 = 0x400;
const STATUS: u64 = 0x10;
const TABLE: u64 = 0x40;
const DATA: u64 = 0x200;

/// For an answer of a back-end that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where and how often a sector was written.
pub(crate) fn stamp_of(sector: &[u8; SECTOR]) -> (u64, u64) {
    let number = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().unwrap());
    (number(0), number(8))
}

fn stamped(sector: u64, number: u64) -> [u8; SECTOR] {
    let stamp = [sector.to_le_bytes(), number.to_le_bytes()].concat();
    stamp.repeat(SECTOR / 16).try_into().unwrap()
}

/// A driver that outlives its disk's back-ends; each slot has a sector of its own.
pub(crate) struct Disk {
    pub(crate) memory: MemoryFile,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    slots: OwnedRange,
    tables: MemoryTable,
    queue: DriverQueue<OwnedRange, { SIZE as usize }>,
    file: File,
    /// How often each slot's sector was written.
    written: [u64; SLOTS as usize],
    /// What each slot waits for.
    waiting: [Option<u8>; SLOTS as usize],
    /// Whose each token is.
    owners: [Option<u16>; SIZE as usize],
    pub(crate) completed: u64,
}

impl Disk {
    pub(crate) fn new(file: File, features: VirtioFeatures) -> Self {
        let slots_at = 0x3000;
        let memory = MemoryFile::create("guest", 0, slots_at + SLOT * u64::from(SLOTS)).unwrap();
        let tables = MemoryTable::new([memory.mapped().clone()]).unwrap();
        let layout = RingLayout::of(features);
        let parts = RingParts::translate(&tables, ADDRESSES, layout, SIZE.into(), RingUser::Driver).unwrap();
        let slots = tables.range(GuestAddress(slots_at), SLOT * u64::from(SLOTS), Access::ReadWrite).unwrap();
        file.set_len(SECTOR as u64 * u64::from(SLOTS)).unwrap();
        for sector in 0..u64::from(SLOTS) {
            file.write_all_at(&stamped(sector, 0), sector * SECTOR as u64).unwrap();
        }
        Self {
            queue: DriverQueue::new(parts, SIZE.into(), features).unwrap(),
            kick: EventFd::new().unwrap(),
            call: EventFd::new().unwrap(),
            written: [0; SLOTS as usize],
            waiting: [None; SLOTS as usize],
            owners: [None; SIZE as usize],
            completed: 0,
            memory,
            slots,
            tables,
            file,
        }
    }

    /// For `SET_VRING_ADDR`.
    pub(crate) fn addresses(&self) -> VringAddresses {
        let user = |address: GuestAddress| RingAddress(self.memory.region().user_address.0 + address.0);
        let [descriptor, available, used] = [ADDRESSES.descriptor, ADDRESSES.driver, ADDRESSES.device].map(user);
        VringAddresses { descriptor, available, used, log: GuestAddress(0), logging: Logging::Off }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.waiting.iter().flatten().count()
    }

    /// Makes requests in all free slots for which the ring has room.
    pub(crate) fn refill(&mut self) {
        for slot in 0..SLOTS {
            if self.waiting[usize::from(slot)].is_none() && !self.submit(slot) {
                break;
            }
        }
        self.queue.publish().unwrap();
        if self.queue.needs_kick().unwrap() {
            self.kick.signal().unwrap();
        }
    }

    /// Writes two times out of three, and reads what was written.
    fn submit(&mut self, slot: u16) -> bool {
        let (at, sector) = (SLOT * u64::from(slot), u64::from(slot));
        let written = self.written[usize::from(slot)];
        let kind = if (self.completed + sector).is_multiple_of(3) { READ } else { WRITE };
        let bytes = if kind == READ { [0; SECTOR] } else { stamped(sector, written + 1) };
        self.write(at, &[[kind, 0, 0, 0, 0, 0, 0, 0], sector.to_le_bytes()].concat());
        self.write(at + STATUS, &[UNANSWERED]);
        self.write(at + DATA, &bytes);
        let guest = self.slots.guest_address().0 + at;
        let buffer = |at, length| Buffer { address: GuestAddress(guest + at), length };
        let [header, data, status] = [buffer(0, 16), buffer(DATA, SECTOR as u32), buffer(STATUS, 1)];
        let (readable, writable) =
            if kind == READ { (vec![header], vec![data, status]) } else { (vec![header, data], vec![status]) };
        let added = if slot.is_multiple_of(2) {
            let table = self.tables.range(GuestAddress(guest + TABLE), 48, Access::ReadWrite).unwrap();
            self.queue.add_indirect(&table, &readable, &writable)
        } else {
            self.queue.add(&readable, &writable)
        };
        let Ok(token) = added else { return false };
        assert_eq!(self.owners[usize::from(token)].replace(slot), None, "the driver's own mistake");
        self.waiting[usize::from(slot)] = Some(kind);
        true
    }

    /// Checks every answer that is there; how many there were.
    pub(crate) fn take_back(&mut self) -> usize {
        let mut count = 0;
        while let Some(used) = self.queue.poll().expect("a request was completed that was not made") {
            let slot = self.owners[usize::from(used.token)].take().unwrap();
            let kind = self.waiting[usize::from(slot)].take().unwrap();
            self.check(slot, kind);
            count += 1;
        }
        self.completed += count as u64;
        count
    }

    fn check(&mut self, slot: u16, kind: u8) {
        let (at, sector, written) = (SLOT * u64::from(slot), u64::from(slot), &mut self.written[usize::from(slot)]);
        *written += u64::from(kind == WRITE);
        let expected = stamped(sector, *written);
        assert_eq!(self.slots.read((at + STATUS) as usize), Some([OK]), "slot {slot}, request {kind}");
        if kind == READ {
            let data: [u8; SECTOR] = self.slots.read((at + DATA) as usize).unwrap();
            assert_eq!((stamp_of(&data), data == expected), (stamp_of(&expected), true), "read by slot {slot}");
        }
        let mut there = [0; SECTOR];
        self.file.read_exact_at(&mut there, sector * SECTOR as u64).unwrap();
        assert_eq!((stamp_of(&there), there == expected), (stamp_of(&expected), true), "in the file, sector {sector}");
    }

    /// Keeps the ring full until so many answers came.
    pub(crate) fn run(&mut self, answers: usize) {
        let mut left = answers;
        self.refill();
        while left > 0 {
            left = left.saturating_sub(self.wait());
            self.refill();
        }
    }

    /// Keeps the ring full for so long, looking again and again: a wait of the system would be longer.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.take_back();
            self.refill();
        }
    }

    /// Looks again and again until there is an answer, and leaves it there.
    pub(crate) fn run_until_the_next_answer(&mut self) {
        self.take_back();
        self.refill();
        let start = Instant::now();
        while self.queue.clone().poll().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "{} requests are lost, after {}", self.outstanding(), self.completed);
        }
    }

    /// Makes new requests and asks for a call at the next answer, unless there is one already.
    pub(crate) fn falls_asleep(&mut self) -> bool {
        self.call.drain().unwrap();
        self.take_back();
        self.refill();
        !self.queue.enable_calls().unwrap()
    }

    /// Waits for the call, and for nothing else.
    pub(crate) fn wakes_up(&mut self) {
        let called = self.call.wait(Deadline::after(PATIENCE)).unwrap();
        assert!(called.is_some(), "no call comes for {} requests, after {}", self.outstanding(), self.completed);
    }

    /// The index in a split ring's used ring.
    pub(crate) fn used_index(&self) -> u16 {
        let used = self.tables.range(ADDRESSES.device, 4, Access::ReadWrite).unwrap();
        used.load_u16(2, Load::Acquire).unwrap()
    }

    /// Waits for all answers.
    pub(crate) fn drain(&mut self) {
        while self.outstanding() > 0 {
            self.wait();
        }
    }

    /// Waits for answers, one at least.
    fn wait(&mut self) -> usize {
        loop {
            let count = self.take_back();
            if count > 0 {
                return count;
            }
            if !self.queue.enable_calls().unwrap() {
                let called = self.call.wait(Deadline::after(PATIENCE)).unwrap();
                assert!(called.is_some(), "{} requests are lost, after {}", self.outstanding(), self.completed);
            }
        }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.slots.write_from(at as usize, bytes).unwrap();
    }
}
