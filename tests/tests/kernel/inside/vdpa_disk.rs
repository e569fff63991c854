//! A client of a disk behind vhost-vdpa.

use std::os::fd::AsFd;

use vhost_core::uapi::bits::DeviceStatus;
use vhost_core::uapi::iotlb::Access;
use vhost_core::wire::vring::VringBase;
use vhost_core::{GuestAddress, Iova, MemoryRegion, RingAddresses, VirtioFeatures};
use vhost_kernel::VhostDevice;
use vhost_kernel::vdpa::{Mapping, Vdpa, VringSwitch};
use vhost_std::driver::Buffer;
use vhost_std::memory::MemoryFile;

use super::ring::{Ring, SIZE};

/// Where the memory is for the device.
pub(crate) const IOVA: u64 = 0x20_0000_0000;

pub(crate) const SECTOR: usize = 512;

/// `VIRTIO_BLK_F_FLUSH`
const FLUSH: VirtioFeatures = VirtioFeatures::from_bits_retain(1 << 9);

/// Where the parts of a request are among the ring's buffers.
const HEADER: u64 = 0;
const STATUS: u64 = 0x100;
const DATA: u64 = 0x200;

/// Memory for one ring, whose guest addresses are the ones that the device uses.
pub(crate) fn memory() -> MemoryFile {
    MemoryFile::create("disk", IOVA, 0x4000).unwrap()
}

pub(crate) struct VdpaDisk {
    pub(crate) vdpa: Vdpa,
    pub(crate) features: VirtioFeatures,
    ring: Option<Ring>,
}

impl VdpaDisk {
    /// A device that was just opened.
    pub(crate) fn new(vdpa: Vdpa, region: &MemoryRegion) -> Self {
        assert_eq!(region.guest_address, GuestAddress(IOVA));
        vdpa.set_owner().unwrap();
        vdpa.set_backend_features(vdpa.backend_features().unwrap()).unwrap();
        let features = VirtioFeatures::VERSION_1 | VirtioFeatures::ACCESS_PLATFORM | FLUSH;
        assert!(vdpa.features().unwrap().contains(features));
        Self { vdpa, features, ring: None }
    }

    /// From a device that is reset to one that runs, with a new ring.
    pub(crate) fn bring_up(&mut self, memory: &MemoryFile) {
        let ring = Ring::new(memory, 0);
        let Self { vdpa, features, .. } = self;
        vdpa.raise_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER).unwrap();
        vdpa.set_features(*features).unwrap();
        vdpa.raise_status(DeviceStatus::FEATURES_OK).unwrap();
        vdpa.map(0, &Mapping::all_of(memory.mapped(), Iova(IOVA), Access::ReadWrite)).unwrap();
        let addresses = ring.driver.guest_addresses();
        let [descriptor, driver, device] =
            [addresses.descriptor, addresses.available, addresses.used].map(|address| Iova(address.0));
        vdpa.set_vring_num(0, SIZE.into()).unwrap();
        vdpa.set_vring_base(0, VringBase::Split { available: 0 }).unwrap();
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
        let buffers = self.ring().buffers.clone();
        buffers.write(DATA, &Self::pattern(number)).unwrap();
        let data = self.ring().buffer(DATA, SECTOR as u32);
        self.begin(1, sector, &[data], &[]);
    }

    pub(crate) fn read(&mut self, sector: u64) -> Vec<u8> {
        self.ring().buffers.write(DATA, &[0; SECTOR]).unwrap();
        let data = self.ring().buffer(DATA, SECTOR as u32);
        self.begin(0, sector, &[], &[data]);
        self.finish();
        self.ring().read(DATA, SECTOR as u32)
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

    fn begin(&mut self, kind: u32, sector: u64, readable: &[Buffer], writable: &[Buffer]) {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        let ring = self.ring();
        ring.buffers.write(HEADER, &header).unwrap();
        ring.buffers.write(STATUS, &[0xff]).unwrap();
        let (header, status) = (ring.buffer(HEADER, 16), ring.buffer(STATUS, 1));
        ring.give(&[&[header], readable].concat(), &[writable, &[status]].concat());
    }

    /// Waits until the device is done with its request.
    pub(crate) fn finish(&mut self) {
        let ring = self.ring();
        ring.take();
        assert_eq!(ring.read(STATUS, 1), [0], "the disk's status");
    }

    fn ring(&mut self) -> &mut Ring {
        self.ring.as_mut().unwrap()
    }
}
