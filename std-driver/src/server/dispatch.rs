//! What each request does to the device, its rings and its guest.

use core::fmt;
use std::{os::fd::OwnedFd, sync::MutexGuard};

use vhost_core::{
    FrontendCode, FrontendReply, FrontendRequest, Negotiated, Session, VirtioFeatures,
    wire::{
        config::Config,
        vring::{VringAddr, VringBase, VringDescriptor, VringState},
    },
};

use super::{MAX_RINGS, channel::BackendChannel, guest::Guest, rings::RingSet};
use crate::{
    device::{ConfigRefused, Device},
    eventfd::EventFdError,
    memory::{MAX_REGIONS, MemoryError},
    poller::WatchError,
    socket::Socket,
    vring::{RingFault, RingMisuse, Vring},
};

type Agreed = Session<MAX_RINGS, MAX_REGIONS>;

/// Why a request that the protocol allows was refused.
#[derive(Debug)]
pub(super) enum Reason {
    Memory(MemoryError),
    Ring(RingMisuse),
    Fault(RingFault),
    Kick(WatchError),
    Signal(EventFdError),
    Config(ConfigRefused),
    /// The device has nothing to do this with.
    Unsupported,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => error.fmt(f),
            Self::Ring(error) => error.fmt(f),
            Self::Fault(error) => error.fmt(f),
            Self::Kick(error) => error.fmt(f),
            Self::Signal(error) => error.fmt(f),
            Self::Config(error) => error.fmt(f),
            Self::Unsupported => f.write_str("this device has no use for it"),
        }
    }
}

macro_rules! reasons {
    ($($variant:ident($error:ty)),*) => {$(
        impl From<$error> for Reason {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        }
    )*};
}

reasons!(
    Memory(MemoryError),
    Ring(RingMisuse),
    Fault(RingFault),
    Kick(WatchError),
    Signal(EventFdError),
    Config(ConfigRefused)
);

/// Everything that a request can reach.
pub(super) struct Dispatch<'c> {
    pub(super) device: &'c dyn Device,
    pub(super) rings: &'c RingSet,
    pub(super) guest: &'c mut Guest,
    pub(super) channel: &'c mut Option<BackendChannel>,
}

