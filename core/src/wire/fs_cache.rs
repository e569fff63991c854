//! Bytes: requests about mappings in a virtio-fs DAX window, in the layouts of their dialects.

use core::fmt;

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, native_endian::U64};

use super::{
    misfit::{FieldRule, Misfit},
    payload::{Form, Payload, PayloadKind, SizeRule, Writer},
    scalar::{Scalar, layout},
};

/// The most mappings that a request is sent with.
pub const MAX_CACHE_ENTRIES: usize = 8;

/// The most mappings of a list; a later version of that dialect has so many.
const MAX_LIST: usize = 32;

static COUNT: FieldRule = FieldRule { name: "count", expected: "at most 32 mappings" };

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
    pub(crate) const COLUMNS_SIZE: usize = size_of::<Columns>();
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
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Columns {
    columns: [[U64; MAX_CACHE_ENTRIES]; 4],
}

impl Columns {
    /// Mapping `at`, used or not.
    fn get(&self, at: usize) -> Option<CacheEntry> {
        let [file_offset, cache_offset, length, access] = &self.columns;
        Some(CacheEntry {
            file_offset: file_offset.get(at)?.get(),
            cache_offset: cache_offset.get(at)?.get(),
            length: length.get(at)?.get(),
            access: CacheAccess::from_bits_retain(access.get(at)?.get()),
        })
    }

    fn of(slots: impl Iterator<Item = CacheEntry>) -> Self {
        let mut all = Self { columns: [[U64::ZERO; MAX_CACHE_ENTRIES]; 4] };
        let [file_offset, cache_offset, length, access] = &mut all.columns;
        let rows = file_offset.iter_mut().zip(cache_offset).zip(length).zip(access);
        for ((((file_offset, cache_offset), length), access), slot) in rows.zip(slots) {
            file_offset.set(slot.file_offset);
            cache_offset.set(slot.cache_offset);
            length.set(slot.length);
            access.set(slot.access.bits());
        }
        all
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
    Columns(&'b Columns),
    List(&'b [EntryLayout]),
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
        self.slots().filter(|entry| entry.length != 0)
    }

    /// How many mappings there are, without those that are not used.
    #[must_use]
    pub fn len(&self) -> usize {
        count(self.iter())
    }

    /// Whether no mapping is used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn slots(&self) -> impl Iterator<Item = CacheEntry> + use<'b> {
        let slots = self.slots;
        (0..MAX_LIST.max(self.given())).map_while(move |at| slots.get(at))
    }

    /// How many entries the caller gave.
    fn given(&self) -> usize {
        if let Slots::Given(given) = self.slots { given.len() } else { 0 }
    }
}

impl Slots<'_> {
    fn get(&self, at: usize) -> Option<CacheEntry> {
        match self {
            Self::Columns(columns) => columns.get(at),
            Self::List(list) => list.get(at).map(|entry| CacheEntry {
                file_offset: entry.file_offset(),
                cache_offset: entry.cache_offset(),
                length: entry.length(),
                access: CacheAccess::from_bits_retain(entry.access()),
            }),
            Self::Given(given) => given.get(at).copied(),
        }
    }
}

fn count(entries: impl Iterator<Item = CacheEntry>) -> usize {
    entries.fold(0, |count, _| count.saturating_add(1))
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

    /// The sizes of the dialects differ by eight bytes only, so none is ever let pass for another.
    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit> {
        let wrong_size = Misfit::Exactly;
        match form.dialect.layout() {
            Some(Layout::Columns) => {
                let columns = Columns::ref_from_bytes(bytes).map_err(|_| wrong_size(Layout::COLUMNS_SIZE))?;
                Ok(Self { slots: Slots::Columns(columns), flags: 0 })
            }
            Some(Layout::FlagsAndColumns) => {
                let both = |bytes| {
                    let (flags, rest) = <u64 as Scalar>::Wire::ref_from_prefix(bytes).ok()?;
                    Some((u64::from_wire(*flags), Columns::ref_from_bytes(rest).ok()?))
                };
                let (flags, columns) = both(bytes).ok_or(wrong_size(Layout::FLAGS_AND_COLUMNS_SIZE))?;
                Ok(Self { slots: Slots::Columns(columns), flags })
            }
            Some(Layout::List) => {
                let (header, rest) = ListHeader::ref_from_prefix(bytes).map_err(|_| wrong_size(ListHeader::SIZE))?;
                let count = usize::from(header.count());
                if count > MAX_LIST {
                    return Err(Misfit::Field(&COUNT, u32::from(header.count())));
                }
                let whole = ListHeader::SIZE.saturating_add(count.saturating_mul(EntryLayout::SIZE));
                let list = <[EntryLayout]>::ref_from_bytes_with_elems(rest, count).map_err(|_| wrong_size(whole))?;
                Ok(Self { slots: Slots::List(list), flags: u64::from(header.flags()) })
            }
            None => Err(wrong_size(0)),
        }
    }

    fn encode(&self, out: &mut Writer<'_>, form: Form) {
        let count = count(self.slots());
        let is_list = form.dialect.layout() == Some(Layout::List);
        if count > (if is_list { MAX_LIST } else { MAX_CACHE_ENTRIES }) {
            return out.overflow();
        }
        match form.dialect.layout() {
            Some(Layout::Columns) => out.put(Columns::of(self.slots()).as_bytes()),
            Some(Layout::FlagsAndColumns) => {
                self.flags.encode(out, form);
                out.put(Columns::of(self.slots()).as_bytes());
            }
            Some(Layout::List) => {
                let (Ok(flags), Ok(count)) = (u32::try_from(self.flags), u16::try_from(count)) else {
                    return out.overflow();
                };
                out.put(ListHeader::new(flags, count).as_bytes());
                for CacheEntry { file_offset, cache_offset, length, access } in self.slots() {
                    out.put(EntryLayout::new(file_offset, cache_offset, length, access.bits()).as_bytes());
                }
            }
            None => out.overflow(),
        }
    }
}
