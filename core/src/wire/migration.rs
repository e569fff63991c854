//! Bytes: transfer of a device's internal state.

use super::scalar::layout;

layout! {
    /// Which way the state goes and in which phase (`SET_DEVICE_STATE_FD`).
    pub struct Transfer (8 bytes) {
        /// See [`Transfer::SAVE`] and [`Transfer::LOAD`].
        field direction: u32,
        /// See [`Transfer::STOPPED`]; there is no other phase yet.
        field phase: u32,
    }
}

impl Transfer {
    /// The back-end writes its state into the descriptor.
    pub const SAVE: u32 = 0;
    /// The back-end reads its state from the descriptor.
    pub const LOAD: u32 = 1;
    /// The device is stopped: all rings are.
    pub const STOPPED: u32 = 0;
    /// In the reply, bits 0 to 7: an error, zero for none.
    pub const ERROR_MASK: u64 = 0xff;
    /// In the reply, bit 8: no descriptor comes back, use the one that was sent.
    pub const NO_DESCRIPTOR: u64 = 1 << 8;
}
