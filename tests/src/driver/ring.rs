//! A split ring as its driver sees it.

use super::GuestMemory;
use crate::dialog::{PATIENCE, event};
use crate::wire::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Descriptor flag: another one follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: the device writes to the buffer.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// Bytes of guest memory that each ring has for its three parts and its buffers.
pub const BLOCK: u64 = 0x1_0000;

/// One ring: its place in guest memory, its event counters, and how far the driver is.
#[derive(Debug)]
pub struct Ring {
    /// Which ring of the device it is.
    pub index: u32,
    /// Number of descriptors.
    pub size: u16,
    /// Where it lies.
    pub memory: Arc<GuestMemory>,
    /// Guest address of the descriptor table.
    pub descriptors: u64,
    /// Guest address of the available ring.
    pub available: u64,
    /// Guest address of the used ring.
    pub used: u64,
    /// Guest address of 32 KiB for buffers.
    pub buffers: u64,
    /// What the driver kicks.
    pub kick: OwnedFd,
    /// What the device signals.
    pub call: OwnedFd,
    /// What the device signals when the ring is broken.
    pub error: OwnedFd,
    base: u16,
    next_available: u16,
    next_used: u16,
}

impl Ring {
    /// A ring without requests, in the block of memory that belongs to its index; 256 descriptors at most.
    pub fn new(memory: &Arc<GuestMemory>, index: u32, size: u16) -> Self {
        Self::starting_at(memory, index, size, 0)
    }

    /// The same, with indices that have run to `base` already.
    pub fn starting_at(memory: &Arc<GuestMemory>, index: u32, size: u16, base: u16) -> Self {
        let block = memory.region().guest + BLOCK * u64::from(index);
        let mut ring = Self {
            index,
            size,
            memory: Arc::clone(memory),
            descriptors: block,
            available: block + 0x1000,
            used: block + 0x2000,
            buffers: block + 0x8000,
            kick: event(),
            call: event(),
            error: event(),
            base,
            next_available: base,
            next_used: base,
        };
        ring.restart_at(base);
        ring
    }

    /// The driver begins anew at this index; what was under way is forgotten.
    pub fn restart_at(&mut self, base: u16) {
        (self.base, self.next_available, self.next_used) = (base, base, base);
        self.memory.write_u16(self.available, 0);
        self.set_available_index(base);
        self.memory.write_u16(self.used, 0);
        self.memory.write_u16(self.used + 2, base);
    }

    /// The payload of `SET_VRING_NUM`.
    pub fn num_payload(&self) -> Vec<u8> {
        Bytes::new().u32(self.index).u32(self.size.into()).done()
    }

    /// The payload of `SET_VRING_BASE`.
    pub fn base_payload(&self) -> Vec<u8> {
        Bytes::new().u32(self.index).u32(self.base.into()).done()
    }

    /// The payload of `SET_VRING_ADDR`, with user addresses.
    pub fn address_payload(&self) -> Vec<u8> {
        let [descriptors, used, available] =
            [self.descriptors, self.used, self.available].map(|at| self.memory.user(at));
        Bytes::new().u32(self.index).u32(0).u64(descriptors).u64(used).u64(available).u64(0).done()
    }

    /// The payload of `SET_VRING_KICK`, `SET_VRING_CALL` and `SET_VRING_ERR` with a descriptor.
    pub fn event_payload(&self) -> Vec<u8> {
        Bytes::new().u64(self.index.into()).done()
    }

    /// The same without a descriptor.
    pub fn no_event_payload(&self) -> Vec<u8> {
        Bytes::new().u64(u64::from(self.index) | 0x100).done()
    }

    /// The payload of `SET_VRING_ENABLE`, and of `GET_VRING_BASE` with 0.
    pub fn state_payload(&self, number: u32) -> Vec<u8> {
        Bytes::new().u32(self.index).u32(number).done()
    }

    /// Writes a descriptor of the ring's own table.
    pub fn descriptor(&self, number: u16, buffer: (u64, u32), flags: u16, next: u16) {
        self.descriptor_at(self.descriptors, number, buffer, flags, next);
    }

    /// Writes a descriptor of a table elsewhere.
    pub fn descriptor_at(&self, table: u64, number: u16, (address, length): (u64, u32), flags: u16, next: u16) {
        let mut bytes = [address.to_le_bytes(), [0; 8]].concat();
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..16].copy_from_slice(&next.to_le_bytes());
        self.memory.write(table + 16 * u64::from(number), &bytes);
    }

    /// Makes the chain that begins with this descriptor available.
    pub fn offer(&mut self, head: u16) {
        self.memory.write_u16(self.available + 4 + 2 * u64::from(self.next_available % self.size), head);
        self.next_available = self.next_available.wrapping_add(1);
        self.set_available_index(self.next_available);
    }

    /// Writes the available index, whatever it is.
    pub fn set_available_index(&self, index: u16) {
        self.memory.write_u16(self.available + 2, index);
    }

    /// How many chains the driver has made available, counted from `base` on and without bounds.
    pub fn available_index(&self) -> u16 {
        self.next_available
    }

    /// Asks for signals only when the used index passes this one.
    pub fn set_used_event(&self, index: u16) {
        self.memory.write_u16(self.available + 4 + 2 * u64::from(self.size), index);
    }

    /// At which available index the device wants the next kick.
    pub fn available_event(&self) -> u16 {
        self.memory.read_u16(self.used + 4 + 8 * u64::from(self.size))
    }

    /// The device's index in the used ring.
    pub fn used_index(&self) -> u16 {
        self.memory.read_u16(self.used + 2)
    }

    /// The next chain that came back: its first descriptor and how many bytes were written.
    pub fn take_used(&mut self) -> Option<(u32, u32)> {
        if self.used_index() == self.next_used {
            return None;
        }
        let entry = self.memory.read(self.used + 4 + 8 * u64::from(self.next_used % self.size), 8);
        let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap());
        self.next_used = self.next_used.wrapping_add(1);
        Some((word(0), word(4)))
    }

    /// Waits for the next chain to come back, and for the signal that says so. Fails when it takes too long.
    #[track_caller]
    pub fn wait_used(&mut self) -> (u32, u32) {
        loop {
            if let Some(used) = self.take_used() {
                return used;
            }
            wait_readable(&self.call);
            signals(&self.call);
        }
    }

    /// Kicks the device.
    pub fn kick(&self) {
        signal(&self.kick);
    }
}

/// Adds one to an event counter.
#[track_caller]
pub fn signal(counter: impl AsFd) {
    assert_eq!(rustix::io::write(counter, &1_u64.to_ne_bytes()), Ok(8));
}

/// What an event counter has counted since the last look.
#[track_caller]
pub fn signals(counter: impl AsFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(counter, &mut count) {
        Ok(8) => u64::from_ne_bytes(count),
        other => {
            assert_eq!(other, Err(rustix::io::Errno::AGAIN), "reading an event counter");
            0
        }
    }
}

/// Waits until a descriptor is readable. Fails when it takes too long.
#[track_caller]
pub fn wait_readable(descriptor: impl AsFd) {
    let limit = Timespec::try_from(PATIENCE).unwrap();
    let mut polled = [PollFd::new(&descriptor, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&limit))).unwrap();
    assert_eq!(ready, 1, "nobody has signalled the descriptor");
}
