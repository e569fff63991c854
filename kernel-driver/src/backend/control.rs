//! What makes the rings of a kernel device run.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use vhost_core::VirtioFeatures;
use vhost_std::system_error::SystemError;

use crate::memory::MemoryDevice;
use crate::net::{Net, PacketSocket, Tap};
use crate::scsi::{COMMAND_RING, Scsi};
use crate::vsock::Vsock;

/// A kernel device with what its rings are connected with.
pub trait RingControl {
    /// The device.
    type Device: MemoryDevice;

    /// The device.
    fn device(&self) -> &Self::Device;

    /// How many rings it has.
    fn vring_count(&self) -> u16;

    /// Makes exactly these rings run, of which the kernel knows all it needs. Nothing of the others is under way afterwards.
    ///
    /// # Errors
    /// The errno of the ioctl.
    fn run(&mut self, rings: &BTreeSet<u16>) -> Result<(), SystemError>;

    /// Whether all rings must stop for one to start or to stop.
    fn stops_together(&self) -> bool {
        false
    }

    /// Features that a monitor is not told of. An IOTLB is always among them: it would translate this process' addresses.
    fn hidden_features(&self) -> VirtioFeatures {
        VirtioFeatures::ACCESS_PLATFORM
    }

    /// Features that are acknowledged whatever the driver says.
    fn own_features(&self) -> VirtioFeatures {
        VirtioFeatures::empty()
    }
}

/// `VHOST_NET_F_VIRTIO_NET_HDR`: the kernel makes the header in front of frames.
const KERNEL_HEADER: VirtioFeatures = VirtioFeatures::ANY_LAYOUT;

/// vhost-net with the other end of its frames.
#[derive(Debug)]
pub struct ConnectedNet {
    net: Net,
    socket: OwnedFd,
    own_features: VirtioFeatures,
    running: BTreeSet<u16>,
}

impl ConnectedNet {
    /// With a tap device, which has the header of frames.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn with_tap(net: Net, tap: &Tap) -> Result<Self, SystemError> {
        Self::new(net, tap, VirtioFeatures::empty())
    }

    /// With a packet socket, which has not.
    ///
    /// # Errors
    /// The errno of `fcntl`.
    pub fn with_packet_socket(net: Net, socket: &PacketSocket) -> Result<Self, SystemError> {
        Self::new(net, socket, KERNEL_HEADER)
    }

    fn new(net: Net, socket: &impl AsFd, own_features: VirtioFeatures) -> Result<Self, SystemError> {
        let socket = rustix::io::fcntl_dupfd_cloexec(socket, 0);
        let socket = socket.map_err(|errno| SystemError { call: "fcntl", errno })?;
        Ok(Self { net, socket, own_features, running: BTreeSet::new() })
    }
}

impl RingControl for ConnectedNet {
    type Device = Net;

    fn device(&self) -> &Net {
        &self.net
    }

    fn vring_count(&self) -> u16 {
        2
    }

    fn run(&mut self, rings: &BTreeSet<u16>) -> Result<(), SystemError> {
        for ring in &self.running - rings {
            self.net.set_backend(ring.into(), None)?;
            self.running.remove(&ring);
        }
        for ring in rings - &self.running {
            self.net.set_backend(ring.into(), Some(self.socket.as_fd()))?;
            self.running.insert(ring);
        }
        Ok(())
    }

    fn hidden_features(&self) -> VirtioFeatures {
        VirtioFeatures::ACCESS_PLATFORM | KERNEL_HEADER
    }

    fn own_features(&self) -> VirtioFeatures {
        self.own_features
    }
}

/// Both rings run, or none.
impl RingControl for Vsock {
    type Device = Self;

    fn device(&self) -> &Self {
        self
    }

    fn vring_count(&self) -> u16 {
        2
    }

    fn run(&mut self, rings: &BTreeSet<u16>) -> Result<(), SystemError> {
        if rings.len() == 2 { self.start() } else { self.stop() }
    }

    fn stops_together(&self) -> bool {
        true
    }
}

/// vhost-scsi with the target that it is connected with.
#[derive(Debug)]
pub struct TargetedScsi {
    scsi: Scsi,
    world_wide_name: String,
    command_rings: u16,
    running: bool,
}

impl TargetedScsi {
    /// With a target, and so many rings of commands beside those of control and events.
    #[must_use]
    pub fn new(scsi: Scsi, world_wide_name: &str, command_rings: u16) -> Self {
        Self { scsi, world_wide_name: world_wide_name.to_owned(), command_rings, running: false }
    }
}

impl RingControl for TargetedScsi {
    type Device = Scsi;

    fn device(&self) -> &Scsi {
        &self.scsi
    }

    fn vring_count(&self) -> u16 {
        // The first ring of commands comes third.
        (COMMAND_RING as u16).saturating_add(self.command_rings)
    }

    fn run(&mut self, rings: &BTreeSet<u16>) -> Result<(), SystemError> {
        if self.running && rings.is_empty() {
            self.scsi.clear_endpoint()?;
        } else if !self.running && !rings.is_empty() {
            self.scsi.set_endpoint(&self.world_wide_name)?;
        }
        self.running = !rings.is_empty();
        Ok(())
    }

    fn stops_together(&self) -> bool {
        true
    }

    /// The dirty log among them: before Linux 6.16 vhost-scsi offers it and marks nothing, and does not tell which it is.
    fn hidden_features(&self) -> VirtioFeatures {
        VirtioFeatures::ACCESS_PLATFORM | VirtioFeatures::LOG_ALL
    }
}
