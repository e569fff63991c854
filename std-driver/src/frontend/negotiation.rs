//! Requests about the whole connection: features, owner, status, reset.

use std::os::fd::{AsFd, BorrowedFd};

use vhost_core::{FrontendCode, Negotiated, PeerMisbehaved, ProtocolFeatures, Violation, VirtioFeatures};

use super::{
    BackendChannel, Frontend, FrontendError,
    call::{Reply, Request},
};
use crate::socket::Socket;

impl Frontend {
    /// Agrees on features: those of the wanted ones that the back-end offers.
    ///
    /// Protocol features without those that they need are left out. `PROTOCOL_FEATURES` itself need not be wanted: it is
    /// acknowledged if it is offered, else there are no protocol features. Gives back what was agreed on.
    ///
    /// The order is that of QEMU, which every back-end knows: `GET_FEATURES`, `GET_PROTOCOL_FEATURES`,
    /// `SET_PROTOCOL_FEATURES`, `SET_OWNER`, `SET_FEATURES`.
    ///
    /// # Errors
    /// See [`FrontendError`].
    pub fn negotiate(
        &mut self,
        wanted: VirtioFeatures,
        protocol: ProtocolFeatures,
    ) -> Result<Negotiated, FrontendError> {
        let offered = self.get_features()?;
        if offered.contains(VirtioFeatures::PROTOCOL_FEATURES) {
            let protocol_offered = self.get_protocol_features()?;
            self.set_protocol_features(protocol.intersection(protocol_offered).without_broken())?;
        }
        self.set_owner()?;
        self.set_features(offered & (wanted | VirtioFeatures::PROTOCOL_FEATURES))?;
        Ok(self.negotiated())
    }

    /// `GET_FEATURES`: the device's virtio features.
    ///
    /// # Errors
    /// See [`FrontendError`].
    #[doc(alias = "GET_FEATURES")]
    pub fn get_features(&mut self) -> Result<VirtioFeatures, FrontendError> {
        self.ask(Request::GetFeatures, |reply| match reply {
            Reply::GetFeatures(features) => Some(features),
            _ => None,
        })
    }

    /// `SET_FEATURES`: acknowledges virtio features. Without `PROTOCOL_FEATURES` among them all rings are enabled from
    /// now on.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also for features that were not offered, and while a ring runs for any change
    /// but that of `LOG_ALL`.
    #[doc(alias = "SET_FEATURES")]
    pub fn set_features(&mut self, features: VirtioFeatures) -> Result<(), FrontendError> {
        self.order(Request::SetFeatures(features))?;
        self.agreed = features;
        Ok(())
    }

    /// `GET_PROTOCOL_FEATURES`: the protocol features of the back-end.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also unless `PROTOCOL_FEATURES` is offered.
    #[doc(alias = "GET_PROTOCOL_FEATURES")]
    pub fn get_protocol_features(&mut self) -> Result<ProtocolFeatures, FrontendError> {
        self.ask(Request::GetProtocolFeatures, |reply| match reply {
            Reply::GetProtocolFeatures(features) => Some(features),
            _ => None,
        })
    }

    /// `SET_PROTOCOL_FEATURES`: acknowledges protocol features. Never acknowledged itself.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also for features that were not offered or that miss others.
    #[doc(alias = "SET_PROTOCOL_FEATURES")]
    pub fn set_protocol_features(&mut self, features: ProtocolFeatures) -> Result<(), FrontendError> {
        self.order(Request::SetProtocolFeatures(features))
    }

    /// Takes the offer of the back-end as known, so that features can be acknowledged without asking for them again, as
    /// after a reconnection.
    pub fn assume_offer(&mut self, features: VirtioFeatures, protocol: ProtocolFeatures) {
        self.shared.lock().machine.assume_offer(features, protocol);
    }

    /// `SET_OWNER`: claims the device.
    ///
    /// # Errors
    /// See [`FrontendError`].
    #[doc(alias = "SET_OWNER")]
    pub fn set_owner(&mut self) -> Result<(), FrontendError> {
        self.order(Request::SetOwner)
    }

    /// `RESET_DEVICE`: resets the device and its rings, but neither the connection nor the memory.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `RESET_DEVICE`.
    #[doc(alias = "RESET_DEVICE")]
    pub fn reset_device(&mut self) -> Result<(), FrontendError> {
        self.order(Request::ResetDevice)
    }

    /// `GET_STATUS`: the device status.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `STATUS`.
    #[doc(alias = "GET_STATUS")]
    pub fn get_status(&mut self) -> Result<u8, FrontendError> {
        let status = self.ask(Request::GetStatus, |reply| match reply {
            Reply::GetStatus(status) => Some(status),
            _ => None,
        })?;
        let message = FrontendCode::GET_STATUS.message();
        let outcome = u8::try_from(status).map_err(|_| FrontendError::Peer {
            waiting_for: Some(message),
            fault: PeerMisbehaved::Violation { message, violation: Violation::Status { found: status } },
        });
        self.conclude(Some(message), outcome)
    }

    /// `SET_STATUS`: sets the device status; 0 resets the device and its rings.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `STATUS`.
    #[doc(alias = "SET_STATUS")]
    pub fn set_status(&mut self, status: u8) -> Result<(), FrontendError> {
        self.order(Request::SetStatus(status.into()))
    }

    /// `GET_QUEUE_NUM`: how many queues the back-end can serve.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `MQ`.
    #[doc(alias = "GET_QUEUE_NUM")]
    pub fn get_queue_num(&mut self) -> Result<u64, FrontendError> {
        self.ask(Request::GetQueueNum, |reply| match reply {
            Reply::GetQueueNum(count) => Some(count),
            _ => None,
        })
    }

    /// `SET_BACKEND_REQ_FD`: opens the channel for requests of the back-end. This is our end of it.
    ///
    /// A channel that was opened before counts as closed from now on.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `BACKEND_REQ`.
    #[doc(alias = "SET_BACKEND_REQ_FD")]
    #[doc(alias = "SET_SLAVE_REQ_FD")]
    pub fn set_backend_req_fd(&mut self) -> Result<BackendChannel, FrontendError> {
        let (ours, theirs) = Socket::pair()?;
        self.order(Request::SetBackendReqFd(theirs.as_fd()))?;
        Ok(BackendChannel::new(ours, &self.shared))
    }

    /// `GPU_SET_SOCKET`: gives the back-end the socket of the vhost-user-gpu protocol.
    ///
    /// # Errors
    /// See [`FrontendError`].
    #[doc(alias = "GPU_SET_SOCKET")]
    pub fn gpu_set_socket(&mut self, socket: BorrowedFd<'_>) -> Result<(), FrontendError> {
        self.order(Request::GpuSetSocket(socket))
    }
}
