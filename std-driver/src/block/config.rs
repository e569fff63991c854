//! The configuration space of a block device (virtio specification, 5.2.4).

use super::format::{SECTOR, config as offset};

/// Bytes of `struct virtio_blk_config` up to the write-zeroes fields.
pub(super) const SIZE: usize = 60;

/// Data segments of a request. With the header and the status it fits a ring of 128.
const SEGMENTS_MAX: u32 = 126;

/// Sectors of one discard segment: 1 GiB.
pub(super) const DISCARD_SECTORS_MAX: u32 = 1 << 21;

/// Segments of one discard request.
pub(super) const DISCARD_SEGMENTS_MAX: u32 = 32;

/// Sectors of one write-zeroes segment: 32 MiB, because a file system that cannot do it by itself gets the zeroes written.
pub(super) const WRITE_ZEROES_SECTORS_MAX: u32 = 1 << 16;

/// Segments of one write-zeroes request.
pub(super) const WRITE_ZEROES_SEGMENTS_MAX: u32 = 1;

/// What the configuration space tells about a disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    /// Sectors of 512 bytes.
    pub(super) capacity: u64,
    /// Bytes of a logical block.
    pub(super) block_size: u32,
    /// Bytes of a physical block, a power of two that is no less than the logical one.
    pub(super) physical_block_size: u32,
    pub(super) queues: u16,
    /// The driver's or the device's choice of a write-back cache.
    pub(super) write_back: bool,
}

impl Layout {
    /// The configuration space. `size_max` (offset 8) and `geometry` (16) stay 0: their features are not offered.
    pub(super) fn encode(&self) -> [u8; SIZE] {
        let physical = self.physical_block_size.max(self.block_size);
        let blocks_per_physical = physical.checked_div(self.block_size).unwrap_or(1);
        let discard_alignment = physical.checked_div(SECTOR as u32).unwrap_or(1);
        let mut bytes = [0; SIZE];
        let mut put = |offset: usize, field: &[u8]| {
            for (to, from) in bytes.iter_mut().skip(offset).zip(field) {
                *to = *from;
            }
        };
        put(offset::CAPACITY, &self.capacity.to_le_bytes());
        put(offset::SEG_MAX, &SEGMENTS_MAX.to_le_bytes());
        put(offset::BLK_SIZE, &self.block_size.to_le_bytes());
        put(offset::TOPOLOGY, &[blocks_per_physical.ilog2() as u8]); // physical_block_exp
        put(offset::TOPOLOGY + 1, &[0]); // alignment_offset: the first block is aligned
        let smallest = u16::try_from(blocks_per_physical).unwrap_or(u16::MAX);
        put(offset::TOPOLOGY + 2, &smallest.to_le_bytes()); // min_io_size, in logical blocks
        put(offset::TOPOLOGY + 4, &0_u32.to_le_bytes()); // opt_io_size: no preference
        put(offset::WRITEBACK, &[u8::from(self.write_back)]);
        put(offset::NUM_QUEUES, &self.queues.to_le_bytes());
        put(offset::MAX_DISCARD_SECTORS, &DISCARD_SECTORS_MAX.to_le_bytes());
        put(offset::MAX_DISCARD_SEG, &DISCARD_SEGMENTS_MAX.to_le_bytes());
        put(offset::DISCARD_SECTOR_ALIGNMENT, &discard_alignment.to_le_bytes());
        put(offset::MAX_WRITE_ZEROES_SECTORS, &WRITE_ZEROES_SECTORS_MAX.to_le_bytes());
        put(offset::MAX_WRITE_ZEROES_SEG, &WRITE_ZEROES_SEGMENTS_MAX.to_le_bytes());
        put(offset::WRITE_ZEROES_MAY_UNMAP, &[1]);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_where_the_specification_puts_it() {
        let layout = Layout {
            capacity: 0x0102_0304_0506_0708,
            block_size: 512,
            physical_block_size: 4096,
            queues: 0x0a0b,
            write_back: true,
        };
        let expected = [
            8, 7, 6, 5, 4, 3, 2, 1, // capacity
            0, 0, 0, 0, // size_max
            126, 0, 0, 0, // seg_max
            0, 0, 0, 0, // geometry
            0, 2, 0, 0, // blk_size
            3, 0, 8, 0, 0, 0, 0, 0, // topology
            1, 0, // writeback, unused
            0x0b, 0x0a, // num_queues
            0, 0, 0x20, 0, 32, 0, 0, 0, 8, 0, 0, 0, // discard: sectors, segments, alignment
            0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, // write zeroes: sectors, segments, may_unmap, unused
        ];
        assert_eq!(layout.encode(), expected);
        assert_eq!(expected.len(), SIZE);
        assert_eq!(expected[offset::WRITEBACK], 1);
    }

    #[test]
    fn a_physical_block_is_never_smaller_than_a_logical_one() {
        let layout = Layout { capacity: 8, block_size: 4096, physical_block_size: 512, queues: 1, write_back: false };
        let bytes = layout.encode();
        assert_eq!((bytes[24], bytes[26], bytes[44]), (0, 1, 8));
    }
}
