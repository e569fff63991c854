//! A device's own requests about its shared memory regions: asked from any thread, sent and answered on the connection's.

use core::{fmt, num::NonZeroU64};
use std::{
    os::fd::{AsFd, OwnedFd},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
};

use vhost_core::{ApiMisuse, BackendRequest, wire::shared::SharedMemoryMap};

use super::DeviceNotifier;
use crate::{deadline::Deadline, system_error::SystemError};

/// A request that waits to be sent.
#[derive(Debug)]
pub(super) struct Posted {
    map: SharedMemoryMap,
    /// What is to be mapped; nothing to unmap.
    file: Option<OwnedFd>,
    pub(super) asker: Asker,
}

/// Where the answer goes. When it is dropped, the asker hears that no answer will come.
pub(super) type Asker = SyncSender<Result<(), MappingError>>;

impl Posted {
    pub(super) fn request(&self) -> BackendRequest<'_, std::os::fd::BorrowedFd<'_>> {
        match &self.file {
            Some(file) => BackendRequest::ShmemMap(self.map, file.as_fd()),
            None => BackendRequest::ShmemUnmap(self.map),
        }
    }

    pub(super) fn fail(self, error: MappingError) {
        // Nobody may wait for it any more.
        let _ = self.asker.try_send(Err(error));
    }
}

/// Why a mapping was not made or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MappingError {
    /// The front-end refused it with this number.
    Refused(NonZeroU64),
    /// It could not be asked: the front-end has not agreed to shared memory, or the mapping makes no sense.
    NotAsked(ApiMisuse),
    /// There is no channel to ask on, or it was closed before the answer came.
    NoChannel,
    /// The deadline came first. The mapping may still be made.
    TimedOut,
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(number) => write!(f, "the front-end refused the mapping with {:#x}", number.get()),
            Self::NotAsked(misuse) => misuse.fmt(f),
            Self::NoChannel => f.write_str("the front-end has no channel open for requests of the back-end"),
            Self::TimedOut => f.write_str("the front-end did not answer in time"),
        }
    }
}

impl core::error::Error for MappingError {}

/// The answer to a request of the device, which comes later.
#[derive(Debug)]
#[must_use]
pub struct MappingAnswer(Receiver<Result<(), MappingError>>);

impl MappingAnswer {
    /// Waits for the answer.
    ///
    /// A device that waits within [`process`](crate::device::Device::process) keeps whoever stops the ring waiting as long, and
    /// the connection with it; so the deadline should be near. Where the caller processes the rings
    /// ([`RingThreads::Caller`](super::RingThreads::Caller)) the answer cannot come before `process` is over.
    ///
    /// # Errors
    /// See [`MappingError`].
    pub fn wait(self, deadline: Deadline) -> Result<(), MappingError> {
        let answer = match deadline.remaining() {
            None => self.0.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(remaining) => self.0.recv_timeout(remaining),
        };
        match answer {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(MappingError::TimedOut),
            Err(RecvTimeoutError::Disconnected) => Err(MappingError::NoChannel),
        }
    }
}

impl DeviceNotifier {
    /// Has a part of `file` mapped into a shared memory region of the device (`SHMEM_MAP`). Not to be called while no ring runs:
    /// the device is suspended then, and sends nothing (vhost-user, section "Suspended device state").
    ///
    /// ```no_run
    /// use core::time::Duration;
    /// use std::fs::File;
    /// use vhost_core::wire::shared::SharedMemoryMap;
    /// use vhost_std::deadline::Deadline;
    /// use vhost_std::server::DeviceNotifier;
    ///
    /// fn show(front_end: &DeviceNotifier, file: File) -> Result<(), Box<dyn core::error::Error>> {
    ///     // 2 MiB from the beginning of the file, at the beginning of region 0, for reading.
    ///     let map = SharedMemoryMap::new(0, 0, 0, 2 << 20, 0);
    ///     front_end.map(map, file.into())?.wait(Deadline::after(Duration::from_secs(1)))?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// The errno of `write`.
    pub fn map(&self, map: SharedMemoryMap, file: OwnedFd) -> Result<MappingAnswer, SystemError> {
        self.post(map, Some(file))
    }

    /// Has a mapping of a shared memory region removed (`SHMEM_UNMAP`): one that was made with the same offset and length.
    ///
    /// # Errors
    /// The errno of `write`.
    pub fn unmap(&self, map: SharedMemoryMap) -> Result<MappingAnswer, SystemError> {
        self.post(map, None)
    }

    fn post(&self, map: SharedMemoryMap, file: Option<OwnedFd>) -> Result<MappingAnswer, SystemError> {
        let (asker, answer) = sync_channel(1);
        // Without a connection the asker is dropped here, and the answer is that there is no channel.
        if let Some(waiting) = self.posted().as_mut() {
            waiting.push_back(Posted { map, file, asker });
        }
        self.signal()?;
        Ok(MappingAnswer(answer))
    }
}
