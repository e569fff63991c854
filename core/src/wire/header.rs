//! Bytes: the twelve bytes in front of every message.

use zerocopy::FromBytes;

use crate::error::DecodeError;

use super::{
    row::{Channel, MessageName},
    scalar::layout,
};

layout! {
    /// The header of a message: which request, flags, and how many payload bytes follow.
    ///
    /// Source: vhost-user, section "Header".
    pub struct Header (12 bytes) {
        /// The request's id. The two directions have separate id spaces.
        field request: u32,
        /// Version and flag bits, see [`Header::version`], [`Header::is_reply`] and
        /// [`Header::needs_reply`]. Other bits are reserved and ignored.
        field flags: u32,
        /// Payload bytes after the header.
        field size: u32,
    }
}

/// The only protocol version there is (flag bits 0 and 1).
pub const VERSION: u32 = 1;
/// Flag bit 2: this message answers the other side's request of the same id.
pub const REPLY: u32 = 1 << 2;
/// Flag bit 3: the sender wants an acknowledgement; valid with `REPLY_ACK` negotiated.
pub const NEED_REPLY: u32 = 1 << 3;

impl Header {
    /// The header of a request.
    #[must_use]
    pub fn request_of(request: u32, need_reply: bool, size: u32) -> Self {
        let flags = if need_reply { VERSION | NEED_REPLY } else { VERSION };
        Self::new(request, flags, size)
    }

    /// The header of a reply: exactly version and reply bit, because QEMU and DPDK refuse any
    /// other flag in a reply.
    #[must_use]
    pub fn reply_to(request: u32, size: u32) -> Self {
        Self::new(request, VERSION | REPLY, size)
    }

    /// The header of a request on its own channel.
    #[inline]
    pub(crate) fn opening(message: MessageName, need_reply: bool) -> Self {
        match message.channel {
            Channel::Frontend | Channel::Backend => Self::request_of(message.id, need_reply, 0),
            Channel::Gpu => Self::new(message.id, 0, 0),
        }
    }

    /// The header of a reply on its own channel.
    #[inline]
    pub(crate) fn answering(message: MessageName) -> Self {
        match message.channel {
            Channel::Frontend | Channel::Backend => Self::reply_to(message.id, 0),
            Channel::Gpu => Self::new(message.id, REPLY, 0),
        }
    }

    /// The same with so many payload bytes.
    #[inline]
    pub(crate) fn with_size(self, size: u32) -> Self {
        Self::new(self.request(), self.flags(), size)
    }

    /// What is wrong with the flags, or if nothing is, this.
    #[cold]
    #[inline(never)]
    pub(crate) fn fault_or(&self, channel: Channel, other: DecodeError) -> DecodeError {
        let message = MessageName { channel, id: self.request() };
        match channel {
            _ if self.is_known(channel) => other,
            Channel::Frontend | Channel::Backend => DecodeError::Version { message, found: self.version() },
            Channel::Gpu => {
                DecodeError::Flags { message, expected: if self.is_reply() { REPLY } else { 0 }, found: self.flags() }
            }
        }
    }

    /// Whether the flags are as the channel's protocol wants them, as far as it knows any.
    ///
    /// The GPU protocol has no version: its requests have no flag, but the version of the other
    /// one is let pass (QEMU does too); its replies have the reply flag and no other.
    #[inline]
    pub(crate) fn is_known(&self, channel: Channel) -> bool {
        match channel {
            Channel::Frontend | Channel::Backend => self.version() == VERSION,
            Channel::Gpu if self.is_reply() => self.flags() == REPLY,
            Channel::Gpu => self.version() <= VERSION,
        }
    }

    /// Whether the flags are those of a request, as far as the channel's protocol knows any.
    #[inline]
    pub(crate) fn is_request(&self) -> bool {
        self.flags() & (3 | REPLY) == VERSION
    }

    /// The protocol version, 0 to 3; only [`VERSION`] exists.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.flags() & 3
    }

    /// Whether this is a reply.
    #[must_use]
    pub fn is_reply(&self) -> bool {
        self.flags() & REPLY != 0
    }

    /// Whether the sender asks for an acknowledgement.
    #[must_use]
    pub fn needs_reply(&self) -> bool {
        self.flags() & NEED_REPLY != 0
    }

    /// The header at the front of a message, and the bytes after it; `None` if it is not whole.
    #[must_use]
    #[inline]
    pub fn split_from(bytes: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(bytes).ok()
    }

    /// The header as it goes over the wire.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        zerocopy::transmute!(*self)
    }

    #[inline]
    pub(crate) fn write_to(&self, out: &mut [u8]) {
        // The caller has checked that there is room.
        if let Ok((front, _)) = Self::mut_from_prefix(out) {
            *front = *self;
        }
    }
}
