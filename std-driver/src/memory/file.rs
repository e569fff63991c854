//! Memory that a front-end makes and shares.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Errno;

use super::{MappedRegion, MemoryError, MemoryRegion};
use crate::system_error::SystemError;

/// Memory of a front-end: a file without a path, mapped here and ready to be sent to a back-end.
///
/// Its size is sealed, so that neither side can raise a `SIGBUS` in the other. It is zero at first
/// and takes memory only where it is touched.
///
/// ```
/// use std::os::fd::AsFd;
/// use vhost_std::memory::MemoryFile;
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let memory = MemoryFile::create("guest", 0x10_0000, 0x4000)?;
/// assert_eq!(memory.region().guest_address.0, 0x10_0000);
/// let _to_send = (memory.region(), memory.as_fd());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryFile {
    descriptor: OwnedFd,
    mapped: Arc<MappedRegion>,
}

impl MemoryFile {
    /// Makes `size` bytes of memory that the guest sees at `guest_address`.
    ///
    /// `name` is what `/proc` calls it, of at most 249 bytes; several may have the same. The user
    /// address of the region is where it is in this process, the offset is zero.
    ///
    /// # Errors
    /// - [`EmptyRegion`](MemoryError::EmptyRegion), [`RegionWraps`](MemoryError::RegionWraps),
    ///   [`TooLarge`](MemoryError::TooLarge): the numbers make no region.
    /// - [`System`](MemoryError::System): for example `memfd_create` with `EINVAL` if `name` is too
    ///   long, or `mmap` with `ENOMEM`.
    pub fn create(name: &str, guest_address: u64, size: u64) -> Result<Self, MemoryError> {
        let descriptor = sealed(name, size)?;
        let mapped = MappedRegion::of_this_process(guest_address, size, descriptor.as_fd())?;
        Ok(Self { descriptor, mapped: Arc::new(mapped) })
    }

    /// What to tell the back-end of it.
    #[must_use]
    pub fn region(&self) -> &MemoryRegion {
        self.mapped.region()
    }

    /// The bytes, for a [`MemoryTable`](super::MemoryTable) of this side.
    #[must_use]
    pub fn mapped(&self) -> &Arc<MappedRegion> {
        &self.mapped
    }
}

impl AsFd for MemoryFile {
    /// The descriptor to send along with the region.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A file without a path, of `size` bytes that are zero, which nobody can make shorter or longer.
pub(crate) fn sealed(name: &str, size: u64) -> Result<OwnedFd, MemoryError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let descriptor = match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3; or the name is at fault, which then fails again.
        Err(Errno::INVAL) => memfd_create(name, flags),
        outcome => outcome,
    }
    .map_err(SystemError::of("memfd_create"))?;
    ftruncate(&descriptor, size).map_err(|errno| match errno {
        Errno::INVAL | Errno::FBIG => MemoryError::TooLarge { size },
        errno => SystemError::of("ftruncate")(errno).into(),
    })?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&descriptor, seals).map_err(SystemError::of("fcntl"))?;
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use rustix::fs::{fcntl_get_seals, fstat};
    use vm_memory::{Bytes, MemoryRegionAddress};

    use vhost_core::{GuestAddress, UserAddress};

    use super::*;
    use crate::memory::AddressSpace;

    #[test]
    fn both_sides_see_the_same_bytes() {
        let memory = MemoryFile::create("both-sides", 0x1000, 0x3000).unwrap();
        let sent = memory.as_fd().try_clone_to_owned().unwrap();
        let received = MappedRegion::new(*memory.region(), sent).unwrap();
        let at = MemoryRegionAddress(0x2ffe);
        memory.mapped().write_obj(0xabcd_u16, at).unwrap();
        assert_eq!(received.read_obj::<u16>(at).unwrap(), 0xabcd);
        received.write_obj(0x1234_u16, at).unwrap();
        assert_eq!(memory.mapped().read_obj::<u16>(at).unwrap(), 0x1234);
        let file = File::from(memory.as_fd().try_clone_to_owned().unwrap());
        let mut bytes = [0; 2];
        file.read_exact_at(&mut bytes, 0x2ffe).unwrap();
        assert_eq!(bytes, 0x1234_u16.to_ne_bytes());
    }

    #[test]
    fn the_region_is_where_it_is_in_this_process() {
        let memory = MemoryFile::create("this-process", 0x1000, 0x3000).unwrap();
        let user_address = UserAddress(memory.mapped().host_address().addr() as u64);
        let expected = MemoryRegion::new(GuestAddress(0x1000), 0x3000, user_address, 0);
        assert_eq!(*memory.region(), expected);
        assert_eq!(fstat(&memory).unwrap().st_size, 0x3000);
    }

    #[test]
    fn nobody_can_change_the_size() {
        let memory = MemoryFile::create("sealed", 0, 0x3000).unwrap();
        assert_eq!(ftruncate(&memory, 0x1000), Err(Errno::PERM));
        assert_eq!(ftruncate(&memory, 0x4000), Err(Errno::PERM));
        assert!(fcntl_get_seals(&memory).unwrap().contains(SealFlags::SEAL));
        let flags = rustix::io::fcntl_getfd(&memory).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn numbers_that_make_no_region_are_refused() {
        let refused = |address, size| MemoryFile::create("refused", address, size).unwrap_err();
        assert!(matches!(refused(0, 0), MemoryError::EmptyRegion(_)));
        let size = u64::MAX;
        assert_eq!(refused(0, size), MemoryError::TooLarge { size });
        let wraps = refused(u64::MAX - 0xfff, 0x1000);
        let MemoryError::RegionWraps { space, .. } = wraps else {
            panic!("{wraps}");
        };
        assert_eq!(space, AddressSpace::Guest);
    }

    #[test]
    fn a_name_that_is_too_long_is_refused() {
        let error = MemoryFile::create(&"x".repeat(250), 0, 1).unwrap_err();
        let (call, errno) = ("memfd_create", Errno::INVAL);
        assert_eq!(error, SystemError { call, errno }.into());
    }
}
