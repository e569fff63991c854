//! The driver's side of a split ring for tests, written to guest memory byte by byte.

use core::sync::atomic::Ordering;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use vhost_core::VirtioFeatures;
use vm_memory::{Bytes, GuestAddress};

use super::{RingAddresses, RingFault, Turn, Vring};
use crate::device::{Device, Queue};
use crate::memory::{MemoryFile, MemoryTable};

/// Both sides say at which index they want to be notified.
pub(crate) const EVENT_IDX: VirtioFeatures = VirtioFeatures::RING_EVENT_IDX;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// Guest memory is two adjacent regions; behind them is nothing.
pub(crate) const BORDER: u64 = 0x40000;
pub(crate) const END: u64 = 0x80000;

const DESCRIPTORS: u64 = 0x1000;
pub(crate) const AVAILABLE: u64 = 0x8000;
pub(crate) const USED: u64 = 0x9000;

pub(crate) const ADDRESSES: RingAddresses = RingAddresses {
    descriptor: vhost_core::GuestAddress(DESCRIPTORS),
    driver: vhost_core::GuestAddress(AVAILABLE),
    device: vhost_core::GuestAddress(USED),
};

/// Free for buffers.
pub(crate) const BUFFERS: u64 = 0x10000;

pub(crate) struct TestRing {
    pub(crate) memory: MemoryTable,
    pub(crate) size: u16,
}

impl TestRing {
    pub(crate) fn new(size: u16) -> Self {
        Self { memory: memory(&[(0, BORDER), (BORDER, END - BORDER)]), size }
    }

    /// The device's side, with everything but notifications.
    pub(crate) fn configured(&self) -> Vring {
        self.configured_as(0)
    }

    fn configured_as(&self, queue: u16) -> Vring {
        let mut vring = Vring::new(queue);
        vring.set_size(self.size.into()).unwrap();
        vring.set_features(VirtioFeatures::RING_INDIRECT).unwrap();
        vring.set_memory(self.memory.clone(), Some(ADDRESSES)).unwrap();
        vring
    }

    /// The device's side, started and enabled.
    pub(crate) fn running(&self) -> Vring {
        self.running_as(0)
    }

    /// The same as another queue of its device.
    pub(crate) fn running_as(&self, queue: u16) -> Vring {
        let mut vring = self.configured_as(queue);
        vring.start().unwrap();
        vring.enable();
        vring
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.guest_memory().write_slice(bytes, GuestAddress(address)).unwrap();
    }

    pub(crate) fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.guest_memory().read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn read_u16(&self, address: u64) -> u16 {
        u16::from_le(self.memory.guest_memory().load(GuestAddress(address), Ordering::SeqCst).unwrap())
    }

    fn write_u16(&self, address: u64, value: u16) {
        self.memory.guest_memory().store(value.to_le(), GuestAddress(address), Ordering::SeqCst).unwrap();
    }

    /// Writes descriptor `index` of the table at `table`.
    pub(crate) fn descriptor_at(&self, table: u64, index: u16, (address, length): (u64, u32), flags: u16, next: u16) {
        let at = table + 16 * u64::from(index);
        self.write(at, &address.to_le_bytes());
        self.write(at + 8, &length.to_le_bytes());
        self.write(at + 12, &flags.to_le_bytes());
        self.write(at + 14, &next.to_le_bytes());
    }

    pub(crate) fn descriptor(&self, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        self.descriptor_at(DESCRIPTORS, index, buffer, flags, next);
    }

    /// A chain of neighbouring descriptors from `head` on.
    pub(crate) fn chain(&self, head: u16, readable: &[(u64, u32)], writable: &[(u64, u32)]) {
        let buffers = readable.iter().map(|buffer| (buffer, 0)).chain(writable.iter().map(|buffer| (buffer, WRITE)));
        let last = head + (readable.len() + writable.len()) as u16 - 1;
        for (index, (buffer, flags)) in (head..).zip(buffers) {
            let next = if index == last { 0 } else { NEXT };
            self.descriptor(index, *buffer, flags | next, index + 1);
        }
    }

