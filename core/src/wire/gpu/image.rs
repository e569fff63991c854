//! Bytes: messages that an image follows, and the size of that image.
//!
//! An image is too large for a buffer that every session keeps, and nobody wants it there: it is read straight to where
//! it is shown, and sent from where it was drawn. So a message holds what stands in front of the image; the image's
//! bytes are the caller's.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::wire::{
    payload::{Body, Form, Payload, PayloadKind, is_of_size},
    scalar::layout,
    writer::Content,
};

use super::scanout::Area;

/// Bytes in front of an image.
pub(crate) const FRONT: usize = 20;

/// Bytes of a pixel.
const PIXEL: u64 = 4;

/// Payload bytes of `CURSOR_UPDATE` with its image.
pub(crate) const CURSOR_MESSAGE: usize = FRONT + 64 * 64 * 4;

layout! {
    /// A cursor's place and hot spot (`CURSOR_UPDATE`). Its image follows: 64 lines of 64 pixels
    /// of four bytes, blue, green, red and alpha on little-endian machines.
    pub struct CursorImage (20 bytes) {
        /// The scanout, from 0.
        field scanout: u32,
        /// Pixels from the left.
        field x: u32,
        /// Pixels from the top.
        field y: u32,
        /// The hot spot's place in the image, from the left.
        field hot_x: u32,
        /// The hot spot's place in the image, from the top.
        field hot_y: u32,
    }
}

impl CursorImage {
    /// Width and height in pixels.
    pub const SIDE: u32 = 64;
    /// Bytes of the image.
    pub const BYTES: u32 = Self::SIDE * Self::SIDE * 4;
}

impl<'b> Payload<'b> for CursorImage {
    const KIND: PayloadKind = PayloadKind::CursorImage;

    fn decode(body: Body<'b>, form: Form) -> Option<Self> {
        front(body.bytes, form).copied()
    }

    fn content(&self, _form: Form) -> Content<'_> {
        Content::BeforeImage(self.as_bytes(), Self::BYTES)
    }
}

/// A part of a scanout whose image follows (`UPDATE`): line after line, four bytes a pixel, blue,
/// green, red and nothing on little-endian machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AreaImage {
    area: Area,
    bytes: u32,
}

impl AreaImage {
    /// The image of an area; `None` if it is too large for a message.
    #[must_use]
    pub fn new(area: Area) -> Option<Self> {
        let pixels = u64::from(area.width()).checked_mul(u64::from(area.height()))?;
        let bytes = u32::try_from(pixels.checked_mul(PIXEL)?).ok()?;
        // With what stands in front of it, it must be a size that the header can tell.
        bytes.checked_add(u32::try_from(FRONT).ok()?)?;
        Some(Self { area, bytes })
    }

    /// Which part of the scanout.
    #[must_use]
    pub fn area(&self) -> &Area {
        &self.area
    }

    /// Bytes of the image: width times height times four.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        self.bytes
    }
}

impl<'b> Payload<'b> for AreaImage {
    const KIND: PayloadKind = PayloadKind::AreaImage;

    fn decode(body: Body<'b>, form: Form) -> Option<Self> {
        // That width and height fit what follows was checked before.
        front(body.bytes, form).and_then(|area| Self::new(*area))
    }

    fn content(&self, _form: Form) -> Content<'_> {
        Content::BeforeImage(self.area.as_bytes(), self.bytes)
    }
}

/// What stands in front of an image.
fn front<T: FromBytes + Immutable + KnownLayout + Unaligned>(bytes: &[u8], form: Form) -> Option<&T> {
    T::ref_from_prefix(bytes).ok().filter(|_| is_of_size(bytes, FRONT, form)).map(|(front, _)| front)
}

/// Compares the size that the header announces with the one that the message itself tells, before
/// anybody trusts either (CVE-2026-3886). A message that ends in front of its image is left to
/// its decoder.
pub(crate) fn has_whole_image(kind: PayloadKind, payload: &[u8], following: u32) -> bool {
    if payload.len() < FRONT {
        return true;
    }
    let expected = match (kind, Area::ref_from_prefix(payload)) {
        (PayloadKind::AreaImage, Ok((area, _))) => AreaImage::new(*area).map(|image| image.bytes),
        _ => Some(CursorImage::BYTES),
    };
    expected == Some(following)
}
