//! The driver's side: a ring and requests in the half of the machine's RAM that is shared.

use std::fs::File;
use std::os::fd::AsFd;

use vhost_core::{
    Access, Buffer, DriverQueue, GuestAddress, GuestMemory, GuestRange, Logging, MemoryRegion, RingAddress,
    RingAddresses, RingLayout, RingParts, RingUser, UserAddress, VirtioFeatures, VringAddresses,
    wire::vring::VringBase,
};
use vhost_std::frontend::{BackendChannel, BackendRequestHandlerMut, ChannelState, Frontend, Refusal, RingSetup};
use vhost_std::memory::{MappedRegion, MemoryTable, OwnedRange};
use vhost_tests::driver::wait_readable;

use crate::board::RAM_SIZE;

const GUEST: u64 = 0x4000_0000;
const USER: u64 = 0x7f00_0000_0000;
const SIZE: u16 = 16;
/// Where requests are, and the room that each has.
const REQUESTS: u64 = 0x10_0000;
const ROOM: u64 = 0x1000;
/// Requests that are under way together, in each of so many batches.
const TOGETHER: u16 = 4;
const BATCHES: u16 = 9;

/// A driver and its memory.
pub(crate) struct Guest {
    layout: RingLayout,
    pub(crate) file: File,
    pub(crate) region: MemoryRegion,
    memory: MemoryTable,
    ring: DriverQueue<OwnedRange, { SIZE as usize }>,
    /// Slots that were used.
    slots: u32,
    chains: u32,
    /// How often the device has told of used buffers.
    pub(crate) calls: u32,
}

struct Calls(u32);

impl BackendRequestHandlerMut for Calls {
    fn vring_call(&mut self, ring: u8) -> Result<(), Refusal> {
        assert_eq!(ring, 0);
        self.0 += 1;
        Ok(())
    }
}

impl Guest {
    pub(crate) fn new(ram: &File, layout: RingLayout) -> Self {
        let half = RAM_SIZE / 2;
        let region = MemoryRegion::new(GuestAddress(GUEST), half, UserAddress(USER), half);
        let file = ram.try_clone().unwrap();
        let memory = MemoryTable::new([MappedRegion::new(region, file.try_clone().unwrap().into()).unwrap()]).unwrap();
        let [descriptor, driver, device] = PARTS.map(|offset| GuestAddress(GUEST + offset));
        let addresses = RingAddresses { descriptor, driver, device };
        let parts = RingParts::translate(&memory, addresses, layout, SIZE.into(), RingUser::Driver).unwrap();
        let ring = DriverQueue::new(parts, SIZE.into(), features(layout)).unwrap();
        Self { layout, file, region, memory, ring, slots: 0, chains: 0, calls: 0 }
    }

    pub(crate) fn features(&self) -> VirtioFeatures {
        features(self.layout)
    }

    pub(crate) fn ring_setup(&self, base: VringBase) -> RingSetup<'static> {
        let [descriptor, available, used] = PARTS.map(|offset| RingAddress(USER + offset));
        let addresses = VringAddresses { descriptor, available, used, log: GuestAddress(0), logging: Logging::Off };
        RingSetup { ring: 0, size: SIZE, base, addresses, kick: None, call: None, error: None }
    }

    pub(crate) fn first_base(&self) -> VringBase {
        match self.layout {
            RingLayout::Split => VringBase::split(0),
            RingLayout::Packed => VringBase::packed(0x8000_8000),
        }
    }

    /// Where the device must stand when everything came back.
    pub(crate) fn expected_base(&self) -> VringBase {
        match self.layout {
            RingLayout::Split => VringBase::split(self.chains),
            RingLayout::Packed => {
                let (lap, index) = (self.slots / u32::from(SIZE), self.slots % u32::from(SIZE));
                let place = index | if lap.is_multiple_of(2) { 0x8000 } else { 0 };
                VringBase::packed(place | place << 16)
            }
        }
    }

    /// Sends requests, and checks what comes back.
    pub(crate) fn exchange(&mut self, frontend: &mut Frontend, channel: &mut BackendChannel, round: u8) {
        for batch in 0..BATCHES {
            // Before there is anything, so that the device has to tell of what it uses first.
            assert_eq!(self.ring.enable_calls(), Ok(false));
            for request in 0..TOGETHER {
                self.ask(request, round ^ u8::try_from(batch).unwrap());
            }
            self.ring.publish().unwrap();
            if self.ring.needs_kick().unwrap() {
                frontend.vring_kick(0).unwrap();
            }
            self.hear(channel);
            let mut left = TOGETHER;
            while left > 0 {
                if let Some(used) = self.ring.poll().unwrap() {
                    assert_eq!(used.written, 300);
                    left -= 1;
                } else if !self.ring.enable_calls().unwrap() {
                    self.hear(channel);
                }
            }
            (0..TOGETHER).for_each(|request| self.check(request, round ^ u8::try_from(batch).unwrap()));
        }
    }

    /// Waits for the device to tell of used buffers.
    fn hear(&mut self, channel: &mut BackendChannel) {
        let mut calls = Calls(0);
        wait_readable(channel.as_fd());
        assert_eq!(channel.process(&mut calls), Ok(ChannelState::Open));
        self.calls += calls.0;
    }

    /// Two pieces to read of 100 and 200 bytes, two to write of 50 and 250.
    fn ask(&mut self, request: u16, seed: u8) {
        let place = GUEST + REQUESTS + ROOM * u64::from(request);
        let piece = self.memory.range(GuestAddress(place), ROOM, Access::ReadWrite).unwrap();
        piece.write_from(0, &[0x33; 0x1000]).unwrap();
        piece.write_from(0, &question(request, seed)[..100]).unwrap();
        piece.write_from(0x101, &question(request, seed)[100..]).unwrap();
        let buffer = |offset, length| Buffer { address: GuestAddress(place + offset), length };
        self.ring.add(&[buffer(0, 100), buffer(0x101, 200)], &[buffer(0x400, 50), buffer(0x801, 250)]).unwrap();
        self.slots += 4;
        self.chains += 1;
    }

    fn check(&self, request: u16, seed: u8) {
        let place = GUEST + REQUESTS + ROOM * u64::from(request);
        let piece = self.memory.range(GuestAddress(place), ROOM, Access::ReadWrite).unwrap();
        let mut bytes = [0; 0x1000];
        piece.read_into(0, &mut bytes).unwrap();
        let answer = [&bytes[0x400..0x400 + 50], &bytes[0x801..0x801 + 250]].concat();
        assert_eq!(answer, question(request, seed).map(|byte| !byte));
        assert_eq!(bytes[0x400 + 50], 0x33, "a byte behind the buffer was written");
        assert_eq!(bytes[0x801 + 250], 0x33, "a byte behind the buffer was written");
    }
}

/// Offsets of the ring's parts.
const PARTS: [u64; 3] = [0, 0x1000, 0x2000];

fn features(layout: RingLayout) -> VirtioFeatures {
    let features = VirtioFeatures::VERSION_1 | VirtioFeatures::RING_EVENT_IDX | VirtioFeatures::RING_INDIRECT;
    match layout {
        RingLayout::Split => features,
        RingLayout::Packed => features | VirtioFeatures::RING_PACKED,
    }
}

fn question(request: u16, seed: u8) -> [u8; 300] {
    let start = usize::from(request) * 7 + usize::from(seed) * 31;
    core::array::from_fn(|position| u8::try_from((start + position) % 251).unwrap())
}
