//! What each request does to the device, its rings and its guest.

use core::fmt;
use std::os::fd::OwnedFd;

use vhost_core::{
    FrontendCode, FrontendReply, FrontendRequest, Logging, ProtocolFeatures, RingLayout, Session, VringAddresses,
    wire::{
        config::Config,
        log::LogBase,
        migration,
        shared::SharedMemoryConfig,
        vring::{VringAddr, VringBase, VringState},
    },
};

use super::{
    MAX_RINGS,
    channel::BackendChannel,
    transfer::{Transfer, TransferError},
};
use crate::{
    device::{ConfigRefused, Device},
    inflight::{self, InflightError, InflightRecord},
    memory::{AddressSpace, LogFile, MAX_REGIONS, MemoryError},
    rings::{Control, Guest, RingError, RingSet},
    socket::Socket,
};

type Agreed = Session<MAX_RINGS, MAX_REGIONS>;

/// Why a request that the protocol allows was refused.
#[derive(Debug)]
pub(super) enum Reason {
    Ring(RingError),
    Config(ConfigRefused),
    State(TransferError),
    /// The device has nothing to do this with.
    Unsupported,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::State(error) => error.fmt(f),
            Self::Unsupported => f.write_str("this device has no use for it"),
        }
    }
}

impl From<RingError> for Reason {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

impl From<MemoryError> for Reason {
    fn from(error: MemoryError) -> Self {
        Self::Ring(error.into())
    }
}

impl From<TransferError> for Reason {
    fn from(error: TransferError) -> Self {
        Self::State(error)
    }
}

impl From<InflightError> for Reason {
    fn from(error: InflightError) -> Self {
        Self::Ring(error.into())
    }
}

impl From<ConfigRefused> for Reason {
    fn from(error: ConfigRefused) -> Self {
        Self::Config(error)
    }
}

/// Everything that a request can reach.
pub(super) struct Dispatch<'c> {
    pub(super) device: &'c dyn Device,
    pub(super) rings: &'c RingSet,
    pub(super) guest: &'c mut Guest,
    pub(super) channel: &'c mut Option<BackendChannel>,
    pub(super) transfer: &'c mut Option<Transfer>,
}

