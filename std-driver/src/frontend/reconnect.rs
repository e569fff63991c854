//! A back-end that goes and comes back: connecting again, and agreeing on the same as before.

use core::{fmt, time::Duration};
use std::{path::PathBuf, sync::Arc};

use vhost_core::{Negotiated, ProtocolFeatures, VirtioFeatures};

use super::{Frontend, FrontendError, Pacing, pacing::Experience};
use crate::{
    deadline::Deadline,
    socket::{Listener, Socket, SocketError},
};

/// Where a back-end comes from, and what was agreed on with it: makes the next front-end after the last one's session has ended.
///
/// The guest goes on with the features that it has acknowledged once, so each session after the first one agrees on exactly
/// those of the first, and a back-end that lacks one is refused. The rest is the VMM's to say again, with
/// [`bring_up`](Frontend::bring_up): memory, rings, and the record of requests in flight, by which the new back-end knows what
/// the old one had begun. What a VMM writes is this loop:
///
/// ```no_run
/// use core::time::Duration;
/// use std::os::fd::{AsFd, OwnedFd};
/// use vhost_core::{ProtocolFeatures, VirtioFeatures, wire::inflight::Inflight};
/// use vhost_std::deadline::Deadline;
/// use vhost_std::frontend::{DeviceSetup, Frontend, FrontendError, Reconnect, RingSetup};
///
/// fn run(guest: &Guest) -> Result<(), Box<dyn core::error::Error>> {
///     let protocol = ProtocolFeatures::REPLY_ACK | ProtocolFeatures::INFLIGHT_SHMFD;
///     let mut back_end = Reconnect::to("disk.sock", VirtioFeatures::VERSION_1, protocol);
///     let mut record: Option<(Inflight, OwnedFd)> = None;
///     loop {
///         let mut frontend = back_end.connect(Deadline::NEVER)?;
///         match use_until_it_ends(&mut frontend, guest, &mut record) {
///             // The back-end is gone, or has misbehaved: on with the next one.
///             Err(error) if error.ends_session().is_some() => {}
///             outcome => return Ok(outcome?),
///         }
///     }
/// }
///
/// fn use_until_it_ends(
///     frontend: &mut Frontend,
///     guest: &Guest,
///     record: &mut Option<(Inflight, OwnedFd)>,
/// ) -> Result<(), FrontendError> {
///     if record.is_none() {
///         *record = frontend.get_inflight_fd(1, 128)?;
///     }
///     let inflight = record.as_ref().map(|(record, file)| (*record, file.as_fd()));
///     // Where a ring goes on: at its used index, as nobody told the available one.
///     frontend.bring_up(&DeviceSetup { memory: &guest.memory(), rings: &guest.rings(), inflight })?;
///     guest.kick_all(); // for what was made available meanwhile
///     guest.wait(frontend) // calls `process` when the front-end is readable
/// }
/// # struct Guest;
/// # impl Guest {
/// #     fn memory(&self) -> Vec<(vhost_core::MemoryRegion, std::os::fd::BorrowedFd<'_>)> { Vec::new() }
/// #     fn rings(&self) -> Vec<RingSetup<'_>> { Vec::new() }
/// #     fn kick_all(&self) {}
/// #     fn wait(&self, frontend: &mut Frontend) -> Result<(), FrontendError> { frontend.process() }
/// # }
/// ```
#[derive(Debug)]
pub struct Reconnect {
    source: Source,
    wanted: VirtioFeatures,
    protocol: ProtocolFeatures,
    agreed: Option<Negotiated>,
    timeout: Option<Duration>,
    experience: Arc<Experience>,
}

#[derive(Debug)]
enum Source {
    Path(PathBuf),
    Listener(Listener),
}

/// Why there is no session. The next call tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReconnectError {
    /// Nobody could be reached, or nobody came in time.
    Socket(SocketError),
    /// Agreeing on features failed.
    Frontend(FrontendError),
    /// The back-end lacks what the guest or the VMM goes on to use.
    Lacks {
        /// Virtio features of the first session.
        virtio: VirtioFeatures,
        /// Protocol features of the first session.
        protocol: ProtocolFeatures,
    },
}

