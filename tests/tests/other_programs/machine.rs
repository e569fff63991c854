//! The guest's side of somebody's back-end: our front-end, shared memory, and our driver's rings in it.

use core::time::Duration;
use std::os::fd::AsFd;
use std::path::Path;

use vhost_core::{Negotiated, ProtocolFeatures, VirtioFeatures};
use vhost_std::deadline::Deadline;
use vhost_std::driver::{Buffer, DriverRing, GuestArea, Kick, RingOptions, Used};
use vhost_std::eventfd::EventFd;
use vhost_std::frontend::{DeviceSetup, Frontend, RingSetup};
use vhost_std::memory::MemoryFile;

/// Only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Descriptors of each ring: few, so that its indices come around.
pub(crate) const SIZE: u16 = 16;
/// Bytes of memory for each queue, and where the slots of buffers begin.
const QUEUE: u64 = 0x20_0000;
const SLOTS: u64 = 0x1_0000;
/// Bytes of a slot.
pub(crate) const SLOT: u64 = 0x1_0000;

/// A device's driver.
pub(crate) struct Machine {
    pub(crate) frontend: Frontend,
    pub(crate) agreed: Negotiated,
    pub(crate) queues: Vec<Queue>,
    memory: MemoryFile,
}

/// One queue of the device.
pub(crate) struct Queue {
    index: u8,
    ring: DriverRing,
    kick: EventFd,
    call: EventFd,
    slots: GuestArea,
}

impl Machine {
    /// Connects to a device and starts so many queues, with those of the features that it offers.
    pub(crate) fn connect(socket: &Path, queues: u8, features: VirtioFeatures, protocol: ProtocolFeatures) -> Self {
        let mut frontend = Frontend::connect(socket, Deadline::after(PATIENCE)).unwrap();
        frontend.set_timeout(Some(PATIENCE));
        let agreed = frontend.negotiate(features | VirtioFeatures::VERSION_1, protocol).unwrap();
        // Not where it is in this process, so that a device which mixes the two up is noticed.
        let memory = MemoryFile::create("machine", 0x1_0000_0000, QUEUE * u64::from(queues)).unwrap();
        let area = GuestArea::of(&memory);
        let queues = Vec::from_iter((0..queues).map(|index| Queue::new(index, &area, agreed.acknowledged)));
        let mut machine = Self { frontend, agreed, queues, memory };
        machine.start();
        machine
    }

    /// Starts the rings where they are.
    pub(crate) fn start(&mut self) {
        let rings = Vec::from_iter(self.queues.iter().map(Queue::setup));
        let memory = [(*self.memory.region(), self.memory.as_fd())];
        self.frontend.bring_up(&DeviceSetup { memory: &memory, rings: &rings, inflight: None }).unwrap();
    }

    /// Stops the rings; each must stand where the driver takes it to be.
    pub(crate) fn stop(&mut self) {
        let stopped = self.frontend.tear_down().unwrap();
        assert_eq!(stopped.len(), self.queues.len());
        for (stopped, queue) in stopped.iter().zip(&self.queues) {
            assert_eq!((stopped.ring, stopped.base), (queue.index, queue.ring.base()));
        }
    }

    /// Takes back what the device has, which must not run: the rings are new.
    pub(crate) fn forget(&mut self) {
        for queue in &mut self.queues {
            queue.ring.reset().unwrap();
        }
    }
}

impl Queue {
    fn new(index: u8, area: &GuestArea, features: VirtioFeatures) -> Self {
        let area = area.part(QUEUE * u64::from(index), QUEUE).unwrap();
        let options = RingOptions { size: SIZE, features, table_size: 4 };
        let ring = DriverRing::new(area.part(0, SLOTS).unwrap(), &options).unwrap();
        let slots = area.part(SLOTS, QUEUE - SLOTS).unwrap();
        Self { index, ring, kick: EventFd::new().unwrap(), call: EventFd::new().unwrap(), slots }
    }

    fn setup(&self) -> RingSetup<'_> {
        RingSetup {
            ring: self.index,
            size: SIZE,
            base: self.ring.base(),
            addresses: self.ring.user_addresses(),
            kick: Some(self.kick.as_fd()),
            call: Some(self.call.as_fd()),
            error: None,
        }
    }

    /// A slot, of which the device may read some bytes and write others behind them.
    pub(crate) fn add(&mut self, slot: u16, readable: &[u8], writable: u32) {
        let at = SLOT * u64::from(slot);
        assert!(readable.len() as u64 + u64::from(writable) <= SLOT, "it does not fit into a slot");
        self.slots.write(at, readable).unwrap();
        let buffer = |offset: u64, length: u32| {
            (length > 0).then(|| Buffer { address: self.slots.guest_address(at + offset), length })
        };
        let length = u32::try_from(readable.len()).unwrap();
        // In two pieces each, so that there are chains.
        let half = |offset: u64, length: u32| {
            [buffer(offset, length / 2), buffer(offset + u64::from(length / 2), length - length / 2)]
        };
        let pieces = |halves: [Option<Buffer>; 2]| Vec::from_iter(halves.into_iter().flatten());
        let (read, written) = (pieces(half(0, length)), pieces(half(u64::from(length), writable)));
        self.ring.add(&read, &written, slot.into()).unwrap();
    }

    /// Lets the device see what was added.
    pub(crate) fn publish(&mut self) {
        if self.ring.publish().unwrap() == Kick::Needed {
            self.kick.signal().unwrap();
        }
    }

    /// Waits for the next slot that comes back.
    pub(crate) fn wait(&mut self) -> Used {
        let deadline = Deadline::after(PATIENCE);
        loop {
            if let Some(used) = self.ring.poll_used().unwrap() {
                return used;
            }
            if !self.ring.request_call().unwrap() {
                assert!(self.call.wait(deadline).unwrap().is_some(), "nothing comes back");
            }
        }
    }

    /// Bytes of a slot.
    pub(crate) fn read(&self, slot: u16, offset: usize, length: u32) -> Vec<u8> {
        let mut bytes = vec![0; length as usize];
        self.slots.read(SLOT * u64::from(slot) + offset as u64, &mut bytes).unwrap();
        bytes
    }

    /// Has the device answer one message: what it wrote.
    pub(crate) fn ask(&mut self, message: &[u8], room: u32) -> Vec<u8> {
        self.add(0, message, room);
        self.publish();
        let used = self.wait();
        assert_eq!(used.token, 0);
        self.read(0, message.len(), used.written)
    }
}
