//! One shared memory region and what is mapped in it.

use core::fmt;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, fstat};
use vhost_core::{CacheAccess, MapChange};

use super::{MapRules, Mapped, Reservation, WindowError, layout::Layout, reservation::Staged};
use crate::{file_kind, memory::granularity, system_error::SystemError};

/// A shared memory region of a device in the address space of the VMM, and the mappings that the back-end has made in it.
///
/// Whatever a back-end asks for, nothing outside of the region changes, and everything in it is always mapped: to a part of a
/// file, or to nothing. A mapping may reach beyond the end of its file, as virtio-fs wants it; the guest that touches what is
/// not there hurts itself only, and [`read`](Self::read) and [`write`](Self::write) are refused. A back-end that passes a file
/// of a file system of its own (FUSE) can delay whoever touches its mapping.
///
/// When it is dropped nothing of it stays mapped.
///
/// ```
/// use std::os::fd::AsFd;
/// use vhost_core::{CacheAccess, MapChange};
/// use vhost_std::memory::MemoryFile;
/// use vhost_std::shared_memory::{MapRules, Reservation, SharedWindow};
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let mut window = SharedWindow::new(Reservation::new(0x20_0000)?, MapRules::Exact);
/// let file = MemoryFile::create("shown", 0, 0x4000)?; // a back-end's
/// window.map(0x1_0000, 0x2000, file.as_fd(), 0x1000, CacheAccess::READ | CacheAccess::WRITE)?;
/// window.write(0x1_0010, b"hello")?;
/// let mut bytes = [0; 5];
/// window.read(0x1_0010, &mut bytes)?;
/// assert_eq!(&bytes, b"hello");
/// assert!(window.unmap(0x1_0000, 0x1000).is_err(), "it is not what was mapped");
/// window.unmap(0x1_0000, 0x2000)?;
/// assert!(window.read(0x1_0010, &mut bytes).is_err());
/// # Ok(())
/// # }
/// ```
pub struct SharedWindow {
    reservation: Reservation,
    layout: Layout,
    kinds: Kinds,
}

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kinds {
    /// Files, and what the kernel has without a file type, for example the buffers that graphics devices share.
    Files,
    /// The same and character devices.
    FilesAndDevices,
}

impl SharedWindow {
    /// The region that is all of `reservation`, with nothing in it.
    #[must_use]
    pub fn new(reservation: Reservation, rules: MapRules) -> Self {
        let layout = Layout::new(reservation.length() as u64, rules);
        Self { reservation, layout, kinds: Kinds::Files }
    }

    /// The same for other kinds of descriptors.
    pub(crate) fn with_kinds(self, kinds: Kinds) -> Self {
        Self { kinds, ..self }
    }

    /// How many mappings the region may have from now on, [`DEFAULT_LIMIT`](super::DEFAULT_LIMIT) at first.
    pub fn set_limit(&mut self, limit: usize) {
        self.layout.set_limit(limit);
    }

    /// The address space.
    #[must_use]
    pub fn reservation(&self) -> &Reservation {
        &self.reservation
    }

    /// What is mapped, by offset.
    pub fn mappings(&self) -> impl DoubleEndedIterator<Item = Mapped> {
        self.layout.iter()
    }

    /// Maps `length` bytes of `file` from `file_offset` on at `offset`. The mapping does not need `file` afterwards.
    ///
    /// # Errors
    /// See [`WindowError`]. A file of huge pages is mapped in whole ones only.
    pub fn map(
        &mut self,
        offset: u64,
        length: u64,
        file: BorrowedFd<'_>,
        file_offset: u64,
        access: CacheAccess,
    ) -> Result<(), WindowError> {
        self.apply(&[Change::Map { offset, length, file_offset, access }], Some(file))
    }

    /// Has nothing mapped in `length` bytes at `offset` any more.
    ///
    /// # Errors
    /// See [`WindowError`].
    pub fn unmap(&mut self, offset: u64, length: u64) -> Result<(), WindowError> {
        self.apply(&[Change::Unmap { offset, length }], None)
    }

    /// Has nothing mapped in the region any more: for when the device is reset or its back-end goes.
    ///
    /// # Errors
    /// The errno of `mmap`.
    pub fn unmap_all(&mut self) -> Result<(), WindowError> {
        self.reservation.clear(0, self.reservation.length() as u64)?;
        self.layout.clear();
        Ok(())
    }

    /// Waits until what the guest has written to `length` bytes at `offset` is in the files.
    ///
    /// # Errors
    /// [`OutOfBounds`](WindowError::OutOfBounds), [`Misaligned`](WindowError::Misaligned), or the errno of `msync`.
    pub fn sync(&self, offset: u64, length: u64) -> Result<(), WindowError> {
        self.layout.check(offset, length, page())?;
        Ok(self.reservation.sync(offset, length)?)
    }

