//! Bytes: where the record of requests in flight lies.

use zerocopy::{FromBytes, IntoBytes};

use super::{
    payload::{Body, Form, Payload, PayloadKind, SizeRule},
    scalar::layout,
    writer::{Content, Writer},
};

/// 24 bytes as every C peer sends them, or 20 as the specification counts them.
pub(crate) const SIZE: SizeRule = SizeRule::Either(Inflight::SIZE + PADDING.len(), Inflight::SIZE);

/// C compilers round the struct up to eight bytes, and DPDK refuses it without.
const PADDING: [u8; 4] = [0; 4];

layout! {
    /// The extent and the shape of the inflight record (`GET_INFLIGHT_FD`, `SET_INFLIGHT_FD`).
    pub struct Inflight (20 bytes) {
        /// Bytes of the record; zero in a request, and in a reply that has nothing to track.
        field mmap_size: u64,
        /// Offset of its first byte in the file.
        field mmap_offset: u64,
        /// Number of rings it covers.
        field num_queues: u16,
        /// Descriptors in each ring.
        field queue_size: u16,
    }
}

impl<'b> Payload<'b> for Inflight {
    const KIND: PayloadKind = PayloadKind::Inflight;

    #[inline]
    fn decode(body: Body<'b>, _form: Form) -> Option<Self> {
        let padded = Self::SIZE.saturating_add(PADDING.len());
        match Self::ref_from_prefix(body.bytes) {
            Ok((inflight, [])) => Some(*inflight),
            Ok((inflight, _)) if body.bytes.len() == padded => Some(*inflight),
            _ => None,
        }
    }

    #[inline]
    fn content(&self, _form: Form) -> Content<'_> {
        Content::Inflight(self)
    }
}

impl Inflight {
    pub(super) fn write(&self, out: &mut Writer<'_>) {
        out.put(self.as_bytes());
        out.put(&PADDING);
    }
}
