//! Fake peers: the other end of a Unix socket, which speaks and understands the wire by hand.
//!
//! A peer that stays silent fails the test after [`PATIENCE`] instead of hanging it.

mod backend;
mod frontend;
mod relay;
mod socket;

pub use backend::FakeBackend;
pub use frontend::FakeFrontend;
pub use relay::{Relay, Speaker};
pub use socket::{PATIENCE, Received, Socket};

use crate::wire::Fixture;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// As many descriptors as the fixture has, each of the kind that the request carries: event counters, sockets and pipes whose
/// other end is closed, else sparse memory that is large enough for the regions of [`crate::wire::region`].
pub fn descriptors_for(fixture: &Fixture) -> Vec<OwnedFd> {
    let one = || match fixture.name {
        "SET_VRING_KICK" | "SET_VRING_CALL" | "SET_VRING_ERR" | "SET_LOG_FD" => event(),
        "SET_BACKEND_REQ_FD" | "GPU_SET_SOCKET" => UnixStream::pair().unwrap().0.into(),
        "SET_DEVICE_STATE_FD" => std::io::pipe().unwrap().0.into(),
        _ => memory(0x1000_0000),
    };
    (0..fixture.descriptors).map(|_| one()).collect()
}

/// A new anonymous file of that many bytes.
pub fn memory(size: u64) -> OwnedFd {
    let memory = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&memory, size).unwrap();
    memory
}

/// A new event counter at 0, which does not block.
pub fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// What [`Socket::send`] takes.
pub fn borrowed(descriptors: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    descriptors.iter().map(AsFd::as_fd).collect()
}

/// Whether both descriptors lead to the same file. All event counters count as the same.
pub fn same_file(one: impl AsFd, other: impl AsFd) -> bool {
    let (one, other) = (fstat(one).unwrap(), fstat(other).unwrap());
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}
