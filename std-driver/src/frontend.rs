//! The typed, blocking front-end: what a VMM calls to have a back-end process its queues.

mod attached;
mod batch;
mod bring_up;
mod call;
mod channel;
mod confirmation;
mod device;
mod error;
mod handler;
mod limit;
mod memory;
mod migration;
mod negotiation;
mod pacing;
mod reconnect;
mod shared;
mod vhost_backend;
mod vring;
pub(crate) mod wait;

use core::fmt;
use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
};

use vhost_core::{Channel, FrontendConfig, MAX_MESSAGE, MessageName, Negotiated, Postcopy, VirtioFeatures, Vring};

use self::{attached::Attached, limit::Limit, memory::SharedFile, pacing::Experience, shared::Shared};
pub use self::{
    bring_up::{DeviceSetup, RingSetup, StoppedRing},
    channel::{BackendChannel, ChannelError, ChannelState, ChannelStopper},
    confirmation::Confirmation,
    error::{Closed, FrontendError, SessionEnd},
    handler::{BackendRequestHandler, BackendRequestHandlerMut, Refusal},
    limit::WithDeadline,
    memory::MappedRegions,
    migration::TransferDirection,
    pacing::Pacing,
    reconnect::{Reconnect, ReconnectError},
    vring::{Enabled, Endian},
};
pub use vhost_core::{Logging, VringAddresses};

use crate::{
    deadline::Deadline,
    endpoint::{Endpoint, Observer},
    socket::{Socket, SocketError},
};

/// The most rings of a device: as many as the eight bits of a ring's index tell apart.
pub const MAX_RINGS: u16 = 256;

/// The front-end's end of a connection.
///
/// There is one method for each request of the protocol, named after it, but for the deprecated `RESET_OWNER`. A method sends its request, waits for the
/// answer if one is due, and gives it back; see [`Confirmation`] for when one is due. Nothing is sent that the session
/// does not allow, and no thread is started.
///
/// A call without a limit waits for ever. [`set_timeout`](Self::set_timeout) sets one for each call,
/// [`with_deadline`](Self::with_deadline) one for several calls together.
///
/// ```
/// use vhost_core::{ProtocolFeatures, VirtioFeatures};
/// use vhost_std::{frontend::Frontend, socket::Socket};
///
/// # fn main() -> Result<(), Box<dyn core::error::Error>> {
/// # let (near, far) = Socket::pair()?;
/// # let peer = std::thread::spawn(move || answer_features(far));
/// let mut frontend = Frontend::from_socket(near);
/// frontend.set_timeout(Some(core::time::Duration::from_secs(5)));
/// let agreed = frontend.negotiate(VirtioFeatures::VERSION_1, ProtocolFeatures::REPLY_ACK)?;
/// assert_eq!(agreed.acknowledged, VirtioFeatures::VERSION_1);
/// # drop(frontend);
/// # peer.join().unwrap()?;
/// # Ok(())
/// # }
/// # // A back-end that offers VERSION_1 and nothing else.
/// # fn answer_features(socket: Socket) -> Result<(), vhost_std::socket::SocketError> {
/// #     use vhost_core::wire::header::Header;
/// #     use vhost_std::{deadline::Deadline, socket::Received};
/// #     let mut buffer = [0; 64];
/// #     let Received::Data { .. } = socket.receive(&mut buffer[..12], Deadline::NEVER)? else { return Ok(()) };
/// #     let mut reply = Header::reply_to(1, 8).to_bytes().to_vec();
/// #     reply.extend((1_u64 << 32).to_ne_bytes());
/// #     socket.send(&reply, &[], Deadline::NEVER)?;
/// #     while let Received::Data { .. } = socket.receive(&mut buffer, Deadline::NEVER)? {}
/// #     Ok(())
/// # }
/// ```
#[must_use]
pub struct Frontend {
    endpoint: Endpoint,
    out: Box<[u8; MAX_MESSAGE]>,
    shared: Arc<Shared>,
    limit: Limit,
    confirmation: Confirmation,
    /// The last request that seemed to succeed, for errors.
    previous: Option<MessageName>,
    /// The request during which the session ended, and how.
    ended: Option<(Option<MessageName>, SessionEnd)>,
    attached: Option<Attached>,
    /// The features acknowledged last, to be acknowledged again after a reset.
    agreed: VirtioFeatures,
    /// The memory slots of the back-end, once they were asked for.
    slots: Option<u64>,
    /// The files of the regions that are shared.
    files: Vec<SharedFile>,
    pacing: Pacing,
    /// Shared with the sessions before and after this one.
    experience: Arc<Experience>,
}

