//! Bytes: requests about mappings in a virtio-fs DAX window, in the layouts of their dialects.

use core::fmt;

use bitflags::bitflags;
use zerocopy::{FromBytes, IntoBytes, native_endian::U64};

use super::{
    payload::{Body, Form, Payload, PayloadKind, SizeRule},
    scalar::layout,
    writer::{Content, Writer},
};
use crate::dialect::Dialect;

/// The most mappings that a request is sent with.
pub const MAX_CACHE_ENTRIES: usize = 8;

/// The most mappings of a list; a later version of that dialect has so many.
const MAX_LIST: usize = 32;

/// The numbers that make a mapping.
const NUMBERS: usize = 4;

pub(crate) const SIZE: SizeRule = SizeRule::Between(ListHeader::SIZE, ListHeader::SIZE + MAX_LIST * EntryLayout::SIZE);

/// How a dialect lays the mappings of a request out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Layout {
    /// Eight file offsets, eight offsets in the window, eight lengths, eight accesses.
    Columns,
    /// The same behind 64 bits of flags.
    FlagsAndColumns,
    /// 32 bits of flags, a count, and as many mappings.
    List,
}

impl Layout {
    /// Bytes of the columns.
    pub(crate) const COLUMNS_SIZE: usize = MAX_CACHE_ENTRIES * EntryLayout::SIZE;
    /// Bytes of flags and columns.
    const FLAGS_AND_COLUMNS_SIZE: usize = 8 + Self::COLUMNS_SIZE;
}

bitflags! {
    /// What may be done with a mapping, or what is done with a file.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct CacheAccess: u64 {
        /// The guest may read; `FS_IO` reads the file into memory.
        const READ = 1;
        /// The guest may write; `FS_IO` writes memory into the file.
        const WRITE = 1 << 1;
        const _ = !0;
    }
}

/// One mapping of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheEntry {
    /// Offset in the file, in bytes.
    pub file_offset: u64,
    /// Offset in the cache window, in bytes; in `FS_IO` a guest address.
    pub cache_offset: u64,
    /// Bytes; an entry of none is not used.
    pub length: u64,
    /// What may be done.
    pub access: CacheAccess,
}

impl CacheEntry {
    /// The length that means, in `FS_UNMAP`, the whole window.
    pub const WHOLE_WINDOW: u64 = u64::MAX;

    const NONE: Self = Self { file_offset: 0, cache_offset: 0, length: 0, access: CacheAccess::empty() };

    /// The numbers of a mapping in the order of all layouts.
    fn numbers(&self) -> [u64; NUMBERS] {
        [self.file_offset, self.cache_offset, self.length, self.access.bits()]
    }
}

layout! {
    /// A mapping as it lies in a list.
    pub struct EntryLayout (32 bytes) {
        /// Offset in the file, in bytes.
        field file_offset: u64,
        /// Offset in the cache window, in bytes.
        field cache_offset: u64,
        /// Bytes.
        field length: u64,
        /// See [`CacheAccess`].
        field access: u64,
    }
}

layout! {
    /// What stands in front of a list of mappings.
    pub struct ListHeader (8 bytes) {
        /// Flags that concern all mappings.
        field flags: u32,
        /// How many mappings follow.
        field count: u16,
        padding reserved: 2,
    }
}

/// The mappings of one request, in whatever layout they came: up to eight, in a list perhaps more.
#[derive(Clone, Copy)]
pub struct CacheEntries<'b> {
    slots: Slots<'b>,
    flags: u64,
}

#[derive(Clone, Copy)]
enum Slots<'b> {
    /// All numbers of one kind and then those of the next.
    Columns(&'b [[U64; MAX_CACHE_ENTRIES]; NUMBERS]),
    List(&'b [[U64; NUMBERS]]),
    Given(&'b [CacheEntry]),
}

impl<'b> CacheEntries<'b> {
    /// Flag bit 0, in the dialect that has flags and columns: the file loses its set-user-id and
    /// set-group-id bits when it is written.
    pub const DROP_FSETID: u64 = 1;

    /// A request with these mappings.
    #[must_use]
    pub const fn new(entries: &'b [CacheEntry]) -> Self {
        Self { slots: Slots::Given(entries), flags: 0 }
    }

    /// The same with flags that concern all mappings; two dialects have some.
    #[must_use]
    pub const fn with_flags(self, flags: u64) -> Self {
        Self { flags, ..self }
    }

    /// The flags that concern all mappings.
    #[must_use]
    pub const fn flags(&self) -> u64 {
        self.flags
    }

    /// The mappings in order; those that are not used are left out.
    pub fn iter(&self) -> impl Iterator<Item = CacheEntry> + use<'b> {
        let entries = *self;
        (0..entries.slots()).map(move |at| entries.slot(at)).filter(|entry| entry.length != 0)
    }

    /// How many mappings there are, without those that are not used.
    #[must_use]
    #[inline(never)]
    pub fn len(&self) -> usize {
        let mut count = 0_usize;
        for at in 0..self.slots() {
            count = count.saturating_add((self.slot(at).length != 0).into());
        }
        count
    }

    /// Whether no mapping is used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many mappings there are, used or not.
    pub(crate) fn slots(&self) -> usize {
        match self.slots {
            Slots::Columns(_) => MAX_CACHE_ENTRIES,
            Slots::List(list) => list.len(),
            Slots::Given(given) => given.len(),
        }
    }

    /// Mapping `at`, used or not; one that is not if there is none.
    #[inline(never)]
    pub(crate) fn slot(&self, at: usize) -> CacheEntry {
        let mut numbers = [0; NUMBERS];
        for (column, number) in numbers.iter_mut().enumerate() {
            let found = match self.slots {
                Slots::Columns(columns) => columns.get(column).and_then(|numbers| numbers.get(at)),
                Slots::List(list) => list.get(at).and_then(|numbers| numbers.get(column)),
                Slots::Given(given) => return given.get(at).copied().unwrap_or(CacheEntry::NONE),
            };
            *number = found.map_or(0, |found| found.get());
        }
        let [file_offset, cache_offset, length, access] = numbers;
        CacheEntry { file_offset, cache_offset, length, access: CacheAccess::from_bits_retain(access) }
    }
}

impl PartialEq for CacheEntries<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.flags == other.flags && self.iter().eq(other.iter())
    }
}

