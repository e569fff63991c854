//! Operations out of bytes: numbers and slices until nothing is left.

/// What is left of an input.
pub struct Reader<'b>(pub &'b [u8]);

/// The length byte behind which two more bytes say the length.
pub const LONG: u8 = 0xff;
/// Id bytes from here on stand for 1000 and the ids behind it, which older dialects have.
pub const FAR_ID: u8 = 0xf0;

impl<'b> Reader<'b> {
    /// The next byte; `None` at the end.
    pub fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number of eight bytes; those that are missing are zero.
    pub fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let taken = self.take(8);
        bytes[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(bytes)
    }

    /// Up to `count` bytes.
    pub fn take(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length and up to so many bytes.
    pub fn slice(&mut self) -> Option<&'b [u8]> {
        let length = match self.byte()? {
            LONG => usize::from(u16::from_le_bytes([self.byte()?, self.byte()?])),
            short => usize::from(short),
        };
        Some(self.take(length))
    }

    /// A message's id.
    pub fn id(&mut self) -> Option<u32> {
        let id = u32::from(self.byte()?);
        let far = u32::from(FAR_ID);
        Some(if id < far { id } else { id - far + 1000 })
    }
}
