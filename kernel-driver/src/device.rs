//! What all vhost devices of the kernel have in common.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::io::Errno;
use vhost_core::uapi::bits::BackendFeatures;
use vhost_core::uapi::ioctl::Command;
use vhost_core::uapi::layout::{FeaturesArray, NO_FILE, VringFile, VringState};
use vhost_core::uapi::vhost::{
    VHOST_GET_BACKEND_FEATURES, VHOST_GET_FEATURES, VHOST_GET_FEATURES_ARRAY, VHOST_GET_FORK_FROM_OWNER,
    VHOST_GET_VRING_BASE, VHOST_GET_VRING_BUSYLOOP_TIMEOUT, VHOST_GET_VRING_ENDIAN, VHOST_SET_BACKEND_FEATURES,
    VHOST_SET_FORK_FROM_OWNER, VHOST_SET_OWNER, VHOST_SET_VRING_BASE, VHOST_SET_VRING_BUSYLOOP_TIMEOUT,
    VHOST_SET_VRING_CALL, VHOST_SET_VRING_ENDIAN, VHOST_SET_VRING_ERR, VHOST_SET_VRING_KICK,
};
use vhost_core::wire::vring::VringBase;
use vhost_core::{RingLayout, VirtioFeatures};
use vhost_std::system_error::SystemError;

use crate::ioctl;

pub(crate) mod sealed {
    /// Keeps the calls to descriptors that this crate has opened or was given as vhost devices.
    pub trait Sealed {}
}

/// The byte order of a legacy ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RingEndian {
    /// The least significant byte first.
    Little,
    /// The most significant byte first.
    Big,
}

/// What the kernel's worker for a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkerKind {
    /// A thread of the kernel.
    KernelThread,
    /// A task of the owner's process, with its limits and control groups.
    OwnerTask,
}

/// A vhost device of the kernel: net, vsock, scsi or vDPA.
///
/// [`set_owner`](Self::set_owner) comes first; before it the kernel answers `EPERM` to most calls. Of errors: a ring that
/// does not exist is `ENOBUFS`, a call that the device or the kernel does not know is `ENOTTY`, but `ENOBUFS` or `EFAULT`
/// too if the kernel takes it for one about a ring.
///
/// All calls may be made from any thread of the process that is the owner; in a child of it they fail with `EPERM`.
pub trait VhostDevice: AsFd + sealed::Sealed {
    /// The virtio features on offer.
    ///
    /// # Errors
    /// The errno of `VHOST_GET_FEATURES`.
    #[doc(alias = "VHOST_GET_FEATURES")]
    fn features(&self) -> Result<VirtioFeatures, SystemError> {
        ioctl::read(self.as_fd(), VHOST_GET_FEATURES).map(VirtioFeatures::from_bits_retain)
    }

    /// The virtio features on offer as `words` words of 64, of which those that the kernel does not have are zero; `None`
    /// if it knows no array (before Linux 6.17, or any device but vhost-net). Only the owner gets them.
    ///
    /// # Errors
    /// The errno of `VHOST_GET_FEATURES_ARRAY`, unless it means that there is no such call.
    #[doc(alias = "VHOST_GET_FEATURES_ARRAY")]
    fn features_array(&self, words: usize) -> Result<Option<Vec<u64>>, SystemError> {
        let head = |count| FeaturesArray::new(count as u64);
        let answer = ioctl::exchange_array(self.as_fd(), VHOST_GET_FEATURES_ARRAY, head, &vec![0_u64; words]);
        unless_unknown(answer)
    }

    /// The virtio features on offer as `words` words of 64, asked for in whichever way the kernel knows.
    ///
    /// # Errors
    /// The errno of the call.
    fn all_features(&self, words: usize) -> Result<Vec<u64>, SystemError> {
        if let Some(features) = self.features_array(words)? {
            return Ok(features);
        }
        let mut features = vec![0; words];
        if let Some(first) = features.first_mut() {
            *first = self.features()?.bits();
        }
        Ok(features)
    }

    /// Makes this process the owner: the kernel uses its address space from now on.
    ///
    /// # Errors
    /// `EBUSY` if the device has an owner, be it this process.
    #[doc(alias = "VHOST_SET_OWNER")]
    fn set_owner(&self) -> Result<(), SystemError> {
        ioctl::none(self.as_fd(), VHOST_SET_OWNER)
    }

