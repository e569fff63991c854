//! What is said to two back-ends, message by message.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use vhost_tests::dialog::{event, memory};
use vhost_tests::wire::{Fixture, header};

use crate::stage::Stage;

/// What a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Event,
    Socket,
    Pipe,
    /// Sparse memory that is large enough for the regions of the fixtures.
    Memory,
}

impl Kind {
    /// What goes with a request of this name.
    pub(crate) fn of(name: &str) -> Self {
        match name {
            "SET_VRING_KICK" | "SET_VRING_CALL" | "SET_VRING_ERR" | "SET_LOG_FD" => Self::Event,
            "SET_BACKEND_REQ_FD" | "GPU_SET_SOCKET" => Self::Socket,
            "SET_DEVICE_STATE_FD" => Self::Pipe,
            _ => Self::Memory,
        }
    }

    pub(crate) fn make(self) -> OwnedFd {
        match self {
            Self::Event => event(),
            Self::Socket => UnixStream::pair().unwrap().0.into(),
            Self::Pipe => std::io::pipe().unwrap().0.into(),
            Self::Memory => memory(0x1000_0000),
        }
    }
}

/// One message of a front-end.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) id: u32,
    pub(crate) flags: u32,
    /// As the header announces it: usually that of the payload.
    pub(crate) size: u32,
    pub(crate) payload: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) descriptors: usize,
}

impl Said {
    /// Any message without descriptors.
    pub(crate) fn new(id: u32, flags: u32, payload: &[u8]) -> Self {
        let size = u32::try_from(payload.len()).unwrap();
        Self { id, flags, size, payload: payload.to_vec(), kind: Kind::Event, descriptors: 0 }
    }

    /// A fixture as it stands.
    pub(crate) fn fixture(fixture: &Fixture, flags: u32) -> Self {
        let (kind, descriptors) = (Kind::of(fixture.name), fixture.descriptors);
        Self { kind, descriptors, ..Self::new(fixture.id, flags, &fixture.payload) }
    }

    /// The same with another payload.
    pub(crate) fn carrying(self, payload: &[u8]) -> Self {
        let size = u32::try_from(payload.len()).unwrap();
        Self { size, payload: payload.to_vec(), ..self }
    }

    /// The same with so many descriptors.
    pub(crate) fn with(self, descriptors: usize) -> Self {
        Self { descriptors, ..self }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        [&header(self.id, self.flags, self.size)[..], &self.payload].concat()
    }

    /// Descriptors for one sending.
    pub(crate) fn descriptors(&self) -> Vec<OwnedFd> {
        (0..self.descriptors).map(|_| self.kind.make()).collect()
    }
}

/// A conversation whose last part is compared.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// `stage/REQUEST (form)/what is special`, and `/flagged` when acknowledgements are asked for.
    pub(crate) name: String,
    /// What was agreed before.
    pub(crate) stage: Stage,
    /// What is compared.
    pub(crate) said: Vec<Said>,
}

impl Case {
    /// The request that comes last: its reply tells that nothing more comes for what was said before. One that the case itself
    /// does not make.
    pub(crate) fn barrier(&self) -> u32 {
        let barrier =
            if self.said.iter().any(|said| said.id == GET_FEATURES) { GET_PROTOCOL_FEATURES } else { GET_FEATURES };
        assert!(self.said.iter().all(|said| said.id != barrier), "{}: no request is left to end it", self.name);
        barrier
    }
}

const GET_FEATURES: u32 = 1;
const GET_PROTOCOL_FEATURES: u32 = 15;
