//! What a disk tells of itself in its configuration space.
//!
//! Source: virtio 1.3, section "Block Device: Device configuration layout".

use vhost_core::VirtioFeatures;

/// Bytes of the configuration space that are read: up to the end of `write_zeroes_may_unmap`, which is what QEMU asks for
/// and so every back-end has.
pub(super) const CONFIG_SIZE: usize = 57;

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
        let queues = if features.contains(feature::MQ) { number(34..36) as u16 } else { 1 };
        Self {
            capacity: number(0..8),
            block_size: word(feature::BLOCK_SIZE, 20).max(super::SECTOR as u32),
            queues,
            most_discarded: word(feature::DISCARD, 36),
            most_zeroed: word(feature::WRITE_ZEROES, 48),
            is_read_only: features.contains(feature::READ_ONLY),
        }
    }
}

/// The features of disks that a client can make use of.
pub(super) mod feature {
    use vhost_core::VirtioFeatures;

    pub(in super::super) const READ_ONLY: VirtioFeatures = VirtioFeatures::from_bits_retain(1 << 5);
    pub(in super::super) const BLOCK_SIZE: VirtioFeatures = VirtioFeatures::from_bits_retain(1 << 6);
    pub(in super::super) const FLUSH: VirtioFeatures = VirtioFeatures::from_bits_retain(1 << 9);
    pub(in super::super) const MQ: VirtioFeatures = VirtioFeatures::from_bits_retain(1 << 12);
    pub(in super::super) const DISCARD: VirtioFeatures = VirtioFeatures::from_bits_retain(1 << 13);
    pub(in super::super) const WRITE_ZEROES: VirtioFeatures = VirtioFeatures::from_bits_retain(1 << 14);
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
