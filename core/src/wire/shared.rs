//! Bytes: objects and memory regions shared between devices, front-end and back-end.

use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use super::{
    misfit::{FieldRule, Misfit},
    payload::{Form, Payload, PayloadKind, SizeRule, TrailingBytes, Writer, fixed},
    scalar::{Scalar, layout},
};

layout! {
    /// The UUID of a shared object: 16 bytes, the first three fields big-endian.
    pub struct Uuid (16 bytes) {
        /// The bytes in the order of their textual form.
        field bytes: [u8; 16],
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.bytes.iter().enumerate() {
            if matches!(position, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl<'b> Payload<'b> for Uuid {
    const KIND: PayloadKind = PayloadKind::Uuid;

    /// Never with bytes after it: older virtio-fs back-ends send 256 bytes under the ids of shared
    /// objects and mean mappings.
    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit> {
        fixed::<Self>(bytes, form.with_trailing_bytes(TrailingBytes::Refuse)).copied()
    }

    fn encode(&self, out: &mut Writer<'_>, _form: Form) {
        out.put(self.as_bytes());
    }
}

impl<'b> Payload<'b> for Option<Uuid> {
    const KIND: PayloadKind = PayloadKind::OptionalUuid;

    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit> {
        if bytes.is_empty() { Ok(None) } else { Uuid::decode(bytes, form).map(Some) }
    }

    fn encode(&self, out: &mut Writer<'_>, form: Form) {
        if let Some(uuid) = self {
            uuid.encode(out, form);
        }
    }
}

layout! {
    /// A mapping in a shared memory region (`SHMEM_MAP`, `SHMEM_UNMAP`).
    pub struct SharedMemoryMap (40 bytes) {
        /// Which shared memory region.
        field region: u8,
        padding reserved: 7,
        /// Offset in the descriptor, in bytes; ignored when unmapping.
        field file_offset: u64,
        /// Offset in the region, in bytes.
        field region_offset: u64,
        /// Bytes.
        field length: u64,
        /// Bit 0: writable, see [`SharedMemoryMap::READ_WRITE`].
        field flags: u64,
    }
}

impl SharedMemoryMap {
    /// Flag bit 0: the mapping may be written.
    pub const READ_WRITE: u64 = 1;
}

/// How many shared memory regions a device can have.
pub const MAX_SHARED_REGIONS: usize = 256;

/// Older peers send fewer entries than there can be.
pub(crate) const CONFIG_SIZE: SizeRule =
    SizeRule::Between(SharedMemoryHeader::SIZE, SharedMemoryHeader::SIZE + MAX_SHARED_REGIONS * 8);

layout! {
    /// What stands in front of the sizes of the shared memory regions.
    pub struct SharedMemoryHeader (8 bytes) {
        /// How many regions have a size that is not zero.
        field regions: u32,
        padding reserved: 4,
    }
}

/// The sizes of the shared memory regions (`GET_SHMEM_CONFIG`), in bytes, by region.
#[derive(Clone, Copy)]
pub struct SharedMemoryConfig<'b>(Sizes<'b>);

#[derive(Clone, Copy)]
enum Sizes<'b> {
    Received(&'b [<u64 as Scalar>::Wire]),
    Given(&'b [u64]),
}

impl<'b> SharedMemoryConfig<'b> {
    /// The regions of these sizes; those after the 256th are left out.
    #[must_use]
    pub fn new(sizes: &'b [u64]) -> Self {
        Self(Sizes::Given(sizes.get(..MAX_SHARED_REGIONS).unwrap_or(sizes)))
    }

    /// The size of region `id` in bytes; zero if the device has none of that id.
    #[must_use]
    pub fn size(&self, id: u8) -> u64 {
        let at = usize::from(id);
        match self.0 {
            Sizes::Received(sizes) => sizes.get(at).map_or(0, |size| size.get()),
            Sizes::Given(sizes) => sizes.get(at).copied().unwrap_or(0),
        }
    }

    /// The sizes of all 256 regions in order.
    pub fn sizes(&self) -> impl Iterator<Item = u64> + '_ {
        (0..=u8::MAX).map(|id| self.size(id))
    }
}

impl PartialEq for SharedMemoryConfig<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.sizes().eq(other.sizes())
    }
}

impl Eq for SharedMemoryConfig<'_> {}

impl fmt::Debug for SharedMemoryConfig<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.sizes().enumerate().filter(|(_, size)| *size != 0)).finish()
    }
}

impl<'b> Payload<'b> for SharedMemoryConfig<'b> {
    const KIND: PayloadKind = PayloadKind::SharedMemoryConfig;

    fn decode(bytes: &'b [u8], _form: Form) -> Result<Self, Misfit> {
        if !CONFIG_SIZE.allows(bytes.len()) {
            return Err(Misfit::Size);
        }
        let (_, rest) = SharedMemoryHeader::ref_from_prefix(bytes).map_err(|_| Misfit::Size)?;
        let sizes = <[<u64 as Scalar>::Wire]>::ref_from_bytes(rest).map_err(|_| {
            static RULE: FieldRule = FieldRule { name: "sizes", expected: "whole numbers of 8 bytes" };
            Misfit::Field(&RULE, u32::try_from(rest.len()).unwrap_or(u32::MAX))
        })?;
        Ok(Self(Sizes::Received(sizes)))
    }

    fn encode(&self, out: &mut Writer<'_>, form: Form) {
        let regions = self.sizes().filter(|size| *size != 0).fold(0_u32, |count, _| count.saturating_add(1));
        out.put(SharedMemoryHeader::new(regions).as_bytes());
        for size in self.sizes() {
            size.encode(out, form);
        }
    }
}
