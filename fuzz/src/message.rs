//! A message out of an input: its id, its payload and its descriptors.

use vhost_core::{Dialect, Frame, Handles, MAX_HANDLES, wire::header::Header};

use crate::{reader::Reader, token::Token};

/// Every dialect.
pub const DIALECTS: [Dialect; 8] = [
    Dialect::Standard,
    Dialect::FsA1,
    Dialect::FsA2,
    Dialect::FsA2Gen,
    Dialect::FsB,
    Dialect::Private1000,
    Dialect::Crosvm1002,
    Dialect::Auto,
];

/// The dialect that a byte stands for.
pub fn dialect(byte: u8) -> Dialect {
    DIALECTS[usize::from(byte) % DIALECTS.len()]
}

/// What a message consists of, before it is known who says it.
pub struct Message<'b> {
    /// The request's id.
    pub id: u32,
    /// The bytes behind the header.
    pub payload: &'b [u8],
    /// How many descriptors come with it.
    pub handles: usize,
}

impl<'b> Message<'b> {
    /// The next one; the upper half of `operation` counts descriptors.
    pub fn read(reader: &mut Reader<'b>, operation: u8) -> Option<Self> {
        let (id, payload) = (reader.id()?, reader.slice()?);
        Some(Self { id, payload, handles: usize::from(operation >> 4) })
    }

    fn frame(&self, header: Header) -> Frame<'b, Token> {
        Frame { header, payload: self.payload, handles: handles(self.handles) }
    }

    /// As a request.
    pub fn request(&self, need_reply: bool) -> Frame<'b, Token> {
        self.frame(Header::request_of(self.id, need_reply, self.size()))
    }

    /// As a reply.
    pub fn reply(&self) -> Frame<'b, Token> {
        self.frame(Header::reply_to(self.id, self.size()))
    }

    /// With these flags.
    pub fn with_flags(&self, flags: u32) -> Frame<'b, Token> {
        self.frame(Header::new(self.id, flags, self.size()))
    }

    fn size(&self) -> u32 {
        u32::try_from(self.payload.len()).expect("inputs are short")
    }
}

/// New descriptors, as many as a message can have at most.
pub fn handles(count: usize) -> Handles<Token> {
    (0..count.min(MAX_HANDLES)).map(|_| Token::new()).collect()
}

/// Checks that these bytes are one whole answer to that request.
pub fn assert_answers(bytes: &[u8], id: u32, reply_flag: u32) {
    let (header, payload) = Header::split_from(bytes).expect("a message has a header");
    assert_eq!(header.request(), id, "an answer to another request");
    assert_eq!(header.flags() & reply_flag, reply_flag, "an answer that is no reply");
    assert_eq!(usize::try_from(header.size()), Ok(payload.len()), "another size than was announced");
}
