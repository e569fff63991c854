//! Requests about requests in flight, postcopy and device state.

use std::os::fd::{BorrowedFd, OwnedFd};

use vhost_core::{
    DecodeError, FrontendCode,
    wire::{inflight::Inflight, migration::Transfer, row::HandleCount},
};

use super::{
    Frontend, FrontendError,
    call::{Reply, Request},
};

/// Which way a device's state goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransferDirection {
    /// From the back-end to the front-end.
    Save,
    /// From the front-end to the back-end.
    Load,
}

impl Frontend {
    /// `GET_INFLIGHT_FD`: has the back-end make a record of the requests in flight, for so many rings of one size.
    ///
    /// Gives back its extent and its file, which is to be given to the back-end that takes over; `None` if there is
    /// nothing to track.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `INFLIGHT_SHMFD`.
    #[doc(alias = "GET_INFLIGHT_FD")]
    pub fn get_inflight_fd(
        &mut self,
        queues: u16,
        queue_size: u16,
    ) -> Result<Option<(Inflight, OwnedFd)>, FrontendError> {
        let wanted = Inflight::new(0, 0, queues, queue_size);
        let (record, descriptor) = self.ask(Request::GetInflightFd(wanted), |reply| match reply {
            Reply::GetInflightFd(record, descriptor) => Some((record, descriptor)),
            _ => None,
        })?;
        let message = FrontendCode::GET_INFLIGHT_FD.message();
        let outcome = match (record.mmap_size(), descriptor) {
            (0, _) => Ok(None),
            (_, Some(descriptor)) => Ok(Some((record, descriptor))),
            (_, None) => {
                let expected = HandleCount { least: 1, most: 1 };
                let fault = DecodeError::HandleCount { message, expected, found: 0 };
                Err(FrontendError::Bytes { waiting_for: Some(message), fault })
            }
        };
        self.conclude(Some(message), outcome)
    }

    /// `SET_INFLIGHT_FD`: gives the back-end a record of the requests in flight.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `INFLIGHT_SHMFD`.
    #[doc(alias = "SET_INFLIGHT_FD")]
    pub fn set_inflight_fd(&mut self, record: &Inflight, file: BorrowedFd<'_>) -> Result<(), FrontendError> {
        self.order(Request::SetInflightFd(*record, file))
    }

    /// `POSTCOPY_ADVISE`: announces postcopy migration; the back-end's userfault descriptor.
    ///
    /// # Errors
    /// See [`FrontendError`]; [`Refused`](FrontendError::Refused) also if no descriptor comes. Needs the protocol feature
    /// `PAGEFAULT`.
    #[doc(alias = "POSTCOPY_ADVISE")]
    pub fn postcopy_advise(&mut self) -> Result<OwnedFd, FrontendError> {
        self.ask(Request::PostcopyAdvise, |reply| match reply {
            Reply::PostcopyAdvise(descriptor) => descriptor,
            _ => None,
        })
    }

    /// `POSTCOPY_LISTEN`: memory that is shared from here on is registered with userfaultfd, and answered with where the
    /// back-end has it: see [`set_mem_table`](Self::set_mem_table).
    ///
    /// # Errors
    /// See [`FrontendError`]; [`Misuse`](FrontendError::Misuse) also before [`postcopy_advise`](Self::postcopy_advise).
    #[doc(alias = "POSTCOPY_LISTEN")]
    pub fn postcopy_listen(&mut self) -> Result<(), FrontendError> {
        self.order(Request::PostcopyListen)
    }

    /// `POSTCOPY_END`: postcopy migration is over.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `PAGEFAULT`.
    #[doc(alias = "POSTCOPY_END")]
    pub fn postcopy_end(&mut self) -> Result<(), FrontendError> {
        self.order(Request::PostcopyEnd)
    }

    /// `SET_DEVICE_STATE_FD`: starts the transfer of the device's internal state through `channel`, a pipe or a socket,
    /// or through the descriptor that the back-end gives instead.
    ///
    /// The state ends with the end of the stream; then [`check_device_state`](Self::check_device_state) tells whether it
    /// went well. All rings must be stopped.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `DEVICE_STATE`.
    #[doc(alias = "SET_DEVICE_STATE_FD")]
    pub fn set_device_state_fd(
        &mut self,
        direction: TransferDirection,
        channel: BorrowedFd<'_>,
    ) -> Result<Option<OwnedFd>, FrontendError> {
        let direction = match direction {
            TransferDirection::Save => Transfer::SAVE,
            TransferDirection::Load => Transfer::LOAD,
        };
        let transfer = Transfer::new(direction, Transfer::STOPPED);
        self.ask(Request::SetDeviceStateFd(transfer, channel), |reply| match reply {
            Reply::SetDeviceStateFd(_, descriptor) => Some(descriptor),
            _ => None,
        })
    }

    /// `CHECK_DEVICE_STATE`: whether the back-end has all of its state.
    ///
    /// # Errors
    /// See [`FrontendError`]; [`Refused`](FrontendError::Refused) if it has not.
    #[doc(alias = "CHECK_DEVICE_STATE")]
    pub fn check_device_state(&mut self) -> Result<(), FrontendError> {
        self.order(Request::CheckDeviceState)
    }
}