    /// Copies the bytes at `offset` out of the region.
    ///
    /// # Errors
    /// [`System`](WindowError::System) with `EFAULT` where nothing is mapped, where it must not be read and where its file has
    /// ended, with `EINVAL` past the end, and with `EPERM` or `ENOSYS` in a sandbox without `process_vm_readv`.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), WindowError> {
        Ok(self.reservation.read(offset, bytes)?)
    }

    /// Copies bytes into the region at `offset`.
    ///
    /// # Errors
    /// As [`read`](Self::read); bytes before the failing place may have been written.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), WindowError> {
        Ok(self.reservation.write(offset, bytes)?)
    }

    /// Carries out changes that came in one request, all or none.
    ///
    /// Everything that can be wrong with them is found before anything changes. Only if the kernel has no room for one more
    /// mapping in the middle of it, what the changes concern is unmapped.
    pub(super) fn apply(&mut self, changes: &[Change], file: Option<BorrowedFd<'_>>) -> Result<(), WindowError> {
        let mut after = self.layout.clone();
        let mut staged = Vec::with_capacity(changes.len());
        for change in changes {
            staged.push(match *change {
                Change::Map { offset, length, file_offset, access } => {
                    let file = file.ok_or(WindowError::NoDescriptor)?;
                    let page = self.check_file(file, file_offset, access, offset)?;
                    after.insert(Mapped { offset, length, page })?;
                    Some(Staged::new(file, file_offset, length, access)?)
                }
                Change::Unmap { offset, length } => {
                    after.remove(offset, length, page())?;
                    None
                }
                Change::UnmapAll => {
                    after.clear();
                    None
                }
            });
        }
        for (done, (change, staged)) in changes.iter().zip(staged).enumerate() {
            let (offset, length) = change.range(self.reservation.length() as u64);
            let outcome = match staged {
                Some(staged) => self.reservation.place(staged, offset),
                None => self.reservation.clear(offset, length),
            };
            if let Err(error) = outcome {
                self.withdraw(changes.get(..=done).unwrap_or(changes));
                return Err(error.into());
            }
        }
        self.layout = after;
        Ok(())
    }

    /// Has nothing mapped where these changes were made, nor what of before reaches into it.
    fn withdraw(&mut self, changes: &[Change]) {
        for change in changes {
            let (offset, length) = change.range(self.reservation.length() as u64);
            let reaching_in = self.layout.take(offset, offset.saturating_add(length));
            let all = reaching_in.iter().map(|part| (part.offset, part.length)).chain([(offset, length)]);
            // The kernel has room for less, if not for more; and nothing more can be done.
            for (offset, length) in all {
                let _ = self.reservation.clear(offset, length);
            }
        }
    }

    /// Refuses what cannot be mapped there; what its offsets are multiples of.
    fn check_file(
        &self,
        file: BorrowedFd<'_>,
        file_offset: u64,
        access: CacheAccess,
        offset: u64,
    ) -> Result<u64, WindowError> {
        if !access.intersects(CacheAccess::READ | CacheAccess::WRITE) {
            return Err(WindowError::NoAccess { found: access });
        }
        let stat = fstat(file).map_err(SystemError::of("fstat"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Unknown => {}
            FileType::CharacterDevice if self.kinds == Kinds::FilesAndDevices => {}
            kind => return Err(WindowError::NotMappable { found: file_kind::name_of(kind) }),
        }
        let page = granularity(file)?;
        let address = (self.reservation.start().addr() as u64).wrapping_add(offset);
        match [file_offset, address].into_iter().find(|number| !number.is_multiple_of(page)) {
            Some(found) => Err(WindowError::Misaligned { found, page }),
            None => Ok(page),
        }
    }
}

impl fmt::Debug for SharedWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWindow")
            .field("reservation", &self.reservation)
            .field("mappings", &self.mappings().count())
            .finish()
    }
}

/// A change of one region.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Map { offset: u64, length: u64, file_offset: u64, access: CacheAccess },
    Unmap { offset: u64, length: u64 },
    UnmapAll,
}

impl Change {
    /// A change as a back-end asks for it, and the region that it is for.
    pub(super) fn of(change: &MapChange) -> Result<(u8, Self), WindowError> {
        match *change {
            MapChange::Map { region, offset, length, file_offset, access } => {
                Ok((region, Self::Map { offset, length, file_offset, access }))
            }
            MapChange::Unmap { region, offset, length } => Ok((region, Self::Unmap { offset, length })),
            MapChange::UnmapAll { region } => Ok((region, Self::UnmapAll)),
            _ => Err(WindowError::Unknown),
        }
    }

    /// Offset and length of what changes, in a region of this size.
    fn range(&self, size: u64) -> (u64, u64) {
        match *self {
            Self::Map { offset, length, .. } | Self::Unmap { offset, length } => (offset, length),
            Self::UnmapAll => (0, size),
        }
    }
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}
