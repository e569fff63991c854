//! Where peers differ: what is let pass and what is refused.

use crate::{
    dialect::Dialect,
    wire::{
        feature::{ProtocolFeatures, VirtioFeatures},
        log::{Log, LogBase},
        payload::{Form, Role, ShmemBit, TrailingBytes},
    },
};

/// How a machine treats what real peers do although the specification does not foresee it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tolerance {
    /// Bytes after a payload of fixed size. Default: refused.
    pub trailing_bytes: TrailingBytes,
    /// Descriptors that come with a message that has none (a memory table without regions is
    /// not one). Default: refused.
    pub extra_handles: ExtraHandles,
    /// Virtio features acknowledged but not offered. Default: refused.
    pub unoffered_features: UnofferedFeatures,
    /// Features that may be acknowledged without being offered, whatever
    /// [`Self::unoffered_features`] says. Default: `RING_RESET`, which QEMU's vhost-user-gpu
    /// passes through; the front-end sends none. They are masked out.
    pub always_accepted: VirtioFeatures,
    /// Protocol features without those they need. `INBAND_NOTIFICATIONS` without its needs is
    /// always refused. Default: the front-end refuses to send them, the back-end accepts them.
    pub broken_dependency: BrokenDependency,
    /// A refusal that cannot be told because no acknowledgement was asked for. Default: the
    /// session goes on, unless features or memory were to change.
    pub silent_refusal: SilentRefusal,
    /// A request that nobody knows, without a way to tell so. Default: the session ends, because
    /// the peer may wait for a reply for ever.
    pub unknown_request: UnknownRequest,
    /// The protocol feature bit that means `SHMEM` to the peer. Default: 22.
    pub shmem_bit: ShmemBit,
    /// The answer to `SET_LOG_BASE`. Default: what was sent, 16 bytes, which every front-end takes.
    pub log_reply: LogReply,
}

impl Tolerance {
    /// The defaults.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            trailing_bytes: TrailingBytes::Refuse,
            extra_handles: ExtraHandles::Refuse,
            unoffered_features: UnofferedFeatures::Refuse,
            always_accepted: VirtioFeatures::RING_RESET,
            broken_dependency: BrokenDependency::Accept,
            silent_refusal: SilentRefusal::CloseIfDisagreeing,
            unknown_request: UnknownRequest::Close,
            shmem_bit: ShmemBit::Bit22,
            log_reply: LogReply::Echo,
        }
    }

    /// How messages are read and written.
    pub(crate) const fn form(&self, role: Role, protocol: ProtocolFeatures, dialect: Dialect) -> Form {
        Form { protocol, trailing: self.trailing_bytes, shmem_bit: self.shmem_bit, dialect, role }
    }
}

impl Default for Tolerance {
    fn default() -> Self {
        Self::new()
    }
}

/// See [`Tolerance::extra_handles`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ExtraHandles {
    /// The request is refused.
    #[default]
    Refuse,
    /// They are closed and the request goes on.
    Close,
}

/// See [`Tolerance::unoffered_features`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnofferedFeatures {
    /// The request is refused.
    #[default]
    Refuse,
    /// They are masked out.
    Mask,
}

/// See [`Tolerance::broken_dependency`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BrokenDependency {
    /// The request is refused.
    #[default]
    Refuse,
    /// The features are taken; what they gate needs the others anyway.
    Accept,
}

/// See [`Tolerance::silent_refusal`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SilentRefusal {
    /// The session goes on, unless the two sides would now disagree about features or memory,
    /// without which neither understands the other's rings.
    #[default]
    CloseIfDisagreeing,
    /// The session always ends.
    Close,
    /// The session always goes on.
    Continue,
}

/// See [`Tolerance::unknown_request`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnknownRequest {
    /// The session ends.
    #[default]
    Close,
    /// The session goes on.
    Ignore,
}

/// See [`Tolerance::log_reply`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogReply {
    /// The 16 bytes that were sent (rust-vmm insists on them).
    #[default]
    Echo,
    /// A zero of 8 bytes, as libvhost-user's size.
    Zero,
    /// Nothing, as DPDK.
    Empty,
}

impl LogReply {
    /// What answers the request for this log.
    #[inline(never)]
    pub(crate) fn to(self, log: &Log) -> LogBase {
        match self {
            Self::Echo => LogBase::Shared(*log),
            Self::Zero => LogBase::Number(0),
            Self::Empty => LogBase::Empty,
        }
    }
}
