//! File I/O straight from and to guest memory, without a copy in between.
//!
//! The kernel gets the raw addresses, so no Rust reference to guest memory ever exists. The only `unsafe` of the data path
//! is here. A hole in guest memory (a truncated file behind it) is an `EFAULT` of the system call, not a signal.

#![allow(unsafe_code)]

use core::ptr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};
use rustix::io::Errno;
use vm_memory::{VolatileSlice, volatile_memory::PtrGuardMut};

use crate::chain::{FromDriver, Readable, Segments, ToDriver, Writable};

/// Slices handed to one system call; what is beyond takes more calls. Linux would take 1024 (`IOV_MAX`), but the table is
/// set up on the stack for every request, and most requests have a few slices.
const BATCH: usize = 64;

/// Reads the file from byte `offset` on into all of `target`; returns the bytes read.
///
/// Fewer than `target` holds means that the file ended. Interrupted and short reads are continued.
///
/// # Errors
/// The errno of `preadv`; bytes before the failing place may have arrived.
#[inline]
pub fn read_at(file: BorrowedFd<'_>, offset: u64, target: Writable<'_>) -> Result<u64, Errno> {
    if target.is_logged() { read_logged(file, offset, target) } else { transfer(file, offset, target) }
}

#[cold]
fn read_logged(file: BorrowedFd<'_>, offset: u64, target: Writable<'_>) -> Result<u64, Errno> {
    let outcome = transfer(file, offset, target);
    // After an error too: some bytes may have arrived, and nobody knows which.
    match outcome.map(|bytes| target.split_front(bytes)) {
        Ok(Ok((arrived, _))) => arrived.log(),
        Ok(Err(_)) | Err(_) => target.log(),
    }
    outcome
}

/// Writes all of `source` to the file from byte `offset` on; returns the bytes written.
///
/// Fewer than `source` holds means that the file takes no more. Interrupted and short writes are continued.
///
/// # Errors
/// The errno of `pwritev`; bytes before the failing place may have been written.
pub fn write_at(file: BorrowedFd<'_>, offset: u64, source: Readable<'_>) -> Result<u64, Errno> {
    transfer(file, offset, source)
}

/// The two system calls of a direction. They write to memory only where the driver is to read it.
trait Calls: Copy {
    /// `pread` or `pwrite`: cheaper, as the kernel has no table to copy.
    ///
    /// # Safety
    /// As for these.
    unsafe fn one(file: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t;

    /// `preadv` or `pwritev`.
    ///
    /// # Safety
    /// As for these.
    unsafe fn many(file: c_int, table: *const iovec, count: c_int, offset: off_t) -> ssize_t;
}

impl Calls for ToDriver<'_> {
    #[inline]
    unsafe fn one(file: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t {
        // SAFETY: as promised by the caller.
        unsafe { plain::pread(file, buffer, length, offset) }
    }

    unsafe fn many(file: c_int, table: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        // SAFETY: as promised by the caller.
        unsafe { libc::preadv(file, table, count, offset) }
    }
}

impl Calls for FromDriver {
    #[inline]
    unsafe fn one(file: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t {
        // SAFETY: as promised by the caller.
        unsafe { plain::pwrite(file, buffer, length, offset) }
    }

    unsafe fn many(file: c_int, table: *const iovec, count: c_int, offset: off_t) -> ssize_t {
        // SAFETY: as promised by the caller.
        unsafe { libc::pwritev(file, table, count, offset) }
    }
}

/// `pread` and `pwrite` without what the C library does around them in a process of many threads: they can be cancelled there,
/// which nobody does here, and which takes more instructions than the call.
#[cfg(target_pointer_width = "64")]
mod plain {
    use libc::{c_int, c_long, c_void, off_t, size_t, ssize_t};

