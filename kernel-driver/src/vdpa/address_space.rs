//! What memory a vDPA device reaches, and where: address spaces, and the groups of rings that live in them.

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_core::uapi::iotlb::{Access, IotlbRequest, IotlbVersion};
use vhost_core::uapi::layout::{IovaRange, VringState};
use vhost_core::uapi::vhost::{
    VHOST_VDPA_GET_AS_NUM, VHOST_VDPA_GET_GROUP_NUM, VHOST_VDPA_GET_IOVA_RANGE, VHOST_VDPA_GET_VRING_DESC_GROUP,
    VHOST_VDPA_GET_VRING_GROUP, VHOST_VDPA_SET_GROUP_ASID,
};
use vhost_core::{Iova, UserAddress};
use vhost_std::memory::MappedRegion;
use vhost_std::system_error::SystemError;

use super::Vdpa;
use crate::device::vring_state;
use crate::error::KernelError;
use crate::ioctl;
use crate::iotlb::send;

/// Memory, and where a device reaches it.
///
/// It is always memory that its file shares: private memory would look mapped to a caller and not be there for the device.
#[derive(Clone, Debug)]
pub struct Mapping<'m> {
    /// The memory.
    pub region: &'m Arc<MappedRegion>,
    /// Offset of the first byte in the region.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// The first byte's address for the device.
    pub iova: Iova,
    /// What the device may do with it.
    pub access: Access,
}

impl<'m> Mapping<'m> {
    /// All of a region.
    #[must_use]
    pub fn all_of(region: &'m Arc<MappedRegion>, iova: Iova, access: Access) -> Self {
        Self { region, offset: 0, size: region.region().size, iova, access }
    }

    /// The address of the first byte in this process, if it is memory that can be mapped.
    pub(crate) fn user_address(&self) -> Result<UserAddress, KernelError> {
        let Self { region, offset, size, iova, .. } = *self;
        let available = region.region().size;
        if size == 0 || offset.checked_add(size).is_none_or(|end| end > available) {
            return Err(KernelError::OutsideRegion { offset, size, available });
        }
        let user_address = ioctl::host_address(region, offset);
        let page = rustix::param::page_size() as u64;
        if [iova.0, user_address.0, size].iter().any(|number| !number.is_multiple_of(page)) {
            return Err(KernelError::NotWholePages { iova, user_address, size });
        }
        Ok(user_address)
    }
}

impl Vdpa {
    /// Lets the device reach memory. The first address and the size are multiples of the page size.
    ///
    /// `asid` is the address space; it matters once
    /// [`IOTLB_ASID`](vhost_core::uapi::bits::BackendFeatures::IOTLB_ASID) is acknowledged.
    ///
    /// # Errors
    /// [`OutsideRegion`](KernelError::OutsideRegion), [`NotWholePages`](KernelError::NotWholePages);
    /// [`Iotlb`](KernelError::Iotlb) if something is mapped there, if it is not within [`iova_range`](Self::iova_range), if
    /// there is no such address space, or if the memory cannot be pinned (`RLIMIT_MEMLOCK`).
    #[doc(alias = "VHOST_IOTLB_UPDATE")]
    pub fn map(&self, asid: u32, mapping: &Mapping<'_>) -> Result<(), KernelError> {
        let user_address = mapping.user_address()?;
        let Mapping { region, size, iova, access, .. } = *mapping;
        let mut translations = self.translations();
        let update = IotlbRequest::Update { iova, size, user_address, access };
        send(self.as_fd(), IotlbVersion::V2 { asid }, update)?;
        translations.add(asid, iova, size, region);
        Ok(())
    }

    /// Takes away all mappings that have a part in these addresses.
    ///
    /// # Errors
    /// [`Iotlb`](KernelError::Iotlb) if nothing was ever mapped in the address space.
    #[doc(alias = "VHOST_IOTLB_INVALIDATE")]
    pub fn unmap(&self, asid: u32, iova: Iova, size: u64) -> Result<(), KernelError> {
        let mut translations = self.translations();
        send(self.as_fd(), IotlbVersion::V2 { asid }, IotlbRequest::Invalidate { iova, size })?;
        translations.remove(asid, iova, size);
        Ok(())
    }

