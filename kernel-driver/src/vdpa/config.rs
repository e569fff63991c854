//! The configuration space of a vDPA device.

use std::os::fd::AsFd;

use vhost_core::uapi::layout::ConfigRange;
use vhost_core::uapi::vhost::{VHOST_VDPA_GET_CONFIG, VHOST_VDPA_GET_CONFIG_SIZE, VHOST_VDPA_SET_CONFIG};
use vhost_std::system_error::SystemError;

use super::Vdpa;
use crate::ioctl;

impl Vdpa {
    /// Bytes of the configuration space.
    ///
    /// # Errors
    /// The errno of `VHOST_VDPA_GET_CONFIG_SIZE`, which is as old as Linux 5.18.
    #[doc(alias = "VHOST_VDPA_GET_CONFIG_SIZE")]
    pub fn config_size(&self) -> Result<u32, SystemError> {
        ioctl::read(self.as_fd(), VHOST_VDPA_GET_CONFIG_SIZE)
    }

    /// Reads bytes of the configuration space from `offset` on.
    ///
    /// # Errors
    /// `EINVAL` if there are not as many, or none are asked for.
    #[doc(alias = "VHOST_VDPA_GET_CONFIG")]
    pub fn read_config(&self, offset: u32, data: &mut [u8]) -> Result<(), SystemError> {
        let read = ioctl::exchange_array(self.as_fd(), VHOST_VDPA_GET_CONFIG, range_at(offset), data)?;
        for (to, from) in data.iter_mut().zip(read) {
            *to = from;
        }
        Ok(())
    }

    /// Writes bytes of the configuration space from `offset` on. A device may ignore it, as all of VDUSE do.
    ///
    /// # Errors
    /// `EINVAL` if there are not as many, or none are written.
    #[doc(alias = "VHOST_VDPA_SET_CONFIG")]
    pub fn write_config(&self, offset: u32, data: &[u8]) -> Result<(), SystemError> {
        ioctl::exchange_array(self.as_fd(), VHOST_VDPA_SET_CONFIG, range_at(offset), data).map(drop)
    }
}

/// The head for so many bytes from `offset` on; more than a number can say are refused by the kernel.
fn range_at(offset: u32) -> impl FnOnce(usize) -> ConfigRange {
    move |length| ConfigRange::new(offset, u32::try_from(length).unwrap_or(0))
}
