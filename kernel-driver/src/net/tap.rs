//! Tap devices: network interfaces whose other end is a descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use vhost_std::system_error::SystemError;

use super::HEADER_SIZE;
use crate::{ioctl, netlink, node};

/// Bytes of an interface's name with the zero that ends it.
const NAME_SIZE: usize = 16;

/// Flags of linux/if_tun.h.
const IFF_TAP: u16 = 0x0002;
const IFF_MULTI_QUEUE: u16 = 0x0100;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// What a tap device is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapOptions {
    /// Bytes of the virtio header in front of each frame: 12, or 10 for a legacy device without
    /// `VIRTIO_NET_F_MRG_RXBUF`.
    pub header_size: usize,
    /// Whether there will be several descriptors of the same interface, one for each queue pair.
    pub queues: TapQueues,
    /// What the driver can do with frames: the `TUN_F_*` bits of linux/if_tun.h. None unless it has acknowledged
    /// `VIRTIO_NET_F_GUEST_CSUM` and what builds on it.
    pub offloads: u32,
}

/// How many queue pairs a tap device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TapQueues {
    /// One.
    #[default]
    Single,
    /// One for each time it is opened by the same name.
    Multiple,
}

impl Default for TapOptions {
    /// A modern device without offloads, with one queue pair.
    fn default() -> Self {
        Self { header_size: HEADER_SIZE, queues: TapQueues::Single, offloads: 0 }
    }
}

/// A tap device: an Ethernet interface of this machine whose cable ends here.
///
/// It goes when the last descriptor of it is closed. Until it is [up](Self::set_up), frames for it vanish.
#[derive(Debug)]
pub struct Tap {
    descriptor: OwnedFd,
    name: String,
}

impl Tap {
    /// Makes a tap device, or takes one that exists. A `%d` in `name` becomes the first number that is free.
    ///
    /// # Errors
    /// The errno of the call: `ENOENT` if there is no `/dev/net/tun`, `EPERM` without `CAP_NET_ADMIN`, `EINVAL` if the
    /// name is too long or taken by something else, `EBUSY` if it is in use.
    #[doc(alias = "TUNSETIFF")]
    pub fn open(name: &str, options: &TapOptions) -> Result<Self, SystemError> {
        let refused = SystemError { call: "TUNSETIFF", errno: Errno::INVAL };
        // struct ifreq: the name, the flags, and room for what other calls need.
        let mut request = [0; 40];
        let place = request.get_mut(..name.len()).filter(|place| place.len() < NAME_SIZE).ok_or(refused)?;
        place.copy_from_slice(name.as_bytes());
        let queues = if options.queues == TapQueues::Multiple { IFF_MULTI_QUEUE } else { 0 };
        let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | queues;
        if let Some(place) = request.get_mut(NAME_SIZE..NAME_SIZE + size_of::<u16>()) {
            place.copy_from_slice(&flags.to_ne_bytes());
        }
        let header_size = i32::try_from(options.header_size).map_err(|_| refused)?;

        let descriptor = node::open(Path::new("/dev/net/tun"))?;
        ioctl::tap_interface(descriptor.as_fd(), &mut request)?;
        ioctl::tap_header_size(descriptor.as_fd(), header_size)?;
        ioctl::tap_offload(descriptor.as_fd(), options.offloads)?;
        let name = request.iter().take(NAME_SIZE).take_while(|byte| **byte != 0).copied().collect();
        let name = String::from_utf8(name).map_err(|_| refused)?;
        Ok(Self { descriptor, name })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes the interface into use.
    ///
    /// # Errors
    /// The errno of the call, for example `EPERM` without `CAP_NET_ADMIN`.
    pub fn set_up(&self) -> Result<(), SystemError> {
        netlink::set_interface_up(&self.name)
    }
}

impl AsFd for Tap {
    /// The descriptor for [`Net::set_backend`](super::Net::set_backend). It is in non-blocking mode.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
