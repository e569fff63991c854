//! All shared memory regions of a device, and what a back-end asks about them.

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use vhost_core::{
    MapChange,
    wire::{fs_cache::CacheEntries, shared::MAX_SHARED_REGIONS},
};

use super::{MapRules, Reservation, SharedWindow, WindowError, transfer, window::Change};
use crate::{
    frontend::{BackendRequestHandlerMut, Refusal},
    memory::MemoryTable,
};

/// The shared memory regions of a device, which carry out a back-end's requests about them.
///
/// It is a handler by itself; one with more to do hands these four requests on.
///
/// ```
/// use std::os::fd::OwnedFd;
/// use vhost_core::MapChange;
/// use vhost_std::frontend::{BackendRequestHandlerMut, Refusal};
/// use vhost_std::shared_memory::SharedRegions;
///
/// struct Vmm {
///     regions: SharedRegions,
///     config_changes: u32,
/// }
///
/// impl BackendRequestHandlerMut for Vmm {
///     fn config_changed(&mut self) -> Result<(), Refusal> {
///         self.config_changes += 1;
///         Ok(())
///     }
///     fn shmem_map(&mut self, maps: &[MapChange], file: OwnedFd) -> Result<(), Refusal> {
///         self.regions.shmem_map(maps, file)
///     }
///     fn shmem_unmap(&mut self, maps: &[MapChange]) -> Result<(), Refusal> {
///         self.regions.shmem_unmap(maps)
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct SharedRegions {
    windows: BTreeMap<u8, SharedWindow>,
    memory: MemoryTable,
}

impl SharedRegions {
    /// Reserves a region for each size that is not zero, as [`get_shmem_config`](crate::frontend::Frontend::get_shmem_config)
    /// tells them. What the back-end asks for is bounded by `largest` bytes a region.
    ///
    /// # Errors
    /// [`OutOfBounds`](WindowError::OutOfBounds) for a larger region, or the errno of `mmap`, for example for a size that is no
    /// whole number of pages.
    pub fn reserve(sizes: &[u64; MAX_SHARED_REGIONS], largest: u64, rules: MapRules) -> Result<Self, WindowError> {
        let mut regions = Self::default();
        for (id, size) in (0..=u8::MAX).zip(*sizes).filter(|(_, size)| *size != 0) {
            let out_of_bounds = WindowError::OutOfBounds { offset: 0, length: size, size: largest };
            let length = usize::try_from(size).ok().filter(|_| size <= largest).ok_or(out_of_bounds)?;
            regions.insert(id, SharedWindow::new(Reservation::new(length)?, rules));
        }
        Ok(regions)
    }

    /// Adds a region, in the place of the one of this id. The window of the older dialects of virtio-fs is region 0.
    pub fn insert(&mut self, id: u8, window: SharedWindow) -> Option<SharedWindow> {
        self.windows.insert(id, window)
    }

    /// The region of this id.
    #[must_use]
    pub fn window(&self, id: u8) -> Option<&SharedWindow> {
        self.windows.get(&id)
    }

    /// The region of this id, to be changed.
    pub fn window_mut(&mut self, id: u8) -> Option<&mut SharedWindow> {
        self.windows.get_mut(&id)
    }

    /// The memory of the guest, for back-ends that have files read into it or written from it (`FS_IO`).
    pub fn set_memory(&mut self, memory: MemoryTable) {
        self.memory = memory;
    }

    /// Has nothing mapped in any region: for when the device is reset or its back-end goes.
    ///
    /// # Errors
    /// The errno of `mmap`, after all regions were tried.
    pub fn reset(&mut self) -> Result<(), WindowError> {
        let outcomes = Vec::from_iter(self.windows.values_mut().map(SharedWindow::unmap_all));
        outcomes.into_iter().collect()
    }

    /// Carries out the changes of one request, which are all for one region.
    ///
    /// # Errors
    /// See [`WindowError`]. Everything that can be wrong with the changes is found before anything changes. Only if the kernel
    /// has no room for one more mapping in the middle of them, what they concern is unmapped.
    pub fn apply(&mut self, maps: &[MapChange], file: Option<BorrowedFd<'_>>) -> Result<(), WindowError> {
        let changes = maps.iter().map(Change::of).collect::<Result<Vec<_>, _>>()?;
        // A request is about one region, whatever dialect it is of.
        let Some((region, _)) = changes.first() else { return Ok(()) };
        let region = *region;
        let of_region = |(found, change)| if found == region { Ok(change) } else { Err(WindowError::Unknown) };
        let changes = changes.into_iter().map(of_region).collect::<Result<Vec<_>, _>>()?;
        self.known(region)?.apply(&changes, file)
    }

    fn known(&mut self, region: u8) -> Result<&mut SharedWindow, WindowError> {
        self.windows.get_mut(&region).ok_or(WindowError::NoSuchRegion { found: region })
    }
}

/// The window of the older dialects.
const CACHE: u8 = 0;

impl BackendRequestHandlerMut for SharedRegions {
    fn shmem_map(&mut self, maps: &[MapChange], file: OwnedFd) -> Result<(), Refusal> {
        Ok(self.apply(maps, Some(file.as_fd()))?)
    }

    fn shmem_unmap(&mut self, maps: &[MapChange]) -> Result<(), Refusal> {
        Ok(self.apply(maps, None)?)
    }

    fn cache_sync(&mut self, entries: CacheEntries<'_>) -> Result<(), Refusal> {
        let window = self.known(CACHE)?;
        Ok(entries.iter().try_for_each(|entry| window.sync(entry.cache_offset, entry.length))?)
    }

    fn cache_io(&mut self, entries: CacheEntries<'_>, file: Option<OwnedFd>) -> Result<u64, Refusal> {
        let file = file.ok_or(WindowError::NoDescriptor)?;
        Ok(transfer::carry_out(&self.memory, file.as_fd(), entries.iter())?)
    }
}
