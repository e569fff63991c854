//! A ring with its memory and its event counters: the guest's side of a device, and what a monitor needs to start it.

use core::time::Duration;
use std::os::fd::AsFd;

use vhost_core::wire::vring::VringBase;
use vhost_core::{RingLayout, VirtioFeatures, VringAddresses};
use vhost_kernel::MemoryDevice;
use vhost_std::deadline::Deadline;
use vhost_std::driver::{Buffer, DriverRing, GuestArea, RingOptions};
use vhost_std::eventfd::EventFd;
use vhost_std::memory::{MemoryFile, MemoryTable};

/// For something that happens within milliseconds if it does at all.
pub(crate) fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(30))
}

/// Descriptors of each ring.
pub(crate) const SIZE: u16 = 16;

/// Bytes of memory for a ring, and then for its buffers.
const RING_BYTES: u64 = 0x2000;
const BUFFER_BYTES: u64 = 0x2000;
const BYTES: u64 = RING_BYTES + BUFFER_BYTES;

/// Guest memory with room for so many rings.
pub(crate) fn memory(rings: u64) -> MemoryFile {
    MemoryFile::create("guest", 0x4000_0000, rings * BYTES).unwrap()
}

/// A table of just this memory.
pub(crate) fn table(memory: &MemoryFile) -> MemoryTable {
    MemoryTable::new([memory.mapped().clone()]).unwrap()
}

/// One ring.
pub(crate) struct Ring {
    pub(crate) index: u32,
    pub(crate) driver: DriverRing,
    pub(crate) buffers: GuestArea,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
    pub(crate) error: EventFd,
}

impl Ring {
    /// The ring with this index, in the part of the memory that belongs to it.
    pub(crate) fn new(memory: &MemoryFile, index: u32) -> Self {
        let area = GuestArea::of(memory).part(u64::from(index) * BYTES, BYTES).unwrap();
        let options = RingOptions { size: SIZE, features: VirtioFeatures::VERSION_1, table_size: 0 };
        let driver = DriverRing::new(area.part(0, RING_BYTES).unwrap(), &options).unwrap();
        let buffers = area.part(RING_BYTES, BUFFER_BYTES).unwrap();
        let [kick, call, error] = core::array::from_fn(|_| EventFd::new().unwrap());
        Self { index, driver, buffers, kick, call, error }
    }

    /// Tells the device everything about the ring, with these addresses.
    pub(crate) fn set_up_at(&self, device: &impl MemoryDevice, addresses: &VringAddresses, base: VringBase) {
        device.set_vring_num(self.index, SIZE.into()).unwrap();
        device.set_vring_base(self.index, base).unwrap();
        device.set_vring_addresses(self.index, addresses).unwrap();
        device.set_vring_kick(self.index, Some(self.kick.as_fd())).unwrap();
        device.set_vring_call(self.index, Some(self.call.as_fd())).unwrap();
        device.set_vring_error(self.index, Some(self.error.as_fd())).unwrap();
    }

    /// Tells the device everything about the ring, by user addresses.
    pub(crate) fn set_up(&self, device: &impl MemoryDevice) {
        self.set_up_at(device, &self.driver.user_addresses(), VringBase::Split { available: 0 });
    }

    /// A buffer of guest memory, by its offset among the ring's buffers.
    pub(crate) fn buffer(&self, offset: u64, length: u32) -> Buffer {
        Buffer { address: self.buffers.guest_address(offset), length }
    }

    /// Gives the device a chain and kicks it.
    pub(crate) fn give(&mut self, readable: &[Buffer], writable: &[Buffer]) {
        self.driver.add(readable, writable, 0).unwrap();
        // A device that polls would not mind.
        let _ = self.driver.publish().unwrap();
        self.kick.signal().unwrap();
    }

    /// Waits until the device is done with a chain; the bytes that it wrote.
    pub(crate) fn take(&mut self) -> u32 {
        loop {
            if let Some(used) = self.driver.poll_used().unwrap() {
                return used.written;
            }
            assert!(self.call.wait(soon()).unwrap().is_some(), "ring {} is not served", self.index);
        }
    }

    /// The bytes of a buffer.
    pub(crate) fn read(&self, offset: u64, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.buffers.read(offset, &mut bytes).unwrap();
        bytes
    }

    /// Where the device goes on in the ring.
    pub(crate) fn base(&self, device: &impl MemoryDevice) -> VringBase {
        device.vring_base(self.index, RingLayout::Split).unwrap()
    }
}
