//! The calls of vhost-vdpa and of VDUSE: one device, from both of its sides.

use std::os::fd::AsFd;
use std::thread;

use rustix::io::Errno;
use vhost_core::uapi::bits::DeviceStatus;
use vhost_core::uapi::iotlb::Access;
use vhost_core::uapi::vduse_message::VduseVersion;
use vhost_core::{Iova, RingAddresses, RingLayout, VirtioFeatures};
use vhost_kernel::VhostDevice;
use vhost_kernel::vdpa::{Mapping, Vdpa, VringSwitch};
use vhost_kernel::vduse::{self, Control, VduseDevice};
use vhost_std::eventfd::EventFd;
use vhost_std::memory::MemoryFile;

use super::{Table, vhost};
use crate::inside::answering::{answer, options, yes};
use crate::inside::ring::soon;
use crate::inside::vdpa::node;

const NAME: &str = "table";
const LAST: Iova = Iova(u64::MAX);

/// Where the memory is for the device.
const IOVA: u64 = 0x10_0000;

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn vdpa_and_vduse() {
    let lines = Table("vduse");
    let control = Control::open(VduseVersion::V0).unwrap();
    lines.line("VDUSE_SET_API_VERSION", "ok");
    lines.note("VDUSE_GET_API_VERSION", Control::newest_version());
    lines.note("VDUSE_CREATE_DEV", control.create(&options(NAME)));
    let device = VduseDevice::open(NAME, VduseVersion::V0).unwrap();
    lines.note("VDUSE_VQ_SETUP", device.set_up_vring(0, 64, 0));

    let stop = EventFd::new().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| answer(&device, &stop, yes));
        vduse::add_to_bus(NAME).unwrap();
        let (vdpa, memory, config_call) = driver();
        from_the_device(&lines, &device);
        assert_eq!(config_call.wait(soon()), Ok(Some(1)), "the change of the configuration");
        vdpa.set_config_call(None).unwrap();
        drop((vdpa, memory));
        vduse::remove_from_bus(NAME).unwrap();
        stop.signal().unwrap();
    });
    drop(device);
    lines.note("VDUSE_DESTROY_DEV", control.destroy(NAME));
}

/// A driver that has made every call and is ready; its memory, and what tells it of configuration changes.
fn driver() -> (Vdpa, MemoryFile, EventFd) {
    let lines = Table("vdpa");
    let vdpa = Vdpa::open(&node(NAME)).unwrap();
    vhost::common(&lines, &vdpa);
    assert_eq!(lines.note("VHOST_VDPA_GET_DEVICE_ID", vdpa.device_id()), Some(2));
    lines.note("VHOST_VDPA_GET_STATUS", vdpa.status());
    lines.note("VHOST_VDPA_SET_STATUS", vdpa.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER));
    lines.note("VHOST_SET_FEATURES", vdpa.set_features(vdpa.features().unwrap()));
    vdpa.raise_status(DeviceStatus::FEATURES_OK).unwrap();
    assert_eq!(lines.note("VHOST_VDPA_GET_CONFIG_SIZE", vdpa.config_size()), Some(60));
    let mut config = [0; 3];
    lines.note("VHOST_VDPA_GET_CONFIG", vdpa.read_config(57, &mut config));
    assert_eq!(config, [7; 3]);
    lines.note("VHOST_VDPA_SET_CONFIG", vdpa.write_config(0, &[1]));
    assert_eq!(vdpa.read_config(58, &mut config).unwrap_err().errno, Errno::INVAL);
    assert_eq!(lines.note("VHOST_VDPA_GET_VRING_NUM", vdpa.vring_num_max()), Some(64));
    lines.note("VHOST_VDPA_GET_VRING_SIZE", vdpa.vring_size(0));
    assert_eq!(lines.note("VHOST_VDPA_GET_VQS_COUNT", vdpa.vring_count()), Some(1));
    assert_eq!(lines.note("VHOST_VDPA_GET_GROUP_NUM", vdpa.group_count()), Some(1));
    assert_eq!(lines.note("VHOST_VDPA_GET_AS_NUM", vdpa.address_space_count()), Some(1));
    lines.note("VHOST_VDPA_GET_VRING_GROUP", vdpa.vring_group(0));
    lines.note("VHOST_VDPA_GET_VRING_DESC_GROUP", vdpa.vring_descriptor_group(0));
    lines.note("VHOST_VDPA_SET_GROUP_ASID", vdpa.set_group_address_space(0, 0));
    lines.note("VHOST_VDPA_GET_IOVA_RANGE", vdpa.iova_range());
    let call = EventFd::new().unwrap();
    lines.note("VHOST_VDPA_SET_CONFIG_CALL", vdpa.set_config_call(Some(call.as_fd())));

    let memory = MemoryFile::create("table", IOVA, 0x3000).unwrap();
    vdpa.map(0, &Mapping::all_of(memory.mapped(), Iova(IOVA), Access::ReadWrite)).unwrap();
    lines.note("VHOST_SET_VRING_NUM", vdpa.set_vring_num(0, 16));
    let [descriptor, driver, device] = [0, 0x1000, 0x2000].map(|offset| Iova(IOVA + offset));
    let addresses = RingAddresses { descriptor, driver, device };
    lines.note("VHOST_SET_VRING_ADDR", vdpa.set_vring_addresses(0, addresses));
    lines.note("VHOST_VDPA_SET_VRING_ENABLE", vdpa.switch_vring(0, VringSwitch::Enabled));
    vdpa.raise_status(DeviceStatus::DRIVER_OK).unwrap();
    assert_eq!(vdpa.set_vring_addresses(0, addresses).unwrap_err().errno, Errno::INVAL);
    lines.note("VHOST_VDPA_SUSPEND", vdpa.suspend());
    lines.note("VHOST_VDPA_RESUME", vdpa.resume());
    (vdpa, memory, call)
}

