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
    rings::{RING_FEATURES, RingSet},
    worker::WorkerError,
};

/// How a device is served.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerOptions {
    /// Who processes the rings. Default: one thread for all of them.
    pub threads: RingThreads,
    /// How long a front-end may leave a reply unread before the connection is given up. Default:
    /// 10 seconds.
    pub reply_timeout: Duration,
    /// What is let pass.
    pub tolerance: Tolerance,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            threads: RingThreads::Shared(1),
            reply_timeout: Duration::from_secs(10),
            tolerance: Tolerance::default(),
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
    /// Protocol features that a [`BackendServer`] offers for every device. `DEVICE_STATE` comes with devices that have a
    /// [state](Device::state), `SHMEM` and `BACKEND_SEND_FD` with those that have [shared memory](Device::shared_memory).
    pub const PROTOCOL_FEATURES: ProtocolFeatures = ProtocolFeatures::MQ
        .union(ProtocolFeatures::LOG_SHMFD)
        .union(ProtocolFeatures::REPLY_ACK)
        .union(ProtocolFeatures::BACKEND_REQ)
        .union(ProtocolFeatures::CONFIG)
        .union(ProtocolFeatures::INFLIGHT_SHMFD)
        .union(ProtocolFeatures::RESET_DEVICE)
        .union(ProtocolFeatures::CONFIGURE_MEM_SLOTS)
        .union(ProtocolFeatures::STATUS)
        .union(ProtocolFeatures::GPA_ADDRESSES);

    /// Virtio features that a [`BackendServer`] offers beside those of its device.
    pub const RING_FEATURES: VirtioFeatures = RING_FEATURES;

    /// Makes the rings of `device` and starts the threads that were asked for.
    ///
    /// # Errors
    /// When the system gives no descriptor or no thread.
    pub fn new(device: Arc<dyn Device>, options: ServerOptions) -> Result<Self, WorkerError> {
        let rings = RingSet::new(&device, options.threads)?;
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
        VirtioFeatures::from_bits_retain(self.device.features()) | Self::RING_FEATURES
    }

    fn config(&self) -> BackendConfig {
        let mut protocol = Self::PROTOCOL_FEATURES;
        protocol.set(ProtocolFeatures::DEVICE_STATE, self.device.state().is_some());
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
