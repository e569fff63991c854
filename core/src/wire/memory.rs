//! Bytes: memory regions, one or a table of them, with and without the Xen fields.

use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use crate::address::{GuestAddress, UserAddress};

use super::{
    feature::ProtocolFeatures,
    misfit::{FieldRule, Misfit},
    payload::{Form, Payload, PayloadKind, SizeRule, TrailingBytes, Writer, fixed},
    scalar::layout,
};

/// The most regions one memory table carries, and so the most descriptors of any message.
pub const MAX_TABLE_REGIONS: usize = 8;

pub(crate) const TABLE_SIZE: SizeRule =
    SizeRule::Between(TableHeader::SIZE, TableHeader::SIZE + MAX_TABLE_REGIONS * XenRegionLayout::SIZE);
pub(crate) const SINGLE_SIZE: SizeRule =
    SizeRule::Either(SinglePadding::SIZE + RegionLayout::SIZE, SinglePadding::SIZE + XenRegionLayout::SIZE);

layout! {
    /// What stands in front of the regions of a table.
    pub struct TableHeader (8 bytes) {
        /// How many regions follow, at most [`MAX_TABLE_REGIONS`].
        field count: u32,
        padding reserved: 4,
    }
}

layout! {
    /// What stands in front of a single region.
    pub struct SinglePadding (8 bytes) {
        padding reserved: 8,
    }
}

layout! {
    /// A memory region as it lies on the wire.
    pub struct RegionLayout (32 bytes) {
        /// First guest physical address.
        field guest_address: GuestAddress,
        /// Bytes.
        field size: u64,
        /// First address in the front-end's address space.
        field user_address: UserAddress,
        /// Offset of the region's first byte in its file.
        field mmap_offset: u64,
    }
}

layout! {
    /// A memory region as it lies on the wire with `XEN_MMAP`.
    pub struct XenRegionLayout (40 bytes) {
        /// First guest physical address.
        field guest_address: GuestAddress,
        /// Bytes.
        field size: u64,
        /// First address in the front-end's address space.
        field user_address: UserAddress,
        /// Offset of the region's first byte in its file.
        field mmap_offset: u64,
        /// See [`Xen`].
        field xen_flags: u32,
        /// The domain the memory belongs to.
        field domain_id: u32,
    }
}

/// The Xen fields of a memory region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xen {
    /// See [`Xen::FOREIGN`] and the constants beside it.
    pub flags: u32,
    /// The domain the memory belongs to.
    pub domain_id: u32,
}

impl Xen {
    /// Flag bit 0: foreign mapping.
    pub const FOREIGN: u32 = 1;
    /// Flag bit 1: grant mapping.
    pub const GRANT: u32 = 1 << 1;
    /// Flag bit 8: nothing is mapped in advance.
    pub const NO_ADVANCE_MAP: u32 = 1 << 8;
}

/// A part of the guest's memory and where both sides find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryRegion {
    /// First guest physical address.
    pub guest_address: GuestAddress,
    /// Bytes.
    pub size: u64,
    /// First address in the front-end's address space.
    pub user_address: UserAddress,
    /// Offset of the region's first byte in its file; means nothing when a region is removed.
    pub mmap_offset: u64,
    /// With `XEN_MMAP` only. A region without is sent with zeros when the session has it.
    pub xen: Option<Xen>,
}

impl fmt::Display for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "region (guest {}, user {}, size {:#x}, file offset {:#x})",
            self.guest_address, self.user_address, self.size, self.mmap_offset
        )
    }
}

impl From<&RegionLayout> for MemoryRegion {
    fn from(wire: &RegionLayout) -> Self {
        Self {
            guest_address: wire.guest_address(),
            size: wire.size(),
            user_address: wire.user_address(),
            mmap_offset: wire.mmap_offset(),
            xen: None,
        }
    }
}

impl From<&XenRegionLayout> for MemoryRegion {
    fn from(wire: &XenRegionLayout) -> Self {
        Self {
            guest_address: wire.guest_address(),
            size: wire.size(),
            user_address: wire.user_address(),
            mmap_offset: wire.mmap_offset(),
            xen: Some(Xen { flags: wire.xen_flags(), domain_id: wire.domain_id() }),
        }
    }
}

impl MemoryRegion {
    /// A region of `size` bytes, without Xen fields.
    #[must_use]
    pub const fn new(guest_address: GuestAddress, size: u64, user_address: UserAddress, mmap_offset: u64) -> Self {
        Self { guest_address, size, user_address, mmap_offset, xen: None }
    }