/// The device's own calls, once its driver is ready.
fn from_the_device(lines: &Table, device: &VduseDevice) {
    let features = lines.note("VDUSE_DEV_GET_FEATURES", device.features()).unwrap();
    assert!(features.contains(VirtioFeatures::VERSION_1));
    lines.note("VDUSE_DEV_SET_CONFIG", device.set_config(1, &[9, 9]));
    lines.note("VDUSE_DEV_INJECT_CONFIG_IRQ", device.inject_config_interrupt());
    let ring = lines.note("VDUSE_VQ_GET_INFO", device.vring(0, RingLayout::Split)).unwrap();
    assert_eq!((ring.size, ring.addresses.descriptor, ring.ready), (16, Iova(IOVA), true));
    let kick = EventFd::new().unwrap();
    lines.note("VDUSE_VQ_SETUP_KICKFD", device.set_vring_kick(0, Some(kick.as_fd())));
    device.set_vring_kick(0, None).unwrap();
    lines.note("VDUSE_VQ_INJECT_IRQ", device.inject_vring_interrupt(0));
    let region = device.region(0, Iova(0), LAST);
    lines.note_if_known("VDUSE_IOTLB_GET_FD", region);
    lines.note_if_known("VDUSE_IOTLB_GET_INFO", device.region_info(0, Iova(0), LAST));
    let none = device.region(0, Iova(0), Iova(IOVA - 1)).unwrap();
    assert!(none.is_none(), "{none:?}");
    // A driver of vhost_vdpa has no bounce buffer that memory could stand for.
    let memory = MemoryFile::create("bounce", 0, 64 << 20).unwrap();
    let refused = device.register_user_memory(0, Iova(0), memory.mapped()).unwrap_err();
    assert_eq!((refused.call, refused.errno), ("VDUSE_IOTLB_REG_UMEM", Errno::INVAL));
    let refused = device.deregister_user_memory(0, Iova(0), 64 << 20).unwrap_err();
    assert_eq!((refused.call, refused.errno), ("VDUSE_IOTLB_DEREG_UMEM", Errno::NOENT));
}

/// Version 1 has a call of its own, which a device of version 0 does not know.
#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn vduse_version_1() {
    let lines = Table("vduse");
    let control = Control::open(VduseVersion::V0).unwrap();
    control.create(&options("one")).unwrap();
    let device = VduseDevice::open("one", VduseVersion::V1).unwrap();
    match device.region(0, Iova(0), LAST) {
        Ok(region) => lines.note_if_known("VDUSE_IOTLB_GET_FD2", Ok::<_, vhost_kernel::KernelError>(region)),
        Err(error) => _ = lines.note("VDUSE_IOTLB_GET_FD2", Err::<(), _>(error)),
    }
    drop(device);
    control.destroy("one").unwrap();
}
