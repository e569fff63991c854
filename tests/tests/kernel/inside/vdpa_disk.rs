//! A client of a disk behind vhost-vdpa, with a split or a packed ring.

use std::os::fd::AsFd;

use vhost_core::uapi::bits::DeviceStatus;
use vhost_core::uapi::iotlb::Access;
use vhost_core::wire::vring::VringBase;
use vhost_core::{
    Buffer, DriverQueue, GuestAddress, Iova, RingAddresses, RingLayout, RingParts, RingUser, VirtioFeatures,
};
use vhost_kernel::VhostDevice;
use vhost_kernel::vdpa::{Mapping, Vdpa, VringSwitch};
use vhost_std::driver::GuestArea;
use vhost_std::eventfd::EventFd;
use vhost_std::memory::{MemoryFile, OwnedRange};

use super::ring::{soon, table};

/// Where the memory is for the device.
pub(crate) const IOVA: u64 = 0x20_0000_0000;

pub(crate) const SECTOR: usize = 512;

/// Descriptors of the ring.
const SIZE: u16 = 16;

/// `VIRTIO_BLK_F_FLUSH`
const FLUSH: VirtioFeatures = VirtioFeatures::from_bits_retain(1 << 9);

/// Where the ring's parts are in the memory.
const PARTS: [u64; 3] = [0, 0x400, 0x800];

/// Where the parts of a request are.
const HEADER: u64 = 0x1000;
const STATUS: u64 = 0x1100;
const DATA: u64 = 0x1200;

/// Memory for one ring, whose guest addresses are the ones that the device uses.
pub(crate) fn memory() -> MemoryFile {
    MemoryFile::create("disk", IOVA, 0x4000).unwrap()
}

pub(crate) struct VdpaDisk<'m> {
    pub(crate) vdpa: Vdpa,
    pub(crate) features: VirtioFeatures,
    memory: &'m MemoryFile,
    area: GuestArea,
    ring: Option<Ring>,
}

struct Ring {
    queue: DriverQueue<OwnedRange, { SIZE as usize }>,
    kick: EventFd,
    call: EventFd,
}

impl<'m> VdpaDisk<'m> {
    /// A device that was just opened, to have these features more than a disk needs.
    pub(crate) fn new(vdpa: Vdpa, memory: &'m MemoryFile, more: VirtioFeatures) -> Self {
        vdpa.set_owner().unwrap();
        vdpa.set_backend_features(vdpa.backend_features().unwrap()).unwrap();
        let features = VirtioFeatures::VERSION_1 | VirtioFeatures::ACCESS_PLATFORM | FLUSH | more;
        assert!(vdpa.features().unwrap().contains(features));
        Self { vdpa, features, memory, area: GuestArea::of(memory), ring: None }
    }

    pub(crate) fn layout(&self) -> RingLayout {
        RingLayout::of(self.features)
    }

