//! The memory that the fixtures share: page-aligned regions that overlap neither in guest nor in user addresses.

use super::Bytes;

/// One memory region; but for the Xen flags, no two of the nine share a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First guest physical address.
    pub guest: u64,
    /// Bytes.
    pub size: u64,
    /// First address in the front-end's own address space.
    pub user: u64,
    /// Where the region begins in its descriptor.
    pub offset: u64,
    /// With XEN_MMAP only: 1 foreign, 2 grant, 0x100 not mapped in advance.
    pub xen_flags: u32,
    /// With XEN_MMAP only.
    pub domain: u32,
}

/// The regions of a full memory table; tables with fewer take the first ones.
pub const REGIONS: [Region; 8] = [
    region(0x1_1111_0000, 0x12_0000, 0x7f01_1330_0000, 0x0140_0000, 0x001, 0x5001),
    region(0x2_2111_0000, 0x22_0000, 0x7f02_2330_0000, 0x0240_0000, 0x102, 0x5002),
    region(0x3_3111_0000, 0x32_0000, 0x7f03_3330_0000, 0x0340_0000, 0x001, 0x5003),
    region(0x4_4111_0000, 0x42_0000, 0x7f04_4330_0000, 0x0440_0000, 0x002, 0x5004),
    region(0x5_5111_0000, 0x52_0000, 0x7f05_5330_0000, 0x0540_0000, 0x001, 0x5005),
    region(0x6_6111_0000, 0x62_0000, 0x7f06_6330_0000, 0x0640_0000, 0x102, 0x5006),
    region(0x7_7111_0000, 0x72_0000, 0x7f07_7330_0000, 0x0740_0000, 0x001, 0x5007),
    region(0x8_8111_0000, 0x82_0000, 0x7f08_8330_0000, 0x0840_0000, 0x002, 0x5008),
];

/// The region that ADD_MEM_REG brings and REM_MEM_REG takes away.
pub const ADDED: Region = region(0x9_9111_0000, 0x92_0000, 0x7f09_9330_0000, 0x0940_0000, 0x102, 0x5009);

/// User addresses of ring 1: descriptor table, used ring, available ring; all inside the first region.
pub const RING: [u64; 3] = [0x7f01_1330_1000, 0x7f01_1330_2000, 0x7f01_1330_3000];
/// The guest address of the same used ring.
pub const RING_LOG: u64 = 0x1_1111_2000;

/// All nine: one more than a table may have.
pub fn one_too_many() -> Vec<Region> {
    REGIONS.into_iter().chain([ADDED]).collect()
}

const fn region(guest: u64, size: u64, user: u64, offset: u64, xen_flags: u32, domain: u32) -> Region {
    Region { guest, size, user, offset, xen_flags, domain }
}

impl Region {
    /// The same region as a back-end tells it in postcopy: at an address of its own.
    pub const fn mapped(self) -> Self {
        Self { user: self.user - 0x1000_0000_0000, ..self }
    }

    /// The 32 bytes of a region.
    pub fn plain(self) -> Vec<u8> {
        Bytes::new().u64(self.guest).u64(self.size).u64(self.user).u64(self.offset).done()
    }

    /// The 40 bytes of a region with XEN_MMAP.
    pub fn xen(self) -> Vec<u8> {
        Bytes::new().raw(&self.plain()).u32(self.xen_flags).u32(self.domain).done()
    }
}
