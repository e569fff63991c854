//! Where the parts of a ring lie, how long they are, and their translation.

use core::fmt;

use super::fault::{RingFault, RingPart};
use crate::{
    guest_memory::{Access, AddressSpace, GuestMemory},
    wire::feature::VirtioFeatures,
};

/// The most descriptors a ring can have, in both layouts.
pub const MAX_RING_SIZE: u16 = 32768;

/// The two forms of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingLayout {
    /// A descriptor table, an available ring and a used ring.
    Split,
    /// One ring of descriptors, and two areas that suppress notifications.
    Packed,
}

impl RingLayout {
    /// The layout that these acknowledged features mean.
    #[must_use]
    pub const fn of(features: VirtioFeatures) -> Self {
        if features.contains(VirtioFeatures::RING_PACKED) { Self::Packed } else { Self::Split }
    }

    /// Checks a ring size: 1 to 32768, and a power of two in a split ring.
    ///
    /// # Errors
    /// [`RingFault::Size`].
    pub fn check_size(self, size: u32) -> Result<u16, RingFault> {
        match u16::try_from(size) {
            Ok(checked @ 1..=MAX_RING_SIZE) if self == Self::Packed || checked.is_power_of_two() => Ok(checked),
            _ => Err(RingFault::Size { layout: self, size }),
        }
    }

    /// Bytes of the three parts of a ring of `size`: descriptors, what the driver writes, what the
    /// device writes.
    #[must_use]
    pub fn lengths(self, size: u16) -> [u64; 3] {
        self.parts(size).map(|part| part.length)
    }

    /// The three parts of a ring of `size`: descriptors, what the driver writes, what the device
    /// writes.
    pub(crate) fn parts(self, size: u16) -> [PartLayout; 3] {
        let entries = u64::from(size);
        let part = |part, header: u64, each: u64, alignment, access| PartLayout {
            part,
            length: entries.saturating_mul(each).saturating_add(header),
            alignment,
            access,
        };
        match self {
            // Both rings have flags and an index in front, and an event index behind.
            Self::Split => [
                part(RingPart::DescriptorTable, 0, 16, 16, Access::Read),
                part(RingPart::AvailableRing, 6, 2, 2, Access::Read),
                part(RingPart::UsedRing, 6, 8, 4, Access::ReadWrite),
            ],
            Self::Packed => [
                part(RingPart::DescriptorRing, 0, 16, 16, Access::ReadWrite),
                part(RingPart::DriverEvent, 4, 0, 4, Access::Read),
                part(RingPart::DeviceEvent, 4, 0, 4, Access::ReadWrite),
            ],
        }
    }
}

impl fmt::Display for RingLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Split => "split",
            Self::Packed => "packed",
        })
    }
}

/// One part of a ring: bytes, alignment, and what a device does with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartLayout {
    pub(crate) part: RingPart,
    pub(crate) length: u64,
    pub(crate) alignment: u64,
    pub(crate) access: Access,
}

/// Where the three parts of a ring are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingAddresses<A> {
    /// Split: the descriptor table. Packed: the descriptor ring. Aligned to 16.
    #[doc(alias = "desc")]
    pub descriptor: A,
    /// What the driver writes. Split: the available ring, aligned to 2. Packed: the driver event
    /// suppression area, aligned to 4.
    #[doc(alias = "avail")]
    pub driver: A,
    /// What the device writes. Split: the used ring. Packed: the device event suppression area.
    /// Aligned to 4.
    #[doc(alias = "used")]
    pub device: A,
}

/// The three parts of a ring, translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingParts<R> {
    /// Split: the descriptor table. Packed: the descriptor ring.
    pub descriptor: R,
    /// Split: the available ring. Packed: the driver event suppression area.
    pub driver: R,
    /// Split: the used ring. Packed: the device event suppression area.
    pub device: R,
}

/// Who asks for the parts of a ring: it decides which part is only read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingUser {
    /// The device: it reads what the driver writes.
    Device,
    /// The driver: it writes everything but what the device writes.
    Driver,
}

impl<R> RingParts<R> {
    /// Translates the parts of a ring of `size` descriptors.
    ///
    /// # Errors
    /// - [`RingFault::Size`]: no ring has this size.
    /// - [`RingFault::Misaligned`]: a part does not begin where it may.
    /// - [`RingFault::Unmapped`]: a part does not lie in memory as a whole, in one piece. After a
    ///   miss of the IOTLB the translation can be tried again.
    pub fn translate<M>(
        memory: &M,
        addresses: RingAddresses<M::Address>,
        layout: RingLayout,
        size: u32,
        user: RingUser,
    ) -> Result<Self, RingFault>
    where
        M: GuestMemory<Range = R> + ?Sized,
    {
        let [descriptor, driver, device] = layout.parts(layout.check_size(size)?);
        let translate = |address: M::Address, layout: PartLayout| {
            let PartLayout { part, length, alignment, access } = layout;
            let access = if user == RingUser::Driver { Access::ReadWrite } else { access };
            if !address.number().is_multiple_of(alignment) {
                return Err(RingFault::Misaligned { part, address: address.number(), alignment });
            }
            let unmapped = |cause| RingFault::Unmapped { part, address: address.number(), length, cause };
            memory.range(address, length, access).map_err(unmapped)
        };
        Ok(Self {
            descriptor: translate(addresses.descriptor, descriptor)?,
            driver: translate(addresses.driver, driver)?,
            device: translate(addresses.device, device)?,
        })
    }
}