    /// Begins changes of one address space that the device learns of together, when the batch ends or is dropped. It saves
    /// time and nothing else: what fails in between does not undo the rest. Needs
    /// [`IOTLB_BATCH`](vhost_core::uapi::bits::BackendFeatures::IOTLB_BATCH).
    ///
    /// # Errors
    /// [`Iotlb`](KernelError::Iotlb) without that feature, or if there is no such address space.
    #[doc(alias = "VHOST_IOTLB_BATCH_BEGIN")]
    pub fn batch(&self, asid: u32) -> Result<Batch<'_>, KernelError> {
        send(self.as_fd(), IotlbVersion::V2 { asid }, IotlbRequest::BatchBegin)?;
        Ok(Batch { device: Some(self), asid })
    }

    /// The addresses that can be mapped.
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_GET_IOVA_RANGE`.
    #[doc(alias = "VHOST_VDPA_GET_IOVA_RANGE")]
    pub fn iova_range(&self) -> Result<IovaRange, SystemError> {
        ioctl::read(self.as_fd(), VHOST_VDPA_GET_IOVA_RANGE)
    }

    /// Number of address spaces.
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_GET_AS_NUM`, which is as old as Linux 5.19.
    #[doc(alias = "VHOST_VDPA_GET_AS_NUM")]
    pub fn address_space_count(&self) -> Result<u32, SystemError> {
        ioctl::read(self.as_fd(), VHOST_VDPA_GET_AS_NUM)
    }

    /// Number of groups of rings.
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_GET_GROUP_NUM`, which is as old as Linux 5.19.
    #[doc(alias = "VHOST_VDPA_GET_GROUP_NUM")]
    pub fn group_count(&self) -> Result<u32, SystemError> {
        ioctl::read(self.as_fd(), VHOST_VDPA_GET_GROUP_NUM)
    }

    /// The group that a ring belongs to.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if the device has no groups.
    #[doc(alias = "VHOST_VDPA_GET_VRING_GROUP")]
    pub fn vring_group(&self, ring: u32) -> Result<u32, SystemError> {
        vring_state(self.as_fd(), VHOST_VDPA_GET_VRING_GROUP, ring)
    }

    /// The group that a ring's descriptor table belongs to.
    ///
    /// # Errors
    /// `EOPNOTSUPP` without [`DESC_ASID`](vhost_core::uapi::bits::BackendFeatures::DESC_ASID).
    #[doc(alias = "VHOST_VDPA_GET_VRING_DESC_GROUP")]
    pub fn vring_descriptor_group(&self, ring: u32) -> Result<u32, SystemError> {
        vring_state(self.as_fd(), VHOST_VDPA_GET_VRING_DESC_GROUP, ring)
    }

    /// Moves a group of rings to an address space.
    ///
    /// # Errors
    /// `EINVAL` or `ENOBUFS` if there is no such group, `EOPNOTSUPP` if it cannot move, `EBUSY` after `DRIVER_OK`.
    #[doc(alias = "VHOST_VDPA_SET_GROUP_ASID")]
    pub fn set_group_address_space(&self, group: u32, asid: u32) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_VDPA_SET_GROUP_ASID, VringState::new(group, asid))
    }
}

/// Changes of one address space that the device learns of together.
#[derive(Debug)]
pub struct Batch<'d> {
    /// `None` once the batch has ended.
    device: Option<&'d Vdpa>,
    asid: u32,
}

impl Batch<'_> {
    /// As [`Vdpa::map`].
    ///
    /// # Errors
    /// As [`Vdpa::map`].
    pub fn map(&self, mapping: &Mapping<'_>) -> Result<(), KernelError> {
        self.device.map_or(Ok(()), |device| device.map(self.asid, mapping))
    }

    /// As [`Vdpa::unmap`].
    ///
    /// # Errors
    /// As [`Vdpa::unmap`].
    pub fn unmap(&self, iova: Iova, size: u64) -> Result<(), KernelError> {
        self.device.map_or(Ok(()), |device| device.unmap(self.asid, iova, size))
    }

    /// Has the device learn of the changes.
    ///
    /// # Errors
    /// [`Iotlb`](KernelError::Iotlb) if the device does not take them.
    #[doc(alias = "VHOST_IOTLB_BATCH_END")]
    pub fn end(mut self) -> Result<(), KernelError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), KernelError> {
        match self.device.take() {
            Some(device) => send(device.as_fd(), IotlbVersion::V2 { asid: self.asid }, IotlbRequest::BatchEnd),
            None => Ok(()),
        }
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // Nobody is there to be told; a device that does not know its memory fails at its first access.
        let _ = self.finish();
    }
}
