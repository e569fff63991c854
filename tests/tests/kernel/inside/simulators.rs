//! vhost-vdpa with devices that a kernel simulates: they can be suspended, and have several address spaces.

use std::os::fd::AsFd;

use rustix::io::Errno;
use vhost_core::uapi::bits::BackendFeatures;
use vhost_core::uapi::iotlb::Access;
use vhost_core::wire::vring::VringBase;
use vhost_core::{Iova, RingLayout, VhostBackend, VirtioFeatures, VringSetting, VringSetup};
use vhost_kernel::backend::VdpaBackend;
use vhost_kernel::vdpa::{self, Mapping, Vdpa};
use vhost_kernel::{KernelError, VhostDevice};
use vhost_std::memory::MemoryFile;

use super::ring::{Ring, SIZE, memory};
use super::table::Table;
use super::vdpa::node;
use super::vdpa_disk::{self, VdpaDisk};
use crate::form::{Form, PIECE, Request};

fn device(management: &str, name: &str) -> Vdpa {
    vdpa::add_to_bus(management, name).unwrap();
    Vdpa::open(&node(name)).unwrap()
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn a_disk_is_suspended_and_goes_on() {
    const NAME: &str = "suspended";
    let memory = vdpa_disk::memory();
    let mut disk = VdpaDisk::new(device("vdpasim_blk", NAME), &memory, VirtioFeatures::empty());
    assert!(disk.vdpa.backend_features().unwrap().contains(BackendFeatures::SUSPEND | BackendFeatures::RESUME));
    disk.bring_up();
    disk.write(7, 1);
    let lines = Table("sim");
    lines.note("VHOST_VDPA_SUSPEND", disk.vdpa.suspend()).unwrap();
    assert_eq!(disk.vdpa.vring_base(0, RingLayout::Split), Ok(VringBase::Split { available: 1 }));
    disk.begin_write(7, 2);
    assert_eq!(disk.vdpa.vring_base(0, RingLayout::Split), Ok(VringBase::Split { available: 1 }), "it is suspended");
    lines.note("VHOST_VDPA_RESUME", disk.vdpa.resume()).unwrap();
    disk.finish();
    assert_eq!(disk.read(7), VdpaDisk::pattern(2));
    drop(disk);
    vdpa::remove_from_bus(NAME).unwrap();
}

/// Makes one request of a disk that must go well, with the data in the ring's buffers.
fn request(ring: &mut Ring, request: Request<'_>) {
    const STATUS: u64 = 0x100;
    const DATA: u64 = 0x1000;
    let head = Form::Block.head(&request);
    ring.buffers.write(0, &head).unwrap();
    ring.buffers.write(STATUS, &[0xff]).unwrap();
    let (head, status) = (ring.buffer(0, head.len() as u32), ring.buffer(STATUS, 1));
    let data = ring.buffer(DATA, PIECE as u32);
    match request {
        Request::Write(_, bytes) => {
            ring.buffers.write(DATA, bytes).unwrap();
            ring.give(&[head, data], &[status]);
        }
        _ => ring.give(&[head], &[data, status]),
    }
    ring.take();
    assert_eq!(ring.read(STATUS, 1), [0]);
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn a_ring_is_stopped_by_a_suspension() {
    const NAME: &str = "stopped";
    let mut backend = VdpaBackend::new(device("vdpasim_blk", NAME)).unwrap();
    let memory = memory(1);
    let mut ring = Ring::new(&memory, 0);
    backend.set_owner().unwrap();
    let offered = backend.features().unwrap();
    backend.acknowledge(offered & VirtioFeatures::VERSION_1).unwrap();
    backend.set_memory(&[(*memory.region(), &memory)]).unwrap();
    for round in 0..5 {
        let setup = VringSetup::<dyn AsFd> {
            size: SIZE,
            base: ring.driver.base(),
            addresses: ring.driver.user_addresses(),
            kick: Some(&ring.kick),
            call: Some(&ring.call),
            error: None,
        };
        backend.start_vring(0, &setup).unwrap();
        let bytes = vec![round; PIECE];
        request(&mut ring, Request::Write(8, &bytes));
        // Moved to where it is: it stops, and goes on by itself.
        backend.set_vring(0, VringSetting::Addresses(ring.driver.user_addresses())).unwrap();
        request(&mut ring, Request::Read(8));
        assert_eq!(ring.read(0x1000, PIECE as u32), bytes);
        assert_eq!(backend.stop_vring(0), Ok(ring.driver.base()));
    }
    drop(backend);
    vdpa::remove_from_bus(NAME).unwrap();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn groups_of_rings_have_address_spaces_of_their_own() {
    const NAME: &str = "groups";
    let net = device("vdpasim_net", NAME);
    net.set_owner().unwrap();
    let offered = net.backend_features().unwrap();
    assert!(offered.contains(BackendFeatures::IOTLB_ASID));
    net.set_backend_features(offered).unwrap();
    assert_eq!((net.group_count(), net.address_space_count(), net.vring_count()), (Ok(2), Ok(2), Ok(3)));
    let lines = Table("sim");
    assert_eq!(lines.note("VHOST_VDPA_GET_VRING_GROUP", net.vring_group(2)), Some(1));
    assert_eq!([0, 1].map(|ring| net.vring_group(ring)), [Ok(0), Ok(0)]);
    lines.note("VHOST_VDPA_GET_VRING_DESC_GROUP", net.vring_descriptor_group(0));
    lines.note("VHOST_VDPA_SET_GROUP_ASID", net.set_group_address_space(1, 1)).unwrap();
    assert_eq!(net.set_group_address_space(1, 2).unwrap_err().errno, Errno::INVAL);

    // The same addresses, once in each of them.
    let [first, second] = [0, 1].map(|_| MemoryFile::create("space", 0, 0x4000).unwrap());
    for (asid, memory) in [(0, &first), (1, &second)] {
        let mapping = Mapping::all_of(memory.mapped(), Iova(0x1_0000), Access::ReadWrite);
        let batch = net.batch(asid).unwrap();
        batch.map(&mapping).unwrap();
        batch.end().unwrap();
        let twice = net.map(asid, &mapping);
        assert!(matches!(twice, Err(KernelError::Iotlb { errno: Errno::FAULT, .. })), "{twice:?}");
    }
    net.unmap(1, Iova(0x1_0000), 0x4000).unwrap();
    let other = Mapping::all_of(first.mapped(), Iova(0x1_0000), Access::Read);
    net.map(1, &other).unwrap();
    assert!(matches!(net.map(2, &other), Err(KernelError::Iotlb { errno: Errno::FAULT, .. })));
    drop(net);
    vdpa::remove_from_bus(NAME).unwrap();
}
