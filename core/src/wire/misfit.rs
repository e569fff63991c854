//! Bytes: why they do not make a message, as long as nobody asks for it in words.
//!
//! Decoding only says that they do not; why is found out once, where a whole [`DecodeError`] leaves.

use zerocopy::FromBytes;

use super::{
    config, fs_cache,
    gpu::{
        Area, CursorImage, display,
        image::{FRONT, has_whole_image},
    },
    log, memory,
    payload::{Field, Form, PayloadFault, PayloadKind, Role, SizeRule, TrailingBytes},
    row::{HandleCount, HandleRule, MessageName, Refusal, ReplyRule, Row},
    shared::{self, Uuid},
};
use crate::{assembler::Frame, error::DecodeError};

/// What a message was to be, and what came.
#[derive(Debug)]
pub(crate) struct Found<'b> {
    pub(crate) message: MessageName,
    payload: &'b [u8],
    announced: u32,
    handles: usize,
    pub(crate) form: Form,
}

impl<H> Frame<'_, H> {
    /// Takes the bytes off that come after a payload of this kind and are skipped, and says whether the
    /// number of descriptors is one that this rule says, and the size the kind's, if it can have one only. If not,
    /// [`Found::fault`] says why.
    pub(crate) fn fit(&mut self, kind: PayloadKind, rule: HandleRule, form: Form) -> bool {
        let is_usual = rule == HandleRule::None && self.handles.is_empty() && kind.has_only_size(self.payload.len());
        is_usual || self.fit_unusual(kind, rule, form)
    }

    #[inline(never)]
    fn fit_unusual(&mut self, kind: PayloadKind, rule: HandleRule, form: Form) -> bool {
        if !rule.allows(self.handles.len(), self.payload, form) {
            return false;
        }
        kind.has_only_size(self.payload.len()) || self.fit_size(kind, form)
    }

    #[inline(never)]
    fn fit_size(&mut self, kind: PayloadKind, form: Form) -> bool {
        let SizeRule::Exactly(size) = kind.size() else { return true };
        if kind.before_image().is_some() {
            return true;
        }
        // After a UUID none are skipped: the length tells one from what other dialects send under the same id.
        if form.trailing == TrailingBytes::Ignore && kind != PayloadKind::Uuid {
            self.payload = self.payload.get(..size).unwrap_or(self.payload);
        }
        // A reply whose content means nothing may have any (see `LogBase`).
        let is_free = size == 0 && form.role == Role::Reply;
        self.payload.len() == size || is_free
    }

    /// The number of an acknowledgement: zero for success. `None` if it is not one.
    pub(crate) fn number(&self) -> Option<u64> {
        let number = <[u8; 8]>::try_from(self.payload).ok()?;
        if self.handles.is_empty() { Some(u64::from_ne_bytes(number)) } else { None }
    }

    /// Whether a reply to a request of this row is missing what it is for.
    pub(crate) fn is_empty_refusal(&self, row: &Row) -> bool {
        let nothing_expected = row.reply_payload == PayloadKind::Empty;
        row.reply == ReplyRule::Own(Refusal::Empty)
            && self.handles.is_empty()
            && (nothing_expected || self.payload.is_empty())
    }
}

impl<'b> Found<'b> {
    pub(crate) fn new<H>(message: MessageName, frame: &Frame<'b, H>, form: Form) -> Self {
        let Frame { header, payload, handles } = frame;
        Self { message, payload, announced: header.size(), handles: handles.len(), form }
    }

    /// The same as it was before of so many descriptors some were taken.
    pub(crate) fn with_handles(self, handles: usize) -> Self {
        Self { handles, ..self }
    }

    /// How many descriptors this rule says, if not as many as came.
    fn wrong_count(&self, rule: HandleRule) -> Option<HandleCount> {
        let allowed = rule.allows(self.handles, self.payload, self.form);
        (!allowed).then(|| rule.count(self.payload, self.form))
    }

    /// Whether the image, if one follows, has the size that the request says.
    pub(crate) fn fits_image(&self, kind: PayloadKind) -> bool {
        kind.before_image().is_none() || has_whole_image(kind, self.payload, following(self.payload, self.announced))
    }

    /// Why this is no message whose payload is of this kind and whose descriptors follow this rule.
    #[cold]
    #[inline(never)]
    pub(crate) fn fault(&self, kind: PayloadKind, rule: HandleRule) -> DecodeError {
        let Self { message, payload, handles, form, .. } = *self;
        match self.wrong_count(rule) {
            Some(expected) => DecodeError::HandleCount { message, expected, found: handles },
            None => DecodeError::Payload { message, fault: kind.fault(payload, form) },
        }
    }

    /// The same of a message that an image may follow.
    #[cold]
    #[inline(never)]
    pub(crate) fn fault_with_image(&self, kind: PayloadKind, rule: HandleRule) -> DecodeError {
        let Self { message, payload, announced, .. } = *self;
        if self.wrong_count(rule).is_some() || self.fits_image(kind) {
            return self.fault(kind, rule);
        }
        let (width, height) = match (kind, Area::ref_from_prefix(payload)) {
            (PayloadKind::AreaImage, Ok((area, _))) => (area.width(), area.height()),
            _ => (CursorImage::SIDE, CursorImage::SIDE),
        };
        let fault = PayloadFault::Image { width, height, found: following(payload, announced) };
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