    /// # Safety
    /// As for the function of the C library.
    #[inline]
    pub(super) unsafe fn pread(file: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t {
        // SAFETY: these are the arguments of the system call, and what it does to memory the caller has promised to be fine.
        as_size(unsafe { libc::syscall(libc::SYS_pread64, file, buffer, length, offset) })
    }

    /// # Safety
    /// As for the function of the C library.
    #[inline]
    pub(super) unsafe fn pwrite(file: c_int, buffer: *mut c_void, length: size_t, offset: off_t) -> ssize_t {
        // SAFETY: as above.
        as_size(unsafe { libc::syscall(libc::SYS_pwrite64, file, buffer, length, offset) })
    }

    /// Both have 64 bits.
    fn as_size(result: c_long) -> ssize_t {
        result as ssize_t
    }
}

/// Here a 64-bit number takes two arguments of the call, in another way on each machine.
#[cfg(not(target_pointer_width = "64"))]
use libc as plain;

/// Repeats a call until `segments` are used up, the file ends, or an error comes. Normally one is enough.
#[inline]
fn transfer<Direction: Calls>(
    file: BorrowedFd<'_>,
    offset: u64,
    segments: Segments<'_, Direction>,
) -> Result<u64, Errno> {
    if segments.is_empty() {
        return Ok(0);
    }
    let moved = once(file, offset, segments);
    match moved {
        Ok(Some(bytes)) if bytes == segments.len() => Ok(bytes),
        _ => go_on(file, offset, segments, moved),
    }
}

/// Goes on after a call that `moved` fewer bytes.
#[cold]
fn go_on<Direction: Calls>(
    file: BorrowedFd<'_>,
    offset: u64,
    segments: Segments<'_, Direction>,
    moved: Result<Option<u64>, Errno>,
) -> Result<u64, Errno> {
    let (mut left, mut done, mut moved) = (segments, 0_u64, moved);
    loop {
        match moved? {
            Some(0) => break,
            Some(bytes) => {
                done = done.saturating_add(bytes);
                left.skip(bytes).map_err(|_| Errno::IO)?;
            }
            None => {}
        }
        if left.is_empty() {
            break;
        }
        moved = once(file, offset.checked_add(done).ok_or(Errno::OVERFLOW)?, left);
    }
    Ok(done)
}

/// One call: the bytes that it moved, `None` if it was interrupted.
#[inline]
fn once<Direction: Calls>(
    file: BorrowedFd<'_>,
    offset: u64,
    segments: Segments<'_, Direction>,
) -> Result<Option<u64>, Errno> {
    let position = off_t::try_from(offset).map_err(|_| Errno::OVERFLOW)?;
    let result = match segments.only() {
        Some(only) => transfer_one::<Direction>(file, position, &only),
        None => transfer_many(file, position, segments),
    };
    match u64::try_from(result) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(_) => match last_errno() {
            Errno::INTR => Ok(None),
            errno => Err(errno),
        },
    }
}

/// One call for one slice.
#[inline]
fn transfer_one<Direction: Calls>(file: BorrowedFd<'_>, position: off_t, slice: &VolatileSlice<'_>) -> ssize_t {
    // Keeps the slice mapped where vm-memory maps on demand.
    let guard = slice.ptr_guard_mut();
    // SAFETY: `slice` is mapped memory of this length, and `guard` pins it during the whole call. It is guest memory, which
    // no Rust reference covers, so the kernel may read and write it at any time.
    unsafe { Direction::one(file.as_raw_fd(), guard.as_ptr().cast(), guard.len(), position) }
}

/// One call for as many slices as go into one. Apart, as its tables are large and most requests have one slice.
#[inline(never)]
fn transfer_many<Direction: Calls>(
    file: BorrowedFd<'_>,
    position: off_t,
    segments: Segments<'_, Direction>,
) -> ssize_t {
    let mut table = [iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
    // Guards keep a slice mapped where vm-memory maps on demand; they must outlive the call.
    let mut guards = [const { None::<PtrGuardMut> }; BATCH];
    let mut count: c_int = 0;
    for ((slice, entry), kept) in segments.slices().zip(&mut table).zip(&mut guards) {
        let guard = kept.insert(slice.ptr_guard_mut());
        *entry = iovec { iov_base: guard.as_ptr().cast(), iov_len: guard.len() };
        count = count.saturating_add(1);
    }
    // SAFETY: the first `count` entries of `table` were filled from slices that `segments` borrows and `guards` pin, so
    // each is mapped memory of the length given, during the whole call. It is guest memory, which no Rust reference
    // covers, so the kernel may read and write it at any time. `table` itself lives until the end of this function.
    unsafe { Direction::many(file.as_raw_fd(), table.as_ptr(), count, position) }
}

/// The errno of the call that just failed on this thread.
#[cold]
fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;
    use crate::chain::{Readable, Writable};

    /// Bytes in pieces of so many bytes.
    struct Pieces<'a>(Vec<VolatileSlice<'a>>, u64);