    /// Sets where a ring goes on. Not while it runs.
    ///
    /// # Errors
    /// `EBUSY` or `EINVAL` while it runs.
    #[doc(alias = "VHOST_SET_VRING_BASE")]
    fn set_vring_base(&self, ring: u32, base: VringBase) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_SET_VRING_BASE, VringState::new(ring, base.to_num()))
    }

    /// Where a ring goes on. The ring does not stop for it: while it runs this is a look at something that moves.
    ///
    /// # Errors
    /// The errno of `VHOST_GET_VRING_BASE`.
    #[doc(alias = "VHOST_GET_VRING_BASE")]
    fn vring_base(&self, ring: u32, layout: RingLayout) -> Result<VringBase, SystemError> {
        let num = vring_state(self.as_fd(), VHOST_GET_VRING_BASE, ring)?;
        Ok(base_of(num, layout))
    }

    /// Sets the eventfd with which the driver tells of new buffers; `None` takes it away. The kernel reads it from now on.
    ///
    /// # Errors
    /// The errno of `VHOST_SET_VRING_KICK`, for example `EINVAL` if it is no eventfd.
    #[doc(alias = "VHOST_SET_VRING_KICK")]
    fn set_vring_kick(&self, ring: u32, kick: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_SET_VRING_KICK, vring_file(ring, kick))
    }

    /// Sets the eventfd with which the driver is told of used buffers; `None` takes it away. Also while the ring runs.
    ///
    /// # Errors
    /// The errno of `VHOST_SET_VRING_CALL`, for example `EINVAL` if it is no eventfd.
    #[doc(alias = "VHOST_SET_VRING_CALL")]
    fn set_vring_call(&self, ring: u32, call: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_SET_VRING_CALL, vring_file(ring, call))
    }

    /// Sets the eventfd that is signalled when a ring is broken; `None` takes it away.
    ///
    /// # Errors
    /// The errno of `VHOST_SET_VRING_ERR`, for example `EINVAL` if it is no eventfd.
    #[doc(alias = "VHOST_SET_VRING_ERR")]
    fn set_vring_error(&self, ring: u32, error: Option<BorrowedFd<'_>>) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_SET_VRING_ERR, vring_file(ring, error))
    }

    /// Sets for how many microseconds a ring is polled before its kick is waited for. vhost-net heeds it.
    ///
    /// # Errors
    /// The errno of `VHOST_SET_VRING_BUSYLOOP_TIMEOUT`.
    #[doc(alias = "VHOST_SET_VRING_BUSYLOOP_TIMEOUT")]
    fn set_vring_busyloop_timeout(&self, ring: u32, microseconds: u32) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_SET_VRING_BUSYLOOP_TIMEOUT, VringState::new(ring, microseconds))
    }

    /// For how many microseconds a ring is polled.
    ///
    /// # Errors
    /// The errno of `VHOST_GET_VRING_BUSYLOOP_TIMEOUT`.
    #[doc(alias = "VHOST_GET_VRING_BUSYLOOP_TIMEOUT")]
    fn vring_busyloop_timeout(&self, ring: u32) -> Result<u32, SystemError> {
        vring_state(self.as_fd(), VHOST_GET_VRING_BUSYLOOP_TIMEOUT, ring)
    }

    /// Sets the byte order of a legacy ring.
    ///
    /// # Errors
    /// `ENOTTY` if the kernel was built without `CONFIG_VHOST_CROSS_ENDIAN_LEGACY`, as most are.
    #[doc(alias = "VHOST_SET_VRING_ENDIAN")]
    fn set_vring_endian(&self, ring: u32, endian: RingEndian) -> Result<(), SystemError> {
        let num = u32::from(endian == RingEndian::Big);
        ioctl::write(self.as_fd(), VHOST_SET_VRING_ENDIAN, VringState::new(ring, num))
    }

    /// The byte order of a legacy ring.
    ///
    /// # Errors
    /// As [`set_vring_endian`](Self::set_vring_endian).
    #[doc(alias = "VHOST_GET_VRING_ENDIAN")]
    fn vring_endian(&self, ring: u32) -> Result<RingEndian, SystemError> {
        let num = vring_state(self.as_fd(), VHOST_GET_VRING_ENDIAN, ring)?;
        Ok(if num == 0 { RingEndian::Little } else { RingEndian::Big })
    }

    /// What the device can do beside virtio.
    ///
    /// # Errors
    /// The errno of `VHOST_GET_BACKEND_FEATURES`; vhost-scsi has none.
    #[doc(alias = "VHOST_GET_BACKEND_FEATURES")]
    fn backend_features(&self) -> Result<BackendFeatures, SystemError> {
        ioctl::read(self.as_fd(), VHOST_GET_BACKEND_FEATURES).map(BackendFeatures::from_bits_retain)
    }

    /// Acknowledges what the device can do beside virtio. Before the first message about the IOTLB.
    ///
    /// # Errors
    /// `EOPNOTSUPP` if it was not on offer.
    #[doc(alias = "VHOST_SET_BACKEND_FEATURES")]
    fn set_backend_features(&self, features: BackendFeatures) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_SET_BACKEND_FEATURES, features.bits())
    }

    /// Sets what the kernel's workers are. Before [`set_owner`](Self::set_owner).
    ///
    /// # Errors
    /// `EBUSY` if the device has an owner; `EPERM`, `ENOTTY` or `ENOBUFS` if the kernel does not know the call.
    #[doc(alias = "VHOST_SET_FORK_FROM_OWNER")]
    fn set_worker_kind(&self, kind: WorkerKind) -> Result<(), SystemError> {
        ioctl::write(self.as_fd(), VHOST_SET_FORK_FROM_OWNER, u8::from(kind == WorkerKind::OwnerTask))
    }

    /// What the kernel's workers are.
    ///
    /// # Errors
    /// `EPERM`, `ENOTTY` or `ENOBUFS` if the kernel does not know the call.
    #[doc(alias = "VHOST_GET_FORK_FROM_OWNER")]
    fn worker_kind(&self) -> Result<WorkerKind, SystemError> {
        let number = ioctl::read(self.as_fd(), VHOST_GET_FORK_FROM_OWNER)?;
        Ok(if number == 0 { WorkerKind::KernelThread } else { WorkerKind::OwnerTask })
    }
}

