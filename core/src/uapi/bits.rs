//! Bytes: sets of bits that the kernel's interfaces exchange.

use bitflags::bitflags;

bitflags! {
    /// The status of a virtio device, as the driver and the device raise it bit by bit.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct DeviceStatus: u8 {
        /// The driver has seen the device.
        const ACKNOWLEDGE = 1;
        /// The driver can drive it.
        const DRIVER = 2;
        /// The driver is ready; the rings run.
        const DRIVER_OK = 4;
        /// The features are settled; the device takes the bit back if it cannot work with them.
        const FEATURES_OK = 8;
        /// The device is broken until it is reset.
        const NEEDS_RESET = 64;
        /// The driver has given up.
        const FAILED = 128;
        const _ = !0;
    }
}

bitflags! {
    /// What a vhost device of the kernel can do beside virtio (`VHOST_GET_BACKEND_FEATURES`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct BackendFeatures: u64 {
        /// IOTLB messages of version 2; without it misses are read in version 1.
        const IOTLB_MSG_V2 = 1 << 1;
        /// IOTLB updates between a begin and an end.
        const IOTLB_BATCH = 1 << 2;
        /// IOTLB messages name an address space.
        const IOTLB_ASID = 1 << 3;
        /// `VHOST_VDPA_SUSPEND`.
        const SUSPEND = 1 << 4;
        /// `VHOST_VDPA_RESUME`.
        const RESUME = 1 << 5;
        /// Rings may be enabled after `DRIVER_OK`.
        const ENABLE_AFTER_DRIVER_OK = 1 << 6;
        /// Descriptor tables may have an address space of their own; needs [`Self::IOTLB_ASID`].
        const DESC_ASID = 1 << 7;
        /// Mappings outlive a reset.
        const IOTLB_PERSIST = 1 << 8;
        const _ = !0;
    }
}
