//! Feature bits as masks, copied from the protocol's list.

/// Protocol feature bit 0.
pub const MQ: u64 = 1 << 0;
/// Protocol feature bit 1.
pub const LOG_SHMFD: u64 = 1 << 1;
/// Protocol feature bit 2.
pub const RARP: u64 = 1 << 2;
/// Protocol feature bit 3.
pub const REPLY_ACK: u64 = 1 << 3;
/// Protocol feature bit 4.
pub const MTU: u64 = 1 << 4;
/// Protocol feature bit 5.
pub const BACKEND_REQ: u64 = 1 << 5;
/// Protocol feature bit 6.
pub const CROSS_ENDIAN: u64 = 1 << 6;
/// Protocol feature bit 7.
pub const CRYPTO_SESSION: u64 = 1 << 7;
/// Protocol feature bit 8.
pub const PAGEFAULT: u64 = 1 << 8;
/// Protocol feature bit 9.
pub const CONFIG: u64 = 1 << 9;
/// Protocol feature bit 10.
pub const BACKEND_SEND_FD: u64 = 1 << 10;
/// Protocol feature bit 11.
pub const HOST_NOTIFIER: u64 = 1 << 11;
/// Protocol feature bit 12.
pub const INFLIGHT_SHMFD: u64 = 1 << 12;
/// Protocol feature bit 13.
pub const RESET_DEVICE: u64 = 1 << 13;
/// Protocol feature bit 14.
pub const INBAND_NOTIFICATIONS: u64 = 1 << 14;
/// Protocol feature bit 15.
pub const CONFIGURE_MEM_SLOTS: u64 = 1 << 15;
/// Protocol feature bit 16.
pub const STATUS: u64 = 1 << 16;
/// Protocol feature bit 17.
pub const XEN_MMAP: u64 = 1 << 17;
/// Protocol feature bit 18.
pub const SHARED_OBJECT: u64 = 1 << 18;
/// Protocol feature bit 19.
pub const DEVICE_STATE: u64 = 1 << 19;
/// Protocol feature bit 20.
pub const GET_VRING_BASE_INFLIGHT: u64 = 1 << 20;
/// Protocol feature bit 21.
pub const GPA_ADDRESSES: u64 = 1 << 21;
/// Protocol feature bit 22.
pub const SHMEM: u64 = 1 << 22;

/// Virtio feature bit 3: the device knows the network's MTU.
pub const NET_MTU: u64 = 1 << 3;
/// Virtio feature bit 26: every write to guest memory is logged.
pub const LOG_ALL: u64 = 1 << 26;
/// Virtio feature bit 28: descriptors may point at tables of descriptors.
pub const INDIRECT_DESCRIPTORS: u64 = 1 << 28;
/// Virtio feature bit 29: rings say at which index they want an event.
pub const EVENT_INDEX: u64 = 1 << 29;
/// Virtio feature bit 30: there are protocol features to negotiate.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;
/// Virtio feature bit 32: not a legacy device.
pub const VERSION_1: u64 = 1 << 32;
/// Virtio feature bit 33: ring addresses and descriptors are IOVAs.
pub const IOMMU_PLATFORM: u64 = 1 << 33;
/// Virtio feature: packed rings.
pub const RING_PACKED: u64 = 1 << 34;

/// What the fixtures' back-end offers.
pub const OFFERED: u64 =
    NET_MTU | LOG_ALL | INDIRECT_DESCRIPTORS | EVENT_INDEX | PROTOCOL_FEATURES | VERSION_1 | IOMMU_PLATFORM;
/// What the fixtures' front-end takes of it. Without `IOMMU_PLATFORM`: the fixtures' ring addresses are user addresses.
pub const ACKNOWLEDGED: u64 = NET_MTU | EVENT_INDEX | PROTOCOL_FEATURES | VERSION_1;
/// Protocol features that the fixtures' back-end offers: all but `XEN_MMAP`, which changes the size of regions, and
/// `GPA_ADDRESSES`, which changes what ring addresses mean.
pub const PROTOCOL_OFFERED: u64 = 0x5d_ffff;
/// What the fixtures' front-end takes of them: all but `MQ` and `GET_VRING_BASE_INFLIGHT`.
pub const PROTOCOL_ACKNOWLEDGED: u64 = 0x4d_fffe;

/// These protocol features and those that they cannot be used without.
pub const fn with_dependencies(bits: u64) -> u64 {
    let mut all = bits;
    if bits & INBAND_NOTIFICATIONS != 0 {
        all |= BACKEND_REQ | REPLY_ACK;
    }
    if bits & GET_VRING_BASE_INFLIGHT != 0 {
        all |= INFLIGHT_SHMFD;
    }
    if bits & (HOST_NOTIFIER | SHARED_OBJECT | SHMEM) != 0 {
        all |= BACKEND_REQ | BACKEND_SEND_FD;
    }
    all
}
