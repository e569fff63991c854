//! Bytes: the ioctls of `/dev/vhost-net`, `/dev/vhost-vsock`, `/dev/vhost-scsi` and `/dev/vhost-vdpa-*`.
//!
//! Which device takes which of them: all take `VHOST_GET_FEATURES` to `VHOST_GET_BACKEND_FEATURES` but for what the lines
//! say; those with a device in their name belong to that device.

use super::ioctl::{Command, Direction, IoctlNumber, IoctlRow};
use super::layout::{
    ConfigRange, FeaturesArray, IovaRange, LogBase, MemoryRegion, MemoryTable, ScsiTarget, VringAddr, VringFile,
    VringState, VringWorker, WorkerState,
};
use super::table::ioctls;

ioctls! {
    /// An ioctl of a vhost device.
    pub enum VhostIoctl of group 0xaf;

    /// Reads the virtio features that the device offers.
    GetFeatures, VHOST_GET_FEATURES: Read 0x00, u64;
    /// Acknowledges virtio features.
    SetFeatures, VHOST_SET_FEATURES: Write 0x00, u64;
    /// Binds the descriptor to the address space of the calling process.
    SetOwner, VHOST_SET_OWNER: None 0x01, ();
    /// Gives the binding up. vhost-net only.
    ResetOwner, VHOST_RESET_OWNER: None 0x02, ();
    /// Replaces the table of memory regions.
    SetMemTable, VHOST_SET_MEM_TABLE: Write 0x03, MemoryTable, [MemoryRegion];
    /// Says where the dirty log is; one bit stands for 4096 bytes. Not vhost-vdpa.
    SetLogBase, VHOST_SET_LOG_BASE: Write 0x04, LogBase;
    /// Sets the eventfd that is signalled when the log was written to; -1 takes it away. Not vhost-vdpa.
    SetLogFd, VHOST_SET_LOG_FD: Write 0x07, i32;
    /// Makes a worker thread. vhost-scsi only.
    NewWorker, VHOST_NEW_WORKER: Read 0x08, WorkerState;
    /// Ends a worker thread that serves no ring. vhost-scsi only.
    FreeWorker, VHOST_FREE_WORKER: Write 0x09, WorkerState;
    /// Sets a ring's number of descriptors.
    SetVringNum, VHOST_SET_VRING_NUM: Write 0x10, VringState;
    /// Sets where a ring's parts are.
    SetVringAddr, VHOST_SET_VRING_ADDR: Write 0x11, VringAddr;
    /// Sets where a ring goes on.
    SetVringBase, VHOST_SET_VRING_BASE: Write 0x12, VringState;
    /// Reads where a ring goes on; the ring does not stop for it.
    GetVringBase, VHOST_GET_VRING_BASE: ReadWrite 0x12, VringState;
    /// Sets the byte order of a legacy ring: 0 little, 1 big.
    SetVringEndian, VHOST_SET_VRING_ENDIAN: Write 0x13, VringState;
    /// Reads the byte order of a legacy ring.
    GetVringEndian, VHOST_GET_VRING_ENDIAN: Write 0x14, VringState, moves ReadWrite;
    /// Has a worker serve a ring. vhost-scsi only.
    AttachVringWorker, VHOST_ATTACH_VRING_WORKER: Write 0x15, VringWorker;
    /// Reads which worker serves a ring. vhost-scsi only.
    GetVringWorker, VHOST_GET_VRING_WORKER: ReadWrite 0x16, VringWorker;
    /// Sets the eventfd that the driver kicks; -1 takes it away.
    SetVringKick, VHOST_SET_VRING_KICK: Write 0x20, VringFile;
    /// Sets the eventfd that calls the driver; -1 takes it away.
    SetVringCall, VHOST_SET_VRING_CALL: Write 0x21, VringFile;
    /// Sets the eventfd that tells of a broken ring; -1 takes it away.
    SetVringErr, VHOST_SET_VRING_ERR: Write 0x22, VringFile;
    /// Sets for how many microseconds a ring is polled before its kick is waited for. vhost-net heeds it.
    SetVringBusyloopTimeout, VHOST_SET_VRING_BUSYLOOP_TIMEOUT: Write 0x23, VringState;
    /// Reads for how many microseconds a ring is polled.
    GetVringBusyloopTimeout, VHOST_GET_VRING_BUSYLOOP_TIMEOUT: Write 0x24, VringState, moves ReadWrite;
    /// Acknowledges [`BackendFeatures`](super::bits::BackendFeatures). Not vhost-scsi.
    SetBackendFeatures, VHOST_SET_BACKEND_FEATURES: Write 0x25, u64;
    /// Reads the [`BackendFeatures`](super::bits::BackendFeatures) on offer. Not vhost-scsi.
    GetBackendFeatures, VHOST_GET_BACKEND_FEATURES: Read 0x26, u64;

    /// Connects a ring with a tap device or a packet socket; -1 stops it.
    NetSetBackend, VHOST_NET_SET_BACKEND: Write 0x30, VringFile;

    /// Connects the device with a target.
    ScsiSetEndpoint, VHOST_SCSI_SET_ENDPOINT: Write 0x40, ScsiTarget;
    /// Takes the connection with a target back.
    ScsiClearEndpoint, VHOST_SCSI_CLEAR_ENDPOINT: Write 0x41, ScsiTarget;
    /// Reads the version of this interface.
    ScsiGetAbiVersion, VHOST_SCSI_GET_ABI_VERSION: Write 0x42, i32, moves Read;
    /// Sets whether events were missed.
    ScsiSetEventsMissed, VHOST_SCSI_SET_EVENTS_MISSED: Write 0x43, u32;
    /// Reads whether events were missed.
    ScsiGetEventsMissed, VHOST_SCSI_GET_EVENTS_MISSED: Write 0x44, u32, moves Read;

    /// Sets the guest's address, its context id.
    VsockSetGuestCid, VHOST_VSOCK_SET_GUEST_CID: Write 0x60, u64;
    /// Starts (1) or stops (0) the rings.
    VsockSetRunning, VHOST_VSOCK_SET_RUNNING: Write 0x61, i32;

    /// Reads the virtio device type.
    VdpaGetDeviceId, VHOST_VDPA_GET_DEVICE_ID: Read 0x70, u32;
    /// Reads the device status.
    VdpaGetStatus, VHOST_VDPA_GET_STATUS: Read 0x71, u8;
    /// Writes the device status; 0 resets the device.
    VdpaSetStatus, VHOST_VDPA_SET_STATUS: Write 0x72, u8;
    /// Reads a part of the configuration space.
    VdpaGetConfig, VHOST_VDPA_GET_CONFIG: Read 0x73, ConfigRange, [u8], moves ReadWrite;
    /// Writes a part of the configuration space.
    VdpaSetConfig, VHOST_VDPA_SET_CONFIG: Write 0x74, ConfigRange, [u8];
    /// Enables (1) or disables (0) a ring.
    VdpaSetVringEnable, VHOST_VDPA_SET_VRING_ENABLE: Write 0x75, VringState;
    /// Reads the largest ring size.
    VdpaGetVringNum, VHOST_VDPA_GET_VRING_NUM: Read 0x76, u16;
    /// Sets the eventfd that tells of configuration changes; -1 takes it away.
    VdpaSetConfigCall, VHOST_VDPA_SET_CONFIG_CALL: Write 0x77, i32;
    /// Reads which I/O virtual addresses can be mapped.
    VdpaGetIovaRange, VHOST_VDPA_GET_IOVA_RANGE: Read 0x78, IovaRange;
    /// Reads the size of the configuration space.
    VdpaGetConfigSize, VHOST_VDPA_GET_CONFIG_SIZE: Read 0x79, u32;
    /// Reads the number of address spaces.
    VdpaGetAsNum, VHOST_VDPA_GET_AS_NUM: Read 0x7a, u32;
    /// Reads the group that a ring belongs to.
    VdpaGetVringGroup, VHOST_VDPA_GET_VRING_GROUP: ReadWrite 0x7b, VringState;
    /// Moves a group of rings (the index) to an address space (the number).
    VdpaSetGroupAsid, VHOST_VDPA_SET_GROUP_ASID: Write 0x7c, VringState;
    /// Stops the device without a reset.
    VdpaSuspend, VHOST_VDPA_SUSPEND: None 0x7d, ();
    /// Goes on after a suspension.
    VdpaResume, VHOST_VDPA_RESUME: None 0x7e, ();
    /// Reads the group that a ring's descriptor table belongs to.
    VdpaGetVringDescGroup, VHOST_VDPA_GET_VRING_DESC_GROUP: ReadWrite 0x7f, VringState;
    /// Reads the number of rings.
    VdpaGetVqsCount, VHOST_VDPA_GET_VQS_COUNT: Read 0x80, u32;
    /// Reads the number of groups of rings.
    VdpaGetGroupNum, VHOST_VDPA_GET_GROUP_NUM: Read 0x81, u32;
    /// Reads the largest size of one ring.
    VdpaGetVringSize, VHOST_VDPA_GET_VRING_SIZE: ReadWrite 0x82, VringState;

    /// Reads the virtio features beyond 64 too. vhost-net only.
    GetFeaturesArray, VHOST_GET_FEATURES_ARRAY: Read 0x83, FeaturesArray, [u64], moves ReadWrite;
    /// Acknowledges virtio features beyond 64 too. vhost-net only.
    SetFeaturesArray, VHOST_SET_FEATURES_ARRAY: Write 0x83, FeaturesArray, [u64];
    /// Sets whether workers are tasks of the owner (1) or threads of the kernel (0).
    SetForkFromOwner, VHOST_SET_FORK_FROM_OWNER: Write 0x84, u8;
    /// Reads whether workers are tasks of the owner.
    GetForkFromOwner, VHOST_GET_FORK_FROM_OWNER: Read 0x85, u8;
}
