//! The back-end: a device, its rings, and the connections over which front-ends use them.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vhost_std::{
//!     block::{BlockDevice, BlockOptions},
//!     deadline::Deadline,
//!     eventfd::EventFd,
//!     server::{BackendServer, ServerOptions},
//!     socket::Listener,
//! };
//!
//! let device = Arc::new(BlockDevice::open("disk.img".as_ref(), &BlockOptions::default())?);
//! let mut server = BackendServer::new(device, ServerOptions::default())?;
//! let listener = Listener::bind("disk.sock")?;
//! let stop = EventFd::new()?; // whoever signals it ends the service
//! loop {
//!     let socket = listener.accept(Deadline::NEVER)?;
//!     let end = server.connect(socket).run(&stop)?;
//!     println!("{end:?}");
//! }
//! # #[allow(unreachable_code)]
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod channel;
mod connection;
mod dispatch;
mod listen;
mod mapping;
mod memory;
mod postcopy;
mod ready;
mod transfer;

use core::{fmt, time::Duration};
use std::sync::Arc;

use vhost_core::{BackendConfig, ProtocolFeatures, Tolerance, VirtioFeatures};

pub use self::channel::DeviceNotifier;
pub use self::connection::{Connection, End, Progress, ServeError};
pub use self::listen::ServerThread;
pub use self::mapping::{MappingAnswer, MappingError};
pub use crate::rings::{MAX_RINGS, RingThreads};

use crate::{
    device::Device,
    memory::Userfault,
    rings::{RING_FEATURES, RingSet},
    worker::WorkerError,
};

/// How a device is served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Who processes the rings. Default: one thread for all of them.
    pub threads: RingThreads,
    /// How long threads go on looking at their rings after they found something there, before they wait for a kick. That takes
    /// a processor for each thread, and spares both sides the time of waking up. Default: not at all.
    pub busy_poll: Duration,
    /// How long a front-end may leave a reply unread before the connection is given up. Default:
    /// 10 seconds.
    pub reply_timeout: Duration,
    /// What is let pass.
    pub tolerance: Tolerance,
    /// Whether drivers may use addresses of their own, which the front-end translates (`VIRTIO_F_ACCESS_PLATFORM`).
    /// Default: offered. Withhold it from a front-end that hands its driver's features on and translates nothing.
    pub iommu: Offer,
    /// Whether rings may be told by guest addresses (`GPA_ADDRESSES`). Default: withheld, as there are front-ends that take
    /// its bit for another feature.
    pub gpa_addresses: Offer,
}

/// Whether front-ends are told of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// They may use it.
    Offered,
    /// They do not hear of it.
    Withheld,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            threads: RingThreads::Shared(1),
            busy_poll: Duration::ZERO,
            reply_timeout: Duration::from_secs(10),
            tolerance: Tolerance::default(),
            iommu: Offer::Offered,
            gpa_addresses: Offer::Withheld,
        }
    }
}

/// A device that is served to front-ends, one after another. It outlives their connections.
pub struct BackendServer {
    device: Arc<dyn Device>,
    options: ServerOptions,
    rings: RingSet,
    notifier: DeviceNotifier,
}

impl BackendServer {
    /// Protocol features that a [`BackendServer`] offers for every device, whatever its options are. `DEVICE_STATE` comes with
    /// devices that have a [state](Device::state), `SHMEM` and `BACKEND_SEND_FD` with those that have [shared
    /// memory](Device::shared_memory), `PAGEFAULT` where the system grants a userfaultfd.
    pub const PROTOCOL_FEATURES: ProtocolFeatures = ProtocolFeatures::MQ
        .union(ProtocolFeatures::LOG_SHMFD)
        .union(ProtocolFeatures::REPLY_ACK)
        .union(ProtocolFeatures::BACKEND_REQ)
        .union(ProtocolFeatures::CONFIG)
        .union(ProtocolFeatures::INFLIGHT_SHMFD)
        .union(ProtocolFeatures::RESET_DEVICE)
        .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS)
        .union(ProtocolFeatures::STATUS);

    /// Virtio features that a [`BackendServer`] offers beside those of its device.
    pub const RING_FEATURES: VirtioFeatures = RING_FEATURES;

    /// Makes the rings of `device` and starts the threads that were asked for.
    ///
    /// # Errors
    /// When the system gives no descriptor or no thread.
    pub fn new(device: Arc<dyn Device>, options: ServerOptions) -> Result<Self, WorkerError> {
        let rings = RingSet::new(&device, options.threads, options.busy_poll)?;
        let notifier = DeviceNotifier::new().map_err(WorkerError::Failed)?;
        Ok(Self { device, options, rings, notifier })
    }

    /// What the device, or whoever changes it, tells front-ends with.
    #[must_use]
    pub fn notifier(&self) -> DeviceNotifier {
        self.notifier.clone()
    }

    /// The features offered: the device's and the rings'.
    #[must_use]
    pub fn features(&self) -> VirtioFeatures {
        let features = VirtioFeatures::from_bits_retain(self.device.features()) | Self::RING_FEATURES;
        match self.options.iommu {
            Offer::Offered => features,
            Offer::Withheld => features.difference(VirtioFeatures::ACCESS_PLATFORM),
        }
    }

    fn config(&self) -> BackendConfig {
        let mut protocol = Self::PROTOCOL_FEATURES;
        protocol.set(ProtocolFeatures::GPA_ADDRESSES, self.options.gpa_addresses == Offer::Offered);
        protocol.set(ProtocolFeatures::DEVICE_STATE, self.device.state().is_some());
        protocol.set(ProtocolFeatures::PAGEFAULT, Userfault::new().is_ok());
        let has_shared_memory = self.device.shared_memory().iter().any(|size| *size != 0);
        protocol.set(ProtocolFeatures::SHMEM | ProtocolFeatures::BACKEND_SEND_FD, has_shared_memory);
        let mut config = BackendConfig::new(self.features(), protocol, self.rings.count());
        config.queue_num = self.device.queue_num();
        config.tolerance = self.options.tolerance.clone();
        config
    }
}

impl fmt::Debug for BackendServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendServer")
            .field("device_id", &self.device.device_id())
            .field("options", &self.options)
            .field("rings", &self.rings)
            .finish_non_exhaustive()
    }
}
