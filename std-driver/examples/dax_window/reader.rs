//! The driver in the guest, and the VMM's part in starting its queue.

use core::time::Duration;
use std::os::fd::AsFd;

use vhost_core::VirtioFeatures;
use vhost_std::{
    deadline::Deadline,
    driver::{Buffer, DriverRing, GuestArea, Kick, RingOptions},
    eventfd::EventFd,
    frontend::{DeviceSetup, Frontend, RingSetup},
    memory::MemoryFile,
};

use crate::{Result, library::Request};

/// Where request and status lie, behind the ring.
const REQUEST: u64 = 0x2000;
const STATUS: u64 = 0x3000;

pub(crate) struct Reader {
    area: GuestArea,
    ring: DriverRing,
    kick: EventFd,
    call: EventFd,
}

impl Reader {
    /// Brings the device up with one queue in memory of its own.
    pub(crate) fn start(frontend: &mut Frontend) -> Result<Self> {
        let memory = MemoryFile::create("guest", 0, 0x4000)?;
        let area = GuestArea::of(&memory);
        let options = RingOptions { size: 8, features: VirtioFeatures::VERSION_1, table_size: 0 };
        let ring = DriverRing::new(area.part(0, REQUEST)?, &options)?;
        let (kick, call) = (EventFd::new()?, EventFd::new()?);
        let queue = RingSetup {
            ring: 0,
            size: ring.size(),
            base: ring.base(),
            addresses: ring.user_addresses(),
            kick: Some(kick.as_fd()),
            call: Some(call.as_fd()),
            error: None,
        };
        let memory = [(*memory.region(), memory.as_fd())];
        frontend.bring_up(&DeviceSetup { memory: &memory, rings: &[queue], inflight: None })?;
        Ok(Self { area, ring, kick, call })
    }

    /// Asks the device and waits for its answer; whether it has done it.
    pub(crate) fn ask(&mut self, request: Request) -> Result<bool> {
        let bytes = request.to_bytes();
        self.area.write(REQUEST, &bytes)?;
        let length = u32::try_from(bytes.len())?;
        let readable = Buffer { address: self.area.guest_address(REQUEST), length };
        let writable = Buffer { address: self.area.guest_address(STATUS), length: 1 };
        self.ring.add(&[readable], &[writable], 0)?;
        if self.ring.publish()? == Kick::Needed {
            self.kick.signal()?;
        }
        while self.ring.poll_used()?.is_none() {
            self.call.wait(Deadline::after(Duration::from_secs(20)))?.ok_or("the device does not answer")?;
        }
        let mut status = [0xff];
        self.area.read(STATUS, &mut status)?;
        Ok(status == [0])
    }
}