impl Frontend {
    /// Connects to the back-end that listens at `path`.
    ///
    /// # Errors
    /// See [`Socket::connect`]. For a back-end that may not listen yet there is [`Socket::connect_when_ready`].
    pub fn connect(path: impl AsRef<Path>, deadline: Deadline) -> Result<Self, SocketError> {
        Socket::connect(path, deadline).map(Self::from_socket)
    }

    /// The front-end of a connection on which nothing was said yet, for a device of up to [`MAX_RINGS`] rings.
    pub fn from_socket(socket: Socket) -> Self {
        Self::with_config(socket, FrontendConfig::new(MAX_RINGS))
    }

    /// As [`from_socket`](Self::from_socket), with the rings that the device may have and with what is let pass.
    pub fn with_config(socket: Socket, config: FrontendConfig) -> Self {
        Self::over(Endpoint::new(socket, Channel::Frontend), config)
    }

    /// As [`with_config`](Self::with_config), on the main channel as it is given: one that is read
    /// [exactly](Endpoint::exact), for a socket that somebody else goes on with, who then misses nothing.
    pub fn over(endpoint: Endpoint, config: FrontendConfig) -> Self {
        Self {
            endpoint,
            out: Box::new([0; MAX_MESSAGE]),
            shared: Arc::new(Shared::new(config)),
            limit: Limit::default(),
            confirmation: Confirmation::default(),
            previous: None,
            ended: None,
            attached: None,
            agreed: VirtioFeatures::empty(),
            slots: None,
            files: Vec::new(),
            pacing: Pacing::default(),
            experience: Arc::default(),
        }
    }

    /// Has every message on the main channel from now on seen by `observer`; `None` for nobody.
    ///
    /// As long as somebody looks, or a channel is [attached](Self::attach), descriptors with an answer to which none belong
    /// end the session; else the kernel closes them unseen, which costs less.
    pub fn observe(&mut self, observer: Option<Arc<dyn Observer>>) {
        self.endpoint.observe(observer);
    }

    /// How requests without a reply of their own are confirmed.
    #[must_use]
    pub fn confirmation(&self) -> Confirmation {
        self.confirmation
    }

    /// Sets how requests without a reply of their own are confirmed, from the next one on.
    pub fn set_confirmation(&mut self, confirmation: Confirmation) {
        self.confirmation = confirmation;
    }

    /// The features that both sides agreed on.
    #[must_use]
    pub fn negotiated(&self) -> Negotiated {
        *self.shared.lock().machine.session().negotiated()
    }

    /// What the session knows of a ring.
    #[must_use]
    pub fn vring(&self, ring: u8) -> Vring {
        self.shared.lock().machine.session().ring(usize::from(ring)).copied().unwrap_or_default()
    }

    /// How far postcopy migration is.
    #[must_use]
    pub fn postcopy(&self) -> Postcopy {
        self.shared.lock().machine.session().postcopy()
    }

    /// Whether requests can still be made.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.ended.is_none()
    }
}

impl AsFd for Frontend {
    /// The socket, to be polled between calls: when it is readable, [`process`](Self::process) tells why.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.endpoint.as_fd()
    }
}

impl fmt::Debug for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frontend")
            .field("endpoint", &self.endpoint)
            .field("negotiated", &self.negotiated())
            .field("limit", &self.limit)
            .field("confirmation", &self.confirmation)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
