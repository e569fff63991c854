//! The vhost-user protocol as plain values: every message, and the state machines of both sides.
//!
//! This crate reads and writes messages and knows the protocol's rules. It does no I/O: bytes and
//! descriptors come from the caller and go to the caller, so it runs over any transport, in
//! unikernels, firmware and kernels, and every state of its machines can be visited by a test.
//! There is no allocation, no unsafe code, no clock and no panic in it.
//!
//! The run loop of a back-end, here between two machines in memory:
//!
//! ```
//! use vhost_core::{
//!     Answered, Assembler, Backend, BackendConfig, Channel, Delivery, Frontend, FrontendConfig,
//!     FrontendReply, FrontendRequest, Incoming, MAX_MESSAGE, ProtocolFeatures, VirtioFeatures,
//! };
//!
//! // A capability number stands for a descriptor; `OwnedFd` on Unix.
//! type Handle = u32;
//!
//! let features = VirtioFeatures::VERSION_1;
//! let mut backend = Backend::<2, 8, 4>::new(BackendConfig::new(features, ProtocolFeatures::REPLY_ACK, 2));
//! let mut frontend = Frontend::<2, 8, 4>::new(FrontendConfig::new(2));
//! let (mut out, mut back) = ([0; MAX_MESSAGE], [0; MAX_MESSAGE]);
//!
//! // The front-end asks ...
//! let asked = frontend.request(FrontendRequest::<Handle>::GetFeatures, Delivery::Acknowledged, &mut out)?;
//!
//! // ... the transport carries bytes in pieces of any size ...
//! let mut assembler = Assembler::<Handle>::new(Channel::Frontend);
//! for byte in asked.bytes {
//!     assembler.read_buf()[0] = *byte;
//!     assembler.filled(1, [])?;
//! }
//!
//! // ... and the back-end answers, from what it knows itself or after asking the device.
//! let frame = assembler.take().expect("the message is whole");
//! let Incoming::Request(request) = backend.handle_request(frame)? else { unreachable!() };
//! let reply = backend.own_answer().unwrap_or(FrontendReply::Done);
//! let Answered::Send(answer) = backend.answer::<Handle>(reply, &mut back)? else { unreachable!() };
//!
//! // The answer travels back, here in one piece.
//! let frame = vhost_core::Frame {
//!     header: vhost_core::wire::header::Header::reply_to(1, 8),
//!     payload: &answer.bytes[12..],
//!     handles: answer.handles,
//! };
//! let FrontendReply::GetFeatures(offered) = frontend.handle_reply(frame)? else { unreachable!() };
//! assert_eq!(offered, features | VirtioFeatures::PROTOCOL_FEATURES);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What this crate does not do: move bytes (that is your transport, or `vhost-std`), map memory,
//! process rings, keep time. Deadlines belong to the transport.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::alloc_instead_of_core,
    clippy::cast_possible_truncation
)]

#[cfg(doctest)]
extern crate std;

mod address;
mod assembler;
mod backend;
mod channel;
mod dialect;
mod difference;
mod dirty_log;
mod error;
mod frontend;
mod gpu;
mod guest_memory;
mod inflight;
mod iotlb;
mod memory_map;
mod projection;
mod read_ahead;
mod rejection;
mod rules;
mod session;
mod tolerance;
mod transport;
pub mod uapi;
mod vhost_backend;
mod virtqueue;
mod vring;
pub mod wire;

pub use address::{GuestAddress, Iova, RingAddress, UserAddress};
pub use assembler::{Assembler, Frame, Handles, MAX_HANDLES, MAX_MESSAGE, MAX_PAYLOAD, Transmit};
pub use backend::{Backend, BackendConfig, Incoming};
pub use channel::Answered;
pub use dialect::{Dialect, DialectViolation, MapChange};
pub use dirty_log::{DirtyLog, LOG_PAGE, LogFault};
pub use error::{ApiMisuse, DecodeError, Fault, PeerMisbehaved};
pub use frontend::{Delivery, Frontend, FrontendConfig};
pub use gpu::{GpuBackend, GpuBackendConfig, GpuFrontend, GpuFrontendConfig, GpuViolation};
pub use guest_memory::{
    Access, AddressSpace, CellMemory, CellRange, GuestMemory, GuestRange, Load, Miss, Store, Unmapped,
};
#[cfg(target_has_atomic = "16")]
pub use guest_memory::{WordMemory, WordRange};
pub use inflight::Resubmission;
pub use iotlb::{Iotlb, IotlbEntry, IotlbMemory, IotlbMisuse};
pub use memory_map::{MemoryFault, MemoryMap, RegionExtent};
pub use read_ahead::ReadAhead;
pub use rejection::{Rejection, Verdict};
pub use rules::Violation;
pub use session::{Negotiated, Postcopy, Session};
pub use tolerance::{
    BrokenDependency, ExtraHandles, LogReply, SilentRefusal, Tolerance, UnknownRequest, UnofferedFeatures,
};
pub use transport::{ReceiveError, Transport, receive, receive_ahead};
pub use vhost_backend::{LogArea, Logging, VhostBackend, VringAddresses, VringSetting, VringSetup};
pub use virtqueue::{
    AddError, Buffer, Chain, ChainBuffer, ChainFault, ChainFaultKind, DeviceQueue, DeviceQueueState, DeviceRing,
    DeviceState, DriverFault, DriverQueue, DriverQueueState, DriverRing, DriverState, Layout, MAX_RING_SIZE, NoRoom,
    PackedDevice, PackedDeviceState, PackedDriver, PackedDriverState, PackedLayout, PartFault, PopError, PushError,
    RingAddresses, RingFault, RingLayout, RingPart, RingParts, RingUser, SplitDevice, SplitDeviceState, SplitDriver,
    SplitDriverState, SplitLayout, Used, UsedLog,
};
pub use vring::Vring;
pub use wire::{
    backend_request::{BackendCode, BackendReply, BackendRequest},
    feature::{ProtocolFeatures, VirtioFeatures},
    frontend_request::{FrontendCode, FrontendReply, FrontendRequest},
    fs_cache::{CacheAccess, CacheEntries, CacheEntry},
    gpu::{GpuCode, GpuFeatures, GpuReply, GpuRequest},
    memory::{MemoryRegion, MemoryTable, Xen},
    payload::{Form, ShmemBit, TrailingBytes},
    row::{Channel, MessageName},
};