    fn write(&self, out: &mut Writer<'_>, form: Form) {
        let plain = RegionLayout::new(self.guest_address, self.size, self.user_address, self.mmap_offset);
        if !has_xen(form) {
            return out.put(plain.as_bytes());
        }
        let xen = self.xen.unwrap_or(Xen { flags: 0, domain_id: 0 });
        let whole = XenRegionLayout::new(
            self.guest_address,
            self.size,
            self.user_address,
            self.mmap_offset,
            xen.flags,
            xen.domain_id,
        );
        out.put(whole.as_bytes());
    }
}

fn has_xen(form: Form) -> bool {
    form.protocol.contains(ProtocolFeatures::XEN_MMAP)
}

impl<'b> Payload<'b> for MemoryRegion {
    const KIND: PayloadKind = PayloadKind::SingleRegion;

    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit> {
        fn read<T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned>(
            bytes: &[u8],
            form: Form,
        ) -> Result<&T, Misfit> {
            let rest = bytes.get(SinglePadding::SIZE..).unwrap_or_default();
            fixed(rest, form).map_err(|_| Misfit::Exactly(SinglePadding::SIZE.saturating_add(size_of::<T>())))
        }
        if has_xen(form) {
            read::<XenRegionLayout>(bytes, form).map(Self::from)
        } else {
            read::<RegionLayout>(bytes, form).map(Self::from)
        }
    }

    fn encode(&self, out: &mut Writer<'_>, form: Form) {
        out.put(SinglePadding::new().as_bytes());
        self.write(out, form);
    }
}

/// The regions of a memory table: read in place, or given by the caller.
#[derive(Clone, Copy)]
pub struct MemoryTable<'b>(Regions<'b>);

#[derive(Clone, Copy)]
enum Regions<'b> {
    Received(&'b [RegionLayout]),
    ReceivedXen(&'b [XenRegionLayout]),
    Given(&'b [MemoryRegion]),
}

impl<'b> MemoryTable<'b> {
    /// A table of these regions.
    #[must_use]
    pub fn new(regions: &'b [MemoryRegion]) -> Self {
        Self(Regions::Given(regions))
    }

    /// How many regions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.0 {
            Regions::Received(regions) => regions.len(),
            Regions::ReceivedXen(regions) => regions.len(),
            Regions::Given(regions) => regions.len(),
        }
    }

    /// Whether there is no region.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The regions in order.
    pub fn iter(&self) -> impl Iterator<Item = MemoryRegion> + 'b {
        let table = *self;
        (0..table.len()).map_while(move |at| table.get(at))
    }

    /// The region at this place.
    // On its own, because of its many forms.
    #[inline(never)]
    pub(crate) fn get(&self, at: usize) -> Option<MemoryRegion> {
        match self.0 {
            Regions::Received(regions) => regions.get(at).map(MemoryRegion::from),
            Regions::ReceivedXen(regions) => regions.get(at).map(MemoryRegion::from),
            Regions::Given(regions) => regions.get(at).copied(),
        }
    }
}

impl PartialEq for MemoryTable<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for MemoryTable<'_> {}

impl fmt::Debug for MemoryTable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'b> Payload<'b> for MemoryTable<'b> {
    const KIND: PayloadKind = PayloadKind::MemoryTable;

    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit> {
        let (header, rest) = TableHeader::ref_from_prefix(bytes).map_err(|_| Misfit::Size)?;
        let count = match usize::try_from(header.count()) {
            Ok(count) if count <= MAX_TABLE_REGIONS => count,
            _ => {
                static RULE: FieldRule = FieldRule { name: "count", expected: "at most 8 regions" };
                return Err(Misfit::Field(&RULE, header.count()));
            }
        };
        if has_xen(form) {
            regions(rest, count, form).map(|regions| Self(Regions::ReceivedXen(regions)))
        } else {
            regions(rest, count, form).map(|regions| Self(Regions::Received(regions)))
        }
    }

    fn encode(&self, out: &mut Writer<'_>, form: Form) {
        match u32::try_from(self.len()) {
            Ok(count) => out.put(TableHeader::new(count).as_bytes()),
            Err(_) => return out.overflow(),
        }
        for region in self.iter() {
            region.write(out, form);
        }
    }
}

/// `count` regions; old front-ends send all eight slots of the table whatever the count.
fn regions<T>(rest: &[u8], count: usize, form: Form) -> Result<&[T], Misfit>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + zerocopy::Unaligned,
{
    let wrong_size = Misfit::Exactly(TableHeader::SIZE.saturating_add(count.saturating_mul(size_of::<T>())));
    let Ok((regions, trailing)) = <[T]>::ref_from_prefix_with_elems(rest, count) else { return Err(wrong_size) };
    let all_slots = rest.len() == MAX_TABLE_REGIONS.saturating_mul(size_of::<T>());
    if trailing.is_empty() || all_slots || form.trailing == TrailingBytes::Ignore {
        Ok(regions)
    } else {
        Err(wrong_size)
    }
}
