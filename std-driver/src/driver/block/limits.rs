//! What a disk tells of itself in its configuration space.
//!
//! Source: virtio 1.3, section "Block Device: Device configuration layout".

use vhost_core::VirtioFeatures;

use crate::block::format::{SECTOR, config as offset};

/// Bytes of the configuration space that are read: up to the end of `write_zeroes_may_unmap`, which is what QEMU asks for
/// and so every back-end has.
pub(super) const CONFIG_SIZE: usize = offset::WRITE_ZEROES_MAY_UNMAP + 1;

/// What a disk tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockLimits {
    /// Sectors.
    pub capacity: u64,
    /// Bytes of a block, which requests should be multiples of.
    pub block_size: u32,
    /// How many queues there are.
    pub queues: u16,
    /// The most sectors of one discard request; zero if the disk knows none.
    pub most_discarded: u32,
    /// The most sectors of one request to fill with zeros; zero if the disk knows none.
    pub most_zeroed: u32,
    /// Whether the disk refuses writes.
    pub is_read_only: bool,
}

impl BlockLimits {
    pub(super) fn new(config: &[u8; CONFIG_SIZE], features: VirtioFeatures) -> Self {
        let number = |range: core::ops::Range<usize>| {
            let bytes = config.get(range).unwrap_or_default();
            bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        // A field counts only if its feature was agreed on.
        let word = |feature, at: usize| if features.contains(feature) { number(at..at + 4) as u32 } else { 0 };
        let queues =
            if features.contains(feature::MQ) { number(offset::NUM_QUEUES..offset::NUM_QUEUES + 2) as u16 } else { 1 };
        Self {
            capacity: number(offset::CAPACITY..offset::CAPACITY + 8),
            block_size: word(feature::BLOCK_SIZE, offset::BLK_SIZE).max(SECTOR as u32),
            queues,
            most_discarded: word(feature::DISCARD, offset::MAX_DISCARD_SECTORS),
            most_zeroed: word(feature::WRITE_ZEROES, offset::MAX_WRITE_ZEROES_SECTORS),
            is_read_only: features.contains(feature::READ_ONLY),
        }
    }
}

/// The features of disks that a client can make use of.
pub(super) mod feature {
    use vhost_core::VirtioFeatures;

    use crate::block::format::feature;

    pub(in super::super) const READ_ONLY: VirtioFeatures = VirtioFeatures::from_bits_retain(feature::RO);
    pub(in super::super) const BLOCK_SIZE: VirtioFeatures = VirtioFeatures::from_bits_retain(feature::BLK_SIZE);
    pub(in super::super) const FLUSH: VirtioFeatures = VirtioFeatures::from_bits_retain(feature::FLUSH);
    pub(in super::super) const MQ: VirtioFeatures = VirtioFeatures::from_bits_retain(feature::MQ);
    pub(in super::super) const DISCARD: VirtioFeatures = VirtioFeatures::from_bits_retain(feature::DISCARD);
    pub(in super::super) const WRITE_ZEROES: VirtioFeatures = VirtioFeatures::from_bits_retain(feature::WRITE_ZEROES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_without_their_feature_mean_nothing() {
        let config = core::array::from_fn(|at| at as u8 + 1);
        let none = BlockLimits::new(&config, VirtioFeatures::empty());
        assert_eq!(none.capacity, 0x0807_0605_0403_0201);
        assert_eq!((none.block_size, none.queues, none.most_discarded, none.is_read_only), (512, 1, 0, false));
        let all = BlockLimits::new(&config, VirtioFeatures::all());
        assert_eq!((all.block_size, all.queues), (0x1817_1615, 0x2423));
        assert_eq!((all.most_discarded, all.most_zeroed), (0x2827_2625, 0x3433_3231));
        assert!(all.is_read_only);
    }
}
