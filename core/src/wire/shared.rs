//! Bytes: objects and memory regions shared between devices, front-end and back-end.

use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use super::{
    payload::{Body, Form, Payload, PayloadKind, SizeRule},
    scalar::{Scalar, layout},
    writer::{Content, Writer},
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

impl<'b> Payload<'b> for Option<Uuid> {
    const KIND: PayloadKind = PayloadKind::OptionalUuid;

    #[inline]
    fn decode(body: Body<'b>, form: Form) -> Option<Self> {
        if body.bytes.is_empty() { Some(None) } else { Uuid::decode(body, form).map(Some) }
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        self.as_ref().map_or(Content::Nothing, |uuid| Content::Bytes(uuid.as_bytes()))
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
        self.size_at(id.into())
    }

    #[inline(never)]
    fn size_at(&self, at: usize) -> u64 {
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

    #[inline(never)]
    fn decode(body: Body<'b>, _form: Form) -> Option<Self> {
        if !CONFIG_SIZE.allows(body.bytes.len()) {
            return None;
        }
        let (_, rest) = SharedMemoryHeader::ref_from_prefix(body.bytes).ok()?;
        <[<u64 as Scalar>::Wire]>::ref_from_bytes(rest).ok().map(|sizes| Self(Sizes::Received(sizes)))
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        Content::Sizes(self)
    }
}

/// Bytes of sizes, if no whole number of them.
pub(super) fn wrong_size(bytes: &[u8]) -> Option<u32> {
    let sizes = bytes.get(SharedMemoryHeader::SIZE..)?;
    CONFIG_SIZE.allows(bytes.len()).then(|| u32::try_from(sizes.len()).unwrap_or(u32::MAX))
}

impl SharedMemoryConfig<'_> {
    pub(super) fn write(&self, out: &mut Writer<'_>) {
        let mut regions = 0_u32;
        for at in 0..MAX_SHARED_REGIONS {
            regions = regions.saturating_add((self.size_at(at) != 0).into());
        }
        out.put(SharedMemoryHeader::new(regions).as_bytes());
        for at in 0..MAX_SHARED_REGIONS {
            out.put_number(self.size_at(at));
        }
    }
}
