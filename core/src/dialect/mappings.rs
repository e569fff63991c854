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
            Self::CacheUnmap(entries) => check_entries(entries, Away::Yes),
            Self::CacheMap(entries, _) | Self::CacheIo(entries, _) | Self::CacheSync(entries) => {
                check_entries(entries, Away::No)
            }
            _ => Ok(()),
        }
    }

    /// Says the request in the words of this dialect. After an error it is another request.
    #[inline]
    pub(crate) fn say_in(&mut self, dialect: Dialect) -> Result<(), DialectViolation> {
        if self.cache_entries().is_none() { Ok(()) } else { self.say_mappings_in(dialect) }
    }

    // On its own, because mappings are rare.
    #[inline(never)]
    fn say_mappings_in(&mut self, dialect: Dialect) -> Result<(), DialectViolation> {
        let not_spoken = Err(DialectViolation::NotSpoken { dialect });
        let Some(entries) = self.cache_entries() else { return not_spoken };
        let layout = dialect.layout();
        let (found, flags) = (entries.len(), entries.flags());
        let limit = if layout.is_some() { MAX_CACHE_ENTRIES } else { 1 };
        if found > limit {
            return Err(DialectViolation::Mappings { dialect, found, limit });
        }
        let largest = match layout {
            Some(Layout::FlagsAndColumns) => u64::MAX,
            Some(Layout::List) => u64::from(u32::MAX),
            Some(Layout::Columns) | None => 0,
        };
        if flags > largest {
            return Err(DialectViolation::Flags { dialect, found: flags });
        }
        if layout.is_some() {
            return Ok(());
        }
        // In today's words it is one mapping in region 0.
        let Some(entry) = entries.iter().next() else { return not_spoken };
        let CacheEntry { file_offset, cache_offset, length, access } = entry;
        *self = match core::mem::replace(self, Self::ConfigChangeMsg) {
            Self::CacheMap(_, handle) => {
                let flags = match access {
                    CacheAccess::READ => 0,
                    access if access == CacheAccess::READ | CacheAccess::WRITE => SharedMemoryMap::READ_WRITE,
                    found => return Err(DialectViolation::Access { dialect, found }),
                };
                Self::ShmemMap(SharedMemoryMap::new(WINDOW, file_offset, cache_offset, length, flags), handle)
            }
            Self::CacheUnmap(_) if length == CacheEntry::WHOLE_WINDOW => {
                return Err(DialectViolation::WholeWindow { dialect });
            }
            Self::CacheUnmap(_) => Self::ShmemUnmap(SharedMemoryMap::new(WINDOW, 0, cache_offset, length, 0)),
            _ => return not_spoken,
        };
        Ok(())
    }
}

/// Whether mappings are taken away: then offsets in the file mean nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Away {
    Yes,
    No,
}

/// Refuses mappings that wrap around.
#[inline(never)]
fn check_entries(entries: &CacheEntries<'_>, away: Away) -> Result<(), Violation> {
    for at in 0..entries.slots() {
        let CacheEntry { file_offset, cache_offset, length, .. } = entries.slot(at);
        match away {
            _ if length == 0 => continue,
            Away::Yes if length == CacheEntry::WHOLE_WINDOW => continue,
            Away::Yes => {}
            Away::No => extent(length, file_offset)?,
        }
        extent(length, cache_offset)?;
    }
    Ok(())
}
