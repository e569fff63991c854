//! A payload under construction, field after field.

/// A payload under construction: each call appends one field in native byte order.
#[derive(Clone, Debug, Default)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// No field yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one byte.
    pub fn u8(self, value: u8) -> Self {
        self.raw(&[value])
    }

    /// Appends a 16-bit field.
    pub fn u16(self, value: u16) -> Self {
        self.raw(&value.to_ne_bytes())
    }

    /// Appends a 32-bit field.
    pub fn u32(self, value: u32) -> Self {
        self.raw(&value.to_ne_bytes())
    }

    /// Appends a 64-bit field.
    pub fn u64(self, value: u64) -> Self {
        self.raw(&value.to_ne_bytes())
    }

    /// Appends `count` bytes of padding.
    pub fn padding(self, count: usize) -> Self {
        self.raw(&vec![0; count])
    }

    /// Appends bytes that have no byte order.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The bytes so far.
    pub fn done(self) -> Vec<u8> {
        self.0
    }
}

/// The bytes of a little-endian number, in this machine's order.
pub(crate) fn native(little_endian: &[u8]) -> Vec<u8> {
    let mut bytes = little_endian.to_vec();
    if cfg!(target_endian = "big") {
        bytes.reverse();
    }
    bytes
}