    /// From a device that is reset to one that runs, with a new ring.
    pub(crate) fn bring_up(&mut self) {
        let Self { vdpa, features, memory, .. } = self;
        let layout = RingLayout::of(*features);
        let [descriptor, driver, device] = PARTS.map(|offset| GuestAddress(IOVA + offset));
        let places = RingAddresses { descriptor, driver, device };
        let parts = RingParts::translate(&table(memory), places, layout, SIZE.into(), RingUser::Driver).unwrap();
        let [kick, call] = [(); 2].map(|()| EventFd::new().unwrap());
        let ring = Ring { queue: DriverQueue::new(parts, SIZE.into(), *features).unwrap(), kick, call };
        let base = match layout {
            RingLayout::Split => VringBase::Split { available: 0 },
            RingLayout::Packed => VringBase::Packed { available: 0, available_wrap: true, used: 0, used_wrap: true },
        };

        vdpa.raise_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER).unwrap();
        vdpa.set_features(*features).unwrap();
        vdpa.raise_status(DeviceStatus::FEATURES_OK).unwrap();
        vdpa.map(0, &Mapping::all_of(memory.mapped(), Iova(IOVA), Access::ReadWrite)).unwrap();
        let [descriptor, driver, device] = PARTS.map(|offset| Iova(IOVA + offset));
        vdpa.set_vring_num(0, SIZE.into()).unwrap();
        vdpa.set_vring_base(0, base).unwrap();
        vdpa.set_vring_addresses(0, RingAddresses { descriptor, driver, device }).unwrap();
        vdpa.set_vring_kick(0, Some(ring.kick.as_fd())).unwrap();
        vdpa.set_vring_call(0, Some(ring.call.as_fd())).unwrap();
        vdpa.switch_vring(0, VringSwitch::Enabled).unwrap();
        vdpa.raise_status(DeviceStatus::DRIVER_OK).unwrap();
        self.ring = Some(ring);
    }

    /// What a sector holds that was written with this number.
    pub(crate) fn pattern(number: u8) -> Vec<u8> {
        (0..SECTOR).map(|at| (at % 253) as u8 ^ number).collect()
    }

    pub(crate) fn write(&mut self, sector: u64, number: u8) {
        self.begin_write(sector, number);
        self.finish();
    }

    /// Gives the device a request to write.
    pub(crate) fn begin_write(&mut self, sector: u64, number: u8) {
        self.area.write(DATA, &Self::pattern(number)).unwrap();
        let data = self.buffer(DATA, SECTOR);
        self.begin(1, sector, &[data], &[]);
    }

    pub(crate) fn read(&mut self, sector: u64) -> Vec<u8> {
        self.area.write(DATA, &[0; SECTOR]).unwrap();
        self.read_into(sector, Iova(IOVA + DATA));
        let mut data = vec![0; SECTOR];
        self.area.read(DATA, &mut data).unwrap();
        data
    }

    /// Reads a sector to somewhere else.
    pub(crate) fn read_into(&mut self, sector: u64, iova: Iova) {
        let data = Buffer { address: GuestAddress(iova.0), length: SECTOR as u32 };
        self.begin(0, sector, &[], &[data]);
        self.finish();
    }

    pub(crate) fn flush(&mut self) {
        self.begin(4, 0, &[], &[]);
        self.finish();
    }

    fn buffer(&self, offset: u64, length: usize) -> Buffer {
        Buffer { address: self.area.guest_address(offset), length: length as u32 }
    }

    fn begin(&mut self, kind: u32, sector: u64, readable: &[Buffer], writable: &[Buffer]) {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.area.write(HEADER, &header).unwrap();
        self.area.write(STATUS, &[0xff]).unwrap();
        let (header, status) = (self.buffer(HEADER, 16), self.buffer(STATUS, 1));
        let ring = self.ring.as_mut().unwrap();
        ring.queue.add(&[&[header], readable].concat(), &[writable, &[status]].concat()).unwrap();
        ring.queue.publish().unwrap();
        ring.kick.signal().unwrap();
    }

    /// Has the device read a sector to where it cannot reach, for which it says nothing but that it is done.
    pub(crate) fn read_out_of_reach(&mut self, iova: Iova) {
        let data = Buffer { address: GuestAddress(iova.0), length: SECTOR as u32 };
        self.begin(0, 0, &[], &[data]);
        assert_eq!(self.wait(), 0xff);
    }

    /// Waits until the device is done with its request, which must have gone well.
    pub(crate) fn finish(&mut self) {
        assert_eq!(self.wait(), 0, "the disk's status");
    }

    /// Waits until the device is done with its request; its status.
    fn wait(&mut self) -> u8 {
        let ring = self.ring.as_mut().unwrap();
        while ring.queue.poll().unwrap().is_none() {
            if !ring.queue.enable_calls().unwrap() {
                assert!(ring.call.wait(soon()).unwrap().is_some(), "the disk does not answer");
            }
        }
        let mut status = [0xee];
        self.area.read(STATUS, &mut status).unwrap();
        status[0]
    }
}