/// The number that a call about a ring answers with.
pub(crate) fn vring_state(fd: BorrowedFd<'_>, command: Command<VringState>, ring: u32) -> Result<u32, SystemError> {
    ioctl::exchange(fd, command, VringState::new(ring, 0)).map(|state| state.num())
}

/// The argument that sets a descriptor of a ring.
pub(crate) fn vring_file(ring: u32, file: Option<BorrowedFd<'_>>) -> VringFile {
    VringFile::new(ring, file.map_or(NO_FILE, |file| file.as_raw_fd()))
}

/// `None` for an errno with which a kernel answers a call that it does not know: before there is an owner `EPERM`; after
/// that it takes the call for one about a ring, and the argument's first number for the ring.
pub(crate) fn unless_unknown<T>(answer: Result<T, SystemError>) -> Result<Option<T>, SystemError> {
    const UNKNOWN: [Errno; 5] = [Errno::PERM, Errno::NOTTY, Errno::NOBUFS, Errno::FAULT, Errno::INVAL];
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if UNKNOWN.contains(&error.errno) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Where a ring goes on, as the kernel puts it into a number.
fn base_of(num: u32, layout: RingLayout) -> VringBase {
    let (low, high) = ((num & 0xffff) as u16, (num >> 16) as u16);
    match layout {
        RingLayout::Split => VringBase::Split { available: low },
        RingLayout::Packed => VringBase::Packed {
            available: low & 0x7fff,
            available_wrap: low & 0x8000 != 0,
            used: high & 0x7fff,
            used_wrap: high & 0x8000 != 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_ring_that_was_just_started_keeps_its_used_position() {
        let base = VringBase::Packed { available: 5, available_wrap: true, used: 0, used_wrap: false };
        assert_eq!(base_of(base.to_num(), RingLayout::Packed), base);
        let base = VringBase::Packed { available: 0x7fff, available_wrap: false, used: 0x7ffe, used_wrap: true };
        assert_eq!(base_of(base.to_num(), RingLayout::Packed), base);
        let base = VringBase::Split { available: 0xffff };
        assert_eq!(base_of(base.to_num(), RingLayout::Split), base);
    }

    #[test]
    fn a_call_that_the_kernel_does_not_know_is_told_from_one_that_fails() {
        let answer = |errno| unless_unknown::<()>(Err(SystemError { call: "CALL", errno }));
        for errno in [Errno::PERM, Errno::FAULT, Errno::NOBUFS, Errno::NOTTY, Errno::INVAL] {
            assert_eq!(answer(errno), Ok(None));
        }
        assert!(answer(Errno::OPNOTSUPP).is_err());
        assert_eq!(unless_unknown(Ok(3)), Ok(Some(3)));
    }
}
