//! Requests about one ring.

use std::os::fd::BorrowedFd;

use vhost_core::{
    Logging, VirtioFeatures, VringAddresses,
    wire::vring::{VringAddr, VringBase, VringDescriptor, VringState},
};

use super::{
    Frontend, FrontendError,
    call::{Reply, Request},
};

/// Whether a ring is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Enabled {
    /// The back-end takes buffers from it once it is started.
    Yes,
    /// The back-end processes it without side effects, if at all.
    No,
}

/// The byte order of a legacy ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endian {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
}

impl Frontend {
    /// `SET_VRING_NUM`: the number of descriptors of a ring, 1 to 32768, in a split ring a power of two.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also while the ring runs.
    #[doc(alias = "SET_VRING_NUM")]
    pub fn set_vring_num(&mut self, ring: u8, size: u16) -> Result<(), FrontendError> {
        self.order(num(ring, size))
    }

    /// `SET_VRING_ADDR`: where a ring lies. Its memory must be shared before, and its size be set.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also for addresses that are misaligned or wrap around.
    #[doc(alias = "SET_VRING_ADDR")]
    pub fn set_vring_addr(&mut self, ring: u8, addresses: &VringAddresses) -> Result<(), FrontendError> {
        self.order(addr(ring, addresses))
    }

    /// `SET_VRING_BASE`: where the back-end goes on in a ring.
    ///
    /// # Errors
    /// [`Misuse`](FrontendError::Misuse) also while the ring runs.
    #[doc(alias = "SET_VRING_BASE")]
    pub fn set_vring_base(&mut self, ring: u8, base: VringBase) -> Result<(), FrontendError> {
        self.order(self::base(ring, base))
    }

    /// `GET_VRING_BASE`: stops a ring and tells where the back-end stood, so that another one can go on there.
    ///
    /// # Errors
    /// See [`FrontendError`].
    #[doc(alias = "GET_VRING_BASE")]
    pub fn get_vring_base(&mut self, ring: u8) -> Result<VringBase, FrontendError> {
        let packed = self.negotiated().acknowledged.contains(VirtioFeatures::RING_PACKED);
        let num = self.ask(Request::GetVringBase(VringState::new(ring.into(), 0)), |reply| match reply {
            Reply::GetVringBase(state) => Some(state.num()),
            _ => None,
        })?;
        Ok(if packed { VringBase::packed(num) } else { VringBase::split(num) })
    }

    /// `SET_VRING_KICK`: starts a ring; the eventfd tells the back-end of new buffers, without one it polls.
    ///
    /// # Errors
    /// See [`FrontendError`].
    #[doc(alias = "SET_VRING_KICK")]
    pub fn set_vring_kick(&mut self, ring: u8, kick: Option<BorrowedFd<'_>>) -> Result<(), FrontendError> {
        self.order(self::kick(ring, kick))
    }

    /// `SET_VRING_CALL`: the eventfd that tells the driver of used buffers; without one it polls.
    ///
    /// # Errors
    /// See [`FrontendError`].
    #[doc(alias = "SET_VRING_CALL")]
    pub fn set_vring_call(&mut self, ring: u8, call: Option<BorrowedFd<'_>>) -> Result<(), FrontendError> {
        self.order(self::call(ring, call))
    }

    /// `SET_VRING_ERR`: the eventfd that tells the front-end of an error of the ring.
    ///
    /// # Errors
    /// See [`FrontendError`].
    #[doc(alias = "SET_VRING_ERR")]
    pub fn set_vring_err(&mut self, ring: u8, error: Option<BorrowedFd<'_>>) -> Result<(), FrontendError> {
        self.order(err(ring, error))
    }

    /// `SET_VRING_ENABLE`: enables or disables a ring.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs protocol features to be negotiated.
    #[doc(alias = "SET_VRING_ENABLE")]
    pub fn set_vring_enable(&mut self, ring: u8, enabled: Enabled) -> Result<(), FrontendError> {
        self.order(enable(ring, enabled))
    }

    /// `SET_VRING_ENDIAN`: the byte order of a legacy ring.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `CROSS_ENDIAN`.
    #[doc(alias = "SET_VRING_ENDIAN")]
    pub fn set_vring_endian(&mut self, ring: u8, endian: Endian) -> Result<(), FrontendError> {
        let number = match endian {
            Endian::Little => 0,
            Endian::Big => 1,
        };
        self.order(Request::SetVringEndian(VringState::new(ring.into(), number)))
    }

    /// `VRING_KICK`: starts a ring and tells the back-end of new buffers, in band.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `INBAND_NOTIFICATIONS`.
    #[doc(alias = "VRING_KICK")]
    pub fn vring_kick(&mut self, ring: u8) -> Result<(), FrontendError> {
        self.order(Request::VringKick(VringState::new(ring.into(), 0)))
    }
}

pub(super) fn num<'r>(ring: u8, size: u16) -> Request<'r> {
    Request::SetVringNum(VringState::new(ring.into(), size.into()))
}

pub(super) fn addr<'r>(ring: u8, addresses: &VringAddresses) -> Request<'r> {
    let VringAddresses { descriptor, available, used, log, logging } = *addresses;
    let flags = match logging {
        Logging::On => VringAddr::LOG,
        Logging::Off => 0,
    };
    Request::SetVringAddr(VringAddr::new(ring.into(), flags, descriptor, used, available, log))
}

pub(super) fn base<'r>(ring: u8, base: VringBase) -> Request<'r> {
    Request::SetVringBase(VringState::new(ring.into(), base.to_num()))
}

pub(super) fn kick(ring: u8, kick: Option<BorrowedFd<'_>>) -> Request<'_> {
    Request::SetVringKick(target(ring, kick), kick)
}

pub(super) fn call(ring: u8, call: Option<BorrowedFd<'_>>) -> Request<'_> {
    Request::SetVringCall(target(ring, call), call)
}

pub(super) fn err(ring: u8, error: Option<BorrowedFd<'_>>) -> Request<'_> {
    Request::SetVringErr(target(ring, error), error)
}

pub(super) fn enable<'r>(ring: u8, enabled: Enabled) -> Request<'r> {
    let number = match enabled {
        Enabled::Yes => 1,
        Enabled::No => 0,
    };
    Request::SetVringEnable(VringState::new(ring.into(), number))
}

fn target(ring: u8, descriptor: Option<BorrowedFd<'_>>) -> VringDescriptor {
    match descriptor {
        Some(_) => VringDescriptor::with_descriptor(ring),
        None => VringDescriptor::without_descriptor(ring),
    }
}