impl Reconnect {
    /// A back-end that listens at `path`, as soon and as often as it does. The features are those wanted of the first one; see
    /// [`Frontend::negotiate`].
    #[must_use]
    pub fn to(path: impl Into<PathBuf>, wanted: VirtioFeatures, protocol: ProtocolFeatures) -> Self {
        Self::new(Source::Path(path.into()), wanted, protocol)
    }

    /// A back-end that connects to `listener`, each time.
    #[must_use]
    pub fn from(listener: Listener, wanted: VirtioFeatures, protocol: ProtocolFeatures) -> Self {
        Self::new(Source::Listener(listener), wanted, protocol)
    }

    fn new(source: Source, wanted: VirtioFeatures, protocol: ProtocolFeatures) -> Self {
        Self { source, wanted, protocol, agreed: None, timeout: None, experience: Arc::default() }
    }

    /// How long each call of the front-ends may take, from the next one on; see [`Frontend::set_timeout`].
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// What was agreed on in the first session.
    #[must_use]
    pub fn agreed(&self) -> Option<Negotiated> {
        self.agreed
    }

    /// Waits for the back-end, and agrees with it on features: on the same ones as in the first session. The front-end before
    /// should be dropped, as most back-ends have one at a time.
    ///
    /// # Errors
    /// See [`ReconnectError`].
    pub fn connect(&mut self, deadline: Deadline) -> Result<Frontend, ReconnectError> {
        let socket = match &self.source {
            Source::Path(path) => Socket::connect_when_ready(path, deadline),
            Source::Listener(listener) => listener.accept(deadline),
        };
        let mut frontend = Frontend::from_socket(socket.map_err(ReconnectError::Socket)?);
        // Whoever listens and does not answer counts against the deadline, too.
        let mut soon = frontend.with_deadline(deadline);
        let (wanted, protocol) = match &self.agreed {
            Some(first) => (first.acknowledged, first.protocol),
            None => (self.wanted, self.protocol),
        };
        let found = soon.negotiate(wanted, protocol).map_err(ReconnectError::Frontend)?;
        drop(soon);
        let first = *self.agreed.get_or_insert(found);
        let virtio = first.acknowledged.difference(found.acknowledged);
        let protocol = first.protocol.difference(found.protocol);
        if !virtio.is_empty() || !protocol.is_empty() {
            return Err(ReconnectError::Lacks { virtio, protocol });
        }
        frontend.set_timeout(self.timeout);
        frontend.pacing = self.experience.pacing();
        frontend.experience = Arc::clone(&self.experience);
        Ok(frontend)
    }

    /// [Connects](Self::connect) and has `start` start the device, by [`bring_up`](Frontend::bring_up) for example: once more,
    /// with one request after the other, if the session ends with several unanswered. See [`Pacing`].
    ///
    /// # Errors
    /// See [`connect`](Self::connect); and the error of `start`, the second one if it was called twice.
    pub fn start(
        &mut self,
        deadline: Deadline,
        mut start: impl FnMut(&mut Frontend) -> Result<(), FrontendError>,
    ) -> Result<Frontend, ReconnectError> {
        let mut frontend = self.connect(deadline)?;
        let mut outcome = start(&mut frontend);
        let is_alone = frontend.pacing() == Pacing::OneByOne;
        if outcome.is_err() && !is_alone && !frontend.is_alive() && frontend.next_pacing() == Pacing::OneByOne {
            // Most back-ends have one front-end at a time.
            drop(frontend);
            frontend = self.connect(deadline)?;
            outcome = start(&mut frontend);
        }
        outcome.map(|()| frontend).map_err(ReconnectError::Frontend)
    }
}

impl fmt::Display for ReconnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "the back-end was not reached: {error}"),
            Self::Frontend(error) => error.fmt(f),
            Self::Lacks { virtio, protocol } => {
                write!(f, "the back-end lacks what was agreed on before: {virtio:?}, {protocol:?}")
            }
        }
    }
}

impl core::error::Error for ReconnectError {}
