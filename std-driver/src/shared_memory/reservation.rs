//! Address space that is kept free for mappings of others.
//!
//! The only file of shared memory regions with `unsafe` code: reserving, mapping into and giving back.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::mm::{MapFlags, MremapFlags, MsyncFlags, ProtFlags, mmap, mmap_anonymous, mremap_fixed, msync, munmap};
use vhost_core::CacheAccess;

use crate::system_error::SystemError;

/// Reservations begin at a multiple of this, so that the host can use huge pages where the guest does.
const ALIGNMENT: usize = 2 << 20;

/// Address space of this process without access, into which parts of files are mapped and out of which they are taken.
///
/// Invariant: all `length` bytes from `start` on are mapped, to nothing or to what `place` has put there, and
/// nobody else maps there.
#[derive(Debug)]
pub struct Reservation {
    start: NonNull<c_void>,
    length: usize,
    owner: Owner,
}

/// Who gives the address space back.
#[derive(Debug)]
enum Owner {
    This,
    Caller,
}

/// Any access without protection is an error that kills the process, so nothing of this is ever read or written here; only the
/// kernel and the guest do.
const NOTHING: ProtFlags = ProtFlags::empty();

// SAFETY: the address space belongs to the process and not to a thread; only the owner of the value changes it.
unsafe impl Send for Reservation {}

// SAFETY: `&Reservation` gives out numbers only; whatever changes or copies memory goes through the kernel, which locks.
unsafe impl Sync for Reservation {}

impl Reservation {
    /// Reserves `length` bytes, a whole number of pages. They take address space and no memory.
    ///
    /// # Errors
    /// The errno of `mmap`, for example `ENOMEM`; `EINVAL` for no bytes or no whole pages.
    pub fn new(length: usize) -> Result<Self, SystemError> {
        let invalid = SystemError::of("mmap")(Errno::INVAL);
        if length == 0 || !length.is_multiple_of(rustix::param::page_size()) {
            return Err(invalid);
        }
        let whole = length.checked_add(ALIGNMENT).ok_or(invalid)?;
        let first = anonymous(ptr::null_mut(), whole, MapFlags::empty())?;
        let lead = first.addr().get().next_multiple_of(ALIGNMENT) - first.addr().get();
        // Not beyond the mapping: `lead` is below ALIGNMENT, so `lead + length` is below `whole`.
        let start = NonNull::new(first.as_ptr().wrapping_byte_add(lead)).ok_or(invalid)?;
        let end = start.as_ptr().wrapping_byte_add(length);
        for (surplus, bytes) in [(first.as_ptr(), lead), (end, whole - lead - length)] {
            if bytes > 0 {
                // SAFETY: these bytes were mapped here just now, nobody knows of them, and they are not in the range that stays.
                unsafe { munmap(surplus, bytes) }.map_err(SystemError::of("munmap"))?;
            }
        }
        Ok(Self { start, length, owner: Owner::This })
    }

    /// Takes address space that the caller has reserved, and leaves it reserved without access at the end.
    ///
    /// # Safety
    /// All `length` bytes from `start` on are whole pages that the caller has mapped, nothing in them is used by anybody but a
    /// guest or the kernel, and as long as this value lives nobody else maps, unmaps or protects there.
    pub unsafe fn of_caller(start: NonNull<c_void>, length: usize) -> Self {
        Self { start, length, owner: Owner::Caller }
    }

    /// Its first byte. There may be no access to it.
    #[must_use]
    pub fn start(&self) -> *mut c_void {
        self.start.as_ptr()
    }

    /// Bytes, a whole number of pages.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// The address of `length` bytes at `offset`; `None` unless all are within.
    fn range(&self, offset: u64, length: u64) -> Option<(*mut c_void, usize)> {
        let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
        let end = offset.checked_add(length)?;
        (end <= self.length).then(|| (self.start.as_ptr().wrapping_byte_add(offset), length))
    }

    fn checked(&self, call: &'static str, offset: u64, length: u64) -> Result<(*mut c_void, usize), SystemError> {
        self.range(offset, length).ok_or(SystemError::of(call)(Errno::INVAL))
    }

    /// Moves a mapping to `offset`, in the place of what is there. After an error nothing is mapped there.
    pub(super) fn place(&mut self, staged: Staged, offset: u64) -> Result<(), SystemError> {
        let (target, length) = self.checked("mremap", offset, staged.length as u64)?;
        // SAFETY: the source is a whole mapping of our own (the invariant of `Staged`) that nothing refers to; the target is in
        // the reservation, where nobody else has anything (the invariant).
        let moved = unsafe { mremap_fixed(staged.start.as_ptr(), length, length, MremapFlags::MAYMOVE, target) };
        match moved {
            Ok(_) => {
                // It is at its place: there is nothing to unmap any more.
                core::mem::forget(staged);
                Ok(())
            }
            Err(errno) => {
                // The kernel may have unmapped the target before it failed: no hole may stay for others to map into.
                self.clear(offset, length as u64)?;
                Err(SystemError::of("mremap")(errno))
            }
        }
    }

