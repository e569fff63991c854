//! Bytes: why they do not make a message, as long as nobody asks for it in words.
//!
//! Decoding passes this on in registers; a whole [`DecodeError`] is made of it once, where it leaves.

use zerocopy::FromBytes;

use super::{
    gpu::{Area, CursorImage},
    payload::{Form, PayloadFault, PayloadKind, SizeRule},
    row::{HandleRule, MessageName, Row},
};
use crate::{
    assembler::Frame,
    error::{DecodeError, Fault},
};

/// Why a part of a message could not be made of its bytes and descriptors.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Misfit {
    /// The payload has none of the sizes that its kind can have.
    Size,
    /// The payload has not this size, in bytes, which follows from the session or from the payload itself.
    Exactly(usize),
    /// A field holds a value that it cannot have.
    Field(&'static FieldRule, u32),
    /// The image has another size than its width and height say.
    Image,
    /// Too few or too many descriptors.
    Handles,
    /// There is no such message.
    Unknown,
}

/// What a field may hold.
#[derive(Debug)]
pub(crate) struct FieldRule {
    /// The field.
    pub(crate) name: &'static str,
    /// What it may hold, in words.
    pub(crate) expected: &'static str,
}

/// What a message was to be, and what came.
#[derive(Debug)]
pub(crate) struct Found<'b> {
    message: MessageName,
    payload: &'b [u8],
    announced: u32,
    handles: usize,
    form: Form,
}

impl<'b> Found<'b> {
    pub(crate) fn new<H>(message: MessageName, frame: &Frame<'b, H>, form: Form) -> Self {
        let Frame { header, payload, handles } = frame;
        Self { message, payload, announced: header.size(), handles: handles.len(), form }
    }
}

impl Misfit {
    /// The same as a fault of the reply to a request of this row.
    #[cold]
    #[inline(never)]
    pub(crate) fn of_reply(self, found: &Found<'_>, row: &Row) -> Fault {
        self.of(found, row.reply_payload, row.reply_handles).into()
    }

    /// The same in words, of a message whose payload is of this kind and whose descriptors follow this rule.
    #[cold]
    #[inline(never)]
    pub(crate) fn of(self, found: &Found<'_>, kind: PayloadKind, rule: HandleRule) -> DecodeError {
        let Found { message, payload, announced, handles, form } = *found;
        let fault = match self {
            Self::Size => PayloadFault::Size { expected: kind.size(), found: payload.len() },
            Self::Exactly(size) => PayloadFault::Size { expected: SizeRule::Exactly(size), found: payload.len() },
            Self::Field(FieldRule { name, expected }, found) => {
                PayloadFault::Field { name, expected, found: u64::from(found) }
            }
            Self::Image => {
                let (width, height) = match (kind, Area::ref_from_prefix(payload)) {
                    (PayloadKind::AreaImage, Ok((area, _))) => (area.width(), area.height()),
                    _ => (CursorImage::SIDE, CursorImage::SIDE),
                };
                PayloadFault::Image { width, height, found: following(payload, announced) }
            }
            Self::Handles => {
                let expected = rule.count(payload, form);
                return DecodeError::HandleCount { message, expected, found: handles };
            }
            Self::Unknown => return DecodeError::UnknownRequest { message },
        };
        DecodeError::Payload { message, fault }
    }
}

/// How many bytes follow those that are here: an image. `announced` is the payload's size according to the header.
pub(crate) fn following(payload: &[u8], announced: u32) -> u32 {
    announced.saturating_sub(u32::try_from(payload.len()).unwrap_or(u32::MAX))
}
