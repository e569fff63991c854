//! Bytes: memory regions, one or a table of them, with and without the Xen fields.

use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use crate::address::{GuestAddress, UserAddress};

use super::{
    feature::ProtocolFeatures,
    payload::{Body, Form, Payload, PayloadKind, SizeRule, is_of_size},
    scalar::layout,
    writer::{Content, Writer},
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

    /// The region that these bytes begin with.
    #[inline]
    fn read(bytes: &[u8], form: Form) -> Option<Self> {
        if has_xen(form) {
            XenRegionLayout::ref_from_prefix(bytes).ok().map(|(region, _)| Self::from(region))
        } else {
            RegionLayout::ref_from_prefix(bytes).ok().map(|(region, _)| Self::from(region))
        }
    }

    /// Writes it as a payload of its own.
    pub(super) fn write(&self, out: &mut Writer<'_>, form: Form) {
        out.put(SinglePadding::new().as_bytes());
        self.write_alone(out, form);
    }

    #[inline(never)]
    fn write_alone(&self, out: &mut Writer<'_>, form: Form) {
        let xen = self.xen.unwrap_or(Xen { flags: 0, domain_id: 0 });
        let whole = XenRegionLayout::new(
            self.guest_address,
            self.size,
            self.user_address,
            self.mmap_offset,
            xen.flags,
            xen.domain_id,
        );
        // Without the Xen fields, which are its end, it is the other layout.
        out.put(whole.as_bytes().get(..region_size(form)).unwrap_or_default());
    }
}

fn has_xen(form: Form) -> bool {
    form.protocol.contains(ProtocolFeatures::XEN_MMAP)
}

/// Bytes of a region.
fn region_size(form: Form) -> usize {
    if has_xen(form) { XenRegionLayout::SIZE } else { RegionLayout::SIZE }
}

/// Bytes of a payload that is one region.
pub(super) fn single_size(form: Form) -> usize {
    region_size(form).saturating_add(SinglePadding::SIZE)
}

impl<'b> Payload<'b> for MemoryRegion {
    const KIND: PayloadKind = PayloadKind::SingleRegion;

    #[inline(never)]
    fn decode(body: Body<'b>, form: Form) -> Option<Self> {
        let fits = is_of_size(body.bytes, single_size(form), form);
        body.bytes.get(SinglePadding::SIZE..).filter(|_| fits).and_then(|rest| Self::read(rest, form))
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        Content::Region(self)
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

    pub(super) fn write(&self, out: &mut Writer<'_>, form: Form) {
        match u32::try_from(self.len()) {
            Ok(count) => out.put(TableHeader::new(count).as_bytes()),
            Err(_) => return out.overflow(),
        }
        for region in self.iter() {
            region.write_alone(out, form);
        }
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

    #[inline(never)]
    fn decode(body: Body<'b>, form: Form) -> Option<Self> {
        let (header, rest) = TableHeader::ref_from_prefix(body.bytes).ok()?;
        let count = usize::try_from(header.count()).ok().filter(|count| *count <= MAX_TABLE_REGIONS)?;
        // Old front-ends send all eight slots of the table whatever the count.
        let all_slots = table_size(MAX_TABLE_REGIONS, form);
        if body.bytes.len() != all_slots && !is_of_size(body.bytes, table_size(count, form), form) {
            return None;
        }
        let regions = if has_xen(form) {
            Regions::ReceivedXen(<_>::ref_from_prefix_with_elems(rest, count).ok()?.0)
        } else {
            Regions::Received(<_>::ref_from_prefix_with_elems(rest, count).ok()?.0)
        };
        Some(Self(regions))
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        Content::Table(self)
    }
}

/// Bytes of a table of so many regions.
fn table_size(count: usize, form: Form) -> usize {
    TableHeader::SIZE.saturating_add(count.saturating_mul(region_size(form)))
}

/// How many regions a table says it has, if these are too many.
pub(super) fn wrong_count(bytes: &[u8]) -> Option<u32> {
    let (header, _) = TableHeader::ref_from_prefix(bytes).ok()?;
    let fits = usize::try_from(header.count()).is_ok_and(|count| count <= MAX_TABLE_REGIONS);
    if fits { None } else { Some(header.count()) }
}

/// How many bytes a table should be.
pub(super) fn size_of_table(bytes: &[u8], form: Form) -> Option<usize> {
    let (header, _) = TableHeader::ref_from_prefix(bytes).ok()?;
    usize::try_from(header.count()).ok().map(|count| table_size(count, form))
}
