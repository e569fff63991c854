//! Bytes: where the dirty log lies.

use zerocopy::IntoBytes;

use super::{
    feature::ProtocolFeatures,
    misfit::Misfit,
    payload::{Form, Payload, PayloadKind, Role, TrailingBytes, Writer, fixed},
    scalar::{Scalar, layout},
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

    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit> {
        let shared = form.protocol.contains(ProtocolFeatures::LOG_SHMFD);
        match (bytes.len(), form.role) {
            (0, Role::Reply) => Ok(Self::Empty),
            // The front-end takes every reply that a real back-end sends (8, 0 or 16 bytes).
            (8, Role::Reply) => u64::decode(bytes, form).map(Self::Number),
            (_, Role::Request) if !shared => {
                fixed::<<u64 as Scalar>::Wire>(bytes, form).map(|number| Self::Number(number.get()))
            }
            _ => fixed::<Log>(bytes, form).map(|log| Self::Shared(*log)).map_err(|misfit| match form.role {
                Role::Reply if form.trailing == TrailingBytes::Refuse => Misfit::Size,
                _ => misfit,
            }),
        }
    }

    fn encode(&self, out: &mut Writer<'_>, form: Form) {
        match self {
            Self::Shared(log) => out.put(log.as_bytes()),
            Self::Number(number) => number.encode(out, form),
            Self::Empty => {}
        }
    }
}
