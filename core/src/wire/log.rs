//! Bytes: where the dirty log lies.

use zerocopy::{FromBytes, IntoBytes};

use super::{
    feature::ProtocolFeatures,
    payload::{Body, Form, Payload, PayloadKind, Role, TrailingBytes, is_of_size},
    scalar::layout,
    writer::Content,
};

layout! {
    /// The extent of the dirty log in the descriptor that comes with it.
    pub struct Log (16 bytes) {
        /// Bytes of the log; one bit stands for 4096 bytes of guest memory.
        field size: u64,
        /// Offset of its first byte in the file.
        field offset: u64,
    }
}

/// The payload of `SET_LOG_BASE` and of its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogBase {
    /// With `LOG_SHMFD`: a part of a shared file.
    Shared(Log),
    /// Without: an address (useless between processes). In replies: a number without meaning,
    /// as libvhost-user sends.
    Number(u64),
    /// In replies only: nothing, as DPDK sends.
    Empty,
}

impl<'b> Payload<'b> for LogBase {
    const KIND: PayloadKind = PayloadKind::LogBase;

    #[inline]
    fn decode(body: Body<'b>, form: Form) -> Option<Self> {
        Self::read(body.bytes, form)
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        match self {
            Self::Shared(log) => Content::Bytes(log.as_bytes()),
            Self::Number(number) => Content::Number(*number),
            Self::Empty => Content::Nothing,
        }
    }
}

impl LogBase {
    #[inline(never)]
    fn read(bytes: &[u8], form: Form) -> Option<Self> {
        if form.role == Role::Reply && bytes.is_empty() {
            return Some(Self::Empty);
        }
        if !is_of_size(bytes, size(bytes, form), form) {
            return None;
        }
        match Log::ref_from_prefix(bytes) {
            Ok((log, _)) if size(bytes, form) == Log::SIZE => Some(Self::Shared(*log)),
            _ => Some(Self::Number(Body::new(bytes).number)),
        }
    }
}

/// How many bytes it should be.
fn size(bytes: &[u8], form: Form) -> usize {
    let is_number = match form.role {
        Role::Request => !form.protocol.contains(ProtocolFeatures::LOG_SHMFD),
        // The front-end takes every reply that a real back-end sends (8, 0 or 16 bytes).
        Role::Reply => bytes.len() == size_of::<u64>(),
    };
    if is_number { size_of::<u64>() } else { Log::SIZE }
}

/// How many bytes it should be, if it cannot be more or fewer.
pub(super) fn size_in(bytes: &[u8], form: Form) -> Option<usize> {
    match (form.role, form.trailing) {
        (Role::Reply, TrailingBytes::Refuse) => None,
        _ => Some(size(bytes, form)),
    }
}
