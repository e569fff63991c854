//! Bytes: crypto sessions.

use zerocopy::IntoBytes;

use super::{
    payload::{BufferTooSmall, Form, Payload, PayloadFault, PayloadKind, Writer, fixed},
    scalar::layout,
};

layout! {
    /// A session to create, and in the reply its id (`CREATE_CRYPTO_SESSION`).
    pub struct CryptoSession (1072 bytes) {
        /// Virtio crypto operation code (QEMU sends 64 bits; DPDK's 32 and padding are the same
        /// bytes on little-endian machines).
        field op_code: u64,
        /// Parameters and keys, laid out as the operation code says.
        field parameters: [u8; 1056],
        /// In the reply: the session's id; negative for an error.
        field session_id: u64,
    }
}

impl CryptoSession {
    /// The id that tells an error.
    pub const FAILED: u64 = u64::MAX;
}

impl<'b> Payload<'b> for &'b CryptoSession {
    const KIND: PayloadKind = PayloadKind::CryptoSession;

    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, PayloadFault> {
        fixed(bytes, form)
    }

    fn encode(&self, out: &mut Writer<'_>, _form: Form) -> Result<(), BufferTooSmall> {
        out.put(self.as_bytes())
    }
}