    /// Has nothing mapped in `length` bytes at `offset`.
    pub(super) fn clear(&mut self, offset: u64, length: u64) -> Result<(), SystemError> {
        let (target, length) = self.checked("mmap", offset, length)?;
        // The range is in the reservation, where nobody else has anything (the invariant).
        anonymous(target, length, MapFlags::FIXED).map(drop)
    }

    /// Waits until what was written to `length` bytes at `offset` is in its files.
    pub(super) fn sync(&self, offset: u64, length: u64) -> Result<(), SystemError> {
        let (start, length) = self.checked("msync", offset, length)?;
        // SAFETY: the range is mapped (the invariant), and writing to files changes no memory.
        unsafe { msync(start, length, MsyncFlags::SYNC) }.map_err(SystemError::of("msync"))
    }

    /// Copies bytes out of the reservation; the kernel looks whether they can be read.
    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), SystemError> {
        let (start, _) = self.checked("process_vm_readv", offset, bytes.len() as u64)?;
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: start, iov_len: bytes.len() };
        // SAFETY: `local` is the caller's buffer, exclusively borrowed, and the kernel writes no more than its length. `remote`
        // is only read, through page tables, and what cannot be read is an error.
        let copied = unsafe { libc::process_vm_readv(this_process(), &raw const local, 1, &raw const remote, 1, 0) };
        whole("process_vm_readv", copied, bytes.len())
    }

    /// Copies bytes into the reservation; the kernel looks whether they can be written.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), SystemError> {
        let (start, _) = self.checked("process_vm_writev", offset, bytes.len() as u64)?;
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: start, iov_len: bytes.len() };
        // SAFETY: `local` is only read. `remote` is in the reservation, where no Rust value lives (the invariant), so no memory
        // that Rust knows of changes; what cannot be written is an error.
        let copied = unsafe { libc::process_vm_writev(this_process(), &raw const local, 1, &raw const remote, 1, 0) };
        whole("process_vm_writev", copied, bytes.len())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        match self.owner {
            Owner::This => {
                // SAFETY: all of it is our own (the invariant), and nothing refers to it any more.
                let outcome = unsafe { munmap(self.start.as_ptr(), self.length) };
                debug_assert!(outcome.is_ok(), "munmap: {outcome:?}");
            }
            // A drop cannot report; whoever has to know clears it first.
            Owner::Caller => {
                let _ = self.clear(0, self.length as u64);
            }
        }
    }
}

/// A mapping that is not at its place yet, so that whatever the kernel or a file objects to, it does so before anything changes.
///
/// Invariant: `start` and `length` are a whole mapping of our own that nothing refers to.
#[derive(Debug)]
pub(super) struct Staged {
    start: NonNull<c_void>,
    length: usize,
}

impl Staged {
    /// Maps `length` bytes of `file` from `offset` on, shared.
    pub(super) fn new(
        file: BorrowedFd<'_>,
        offset: u64,
        length: u64,
        access: CacheAccess,
    ) -> Result<Self, SystemError> {
        let failed = SystemError::of("mmap");
        let length = usize::try_from(length).map_err(|_| failed(Errno::NOMEM))?;
        let mut protection = NOTHING;
        protection.set(ProtFlags::READ, access.contains(CacheAccess::READ));
        protection.set(ProtFlags::WRITE, access.contains(CacheAccess::WRITE));
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: without MAP_FIXED and with no address wished for, the kernel takes addresses that nothing uses, so no memory
        // that Rust knows of changes.
        let start = unsafe { mmap(ptr::null_mut(), length, protection, flags, file, offset) }.map_err(&failed)?;
        let start = NonNull::new(start).ok_or(failed(Errno::FAULT))?;
        Ok(Self { start, length })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // SAFETY: a whole mapping of our own that nothing refers to (the invariant).
        let outcome = unsafe { munmap(self.start.as_ptr(), self.length) };
        debug_assert!(outcome.is_ok(), "munmap: {outcome:?}");
    }
}

/// Maps nothing, without access. With `MapFlags::FIXED` the range must belong to a reservation; without it there must be no
/// address.
fn anonymous(start: *mut c_void, length: usize, how: MapFlags) -> Result<NonNull<c_void>, SystemError> {
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | how;
    // SAFETY: either the kernel takes addresses that nothing uses, or those of a reservation, where no Rust value lives: see the
    // two callers.
    let start = unsafe { mmap_anonymous(start, length, NOTHING, flags) }.map_err(SystemError::of("mmap"))?;
    NonNull::new(start).ok_or(SystemError::of("mmap")(Errno::FAULT))
}

fn this_process() -> libc::pid_t {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Whether everything was copied.
fn whole(call: &'static str, copied: isize, wanted: usize) -> Result<(), SystemError> {
    if usize::try_from(copied) == Ok(wanted) {
        return Ok(());
    }
    let errno = match copied {
        ..0 => Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO),
        // The rest is not there.
        0.. => Errno::FAULT,
    };
    Err(SystemError { call, errno })
}
