//! Descriptors: the 16 bytes that name one buffer, in both layouts.

/// Bytes of a descriptor, in tables and in packed rings.
pub(crate) const DESCRIPTOR_BYTES: u16 = 16;

/// The buffer goes on in another descriptor (`VIRTQ_DESC_F_NEXT`).
pub(crate) const NEXT: u16 = 1;
/// The device writes the buffer, or has written it (`VIRTQ_DESC_F_WRITE`).
pub(crate) const WRITE: u16 = 1 << 1;
/// The buffer is a table of descriptors (`VIRTQ_DESC_F_INDIRECT`).
pub(crate) const INDIRECT: u16 = 1 << 2;
/// Packed: equals the driver's wrap counter when the descriptor was made available.
pub(crate) const AVAILABLE: u16 = 1 << 7;
/// Packed: equals the device's wrap counter when the descriptor was used.
pub(crate) const USED: u16 = 1 << 15;
const BOTH: u16 = AVAILABLE | USED;

/// A copy of one descriptor: what was read once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    /// Split: the next descriptor. Packed: the buffer id.
    pub(crate) link: u16,
}

impl Descriptor {
    /// Memory that nobody has used yet.
    pub(crate) const ZERO: Self = Self { address: 0, length: 0, flags: 0, link: 0 };

    /// From a descriptor table: address, length, flags, next.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn from_table(number: u128) -> Self {
        Self {
            address: u64::try_from(number & u128::from(u64::MAX)).unwrap_or(0),
            length: u32::try_from(number >> 64 & 0xffff_ffff).unwrap_or(0),
            flags: u16::try_from(number >> 96 & 0xffff).unwrap_or(0),
            link: u16::try_from(number >> 112).unwrap_or(0),
        }
    }

    /// From a packed ring: address, length, id, flags.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn from_ring(number: u128) -> Self {
        let swapped = Self::from_table(number);
        Self { flags: swapped.link, link: swapped.flags, ..swapped }
    }

    #[inline]
    pub(crate) fn to_table(self) -> [u8; 16] {
        let Self { address, length, flags, link } = self;
        let number = u128::from(address) | u128::from(length) << 64 | u128::from(flags) << 96 | u128::from(link) << 112;
        number.to_le_bytes()
    }

    #[inline]
    pub(crate) fn to_ring(self) -> [u8; 16] {
        Self { flags: self.link, link: self.flags, ..self }.to_table()
    }

    #[inline]
    pub(crate) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Packed: whether these flags say that the driver made the descriptor available in the lap `wrap`.
#[inline]
pub(crate) fn is_available(flags: u16, wrap: bool) -> bool {
    flags & BOTH == available_flags(wrap)
}

/// Packed: whether these flags say that the device used the descriptor in the lap `wrap`.
#[inline]
pub(crate) fn is_used(flags: u16, wrap: bool) -> bool {
    flags & BOTH == used_flags(wrap)
}

/// Packed: the flags that make a descriptor available in the lap `wrap`.
#[inline]
pub(crate) fn available_flags(wrap: bool) -> u16 {
    if wrap { AVAILABLE } else { USED }
}

/// Packed: the flags that make a descriptor used in the lap `wrap`.
#[inline]
pub(crate) fn used_flags(wrap: bool) -> u16 {
    if wrap { BOTH } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_decode_what_was_written_by_hand() {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];
        let descriptor =
            Descriptor { address: 0x0807_0605_0403_0201, length: 0x0c0b_0a09, flags: 0x0e0d, link: 0x100f };
        assert_eq!(Descriptor::from_table(u128::from_le_bytes(bytes)), descriptor);
        assert_eq!(descriptor.to_table(), bytes);
        let in_ring = Descriptor { flags: 0x100f, link: 0x0e0d, ..descriptor };
        assert_eq!(Descriptor::from_ring(u128::from_le_bytes(bytes)), in_ring);
        assert_eq!(in_ring.to_ring(), bytes);
    }

    #[test]
    fn a_descriptor_is_available_or_used_in_one_lap_only() {
        for wrap in [false, true] {
            let (available, used) = (available_flags(wrap), used_flags(wrap));
            assert!(is_available(available, wrap) && !is_available(available, !wrap));
            assert!(is_used(used, wrap) && !is_used(used, !wrap));
            assert!(!is_used(available, wrap) && !is_used(available, !wrap));
            assert!(!is_available(used, wrap) && !is_available(used, !wrap));
        }
    }
}
