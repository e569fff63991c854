//! A device of ours as a VDUSE device.

mod rings;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use vhost_core::VirtioFeatures;
use vhost_core::uapi::bits::DeviceStatus;
use vhost_core::uapi::vduse_message::{VduseAnswer, VduseRequest, VduseVersion};
use vhost_std::device::Device;
use vhost_std::memory::MemoryFile;
use vhost_std::system_error::SystemError;
use vhost_std::worker::RingLoop;

use self::rings::Rings;
use super::memory::DriverMemory;
use super::{Control, DeviceOptions, VduseDevice};
use crate::error::KernelError;

/// The virtio device type of disks, and the feature of them that the kernel does not take: it does not pass writes to
/// the configuration on.
const BLOCK: u32 = 2;
const CONFIG_WCE: u64 = 1 << 11;

/// What rings can do, whatever their layout.
const RING_FEATURES: VirtioFeatures = VirtioFeatures::VERSION_1
    .union(VirtioFeatures::ACCESS_PLATFORM)
    .union(VirtioFeatures::RING_EVENT_IDX)
    .union(VirtioFeatures::RING_INDIRECT);

/// How long to wait until the kernel has noted that the driver is ready; it does so right after the answer.
const SHORTLY: Duration = Duration::from_millis(1);

/// A [`Device`] behind VDUSE, served by the thread that calls [`run`](Self::run), or by the caller's event loop.
///
/// It reaches the memory that its driver lets it write to; a request in other memory fails.
///
/// Whoever drives the device through `vhost_vdpa` must be another process: while it maps memory the kernel holds its address
/// space, and waits for this side, which could not map that memory in the same one.
///
/// ```no_run
/// use std::path::Path;
/// use std::sync::Arc;
/// use vhost_core::uapi::vduse_message::VduseVersion;
/// use vhost_kernel::vduse::{self, Control, RingChoice, VduseServer};
/// use vhost_std::block::{BlockDevice, BlockOptions};
/// use vhost_std::eventfd::EventFd;
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// let disk = BlockDevice::open(Path::new("disk.img"), &BlockOptions::default())?;
/// let control = Control::open(VduseVersion::V0)?;
/// let mut server = VduseServer::create(&control, "disk0", Arc::new(disk), RingChoice::Split)?;
/// let stop = EventFd::new()?;
/// std::thread::scope(|scope| {
///     scope.spawn(|| vduse::add_to_bus("disk0")); // then there is a /dev/vda, if virtio_vdpa is loaded
///     server.run(&stop)
/// })?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct VduseServer {
    vduse: VduseDevice,
    device: ServedDevice,
    memory: DriverMemory,
    rings: Rings,
    ring_loop: RingLoop,
    status: DeviceStatus,
    refusals: u64,
    last_refusal: Option<VduseRefusal>,
}

/// A request of the kernel's that was answered with a failure. The kernel tells its driver only that there was one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VduseRefusal {
    /// The request.
    pub request: VduseRequest,
    /// Why.
    pub error: KernelError,
}

/// Which rings a driver may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RingChoice {
    /// Split ones. Another process can [take such a device over](VduseServer::take_over).
    #[default]
    Split,
    /// Packed ones too. They do not tell another process where to go on.
    SplitOrPacked,
}

/// A device that can be shown by its type.
struct ServedDevice(Arc<dyn Device>);

impl core::fmt::Debug for ServedDevice {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "device {}", self.0.device_id())
    }
}