impl<'c> Dispatch<'c> {
    /// Carries out a request that the machine handed on. If it fails, nothing has changed.
    pub(super) fn carry_out<'b>(
        &mut self,
        request: FrontendRequest<'b, OwnedFd>,
        session: &Agreed,
        config: &'b mut [u8],
    ) -> Result<FrontendReply<'b, OwnedFd>, Reason>
    where
        'c: 'b,
    {
        use FrontendRequest as Request;
        match request {
            Request::SetMemTable(regions, handles) => {
                let memory = Guest::replaced(&regions, handles)?;
                self.control(session).set_memory(memory);
            }
            Request::AddMemReg(region, handle) => {
                let memory = self.guest.with(region, handle)?;
                self.control(session).set_memory(memory);
            }
            Request::RemMemReg(region) => {
                let memory = self.guest.without(&region)?;
                self.control(session).set_memory(memory);
            }
            Request::SetLogBase(LogBase::Shared(log), Some(handle)) => {
                let log = LogFile::map(log.size(), log.offset(), handle)?;
                self.control(session).set_log(log)?;
            }
            Request::SetLogFd(handle) => self.control(session).set_log_signal(handle)?,
            Request::SetVringNum(state) => self.control(session).set_size(state.index().into(), state.num())?,
            Request::SetVringBase(state) => {
                let base = match RingLayout::of(session.negotiated().acknowledged) {
                    RingLayout::Split => VringBase::split(state.num()),
                    RingLayout::Packed => VringBase::packed(state.num()),
                };
                self.control(session).set_base(state.index().into(), base)?;
            }
            Request::SetVringAddr(address) => {
                self.control(session).set_addresses(address.index().into(), addresses(&address))?;
            }
            Request::GetVringBase(state) => {
                let base = self.control(session).stop(state.index().into())?;
                return Ok(FrontendReply::GetVringBase(VringState::new(state.index(), base.to_num())));
            }
            Request::SetVringKick(target, handle) => self.control(session).set_kick(target.index(), handle)?,
            Request::SetVringCall(target, handle) => self.control(session).set_call(target.index(), handle)?,
            Request::SetVringErr(target, handle) => self.control(session).set_error(target.index(), handle)?,
            Request::GetInflightFd(wanted) => {
                let layout = RingLayout::of(session.negotiated().acknowledged);
                let (record, file) = inflight::create(layout, wanted.num_queues(), wanted.queue_size())?;
                return Ok(FrontendReply::GetInflightFd(record, Some(file)));
            }
            Request::SetInflightFd(shape, file) => {
                let record = InflightRecord::new(&shape, file)?;
                self.control(session).set_inflight(Some(&record))?;
            }
            Request::GetConfig(wanted) => {
                let data = config.get_mut(..wanted.data.len()).ok_or(Reason::Unsupported)?;
                self.device.read_config(wanted.offset, data);
                return Ok(FrontendReply::GetConfig(Config { offset: wanted.offset, flags: wanted.flags, data }));
            }
            Request::SetConfig(write) => self.device.write_config(write.offset, write.data)?,
            Request::GetShmemConfig => {
                let device: &'c dyn Device = self.device;
                return Ok(FrontendReply::GetShmemConfig(SharedMemoryConfig::new(device.shared_memory())));
            }
            Request::SetBackendReqFd(handle) => {
                *self.channel = Some(BackendChannel::new(Socket::from(handle)));
                self.control(session).ask_again();
            }
            Request::IotlbMsg(message) => self.control(session).translate(&message)?,
            Request::SetDeviceStateFd(wanted, handle) => {
                if !session.is_suspended() {
                    return Err(TransferError::Running.into());
                }
                let state = self.device.state().ok_or(TransferError::NoState)?;
                let begin = if wanted.direction() == migration::Transfer::LOAD { Transfer::load } else { Transfer::save };
                let mut transfer = begin(state, handle)?;
                transfer.step(self.device);
                *self.transfer = Some(transfer);
                return Ok(FrontendReply::SetDeviceStateFd(migration::Transfer::NO_DESCRIPTOR, None));
            }
            Request::CheckDeviceState => {
                let transfer = self.transfer.take().ok_or(TransferError::NothingTransferred)?;
                transfer.conclude(self.device)?;
            }
            // Granted by the machine; what they change is followed up below, or nothing.
            Request::SetFeatures(_)
            | Request::SetProtocolFeatures(_)
            | Request::SetOwner
            | Request::ResetOwner
            | Request::SetVringEnable(_)
            | Request::ResetDevice
            | Request::SetStatus(_)
            // An address in the front-end's process is no log for this one.
            | Request::SetLogBase(..) => {}
            _ => return Err(Reason::Unsupported),
        }
        Ok(FrontendReply::Done)
    }

    /// Brings rings and device to what the session says now.
    pub(super) fn follow(&mut self, code: FrontendCode, session: &Agreed) {
        match code {
            FrontendCode::SET_FEATURES => {
                self.control(session).acknowledge(session.negotiated().acknowledged);
                self.enable(session);
            }
            FrontendCode::SET_VRING_ENABLE | FrontendCode::RESET_OWNER => self.enable(session),
            FrontendCode::SET_VRING_KICK => {
                if let Some(transfer) = self.transfer {
                    transfer.interrupt();
                }
            }
            FrontendCode::RESET_DEVICE => self.control(session).reset(),
            FrontendCode::SET_STATUS if session.status() == 0 => self.control(session).reset(),
            _ => {}
        }
    }

    fn enable(&mut self, session: &Agreed) {
        let is_enabled = |ring| session.ring(usize::from(ring)).is_some_and(|ring| ring.is_enabled());
        self.control(session).enable(is_enabled);
    }

    fn control(&mut self, session: &Agreed) -> Control<'_> {
        // Specification, section "Ring addresses".
        let gpa = session.negotiated().protocol.contains(ProtocolFeatures::GPA_ADDRESSES);
        let addresses = if gpa { AddressSpace::Guest } else { AddressSpace::User };
        Control { device: self.device, rings: self.rings, guest: self.guest, addresses }
    }
}

fn addresses(address: &VringAddr) -> VringAddresses {
    VringAddresses {
        descriptor: address.descriptor(),
        available: address.available(),
        used: address.used(),
        log: address.log(),
        logging: if address.logs_used() { Logging::On } else { Logging::Off },
    }
}
