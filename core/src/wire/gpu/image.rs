//! Bytes: messages that an image follows, and the size of that image.
//!
//! An image is too large for a buffer that every session keeps, and nobody wants it there: it is read straight to where
//! it is shown, and sent from where it was drawn. So a message holds what stands in front of the image; the image's
//! bytes are the caller's.

use zerocopy::{FromBytes, IntoBytes};

use crate::wire::{
    misfit::Misfit,
    payload::{Form, Payload, PayloadKind, Writer, fixed},
    scalar::layout,
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

    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit> {
        fixed(bytes, form).copied()
    }

    fn encode(&self, out: &mut Writer<'_>, _form: Form) {
        out.follow(Self::BYTES);
        out.put(self.as_bytes());
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

    fn decode(bytes: &'b [u8], form: Form) -> Result<Self, Misfit> {
        let area = *fixed::<Area>(bytes, form)?;
        // That width and height fit what follows was checked before.
        Self::new(area).ok_or(Misfit::Size)
    }

    fn encode(&self, out: &mut Writer<'_>, _form: Form) {
        out.follow(self.bytes);
        out.put(self.area.as_bytes());
    }
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
