//! A machine made by hand: memory and rings, and our front-end between them and a device.

use core::time::Duration;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_core::{VhostBackend, VirtioFeatures, VringSetup};
use vhost_std::deadline::Deadline;
use vhost_std::driver::{Buffer, DriverRing, GuestArea, Kick, RingOptions};
use vhost_std::eventfd::EventFd;
use vhost_std::frontend::Frontend;
use vhost_std::memory::MemoryFile;

/// Only a test that fails ever waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// For a whole guest, under software emulation on a machine that is busy with other things too. Only a hang reaches it.
pub(crate) const GUEST_LIMIT: Duration = Duration::from_secs(240);

/// Descriptors of each ring.
const SIZE: u16 = 32;
/// Bytes of memory for each queue, and where its slots begin.
const QUEUE: u64 = 0x8_0000;
const SLOTS: u64 = 0x1_0000;
/// Bytes of a slot.
const SLOT: u64 = 0x2000;

/// A device's driver.
pub(crate) struct Machine {
    pub(crate) frontend: Frontend,
    pub(crate) queues: Vec<Queue>,
    _memory: MemoryFile,
}

/// One queue of the device.
pub(crate) struct Queue {
    ring: DriverRing,
    kick: EventFd,
    call: EventFd,
    slots: GuestArea,
}

impl Machine {
    /// Connects to the device and starts so many queues, with these features if they are offered.
    pub(crate) fn connect(socket: &Path, queues: u16, features: VirtioFeatures) -> Self {
        let mut frontend = Frontend::connect(socket, Deadline::after(PATIENCE)).unwrap();
        frontend.set_timeout(Some(PATIENCE));
        VhostBackend::set_owner(&mut frontend).unwrap();
        let offered = frontend.features().unwrap();
        let features = offered & (features | VirtioFeatures::VERSION_1);
        frontend.acknowledge(features).unwrap();
        let memory = MemoryFile::create("machine", 0x1_0000_0000, QUEUE * u64::from(queues)).unwrap();
        frontend.set_memory(&[(*memory.region(), &memory)]).unwrap();
        let area = GuestArea::of(&memory);
        let queue = |index: u16| {
            let area = area.part(QUEUE * u64::from(index), QUEUE).unwrap();
            let queue = Queue::new(&area, features);
            let (size, base, addresses) = (SIZE, queue.ring.base(), queue.ring.user_addresses());
            let setup = VringSetup::<dyn AsFd> {
                size,
                base,
                addresses,
                kick: Some(&queue.kick),
                call: Some(&queue.call),
                error: None,
            };
            frontend.start_vring(index, &setup).unwrap();
            queue
        };
        let queues = (0..queues).map(queue).collect();
        Self { frontend, queues, _memory: memory }
    }
}

impl Queue {
    fn new(area: &GuestArea, features: VirtioFeatures) -> Self {
        let options = RingOptions { size: SIZE, features, table_size: 0 };
        let ring = DriverRing::new(area.part(0, SLOTS).unwrap(), &options).unwrap();
        let slots = area.part(SLOTS, QUEUE - SLOTS).unwrap();
        Self { ring, kick: EventFd::new().unwrap(), call: EventFd::new().unwrap(), slots }
    }

    /// Gives the device a slot to write to, of so many bytes.
    pub(crate) fn offer(&mut self, slot: u16, length: u32) {
        let buffer = self.buffer(slot, length);
        self.ring.add(&[], &[buffer], slot.into()).unwrap();
        self.publish();
    }

    /// Gives the device bytes to read, in a slot.
    pub(crate) fn send(&mut self, slot: u16, bytes: &[u8]) {
        self.slots.write(SLOT * u64::from(slot), bytes).unwrap();
        let buffer = self.buffer(slot, u32::try_from(bytes.len()).unwrap());
        self.ring.add(&[buffer], &[], slot.into()).unwrap();
        self.publish();
    }

    /// Waits for the next slot that comes back, and the bytes that the device wrote to it.
    pub(crate) fn wait(&mut self) -> (u16, Vec<u8>) {
        let start = Instant::now();
        loop {
            if let Some(used) = self.ring.poll_used().unwrap() {
                let slot = u16::try_from(used.token).unwrap();
                let mut bytes = vec![0; used.written as usize];
                self.slots.read(SLOT * u64::from(slot), &mut bytes).unwrap();
                return (slot, bytes);
            }
            if !self.ring.request_call().unwrap() {
                let rest = Timespec::try_from(PATIENCE.saturating_sub(start.elapsed())).unwrap();
                let mut polled = [PollFd::new(&self.call, PollFlags::IN)];
                let ready = rustix::io::retry_on_intr(|| poll(&mut polled, Some(&rest))).unwrap();
                assert_eq!(ready, 1, "nothing comes back");
                self.call.drain().unwrap();
            }
        }
    }

    /// Whether a slot has come back that nobody waited for.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.ring.poll_used().unwrap().is_none()
    }

    fn buffer(&self, slot: u16, length: u32) -> Buffer {
        assert!(u64::from(length) <= SLOT);
        Buffer { address: self.slots.guest_address(SLOT * u64::from(slot)), length }
    }

    fn publish(&mut self) {
        if self.ring.publish().unwrap() == Kick::Needed {
            self.kick.signal().unwrap();
        }
    }
}