impl Dispatch<'_> {
    /// Carries out a request that the machine handed on. If it fails, nothing has changed.
    pub(super) fn carry_out<'b>(
        &mut self,
        request: FrontendRequest<'b, OwnedFd>,
        session: &Agreed,
        config: &'b mut [u8],
    ) -> Result<FrontendReply<'b, OwnedFd>, Reason> {
        use FrontendRequest as Request;
        match request {
            Request::SetMemTable(regions, handles) => {
                let memory = Guest::replaced(&regions, handles)?;
                self.guest.set_memory(memory);
            }
            Request::AddMemReg(region, handle) => {
                let memory = self.guest.with(region, handle)?;
                self.guest.set_memory(memory);
            }
            Request::RemMemReg(region) => {
                let memory = self.guest.without(&region)?;
                self.guest.set_memory(memory);
            }
            Request::SetVringNum(state) => {
                let mut ring = self.ring(&state)?;
                // A disabled ring is set up anew without having been stopped (libkrun).
                ring.pause();
                ring.set_size(state.num())?;
            }
            Request::SetVringBase(state) => {
                let mut ring = self.ring(&state)?;
                ring.pause();
                if let VringBase::Split { available } = VringBase::split(state.num()) {
                    ring.set_base(available)?;
                }
            }
            Request::SetVringAddr(address) => {
                let index = usize::try_from(address.index()).map_err(|_| Reason::Unsupported)?;
                self.check_move(index, &address, session)?;
                self.guest.set_ring(index, address);
            }
            Request::GetVringBase(state) => {
                let available = self.ring(&state)?.stop();
                let base = VringBase::Split { available }.to_num();
                return Ok(FrontendReply::GetVringBase(VringState::new(state.index(), base)));
            }
            Request::SetVringKick(target, handle) => self.start(&target, handle, session)?,
            Request::SetVringCall(target, handle) => self.target(&target)?.set_call(handle)?,
            Request::SetVringErr(target, handle) => self.target(&target)?.set_error(handle)?,
            Request::GetConfig(wanted) => {
                let data = config.get_mut(..wanted.data.len()).ok_or(Reason::Unsupported)?;
                self.device.read_config(wanted.offset, data);
                return Ok(FrontendReply::GetConfig(Config { offset: wanted.offset, flags: wanted.flags, data }));
            }
            Request::SetConfig(write) => self.device.write_config(write.offset, write.data)?,
            Request::SetBackendReqFd(handle) => *self.channel = Some(BackendChannel::new(Socket::from(handle))),
            // Granted by the machine; what they change is followed up below, or nothing.
            Request::SetFeatures(_)
            | Request::SetProtocolFeatures(_)
            | Request::SetOwner
            | Request::ResetOwner
            | Request::SetVringEnable(_)
            | Request::ResetDevice
            | Request::SetStatus(_)
            | Request::SetLogFd(_) => {}
            _ => return Err(Reason::Unsupported),
        }
        Ok(FrontendReply::Done)
    }

    /// Brings rings and device to what the session says now.
    pub(super) fn follow(&mut self, code: FrontendCode, session: &Agreed) {
        match code {
            FrontendCode::SET_MEM_TABLE | FrontendCode::ADD_MEM_REG | FrontendCode::REM_MEM_REG => self.place(session),
            FrontendCode::SET_VRING_NUM | FrontendCode::SET_VRING_BASE | FrontendCode::SET_VRING_ADDR => {
                self.place(session);
            }
            FrontendCode::SET_FEATURES => {
                self.acknowledge(session.negotiated());
                self.place(session);
                self.enable(session);
            }
            FrontendCode::SET_VRING_ENABLE | FrontendCode::RESET_OWNER => self.enable(session),
            FrontendCode::RESET_DEVICE => self.reset(),
            FrontendCode::SET_STATUS if session.status() == 0 => self.reset(),
            _ => {}
        }
    }

    /// A ring whose place is not known yet starts as soon as it is.
    fn start(&self, target: &VringDescriptor, kick: Option<OwnedFd>, session: &Agreed) -> Result<(), Reason> {
        let mut ring = self.target(target)?;
        let index = usize::from(ring.index());
        let size = session.ring(index).and_then(|ring| ring.size());
        let was_started = ring.is_started();
        if self.guest.place(index, size, session.negotiated())?.is_some() {
            ring.start()?;
        }
        // Without a descriptor the back-end has to look by itself (section "SET_VRING_KICK": polling).
        let kicked = if kick.is_some() { ring.set_kick(kick) } else { ring.set_polled() };
        kicked.inspect_err(|_| {
            if !was_started {
                ring.pause();
            }
        })?;
        Ok(())
    }

    /// Refuses to move a started ring to where it cannot be; it goes on where it is.
    fn check_move(&self, index: usize, address: &VringAddr, session: &Agreed) -> Result<(), Reason> {
        let ring = self.rings.lock(index).ok_or(Reason::Unsupported)?;
        let size = session.ring(index).and_then(|ring| ring.size()).filter(|_| ring.is_started());
        if let Some(size) = size {
            ring.check_addresses(self.guest.translate(address, size, session.negotiated())?)?;
        }
        Ok(())
    }

    /// Gives all rings the memory and their places in it, and starts those that waited for one.
    ///
    /// A ring that is started and has no place any more is stopped. One that its driver broke stays stopped until the
    /// front-end starts it. Either fault is kept in the ring and was reported through its error descriptor.
    fn place(&self, session: &Agreed) {
        for mut ring in self.rings.each() {
            let index = usize::from(ring.index());
            let Some(agreed) = session.ring(index) else { continue };
            let place = self.guest.place(index, agreed.size(), session.negotiated()).ok().flatten();
            let _ = ring.set_memory(self.guest.shared_memory(), place);
            if agreed.is_started() && !ring.is_started() && !ring.is_broken() && place.is_some() {
                let _ = ring.start();
            }
        }
    }

    fn acknowledge(&self, negotiated: &Negotiated) {
        let features = negotiated.acknowledged;
        for mut ring in self.rings.each() {
            if ring.set_features(features.bits()).is_err() {
                // Started and disabled: it starts again when the rings are placed.
                ring.pause();
                let _ = ring.set_features(features.bits());
            }
        }
        self.device.features_acknowledged(features.difference(VirtioFeatures::PROTOCOL_FEATURES).bits());
    }

    fn enable(&self, session: &Agreed) {
        for mut ring in self.rings.each() {
            let enabled = session.ring(usize::from(ring.index())).is_some_and(|ring| ring.is_enabled());
            match enabled {
                true if !ring.is_enabled() => ring.enable(),
                false if ring.is_enabled() => ring.disable(),
                _ => {}
            }
        }
    }

    fn reset(&mut self) {
        for mut ring in self.rings.each() {
            ring.reset();
        }
        self.guest.forget_rings();
        self.device.reset();
    }

    fn ring(&self, state: &VringState) -> Result<MutexGuard<'_, Vring>, Reason> {
        let index = usize::try_from(state.index()).map_err(|_| Reason::Unsupported)?;
        self.rings.lock(index).ok_or(Reason::Unsupported)
    }

    fn target(&self, target: &VringDescriptor) -> Result<MutexGuard<'_, Vring>, Reason> {
        let index = usize::try_from(target.index()).map_err(|_| Reason::Unsupported)?;
        self.rings.lock(index).ok_or(Reason::Unsupported)
    }
}
