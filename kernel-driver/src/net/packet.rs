//! Packet sockets: all frames of a network interface.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use vhost_std::system_error::SystemError;

use crate::ioctl::LinkAddress;
use crate::netlink::interface_index;

/// A packet socket on a network interface, to connect a ring with in place of a tap device.
///
/// The device must have `VHOST_NET_F_VIRTIO_NET_HDR` acknowledged, as frames have no header here.
#[derive(Debug)]
pub struct PacketSocket {
    descriptor: OwnedFd,
}

impl PacketSocket {
    /// Binds a socket to the interface called `interface`.
    ///
    /// # Errors
    /// The errno of the call, for example `EPERM` without `CAP_NET_RAW`, or `ENODEV`.
    pub fn bind(interface: &str) -> Result<Self, SystemError> {
        let index = interface_index(interface)?;
        let descriptor = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(|errno| SystemError { call: "socket", errno })?;
        bind(&descriptor, &LinkAddress::all_frames(index)).map_err(|errno| SystemError { call: "bind", errno })?;
        Ok(Self { descriptor })
    }
}

impl AsFd for PacketSocket {
    /// The descriptor for [`Net::set_backend`](super::Net::set_backend).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
