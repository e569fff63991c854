//! Where the parts of a ring lie, how long they are, and their translation.

use core::fmt;

use super::{
    agreed::Agreed,
    event::Wishes,
    fault::{PartFault, RingFault, RingPart},
};
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
    #[cfg_attr(for_size, inline(never))]
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
        self.parts().map(|part| part.length(size).into())
    }

    /// The three parts of a ring: descriptors, what the driver writes, what the device writes.
    pub(crate) const fn parts(self) -> &'static [PartLayout; 3] {
        match self {
            Self::Split => &SPLIT,
            Self::Packed => &PACKED,
        }
    }
}

/// Both rings have flags and an index in front, and an event index behind.
const SPLIT: [PartLayout; 3] = [
    PartLayout { part: RingPart::DescriptorTable, header: 0, each: 16, alignment: 16, access: Access::Read },
    PartLayout { part: RingPart::AvailableRing, header: 6, each: 2, alignment: 2, access: Access::Read },
    PartLayout { part: RingPart::UsedRing, header: 6, each: 8, alignment: 4, access: Access::ReadWrite },
];
const PACKED: [PartLayout; 3] = [
    PartLayout { part: RingPart::DescriptorRing, header: 0, each: 16, alignment: 16, access: Access::ReadWrite },
    PartLayout { part: RingPart::DriverEvent, header: 4, each: 0, alignment: 4, access: Access::Read },
    PartLayout { part: RingPart::DeviceEvent, header: 4, each: 0, alignment: 4, access: Access::ReadWrite },
];

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
    /// Bytes without descriptors, and for each of them.
    header: u8,
    each: u8,
    pub(crate) alignment: u8,
    access: Access,
}

impl PartLayout {
    /// Bytes of the part in a ring of `size`.
    pub(crate) fn length(&self, size: u16) -> u32 {
        // Far from the end of 32 bits.
        u32::from(size).wrapping_mul(self.each.into()).wrapping_add(self.header.into())
    }

    /// The part of a ring of `size` that begins at `address`; `None` if it cannot be there, and then why.
    #[cfg_attr(for_size, inline(never))]
    fn translate<M>(
        &self,
        memory: &M,
        address: M::Address,
        size: u16,
        user: RingUser,
        fault: &mut Option<PartFault>,
    ) -> Option<M::Range>
    where
        M: GuestMemory + ?Sized,
    {
        let Self { part, alignment, access, .. } = *self;
        let access = if user == RingUser::Driver { Access::ReadWrite } else { access };
        let (length, number, alignment) = (self.length(size).into(), address.number(), u64::from(alignment));
        // The alignment is a power of two.
        if number & alignment.wrapping_sub(1) != 0 {
            *fault = Some(PartFault::Misaligned { part, address: number, alignment });
            return None;
        }
        match memory.range(address, length, access) {
            Ok(range) => Some(range),
            Err(cause) => {
                *fault = Some(PartFault::Unmapped { part, address: number, length, cause });
                None
            }
        }
    }
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
    /// What the driver wants to be called for.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn driver_wishes(&self, layout: RingLayout, size: u16, agreed: Agreed) -> Wishes<'_, R> {
        let [_, part, _] = layout.parts();
        Wishes { range: &self.driver, part, layout, size, event_idx: agreed.event_idx }
    }

    /// What the device wants to be kicked for.
    #[cfg_attr(not(for_size), inline)]
    pub(crate) fn device_wishes(&self, layout: RingLayout, size: u16, agreed: Agreed) -> Wishes<'_, R> {
        let [_, _, part] = layout.parts();
        Wishes { range: &self.device, part, layout, size, event_idx: agreed.event_idx }
    }

    /// Translates the parts of a ring of `size` descriptors.
    ///
    /// # Errors
    /// - [`PartFault::Ring`]: no ring has this size.
    /// - [`PartFault::Misaligned`]: a part does not begin where it may.
    /// - [`PartFault::Unmapped`]: a part does not lie in memory as a whole, in one piece. After a
    ///   miss of the IOTLB the translation can be tried again.
    pub fn translate<M>(
        memory: &M,
        addresses: RingAddresses<M::Address>,
        layout: RingLayout,
        size: u32,
        user: RingUser,
    ) -> Result<Self, PartFault>
    where
        M: GuestMemory<Range = R> + ?Sized,
    {
        let size = layout.check_size(size)?;
        let [descriptor, driver, device] = layout.parts();
        let mut fault = None;
        let mut translate =
            |part: &PartLayout, address: M::Address| part.translate(memory, address, size, user, &mut fault);
        if let Some(descriptor) = translate(descriptor, addresses.descriptor)
            && let Some(driver) = translate(driver, addresses.driver)
            && let Some(device) = translate(device, addresses.device)
        {
            return Ok(Self { descriptor, driver, device });
        }
        // There is always one.
        Err(fault.unwrap_or(PartFault::Ring(RingFault::Size { layout, size: size.into() })))
    }
}