    /// Makes the chain at `head` available.
    pub(crate) fn offer(&self, head: u16) {
        let index = self.available_index();
        self.write_u16(AVAILABLE + 4 + 2 * u64::from(index % self.size), head);
        self.set_available_index(index.wrapping_add(1));
    }

    pub(crate) fn available_index(&self) -> u16 {
        self.read_u16(AVAILABLE + 2)
    }

    pub(crate) fn set_available_index(&self, index: u16) {
        self.write_u16(AVAILABLE + 2, index);
    }

    /// `flags` of the available ring: 1 asks for no signals.
    pub(crate) fn set_available_flags(&self, flags: u16) {
        self.write_u16(AVAILABLE, flags);
    }

    /// Asks for a signal when the used index passes `index`.
    pub(crate) fn set_used_event(&self, index: u16) {
        self.write_u16(AVAILABLE + 4 + 2 * u64::from(self.size), index);
    }

    /// Where the device wants the next kick.
    pub(crate) fn available_event(&self) -> u16 {
        self.read_u16(USED + 4 + 8 * u64::from(self.size))
    }

    /// `flags` of the used ring: 1 asks for no kicks.
    pub(crate) fn used_flags(&self) -> u16 {
        self.read_u16(USED)
    }

    pub(crate) fn used_index(&self) -> u16 {
        self.read_u16(USED + 2)
    }

    pub(crate) fn set_used_index(&self, index: u16) {
        self.write_u16(USED + 2, index);
    }

    /// Entry of the used ring where the chain that came `index`-th is: head and length.
    pub(crate) fn used(&self, index: u16) -> (u32, u32) {
        let entry = self.read(USED + 4 + 8 * u64::from(index % self.size), 8);
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
        (word(0), word(4))
    }

    /// All that came back since index 0.
    pub(crate) fn all_used(&self) -> Vec<(u32, u32)> {
        (0..self.used_index()).map(|index| self.used(index)).collect()
    }
}

/// Guest memory of these regions, each an address and a size.
pub(crate) fn memory(regions: &[(u64, u64)]) -> MemoryTable {
    let files = regions.iter().map(|(address, size)| MemoryFile::create("guest", *address, *size).unwrap());
    MemoryTable::new(files.map(|file| Arc::clone(file.mapped()))).unwrap()
}

/// A device that is one function.
pub(crate) struct Serving<F>(pub(crate) F);

impl<F: Fn(&mut Queue<'_>) + Send + Sync + 'static> Device for Serving<F> {
    fn device_id(&self) -> u32 {
        42
    }
    fn queues(&self) -> u16 {
        2
    }
    fn process(&self, queue: &mut Queue<'_>) {
        (self.0)(queue);
    }
}

/// A ring whose descriptors are each a chain of one writable byte or more.
pub(crate) fn ring_of_chains(size: u16) -> TestRing {
    let ring = TestRing::new(size);
    for head in 0..size {
        ring.descriptor(head, (BUFFERS, u32::from(head) + 1), WRITE, 0);
    }
    ring
}

/// Completes every chain with 1 byte.
pub(crate) fn one_byte(queue: &mut Queue<'_>) {
    while let Some(chain) = queue.next() {
        queue.complete(chain, 1);
    }
}

/// One turn with a device that completes every chain with 1 byte.
pub(crate) fn process(vring: &mut Vring) -> Result<Turn, RingFault> {
    vring.process(&Serving(one_byte))
}

pub(crate) fn new_eventfd() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// The signals since the last question.
pub(crate) fn signals(fd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(fd, &mut count) {
        Ok(8) => u64::from_ne_bytes(count),
        other => {
            assert_eq!(other, Err(rustix::io::Errno::AGAIN));
            0
        }
    }
}

pub(crate) fn kick(fd: &OwnedFd) {
    assert_eq!(rustix::io::write(fd, &1_u64.to_ne_bytes()), Ok(8));
}
