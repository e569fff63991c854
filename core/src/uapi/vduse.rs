//! Bytes: the ioctls of `/dev/vduse/control` and of the devices made there.

use super::ioctl::{Command, Direction, IoctlNumber, IoctlRow};
use super::table::ioctls;
use super::vduse_layout::{
    ConfigData, DeviceConfig, DeviceName, IotlbEntry, IotlbEntryV2, IovaInfo, UserMemory, VringConfig, VringEventfd,
    VringInfo,
};

ioctls! {
    /// An ioctl of VDUSE.
    pub enum VduseIoctl of group 0x81;

    /// Reads the newest version of the interface, and selects it for this descriptor.
    GetApiVersion, VDUSE_GET_API_VERSION: Read 0x00, u64;
    /// Selects a version of the interface for this descriptor.
    SetApiVersion, VDUSE_SET_API_VERSION: Write 0x01, u64;
    /// Makes a device.
    CreateDev, VDUSE_CREATE_DEV: Write 0x02, DeviceConfig, [u8];
    /// Removes a device that nobody uses.
    DestroyDev, VDUSE_DESTROY_DEV: Write 0x03, DeviceName;

    /// Finds the first region of an address range; the ioctl returns a descriptor to map it from.
    IotlbGetFd, VDUSE_IOTLB_GET_FD: ReadWrite 0x10, IotlbEntry;
    /// Reads the features that the driver acknowledged.
    DevGetFeatures, VDUSE_DEV_GET_FEATURES: Read 0x11, u64;
    /// Changes the configuration space.
    DevSetConfig, VDUSE_DEV_SET_CONFIG: Write 0x12, ConfigData, [u8];
    /// Tells the driver that the configuration has changed.
    DevInjectConfigIrq, VDUSE_DEV_INJECT_CONFIG_IRQ: None 0x13, ();
    /// Sets up a ring, before the device is on the vdpa bus.
    VqSetup, VDUSE_VQ_SETUP: Write 0x14, VringConfig;
    /// Reads what the driver set up for a ring.
    VqGetInfo, VDUSE_VQ_GET_INFO: ReadWrite 0x15, VringInfo;
    /// Sets the eventfd that the driver's kicks come on; -1 takes it away.
    VqSetupKickfd, VDUSE_VQ_SETUP_KICKFD: Write 0x16, VringEventfd;
    /// Calls the driver of a ring.
    VqInjectIrq, VDUSE_VQ_INJECT_IRQ: Write 0x17, u32;
    /// Has the kernel use memory of the caller for its bounce buffer.
    IotlbRegUmem, VDUSE_IOTLB_REG_UMEM: Write 0x18, UserMemory;
    /// Takes that memory back.
    IotlbDeregUmem, VDUSE_IOTLB_DEREG_UMEM: Write 0x19, UserMemory;
    /// Finds the first region of an address range without a descriptor for it.
    IotlbGetInfo, VDUSE_IOTLB_GET_INFO: ReadWrite 0x1a, IovaInfo;
    /// As [`VDUSE_IOTLB_GET_FD`], in one of several address spaces.
    IotlbGetFd2, VDUSE_IOTLB_GET_FD2: ReadWrite 0x1b, IotlbEntryV2;
}
