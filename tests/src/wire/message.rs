//! Headers and messages, put together and cut apart.

use super::{Bytes, Fields, Layout};

/// Bytes of a header.
pub const HEADER_SIZE: usize = 12;

/// The header of a message in native byte order; `size` counts the payload alone.
pub fn header(request: u32, flags: u32, size: u32) -> [u8; HEADER_SIZE] {
    let mut bytes = [0; HEADER_SIZE];
    bytes[0..4].copy_from_slice(&request.to_ne_bytes());
    bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&size.to_ne_bytes());
    bytes
}

/// A header as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The request's id; a reply repeats it.
    pub request: u32,
    /// Bits 0-1 version, bit 2 reply, bit 3 need_reply, the rest reserved.
    pub flags: u32,
    /// Payload bytes that follow.
    pub size: u32,
}

impl Header {
    /// Cuts a header apart.
    pub fn read(bytes: [u8; HEADER_SIZE]) -> Self {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { request: word(0), flags: word(4), size: word(8) }
    }

    /// The two version bits; 1 is the only version there is.
    pub fn version(&self) -> u32 {
        self.flags & 0x3
    }

    /// Whether this is a reply.
    pub fn is_reply(&self) -> bool {
        self.flags & 0x4 != 0
    }

    /// Whether the sender wants an acknowledgement.
    pub fn needs_reply(&self) -> bool {
        self.flags & 0x8 != 0
    }
}

/// A message as it came, without its descriptors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The 12 bytes before the payload.
    pub header: Header,
    /// As many bytes as the header announces.
    pub payload: Vec<u8>,
}

impl Message {
    /// Reads the first message of `bytes`; also how many bytes it took. `None` as long as bytes are missing.
    pub fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let header = Header::read(*bytes.first_chunk()?);
        let end = HEADER_SIZE + usize::try_from(header.size).unwrap();
        let payload = bytes.get(HEADER_SIZE..end)?.to_vec();
        Some((Self { header, payload }, end))
    }

    /// The payload as one 64-bit number.
    pub fn number(&self) -> u64 {
        self.fields(Layout::U64).number("value")
    }

    /// The payload's fields; the test fails when the payload does not have this layout.
    pub fn fields(&self, layout: Layout) -> Fields {
        layout.decode(&self.payload).unwrap_or_else(|fault| panic!("{:?}: {fault}", self.header))
    }

    /// The message's bytes again.
    pub fn bytes(&self) -> Vec<u8> {
        let Header { request, flags, size } = self.header;
        Bytes::new().raw(&header(request, flags, size)).raw(&self.payload).done()
    }
}

/// All messages of `bytes`; the test fails when bytes are left over.
pub fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (message, length) = Message::read(bytes).unwrap_or_else(|| panic!("{} bytes are no message", bytes.len()));
        all.push(message);
        bytes = &bytes[length..];
    }
    all
}
