//! Bytes: why they do not make a message, as long as nobody asks for it in words.
//!
//! Decoding passes this on in registers; a whole [`DecodeError`] is made of it once, where it leaves.

use zerocopy::FromBytes;

use super::{
    config, fs_cache,
    gpu::{
        Area, CursorImage, display,
        image::{FRONT, has_whole_image},
    },
    log, memory,
    payload::{Field, Form, PayloadFault, PayloadKind, Role, SizeRule, TrailingBytes},
    row::{HandleRule, MessageName, Refusal, ReplyRule, Row},
    shared::{self, Uuid},
};
use crate::{assembler::Frame, error::DecodeError};

/// Why a part of a message could not be made of its bytes and descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// The payload has another size than it should have, or a field holds a value that it cannot have.
    Payload,
    /// The image has another size than its width and height say.
    Image,
    /// Too few or too many descriptors.
    Handles,
    /// There is no such message.
    Unknown,
}

/// What a message was to be, and what came.
#[derive(Debug)]
pub(crate) struct Found<'b> {
    pub(crate) message: MessageName,
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

    /// Refuses an image of another size than the request says.
    pub(crate) fn check_image(&self, kind: PayloadKind) -> Result<(), Misfit> {
        let following = following(self.payload, self.announced);
        let fits = kind.before_image().is_none() || has_whole_image(kind, self.payload, following);
        if fits { Ok(()) } else { Err(Misfit::Image) }
    }
}

impl<H> Frame<'_, H> {
    /// Takes the bytes off that come after a payload of this kind and are skipped.
    ///
    /// Refuses another number of descriptors than this rule says, and another size than the kind has, if it
    /// can have one only.
    pub(crate) fn fit(&mut self, kind: PayloadKind, rule: HandleRule, form: Form) -> Result<(), Misfit> {
        let found = self.handles.len();
        if rule != HandleRule::None || found != 0 {
            let expected = rule.count(self.payload, form);
            if found < expected.least || found > expected.most {
                return Err(Misfit::Handles);
            }
        }
        let (SizeRule::Exactly(size), None) = (kind.size(), kind.before_image()) else { return Ok(()) };
        // After a UUID none are skipped: the length tells one from what other dialects send under the same id.
        if form.trailing == TrailingBytes::Ignore && kind != PayloadKind::Uuid {
            self.payload = self.payload.get(..size).unwrap_or(self.payload);
        }
        // A reply whose content means nothing may have any (see `LogBase`).
        let is_free = size == 0 && form.role == Role::Reply;
        if self.payload.len() == size || is_free { Ok(()) } else { Err(Misfit::Payload) }
    }

    /// The number of an acknowledgement: zero for success.
    pub(crate) fn number(&self) -> Result<u64, Misfit> {
        match <[u8; 8]>::try_from(self.payload) {
            _ if !self.handles.is_empty() => Err(Misfit::Handles),
            Ok(bytes) => Ok(u64::from_ne_bytes(bytes)),
            Err(_) => Err(Misfit::Payload),
        }
    }

    /// Whether a reply to a request of this row is missing what it is for.
    pub(crate) fn is_empty_refusal(&self, row: &Row) -> bool {
        let nothing_expected = row.reply_payload == PayloadKind::Empty;
        row.reply == ReplyRule::Own(Refusal::Empty)
            && self.handles.is_empty()
            && (nothing_expected || self.payload.is_empty())
    }
}

impl Misfit {
    /// The same in words, of a message whose payload is of this kind and whose descriptors follow this rule.
    #[cold]
    #[inline(never)]
    pub(crate) fn of(&self, found: &Found<'_>, kind: PayloadKind, rule: HandleRule) -> DecodeError {
        let Found { message, payload, announced, handles, form } = *found;
        let fault = match *self {
            Self::Payload => kind.fault(payload, form),
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

impl PayloadKind {
    /// Why these bytes are no payload of this kind.
    fn fault(self, bytes: &[u8], form: Form) -> PayloadFault {
        if let Some((field, found)) = self.wrong_field(bytes, form) {
            return PayloadFault::Field { field, found: u64::from(found) };
        }
        let expected = self.size_in(bytes, form).map_or(self.size(), SizeRule::Exactly);
        PayloadFault::Size { expected, found: bytes.len() }
    }

    /// The field that holds what it cannot, and what that is.
    #[inline(never)]
    fn wrong_field(self, bytes: &[u8], form: Form) -> Option<(Field, u32)> {
        match self {
            Self::MemoryTable => Some((Field::RegionCount, memory::wrong_count(bytes)?)),
            Self::CacheEntries => Some((Field::MappingCount, fs_cache::wrong_count(bytes, form.dialect)?)),
            Self::Config => Some((Field::ConfigSize, config::wrong_size(bytes)?)),
            Self::SharedMemoryConfig => Some((Field::RegionSizes, shared::wrong_size(bytes)?)),
            Self::Edid => Some((Field::EdidSize, display::wrong_size(bytes)?)),
            _ => None,
        }
    }

    /// The size that follows from the session or from the payload itself, if one does.
    #[inline(never)]
    fn size_in(self, bytes: &[u8], form: Form) -> Option<usize> {
        match self {
            Self::MemoryTable => memory::size_of_table(bytes, form),
            Self::SingleRegion => Some(memory::single_size(form)),
            Self::LogBase => log::size_in(bytes, form),
            Self::CacheEntries => Some(fs_cache::size(bytes, form.dialect)),
            Self::OptionalUuid => Some(Uuid::SIZE),
            Self::CursorImage | Self::AreaImage => Some(FRONT),
            _ => None,
        }
    }
}

/// How many bytes follow those that are here: an image. `announced` is the payload's size according to the header.
pub(crate) fn following(payload: &[u8], announced: u32) -> u32 {
    announced.saturating_sub(u32::try_from(payload.len()).unwrap_or(u32::MAX))
}