impl VduseServer {
    /// Makes a VDUSE device of this name, to be [added to the bus](super::add_to_bus) while it is served.
    ///
    /// # Errors
    /// The errno of the call that failed: see [`Control::create`].
    pub fn create(
        control: &Control,
        name: &str,
        device: Arc<dyn Device>,
        rings: RingChoice,
    ) -> Result<Self, KernelError> {
        let packed = match rings {
            RingChoice::Split => VirtioFeatures::empty(),
            RingChoice::SplitOrPacked => VirtioFeatures::RING_PACKED,
        };
        let mut config = vec![0; device.config_size() as usize];
        device.read_config(0, &mut config);
        let hidden = if device.device_id() == BLOCK { CONFIG_WCE } else { 0 };
        control.create(&DeviceOptions {
            name,
            vendor_id: 0,
            device_id: device.device_id(),
            features: VirtioFeatures::from_bits_retain(device.features() & !hidden) | RING_FEATURES | packed,
            vring_count: device.queues().into(),
            vring_align: rustix::param::page_size() as u32,
            group_count: 1,
            address_space_count: 1,
            config: &config,
        })?;
        let vduse = VduseDevice::open(name, control.version())?;
        for ring in 0..device.queues() {
            vduse.set_up_vring(ring.into(), device.queue_size_max(), 0)?;
        }
        Self::new(vduse, device)
    }

    /// Takes over a device that another process has made and served, one request after another, and goes on where that one
    /// has stopped: what was not completed is done again.
    ///
    /// # Errors
    /// The errno of the call that failed: see [`VduseDevice::open`]; [`PackedRings`](KernelError::PackedRings).
    pub fn take_over(name: &str, version: VduseVersion, device: Arc<dyn Device>) -> Result<Self, KernelError> {
        let mut server = Self::new(VduseDevice::open(name, version)?, device)?;
        let features = server.vduse.features()?;
        if features.contains(VirtioFeatures::RING_PACKED) {
            return Err(KernelError::PackedRings);
        }
        if !features.is_empty() {
            server.features_acknowledged(features)?;
            server.memory.complete(&server.vduse)?;
            server.rings.set_up(&server.vduse, server.memory.table(), rings::Begin::AfterUsed)?;
            server.rings.start();
        }
        Ok(server)
    }

    fn new(vduse: VduseDevice, device: Arc<dyn Device>) -> Result<Self, KernelError> {
        let ring_loop = RingLoop::new(Arc::clone(&device))?;
        let rings = Rings::new(device.queues(), &ring_loop)?;
        Ok(Self {
            vduse,
            device: ServedDevice(device),
            memory: DriverMemory::default(),
            rings,
            ring_loop,
            status: DeviceStatus::empty(),
            refusals: 0,
            last_refusal: None,
        })
    }

    /// Keeps what a driver of this machine (`virtio_vdpa`) moves in `memory`, instead of in pages of the kernel. It must be as
    /// large as the kernel's bounce buffer, which has 64 MiB unless the device's `bounce_size` says otherwise; other memory
    /// is not used. Where `RLIMIT_MEMLOCK` does not allow it, the device fails with the errno of `VDUSE_IOTLB_REG_UMEM`, see
    /// [`refusals`](Self::refusals).
    pub fn keep_bounce_buffer_in(&mut self, memory: MemoryFile) {
        self.memory.keep_bounce_buffer_in(memory);
    }

    /// The VDUSE device.
    #[must_use]
    pub fn vduse(&self) -> &VduseDevice {
        &self.vduse
    }

    /// The status that the driver has written last.
    #[must_use]
    pub fn status(&self) -> DeviceStatus {
        self.status
    }

    /// How many requests of the kernel's were answered with a failure, and the last one of them.
    #[must_use]
    pub fn refusals(&self) -> (u64, Option<&VduseRefusal>) {
        (self.refusals, self.last_refusal.as_ref())
    }

    /// Serves the device until `stop` becomes readable.
    ///
    /// # Errors
    /// When the device is broken, or a call fails that only a bug can cause.
    pub fn run(&mut self, stop: &impl AsFd) -> Result<(), KernelError> {
        loop {
            let again = self.process()?;
            let [vduse, rings] = self.descriptors();
            let mut polled = [
                PollFd::new(stop, PollFlags::IN),
                PollFd::new(&vduse, PollFlags::IN),
                PollFd::new(&rings, PollFlags::IN),
            ];
            let timeout = again.and_then(|again| Timespec::try_from(again).ok());
            retry_on_intr(|| poll(&mut polled, timeout.as_ref()))
                .map_err(|errno| SystemError { call: "poll", errno })?;
            if polled.first().is_some_and(|stop| !stop.revents().is_empty()) {
                return Ok(());
            }
            // Nothing can be read of a broken device, so that reading would not tell.
            if polled.get(1).is_some_and(|vduse| vduse.revents().contains(PollFlags::ERR)) {
                return Err(SystemError { call: "poll", errno: Errno::IO }.into());
            }
        }
    }

