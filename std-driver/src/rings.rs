//! The rings of a device, who processes them, and how they are set up: what the server and the soft back-end share.

mod control;
mod guest;
mod translations;

use core::{fmt, time::Duration};
use std::{
    os::fd::BorrowedFd,
    sync::{Arc, MutexGuard},
};

use vhost_core::VirtioFeatures;

pub use self::control::RingError;
pub(crate) use self::{control::Control, guest::Guest};

use crate::{
    device::Device,
    iommu::Iommu,
    system_error::SystemError,
    vring::{SharedVring, Vring},
    worker::{RingLoop, Worker, WorkerError},
};

/// Rings a device can have over vhost-user: their index has eight bits in `SET_VRING_KICK`.
pub const MAX_RINGS: usize = 256;

/// The features of rings, beside those of the device.
pub(crate) const RING_FEATURES: VirtioFeatures = VirtioFeatures::VERSION_1
    .union(VirtioFeatures::RING_INDIRECT)
    .union(VirtioFeatures::RING_EVENT_IDX)
    .union(VirtioFeatures::RING_PACKED)
    .union(VirtioFeatures::ACCESS_PLATFORM)
    .union(VirtioFeatures::LOG_ALL);

/// Who processes the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingThreads {
    /// So many threads share the rings; with more threads than rings, one thread a ring.
    Shared(u16),
    /// No thread is started: whoever calls [`Connection::process`](crate::server::Connection::process) or
    /// [`SoftBackend::process`](crate::soft::SoftBackend::process) processes the rings too.
    Caller,
}

/// The rings, and their loops.
pub(crate) struct RingSet {
    rings: Vec<Arc<SharedVring>>,
    served: Served,
    iommu: Arc<Iommu>,
}

enum Served {
    Threads(Vec<Worker>),
    Caller(RingLoop),
}

impl RingSet {
    pub(crate) fn new(
        device: &Arc<dyn Device>,
        threads: RingThreads,
        busy_poll: Duration,
    ) -> Result<Self, WorkerError> {
        let count = device.queues().min(u16::try_from(MAX_RINGS).unwrap_or(u16::MAX));
        let rings: Vec<_> = (0..count).map(|index| Arc::new(SharedVring::new(Vring::new(index)))).collect();
        let served = match threads {
            RingThreads::Caller => {
                let ring_loop = RingLoop::new(Arc::clone(device)).map_err(WorkerError::Failed)?;
                watch(&ring_loop, rings.iter())?;
                Served::Caller(ring_loop)
            }
            RingThreads::Shared(threads) => {
                let threads = usize::from(threads.min(count).max(1));
                let worker = |first: usize| {
                    let ring_loop = RingLoop::new(Arc::clone(device)).map_err(WorkerError::Failed)?;
                    watch(&ring_loop, rings.iter().skip(first).step_by(threads))?;
                    Worker::spawn(&format!("vring-{first}"), ring_loop.with_busy_poll(busy_poll))
                };
                Served::Threads((0..threads).map(worker).collect::<Result<_, _>>()?)
            }
        };
        let iommu = Arc::new(Iommu::new().map_err(WorkerError::Failed)?);
        Ok(Self { rings, served, iommu })
    }

    pub(crate) fn count(&self) -> u16 {
        u16::try_from(self.rings.len()).unwrap_or(u16::MAX)
    }

    /// What is known of the addresses that a driver behind an IOMMU uses.
    pub(crate) fn iommu(&self) -> &Arc<Iommu> {
        &self.iommu
    }

    /// Waits for the batch under way on this ring, and holds it.
    pub(crate) fn lock(&self, index: usize) -> Option<MutexGuard<'_, Vring>> {
        self.rings.get(index).map(|ring| ring.lock())
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Vring>> {
        self.rings.iter().map(|ring| ring.lock())
    }

    /// What the caller has to wait for beside the socket.
    pub(crate) fn caller_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.served {
            Served::Threads(_) => None,
            Served::Caller(ring_loop) => Some(ring_loop.fd()),
        }
    }

    /// One turn of the rings, if the caller processes them.
    pub(crate) fn turn(&self) -> Result<(), SystemError> {
        match &self.served {
            Served::Threads(_) => Ok(()),
            Served::Caller(ring_loop) => ring_loop.turn(Some(Duration::ZERO)),
        }
    }
}

impl fmt::Debug for RingSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let threads = match &self.served {
            Served::Threads(workers) => workers.len(),
            Served::Caller(_) => 0,
        };
        f.debug_struct("RingSet").field("rings", &self.rings.len()).field("threads", &threads).finish()
    }
}

/// A ring without a kick descriptor can always be watched.
fn watch<'r>(ring_loop: &RingLoop, rings: impl Iterator<Item = &'r Arc<SharedVring>>) -> Result<(), WorkerError> {
    for ring in rings {
        ring_loop.add(Arc::clone(ring)).map_err(WorkerError::Watch)?;
    }
    Ok(())
}
