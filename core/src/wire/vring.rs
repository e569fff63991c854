//! Bytes: payloads that concern one ring.

use crate::address::{GuestAddress, RingAddress};

use super::scalar::layout;

layout! {
    /// A ring's index and a number whose meaning the request gives: size, base, on or off.
    pub struct VringState (8 bytes) {
        /// The ring, from 0.
        field index: u32,
        /// The number.
        field num: u32,
    }
}

layout! {
    /// Where a ring's three parts lie (`SET_VRING_ADDR`).
    pub struct VringAddr (40 bytes) {
        /// The ring, from 0.
        field index: u32,
        /// Bit 0: log writes to the used ring, see [`VringAddr::LOG`].
        field flags: u32,
        /// Descriptor table, or the packed descriptor ring.
        field descriptor: RingAddress,
        /// Used ring, or the device event suppression area.
        field used: RingAddress,
        /// Available ring, or the driver event suppression area.
        field available: RingAddress,
        /// Guest address under which writes to the used ring are logged; may lie outside every
        /// memory region and means nothing without [`VringAddr::LOG`].
        field log: GuestAddress,
    }
}

impl VringAddr {
    /// Flag bit 0: writes to the used ring are logged.
    pub const LOG: u32 = 1;

    /// Whether writes to the used ring are logged.
    #[must_use]
    pub fn logs_used(&self) -> bool {
        self.flags() & Self::LOG != 0
    }
}

layout! {
    /// Which ring a kick, call or error descriptor is for, and whether one comes at all.
    pub struct VringDescriptor (8 bytes) {
        /// Bits 0 to 7: the ring. Bit 8: no descriptor comes. All others are zero.
        field bits: u64,
    }
}

impl VringDescriptor {
    /// Bit 8: no descriptor comes with the message (polling, or in-band notifications).
    pub const NO_DESCRIPTOR: u64 = 1 << 8;

    /// The message for ring `index` with a descriptor.
    #[must_use]
    pub fn with_descriptor(index: u8) -> Self {
        Self::new(u64::from(index))
    }

    /// The message for ring `index` without a descriptor.
    #[must_use]
    pub fn without_descriptor(index: u8) -> Self {
        Self::new(u64::from(index) | Self::NO_DESCRIPTOR)
    }

    /// The ring. Bits that have no meaning are kept in the result, so that an index beyond 255 is
    /// refused like any other ring that does not exist instead of being cut to one that does.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.bits() & !Self::NO_DESCRIPTOR
    }

    /// Whether a descriptor comes with the message.
    #[must_use]
    pub fn has_descriptor(&self) -> bool {
        self.bits() & Self::NO_DESCRIPTOR == 0
    }
}

layout! {
    /// A window of a descriptor that is a ring's doorbell (`VRING_HOST_NOTIFIER_MSG`).
    pub struct VringArea (24 bytes) {
        /// Bits 0 to 7: the ring. Bit 8: no descriptor comes, the doorbell is taken away.
        field bits: u64,
        /// Bytes; the page size of the host.
        field size: u64,
        /// Offset in the descriptor, in bytes.
        field offset: u64,
    }
}

impl VringArea {
    /// Which ring, and whether a descriptor comes.
    #[must_use]
    pub fn target(&self) -> VringDescriptor {
        VringDescriptor::new(self.bits())
    }
}

/// Where a back-end goes on in a ring, as `SET_VRING_BASE` and `GET_VRING_BASE` carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VringBase {
    /// A split ring.
    Split {
        /// The next available index, running freely from 0 to 65535.
        available: u16,
    },
    /// A packed ring.
    Packed {
        /// The next available descriptor, 0 to 32767.
        available: u16,
        /// Its wrap counter.
        available_wrap: bool,
        /// The next used descriptor, 0 to 32767.
        used: u16,
        /// Its wrap counter.
        used_wrap: bool,
    },
}

impl VringBase {
    /// Reads the number of a split ring's message; the upper half is dropped.
    #[must_use]
    pub fn split(num: u32) -> Self {
        Self::Split { available: low_half(num) }
    }

    /// Reads the number of a packed ring's message. DPDK sends the available half only: then the
    /// used position is the same, because nothing was in flight.
    #[must_use]
    pub fn packed(num: u32) -> Self {
        let available = low_half(num);
        let used = match low_half(num >> 16) {
            0 if available != 0 => available,
            used => used,
        };
        Self::Packed {
            available: available & 0x7fff,
            available_wrap: available & 0x8000 != 0,
            used: used & 0x7fff,
            used_wrap: used & 0x8000 != 0,
        }
    }

    /// The number for a message.
    #[must_use]
    pub fn to_num(self) -> u32 {
        match self {
            Self::Split { available } => u32::from(available),
            Self::Packed { available, available_wrap, used, used_wrap } => {
                let half = |index: u16, wrap: bool| u32::from(index & 0x7fff) | (u32::from(wrap) << 15);
                half(available, available_wrap) | (half(used, used_wrap) << 16)
            }
        }
    }
}

fn low_half(num: u32) -> u16 {
    let [a, b, c, d] = num.to_le_bytes();
    let _ = (c, d);
    u16::from_le_bytes([a, b])
}