    /// The descriptors that become readable when [`process`](Self::process) has something to do. `POLLERR` on the first: the
    /// device is broken, because a request of the kernel's was not answered in time, and serves nobody any more.
    #[must_use]
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.vduse.as_fd(), self.ring_loop.fd()]
    }

    /// Answers what the kernel asks and serves the rings, as far as it can without waiting. If it returns a time, there is
    /// more to do after that long, though no descriptor will tell.
    ///
    /// # Errors
    /// When a call fails that only a bug or a broken device can cause.
    pub fn process(&mut self) -> Result<Option<Duration>, KernelError> {
        while let Some(message) = self.vduse.next_request()? {
            let answer = self.carry_out(message.request).unwrap_or_else(|error| {
                self.refusals = self.refusals.saturating_add(1);
                self.last_refusal = Some(VduseRefusal { request: message.request, error });
                VduseAnswer::Failed
            });
            match self.vduse.answer(message.id, answer) {
                // The kernel no longer wants to know.
                Ok(()) | Err(SystemError { errno: Errno::NOENT, .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if self.status.contains(DeviceStatus::DRIVER_OK) {
                self.rings.start();
            }
        }
        if self.rings.are_started() && !self.memory.is_settled() && self.memory.complete(&self.vduse)? {
            self.rings.move_to(self.memory.table());
        }
        self.ring_loop.turn(Some(Duration::ZERO))?;
        let called = self.rings.call_driver(&self.vduse)?;
        Ok((!called).then_some(SHORTLY))
    }

    /// Tells the driver that the device's configuration has changed.
    ///
    /// # Errors
    /// The errno of the call. Without a driver that is ready nobody is told.
    pub fn config_changed(&self) -> Result<(), SystemError> {
        let mut config = vec![0; self.device.0.config_size() as usize];
        self.device.0.read_config(0, &mut config);
        self.vduse.set_config(0, &config)?;
        match self.vduse.inject_config_interrupt() {
            Err(SystemError { errno: Errno::INVAL, .. }) => Ok(()),
            outcome => outcome,
        }
    }

    fn carry_out(&mut self, request: VduseRequest) -> Result<VduseAnswer, KernelError> {
        match request {
            VduseRequest::GetVringState { index } => {
                return Ok(VduseAnswer::Position { index, base: self.rings.base(index)? });
            }
            VduseRequest::SetStatus(status) => self.status_written(status)?,
            VduseRequest::UpdateIotlb { first, last, .. } => {
                let changed = self.memory.change(&self.vduse, first, last);
                // What is gone is gone, also if something new cannot be mapped.
                self.rings.move_to(self.memory.table());
                changed?;
            }
            // There is one address space, and all rings are in it.
            VduseRequest::SetGroupAsid { asid: 0, .. } => {}
            VduseRequest::SetGroupAsid { .. } => return Err(KernelError::Unsupported { what: "other address space" }),
            _ => return Err(KernelError::Unsupported { what: "answer to that" }),
        }
        Ok(VduseAnswer::Done)
    }

    fn status_written(&mut self, status: DeviceStatus) -> Result<(), KernelError> {
        let new = status - self.status;
        if status.is_empty() {
            self.rings.stop();
            self.memory.forget();
            self.device.0.reset();
        }
        if new.contains(DeviceStatus::FEATURES_OK) {
            let features = self.vduse.features()?;
            self.features_acknowledged(features)?;
        }
        if new.contains(DeviceStatus::DRIVER_OK) {
            self.memory.complete(&self.vduse)?;
            self.rings.set_up(&self.vduse, self.memory.table(), rings::Begin::WhereTheDriverSays)?;
        }
        self.status = status;
        Ok(())
    }

    fn features_acknowledged(&self, features: VirtioFeatures) -> Result<(), KernelError> {
        self.device.0.features_acknowledged(features.bits());
        self.rings.set_features(features)
    }
}