impl Eq for CacheEntries<'_> {}

impl fmt::Debug for CacheEntries<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'b> Payload<'b> for CacheEntries<'b> {
    const KIND: PayloadKind = PayloadKind::CacheEntries;

    #[inline]
    fn decode(body: Body<'b>, form: Form) -> Option<Self> {
        Self::read(body.bytes, form.dialect)
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        Content::Mappings(self)
    }
}

impl<'b> CacheEntries<'b> {
    /// The sizes of the dialects differ by eight bytes only, so none is ever let pass for another.
    #[inline(never)]
    fn read(bytes: &'b [u8], dialect: Dialect) -> Option<Self> {
        let (layout, count) = (dialect.layout()?, usize::from(listed(bytes, dialect)));
        if count > MAX_LIST {
            return None;
        }
        let (flags, rest) = match layout {
            Layout::Columns => (0, bytes),
            Layout::FlagsAndColumns => (Body::new(bytes).number, bytes.get(ListHeader::SIZE..)?),
            Layout::List => {
                let (header, rest) = ListHeader::ref_from_prefix(bytes).ok()?;
                (u64::from(header.flags()), rest)
            }
        };
        let slots = match layout {
            Layout::List => Slots::List(<_>::ref_from_bytes_with_elems(rest, count).ok()?),
            Layout::Columns | Layout::FlagsAndColumns => Slots::Columns(<_>::ref_from_bytes(rest).ok()?),
        };
        Some(Self { slots, flags })
    }
}

/// How many mappings a list says it has; none for other layouts.
fn listed(bytes: &[u8], dialect: Dialect) -> u16 {
    match (dialect.layout(), ListHeader::ref_from_prefix(bytes)) {
        (Some(Layout::List), Ok((header, _))) => header.count(),
        _ => 0,
    }
}

/// The same, if these are too many.
pub(super) fn wrong_count(bytes: &[u8], dialect: Dialect) -> Option<u32> {
    let count = listed(bytes, dialect);
    if usize::from(count) > MAX_LIST { Some(count.into()) } else { None }
}

/// How many bytes the mappings of a request should be.
pub(super) fn size(bytes: &[u8], dialect: Dialect) -> usize {
    match dialect.layout() {
        None => 0,
        Some(Layout::Columns) => Layout::COLUMNS_SIZE,
        Some(Layout::FlagsAndColumns) => Layout::FLAGS_AND_COLUMNS_SIZE,
        Some(Layout::List) => {
            let list = usize::from(listed(bytes, dialect)).saturating_mul(EntryLayout::SIZE);
            ListHeader::SIZE.saturating_add(list)
        }
    }
}

impl CacheEntries<'_> {
    pub(super) fn write(&self, out: &mut Writer<'_>, dialect: Dialect) {
        let count = self.slots();
        let Some(layout) = dialect.layout() else { return out.overflow() };
        if count > (if layout == Layout::List { MAX_LIST } else { MAX_CACHE_ENTRIES }) {
            return out.overflow();
        }
        match (layout, u32::try_from(self.flags), u16::try_from(count)) {
            (Layout::Columns, ..) => {}
            (Layout::FlagsAndColumns, ..) => out.put_number(self.flags),
            (Layout::List, Ok(flags), Ok(count)) => out.put(ListHeader::new(flags, count).as_bytes()),
            (Layout::List, ..) => return out.overflow(),
        }
        if layout == Layout::List {
            for at in 0..count {
                out.put(self.slot(at).numbers().as_bytes());
            }
            return;
        }
        for place in 0..MAX_CACHE_ENTRIES * NUMBERS {
            let numbers = self.slot(place % MAX_CACHE_ENTRIES).numbers();
            out.put_number(numbers.get(place / MAX_CACHE_ENTRIES).copied().unwrap_or(0));
        }
    }
}
