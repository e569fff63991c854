//! The memory that the driver shares with a VDUSE device: regions of I/O virtual addresses.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use vhost_core::uapi::iotlb::Access;
use vhost_core::uapi::vduse::VDUSE_IOTLB_GET_INFO;
use vhost_core::uapi::vduse_layout::{IotlbEntry, IotlbEntryV2, IovaInfo};
use vhost_core::uapi::vduse_message::VduseVersion;
use vhost_core::{GuestAddress, Iova, MemoryRegion, UserAddress};
use vhost_std::memory::{MappedRegion, MemoryError};
use vhost_std::system_error::SystemError;

use super::VduseDevice;
use crate::ioctl;

/// A region of I/O virtual addresses, and the file that it is a part of.
#[derive(Debug)]
pub struct Region {
    /// The first address.
    pub first: Iova,
    /// The last address, which is part of the region.
    pub last: Iova,
    /// Offset of the first byte in the file.
    pub offset: u64,
    /// What the device may do with it; `None` for nothing.
    pub access: Option<Access>,
    /// The file.
    pub file: OwnedFd,
}

impl VduseDevice {
    /// The first region that has a part in `first..=last` of an address space; `None` if there is none. `asid` is 0 in
    /// version 0.
    ///
    /// # Errors
    /// The errno of `VDUSE_IOTLB_GET_FD`, but for the `EINVAL` that means that there is none.
    #[doc(alias = "VDUSE_IOTLB_GET_FD")]
    #[doc(alias = "VDUSE_IOTLB_GET_FD2")]
    pub fn region(&self, asid: u32, first: Iova, last: Iova) -> Result<Option<Region>, SystemError> {
        let found = match self.version() {
            VduseVersion::V0 => ioctl::iotlb_get_fd(self.as_fd(), IotlbEntry::new(0, first, last, 0))
                .map(|(entry, file)| (entry.first(), entry.last(), entry.offset(), entry.permission(), file)),
            VduseVersion::V1 => {
                let entry = IotlbEntryV2::new(0, first, last, 0, asid, [0; 44]);
                ioctl::iotlb_get_fd2(self.as_fd(), entry)
                    .map(|(entry, file)| (entry.first(), entry.last(), entry.offset(), entry.permission(), file))
            }
        };
        match found {
            Ok((first, last, offset, permission, file)) => {
                Ok(Some(Region { first, last, offset, access: Access::from_permission(permission), file }))
            }
            Err(SystemError { errno: Errno::INVAL, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is known of the first region that has a part in `first..=last`, without its file; `None` if there is none.
    ///
    /// # Errors
    /// The errno of `VDUSE_IOTLB_GET_INFO`, which is as old as Linux 6.0, but for the `EINVAL` that means that there is
    /// none.
    #[doc(alias = "VDUSE_IOTLB_GET_INFO")]
    pub fn region_info(&self, asid: u32, first: Iova, last: Iova) -> Result<Option<IovaInfo>, SystemError> {
        let argument = IovaInfo::new(first, last, 0, asid, [0; 20]);
        match ioctl::exchange(self.as_fd(), VDUSE_IOTLB_GET_INFO, argument) {
            Ok(info) => Ok(Some(info)),
            Err(SystemError { errno: Errno::INVAL, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel keep the data for the device in `memory` instead of pages of its own. It stands for all of the
    /// kernel's bounce buffer, the region at `iova` with that [capability](IovaInfo::USER_MEMORY), and has its size.
    ///
    /// # Errors
    /// `EINVAL` if it is another size or place, or the kernel has no such buffer yet; `ENOMEM` for more than
    /// `RLIMIT_MEMLOCK`, `EEXIST` if there is memory for it.
    #[doc(alias = "VDUSE_IOTLB_REG_UMEM")]
    pub fn register_user_memory(&self, asid: u32, iova: Iova, memory: &MappedRegion) -> Result<(), SystemError> {
        ioctl::register_user_memory(self.as_fd(), memory, iova, asid)
    }

    /// Takes that memory back.
    ///
    /// # Errors
    /// `ENOENT` if the kernel has none, `EINVAL` if it is another size or place.
    #[doc(alias = "VDUSE_IOTLB_DEREG_UMEM")]
    pub fn deregister_user_memory(&self, asid: u32, iova: Iova, size: u64) -> Result<(), SystemError> {
        ioctl::deregister_user_memory(self.as_fd(), iova, size, asid)
    }
}

impl Region {
    /// Maps it for reading and writing, at guest addresses that are the I/O virtual ones. [`access`](Self::access) is not
    /// looked at.
    ///
    /// # Errors
    /// [`MemoryError`], for example if the file may not be written to, or is shorter than the driver says.
    pub fn map(self) -> Result<MappedRegion, MemoryError> {
        let size = self.last.0.saturating_sub(self.first.0).saturating_add(1);
        let region = MemoryRegion::new(GuestAddress(self.first.0), size, UserAddress(self.first.0), self.offset);
        let stat = fstat(&self.file).map_err(|errno| SystemError { call: "fstat", errno })?;
        match FileType::from_raw_mode(stat.st_mode) {
            // A driver's own memory. The kernel's has no size.
            FileType::RegularFile => MappedRegion::new(region, self.file),
            _ => MappedRegion::of_kernel(region, self.file),
        }
    }
}
