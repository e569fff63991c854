//! Bytes: the arguments of VDUSE ioctls.
//!
//! Fields that only version 1 of the interface has must be zero in version 0.

use crate::address::{Iova, UserAddress};
use crate::virtqueue::RingLayout;
use crate::wire::scalar::layout;
use crate::wire::vring::VringBase;

/// Bytes of a device's name with the zero that ends it.
pub const NAME_SIZE: usize = 256;

layout! {
    /// What stands in front of a new device's configuration space.
    pub struct DeviceConfig (336 bytes) {
        /// The name, ended by a zero.
        field name: [u8; NAME_SIZE],
        /// The virtio vendor.
        field vendor_id: u32,
        /// The virtio device type.
        field device_id: u32,
        /// The features on offer; `VIRTIO_F_ACCESS_PLATFORM` must be among them.
        field features: u64,
        /// The number of rings.
        field vring_count: u32,
        /// The alignment of rings in bytes: a power of two, at most a page.
        field vring_align: u32,
        /// The number of groups of rings; version 1.
        field group_count: u32,
        /// The number of address spaces; version 1.
        field address_space_count: u32,
        /// Zero.
        field reserved: [u8; 44],
        /// How many bytes of configuration follow.
        field config_size: u32,
    }
}

layout! {
    /// A device's name.
    pub struct DeviceName (256 bytes) {
        /// The name, ended by a zero.
        field name: [u8; NAME_SIZE],
    }
}

layout! {
    /// A region of I/O virtual addresses and where it lies in the descriptor that comes with it.
    pub struct IotlbEntry (32 bytes) {
        /// Offset of the region's first byte in the file.
        field offset: u64,
        /// The first address.
        field first: Iova,
        /// The last address, which is part of the region.
        field last: Iova,
        /// Allowed access: bit 0 reading, bit 1 writing.
        field permission: u8,
        padding unused: 7,
    }
}

layout! {
    /// As [`IotlbEntry`], in one of several address spaces.
    pub struct IotlbEntryV2 (80 bytes) {
        /// Offset of the region's first byte in the file.
        field offset: u64,
        /// The first address.
        field first: Iova,
        /// The last address, which is part of the region.
        field last: Iova,
        /// Allowed access: bit 0 reading, bit 1 writing.
        field permission: u8,
        padding unused: 7,
        /// The address space.
        field asid: u32,
        /// Zero.
        field reserved: [u8; 44],
    }
}

layout! {
    /// What stands in front of bytes for the configuration space.
    pub struct ConfigData (8 bytes) {
        /// Offset of the first byte.
        field offset: u32,
        /// How many bytes follow.
        field length: u32,
    }
}

layout! {
    /// How a ring is set up.
    pub struct VringConfig (32 bytes) {
        /// The ring, from 0.
        field index: u32,
        /// The largest number of descriptors.
        field max_size: u16,
        padding unused: 2,
        /// The group that the ring belongs to; version 1.
        field group: u32,
        /// Zero.
        field reserved: [u8; 20],
    }
}

layout! {
    /// Where a ring goes on: its form depends on whether the ring is packed.
    pub struct VringPosition (8 bytes) {
        /// Of a split ring: the next available index. Of a packed ring: the wrap counter of the available side.
        field first: u16,
        /// Of a packed ring: the next available descriptor.
        field available: u16,
        /// Of a packed ring: the wrap counter of the used side.
        field used_wrap: u16,
        /// Of a packed ring: the next used descriptor.
        field used: u16,
    }
}

impl VringPosition {
    /// The position as a ring of this layout has it.
    #[must_use]
    pub fn base(&self, layout: RingLayout) -> VringBase {
        match layout {
            RingLayout::Split => VringBase::Split { available: self.first() },
            RingLayout::Packed => VringBase::Packed {
                available: self.available(),
                available_wrap: self.first() != 0,
                used: self.used(),
                used_wrap: self.used_wrap() != 0,
            },
        }
    }
}

impl From<VringBase> for VringPosition {
    fn from(base: VringBase) -> Self {
        match base {
            VringBase::Split { available } => Self::new(available, 0, 0, 0),
            VringBase::Packed { available, available_wrap, used, used_wrap } => {
                Self::new(available_wrap.into(), available, used_wrap.into(), used)
            }
        }
    }
}

layout! {
    /// What the driver set up for a ring.
    pub struct VringInfo (48 bytes) {
        /// The ring, from 0.
        field index: u32,
        /// Its number of descriptors.
        field num: u32,
        /// Descriptor table, or the packed descriptor ring.
        field descriptor: Iova,
        /// Available ring, or the driver event suppression area.
        field driver: Iova,
        /// Used ring, or the device event suppression area.
        field device: Iova,
        /// Where it goes on, a [`VringPosition`].
        field position: [u8; 8],
        /// Whether the driver has enabled it: 0 or 1.
        field ready: u8,
        padding unused: 7,
    }
}

impl VringInfo {
    /// Where the ring goes on.
    #[must_use]
    pub fn base(&self, layout: RingLayout) -> VringBase {
        let position: VringPosition = zerocopy::transmute!(self.position());
        position.base(layout)
    }
}

layout! {
    /// A ring and the eventfd that its kicks come on.
    pub struct VringEventfd (8 bytes) {
        /// The ring, from 0.
        field index: u32,
        /// The eventfd, or -1 for none.
        field fd: i32,
    }
}

layout! {
    /// Memory of the caller that stands for a region.
    pub struct UserMemory (48 bytes) {
        /// Its first address, at a page's start; ignored when it is taken back.
        field user_address: UserAddress,
        /// The region's first address.
        field iova: Iova,
        /// Bytes.
        field size: u64,
        /// The address space; version 1.
        field asid: u32,
        /// Zero.
        field reserved: [u8; 20],
    }
}

layout! {
    /// What is known of a region without mapping it.
    pub struct IovaInfo (48 bytes) {
        /// The first address.
        field first: Iova,
        /// The last address, which is part of the region.
        field last: Iova,
        /// See [`IovaInfo::USER_MEMORY`].
        field capability: u64,
        /// The address space; version 1.
        field asid: u32,
        /// Zero.
        field reserved: [u8; 20],
    }
}

impl IovaInfo {
    /// Capability bit 0: memory of the caller may stand for the region.
    pub const USER_MEMORY: u64 = 1;
}