    impl Pieces<'_> {
        fn readable(&self) -> Readable<'_> {
            Readable::new(&self.0, self.1)
        }

        fn writable(&self) -> Writable<'_> {
            Writable::new(&self.0, self.1)
        }
    }

    fn pieces(bytes: &mut [u8], piece: usize) -> Pieces<'_> {
        let length = bytes.len() as u64;
        Pieces(bytes.chunks_mut(piece).map(VolatileSlice::from).collect(), length)
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn more_slices_than_the_kernel_takes_at_once_go_through() {
        let mut source = pattern(3000);
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(write_at(file.as_fd(), 5, pieces(&mut source, 1).readable()), Ok(3000));
        let mut stored = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut stored).unwrap();
        assert_eq!(stored[5..], source[..]);

        let mut target = vec![0; 3000];
        assert_eq!(read_at(file.as_fd(), 5, pieces(&mut target, 1).writable()), Ok(3000));
        assert_eq!(target, source);
    }

    #[test]
    fn the_end_of_the_file_cuts_a_read_short() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&pattern(100)).unwrap();
        let mut target = vec![0xee; 64];
        assert_eq!(read_at(file.as_fd(), 80, pieces(&mut target, 7).writable()), Ok(20));
        assert_eq!(target[..20], pattern(100)[80..]);
        assert_eq!(target[20..], [0xee; 44]);
    }

    #[test]
    fn errors_keep_their_errno() {
        let file = File::open("/dev/null").unwrap();
        let mut bytes = [0; 8];
        assert_eq!(write_at(file.as_fd(), 0, pieces(&mut bytes, 8).readable()), Err(Errno::BADF));
        let beyond = u64::MAX - 3;
        assert_eq!(read_at(file.as_fd(), beyond, pieces(&mut bytes, 8).writable()), Err(Errno::OVERFLOW));
    }

    #[test]
    fn nothing_to_transfer_makes_no_call() {
        let (closed_for_reading, _) = rustix::pipe::pipe().unwrap();
        assert_eq!(read_at(closed_for_reading.as_fd(), 0, pieces(&mut [], 1).writable()), Ok(0));
    }

    /// A file of one page behind a mapping of two: the kernel reports the missing page instead of killing the process.
    #[test]
    fn a_hole_in_guest_memory_is_an_error_not_a_signal() {
        use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};
        let backing = tempfile::tempfile().unwrap();
        backing.set_len(8192).unwrap();
        let region = (GuestAddress(0), 8192, Some(FileOffset::new(backing.try_clone().unwrap(), 0)));
        let memory = GuestMemoryMmap::<()>::from_ranges_with_files([region]).unwrap();
        backing.set_len(4096).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&pattern(8192)).unwrap();

        let slice = memory.get_slice(GuestAddress(4096), 4096).unwrap();
        assert_eq!(read_at(file.as_fd(), 0, Writable::new(&[slice], 4096)), Err(Errno::FAULT));
    }
}
