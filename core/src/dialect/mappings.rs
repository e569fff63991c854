//! One way to look at mappings, whatever dialect they were asked for in.

use crate::{
    rules::{Violation, extent},
    wire::{
        backend_request::BackendRequest,
        fs_cache::{CacheAccess, CacheEntries, CacheEntry, Layout, MAX_CACHE_ENTRIES},
        shared::SharedMemoryMap,
    },
};

use super::{Dialect, DialectViolation};

/// One change of what is mapped into a device's shared memory region. The cache window of the
/// older dialects is region 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MapChange {
    /// A part of the request's descriptor is to appear.
    Map {
        /// The region.
        region: u8,
        /// Offset in the region, in bytes.
        offset: u64,
        /// Bytes, not zero in the older dialects; offset and length do not wrap around.
        length: u64,
        /// Offset in the descriptor, in bytes; it does not wrap around with the length either.
        file_offset: u64,
        /// What the guest may do.
        access: CacheAccess,
    },
    /// What is mapped there is to disappear.
    Unmap {
        /// The region.
        region: u8,
        /// Offset in the region, in bytes.
        offset: u64,
        /// Bytes; offset and length do not wrap around.
        length: u64,
    },
    /// Whatever is mapped in the region is to disappear.
    UnmapAll {
        /// The region.
        region: u8,
    },
}

/// The region that a cache window is.
const WINDOW: u8 = 0;

impl MapChange {
    fn mapping(entry: CacheEntry) -> Self {
        let CacheEntry { file_offset, cache_offset: offset, length, access } = entry;
        Self::Map { region: WINDOW, offset, length, file_offset, access }
    }

    fn unmapping(entry: CacheEntry) -> Self {
        match entry {
            CacheEntry { length: CacheEntry::WHOLE_WINDOW, .. } => Self::UnmapAll { region: WINDOW },
            CacheEntry { cache_offset: offset, length, .. } => Self::Unmap { region: WINDOW, offset, length },
        }
    }
}

impl<'b, H> BackendRequest<'b, H> {
    /// What the request changes in the mappings of a shared memory region, in order; nothing
    /// unless it is `SHMEM_MAP`, `SHMEM_UNMAP`, `FS_MAP` or `FS_UNMAP`.
    ///
    /// All changes of a request use its one descriptor, see [`Self::into_handle`], and have one
    /// answer: if one of them fails, undo the others and refuse the request.
    pub fn maps(&self) -> impl Iterator<Item = MapChange> + use<'b, H> {
        let standard = match self {
            Self::ShmemMap(map, _) => Some(MapChange::Map {
                region: map.region(),
                offset: map.region_offset(),
                length: map.length(),
                file_offset: map.file_offset(),
                access: if map.flags() & SharedMemoryMap::READ_WRITE == 0 {
                    CacheAccess::READ
                } else {
                    CacheAccess::READ | CacheAccess::WRITE
                },
            }),
            Self::ShmemUnmap(map) => {
                Some(MapChange::Unmap { region: map.region(), offset: map.region_offset(), length: map.length() })
            }
            _ => None,
        };
        let (entries, change): (_, fn(CacheEntry) -> MapChange) = match self {
            Self::CacheMap(entries, _) => (*entries, MapChange::mapping),
            Self::CacheUnmap(entries) => (*entries, MapChange::unmapping),
            _ => (CacheEntries::new(&[]), MapChange::mapping),
        };
        standard.into_iter().chain(entries.iter().map(change))
    }

    /// The descriptor that came with the request.
    #[must_use]
    pub fn into_handle(self) -> Option<H> {
        match self {
            Self::ShmemMap(_, handle) | Self::CacheMap(_, handle) => Some(handle),
            Self::CacheIo(_, handle) | Self::VringHostNotifierMsg(_, handle) => handle,
            _ => None,
        }
    }

    /// The mappings of an older dialect.
    fn cache_entries(&self) -> Option<&CacheEntries<'b>> {
        match self {
            Self::CacheMap(entries, _) | Self::CacheIo(entries, _) => Some(entries),
            Self::CacheUnmap(entries) | Self::CacheSync(entries) => Some(entries),
            _ => None,
        }
    }

    /// Refuses mappings that wrap around.
    pub(crate) fn check_mappings(&self) -> Result<(), Violation> {
        match self {
            Self::ShmemMap(map, _) => {
                extent(map.length(), map.file_offset())?;
                extent(map.length(), map.region_offset())
            }
            Self::ShmemUnmap(map) => extent(map.length(), map.region_offset()),
            Self::CacheUnmap(entries) => {
                let mut parts = entries.iter().filter(|entry| entry.length != CacheEntry::WHOLE_WINDOW);
                parts.try_for_each(|entry| extent(entry.length, entry.cache_offset))
            }
            _ => self.cache_entries().into_iter().flat_map(CacheEntries::iter).try_for_each(|entry| {
                extent(entry.length, entry.file_offset)?;
                extent(entry.length, entry.cache_offset)
            }),
        }
    }

    /// The request as this dialect says it, if it can.
    pub(crate) fn said_in(self, dialect: Dialect) -> Result<Self, DialectViolation> {
        let Some(entries) = self.cache_entries() else { return Ok(self) };
        let (found, flags) = (entries.len(), entries.flags());
        let limit = match dialect.layout() {
            Some(_) => MAX_CACHE_ENTRIES,
            None => 1,
        };
        let can_say_flags = match dialect.layout() {
            Some(Layout::FlagsAndColumns) => true,
            Some(Layout::List) => u32::try_from(flags).is_ok(),
            Some(Layout::Columns) | None => flags == 0,
        };
        if found > limit {
            return Err(DialectViolation::Mappings { dialect, found, limit });
        }
        if !can_say_flags {
            return Err(DialectViolation::Flags { dialect, found: flags });
        }
        match dialect.layout() {
            Some(_) => Ok(self),
            None => self.said_today(dialect),
        }
    }

    /// The request in today's words: one mapping in region 0.
    fn said_today(self, dialect: Dialect) -> Result<Self, DialectViolation> {
        let only = self.cache_entries().and_then(|entries| entries.iter().next());
        match (self, only) {
            (Self::CacheMap(_, handle), Some(entry)) => {
                let CacheEntry { file_offset, cache_offset, length, access } = entry;
                let flags = match access {
                    CacheAccess::READ => 0,
                    access if access == CacheAccess::READ | CacheAccess::WRITE => SharedMemoryMap::READ_WRITE,
                    found => return Err(DialectViolation::Access { dialect, found }),
                };
                Ok(Self::ShmemMap(SharedMemoryMap::new(WINDOW, file_offset, cache_offset, length, flags), handle))
            }
            (Self::CacheUnmap(_), Some(CacheEntry { length: CacheEntry::WHOLE_WINDOW, .. })) => {
                Err(DialectViolation::WholeWindow { dialect })
            }
            (Self::CacheUnmap(_), Some(CacheEntry { cache_offset, length, .. })) => {
                Ok(Self::ShmemUnmap(SharedMemoryMap::new(WINDOW, 0, cache_offset, length, 0)))
            }
            _ => Err(DialectViolation::NotSpoken { dialect }),
        }
    }
}
